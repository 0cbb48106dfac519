"""Execute the notebooks and save them with their outputs, a static picture of every figure, and the time they took.

python -m tests.run_notebooks [NAME ...]      # all of notebooks/*.ipynb, or those whose names begin so
python -m tests.run_notebooks --pictures      # draw the pictures anew and run nothing

Each runs from top to bottom in an empty folder, so that what is saved is what a newcomer gets. Pictures need Chromium;
they are for places that do not draw plotly (a code host, a printed page); JupyterLab draws the figure itself. They are
SVG because JupyterLab's plotly renderer would show a PNG instead of drawing the figure, and a picture has no slider.
"""

import argparse
import html
import os
import re
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import nbformat
import plotly
import torch
from nbclient import NotebookClient
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent))

from app_server import browsing

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
PICTURES = FOLDER / "pictures"
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH = 760
DRAW = """async ({data, layout}, width) => {
  const dark = {...layout.font, color: "#27272a"};
  const white = {...layout, width, paper_bgcolor: "#fff", plot_bgcolor: "#fff", font: dark};
  const size = {format: "svg", width, height: layout.height || 400};
  return Plotly.toImage({data, layout: white}, size);
}"""


def notebooks(names=()):
    """The notebooks whose file names begin with one of `names`; all for none."""
    return [path for path in sorted(FOLDER.glob("*.ipynb")) if not names or path.name.startswith(tuple(names))]


def environment(smoke=False):
    """The environment variables of a notebook's kernel."""
    own = {"LABKIT_SMOKE": "1" if smoke else "0", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **own, "PYTHONPATH": paths}


def client_of(notebook, **where):
    """What runs a notebook's cells: in a kernel of its own in a folder (`resources`), or in the running kernel `km`."""
    return NotebookClient(
        notebook, timeout=1200, kernel_name="python3", record_timing=False, coalesce_streams=True, **where
    )


def execute(notebook, folder):
    """Run all cells in a fresh kernel in `folder`; returns seconds and the kernel's peak memory in bytes (Linux)."""
    peak, began = [0], time.perf_counter()
    client = client_of(notebook, resources={"metadata": {"path": str(folder)}})

    def look(**_):
        peak[0] = max(peak[0], _peak(client.km.provisioner.pid))

    client.on_cell_executed = look
    client.on_cell_error = look
    client.execute(env=environment())
    return time.perf_counter() - began, peak[0]


def _peak(pid):
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def canvas(browser):
    """A page with plotly in it."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 600})
    page.add_script_tag(path=Path(plotly.__file__).parent / "package_data" / "plotly.min.js")
    return page


def picture(page, figure):
    """A figure of the lab, as plotly's JSON, as SVG with its sentence for those who do not see it."""
    drawn = page.evaluate(f"([figure, width]) => ({DRAW})(figure, width)", [figure, WIDTH])
    alt = html.escape(figure["layout"]["meta"]["alt"])
    return urllib.parse.unquote(drawn.partition(",")[2]).replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)


def illustrate(notebook, page):
    """Give every plotly output a static picture."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        data = output.get("data", {})
        if PLOTLY not in data:
            continue
        figure = data[PLOTLY]
        data["image/svg+xml"] = picture(page, figure)
        data["text/plain"] = figure["layout"]["meta"]["alt"]


def keep_picture(path, notebook):
    """The picture of the cell tagged `picture` goes into the folder's table."""
    [cell] = [cell for cell in notebook.cells if "picture" in cell.metadata.get("tags", ())]
    [svg] = [output.data["image/svg+xml"] for output in cell.outputs if "image/svg+xml" in output.get("data", {})]
    (PICTURES / f"{path.name[:2]}.svg").write_text(svg, encoding="utf-8")


def stamp(path, notebook, seconds, peak):
    """Write the measured time and memory into the notebook's first cell and into the folder's README."""
    spent = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
    threads = f"{torch.get_num_threads()} CPU thread{'s' * (torch.get_num_threads() > 1)}"
    head = re.sub(r"\*\*Time:\*\* [^·]*·", f"**Time:** {spent} on {threads} ·", notebook.cells[0].source)
    notebook.cells[0].source = re.sub(r"\*\*Memory:\*\* [^·]*·", f"**Memory:** {peak / 1e9:.1f} GB ·", head)
    readme = FOLDER / "README.md"
    row = rf"(\| \[[^]]*\]\({re.escape(path.name)}\) \| )[^|]*\|"
    readme.write_text(re.sub(row, rf"\g<1>{spent} |", readme.read_text()))


def save(path, notebook):
    """Write the notebook without what differs from machine to machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, version=4) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--pictures", action="store_true")
    given = parser.parse_args()
    with sync_playwright() as engine, browsing(engine) as browser:
        page = canvas(browser)
        for path in notebooks(given.names):
            notebook = nbformat.read(path, as_version=4)
            if not given.pictures:
                with tempfile.TemporaryDirectory() as folder:
                    stamp(path, notebook, *execute(notebook, folder))
            illustrate(notebook, page)
            keep_picture(path, notebook)
            save(path, notebook)
            took = re.search(r"\*\*Time:.*", notebook.cells[0].source)[0]
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB; {took}", file=sys.stderr)


if __name__ == "__main__":
    main()
