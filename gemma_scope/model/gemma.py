"""Gemma 3: embedding, decoder layers, final norm, tied unembedding.

The parts are separate functions of a model, because most questions need only
some: `embed`, `run_layers`, `final_norm`, `unembed`. Logits are computed for
the positions and token ids asked for, never for all by the way.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.context import Context, Past, Tape
from gemma_scope.model.linear import precision_of
from gemma_scope.model.norms import RMSNorm
from gemma_scope.model.placement import (
  Placement,
  placement_of,
  places_of,
  tokens_of,
)
from gemma_scope.model.stack import Inputs, Stack, Taps
from gemma_scope.sites import Site


@pz.pytree_dataclass
class Gemma(pz.nn.Layer):
  """A Gemma 3 text model.

  Attributes:
    table: Token embeddings {vocabulary, embedding}; the unembedding is tied.
    embed: Site of the scaled embeddings.
    stack: The decoder layers.
    final_norm: Norm of the last residual stream.
    final: Site of its output.
    logits: Site of the logits.
    config: The model's shape.
  """

  table: pz.nx.NamedArray
  embed: pz.nn.Layer
  stack: Stack
  final_norm: RMSNorm
  final: pz.nn.Layer
  logits: pz.nn.Layer
  config: GemmaConfig = dataclasses.field(metadata={"pytree_node": False})

  def __call__(
    self, tokens: pz.nx.NamedArray, /, **_side_inputs
  ) -> pz.nx.NamedArray:
    """Logits {batch, seq, vocabulary} of tokens {batch, seq}, all positions.

    Trailing padding (id 0) is masked. For anything but a small model on a few
    tokens use `run`, which computes what is asked for only.
    """
    ids = tokens.unwrap(axes.BATCH, axes.SEQ)
    segments = segments_of(ids)
    residual, _ = run(self, ids, segments)
    placement = place(self, ids, segments)
    normed, _ = apply_final_norm(self, residual, placement)
    return unembed(self, normed, placement)[0]


def segments_of(ids: Int[Array, "batch seq"]) -> Int[Array, "batch seq"]:
  """1 for tokens, 0 for the padding (id 0) at the end of a row."""
  return jax.lax.cummax((ids != 0).astype(jnp.int32), axis=1, reverse=True)


def place(
  model: Gemma,
  ids: Int[Array, "batch seq"],
  segment_ids: Int[Array, "batch seq"],
  prompts: Int[Array, "batch seq"] | None = None,
) -> Placement:
  """Where the tokens of a pass stand, and what they are.

  Args:
    model: The model.
    ids: Token ids.
    segment_ids: The sequence of each token; 0 is padding.
    prompts: Length of each token's prompt, if what follows it was generated.
  """
  places = places_of(segment_ids)
  tokens = tokens_of(ids, places, prompts)
  return placement_of(places, model.config, tokens)


def run(
  model: Gemma,
  ids: Int[Array, "batch seq"],
  segment_ids: Int[Array, "batch seq"],
  inputs: Inputs | None = None,
  prompts: Int[Array, "batch seq"] | None = None,
) -> tuple[pz.nx.NamedArray, Taps]:
  """Embeds tokens and runs the layers; no final norm, no logits.

  Args:
    model: The model.
    ids: Token ids.
    segment_ids: The sequence of each token; 0 is padding.
    inputs: Arrays for the edits that take one, by site.
    prompts: Length of each token's prompt, if what follows it was generated.

  Returns:
    The last residual stream and what taps recorded.
  """
  placement = place(model, ids, segment_ids, prompts)
  embedded, taps = embed(model, ids, placement, inputs)
  residual, seen = run_layers(model, embedded, placement, inputs=inputs)
  return residual, taps | seen


def embed(
  model: Gemma,
  ids: Int[Array, "batch seq"],
  placement: Placement,
  inputs: Inputs | None = None,
) -> tuple[pz.nx.NamedArray, Taps]:
  """Looks tokens up, scaled by sqrt(d_model) rounded to the weights' dtype."""
  rows = jnp.take(model.table.data_array, ids, axis=0)
  scale = jnp.asarray(model.config.d_model**0.5, rows.dtype)
  value = pz.nx.wrap(rows * scale, axes.BATCH, axes.SEQ, axes.EMBEDDING)
  return at_site(model, model.embed, value, placement, inputs)


def run_layers(
  model: Gemma,
  embedded: pz.nx.NamedArray,
  placement: Placement,
  past: Past | None = None,
  inputs: Inputs | None = None,
) -> tuple[pz.nx.NamedArray, Taps]:
  """Runs the decoder layers before `model.stack.stop`."""
  return model.stack(embedded, placement=placement, past=past, inputs=inputs)


def apply_final_norm(
  model: Gemma,
  residual: pz.nx.NamedArray,
  placement: Placement | None = None,
  inputs: Inputs | None = None,
) -> tuple[pz.nx.NamedArray, Taps]:
  """The final norm, through its site."""
  normed, taps = at_site(model, model.final_norm, residual, placement, inputs)
  normed, seen = at_site(model, model.final, normed, placement, inputs)
  return normed, taps | seen


def unembed(
  model: Gemma,
  normed: pz.nx.NamedArray,
  placement: Placement | None = None,
  inputs: Inputs | None = None,
) -> tuple[pz.nx.NamedArray, Taps]:
  """Float32 logits of every vocabulary entry at the positions of `normed`."""
  kept = tuple(a for a in normed.named_axes if a != axes.EMBEDDING)
  rows = normed.unwrap(*kept, axes.EMBEDDING)
  flat = rows.reshape(-1, rows.shape[-1])
  logits = token_logits(flat, model.table.data_array)
  named = pz.nx.wrap(
    logits.reshape(*rows.shape[:-1], -1), *kept, axes.VOCABULARY
  )
  return at_site(model, model.logits, named, placement, inputs)


def token_logits(
  rows: Float[Array, "rows embedding"], table: Float[Array, "ids embedding"]
) -> Float[Array, "rows ids"]:
  """Scores rows of the final norm's output against rows of the table."""
  return jax.lax.dot_general(
    rows,
    table,
    (((1,), (1,)), ((), ())),
    precision=precision_of(rows.dtype),
    preferred_element_type=jnp.float32,
  )


def at_site(
  model: Gemma,
  layer: pz.nn.Layer,
  value: pz.nx.NamedArray,
  placement: Placement | None,
  inputs: Inputs | None,
) -> tuple[pz.nx.NamedArray, Taps]:
  """Passes `value` through a site, or a norm, outside the stack."""
  tape = Tape()
  outer = {s.name: v for s, v in (inputs or {}).items() if s.layer is None}
  context = Context(placement, tape, None, outer, model.stack.shared)
  value = layer(value, context=context)
  return value, {Site(name, None): v for name, v in tape.values.items()}
