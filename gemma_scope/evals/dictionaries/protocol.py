"""What every metric of a dictionary is: sums over tokens, and what they say.

    seen -> measure -> sums, added up over batches -> finish -> findings

Metrics share one pass over the text. `measure` is called on every batch with
what was seen there; what it returns is added up by `evaluate`, rows apart, so
that intervals can resample rows. All arrays are plain, with the sites of the
dictionary in front, also where there is only one.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float
import numpy as np

from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.evals.dictionaries.ratio import Ratio
from gemma_scope.evals.dictionaries.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
  """One dictionary on one batch.

  Attributes:
    dictionary: The dictionary.
    x: What it read.
    target: What it was to rebuild.
    latents: Its latents; one entry in front where all sites share them.
    rebuilt: What it made of them.
    counted: Which tokens count: no BOS, padding or EOS.
    run: The forward pass that this is from.
  """

  dictionary: Dictionary
  x: Float[Array, "sites rows seq d_in"]
  target: Float[Array, "sites rows seq d_out"]
  latents: Float[Array, "parts rows seq latents"]
  rebuilt: Float[Array, "sites rows seq d_out"]
  counted: Bool[Array, "rows seq"]
  run: Run


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
  """What a metric keeps of a batch.

  Attributes:
    rows: Arrays [rows, ...]: sums over the tokens of each row.
    totals: Arrays to be added up over all batches, rows and all.
  """

  rows: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  totals: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
  """What a metric says in the end.

  Attributes:
    ratios: Numbers that have an interval over rows.
    values: Numbers that have none.
    curves: Name -> place on its axis -> number with an interval.
    arrays: Anything else worth keeping, such as frequencies.
  """

  ratios: Mapping[str, Ratio] = dataclasses.field(default_factory=dict)
  values: Mapping[str, float] = dataclasses.field(default_factory=dict)
  curves: Mapping[str, Mapping[int, Ratio]] = dataclasses.field(
    default_factory=dict
  )
  arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
  """One thing to know of a dictionary; a small frozen dataclass."""

  @property
  def name(self) -> str:
    """What it is called."""
    ...

  @property
  def losses(self) -> bool:
    """Whether it asks the run for losses, which takes whole forward passes."""
    ...

  @property
  def most_tokens(self) -> int | None:
    """Enough tokens for it; None for as many as there are."""
    ...

  def measure(self, seen: Seen, /) -> Sums:
    """What to keep of one batch; only tokens that count may enter."""
    ...

  def finish(self, dictionary: Dictionary, sums: Sums, /) -> Findings:
    """What all batches together say.

    Args:
      dictionary: The dictionary.
      sums: NumPy arrays: `rows` of all rows, `totals` added up.
    """
    ...
