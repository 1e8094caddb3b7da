"""Goldens of small random models of all five shapes, from Hugging Face.

Runs in an environment with torch and transformers, from the repository's root:

    python -m tests.goldens.hugging_face_shapes OUT [--full FOLDER]

OUT receives hugging_face_shapes.npz and hugging_face_shapes_bf16.json; --full
receives the complete float32 tensors. Weights and inputs are those of
shapes.py, converted to Hugging Face's layout here. Keys, for every shape NAME:

    NAME/fingerprint       of the weights, see shapes.fingerprint
    NAME/sketch/{site}     [L, 2, 40, 9] ([2, 40, 9] for embed, final_norm)
    NAME/full/{site}       [L, 2, width] at (row 0, position 39) and (1, 26);
                           not for query, key, value, nor where width > 512
    NAME/pattern           [2, heads, 5, 40]: layers 4 (local) and 5 (global)
                           of row 0, queries 0, 15, 16, 17 and 39
    NAME/logits            [4, 512] at (0, 16), (0, 39), (1, 16), (1, 26)
    NAME/argmax            [2, 40]
    manifest               versions and settings, as JSON text

Padding positions hold zeros. The json holds Hugging Face's own bfloat16 error
on the same models, in the format of hugging_face_bf16.json: compare a
bfloat16 run with it, random weights being harsher than trained ones.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from tests.goldens import hf_sites, shapes, sketch
from tests.goldens.hf_error import difference, summary, to_bfloat16

FULL_POSITIONS = ((0, 1), (39, 26))
LOGIT_POSITIONS = ((0, 0, 1, 1), (16, 39, 16, 26))
PATTERN_LAYERS = (4, 5)
PATTERN_QUERIES = (0, 15, 16, 17, 39)
UNSTORED = {"pattern", "logits", "resid_pre"}


def model(name: str) -> Gemma3ForCausalLM:
  """The model `name` of shapes.SHAPES, float32, eager attention."""
  shape = shapes.SHAPES[name]
  linear = {"rope_type": "linear", "factor": shape.rope_factor}
  lm = Gemma3ForCausalLM(
    Gemma3TextConfig(
      vocab_size=shape.vocab_size,
      hidden_size=shape.d_model,
      intermediate_size=shape.d_ff,
      num_hidden_layers=shape.num_layers,
      num_attention_heads=shape.num_heads,
      num_key_value_heads=shape.num_kv_heads,
      head_dim=shape.head_dim,
      query_pre_attn_scalar=int(shape.query_scalar),
      sliding_window=shape.window,
      rope_parameters={
        "full_attention": linear | {"rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
      },
      attn_implementation="eager",
    )
  )
  converted = hugging_face_weights(shapes.weights(name), shape)
  lm.load_state_dict(
    {key: torch.from_numpy(value.copy()) for key, value in converted.items()}
  )
  lm.tie_weights()
  return lm.eval()


def hugging_face_weights(
  canonical: dict[str, np.ndarray], shape: shapes.Shape
) -> dict[str, np.ndarray]:
  """Canonical names and layouts to those of `transformers`."""
  embedding = canonical["embedder/input_embedding"]
  out = {
    "model.embed_tokens.weight": embedding,
    "lm_head.weight": embedding,
    "model.norm.weight": canonical["final_norm/scale"],
  }
  for i in range(shape.num_layers):
    prefix = f"layer_{i}/"
    layer = {
      key.removeprefix(prefix): value
      for key, value in canonical.items()
      if key.startswith(prefix)
    }
    for key, value in hugging_face_layer(layer).items():
      out[f"model.layers.{i}.{key}"] = value
  return out


def hugging_face_layer(layer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """One decoder layer in Hugging Face's names and layouts."""

  def rows(value: np.ndarray) -> np.ndarray:
    """[heads, d_model, head_dim] -> [heads * head_dim, d_model]."""
    return value.transpose(0, 2, 1).reshape(-1, value.shape[1])

  key, value = layer["attn/kv_einsum/w"]
  gate, up = layer["mlp/gating_einsum"]
  output = layer["attn/attn_vec_einsum/w"]
  return {
    "self_attn.q_proj.weight": rows(layer["attn/q_einsum/w"]),
    "self_attn.k_proj.weight": rows(key),
    "self_attn.v_proj.weight": rows(value),
    "self_attn.o_proj.weight": output.reshape(-1, output.shape[-1]).T,
    "self_attn.q_norm.weight": layer["attn/_query_norm/scale"],
    "self_attn.k_norm.weight": layer["attn/_key_norm/scale"],
    "mlp.gate_proj.weight": gate,
    "mlp.up_proj.weight": up,
    "mlp.down_proj.weight": layer["mlp/linear"].T,
    "input_layernorm.weight": layer["pre_attention_norm/scale"],
    "post_attention_layernorm.weight": layer["post_attention_norm/scale"],
    "pre_feedforward_layernorm.weight": layer["pre_ffw_norm/scale"],
    "post_feedforward_layernorm.weight": layer["post_ffw_norm/scale"],
  }


def goldens(
  sites: dict[str, np.ndarray], mask: np.ndarray
) -> dict[str, np.ndarray]:
  """What is stored of one shape."""
  rows, columns = map(np.array, FULL_POSITIONS)
  out = {}
  for site, value in sites.items():
    if site in UNSTORED:
      continue
    keep = mask[..., None].astype(np.float32)
    out[f"sketch/{site}"] = sketch.sketch(value) * keep
    if value.shape[-1] <= 512 and site not in hf_sites.HEAD_SITES:
      out[f"full/{site}"] = value[..., rows, columns, :]
  pattern = sites["pattern"][list(PATTERN_LAYERS), 0]
  out["pattern"] = pattern[:, :, list(PATTERN_QUERIES)]
  out["logits"] = sites["logits"][tuple(map(np.array, LOGIT_POSITIONS))]
  out["argmax"] = (sites["logits"].argmax(-1) * mask).astype(np.int32)
  return out


def main() -> None:
  """Writes all goldens of this script."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=Path)
  parser.add_argument("--full", type=Path)
  options = parser.parse_args()
  versions = {
    name: importlib.metadata.version(name)
    for name in ("torch", "transformers", "numpy")
  }
  stored = {"manifest": json.dumps(versions | {"attention": "eager"})}
  bfloat16: dict = {"manifest": versions}
  for name in shapes.SHAPES:
    tokens, mask = shapes.inputs(name)
    lm = model(name)
    truth = hf_sites.forward(lm, tokens, mask, patterns=True, head_sites=True)
    stored[f"{name}/fingerprint"] = shapes.fingerprint(shapes.weights(name))
    for key, value in goldens(truth, mask).items():
      stored[f"{name}/{key}"] = value
    if options.full:
      np.savez(options.full / f"shape_{name}.npz", **truth)
    found = hf_sites.forward(to_bfloat16(lm), tokens, mask)
    bfloat16[name] = {"sites": summary([difference(found, truth, mask)])}
  np.savez_compressed(options.out / "hugging_face_shapes.npz", **stored)
  path = options.out / "hugging_face_shapes_bf16.json"
  path.write_text(json.dumps(bfloat16, indent=1) + "\n")


if __name__ == "__main__":
  main()
