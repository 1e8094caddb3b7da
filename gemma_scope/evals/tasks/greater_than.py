"""Greater-than: the year in which something ended.

    clean    The war lasted from the year 1746 to the year 17  -> 5, 6, 7
    corrupt  The war lasted from the year 1706 to the year 17

Source: Hanna, Liu and Variengien 2023, "How does GPT-2 compute greater-than?".
Gemma's tokenizer splits numbers into digits, so the answer here is the decade:
the mean logit of the three digits above the first year's decade minus that of
the three below. As there, the corrupt year is early, so that every digit fits.
"""

from collections.abc import Iterator

import numpy as np

from gemma_scope.evals.tasks.protocol import Pair, Task, make_task
from gemma_scope.model.language_model import LanguageModel

NOUNS = (
  "war siege famine voyage reign trial campaign expedition alliance project "
  "dispute treaty"
)
TEMPLATE = "The {noun} lasted from the year {year} to the year {century}"


def greater_than(lm: LanguageModel, n: int = 40, seed: int = 0) -> Task:
  """Pairs of greater-than prompts that the model solves.

  Args:
    lm: The model.
    n: How many.
    seed: Seed of nouns and years.

  Raises:
    TextError: If the model solves none.
  """
  return make_task(lm, "greater_than", _pairs(seed), n)


def _pairs(seed: int) -> Iterator[Pair]:
  """Endless random pairs; decades from 30 to 60 leave three on each side."""
  nouns = NOUNS.split()
  rng = np.random.default_rng(seed)
  while True:
    noun = nouns[rng.integers(len(nouns))]
    century, decade, year = (
      int(rng.integers(low, high)) for low, high in ((11, 19), (3, 7), (0, 10))
    )

    def prompt(
      tens: int, noun: str = noun, century: int = century, year: int = year
    ) -> str:
      start = f"{century}{tens}{year}"
      return TEMPLATE.format(noun=noun, year=start, century=century)

    yield Pair(
      clean=prompt(decade),
      corrupt=prompt(0),
      right=tuple(str(decade + i) for i in (1, 2, 3)),
      wrong=tuple(str(decade - i) for i in (1, 2, 3)),
    )
