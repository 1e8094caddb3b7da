"""What a decoder layer is told besides the residual stream.

One `Context` travels through a block as a side input, and one `Tape` brings
back what taps recorded there. Both live for one trace of one block.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float
from penzai import pz

from gemma_scope.model.placement import Placement, Places


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Past:
  """Keys and values of earlier tokens.

  Attributes:
    key: Keys after norm and rotation; one layer's inside a block.
    value: Values.
    places: Sequence and position each slot was written for; segment 0 is an
      empty slot.
    rehearsal: The same of the rehearsal, in a model that has one (see
      `stack.Stack`); its places are those above.
  """

  key: Float[Array, "*layer batch slots kv_heads projection"]
  value: Float[Array, "*layer batch slots kv_heads projection"]
  places: Places
  rehearsal: "Past | None" = None


class Tape:
  """Collects values by site name while one block is traced."""

  def __init__(self) -> None:
    self.values: dict[str, pz.nx.NamedArray] = {}

  def record(self, name: str, value: pz.nx.NamedArray) -> None:
    """Keeps `value` under the site's `name`."""
    self.values[name] = value


@dataclasses.dataclass(frozen=True)
class Context:
  """The side input of every layer inside a block.

  Attributes:
    placement: Positions, segments and rotary angles of the tokens; there in
      every decoder layer, perhaps not at a site behind them.
    tape: Where taps put what they see.
    past: Keys and values of earlier tokens, when decoding with a cache.
    inputs: Values for this layer by site name, read by the edits there.
    shared: Layers that several sites use, by name; such as dictionaries.
    carried: What sites of this pass leave there for later ones, by the name of
      the shared layer; like the tape, filled while one block is traced.
  """

  placement: Placement | None
  tape: Tape
  past: Past | None = None
  inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shared: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  carried: dict[str, Any] = dataclasses.field(default_factory=dict)


def placed(context: Context) -> Placement:
  """The placement of a context inside a decoder layer."""
  assert context.placement is not None, "a decoder layer needs a placement"
  return context.placement
