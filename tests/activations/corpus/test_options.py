"""Options of packing: values that make no sense are refused."""

import pytest

from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.errors import ConfigError


@pytest.mark.parametrize(
  "bad",
  [
    {"batch_size": 0},
    {"min_piece": 0},
    {"chunk_documents": 0},
    {"epochs": 0},
    {"seed": -1},
    {"seed": 2**32},
  ],
)
def test_values_out_of_range_are_refused(bad):
  ((name, value),) = bad.items()
  with pytest.raises(
    ConfigError, match=f"no such value[\\s\\S]*{name}={value}"
  ):
    PackingOptions(**bad)


def test_a_row_has_room_for_more_than_the_prefix():
  with pytest.raises(ConfigError, match="no room for text"):
    PackingOptions(seq_len=1)
  with pytest.raises(ConfigError, match=r"seq_len=4, prefix=\(2, 105"):
    PackingOptions(seq_len=4, prefix=(2, 105, 2364, 107))
  assert PackingOptions(epochs=None).epochs is None
