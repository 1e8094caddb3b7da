"""No table changes a value of the model by a bit, wherever it is run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np
from penzai import pz
import pytest

from gemma_scope.attribution import lrp
from gemma_scope.model import gemma
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.model.sharding import activation_sharding
from gemma_scope.sites import Site
from gemma_scope.surgery import offset
from gemma_scope.testing.tiny import tiny_config
from tests.attribution.checks import assert_same_bits

TABLES = (
  *(lrp.ATTN_LRP, lrp.CP_LRP, lrp.LRP_EPSILON, lrp.LRP_GAMMA, lrp.FROZEN),
)
# A scanned period of a local and a global layer, and one more.
CONFIG = dataclasses.replace(tiny_config(num_layers=3, window=4), period=2)
EMBED = Site("embed")
IDS = np.random.default_rng(0).integers(3, 500, (8, 6)).astype(np.int32)
NAMES = ("batch", "seq", "embedding")


def small(dtype, **options):
  return tensors_to_gemma(
    random_tensors(CONFIG, 0), CONFIG, jnp.dtype(dtype), **options
  )


def logits(model, x, ids=IDS):
  """Logits of all positions, from an offset of the embeddings."""
  changed = offset(model, [EMBED])
  inputs = {EMBED: pz.nx.wrap(x, *NAMES)}
  residual, _ = gemma.run(changed, ids, gemma.segments_of(ids), inputs)
  normed, _ = gemma.apply_final_norm(changed, residual)
  return gemma.unembed(changed, normed)[0].unwrap("batch", "seq", "vocabulary")


def everywhere(scanned, unrolled, rules, x):
  """Logits by plain jit, scan, remat, and vmap outside and inside."""
  ruled = functools.partial(lrp.transform, rules=rules)
  ids = jnp.asarray(IDS)
  one = lambda row, i: logits(scanned, row[None], i[None])[0]  # noqa: E731
  return (
    ruled(functools.partial(logits, scanned))(x),
    ruled(functools.partial(logits, unrolled))(x),
    ruled(jax.checkpoint(functools.partial(logits, unrolled)))(x),
    jax.vmap(ruled(one), in_axes=(0, 0))(x, ids),
    ruled(lambda rows: jax.vmap(one)(rows, ids))(x),
  )


@functools.cache
def expected(dtype):
  models = small(dtype), small(dtype, scan=False)
  x = jnp.zeros((*IDS.shape, CONFIG.d_model), dtype)
  run = jax.jit(functools.partial(everywhere, rules=lrp.GRADIENT))
  return models, x, run(*models, x=x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rules", TABLES, ids=lambda rules: rules.name)
def test_values_are_the_same_to_the_last_bit(rules, dtype):
  models, x, values = expected(dtype)
  found = jax.jit(functools.partial(everywhere, rules=rules))(*models, x=x)
  for ours, theirs in zip(found, values):
    assert_same_bits(ours, theirs)


def test_values_are_the_same_without_jit():
  model = small(jnp.float32)
  x = jnp.zeros((*IDS.shape, CONFIG.d_model))
  f = functools.partial(logits, model)
  assert_same_bits(lrp.transform(f, lrp.ATTN_LRP)(x), f(x))


@pytest.mark.parametrize(
  ("rules", "dtype"),
  [*((rules, "float32") for rules in TABLES), (lrp.ATTN_LRP, "bfloat16")],
  ids=lambda value: getattr(value, "name", value),
)
def test_values_on_a_mesh_of_eight_are_the_same(rules, dtype):
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
  model = small(dtype, mesh=mesh, scan=False)
  x = jnp.zeros((*IDS.shape, CONFIG.d_model), dtype)
  x = jax.device_put(x, activation_sharding(mesh, NAMES, x.shape))
  plain = jax.jit(logits)(model, x)
  assert len(plain.sharding.device_set) == 8

  @jax.jit
  def ruled(model, x):
    return lrp.transform(functools.partial(logits, model), rules)(x)

  assert_same_bits(ruled(model, x), plain)


@pytest.mark.real
def test_values_of_the_real_model_are_the_same(real_lm):
  ids = jnp.asarray([real_lm.tokenizer.encode("The capital of France is")])
  x = jnp.zeros((*ids.shape, real_lm.config.d_model))

  def last(model, x):
    changed = offset(model, [EMBED])
    inputs = {EMBED: pz.nx.wrap(x, *NAMES)}
    residual, _ = gemma.run(changed, ids, gemma.segments_of(ids), inputs)
    return gemma.apply_final_norm(changed, residual)[0].unwrap(*NAMES)

  plain = jax.jit(last)(real_lm.model, x)
  for rules in TABLES[:4]:

    @jax.jit
    def ruled(model, x, rules=rules):
      return lrp.transform(functools.partial(last, model), rules)(x)

    assert_same_bits(ruled(real_lm.model, x), plain)
