"""Documents to an iterator over packed batches of one shape.

    corpus -> shuffle -> chunks -> this host's -> token ids -> rows -> batches

Every arrow is a pure function: the order of the documents follows from seed and
epoch (Grain's index shuffle, which needs no memory), chunks of some hundred
documents are tokenised and packed each on its own, by worker processes if asked
for, and come back in order. So batch k is the same for any number of workers;
rows are the same for any number of hosts, which share the chunks out; and the
state is two numbers, the chunk and the row in it. Restoring packs one chunk
again and goes on with exactly the batches that would have followed.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

from gemma_scope.activations.corpus import chunks
from gemma_scope.activations.corpus.corpus import Corpus, digest_of
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.corpus.tokenise import (
  PackChunk,
  Tokenise,
  check_tokenizer,
  tokenizer_digest,
)
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.tokenizer import Tokenizer

CHUNK_TOKENS = 1 << 17


class TokenPipeline:
  """An iterator over batches [batch_size, seq_len] of packed documents.

  The last batch of the last epoch is filled up with rows of padding; then it
  stops. Several hosts may stop at different times: one that has run out can go
  on with `PackedBatch.empty`.

  Attributes:
    corpus: The documents.
    options: How they are packed.
    host: Which part of the chunks it gives.
    num_hosts: How many parts there are.
    chunk_documents: How many documents are packed together.
    workers: Worker processes; needs `if __name__ == "__main__":` in a script.
  """

  def __init__(
    self,
    corpus: Corpus,
    tokenizer: Tokenizer,
    options: PackingOptions | None = None,
    *,
    host: int = 0,
    num_hosts: int = 1,
    workers: int = 0,
  ):
    """Reads nothing yet.

    Raises:
      ConfigError: If there is no such host, or nothing to read for it.
      TextError: If the corpus has tokens of another tokenizer.
    """
    check_tokenizer(corpus, tokenizer)
    self.corpus, self.options = corpus, options or PackingOptions()
    self.host, self.num_hosts, self.workers = host, num_hosts, workers
    self._tokenizer = tokenizer
    packing = self.options
    self.chunk_documents = packing.chunk_documents or _chunk_size(corpus)
    one_epoch, self._numbers = (
      chunks.document_chunks(
        len(corpus),
        self.chunk_documents,
        seed=packing.seed if packing.shuffle else None,
        epochs=epochs,
        host=host,
        num_hosts=num_hosts,
      )
      for epochs in (1, packing.epochs)
    )
    self.chunks_per_epoch = len(one_epoch)
    self._job = self._describe()
    self._chunk = self._row = self._batches = 0
    self._source: Iterator[Mapping[str, Any]] | None = None
    self._rows: PackedBatch | None = None

  def __iter__(self) -> "TokenPipeline":
    return self

  def __next__(self) -> PackedBatch:
    """The next batch.

    Raises:
      StopIteration: After the last epoch.
      TextError: If a document cannot be used, or none has a token.
    """
    shape = (self.options.batch_size, self.options.seq_len)
    found: list[PackedBatch] = []
    missing = shape[0]
    while missing and (rows := self._current()) is not None:
      found.append(rows[self._row : self._row + missing])
      self._row += len(found[-1].ids)
      missing -= len(found[-1].ids)
    if not found:
      raise StopIteration
    if missing:
      found.append(PackedBatch.empty((missing, shape[1])))
    self._batches += 1
    return PackedBatch.concatenate(found)

  @property
  def epoch(self) -> int:
    """The epoch, from 0, that the next row comes from."""
    return self._chunk // self.chunks_per_epoch

  @property
  def fraction(self) -> float | None:
    """How much of all epochs is done, from 0 to 1; None if they are endless."""
    if self.options.epochs is None:
      return None
    rows = 0 if self._rows is None else len(self._rows.ids)
    return (self._chunk + self._row / max(rows, 1)) / len(self._numbers)

  def state(self) -> dict[str, Any]:
    """Where it stands, as JSON values: chunk, row in it, batches given."""
    return {
      "chunk": self._chunk,
      "row": self._row,
      "batches": self._batches,
      "job": self._job,
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on from a state of a pipeline made alike; workers may differ.

    Raises:
      ConfigError: If it is the state of another corpus, tokenizer, packing or
        part of the hosts.
    """
    if state.get("job") != self._job:
      raise ConfigError(
        "This is the state of a pipeline over something else.",
        received=f"state of {state.get('job')!s:.12}…, not {self._job:.12}…",
        instead="the same corpus, tokenizer, packing options, host and number "
        "of hosts",
      )
    self.close()
    self._chunk, self._row = int(state["chunk"]), int(state["row"])
    self._batches = int(state["batches"])

  def close(self) -> None:
    """Ends worker processes; the next batch starts them again."""
    source, self._source, self._rows = self._source, None, None
    if source is not None and hasattr(source, "close"):
      source.close()  # type: ignore[attr-defined]

  def _current(self) -> PackedBatch | None:
    """The chunk whose row is next; None behind the last one."""
    first, fresh = self._chunk, self._rows is None
    while self._rows is None or self._row >= len(self._rows.ids):
      if self._rows is not None:
        self._chunk, self._row, self._rows = self._chunk + 1, 0, None
      # Shuffled, the only text may be at the far ends of two epochs.
      if self._chunk - first > 2 * self.chunks_per_epoch:
        raise self._no_tokens()
      if self._chunk >= len(self._numbers):
        self.close()
        unread = fresh and not self._batches
        if unread and self._chunk - first == len(self._numbers):
          raise self._no_tokens()
        return None
      self._rows = self._read()
    return self._rows

  def _read(self) -> PackedBatch:
    if self._source is None:
      tokenise = Tokenise(
        self.corpus, self._tokenizer, self.options.control_tokens
      )
      self._source = chunks.run(
        self._numbers,
        PackChunk(tokenise, self.options),
        start=self._chunk,
        workers=self.workers,
      )
    return PackedBatch(**next(self._source))

  def _no_tokens(self) -> TextError:
    return TextError(
      "The documents of this corpus have no tokens.",
      received=f"{len(self.corpus):,} empty documents",
      instead="a corpus with some text in it",
    )

  def _describe(self) -> str:
    """A digest of all that the batches depend on."""
    options = dataclasses.asdict(self.options)
    options["chunk_documents"] = self.chunk_documents
    return digest_of(
      {
        "corpus": self.corpus.digest,
        "tokenizer": tokenizer_digest(self._tokenizer),
        "options": {k: v for k, v in options.items() if k != "epochs"},
        "hosts": [self.host, self.num_hosts],
      }
    )


def _chunk_size(corpus: Corpus) -> int:
  """So many documents that a chunk has about `CHUNK_TOKENS` tokens."""
  wanted = CHUNK_TOKENS / max(corpus.mean_tokens, 1.0)
  return max(1, min(round(wanted), len(corpus)))
