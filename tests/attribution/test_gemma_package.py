"""The official `gemma` package's Gemma 3 under the rules: somebody else's code.

Needs the extra `gemma` (gemma 4, Python 3.12), so it is no part of the default
run:  pytest -m peers tests/attribution/test_gemma_package.py
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution import lrp
from gemma_scope.attribution.objectives.logits import ResolvedLogits
from gemma_scope.attribution.relevance import relevance as ours
from gemma_scope.attribution.rows import Rows
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.sites import Site
from gemma_scope.testing.tiny import tiny_config
from tests.attribution.checks import (
  assert_conserves,
  assert_same_bits,
  relevance,
  total,
)

pytestmark = pytest.mark.peers

IDS = jnp.asarray([[2, 11, 7, 30, 41, 5]])
WIDTH, TOKEN, WINDOW = 32, 3, 4


def package():
  """The package, whose imports warn; skips where it is not."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("gemma", reason='pip install "gemma-scope[gemma]"')
    gm = pytest.importorskip("gemma.gm", reason="gemma 4 needs Python 3.12")
    gm.nn.Gemma3_270M  # noqa: B018  imported when first asked for
  return gm


@pytest.fixture(scope="module", autouse=True)
def as_it_likes():
  """Its code broadcasts over ranks."""
  with jax.numpy_rank_promotion("allow"):
    yield


@pytest.fixture(scope="module")
def model():
  """Two layers of its Gemma 3, a local and a global one, random weights."""
  gm = package()
  config = gm.nn.Gemma3_270M.config
  kinds = config.attention_types
  whole = next(kind for kind in kinds if kind != kinds[0])
  config = dataclasses.replace(
    config,
    num_embed=64,
    embed_dim=WIDTH,
    hidden_dim=48,
    num_heads=4,
    head_dim=16,
    num_kv_heads=2,
    attention_types=(kinds[0], whole),
    sliding_window_size=WINDOW,
  )
  return gm.nn.Gemma3_270M(config=config, dtype=jnp.float32)


@pytest.fixture(scope="module")
def variables(model):
  drawn = model.init(jax.random.key(0), IDS)
  return jax.tree.map(
    lambda w: w + 0.1 * jax.random.normal(jax.random.key(w.size), w.shape),
    drawn,
  )


@pytest.fixture(scope="module")
def embedded(model, variables):
  return model.apply(variables, IDS, method=lambda m, i: m.embedder.encode(i))


@pytest.fixture(scope="module")
def logit(model, variables):
  """The last position's logit of one token, from embeddings."""

  def run(module, x):
    inputs = module._encode_and_get_inputs(tokens=IDS)
    inputs = dataclasses.replace(inputs, embeddings=x)
    hidden, _ = module._apply_attention(inputs, None)
    return module.embedder.decode(hidden)

  return lambda x: model.apply(variables, x, method=run)[0, -1, TOKEN]


def test_it_is_the_packages_own_forward_pass(model, variables, embedded, logit):
  expected = model.apply(variables, IDS).logits[0, -1, TOKEN]
  np.testing.assert_allclose(logit(embedded), expected, rtol=1e-5)


@pytest.mark.parametrize(
  "rules",
  [lrp.ATTN_LRP, lrp.CP_LRP, lrp.LRP_EPSILON, lrp.LRP_GAMMA],
  ids=lambda rules: rules.name,
)
def test_its_values_are_the_same_and_relevance_adds_up(logit, embedded, rules):
  ruled = lrp.transform(logit, rules)
  assert_same_bits(jax.jit(ruled)(embedded), jax.jit(logit)(embedded))
  if rules is lrp.ATTN_LRP:
    found = relevance(logit, embedded, rules)
    assert abs(total(found) / float(logit(embedded)) - 1) > 1e-3
  else:
    assert_conserves(logit, embedded, rules, 1e-4)


def test_its_relevance_is_that_of_our_own_model(variables, embedded, logit):
  """The same weights in gemma_scope's Gemma, by both rules."""
  config = dataclasses.replace(
    tiny_config(num_layers=2, vocab_size=64, window=WINDOW),
    period=2,
    rope_factor=1.0,
  )
  params = variables["params"]
  tensors = {
    "/".join(str(key.key) for key in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  target = ResolvedLogits(jnp.asarray([[TOKEN]]), jnp.ones(1))
  rows = Rows(IDS, jnp.ones_like(IDS), jnp.asarray([5]))

  for rules in (lrp.ATTN_LRP, lrp.CP_LRP):
    value, values = ours(
      tensors_to_gemma(tensors, config), rows, target, (Site("embed"),), rules
    )
    np.testing.assert_allclose(value[0], logit(embedded), rtol=1e-4)
    found = values[Site("embed")].unwrap("batch", "seq", "embedding")
    theirs = relevance(logit, embedded, rules)
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(found / scale, theirs / scale, atol=1e-4)
