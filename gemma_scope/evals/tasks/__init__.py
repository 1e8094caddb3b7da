"""Tasks with known answers: prompts whose cause is one thing that is known.

task = gs.evals.tasks.ioi(lm, n=100, seed=0)
task.clean, task.corrupt, task.target
"""

from gemma_scope.evals.tasks.capital_of import capital_of as capital_of
from gemma_scope.evals.tasks.greater_than import greater_than as greater_than
from gemma_scope.evals.tasks.ioi import ioi as ioi
from gemma_scope.evals.tasks.protocol import Pair as Pair
from gemma_scope.evals.tasks.protocol import Task as Task
from gemma_scope.evals.tasks.protocol import make_task as make_task
from gemma_scope.evals.tasks.source_token import SourceTask as SourceTask
from gemma_scope.evals.tasks.source_token import source_hits as source_hits
from gemma_scope.evals.tasks.source_token import source_token as source_token
from gemma_scope.evals.tasks.subject_verb import subject_verb as subject_verb
