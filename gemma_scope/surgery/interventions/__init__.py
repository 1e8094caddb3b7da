"""Interventions: values that say what changes, where, and at which tokens."""

from gemma_scope.surgery.interventions.constants import ablate as ablate
from gemma_scope.surgery.interventions.constants import add as add
from gemma_scope.surgery.interventions.constants import clamp as clamp
from gemma_scope.surgery.interventions.constants import scale as scale
from gemma_scope.surgery.interventions.constants import set_to as set_to
from gemma_scope.surgery.interventions.directions import (
  project_onto as project_onto,
)
from gemma_scope.surgery.interventions.directions import (
  project_out as project_out,
)
from gemma_scope.surgery.interventions.directions import steer as steer
from gemma_scope.surgery.interventions.protocol import (
  Intervention as Intervention,
)
from gemma_scope.surgery.interventions.runs import freeze_norms as freeze_norms
from gemma_scope.surgery.interventions.runs import (
  freeze_pattern as freeze_pattern,
)
from gemma_scope.surgery.interventions.runs import frozen_norms as frozen_norms
from gemma_scope.surgery.interventions.runs import patch as patch
from gemma_scope.surgery.interventions.runs import resample as resample
