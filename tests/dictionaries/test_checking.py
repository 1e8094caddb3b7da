"""A dictionary at its site passes; at a wrong one it is told the right one.

Tiny dictionaries remember the tiny model's vectors, one latent a vector, so
that only their own site fits them.
"""

import dataclasses

import numpy as np
from penzai import pz
import pytest

from gemma_scope import dictionaries as gsd
from gemma_scope.activations.run import capture
from gemma_scope.dictionaries import About, JumpRelu, Relu, Sae, Transcoder
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.errors import SiteError, TextError
from gemma_scope.sites import Site
from gemma_scope.testing import dictionaries as make

TEXTS = [
  "The capital of France is Paris, and the capital of Italy is Rome.",
  "When Mary and John went to the store, John gave a drink to Mary.",
  "def add(first, second): return first + second",
  "Red, green and blue are the colours of a screen; so are some birds.",
]


@pytest.fixture(scope="module")
def rows(tiny_lm):
  """[tokens, d] of a site, BOS and padding left out."""

  def rows(site):
    captured = capture(tiny_lm, TEXTS, [site])
    batch = captured.tokens
    kept = (batch.segment_ids != 0) & (batch.ids != tiny_lm.tokenizer.bos_id)
    (value,) = captured.values()
    names = [n for n in value.named_axes if n not in ("batch", "seq")]
    data = np.asarray(value.unwrap("batch", "seq", *names))
    return data.reshape(*kept.shape, -1)[kept]

  return rows


def fitted(x, y):
  """A latent for every vector: 1 there, below the threshold elsewhere."""
  centre, mean = x.mean(0), y.mean(0)
  kept = []
  for i, v in enumerate(x - centre):
    others = (x[kept] - centre) @ v
    if not (others > 0.9 * (np.square(x[kept] - centre).sum(1))).any():
      kept.append(i)
  w_enc = ((x[kept] - centre) / np.square(x[kept] - centre).sum(1)[:, None]).T
  f = (x - centre) @ w_enc
  f = np.where(f > 0.9, f, 0)
  gram = f.T @ f + 1e-2 * np.eye(len(kept))
  return w_enc, -centre @ w_enc, np.linalg.solve(gram, f.T @ (y - mean)), mean


def silent_below(count):
  return JumpRelu(pz.nx.wrap(np.full(count, 0.9, np.float32), "latents"))


def wrapped(arrays):
  names = [
    ("input", "latents"),
    ("latents",),
    ("latents", "output"),
    ("output",),
  ]
  return [
    pz.nx.wrap(np.asarray(a, np.float32), *n) for a, n in zip(arrays, names)
  ]


def sae_of(rows, site, said=None, **about):
  x = rows(site)
  address = said or site
  described = About("sae", (address,), (address,), heads=4, **about)
  arrays = wrapped(fitted(x, x))
  jump = silent_below(arrays[1].named_shape["latents"])
  return Sae(*arrays, jump, None, described)


def transcoder_of(rows, ends, said=None):
  x, y = map(rows, ends)
  said = said or ends
  about = About("transcoder", (said[0],), (said[1],))
  arrays = wrapped(fitted(x, y))
  jump = silent_below(arrays[1].named_shape["latents"])
  return Transcoder(*arrays, jump, None, about)


@pytest.mark.parametrize("name", ["resid_post", "mlp_write", "z", "mlp_act"])
def test_right_site(name, rows, tiny_lm):
  site = Site(name, 3)
  sae = sae_of(rows, site)
  checked = gsd.check(tiny_lm, sae, TEXTS)
  assert checked.quality.fvu < 0.3
  x = rows(site)
  assert checked.quality.tokens == len(x)
  active = (np.asarray(sae.encode(x)) != 0).sum(1).mean()
  assert checked.quality.l0 == pytest.approx(active, rel=1e-6)
  y = np.asarray(sae(x), float)
  expected = ((y - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
  assert checked.quality.fvu == pytest.approx(expected, rel=1e-3)
  assert "FVU 0." in str(checked)


@pytest.mark.parametrize(
  ("right", "wrong"),
  [
    ("mlp_write", "mlp_proj"),
    ("mlp_proj", "mlp_write"),
    ("attn_write", "attn_proj"),
    ("resid_post", "attn_in"),
  ],
)
def test_wrong_site_is_refused_with_the_right_one(right, wrong, rows, tiny_lm):
  sae = sae_of(rows, Site(right, 3), said=Site(wrong, 3))
  message = rf"(?s)wrong site.*{wrong}\[3\].*instead:  {right}\[3\]"
  with pytest.raises(SiteError, match=message):
    gsd.check(tiny_lm, sae, TEXTS)


def test_wrong_layer(rows, tiny_lm):
  sae = sae_of(rows, Site("mlp_write", 3), said=Site("mlp_write", 4))
  with pytest.raises(SiteError, match=r"instead:  mlp_write\[3\]"):
    gsd.check(tiny_lm, sae, TEXTS)


def test_transcoder_at_its_sites(rows, tiny_lm):
  ends = Site("mlp_in", 3), Site("mlp_write", 3)
  checked = gsd.check(tiny_lm, transcoder_of(rows, ends), TEXTS)
  assert checked.quality.fvu < 0.9


@pytest.mark.parametrize(
  "wrong", [("resid_mid", "mlp_write"), ("mlp_in", "mlp_proj")]
)
def test_transcoder_at_wrong_sites(wrong, rows, tiny_lm):
  ends = Site("mlp_in", 3), Site("mlp_write", 3)
  said = tuple(Site(name, 3) for name in wrong)
  transcoder = transcoder_of(rows, ends, said)
  message = r"(?s)wrong site.*mlp_in\[3\] -> mlp_write\[3\], where"
  with pytest.raises(SiteError, match=message):
    gsd.check(tiny_lm, transcoder, TEXTS)


def test_clt_at_wrong_sites(rows, tiny_lm):
  parts = []
  for layer in (2, 3):
    x, y = rows(Site("mlp_in", layer)), rows(Site("mlp_write", layer))
    arrays = fitted(x, y)
    few = [arrays[0][:, :120], arrays[1][:120], arrays[2][:120], arrays[3]]
    w_enc, b_enc, w_dec, b_dec = wrapped(few)
    own = w_dec.unwrap("latents", "output")
    slots = np.zeros((own.shape[0], 4 - layer, own.shape[1]), np.float32)
    slots[:, 0] = own
    decoder = pz.nx.wrap(slots, "latents", "layer", "output")
    jump = silent_below(own.shape[0])
    parts.append(LayerPart(w_enc, b_enc, decoder, b_dec, jump))

  def clt(name):
    return CrossLayer(
      tuple(parts),
      About(
        "clt",
        tuple(Site(name, i) for i in (2, 3)),
        tuple(Site("mlp_write", i) for i in (2, 3)),
      ),
      causal=True,
    )

  assert gsd.check(tiny_lm, clt("mlp_in"), TEXTS).quality.fvu < 0.9
  with pytest.raises(SiteError, match=r"instead:  mlp_in\[2\], mlp_in\[3\]"):
    gsd.check(tiny_lm, clt("resid_mid"), TEXTS)


def test_nothing_fits(tiny_lm):
  sae = make.random_sae(d=32)
  with pytest.raises(SiteError, match="worse than the mean"):
    gsd.check(tiny_lm, sae, TEXTS)


def test_l0_far_from_its_target_is_reported(rows, tiny_lm, caplog):
  sae = sae_of(rows, Site("resid_post", 3), l0=50.0)
  checked = gsd.check(tiny_lm, sae, TEXTS)
  assert "target 50" in caplog.text
  assert "target 50" in str(checked)


def test_other_width(rows, tiny_lm):
  sae = sae_of(rows, Site("z", 3), said=Site("resid_post", 3))
  with pytest.raises(SiteError, match=r"z\[3\] has 64"):
    gsd.check(tiny_lm, sae, TEXTS)


def test_layer_out_of_range(rows, tiny_lm):
  sae = sae_of(rows, Site("resid_post", 3), said=Site("resid_post", 8))
  with pytest.raises(SiteError, match="does not have"):
    gsd.check(tiny_lm, sae, TEXTS)


def test_gemma_2(rows, tiny_lm):
  sae = sae_of(rows, Site("resid_post", 3), model="Gemma 2")
  with pytest.raises(SiteError, match="is of Gemma 2"):
    gsd.check(tiny_lm, sae, TEXTS)


def test_too_little_text(rows, tiny_lm):
  with pytest.raises(TextError, match="too little text"):
    gsd.check(tiny_lm, sae_of(rows, Site("resid_post", 3)), "Hi")


@pytest.mark.real
def test_real_mlp_out_read_at_mlp_proj(real_lm):
  """The mistake that a public site served, on the real model."""
  texts = [
    "The law of conservation of energy states that energy cannot be created "
    "or destroyed, only transformed. In a closed system the total stays the "
    "same: a falling stone trades height for speed, and a brake trades speed "
    "for heat."
  ]
  site, wrong = Site("mlp_write", 9), Site("mlp_proj", 9)
  seen = capture(real_lm, texts, [site])
  x = np.asarray(seen[site].unwrap("batch", "seq", "embedding"))[0, 1:]
  mean = x.mean(0)
  _, _, v = np.linalg.svd(x - mean, full_matrices=False)
  basis = v[:24].T
  arrays = (
    np.concatenate([basis, -basis], axis=1),
    np.concatenate([-mean @ basis, mean @ basis]),
    np.concatenate([basis.T, -basis.T]),
    mean,
  )
  about = About("sae", (site,), (site,))
  sae = Sae(*wrapped(arrays), Relu(), None, about)
  assert gsd.check(real_lm, sae, texts).quality.fvu < 0.5
  elsewhere = sae.with_about(
    dataclasses.replace(about, sites_in=(wrong,), sites_out=(wrong,))
  )
  with pytest.raises(SiteError, match=r"(?s)wrong site.*mlp_write\[9\]"):
    gsd.check(real_lm, elsewhere, texts)
