"""The programs, layer by layer, against the model's own stack."""

import numpy as np

from gemma_scope.activations.run import capture
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching import programs
from gemma_scope.attribution.patching.layers import layer_of
from gemma_scope.attribution.patching.leaders import STREAM, start

CLEAN, CORRUPT = " the capital of France is", " the capital of Rome is"


def test_layers_one_by_one_are_the_stack(scanned):
  lm = scanned.lm
  *_, pairs = to_pairs(lm, CLEAN, CORRUPT, logit_difference(7, 9))
  leaders = start(lm.model, pairs)
  assert leaders.pairs == 1
  seen = [capture(lm, t, ["resid_post[:]"]) for t in (CLEAN, CORRUPT)]
  for layer in range(lm.config.num_layers):
    one = layer_of(lm.model, layer, ())
    leaders, _, _ = programs.lead(one, leaders, ())
    found = leaders.stream.unwrap(*STREAM)
    for row, by_site in zip(found, seen):
      expected = by_site[f"resid_post[{layer}]"].unwrap(*STREAM)[0]
      np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-5)
