"""One of two processes that capture into one store; tests start both.

    python -m tests.activations.two_hosts FOLDER PORT INDEX alone|together

`alone`: each holds the model on a device of its own. `together`: two devices
each, one model over all four, rows over the processes.
"""

import sys

import numpy as np

from gemma_scope.activations import distributed
from gemma_scope.activations.store import Store
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.testing.tiny import tiny_config, tiny_lm
from tests.activations.store.tiny_capture import capture, make

CONFIG = tiny_config(num_layers=2)


def lm_on(mesh):
  """The tiny model, on a mesh or on one device."""
  lm = tiny_lm(CONFIG)
  if mesh is None:
    return lm
  tensors = random_tensors(CONFIG, 0)
  return lm.replace(tensors_to_gemma(tensors, CONFIG, mesh=mesh))


def by_place(path) -> dict[tuple[int, int], bytes]:
  """(document, place in it) -> all that a store has of the token."""
  store = Store.open(path)
  indices = np.arange(store.num_rows)
  tokens = store.tokens(indices)
  parts = [tokens.id, tokens.segment, tokens.position]
  parts += [store.rows(site, indices) for site in store.sites]
  raw = [b"".join(p[i].tobytes() for p in parts) for i in indices]
  places = list(zip(tokens.document.tolist(), tokens.offset.tolist()))
  assert len(set(places)) == len(places)
  return dict(zip(places, raw))


def main(path: str, port: str, index: str, mode: str) -> None:
  host = distributed.start(f"127.0.0.1:{port}", count=2, index=int(index))
  assert host == distributed.Host(int(index), 2)
  shape = (2, 2) if mode == "together" else (1, 1)
  lm = lm_on(distributed.make_mesh(shape))
  parts = make(lm, host=host.index, num_hosts=host.count)
  capture(path, parts)
  distributed.wait_for_all("captured")


if __name__ == "__main__":
  main(*sys.argv[1:])
