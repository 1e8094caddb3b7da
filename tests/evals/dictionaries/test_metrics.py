"""The family of metrics: each against a slow oracle, for every dictionary.

A new metric is a row in `ORACLES`: what it gives, from one token at a time.
"""

import numpy as np
import pytest

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.evals import dictionaries as evals
from gemma_scope.evals.dictionaries.protocol import Metric
from tests.evals.dictionaries.conftest import KINDS


def l0(oracle):
  return {"l0": oracle.l0()}


def fvu(oracle):
  found = {"fvu": oracle.fvu()}
  sites = oracle.dictionary.sites_out
  if len(sites) > 1:
    found["fvu by layer"] = {
      s.layer: oracle.fvu(site=slice(i, i + 1)) for i, s in enumerate(sites)
    }
  return found


def cosine(oracle):
  return {"cosine": oracle.cosine(), "length": oracle.length()}


def delta_loss(oracle):
  clean, number = oracle.losses()
  spliced, _ = oracle.losses(oracle.spliced)
  mean = oracle.mean()
  nothing = {site: 0 * value for site, value in mean.items()}
  sums = {
    "clean": clean.sum(),
    "spliced": spliced.sum(),
    "mean": oracle.losses(lambda d: oracle.ablated(d, mean))[0].sum(),
    "zero": oracle.losses(lambda d: oracle.ablated(d, nothing))[0].sum(),
  }
  n = number.sum()
  found = {f"{name}_loss": value / n for name, value in sums.items()}
  found["delta_loss"] = (sums["spliced"] - sums["clean"]) / n
  for kind, name in (("mean", "recovered"), ("zero", "recovered_zero")):
    lost = sums[kind] - sums["clean"]
    found[name] = (sums[kind] - sums["spliced"]) / lost
  return found


def density(oracle):
  share = oracle.density()
  edges = np.linspace(-7, 0, 29)
  return {
    "density": share,
    "dead": (share == 0).mean(),
    "dense": (share > 0.1).mean(),
    "density histogram": np.histogram(np.log10(share[share > 0]), edges)[0],
    "density edges": edges,
  }


def prefixes(oracle):
  about, whole = oracle.dictionary.about, oracle.dictionary.num_latents
  if not about.prefixes:
    return {}
  found = {size: oracle.prefix(size) for size in (*about.prefixes, whole)}
  return {
    "fvu by prefix": {size: fvu for size, (fvu, _) in found.items()},
    "l0 by prefix": {size: l0 for size, (_, l0) in found.items()},
  }


def decoder_cosines(oracle):
  nearest = oracle.nearest()
  edges = np.linspace(-1, 1, 41)
  return {
    "nearest": nearest.mean(),
    "twins": (nearest > 0.9).mean(),
    "nearest histogram": np.histogram(nearest, edges)[0],
    "nearest edges": edges,
    "nearest latents": np.arange(len(nearest)),
  }


ORACLES = {
  evals.L0: l0,
  evals.Fvu: fvu,
  evals.Cosine: cosine,
  evals.DeltaLoss: delta_loss,
  evals.Density: density,
  evals.PrefixCurve: prefixes,
  evals.DecoderCosines: decoder_cosines,
}
METRICS = pytest.mark.parametrize("metric", ORACLES, ids=lambda m: m.__name__)


def everything(findings):
  """Name -> number, array or curve, of all kinds of findings."""
  found = {n: r.value for n, r in findings.ratios.items()}
  for name, curve in findings.curves.items():
    found[name] = {at: ratio.value for at, ratio in curve.items()}
  return {**findings.arrays, **found, **findings.values}


def assert_same(found, expected):
  if isinstance(expected, dict):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
      assert_same(found[key], value)
  else:
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_every_metric_is_in_the_table():
  assert {type(m) for m in evals.METRICS} == set(ORACLES)


@pytest.mark.parametrize("kind", KINDS)
@METRICS
def test_it_is_what_the_oracle_finds(metric, kind, case):
  expected = ORACLES[metric](case.oracles[kind])
  found = everything(case.found[kind])
  for name, value in expected.items():
    assert_same(found[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_is_given(kind, case):
  names = [n for o in ORACLES.values() for n in o(case.oracles[kind])]
  assert len(names) == len(set(names))
  assert set(everything(case.found[kind])) == set(names)


@METRICS
def test_it_is_a_metric(metric):
  one = metric()
  assert isinstance(one, Metric)
  assert one == metric()
  assert one.name in {m.name for m in evals.METRICS}


@METRICS
def test_batches_and_padding_make_no_difference(metric, case):
  """Rows one by one, behind a row of padding, are the rows together."""
  rows = [case.batch[i : i + 1] for i in range(3)]
  empty = PackedBatch(
    *(np.zeros_like(a) for a in (rows[0].ids, rows[0].segment_ids)),
    np.zeros_like(rows[0].counted),
  )
  both = [
    PackedBatch.concatenate([rows[1], empty]),
    PackedBatch.concatenate([rows[0], rows[2]]),
  ]
  if metric is evals.DeltaLoss:  # its mean is that of the first batch
    both = [PackedBatch.concatenate([*rows, empty])]
  for kind in ("sae", "affine clt"):
    one = case.dictionaries[kind]
    found = evals.evaluate(case.lm, {kind: one}, both, metrics=[metric()])
    whole = everything(case.found[kind])
    for name, value in everything(found[kind]).items():
      assert_same(value, whole[name])
    for name, ratio in found[kind].ratios.items():
      assert ratio.num_rows == case.found[kind].ratios[name].num_rows == 3
      assert len(ratio.above) == 3  # rows of padding are not resampled


@METRICS
def test_what_does_not_count_makes_no_difference(metric, case):
  """Behind a document another stands, of which no token counts."""
  batch = case.batch
  ids, segments = batch.ids.copy(), batch.segment_ids.copy()
  ids[2, 12:], segments[2, 12:] = [2, 300, 301, 302], 9
  more = PackedBatch(ids, segments, batch.counted)
  one = case.dictionaries["sae"]
  found = evals.evaluate(case.lm, {"sae": one}, [more], metrics=[metric()])
  whole = everything(case.found["sae"])
  for name, value in everything(found["sae"]).items():
    assert_same(value, whole[name])


def test_losses_that_are_compared_with_fewer_ablations(case):
  one = case.dictionaries["sae"]
  whole = everything(case.found["sae"])
  for ablations, fewer in (((), 5 - 2), (("mean",), 5)):
    metric = evals.DeltaLoss(ablations=ablations)
    found = evals.evaluate(case.lm, one, [case.batch], metrics=[metric])
    (own,) = (everything(found[name]) for name in found)
    assert len(own) == fewer
    for name, value in own.items():
      assert_same(value, whole[name])
