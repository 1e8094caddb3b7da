"""Which token positions an edit acts on, decided inside the model.

Positions count from the first token of each sequence, so they mean the same
tokens with padding, in packed rows and with a cache of earlier tokens. Negative
ones count from the end of the prompt, which stays where it is while the model
writes: `-1` is the prompt's last token, `slice(-1, None)` that and everything
generated. Nothing here is state: each pass tells its layers where they are.
"""

from collections.abc import Sequence
import dataclasses
import operator

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int
import numpy as np
from penzai import pz

from gemma_scope.errors import ConfigError
from gemma_scope.model.placement import Placement, Tokens

BOS = 2  # Gemma's <bos>


@pz.pytree_dataclass
class Positions(pz.Struct):
  """A choice of tokens; `&`, `|` and `~` combine them."""

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True at the tokens chosen."""
    raise NotImplementedError

  def missing(self, prompts: Sequence[np.ndarray], new: int) -> str | None:
    """What of the choice no token can match, or None.

    Args:
      prompts: Token ids of every sequence.
      new: How many tokens may be generated behind each.
    """
    del prompts, new
    return None

  def __and__(self, other: "Positions") -> "Positions":
    return Both(self, other)

  def __or__(self, other: "Positions") -> "Positions":
    return Either(self, other)

  def __invert__(self) -> "Positions":
    return Not(self)


@pz.pytree_dataclass
class At(Positions):
  """Single positions.

  Attributes:
    index: Positions, [1, n] for all sequences or [batch, n] for each row;
      negative from the prompt's end.
  """

  index: Int[Array, "rows n"]

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True at each of the positions."""
    here, tokens = known(placement)
    index = jnp.asarray(self.index)[:, None, :]
    ends = tokens.prompts[:, :, None]
    index = jnp.where(index < 0, ends + index, index)
    return (here[:, :, None] == index).any(axis=-1)

  def missing(self, prompts: Sequence[np.ndarray], new: int) -> str | None:
    """The first sequence that lacks one of the positions."""
    index = np.asarray(self.index)
    rows = np.broadcast_to(
      index, (max(len(prompts), len(index)), *index.shape[1:])
    )
    if len(rows) != len(prompts):
      return f"positions of {len(rows)} rows, {len(prompts)} prompts"
    for row, ids in zip(rows, prompts):
      length = len(ids)
      outside = row[(row < -length) | (row >= length + new)]
      if outside.size:
        more = f" and {new} new ones" if new else ""
        return f"position {outside[0]}, a prompt of {length} tokens{more}"
    return None


@pz.pytree_dataclass
class Span(Positions):
  """A slice of positions; negative bounds count from the prompt's end.

  Attributes:
    start: First position; None from the first token.
    stop: Position behind the last; None through everything generated.
    step: Distance between them.
  """

  start: int | None = dataclasses.field(metadata={"pytree_node": False})
  stop: int | None = dataclasses.field(metadata={"pytree_node": False})
  step: int = dataclasses.field(metadata={"pytree_node": False})

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True from start to stop."""
    here, tokens = known(placement)
    ends = tokens.prompts
    start = _bound(self.start or 0, ends)
    chosen = (here >= start) & ((here - start) % self.step == 0)
    if self.stop is None:
      return chosen
    return chosen & (here < _bound(self.stop, ends))

  def missing(self, prompts: Sequence[np.ndarray], new: int) -> str | None:
    """The first sequence in which the slice holds nothing."""
    for ids in prompts:
      start, stop, _ = slice(self.start, self.stop).indices(len(ids))
      if self.stop is None or self.stop >= 0:
        stop = len(ids) + new if self.stop is None else self.stop
      if (self.start or 0) >= 0:
        start = self.start or 0
      if start >= min(stop, len(ids) + new):
        text = f"{_shown(self.start)}:{_shown(self.stop)}"
        return f"positions {text}, a prompt of {len(ids)} tokens"
    return None


@pz.pytree_dataclass
class Occurrence(Positions):
  """The n-th time a token appears in its sequence, or every time.

  Attributes:
    token: Token id.
    ordinal: Which one, from 0; None for all.
  """

  token: Int[Array, ""]
  ordinal: Int[Array, ""] | None

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True where the token stands for that time."""
    _, tokens = known(placement)
    found = tokens.ids == self.token
    if self.ordinal is None:
      return found
    return found & (tokens.ordinals == self.ordinal)

  def missing(self, prompts: Sequence[np.ndarray], new: int) -> str | None:
    """That no sequence holds the token so often, and none can come to."""
    needed = 1 if self.ordinal is None else int(self.ordinal) + 1
    most = max(int((ids == int(self.token)).sum()) for ids in prompts)
    if new or most >= needed:
      return None
    return f"occurrence {needed - 1} of token {int(self.token)}, found {most}"


@pz.pytree_dataclass
class Generated(Positions):
  """The tokens that the model wrote."""

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True behind the prompt."""
    here, tokens = known(placement)
    return here >= tokens.prompts


@pz.pytree_dataclass
class Both(Positions):
  """What two choices have in common."""

  left: Positions
  right: Positions

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True where both are."""
    return self.left.mask(placement) & self.right.mask(placement)

  def missing(self, prompts: Sequence[np.ndarray], new: int) -> str | None:
    """What either lacks."""
    first = self.left.missing(prompts, new)
    return first or self.right.missing(prompts, new)


@pz.pytree_dataclass
class Either(Positions):
  """The union of two choices."""

  left: Positions
  right: Positions

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True where one is."""
    return self.left.mask(placement) | self.right.mask(placement)

  def missing(self, prompts: Sequence[np.ndarray], new: int) -> str | None:
    """What either lacks."""
    first = self.left.missing(prompts, new)
    return first or self.right.missing(prompts, new)


@pz.pytree_dataclass
class Not(Positions):
  """All tokens but those chosen."""

  inner: Positions

  def mask(self, placement: Placement | None) -> Bool[Array, "batch seq"]:
    """True where the choice is not."""
    return ~self.inner.mask(placement)


Choice = int | slice | Sequence[int] | Positions


def positions_of(given: Choice) -> Positions:
  """A choice of positions from an index, a slice or several indices.

  Raises:
    ConfigError: If it is none.
  """
  if isinstance(given, Positions):
    return given
  if isinstance(given, slice):
    step = 1 if given.step is None else given.step
    if isinstance(step, int) and step >= 1:
      return Span(given.start, given.stop, step)
  elif np.ndim(given) <= 1 and not isinstance(given, str | bool):
    index = np.asarray(given)
    if index.size and np.issubdtype(index.dtype, np.integer):
      return At(jnp.asarray(index.reshape(1, -1), jnp.int32))
  raise ConfigError(
    "This chooses no token positions.",
    received=f"positions={given!r}",
    instead="an index, a list of them, a slice with a step from 1, "
    "all_but_bos(), occurrence(token, n), generated(), or these with & | ~",
  )


def in_each_row(index: Sequence[int]) -> Positions:
  """One position for each row of a batch, in order; negative from the end."""
  return At(jnp.asarray(index, jnp.int32).reshape(-1, 1))


def occurrence(token: int, n: int | None = 0) -> Positions:
  """The n-th time, from 0, that a token appears; None for every time.

  Args:
    token: Token id, such as `lm.tokenizer.encode(" Mary", bos=False)[0]`.
    n: Which one.

  Raises:
    ConfigError: If they are no whole numbers from 0.
  """
  try:
    found = operator.index(token), None if n is None else operator.index(n)
  except TypeError:
    found = -1, None
  if found[0] < 0 or (found[1] or 0) < 0:
    raise ConfigError(
      "Occurrences of a token are counted from its first, by its id.",
      received=f"occurrence({token!r}, {n!r})",
      instead="occurrence(lm.tokenizer.encode(' Mary', bos=False)[0], 0)",
    )
  ordinal = None if found[1] is None else jnp.asarray(found[1], jnp.int32)
  return Occurrence(jnp.asarray(found[0], jnp.int32), ordinal)


def all_but_bos() -> Positions:
  """Every token except <bos>."""
  return Not(occurrence(BOS, None))


def generated() -> Positions:
  """The tokens that the model wrote, not those of the prompt.

  The first new token is chosen at the prompt's last position: to change that
  one too, use `slice(-1, None)`.
  """
  return Generated()


def known(
  placement: Placement | None,
) -> tuple[Int[Array, "batch seq"], Tokens]:
  """The positions of a pass, and what stands there.

  Raises:
    ConfigError: If the pass was not told its tokens.
  """
  if placement is None or placement.tokens is None:
    raise ConfigError(
      "An edit chooses tokens in a pass that was not told which they are.",
      received="a placement without tokens",
      instead="gemma.place(model, ids, segment_ids) for the placement",
    )
  return placement.places.positions, placement.tokens


def _bound(
  bound: int, ends: Int[Array, "batch seq"]
) -> Int[Array, "batch seq"]:
  if bound >= 0:
    return jnp.full_like(ends, bound)
  return jnp.maximum(ends + bound, 0)


def _shown(bound: int | None) -> str:
  return "" if bound is None else str(bound)
