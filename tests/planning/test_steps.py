"""Steps lower themselves for any depth and batch, from shapes alone."""

import jax
import pytest

from gemma_scope import errors, planning
from gemma_scope.planning.flops import matmul_flops
from gemma_scope.planning.steps import Shape


@pytest.fixture(scope="module")
def machine():
  return planning.find_machine("cpu:8", (2, 4))


def test_a_capture_stops_at_its_last_site(machine):
  shape = Shape("gemma-3-270m", machine, 2, 16)
  early = planning.capture_step(shape, ["resid_post[5]"])
  late = planning.capture_step(shape, ["resid_post[17]"])
  assert (early.layers, early.periods) == (6, 1)
  assert (late.layers, late.periods) == (18, 3)
  ratio = matmul_flops(late.program()) / matmul_flops(early.program())
  assert ratio == pytest.approx(3, rel=0.01)


def test_products_grow_with_the_batch_and_fit_the_weights(machine):
  shape = Shape("gemma-3-1b-pt", machine, 4, 8)
  step = planning.capture_step(shape)
  outside = step.config.vocab_size * step.config.d_model
  weights = step.config.num_parameters - outside
  flops = matmul_flops(step.program())
  # Attention among 8 tokens and the norms' weights are next to nothing.
  assert flops == pytest.approx(2 * weights * 4 * 8, rel=0.01)


def test_relevance_is_planned_for_every_site(machine):
  shape = Shape("gemma-3-270m", machine, 2, 16)
  step = planning.attribute_step(shape, "cp_lrp", ["embed", "resid_post[:]"])
  lowered = step.lower_periods(1)
  target, values = lowered.out_info
  assert target.shape == (2,)
  assert len(values) == 1 + 6
  assert jax.tree.leaves(step.lower_periods(0).out_info)


def test_what_cannot_be_planned_is_refused(machine):
  with pytest.raises(errors.ConfigError, match="integrated_gradients"):
    planning.attribute_step(
      Shape("gemma-3-270m", machine, 1, 16), "integrated_gradients"
    )
  with pytest.raises(errors.ConfigError, match="batch=0"):
    planning.capture_step(Shape("gemma-3-270m", machine, 0, 16))
  with pytest.raises(errors.ConfigError, match="32,768 tokens"):
    planning.capture_step(Shape("gemma-3-270m", machine, 1, 40_000))
  with pytest.raises(errors.ConfigError, match="No checkpoint"):
    planning.capture_step(Shape("gemma-4", machine, 1, 16))
