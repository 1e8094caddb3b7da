import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution.baselines import baseline_at
from gemma_scope.attribution.evaluate import to_rows
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site

EMBED = Site("embed")
IDS = [[2, 9, 7, 30], [2, 11, 0, 0]]


@pytest.fixture
def rows(tiny_lm):
  return to_rows(to_tokens(tiny_lm, np.asarray(IDS)), -1)


def embedded(tiny_lm):
  table = np.asarray(tiny_lm.model.table.data_array)
  return table[np.asarray(IDS)] * np.float32(tiny_lm.config.d_model**0.5)


def test_mean_of_each_prompts_own_tokens_bos_kept(tiny_lm, rows):
  found = np.asarray(baseline_at(EMBED, None, tiny_lm.model, rows))
  x = embedded(tiny_lm)
  np.testing.assert_array_equal(found[:, 0], x[:, 0])
  for column in (1, 2, 3):
    np.testing.assert_allclose(found[0, column], x[0, 1:].mean(0), rtol=1e-5)
  np.testing.assert_allclose(found[1, 1], x[1, 1], rtol=1e-6)


def test_pad_bos_kept(tiny_lm, rows):
  found = np.asarray(baseline_at(EMBED, "pad", tiny_lm.model, rows))
  x = embedded(tiny_lm)
  np.testing.assert_array_equal(found[:, 0], x[:, 0])
  np.testing.assert_allclose(found[0, 1], x[1, 3], rtol=1e-6)


def test_zero_and_arrays_at_any_site(tiny_lm, rows):
  z = Site("z", 1)
  assert not np.any(baseline_at(z, None, tiny_lm.model, rows))
  given = jnp.ones((1, 1, 1, 1))
  assert baseline_at(z, given, tiny_lm.model, rows) is given


def test_mean_is_for_tokens(tiny_lm, rows):
  with pytest.raises(ConfigError, match='at "embed" also "mean" and "pad"'):
    baseline_at(Site("z", 1), "mean", tiny_lm.model, rows)
