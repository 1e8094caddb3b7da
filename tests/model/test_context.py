"""What travels with the residual stream, and what comes back."""

import jax
import jax.numpy as jnp
from penzai import pz
import pytest

from gemma_scope.model.context import Context, Past, Tape, placed
from gemma_scope.model.placement import placement_of, places_of
from gemma_scope.testing.tiny import tiny_config

PLACES = places_of(jnp.ones((1, 3), jnp.int32))


def test_a_tape_keeps_the_last_value_of_each_site():
  tape = Tape()
  first, last = (pz.nx.wrap(jnp.full(2, v), "seq") for v in (1.0, 2.0))
  tape.record("z", first)
  tape.record("query", first)
  tape.record("z", last)
  assert list(tape.values) == ["z", "query"]
  assert tape.values["z"] is last


def test_tapes_are_not_shared():
  one, other = Tape(), Tape()
  one.record("z", pz.nx.wrap(jnp.zeros(2), "seq"))
  assert other.values == {}


def test_a_context_has_neither_past_nor_inputs_by_default():
  placement = placement_of(PLACES, tiny_config())
  context = Context(placement, Tape())
  assert context.past is None
  assert context.inputs == {}
  assert placed(context) is placement


def test_a_decoder_layer_needs_a_placement():
  with pytest.raises(AssertionError, match="needs a placement"):
    placed(Context(None, Tape()))


def test_the_past_can_be_carried_by_a_loop():
  past = Past(jnp.zeros((1, 3, 2, 4)), jnp.ones((1, 3, 2, 4)), PLACES)

  def step(i, past):
    return Past(past.key + i, past.value, past.places)

  found = jax.lax.fori_loop(0, 4, step, past)
  assert float(found.key.max()) == 6
  assert found.places.positions.tolist() == [[0, 1, 2]]
