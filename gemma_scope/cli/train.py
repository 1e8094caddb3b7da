"""`gemma-scope train`: sparse dictionaries from a model or a store.

Reads options, makes a configuration and a row source, calls
`gs.training.train` and shows its numbers as they come. It trains nothing
itself.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import re
from typing import Annotated

import tyro

from gemma_scope.cli import arguments, compiled, consoles, training_screen
from gemma_scope.cli.arguments import flag_option, text_option
from gemma_scope.cli.explain import DEFAULT_MODEL
from gemma_scope.errors import ConfigError

# The parser joins a line that starts with a letter to the one before it.
HELP = """\
Trains sparse dictionaries: SAEs, transcoders, crosscoders, CLTs.
  All that is named in --sites, for every --l0, --lr and --seed, is trained
  side by side from one pass over the rows. Run again with the same options it
  goes on where it was cut off. The folder gets checkpoints, metrics.jsonl and
  a folder for each dictionary.

  Sites: "resid_post[9]" is an SAE, "mlp_in[9]->mlp_write[9]" a transcoder,
  "resid_post[5]+resid_post[9]" a crosscoder, "mlp_in[:]->mlp_write[:]" a
  transcoder of every layer.

Examples:
  gemma-scope train --data text.jsonl --sites "resid_post[9]" \\
    --preset jump_relu --width 4096 --l0 32 --steps 5000 --out runs/first
  gemma-scope train --store activations --sites "resid_post[9]" \\
    --preset batch_top_k --l0 16,32,64 --steps 20000 --out runs/sweep
  gemma-scope train --preset starter --data text.jsonl --steps 4000 \\
    --batch 2048 --out runs/starter
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `train`, as typed."""

  preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "jump_relu"
  """The recipe: gemma_scope_2, jump_relu, batch_top_k, matryoshka_batch_top_k,
  top_k, gated, l1, tanh, or starter (a suite; it has sites of its own)."""

  sites: Annotated[str | None, text_option("SITE,…")] = None
  """What is trained, with commas between; see above."""

  store: Annotated[str | None, text_option("FOLDER")] = None
  """Train on the activations in this store (`gemma-scope capture`)."""

  data: Annotated[str | None, text_option("FILE,…")] = None
  """Train on the model's activations on these texts, computed as needed."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "gemma-scope-train"
  """Where the run lies."""

  steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
  """Batches to train on."""

  batch: Annotated[int, tyro.conf.arg(metavar="ROWS")] = 4096
  """Rows (tokens) in a batch."""

  width: Annotated[int, tyro.conf.arg(metavar="N")] = 4096
  """Latents of each dictionary; of a CLT of each layer."""

  l0: Annotated[str, tyro.conf.arg(metavar="N,…")] = "32"
  """Active latents a token: the target, or k of TopK; several for a sweep."""

  lr: Annotated[str | None, text_option("X,…")] = None
  """Learning rates; by default the recipe's."""

  seed: Annotated[str, tyro.conf.arg(metavar="N,…")] = "0"
  """Seeds of the first weights; the first one also orders the rows."""

  affine_skip: Annotated[bool, flag_option()] = False
  """Give transcoders and CLTs an affine skip."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """Of the model: float32 or bfloat16."""

  precision: Annotated[str, tyro.conf.arg(metavar="NAME")] = "float32"
  """Of the operands of products in training: float32, tensorfloat32 or
  bfloat16."""

  seq_len: Annotated[int, tyro.conf.arg(metavar="N")] = 1024
  """Tokens of a packed row of text."""

  buffer: Annotated[int, tyro.conf.arg(metavar="ROWS")] = 131_072
  """Rows of the buffer in which activations of --data are shuffled."""

  checkpoint_every: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
  """Steps between checkpoints."""

  log_every: Annotated[int, tyro.conf.arg(metavar="N")] = 50
  """Steps between numbers."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope train` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "train", HELP))


def run(options: Options) -> None:
  """Trains and writes the run's folder.

  Raises:
    GemmaScopeError: If an option, the data or the checkpoint cannot be used.
  """
  if (options.store is None) == (options.data is None):
    raise ConfigError(
      "Training needs rows from a store, or texts to run a model on.",
      received=f"--store {options.store}, --data {options.data}",
      instead="--store FOLDER, or --data FILE",
    )
  compiled.keep_compiled_programs()
  with training_screen.screen(consoles.messages()) as watch:
    watch.say("Opening the data")
    config, source = _from_store(options) if options.store else _live(options)
    watch.say("Compiling")
    import gemma_scope as gs

    trained = gs.training.train(config, source, options.out, watch=watch)
  console = consoles.results()
  for label in trained.dictionaries:
    console.print(str(pathlib.Path(options.out) / label), markup=False)


def _from_store(options: Options):
  """Configuration and rows of a store."""
  from gemma_scope.activations import store as stores

  assert options.store is not None
  store = stores.Store.open(options.store)
  known = [s.layer for s in store.sites if s.layer is not None]
  layers = max(known, default=0) + 1
  config = _config(options, layers, store.manifest.model)
  source = stores.StoreRows(
    store, config.sites, batch_rows=options.batch, seed=_seeds(options)[0]
  )
  return config, source


def _live(options: Options):
  """Configuration and rows of a model that runs meanwhile."""
  import gemma_scope as gs
  from gemma_scope.activations.corpus.corpus import Corpus
  from gemma_scope.activations.corpus.options import PackingOptions
  from gemma_scope.activations.corpus.pipeline import TokenPipeline
  from gemma_scope.activations.harvest import Harvest
  from gemma_scope.activations.shuffle_buffer import ModelRows

  assert options.data is not None
  lm = gs.load(options.model, dtype=options.dtype)
  config = _config(options, lm.config.num_layers, lm.name)
  config = dataclasses.replace(config, heads=lm.config.num_heads)
  seed = _seeds(options)[0]
  rows = max(1, options.batch // options.seq_len)
  packing = PackingOptions(
    seq_len=options.seq_len, batch_size=rows, seed=seed, epochs=None
  )
  corpus = Corpus.open([p.strip() for p in options.data.split(",")])
  pipeline = TokenPipeline(corpus, lm.tokenizer, packing)
  source = ModelRows(
    Harvest(lm, config.sites),
    pipeline,
    batch_rows=options.batch,
    buffer_rows=max(options.buffer, 2 * options.batch),
    seed=seed,
  )
  return config, source


def _config(options: Options, layers: int, model: str | None):
  """The run's configuration."""
  from gemma_scope import training

  if options.preset == "starter" and options.sites is None:
    config = training.starter(
      range(layers), _four_layers(layers), steps=options.steps
    )
  else:
    config = training.preset(
      options.preset,
      _items(options.sites),
      steps=options.steps,
      width=options.width,
      sweep=training.Sweep(
        l0=_numbers("--l0", options.l0),
        learning_rates=_numbers("--lr", options.lr) if options.lr else (None,),
        seeds=_seeds(options),
      ),
      affine_skip=options.affine_skip,
      num_layers=layers,
    )
  return dataclasses.replace(
    config,
    model=model,
    precision=options.precision,
    checkpoint_every=options.checkpoint_every,
    log_every=options.log_every,
  )


def _four_layers(layers: int) -> list[int]:
  """The layers for which Gemma Scope 2 has most; or as deep ones."""
  from gemma_scope.dictionaries.published import FOUR_LAYERS
  from gemma_scope.weights import catalog

  for size, sizes in catalog.SIZES.items():
    if sizes.num_layers == layers and size in FOUR_LAYERS:
      return list(FOUR_LAYERS[size])
  return sorted({layers * i // 6 for i in (2, 3, 4, 5)})


def _items(text: str | None) -> list[str]:
  """What stands between commas outside brackets."""
  items = [i.strip() for i in re.split(r",(?![^\[]*\])", text or "")]
  if not all(items):
    raise ConfigError(
      "--sites names nothing to train.",
      received=repr(text),
      instead='--sites "resid_post[9]"',
    )
  return items


def _numbers(option: str, text: str) -> tuple[float, ...]:
  try:
    return tuple(float(part) for part in text.split(","))
  except ValueError:
    raise ConfigError(
      f"{option} takes numbers, with commas between.",
      received=text,
      instead=f"{option} 16,32",
    ) from None


def _seeds(options: Options) -> tuple[int, ...]:
  return tuple(int(n) for n in _numbers("--seed", options.seed))
