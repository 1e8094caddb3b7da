"""Files of dictionaries in the layouts of other projects, small and random.

Each maker writes what was published, or what the other library writes, with
code that shares nothing with the readers it is there to test, and returns the
arrays it wrote.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import safetensors.numpy

Arrays = dict[str, np.ndarray]
Folder = str | os.PathLike


def random_layer(
  d_in: int,
  latents: int,
  *decoder: int,
  affine: bool = False,
  seed: int = 0,
) -> Arrays:
  """The tensors of one file of Gemma Scope 2.

  Args:
    d_in: Width of the vectors it reads.
    latents: How many latents.
    *decoder: Shape of the decoder behind the latents: (d,) or (n, d).
    affine: Whether there is an affine skip.
    seed: Of the generator.
  """
  rng = np.random.default_rng(seed)

  def normal(*shape: int) -> np.ndarray:
    return (0.3 * rng.standard_normal(shape)).astype(np.float32)

  arrays = {
    "w_enc": normal(d_in, latents),
    "b_enc": normal(latents),
    "threshold": rng.uniform(0.5, 1.5, latents).astype(np.float32),
    "w_dec": normal(latents, *decoder),
    "b_dec": normal(decoder[-1]),
  }
  if affine:
    arrays["affine_skip_connection"] = normal(d_in, decoder[-1])
  return arrays


def write_single(
  folder: Folder, arrays: Arrays, config: Mapping[str, Any] | None = None
) -> pathlib.Path:
  """A folder of resid_post, attn_out, mlp_out or transcoder.

  Args:
    folder: Where; it is made.
    arrays: From `random_layer`.
    config: config.json; None leaves it out.
  """
  folder = _made(folder)
  safetensors.numpy.save_file(arrays, folder / "params.safetensors")
  _write_config(folder, config)
  return folder


def write_layers(
  folder: Folder,
  layers: list[Arrays],
  config: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """A folder of crosscoder or clt, one file a layer."""
  folder = _made(folder)
  for i, arrays in enumerate(layers):
    path = folder / f"params_layer_{i}.safetensors"
    safetensors.numpy.save_file(arrays, path)
  _write_config(folder, config)
  return folder


def random_layers(
  count: int, d: int, latents: int, *, affine: bool = False, seed: int = 0
) -> list[Arrays]:
  """The files of a causal crosscoder or CLT: earlier layers are zero."""
  layers = []
  for i in range(count):
    arrays = random_layer(
      d, latents, count, d, affine=affine, seed=100 * seed + i
    )
    arrays["w_dec"][:, :i] = 0
    layers.append(arrays)
  return layers


def write_gemma_scope_1(folder: Folder, arrays: Arrays) -> pathlib.Path:
  """params.npz of Gemma Scope 1."""
  folder = _made(folder)
  names = {"w_enc": "W_enc", "w_dec": "W_dec"}
  renamed: dict[str, Any] = {names.get(n, n): a for n, a in arrays.items()}
  np.savez(folder / "params.npz", **renamed)
  return folder


def write_saelens(
  folder: Folder, arrays: Arrays, config: Mapping[str, Any]
) -> pathlib.Path:
  """cfg.json and sae_weights.safetensors of SAELens."""
  folder = _made(folder)
  safetensors.numpy.save_file(arrays, folder / "sae_weights.safetensors")
  (folder / "cfg.json").write_text(json.dumps(config))
  return folder


def write_examples(
  folder: Folder, latents: int, *, texts: int = 5, top: int = 7, seed: int = 0
) -> Arrays:
  """examples.safetensors of Gemma Scope 2."""
  rng = np.random.default_rng(seed)
  strengths = -np.sort(-rng.uniform(0, 9, (latents, top)), axis=1)
  strengths[:, -2:] = 0  # padding
  arrays = {
    "tokens": rng.integers(3, 500, (texts, 512), dtype=np.int32),
    "activations": strengths.astype(np.float32),
    "seq_ids": rng.integers(0, texts, (latents, top), dtype=np.int32),
    "positions": rng.integers(0, 512, (latents, top), dtype=np.int32),
    "logit_effects": rng.standard_normal((latents, 1000)).astype(np.float32),
    "feature_frequencies": rng.uniform(0, 0.1, latents).astype(np.float32),
  }
  for end in ("top", "bottom"):
    ids = rng.integers(3, 500, (latents, 10), dtype=np.int32)
    arrays[f"{end}_tokens"] = ids
    arrays[f"{end}_logits"] = rng.standard_normal((latents, 10)).astype(
      np.float32
    )
  path = _made(folder) / "examples.safetensors"
  safetensors.numpy.save_file(arrays, path)
  return arrays


def fill_hub_cache(
  cache: Folder, repository: str, folder: Folder, name: str
) -> pathlib.Path:
  """Puts a folder into a hub cache, as a download would have.

  Args:
    cache: The cache's root.
    repository: Such as "google/gemma-scope-2-270m-pt".
    folder: What to copy.
    name: Its place in the repository.

  Returns:
    The folder in the cache.
  """
  commit = "c0ffee" + "0" * 34
  root = pathlib.Path(cache) / f"models--{repository.replace('/', '--')}"
  refs = _made(root / "refs")
  (refs / "main").write_text(commit)
  place = root / "snapshots" / commit / name
  shutil.copytree(folder, place, dirs_exist_ok=True)
  return place


def _write_config(
  folder: pathlib.Path, config: Mapping[str, Any] | None
) -> None:
  if config is not None:
    (folder / "config.json").write_text(json.dumps(config))


def _made(folder: Folder) -> pathlib.Path:
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  return path
