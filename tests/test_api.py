"""What `import gemma_scope as gs` offers."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import gemma_scope as gs
from gemma_scope import api
from gemma_scope.model.language_model import load_language_model

PROMISED = (
  *("load", "capture", "attribute", "generate", "explain", "logit_lens"),
  *("direct_logit_attribution", "Site", "SITES", "GemmaScopeError"),
)


def offered_by_api() -> set[str]:
  """Names that api.py defines or imports `as` themselves."""
  tree = ast.parse(pathlib.Path(api.__file__).read_text(encoding="utf-8"))
  names = {
    alias.asname
    for node in tree.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
    if alias.asname is not None
  }
  return names | {
    target.id
    for node in tree.body
    if isinstance(node, ast.Assign)
    for target in node.targets
    if isinstance(target, ast.Name)
  }


def in_a_fresh_python(code: str) -> str:
  """What `code` prints in an interpreter that has imported nothing yet."""
  run = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 0, run.stderr
  return run.stdout.strip()


def test_the_package_lists_what_api_offers():
  listed = set(gs._FUNCTIONS)
  assert listed == offered_by_api()
  assert len(listed) == len(gs._FUNCTIONS)
  assert listed.issuperset(PROMISED)


@pytest.mark.parametrize("name", gs._FUNCTIONS)
def test_a_public_name_is_that_of_api(name):
  assert getattr(gs, name) is getattr(api, name)


@pytest.mark.parametrize("name", gs._PACKAGES)
def test_a_public_package_is_reached_from_the_root(name):
  module = gs._PACKAGES[name]
  assert getattr(gs, name) is importlib.import_module(module)


def test_dir_shows_every_public_name():
  names = set(dir(gs))
  assert names == {*gs._FUNCTIONS, *gs._PACKAGES, "__version__"}


def test_load_is_the_loader():
  assert gs.load is load_language_model


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(
    AttributeError, match="'gemma_scope' has no attribute 'lode'"
  ):
    _ = gs.lode


def test_importing_the_package_does_not_import_jax():
  code = (
    "import sys, gemma_scope as gs; dir(gs); gs.__version__; "
    "print(sorted({'jax', 'numpy', 'penzai'} & set(sys.modules)))"
  )
  assert in_a_fresh_python(code) == "[]"


def test_targets_are_reached_without_an_import():
  code = (
    "import gemma_scope as gs; "
    "print(gs.attribution.logit_difference(' Paris', ' Rome').tokens)"
  )
  assert in_a_fresh_python(code) == "(' Paris', ' Rome')"
