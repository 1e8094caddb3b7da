"""The shape of the package, read from its source: no module is imported.

Imports follow the path of the data, tests mirror the package, public names
are documented, and nothing grows past what one can read in a sitting.
"""

import ast
from collections.abc import Iterator
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gemma_scope"

# A package imports from itself and from those before it (ARCHITECTURE.md).
# `testing` may use everything but the command line; nothing may use it.
PATH_OF_THE_DATA = (
  "weights",
  "model",
  "surgery",
  "activations",
  "dictionaries",
  "training",
  "attribution",
  "circuits",
  "analysis",
  "evals",
  "viz",
  "planning",
  "api",
  "testing",
  "cli",
)
# Free to all; they import one another and nothing else of the package.
FREE = (
  "axes",
  "bootstrap",
  "display",
  "errors",
  "manifest",
  "site_aliases",
  "sites",
)

# Source file -> the test that covers it, where the names do not mirror.
TESTED_IN: dict[str, str] = {
  "analysis/latent_state.py": "analysis/test_latent_examples.py",
  # One suite that every member of the family passes.
  "dictionaries/cross_layer.py": "dictionaries/test_family.py",
  "dictionaries/crosscoder.py": "dictionaries/test_family.py",
  "dictionaries/maps.py": "dictionaries/test_family.py",
  "dictionaries/sae.py": "dictionaries/test_family.py",
  "dictionaries/single_layer.py": "dictionaries/test_family.py",
  "dictionaries/singles.py": "dictionaries/test_gemma_scope_2.py",
  "dictionaries/transcoder.py": "dictionaries/test_family.py",
  # Readers against writers.
  "dictionaries/circuit_tracer_writer.py": "dictionaries/test_round_trips.py",
  "dictionaries/gemma_scope_2_writer.py": "dictionaries/test_round_trips.py",
  "dictionaries/own_format.py": "dictionaries/test_round_trips.py",
  "dictionaries/saelens_writer.py": "dictionaries/test_round_trips.py",
  "dictionaries/gemma_scope_2_about.py": "dictionaries/test_gemma_scope_2.py",
  "evals/dictionaries/cosine.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/decoder_cosines.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/delta_loss.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/density.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/fvu.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/l0.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/prefix_curve.py": "evals/dictionaries/test_metrics.py",
  "evals/dictionaries/protocol.py": "evals/dictionaries/test_metrics.py",
}
# No behaviour of their own: tables and values that other tests read.
WITHOUT_TESTS = ("weights/checkpoint.py",)

MODEL_NAME = re.compile(r"gemma-?3n?-(270m|1b|4b|12b|27b)", re.IGNORECASE)
# Where model names may stand as strings.
CATALOGUE = ("weights/catalog.py",)

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
NAMES_THAT_SAY_NOTHING = ("utils", "util", "helpers", "common", "misc")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(folder: pathlib.Path = PACKAGE) -> list[pathlib.Path]:
  return sorted(folder.rglob("*.py"))


@functools.cache
def parse(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding="utf-8"), str(path))


def short(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).as_posix()


def report(offenders: list[str], rule: str) -> None:
  """Fails with one offender a line."""
  if offenders:
    pytest.fail("\n  ".join([f"{rule}:", *offenders]), pytrace=False)


def part_of(path: pathlib.Path) -> str:
  """The package a file belongs to; the root's `__init__` is the api's."""
  first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
  return "api" if first == "__init__" else first


def imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields (line, dotted name) of every import, those in functions too."""
  for node in ast.walk(parse(path)):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      origin = "gemma_scope.relative" if node.level else node.module
      yield from ((node.lineno, f"{origin}.{a.name}") for a in node.names)


def imported_parts(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields (line, part of gemma_scope) of every import of the package."""
  for line, name in imports(path):
    package, _, rest = name.partition(".")
    if package == "gemma_scope" and rest != "__version__":
      first = rest.partition(".")[0]
      known = first in (*PATH_OF_THE_DATA, *FREE, "relative")
      yield line, first if known else "api"


def allowed_parts(part: str) -> set[str]:
  if part in FREE:
    return set(FREE)
  before = PATH_OF_THE_DATA[: PATH_OF_THE_DATA.index(part) + 1]
  return {*FREE, *before} - ({"testing"} - {part})


def is_public(name: str) -> bool:
  return not name.startswith("_") or name.endswith("__")


def functions(path: pathlib.Path) -> Iterator[tuple[str, Function]]:
  """Yields (qualified name, node) of every function, methods included."""

  def visit(node: ast.AST, prefix: str):
    for child in ast.iter_child_nodes(node):
      if isinstance(child, Function | ast.ClassDef):
        name = f"{prefix}{child.name}"
        if isinstance(child, Function):
          yield name, child
        yield from visit(child, f"{name}.")
      else:
        yield from visit(child, prefix)

  yield from visit(parse(path), "")


def docstring_nodes(path: pathlib.Path) -> set[ast.AST]:
  """Every string that stands alone as a statement: docstrings of all kinds."""
  return {
    node.value
    for node in ast.walk(parse(path))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
  }


def test_every_part_has_its_place():
  known = {*PATH_OF_THE_DATA, *FREE}
  report(
    sorted({part_of(p) for p in sources()} - known),
    "give each new package or root module its place in PATH_OF_THE_DATA",
  )


def test_imports_follow_the_path_of_the_data():
  offenders = [
    f"{short(path)}:{line} ({part_of(path)}) imports {target}"
    for path in sources()
    for line, target in imported_parts(path)
    if target not in allowed_parts(part_of(path))
  ]
  report(offenders, "imports point to the left only, and are absolute")


def has_code(path: pathlib.Path) -> bool:
  """Whether a module does more than describe itself and import."""
  passive = ast.Import | ast.ImportFrom | ast.Expr
  return any(not isinstance(node, passive) for node in parse(path).body)


def test_tests_mirror_the_package():
  offenders = []
  for path in sources():
    name = short(path)
    if name in WITHOUT_TESTS or path.name == "__init__.py":
      continue
    mirror = pathlib.PurePosixPath(name).with_name(f"test_{path.name}")
    expected = TESTED_IN.get(name, str(mirror))
    if has_code(path) and not (ROOT / "tests" / expected).exists():
      offenders.append(f"gemma_scope/{name}: tests/{expected} is missing")
  for name in (*TESTED_IN, *WITHOUT_TESTS):
    if not (PACKAGE / name).exists():
      offenders.append(f"{name} is named here and does not exist")
  report(offenders, "every module has its test, under the same path")


def test_nothing_prints():
  offenders = [
    f"{short(path)}:{node.lineno}"
    for path in sources()
    for node in ast.walk(parse(path))
    if isinstance(node, ast.Name) and node.id == "print"
  ]
  report(offenders, "no print: the library logs, cli and viz draw with rich")


def test_rich_only_where_people_look():
  offenders = [
    f"{short(path)}:{line} imports {name}"
    for path in sources()
    for line, name in imports(path)
    if name.partition(".")[0] == "rich" and part_of(path) not in ("cli", "viz")
  ]
  report(offenders, "only cli and viz draw with rich")


def test_public_names_are_documented():
  offenders = []
  for path in sources():
    tree = parse(path)
    if tree.body and not ast.get_docstring(tree):
      offenders.append(f"{short(path)}:1 module")
    offenders += [
      f"{short(path)}:{node.lineno} {node.name}"
      for node in tree.body
      if isinstance(node, Function | ast.ClassDef)
      and is_public(node.name)
      and not ast.get_docstring(node)
    ]
  report(offenders, "every public name has a docstring")


def is_side_inputs(node: Function) -> bool:
  """Whether it is Penzai's way to pass side inputs to every layer."""
  kwarg = node.args.kwarg
  names = ("side_inputs", "_side_inputs")
  return node.name == "__call__" and kwarg is not None and kwarg.arg in names


def test_public_signatures_name_their_arguments():
  offenders = [
    f"{short(path)}:{node.lineno} {name}(**{node.args.kwarg.arg})"
    for path in sources()
    for name, node in functions(path)
    if node.args.kwarg is not None
    and all(is_public(part) for part in name.split("."))
    and not is_side_inputs(node)
  ]
  report(offenders, "no **kwargs in public signatures")


def parameters(node: Function) -> int:
  a = node.args
  names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
  own = [name for name in names if name not in ("self", "cls")]
  return len(own) + bool(a.vararg)


def test_nothing_is_too_long_to_read():
  offenders = []
  for path in [*sources(), *sources(ROOT / "tests")]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    name = path.relative_to(ROOT).as_posix()
    if lines > MAX_FILE_LINES:
      offenders.append(f"{name}: {lines} lines")
    for function, node in functions(path):
      where = f"{name}:{node.lineno} {function}"
      length = (node.end_lineno or node.lineno) - node.lineno + 1
      if length > MAX_FUNCTION_LINES:
        offenders.append(f"{where}: {length} lines")
      if parameters(node) > MAX_PARAMETERS:
        offenders.append(f"{where}: {parameters(node)} parameters")
  report(
    offenders,
    f"files have at most {MAX_FILE_LINES} lines, functions "
    f"{MAX_FUNCTION_LINES} lines and {MAX_PARAMETERS} parameters",
  )


def test_model_names_live_in_the_catalogue():
  offenders = []
  for path in sources():
    if short(path) in CATALOGUE:
      continue
    docstrings = docstring_nodes(path)
    offenders += [
      f"{short(path)}:{node.lineno} {node.value!r}"
      for node in ast.walk(parse(path))
      if isinstance(node, ast.Constant)
      and isinstance(node.value, str)
      and node not in docstrings
      and MODEL_NAME.search(node.value)
    ]
  report(offenders, "model names as strings live in the catalogue alone")


def test_files_say_what_they_hold():
  offenders = [short(p) for p in sources() if p.stem in NAMES_THAT_SAY_NOTHING]
  report(offenders, "name a file after its one idea")
