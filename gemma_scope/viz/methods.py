"""How each attribution method is presented, and which are shown by default."""

from collections.abc import Mapping
import dataclasses

from gemma_scope.attribution.attribute import GradientOptions


@dataclasses.dataclass(frozen=True)
class MethodText:
  """How a method is presented.

  Attributes:
    title: Its name as read.
    description: What a score means, in one sentence.
    options: Options it is run with.
    notes: What a reader must know.
  """

  title: str
  description: str
  options: GradientOptions | None = None
  notes: tuple[str, ...] = ()


_LRP = ("LRP is reported to be patented technology, free for research.",)

METHOD_TEXTS: Mapping[str, MethodText] = {
  "integrated_gradients": MethodText(
    "Integrated gradients",
    "How much of the target each token adds on the way from an average token "
    "to itself.",
    GradientOptions(steps=32, baseline="mean"),
    (
      "32 Gauss-Legendre steps from the mean embedding of this prompt; BOS is "
      "kept as it is.",
    ),
  ),
  "attn_lrp": MethodText(
    "AttnLRP",
    "The target's relevance, passed back through every layer by the rules of "
    "AttnLRP.",
    notes=("Its softmax rule does not conserve: BOS absorbs the rest.", *_LRP),
  ),
  "input_x_gradient": MethodText(
    "Input × gradient",
    "The slope of the target along each token's embedding, times the "
    "embedding.",
    notes=("A local slope: it promises no sum.",),
  ),
  "cp_lrp": MethodText(
    "CP-LRP",
    "The target's relevance, passed back with attention patterns and norm "
    "scales held constant.",
    notes=_LRP,
  ),
  "lrp_epsilon": MethodText(
    "LRP-epsilon",
    "CP-LRP with the epsilon rule on every matrix product.",
    notes=_LRP,
  ),
  "lrp_gamma": MethodText(
    "LRP-gamma",
    "CP-LRP with the gamma rule on every matrix product: evidence for the "
    "target is favoured.",
    notes=_LRP,
  ),
  "saliency": MethodText(
    "Saliency",
    "How strongly the target reacts to a small change of each token.",
    notes=("The length of a gradient: it has no sign and promises no sum.",),
  ),
  "smoothgrad": MethodText(
    "SmoothGrad",
    "The mean slope over 32 noisy copies of the prompt, times the embedding.",
    notes=("It promises no sum.",),
  ),
  "expected_gradients": MethodText(
    "Expected gradients",
    "Integrated gradients, on average from 64 random orders of these tokens.",
    notes=("The sum misses its promise by a sampling error.",),
  ),
  "deeplift": MethodText(
    "DeepLIFT",
    "How much of the target each token adds between an average token and "
    "itself, operation by operation.",
  ),
  "occlusion": MethodText(
    "Occlusion",
    "How far the target falls with an average token in each token's place.",
    notes=("Measured token by token: it promises no sum.",),
  ),
  "leave_one_out": MethodText(
    "Leave one out",
    "How far the target falls when each token is deleted.",
    notes=("Later tokens move up by one. It promises no sum.",),
  ),
}

DEFAULT_METHODS = ("integrated_gradients", "attn_lrp", "input_x_gradient")

# Of the methods asked for, the first of these shows the flow of relevance.
FLOW_METHODS = (
  *("attn_lrp", "cp_lrp", "lrp_epsilon", "lrp_gamma", "input_x_gradient"),
)
