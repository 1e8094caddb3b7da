"""What a plan says: memory by kind, products, traffic, messages, time.

The roofline time is the longest of three, each at the published peak: products,
memory traffic, messages. Real programs take longer; how much longer depends on
what they overlap.
"""

import dataclasses
from typing import Any

from gemma_scope.display import table_html
from gemma_scope.planning.costs import Costs
from gemma_scope.planning.machines import Machine

FLOAT32_PASSES = 6  # bfloat16 products that make one of full float32


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one chip.

  Attributes:
    arguments: Weights and inputs.
    outputs: Results, such as captured sites.
    temporaries: Everything between, at its peak.
    code: The program itself.
  """

  arguments: float
  outputs: float
  temporaries: float
  code: float

  @property
  def total(self) -> float:
    """All of it."""
    return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a step needs of a machine; displays itself.

  Attributes:
    title: The step, in words.
    machine: The machine.
    memory: Bytes on one chip by kind; None where it does not fit and the
      compiler tells the sum alone.
    needed: Bytes on one chip.
    costs: What one chip does, or None where it was not asked for.
    ideal_flops: FLOPs of all matrix products, shared evenly by the chips.
    float32: Whether products are of float32.
    loops: Whether `costs` counts bodies of loops once only.
  """

  title: str
  machine: Machine
  memory: Memory | None
  needed: float
  costs: Costs | None
  ideal_flops: float
  float32: bool
  loops: bool

  @property
  def fits(self) -> bool:
    """Whether a chip has the memory."""
    return self.memory is not None and self.needed <= self.machine.chip.memory

  @property
  def efficiency(self) -> float | None:
    """Ideal FLOPs of a chip over those it does; 1 wastes nothing."""
    if self.costs is None or self.loops or not self.costs.flops:
      return None
    return self.ideal_flops / self.costs.flops

  @property
  def seconds(self) -> dict[str, float]:
    """Part -> the least time it takes, where the chip's rates are known."""
    chip = self.machine.chip
    if chip.flops is None or chip.bandwidth is None or chip.links is None:
      return {}
    times = {
      "products": self.ideal_flops
      * (FLOAT32_PASSES if self.float32 else 1)
      / chip.flops
    }
    if self.costs is not None:
      times["memory"] = self.costs.bytes_moved / chip.bandwidth
      times["messages"] = sum(self.costs.message_bytes.values()) / chip.links
    return times

  @property
  def rows(self) -> list[tuple[str, str]]:
    """What is to be said, as (name, value)."""
    machine, gib = self.machine, 2.0**30
    data, model = machine.mesh.devices.shape
    rows = [
      ("machine", f"{machine.name}, mesh data {data} x model {model}"),
      ("memory of a chip", f"{machine.chip.memory / gib:.2f} GiB"),
      ("needed on a chip", f"{self.needed / gib:.2f} GiB"),
    ]
    if self.memory is not None:
      rows += [
        (f"  {field.name}", f"{getattr(self.memory, field.name) / gib:.2f} GiB")
        for field in dataclasses.fields(self.memory)
      ]
    rows.append(("fits", "yes" if self.fits else "NO"))
    rows.append(("products a chip", f"{self.ideal_flops / 1e12:.3f} TFLOP"))
    if self.efficiency is not None:
      rows.append(("of those it does", f"{self.efficiency:.1%}"))
    if self.costs is not None:
      once = " (loops counted once)" if self.loops else ""
      moved = self.costs.bytes_moved / 1e9
      rows.append(("memory traffic a chip", f"{moved:.2f} GB{once}"))
      for kind, size in self.costs.message_bytes.items():
        count = self.costs.messages[kind]
        rows.append((kind, f"{count:.0f} x, {size / 1e6:.1f} MB{once}"))
      if self.costs.unread:
        rows.append(("messages", "not all could be read"))
    if self.seconds:
      longest = max(self.seconds, key=lambda k: self.seconds[k])
      rows.append(
        ("least time", f"{self.seconds[longest] * 1e3:.2f} ms ({longest})")
      )
    return rows

  def __str__(self) -> str:
    width = max(len(name) for name, _ in self.rows)
    lines = [f"{name:<{width}}  {value}" for name, value in self.rows]
    return "\n".join([self.title, *lines])

  def _repr_html_(self) -> str:
    return table_html(["", ""], self.rows, title=self.title)

  def to_dict(self) -> dict[str, Any]:
    """All of it as JSON."""
    plain = dataclasses.asdict(
      dataclasses.replace(self, machine=None)  # pyright: ignore
    )
    shape = self.machine.mesh.devices.shape
    chip = dataclasses.asdict(self.machine.chip)
    return plain | {
      "machine": {"name": self.machine.name, "mesh": list(shape), "chip": chip},
      "fits": self.fits,
      "efficiency": self.efficiency,
      "seconds": self.seconds,
    }
