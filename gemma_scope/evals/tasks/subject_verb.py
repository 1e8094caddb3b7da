"""Subject-verb agreement across a noun in between.

    clean    The keys near the cabinet  -> are
    corrupt  The key near the cabinet   -> is

Source: Linzen, Dupoux and Goldberg 2016, "Assessing the Ability of LSTMs to
Learn Syntax-Sensitive Dependencies". Singular and plural take turns at being
the clean prompt; the noun in between is always of the other number than the
clean subject, so that the nearest noun gives the wrong answer.
"""

from collections.abc import Iterator

import numpy as np

from gemma_scope.evals.tasks.protocol import Pair, Task, make_task
from gemma_scope.model.language_model import LanguageModel

SUBJECTS = (
  "key/keys book/books picture/pictures letter/letters teacher/teachers "
  "doctor/doctors car/cars dog/dogs student/students author/authors "
  "pilot/pilots farmer/farmers chair/chairs poem/poems song/songs"
)
BETWEEN = (
  "cabinet/cabinets house/houses tree/trees school/schools river/rivers "
  "table/tables window/windows garden/gardens"
)
LINKS = ("near", "behind", "beside", "by")
VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))


def subject_verb(lm: LanguageModel, n: int = 40, seed: int = 0) -> Task:
  """Pairs of agreement prompts that the model solves.

  Args:
    lm: The model.
    n: How many.
    seed: Seed of nouns, verbs and number.

  Raises:
    TextError: If the model solves none.
  """
  return make_task(lm, "subject_verb", _pairs(seed), n)


def _pairs(seed: int) -> Iterator[Pair]:
  """Endless random pairs."""
  subjects, between = SUBJECTS.split(), BETWEEN.split()
  rng = np.random.default_rng(seed)
  while True:
    subject = subjects[rng.integers(len(subjects))].split("/")
    other = between[rng.integers(len(between))].split("/")
    verb = VERBS[rng.integers(len(VERBS))]
    link = LINKS[rng.integers(len(LINKS))]
    plural = int(rng.integers(2))
    tail = f"{link} the {other[1 - plural]}"
    yield Pair(
      clean=f"The {subject[plural]} {tail}",
      corrupt=f"The {subject[1 - plural]} {tail}",
      right=(verb[plural],),
      wrong=(verb[1 - plural],),
    )
