"""Steps lower themselves for any depth and batch, from shapes alone."""

import pytest

from gemma_scope import errors, planning
from gemma_scope.planning.costs import costs_by_layers, costs_of
from gemma_scope.planning.flops import matmul_flops
from gemma_scope.planning.steps import Shape


@pytest.fixture(scope="module")
def machine():
  return planning.find_machine("cpu:8", (2, 4))


def test_a_capture_stops_at_its_last_site(machine):
  shape = Shape("gemma-3-270m", machine, 2, 16)
  early = planning.capture_step(shape, ["resid_post[5]"])
  late = planning.capture_step(shape, ["resid_post[17]"])
  assert (early.layers, early.kinds) == (6, (5, 1))
  assert (late.layers, late.kinds) == (18, (15, 3))
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
  target, values = step.lower().out_info
  assert target.shape == (2,)
  assert len(values) == 1 + 18
  for few in ((0, 0), (1, 0), (0, 1)):
    target, values = step.lower_few(*few).out_info
    assert target.shape == (2,)
    assert len(values) == 1 + sum(few)


def test_a_row_of_a_graph_reaches_every_write(machine):
  step = planning.graph_step(Shape("gemma-3-270m", machine, 2, 16))
  assert step.title == "FROZEN relevance of 19 sites"
  target, values = step.lower_few(1, 0).out_info
  assert target.shape == (2,)
  assert [str(site) for site in values][:2] == ["embed", "mlp_write[0]"]


def test_few_layers_tell_what_many_do(machine):
  """The costs of single layers add up to those of a program of seven."""
  shape = Shape("gemma-3-270m", machine, 2, 16, "float32", scan=False)
  step = planning.capture_step(shape, ["resid_post[6]"])
  whole = costs_of(step.lower().compile())
  found = costs_by_layers(step.lower_few, *step.kinds, {})
  assert found.flops == pytest.approx(whole.flops, rel=0.02)
  messages = sum(found.message_bytes.values())
  assert messages == pytest.approx(sum(whole.message_bytes.values()), rel=0.1)


@pytest.mark.parametrize("mesh", [(1, 8), (2, 4)])
def test_the_chips_of_27b_share_its_products(mesh):
  """Products a chip does over an equal share of all: at most 1.15."""
  machine = planning.find_machine("cpu:8", mesh)
  shape = Shape("gemma-3-27b-pt", machine, mesh[0], 256)
  step = planning.capture_step(shape)
  does = costs_by_layers(step.lower_few, *step.kinds, {}).flops
  assert does * 8 < 1.15 * matmul_flops(step.program())


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
