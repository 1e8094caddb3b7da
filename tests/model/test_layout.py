"""The table of layouts covers every tensor and is read in both directions."""

import numpy as np
import pytest

from gemma_scope import axes
from gemma_scope.model import layout
from gemma_scope.model.config import preset
from gemma_scope.weights.checkpoint import canonical_shapes

ALL = {**layout.LAYER_LAYOUT, **layout.OUTER_LAYOUT}


def test_it_covers_every_canonical_tensor():
  names = canonical_shapes(preset("270m").sizes)
  found = {name.partition("/")[2] for name in names if "layer_" in name}
  assert found == set(layout.LAYER_LAYOUT)
  outer = {name for name in names if "layer_" not in name}
  assert outer == set(layout.OUTER_LAYOUT)


@pytest.mark.parametrize("name", ALL)
def test_axes_have_the_sizes_that_their_names_promise(name):
  config = preset("12b")
  sizes = {
    axes.EMBEDDING: 3840,
    axes.HEADS: 16,
    axes.KV_HEADS: 8,
    axes.PROJECTION: 256,
    axes.KEY_VALUE: 2,
    axes.GATE_UP: 2,
    axes.NEURONS: 15360,
    axes.VOCABULARY: 262_144,
  }
  shapes = canonical_shapes(config.sizes)
  shape = shapes.get(name) or shapes[f"layer_3/{name}"]
  how = ALL[name]
  turned = tuple(shape[i] for i in how.order)
  assert turned == tuple(sizes[axis] for axis in how.axes)


@pytest.mark.parametrize("name", ALL)
def test_the_inverse_leads_back(name):
  how = ALL[name]
  value = np.zeros(range(2, 2 + len(how.order)))
  back = value.transpose(how.order).transpose(how.inverse)
  assert back.shape == value.shape


def test_a_permutation_of_three_is_not_its_own_inverse():
  how = layout.ArrayLayout((2, 0, 1), ("a", "b", "c"))
  assert how.inverse == (1, 2, 0)


def test_summed_axes_stand_in_front():
  for name, how in layout.LAYER_LAYOUT.items():
    if name.startswith("attn/") and name.endswith("einsum/w"):
      out = "vec" in name
      assert how.axes[0] == (axes.HEADS if out else axes.EMBEDDING)


def test_layers_past_the_last_whole_period_are_not_scanned():
  config = preset("1b")  # 26 layers: four periods and two layers
  assert [*layout.scanned_layers(config, 0)] == [0, 6, 12, 18]
  assert [*layout.scanned_layers(config, 5)] == [5, 11, 17, 23]
