"""Recipes by name, and runs made of them.

    config = preset(
      "gemma_scope_2", ["resid_post[9]", "mlp_in[9]->mlp_write[9]"], steps=9000
    )

What is trained is written as sites: `resid_post[9]` is an SAE,
`mlp_in[9]->mlp_write[9]` a transcoder, `resid_post[5]+resid_post[9]` a
crosscoder, `mlp_in[0]+mlp_in[1]->mlp_write[0]+mlp_write[1]` a CLT;
`mlp_in[:]->mlp_write[:]` is a transcoder of every layer. Every one is trained
for every L0, learning rate and seed of a `Sweep`.

`gemma_scope_2` is the recipe of the technical paper with its own numbers, where
it gives them; those it leaves out (the weight of the penalty, prefixes, the
frequency penalty) are ours. `starter` is for SAEs on some millions of tokens,
`starter_transcoder` for transcoders: learning rate, first threshold and
bandwidth are larger. All but `gemma_scope_2` limit what outlier rows count, and
scale by the median (see `scaling`).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools

from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site, resolve
from gemma_scope.training.config import Group, Member, TrainConfig
from gemma_scope.training.options import (
  Architecture,
  Optimiser,
  Revival,
  Sparsity,
)

_ARROW, _PLUS = "->", "+"


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How to train, whatever the site.

  Attributes:
    activation: Of the latents.
    sparsity: What keeps them few.
    revival: What is done for dead ones.
    optimiser: Adam and its schedule.
    learning_rate: By default.
    prefixes: Matryoshka prefixes, as shares of the width.
    scale: Of the inputs, see `TrainConfig`.
    row_limit: See `Group`.
  """

  activation: str
  sparsity: Sparsity
  revival: Revival = dataclasses.field(default_factory=Revival)
  optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)
  learning_rate: float = 7e-5
  prefixes: tuple[float, ...] = ()
  scale: str = "median"
  row_limit: float = 3.0


_NONE = Sparsity(penalty="none")
_AUX = Revival(aux_k=256, aux_pool=1024)
_MATRYOSHKA = (1 / 16, 1 / 4)
# Without a first moment one batch can move every weight by 31 learning rates.
_CAREFUL = Optimiser(clip_ratio=1.0, threshold_rate=0.5)
_SHORT = Sparsity(weight=0.03, warmup_steps=200, bandwidth=0.05, threshold=0.05)

RECIPES: Mapping[str, Recipe] = {
  "gemma_scope_2": Recipe(
    "jump_relu",
    Sparsity(
      l0_of="row",
      weight=0.01,
      warmup_steps=50_000,
      frequency_weight=0.01,
    ),
    prefixes=_MATRYOSHKA,
    scale="norm",
    row_limit=0.0,
  ),
  "jump_relu": Recipe(
    "jump_relu",
    Sparsity(weight=0.03, warmup_steps=1000, bandwidth=0.02, threshold=0.02),
    _AUX,
    _CAREFUL,
    learning_rate=3e-4,
  ),
  "starter": Recipe(
    "jump_relu",
    _SHORT,
    Revival(dead_after=10_000, aux_k=32, aux_weight=1.0, aux_pool=256),
    dataclasses.replace(_CAREFUL, b1=0.9, warmup_steps=100, decay_steps=1000),
    learning_rate=5e-3,
    prefixes=(1 / 2,),
  ),
  "starter_transcoder": Recipe(
    "jump_relu",
    _SHORT,
    Revival(dead_after=20_000, aux_k=32, aux_weight=1.0, aux_pool=256),
    dataclasses.replace(_CAREFUL, warmup_steps=100, decay_steps=1000),
    learning_rate=3e-3,
    prefixes=(1 / 8, 1 / 2),
  ),
  "batch_top_k": Recipe(
    "batch_top_k", _NONE, _AUX, Optimiser(b1=0.9), learning_rate=3e-4
  ),
  "matryoshka_batch_top_k": Recipe(
    "batch_top_k",
    *(_NONE, _AUX, Optimiser(b1=0.9)),
    learning_rate=3e-4,
    prefixes=_MATRYOSHKA,
  ),
  "top_k": Recipe("top_k", _NONE, _AUX, Optimiser(b1=0.9), learning_rate=3e-4),
  "gated": Recipe(
    "gated",
    Sparsity(penalty="l1", weight=0.05, warmup_steps=1000),
    learning_rate=3e-4,
  ),
  "l1": Recipe(
    "relu",
    Sparsity(penalty="l1", weight=0.05, warmup_steps=1000),
    Revival(resample_every=25_000, resample_until=100_000),
    Optimiser(b1=0.9),
    learning_rate=3e-4,
  ),
  "tanh": Recipe(
    "jump_relu",
    Sparsity(
      penalty="tanh",
      weight=0.01,
      warmup_steps=1000,
      tanh_scale=4.0,
      bandwidth=0.02,
      threshold=0.02,
    ),
    _AUX,
    _CAREFUL,
    learning_rate=3e-4,
  ),
}


@dataclasses.dataclass(frozen=True)
class Sweep:
  """What every dictionary is trained with, side by side.

  Attributes:
    l0: Targets, or k.
    learning_rates: None for the recipe's.
    seeds: Of the first weights.
    weights: Of the sparsity penalty; None for the recipe's.
  """

  l0: tuple[float, ...] = (32,)
  learning_rates: tuple[float | None, ...] = (None,)
  seeds: tuple[int, ...] = (0,)
  weights: tuple[float | None, ...] = (None,)


@dataclasses.dataclass(frozen=True)
class Ends:
  """What one dictionary reads and rebuilds.

  Attributes:
    reads: The sites it reads.
    writes: The sites it rebuilds; empty for those it reads.
  """

  reads: tuple[Site, ...]
  writes: tuple[Site, ...] = ()

  @property
  def kind(self) -> str:
    """The kind that such ends are of."""
    if len(self.reads) > 1:
      return "clt" if self.writes else "crosscoder"
    return "transcoder" if self.writes else "sae"


def preset(
  name: str,
  sites: Sequence[str | Ends],
  *,
  steps: int,
  width: int = 4096,
  sweep: Sweep | None = None,
  affine_skip: bool = False,
  num_layers: int = 1 << 16,
) -> TrainConfig:
  """A run by the name of its recipe.

  Args:
    name: A key of `RECIPES`.
    sites: What is trained, see above.
    steps: Batches to train on.
    width: Latents of each; of a CLT of each layer.
    sweep: L0, learning rates, seeds.
    affine_skip: For transcoders and CLTs.
    num_layers: Of the model, for `[:]` and negative layers.

  Raises:
    ConfigError: There is no such recipe.
    SiteError: There is no such site.
  """
  recipe = _recipe(name)
  ends = [e for s in sites for e in parse(s, num_layers)]
  kinds: dict[tuple[str, ...], list[Ends]] = {}
  for end in ends:
    names = [site.name for site in (*end.reads, *end.writes)]
    kinds.setdefault((end.kind, *names), []).append(end)
  groups = tuple(
    group_of(recipe, alike, width, sweep or Sweep(), affine_skip)
    for alike in kinds.values()
  )
  return TrainConfig(groups, steps, scale=recipe.scale)


def group_of(
  recipe: Recipe,
  ends: Sequence[Ends],
  width: int,
  sweep: Sweep,
  affine_skip: bool = False,
) -> Group:
  """Dictionaries of one kind, side by side.

  Args:
    recipe: How they are trained.
    ends: What they read and rebuild; all of one kind.
    width: Latents of each.
    sweep: What each is trained with.
    affine_skip: For transcoders and CLTs.
  """
  kind = ends[0].kind
  skips = affine_skip and kind in ("transcoder", "clt")
  sizes = tuple(int(share * width) for share in recipe.prefixes)
  prefixes = tuple(sorted({s for s in sizes if 0 < s < width}))
  architecture = Architecture(kind, recipe.activation, width, prefixes, skips)
  each = itertools.product(
    ends, sweep.l0, sweep.learning_rates, sweep.seeds, sweep.weights
  )
  members = []
  for end, l0, rate, seed, weight in each:
    rate = recipe.learning_rate if rate is None else rate
    member = Member(end.reads, end.writes, l0, rate, seed, weight)
    varied = {"lr": sweep.learning_rates, "seed": sweep.seeds}
    varied["weight"] = sweep.weights
    own = {"lr": rate, "seed": seed, "weight": weight}
    extra = [f"_{n}_{own[n]:g}" for n, all_ in varied.items() if len(all_) > 1]
    name = member.label + "".join(extra)
    members.append(dataclasses.replace(member, name=name))
  return Group(
    architecture,
    tuple(members),
    recipe.sparsity,
    recipe.revival,
    recipe.optimiser,
    recipe.row_limit,
    name=members[0].label,
  )


def starter(
  layers: Sequence[int],
  sae_layers: Sequence[int],
  *,
  steps: int,
  model: str | None = None,
  l0: tuple[float, float] = (20, 40),
  widths: tuple[int, int] = (448, 1024),
) -> TrainConfig:
  """The suite that comes with the package, all from one forward pass.

  Args:
    layers: Of the affine-skip transcoders mlp_in -> mlp_write.
    sae_layers: Of the SAEs at resid_post.
    steps: Batches to train on.
    model: Catalogue name, for the dictionaries' description.
    l0: Targets of transcoders and SAEs.
    widths: Latents of transcoders and SAEs.
  """

  def recipe(name: str) -> Recipe:
    found = _recipe(name)
    decay = dataclasses.replace(found.optimiser, decay_steps=steps // 2)
    return dataclasses.replace(found, optimiser=decay)

  def named(group: Group, folder: str) -> Group:
    members = tuple(
      dataclasses.replace(m, name=f"{folder}/layer_{m.sites_in[0].layer}")
      for m in group.members
    )
    return dataclasses.replace(group, members=members, name=folder)

  through = [
    Ends((Site("mlp_in", i),), (Site("mlp_write", i),)) for i in layers
  ]
  streams = [Ends((Site("resid_post", i),)) for i in sae_layers]
  of_mlps, of_streams = recipe("starter_transcoder"), recipe("starter")
  mlps = group_of(of_mlps, through, widths[0], Sweep((l0[0],)), True)
  saes = group_of(of_streams, streams, widths[1], Sweep((l0[1],)))
  groups = named(mlps, "transcoder"), named(saes, "resid_post")
  return TrainConfig(groups, steps, scale=of_mlps.scale, model=model)


def parse(text: str | Ends, num_layers: int) -> list[Ends]:
  """What one item of `sites` stands for.

  Args:
    text: As in the module's description.
    num_layers: Of the model.

  Raises:
    SiteError: There is no such site.
    ConfigError: The two sides do not match.
  """
  if isinstance(text, Ends):
    return [text]
  sides = [s.strip() for s in text.split(_ARROW)]
  found = [[resolve(p, num_layers) for p in s.split(_PLUS)] for s in sides]
  counts = [[len(p) for p in side] for side in found]
  together = any(len(side) > 1 for side in found)
  if len(sides) > 2 or counts[0] != counts[-1]:
    raise ConfigError(
      "What is read and what is rebuilt do not match.",
      received=f"{text}: {counts} sites",
      instead='"mlp_in[3]->mlp_write[3]", or equally many layers on each side',
    )
  if together:
    flat = [tuple(s for p in side for s in p) for side in found]
    return [Ends(*flat)]
  return [Ends(*((s,) for s in pair)) for pair in zip(*(f[0] for f in found))]


def _recipe(name: str) -> Recipe:
  if name not in RECIPES:
    raise ConfigError(
      "No recipe has this name.",
      received=name,
      instead=f"one of {', '.join(RECIPES)}",
    )
  return RECIPES[name]
