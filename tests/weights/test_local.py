"""Paths are recognised by content; everything else is told what it is."""

import shutil

import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.testing import checkpoints, gguf_file
from gemma_scope.weights import cache, gguf_checkpoint, local


@pytest.fixture
def arrays():
  return checkpoints.random_arrays(checkpoints.tiny_sizes())


@pytest.fixture
def gguf_path(arrays, tmp_path):
  return gguf_file.write_gguf(tmp_path / "m.gguf", arrays, encoding="Q8_0")


def _same(opened, expected):
  for name, tensor in expected.tensors.items():
    np.testing.assert_array_equal(
      opened.tensors[name].read(), tensor.read(), err_msg=name
    )


def test_every_format_by_its_content(arrays, tmp_path, gguf_path):
  folder = checkpoints.write_safetensors(tmp_path / "hf", arrays)
  flax = checkpoints.write_orbax_container(tmp_path / "flax", arrays)
  packed = tmp_path / "packed"
  packed.mkdir()
  shutil.copy(gguf_path, packed / "any.gguf")
  (packed / "README.md").write_text("x")
  misnamed = shutil.copy(gguf_path, tmp_path / "weights.safetensors")
  other = shutil.copy(folder / "model.safetensors", tmp_path / "w.gguf")
  for path, kind in [
    (gguf_path, "gguf"),
    (packed, "gguf"),
    (misnamed, "gguf"),
    (folder, "safetensors"),
    (folder / "model.safetensors", "safetensors"),
    (other, "safetensors"),
    (flax, "orbax"),
  ]:
    assert local.open_path(path).format == kind
    assert local.open_path(str(path)).format == kind


def test_quantised_weights_are_converted_once(gguf_path, monkeypatch):
  plain = gguf_checkpoint.open_gguf(gguf_path)
  first = local.open_path(gguf_path)
  _same(first, plain)
  assert isinstance(first.tensors["layer_0/mlp/linear"].read(), np.memmap)
  assert (first.source, first.format) == (plain.source, "gguf")
  assert first.tokenizer == plain.tokenizer

  def fail(*args):
    raise AssertionError("converted twice")

  monkeypatch.setattr(cache, "store", fail)
  _same(local.open_path(gguf_path), plain)


def test_a_damaged_conversion_is_made_anew(gguf_path, cache_folder, caplog):
  plain = gguf_checkpoint.open_gguf(gguf_path)
  local.open_path(gguf_path)
  (file,) = (cache_folder / "converted").iterdir()
  content = bytearray(file.read_bytes())
  content[-1000] ^= 4
  file.write_bytes(content)
  _same(local.open_path(gguf_path), plain)
  assert "damaged" in caplog.text
  caplog.clear()
  _same(local.open_path(gguf_path), plain)
  assert caplog.text == ""


def test_a_new_file_at_the_same_path_is_converted(arrays, gguf_path):
  before = local.open_path(gguf_path).tensors["layer_0/mlp/linear"].read()
  changed = {name: 2 * array for name, array in arrays.items()}
  gguf_file.write_gguf(gguf_path, changed, encoding="Q8_0")
  after = local.open_path(gguf_path).tensors["layer_0/mlp/linear"].read()
  assert np.abs(after).max() > 1.5 * np.abs(before).max()


def test_a_cache_that_cannot_be_written(gguf_path, cache_folder, caplog):
  cache_folder.write_text("in the way")
  _same(local.open_path(gguf_path), gguf_checkpoint.open_gguf(gguf_path))
  assert "not cached" in caplog.text


def test_unquantised_files_are_mapped_where_they_lie(
  arrays, tmp_path, cache_folder
):
  path = gguf_file.write_gguf(tmp_path / "f.gguf", arrays, encoding="BF16")
  opened = local.open_path(path)
  assert opened.tensors["layer_0/mlp/linear"].dtype.name == "bfloat16"
  assert not (cache_folder / "converted").exists()


@pytest.mark.parametrize(
  ("content", "match"),
  [
    (b"", "0 bytes"),
    (b"GG", "2 bytes"),
    (b"GGUF\x03", "cut off or corrupt"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
    (b"<html><body>Not found</body></html>", "a web page"),
    (b"PK\x03\x04 archive/data.pkl and more data", "PyTorch pickle"),
    (b"\x80\x02}q\x00 and a lot more of a pickle", "pickle"),
    (b"\x89PNG\r\n\x1a\n and an image of some size", "an image"),
    (b"\xff\xd8\xff\xe0 and a JPEG image, likewise", "an image"),
    (b"A text file that is not a checkpoint at all", "starts with b'A text"),
    (bytes(64), "starts with"),
  ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, match):
  path = tmp_path / "file.gguf"
  path.write_bytes(content)
  with pytest.raises(errors.CheckpointError, match=match):
    local.open_path(path)


@pytest.mark.parametrize(
  ("names", "match"),
  [
    ([], "holds none"),
    (["notes.txt", "a.py"], "holds a.py, notes.txt"),
    (["adapter_config.json", "adapter_model.safetensors"], "LoRA adapter"),
    (["config.json", "pytorch_model.bin"], "use safetensors"),
    (["preprocessor_config.json"], "image processor without weights"),
    (["a.gguf", "b.gguf"], "2 GGUF files"),
  ],
)
def test_folders_that_are_no_checkpoint(tmp_path, names, match):
  folder = tmp_path / "m"
  folder.mkdir()
  for name in names:
    (folder / name).write_text("{}")
  with pytest.raises(errors.CheckpointError, match=match):
    local.open_path(folder)


def test_no_such_path(tmp_path):
  with pytest.raises(errors.CheckpointError, match="No such file"):
    local.open_path(tmp_path / "absent")


def test_home_is_expanded(arrays, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  checkpoints.write_safetensors(tmp_path / "m", arrays)
  assert local.open_path("~/m").format == "safetensors"


def test_other_addresses():
  with pytest.raises(errors.CheckpointError, match="cannot be opened"):
    local.open_path("https://example.org/model.gguf")


def test_gs_without_its_package(monkeypatch):
  from gemma_scope.weights import orbax

  def fail(path):
    raise ImportError("no gcsfs")

  monkeypatch.setattr(orbax, "open_orbax", fail)
  with pytest.raises(errors.CheckpointError, match=r"gemma-scope\[gcs\]"):
    local.open_path("gs://bucket/checkpoint")
