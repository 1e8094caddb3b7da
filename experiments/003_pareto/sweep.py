"""What is trained, at which size, and which learning rates are tried first."""

from collections.abc import Mapping
import dataclasses

import numpy as np

from gemma_scope.sites import Site
from gemma_scope.training.config import Group, Member, TrainConfig
from gemma_scope.training.options import (
  Architecture,
  Optimiser,
  Revival,
  Sparsity,
)


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train a dictionary.

  Attributes:
    activation: Of its latents.
    matryoshka: Whether it has prefixes.
    rate: Learning rate, unless tuning found a better one.
    rates: Those that are tried.
    weights: L1 weights, in the order of the L0 they are hoped to give, where
      L0 is no target; empty where it is.
    tried: L1 weights that are tried.
  """

  activation: str
  matryoshka: bool = False
  rate: float = 1e-3
  rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
  weights: tuple[float, ...] = ()
  tried: tuple[float, ...] = ()


ARMS: Mapping[str, Arm] = {
  "jump_relu_matryoshka": Arm("jump_relu", matryoshka=True),
  "jump_relu": Arm("jump_relu"),
  "batch_top_k": Arm("batch_top_k"),
  "top_k": Arm("top_k"),
  "gated": Arm(
    "gated",
    weights=(0.1, 0.06, 0.03),
    tried=(0.4, 0.2, 0.1, 0.05, 0.025, 0.0125),
  ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How much of it.

  Attributes:
    width: Latents of every dictionary.
    prefixes: Of the Matryoshka arm.
    l0s: Targets of L0.
    seeds: Seeds at the middle target; the others have the first alone.
    steps: Batches of rows to train on.
    tune_steps: The same where learning rates are tried.
    batch_rows: Rows of one step.
    buffer_rows: Rows that are shuffled together.
    seq_len: Tokens of a row of text.
    text_rows: Rows of text of one forward pass.
    sample_rows: Rows that PCA is made from.
    eval_tokens: Held-out tokens.
    loss_tokens: Of these for losses.
    precision: Of the products in training.
  """

  width: int = 4096
  prefixes: tuple[int, ...] = (128, 512, 2048)
  l0s: tuple[int, ...] = (16, 32, 64)
  seeds: tuple[int, ...] = (0, 1, 2)
  steps: int = 1800
  tune_steps: int = 500
  batch_rows: int = 4096
  buffer_rows: int = 1 << 18
  seq_len: int = 1024
  text_rows: int = 32
  sample_rows: int = 1 << 16
  eval_tokens: int = 1 << 17
  loss_tokens: int = 1 << 16
  precision: str = "tensorfloat32"

  @property
  def points(self) -> tuple[tuple[int, int], ...]:
    """(L0, seed) of every dictionary of an arm."""
    middle = self.l0s[len(self.l0s) // 2]
    found = [(l0, self.seeds[0]) for l0 in self.l0s]
    return (*found, *((middle, seed) for seed in self.seeds[1:]))

  def with_steps(self, steps: int) -> "Settings":
    """The same, longer or shorter."""
    return dataclasses.replace(self, steps=steps)


FULL = Settings()
CPU = Settings(
  width=1024,
  prefixes=(128, 512),
  steps=600,
  tune_steps=150,
  batch_rows=1024,
  buffer_rows=1 << 15,
  seq_len=512,
  text_rows=8,
  sample_rows=1 << 15,
  eval_tokens=1 << 15,
  loss_tokens=1 << 12,
  precision="float32",
)
QUICK = Settings(
  width=256,
  prefixes=(32, 64),
  l0s=(8, 16),
  seeds=(0, 1),
  steps=30,
  tune_steps=10,
  batch_rows=256,
  buffer_rows=4096,
  seq_len=128,
  text_rows=2,
  sample_rows=1024,
  eval_tokens=512,
  loss_tokens=256,
  precision="float32",
)


def train_config(
  settings: Settings,
  site: Site,
  model: str,
  tuned: Mapping[str, Mapping[str, object]],
) -> TrainConfig:
  """The run itself: every arm at every point.

  Args:
    settings: How much.
    site: Where.
    model: The model's name.
    tuned: Arm -> "rate" and "weights", as far as tuning found them.
  """
  groups = []
  for name, arm in ARMS.items():
    found = tuned.get(name, {})
    rate = float(found.get("rate", arm.rate))  # type: ignore[arg-type]
    weights = tuple(found.get("weights", arm.weights))  # type: ignore
    members = tuple(
      Member(
        (site,),
        l0=l0,
        learning_rate=rate,
        seed=seed,
        weight=weights[settings.l0s.index(l0)] if weights else None,
        name=f"{name}_l0_{l0}_seed_{seed}",
      )
      for l0, seed in settings.points
    )
    groups.append(_group(name, arm, members, settings, settings.steps))
  return _config(groups, settings, settings.steps, model)


def tune_config(settings: Settings, site: Site, model: str) -> TrainConfig:
  """A short run of every arm at the middle point with every rate."""
  middle = settings.l0s[len(settings.l0s) // 2]
  groups = []
  for name, arm in ARMS.items():
    members = tuple(
      Member(
        (site,),
        l0=middle,
        learning_rate=rate,
        weight=weight,
        name=f"{name} {rate:g} {weight or 0:g}",
      )
      for rate in arm.rates
      for weight in (arm.tried or (None,))
    )
    groups.append(_group(name, arm, members, settings, settings.tune_steps))
  return _config(groups, settings, settings.tune_steps, model)


def _group(
  name: str,
  arm: Arm,
  members: tuple[Member, ...],
  settings: Settings,
  steps: int,
) -> Group:
  """Warm-ups are shares of the run, as it is short; so are bandwidth and first
  threshold of JumpReLU larger than in the technical paper, and its gradients
  limited (see `training.presets`, recipe "starter").
  """
  prefixes = settings.prefixes if arm.matryoshka else ()
  architecture = Architecture(
    "sae", arm.activation, settings.width, prefixes=prefixes
  )
  jump, gated = arm.activation == "jump_relu", arm.activation == "gated"
  sparsity = Sparsity(
    penalty="l0" if jump else "l1" if gated else "none",
    weight=0.03,
    warmup_steps=0 if not (jump or gated) else max(1, steps // 4),
    bandwidth=0.05,
    threshold=0.05,
    frequency_weight=1e-3 if jump else 0.0,
  )
  revival = Revival(
    dead_after=max(1, settings.batch_rows * steps // 20),
    aux_k=0 if gated else min(256, settings.width // 8),
    aux_pool=512,
  )
  optimiser = Optimiser(
    b1=0.0 if jump else 0.9,
    warmup_steps=max(1, steps // 20),
    decay_steps=steps // 2,
    clip_ratio=1.0 if jump else 0.0,
    threshold_rate=0.5,
  )
  return Group(
    *(architecture, members, sparsity, revival, optimiser),
    row_limit=3.0,
    name=name,
  )


def _config(
  groups: list[Group], settings: Settings, steps: int, model: str
) -> TrainConfig:
  return TrainConfig(
    tuple(groups),
    steps,
    scale="median",
    precision=settings.precision,
    log_every=max(1, min(50, steps // 10)),
    checkpoint_every=max(1, steps // 10),
    model=model,
  )


def choose(
  settings: Settings, reports: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, object]]:
  """The best rate of each arm, and L1 weights for the targets of L0.

  Args:
    settings: Of the run.
    reports: Label of a member of `tune_config` -> its last "fvu" and "l0".

  Returns:
    Arm -> "rate", for a gated one "weights" too. The best is that of the
    least FVU among those that come within a third of the middle L0, or the
    nearest to it where none does. Weights are read off the curve of log L0
    over log weight at the best rate.
  """
  middle = settings.l0s[len(settings.l0s) // 2]
  chosen: dict[str, dict[str, object]] = {}
  for name, arm in ARMS.items():
    tries = [
      (float(label.split()[1]), float(label.split()[2]), found)
      for label, found in reports.items()
      if label.split()[0] == name
    ]
    if arm.tried:
      chosen[name] = _choose_weights(tries, settings.l0s)
      continue
    near = [t for t in tries if 0.67 < t[2]["l0"] / middle < 1.5]
    if near:
      best = min(near, key=lambda t: t[2]["fvu"])
    else:
      best = min(tries, key=lambda t: abs(t[2]["l0"] / middle - 1))
    chosen[name] = {"rate": best[0]}
  return chosen


def _choose_weights(
  tries: list[tuple[float, float, Mapping[str, float]]], l0s: tuple[int, ...]
) -> dict[str, object]:
  """The rate with the least FVU at the middle L0, by interpolation."""
  found = []
  for rate in sorted({t[0] for t in tries}):
    own = sorted((t[2]["l0"], t[1], t[2]["fvu"]) for t in tries if t[0] == rate)
    log_l0 = np.log([max(t[0], 1e-3) for t in own])
    wanted = np.log(l0s)
    weights = np.exp(_line(wanted, log_l0, np.log([t[1] for t in own])))
    fvu = np.interp(wanted[len(l0s) // 2], log_l0, [t[2] for t in own])
    found.append((float(fvu), rate, [float(w) for w in weights]))
  _, rate, weights = min(found)
  return {"rate": rate, "weights": weights}


def _line(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Interpolates; past the ends along the nearest piece, e^2 at most."""
  inside = np.interp(at, x, y)
  if len(x) < 2:
    return inside
  slopes = np.diff(y) / np.maximum(np.diff(x), 1e-6)
  past = np.where(at < x[0], (at - x[0]) * slopes[0], 0.0)
  past = np.where(at > x[-1], (at - x[-1]) * slopes[-1], past)
  return inside + np.clip(past, -2.0, 2.0)
