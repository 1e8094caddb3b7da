"""All contact with the inside of JAX's program representation.

Tracing a function, re-emitting an equation where it came from, and saying
where that was. Written for JAX 0.10 and newer; what changes there, changes
here alone.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax._src import sharding_impls, source_info_util
from jax.core import Tracer
from jax.extend import core
import jax.numpy as jnp
import numpy as np

_UNSPECIFIED = type(
  sharding_impls.UNSPECIFIED  # pyright: ignore[reportPrivateImportUsage]
)

Equation = Any
Program = Any  # a ClosedJaxpr


def trace(f: Callable[..., Any], args: Sequence[Any]) -> tuple[Program, Any]:
  """The program of `f` on `args`, and the tree structure of its result."""
  closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
  return closed, jax.tree.structure(shape)


def is_literal(atom: Any) -> bool:
  """Whether an operand is a constant written into the program."""
  return isinstance(atom, core.Literal)


def bind(eqn: Equation, values: Sequence[Any]) -> list[Any]:
  """Runs one equation on other values."""
  found = eqn.primitive.get_bind_params(eqn.params)
  functions, params = found if isinstance(found, tuple) else ((), found)
  out = eqn.primitive.bind(*functions, *values, **params)
  return list(out) if eqn.primitive.multiple_results else [out]


@contextlib.contextmanager
def place_of(eqn: Equation) -> Iterator[None]:
  """Re-emits under the equation's own name stack, source line and context."""
  info = eqn.source_info
  stack = source_info_util.current_name_stack() + info.name_stack
  manager = eqn.ctx.manager
  with source_info_util.user_context(info.traceback, name_stack=stack), manager:
    yield


def source_line(eqn: Equation) -> str:
  """File, line and function that wrote an equation."""
  return source_info_util.summarize(eqn.source_info)


def current_scope() -> str:
  """The path of named scopes that is being emitted into.

  Transforms around them (`vmap(…)`, `jvp(…)`) are left out.
  """
  stack = source_info_util.current_name_stack().stack
  scopes = (part for part in stack if isinstance(part, source_info_util.Scope))
  return "/".join(scope.name for scope in scopes)


def without_scope() -> AbstractContextManager[Any]:
  """Named scopes start anew, as in a program that is traced apart."""
  return source_info_util.reset_name_stack()


def number(value: Any) -> float | None:
  """A scalar constant of the program as a number; None for anything else."""
  if isinstance(value, Tracer) or np.shape(value):
    return None
  if not jnp.issubdtype(jax.dtypes.result_type(value), np.number):
    return None  # a truth value, or a key of random numbers
  return float(np.real(np.asarray(value)).item())


def compilation_of(eqn: Equation) -> dict[str, Any]:
  """What a jit equation asks of `jax.jit`: shardings, if it names any."""

  def given(shardings: Sequence[Any]) -> tuple[Any, ...] | None:
    known = tuple(None if isinstance(s, _UNSPECIFIED) else s for s in shardings)
    return known if any(s is not None for s in known) else None

  found = {
    name: given(eqn.params[name]) for name in ("in_shardings", "out_shardings")
  }
  return {name: value for name, value in found.items() if value is not None}


def inner_program(eqn: Equation) -> Program:
  """The one program that a call-like equation runs.

  Covers jit, remat, shard_map, custom_jvp and custom_vjp.
  """
  names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
  inner = next(eqn.params[name] for name in names if name in eqn.params)
  if isinstance(inner, core.ClosedJaxpr):
    return inner
  return core.ClosedJaxpr(inner, ())


def scan_counts(eqn: Equation) -> tuple[int, int]:
  """How many operands of a scan are constants, and how many are carried."""
  if "num_consts" in eqn.params:
    return eqn.params["num_consts"], eqn.params["num_carry"]
  consts, carry, _ = eqn.params["ft_in"].unpack()  # JAX 0.12
  return len(list(consts)), len(list(carry))


def is_traced_from(program: Program, f: Callable[..., Any]) -> bool:
  """Whether a program was traced from the Python function `f`."""
  code = f.__code__
  expected = f"{f.__name__} at {code.co_filename}:{code.co_firstlineno}"
  return program.jaxpr.debug_info.func_src_info == expected


def primitives(program: Program) -> Iterator[str]:
  """Names of all operations of a program, those of inner programs too."""
  for eqn in program.jaxpr.eqns:
    yield eqn.primitive.name
    for value in jax.tree.leaves(list(eqn.params.values())):
      if isinstance(value, core.ClosedJaxpr):
        yield from primitives(value)
      elif isinstance(value, core.Jaxpr):
        yield from primitives(core.ClosedJaxpr(value, ()))


def is_differentiable(atom: Any) -> bool:
  """Whether a variable or literal holds real or complex floating numbers."""
  return jnp.issubdtype(atom.aval.dtype, jnp.inexact)
