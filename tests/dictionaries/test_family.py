"""Every member of the family passes the same tests by being a row."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes
from gemma_scope.dictionaries import arrays, prefixes
from gemma_scope.dictionaries.protocol import Dictionary, Layered
from gemma_scope.dictionaries.vectors import vector_axes
from gemma_scope.errors import SiteError
from gemma_scope.testing.dictionaries import random_vectors
from tests.dictionaries import oracle
from tests.dictionaries.family import FAMILY, LAYERED, SINGLE

ROWS = 24
everyone = pytest.mark.parametrize("name", FAMILY)


def close(a, b, scale=1e-5):
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  assert a.shape == b.shape
  assert np.abs(a - b).max() <= scale * max(1, np.abs(b).max())


def named(dictionary, x, lead=(axes.BATCH, axes.SEQ)):
  """A plain [..., d] as a named array with the axes of its site."""
  site = dictionary.sites_in[0]
  vector = vector_axes(site)
  front = (axes.LAYER, *lead) if len(dictionary.sites_in) > 1 else lead
  if len(vector) == 2:
    x = x.reshape(*x.shape[:-1], 4, -1)
  return pz.nx.wrap(x, *front, *vector)


@everyone
def test_is_the_oracle(name):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, ROWS)
  latents = dictionary.encode(x)
  expected = oracle.encode(dictionary, x)
  close(latents, expected)
  assert ((np.asarray(latents) != 0) == (expected != 0)).all()
  assert (np.asarray(latents) >= 0).all()
  active = (np.asarray(latents) != 0).mean()
  assert 0.01 < active < 0.7
  close(dictionary.rebuild(latents, x), oracle.rebuild(dictionary, latents, x))


@everyone
def test_keeps_the_protocol(name):
  dictionary = FAMILY[name]()
  assert isinstance(dictionary, Dictionary)
  assert isinstance(dictionary, Layered) == (name in LAYERED)
  about = dictionary.about
  assert dictionary.sites_in == about.sites_in
  assert dictionary.sites_out == about.sites_out
  assert hash(about) == hash(dataclasses.replace(about))
  addresses = dictionary.latents
  first = addresses[0] if name in LAYERED else addresses
  assert str(first[17]).endswith(".latents[17]")
  assert first.site in dictionary.sites_in


@everyone
@pytest.mark.parametrize("lead", [(), (1, 2, 3)])
def test_shapes(name, lead):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, *lead)
  latents = dictionary.encode(x)
  front = (3,) if name in LAYERED else ()
  assert latents.shape == (*front, *lead, 64)
  assert dictionary.decode(latents).shape == x.shape
  assert dictionary(x).shape == x.shape


@everyone
def test_call_is_rebuild_of_encode(name):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, ROWS)
  latents = dictionary.encode(x)
  expected = dictionary.rebuild(latents, x)
  np.testing.assert_array_equal(dictionary(x), expected)
  skip = dictionary.rebuild(latents * 0, x) - dictionary.decode(latents * 0)
  close(dictionary.decode(latents) + skip, expected)


@everyone
def test_named_arrays_give_the_same_numbers(name):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, 2, 12)
  given = named(dictionary, x)
  latents = dictionary.encode(given)
  names = (axes.BATCH, axes.SEQ, axes.LATENTS)
  names = (axes.LAYER, *names) if name in LAYERED else names
  assert set(latents.named_axes) == set(names)
  np.testing.assert_array_equal(latents.unwrap(*names), dictionary.encode(x))
  rebuilt = dictionary(given)
  assert set(rebuilt.named_axes) == set(given.named_axes)
  np.testing.assert_array_equal(
    rebuilt.unwrap(*given.named_axes),
    named(dictionary, dictionary(x)).unwrap(*given.named_axes),
  )
  decoded = dictionary.decode(latents)
  assert decoded.named_shape == rebuilt.named_shape


@everyone
def test_axes_come_in_any_order(name):
  dictionary = FAMILY[name]()
  given = named(dictionary, random_vectors(dictionary, 2, 12))
  other = given.order_as(*reversed(given.named_axes))
  expected = dictionary(given).unwrap(*given.named_axes)
  found = dictionary(other).unwrap(*given.named_axes)
  if "batch_top_k" in name:  # equal values aside, the order does not matter
    close(found, expected)
  else:
    close(found, expected, 1e-6)


@everyone
def test_jit_and_vmap(name):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, 4, 6)
  expected = dictionary(x)
  close(jax.jit(lambda d, v: d(v))(dictionary, x), expected, 1e-6)
  if "batch_top_k" in name:  # each example is then a batch of its own
    expected = jnp.stack(
      [dictionary(jnp.take(x, i, axis=-3)) for i in range(4)], axis=-3
    )
  across = len(x.shape) - 3
  mapped = jax.vmap(dictionary, in_axes=across, out_axes=across)(x)
  close(mapped, expected, 1e-6)


@everyone
def test_equal_dictionaries_are_compiled_once(name, caplog):
  first, second = FAMILY[name](), FAMILY[name](seed=7)
  second = second.with_about(dataclasses.replace(second.about, name="other"))
  x = random_vectors(first, ROWS + 1)
  jax.block_until_ready(first(x))
  with jax.log_compiles(), caplog.at_level("WARNING"):
    jax.block_until_ready(second(x))
  assert "Compiling" not in caplog.text


@everyone
def test_is_a_pytree_of_named_arrays(name):
  dictionary = FAMILY[name]()
  leaves, tree = jax.tree.flatten(dictionary)
  assert all(leaf.dtype == jnp.float32 for leaf in leaves)
  again = jax.tree.unflatten(tree, leaves)
  assert again.about == dictionary.about
  x = random_vectors(dictionary, ROWS)
  np.testing.assert_array_equal(again(x), dictionary(x))
  named_leaves = jax.tree.leaves(dictionary, is_leaf=pz.nx.is_namedarray)
  assert all(isinstance(leaf, pz.nx.NamedArray) for leaf in named_leaves)
  # An axis `layer` in front would be taken for a scanned stack's.
  assert all(next(iter(a.named_axes)) != axes.LAYER for a in named_leaves)


@everyone
def test_bfloat16_vectors_are_computed_in_float32(name):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, ROWS).astype(jnp.bfloat16)
  latents = dictionary.encode(x)
  assert latents.dtype == jnp.float32
  assert dictionary(x).dtype == jnp.float32
  close(latents, oracle.encode(dictionary, np.asarray(x, np.float64)))
  np.testing.assert_array_equal(dictionary(x), dictionary(x.astype("float32")))


@everyone
def test_bfloat16_weights_are_computed_in_float32(name):
  dictionary = arrays.place(FAMILY[name](), dtype="bfloat16")
  x = random_vectors(dictionary, ROWS)
  latents = dictionary.encode(x)
  close(latents, oracle.encode(dictionary, x))
  close(dictionary.rebuild(latents, x), oracle.rebuild(dictionary, latents, x))


@everyone
def test_gradient_is_that_of_the_active_latents(name):
  """Against the closed form: the choice of active latents held constant."""
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, 8)
  weights = jax.random.normal(jax.random.key(3), x.shape)
  gradient = jax.grad(lambda v: (dictionary(v) * weights).sum())(x)
  step = 1e-4 * gradient / jnp.abs(gradient).max()
  up, down = np.asarray(x + step, float), np.asarray(x - step, float)
  values = [oracle.encode(dictionary, v) for v in (up, down)]
  chosen = np.asarray(dictionary.encode(x)) != 0
  if any(((v != 0) != chosen).any() for v in values):
    pytest.skip("a latent switches within the step")
  ends = [oracle.rebuild(dictionary, f, v) for f, v in zip(values, (up, down))]
  change = ((ends[0] - ends[1]) * np.asarray(weights)).sum()
  slope = 2 * float((gradient * step).sum())
  assert abs(change - slope) < 1e-3 * abs(slope) + 1e-6


@everyone
def test_sharded_is_unsharded(name):
  dictionary = FAMILY[name]()
  mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
  sharded = arrays.place(dictionary, mesh=mesh)
  for array in jax.tree.leaves(sharded, is_leaf=pz.nx.is_namedarray):
    spec = array.data_array.sharding.spec
    at = (
      list(array.named_axes).index("latents")
      if "latents" in (array.named_axes)
      else None
    )
    assert at is None or spec[at] == "model"
  x = random_vectors(dictionary, 16)
  latents, expected = sharded.encode(x), dictionary.encode(x)
  close(latents, expected, 1e-6)
  assert ((np.asarray(latents) != 0) == (np.asarray(expected) != 0)).all()
  close(sharded(x), dictionary(x), 1e-6)


@everyone
def test_prefix_is_the_oracle_of_the_first_latents(name):
  dictionary = prefixes.with_prefixes(FAMILY[name](), (8, 24))
  x = random_vectors(dictionary, ROWS)
  latents = dictionary.encode(x)
  coarse = prefixes.decode_prefixes(dictionary, latents)
  assert len(coarse) == 3
  np.testing.assert_array_equal(coarse[-1], dictionary.decode(latents))
  masked = np.where(np.arange(64) < 24, np.asarray(latents), 0)
  close(coarse[1], dictionary.decode(masked))
  first = prefixes.prefix(dictionary, 24)
  assert first.num_latents == 24
  assert first.about.prefixes == (8,)
  close(first.encode(x), oracle.encode(first, x))


@everyone
def test_other_vectors_are_refused(name):
  dictionary = FAMILY[name]()
  x = random_vectors(dictionary, 5)
  with pytest.raises(SiteError, match=r"does not hold vectors at"):
    dictionary.encode(x[..., :-1])
  with pytest.raises(SiteError, match="does not hold its latents"):
    dictionary.decode(dictionary.encode(x)[..., :-1])
  wrong = pz.nx.wrap(x, *"abc"[: x.ndim - 1], "neurons_")
  with pytest.raises(SiteError, match=r"vector"):
    dictionary.encode(wrong)
  if name not in SINGLE:
    with pytest.raises(SiteError, match="has 3 sites"):
      dictionary.encode(x[:2])


@everyone
def test_can_be_pickled(name):
  dictionary = FAMILY[name]()
  again = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, dictionary)))
  x = random_vectors(dictionary, 3)
  np.testing.assert_array_equal(arrays.place(again)(x), dictionary(x))
