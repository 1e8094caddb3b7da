"""A patching sweep of one pair of prompts, as a value that displays itself.

`patching_report` asks for the sweep; `PatchingReport` turns it into a page, a
notebook cell or plain JSON.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import html
import time
from typing import Any

from gemma_scope.analysis.predict import predict
from gemma_scope.attribution.objectives import logit, logit_difference
from gemma_scope.attribution.patching.result import PatchSweep
from gemma_scope.attribution.patching.sweep import COMPONENTS, patch
from gemma_scope.errors import TextError
from gemma_scope.manifest import make_manifest
from gemma_scope.model.convert import Progress
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site
from gemma_scope.viz import patching_page, payload, wording

STRONGEST = 20  # cells listed in the JSON
_IFRAME_HEIGHT = 760  # pixels; the frame can be dragged larger


@dataclasses.dataclass(frozen=True, repr=False)
class PatchingReport:
  """Which activations carry the difference between two prompts.

  Attributes:
    sweep: The patched runs of one pair.
    model: The model's name as a person reads it.
    clean: The prompt that has the answer.
    corrupt: The prompt that differs.
    target: Text of the token measured.
    against: Text of the token it is compared with, or None.
    noising: Whether corrupt activations were put into the clean run, and not
      clean ones into the corrupt run.
    manifest: What made this: versions, weights, device, seconds; JSON.
  """

  sweep: PatchSweep
  model: str
  clean: str
  corrupt: str
  target: str
  against: str | None
  noising: bool
  manifest: Mapping[str, Any]

  @property
  def question(self) -> str:
    """What is measured, and what it is in both unpatched runs."""
    ends = self.sweep.source[0], self.sweep.base[0]
    clean, corrupt = reversed(ends) if self.noising else ends
    return wording.patching_sentence(
      *(wording.logit_phrase(self.target, self.against), clean, corrupt),
      noising=self.noising,
    )

  def to_dict(self) -> dict[str, Any]:
    """All of it as JSON: dicts, lists, strings, numbers, booleans and None."""
    told = {
      field.name: payload.to_plain(getattr(self, field.name))
      for field in dataclasses.fields(self)
      if field.name != "sweep"
    }
    best = [
      payload.to_plain(cell) | {"site": str(cell.site)}
      for cell in self.sweep.best(STRONGEST)
    ]
    return payload.to_plain(self.sweep.to_dict()) | told | {"strongest": best}

  def to_html(self) -> str:
    """One self-contained page: no network, no library, works from a file."""
    return patching_page.patching_to_html(self)

  def _repr_html_(self) -> str:
    """The page in a frame of its own, so that no style leaks."""
    return (
      '<iframe sandbox="allow-scripts" title="Activation patching" '
      f'style="width:100%;height:{_IFRAME_HEIGHT}px;border:1px solid '
      'rgba(128,128,128,.4);border-radius:8px;resize:vertical" '
      f'srcdoc="{html.escape(self.to_html(), quote=True)}"></iframe>'
    )

  def __repr__(self) -> str:
    return f"PatchingReport({self.question!r}, {self.sweep!r})"


def patching_report(
  lm: LanguageModel,
  clean: str,
  corrupt: str,
  *,
  target: str | int | None = None,
  against: str | int | None = None,
  at: Iterable[Site | str] = COMPONENTS,
  noising: bool = False,
  progress: Progress | None = None,
) -> PatchingReport:
  """Finds the activations that carry the difference between two prompts.

  Args:
    lm: The model.
    clean: The prompt that has the answer.
    corrupt: One of as many tokens that has another answer.
    target: The token measured (text or id); by default the most probable one
      after the clean prompt.
    against: A token to compare with: measures the difference of logits. By
      default, where `target` is not given either, the most probable token
      after the corrupt prompt.
    at: Addresses of the sites.
    noising: Whether to put corrupt activations into the clean run.
    progress: Called with a label and the fraction done.

  Returns:
    A value that displays itself: notebook, page (`to_html`), JSON (`to_dict`).

  Raises:
    GemmaScopeError: If the prompts, a token or a site cannot be used.
  """
  begin = time.perf_counter()
  at = [at] if isinstance(at, str | Site) else list(at)
  first, second = _tokens(lm, clean, corrupt, target, against)
  measured = logit(first)
  if second is not None:
    measured = logit_difference(first, second)
  ends = (corrupt, clean) if noising else (clean, corrupt)
  sweep = patch(lm, *ends, measured, at=at, progress=progress)
  texts = lm.tokenizer.pieces([t for t in (first, second) if t is not None])
  config = {"clean": clean, "corrupt": corrupt, "noising": noising}
  config |= {"target": texts[0], "against": (*texts, None)[1]}
  config |= {"at": [str(site) for site in at], "dtype": str(lm.dtype)}
  config["seconds"] = round(time.perf_counter() - begin, 2)
  return PatchingReport(
    sweep,
    lm.title,
    clean,
    corrupt,
    texts[0],
    (*texts, None)[1],
    noising,
    make_manifest(config, model=lm.name, source=lm.source).to_dict(),
  )


def _tokens(
  lm: LanguageModel,
  clean: str,
  corrupt: str,
  target: str | int | None,
  against: str | int | None,
) -> tuple[int, int | None]:
  """The ids of the token measured and of its rival, if it has one.

  Raises:
    TextError: If a token is none, or no rival was given where both prompts
      have the same answer.
  """
  if target is not None:
    rival = None if against is None else lm.tokenizer.token_id(against)
    return lm.tokenizer.token_id(target), rival
  answers = [row[0] for row in predict(lm, [clean, corrupt], k=1).rows]
  if against is not None:
    return answers[0].id, lm.tokenizer.token_id(against)
  if answers[0].id == answers[1].id:
    raise TextError(
      "Both prompts have the same answer; say which token is meant.",
      received=f"{answers[0].text!r} after both",
      instead='target=" Mary", against=" John" (--target, --against)',
    )
  return answers[0].id, answers[1].id
