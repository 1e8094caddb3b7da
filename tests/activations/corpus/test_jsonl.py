"""JSON lines: the text under a key, errors that name the line."""

import json

import pytest

from gemma_scope.activations.corpus.jsonl import open_jsonl
from gemma_scope.errors import TextError

TEXTS = ["One.\nMore.", "", "Élan: 日本", 'a "quote"']


def write(tmp_path, lines):
  path = tmp_path / "corpus.jsonl"
  path.write_text("\n".join(lines), encoding="utf-8")
  return path


def test_texts_come_from_their_key(tmp_path):
  lines = [json.dumps({"id": i, "text": t}) for i, t in enumerate(TEXTS)]
  found = open_jsonl(write(tmp_path, [*lines, "", "  ", ""]))
  assert list(found[i] for i in range(len(found))) == TEXTS
  nested = [json.dumps({"a": {"b": t}}, ensure_ascii=False) for t in TEXTS]
  found = open_jsonl(write(tmp_path, nested), key="a.b")
  assert list(found[i] for i in range(len(found))) == TEXTS
  assert found.origin["key"] == "a.b"
  assert found.origin["documents"] == 4


def test_halves_of_characters_are_replaced(tmp_path):
  found = open_jsonl(write(tmp_path, [r'{"text": "a\ud83d b \ud83d\ude00"}']))
  assert found[0] == "a? b 😀"


@pytest.mark.parametrize(
  ("line", "match"),
  [
    ("{broken", r"no JSON[\s\S]*line at byte 16"),
    ('{"body": "x"}', r"no text under 'text'[\s\S]*\['body'\]"),
    ('{"text": 3}', "no text under 'text'"),
    ("[1, 2]", r"no text[\s\S]*list"),
  ],
)
def test_lines_without_a_text_are_named(tmp_path, line, match):
  found = open_jsonl(write(tmp_path, ['{"text": "One"}', line]))
  assert found[0] == "One"
  with pytest.raises(TextError, match=match):
    found[1]
