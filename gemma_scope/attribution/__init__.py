"""Attribution: targets, methods, and what they return."""

from gemma_scope.attribution.attribute import GradientOptions as GradientOptions
from gemma_scope.attribution.objectives import Target as Target
from gemma_scope.attribution.objectives import logit as logit
from gemma_scope.attribution.objectives import (
  logit_difference as logit_difference,
)
