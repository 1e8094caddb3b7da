import dataclasses
import datetime
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors, manifest


@dataclasses.dataclass(frozen=True)
class _Options:
  steps: int
  at: tuple[str, ...]


def test_manifest_says_what_made_it():
  made = manifest.make_manifest(
    {"prompt": "hi"}, model="tiny", source="here", sha256="ab", seed=3
  )
  assert made.versions["jax"] == jax.__version__
  assert made.versions["numpy"] == np.__version__
  assert set(made.versions) >= {"gemma-scope", "python", "jaxlib", "penzai"}
  assert made.device == f"cpu x {jax.device_count()}"
  assert (made.model, made.source, made.sha256) == ("tiny", "here", "ab")
  assert made.seed == 3
  assert made.content_hash is None


def test_created_is_utc_and_now():
  made = manifest.make_manifest({})
  created = datetime.datetime.fromisoformat(made.created)
  assert created.utcoffset() == datetime.timedelta(0)
  age = datetime.datetime.now(datetime.UTC) - created
  assert abs(age) < datetime.timedelta(minutes=5)


def test_to_json_reads_back():
  made = manifest.make_manifest({"a": [1, 2.5, None, True]}, content="text")
  assert json.loads(made.to_json()) == made.to_dict()
  assert made.to_dict()["config"] == {"a": [1, 2.5, None, True]}


def test_config_values_become_json_values():
  config = {
    "options": _Options(20, ("embed", "z")),
    "dtypes": (jnp.bfloat16, np.dtype("int8"), np.float32),
    "path": pathlib.PurePosixPath("a/b"),
    "number": np.float32(0.5),
    7: "key",
  }
  assert manifest.make_manifest(config).config == {
    "options": {"steps": 20, "at": ["embed", "z"]},
    "dtypes": ["bfloat16", "int8", "float32"],
    "path": "a/b",
    "number": 0.5,
    "7": "key",
  }


@pytest.mark.parametrize("value", [object(), np.zeros(2), len, b"x", int])
def test_config_refuses_what_json_cannot_say(value):
  with pytest.raises(errors.ConfigError, match=r"config\.deep\[0\]"):
    manifest.make_manifest({"deep": [value]})


def test_manifest_is_a_value():
  made = manifest.make_manifest({})
  with pytest.raises(dataclasses.FrozenInstanceError):
    made.seed = 1


def test_hash_ignores_key_order_and_array_library():
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  one = {"a": array, "b": [1, "x"]}
  two = {"b": (1, "x"), "a": jnp.asarray(array)}
  assert manifest.hash_content(one) == manifest.hash_content(two)
  assert manifest.hash_content(array.T) == manifest.hash_content(
    np.ascontiguousarray(array.T)
  )


# Each is a neighbour that a careless hash takes for the one beside it.
_DIFFERENT = [
  ["ab", "c"],
  ["a", "bc"],
  [["ab"], "c"],
  "abc",
  b"abc",
  {"a": "b"},
  ["a", "b"],
  1.0,
  "1.0",
  1,
  True,
  np.zeros((2, 3), np.float32),
  np.zeros((3, 2), np.float32),
  np.zeros((2, 3), np.int32),
  np.ones((2, 3), np.float32),
]


def test_hash_tells_different_content_apart():
  hashes = [manifest.hash_content(content) for content in _DIFFERENT]
  assert len(set(hashes)) == len(_DIFFERENT)


@pytest.mark.parametrize("value", [object(), np.array([None]), {"a": len}])
def test_hash_refuses_what_has_no_stable_bytes(value):
  with pytest.raises(errors.ConfigError):
    manifest.hash_content(value)
