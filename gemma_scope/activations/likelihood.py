"""How surprised a model is by texts, and how much an edit changes that.

    NLL = mean over tokens of -log p(token | tokens before it)

in nats, BOS not predicted. The change from one model to another is measured on
the same texts, and its interval resamples texts, the unit that was drawn
(Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).
Logits exist for a few hundred tokens at a time only. Texts count as written by
the model behind a prompt, which is BOS alone by default: what is measured after
a prompt says how likely the model is to go on like that.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import TokenBatch, to_tokens
from gemma_scope.bootstrap import (
  LEVEL,
  RESAMPLES,
  percentile_ends,
  resampling_counts,
)
from gemma_scope.display import signed
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model import gemma
from gemma_scope.model.language_model import LanguageModel

ROWS_AT_ONCE = 8  # texts in one pass
LOGITS_AT_ONCE = 128  # tokens whose logits exist together: 134 MB

_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


@dataclasses.dataclass(frozen=True)
class NllChange:
  """The change of the NLL of some texts, in nats a token.

  Attributes:
    before: NLL under the model as it is.
    after: NLL under the edited model.
    low: Lower end of the 95 % interval of the change; NaN for a single text.
    high: Its upper end.
    num_texts: Number of texts.
  """

  before: float
  after: float
  low: float
  high: float
  num_texts: int

  @property
  def change(self) -> float:
    """After minus before: negative where the texts became more likely."""
    return self.after - self.before

  def __str__(self) -> str:
    texts = f"{self.num_texts} text{'s' * (self.num_texts != 1)}"
    shown = f"{self.before:.3f} -> {self.after:.3f} nats a token on {texts}"
    if np.isnan(self.low):
      return f"{shown}: {signed(self.change, 3)}"
    between = f"[{signed(self.low, 3)}, {signed(self.high, 3)}]"
    return f"{shown}: {signed(self.change, 3)} {between}"


def token_nll(
  lm: LanguageModel,
  texts: Sequence[str] | TokenBatch | str,
  *,
  after: str = "",
) -> list[np.ndarray]:
  """-log p of every token of each text, BOS left out.

  Args:
    lm: The model; `lm.replace(edited)` for an edited one.
    texts: Texts, or rows of tokens, one sequence each.
    after: A prompt that stands before every text and is not predicted.

  Returns:
    For each text [tokens] float32, in nats.

  Raises:
    TextError: If there is no text, or one without a token to predict.
  """
  batch, prompt = _behind(lm, texts, after)
  if batch.lengths.min() <= prompt or (batch.segment_ids > 1).any():
    raise TextError(
      "A text needs a token behind its prompt, or behind <bos>.",
      received=f"rows of {batch.lengths.tolist()[:8]} tokens",
      instead="texts that are not empty, one sequence in each row",
    )
  found: list[np.ndarray] = []
  for start in range(0, len(batch.ids), ROWS_AT_ONCE):
    rows = slice(start, start + ROWS_AT_ONCE)
    width = int(batch.lengths[rows].max())
    part = TokenBatch(
      batch.ids[rows, :width], batch.segment_ids[rows, :width], batch.exact
    )
    scores = _row_nll(lm.model, part.to_bucket(), prompt)
    found += [s[prompt - 1 : n - 1] for s, n in zip(scores, part.lengths)]
  return found


def _behind(
  lm: LanguageModel, texts: Sequence[str] | TokenBatch | str, after: str
) -> tuple[TokenBatch, int]:
  """The texts behind a prompt, and how many tokens that has, BOS included."""
  if not after:
    return to_tokens(lm, texts), 1
  if isinstance(texts, TokenBatch):
    raise TextError(
      "A prompt can stand before texts, not before rows of tokens.",
      received=f"after={after!r:.40} and {len(texts.ids)} rows of ids",
      instead="the texts, or rows that begin with the prompt",
    )
  encode = lm.tokenizer.encode
  prompt = encode(after)
  several = [texts] if isinstance(texts, str) else texts
  rows = [[*prompt, *encode(text, bos=False)] for text in several]
  return dataclasses.replace(to_tokens(lm, rows), exact=False), len(prompt)


def nll_change(
  lm: LanguageModel,
  edited: LanguageModel | gemma.Gemma,
  texts: Sequence[str] | str,
  *,
  after: str = "",
  seed: int = 0,
) -> NllChange:
  """How much an edit changes the NLL of held-out texts.

  Args:
    lm: The model as it is.
    edited: The edited model.
    texts: Texts that the edit was not made from.
    after: A prompt that stands before every text and is not predicted.
    seed: Seed of the bootstrap.

  Raises:
    ConfigError: If the two models are not of one shape.
    TextError: If there is no text, or one without a token to predict.
  """
  model = edited.model if isinstance(edited, LanguageModel) else edited
  if model.config != lm.config:
    raise ConfigError(
      "The edited model is of another shape.",
      received=f"{model.config.size} beside {lm.config.size}",
      instead="an edit of the same model, as surgery.intervene returns it",
    )
  old, new = (
    token_nll(one, texts, after=after) for one in (lm, lm.replace(model))
  )
  counts = np.asarray([len(one) for one in old], np.float64)
  sums = np.asarray([[b.sum(), a.sum()] for b, a in zip(old, new)])
  low, high = _interval(sums[:, 1] - sums[:, 0], counts, seed)
  means = sums.sum(axis=0) / counts.sum()
  return NllChange(
    float(means[0]), float(means[1]), low, high, num_texts=len(counts)
  )


def _interval(
  sums: np.ndarray, counts: np.ndarray, seed: int
) -> tuple[float, float]:
  """The percentile interval of sum / count when texts are drawn anew."""
  if len(counts) < 2:
    return np.nan, np.nan
  drawn = resampling_counts(len(counts), RESAMPLES, seed)
  return percentile_ends((drawn @ sums) / (drawn @ counts), LEVEL)


def _row_nll(model: gemma.Gemma, batch: TokenBatch, prompt: int) -> np.ndarray:
  """[batch, seq] -log p of the token after each; columns past a row's end
  mean nothing.
  """
  prompts = np.full_like(batch.ids, prompt)
  residual = _last_residual(model, batch.ids, batch.segment_ids, prompts)
  scores = next_token_nll(
    model, residual, batch.ids, batch.segment_ids, prompts
  )
  return np.asarray(scores)


@jax.jit
def _last_residual(
  model: gemma.Gemma,
  ids: Int[Array, "batch seq"],
  segment_ids: Int[Array, "batch seq"],
  prompts: Int[Array, "batch seq"],
) -> Float[Array, "batch seq embedding"]:
  residual, _ = gemma.run(model, ids, segment_ids, prompts=prompts)
  return residual.unwrap(*_STREAM)


@jax.jit
def next_token_nll(
  model: gemma.Gemma,
  residual: Float[Array, "batch seq embedding"],
  ids: Int[Array, "batch seq"],
  segment_ids: Int[Array, "batch seq"],
  prompts: Int[Array, "batch seq"] | None = None,
) -> Float[Array, "batch seq"]:
  """-log p of the token that stands behind each, in nats.

  Logits of `LOGITS_AT_ONCE` tokens exist together.

  Args:
    model: The model; of its layers nothing is used.
    residual: The residual stream behind the last layer.
    ids: Token ids.
    segment_ids: The sequence of each token; 0 is padding.
    prompts: Length of each token's prompt, if what follows it was generated.

  Returns:
    Float32. The last column, and tokens at the end of a sequence, mean
    nothing.
  """
  rows, width = ids.shape
  following = jnp.pad(ids[:, 1:], ((0, 0), (0, 1)))
  step = max(1, LOGITS_AT_ONCE // rows)
  # The last chunk is filled up with columns that are there already.
  count = -(-width // step)
  columns = jnp.minimum(jnp.arange(count * step), width - 1)
  placement = gemma.place(model, ids, segment_ids, prompts)

  def at(columns: Int[Array, " columns"]) -> Float[Array, "batch columns"]:
    place = placement.take(columns)
    chosen = pz.nx.wrap(jnp.take(residual, columns, axis=1), *_STREAM)
    normed, _ = gemma.apply_final_norm(model, chosen, place)
    named, _ = gemma.unembed(model, normed, place)
    logits = named.unwrap(axes.BATCH, axes.SEQ, axes.VOCABULARY)
    wanted = jnp.take(following, columns, axis=1)[:, :, None]
    score = jnp.take_along_axis(logits, wanted, axis=-1)[:, :, 0]
    return jax.nn.logsumexp(logits, axis=-1) - score

  scores = jax.lax.map(at, columns.reshape(count, step))
  return jnp.moveaxis(scores, 0, 1).reshape(rows, -1)[:, :width]
