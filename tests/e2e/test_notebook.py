"""The notebook of the documentation runs from its first cell to its last, in a kernel of its own."""

from __future__ import annotations

import json
import os

import pytest

from .conftest import REPOSITORY, environment

NOTEBOOK = REPOSITORY / "docs" / "quickstart.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow  # a kernel and two trainings
def test_the_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = dict(os.environ)
    os.environ.update(environment(MPLCONFIGDIR=str(tmp_path)))
    try:
        nbclient.NotebookClient(
            notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    text = json.dumps(notebook, ensure_ascii=False)
    assert "('completed'," in text
    assert "training.epochs=3" in text
    assert "'result.json'" in text
