"""The manifest: what a reader needs to know to make an artefact again.

Every file the library writes (report, cache, graph, dictionary) carries one:
versions, device, weights, configuration, seed, a hash of the content, time.
It describes; it does not restore anything, and it names no user or machine.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import hashlib
from importlib import metadata
import json
import os
import platform
from typing import Any

import numpy as np

from gemma_scope import __version__
from gemma_scope.errors import ConfigError

_DISTRIBUTIONS = ("jax", "jaxlib", "penzai", "numpy")


@dataclasses.dataclass(frozen=True)
class Manifest:
  """Where an artefact came from, all of it plain JSON values.

  Attributes:
    versions: Distribution -> version; "python" among them.
    device: Kind and number of the default backend's devices: "cpu x 1".
    model: The model's name, or None where no model took part.
    source: Where its weights came from (package, repository, path), or None.
    sha256: Of the weights' file, where it is known.
    config: Every option that shaped the result.
    seed: The seed of the random key, or None where nothing was random.
    content_hash: sha256 of the artefact's content (see `hash_content`), or
      None where it was not given.
    created: UTC time, ISO 8601, to the second.
  """

  versions: Mapping[str, str]
  device: str
  model: str | None
  source: str | None
  sha256: str | None
  config: Mapping[str, Any]
  seed: int | None
  content_hash: str | None
  created: str

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields as JSON values, ready for `json.dumps`."""
    return dataclasses.asdict(self)

  def to_json(self) -> str:
    """Returns the manifest as indented JSON."""
    return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)


def make_manifest(
  config: Mapping[str, Any],
  *,
  model: str | None = None,
  source: str | None = None,
  sha256: str | None = None,
  seed: int | None = None,
  content: object = None,
) -> Manifest:
  """Describes the artefact about to be written, here and now.

  Starts JAX's backend if nothing has yet, to name the device.

  Args:
    config: Every option that shaped the result; nested mappings, sequences,
      dataclasses, paths and dtypes are turned into JSON values.
    model: The model's name.
    source: Where its weights came from.
    sha256: Of the weights' file.
    seed: The seed of the random key.
    content: What the artefact holds, for `content_hash`; None leaves it out.

  Raises:
    ConfigError: If `config` holds something that JSON cannot say.
  """
  now = datetime.datetime.now(datetime.UTC)
  return Manifest(
    versions=_versions(),
    device=_device(),
    model=model,
    source=source,
    sha256=sha256,
    config=_to_json_value(config, "config"),
    seed=seed,
    content_hash=None if content is None else hash_content(content),
    created=now.isoformat(timespec="seconds"),
  )


def hash_content(content: object) -> str:
  """Returns the sha256 of bytes, text, arrays, or mappings and lists of them.

  The order of a mapping's keys does not count; dtypes and shapes do.

  Args:
    content: Bytes, str, arrays (numpy, JAX), numbers, None, and mappings,
      sequences and dataclasses of these.

  Raises:
    ConfigError: If something in it has no stable bytes.
  """
  digest = hashlib.sha256()
  _feed(digest, content)
  return digest.hexdigest()


def _feed(digest: Any, value: object) -> None:
  """Adds one value, its kind and its extent before it, to a running hash."""
  if isinstance(value, bytes | str):
    raw = (
      value
      if isinstance(value, bytes)
      else value.encode("utf-8", "surrogatepass")
    )
    digest.update(f"{type(value).__name__}:{len(raw)}:".encode())
    digest.update(raw)
  elif hasattr(value, "__array__") and not isinstance(value, type):
    _feed_array(digest, np.asarray(value))
  elif isinstance(value, Mapping):
    digest.update(f"mapping:{len(value)}:".encode())
    for key in sorted(value, key=str):
      _feed(digest, str(key))
      _feed(digest, value[key])
  elif isinstance(value, Sequence):
    digest.update(f"sequence:{len(value)}:".encode())
    for item in value:
      _feed(digest, item)
  elif _is_dataclass_value(value):
    _feed(digest, _fields(value))
  else:
    digest.update(
      f"json:{json.dumps(_to_json_value(value, 'content'))}".encode()
    )


def _feed_array(digest: Any, array: np.ndarray) -> None:
  """Adds dtype, shape and values in C order."""
  if array.dtype.hasobject:
    raise ConfigError(
      "An array of Python objects has no stable bytes to hash.",
      received=f"dtype {array.dtype}, shape {array.shape}",
      instead="an array of numbers, or a list of what it holds",
    )
  digest.update(f"array:{array.dtype}:{array.shape}:".encode())
  digest.update(array.tobytes())


def _to_json_value(value: object, where: str) -> Any:
  """Turns a configuration value into what JSON can say, or refuses it."""
  if isinstance(value, Mapping):
    return {str(k): _to_json_value(v, f"{where}.{k}") for k, v in value.items()}
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, Sequence) and not isinstance(value, bytes):
    return [_to_json_value(v, f"{where}[{i}]") for i, v in enumerate(value)]
  if _is_dataclass_value(value):
    return _to_json_value(_fields(value), where)
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, type | np.dtype) and _is_dtype(value):
    return np.dtype(value).name
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  raise ConfigError(
    f"The manifest cannot describe {where}: it is no JSON value.",
    received=type(value).__name__,
    instead="numbers, text, dtypes, paths, and mappings or lists of them",
  )


def _is_dtype(value: object) -> bool:
  """Whether numpy reads `value` as one dtype (jnp.bfloat16 is a class)."""
  return hasattr(value, "dtype") or isinstance(value, np.dtype)


def _is_dataclass_value(value: object) -> bool:
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(value: Any) -> dict[str, object]:
  """Field name -> value, without `asdict`'s copy of everything below."""
  return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


def _versions() -> dict[str, str]:
  """Versions of what computes."""
  found = {"gemma-scope": __version__, "python": platform.python_version()}
  return found | {name: metadata.version(name) for name in _DISTRIBUTIONS}


def _device() -> str:
  """The default backend's devices, such as `cpu x 8`."""
  import jax  # here, so that reading a manifest does not start JAX

  devices = jax.devices()
  platform_name, kind = devices[0].platform, devices[0].device_kind
  name = kind if kind == platform_name else f"{platform_name} ({kind})"
  return f"{name} x {len(devices)}"
