"""Compiling ahead of time, and asking the compiler.

gs.plan(f, *shapes, machine="v5e:4x4")            any JAX function
plan_step(capture_step(shape))                    a step of this library
"""

from collections.abc import Callable
import re
from typing import Any

import jax

from gemma_scope.planning.costs import (
  ONE_PIECE,
  compiled,
  costs_by_layers,
  costs_of,
)
from gemma_scope.planning.flops import matmul_flops
from gemma_scope.planning.machines import Machine, find_machine
from gemma_scope.planning.report import Memory, Plan
from gemma_scope.planning.steps import Step

# "… the total memory required for HLO temporaries (26.69G) exceeds …" and, of
# other compilers, "… Used 23.5G of 15.75G hbm …"
_NEEDED = re.compile(
  r"(?:memory required[^()]*\(|Used )([\d.]+)([KMGT]?)(?:\)| of )", re.I
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def plan(
  f: Callable[..., Any], *arguments: Any, machine: Machine | str = "cpu"
) -> Plan:
  """Plans any JAX function.

  Args:
    f: The function; jitted or not.
    *arguments: Arrays or shapes (`jax.ShapeDtypeStruct`) with shardings on
      `machine.mesh`; those without are held whole by every chip.
    machine: A machine, or a name such as "v5e:4x4" (see `find_machine`).

  Raises:
    ConfigError: If there is no such machine.
  """
  machine = find_machine(machine) if isinstance(machine, str) else machine
  placed = _placed(arguments, machine)
  jitted = f if hasattr(f, "lower") else jax.jit(f)
  program = jax.make_jaxpr(jitted)(*placed)
  lowered = jitted.lower(*placed)  # pyright: ignore
  made, needed = _compile(lowered)
  return Plan(
    title=getattr(f, "__name__", "a function"),
    machine=machine,
    memory=None if made is None else _memory(made),
    needed=needed,
    costs=None if made is None else costs_of(made),
    ideal_flops=matmul_flops(program) / machine.count,
    float32=_any_float32(placed),
    loops="scan[" in str(program) or "while[" in str(program),
  )


def plan_step(step: Step, *, costs: bool = True) -> Plan:
  """Plans a step of this library; loops are counted as often as they run.

  Args:
    step: See `steps`.
    costs: Whether to find out what a chip does, which takes three more, small
      compilations.
  """
  shape = step.shape
  made, needed = _compile(step.lower())
  found = None
  if costs:
    tpu = shape.machine.mesh.devices.flat[0].platform == "tpu"
    options = ONE_PIECE if tpu else {}
    if shape.scan:
      found = costs_by_layers(step.lower_few, *step.kinds, options)
    elif made is not None:
      found = costs_of(made)
  return Plan(
    title=f"{shape.model}, {step.title}, "
    f"{shape.batch} x {shape.tokens} tokens, {shape.dtype}",
    machine=shape.machine,
    memory=None if made is None else _memory(made),
    needed=needed,
    costs=found,
    ideal_flops=matmul_flops(step.program()) / shape.machine.count,
    float32=shape.dtype == "float32",
    loops=False,
  )


def largest_batch(step: Step) -> int:
  """The largest batch that fits, a multiple of the mesh's `data` axis; or 0.

  Memory grows by the same amount for every row: two compilations tell how
  much, and a third one that the answer holds.
  """
  mesh = step.shape.machine.mesh
  unit = mesh.shape["data"]
  capacity = step.shape.machine.chip.memory
  few, more = (_compile(step.lower(n * unit))[1] for n in (1, 2))
  if few > capacity:
    return 0
  slope = max(more - few, 1.0)
  count = 1 + int((capacity - few) / slope)
  while count > 1 and _compile(step.lower(count * unit))[1] > capacity:
    count = min(count - 1, int(count * 0.95))
  return count * unit


def _compile(lowered: Any) -> tuple[Any | None, float]:
  """The compiled program, if it fits, and the bytes it needs on a chip."""
  try:
    program = compiled(lowered)
  except jax.errors.JaxRuntimeError as error:
    found = _NEEDED.search(str(error))
    if found is None:
      raise
    return None, float(found[1]) * _UNITS[found[2].upper()]
  return program, _memory(program).total


def _memory(program: Any) -> Memory:
  stats = program.memory_analysis()
  return Memory(
    arguments=float(stats.argument_size_in_bytes),
    outputs=float(stats.output_size_in_bytes - stats.alias_size_in_bytes),
    temporaries=float(stats.temp_size_in_bytes),
    code=float(stats.generated_code_size_in_bytes),
  )


def _placed(arguments: Any, machine: Machine) -> Any:
  """Shapes on the machine; those without a sharding are held whole."""
  whole = jax.sharding.NamedSharding(machine.mesh, jax.sharding.PartitionSpec())

  def place(leaf: Any) -> jax.ShapeDtypeStruct:
    where = getattr(leaf, "sharding", None)
    there = isinstance(where, jax.sharding.NamedSharding)
    shape = jax.eval_shape(lambda: leaf) if not hasattr(leaf, "shape") else leaf
    return jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=where if there else whole
    )

  return jax.tree.map(place, arguments)


def _any_float32(arguments: Any) -> bool:
  return any(leaf.dtype == "float32" for leaf in jax.tree.leaves(arguments))
