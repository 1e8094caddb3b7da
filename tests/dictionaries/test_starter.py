"""The starter suite that comes with the package: what it holds, and whether its
card tells the truth.
"""

import json
import pathlib

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import dictionaries as gsd
from gemma_scope.activations.run import capture
from gemma_scope.dictionaries.quality import quality

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (
  "Fourscore and seven years ago our fathers brought forth on this continent "
  "a new nation, conceived in liberty, and dedicated to the proposition that "
  "all men are created equal. Now we are engaged in a great civil war, testing "
  "whether that nation, or any nation so conceived and so dedicated, can long "
  "endure.",
  "The river rises in the hills north of the town, where two streams meet, and "
  "flows through a valley of farms and orchards before it reaches the sea. In "
  "1874 a stone bridge of three arches was built there; the railway followed "
  "two years later, and with it came the first factories.",
)


@pytest.fixture(scope="module")
def suite():
  return gsd.starter()


def test_what_it_holds(suite):
  assert suite.model == "gemma-3-270m"
  saes = [f"resid_post/layer_{i}" for i in (5, 9, 12, 15)]
  transcoders = [f"transcoder/layer_{i}" for i in range(18)]
  assert sorted(suite.names) == sorted(saes + transcoders)
  assert suite.path.stat().st_size < 25e6
  assert set(suite.card["metrics"]) == set(suite.names)
  for name in suite.names:
    dictionary = suite.open(name)
    assert suite.table(name).num_latents == dictionary.num_latents
    width = 1024 if name in saes else 448
    assert dictionary.num_latents == width


def test_the_card(suite):
  for name in suite.names:
    row = suite.metrics(name)
    target = 40 if name.startswith("resid_post") else 20
    assert 0.5 < row["l0"] / target < 1.5, name
    assert 0 < row["fvu"] < 1, name
    assert abs(row["fvu_lost_by_int8"]) < 5e-4, name
  described = {
    (name, int(latent))
    for name, latents in suite.card["descriptions"].items()
    for latent in latents
  }
  assert len(described) >= 10
  for name, latent in described:
    assert suite.description(name, latent)
    assert not suite.table(name).dead[latent]
  by_hand = ROOT / "experiments" / "004_starter_suite" / "descriptions.json"
  assert suite.card["descriptions"] == json.loads(by_hand.read_text())


@pytest.mark.real
@pytest.mark.parametrize(
  "name",
  [f"resid_post/layer_{i}" for i in (5, 9, 12, 15)] + ["transcoder/layer_14"],
)
def test_on_other_text_it_is_as_the_card_says(real_lm, suite, name):
  """Two short texts: no more than the size of the numbers is asked for.

  Of FVU at layers 5 and 9 not even that: most of the variance of the card's
  text is that of a few far tokens, of which a short text may have none.
  """
  dictionary = suite[name]
  ends = [dictionary.sites_in[0], dictionary.sites_out[0]]
  x, y = [], []
  for text in TEXT:
    acts = capture(real_lm, text, list(dict.fromkeys(ends)))
    for rows, site in zip((x, y), ends):
      values = acts[site].unwrap("batch", "seq", "embedding")
      rows.append(np.asarray(values)[0, 1:])  # BOS counts nowhere
  x, y = np.concatenate(x), np.concatenate(y)
  found, row = quality(dictionary, x, y), suite.metrics(name)
  assert 0.6 < found.l0 / row["l0"] < 1.6
  if name not in ("resid_post/layer_5", "resid_post/layer_9"):
    assert found.fvu < 2 * row["fvu"] + 0.05


@pytest.mark.real
def test_explain_shows_features(real_lm):
  found = gs.explain(real_lm, "The capital of France is", methods=("attn_lrp",))
  assert found.features_note == ""
  assert len(found.features.layers) == 4
  assert len(found.features.mlps) == 18
  assert "starter/resid_post/layer_9" in found.to_html()
