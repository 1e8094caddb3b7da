"""The starter suite: small dictionaries of one model, inside the package.

    suite = gs.dictionaries.starter()
    sae = suite["resid_post/layer_9"]   # or gs.dictionaries.load("starter/…")
    suite.table("resid_post/layer_9").top(17)

One ZIP holds folders of `own_format` with int8 rows, for each a table of its
latents (`latent_table`), and a card. Only what is asked for is read, straight
from the archive.

    suite.json   card.json   {name}/{dictionary.json, arrays, latents}
"""

from collections.abc import Iterator, Mapping
import dataclasses
import difflib
import functools
import json
import os
import pathlib
from typing import Any
import zipfile
import zlib

import numpy as np
import safetensors
import safetensors.numpy

from gemma_scope.dictionaries import own_format
from gemma_scope.dictionaries.arrays import place
from gemma_scope.dictionaries.latent_packing import unpack_table
from gemma_scope.dictionaries.latent_table import LatentTable
from gemma_scope.display import table_html
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.sites import Site

NAME = "starter"
PATH = pathlib.Path(__file__).parent / NAME / "suite.zip"
INDEX, CARD, LATENTS = "suite.json", "card.json", "latents.safetensors"
VERSION = 1


@dataclasses.dataclass(frozen=True, repr=False)
class Suite(Mapping[str, Any]):
  """Dictionaries by name, each read when it is asked for.

  Attributes:
    path: The archive.
    model: Name of the model that they were trained on.
    sites: Names without "starter/", in the order in which they were packed ->
      addresses of the sites that the dictionary reads and rebuilds.
    card: Data, recipe, licence and metrics; JSON.
  """

  path: pathlib.Path
  model: str
  sites: Mapping[str, tuple[str, ...]]
  card: Mapping[str, Any]

  @property
  def names(self) -> tuple[str, ...]:
    """Names without "starter/"."""
    return tuple(self.sites)

  def at(self, site: Site | str) -> str:
    """The name of the dictionary that reads or rebuilds a site.

    Args:
      site: Its address, such as "resid_post[9]".

    Raises:
      SiteError: There is none.
    """
    for name, sites in self.sites.items():
      if str(site) in sites:
        return name
    known = dict.fromkeys(s for sites in self.sites.values() for s in sites)
    near = difflib.get_close_matches(str(site), known, n=4, cutoff=0.3)
    raise SiteError(
      "The starter suite has no dictionary of this site.",
      received=str(site),
      instead=" or ".join(near or list(known)[:4]),
    )

  def __getitem__(self, name: str) -> Any:
    """A dictionary on the default device, float32.

    Raises:
      ConfigError: There is none of this name.
    """
    return place(self.open(name))

  def __iter__(self) -> Iterator[str]:
    return iter(self.names)

  def __len__(self) -> int:
    return len(self.names)

  def open(self, name: str) -> Any:
    """A dictionary whose arrays are NumPy, float32.

    Args:
      name: With or without "starter/" in front.

    Raises:
      ConfigError: There is none of this name.
      CheckpointError: The archive is damaged.
    """
    folder = self._folder(name)
    content = json.loads(self._read(f"{folder}/{own_format.FILE}"))
    tensors = self._tensors(f"{folder}/{own_format.ARRAYS}")
    return own_format.tensors_to_dictionary(content, tensors, self.path)

  def table(self, name: str) -> LatentTable:
    """What is known of the latents of a dictionary.

    Args:
      name: With or without "starter/" in front.

    Raises:
      ConfigError: There is no dictionary of this name.
      CheckpointError: The archive is damaged.
    """
    return unpack_table(self._tensors(f"{self._folder(name)}/{LATENTS}"))

  def metrics(self, name: str) -> Mapping[str, Any]:
    """What the card says was measured of a dictionary; may be empty."""
    return self.card.get("metrics", {}).get(self._folder(name), {})

  def description(self, name: str, latent: int) -> str | None:
    """What the card says of a latent, or None."""
    described = self.card.get("descriptions", {}).get(self._folder(name), {})
    return described.get(str(latent))

  def _folder(self, name: str) -> str:
    bare = name.strip("/").removeprefix(f"{NAME}/")
    if bare in self.names:
      return bare
    near = difflib.get_close_matches(bare, self.names, n=3, cutoff=0.3)
    shown = " or ".join(f"{NAME}/{n}" for n in near or self.names[:1])
    raise ConfigError(
      "The starter suite has no dictionary of this name.",
      received=repr(name),
      instead=f"{shown}; list(gs.dictionaries.starter()) names all",
    )

  def _tensors(self, member: str) -> dict[str, np.ndarray]:
    try:
      return safetensors.numpy.load(self._read(member))
    except safetensors.SafetensorError as error:
      raise _damaged(self.path, f"{member}: {error}") from error

  def _read(self, member: str) -> bytes:
    return _read(self.path, member)

  def __repr__(self) -> str:
    return (
      f"Suite({len(self)} dictionaries of {self.model}: {self.names[0]}, …)"
    )

  def _repr_html_(self) -> str:
    metrics = [self.metrics(name) for name in self.names]
    columns = list(dict.fromkeys(k for row in metrics for k in row))
    rows = [
      (f"{NAME}/{name}", *(row.get(k, "") for k in columns))
      for name, row in zip(self.names, metrics)
    ]
    title = f"Starter suite: sparse dictionaries of {self.model}"
    return table_html(["dictionary", *columns], rows, title=title)


def starter() -> Suite:
  """The suite that comes with the package.

  Raises:
    CheckpointError: It is not there, or damaged.
  """
  return open_suite(PATH)


def starter_of(model: str) -> Suite | None:
  """The suite, if there is one and it was trained on this model.

  Args:
    model: The model's name in the catalogue.
  """
  if not PATH.is_file():
    return None
  suite = starter()
  return suite if suite.model == model else None


@functools.cache
def open_suite(path: str | os.PathLike) -> Suite:
  """Opens an archive that `pack_suite` wrote; reads its index and card.

  Args:
    path: The file.

  Raises:
    CheckpointError: It is missing, damaged, or of a later version.
  """
  path = pathlib.Path(path)
  try:
    index = json.loads(_read(path, INDEX))
    card = json.loads(_read(path, CARD))
    if index["version"] != VERSION:
      raise ValueError(f"version {index['version']}")
    sites = {k: tuple(v) for k, v in index["dictionaries"].items()}
    return Suite(path, index["model"], sites, card)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    if isinstance(error, CheckpointError):
      raise
    raise _damaged(path, repr(error)) from error


def _read(path: pathlib.Path, member: str) -> bytes:
  """One member of an archive, its checksum checked."""
  try:
    with zipfile.ZipFile(path) as archive:
      return archive.read(member)
  except FileNotFoundError as error:
    raise CheckpointError(
      "The starter suite is not in this installation.",
      received=f"no file {path}",
      instead="a wheel or checkout that has it, or a published dictionary "
      "(gs.dictionaries.list() names them)",
    ) from error
  except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
    raise _damaged(path, f"{member}: {error!r}") from error


def _damaged(path: pathlib.Path, what: str) -> CheckpointError:
  return CheckpointError(
    "The archive of dictionaries cannot be read.",
    received=f"{path}: {what}",
    instead="the file as it was published, written by pack_suite of this "
    "version",
  )
