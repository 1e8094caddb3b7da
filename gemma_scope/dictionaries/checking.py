"""Is this dictionary at its site, and does it work on this model's text?

Vectors at its sites are captured, BOS and padding left out, and its FVU and L0
measured. A dictionary read at the wrong site is no error to any program, only
nonsense: where the measure is bad, the sites near by are tried, and if one of
them fits, the error names it.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import logging

import numpy as np

from gemma_scope.activations.by_site import BySite
from gemma_scope.activations.run import Capture, capture
from gemma_scope.dictionaries.fit import check_fits, site_width
from gemma_scope.dictionaries.gemma_scope_1 import refuse_gemma_2
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.quality import Quality, quality
from gemma_scope.dictionaries.vectors import vector_axes
from gemma_scope.errors import SiteError, TextError
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site

_log = logging.getLogger(__name__)

# A dictionary that leaves more than this unexplained is tried at other sites.
_SUSPICIOUS_FVU = 0.5
# And one whose L0 is this many times more or less than it was trained for.
_SUSPICIOUS_L0 = 5.0
# Another site is likely the right one if it at least halves the FVU.
_MUCH_BETTER = 0.5
_NEAR = (
  *("resid_pre", "attn_in", "z", "attn_proj", "attn_write", "resid_mid"),
  *("mlp_in", "mlp_act", "mlp_proj", "mlp_write", "resid_post"),
)

Sites = tuple[tuple[Site, ...], tuple[Site, ...]]


@dataclasses.dataclass(frozen=True)
class Checked:
  """The result of `check`.

  Attributes:
    quality: FVU, L0 and number of tokens at the dictionary's own sites.
    l0_target: What training aimed at, or None.
  """

  quality: Quality
  l0_target: float | None

  def __str__(self) -> str:
    target = f" (target {self.l0_target:g})" if self.l0_target else ""
    q = self.quality
    return f"FVU {q.fvu:.3f}, L0 {q.l0:.1f}{target}, {q.tokens} tokens"


def check(
  lm: LanguageModel, dictionary: Dictionary, texts: str | Sequence[str]
) -> Checked:
  """Measures a dictionary on text, and refuses one at a wrong site.

  Args:
    lm: The model it is used on.
    dictionary: Any.
    texts: A few hundred tokens or more of ordinary text.

  Returns:
    FVU and L0.

  Raises:
    SiteError: Its widths or layers are not the model's, it is of Gemma 2, or
      it rebuilds worse than the mean or much worse than at another site, which
      is then named.
    TextError: The texts have fewer than 16 tokens beside BOS.
  """
  refuse_gemma_2(dictionary.about)
  check_fits(dictionary, lm.config, lm.name)
  own = dictionary.sites_in, dictionary.sites_out
  seen = _Vectors(capture(lm, texts, {*own[0], *own[1]}), lm)
  here = seen.quality(dictionary, own)
  if here.tokens < 16:
    raise TextError(
      "There is too little text to measure a dictionary on.",
      received=f"{here.tokens} tokens without BOS",
      instead="texts of a few hundred tokens",
    )
  result = Checked(here, dictionary.about.l0)
  if _is_suspicious(result):
    _look_around(lm, dictionary, texts, result)
  return result


def _is_suspicious(result: Checked) -> bool:
  q, target = result.quality, result.l0_target
  far = target is not None and not (
    target / _SUSPICIOUS_L0 <= q.l0 <= target * _SUSPICIOUS_L0
  )
  return not q.fvu <= _SUSPICIOUS_FVU or far


def _look_around(
  lm: LanguageModel,
  dictionary: Dictionary,
  texts: str | Sequence[str],
  result: Checked,
) -> None:
  """Raises if another site fits much better, or this one not at all."""
  near = list(_near(dictionary, lm))
  wanted = {site for ends in near for sites in ends for site in sites}
  seen = _Vectors(capture(lm, texts, wanted), lm)
  measured = [(seen.quality(dictionary, ends).fvu, ends) for ends in near]
  best, ends = min(measured, key=lambda pair: pair[0], default=(np.inf, None))
  if ends and best < _MUCH_BETTER * min(1.0, result.quality.fvu):
    raise SiteError(
      "The dictionary is read at the wrong site.",
      received=f"{dictionary.about}: {result}",
      instead=f"{_shown(ends)}, where its FVU is {best:.3f}",
    )
  if not result.quality.fvu < 1:
    raise SiteError(
      "The dictionary rebuilds worse than the mean of the vectors does.",
      received=f"{dictionary.about}: {result}",
      instead="the model that it was trained on, and ordinary text; no site "
      "near by fits",
    )
  _log.warning("%s: %s on this text", dictionary.about, result)


def _near(dictionary: Dictionary, lm: LanguageModel) -> Iterator[Sites]:
  """Sites of the same width: other tensors, and the layers beside."""
  ins, outs = dictionary.sites_in, dictionary.sites_out
  same = ins == outs
  first, last = list(_alike(ins, lm)), list(_alike(outs, lm))
  if same:
    yield from ((sites, sites) for sites in first)
    return
  yield from ((sites, outs) for sites in first)
  yield from ((ins, sites) for sites in last)
  for sites in first:
    names = {"resid_mid", "mlp_in", "resid_pre", "attn_in"}
    if sites[0].name in names:
      yield from ((sites, other) for other in last)


def _alike(
  sites: tuple[Site, ...], lm: LanguageModel
) -> Iterator[tuple[Site, ...]]:
  """The same layers at other sites, and the same site one layer away."""
  width = site_width(sites[0], lm.config)
  for name in _NEAR:
    other = tuple(Site(name, site.layer) for site in sites)
    if name != sites[0].name and site_width(other[0], lm.config) == width:
      yield other
  for step in (-1, 1):
    layers = [(site.layer or 0) + step for site in sites]
    if all(0 <= layer < lm.config.num_layers for layer in layers):
      yield tuple(Site(sites[0].name, layer) for layer in layers)


class _Vectors:
  """Captured vectors as plain rows, without BOS and padding."""

  def __init__(self, captured: Capture, lm: LanguageModel):
    batch = captured.tokens
    self.arrays: BySite = captured
    self.kept = (batch.segment_ids != 0) & (batch.ids != lm.tokenizer.bos_id)

  def quality(self, dictionary: Dictionary, ends: Sites) -> Quality:
    """Quality of a dictionary that reads and rebuilds at some sites."""
    x, target = (self._rows(sites) for sites in ends)
    return quality(dictionary, x, target)

  def _rows(self, sites: tuple[Site, ...]) -> np.ndarray:
    rows = [self._row(site) for site in sites]
    return rows[0] if len(rows) == 1 else np.stack(rows)

  def _row(self, site: Site) -> np.ndarray:
    """[tokens, d] float32 of one site."""
    value = self.arrays[site]
    data = np.asarray(
      value.unwrap("batch", "seq", *vector_axes(site)), np.float32
    )
    return data.reshape(*self.kept.shape, -1)[self.kept]


def _shown(ends: Sites) -> str:
  names = [", ".join(map(str, sites)) for sites in ends]
  return names[0] if ends[0] == ends[1] else " -> ".join(names)
