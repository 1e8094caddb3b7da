"""What a folder of Gemma Scope 2 says of itself: config.json, name, shapes.

The name of the folder (and of the one above it) and config.json tell kind,
sites, model and l0; where both tell, they must agree. model_name is met without
its owner and with -v3 for -3.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import re
from typing import Any

from gemma_scope import site_aliases
from gemma_scope.dictionaries import published
from gemma_scope.dictionaries.protocol import KINDS, About
from gemma_scope.errors import CheckpointError, SiteError
from gemma_scope.sites import Site
from gemma_scope.weights import catalog

_REPOSITORY = re.compile(r"gemma-scope-2-(?:270m|1b|4b|12b|27b)-(?:pt|it)")
_GROUP = re.compile(
  r"(resid_post|attn_out|mlp_out|transcoder|crosscoder|clt)(?:_all)?/"
  r"((?:layer_\d|width_)[^/]*)$"
)


def about_of(folder: pathlib.Path, name: str | None, *, files: int) -> About:
  """Describes the dictionary in a folder.

  Args:
    folder: With or without config.json.
    name: What to go by instead of the folder's path.
    files: How many files of parameters it has.

  Raises:
    CheckpointError: config.json cannot be read.
    SiteError: The sites cannot be told, or two sources disagree.
  """
  config = read_config(folder)
  text = name or os.path.abspath(folder).replace(os.sep, "/")
  entry = published.find(_published_part(text))
  group, layers = _group_and_layers(text)
  model = _model_of(config) or (entry.model if entry else None)
  kind = config.get("type") or _kind_of(group)
  depth = _depth(model) or files
  named_sites = _sites_of_name(group, layers, depth)
  given = _sites_of_config(config, depth)
  sites = given or named_sites
  if sites is None or kind not in KINDS:
    raise SiteError(
      "What this dictionary reads and rebuilds cannot be told.",
      received=f"{text}: type {kind!r}, sites {sites}",
      instead="keep config.json, or a name such as "
      "resid_post/layer_12_width_16k_l0_medium or clt/width_262k_l0_big",
    )
  if given and named_sites and given != named_sites:
    raise _disagreement(text, given, named_sites)
  target = config.get("l0") or (entry.l0_target if entry else None)
  return About(
    kind=str(kind),
    sites_in=sites[0],
    sites_out=sites[1],
    heads=_heads(model),
    prefixes=tuple(config.get("matryoshka_prefixes", ())),
    l0=None if target is None else float(target),
    model=model,
    name=entry.name if entry else (name or folder.name),
  )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """The folder's config.json; empty where there is none.

  Raises:
    CheckpointError: It is no JSON object.
  """
  path = folder / "config.json"
  if not path.is_file():
    return {}
  try:
    config = json.loads(path.read_bytes())
    return dict(config.items())
  except (ValueError, AttributeError) as error:
    raise CheckpointError(
      "The dictionary's config.json cannot be read.",
      received=f"{path}: {error}",
      instead="download it again, or remove it: it is optional",
    ) from error


def model_name(text: object) -> str | None:
  """The catalogue's name for what a file calls the model, or None."""
  if not isinstance(text, str):
    return None
  entry = catalog.find(text.lower().replace("-v3-", "-3-"))
  return entry.name if entry else None


def _model_of(config: Mapping[str, Any]) -> str | None:
  return model_name(config.get("model_name"))


def _published_part(text: str) -> str:
  """From the repository on, where the path holds it; snapshots too."""
  found = list(_REPOSITORY.finditer(text))
  group = _GROUP.search(text)
  return f"{found[-1][0]}/{group[0]}" if found and group else ""


def _group_and_layers(text: str) -> tuple[str | None, tuple[int, ...]]:
  match = _GROUP.search(text)
  if match is None:
    return None, ()
  numbers = re.match(r"layer_(\d+(?:_\d+)*)(?:_\D|$)", match[2])
  layers = tuple(map(int, numbers[1].split("_"))) if numbers else ()
  return match[1], layers


def _kind_of(group: str | None) -> str | None:
  return "sae" if group in published.SITE_OF else group


Sites = tuple[tuple[Site, ...], tuple[Site, ...]]


def _sites_of_name(
  group: str | None, layers: Sequence[int], depth: int
) -> Sites | None:
  if group == "clt":
    layers = range(depth)
  if group is None or not layers:
    return None
  pairs = {"crosscoder": ("resid_post", "resid_post")}
  pairs |= dict.fromkeys(("transcoder", "clt"), ("mlp_in", "mlp_write"))
  pairs |= {k: (v, v) for k, v in published.SITE_OF.items()}
  first, second = pairs[group]
  return (
    tuple(Site(first, layer) for layer in layers),
    tuple(Site(second, layer) for layer in layers),
  )


def _sites_of_config(config: Mapping[str, Any], depth: int) -> Sites | None:
  """Sites from the hook points; None where it has none."""
  first = _resolved(config.get("hf_hook_point_in"), depth)
  if first is None:
    return None
  return first, _resolved(config.get("hf_hook_point_out"), depth) or first


def _resolved(hooks: object, depth: int) -> tuple[Site, ...] | None:
  """One hook, a list of them, or one with a place for the layer."""
  if not hooks:
    return None
  given = [hooks] if isinstance(hooks, str) else hooks
  if not isinstance(given, list | tuple):
    return None
  spread: list[str] = []
  for hook in map(str, given):
    mark = re.search(r"\{\w*\}|\*", hook)  # {layer}, {L} or *
    layers = range(depth) if mark else (0,)
    spread += [hook.replace(mark[0], str(i)) if mark else hook for i in layers]
  return tuple(site_aliases.alias_to_site(hook, depth) for hook in spread)


def _depth(model: str | None) -> int | None:
  return catalog.lookup(model).sizes.num_layers if model else None


def _heads(model: str | None) -> int | None:
  return catalog.lookup(model).sizes.num_heads if model else None


def _disagreement(text: str, given: Sites, named_sites: Sites) -> SiteError:
  def show(sites: Sites) -> str:
    return " -> ".join(", ".join(map(str, s)) for s in dict.fromkeys(sites))

  return SiteError(
    "config.json and the folder's name mean different sites.",
    received=f"{text}: {show(given)} by config.json, {show(named_sites)} by "
    "name",
    instead="the folder and config.json as they were published",
  )
