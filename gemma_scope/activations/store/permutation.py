"""A random order of N rows that is never written down.

A Feistel network permutes the numbers below 2^(2h) >= N, keyed by seed and
epoch; a number that leads out of the N is sent through again until it is inside
(cycle walking), which keeps it a permutation: at most 4 passes on average. So
the order of a billion rows takes no memory, and any place in it can be jumped
to (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). It
is no cipher: nothing here is secret.
"""

import numpy as np

_ROUNDS = 6
_MASK = (1 << 64) - 1


def shuffled(
  positions: np.ndarray, size: int, seed: int, epoch: int
) -> np.ndarray:
  """Which rows stand at some places of a random order.

  Args:
    positions: [n] int64 places from 0 to `size`.
    size: How many rows there are.
    seed: Chooses the order.
    epoch: Chooses another.

  Returns:
    [n] int64 rows; all places together give every row once.
  """
  half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
  keys = _keys(seed, epoch)
  found = _permute(positions.astype(np.uint64), half, keys)
  while (outside := found >= size).any():
    found[outside] = _permute(found[outside], half, keys)
  return found.astype(np.int64)


def _permute(
  numbers: np.ndarray, half: int, keys: list[np.uint64]
) -> np.ndarray:
  """A permutation of the numbers of 2 * half bits."""
  shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
  left, right = numbers >> shift, numbers & mask
  for key in keys:
    left, right = right, left ^ (_mix(right ^ key) & mask)
  return (left << shift) | right


def _mix(x: np.ndarray) -> np.ndarray:
  """The finaliser of SplitMix64: every bit depends on every bit."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def _keys(seed: int, epoch: int) -> list[np.uint64]:
  numbers = np.random.SeedSequence([seed & _MASK, epoch]).generate_state(
    _ROUNDS, np.uint64
  )
  return list(numbers)
