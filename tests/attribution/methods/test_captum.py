"""The real Gemma 3 270M against captum's saliency, SmoothGrad and occlusion.

The stored numbers and the script that made them are
tests/goldens/captum_methods.*; DeepLIFT of small networks is in test_deeplift.
"""

import functools
import pathlib

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.tokens import TokenBatch

pytestmark = pytest.mark.real

TOLERANCE = 1e-4  # relative to the largest score


@functools.cache
def golden():
  folder = pathlib.Path(__file__).parents[2] / "goldens"
  return dict(np.load(folder / "captum_methods.npz"))


def scores(lm, method, options=None):
  ids = golden()["tokens"][None]
  target = gs.attribution.logit_difference(
    int(golden()["target"]), int(golden()["against"])
  )
  result = gs.attribute(
    lm,
    TokenBatch(ids, np.ones_like(ids), exact=False),
    target,
    method=method,
    options=options,
  )
  np.testing.assert_allclose(result.target[0], golden()["value"], 1e-4)
  return np.asarray(result.per_token().data_array)[0]


def assert_close(found, name):
  stored = golden()[name]
  np.testing.assert_allclose(
    found, stored, atol=TOLERANCE * np.abs(stored).max()
  )


@pytest.mark.parametrize(
  ("norm", "name"), [("l1", "saliency"), ("l2", "saliency_l2")]
)
def test_saliency(real_lm, norm, name):
  options = gs.attribution.SaliencyOptions(norm)
  assert_close(scores(real_lm, "saliency", options), name)


def test_smoothgrad_without_noise(real_lm):
  options = gs.attribution.SmoothGradOptions(samples=2, noise=0.0)
  assert_close(scores(real_lm, "smoothgrad", options), "smoothgrad")


@pytest.mark.parametrize(
  ("window", "stride", "name"),
  [
    (1, 1, "ablation"),
    (2, 1, "occlusion_2_1"),
    (3, 2, "occlusion_3_2"),
    (4, 4, "occlusion_4_4"),
  ],
)
def test_occlusion(real_lm, window, stride, name):
  options = gs.attribution.OcclusionOptions(window, stride, "pad")
  assert_close(scores(real_lm, "occlusion", options), name)
