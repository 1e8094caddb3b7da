"""The family once more: NumPy, float64, loops; nothing shared with it."""

import numpy as np

from gemma_scope.dictionaries.cross_layer import CrossLayer
from gemma_scope.dictionaries.crosscoder import Crosscoder


def plain(array, *names):
  """A named array as NumPy float64."""
  return np.asarray(array.unwrap(*names), np.float64)


def activate(activation, products, bias):
  """Latents [rows, m] from products [rows, m]."""
  name = type(activation).__name__
  p = products + bias
  if name == "Relu":
    return np.where(p > 0, p, 0)
  if name == "JumpRelu":
    return np.where(
      (p > plain(activation.threshold, "latents")) & (p > 0), p, 0
    )
  if name == "TopK":
    return np.stack([largest(row, activation.k) for row in p])
  if name == "BatchTopK":
    return largest(p.reshape(-1), activation.k * len(p)).reshape(p.shape)
  gain = np.exp(plain(activation.log_gain, "latents"))
  magnitude = products * gain + plain(activation.b_magnitude, "latents")
  return np.where((p > 0) & (magnitude > 0), magnitude, 0)


def largest(values, k):
  """The k largest positive values in their places, the first of equals."""
  order = sorted(range(len(values)), key=lambda i: (-values[i], i))
  kept = np.zeros_like(values)
  for i in order[:k]:
    kept[i] = max(values[i], 0)
  return kept


def encode_one(layer, x):
  """Latents of the rows of x [rows, d] by one w_enc, b_enc, b_in."""
  if layer.b_in is not None:
    x = x - plain(layer.b_in, "input")
  products = x @ plain(layer.w_enc, "input", "latents")
  return activate(layer.activation, products, plain(layer.b_enc, "latents"))


def encode(dictionary, x):
  """Latents of x [rows, d], or [layer, rows, d]."""
  x = np.asarray(x, np.float64)
  if isinstance(dictionary, CrossLayer):
    return np.stack([encode_one(p, v) for p, v in zip(dictionary.parts, x)])
  if isinstance(dictionary, Crosscoder):
    products = sum(
      v @ plain(w, "input", "latents") for v, w in zip(x, dictionary.w_enc)
    )
    bias = plain(dictionary.b_enc, "latents")
    return activate(dictionary.activation, products, bias)
  return encode_one(dictionary, x)


def rebuild(dictionary, latents, x):
  """Reconstruction [rows, d], or [layer, rows, d]."""
  x, latents = np.asarray(x, np.float64), np.asarray(latents, np.float64)
  if isinstance(dictionary, CrossLayer):
    return _rebuild_layers(dictionary, latents, x)
  if isinstance(dictionary, Crosscoder):
    return np.stack(
      [
        latents @ plain(w, "latents", "output") + plain(b, "output")
        for w, b in zip(dictionary.w_dec, dictionary.b_dec)
      ]
    )
  y = latents @ plain(dictionary.w_dec, "latents", "output")
  y = y + plain(dictionary.b_dec, "output")
  if getattr(dictionary, "skip", None) is not None:
    y = y + x @ plain(dictionary.skip, "input", "output")
  return y


def _rebuild_layers(dictionary, latents, x):
  rebuilt = []
  for j, part in enumerate(dictionary.parts):
    y = np.zeros_like(x[j]) + plain(part.b_dec, "output")
    for i, source in enumerate(dictionary.parts):
      w = plain(source.w_dec, "latents", "layer", "output")
      if dictionary.causal and i > j:
        continue
      slot = j - i if dictionary.causal else j
      for m in range(w.shape[0]):
        y += latents[i][:, m : m + 1] * w[m, slot]
    if part.skip is not None:
      y += x[j] @ plain(part.skip, "input", "output")
    rebuilt.append(y)
  return np.stack(rebuilt)
