"""A model, edited or not, back to the formats of other libraries.

Layers that surgery added are not weights of Gemma 3 and are not written:
what is saved are the arrays of the model itself.
"""

import os
import pathlib
import tempfile

from gemma_scope.errors import ConfigError
from gemma_scope.model.convert import gemma_to_tensors
from gemma_scope.model.language_model import LanguageModel
from gemma_scope.model.tokenizer_sources import vocabulary_to_proto
from gemma_scope.weights import (
  hugging_face_config,
  write_hugging_face,
  write_orbax,
)
from gemma_scope.weights.folders import new_file

FORMATS = ("huggingface", "orbax")
_TOKENIZER = "tokenizer.model"


def save(
  lm: LanguageModel, folder: str | os.PathLike, *, format: str = "huggingface"
) -> pathlib.Path:
  """Writes a model with its tokenizer; `load` reads either format back.

  Args:
    lm: The model.
    folder: Where; must not exist, or be empty.
    format: "huggingface" (safetensors, for transformers) or "orbax" (the tree
      of the official `gemma` package).

  Returns:
    The folder.

  Raises:
    ConfigError: If there is no such format.
    CheckpointError: If the folder is not empty.
  """
  if format not in FORMATS:
    raise ConfigError(
      "There is no such checkpoint format to write.",
      received=f"format={format!r}",
      instead=" or ".join(f'format="{name}"' for name in FORMATS),
    )
  tensors = gemma_to_tensors(lm.model)
  proto = vocabulary_to_proto(lm.tokenizer.vocabulary)
  if format == "orbax":
    path = pathlib.Path(write_orbax(folder, tensors))
    with new_file(path / _TOKENIZER) as file:
      file.write(proto)
    return path
  c = lm.config
  config = hugging_face_config(
    c.sizes,
    query_scalar=c.query_scalar,
    window=c.window,
    rope_factor=c.rope_factor,
    max_context=c.max_context,
  )
  with tempfile.TemporaryDirectory() as scratch:
    tokenizer = pathlib.Path(scratch) / _TOKENIZER
    tokenizer.write_bytes(proto)
    return write_hugging_face(folder, tensors, config, tokenizer=tokenizer)
