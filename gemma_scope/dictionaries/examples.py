"""examples.safetensors of Gemma Scope 2: what its latents fire on.

    tokens [N, 512]                                  texts
    activations, seq_ids, positions [m, k]           the strongest k, sorted
    logit_effects [m, 1000]                          sorted as they are stored
    feature_frequencies [m]                          fraction of tokens
    top_tokens, top_logits, bottom_tokens, bottom_logits [m, 10]

Rows are padded with zeros. The file is larger than the parameters: it is
fetched by `load_examples` alone, and mapped, so that one latent costs one row.
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib

import numpy as np

from gemma_scope.dictionaries import published
from gemma_scope.dictionaries.tensor_files import read_tensors
from gemma_scope.errors import CheckpointError, ConfigError
from gemma_scope.weights import hub

FILE = "examples.safetensors"
_NEEDED = ("tokens", "activations", "seq_ids", "positions")


@dataclasses.dataclass(frozen=True)
class Example:
  """One place where a latent is active.

  Attributes:
    activation: How much.
    tokens: Token ids around it, int32.
    index: Where in `tokens` it is active.
    activations: How active it is at each of `tokens`, float32, where that is
      known.
  """

  activation: float
  tokens: np.ndarray
  index: int
  activations: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class LogitEffects:
  """The tokens that a latent's decoder favours and disfavours most.

  Attributes:
    tokens: Token ids.
    logits: Effect on the logit of each.
  """

  tokens: np.ndarray
  logits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Examples:
  """The published examples of one dictionary; arrays are mapped.

  Attributes:
    tensors: Name in the file -> array.
    source: The file, for errors.
  """

  tensors: Mapping[str, np.ndarray]
  source: str

  @property
  def num_latents(self) -> int:
    """How many latents have examples."""
    return self.tensors["activations"].shape[0]

  def top(self, latent: int, count: int = 10, *, context: int = 16) -> list:
    """The places where a latent is most active.

    Args:
      latent: Which.
      count: How many at most; padding is left out.
      context: Tokens to keep on either side.

    Returns:
      A list of `Example`, strongest first.

    Raises:
      ConfigError: There is no such latent.
    """
    self._check(latent)
    strengths = np.asarray(self.tensors["activations"][latent], np.float32)
    rows = self.tensors["seq_ids"][latent]
    places = self.tensors["positions"][latent]
    found = []
    for strength, row, place in zip(strengths, rows, places):
      if strength <= 0 or len(found) == count:
        break
      begin = max(0, int(place) - context)
      text = self.tensors["tokens"][int(row), begin : int(place) + context + 1]
      ids = np.asarray(text, np.int32)
      found.append(Example(float(strength), ids, int(place) - begin))
    return found

  def frequency(self, latent: int) -> float:
    """The fraction of tokens on which a latent is active."""
    self._check(latent)
    return float(self._tensor("feature_frequencies")[latent])

  def favoured(self, latent: int) -> LogitEffects:
    """The tokens whose logits a latent raises most."""
    return self._effects(latent, "top")

  def disfavoured(self, latent: int) -> LogitEffects:
    """The tokens whose logits a latent lowers most."""
    return self._effects(latent, "bottom")

  def logit_effects(self, latent: int) -> np.ndarray:
    """The stored effects of a latent on the logits, as many as there are."""
    self._check(latent)
    return np.asarray(self._tensor("logit_effects")[latent], np.float32)

  def _effects(self, latent: int, end: str) -> LogitEffects:
    self._check(latent)
    return LogitEffects(
      np.asarray(self._tensor(f"{end}_tokens")[latent], np.int32),
      np.asarray(self._tensor(f"{end}_logits")[latent], np.float32),
    )

  def _tensor(self, name: str) -> np.ndarray:
    if name not in self.tensors:
      raise CheckpointError(
        "These examples lack a table.",
        received=f"{self.source}: no {name}",
        instead=f"one of {', '.join(self.tensors)}",
      )
    return self.tensors[name]

  def _check(self, latent: int) -> None:
    if not 0 <= latent < self.num_latents:
      raise ConfigError(
        "There is no such latent.",
        received=f"latent {latent}",
        instead=f"a number from 0 to {self.num_latents - 1}",
      )


def read_examples(path: str | os.PathLike) -> Examples:
  """Opens an examples.safetensors.

  Args:
    path: The file, or the folder it is in.

  Raises:
    CheckpointError: It is missing or damaged, or its tables do not fit.
  """
  path = pathlib.Path(path)
  path = path / FILE if path.is_dir() else path
  tensors = read_tensors(path)
  missing = [name for name in _NEEDED if name not in tensors]
  shapes = {tensors[n].shape for n in _NEEDED[1:] if n in tensors}
  if missing or len(shapes) != 1:
    raise CheckpointError(
      "This is no file of published examples.",
      received=f"{path}: lacks {', '.join(missing) or 'nothing'}, shapes "
      f"{sorted(shapes)}",
      instead="examples.safetensors of Gemma Scope 2, with activations, "
      "seq_ids and positions of one shape",
    )
  return Examples(tensors, str(path))


def load_examples(
  name_or_folder: str, *, revision: str | None = None
) -> Examples:
  """The examples of a published dictionary; fetches the large file.

  Args:
    name_or_folder: As for `load`.
    revision: Commit, tag or branch of the repository.

  Raises:
    GemmaScopeError: The name is unknown, or the file is not to be had.
  """
  if os.path.isdir(os.path.expanduser(name_or_folder)):
    return read_examples(os.path.expanduser(name_or_folder))
  entry = published.lookup(name_or_folder)
  file = f"{entry.folder}/{FILE}"
  found = hub.files(f"google/{entry.repository}", [file], revision=revision)
  return read_examples(found[file])
