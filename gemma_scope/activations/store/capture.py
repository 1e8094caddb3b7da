"""Runs a model over text into a store, computing and writing side by side.

    harvest = Harvest(lm, ["resid_post[5,9]"], dtype="bfloat16")
    pipeline = TokenPipeline(Corpus.open("text.jsonl"), lm.tokenizer)
    with open_writer("activations", harvest, pipeline) as writer:
      capture_to_store(harvest, pipeline, writer, rows=2_000_000)

While the device computes a batch, a thread takes the rows of the one before and
writes them. What a commit counts are whole batches, together with the
pipeline's state behind them. The same lines go on with a store that is there.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
from typing import Any, Protocol

from gemma_scope.activations import distributed
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.store.appender import Appender, Computed, Progress
from gemma_scope.activations.store.layout import Layout
from gemma_scope.activations.store.writer import StoreWriter
from gemma_scope.manifest import make_manifest

SHARD_ROWS = 1 << 17


class Batches(Protocol):
  """What a capture needs of a token pipeline."""

  def __next__(self) -> PackedBatch:
    """The next batch; StopIteration at the end of the text."""
    ...

  def state(self) -> Any:
    """All that the next batches depend on."""
    ...

  def restore(self, state: Any) -> None:
    """Goes on from a state."""
    ...


def open_writer(
  path: str | os.PathLike,
  harvest: Harvest,
  pipeline: TokenPipeline,
  *,
  shard_rows: int = SHARD_ROWS,
  about: Mapping[str, Any] | None = None,
) -> StoreWriter:
  """Makes the store that a harvest of a pipeline fills, or opens it to go on.

  Args:
    path: The store's folder.
    harvest: The model and the sites.
    pipeline: The text; its host is the writer's.
    shard_rows: Rows of a shard.
    about: What else tells this capture from others, such as the edits of an
      edited model; JSON values.

  Raises:
    StoreError: If the folder holds something else, or a store of another
      model, text or options, or another process writes to it.
  """
  packing = dataclasses.asdict(pipeline.options)
  del packing["epochs"]  # more of them only make a store longer
  config = {
    "sites": [str(site) for site in harvest.sites],
    "model_dtype": harvest.lm.dtype,
    "packing": packing,
    "corpus": pipeline.corpus.origin,
    "about": dict(about or {}),
  }
  lm, seed = harvest.lm, pipeline.options.seed
  manifest = make_manifest(config, model=lm.name, source=lm.source, seed=seed)
  layout = Layout(
    harvest.widths, harvest.dtype.name, shard_rows, pipeline.num_hosts
  )
  return StoreWriter(path, layout, manifest, host=pipeline.host)


def capture_to_store(
  harvest: Harvest,
  pipeline: Batches,
  writer: StoreWriter,
  *,
  rows: int | None = None,
  commit_seconds: float = 30.0,
  progress: Progress | None = None,
) -> None:
  """Fills a store up to a number of rows, going on where it stands.

  Stops behind the first batch that brings the store to `rows` (each of several
  hosts: to its share), or at the end of the text. An interrupt commits what is
  written first.

  Args:
    harvest: The model and the sites.
    pipeline: The text, made as for the store's first row.
    writer: The store; `writer.committed` says how far it is.
    rows: Rows of the whole store; None takes all the text.
    commit_seconds: How much work a kill may cost at most.
    progress: Called with this host's rows after every batch written.

  Raises:
    StoreError: If the disk refuses; what was committed is safe.
  """
  if writer.committed.state is None:
    writer.commit(pipeline.state())  # where a second try has to begin
  pipeline.restore(writer.committed.state)
  appender = Appender(writer, commit_seconds, progress)
  finished = False
  try:
    for batch in _wanted(harvest, pipeline, writer, rows):
      if batch is None:
        finished = True
        break
      values, _ = harvest(batch)
      appender.put(Computed(values, batch, pipeline.state()))
  except BaseException:
    with contextlib.suppress(Exception):  # the first error is the one to tell
      appender.finish(finished=False)
    raise
  appender.finish(finished=finished)


def _wanted(
  harvest: Harvest,
  pipeline: Batches,
  writer: StoreWriter,
  rows: int | None,
) -> Iterator[PackedBatch | None]:
  """Batches until there are rows enough; None where the text ends before."""
  if distributed.in_step(harvest.mesh):
    yield from _in_step(pipeline, writer, rows)
    return
  share = None if rows is None else -(-rows // writer.layout.hosts)
  taken = writer.rows
  while share is None or taken < share:
    batch = _next(pipeline)
    yield batch
    if batch is None:
      return
    taken += batch.num_counted


def _in_step(
  pipeline: Batches, writer: StoreWriter, rows: int | None
) -> Iterator[PackedBatch | None]:
  """The same where all processes must run as many batches of one shape.

  One whose text has ended runs padding until all have.
  """
  taken = distributed.gather([writer.rows]).sum()
  while rows is None or taken < rows:
    batch = _next(pipeline)
    own = (0, 0, 0) if batch is None else (batch.num_counted, *batch.shape)
    everywhere = distributed.gather(own)
    shape = everywhere[:, 1:].max(axis=0)
    if not shape.any():
      yield None
      return
    yield batch or PackedBatch.empty((int(shape[0]), int(shape[1])))
    taken += everywhere[:, 0].sum()


def _next(pipeline: Batches) -> PackedBatch | None:
  try:
    return next(pipeline)
  except StopIteration:
    return None
