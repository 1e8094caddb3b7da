"""Splicing a dictionary, or any layer, into a model's forward pass.

With x what it reads, t what stood where it writes, f its latents, y what it
rebuilds from them, and y0 what it rebuilds from the latents nobody edited:

    drop      y
    keep      y + (t - y0)           the error follows the run and is
                                     differentiated: d/dt is the model's own
    freeze    y + stop(t - y0)       the same values; derivatives pass through
                                     the dictionary alone

`freeze` is SAELens's use_error_term and the error node of attribution graphs.
With `errors` from another run the error is that run's, at every position it
had. While no latent is edited, keep and freeze return t to the last bit.

The latents are the part `latents` of the site that is read, the error the part
`error` of the site that is written: tapped, offset, edited like any site. A
dictionary of one layer leaves a scanned stack scanned, cut at its layer; one
that reads and writes several layers lets those run one by one. A dictionary
that writes before all it reads is known (a crosscoder) is read in a rehearsal:
the same pass, edits included, without what that dictionary writes.

Sources: Marks et al. 2024, "Sparse Feature Circuits", section 2 (error terms);
Ameisen et al. 2025, "Circuit Tracing" (cross-layer transcoders, frozen errors).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
from penzai import pz

from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.site_layer import SiteLayer
from gemma_scope.model.stack import active_sites
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.intervene import intervene
from gemma_scope.surgery.interventions.runs import patch
from gemma_scope.surgery.ports import (
  Ports,
  check_shapes,
  ports_of,
)
from gemma_scope.surgery.select import wrap_sites
from gemma_scope.surgery.splice_sites import SpliceRead, SpliceWrite

ERRORS = ("keep", "drop", "freeze")


def splice(
  model: Gemma,
  layers: Mapping[Any, Any] | Sequence[Any] | Any,
  error: str = "keep",
  *,
  errors: Mapping[Site, pz.nx.NamedArray] | None = None,
) -> Gemma:
  """Returns a model whose activations pass through dictionaries.

  Args:
    model: The model.
    layers: Site -> dictionary or layer that reads and replaces it; in the place
      of the site a pair (sites read, sites written). A dictionary that knows
      its sites may come alone, or several in a list.
    error: "keep", "drop" or "freeze", see above.
    errors: With "freeze", the error at each site written, from a capture of
      the parts `error` in another run.

  Raises:
    SiteError: If a site is not there, is not what the dictionary was made for,
      or is read by another one already.
    ConfigError: If a dictionary does not fit its sites, or an option has no
      such value.
  """
  if error not in ERRORS or (errors is not None and error != "freeze"):
    raise ConfigError(
      "This is no way to treat the error of a dictionary.",
      received=f"error={error!r}{' with errors' if errors is not None else ''}",
      instead='error="keep", "drop" or "freeze"; errors with "freeze" alone',
    )
  written: list[Site] = []
  for key, layer in _pairs(layers):
    ports = _ports(key, layer, model.stack.num_layers)
    model = _splice_one(model, ports, layer, error)
    written += ports.writes
  if errors is not None:
    model = intervene(model, patch([s.error for s in written], errors))
  return model


def _splice_one(model: Gemma, ports: Ports, layer: Any, error: str) -> Gemma:
  """Puts readers at what a dictionary reads, writers where it writes."""
  _refuse_twice(model, ports)
  num_latents = check_shapes(layer, ports, model.config)
  uses = " + ".join(map(str, ports.reads))
  shared = {**model.stack.shared, uses: layer}
  stack = dataclasses.replace(model.stack, shared=shared)
  model = dataclasses.replace(model, stack=stack)
  last = len(ports.reads) - 1
  for i, site in enumerate(ports.reads):
    shown = num_latents if ports.layered or i == last else None
    make = functools.partial(_reader, uses, ports, i, shown)
    model = wrap_sites(model, site, make)
  for j, site in enumerate(ports.writes):
    make = functools.partial(_writer, uses, ports, j, error)
    model = wrap_sites(model, site, make)
  return model


def _reader(
  uses: str,
  ports: Ports,
  position: int,
  num_latents: int | None,
  inner: pz.nn.Layer,
  name: str,
  layers: tuple[int, ...] | None,
) -> SpliceRead:
  return SpliceRead(
    *(inner, name, layers),
    uses=uses,
    crosses=ports.crosses,
    ahead=ports.ahead,
    ports=ports,
    position=position,
    latents=None if num_latents is None else SiteLayer(f"{name}.latents"),
    num_latents=num_latents,
  )


def _writer(
  uses: str,
  ports: Ports,
  position: int,
  mode: str,
  inner: pz.nn.Layer,
  name: str,
  layers: tuple[int, ...] | None,
) -> SpliceWrite:
  return SpliceWrite(
    *(inner, name, layers),
    uses=uses,
    crosses=ports.crosses,
    ahead=ports.ahead,
    ports=ports,
    position=position,
    mode=mode,
    error=None if mode == "drop" else SiteLayer(f"{name}.error"),
  )


def _pairs(layers: Any) -> Iterator[tuple[Any, Any]]:
  """(what was given as sites, or None, and the layer) of each splice."""
  if isinstance(layers, Mapping):
    yield from layers.items()
    return
  alone = hasattr(layers, "sites_in") or not isinstance(layers, Iterable)
  several = [layers] if alone else list(layers)
  for layer in several:
    if not hasattr(layer, "sites_in"):
      raise SiteError(
        "This layer does not know which site it reads.",
        received=type(layer).__name__,
        instead='splice(model, {"resid_post[12]": layer})',
      )
    yield None, layer


def _ports(key: Any, layer: Any, num_layers: int) -> Ports:
  """The sites a layer is connected to, as given or as it knows them."""
  if not all(map(_is_array, jax.tree.leaves(layer))):
    raise ConfigError(
      "What is spliced in must be a Penzai layer or a dictionary.",
      received=f"{layer!r:.80}",
      instead="a pytree of arrays with __call__, or encode and decode; "
      "surgery.edit for a function",
    )
  own = None
  if hasattr(layer, "sites_in"):
    own = tuple(
      _sites(s, num_layers) for s in (layer.sites_in, layer.sites_out)
    )
  pair = isinstance(key, tuple)
  given = own
  if key is not None:
    reads, writes = key if pair and len(key) == 2 else (key, key)
    given = _sites(reads, num_layers), _sites(writes, num_layers)
  assert given is not None
  named = {*given[0], *given[1]}
  if own is not None and (
    given != own if pair else not named & {*own[0], *own[1]}
  ):
    raise SiteError(
      "The dictionary was made for other sites.",
      received=" -> ".join(", ".join(map(str, s)) for s in given),
      instead=" -> ".join(", ".join(map(str, s)) for s in own),
    )
  reads, writes = own or given
  return ports_of(reads, writes, layer)


def _sites(given: Any, num_layers: int) -> tuple[Site, ...]:
  """Sites in the order given."""
  if isinstance(given, str | Site):
    return resolve(given, num_layers)
  return tuple(s for one in given for s in resolve(one, num_layers))


def _refuse_twice(model: Gemma, ports: Ports) -> None:
  """Raises if a dictionary reads one of the sites already."""
  for site in ports.reads:
    for reader in active_sites(model):
      if not isinstance(reader, SpliceRead) or reader.name != site.name:
        continue
      if reader.layers is None or site.layer in reader.layers:
        raise SiteError(
          "A dictionary reads this site already.",
          received=str(site),
          instead="splice each site once, into the model without the other",
        )


def _is_array(leaf: Any) -> bool:
  return hasattr(leaf, "shape") and hasattr(leaf, "dtype")
