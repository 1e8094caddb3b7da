"""Runs that cannot be are refused, with the remedy."""

import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.training import config as configs
from gemma_scope.training import options
from tests.training import runs


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: configs.Member(()), "reads a site"),
    (lambda: runs.member(l0=0), "positive L0"),
    (
      lambda: runs.group(members=[runs.member(), runs.member("crosscoder")]),
      "equally many sites",
    ),
    (
      lambda: runs.group(members=[runs.member("transcoder")]),
      "no sites for a dictionary of this kind",
    ),
    (
      lambda: runs.group(activation="top_k", members=[runs.member(l0=2.5)]),
      "whole number",
    ),
    (
      lambda: runs.group(activation="relu", sparsity=runs.SPARSITY),
      "cannot be trained with this penalty",
    ),
    (
      lambda: runs.group(
        activation="gated", sparsity=options.Sparsity(penalty="tanh")
      ),
      "cannot be trained with this penalty",
    ),
    (
      lambda: runs.group(
        activation="top_k",
        sparsity=options.Sparsity(penalty="none", frequency_weight=1.0),
      ),
      "cannot be trained with this penalty",
    ),
    (lambda: runs.run(precision="float8"), "precision has no such value"),
    (lambda: runs.run(centre="mode"), "centre has no such value"),
    (lambda: runs.run(runs.group(), runs.group()), "a name of its own"),
  ],
)
def test_refusals(make, message):
  with pytest.raises(ConfigError, match=message):
    make()


def test_labels_say_sites_and_l0():
  reads, writes = runs.IN[:1], runs.OUT[:1]
  assert configs.Member(reads, l0=8).label == "mlp_in_0_l0_8"
  label = configs.Member(reads, writes, l0=8).label
  assert label == "mlp_in_0-mlp_write_0_l0_8"
  assert configs.Member(runs.IN, l0=8).label == "mlp_in_0_1_2_l0_8"


def test_sites_of_a_run():
  config = runs.run(runs.group("sae"), runs.group("transcoder"))
  assert config.sites == (runs.IN[0], runs.OUT[0])
