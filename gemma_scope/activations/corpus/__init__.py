"""Documents to packed batches of tokens.

    corpus = Corpus.open("texts/")                # or of(["A text.", …])
    corpus = corpus_to_tokens(corpus, lm.tokenizer, "tokens/")  # once
    for batch in TokenPipeline(corpus, lm.tokenizer, PackingOptions()):
      values, counted = harvest(batch)

The names below are imported when they are first used: a harvest needs the
batches only, and not what reads files.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from gemma_scope.activations.corpus.corpus import Corpus as Corpus
  from gemma_scope.activations.corpus.options import (
    CHAT_PREFIX as CHAT_PREFIX,
  )
  from gemma_scope.activations.corpus.options import (
    PackingOptions as PackingOptions,
  )
  from gemma_scope.activations.corpus.packed_batch import (
    PackedBatch as PackedBatch,
  )
  from gemma_scope.activations.corpus.packing import pack as pack
  from gemma_scope.activations.corpus.pipeline import (
    TokenPipeline as TokenPipeline,
  )
  from gemma_scope.activations.corpus.token_writer import (
    corpus_to_tokens as corpus_to_tokens,
  )

_HOMES = {
  "CHAT_PREFIX": "options",
  "Corpus": "corpus",
  "PackedBatch": "packed_batch",
  "PackingOptions": "options",
  "TokenPipeline": "pipeline",
  "corpus_to_tokens": "token_writer",
  "pack": "packing",
}


def __getattr__(name: str) -> Any:
  """Imports a public name when it is first used."""
  if name in _HOMES:
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  """The public names."""
  return sorted(_HOMES)
