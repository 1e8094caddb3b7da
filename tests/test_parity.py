"""The real Gemma 3 270M computes what Hugging Face computes.

Against stored numbers of Hugging Face transformers (tests/goldens), every site
at every token: natural text, a text longer than the sliding window, a padded
batch, a short prompt with its attention patterns. Most vectors are stored as
sketches, which estimate a relative error to within a factor of two (see
tests/goldens/sketch.py): medians are held to the tolerance, the worst of
thousands of estimates to twice that. docs/PARITY.md has the exact numbers.
"""

import json
import pathlib

import jax
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import axes
from gemma_scope.model.gemma import token_logits
from gemma_scope.sites import SITES
from tests.goldens import sketch

pytestmark = pytest.mark.real

GOLDENS = pathlib.Path(__file__).parent / "goldens"
CASES = ("natural", "window", "padded", "ioi")
OUTER = ("embed", "final_norm")
LAYERED = (
  *("attn_in", "z", "attn_proj", "attn_write", "resid_mid"),
  *("mlp_in", "mlp_act", "mlp_proj", "mlp_write", "resid_post"),
)
# Relative errors of a token's vector that float32 may have.
FLOAT32 = {
  "embed": 1e-6,
  "resid_mid": 1e-5,
  "resid_post": 1e-5,
  "final_norm": 2e-5,
}
OTHERS = 5e-5  # in float32
LOGITS = 2e-3  # absolute, in float32
# The same for bfloat16, or 1.2 times Hugging Face's own, whichever is larger.
BFLOAT16 = {"resid_post": 0.05, "z": 0.10, "mlp_write": 0.25}
MEDIAN_BFLOAT16 = 0.02
NLL_BFLOAT16 = 0.01  # nats a token
COLUMNS = 64  # of logits in memory at a time


class Run:
  """One model on one golden's tokens.

  Attributes:
    golden: What Hugging Face gave, see tests/goldens/hugging_face.py.
    mask: [batch, seq] whether a token is no padding.
    values: Site name -> [layer, batch, seq, width] or [batch, seq, width].
  """

  def __init__(self, lm, case):
    self.lm = lm
    self.golden = np.load(GOLDENS / f"hugging_face_{case}.npz")
    self.mask = self.golden["mask"].astype(bool)
    sites = (*OUTER, *(f"{name}[:]" for name in LAYERED))
    self.acts = gs.capture(
      lm, self.golden["tokens"], sites, segment_ids=self.golden["mask"]
    )

  def value(self, name):
    """A site as stored: heads side by side, layers in front."""
    if name in OUTER:
      return np.asarray(self.acts[name].unwrap(*SITES[name].axes), np.float32)
    array = self.acts.stacked(name).unwrap(axes.LAYER, *SITES[name].axes)
    array = np.asarray(array, np.float32)
    return array.reshape(*array.shape[:3], -1)

  def errors(self, name):
    """Estimated relative error of every stored vector that is no padding."""
    value, mask = self.value(name), self.mask
    if name in self.golden["sparse_sites"]:
      columns = self.golden["sketch_positions"]
      value, mask = value[..., columns, :], mask[:, columns]
    stored = self.golden[f"sketch/{name}"]
    return sketch.relative_error(sketch.sketch(value), stored)[..., mask]

  def logits(self):
    """Yields (columns, logits [batch, columns, vocabulary]), all of them."""
    normed = self.acts["final_norm"].unwrap(*SITES["final_norm"].axes)
    table = self.lm.model.table.data_array
    for start in range(0, normed.shape[1], COLUMNS):
      columns = slice(start, start + COLUMNS)
      rows = normed[:, columns]
      flat = unembed(rows.reshape(-1, rows.shape[-1]), table)
      yield columns, np.asarray(flat).reshape(*rows.shape[:2], -1)

  def nll(self):
    """Mean negative log-likelihood of every following token, first row."""
    following, found = self.golden["tokens"][0, 1:], []
    for columns, logits in self.logits():
      exact = logits[0].astype(np.float64)
      total = np.log(np.exp(exact - exact.max(-1, keepdims=True)).sum(-1))
      total += exact.max(-1)
      ids = following[columns]
      found.append(total[: len(ids)] - exact[np.arange(len(ids)), ids])
    return np.concatenate(found).mean()


unembed = jax.jit(token_logits)


@pytest.fixture(scope="module", params=CASES)
def exact_run(request, real_lm):
  return Run(real_lm, request.param)


@pytest.fixture(scope="module")
def bfloat16_lm():
  return gs.load("gemma-3-270m", dtype="bfloat16")


@pytest.fixture(scope="module")
def bfloat16_runs(bfloat16_lm):
  return {case: Run(bfloat16_lm, case) for case in CASES}


@pytest.fixture(scope="module")
def hugging_face_bfloat16():
  """How far Hugging Face's own bfloat16 is from its float32."""
  table = json.loads((GOLDENS / "hugging_face_bf16.json").read_text())
  return table["from_pretrained"] | {"nll_float32": table["nll_float32"]}


def test_every_site_in_float32(exact_run):
  for name in (*OUTER, *LAYERED):
    error, limit = exact_run.errors(name), FLOAT32.get(name, OTHERS)
    assert np.isfinite(error).all(), name
    assert np.median(error) <= limit, name
    assert error.max() <= 2 * limit, name


def test_complete_vectors_in_float32(exact_run):
  """Where the goldens keep whole vectors, no estimate is needed."""
  rows, columns = exact_run.golden["full_positions"].T
  for name in ("resid_post", "z", "final_norm"):
    truth = exact_run.golden[f"full/{name}"].astype(np.float64)
    found = exact_run.value(name)[..., rows, columns, :]
    error = np.linalg.norm(found - truth, axis=-1)
    limit = FLOAT32.get(name, OTHERS)
    assert (error <= limit * np.linalg.norm(truth, axis=-1)).all(), name


def test_logits_in_float32(exact_run):
  golden = exact_run.golden
  for columns, logits in exact_run.logits():
    mask = exact_run.mask[:, columns]
    top = golden["top_ids"][:, columns]
    assert (logits.argmax(-1) == top[..., 0])[mask].all()
    found = np.take_along_axis(logits, top, -1)
    stored = golden["top_logits"][:, columns]
    np.testing.assert_allclose(found[mask], stored[mask], rtol=0, atol=LOGITS)
    found = logits[..., golden["sample_ids"]]
    stored = golden["sample_logits"][:, columns]
    np.testing.assert_allclose(found[mask], stored[mask], rtol=0, atol=LOGITS)


def test_attention_patterns_and_values_in_float32(real_lm):
  golden = np.load(GOLDENS / "hugging_face_ioi.npz")
  acts = gs.capture(real_lm, golden["tokens"], ["pattern[:]", "value[:]"])
  found = acts.stacked("pattern").unwrap(axes.LAYER, *SITES["pattern"].axes)
  np.testing.assert_allclose(found, golden["pattern"], rtol=0, atol=1e-5)
  value = acts.stacked("value").unwrap(axes.LAYER, *SITES["value"].axes)
  value = np.asarray(value).reshape(*value.shape[:3], -1)
  stored = golden["sketch/value"]
  error = sketch.relative_error(sketch.sketch(value), stored)
  assert error.max() <= 2 * OTHERS


def test_padding_changes_no_token(real_lm):
  """Each row of the padded batch equals the row run by itself."""
  golden = np.load(GOLDENS / "hugging_face_padded.npz")
  sites = ["resid_post[:]", "z[17]"]
  batch = gs.capture(
    real_lm, golden["tokens"], sites, segment_ids=golden["mask"]
  )
  shortest = int(golden["mask"].sum(1).argmin())
  n = int(golden["mask"][shortest].sum())
  alone = gs.capture(real_lm, golden["tokens"][shortest, :n], sites)
  for site in alone:
    expected = np.asarray(alone[site].unwrap(*site.info.axes))[0]
    found = np.asarray(batch[site].unwrap(*site.info.axes))[shortest, :n]
    scale = np.linalg.norm(expected, axis=-1, keepdims=True)
    assert (np.abs(found - expected) <= 1e-5 * scale).all(), site


@pytest.mark.parametrize("name", [*OUTER, *LAYERED])
def test_every_site_in_bfloat16(bfloat16_runs, hugging_face_bfloat16, name):
  error = np.concatenate(
    [run.errors(name).ravel() for run in bfloat16_runs.values()]
  )
  theirs = hugging_face_bfloat16["sites"][name]
  worst = max(BFLOAT16.get(name, 0.0), 1.2 * theirs["worst"])
  median = max(MEDIAN_BFLOAT16, 1.2 * theirs["median"])
  assert np.isfinite(error).all()
  assert np.median(error) <= median
  assert error.max() <= 2 * worst
  # It is no float32 in disguise.
  assert np.median(error) > 1e-3


def test_negative_log_likelihood(real_lm, bfloat16_runs, hugging_face_bfloat16):
  truth = hugging_face_bfloat16["nll_float32"]["natural"]
  assert Run(real_lm, "natural").nll() == pytest.approx(truth, abs=1e-4)
  found = bfloat16_runs["natural"].nll()
  assert found == pytest.approx(truth, abs=NLL_BFLOAT16)
