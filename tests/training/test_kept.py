"""The latents that are kept, alone, against the dense products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.dictionaries.top_k import batch_top_k_mask, top_k_mask
from gemma_scope.training import kept, losses, options, parameters
from gemma_scope.training.step import each_member
from tests.training import runs

ROWS, WIDTH, READ, K, MOST = 64, 96, 16, 3, 4
FORMS = pytest.mark.parametrize("of_batch", [True, False])


def arrays(seed=0):
  keys = jax.random.split(jax.random.key(seed), 5)
  shapes = ((ROWS, READ), (READ, WIDTH), (WIDTH,), (WIDTH, READ), (ROWS, READ))
  *given, target = (jax.random.normal(k, s) for k, s in zip(keys, shapes))
  return given, target


def dense(given, k, of_batch):
  x, w_enc, bias, w_dec = given
  z = x @ w_enc + bias[None, :]
  kept_ = batch_top_k_mask(z, k * ROWS) if of_batch else top_k_mask(z, k)
  f = jnp.where(kept_, z, 0)
  return f @ w_dec, f


def sparse(given, k, of_batch):
  x, w_enc, bias, w_dec = given
  return kept.autoencode(x, w_enc, bias, w_dec, jnp.int32(k), MOST, of_batch)


def slopes(rebuild, given, target):
  def missed(*arrays):
    return jnp.square(rebuild(*arrays) - target).sum()

  return jax.value_and_grad(missed, (0, 1, 2, 3))(*given)


def assert_close(found, expected):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


@FORMS
def test_values_and_gradients_are_those_of_dense_products(of_batch):
  given, target = arrays()
  found = slopes(lambda *a: sparse(a, K, of_batch).y, given, target)
  expected = slopes(lambda *a: dense(a, K, of_batch)[0], given, target)
  assert_close(found, expected)


@FORMS
def test_counts(of_batch):
  given, _ = arrays()
  made = sparse(given, K, of_batch)
  f = dense(given, K, of_batch)[1]
  np.testing.assert_array_equal(made.per_row, (f > 0).sum(axis=1))
  np.testing.assert_allclose(made.frequency, (f > 0).mean(axis=0), rtol=1e-6)
  assert made.least == f[f > 0].min()


@FORMS
def test_fewer_positive_than_asked_for(of_batch):
  (x, w_enc, bias, w_dec), target = arrays()
  given = (x, w_enc, bias - 9, w_dec)
  f = dense(given, K, of_batch)[1]
  assert 0 < (f > 0).sum() < K * ROWS
  found = slopes(lambda *a: sparse(a, K, of_batch).y, given, target)
  expected = slopes(lambda *a: dense(a, K, of_batch)[0], given, target)
  assert_close(found, expected)
  silent = sparse((x, w_enc, bias - 99, w_dec), K, of_batch)
  assert np.isinf(silent.least)
  np.testing.assert_array_equal(silent.y, 0)


@FORMS
def test_side_by_side_with_a_k_of_their_own(of_batch):
  several = [arrays(seed) for seed in range(3)]
  ks = jnp.array([1, MOST, 2])

  def one(given, target, k):
    def rebuild(*arrays):
      return sparse(arrays, k, of_batch).y

    return slopes(rebuild, given, target)

  given, target = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
  found = each_member(one, given, target, ks)
  for i, (given, target) in enumerate(several):
    own = [leaf[i] for leaf in jax.tree.leaves(found)]
    assert_close(own, one(given, target, ks[i]))


def test_places():
  mask = np.random.default_rng(0).uniform(size=(ROWS, WIDTH)) < 0.1
  number = mask.sum()
  by_row, by_column = kept.places(jnp.asarray(mask), int(number) + 5)
  for found in (by_row, by_column):
    assert found.there.sum() == number
    rows, columns = (np.asarray(a)[:number] for a in found[:2])
    assert len(set(zip(rows, columns))) == number
    assert mask[rows, columns].all()
  assert (np.diff(by_row.rows[:number]) >= 0).all()
  assert (np.diff(by_column.columns[:number]) >= 0).all()
  np.testing.assert_array_equal(np.diff(by_row.ends), mask.sum(axis=1))
  np.testing.assert_array_equal(np.diff(by_column.ends), mask.sum(axis=0))


def case(activation, dead=0, limit=0.0):
  """What `loss` is given, of a form that the kept latents serve."""
  revival = options.Revival(0, aux_k=3, aux_pool=8)
  form = {"kind": "transcoder", "affine_skip": True, "width": 4096}
  given = {"form": form, "revival": revival, "row_limit": limit}
  group = runs.group("transcoder", activation, **given)
  layout = parameters.layout_of(group, READ, READ)
  keys = jax.random.split(jax.random.key(0), 4)
  ends = 0.1 * jax.random.normal(keys[0], (READ,))
  params = parameters.init(keys[1], group, layout, ends, -ends)
  x, y = (jax.random.normal(key, (256, READ)) for key in keys[2:])
  since = jnp.where(jnp.arange(4096) < dead, 9, 0)
  numbers = losses.Numbers(jnp.float32(3), jnp.float32(0))
  setting = (group, layout, "float32")
  return params, losses.Batch((x,), y), numbers, (since,), setting


@pytest.mark.parametrize("activation", ["top_k", "batch_top_k"])
@pytest.mark.parametrize(("dead", "limit"), [(0, 0.0), (12, 0.0), (12, 4.0)])
def test_the_loss_is_that_of_dense_products(
  activation, dead, limit, monkeypatch
):
  given = case(activation, dead, limit)
  assert kept.serves(given[-1], 256)
  whole = jax.value_and_grad(losses.loss, has_aux=True)
  found = whole(*given)
  monkeypatch.setattr(kept, "serves", lambda *_: False)
  expected = whole(*given)
  assert (expected[0][1].terms["aux"] > 0) == bool(dead)
  assert_close(found, expected)


def test_serves_what_it_can(monkeypatch):
  group, layout, precision = case("top_k")[-1]
  assert not kept.serves((group, layout, precision), 8)  # too small
  assert not kept.serves((group, layout, "bfloat16"), 256)
  form = runs.replace(group.architecture, prefixes=(32,))
  nested = runs.replace(group, architecture=form)
  assert not kept.serves((nested, layout, precision), 256)
  many = runs.replace(group, members=(runs.replace(group.members[0], l0=512),))
  assert not kept.serves((many, layout, precision), 256)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert not kept.serves((group, layout, precision), 256)
