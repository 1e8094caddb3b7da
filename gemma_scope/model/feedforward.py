"""Gated feed-forward (GeGLU, tanh-approximate GELU).

    mlp_act = gelu(x W_gate) * (x W_up),   mlp_proj = mlp_act W_down

Source: Shazeer 2020, "GLU Variants Improve Transformer", eq. 6.
"""

import jax
import jax.numpy as jnp
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.linear import Linear


@pz.pytree_dataclass
class FeedForward(pz.nn.Layer):
  """The feed-forward of one block, between its two norms.

  Attributes:
    gate_up: Gate and up product in one matrix.
    mlp_act: Site of the hidden activations.
    down: Product back to the residual stream's width.
  """

  gate_up: Linear
  mlp_act: pz.nn.Layer
  down: Linear

  def __call__(self, x: pz.nx.NamedArray, /, **side_inputs) -> pz.nx.NamedArray:
    """Maps {batch, seq, embedding} to itself."""
    names = (axes.BATCH, axes.SEQ, axes.GATE_UP, axes.NEURONS)
    with jax.named_scope("mlp_act"):
      hidden = gelu_times(self.gate_up(x).unwrap(*names))
    named = pz.nx.wrap(hidden, axes.BATCH, axes.SEQ, axes.NEURONS)
    return self.down(self.mlp_act(named, **side_inputs))


def gelu_times(both: jax.Array) -> jax.Array:
  """gelu(gate) * up for [..., gate_up, neurons]; float32 inside."""
  gate = both[..., 0, :].astype(jnp.float32)
  up = both[..., 1, :].astype(jnp.float32)
  return (jax.nn.gelu(gate, approximate=True) * up).astype(both.dtype)
