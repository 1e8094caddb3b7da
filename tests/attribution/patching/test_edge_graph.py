"""Who writes, who reads, who is upstream of whom."""

import numpy as np

from gemma_scope.attribution.patching.edge_graph import (
  Edge,
  Port,
  connected,
  readers_of,
  upstream,
  writers_of,
)
from gemma_scope.sites import Site
from gemma_scope.testing.tiny import tiny_config

CONFIG = tiny_config(num_layers=2)  # 4 heads, 2 key/value heads


def test_every_component_once():
  writers = list(map(str, writers_of(CONFIG)))
  readers = list(map(str, readers_of(CONFIG)))
  assert len(set(writers)) == len(writers) == 1 + 2 * (4 + 1)
  assert len(set(readers)) == len(readers) == 2 * (4 + 2 + 2 + 1) + 1
  assert writers[:2] == ["embed", "attn_write[0].0"]
  assert readers[-2:] == ["mlp_in[1]", "final_norm"]


def test_readers_see_what_was_written_before():
  writers, readers = writers_of(CONFIG), readers_of(CONFIG)
  mask = upstream(writers, readers)
  there = {
    (str(u), str(v))
    for i, u in enumerate(writers)
    for j, v in enumerate(readers)
    if mask[i, j]
  }
  assert {v for u, v in there if u == "embed"} == set(map(str, readers))
  assert ("attn_write[0].3", "mlp_in[0]") in there
  assert ("attn_write[0].3", "key[1].1") in there
  assert ("attn_write[0].3", "value[0].1") not in there
  assert ("mlp_write[0]", "mlp_in[0]") not in there
  assert ("mlp_write[0]", "query[1].0") in there
  assert {v for u, v in there if u == "mlp_write[1]"} == {"final_norm"}
  # ten pairs of 2 layers would be read twice if a group read its key twice
  assert np.sum(mask) == 19 + 4 * (1 + 9 + 1) + 10 + 4 * 2 + 1


def edge(writer, reader):
  by_name = {str(p): p for p in (*writers_of(CONFIG), *readers_of(CONFIG))}
  return Edge(by_name[writer], by_name[reader], 1.0)


def test_only_whole_paths_stay():
  path = [
    edge("embed", "key[0].1"),  # serves heads 2 and 3
    edge("attn_write[0].3", "mlp_in[0]"),
    edge("mlp_write[0]", "final_norm"),
  ]
  loose = [
    edge("embed", "query[1].0"),  # head 1.0 writes to nobody
    edge("attn_write[0].0", "final_norm"),  # nobody feeds head 0.0
    edge("mlp_write[1]", "final_norm"),
  ]
  assert connected([*loose, *path], 2) == tuple(path)
  assert connected(path[:2], 2) == ()
  assert str(path[0]) == "embed -> key[0].1: +1"
  assert str(Port(Site("mlp_in", 3))) == "mlp_in[3]"
