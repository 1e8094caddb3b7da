"""Chunks of documents through Grain: in order, by threads or processes.

A chunk is a pure function of its number, so that what comes out does not depend
on how many processes work, and one can begin at any chunk.
"""

from collections.abc import Callable, Iterator
from typing import Any

from absl import flags
import grain

from gemma_scope.errors import ConfigError

AHEAD = 2  # chunks that each worker has ready

Numbers = list[int]


def document_chunks(
  documents: int,
  size: int,
  *,
  seed: int | None = None,
  epochs: int | None = 1,
  host: int = 0,
  num_hosts: int = 1,
) -> grain.MapDataset[Numbers]:
  """The chunks of one host, as lists of document numbers.

  Args:
    documents: How many documents there are.
    size: Documents in a chunk; an epoch's last one may have fewer.
    seed: Of their order, another one in every epoch; None leaves it.
    epochs: How often all are gone through; None for ever.
    host: This host gets the chunks `host`, `host + num_hosts`, … of each epoch.
    num_hosts: The number of hosts.

  Raises:
    ConfigError: If there is no such host, or no chunk for it.
  """
  per_epoch = -(-documents // size)
  if not 0 <= host < num_hosts or host >= per_epoch:
    raise ConfigError(
      "There is nothing to read for this host.",
      received=f"host {host} of {num_hosts}, {per_epoch} chunks of {size} "
      f"documents",
      instead=f"hosts from 0 to {num_hosts - 1}, and chunk_documents small "
      "enough for a chunk each",
    )
  order = grain.MapDataset.range(documents)
  if seed is not None:
    order = order.seed(seed).shuffle()
  chunks = order.batch(size, batch_fn=list)
  return chunks[host::num_hosts].repeat(epochs)


def run(
  chunks: grain.MapDataset[Numbers],
  work: Callable[[Numbers], Any],
  *,
  start: int = 0,
  workers: int = 0,
) -> Iterator[Any]:
  """Maps `work` over chunks, ahead of what is asked for.

  Args:
    chunks: From `document_chunks`.
    work: Gives a tree of arrays; with workers, something to pickle.
    start: The first chunk to work on.
    workers: Processes; with 0 a thread of this process does the work.

  Returns:
    The results in the order of the chunks; has a method `close`.
  """
  reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
  # Slices of Grain's data sets must not be empty.
  rest = chunks[start:] if start else chunks
  dataset = rest.map(work).to_iter_dataset(reading)
  # Results go through pipes: containers have little shared memory, and a
  # process that uses more than there is dies without a word.
  through_pipes = grain.experimental.DatasetOptions(min_shm_size=1 << 62)
  dataset = grain.experimental.WithOptionsIterDataset(dataset, through_pipes)
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain reads its own flags there.
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(workers, per_worker_buffer_size=AHEAD)
    )
  return iter(dataset)
