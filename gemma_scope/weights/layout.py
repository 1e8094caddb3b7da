"""Between Hugging Face's [out, in] matrices and the canonical arrays.

Safetensors and GGUF files hold every projection as one matrix [out, in], keys
and values apart, gate and up apart. The canonical arrays split the heads and
stack the pairs. Names here are Hugging Face's without their prefix, such as
"layers.0.self_attn.q_proj.weight". All joins are views where numpy allows.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import re

import numpy as np

from gemma_scope import errors
from gemma_scope.weights import catalog, checkpoint

EMBED_TOKENS = "embed_tokens.weight"
_FINAL_NORM = "norm.weight"
_Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Piece:
  """How one canonical array is made of matrices.

  Attributes:
    parts: The matrices' names within their layer; all have one shape.
    shape: The canonical array's shape -> the shape of each matrix.
    join: (matrices, head_dim) -> the canonical array.
    split: The canonical array -> the matrices.
  """

  parts: tuple[str, ...]
  shape: Callable[[_Shape], _Shape]
  join: Callable[[Sequence[np.ndarray], int], np.ndarray]
  split: Callable[[np.ndarray], tuple[np.ndarray, ...]]


def _split_heads(matrix: np.ndarray, head_dim: int) -> np.ndarray:
  """[N*H, D] -> [N, D, H]."""
  heads = matrix.reshape(-1, head_dim, matrix.shape[-1])
  return heads.transpose(0, 2, 1)


def _join_heads(array: np.ndarray) -> np.ndarray:
  """[N, D, H] -> [N*H, D]."""
  return array.transpose(0, 2, 1).reshape(-1, array.shape[1])


def _same(name: str) -> _Piece:
  return _Piece(
    (name,), lambda s: s, lambda parts, _: parts[0], lambda array: (array,)
  )


_QUERY = _Piece(
  ("self_attn.q_proj.weight",),
  lambda s: (s[0] * s[2], s[1]),
  lambda parts, width: _split_heads(parts[0], width),
  lambda array: (_join_heads(array),),
)
_KEY_VALUE = _Piece(
  ("self_attn.k_proj.weight", "self_attn.v_proj.weight"),
  lambda s: (s[1] * s[3], s[2]),
  lambda parts, width: np.stack([_split_heads(p, width) for p in parts]),
  lambda array: tuple(_join_heads(half) for half in array),
)
_ATTENTION_OUT = _Piece(
  ("self_attn.o_proj.weight",),
  lambda s: (s[2], s[0] * s[1]),
  lambda parts, width: parts[0].T.reshape(-1, width, parts[0].shape[0]),
  lambda array: (array.reshape(-1, array.shape[-1]).T,),
)
_GATE_UP = _Piece(
  ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
  lambda s: s[1:],
  lambda parts, _: np.stack(parts),
  lambda array: (array[0], array[1]),
)
_DOWN = _Piece(
  ("mlp.down_proj.weight",),
  lambda s: (s[1], s[0]),
  lambda parts, _: parts[0].T,
  lambda array: (array.T,),
)
_WHOLE = {
  checkpoint.EMBEDDING: _same(EMBED_TOKENS),
  checkpoint.FINAL_NORM: _same(_FINAL_NORM),
}
_OF_LAYER = {
  "pre_attention_norm/scale": _same("input_layernorm.weight"),
  "attn/q_einsum/w": _QUERY,
  "attn/kv_einsum/w": _KEY_VALUE,
  "attn/_query_norm/scale": _same("self_attn.q_norm.weight"),
  "attn/_key_norm/scale": _same("self_attn.k_norm.weight"),
  "attn/attn_vec_einsum/w": _ATTENTION_OUT,
  "post_attention_norm/scale": _same("post_attention_layernorm.weight"),
  "pre_ffw_norm/scale": _same("pre_feedforward_layernorm.weight"),
  "mlp/gating_einsum": _GATE_UP,
  "mlp/linear": _DOWN,
  "post_ffw_norm/scale": _same("post_feedforward_layernorm.weight"),
}


def _piece(canonical: str) -> tuple[_Piece, tuple[str, ...]]:
  """The piece of a canonical name, and the full names of its matrices."""
  if canonical in _WHOLE:
    return _WHOLE[canonical], _WHOLE[canonical].parts
  layer, _, name = canonical.partition("/")
  prefix = f"layers.{layer.removeprefix('layer_')}."
  piece = _OF_LAYER[name]
  return piece, tuple(prefix + part for part in piece.parts)


def matrix_shapes(canonical: str, shape: _Shape) -> dict[str, _Shape]:
  """The matrices behind one canonical array, without reading it.

  Args:
    canonical: A canonical name.
    shape: Its canonical shape.

  Returns:
    Name without prefix -> shape, in the order of `canonical_to_matrices`.
  """
  piece, names = _piece(canonical)
  return {name: piece.shape(shape) for name in names}


def canonical_to_matrices(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Canonical arrays -> Hugging Face's matrices, without a prefix.

  Args:
    tensors: Canonical name -> array.

  Returns:
    Name -> matrix, views where numpy allows; the dtypes are kept.
  """
  matrices = {}
  for canonical, array in tensors.items():
    piece, names = _piece(canonical)
    matrices.update(zip(names, piece.split(np.asarray(array)), strict=True))
  return matrices


def matrices_to_canonical(
  matrices: Mapping[str, checkpoint.LazyTensor], source: str
) -> dict[str, checkpoint.LazyTensor]:
  """Hugging Face's matrices -> canonical tensors, all of them lazy.

  Args:
    matrices: Name without prefix -> matrix. A vocabulary padded past
      Gemma's 262,144 rows is cut.
    source: What to call the checkpoint in an error.

  Returns:
    Canonical name -> tensor; complete and shape-consistent.

  Raises:
    CheckpointError: a matrix is missing, unknown, or of the wrong shape.
  """
  matrices = dict(matrices)
  if EMBED_TOKENS in matrices:
    matrices[EMBED_TOKENS] = _without_padding(matrices[EMBED_TOKENS])
  sizes = _matrix_sizes(matrices, source)
  tensors = {}
  for canonical, shape in checkpoint.canonical_shapes(sizes).items():
    expected = matrix_shapes(canonical, shape)
    parts = [_take(matrices, source, *row) for row in expected.items()]
    dtype = np.result_type(*(part.dtype for part in parts))
    piece, _ = _piece(canonical)
    read = functools.partial(_read, piece, parts, sizes.head_dim)
    tensors[canonical] = checkpoint.LazyTensor(shape, dtype, read)
  if matrices:
    names = checkpoint.shortened(list(matrices))
    raise _incomplete(source, f"unknown tensors {names}")
  return tensors


def _take(
  matrices: dict[str, checkpoint.LazyTensor],
  source: str,
  name: str,
  shape: _Shape,
) -> checkpoint.LazyTensor:
  """Removes and returns a matrix, checked."""
  found = matrices.pop(name, None)
  if found is None:
    raise _incomplete(source, f"{name} is missing")
  if found.shape != shape:
    raise _incomplete(source, f"{name} is {found.shape}, not {shape}")
  return found


def _read(
  piece: _Piece, parts: Sequence[checkpoint.LazyTensor], head_dim: int
) -> np.ndarray:
  return piece.join([part.read() for part in parts], head_dim)


def _without_padding(table: checkpoint.LazyTensor) -> checkpoint.LazyTensor:
  """Cuts the rows that no token id uses (multimodal checkpoints pad)."""
  rows, *rest = table.shape
  if rows <= catalog.VOCABULARY:
    return table
  return checkpoint.LazyTensor(
    (catalog.VOCABULARY, *rest),
    table.dtype,
    lambda: table.read()[: catalog.VOCABULARY],
  )


def _matrix_sizes(
  matrices: Mapping[str, checkpoint.LazyTensor], source: str
) -> checkpoint.Sizes:
  attention = "layers.0.self_attn."
  try:
    (head_dim,) = matrices[attention + "q_norm.weight"].shape
    q_width, _ = matrices[attention + "q_proj.weight"].shape
    kv_width, _ = matrices[attention + "k_proj.weight"].shape
    d_ff, _ = matrices["layers.0.mlp.gate_proj.weight"].shape
    vocabulary, d_model = matrices[EMBED_TOKENS].shape
  except (KeyError, ValueError) as error:
    raise _incomplete(source, f"no usable {error}") from error
  layers = {m[1] for n in matrices if (m := re.match(r"layers\.(\d+)\.", n))}
  return checkpoint.Sizes(
    num_layers=len(layers),
    num_heads=q_width // head_dim,
    num_kv_heads=kv_width // head_dim,
    head_dim=head_dim,
    d_model=d_model,
    d_ff=d_ff,
    vocabulary=vocabulary,
  )


def _incomplete(source: str, found: str) -> errors.CheckpointError:
  return errors.CheckpointError(
    "The tensors are not those of a complete Gemma 3 text model.",
    received=f"{source}: {found}",
    instead="the whole checkpoint; a partial download looks like this",
  )
