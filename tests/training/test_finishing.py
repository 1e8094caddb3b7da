"""The dictionary that comes of training is the one that was trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.dictionaries.activations import JumpRelu, name_of
from gemma_scope.training import losses
from gemma_scope.training.encoding import encode
from gemma_scope.training.finishing import finish
from gemma_scope.training.parameters import layout_of
from gemma_scope.training.scaling import measure
from gemma_scope.training.state import begin
from gemma_scope.training.step import gather, make_step
from tests.training import runs

WIDTHS = dict.fromkeys((*runs.IN, *runs.OUT), runs.D)


def trained(group, steps=3):
  config = runs.run(group, model="some-model", heads=4)
  source = runs.rows()
  state = begin(config, measure(source, config))
  step = make_step(config, WIDTHS)
  for _ in range(steps):
    state, _ = step(state, next(source))
  return config, state, next(source)


@pytest.mark.parametrize("kind", list(runs.ENDS))
@pytest.mark.parametrize("activation", ["jump_relu", "gated", "relu", "top_k"])
def test_latents_and_reconstructions(kind, activation):
  skip = kind in ("transcoder", "clt")
  form = {"affine_skip": skip, "prefixes": (8,)}
  group = runs.group(kind, activation, form=form)
  config, state, rows = trained(group)
  (dictionary,) = finish(config, state).values()
  layout = layout_of(group, runs.D, runs.D)
  own = state.groups[0]
  batch, params = jax.tree.map(
    lambda a: a[0], (gather(own, rows, group, layout), own.params)
  )
  setting = (group, layout, "float32")
  encoded = encode(params["parts"], batch.xs, group, jnp.float32(3), "float32")
  latents = [e.active.latents for e in encoded]
  y = losses.rebuild(params, latents, batch, setting)[-1]
  scale = np.repeat(own.scale_out[0], runs.D)
  about = dictionary.about
  x = np.stack([rows[s] for s in about.sites_in])
  several = len(about.sites_in) > 1
  found = dictionary(x if several else x[0])
  found = np.concatenate(found, axis=1) if several else found
  np.testing.assert_allclose(found, y / scale[None], rtol=1e-3, atol=1e-3)
  ours = dictionary.encode(x if several else x[0])
  expected = jnp.stack(latents) if layout.layered else latents[0]
  np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_descriptions():
  config, state, _ = trained(runs.group("sae", form={"prefixes": (8,)}))
  about = finish(config, state)["sae"].about
  assert (about.kind, about.prefixes, about.l0) == ("sae", (8,), 3)
  assert (about.model, about.name, about.heads) == ("some-model", "sae", None)
  weak = runs.replace(runs.member("clt"), sites_out=())
  config, state, _ = trained(runs.group("clt", members=[weak]), 0)
  (found,) = finish(config, state).values()
  assert found.about.kind == "crosscoder"
  assert found.causal


def test_batch_top_k_becomes_a_threshold():
  member = runs.member(learning_rate=1e-4)
  group = runs.group("sae", "batch_top_k", [member])
  config, state, rows = trained(group, 10)
  (found,) = finish(config, state).values()
  assert isinstance(found.activation, JumpRelu)
  threshold = float(state.groups[0].threshold[0])
  np.testing.assert_allclose(
    found.activation.threshold.data_array, threshold, rtol=1e-6
  )
  l0 = np.count_nonzero(found.encode(rows[runs.IN[0]]), axis=1).mean()
  assert l0 == pytest.approx(3, rel=0.3)


def test_top_k_of_a_clt_is_shared_by_its_layers():
  member = runs.member("clt", l0=6)
  config, state, _ = trained(runs.group("clt", "top_k", [member]), 0)
  (found,) = finish(config, state).values()
  assert [name_of(p.activation) for p in found.parts] == ["top_k"] * 3
  assert [p.activation.k for p in found.parts] == [2, 2, 2]
