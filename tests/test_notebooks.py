"""The course: every notebook runs, its exercises' solutions are right, and what is saved is what a newcomer may see."""

import ast
import importlib
import re

import nbclient
import nbformat
import pytest
from conftest import ROOT
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from run_notebooks import PICTURES, PLOTLY, client_of, environment, notebooks

PATHS = notebooks()
each = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(cell, tag):
    return tag in cell.metadata.get("tags", ())


def solved(notebook):
    """The notebook with every exercise answered by the folded solution that follows it; how many there are."""
    solutions = [
        re.search(r"```python\n(.*?)```", cell.source, re.S)[1]
        for cell in notebook.cells
        if cell.cell_type == "markdown" and cell.source.startswith("<details><summary>Solution")
    ]
    exercises = [cell for cell in notebook.cells if tagged(cell, "exercise")]
    for cell, solution in zip(exercises, solutions, strict=True):
        cell.source = solution
    return len(exercises)


def printed(cell):
    return "".join(output.get("text", "") for output in cell.get("outputs", ()))


@pytest.fixture(scope="module")
def kernel():
    """One for all, since starting one takes longer than most notebooks do; `make notebooks` gives each its own."""
    manager = AsyncKernelManager(kernel_name="python3")
    run_sync(manager.start_kernel)(env=environment(smoke=True))
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@each
def test_it_runs_from_top_to_bottom_and_its_solutions_are_right(kernel, path, tmp_path):
    notebook = read(path)
    count = solved(notebook)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset_selective -f .\n%cd -q {tmp_path}"))
    try:
        client_of(notebook, km=kernel).execute()
    except nbclient.exceptions.CellExecutionError as error:
        pytest.fail(f"{path.name}: {error}")
    verdicts = [printed(cell).strip() for cell in notebook.cells if tagged(cell, "check")]
    assert count >= 2 and verdicts == ["Right."] * count


@each
def test_it_is_saved_with_outputs_and_pictures_and_no_error(path):
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    figures = [output for output in outputs if PLOTLY in output.get("data", {})]
    assert figures
    for output in figures:
        assert output.data["image/svg+xml"].startswith('<svg role="img" aria-label="')
        assert len(output.data["text/plain"]) > 20 and "image/png" not in output.data
    assert path.stat().st_size < 400_000


@each
def test_it_shows_no_path_of_the_machine_it_was_made_on(path):
    text = path.read_text()
    assert not re.search(r"/(home|root|tmp|work|Users|usr|opt|var)/", text), re.search(r".{40}/(home|root|tmp)/", text)


@each
def test_unanswered_exercises_wait(path):
    notebook = read(path)
    exercises = [cell for cell in notebook.cells if tagged(cell, "exercise")]
    assert all("..." in cell.source for cell in exercises)
    assert all("Waiting" in printed(cell) for cell in notebook.cells if tagged(cell, "check"))


@each
def test_what_it_imports_from_the_lab_exists(path):
    for cell in read(path).cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in {"labkit", "app"}:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


@each
def test_it_opens_as_promised_and_shows_a_picture_soon(path):
    cells = read(path).cells
    head = cells[0].source
    assert head.startswith(f"# {path.name[:2]} · ")
    for part in ("you will be able to", "**Time:**", "**Memory:**", "**Downloads:** none"):
        assert part in head
    assert "- ·" not in head, "not yet measured: python -m tests.run_notebooks"
    first = next(i for i, cell in enumerate(cells) if any(PLOTLY in o.get("data", {}) for o in cell.get("outputs", ())))
    assert first <= 12


def test_links_and_the_readme_lead_somewhere():
    readme = (ROOT / "notebooks" / "README.md").read_text()
    for path in [*PATHS, ROOT / "notebooks" / "README.md"]:
        text = readme if path.suffix == ".md" else "\n".join(cell.source for cell in read(path).cells)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
    for path in PATHS:
        assert f"({path.name})" in readme
        assert f'src="pictures/{path.name[:2]}.svg"' in readme


@each
def test_the_picture_in_the_readme_is_one_of_the_notebooks_own(path):
    shown = (PICTURES / f"{path.name[:2]}.svg").read_text()
    assert shown in [o.data.get("image/svg+xml") for c in read(path).cells for o in c.get("outputs", ()) if "data" in o]
