"""Block-quantised GGUF data to float32, vectorised over blocks.

A block is a few bytes that hold 32 or 256 weights: one or two float16 scales
and integers of 4 to 8 bits. The results equal those of the reference
implementation (`gguf.quants.dequantize`) bit for bit: the same integers are
multiplied in the same order in float32. It does not quantise.
"""

from collections.abc import Callable
from concurrent import futures
import dataclasses
import math
import os

import ml_dtypes
import numpy as np

from gemma_scope import errors

# A chunk's float32 output stays in the second-level cache.
_CHUNK_ELEMENTS = 1 << 16
_PARALLEL_FROM = 1 << 20

_Decoder = Callable[[np.ndarray, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Encoding:
  """How one GGUF tensor type packs numbers.

  Attributes:
    name: The type's name in GGUF tools, such as "Q4_K".
    block_elements: Weights in one block.
    block_bytes: Bytes of one block.
    plain: The numpy dtype of an unquantised type, None for packed ones.
    decode: Fills float32 [blocks, block_elements] from uint8 [blocks,
      block_bytes].
  """

  name: str
  block_elements: int
  block_bytes: int
  plain: np.dtype | None
  decode: _Decoder

  def nbytes(self, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor of this shape takes.

    Raises:
      CheckpointError: the rows are no whole number of blocks.
    """
    if shape and shape[-1] % self.block_elements:
      raise errors.CheckpointError(
        f"A {self.name} row must be a multiple of {self.block_elements}.",
        received=f"shape {shape}",
        instead="a file whose header is intact; download it again",
      )
    return math.prod(shape) // self.block_elements * self.block_bytes


def dequantize(
  data: np.ndarray, encoding: Encoding, shape: tuple[int, ...]
) -> np.ndarray:
  """Unpacks one tensor.

  Args:
    data: uint8 [bytes], exactly the bytes of the tensor.
    encoding: How they are packed.
    shape: The shape of the result, slowest axis first.

  Returns:
    float32, freshly allocated (a view of `data` where it is float32 already).
  """
  if encoding.plain == np.float32:
    return data.view(np.float32).reshape(shape)
  blocks = data.reshape(-1, encoding.block_bytes)
  out = np.empty(shape, np.float32)
  rows = out.reshape(-1, encoding.block_elements)
  step = max(1, _CHUNK_ELEMENTS // encoding.block_elements)
  starts = range(0, len(blocks), step)

  def decode(start: int) -> None:
    part = slice(start, start + step)
    encoding.decode(blocks[part], rows[part])

  if out.size < _PARALLEL_FROM:
    for start in starts:
      decode(start)
  else:
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      # list() so that an exception in a worker is raised here.
      list(pool.map(decode, starts))
  return out


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
  """The float16 at byte `at` of every block, float32 [blocks, 1]."""
  return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
  """[..., n] bytes -> [..., 2, n]: all low halves, then all high halves."""
  out = np.empty((*packed.shape[:-1], 2, packed.shape[-1]), np.uint8)
  np.bitwise_and(packed, 0x0F, out=out[..., 0, :])
  np.right_shift(packed, 4, out=out[..., 1, :])
  return out


def _scaled(
  integers: np.ndarray, scale: np.ndarray, groups: int, out: np.ndarray
) -> np.ndarray:
  """Writes integers * scale to out, grouped; returns out's grouped view."""
  grouped = out.reshape(len(out), groups, -1)
  grouped[...] = integers.reshape(grouped.shape)
  grouped *= scale.reshape(len(out), -1, 1)
  return grouped


def _decode_q4_0(blocks: np.ndarray, out: np.ndarray) -> None:
  integers = _nibbles(blocks[:, 2:]).view(np.int8)
  integers -= 8
  _scaled(integers, _half(blocks, 0), 1, out)


def _decode_q5_0(blocks: np.ndarray, out: np.ndarray) -> None:
  integers = _nibbles(blocks[:, 6:]).reshape(-1, 32)
  fifth = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
  integers |= fifth << np.uint8(4)
  signed = integers.view(np.int8)
  signed -= 16
  _scaled(signed, _half(blocks, 0), 1, out)


def _decode_q8_0(blocks: np.ndarray, out: np.ndarray) -> None:
  _scaled(blocks[:, 2:].view(np.int8), _half(blocks, 0), 1, out)


def _k_scales(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The eight scales and minima of a Q4_K or Q5_K block, float32 [blocks, 8].

  Twelve bytes hold 16 six-bit numbers: bytes 0-3 and 4-7 the first four scales
  and minima (low six bits), their top two bits and bytes 8-11 the other four.
  """
  packed = blocks[:, 4:16].reshape(-1, 3, 4)
  first, second, mixed = packed[:, 0], packed[:, 1], packed[:, 2]
  scales = np.concatenate(
    [first & 0x3F, (mixed & 0x0F) | ((first >> 2) & 0x30)], axis=1
  )
  minima = np.concatenate(
    [second & 0x3F, (mixed >> 4) | ((second >> 2) & 0x30)], axis=1
  )
  return scales.astype(np.float32), minima.astype(np.float32)


def _finish_k(
  integers: np.ndarray, blocks: np.ndarray, out: np.ndarray
) -> None:
  """Writes d * scale * integer - dmin * minimum, in groups of 32, to out."""
  scales, minima = _k_scales(blocks)
  grouped = _scaled(integers, _half(blocks, 0) * scales, 8, out)
  grouped -= (_half(blocks, 2) * minima)[..., None]


def _decode_q4_k(blocks: np.ndarray, out: np.ndarray) -> None:
  integers = _nibbles(blocks[:, 16:].reshape(-1, 4, 32))
  _finish_k(integers, blocks, out)


def _decode_q5_k(blocks: np.ndarray, out: np.ndarray) -> None:
  integers = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
  shifts = np.arange(8, dtype=np.uint8)[:, None]
  fifth = (blocks[:, None, 16:48] >> shifts) & np.uint8(1)
  integers |= fifth << np.uint8(4)
  _finish_k(integers, blocks, out)


def _decode_q6_k(blocks: np.ndarray, out: np.ndarray) -> None:
  integers = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
  shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
  high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts
  integers |= (high & np.uint8(3)) << np.uint8(4)
  signed = integers.view(np.int8)
  signed -= 32
  scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
  _scaled(signed, _half(blocks, 208) * scales, 16, out)


def _plain(name: str, dtype: np.dtype) -> Encoding:

  def decode(blocks: np.ndarray, out: np.ndarray) -> None:
    out[...] = blocks.view(dtype)

  return Encoding(name, 1, dtype.itemsize, dtype, decode)


# Keyed by the type id that GGUF headers carry.
ENCODINGS: dict[int, Encoding] = {
  0: _plain("F32", np.dtype(np.float32)),
  1: _plain("F16", np.dtype(np.float16)),
  2: Encoding("Q4_0", 32, 18, None, _decode_q4_0),
  6: Encoding("Q5_0", 32, 22, None, _decode_q5_0),
  8: Encoding("Q8_0", 32, 34, None, _decode_q8_0),
  12: Encoding("Q4_K", 256, 144, None, _decode_q4_k),
  13: Encoding("Q5_K", 256, 176, None, _decode_q5_k),
  14: Encoding("Q6_K", 256, 210, None, _decode_q6_k),
  30: _plain("BF16", np.dtype(ml_dtypes.bfloat16)),
}
