"""The factor 1 / rms of a norm as a site, where somebody asks for it.

    y = x * inverse_rms * (1 + scale)

A norm in the model is one layer. Surgery that addresses a site's part
`inverse_rms` opens the norm that gives the site: the same numbers, with a site
on the way.
"""

import dataclasses

import jax.numpy as jnp
from penzai import pz

from gemma_scope.model import norms
from gemma_scope.model.attention import Attention
from gemma_scope.model.block import Block
from gemma_scope.model.context import Context
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import ActiveLayer, SiteLayer


@pz.pytree_dataclass
class OpenNorm(pz.nn.Layer):
  """An RMSNorm whose factor passes a site.

  Attributes:
    norm: The norm as it was.
    inverse_rms: Site of the factor.
  """

  norm: norms.RMSNorm
  inverse_rms: pz.nn.Layer

  def __call__(
    self, x: pz.nx.NamedArray, /, *, context: Context, **side_inputs
  ) -> pz.nx.NamedArray:
    """Normalises `x`; float32 inside, `x`'s dtype outside."""
    (axis,) = self.norm.scale.named_axes
    inner = x.untag(axis)
    factor = pz.nx.nmap(lambda v: norms.inverse_rms(v, self.norm.eps)[0])(inner)
    factor = self.inverse_rms(factor, context=context, **side_inputs)

    def times(v, w, f):
      gain = 1.0 + w.astype(jnp.float32)
      return (v.astype(jnp.float32) * f * gain).astype(v.dtype)

    scale = self.norm.scale.untag(axis)
    return pz.nx.nmap(times)(inner, scale, factor).tag(axis)

  @property
  def scale(self) -> pz.nx.NamedArray:
    """The norm's gain without its +1."""
    return self.norm.scale


def open_norms(model: Gemma, names: set[str]) -> Gemma:
  """Opens the norms that give the sites of some names, in every layer.

  Args:
    model: The model.
    names: Names of parts, such as "attn_in.inverse_rms"; others are ignored.
  """
  wanted = {
    name.partition(".")[0] for name in names if name.endswith(".inverse_rms")
  }
  if not wanted:
    return model
  stack = dataclasses.replace(
    model.stack,
    period=tuple(_open_block(block, wanted) for block in model.stack.period),
    rest=tuple(_open_block(block, wanted) for block in model.stack.rest),
  )
  final = model.final_norm
  if "final_norm" in wanted:
    final = _open(final, "final_norm")
  return dataclasses.replace(model, stack=stack, final_norm=final)


def _open_block(block: Block, wanted: set[str]) -> Block:
  """Opens norms of one block by the site that follows each."""

  def branch(layers: pz.nn.Sequential) -> pz.nn.Sequential:
    inside = list(layers.sublayers)
    for norm, site in ((0, 1), (4, 5)):
      name = getattr(inside[site], "name", "")
      if name in wanted:
        inside[norm] = _open(inside[norm], name)
    return pz.nn.Sequential(inside)

  def attention(layer: Attention) -> Attention:
    changed = {
      f"{name}_norm": _open(getattr(layer, f"{name}_norm"), name)
      for name in ("query", "key")
      if name in wanted
    }
    return dataclasses.replace(layer, **changed)

  block = pz.select(block).at_instances_of(Attention).apply(attention)
  return pz.select(block).at_instances_of(pz.nn.Sequential).apply(branch)


def _open(norm: pz.nn.Layer, name: str) -> pz.nn.Layer:
  """Opens a norm, inside whatever scopes surround it."""
  if isinstance(norm, ActiveLayer):
    return dataclasses.replace(norm, inner=_open(norm.inner, name))
  if not isinstance(norm, norms.RMSNorm):
    return norm  # open already
  return OpenNorm(norm, SiteLayer(f"{name}.inverse_rms"))
