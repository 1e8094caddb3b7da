"""Gemma Scope 1's params.npz is read, and kept from Gemma 3."""

import numpy as np
import pytest

from gemma_scope.dictionaries.gemma_scope_1 import (
  gemma_scope_1_to_dictionary,
  refuse_gemma_2,
)
from gemma_scope.dictionaries.protocol import About
from gemma_scope.errors import CheckpointError, SiteError
from gemma_scope.sites import Site
from gemma_scope.testing import dictionary_files as files
from tests.dictionaries.test_gemma_scope_2 import forward

PLACE = "layer_12/width_16k/average_l0_82"


@pytest.mark.parametrize(
  ("repository", "site"),
  [
    ("gemma-scope-2b-pt-res", "resid_post[12]"),
    ("gemma-scope-9b-it-att", "z[12]"),
    ("gemma-scope-9b-pt-mlp", "mlp_write[12]"),
  ],
)
def test_reads(repository, site, tmp_path):
  arrays = files.random_layer(24, 40, 24)
  folder = files.write_gemma_scope_1(tmp_path / repository / PLACE, arrays)
  sae = gemma_scope_1_to_dictionary(folder)
  assert str(sae.site) == site
  assert (sae.about.l0, sae.about.model) == (82, "Gemma 2")
  x = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
  f, y = forward(arrays, x)
  np.testing.assert_allclose(sae.encode(x), f, atol=1e-5)
  np.testing.assert_allclose(sae(x), y, atol=1e-5)


def test_site_can_be_given(tmp_path):
  folder = files.write_gemma_scope_1(tmp_path, files.random_layer(8, 9, 8))
  with pytest.raises(SiteError, match="cannot be told from its path"):
    gemma_scope_1_to_dictionary(folder)
  sae = gemma_scope_1_to_dictionary(folder, site="resid_post[3]")
  assert sae.site == Site("resid_post", 3)


def test_refused_for_gemma_3():
  site = (Site("resid_post", 3),)
  with pytest.raises(SiteError, match=r"is of Gemma 2, and the model is"):
    refuse_gemma_2(About("sae", site, site, model="Gemma 2"))
  refuse_gemma_2(About("sae", site, site, model="gemma-3-270m"))


@pytest.mark.parametrize("content", [b"", b"PK\3\4 broken", b"text"])
def test_damaged(content, tmp_path):
  (tmp_path / "params.npz").write_bytes(content)
  with pytest.raises(CheckpointError, match="cannot be read"):
    gemma_scope_1_to_dictionary(tmp_path, site="resid_post[3]")


def test_misshapen(tmp_path):
  arrays = files.random_layer(8, 9, 8)
  arrays["b_dec"] = arrays["b_dec"][:-1]
  folder = files.write_gemma_scope_1(tmp_path, arrays)
  with pytest.raises(CheckpointError, match="b_dec is"):
    gemma_scope_1_to_dictionary(folder, site="resid_post[3]")
