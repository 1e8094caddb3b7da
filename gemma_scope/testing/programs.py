"""What a traced program does: its operations, counted through its loops.

For tests that something is not computed: no layer too many, no logits, no
attention pattern. Looks at the traced program, before the compiler; a loop of
unknown length counts once.
"""

from collections.abc import Callable, Iterator
import dataclasses
import math
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Operation:
  """One equation of a program.

  Attributes:
    name: Name of the primitive, such as "dot_general" or "scan".
    shapes: Shapes of its results.
    times: How often it runs, by the lengths of the scans around it.
  """

  name: str
  shapes: tuple[tuple[int, ...], ...]
  times: int


def operations(function: Callable[..., Any], *args: Any) -> list[Operation]:
  """Every operation of a function, those in inner functions and loops too.

  A loop or inner function is an operation itself, followed by its own.

  Args:
    function: Takes pytrees of arrays.
    *args: Arrays, or shapes in their place.
  """
  return list(_walk(jax.make_jaxpr(function)(*args), 1))


def count(found: list[Operation], name: str) -> int:
  """How often operations of one name run."""
  return sum(op.times for op in found if op.name == name)


def largest(found: list[Operation]) -> int:
  """Elements of the largest result of any operation."""
  return max(math.prod(shape) for op in found for shape in op.shapes)


def _walk(program: Any, times: int) -> Iterator[Operation]:
  inner = getattr(program, "jaxpr", program)
  for equation in inner.eqns:
    subprograms = [
      part
      for value in equation.params.values()
      for part in (value if isinstance(value, tuple | list) else (value,))
      if hasattr(part, "eqns") or hasattr(part, "jaxpr")
    ]
    shapes = tuple(v.aval.shape for v in equation.outvars)
    yield Operation(equation.primitive.name, shapes, times)
    for part in subprograms:
      yield from _walk(part, times * equation.params.get("length", 1))
