"""Sparse dictionaries: SAEs, transcoders, crosscoders and CLTs.

    sae = gs.dictionaries.load(
      "gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium"
    )
    latents = sae.encode(acts["resid_post[12]"])

`load` takes published names, names of the suite that comes with the package
(`starter`), and folders in the layouts of Gemma Scope 1 and 2, SAELens and
circuit-tracer; `list` searches what is published; `check` measures a dictionary
on text.
"""

from gemma_scope.dictionaries.activations import BatchTopK as BatchTopK
from gemma_scope.dictionaries.activations import Gated as Gated
from gemma_scope.dictionaries.activations import JumpRelu as JumpRelu
from gemma_scope.dictionaries.activations import Relu as Relu
from gemma_scope.dictionaries.activations import TopK as TopK
from gemma_scope.dictionaries.activations import (
  batch_top_k_to_jump_relu as batch_top_k_to_jump_relu,
)
from gemma_scope.dictionaries.arrays import place as place
from gemma_scope.dictionaries.calibration import calibrated as calibrated
from gemma_scope.dictionaries.checking import Checked as Checked
from gemma_scope.dictionaries.checking import check as check
from gemma_scope.dictionaries.circuit_tracer_writer import (
  dictionaries_to_circuit_tracer as dictionaries_to_circuit_tracer,
)
from gemma_scope.dictionaries.cross_layer import CrossLayer as CrossLayer
from gemma_scope.dictionaries.cross_layer import LayerPart as LayerPart
from gemma_scope.dictionaries.crosscoder import Crosscoder as Crosscoder
from gemma_scope.dictionaries.examples import load_examples as load_examples
from gemma_scope.dictionaries.examples import read_examples as read_examples
from gemma_scope.dictionaries.folding import fold_input_bias as fold_input_bias
from gemma_scope.dictionaries.folding import (
  fold_input_scale as fold_input_scale,
)
from gemma_scope.dictionaries.folding import to_jump_relu as to_jump_relu
from gemma_scope.dictionaries.gemma_scope_1 import (
  refuse_gemma_2 as refuse_gemma_2,
)
from gemma_scope.dictionaries.gemma_scope_2_writer import (
  dictionary_to_gemma_scope_2 as dictionary_to_gemma_scope_2,
)
from gemma_scope.dictionaries.latent_table import LatentTable as LatentTable
from gemma_scope.dictionaries.loading import load as load
from gemma_scope.dictionaries.own_format import (
  dictionary_to_folder as dictionary_to_folder,
)
from gemma_scope.dictionaries.own_format import int8_loss as int8_loss
from gemma_scope.dictionaries.prefixes import decode_prefix as decode_prefix
from gemma_scope.dictionaries.prefixes import (
  decode_prefixes as decode_prefixes,
)
from gemma_scope.dictionaries.prefixes import prefix as prefix
from gemma_scope.dictionaries.prefixes import with_prefixes as with_prefixes
from gemma_scope.dictionaries.protocol import About as About
from gemma_scope.dictionaries.protocol import Dictionary as Dictionary
from gemma_scope.dictionaries.protocol import LatentAddress as LatentAddress
from gemma_scope.dictionaries.protocol import Layered as Layered
from gemma_scope.dictionaries.published import Published as Published
from gemma_scope.dictionaries.published import lookup as lookup
from gemma_scope.dictionaries.published import published as list  # noqa: F401
from gemma_scope.dictionaries.quality import Quality as Quality
from gemma_scope.dictionaries.quality import quality as quality
from gemma_scope.dictionaries.sae import Sae as Sae
from gemma_scope.dictionaries.saelens_writer import (
  dictionary_to_saelens as dictionary_to_saelens,
)
from gemma_scope.dictionaries.sparse import decode_sparsely as decode_sparsely
from gemma_scope.dictionaries.suite import Suite as Suite
from gemma_scope.dictionaries.suite import open_suite as open_suite
from gemma_scope.dictionaries.suite import starter as starter
from gemma_scope.dictionaries.suite_writer import pack_suite as pack_suite
from gemma_scope.dictionaries.transcoder import Transcoder as Transcoder
