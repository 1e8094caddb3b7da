"""One latent of a sparse dictionary, as a value that displays itself.

`dashboard` puts together what is stored of it, or measures it on text;
`Dashboard` turns that into a page, a notebook cell, plain JSON, or the fields
that other tools of the field read (`to_neuronpedia`).
"""

from collections.abc import Iterable, Mapping
import dataclasses
import html
from typing import Any

import numpy as np

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.analysis.latent_examples import (
  ExampleOptions,
  latent_examples,
)
from gemma_scope.analysis.latent_geometry import (
  LatentGeometry,
  latent_geometry,
)
from gemma_scope.analysis.latent_info import LatentInfo, latent_info
from gemma_scope.analysis.latent_logits import latent_logits
from gemma_scope.dictionaries.latent_table import LatentTable
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.suite import Suite
from gemma_scope.manifest import make_manifest
from gemma_scope.model.convert import Progress
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.tokenizer import Tokenizer
from gemma_scope.viz import dashboard_export, dashboard_page, payload

MEASURED = ExampleOptions(examples=20, before=20, after=8, logits=0)
LOGITS = 12
_IFRAME_HEIGHT = 760  # pixels; the frame can be dragged larger


@dataclasses.dataclass(frozen=True, repr=False)
class Dashboard:
  """What is known of one latent.

  Attributes:
    info: Examples, favoured tokens, frequency, description.
    geometry: Lengths, threshold, and the latents that point alike.
    neighbours: What is known of these, in the same order, where it is.
    histogram: (from, to, tokens) by activation, in half octaves.
    counted: How many tokens it was measured on.
    about: The dictionary: kind, sites, name.
    site: What it reads, such as "resid_post[12]".
    model: The model's name.
    metrics: What is known of the dictionary's quality.
    origin: Where examples and counts are from, in a few words.
    manifest: What made this; JSON.
  """

  info: LatentInfo
  geometry: LatentGeometry
  neighbours: tuple[LatentInfo | None, ...]
  histogram: tuple[tuple[float, float, int], ...]
  counted: int
  about: str
  site: str
  model: str
  metrics: Mapping[str, Any]
  origin: str
  manifest: Mapping[str, Any]

  def to_dict(self) -> dict[str, Any]:
    """All of it as JSON: dicts, lists, strings, numbers, booleans and None."""
    return payload.to_plain(self)

  def to_neuronpedia(self) -> dict[str, Any]:
    """The fields of a feature in Neuronpedia's and SAEDashboard's JSON."""
    return dashboard_export.dashboard_to_neuronpedia(self)

  def to_html(self) -> str:
    """One self-contained page: no network, no library, works from a file."""
    return dashboard_page.dashboard_to_html(self)

  def _repr_html_(self) -> str:
    """The page in a frame of its own, so that no style leaks."""
    return (
      '<iframe sandbox="allow-scripts" title="A latent" '
      f'style="width:100%;height:{_IFRAME_HEIGHT}px;border:1px solid '
      'rgba(128,128,128,.4);border-radius:8px;resize:vertical" '
      f'srcdoc="{html.escape(self.to_html(), quote=True)}"></iframe>'
    )

  def __repr__(self) -> str:
    favours = ", ".join(repr(text) for text, _ in self.info.favoured[:3])
    return (
      f"Dashboard({self.site}.latents[{self.info.index}], "
      f"{len(self.info.examples)} examples, favours {favours})"
    )


def stored_dashboard(
  tokenizer: Tokenizer, suite: Suite, name: str, latent: int
) -> Dashboard:
  """What a suite stores of one latent; needs no model.

  Args:
    tokenizer: Of the suite's model.
    suite: The suite.
    name: Of its dictionary.
    latent: Which.

  Raises:
    ConfigError: There is no such dictionary or latent.
  """
  dictionary, table = suite.open(name), suite.table(name)
  full = dictionary.about.name
  geometry = latent_geometry(dictionary, latent)

  def told(index: int) -> LatentInfo:
    description = suite.description(name, index)
    return latent_info(tokenizer, table, full, index, description=description)

  return Dashboard(
    info=told(latent),
    geometry=geometry,
    neighbours=tuple(told(j) for j, _ in geometry.neighbours),
    histogram=tuple(table.histogram(latent)),
    counted=table.counted,
    about=str(dictionary.about),
    site=str(dictionary.sites_in[0]),
    model=suite.model,
    metrics=suite.metrics(name),
    origin="stored with the dictionary",
    manifest=_manifest(full, latent, suite.model),
  )


def measured_dashboard(
  lm: LanguageModel,
  dictionary: Dictionary,
  latent: int,
  batches: Iterable[PackedBatch],
  *,
  progress: Progress | None = None,
) -> Dashboard:
  """Measures one latent on text.

  Args:
    lm: The model.
    dictionary: An SAE, transcoder or crosscoder.
    latent: Which.
    batches: Packed tokens, such as a `TokenPipeline` gives.
    progress: Called with what is being done.

  Raises:
    GemmaScopeError: There is no such latent, or no text.
  """
  geometry = latent_geometry(dictionary, latent)
  name = dictionary.about.name or str(dictionary.about)
  made = latent_examples(
    lm, {name: dictionary}, batches, MEASURED, progress=progress
  )[name]
  shown = [latent, *(j for j, _ in geometry.neighbours)]
  table = _with_logits(lm, dictionary, made, shown)
  infos = [
    latent_info(lm.tokenizer, table, name, j, examples=20) for j in shown
  ]
  return Dashboard(
    info=infos[0],
    geometry=geometry,
    neighbours=tuple(infos[1:]),
    histogram=tuple(table.histogram(latent)),
    counted=table.counted,
    about=str(dictionary.about),
    site=", ".join(map(str, dictionary.sites_in)),
    model=lm.name,
    metrics={},
    origin="measured on the given text",
    manifest=_manifest(name, latent, lm.name),
  )


def _with_logits(
  lm: LanguageModel, dictionary: Dictionary, table: LatentTable, shown: list
) -> LatentTable:
  """The table with the logits of a few latents; zeros for the others."""
  tokens, values = latent_logits(lm, dictionary, count=LOGITS, indices=shown)
  shape = (table.num_latents, 2, LOGITS)
  all_tokens = np.zeros(shape, np.int32)
  all_values = np.zeros(shape, np.float32)
  all_tokens[shown], all_values[shown] = tokens, values
  return dataclasses.replace(
    table, logit_tokens=all_tokens, logit_values=all_values
  )


def _manifest(dictionary: str, latent: int, model: str) -> dict[str, Any]:
  config = {"dictionary": dictionary, "latent": latent}
  return make_manifest(config, model=model).to_dict()
