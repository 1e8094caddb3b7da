"""Reads tests/goldens/dictionaries.npz."""

import functools
import pathlib

import numpy as np

PATH = pathlib.Path(__file__).parent.parent / "goldens" / "dictionaries.npz"


@functools.cache
def everything():
  with np.load(PATH) as stored:
    return {key: stored[key] for key in stored.files}


def golden(prefix):
  """The entries below a prefix, which is cut off."""
  found = {
    key.removeprefix(f"{prefix}/"): value
    for key, value in everything().items()
    if key.startswith(f"{prefix}/")
  }
  assert found
  return found


def names(library):
  """The dictionaries that a library made."""
  return sorted({k.split("/")[1] for k in everything() if k[:4] == library[:4]})
