"""How good sparse dictionaries are: many at once, on one pass over text.

`evaluate(lm, {"ours": sae, "theirs": other}, batches)` measures L0, FVU, losses
and more. `evaluate_concepts(lm, {"ours": sae, "theirs": other})` looks for
concepts, beside neurons, principal components and the vector itself; it runs
`sparse_probes`, `absorption`, `targeted_perturbation` and `shift` on what
`represent` makes of labelled texts.
`baselines` has dictionaries that were not trained.
"""

from gemma_scope.evals.dictionaries import baselines as baselines
from gemma_scope.evals.dictionaries import concepts as concepts
from gemma_scope.evals.dictionaries.absorption import Absorption as Absorption
from gemma_scope.evals.dictionaries.absorption import absorption as absorption
from gemma_scope.evals.dictionaries.concept_evaluation import (
  ConceptEvaluation as ConceptEvaluation,
)
from gemma_scope.evals.dictionaries.cosine import Cosine as Cosine
from gemma_scope.evals.dictionaries.decoder_cosines import (
  DecoderCosines as DecoderCosines,
)
from gemma_scope.evals.dictionaries.delta_loss import DeltaLoss as DeltaLoss
from gemma_scope.evals.dictionaries.density import Density as Density
from gemma_scope.evals.dictionaries.evaluate import METRICS as METRICS
from gemma_scope.evals.dictionaries.evaluate import evaluate as evaluate
from gemma_scope.evals.dictionaries.evaluate_concepts import (
  evaluate_concepts as evaluate_concepts,
)
from gemma_scope.evals.dictionaries.evaluation import Evaluated as Evaluated
from gemma_scope.evals.dictionaries.evaluation import Evaluation as Evaluation
from gemma_scope.evals.dictionaries.fvu import Fvu as Fvu
from gemma_scope.evals.dictionaries.l0 import L0 as L0
from gemma_scope.evals.dictionaries.prefix_curve import (
  PrefixCurve as PrefixCurve,
)
from gemma_scope.evals.dictionaries.protocol import Findings as Findings
from gemma_scope.evals.dictionaries.protocol import Metric as Metric
from gemma_scope.evals.dictionaries.protocol import Seen as Seen
from gemma_scope.evals.dictionaries.protocol import Sums as Sums
from gemma_scope.evals.dictionaries.ratio import Ratio as Ratio
from gemma_scope.evals.dictionaries.representations import (
  Represented as Represented,
)
from gemma_scope.evals.dictionaries.representations import (
  represent as represent,
)
from gemma_scope.evals.dictionaries.representations import (
  saes_by_site as saes_by_site,
)
from gemma_scope.evals.dictionaries.sparse_probing import (
  SparseProbes as SparseProbes,
)
from gemma_scope.evals.dictionaries.sparse_probing import (
  sparse_probes as sparse_probes,
)
from gemma_scope.evals.dictionaries.targeted import Targeted as Targeted
from gemma_scope.evals.dictionaries.targeted import shift as shift
from gemma_scope.evals.dictionaries.targeted import (
  targeted_perturbation as targeted_perturbation,
)
