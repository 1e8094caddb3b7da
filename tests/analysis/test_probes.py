import numpy as np
from penzai import pz
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.activations.run import capture
from gemma_scope.analysis.probes import ProbeOptions, fit_probe, fit_probes
from gemma_scope.attribution.attribute import attribute
from gemma_scope.sites import Site

KINDS = ("mean_difference", "logistic")
FEW = ProbeOptions(resamples=50, shuffles=3)
kinds = pytest.mark.parametrize("kind", KINDS)


def texts(last, count=24, seed=0):
  """Rows of random tokens that end with `last`."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(110, 400, (count, 6))
  ids[:, 0], ids[:, -1] = 2, last
  return ids


@kinds
def test_it_reads_the_last_token(tiny_lm, kind):
  probe = fit_probe(
    tiny_lm,
    texts(120),
    texts(230, seed=1),
    site="embed",
    kind=kind,
    options=FEW,
  )
  table = np.asarray(tiny_lm.model.table.data_array, np.float64)
  way = (table[120] - table[230]) * tiny_lm.config.d_model**0.5
  assert probe.score.accuracy == probe.score.auc == 1
  assert probe.score.auc_interval == (1, 1)
  assert (probe.score.held_out, probe.score.fitted) == (12, 36)
  np.testing.assert_allclose(np.linalg.norm(probe.direction), 1, rtol=1e-6)
  if kind == "mean_difference":
    unit = way / np.linalg.norm(way)
    np.testing.assert_allclose(probe.direction, unit, atol=1e-5)
    np.testing.assert_allclose(probe.gap, np.linalg.norm(way), rtol=1e-5)


@kinds
def test_nothing_is_read_where_there_is_nothing(tiny_lm, kind):
  probe = fit_probe(
    tiny_lm,
    texts(120, 60),
    texts(120, 60, seed=1),
    site="embed",
    kind=kind,
    options=FEW,
  )
  # The last token is the same everywhere: there is no direction at all.
  assert probe.score.auc == 0.5
  assert abs(probe.score.shuffled_accuracy - 0.5) < 1e-9


def test_one_capture_gives_every_layer_the_same_probe(tiny_lm):
  groups = texts(120), texts(230, seed=1)
  swept = fit_probes(tiny_lm, *groups, position="mean", options=FEW)
  assert list(map(str, swept)) == [f"resid_post[{i}]" for i in range(8)]
  alone = fit_probe(
    tiny_lm, *groups, site="resid_post[3]", position="mean", options=FEW
  )
  found = swept[Site("resid_post", 3)]
  np.testing.assert_allclose(found.direction, alone.direction, atol=1e-5)
  assert found.score == alone.score


def test_the_seed_decides_the_split(tiny_lm):
  groups = texts(120), texts(121, seed=1)

  def direction(seed):
    return fit_probe(
      tiny_lm, *groups, site="resid_post[1]", seed=seed, options=FEW
    ).direction

  np.testing.assert_array_equal(direction(0), direction(0))
  assert np.abs(direction(0) - direction(1)).max() > 1e-6


def test_a_probe_is_a_target_and_a_steering_direction(tiny_lm):
  groups = texts(120), texts(230, seed=1)
  probe = fit_probe(tiny_lm, *groups, site="z[2]", options=FEW)
  assert probe.direction.shape == (4, 16)
  ids = groups[0][:1]
  result = attribute(
    tiny_lm, ids, probe.target(), method="input_x_gradient", at="resid_pre[2]"
  )
  value = capture(tiny_lm, ids, ["z[2]"])["z[2]"]
  value = np.asarray(value.unwrap(*Site("z", 2).info.axes))[0, -1]
  np.testing.assert_allclose(
    result.target[0], (value * probe.direction).sum(), rtol=1e-4
  )


@pytest.mark.parametrize(
  ("changes", "error", "match"),
  [
    ({"kind": "svm"}, errors.ConfigError, "kind='svm'"),
    ({"position": "last"}, errors.ConfigError, "position='last'"),
    ({"site": "pattern[0]"}, errors.SiteError, "a value for each token"),
    ({"site": "resid_post[:]"}, errors.SiteError, "8 sites"),
    ({"options": ProbeOptions(held_out=1.0)}, errors.ConfigError, "held_out"),
    ({"positive": texts(120, 2)}, errors.TextError, "2 texts of one label"),
  ],
)
def test_bad_input_is_refused(tiny_lm, changes, error, match):
  given = {"positive": texts(120), "negative": texts(230), "site": "embed"}
  given |= changes
  with pytest.raises(error, match=match):
    fit_probe(tiny_lm, given.pop("positive"), given.pop("negative"), **given)


CITIES = "Paris Rome Berlin Madrid London Vienna Lisbon Dublin Athens Oslo"
ANIMALS = "dog cat horse cow sheep lion tiger rabbit mouse wolf"


@pytest.mark.real
def test_real_model_tells_cities_from_animals(real_lm):
  frames = ("We spoke about the {}", "She wrote a book on the {}")
  groups = [
    [frame.format(word) for word in words.split() for frame in frames]
    for words in (CITIES, ANIMALS)
  ]
  swept = fit_probes(
    real_lm, *groups, site="resid_post[:]", kind="logistic", options=FEW
  )
  assert len(swept) == real_lm.config.num_layers
  scores = [p.score for p in swept.values()]
  assert np.mean([s.accuracy for s in scores]) > 0.9
  assert np.mean([s.shuffled_accuracy for s in scores]) < 0.75
  probe = swept[Site("resid_post", 9)]
  push = probe.gap * probe.direction
  push = pz.nx.wrap(push, "embedding")
  steered = gs.surgery.edit(real_lm.model, probe.site, lambda v: v + push)
  ids = real_lm.tokenizer.encode("We spoke about the dog")
  value = capture(real_lm.replace(steered), [ids], ["resid_post[9]"])
  before = capture(real_lm, [ids], ["resid_post[9]"])
  moved = [
    np.asarray(a["resid_post[9]"].data_array)[0, -1] @ probe.direction
    for a in (before, value)
  ]
  assert moved[0] < probe.threshold < moved[1]


def test_repr_states_the_counts(tiny_lm):
  probe = fit_probe(
    tiny_lm, texts(120), texts(230, seed=1), site="embed", options=FEW
  )
  assert "on 12 held-out texts; shuffled labels" in repr(probe)
