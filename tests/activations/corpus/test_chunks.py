"""Chunks of documents: all of them, once an epoch, shared between hosts."""

import itertools

import numpy as np
import pytest

from gemma_scope.activations.corpus.chunks import document_chunks, run
from gemma_scope.errors import ConfigError


def listed(chunks, n=None):
  return [chunks[i] for i in range(len(chunks) if n is None else n)]


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("num_hosts", [1, 3])
def test_an_epoch_has_every_document_once(seed, num_hosts):
  epochs: list[list[int]] = []
  for epoch in range(3):
    found = []
    for host in range(num_hosts):
      chunks = document_chunks(
        50, 8, seed=seed, epochs=3, host=host, num_hosts=num_hosts
      )
      per_epoch = len(chunks) // 3
      one = range(epoch * per_epoch, (epoch + 1) * per_epoch)
      found += [number for i in one for number in chunks[i]]
    assert sorted(found) == list(range(50))
    epochs.append(found)
  assert (epochs[0] == epochs[1]) == (seed is None)
  assert (epochs[1] == epochs[2]) == (seed is None)


def test_hosts_share_the_chunks_of_one():
  alone = listed(document_chunks(50, 8, seed=3))
  shared = [
    listed(document_chunks(50, 8, seed=3, host=h, num_hosts=2)) for h in (0, 1)
  ]
  assert shared == [alone[0::2], alone[1::2]]
  assert [len(chunk) for chunk in alone] == [8] * 6 + [2]


def test_another_seed_gives_another_order():
  first, second = (listed(document_chunks(50, 50, seed=s)) for s in (0, 1))
  assert first != second
  assert listed(document_chunks(50, 50)) == [list(range(50))]


def test_results_come_in_order_from_any_chunk():
  chunks = document_chunks(50, 8, seed=3, epochs=None)
  expected = [np.asarray(chunk) for chunk in listed(chunks, 10)]
  for start in (0, 4, 7):
    results = run(chunks, np.asarray, start=start)
    found = list(itertools.islice(results, 10 - start))
    results.close()
    for have, want in zip(found, expected[start:], strict=True):
      np.testing.assert_array_equal(have, want)


def test_a_host_without_a_chunk_is_refused():
  for host, hosts in ((2, 2), (-1, 2), (7, 8)):
    with pytest.raises(ConfigError, match=rf"host {host} of {hosts}, 7 chunks"):
      document_chunks(50, 8, host=host, num_hosts=hosts)
