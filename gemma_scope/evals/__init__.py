"""Evaluations: are explanations true, on which tasks, how surely."""

from gemma_scope.bootstrap import Interval as Interval
from gemma_scope.bootstrap import bootstrap_mean as bootstrap_mean
from gemma_scope.bootstrap import paired_difference as paired_difference
from gemma_scope.evals import dictionaries as dictionaries
from gemma_scope.evals import tasks as tasks
from gemma_scope.evals.agreement import Agreement as Agreement
from gemma_scope.evals.agreement import agreement as agreement
from gemma_scope.evals.curves import Curves as Curves
from gemma_scope.evals.faithfulness import (
  FaithfulnessOptions as FaithfulnessOptions,
)
from gemma_scope.evals.faithfulness import faithfulness as faithfulness
from gemma_scope.evals.one_prompt import (
  PromptFaithfulness as PromptFaithfulness,
)
from gemma_scope.evals.one_prompt import (
  prompt_faithfulness as prompt_faithfulness,
)
from gemma_scope.evals.perturbation import Perturbation as Perturbation
from gemma_scope.evals.rationale import Rationale as Rationale
from gemma_scope.evals.report import FaithfulnessReport as FaithfulnessReport
from gemma_scope.evals.retention import Soft as Soft
