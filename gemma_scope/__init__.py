"""gemma_scope: a full-stack interpretability suite for Gemma 3, in JAX.

    import gemma_scope as gs
    lm = gs.load("gemma-3-270m")

The names below are those of `gemma_scope.api`. They are imported when first
asked for, so that a command's help does not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from gemma_scope import activations as activations
  from gemma_scope import analysis as analysis
  from gemma_scope import attribution as attribution
  from gemma_scope import dictionaries as dictionaries
  from gemma_scope import evals as evals
  from gemma_scope import planning as planning
  from gemma_scope import surgery as surgery
  from gemma_scope import training as training
  from gemma_scope.api import *  # noqa: F403
  from gemma_scope.attribution import lrp as lrp

__version__ = "0.1.0"

_PACKAGES = {
  "activations": "gemma_scope.activations",
  "analysis": "gemma_scope.analysis",
  "attribution": "gemma_scope.attribution",
  "evals": "gemma_scope.evals",
  "dictionaries": "gemma_scope.dictionaries",
  "lrp": "gemma_scope.attribution.lrp",
  "planning": "gemma_scope.planning",
  "surgery": "gemma_scope.surgery",
  "testing": "gemma_scope.testing",
  "training": "gemma_scope.training",
  "weights": "gemma_scope.weights",
}
_FUNCTIONS = (
  "SITES",
  "Capture",
  "Dashboard",
  "Explanation",
  "GemmaScopeError",
  "Generation",
  "GradientOptions",
  "LanguageModel",
  "PatchOptions",
  "PatchSweep",
  "PatchingReport",
  "Sampling",
  "Site",
  "attention_patterns",
  "attribute",
  "attribute_many",
  "capture",
  "direct_logit_attribution",
  "explain",
  "fit_probe",
  "fit_probes",
  "generate",
  "latent_examples",
  "load",
  "logit_lens",
  "measured_dashboard",
  "nll_change",
  "patch",
  "patching_report",
  "plan",
  "predict",
  "save",
  "stored_dashboard",
)


def __getattr__(name: str) -> Any:
  """Imports a public name when it is first used."""
  if name in _PACKAGES:
    return importlib.import_module(_PACKAGES[name])
  if name in _FUNCTIONS:
    return getattr(importlib.import_module("gemma_scope.api"), name)
  raise AttributeError(f"module 'gemma_scope' has no attribute {name!r}")


def __dir__() -> list[str]:
  """The public names."""
  return sorted((*_PACKAGES, *_FUNCTIONS, "__version__"))
