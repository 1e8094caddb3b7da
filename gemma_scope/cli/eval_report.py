"""What `gemma-scope eval` found: one page, one JSON, tables in the terminal.

Numbers on text, concepts, or both; the library made them and lays them out.
"""

import dataclasses
import pathlib
from typing import Any

import rich.console
import rich.table
import rich.text

from gemma_scope.cli import consoles


@dataclasses.dataclass(frozen=True)
class Found:
  """What was asked for; None is what was not.

  Attributes:
    text: The library's `Evaluation` on held-out text.
    concepts: Its `ConceptEvaluation`.
  """

  text: Any = None
  concepts: Any = None

  def to_dict(self) -> dict[str, Any]:
    """The numbers on text, and concepts under a key of their own."""
    found = {} if self.text is None else self.text.to_dict()
    if self.concepts is not None:
      found["concepts"] = self.concepts.to_dict()
    return found

  def to_html(self) -> str:
    """Everything as one page."""
    from gemma_scope.evals.dictionaries.evaluation import page_html

    parts = [p for p in (self.text, self.concepts) if p is not None]
    body = "".join(part._repr_html_() for part in parts)
    return page_html("Evaluation of dictionaries", body)


def render(found: Found, page: pathlib.Path) -> None:
  """Prints the numbers, and where the report is."""
  console = consoles.results()
  if found.text is not None:
    _render_text(console, found.text)
  if found.concepts is not None:
    _render_concepts(console, found.concepts)
  console.print(f"Report: {page}", markup=False, soft_wrap=True)


def _render_text(console: rich.console.Console, text: Any) -> None:
  """A table for each dictionary, its numbers one below the other."""
  head, rows = text.table()
  for row in rows:
    table = rich.table.Table(title=row[0], title_justify="left", box=None)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.show_header = False
    for name, cell in zip(head[1:], row[1:]):
      table.add_row(name, cell)
    console.print(table)
    console.print()
  console.print(text.note, markup=False)


def _render_concepts(console: rich.console.Console, concepts: Any) -> None:
  """A table for each test, dictionaries beside their baselines."""
  for summary in concepts.summaries():
    table = rich.table.Table(title=rich.text.Text(summary.title), box=None)
    table.title_justify = "left"
    table.add_column(summary.head[0], overflow="fold")
    for heading in summary.head[1:]:
      table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.rows:
      table.add_row(*map(rich.text.Text, row))
    console.print(table)
    console.print()
  console.print(concepts.note, markup=False)
