"""What benchmarks.gpu_capture runs: sizes, shapes, FLOPs, and the weights.

Both sides compute the same weights from a tensor's name and an index, so that
their numbers can be compared without a file between them:

    w[i] = (hash(i, name) - 1/2) sqrt(12) / sqrt(fan-in)

with a hash that is uniform on [0, 1) in steps of 2^-24. Standard library only:
the worker of the peer imports this file from its own environment.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any
import zlib

# Products of a 32-bit hash; see `benchmarks.gpu_ours.hashed`.
FIRST, SECOND = 2654435761, 0x85EBCA6B

# A part of the device's name -> dtype -> FLOP/s of dense matrix products, as
# published. float32 is that of the ordinary units: no TF32 on either side.
PEAKS: Mapping[str, Mapping[str, float]] = {
  "H100": {"bfloat16": 989e12, "float32": 67e12},
  "H200": {"bfloat16": 989e12, "float32": 67e12},
  "A100": {"bfloat16": 312e12, "float32": 19.5e12},
  "L4": {"bfloat16": 121e12, "float32": 30.3e12},
  "T4": {"float32": 8.1e12},
}


@dataclasses.dataclass(frozen=True)
class Case:
  """One row of the table.

  Attributes:
    size: A size of Gemma 3, or "tiny".
    dtype: "bfloat16" or "float32".
    rows: Sequences of a batch.
    length: Tokens of a sequence.
  """

  size: str
  dtype: str
  rows: int
  length: int

  @property
  def name(self) -> str:
    """Such as `1b bfloat16 16x1024`."""
    return f"{self.size} {self.dtype} {self.rows}x{self.length}"

  @property
  def tokens(self) -> int:
    """Tokens of a batch."""
    return self.rows * self.length


# In order of interest: where time runs out, the last ones are left out.
CASES = (
  Case("270m", "bfloat16", 16, 1024),
  Case("1b", "bfloat16", 16, 1024),
  Case("4b", "bfloat16", 16, 1024),
  Case("270m", "float32", 16, 1024),
  Case("270m", "bfloat16", 8, 512),
  Case("1b", "bfloat16", 8, 512),
  Case("4b", "bfloat16", 8, 512),
  Case("1b", "float32", 8, 512),
)
TINY = (Case("tiny", "float32", 2, 24), Case("tiny", "bfloat16", 2, 24))


def capture_flops(sizes: Mapping[str, Any], case: Case) -> float:
  """FLOPs of one pass through the layers: products, and visible pairs only."""
  d, f, h = sizes["d_model"], sizes["d_ff"], sizes["head_dim"]
  n, k = sizes["num_heads"], sizes["num_kv_heads"]
  weights = d * n * h + 2 * d * k * h + n * h * d + 3 * d * f
  total = 0.0
  for layer in range(sizes["num_layers"]):
    window = None if is_global(layer, sizes["period"]) else sizes["window"]
    pairs = visible_pairs(case.length, window)
    total += 2.0 * weights * case.tokens + 4.0 * n * h * pairs * case.rows
  return total


def is_global(layer: int, period: int) -> bool:
  """Whether a layer attends to everything before it."""
  return (layer + 1) % period == 0


def visible_pairs(length: int, window: int | None) -> int:
  """How many (query, key) pairs of a sequence attend to one another."""
  reach = length if window is None else min(window, length)
  return reach * (reach + 1) // 2 + (length - reach) * reach


def peak_of(device: str, dtype: str) -> float | None:
  """FLOP/s of a device, if it is in the table."""
  found = [v for name, v in PEAKS.items() if name in device]
  return found[0].get(dtype) if found else None


def salt_of(name: str) -> int:
  """The number that tells a tensor's values from another's."""
  return zlib.crc32(name.encode())


def factor_of(name: str, shape: tuple[int, ...]) -> float:
  """Of the values of a canonical tensor, which are uniform within a half."""
  if name.endswith("scale"):
    return 0.1
  if name.startswith("embedder"):
    fan_in = shape[-1]
  elif name.endswith(("q_einsum/w", "kv_einsum/w")):
    fan_in = shape[-2]
  elif name.endswith("gating_einsum"):
    fan_in = shape[-1]
  else:
    fan_in = math.prod(shape[:-1])
  return math.sqrt(12 / fan_in)
