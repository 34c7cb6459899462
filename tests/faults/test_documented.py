"""docs/faults.md claims nothing that no test shows, and every fault that is tested stands there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.faults.campaigns import ROOT

HERE = Path(__file__).parent


def names_below(folder: Path) -> Iterator[str]:
    """Names of all test functions."""
    for path in folder.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_each_claim_names_its_test_and_each_test_is_named() -> None:
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named - set(names_below(ROOT / "tests")) == set()
    ours = {name for name in names_below(HERE) if not name.startswith(("test_each_claim", "test_a_round"))}
    assert ours - named == set()
    table = text[text.index("## What is survived") : text.index("## What you see")]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "what happens" not in line]
    assert [row for row in rows if "`test_" not in row] == []
    assert re.findall(r"^\| F(\d+) \|", table, re.MULTILINE) == [str(number) for number in range(1, 16)]
