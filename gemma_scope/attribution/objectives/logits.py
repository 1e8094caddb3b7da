"""Targets made of logits: one, a difference, a weighted sum.

Computed from the rows of the tied embedding that they name, never from the
whole vocabulary.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gemma_scope.attribution.objectives.protocol import (
  Position,
  ResolvedTarget,
  Seen,
  Target,
)
from gemma_scope.errors import TextError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.linear import precision_of

Token = str | int
Tokens = Token | Sequence[Token]


@dataclasses.dataclass(frozen=True)
class LogitTarget(Target):
  """A weighted sum of logits at one position.

  Attributes:
    tokens: For each summand a token (text or id), or one for each prompt.
    weights: The weight of each logit.
  """

  tokens: tuple[Tokens, ...]
  weights: tuple[float, ...]

  def resolve(self, lm: LanguageModel) -> "ResolvedLogits":
    """Token ids for the texts.

    Raises:
      TextError: If a text is not exactly one token, an id is unknown, or a
        token is named twice.
    """
    ids = token_rows(lm, self.tokens)
    if any(len(set(row)) < len(row) for row in ids.tolist()):
      raise TextError(
        "A target must not name a token twice.",
        received=f"{self.tokens}, ids {ids.tolist()}",
        instead="different tokens, such as ' Paris' and ' Rome'",
      )
    weights = jnp.asarray(self.weights, jnp.float32)
    return ResolvedLogits(jnp.asarray(ids), weights)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResolvedLogits(ResolvedTarget):
  """A weighted sum of logits as arrays.

  Attributes:
    ids: Token ids; one row stands for every prompt.
    weights: The weight of each logit, float32.
  """

  ids: Int[Array, "rows tokens"]
  weights: Float[Array, " tokens"]

  @property
  def rows(self) -> int | None:
    """How many prompts it is for; None for any number."""
    return None if self.ids.shape[0] == 1 else self.ids.shape[0]

  def take(self, rows: Int[Array, " rows"]) -> "ResolvedLogits":
    """The same for some of the prompts."""
    if self.rows is None:
      return self
    return dataclasses.replace(self, ids=self.ids[rows])

  def direction(
    self, table: Float[Array, "vocabulary embedding"]
  ) -> Float[Array, "rows embedding"]:
    """The direction of the final norm's output that the target reads."""
    chosen = jnp.take(table, self.ids, axis=0).astype(jnp.float32)
    return jnp.sum(chosen * self.weights[None, :, None], axis=1)

  def value(self, seen: Seen) -> Float[Array, " batch"]:
    """The weighted sum at the target's column, float32."""
    logits = some_logits(seen, self.ids)
    return jnp.sum(logits * self.weights[None, :], axis=1)


def some_logits(
  seen: Seen, ids: Int[Array, "rows tokens"]
) -> Float[Array, "batch tokens"]:
  """Logits of some tokens, each row's own where there are several rows."""
  batch = seen.normed.shape[0]
  chosen = jnp.take(seen.table, ids, axis=0)
  chosen = jnp.broadcast_to(chosen, (batch, *chosen.shape[1:]))
  return jnp.einsum(
    "bd,btd->bt",
    seen.normed,
    chosen,
    precision=precision_of(seen.normed.dtype),
    preferred_element_type=jnp.float32,
  )


def token_rows(
  lm: LanguageModel, tokens: Sequence[Tokens]
) -> Int[np.ndarray, "rows tokens"]:
  """Ids of tokens of which some are given once for each prompt.

  Raises:
    TextError: If a text is not one token, or the counts of prompts differ.
  """
  columns = [
    list(token)
    if isinstance(token, Sequence | np.ndarray) and not isinstance(token, str)
    else [token]
    for token in tokens
  ]
  counts = {len(column) for column in columns} - {1}
  if len(counts) > 1 or 0 in counts:
    raise TextError(
      "The tokens of a target are for different numbers of prompts.",
      received=f"{sorted(len(column) for column in columns)} tokens",
      instead="one token for all prompts, or one for each prompt",
    )
  rows = counts.pop() if counts else 1
  ids = [
    [lm.tokenizer.token_id(token) for token in column] for column in columns
  ]
  full = [column * rows if len(column) == 1 else column for column in ids]
  return np.asarray(full, np.int32).T


def logit(token: Tokens, position: Position = -1) -> Target:
  """The logit of one token.

  Args:
    token: An id or a text such as " Paris"; or one for each prompt.
    position: Column whose next token is meant.
  """
  return LogitTarget((token,), (1.0,), position=position)


def logit_difference(a: Tokens, b: Tokens, position: Position = -1) -> Target:
  """The logit of `a` minus the logit of `b`, each as in `logit`.

  Raises:
    TextError: If both are the same.
  """
  if a == b:
    raise TextError(
      "A difference needs two different tokens.",
      received=f"{a!r} and {b!r}",
      instead="for example logit_difference(' Paris', ' Rome')",
    )
  return LogitTarget((a, b), (1.0, -1.0), position=position)


def weighted_logits(
  tokens: Sequence[Tokens], weights: Sequence[float], position: Position = -1
) -> Target:
  """A weighted sum of logits, such as the mean of all names' logits.

  Raises:
    TextError: If there are not as many weights as tokens.
  """
  if len(tokens) != len(weights) or not tokens:
    raise TextError(
      "A weighted sum of logits needs one weight for each token.",
      received=f"{len(tokens)} tokens and {len(weights)} weights",
      instead="for example weighted_logits([' he', ' she'], [1, -1])",
    )
  return LogitTarget(
    tuple(tokens), tuple(map(float, weights)), position=position
  )
