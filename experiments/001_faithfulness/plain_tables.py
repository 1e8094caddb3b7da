"""Markdown tables, and JSON files as Python values."""

from collections.abc import Iterable
import json
import pathlib
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
  """A Markdown table."""
  head = list(head)
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines)


def load(files: Iterable[pathlib.Path]) -> list[Any]:
  """What some JSON files hold, by name."""
  return [json.loads(f.read_text(encoding="utf-8")) for f in sorted(files)]
