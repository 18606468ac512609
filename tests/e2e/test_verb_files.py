"""A file of `cli/verbs/` brings its verbs, and one that is broken stops no other."""

from __future__ import annotations

import subprocess
import sys

from .conftest import environment

TOY = """
from dure.cli.app import verb

@verb("toy", place=1)
def toy() -> int:
    \'\'\'Say nothing.\'\'\'
    return 0
"""


def test_a_verb_is_one_file_and_a_broken_one_stops_no_other(tmp_path):
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    (tmp_path / "wrong_one.py").write_text("import nothing_like_it\n", encoding="utf-8")

    def run(*words):
        script = (
            "import dure.cli.verbs as verbs\n"
            f"verbs.__path__.append({str(tmp_path)!r})\n"
            f"from dure.cli import main\nmain({list(words)!r})"
        )
        return subprocess.run(
            [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
        )

    listed = run("--help").stdout
    assert listed.index("toy") < listed.index("train") < listed.index("wrong-one")
    assert "nothing_like_it" in listed
    assert run("toy").returncode == 0
    broken = run("wrong-one", "x", "--y")
    assert broken.returncode == 1
    assert "nothing_like_it" in broken.stderr
