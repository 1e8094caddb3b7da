"""The folders of Gemma Scope 2, all five kinds -> dictionaries.

Single-layer: params.safetensors with w_enc [d_in, m], b_enc [m], threshold [m],
w_dec [m, d_out], b_dec [d_out] and, in an affine one, affine_skip_connection
[d_in, d_out]. Multi-layer: params_layer_{i}.safetensors for each position i,
the same with w_dec [m, n, d]. All are JumpReLU; scale and pre-encoder bias are
folded in. config.json is optional: what it would say is in the folder's name
and in the shapes. Arrays stay mapped; see `arrays.place`.

Decoders are dense over the output layers in the files. Of a CLT only the causal
part is kept, after a check that the rest is zero; a crosscoder whose earlier
layers are not zero stays dense.
"""

from collections.abc import Sequence
import logging
import os
import pathlib
import re

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.dictionaries.activations import JumpRelu
from gemma_scope.dictionaries.arrays import named
from gemma_scope.dictionaries.cross_layer import CrossLayer, LayerPart
from gemma_scope.dictionaries.gemma_scope_2_about import about_of
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.singles import single_layer
from gemma_scope.dictionaries.tensor_files import (
  Pattern,
  Tensors,
  check_shapes,
  read_tensors,
)
from gemma_scope.dictionaries.transcoder import Transcoder
from gemma_scope.errors import CheckpointError

_log = logging.getLogger(__name__)

SKIP = "affine_skip_connection"
_LAYER_FILE = re.compile(r"params_layer_(\d+)\.safetensors")
# Elements of a decoder that are compared with zero at most.
_MOST_CHECKED = 50_000_000


def is_gemma_scope_2(folder: str | os.PathLike) -> bool:
  """Whether a folder holds a dictionary in this layout, by its file names."""
  folder = pathlib.Path(folder)
  return (folder / "params.safetensors").is_file() or bool(layer_files(folder))


def gemma_scope_2_to_dictionary(
  folder: str | os.PathLike, *, name: str | None = None
) -> Sae | Transcoder | CrossLayer:
  """Opens a dictionary of Gemma Scope 2, or one written in its layout.

  Args:
    folder: With params.safetensors or params_layer_{i}.safetensors.
    name: What it is called, such as "gemma-scope-2-270m-pt/resid_post/
      layer_12_width_16k_l0_medium"; the folder's path by default.

  Returns:
    The dictionary with mapped arrays.

  Raises:
    CheckpointError: A file is missing, damaged or misnamed, shapes do not fit,
      or a CLT writes backwards.
    SiteError: Its sites cannot be told, or config.json and name disagree.
  """
  folder = pathlib.Path(folder)
  paths = layer_files(folder)
  if paths:
    return _open_layers(folder, paths, name)
  tensors = read_tensors(folder / "params.safetensors")
  about = about_of(folder, name, files=1)
  if len(about.sites_in) != 1:
    raise _wrong_files(folder, "params.safetensors", about)
  return _open_single(folder, tensors, about)


def layer_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """params_layer_0.safetensors, … in order.

  Raises:
    CheckpointError: One is missing in between.
  """
  found = {}
  for path in folder.glob("params_layer_*.safetensors"):
    if match := _LAYER_FILE.fullmatch(path.name):
      found[int(match[1])] = path
  gaps = sorted(set(range(max(found, default=-1) + 1)) - set(found))
  if gaps:
    raise CheckpointError(
      "The folder lacks layers of the dictionary.",
      received=f"{folder}: no params_layer_{gaps[0]}.safetensors, but one of "
      f"{max(found)}",
      instead="the files of all layers; download the missing ones",
    )
  return [found[i] for i in sorted(found)]


def _open_single(
  folder: pathlib.Path, tensors: Tensors, about: About
) -> Sae | Transcoder:
  pattern = _pattern(("m", "e"), SKIP in tensors)
  if about.kind == "sae":
    pattern |= {"w_dec": ("m", "d"), "b_dec": ("d",)}
  check_shapes(tensors, pattern, folder)
  if about.kind == "sae" and SKIP in tensors:
    raise CheckpointError(
      "Only transcoders and CLTs have an affine skip.",
      received=f"{folder}: {SKIP} in an SAE",
      instead="a folder of transcoder/…_affine",
    )
  return single_layer(
    about,
    encoder=_encoder(tensors),
    decoder=(
      named(tensors["w_dec"], axes.LATENTS, axes.OUTPUT),
      named(tensors["b_dec"], axes.OUTPUT),
    ),
    activation=_jump_relu(tensors),
    skip=_skip(tensors),
  )


def _open_layers(
  folder: pathlib.Path, paths: Sequence[pathlib.Path], name: str | None
) -> CrossLayer:
  files = [read_tensors(path) for path in paths]
  about = about_of(folder, name, files=len(paths))
  count = len(about.sites_in)
  if count != len(paths):
    raise _wrong_files(folder, f"{len(paths)} params_layer files", about)
  pattern = _pattern(("m", count, "e"), SKIP in files[0])
  sizes = [check_shapes(t, pattern, p) for t, p in zip(files, paths)]
  if any(size != sizes[0] for size in sizes):
    raise CheckpointError(
      "The layers of the dictionary have different sizes.",
      received=f"{folder}: {sizes}",
      instead="files of one dictionary",
    )
  decoders = [tensors["w_dec"] for tensors in files]
  causal = _is_causal(decoders, folder, about)
  parts = [
    _layer_part(t, w[:, i:] if causal else w)
    for i, (t, w) in enumerate(zip(files, decoders))
  ]
  return CrossLayer(tuple(parts), about, causal)


def _layer_part(tensors: Tensors, w_dec: np.ndarray) -> LayerPart:
  w_enc, b_enc = _encoder(tensors)
  return LayerPart(
    w_enc=w_enc,
    b_enc=b_enc,
    w_dec=named(w_dec, axes.LATENTS, axes.LAYER, axes.OUTPUT),
    b_dec=named(tensors["b_dec"], axes.OUTPUT),
    activation=_jump_relu(tensors),
    skip=_skip(tensors),
  )


def _is_causal(
  decoders: Sequence[np.ndarray], folder: pathlib.Path, about: About
) -> bool:
  """Whether nothing is written to earlier layers; refuses a CLT that does.

  Of very wide decoders evenly spaced latents are looked at, not all.
  """
  for i, w in enumerate(decoders):
    if i == 0:
      continue
    step = max(1, w.shape[0] * i * w.shape[2] // _MOST_CHECKED)
    if not np.any(w[::step, :i]):
      continue
    if about.kind == "crosscoder":
      _log.info("%s writes to earlier layers: it stays dense", folder)
      return False
    later = np.any(w[::step, len(decoders) - i :])
    hint = "" if later else "; its last slots are zero instead"
    share = float(np.square(w[::step, :i], dtype=np.float64).sum())
    share /= float(np.square(w[::step], dtype=np.float64).sum())
    raise CheckpointError(
      "A cross-layer transcoder writes to layers before its own.",
      received=f"{folder}: layer {i}, {share:.2g} of the decoder's energy"
      + hint,
      instead="decoders [latents, layers, d] that are zero before their layer",
    )
  return True


def _pattern(decoder: tuple[str | int, ...], affine: bool) -> dict:
  pattern: Pattern = {
    "w_enc": ("d", "m"),
    "b_enc": ("m",),
    "threshold": ("m",),
    "w_dec": decoder,
    "b_dec": ("e",),
  }
  return {**pattern, SKIP: ("d", "e")} if affine else dict(pattern)


def _encoder(tensors: Tensors) -> tuple[pz.nx.NamedArray, pz.nx.NamedArray]:
  return (
    named(tensors["w_enc"], axes.INPUT, axes.LATENTS),
    named(tensors["b_enc"], axes.LATENTS),
  )


def _jump_relu(tensors: Tensors) -> JumpRelu:
  return JumpRelu(named(tensors["threshold"], axes.LATENTS))


def _skip(tensors: Tensors) -> pz.nx.NamedArray | None:
  if SKIP not in tensors:
    return None
  return named(tensors[SKIP], axes.INPUT, axes.OUTPUT)


def _wrong_files(
  folder: pathlib.Path, found: str, about: About
) -> CheckpointError:
  return CheckpointError(
    "The folder's files are not those of the dictionary that it is said to be.",
    received=f"{folder}: {found} for a {about.kind} of {len(about.sites_in)} "
    "sites",
    instead="one params_layer_{i}.safetensors for each site of a crosscoder or "
    "CLT, one params.safetensors for any other",
  )
