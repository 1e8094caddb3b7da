"""The steps that are planned: capture, attribution, a row of a graph.

A step knows how to lower itself for any batch, and for few layers, from shapes
alone: no weights are read and none are made.
"""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gemma_scope import axes
from gemma_scope.activations.run import forward
from gemma_scope.attribution.composites import FROZEN, RuleTable
from gemma_scope.attribution.methods.tables import TABLES
from gemma_scope.attribution.objectives.logits import ResolvedLogits
from gemma_scope.attribution.relevance import relevance
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError
from gemma_scope.model.build import abstract_gemma
from gemma_scope.model.config import GemmaConfig, preset
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import checked_dtype
from gemma_scope.model.sharding import activation_sharding
from gemma_scope.planning.machines import Machine
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.select import stop_after, tap


@dataclasses.dataclass(frozen=True)
class Shape:
  """What a step is made for.

  Attributes:
    model: A name of the catalogue.
    machine: Where it runs.
    batch: Rows.
    tokens: Tokens a row.
    dtype: Of weights and activations.
    scan: Whether layers are scanned over.
  """

  model: str
  machine: Machine
  batch: int
  tokens: int
  dtype: str = "bfloat16"
  scan: bool = True


@dataclasses.dataclass(frozen=True)
class Step:
  """A step that can be planned.

  Attributes:
    title: What it does, in words.
    shape: What it is made for.
    config: The model's shape.
    layers: How many layers it runs.
    make: (config, batch) -> a jitted function and its abstract arguments.
  """

  title: str
  shape: Shape
  config: GemmaConfig
  layers: int
  make: Callable[[GemmaConfig, int], tuple[Any, tuple[Any, ...]]]

  @property
  def kinds(self) -> tuple[int, int]:
    """How many local and how many global layers it runs."""
    globally = sum(map(self.config.is_global, range(self.layers)))
    return self.layers - globally, globally

  def lower(self, batch: int | None = None) -> Any:
    """The whole step, lowered."""
    function, arguments = self.make(self.config, batch or self.shape.batch)
    return function.lower(*arguments)

  def lower_few(self, local: int, globally: int) -> Any:
    """The step with no layer, or one that is local or global."""
    period = 1 if globally else self.config.period
    config = dataclasses.replace(
      self.config, num_layers=local + globally, period=period
    )
    function, arguments = self.make(config, self.shape.batch)
    return function.lower(*arguments)

  def program(self) -> Any:
    """The step as a jaxpr."""
    function, arguments = self.make(self.config, self.shape.batch)
    return jax.make_jaxpr(function)(*arguments)


def capture_step(
  shape: Shape, sites: Iterable[Site | str] = ("resid_post[:]",)
) -> Step:
  """One forward pass that keeps some sites.

  Args:
    shape: What it is made for.
    sites: The sites.
  """
  _check(shape)
  config = preset(shape.model)
  wanted = resolve(sites, config.num_layers)
  layers = _layers_run(wanted, config)
  outer = next((n for n in ("logits", "final_norm") if Site(n) in wanted), "")

  def make(config: GemmaConfig, batch: int) -> tuple[Any, tuple[Any, ...]]:
    here = _there(wanted, config)
    model = stop_after(tap(_model(shape, config), here), here)
    rows = _ids(shape, batch)
    columns = jax.ShapeDtypeStruct((shape.tokens,), jnp.int32)
    return _Bound(forward, {"outer": outer}), (model, rows, rows, columns)

  title = f"capture of {len(wanted)} sites"
  return Step(title, shape, config, layers, make)


def attribute_step(
  shape: Shape,
  method: str = "attn_lrp",
  at: Iterable[Site | str] = ("embed", "resid_post[:]"),
) -> Step:
  """Relevance of some sites: one forward and one backward pass.

  Args:
    shape: What it is made for.
    method: A key of `TABLES`.
    at: The sites.
  """
  if method not in TABLES:
    raise ConfigError(
      "This attribution method cannot be planned.",
      received=f"method={method!r}",
      instead=f"one backward pass: {', '.join(TABLES)}",
    )
  return _relevance_step(shape, TABLES[method], at)


def graph_step(
  shape: Shape, at: Iterable[Site | str] = ("embed", "mlp_write[:]")
) -> Step:
  """One row of an attribution graph: what a node gets from all before it.

  Forward, and backward with attention patterns and norm scales held constant,
  to the sites where dictionaries write. The dictionaries' own products are
  left out: a node reads its row against their decoders.

  Args:
    shape: What it is made for; a row of the batch is a node.
    at: The sites of the nodes before it.
  """
  return _relevance_step(shape, FROZEN, at)


def _relevance_step(
  shape: Shape, rules: RuleTable, at: Iterable[Site | str]
) -> Step:
  """One backward pass under a rule table."""
  _check(shape)
  config = preset(shape.model)
  wanted = resolve(at, config.num_layers)

  def make(config: GemmaConfig, batch: int) -> tuple[Any, tuple[Any, ...]]:
    here = _there(wanted, config)
    ids = _ids(shape, batch)
    columns: Any = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return _Bound(relevance, {"sites": tuple(here), "rules": rules}), (
      _model(shape, config),
      Rows(ids, ids, columns),
      _one_logit(),
    )

  title = f"{rules.name} relevance of {len(wanted)} sites"
  return Step(title, shape, config, config.num_layers, make)


@dataclasses.dataclass(frozen=True)
class _Bound:
  """A jitted function with its static arguments."""

  function: Any
  static: dict[str, str | tuple[Site, ...] | RuleTable]

  def __call__(self, *arguments: Any) -> Any:
    return self.function(*arguments, **self.static)

  def lower(self, *arguments: Any) -> Any:
    """Lowers it for abstract arguments."""
    return self.function.lower(*arguments, **self.static)


def _model(shape: Shape, config: GemmaConfig) -> Gemma:
  return abstract_gemma(
    config,
    checked_dtype(shape.dtype),
    scan=shape.scan,
    mesh=shape.machine.mesh,
  )


def _there(sites: tuple[Site, ...], config: GemmaConfig) -> list[Site]:
  """The sites that a model of fewer layers has, and the end of its last layer.

  Without that the compiler would leave layers out that nobody looks at.
  """
  here = [s for s in sites if s.layer is None or s.layer < config.num_layers]
  last = config.num_layers - 1
  end = Site("embed") if last < 0 else Site("resid_post", last)
  return here if len(here) == len(sites) else [*dict.fromkeys((*here, end))]


def _ids(shape: Shape, batch: int) -> Any:
  size = (batch, shape.tokens)
  names = (axes.BATCH, axes.SEQ)
  where = activation_sharding(shape.machine.mesh, names, size)
  return jax.ShapeDtypeStruct(size, jnp.int32, sharding=where)


def _one_logit() -> ResolvedLogits:
  ids: Any = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  weights: Any = jax.ShapeDtypeStruct((1,), jnp.float32)
  return ResolvedLogits(ids, weights)


def _layers_run(sites: tuple[Site, ...], config: GemmaConfig) -> int:
  if any(s.layer is None and s.name != "embed" for s in sites):
    return config.num_layers
  return max((s.layer + 1 for s in sites if s.layer is not None), default=0)


def _check(shape: Shape) -> None:
  """Raises ConfigError where a step cannot be made."""
  limit = preset(shape.model).max_context
  if shape.batch < 1 or not 1 <= shape.tokens <= limit:
    raise ConfigError(
      "A step needs rows, and tokens within the model's context.",
      received=f"batch={shape.batch}, tokens={shape.tokens}",
      instead=f"a batch of at least 1, and 1 to {limit:,} tokens",
    )
