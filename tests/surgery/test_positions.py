"""Which tokens are meant, with padding, packed rows, and a prompt that ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope import errors
from gemma_scope.model.placement import placement_of, places_of, tokens_of
from gemma_scope.surgery import positions as lib
from gemma_scope.surgery.positions import positions_of
from gemma_scope.testing.tiny import tiny_config

IDS = jnp.asarray([[2, 7, 9, 7, 7, 0], [2, 7, 7, 2, 9, 7]])
SEGMENTS = jnp.asarray([[1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2]])


def placed(prompts=None):
  places = places_of(SEGMENTS)
  return placement_of(places, tiny_config(), tokens_of(IDS, places, prompts))


def chosen(given, prompts=None):
  mask = np.asarray(positions_of(given).mask(placed(prompts)))
  real = mask & (np.asarray(SEGMENTS) != 0)
  return [row.nonzero()[0].tolist() for row in real]


@pytest.mark.parametrize(
  ("given", "columns"),
  [
    (1, [[1], [1, 4]]),
    (-1, [[4], [2, 5]]),
    ([0, -2], [[0, 3], [0, 1, 3, 4]]),
    (slice(None), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]),
    (slice(1, 3), [[1, 2], [1, 2, 4, 5]]),
    (slice(-2, None), [[3, 4], [1, 2, 4, 5]]),
    (slice(None, -1), [[0, 1, 2, 3], [0, 1, 3, 4]]),
    (slice(-4, -1), [[1, 2, 3], [0, 1, 3, 4]]),
    (slice(1, None, 2), [[1, 3], [1, 4]]),
    (lib.in_each_row([2, 0]), [[2], [0, 3]]),
    (lib.in_each_row([-1, 1]), [[4], [1, 4]]),
    (lib.occurrence(7), [[1], [1, 5]]),
    (lib.occurrence(7, 1), [[3], [2]]),
    (lib.occurrence(7, 2), [[4], []]),
    (lib.occurrence(7, None), [[1, 3, 4], [1, 2, 5]]),
    (lib.all_but_bos(), [[1, 2, 3, 4], [1, 2, 4, 5]]),
    (lib.generated(), [[], []]),
    (lib.all_but_bos() & positions_of(slice(0, 2)), [[1], [1, 4]]),
    (positions_of(0) | lib.occurrence(9), [[0, 2], [0, 3, 4]]),
    (~positions_of(-1), [[0, 1, 2, 3], [0, 1, 3, 4]]),
  ],
)
def test_columns(given, columns):
  assert chosen(given) == columns


@pytest.mark.parametrize(
  ("given", "columns"),
  [
    (-1, [[1], [1, 4]]),
    (slice(-1, None), [[1, 2, 3, 4], [1, 2, 4, 5]]),
    (slice(None, -1), [[0], [0, 3]]),
    (lib.generated(), [[2, 3, 4], [2, 5]]),
    (~lib.generated(), [[0, 1], [0, 1, 3, 4]]),
  ],
)
def test_the_end_is_the_prompts_when_more_was_generated(given, columns):
  assert chosen(given, jnp.full_like(IDS, 2)) == columns


@pytest.mark.parametrize(
  "given",
  [True, "all", [], [1.5], slice(0, 4, -1), slice(0, 4, 0), [[1]], None],
)
def test_what_chooses_nothing_is_refused(given):
  with pytest.raises(errors.ConfigError, match="chooses no token positions"):
    positions_of(given)


@pytest.mark.parametrize(
  ("token", "n"), [("Mary", 0), (-1, 0), (7, -1), (7, "a")]
)
def test_occurrences_are_counted_from_the_first(token, n):
  with pytest.raises(errors.ConfigError, match="counted from its first"):
    lib.occurrence(token, n)


def test_a_pass_must_be_told_its_tokens():
  untold = placement_of(places_of(SEGMENTS), tiny_config())
  for placement in (untold, None):
    with pytest.raises(errors.ConfigError, match="not told which they are"):
      lib.all_but_bos().mask(placement)


@pytest.mark.parametrize(
  ("given", "new", "missing"),
  [
    (3, 0, "position 3, a prompt of 3 tokens"),
    (3, 1, None),
    (-3, 0, None),
    (-4, 5, "position -4, a prompt of 3 tokens and 5 new ones"),
    (slice(3, None), 0, "positions 3:, a prompt of 3 tokens"),
    (slice(3, None), 1, None),
    (slice(-2, 1), 0, "positions -2:1"),
    (slice(-9, 2), 0, None),
    (lib.occurrence(7, 1), 0, "occurrence 1 of token 7, found 1"),
    (lib.occurrence(7, 1), 4, None),
    (lib.generated(), 0, None),
    (positions_of(0) & positions_of(9), 0, "position 9"),
    (positions_of(9) | positions_of(0), 0, "position 9"),
  ],
)
def test_what_no_token_can_match(given, new, missing):
  found = positions_of(given).missing([np.asarray([2, 7, 9])], new)
  assert (found is None) == (missing is None)
  assert missing is None or missing in found
