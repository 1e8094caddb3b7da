"""What labelled texts look like to dictionaries, and to what they compete with.

    x = rest + values @ writes

A representation is a set of features of the vector x that stands for a text:
latents with their decoder rows; or, as baselines, the numbers of x themselves,
its principal components, and the neurons of the same layer's MLP (`mlp_act`, a
vector of their own). Values of baselines are taken about their mean over the
texts that are fitted. A feature is taken out by subtracting what it writes. The
mean over the tokens of a text may be its vector, and then its features are
means, too: what they write is linear.
"""

from collections.abc import Mapping
import dataclasses
import functools

import jax
from jaxtyping import Bool, Float, Int
import numpy as np

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.analysis import probe_fits
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.concepts import Labelled, Split
from gemma_scope.evals.dictionaries.decoder_cosines import decoder_rows
from gemma_scope.evals.dictionaries.run import Probe, Run
from gemma_scope.evals.dictionaries.text import cut_rows
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.select import stop_after, tap

ROWS_AT_ONCE = 64
L2 = 1e-2  # of logistic probes
BASELINES = ("residual", "PCA", "neurons")

Pooled = Float[np.ndarray, "texts d"]
LinearProbe = tuple[Float[np.ndarray, " d"], float]
Saes = Mapping[str, SingleLayer]


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """One representation of some texts.

  Attributes:
    name: Of the dictionary, or one of `BASELINES`.
    vectors: The vector of each text.
    values: Its features.
    writes: What one unit of each feature adds to the vector.
  """

  name: str
  vectors: Float[np.ndarray, "texts d"]
  values: Float[np.ndarray, "texts features"]
  writes: Float[np.ndarray, "features d"]

  def without(self, chosen: Int[np.ndarray, " some"]) -> Pooled:
    """The vectors with some features taken out."""
    return self.vectors - self.values[:, chosen] @ self.writes[chosen]


@dataclasses.dataclass(frozen=True, eq=False)
class Represented:
  """Labelled texts as all representations have them.

  Attributes:
    texts: The texts.
    features: Every dictionary's, then the baselines'.
    seed: Of the split.
  """

  texts: Labelled
  features: tuple[Features, ...]
  seed: int = 0

  @functools.cached_property
  def split(self) -> Split:
    """Texts to fit, which alone baselines look at, and texts held out."""
    return self.texts.split(seed=self.seed)

  @functools.cached_property
  def labels(self) -> tuple[Bool[np.ndarray, " texts"], ...]:
    """Of each class: which texts are of it."""
    return tuple(self.texts.of(c) for c in range(len(self.texts.classes)))

  def probes(self, one: Features) -> tuple[LinearProbe, ...]:
    """A logistic probe of each class on one representation's vectors.

    Fitted once for all that share their vectors.
    """
    key = id(one.vectors)
    if key not in self._fitted:
      fit, _ = self.split
      span = probe_fits.span(one.vectors[fit])
      self._fitted[key] = tuple(
        span.logistic(own[fit], L2) for own in self.labels
      )
    return self._fitted[key]

  @functools.cached_property
  def _fitted(self) -> dict[int, tuple[LinearProbe, ...]]:
    return {}


def represent(
  lm: LanguageModel,
  dictionaries: Mapping[str, Dictionary],
  texts: Labelled,
  *,
  seed: int = 0,
) -> Represented:
  """Every dictionary's features of some texts, and the baselines'.

  Args:
    lm: The model.
    dictionaries: SAEs of one site, by name.
    texts: The texts.
    seed: Of the split into texts to fit and texts held out.

  Raises:
    ConfigError: The dictionaries are no SAEs of one site.
    TextError: A class has too few texts.
  """
  site, saes = _one_site(dictionaries)
  fit, _ = texts.split(seed=seed)
  neurons = Site("mlp_act", site.layer)
  sites = tuple({site, neurons})
  probe = Probe(lm, stop_after(tap(lm.model, sites), sites), sites, False)
  batch, weights = _batch(lm, texts)
  found: dict[str, list[np.ndarray]] = {}
  parts = cut_rows(batch, min(ROWS_AT_ONCE, len(batch.ids)))
  for start, part in zip(range(0, len(weights), ROWS_AT_ONCE), parts):
    run = Run(probe, part)
    share = np.zeros(part.shape, np.float64)
    own = weights[start : start + ROWS_AT_ONCE]
    share[: len(own)] = own
    seen = {"x": run.value(site), "neurons": run.value(neurons)}
    seen |= {f"of {n}": d.encode(run.value(site)) for n, d in saes.items()}
    for name, value in seen.items():
      pooled = np.einsum("bs,bsd->bd", share, np.asarray(value, np.float64))
      found.setdefault(name, []).append(pooled[: len(own)])
  joined = {name: np.concatenate(parts) for name, parts in found.items()}
  x = joined["x"]
  of_dictionaries = [
    Features(name, x, joined[f"of {name}"], _writes(d))
    for name, d in saes.items()
  ]
  every = (*of_dictionaries, *_baselines(x, joined["neurons"], fit))
  return Represented(texts, every, seed)


def saes_by_site(
  dictionaries: Mapping[str, Dictionary],
) -> Mapping[Site, Saes]:
  """Dictionaries that concepts can be looked for in, by the site of each.

  Raises:
    ConfigError: One is no SAE of one site inside a decoder layer, or has the
      name of a baseline.
  """
  found: dict[Site, dict[str, SingleLayer]] = {}
  for name, d in dictionaries.items():
    site = _site_of(d)
    if site is None or not isinstance(d, SingleLayer) or name in BASELINES:
      raise ConfigError(
        "Concepts are looked for in SAEs of one site inside a decoder layer.",
        received=f"{name}: {d.about}",
        instead="SAEs of a site such as resid_post[9], under other names than "
        f"{', '.join(BASELINES)}",
      )
    found.setdefault(site, {})[name] = d
  return found


def _baselines(
  x: Pooled, neurons: Pooled, fitted: Int[np.ndarray, " fitted"]
) -> list[Features]:
  """Single numbers of the vector, principal components, neurons."""
  centred = x - x[fitted].mean(axis=0)
  _, sizes, components = np.linalg.svd(centred[fitted], full_matrices=False)
  components = components[sizes > 1e-8 * sizes.max()]
  about_mean = neurons - neurons[fitted].mean(axis=0)
  return [
    Features("residual", x, centred, np.eye(x.shape[1])),
    Features("PCA", x, centred @ components.T, components),
    Features("neurons", neurons, about_mean, np.eye(neurons.shape[1])),
  ]


def _batch(
  lm: LanguageModel, texts: Labelled
) -> tuple[PackedBatch, Float[np.ndarray, "texts seq"]]:
  """One text a row, and the share of each token in what stands for it."""
  lengths = np.array([len(row) for row in texts.rows])
  shape = (len(lengths), int(-(-lengths.max() // 8) * 8))
  ids = np.zeros(shape, np.int32)
  for i, row in enumerate(texts.rows):
    ids[i, : len(row)] = row
  column = np.arange(shape[1])[None, :]
  there = column < lengths[:, None]
  counted = there & (ids != lm.tokenizer.bos_id)
  weights = counted if texts.pooled else column == lengths[:, None] - 1
  shares = weights / weights.sum(axis=1, keepdims=True)
  return PackedBatch(ids, there.astype(np.int32), counted), shares


def _site_of(dictionary: Dictionary) -> Site | None:
  """The one site that it reads and rebuilds, inside a layer; None if none."""
  sites = {*dictionary.sites_in, *dictionary.sites_out}
  inside = {site for site in sites if site.layer is not None}
  return inside.pop() if len(sites) == len(inside) == 1 else None


def _one_site(dictionaries: Mapping[str, Dictionary]) -> tuple[Site, Saes]:
  """The one site of all, and they."""
  found = saes_by_site(dictionaries)
  if len(found) != 1:
    raise ConfigError(
      "Concepts are looked for in SAEs of one site at a time.",
      received=", ".join(map(str, found)) or "no SAE",
      instead="one or several SAEs of a site such as resid_post[9]",
    )
  return next(iter(found.items()))


def _writes(dictionary: Dictionary) -> np.ndarray:
  return np.asarray(jax.device_get(decoder_rows(dictionary)), np.float64)
