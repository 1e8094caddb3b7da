"""Where relevance flows: through layers and tokens, heads and neurons.

One backward pass brings the relevance of every site. Its residual streams show
the way from the last token back to the words it came from; its heads and
neurons say who moved it. Plain values of numpy arrays, like `explanation`.
"""

import dataclasses

import numpy as np

from gemma_scope import axes, errors
from gemma_scope.attribution.result import Attribution
from gemma_scope.sites import Site

SITES = ("embed", "resid_post[:]", "z[:]")
NEURONS = "mlp_act[:]"


@dataclasses.dataclass(frozen=True)
class RankedNeuron:
  """A neuron by its relevance in one prompt.

  Attributes:
    label: Its site, such as "mlp_act[5]".
    index: Which neuron of the layer.
    relevance: In the target's units, summed over tokens.
    position: The token at which most of it stands.
  """

  label: str
  index: int
  relevance: float
  position: int


@dataclasses.dataclass(frozen=True)
class RelevanceFlow:
  """Relevance of one prompt, layer by layer.

  Attributes:
    method: The method it was found with, as typed.
    title: The same as read.
    labels: [rows] sites of the residual stream, in forward order.
    values: [rows, seq] relevance of each token there.
    target: The value explained.
    conserves: Whether the method promises that every row sums to it.
    heads: [layer, head] relevance of each head's output, all tokens.
    neurons: The strongest, by size; empty where they were not asked for.
  """

  method: str
  title: str
  labels: tuple[str, ...]
  values: np.ndarray
  target: float
  conserves: bool
  heads: np.ndarray
  neurons: tuple[RankedNeuron, ...]

  def __post_init__(self):
    if np.shape(self.values)[:1] != (len(self.labels),):
      raise errors.GemmaScopeError(
        "A flow needs one row of relevance for each site.",
        received=f"values {np.shape(self.values)}, {len(self.labels)} labels",
        instead=f"values of shape ({len(self.labels)}, tokens)",
      )

  @property
  def sums(self) -> np.ndarray:
    """[rows] what the relevance of each row adds up to."""
    return np.asarray(np.sum(self.values, axis=1, dtype=np.float64))

  @property
  def residuals(self) -> np.ndarray:
    """[rows] target minus the sum: what the method lost or made on the way."""
    return np.asarray(self.target - self.sums)


def flow_of(
  attribution: Attribution, title: str, *, count: int = 12
) -> RelevanceFlow:
  """The flow of the first prompt of an attribution at `SITES`.

  Args:
    attribution: Relevance at `SITES`, perhaps also at `NEURONS`.
    title: The method's name as read.
    count: How many neurons to name.
  """
  streams = [s for s in attribution if s.name in ("embed", "resid_post")]
  rows = [
    np.asarray(attribution.per_token(site).data_array)[0] for site in streams
  ]
  layers = [site for site in attribution if site.name == "z"]
  heads = [np.asarray(attribution.per_head(s).data_array)[0] for s in layers]
  promised = attribution.expected[streams[0]]
  return RelevanceFlow(
    method=attribution.method,
    title=title,
    labels=tuple(map(str, streams)),
    values=np.stack(rows),
    target=float(attribution.target[0]),
    conserves=bool(np.isfinite(promised).all()),
    heads=np.stack(heads),
    neurons=_neurons(attribution, count),
  )


def _neurons(attribution: Attribution, count: int) -> tuple[RankedNeuron, ...]:
  """The strongest neurons, each with the token where most of it stands."""
  if not any(site.name == "mlp_act" for site in attribution):
    return ()
  return tuple(
    RankedNeuron(
      str(found.site),
      found.index,
      found.relevance,
      _position(attribution, found.site, found.index),
    )
    for found in attribution.top("mlp_act", count)[0]
  )


def _position(attribution: Attribution, site: Site, index: int) -> int:
  value = attribution[site].unwrap(axes.BATCH, axes.SEQ, axes.NEURONS)
  return int(np.abs(np.asarray(value)[0, :, index]).argmax())
