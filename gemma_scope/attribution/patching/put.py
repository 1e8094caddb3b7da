"""The layer that puts another run's activation into some rows of a batch.

Every row has a place of its own: a position, a head, or all of them, at one of
the sites. The other rows and elements keep their value.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.context import Context
from gemma_scope.model.site_layer import ActiveSite

ALL = -1  # as a position or head: every one
HEAD_AXES = (axes.HEADS, axes.KV_HEADS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Put:
  """What goes where, row by row.

  Attributes:
    value: The other run's value for each row, with the site's axes.
    here: Whether the row is patched at this site.
    position: The column that is patched; `ALL` for every one.
    head: The head that is patched; `ALL` for every one.
  """

  value: pz.nx.NamedArray
  here: Bool[Array, " rows"]
  position: Int[Array, " rows"]
  head: Int[Array, " rows"]

  def into(self, value: pz.nx.NamedArray) -> pz.nx.NamedArray:
    """Puts it into a value with the same axes."""
    names = tuple(map(str, value.named_axes))
    into = value.unwrap(*names)
    chosen = self._chosen(names, into.shape)
    other = self.value.unwrap(*names).astype(into.dtype)
    return pz.nx.wrap(jnp.where(chosen, other, into), *names)

  def _chosen(self, names: tuple[str, ...], shape: tuple[int, ...]):
    """Which elements are replaced."""
    chosen = jnp.ones(shape, bool)
    for i, (name, size) in enumerate(zip(names, shape)):
      along = [1] * len(shape)
      if name == axes.BATCH:
        along[i] = size
        chosen &= self.here.reshape(along)
      if name == axes.SEQ or name in HEAD_AXES:
        index = self.position if name == axes.SEQ else self.head
        along[names.index(axes.BATCH)], along[i] = len(index), size
        match = index[:, None] == jnp.arange(size)[None, :]
        match |= (index == ALL)[:, None]
        if i < names.index(axes.BATCH):
          match = match.T
        chosen &= match.reshape(along)
    return chosen


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Patch(ActiveSite):
  """Puts what the context holds for its site into the value there."""

  def __call__(
    self, value: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Returns the value of `inner`, patched where its rows say so."""
    value = self.inner(value, context=context, **side_inputs)
    return context.inputs[key(self.name)].into(value)


def key(name: str) -> str:
  """The name under which a patch finds its `Put` among a layer's inputs.

  It is not the site's own, which belongs to offsets and replacements.
  """
  return f"{name} patch"
