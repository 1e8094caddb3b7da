"""Direct logit attribution against sums in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors, testing
from gemma_scope.activations.run import capture
from gemma_scope.analysis.direct import (
  SITES,
  direct_logit_attribution,
  split_target,
)
from gemma_scope.attribution.objectives import logit, logit_difference
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.sites import Site
from gemma_scope.surgery import edit
from gemma_scope.testing.oracle import oracle_forward
from gemma_scope.testing.tiny import tiny_config

TEXTS = [" the capital of", " Mary and John gave a drink to Mary in the city"]
CONFIG = tiny_config(num_layers=2, window=4)
EPSILON = 1e-6


@pytest.fixture(scope="module")
def lm():
  return testing.tiny_lm(CONFIG)


@pytest.fixture(scope="module")
def tensors():
  return random_tensors(CONFIG, seed=0)


def oracle_split(lm, tensors, text, weights, position):
  """Shares {label: float} and heads [layer, heads] of one prompt, float64."""
  ids = np.asarray(lm.tokenizer.encode(text))
  seen = oracle_forward(tensors, CONFIG, ids)
  table = np.asarray(tensors["embedder/input_embedding"], np.float64)
  last = seen[Site("resid_post", 1)][position]
  scale = 1 / np.sqrt((last * last).mean() + EPSILON)
  toward = scale * sum(w * table[i] for i, w in weights.items())
  toward = toward * (1 + tensors["final_norm/scale"])
  shares = {"embed": seen[Site("embed")][position] @ toward}
  heads = []
  for i in range(CONFIG.num_layers):
    for name in ("attn_write", "mlp_write"):
      site = Site(name, i)
      shares[str(site)] = seen[site][position] @ toward
    raw = seen[Site("attn_proj", i)][position]
    inverse = 1 / np.sqrt((raw * raw).mean() + EPSILON)
    gain = 1 + tensors[f"layer_{i}/post_attention_norm/scale"]
    output = tensors[f"layer_{i}/attn/attn_vec_einsum/w"].astype(np.float64)
    z = seen[Site("z", i)][position]
    heads.append(
      [z[n] @ output[n] @ (toward * inverse * gain) for n in range(len(z))]
    )
  return shares, np.asarray(heads)


@pytest.mark.parametrize("position", [-1, 2])
def test_every_share_is_the_products_of_its_writer(lm, tensors, position):
  target = logit_difference(" Paris", " Rome", position=position)
  result = direct_logit_attribution(lm, TEXTS, target)
  a, b = (lm.tokenizer.token_id(t) for t in (" Paris", " Rome"))
  assert dict(result.values.named_axes) == {"component": 5, "batch": 2}
  assert dict(result.heads.named_axes) == {"layer": 2, "heads": 4, "batch": 2}
  values = np.asarray(result.values.data_array)
  for row, text in enumerate(TEXTS):
    weights = {a: 1.0, b: -1.0}
    shares, heads = oracle_split(lm, tensors, text, weights, position)
    assert result.labels == tuple(shares)
    np.testing.assert_allclose(
      values[:, row], list(shares.values()), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
      result.heads.data_array[:, :, row], heads, rtol=1e-4, atol=1e-5
    )
    total = sum(shares.values())
    np.testing.assert_allclose(result.total[row], total, rtol=1e-4)


def test_shares_add_up_to_the_models_own_logit(lm):
  result = direct_logit_attribution(lm, TEXTS, logit(" Paris", position=3))
  logits = capture(lm, TEXTS, ["logits"], logits_at=3)["logits"]
  token = lm.tokenizer.token_id(" Paris")
  expected = np.asarray(logits.data_array)[:, 0, token]
  shares = np.asarray(result.values.data_array, np.float64)
  np.testing.assert_allclose(shares.sum(0), expected, rtol=1e-5)
  np.testing.assert_allclose(result.total, expected, rtol=1e-5)
  assert (np.abs(result.residual) < 1e-5).all()


def test_heads_add_up_to_their_layers_attn_write(lm):
  result = direct_logit_attribution(lm, TEXTS, logit(" Paris"))
  heads = np.asarray(result.heads.data_array, np.float64).sum(axis=1)
  for layer in range(2):
    component = result.labels.index(f"attn_write[{layer}]")
    share = np.asarray(result.values.data_array)[component]
    np.testing.assert_allclose(heads[layer], share, rtol=1e-4, atol=1e-6)


def test_bfloat16_shares_add_up_to_the_logit_of_the_same_dtype(lm, tensors):
  model = tensors_to_gemma(tensors, CONFIG, jnp.bfloat16)
  result = direct_logit_attribution(
    lm.replace(model), TEXTS, logit(" Paris", position=3)
  )
  assert result.values.dtype == np.float32
  logits = capture(lm.replace(model), TEXTS, ["logits"], logits_at=3)["logits"]
  token = lm.tokenizer.token_id(" Paris")
  expected = np.asarray(logits.data_array)[:, 0, token]
  np.testing.assert_allclose(result.total, expected, rtol=0.02, atol=0.02)


def test_an_edit_of_the_stream_shows_in_the_residual(lm):
  changed = lm.replace(edit(lm.model, "resid_post[0]", lambda x: 1.5 * x))
  target = logit(" Paris", position=3)
  result = direct_logit_attribution(changed, TEXTS, target)
  logits = capture(changed, TEXTS, ["logits"], logits_at=3)["logits"]
  token = lm.tokenizer.token_id(" Paris")
  expected = np.asarray(logits.data_array)[:, 0, token]
  np.testing.assert_allclose(result.total, expected, rtol=1e-5)
  assert (np.abs(result.residual) > 1e-3).all()


def test_it_splits_activations_that_are_already_there(lm):
  target = logit(" Rome")
  acts = capture(lm, TEXTS, (*SITES, "resid_post[:]"))
  found = split_target(lm, acts, target)
  expected = direct_logit_attribution(lm, TEXTS, target)
  np.testing.assert_allclose(
    found.values.data_array, expected.values.data_array, rtol=1e-5, atol=1e-6
  )


def test_it_shows_itself(lm):
  result = direct_logit_attribution(lm, TEXTS, logit(" Rome"))
  assert repr(result).startswith("DirectAttribution(5 components, total=[")
  page = result._repr_html_()
  assert "Strongest direct contributions" in page
  strongest = np.abs(np.asarray(result.values.data_array)[:, 0]).argmax()
  rows = page.split("<tr")[2:]  # behind the header
  assert result.labels[strongest] in rows[0]


@pytest.mark.parametrize(
  ("target", "match"),
  [
    (logit(" Paris Rome"), "exactly one token"),
    (logit(" Paris", position=7), r"position 7, prompts of \[4, "),
  ],
)
def test_unusable_targets_are_refused(lm, target, match):
  with pytest.raises(errors.TextError, match=match):
    direct_logit_attribution(lm, TEXTS, target)
