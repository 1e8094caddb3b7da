"""A path -> an open checkpoint, recognised by content and not by name."""

import logging
import os
import pathlib

from gemma_scope import errors
from gemma_scope.weights import (
  cache,
  checkpoint,
  gguf,
  gguf_checkpoint,
  hashes,
  orbax,
  safetensors_hf,
)

_log = logging.getLogger(__name__)

_KNOWN = "a .gguf file, a folder of safetensors, or an Orbax checkpoint"
# What people hand over by mistake: first bytes -> what it is, what to do.
_IMPOSTORS = (
  (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
  (b"<!", "a web page", "download the file itself; log in if it is gated"),
  (b"<html", "a web page", "download the file itself"),
  (b"PK", "a PyTorch pickle or zip archive", "the .safetensors of the model"),
  (b"\x80", "a Python pickle", "the .safetensors of the model"),
  (b"\x89PNG", "an image", f"{_KNOWN}; the model reads text only"),
  (b"\xff\xd8\xff", "an image", f"{_KNOWN}; the model reads text only"),
)


def open_path(path: str | os.PathLike) -> checkpoint.Checkpoint:
  """Opens what lies at a path.

  Args:
    path: A GGUF or safetensors file, a folder with safetensors, one GGUF file
      or an Orbax checkpoint, or the gs:// path of an Orbax checkpoint.

  Raises:
    CheckpointError: there is no checkpoint, or it is damaged.
  """
  text = os.fspath(path)
  if "://" in text:
    return _open_remote(text)
  place = pathlib.Path(text).expanduser()
  try:
    if place.is_dir():
      return _open_folder(place)
    return _open_file(place)
  except OSError as error:
    raise errors.CheckpointError(
      "The checkpoint cannot be read.",
      received=f"{text}: {error.strerror or error}",
      instead="an existing path that this user may read",
    ) from error


def open_gguf(path: str | os.PathLike) -> checkpoint.Checkpoint:
  """Opens a GGUF file, quantised weights by way of the converted cache.

  Args:
    path: A local file.

  Returns:
    The checkpoint of the file; its tensors are mapped from the cache if it
    holds them or can be written, else unpacked when they are read.

  Raises:
    CheckpointError: see `gguf_checkpoint.open_gguf`.
  """
  header = gguf.read_header(path)
  opened = gguf_checkpoint.header_to_checkpoint(header)
  if not gguf_checkpoint.is_quantized(header):
    return opened
  sha256 = hashes.file_sha256(path)
  tensors = cache.load(sha256)
  if tensors is None and cache.store(sha256, opened.tensors, opened.source):
    tensors = cache.load(sha256)
  if tensors is None:
    return opened
  return checkpoint.Checkpoint(
    tensors, opened.source, opened.format, opened.tokenizer
  )


def _open_remote(path: str) -> checkpoint.Checkpoint:
  if not path.startswith("gs://"):
    raise errors.CheckpointError(
      "This kind of address cannot be opened.",
      received=path,
      instead="a local path, a gs:// path or a name of the catalogue",
    )
  try:
    return orbax.open_orbax(path)
  except ImportError as error:
    raise errors.CheckpointError(
      "gs:// paths need one more package.",
      received=f"{path}: {error}",
      instead='pip install "gemma-scope[gcs]"',
    ) from error


def _open_file(path: pathlib.Path) -> checkpoint.Checkpoint:
  with open(path, "rb") as file:
    start = file.read(32)
  if start.startswith(gguf.MAGIC):
    return open_gguf(path)
  for magic, what, instead in _IMPOSTORS:
    if start.startswith(magic):
      raise _no_checkpoint(f"{path}: {what}", instead)
  # A safetensors file: eight bytes of length, then JSON.
  if start[8:9] == b"{":
    return safetensors_hf.open_hugging_face(path)
  if len(start) < 32:
    raise _no_checkpoint(f"{path}: {path.stat().st_size} bytes", _KNOWN)
  raise _no_checkpoint(f"{path}: starts with {start[:8]!r}", _KNOWN)


def _open_folder(path: pathlib.Path) -> checkpoint.Checkpoint:
  if safetensors_hf.weight_files(path):
    return safetensors_hf.open_hugging_face(path)
  if orbax.is_orbax(path):
    return orbax.open_orbax(path)
  names = sorted(p.name for p in path.iterdir())
  packed = [name for name in names if name.endswith(".gguf")]
  if len(packed) == 1:
    return open_gguf(path / packed[0])
  if packed:
    choice = f"one of {checkpoint.shortened(packed)}"
    raise _no_checkpoint(f"{path}: {len(packed)} GGUF files", choice)
  raise _no_checkpoint(f"{path}: {_described(names)}", _KNOWN)


def _described(names: list[str]) -> str:
  """What a folder that is no checkpoint holds, in words."""
  if "adapter_config.json" in names:
    return "a LoRA adapter without its model"
  if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
    return "PyTorch pickles, which are not read; use safetensors"
  if "preprocessor_config.json" in names or "processor_config.json" in names:
    return "an image processor without weights"
  return f"holds {checkpoint.shortened(names)}"


def _no_checkpoint(received: str, instead: str) -> errors.CheckpointError:
  return errors.CheckpointError(
    "There is no Gemma 3 checkpoint here.",
    received=received,
    instead=instead,
  )
