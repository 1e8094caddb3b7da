"""Results of finished parts, one JSON file each, complete or not there."""

from collections.abc import Callable
import json
import logging
import math
import pathlib
import time
from typing import Any

import numpy as np

from gemma_scope.weights import folders

_log = logging.getLogger(__name__)


class Parts:
  """A folder of JSON files; a part that is there is not computed again."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder

  def path(self, name: str) -> pathlib.Path:
    """Where the part of a name is."""
    return self.folder / f"{name}.json"

  def get(self, name: str, compute: Callable[[], Any]) -> Any:
    """The part of a name, computed and written if it is not there.

    Args:
      name: The file's name without its ending; may hold "/".
      compute: Returns what the file shall hold: JSON values and arrays.
    """
    if not self.path(name).exists():
      start = time.perf_counter()
      self.put(name, compute())
      _log.info("%s: %.1f s", name, time.perf_counter() - start)
    return self.read(name)

  def put(self, name: str, value: Any) -> None:
    """Writes a part."""
    content = json.dumps(plain(value), allow_nan=False)
    with folders.new_file(self.path(name)) as file:
      file.write(content.encode())

  def read(self, name: str) -> Any:
    """A part that is there."""
    return json.loads(self.path(name).read_text(encoding="utf-8"))


def plain(value: Any) -> Any:
  """JSON values: arrays as lists, 7 digits, None for what is not finite."""
  if isinstance(value, dict):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if isinstance(value, np.ndarray):
    return plain(value.tolist())
  if isinstance(value, np.generic):
    return plain(value.item())
  if isinstance(value, float):
    return float(f"{value:.7g}") if math.isfinite(value) else None
  return value
