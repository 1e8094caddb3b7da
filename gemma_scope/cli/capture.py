"""`gemma-scope capture`: text through the model into a store of activations.

Reads options, runs `store.capture_to_store`, shows how far it is. The same
command goes on with a store that is there, also after a kill.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import re
from typing import Annotated, Any

import rich.box
import rich.markup
import rich.table
import tyro

from gemma_scope.cli import (
  arguments,
  capture_progress,
  compiled,
  consoles,
  progress,
)
from gemma_scope.cli.arguments import flag_option, text_option
from gemma_scope.cli.explain import DEFAULT_MODEL
from gemma_scope.errors import ConfigError

# The parser joins a line that starts with a letter to the one before it.
HELP = """\
Keeps the activations of a text at many sites, in one pass.
  The same command goes on where it was cut off, and with more --tokens makes
  the store longer. Only tokens of the text count: not BOS, EOS or padding.

Examples:
  gemma-scope capture --data text.jsonl --sites "resid_post[5,9]" mlp_in[9] \\
    --out activations --tokens 2000000
  gemma-scope capture --verify activations

Several machines, the same command on each (see docs/CLUSTERS.md):
  gemma-scope capture --distributed --data /shared/text --out /shared/acts …

Notes:
  Text comes as JSON lines, Parquet, plain text, token arrays, or folders of
  these. In Python: gemma_scope.activations.store.Store.open("activations").
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `capture`, as typed."""

  model: Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME_OR_PATH")
  ] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  data: Annotated[tuple[str, ...], text_option("PATH …")] = ()
  """Files or folders with the text."""

  sites: Annotated[tuple[str, ...], text_option("SITE …")] = ()
  """What to keep, such as "resid_post[5,9]" "mlp_in[9]"."""

  out: Annotated[str | None, text_option("FOLDER")] = None
  """The store."""

  verify: Annotated[str | None, text_option("FOLDER")] = None
  """Check every byte of a store instead."""

  tokens: Annotated[int | None, text_option("N")] = None
  """Stop at so many tokens in the store; by default at the text's end."""

  seq_len: Annotated[int, tyro.conf.arg(metavar="N")] = 512
  """Tokens of a packed row."""

  batch: Annotated[int, tyro.conf.arg(metavar="N")] = 8
  """Rows of a batch, on each host."""

  epochs: Annotated[int, tyro.conf.arg(metavar="N")] = 1
  """How often the text is gone through."""

  seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
  """Of the order of the documents."""

  text_key: Annotated[str, tyro.conf.arg(metavar="NAME")] = "text"
  """Where JSON lines and Parquet have the text."""

  unit: Annotated[str, tyro.conf.arg(metavar="UNIT")] = "file"
  """A document of a plain text file: file, block or line."""

  chunk_documents: Annotated[int | None, text_option("N")] = None
  """Documents packed together; fewer where a host finds nothing to read."""

  workers: Annotated[int, tyro.conf.arg(metavar="N")] = 0
  """Processes that tokenise; 0 leaves it to a thread."""

  chat: Annotated[bool, flag_option()] = False
  """Show the text as a user's turn, to instruction-tuned models."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """What the model computes in: float32 or bfloat16."""

  store_dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "bfloat16"
  """What the store keeps: bfloat16, or float32 for twice the size."""

  shard_rows: Annotated[int, tyro.conf.arg(metavar="N")] = 131_072
  """Tokens of a file."""

  commit_seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 30.0
  """How much work a kill may cost at most."""

  mesh: Annotated[str | None, text_option("DATAxMODEL")] = None
  """Chips along data and model; by default all of this host along data."""

  distributed: Annotated[bool, flag_option()] = False
  """One of several processes that find one another (TPU pod, SLURM)."""

  coordinator: Annotated[str | None, text_option("HOST:PORT")] = None
  """Process 0, where they do not; needs --host."""

  host: Annotated[str | None, text_option("I/N")] = None
  """This is process I of N; without --coordinator each works alone."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope capture` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "capture", HELP))


def run(options: Options) -> None:
  """Fills or checks a store and says what is in it.

  Raises:
    GemmaScopeError: If an option, the text, the checkpoint or the store cannot
      be used.
  """
  if options.verify is not None:
    _verify(options.verify)
    return
  _check(options)
  host = _host(options.host)
  shape = _mesh(options.mesh)
  with progress.stages(consoles.messages()) as report:
    report("Reading the text")
    from gemma_scope.activations import distributed
    from gemma_scope.activations.corpus.corpus import Corpus
    from gemma_scope.activations.store import opening

    opening.check_folder(pathlib.Path(options.out or ""))
    corpus = Corpus.open(options.data, key=options.text_key, unit=options.unit)
    compiled.keep_compiled_programs()
    if options.distributed or options.coordinator:
      host = distributed.start(
        options.coordinator,
        index=host.index if host else None,
        count=host.count if host else None,
      )
    report(f"Loading {options.model}")
    lm = _load(options, shape, report)
  _capture(options, lm, corpus, host or distributed.Host())
  distributed.wait_for_all("captured")
  _show(options.out)


def _check(options: Options) -> None:
  """Refuses what could only fail after minutes of loading."""
  for name, example in (
    ("data", "--data text.jsonl"),
    ("sites", '--sites "resid_post[5,9]"'),
    ("out", "--out activations"),
  ):
    if not getattr(options, name):
      raise ConfigError(
        f"A capture needs --{name}.",
        received=f"no --{name}",
        instead=f"{example}; or --verify FOLDER alone",
      )
  if options.tokens is not None and options.tokens < 1:
    raise ConfigError(
      "A store has at least one token.",
      received=f"--tokens {options.tokens}",
      instead="for example --tokens 2000000, or no --tokens for all the text",
    )
  if options.coordinator and not options.host:
    raise ConfigError(
      "A process must know which one it is.",
      received=f"--coordinator {options.coordinator} without --host",
      instead="--host 0/4 on the coordinator, 1/4 on the next, …",
    )


def _host(text: str | None) -> Any:
  """The process that `--host` names."""
  if text is None:
    return None
  found = re.fullmatch(r"(\d+)/(\d+)", text)
  if found is None:
    raise ConfigError(
      "--host says which process this is of how many.",
      received=text,
      instead="for example --host 0/4",
    )
  from gemma_scope.activations.distributed import Host

  return Host(int(found[1]), int(found[2]))


def _mesh(text: str | None) -> tuple[int, int] | None:
  if text is None:
    return None
  found = re.fullmatch(r"(\d+)x(\d+)", text)
  if found is None or "0" in found.groups():
    raise ConfigError(
      "--mesh is two numbers, chips along data and along model.",
      received=text,
      instead="for example --mesh 4x2",
    )
  return int(found[1]), int(found[2])


def split_sites(given: Sequence[str]) -> list[str]:
  """Addresses one by one: commas part them, those in brackets do not."""
  parts = [p for text in given for p in re.split(r",(?![^\[]*\])", text)]
  return [part.strip() for part in parts if part.strip()]


def _load(options: Options, shape: tuple[int, int] | None, report: Any) -> Any:
  import gemma_scope as gs
  from gemma_scope.activations import distributed

  mesh = distributed.make_mesh(shape)
  lm = gs.load(options.model, dtype=options.dtype, mesh=mesh, progress=report)
  if options.chat:
    lm.require_chat()
  return lm


def _capture(options: Options, lm: Any, corpus: Any, host: Any) -> None:
  from gemma_scope.activations import store
  from gemma_scope.activations.corpus.options import (
    CHAT_PREFIX,
    PackingOptions,
  )
  from gemma_scope.activations.corpus.pipeline import TokenPipeline
  from gemma_scope.activations.harvest import Harvest

  harvest = Harvest(lm, split_sites(options.sites), dtype=options.store_dtype)
  packing = PackingOptions(
    seq_len=options.seq_len,
    batch_size=options.batch,
    seed=options.seed,
    epochs=options.epochs,
  )
  if options.chat:
    packing = dataclasses.replace(packing, prefix=CHAT_PREFIX)
  if (size := options.chunk_documents) is not None:
    packing = dataclasses.replace(packing, chunk_documents=size)
  pipeline = TokenPipeline(
    corpus,
    lm.tokenizer,
    packing,
    host=host.index,
    num_hosts=host.count,
    workers=options.workers,
  )
  with store.open_writer(
    options.out or "", harvest, pipeline, shard_rows=options.shard_rows
  ) as writer:
    share = options.tokens and -(-options.tokens // host.count)
    work = capture_progress.Work(
      target=share,
      bytes_per_row=writer.layout.bytes_per_row,
      before=writer.rows,
      fraction=lambda: pipeline.fraction,
    )
    with capture_progress.shown(consoles.messages(), work) as told:
      store.capture_to_store(
        harvest,
        pipeline,
        writer,
        rows=options.tokens,
        commit_seconds=options.commit_seconds,
        progress=told,
      )
    if share and writer.rows < share:
      consoles.messages().print(
        f"The text ended at {writer.rows:,} of {share:,} tokens; "
        "give more text, or more --epochs."
      )
  pipeline.close()


def _verify(path: str) -> None:
  from gemma_scope.activations import store

  with progress.stages(consoles.messages()) as report:

    def read(done: int, total: int) -> None:
      report("Reading every shard", done / max(total, 1))

    found = store.verify(path, progress=read)
  consoles.results().print(
    f"{path}: {found.rows:,} rows in {found.shards:,} shards, "
    f"{found.bytes / 1e9:.2f} GB, all as they were written.",
    markup=False,
  )


def _show(path: str | None) -> None:
  """What is in the store by now."""
  from gemma_scope.activations import store

  console = consoles.results()
  there = store.Store.open(path or "")
  console.print(str(there), markup=False, soft_wrap=True)
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
  for heading in ("site", "width", "mean norm", "root mean square norm"):
    table.add_column(heading, justify="left" if heading == "site" else "right")
  for site, found in there.statistics.items():
    table.add_row(
      rich.markup.escape(str(site)),
      str(there.layout.widths[site]),
      f"{found.mean_norm:,.2f}",
      f"{found.mean_square_norm**0.5:,.2f}",
    )
  console.print(table)
