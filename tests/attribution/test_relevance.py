"""Relevance of a whole model: conservation, and equality with lxt."""

import pathlib

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import lrp
from gemma_scope.attribution.evaluate import ask
from gemma_scope.attribution.many import attribute_many
from gemma_scope.attribution.objectives import activation, log_prob, logit
from gemma_scope.attribution.patching.slopes import slopes
from gemma_scope.attribution.relevance import placed, promise, relevance
from gemma_scope.model import attention_kernel, stack
from gemma_scope.sites import resolve
from gemma_scope.surgery.splice import splice
from gemma_scope.testing.dictionaries import random_sae

GOLDEN = pathlib.Path(__file__).parent.parent / "goldens" / "lxt.npz"
SMALL = lrp.LRP_EPSILON.replace("SMALL", {"weights": lrp.Epsilon(1e-9)})
PROMPT = "Mary and John went to Paris"


@pytest.fixture(scope="module")
def golden():
  return np.load(GOLDEN)


def bucketed(ids):
  """A row that shares its compiled program with rows of like length."""
  return TokenBatch(ids[None], np.ones_like(ids)[None], exact=False)


def names_of(golden):
  return sorted({key.rsplit("/", 1)[0] for key in golden if "/" in key})


@pytest.mark.parametrize("method", ["cp_lrp", "lrp_gamma"])
def test_every_layer_sums_to_the_target(tiny_lm, method):
  found = gs.attribute(
    tiny_lm, PROMPT, " Paris", method=method, at=["embed", "resid_post[:]"]
  )
  for site in found:
    np.testing.assert_allclose(found.total(site), found.target, rtol=1e-4)


@pytest.mark.parametrize("method", ["attn_lrp", "cp_lrp", "input_x_gradient"])
def test_long_rows_have_the_relevance_of_short_ones(
  scanned, method, monkeypatch
):
  """Blocks of a long row are one batch; the rules go through them as well."""

  def found():
    stack.run_block.clear_cache()
    relevance.clear_cache()
    result = gs.attribute(scanned.lm, scanned.ids, 7, method=method)
    return np.asarray(result.per_token().data_array)

  expected = found()
  monkeypatch.setattr(attention_kernel, "MIN_BLOCK", 1)
  monkeypatch.setattr(attention_kernel, "MAX_BLOCKS", 2)
  blocks = []
  banded = attention_kernel._banded_attention

  def counted(*args):
    blocks.append(args[-1])
    return banded(*args)

  monkeypatch.setattr(attention_kernel, "_banded_attention", counted)
  ours = found()
  monkeypatch.undo()
  stack.run_block.clear_cache()
  relevance.clear_cache()
  assert set(blocks) == {2}
  np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.real
def test_attn_lrp_is_that_of_lxt(real_lm, golden):
  names = names_of(golden)
  for kind in ("bos", "bare"):
    assert sum(name.endswith(kind) for name in names) >= 10
  for name in names:
    found = gs.attribute(
      real_lm,
      bucketed(golden[f"{name}/tokens"]),
      int(golden[f"{name}/target"]),
      method="attn_lrp",
    )
    expected = golden[f"{name}/relevance"].astype(np.float64)
    ours = np.asarray(found.per_token().data_array)[0]
    error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
    assert error <= 1e-4, (name, error)


@pytest.mark.real
@pytest.mark.parametrize("rules", [lrp.CP_LRP, SMALL], ids=lambda r: r.name)
def test_the_real_model_conserves(real_lm, golden, rules):
  for name in names_of(golden)[::4]:
    (found,) = attribute_many(
      real_lm,
      bucketed(golden[f"{name}/tokens"]),
      [int(golden[f"{name}/target"])],
      method=rules,
      at=["embed", "resid_post[:]"],
    )
    for share in found.shares().values():
      np.testing.assert_allclose(share, 1, rtol=1e-4)


@pytest.mark.real
def test_attn_lrp_does_not_and_says_by_how_much(real_lm):
  found = gs.attribute(
    real_lm,
    "The capital of France is",
    " Paris",
    method="attn_lrp",
    at=["embed", "resid_post[:]"],
  )
  shares = [share[0] for share in found.shares().values()]
  # Relevance is lost or made at every softmax, not in the last layer's write.
  assert abs(shares[0] - 1) > 0.05
  np.testing.assert_allclose(shares[-1], 1, rtol=1e-4)
  assert np.isnan(found.residual()).all()


@pytest.mark.parametrize("rules", [lrp.ATTN_LRP, lrp.CP_LRP])
@pytest.mark.parametrize("kind", ["jump_relu", "top_k"])
def test_latents_of_a_spliced_dictionary_in_the_same_pass(double, kind, rules):
  """z_k (W_dec[k] . m), m the slope behind: by hand for every latent."""
  sae = random_sae(kind, layer=0)
  model = splice(double.lm.model, sae)
  _, rows, target = ask(double.lm, double.ids, logit(7))
  sites = resolve(("embed", sae.latents, sae.site.error, "resid_pre[1]"), 2)
  embed, latents, error, after = sites
  value, found = relevance(model, rows, target, sites, rules)
  _, values, slope = slopes(model, rows, target, sites, rules=rules)
  behind = slope[after].unwrap("batch", "seq", "embedding")
  z = values[latents].unwrap("batch", "seq", "latents")
  expected = np.asarray(z * (behind @ sae.w_dec.unwrap("latents", "output").T))
  ours = np.asarray(found[latents].unwrap("batch", "seq", "latents"))
  np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
  assert np.count_nonzero(ours) > 10
  if rules is lrp.CP_LRP:  # latents, error and bias together get the whole
    bias = float((behind @ sae.b_dec.unwrap("output")).sum())
    parts = [float(found[s].data_array.sum()) for s in (latents, error)]
    np.testing.assert_allclose(sum(parts) + bias, value[0], rtol=1e-4)
    np.testing.assert_allclose(
      found[embed].data_array.sum(), value[0], rtol=1e-4
    )


@pytest.mark.parametrize(
  ("site", "known"),
  [
    ("embed", True),
    ("resid_mid[1]", True),
    ("resid_post[2]", False),
    ("z[0]", False),
    ("mlp_write[0]", False),
  ],
)
def test_a_sum_is_promised_where_all_relevance_passes(tiny_lm, site, known):
  (site,) = resolve(site, 8)
  target = activation("mlp_act[2]", {"neurons": 1}).resolve(tiny_lm)
  value = np.asarray([2.0, 3.0])
  expected = value if known else np.full(2, np.nan)
  np.testing.assert_array_equal(promise(site, target, value), expected)
  unknown = log_prob(5).resolve(tiny_lm)
  assert np.isnan(promise(site, unknown, value)).all()


def test_places_of_a_table_become_scopes_of_the_model(tiny_lm):
  table = lrp.CP_LRP.at("mlp[1]", {"weights": lrp.Gamma()})
  model, rest = placed(tiny_lm.model, table.at("z[2]", {"exp": lrp.Stop()}))
  assert repr(model).count("RuleScope(") == 2
  assert rest == lrp.CP_LRP
  with pytest.raises(errors.SiteError, match="The model has 8 layers"):
    placed(tiny_lm.model, lrp.CP_LRP.at("mlp[8]", {"exp": lrp.Stop()}))
