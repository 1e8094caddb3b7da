"""How long the forward pass of each size takes to trace and compile.

    python -m benchmarks.compile_time

Shapes only: no weights, no memory. Expect the scanned times to be flat in
depth, 27B at most 1.5 times 4B. The compilation cache is not used.
"""

import time

import jax
import jax.numpy as jnp

from gemma_scope.model import gemma
from gemma_scope.model.build import abstract_gemma
from gemma_scope.model.config import SIZES

TOKENS = jax.ShapeDtypeStruct((1, 128), jnp.int32)


def forward(model: gemma.Gemma, ids: jax.Array) -> jax.Array:
  return gemma.run(model, ids, gemma.segments_of(ids))[0].data_array


def measure(size: str, *, scan: bool) -> tuple[float, float]:
  """Seconds to trace and lower, and to compile."""
  jax.clear_caches()
  model = abstract_gemma(SIZES[size], scan=scan)
  start = time.perf_counter()
  lowered = jax.jit(forward).lower(model, TOKENS)
  traced = time.perf_counter()
  lowered.compile()
  return traced - start, time.perf_counter() - traced


def main() -> None:
  print("size  layers  scanned: trace + compile   unrolled: trace + compile")
  for size, config in SIZES.items():
    row = [x for scan in (True, False) for x in measure(size, scan=scan)]
    print(
      f"{size:>5} {config.num_layers:>7}"
      f"{row[0]:>14.2f} + {row[1]:5.2f} s"
      f"{row[2]:>19.2f} + {row[3]:5.2f} s"
    )


if __name__ == "__main__":
  main()
