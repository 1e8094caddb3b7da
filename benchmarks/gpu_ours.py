"""gemma_scope's side of benchmarks.gpu_capture: one process, all cases.

    python -m benchmarks.gpu_ours ARGUMENTS.json RESULTS.jsonl

The model is tapped once; every batch is one call of the compiled forward pass.
Variants run other formulations of the same arithmetic, to see what a faster
one would gain:

    scan, unrolled   how the layers are laid out (by default as gs.load does)
    narrow           products return bfloat16 at once, not float32 rounded
    cudnn            attention by cuDNN's kernel, for rows of one sequence
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import math
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from benchmarks.gpu_cases import FIRST, SECOND, Case, factor_of, salt_of
from benchmarks.gpu_timing import Results, arguments, repeat
from gemma_scope.activations.run import forward
from gemma_scope.model import attention_kernel, linear
from gemma_scope.model.build import ArrayRequest, build_gemma
from gemma_scope.model.config import SIZES, GemmaConfig
from gemma_scope.model.gemma import Gemma
from gemma_scope.sites import resolve
from gemma_scope.surgery.select import stop_after, tap
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.weights.checkpoint import canonical_shapes


def main() -> None:
  """Runs the cases of the arguments file one after the other."""
  given = arguments()
  results = Results(sys.argv[2], given["budget"])
  for case, variant in _wanted(given):
    results.add(case, variant, functools.partial(_measure, case, variant))


def _wanted(given: Mapping[str, Any]) -> Iterator[tuple[Case, str]]:
  cases = [Case(*row) for row in given["cases"]]
  for case in cases:
    yield case, ""
  for variant in given["variants"]:
    for case in cases:
      yield case, variant


def config_of(size: str) -> GemmaConfig:
  """The shape of a size."""
  return tiny_config() if size == "tiny" else SIZES[size]


def _measure(case: Case, variant: str) -> dict[str, Any]:
  """Seconds of a batch, and what tells that it is the right one."""
  undo = _patched(variant)
  try:
    return _timed(case, variant)
  finally:
    undo()
    jax.clear_caches()


def _timed(case: Case, variant: str) -> dict[str, Any]:
  config = config_of(case.size)
  scan = config.num_layers > 26  # as gs.load chooses
  scan = {"scan": True, "unrolled": False}.get(variant, scan)
  model = hashed_gemma(config, jnp.dtype(case.dtype), scan)
  sites = resolve(["resid_post[:]"], config.num_layers)
  model = stop_after(tap(model, sites), sites)
  ids = jnp.asarray(tokens_of(case, config.vocab_size))
  segments, columns = jnp.ones_like(ids), jnp.zeros(0, jnp.int32)
  start = time.perf_counter()
  compiled = forward.lower(model, ids, segments, columns).compile()
  compiling = time.perf_counter() - start

  def call() -> Any:
    return compiled(model, ids, segments, columns)

  seconds = repeat(call, jax.block_until_ready)
  last = call()[sites[-1]].data_array.astype(jnp.float32)
  device = jax.devices()[0]
  return {
    "seconds": seconds,
    "compiling": compiling,
    "check": float(jnp.linalg.norm(last.reshape(-1))),
    "memory": _planned(compiled),
    "device": device.device_kind,
    "versions": {"jax": jax.__version__},
  }


def tokens_of(case: Case, vocabulary: int) -> np.ndarray:
  """Random ids with BOS in front; 0, the padding, does not occur."""
  rng = np.random.default_rng(0)
  ids = rng.integers(3, vocabulary, (case.rows, case.length), np.int32)
  ids[:, 0] = 2
  return ids


def hashed_gemma(config: GemmaConfig, dtype: Any, scan: bool) -> Gemma:
  """A model of hashed weights (see `gpu_cases`), made on the device."""
  shapes = canonical_shapes(config.sizes)

  def source(request: ArrayRequest) -> pz.nx.NamedArray:
    made = [
      hashed(
        np.uint32(salt_of(name)),
        np.float32(factor_of(name, shapes[name])),
        *(shapes[name], request.layout.order, str(dtype)),
      )
      for name in request.names
    ]
    array = jnp.stack(made) if request.stacked else made[0]
    return pz.nx.wrap(array, *request.axes)

  return build_gemma(config, source, scan=scan)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def hashed(
  salt: jax.Array,
  factor: jax.Array,
  shape: tuple[int, ...],
  order: tuple[int, ...],
  dtype: str,
) -> jax.Array:
  """The values of one canonical tensor, its axes in the model's order."""
  x = jnp.arange(math.prod(shape), dtype=jnp.uint32) * np.uint32(FIRST) + salt
  x = (x ^ (x >> 16)) * np.uint32(SECOND)
  x = x ^ (x >> 13)
  value = (x >> 8).astype(jnp.float32) * np.float32(2.0**-24) - 0.5
  return (value * factor).astype(dtype).reshape(shape).transpose(order)


def _planned(compiled: Any) -> int:
  """Bytes the compiler says a call needs, arguments included."""
  stats = compiled.memory_analysis()
  return (
    stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes
  )


def _patched(variant: str) -> Callable[[], None]:
  """Puts another formulation in; returns what takes it out again."""
  if variant == "narrow":
    return _swap(linear, "contract_apart", _narrow_product)
  if variant == "cudnn":
    return _swap(attention_kernel, "blocked_attention", _cudnn_attention)
  return lambda: None


def _swap(module: Any, name: str, new: Any) -> Callable[[], None]:
  old = getattr(module, name)
  setattr(module, name, new)
  return lambda: setattr(module, name, old)


def _narrow_product(x: jax.Array, w: jax.Array, count: int) -> jax.Array:
  """`linear.contract_apart` with a result that is never float32."""
  summed = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
  return jax.lax.dot_general(
    x,
    w,
    (summed, ((), ())),
    precision=linear.precision_of(x.dtype),
    preferred_element_type=x.dtype,
  )


def _cudnn_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  places: Any,
  scale: float,
  window: int | None,
) -> jax.Array:
  """`attention_kernel.blocked_attention` for rows of one sequence."""
  del places
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    scale=scale,
    is_causal=True,
    local_window_size=None if window is None else (window - 1, 0),
    implementation="cudnn" if query.dtype == jnp.bfloat16 else None,
  )


if __name__ == "__main__":
  main()
