"""Widths and layers of dictionaries against those of models."""

import dataclasses

import pytest

from gemma_scope.dictionaries import fit
from gemma_scope.errors import SiteError
from gemma_scope.sites import Site
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.weights import catalog


def test_widths():
  sizes = catalog.SIZES["270m"]
  found = {n: fit.site_width(Site(n, 0), sizes) for n in ("resid_post", "z")}
  assert found == {"resid_post": 640, "z": 1024}
  assert fit.site_width(Site("mlp_act", 0), sizes) == 2048
  assert fit.site_width(Site("z", 0), catalog.SIZES["27b"]) == 4096


@pytest.mark.parametrize(
  "dictionary",
  [
    make.random_sae(),
    make.random_sae(site="z", d=64),
    make.random_transcoder(),
    make.random_cross_layer(),
    make.random_crosscoder(),
  ],
)
def test_fits(dictionary):
  fit.check_fits(dictionary, tiny_config(), "tiny")


@pytest.mark.parametrize(
  ("dictionary", "says"),
  [
    (make.random_sae(d=64), r"(?s)have 32 numbers.*z\[3\] has 64"),
    (make.random_sae(d=48), r"mlp_act\[3\] has 48"),
    (make.random_sae(d=640), r"270m has 640 there"),
    (make.random_sae(d=33), r"no size of Gemma 3 has 33"),
    (make.random_sae(layer=8), r"does not have"),
  ],
)
def test_does_not_fit(dictionary, says):
  with pytest.raises(SiteError, match=says):
    fit.check_fits(dictionary, tiny_config(), "tiny")


def test_model_of_the_description():
  sae = make.random_sae(d=33)
  fit.check_published_model(sae)
  mine = dataclasses.replace(sae.about, model="/models/of/my/own")
  fit.check_published_model(sae.with_about(mine))
  about = dataclasses.replace(sae.about, model="gemma-3-270m")
  with pytest.raises(SiteError, match=r"gs\.load"):
    fit.check_published_model(sae.with_about(about))
