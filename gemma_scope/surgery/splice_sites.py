"""The two layers a splice consists of: one that reads, one that writes.

They share the dictionary, which the stack holds, and leave each other values in
`Context.carried` under its key: `x` what was read, `f` the latents, `f0` the
latents nobody edited (where they differ), `y` and `y0` what is rebuilt from
these, each by position.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.context import Context
from gemma_scope.model.site_layer import SharingSite, SiteLayer
from gemma_scope.surgery import ports as port_lib
from gemma_scope.surgery.ports import Ports

_LATENTS = (axes.BATCH, axes.SEQ, axes.LATENTS)
Left = dict[str, dict[int, Any]]


@pz.pytree_dataclass
class SpliceRead(SharingSite):
  """Gives the value that passes to a dictionary, and changes nothing.

  Attributes:
    inner: The layer that was here before; runs first.
    name: The site's name.
    layers: The decoder layers it acts on; None where the site has no layer.
    uses: Key of the dictionary in `Stack.shared`.
    crosses: Whether the dictionary connects different decoder layers.
    ahead: Whether it writes before all it reads is known.
    ports: Where the dictionary is connected.
    position: Which of the sites read this is.
    latents: Site of the latents computed here; None if there are none.
    num_latents: How many these are.
  """

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  uses: str = dataclasses.field(metadata={"pytree_node": False})
  crosses: bool = dataclasses.field(metadata={"pytree_node": False})
  ahead: bool = dataclasses.field(metadata={"pytree_node": False})
  ports: Ports = dataclasses.field(metadata={"pytree_node": False})
  position: int = dataclasses.field(metadata={"pytree_node": False})
  latents: pz.nn.Layer | None
  num_latents: int | None = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner`; latents are left for the writers."""
    value = self.inner(value, context=context, **side_inputs)
    left = context.carried.get(self.uses, {})
    if not (self.ahead and "y" in left):  # else rehearsed, and known
      context.carried[self.uses] = self._read(value, left, context)
    return value

  def _read(
    self, value: pz.nx.NamedArray, left: Left, context: Context
  ) -> Left:
    """What is left for later sites, now that this one was read."""
    layer, ports = context.shared[self.uses], self.ports
    x = {**left.get("x", {}), self.position: value}
    f, f0 = dict(left.get("f", {})), dict(left.get("f0", {}))
    last = self.position == len(ports.reads) - 1
    if ports.layered or last:
      plain = port_lib.encode(layer, ports, self.position, x)
      f[self.position] = edited = self._through_site(plain, context)
      if edited is not plain:
        f0[self.position] = plain
    left = {"x": x, "f": f, "f0": f0}
    if ports.joint and last:
      left["y"] = port_lib.rebuild_all(layer, ports, f, x)
      if f0:
        left["y0"] = port_lib.rebuild_all(layer, ports, f | f0, x)
    return left

  def _through_site(self, plain: Any, context: Context) -> Any:
    """Latents as edited; the same object if nothing edits them."""
    if self.latents is None:
      return plain
    named = pz.nx.wrap(plain, *_LATENTS)
    edited = self.latents(named, context=context)
    return plain if edited is named else edited.unwrap(*_LATENTS)


@pz.pytree_dataclass
class SpliceWrite(SharingSite):
  """Puts what a dictionary rebuilds in the place of the value.

  Attributes:
    inner: The layer that was here before; runs first.
    name: The site's name.
    layers: The decoder layers it acts on; None where the site has no layer.
    uses: Key of the dictionary in `Stack.shared`.
    crosses: Whether the dictionary connects different decoder layers.
    ahead: Whether it writes before all it reads is known.
    ports: Where the dictionary is connected.
    position: Which of the sites written this is.
    mode: "keep", "drop" or "freeze".
    error: Site of the error; None where it is dropped.
  """

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  uses: str = dataclasses.field(metadata={"pytree_node": False})
  crosses: bool = dataclasses.field(metadata={"pytree_node": False})
  ahead: bool = dataclasses.field(metadata={"pytree_node": False})
  ports: Ports = dataclasses.field(metadata={"pytree_node": False})
  position: int = dataclasses.field(metadata={"pytree_node": False})
  mode: str = dataclasses.field(metadata={"pytree_node": False})
  error: pz.nn.Layer | None

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns what is rebuilt, with the error as `mode` says."""
    target = self.inner(value, context=context, **side_inputs)
    left = context.carried.get(self.uses, {})
    if self.ahead and "y" not in left:
      return target  # in the rehearsal
    y, clean = self._rebuilt(left, context)
    if self.mode == "drop":
      new = port_lib.like(y, target)
    else:
      new = self._with_error(target, y, clean, context)
    if not self.crosses:
      del context.carried[self.uses]
    return new.order_like(target).astype(target.dtype)

  def _rebuilt(
    self, left: Left, context: Context
  ) -> tuple[jax.Array, jax.Array | None]:
    """From the latents as they are; and unedited, if they were edited."""
    if self.ports.joint:
      clean = left.get("y0", {}).get(self.position)
      return left["y"][self.position], clean
    layer, f, f0 = context.shared[self.uses], left["f"], left["f0"]

    def rebuilt(latents: dict[int, Any]) -> jax.Array:
      given = (layer, self.ports, self.position, latents, left["x"])
      return port_lib.rebuild(*given)

    return rebuilt(f), rebuilt(f | f0) if f0 else None

  def _with_error(
    self,
    target: pz.nx.NamedArray,
    y: jax.Array,
    clean: jax.Array | None,
    context: Context,
  ) -> pz.nx.NamedArray:
    """What is rebuilt and the error, in float32.

    Where nobody looks at the error, the difference that edits make is added
    to the target: then no rounding is left of a dictionary nobody edited.
    """
    frozen = self.mode == "freeze"
    hold = jax.lax.stop_gradient if frozen else lambda a: a
    exact = target.astype(jnp.float32)
    unedited = y if clean is None else clean
    if not isinstance(self.error, SiteLayer):
      error = hold(exact - port_lib.like(unedited, target))
      assert self.error is not None
      error = self.error(error, context=context)
      return port_lib.like(y, target) + error
    if clean is None and not frozen:
      return exact
    return hold(exact) + port_lib.like(y - hold(unedited), target)
