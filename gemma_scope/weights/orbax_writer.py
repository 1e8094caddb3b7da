"""Canonical tensors -> an Orbax checkpoint of the official `gemma` package.

The tree is the one that `gm.ckpts.load_params(path)` returns and
`model.apply({"params": tree})` takes. Orbax itself writes under a temporary
name and renames. Importing Orbax happens inside the function.
"""

from collections.abc import Mapping
import os

from gemma_scope import errors
from gemma_scope.weights import checkpoint, flax_tree, orbax


def write_orbax(
  path: str | os.PathLike,
  tensors: Mapping[str, checkpoint.Tensor],
) -> str:
  """Writes a NESTED checkpoint, dtypes as they are.

  Args:
    path: A folder that does not exist yet, local or gs://.
    tensors: Canonical name -> array (NumPy, JAX or lazy).

  Returns:
    The path.

  Raises:
    CheckpointError: a tensor is missing or misshapen, or the folder exists.
  """
  import orbax.checkpoint as ocp

  checkpoint.check_complete(tensors, "the tensors to write")
  folder = orbax.as_path(path)
  if folder.exists():
    raise errors.CheckpointError(
      "The folder to write already exists.",
      received=str(folder),
      instead="another folder, or remove this one first",
    )
  arrays = {name: checkpoint.read(t) for name, t in tensors.items()}
  tree = flax_tree.canonical_to_flax_tree(arrays)
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(folder, tree)
      checkpointer.wait_until_finished()
  except BaseException:
    for half in folder.parent.glob(f"{folder.name}.orbax-checkpoint-tmp*"):
      half.rmtree(missing_ok=True)
    raise
  return str(folder)
