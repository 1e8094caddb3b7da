"""What Gemma Scope 2 published, computed from its rules.

Ten repositories (five sizes, pretrained and instruction-tuned), each with SAEs
at three sites, transcoders, crosscoders and, for the two smallest, CLTs:

    resid_post/layer_12_width_16k_l0_medium     four layers, many widths
    resid_post_all/layer_3_width_262k_l0_big    every layer, two widths
    transcoder/layer_9_width_65k_l0_small_affine
    crosscoder/layer_5_9_12_15_width_262k_l0_big
    clt/width_524k_l0_medium_affine

Source: "Gemma Scope 2 Technical Paper" (2025) and the repositories. Some of the
four-layer folders come again with `_seed_1`; which ones is not known here, so
they are loaded but not listed.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import difflib
import functools
import re

from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site
from gemma_scope.weights import catalog

WIDTHS = {
  "16k": 1 << 14,
  "65k": 1 << 16,
  "262k": 1 << 18,
  "524k": 1 << 19,
  "1m": 1 << 20,
}
FOUR_LAYERS = {
  "270m": (5, 9, 12, 15),
  "1b": (7, 13, 17, 22),
  "4b": (9, 17, 22, 29),
  "12b": (12, 24, 31, 41),
  "27b": (16, 31, 40, 53),
}
SITE_OF = {
  "resid_post": "resid_post",
  "attn_out": "z",
  "mlp_out": "mlp_write",
}
VARIANTS = ("pt", "it")
_WITH_CLT = ("270m", "1b")
_L0 = {"small": (10, 20), "medium": (30, 60), "big": (60, 150)}
_L0_ALL = {"small": (10, 20), "big": (60, 120)}
_REPOSITORY = re.compile(r"gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)")
_FOLDER = re.compile(
  r"(?P<group>resid_post|attn_out|mlp_out|transcoder|crosscoder|clt)"
  r"(?P<all>_all)?/(?:layer_(?P<layers>\d+(?:_\d+)*)_)?width_(?P<width>\w+?)"
  r"_l0_(?P<l0>small|medium|big)(?P<affine>_affine)?(?:_seed_(?P<seed>\d+))?"
)


@dataclasses.dataclass(frozen=True)
class Published:
  """One published dictionary.

  Attributes:
    size: "270m", "1b", "4b", "12b" or "27b".
    variant: "pt" or "it".
    group: "resid_post", "attn_out", "mlp_out", "transcoder", "crosscoder" or
      "clt".
    every_layer: Whether it is of the sweep over all layers (`_all`).
    layers: Its layers; empty for a CLT, which has all.
    width: "16k", "65k", "262k", "524k" or "1m": latents of all its layers.
    l0: "small", "medium" or "big".
    affine: Whether it has an affine skip.
    seed: The number of another seed, or None.
  """

  size: str
  variant: str
  group: str
  every_layer: bool
  layers: tuple[int, ...]
  width: str
  l0: str
  affine: bool = False
  seed: int | None = None

  @property
  def repository(self) -> str:
    """Its repository on the hub, without the owner."""
    return f"gemma-scope-2-{self.size}-{self.variant}"

  @property
  def folder(self) -> str:
    """Its folder in the repository."""
    layers = f"layer_{'_'.join(map(str, self.layers))}_" if self.layers else ""
    return (
      f"{self.group}{'_all' if self.every_layer else ''}/{layers}"
      f"width_{self.width}_l0_{self.l0}{'_affine' if self.affine else ''}"
      f"{'' if self.seed is None else f'_seed_{self.seed}'}"
    )

  @property
  def name(self) -> str:
    """The name to load it by: repository/folder."""
    return f"{self.repository}/{self.folder}"

  @property
  def kind(self) -> str:
    """The kind of dictionary, as in `About`."""
    return "sae" if self.group in SITE_OF else self.group

  @property
  def model(self) -> str:
    """The catalogue's name of the model it was trained on."""
    return next(
      e.name
      for e in catalog.CATALOG.values()
      if (e.size, e.variant) == (self.size, self.variant)
    )

  @property
  def sites_in(self) -> tuple[Site, ...]:
    """The sites it reads."""
    name = {"crosscoder": "resid_post"}.get(self.group, "mlp_in")
    name = SITE_OF.get(self.group, name)
    layers = self.layers or range(catalog.SIZES[self.size].num_layers)
    return tuple(Site(name, layer) for layer in layers)

  @property
  def sites_out(self) -> tuple[Site, ...]:
    """The sites it rebuilds."""
    if self.group not in ("transcoder", "clt"):
      return self.sites_in
    return tuple(Site("mlp_write", s.layer) for s in self.sites_in)

  @property
  def l0_target(self) -> int | None:
    """Active latents a token that training aimed at; None if unknown."""
    if len(self.layers) != 1:
      return None
    depth = catalog.SIZES[self.size].num_layers
    low, high = (_L0_ALL if self.every_layer else _L0)[self.l0]
    return int(low + (high - low) * min(1, 3 * self.layers[0] / depth))

  @property
  def files(self) -> tuple[str, ...]:
    """The files with its parameters, in its folder."""
    count = len(self.sites_in)
    if self.group not in ("crosscoder", "clt"):
      return ("params.safetensors",)
    return tuple(f"params_layer_{i}.safetensors" for i in range(count))


def published(
  *,
  size: str | None = None,
  variant: str | None = None,
  group: str | None = None,
  layer: int | None = None,
  width: str | None = None,
  containing: str = "",
) -> list[Published]:
  """The published dictionaries that fit, in the order of their names' parts.

  Args:
    size: Only of this size of model, such as "270m".
    variant: Only "pt" or "it".
    group: Only "resid_post", "attn_out", "mlp_out", "transcoder",
      "crosscoder" or "clt".
    layer: Only those that read this layer.
    width: Only of this width, such as "16k".
    containing: Only those whose name holds all of these words.

  Raises:
    ConfigError: An argument has a value that none of them has.
  """
  known = {
    "size": (size, tuple(FOUR_LAYERS)),
    "variant": (variant, VARIANTS),
    "group": (group, (*SITE_OF, "transcoder", "crosscoder", "clt")),
    "width": (width, tuple(WIDTHS)),
  }
  for argument, (value, values) in known.items():
    if value is not None and value not in values:
      raise ConfigError(
        "No published dictionary has this.",
        received=f"{argument}={value!r}",
        instead=f"{argument} one of {', '.join(values)}",
      )
  words = containing.lower().split()
  return [
    entry
    for entry in _everything()
    if size in (None, entry.size)
    and variant in (None, entry.variant)
    and group in (None, entry.group)
    and width in (None, entry.width)
    and (layer is None or any(s.layer == layer for s in entry.sites_in))
    and all(word in entry.name for word in words)
  ]


def lookup(name: str) -> Published:
  """The published dictionary of a name.

  Args:
    name: For example "gemma-scope-2-270m-pt/resid_post/"
      "layer_12_width_16k_l0_medium", with or without "google/" in front.

  Raises:
    ConfigError: There is none; the error lists the nearest names.
  """
  entry = find(name)
  if entry is not None:
    return entry
  bare = _bare(name)
  names = [e.name for e in _everything()]
  fitting = [n for n in names if all(w in n for w in re.split(r"[/\s]+", bare))]
  near = difflib.get_close_matches(bare, fitting or names, n=3, cutoff=0.3)
  raise ConfigError(
    "Gemma Scope 2 has no dictionary of this name.",
    received=repr(name),
    instead=f"{' or '.join(near) or names[0]}; gs.dictionaries.list("
    "size=…, group=…, layer=…) lists them",
  )


def find(name: str) -> Published | None:
  """The published dictionary of a name, or None; accepts what `lookup` does."""
  repository, _, folder = _bare(name).partition("/")
  place = _REPOSITORY.fullmatch(repository)
  match = _FOLDER.fullmatch(folder)
  if place is None or match is None:
    return None
  layers = tuple(int(i) for i in (match["layers"] or "").split("_") if i)
  seed = int(match["seed"]) if match["seed"] else None
  entry = Published(
    place[1],
    place[2],
    match["group"],
    bool(match["all"]),
    layers,
    match["width"],
    match["l0"],
    bool(match["affine"]),
    seed,
  )
  first = dataclasses.replace(entry, seed=None)
  seeded = seed is None or (seed == 1 and not entry.every_layer)
  return entry if seeded and first in _index() else None


def _bare(name: str) -> str:
  return name.strip().strip("/").removeprefix("google/")


@functools.cache
def _index() -> frozenset[Published]:
  return frozenset(_everything())


@functools.cache
def _everything() -> tuple[Published, ...]:
  return tuple(
    entry
    for size in FOUR_LAYERS
    for variant in VARIANTS
    for entry in _of_model(size, variant)
  )


def _of_model(size: str, variant: str) -> Iterator[Published]:
  depth = catalog.SIZES[size].num_layers
  for group in (*SITE_OF, "transcoder"):
    affine = (False, True) if group == "transcoder" else (False,)
    widths = ("16k", "65k", "262k", *(("1m",) if group == "resid_post" else ()))
    for entry in _sweep(group, FOUR_LAYERS[size], widths, tuple(_L0), affine):
      yield Published(size, variant, *entry)
    both = ("16k", "262k")
    for entry in _sweep(group, range(depth), both, tuple(_L0_ALL), affine):
      group_, _, *rest = entry
      yield Published(size, variant, group_, True, *rest)
  for width in ("65k", "262k", "524k", "1m"):
    for l0 in ("medium", "big"):
      layers = FOUR_LAYERS[size]
      yield Published(size, variant, "crosscoder", False, layers, width, l0)
  if size in _WITH_CLT:
    for width in ("262k", "524k"):
      for l0 in ("medium", "big"):
        for a in (False, True):
          yield Published(size, variant, "clt", False, (), width, l0, a)


def _sweep(
  group: str,
  layers: Sequence[int],
  widths: Sequence[str],
  l0s: Sequence[str],
  affine: Sequence[bool],
) -> Iterator[tuple]:
  for layer in layers:
    for width in widths:
      for l0 in l0s:
        for a in affine:
          yield group, False, (layer,), width, l0, a
