"""Scores against float64 runs in which one reader alone sees a change."""

import jax.numpy as jnp
import numpy as np
import pytest

from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.composites import CP_LRP
from gemma_scope.attribution.patching.approximate import approximate_patching
from gemma_scope.attribution.patching.edge_paths import scores_of
from gemma_scope.attribution.patching.edges import edge_attribution
from gemma_scope.attribution.patching.question import EstimateOptions
from gemma_scope.testing.tiny import tiny_config
from tests.attribution.conftest import make_double
from tests.attribution.patching.edge_oracle import EdgeOracle, edge_slope
from tests.attribution.patching.patch_checks import other_prompt

WANTED = logit_difference(7, 9)


@pytest.fixture(scope="module")
def three():
  """A model of three layers."""
  return make_double(tiny_config(num_layers=3, window=4))


@pytest.fixture(scope="module")
def scores(three):
  source = other_prompt(three.ids)
  return edge_attribution(three.lm, source, three.ids, WANTED, steps=0)


@pytest.fixture(scope="module")
def oracle(three):
  """The base run, and what each writer writes more in the source run."""
  base = EdgeOracle(three.tensors, three.config, three.ids)
  source = EdgeOracle(three.tensors, three.config, other_prompt(three.ids))
  ours, theirs = base.run()[1], source.run()[1]
  return base, {label: theirs[label] - ours[label] for label in ours}


READERS = (
  *("query[0].1", "key[0].0", "value[0].1", "mlp_in[0]", "query[1].3"),
  *("key[1].1", "value[1].0", "mlp_in[1]", "key[2].0", "value[2].1"),
  *("query[2].2", "mlp_in[2]", "final_norm"),
)


@pytest.mark.parametrize("writer", ["embed", "attn_write[0].2", "mlp_write[1]"])
def test_edges_are_finite_differences(scores, oracle, writer):
  base, changes = oracle
  labels = list(map(str, scores.readers))
  row = list(map(str, scores.writers)).index(writer)
  for reader in READERS:
    column = labels.index(reader)
    if not scores.present[row, column]:
      assert scores.matrix[row, column] == 0
      continue
    expected = edge_slope(base, reader, changes[writer])
    np.testing.assert_allclose(
      scores[writer, reader], expected, rtol=2e-3, atol=1e-6
    )


@pytest.mark.parametrize("steps", [0, 3])
def test_edges_of_a_writer_add_up_to_its_node(three, steps):
  source = other_prompt(three.ids)
  scores = edge_attribution(three.lm, source, three.ids, WANTED, steps=steps)
  at = ("embed", "attn_write[:]", "mlp_write[:]")
  method = "integrated_gradients" if steps else "attribution_patching"
  nodes = approximate_patching(
    three.lm,
    source,
    three.ids,
    WANTED,
    method=method,
    at=at,
    options=EstimateOptions(steps=max(steps, 1)),
  )
  for site in nodes:
    expected = nodes.per_position(site).sum()
    if site.name == "attn_write":
      found = sum(scores.node(f"{site}.{n}") for n in range(4))
    else:
      found = scores.node(str(site))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rules_are_those_of_relevance_patching(three):
  source = other_prompt(three.ids)
  scores = edge_attribution(
    three.lm, source, three.ids, WANTED, steps=0, rules=CP_LRP
  )
  nodes = approximate_patching(
    three.lm,
    source,
    three.ids,
    WANTED,
    method="relp",
    at=("mlp_write[:]", "attn_write[:]"),
  )
  for layer in range(3):
    found = scores.node(f"mlp_write[{layer}]")
    expected = nodes.per_position(f"mlp_write[{layer}]").sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  queries = [i for i, r in enumerate(scores.readers) if r.site.name == "query"]
  assert not scores.matrix[:, queries].any()


def test_points_are_averaged_pair_by_pair():
  rng = np.random.default_rng(0)
  written = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
  slope = rng.normal(size=(6, 2 * 3, 4, 5)).astype(np.float32)
  weights = np.asarray([0.25, 0.75], np.float32)
  found = scores_of(jnp.asarray(written), slope, weights, True)
  expected = np.zeros((3, 2, 6, 4))
  for b in range(3):
    mean = 0.25 * slope[:, b] + 0.75 * slope[:, 3 + b]
    expected[b] = np.einsum("usd,vsd->uvs", written[:, b], mean)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  summed = scores_of(jnp.asarray(written), slope, weights, False)
  np.testing.assert_allclose(summed, expected.sum(-1), rtol=1e-4, atol=1e-4)
