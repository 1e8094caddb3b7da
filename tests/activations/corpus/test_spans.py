"""Indices of text files against plain string splitting."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest

from gemma_scope.activations.corpus import spans
from gemma_scope.activations.corpus.spans import open_text
from gemma_scope.errors import TextError

TEXTS = {
  "plain": "One.\nStill one.\n\nTwo.\n\n\n \t\nThree,\nélan.\n",
  "no newline at the end": "One.\n\nTwo",
  "blank ends": "\n\n  \nOne\nmore\n\n   \n\n",
  "one line": "only",
  "windows": "One.\r\nStill.\r\n\r\nTwo.\r\n",
  "nothing": "",
  "only blank": "\n \n\n",
  "long line": "x" * 50 + "\n\n" + "y" * 3 + "\n" + "z" * 40,
}


def write(tmp_path, text):
  path = tmp_path / "text.txt"
  path.write_bytes(text.encode())
  return path


@pytest.fixture(params=[1, 2, 3, 7, 1 << 22])
def block(request, monkeypatch):
  monkeypatch.setattr(spans, "BLOCK", request.param)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_lines_and_blocks_at_any_size_of_read(tmp_path, text, block):
  path = write(tmp_path, text)
  plain = text.replace("\r\n", "\n")
  lines = [line for line in plain.split("\n") if line.strip()]
  found = open_text(path, "line")
  assert [t.rstrip("\r") for t in found] == lines
  blocks = re.split(r"\n(?:[^\S\n]*\n)+", "\n" + plain + "\n")
  blocks = [b.strip("\n") for b in blocks if b.strip()]
  assert [t.rstrip("\r\n") for t in open_text(path, "block")] == blocks


def test_a_file_is_one_document(tmp_path):
  path = write(tmp_path, TEXTS["plain"])
  assert list(open_text(path)) == [TEXTS["plain"]]
  assert list(open_text(write(tmp_path, ""))) == []


@pytest.mark.parametrize("longest", [13, 14])
@pytest.mark.parametrize("text", ["ab\ncd\nef\n" * 9, "é" * 40, "日本" * 11])
def test_a_long_file_is_cut_between_lines_or_characters(
  tmp_path, monkeypatch, text, longest
):
  monkeypatch.setattr(spans, "LONGEST", longest)
  found = list(open_text(write(tmp_path, text)))
  assert "".join(found) == text
  assert max(len(t.encode()) for t in found) <= longest
  if "\n" in text:
    assert all(t.endswith("\n") for t in found)


def test_sources_say_what_they_are_and_travel(tmp_path):
  found = open_text(write(tmp_path, TEXTS["plain"]), "block")
  again = pickle.loads(pickle.dumps(found))
  assert [again[i] for i in range(3)] == list(found)
  assert found.origin == {
    "kind": "text by block",
    "name": "text.txt",
    "bytes": len(TEXTS["plain"].encode()),
    "documents": 3,
  }
  assert found.spans.dtype == np.int64


def test_a_byte_order_mark_is_no_text(tmp_path):
  assert open_text(write(tmp_path, "\ufeffOne."))[0] == "One."


def test_unusable_files_are_refused(tmp_path):
  path = tmp_path / "latin.txt"
  path.write_bytes("One.\n\nÄpfel".encode("latin1"))
  documents = open_text(path, "block")
  assert documents[0] == "One."
  with pytest.raises(TextError, match=r"not UTF-8[\s\S]*byte 6"):
    documents[1]
  path.write_bytes(b"One.\n")
  with pytest.raises(TextError, match="has changed since"):
    documents[1]
  with pytest.raises(TextError, match=r"unit='page'[\s\S]*unit=\"block\""):
    open_text(path, "page")


@pytest.mark.parametrize("unit", ["file", "block", "line"])
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, unit):
  monkeypatch.setattr(spans, "BLOCK", 1 << 16)
  path = tmp_path / "long.txt"
  path.write_bytes((b"A line of text, and more of it. " * 40 + b"\n\n") * 8000)
  tracemalloc.start()
  found = open_text(path, unit)
  assert sum(len(found[i]) for i in range(0, len(found), 50)) > 1e5
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert found.size > 10e6
  assert peak < 4e6
