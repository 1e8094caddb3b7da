"""Layers that act in another decoder layer for each row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.attribution import logit_difference
from gemma_scope.attribution.evaluate import ask, evaluate
from gemma_scope.attribution.patching.by_layer import (
  where_acting,
  wrap_by_row,
)
from gemma_scope.model.context import Context
from gemma_scope.model.site_layer import ActiveSite
from gemma_scope.surgery import edit

RUN = jax.jit(evaluate)


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Negated(ActiveSite):
  """Changes the sign of some rows."""

  acts: pz.nx.NamedArray = dataclasses.field(kw_only=True)

  def __call__(self, value, /, *, context: Context, **side_inputs):
    value = self.inner(value, context=context, **side_inputs)
    return where_acting(self.acts, -value, value)


def negated(model, names, acts):
  def make(inner, name, layers, acts):
    return Negated(inner, name, layers, acts=acts)

  return wrap_by_row(model, names, jnp.asarray(acts), make)


def test_each_row_has_its_layer(scanned):
  lm = scanned.lm
  layers = (0, 5, 6)  # in the scanned period, global, behind it
  _, rows, target = ask(lm, scanned.ids, logit_difference(7, 9))
  many = rows.take(jnp.zeros(len(layers), int))
  acts = np.arange(7)[:, None] == np.asarray(layers)[None, :]
  model = negated(lm.model, ("mlp_write",), acts)
  found, _ = RUN(model, many, target, {})
  for value, layer in zip(found, layers):
    changed = edit(lm.model, f"mlp_write[{layer}]", sign_changed)
    expected, _ = RUN(changed, rows, target, {})
    np.testing.assert_allclose(value, expected[0], rtol=1e-4)
  assert len(set(np.round(np.asarray(found), 4).tolist())) == len(layers)


def sign_changed(value):
  return -value


def test_a_site_outside_the_layers_acts_by_the_first_row(double):
  _, rows, target = ask(double.lm, double.ids, logit_difference(7, 9))
  many = rows.take(jnp.zeros(2, int))
  acts = np.asarray([[True, False], [False, False]])
  model = negated(double.lm.model, ("embed",), acts)
  found, _ = RUN(model, many, target, {})
  plain, _ = RUN(double.lm.model, rows, target, {})
  np.testing.assert_allclose(found[1], plain[0], rtol=1e-5)
  assert abs(found[0] - plain[0]) > 1e-2
