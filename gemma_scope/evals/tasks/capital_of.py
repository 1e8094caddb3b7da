"""Capitals: a fact that the prompt does not contain.

    clean    The capital of France is the city of  -> Paris
    corrupt  The capital of Italy is the city of   -> Rome

The wrong answer is the capital of the corrupt prompt's country.
"""

from collections.abc import Iterator
import itertools

import numpy as np

from gemma_scope.evals.tasks.protocol import Pair, Task, make_task
from gemma_scope.model.language_model import LanguageModel

CAPITALS = {
  "France": "Paris",
  "Italy": "Rome",
  "Spain": "Madrid",
  "Germany": "Berlin",
  "Russia": "Moscow",
  "Japan": "Tokyo",
  "China": "Beijing",
  "Austria": "Vienna",
  "Greece": "Athens",
  "Egypt": "Cairo",
  "Poland": "Warsaw",
  "Portugal": "Lisbon",
  "Ireland": "Dublin",
  "Norway": "Oslo",
  "Sweden": "Stockholm",
  "Finland": "Helsinki",
  "Hungary": "Budapest",
  "Thailand": "Bangkok",
  "Cuba": "Havana",
  "Peru": "Lima",
  "Canada": "Ottawa",
  "Turkey": "Ankara",
  "Iran": "Tehran",
  "Iraq": "Baghdad",
  "Kenya": "Nairobi",
  "Belgium": "Brussels",
  "England": "London",
  "Denmark": "Copenhagen",
}
TEMPLATES = (
  "The capital of {country} is the city of",
  "The capital city of {country} is called",
  "{country} is a country, and its capital is",
)


def capital_of(lm: LanguageModel, n: int = 40, seed: int = 0) -> Task:
  """Pairs of capital prompts that the model solves.

  Args:
    lm: The model.
    n: How many; no pair of countries comes twice under one template.
    seed: Seed of the order.

  Raises:
    TextError: If the model solves none.
  """
  return make_task(lm, "capital_of", _pairs(seed), n)


def _pairs(seed: int) -> Iterator[Pair]:
  """Every template and ordered pair of countries once, in random order."""
  every = list(
    itertools.product(TEMPLATES, itertools.permutations(CAPITALS, 2))
  )
  for i in np.random.default_rng(seed).permutation(len(every)):
    text, (country, other) = every[i]
    yield Pair(
      clean=text.format(country=country),
      corrupt=text.format(country=other),
      right=(f" {CAPITALS[country]}",),
      wrong=(f" {CAPITALS[other]}",),
    )
