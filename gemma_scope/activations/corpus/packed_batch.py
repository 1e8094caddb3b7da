"""A batch of packed rows: what the token pipeline gives and a harvest takes.

A row holds pieces of documents one after the other; `segment_ids` numbers them
from 1 in each row and is 0 on padding. The model restarts positions and hides
the other pieces by these numbers, so packed pieces have the activations that
they have alone.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from gemma_scope.errors import TextError


@dataclasses.dataclass(frozen=True)
class PackedBatch:
  """Rows of token ids, on the host.

  Attributes:
    ids: [batch, seq] int32 token ids.
    segment_ids: [batch, seq] int32; 0 is padding, other numbers are pieces,
      contiguous in their row.
    counted: [batch, seq] bool; False on padding, BOS, EOS and chat prefixes.
    documents: [batch, seq] int32 index of each token's document in its corpus,
      -1 where there is none; None where that is not known.
    offsets: [batch, seq] int32 place of each token in its document, counted
      from 0; -1 on padding and on what packing puts in front of pieces.
  """

  ids: np.ndarray
  segment_ids: np.ndarray
  counted: np.ndarray
  documents: np.ndarray | None = None
  offsets: np.ndarray | None = None

  def __post_init__(self):
    shapes = {a.shape for a in self.arrays.values()}
    whole = all(np.issubdtype(a.dtype, np.integer) for a in self._numbers)
    if len(shapes) != 1 or self.ids.ndim != 2 or not whole:
      raise TextError(
        "The arrays of a batch are whole numbers of one shape, [batch, seq].",
        received=", ".join(f"{a.dtype}{list(a.shape)}" for a in self._numbers),
        instead="ids and segment_ids int32, counted bool, all [batch, seq]",
      )

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """The arrays that are there, by name."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return {name: a for name, a in fields.items() if a is not None}

  @property
  def _numbers(self) -> list[np.ndarray]:
    return [a for name, a in self.arrays.items() if name != "counted"]

  @property
  def shape(self) -> tuple[int, int]:
    """(batch, seq)."""
    return self.ids.shape[0], self.ids.shape[1]

  @property
  def num_counted(self) -> int:
    """How many tokens count."""
    return int(self.counted.sum())

  @property
  def positions(self) -> np.ndarray:
    """[batch, seq] int32 places counted from the start of each piece."""
    index = np.arange(self.ids.shape[1], dtype=np.int32)
    before = np.pad(self.segment_ids[:, :-1], ((0, 0), (1, 0)))
    starts = np.where(self.segment_ids != before, index[None], 0)
    return index[None] - np.maximum.accumulate(starts, axis=1)

  def __getitem__(self, rows: slice) -> "PackedBatch":
    """Some of the rows."""
    return PackedBatch(**{name: a[rows] for name, a in self.arrays.items()})

  @classmethod
  def empty(cls, shape: tuple[int, int]) -> "PackedBatch":
    """Rows of padding, such as for a host that has run out of text."""
    none = np.full(shape, -1, np.int32)
    zeros = np.zeros(shape, np.int32)
    return cls(zeros, zeros, zeros.astype(bool), none, none)

  @classmethod
  def concatenate(cls, batches: "Sequence[PackedBatch]") -> "PackedBatch":
    """The rows of several batches, in order."""
    names = batches[0].arrays
    return cls(
      **{n: np.concatenate([b.arrays[n] for b in batches]) for n in names}
    )
