"""One entrance to every attribution method.

A method is a row of `METHODS`: a function from a question to relevance by site
(see `methods.protocol`), and the class of its options.

| method | what it is | promises |
|---|---|---|
| `integrated_gradients` | slopes along a path from a baseline | f(x) - f(b) |
| `expected_gradients` | the same from many baselines | f(x) - E f(b) |
| `deeplift` | slopes between two runs, operation by operation | f(x) - f(b) |
| `input_x_gradient` | the slope at the prompt, times the value | |
| `saliency` | the size of the slope, unsigned | |
| `smoothgrad` | the mean slope around the prompt | |
| `attn_lrp` | relevance by AttnLRP's rules | |
| `cp_lrp`, `lrp_epsilon`, `lrp_gamma` | conserved relevance | f(x) |
| `occlusion` | the fall where a window of tokens is hidden | |
| `leave_one_out` | the fall without a token (at "embed" alone) | |

A promise is what relevance should add up to; `residual()` is how well it does.
LRP is reported to be patented technology, free for research.
"""

from collections.abc import Iterable, Mapping
import difflib

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.evaluate import ask
from gemma_scope.attribution.methods.deep_lift import DEEP_LIFT
from gemma_scope.attribution.methods.expected import EXPECTED_GRADIENTS
from gemma_scope.attribution.methods.integrated import (
  INTEGRATED_GRADIENTS,
)
from gemma_scope.attribution.methods.integrated import (
  GradientOptions as GradientOptions,
)
from gemma_scope.attribution.methods.leave_one_out import LEAVE_ONE_OUT
from gemma_scope.attribution.methods.occlusion import OCCLUSION
from gemma_scope.attribution.methods.protocol import Answer as Answer
from gemma_scope.attribution.methods.protocol import (
  Method,
  Options,
  checked_options,
)
from gemma_scope.attribution.methods.protocol import Question as Question
from gemma_scope.attribution.methods.saliency import SALIENCY
from gemma_scope.attribution.methods.smooth import SMOOTHGRAD
from gemma_scope.attribution.methods.tables import TABLES, table_method
from gemma_scope.attribution.objectives import Target, logit
from gemma_scope.attribution.result import Attribution
from gemma_scope.attribution.rows import Rows
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve

METHODS: Mapping[str, Method] = {
  "integrated_gradients": INTEGRATED_GRADIENTS,
  **{name: table_method(rules) for name, rules in TABLES.items()},
  "saliency": SALIENCY,
  "smoothgrad": SMOOTHGRAD,
  "expected_gradients": EXPECTED_GRADIENTS,
  "deeplift": DEEP_LIFT,
  "occlusion": OCCLUSION,
  "leave_one_out": LEAVE_ONE_OUT,
}


def attribute(
  lm: LanguageModel,
  given: Input,
  target: Target | str | int,
  *,
  method: str = "integrated_gradients",
  at: Iterable[Site | str] = ("embed",),
  options: Options | None = None,
) -> Attribution:
  """How much each element of some sites contributes to a target.

  Methods: integrated_gradients, expected_gradients, deeplift,
  input_x_gradient, saliency, smoothgrad, attn_lrp, cp_lrp, lrp_epsilon,
  lrp_gamma, occlusion, leave_one_out (the module says what each is).

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    target: What is explained (see `objectives.logit`, `logit_difference`); a
      token alone means its logit.
    method: A key of `METHODS`.
    at: Addresses of the sites, such as "embed" or "resid_post[:]".
    options: Options of the method, of its own class (`GradientOptions` for
      integrated gradients).

  Returns:
    Site -> relevance with the site's axes, float32; `per_token` sums it.

  Raises:
    ConfigError: If there is no such method, the options are another's, or the
      numbers are not finite.
    SiteError: If a site is unknown or cannot be attributed to.
    TextError: If the prompt or the target cannot be used.
  """
  row = _method(method)
  sites = checked_sites(at, lm.config.num_layers)
  if not isinstance(target, Target):
    target = logit(target)
  batch, rows, resolved = ask(lm, given, target)
  chosen = checked_options(method, row, options)
  if chosen is not None:
    chosen = chosen.resolved(lm, batch)
  answer = row(Question(lm.model, rows, resolved, sites, chosen))
  values = {s: trimmed(v, rows, batch.width) for s, v in answer.values.items()}
  _check_finite(values, method, options)
  return Attribution(
    values,
    method,
    answer.target,
    answer.expected,
    batch,
    batch.pieces(lm.tokenizer),
  )


def _method(name: str) -> Method:
  """The row of a method.

  Raises:
    ConfigError: If there is none.
  """
  if name in METHODS:
    return METHODS[name]
  near = difflib.get_close_matches(name, METHODS, n=1) or list(METHODS)
  raise ConfigError(
    "There is no such attribution method.",
    received=f"method={name!r}",
    instead=" or ".join(f"method={name!r}" for name in near),
  )


def checked_sites(
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


def _check_finite(
  values: Mapping[Site, pz.nx.NamedArray], method: str, options: Options | None
) -> None:
  """Raises ConfigError if a number is infinite or none at all."""
  for site, value in values.items():
    bad = ~np.isfinite(np.asarray(value.data_array))
    if bad.any():
      raise ConfigError(
        "Relevance is not finite.",
        received=f"{method} at {site} with {options or 'its defaults'}: "
        f"{bad.sum():,} of {bad.size:,} numbers",
        instead=METHODS[method].remedy,
      )


def trimmed(
  value: pz.nx.NamedArray, rows: Rows, width: int
) -> pz.nx.NamedArray:
  """Clears what stands on padding and drops columns added to the prompt."""
  names = tuple(value.named_axes)
  data = np.asarray(value.unwrap(*names))
  kept = np.asarray(rows.segment_ids != 0)
  for i, name in enumerate(names):
    if name in (axes.SEQ, axes.KV_SEQ):
      shape = [1] * len(names)
      shape[names.index(axes.BATCH)], shape[i] = kept.shape
      data = np.where(kept.reshape(shape), data, np.float32(0))
      data = np.take(data, np.arange(width), axis=i)
  return pz.nx.wrap(data, *names)
