"""Every test on every set, site by site; what cannot be measured is refused."""

import dataclasses

import pytest

from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.evals.dictionaries.concepts import SETS, sentiment_by_topic
from gemma_scope.evals.dictionaries.evaluate_concepts import (
  TESTS,
  check_tests,
  evaluate_concepts,
)
from gemma_scope.evals.dictionaries.representations import (
  BASELINES,
  represent,
)
from gemma_scope.evals.dictionaries.sparse_probing import WHOLE, sparse_probes
from gemma_scope.evals.dictionaries.targeted import shift
from gemma_scope.testing import dictionaries as make

LETTERS = "first letter"


def words_by_length(lm):
  """Stands in for first letters, which a tiny vocabulary has too few of."""
  return dataclasses.replace(SETS["part of speech"](lm), name=LETTERS)


@pytest.fixture(scope="module")
def saes():
  layers = {"a": 2, "b": 2, "elsewhere": 1}
  return {n: make.random_sae(layer=i, seed=i) for n, i in layers.items()}


@pytest.fixture(scope="module")
def made(case, saes):
  told = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(SETS, LETTERS, words_by_length)
    found = evaluate_concepts(
      case.lm,
      saes,
      sets=("sentiment", LETTERS),
      seed=1,
      progress=lambda label, share: told.append((label, share)),
    )
  return found, told


def test_each_test_runs_on_the_sets_that_it_takes(made):
  found, _ = made
  assert list(found.found) == ["resid_post[2]", "resid_post[1]"]
  for tests in found.found.values():
    assert {name: set(by_texts) for name, by_texts in tests.items()} == {
      "sparse_probing": {"sentiment", LETTERS},
      "absorption": {LETTERS},
      "tpp": {"sentiment", LETTERS},
      "shift": {"sentiment"},
    }


def test_saes_stand_beside_those_of_their_site_and_the_baselines(made):
  found, _ = made
  tests = found.found["resid_post[2]"]
  ours = ["a", "b", *BASELINES]
  assert list(tests["sparse_probing"]["sentiment"].means()) == [*ours, WHOLE]
  assert list(tests["tpp"]["sentiment"].means()) == ours
  assert list(tests["absorption"][LETTERS].means()) == ["a", "b"]
  other = found.found["resid_post[1]"]["shift"]["sentiment"]
  assert list(other.means()) == ["elsewhere", *BASELINES]


def test_numbers_are_those_of_the_tests_alone(made, case, saes):
  found, _ = made
  one = {"elsewhere": saes["elsewhere"]}
  both = sentiment_by_topic(case.lm)
  seen = represent(case.lm, one, both.intended, seed=1)
  tests = found.found["resid_post[1]"]
  probes = tests["sparse_probing"]["sentiment"]
  assert probes.to_dict() == sparse_probes(seen).to_dict()
  expected = shift(seen, both.spurious).to_dict()
  assert tests["shift"]["sentiment"].to_dict() == expected


def test_manifest_and_progress_tell_what_was_done(made, case):
  found, told = made
  config = found.manifest.config
  assert config["tests"]["shift"] == ["sentiment"]
  assert config["tests"]["tpp"] == ["sentiment", LETTERS]
  assert (found.manifest.model, found.manifest.seed) == (case.lm.name, 1)
  shares = [share for _, share in told]
  assert shares == [i / 12 for i in range(12)]
  assert "Concepts: shift, sentiment at resid_post[1]" in dict(told)


def test_names_of_tests_are_checked():
  assert check_tests(["tpp", "shift", "tpp"]) == ("tpp", "shift")
  with pytest.raises(ConfigError, match=r"received: 'scr'\n.*one or several"):
    check_tests(["tpp", "scr"])
  with pytest.raises(ConfigError, match="received: no name"):
    check_tests([])
  assert list(TESTS) == ["sparse_probing", "absorption", "tpp", "shift"]


def test_what_cannot_be_measured_is_refused(case, saes):
  with pytest.raises(ConfigError, match="absorption takes none"):
    evaluate_concepts(case.lm, saes, tests=["absorption"], sets=["language"])
  with pytest.raises(ConfigError, match="no such set"):
    evaluate_concepts(case.lm, saes, tests=["tpp"], sets=["colour"])
  with pytest.raises(ConfigError, match="SAEs of one site"):
    evaluate_concepts(case.lm, make.random_transcoder(layer=1))
  with pytest.raises(ConfigError, match="BatchTopK"):
    evaluate_concepts(case.lm, make.random_sae("batch_top_k", layer=1))
  with pytest.raises(SiteError, match="layer"):
    evaluate_concepts(case.lm, make.random_sae(layer=40))
