"""How a group of dictionaries is trained: form, sparsity, revival, optimiser.

Small frozen dataclasses that check themselves. The defaults are those of Gemma
Scope 2 where it says them (technical paper): JumpReLU, bandwidth and first
threshold 0.001, a quadratic penalty of L0 about a target, Adam(0, 0.999), a
cosine warm-up from a tenth of the learning rate over 1,000 steps, unit-norm
decoder rows.
"""

import dataclasses
from typing import Any

from gemma_scope.dictionaries.activations import ACTIVATIONS
from gemma_scope.dictionaries.protocol import KINDS
from gemma_scope.errors import ConfigError

PENALTIES = ("l0", "l1", "tanh", "none")


def one_of(field: str, value: Any, known: tuple[str, ...]) -> None:
  """Raises ConfigError if a field has a value that is not known."""
  if value not in known:
    raise ConfigError(
      f"{field} has no such value.",
      received=f"{field}={value!r}",
      instead=f"one of {', '.join(known)}",
    )


def positive(field: str, value: float) -> None:
  """Raises ConfigError if a field is not above zero."""
  if not value > 0:
    raise ConfigError(
      f"{field} is a positive number.",
      received=f"{field}={value!r}",
      instead=f"{field}=0.001",
    )


@dataclasses.dataclass(frozen=True)
class Architecture:
  """The form of a dictionary.

  Attributes:
    kind: "sae", "transcoder", "crosscoder" (one set of latents for several
      sites) or "clt" (latents of its own for each site, which write there and
      later; with equal sites in and out a weakly causal crosscoder).
    activation: A key of `dictionaries.activations.ACTIVATIONS`.
    width: Number of latents; of a CLT for each site.
    prefixes: Sizes of Matryoshka prefixes, rising, below `width`.
    affine_skip: Whether x @ skip is added, a transcoder's or CLT's.
  """

  kind: str = "sae"
  activation: str = "jump_relu"
  width: int = 4096
  prefixes: tuple[int, ...] = ()
  affine_skip: bool = False

  def __post_init__(self) -> None:
    one_of("kind", self.kind, KINDS)
    one_of("activation", self.activation, tuple(ACTIVATIONS))
    ends = (0, *self.prefixes, self.width)
    if list(ends) != sorted(set(ends)):
      raise ConfigError(
        "Matryoshka prefixes rise, and stay below the width.",
        received=f"prefixes={self.prefixes} of width {self.width}",
        instead=f"prefixes=({self.width // 4}, {self.width // 2})",
      )
    if self.affine_skip and self.kind not in ("transcoder", "clt"):
      raise ConfigError(
        "An affine skip passes a dictionary that rebuilds another site.",
        received=f"affine_skip=True of a {self.kind}",
        instead='kind="transcoder" or "clt", or affine_skip=False',
      )

  @property
  def sizes(self) -> tuple[int, ...]:
    """Ends of the prefixes, the whole at last."""
    return (*self.prefixes, self.width)


@dataclasses.dataclass(frozen=True)
class Sparsity:
  """What keeps latents few.

  Attributes:
    penalty: "l0": weight * (2 / L0*) * (L0 - L0*)^2; "l1": weight * sum f |w|;
      "tanh": weight * sum tanh(tanh_scale * f |w|); "none" (TopK). |w| is the
      sum over sites of the norms of a latent's decoder rows.
    weight: Of the penalty; a member may have its own.
    l0_of: "batch": L0 is the mean over the batch; "row": each row's own.
    warmup_steps: Over which the weight rises from 0.
    bandwidth: Width of the rectangle in which thresholds get gradients.
    threshold: The first threshold of JumpReLU.
    tanh_scale: See `penalty`.
    frequency_weight: Of the penalty on latents that fire often, weight * sum
      max(0, p - limit)^2 / limit, p a latent's share of rows. JumpReLU's alone.
    frequency_limit: See `frequency_weight`.
  """

  penalty: str = "l0"
  weight: float = 0.01
  l0_of: str = "batch"
  warmup_steps: int = 0
  bandwidth: float = 0.001
  threshold: float = 0.001
  tanh_scale: float = 1.0
  frequency_weight: float = 0.0
  frequency_limit: float = 0.1

  def __post_init__(self) -> None:
    one_of("penalty", self.penalty, PENALTIES)
    one_of("l0_of", self.l0_of, ("batch", "row"))
    positive("bandwidth", self.bandwidth)
    positive("frequency_limit", self.frequency_limit)


@dataclasses.dataclass(frozen=True)
class Revival:
  """What is done for latents that do not fire.

  Attributes:
    dead_after: Rows without firing after which a latent counts as dead.
    aux_k: How many dead latents rebuild what is missed, in AuxK; 0: no AuxK.
    aux_weight: Of that loss (Gao et al. 2024: 1/32).
    aux_pool: From how many of the dead, longest dead first, AuxK chooses.
    resample_every: Steps between resamplings (Bricken et al. 2023); 0: never.
    resample_until: No resampling after this step.
  """

  dead_after: int = 1_000_000
  aux_k: int = 0
  aux_weight: float = 1 / 32
  aux_pool: int = 512
  resample_every: int = 0
  resample_until: int = 0

  def __post_init__(self) -> None:
    if self.aux_k > self.aux_pool:
      raise ConfigError(
        "AuxK chooses its latents from a pool.",
        received=f"aux_k={self.aux_k} of aux_pool={self.aux_pool}",
        instead=f"aux_pool={2 * self.aux_k}",
      )


@dataclasses.dataclass(frozen=True)
class Optimiser:
  """Adam, and how the learning rate goes.

  Attributes:
    b1: Of Adam; with 0 there is no first moment to store.
    b2: Of Adam.
    eps: Of Adam.
    warmup_steps: Of the learning rate, along a cosine.
    warmup_from: The first learning rate, as a share of the full one.
    decay_steps: Last steps, over which it falls in a line to 0; 0 for none.
    clip_norm: Largest norm of a member's gradient; 0 for no limit.
    clip_ratio: Largest norm of an array's gradient, as a multiple of what
      Adam's second moment says is usual; 0 for no limit.
    threshold_rate: Learning rate of thresholds, as a share of the others'.
    unit_norm: Whether decoder rows keep norm 1 and their gradients lose the
      part along the row.
  """

  b1: float = 0.0
  b2: float = 0.999
  eps: float = 1e-8
  warmup_steps: int = 1000
  warmup_from: float = 0.1
  decay_steps: int = 0
  clip_norm: float = 0.0
  clip_ratio: float = 0.0
  threshold_rate: float = 1.0
  unit_norm: bool = True
