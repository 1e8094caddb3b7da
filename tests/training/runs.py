"""Small runs that the tests of training share."""

import dataclasses

import numpy as np

from gemma_scope.sites import Site
from gemma_scope.testing.synthetic_rows import SyntheticRows
from gemma_scope.training import config as configs
from gemma_scope.training import options

IN = tuple(Site("mlp_in", i) for i in range(3))
OUT = tuple(Site("mlp_write", i) for i in range(3))
D, WIDTH = 16, 32

SPARSITY = options.Sparsity(weight=0.03, bandwidth=0.05, threshold=0.05)
OPTIMISER = options.Optimiser(warmup_steps=5)

# Activation -> how it is kept sparse.
PENALTIES = {
  "jump_relu": SPARSITY,
  "relu": options.Sparsity(penalty="l1", weight=0.1),
  "gated": options.Sparsity(penalty="l1", weight=0.1),
  "top_k": options.Sparsity(penalty="none"),
  "batch_top_k": options.Sparsity(penalty="none"),
}
# Kind -> sites in, sites out.
ENDS = {
  "sae": (IN[:1], ()),
  "transcoder": (IN[:1], OUT[:1]),
  "crosscoder": (IN, ()),
  "clt": (IN, OUT),
}


def member(kind="sae", **fields):
  reads, writes = ENDS[kind]
  given = {"l0": 3, "learning_rate": 1e-2, "name": kind} | fields
  return configs.Member(reads, writes, **given)


def group(kind="sae", activation="jump_relu", members=None, **fields):
  """A group of one kind; fields of Architecture go in `form`."""
  form = {"kind": kind, "activation": activation, "width": WIDTH}
  form |= fields.pop("form", {})
  given = {"sparsity": PENALTIES[activation], "optimiser": OPTIMISER} | fields
  return configs.Group(
    options.Architecture(**form), tuple(members or [member(kind)]), **given
  )


def run(*groups, steps=20, **fields):
  given = {"first_batches": 2, "checkpoint_every": 5, "log_every": 5} | fields
  return configs.TrainConfig(groups or (group(),), steps, **given)


def rows(batch_rows=64, seed=0):
  return SyntheticRows((*IN, *OUT), batch_rows=batch_rows, width=D, seed=seed)


def arrays(dictionary):
  """The arrays of a dictionary, in order."""
  import jax

  return [np.asarray(leaf) for leaf in jax.tree.leaves(dictionary)]


replace = dataclasses.replace
