"""Commits come back as they were, states of pipelines among them."""

import json

import numpy as np
import pytest

from gemma_scope.activations.store import StoreError, commits
from gemma_scope.activations.store.layout import commit_path, shard_path

STATE = {
  "chunk": 3,
  "bytes": b"\0\xff",
  "list": [1.5, None, "x", {"deep": True}],
  "array": np.arange(6, dtype=np.int16).reshape(2, 3),
}


def test_a_commit_comes_back(tmp_path):
  commit = commits.Commit(
    rows=7,
    batches=2,
    finished=True,
    checksums={"a": 2**32 - 1},
    norms={"a": (1 / 3, 1e300)},
    state=STATE,
  )
  commits.write_commit(tmp_path, 1, commit)
  found = commits.read_commit(tmp_path, 1)
  assert found.norms == commit.norms  # to the last bit
  array = found.state["array"]
  np.testing.assert_array_equal(array, STATE["array"])
  assert array.dtype == np.int16
  rest = {k: v for k, v in STATE.items() if k != "array"}
  assert {k: v for k, v in found.state.items() if k != "array"} == rest
  assert (found.rows, found.batches, found.finished) == (7, 2, True)
  assert found.checksums == commit.checksums


def test_a_host_that_has_not_begun(tmp_path):
  assert commits.read_commit(tmp_path, 0) == commits.Commit()


def test_a_state_that_is_no_tree_of_values():
  with pytest.raises(StoreError, match="state cannot be kept"):
    commits.to_json({"a": object()})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rows": 1, "norms": 3}'])
def test_a_damaged_commit(tmp_path, text):
  path = commit_path(tmp_path, 0)
  path.parent.mkdir()
  path.write_text(text)
  with pytest.raises(StoreError, match=r"damaged(.|\n)*host_0000.json"):
    commits.read_commit(tmp_path, 0)


def test_checksums_of_a_full_shard(tmp_path):
  commits.write_shard(tmp_path, 4, 10, {"a": 5})
  assert commits.read_shard(tmp_path, 4) == {"a": 5}
  shard_path(tmp_path, 4).write_text(json.dumps({"checksums": {"a": "x"}}))
  with pytest.raises(StoreError, match="damaged"):
    commits.read_shard(tmp_path, 4)
  with pytest.raises(StoreError, match="damaged"):
    commits.read_shard(tmp_path, 5)
