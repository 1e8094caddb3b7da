"""Layers are randomised from the top, alone, and attributions notice."""

import json

import jax
import numpy as np
import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.evals.randomisation import randomisation_check, randomise_top
from gemma_scope.model.block import block_arrays
from gemma_scope.testing.tiny import tiny_gemma
from tests.evals.conftest import PROMPTS


def changed(model, other):
  """Which layers differ, and whether all of their arrays do."""
  found = []
  for layer in range(model.stack.num_layers):
    ours, theirs = (block_arrays(m.stack.block(layer)) for m in (model, other))
    same = [
      np.array_equal(ours[k].data_array, theirs[k].data_array) for k in ours
    ]
    assert all(same) or not any(same)
    if not any(same):
      found.append(layer)
  return found


@pytest.mark.parametrize("scan", [True, False])
def test_top_layers_alone(scan):
  model = tiny_gemma(scan=scan)
  count = model.stack.num_layers
  for top in (0, 1, 3, count):
    ruined = randomise_top(model, top)
    assert changed(model, ruined) == list(range(count - top, count))
    assert ruined.table is model.table


def test_more_layers_keep_those_before():
  model = tiny_gemma()
  one, two = randomise_top(model, 1), randomise_top(model, 2)
  assert changed(one, two) == [model.stack.num_layers - 2]
  assert changed(one, randomise_top(model, 1, seed=1))


def test_spread_is_kept():
  model = tiny_gemma()
  ours, theirs = (
    block_arrays(m.stack.block(3))["mlp/gating_einsum"].data_array
    for m in (model, randomise_top(model, 8))
  )
  np.testing.assert_allclose(np.std(theirs), np.std(ours), rtol=0.1)
  assert abs(np.corrcoef(np.ravel(ours), np.ravel(theirs))[0, 1]) < 0.1


def test_programs_are_used_again():
  model = tiny_gemma()
  shapes = [jax.tree.map(np.shape, m) for m in (model, randomise_top(model, 3))]
  assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])


def test_attributions_change(tiny, target):
  found = randomisation_check(
    tiny.lm,
    list(PROMPTS),
    target,
    methods=("input_x_gradient",),
    layers=(0, 1, 2),
  )
  values = found.values["input_x_gradient"]
  np.testing.assert_allclose(values["signed"][0], 1)
  assert found.interval("input_x_gradient", 2).mean < 0.7
  assert found.interval("input_x_gradient", 2, "absolute").mean < 0.9
  json.dumps(found.to_dict(), allow_nan=False)
  assert "top 2 random" in found._repr_html_()


def test_too_many_layers(tiny):
  with pytest.raises(ConfigError, match="not so many layers"):
    randomise_top(tiny.lm.model, 3)
