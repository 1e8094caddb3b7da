"""What is said of latents in plain words, on pages and in terminals.

By fixed rules from the numbers: how well a dictionary describes this prompt
stands beside how well it describes other text, and what it leaves out is said.
Draws nothing.
"""

from collections.abc import Sequence
import math

from gemma_scope.analysis.latent_info import LatentInfo
from gemma_scope.analysis.prompt_latents import ActiveLatents
from gemma_scope.viz.wording import join_words, quoted

POOR = 0.5  # of the variance unexplained: the latents hardly describe it
FEW = 16  # tokens: a variance of so few says little


def address(site: str, index: int) -> str:
  """The address of a latent, such as `resid_post[9].latents[345]`."""
  return f"{site}.latents[{index}]"


def quality_sentence(layers: Sequence[ActiveLatents]) -> str:
  """How far to trust latents on this prompt: its length, its variance left."""
  tokens = int(layers[0].counted.sum()) if layers else 0
  poor = [layer.site for layer in layers if is_poor(layer)]
  if tokens < 2:
    return "One token has no variance: how well latents describe it is unknown."
  sentence = (
    f"Latents active a token; variance of these {tokens} tokens left "
    "unexplained, beside that of held-out text"
  )
  if tokens < FEW:
    sentence += ". Of so few tokens it is a rough number"
  if poor:
    return f"{sentence}. At {join_words(poor)} latents describe it badly."
  return sentence + "."


def quality_summary(layers: Sequence[ActiveLatents]) -> str:
  """How well all dictionaries describe these tokens, in one sentence."""
  listed = [
    f"{share(layer.fvu)} at {layer.site}{_beside(layer)}" for layer in layers
  ]
  return (
    "Left unexplained of the variance of these tokens (of held-out text): "
    f"{join_words(listed)}."
  )


def _beside(layer: ActiveLatents) -> str:
  held_out = held_out_share(layer)
  return f" ({held_out})" if held_out else ""


def held_out_share(layer: ActiveLatents) -> str:
  """What a dictionary leaves unexplained of other text; empty if unknown."""
  known = layer.held_out.get("fvu")
  return "" if known is None else share(known)


def is_poor(layer: ActiveLatents) -> bool:
  """Whether a reader should be warned."""
  return not layer.fvu <= POOR


def favours_phrase(info: LatentInfo | None, count: int = 3) -> str:
  """The tokens that a latent raises most, in quotes."""
  if info is None:
    return ""
  return ", ".join(quoted(text) for text, _ in info.favoured[:count])


def frequency_phrase(frequency: float) -> str:
  """How often a latent is active: "1 token in 250", "never"."""
  if frequency <= 0:
    return "never"
  if frequency >= 0.1:
    return f"{100 * frequency:.0f}% of tokens"
  return f"1 token in {round(1 / frequency):,}"


def share(fraction: float) -> str:
  """A fraction in percent; it may exceed one: `27.4%`, `131%`."""
  if not math.isfinite(fraction):
    return "not a number"
  return f"{100 * fraction:.1f}%" if fraction < 1 else f"{100 * fraction:.0f}%"


def amount(value: float) -> str:
  """An activation: `1,197`, `35.2`, `0.0731`."""
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
