"""Dictionaries and what is known of their latents -> one archive.

The same dictionaries, tables and card give the same bytes, with the same zlib.
Rows of matrices become int8 (`own_format`); of dense Gaussian-like weights
deflate takes another tenth off, and a bit for every halving of the levels.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any
import zipfile

import safetensors.numpy

from gemma_scope.dictionaries import own_format
from gemma_scope.dictionaries.latent_packing import pack_table
from gemma_scope.dictionaries.latent_table import LatentTable
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.suite import CARD, INDEX, LATENTS, NAME, VERSION
from gemma_scope.errors import ConfigError
from gemma_scope.weights import folders

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP can say


def pack_suite(
  dictionaries: Mapping[str, Dictionary],
  tables: Mapping[str, LatentTable],
  card: Mapping[str, Any],
  path: str | os.PathLike,
  *,
  levels: int = own_format.LEVELS,
) -> pathlib.Path:
  """Writes an archive, whole or not at all.

  Args:
    dictionaries: By name, such as "resid_post/layer_9", in the order in which
      they shall be listed; all of one model.
    tables: What is known of the latents of each, under the same names.
    card: Data, licence, recipe, "metrics" {name: {…}} and "descriptions"
      {name: {latent: text}}; JSON values.
    path: Where to.
    levels: Steps on either side of zero that weights are rounded to.

  Returns:
    The path.

  Raises:
    ConfigError: Names or models do not agree, or a table has another number of
      latents.
  """
  _check(dictionaries, tables)
  model = next(iter(dictionaries.values())).about.model
  index = {"version": VERSION, "model": model, "levels": levels}
  index["dictionaries"] = {
    name: list(dict.fromkeys(map(str, (*d.sites_in, *d.sites_out))))
    for name, d in dictionaries.items()
  }
  with folders.new_file(path) as file, zipfile.ZipFile(file, "w") as archive:
    _add(archive, INDEX, _to_json(index))
    _add(archive, CARD, _to_json(card))
    for name, dictionary in dictionaries.items():
      for member, data in _members(name, dictionary, tables[name], levels):
        _add(archive, f"{name}/{member}", data)
  return pathlib.Path(path)


def _members(
  name: str, dictionary: Any, table: LatentTable, levels: int
) -> Iterator[tuple[str, bytes]]:
  """The files of one dictionary."""
  about = dataclasses.replace(dictionary.about, name=f"{NAME}/{name}")
  content, tensors = own_format.dictionary_to_tensors(
    dictionary.with_about(about), levels
  )
  yield own_format.FILE, _to_json(content)
  yield own_format.ARRAYS, safetensors.numpy.save(tensors)
  yield LATENTS, safetensors.numpy.save(pack_table(table))


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
  """Adds a member that carries no time and no user."""
  info = zipfile.ZipInfo(name, _EPOCH)
  info.external_attr = 0o644 << 16
  info.create_system = 3  # Unix, wherever this runs
  archive.writestr(info, data, zipfile.ZIP_DEFLATED, compresslevel=9)


def _to_json(value: Any) -> bytes:
  return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _check(
  dictionaries: Mapping[str, Dictionary], tables: Mapping[str, LatentTable]
) -> None:
  models = {d.about.model for d in dictionaries.values()}
  sizes = {n: d.num_latents for n, d in dictionaries.items()}
  described = {n: t.num_latents for n, t in tables.items()}
  if len(models) != 1 or None in models or sizes != described:
    odd = {n for n, _ in sizes.items() ^ described.items()}
    raise ConfigError(
      "A suite holds dictionaries of one model, each with its table.",
      received=f"models {sorted(map(str, models))}; these differ: "
      f"{', '.join(sorted(odd)) or 'none'}",
      instead="About(model=…) of one model, and a table for each dictionary "
      "with as many rows as it has latents",
    )
