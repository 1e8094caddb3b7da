"""What the README promises is what the project does."""

import configparser
import pathlib
import re
import subprocess

import pytest

import gemma_scope

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
  return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_two_commands_of_one_line():
  explain, test = blocks("sh")
  assert explain.count("\n") == test.count("\n") == 1
  assert ".venv/bin/gemma-scope explain " in explain
  assert test.endswith(".venv/bin/python -m pytest\n")


def test_ci_runs_the_test_command(tmp_path):
  (tmp_path / ".ci").mkdir()
  script = tmp_path / ".ci" / "run"
  text = (ROOT / ".ci" / "run").read_text().replace("exec bash -c", "echo ran")
  script.write_text(text)
  (tmp_path / "README.md").write_text(README)
  done = subprocess.run(
    ["bash", script], capture_output=True, text=True, check=True
  )
  assert done.stdout.splitlines()[1] == f"ran {blocks('sh')[1].strip()}"


def test_every_extra_exists():
  config = configparser.ConfigParser()
  config.read(ROOT / "setup.cfg")
  extras = set(config["options.extras_require"])
  named = set(re.findall(r'-e "\.\[(\w+)\]"', README))
  assert named == {"demo", "test"}
  listed = README.partition("- Extras: ")[2].partition("\n\n")[0]
  assert set(re.findall(r"`([\w-]+)`", listed)) == extras
  assert named <= extras


def test_every_file_it_points_to_exists():
  names = set(re.findall(r"`([\w/]+\.md)`", README))
  assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


def test_citation_names_this_version():
  citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
  assert f"\nversion: {gemma_scope.__version__}\n" in citation


def test_readme_is_two_screens():
  assert len(README.splitlines()) <= 110


def test_python_example_is_short():
  (example,) = blocks("python")
  assert len([line for line in example.splitlines() if line.strip()]) <= 12


@pytest.mark.real
def test_python_example_runs(real_lm, monkeypatch, capsys):
  import gemma_scope as gs

  monkeypatch.setattr(gs, "load", lambda name: real_lm)
  (example,) = blocks("python")
  exec(compile(example, "README.md", "exec"), {})
  assert "embedding" in capsys.readouterr().out
