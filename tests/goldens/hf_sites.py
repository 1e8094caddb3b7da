"""Every site of a Hugging Face Gemma 3, read with forward hooks in one pass.

Site names are gemma_scope's; the table says which module's input or output each
of them is. `query` and `key` are after QK-norm and RoPE. RoPE is no module:
they are read by wrapping the function that applies it.
"""

from collections.abc import Callable, Iterator
import contextlib

import numpy as np
import torch
from transformers import Gemma3ForCausalLM
from transformers.models.gemma3 import modeling_gemma3

# site -> (submodule of a decoder layer, read its input instead of its output)
LAYER_SITES: dict[str, tuple[str, bool]] = {
  "resid_pre": ("", True),
  "attn_in": ("input_layernorm", False),
  "z": ("self_attn.o_proj", True),
  "attn_proj": ("self_attn.o_proj", False),
  "attn_write": ("post_attention_layernorm", False),
  "resid_mid": ("pre_feedforward_layernorm", True),
  "mlp_in": ("pre_feedforward_layernorm", False),
  "mlp_act": ("mlp.down_proj", True),
  "mlp_proj": ("mlp.down_proj", False),
  "mlp_write": ("post_feedforward_layernorm", False),
  "resid_post": ("", False),
}
HEAD_SITES = ("query", "key", "value")


def _keep(store: list, from_input: bool) -> Callable:
  def hook(_, args, kwargs, output):
    if from_input:
      value = args[0] if args else kwargs["hidden_states"]
    else:
      value = output[0] if isinstance(output, tuple) else output
    store.append(value.detach().float().numpy().copy())

  return hook


def _keep_pattern(store: list) -> Callable:
  def hook(_, args, kwargs, output):
    store.append(output[1].detach().float().numpy().copy())

  return hook


def _joined(heads: torch.Tensor) -> np.ndarray:
  """[batch, heads, seq, head_dim] -> [batch, seq, heads * head_dim]."""
  return heads.detach().float().transpose(1, 2).flatten(2).numpy().copy()


@contextlib.contextmanager
def _rotated(queries: list, keys: list) -> Iterator[None]:
  """Keeps what the function that applies RoPE returns."""
  original = modeling_gemma3.apply_rotary_pos_emb

  def wrapped(*args, **kwargs):
    query, key = original(*args, **kwargs)
    queries.append(_joined(query))
    keys.append(_joined(key))
    return query, key

  modeling_gemma3.apply_rotary_pos_emb = wrapped
  try:
    yield
  finally:
    modeling_gemma3.apply_rotary_pos_emb = original


def forward(
  lm: Gemma3ForCausalLM,
  tokens: np.ndarray,
  mask: np.ndarray,
  patterns: bool = False,
  head_sites: bool = False,
) -> dict[str, np.ndarray]:
  """Runs the model once and returns every site in float32.

  Args:
    lm: The model, with eager attention.
    tokens: [batch, seq] token ids.
    mask: [batch, seq], 1 for tokens and 0 for padding.
    patterns: Return `pattern` too.
    head_sites: Return HEAD_SITES too.

  Returns:
    Layer sites as [layer, batch, seq, width] (heads one after the other),
    `pattern` [layer, batch, heads, seq, seq], `embed` and `final_norm`
    [batch, seq, d_model], `logits` [batch, seq, V].
  """
  table = dict(LAYER_SITES)
  if head_sites:
    table["value"] = ("self_attn.v_proj", False)
  found: dict[str, list[np.ndarray]] = {name: [] for name in table}
  found |= {"embed": [], "final_norm": []}
  if patterns:
    found["pattern"] = []
  hooks = [(lm.model.embed_tokens, _keep(found["embed"], False))]
  hooks.append((lm.model.norm, _keep(found["final_norm"], False)))
  for layer in lm.model.layers:
    for site, (path, from_input) in table.items():
      hooks.append((layer.get_submodule(path), _keep(found[site], from_input)))
    if patterns:
      hooks.append((layer.self_attn, _keep_pattern(found["pattern"])))
  handles = [m.register_forward_hook(h, with_kwargs=True) for m, h in hooks]
  queries: list[np.ndarray] = []
  keys: list[np.ndarray] = []
  try:
    with torch.no_grad(), _rotated(queries, keys):
      output = lm(
        input_ids=torch.from_numpy(tokens),
        attention_mask=torch.from_numpy(mask),
        use_cache=False,
      )
  finally:
    for handle in handles:
      handle.remove()
  arrays = {name: np.stack(values) for name, values in found.items()}
  if head_sites:
    arrays |= {"query": np.stack(queries), "key": np.stack(keys)}
  arrays["embed"] = arrays["embed"][0]
  arrays["final_norm"] = arrays["final_norm"][0]
  arrays["logits"] = output.logits.float().numpy()
  return arrays
