"""Attribution: targets, methods, and what they return."""

from gemma_scope.attribution.attribute import GradientOptions as GradientOptions
from gemma_scope.attribution.baselines import OtherPrompt as OtherPrompt
from gemma_scope.attribution.baselines import ReplacedTokens as ReplacedTokens
from gemma_scope.attribution.many import attribute_many as attribute_many
from gemma_scope.attribution.methods.deep_lift import (
  DeepLiftOptions as DeepLiftOptions,
)
from gemma_scope.attribution.methods.expected import (
  ExpectedGradientsOptions as ExpectedGradientsOptions,
)
from gemma_scope.attribution.methods.leave_one_out import (
  LeaveOneOutOptions as LeaveOneOutOptions,
)
from gemma_scope.attribution.methods.occlusion import (
  OcclusionOptions as OcclusionOptions,
)
from gemma_scope.attribution.methods.saliency import (
  SaliencyOptions as SaliencyOptions,
)
from gemma_scope.attribution.methods.smooth import (
  SmoothGradOptions as SmoothGradOptions,
)
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
from gemma_scope.attribution.patching import EdgeScores as EdgeScores
from gemma_scope.attribution.patching import EstimateOptions as EstimateOptions
from gemma_scope.attribution.patching import PatchEstimate as PatchEstimate
from gemma_scope.attribution.patching import (
  approximate_patching as approximate_patching,
)
from gemma_scope.attribution.patching import (
  edge_attribution as edge_attribution,
)
from gemma_scope.attribution.patching.sweep import PatchOptions as PatchOptions
from gemma_scope.attribution.patching.sweep import patch as patch
