"""Groups of pairs, and their estimates put together again."""

import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching.question import Estimates, groups, joined
from gemma_scope.sites import Site

TEXTS = [" the capital of France is", " Mary", " John"]


def test_groups_have_one_size_and_every_pair_once(double):
  target = logit_difference([7, 8, 6], 9)
  *_, pairs = to_pairs(double.lm, TEXTS, TEXTS, target)
  width = pairs.base.ids.shape[1]
  found = list(groups(pairs, 2 * width))
  assert [count for _, count in found] == [2, 1]
  assert [some.base.ids.shape[0] for some, _ in found] == [2, 2]
  ids = np.concatenate([some.base.ids[:count] for some, count in found])
  np.testing.assert_array_equal(ids, pairs.base.ids)
  tokens = [some.target.ids[:count, 0] for some, count in found]
  np.testing.assert_array_equal(np.concatenate(tokens), [7, 8, 6])
  (alone, count), *rest = groups(pairs, 1)
  assert (alone.base.ids.shape[0], count, len(rest)) == (1, 1, 2)


def test_joined_leaves_fillers_out():
  site = Site("z", 1)

  def part(first):
    value = np.arange(first, first + 2.0)
    cells = pz.nx.wrap(jnp.asarray(value)[:, None, None], *AXES)
    return Estimates(value, -value, {site: cells}, {})

  found = joined([(part(0), 2), (part(2), 1)])
  np.testing.assert_array_equal(found.source, [0, 1, 2])
  np.testing.assert_array_equal(found.base, [0, -1, -2])
  assert dict(found.values[site].named_shape) == dict(zip(AXES, (3, 1, 1)))
  assert found.magnitudes == {}


AXES = (axes.BATCH, axes.SEQ, axes.HEADS)
