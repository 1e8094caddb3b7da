"""`gemma-scope dashboard`: one latent of a sparse dictionary, on one page.

Reads options, calls `gs.stored_dashboard` or `gs.measured_dashboard`, writes
what they return. It computes nothing and draws nothing itself.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Annotated, Any

import tyro

from gemma_scope.cli import (
  arguments,
  compiled,
  consoles,
  outputs,
  progress,
  reports,
)
from gemma_scope.cli.arguments import flag_option, text_option
from gemma_scope.cli.explain import DEFAULT_MODEL
from gemma_scope.errors import ConfigError

# The parser joins a line that starts with a letter to the one before it.
HELP = """\
What is this latent of a sparse dictionary?
  The texts it is most active on, how often and how strongly, the tokens it
  raises and lowers, and the latents that point alike. From what is stored
  with the starter suite at once, or measured on text of yours.

Examples:
  gemma-scope dashboard --site "resid_post[12]" --latent 17
  gemma-scope dashboard --dictionary starter/transcoder/layer_9 --latent 5
  gemma-scope dashboard --site "resid_post[12]" --latent 17 \\
    --data text.jsonl --tokens 20000
  gemma-scope dashboard --dictionary my_sae/ --latent 3 --data text.jsonl

Notes:
  `gemma-scope explain` names the latents that a prompt activates.
  --neuronpedia writes the fields that Neuronpedia and SAEDashboard use.
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `dashboard`, as typed."""

  latent: Annotated[int | None, text_option("N")] = None
  """Which latent, counted from 0."""

  site: Annotated[str | None, text_option("SITE")] = None
  """Take the starter suite's dictionary of this site, such as
  resid_post[12], or mlp_write[12] for a transcoder."""

  dictionary: Annotated[str | None, text_option("NAME_OR_FOLDER")] = None
  """Take this dictionary instead: a published name, or a folder."""

  data: Annotated[tuple[str, ...], text_option("PATH …")] = ()
  """Measure on this text: JSON lines, Parquet, plain text, or folders."""

  tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 50_000
  """Stop measuring after so many tokens."""

  text_key: Annotated[str, tyro.conf.arg(metavar="NAME")] = "text"
  """Where JSON lines and Parquet have the text."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  out: Annotated[str, tyro.conf.arg(metavar="FILE")] = (
    "gemma-scope-dashboard.html"
  )
  """Where the page goes; an older one there is replaced."""

  json: Annotated[str | None, text_option("FILE")] = None
  """Write the numbers as JSON too; - prints them instead of the summary."""

  neuronpedia: Annotated[str | None, text_option("FILE")] = None
  """Write them in the fields of Neuronpedia too."""

  open: Annotated[bool, flag_option()] = False
  """Open the page in the browser."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope dashboard` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "dashboard", HELP))


def run(options: Options) -> None:
  """Shows one latent and writes the results.

  Raises:
    GemmaScopeError: If an option, the dictionary or the text cannot be used.
  """
  latent = _check(options)
  page, data = reports.destinations(options.out, options.json)
  export = None
  if options.neuronpedia is not None:
    path = options.neuronpedia
    export = outputs.check_destination(path, "--neuronpedia")
  with progress.stages(consoles.messages()) as tell:
    tell("Reading the dictionary")
    dashboard = _dashboard(options, latent, tell)
    tell("Writing the page")
    reports.write(dashboard, page, data)
    if export is not None:
      fields = json.dumps(dashboard.to_neuronpedia(), indent=2)
      outputs.write_text(export, fields + "\n")
  render = functools.partial(_render, dashboard, page)
  reports.show(dashboard, page, render, as_json=options.json == "-")
  if options.open:
    reports.open_page(page)


def _check(options: Options) -> int:
  """Refuses what says too little or too much; returns the latent.

  Raises:
    ConfigError: If it does.
  """
  if (options.site is None) == (options.dictionary is None):
    raise ConfigError(
      "A latent is one of a site's dictionary, or of a dictionary by name.",
      received="both" if options.site else "neither",
      instead='--site "resid_post[12]", or --dictionary NAME',
    )
  if options.latent is None:
    raise ConfigError(
      "Say which latent.",
      received="no --latent",
      instead="for example --latent 17",
    )
  if options.tokens < 1:
    raise ConfigError(
      "Latents are measured on some tokens.",
      received=f"--tokens {options.tokens}",
      instead="for example --tokens 50000",
    )
  return options.latent


def _dashboard(options: Options, latent: int, tell: progress.Report) -> Any:
  """Stored or measured; here is where JAX is first needed."""
  import gemma_scope as gs

  name = options.dictionary
  if name is None:
    name = f"starter/{gs.dictionaries.starter().at(options.site or '')}"
  if not options.data:
    return _stored(name, latent)
  from gemma_scope.activations.corpus.corpus import Corpus
  from gemma_scope.activations.corpus.options import PackingOptions
  from gemma_scope.activations.corpus.pipeline import TokenPipeline

  corpus = Corpus.open(list(options.data), key=options.text_key)
  dictionary = gs.dictionaries.load(name)
  compiled.keep_compiled_programs()
  tell(f"Loading {options.model}")
  lm = gs.load(options.model, progress=tell)
  packing = PackingOptions(seq_len=256, batch_size=8)
  batches = TokenPipeline(corpus, lm.tokenizer, packing)
  return gs.measured_dashboard(
    lm, dictionary, latent, until(batches, options.tokens), progress=tell
  )


def _stored(name: str, latent: int) -> Any:
  """A latent of the starter suite; the model's weights are not needed.

  Raises:
    ConfigError: If it is of another dictionary.
  """
  import gemma_scope as gs
  from gemma_scope.model.tokenizer import load_tokenizer
  from gemma_scope.weights import open_checkpoint

  if not name.startswith("starter/"):
    raise ConfigError(
      "Examples are stored with the starter suite alone.",
      received=f"--dictionary {name} without text",
      instead="--data text.jsonl, to measure on",
    )
  suite = gs.dictionaries.starter()
  checkpoint = open_checkpoint(suite.model)
  assert checkpoint.tokenizer is not None  # of every published checkpoint
  tokenizer = load_tokenizer(checkpoint.tokenizer)
  return gs.stored_dashboard(tokenizer, suite, name, latent)


def until(batches: Iterable[Any], tokens: int) -> Iterator[Any]:
  """Batches until so many tokens counted, the one that reaches it included."""
  seen = 0
  for batch in batches:
    yield batch
    seen += batch.num_counted
    if seen >= tokens:
      return


def _render(dashboard: Any, page: pathlib.Path) -> None:
  """Prints the summary."""
  from gemma_scope.viz import dashboard_terminal

  dashboard_terminal.render(dashboard, consoles.results(), page=page)
