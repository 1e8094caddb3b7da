"""Checkpoints of Gemma 3: what exists, where it lies, how it is read.

`open_checkpoint` takes a name or a path and gives canonical tensors that are
read on demand; `write_hugging_face` and `write_orbax` give them back.
"""

from gemma_scope.weights.catalog import CATALOG as CATALOG
from gemma_scope.weights.catalog import Entry as Entry
from gemma_scope.weights.catalog import lookup as lookup
from gemma_scope.weights.checkpoint import Checkpoint as Checkpoint
from gemma_scope.weights.checkpoint import LazyTensor as LazyTensor
from gemma_scope.weights.checkpoint import Sizes as Sizes
from gemma_scope.weights.fetch import open_checkpoint as open_checkpoint
from gemma_scope.weights.flax_tree import (
  canonical_to_flax_tree as canonical_to_flax_tree,
)
from gemma_scope.weights.orbax_writer import write_orbax as write_orbax
from gemma_scope.weights.safetensors_writer import (
  hugging_face_config as hugging_face_config,
)
from gemma_scope.weights.safetensors_writer import (
  write_hugging_face as write_hugging_face,
)
