"""`gemma-scope plan`: what a step needs of a machine, without the machine."""

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Annotated, Literal

import tyro

from gemma_scope.cli import arguments, consoles, outputs
from gemma_scope.errors import ConfigError
from gemma_scope.weights import catalog

DEFAULT_MODEL, *_ = catalog.CATALOG
LARGE_MODEL = [
  name for name, entry in catalog.CATALOG.items() if entry.variant == "pt"
][-1]

STREAMS = ["resid_post[:]"]

# The parser joins a line that starts with a letter to the one before it.
HELP = f"""\
Does it fit, and how long does it take at least?
  Compiles a step ahead of time for a machine that need not be there, and
  tells the memory of a chip by kind, products, memory traffic, messages
  between chips and the roofline time. TPU topologies need the package
  libtpu, and no TPU. No weights are read. Large models take minutes.

Examples:
  gemma-scope plan capture --model {LARGE_MODEL} --machine v5e:16x16 \\
    --batch 16 --tokens 1024
  gemma-scope plan attribute --machine v5e:2x2 --method attn_lrp --suggest
  gemma-scope plan graph --model {LARGE_MODEL} --machine v5e:4x4
  gemma-scope plan train --machine v5e:2x2 --sites "resid_post[9]" \\
    --recipe gemma_scope_2 --width 16384 --batch 4096
  gemma-scope plan capture --machine cpu --dtype float32
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `plan`, as typed."""

  step: Annotated[
    tyro.conf.Positional[Literal["capture", "attribute", "graph", "train"]],
    tyro.conf.arg(metavar="STEP"),
  ]
  """capture, attribute, graph (a row of one) or train (dictionaries)."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME")] = DEFAULT_MODEL
  """A published checkpoint."""

  machine: Annotated[str, tyro.conf.arg(metavar="MACHINE")] = "cpu"
  """cpu, cpu:8 (as many processes' worth), gpu, or a TPU such as v5e:4x4."""

  mesh: Annotated[
    str | None, tyro.conf.arg(metavar="DATAxMODEL", help_behavior_hint="")
  ] = None
  """Chips along data and model, such as 32x8; by default 8 along model."""

  batch: Annotated[int, tyro.conf.arg(metavar="N")] = 8
  """Rows of a step, on all chips together; of train, tokens."""

  tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 1024
  """Tokens of a row."""

  sites: Annotated[
    str | None, tyro.conf.arg(metavar="SITE,…", help_behavior_hint="")
  ] = None
  """Sites kept, attributed to or trained on; by default resid_post[:]."""

  method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "attn_lrp"
  """The attribution method."""

  recipe: Annotated[str, tyro.conf.arg(metavar="NAME")] = "gemma_scope_2"
  """How dictionaries are trained."""

  width: Annotated[int, tyro.conf.arg(metavar="N")] = 16_384
  """Latents of each dictionary."""

  dtype: Annotated[str, tyro.conf.arg(metavar="DTYPE")] = "bfloat16"
  """bfloat16 or float32."""

  suggest: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
  """Also find the largest batch that fits: three more compilations."""

  json: Annotated[
    str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")
  ] = None
  """Write the numbers as JSON; - prints them instead."""


def main(argv: Sequence[str]) -> None:
  """Runs `gemma-scope plan` with the arguments after the verb."""
  run(arguments.parsed(Options, argv, "plan", HELP))


def run(options: Options) -> None:
  """Plans one step and prints what it needs.

  Raises:
    GemmaScopeError: If there is no such model, machine, site or method.
  """
  mesh = _mesh(options.mesh)
  path = None
  if options.json not in (None, "-"):
    path = outputs.check_destination(options.json, "--json")
  with consoles.messages().status("Compiling"):
    result, batch = _plan(options, mesh)
  found = result.to_dict() | ({} if batch is None else {"largest_batch": batch})
  text = json.dumps(found, indent=2) + "\n"
  if path is not None:
    outputs.write_text(path, text)
  console = consoles.results()
  if options.json == "-":
    console.file.write(text)
    return
  console.print(str(result), markup=False, soft_wrap=True)
  if batch is not None:
    console.print(f"largest batch that fits: {batch}" + " (none)" * (not batch))


def _plan(options: Options, mesh: tuple[int, int] | None):
  """The plan, and the largest batch if that was asked for."""
  count = re.fullmatch(r"cpu:(\d+)", options.machine)
  import jax

  if count is not None:
    jax.config.update("jax_num_cpu_devices", int(count[1]))
  from gemma_scope import planning

  machine = planning.find_machine(options.machine, mesh)
  if options.step == "train":
    return _training(options, machine), None
  shape = planning.Shape(
    options.model, machine, options.batch, options.tokens, options.dtype
  )
  sites = _sites(options.sites)
  if options.step == "capture":
    step = planning.capture_step(shape, sites or STREAMS)
  elif options.step == "graph":
    step = planning.graph_step(shape, *([sites] if sites else []))
  else:
    step = planning.attribute_step(shape, options.method, sites or STREAMS)
  batch = planning.largest_batch(step) if options.suggest else None
  return planning.plan_step(step), batch


def _training(options: Options, machine):
  """The plan of a step of dictionary training."""
  from gemma_scope import planning, training
  from gemma_scope.model.config import preset

  if options.suggest:
    raise ConfigError(
      "The largest batch is found for passes of the model.",
      received="train --suggest",
      instead="gemma-scope plan train with several --batch",
    )
  config = training.preset(
    options.recipe,
    _sites(options.sites) or STREAMS,
    steps=1,
    width=options.width,
    num_layers=preset(options.model).num_layers,
  )
  return planning.plan_training(
    config, options.model, machine, rows=options.batch
  )


def _sites(text: str | None) -> list[str]:
  """Sites as typed; commas inside brackets belong to them."""
  found = re.split(r",(?![^\[]*\])", text or "")
  return [site.strip() for site in found if site.strip()]


def _mesh(text: str | None) -> tuple[int, int] | None:
  if text is None:
    return None
  found = re.fullmatch(r"(\d+)x(\d+)", text)
  if found is None:
    raise ConfigError(
      "--mesh is two numbers, chips along data and along model.",
      received=text,
      instead="for example --mesh 32x8",
    )
  return int(found[1]), int(found[2])
