"""What every attribution method is: a question, an answer, and its options.

A method is a row of `attribute.METHODS`. It does not know what a tokenizer or
a batch of texts is: options that name texts are resolved before it runs.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np

from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution.objectives import ResolvedTarget
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.errors import ConfigError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site


@dataclasses.dataclass(frozen=True)
class Options:
  """Base of the options of a method."""

  def resolved(self, lm: LanguageModel, batch: TokenBatch) -> "Options":
    """The same with arrays for texts.

    Args:
      lm: The model that is explained.
      batch: The prompts.

    Raises:
      GemmaScopeError: If an option cannot be used with them.
    """
    del lm, batch
    return self


@dataclasses.dataclass(frozen=True)
class Question:
  """What a method is asked.

  Attributes:
    model: The model.
    rows: The prompts.
    target: What is explained.
    sites: Where relevance is wanted.
    options: Options of the method, resolved; None if it has none.
  """

  model: Gemma
  rows: Rows
  target: ResolvedTarget
  sites: tuple[Site, ...]
  options: Any = None


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a method returns.

  Attributes:
    target: [batch] value of the target.
    values: Site -> relevance.
    expected: Site -> [batch] what it should add up to; NaN if nothing is
      promised.
  """

  target: np.ndarray
  values: Values
  expected: dict[Site, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Method:
  """An attribution method.

  Attributes:
    run: From a question to its answer.
    options: The class of its options; None if it has none.
    remedy: What helps where its numbers are not finite.
  """

  run: Callable[[Question], Answer]
  options: type[Options] | None = None
  remedy: str = "float32 weights, or another method"

  def __call__(self, question: Question) -> Answer:
    """Answers a question."""
    return self.run(question)


def checked_options(
  name: str, method: Method, given: Options | None
) -> Options | None:
  """The options to run a method with, its defaults if there are none.

  Raises:
    ConfigError: If they are those of another method.
  """
  if given is None:
    return method.options() if method.options else None
  if method.options and isinstance(given, method.options):
    return given
  instead = f"no options: method={name!r} has none"
  if method.options:
    instead = f"gs.attribution.{method.options.__name__}(…)"
  raise ConfigError(
    "These options belong to another attribution method.",
    received=f"{type(given).__name__} with method={name!r}",
    instead=instead,
  )


def nothing_promised(
  target: np.ndarray, sites: tuple[Site, ...]
) -> dict[Site, np.ndarray]:
  """NaN for every site and prompt: the method's scores need not add up."""
  return {site: np.full_like(target, np.nan) for site in sites}
