"""An SAE or a transcoder from its arrays, whichever its description says."""

from penzai import pz

from gemma_scope.dictionaries.activations import Activation
from gemma_scope.dictionaries.protocol import About
from gemma_scope.dictionaries.sae import Sae
from gemma_scope.dictionaries.transcoder import Transcoder

Pair = tuple[pz.nx.NamedArray, pz.nx.NamedArray]


def single_layer(
  about: About,
  *,
  encoder: Pair,
  decoder: Pair,
  activation: Activation,
  b_in: pz.nx.NamedArray | None = None,
  skip: pz.nx.NamedArray | None = None,
) -> Sae | Transcoder:
  """Builds what `about.kind` names.

  Args:
    about: Kind, sites and origin; kind is "sae" or "transcoder".
    encoder: w_enc {input, latents} and b_enc {latents}.
    decoder: w_dec {latents, output} and b_dec {output}.
    activation: From products to latents.
    b_in: {input}, taken off before encoding.
    skip: {input, output}, of a transcoder.
  """
  w_enc, b_enc = encoder
  w_dec, b_dec = decoder
  if about.kind == "sae":
    return Sae(
      w_enc=w_enc,
      b_enc=b_enc,
      w_dec=w_dec,
      b_dec=b_dec,
      activation=activation,
      b_in=b_in,
      about=about,
    )
  return Transcoder(
    w_enc=w_enc,
    b_enc=b_enc,
    w_dec=w_dec,
    b_dec=b_dec,
    activation=activation,
    b_in=b_in,
    about=about,
    skip=skip,
  )
