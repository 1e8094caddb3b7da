"""Attention patterns of chosen layers, with the tokens they connect.

Where a head looks is not by itself what it moves or why; the values and the
rest of the model decide that.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.run import capture
from gemma_scope.activations.tokens import Input
from gemma_scope.display import matrix_html
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

_NAMES = (axes.BATCH, axes.HEADS, axes.SEQ, axes.KV_SEQ)


@dataclasses.dataclass(frozen=True, repr=False)
class Attention:
  """Patterns of some layers.

  Attributes:
    patterns: {layer, batch, heads, seq, kv_seq}, float32; rows sum to 1.
    layers: [layer] which layers these are.
    pieces: [batch][seq] text of the tokens.
  """

  patterns: pz.nx.NamedArray
  layers: tuple[int, ...]
  pieces: tuple[tuple[str, ...], ...]

  def head(self, layer: int, head: int, row: int = 0) -> np.ndarray:
    """[seq, kv_seq] the pattern of one head of one prompt."""
    data = self.patterns.unwrap(axes.LAYER, *_NAMES)
    return np.asarray(data[self.layers.index(layer), row, head])

  def __repr__(self) -> str:
    return f"Attention(layers {self.layers}, {dict(self.patterns.named_axes)})"

  def _repr_html_(self) -> str:
    heads = self.patterns.named_axes[axes.HEADS]
    tokens = self.pieces[0]
    whole = slice(0, len(tokens))
    return "".join(
      matrix_html(
        self.head(layer, head)[whole, whole],
        tokens,
        tokens,
        title=f"pattern[{layer}], head {head}",
      )
      for layer in self.layers
      for head in range(heads)
    )


def attention_patterns(
  lm: LanguageModel, given: Input, layers: Iterable[int]
) -> Attention:
  """The attention patterns of some layers.

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    layers: Layer indices.

  Raises:
    SiteError: If a layer does not exist.
  """
  chosen = tuple(layers)
  acts = capture(lm, given, [f"pattern[{layer}]" for layer in chosen])
  count = lm.config.num_layers
  sites = [Site("pattern", layer % count) for layer in chosen]
  data = np.stack([np.asarray(acts[s].unwrap(*_NAMES)) for s in sites])
  batch = acts.tokens
  return Attention(
    pz.nx.wrap(data, axes.LAYER, *_NAMES),
    tuple(layer % count for layer in chosen),
    batch.pieces(lm.tokenizer),
  )
