"""Which latents of the starter suite a prompt activates, for `gs.explain`.

SAEs of the residual stream say what each token holds and how much of the
relevance goes through it; transcoders split what every feed-forward wrote. One
dictionary is in memory at a time. It computes nothing itself: it asks
`analysis` and puts the answers together.
"""

from collections.abc import Iterator, Mapping
import dataclasses

import numpy as np

from gemma_scope import axes
from gemma_scope.activations.run import Capture
from gemma_scope.analysis.latent_info import LatentInfo, latent_info
from gemma_scope.analysis.latent_logits import target_direction
from gemma_scope.analysis.mlp_parts import MlpParts, mlp_parts
from gemma_scope.analysis.prompt_latents import (
  NOTHING,
  ActiveLatents,
  active_latents,
)
from gemma_scope.dictionaries.suite import Suite
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve

SITES = ("mlp_in[:]", "mlp_write[:]", "resid_post[:]")
TOKENS = 128  # of longer prompts the last ones: a page holds only so much
_FEW_TOKENS, _SHOWN, _SHOWN_OF_MANY = 40, 12, 6  # latents of a token
_OF_MLP = 4  # latents named of a feed-forward
_EXAMPLES = 3  # of a latent, on the page


@dataclasses.dataclass(frozen=True)
class Question:
  """What is asked of the dictionaries.

  Attributes:
    counted: [seq] tokens that are no control tokens.
    target_id: The token whose logit is explained.
    against_id: The one it is compared with, or None.
    relevance: Site -> [seq, d] relevance, of those that were asked for.
    title: The method of that relevance as read, or None.
  """

  counted: np.ndarray
  target_id: int
  against_id: int | None
  relevance: Mapping[Site, np.ndarray]
  title: str | None


@dataclasses.dataclass(frozen=True)
class Features:
  """The latents of a suite on one prompt.

  Attributes:
    suite: Which dictionaries these are, as read.
    title: The method by which relevance was split, or None.
    first: The first token shown; tokens of the arrays count from it.
    layers: One SAE each, in forward order.
    mlps: One feed-forward each, at the predicting token, in forward order.
    infos: What is known of the latents that are shown.
  """

  suite: str
  title: str | None
  first: int
  layers: tuple[ActiveLatents, ...]
  mlps: tuple[MlpParts, ...]
  infos: tuple[LatentInfo, ...]

  def info(self, dictionary: str, index: int) -> LatentInfo | None:
    """What is known of one latent, or None where it is not shown."""
    for info in self.infos:
      if (info.dictionary, info.index) == (dictionary, index):
        return info
    return None


def suite_sites(suite: Suite, num_layers: int) -> tuple[Site, ...]:
  """The sites at which relevance is split: those that SAEs rebuild."""
  alone = [sites[0] for sites in suite.sites.values() if len(sites) == 1]
  return resolve(alone, num_layers)


def prompt_features(
  lm: LanguageModel, suite: Suite, acts: Capture, question: Question
) -> Features:
  """Asks every dictionary of a suite about one prompt.

  Args:
    lm: The model.
    suite: Its dictionaries.
    acts: Activations of the prompt at `SITES`.
    question: What is explained, and the relevance to split.
  """
  first = max(0, acts.tokens.width - TOKENS)
  layers, mlps, infos = [], [], []
  direction = _direction(lm, acts, question)
  for name in suite:
    dictionary = suite[name]
    if dictionary.about.kind == "sae":
      made = _layer(suite, dictionary, acts, question, first)
      layers.append(made)
      shown = made.indices[made.indices != NOTHING]
    elif dictionary.about.kind == "transcoder":
      part = _mlp(dictionary, acts, direction)
      mlps.append(part)
      shown = [index for index, *_ in part.strongest]
    else:
      continue
    infos += _infos(lm, suite, name, np.unique(shown))
  return Features(
    suite=f"starter suite of {lm.title}",
    title=question.title if question.relevance else None,
    first=first,
    layers=tuple(sorted(layers, key=lambda part: _layer_of(part.site))),
    mlps=tuple(sorted(mlps, key=lambda part: _layer_of(part.label))),
    infos=tuple(infos),
  )


def _direction(
  lm: LanguageModel, acts: Capture, question: Question
) -> np.ndarray:
  last = Site("resid_post", lm.config.num_layers - 1)
  stream = acts[last].unwrap(*_STREAM)[0, -1]
  ids = question.target_id, question.against_id
  return np.asarray(target_direction(lm.model, stream, *ids))


def _layer(
  suite: Suite, sae, acts: Capture, question: Question, first: int
) -> ActiveLatents:
  """The latents of an SAE, at the tokens from `first` on."""
  relevance = question.relevance.get(sae.site)
  x = np.asarray(acts[sae.site].unwrap(*_STREAM), np.float32)[0, first:]
  few = len(x) <= _FEW_TOKENS
  return active_latents(
    sae,
    x,
    None if relevance is None else relevance[first:],
    question.counted[first:],
    shown=_SHOWN if few else _SHOWN_OF_MANY,
    held_out=suite.metrics(sae.about.name),
  )


def _mlp(transcoder, acts: Capture, direction: np.ndarray) -> MlpParts:
  """What the latents of a transcoder wrote at the last token."""
  x, written = (
    np.asarray(acts[site].unwrap(*_STREAM)[0, -1], np.float32)
    for site in (*transcoder.sites_in, *transcoder.sites_out)
  )
  return mlp_parts(transcoder, x, written, direction, count=_OF_MLP)


def _infos(
  lm: LanguageModel, suite: Suite, name: str, indices: np.ndarray
) -> Iterator[LatentInfo]:
  table = suite.table(name)
  full = f"starter/{name}"
  for index in indices.tolist():
    yield latent_info(
      lm.tokenizer,
      table,
      full,
      index,
      description=suite.description(name, index),
      examples=_EXAMPLES,
    )


def _layer_of(address: str) -> int:
  return int(address.partition("[")[2].rstrip("]"))


_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
