"""Runs enter in their layer and advance together; peak work is bounded."""

import numpy as np

from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching import programs
from gemma_scope.attribution.patching.cells import Cells
from gemma_scope.attribution.patching.put import ALL
from gemma_scope.attribution.patching.wavefront import (
  Sizes,
  make_models,
  run_wave,
)
from gemma_scope.model.stack import active_sites
from gemma_scope.sites import Site
from gemma_scope.surgery.taps import Tap

CLEAN, CORRUPT = " the capital of France is", " the capital of Rome is"


def test_runs_do_not_pass_layers_before_their_own(double, monkeypatch):
  lm = double.lm
  *_, pairs = to_pairs(lm, CLEAN, CORRUPT, logit_difference(7, 9))
  site = [Site("resid_pre", 0), Site("resid_pre", 1)]
  calls = []

  def counted(name):
    original = getattr(programs, name)

    def call(*args):
      calls.append(name)
      return original(*args)

    monkeypatch.setattr(programs, name, call)

  for name in ("lead", "enter", "advance", "finish"):
    counted(name)
  told = []
  cells = Cells(
    *np.asarray(
      [[0] * 5, [0, 0, 1, 1, 1], [0] * 5, [1, 2, 0, 1, 2], [ALL] * 5], np.int32
    )
  )
  sizes = Sizes(pairs=1, runs=5, rows=2, entering=3)
  patched, clean = run_wave(
    make_models(lm.model, site, ()), pairs, cells, sizes, told.append
  )
  assert patched.shape == (5,)
  assert clean.shape == (2, 1)
  assert told == [2, 5]
  assert calls == [
    *("lead", "enter"),  # layer 0: two runs in one chunk of three
    *("lead", "advance", "enter"),  # layer 1
    *("finish", "finish", "finish"),  # five runs in chunks of two
  ]
  # The layer a run enters at decides what it skips, not what it is.
  np.testing.assert_allclose(patched[2], clean[1, 0], rtol=1e-5)  # BOS is BOS


def test_sites_are_tapped_in_all_layers_and_parts_where_asked(scanned):
  model = scanned.lm.model
  models = make_models(model, [Site("z", 3)], (Site("mlp_act", 2),))
  for layer in range(7):
    leading = models.layer(models.leading, layer)
    assert leading.read == (("mlp_act",) if layer == 2 else ())
    taps = [
      site.name for site in active_sites(leading.block) if isinstance(site, Tap)
    ]
    assert taps == (["z", "mlp_act"] if layer == 2 else ["z"])
  assert models.names == ("z",)
