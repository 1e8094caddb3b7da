"""Headers: every kind of value, and every way to be broken."""

import contextlib
import os
import struct
import time

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints, gguf_file
from gemma_scope.weights import gguf

_METADATA = {
  "a.bool": True,
  "a.float": 0.5,
  "a.text": "grüße ▁",
  "tokenizer.ggml.tokens": ["<pad>", "▁the", "é", ""],
  "tokenizer.ggml.scores": np.array([0, -1.5, 2], np.float32),
  "tokenizer.ggml.token_type": np.array([3, 1, 6], np.int32),
}


@pytest.fixture
def path(tmp_path):
  arrays = checkpoints.random_arrays(checkpoints.tiny_sizes())
  return gguf_file.write_gguf(tmp_path / "m.gguf", arrays, metadata=_METADATA)


def test_metadata(path):
  found = gguf.read_header(path).metadata
  assert found["general.architecture"] == "gemma3"
  assert found["gemma3.block_count"] == 2
  assert found["a.bool"] is True
  assert found["a.float"] == 0.5
  assert found["a.text"] == "grüße ▁"
  assert found["tokenizer.ggml.tokens"] == ["<pad>", "▁the", "é", ""]
  scores = found["tokenizer.ggml.scores"]
  assert scores.dtype == np.float32
  np.testing.assert_array_equal(scores, [0, -1.5, 2])
  np.testing.assert_array_equal(found["tokenizer.ggml.token_type"], [3, 1, 6])


def test_tensor_table(path):
  header = gguf.read_header(path)
  assert header.version == 3
  assert header.file_bytes == path.stat().st_size
  assert len(header.tensors) == 2 + 2 * 13
  row = header.tensors["blk.1.ffn_down.weight"]
  assert row.shape == (64, 96)
  assert row.type_id == 0
  assert row.offset % 32 == 0


def test_nothing_stays_open(path):
  header = gguf.read_header(path)
  path.unlink()
  assert header.metadata["tokenizer.ggml.scores"][1] == -1.5


def test_nested_arrays_and_wide_integers(tmp_path):
  def key(name):
    return struct.pack("<Q", len(name)) + name

  nested = struct.pack("<IIQ", 9, 9, 2)
  nested += struct.pack("<IQBB", 0, 2, 1, 2) + struct.pack("<IQB", 0, 1, 3)
  values = key(b"n") + nested
  values += key(b"u") + struct.pack("<IQ", 10, 2**40)
  values += key(b"d") + struct.pack("<Id", 12, 0.1)
  path = tmp_path / "x.gguf"
  path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 2, 0, 3) + values)
  found = gguf.read_header(path).metadata
  assert [part.tolist() for part in found["n"]] == [[1, 2], [3]]
  assert found["u"] == 2**40
  assert found["d"] == 0.1


def test_is_gguf(path, tmp_path):
  assert gguf.is_gguf(path)
  other = tmp_path / "x.gguf"
  other.write_bytes(b"GG")
  assert not gguf.is_gguf(other)


def test_cut_off_anywhere_in_the_header(path, tmp_path):
  whole = path.read_bytes()
  header_bytes = min(
    row.offset for row in gguf.read_header(path).tensors.values()
  )
  cut = tmp_path / "cut.gguf"
  for length in range(0, header_bytes - 64, 97):
    cut.write_bytes(whole[:length])
    with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
      gguf.read_header(cut)


def test_cut_off_in_the_last_string(tmp_path):
  value = struct.pack("<Q", 1) + b"k" + struct.pack("<IQ", 8, 5) + b"text!"
  path = tmp_path / "x.gguf"
  path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + value)
  assert gguf.read_header(path).metadata == {"k": "text!"}
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
    gguf.read_header(path)


def test_a_header_is_parsed_once_while_the_file_stays(tmp_path):
  value = struct.pack("<Q", 1) + b"k" + struct.pack("<IQ", 8, 5) + b"text!"
  path = tmp_path / "x.gguf"
  path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + value)
  later = time.time_ns() + 10**12
  os.utime(path, ns=(later, later))
  young = gguf.read_header(path)
  assert gguf.read_header(path) is not young
  os.utime(path, ns=(0, 10**9))
  old = gguf.read_header(path)
  assert gguf.read_header(path) is old
  path.write_bytes(path.read_bytes().replace(b"text!", b"other"))
  os.utime(path, ns=(0, 2 * 10**9))
  assert gguf.read_header(path).metadata == {"k": "other"}


def _broken(path, at, raw):
  content = bytearray(path.read_bytes())
  content[at : at + len(raw)] = raw
  path.write_bytes(content)
  return path


def test_not_gguf(path):
  with pytest.raises(errors.CheckpointError, match="not GGUF"):
    gguf.read_header(_broken(path, 0, b"GGML"))


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_other_versions(path, version):
  broken = _broken(path, 4, struct.pack("<I", version))
  with pytest.raises(errors.CheckpointError, match=f"version {version}"):
    gguf.read_header(broken)


@pytest.mark.parametrize(
  ("at", "raw"),
  [
    (8, struct.pack("<Q", 2**60)),  # tensor count
    (16, struct.pack("<Q", 2**40)),  # key count
    (24, struct.pack("<Q", 2**63)),  # length of the first key
    (32, b"\xff\xfe"),  # not UTF-8
  ],
)
def test_corrupt_headers(path, at, raw):
  with pytest.raises(errors.CheckpointError, match="cut off or corrupt"):
    gguf.read_header(_broken(path, at, raw))


def test_flipped_bits_never_crash(path):
  rng = np.random.default_rng(0)
  whole = path.read_bytes()
  for _ in range(300):
    at = int(rng.integers(0, 1500))
    content = bytearray(whole)
    content[at] ^= 1 << int(rng.integers(0, 8))
    path.write_bytes(content)
    with contextlib.suppress(errors.CheckpointError):
      gguf.read_header(path)
