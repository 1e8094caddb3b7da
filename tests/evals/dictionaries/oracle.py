"""Every metric once more: float64 NumPy, one document and token at a time.

The model is `testing.oracle`, the dictionaries `tests.dictionaries.oracle`;
nothing of `gemma_scope.evals.dictionaries` is used.
"""

import dataclasses

import numpy as np

from gemma_scope.dictionaries.cross_layer import CrossLayer
from gemma_scope.dictionaries.crosscoder import Crosscoder
from gemma_scope.model.build import random_tensors
from gemma_scope.sites import Site
from gemma_scope.testing.oracle import oracle_forward
from tests.dictionaries import oracle as family

BOS, EOS = 2, 1


def documents(ids, segments):
  """Ids of every document, row by row."""
  return [
    [row[marks == n] for n in dict.fromkeys(marks[marks != 0].tolist())]
    for row, marks in zip(ids, segments)
  ]


def counts(document):
  """Which tokens of a document count."""
  return np.array([t not in (0, BOS, EOS) for t in document])


@dataclasses.dataclass
class Token:
  """One token that counts, of one dictionary."""

  row: int
  x: np.ndarray  # [sites, d]
  y: np.ndarray
  f: np.ndarray  # [parts, latents]
  made: np.ndarray


class Oracle:
  """One dictionary on some rows."""

  def __init__(self, config, dictionary, ids, segments, seed=0):
    self.config, self.dictionary = config, dictionary
    self.tensors = random_tensors(config, seed)
    self.rows = documents(ids, segments)
    self.many = len(dictionary.sites_in) > 1
    self.tokens = list(self._tokens())

  def forward(self, document, edits=None):
    """Every site of a document, edited or not."""
    return oracle_forward(self.tensors, self.config, document, edits)

  def vectors(self, values, sites):
    """[sites, tokens, d]."""
    return np.stack([values[s].reshape(len(values[s]), -1) for s in sites])

  def _tokens(self):
    d = self.dictionary
    for r, row in enumerate(self.rows):
      for document in row:
        values = self.forward(document)
        x = self.vectors(values, d.sites_in)
        y = self.vectors(values, d.sites_out)
        given = x if self.many else x[0]
        f = family.encode(d, given)
        made = family.rebuild(d, f, given)
        f, made = (a if a.ndim == 3 else a[None] for a in (f, made))
        for t in np.flatnonzero(counts(document)):
          yield Token(r, x[:, t], y[:, t], f[:, t], made[:, t])

  def l0(self):
    return np.mean([np.count_nonzero(t.f) for t in self.tokens])

  def fvu(self, made=lambda token: token.made, site=slice(None)):
    """About the mean of every site over all tokens."""
    mean = np.mean([t.y for t in self.tokens], axis=0)
    missed = sum(((t.y - made(t))[site] ** 2).sum() for t in self.tokens)
    total = sum(((t.y - mean)[site] ** 2).sum() for t in self.tokens)
    return missed / total

  def cosine(self):
    found = []
    for t in self.tokens:
      for y, made in zip(t.y, t.made):
        found.append(y @ made / np.linalg.norm(y) / np.linalg.norm(made))
    return np.mean(found)

  def length(self):
    return np.mean(
      [
        np.linalg.norm(made) / np.linalg.norm(y)
        for t in self.tokens
        for y, made in zip(t.y, t.made)
      ]
    )

  def density(self):
    """[parts, latents] share of tokens."""
    return np.mean([t.f != 0 for t in self.tokens], axis=0)

  def prefix(self, size):
    """FVU and L0 of the first latents."""

    def cut(f):
      return np.where(np.arange(f.shape[-1]) < size, f, 0)

    def made(token):
      f, x = cut(token.f), token.x
      given = (f[:, None], x[:, None]) if self.many else (f, x)
      if isinstance(self.dictionary, Crosscoder):
        given = (f, x[:, None])
      rebuilt = family.rebuild(self.dictionary, *given)
      return rebuilt[:, 0] if self.many else rebuilt

    active = [np.count_nonzero(cut(t.f)) for t in self.tokens]
    return self.fvu(made), np.mean(active)

  def nearest(self):
    """The largest cosine of every decoder row to another one."""
    rows = self._decoder()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for i, row in enumerate(rows):
      found.append(max(row @ r for j, r in enumerate(rows) if j != i))
    return np.array(found)

  def _decoder(self):
    d = self.dictionary
    if isinstance(d, Crosscoder):
      parts = [family.plain(w, "latents", "output") for w in d.w_dec]
      return np.concatenate(parts, axis=1)
    if isinstance(d, CrossLayer):
      rows = []
      for i, part in enumerate(d.parts):
        w = family.plain(part.w_dec, "latents", "layer", "output")
        for row in w:
          whole = np.zeros((len(d.parts), w.shape[2]))
          whole[i:] = row
          rows.append(whole.reshape(-1))
      return np.stack(rows)
    return family.plain(d.w_dec, "latents", "output")

  def losses(self, edits_of=None):
    """[rows] sums of -log p where two tokens that count follow another."""
    sums = np.zeros(len(self.rows))
    number = np.zeros(len(self.rows))
    for r, row in enumerate(self.rows):
      for document in row:
        edits = edits_of(document) if edits_of else None
        logits = self.forward(document, edits)[Site("logits")]
        here = counts(document)
        for t in range(len(document) - 1):
          if here[t] and here[t + 1]:
            score = logits[t] - np.log(np.exp(logits[t]).sum())
            sums[r] -= score[document[t + 1]]
            number[r] += 1
    return sums, number

  def spliced(self, document):
    """Edits that put what the dictionary makes at tokens that count."""
    d, here = self.dictionary, counts(document)
    if isinstance(d, Crosscoder):
      x = self.vectors(self.forward(document), d.sites_in)
      made = family.rebuild(d, family.encode(d, x), x)
      return {s: put(here, y) for s, y in zip(d.sites_out, made)}
    if isinstance(d, CrossLayer):
      return self._spliced_layers(here)
    kept = {}

    def read(value):
      kept["x"] = value.copy()
      return value

    def write(value):
      x = kept.get("x", value).reshape(len(value), -1)
      made = family.rebuild(d, family.encode(d, x), x)
      return np.where(
        here.reshape(-1, *[1] * (value.ndim - 1)),
        made.reshape(value.shape),
        value,
      )

    (site_in,), (site_out,) = d.sites_in, d.sites_out
    return (
      {site_out: write}
      if site_in == site_out
      else {
        site_in: read,
        site_out: write,
      }
    )

  def _spliced_layers(self, here):
    """Latents of a layer are of what arrives there, earlier writes included.

    A residual stream is read as it arrives, before it is written.
    """
    d, edits, xs = self.dictionary, {}, {}

    def read(i, value):
      xs[i] = value.copy()
      return value

    def write(j, value):
      if d.sites_in[j] == d.sites_out[j]:
        xs[j] = value.copy()
      blank = np.zeros_like(xs[0])
      x = np.stack([xs.get(i, blank) for i in range(len(d.parts))])
      made = family.rebuild(d, family.encode(d, x), x)[j]
      return np.where(here[:, None], made, value)

    for i, (a, b) in enumerate(zip(d.sites_in, d.sites_out)):
      if a != b:
        edits[a] = lambda value, i=i: read(i, value)
      edits[b] = lambda value, i=i: write(i, value)
    return edits

  def ablated(self, document, values):
    """Edits that put a vector at every site written."""
    here = counts(document)
    return {s: put(here, values[s]) for s in self.dictionary.sites_out}

  def mean(self):
    """Site written -> the mean over tokens."""
    mean = np.mean([t.y for t in self.tokens], axis=0)
    return dict(zip(self.dictionary.sites_out, mean))


def put(here, new):
  """An edit that puts `new` at some tokens."""

  def edit(value):
    made = np.broadcast_to(
      np.asarray(new).reshape(-1, *value.shape[1:]), value.shape
    )
    return np.where(here.reshape(-1, *[1] * (value.ndim - 1)), made, value)

  return edit
