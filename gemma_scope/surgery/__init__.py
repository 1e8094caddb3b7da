"""Surgery: functions from a model to a model with something at a site."""

from gemma_scope.model.site_layer import ActiveSite as ActiveSite
from gemma_scope.surgery.edits import edit as edit
from gemma_scope.surgery.select import offset as offset
from gemma_scope.surgery.select import replace as replace
from gemma_scope.surgery.select import stop_after as stop_after
from gemma_scope.surgery.select import tap as tap
from gemma_scope.surgery.select import wrap_sites as wrap_sites
