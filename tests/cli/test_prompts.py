import io
import os
import types

import pytest

from gemma_scope import errors
from gemma_scope.cli import prompts


def test_words_are_the_prompt():
  assert prompts.read_prompt([" a  b "], None) == " a  b "


@pytest.mark.parametrize(
  ("raw", "text"),
  [
    (b"two words", "two words"),
    (b"line\n", "line"),
    (b"line\r\n", "line"),
    (b"kept\n\n", "kept\n"),
    (b"\xef\xbb\xbfmarked", "marked"),
    ("Zürich 東京 🦊".encode(), "Zürich 東京 🦊"),
  ],
)
def test_file_and_stdin_read_alike(raw, text, tmp_path, monkeypatch):
  path = tmp_path / "prompt.txt"
  path.write_bytes(raw)
  assert prompts.read_prompt([], str(path)) == text
  stdin = types.SimpleNamespace(buffer=io.BytesIO(raw))
  monkeypatch.setattr("sys.stdin", stdin)
  assert prompts.read_prompt(["-"], None) == text


@pytest.mark.parametrize(
  ("words", "file", "message"),
  [
    ([], None, "no prompt"),
    (["a", "b"], None, 'quotes around it: "a b"'),
    (["a"], "b", "two prompts"),
  ],
)
def test_one_prompt_is_needed(words, file, message):
  with pytest.raises(errors.ConfigError, match=message):
    prompts.read_prompt(words, file)


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (b"", "prompt is empty"),
    (b"\n", "prompt is empty"),
    (b"caf\xe9", "byte 0xe9 at 3"),
    (b"a\0b", r"U\+0000 at character 1"),
    (b"\x89PNG\r\n\x1a\n", "only Gemma 3's text part"),
    (b"RIFF\0\0\0\0WEBPVP8 ", "only Gemma 3's text part"),
  ],
)
def test_file_must_hold_text(raw, message, tmp_path):
  path = tmp_path / "prompt.txt"
  path.write_bytes(raw)
  with pytest.raises(errors.TextError, match=message):
    prompts.read_prompt([], str(path))


@pytest.mark.parametrize("name", ["missing.txt", ".", "nul\0name"])
def test_file_must_be_readable(name, tmp_path):
  with pytest.raises(errors.TextError, match="cannot be read"):
    prompts.read_prompt([], os.path.join(tmp_path, name))


def test_lone_surrogate_is_refused():
  with pytest.raises(errors.TextError, match=r"U\+DCE9 at character 3"):
    prompts.read_prompt(["caf\udce9"], None)


def test_image_path_is_refused_and_its_name_as_text_is_not(tmp_path):
  image = tmp_path / "cat.png"
  assert prompts.read_prompt([str(image)], None) == str(image)
  image.write_bytes(b"anything")
  with pytest.raises(errors.TextError, match="image"):
    prompts.read_prompt([str(image)], None)
