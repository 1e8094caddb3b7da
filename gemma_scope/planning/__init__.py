"""Planning: what a step costs on a machine, before there is the machine.

`plan_training` is imported when it is first asked for: nothing else here needs
the trainer, and `gs.plan` is part of every start of the command line.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gemma_scope.planning.compiling import largest_batch as largest_batch
from gemma_scope.planning.compiling import plan as plan
from gemma_scope.planning.compiling import plan_step as plan_step
from gemma_scope.planning.machines import Machine as Machine
from gemma_scope.planning.machines import find_machine as find_machine
from gemma_scope.planning.report import Plan as Plan
from gemma_scope.planning.steps import Shape as Shape
from gemma_scope.planning.steps import Step as Step
from gemma_scope.planning.steps import attribute_step as attribute_step
from gemma_scope.planning.steps import capture_step as capture_step
from gemma_scope.planning.steps import graph_step as graph_step

if TYPE_CHECKING:
  from gemma_scope.planning.training import plan_training as plan_training


def __getattr__(name: str) -> Any:
  """Imports what is not imported yet.

  Raises:
    AttributeError: There is nothing of this name.
  """
  if name == "plan_training":
    return importlib.import_module(
      "gemma_scope.planning.training"
    ).plan_training
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
