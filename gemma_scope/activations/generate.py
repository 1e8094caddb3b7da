"""Generation with a cache of keys and values.

The cache is a capture: of the sites `key` and `value`, at every layer. So a
model edited by surgery generates as it is, with the same numbers as without a
cache: positions and occurrences count from each row's first token, and every
token knows whether it was generated. Prompt and answer run in one compiled
program.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.generation import Generation, SteeredGeneration
from gemma_scope.activations.likelihood import nll_change
from gemma_scope.activations.sampling import Sampling, choose
from gemma_scope.activations.tokens import Input, TokenBatch, to_tokens
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model import gemma
from gemma_scope.model.chat import chat_ids, stop_ids
from gemma_scope.model.context import Past
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.placement import (
  Placement,
  Places,
  Tokens,
  placement_of,
)
from gemma_scope.model.stack import Taps
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.intervene import check_positions
from gemma_scope.surgery.select import tap
from gemma_scope.surgery.steering import Steering, steered

_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
_CACHED = ("key", "value")

NEW_BUCKET = 64  # room for new tokens comes in multiples of this


@dataclasses.dataclass(frozen=True)
class Limits:
  """When generation ends, and how it chooses; fixed when compiled.

  Attributes:
    slots: Room for new tokens.
    stop: Token ids that end a row.
    sampling: How tokens are chosen.
  """

  slots: int
  stop: tuple[int, ...]
  sampling: Sampling


def generate(
  lm: LanguageModel,
  given: Input,
  *,
  max_new_tokens: int = 64,
  sampling: Sampling | None = None,
  seed: int = 0,
  chat: bool = False,
  steer: Steering | None = None,
  held_out: Sequence[str] | str | None = None,
) -> Generation:
  """Continues one or several prompts.

  Args:
    lm: The model; an edited one generates as edited.
    given: Text, texts, or token ids; with `chat`, what the user says.
    max_new_tokens: How many tokens at most.
    sampling: How tokens are chosen; greedy by default.
    seed: Seed of the random choices.
    chat: Whether to wrap each text as a user's turn (-it models).
    steer: Address -> number or direction added there, such as
      {"resid_post[12]": direction}; or interventions. The result is then a
      `SteeredGeneration`, which holds the unsteered one too.
    held_out: With `steer`, texts whose NLL is measured under both models.

  Raises:
    TextError: If the prompt cannot be used.
    ConfigError: If an option has no such value, the model knows no turns, or
      prompt and answer together exceed its context.
    SiteError: If there is nothing to steer at an address.
  """
  how = _How(max_new_tokens, sampling or Sampling(), seed, chat)
  if steer is None and held_out is not None:
    raise ConfigError(
      "Held-out texts measure what steering changes; nothing is steered.",
      received="held_out without steer",
      instead="steer={…} too, or activations.likelihood.token_nll",
    )
  if steer is None:
    return _continue(lm, given, how)
  edited = lm.replace(steered(lm.model, steer))
  plain, changed = (_continue(one, given, how) for one in (lm, edited))
  effect = None if held_out is None else nll_change(lm, edited, held_out)
  return SteeredGeneration(
    *(changed.prompts, changed.texts, changed.ids), plain, effect
  )


@dataclasses.dataclass(frozen=True)
class _How:
  """The options of `generate` that say how tokens are made."""

  most: int
  sampling: Sampling
  seed: int
  chat: bool


def _continue(lm: LanguageModel, given: Input, how: _How) -> Generation:
  """Continues prompts with one model."""
  if not isinstance(how.most, int) or how.most < 1:
    raise ConfigError(
      "Generation needs room for at least one token, a whole number.",
      received=f"max_new_tokens={how.most!r}",
      instead="max_new_tokens=64",
    )
  batch = _prompts(lm, given, how.chat)
  _check_rows(lm, batch, how.most)
  check_positions(lm.model, batch.sequences, how.most)
  limits = Limits(
    slots=-(-how.most // NEW_BUCKET) * NEW_BUCKET,
    stop=stop_ids(lm.tokenizer),
    sampling=how.sampling,
  )
  padded = dataclasses.replace(batch, exact=False).to_bucket()
  tokens, counts = decode(
    tap(lm.model, _cached_sites(lm.config.num_layers)),
    padded.ids,
    padded.segment_ids,
    jnp.asarray(how.most),
    jax.random.key(how.seed),
    limits,
  )
  return _result(lm, batch, np.asarray(tokens), np.asarray(counts), limits.stop)


@functools.partial(jax.jit, static_argnames="limits")
def decode(
  model: gemma.Gemma,
  ids: Int[Array, "batch seq"],
  segment_ids: Int[Array, "batch seq"],
  most: Int[Array, ""],
  key: jax.Array,
  limits: Limits,
) -> tuple[Int[Array, "batch slots"], Int[Array, " batch"]]:
  """Runs the prompts, then one token after the other.

  Args:
    model: A model with taps on `key[:]` and `value[:]`.
    ids: Prompts, padded on the right.
    segment_ids: 1 for tokens, 0 for padding.
    most: Tokens to generate at most; up to `limits.slots`.
    key: Random key.
    limits: What is fixed when compiled.

  Returns:
    New token ids, and how many of each row count.
  """
  lengths = jnp.sum(segment_ids != 0, axis=1)
  logits, past = _prefill(model, ids, segment_ids, lengths, limits.slots)
  width = ids.shape[1]

  def step(state: "_State") -> "_State":
    key, now = jax.random.split(state.key)
    token = choose(state.logits, limits.sampling, now)
    token = jnp.where(state.done, 0, token)
    column = state.tokens.at[:, state.step].set(token)
    done = state.done | jnp.isin(token, jnp.asarray(limits.stop))
    before = jnp.sum((ids == token[:, None]) & (segment_ids != 0), axis=1)
    written = jnp.arange(limits.slots)[None, :] < state.step
    again = jnp.sum((state.tokens == token[:, None]) & written, axis=1)
    here = Tokens(
      token[:, None],
      (before + again).astype(jnp.int32)[:, None],
      lengths[:, None],
    )
    positions = (lengths + state.step)[:, None]
    slot = width + state.step
    logits, past = _extend(model, here, positions, state.past, slot)
    counts = state.counts + ~state.done
    return _State(state.step + 1, column, counts, done, logits, past, key)

  def unfinished(state: "_State") -> jax.Array:
    return (state.step < most) & ~jnp.all(state.done)

  rows = ids.shape[0]
  start = _State(
    step=jnp.asarray(0),
    tokens=jnp.zeros((rows, limits.slots), jnp.int32),
    counts=jnp.zeros(rows, jnp.int32),
    done=jnp.zeros(rows, bool),
    logits=logits,
    past=past,
    key=key,
  )
  end = jax.lax.while_loop(unfinished, step, start)
  return end.tokens, end.counts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
  """What the decoding loop carries."""

  step: jax.Array
  tokens: Int[Array, "batch slots"]
  counts: Int[Array, " batch"]
  done: jax.Array
  logits: Float[Array, "batch vocabulary"]
  past: Past
  key: jax.Array


def _prefill(
  model: gemma.Gemma,
  ids: jax.Array,
  segment_ids: jax.Array,
  lengths: jax.Array,
  slots: int,
) -> tuple[jax.Array, Past]:
  """Logits behind each prompt, and its keys and values with room for more."""
  residual, taps = gemma.run(model, ids, segment_ids)
  placement = gemma.place(model, ids, segment_ids)
  rows = jnp.arange(len(lengths))
  last, there = jax.tree.map(
    lambda a: a[rows, lengths - 1][:, None],
    (residual.unwrap(*_STREAM), placement),
  )
  room = ((0, 0), (0, slots))
  places = Places(
    jnp.pad(segment_ids, room), jnp.pad(placement.places.positions, room)
  )

  def padded(part: str) -> Past | None:
    if Site(f"key{part}", 0) not in taps:
      return None
    pad = ((0, 0), *room, (0, 0), (0, 0))
    key, value = (jnp.pad(_stacked(taps, n + part), pad) for n in _CACHED)
    return Past(key, value, places)

  past = padded("")
  assert past is not None
  past = dataclasses.replace(past, rehearsal=padded(".rehearsal"))
  return _logits(model, last, there), past


def _extend(
  model: gemma.Gemma,
  tokens: Tokens,
  positions: Int[Array, "batch 1"],
  past: Past,
  slot: jax.Array,
) -> tuple[jax.Array, Past]:
  """Runs one token of each row and adds it to the cache at `slot`."""
  ones = jnp.ones_like(tokens.ids)
  placement = placement_of(Places(ones, positions), model.config, tokens)
  embedded, _ = gemma.embed(model, tokens.ids, placement)
  residual, taps = gemma.run_layers(model, embedded, placement, past)
  write = jax.lax.dynamic_update_slice_in_dim
  places = Places(
    write(past.places.segment_ids, ones, slot, axis=1),
    write(past.places.positions, positions, slot, axis=1),
  )

  def extended(old: Past | None, part: str) -> Past | None:
    if old is None:
      return None
    key, value = (_stacked(taps, name + part) for name in _CACHED)
    key = write(old.key, key, slot, axis=2)
    return Past(key, write(old.value, value, slot, axis=2), places)

  new = extended(past, "")
  assert new is not None
  rehearsal = extended(past.rehearsal, ".rehearsal")
  past = dataclasses.replace(new, rehearsal=rehearsal)
  return _logits(model, residual.unwrap(*_STREAM), placement), past


def _logits(
  model: gemma.Gemma, last: jax.Array, placement: Placement
) -> jax.Array:
  """[batch, vocabulary] logits of [batch, 1, embedding] residuals."""
  named = pz.nx.wrap(last, *_STREAM)
  normed, _ = gemma.apply_final_norm(model, named, placement)
  logits, _ = gemma.unembed(model, normed, placement)
  return logits.unwrap(axes.BATCH, axes.SEQ, axes.VOCABULARY)[:, 0]


def _stacked(taps: Taps, name: str) -> jax.Array:
  """All layers of a site, [layer, batch, seq, kv_heads, projection]."""
  layers = sorted(site for site in taps if site.name == name)
  return jnp.stack([taps[site].unwrap(*site.info.axes) for site in layers])


def _cached_sites(num_layers: int) -> tuple[Site, ...]:
  return resolve(("key[:]", "value[:]"), num_layers)


def _prompts(lm: LanguageModel, given: Any, chat: bool) -> TokenBatch:
  if not chat:
    return to_tokens(lm, given)
  lm.require_chat()
  texts = [given] if isinstance(given, str) else list(given)
  rows = [chat_ids(lm.tokenizer, text) for text in texts]
  return dataclasses.replace(to_tokens(lm, rows), exact=False)


def _check_rows(lm: LanguageModel, batch: TokenBatch, new: int) -> None:
  """Refuses what cannot be continued: packed rows, or too long ones."""
  one = np.arange(batch.width) < batch.lengths[:, None]
  if batch.lengths.min() == 0 or (batch.segment_ids != one).any():
    raise TextError(
      "Only rows of one sequence can be continued.",
      received=f"segment ids {batch.segment_ids[0][:12].tolist()} …",
      instead="each sequence in a row of its own, padding behind it",
    )
  total = int(batch.lengths.max()) + new
  if total > lm.config.max_context:
    raise ConfigError(
      "Prompt and continuation together exceed the model's context.",
      received=f"{batch.lengths.max():,} + {new:,} tokens",
      instead=f"at most {lm.config.max_context:,} together",
    )


def _result(
  lm: LanguageModel,
  batch: TokenBatch,
  tokens: np.ndarray,
  counts: np.ndarray,
  stop: Sequence[int],
) -> Generation:
  prompts, texts, ids = [], [], []
  for row, length, new, count in zip(batch.ids, batch.lengths, tokens, counts):
    written = tuple(new[:count].tolist())
    shown = written[:-1] if written and written[-1] in stop else written
    prompts.append(lm.tokenizer.decode(row[:length], skip_special=True))
    texts.append(lm.tokenizer.decode(shown))
    ids.append(written)
  return Generation(tuple(prompts), tuple(texts), tuple(ids))
