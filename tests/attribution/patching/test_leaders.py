"""Rows and columns of named values, wherever their axes stand."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.attribution.patching.leaders import at_columns, take_rows


@pytest.mark.parametrize("name", ["resid_pre", "pattern", "z"])
def test_values_at_columns(name):
  names = {
    "resid_pre": ("seq", "batch", "embedding"),
    "pattern": ("batch", "heads", "seq", "kv_seq"),
    "z": ("batch", "seq", "heads", "projection"),
  }[name]
  sizes = [{"batch": 2, "seq": 3}.get(n, 4) for n in names]
  data = np.arange(np.prod(sizes)).reshape(sizes)
  found = at_columns(
    pz.nx.wrap(jnp.asarray(data), *names), jnp.asarray([2, 0]), name
  )
  order = ("batch", "seq", *(n for n in names if n not in ("batch", "seq")))
  turned = data.transpose([names.index(n) for n in order])
  np.testing.assert_array_equal(found, [turned[0, 2], turned[1, 0]])


def test_rows_are_taken_wherever_the_batch_axis_stands():
  value = pz.nx.wrap(jnp.arange(6).reshape(3, 2), "seq", "batch")
  found = take_rows(value, jnp.asarray([1, 1, 0]))
  np.testing.assert_array_equal(
    found.unwrap("batch", "seq"), [[1, 3, 5], [1, 3, 5], [0, 2, 4]]
  )
