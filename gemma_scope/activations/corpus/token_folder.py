"""A corpus as tokens on disk: what is read again and again is encoded once.

    tokens.bin     ids of all documents, one behind the other, uint32
    ends.bin       the place behind each document's last id, int64
    manifest.json  counts, checksums, tokenizer, where the text came from

Numbers are little-endian and read through a memory map. Documents have no BOS:
packing puts it in front of every piece. `token_writer` writes such folders.
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope.activations.corpus.token_arrays import TokenDocuments
from gemma_scope.errors import TextError
from gemma_scope.weights.hashes import compute_sha256

TOKENS, ENDS, MANIFEST = "tokens.bin", "ends.bin", "manifest.json"
ID, END = np.dtype("<u4"), np.dtype("<i8")
FORMAT = "gemma_scope tokens"
VERSION = 1


class TokenFolder(TokenDocuments):
  """Documents of a folder of tokens.

  Attributes:
    folder: The folder.
    manifest: What its manifest says.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    """Maps the tokens.

    Raises:
      TextError: If the folder is of another version, or a file has not the
        size that the manifest says.
    """
    self.folder = pathlib.Path(folder)
    self.manifest: Mapping[str, Any] = _manifest(self.folder)
    sizes = {
      TOKENS: self.manifest["tokens"] * ID.itemsize,
      ENDS: self.manifest["documents"] * END.itemsize,
    }
    for name, size in sizes.items():
      path = self.folder / name
      found = path.stat().st_size if path.is_file() else 0
      if found != size:
        raise TextError(
          "A file of this token folder is not as long as it was written.",
          received=f"{path}: {found:,} bytes of {size:,}",
          instead="a whole copy of the folder, or corpus_to_tokens once more",
        )
    ends = np.fromfile(self.folder / ENDS, END)
    super().__init__(self.folder / TOKENS, ends, raw=ID.str)

  @property
  def tokenizer(self) -> str:
    """Digest of the tokenizer that made the ids."""
    return str(self.manifest["tokenizer"])

  @property
  def origin(self) -> Mapping[str, Any]:
    """The folder's name and checksums."""
    return {
      "kind": "tokens",
      "name": self.folder.name,
      "documents": self.manifest["documents"],
      "tokens": self.manifest["tokens"],
      "sha256": self.manifest["sha256"],
    }

  def verify(self) -> None:
    """Reads everything and compares checksums.

    Raises:
      TextError: If a file has changed.
    """
    for name, expected in self.manifest["sha256"].items():
      found = compute_sha256(self.folder / name)
      if found != expected:
        raise TextError(
          "A file of this token folder is damaged.",
          received=f"{self.folder / name} with sha256 {found:.12}…, not "
          f"{expected:.12}…",
          instead="a whole copy of the folder, or corpus_to_tokens once more",
        )


def is_token_folder(path: pathlib.Path) -> bool:
  """Whether this is a folder of tokens, by its manifest."""
  try:
    manifest = json.loads((path / MANIFEST).read_bytes())
  except (OSError, ValueError):
    return False
  return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _manifest(folder: pathlib.Path) -> Mapping[str, Any]:
  found = None
  if is_token_folder(folder):
    found = json.loads((folder / MANIFEST).read_bytes())
  if found is None or found.get("version") != VERSION:
    raise TextError(
      "This is no folder of tokens that can be read here.",
      received=f"{folder}, version {found and found.get('version')}",
      instead=f"a folder of version {VERSION}, written by corpus_to_tokens",
    )
  return found
