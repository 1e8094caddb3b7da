"""Gradients of the real Gemma 3 270M against autograd and captum.

The stored numbers and the script that made them are tests/goldens/captum_ig.*:
same inputs, baselines, steps and quadrature. A token's score is a sum of 640
products of both signs, so scores are compared on the scale of those products,
the vectors behind them by their sketches.
"""

import functools
import pathlib

import jax
import numpy as np
from penzai import pz
import pytest

import gemma_scope as gs
from gemma_scope import axes
from gemma_scope.activations.tokens import BUCKET, TokenBatch
from gemma_scope.attribution.attribute import GradientOptions
from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.rows import to_rows
from gemma_scope.sites import Site
from gemma_scope.surgery.select import offset
from tests.goldens import sketch

pytestmark = pytest.mark.real

PROMPTS = ("ioi", "capital", "fox")
OBJECTIVES = ("logit", "difference")
LAYER_SITES = ("resid_post", "attn_write", "mlp_write", "attn_proj")
QUADRATURES = {"gauss_legendre": "gausslegendre", "midpoint": "riemann_middle"}
TOLERANCE = 1e-4  # relative to the length of a vector
# A norm stands behind attn_proj and the last resid_post, so the scores there
# are zero but for rounding of their products.
ROUNDING = 3e-5
STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)

every_prompt = pytest.mark.parametrize("prompt", PROMPTS)
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


@functools.cache
def golden():
  folder = pathlib.Path(__file__).parent.parent / "goldens"
  return dict(np.load(folder / "captum_ig.npz"))


def batch_of(prompt):
  """The prompt as text would be: padded, so that all share one program."""
  ids = golden()[f"{prompt}/tokens"][None]
  return TokenBatch(ids, np.ones_like(ids), exact=False)


def target_of(prompt, objective):
  target, against = (
    int(golden()[f"{prompt}/{name}"]) for name in ("target", "against")
  )
  if objective == "logit":
    return gs.attribution.logit(target)
  return gs.attribution.logit_difference(target, against)


@pytest.fixture(scope="module")
def pad_baseline(real_lm):
  """Scaled embeddings of BOS and <pad>, as in the goldens."""
  ids = np.asarray([[2] + [0] * (BUCKET - 1)])
  acts = gs.capture(real_lm, ids, ["embed"], segment_ids=np.ones_like(ids))
  return np.asarray(acts["embed"].unwrap(*STREAM))


def assert_close_vectors(found, stored):
  """Rows [..., width] equal the rows whose sketches are stored."""
  error = sketch.relative_error(sketch.sketch(found), stored)
  kept = stored[..., 0] > 0
  assert np.median(error[kept]) <= TOLERANCE
  assert error[kept].max() <= 2 * TOLERANCE
  assert (np.abs(found[~kept]) < 1e-6).all()


def assert_close_scores(found, stored, scale):
  """Scores equal up to rounding of the vectors they sum."""
  assert (np.abs(found - stored) <= 3 * TOLERANCE * scale + 1e-6).all()


@every_prompt
@every_objective
def test_input_x_gradient_is_autograds(real_lm, prompt, objective):
  at = ("embed", *(f"{name}[:]" for name in LAYER_SITES))
  result = gs.attribute(
    real_lm,
    batch_of(prompt),
    target_of(prompt, objective),
    method="input_x_gradient",
    at=at,
  )
  stored, key = golden(), f"{prompt}/{objective}"
  np.testing.assert_allclose(result.target[0], stored[f"{key}/value"], 1e-5)
  pairs = [(result.per_token().data_array[0], f"{key}/input_x_gradient")]
  for name in LAYER_SITES:
    layers = range(real_lm.config.num_layers)
    rows = [result.per_token(Site(name, i)).data_array[0] for i in layers]
    pairs.append((np.stack(rows), f"{key}/site/{name}"))
  for found, name in pairs:
    error = np.linalg.norm(found - stored[name], axis=-1)
    length = np.linalg.norm(stored[name], axis=-1)
    assert (error <= TOLERANCE * length + ROUNDING).all(), name


@every_prompt
def test_gradient_vectors_are_autograds(real_lm, prompt):
  batch, objective = batch_of(prompt), "difference"
  rows = to_rows(batch, -1)
  target = target_of(prompt, objective).resolve(real_lm)
  site = Site("embed")

  @jax.jit
  def gradient(model, rows, target, zeros):
    def value(added):
      offsets = {site: pz.nx.wrap(added, *STREAM)}
      return evaluate(model, rows, target, offsets)[0].sum()

    return jax.grad(value)(zeros)

  zeros = np.zeros((*rows.ids.shape, real_lm.config.d_model), np.float32)
  found = gradient(offset(real_lm.model, [site]), rows, target, zeros)
  stored = golden()[f"{prompt}/{objective}/gradient_sketch"]
  assert_close_vectors(np.asarray(found)[0, : batch.width], stored)


def assert_is_captums(lm, prompt, objective, options, baseline):
  """Integrated gradients equal captum's, vectors, scores and residual."""
  result = gs.attribute(
    lm, batch_of(prompt), target_of(prompt, objective), options=options
  )
  prefix = f"{prompt}/{objective}/{baseline}"
  method = QUADRATURES[options.quadrature]
  stored, key = golden(), f"{prefix}/{method}_{options.steps}"
  vectors = np.asarray(result["embed"].unwrap(*STREAM))[0]
  assert_close_vectors(vectors, stored[f"{key}_sketch"])
  scores = np.asarray(result.per_token().data_array)[0]
  lengths = stored[f"{key}_sketch"][:, 0]
  assert_close_scores(scores, stored[key], lengths)
  change = stored[f"{prompt}/{objective}/value"] - stored[f"{prefix}/value"]
  np.testing.assert_allclose(result.expected[Site("embed")], [change], 1e-5)
  residual = -stored[f"{key}_delta"]
  scale = 3 * TOLERANCE * np.linalg.norm(lengths)
  np.testing.assert_allclose(result.residual(), [residual], 0, atol=scale)


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("baseline", ["zero", "pad"])
@pytest.mark.parametrize(
  ("prompt", "objective"),
  [("ioi", "difference"), ("capital", "logit"), ("fox", "difference")],
)
def test_integrated_gradients_are_captums(
  real_lm, pad_baseline, prompt, objective, baseline, quadrature
):
  start = "zero" if baseline == "zero" else pad_baseline
  options = GradientOptions(20, quadrature, start)
  assert_is_captums(real_lm, prompt, objective, options, baseline)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["zero", "pad"])
@every_prompt
@every_objective
def test_many_steps_are_captums(
  real_lm, pad_baseline, prompt, objective, baseline
):
  start = "zero" if baseline == "zero" else pad_baseline
  options = GradientOptions(200, "gauss_legendre", start)
  assert_is_captums(real_lm, prompt, objective, options, baseline)
