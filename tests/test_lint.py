"""Format, lint and types: the same three commands CONTRIBUTING.md names."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

CHECKS = {
  "format": ["ruff", "format", "--check", "."],
  "lint": ["ruff", "check", "--output-format=concise", "."],
  "types": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("check", CHECKS)
def test_source_is_clean(check):
  module, *arguments = CHECKS[check]
  done = subprocess.run(
    [sys.executable, "-m", module, *arguments],
    cwd=ROOT,
    # Pyright otherwise asks the registry whether it is the newest.
    env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    capture_output=True,
    text=True,
  )
  if done.returncode:
    pytest.fail(f"{done.stdout}\n{done.stderr}", pytrace=False)
