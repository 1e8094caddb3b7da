"""Experiment 003: what is trained and chosen, tables; and all of it, tiny."""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.sites import Site
from gemma_scope.testing.tiny import tiny_config

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "003_pareto"
SITE = Site("resid_post", 1)


@pytest.fixture(scope="module")
def experiment():
  """The script as a module; its own folder leaves the path again."""
  before, known = list(sys.path), set(sys.modules)
  spec = importlib.util.spec_from_file_location("run_003", FOLDER / "run.py")
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  yield module
  sys.path[:] = before
  for name in set(sys.modules) - known:
    if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
      del sys.modules[name]


@pytest.fixture(scope="module")
def sweep(experiment):
  return sys.modules["sweep"]


def test_every_arm_is_trained_at_every_point(sweep):
  for settings in (sweep.FULL, sweep.CPU, sweep.QUICK):
    config = sweep.train_config(settings, SITE, "m", {"top_k": {"rate": 0.5}})
    assert [g.name for g in config.groups] == list(sweep.ARMS)
    for group in config.groups:
      points = [(m.l0, m.seed) for m in group.members]
      assert tuple(points) == settings.points
      assert group.architecture.width == settings.width
    rates = {g.name: g.members[0].learning_rate for g in config.groups}
    assert rates["top_k"] == 0.5
    assert rates["gated"] == sweep.ARMS["gated"].rate
  assert len(sweep.FULL.points) == 5
  counts = [seed for l0, seed in sweep.FULL.points if l0 == 32]
  assert sorted(counts) == [0, 1, 2]
  gated = sweep.train_config(sweep.FULL, SITE, "m", {}).groups[-1]
  weights = {m.l0: m.weight for m in gated.members}
  assert weights[16] > weights[32] > weights[64]


def test_the_best_rate_is_chosen(sweep):
  """The least FVU near the target; a better one far from it does not count."""
  config = sweep.tune_config(sweep.FULL, SITE, "m")
  reports = {}
  for group in config.groups:
    for member in group.members:
      far = member.learning_rate == 3e-3
      weight = member.weight or 1
      reports[member.label] = {
        "l0": 3.0 / weight if group.name == "gated" else 300 if far else 32,
        "fvu": 0.01 if far else 1e-4 / member.learning_rate,
      }
  chosen = sweep.choose(sweep.FULL, reports)
  assert chosen["top_k"] == {"rate": 1e-3}
  assert chosen["gated"]["rate"] == 3e-3
  # L0 = 3 / weight, inside and past the weights that were tried.
  np.testing.assert_allclose(
    chosen["gated"]["weights"], [3 / 16, 3 / 32, 3 / 64], rtol=1e-6
  )


def test_past_the_tried_weights_the_line_goes_on(sweep):
  x, y = np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 3.0])
  found = sweep._line(np.array([-0.5, 0.5, 2.5, 9.0]), x, y)
  np.testing.assert_allclose(found, [-1.0, 1.0, 3.5, 5.0])


def test_ticks_are_round(experiment):
  ticks = sys.modules["frontier_svg"]._ticks
  assert ticks(0.0, 0.45) == [0.0, 0.1, 0.2, 0.3, 0.4]
  assert ticks(-0.3, 0.9) == [-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]


@pytest.mark.slow
def test_all_of_it(experiment, sweep, tmp_path):
  """A tiny model on random tokens: runs, resumes, writes tables and plots."""
  lm = testing.tiny_lm(tiny_config(num_layers=2, window=32))
  rng = np.random.default_rng(0)
  documents = [
    [2, *rng.integers(110, 512, rng.integers(20, 60))] for _ in range(400)
  ]
  np.save(tmp_path / "t.npy", np.concatenate(documents).astype(np.int32))
  settings = dataclasses.replace(
    sweep.QUICK,
    **{"width": 64, "prefixes": (16,), "l0s": (4, 8), "steps": 20},
    **{"tune_steps": 6, "batch_rows": 64, "buffer_rows": 512, "seq_len": 32},
    **{"text_rows": 4, "sample_rows": 128, "eval_tokens": 200},
  )
  text = experiment.Text(lm, [tmp_path / "t.npy"], settings)
  parts = experiment.Parts(tmp_path / "out")
  experiment.run(lm, text, settings, parts, SITE)
  done = parts.path("training").read_bytes()
  experiment.run(lm, text, settings, parts, SITE)
  assert parts.path("training").read_bytes() == done
  names = {p.stem for p in (tmp_path / "out" / "dictionaries").glob("*.json")}
  assert len(names) == 5 * 3 + 3 * 2
  experiment.write_results(tmp_path / "out", tmp_path)
  page = (tmp_path / "RESULTS.md").read_text()
  for name in names:
    assert f"| {name} |" in page
  (tmp_path / "RESULTS.md").write_text(page + "\nAn analysis.\n")
  experiment.write_results(tmp_path / "out", tmp_path)
  assert "An analysis." in (tmp_path / "RESULTS.md").read_text()
  assert (tmp_path / "fvu.svg").read_text().count("<circle") == len(names)
  one = json.loads(
    (tmp_path / "out" / "dictionaries" / "top_k_l0_8_seed_1.json").read_text()
  )
  assert one["numbers"]["l0"]["mean"] == 8
  held = text._parts["held out"]
  assert len(held) == len(documents) // 20
