"""Patching, resampling and freezing, against runs of the oracle."""

import jax
import numpy as np
from penzai import pz
import pytest

from gemma_scope import errors, surgery
from gemma_scope.activations.run import forward
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery import tap
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config
from tests.surgery.stand_ins import IDS, LAYERS, close, values

OTHER = np.random.default_rng(8).integers(4, 512, (3, 9)).astype(np.int32)
OTHER[:, 0] = 2
LAST = "resid_post[7]"
END = Site("resid_post", 7)


def run(model, specs, ids=OTHER):
  """Site -> named value of another run."""
  sites = resolve(specs, LAYERS)
  return forward(
    tap(model, sites), ids, np.ones_like(ids), np.arange(ids.shape[1])
  )


def oracle_run(double, row):
  return oracle.oracle_forward(
    double.tensors, tiny_config(num_layers=LAYERS), OTHER[row]
  )


def taken(other, positions, heads=...):
  def edit(value):
    value = value.copy()
    value[positions, heads] = other[positions, heads]
    return value

  return edit


@pytest.mark.parametrize("spec", ["resid_post[3]", "z[2]", "mlp_write[7]"])
def test_values_of_the_other_run_by_position(double, model, spec):
  """The other run is shorter: what it had not stays."""
  (site,) = resolve(spec, LAYERS)
  source = run(model, spec, OTHER[:1])
  edited = surgery.intervene(model, surgery.patch(spec, source))
  edit = taken(oracle_run(double, 0)[site], slice(0, 9))
  close(values(edited, [LAST])[LAST][0], double.oracle({site: edit})[END])


def test_one_head_at_one_position_row_by_row(double, model):
  site = Site("z", 5)
  source = run(model, ["z[5]"], OTHER[:2])
  patch = surgery.patch("z[5]", source, heads=[3], positions=4)
  found = values(surgery.intervene(model, patch), [LAST])[LAST]
  for row, length in ((0, 12), (1, 9)):
    edit = taken(oracle_run(double, row)[site], [4], [3])
    expected = double.oracle({site: edit}, row)[END]
    close(found[row, :length], expected)


def test_resampled_rows_are_those_the_key_draws(double, model):
  site, key = Site("resid_mid", 3), jax.random.key(2)
  source = run(model, ["resid_mid[3]"])
  edited = surgery.intervene(model, surgery.resample(site, source, key))
  found = values(edited, [LAST])[LAST]
  rows = np.asarray(jax.random.randint(key, (2,), 0, 3))
  assert rows.tolist() != [0, 1]
  for row, length in ((0, 12), (1, 9)):
    edit = taken(oracle_run(double, rows[row])[site], slice(0, 9))
    close(found[row, :length], double.oracle({site: edit}, row)[END])


def test_a_frozen_pattern(double, model):
  site = Site("pattern", 5)
  source = run(model, ["pattern[5]"], OTHER[:1])
  edited = surgery.intervene(model, surgery.freeze_pattern(site, source))

  def edit(value):
    value = value.copy()
    value[:, :9] = 0
    value[:, :9, :9] = oracle_run(double, 0)[site]
    return value

  close(values(edited, [LAST])[LAST][0], double.oracle({site: edit})[END])


def test_frozen_norms_leave_a_clean_run_alone(model):
  """And make the model linear in what they norm: doubling doubles."""
  specs = surgery.frozen_norms()
  assert len(resolve(specs, LAYERS)) == 6 * LAYERS
  source = run(model, specs, IDS[:1])
  frozen = surgery.intervene(model, surgery.freeze_norms(specs, source))
  same = values(frozen, [LAST], IDS[:1])[LAST]
  np.testing.assert_allclose(same, values(model, [LAST], IDS[:1])[LAST], 1e-4)
  double_it = surgery.scale("resid_mid[3]", 2.0)
  sites = ["mlp_in[3]", "mlp_write[3]"]
  plain = values(model, sites, IDS[:1])
  found = values(surgery.intervene(frozen, double_it), sites, IDS[:1])
  close(found["mlp_in[3]"], 2 * plain["mlp_in[3]"])
  free = values(surgery.intervene(model, double_it), sites, IDS[:1])
  close(free["mlp_in[3]"], plain["mlp_in[3]"], 1e-3)


def test_one_frozen_norm_against_the_oracle(double, model):
  """attn_in with the other run's factor: scaled by the ratio of the two."""
  source = run(model, ["attn_in[4].inverse_rms"], OTHER[:1])
  edited = surgery.intervene(
    model, surgery.freeze_norms("attn_in[4].inverse_rms", source)
  )

  def factor(stream):
    return 1 / np.sqrt((stream**2).mean(axis=-1, keepdims=True) + 1e-6)

  here = factor(double.oracle()[Site("resid_pre", 4)])
  there = factor(oracle_run(double, 0)[Site("resid_pre", 4)])

  def edit(value):
    value = value.copy()
    value[:9] *= there / here[:9]
    return value

  expected = double.oracle({Site("attn_in", 4): edit})[END]
  close(values(edited, [LAST])[LAST][0], expected)


def test_a_capture_knows_how_long_its_rows_are():
  class Tokens:
    lengths = np.array([4, 2])

  class Run(dict):
    tokens = Tokens()

  patch = surgery.patch("resid_post[3]", Run())
  assert patch.change.lengths.tolist() == [4, 2]


@pytest.mark.parametrize(
  ("source", "message"),
  [
    ({}, "There is no array for one of the sites"),
    ({Site("z", 3): np.zeros((1, 9, 4, 16))}, "no run's value of z"),
    (
      {Site("z", 3): pz.nx.wrap(np.zeros((1, 9, 64)), "batch", "seq", "heads")},
      "no run's value of z",
    ),
  ],
)
def test_what_is_no_run_of_the_site_is_refused(double, source, message):
  with pytest.raises(errors.SiteError, match=message):
    surgery.intervene(double.models["scanned"], surgery.patch("z[3]", source))


def test_another_number_of_rows_is_refused(double):
  model = double.models["unrolled"]
  source = run(model, ["resid_post[3]"])
  edited = surgery.intervene(model, surgery.patch("resid_post[3]", source))
  with pytest.raises(errors.SiteError, match="another number of rows"):
    values(edited)
