"""Times from peaks, and what is said where something is not known."""

import dataclasses

import jax
import numpy as np
import pytest

from gemma_scope.planning.costs import Costs
from gemma_scope.planning.machines import Chip, Machine
from gemma_scope.planning.report import Memory, Plan

CHIP = Chip(16 * 2.0**30, 200e12, 800e9, 200e9)
COSTS = Costs(2e12, 8e9, {"all-reduce": 3}, {"all-reduce": 4e9})


def make(memory=None, chip=CHIP, costs=COSTS, **changes):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1])[:, None], ("d", "m"))
  values = {"needed": 3e9, "ideal_flops": 1e12, "float32": False} | changes
  return Plan(
    "a step",
    Machine("v5e:1x1", chip, mesh),
    memory or Memory(1e9, 1e9, 1e9, 0.0),
    costs=costs,
    loops=False,
    **values,
  )


def test_times_are_amounts_over_rates():
  found = make()
  assert found.seconds == pytest.approx(
    {"products": 0.005, "memory": 0.01, "messages": 0.02}
  )
  assert found.efficiency == 0.5
  assert "20.00 ms (messages)" in str(found)
  assert "3 x, 4000.0 MB" in str(found)
  assert "not all could be read" not in str(found)
  unread = dataclasses.replace(COSTS, unread=True)
  assert "not all could be read" in str(make(costs=unread))


def test_full_float32_takes_six_products():
  assert make(float32=True).seconds["products"] == pytest.approx(0.03)


def test_where_peaks_are_not_known_there_is_no_time():
  found = make(chip=Chip(16e9))
  assert not found.seconds
  assert "least time" not in str(found)


def test_what_does_not_fit_is_said():
  found = make(needed=20 * 2.0**30)
  assert not found.fits
  assert "fits" in str(found)
  assert "NO" in str(found)
  assert found.to_dict()["fits"] is False
