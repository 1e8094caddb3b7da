"""Written and read again, every dictionary is the same to the last bit."""

import dataclasses
import json

import jax
import numpy as np
from penzai import pz
import pytest

from gemma_scope import dictionaries as gsd
from gemma_scope.dictionaries import own_format
from gemma_scope.dictionaries.arrays import place
from gemma_scope.dictionaries.loading import open_folder
from gemma_scope.dictionaries.tensor_files import read_tensors
from gemma_scope.errors import CheckpointError, ConfigError
from gemma_scope.testing import dictionaries as make
from gemma_scope.testing.dictionaries import random_vectors
from tests.dictionaries.family import FAMILY


def full_about(dictionary, **changes):
  about = dataclasses.replace(
    dictionary.about, prefixes=(8, 24), l0=12.0, model="gemma-3-270m", **changes
  )
  return dictionary.with_about(about)


def same(a, b):
  assert type(a) is type(b)
  first, second = jax.tree.leaves(a), jax.tree.leaves(b)
  assert len(first) == len(second)
  for x, y in zip(first, second):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)
  for x, y in zip(
    jax.tree.leaves(a, is_leaf=pz.nx.is_namedarray),
    jax.tree.leaves(b, is_leaf=pz.nx.is_namedarray),
  ):
    assert x.named_shape == y.named_shape


def same_about(a, b, *, but=()):
  left = {f.name: getattr(a.about, f.name) for f in dataclasses.fields(a.about)}
  right = {n: getattr(b.about, n) for n in left}
  assert {k: v for k, v in left.items() if k not in but} == {
    k: v for k, v in right.items() if k not in but
  }


@pytest.mark.parametrize("name", FAMILY)
def test_own_folder(name, tmp_path):
  dictionary = full_about(FAMILY[name](), name="mine")
  folder = gsd.dictionary_to_folder(dictionary, tmp_path / "d")
  again = open_folder(folder)
  same(again, dictionary)
  assert again.about == dictionary.about
  x = random_vectors(dictionary, 9)
  np.testing.assert_array_equal(place(again)(x), dictionary(x))
  assert json.loads((folder / "manifest.json").read_text())["content_hash"]


@pytest.mark.parametrize("name", FAMILY)
def test_int8_rows(name, tmp_path):
  dictionary = full_about(FAMILY[name]())
  folder = gsd.dictionary_to_folder(dictionary, tmp_path / "d", int8=True)
  again = open_folder(folder)
  x = random_vectors(dictionary, 64)
  before, after = gsd.int8_loss(dictionary, x)
  measured = gsd.quality(again, np.asarray(x), np.asarray(x))
  assert measured.fvu == pytest.approx(after.fvu, rel=1e-6)
  assert abs(after.fvu - before.fvu) < 0.02 * before.fvu
  assert after.fvu != before.fvu
  pairs = zip(jax.tree.leaves(dictionary), jax.tree.leaves(again))
  for old, new in pairs:
    old, new = np.asarray(old), np.asarray(new)
    if old.ndim == 1:
      np.testing.assert_array_equal(old, new)
    else:
      assert 0 < np.abs(old - new).max() <= np.abs(old).max() / 250
  stored = read_tensors(folder / "arrays.safetensors").values()
  rows = [a for a in stored if a.dtype == np.int8]
  assert {int(np.abs(a).max()) for a in rows} == {127}
  whole = sum(f.stat().st_size for f in folder.iterdir())
  exact = gsd.dictionary_to_folder(dictionary, tmp_path / "e")
  assert whole < 0.6 * sum(f.stat().st_size for f in exact.iterdir())


def test_int8_again_is_exact(tmp_path):
  dictionary = make.random_sae()
  folder = gsd.dictionary_to_folder(dictionary, tmp_path / "d", int8=True)
  once = place(open_folder(folder))
  again = gsd.dictionary_to_folder(once, tmp_path / "e", int8=True)
  for old, new in zip(
    jax.tree.leaves(once), jax.tree.leaves(place(open_folder(again)))
  ):
    np.testing.assert_allclose(old, new, rtol=1e-6)


@pytest.mark.parametrize("levels", [63, 7])
def test_fewer_levels_are_coarser(levels, tmp_path):
  dictionary = make.random_sae()
  _, tensors = own_format.dictionary_to_tensors(dictionary, levels)
  rows = [a for a in tensors.values() if a.dtype == np.int8]
  assert {int(np.abs(a).max()) for a in rows} == {levels}
  x = random_vectors(dictionary, 64)
  exact, fine = gsd.int8_loss(dictionary, x)
  _, coarse = gsd.int8_loss(dictionary, x, levels=levels)
  assert abs(coarse.fvu - exact.fvu) > abs(fine.fvu - exact.fvu)


@pytest.mark.parametrize("levels", [0, 128])
def test_int8_has_so_many_levels(levels):
  with pytest.raises(ConfigError, match=f"1 to 127 levels.*\n.*{levels}"):
    own_format.dictionary_to_tensors(make.random_sae(), levels)


GEMMA_SCOPE_2 = {
  "sae jump_relu": lambda: dataclasses.replace(make.random_sae(), b_in=None),
  "sae of z": lambda: dataclasses.replace(make.random_sae(site="z"), b_in=None),
  "transcoder": make.random_transcoder,
  "affine transcoder": lambda: make.random_transcoder(affine=True),
  "clt": make.random_cross_layer,
  "affine clt": lambda: make.random_cross_layer(affine=True),
  "crosscoder": lambda: make.random_cross_layer(kind="crosscoder"),
  "dense crosscoder": lambda: make.random_cross_layer(
    kind="crosscoder", causal=False
  ),
}


@pytest.mark.parametrize("name", GEMMA_SCOPE_2)
def test_gemma_scope_2(name, tmp_path):
  dictionary = full_about(GEMMA_SCOPE_2[name]())
  folder = gsd.dictionary_to_gemma_scope_2(dictionary, tmp_path / "d")
  again = open_folder(folder)
  same(again, dictionary)
  same_about(again, dictionary, but=("name", "heads"))
  second = gsd.dictionary_to_gemma_scope_2(again, tmp_path / "e")
  for path in folder.glob("*.safetensors"):
    assert path.read_bytes() == (second / path.name).read_bytes()


@pytest.mark.parametrize(
  ("dictionary", "says"),
  [
    (make.random_sae("top_k"), "activation top_k"),
    (make.random_sae(), "no pre-encoder bias"),
    (make.random_crosscoder(), "no layout for this kind"),
    (
      dataclasses.replace(make.random_sae(site="query"), b_in=None),
      "has no name in this layout",
    ),
  ],
)
def test_what_gemma_scope_2_cannot_hold(dictionary, says, tmp_path):
  with pytest.raises(ConfigError, match=says):
    gsd.dictionary_to_gemma_scope_2(dictionary, tmp_path / "d")
  assert not list(tmp_path.iterdir())


def centred(dictionary):
  bias = dictionary.b_dec.unwrap("output")
  return dataclasses.replace(dictionary, b_in=pz.nx.wrap(bias, "input"))


SAELENS = {
  "standard": lambda: centred(make.random_sae("relu")),
  "jumprelu": lambda: gsd.fold_input_bias(make.random_sae()),
  "gated": lambda: centred(make.random_sae("gated")),
  "topk": lambda: centred(make.random_sae("top_k")),
  "transcoder": lambda: make.random_transcoder("relu"),
  "skip_transcoder": lambda: make.random_transcoder("relu", affine=True),
  "jumprelu_transcoder": make.random_transcoder,
  "jumprelu_skip_transcoder": lambda: make.random_transcoder(affine=True),
}


@pytest.mark.parametrize("name", SAELENS)
def test_saelens(name, tmp_path):
  dictionary = full_about(SAELENS[name](), name="d")
  folder = gsd.dictionary_to_saelens(dictionary, tmp_path / "d")
  config = json.loads((folder / "cfg.json").read_text())
  assert config["architecture"] == name
  again = open_folder(folder)
  same(again, dictionary)
  same_about(again, dictionary, but=("heads",))


@pytest.mark.parametrize(
  ("dictionary", "says"),
  [
    (make.random_sae("batch_top_k"), "sae with batch_top_k"),
    (make.random_sae(), "one pre-encoder bias"),
    (make.random_transcoder("gated"), "transcoder with gated"),
    (make.random_cross_layer(), "CrossLayer"),
  ],
)
def test_what_saelens_cannot_hold(dictionary, says, tmp_path):
  with pytest.raises(ConfigError, match=says):
    gsd.dictionary_to_saelens(dictionary, tmp_path / "d")


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("activation", ["relu", "jump_relu"])
def test_circuit_tracer_set(activation, affine, tmp_path):
  dictionaries = [
    full_about(
      make.random_transcoder(activation, affine=affine, layer=i, seed=i),
      name="scan",
    )
    for i in range(3)
  ]
  folder = gsd.dictionaries_to_circuit_tracer(dictionaries, tmp_path / "d")
  again = open_folder(folder)
  for old, new in zip(dictionaries, again, strict=True):
    same(new, old)
    same_about(new, old, but=("heads", "l0", "prefixes"))


def test_circuit_tracer_clt(tmp_path):
  clt = full_about(make.random_cross_layer(), name="scan")
  folder = gsd.dictionaries_to_circuit_tracer(clt, tmp_path / "d")
  again = open_folder(folder)
  same(again, clt)
  same_about(again, clt, but=("heads", "l0", "prefixes"))


@pytest.mark.parametrize(
  ("dictionaries", "says"),
  [
    (make.random_cross_layer(affine=True), "without a skip"),
    (make.random_cross_layer(causal=False), "not causal"),
    ([make.random_transcoder("top_k", layer=0)], "ReLU and JumpReLU"),
    ([make.random_transcoder(layer=4)], "every layer from 0"),
  ],
)
def test_what_circuit_tracer_cannot_hold(dictionaries, says, tmp_path):
  with pytest.raises(ConfigError, match=says):
    gsd.dictionaries_to_circuit_tracer(dictionaries, tmp_path / "d")


@pytest.mark.parametrize(
  "damage",
  [
    lambda d: (d / "arrays.safetensors").unlink(),
    lambda d: (d / "dictionary.json").write_text("{"),
    lambda d: (d / "dictionary.json").write_text('{"version": 9}'),
    lambda d: (d / "arrays.safetensors").write_bytes(b"12345678"),
  ],
)
def test_damaged_own_folder(damage, tmp_path):
  folder = gsd.dictionary_to_folder(make.random_sae(), tmp_path / "d")
  damage(folder)
  with pytest.raises(CheckpointError, match=r"cannot be read|cut off"):
    open_folder(folder)


def test_nothing_is_overwritten(tmp_path):
  (tmp_path / "file").write_text("mine")
  with pytest.raises(CheckpointError, match="already exists"):
    gsd.dictionary_to_folder(make.random_sae(), tmp_path)
