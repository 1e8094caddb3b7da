"""Archives: the same content gives the same bytes, and little of them."""

import dataclasses
import zipfile

import numpy as np
import pytest

from gemma_scope import dictionaries as gsd
from gemma_scope.errors import ConfigError
from gemma_scope.testing.dictionaries import random_sae
from gemma_scope.testing.latents import random_suite, random_table

NAME = "resid_post/layer_3"


def sae(**changes):
  made = random_sae()
  about = dataclasses.replace(made.about, **{"model": "tiny", **changes})
  return made.with_about(about)


def test_the_same_again(tmp_path):
  first, second = (random_suite(tmp_path / f"{i}.zip") for i in range(2))
  assert first.read_bytes() == second.read_bytes()
  with zipfile.ZipFile(first) as archive:
    members = archive.infolist()
  assert {m.date_time for m in members} == {(1980, 1, 1, 0, 0, 0)}
  assert all(m.compress_type == zipfile.ZIP_DEFLATED for m in members)


def test_fewer_levels_take_less_room(tmp_path):
  made = dataclasses.replace(sae(), w_enc=random_sae(d=640, seed=1).w_enc)
  tables = {NAME: random_table(64)}
  sizes = [
    gsd.pack_suite(
      {NAME: made}, tables, {}, tmp_path / f"{levels}.zip", levels=levels
    )
    .stat()
    .st_size
    for levels in (127, 63, 31)
  ]
  saved = -np.diff(sizes)
  bit = 640 * 64 / 8
  assert (saved > 0.7 * bit).all()
  assert (saved < 1.3 * bit).all()


def test_nothing_is_left_half_written(tmp_path):
  path = tmp_path / "suite.zip"
  with pytest.raises(TypeError):
    gsd.pack_suite({NAME: sae()}, {NAME: random_table(64)}, {"a": {1}}, path)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("dictionaries", "tables", "match"),
  [
    ({NAME: sae(model=None)}, {NAME: random_table(64)}, "models \\['None'\\]"),
    ({NAME: sae()}, {}, f"these differ: {NAME}"),
    ({NAME: sae()}, {NAME: random_table(63)}, f"these differ: {NAME}"),
    (
      {NAME: sae(), "b": sae(model="b")},
      {NAME: random_table(64), "b": random_table(64)},
      "models \\['b', 'tiny'\\]",
    ),
    ({}, {}, "models \\[\\]"),
  ],
)
def test_what_does_not_fit_is_refused(dictionaries, tables, match, tmp_path):
  with pytest.raises(ConfigError, match=match):
    gsd.pack_suite(dictionaries, tables, {}, tmp_path / "suite.zip")
