"""Edited models write with a cache what they write without one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope import surgery
from gemma_scope.activations.generate import generate
from gemma_scope.errors import ConfigError, SiteError, TextError
from gemma_scope.model import gemma
from gemma_scope.sites import resolve
from gemma_scope.surgery import intervene, splice, tap
from gemma_scope.testing.tiny import tiny_config, tiny_gemma
from tests.surgery.stand_ins import Cross, CrossLayer, normal, sae

NEW = 12
# Tokens that come again; shorter and longer than the window of 8.
PROMPTS = [[2, 7, 5, 7], [2, 5, 7, 9, 5, 7, 11, 7, 8, 5, 12, 7]]
VECTOR = np.random.default_rng(2).normal(size=32) * 6
WIDTH = 32


@functools.partial(jax.jit, static_argnums=1)
def next_token(model, prompt, ids, length):
  """The next token, of a whole pass that knows where the prompt ends."""
  segments = (jnp.arange(WIDTH) < length).astype(jnp.int32)[None]
  prompts = jnp.full_like(segments, prompt)
  placement = gemma.place(model, ids, segments, prompts)
  residual, _ = gemma.run(model, ids, segments, prompts=prompts)
  normed, _ = gemma.apply_final_norm(model, residual, placement)
  logits, _ = gemma.unembed(model, normed, placement)
  rows = logits.unwrap("batch", "seq", "vocabulary")[0]
  return jnp.argmax(rows[length - 1])


def uncached(model, prompt):
  ids = list(prompt)
  for _ in range(NEW):
    row = np.zeros((1, WIDTH), np.int32)
    row[0, : len(ids)] = ids
    ids.append(int(next_token(model, len(prompt), row, len(ids))))
    if ids[-1] in (1, 106):
      break
  return tuple(ids[len(prompt) :])


def frozen(*specs):
  def edit(model):
    ids = np.asarray([PROMPTS[1][:6]])
    sites = resolve(specs, 3)
    _, run = jax.jit(gemma.run)(tap(model, sites), ids, np.ones_like(ids))
    return intervene(model, surgery.patch(sites, run))

  return edit


def many(name, *layers):
  return tuple(f"{name}[{i}]" for i in layers)


def at(*where):
  """Steers each site at some positions."""

  def edit(model):
    edits = [surgery.steer(site, VECTOR, positions=p) for site, p in where]
    return intervene(model, edits)

  return edit


MID, POST, MLP = "resid_mid[1]", "resid_post[0]", "mlp_write[2]"
CROSSED = many("resid_post", 0, 2)
EDITS = {
  "positions": at(
    *((POST, 2), (POST, -2), (MID, 14), ("embed", [5, 7])),
    *((MID, slice(2, 9)), (MLP, slice(1, None, 3)), ("attn_write[2]", None)),
    *((POST, slice(-1, None)), (MLP, slice(None, -1))),
  ),
  "tokens": at(
    *((POST, surgery.occurrence(7, 1)), (MID, surgery.occurrence(5, None))),
    *((MLP, surgery.all_but_bos()), ("embed", surgery.generated())),
    (POST, surgery.generated() & ~surgery.occurrence(7)),
    ("final_norm", slice(4, None, 2)),
  ),
  "heads and logits": lambda m: intervene(
    m,
    [
      surgery.scale("key[:]", 0.5, positions=3, heads=[1]),
      surgery.add("logits", 9.0, units=[33], positions=slice(5, 9)),
    ],
  ),
  "other runs": frozen(
    *("resid_mid[1]", "pattern[0,1]", "attn_in[:].inverse_rms"),
    "query[2].inverse_rms",
  ),
  "dictionaries": lambda m: splice(
    m,
    {
      "resid_post[1]": sae(),
      ("mlp_in[1]", "mlp_write[1]"): sae(seed=4),
      (many("mlp_in", 0, 2), many("mlp_write", 0, 2)): CrossLayer(
        normal(1, 2, 32, 10), normal(2, 2, 2, 10, 32), normal(3, 2, 32, 32)
      ),
    },
    "drop",
  ),
  "crosscoder": lambda m: splice(
    m,
    {(CROSSED, CROSSED): Cross(normal(4, 2, 32, 10), normal(5, 2, 10, 32))},
    "drop",
  ),
}


@pytest.fixture(scope="module")
def lm(tiny_lm):
  """Three layers: a scanned period, its second layer global, and one more."""
  config = dataclasses.replace(tiny_config(num_layers=3), period=2)
  lm = dataclasses.replace(tiny_lm, config=config)
  return lm.replace(tiny_gemma(config))


@pytest.fixture(scope="module")
def plain(lm):
  return generate(lm, PROMPTS, max_new_tokens=NEW).ids


@pytest.mark.parametrize("name", EDITS)
def test_with_a_cache_as_without(lm, plain, name):
  model = EDITS[name](lm.model)
  found = generate(lm.replace(model), PROMPTS, max_new_tokens=NEW)
  for prompt, ids in zip(PROMPTS, found.ids):
    assert ids == uncached(model, prompt)
  assert found.ids != plain


def test_every_token_is_told_where_it_stands(lm):
  """Edits that dictate the next token write a text that rules foretell."""
  rules = [
    (slice(-1, None), 33),
    (surgery.occurrence(33, 2), 44),
    (surgery.generated() & ~surgery.occurrence(33, None), 55),
    (surgery.generated() & surgery.occurrence(55, 1), 66),
    (9, 77),
  ]
  edits = [
    surgery.add("logits", 1e3 * 2**i, units=[unit], positions=p)
    for i, (p, unit) in enumerate(rules)
  ]
  prompts = [[2, 9, 7], [2, 33, 7, 9, 33, 8]]
  found = generate(
    lm.replace(intervene(lm.model, edits)), prompts, max_new_tokens=8
  )
  # The third 33 is answered by 44; 44 by 55, 55 by 55, its second by 66, 66 by
  # 55; what stands at position 9 by 77.
  assert found.ids == (
    (33, 33, 33, 44, 55, 55, 66, 77),
    (33, 44, 55, 55, 77, 55, 55, 55),
  )


def test_positions_of_each_row(lm):
  """Every row as if it were alone, with its own position."""
  positions = (-1, 7)
  model = at((POST, surgery.in_each_row(positions)))(lm.model)
  found = generate(lm.replace(model), PROMPTS, max_new_tokens=NEW)
  for prompt, position, ids in zip(PROMPTS, positions, found.ids):
    alone = at((POST, surgery.in_each_row([position])))(lm.model)
    assert ids == uncached(alone, prompt)


def test_steered_beside_unsteered(lm, plain):
  held_out = ["Mary and John went", "to Paris", "the capital of France"]
  found = gs.generate(
    lm,
    PROMPTS,
    max_new_tokens=NEW,
    steer={POST: VECTOR},
    held_out=held_out,
  )
  model = at((POST, None))(lm.model)
  assert found.unsteered.ids == plain
  written = generate(lm.replace(model), PROMPTS, max_new_tokens=NEW)
  assert found.ids == written.ids
  assert found.effect.num_texts == 3
  assert found.effect.before != found.effect.after


def test_a_latent_steers_where_a_dictionary_is(lm):
  spliced = lm.replace(splice(lm.model, {POST: sae()}))
  address = {"resid_post[0].latents[3]": 40.0}
  found = generate(spliced, PROMPTS, max_new_tokens=NEW, steer=address)
  assert found.ids != found.unsteered.ids
  with pytest.raises(SiteError, match="no dictionary reads this site"):
    generate(lm, PROMPTS, steer=address)


def test_held_out_texts_without_steering_are_refused(lm):
  with pytest.raises(ConfigError, match="nothing is steered"):
    generate(lm, PROMPTS, held_out=["text"])


def test_a_position_past_the_end_is_refused(lm):
  with pytest.raises(TextError, match="position 30, a prompt of 4 tokens"):
    generate(lm.replace(at((POST, 30))(lm.model)), PROMPTS, max_new_tokens=NEW)
