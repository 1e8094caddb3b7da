"""Dead latents start again, the others do not notice."""

import jax
import numpy as np
import pytest

from gemma_scope.training import options
from gemma_scope.training.scaling import measure
from gemma_scope.training.state import begin
from gemma_scope.training.step import make_step
from tests.training import runs

WIDTHS = dict.fromkeys((*runs.IN, *runs.OUT), runs.D)
DEAD = slice(0, 5)


def after_step(kind, b1=0.9, **fields):
  """States after a step with latents 0 to 4 dead: without, with resampling."""
  states = []
  for every in (0, 3):
    revival = options.Revival(100, resample_every=every, **fields)
    optimiser = options.Optimiser(b1=b1)
    config = runs.run(runs.group(kind, revival=revival, optimiser=optimiser))
    source = runs.rows()
    state = begin(config, measure(source, config))
    step = make_step(config, WIDTHS)
    for _ in range(3):
      state, _ = step(state, next(source))
    state = jax.tree.map(np.array, state)
    for part, since in zip(
      state.groups[0].params["parts"], state.groups[0].since
    ):
      part["b_enc"][:, DEAD] = -50
      since[:, DEAD] = 1000
    states.append(step(state, next(source))[0])
  return states


@pytest.mark.parametrize(("kind", "b1"), [("sae", 0.0), ("clt", 0.9)])
def test_the_dead_start_again(kind, b1):
  plain, again = after_step(kind, b1, resample_until=10)
  group = again.groups[0]
  for p, part in enumerate(group.params["parts"]):
    own = {name: np.asarray(v[0]) for name, v in part.items()}
    np.testing.assert_array_equal(own["b_enc"][DEAD], 0)
    np.testing.assert_allclose(own["threshold"][DEAD], 0.05)
    np.testing.assert_allclose(
      np.linalg.norm(own["w_dec"][DEAD], axis=1), 1, rtol=1e-5
    )
    norms = np.linalg.norm(own["w_enc"], axis=0)
    np.testing.assert_allclose(norms[DEAD], 0.2 * norms[5:].mean(), rtol=1e-4)
    assert not np.asarray(group.since[p])[0, DEAD].any()
    before = plain.groups[0].params["parts"][p]
    for name in ("w_dec", "b_enc", "threshold"):
      np.testing.assert_array_equal(own[name][5:], before[name][0][5:])
    np.testing.assert_array_equal(own["b_in"], before["b_in"][0])


def test_moments_of_the_dead_are_forgotten():
  plain, again = after_step("sae", resample_until=10)

  def moments(state):
    return state.groups[0].moments

  for name in ("mu", "nu"):
    found = getattr(moments(again), name)["parts"][0]
    before = getattr(moments(plain), name)["parts"][0]
    np.testing.assert_array_equal(found["w_enc"][0][:, DEAD], 0)
    np.testing.assert_array_equal(
      found["w_enc"][0][:, 5:], before["w_enc"][0][:, 5:]
    )
    np.testing.assert_array_equal(found["w_dec"][0][DEAD], 0)


def test_not_after_the_last_time():
  plain, again = after_step("sae", resample_until=2)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)
