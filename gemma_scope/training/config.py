"""What is trained, and how: small frozen dataclasses that nest.

    TrainConfig
      groups: Group                what is trained side by side in one step
        architecture               kind, activation, width, prefixes, skip
        members: Member            site, L0, learning rate, seed of each
        sparsity, revival, optimiser
      steps, scale, precision, checkpoints

The members of a group have arrays of equal shape, so that one program trains
them (`step.each_member`); they may differ in sites, L0, learning rate, sparsity
weight and seed. Groups differ in anything, and share the rows.
"""

import dataclasses

from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site
from gemma_scope.training.options import (
  Architecture,
  Optimiser,
  Revival,
  Sparsity,
  one_of,
)

PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
SCALES = ("norm", "deviation", "median", "none")
CENTRES = ("mean", "geometric_median", "zero")
_TOP_K = ("top_k", "batch_top_k")


@dataclasses.dataclass(frozen=True)
class Member:
  """One dictionary of a group.

  Attributes:
    sites_in: The sites it reads.
    sites_out: The sites it rebuilds; empty for those it reads.
    l0: Active latents a row: the target of the penalty, or k of TopK.
    learning_rate: Of the whole member.
    seed: Of its first weights.
    weight: Of the sparsity penalty; None for the group's.
    name: Of its folder and in metrics; empty for one made of its sites.
  """

  sites_in: tuple[Site, ...]
  sites_out: tuple[Site, ...] = ()
  l0: float = 32
  learning_rate: float = 7e-5
  seed: int = 0
  weight: float | None = None
  name: str = ""

  def __post_init__(self) -> None:
    if not self.sites_in or not self.l0 > 0 or not self.learning_rate >= 0:
      raise ConfigError(
        "A member reads a site, and has a positive L0 and learning rate.",
        received=f"{len(self.sites_in)} sites, l0={self.l0}, "
        f"learning_rate={self.learning_rate}",
        instead='Member((Site("resid_post", 9),), l0=32, learning_rate=7e-5)',
      )

  @property
  def writes(self) -> tuple[Site, ...]:
    """The sites it rebuilds."""
    return self.sites_out or self.sites_in

  @property
  def label(self) -> str:
    """Its name, or one made of its sites: `mlp_in_9-mlp_write_9`."""
    if self.name:
      return self.name
    ends = [self.sites_in, *([self.sites_out] if self.sites_out else [])]
    return "-".join(_slug(sites) for sites in ends) + f"_l0_{self.l0:g}"


@dataclasses.dataclass(frozen=True)
class Group:
  """Dictionaries of one shape, trained side by side.

  Attributes:
    architecture: Of all of them.
    members: Each.
    sparsity: Of all of them.
    revival: Of all of them.
    optimiser: Of all of them.
    row_limit: Rows farther than this from the batch's mean, in units of the
      scale, count in reconstruction losses as if they were so far; 0 for no
      limit. Some tokens of Gemma 3 have forty times the usual norm.
    name: In metrics and errors.
  """

  architecture: Architecture
  members: tuple[Member, ...]
  sparsity: Sparsity = dataclasses.field(default_factory=Sparsity)
  revival: Revival = dataclasses.field(default_factory=Revival)
  optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)
  row_limit: float = 0.0
  name: str = "group"

  def __post_init__(self) -> None:
    counts = {(len(m.sites_in), len(m.writes)) for m in self.members}
    if len(counts) != 1:
      raise ConfigError(
        "Members of a group have equally many sites.",
        received=f"{len(self.members)} members, (sites read, sites rebuilt) "
        f"{sorted(counts)}",
        instead="a group for each number of sites",
      )
    self._check_sites(*next(iter(counts)))
    self._check_sparsity()

  def _check_sites(self, read: int, written: int) -> None:
    single = self.architecture.kind in ("sae", "transcoder")
    kept = all(m.writes == m.sites_in for m in self.members)
    if (
      (single and (read, written) != (1, 1))
      or read != written
      or (self.architecture.kind in ("sae", "crosscoder") and not kept)
    ):
      raise ConfigError(
        "These are no sites for a dictionary of this kind.",
        received=f"{self.architecture.kind} of {read} sites in, {written} out",
        instead="sae: one site; transcoder: one in, one out; crosscoder: "
        "several; clt: as many in as out",
      )

  def _check_sparsity(self) -> None:
    name, penalty = self.architecture.activation, self.sparsity.penalty
    jump = name == "jump_relu"
    wrong = (penalty == "l0" and not jump) or (
      name == "gated" and penalty != "l1"
    )
    if wrong or (self.sparsity.frequency_weight and not jump):
      raise ConfigError(
        "This activation cannot be trained with this penalty.",
        received=f"{name} with penalty={penalty!r}, "
        f"frequency_weight={self.sparsity.frequency_weight}",
        instead="jump_relu: l0, l1, tanh; relu: l1, tanh; gated: l1; top_k "
        "and batch_top_k: none",
      )
    fraction = any(m.l0 != int(m.l0) for m in self.members)
    if name in _TOP_K and fraction:
      raise ConfigError(
        "TopK keeps a whole number of latents.",
        received=f"l0={[m.l0 for m in self.members]}",
        instead="for example l0=32",
      )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A whole run.

  Attributes:
    groups: What is trained.
    steps: Batches of rows to train on.
    scale: What is 1 at each site after scaling: the mean squared "norm", the
      mean squared "deviation" from the centre, the "median" distance from it;
      or "none".
    centre: Where biases start: at the "mean" or "geometric_median" of the
      first rows, or at "zero".
    first_batches: Batches read before training, for scale and centre.
    precision: Of the operands of products: "float32", "tensorfloat32" or
      "bfloat16"; they are added in float32, and weights are float32.
    checkpoint_every: Steps between checkpoints.
    keep: How many checkpoints are kept.
    log_every: Steps between metrics.
    model: Catalogue name of the model, for the dictionaries' description.
    heads: Heads of the model, where a site is z.
  """

  groups: tuple[Group, ...]
  steps: int
  scale: str = "norm"
  centre: str = "mean"
  first_batches: int = 4
  precision: str = "float32"
  checkpoint_every: int = 1000
  keep: int = 2
  log_every: int = 50
  model: str | None = None
  heads: int | None = None

  def __post_init__(self) -> None:
    one_of("precision", self.precision, PRECISIONS)
    one_of("scale", self.scale, SCALES)
    one_of("centre", self.centre, CENTRES)
    names = [m.label for g in self.groups for m in g.members]
    if not names or len(set(names)) < len(names):
      twice = sorted({n for n in names if names.count(n) > 1})
      raise ConfigError(
        "Each member of a run has a name of its own.",
        received=f"{len(names)} members; more than once: {twice}",
        instead='Member(…, name="seed_1")',
      )

  @property
  def sites(self) -> tuple[Site, ...]:
    """Every site that is read or rebuilt, once."""
    members = [m for g in self.groups for m in g.members]
    ends = [s for m in members for s in (*m.sites_in, *m.writes)]
    return tuple(dict.fromkeys(ends))


def _slug(sites: tuple[Site, ...]) -> str:
  layers = [str(s.layer) for s in sites if s.layer is not None]
  return "_".join([sites[0].name, *layers])
