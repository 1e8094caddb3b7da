"""What verbs that make a report share: where it goes and how it is shown."""

from collections.abc import Callable
import json
import pathlib
from typing import Any, Protocol
import webbrowser

from gemma_scope.cli import consoles, outputs
from gemma_scope.errors import TextError


class Report(Protocol):
  """What a verb gets from the library."""

  def to_html(self) -> str:
    """The page."""
    ...

  def to_dict(self) -> dict[str, Any]:
    """The numbers."""
    ...


def destinations(
  out: str, json_file: str | None
) -> tuple[pathlib.Path, pathlib.Path | None]:
  """Where page and numbers go, checked before the work; "-" is no file.

  Raises:
    GemmaScopeError: If one of them cannot be written.
  """
  page = outputs.check_destination(out, "--out")
  if json_file in (None, "-"):
    return page, None
  return page, outputs.check_destination(json_file, "--json")


def write(
  report: Report, page: pathlib.Path, data: pathlib.Path | None
) -> None:
  """Writes the page, and the numbers where they were asked for."""
  outputs.write_text(page, report.to_html())
  if data is not None:
    outputs.write_text(data, _to_json(report))


def show(
  report: Report,
  page: pathlib.Path,
  render: Callable[[], None],
  *,
  as_json: bool,
) -> None:
  """Prints the summary, or the JSON where that was asked for.

  Args:
    report: What was found.
    page: Where the page is.
    render: Prints the summary.
    as_json: Whether to print the numbers instead.
  """
  if not as_json:
    render()
    return
  consoles.results().file.write(_to_json(report))
  consoles.messages().print(f"Report: {page}", markup=False)


def open_page(page: pathlib.Path) -> None:
  """Opens the page in the browser, or says where it is."""
  if not webbrowser.open(page.as_uri()):
    consoles.messages().print(f"No browser was found; open {page.as_uri()}")


def check_length(length: int, most: int) -> None:
  """Refuses prompts that would take too long.

  Raises:
    TextError: If there are more tokens than --max-tokens says.
  """
  if length > most:
    raise TextError(
      "The prompt is too long.",
      received=f"{length:,} tokens; --max-tokens is {most:,}",
      instead="a shorter prompt, or a larger --max-tokens if time and memory "
      "allow",
    )


def _to_json(report: Report) -> str:
  return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
