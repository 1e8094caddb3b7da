"""What a dictionary makes of a forward pass, in the form that metrics take.

A dictionary takes [rows, seq, d], or with several sites [site, rows, seq, d];
its latents have a layer in front only where each layer has its own. Metrics see
both axes always.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gemma_scope.dictionaries.prefixes import decode_prefix
from gemma_scope.dictionaries.protocol import Dictionary, Layered
from gemma_scope.evals.dictionaries.protocol import Seen
from gemma_scope.evals.dictionaries.run import Run

Latents = Float[Array, "parts rows seq latents"]
Vectors = Float[Array, "sites rows seq d"]


def see(run: Run, dictionary: Dictionary) -> Seen:
  """Encodes and rebuilds what a run recorded.

  Args:
    run: A pass that recorded the sites of the dictionary.
    dictionary: The dictionary.
  """
  x, target = (
    run.values(sites) for sites in (dictionary.sites_in, dictionary.sites_out)
  )
  given = x if len(x) > 1 else x[0]
  latents = dictionary.encode(given)
  rebuilt = dictionary.rebuild(latents, given)
  return Seen(
    dictionary=dictionary,
    x=x,
    target=target,
    latents=_in_front(latents),
    rebuilt=_in_front(rebuilt),
    counted=run.counted,
    run=run,
  )


def decoded(
  dictionary: Dictionary, latents: Latents, size: int | None = None
) -> Vectors:
  """What latents say, bias included.

  Args:
    dictionary: The dictionary.
    latents: All of them, as in `Seen`.
    size: How many of the first to use; None for all.
  """
  own = isinstance(dictionary, Layered) and len(dictionary.sites_in) > 1
  plain = latents if own else latents[0]
  if size is None:
    return _in_front(dictionary.decode(plain))
  return _in_front(decode_prefix(dictionary, plain, size))


def _in_front(values: Array) -> Array:
  """With an axis for the site or layer."""
  return values if values.ndim == 4 else jnp.asarray(values)[None]
