"""Which elements a patch replaces, row by row."""

import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.attribution.patching.put import ALL, Put, key
from gemma_scope.sites import SITES

# Row 0: column 1, all heads. Row 1: not here. Row 2: all columns, head 1.
HERE = [True, False, True]
POSITION = [1, 0, ALL]
HEAD = [ALL, 0, 1]
SIZES = {"batch": 3, "seq": 4, "heads": 2, "kv_heads": 2, "kv_seq": 4}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["resid_pre", "z", "key", "pattern"])
def test_only_what_a_row_asks_for_is_replaced(name, turned):
  names = SITES[name].axes[:: -1 if turned else 1]
  shape = [SIZES.get(n, 5) for n in names]
  put = Put(
    pz.nx.wrap(jnp.ones(shape), *names),
    *(jnp.asarray(a) for a in (HERE, POSITION, HEAD)),
  )
  found = put.into(pz.nx.wrap(jnp.zeros(shape), *names))
  assert tuple(found.named_axes) == names
  for index in np.ndindex(*shape):
    place = dict(zip(names, index))
    row, head = place["batch"], place.get("heads", place.get("kv_heads"))
    expected = (
      HERE[row]
      and POSITION[row] in (ALL, place["seq"])
      and (head is None or HEAD[row] in (ALL, head))
    )
    assert found.data_array[index] == expected


def test_what_is_put_takes_the_dtype_of_its_place():
  names = SITES["resid_pre"].axes
  value = pz.nx.wrap(jnp.ones((3, 4, 5), jnp.float32), *names)
  into = pz.nx.wrap(jnp.zeros((3, 4, 5), jnp.bfloat16), *names)
  put = Put(value, *(jnp.asarray(a) for a in (HERE, POSITION, HEAD)))
  assert put.into(into).dtype == jnp.bfloat16


def test_a_patch_has_an_input_of_its_own():
  assert key("z") not in SITES
  assert key("z") != key("key")
