"""The graph of components that write into and read the residual stream.

Writers: the embedding, every attention head, every feed-forward. Readers: the
query input of every head, the key and value input of every key/value head (read
once for its group of heads), the input of every feed-forward, and the final
norm, which leads to the logits. An edge leads from a writer to every reader
behind it.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np

from gemma_scope.model.config import GemmaConfig
from gemma_scope.sites import Site

READ_BY_HEADS = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class Port:
  """Where a component writes into the stream or reads it.

  Attributes:
    site: What is written (`embed`, `attn_write`, `mlp_write`) or computed
      from what is read (`query`, `key`, `value`, `mlp_in`, `final_norm`).
    head: The head; a key/value head for `key` and `value`; None without one.
  """

  site: Site
  head: int | None = None

  def __str__(self) -> str:
    return str(self.site) if self.head is None else f"{self.site}.{self.head}"


@dataclasses.dataclass(frozen=True)
class Edge:
  """One edge.

  Attributes:
    writer: The component that writes.
    reader: The component that reads.
    score: Its estimated effect.
  """

  writer: Port
  reader: Port
  score: float

  def __str__(self) -> str:
    return f"{self.writer} -> {self.reader}: {self.score:+.4g}"


def writers_of(config: GemmaConfig) -> tuple[Port, ...]:
  """All writers, in forward order; heads of a layer stand together."""
  found = [Port(Site("embed"))]
  for layer in range(config.num_layers):
    found += [
      Port(Site("attn_write", layer), n) for n in range(config.num_heads)
    ]
    found.append(Port(Site("mlp_write", layer)))
  return tuple(found)


def readers_of(config: GemmaConfig) -> tuple[Port, ...]:
  """All readers, in forward order: queries, keys, values, feed-forward."""
  count = {"query": config.num_heads}
  found = []
  for layer in range(config.num_layers):
    for name in READ_BY_HEADS:
      heads = range(count.get(name, config.num_kv_heads))
      found += [Port(Site(name, layer), n) for n in heads]
    found.append(Port(Site("mlp_in", layer)))
  return (*found, Port(Site("final_norm")))


def stage(port: Port) -> int:
  """When a port writes or reads; it reads what was written at stages before.

  The embedding is at 0; attention and feed-forward of layer i at 2 i + 1 and
  2 i + 2; the final norm behind all.
  """
  layer = port.site.layer
  if layer is None:
    return 0 if port.site.name == "embed" else np.iinfo(np.int32).max
  return 2 * layer + (2 if port.site.name.startswith("mlp") else 1)


def upstream(writers: Iterable[Port], readers: Iterable[Port]) -> np.ndarray:
  """[writers, readers] where there is an edge."""
  wrote = np.asarray([stage(port) for port in writers])
  reads = np.asarray([stage(port) for port in readers])
  return wrote[:, None] < reads[None, :]


def connected(edges: Iterable[Edge], group: int) -> tuple[Edge, ...]:
  """The edges on a path from the embedding to the final norm.

  Args:
    edges: Some edges.
    group: Query heads that share a key/value head.
  """
  kept = tuple(edges)
  while True:
    fed = {node for e in kept for node in _nodes(e.reader, group)}
    used = {node for e in kept for node in _nodes(e.writer, group)}
    left = tuple(
      e
      for e in kept
      if (e.writer.site.name == "embed" or fed & _nodes(e.writer, group))
      and (e.reader.site.name == "final_norm" or used & _nodes(e.reader, group))
    )
    if left == kept:
      return kept
    kept = left


def _nodes(port: Port, group: int) -> set[tuple[int, int | None]]:
  """The components a port belongs to: a key or value to all its heads."""
  if port.site.name in ("key", "value"):
    assert port.head is not None
    heads = range(port.head * group, (port.head + 1) * group)
    return {(stage(port), head) for head in heads}
  return {(stage(port), port.head)}
