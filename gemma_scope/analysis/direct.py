"""Direct logit attribution: what each component writes towards a target.

The last residual stream is the sum of the embedding and of every `attn_write`
and `mlp_write`. With the scale of the final norm frozen the target is linear
in it, so each summand has its own share and the shares add up to the target.
Heads are told apart the same way through W_O, the scale of the norm behind the
attention frozen too.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"; the frozen norm as in TransformerLens' `logit_attrs`. Effects that
go through later layers are not counted.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.run import Capture, capture
from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.objectives import Target
from gemma_scope.attribution.objectives.logits import (
  LogitTarget,
  ResolvedLogits,
)
from gemma_scope.attribution.objectives.protocol import same_count
from gemma_scope.attribution.rows import to_rows
from gemma_scope.display import table_html
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.block import Block, block_arrays
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.norms import inverse_rms
from gemma_scope.model.site_layer import without_scopes
from gemma_scope.sites import Site

SITES = (
  *("embed", "attn_write[:]", "mlp_write[:]", "attn_proj[:]", "z[:]"),
  "resid_post[-1]",
)
_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


@dataclasses.dataclass(frozen=True, repr=False)
class DirectAttribution:
  """Shares of a target by component.

  Attributes:
    labels: [component] the writers, in forward order.
    values: Shares {component, batch}, float32.
    heads: Shares of the heads {layer, heads, batch}, float32; those of one
      layer add up to its `attn_write`.
    total: [batch] the target's value, which the shares add up to.
  """

  labels: tuple[str, ...]
  values: pz.nx.NamedArray
  heads: pz.nx.NamedArray
  total: np.ndarray

  def __getitem__(self, label: Site | str) -> np.ndarray:
    """[batch] the share of one component, such as "mlp_write[10]".

    Raises:
      SiteError: If it is not a writer.
    """
    if str(label) not in self.labels:
      raise SiteError(
        "This component does not write into the residual stream.",
        received=str(label),
        instead="embed, attn_write[i] or mlp_write[i]",
      )
    shares = self.values.unwrap(axes.COMPONENT, axes.BATCH)
    return np.asarray(shares)[self.labels.index(str(label))]

  def top(self, k: int = 10, row: int = 0) -> list[tuple[str, float]]:
    """The k strongest components of one prompt, with their shares."""
    shares = np.asarray(self.values.unwrap(axes.COMPONENT, axes.BATCH))[:, row]
    order = np.argsort(-np.abs(shares))[:k]
    return [(self.labels[i], float(shares[i])) for i in order]

  @property
  def residual(self) -> np.ndarray:
    """[batch] target minus the sum of the shares.

    It is rounding, unless surgery changed the stream between the writers.
    """
    return self.total - np.asarray(self.values.data_array).sum(axis=0)

  def __repr__(self) -> str:
    return (
      f"DirectAttribution({len(self.labels)} components, total={self.total}, "
      f"residual={self.residual})"
    )

  def _repr_html_(self) -> str:
    return table_html(
      ["component", "logits"],
      self.top(12),
      title="Strongest direct contributions",
    )


def direct_logit_attribution(
  lm: LanguageModel, given: Input, target: Target
) -> DirectAttribution:
  """Splits a target among the writers into the residual stream.

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    target: What is split: `logit`, `logit_difference`, `weighted_logits`.

  Raises:
    ConfigError: If the target is not a sum of logits.
  """
  acts = capture(lm, given, SITES)
  return split_target(lm, acts, target)


def split_target(
  lm: LanguageModel, acts: Capture, target: Target
) -> DirectAttribution:
  """The same from activations that hold `SITES`."""
  if not isinstance(target, LogitTarget):
    raise ConfigError(
      "Only logits split among the writers: they are linear in the stream.",
      received=f"a {type(target).__name__}",
      instead="logit, logit_difference or weighted_logits",
    )
  resolved = target.resolve(lm)
  columns = to_rows(acts.tokens, target.position).columns
  same_count(resolved.rows, columns.shape[0])
  layers = range(lm.config.num_layers)
  writers = [Site("embed")]
  for i in layers:
    writers += [Site("attn_write", i), Site("mlp_write", i)]
  written = jnp.stack([_at(acts[s].unwrap(*_STREAM), columns) for s in writers])
  last = Site("resid_post", lm.config.num_layers - 1)
  stream = _at(acts[last].unwrap(*_STREAM), columns)
  values, direction, total = _shares(lm.model, written, stream, resolved)
  names = (axes.BATCH, axes.SEQ, axes.HEADS, axes.PROJECTION)
  heads = [
    _head_shares(
      lm.model.stack.block(i),
      lm.config.norm_eps,
      _at(acts[Site("z", i)].unwrap(*names), columns),
      _at(acts[Site("attn_proj", i)].unwrap(*_STREAM), columns),
      direction,
    )
    for i in layers
  ]
  return DirectAttribution(
    tuple(map(str, writers)),
    pz.nx.wrap(np.asarray(values), axes.COMPONENT, axes.BATCH),
    pz.nx.wrap(np.stack(heads), axes.LAYER, axes.HEADS, axes.BATCH),
    np.asarray(total),
  )


# In full float32: accelerators would take bfloat16 or TF32 passes.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _shares(
  model: Gemma,
  written: Float[Array, "component batch embedding"],
  stream: Float[Array, "batch embedding"],
  target: ResolvedLogits,
) -> tuple[
  Float[Array, "component batch"],
  Float[Array, "batch embedding"],
  Float[Array, " batch"],
]:
  """Shares, the direction they are read along, and the target itself."""
  written, stream = (x.astype(jnp.float32) for x in (written, stream))
  norm = without_scopes(model.final_norm)
  gain = 1.0 + norm.scale.data_array.astype(jnp.float32)
  toward = target.direction(model.table.data_array) * gain[None]
  direction = inverse_rms(stream, norm.eps) * toward
  values = _einsum("cbd,bd->cb", written, direction)
  return values, direction, _einsum("bd,bd->b", stream, direction)


@jax.jit
def _head_shares(
  block: Block,
  eps: float,
  z: Float[Array, "batch heads projection"],
  projected: Float[Array, "batch embedding"],
  direction: Float[Array, "batch embedding"],
) -> Float[Array, "heads batch"]:
  """Shares of one layer's heads, the norm behind the attention frozen."""
  arrays = block_arrays(block)
  scale = arrays["post_attention_norm/scale"].data_array
  gain = 1.0 + scale.astype(jnp.float32)
  inverse = inverse_rms(projected, eps)
  toward = direction * inverse * gain[None]
  output = arrays["attn/attn_vec_einsum/w"].data_array
  return _einsum("bnh,nhd,bd->nb", z, output, toward)


def _at(values: jax.Array, columns: jax.Array) -> jax.Array:
  """One column of each row."""
  return values[jnp.arange(values.shape[0]), columns]
