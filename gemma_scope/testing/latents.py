"""Random tables of latents, and small suites of random dictionaries."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from gemma_scope.dictionaries.latent_table import (
  EDGES,
  NOTHING,
  LatentTable,
)
from gemma_scope.dictionaries.protocol import Dictionary
from gemma_scope.dictionaries.suite_writer import pack_suite
from gemma_scope.testing.dictionaries import random_sae, random_transcoder


def random_table(
  latents: int = 64,
  *,
  examples: int = 3,
  window: int = 6,
  vocabulary: int = 512,
  seed: int = 0,
) -> LatentTable:
  """A table of made-up windows; latent 1 is dead, latent 2 has one example.

  Args:
    latents: How many.
    examples: Windows of each.
    window: Tokens of each.
    vocabulary: Token ids are below it.
    seed: Of the generator.
  """
  rng = np.random.default_rng(seed)
  shape = (latents, examples, window)
  tokens = rng.integers(3, vocabulary, shape, dtype=np.int32)
  activations = rng.gamma(1.0, 20.0, shape) * (rng.random(shape) < 0.4)
  activations[:, :, window // 2] = 100 + 9 * rng.random((latents, examples))
  activations[:, :, window // 2].sort(axis=1)
  activations = activations[:, ::-1]
  nothing = np.zeros(shape, bool)
  nothing[1], nothing[2, 1:], nothing[3, 0, :2] = True, True, True
  counts = rng.integers(0, 900, (latents, len(EDGES)))
  counts[:, :20], counts[:, 34:], counts[1] = 0, 0, 0
  frequencies = rng.uniform(0.001, 0.2, latents)
  frequencies[1] = 0
  activations = np.where(nothing, 0, activations).astype(np.float32)
  return LatentTable(
    tokens=np.where(nothing, NOTHING, tokens),
    activations=activations,
    frequencies=frequencies.astype(np.float32),
    maxima=activations.max((1, 2)),
    histograms=counts.astype(np.int64),
    logit_tokens=rng.integers(0, vocabulary, (latents, 2, 4), dtype=np.int32),
    logit_values=_descending(rng.normal(0, 0.01, (latents, 2, 4))),
    counted=100_000,
  )


def _descending(values: np.ndarray) -> np.ndarray:
  """Favoured ones from the largest down, disfavoured from the smallest up."""
  sizes = -np.sort(-np.abs(values), axis=2)
  return (sizes * np.asarray([1, -1])[None, :, None]).astype(np.float32)


def random_suite(
  path: str | os.PathLike,
  *,
  model: str = "tiny",
  sae_layers: Sequence[int] = (1, 2),
  num_layers: int = 3,
  d: int = 32,
) -> pathlib.Path:
  """Writes a suite: SAEs of some layers, affine transcoders of all.

  Args:
    path: Where to.
    model: Name of the model they pretend to be of.
    sae_layers: Layers with an SAE of resid_post.
    num_layers: Number of transcoders.
    d: Width of the residual stream.
  """
  members: dict[str, Dictionary] = {}
  for i in sae_layers:
    members[f"resid_post/layer_{i}"] = random_sae(d=d, layer=i, seed=i)
  for i in range(num_layers):
    name, seed = f"transcoder/layer_{i}", 100 + i
    members[name] = random_transcoder(affine=True, d=d, layer=i, seed=seed)
  members = {name: _of(made, model) for name, made in members.items()}
  tables = {
    name: random_table(made.num_latents, seed=i)
    for i, (name, made) in enumerate(members.items())
  }
  first = next(iter(members))
  card = {
    "licence": "none",
    "metrics": {first: {"l0": 6.5, "fvu": 0.25}},
    "descriptions": {first: {"5": "made-up words"}},
  }
  return pack_suite(members, tables, card, path)


def _of(dictionary: Any, model: str) -> Any:
  about = dataclasses.replace(dictionary.about, model=model)
  return dictionary.with_about(about)
