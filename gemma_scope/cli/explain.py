"""`gemma-scope explain PROMPT`: one prompt, one target, one report.

Reads options, calls `gs.explain`, writes what it returns. It computes nothing
and draws nothing itself.
"""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Annotated
import webbrowser

import tyro

from gemma_scope.cli import compiled, consoles, outputs, progress, prompts
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


def _text(metavar: str):
  """An option whose absence needs no "(default: None)" in the help."""
  return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `explain`, as typed."""

  prompt: Annotated[tyro.conf.Positional[tuple[str, ...]], _text("PROMPT")] = ()
  """The text to explain, in quotes; - reads it from standard input."""

  prompt_file: Annotated[str | None, _text("FILE")] = None
  """Read the prompt from a UTF-8 text file instead."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  target: Annotated[str | None, _text("TOKEN")] = None
  """Explain the logit of this next token; by default the most likely one."""

  against: Annotated[str | None, _text("TOKEN")] = None
  """Explain by how much the target's logit exceeds this token's."""

  chat: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
  """Wrap the prompt as a user's turn, for instruction-tuned models."""

  system: Annotated[str | None, _text("TEXT")] = None
  """Instructions in front of the user's turn; needs --chat."""

  methods: Annotated[str | None, _text("NAME,…")] = None
  """Attribution methods, with commas between them; by default
  integrated_gradients,attn_lrp,input_x_gradient. Also cp_lrp, lrp_epsilon,
  lrp_gamma."""

  out: Annotated[str, tyro.conf.arg(metavar="FILE")] = (
    "gemma-scope-explain.html"
  )
  """Where the report goes; an older one there is replaced."""

  json: Annotated[str | None, _text("FILE")] = None
  """Write the numbers as JSON too; - prints them instead of the summary."""

  open: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
  """Open the report in the browser."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """float32, or bfloat16 for half the memory and rougher numbers."""

  max_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 2048
  """Refuse longer prompts: time and memory grow with the square of them."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope explain` with the arguments after the verb."""
  run(
    tyro.cli(
      Options,
      args=argv,
      prog="gemma-scope explain",
      description=HELP,
      config=(tyro.conf.FlagCreatePairsOff,),
    )
  )


def run(options: Options) -> None:
  """Explains one prompt and writes the results.

  Raises:
    GemmaScopeError: If an option, the prompt or the checkpoint cannot be used.
  """
  text = prompts.read_prompt(options.prompt, options.prompt_file)
  methods = _split_methods(options.methods)
  page = outputs.check_destination(options.out, "--out")
  data = None
  if options.json not in (None, "-"):
    data = outputs.check_destination(options.json, "--json")
  messages = consoles.messages()
  with progress.stages(messages) as report:
    explanation = _explain(text, options, methods, report)
    report("Writing the report")
    outputs.write_text(page, explanation.to_html())
    if data is not None:
      outputs.write_text(data, _to_json(explanation))
  _show(explanation, options, page)
  if options.open:
    _open(page)


def _explain(
  text: str,
  options: Options,
  methods: tuple[str, ...] | None,
  report: progress.Report,
):
  """Loads the model and explains; here is where JAX is first needed."""
  report(f"Loading {options.model}")
  import gemma_scope as gs

  compiled.keep_compiled_programs()
  lm = gs.load(options.model, dtype=options.dtype, progress=report)
  length = len(lm.tokenizer.encode(text))
  if length > options.max_tokens:
    raise TextError(
      "The prompt is too long to explain.",
      received=f"{length:,} tokens; --max-tokens is {options.max_tokens:,}",
      instead="a shorter prompt, or a larger --max-tokens if memory allows",
    )
  return gs.explain(
    lm,
    text,
    target=options.target,
    against=options.against,
    chat=options.chat,
    system=options.system,
    methods=methods,
    progress=report,
  )


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


def _to_json(explanation) -> str:
  return json.dumps(explanation.to_dict(), indent=2, allow_nan=False) + "\n"


def _show(explanation, options: Options, page: pathlib.Path) -> None:
  """Prints the summary, or the JSON where that was asked for."""
  console = consoles.results()
  if options.json == "-":
    console.file.write(_to_json(explanation))
    consoles.messages().print(f"Report: {page}", markup=False)
    return
  from gemma_scope.viz import terminal

  terminal.render(explanation, console, report=page)


def _open(page: pathlib.Path) -> None:
  if not webbrowser.open(page.as_uri()):
    consoles.messages().print(f"No browser was found; open {page.as_uri()}")
