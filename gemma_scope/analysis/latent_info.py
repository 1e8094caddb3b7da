"""One latent in words: what it fires on, which tokens it favours.

Texts and numbers taken from a table (`dictionaries.latent_table`, or the
published `examples`), for pages and terminals. Computes nothing.
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

from gemma_scope.dictionaries.examples import Example, LogitEffects
from gemma_scope.model.tokenizer import Tokenizer


class Evidence(Protocol):
  """What tables of latents offer."""

  def top(self, latent: int, count: int = 10) -> list[Example]:
    """The strongest examples."""
    ...

  def frequency(self, latent: int) -> float:
    """The fraction of tokens it is active on."""
    ...

  def favoured(self, latent: int) -> LogitEffects:
    """The tokens it raises most."""
    ...

  def disfavoured(self, latent: int) -> LogitEffects:
    """The tokens it lowers most."""
    ...


@dataclasses.dataclass(frozen=True)
class ExampleText:
  """A place where a latent is active.

  Attributes:
    pieces: The text of each token.
    activations: The latent's at each, as far as it is known.
    peak: Which token it is most active on.
  """

  pieces: tuple[str, ...]
  activations: tuple[float, ...]
  peak: int


@dataclasses.dataclass(frozen=True)
class LatentInfo:
  """What is known of one latent.

  Attributes:
    dictionary: Name of its dictionary.
    index: Its number.
    favoured: (text, logit by unit of activation), the most raised first.
    disfavoured: The same of what it lowers.
    examples: The strongest, strongest first.
    frequency: The fraction of tokens it is active on.
    maximum: The largest activation.
    description: What a person wrote of it, or None.
  """

  dictionary: str
  index: int
  favoured: tuple[tuple[str, float], ...]
  disfavoured: tuple[tuple[str, float], ...]
  examples: tuple[ExampleText, ...]
  frequency: float
  maximum: float
  description: str | None = None


def latent_info(
  tokenizer: Tokenizer,
  table: Evidence,
  dictionary: str,
  index: int,
  *,
  description: str | None = None,
  examples: int = 10,
) -> LatentInfo:
  """Puts a row of a table into words.

  Args:
    tokenizer: The model's.
    table: Of its dictionary.
    dictionary: Its dictionary's name.
    index: Which latent.
    description: What a person wrote of it.
    examples: How many to keep at most.

  Raises:
    ConfigError: There is no such latent.
  """
  found = table.top(index, examples)
  return LatentInfo(
    dictionary=dictionary,
    index=index,
    favoured=_effects(tokenizer, table.favoured(index)),
    disfavoured=_effects(tokenizer, table.disfavoured(index)),
    examples=tuple(_example(tokenizer, e) for e in found),
    frequency=table.frequency(index),
    maximum=max((e.activation for e in found), default=0.0),
    description=description,
  )


def _effects(
  tokenizer: Tokenizer, effects: LogitEffects
) -> tuple[tuple[str, float], ...]:
  pairs = zip(effects.tokens.tolist(), effects.logits.tolist())
  return tuple((tokenizer.token_text(t), float(v)) for t, v in pairs)


def _example(tokenizer: Tokenizer, example: Example) -> ExampleText:
  values: Any = example.activations
  if values is None:  # known at the peak alone
    values = np.zeros(len(example.tokens), np.float32)
    values[example.index] = example.activation
  return ExampleText(
    tuple(tokenizer.pieces(example.tokens)),
    tuple(np.asarray(values).tolist()),
    example.index,
  )
