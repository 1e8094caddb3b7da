"""A table of latents in a few bytes each: what the starter suite stores.

    tokens       18 bits each, in three planes of bytes that deflate well
    activations  in steps of 1/255 of the latent's largest
    logits       in steps of 1/127 of the largest of both ends
    histograms   the 16 uppermost bins in use, counts in steps of 7 %

Frequencies and maxima stay exact. Half a step is what `pack_table` loses.
"""

from collections.abc import Mapping

import numpy as np

from gemma_scope.dictionaries.latent_table import EDGES, LatentTable

BINS = 16
_STEPS = 10  # of a count's logarithm, to an octave


def pack_table(table: LatentTable) -> dict[str, np.ndarray]:
  """The arrays to store, by name."""
  largest = np.maximum(table.maxima, 1e-30)[:, None, None]
  scale = np.abs(table.logit_values).max(axis=(1, 2), initial=0)
  scale = np.where(scale > 0, scale, 1).astype(np.float32)
  steps = np.rint(127 * table.logit_values / scale[:, None, None])
  last, bins = _upper_bins(table.histograms)
  return {
    **_planes("tokens", table.tokens),
    **_planes("logit_tokens", table.logit_tokens),
    "activations": _up_to_255(table.activations / largest),
    "frequencies": table.frequencies.astype(np.float32),
    "maxima": table.maxima.astype(np.float32),
    "histogram_last": last,
    "histograms": np.rint(_STEPS * np.log2(1.0 + bins)).astype(np.uint8),
    "logit_values": steps.astype(np.int8),
    "logit_scale": scale,
    "counted": np.asarray([table.counted], np.int64),
  }


def unpack_table(arrays: Mapping[str, np.ndarray]) -> LatentTable:
  """The inverse of `pack_table`, to within half a step.

  Args:
    arrays: What it gave.

  Raises:
    KeyError: One of them is missing.
  """
  maxima = arrays["maxima"]
  counts = np.rint(2.0 ** (arrays["histograms"] / _STEPS) - 1).astype(np.int64)
  scale = arrays["logit_scale"][:, None, None]
  return LatentTable(
    tokens=_ids(arrays, "tokens"),
    activations=arrays["activations"] / np.float32(255) * maxima[:, None, None],
    frequencies=arrays["frequencies"],
    maxima=maxima,
    histograms=_all_bins(arrays["histogram_last"], counts),
    logit_tokens=_ids(arrays, "logit_tokens"),
    logit_values=arrays["logit_values"] * (scale / np.float32(127)),
    counted=int(arrays["counted"][0]),
  )


def _planes(name: str, ids: np.ndarray) -> dict[str, np.ndarray]:
  """Bytes of ids + 1, each kind on its own: the upper ones hardly vary."""
  shifted = (ids + 1).astype(np.uint32)
  return {
    f"{name}.{i}": ((shifted >> (8 * i)) & 255).astype(np.uint8)
    for i in range(3)
  }


def _ids(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
  planes = [arrays[f"{name}.{i}"].astype(np.int32) << (8 * i) for i in range(3)]
  return planes[0] + planes[1] + planes[2] - 1


def _up_to_255(fractions: np.ndarray) -> np.ndarray:
  """Fractions as bytes; what is active stays above zero."""
  steps = np.rint(255 * np.clip(fractions, 0, 1))
  return np.where(fractions > 0, np.maximum(steps, 1), 0).astype(np.uint8)


def _upper_bins(histograms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[latents] the last bin in use, and [latents, BINS] those up to it."""
  bins = histograms.shape[1]
  used = histograms > 0
  last = np.where(used.any(1), bins - 1 - used[:, ::-1].argmax(1), BINS - 1)
  last = np.maximum(last, BINS - 1)
  columns = last[:, None] - np.arange(BINS - 1, -1, -1)
  upper = np.take_along_axis(histograms, columns, axis=1)
  upper[:, 0] += histograms.sum(1) - upper.sum(1)
  return last.astype(np.uint8), upper


def _all_bins(last: np.ndarray, upper: np.ndarray) -> np.ndarray:
  """The inverse of `_upper_bins`, as far as it goes."""
  histograms = np.zeros((len(last), len(EDGES)), np.int64)
  columns = last[:, None].astype(np.int64) - np.arange(BINS - 1, -1, -1)
  np.put_along_axis(histograms, columns, upper, axis=1)
  return histograms
