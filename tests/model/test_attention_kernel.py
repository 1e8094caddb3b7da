"""The kernels: masks by brute force, patterns by the oracle, blocks = dense."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.model import attention_kernel as kernel
from gemma_scope.model.placement import places_of
from gemma_scope.testing import oracle

WINDOW = 5
# One sequence; padding behind; three packed sequences and padding.
SEGMENTS = np.array(
  [[1] * 22, [1] * 9 + [0] * 13, [1] * 7 + [2] * 3 + [5] * 10 + [0] * 2]
)


def arrays(heads=4, kv_heads=2, seq=22, width=8, dtype=np.float32):
  rng = np.random.default_rng(heads)
  shapes = [(3, seq, n, width) for n in (heads, kv_heads, kv_heads)]
  return [jnp.asarray(rng.standard_normal(s), dtype) for s in shapes]


def places(segments=SEGMENTS):
  return places_of(jnp.asarray(segments))


@functools.partial(jax.jit, static_argnums=3)
def dense(query, key, value, window):
  mask = kernel.visible(places(), places(), window)
  pattern = kernel.attention_pattern(query, key, mask, 0.3)
  return pattern, kernel.apply_pattern(pattern, value)


def blocked(query, key, value, window):
  """Traced anew by every call, for the sizes of blocks are constants."""
  here = places(SEGMENTS[: len(query)])

  def call(*arrays):
    return kernel.blocked_attention(*arrays, here, 0.3, window)

  return jax.jit(call)(query, key, value)


@pytest.mark.parametrize("window", [None, 1, WINDOW])
def test_who_sees_whom(window):
  found = kernel.visible(places(), places(), window)
  reach = window or 22
  for row, segments in enumerate(SEGMENTS):
    for i in range(22):
      for j in range(22):
        same = segments[i] == segments[j]
        expected = same and i - reach < j <= i
        if segments[i] == 0:
          expected = i == j
        assert found[row, i, j] == expected, (row, i, j)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("heads", [(4, 1), (8, 4), (6, 6)])
def test_patterns_equal_the_oracle_sequence_by_sequence(window, heads):
  query, key, value = arrays(*heads)
  pattern, z = dense(query, key, value, window)
  assert pattern.shape == (3, heads[0], 22, 22)
  starts = {(0, 0): 22, (1, 0): 9, (2, 0): 7, (2, 7): 3, (2, 10): 10}
  for (row, start), length in starts.items():
    part = slice(start, start + length)
    for head in range(heads[0]):
      kv = head // (heads[0] // heads[1])
      q = np.asarray(query[row, part, head], np.float64) * 0.3
      k = np.asarray(key[row, part, kv], np.float64)
      expected = oracle.head_pattern(q, k, window)
      found = pattern[row, head, part]
      np.testing.assert_allclose(found[:, part], expected, atol=1e-6)
      np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
      mixed = expected @ np.asarray(value[row, part, kv], np.float64)
      np.testing.assert_allclose(z[row, part, head], mixed, atol=1e-5)


def test_padding_sees_itself_so_that_no_row_is_empty():
  query, key, value = arrays()
  pattern, z = dense(query, key, value, WINDOW)
  np.testing.assert_array_equal(pattern[1, 0, 9:, 9:], np.eye(13))
  np.testing.assert_array_equal(z[1, 9:, 3], value[1, 9:, 1])


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize(
  ("least", "most"),
  [(5, 8), (1, 3), (256, 8)],
)
def test_blocks_equal_the_dense_pattern(window, least, most, monkeypatch):
  monkeypatch.setattr(kernel, "MIN_BLOCK", least)
  monkeypatch.setattr(kernel, "MAX_BLOCKS", most)
  query, key, value = arrays()
  found = blocked(query, key, value, window)
  _, expected = dense(query, key, value, window)
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_blocks_never_touch_what_their_queries_cannot_see(window, monkeypatch):
  """Poison spreads to all that is touched, masked or not."""
  monkeypatch.setattr(kernel, "MIN_BLOCK", 6)
  query, key, value = (a[:1] for a in arrays())
  poison = value.at[:, 14:].set(jnp.nan)
  if window is not None:
    poison = poison.at[:, :8].set(jnp.nan)
  found = np.asarray(blocked(query, key, poison, window))
  # Blocks are 0-5, 6-11, 12-17, 18-21; the windows of 12 and 14 begin at 8.
  assert np.isnan(found[:, 12:]).any()
  if window is None:
    assert np.isfinite(found[:, :12]).all()
  else:
    assert np.isnan(found[:, 6:8]).any()
    clean = value.at[:, :8].set(jnp.nan)
    found = blocked(query, key, clean, window)
    assert np.isfinite(found[:, 12:]).all()


def test_long_rows_have_a_bounded_number_of_blocks(monkeypatch):
  monkeypatch.setattr(kernel, "MIN_BLOCK", 2)
  calls = []
  pattern = kernel.attention_pattern

  def counted(query, key, mask, scale):
    calls.append((query.shape[1], key.shape[1]))
    return pattern(query, key, mask, scale)

  monkeypatch.setattr(kernel, "attention_pattern", counted)
  query, key, value = arrays()
  blocked(query, key, value, WINDOW)
  assert calls == [(3, 3), (3, 6), *[(3, 7)] * 5, (1, 5)]


@pytest.mark.parametrize("window", [1, 4, WINDOW, 9])
@pytest.mark.parametrize("least", [1, 2, 4, 7])
def test_blocks_of_long_rows_are_one_batch(window, least, monkeypatch):
  monkeypatch.setattr(kernel, "MIN_BLOCK", least)
  monkeypatch.setattr(kernel, "MAX_BLOCKS", 2)
  calls = []
  pattern = kernel.attention_pattern

  def counted(query, key, mask, scale):
    calls.append((query.shape[0], query.shape[1], key.shape[1]))
    return pattern(query, key, mask, scale)

  monkeypatch.setattr(kernel, "attention_pattern", counted)
  query, key, value = arrays()
  size = max(least, -(-window // 2))
  before = -(-(window - 1) // size)
  found = blocked(query, key, value, window)
  assert calls == [(3 * -(-22 // size), size, size * (before + 1))]
  _, expected = dense(query, key, value, window)
  np.testing.assert_allclose(found, expected, atol=2e-6)


def test_derivatives_of_long_rows_equal_those_of_the_dense_pattern(monkeypatch):
  monkeypatch.setattr(kernel, "MIN_BLOCK", 2)
  monkeypatch.setattr(kernel, "MAX_BLOCKS", 2)
  weights = arrays(seq=22)[0]

  def of(z):
    return jax.grad(
      lambda *given: jnp.sum(weights * z(*given)), argnums=(0, 1, 2)
    )(*arrays())

  expected = of(lambda *given: dense(*given, WINDOW)[1])
  for one, other in zip(
    of(lambda *given: blocked(*given, WINDOW)), expected, strict=True
  ):
    np.testing.assert_allclose(one, other, atol=2e-6)


def test_bfloat16_scores_are_float32():
  query, key, value = arrays(dtype=jnp.bfloat16)
  pattern, z = dense(query, key, value, None)
  assert pattern.dtype == jnp.float32
  assert z.dtype == jnp.bfloat16
  exact = [jnp.asarray(a, jnp.float32) for a in (query, key, value)]
  wanted, mixed = dense(*exact, None)
  np.testing.assert_allclose(pattern, wanted, atol=0.02)
  np.testing.assert_allclose(z.astype(jnp.float32), mixed, atol=0.05)


def test_query_heads_are_folded_by_key_value_head():
  query, _, _ = arrays(heads=4)
  folded = kernel.fold_queries(query, 2)
  assert folded.shape == (3, 2, 2 * 22, 8)
  np.testing.assert_array_equal(folded[:, 1, :22], query[:, :, 2])
  np.testing.assert_array_equal(folded[:, 1, 22:], query[:, :, 3])
