"""Descriptions and addresses; the protocol itself is kept in test_family."""

import pytest

from gemma_scope.dictionaries.protocol import About, LatentAddress
from gemma_scope.errors import ConfigError
from gemma_scope.sites import Site

SITE = Site("resid_post", 12)


def test_address():
  every = LatentAddress(SITE, dictionary="a")
  assert str(every) == "resid_post[12].latents[:]"
  assert str(every[17]) == "resid_post[12].latents[17]"
  assert str(every[[17, 42]]) == "resid_post[12].latents[17, 42]"
  assert every[17] == LatentAddress(SITE, (17,), "a")
  assert len({every[1], every[1], every[2]}) == 2


@pytest.mark.parametrize("index", [-1, [], [3, -1]])
def test_no_such_address(index):
  with pytest.raises(ConfigError, match="whole numbers from 0"):
    LatentAddress(SITE)[index]


def test_no_address_of_an_address():
  with pytest.raises(ConfigError, match="once"):
    LatentAddress(SITE)[3][4]


def test_about():
  about = About("transcoder", (Site("mlp_in", 3),), (Site("mlp_write", 3),))
  assert str(about) == "transcoder of mlp_in[3] -> mlp_write[3]"
  assert str(About("sae", (SITE,), (SITE,), name="x")) == (
    "sae of resid_post[12] (x)"
  )


@pytest.mark.parametrize(
  "arguments",
  [
    ("sparse", (SITE,), (SITE,)),
    ("sae", (), ()),
    ("sae", (SITE,), (SITE,), None, (24, 8)),
  ],
)
def test_no_description(arguments):
  with pytest.raises(ConfigError, match="describes no dictionary"):
    About(*arguments)
