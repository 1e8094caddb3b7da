"""Linear probes: the direction of a site along which two sets of texts differ.

    mean_difference   w = mean(x+) - mean(x-)
    logistic          min_w  mean log(1 + exp(-y (w x + b))) + l2 / 2 |w|^2

the logistic one on standardised features, by Newton's method (`probe_fits`).
Judged on texts that had no part in the fit: accuracy, AUC with a bootstrap
interval over them, and beside them the accuracy of the same probe fitted to
shuffled labels. The same share of each label is held out. That a probe reads a
concept does not say that the model uses it: steer along the direction, or use
it as a target.

Sources: Alain and Bengio 2016, "Understanding intermediate layers using linear
classifier probes"; Marks and Tegmark 2023, "The Geometry of Truth" (difference
of means); Hewitt and Liang 2019 (control labels).
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from gemma_scope import axes
from gemma_scope.activations.tokens import Input
from gemma_scope.analysis import probe_fits
from gemma_scope.analysis.probe_features import Position, labelled_features
from gemma_scope.attribution.objectives import Target, projection
from gemma_scope.errors import ConfigError, SiteError, TextError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve


@dataclasses.dataclass(frozen=True)
class Score:
  """How well a probe does on held-out texts.

  Attributes:
    accuracy: Share classified right, threshold of the fit.
    auc: Area under the ROC curve.
    auc_interval: 95 % bootstrap interval of the AUC over held-out texts.
    shuffled_accuracy: Mean accuracy of probes fitted to shuffled labels.
    held_out: How many texts were held out.
    fitted: How many texts were fitted.
  """

  accuracy: float
  auc: float
  auc_interval: tuple[float, float]
  shuffled_accuracy: float
  held_out: int
  fitted: int


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
  """A direction of a site that tells two sets of texts apart.

  Attributes:
    site: Where.
    kind: How it was fitted.
    direction: Unit length, the site's axes without batch and seq; positive
      texts lie further along it.
    threshold: Projection on the direction that separates the two.
    gap: Distance between the means of the two along the direction: a natural
      unit for steering.
    score: How well it does.
  """

  site: Site
  kind: str
  direction: np.ndarray
  threshold: float
  gap: float
  score: Score

  def target(self, position: int = -1) -> Target:
    """The projection on the direction, as a target of attribution.

    Args:
      position: Column at which it is read.
    """
    return projection(self.site, self.direction, position)

  def __repr__(self) -> str:
    s = self.score
    low, high = s.auc_interval
    return (
      f"Probe({self.kind} at {self.site}: accuracy {s.accuracy:.3f}, "
      f"AUC {s.auc:.3f} [{low:.3f}, {high:.3f}] on {s.held_out} held-out "
      f"texts; shuffled labels {s.shuffled_accuracy:.3f})"
    )


@dataclasses.dataclass(frozen=True)
class ProbeOptions:
  """How probes are fitted and judged.

  Attributes:
    held_out: Share of each label's texts that is held out.
    l2: Strength of the penalty of the logistic probe, per text.
    resamples: Bootstrap resamples of the held-out texts.
    shuffles: Fits to shuffled labels.
  """

  held_out: float = 0.25
  l2: float = 1e-2
  resamples: int = 1000
  shuffles: int = 5


def fit_probe(
  lm: LanguageModel,
  positive: Input,
  negative: Input,
  *,
  site: Site | str,
  kind: str = "mean_difference",
  position: Position = -1,
  seed: int = 0,
  options: ProbeOptions | None = None,
) -> Probe:
  """Fits a linear probe at one site.

  Args:
    lm: The model.
    positive: Texts or token ids with the property.
    negative: Texts or token ids without it.
    site: One address, such as "resid_post[12]".
    kind: "mean_difference" or "logistic".
    position: Which token stands for a text: a column (negative counts from its
      last token), several columns to average, or "mean" for all but the first.
    seed: Of the split, the bootstrap and the shuffled labels.
    options: How probes are fitted and judged.

  Raises:
    ConfigError: If there is no such kind or position.
    SiteError: If this is not one site with a value for each token.
    TextError: If there are too few texts, or one is too short.
  """
  probes = fit_probes(
    lm,
    positive,
    negative,
    site=site,
    kind=kind,
    position=position,
    seed=seed,
    options=options,
  )
  if len(probes) != 1:
    raise SiteError(
      "A probe reads one site.",
      received=f"{site}, which are {len(probes)} sites",
      instead='a single layer, or fit_probes for "resid_post[:]"',
    )
  return next(iter(probes.values()))


def fit_probes(
  lm: LanguageModel,
  positive: Input,
  negative: Input,
  *,
  site: Site | str = "resid_post[:]",
  kind: str = "mean_difference",
  position: Position = -1,
  seed: int = 0,
  options: ProbeOptions | None = None,
) -> dict[Site, Probe]:
  """Fits a probe at each of some sites, from one capture; see `fit_probe`.

  All use the same split. Picking the best layer by these scores and quoting
  its score is optimistic: there were as many tries as layers.
  """
  options = options or ProbeOptions()
  _check(kind, position, options)
  sites = _checked_sites(site, lm.config.num_layers)
  features, labels = labelled_features(
    lm, (positive, negative), sites, position
  )
  split = _split(labels, options.held_out, seed)
  return {
    s: _probe(s, kind, x, labels, split, (options, seed))
    for s, x in features.items()
  }


def _probe(
  site: Site,
  kind: str,
  features: np.ndarray,
  labels: np.ndarray,
  split: tuple[np.ndarray, np.ndarray],
  how: tuple[ProbeOptions, int],
) -> Probe:
  """One site's probe and its score."""
  (options, seed), (fit, held) = how, split
  shape = features.shape[1:]
  x = features.reshape(len(features), -1)
  run = probe_fits.FITS[kind]
  direction, threshold = run(x[fit], labels[fit], options.l2)
  score = x[held] @ direction
  rng = np.random.default_rng([seed, 1])
  guesses = []
  for _ in range(options.shuffles):
    w, b = run(x[fit], rng.permutation(labels[fit]), options.l2)
    guesses.append(np.mean((x[held] @ w > b) == labels[held]))
  along = x[fit] @ direction
  gap = along[labels[fit]].mean() - along[~labels[fit]].mean()
  judged = Score(
    accuracy=float(np.mean((score > threshold) == labels[held])),
    auc=probe_fits.auc(score, labels[held]),
    auc_interval=probe_fits.auc_interval(
      score, labels[held], options.resamples, seed
    ),
    shuffled_accuracy=float(np.mean(guesses)) if guesses else float("nan"),
    held_out=len(held),
    fitted=len(fit),
  )
  return Probe(
    site,
    kind,
    direction.reshape(shape).astype(np.float32),
    float(threshold),
    float(gap),
    judged,
  )


def _split(
  labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Which texts are fitted and which held out, the same share of each label.

  Raises:
    TextError: If a label has too few texts.
  """
  rng = np.random.default_rng([seed, 0])
  fit, held = [], []
  for label in (True, False):
    order = rng.permutation(np.flatnonzero(labels == label))
    count = max(1, round(share * len(order)))
    if len(order) - count < 2:
      raise TextError(
        "There are too few texts to fit a probe and hold some out.",
        received=f"{len(order)} texts of one label, {share:.0%} held out",
        instead="at least three of each label, better fifty",
      )
    held.append(order[:count])
    fit.append(order[count:])
  return np.concatenate(fit), np.concatenate(held)


def _checked_sites(spec: Site | str, num_layers: int) -> tuple[Site, ...]:
  sites = resolve(spec, num_layers)
  if any(axes.KV_SEQ in s.info.axes or s.name == "logits" for s in sites):
    raise SiteError(
      "A probe reads sites with a value for each token, before the logits.",
      received=str(spec),
      instead='for example "resid_post[12]" or "z[5]"',
    )
  return sites


def _check(kind: str, position: Position, options: ProbeOptions) -> None:
  fits: Mapping[str, object] = probe_fits.FITS
  if kind not in fits or (isinstance(position, str) and position != "mean"):
    raise ConfigError(
      "There is no such probe.",
      received=f"kind={kind!r}, position={position!r}",
      instead=f"kind {' or '.join(map(repr, fits))}; position a column, "
      'several, or "mean"',
    )
  if not 0 < options.held_out < 1:
    raise ConfigError(
      "A share of the texts must be held out.",
      received=f"held_out={options.held_out}",
      instead="a number between 0 and 1, such as 0.25",
    )
