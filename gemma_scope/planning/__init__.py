"""Planning: what a step costs on a machine, before there is the machine."""

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
from gemma_scope.planning.training import plan_training as plan_training
