"""Made-up tables and suites are what the real ones are."""

import numpy as np

from gemma_scope.dictionaries import open_suite
from gemma_scope.testing.latents import random_suite, random_table


def test_random_table_has_what_tables_have():
  table = random_table(9, seed=1)
  assert table.num_latents == 9
  assert table.dead.tolist() == [i == 1 for i in range(9)]
  assert [len(table.top(i)) for i in range(4)] == [3, 0, 1, 3]
  peaks = table.activations.max(2)
  assert (np.diff(peaks, axis=1) <= 0).all()


def test_random_suite_opens(tmp_path):
  suite = open_suite(random_suite(tmp_path / "suite.zip"))
  assert len(suite) == 5
  assert suite["transcoder/layer_2"].skip is not None
