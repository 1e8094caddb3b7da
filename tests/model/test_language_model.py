"""A loaded model: from disk in one call, shown to people, refused clearly."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.errors import CheckpointError, ConfigError, TextError
from gemma_scope.model import config as configs
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.model.language_model import (
  LanguageModel,
  checked_dtype,
  load_language_model,
)
from gemma_scope.testing import checkpoints
from gemma_scope.testing.tiny import tiny_config, tiny_gemma
from gemma_scope.testing.tokenizer import write_tiny_tokenizer_model


@pytest.fixture(scope="module")
def tensors():
  return random_tensors(tiny_config(), 0)


@pytest.fixture(scope="module")
def folder(tensors, tmp_path_factory):
  """A Hugging Face folder of the tiny model, tokenizer included."""
  folder = tmp_path_factory.mktemp("tiny")
  checkpoints.write_safetensors(folder, tensors)
  write_tiny_tokenizer_model(folder)
  return folder


@pytest.fixture
def known(monkeypatch):
  """The tiny size counts as a published one."""
  monkeypatch.setitem(configs.SIZES, "tiny", tiny_config())


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("dtype", ["float32", jnp.bfloat16])
def test_a_folder_loads_exactly(folder, tensors, dtype, caplog):
  told = []
  with caplog.at_level(logging.INFO, "gemma_scope"):
    lm = load_language_model(
      str(folder), dtype=dtype, progress=lambda *said: told.append(said)
    )
  assert lm.dtype == jnp.dtype(dtype)
  assert lm.config == tiny_config()
  assert lm.name == str(folder)
  assert str(folder) in lm.source
  assert lm.tokenizer.vocab_size == 512
  for name, value in gemma_to_tensors(lm.model).items():
    np.testing.assert_array_equal(value, tensors[name].astype(dtype))
  assert told[-1] == ("Loading weights", 1)
  assert str(folder) in caplog.text


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
  ("scan", "periods"), [(None, 0), (False, 0), (True, 1)]
)
def test_shallow_models_are_not_scanned_by_default(folder, scan, periods):
  lm = load_language_model(str(folder), scan=scan)
  assert lm.model.stack.num_periods == periods


@pytest.mark.usefixtures("known")
def test_deep_models_are_scanned_by_default(folder, monkeypatch, tmp_path):
  deep = tiny_config(num_layers=27)
  monkeypatch.setitem(configs.SIZES, "deep", deep)
  checkpoints.write_safetensors(tmp_path, random_tensors(deep, 0))
  write_tiny_tokenizer_model(tmp_path)
  assert gs.load(str(tmp_path)).model.stack.num_periods == 4


@pytest.mark.usefixtures("known")
def test_a_checkpoint_without_a_tokenizer_is_refused(tensors, tmp_path):
  checkpoints.write_safetensors(tmp_path, tensors)
  with pytest.raises(TextError, match=r"tokenizer.*\n.*\n.*tokenizer.json"):
    load_language_model(str(tmp_path))


def test_a_checkpoint_of_no_known_size_is_refused(folder):
  with pytest.raises(CheckpointError, match="shapes of no Gemma 3"):
    load_language_model(str(folder))


@pytest.mark.parametrize("dtype", ["float16", "int8", "floaty", None, 3.5])
def test_other_dtypes_are_refused_before_anything_is_read(dtype):
  with pytest.raises(ConfigError, match='dtype="float32" or dtype="bfloat16"'):
    load_language_model("no/such/path", dtype=dtype)


def test_dtypes_may_be_names_types_or_dtypes():
  for given in ("bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")):
    assert checked_dtype(given) == jnp.dtype("bfloat16")


def make(name, tokenizer=None):
  return LanguageModel(
    tiny_gemma(), tokenizer, tiny_config(), name, "somewhere"
  )


@pytest.mark.parametrize(
  ("name", "is_chat", "title"),
  [
    ("gemma-3-270m", False, "Gemma 3 270M"),
    ("gemma-3-270m-it", True, "Gemma 3 270M instruction-tuned"),
    ("gemma-3-27b-it", True, "Gemma 3 27B instruction-tuned"),
    ("some/path-it", False, "some/path-it"),
  ],
)
def test_chat_models_are_known_by_their_name(name, is_chat, title):
  lm = make(name)
  assert lm.is_chat == is_chat
  assert lm.title == title


def test_an_edited_model_keeps_everything_else():
  lm, edited = make("tiny"), tiny_gemma(seed=1)
  other = lm.replace(edited)
  assert other.model is edited
  assert lm.model is not edited
  assert (other.name, other.config) == (lm.name, lm.config)


def test_it_shows_itself():
  lm = make("a<b")
  assert repr(lm) == (
    f"LanguageModel('a<b', 8 layers, {lm.config.num_parameters:,} parameters, "
    "float32)"
  )
  html = lm._repr_html_()
  assert "a&lt;b" in html
  assert "a<b" not in html
  for shown in ("every 6th global", "4/2/16", "8 tokens", "somewhere"):
    assert shown in html
