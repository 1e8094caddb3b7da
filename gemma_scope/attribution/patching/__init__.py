"""Patching: activations of one run put into another, exactly or estimated."""

from gemma_scope.attribution.patching.approximate import (
  approximate_patching as approximate_patching,
)
from gemma_scope.attribution.patching.edge_scores import (
  EdgeScores as EdgeScores,
)
from gemma_scope.attribution.patching.edges import (
  edge_attribution as edge_attribution,
)
from gemma_scope.attribution.patching.estimate import (
  PatchEstimate as PatchEstimate,
)
from gemma_scope.attribution.patching.question import (
  EstimateOptions as EstimateOptions,
)
