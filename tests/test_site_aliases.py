"""Names of other tools: read right, or refused with the candidates."""

import pytest

from gemma_scope import errors, site_aliases, sites
from gemma_scope.site_aliases import alias_to_site


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    # The hook points that Gemma Scope 2's config.json files hold.
    ("model.layers.12.output", "resid_post[12]"),
    ("model.layers.12.self_attn.o_proj.input", "z[12]"),
    ("model.layers.12.post_feedforward_layernorm.output", "mlp_write[12]"),
    ("model.layers.12.pre_feedforward_layernorm.output", "mlp_in[12]"),
    # Hugging Face modules, as hooks and nnsight spell them.
    ("model.layers.12", "resid_post[12]"),
    ("model.layers.12.mlp", "mlp_proj[12]"),
    ("model.layers.12.self_attn", "attn_proj[12]"),
    ("model.layers[3].mlp.output", "mlp_proj[3]"),
    ("model.layers.3.output[0]", "resid_post[3]"),
    ("model.layers.3 input", "resid_pre[3]"),
    ("layers.3.self_attn.o_proj.inputs[0][0]", "z[3]"),
    ("language_model.model.layers.3.mlp.down_proj.input", "mlp_act[3]"),
    ("model.language_model.norm", "final_norm"),
    ("model.embed_tokens", "embed"),
    ("lm_head", "logits"),
    ("attentions[4]", "pattern[4]"),
    ("hidden_states[0]", "embed"),
    ("hidden_states[-1]", "final_norm"),
    # TransformerLens and SAELens.
    ("blocks.12.hook_resid_post", "resid_post[12]"),
    ("blocks.0.hook_mlp_in", "resid_mid[0]"),
    ("blocks.0.hook_mlp_out", "mlp_write[0]"),
    ("blocks.0.hook_attn_out", "attn_write[0]"),
    ("blocks.0.attn.hook_rot_q", "query[0]"),
    ("hook_embed", "embed"),
    # Gemma Scope 2 folders.
    ("resid_post/layer_12_width_16k_l0_medium", "resid_post[12]"),
    ("attn_out_all/layer_3_width_16k_l0_big", "z[3]"),
    (
      "google/gemma-scope-2-1b-pt/mlp_out/layer_7_width_65k_l0_big_seed_1",
      "mlp_write[7]",
    ),
  ],
)
def test_names_mean_what_their_tool_means(name, expected):
  assert str(alias_to_site(name)) == expected


@pytest.mark.parametrize("name", sites.SITES)
def test_listed_names_read_back_as_their_site(name):
  site = sites.Site(name, 12 if sites.SITES[name].per_layer else None)
  tools = site_aliases.names_elsewhere(site)
  assert all(
    alias_to_site(alias) == site for names in tools.values() for alias in names
  )
  assert tools


def test_every_table_entry_is_a_site_and_no_trap():
  for table in site_aliases.ALIASES.values():
    assert set(table.values()) <= set(sites.SITES)
    assert not set(table) & set(site_aliases.TRAPS)


@pytest.mark.parametrize("name", site_aliases.TRAPS)
def test_every_trap_is_sprung(name):
  written = name.replace("{L}", "3")
  if name in ("crosscoder", "clt"):
    written += "/layer_5_9_12_15_width_65k_l0_medium"
  what, _ = site_aliases.TRAPS[name]
  with pytest.raises(errors.SiteError, match=what):
    alias_to_site(written)


@pytest.mark.parametrize(
  ("name", "candidates"),
  [
    ("attn_out", r"z\[:\].*attn_proj\[:\].*attn_write\[:\]"),
    ("attn_out[3]", r"z\[3\].*Gemma Scope 2.*attn_proj\[3\].*attn_write\[3\]"),
    ("hook_mlp_out", r"mlp_write\[:\].*mlp_proj\[:\]"),
    ("blocks.3.attn.hook_q", r"query\[3\]"),
    ("blocks.3.ln2.hook_normalized", r"mlp_in\[3\]"),
    ("transcoder/layer_3_width_16k_l0_big", r"mlp_in\[3\].*mlp_write\[3\]"),
    ("model.layers.3.self_attn.o_proj", r"z\[3\].*attn_proj\[3\]"),
    ("model.layers.3.slef_attn.output", r"model\.layers\.3\.self_attn\.output"),
    ("hidden_states[4]", r"resid_post\[3\]"),
    ("nonsense", "sites are embed"),
  ],
)
def test_unclear_names_are_refused_with_the_candidates(name, candidates):
  with pytest.raises(errors.SiteError, match=candidates):
    alias_to_site(name)


def test_hidden_states_count_the_embedding_and_end_after_the_final_norm():
  read = [str(alias_to_site(f"hidden_states[{i}]", 2)) for i in range(-3, 3)]
  assert read == ["embed", "resid_post[0]", "final_norm"] * 2
  with pytest.raises(errors.SiteError, match="3 hidden_states"):
    alias_to_site("hidden_states[3]", 2)


def test_folders_name_what_is_read_and_what_is_rebuilt():
  read, rebuilt = site_aliases.folder_to_sites(
    "transcoder_all/layer_3_width_16k_l0_big_affine"
  )
  assert (str(read), str(rebuilt)) == ("mlp_in[3]", "mlp_write[3]")
  assert site_aliases.folder_to_sites(
    "attn_out/layer_5_width_16k_l0_small/"
  ) == (
    sites.Site("z", 5),
    sites.Site("z", 5),
  )
  with pytest.raises(errors.SiteError, match="single-layer"):
    site_aliases.folder_to_sites("clt/width_262k_l0_big")
