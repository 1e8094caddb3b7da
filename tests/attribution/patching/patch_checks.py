"""Shared by the tests of approximations: prompts, and slow second answers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from gemma_scope.attribution.evaluate import evaluate
from gemma_scope.attribution.pairs import to_pairs
from gemma_scope.attribution.patching.by_layer import wrap_by_row
from gemma_scope.attribution.patching.site_paths import Moved
from gemma_scope.attribution.patching.slopes import values_at
from gemma_scope.surgery import replace

TARGET = {7: 1.0, 9: -1.0}


def other_prompt(ids):
  """A prompt of as many tokens that differs in two of them."""
  changed = np.array(ids)
  changed[2], changed[-2] = 31, 47
  return changed


def cells_of(found, site):
  """The cells of the first prompt as a plain array."""
  value = found[site]
  return np.asarray(value.unwrap(*value.named_axes), np.float64)[0]


def near_lm(lm, ids, others, step):
  """A model in which the tokens of two prompts have almost equal embeddings.

  The source prompt's rows of the table are moved to the base prompt's, but for
  a share `step` of what separates them.
  """
  names = tuple(lm.model.table.named_axes)
  table = np.array(lm.model.table.unwrap(*names))
  for ours, theirs in zip(ids, others):
    if ours != theirs:
      table[ours] = table[theirs] + step * (table[ours] - table[theirs])
  model = dataclasses.replace(
    lm.model, table=pz.nx.wrap(jnp.asarray(table), *names)
  )
  return dataclasses.replace(lm, model=model)


def exact_effects(lm, source, base, target, site, indices):
  """Patched - base by one full forward for each cell.

  Args:
    site: The site.
    indices: Indices into the site's value without batch, such as (3,) for a
      position or (3, 1) for a position and head; () for all of it.
  """
  *_, pairs = to_pairs(lm, source, base, target)
  _, ours = values_at(lm.model, pairs.source, pairs.target, (site,))
  bottom, theirs = values_at(lm.model, pairs.base, pairs.target, (site,))
  names = site.info.axes
  put, into = (v[site].unwrap(*names) for v in (ours, theirs))
  changed = replace(lm.model, [site])
  found = []
  for index in indices:
    value = into.at[(0, *index)].set(put[(0, *index)])
    given = {site: pz.nx.wrap(value, *names)}
    patched = _run(changed, pairs.base, pairs.target, given)
    found.append(float(patched[0] - bottom[0]))
  return np.asarray(found)


@functools.partial(jax.jit)
def _run(model, rows, target, given):
  return evaluate(model, rows, target, given)[0]


def exact_in_one_batch(lm, source, base, target, cells):
  """Patched - base for cells of sites of the stream's width, one row each.

  Args:
    cells: (site, column) pairs.
  """
  *_, pairs = to_pairs(lm, source, base, target)
  sites = tuple(dict.fromkeys(site for site, _ in cells))
  _, ours = values_at(lm.model, pairs.source, pairs.target, sites)
  bottom, theirs = values_at(lm.model, pairs.base, pairs.target, sites)
  there = []
  for site, column in cells:
    into = np.array(theirs[site].unwrap(*site.info.axes)[0])
    into[column] = ours[site].unwrap(*site.info.axes)[0, column]
    there.append(into)
  there = pz.nx.wrap(np.stack(there), *sites[0].info.axes)
  layers = np.arange(lm.config.num_layers)[:, None]
  acts = {
    name: np.asarray([s.layer if s.name == name else -1 for s, _ in cells])
    == layers
    for name in dict.fromkeys(site.name for site in sites)
  }
  rows = np.zeros(len(cells), int)
  patched = _moved(
    lm.model, pairs.base.take(rows), pairs.target.take(rows), there, acts
  )
  return np.asarray(patched - bottom[0])


@jax.jit
def _moved(model, rows, target, there, acts):
  def make(inner, name, layers, acts):
    return Moved(inner, name, layers, there=there, acts=acts)

  for name, where in acts.items():
    model = wrap_by_row(model, (name,), where, make)
  return evaluate(model, rows, target, {})[0]
