"""Gemma 3 from arrays, however these are made: read, random, or shapes only.

`build_gemma` asks an `ArraySource` for every array of the model. Readers of
checkpoints, random initialisation and `jax.eval_shape` differ in that source
alone, so there is one definition of the model.
"""

from collections.abc import Callable
import dataclasses
import functools

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
from gemma_scope.model.sharding import parameter_sharding
from gemma_scope.model.site_layer import make_site
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
  config: GemmaConfig,
  source: ArraySource,
  *,
  scan: bool = True,
  mesh: jax.sharding.Mesh | None = None,
) -> Gemma:
  """Builds the model.

  Args:
    config: Its shape.
    source: Answers every request for an array.
    scan: Whether whole periods are stacked and scanned over; if not, every
      layer has its own arrays and its own piece of the program.
    mesh: The mesh that activations are sharded over, if any.
  """

  def outer(name: str) -> pz.nx.NamedArray:
    request = ArrayRequest((name,), layout.OUTER_LAYOUT[name], stacked=False)
    return source(request)

  periods = config.num_layers // config.period if scan else 0
  single = range(periods * config.period, config.num_layers)
  return Gemma(
    table=outer("embedder/input_embedding"),
    embed=make_site("embed", mesh),
    stack=Stack(
      period=tuple(
        _block(config, source, layout.scanned_layers(config, k), True, mesh)
        for k in range(config.period if periods else 0)
      ),
      rest=tuple(
        _block(config, source, range(i, i + 1), False, mesh) for i in single
      ),
      num_periods=periods,
      stop=config.num_layers,
    ),
    final_norm=RMSNorm(outer("final_norm/scale"), config.norm_eps),
    final=make_site("final_norm", mesh),
    logits=make_site("logits", mesh),
    config=config,
  )


def _block(
  config: GemmaConfig,
  source: ArraySource,
  layers: range,
  stacked: bool,
  mesh: jax.sharding.Mesh | None,
) -> Block:
  arrays = {}
  for name, how in layout.LAYER_LAYOUT.items():
    names = tuple(f"layer_{i}/{name}" for i in layers)
    arrays[name] = source(ArrayRequest(names, how, stacked))
  is_global = config.is_global(layers[0])
  return build_block(config, is_global=is_global, arrays=arrays, mesh=mesh)


def abstract_gemma(
  config: GemmaConfig,
  dtype: jnp.dtype | type = jnp.float32,
  *,
  scan: bool = True,
  mesh: jax.sharding.Mesh | None = None,
) -> Gemma:
  """The model with shapes in place of arrays; uses no memory.

  With a mesh, every shape has its sharding.
  """
  shapes = canonical_shapes(config.sizes)

  def zeros(request: ArrayRequest) -> pz.nx.NamedArray:
    shape = request_shape(request, shapes)
    return pz.nx.wrap(jnp.zeros(shape, dtype), *request.axes)

  model = jax.eval_shape(
    lambda: build_gemma(config, zeros, scan=scan, mesh=mesh)
  )
  if mesh is None:
    return model
  return jax.tree.map(
    functools.partial(_on_mesh, mesh=mesh), model, is_leaf=pz.nx.is_namedarray
  )


def _on_mesh(
  array: pz.nx.NamedArray, mesh: jax.sharding.Mesh
) -> pz.nx.NamedArray:
  """A named shape with the sharding of a parameter."""
  data = array.data_array
  names = tuple(map(str, array.named_axes))
  where = parameter_sharding(mesh, names, data.shape)
  placed = jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=where)
  return dataclasses.replace(array, data_array=placed)


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
