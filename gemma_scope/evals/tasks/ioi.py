"""Indirect object identification.

    clean    When Mary and John went to the store, John gave a drink to  -> Mary
    corrupt  When Mary and John went to the store, Mary gave a drink to  -> John

Source: Wang et al. 2023, "Interpretability in the Wild". The corruption swaps
the second mention of a name for the other name (symmetric token replacement,
Zhang and Nanda 2024), so that a single token differs.
"""

from collections.abc import Iterator

import numpy as np

from gemma_scope.evals.tasks.protocol import Pair, Task, make_task
from gemma_scope.model.language_model import LanguageModel

NAMES = (
  "Mary John Anna Peter Tom Sarah James Emma Paul Laura David Alice Robert "
  "Kate Mark Lucy Simon Helen Daniel Julia Adam Rachel Michael Susan Henry "
  "Clara George Jane Frank Rose"
)

TEMPLATES = (
  "When {a} and {b} went to the {place}, {s} gave a {thing} to",
  "Then, {a} and {b} went to the {place}. {s} gave a {thing} to",
  "After {a} and {b} went to the {place}, {s} gave a {thing} to",
  "While {a} and {b} were at the {place}, {s} handed a {thing} to",
  "{a} and {b} met at the {place}, and {s} gave a {thing} to",
)

PLACES = "store garden school park station office library market"
THINGS = "drink book ring letter basket ball key present"


def ioi(lm: LanguageModel, n: int = 100, seed: int = 0) -> Task:
  """Pairs of indirect object prompts that the model solves.

  Args:
    lm: The model.
    n: How many.
    seed: Seed of names, places and order.

  Raises:
    TextError: If the model solves none.
  """
  return make_task(lm, "ioi", _pairs(seed), n)


def _pairs(seed: int) -> Iterator[Pair]:
  """Endless random pairs; either name may be the one that gives."""
  names, places, things = (w.split() for w in (NAMES, PLACES, THINGS))
  rng = np.random.default_rng(seed)
  while True:
    a, b = (names[i] for i in rng.choice(len(names), 2, replace=False))
    giver, other = (a, b) if rng.random() < 0.5 else (b, a)
    text = TEMPLATES[rng.integers(len(TEMPLATES))]
    place = places[rng.integers(len(places))]
    thing = things[rng.integers(len(things))]
    fill = {"a": a, "b": b, "place": place, "thing": thing}
    yield Pair(
      clean=text.format(s=giver, **fill),
      corrupt=text.format(s=other, **fill),
      right=(f" {other}",),
      wrong=(f" {giver}",),
    )
