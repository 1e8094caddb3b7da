"""The short form of an edit: a mapping from addresses to what is added there.

{sae.latents[5698]: +4.0}                  latents by a number
{"resid_post[12]": direction}              sites by a vector
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.errors import ConfigError
from gemma_scope.model.gemma import Gemma
from gemma_scope.surgery.addresses import sites_and_units
from gemma_scope.surgery.intervene import intervene
from gemma_scope.surgery.interventions.constants import add
from gemma_scope.surgery.interventions.directions import steer as steer_along
from gemma_scope.surgery.interventions.protocol import Intervention

Steering = Mapping[Any, Any] | Iterable[Intervention] | Intervention


def steered(model: Gemma, steering: Steering) -> Gemma:
  """Returns a model with what a mapping, or interventions, say.

  Args:
    model: The model.
    steering: Address -> number (for latents) or direction; or interventions.

  Raises:
    ConfigError: If there is nothing to do, or a number for a whole site.
    SiteError: If a site, head or latent is not there.
  """
  several: list[Intervention]
  if isinstance(steering, Intervention):
    several = [steering]
  elif isinstance(steering, Mapping):
    layers = model.stack.num_layers
    several = [_one(at, what, layers) for at, what in steering.items()]
  else:
    several = list(steering)
  if not several:
    raise ConfigError(
      "There is nothing to steer by.",
      received=f"steer={steering!r:.60}",
      instead='steer={"resid_post[12]": direction}, or a list of interventions',
    )
  return intervene(model, several)


def _one(at: Any, what: Any, num_layers: int) -> Intervention:
  sites, _ = sites_and_units(at, num_layers)
  named = isinstance(what, pz.nx.NamedArray)
  number = not named and np.ndim(what) == 0
  latents = all(axes.LATENTS in site.info.axes for site in sites)
  if number and not latents:
    raise ConfigError(
      "A number can be added to latents; a site needs a direction.",
      received=f"{at}: {what}",
      instead="a vector, or surgery.add(site, number) if every entry is meant",
    )
  return add(at, what) if number else steer_along(at, what)
