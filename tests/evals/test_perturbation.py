"""Perturbed runs equal one slow NumPy run each."""

import numpy as np
import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.evals import perturbation
from gemma_scope.evals.perturbation import (
  KINDS,
  Perturbation,
  Runs,
  other_tokens,
  run_values,
)


def masks(group, count=6, seed=0):
  """Random whole-token masks, the first of them the whole prompt."""
  rng = np.random.default_rng(seed)
  keep = rng.random((group.size, count, group.width)) < 0.6
  keep[:, 0] = True
  return keep


def slow_value(tiny, group, p, keep, how):
  """One run by NumPy: embeddings replaced by hand, or tokens cut out."""
  there = group.segment_ids[p] != 0
  ids, here = group.ids[p][there], group.candidates[p][there]
  stays = keep[there] | ~here
  if how.kind == "delete":
    return tiny.value(ids[stays])
  value = tiny.embedding(ids)
  instead = {
    "mean": lambda: np.broadcast_to(value[here].mean(axis=0), value.shape),
    "pad": lambda: tiny.embedding(np.zeros_like(ids)),
    "zero": lambda: np.zeros_like(value),
    "resample": lambda: tiny.embedding(other_tokens(group, how)[p][there]),
  }[how.kind]()
  return tiny.value(ids, embed=np.where(stays[:, None], value, instead))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_one_run_at_a_time(tiny, groups, kind):
  how = Perturbation(kind, seed=3)
  group = max(groups, key=lambda g: g.size)
  assert group.size > 1
  keep = masks(group)
  found = run_values(tiny.lm.model, group, Runs.hard(keep), how)
  expected = [
    [slow_value(tiny, group, p, row, how) for row in keep[p]]
    for p in range(group.size)
  ]
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
  assert np.ptp(found, axis=1).min() > 1e-2  # the masks do something


def test_chunks_do_not_matter(tiny, groups):
  group = groups[0]
  runs = Runs.hard(masks(group, 7))
  how = Perturbation()
  small, large = (
    run_values(tiny.lm.model, group, runs, how, chunk_tokens=n)
    for n in (3 * group.width, 1024)
  )
  np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-6)


def test_equal_runs_are_computed_once(tiny, groups, monkeypatch):
  seen = []
  plain = perturbation.kept_values

  def counted(model, rows, *rest):
    seen.append(rows.ids.shape[0])
    return plain(model, rows, *rest)

  monkeypatch.setattr(perturbation, "kept_values", counted)
  group = groups[0]
  keep = np.repeat(masks(group, 3), 50, axis=1)
  run_values(
    tiny.lm.model,
    group,
    Runs.hard(keep),
    Perturbation(),
    chunk_tokens=4 * group.width,
  )
  assert sum(seen) <= 3 * group.size + 3


def test_one_program_for_every_kind_and_chunk(tiny, groups):
  group = groups[0]
  runs = Runs.hard(masks(group))
  run_values(tiny.lm.model, group, runs, Perturbation())
  before = perturbation.kept_values._cache_size()
  more = Runs.hard(masks(group, 90, seed=1))
  for kind in ("mean", "pad", "zero", "delete"):
    run_values(tiny.lm.model, group, more, Perturbation(kind))
  assert perturbation.kept_values._cache_size() == before


def test_bos_and_padding_are_never_touched(tiny, groups):
  group = groups[0]
  keep = np.ones((group.size, 2, group.width), bool)
  keep[:, 1] = group.candidates
  found = run_values(tiny.lm.model, group, Runs.hard(keep), Perturbation())
  np.testing.assert_array_equal(found[:, 0], found[:, 1])


def soft(group, share, draws):
  shape = (group.size, len(draws), group.width)
  return Runs(
    np.full(shape, share, np.float32),
    np.broadcast_to(np.asarray(draws, np.int32), shape[:2]),
  )


@pytest.mark.parametrize("kind", ["mean", "delete"])
def test_draws_are_the_same_wherever_they_run(tiny, groups, kind):
  group, how = groups[0], Perturbation(kind)
  first = run_values(tiny.lm.model, group, soft(group, 0.5, [1, 2, 3]), how)
  again = run_values(
    tiny.lm.model,
    group.take([0]),
    soft(group.take([0]), 0.5, [3, 1]),
    how,
    chunk_tokens=group.width,
  )
  np.testing.assert_allclose(again[0], first[0][[2, 0]], rtol=1e-5)
  assert np.ptp(first, axis=1).min() > 0


def test_a_share_of_one_keeps_everything(tiny, groups):
  group, how = groups[0], Perturbation()
  found = run_values(tiny.lm.model, group, soft(group, 1.0, [0, 1, 2]), how)
  np.testing.assert_allclose(found, found[:, :1].repeat(3, axis=1), rtol=1e-5)


def test_elements_are_kept_at_the_share():
  keys = np.stack([np.arange(50), np.ones(50)], axis=1).astype(np.uint32)
  drawn = np.asarray(perturbation._draw(np.uint32(0), keys, (8, 32)))
  assert abs((drawn < 0.3).mean() - 0.3) < 0.02
  assert len(np.unique(drawn[:, 0, 0])) == 50


def test_unknown_kind():
  with pytest.raises(ConfigError, match="no such way to take tokens away"):
    Perturbation("blur")


def test_nothing_to_resample_from(tiny, groups):
  group = groups[0].take([0])
  with pytest.raises(ConfigError, match="no other text"):
    run_values(
      tiny.lm.model, group, Runs.hard(masks(group)), Perturbation("resample")
    )
