"""Activations: of prompts, of texts for training, and on the disk.

    batches = corpus.TokenPipeline(corpus.Corpus.open("texts/"), lm.tokenizer)
    rows = ModelRows(Harvest(lm, ["resid_post[:]"]), batches)  # training's food

The names below are imported when they are first used. `gs.capture` and
`gs.generate` are for prompts; `corpus` reads text, `store` keeps activations.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from gemma_scope.activations import corpus as corpus
  from gemma_scope.activations import store as store
  from gemma_scope.activations.harvest import Harvest as Harvest
  from gemma_scope.activations.rows import Rows as Rows
  from gemma_scope.activations.rows import RowSource as RowSource
  from gemma_scope.activations.shuffle_buffer import ModelRows as ModelRows

_HOMES = {
  "Harvest": "harvest",
  "ModelRows": "shuffle_buffer",
  "RowSource": "rows",
  "Rows": "rows",
}
_PACKAGES = ("corpus", "store")


def __getattr__(name: str) -> Any:
  """Imports a public name when it is first used."""
  if name in _PACKAGES:
    return importlib.import_module(f"{__name__}.{name}")
  if name in _HOMES:
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  """The public names."""
  return sorted((*_HOMES, *_PACKAGES))
