"""Plans against programs that are run, and what is told of them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from gemma_scope import planning
from gemma_scope.planning import compiling
from gemma_scope.planning.steps import Shape


def product(a, b):
  return jnp.tanh(a @ b)


@pytest.fixture(scope="module")
def small():
  """A capture that is compiled in a second."""
  machine = planning.find_machine("cpu:8", (2, 4))
  shape = Shape("gemma-3-270m", machine, 2, 16, "float32")
  return planning.capture_step(shape, ["resid_post[0]"])


def test_any_function_may_be_planned():
  a, b = jnp.ones((512, 256)), jnp.ones((256, 128))
  found = planning.plan(product, a, b, machine="cpu")
  assert found.memory.arguments == 4 * (512 * 256 + 256 * 128)
  assert found.memory.outputs == 4 * 512 * 128
  assert found.ideal_flops == 2 * 512 * 256 * 128
  assert found.fits
  assert found.efficiency == pytest.approx(1, abs=0.01)
  assert not found.seconds  # of a CPU no peaks are assumed


def test_arguments_without_a_sharding_are_whole_on_every_chip():
  a, b = jnp.ones((512, 256)), jnp.ones((256, 128))
  found = planning.plan(product, a, b, machine="cpu:4")
  assert found.memory.arguments == 4 * (512 * 256 + 256 * 128)
  assert found.efficiency == pytest.approx(0.25, abs=0.01)


def test_loops_are_told():
  def f(x):
    return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=7)[0]

  found = planning.plan(f, jnp.ones((16, 16)), machine="cpu")
  assert found.loops
  assert found.efficiency is None
  assert found.ideal_flops == 7 * 2 * 16**3


def test_a_step_is_what_is_run(small):
  found = planning.plan_step(small, costs=False)
  compiled = small.lower().compile()
  stats = compiled.memory_analysis()
  assert found.memory.arguments == stats.argument_size_in_bytes
  assert found.memory.temporaries == stats.temp_size_in_bytes
  assert found.needed == found.memory.total
  assert json.loads(json.dumps(found.to_dict()))["fits"] is True
  for text in (str(found), found._repr_html_()):
    assert "capture of 1 sites, 2 x 16 tokens, float32" in text
    assert "mesh data 2 x model 4" in text


@pytest.mark.parametrize(
  ("message", "gib"),
  [
    (
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on "
      "HBM, the total memory required for HLO temporaries (26.69G) exceeds "
      "available HBM (15.75G). HLO module: jit_forward.",
      26.69,
    ),
    (
      "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 23.50G "
      "of 15.75G hbm. Exceeded hbm capacity by 7.75G.",
      23.5,
    ),
  ],
)
def test_what_the_compiler_says_where_it_does_not_fit(message, gib):
  class Lowered:
    def compile(self, compiler_options):
      raise jax.errors.JaxRuntimeError(message)

  made, needed = compiling._compile(Lowered())
  assert made is None
  assert needed == gib * 2**30


def test_the_largest_batch_is_the_last_that_fits(small, monkeypatch):
  def needed(lowered):
    rows = jax.tree.leaves(lowered.in_avals)[-2].shape[0]
    return None, 1000.0 + 30.0 * rows

  chip = dataclasses.replace(small.shape.machine.chip, memory=1400.0)
  machine = dataclasses.replace(small.shape.machine, chip=chip)
  shape = dataclasses.replace(small.shape, machine=machine)
  step = dataclasses.replace(small, shape=shape)
  monkeypatch.setattr(compiling, "_compile", needed)
  assert planning.largest_batch(step) == 12  # 1,360 bytes; `data` has 2 parts
