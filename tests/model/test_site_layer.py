"""Sites are the identity; active sites act on their layers and no others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
import pytest

from gemma_scope.model.site_layer import (
  ActiveLayer,
  ActiveSite,
  SiteLayer,
  acting_on,
  make_site,
  without_scopes,
)
from gemma_scope.testing import programs

VALUE = pz.nx.wrap(jnp.arange(3.0), "embedding")


@pz.pytree_dataclass
class Scale(ActiveSite):
  """Multiplies by `factor`."""

  inner: pz.nn.Layer
  name: str = dataclasses.field(metadata={"pytree_node": False})
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )
  factor: float = 2.0

  def __call__(self, value, /, **side_inputs):
    return self.inner(value, **side_inputs) * self.factor


def test_a_site_is_the_identity_and_costs_nothing():
  layer = SiteLayer("resid_post")
  assert layer(VALUE, context=None) is VALUE
  assert programs.operations(lambda v: layer(v), VALUE) == []


def test_an_active_site_gives_way_where_it_does_not_act():
  block = pz.nn.Sequential([Scale(SiteLayer("z"), "z", (1, 7)), SiteLayer("z")])
  assert acting_on(block, 2).sublayers[0] == SiteLayer("z")
  settled = acting_on(block, 7).sublayers[0]
  assert isinstance(settled, Scale)
  assert settled.inner == SiteLayer("z")


@pytest.mark.parametrize(
  ("layer", "factor"), [(0, 1), (1, 10), (2, 30), (3, 3), (9, 1)]
)
def test_nested_edits_act_each_on_its_own_layers(layer, factor):
  inner = Scale(SiteLayer("z"), "z", (1, 2), factor=10.0)
  block = pz.nn.Sequential([Scale(inner, "z", (2, 3), factor=3.0)])
  found = acting_on(block, layer)(VALUE)
  assert found.data_array.tolist() == [0, factor, 2 * factor]


def test_sites_without_a_layer_always_act():
  block = pz.nn.Sequential([Scale(SiteLayer("embed"), "embed", None)])
  assert acting_on(block, 4)(VALUE).data_array.tolist() == [0, 2, 4]


def test_layers_that_share_an_edit_share_a_program():
  block = pz.nn.Sequential([Scale(SiteLayer("z"), "z", (0, 6))])
  assert acting_on(block, 0) == acting_on(block, 6)
  assert acting_on(block, 0) != acting_on(block, 1)


@pz.pytree_dataclass
class Around(ActiveLayer):
  """Adds one."""

  inner: pz.nn.Layer
  layers: tuple[int, ...] | None = dataclasses.field(
    metadata={"pytree_node": False}
  )

  def __call__(self, value, /, **side_inputs):
    return self.inner(value, **side_inputs) + 1.0


@pytest.mark.parametrize(
  ("layer", "expected"), [(1, 3.0), (2, 2.0), (3, 2.0), (4, 1.0)]
)
def test_a_layer_around_others_acts_on_its_layers_as_they_on_theirs(
  layer, expected
):
  inside = pz.nn.Sequential([Scale(SiteLayer("z"), "z", (1, 2))])
  block = Around(inside, (1, 3))
  whole = acting_on(block, layer)(VALUE)
  assert whole.data_array.tolist()[1] == expected
  assert without_scopes(Around(block, None)) is inside
  assert acting_on(block, 1) == acting_on(Around(inside, (1, 5)), 1)


def test_a_sharded_site_is_a_site():
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2])[:, None], ("data", "m"))
  site = make_site("embed", mesh)
  assert isinstance(site, SiteLayer)
  assert make_site("embed") == SiteLayer("embed")
  value = pz.nx.wrap(jnp.ones((2, 3)), "batch", "seq")
  found = jax.jit(site)(value)
  assert len(found.data_array.sharding.device_set) == 2
  np.testing.assert_array_equal(found.data_array, value.data_array)
