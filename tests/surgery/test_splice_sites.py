"""The two layers of a splice, alone: what they leave each other."""

import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.model.context import Context, Tape
from gemma_scope.model.site_layer import SiteLayer
from gemma_scope.sites import Site
from gemma_scope.surgery.ports import ports_of
from gemma_scope.surgery.splice_sites import SpliceRead, SpliceWrite
from tests.surgery.stand_ins import normal, sae

SITE = Site("resid_post", 3)
X = normal(0, 1, 5, 32)


def pair(mode):
  ports = ports_of([SITE], [SITE], sae())
  common = (ports.crosses, ports.ahead, ports, 0)
  read = SpliceRead(
    SiteLayer("resid_post"),
    *("resid_post", None, "it", *common),
    SiteLayer("resid_post.latents"),
    20,
  )
  error = None if mode == "drop" else SiteLayer("resid_post.error")
  return SpliceWrite(read, "resid_post", None, "it", *common, mode, error)


def run(mode, dtype=jnp.float32):
  context = Context(None, Tape(), shared={"it": sae()})
  named = pz.nx.wrap(X.astype(dtype), "batch", "seq", "embedding")
  return pair(mode)(named, context=context), context


def test_nothing_is_left_behind():
  _, context = run("drop")
  assert context.carried == {}


def test_the_dtype_of_the_site_stays():
  for mode in ("drop", "keep", "freeze"):
    value, _ = run(mode, jnp.bfloat16)
    assert value.dtype == jnp.bfloat16


def test_drop_and_keep():
  value, _ = run("drop")
  expected = sae().decode(sae().encode(X))
  np.testing.assert_array_equal(value.data_array, expected)
  value, _ = run("keep")
  np.testing.assert_array_equal(value.data_array, X)
