"""Runs a notebook as a reader does: top to bottom, in a kernel of its own."""

import dataclasses
import pathlib

import jax
import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# The rules of the outer conftest hold in the kernel too: it is a process of
# its own. An audit hook sees every connection that Python makes.
RULES = f"""
import sys
import warnings

import jax

def refuse(event, arguments):
  if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
    address = arguments[0 if event == "socket.getaddrinfo" else 1]
    host = address[0] if isinstance(address, tuple) else address
    if host not in (None, "", "localhost", "::1", "127.0.0.1"):
      raise RuntimeError(f"a notebook reached for the network: {{address!r}}")

sys.addaudithook(refuse)
warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*chararray.*", DeprecationWarning)
warnings.filterwarnings("default", module="(ipykernel|jupyter|zmq).*")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # code before a notebook uses JAX
jax.config.update(
  "jax_compilation_cache_dir", {jax.config.jax_compilation_cache_dir!r}
)
"""

# As deep as the real model, so that the notebooks' layers exist, and with a
# suite of dictionaries of its own.
TINY = """
import pathlib
import tempfile

import gemma_scope as gs
from gemma_scope.dictionaries import suite
from gemma_scope.model.build import random_tensors
from gemma_scope.model.convert import tensors_to_gemma
from gemma_scope.testing import tiny
from gemma_scope.testing.latents import random_suite
from gemma_scope.weights import catalog

def load(name, mesh=None):
  assert catalog.find(name), f"{name} is not in the catalogue"
  lm = tiny.tiny_lm(tiny.tiny_config(num_layers=18))
  if mesh is None:
    return lm
  tensors = random_tensors(lm.config, seed=0)
  return lm.replace(tensors_to_gemma(tensors, lm.config, mesh=mesh))

gs.load = load
suite.PATH = pathlib.Path(tempfile.mkdtemp()) / "suite.zip"
random_suite(suite.PATH, sae_layers=(5, 9, 12, 15), num_layers=18)
"""


@dataclasses.dataclass(frozen=True)
class Executed:
  """A notebook with its outputs.

  Attributes:
    cells: Its code cells.
  """

  cells: list[nbformat.NotebookNode]

  def printed(self, snippet: str) -> str:
    """What the only cell whose source holds `snippet` printed."""
    outputs = self.cell(snippet).outputs
    return "".join(o.text for o in outputs if o.output_type == "stream")

  def shown(self, snippet: str, mime: str = "text/plain") -> str:
    """What that cell displays, as text or HTML."""
    outputs = self.cell(snippet).outputs
    return "".join(o.data[mime] for o in outputs if mime in o.get("data", {}))

  def cell(self, snippet: str) -> nbformat.NotebookNode:
    """The only cell whose source holds `snippet`."""
    (found,) = [cell for cell in self.cells if snippet in cell.source]
    return found


@pytest.fixture(scope="session")
def execute(tmp_path_factory):
  """A function that runs a notebook after some code, and returns it."""

  def run(notebook: nbformat.NotebookNode, *before: str) -> Executed:
    added = [nbformat.v4.new_code_cell(code) for code in (RULES, *before)]
    notebook = notebook.copy()
    notebook.cells = [*added, *notebook.cells]
    client = nbclient.NotebookClient(
      notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}
    )
    with pytest.MonkeyPatch.context() as patch:
      # Nothing of this user's own IPython set-up or history.
      patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
      done = client.execute()
    cells = done.cells[len(added) :]
    return Executed([cell for cell in cells if cell.cell_type == "code"])

  return run


@pytest.fixture(scope="session")
def tiny_code():
  """Code after which `gs.load` gives a tiny random model."""
  return TINY
