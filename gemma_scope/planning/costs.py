"""What one chip does in a compiled program: FLOPs, bytes, messages.

XLA counts the body of a loop once, however often it runs. So a step says how
to make itself for few layers, and

    cost(l local, g global) = cost(0, 0) + l (cost(1, 0) - cost(0, 0))
                                         + g (cost(0, 1) - cost(0, 0))

with all three made without overlapping messages and products, which would
hide products in loops of their own.
"""

from collections.abc import Callable
import dataclasses
import math
import re
from typing import Any
import warnings

import jax

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_SIZES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
COLLECTIVES = (
  *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
  "collective-permute",
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_MESSAGE = re.compile(rf"= (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")

# Keeps a product in one piece instead of a loop that also passes its parts on.
ONE_PIECE = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


@dataclasses.dataclass(frozen=True)
class Costs:
  """What one chip does in one run of a program.

  Attributes:
    flops: Floating-point operations.
    bytes_moved: Bytes that its operations read and write, as the compiler
      counts them; some of these stay in registers or caches.
    messages: Kind of collective -> how many.
    message_bytes: Kind of collective -> bytes of their results.
    unread: Whether a compiled program could not be read for messages, so that
      not all are counted.
  """

  flops: float
  bytes_moved: float
  messages: dict[str, float]
  message_bytes: dict[str, float]
  unread: bool = False

  def plus(self, other: "Costs", times: float) -> "Costs":
    """This and a multiple of another."""

    def join(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
      return {k: a.get(k, 0.0) + times * b.get(k, 0.0) for k in {**a, **b}}

    return Costs(
      self.flops + times * other.flops,
      self.bytes_moved + times * other.bytes_moved,
      join(self.messages, other.messages),
      join(self.message_bytes, other.message_bytes),
      self.unread or other.unread,
    )


def costs_of(program: Any) -> Costs:
  """The costs of a compiled program, bodies of loops counted once."""
  found = program.cost_analysis() or {}
  found = found[0] if isinstance(found, list) else found
  messages: dict[str, float] = {}
  sizes: dict[str, float] = {}
  text = _text(program)
  for shape, kind in _MESSAGE.findall(text or ""):
    messages[kind] = messages.get(kind, 0.0) + 1
    sizes[kind] = sizes.get(kind, 0.0) + _bytes(shape)
  return Costs(
    float(found.get("flops", 0.0)),
    float(found.get("bytes accessed", 0.0)),
    messages,
    sizes,
    unread=text is None,
  )


def _text(program: Any) -> str | None:
  """The compiled program; None where JAX cannot read what the compiler made.

  The TPU compiler is a package of its own, and newer than JAX's reader.
  """
  try:
    return program.as_text()
  except jax.errors.JaxRuntimeError:
    return None


def costs_by_layers(
  lower: Callable[[int, int], Any],
  local: int,
  globally: int,
  options: dict[str, str],
) -> Costs:
  """The costs of a step over many layers.

  Args:
    lower: The lowered step for a number of local and of global layers.
    local: How many local ones there are.
    globally: How many global ones there are.
    options: Of the compiler.
  """

  def made(*layers: int) -> Costs:
    return costs_of(compiled(lower(*layers), options))

  none = total = made(0, 0)
  for count, one in ((local, (1, 0)), (globally, (0, 1))):
    if count:
      total = total.plus(made(*one).plus(none, -1.0), float(count))
  return total


def compiled(lowered: Any, options: dict[str, str] | None = None) -> Any:
  """Compiles a lowered program.

  JAX cannot take programs for machines that are not there back out of its
  persistent cache, and says so; they are compiled again.
  """
  with warnings.catch_warnings():
    message = "Error reading persistent compilation cache"
    warnings.filterwarnings("ignore", message, UserWarning)
    return lowered.compile(compiler_options=options or None)


def _bytes(shape: str) -> float:
  """Bytes of the last array of a shape as the compiler writes it.

  An asynchronous message names its operand too; the last is what arrives.
  """
  arrays = _ARRAY.findall(shape)
  if not arrays:
    return 0.0
  dtype, sizes = arrays[-1]
  count = math.prod(int(n) for n in sizes.split(",") if n)
  return float(count * _SIZES.get(dtype, 4))
