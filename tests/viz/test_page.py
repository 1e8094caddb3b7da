"""The parts of a page that every report shares."""

from gemma_scope.viz import page


def test_manifest_rows():
  nested = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": [], "f": {}}
  assert page.flatten(nested) == [
    ("a.b", "1"),
    ("a.c", "1, 2"),
    ("d", "none"),
    ("e", "none"),
    ("f", "none"),
  ]
