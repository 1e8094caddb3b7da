"""Sites: the one address of an activation.

A site is a named identity layer of the model; `resid_post[12]` is its address.
This file says which tensor each name stands for and turns what a user types
into addresses. Names of other tools are in `site_aliases`; it reads no model.
"""

from collections.abc import Iterable
import dataclasses
import difflib
import functools
import operator
import re

from gemma_scope import axes, errors

_STREAM = (axes.BATCH, axes.SEQ, axes.EMBEDDING)
_PER_HEAD = (axes.BATCH, axes.SEQ, axes.HEADS, axes.PROJECTION)
_PER_KV_HEAD = (axes.BATCH, axes.SEQ, axes.KV_HEADS, axes.PROJECTION)


@dataclasses.dataclass(frozen=True)
class SiteInfo:
  """What one site name stands for.

  Attributes:
    meaning: One sentence: exactly which tensor.
    axes: Its axis names, in order (see `gemma_scope.axes`).
    per_layer: Whether every decoder layer has one.
  """

  meaning: str
  axes: tuple[str, ...]
  per_layer: bool = True


SITES: dict[str, SiteInfo] = {
  "embed": SiteInfo(
    "the token embedding after the sqrt(d_model) scaling; equals resid_pre[0]",
    _STREAM,
    per_layer=False,
  ),
  "resid_pre": SiteInfo(
    "the residual stream that enters the decoder layer, before any norm",
    _STREAM,
  ),
  "attn_in": SiteInfo(
    "the output of the pre-attention norm, gain (1+w) included",
    _STREAM,
  ),
  "query": SiteInfo(
    "the queries after QK-norm and RoPE, before the score scale: "
    "what enters the dot product",
    _PER_HEAD,
  ),
  "key": SiteInfo(
    "the keys after QK-norm and RoPE: what enters the dot product",
    _PER_KV_HEAD,
  ),
  "value": SiteInfo(
    "the raw output of the value projection (no norm, no RoPE)",
    _PER_KV_HEAD,
  ),
  "pattern": SiteInfo(
    "the attention probabilities, after mask and softmax",
    (axes.BATCH, axes.HEADS, axes.SEQ, axes.KV_SEQ),
  ),
  "z": SiteInfo(
    "the pattern-weighted values of every head, before W_O "
    "(concatenated: Gemma Scope 2's attn_out, the input of o_proj)",
    _PER_HEAD,
  ),
  "attn_proj": SiteInfo(
    "the raw output of W_O, before the post-attention norm",
    _STREAM,
  ),
  "attn_write": SiteInfo(
    "the output of the post-attention norm: "
    "what attention adds to the residual stream",
    _STREAM,
  ),
  "resid_mid": SiteInfo(
    "the residual stream between attention and feed-forward, before any norm",
    _STREAM,
  ),
  "mlp_in": SiteInfo(
    "the output of the pre-feed-forward norm, gain (1+w) included "
    "(what Gemma Scope 2's transcoders read)",
    _STREAM,
  ),
  "mlp_act": SiteInfo(
    "gelu(gate) * up: the hidden units that enter the down projection",
    (axes.BATCH, axes.SEQ, axes.NEURONS),
  ),
  "mlp_proj": SiteInfo(
    "the raw output of the down projection, before the post-feed-forward norm",
    _STREAM,
  ),
  "mlp_write": SiteInfo(
    "the output of the post-feed-forward norm: "
    "what the feed-forward adds to the residual stream",
    _STREAM,
  ),
  "resid_post": SiteInfo(
    "the residual stream that leaves the decoder layer, before any norm",
    _STREAM,
  ),
  "final_norm": SiteInfo(
    "the output of the final norm, gain (1+w) included",
    _STREAM,
    per_layer=False,
  ),
  "logits": SiteInfo(
    "the logits over the vocabulary, before any softmax",
    (axes.BATCH, axes.SEQ, axes.VOCABULARY),
    per_layer=False,
  ),
}

_POSITION = {name: i for i, name in enumerate(SITES)}

# What a norm ends in, so that the factor it multiplies by has an address.
NORMED = (
  *("attn_in", "query", "key", "attn_write", "mlp_in", "mlp_write"),
  "final_norm",
)
# Parts of a site: what surgery puts there has activations of its own. The
# number says where it stands: before the site's value (-1) or after it.
PARTS: dict[str, tuple[str, int]] = {
  "inverse_rms": ("the factor 1 / rms of the norm that gives", -1),
  "latents": ("the latents of the dictionary that reads", 1),
  "error": ("what the dictionary spliced in leaves out of", 2),
  "rehearsal": ("before a dictionary that reads ahead writes:", 3),
}


@functools.cache
def info_of(name: str) -> SiteInfo:
  """Meaning and axes of a site, or of a part such as "resid_post.latents".

  Raises:
    SiteError: If there is no such site, or it has no such part.
  """
  base, dot, part = name.partition(".")
  if not dot and base in SITES:
    return SITES[base]
  held = SITES.get(base)
  whole = part != "inverse_rms" or base in NORMED
  if held is None or part not in PARTS or not whole:
    raise unknown_site(name)
  names = held.axes
  if part == "latents":
    names = (axes.BATCH, axes.SEQ, axes.LATENTS)
  elif part == "inverse_rms":
    names = names[:-1]
  return SiteInfo(f"{PARTS[part][0]} {base}", names, held.per_layer)


@functools.total_ordering
@dataclasses.dataclass(frozen=True)
class Site:
  """The address of one activation; prints as `resid_post[12]` or `embed`.

  Sites compare in forward order (see `forward_order`), so that a dictionary
  keyed by sites has the same leaf order in JAX as in the model.

  Attributes:
    name: A key of `SITES`, or of a part: "resid_post.latents".
    layer: The decoder layer, counted from 0; None for embed, final_norm and
      logits.
  """

  name: str
  layer: int | None = None

  def __post_init__(self):
    if not self.info.per_layer:
      if self.layer is not None:
        raise _needs_no_layer(self.name, f"Site({self.name!r}, {self.layer!r})")
      return
    object.__setattr__(self, "layer", _layer_index(self.name, self.layer))

  @property
  def info(self) -> SiteInfo:
    """Meaning and axes of this site."""
    return info_of(self.name)

  @property
  def base(self) -> str:
    """The name without its part: resid_post of `resid_post[12].latents`."""
    return self.name.partition(".")[0]

  @property
  def latents(self) -> "Site":
    """The latents of the dictionary that reads this site."""
    return Site(f"{self.base}.latents", self.layer)

  @property
  def error(self) -> "Site":
    """What the dictionary spliced in here leaves out."""
    return Site(f"{self.base}.error", self.layer)

  @property
  def inverse_rms(self) -> "Site":
    """The factor 1 / rms of the norm whose output this is."""
    return Site(f"{self.base}.inverse_rms", self.layer)

  def __str__(self) -> str:
    base, dot, part = self.name.partition(".")
    layer = "" if self.layer is None else f"[{self.layer}]"
    return f"{base}{layer}{dot}{part}"

  def __lt__(self, other: object) -> bool:
    if not isinstance(other, Site):
      return NotImplemented
    return forward_order(self) < forward_order(other)


def forward_order(site: Site) -> tuple[int, int, int]:
  """A sort key: the order in which one forward pass computes the sites.

  Args:
    site: Any site.

  Returns:
    (part, layer, position in the layer); part is 0 for embed, 1 for the
    decoder layers and 2 for what follows them.
  """
  base, _, part = site.name.partition(".")
  position = 5 * _POSITION[base] + (PARTS[part][1] if part else 0)
  if site.layer is not None:
    return 1, site.layer, position
  return (0 if base == "embed" else 2), 0, position


def resolve(
  specs: str | Site | Iterable[str | Site], num_layers: int
) -> tuple[Site, ...]:
  """Turns what a user types into addresses.

  Args:
    specs: Sites, or strings such as "embed", "resid_post[12]",
      "resid_post[-1]", "pattern[:]", "z[3:9]", "z[::2]", "z[1,4,7]",
      "resid_post[12].latents", or a name from another tool (see
      `site_aliases.alias_to_site`); one or many.
    num_layers: Number of decoder layers of the model.

  Returns:
    The addresses without duplicates, in forward order.

  Raises:
    SiteError: A spec that names no site, more than one tensor, or a layer
      that the model does not have.
  """
  if isinstance(specs, str | Site):
    specs = (specs,)
  found: set[Site] = set()
  for spec in specs:
    if isinstance(spec, Site):
      found.add(_in_range(spec, num_layers, str(spec)))
    elif isinstance(spec, str):
      found.update(_parse(spec, num_layers))
    elif getattr(spec, "indices", 0) is None:  # a dictionary's latents
      found.update(_parse(str(spec).partition("[:]")[0], num_layers))
    else:
      raise errors.SiteError(
        "A site is given as a string or a Site.",
        received=f"{spec!r} ({type(spec).__name__})",
        instead='type for example "resid_post[12]" or Site("resid_post", 12)',
      )
  return tuple(sorted(found))


def _parse(spec: str, num_layers: int) -> list[Site]:
  match = re.fullmatch(
    r"\s*(\w+)\s*(?:\[([^\[\]]*)\])?\s*(?:\.(\w+)\s*)?", spec
  )
  if match is None or match[1] not in SITES:
    from gemma_scope import site_aliases  # it imports Site from here

    site = site_aliases.alias_to_site(spec, num_layers)
    return [_in_range(site, num_layers, spec)]
  name, inside, part = match[1], match[2], match[3]
  whole = f"{name}.{part}" if part else name
  if not info_of(whole).per_layer:
    if inside is not None:
      raise _needs_no_layer(name, spec)
    return [Site(whole)]
  if inside is None:
    raise errors.SiteError(
      f"Every layer has its own {name}; say which.",
      received=spec,
      instead=f'"{name}[:]" for all layers, "{name}[-1]" for the last',
    )
  layers = [i for s in inside.split(",") for i in _layers(s, spec, num_layers)]
  return [Site(whole, layer) for layer in layers]


def _layers(text: str, spec: str, num_layers: int) -> list[int]:
  """Layers meant by one index or slice between the brackets of `spec`."""
  if re.fullmatch(r"\s*[+-]?\d+\s*", text):
    index = int(text)
    layer = index + num_layers if index < 0 else index
    if not 0 <= layer < num_layers:
      raise _out_of_range(spec, num_layers)
    return [layer]
  if not re.fullmatch(r"[\s\d+-]*(:[\s\d+-]*){1,2}", text):
    raise _bad_index(spec)
  try:
    parts = [int(p) if p.strip() else None for p in text.split(":")]
    layers = list(range(num_layers))[slice(*parts)]
  except ValueError as error:  # "3-9", or a step of zero
    raise _bad_index(spec) from error
  if not layers:
    raise errors.SiteError(
      f"The slice matches none of the {num_layers} layers.",
      received=spec,
      instead=f"choose layers between 0 and {num_layers - 1}",
    )
  return layers


def _in_range(site: Site, num_layers: int, received: str) -> Site:
  if site.layer is not None and site.layer >= num_layers:
    raise _out_of_range(received, num_layers)
  return site


def _layer_index(name: str, layer: object) -> int:
  try:
    index = operator.index(layer)  # type: ignore[arg-type]
  except TypeError:
    index = -1
  if index < 0 or isinstance(layer, bool):
    raise errors.SiteError(
      f"The layer of {name} must be a whole number from 0.",
      received=f"Site({name!r}, {layer!r})",
      instead=f'Site("{name}", 0); strings such as "{name}[-1]" count from '
      "the end",
    )
  return index


def unknown_site(name: str) -> errors.SiteError:
  """The error for a name that is no site: the nearest names, then all."""
  close = difflib.get_close_matches(name.split("[")[0], SITES, n=3, cutoff=0.5)
  hint = f"did you mean {' or '.join(close)}? " if close else ""
  return errors.SiteError(
    "There is no site of this name.",
    received=name,
    instead=f"{hint}sites are {', '.join(SITES)}",
  )


def _needs_no_layer(name: str, received: str) -> errors.SiteError:
  return errors.SiteError(
    f"There is one {name} in the model, not one a layer.",
    received=received,
    instead=f'"{name}"',
  )


def _out_of_range(received: str, num_layers: int) -> errors.SiteError:
  return errors.SiteError(
    f"The model has {num_layers} layers.",
    received=received,
    instead=f"a layer from 0 to {num_layers - 1} (or -1 to -{num_layers}, "
    "from the end)",
  )


def _bad_index(received: str) -> errors.SiteError:
  return errors.SiteError(
    "The part in brackets is no layer, list of layers or slice.",
    received=received,
    instead="for example [12], [-1], [1,4,7], [3:9], [::2] or [:]",
  )
