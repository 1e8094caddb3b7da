"""Notebooks run top to bottom, and their two files say the same."""

import pathlib

import jupytext
import nbclient
import nbformat
import pytest

import gemma_scope as gs

PROMPT = "When Mary and John went to the store, John gave a drink to"
FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "colabs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))

every_notebook = pytest.mark.parametrize("name", NAMES)


def read(name):
  return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def content(notebook):
  """What a reader sees; identifiers of cells say nothing."""
  kept = ("colab", "kernelspec", "language_info")
  metadata = {k: notebook.metadata.get(k) for k in kept}
  cells = [(c.cell_type, c.source, dict(c.metadata)) for c in notebook.cells]
  return metadata, cells


def test_every_notebook_is_a_pair():
  assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
  assert "01_quickstart" in NAMES


@every_notebook
def test_both_files_say_the_same(name):
  script = jupytext.read(FOLDER / f"{name}.py")
  assert content(read(name)) == content(script), (
    f"run: jupytext --update --to ipynb colabs/{name}.py"
  )


@every_notebook
def test_outputs_are_stripped(name):
  for cell in read(name).cells:
    if cell.cell_type == "code":
      assert (cell.outputs, cell.execution_count) == ([], None), cell.source


@every_notebook
def test_opens_in_colab(name):
  notebook = read(name)
  nbformat.validate(notebook)
  assert notebook.metadata.kernelspec.name == "python3"
  assert notebook.metadata.colab.name == f"{name}.ipynb"
  first, *_ = notebook.cells
  assert first.cell_type == "markdown"
  assert "To open it in Colab" in first.source


@every_notebook
def test_names_no_host(name):
  assert "://" not in "".join(cell.source for cell in read(name).cells)


@pytest.mark.parametrize(
  ("code", "error", "says"),
  [
    (
      "import urllib.request as r; r.urlopen('http://192.0.2.1/')",
      "RuntimeError",
      "reached for the network",
    ),
    ("warnings.warn('loud')", "UserWarning", "loud"),
  ],
  ids=["network", "warning"],
)
def test_rules_hold_in_the_kernel(code, error, says, execute):
  with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
    execute(nbformat.v4.new_notebook(), code)
  assert caught.value.ename == error
  assert says in caught.value.evalue


@every_notebook
def test_runs_on_a_tiny_model(name, execute, tiny_code):
  done = execute(read(name), tiny_code)
  for cell in done.cells:
    for output in cell.outputs:
      assert output.get("name") != "stderr", (cell.source, output.text)
      if output.output_type == "execute_result":
        assert "text/html" in output.data, cell.source


@pytest.fixture(scope="module")
def quickstart(execute):
  """The quickstart on the real weights."""
  return execute(read("01_quickstart"))


@pytest.mark.real
@pytest.mark.slow
class TestQuickstartTellsTheTruth:
  """What its text says about the real model is what its cells show."""

  def test_answer_appears_in_layer_12(self, quickstart):
    lines = quickstart.printed("lens.target_probs").splitlines()
    assert lines[11].startswith("resid_post[11] ")
    assert all("first: ' Mary'" not in line for line in lines[:12])
    assert all("first: ' Mary'" in line for line in lines[12:])

  def test_attention_wrote_it(self, quickstart):
    table = quickstart.shown("direct = gs.", "text/html")
    assert table.index("attn_write[12]") < table.index("attn_write[11]")
    assert table.index("attn_write[11]") < table.index("mlp_write")
    residual = float(quickstart.printed("direct = gs.").split()[-1])
    assert abs(residual) < 1e-3

  def test_head_looks_at_mary(self, real_lm):
    pattern = gs.capture(real_lm, PROMPT, ["pattern[12]"])["pattern[12]"]
    last = pattern[{"batch": 0, "heads": 1, "seq": -1}].unwrap("kv_seq")
    tokens = real_lm.tokenizer.encode_with_offsets(PROMPT).tokens
    assert tokens[int(last.argmax())] == " Mary"

  def test_scores_add_up(self, quickstart):
    numbers = quickstart.printed("scores = gs.").replace(",", "").split()
    total, residual = float(numbers[1]), float(numbers[3])
    assert total > 5
    assert abs(residual) < 0.05 * total

  def test_zero_baseline_does_not(self, real_lm):
    target = gs.attribution.logit_difference(" Mary", " John")
    options = gs.attribution.GradientOptions(steps=20, baseline="zero")
    scores = gs.attribute(real_lm, PROMPT, target, options=options)
    assert abs(scores.residual()[0]) > scores.target[0]

  def test_explains_and_continues_with_mary(self, quickstart):
    assert "continues with “Mary”" in quickstart.shown("gs.explain(")
    assert "Generation([' Mary" in quickstart.shown("gs.generate(")

  def test_surgery_changes_the_answer(self, quickstart):
    lines = quickstart.printed("for factor in").splitlines()
    without, as_it_is, twice = (float(line.split()[-1]) for line in lines)
    assert without < 0.5 < as_it_is < twice


@pytest.fixture(scope="module")
def surgery_notebook(execute):
  """The notebook on surgery, on the real weights."""
  return execute(read("03_surgery_and_steering"))


@pytest.mark.real
@pytest.mark.slow
class TestSurgeryTellsTheTruth:
  """What its text says about the real model is what its cells show."""

  def test_the_second_name_decides(self, surgery_notebook):
    lines = surgery_notebook.printed("source = gs.capture").splitlines()
    there, before = (float(line.split()[-1]) for line in lines)
    clean, other = (
      float(line.split()[-1])
      for line in surgery_notebook.printed("def margin").splitlines()
    )
    assert there < 0 < before
    assert abs(before - clean) < 0.05
    assert abs(there - other) < 0.5

  def test_the_order_matters(self, surgery_notebook):
    lines = surgery_notebook.printed("push, double").splitlines()
    assert [line.split()[-1] for line in lines] == ["2.00", "1.00"]

  def test_half_the_direction_does_most(self, surgery_notebook):
    change = {}
    for line in surgery_notebook.printed("for strength in").splitlines():
      label, language = line.split(":")[0], line.split(":")[1].split()[0]
      number = line.split("texts: ")[1].split()[0].replace("−", "-")
      change[label, language] = float(number)
    assert change["French x 0.5", "French"] < change["French x 1.0", "French"]
    assert change["French x 1.0", "French"] < 0
    assert change["French x 2.0", "French"] > 0
    assert all(n > 0 for (_, lang), n in change.items() if lang == "English")
    assert all(n > 0 for (label, _), n in change.items() if "random" in label)

  def test_kept_errors_change_nothing(self, surgery_notebook):
    lines = surgery_notebook.printed("sae = principal_dictionary").splitlines()
    few, many, kept = (line.split("texts: ")[1].split()[0] for line in lines)
    assert float(few) > float(many) > 1
    assert float(kept.replace("−", "-")) == 0
