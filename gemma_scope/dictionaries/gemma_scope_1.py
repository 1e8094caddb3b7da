"""Gemma Scope 1's params.npz -> an SAE, to look at and not to splice.

    layer_12/width_16k/average_l0_82/params.npz
    W_enc [d, m], W_dec [m, d], b_enc [m], b_dec [d], threshold [m]

These SAEs are of Gemma 2, which is no model here: encoding and decoding work on
vectors from elsewhere; splicing one into a Gemma 3 is refused (`About.model` is
the name of the Gemma 2). Its transcoders read the pre-feed-forward norm without
its gain, which no site gives, and are not read.
"""

import os
import pathlib
import re
import zipfile

import numpy as np

from gemma_scope import axes
from gemma_scope.dictionaries.activations import JumpRelu
from gemma_scope.dictionaries.arrays import named
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.tensor_files import check_shapes
from gemma_scope.errors import CheckpointError, SiteError
from gemma_scope.sites import Site

FILE = "params.npz"
MODEL = "Gemma 2"
_SITES = {"res": "resid_post", "att": "z", "mlp": "mlp_write"}
_PATH = re.compile(r"layer_(\d+)/width_\w+/average_l0_(\d+)")
_REPOSITORY = re.compile(r"gemma-scope-(?:2b|9b|27b)-(?:pt|it)-(\w+)")


def gemma_scope_1_to_dictionary(
  folder: str | os.PathLike, *, name: str | None = None, site: str | None = None
) -> Sae:
  """Opens an SAE of Gemma Scope 1.

  Args:
    folder: With params.npz.
    name: What to go by instead of the path, such as "gemma-scope-2b-pt-res/
      layer_12/width_16k/average_l0_82".
    site: "resid_post[12]" where neither path nor name tells.

  Raises:
    CheckpointError: The file is missing, damaged or misshapen.
    SiteError: The site cannot be told.
  """
  folder = pathlib.Path(folder)
  path = folder / FILE
  tensors = _read(path)
  pattern = {
    "W_enc": ("d", "m"),
    "b_enc": ("m",),
    "threshold": ("m",),
    "W_dec": ("m", "d"),
    "b_dec": ("d",),
  }
  check_shapes(tensors, pattern, path)
  return Sae(
    w_enc=named(tensors["W_enc"], axes.INPUT, axes.LATENTS),
    b_enc=named(tensors["b_enc"], axes.LATENTS),
    w_dec=named(tensors["W_dec"], axes.LATENTS, axes.OUTPUT),
    b_dec=named(tensors["b_dec"], axes.OUTPUT),
    activation=JumpRelu(named(tensors["threshold"], axes.LATENTS)),
    b_in=None,
    about=_about(name or folder.resolve().as_posix(), site),
  )


def refuse_gemma_2(about: About) -> None:
  """Refuses a dictionary of Gemma 2 where a Gemma 3 is to take it.

  Raises:
    SiteError: `about` is of Gemma Scope 1.
  """
  if about.model == MODEL:
    raise SiteError(
      "This dictionary is of Gemma 2, and the model is a Gemma 3.",
      received=str(about),
      instead="a dictionary of Gemma Scope 2, such as "
      "gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium; "
      "encode and decode work on vectors of Gemma 2 from elsewhere",
    )


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with open(path, "rb") as file, np.load(file) as stored:
      return {name: stored[name] for name in stored.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise CheckpointError(
      "The file of the dictionary cannot be read.",
      received=f"{path}: {error}",
      instead="a whole params.npz of Gemma Scope 1; download it again",
    ) from error


def _about(text: str, site: str | None) -> About:
  path = _PATH.search(text)
  repository = _REPOSITORY.search(text)
  l0 = float(path[2]) if path else None
  if site is None and path and repository and repository[1] in _SITES:
    site = f"{_SITES[repository[1]]}[{path[1]}]"
  match = re.fullmatch(r"(\w+)\[(\d+)\]", site or "")
  if match is None:
    raise SiteError(
      "What this dictionary reads cannot be told from its path.",
      received=text,
      instead='site="resid_post[12]", or name="gemma-scope-2b-pt-res/layer_12/'
      'width_16k/average_l0_82"',
    )
  address = Site(match[1], int(match[2]))
  return About("sae", (address,), (address,), l0=l0, model=MODEL, name=text)
