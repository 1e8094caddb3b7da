"""Small stand-in dictionaries, and one pass that returns everything."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.activations.run import forward
from gemma_scope.model.gemma import Gemma
from gemma_scope.surgery import tap
from gemma_scope.testing import oracle
from gemma_scope.testing.tiny import tiny_config

LAYERS = 8  # a scanned period and two layers
DEEP = 14  # two periods and two layers
IDS = np.random.default_rng(0).integers(4, 512, (2, 12)).astype(np.int32)
IDS[:, 0] = 2
IDS[0, 7] = IDS[0, 4] = IDS[0, 2]  # one token three times
IDS[1, 9:] = 0


@dataclasses.dataclass(frozen=True)
class Double:
  """A model, scanned and unrolled, and the oracle of the same weights."""

  num_layers: int
  tensors: dict
  models: dict[str, Gemma]

  def oracle(self, edits=None, row=0):
    ids = IDS[row][IDS[row] != 0]
    config = tiny_config(num_layers=self.num_layers)
    return oracle.oracle_forward(self.tensors, config, ids, edits)


def values(model, sites=("resid_post[7]", "logits"), ids=IDS):
  """Site (as text) -> array [batch, seq, ...] of one pass."""
  columns = np.arange(ids.shape[1])
  tapped = tap(model, list(sites))
  found = forward(tapped, ids, (ids != 0).astype(np.int32), columns, "logits")
  return {
    str(site): np.asarray(value.unwrap(*site.info.axes))
    for site, value in found.items()
  }


def close(found, expected, rtol=2e-5):
  """Every vector within `rtol` of its norm."""
  found, expected = np.asarray(found, np.float64), np.asarray(expected)
  error = np.linalg.norm(found - expected, axis=-1)
  assert (error <= rtol * np.linalg.norm(expected, axis=-1)).all(), error.max()


@pz.pytree_dataclass
class Sae(pz.Struct):
  """relu(x W + b) V + c: an SAE or a transcoder."""

  encoder: jax.Array
  bias: jax.Array
  decoder: jax.Array
  out_bias: jax.Array

  def encode(self, x):
    return jax.nn.relu(dot(x, self.encoder) + self.bias)

  def decode(self, latents):
    return dot(latents, self.decoder) + self.out_bias


@pz.pytree_dataclass
class CrossLayer(pz.Struct):
  """A causal cross-layer transcoder with a skip: decoder [from, to, m, d]."""

  encoder: jax.Array
  decoder: jax.Array
  skip: jax.Array

  def encode_at(self, position, x):
    return jax.nn.relu(dot(x, self.encoder[position]))

  def encode(self, x):
    return jnp.stack([self.encode_at(i, x[i]) for i in range(len(x))])

  def rebuild_at(self, position, latents, x):
    parts = [
      dot(latents[i], self.decoder[i, position]) for i in range(position + 1)
    ]
    return sum(parts) + dot(x, self.skip[position])


@pz.pytree_dataclass
class Cross(pz.Struct):
  """A crosscoder: one set of latents of all layers together."""

  encoder: jax.Array
  decoder: jax.Array

  def encode(self, x):
    return jax.nn.relu(sum(dot(x[i], self.encoder[i]) for i in range(len(x))))

  def decode(self, latents):
    return jnp.stack([dot(latents, d) for d in self.decoder])


def dot(a, b):
  return jnp.dot(a, b, precision="highest")


@functools.cache
def normal(seed, *shape, scale=0.3):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)


def sae(width=32, latents=20, seed=1, out=None):
  return Sae(
    normal(seed, width, latents),
    normal(seed + 1, 1, 1, latents),
    normal(seed + 2, latents, out or width),
    normal(seed + 3, 1, 1, out or width),
  )
