"""Targets: what an attribution or a patch explains, one number a prompt."""

from gemma_scope.attribution.objectives.activations import (
  activation as activation,
)
from gemma_scope.attribution.objectives.activations import (
  projection as projection,
)
from gemma_scope.attribution.objectives.functions import function as function
from gemma_scope.attribution.objectives.logits import logit as logit
from gemma_scope.attribution.objectives.logits import (
  logit_difference as logit_difference,
)
from gemma_scope.attribution.objectives.logits import (
  weighted_logits as weighted_logits,
)
from gemma_scope.attribution.objectives.probabilities import (
  kl_divergence as kl_divergence,
)
from gemma_scope.attribution.objectives.probabilities import (
  log_prob as log_prob,
)
from gemma_scope.attribution.objectives.protocol import (
  ResolvedTarget as ResolvedTarget,
)
from gemma_scope.attribution.objectives.protocol import Seen as Seen
from gemma_scope.attribution.objectives.protocol import Target as Target
