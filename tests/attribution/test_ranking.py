"""Elements ranked by relevance, against sums written out."""

import numpy as np
from penzai import pz
import pytest

from gemma_scope import errors
from gemma_scope.attribution import ranking
from gemma_scope.sites import Site

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((2, 5, 3, 4)).astype(np.float32)
NEURONS = RNG.standard_normal((2, 5, 7)).astype(np.float32)
NAMED = {
  Site("z", 1): pz.nx.wrap(Z, "batch", "seq", "heads", "projection"),
  Site("mlp_act", 1): pz.nx.wrap(NEURONS, "batch", "seq", "neurons"),
}


def test_elements_are_sums_over_everything_else():
  heads = ranking.per_element(NAMED[Site("z", 1)], "heads")
  np.testing.assert_allclose(heads, Z.sum((1, 3)), rtol=1e-5, atol=1e-6)
  pattern = pz.nx.wrap(Z, "batch", "seq", "kv_heads", "kv_seq")
  assert ranking.element_axis(pattern) == "kv_heads"
  turned = pz.nx.wrap(NEURONS.T, "neurons", "seq", "batch")
  found = ranking.per_element(turned, "neurons")
  np.testing.assert_allclose(found, NEURONS.sum(1), rtol=1e-5, atol=1e-6)


def test_sites_are_ranked_together_by_size():
  rows = ranking.top(NAMED, 4)
  assert len(rows) == 2
  for i, row in enumerate(rows):
    every = [(f"z[1] heads {h}", Z[i, :, h].sum()) for h in range(3)]
    every += [
      (f"mlp_act[1] neurons {n}", NEURONS[i, :, n].sum()) for n in range(7)
    ]
    every.sort(key=lambda pair: -abs(pair[1]))
    assert [str(r).partition(":")[0] for r in row] == [n for n, _ in every[:4]]
    np.testing.assert_allclose(
      [r.relevance for r in row], [v for _, v in every[:4]], rtol=1e-4
    )
  assert len(ranking.top(NAMED, 99)[0]) == 10


def test_what_has_no_such_elements_is_refused():
  with pytest.raises(errors.ConfigError, match=r"no such elements.*\n.*heads"):
    ranking.per_element(NAMED[Site("mlp_act", 1)], "heads")
  sums = pz.nx.wrap(Z[..., 0, 0], "batch", "seq")
  with pytest.raises(errors.ConfigError, match="no elements to rank"):
    ranking.top({Site("embed"): sums}, 3)
