"""Activation patching: which activation of one prompt decides another's answer.

    patched(cell) = target(base run with the source run's value at the cell)

A cell is a site of one layer at one position, and one head where the site has
heads. Denoising asks what suffices to restore an answer: the source prompt is
clean, the base prompt corrupt. Noising asks what is needed: the other way
round. The two are not each other's mirror; `PatchSweep.normalised` puts both on
one scale, 0 for the base run and 1 for the source run.

Sources: Vig et al. 2020, "Investigating Gender Bias in Language Models Using
Causal Mediation Analysis"; Meng et al. 2022, "Locating and Editing Factual
Associations in GPT"; Heimersheim and Nanda 2024, "How to Use and Interpret
Activation Patching". It patches activations, not paths between components.
"""

from collections.abc import Callable, Iterable
import dataclasses

import jax.numpy as jnp
import numpy as np

from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.objectives import ResolvedTarget, Target, logit
from gemma_scope.attribution.pairs import Pairs, to_pairs
from gemma_scope.attribution.patching.cells import (
  Grid,
  Positions,
  columns_of,
  make_grid,
)
from gemma_scope.attribution.patching.chunks import (
  choose_sizes,
  fixed_sizes,
  waves,
)
from gemma_scope.attribution.patching.result import PatchSweep
from gemma_scope.attribution.patching.wavefront import (
  Models,
  Sizes,
  make_models,
  run_wave,
)
from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.model.convert import Progress
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.sites import Site, resolve

COMPONENTS = ("resid_pre[:]", "attn_write[:]", "mlp_write[:]")
HEADS = ("each", "all")


@dataclasses.dataclass(frozen=True)
class PatchOptions:
  """How a sweep is run.

  Attributes:
    heads: "each" patches the heads of sites that have some one by one, "all"
      together.
    chunk: How many runs go through a layer at once; by default as many as
      waste little and fit in half of `memory`.
    memory: Bytes that a sweep may take besides the model's weights.
  """

  heads: str = "each"
  chunk: int | None = None
  memory: int = 2 * 2**30

  def __post_init__(self):
    if self.heads not in HEADS:
      raise ConfigError(
        "Heads are patched one by one or together.",
        received=f"heads={self.heads!r}",
        instead=" or ".join(f'heads="{name}"' for name in HEADS),
      )
    if self.memory < 1 or (self.chunk is not None and self.chunk < 1):
      raise ConfigError(
        "A sweep needs room for one run at least.",
        received=f"chunk={self.chunk}, memory={self.memory}",
        instead="chunk=None and memory in bytes, such as memory=2**30",
      )


def patch(
  lm: LanguageModel,
  source: Input,
  base: Input,
  target: Target | str | int,
  *,
  at: Iterable[Site | str] | Site | str = COMPONENTS,
  positions: Positions = "each",
  options: PatchOptions | None = None,
  progress: Progress | None = None,
) -> PatchSweep:
  """Puts activations of one prompt into the run of another, one at a time.

  For denoising the source prompt is the clean one and the base prompt the
  corrupt one; for noising exchange them.

  Args:
    lm: The model; edits that it has stay in force in all runs.
    source: Text, texts or token ids that activations are taken from.
    base: The same of the runs that they are put into. Both prompts of a pair
      have the same number of tokens; pairs may differ in length.
    target: What is measured (see `objectives`); a token alone means its logit.
    at: Addresses of the sites. At `pattern` a position is the one that looks.
    positions: "each" for every token in turn, "all" for all tokens at once, or
      columns; negative ones count from each prompt's end.
    options: Heads, chunk size, memory.
    progress: Called with a label and the fraction done.

  Returns:
    Site -> patched target {batch, seq?, heads?}, with the target of both
    unpatched runs.

  Raises:
    SiteError: If a site is unknown or cannot be patched, or the target reads
      the embeddings.
    TextError: If prompts, target or positions cannot be used together.
    ConfigError: If not one run fits in memory, or a dictionary of several
      layers is spliced into the model.
  """
  options = options or PatchOptions()
  sites = _checked_sites(at, lm.model.stack.stop, lm.config.num_layers)
  if not isinstance(target, Target):
    target = logit(target)
  from_batch, into_batch, pairs = to_pairs(lm, source, base, target)
  _check_target(pairs.target)
  columns = columns_of(positions, into_batch.lengths)
  batch, each = len(into_batch.lengths), options.heads == "each"
  grid = make_grid(sites, columns, batch, lm.config, each_head=each)
  models = make_models(lm.model, sites, pairs.target.reads)
  patched, clean = _run(models, pairs, grid, options, progress)
  return PatchSweep(
    grid.results(patched),
    clean[0],
    clean[1],
    columns,
    into_batch,
    from_batch,
    into_batch.pieces(lm.tokenizer),
    from_batch.pieces(lm.tokenizer),
  )


def _run(
  models: Models,
  pairs: Pairs,
  grid: Grid,
  options: PatchOptions,
  progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray]:
  """All waves: [cells] patched and [2, pairs] unpatched targets."""
  cells = grid.cells
  if options.chunk is None:
    sizes = choose_sizes(models, pairs, cells, options.memory)
  else:
    sizes = fixed_sizes(models, pairs, cells, options.memory, options.chunk)
  parts = list(waves(cells, sizes))
  patched = np.empty(len(cells), np.float32)
  clean = np.empty((2, pairs.base.ids.shape[0]), np.float32)
  tell = _teller(progress, models, cells, parts)
  for part in parts:
    wave, chosen = cells.take(part), _padded(cells.pair[part], sizes)
    local = np.searchsorted(chosen, wave.pair).astype(np.int32)
    wave = dataclasses.replace(wave, pair=local)
    some = pairs.take(jnp.asarray(chosen))
    patched[part], clean[:, chosen] = run_wave(models, some, wave, sizes, tell)
  return patched, clean


def _padded(pair: np.ndarray, sizes: Sizes) -> np.ndarray:
  """The pairs of a wave, the last one repeated up to the wave's size."""
  chosen = np.unique(pair)
  return np.pad(chosen, (0, sizes.pairs - len(chosen)), mode="edge")


def _teller(
  progress: Progress | None,
  models: Models,
  cells,
  parts: list[np.ndarray],
) -> Callable[[int], None]:
  """Turns runs that passed a layer into the fraction done."""
  layers = models.plain.stack.stop
  total = sum(int((layers - cells.layer[part]).sum()) for part in parts)
  done = 0

  def tell(runs: int) -> None:
    nonlocal done
    done += runs
    if progress is not None:
      progress("Patching", done / total)

  return tell


def _check_target(target: ResolvedTarget) -> None:
  """Raises SiteError if a target reads what stands before the layers."""
  if any(site.name == "embed" for site in target.reads):
    raise SiteError(
      "A target that reads the embeddings is not changed by any patch.",
      received="a target at embed",
      instead='a target at a site of a layer, such as "resid_post[0]", '
      "or logits",
    )


def _checked_sites(
  at: Iterable[Site | str] | Site | str, run: int, num_layers: int
) -> tuple[Site, ...]:
  """The sites that `at` means, all of them inside or before the layers.

  Raises:
    SiteError: If there is none, or one cannot be patched.
  """
  sites = resolve(at, num_layers)
  if not sites:
    raise SiteError(
      "There is no site to patch.",
      received=f"at={at!r}",
      instead='for example at=["resid_pre[:]"] or at=["z[:]"]',
    )
  for site in sites:
    behind = site.layer is None and site.name != "embed"
    if behind or (site.layer is not None and site.layer >= run):
      raise SiteError(
        "Nothing behind the last layer is patched.",
        received=f"{site}, in a model that runs {run} layers",
        instead='a site of a layer, such as "resid_post[-1]"',
      )
  return sites
