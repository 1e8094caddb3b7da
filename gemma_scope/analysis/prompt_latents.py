"""Which latents of a dictionary are active in one prompt, and what they did.

With x the vectors of a site, f latents, d their decoder rows and g the
derivative of the target at x (under whatever rules the relevance is of):

    x = sum_j f_j d_j + b + error,    R_j = f_j (g . d_j),    R(x) = x . g

so the relevance of a token at a site is that of its latents, of the bias (what
all tokens have in common), and of the error. It is what
`attribute(lm.replace(splice(model, sae)), …, at=[sae.site.latents])` gives.
Source: Marks et al. 2024, "Sparse Feature Circuits", section 2. Plain values of
numpy arrays, like `explanation`.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from gemma_scope import axes
from gemma_scope.errors import ConfigError

NOTHING = -1
_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class ActiveLatents:
  """The latents of one dictionary on one prompt.

  Attributes:
    dictionary: Its name, such as "starter/resid_post/layer_9".
    site: The address of what it reads, such as "resid_post[9]".
    indices: [seq, shown] int32 latents shown at each token, the most active
      first; `NOTHING` where there are no more.
    activations: [seq, shown] float32.
    relevance: [seq, shown] float32 in the target's units, or None.
    counts: [seq] how many latents are active, shown or not.
    counted: [seq] which tokens count; the others have no latents here.
    totals: [seq] relevance of the site at each token, or None.
    explained: [seq] the part of it that all latents have together, or None.
    bias: [seq] the part of the dictionary's bias, or None.
    fvu: Fraction of variance that it leaves unexplained on the tokens that
      count; NaN where these are fewer than two.
    l0: Active latents a token, on these tokens.
    held_out: What its card says of other text: "fvu", "l0", …
  """

  dictionary: str
  site: str
  indices: np.ndarray
  activations: np.ndarray
  relevance: np.ndarray | None
  counts: np.ndarray
  counted: np.ndarray
  totals: np.ndarray | None
  explained: np.ndarray | None
  bias: np.ndarray | None
  fvu: float
  l0: float
  held_out: Mapping[str, Any]

  def ranked(self, count: int) -> list[tuple[int, int, float, float]]:
    """(latent, token, activation, relevance), the largest relevance first.

    Without relevance the largest activations, with NaN in its place.

    Args:
      count: How many at most.
    """
    told = self.relevance is not None
    relevance = self.relevance if told else np.full_like(self.activations, 0)
    assert relevance is not None
    size = np.abs(relevance) if told else self.activations
    size = np.where(self.indices == NOTHING, -1, size)
    order = np.argsort(-size, axis=None, kind="stable")[:count]
    places = [np.unravel_index(i, size.shape) for i in order]
    return [
      (
        int(self.indices[p]),
        int(p[0]),
        float(self.activations[p]),
        float(relevance[p]) if told else float("nan"),
      )
      for p in places
      if size[p] >= 0
    ]


def active_latents(
  dictionary: Any,
  x: np.ndarray,
  relevance: np.ndarray | None,
  counted: np.ndarray,
  *,
  shown: int = 12,
  held_out: Mapping[str, Any] | None = None,
) -> ActiveLatents:
  """Encodes one prompt with an SAE and splits relevance among its latents.

  Args:
    dictionary: An SAE.
    x: [seq, d] the values of its site.
    relevance: [seq, d] value x derivative there, element by element, or None.
    counted: [seq] which tokens count: dictionaries are not trained on the
      others, whose latents would mean nothing and are left out.
    shown: How many latents of each token to keep: half of them the most
      active, half those of largest relevance.
    held_out: What is known of its quality on other text.

  Raises:
    ConfigError: It rebuilds another site than it reads.
  """
  if dictionary.sites_in != dictionary.sites_out:
    raise ConfigError(
      "Only what is rebuilt where it is read splits into latents.",
      received=str(dictionary.about),
      instead="an SAE of one site; `mlp_parts` splits by transcoders",
    )
  x = np.asarray(x, np.float32)
  latents = np.asarray(dictionary.encode(x))
  rebuilt = np.asarray(dictionary.rebuild(latents, x))
  latents = np.where(counted[:, None], latents, 0)
  scores, totals, bias = None, None, None
  if relevance is not None:
    rows = plain(dictionary.w_dec, axes.LATENTS, axes.OUTPUT)
    slopes = _slopes(relevance, x)
    scores = latents * (slopes @ rows.T)
    bias = slopes @ plain(dictionary.b_dec, axes.OUTPUT)
    totals = relevance.sum(axis=1, dtype=np.float64)
  indices = _chosen(latents, scores, shown)
  there = indices != NOTHING
  return ActiveLatents(
    dictionary=dictionary.about.name,
    site=str(dictionary.sites_in[0]),
    indices=indices,
    activations=_taken(latents, indices, there),
    relevance=None if scores is None else _taken(scores, indices, there),
    counts=(latents > 0).sum(axis=1),
    counted=counted,
    totals=totals,
    explained=None if scores is None else scores.sum(axis=1, dtype=np.float64),
    bias=bias,
    fvu=_fvu(x[counted], rebuilt[counted]),
    l0=float((latents[counted] > 0).sum(1).mean()) if counted.any() else 0.0,
    held_out=dict(held_out or {}),
  )


def _slopes(relevance: np.ndarray, x: np.ndarray) -> np.ndarray:
  """The derivative, from its product with the value.

  Multiplying and dividing costs two roundings; only where a value is zero is
  the derivative lost.
  """
  safe = np.where(np.abs(x) > _TINY, x, 1)
  return np.where(np.abs(x) > _TINY, relevance / safe, 0)


def _chosen(
  latents: np.ndarray, scores: np.ndarray | None, shown: int
) -> np.ndarray:
  """[seq, shown] the latents to show at each token, most active first."""
  shown = min(shown, latents.shape[1])
  half = shown if scores is None else (shown + 1) // 2
  by_size = np.argsort(-latents, axis=1, kind="stable")
  first = by_size[:, :half]
  if scores is not None:
    size = np.abs(scores).copy()
    np.put_along_axis(size, first, np.inf, axis=1)
    first = np.argsort(-size, axis=1, kind="stable")[:, :shown]
  values = np.take_along_axis(latents, first, axis=1)
  order = np.argsort(-values, axis=1, kind="stable")
  first = np.take_along_axis(first, order, axis=1)
  values = np.take_along_axis(values, order, axis=1)
  return np.where(values > 0, first, NOTHING).astype(np.int32)


def _taken(
  values: np.ndarray, indices: np.ndarray, there: np.ndarray
) -> np.ndarray:
  found = np.take_along_axis(values, np.maximum(indices, 0), axis=1)
  return np.where(there, found, 0).astype(np.float32)


def _fvu(x: np.ndarray, rebuilt: np.ndarray) -> float:
  """Variance left, about the mean of these very tokens; NaN below two."""
  x, rebuilt = x.astype(np.float64), rebuilt.astype(np.float64)
  total = np.square(x - x.mean(axis=0)).sum() if len(x) > 1 else 0.0
  return float(np.square(x - rebuilt).sum() / total) if total else float("nan")


def plain(array: Any, *names: str) -> np.ndarray:
  """A named array as a positional NumPy one, float32."""
  return np.asarray(array.unwrap(*names), np.float32)
