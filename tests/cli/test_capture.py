"""What `capture` does with its options; stores are tested elsewhere."""

import json

import numpy as np
import pytest

import gemma_scope as gs
from gemma_scope.activations.store import Store
from gemma_scope.cli import main as cli
from gemma_scope.cli.capture import split_sites
from gemma_scope.testing.tiny import tiny_config
from gemma_scope.testing.tiny import tiny_lm as make_lm

TEXTS = [" Mary gave a drink to John"] * 30 + [" Paris is the capital"] * 30
DATA = ("--data", "text.jsonl")
OUT = ("--out", "acts")
SITES = ("--sites", "resid_post[0,1]", "z[1]")
SMALL = ("--seq-len", "16", "--batch", "2", "--mesh", "1x1")


@pytest.fixture(scope="module")
def shallow():
  return make_lm(tiny_config(num_layers=2))


@pytest.fixture
def loads(monkeypatch, shallow, tmp_path):
  """Replaces the checkpoint by a tiny model; keeps what was loaded how."""
  asked = []

  def load(name, **options):
    asked.append((name, options))
    return shallow

  monkeypatch.setattr(gs, "load", load, raising=False)
  monkeypatch.chdir(tmp_path)
  lines = (json.dumps({"text": text}) for text in TEXTS)
  (tmp_path / "text.jsonl").write_text("\n".join(lines))
  return asked


def run(*arguments):
  return cli.main(["capture", *arguments])


def test_a_store_of_all_the_text(loads, capsys):
  assert run(*DATA, *SITES, *OUT, *SMALL) == 0
  store = Store.open("acts")
  assert [str(site) for site in store.sites] == [
    *("resid_post[0]", "z[1]", "resid_post[1]")
  ]
  assert store.layout.dtype == "bfloat16"
  assert store.manifest.model == "tiny"
  documents = store.tokens(np.arange(store.num_rows)).document
  assert set(documents.tolist()) == set(range(60))
  shown = capsys.readouterr()
  assert f"{store.num_rows:,} rows of 3 sites" in shown.out
  assert "resid_post[1]" in shown.out
  assert f"{store.statistics[store.sites[0]].mean_norm:.2f}" in shown.out
  assert "tokens/s" in shown.err


def test_options_reach_the_store(loads):
  more = ("--store-dtype", "float32", "--dtype", "bfloat16", "--shard-rows")
  assert run("big", *DATA, *SITES, *OUT, *SMALL, *more, "7", "--seed", "3") == 0
  ((name, options),) = loads
  assert name == "big"
  assert options["dtype"] == "bfloat16"
  assert options["mesh"] is None
  store = Store.open("acts")
  assert store.layout.dtype == "float32"
  assert store.layout.shard_rows == 7
  packing = store.manifest.config["packing"]
  assert (packing["seq_len"], packing["batch_size"]) == (16, 2)
  assert store.manifest.seed == packing["seed"] == 3


def test_the_same_command_goes_on(loads, capsys):
  command = (*DATA, *SITES, *OUT, *SMALL, "--tokens")
  assert run(*command, "50") == 0
  first = Store.open("acts").num_rows
  assert 50 <= first < 50 + 32
  assert run(*command, "120") == 0
  assert 120 <= Store.open("acts").num_rows < 120 + 32
  capsys.readouterr()
  assert run(*command, "1000000") == 0
  assert "The text ended at" in capsys.readouterr().err
  assert run(*command, "200", "--seed", "1") == 2
  assert "packing.seed was 0, is 1" in capsys.readouterr().err


def test_two_hosts_one_after_the_other(loads):
  chunks = ("--chunk-documents", "16")
  for host in ("1/2", "0/2"):
    assert run(*DATA, *SITES, *OUT, *SMALL, *chunks, "--host", host) == 0
  store = Store.open("acts")
  assert min(store.extent) > 0
  documents = store.tokens(np.arange(store.num_rows)).document
  assert set(documents.tolist()) == set(range(60))


def test_verify(loads, capsys):
  assert run(*DATA, *SITES, *OUT, *SMALL, "--tokens", "100") == 0
  capsys.readouterr()
  assert run("--verify", "acts") == 0
  rows = Store.open("acts").num_rows
  assert f"{rows:,} rows in 4 shards" in capsys.readouterr().out
  with open("acts/z_1/c.0.0", "r+b") as file:
    file.write(b"\xff\xff")
  assert run("--verify", "acts") == 2
  shown = capsys.readouterr().err
  assert "z_1/c.0.0 has changed" in shown
  assert "instead:" in shown


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((*SITES, *OUT), "needs --data"),
    ((*DATA, *OUT), "needs --sites"),
    ((*DATA, *SITES), "needs --out"),
    (("--data", "no.jsonl", *SITES, *OUT), "no such file"),
    ((*DATA, "--sites", "resid_post[9]", *OUT), "has 2 layers"),
    ((*DATA, *SITES, "--out", "text.jsonl"), "this is a file"),
    ((*DATA, *SITES, "--out", "text.jsonl/acts"), "cannot be made"),
    ((*DATA, *SITES, "--out", "."), "no activation store"),
    ((*DATA, *SITES, *OUT, "--tokens", "0"), "at least one token"),
    ((*DATA, *SITES, *OUT, "--mesh", "2"), "two numbers"),
    ((*DATA, *SITES, *OUT, "--mesh", "3x3"), "not so many devices"),
    ((*DATA, *SITES, *OUT, "--host", "2"), "which process"),
    ((*DATA, *SITES, *OUT, "--host", "2/2"), "no such process"),
    ((*DATA, *SITES, *OUT, "--coordinator", "a:1"), "which one it is"),
    ((*DATA, *SITES, *OUT, "--store-dtype", "int8"), "float32 or bfloat16"),
    ((*DATA, *SITES, *OUT, "--seq-len", "1"), "no room for text"),
    ((*DATA, *SITES, *OUT, "--chat"), "not trained on chat"),
    ((*DATA, *SITES, *OUT, "--shard-rows", "0"), "and shards"),
    (("--verify", "nothing"), "no activation store"),
  ],
)
def test_mistakes(loads, capsys, arguments, message):
  small = () if "--mesh" in arguments else ("--mesh", "1x1")
  assert run(*arguments, *small) == 2
  shown = capsys.readouterr().err
  assert message in shown
  assert "instead:" in shown


@pytest.mark.parametrize(
  ("given", "sites"),
  [
    (["resid_post[5,9]"], ["resid_post[5,9]"]),
    (["z[1, 2], mlp_in[3]", "embed"], ["z[1, 2]", "mlp_in[3]", "embed"]),
    (["a,b[1:2],", " c "], ["a", "b[1:2]", "c"]),
  ],
)
def test_sites_are_parted_by_commas_outside_brackets(given, sites):
  assert split_sites(given) == sites
