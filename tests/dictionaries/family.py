"""The rows of the family's table: every kind with every activation."""

from gemma_scope.dictionaries.activations import ACTIVATIONS
from gemma_scope.testing import dictionaries as make

SINGLE = {
  f"sae {name}": lambda name=name, **o: make.random_sae(name, **o)
  for name in ACTIVATIONS
} | {
  "sae of z": lambda **o: make.random_sae(site="z", **o),
  "sae of mlp_act": lambda **o: make.random_sae(site="mlp_act", **o),
  "transcoder": make.random_transcoder,
  "affine transcoder": lambda **o: make.random_transcoder(affine=True, **o),
}
LAYERED = {
  "clt": make.random_cross_layer,
  "affine clt": lambda **o: make.random_cross_layer(affine=True, **o),
  "clt batch_top_k": lambda **o: make.random_cross_layer("batch_top_k", **o),
  "weakly causal crosscoder": lambda **o: make.random_cross_layer(
    kind="crosscoder", **o
  ),
  "dense cross-layer crosscoder": lambda **o: make.random_cross_layer(
    kind="crosscoder", causal=False, **o
  ),
}
SHARED = {
  "crosscoder": make.random_crosscoder,
  "crosscoder gated": lambda **o: make.random_crosscoder("gated", **o),
}
FAMILY = SINGLE | LAYERED | SHARED
