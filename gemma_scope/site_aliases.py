"""What other tools call our sites, and which of their names are traps.

One flat table a tool, `{L}` for the layer: Hugging Face module paths (they are
also nnsight's, SAELens's hf_hook_name and the hook points in Gemma Scope 2's
config.json), TransformerLens hooks (SAELens's hook_name), Gemma Scope 2
folders. A name of a tensor that has no site, or of different tensors in
different tools, is refused with the candidates. The tables hold for Gemma 3
alone: on another architecture the same hook can sit elsewhere.
"""

import difflib
import re

from gemma_scope import errors, sites

HUGGING_FACE: dict[str, str] = {
  "model.embed_tokens.output": "embed",
  "hidden_states[0]": "embed",
  "model.layers.{L}.input": "resid_pre",
  "model.layers.{L}.input_layernorm.input": "resid_pre",
  "model.layers.{L}.input_layernorm.output": "attn_in",
  "model.layers.{L}.self_attn.input": "attn_in",
  "model.layers.{L}.self_attn.q_proj.input": "attn_in",
  "model.layers.{L}.self_attn.k_proj.input": "attn_in",
  "model.layers.{L}.self_attn.v_proj.input": "attn_in",
  "model.layers.{L}.self_attn.v_proj.output": "value",
  "attentions[{L}]": "pattern",
  "model.layers.{L}.self_attn.o_proj.input": "z",
  "model.layers.{L}.self_attn.o_proj.output": "attn_proj",
  "model.layers.{L}.self_attn.output": "attn_proj",
  "model.layers.{L}.post_attention_layernorm.input": "attn_proj",
  "model.layers.{L}.post_attention_layernorm.output": "attn_write",
  "model.layers.{L}.pre_feedforward_layernorm.input": "resid_mid",
  "model.layers.{L}.pre_feedforward_layernorm.output": "mlp_in",
  "model.layers.{L}.mlp.input": "mlp_in",
  "model.layers.{L}.mlp.gate_proj.input": "mlp_in",
  "model.layers.{L}.mlp.up_proj.input": "mlp_in",
  "model.layers.{L}.mlp.down_proj.input": "mlp_act",
  "model.layers.{L}.mlp.down_proj.output": "mlp_proj",
  "model.layers.{L}.mlp.output": "mlp_proj",
  "model.layers.{L}.post_feedforward_layernorm.input": "mlp_proj",
  "model.layers.{L}.post_feedforward_layernorm.output": "mlp_write",
  "model.layers.{L}.output": "resid_post",
  "model.norm.output": "final_norm",
  "hidden_states[-1]": "final_norm",
  "lm_head.input": "final_norm",
  "lm_head.output": "logits",
}

# On Gemma its hook_attn_out and hook_mlp_out come after the post-norms and its
# hook_mlp_in before the pre-feed-forward norm.
TRANSFORMER_LENS: dict[str, str] = {
  "hook_embed": "embed",
  "blocks.{L}.hook_resid_pre": "resid_pre",
  "blocks.{L}.attn.hook_rot_q": "query",
  "blocks.{L}.attn.hook_rot_k": "key",
  "blocks.{L}.attn.hook_v": "value",
  "blocks.{L}.attn.hook_pattern": "pattern",
  "blocks.{L}.attn.hook_z": "z",
  "blocks.{L}.hook_attn_out": "attn_write",
  "blocks.{L}.hook_resid_mid": "resid_mid",
  "blocks.{L}.hook_mlp_in": "resid_mid",
  "blocks.{L}.mlp.hook_post": "mlp_act",
  "blocks.{L}.hook_mlp_out": "mlp_write",
  "blocks.{L}.hook_resid_post": "resid_post",
}

GEMMA_SCOPE_2: dict[str, str] = {
  "attn_out/layer_{L}": "z",
  "mlp_out/layer_{L}": "mlp_write",
  "resid_post/layer_{L}": "resid_post",
}

ALIASES: dict[str, dict[str, str]] = {
  "Hugging Face": HUGGING_FACE,
  "TransformerLens": TRANSFORMER_LENS,
  "Gemma Scope 2": GEMMA_SCOPE_2,
}

# Name -> (why it is refused, what to type instead).
TRAPS: dict[str, tuple[str, str]] = {
  "attn_out": (
    "attn_out is another tensor in every tool.",
    "z[{L}] (Gemma Scope 2: the heads before W_O), attn_proj[{L}] (Hugging "
    "Face: the output of self_attn) or attn_write[{L}] (TransformerLens on "
    "Gemma: after the post-attention norm)",
  ),
  "mlp_out": (
    "mlp_out is another tensor in every tool.",
    "mlp_write[{L}] (Gemma Scope 2 and TransformerLens on Gemma: after the "
    "post-feed-forward norm) or mlp_proj[{L}] (Hugging Face and nnterp: the "
    "raw output of mlp)",
  ),
  "hook_mlp_in": (
    "hook_mlp_in without its block is used for two tensors.",
    "resid_mid[{L}] (TransformerLens: before the norm) or mlp_in[{L}] (what "
    "Gemma Scope 2's transcoders read: after the norm)",
  ),
  "hidden_states": (
    "hidden_states needs an index, and counts the embedding as number 0.",
    "resid_pre[{L}], resid_mid[{L}] or resid_post[{L}]",
  ),
  "resid": (
    "Every layer has three residual streams.",
    "resid_pre[{L}], resid_mid[{L}] or resid_post[{L}]",
  ),
  "attn": (
    "This names a module, not a tensor.",
    "attn_in[{L}], z[{L}], attn_proj[{L}] or attn_write[{L}]",
  ),
  "mlp": (
    "This names a module, not a tensor.",
    "mlp_in[{L}], mlp_act[{L}], mlp_proj[{L}] or mlp_write[{L}]",
  ),
  "model.layers.{L}.self_attn.o_proj": (
    "Both ends of o_proj are sites.",
    "z[{L}] (its input) or attn_proj[{L}] (its output)",
  ),
  "model.layers.{L}.mlp.down_proj": (
    "Both ends of down_proj are sites.",
    "mlp_act[{L}] (its input) or mlp_proj[{L}] (its output)",
  ),
  "model.norm.input": (
    "The input of the final norm is the last layer's residual stream.",
    "resid_post[-1]",
  ),
  "blocks.{L}.hook_attn_in": (
    "hook_attn_in is the residual stream repeated for every head.",
    "resid_pre[{L}] (before the norm) or attn_in[{L}] (after it)",
  ),
  "blocks.{L}.attn.hook_result": (
    "The output of each head has no site.",
    "z[{L}], the heads before W_O",
  ),
  "transcoder/layer_{L}": (
    "A transcoder has two sites.",
    "mlp_in[{L}] (what it reads) or mlp_write[{L}] (what it rebuilds)",
  ),
}

_MULTI_LAYER = (
  "A multi-layer dictionary has many sites.",
  "resid_post of its layers for a crosscoder; every mlp_in (read) and "
  "mlp_write (rebuilt) for a cross-layer transcoder",
)
_WITHOUT_SITE = {
  "query[{L}], after QK-norm and RoPE": (
    "blocks.{L}.attn.hook_q",
    "model.layers.{L}.self_attn.q_proj.output",
    "model.layers.{L}.self_attn.q_norm.output",
  ),
  "key[{L}], after QK-norm and RoPE": (
    "blocks.{L}.attn.hook_k",
    "model.layers.{L}.self_attn.k_proj.output",
    "model.layers.{L}.self_attn.k_norm.output",
  ),
  "pattern[{L}], after the softmax": ("blocks.{L}.attn.hook_attn_scores",),
  "attn_in[{L}], which includes the norm's gain": (
    "blocks.{L}.ln1.hook_normalized",
  ),
  "mlp_in[{L}], which includes the norm's gain": (
    "blocks.{L}.ln2.hook_normalized",
  ),
  "final_norm, which includes the norm's gain": ("ln_final.hook_normalized",),
  "mlp_act[{L}], gelu(gate) * up": (
    "blocks.{L}.mlp.hook_pre",
    "blocks.{L}.mlp.hook_pre_linear",
    "model.layers.{L}.mlp.gate_proj.output",
    "model.layers.{L}.mlp.up_proj.output",
    "model.layers.{L}.mlp.act_fn.output",
  ),
}
TRAPS |= {"crosscoder": _MULTI_LAYER, "clt": _MULTI_LAYER}
TRAPS |= {
  name: ("This tensor has no site.", near)
  for near, names in _WITHOUT_SITE.items()
  for name in names
}

_SITE_NAMES = {k: v for table in ALIASES.values() for k, v in table.items()}

_HF_PATH = re.compile(
  r"(?:model\.language_model\.|language_model\.model\.|model\.)?"
  r"(?P<path>(?:layers|norm|embed_tokens|lm_head)\b.*?)"
  r"(?:[. ](?P<end>input|output)s?(?:\[0\])*)?"
)
_FOLDER = re.compile(
  r"(?:.*/)?(?P<kind>resid_post|attn_out|mlp_out|transcoder)(?:_all)?"
  r"/layer_(?P<layer>\d+)(?:_[^/]*)?/?"
)
_BARE_NAMES = {
  "hook_attn_out": "attn_out",
  "hook_mlp_out": "mlp_out",
  "hidden_state": "hidden_states",
  "residual": "resid",
  "residual_stream": "resid",
  "attention": "attn",
  "self_attn": "attn",
}


def alias_to_site(text: str, num_layers: int | None = None) -> sites.Site:
  """The site that another tool's name stands for.

  Args:
    text: For example "model.layers.12.self_attn.o_proj.input",
      "blocks.12.hook_resid_post", "hidden_states[3]" or
      "resid_post/layer_12_width_16k_l0_medium". A Hugging Face module with
      neither `.input` nor `.output` means its output.
    num_layers: Number of decoder layers, where it is known; names that count
      to or from the end of the model need it.

  Returns:
    The one site. Its layer is not checked against the depth of the model.

  Raises:
    SiteError: The name is unknown, or stands for several tensors, or for one
      that has no site.
  """
  if match := re.fullmatch(r"\s*hidden_states\[(-?\d+)\]\s*", text):
    return _hidden_state(int(match[1]), num_layers)
  name, layer = _name_and_layer(text.strip())
  for known in (name, f"{name}.output"):
    if known in TRAPS:
      what, instead = TRAPS[known]
      instead = instead.format(L=layer or ":")
      raise errors.SiteError(what, received=text, instead=instead)
    if known in _SITE_NAMES:
      site_name = _SITE_NAMES[known]
      per_layer = sites.SITES[site_name].per_layer
      return sites.Site(site_name, int(layer) if per_layer else None)
  raise _unknown(name, layer, text)


def folder_to_sites(folder: str) -> tuple[sites.Site, sites.Site]:
  """The sites of a single-layer dictionary of Gemma Scope 2.

  Args:
    folder: Its folder, for example "transcoder_all/layer_3_width_16k_l0_big",
      with or without the repository before it.

  Returns:
    (site it reads, site it rebuilds): the same twice for an SAE, mlp_in and
    mlp_write for a transcoder.

  Raises:
    SiteError: This is no folder of a single-layer dictionary.
  """
  match = _FOLDER.fullmatch(folder.strip())
  if match is None:
    raise errors.SiteError(
      "This is no folder of a single-layer Gemma Scope 2 dictionary.",
      received=folder,
      instead="for example resid_post/layer_12_width_16k_l0_medium; it starts "
      "with resid_post, attn_out, mlp_out, transcoder, or these with _all",
    )
  kind, layer = match[1], int(match[2])
  if kind == "transcoder":
    return sites.Site("mlp_in", layer), sites.Site("mlp_write", layer)
  site = sites.Site(GEMMA_SCOPE_2[f"{kind}/layer_{{L}}"], layer)
  return site, site


def names_elsewhere(site: sites.Site) -> dict[str, tuple[str, ...]]:
  """What other tools call a site.

  Args:
    site: Any site.

  Returns:
    Tool -> its names, each of which `alias_to_site` reads back as `site`; a
    tool that has no name for it is left out.
  """
  names = {
    tool: tuple(
      k.format(L=site.layer) for k, v in table.items() if v == site.name
    )
    for tool, table in ALIASES.items()
  }
  return {tool: found for tool, found in names.items() if found}


def _name_and_layer(text: str) -> tuple[str, str]:
  """Splits a name into its spelling in the tables and its layer, "" if none."""
  if match := _FOLDER.fullmatch(text):
    return f"{match['kind']}/layer_{{L}}", match["layer"]
  if match := re.fullmatch(r"(?:.*/)?(crosscoder|clt)/.*", text):
    return match[1], ""
  if match := re.fullmatch(r"attentions\[(-?\d+)\]", text):
    return "attentions[{L}]", match[1]
  if match := re.fullmatch(r"(\w+)(?:\[(.*)\])?", text):  # attn_out[12]
    return _BARE_NAMES.get(match[1], match[1]), match[2] or ""
  if match := _HF_PATH.fullmatch(text):
    path = re.sub(r"^layers\[(\d+)\]", r"layers.\1", match["path"])
    top = "" if path.startswith("lm_head") else "model."
    text = top + path + (f".{match['end']}" if match["end"] else "")
  layer = re.search(r"(?<=layers\.|blocks\.)\d+", text)
  if layer is None:
    return text, ""
  return f"{text[: layer.start()]}{{L}}{text[layer.end() :]}", layer[0]


def _hidden_state(index: int, num_layers: int | None) -> sites.Site:
  """Hugging Face's tuple: the embedding, the layers, last the final norm."""
  if index in (0, -1):
    return sites.Site("embed" if index == 0 else "final_norm")
  if num_layers is None:
    raise errors.SiteError(
      "The last of the hidden_states is after the final norm, so that the "
      "depth of the model decides what this is.",
      received=f"hidden_states[{index}]",
      instead=f"resid_post[{index - 1}]" if index > 0 else "resid_post[-1]",
    )
  position = index + num_layers + 1 if index < 0 else index
  if not 0 <= position <= num_layers:
    raise errors.SiteError(
      f"A model of {num_layers} layers has {num_layers + 1} hidden_states.",
      received=f"hidden_states[{index}]",
      instead=f"hidden_states[0] to hidden_states[{num_layers}]",
    )
  if position in (0, num_layers):
    return sites.Site("embed" if position == 0 else "final_norm")
  return sites.Site("resid_post", position - 1)


def _unknown(name: str, layer: str, text: str) -> errors.SiteError:
  close = difflib.get_close_matches(name, _SITE_NAMES, n=1, cutoff=0.75)
  if not close:
    return sites.unknown_site(text)
  return errors.SiteError(
    "No tool that is known here has a tensor of this name.",
    received=text,
    instead=f"did you mean {close[0].format(L=layer or ':')}, which is "
    f"{_SITE_NAMES[close[0]]} here?",
  )
