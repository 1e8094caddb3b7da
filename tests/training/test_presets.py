"""Recipes by name, and runs made of them."""

import pytest

from gemma_scope.errors import ConfigError, SiteError
from gemma_scope.sites import Site
from gemma_scope.training import presets
from gemma_scope.training.presets import Ends, Sweep, preset, starter
from tests.training import runs


@pytest.mark.parametrize("name", list(presets.RECIPES))
def test_every_recipe_makes_a_run_of_every_kind(name):
  sites = [
    "resid_post[9]",
    "mlp_in[3]->mlp_write[3]",
    "resid_post[5]+resid_post[9]",
    "mlp_in[0]+mlp_in[1]->mlp_write[0]+mlp_write[1]",
  ]
  config = preset(name, sites, steps=7, width=64, affine_skip=True)
  kinds = [g.architecture.kind for g in config.groups]
  assert kinds == ["sae", "transcoder", "crosscoder", "clt"]
  skips = [g.architecture.affine_skip for g in config.groups]
  assert skips == [False, True, False, True]
  assert len(config.sites) == 8
  assert config.steps == 7


def test_the_recipe_of_gemma_scope_2():
  config = preset("gemma_scope_2", ["resid_post[9]"], steps=1, width=1024)
  (group,) = config.groups
  assert config.scale == "norm"
  assert group.architecture.activation == "jump_relu"
  assert group.architecture.prefixes == (64, 256)
  assert (group.sparsity.bandwidth, group.sparsity.threshold) == (0.001, 0.001)
  assert (group.sparsity.penalty, group.sparsity.l0_of) == ("l0", "row")
  assert group.sparsity.warmup_steps == 50_000
  optimiser = group.optimiser
  assert (optimiser.b1, optimiser.b2, optimiser.eps) == (0, 0.999, 1e-8)
  assert (optimiser.warmup_steps, optimiser.warmup_from) == (1000, 0.1)
  assert group.members[0].learning_rate == 7e-5


def test_sites_of_every_layer_are_one_group():
  config = preset("top_k", ["mlp_in[:]->mlp_write[:]"], steps=1, num_layers=3)
  (group,) = config.groups
  ends = [(m.sites_in, m.sites_out) for m in group.members]
  assert ends == [
    ((Site("mlp_in", i),), (Site("mlp_write", i),)) for i in range(3)
  ]


def test_a_sweep_is_every_combination_with_a_name_of_its_own():
  sweep = Sweep(l0=(8, 16), learning_rates=(1e-3, 1e-4), seeds=(0, 1))
  config = preset("jump_relu", ["resid_post[0]"], steps=1, sweep=sweep)
  members = config.groups[0].members
  found = {(m.l0, m.learning_rate, m.seed) for m in members}
  assert len(members) == len(found) == 8
  assert members[-1].label == "resid_post_0_l0_16_lr_0.0001_seed_1"
  weights = Sweep(weights=(0.1, 0.2))
  config = preset("l1", ["resid_post[0]"], steps=1, sweep=weights)
  assert [m.weight for m in config.groups[0].members] == [0.1, 0.2]


def test_the_starter_suite():
  config = starter(range(4), (1, 3), steps=100, model="some-model")
  through, streams = config.groups
  assert [m.label for m in through.members] == [
    f"transcoder/layer_{i}" for i in range(4)
  ]
  assert [m.label for m in streams.members] == [
    "resid_post/layer_1",
    "resid_post/layer_3",
  ]
  assert through.architecture.affine_skip
  assert (through.architecture.width, streams.architecture.width) == (448, 1024)
  assert through.architecture.prefixes == (56, 224)
  assert streams.architecture.prefixes == (512,)
  assert (through.optimiser.b1, streams.optimiser.b1) == (0, 0.9)
  rates = [g.members[0].learning_rate for g in config.groups]
  assert rates == [3e-3, 5e-3]
  for group in config.groups:
    assert group.optimiser.decay_steps == 50
  assert config.model == "some-model"


def test_ends():
  both = Ends(runs.IN, runs.OUT)
  assert presets.parse(both, 3) == [both]
  assert (Ends(runs.IN).kind, both.kind) == ("crosscoder", "clt")
  assert presets.parse("mlp_in[0]+mlp_in[2]", 3) == [
    Ends((runs.IN[0], runs.IN[2]))
  ]


def test_refusals():
  with pytest.raises(ConfigError, match="No recipe has this name"):
    preset("adam", ["resid_post[0]"], steps=1)
  with pytest.raises(ConfigError, match="do not match"):
    presets.parse("mlp_in[:]->mlp_write[0]", 3)
  with pytest.raises(SiteError, match="rasid"):
    preset("top_k", ["rasid[0]"], steps=1)
