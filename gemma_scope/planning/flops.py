"""How many FLOPs a JAX function needs: its matrix products, scans unrolled.

    2 x (size of the result) x (terms of each sum)

This is the arithmetic that the mathematics asks for, on all chips together.
What one chip does of it, the compiler says (see `costs`). Elementwise work is
left out. A `while` counts once, for nobody knows how often it runs.
"""

import math
from typing import Any

import jax
from jax.extend import core


def matmul_flops(program: core.ClosedJaxpr) -> float:
  """FLOPs of all matrix products of a program.

  Args:
    program: From `jax.make_jaxpr` or a lowered function.
  """
  return _count(program.jaxpr)


def _count(jaxpr: Any) -> float:
  return sum(_equation(eqn) for eqn in jaxpr.eqns)


def _equation(eqn: Any) -> float:
  name = eqn.primitive.name
  if name == "dot_general":
    return _product(eqn)
  inner = [_count(j) for j in _programs(eqn.params)]
  if name == "scan":
    return eqn.params["length"] * sum(inner)
  if name == "shard_map":
    return eqn.params["mesh"].size * sum(inner)
  if name == "cond":
    return max(inner)
  return sum(inner)


def _product(eqn: Any) -> float:
  (contracted, _), _ = eqn.params["dimension_numbers"]
  terms = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
  return 2.0 * terms * math.prod(eqn.outvars[0].aval.shape)


def _programs(params: dict[str, Any]) -> list[Any]:
  """The programs among an equation's parameters."""
  leaves = jax.tree.leaves(
    list(params.values()), is_leaf=lambda x: hasattr(x, "eqns")
  )
  found = [getattr(leaf, "jaxpr", leaf) for leaf in leaves]
  return [leaf for leaf in found if hasattr(leaf, "eqns")]
