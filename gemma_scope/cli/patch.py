"""`gemma-scope patch CLEAN CORRUPT`: which activations carry the difference.

Reads options, calls `gs.patching_report`, writes what it returns. It computes
nothing and draws nothing itself.
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
from gemma_scope.cli.explain import DEFAULT_MODEL
from gemma_scope.errors import ConfigError

SITES = "resid_pre,attn_write,mlp_write"

# The parser joins a line that starts with a letter to the one before it.
HELP = """\
Which activations carry the difference between two prompts?
  Runs CORRUPT again and again, each time with one activation of CLEAN in
  its place: every site, layer and token, and every head where a site has
  heads. What brings CLEAN's answer back carries it. With --noising the
  other way round: what breaks the answer is needed for it. The strongest
  go to the terminal, heat maps of all to one self-contained HTML file.

Examples:
  gemma-scope patch \\
    "When Mary and John went to the store, John gave a drink to" \\
    "When Mary and John went to the store, Mary gave a drink to" \\
    --target " Mary" --against " John"
  gemma-scope patch "…" "…" --sites "z[6:12],pattern[6:12]" --noising
  gemma-scope patch "…" "…" --json - | jq ".strongest[0]"

Notes:
  Both prompts must have the same number of tokens, each pair of tokens
  standing for the same place. A token is written with its leading space.
  Without --target, the most likely token after CLEAN is compared with the
  most likely one after CORRUPT.
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `patch`, as typed."""

  prompts: Annotated[
    tyro.conf.Positional[tuple[str, ...]], text_option("CLEAN CORRUPT")
  ] = ()
  """The two prompts, each in quotes."""

  target: Annotated[str | None, text_option("TOKEN")] = None
  """Measure the logit of this next token."""

  against: Annotated[str | None, text_option("TOKEN")] = None
  """Measure by how much the target's logit exceeds this token's."""

  sites: Annotated[str, tyro.conf.arg(metavar="SITE,…")] = SITES
  """What is patched, with commas between: names for all layers, such as z, or
  addresses, such as z[3], z[6:12]. Also attn_in, query, key, value, pattern,
  attn_proj, resid_mid, mlp_in, mlp_act, mlp_proj, resid_post, embed."""

  noising: Annotated[bool, flag_option()] = False
  """Put activations of CORRUPT into the run of CLEAN."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "gemma-scope-patch.html"
  """Where the report goes; an older one there is replaced."""

  json: Annotated[str | None, text_option("FILE")] = None
  """Write the numbers as JSON too; - prints them instead of the summary."""

  open: Annotated[bool, flag_option()] = False
  """Open the report in the browser."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """float32, or bfloat16 for half the memory and rougher numbers."""

  max_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 256
  """Refuse longer prompts: there is a run for every token of every layer."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope patch` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "patch", HELP))


def run(options: Options) -> None:
  """Patches one pair of prompts and writes the results.

  Raises:
    GemmaScopeError: If an option, a prompt or the checkpoint cannot be used.
  """
  if len(options.prompts) != 2:
    raise ConfigError(
      "Patching needs two prompts: one clean, one corrupt.",
      received=f"{len(options.prompts)} prompts",
      instead='gemma-scope patch "clean prompt" "corrupt prompt"',
    )
  ends = [prompts.read_prompt((text,), None) for text in options.prompts]
  sites = split_sites(options.sites)
  page, data = reports.destinations(options.out, options.json)
  with progress.stages(consoles.messages()) as tell:
    report = _patch(ends, options, sites, tell)
    tell("Writing the report")
    reports.write(report, page, data)
  render = functools.partial(_render, report, page)
  reports.show(report, page, render, as_json=options.json == "-")
  if options.open:
    reports.open_page(page)


def _patch(
  ends: list[str],
  options: Options,
  sites: tuple[str, ...],
  tell: progress.Report,
):
  """Loads the model and patches; here is where JAX is first needed."""
  tell(f"Loading {options.model}")
  import gemma_scope as gs

  compiled.keep_compiled_programs()
  lm = gs.load(options.model, dtype=options.dtype, progress=tell)
  longest = max(len(lm.tokenizer.encode(text)) for text in ends)
  reports.check_length(longest, options.max_tokens)
  tell("Compiling")
  return gs.patching_report(
    lm,
    *ends,
    target=options.target,
    against=options.against,
    at=sites,
    noising=options.noising,
    progress=tell,
  )


def split_sites(text: str) -> tuple[str, ...]:
  """Site names and addresses between commas; a bare name means all layers.

  Raises:
    ConfigError: If there is none.
  """
  from gemma_scope.sites import SITES as KNOWN

  parts, depth, start = [], 0, 0
  for i, character in enumerate(text + ","):
    depth += {"[": 1, "]": -1}.get(character, 0)
    if character == "," and depth <= 0:
      parts.append((text + ",")[start:i].strip())
      start = i + 1
  named = [part for part in parts if part]
  if not named:
    raise ConfigError(
      "--sites names no site.",
      received=repr(text),
      instead=f"--sites {SITES}",
    )
  return tuple(
    f"{name}[:]" if name in KNOWN and KNOWN[name].per_layer else name
    for name in named
  )


def _render(report, page: pathlib.Path) -> None:
  """Prints the summary."""
  from gemma_scope.viz import patching_terminal

  patching_terminal.render(report, consoles.results(), page=page)
