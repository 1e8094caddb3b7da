"""The parameter-randomisation sanity check.

Layers are replaced by random ones, from the top down, and the attributions of
the ruined model are compared with those of the real one. An explanation of the
model has to change; one that stays similar explains the prompt. Source: Adebayo
et al. 2018, "Sanity Checks for Saliency Maps", section 3.1 (cascading).

Each array of a layer becomes a draw from a normal distribution of its own mean
and spread, so that activations keep their scale; embeddings stay. Compared are
the ranks of token scores (Spearman), as they are and without their signs. That
scores change is necessary, not sufficient: random scores pass.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.tokens import Input
from gemma_scope.attribution.objectives import Target, logit
from gemma_scope.bootstrap import Interval, bootstrap_mean
from gemma_scope.display import table_html
from gemma_scope.errors import ConfigError
from gemma_scope.evals import ranks
from gemma_scope.evals.groups import Group, to_groups
from gemma_scope.evals.scores import token_scores
from gemma_scope.model.block import Block
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel

Progress = Callable[[str, float | None], None]
KINDS = ("signed", "absolute")


@dataclasses.dataclass(frozen=True, repr=False)
class Randomisation:
  """Similarity to the real model's attributions as layers are randomised.

  Attributes:
    layers: How many layers from the top are random at each step.
    values: Method -> "signed" or "absolute" -> [steps, prompts] Spearman
      correlation with the real model's scores; NaN where scores are constant.
  """

  layers: tuple[int, ...]
  values: Mapping[str, Mapping[str, np.ndarray]]

  def interval(self, method: str, step: int, kind: str = "signed") -> Interval:
    """The mean over prompts at one step, with its bootstrap interval."""
    return bootstrap_mean(self.values[method][kind][step])

  def to_dict(self) -> dict[str, Any]:
    """Steps and intervals as JSON values."""
    steps = range(len(self.layers))
    return {
      "layers": list(self.layers),
      "numbers": {
        method: {
          kind: [self.interval(method, s, kind).to_dict() for s in steps]
          for kind in KINDS
        }
        for method in self.values
      },
    }

  def _repr_html_(self) -> str:
    rows = [
      [m, *(str(self.interval(m, s)) for s in range(len(self.layers)))]
      for m in self.values
    ]
    head = ["method", *(f"top {count} random" for count in self.layers)]
    title = "Spearman with the real model's attributions"
    return table_html(head, rows, title=title)


def randomisation_check(
  lm: LanguageModel,
  prompts: Input,
  target: Target | str | int,
  *,
  methods: Iterable[str],
  layers: Sequence[int] | None = None,
  method_options: Mapping[str, Any] | None = None,
  seed: int = 0,
  progress: Progress | None = None,
) -> Randomisation:
  """Compares attributions while layers are randomised from the top.

  Args:
    lm: The model.
    prompts: Text, texts or token ids.
    target: What is explained.
    methods: Names of attribution methods.
    layers: How many layers from the top are random, one step each; by default
      six steps to all of them.
    method_options: Method -> its options.
    seed: Seed of the random weights.
    progress: Called with a label and the share done.
  """
  count = lm.config.num_layers
  if layers is None:
    layers = sorted({round(count * i / 6) for i in range(1, 7)} - {0})
  target = target if isinstance(target, Target) else logit(target)
  _, groups = to_groups(lm, prompts, target)
  names = tuple(methods)
  report = progress or (lambda _label, _share: None)

  def scores(model: Gemma, name: str) -> tuple[np.ndarray, ...]:
    chosen = (method_options or {}).get(name)
    changed = lm.replace(model)
    return tuple(token_scores(changed, g, name, chosen) for g in groups)

  real = {name: scores(lm.model, name) for name in names}
  total = sum(group.size for group in groups)
  shape = (len(layers), total)
  values = {n: {k: np.full(shape, np.nan) for k in KINDS} for n in names}
  for step, top in enumerate(layers):
    model = randomise_top(lm.model, top, seed=seed)
    for name in names:
      report(f"{name}, top {top} layers random", step / len(layers))
      found = scores(model, name)
      for i, group in enumerate(groups):
        both = _correlations(group, real[name][i], found[i])
        for kind in KINDS:
          values[name][kind][step, group.index] = both[kind]
  return Randomisation(tuple(layers), values)


def _correlations(
  group: Group, real: np.ndarray, found: np.ndarray
) -> dict[str, np.ndarray]:
  """[prompts] Spearman over each prompt's candidates, by kind."""
  rows = [
    (a[here], b[here]) for a, b, here in zip(real, found, group.candidates)
  ]
  return {
    "signed": np.asarray([ranks.spearman(a, b) for a, b in rows]),
    "absolute": np.asarray(
      [ranks.spearman(np.abs(a), np.abs(b)) for a, b in rows]
    ),
  }


def randomise_top(model: Gemma, count: int, *, seed: int = 0) -> Gemma:
  """A model whose last layers have random weights of the same spread.

  A layer's weights depend on its place and the seed alone, so that larger
  counts randomise the same layers in the same way.

  Args:
    model: The model.
    count: How many layers from the top.
    seed: Seed of the weights.

  Raises:
    ConfigError: If the model has not so many layers.
  """
  stack = model.stack
  if not 0 <= count <= stack.num_layers:
    raise ConfigError(
      "The model has not so many layers to randomise.",
      received=f"{count} of {stack.num_layers} layers",
      instead=f"a number from 0 to {stack.num_layers}",
    )
  first = stack.num_layers - count
  size, scanned = len(stack.period), len(stack.period) * stack.num_periods
  key = jax.random.key(seed)
  period = tuple(
    _random_block(block, range(place, scanned, size), first, key)
    for place, block in enumerate(stack.period)
  )
  rest = tuple(
    _random_block(block, range(scanned + i, scanned + i + 1), first, key)
    for i, block in enumerate(stack.rest)
  )
  stack = dataclasses.replace(stack, period=period, rest=rest)
  return dataclasses.replace(model, stack=stack)


def _random_block(
  block: Block, layers: range, first: int, key: jax.Array
) -> Block:
  """A block in which the layers from `first` on are random.

  Args:
    block: One layer, or several along an axis `layer`.
    layers: The decoder layers it stands for.
    first: The first random layer.
    key: The seed.
  """
  chosen = np.asarray([layer >= first for layer in layers])
  if not chosen.any():
    return block
  leaves, tree = jax.tree.flatten(block, is_leaf=pz.nx.is_namedarray)
  changed = []
  for i, leaf in enumerate(leaves):
    if not isinstance(leaf, pz.nx.NamedArray):
      changed.append(leaf)
      continue
    names = tuple(leaf.named_axes)
    data = leaf.unwrap(*names)
    stacked = names[:1] == (axes.LAYER,)
    rows = data if stacked else data[None]
    keys = jnp.stack(
      [jax.random.fold_in(jax.random.fold_in(key, n), i) for n in layers]
    )
    drawn = _random_rows(rows, jnp.asarray(chosen), keys)
    changed.append(pz.nx.wrap(drawn if stacked else drawn[0], *names))
  return jax.tree.unflatten(tree, changed)


@jax.jit
def _random_rows(rows: Array, chosen: Array, keys: Array) -> Array:
  """Chosen rows replaced by normal draws of the same mean and spread."""

  def one(row: Array, key: Array) -> Array:
    wide = row.astype(jnp.float32)
    noise = jax.random.normal(key, row.shape)
    return (wide.mean() + wide.std() * noise).astype(row.dtype)

  mask = chosen.reshape(-1, *(1,) * (rows.ndim - 1))
  return jnp.where(mask, jax.vmap(one)(rows, keys), rows)
