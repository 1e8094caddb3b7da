"""Targets of the whole distribution: a log-probability, a divergence.

They need all logits of one position. Neither is linear: relevance starts at
the logits with logit x derivative, and promises no sum.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gemma_scope.activations.tokens import Input, to_tokens
from gemma_scope.attribution.objectives.logits import Tokens, token_rows
from gemma_scope.attribution.objectives.protocol import (
  Position,
  ResolvedTarget,
  Seen,
  Target,
  linearised,
)
from gemma_scope.attribution.rows import Rows, run_rows, to_rows
from gemma_scope.model.gemma import Gemma, token_logits
from gemma_scope.model.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class LogProbTarget(Target):
  """The log-probability of one token.

  Attributes:
    token: The token (text or id), or one for each prompt.
  """

  token: Tokens

  def resolve(self, lm: LanguageModel) -> "ResolvedLogProb":
    """The token as an id."""
    return ResolvedLogProb(jnp.asarray(token_rows(lm, [self.token])[:, 0]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResolvedLogProb(ResolvedTarget):
  """A log-probability as arrays.

  Attributes:
    ids: Token ids; a single one stands for every prompt.
  """

  ids: Int[Array, " rows"]
  linear = False

  @property
  def rows(self) -> int | None:
    """How many prompts it is for; None for any number."""
    return None if self.ids.shape[0] == 1 else self.ids.shape[0]

  def take(self, rows: Int[Array, " rows"]) -> "ResolvedLogProb":
    """The same for some of the prompts."""
    return self if self.rows is None else ResolvedLogProb(self.ids[rows])

  def value(self, seen: Seen) -> Float[Array, " batch"]:
    """Nats."""
    logits = seen.logits()
    ids = jnp.broadcast_to(self.ids, logits.shape[:1])

    def log_prob(z: Float[Array, "batch vocabulary"]) -> jax.Array:
      chosen = jnp.take_along_axis(z, ids[:, None], axis=1)[:, 0]
      return chosen - jax.nn.logsumexp(z, axis=1)

    return linearised(log_prob, logits)


@dataclasses.dataclass(frozen=True)
class DivergenceTarget(Target):
  """The divergence from what another run predicts.

  Attributes:
    other: Text, texts or token ids of the other run.
    model: The model of the other run; by default the one explained.
    other_position: Column of the other run.
  """

  other: Input
  model: LanguageModel | None
  other_position: Position

  def resolve(self, lm: LanguageModel) -> "ResolvedDivergence":
    """Runs the other prompts."""
    by = self.model or lm
    rows = to_rows(to_tokens(by, self.other), self.other_position)
    return ResolvedDivergence(_log_probs(by.model, rows))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResolvedDivergence(ResolvedTarget):
  """A divergence as arrays.

  Attributes:
    reference: Log-probabilities; one row stands for every prompt.
  """

  reference: Float[Array, "rows vocabulary"]
  linear = False

  @property
  def rows(self) -> int | None:
    """How many prompts it is for; None for any number."""
    count = self.reference.shape[0]
    return None if count == 1 else count

  def take(self, rows: Int[Array, " rows"]) -> "ResolvedDivergence":
    """The same for some of the prompts."""
    if self.rows is None:
      return self
    return ResolvedDivergence(self.reference[rows])

  def value(self, seen: Seen) -> Float[Array, " batch"]:
    """Nats, KL(reference || this run)."""
    p = jnp.exp(self.reference)

    def divergence(z: Float[Array, "batch vocabulary"]) -> jax.Array:
      log_q = jax.nn.log_softmax(z, axis=1)
      return jnp.sum(p * (self.reference - log_q), axis=1)

    return linearised(divergence, seen.logits())


@jax.jit
def _log_probs(model: Gemma, rows: Rows) -> Float[Array, "batch vocabulary"]:
  """Log-probabilities at each row's column."""
  normed, _ = run_rows(model, rows)
  logits = token_logits(normed, model.table.data_array)
  return jax.nn.log_softmax(logits, axis=1)


def log_prob(token: Tokens, position: Position = -1) -> Target:
  """The log-probability of a token, in nats.

  Args:
    token: An id or a text such as " Paris"; or one for each prompt.
    position: Column whose next token is meant.
  """
  return LogProbTarget(token, position=position)


def kl_divergence(
  other: Input,
  position: Position = -1,
  *,
  model: LanguageModel | None = None,
  other_position: Position = -1,
) -> Target:
  """KL(other run || this run), in nats, of the next token's distribution.

  At the other run itself both the value and its gradient are zero: use it on a
  corrupted prompt, an edited model, or as a metric of patching.

  Args:
    other: Text, texts or token ids of the other run, one row for all prompts
      or one for each.
    position: Column of this run whose next token is meant.
    model: The other run's model; by default the one explained.
    other_position: Column of the other run.
  """
  return DivergenceTarget(other, model, other_position, position=position)
