"""The parts of an explanation: what was predicted, from what, along which way.

Plain frozen values of numpy arrays and Python scalars, float32 unless said,
so that they can be stored, sent and drawn without JAX. They hold one prompt
and one target. Nothing here computes a score or draws: the value that bundles
the parts and displays itself is `gemma_scope.viz.explanation.Explanation`.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from gemma_scope import errors


def _require_shape(
  name: str, array: np.ndarray, expected: tuple[int, ...]
) -> None:
  """Raises where an array does not have the shape its neighbours promise."""
  if np.shape(array) != expected:
    raise errors.GemmaScopeError(
      f"the parts of an explanation do not fit together: {name} has the wrong "
      "shape",
      received=f"{name} of shape {np.shape(array)}",
      instead=f"an array of shape {expected}",
    )


@dataclasses.dataclass(frozen=True)
class TokenInfo:
  """One token of the prompt.

  Attributes:
    id: Its id in the vocabulary.
    text: What it stands for, spaces and newlines as they are.
    start: The first character of the prompt it covers.
    end: One past the last; equal to `start` for a token without text.
    special: Whether it is a control token (BOS, turn markers), which is drawn
      apart and left out of colour scales.
  """

  id: int
  text: str
  start: int
  end: int
  special: bool = False


@dataclasses.dataclass(frozen=True)
class TargetInfo:
  """The number being explained: a logit, or the difference of two.

  Attributes:
    id: The vocabulary id of the token explained.
    text: Its text.
    position: The token of the prompt whose prediction is read; not negative.
    value: The logit, or the logit minus that of `against_id`.
    prob: The token's probability at that position.
    rank: How many tokens have a larger logit; 0 for the top one.
    against_id: The token it is compared with, or None.
    against_text: Its text, or None.
    against_prob: Its probability, or None.
  """

  id: int
  text: str
  position: int
  value: float
  prob: float
  rank: int
  against_id: int | None = None
  against_text: str | None = None
  against_prob: float | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One candidate for the next token.

  Attributes:
    id: Its vocabulary id.
    text: Its text.
    logit: Its logit.
    prob: Its probability, 0 to 1.
  """

  id: int
  text: str
  logit: float
  prob: float


@dataclasses.dataclass(frozen=True)
class TokenAttribution:
  """One method's answer to: which tokens of the prompt made the target?

  Attributes:
    method: Its name as typed, such as "integrated_gradients".
    title: Its name as read, such as "Integrated gradients".
    description: One sentence: what a score means.
    scores: [seq], in logits; positive speaks for the target.
    total: What the scores ought to sum to, or None where the method makes no
      such promise.
    seconds: How long it took, compilation included.
    site: The address the scores were taken at.
    notes: What a reader must know, one sentence each (baseline, steps).
    area: Between the curves of the target as tokens are taken away, least and
      most relevant first, in logits; None where that was not measured.
  """

  method: str
  title: str
  description: str
  scores: np.ndarray
  total: float | None = None
  seconds: float | None = None
  site: str = "embed"
  notes: tuple[str, ...] = ()
  area: float | None = None

  def __post_init__(self):
    _require_shape("scores", self.scores, (np.size(self.scores),))

  @property
  def sum(self) -> float:
    """The sum of all scores, control tokens included."""
    return float(np.sum(self.scores, dtype=np.float64))

  @property
  def residual(self) -> float | None:
    """`total` minus `sum` (completeness), or None without a promise."""
    return None if self.total is None else self.total - self.sum


@dataclasses.dataclass(frozen=True)
class LensGrid:
  """What the model would predict if it stopped after each layer.

  Attributes:
    labels: [rows] what each row reads, in the order of computation.
    positions: [columns] the tokens of the prompt, ascending.
    top_ids: [rows, columns] the most probable next token, int.
    top_texts: [rows][columns] its text.
    top_probs: [rows, columns] its probability.
    target_probs: [rows, columns] the probability of the target.
    target_ranks: [rows, columns] how many tokens beat the target, int.
  """

  labels: tuple[str, ...]
  positions: tuple[int, ...]
  top_ids: np.ndarray
  top_texts: tuple[tuple[str, ...], ...]
  top_probs: np.ndarray
  target_probs: np.ndarray
  target_ranks: np.ndarray

  def __post_init__(self):
    shape = (len(self.labels), len(self.positions))
    for name in ("top_ids", "top_probs", "target_probs", "target_ranks"):
      _require_shape(f"lens {name}", getattr(self, name), shape)
    for row in self.top_texts:
      _require_shape("a row of lens top_texts", np.empty(len(row)), shape[1:])
    _require_shape("lens top_texts", np.empty(len(self.top_texts)), shape[:1])


@dataclasses.dataclass(frozen=True)
class ComponentScores:
  """Direct logit attribution: what each component writes towards the target.

  Attributes:
    labels: [components] addresses of the writers into the residual stream, in
      the order of computation: `embed`, `attn_write[0]`, `mlp_write[0]`, ….
    values: [components] in logits, with the final norm's scale frozen.
    total: The logit (or difference) that the values must sum to.
    heads: [layer, head] the part of each head in `attn_write`, or None.
  """

  labels: tuple[str, ...]
  values: np.ndarray
  total: float
  heads: np.ndarray | None = None

  def __post_init__(self):
    _require_shape("component values", self.values, (len(self.labels),))
    if self.heads is not None:
      layers = sum(label.startswith("attn_write") for label in self.labels)
      _require_shape("heads", self.heads, (layers, np.shape(self.heads)[-1]))

  @property
  def sum(self) -> float:
    """The sum of all values."""
    return float(np.sum(self.values, dtype=np.float64))

  @property
  def residual(self) -> float:
    """`total` minus `sum`: rounding, unless something is wrong."""
    return self.total - self.sum


@dataclasses.dataclass(frozen=True)
class AttentionPatterns:
  """Attention probabilities, packed into bytes (see `pack_attention`).

  Attributes:
    weights: [layer, head, row, entry] uint8; the probability is
      (weight / 255)², which keeps small ones apart.
    queries: [row] the tokens that look, ascending.
    keys: [layer, head, row, entry] uint16, the tokens looked at, strongest
      first; None where every token is stored and entry k is token k.
    kinds: [layer] "local" or "global", or empty where not known.
  """

  weights: np.ndarray
  queries: tuple[int, ...]
  keys: np.ndarray | None = None
  kinds: tuple[str, ...] = ()

  def __post_init__(self):
    layers, heads, _, entries = np.shape(self.weights)
    shape = (layers, heads, len(self.queries), entries)
    _require_shape("attention weights", self.weights, shape)
    if self.keys is not None:
      _require_shape("attention keys", self.keys, shape)
    if self.kinds:
      _require_shape("attention kinds", np.empty(len(self.kinds)), (layers,))

  @property
  def probabilities(self) -> np.ndarray:
    """[layer, head, row, entry] float32, to within 0.004."""
    return np.square(self.weights.astype(np.float32) / 255)


def pack_attention(
  probabilities: np.ndarray,
  *,
  queries: Sequence[int] | None = None,
  kinds: Sequence[str] = (),
  max_bytes: int = 1_500_000,
) -> AttentionPatterns:
  """Packs attention probabilities into about `max_bytes` bytes.

  Short prompts are kept whole. Longer ones keep the strongest keys of every
  query; where fewer than 8 a query would be left, only the last queries.

  Args:
    probabilities: [layer, head, query, key], floating.
    queries: [query] the tokens that look; by default the last ones, so that
      the last query is the last token.
    kinds: [layer] "local" or "global".
    max_bytes: How much the arrays may take; at least one query is kept.
  """
  layers, heads, rows, length = probabilities.shape
  if queries is None:
    queries = range(length - rows, length)
  row_bytes = layers * heads * length
  if rows * row_bytes <= max_bytes:
    return AttentionPatterns(
      _to_bytes(probabilities), tuple(queries), None, tuple(kinds)
    )
  entry_bytes = layers * heads * 3  # one byte of weight, two of key
  rows = min(rows, max(1, max_bytes // (entry_bytes * 8)))
  entries = min(length, max(8, max_bytes // (entry_bytes * rows)))
  weights, keys = _strongest(probabilities[:, :, -rows:], entries)
  return AttentionPatterns(weights, tuple(queries)[-rows:], keys, tuple(kinds))


def _to_bytes(probabilities: np.ndarray) -> np.ndarray:
  """Square roots in steps of 1/255: fine where probabilities are small."""
  return np.rint(np.sqrt(probabilities) * 255).astype(np.uint8)


def _strongest(
  probabilities: np.ndarray, entries: int
) -> tuple[np.ndarray, np.ndarray]:
  """Bytes and indices of the largest `entries` on the last axis, descending."""
  first = np.argpartition(-probabilities, entries - 1, axis=-1)[..., :entries]
  values = np.take_along_axis(probabilities, first, axis=-1)
  order = np.argsort(-values, axis=-1, kind="stable")
  keys = np.take_along_axis(first, order, axis=-1).astype(np.uint16)
  return _to_bytes(np.take_along_axis(values, order, axis=-1)), keys
