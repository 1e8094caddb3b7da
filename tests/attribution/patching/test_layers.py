"""Layers as arguments: the right weights, no copies, equal programs."""

import dataclasses
import functools

import jax
from penzai import pz
import pytest

from gemma_scope import errors, surgery
from gemma_scope.attribution.patching.layers import layer_of
from gemma_scope.model.site_layer import SharingSite


def test_no_copy_of_a_scanned_layer_is_made(scanned):
  stack = scanned.lm.model.stack
  own = {id(leaf) for leaf in jax.tree.leaves(stack)}
  for layer in range(stack.num_layers):
    found = layer_of(scanned.lm.model, layer, ())
    assert all(id(leaf) in own for leaf in jax.tree.leaves(found.block))


def test_equal_layers_have_equal_programs(scanned):
  model = surgery.tap(scanned.lm.model, ["z[:]"])
  kinds = [jax.tree.structure(layer_of(model, layer, ())) for layer in range(7)]
  assert len(set(kinds[:5])) == 1  # local layers of the period
  assert len(set(kinds)) == 3  # the global one, and the one behind


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Exchange(SharingSite):
  """Says that it exchanges values with other layers."""

  def __call__(self, value, /, **_side_inputs):
    return value


def test_layers_that_exchange_values_are_refused(double):
  exchange = functools.partial(
    Exchange, uses="dictionary", crosses=True, ahead=False
  )
  model = surgery.wrap_sites(double.lm.model, ["mlp_in[1]"], exchange)
  shared = {"dictionary": pz.nn.Identity()}
  stack = dataclasses.replace(model.stack, shared=shared)
  model = dataclasses.replace(model, stack=stack)
  layer_of(model, 0, ())
  with pytest.raises(errors.ConfigError, match="dictionaries of one layer"):
    layer_of(model, 1, ())
