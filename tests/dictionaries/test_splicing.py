"""The family is what `gs.surgery.splice` takes: one pass of the tiny model."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.testing import dictionaries as make
from tests.dictionaries import oracle

TEXT = "The capital of France is"
FAMILY = {
  "sae": make.random_sae,
  "sae of z": lambda: make.random_sae(site="z", d=64),
  "affine transcoder": lambda: make.random_transcoder(affine=True),
  "affine clt": lambda: make.random_cross_layer(affine=True),
  "weakly causal crosscoder": lambda: make.random_cross_layer(
    kind="crosscoder"
  ),
  "crosscoder": make.random_crosscoder,
}


def plain(value):
  names = [n for n in value.named_axes if n not in ("batch", "seq")]
  data = np.asarray(value.unwrap("batch", "seq", *names))
  return data.reshape(*data.shape[:2], -1)


@pytest.mark.parametrize("name", FAMILY)
def test_kept_error_changes_nothing(name, tiny_lm):
  dictionary = FAMILY[name]()
  model = gs.surgery.splice(tiny_lm.model, [dictionary], error="keep")
  sites = [f"resid_post[{tiny_lm.config.num_layers - 1}]"]
  clean = gs.capture(tiny_lm, TEXT, sites)[sites[0]]
  found = gs.capture(tiny_lm.replace(model), TEXT, sites)[sites[0]]
  np.testing.assert_allclose(plain(found), plain(clean), atol=1e-4)


@pytest.mark.parametrize("name", ["sae", "sae of z", "affine transcoder"])
def test_without_error_the_reconstruction_stands_there(name, tiny_lm):
  dictionary = FAMILY[name]()
  reads, writes = dictionary.sites_in[0], dictionary.sites_out[0]
  model = gs.surgery.splice(tiny_lm.model, [dictionary], error="drop")
  x = plain(gs.capture(tiny_lm, TEXT, [reads])[reads])[0]
  found = gs.capture(tiny_lm.replace(model), TEXT, [writes])[writes]
  expected = oracle.rebuild(dictionary, oracle.encode(dictionary, x), x)
  np.testing.assert_allclose(plain(found)[0], expected, atol=1e-4)


def test_gemma_scope_1_does_not_fit(tiny_lm):
  """A Gemma 2 has other widths than every Gemma 3."""
  sae = make.random_sae(d=36)
  with pytest.raises(gs.GemmaScopeError):
    gs.surgery.splice(tiny_lm.model, [sae])
