"""A user's own target."""

import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import errors
from gemma_scope.attribution import function, logit_difference
from gemma_scope.attribution.evaluate import ask, evaluate

TEXT = " the capital of France is"


def value_of(double, target):
  _, rows, resolved = ask(double.lm, TEXT, target)
  return np.asarray(evaluate(double.lm.model, rows, resolved, {})[0])


def difference(logits):
  return logits[7] - logits[9]


def together(resid, z):
  return jnp.sum(resid**2) + z[1, 2]


@pytest.mark.parametrize("method", ["attn_lrp", "integrated_gradients"])
def test_a_function_of_logits_is_the_target_it_spells(double, method):
  mine, theirs = function(difference), logit_difference(7, 9)
  np.testing.assert_allclose(
    value_of(double, mine), value_of(double, theirs), rtol=1e-5
  )
  a = gs.attribute(double.lm, TEXT, mine, method=method).per_token()
  b = gs.attribute(double.lm, TEXT, theirs, method=method).per_token()
  np.testing.assert_allclose(a.data_array, b.data_array, rtol=1e-4, atol=1e-6)


def test_a_function_of_sites(double):
  sites = ["resid_post[0]", "z[1]"]
  acts = gs.capture(double.lm, TEXT, sites)
  resid, z = (np.asarray(acts[s].data_array, float)[0, 3] for s in sites)
  found = value_of(double, function(together, sites, position=3))
  np.testing.assert_allclose(found, [(resid**2).sum() + z[1, 2]], rtol=1e-5)


def test_a_function_of_many_numbers_is_refused(double):
  with pytest.raises(errors.ConfigError, match=r"an array of shape \(512,\)"):
    value_of(double, function(lambda logits: logits * 2))
