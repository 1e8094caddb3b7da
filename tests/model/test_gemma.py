"""The model: every site against the oracle, and nothing computed unasked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.activations.run import forward
from gemma_scope.model import attention_kernel, gemma, stack
from gemma_scope.model.build import abstract_gemma, random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.model.placement import placement_of, places_of
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery import tap
from gemma_scope.testing import oracle, programs
from gemma_scope.testing.tiny import tiny_config
from tests.goldens import shapes

LAYERS = 8
# A sequence past the window of 8, padding, and packed sequences with padding.
SEGMENTS = np.array(
  [[1] * 24, [1] * 15 + [0] * 9, [1] * 5 + [2] * 9 + [7] * 6 + [0] * 4],
  np.int32,
)
SEQUENCES = [(0, 0, 24), (1, 0, 15), (2, 0, 5), (2, 5, 9), (2, 14, 6)]
_RANDOM = np.random.default_rng(0).integers(2, 512, SEGMENTS.shape)
TOKENS = np.where(SEGMENTS > 0, _RANDOM, 0).astype(np.int32)
STREAM = ("batch", "seq", "embedding")
TOLERANCE = 1e-5
# Probabilities amplify the rounding of scores.
LOOSER = dict.fromkeys(("pattern", "z", "attn_proj", "attn_write"), 2e-5)


@pytest.fixture(scope="module")
def config():
  return tiny_config(num_layers=LAYERS)


@pytest.fixture(scope="module")
def tensors(config):
  return random_tensors(config, 0)


@pytest.fixture(scope="module")
def model(config, tensors):
  return tensors_to_gemma(tensors, config)


@pytest.fixture(scope="module")
def expected(config, tensors):
  """(row, first column) -> every site of that sequence, run alone."""
  return {
    (row, first): oracle.oracle_forward(
      tensors, config, TOKENS[row, first : first + length]
    )
    for row, first, length in SEQUENCES
  }


def check(values, expected):
  for (row, first), truth in expected.items():
    for name, error in oracle.relative_errors(
      values, truth, row, first
    ).items():
      assert error < LOOSER.get(name, TOLERANCE), (row, first, name)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_shapes_of_all_sizes_equal_the_oracle(shape_run, name):
  """Heads 4/1 to 32/16, RoPE factors, the 27B's scale, padding, windows."""
  run = shape_run(name)
  assert set(run.values) == set(oracle.every_site(run.config.num_layers))
  truth = {
    (row, 0): oracle.oracle_forward(
      run.tensors, run.config, run.tokens[row, :length]
    )
    for row, length in enumerate(shapes.LENGTHS)
  }
  check(run.values, truth)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "blocked"])
def test_padding_and_packing_equal_each_sequence_alone(
  model, expected, dense, monkeypatch
):
  """The dense pattern, and query blocks of 5 that do not divide the row."""
  monkeypatch.setattr(attention_kernel, "MIN_BLOCK", 5)
  stack.run_block.clear_cache()
  sites = oracle.every_site(LAYERS)
  if not dense:
    sites = [site for site in sites if site.name != "pattern"]
  run = jax.jit(lambda m: gemma.run(m, TOKENS, SEGMENTS)[1])
  values = run(tap(model, sites))
  stack.run_block.clear_cache()
  assert len(values) == len(sites) - 2
  check(values, expected)


def test_patterns_do_not_cross_sequences(model):
  sites = resolve("pattern[4,5]", LAYERS)
  values = forward(tap(model, sites), TOKENS, SEGMENTS, TOKENS[0])
  other = SEGMENTS[:, None, :, None] != SEGMENTS[:, None, None, :]
  for site in sites:
    pattern = np.asarray(values[site].unwrap(*site.info.axes))
    assert (pattern[np.broadcast_to(other, pattern.shape)] == 0).all()


def test_calling_the_model_gives_the_logits(model, expected):
  rows = TOKENS[:2]  # the second is padded by id 0
  ids = pz.nx.wrap(jnp.asarray(rows), "batch", "seq")
  logits = jax.jit(lambda m, ids: m(ids))(model, ids)
  assert set(logits.named_axes) == {"batch", "seq", "vocabulary"}
  for row in range(2):
    truth = expected[row, 0]
    errors = oracle.relative_errors({Site("logits"): logits}, truth, row)
    assert errors["logits"] < TOLERANCE


@pytest.mark.parametrize(
  ("ids", "segments"),
  [
    ([5, 6, 7], [1, 1, 1]),
    ([5, 6, 0], [1, 1, 0]),
    ([5, 0, 7, 0, 0], [1, 1, 1, 0, 0]),
    ([0, 0], [0, 0]),
  ],
)
def test_only_zeros_at_the_end_are_padding(ids, segments):
  found = gemma.segments_of(jnp.asarray([ids, ids]))
  assert found.tolist() == [segments, segments]


def test_embeddings_are_scaled_by_the_rounded_root():
  """sqrt(1152) = 33.94 is 34 in bfloat16."""
  config = dataclasses.replace(tiny_config(num_layers=1), d_model=1152)
  for dtype, scale in ((jnp.bfloat16, 34.0), (jnp.float32, 1152**0.5)):
    model = tensors_to_gemma(random_tensors(config, 0), config, dtype)
    ids = jnp.asarray([[7, 3]])
    placement = placement_of(places_of(jnp.ones_like(ids)), config)
    value, taps = gemma.embed(model, ids, placement)
    row = model.table.unwrap("vocabulary", "embedding")[3]
    expected = (row.astype(jnp.float32) * scale).astype(dtype)
    np.testing.assert_array_equal(value.unwrap(*STREAM)[0, 1], expected)
    assert taps == {}


def _traced(model, outer, tokens=16):
  ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
  columns = jax.ShapeDtypeStruct((1,), jnp.int32)
  return programs.operations(
    lambda m, i, s, c: forward(m, i, s, c, outer), model, ids, ids, columns
  )


@pytest.mark.parametrize("outer", ["", "final_norm", "logits"])
def test_no_logits_unless_asked_for_and_only_where(outer):
  config = tiny_config(num_layers=LAYERS, vocab_size=509)
  sites = resolve(["embed", "resid_post[:]", "final_norm"], LAYERS)
  found = _traced(tap(abstract_gemma(config), sites), outer)
  wide = {shape for op in found for shape in op.shapes if 509 in shape}
  assert wide == ({(1, 509), (1, 1, 509)} if outer == "logits" else set())


def test_the_final_norm_is_not_computed_unasked():
  model = abstract_gemma(tiny_config(num_layers=LAYERS))
  norms = {
    outer: programs.count(_traced(model, outer), "rsqrt")
    for outer in ("", "final_norm")
  }
  assert norms == {"": 6 * LAYERS, "final_norm": 6 * LAYERS + 1}


@pytest.mark.parametrize("scan", [True, False])
def test_the_pattern_exists_only_where_it_is_tapped(scan):
  """A dense pattern is 4 x 2048 x 2048; blocks are an eighth of it."""
  dense = 4 * 2048 * 2048
  model = abstract_gemma(tiny_config(num_layers=LAYERS), scan=scan)
  found = _traced(model, "", tokens=2048)
  assert programs.largest(found) == dense // 8
  site = Site("pattern", 5)
  found = _traced(tap(model, [site]), "", tokens=2048)
  softmax = [
    op
    for op in found
    if op.name == "exp" and op.shapes[0][1:] == (4, 2048, 2048)
  ]
  assert sum(op.times for op in softmax) == 1


def test_local_layers_touch_their_window_only():
  model = abstract_gemma(tiny_config(num_layers=4))  # no global layer
  found = _traced(model, "", tokens=2048)
  scores = [op.shapes[0] for op in found if op.name == "exp"]
  assert scores == [(1, 4, 256, 256), *[(1, 4, 256, 263)] * 7] * 4


def test_bfloat16_stays_near_and_accumulates_in_float32(
  model, config, tensors, expected
):
  rounded = tensors_to_gemma(tensors, config, jnp.bfloat16)
  sites = oracle.every_site(LAYERS)
  values = forward(
    tap(rounded, sites), TOKENS, SEGMENTS, np.arange(24), "logits"
  )
  for site, value in values.items():
    wide = site.name in ("pattern", "logits")
    assert value.dtype == (jnp.float32 if wide else jnp.bfloat16), site
  errors = oracle.relative_errors(values, expected[0, 0])
  assert errors["resid_post"] < 0.05
  assert max(errors.values()) < 0.15


def test_logits_of_chosen_tokens_are_float32(model):
  rows = jnp.asarray(
    np.random.default_rng(0).normal(size=(3, 32)), jnp.bfloat16
  )
  table = model.table.data_array[jnp.asarray([5, 9])].astype(jnp.bfloat16)
  found = gemma.token_logits(rows, table)
  assert found.dtype == jnp.float32
  exact = rows.astype(jnp.float32) @ table.astype(jnp.float32).T
  np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
