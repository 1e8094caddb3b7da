"""Options that make no sense are refused, with the remedy."""

import pytest

from gemma_scope.errors import ConfigError
from gemma_scope.training.options import Architecture, Revival, Sparsity


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Architecture(kind="lora"), "kind has no such value"),
    (lambda: Architecture(activation="selu"), "activation has no such value"),
    (lambda: Architecture(width=8, prefixes=(4, 2)), "prefixes rise"),
    (lambda: Architecture(width=8, prefixes=(4, 8)), "stay below the width"),
    (lambda: Architecture(affine_skip=True), "affine skip passes"),
    (lambda: Sparsity(penalty="l2"), "penalty has no such value"),
    (lambda: Sparsity(l0_of="token"), "l0_of has no such value"),
    (lambda: Sparsity(bandwidth=0), "bandwidth is a positive number"),
    (lambda: Revival(aux_k=9, aux_pool=8), "chooses its latents from a pool"),
  ],
)
def test_refusals(make, message):
  with pytest.raises(ConfigError, match=message):
    make()


def test_sizes_end_with_the_width():
  assert Architecture(width=8, prefixes=(2, 4)).sizes == (2, 4, 8)
  assert Architecture(width=8).sizes == (8,)
