"""Our recipe against SAELens' BatchTopK: same rows, width, order and L0.

    python -m benchmarks.sae_quality STORE HELD_OUT --peer-python PYTHON

STORE is a store of activations (`gemma-scope capture`) with the site; HELD_OUT
is text or tokens that are not in it. Ours is trained on the store's rows; then
SAELens' `SAETrainer.fit` on the same batches in the same order, k being the L0
that ours reached, once for every `--lr`. All are measured with the same
evaluation on the same held-out text, SAELens' also with its threshold moved to
where its L0 is ours. With `--ours NAME` a dictionary that is there stands in
for ours, and STORE may be a file of the batches that it was trained on:
bfloat16 as uint16, [4 + steps, rows, d], the first four for the scale alone.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import ROOT
import gemma_scope as gs
from gemma_scope.activations.corpus import Corpus, PackingOptions, TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.store import Store, StoreRows
from gemma_scope.dictionaries.activations import jump_relu
from gemma_scope.evals import dictionaries as evals
from gemma_scope.sites import Site, resolve

OURS = "ours"
SCALED_ON = 4  # batches at the beginning; on both sides for the scale alone


def parse() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("store", type=pathlib.Path)
  parser.add_argument("held_out", type=pathlib.Path)
  parser.add_argument("--peer-python", required=True)
  parser.add_argument("--model", default="gemma-3-270m")
  parser.add_argument("--layer", type=int, default=9, help="of resid_post")
  parser.add_argument("--width", type=int, default=1024)
  parser.add_argument("--l0", type=float, default=40, help="our target")
  parser.add_argument("--batch", type=int, default=4096)
  parser.add_argument("--steps", type=int, help="by default one epoch")
  parser.add_argument("--lr", type=float, nargs="*", default=[3e-4, 1e-3])
  parser.add_argument("--tokens", type=int, default=16_384, help="held out")
  parser.add_argument("--ours", help="a name or folder: no training of ours")
  parser.add_argument("--also", nargs="*", default=(), help="names or folders")
  parser.add_argument("--device", default="cpu", help="SAELens'")
  parser.add_argument("--out", type=pathlib.Path, default=ROOT / "out/quality")
  return parser.parse_args()


def write_rows(
  options: argparse.Namespace, site: Site, steps: int, path: pathlib.Path
) -> None:
  """The batches of training as SAELens' side reads them."""
  source = StoreRows(
    Store.open(options.store), [site], batch_rows=options.batch
  )
  first = np.asarray(next(source)[site])
  shape = (steps + SCALED_ON, *first.shape)
  rows = np.lib.format.open_memmap(path, "w+", np.uint16, shape)
  for i in range(len(rows)):
    batch = first if i == 0 else np.asarray(next(source)[site])
    rows[i] = np.asarray(batch.astype(jnp.bfloat16)).view(np.uint16)
  rows.flush()


def steps_and_batch(options: argparse.Namespace) -> tuple[int, int]:
  """How many steps of how many rows: all of a file, or what was asked for of a
  store.
  """
  if options.store.suffix == ".npy":
    if options.steps or not options.ours:
      raise SystemExit("A file of rows is for --ours NAME, without --steps.")
    count, batch, _ = np.load(options.store, mmap_mode="r").shape
    return count - SCALED_ON, batch
  there = Store.open(options.store).num_rows // options.batch
  return options.steps or there - SCALED_ON, options.batch


def make_ours(options: argparse.Namespace, site: Site, steps: int) -> Any:
  """The one that is there, or the recipe of the suite on the rows."""
  if options.ours:
    return gs.dictionaries.load(options.ours)
  config = gs.training.preset(
    "starter",
    [str(site)],
    steps=steps,
    width=options.width,
    sweep=gs.training.Sweep(l0=(options.l0,)),
  )
  config = dataclasses.replace(
    config, model=options.model, first_batches=SCALED_ON
  )
  source = StoreRows(
    Store.open(options.store), [site], batch_rows=options.batch
  )
  trained = gs.training.train(config, source, watch=_watch)
  return next(iter(trained.dictionaries.values()))


def _watch(report: Any) -> None:
  for name, numbers in report.members.items():
    shown = f"L0 {numbers['l0']:.1f} FVU {numbers['fvu']:.4f}"
    print(f"{report.step}/{report.steps} {name} {shown}", flush=True)


def train_theirs(
  options: argparse.Namespace, rows: pathlib.Path, k: float, lr: float
) -> Any:
  """SAELens' dictionary, read from the folder that it wrote."""
  folder = options.out / f"saelens_lr_{lr:g}"
  command = [options.peer_python, "-W", "ignore", "-m"]
  command += ["benchmarks.peers.saelens_train", str(rows), str(folder)]
  for name in ("width", "layer", "model", "device"):
    command += [f"--{name}", str(getattr(options, name))]
  subprocess.run(
    [*command, "--k", str(k), "--lr", str(lr)], cwd=ROOT, check=True
  )
  return gs.dictionaries.load(folder)


def held_out(options: argparse.Namespace, lm: gs.LanguageModel) -> list:
  """Packed batches of text that nobody was trained on."""
  packing = PackingOptions(seq_len=512, batch_size=4, seed=1)
  corpus = Corpus.open(options.held_out)
  kept, seen = [], 0
  for batch in TokenPipeline(corpus, lm.tokenizer, packing):
    kept.append(batch)
    seen += batch.num_counted
    if seen >= options.tokens:
      break
  return kept


def rows_of(lm: gs.LanguageModel, site: Site, batches: list) -> jax.Array:
  """The held-out rows that count."""
  return jnp.asarray(Harvest(lm, [site]).collect(batches)[site])


def at_l0(dictionary: Any, rows: jax.Array, l0: float) -> Any:
  """The same dictionary with one threshold for all, so that its L0 is `l0`."""
  open_ = dataclasses.replace(
    dictionary, activation=jump_relu(jnp.zeros(dictionary.num_latents))
  )
  parts = [np.asarray(open_.encode(part)) for part in jnp.split(rows, 8)]
  values = np.concatenate([part[part > 0] for part in parts])
  kept = min(int(l0 * len(rows)), len(values) - 1)
  threshold = np.partition(values, -kept - 1)[-kept - 1]
  return dataclasses.replace(
    dictionary,
    activation=jump_relu(jnp.full((dictionary.num_latents,), threshold)),
  )


def table(found: Any) -> dict[str, Any]:
  """Prints L0, FVU and delta loss with their intervals, and by how much they
  differ from ours, paired by row; the same as JSON.
  """
  rows = {}
  for name in found:
    cells = [f"{name:<24}"]
    for number in ("l0", "fvu", "delta_loss"):
      cells.append(f"{number} {found[name].cell(number)}")
    rows[name] = found[name].to_dict()
    if name != OURS:
      rows[name]["less ours"] = {}
      for number in ("fvu", "delta_loss"):
        less = found.difference(name, OURS, number)
        rows[name]["less ours"][number] = less.to_dict()
        cells.append(f"{number} less ours {less:+.4f}")
    print(" | ".join(cells), flush=True)
  return rows


def main() -> None:
  """Trains both, measures both."""
  options = parse()
  options.out.mkdir(parents=True, exist_ok=True)
  (site,) = resolve(f"resid_post[{options.layer}]", 1 << 16)
  steps, batch = steps_and_batch(options)
  ours = make_ours(options, site, steps)
  lm = gs.load(options.model)
  batches = held_out(options, lm)
  rows = rows_of(lm, site, batches)
  rows = rows[: len(rows) // 8 * 8]
  l0 = float((ours.encode(rows) > 0).sum() / len(rows))
  print(f"ours: L0 {l0:.2f} on held-out text", flush=True)
  compared = {OURS: ours}
  for name in options.also:
    compared[name] = gs.dictionaries.load(name)
  with tempfile.TemporaryDirectory() as folder:
    path = options.store
    if path.suffix != ".npy":
      path = pathlib.Path(folder) / "rows.npy"
      write_rows(options, site, steps, path)
    for lr in options.lr:
      theirs = train_theirs(options, path, l0, lr)
      compared[f"saelens lr {lr:g}"] = theirs
      compared[f"saelens lr {lr:g}, our L0"] = at_l0(theirs, rows, l0)
  metrics = (evals.L0(), evals.Fvu(), evals.DeltaLoss())
  found = evals.evaluate(lm, compared, batches, metrics=metrics)
  document = {
    "steps": steps,
    "rows": steps * batch,
    "tokens": found.tokens,
    "found": table(found),
    "manifest": json.loads(found.manifest.to_json()),
  }
  path = options.out / "quality.json"
  path.write_text(json.dumps(document, indent=1) + "\n")
  print(path)


if __name__ == "__main__":
  main()
