"""Whole runs, small."""

import json

import jax
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.shuffle_buffer import ModelRows
from gemma_scope.dictionaries.quality import quality
from gemma_scope.errors import ConfigError
from gemma_scope.training.checkpoint import Checkpoints
from gemma_scope.training.loop import train
from gemma_scope.training.metrics import DivergedError
from tests.training import runs

FORM = {"prefixes": (8,)}


class EndedError(Exception):
  """Stands for whatever ends a process."""


def ending(step):
  def watch(report):
    if report.step == step:
      raise EndedError

  return watch


def test_a_run_learns_and_leaves_a_folder(tmp_path):
  members = [runs.member(l0=4, learning_rate=3e-3)]
  config = runs.run(
    runs.group(members=members, form=FORM), steps=300, checkpoint_every=150
  )
  reports = []
  trained = train(config, runs.rows(), tmp_path, watch=reports.append)
  assert [r.step for r in reports] == list(range(5, 301, 5))
  found = gs.dictionaries.load(tmp_path / "sae")
  for a, b in zip(runs.arrays(found), runs.arrays(trained.dictionaries["sae"])):
    np.testing.assert_array_equal(a, b)
  source = runs.rows()
  source.restore({"next": 10_000})
  rows = next(source)[runs.IN[0]]
  measured = quality(found, rows, rows)
  assert measured.fvu < 0.5
  assert 2 < measured.l0 < 7
  manifest = json.loads((tmp_path / "manifest.json").read_text())
  assert manifest["config"]["train"]["steps"] == 300
  assert train(config, runs.rows(), tmp_path).state.step == 300  # nothing to do


def test_dictionaries_are_there_before_the_last_checkpoint(
  tmp_path, monkeypatch
):
  """A checkpoint may hold gigabytes of rows: what was made comes first."""

  def ends(*_):
    raise EndedError

  monkeypatch.setattr(Checkpoints, "save", ends)
  config = runs.run(steps=4, checkpoint_every=100)
  with pytest.raises(EndedError):
    train(config, runs.rows(), tmp_path)
  assert gs.dictionaries.load(tmp_path / "sae").num_latents
  monkeypatch.undo()
  assert train(config, runs.rows(), tmp_path).state.step == 4
  assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["4"]


def test_without_a_folder():
  trained = train(runs.run(steps=2), runs.rows())
  assert trained.folder is None
  assert list(trained.dictionaries) == ["sae"]


def test_a_source_that_lacks_a_site_or_ends():
  with pytest.raises(ConfigError, match="lacks sites"):
    train(runs.run(), runs.SyntheticRows(runs.OUT))
  source = runs.rows()

  class Short:
    sites, batch_rows = source.sites, source.batch_rows
    left = 4

    def __next__(self):
      if not self.left:
        raise StopIteration
      self.left -= 1
      return next(source)

  with pytest.raises(ConfigError, match="rows ended before the run"):
    train(runs.run(), Short())


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
  config = runs.run(steps=40, checkpoint_every=5, log_every=10)
  source = runs.rows()

  class Bad(runs.SyntheticRows):
    def __next__(self):
      rows = super().__next__()
      if self._next == 20:  # the 18th step, after two batches of measuring
        rows = {s: v.at[3, 4].set(np.inf) for s, v in rows.items()}
      return rows

  bad = Bad(source.sites, batch_rows=64, width=runs.D)
  with pytest.raises(DivergedError, match="mse, gradient is not finite") as e:
    train(config, bad, tmp_path)
  assert "step 17" in str(e.value)
  assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == 15


def test_on_a_mesh_and_on_from_there(tmp_path):
  mesh = jax.make_mesh((4,), ("model",), devices=jax.devices()[:4])
  config = runs.run(runs.group("transcoder"), steps=8, checkpoint_every=4)
  with pytest.raises(EndedError):
    train(config, runs.rows(), tmp_path, watch=ending(5), mesh=mesh)
  again = train(config, runs.rows(), tmp_path, mesh=mesh)
  whole = train(config, runs.rows(), mesh=mesh)
  for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state)):
    assert a.sharding == b.sharding
    np.testing.assert_array_equal(a, b)


def test_rows_from_a_model(tiny_lm, tmp_path):
  """Cut off and gone on with, the shuffle buffer included."""
  texts = [f" {a} is the {b} of Paris" for a in "ABCDEFG" for b in "xyzuvw"]
  ends = gs.training.Ends((gs.Site("mlp_in", 2),), (gs.Site("mlp_write", 2),))
  config = gs.training.preset(
    "starter", [ends, "resid_post[3]"], steps=9, width=64
  )
  config = runs.replace(
    config, checkpoint_every=4, first_batches=1, log_every=1
  )

  def source():
    packing = PackingOptions(seq_len=16, batch_size=8, epochs=None, min_piece=2)
    pipeline = TokenPipeline(Corpus.of(texts), tiny_lm.tokenizer, packing)
    harvest = Harvest(tiny_lm, config.sites)
    return ModelRows(harvest, pipeline, batch_rows=32, buffer_rows=512)

  with pytest.raises(EndedError):
    train(config, source(), tmp_path, watch=ending(6))
  again = train(config, source(), tmp_path)
  whole = train(config, source())
  for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state)):
    np.testing.assert_array_equal(a, b)
