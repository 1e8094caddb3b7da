"""Attribution: targets, methods, and what they return."""

from gemma_scope.attribution.attribute import GradientOptions as GradientOptions
from gemma_scope.attribution.objectives import Target as Target
from gemma_scope.attribution.objectives import activation as activation
from gemma_scope.attribution.objectives import function as function
from gemma_scope.attribution.objectives import kl_divergence as kl_divergence
from gemma_scope.attribution.objectives import log_prob as log_prob
from gemma_scope.attribution.objectives import logit as logit
from gemma_scope.attribution.objectives import (
  logit_difference as logit_difference,
)
from gemma_scope.attribution.objectives import projection as projection
from gemma_scope.attribution.objectives import (
  weighted_logits as weighted_logits,
)
