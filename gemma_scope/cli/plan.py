"""`gemma-scope plan`: what a step needs of a machine, without the machine."""

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Annotated, Literal

import tyro

from gemma_scope.cli import consoles, outputs
from gemma_scope.errors import ConfigError
from gemma_scope.weights import catalog

DEFAULT_MODEL, *_ = catalog.CATALOG
LARGE_MODEL = [
  name for name, entry in catalog.CATALOG.items() if entry.variant == "pt"
][-1]

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
  gemma-scope plan capture --machine cpu --dtype float32
"""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of `plan`, as typed."""

  step: Annotated[
    tyro.conf.Positional[Literal["capture", "attribute"]],
    tyro.conf.arg(metavar="STEP"),
  ]
  """capture (one forward pass) or attribute (forward and backward)."""

  model: Annotated[str, tyro.conf.arg(metavar="NAME")] = DEFAULT_MODEL
  """A published checkpoint."""

  machine: Annotated[str, tyro.conf.arg(metavar="MACHINE")] = "cpu"
  """cpu, cpu:8 (as many processes' worth), gpu, or a TPU such as v5e:4x4."""

  mesh: Annotated[
    str | None, tyro.conf.arg(metavar="DATAxMODEL", help_behavior_hint="")
  ] = None
  """Chips along data and model, such as 32x8; by default 8 along model."""

  batch: Annotated[int, tyro.conf.arg(metavar="N")] = 8
  """Rows of one step, on all chips together."""

  tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 1024
  """Tokens of a row."""

  sites: Annotated[str, tyro.conf.arg(metavar="SITE,…")] = "resid_post[:]"
  """Sites captured, or attributed to."""

  method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "attn_lrp"
  """The attribution method."""

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
  run(
    tyro.cli(
      Options,
      args=argv,
      prog="gemma-scope plan",
      description=HELP,
      config=(tyro.conf.FlagCreatePairsOff,),
    )
  )


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
  from gemma_scope.planning.steps import Shape

  machine = planning.find_machine(options.machine, mesh)
  shape = Shape(
    options.model, machine, options.batch, options.tokens, options.dtype
  )
  sites = [site.strip() for site in options.sites.split(",")]
  if options.step == "capture":
    step = planning.capture_step(shape, sites)
  else:
    step = planning.attribute_step(shape, options.method, sites)
  batch = planning.largest_batch(step) if options.suggest else None
  return planning.plan_step(step), batch


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
