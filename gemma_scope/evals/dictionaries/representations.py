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

import jax
from jaxtyping import Float, Int
import numpy as np

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.single_layer import SingleLayer
from gemma_scope.errors import ConfigError
from gemma_scope.evals.dictionaries.concepts import Labelled
from gemma_scope.evals.dictionaries.decoder_cosines import decoder_rows
from gemma_scope.evals.dictionaries.run import Probe, Run
from gemma_scope.evals.dictionaries.seeing import see
from gemma_scope.evals.dictionaries.text import cut_rows
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.surgery.select import stop_after, tap

ROWS_AT_ONCE = 64
BASELINES = ("residual", "PCA", "neurons")

Pooled = Float[np.ndarray, "texts d"]


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


def represent(
  lm: LanguageModel,
  dictionaries: Mapping[str, Dictionary],
  texts: Labelled,
  fitted: Int[np.ndarray, " fitted"],
) -> list[Features]:
  """Every dictionary's features of some texts, then the baselines'.

  Args:
    lm: The model.
    dictionaries: SAEs of one site, by name.
    texts: The texts.
    fitted: Which of them baselines may look at.

  Raises:
    ConfigError: The dictionaries are no SAEs of one site.
  """
  site = _one_site(dictionaries)
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
    seen |= {f"of {n}": see(run, d).latents[0] for n, d in dictionaries.items()}
    for name, value in seen.items():
      pooled = np.einsum("bs,bsd->bd", share, np.asarray(value, np.float64))
      found.setdefault(name, []).append(pooled[: len(own)])
  joined = {name: np.concatenate(parts) for name, parts in found.items()}
  x = joined["x"]
  of_dictionaries = [
    Features(name, x, joined[f"of {name}"], _writes(d))
    for name, d in dictionaries.items()
  ]
  return [*of_dictionaries, *_baselines(x, joined["neurons"], fitted)]


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


def _one_site(dictionaries: Mapping[str, Dictionary]) -> Site:
  """The site of all, which each of them reads and rebuilds."""
  ends = {(d.sites_in, d.sites_out) for d in dictionaries.values()}
  sites = {site for both in ends for sites in both for site in sites}
  plain = all(isinstance(d, SingleLayer) for d in dictionaries.values())
  taken = set(dictionaries) & set(BASELINES)
  inside = all(site.layer is not None for site in sites)
  if not plain or len(sites) != 1 or taken or not inside:
    raise ConfigError(
      "Concepts are looked for in SAEs of one site inside a decoder layer.",
      received=", ".join(f"{n}: {d.about}" for n, d in dictionaries.items()),
      instead="one or several SAEs of a site such as resid_post[9], under "
      f"other names than {', '.join(BASELINES)}",
    )
  return sites.pop()


def _writes(dictionary: Dictionary) -> np.ndarray:
  return np.asarray(jax.device_get(decoder_rows(dictionary)), np.float64)
