"""Whether a value depends on the attributed input, and in which way.

    inactive   it does not
    frozen     only through a factor that a rule holds constant, or through a
               choice (a comparison, an index)
    active     it does

Origins tell a function that multiplies its own input (GELU: x * share(x)) from
one that gates something else: elementwise operations keep the origin of their
input, everything else starts a new one.

A fault is an error that waits. An operation that no rule covers matters only
if its result reaches the function's: behind a held factor, a stop_gradient or
an auxiliary output it does not.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import enum
from typing import Any


class Activity(enum.IntEnum):
  """How a value depends on the attributed input."""

  INACTIVE = 0
  FROZEN = 1
  ACTIVE = 2


@dataclasses.dataclass(frozen=True)
class Source:
  """What froze a value.

  Attributes:
    kind: The kind of operation, as a rule table calls it.
    line: File, line and function that wrote it; "" inside JAX.
    choice: Whether it is a comparison or an index, which no rule can change.
  """

  kind: str
  line: str
  choice: bool = False


@dataclasses.dataclass(frozen=True)
class Fault:
  """Why relevance cannot pass an operation.

  Attributes:
    what: What is wrong, in a sentence.
    kind: The operation.
    line: File, line and function that wrote it; "" inside JAX.
    instead: The remedy.
    before: For an exp that awaits its softmax, the fault of its input.
    awaits: Whether a division by its own sum mends it.
  """

  what: str
  kind: str
  line: str
  instead: str
  before: "Fault | None" = None
  awaits: bool = False


@dataclasses.dataclass(frozen=True)
class Node:
  """A value with its activity.

  Attributes:
    value: The array or tracer.
    activity: How it depends on the attributed input.
    origin: What it is an elementwise function of; None where inactive.
    own: For a frozen factor, the only origin it may multiply; None for any.
    total: For a sum, the origin of what was summed.
    source: For a frozen value, what froze it.
    constant: For an inactive value, the number it is everywhere, if known.
    fault: Why relevance cannot pass it, raised if it reaches the result.
    power: For an exp or its sum in two runs, what it is of (see `paired`).
  """

  value: Any
  activity: Activity = Activity.INACTIVE
  origin: object = None
  own: object = None
  total: object = None
  source: Source | None = None
  constant: float | None = None
  fault: Fault | None = None
  power: Any = None

  @property
  def active(self) -> bool:
    """Whether relevance flows through it."""
    return self.activity is Activity.ACTIVE

  @property
  def frozen(self) -> bool:
    """Whether it depends on the input through what is held constant only."""
    return self.activity is Activity.FROZEN

  def on(self, value: Any) -> "Node":
    """The same activity on another value."""
    return dataclasses.replace(self, value=value, power=None)

  def blamed(self, fault: Fault | None) -> "Node":
    """With a fault, unless it has one; faults of inputs come first."""
    return dataclasses.replace(self, fault=self.fault or fault)

  def located(self, line: str) -> "Node":
    """With the line of a call for what has none inside JAX."""
    source, fault = self.source, self.fault
    if source is not None and not source.line:
      source = dataclasses.replace(source, line=line)
    if fault is not None and not fault.line:
      fault = dataclasses.replace(fault, line=line)
    return dataclasses.replace(self, source=source, fault=fault)


def inactive(value: Any, constant: float | None = None) -> Node:
  """A value that does not depend on the input."""
  return Node(value, constant=constant)


def fresh(value: Any) -> Node:
  """An active value that starts an origin of its own."""
  return Node(value, Activity.ACTIVE, origin=object())


def activated(
  value: Any, operands: Sequence[Node], *, elementwise: bool = False
) -> Node:
  """An active result with its operands' faults.

  Elementwise, it keeps the origin that its active operands share.
  """
  origins = {node.origin for node in operands if node.active}
  kept = elementwise and len(origins) == 1
  return Node(
    value,
    Activity.ACTIVE,
    origin=origins.pop() if kept else object(),
    fault=first_fault(operands),
  )


def merged(
  value: Any, operands: Sequence[Node], *, elementwise: bool = False
) -> Node:
  """A result of frozen operands and inactive ones, at least one frozen.

  It may multiply what all of them may; a factor that may multiply its own
  input only, moved to other places, may multiply nothing.
  """
  frozen = [node for node in operands if node.frozen]
  owners = {node.own for node in frozen if node.own is not None}
  own = owners.pop() if len(owners) == 1 and elementwise else object()
  free = all(node.own is None for node in frozen)
  return Node(
    value,
    Activity.FROZEN,
    own=None if free else own,
    source=frozen[0].source,
    fault=first_fault(frozen),
  )


def first_fault(nodes: Sequence[Node]) -> Fault | None:
  """The first fault among nodes."""
  return next((node.fault for node in nodes if node.fault), None)


def renamed(nodes: Sequence[Node]) -> list[Node]:
  """The same nodes with new origins; equal ones stay equal."""
  names = {origin: object() for origin in _origins(nodes)}
  return [_with_origins(node, names) for node in nodes]


def numbered(nodes: Sequence[Node]) -> tuple[tuple[Node, ...], list[object]]:
  """Nodes without values, whose origins are numbers, and the origins.

  Two operations whose numbered nodes are equal are emitted alike.
  """
  origins = list(_origins(nodes))
  numbers = {origin: i for i, origin in enumerate(origins)}
  return tuple(_with_origins(n.on(None), numbers) for n in nodes), origins


def denumbered(nodes: Sequence[Node], origins: Sequence[object]) -> list[Node]:
  """Puts origins back; those that are no numbers become new ones."""
  names = {origin: object() for origin in _origins(nodes)}
  names |= dict(enumerate(origins))
  return [_with_origins(node, names) for node in nodes]


def _origins(nodes: Sequence[Node]) -> Iterable[object]:
  """All origins that nodes mention, each once, in order."""
  found = [origin for n in nodes for origin in (n.origin, n.own, n.total)]
  return [o for o in dict.fromkeys(found) if o is not None]


def _with_origins(node: Node, names: dict[object, Any]) -> Node:
  origin, own, total = (
    names.get(old) for old in (node.origin, node.own, node.total)
  )
  return dataclasses.replace(node, origin=origin, own=own, total=total)
