"""Gemma 3 from arrays, however these are made: read, random, or shapes only.

`build_gemma` asks an `ArraySource` for every array of the model. Readers of
checkpoints, random initialisation and `jax.eval_shape` differ in that source
alone, so there is one definition of the model.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.model import layout
from gemma_scope.model.block import Block, build_block
from gemma_scope.model.config import GemmaConfig
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.norms import RMSNorm
from gemma_scope.model.site_layer import SiteLayer
from gemma_scope.model.stack import Stack
from gemma_scope.weights.checkpoint import canonical_shapes


@dataclasses.dataclass(frozen=True)
class ArrayRequest:
  """One array that a model needs.

  Attributes:
    names: Canonical names; more than one are stacked along `layer` in front.
    layout: Order and names of the axes of each.
    stacked: Whether there is a `layer` axis, also for a single name.
  """

  names: tuple[str, ...]
  layout: layout.ArrayLayout
  stacked: bool

  @property
  def axes(self) -> tuple[str, ...]:
    """Axis names of the array that answers the request."""
    front = (axes.LAYER,) if self.stacked else ()
    return front + self.layout.axes


ArraySource = Callable[[ArrayRequest], pz.nx.NamedArray]


def build_gemma(
  config: GemmaConfig, source: ArraySource, *, scan: bool = True
) -> Gemma:
  """Builds the model.

  Args:
    config: Its shape.
    source: Answers every request for an array.
    scan: Whether whole periods are stacked and scanned over; if not, every
      layer has its own arrays and its own piece of the program.
  """

  def outer(name: str) -> pz.nx.NamedArray:
    request = ArrayRequest((name,), layout.OUTER_LAYOUT[name], stacked=False)
    return source(request)

  periods = config.num_layers // config.period if scan else 0
  single = range(periods * config.period, config.num_layers)
  return Gemma(
    table=outer("embedder/input_embedding"),
    embed=SiteLayer("embed"),
    stack=Stack(
      period=tuple(
        _block(config, source, layout.scanned_layers(config, k), True)
        for k in range(config.period if periods else 0)
      ),
      rest=tuple(
        _block(config, source, range(i, i + 1), False) for i in single
      ),
      num_periods=periods,
      stop=config.num_layers,
    ),
    final_norm=RMSNorm(outer("final_norm/scale"), config.norm_eps),
    final=SiteLayer("final_norm"),
    logits=SiteLayer("logits"),
    config=config,
  )


def _block(
  config: GemmaConfig, source: ArraySource, layers: range, stacked: bool
) -> Block:
  arrays = {}
  for name, how in layout.LAYER_LAYOUT.items():
    names = tuple(f"layer_{i}/{name}" for i in layers)
    arrays[name] = source(ArrayRequest(names, how, stacked))
  is_global = config.is_global(layers[0])
  return build_block(config, is_global=is_global, arrays=arrays)


def abstract_gemma(
  config: GemmaConfig,
  dtype: jnp.dtype | type = jnp.float32,
  *,
  scan: bool = True,
) -> Gemma:
  """The model with shapes in place of arrays; uses no memory."""
  shapes = canonical_shapes(config.sizes)

  def zeros(request: ArrayRequest) -> pz.nx.NamedArray:
    shape = request_shape(request, shapes)
    return pz.nx.wrap(jnp.zeros(shape, dtype), *request.axes)

  return jax.eval_shape(lambda: build_gemma(config, zeros, scan=scan))


def random_tensors(
  config: GemmaConfig, seed: int, scale: float = 1.0
) -> dict[str, np.ndarray]:
  """Random float32 canonical tensors, for tests and benchmarks.

  Matrices are normal with variance scale ** 2 / fan-in, norm scales normal
  with deviation 0.1 * scale.
  """
  rng = np.random.default_rng(seed)
  tensors = {}
  for name, shape in canonical_shapes(config.sizes).items():
    values = rng.standard_normal(shape, dtype=np.float32)
    tensors[name] = values * np.float32(scale * _deviation(name, shape))
  return tensors


def request_shape(
  request: ArrayRequest, shapes: dict[str, tuple[int, ...]]
) -> tuple[int, ...]:
  """Shape of the array that answers `request`."""
  shape = shapes[request.names[0]]
  turned = tuple(shape[i] for i in request.layout.order)
  return (len(request.names), *turned) if request.stacked else turned


def _deviation(name: str, shape: tuple[int, ...]) -> float:
  if name.endswith("scale"):
    return 0.1
  if "einsum/w" in name and "vec" not in name:
    return shape[-2] ** -0.5
  if name.endswith("gating_einsum"):
    return shape[-1] ** -0.5
  fan_in = int(np.prod(shape[:-1])) if len(shape) == 3 else shape[0]
  if name.startswith("embedder"):
    fan_in = shape[-1]
  return fan_in**-0.5
