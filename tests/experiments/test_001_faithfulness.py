"""The quick version of experiment 001 runs, resumes, and writes its tables."""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.attribution.patching.sweep import patch
from gemma_scope.evals import tasks
from gemma_scope.testing.tiny import tiny_config

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "001_faithfulness"


@pytest.fixture(scope="module")
def experiment():
  """The script as a module; its own folder leaves the path again."""
  before, known = list(sys.path), set(sys.modules)
  spec = importlib.util.spec_from_file_location("run_001", FOLDER / "run.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  yield module
  sys.path[:] = before
  for name in set(sys.modules) - known:
    if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
      del sys.modules[name]


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(tiny_config(num_layers=2, window=32))


@pytest.fixture(scope="module")
def done(experiment, lm, tmp_path_factory):
  """A run of it, in small; no random model answers questions."""

  def questions(lm, n):
    prompts = experiment.natural_text(lm, n, seed=1)
    known = np.full(len(prompts.ids), 3)
    return dataclasses.replace(prompts, name="source", sources=known)

  def contrasts(lm, n):
    return dataclasses.replace(questions(lm, n), name="ioi", sources=None)

  experiment.questions = questions
  experiment.contrasts = contrasts
  settings = dataclasses.replace(
    experiment.QUICK,
    methods=("input_x_gradient", "attn_lrp"),
    tasks=(("greater_than", 2),),
    sites=("resid_pre", "z"),
    natural=2,
    source=2,
    contrast=2,
    perturbations=("mean",),
    steps=2,
    chunk=2,
  )
  out = tmp_path_factory.mktemp("out")
  page = out / "RESULTS.md"
  experiment.run(lm, settings, out, page)
  return settings, out, page


def test_tables(done):
  text = done[2].read_text(encoding="utf-8")
  for part in (
    "## Tokens: natural",
    "## Tokens: source",
    "### Finding the source token",
    "## Parameter randomisation",
    "## Components: tasks",
    "| greater_than | z | relp |",
    "| attn_lrp |",
  ):
    assert part in text


def test_it_goes_on_where_it_was(experiment, lm, done, monkeypatch):
  settings, out, page = done
  (missing,) = out.glob("tokens/natural/*_mean.json")
  times = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
  before = missing.read_text(encoding="utf-8")
  missing.unlink()
  page.write_text(page.read_text(encoding="utf-8") + "\nBy hand.\n")
  experiment.run(lm, settings, out, page, ("tokens",))
  assert missing.read_text(encoding="utf-8") == before
  again = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
  changed = {p for p in times if times[p] != again[p]}
  assert changed == {missing}
  assert page.read_text(encoding="utf-8").endswith("\nBy hand.\n")


def test_results_of_another_model(experiment, tiny_lm, done):
  settings, out, page = done
  other = dataclasses.replace(tiny_lm, name="other")
  with pytest.raises(SystemExit, match="remove it"):
    experiment.run(other, settings, out, page)


def test_exact_effects_equal_the_whole_sweep(experiment, lm, done):
  """Cells before the first difference, of which no run is made, are zero."""
  _, out, _ = done
  task = tasks.greater_than(lm, n=2)
  sweep = patch(lm, task.corrupt, task.clean, task.target, at=["resid_pre[:]"])
  whole = np.stack([v.data_array for v in sweep.effect().values()], axis=1)
  chunks = sys.modules["component_part"]._chunks(task, 2)
  for path, rows in zip(
    sorted(out.glob("components/greater_than/*_exact.json")),
    chunks,
    strict=True,
  ):
    found = np.asarray(json.loads(path.read_text())["effects"]["resid_pre"])
    expected = whole[rows][:, :, : found.shape[2]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found).max() > 0.01
