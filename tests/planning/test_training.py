"""Plans of dictionary training against the arrays a run has."""

import jax
import jax.numpy as jnp
import pytest

from gemma_scope import errors, planning, training
from gemma_scope.planning.training import width_of
from gemma_scope.sites import Site
from gemma_scope.training.placement import place
from gemma_scope.training.scaling import SiteScale

MODEL = "gemma-3-270m"
SITE = Site("resid_post", 9)


@pytest.fixture(scope="module")
def config():
  return training.preset("gemma_scope_2", [str(SITE)], steps=100, width=256)


@pytest.fixture(scope="module")
def machine():
  return planning.find_machine("cpu:8", (2, 4))


@pytest.fixture(scope="module")
def found(config, machine):
  return planning.plan_training(config, MODEL, machine, rows=64)


def test_its_arguments_are_a_runs_state_and_rows(config, machine, found):
  scales = {SITE: SiteScale(jnp.float32(1), jnp.zeros(640))}
  state = place(training.begin(config, scales), machine.mesh)
  chip = machine.mesh.devices.flat[0]
  held = sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(state)
    for shard in leaf.addressable_shards
    if shard.device == chip
  )
  rows = 64 // 2 * 640 * 4
  assert found.memory.arguments == pytest.approx(held + rows, rel=0.01)
  assert found.memory.outputs < 0.02 * held  # the old state is reused
  assert "training of 1 dictionaries, 64 rows" in str(found)


def test_its_products_are_those_of_the_equations(found):
  """Three products forward and back for each of two matrices, shared."""
  once = 2 * 64 * 640 * 256
  assert found.ideal_flops * 8 == pytest.approx(5 * once, rel=0.25)


def test_widths_of_sites():
  names = ("resid_post", "z", "mlp_act")
  widths = [width_of(Site(name, 0), MODEL) for name in names]
  assert widths == [640, 1024, 2048]


@pytest.mark.parametrize("rows", [0, 63])
def test_rows_must_divide(config, machine, rows):
  with pytest.raises(errors.ConfigError, match=f"{rows} rows for data=2"):
    planning.plan_training(config, MODEL, machine, rows=rows)
