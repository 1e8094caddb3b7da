"""What is explained: a logit, or a difference of logits, at one position.

A target names tokens as a person does (a string or an id). `resolve` turns it
into ids and weights, and the value is computed from the rows of the tied
embedding that it names, never from the whole vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gemma_scope.errors import TextError
from gemma_scope.model.gemma import token_logits
from gemma_scope.model.tokenizer import Tokenizer

Token = str | int


@dataclasses.dataclass(frozen=True)
class Target:
  """A weighted sum of logits at one position.

  Attributes:
    tokens: Token texts or ids.
    weights: The weight of each logit.
    position: Column of the prompt whose next token is meant; negative counts
      from each row's end.
  """

  tokens: tuple[Token, ...]
  weights: tuple[float, ...]
  position: int = -1

  def resolve(self, tokenizer: Tokenizer) -> "ResolvedTarget":
    """Token ids for the texts.

    Raises:
      TextError: If a text is not exactly one token, or an id is unknown.
    """
    ids = [tokenizer.token_id(token) for token in self.tokens]
    if len(set(ids)) < len(ids):
      raise TextError(
        "A target must not name a token twice.",
        received=f"{self.tokens}, ids {ids}",
        instead="different tokens, such as ' Paris' and ' Rome'",
      )
    return ResolvedTarget(
      jnp.asarray(ids, jnp.int32), jnp.asarray(self.weights, jnp.float32)
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResolvedTarget:
  """A target as arrays, so that another token does not compile again.

  Attributes:
    ids: Token ids.
    weights: The weight of each logit, float32.
  """

  ids: Int[Array, " tokens"]
  weights: Float[Array, " tokens"]

  def direction(
    self, table: Float[Array, "vocabulary embedding"]
  ) -> Float[Array, " embedding"]:
    """The direction of the final norm's output that the target reads."""
    rows = jnp.take(table, self.ids, axis=0).astype(jnp.float32)
    return jnp.sum(rows * self.weights[:, None], axis=0)

  def value(
    self,
    normed: Float[Array, "batch embedding"],
    table: Float[Array, "vocabulary embedding"],
  ) -> Float[Array, " batch"]:
    """The target at the final norm's output of its position, float32."""
    logits = token_logits(normed, jnp.take(table, self.ids, axis=0))
    return jnp.sum(logits * self.weights[None, :], axis=1)


def logit(token: Token, position: int = -1) -> Target:
  """The logit of one token, given as an id or as a text such as " Paris"."""
  return Target((token,), (1.0,), position)


def logit_difference(a: Token, b: Token, position: int = -1) -> Target:
  """The logit of `a` minus the logit of `b`."""
  if a == b:
    raise TextError(
      "A difference needs two different tokens.",
      received=f"{a!r} and {b!r}",
      instead="for example logit_difference(' Paris', ' Rome')",
    )
  return Target((a, b), (1.0, -1.0), position)
