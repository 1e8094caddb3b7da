"""Examples, counts and histograms, against loops over all tokens."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import testing
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.harvest import Harvest
from gemma_scope.analysis.latent_examples import (
  ExampleOptions,
  latent_examples,
)
from gemma_scope.analysis.latent_logits import latent_logits
from gemma_scope.dictionaries.latent_table import EDGES, NOTHING
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.testing import dictionaries as make

SHAPE = (3, 24)
OPTIONS = ExampleOptions(examples=2, before=4, after=2, logits=3)


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm()


@pytest.fixture(scope="module")
def dictionaries():
  sae = make.random_sae("relu", latents=24)
  jump = make.random_transcoder(affine=True, latents=16, layer=2)
  return {"sae": sae, "jump": jump, "cross": make.random_crosscoder("relu")}


def batch(seed):
  rng = np.random.default_rng(seed)
  ids = rng.integers(3, 512, SHAPE).astype(np.int32)
  segments = np.ones(SHAPE, np.int32)
  segments[:, 10:], segments[2, 20:] = 2, 0
  counted = segments != 0
  counted[:, [0, 10]] = False
  return PackedBatch(ids, segments, counted)


BATCHES = [batch(i) for i in range(4)]


@pytest.fixture(scope="module")
def tables(lm, dictionaries):
  return latent_examples(lm, dictionaries, BATCHES, OPTIONS)


@pytest.fixture(scope="module")
def latents(lm, dictionaries):
  """By dictionary and batch, [batch, seq, latents] where tokens count."""
  found = {name: [] for name in dictionaries}
  for one in BATCHES:
    for name, dictionary in dictionaries.items():
      values, _ = Harvest(lm, dictionary.sites_in)(one)
      rows = [values[s] for s in dictionary.sites_in]
      x = rows[0] if len(rows) == 1 else np.stack(rows)
      f = np.asarray(dictionary.encode(x)).reshape(*SHAPE, -1)
      found[name].append(np.where(one.counted[:, :, None], f, 0))
  return found


@pytest.mark.parametrize("name", ["sae", "jump", "cross"])
def test_counts(name, tables, latents):
  table, all_ = tables[name], np.stack(latents[name])
  counted = sum(b.num_counted for b in BATCHES)
  assert table.counted == counted
  active = (all_ > 0).sum((0, 1, 2))
  np.testing.assert_allclose(table.frequencies, active / counted, rtol=1e-6)
  np.testing.assert_allclose(table.maxima, all_.max((0, 1, 2)), rtol=1e-6)
  np.testing.assert_array_equal(table.histograms.sum(1), active)
  edges = [0, *EDGES[1:], np.inf]
  for j in range(0, table.num_latents, 5):
    f = all_[..., j]
    expected, _ = np.histogram(f[f > 0], edges)
    np.testing.assert_array_equal(table.histograms[j], expected)


@pytest.mark.parametrize("name", ["sae", "jump", "cross"])
def test_the_strongest_of_every_row(name, tables, latents):
  for j in range(tables[name].num_latents):
    rows = []
    for b, f in zip(BATCHES, latents[name]):
      rows += [(f[r, :, j].max(), b, f, r) for r in range(SHAPE[0])]
    rows.sort(key=lambda row: -row[0])
    found = tables[name].top(j)
    expected = [row for row in rows[: OPTIONS.examples] if row[0] > 0]
    assert len(found) == len(expected)
    for example, (peak, b, f, r) in zip(found, expected):
      t = int(f[r, :, j].argmax())
      near = [
        k
        for k in range(t - OPTIONS.before, t + OPTIONS.after + 1)
        if 0 <= k < SHAPE[1] and b.segment_ids[r, k] == b.segment_ids[r, t]
      ]
      assert example.activation == pytest.approx(peak, rel=1e-6)
      assert example.tokens.tolist() == b.ids[r, near].tolist()
      assert example.index == near.index(t)
      np.testing.assert_allclose(example.activations, f[r, near, j], rtol=1e-6)


def test_logits_are_those_of_the_decoder(lm, tables, dictionaries):
  tokens, values = latent_logits(lm, dictionaries["sae"], count=3)
  np.testing.assert_array_equal(tables["sae"].logit_tokens, tokens)
  np.testing.assert_array_equal(tables["sae"].logit_values, values)


def test_the_order_of_batches_does_not_matter(lm, dictionaries, tables):
  again = latent_examples(lm, dictionaries, BATCHES[::-1], OPTIONS)
  for name, table in tables.items():
    for field in dataclasses.fields(table):
      old, new = (getattr(t, field.name) for t in (table, again[name]))
      np.testing.assert_array_equal(old, new, err_msg=f"{name} {field.name}")


def test_copies_are_shown_once(lm, dictionaries):
  several = [BATCHES[0], BATCHES[0], *BATCHES]
  tables = latent_examples(lm, dictionaries, several, OPTIONS)
  for table in tables.values():
    for j in range(table.num_latents):
      windows = [tuple(e.tokens.tolist()) for e in table.top(j)]
      assert len(set(windows)) == len(windows)


def test_only_what_may_be_quoted_is_shown(lm, dictionaries, tables, latents):
  def quotable(b):
    return np.arange(SHAPE[0])[:, None] == 1

  options = dataclasses.replace(OPTIONS, quotable=quotable)
  found = latent_examples(lm, dictionaries, BATCHES, options)["sae"]
  whole = tables["sae"]
  np.testing.assert_array_equal(found.maxima, whole.maxima)
  np.testing.assert_array_equal(found.histograms, whole.histograms)
  allowed = {tuple(w) for b in BATCHES for w in windows_of(b.ids[1])}
  f = np.stack(latents["sae"])[:, 1]
  for j in range(found.num_latents):
    examples = found.top(j)
    assert len(examples) == min(2, int((f[..., j] > 0).any(1).sum()))
    for example in examples:
      assert tuple(example.tokens) in allowed
  assert (found.tokens != whole.tokens).any()


def windows_of(row):
  """Every stretch of a row up to a window's length."""
  for length in range(1, OPTIONS.window + 1):
    for start in range(len(row) - length + 1):
      yield row[start : start + length]


def test_dead_latents_have_no_examples(lm):
  sae = make.random_sae(latents=16)
  dead = dataclasses.replace(sae, b_enc=sae.b_enc - 1e6)
  table = latent_examples(lm, {"d": dead}, BATCHES[:1], OPTIONS)["d"]
  assert table.dead.all()
  assert (table.tokens == NOTHING).all()
  assert table.histograms.sum() == 0


def test_progress_is_told(lm, dictionaries):
  told = []
  latent_examples(
    lm,
    {"sae": dictionaries["sae"]},
    BATCHES[:2],
    OPTIONS,
    progress=lambda label, _: told.append(label),
  )
  assert len(told) == 2
  assert told[0] == f"Batch 1, {BATCHES[0].num_counted} tokens"


def test_refusals(lm):
  with pytest.raises(ConfigError, match="latents of its own"):
    latent_examples(lm, {"clt": make.random_cross_layer()}, BATCHES)
  nothing = PackedBatch.empty(SHAPE)
  with pytest.raises(TextError, match="no token to measure"):
    latent_examples(lm, {"sae": make.random_sae()}, [nothing])
  with pytest.raises(ConfigError, match="examples=0"):
    ExampleOptions(examples=0)
