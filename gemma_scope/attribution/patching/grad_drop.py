"""GradDrop: slopes with one layer's contribution held constant at a time.

    magnitude = 1 / (L - 1)  sum over l of |estimate, slope through l dropped|

Direct and indirect effects of a node may cancel in its gradient. They do not
cancel in all L gradients at once, each of which takes what one decoder layer
adds to the residual stream (attention and feed-forward) as a constant. A node
inside layer l has no effect when l is dropped, which leaves L - 1 terms. Nodes
of the stream itself, which the paper does not score, have L terms, and their
mean.

Source: Kramar et al. 2024, "AtP*", section 3.1.2, eq. 11, for one pair; the
mean over pairs is left to the reader.
"""

import dataclasses

import jax
from jaxtyping import Array, Bool, Float, Int
import numpy as np
from penzai import pz

from gemma_scope.attribution.patching.by_layer import (
  where_acting,
  wrap_by_row,
)
from gemma_scope.model.context import Context
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveSite
from gemma_scope.sites import Site

WRITES = ("attn_write", "mlp_write")
# Sites that are no part of what their layer adds to the stream.
OF_THE_STREAM = ("embed", "resid_pre", "resid_mid", "resid_post", "final_norm")


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Gate(ActiveSite):
  """Passes every value, and drops the gradient of some rows.

  Attributes:
    drops: {batch} whether a row's gradient is dropped.
  """

  drops: pz.nx.NamedArray = dataclasses.field(kw_only=True)

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner`."""
    value = self.inner(value, context=context, **side_inputs)
    return where_acting(self.drops, jax.lax.stop_gradient(value), value)


def gated(model: Gemma, drops: Bool[Array, "layers batch"]) -> Gemma:
  """A model of equal values, in which some layers' gradients are dropped.

  Args:
    model: The model.
    drops: Whether what a layer adds to the stream is a constant to the
      gradient of a row.
  """

  def make(
    inner: pz.nn.Layer,
    name: str,
    layers: tuple[int, ...] | None,
    acts: pz.nx.NamedArray,
  ) -> pz.nn.Layer:
    return Gate(inner=inner, name=name, layers=layers, drops=acts)

  return wrap_by_row(model, WRITES, drops, make)


def mean_size(
  sizes: Float[np.ndarray, "drops batch ..."],
  dropped: Int[np.ndarray, " drops"],
  site: Site,
  num_layers: int,
) -> Float[np.ndarray, "batch ..."]:
  """The share of some drops in the mean of a site's sizes.

  Args:
    sizes: Estimates, drop by drop, of which the sign does not count.
    dropped: The layer of each drop; negative for one that does not count.
    site: The site.
    num_layers: Layers of the model, each dropped once.
  """
  counts, terms = dropped >= 0, num_layers
  if site.name not in OF_THE_STREAM:
    counts &= dropped != site.layer
    terms = max(1, num_layers - 1)
  share = counts.astype(np.float32) / terms
  return np.tensordot(share, np.abs(sizes), axes=1)
