"""All contact with the inside of JAX's program representation.

Tracing a function, re-emitting an equation where it came from, and saying
where that was. Written for JAX 0.10 and newer; what changes there, changes
here alone.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from typing import Any

import jax
from jax._src import source_info_util
from jax.extend import core
import jax.numpy as jnp

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
  """The path of named scopes that is being emitted into."""
  return str(source_info_util.current_name_stack())


def inner_program(eqn: Equation) -> Program | None:
  """The one program that a call-like equation runs, or None.

  Covers jit, remat, custom_jvp and custom_vjp, whose own derivatives are left
  for the rules to decide.
  """
  for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
    inner = eqn.params.get(name)
    if inner is None:
      continue
    if isinstance(inner, core.ClosedJaxpr):
      return inner
    return core.ClosedJaxpr(inner, ())
  return None


def is_differentiable(atom: Any) -> bool:
  """Whether a variable or literal holds real or complex floating numbers."""
  return jnp.issubdtype(atom.aval.dtype, jnp.inexact)
