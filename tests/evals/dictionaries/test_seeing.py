"""The form in which metrics see a dictionary's work."""

import numpy as np
import pytest

from gemma_scope.dictionaries import decode_prefix
from gemma_scope.evals.dictionaries.run import Run, make_probe
from gemma_scope.evals.dictionaries.seeing import decoded, see
from tests.evals.dictionaries.conftest import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_sites_and_layers_stand_in_front(case, kind):
  dictionary = case.dictionaries[kind]
  run = Run(make_probe(case.lm, [dictionary], False), case.batch)
  seen = see(run, dictionary)
  sites = len(dictionary.sites_in)
  parts = sites if hasattr(dictionary, "encode_at") else 1
  assert seen.x.shape == (sites, 3, 16, dictionary.width_in)
  assert seen.target.shape == seen.rebuilt.shape
  assert seen.latents.shape == (parts, 3, 16, dictionary.num_latents)
  given = seen.x if sites > 1 else seen.x[0]
  latents = dictionary.encode(given)
  whole = np.asarray(dictionary.decode(latents))
  found = np.asarray(decoded(dictionary, seen.latents))
  np.testing.assert_array_equal(found.reshape(whole.shape), whole)
  part = np.asarray(decode_prefix(dictionary, latents, 8))
  found = np.asarray(decoded(dictionary, seen.latents, 8))
  np.testing.assert_array_equal(found.reshape(part.shape), part)
