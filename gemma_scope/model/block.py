"""One decoder layer of Gemma 3 and the order of its sites.

    resid_mid  = resid_pre + norm(attention(norm(resid_pre)))
    resid_post = resid_mid + norm(feedforward(norm(resid_mid)))

Each branch is norm, `_in` site, computation, `_proj` site, norm, `_write`
site. Blocks are built from arrays by canonical name, and give them back.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

import jax
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.attention import Attention
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.feedforward import FeedForward
from gemma_scope.model.linear import Linear, ShardedLinear
from gemma_scope.model.norms import RMSNorm
from gemma_scope.model.site_layer import (
  SiteLayer,
  make_site,
  without_scopes,
)

MakeSite = Callable[[str], SiteLayer]


@pz.pytree_dataclass
class Block(pz.nn.Layer):
  """One decoder layer.

  Attributes:
    sublayers: Sites and the two residual branches, in order.
  """

  sublayers: list[pz.nn.Layer]

  def __call__(self, x: pz.nx.NamedArray, /, **side_inputs) -> pz.nx.NamedArray:
    """Runs the sublayers on the residual stream."""
    value: Any = x
    for layer in self.sublayers:
      value = layer(value, **side_inputs)
    return value


def build_block(
  config: GemmaConfig,
  *,
  is_global: bool,
  arrays: Mapping[str, pz.nx.NamedArray],
  mesh: jax.sharding.Mesh | None = None,
) -> Block:
  """Builds a block.

  Args:
    config: The model's shape.
    is_global: Whether its attention sees everything before it.
    arrays: Canonical name without `layer_{i}/` -> array, in the layout of
      `gemma_scope.model.layout`. An axis `layer` in front makes it a block of
      a scanned stack.
    mesh: The mesh that activations are sharded over, if any.
  """
  norm = functools.partial(_norm, config, arrays)
  site = functools.partial(make_site, mesh=mesh)
  linear = Linear if mesh is None else ShardedLinear
  attention = _attention(config, is_global, arrays, norm, site, linear)
  feedforward = FeedForward(
    gate_up=linear(arrays["mlp/gating_einsum"], (axes.EMBEDDING,)),
    mlp_act=site("mlp_act"),
    down=linear(arrays["mlp/linear"], (axes.NEURONS,)),
  )
  return Block(
    [
      site("resid_pre"),
      _branch(
        site,
        "attn",
        attention,
        norm("pre_attention_norm"),
        norm("post_attention_norm"),
      ),
      site("resid_mid"),
      _branch(
        site, "mlp", feedforward, norm("pre_ffw_norm"), norm("post_ffw_norm")
      ),
      site("resid_post"),
    ]
  )


def block_arrays(block: Block) -> dict[str, pz.nx.NamedArray]:
  """The arrays of a block by canonical name; inverse of `build_block`.

  Surgery wraps sites where they stand, so the branches keep their order; what
  it put there carries no weights of the model and is left out.
  """
  _, attn, _, mlp, _ = without_scopes(block).sublayers
  attn_before, _, attention, _, attn_after, _ = _inside(attn)
  mlp_before, _, feedforward, _, mlp_after, _ = _inside(mlp)
  scales = {
    "pre_attention_norm": attn_before,
    "post_attention_norm": attn_after,
    "pre_ffw_norm": mlp_before,
    "post_ffw_norm": mlp_after,
    "attn/_query_norm": attention.query_norm,
    "attn/_key_norm": attention.key_norm,
  }
  products = {
    "attn/q_einsum/w": attention.to_query,
    "attn/kv_einsum/w": attention.to_key_value,
    "attn/attn_vec_einsum/w": attention.output,
    "mlp/gating_einsum": feedforward.gate_up,
    "mlp/linear": feedforward.down,
  }
  return {
    f"{name}/scale": without_scopes(norm).scale for name, norm in scales.items()
  } | {name: without_scopes(p).weights for name, p in products.items()}


def _inside(branch: pz.nn.Layer) -> Sequence[Any]:
  """The layers of a residual branch."""
  branch = without_scopes(branch)
  assert isinstance(branch, pz.nn.Residual)
  assert isinstance(branch.delta, pz.nn.Sequential)
  return [without_scopes(layer) for layer in branch.delta.sublayers]


def _norm(
  config: GemmaConfig, arrays: Mapping[str, pz.nx.NamedArray], name: str
) -> RMSNorm:
  return RMSNorm(arrays[f"{name}/scale"], config.norm_eps)


def _branch(
  site: MakeSite,
  name: str,
  inside: pz.nn.Layer,
  before: RMSNorm,
  after: RMSNorm,
) -> pz.nn.Residual:
  return pz.nn.Residual(
    pz.nn.Sequential(
      [
        before,
        site(f"{name}_in"),
        inside,
        site(f"{name}_proj"),
        after,
        site(f"{name}_write"),
      ]
    )
  )


def _attention(
  config: GemmaConfig,
  is_global: bool,
  arrays: Mapping[str, pz.nx.NamedArray],
  norm: Callable[[str], RMSNorm],
  site: MakeSite,
  linear: type[Linear],
) -> Attention:
  return Attention(
    to_query=linear(arrays["attn/q_einsum/w"], (axes.EMBEDDING,)),
    to_key_value=linear(arrays["attn/kv_einsum/w"], (axes.EMBEDDING,)),
    query_norm=norm("attn/_query_norm"),
    key_norm=norm("attn/_key_norm"),
    query=site("query"),
    key=site("key"),
    value=site("value"),
    pattern=site("pattern"),
    z=site("z"),
    output=linear(
      arrays["attn/attn_vec_einsum/w"], (axes.HEADS, axes.PROJECTION)
    ),
    scale=config.query_scalar**-0.5,
    window=None if is_global else config.window,
  )
