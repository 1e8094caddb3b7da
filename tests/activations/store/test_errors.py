"""A system that refuses to write is told in three parts."""

import errno

import pytest

from gemma_scope.activations.store import StoreError
from gemma_scope.activations.store.errors import damaged, told_what_is_safe


@pytest.mark.parametrize(
  ("code", "message"),
  [
    (errno.ENOSPC, "disk is full"),
    (errno.EDQUOT, "disk is full"),
    (errno.EIO, "could not be written"),
  ],
)
def test_refusals(tmp_path, code, message):
  refused = pytest.raises(StoreError, match=message)
  with refused as caught, told_what_is_safe(tmp_path, 1234):
    raise OSError(code, "refused")
  assert "1,234 rows are committed" in caught.value.received
  assert "start the same capture again" in caught.value.instead


def test_bugs_stay_bugs(tmp_path):
  with pytest.raises(ZeroDivisionError), told_what_is_safe(tmp_path, 0):
    raise ZeroDivisionError


def test_damage_names_the_file(tmp_path):
  assert "a file: gone" in str(damaged(tmp_path / "a file", "gone"))
