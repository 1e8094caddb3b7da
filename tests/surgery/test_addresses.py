"""Sites, latents and their parts, as a user types them."""

import dataclasses

import pytest

from gemma_scope import errors
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.addresses import axis_sizes, sites_and_units
from gemma_scope.testing.tiny import tiny_config


@dataclasses.dataclass(frozen=True)
class Latents:
  site: Site
  indices: tuple[int, ...] | None = None


L3, L4 = Site("resid_post", 3), Site("resid_post", 4)


@pytest.mark.parametrize(
  ("at", "sites", "units"),
  [
    ("resid_post[3]", [L3], None),
    (L3, [L3], None),
    ("resid_post[3:5]", [L3, L4], None),
    (["resid_post[4]", L3], [L3, L4], None),
    ("resid_post[3].latents", [L3.latents], None),
    ("resid_post[3].latents[:]", [L3.latents], None),
    ("resid_post[3].latents[5698]", [L3.latents], (5698,)),
    ("resid_post[3:5].latents[7, 2]", [L3.latents, L4.latents], (7, 2)),
    (Latents(L3), [L3.latents], None),
    (Latents(L3, (7,)), [L3.latents], (7,)),
    ([Latents(L3), "resid_post[4].error"], [L3.latents, L4.error], None),
  ],
)
def test_what_is_meant(at, sites, units):
  assert sites_and_units(at, 8) == (tuple(sites), units)


@pytest.mark.parametrize(
  ("at", "message"),
  [
    ([], "no site to edit"),
    (3, "no site to edit"),
    ({}, "no site to edit"),
    ([Latents(L3, (7,))], "one site at a time"),
    ("resid_post[3].latents[a]", "no site of this name"),
    ("resid_post[3].latents[1:2]", "named by whole numbers"),
    ("resid_post[3].latent", "no site of this name"),
    ("resid_post[3].inverse_rms", "no site of this name"),
  ],
)
def test_what_means_nothing_is_refused(at, message):
  with pytest.raises(errors.SiteError, match=message):
    sites_and_units(at, 8)


def test_parts_print_sort_and_hash_as_sites():
  parts = [L3.latents, L3.error, Site("attn_in", 3).inverse_rms, L3]
  assert [str(s) for s in sorted(parts)] == [
    "attn_in[3].inverse_rms",
    "resid_post[3]",
    "resid_post[3].latents",
    "resid_post[3].error",
  ]
  assert resolve([str(s) for s in parts], 8) == tuple(sorted(parts))
  assert Site("resid_post.latents", 3) == L3.latents
  assert L3.latents.base == "resid_post"
  assert str(Site("embed").latents) == "embed.latents"


def test_sizes():
  config = tiny_config()
  assert axis_sizes(Site("z", 1), config) == {"heads": 4, "projection": 16}
  assert axis_sizes(L3.latents, config) == {}
  assert axis_sizes(Site("logits"), config) == {"vocabulary": 512}
