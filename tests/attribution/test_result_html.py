"""What an attribution shows of its sums."""

import numpy as np
import pytest

from gemma_scope.attribution.result_html import conservation_html, sparkline


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
    ([3, -1], "█▁"),
    ([1.0, 1.0000001, 0.9999999], "▅▅▅"),
    ([0, np.nan, 1], "▁ █"),
    ([np.nan, np.nan], "  "),
    ([], ""),
  ],
)
def test_a_sparkline_has_a_bar_for_each_number(values, expected):
  assert sparkline(values) == expected


def test_the_table_says_what_is_missing():
  page = conservation_html(
    ["embed", "<z>"],
    np.asarray([2.0, 1.0]),
    4.0,
    np.asarray([0.25, np.nan]),
    title="Sums",
  )
  for text in ("Sums", "embed", "&lt;z&gt;", "50 %", "25 %", "0.25"):
    assert text in page
  assert page.count("not promised") == 1
  assert " %" not in conservation_html(["a"], np.ones(1), 0.0, np.ones(1))
