"""The explanation of one prediction: a value that displays itself.

`gs.explain` returns it. It bundles the parts of `gemma_scope.analysis` and
turns them into a page, a notebook cell or plain JSON. It computes no score.
"""

from collections.abc import Mapping
import dataclasses
import html
from typing import Any

from gemma_scope import errors
from gemma_scope.analysis import explanation as parts
from gemma_scope.analysis.flow import RelevanceFlow
from gemma_scope.viz import payload, report, wording
from gemma_scope.viz.features import Features

_IFRAME_HEIGHT = 760  # pixels; the frame can be dragged larger


@dataclasses.dataclass(frozen=True, repr=False)
class Explanation:
  """Why a model continues a prompt as it does.

  Attributes:
    prompt: The text that was explained.
    model: The model's name as a person reads it, such as "Gemma 3 270M".
    target: The logit, or difference of logits, that is explained.
    tokens: [seq] the prompt as the model sees it.
    predictions: The most probable next tokens, most probable first.
    attributions: One a method; the first one is quoted in the headline.
    random_areas: The `area` of random orders of the tokens.
    flow: Relevance by layer and token, heads and neurons, or None.
    lens: The logit lens, layer x position.
    components: Direct logit attribution.
    attention: Attention patterns, or None where they were not asked for.
    manifest: What made this: versions, weights, device, seed, seconds; JSON.
    features: Latents of sparse dictionaries, or None.
    features_note: Why there are none; empty where there are.
  """

  prompt: str
  model: str
  target: parts.TargetInfo
  tokens: tuple[parts.TokenInfo, ...]
  predictions: tuple[parts.Prediction, ...]
  attributions: tuple[parts.TokenAttribution, ...]
  random_areas: tuple[float, ...]
  flow: RelevanceFlow | None
  lens: parts.LensGrid
  components: parts.ComponentScores
  attention: parts.AttentionPatterns | None
  manifest: Mapping[str, Any]
  features: Features | None = None
  features_note: str = ""

  def __post_init__(self):
    length = len(self.tokens)
    for attribution in self.attributions:
      if len(attribution.scores) != length:
        raise errors.GemmaScopeError(
          "an attribution must score every token of the prompt",
          received=f"{len(attribution.scores)} scores of "
          f"{attribution.method} for {length} tokens",
          instead=f"scores of shape ({length},)",
        )
    if self.flow is not None and self.flow.values.shape[1] != length:
      raise errors.GemmaScopeError(
        "a flow of relevance must cover every token of the prompt",
        received=f"{self.flow.values.shape[1]} columns for {length} tokens",
        instead=f"values of shape (sites, {length})",
      )
    if self.features is not None:
      self._check_features(self.features)
    positions = [self.target.position, *self.lens.positions]
    if self.attention is not None:
      positions += self.attention.queries
    if not all(0 <= position < length for position in positions):
      raise errors.GemmaScopeError(
        "a position of an explanation lies outside the prompt",
        received=f"positions {min(positions)} to {max(positions)}",
        instead=f"positions from 0 to {length - 1}",
      )

  def _check_features(self, features: Features) -> None:
    shown = len(self.tokens) - features.first
    if any(len(layer.counts) != shown for layer in features.layers):
      raise errors.GemmaScopeError(
        "latents must cover every token that is shown",
        received=", ".join(str(len(x.counts)) for x in features.layers),
        instead=f"{shown} tokens in every layer",
      )

  def to_dict(self) -> dict[str, Any]:
    """All of it as JSON: dicts, lists, strings, numbers, booleans and None.

    Numbers keep 7 digits; what is not finite becomes None. Attention stays
    packed, as base64 (the entry says how).
    """
    return payload.explanation_to_dict(self)

  def to_html(self) -> str:
    """One self-contained page: no network, no library, works from a file."""
    return report.explanation_to_html(self)

  def _repr_html_(self) -> str:
    """The page in a frame of its own, so that no style leaks."""
    return (
      '<iframe sandbox="allow-scripts" title="Explanation" '
      f'style="width:100%;height:{_IFRAME_HEIGHT}px;border:1px solid '
      'rgba(128,128,128,.4);border-radius:8px;resize:vertical" '
      f'srcdoc="{html.escape(self.to_html(), quote=True)}"></iframe>'
    )

  def __repr__(self) -> str:
    methods = ", ".join(a.method for a in self.attributions)
    return (
      f"Explanation({wording.prediction_sentence(self)!r}, "
      f"explains={wording.target_phrase(self.target)!r}, "
      f"tokens={len(self.tokens)}, methods=[{methods}])"
    )
