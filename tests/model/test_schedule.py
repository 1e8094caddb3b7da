"""Runs of equal neighbours: they cover every period once, in order."""

import itertools

import pytest

from gemma_scope.model.schedule import Run, group_periods


def test_equal_periods_are_one_run():
  assert group_periods(10, lambda p: "same") == (Run(0, 10),)


def test_a_different_period_stands_alone():
  found = group_periods(6, lambda p: p == 2)
  assert found == (Run(0, 2), Run(2, 1), Run(3, 3))


def test_equal_periods_that_are_no_neighbours_stay_apart():
  assert group_periods(3, lambda p: p % 2) == (Run(0, 1), Run(1, 1), Run(2, 1))


def test_none_is_a_signature_like_any_other():
  signatures = [None, None, 0, None]
  found = group_periods(4, lambda p: signatures[p])
  assert found == (Run(0, 2), Run(2, 1), Run(3, 1))


def test_no_periods_no_runs():
  assert group_periods(0, lambda p: p) == ()


@pytest.mark.parametrize(
  "signatures", [*map("".join, itertools.product("ab", repeat=5))]
)
def test_runs_cover_every_period_once(signatures):
  runs = group_periods(5, lambda p: signatures[p])
  covered = [p for run in runs for p in range(run.first, run.first + run.count)]
  assert covered == list(range(5))
  for run in runs:
    assert len({*signatures[run.first : run.first + run.count]}) == 1
  for one, other in itertools.pairwise(runs):
    assert signatures[one.first] != signatures[other.first]


def test_layers_of_a_run():
  run = Run(first=1, count=3)
  assert [*run.layers(0, 6)] == [6, 12, 18]
  assert [*run.layers(5, 6)] == [11, 17, 23]
