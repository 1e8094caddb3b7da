"""Surgery: functions from a model to a model with something at a site."""

from gemma_scope.surgery.select import offset as offset
from gemma_scope.surgery.select import stop_after as stop_after
from gemma_scope.surgery.select import tap as tap
