"""A block: its sites in order, its arrays back as they went in."""

import jax
import jax.numpy as jnp
from penzai import pz
import pytest

from gemma_scope import axes
from gemma_scope.attribution import lrp
from gemma_scope.model.block import block_arrays, build_block
from gemma_scope.model.layout import LAYER_LAYOUT
from gemma_scope.model.site_layer import SiteLayer
from gemma_scope.sites import SITES, Site
from gemma_scope.surgery import offset, tap
from gemma_scope.surgery.rule_scope import rule_scope
from gemma_scope.testing.tiny import tiny_config, tiny_gemma
from gemma_scope.weights.checkpoint import layer_shapes


def arrays(front=()):
  shapes = layer_shapes(4, 2, 16, 32, 48)
  found = {}
  for name, how in LAYER_LAYOUT.items():
    shape = tuple(shapes[name][i] for i in how.order)
    number = len(found) + 1.0
    names = (axes.LAYER,) * len(front) + how.axes
    found[name] = pz.nx.wrap(jnp.full((*front, *shape), number), *names)
  return found


@pytest.mark.parametrize("front", [(), (3,)])
def test_a_block_gives_its_arrays_back(front):
  given = arrays(front)
  block = build_block(tiny_config(), is_global=False, arrays=given)
  found = block_arrays(block)
  assert found.keys() == given.keys()
  for name, array in given.items():
    assert found[name] is array


def test_every_site_of_a_layer_is_there_once_and_in_order():
  block = build_block(tiny_config(), is_global=False, arrays=arrays())
  found = [
    layer.name
    for layer in jax.tree.leaves(
      block, is_leaf=lambda node: isinstance(node, SiteLayer)
    )
    if isinstance(layer, SiteLayer)
  ]
  assert found == [name for name, info in SITES.items() if info.per_layer]


def test_local_and_global_layers_differ_in_their_window():
  local, whole = (
    build_block(tiny_config(window=8), is_global=g, arrays=arrays())
    for g in (False, True)
  )
  attention = [b.sublayers[1].delta.sublayers[2] for b in (local, whole)]
  assert [a.window for a in attention] == [8, None]
  assert all(a.scale == 0.25 for a in attention)  # 16 ** -0.5


def test_arrays_are_found_under_surgery_too():
  model = tiny_gemma()
  sites = [Site(name, 2) for name, info in SITES.items() if info.per_layer]
  edited = tap(offset(model, sites), sites)
  found = block_arrays(edited.stack.period[2])
  for name, array in block_arrays(model.stack.period[2]).items():
    assert found[name].data_array is array.data_array


def test_arrays_are_found_inside_rule_scopes():
  model = tiny_gemma()
  names = ("block[2]", "attn[2]", "query[2]", "key[2]", "resid_post[2]")
  scoped = rule_scope(model, names, {"weights": lrp.ZPlus()})
  found = block_arrays(scoped.stack.period[2])
  for name, array in block_arrays(model.stack.period[2]).items():
    assert found[name].data_array is array.data_array
