"""What is measured: the cases, their inputs, and which peers can run them.

A row of tokens is a stretch of Lincoln's second inaugural address (public
domain); the ids are read from the goldens, so no side tokenises.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKENS = ROOT / "tests" / "goldens" / "hugging_face_window.npz"

HF, TL, CAPTUM = "hugging_face", "transformer_lens", "captum"
GRADIENT = "value_and_grad"
LOOP = "forward_loop"
# Peer -> the module of its worker.
PEERS = {
  HF: "benchmarks.peers.hf_hooks",
  TL: "benchmarks.peers.hooked_transformer",
  CAPTUM: "benchmarks.peers.captum_ig",
  GRADIENT: "benchmarks.peers.value_and_grad",
  LOOP: "benchmarks.peers.forward_loop",
}
OWN = (GRADIENT, LOOP)  # peers that run in our environment

# "When Mary and John went to the store, John gave a drink to", and with Mary
# in John's second place; " Mary" against " John".
_CLEAN = [2, 4420, 8712, 532, 3415, 3939, 531, 506, 4762, 236764, 3415]
_CLEAN += [5877, 496, 6092, 531]
_CORRUPT = [8712 if i == 10 else token for i, token in enumerate(_CLEAN)]
_ANSWERS = [8712, 3415]


@dataclasses.dataclass(frozen=True)
class Measurement:
  """One row of the table.

  Attributes:
    case: The name that workers know it by.
    shape: (rows, tokens a row) of the input.
    peers: Who can run it.
    unit: "tokens/s" or "s", for the table.
    fresh: Whether every repetition starts a process of its own.
    tolerance: Relative difference up to which two checks agree.
    options: Further arguments of the workers.
  """

  case: str
  shape: tuple[int, int]
  peers: tuple[str, ...]
  unit: str = "s"
  fresh: bool = False
  tolerance: float = 1e-3
  options: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    """Case and shape, such as `capture 8x128`."""
    return f"{self.case} {self.shape[0]}x{self.shape[1]}"

  @property
  def work(self) -> int:
    """Tokens of one repetition: those made, or those read."""
    made = self.options.get("new_tokens")
    return made or self.shape[0] * self.shape[1]


def _rate(case: str, rows: int, length: int, **options: Any) -> Measurement:
  return Measurement(
    case, (rows, length), (HF, TL), "tokens/s", options=options
  )


def _patching(layers: range, positions: range) -> Measurement:
  """Every (component, layer, position) of one pair; `work` is not tokens."""
  return Measurement(
    "patching",
    (len(layers), len(positions)),
    (LOOP, TL),
    options={
      "clean": _CLEAN,
      "corrupt": _CORRUPT,
      "answers": _ANSWERS,
      "layers": list(layers),
      "positions": list(positions),
    },
  )


SUITES: dict[str, tuple[Measurement, ...]] = {
  "load": (
    Measurement("load", (1, 16), (HF,), fresh=True),
    Measurement("first_logits", (1, 16), (HF,), fresh=True),
  ),
  "capture": (_rate("capture", 8, 128), _rate("capture", 4, 512)),
  "layer": (
    _rate("layer", 8, 128, layer=9),
    _rate("layer", 4, 512, layer=9),
  ),
  "relevance": (
    Measurement("relevance", (1, 32), (GRADIENT,), tolerance=1e-6),
    Measurement("relevance", (4, 128), (GRADIENT,), tolerance=1e-6),
  ),
  "gradient": (Measurement("input_x_gradient", (1, 32), (HF,)),),
  "integrated": (
    # Twenty steps from zero do not converge; rounding shows in their sum.
    Measurement(
      "integrated_gradients",
      (1, 32),
      (CAPTUM,),
      tolerance=1e-2,
      options={"steps": 20},
    ),
  ),
  "patching": (_patching(range(18), range(15)),),
  "patching_some": (_patching(range(4, 18, 6), range(9, 11)),),
  "generate": (
    Measurement(
      "generate", (1, 32), (HF,), "tokens/s", options={"new_tokens": 64}
    ),
  ),
}


def arguments(row: Measurement, folder: str) -> dict[str, Any]:
  """What both workers get: token ids, options, the peer's model folder."""
  with np.load(TOKENS) as stored:
    text = stored["tokens"][0]
  rows, length = row.shape
  spare = len(text) - length
  starts = [i * spare // max(rows, 1) for i in range(rows)]
  tokens = np.stack([text[start : start + length] for start in starts])
  tokens[:, 0] = 2  # every row begins with BOS
  return {"tokens": tokens.tolist(), "folder": folder, **row.options}
