"""What the reports of all verbs have in common."""

import json

import pytest

from gemma_scope.cli import reports
from gemma_scope.errors import GemmaScopeError, TextError


class Report:
  def to_html(self):
    return "<p>page</p>"

  def to_dict(self):
    return {"a": 1}


def test_numbers_go_to_a_file_or_nowhere(tmp_path):
  page, data = reports.destinations(str(tmp_path / "a.html"), None)
  assert data is None
  assert reports.destinations(str(page), "-") == (page, None)
  page, data = reports.destinations(str(page), str(tmp_path / "a.json"))
  reports.write(Report(), page, data)
  assert page.read_text() == "<p>page</p>"
  assert json.loads(data.read_text()) == {"a": 1}
  with pytest.raises(GemmaScopeError, match="--json names a folder"):
    reports.destinations(str(page), str(tmp_path))


def test_json_takes_the_place_of_the_summary(tmp_path, capsys):
  rendered = []
  call = lambda: rendered.append(1)  # noqa: E731
  reports.show(Report(), tmp_path / "a.html", call, as_json=True)
  captured = capsys.readouterr()
  assert json.loads(captured.out) == {"a": 1}
  assert "a.html" in captured.err
  assert not rendered
  reports.show(Report(), tmp_path / "a.html", call, as_json=False)
  assert rendered
  assert not capsys.readouterr().out


def test_long_prompts_are_refused():
  reports.check_length(5, 5)
  with pytest.raises(TextError, match="6 tokens; --max-tokens is 5"):
    reports.check_length(6, 5)
