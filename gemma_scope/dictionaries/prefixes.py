"""Matryoshka dictionaries: their first latents alone reconstruct, coarsely.

    y_s = f[:s] @ w_dec[:s] + b_dec        for every prefix size s

Source: Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka
Sparse Autoencoders". Any member of the family can be one: the sizes are data
(`About.prefixes`). Of a TopK dictionary all latents compete, and then the first
are kept; `first_latents` makes them compete among themselves.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any, TypeVar

import jax
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.arrays import cut, first_latents
from gemma_scope.dictionaries.protocol import Dictionary, Values
from gemma_scope.errors import ConfigError

DictionaryT = TypeVar("DictionaryT", bound=Any)


def with_prefixes(dictionary: DictionaryT, sizes: Sequence[int]) -> DictionaryT:
  """The dictionary with its prefix sizes written down.

  Args:
    dictionary: Any.
    sizes: Rising numbers of latents (of one layer, where each has its own).

  Raises:
    ConfigError: They do not rise, or one is larger than the dictionary.
  """
  for size in sizes:
    _check_size(dictionary, size)
  about = dataclasses.replace(dictionary.about, prefixes=tuple(sizes))
  return dictionary.with_about(about)


def prefix(dictionary: DictionaryT, size: int) -> DictionaryT:
  """The dictionary of the first `size` latents.

  Raises:
    ConfigError: It has not so many.
  """
  _check_size(dictionary, size)
  shorter = first_latents(dictionary, size)
  kept = tuple(s for s in dictionary.about.prefixes if s < size)
  return shorter.with_about(
    dataclasses.replace(dictionary.about, prefixes=kept)
  )


def decode_prefix(dictionary: Dictionary, latents: Values, size: int) -> Values:
  """What the first `size` of the latents say.

  Args:
    dictionary: Any.
    latents: All of its latents, as `encode` gives them.
    size: How many of them to use.

  Raises:
    ConfigError: It has not so many.
  """
  return prefix(dictionary, size).decode(_first(latents, size))


def decode_prefixes(dictionary: Dictionary, latents: Values) -> list[Values]:
  """What each of its prefixes says, and at last all of it.

  Args:
    dictionary: With `About.prefixes`.
    latents: All of its latents.

  Returns:
    One reconstruction for each prefix size below the number of latents, in
    rising order, and the whole one.
  """
  whole = dictionary.num_latents
  sizes = [s for s in dictionary.about.prefixes if s < whole]
  return [decode_prefix(dictionary, latents, s) for s in (*sizes, whole)]


def _first(latents: Values, size: int) -> Values:
  if isinstance(latents, pz.nx.NamedArray):
    return cut(latents, axes.LATENTS, slice(size))
  return jax.numpy.asarray(latents)[..., :size]


def _check_size(dictionary: Dictionary, size: int) -> None:
  if not 0 < size <= dictionary.num_latents:
    raise ConfigError(
      "A prefix holds some of a dictionary's latents.",
      received=f"size {size} of {dictionary.num_latents} latents",
      instead=f"a size from 1 to {dictionary.num_latents}",
    )
