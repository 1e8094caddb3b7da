"""Changes by given numbers: set, add, scale, clamp; and ablation, which sets.

    zero ablation   set 0            mean ablation   set the mean over a corpus

A mean is an array, or one for each site (see `activations.statistics`).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from penzai import pz

from gemma_scope.errors import ConfigError
from gemma_scope.model.context import Context
from gemma_scope.surgery.addresses import Address
from gemma_scope.surgery.interventions.protocol import (
  Change,
  Given,
  Intervention,
)
from gemma_scope.surgery.interventions.where import where
from gemma_scope.surgery.positions import Choice

Numbers = int | Sequence[int] | None


@pz.pytree_dataclass
class Set(Change):
  """Puts given numbers in the place of the value.

  Attributes:
    to: The numbers.
  """

  to: Any

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """The given numbers."""
    del value, name, context
    return self.to


@pz.pytree_dataclass
class Add(Change):
  """Adds given numbers.

  Attributes:
    what: The numbers.
  """

  what: Any

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """Adds them."""
    del name, context
    return value + self.what


@pz.pytree_dataclass
class Scale(Change):
  """Multiplies by given numbers.

  Attributes:
    by: The factor.
  """

  by: Any

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """Multiplies by them."""
    del name, context
    return value * self.by


@pz.pytree_dataclass
class Clamp(Change):
  """Keeps the value between two bounds.

  Attributes:
    low: The least value; None for no bound.
    high: The greatest value; None for no bound.
  """

  low: Any | None
  high: Any | None

  def __call__(
    self, value: pz.nx.NamedArray, name: str, context: Context
  ) -> pz.nx.NamedArray:
    """min(max(value, low), high)."""
    del name, context
    if self.low is not None:
      value = pz.nx.nmap(jnp.maximum)(value, self.low)
    if self.high is not None:
      value = pz.nx.nmap(jnp.minimum)(value, self.high)
    return value


def set_to(
  at: Address,
  value: Given,
  *,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Sets the value at some sites.

  Args:
    at: Sites such as "z[3]" or "resid_post[4:8]", or latents.
    value: A number, an array over the last axes of the site, a named array, or
      a mapping with one of these for each site.
    heads: Heads it acts on; by default all.
    units: Entries of the last axis it acts on; by default all.
    positions: Tokens it acts on (see `positions`); by default all.

  Raises:
    GemmaScopeError: If heads, units or positions choose nothing.
  """
  return Intervention(at, Set(value), where(heads, units, positions))


def ablate(
  at: Address,
  *,
  mean: Given | None = None,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Zero ablation, or mean ablation if a mean is given.

  Args:
    at: Sites or latents.
    mean: What takes the value's place; by default zero. As `value` in `set_to`.
    heads: Heads it acts on.
    units: Entries of the last axis it acts on.
    positions: Tokens it acts on.
  """
  value = 0.0 if mean is None else mean
  return set_to(at, value, heads=heads, units=units, positions=positions)


def add(
  at: Address,
  what: Given,
  *,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Adds numbers to the value at some sites; arguments as in `set_to`."""
  return Intervention(at, Add(what), where(heads, units, positions))


def scale(
  at: Address,
  by: Given,
  *,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Multiplies the value at some sites; arguments as in `set_to`."""
  return Intervention(at, Scale(by), where(heads, units, positions))


def clamp(
  at: Address,
  *,
  low: Given | None = None,
  high: Given | None = None,
  heads: Numbers = None,
  units: Numbers = None,
  positions: Choice | None = None,
) -> Intervention:
  """Bounds the value at some sites from below, above or both.

  Args:
    at: Sites or latents.
    low: The least value; as `value` in `set_to`.
    high: The greatest value.
    heads: Heads it acts on.
    units: Entries of the last axis it acts on.
    positions: Tokens it acts on.

  Raises:
    ConfigError: If there is no bound.
  """
  if low is None and high is None:
    raise ConfigError(
      "Clamping needs a bound.",
      received="low=None, high=None",
      instead="clamp(at, low=0.0), clamp(at, high=…) or both",
    )
  return Intervention(at, Clamp(low, high), where(heads, units, positions))
