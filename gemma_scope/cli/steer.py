"""`gemma-scope steer PROMPT`: steered text beside unsteered text.

Reads options, finds the direction, calls `gs.generate`, shows what it returns.
The direction is an array in a file, or the difference of means of two sets of
texts at the site.
"""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Annotated, Any

import numpy as np
import rich.box
import rich.table
import rich.text
import tyro

from gemma_scope import display
from gemma_scope.cli import (
  arguments,
  compiled,
  consoles,
  outputs,
  progress,
  prompts,
)
from gemma_scope.cli.arguments import flag_option, text_option
from gemma_scope.cli.explain import DEFAULT_MODEL
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.weights import folders

# The parser joins a line that starts with a letter to the one before it.
HELP = """\
What does the model write when a direction is added to its activations?
  Shows the steered text beside the unsteered one, and by how much the
  steering changes the likelihood of texts that were kept apart.

Examples:
  gemma-scope steer "I think the film was" --site "resid_post[9]" \\
    --toward praise.txt --away complaints.txt --scale 2 \\
    --held-out more-praise.txt
  gemma-scope steer "Once upon a time" --site "resid_post[9]" \\
    --direction sea.npy --scale 4 --relative

Notes:
  A text file holds one text a line. --toward and --away also take the
  texts themselves. --held-out texts are measured alone (what the steering
  costs) and behind the prompt (whether the model now goes on like that).
  With --relative, --scale counts in mean norms of the
  site; without it, the direction is added as it is, times --scale.
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `steer`, as typed."""

  prompt: Annotated[
    tyro.conf.Positional[tuple[str, ...]], text_option("PROMPT")
  ] = ()
  """The text to continue, in quotes; - reads it from standard input."""

  prompt_file: Annotated[str | None, text_option("FILE")] = None
  """Read the prompt from a UTF-8 text file instead."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = DEFAULT_MODEL
  """A published checkpoint, or a GGUF, safetensors or Orbax one on disk."""

  site: Annotated[str | None, text_option("SITE")] = None
  """Where the direction is added, such as "resid_post[9]"."""

  toward: Annotated[tuple[str, ...], text_option("FILE|TEXT …")] = ()
  """Texts that the direction leads to."""

  away: Annotated[tuple[str, ...], text_option("FILE|TEXT …")] = ()
  """Texts that it leads away from."""

  direction: Annotated[str | None, text_option("FILE.npy")] = None
  """An array over the site's width, in the place of --toward and --away."""

  save_direction: Annotated[str | None, text_option("FILE.npy")] = None
  """Write the direction to a file."""

  scale: Annotated[float, tyro.conf.arg(metavar="X")] = 1.0
  """How much of the direction is added; negative for the other way."""

  relative: Annotated[bool, flag_option()] = False
  """Count --scale in mean norms of the site, whatever the direction's length;
  measured on --toward and --away, or on the prompt."""

  only_generated: Annotated[bool, flag_option()] = False
  """Steer behind the prompt only; by default everywhere but at <bos>."""

  held_out: Annotated[str | None, text_option("FILE")] = None
  """Texts on which the change of the likelihood is measured."""

  max_new_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 48
  """How many tokens to write at most."""

  temperature: Annotated[float, tyro.conf.arg(metavar="X")] = 0.0
  """0 takes the most probable token; more is more random."""

  seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
  """Seed of the random choices."""

  chat: Annotated[bool, flag_option()] = False
  """Wrap the prompt as a user's turn, for instruction-tuned models."""

  json: Annotated[bool, flag_option()] = False
  """Print the result as JSON instead."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "float32"
  """float32, or bfloat16 for half the memory and rougher numbers."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope steer` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "steer", HELP))


def run(options: Options) -> None:
  """Writes with and without the direction and shows both.

  Raises:
    GemmaScopeError: If an option, the prompt or the checkpoint cannot be used.
  """
  text = prompts.read_prompt(options.prompt, options.prompt_file)
  toward, away = _read_sets(options)
  given = _read_direction(options.direction)
  held_out = _lines(options.held_out) if options.held_out else None
  saved = None
  if options.save_direction:
    saved = outputs.check_destination(
      options.save_direction, "--save-direction"
    )
  with progress.stages(consoles.messages()) as report:
    report(f"Loading {options.model}")
    import gemma_scope as gs  # here is where JAX is first needed

    compiled.keep_compiled_programs()
    lm = gs.load(options.model, dtype=options.dtype, progress=report)
    report("Finding the direction")
    direction = _direction(lm, options, given, toward, away)
    if saved is not None:
      _save(saved, direction)
    norm = _norm(lm, options, [*toward, *away] or [text])
    edit = _intervention(options, direction, norm)
    report("Writing with and without it")
    found = gs.generate(
      lm,
      text,
      max_new_tokens=options.max_new_tokens,
      sampling=gs.Sampling(temperature=options.temperature),
      seed=options.seed,
      chat=options.chat,
      steer=[edit],
      held_out=held_out,
    )
    behind = None
    if held_out is not None:
      report("Measuring the texts behind the prompt")
      model = gs.surgery.intervene(lm.model, edit)
      following = [f" {one.strip()}" for one in held_out]
      behind = gs.nll_change(lm, model, following, after=text)
  _show(found, behind, options)


def _read_sets(options: Options) -> tuple[list[str], list[str]]:
  """The texts of both sets; refuses what leaves no direction, or two."""
  if options.site is None:
    raise ConfigError(
      "Steering needs a site.",
      received="no --site",
      instead='--site "resid_post[9]"',
    )
  pair = bool(options.toward), bool(options.away)
  if any(pair) == (options.direction is not None) or pair[0] != pair[1]:
    raise ConfigError(
      "Steering needs one direction.",
      received=f"--toward: {len(options.toward)}, --away: {len(options.away)}, "
      f"--direction: {options.direction or 'none'}",
      instead="--toward and --away together, or --direction alone",
    )
  return (
    [line for one in options.toward for line in _texts(one)],
    [line for one in options.away for line in _texts(one)],
  )


def _texts(given: str) -> list[str]:
  """The lines of a file, or the text itself."""
  if len(given) < 1024 and pathlib.Path(given).expanduser().is_file():
    return _lines(given)
  if given.endswith((".txt", ".md")):
    return _lines(given)  # meant as a file: says that it is not there
  return [given]


def _lines(path: str) -> list[str]:
  """The lines of a text file that are not empty."""
  text = prompts.read_prompt((), path)
  lines = [line for line in text.splitlines() if line.strip()]
  if not lines:
    raise TextError(
      "The file holds no text.", received=path, instead="one text a line"
    )
  return lines


def _read_direction(path: str | None) -> np.ndarray | None:
  if path is None:
    return None
  try:
    return np.load(pathlib.Path(path).expanduser(), allow_pickle=False)
  except (OSError, ValueError) as error:
    raise ConfigError(
      "The direction cannot be read.",
      received=f"{path}: {error}",
      instead="an array saved with numpy.save, as wide as the site",
    ) from error


def _direction(
  lm: Any,
  options: Options,
  given: np.ndarray | None,
  toward: list[str],
  away: list[str],
) -> np.ndarray:
  """The direction as an array over the last axes of the site."""
  from gemma_scope.activations import statistics
  from gemma_scope.sites import resolve

  assert options.site is not None
  sites = resolve(options.site, lm.config.num_layers)
  if len(sites) != 1:
    raise ConfigError(
      "One direction is added at one site.",
      received=f"{options.site}: {len(sites)} sites",
      instead=f"--site {sites[0]}",
    )
  if given is not None:
    return np.asarray(given, np.float32)
  found = statistics.difference_of_means(lm, toward, away, sites)[sites[0]]
  return np.asarray(found.unwrap(*found.named_axes))


def _save(path: pathlib.Path, direction: np.ndarray) -> None:
  """Writes the whole array, or leaves what was there as it was."""
  with folders.new_file(path) as file:
    np.save(file, direction)


def _norm(lm: Any, options: Options, texts: list[str]) -> float | None:
  from gemma_scope.activations import statistics

  if not options.relative:
    return None
  assert options.site is not None
  (norm,) = statistics.mean_norms(lm, texts, options.site).values()
  return norm


def _intervention(
  options: Options, direction: np.ndarray, norm: float | None
) -> Any:
  from gemma_scope import surgery

  assert options.site is not None
  chosen = surgery.all_but_bos()
  if options.only_generated:
    chosen = surgery.generated()
  return surgery.steer(
    options.site, direction, scale=options.scale, norm=norm, positions=chosen
  )


def _show(found: Any, behind: Any, options: Options) -> None:
  """Both texts side by side, and the change of the likelihood."""
  console = consoles.results()
  if options.json:
    console.file.write(json.dumps(_to_dict(found, behind), indent=2) + "\n")
    return
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, expand=True)
  for heading in ("unsteered", "steered"):
    table.add_column(heading, ratio=1, overflow="fold")
  texts = (found.unsteered.texts[0], found.texts[0])
  table.add_row(*map(_printable, texts))
  console.print(rich.text.Text(_safe(found.prompts[0]), style="bold"))
  console.print(table)
  if found.effect is not None:
    console.print("NLL of held-out text", style="bold")
    console.print(f"  alone:             {found.effect}", markup=False)
    console.print(f"  behind the prompt: {behind}", markup=False)


def _to_dict(found: Any, behind: Any) -> dict[str, Any]:
  return {
    "prompt": found.prompts[0],
    "steered": found.texts[0],
    "unsteered": found.unsteered.texts[0],
    "held_out_nll": _change(found.effect),
    "held_out_nll_behind_prompt": _change(behind),
  }


def _change(effect: Any) -> dict[str, Any] | None:
  """The fields as JSON values; no interval where there is none."""
  if effect is None:
    return None
  fields = {**dataclasses.asdict(effect), "change": effect.change}
  return {k: None if v != v else v for k, v in fields.items()}


def _printable(text: str) -> rich.text.Text:
  return rich.text.Text(_safe(text))


def _safe(text: str) -> str:
  """Keeps line breaks, shows every other control character."""
  return "\n".join(map(display.visible, text.split("\n")))
