"""The documents: their code runs, their links and pictures are there, and the site lists every page.

The blocks of a page run in order, in one namespace and in an empty folder. What a page takes for granted (data, a
model, a search) is a stand-in here: see `namespace_of`. A block that cannot run anywhere says why in an HTML comment
before it: `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import autolr

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
NOTEBOOK = ROOT / "examples" / "mnist_autolr.ipynb"
# Searches and trainings by the dozen; by default the README runs, which has a search, and `report.md`.
SLOW = {"coming-from.md", "how-it-works.md", "index.md", "schedules.md", "tuners.md"}
MAY_NOT_RUN = {"coming-from.md": 2}  # code of other libraries

BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int  # of its first line of code
    code: str
    reason: str | None  # not to run it


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    found = BLOCK.finditer(text)
    return [Block(text.count("\n", 0, m.start("code")) + 1, m["code"], m["reason"]) for m in found]


def images():
    """Ten classes that can be told apart, in the shape of MNIST; enough that a range test is not many tiny epochs."""
    rng = np.random.default_rng(0)
    y = np.arange(320) % 10
    return (rng.random((10, 28, 28))[y] + 0.3 * rng.random((320, 28, 28))).astype("float32"), y


def classifier():
    import keras

    layers = [keras.layers.Flatten(), keras.layers.Dense(16, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def finished_search(folder):
    """As little of a search's folder as a report can be made of."""
    (folder / "trial_0").mkdir(parents=True)
    metrics = {"val_loss": {"direction": "min", "observations": [{"value": [0.5], "step": 1}]}}
    trial = {"trial_id": "0", "hyperparameters": {"space": [], "values": {"units": 8}}, "metrics": {"metrics": metrics}}
    trial.update({"score": 0.5, "best_step": 1, "status": "COMPLETED", "message": None})
    (folder / "trial_0" / "trial.json").write_text(json.dumps(trial))
    oracle = {"ongoing_trials": {}, "start_order": ["0"], "end_order": ["0"], "hyperparameters": {"space": []}}
    (folder / "oracle.json").write_text(json.dumps(oracle))


def namespace_of(page, folder):
    """What the reader of a page has at hand."""
    x, y = images()
    if page.name == "report.md":
        finished_search(folder / "runs" / "mnist")
    return {"__name__": f"blocks of {page.name}", "model": classifier(), "x": x, "y": y}


def run_blocks(page, namespace):
    for block in blocks_of(page):
        if block.reason is None:
            # The blank lines make a traceback name the line of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if blocks_of(page)
    ],
)
@pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning")  # tiny data have rough curves
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    run_blocks(page, namespace_of(page, tmp_path))
    pyplot.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_code_compiles_and_few_are_not_run(page):
    blocks = blocks_of(page)
    assert len(blocks) == len(re.findall(r"^\s*```py", page.read_text(encoding="utf-8"), re.MULTILINE))
    for block in blocks:
        compile(block.code, f"{page.name}, line {block.line}", "exec")
    assert sum(block.reason is not None for block in blocks) == MAY_NOT_RUN.get(page.name, 0)


def test_a_failing_block_is_reported_with_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\na = 1\n```\n\ntext\n\n```python\nb = a\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks(page, {})
    assert caught.traceback[-1].lineno + 1 == 11


def anchors_of(page):
    """The anchors that the site and code hosts make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(\s*([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors_of(path), f"{page.name} links to {target}"
        if page.parent == DOCS:
            assert path.is_relative_to(DOCS), f"{target} is not on the site"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_described(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert all(len(described) > 10 for described in re.findall(r"!\[(.*?)\]\(", text))


def test_no_picture_is_left_over():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [path.name for path in (DOCS / "img").iterdir() if f"img/{path.name}" not in text] == []


def test_the_site_lists_every_page_once():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = settings.partition("\nnav:\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"(\S+\.md)$", nav, re.MULTILINE)) == sorted(page.name for page in DOCS.glob("*.md"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_the_network_for_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="builds the site: pip install 'keras-autolr[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= set(pages)
    for text in pages.values():
        loaded = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?([^\"'\s>]+)", text)
        assert loaded
        assert [target for target in loaded if re.match(r"(https?:)?//", target)] == []
    assert pages["how-it-works"].count("<math") == (DOCS / "how-it-works.md").read_text(encoding="utf-8").count(
        "```math"
    )
    assert all(f'id="autolr.{name}"' in pages["reference"] for name in autolr.__all__)


def test_the_reference_has_every_public_name_once():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: autolr\.(\w+)$", text, re.MULTILINE)) == sorted(autolr.__all__)


def test_the_tuner_guide_has_every_option():
    import inspect

    text = (DOCS / "tuners.md").read_text(encoding="utf-8")
    parameters = inspect.signature(autolr.AutoLRMixin.__init__).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", text.partition("## Options")[2], re.MULTILINE))
    written = {
        name: json.loads(value.strip("`").replace("False", "false")) for name, value in rows.items() if name in options
    }
    assert written == options


def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def source_of(cell):
    return "".join(cell["source"])


def test_the_notebook_has_no_outputs_and_its_code_compiles():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in code:
        compile(source_of(cell), NOTEBOOK.name, "exec")
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """With little data and few trials, set in its cell of parameters."""
    pytest.importorskip("ipykernel", reason="needs a Jupyter kernel: pip install 'keras-autolr[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="runs notebooks: pip install 'keras-autolr[notebook]'")
    import nbformat

    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own shows pictures in the notebook
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "data").mkdir()
    shutil.copy(NOTEBOOK.parent / "data" / "mnist_sample.npz", tmp_path / "data")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    small = {"NUM_IMAGES": 400, "TRIALS": 2, "EPOCHS": 2}
    for name, value in small.items():
        parameters.source, found = re.subn(
            rf"^{name} = \d+", f"{name} = {value}", parameters.source, flags=re.MULTILINE
        )
        assert found == 1
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 4
    assert not [output for output in outputs if output.output_type == "error"]
