"""Prefix sizes are checked; what they rebuild is tested in test_family."""

import pytest

from gemma_scope.dictionaries import prefixes
from gemma_scope.errors import ConfigError
from gemma_scope.testing import dictionaries as make


@pytest.mark.parametrize("sizes", [(0, 8), (8, 65), (-1,)])
def test_size_out_of_range(sizes):
  with pytest.raises(ConfigError, match="of 64 latents"):
    prefixes.with_prefixes(make.random_sae(), sizes)


def test_sizes_rise():
  with pytest.raises(ConfigError, match="rising"):
    prefixes.with_prefixes(make.random_sae(), (24, 8))


def test_named_latents():
  sae = prefixes.with_prefixes(make.random_sae(), (8,))
  x = make.random_vectors(sae, 5)
  plain = sae.encode(x)
  from penzai import pz

  named = pz.nx.wrap(plain, "seq", "latents")
  first = prefixes.decode_prefix(sae, named, 8).unwrap("seq", "embedding")
  assert (first == prefixes.decode_prefix(sae, plain, 8)).all()
