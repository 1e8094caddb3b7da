"""Ten checkpoints, one canonical name each."""

import dataclasses
import math

import pytest

from gemma_scope import errors
from gemma_scope.weights import catalog, checkpoint


def test_ten_checkpoints():
  assert len(catalog.CATALOG) == 10
  assert {(e.size, e.variant) for e in catalog.CATALOG.values()} == {
    (size, variant) for size in catalog.SIZES for variant in ("pt", "it")
  }


@pytest.mark.parametrize(
  ("size", "parameters"),
  [
    ("270m", 268_098_176),
    ("1b", 999_885_952),
    ("4b", 3_880_099_328),
    ("12b", 11_765_788_416),
    ("27b", 27_009_002_240),
  ],
)
def test_parameter_counts(size, parameters):
  shapes = checkpoint.canonical_shapes(catalog.SIZES[size])
  assert sum(math.prod(s) for s in shapes.values()) == parameters


@pytest.mark.parametrize(
  "alias",
  ["gemma-3-270m", "gemma-3-270m-pt", "google/gemma-3-270m", "Gemma-3-270M"],
)
def test_aliases_of_the_default(alias):
  entry = catalog.lookup(alias)
  assert entry.name == "gemma-3-270m"
  assert entry.repository == "google/gemma-3-270m"
  assert entry.flax_path.endswith("gemma3-270m-pt")
  assert entry.package is not None


def test_other_entries_keep_their_suffix():
  entry = catalog.lookup("google/gemma-3-27b-it")
  assert entry.repository == "google/gemma-3-27b-it"
  assert entry.flax_path.endswith("gemma3-27b-it")
  assert entry.package is None
  assert entry.sizes.head_dim == 128


def test_revisions_are_commits_and_can_be_replaced():
  for entry in catalog.CATALOG.values():
    assert len(entry.revision) == 40
    int(entry.revision, 16)
  entry = dataclasses.replace(catalog.lookup("gemma-3-1b-pt"), revision="main")
  assert entry.revision == "main"


def test_unknown_name_lists_the_nearest():
  with pytest.raises(errors.ConfigError, match="gemma-3-12b-pt"):
    catalog.lookup("gemma-3-12b-base")
  with pytest.raises(errors.ConfigError, match="one of gemma-3-270m"):
    catalog.lookup("llama")
  # Only the 270M goes without a suffix: the others must say which.
  with pytest.raises(errors.ConfigError, match="gemma-3-1b-pt"):
    catalog.lookup("gemma-3-1b")
