"""What `gs.activations` offers, each imported when it is asked for."""

import pytest

import gemma_scope as gs


def test_every_name_is_there():
  for name in dir(gs.activations):
    assert getattr(gs.activations, name) is not None
  assert gs.activations.corpus.Corpus.of(["a"])[0] == "a"
  with pytest.raises(AttributeError, match="no attribute 'Harvester'"):
    _ = gs.activations.Harvester
