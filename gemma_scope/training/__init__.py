"""Training of sparse dictionaries, from activations to folders.

    config = gs.training.preset("gemma_scope_2", ["resid_post[9]"], steps=9000)
    trained = gs.training.train(config, source, "runs/first")

`source` is a `RowSource`: `activations.shuffle_buffer.ModelRows` or
`activations.store.StoreRows`.
"""

from gemma_scope.training.config import Group as Group
from gemma_scope.training.config import Member as Member
from gemma_scope.training.config import TrainConfig as TrainConfig
from gemma_scope.training.end_to_end import EndToEnd as EndToEnd
from gemma_scope.training.end_to_end import finetune as finetune
from gemma_scope.training.finishing import finish as finish
from gemma_scope.training.loop import Trained as Trained
from gemma_scope.training.loop import train as train
from gemma_scope.training.metrics import DivergedError as DivergedError
from gemma_scope.training.metrics import Report as Report
from gemma_scope.training.options import Architecture as Architecture
from gemma_scope.training.options import Optimiser as Optimiser
from gemma_scope.training.options import Revival as Revival
from gemma_scope.training.options import Sparsity as Sparsity
from gemma_scope.training.presets import RECIPES as RECIPES
from gemma_scope.training.presets import Ends as Ends
from gemma_scope.training.presets import Recipe as Recipe
from gemma_scope.training.presets import Sweep as Sweep
from gemma_scope.training.presets import group_of as group_of
from gemma_scope.training.presets import preset as preset
from gemma_scope.training.presets import starter as starter
from gemma_scope.training.scaling import measure as measure
from gemma_scope.training.state import TrainState as TrainState
from gemma_scope.training.state import begin as begin
from gemma_scope.training.step import make_step as make_step
