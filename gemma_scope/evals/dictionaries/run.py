"""One forward pass that many dictionaries and metrics share.

    loss = mean over tokens of -log p(next token)

The pass records what every dictionary reads and rebuilds, and where losses are
asked for the residual stream in front of every dictionary. What a dictionary
costs is computed from there on: only layers behind it are run again, one
compiled program for each kind of layer. A dictionary of several layers takes a
whole pass.

A dictionary stands in for the value at tokens that count, its error dropped;
BOS, padding and EOS keep their values, since dictionaries are not trained on
them and a wrong BOS ruins every token behind it. A loss is counted where both
the token and the one it predicts count and are of one document.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.likelihood import next_token_nll
from gemma_scope.attribution.patching.layers import layer_of
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.moments import Moments, mean, moments
from gemma_scope.model import gemma
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.placement import Placement
from gemma_scope.sites import Site
from gemma_scope.surgery.addresses import axis_sizes
from gemma_scope.surgery.intervene import intervene
from gemma_scope.surgery.interventions import ablate, set_to
from gemma_scope.surgery.positions import Positions
from gemma_scope.surgery.select import stop_after, tap
from gemma_scope.surgery.splice import splice

Sites = tuple[Site, ...]
_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)


@pz.pytree_dataclass
class Marked(Positions):
  """Exactly the tokens that are marked.

  Attributes:
    marks: True at these.
  """

  marks: Bool[Array, "batch seq"]

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """The marks."""
    del placement
    return self.marks


@dataclasses.dataclass(frozen=True)
class Probe:
  """A model made ready to be run once for some dictionaries.

  Attributes:
    lm: The model.
    tapped: It with taps, and without the layers behind the last of them.
    sites: What it records.
    losses: Whether losses will be asked for.
  """

  lm: LanguageModel
  tapped: Gemma
  sites: Sites
  losses: bool


def make_probe(
  lm: LanguageModel, dictionaries: Sequence[Dictionary], losses: bool
) -> Probe:
  """Taps what the dictionaries read and rebuild, and where they begin."""
  wanted: set[Site] = set()
  for dictionary in dictionaries:
    wanted |= {*dictionary.sites_in, *dictionary.sites_out}
    layer = _first_layer(dictionary)
    if losses and layer is not None:
      wanted.add(Site("resid_pre", layer))
  sites = tuple(sorted(wanted))
  model = tap(lm.model, sites)
  return Probe(lm, model if losses else stop_after(model, sites), sites, losses)


class Run:
  """One forward pass over a batch.

  Attributes:
    probe: The model that was run.
    ids: Token ids.
    segment_ids: The document of each token in its row; 0 is padding.
    counted: Which tokens count.
    predicts: At which tokens a loss is counted.
    centres: Site -> the vector that ablation by the mean puts there, and about
      which moments are kept; the mean of this batch where none is given.
  """

  def __init__(
    self,
    probe: Probe,
    batch: PackedBatch,
    centres: dict[Site, Float[Array, " d"]] | None = None,
  ):
    self.probe = probe
    self.ids = jnp.asarray(batch.ids)
    self.segment_ids = jnp.asarray(batch.segment_ids)
    self.counted = jnp.asarray(batch.counted)
    self.predicts = _predicting(self.segment_ids, self.counted)
    self._residual, self._values = _forward(
      probe.tapped, self.ids, self.segment_ids
    )
    self.centres = centres or {
      site: mean(self.value(site)[None], self.counted)[0]
      for site in probe.sites
    }
    self._moments: dict[Sites, Moments] = {}
    self._losses: dict[Any, Float[Array, "rows seq"]] = {}

  def value(self, site: Site) -> Float[Array, "rows seq d"]:
    """Vectors at a site, float32, heads concatenated."""
    value = self._values[site].unwrap(*site.info.axes)
    return value.reshape(*self.ids.shape, -1).astype(jnp.float32)

  def values(self, sites: Sites) -> Float[Array, "sites rows seq d"]:
    """Vectors at several sites."""
    return jnp.stack([self.value(site) for site in sites])

  def moments(self, sites: Sites) -> Moments:
    """Sums of the vectors at some sites; see `moments.moments`."""
    if sites not in self._moments:
      centre = jnp.stack([self.centres[site] for site in sites])
      self._moments[sites] = moments(self.values(sites), self.counted, centre)
    return self._moments[sites]

  def clean(self) -> Float[Array, "rows seq"]:
    """-log p of the next token under the model as it is."""
    if "clean" not in self._losses:
      self._losses["clean"] = self._nll(self._residual)
    return self._losses["clean"]

  def spliced(self, dictionary: Dictionary) -> Float[Array, "rows seq"]:
    """The same with what a dictionary rebuilds in place of the value."""
    model = splice(self.probe.lm.model, [nameless(dictionary)], "keep")
    errors = [site.error for site in dictionary.sites_out]
    drop = set_to(errors, 0.0, positions=Marked(self.counted))
    return self._behind(intervene(model, drop), _first_layer(dictionary))

  def ablated(self, sites: Sites, kind: str) -> Float[Array, "rows seq"]:
    """The same with "zero" or the "mean" at some sites."""
    if (sites, kind) not in self._losses:
      config = self.probe.lm.config
      put = {}
      for site in sites:
        sizes = axis_sizes(site, config)
        value = self.centres[site] * (kind == "mean")
        put[site] = pz.nx.wrap(value.reshape(tuple(sizes.values())), *sizes)
      edit = ablate(sites, mean=put, positions=Marked(self.counted))
      model = intervene(self.probe.lm.model, edit)
      layers = {site.layer for site in sites}
      first = layers.pop() if len(layers) == 1 else None
      self._losses[sites, kind] = self._behind(model, first)
    return self._losses[sites, kind]

  def _behind(
    self, model: Gemma, first: int | None
  ) -> Float[Array, "rows seq"]:
    """Losses of an edited model, from a layer on that was recorded."""
    start = None if first is None else Site("resid_pre", first)
    if start is None or start not in self._values:
      residual, _ = _forward(model, self.ids, self.segment_ids)
      return self._nll(residual)
    stream = self._values[start]
    placement = _place(self.probe.lm.model, self.ids, self.segment_ids)
    for layer in range(start.layer or 0, model.stack.num_layers):
      stream, _ = layer_of(model, layer, ()).run(stream, placement, {})
    return self._nll(stream)

  def _nll(self, residual: pz.nx.NamedArray) -> Float[Array, "rows seq"]:
    """By the model without edits, so that one program serves all."""
    model, stream = self.probe.lm.model, residual.unwrap(*_STREAM)
    return next_token_nll(model, stream, self.ids, self.segment_ids)


def nameless(dictionary: Any) -> Any:
  """Without what would compile the same program again for another name."""
  if not hasattr(dictionary, "with_about"):
    return dictionary
  about = dataclasses.replace(dictionary.about, name="", l0=None, model=None)
  return dictionary.with_about(about)


def _first_layer(dictionary: Dictionary) -> int | None:
  """The layer of a dictionary of one layer, else None."""
  layers = {s.layer for s in (*dictionary.sites_in, *dictionary.sites_out)}
  return layers.pop() if len(layers) == 1 else None


@jax.jit
def _forward(
  model: Gemma, ids: Int[Array, "rows seq"], segment_ids: Int[Array, "rows seq"]
) -> tuple[pz.nx.NamedArray, dict[Site, pz.nx.NamedArray]]:
  return gemma.run(model, ids, segment_ids)


@jax.jit
def _place(
  model: Gemma, ids: Int[Array, "rows seq"], segment_ids: Int[Array, "rows seq"]
) -> Placement:
  return gemma.place(model, ids, segment_ids)


@jax.jit
def _predicting(
  segment_ids: Int[Array, "rows seq"], counted: Bool[Array, "rows seq"]
) -> Bool[Array, "rows seq"]:
  """Where a token and the one behind it count and are of one document."""

  def behind(a: Array) -> Array:
    return jnp.pad(a[:, 1:], ((0, 0), (0, 1)))

  return counted & behind(counted) & (segment_ids == behind(segment_ids))
