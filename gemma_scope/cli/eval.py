"""`gemma-scope eval DICTIONARY…`: how good are these dictionaries?

Reads options, calls `evals.dictionaries.evaluate` and `evaluate_concepts`,
writes what they return. It computes nothing itself.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Annotated, Any

import tyro

from gemma_scope.cli import (
  arguments,
  compiled,
  consoles,
  eval_report,
  progress,
  reports,
)
from gemma_scope.cli.arguments import flag_option, text_option
from gemma_scope.cli.explain import DEFAULT_MODEL
from gemma_scope.errors import ConfigError

# The parser joins a line that starts with a letter to the one before it.
HELP = """\
How good are these dictionaries? L0, FVU, delta loss and more on held-out text.
  Every dictionary sees the same tokens in one pass of the model. Numbers come
  with 95 % bootstrap intervals over rows of text; go by the difference of two
  dictionaries in the JSON, not by whether their intervals overlap.

With --concepts: what SAEBench asks of SAEs, on labelled texts of its own.
  sparse_probing  Is a concept read off 1, 2, 5 or 10 latents?
  absorption      Does a first letter's latent fail where another takes over?
  tpp             Can latents take a concept out, and nothing else?
  shift           Can they take out what a biased probe wrongly goes by?
  All but absorption stand beside the layer's neurons, principal components and
  the vector's own numbers.

Examples:
  gemma-scope eval --data held_out.jsonl \\
    gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium
  gemma-scope eval runs/first/resid_post_9_l0_32 runs/other --data text.txt \\
    --tokens 100000 --loss-tokens 10000 --json eval.json
  gemma-scope eval runs/first/* --data held_out.jsonl --no-losses
  gemma-scope eval runs/first/resid_post_9_* --concepts sparse_probing,tpp
  gemma-scope eval runs/first/resid_post_9_* --data text.txt --concepts all

Notes:
  A loss is one forward pass and all logits, for every dictionary: on a CPU
  that is most of the time. Use text that the dictionaries were not trained on.
  SAEs are compared with others of the same site. Intervals of concepts, and
  each set of texts, are in the report and in the JSON.
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `eval`, as typed."""

  dictionaries: Annotated[
    tyro.conf.Positional[tuple[str, ...]], text_option("DICTIONARY")
  ] = ()
  """Published names, or folders."""

  data: Annotated[str | None, text_option("FILE,…")] = None
  """Held-out text: JSON lines, text, Parquet or token files, or folders."""

  tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 20_000
  """How many tokens to use."""

  loss_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 2_000
  """Of these for losses."""

  no_losses: Annotated[bool, flag_option()] = False
  """Leave delta loss out."""

  concepts: Annotated[str | None, text_option("TEST,…")] = None
  """Look for concepts: sparse_probing, absorption, tpp, shift, or all."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "gemma-scope-eval.html"
  """Where the report goes; an older one there is replaced."""

  json: Annotated[str | None, text_option("FILE")] = None
  """Write the numbers as JSON too; - prints them instead of the summary."""

  open: Annotated[bool, flag_option()] = False
  """Open the report in the browser."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """Of the model: float32 or bfloat16."""

  seq_len: Annotated[int, tyro.conf.arg(metavar="N")] = 512
  """Tokens of a packed row of text."""

  batch: Annotated[int, tyro.conf.arg(metavar="ROWS")] = 4
  """Rows of one forward pass."""

  seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
  """Of the order of the documents, and of which texts concepts are held out."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope eval` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "eval", HELP))


def run(options: Options) -> None:
  """Evaluates and writes the results.

  Raises:
    GemmaScopeError: If an option, a dictionary, the text or the checkpoint
      cannot be used.
  """
  if not options.dictionaries:
    raise ConfigError(
      "There is no dictionary to evaluate.",
      received="nothing",
      instead="gemma-scope eval FOLDER --data held_out.jsonl",
    )
  if options.data is None and options.concepts is None:
    raise ConfigError(
      "There is no text to evaluate on.",
      received="no --data and no --concepts",
      instead="--data held_out.jsonl, with text that was not trained on, or "
      "--concepts all, which brings its own",
    )
  page, data = reports.destinations(options.out, options.json)
  with progress.stages(consoles.messages()) as tell:
    found = _evaluate(options, tell)
    tell("Writing the report")
    reports.write(found, page, data)
  render = functools.partial(eval_report.render, found, page)
  reports.show(found, page, render, as_json=options.json == "-")
  if options.open:
    reports.open_page(page)


def _evaluate(options: Options, tell: progress.Report) -> eval_report.Found:
  """Loads everything and evaluates; here is where JAX is first needed."""
  tell("Opening the text")
  import gemma_scope as gs
  from gemma_scope.activations.corpus.corpus import Corpus
  from gemma_scope.evals import dictionaries as evals

  compiled.keep_compiled_programs()
  tests = _concept_tests(options.concepts)
  corpus = None
  if options.data is not None:
    corpus = Corpus.open([p.strip() for p in options.data.split(",")])
  named = _load(options.dictionaries, tell)
  if tests:
    evals.saes_by_site(named)  # refuses others before the model is loaded
  tell(f"Loading {options.model}")
  lm = gs.load(options.model, dtype=options.dtype, progress=tell)
  tell("Compiling")
  text = concepts = None
  if corpus is not None:
    text = _on_text(options, lm, named, corpus, tell)
  if tests:
    concepts = evals.evaluate_concepts(
      lm, named, tests=tests, seed=options.seed, progress=tell
    )
  return eval_report.Found(text, concepts)


def _concept_tests(given: str | None) -> tuple[str, ...]:
  """The names after --concepts; none where it was not given."""
  from gemma_scope.evals.dictionaries.evaluate_concepts import (
    TESTS,
    check_tests,
  )

  if given is None:
    return ()
  names = [name.strip() for name in given.split(",") if name.strip()]
  every = [t for name in names for t in (TESTS if name == "all" else (name,))]
  return check_tests(every)


def _on_text(
  options: Options, lm: Any, named: Any, corpus: Any, tell: progress.Report
):
  """The numbers on held-out text."""
  from gemma_scope.activations.corpus.options import PackingOptions
  from gemma_scope.activations.corpus.pipeline import TokenPipeline
  from gemma_scope.evals import dictionaries as evals

  packing = PackingOptions(
    seq_len=options.seq_len, batch_size=options.batch, seed=options.seed
  )
  losses = evals.DeltaLoss(most_tokens=options.loss_tokens)
  metrics = [
    losses if isinstance(m, evals.DeltaLoss) else m
    for m in evals.METRICS
    if not (options.no_losses and isinstance(m, evals.DeltaLoss))
  ]
  return evals.evaluate(
    lm,
    named,
    TokenPipeline(corpus, lm.tokenizer, packing),
    metrics=metrics,
    tokens=options.tokens,
    progress=tell,
  )


def _load(names: Sequence[str], tell: progress.Report) -> dict[str, Any]:
  """Dictionaries by name; a set of transcoders has one for each layer."""
  import gemma_scope as gs

  found: dict[str, Any] = {}
  for name in names:
    tell(f"Loading {name}")
    opened = gs.dictionaries.load(name)
    if isinstance(opened, tuple):
      for one in opened:
        found[f"{name} {one.sites_in[0]}"] = one
    else:
      found[name] = opened
  return found
