"""AuxK against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope.training import options
from gemma_scope.training.auxiliary import aux_loss
from tests.training import runs
from tests.training.test_losses import case

REVIVAL = options.Revival(0, aux_k=3, aux_pool=8, aux_weight=0.5)


def columns(z):
  return lambda _, chosen: z[:, chosen]


def setting_and_values():
  params, batch, _, _, setting = case("sae", "top_k", revival=REVIVAL)
  z = jax.random.normal(jax.random.key(5), (24, runs.WIDTH))
  missed = jax.random.normal(jax.random.key(6), batch.y.shape)
  return params, z, missed, setting


def test_the_longest_dead_rebuild_what_is_missed():
  params, z, missed, setting = setting_and_values()
  dead = jnp.where(jnp.arange(runs.WIDTH) < 12, jnp.arange(runs.WIDTH) + 1, 0)
  pool = np.arange(4, 12)  # of the twelve dead the eight longest dead
  allowed = np.full(z.shape, -np.inf)
  allowed[:, pool] = np.asarray(z)[:, pool]
  least = np.sort(allowed, axis=1)[:, -3][:, None]
  f = np.where((allowed >= least) & (allowed > 0), allowed, 0)
  rebuilt = f @ np.asarray(params["parts"][0]["w_dec"])
  expected = 0.5 * np.square(np.asarray(missed) - rebuilt).sum(1).mean()
  found = aux_loss(params, columns(z), (missed, None), [dead], setting)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_no_term_while_no_latent_is_dead():
  params, z, missed, setting = setting_and_values()
  none = [jnp.zeros(runs.WIDTH, jnp.int32)]
  assert aux_loss(params, columns(z), (missed, None), none, setting) == 0
  slope = jax.grad(
    lambda z: aux_loss(params, columns(z), (missed, None), none, setting)
  )(z)
  np.testing.assert_array_equal(slope, 0)


def test_only_dead_latents_learn_from_it():
  params, z, missed, setting = setting_and_values()
  dead = jnp.where(jnp.arange(runs.WIDTH) == 7, 9, 0)

  def value(z, missed):
    return aux_loss(params, columns(z), (missed, None), [dead], setting)

  slope, of_missed = jax.grad(value, (0, 1))(z, missed)
  assert np.abs(slope[:, 7]).max() > 0
  np.testing.assert_array_equal(np.delete(slope, 7, axis=1), 0)
  np.testing.assert_array_equal(of_missed, 0)
