"""Whether a value depends on the attributed input, and in which way.

    inactive   it does not
    active     it does
    frozen     only through a factor that a rule holds constant

Origins tell a function that multiplies its own input (GELU: x * share(x)) from
one that gates something else: elementwise operations keep the origin of their
input, everything else starts a new one.
"""

import dataclasses
import enum
from typing import Any


class Activity(enum.IntEnum):
  """How a value depends on the attributed input."""

  INACTIVE = 0
  FROZEN = 1
  ACTIVE = 2


@dataclasses.dataclass(frozen=True)
class Node:
  """A value with its activity.

  Attributes:
    value: The array or tracer.
    activity: How it depends on the attributed input.
    origin: What it is an elementwise function of; None where inactive.
    own: For a frozen factor, the only origin it may multiply; None for any.
    source: For a frozen factor, what froze it, for errors.
  """

  value: Any
  activity: Activity = Activity.INACTIVE
  origin: object = None
  own: object = None
  source: str = ""

  @property
  def active(self) -> bool:
    """Whether relevance flows through it."""
    return self.activity is Activity.ACTIVE

  @property
  def frozen(self) -> bool:
    """Whether it depends on the input through a constant factor only."""
    return self.activity is Activity.FROZEN


def inactive(value: Any) -> Node:
  """A value that does not depend on the input."""
  return Node(value)


def fresh(value: Any) -> Node:
  """An active value that starts an origin of its own."""
  return Node(value, Activity.ACTIVE, origin=object())
