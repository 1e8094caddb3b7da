"""The catalogue follows from its rules, and names are found."""

import pytest

from gemma_scope.dictionaries import published
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site
from gemma_scope.weights import catalog


def count(**chosen):
  return len(published.published(**chosen))


def test_every_row_of_one_model():
  """Counted by hand from the table of the release."""
  model = {"size": "270m", "variant": "pt"}
  assert count(**model, group="resid_post") == 4 * 4 * 3 + 18 * 2 * 2
  assert count(**model, group="attn_out") == 4 * 3 * 3 + 18 * 2 * 2
  assert count(**model, group="transcoder") == 2 * count(
    **model, group="mlp_out"
  )
  assert count(**model, group="crosscoder") == 4 * 2
  assert count(**model, group="clt") == 2 * 2 * 2
  assert count(size="4b", group="clt") == 0
  assert count(size="27b", group="resid_post", variant="it") == 48 + 62 * 4


def test_names_are_unique_and_found():
  everything = published.published()
  assert len({e.name for e in everything}) == len(everything)
  for entry in everything[::97]:
    assert published.lookup(entry.name) == entry
    assert published.find(f"google/{entry.name}/") == entry
    assert entry.model in catalog.CATALOG


@pytest.mark.parametrize(
  ("name", "target"),
  [
    ("gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium", 60),
    ("gemma-scope-2-270m-pt/resid_post/layer_5_width_16k_l0_medium", 55),
    ("gemma-scope-2-270m-pt/resid_post_all/layer_0_width_16k_l0_small", 10),
    ("gemma-scope-2-270m-pt/resid_post_all/layer_3_width_16k_l0_big", 90),
    ("gemma-scope-2-1b-it/mlp_out/layer_22_width_65k_l0_big", 150),
    ("gemma-scope-2-1b-it/mlp_out_all/layer_22_width_16k_l0_big", 120),
  ],
)
def test_l0_target(name, target):
  assert published.lookup(name).l0_target == target


def test_sites():
  def ends(folder):
    entry = published.lookup(f"gemma-scope-2-270m-pt/{folder}")
    return entry.kind, entry.sites_in, entry.sites_out

  z, write = (Site("z", 9),), (Site("mlp_write", 9),)
  assert ends("attn_out/layer_9_width_16k_l0_big") == ("sae", z, z)
  assert ends("mlp_out/layer_9_width_16k_l0_big") == ("sae", write, write)
  folder = "transcoder/layer_9_width_16k_l0_big_affine"
  assert ends(folder) == ("transcoder", (Site("mlp_in", 9),), write)
  kind, ins, outs = ends("crosscoder/layer_5_9_12_15_width_1m_l0_big")
  assert (kind, ins) == ("crosscoder", outs)
  assert [s.layer for s in ins] == [5, 9, 12, 15]
  kind, ins, outs = ends("clt/width_524k_l0_medium_affine")
  assert kind == "clt"
  assert len(ins) == len(outs) == 18
  assert outs[17] == Site("mlp_write", 17)


def test_files():
  entry = published.lookup("gemma-scope-2-270m-pt/clt/width_262k_l0_big")
  assert entry.files[17] == "params_layer_17.safetensors"
  assert len(entry.files) == 18
  assert published.published(group="attn_out")[0].files == (
    "params.safetensors",
  )


def test_seeds_are_loaded_and_not_listed():
  name = "gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium"
  assert published.lookup(f"{name}_seed_1").seed == 1
  assert published.lookup(f"{name}_seed_1").name == f"{name}_seed_1"
  assert published.find(f"{name}_seed_7") is None
  assert all(e.seed is None for e in published.published())


def test_search():
  found = published.published(
    size="270m", layer=12, width="16k", containing="medium transcoder pt"
  )
  assert [e.folder for e in found] == [
    "transcoder/layer_12_width_16k_l0_medium",
    "transcoder/layer_12_width_16k_l0_medium_affine",
  ]


@pytest.mark.parametrize(
  ("name", "near"),
  [
    (
      "gemma-scope-2-270m-pt/resid_post/layer_11_width_65k_l0_medium",
      "resid_post/layer_12_width_65k_l0_medium",
    ),
    (
      "gemma-scope-2-270m-pt/resid_pst/layer_12_width_16k_l0_medium",
      "resid_post/layer_12_width_16k_l0_medium",
    ),
    ("gemma-scope-2-4b-pt/clt/width_262k_l0_big", "gemma-scope-2-"),
    ("gemma-scope-2-2b-pt/resid_post/layer_12_width_16k_l0_medium", "layer_12"),
    ("nonsense", "gs.dictionaries.list"),
  ],
)
def test_near_matches(name, near):
  with pytest.raises(
    ConfigError, match=f"no dictionary of this name(.|\n)*{near}"
  ):
    published.lookup(name)


def test_unknown_value():
  with pytest.raises(ConfigError, match="size='2b'"):
    published.published(size="2b")
