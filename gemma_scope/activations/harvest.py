"""One forward pass to rows of activations, for many sites at once.

Where `run.capture` answers a prompt with named arrays, a harvest feeds
training and stores: packed batches of one shape, one compiled program, plain
arrays [batch * seq, width] that stay on the device. No layer runs past the
last site, and logits are never computed. Rows of padding are among them:
`counted` says which to keep, so that shapes do not depend on the text.

On a mesh (data, model) rows lie over `data`, and the widths of sites that the
model shards (z, mlp_act, …) over `model`. With several processes each gives its
own part of the batch.
"""

from collections.abc import Iterable, Mapping
import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
from penzai import pz

from gemma_scope import axes
from gemma_scope.activations.corpus.packed_batch import PackedBatch
from gemma_scope.activations.run import forward
from gemma_scope.errors import SiteError, TextError
from gemma_scope.model.gemma import Gemma
from gemma_scope.model.language_model import LanguageModel, checked_dtype
from gemma_scope.model.sharding import DATA, activation_sharding
from gemma_scope.sites import Site, resolve
from gemma_scope.surgery.addresses import axis_sizes
from gemma_scope.surgery.select import stop_after, tap

Values = dict[Site, jax.Array]  # each [batch * seq, width]


class Harvest:
  """A function from packed batches to rows of activations.

  Attributes:
    lm: The model, as it was given.
    sites: The sites, in forward order.
    dtype: Dtype of the rows.
    mesh: The model's mesh, or None where it lies on one device.
  """

  def __init__(
    self,
    lm: LanguageModel,
    sites: Iterable[Site | str] | Site | str,
    *,
    dtype: jnp.dtype | type | str | None = None,
  ):
    """Taps the model.

    Args:
      lm: The model; `lm.replace(edited)` harvests from an edited one.
      sites: Addresses such as "resid_post[:]", "mlp_in[5]", "z[:]". Heads are
        concatenated to one row.
      dtype: "float32" or "bfloat16"; by default the model's.

    Raises:
      SiteError: If a site has no row for each token (pattern) or needs the
        logits, or there is none.
      ConfigError: If the dtype is another.
    """
    self.lm = lm
    self.sites = _checked(resolve(sites, lm.config.num_layers))
    self.dtype = lm.dtype if dtype is None else checked_dtype(dtype)
    self.mesh = _mesh_of(lm.model)
    model = stop_after(tap(lm.model, self.sites), self.sites)
    # Taken apart once: a model is many small objects, and a call is short.
    self._leaves, self._structure = jax.tree.flatten(model)

  @functools.cached_property
  def widths(self) -> Mapping[Site, int]:
    """The width of each site's rows."""
    ids = jax.ShapeDtypeStruct((self.batch_multiple, 8), jnp.int32)
    counted = jax.ShapeDtypeStruct(ids.shape, bool)
    values, _ = jax.eval_shape(self._forward, self._leaves, ids, ids, counted)
    return {site: values[site].shape[1] for site in self.sites}

  @property
  def batch_multiple(self) -> int:
    """What the rows of a batch must be a multiple of: the mesh's `data`."""
    return 1 if self.mesh is None else self.mesh.shape.get(DATA, 1)

  def __call__(self, batch: PackedBatch) -> tuple[Values, jax.Array]:
    """Runs the model once.

    Compiles once for each shape of a batch; give batches of one shape.

    Args:
      batch: Packed rows; on several processes, this process's part.

    Returns:
      Site -> [batch * seq, width] in `dtype`, and the counted mask
      [batch * seq], both on the device. Row b * seq + s is token s of row b.

    Raises:
      TextError: If the batch is no multiple of the mesh's `data` axis.
    """
    arrays = (batch.ids, batch.segment_ids, batch.counted)
    return self._forward(self._leaves, *map(self._to_device, arrays))

  def collect(self, batches: Iterable[PackedBatch]) -> dict[Site, np.ndarray]:
    """The rows of some batches that count, on the host.

    Args:
      batches: At least one; all rows must find room in the memory.

    Returns:
      Site -> [rows, width], float32.
    """
    kept: dict[Site, list[np.ndarray]] = {site: [] for site in self.sites}
    for batch in batches:
      values, counted = self(batch)
      for site, rows in values.items():
        kept[site].append(np.asarray(rows, np.float32)[np.asarray(counted)])
    return {site: np.concatenate(rows) for site, rows in kept.items()}

  @functools.cached_property
  def _forward(self):
    dtype, sites, laid_out = self.dtype, self.sites, self._laid_out
    structure = self._structure

    @jax.jit
    def harvest(
      leaves: list[jax.Array],
      ids: jax.Array,
      segment_ids: jax.Array,
      counted: jax.Array,
    ) -> tuple[Values, jax.Array]:
      model: Gemma = jax.tree.unflatten(structure, leaves)
      columns = jnp.arange(ids.shape[1])
      last = any(site.base == "final_norm" for site in sites)
      outer = "final_norm" if last else ""
      taps = forward(model, ids, segment_ids, columns, outer)
      rows = {s: _to_rows(taps[s], s).astype(dtype) for s in sites}
      return {s: laid_out(s, x) for s, x in rows.items()}, counted.reshape(-1)

    return harvest

  def sharding(self, site: Site) -> NamedSharding | None:
    """How the rows of a site lie on the mesh; None without one."""
    if self.mesh is None:
      return None
    names = site.info.axes[2:3]
    sizes = axis_sizes(site, self.lm.config)
    shape = tuple(sizes.get(name, 1) for name in names)
    inner = activation_sharding(self.mesh, names, shape).spec
    return NamedSharding(self.mesh, PartitionSpec(DATA, *inner))

  def _laid_out(self, site: Site, rows: jax.Array) -> jax.Array:
    where = self.sharding(site)
    if where is None:
      return rows
    return jax.lax.with_sharding_constraint(rows, where)

  def _to_device(self, array: np.ndarray) -> jax.Array:
    if self.mesh is None:
      return jnp.asarray(array)
    parts = self.batch_multiple
    if (len(array) * jax.process_count()) % parts:
      raise TextError(
        f"The rows of a batch cannot be shared by {parts} parts of the mesh.",
        received=f"{len(array)} rows a process, {jax.process_count()} of them",
        instead=f"a batch size that makes a multiple of {parts} in all",
      )
    where = NamedSharding(self.mesh, PartitionSpec(DATA))
    return jax.make_array_from_process_local_data(where, array)


def _to_rows(value: pz.nx.NamedArray, site: Site) -> jax.Array:
  data = value.unwrap(*site.info.axes)
  return data.reshape(math.prod(data.shape[:2]), -1)


def _checked(sites: tuple[Site, ...]) -> tuple[Site, ...]:
  if not sites:
    raise SiteError(
      "There is no site to harvest.",
      received="sites=[]",
      instead='for example sites=["resid_post[:]"]',
    )
  for site in sites:
    ours = site.info.axes[:2] == (axes.BATCH, axes.SEQ)
    if not ours or site.base == "logits":
      raise SiteError(
        "A harvest takes one row of moderate width from every token.",
        received=str(site),
        instead="a site such as resid_post, mlp_in or z; gs.capture has "
        "patterns and logits of single prompts",
      )
  return sites


def _mesh_of(model: Gemma) -> Mesh | None:
  where = getattr(model.table.data_array, "sharding", None)
  if isinstance(where, NamedSharding) and isinstance(where.mesh, Mesh):
    return where.mesh
  return None
