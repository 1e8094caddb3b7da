"""The starter suite is read from its archive, one dictionary at a time."""

import zipfile

import jax
import numpy as np
import pytest

from gemma_scope import dictionaries as gsd
from gemma_scope.dictionaries import suite as suite_lib
from gemma_scope.errors import CheckpointError, ConfigError, SiteError
from gemma_scope.sites import Site
from gemma_scope.testing.dictionaries import random_sae
from gemma_scope.testing.latents import random_suite, random_table


@pytest.fixture
def path(tmp_path):
  return random_suite(tmp_path / "suite.zip")


@pytest.fixture
def here(path, monkeypatch):
  """The package with this suite in it."""
  monkeypatch.setattr(suite_lib, "PATH", path)
  return path


def test_lists_its_dictionaries(path):
  suite = gsd.open_suite(path)
  names = ["resid_post/layer_1", "resid_post/layer_2"]
  assert list(suite) == [*names, *(f"transcoder/layer_{i}" for i in range(3))]
  assert suite.model == "tiny"
  assert "5 dictionaries of tiny" in repr(suite)
  html = suite._repr_html_()
  assert "starter/resid_post/layer_1" in html
  assert "0.25" in html


@pytest.mark.parametrize(
  "name", ["resid_post/layer_2", "starter/resid_post/layer_2"]
)
def test_a_dictionary_is_what_was_packed(path, name):
  found = gsd.open_suite(path)[name]
  made = random_sae(layer=2, seed=2)
  assert found.about.name == "starter/resid_post/layer_2"
  assert found.about.model == "tiny"
  assert found.site == made.site
  for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(made)):
    assert isinstance(new, jax.Array)
    np.testing.assert_allclose(new, old, atol=np.abs(old).max() / 250)


def test_only_one_member_is_read(path, monkeypatch):
  read, suite = [], gsd.open_suite(path)
  plain = zipfile.ZipFile.read

  def spy(self, name, *rest):
    read.append(name)
    return plain(self, name, *rest)

  monkeypatch.setattr(zipfile.ZipFile, "read", spy)
  suite.open("transcoder/layer_1")
  suite.table("transcoder/layer_0")
  folder = "transcoder/layer_1"
  assert read == [
    f"{folder}/dictionary.json",
    f"{folder}/arrays.safetensors",
    "transcoder/layer_0/latents.safetensors",
  ]


@pytest.mark.parametrize(
  ("site", "name"),
  [
    ("resid_post[2]", "resid_post/layer_2"),
    ("mlp_in[1]", "transcoder/layer_1"),
    (Site("mlp_write", 0), "transcoder/layer_0"),
  ],
)
def test_the_dictionary_of_a_site(path, site, name):
  assert gsd.open_suite(path).at(site) == name


def test_no_dictionary_of_a_site(path):
  with pytest.raises(SiteError, match="no dictionary of this site") as caught:
    gsd.open_suite(path).at("resid_post[3]")
  assert "resid_post[1]" in caught.value.instead


def test_tables(path):
  table = gsd.open_suite(path).table("resid_post/layer_2")
  made = random_table(64, seed=1)
  np.testing.assert_array_equal(table.tokens, made.tokens)
  np.testing.assert_array_equal(table.maxima, made.maxima)


def test_the_card(path):
  suite = gsd.open_suite(path)
  assert suite.metrics("resid_post/layer_1") == {"l0": 6.5, "fvu": 0.25}
  assert suite.metrics("transcoder/layer_1") == {}
  assert suite.description("starter/resid_post/layer_1", 5) == "made-up words"
  assert suite.description("resid_post/layer_1", 6) is None


def test_loading_by_name(here):
  found = gsd.load("starter/transcoder/layer_2", dtype="bfloat16")
  assert str(found.site) == "mlp_write[2]"
  assert found.w_enc.dtype == "bfloat16"
  assert len(gsd.starter()) == 5
  assert suite_lib.starter_of("tiny") is gsd.starter()
  assert suite_lib.starter_of("another") is None


@pytest.mark.parametrize(
  ("name", "near"),
  [
    ("starter/resid_post/layer_3", "starter/resid_post/layer_2"),
    ("starter", "starter/resid_post/layer_1"),
    ("starter/transcoder/layer_17", "starter/transcoder/layer_1"),
  ],
)
def test_unknown_names(here, name, near):
  with pytest.raises(ConfigError, match="no dictionary of this name") as caught:
    gsd.load(name)
  assert near in caught.value.instead


def test_no_suite_in_the_package(tmp_path, monkeypatch):
  monkeypatch.setattr(suite_lib, "PATH", tmp_path / "none.zip")
  with pytest.raises(CheckpointError, match=r"^The starter suite is not in"):
    gsd.load("starter/resid_post/layer_9")
  assert suite_lib.starter_of("tiny") is None


def test_damage_is_noticed(path, tmp_path):
  data = bytearray(path.read_bytes())
  with zipfile.ZipFile(path) as archive:
    at = archive.getinfo("resid_post/layer_1/arrays.safetensors").header_offset
  data[at + 600] ^= 255
  (bad := tmp_path / "bad.zip").write_bytes(data)
  with pytest.raises(CheckpointError, match="archive of dictionaries cannot"):
    gsd.open_suite(bad).open("resid_post/layer_1")
  (short := tmp_path / "short.zip").write_bytes(path.read_bytes()[:500])
  with pytest.raises(CheckpointError, match="archive of dictionaries cannot"):
    gsd.open_suite(short)


def test_other_versions_are_refused(path, monkeypatch):
  monkeypatch.setattr(suite_lib, "VERSION", 2)
  with pytest.raises(CheckpointError, match="version 1"):
    gsd.open_suite.__wrapped__(path)
