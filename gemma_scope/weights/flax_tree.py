"""Between the containers of Flax checkpoints and canonical names.

Four containers hold the same arrays: NESTED (the tree of the official `gemma`
package), FLAT (keys such as "transformer/layer_0/attn/_key_norm"), STACKED
("transformer/stacked_layers/attention_type_{k}/…" with a leading axis of
periods, layer = period * P + k), and a training state with the tree under
"params". Arrays are never touched here, only names. Vision parts are skipped.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any

_STACKED = re.compile(r"stacked_layers/attention_type_(\d+)/(.+)")
_NOT_TEXT = ("vision_encoder/", "SigLiPFromPatches_0/", "embedder/mm_")
_MLP = ("mlp/gating_einsum/w", "mlp/linear/w")


def canonical_to_flax_tree(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """The nested parameter tree of the official `gemma` package.

  Args:
    tensors: Canonical name -> array.

  Returns:
    {"layer_0": {"attn": {"q_einsum": {"w": array}, …}, …}, …}, ready for
    `model.apply({"params": tree}, …)`.
  """
  tree: dict[str, Any] = {}
  for name, array in tensors.items():
    *path, leaf = name.split("/")
    node = tree
    for part in path:
      node = node.setdefault(part, {})
    node[leaf] = array
  return tree


def flax_tree_to_leaves(
  tree: Mapping[str, Any],
) -> dict[str, tuple[tuple[str, ...], Any]]:
  """Any of the four containers -> its text leaves, under canonical names.

  Args:
    tree: A tree of dicts; its leaves are not looked into.

  Returns:
    Canonical name -> (keys from the root of `tree`, leaf); a stacked leaf
    appears once, under a name such as
    "stacked_layers/attention_type_0/attn/q_einsum/w".
  """
  state = isinstance(tree.get("params"), Mapping)
  root = ("params",) if state else ()
  leaves = {}
  for keys, leaf in _flatten(tree["params"] if state else tree):
    bare = "/".join(keys).removeprefix("transformer/")
    if not bare.startswith(_NOT_TEXT):
      name = bare.removesuffix("/w") if bare.endswith(_MLP) else bare
      leaves[name] = ((*root, *keys), leaf)
  return leaves


def unstack_names(
  lengths: Mapping[str, int],
) -> dict[str, tuple[str, int | None]]:
  """Where each canonical tensor lies.

  Args:
    lengths: Name of a leaf -> length of its first axis.

  Returns:
    Canonical name -> (name of the leaf, index into its first axis or None for
    the whole leaf).
  """
  stacked = {n: m for n in lengths if (m := _STACKED.fullmatch(n))}
  period = 1 + max((int(m[1]) for m in stacked.values()), default=0)
  places: dict[str, tuple[str, int | None]] = {}
  for name, length in lengths.items():
    if name not in stacked:
      places[name] = (name, None)
      continue
    place, rest = int(stacked[name][1]), stacked[name][2]
    for index in range(length):
      layer = index * period + place
      places[f"layer_{layer}/{rest}"] = (name, index)
  return places


def _flatten(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      for keys, leaf in _flatten(value):
        yield (str(key), *keys), leaf
    else:
      yield (str(key),), value
