"""What the feed-forwards write towards a target, split by transcoders.

With v the direction along which the target reads the residual stream (the
final norm's scale held, as in `direct`), and a transcoder's f, d, skip and b:

    mlp_write . v = sum_j f_j (d_j . v) + (x @ skip) . v + b . v + error . v

which is exact. Source: Dunefsky et al. 2024, "Transcoders Find Interpretable
LLM Feature Circuits". Effects through later layers are not counted.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from gemma_scope import axes
from gemma_scope.analysis.prompt_latents import plain


@dataclasses.dataclass(frozen=True)
class MlpParts:
  """What a feed-forward wrote towards the target, split by a transcoder.

  Attributes:
    dictionary: The transcoder's name.
    label: The component, such as "mlp_write[12]".
    total: Its direct contribution, which the parts add up to.
    latents: The part of all latents together.
    skip: That of the affine skip.
    bias: That of the decoder's bias.
    error: What the transcoder does not rebuild.
    active: How many latents are active.
    strongest: (latent, activation, contribution), the largest first.
  """

  dictionary: str
  label: str
  total: float
  latents: float
  skip: float
  bias: float
  error: float
  active: int
  strongest: tuple[tuple[int, float, float], ...]


def mlp_parts(
  transcoder: Any,
  x: np.ndarray,
  written: np.ndarray,
  direction: np.ndarray,
  *,
  count: int = 8,
) -> MlpParts:
  """Splits one feed-forward's direct contribution at one token; exact.

  Args:
    transcoder: Of the feed-forward.
    x: [d] what it reads.
    written: [d] what the feed-forward wrote.
    direction: [d] along which the target reads the residual stream.
    count: How many latents to name.
  """
  latents = np.asarray(transcoder.encode(x[None]))
  rebuilt = np.asarray(transcoder.rebuild(latents, x[None]))[0]
  rows = plain(transcoder.w_dec, axes.LATENTS, axes.OUTPUT)
  direction = np.asarray(direction, np.float64)
  shares = latents[0].astype(np.float64) * (rows @ direction)
  bias = float(plain(transcoder.b_dec, axes.OUTPUT) @ direction)
  whole = float(rebuilt.astype(np.float64) @ direction)
  total = float(written.astype(np.float64) @ direction)
  skipped = 0.0 if transcoder.skip is None else whole - bias - shares.sum()
  rest = total - shares.sum() - skipped - bias
  order = np.argsort(-np.abs(shares), kind="stable")[:count]
  return MlpParts(
    dictionary=transcoder.about.name,
    label=str(transcoder.sites_out[0]),
    total=total,
    latents=float(shares.sum()),
    skip=float(skipped),
    bias=bias,
    error=float(rest),
    active=int((latents > 0).sum()),
    strongest=tuple(
      (int(j), float(latents[0, j]), float(shares[j]))
      for j in order
      if latents[0, j] > 0
    ),
  )


def strongest_parts(
  parts: Sequence[MlpParts], count: int
) -> list[tuple[MlpParts, int, float, float]]:
  """(feed-forward, latent, activation, contribution) of all, largest first."""
  every = [(p, *named) for p in parts for named in p.strongest]
  return sorted(every, key=lambda row: -abs(row[3]))[:count]
