"""Which sites a dictionary reads and writes, and how values pass through it.

Three ways: *single*, one site read and one written; *layered*, where every
position has latents of its own and is rebuilt from those up to it (cross-layer
transcoders); *joint*, where all sites are read before any is rebuilt
(crosscoders). A layer without `encode` is called as it is and has no latents.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.config import GemmaConfig
from gemma_scope.sites import Site, forward_order
from gemma_scope.surgery.addresses import axis_sizes

_ORDER = list(axes.GLOSSARY)

Plain = jax.Array
Values = Mapping[int, Any]


@dataclasses.dataclass(frozen=True)
class Ports:
  """Where a dictionary is connected.

  Attributes:
    reads: The sites it reads, in its order.
    writes: The sites it rebuilds, in its order.
    layered: Whether every position has latents of its own.
    joint: Whether all is read before anything is rebuilt.
  """

  reads: tuple[Site, ...]
  writes: tuple[Site, ...]
  layered: bool
  joint: bool

  @property
  def crosses(self) -> bool:
    """Whether it connects different decoder layers."""
    return len({site.layer for site in (*self.reads, *self.writes)}) > 1

  @property
  def ahead(self) -> bool:
    """Whether it writes before all it reads is known."""
    last = max(map(forward_order, self.reads))
    return self.joint and last > min(map(forward_order, self.writes))


def ports_of(
  reads: Sequence[Site], writes: Sequence[Site], layer: Any
) -> Ports:
  """The ports of a layer at some sites.

  Raises:
    SiteError: If values cannot travel between these sites.
  """
  sites = (*reads, *writes)
  outer = any(site.layer is None for site in sites)
  odd = [s for s in sites if s.info.axes[:2] != (axes.BATCH, axes.SEQ)]
  if odd or (outer and len(set(sites)) > 1):
    raise SiteError(
      "A dictionary cannot be connected like this.",
      received=f"from {_names(reads)} to {_names(writes)}",
      instead="sites with vectors inside decoder layers (resid_pre[0] for "
      "embed), or one site outside of them",
    )
  layered = hasattr(layer, "encode_at") and len(reads) > 1
  causal = (
    layered
    and bool(getattr(layer, "causal", True))
    and len(reads) == len(writes)
    and all(forward_order(r) <= forward_order(w) for r, w in zip(reads, writes))
  )
  joint = not causal and len(sites) > 2
  return Ports(tuple(reads), tuple(writes), layered, joint)


def has_latents(layer: Any) -> bool:
  """Whether a layer is a dictionary, with latents to look at."""
  return hasattr(layer, "encode")


def encode(layer: Any, ports: Ports, position: int, x: Values) -> Any:
  """Latents [batch, seq, latents], at one position or of all together.

  Args:
    layer: The dictionary; any other layer gives what it reads.
    ports: Its ports.
    position: The position just read.
    x: Position -> named value read there, as far as known.
  """
  if not has_latents(layer):
    return x[position]
  if ports.layered:
    return layer.encode_at(position, vectors(x[position]))
  return layer.encode(_together(ports, x))


def rebuild(
  layer: Any, ports: Ports, position: int, latents: Values, x: Values
) -> Plain:
  """What stands at one site written, [batch, seq, width]."""
  if ports.layered:
    known = [latents[i] for i in sorted(latents)]
    return layer.rebuild_at(position, known, vectors(x[position]))
  y = rebuild_all(layer, ports, latents, x)
  return y[position]


def rebuild_all(
  layer: Any, ports: Ports, latents: Values, x: Values
) -> dict[int, Plain]:
  """What stands at every site written, by position."""
  if ports.layered:
    every = range(len(ports.writes))
    return {j: rebuild(layer, ports, j, latents, x) for j in every}
  (only,) = latents.values()
  if not has_latents(layer):
    y = layer(only)
    y = vectors(y) if isinstance(y, pz.nx.NamedArray) else y
  elif hasattr(layer, "rebuild"):
    y = layer.rebuild(only, _together(ports, x))
  else:
    y = layer.decode(only)
  if len(ports.writes) == 1 and y.ndim == 3:
    return {0: y}
  return {j: y[j] for j in range(len(ports.writes))}


def vectors(value: pz.nx.NamedArray) -> Plain:
  """A site's value as [batch, seq, width] float32, heads concatenated."""
  order = _in_order(value)
  data = value.unwrap(*order)
  return data.reshape(*data.shape[:2], -1).astype(jnp.float32)


def like(y: Plain, value: pz.nx.NamedArray) -> pz.nx.NamedArray:
  """Vectors in the axes of a site's value, float32."""
  sizes = value.named_shape
  names = _in_order(value)
  return pz.nx.wrap(y.reshape([sizes[n] for n in names]), *names)


def check_shapes(layer: Any, ports: Ports, config: GemmaConfig) -> int | None:
  """How many latents a dictionary has at a port; None for another layer.

  Raises:
    ConfigError: If it does not map what it reads to what it writes.
  """
  x = {i: _example(site, config) for i, site in enumerate(ports.reads)}

  def through(layer: Any, x: Any) -> Any:
    slots = range(len(x)) if ports.layered else (len(x) - 1,)
    latents = {i: encode(layer, ports, i, x) for i in slots}
    return latents, rebuild_all(layer, ports, latents, x)

  widths = [_width(site, config) for site in ports.writes]
  try:
    latents, y = jax.eval_shape(through, layer, x)
  except (TypeError, ValueError, IndexError) as error:
    raise _misfit(ports, config, str(error).splitlines()[0]) from error
  if [y[j].shape for j in sorted(y)] != [(1, 1, w) for w in widths]:
    found = [y[j].shape for j in sorted(y)]
    raise _misfit(ports, config, f"it gives shapes {found}")
  if not has_latents(layer):
    return None
  return max(f.shape[-1] for f in latents.values())


def _together(ports: Ports, x: Values) -> Plain:
  every = [vectors(x[i]) for i in range(len(ports.reads))]
  return every[0] if len(every) == 1 else jnp.stack(every)


def _in_order(value: pz.nx.NamedArray) -> tuple[str, ...]:
  """Axes as sites have them (heads, projection), whatever an edit left."""
  return tuple(sorted(map(str, value.named_axes), key=_ORDER.index))


def _example(site: Site, config: GemmaConfig) -> pz.nx.NamedArray:
  sizes = {axes.BATCH: 1, axes.SEQ: 1, **axis_sizes(site, config)}
  shape = [sizes[name] for name in site.info.axes]
  return pz.nx.wrap(np.zeros(shape, np.float32), *site.info.axes)


def _width(site: Site, config: GemmaConfig) -> int:
  return math.prod(axis_sizes(site, config).values())


def _misfit(ports: Ports, config: GemmaConfig, why: str) -> ConfigError:
  widths = [f"{s} {_width(s, config)}" for s in (*ports.reads, *ports.writes)]
  return ConfigError(
    "The dictionary does not fit the model at these sites.",
    received=why[:200],
    instead=f"one of the widths {', '.join(dict.fromkeys(widths))}",
  )


def _names(sites: Sequence[Site]) -> str:
  return ", ".join(map(str, sites))
