"""`gemma-scope explain PROMPT`: one prompt, one target, one report.

Reads options, calls `gs.explain`, writes what it returns. It computes nothing
and draws nothing itself.
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Annotated

import tyro

from gemma_scope.cli import (
  arguments,
  compiled,
  consoles,
  progress,
  prompts,
  reports,
)
from gemma_scope.cli.arguments import flag_option, text_option
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.weights import catalog

# The one checkpoint that a Python package brings: no account, no hub.
DEFAULT_MODEL = next(
  name for name, entry in catalog.CATALOG.items() if entry.package
)
CHAT_MODEL = next(
  name for name, entry in catalog.CATALOG.items() if entry.variant == "it"
)

# The parser joins a line that starts with a letter to the one before it.
HELP = f"""\
Why does the model say this next?
  Shows what the model predicts after PROMPT, which tokens made it do so
  (several attribution methods side by side), what each layer would have
  said, which components wrote the answer, and where attention looked. A
  summary goes to the terminal, the whole of it to one self-contained
  HTML file.

Examples:
  gemma-scope explain "The capital of France is"
  gemma-scope explain "The capital of France is" \\
    --target " Paris" --against " Rome"
  gemma-scope explain --prompt-file story.txt --out story.html --open
  echo "2 + 2 =" | gemma-scope explain - --json - | jq .predictions
  gemma-scope explain "Who wrote Faust?" --model {CHAT_MODEL} --chat

Notes:
  A token is written with its leading space: " Paris" and "Paris" are two.
  A prompt that starts with a dash goes after `--`.
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `explain`, as typed."""

  prompt: Annotated[
    tyro.conf.Positional[tuple[str, ...]], text_option("PROMPT")
  ] = ()
  """The text to explain, in quotes; - reads it from standard input."""

  prompt_file: Annotated[str | None, text_option("FILE")] = None
  """Read the prompt from a UTF-8 text file instead."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  target: Annotated[str | None, text_option("TOKEN")] = None
  """Explain the logit of this next token; by default the most likely one."""

  against: Annotated[str | None, text_option("TOKEN")] = None
  """Explain by how much the target's logit exceeds this token's."""

  chat: Annotated[bool, flag_option()] = False
  """Wrap the prompt as a user's turn, for instruction-tuned models."""

  system: Annotated[str | None, text_option("TEXT")] = None
  """Instructions in front of the user's turn; needs --chat."""

  methods: Annotated[str | None, text_option("NAME,…")] = None
  """Attribution methods, with commas between them; by default
  integrated_gradients,attn_lrp,input_x_gradient. Also cp_lrp, lrp_epsilon,
  lrp_gamma, saliency, smoothgrad, expected_gradients, deeplift, occlusion,
  leave_one_out."""

  features: Annotated[bool, flag_option()] = True
  """Leave out the latents of the starter suite of sparse dictionaries, which
  are shown where it is of the model."""

  out: Annotated[str, tyro.conf.arg(metavar="FILE")] = (
    "gemma-scope-explain.html"
  )
  """Where the report goes; an older one there is replaced."""

  json: Annotated[str | None, text_option("FILE")] = None
  """Write the numbers as JSON too; - prints them instead of the summary."""

  open: Annotated[bool, flag_option()] = False
  """Open the report in the browser."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """float32, or bfloat16 for half the memory and rougher numbers."""

  max_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 2048
  """Refuse longer prompts: time and memory grow with the square of them."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope explain` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "explain", HELP))


def run(options: Options) -> None:
  """Explains one prompt and writes the results.

  Raises:
    GemmaScopeError: If an option, the prompt or the checkpoint cannot be used.
  """
  text = prompts.read_prompt(options.prompt, options.prompt_file)
  methods = _split_methods(options.methods)
  page, data = reports.destinations(options.out, options.json)
  with progress.stages(consoles.messages()) as report:
    explanation = _explain(text, options, methods, report)
    report("Writing the report")
    reports.write(explanation, page, data)
  render = functools.partial(_render, explanation, page)
  reports.show(explanation, page, render, as_json=options.json == "-")
  if options.open:
    reports.open_page(page)


def _explain(
  text: str,
  options: Options,
  methods: tuple[str, ...] | None,
  report: progress.Report,
):
  """Loads the model and explains; here is where JAX is first needed."""
  chat = _chat(options)
  report(f"Loading {options.model}")
  import gemma_scope as gs

  compiled.keep_compiled_programs()
  lm = gs.load(options.model, dtype=options.dtype, progress=report)
  reports.check_length(len(lm.tokenizer.encode(text)), options.max_tokens)
  return gs.explain(
    lm,
    text,
    target=options.target,
    against=options.against,
    chat=chat,
    methods=methods,
    features=options.features,
    progress=report,
  )


def _chat(options: Options) -> bool | str:
  """Whether to wrap the prompt as a turn, and with which system text.

  Raises:
    TextError: If there is a system text without --chat.
  """
  if options.system is None:
    return options.chat
  if not options.chat:
    raise TextError(
      "A system text belongs to a chat turn.",
      received=f"system={options.system!r} without chat",
      instead="--chat with an instruction-tuned model",
    )
  return options.system


def _split_methods(names: str | None) -> tuple[str, ...] | None:
  if names is None:
    return None
  methods = tuple(name.strip() for name in names.split(",") if name.strip())
  if not methods:
    raise ConfigError(
      "--methods names no method.",
      received=repr(names),
      instead="names with commas between them, or leave --methods out",
    )
  return methods


def _render(explanation, page: pathlib.Path) -> None:
  """Prints the summary."""
  from gemma_scope.viz import terminal

  terminal.render(explanation, consoles.results(), report=page)
