"""Approximations of activation patching: one entrance to every method.

Exact patching runs the model once for every cell. An approximation takes a few
passes for all cells together, and is right as far as the model is linear
between the two runs. A method is a row of `METHODS`.
"""

from collections.abc import Callable, Iterable, Mapping
import difflib

import numpy as np

from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.objectives import Target, logit
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching.atp_star import atp_star
from gemma_scope.attribution.patching.estimate import PatchEstimate, trimmed
from gemma_scope.attribution.patching.integrated import integrated_patching
from gemma_scope.attribution.patching.linear import (
  attribution_patching,
  relevance_patching,
)
from gemma_scope.attribution.patching.question import (
  EstimateOptions,
  PatchMethod,
  PatchQuestion,
  groups,
  joined,
)
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.convert import Progress
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve

METHODS: Mapping[str, PatchMethod] = {
  "attribution_patching": attribution_patching,
  "integrated_gradients": integrated_patching,
  "atp_star": atp_star,
  "relp": relevance_patching,
}


def approximate_patching(
  lm: LanguageModel,
  source: Input,
  base: Input,
  target: Target | str | int,
  *,
  method: str = "attribution_patching",
  at: Iterable[Site | str] = ("resid_pre[:]", "attn_write[:]", "mlp_write[:]"),
  options: EstimateOptions | None = None,
  progress: Progress | None = None,
) -> PatchEstimate:
  """Estimates what patching each cell of some sites would do to a target.

  Args:
    lm: The model.
    source: Prompts that values are taken from.
    base: Prompts that they are put into, token for token.
    target: What is measured; a token alone means its logit.
    method: A key of `METHODS`.
    at: Addresses of the sites, such as "resid_pre[:]" or "z[3]".
    options: Options of the methods.
    progress: Called with a label and the fraction done.

  Returns:
    Site -> estimates of patched - base, one for each position and head.

  Raises:
    ConfigError: If there is no such method or option.
    SiteError: If a site is unknown or cannot be patched.
    TextError: If the prompts or the target cannot be used together.
  """
  if method not in METHODS:
    near = difflib.get_close_matches(method, METHODS, n=1) or list(METHODS)
    raise ConfigError(
      "There is no such approximation of patching.",
      received=f"method={method!r}",
      instead=" or ".join(f"method={name!r}" for name in near),
    )
  sites = _patchable(at, lm.config.num_layers)
  if not isinstance(target, Target):
    target = logit(target)
  _, tokens, pairs = to_pairs(lm, source, base, target)
  options, parts, done = options or EstimateOptions(), [], 0
  for some, count in groups(pairs):
    share = (done / len(tokens.lengths), count / len(tokens.lengths))
    tell = _teller(progress, *share)
    asked = PatchQuestion(lm.model, some, sites, options, tell)
    parts.append((METHODS[method](asked), count))
    done += count
    tell(1.0)
  found = joined(parts)
  return PatchEstimate(
    {site: trimmed(value, tokens) for site, value in found.values.items()},
    method,
    np.asarray(found.source),
    np.asarray(found.base),
    {site: trimmed(value, tokens) for site, value in found.magnitudes.items()},
    tokens,
    tokens.pieces(lm.tokenizer),
  )


def _teller(
  progress: Progress | None, start: float, size: float
) -> Callable[[float], None]:
  """Turns the share done of some pairs into that of all."""

  def tell(share: float) -> None:
    if progress is not None:
      progress("Estimating", start + size * share)

  return tell


def _patchable(at: Iterable[Site | str], num_layers: int) -> tuple[Site, ...]:
  """The sites that `at` means, if there are any, and none the logits."""
  sites = resolve(at, num_layers)
  if not sites or any(site.name == "logits" for site in sites):
    raise SiteError(
      "Patching needs sites before the logits.",
      received=f"at={at!r}",
      instead='for example at=["resid_pre[:]", "z[:]", "mlp_write[:]"]',
    )
  return sites
