"""How large the experiment is: the whole of it, or a minute of it."""

import dataclasses

from gemma_scope import attribution
from gemma_scope.attribution.attribute import METHODS
from gemma_scope.attribution.methods.expected import ExpectedGradientsOptions
from gemma_scope.attribution.methods.smooth import SmoothGradOptions

METHOD_OPTIONS = {
  "integrated_gradients": attribution.GradientOptions(steps=32),
  "expected_gradients": ExpectedGradientsOptions(samples=32),
  "smoothgrad": SmoothGradOptions(samples=16),
}
# One backward pass each: cheap enough to run again for every ruined model.
CHECKED_METHODS = (
  "input_x_gradient",
  "saliency",
  "deeplift",
  "attn_lrp",
  "cp_lrp",
  "lrp_epsilon",
  "lrp_gamma",
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of prompts, methods and steps.

  Attributes:
    methods: Attribution methods of part (a).
    checked: Methods of the randomisation check.
    natural: Prompts of natural text.
    source: Questions asked for, of which some four fifths are kept.
    contrast: Prompts of IOI, judged by token.
    randomised: Prompts of the randomisation check.
    perturbations: How tokens are taken away.
    steps: Steps of deletion and insertion.
    draws: Masks of each soft number.
    tasks: Task -> pairs of prompts.
    sites: Components of part (b).
    chunk: Prompts that are computed, and kept, together; costs are those of
      the first chunk.
    run_tokens: Tokens of perturbed runs that go side by side.
    memory: Bytes that patching may take besides the weights.
  """

  methods: tuple[str, ...] = tuple(METHODS)
  checked: tuple[str, ...] = CHECKED_METHODS
  natural: int = 32
  source: int = 52
  contrast: int = 32
  randomised: int = 8
  perturbations: tuple[str, ...] = ("mean", "delete")
  steps: int = 10
  draws: int = 4
  tasks: tuple[tuple[str, int], ...] = (
    ("ioi", 100),
    ("greater_than", 45),
    ("subject_verb", 45),
    ("capital_of", 45),
  )
  sites: tuple[str, ...] = ("resid_pre", "attn_write", "mlp_write", "z")
  chunk: int = 8
  run_tokens: int = 1024
  memory: int = 2 * 2**30

  @property
  def parts(self) -> dict[str, tuple[str, ...]]:
    """What can be run by itself -> the parts that it stands for."""
    names = tuple(name for name, _ in self.tasks)
    single = (*names, *SETS, "randomisation", "why", "cell", "costs")
    return {part: (part,) for part in single} | {
      "components": (*names, "cell"),
      "tokens": (*SETS, "randomisation", "why"),
    }


SETS = ("natural", "source", "contrast")  # prompts of part (a)

FULL = Settings()
QUICK = Settings(
  methods=("input_x_gradient", "integrated_gradients", "attn_lrp"),
  checked=("input_x_gradient", "attn_lrp"),
  natural=4,
  source=4,
  contrast=4,
  randomised=2,
  steps=4,
  draws=1,
  tasks=(("ioi", 4), ("greater_than", 2)),
  sites=("resid_pre", "mlp_write"),
  chunk=4,
)


def for_backend(settings: Settings, backend: str) -> Settings:
  """The same with as much at once as suits the machine.

  An accelerator takes all prompts of a set together: what costs time there is
  compiling, and every size of a chunk is one more program.
  """
  if backend == "cpu":
    return settings
  return dataclasses.replace(
    settings, chunk=128, run_tokens=16_384, memory=16 * 2**30
  )
