"""Means, norms and directions against plain NumPy over the same tokens."""

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.activations import statistics
from gemma_scope.sites import Site, resolve

TEXTS = [f"{name} went to Paris" * n for n in (1, 2, 3) for name in "ABCD"]
SITES = ["resid_post[3]", "z[2]", "final_norm"]


def rows(lm, site, texts=TEXTS):
  """[tokens, ...] of all texts, one at a time, BOS left out."""
  one = [gs.capture(lm, text, [site])[site] for text in texts]
  names = resolve(site, lm.config.num_layers)[0].info.axes
  return np.concatenate([np.asarray(v.unwrap(*names))[0, 1:] for v in one])


@pytest.mark.parametrize("site", SITES)
def test_means_and_norms(tiny_lm, site):
  values = rows(tiny_lm, site).astype(np.float64)
  ((key, mean),) = statistics.means(tiny_lm, TEXTS, site).items()
  assert str(key) == site
  np.testing.assert_allclose(
    mean.unwrap(*key.info.axes[2:]), values.mean(axis=0), atol=1e-5
  )
  norms = np.linalg.norm(values.reshape(len(values), -1), axis=1)
  (norm,) = statistics.mean_norms(tiny_lm, TEXTS, site).values()
  assert norm == pytest.approx(norms.mean(), rel=1e-5)


def test_a_direction_is_the_difference(tiny_lm):
  site = Site("resid_post", 3)
  found = statistics.difference_of_means(tiny_lm, TEXTS[:5], TEXTS[5:], site)
  high, low = (rows(tiny_lm, str(site), t) for t in (TEXTS[:5], TEXTS[5:]))
  expected = high.mean(axis=0) - low.mean(axis=0)
  np.testing.assert_allclose(found[site].data_array, expected, atol=1e-5)


def test_bos_alone_has_no_mean(tiny_lm):
  with pytest.raises(errors.TextError, match=r"besides <bos>"):
    statistics.means(tiny_lm, [2], "resid_post[3]")
