"""How well a dictionary rebuilds vectors, and with how many latents.

    FVU = sum |y - y'|^2 / sum |y - mean(y)|^2   (variance unexplained)
    L0  = mean number of active latents a token

FVU is 0 for a perfect dictionary and 1 for the mean of the vectors. Of several
sites the sums run over all of them, each about its own mean.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from gemma_scope.dictionaries.protocol import Dictionary

_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Quality:
  """What was measured.

  Attributes:
    fvu: Fraction of variance unexplained.
    l0: Mean number of active latents a token, all layers together.
    tokens: How many tokens were used.
  """

  fvu: float
  l0: float
  tokens: int


def quality(dictionary: Dictionary, x: Any, target: Any) -> Quality:
  """Measures a dictionary on vectors, in batches, sums in float64.

  Args:
    dictionary: Any.
    x: What it reads: plain [tokens, d], or [layer, tokens, d].
    target: What it is to rebuild, of the same form.
  """
  x, target = np.asarray(x), np.asarray(target, np.float64)
  axis = x.ndim - 2
  tokens = x.shape[axis]
  mean = target.mean(axis=axis, keepdims=True)
  total = float(np.square(target - mean).sum())
  missed, active = 0.0, 0
  for start in range(0, tokens, _ROWS):
    at = (slice(None),) * axis + (slice(start, start + _ROWS),)
    latents = dictionary.encode(x[at])
    rebuilt = np.asarray(dictionary.rebuild(latents, x[at]), np.float64)
    missed += float(np.square(target[at] - rebuilt).sum())
    active += int(np.count_nonzero(np.asarray(latents)))
  fvu = missed / total if total > 0 else math.inf
  return Quality(fvu, active / max(tokens, 1), tokens)
