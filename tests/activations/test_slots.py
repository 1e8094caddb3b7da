"""Slots against sets of named rows: none lost, none given twice."""

import copy

import numpy as np
import pytest

from gemma_scope.activations.slots import Slots
from gemma_scope.errors import ConfigError


class Buffer:
  """Slots beside the array they speak of: [part, slot] -> a row's name."""

  def __init__(self, parts, slots):
    self.slots = Slots(parts, slots)
    self.rows = np.full((parts, slots), -1)
    self.inside: set[int] = set()
    self.next = 0

  def put(self, counted):
    new = self.next + np.arange(counted.size).reshape(counted.shape)
    names = np.where(counted, new, -1)
    self.next += counted.size
    self.inside |= set(names[counted].tolist())
    for part, (at, name) in enumerate(zip(self.slots.put(counted), names)):
      assert len(set(at.tolist())) == len(at)
      kept = at < self.rows.shape[1]
      assert (kept == counted[part]).all()
      assert (self.rows[part, at[kept]] == -1).all()
      self.rows[part, at[kept]] = name[kept]

  def take(self, rows):
    at = self.slots.take(rows)
    return self._out(np.repeat(np.arange(len(at)), rows), at.ravel())

  def take_anywhere(self, rows):
    places = self.slots.take_anywhere(rows)
    assert len(places) == rows
    size = self.rows.shape[1]
    return self._out(places // size, places % size)

  def _out(self, part, slot):
    found = self.rows[part, slot].tolist()
    self.rows[part, slot] = -1
    assert set(found) <= self.inside
    assert len(set(found)) == len(found)
    self.inside -= set(found)
    return found


def test_rows_are_never_lost_and_never_given_twice():
  rng = np.random.default_rng(0)
  buffer = Buffer(3, 40)
  for step in range(60):
    while buffer.slots.free >= 10:
      buffer.put(rng.random((3, 10)) < 0.7)
      buffer.slots.shuffle([0, step])
    if buffer.slots.live.min() >= 4:
      buffer.take(4)
    else:
      buffer.take_anywhere(12)
    assert len(buffer.inside) == buffer.slots.live.sum()
  while buffer.slots.live.sum() >= 5:
    buffer.take_anywhere(5)
  assert len(buffer.inside) == buffer.slots.live.sum() < 5


def test_parts_in_proportion_and_to_the_last_row():
  buffer = Buffer(3, 20)
  counted = np.zeros((3, 20), bool)
  counted[0], counted[2, :7] = True, True
  buffer.put(counted)
  buffer.take_anywhere(9)
  assert buffer.slots.live.tolist() == [13, 0, 5]
  buffer.take_anywhere(18)
  assert buffer.slots.live.tolist() == [0, 0, 0]
  assert buffer.slots.free == 20


def test_shuffling_follows_the_seed():
  def drawn(seed):
    buffer = Buffer(1, 64)
    buffer.put(np.ones((1, 64), bool))
    buffer.slots.shuffle(seed)
    return buffer.take(64)

  assert drawn([0, 1]) == drawn([0, 1])
  assert drawn([0, 1]) != drawn([1, 1]) != drawn([0, 2])
  assert np.abs(np.corrcoef(drawn([0, 1]), range(64))[0, 1]) < 0.4


def test_a_state_is_a_copy_and_is_taken_over():
  slots = Slots(2, 8)
  slots.put(np.ones((2, 5), bool))
  state = copy.deepcopy(slots.state())
  kept = slots.state()
  first = slots.take(3)
  np.testing.assert_array_equal(kept["live"], state["live"])
  slots.restore(kept)
  np.testing.assert_array_equal(slots.take(3), first)
  with pytest.raises(
    ConfigError, match=r"2 parts of \(8,\)[\s\S]*1 parts of 9"
  ):
    Slots(1, 9).restore(state)
