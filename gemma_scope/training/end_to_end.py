"""Finetuning a dictionary for what the model makes of its reconstruction.

    loss = (MSE + a b KL) / (1 + b),     a = stop(MSE / (KL + 1e-8))

MSE is the reconstruction's, over the variance of what is rebuilt (the FVU of
the batch), KL the mean divergence of the next-token distribution of the spliced
model from that of the model. The dictionary stands in at tokens that count, its
error dropped; BOS and padding keep their values. Source: Gemma Scope 2,
technical paper (end-to-end finetuning).

Arrays are of very different sizes once scales are folded in, so the learning
rate is relative: Adam moves each array by shares of its root mean square.
Thresholds and gates have no gradient here and stay; nothing holds L0, which is
reported.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import optax
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.model import gemma
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.placement import Placement
from gemma_scope.sites import Site
from gemma_scope.surgery.intervene import intervene
from gemma_scope.surgery.interventions import set_to
from gemma_scope.surgery.positions import Positions
from gemma_scope.surgery.select import tap
from gemma_scope.surgery.splice import splice

LOGITS_AT_ONCE = 128  # tokens whose logits exist together
_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
Scores = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class EndToEnd:
  """How to finetune.

  Attributes:
    steps: Batches of text.
    learning_rate: Relative to each array's root mean square.
    kl_weight: b of the loss.
    b1: Of Adam.
    b2: Of Adam.
  """

  steps: int = 100
  learning_rate: float = 1e-3
  kl_weight: float = 1.0
  b1: float = 0.9
  b2: float = 0.999


@pz.pytree_dataclass
class _Counted(Positions):
  """The tokens that count."""

  marks: Bool[Array, "batch seq"]

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """The marks."""
    del placement
    return self.marks


def finetune(
  lm: LanguageModel,
  dictionary: Any,
  batches: Iterator[PackedBatch],
  options: EndToEnd | None = None,
  *,
  watch: Callable[[int, Scores], None] | None = None,
) -> Any:
  """The dictionary, finetuned on text.

  Args:
    lm: The model; it is not changed.
    dictionary: Of any kind, at sites of the model.
    batches: Of one shape, at least as many as steps.
    options: How.
    watch: Is given step and numbers ("loss", "mse", "kl", "l0") of each step.
  """
  options = options or EndToEnd()
  arrays, rest = _split(dictionary)
  adam = optax.scale_by_adam(options.b1, options.b2)
  moments = adam.init(arrays)
  sizes = jax.tree.map(lambda a: jnp.sqrt(jnp.square(a).mean()), arrays)
  step = jax.jit(functools.partial(_step, rest, adam, options))
  for i in range(options.steps):
    batch = next(batches)
    given = (batch.ids, batch.segment_ids, batch.counted)
    arrays, moments, scores = step(
      arrays, moments, sizes, lm.model, *map(jnp.asarray, given)
    )
    if watch is not None:
      watch(i + 1, {name: float(v) for name, v in scores.items()})
  return _join(arrays, rest)


def _split(dictionary: Any) -> tuple[list[Array], Any]:
  leaves, structure = jax.tree.flatten(dictionary)
  return [jnp.asarray(leaf, jnp.float32) for leaf in leaves], structure


def _join(arrays: list[Array], structure: Any) -> Any:
  return jax.tree.unflatten(structure, arrays)


def _step(
  structure: Any,
  adam: optax.GradientTransformation,
  options: EndToEnd,
  arrays: list[Array],
  moments: Any,
  sizes: list[Array],
  model: Gemma,
  *batch: Array,
) -> tuple[list[Array], Any, Scores]:
  def value(arrays: list[Array]) -> tuple[Array, Scores]:
    return loss(model, _join(arrays, structure), batch, options.kl_weight)

  grads, scores = jax.grad(value, has_aux=True)(arrays)
  # Gradients in units of each array's size, so that Adam's are too.
  scaled = [g * s for g, s in zip(grads, sizes)]
  updates, moments = adam.update(scaled, moments)
  moves = zip(arrays, sizes, jax.tree.leaves(updates))
  moved = [a - options.learning_rate * s * u for a, s, u in moves]
  return moved, moments, scores


def loss(
  model: Gemma, dictionary: Any, batch: Any, kl_weight: float
) -> tuple[Float[Array, ""], Scores]:
  """The loss of one batch and what it is made of.

  Args:
    model: Without the dictionary.
    dictionary: Of any kind.
    batch: Ids, segment ids and counted, [batch, seq].
    kl_weight: b of the loss.
  """
  ids, segment_ids, counted = batch
  sites = {*dictionary.sites_in, *dictionary.sites_out}
  clean, taps = gemma.run(tap(model, tuple(sites)), ids, segment_ids)
  mse, l0 = _reconstruction(dictionary, taps, counted)
  edited = with_dictionary(model, dictionary, counted)
  spliced, _ = gemma.run(edited, ids, segment_ids)
  each = divergence(model, clean, spliced, ids, segment_ids)
  kl = (each * counted).sum() / jnp.maximum(counted.sum(), 1)
  a = jax.lax.stop_gradient(mse / (kl + 1e-8))
  total = (mse + a * kl_weight * kl) / (1 + kl_weight)
  return total, {"loss": total, "mse": mse, "kl": kl, "l0": l0}


def with_dictionary(
  model: Gemma, dictionary: Any, counted: Bool[Array, "batch seq"]
) -> Gemma:
  """The model with a dictionary in the place of what it rebuilds.

  Args:
    model: Without it.
    dictionary: Of any kind.
    counted: Where its error is dropped; elsewhere values stay.
  """
  spliced = splice(model, [dictionary], "keep")
  errors = [site.error for site in dictionary.sites_out]
  return intervene(spliced, set_to(errors, 0.0, positions=_Counted(counted)))


def _reconstruction(
  dictionary: Any,
  taps: Mapping[Site, pz.nx.NamedArray],
  counted: Bool[Array, "batch seq"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """FVU and L0 over the tokens that count."""

  def rows(sites: tuple[Site, ...]) -> Float[Array, "sites rows d"]:
    values = [taps[s].unwrap(*s.info.axes) for s in sites]
    flat = [v.reshape(counted.size, -1).astype(jnp.float32) for v in values]
    return jnp.stack(flat)

  x, y = rows(dictionary.sites_in), rows(dictionary.sites_out)
  several = len(dictionary.sites_in) > 1
  x = x if several else x[0]
  latents = dictionary.encode(x)
  rebuilt = dictionary.rebuild(latents, x)
  rebuilt = rebuilt if several else rebuilt[None]
  weight = counted.reshape(1, -1, 1).astype(jnp.float32)
  count = jnp.maximum(weight.sum(), 1)
  mean = (y * weight).sum(axis=1, keepdims=True) / count
  missed = (jnp.square(y - rebuilt) * weight).sum()
  variance = (jnp.square(y - mean) * weight).sum()
  active = (latents > 0).reshape(-1, counted.size, latents.shape[-1])
  per_row = active.sum(axis=(0, 2), dtype=jnp.float32)
  return missed / variance, (per_row * weight[0, :, 0]).sum() / count


def divergence(
  model: Gemma,
  clean: pz.nx.NamedArray,
  spliced: pz.nx.NamedArray,
  ids: Int[Array, "batch seq"],
  segment_ids: Int[Array, "batch seq"],
) -> Float[Array, "batch seq"]:
  """KL(clean || spliced) of the next token, at every token.

  Logits of `LOGITS_AT_ONCE` tokens exist together, backwards too.

  Args:
    model: For its final norm and its table.
    clean: Its residual stream behind the last layer.
    spliced: That of the spliced model.
    ids: Token ids.
    segment_ids: The document of each token.
  """
  batch, width = ids.shape
  step = max(1, LOGITS_AT_ONCE // batch)
  count = -(-width // step)
  columns = jnp.minimum(jnp.arange(count * step), width - 1)
  placement = gemma.place(model, ids, segment_ids)
  ends = [
    jax.lax.stop_gradient(clean.unwrap(*_STREAM)),
    spliced.unwrap(*_STREAM),
  ]

  def log_p(stream: Array, columns: Array) -> Array:
    place = placement.take(columns)
    chosen = pz.nx.wrap(jnp.take(stream, columns, axis=1), *_STREAM)
    normed, _ = gemma.apply_final_norm(model, chosen, place)
    logits, _ = gemma.unembed(model, normed, place)
    plain = logits.unwrap(axes.BATCH, axes.SEQ, axes.VOCABULARY)
    return jax.nn.log_softmax(plain, axis=-1)

  @jax.checkpoint
  def at(columns: Int[Array, " columns"]) -> Float[Array, "batch columns"]:
    p, q = (log_p(stream, columns) for stream in ends)
    return (jnp.exp(p) * (p - q)).sum(axis=-1)

  found = jax.lax.map(at, columns.reshape(count, step))
  return jnp.moveaxis(found, 0, 1).reshape(batch, -1)[:, :width]
