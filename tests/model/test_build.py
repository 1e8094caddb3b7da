"""One definition of the model: every size as shapes, random tensors, print."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest
import treescope

from gemma_scope import axes
from gemma_scope.model import build, layout
from gemma_scope.model.config import SIZES, preset
from gemma_scope.sites import SITES, Site
from gemma_scope.surgery import tap
from gemma_scope.testing.tiny import tiny_config, tiny_gemma
from gemma_scope.weights.checkpoint import canonical_shapes

PARAMETERS = {
  "270m": 268_098_176,
  "1b": 999_885_952,
  "4b": 3_880_099_328,
  "12b": 11_765_788_416,
  "27b": 27_009_002_240,
}


def named_leaves(model):
  return jax.tree.leaves(model, is_leaf=pz.nx.is_namedarray)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_all_sizes_have_their_parameters_and_every_axis_a_name(size, scan):
  model = build.abstract_gemma(preset(size), scan=scan)
  leaves = named_leaves(model)
  counts = [math.prod(leaf.named_shape.values()) for leaf in leaves]
  assert sum(counts) == PARAMETERS[size]
  for leaf in leaves:
    assert isinstance(leaf, pz.nx.NamedArray)
    assert leaf.positional_shape == ()
    assert set(leaf.named_axes) <= set(axes.GLOSSARY)
    assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("size", SIZES)
def test_a_scanned_model_stacks_whole_periods(size):
  config = preset(size)
  model = build.abstract_gemma(config, jnp.bfloat16)
  periods, rest = divmod(config.num_layers, 6)
  assert model.stack.num_periods == periods
  assert len(model.stack.period) == 6
  assert len(model.stack.rest) == rest
  assert model.stack.num_layers == model.stack.stop == config.num_layers
  for leaf in named_leaves(model.stack.period):
    assert next(iter(leaf.named_shape.items())) == (axes.LAYER, periods)
  for leaf in named_leaves((model.stack.rest, model.table)):
    assert axes.LAYER not in leaf.named_axes
  assert {leaf.dtype for leaf in named_leaves(model)} == {jnp.dtype("bfloat16")}
  # A dozen arrays a place, whatever the depth.
  assert len(named_leaves(model)) == 11 * (6 + rest) + 2


def test_an_unrolled_model_has_an_array_for_every_tensor():
  model = build.abstract_gemma(preset("270m"), scan=False)
  assert model.stack.period == ()
  assert len(named_leaves(model)) == len(canonical_shapes(SIZES["270m"].sizes))


def test_fewer_layers_than_a_period_are_not_scanned():
  model = build.abstract_gemma(tiny_config(num_layers=4), scan=True)
  assert model.stack.period == ()
  assert len(model.stack.rest) == 4


@pytest.mark.parametrize("print_it", [repr, treescope.render_to_text])
def test_a_printed_model_shows_its_sites_and_taps(print_it):
  model = tiny_gemma()
  text = print_it(model)
  for name in SITES:
    assert re.search(rf"SiteLayer\(name='{name}'\)", text), name
  assert "Tap" not in text
  tapped = tap(model, [Site("z", 1), Site("logits"), Site("mlp_act", 7)])
  text = print_it(tapped)
  found = re.findall(r"Tap\([^T]*name='(\w+)', layers=(None|\([^)]*\))", text)
  assert found == [("z", "(1,)"), ("mlp_act", "(7,)"), ("logits", "None")]


def test_requests_say_what_they_want():
  asked = []
  config = tiny_config(num_layers=13)
  shapes = canonical_shapes(config.sizes)

  def source(request):
    asked.append(request)
    shape = build.request_shape(request, shapes)
    return pz.nx.wrap(jnp.zeros(shape), *request.axes)

  build.build_gemma(config, source)
  names = [name for request in asked for name in request.names]
  assert sorted(names) == sorted(shapes)
  query = next(r for r in asked if "layer_1/attn/q_einsum/w" in r.names)
  assert query.names == tuple(f"layer_{i}/attn/q_einsum/w" for i in (1, 7))
  assert query.axes == ("layer", "embedding", "heads", "projection")
  assert build.request_shape(query, shapes) == (2, 32, 4, 16)
  single = next(r for r in asked if "layer_12/mlp/linear" in r.names)
  assert not single.stacked
  assert single.layout == layout.LAYER_LAYOUT["mlp/linear"]


def test_random_tensors_are_canonical_and_keep_the_scale():
  config = tiny_config(num_layers=2)
  tensors = build.random_tensors(config, seed=3)
  shapes = {name: value.shape for name, value in tensors.items()}
  assert shapes == canonical_shapes(config.sizes)
  assert {value.dtype for value in tensors.values()} == {np.dtype("float32")}
  deviation = {
    "embedder/input_embedding": 32**-0.5,
    "layer_1/attn/q_einsum/w": 32**-0.5,
    "layer_1/attn/kv_einsum/w": 32**-0.5,
    "layer_1/attn/attn_vec_einsum/w": 64**-0.5,
    "layer_1/mlp/gating_einsum": 32**-0.5,
    "layer_1/mlp/linear": 48**-0.5,
    "layer_1/post_ffw_norm/scale": 0.1,
  }
  for name, expected in deviation.items():
    assert tensors[name].std() == pytest.approx(expected, rel=0.3), name


def test_random_tensors_depend_on_seed_and_scale():
  config = tiny_config(num_layers=1)
  one, same, other = (build.random_tensors(config, s) for s in (0, 0, 1))
  twice = build.random_tensors(config, 0, scale=2.0)
  for name, value in one.items():
    np.testing.assert_array_equal(value, same[name])
    np.testing.assert_allclose(2 * value, twice[name], rtol=1e-6)
    assert not np.array_equal(value, other[name])
