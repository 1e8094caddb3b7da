"""Numbers by how many features were used: blanks, JSON, means."""

import json

from gemma_scope.bootstrap import Interval
from gemma_scope.evals.dictionaries import by_size

NAN = float("nan")
FOUND = {
  "few": {2: Interval(0.5, 0.25, 0.75, 9), 1: Interval(0.25, 0.0, 0.5, 9)},
  "whole": {16: Interval(NAN, NAN, NAN, 0)},
}


def test_a_number_stands_under_its_own_k():
  head, rows = by_size.table(FOUND)
  assert head == ["representation", "k = 1", "k = 2", "k = 16"]
  assert rows[0] == ["few", str(FOUND["few"][1]), str(FOUND["few"][2]), ""]
  assert rows[1][:3] == ["whole", "", ""]


def test_json_has_no_number_that_is_none():
  found = json.loads(json.dumps(by_size.to_dict(FOUND), allow_nan=False))
  assert found["few"]["2"] == {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 9}
  assert found["whole"]["16"]["mean"] is None


def test_means_have_the_headings_of_the_table():
  assert by_size.means(FOUND)["few"] == {"k = 1": 0.25, "k = 2": 0.5}
