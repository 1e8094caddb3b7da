"""The entrance to edge attribution: scans, batches, positions, errors."""

import dataclasses

import numpy as np
import pytest

from gemma_scope import axes, errors, surgery
from gemma_scope.attribution import logit_difference, projection
from gemma_scope.attribution.patching.edges import edge_attribution
from tests.attribution.patching.edge_oracle import EdgeOracle, edge_slope
from tests.attribution.patching.patch_checks import other_prompt

WANTED = logit_difference(7, 9)


def test_edges_of_a_scanned_stack(scanned):
  source = other_prompt(scanned.ids)
  found = edge_attribution(scanned.lm, source, scanned.ids, WANTED, steps=0)
  base, other = (
    EdgeOracle(scanned.tensors, scanned.config, ids)
    for ids in (scanned.ids, source)
  )
  ours, theirs = base.run()[1], other.run()[1]
  for writer, reader in (
    ("embed", "key[5].1"),  # the global layer, in the scanned period
    ("attn_write[3].2", "mlp_in[6]"),  # behind it
    ("mlp_write[4]", "query[6].0"),
  ):
    expected = edge_slope(base, reader, theirs[writer] - ours[writer])
    np.testing.assert_allclose(
      found[writer, reader], expected, rtol=5e-3, atol=1e-5
    )


def test_pairs_and_positions(double):
  source = [" the capital of France is", " Mary and John"]
  base = [" the city of France is", " John and Mary"]
  target = logit_difference([7, 8], 9)
  both = edge_attribution(
    double.lm, source, base, target, steps=2, per_position=True
  )
  names = (axes.BATCH, axes.COMPONENT, axes.READER, axes.SEQ)
  values = np.asarray(both.values.unwrap(*names))
  assert values.shape[-1] == 6
  alone = edge_attribution(
    double.lm,
    [source[1]] * 2,
    [base[1]] * 2,
    logit_difference([8, 8], 9),
    steps=2,
    per_position=True,
  )
  np.testing.assert_allclose(values[1].sum(-1), alone.matrix, atol=2e-5)
  np.testing.assert_allclose(both.base[1], alone.base[1], rtol=1e-5)
  # Before the first token that differs nothing is written differently.
  assert not values[0, ..., :2].any()
  assert not values[1, ..., 4:].any()


def test_wrong_questions_are_refused(double):
  def ask(lm=double.lm, target=WANTED, **options):
    return edge_attribution(lm, " Mary", " John", target, **options)

  edited = dataclasses.replace(
    double.lm, model=surgery.tap(double.lm.model, ["attn_in[0]"])
  )
  with pytest.raises(errors.SiteError, match=r"edits at attn_in"):
    ask(lm=edited)
  with pytest.raises(errors.SiteError, match="reads the residual stream"):
    ask(target=projection("resid_mid[1]", np.ones(32)))
  with pytest.raises(errors.ConfigError, match="enough steps"):
    ask(steps=-1)
