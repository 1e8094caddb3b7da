"""Logit lens: what the model would predict if it stopped at a site.

    lens(x) = softmax(W_E final_norm(x))

Source: nostalgebraist 2020, "interpreting GPT: the logit lens". Early layers
need not speak the language of the unembedding; a tuned lens is not this.
"""

from collections.abc import Iterable
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gemma_scope import axes
from gemma_scope.activations.run import Capture, capture, columns_at
from gemma_scope.activations.tokens import Input
from gemma_scope.display import table_html
from gemma_scope.errors import SiteError
from gemma_scope.model.gemma import Gemma, token_logits
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.norms import rms_norm
from gemma_scope.model.site_layer import without_scopes
from gemma_scope.sites import Site, resolve

# The residual stream and what is added to it; `_in` sites are already normed.
STREAM = (
  *("embed", "resid_pre", "resid_mid", "resid_post"),
  *("attn_write", "mlp_write"),
)
ROWS_AT_ONCE = 64  # their logits take 67 MB; a loop on the host, because
# XLA runs the body of a compiled loop on one core of a CPU


@dataclasses.dataclass(frozen=True, repr=False)
class Lens:
  """The most probable next token at every site and position.

  Attributes:
    sites: [rows] the sites read, in forward order.
    positions: [columns] the columns of the prompts.
    top_ids: [rows, batch, columns] most probable token.
    top_probs: [rows, batch, columns] its probability.
    target_id: The token followed through the layers.
    target_probs: [rows, batch, columns] its probability.
    target_ranks: [rows, batch, columns] how many tokens beat it.
    top_texts: [rows][batch][columns] text of `top_ids`.
    pieces: [batch][seq] text of the prompts' tokens.
  """

  sites: tuple[Site, ...]
  positions: tuple[int, ...]
  top_ids: np.ndarray
  top_probs: np.ndarray
  target_id: int
  target_probs: np.ndarray
  target_ranks: np.ndarray
  top_texts: list[list[list[str]]]
  pieces: tuple[tuple[str, ...], ...]

  def at(
    self, position: int = -1, row: int = 0
  ) -> list[tuple[str, str, float]]:
    """(site, most probable token, its probability) down one column."""
    column = range(len(self.positions))[position]
    return [
      (
        str(site),
        self.top_texts[i][row][column],
        float(self.top_probs[i, row, column]),
      )
      for i, site in enumerate(self.sites)
    ]

  def __repr__(self) -> str:
    return f"Lens({len(self.sites)} sites x {len(self.positions)} positions)"

  def _repr_html_(self) -> str:
    return "".join(
      table_html(
        ["site", *(_head(self.pieces[b], p) for p in self.positions)],
        [
          (str(site), *texts[b])
          for site, texts in zip(self.sites, self.top_texts)
        ],
        title="Logit lens: the most probable next token after each site",
      )
      for b in range(self.top_probs.shape[1])
    )


def logit_lens(
  lm: LanguageModel,
  given: Input,
  *,
  sites: Iterable[Site | str] = ("resid_post[:]",),
  target: str | int | None = None,
  positions: int | slice | None = None,
) -> Lens:
  """Reads sites of the residual stream through the final norm and unembedding.

  Args:
    lm: The model.
    given: Text, texts, or token ids.
    sites: Sites with the width of the residual stream.
    target: Token to follow through the layers; by default the one predicted
      at the end of the first prompt.
    positions: Columns to read, an index or a slice; all by default.
  """
  wanted = stream_sites(sites, lm.config.num_layers)
  acts = capture(lm, given, (*wanted, "resid_post[-1]"))
  columns = columns_at(positions, acts.tokens.width)
  target_id = None if target is None else lm.tokenizer.token_id(target)
  return read_lens(lm, acts, wanted, tuple(columns.tolist()), target_id)


def _head(pieces: tuple[str, ...], position: int) -> str:
  """The heading of a column: the token there."""
  return pieces[position] if position < len(pieces) else "padding"


def stream_sites(
  specs: Iterable[Site | str], num_layers: int
) -> tuple[Site, ...]:
  """The sites that `specs` mean, checked to be vectors of the residual stream.

  Raises:
    SiteError: If one of them is not.
  """
  sites = resolve(specs, num_layers)
  for site in sites:
    if site.name not in STREAM:
      raise SiteError(
        "The lens norms and unembeds vectors of the residual stream only.",
        received=f"{site} with axes {', '.join(site.info.axes)}",
        instead="resid_pre, resid_mid, resid_post, or a *_write site",
      )
  return sites


def read_lens(
  lm: LanguageModel,
  acts: Capture,
  sites: tuple[Site, ...],
  positions: tuple[int, ...],
  target_id: int | None,
) -> Lens:
  """The lens on activations that are already there."""
  names = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
  index = np.asarray(positions)
  stack = jnp.stack([acts[s].unwrap(*names)[:, index] for s in sites])
  rows = stack.reshape(-1, stack.shape[-1])
  if target_id is None:
    target_id = _predicted(lm, acts)
  out = _read_all(lm.model, rows, target_id)
  top, top_probs, probs, ranks = (a.reshape(stack.shape[:-1]) for a in out)
  texts = [[lm.tokenizer.pieces(row) for row in layer] for layer in top]
  return Lens(
    sites,
    positions,
    top,
    top_probs,
    target_id,
    probs,
    ranks,
    texts,
    acts.tokens.pieces(lm.tokenizer),
  )


def _read_all(
  model: Gemma, rows: jax.Array, target_id: int
) -> list[np.ndarray]:
  """`read_rows` on any number of rows, `ROWS_AT_ONCE` at a time."""
  padded = jnp.pad(rows, ((0, -len(rows) % ROWS_AT_ONCE), (0, 0)))
  parts = [
    read_rows(model, padded[i : i + ROWS_AT_ONCE], jnp.asarray(target_id))
    for i in range(0, len(padded), ROWS_AT_ONCE)
  ]
  return [np.concatenate(part)[: len(rows)] for part in zip(*parts)]


@jax.jit
def read_rows(
  model: Gemma, rows: Float[Array, "rows embedding"], target: Int[Array, ""]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Top token, its probability, the target's probability and rank, by row."""
  norm = without_scopes(model.final_norm)
  normed = rms_norm(rows, norm.scale.data_array, norm.eps)
  logits = token_logits(normed, model.table.data_array)
  total = jax.nn.logsumexp(logits, axis=-1)
  top, wanted = jnp.argmax(logits, axis=-1), logits[:, target]
  best = jnp.max(logits, axis=-1)
  return (
    top,
    jnp.exp(best - total),
    jnp.exp(wanted - total),
    jnp.sum(logits > wanted[:, None], axis=-1),
  )


def _predicted(lm: LanguageModel, acts: Capture) -> int:
  """The token predicted at the end of the first row."""
  last = Site("resid_post", lm.config.num_layers - 1)
  end = int(acts.tokens.lengths[0]) - 1
  names = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
  row = acts[last].unwrap(*names)[0, end][None]
  return int(_read_all(lm.model, row, 0)[0][0])
