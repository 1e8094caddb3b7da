"""Learning rate and sparsity weight over a run."""

import jax.numpy as jnp
import pytest

from gemma_scope.training.options import Optimiser, Sparsity
from gemma_scope.training.schedules import rate, sparsity


def at(step, **fields):
  return float(rate(jnp.int32(step), Optimiser(**fields), 100))


def test_warm_up_runs_along_a_cosine():
  fields = {"warmup_steps": 10, "warmup_from": 0.1}
  assert at(0, **fields) == pytest.approx(0.1)
  assert at(5, **fields) == pytest.approx(0.55)
  assert at(2, **fields) < 0.1 + 0.9 * 0.2  # slower than a line at first
  assert at(10, **fields) == at(99, **fields) == 1


def test_decay_is_a_line_to_nought():
  fields = {"warmup_steps": 0, "decay_steps": 20}
  assert at(80, **fields) == 1
  assert at(90, **fields) == pytest.approx(0.5)
  assert at(99, **fields) == pytest.approx(0.05)


def test_sparsity_rises_in_a_line():
  options = Sparsity(warmup_steps=50)
  assert float(sparsity(jnp.int32(0), options)) == 0
  assert float(sparsity(jnp.int32(25), options)) == pytest.approx(0.5)
  assert float(sparsity(jnp.int32(80), options)) == 1
  assert float(sparsity(jnp.int32(0), Sparsity())) == 1
