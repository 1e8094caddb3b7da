"""One entrance to every attribution method.

A method is a row of `METHODS`: a function from a question to relevance by
site. It does not know what a tokenizer or a batch of texts is.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import difflib
from typing import Any

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import Input
from gemma_scope.attribution import composites, gradients
from gemma_scope.attribution.baselines import baseline_at
from gemma_scope.attribution.composites import RuleTable
from gemma_scope.attribution.evaluate import ask
from gemma_scope.attribution.objectives import ResolvedTarget, Target, logit
from gemma_scope.attribution.relevance import relevance
from gemma_scope.attribution.result import Attribution
from gemma_scope.attribution.rows import Rows, Values
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve


@dataclasses.dataclass(frozen=True)
class GradientOptions:
  """Options of the gradient family.

  Attributes:
    steps: Points of the integration path.
    quadrature: "gauss_legendre", "midpoint" or "trapezoid".
    baseline: Where integration starts: "mean" (the default at `embed`), "pad",
      "zero", or an array (see `baselines`).
  """

  steps: int = 32
  quadrature: str = "gauss_legendre"
  baseline: str | Any | None = None


@dataclasses.dataclass(frozen=True)
class Question:
  """What a method is asked.

  Attributes:
    model: The model.
    rows: The prompts.
    target: What is explained.
    sites: Where relevance is wanted.
    options: Options of the method.
  """

  model: Gemma
  rows: Rows
  target: ResolvedTarget
  sites: tuple[Site, ...]
  options: GradientOptions


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a method returns.

  Attributes:
    target: [batch] value of the target.
    values: Site -> relevance.
    expected: Site -> [batch] what it should add up to.
  """

  target: np.ndarray
  values: Values
  expected: dict[Site, np.ndarray]


Method = Callable[[Question], Answer]


def attribute(
  lm: LanguageModel,
  given: Input,
  target: Target | str | int,
  *,
  method: str = "integrated_gradients",
  at: Iterable[Site | str] = ("embed",),
  options: GradientOptions | None = None,
) -> Attribution:
  """How much each element of some sites contributes to a target.

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    target: What is explained (see `objectives.logit`, `logit_difference`); a
      token alone means its logit.
    method: A key of `METHODS`.
    at: Addresses of the sites, such as "embed" or "resid_post[:]".
    options: Options of the method.

  Returns:
    Site -> relevance with the site's axes, float32; `per_token` sums it.

  Raises:
    ConfigError: If there is no such method.
    SiteError: If a site is unknown or cannot be attributed to.
    TextError: If the prompt or the target cannot be used.
  """
  if method not in METHODS:
    near = difflib.get_close_matches(method, METHODS, n=1) or list(METHODS)
    raise ConfigError(
      "There is no such attribution method.",
      received=f"method={method!r}",
      instead=" or ".join(f"method={name!r}" for name in near),
    )
  sites = _checked_sites(at, lm.config.num_layers)
  if not isinstance(target, Target):
    target = logit(target)
  batch, rows, resolved = ask(lm, given, target)
  question = Question(
    lm.model, rows, resolved, sites, options or GradientOptions()
  )
  answer = METHODS[method](question)
  values = {s: _trim(v, rows, batch.width) for s, v in answer.values.items()}
  return Attribution(
    values,
    method,
    answer.target,
    answer.expected,
    batch,
    batch.pieces(lm.tokenizer),
  )


def _checked_sites(
  at: Iterable[Site | str], num_layers: int
) -> tuple[Site, ...]:
  """The sites that `at` means, if there are any, and none the logits."""
  sites = resolve(at, num_layers)
  if not sites:
    raise SiteError(
      "There is no site to attribute to.",
      received=f"at={at!r}",
      instead='for example at=["embed"] or at=["resid_post[:]"]',
    )
  if any(site.name == "logits" for site in sites):
    raise SiteError(
      "Logits are what is explained, not what explains.",
      received="logits",
      instead='"final_norm" or an earlier site',
    )
  return sites


def _relevance(rules: RuleTable, *, conserves: bool) -> Method:
  """The method of a rule table.

  Args:
    rules: The table; the empty one is input x gradient.
    conserves: Whether its relevance promises to sum to the target.
  """

  def method(question: Question) -> Answer:
    q = question
    value, values = relevance(q.model, q.rows, q.target, q.sites, rules)
    value = np.asarray(value)
    adds_up = conserves and q.target.linear
    promise = value if adds_up else np.full_like(value, np.nan)
    return Answer(value, values, {site: promise for site in q.sites})

  return method


def _integrated_gradients(question: Question) -> Answer:
  q, o = question, question.options
  nodes = gradients.quadrature(o.quadrature, o.steps)
  value, values, expected = np.zeros(0), {}, {}
  for site in q.sites:
    start = baseline_at(site, o.baseline, q.model, q.rows)
    top, bottom, relevance = gradients.integrated_gradients(
      q.model, q.rows, q.target, start, nodes, site
    )
    value = np.asarray(top)
    values[site], expected[site] = relevance, value - np.asarray(bottom)
  return Answer(value, values, expected)


METHODS: Mapping[str, Method] = {
  "integrated_gradients": _integrated_gradients,
  "input_x_gradient": _relevance(composites.GRADIENT, conserves=False),
  "attn_lrp": _relevance(composites.ATTN_LRP, conserves=False),
  "cp_lrp": _relevance(composites.CP_LRP, conserves=True),
  "lrp_epsilon": _relevance(composites.LRP_EPSILON, conserves=True),
  "lrp_gamma": _relevance(composites.LRP_GAMMA, conserves=True),
}


def _trim(value: pz.nx.NamedArray, rows: Rows, width: int) -> pz.nx.NamedArray:
  """Clears what stands on padding and drops columns added to the prompt."""
  names = tuple(value.named_axes)
  data = np.asarray(value.unwrap(*names))
  kept = np.asarray(rows.segment_ids != 0)
  for i, name in enumerate(names):
    if name in (axes.SEQ, axes.KV_SEQ):
      shape = [1] * len(names)
      shape[names.index(axes.BATCH)], shape[i] = kept.shape
      data = np.take(data * kept.reshape(shape), np.arange(width), axis=i)
  return pz.nx.wrap(data, *names)
