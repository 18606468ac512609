"""The advised command makes a table, whatever the file is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dure.data.sources import literal, to_parquet


@pytest.mark.parametrize("name", ["t.csv", 'it\'s "mine" $HOME.csv', "표 `1`\\n.csv"])
def test_the_command_reads_the_file_and_writes_the_table_beside_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("text\tlabel\n좋아요\t1\n", encoding="utf-8")
    command = to_parquet("pandas.read_csv", path, f"sep={literal(chr(9))}")
    assert command.startswith("python -c ")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    assert pd.read_parquet(path.with_suffix(".parquet")).to_dict("list") == {"text": ["좋아요"], "label": [1]}
