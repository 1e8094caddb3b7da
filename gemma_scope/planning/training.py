"""What a step of dictionary training needs, before there is a row.

    config = gs.training.preset("gemma_scope_2", ["resid_post[9]"], steps=9000)
    print(plan_training(config, "gemma-3-270m", machine, rows=4096))

The step is the one that `training.train` runs: all groups in one program,
latents over `model`, its state given away. Rows lie over `data`. The model that
makes the rows is not part of it: plan its capture beside.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gemma_scope.errors import ConfigError
from gemma_scope.model.config import preset
from gemma_scope.model.sharding import DATA
from gemma_scope.planning.compiling import plan
from gemma_scope.planning.machines import Machine
from gemma_scope.planning.report import Plan
from gemma_scope.sites import Site
from gemma_scope.surgery.addresses import axis_sizes
from gemma_scope.training.config import TrainConfig
from gemma_scope.training.placement import place
from gemma_scope.training.scaling import SiteScale
from gemma_scope.training.state import begin
from gemma_scope.training.step import make_step


def plan_training(
  config: TrainConfig, model: str, machine: Machine, *, rows: int
) -> Plan:
  """Plans one step of a run.

  Args:
    config: The run.
    model: A name of the catalogue, for the widths of the sites.
    machine: Where it is to run.
    rows: Rows of a batch, float32.

  Raises:
    ConfigError: If the rows do not divide by the mesh's `data`.
  """
  parts = machine.mesh.shape[DATA]
  if rows < 1 or rows % parts:
    raise ConfigError(
      "A batch of rows is divided over the mesh's axis `data`.",
      received=f"{rows} rows for data={parts}",
      instead=f"a multiple of {parts}, such as rows={parts * 1024}",
    )
  widths = {site: width_of(site, model) for site in config.sites}
  state = jax.eval_shape(lambda: begin(config, _scales(widths)))
  where = NamedSharding(machine.mesh, PartitionSpec(DATA))
  batch: dict[Site, Any] = {
    site: jax.ShapeDtypeStruct((rows, width), jnp.float32, sharding=where)
    for site, width in widths.items()
  }
  step = make_step(config, widths)
  found = plan(step, place(state, machine.mesh), batch, machine=machine)
  several = sum(len(group.members) for group in config.groups)
  title = f"training of {several} dictionaries, {rows:,} rows"
  return dataclasses.replace(
    found, title=title, float32=config.precision == "float32"
  )


def width_of(site: Site, model: str) -> int:
  """How many numbers a vector at a site of a model has."""
  return math.prod(axis_sizes(site, preset(model)).values())


def _scales(widths: dict[Site, int]) -> dict[Site, SiteScale]:
  return {
    site: SiteScale(jnp.float32(1.0), jnp.zeros((width,), jnp.float32))
    for site, width in widths.items()
  }
