"""The tokenizer file that belongs to a checkpoint, found but not read.

Remote files (beside a gs:// checkpoint, or the official one) are copied into
the cache, once.
"""

import hashlib
import logging
import os

from etils import epath

from gemma_scope.weights import cache, folders

_log = logging.getLogger(__name__)

_NAMES = ("tokenizer.model", "tokenizer.json")
# Official checkpoints lie in one bucket and share one tokenizer.
_OFFICIAL_CHECKPOINTS = "gs://gemma-data/"
_OFFICIAL = "gs://gemma-data/tokenizers/tokenizer_gemma3.model"


def find_tokenizer(*places: str | os.PathLike) -> str | None:
  """The first tokenizer file in some folders.

  Args:
    *places: Folders, local or gs://.

  Returns:
    A local path: tokenizer.model or tokenizer.json, or None.
  """
  for place in places:
    for name in _NAMES:
      file = epath.Path(place) / name
      if file.exists():
        return local_copy(file)
  if places and os.fspath(places[0]).startswith(_OFFICIAL_CHECKPOINTS):
    return local_copy(epath.Path(_OFFICIAL))
  return None


def local_copy(file: epath.Path) -> str | None:
  """The file's local path; a remote one is copied into the cache.

  Returns None, with a warning, where that cannot be done.
  """
  address = os.fspath(file)
  if "://" not in address:
    return address
  digest = hashlib.sha256(address.encode()).hexdigest()[:16]
  copy = cache.folder() / "tokenizers" / digest / file.name
  try:
    if not copy.exists():
      content = file.read_bytes()
      with folders.new_file(copy) as made:
        made.write(content)
  except OSError as error:
    _log.warning("The tokenizer %s cannot be copied: %s", address, error)
    return None
  return str(copy)
