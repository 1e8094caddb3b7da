"""What an activation store costs, and what it gives back, on the real 270M.

    python -m benchmarks.store write --data TEXT.jsonl …
    python -m benchmarks.store read --store FOLDER
    python -m benchmarks.store memory --data TEXT.jsonl … --out FOLDER

`write` times the forward pass alone and the same with a store behind it, in
turn over the same batches; expect a ratio of at least 0.9. `read` times
globally shuffled batches of a store against a step of a dictionary of width
4096, compiled, on rows that are there already; expect at least 5 times its
rate. `memory` captures (or goes on capturing) and prints the process's memory
every so many batches; expect it to be flat after the first.

Close everything else first; each number is the median of the repetitions.
"""

import argparse
from collections.abc import Callable
import pathlib
import re
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gemma_scope as gs
from gemma_scope.activations.corpus.corpus import Corpus
from gemma_scope.activations.corpus.options import PackingOptions
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.corpus.pipeline import TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.store import (
  Store,
  StoreRows,
  capture_to_store,
  open_writer,
)

SITES = ("resid_post[5,9,12,15]", "mlp_in[9]", "mlp_write[9]")
WIDTH = 4096
ROWS = 4096
LAYER = 9


class Prepared:
  """Batches that are there already, as a pipeline."""

  def __init__(self, batches: list[PackedBatch]):
    self._batches, self._next = batches, 0

  def __next__(self) -> PackedBatch:
    if self._next == len(self._batches):
      raise StopIteration
    self._next += 1
    return self._batches[self._next - 1]

  def state(self) -> int:
    return self._next

  def restore(self, state: int) -> None:
    self._next = state


def seconds_of(work: Callable[[], object]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def make(options: argparse.Namespace) -> tuple[Harvest, TokenPipeline]:
  lm = gs.load(options.model, dtype=options.dtype)
  packing = PackingOptions(seq_len=options.seq_len, batch_size=options.batch)
  corpus = Corpus.open(options.data)
  harvest = Harvest(lm, SITES, dtype="bfloat16")
  return harvest, TokenPipeline(corpus, lm.tokenizer, packing)


def compute(harvest: Harvest, batches: Prepared) -> None:
  """The forward pass of every batch; one waits while another is computed."""
  last = None
  while (batch := next(batches, None)) is not None:
    values, _ = harvest(batch)
    if last is not None:
      jax.block_until_ready(last)
    last = values
  jax.block_until_ready(last)


def capture(
  harvest: Harvest, pipeline: TokenPipeline, batches, folder: str
) -> None:
  """The same into a store, which is on the disk when this returns."""
  with tempfile.TemporaryDirectory(dir=folder) as made:
    path = pathlib.Path(made) / "store"
    with open_writer(path, harvest, pipeline) as writer:
      rows = None if isinstance(batches, Prepared) else batches[1]
      source = batches if rows is None else batches[0]
      capture_to_store(harvest, source, writer, rows=rows)


def write(options: argparse.Namespace) -> None:
  harvest, pipeline = make(options)
  start = pipeline.state()
  batches = [next(pipeline) for _ in range(options.batches)]
  tokens = sum(batch.num_counted for batch in batches)
  jax.block_until_ready(harvest(batches[0]))

  def from_text() -> None:
    pipeline.restore(start)
    capture(harvest, pipeline, (pipeline, tokens), options.folder)

  ways = {
    "compute alone": lambda: compute(harvest, Prepared(batches)),
    "with a store": lambda: capture(
      harvest, pipeline, Prepared(batches), options.folder
    ),
    "with a store, from text": from_text,
  }
  capture(harvest, pipeline, Prepared(batches[:1]), options.folder)
  found: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(options.repeats):
    for name, work in ways.items():
      found[name].append(tokens / seconds_of(work))
  alone = found["compute alone"]
  for name, rates in found.items():
    ratios = [rate / a for rate, a in zip(rates, alone)]
    print(
      f"{name:<24} {statistics.median(rates):>9,.0f} tokens/s  "
      f"{statistics.median(ratios):.3f} of compute alone "
      f"({min(ratios):.3f} to {max(ratios):.3f})",
      flush=True,
    )


def dictionary_step(width: int) -> Callable[[jax.Array], jax.Array]:
  """A training step of a plain dictionary, compiled: rows -> loss."""
  keys = jax.random.split(jax.random.key(0), 2)
  shape = (width, WIDTH)
  params = {
    "enc": jax.random.normal(keys[0], shape) / width**0.5,
    "dec": jax.random.normal(keys[1], shape[::-1]) / WIDTH**0.5,
    "b_enc": jnp.zeros(WIDTH),
    "b_dec": jnp.zeros(width),
  }
  optimizer = optax.adam(7e-5, 0.0, 0.999)
  state = [params, optimizer.init(params)]

  def loss(params, rows):
    rows = rows.astype(jnp.float32)
    latents = jax.nn.relu(rows @ params["enc"] + params["b_enc"][None])
    error = latents @ params["dec"] + params["b_dec"][None] - rows
    return jnp.mean(jnp.square(error)) + 1e-3 * jnp.mean(latents)

  @jax.jit
  def step(params, moments, rows):
    value, slopes = jax.value_and_grad(loss)(params, rows)
    updates, moments = optimizer.update(slopes, moments)
    return optax.apply_updates(params, updates), moments, value

  def advance(rows: jax.Array) -> jax.Array:
    state[0], state[1], value = step(state[0], state[1], rows)
    return value

  return advance


def read(options: argparse.Namespace) -> None:
  store = Store.open(options.store)
  print(store, flush=True)
  one = next(s for s in store.sites if str(s) == f"resid_post[{LAYER}]")
  rows = next(StoreRows(store, [one], batch_rows=ROWS))[one]
  step = dictionary_step(store.layout.widths[one])
  jax.block_until_ready(step(rows))
  rates = [
    ROWS / seconds_of(lambda: jax.block_until_ready(step(rows)))
    for _ in range(options.repeats)
  ]
  rate = statistics.median(rates)
  print(f"dictionary step, width {WIDTH}:  {rate:>11,.0f} rows/s", flush=True)
  for sites in ((one,), store.sites):
    source = StoreRows(store, sites, batch_rows=ROWS)
    first = ROWS / seconds_of(lambda s=source: jax.block_until_ready(next(s)))

    def some(source: StoreRows = source) -> None:
      for _ in range(options.batches):
        jax.block_until_ready(next(source))

    found = [
      options.batches * ROWS / seconds_of(some) for _ in range(options.repeats)
    ]
    reading = statistics.median(found)
    print(
      f"shuffled, {len(sites)} sites:  {reading:>11,.0f} rows/s  "
      f"{reading / rate:.1f} x a step  (first batch {first:,.0f})",
      flush=True,
    )


def resident() -> tuple[float, float]:
  """Megabytes of this process: all, and those that are no mapped file."""
  text = pathlib.Path("/proc/self/status").read_text()
  numbers = dict(re.findall(r"(VmRSS|RssAnon):\s+(\d+) kB", text))
  return int(numbers["VmRSS"]) / 1e3, int(numbers["RssAnon"]) / 1e3


def memory(options: argparse.Namespace) -> None:
  harvest, pipeline = make(options)
  start, seen = time.monotonic(), []

  def tell(rows: int) -> None:
    seen.append(resident()[1])
    if len(seen) % options.every == 1:
      whole, own = resident()
      print(
        f"{time.monotonic() - start:>8.0f} s  {rows:>10,} tokens  "
        f"RSS {whole:,.0f} MB  of that own {own:,.0f} MB",
        flush=True,
      )

  with open_writer(options.out, harvest, pipeline) as writer:
    before = writer.rows
    capture_to_store(
      harvest, pipeline, writer, rows=options.tokens, progress=tell
    )
    done = writer.rows - before
  seconds = time.monotonic() - start
  print(f"{done:,} tokens at {done / seconds:,.0f} tokens/s")
  settled = seen[len(seen) // 10 :]
  if len(settled) > 10:
    third = len(settled) // 3
    first, last = np.mean(settled[:third]), np.mean(settled[-third:])
    print(
      f"own memory, first tenth left out: {min(settled):,.0f} to "
      f"{max(settled):,.0f} MB; mean of the last third / first third "
      f"{last / first:.3f}"
    )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  verbs = parser.add_subparsers(required=True)
  for name, work in (("write", write), ("read", read), ("memory", memory)):
    verb = verbs.add_parser(name)
    verb.set_defaults(work=work)
    verb.add_argument("--repeats", type=int, default=5)
    verb.add_argument("--batches", type=int, default=16)
    if name == "read":
      verb.add_argument("--store", required=True)
      continue
    verb.add_argument("--data", nargs="+", required=True)
    verb.add_argument("--model", default="gemma-3-270m")
    verb.add_argument("--dtype", default="float32")
    verb.add_argument("--seq-len", type=int, default=512)
    verb.add_argument("--batch", type=int, default=8)
    verb.add_argument("--folder", help="where stores are written and removed")
    verb.add_argument("--out", default="store")
    verb.add_argument("--tokens", type=int, default=2_000_000)
    verb.add_argument("--every", type=int, default=20)
  options = parser.parse_args()
  options.work(options)


if __name__ == "__main__":
  sys.exit(main())
