"""Scores of edges between components, and the choice among them."""

import dataclasses

import numpy as np
from penzai import pz

from gemma_scope.attribution.patching.edge_graph import (
  Edge,
  Port,
  connected,
  upstream,
)
from gemma_scope.display import table_html
from gemma_scope.errors import ConfigError, SiteError


@dataclasses.dataclass(frozen=True, repr=False)
class EdgeScores:
  """Estimated effects of patching single edges.

  A score estimates the target minus that of the base run, if one reader sees
  one writer's contribution as it is in the source run.

  Attributes:
    writers: What stands along `component`, in forward order.
    readers: What stands along `reader`, in forward order.
    values: {batch, component, reader}, and {seq} in the end where positions
      are kept; float32, zero where there is no edge.
    source: [batch] the target on the prompts that values are taken from.
    base: [batch] the target on the prompts that they are put into.
    group: Query heads that share a key/value head.
  """

  writers: tuple[Port, ...]
  readers: tuple[Port, ...]
  values: pz.nx.NamedArray
  source: np.ndarray
  base: np.ndarray
  group: int

  @property
  def matrix(self) -> np.ndarray:
    """[component, reader] mean over prompts of the sum over positions."""
    by_prompt = np.asarray(self.values.data_array)
    if by_prompt.ndim == 4:
      by_prompt = by_prompt.sum(axis=-1)
    return by_prompt.mean(axis=0)

  def __getitem__(self, edge: tuple[str | Port, str | Port]) -> float:
    """The score of one edge, such as `scores["embed", "query[3].1"]`.

    Raises:
      SiteError: If there is no such edge.
    """
    writer = self._find(edge[0], self.writers, "component")
    reader = self._find(edge[1], self.readers, "reader")
    if not self.present[writer, reader]:
      raise SiteError(
        "A component does not see what is written behind it.",
        received=f"an edge from {edge[0]} to {edge[1]}",
        instead=f"an edge to a reader behind {edge[0]}",
      )
    return float(self.matrix[writer, reader])

  @property
  def present(self) -> np.ndarray:
    """[component, reader] where there is an edge."""
    return upstream(self.writers, self.readers)

  def top(self, k: int = 10) -> list[Edge]:
    """The k edges with the largest scores in size, largest first."""
    matrix = self.matrix
    size = np.where(self.present, np.abs(matrix), -1.0).ravel()
    order = np.argsort(-size, kind="stable")[: max(k, 0)]
    places = [divmod(int(i), len(self.readers)) for i in order if size[i] >= 0]
    return [
      Edge(self.writers[i], self.readers[j], float(matrix[i, j]))
      for i, j in places
    ]

  def prune(self, n: int) -> tuple[Edge, ...]:
    """The n strongest edges, without those that lead nowhere.

    An edge is dropped if no chosen edge leads from the embedding to its
    writer, or none leads on from its reader. How much of the model's behaviour
    they keep is not measured here.

    Raises:
      ConfigError: If n is no positive number.
    """
    if n < 1:
      raise ConfigError(
        "A circuit needs edges.",
        received=f"n={n}",
        instead=f"a number from 1 to {int(self.present.sum())}",
      )
    return connected(self.top(n), self.group)

  def node(self, writer: str | Port) -> float:
    """What one writer's edges add up to: the estimate for the node itself."""
    index = self._find(writer, self.writers, "component")
    return float(self.matrix[index].sum())

  def _find(
    self, wanted: str | Port, ports: tuple[Port, ...], kind: str
  ) -> int:
    for i, port in enumerate(ports):
      if wanted in (port, str(port)):
        return i
    raise SiteError(
      f"There is no such {kind} in the graph.",
      received=str(wanted),
      instead=f"for example {ports[0]} or {ports[-2]}",
    )

  def __repr__(self) -> str:
    return (
      f"EdgeScores({int(self.present.sum())} edges, base={self.base}, "
      f"source={self.source})"
    )

  def _repr_html_(self) -> str:
    rows = [(str(e.writer), str(e.reader), e.score) for e in self.top(12)]
    return table_html(["from", "to", "score"], rows, title="Strongest edges")
