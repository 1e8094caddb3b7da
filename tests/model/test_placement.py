"""Positions count within a sequence, whatever shares its row."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.model.placement import (
  Places,
  placement_of,
  places_of,
  tokens_of,
)
from gemma_scope.model.rope import rotation
from gemma_scope.testing.tiny import tiny_config


@pytest.mark.parametrize(
  ("segments", "positions"),
  [
    ([1, 1, 1, 1], [0, 1, 2, 3]),
    ([1, 1, 0, 0], [0, 1, 0, 1]),
    ([1, 1, 2, 2, 2, 7, 0], [0, 1, 0, 1, 2, 0, 0]),
    ([3, 1, 1, 2], [0, 0, 1, 0]),
    ([0, 0, 1, 1], [0, 1, 0, 1]),
    ([0, 0], [0, 1]),
  ],
)
def test_positions(segments, positions):
  places = places_of(jnp.asarray([segments]))
  np.testing.assert_array_equal(places.positions, [positions])
  np.testing.assert_array_equal(places.segment_ids, [segments])


def test_rows_are_independent():
  places = places_of(jnp.asarray([[1, 1, 1], [1, 2, 2]]))
  np.testing.assert_array_equal(places.positions, [[0, 1, 2], [0, 0, 1]])


def test_slices_put_together_again_are_the_whole():
  places = places_of(jnp.asarray([[1, 1, 2, 2, 0]]))
  whole = places.slice(0, 2).then(places.slice(2, 5))
  assert isinstance(whole, Places)
  np.testing.assert_array_equal(whole.positions, places.positions)
  np.testing.assert_array_equal(whole.segment_ids, places.segment_ids)


def test_local_and_global_layers_have_their_own_angles():
  config = tiny_config()
  places = places_of(jnp.ones((1, 30), jnp.int32))
  placement = placement_of(places, config)
  local = rotation(places.positions, config.head_dim, 1e4, 1.0)
  globally = rotation(places.positions, config.head_dim, 1e6, 8.0)
  np.testing.assert_array_equal(placement.local.cos, local.cos)
  np.testing.assert_array_equal(placement.globally.sin, globally.sin)
  assert not np.allclose(placement.local.sin, placement.globally.sin)


IDS = jnp.asarray([[2, 7, 7, 7, 2, 7], [7, 7, 7, 2, 7, 0]])
SEGMENTS = jnp.asarray([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0]])


def test_equal_tokens_are_counted_within_their_sequence():
  tokens = tokens_of(IDS, places_of(SEGMENTS))
  assert tokens.ordinals.tolist() == [[0, 0, 1, 0, 0, 1], [0, 1, 2, 0, 3, 0]]
  np.testing.assert_array_equal(tokens.ids, IDS)


def test_all_of_a_sequence_is_its_prompt_unless_told():
  places = places_of(SEGMENTS)
  tokens = tokens_of(IDS, places)
  assert tokens.prompts.tolist() == [[3] * 6, [5] * 5 + [1]]
  told = tokens_of(IDS, places, jnp.full_like(IDS, 2))
  assert told.prompts.tolist() == [[2] * 6] * 2


def test_some_columns_of_a_placement():
  places = places_of(SEGMENTS)
  whole = placement_of(places, tiny_config(), tokens_of(IDS, places))
  some = whole.take(jnp.asarray([4, 1]))
  assert some.places.positions.tolist() == [[1, 1], [4, 1]]
  assert some.tokens is not None
  assert some.tokens.ids.tolist() == [[2, 7], [7, 7]]
  np.testing.assert_array_equal(some.local.cos, whole.local.cos[:, [4, 1]])
