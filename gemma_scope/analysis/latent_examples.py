"""What the latents of many dictionaries fire on, in one pass over a text.

    tables = latent_examples(lm, {"mine": sae}, TokenPipeline(corpus, options))
    tables["mine"].top(17)

One forward pass of each batch serves all dictionaries. Their latents are
encoded on the device and reduced there (see `latent_state`); only the strongest
windows, counts and histograms come back. Source: Bricken et al. 2023, "Towards
Monosemanticity". The strongest examples alone flatter a latent: a histogram and
the frequency stand beside them.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.harvest import Harvest
from gemma_scope.analysis import latent_state
from gemma_scope.analysis.latent_logits import latent_logits
from gemma_scope.dictionaries.latent_table import NOTHING, LatentTable
from gemma_scope.dictionaries.protocol import Dictionary, Layered
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.convert import Progress
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

_SPARE = 2  # as many examples are kept as are wanted, times this: copies go


@dataclasses.dataclass(frozen=True)
class ExampleOptions:
  """What is kept of each latent.

  Attributes:
    examples: Windows, strongest first; no two are the same.
    before: Tokens in front of the peak of a window: all it can depend on.
    after: Tokens behind it.
    logits: Tokens at either end of its effect on the logits; 0 computes none
      (it is one row of the unembedding's product for each latent).
    quotable: From a batch to [batch, seq], which tokens may stand in a window
      (a licence may forbid it); all by default. Counts take all in any case.
  """

  examples: int = 4
  before: int = 9
  after: int = 2
  logits: int = 8
  quotable: Callable[[PackedBatch], np.ndarray] | None = None

  def __post_init__(self) -> None:
    if self.examples < 1 or min(self.before, self.after, self.logits) < 0:
      raise ConfigError(
        "An example needs its peak, and a latent an example.",
        received=str(self),
        instead="examples from 1; before, after and logits from 0",
      )

  @property
  def window(self) -> int:
    """Tokens of a window."""
    return self.before + 1 + self.after


def latent_examples(
  lm: LanguageModel,
  dictionaries: Mapping[str, Dictionary],
  batches: Iterable[PackedBatch],
  options: ExampleOptions | None = None,
  *,
  progress: Progress | None = None,
) -> dict[str, LatentTable]:
  """Measures what the latents of many dictionaries fire on.

  Args:
    lm: The model.
    dictionaries: By name: SAEs, transcoders, crosscoders.
    batches: Packed tokens, all of one shape (one program).
    options: What is kept.
    progress: Called after each batch with a label and 0: batches need not know
      how many they are.

  Returns:
    A table for each dictionary, under its name.

  Raises:
    ConfigError: A dictionary has latents for each layer (a CLT).
    TextError: No token counts.
  """
  options = options or ExampleOptions()
  for name, dictionary in dictionaries.items():
    _check_joint(name, dictionary)
  sites = dict.fromkeys(s for d in dictionaries.values() for s in d.sites_in)
  harvest = Harvest(lm, list(sites))
  states = {
    name: latent_state.empty(
      d.num_latents, _SPARE * options.examples, options.window
    )
    for name, d in dictionaries.items()
  }
  counted = 0
  for number, batch in enumerate(batches, 1):
    values, _ = harvest(batch)
    for name, dictionary in dictionaries.items():
      states[name] = _seen(states[name], dictionary, values, batch, options)
    counted += batch.num_counted
    if progress is not None:
      progress(f"Batch {number}, {counted:,} tokens", 0.0)
  if not counted:
    raise TextError(
      "There is no token to measure latents on.",
      received="batches without a token that counts",
      instead="some text: a few thousand tokens or more",
    )
  return {
    name: _table(lm, dictionaries[name], state, counted, options)
    for name, state in states.items()
  }


def _check_joint(name: str, dictionary: Dictionary) -> None:
  if isinstance(dictionary, Layered):
    raise ConfigError(
      "Each layer of this dictionary has latents of its own.",
      received=f"{name}: {dictionary.about}",
      instead="SAEs, transcoders and crosscoders",
    )


def _seen(
  state: latent_state.LatentState,
  dictionary: Dictionary,
  values: Mapping[Site, jax.Array],
  batch: PackedBatch,
  options: ExampleOptions,
) -> latent_state.LatentState:
  """One dictionary's state after one batch."""
  rows = [values[site] for site in dictionary.sites_in]
  x = rows[0] if len(rows) == 1 else jnp.stack(rows)
  latents = dictionary.encode(x).reshape(*batch.shape, -1)
  quotable = batch.counted
  if options.quotable is not None:
    quotable = quotable & options.quotable(batch)
  return latent_state.update(
    state,
    latents,
    batch.ids,
    batch.segment_ids,
    (batch.counted, quotable),
    options.before,
  )


def _table(
  lm: LanguageModel,
  dictionary: Dictionary,
  state: latent_state.LatentState,
  counted: int,
  options: ExampleOptions,
) -> LatentTable:
  """What was seen, as a table."""
  tokens, activations = _distinct(
    np.asarray(state.tokens), np.asarray(state.activations), options.examples
  )
  reached = np.asarray(state.at_least).astype(np.int64)
  beyond = np.concatenate([reached[1:], np.zeros_like(reached[:1])])
  logit_tokens = np.zeros((dictionary.num_latents, 2, 0), np.int32)
  logit_values = logit_tokens.astype(np.float32)
  if options.logits:
    logit_tokens, logit_values = latent_logits(
      lm, dictionary, count=options.logits
    )
  return LatentTable(
    tokens=tokens,
    activations=activations,
    frequencies=(reached[0] / counted).astype(np.float32),
    maxima=np.asarray(state.largest),
    histograms=(reached - beyond).T,
    logit_tokens=logit_tokens,
    logit_values=logit_values,
    counted=counted,
  )


def _distinct(
  tokens: np.ndarray, activations: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """The first `count` windows of each latent that are not copies of others."""
  same = (tokens[:, :, None] == tokens[:, None]).all(3)
  copy = np.tril(same, -1).any(2)
  order = np.argsort(copy, axis=1, kind="stable")[:, :count, None]
  copy = np.take_along_axis(copy, order[:, :, 0], axis=1)[:, :, None]
  tokens = np.take_along_axis(tokens, order, axis=1)
  activations = np.take_along_axis(activations, order, axis=1)
  return np.where(copy, NOTHING, tokens), np.where(copy, 0, activations)
