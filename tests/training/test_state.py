"""How a run begins."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gemma_scope.training.options import Optimiser
from gemma_scope.training.scaling import measure
from gemma_scope.training.state import begin, transformation
from tests.training import runs


def test_members_lie_side_by_side_and_differ_by_seed():
  members = [runs.member(name="a"), runs.member(name="b", seed=1)]
  config = runs.run(runs.group(members=members), runs.group("clt"))
  state = begin(config, measure(runs.rows(), config))
  first, second = state.groups
  part = first.params["parts"][0]
  assert part["w_enc"].shape == (2, runs.D, runs.WIDTH)
  assert not np.array_equal(part["w_enc"][0], part["w_enc"][1])
  assert [s.shape for s in second.since] == 3 * [(1, runs.WIDTH)]
  assert second.scale_out.shape == (1, 3)
  assert state.step == 0


def test_a_member_begins_as_it_would_alone():
  other, own = runs.member(name="a", seed=1), runs.member(name="b", seed=7)
  together = runs.run(runs.group(members=[other, own]))
  alone = runs.run(runs.group(members=[own]))
  a, b = (begin(c, measure(runs.rows(), c)) for c in (together, alone))
  for x, y in zip(
    jax.tree.leaves(a.groups[0].params), jax.tree.leaves(b.groups[0].params)
  ):
    np.testing.assert_array_equal(x[1], y[0])


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_adam_is_optax_adam(b1):
  """Without a first moment too, where that is nought anyway."""
  params = {"w": jnp.asarray([1.0, -2.0, 3.0])}
  ours = transformation(Optimiser(b1=b1))
  theirs = optax.scale_by_adam(b1, 0.999, 1e-8)
  a, b = ours.init(params), theirs.init(params)
  for step in range(4):
    grads = {"w": jnp.asarray([1e-3, 5.0, -0.1]) * (step + 1)}
    (u, a), (v, b) = ours.update(grads, a), theirs.update(grads, b)
    np.testing.assert_allclose(u["w"], v["w"], rtol=1e-6)
  stored = sum(leaf.size for leaf in jax.tree.leaves(a))
  assert stored == (4 if b1 == 0 else 7)
