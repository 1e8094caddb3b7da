"""Looks for concepts in many SAEs: every test on every set of texts it takes.

    found = evaluate_concepts(lm, {"ours": sae, "theirs": other})
    of_site = found.found["resid_post[9]"]
    of_site["sparse_probing"]["language"].accuracy("ours", 1)

SAEs of one site are compared with one another and with the baselines of that
site. Each set of texts is run through the model once a site.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses

from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.absorption import absorption
from gemma_scope.evals.dictionaries.concept_evaluation import (
  ConceptEvaluation,
  Result,
)
from gemma_scope.evals.dictionaries.concepts import (
  SETS,
  concepts,
  sentiment_by_topic,
)
from gemma_scope.evals.dictionaries.evaluate import (
  Given,
  Progress,
  check_measurable,
  named_dictionaries,
)
from gemma_scope.evals.dictionaries.representations import (
  Represented,
  represent,
  saes_by_site,
)
from gemma_scope.evals.dictionaries.sparse_probing import sparse_probes
from gemma_scope.evals.dictionaries.targeted import (
  shift,
  targeted_perturbation,
)
from gemma_scope.manifest import make_manifest
from gemma_scope.model.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class ConceptTest:
  """One way to look for concepts.

  Attributes:
    run: From the model and what it makes of some texts to what is found.
    sets: The sets of texts that it takes; None for every one.
  """

  run: Callable[[LanguageModel, Represented], Result]
  sets: tuple[str, ...] | None = None


def _shift(lm: LanguageModel, seen: Represented) -> Result:
  return shift(seen, sentiment_by_topic(lm).spurious)


TESTS: Mapping[str, ConceptTest] = {
  "sparse_probing": ConceptTest(lambda _, seen: sparse_probes(seen)),
  "absorption": ConceptTest(
    lambda _, seen: absorption(seen), ("first letter",)
  ),
  "tpp": ConceptTest(lambda _, seen: targeted_perturbation(seen)),
  "shift": ConceptTest(_shift, ("sentiment",)),
}


def evaluate_concepts(
  lm: LanguageModel,
  dictionaries: Given,
  *,
  tests: Sequence[str] = tuple(TESTS),
  sets: Sequence[str] = tuple(SETS),
  seed: int = 0,
  progress: Progress | None = None,
) -> ConceptEvaluation:
  """Looks for concepts in SAEs, and in what they compete with.

  Args:
    lm: The model that they are of.
    dictionaries: One SAE, several, or several by the names to show.
    tests: Names of `TESTS`.
    sets: Names of `concepts.SETS`.
    seed: Of the split into texts to fit and texts held out.
    progress: Called with a label and the share done.

  Raises:
    SiteError: A dictionary does not fit the model.
    ConfigError: One is no SAE of a decoder layer, or there is no such test.
    TextError: The vocabulary has too few words.
  """
  named, tests = named_dictionaries(dictionaries), check_tests(tests)
  plan = _plan(tests, sets)
  by_site = saes_by_site(named)
  for dictionary in named.values():
    check_measurable(lm, dictionary)
  total, done = len(by_site) * sum(map(len, plan.values())), 0
  found: dict[str, dict[str, dict[str, Result]]] = {
    str(site): {test: {} for test in tests} for site in by_site
  }
  for texts in concepts(lm, tuple(plan)):
    for site, saes in by_site.items():
      seen = represent(lm, saes, texts, seed=seed)
      for test in plan[texts.name]:
        if progress is not None:
          progress(f"Concepts: {test}, {texts.name} at {site}", done / total)
        found[str(site)][test][texts.name] = TESTS[test].run(lm, seen)
        done += 1
  config = {
    "dictionaries": {name: str(d.about) for name, d in named.items()},
    "tests": {test: [n for n in plan if test in plan[n]] for test in tests},
  }
  manifest = make_manifest(config, model=lm.name, source=lm.source, seed=seed)
  return ConceptEvaluation(found, manifest)


def check_tests(names: Iterable[str]) -> tuple[str, ...]:
  """The names, if there is a test of each.

  Raises:
    ConfigError: There is none of a name, or no name.
  """
  chosen = tuple(dict.fromkeys(names))
  wrong = [name for name in chosen if name not in TESTS]
  if wrong or not chosen:
    raise ConfigError(
      "There is no such test of concepts.",
      received=", ".join(map(repr, wrong)) or "no name",
      instead=f"one or several of {', '.join(TESTS)}",
    )
  return chosen


def _plan(
  tests: Sequence[str], sets: Sequence[str]
) -> dict[str, tuple[str, ...]]:
  """Set of texts -> the tests that take it.

  Raises:
    ConfigError: A test takes none of the sets.
  """
  plan: dict[str, tuple[str, ...]] = {}
  for name in sets:
    own = [t for t in tests if name in (TESTS[t].sets or sets)]
    if own:
      plan[name] = tuple(own)
  for test in tests:
    if not any(test in own for own in plan.values()):
      raise ConfigError(
        f"The test {test} takes none of these sets of texts.",
        received=", ".join(sets) or "none",
        instead=f"sets with {' or '.join(TESTS[test].sets or SETS)}",
      )
  return plan
