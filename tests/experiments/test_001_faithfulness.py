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
    tasks=(("greater_than", 3),),
    sites=("resid_pre", "z"),
    natural=2,
    source=2,
    contrast=2,
    perturbations=("mean",),
    steps=2,
    chunk=2,
  )
  out = tmp_path_factory.mktemp("out")
  experiment.run(lm, settings, out)
  page = out / "RESULTS.md"
  experiment.write_results(out, page, experiment.TITLE)
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
    "| greater_than | 3 of 3 |",
    "## One cell: the way between two writes",
    "## Why: the softmax, and signs",
    "| held in global layers |",
    "| size of attn_lrp |",
    "## Cost",
    "2 prompts of natural text",
    "2 pairs of greater_than",
  ):
    assert part in text


def test_it_goes_on_where_it_was(experiment, lm, done, monkeypatch):
  settings, out, page = done
  (missing,) = out.glob("tokens/natural/*_mean.json")
  times = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
  before = missing.read_text(encoding="utf-8")
  missing.unlink()
  page.write_text(page.read_text(encoding="utf-8") + "\nBy hand.\n")
  experiment.run(lm, settings, out, ("natural",))
  experiment.write_results(out, page, experiment.TITLE)
  assert missing.read_text(encoding="utf-8") == before
  again = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
  changed = {p for p in times if times[p] != again[p]}
  assert changed == {missing}
  assert page.read_text(encoding="utf-8").endswith("\nBy hand.\n")


def test_results_of_another_model(experiment, tiny_lm, done):
  settings, out, _ = done
  other = dataclasses.replace(tiny_lm, name="other")
  with pytest.raises(SystemExit, match=r"results of model .*remove it"):
    experiment.run(other, settings, out)


def test_results_in_chunks_of_another_size(experiment, lm, done):
  """They would be counted twice."""
  settings, out, _ = done
  larger = experiment.for_backend(settings, "gpu")
  assert larger.chunk > settings.chunk
  assert experiment.for_backend(settings, "cpu") == settings
  with pytest.raises(SystemExit, match="results of chunk 2: remove it"):
    experiment.run(lm, larger, out)


def test_every_part_can_be_run_by_itself(experiment, lm, done, tmp_path):
  """Side by side, the parts write what one run of everything writes."""
  settings, out, _ = done
  parts = settings.parts
  single = [part for part, stands_for in parts.items() if stands_for == (part,)]
  assert set(single) == {p for some in parts.values() for p in some}
  for part in single:
    experiment.run(lm, settings, tmp_path, (part,))
  names = {p.relative_to(out) for p in out.rglob("*.json")}
  assert names == {p.relative_to(tmp_path) for p in tmp_path.rglob("*.json")}


def test_pairs_of_several_lengths_in_one_chunk(experiment, lm, done):
  """Each pair has the effects that it has alone, and zeros around them."""
  settings, _, _ = done
  component = sys.modules["component_part"]
  part = tasks.greater_than(lm, n=3)
  found = component._exact(lm, part, settings)
  assert len(set(found["lengths"])) > 1
  for i in range(3):
    alone = component._exact(lm, part.take([i]), settings)
    for name, value in alone["effects"].items():
      inside = found["effects"][name][i, :, : value.shape[2]]
      np.testing.assert_allclose(inside, value[0], atol=1e-5)
      assert not found["effects"][name][i, :, value.shape[2] :].any()
      assert not found["effects"][name][i, :, : found["first"][i]].any()


def test_exact_effects_equal_the_whole_sweep(experiment, lm, done):
  """Cells before the first difference, of which no run is made, are zero."""
  _, out, _ = done
  task = tasks.greater_than(lm, n=3)
  sweep = patch(lm, task.corrupt, task.clean, task.target, at=["resid_pre[:]"])
  whole = np.stack([v.data_array for v in sweep.effect().values()], axis=1)
  chunks = sys.modules["component_part"].chunks(task, 2)
  for path, rows in zip(
    sorted(out.glob("components/greater_than/*_exact.json")),
    chunks,
    strict=True,
  ):
    found = np.asarray(json.loads(path.read_text())["effects"]["resid_pre"])
    expected = np.nan_to_num(whole[rows][:, :, : found.shape[2]])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found).max() > 0.01
