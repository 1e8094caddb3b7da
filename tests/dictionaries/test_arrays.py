"""Arrays in files, in memory and in shards; see also test_loading."""

import jax
import numpy as np
import pytest

from gemma_scope.dictionaries import arrays
from gemma_scope.errors import ConfigError
from gemma_scope.testing import dictionaries as make


def test_naming_leaves_an_array_where_it_is(tmp_path):
  data = np.memmap(tmp_path / "data", np.float32, "w+", shape=(3, 4))
  named = arrays.named(data, "latents", "output")
  assert named.data_array is data
  part = arrays.cut(named, "latents", slice(2))
  assert isinstance(part.data_array, np.memmap)
  assert dict(part.named_axes) == {"latents": 2, "output": 4}
  assert dict(arrays.cut(named, "output", 1).named_axes) == {"latents": 3}


def test_place():
  sae = make.random_sae()
  on_host = arrays.map_arrays(
    lambda a: arrays.named(np.asarray(a.data_array), *arrays.names_of(a)), sae
  )
  assert arrays.is_mapped(on_host)
  assert not arrays.is_mapped(arrays.place(on_host))
  for old, new in zip(
    jax.tree.leaves(sae), jax.tree.leaves(arrays.place(on_host))
  ):
    np.testing.assert_array_equal(old, new)
  half = arrays.place(on_host, dtype="bfloat16")
  assert {leaf.dtype.name for leaf in jax.tree.leaves(half)} == {"bfloat16"}


@pytest.mark.parametrize("dtype", ["int8", "nonsense", np.int32])
def test_dtype(dtype):
  with pytest.raises(ConfigError, match="floating-point dtype"):
    arrays.checked_dtype(dtype)
