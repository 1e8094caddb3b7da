"""A slow second Gemma 3: NumPy, float64, one sequence, loops over heads.

Written from the published architecture and not from `gemma_scope.model`, whose
tests compare every site with it. Constants of Gemma 3 that no size changes
(period, epsilon, rotary bases) are repeated here on purpose. It knows neither
batches, padding nor packing: those must equal one sequence at a time.

Source: "Gemma 3 Technical Report" (2025) and the official configurations.
"""

from collections.abc import Callable, Mapping

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.model.config import GemmaConfig
from gemma_scope.sites import SITES, Site, resolve
from gemma_scope.weights.checkpoint import Tensor, read

PERIOD = 6  # layers 5, 11, 17, … see everything before them
EPSILON = 1e-6
LOCAL_BASE = 1e4
GLOBAL_BASE = 1e6

Edit = Callable[[np.ndarray], np.ndarray]
Values = dict[Site, np.ndarray]


def oracle_forward(
  tensors: Mapping[str, Tensor],
  config: GemmaConfig,
  tokens: np.ndarray,
  edits: Mapping[Site, Edit] | None = None,
) -> Values:
  """Every site of one sequence.

  Args:
    tensors: Canonical name -> tensor (see `gemma_scope.weights.checkpoint`).
    config: Depth, numbers of heads, score scale, window and rotary factor.
    tokens: [seq] token ids.
    edits: Site -> function of the value there; what follows sees its result.

  Returns:
    Site -> float64 value, with the axes of `gemma_scope.sites.SITES` and no
    `batch`.
  """
  weights = {n: np.asarray(read(t), np.float64) for n, t in tensors.items()}
  seen = _Sites(edits or {})
  table = weights["embedder/input_embedding"]
  x = seen.at(Site("embed"), table[tokens] * np.sqrt(config.d_model))
  for layer in range(config.num_layers):
    prefix = f"layer_{layer}/"
    own = {
      name.removeprefix(prefix): value
      for name, value in weights.items()
      if name.startswith(prefix)
    }
    x = _decoder_layer(own, config, layer, x, seen)
  normed = rms_norm(x, weights["final_norm/scale"])
  normed = seen.at(Site("final_norm"), normed)
  seen.at(Site("logits"), normed @ table.T)
  return seen.values


class _Sites:
  """Applies edits and keeps what comes out of them."""

  def __init__(self, edits: Mapping[Site, Edit]):
    self.edits = edits
    self.values: Values = {}

  def at(self, site: Site, value: np.ndarray) -> np.ndarray:
    """The value as edited, kept."""
    if site in self.edits:
      value = self.edits[site](value)
    self.values[site] = value
    return value


def _decoder_layer(
  w: Mapping[str, np.ndarray],
  config: GemmaConfig,
  layer: int,
  x: np.ndarray,
  seen: _Sites,
) -> np.ndarray:
  """One decoder layer: attention, then feed-forward, both between norms."""

  def at(name: str, value: np.ndarray) -> np.ndarray:
    return seen.at(Site(name, layer), value)

  x = at("resid_pre", x)
  h = at("attn_in", rms_norm(x, w["pre_attention_norm/scale"]))
  z = _attention(w, config, layer, h, seen)
  raw = sum(
    z[:, n] @ w["attn/attn_vec_einsum/w"][n] for n in range(config.num_heads)
  )
  raw = at("attn_proj", np.asarray(raw))
  write = at("attn_write", rms_norm(raw, w["post_attention_norm/scale"]))
  x = at("resid_mid", x + write)
  h = at("mlp_in", rms_norm(x, w["pre_ffw_norm/scale"]))
  gate, up = w["mlp/gating_einsum"]
  act = at("mlp_act", gelu(h @ gate.T) * (h @ up.T))
  raw = at("mlp_proj", act @ w["mlp/linear"])
  write = at("mlp_write", rms_norm(raw, w["post_ffw_norm/scale"]))
  return at("resid_post", x + write)


def _attention(
  w: Mapping[str, np.ndarray],
  config: GemmaConfig,
  layer: int,
  x: np.ndarray,
  seen: _Sites,
) -> np.ndarray:
  """The mixed values of every head, [seq, heads, projection]."""
  sees_all = (layer + 1) % PERIOD == 0
  base = GLOBAL_BASE if sees_all else LOCAL_BASE
  factor = config.rope_factor if sees_all else 1.0
  q, (k, v) = w["attn/q_einsum/w"], w["attn/kv_einsum/w"]

  def turned(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    heads = [rope(rms_norm(x @ m, scale), base, factor) for m in weights]
    return np.stack(heads, axis=1)

  query = seen.at(Site("query", layer), turned(q, w["attn/_query_norm/scale"]))
  key = seen.at(Site("key", layer), turned(k, w["attn/_key_norm/scale"]))
  value = np.stack([x @ m for m in v], axis=1)
  value = seen.at(Site("value", layer), value)
  window = None if sees_all else config.window
  scale = config.query_scalar**-0.5
  served = config.num_heads // config.num_kv_heads
  pattern = np.stack(
    [
      head_pattern(query[:, n] * scale, key[:, n // served], window)
      for n in range(config.num_heads)
    ]
  )
  pattern = seen.at(Site("pattern", layer), pattern)
  z = [p @ value[:, n // served] for n, p in enumerate(pattern)]
  return seen.at(Site("z", layer), np.stack(z, axis=1))


def head_pattern(
  query: np.ndarray, key: np.ndarray, window: int | None
) -> np.ndarray:
  """Softmax of each query over the keys it sees, one query at a time.

  Args:
    query: [seq, projection], scaled.
    key: [seq, projection].
    window: Tokens a query sees, itself included; None for all before it.

  Returns:
    [seq, kv_seq] probabilities.
  """
  pattern = np.zeros((len(query), len(key)))
  for i in range(len(query)):
    first = 0 if window is None else max(0, i - window + 1)
    scores = np.exp(key[first : i + 1] @ query[i])
    pattern[i, first : i + 1] = scores / scores.sum()
  return pattern


def rms_norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
  """RMSNorm over the last axis, with the gain 1 + scale."""
  mean_square = (x * x).mean(axis=-1, keepdims=True)
  return x / np.sqrt(mean_square + EPSILON) * (1 + scale)


def rope(x: np.ndarray, base: float, factor: float) -> np.ndarray:
  """Turns [seq, projection] by its positions, pair (i, i + half) at a time."""
  half = x.shape[1] // 2
  out = np.empty_like(x)
  for i in range(half):
    angle = np.arange(len(x)) / factor * base ** (-i / half)
    a, b = x[:, i], x[:, half + i]
    out[:, i] = a * np.cos(angle) - b * np.sin(angle)
    out[:, half + i] = a * np.sin(angle) + b * np.cos(angle)
  return out


def gelu(x: np.ndarray) -> np.ndarray:
  """The tanh approximation of x * Phi(x)."""
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def every_site(num_layers: int) -> tuple[Site, ...]:
  """All sites of a model, in forward order."""
  specs = [n + ("[:]" if i.per_layer else "") for n, i in SITES.items()]
  return resolve(specs, num_layers)


def relative_errors(
  found: Mapping[Site, pz.nx.NamedArray],
  expected: Values,
  row: int = 0,
  first: int = 0,
) -> dict[str, float]:
  """How far captured values are from one sequence of the oracle.

  Args:
    found: Site -> array with the axes of the site; sites may be missing.
    expected: What `oracle_forward` returns.
    row: The batch row in which the sequence stands.
    first: The column of its first token.

  Returns:
    Site name -> the largest |found - expected| / |expected| of any vector
    (last axis) in any layer.
  """
  worst: dict[str, float] = {}
  for site, value in found.items():
    truth = expected[site]
    named = value[{axes.BATCH: row}]
    kept = [name for name in site.info.axes if name != axes.BATCH]
    for axis in (axes.SEQ, axes.KV_SEQ):
      if axis in kept:
        length = truth.shape[kept.index(axis)]
        named = named[{axis: pz.slice[first : first + length]}]
    ours = np.asarray(named.unwrap(*kept), np.float64)
    distance = np.linalg.norm(ours - truth, axis=-1)
    error = (distance / np.linalg.norm(truth, axis=-1)).max()
    worst[site.name] = max(worst.get(site.name, 0.0), float(error))
  return worst
