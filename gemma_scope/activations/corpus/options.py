"""How documents become rows of tokens: the options, and nothing else."""

import dataclasses

from gemma_scope.errors import ConfigError
from gemma_scope.surgery.positions import BOS

PAD, EOS = 0, 1
# <bos><start_of_turn>user\n, which every conversation with an -it model begins
# with; the activations there do not depend on the text.
CHAT_PREFIX = (BOS, 105, 2364, 107)


@dataclasses.dataclass(frozen=True)
class PackingOptions:
  """How documents become rows of tokens.

  Attributes:
    seq_len: Tokens in a row.
    batch_size: Rows in a batch; on several hosts, of each host.
    seed: Of the order of the documents; every epoch has another order.
    shuffle: Whether documents are shuffled, over the whole corpus.
    epochs: How often the corpus is gone through; None for ever.
    prefix: Ids in front of every piece of a document. They do not count. Use
      `CHAT_PREFIX` to show text to an -it model as a user's turn.
    eos: Whether <eos> follows the last token of a document.
    uncounted: Ids that never count.
    min_piece: A document begins in a row only where so many of its tokens
      fit; the rest of that row is padding.
    control_tokens: Whether "<start_of_turn>" and its like in a text become
      control tokens; by default they stay text. For written-out chats.
    chunk_documents: How many documents are packed together; by default as many
      as have about 131,072 tokens. The last row of every chunk is padded; rows
      do not depend on other chunks, so that they are the same on any number of
      hosts and workers.
  """

  seq_len: int = 1024
  batch_size: int = 8
  seed: int = 0
  shuffle: bool = True
  epochs: int | None = 1
  prefix: tuple[int, ...] = (BOS,)
  eos: bool = False
  uncounted: tuple[int, ...] = (PAD, EOS, BOS)
  min_piece: int = 16
  control_tokens: bool = False
  chunk_documents: int | None = None

  def __post_init__(self):
    positive = ("batch_size", "min_piece", "chunk_documents", "epochs")
    given = {name: getattr(self, name) for name in positive}
    low = [name for name, n in given.items() if n is not None and n < 1]
    if not 0 <= self.seed < 2**32:
      low.append("seed")
    if low:
      raise ConfigError(
        "An option of packing has no such value.",
        received=", ".join(f"{name}={getattr(self, name)!r}" for name in low),
        instead="whole numbers from 1 (epochs=None for ever; a seed from 0 to "
        "2**32 - 1)",
      )
    if self.seq_len <= len(self.prefix):
      raise ConfigError(
        "A row has no room for text behind the prefix of its pieces.",
        received=f"seq_len={self.seq_len}, prefix={self.prefix}",
        instead="a longer row, such as seq_len=1024",
      )
