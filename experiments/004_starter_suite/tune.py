"""One site, several recipes: how those of the starter suite were chosen.

    python experiments/004_starter_suite/tune.py "resid_post[5]" \
      "as it is:" "weak AuxK: aux_weight=0.03 dead_after=40000" \
      "slow: learning_rate=1e-3" "topk: recipe=batch_top_k learning_rate=1e-3"
    python experiments/004_starter_suite/tune.py "mlp_in[5]->mlp_write[5]" \
      "as it is: recipe=starter_transcoder" …

A variant is a name and fields of `Recipe`, `Sparsity`, `Revival` or `Optimiser`
that differ from `starter` (or from another `recipe`). All are trained side by
side on the same rows; then FVU, L0 and latents that never fire, on held-out
rows. Rows of a site are captured once, to out/004_starter_suite/rows; the
tokens are those that `run.py` makes. Cost on two CPU cores: three minutes to
capture 100,000 tokens, one minute for a variant of an SAE.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

import gemma_scope as gs
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.store import (
  Store,
  StoreRows,
  capture_to_store,
  open_writer,
)
from gemma_scope.dictionaries.quality import quality
from gemma_scope.sites import Site
from gemma_scope.training import presets
from gemma_scope.training.config import Group, TrainConfig
from gemma_scope.training.loop import train

OUT = pathlib.Path(__file__).parents[2] / "out" / "004_starter_suite"
ROWS = {"held_out": 16_384, "train": 100_000}
LAYERS = 18


def captured(lm: gs.LanguageModel, part: str, sites: Sequence[Site]) -> Store:
  """A store with rows of the sites, captured as far as they are not there.

  Args:
    lm: The model.
    part: Which tokens, a key of `ROWS`.
    sites: The sites.
  """
  names = "_".join(f"{site.name}_{site.layer}" for site in sites)
  path = OUT / "rows" / f"{part}_{names}"
  packing = PackingOptions(seq_len=512, batch_size=8, seed=1)
  corpus = Corpus.open(OUT / "tokens" / part)
  pipeline = TokenPipeline(corpus, lm.tokenizer, packing)
  harvest = Harvest(lm, sites)
  with open_writer(path, harvest, pipeline) as writer:
    capture_to_store(harvest, pipeline, writer, rows=ROWS[part])
  return Store.open(path)


def group_of(variant: str, site: str, steps: int) -> Group:
  """The group of one variant, `name: field=value …`.

  Args:
    variant: Its name, and what differs.
    site: What is trained, as `presets.parse` reads it.
    steps: Of the run: warm-ups and decay are shares of it.
  """
  name, _, text = variant.partition(":")
  given = dict(pair.split("=", 1) for pair in text.split())
  recipe = presets.RECIPES[given.pop("recipe", "starter")]
  values = {k: json.loads(v) for k, v in given.items()}
  times = {"warmup_steps": steps // 15, "decay_steps": steps // 2}
  parts = {
    "optimiser": dataclasses.replace(recipe.optimiser, **times),
    "sparsity": dataclasses.replace(recipe.sparsity, warmup_steps=steps // 8),
    "revival": recipe.revival,
  }
  for key, part in parts.items():
    fields = {f.name for f in dataclasses.fields(part)} & set(values)
    own = {f: values.pop(f) for f in fields}
    parts[key] = dataclasses.replace(part, **own)
  through = "->" in site
  width, l0 = (448, 20) if through else (1024, 40)
  group = presets.group_of(
    dataclasses.replace(recipe, **parts, **values),
    presets.parse(site, LAYERS),
    width,
    presets.Sweep((l0,)),
    affine_skip=through,
  )
  (member,) = group.members
  member = dataclasses.replace(member, name=name)
  return dataclasses.replace(group, members=(member,), name=name)


def main() -> None:
  """Trains the variants and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("site", help="such as resid_post[5]")
  parser.add_argument("variants", nargs="+", help="name: field=value …")
  parser.add_argument("--steps", type=int, default=420)
  parser.add_argument("--batch-rows", type=int, default=1024)
  options = parser.parse_args()
  groups = [group_of(v, options.site, options.steps) for v in options.variants]
  config = TrainConfig(tuple(groups), options.steps, scale="median")
  lm = gs.load("gemma-3-270m")
  rows = captured(lm, "train", config.sites)
  source = StoreRows(rows, batch_rows=options.batch_rows)
  trained = train(config, source, watch=_watch)
  held_out = captured(lm, "held_out", config.sites)
  every = np.arange(held_out.num_rows)
  for name, dictionary in trained.dictionaries.items():
    x, y = (
      jnp.asarray(held_out.rows(s[0], every), jnp.float32)
      for s in (dictionary.sites_in, dictionary.sites_out)
    )
    found = quality(dictionary, x, y)
    never = (np.asarray(dictionary.encode(x)) > 0).sum(axis=0) == 0
    print(
      f"{name:<20} FVU {found.fvu:.4f}  L0 {found.l0:.1f}  never fires "
      f"{never.mean():.1%}"
    )


def _watch(report: Any) -> None:
  shown = [
    f"{name} L0 {n['l0']:.1f} FVU {n['fvu']:.3f} dead {n['dead']:.0%}"
    for name, n in report.members.items()
  ]
  print(f"{report.step}/{report.steps}  {'; '.join(shown)}", flush=True)


if __name__ == "__main__":
  main()
