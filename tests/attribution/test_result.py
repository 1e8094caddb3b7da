"""What an attribution can be asked, on numbers made up here."""

import dataclasses

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


def test_residuals_and_shares_of_every_site(result):
  residuals, shares = result.residuals(), result.shares()
  assert list(residuals) == list(shares) == [EMBED, Z, PATTERN]
  for site in result:
    np.testing.assert_allclose(
      shares[site], result.total(site) / [3, 4], rtol=1e-6
    )
  np.testing.assert_array_equal(residuals[EMBED], result.residual())
  assert np.isnan(residuals[Z]).all()
  none = dataclasses.replace(result, target=np.zeros(2))
  assert np.isnan(none.shares()[EMBED]).all()


def test_parts_for_and_against_are_the_whole(result):
  up, down = result.positive(), result.negative()
  for site in result:
    assert data(up[site]).min() >= 0 >= data(down[site]).max()
    np.testing.assert_array_equal(
      data(up[site]) + data(down[site]), data(result[site])
    )
    assert np.isnan(up.residual(site)).all()
  assert up.method == "some_method, positive part"


@pytest.mark.parametrize("by", ["absolute", "largest", "target"])
def test_normalised_views(result, by):
  found = result.normalised(by)
  for site in result:
    for row in range(2):
      whole = data(result[site])[row].astype(np.float64)
      sizes = np.abs(whole)
      scale = {"absolute": sizes.sum(), "largest": sizes.max()}
      expected = whole / scale.get(by, result.target[row])
      np.testing.assert_allclose(data(found[site])[row], expected, rtol=1e-4)
  silent = dataclasses.replace(
    result, arrays={EMBED: result[EMBED] * 0}, target=np.zeros(2)
  )
  assert not data(silent.normalised(by)[EMBED]).any()
  with pytest.raises(errors.ConfigError, match=r"by='max'.*\n.*by='largest'"):
    result.normalised("max")


def test_flow_is_relevance_by_layer_and_token(result):
  layers = {Site("resid_post", i): result[EMBED] * (i + 1) for i in (2, 0)}
  flow = dataclasses.replace(result, arrays=layers).flow()
  assert dict(flow.named_axes) == {"layer": 2, "batch": 2, "seq": 5}
  tokens = data(result.per_token())
  np.testing.assert_allclose(data(flow)[0], tokens, rtol=1e-5)
  np.testing.assert_allclose(data(flow)[1], 3 * tokens, rtol=1e-5)
  with pytest.raises(errors.SiteError, match=r"No layer.*\n.*\n.*resid_post\["):
    result.flow()


def test_heads_neurons_and_the_strongest(result):
  heads = result.per_head("z[3]")
  assert dict(heads.named_axes) == {"batch": 2, "heads": 3}
  expected = data(result[Z]).sum((1, 3))
  np.testing.assert_allclose(data(heads), expected, rtol=1e-5, atol=1e-6)
  best = result.top("z[3]", 1)[0][0]
  assert best.index == np.abs(expected[0]).argmax()
  assert result.top("z", 1)[0][0] == best
  with pytest.raises(errors.ConfigError, match="no such elements"):
    result.per_neuron("z[3]")
  with pytest.raises(errors.SiteError, match="not among the results"):
    result.top("mlp_act")


def test_the_first_token_stands_apart(result):
  np.testing.assert_array_equal(result.bos(), data(result.per_token())[:, 0])
  first, rest = result.bos()[0], result.total()[0] - result.bos()[0]
  page = result._repr_html_()
  assert f"(first token {first:.3f}, the others {rest:.3f})" in page


def test_it_shows_itself(result):
  assert repr(result).startswith("Attribution(some_method, target=[3. 4.], at=")
  page = result._repr_html_()
  assert page.count("some_method at embed") == 2  # one a row
  assert page.count("Sum of relevance by site") == 2
  assert "not promised" in page
  assert "&lt;b&gt;" in page
  assert "<b>" not in page
