"""Patched runs against full float64 forward passes with the same edit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope import axes, errors, surgery
from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import TokenBatch
from gemma_scope.attribution import activation, logit_difference
from gemma_scope.attribution.evaluate import ask, evaluate
from gemma_scope.attribution.patching import programs
from gemma_scope.attribution.patching.sweep import PatchOptions, patch
from gemma_scope.sites import SITES, Site
from gemma_scope.surgery.splice import splice
from gemma_scope.testing import oracle
from gemma_scope.testing.dictionaries import (
  random_cross_layer,
  random_crosscoder,
  random_sae,
)
from gemma_scope.testing.tiny import tiny_gemma

A, B = 7, 9
TARGET = {A: 1.0, B: -1.0}
PATCHED = [n for n in SITES if n not in ("final_norm", "logits")]
EVERY = [n + ("[:]" if SITES[n].per_layer else "") for n in PATCHED]


@pytest.fixture(scope="module")
def other(scanned):
  """A prompt that differs in two tokens; longer than the window."""
  ids = scanned.ids.copy()
  ids[[2, 3]] = [300, 17]
  assert len(ids) > scanned.config.window
  return ids


@pytest.fixture(scope="module")
def everything(scanned, other):
  """Every site, layer, position and head."""
  return patch(scanned.lm, other, scanned.ids, logit_difference(A, B), at=EVERY)


def slow(double, source, base, site, position=None, head=None):
  """One full forward pass of the base prompt with one thing put in."""
  put = double.site(site, source)
  names = [n for n in site.info.axes if n != axes.BATCH]

  def edit(value):
    index = [slice(None)] * value.ndim
    for axis, at in ((axes.SEQ, position), (head_axis(site), head)):
      if at is not None:
        index[names.index(axis)] = at
    value = value.copy()
    value[tuple(index)] = put[tuple(index)]
    return value

  return double.value(TARGET, {site: edit}, ids=base)


def head_axis(site):
  return next((n for n in site.info.axes if n.endswith("heads")), None)


def assert_cells_agree(sweep, double, source, base, picked):
  found, expected = [], []
  for site, index in picked:
    value = sweep[site]
    place = dict(zip(value.named_axes, index))
    head = place.get(axes.HEADS, place.get(axes.KV_HEADS))
    found.append(float(value.data_array[tuple(index)]))
    expected.append(slow(double, source, base, site, place.get(axes.SEQ), head))
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def some_cells(sweep, count, seed=0, row=0):
  """Random cells of every site, [(site, index)]."""
  rng = np.random.default_rng(seed)
  names = sweep.names()
  for name in names:
    sites = [site for site in sweep if site.name == name]
    for _ in range(count):
      site = sites[rng.integers(len(sites))]
      shape = sweep[site].data_array.shape
      yield site, (row, *(int(rng.integers(n)) for n in shape[1:]))


def test_each_run_is_a_forward_pass_with_an_edit(everything, scanned, other):
  assert set(everything.names()) == set(PATCHED)
  for site, value in everything.items():
    shape = [n for n in value.named_axes if n not in (axes.BATCH, axes.SEQ)]
    assert shape == ([head_axis(site)] if head_axis(site) else [])
    assert np.isfinite(value.data_array).all()
  picked = list(some_cells(everything, 5))
  assert_cells_agree(everything, scanned, other, scanned.ids, picked)


def test_unpatched_runs_are_the_ends(everything, scanned, other):
  for value, ids in ((everything.source, other), (everything.base, None)):
    expected = scanned.value(TARGET, ids=ids)
    np.testing.assert_allclose(value, [expected], rtol=2e-5)
  first = everything["resid_pre[0]"].data_array
  np.testing.assert_array_equal(first, everything["embed"].data_array)
  last = everything["resid_post[6]"].data_array[0]
  np.testing.assert_allclose(last[-1], everything.source[0], rtol=1e-5)
  np.testing.assert_allclose(last[:-1], everything.base[0], rtol=1e-5)


def test_an_unrolled_stack_gives_the_same(everything, scanned, other):
  model = tiny_gemma(scanned.config, scan=False)
  sweep = patch(
    scanned.lm.replace(model),
    *(other, scanned.ids, logit_difference(A, B)),
    at=["resid_pre[:]", "z[2,5]"],
  )
  for site, value in sweep.items():
    np.testing.assert_allclose(
      value.data_array, everything[site].data_array, atol=1e-5
    )


AT = ["resid_pre[:]", "key[1]", "embed"]


@pytest.fixture(scope="module")
def few(double, other):
  """Some sites of two layers."""
  return patch(double.lm, other, double.ids, logit_difference(A, B), at=AT)


def assert_same(sweep, other, atol=1e-5):
  for site, value in sweep.items():
    np.testing.assert_allclose(
      value.data_array, other[site].data_array, atol=atol
    )


def test_small_chunks_and_waves_give_the_same(few, double, other):
  one = len(other) * double.config.d_model * 4
  options = PatchOptions(chunk=3, memory=2 * 10 * one)  # seven runs a wave
  told = []
  sweep = patch(
    *(double.lm, other, double.ids, logit_difference(A, B)),
    at=AT,
    options=options,
    progress=lambda _, done: told.append(done),
  )
  assert_same(sweep, few)
  assert told == sorted(told)
  assert told[-1] == pytest.approx(1.0)
  assert len(told) > double.config.num_layers  # several waves


def test_pairs_of_unequal_length_are_each_their_own(double):
  tokenize = double.lm.tokenizer.encode
  clean = [tokenize(" the capital of France is"), tokenize(" Mary")]
  corrupt = [tokenize(" the capital of Rome is"), tokenize(" John")]
  sweep = patch(double.lm, clean, corrupt, logit_difference(A, B), at=AT)
  lengths = sweep.tokens.lengths
  assert lengths[0] > lengths[1]
  for row, (source, base) in enumerate(zip(clean, corrupt)):
    picked = []
    for site in sweep:
      values = np.asarray(sweep.effect()[site].data_array)[row]
      assert np.isfinite(values[: lengths[row]]).all()
      assert np.isnan(values[lengths[row] :]).all()
      size = np.nan_to_num(np.abs(values))
      place = np.unravel_index(size.argmax(), size.shape)
      picked.append((site, (row, *map(int, place))))
    source, base = np.asarray(source), np.asarray(base)
    assert_cells_agree(sweep, double, source, base, picked)


def test_all_positions_and_all_heads(double, other):
  run = functools.partial(
    *(patch, double.lm, other, double.ids, logit_difference(A, B)),
    at=["resid_pre[:]", "key[1]"],
    positions="all",
  )
  sweep = run(options=PatchOptions(heads="all"))
  for site, value in sweep.items():
    assert tuple(value.named_axes) == (axes.BATCH,)
    expected = slow(double, other, double.ids, site)
    np.testing.assert_allclose(value.data_array, [expected], atol=2e-5)
  np.testing.assert_allclose(
    sweep["resid_pre[0]"].data_array, sweep.source, rtol=1e-6
  )
  sweep = run()
  heads = dict(sweep["key[1]"].named_axes)
  assert heads == {axes.BATCH: 1, axes.KV_HEADS: 2}
  picked = [(Site("key", 1), (0, head)) for head in range(2)]
  assert_cells_agree(sweep, double, other, double.ids, picked)


def test_chosen_columns_count_from_either_end(few, double, other):
  sweep = patch(
    *(double.lm, other, double.ids, logit_difference(A, B)),
    at=AT,
    positions=[2, -1],
  )
  np.testing.assert_array_equal(sweep.columns, [[2, len(other) - 1]])
  for site, value in sweep.items():
    expected = np.asarray(few[site].data_array)[:, [2, -1]]
    np.testing.assert_allclose(value.data_array, expected, atol=1e-5)
  assert {cell.position for cell in sweep.best(9)} == {2, len(other) - 1}


def test_a_prompt_put_into_itself_changes_nothing(double):
  sweep = patch(
    double.lm, double.ids, double.ids, logit_difference(A, B), at=AT
  )
  for value in sweep.effect().values():
    np.testing.assert_allclose(value.data_array, 0, atol=2e-5)


def halve(value):
  return value * 0.5


def test_edits_stay_in_force_before_and_after(double, other):
  edits = {Site("attn_write", 0): halve, Site("z", 1): halve}
  lm = double.lm.replace(surgery.edit(double.lm.model, list(edits), halve))
  sweep = patch(
    lm,
    *(other, double.ids, logit_difference(A, B)),
    at=["attn_write[0]", "resid_pre[1]", "z[1]"],
  )
  run = functools.partial(oracle.oracle_forward, double.tensors, double.config)
  source = run(other, edits)
  for site, index in some_cells(sweep, 3):

    def put(value, site=site, index=index):
      place = index[1:]
      value = edits.get(site, lambda v: v)(value).copy()
      value[place] = source[site][place]
      return value

    logits = run(double.ids, edits | {site: put})[Site("logits")][-1]
    np.testing.assert_allclose(
      sweep[site].data_array[index], logits[A] - logits[B], atol=2e-5
    )


def test_latents_and_error_of_a_spliced_dictionary(double, other):
  spliced = splice(double.lm.model, random_sae(layer=0))
  lm = double.lm.replace(spliced)
  target = logit_difference(A, B)
  at = ["resid_post[0].latents", "resid_post[0].error"]
  sweep = patch(lm, other, double.ids, target, at=at)
  _, rows, resolved = ask(lm, double.ids, target)
  last = len(other) - 1
  for site, value in sweep.items():
    ours, theirs = (
      capture(lm, ids, [site])[site].unwrap(*site.info.axes)
      for ids in (double.ids, other)
    )
    put = pz.nx.wrap(ours.at[0, last].set(theirs[0, last]), *site.info.axes)
    changed = surgery.replace(spliced, [site])
    expected, _ = evaluate(changed, rows, resolved, {site: put})
    found = value.data_array[0]
    np.testing.assert_allclose(found[last], expected[0], atol=2e-5)
    assert abs(found[last] - sweep.base[0]) > 0.01


@pytest.mark.parametrize("layer", [0, 1])
def test_targets_inside_the_model_are_read_in_their_layer(double, other, layer):
  site = Site("mlp_act", layer)
  sweep = patch(
    double.lm,
    *(other, double.ids, activation(site, {"neurons": 5}, position=4)),
    at=["resid_pre[:]", "mlp_act[0]"],
  )
  for patched, index in some_cells(sweep, 8):

    def put(value, patched=patched, index=index):
      value = value.copy()
      value[index[1]] = double.site(patched, other)[index[1]]
      return value

    seen = oracle.oracle_forward(
      *(double.tensors, double.config, double.ids), {patched: put}
    )
    np.testing.assert_allclose(
      sweep[patched].data_array[index], seen[site][4, 5], atol=2e-5
    )
  np.testing.assert_allclose(
    sweep.source[0], double.site(site, other)[4, 5], atol=2e-5
  )


def test_packed_rows_stay_apart(few, double, other):
  length = len(other)
  segments = np.repeat([1, 2], length).astype(np.int32)[None]
  source, base = (
    TokenBatch(np.concatenate(ids).astype(np.int32)[None], segments, True)
    for ids in ((other, double.ids), (double.ids, double.ids))
  )
  target = logit_difference(A, B, position=length - 1)
  packed = patch(double.lm, source, base, target, at=AT)
  for site, value in packed.items():
    found, alone = (np.asarray(v.data_array)[0] for v in (value, few[site]))
    np.testing.assert_allclose(found[:length], alone, atol=2e-5)
    np.testing.assert_allclose(found[length:] - packed.base[0], 0, atol=2e-5)


def test_bfloat16_stays_near(few, double, other):
  model = jax.tree.map(
    lambda a: a.astype(jnp.bfloat16) if a.dtype == jnp.float32 else a,
    double.lm.model,
  )
  lm = double.lm.replace(model)
  sweep = patch(lm, other, double.ids, logit_difference(A, B), at=AT)
  assert all(v.data_array.dtype == np.float32 for v in sweep.values())
  assert_same(sweep, few, atol=0.1)


def test_equal_shapes_compile_once(few, double, other):
  functions = (programs.lead, programs.enter, programs.advance, programs.finish)
  before = [f._cache_size() for f in functions]
  assert all(before)
  again = patch(double.lm, double.ids, other, logit_difference(A + 1, B), at=AT)
  assert [f._cache_size() for f in functions] == before
  assert again.source[0] != few.base[0]


@pytest.mark.parametrize(
  ("at", "message"),
  [
    ("final_norm", "Nothing behind the last layer"),
    (["logits"], "resid_post"),
    ([], "no site to patch"),
    ("z[9]", "The model has 7 layers"),
  ],
)
def test_sites_without_a_patch_are_refused(scanned, other, at, message):
  with pytest.raises(errors.SiteError, match=message):
    patch(scanned.lm, other, scanned.ids, logit_difference(A, B), at=at)


def test_a_target_before_the_layers_is_refused(double, other):
  target = activation("embed", {"embedding": 3})
  with pytest.raises(
    errors.SiteError, match=r"reads the embeddings(.|\n)*resid_post\[0\]"
  ):
    patch(double.lm, other, double.ids, target, at=["resid_pre[0]"])


@pytest.mark.parametrize("make", [random_crosscoder, random_cross_layer])
def test_dictionaries_of_several_layers_are_refused(scanned, other, make):
  """A run that enters in the middle would miss what they carry over."""
  lm = scanned.lm.replace(splice(scanned.lm.model, make(count=2)))
  with pytest.raises(
    errors.ConfigError, match=r"exchange values(.|\n)*one layer each"
  ):
    patch(lm, other, scanned.ids, logit_difference(A, B), at=["resid_pre[0]"])


def test_options_that_mean_nothing_are_refused(double, other):
  with pytest.raises(errors.ConfigError, match='heads="each" or heads="all"'):
    PatchOptions(heads="both")
  with pytest.raises(errors.ConfigError, match="room for one run"):
    PatchOptions(chunk=0)
  with pytest.raises(errors.ConfigError, match="does not hold a single run"):
    patch(
      double.lm,
      *(other, double.ids, logit_difference(A, B)),
      options=PatchOptions(memory=10),
    )


CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"


@pytest.mark.real
def test_the_second_subject_decides_the_answer(real_lm):
  sweep = patch(
    real_lm,
    *(CLEAN, CORRUPT, logit_difference(" Mary", " John")),
    at=["resid_pre[6]", "resid_post[17]"],
    positions=[3, 10, -1],
  )
  assert sweep.source[0] > 2
  assert sweep.base[0] < -2
  at_subject = sweep["resid_pre[6]"].data_array[0]
  assert sweep.token_label(0, 10) == " Mary ←  John"
  assert at_subject[1] > 2  # flipped
  assert at_subject[0] < -2  # where the prompts agree, nothing has changed
  np.testing.assert_allclose(
    sweep["resid_post[17]"].data_array[0, -1], sweep.source[0], rtol=1e-3
  )
