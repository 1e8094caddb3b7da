"""One decoder layer as an argument of a compiled program."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
from penzai import pz

from gemma_scope.errors import ConfigError
from gemma_scope.model.block import Block
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.placement import Placement
from gemma_scope.model.site_layer import SharingSite, acting_on
from gemma_scope.model.stack import active_sites, run_block, take_layer

ByName = dict[str, pz.nx.NamedArray]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
  """One decoder layer, as an argument of a program.

  Attributes:
    block: Its block; that of a scanned stack keeps the stacked weights, and
      the layer is cut out inside the program: no copy of it is kept.
    index: Its place in the stacked weights.
    shared: Layers that its sites share with others, such as dictionaries.
    read: What the target reads in it; static.
  """

  block: Block
  index: Int[Array, ""]
  shared: Mapping[str, Any]
  read: tuple[str, ...] = dataclasses.field(metadata={"static": True})

  def run(
    self,
    stream: pz.nx.NamedArray,
    placement: Placement,
    inputs: Mapping[str, Any],
  ) -> tuple[pz.nx.NamedArray, ByName]:
    """The residual stream behind it, and what its taps recorded."""
    block = take_layer(self.block, self.index)
    stream, seen, _ = run_block(
      *(block, stream, placement, None, inputs), *(self.shared, {})
    )
    return stream, seen


def layer_of(model: Gemma, layer: int, read: tuple[str, ...]) -> Layer:
  """One layer of a model, with the surgery that acts on it.

  Raises:
    ConfigError: If sites there exchange values with those of other layers,
      which a run that starts in the middle would miss.
  """
  stack = model.stack
  size = len(stack.period)
  scanned = layer < size * stack.num_periods
  block = stack.period[layer % size] if scanned else stack.block(layer)
  block = acting_on(block, layer)
  found: list[Any] = active_sites(block)
  using = [site for site in found if isinstance(site, SharingSite)]
  if any(site.crosses for site in using):
    raise ConfigError(
      "A model whose layers exchange values cannot be patched layer by layer.",
      received=f"a dictionary of several layers at layer {layer}",
      instead="dictionaries of one layer each, or the model without them",
    )
  shared = {site.uses: stack.shared[site.uses] for site in using}
  index = jnp.int32(layer // size if scanned else 0)
  return Layer(block, index, shared, read)
