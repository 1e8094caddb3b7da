"""The target as a function of offsets, against edits of the slow model."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.tokens import to_tokens
from gemma_scope.attribution.evaluate import evaluate, zero_offsets
from gemma_scope.attribution.objectives import logit
from gemma_scope.attribution.rows import to_rows
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.sites import Site
from gemma_scope.surgery.select import offset, tap


def test_offsets_are_edits(double):
  sites = (Site("embed"), Site("z", 0), Site("final_norm"))
  token = double.lm.tokenizer.token_id(" Paris")
  target = logit(token).resolve(double.lm)
  rows = to_rows(to_tokens(double.lm, double.ids), 3)
  rng = np.random.default_rng(0)
  added = {s: rng.normal(0, 0.2, double.site(s).shape) for s in sites}
  offsets = {
    s: pz.nx.wrap(jnp.asarray(v[None], jnp.float32), *s.info.axes)
    for s, v in added.items()
  }
  changed = tap(offset(double.lm.model, sites), sites)
  value, taps = evaluate(changed, rows, target, offsets)
  edits = {s: lambda x, v=v: x + v for s, v in added.items()}
  expected = double.value({token: 1.0}, edits, position=3)
  np.testing.assert_allclose(value, [expected], rtol=1e-5)
  assert abs(expected - double.value({token: 1.0}, position=3)) > 0.01
  assert set(taps) == set(sites)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zero_offsets_have_the_axes_and_dtype_of_their_sites(double, dtype):
  model = tensors_to_gemma(double.tensors, double.config, dtype)
  sites = (Site("embed"), Site("pattern", 1))
  rows = to_rows(to_tokens(double.lm, double.ids), -1)
  zeros = zero_offsets(model, rows, sites)
  assert set(zeros) == set(sites)
  assert dict(zeros[sites[0]].named_axes) == {
    "batch": 1,
    "seq": 6,
    "embedding": 32,
  }
  assert dict(zeros[sites[1]].named_axes) == {
    "batch": 1,
    "heads": 4,
    "seq": 6,
    "kv_seq": 6,
  }
  assert zeros[sites[0]].dtype == dtype
  assert zeros[sites[1]].dtype == jnp.float32
  assert not any(np.asarray(z.data_array).any() for z in zeros.values())
