"""One pass over held-out text for many dictionaries and metrics.

    found = evaluate(lm, {"ours": sae, "theirs": other}, batches)
    found["ours"].interval("fvu"); found.difference("ours", "theirs", "fvu")

Every batch is run through the model once; each dictionary encodes and rebuilds
what was recorded, and each metric adds up what it needs. Nothing but sums
leaves the device. What a dictionary with BatchTopK does to a token depends on
the tokens beside it, padding included, so that it is refused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.dictionaries.activations import BatchTopK
from gemma_scope.dictionaries.fit import check_fits
from gemma_scope.dictionaries.protocol import Dictionary, Layered
from gemma_scope.errors import ConfigError, SiteError, TextError
from gemma_scope.evals.dictionaries.cosine import Cosine
from gemma_scope.evals.dictionaries.decoder_cosines import DecoderCosines
from gemma_scope.evals.dictionaries.delta_loss import DeltaLoss
from gemma_scope.evals.dictionaries.density import Density
from gemma_scope.evals.dictionaries.evaluation import Evaluated, Evaluation
from gemma_scope.evals.dictionaries.fvu import Fvu
from gemma_scope.evals.dictionaries.l0 import L0
from gemma_scope.evals.dictionaries.prefix_curve import PrefixCurve
from gemma_scope.evals.dictionaries.protocol import Metric, Sums
from gemma_scope.evals.dictionaries.run import Run, make_probe
from gemma_scope.evals.dictionaries.seeing import see
from gemma_scope.evals.dictionaries.text import Batches, cut_rows, to_batches
from gemma_scope.manifest import make_manifest
from gemma_scope.model.language_model import LanguageModel

METRICS: tuple[Metric, ...] = (
  L0(),
  Fvu(),
  Cosine(),
  DeltaLoss(),
  Density(),
  PrefixCurve(),
  DecoderCosines(),
)
_LATENTS_AT_ONCE = 1 << 27  # half a gigabyte

Progress = Callable[[str, float | None], None]
Given = Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary]


def evaluate(
  lm: LanguageModel,
  dictionaries: Given,
  batches: Batches,
  *,
  metrics: Sequence[Metric] = METRICS,
  tokens: int | None = None,
  rows_at_once: int | None = None,
  progress: Progress | None = None,
) -> Evaluation:
  """Measures dictionaries on held-out text.

  Args:
    lm: The model that they are of.
    dictionaries: One, several, or several by the names to show.
    batches: Packed batches (see `activations.corpus`), rows of tokens, or a
      few texts.
    metrics: What is measured.
    tokens: Enough tokens that count; all there are by default.
    rows_at_once: Rows of one forward pass; by default as many as a batch has,
      or fewer where the latents of a dictionary are many.
    progress: Called with a label and the share done.

  Raises:
    SiteError: A dictionary does not fit the model.
    ConfigError: There is none, or it has BatchTopK.
    TextError: There is no token that counts.
  """
  named = named_dictionaries(dictionaries)
  for dictionary in named.values():
    check_measurable(lm, dictionary)
  metrics = tuple(metrics)
  probe = make_probe(lm, tuple(named.values()), any(m.losses for m in metrics))
  tallies = {name: _Tally(d, metrics) for name, d in named.items()}
  centres, seen, kept = None, 0, []
  for part in _parts(named, to_batches(lm, batches), tokens, rows_at_once):
    run = Run(probe, part, centres)
    centres = run.centres
    for tally in tallies.values():
      tally.add(run, seen)
    jax.block_until_ready([tally.last for tally in tallies.values()])
    seen += part.num_counted
    kept.append((part.segment_ids != 0).any(axis=1))
    if progress is not None:
      share = None if tokens is None else min(1.0, seen / tokens)
      progress(f"Evaluating: {seen:,} tokens", share)
  if not seen:
    raise TextError(
      "There is no token that counts.",
      received="batches of BOS, EOS and padding alone",
      instead="text",
    )
  there = np.concatenate(kept)  # rows of padding alone are no rows
  found = {name: tally.finish(there) for name, tally in tallies.items()}
  manifest = _manifest(lm, named, metrics, seen)
  return Evaluation(found, seen, int(there.sum()), manifest)


def _parts(
  named: Mapping[str, Dictionary],
  batches: Iterable[PackedBatch],
  tokens: int | None,
  rows_at_once: int | None,
) -> Iterator[PackedBatch]:
  """What is run together, until there are enough tokens."""
  seen = 0
  for batch in batches:
    size = rows_at_once or _rows_at_once(named, batch.shape)
    for part in cut_rows(batch, size):
      if part.counted.any():
        yield part
        seen += part.num_counted
      if tokens is not None and seen >= tokens:
        return


class _Tally:
  """The sums of one dictionary, metric by metric."""

  def __init__(self, dictionary: Dictionary, metrics: tuple[Metric, ...]):
    self.dictionary = dictionary
    self.metrics = metrics
    self.rows: list[list[Mapping[str, Any]]] = [[] for _ in metrics]
    self.totals: list[Mapping[str, Any]] = [{} for _ in metrics]
    self.last: Any = ()

  def add(self, run: Run, before: int) -> None:
    """Measures one part; `before` is how many tokens came before it."""
    wanted = [
      i
      for i, m in enumerate(self.metrics)
      if m.most_tokens is None or before < m.most_tokens
    ]
    if not wanted:
      return
    seen = see(run, self.dictionary)
    for i in wanted:
      sums = self.metrics[i].measure(seen)
      self.rows[i].append(sums.rows)
      old = self.totals[i]
      self.totals[i] = {
        name: value + old[name] if old else value
        for name, value in sums.totals.items()
      }
      self.last = sums.rows, sums.totals

  def finish(self, there: np.ndarray) -> Evaluated:
    """What all metrics say; `there` marks the rows that have text."""
    findings = []
    for metric, rows, totals in zip(self.metrics, self.rows, self.totals):
      parts = jax.device_get(rows)
      names = parts[0] if parts else {}
      joined = {n: np.concatenate([p[n] for p in parts]) for n in names}
      joined = {n: a[there[: len(a)]] for n, a in joined.items()}
      sums = Sums(joined, jax.device_get(dict(totals)))
      findings.append(metric.finish(self.dictionary, sums))
    return Evaluated.joined(str(self.dictionary.about), findings)


def named_dictionaries(given: Given) -> dict[str, Dictionary]:
  """Dictionaries by the names to show; equal names are numbered.

  Raises:
    ConfigError: There is none.
  """
  if isinstance(given, Mapping):
    found = {str(name): one for name, one in given.items()}
  else:
    several: list[Any] = [given]
    if isinstance(given, Sequence):
      several = list(given)
    found = {}
    for one in several:
      name = base = one.about.name or str(one.about)
      number = 2
      while name in found:
        name, number = f"{base} ({number})", number + 1
      found[name] = one
  if not found:
    raise ConfigError(
      "There is no dictionary to evaluate.",
      received="none",
      instead="a dictionary, or several by name",
    )
  return found


def check_measurable(lm: LanguageModel, dictionary: Dictionary) -> None:
  """Refuses what cannot be measured token by token.

  Raises:
    SiteError: The dictionary does not fit the model, or is of no layer.
    ConfigError: It has BatchTopK.
  """
  check_fits(dictionary, lm.config, lm.name)
  for site in (*dictionary.sites_in, *dictionary.sites_out):
    if site.layer is None and site.name != "embed":
      raise SiteError(
        "Dictionaries are evaluated at sites inside decoder layers.",
        received=str(dictionary.about),
        instead="one at resid_post, z, mlp_in and their like",
      )
  leaves = jax.tree.leaves(
    dictionary, is_leaf=lambda leaf: isinstance(leaf, BatchTopK)
  )
  if any(isinstance(leaf, BatchTopK) for leaf in leaves):
    raise ConfigError(
      "With BatchTopK a token's latents depend on the tokens beside it.",
      received=str(dictionary.about),
      instead="the dictionary with the threshold that training found: "
      "batch_top_k_to_jump_relu",
    )


def _rows_at_once(
  named: Mapping[str, Dictionary], shape: tuple[int, int]
) -> int:
  """As many rows as a batch has, if all latents fit into memory."""
  most = max(
    d.num_latents * (len(d.sites_in) if isinstance(d, Layered) else 1)
    for d in named.values()
  )
  return max(1, min(shape[0], _LATENTS_AT_ONCE // (most * shape[1])))


def _manifest(
  lm: LanguageModel,
  named: Mapping[str, Dictionary],
  metrics: tuple[Metric, ...],
  tokens: int,
):
  config = {
    "dictionaries": {name: str(d.about) for name, d in named.items()},
    "metrics": {m.name: _plain(m) for m in metrics},
    "tokens": tokens,
  }
  return make_manifest(config, model=lm.name, source=lm.source)


def _plain(metric: Any) -> Any:
  return metric if dataclasses.is_dataclass(metric) else str(metric)
