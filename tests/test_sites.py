"""What a user types becomes an address, or an error that says what to type."""

import random

import numpy as np
import pytest

from gemma_scope import axes, errors, sites
from gemma_scope.sites import Site, resolve

FORWARD_ORDER = [
  "embed",
  "resid_pre",
  "attn_in",
  "query",
  "key",
  "value",
  "pattern",
  "z",
  "attn_proj",
  "attn_write",
  "resid_mid",
  "mlp_in",
  "mlp_act",
  "mlp_proj",
  "mlp_write",
  "resid_post",
  "final_norm",
  "logits",
]


def typed(specs, num_layers=18):
  return [str(site) for site in resolve(specs, num_layers)]


def test_the_names_are_the_published_ones_in_forward_order():
  assert list(sites.SITES) == FORWARD_ORDER


@pytest.mark.parametrize("name", sites.SITES)
def test_every_site_has_known_axes_and_a_meaning(name):
  info = sites.SITES[name]
  assert set(info.axes) <= set(axes.GLOSSARY)
  assert info.axes[0] == axes.BATCH
  assert len(info.meaning) > 20


def test_only_embed_final_norm_and_logits_are_not_per_layer():
  once = [name for name, info in sites.SITES.items() if not info.per_layer]
  assert once == ["embed", "final_norm", "logits"]


def test_sites_print_as_they_are_typed():
  assert str(Site("resid_post", 12)) == "resid_post[12]"
  assert str(Site("embed")) == "embed"


def test_sites_are_values():
  assert Site("z", 3) == Site("z", np.int64(3))
  assert len({Site("z", 3), Site("z", 3), Site("z", 4)}) == 2
  with pytest.raises(AttributeError):
    Site("z", 3).layer = 4  # type: ignore[misc]


def test_sites_sort_in_forward_order():
  everything = [Site("embed")]
  for layer in range(12):
    everything += [Site(name, layer) for name in FORWARD_ORDER[1:-2]]
  everything += [Site("final_norm"), Site("logits")]
  shuffled = random.Random(0).sample(everything, len(everything))
  assert sorted(shuffled) == everything
  assert resolve(shuffled, 12) == tuple(everything)


@pytest.mark.parametrize(
  ("spec", "layers"),
  [
    ("z[12]", [12]),
    ("z[-1]", [17]),
    ("z[-18]", [0]),
    ("z[:]", list(range(18))),
    ("z[3:9]", [3, 4, 5, 6, 7, 8]),
    ("z[::6]", [0, 6, 12]),
    ("z[-2:]", [16, 17]),
    ("z[15:99]", [15, 16, 17]),
    ("z[::-9]", [8, 17]),
    ("z[1,4,7]", [1, 4, 7]),
    (" z [ 7, 1 , 1 ] ", [1, 7]),
    ("z[0,16:]", [0, 16, 17]),
  ],
)
def test_layers_are_chosen_as_in_python(spec, layers):
  assert typed(spec) == [f"z[{layer}]" for layer in layers]


def test_many_specs_are_merged_without_duplicates():
  specs = ["logits", "z[1]", Site("resid_pre", 1), "z[:2]", "embed"]
  assert typed(specs) == ["embed", "z[0]", "resid_pre[1]", "z[1]", "logits"]
  assert resolve([], 18) == ()


def test_names_of_other_tools_are_accepted():
  assert typed(["blocks.3.hook_resid_post", "hidden_states[18]"]) == [
    "resid_post[3]",
    "final_norm",
  ]


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("resid_post", r"resid_post\[:\]"),
    ("resid_pots[3]", "did you mean resid_post"),
    ("", "no site of this name"),
    ("z[18]", "18 layers\\.\n.*z\\[18\\]\n.*from 0 to 17"),
    ("z[-19]", "from 0 to 17"),
    ("z[3,18]", "from 0 to 17"),
    ("z[20:]", "matches none of the 18 layers"),
    ("z[5:5]", "matches none"),
    ("z[]", "no layer, list of layers or slice"),
    ("z[a]", "no layer, list of layers or slice"),
    ("z[1:2:3:4]", "no layer, list of layers or slice"),
    ("z[1 2:]", "no layer, list of layers or slice"),
    ("z[::0]", "no layer, list of layers or slice"),
    ("embed[0]", "one embed in the model"),
    ("model.layers.18.mlp", r"18 layers\.\n.*model\.layers\.18\.mlp"),
    (Site("z", 18), "from 0 to 17"),
    (12, "a string or a Site"),
  ],
)
def test_specs_that_name_nothing_are_refused(spec, message):
  with pytest.raises(errors.SiteError, match=message):
    resolve([spec], 18)


@pytest.mark.parametrize(
  ("name", "layer", "message"),
  [
    ("z", None, "whole number"),
    ("z", -1, "whole number"),
    ("z", 1.5, "whole number"),
    ("z", True, "whole number"),
    ("logits", 3, "one logits in the model"),
    ("resid", 3, "did you mean resid_"),
  ],
)
def test_addresses_that_cannot_exist_are_refused(name, layer, message):
  with pytest.raises(errors.SiteError, match=message):
    Site(name, layer)
