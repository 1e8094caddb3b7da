"""What an attribution can be asked, on numbers made up here."""

import numpy as np
from penzai import pz
import pytest

from gemma_scope import errors
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.result import Attribution
from gemma_scope.sites import Site

EMBED, Z, PATTERN = Site("embed"), Site("z", 3), Site("pattern", 3)


@pytest.fixture
def result():
  rng = np.random.default_rng(0)

  def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  arrays = {
    EMBED: pz.nx.wrap(values(2, 5, 8), "batch", "seq", "embedding"),
    Z: pz.nx.wrap(values(2, 5, 3, 4), "batch", "seq", "heads", "projection"),
    PATTERN: pz.nx.wrap(values(2, 3, 5, 5), "batch", "heads", "seq", "kv_seq"),
  }
  ids = np.ones((2, 5), np.int32)
  expected = {site: np.asarray([1.0, 2.0]) for site in arrays}
  expected[Z] = np.asarray([np.nan, np.nan])
  return Attribution(
    arrays,
    "some_method",
    np.asarray([3.0, 4.0]),
    expected,
    TokenBatch(ids, ids, exact=True),
    (("<bos>", " a", " <b>", " c", " d"), ("<bos>", " e")),
  )


def data(array):
  return np.asarray(array.data_array)


def test_per_token_sums_everything_but_batch_and_seq(result):
  for site, others in ((EMBED, 2), (Z, (2, 3)), (PATTERN, (1, 3))):
    found = result.per_token(site)
    assert dict(found.named_axes) == {"batch": 2, "seq": 5}
    expected = data(result[site]).astype(np.float64).sum(others)
    np.testing.assert_allclose(data(found), expected, rtol=1e-5, atol=1e-6)


def test_total_and_residual(result):
  total = data(result[EMBED]).astype(np.float64).sum((1, 2))
  np.testing.assert_allclose(result.total(), total, rtol=1e-5)
  np.testing.assert_allclose(
    result.residual("embed"), [1, 2] - total, rtol=1e-4
  )
  assert np.isnan(result.residual("z[3]")).all()


def test_it_is_a_mapping_by_site_or_string(result):
  assert list(result) == [EMBED, Z, PATTERN]
  assert len(result) == 3
  assert result["z[3]"] is result[Z]
  assert [str(site) for site in result] == ["embed", "z[3]", "pattern[3]"]
  with pytest.raises(
    errors.SiteError,
    match=r"not among the results.*\n.*z\[2\]\n.*embed, z\[3\]",
  ):
    result["z[2]"]


def test_it_shows_itself(result):
  assert repr(result).startswith("Attribution(some_method, target=[3. 4.], at=")
  page = result._repr_html_()
  assert page.count("some_method at embed") == 2  # one a row
  assert "&lt;b&gt;" in page
  assert "<b>" not in page
