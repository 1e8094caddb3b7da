"""What generation returns: texts, and steered texts beside unsteered ones."""

import dataclasses

from gemma_scope.activations.likelihood import NllChange
from gemma_scope.display import table_html


@dataclasses.dataclass(frozen=True, repr=False)
class Generation:
  """What a model wrote.

  Attributes:
    prompts: Text of each prompt.
    texts: What follows each prompt, without the token it stopped at.
    ids: Token ids that follow each prompt, the stop token included.
  """

  prompts: tuple[str, ...]
  texts: tuple[str, ...]
  ids: tuple[tuple[int, ...], ...]

  def __str__(self) -> str:
    return "\n".join(p + t for p, t in zip(self.prompts, self.texts))

  def __repr__(self) -> str:
    return f"Generation({list(self.texts)!r})"

  def _repr_html_(self) -> str:
    return table_html(
      ["prompt", "continuation"], list(zip(self.prompts, self.texts))
    )


@dataclasses.dataclass(frozen=True, repr=False)
class SteeredGeneration(Generation):
  """What an edited model wrote, beside what it writes as it is.

  Attributes:
    unsteered: What the model wrote without the edit.
    effect: How the edit changes the NLL of held-out texts; None without texts.
  """

  unsteered: Generation
  effect: NllChange | None

  def __str__(self) -> str:
    return "\n".join(
      f"{prompt}\n  steered:   {text}\n  unsteered: {plain}"
      for prompt, text, plain in self._rows()
    )

  def __repr__(self) -> str:
    plain = list(self.unsteered.texts)
    return f"SteeredGeneration({list(self.texts)!r}, unsteered={plain!r})"

  def _repr_html_(self) -> str:
    title = f"NLL of held-out text {self.effect}" if self.effect else ""
    return table_html(["prompt", "steered", "unsteered"], self._rows(), title)

  def _rows(self) -> list[tuple[str, str, str]]:
    return list(zip(self.prompts, self.texts, self.unsteered.texts))
