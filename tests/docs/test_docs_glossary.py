"""docs/glossary.md defines every symbol that tables and sentences print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from initbench.components.activation import SATURATED_BELOW
from initbench.theory.depth_scales import TRAINABLE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = [
    re.split(r"(?<!\\)\|", line)[1:-1]
    for line in PAGE.splitlines()
    if re.match(r"\| (?!---|symbol|term)", line)
]
DEFINED = {name for row in ROWS for name in (re.findall(r"`([^`]+)`", row[0]) or [row[0].strip()])}
PRINTING = ("render", "analysis", "probing", "linting")
SYMBOL = re.compile(r"E\[[^\]]*\]|q\*|[A-Za-zΑ-ω]*[Α-ω][\w²₀-₉∥′*]*|‖(\w′?)")
REQUIRED = (
    *("q", "σ_w²", "σ_b²", "χ₁", "χ∥", "ξ", "E[δ²]", "c", "gain", "fan_in", "fan_out", "saturation", "dead"),
    *("sparsity", "arm", "row", "variant", "run", "experiment", "cohort", "probe"),
)


def _printed(source: str) -> Iterator[str]:
    """Yield the symbols in the strings of a file, except its docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            for match in SYMBOL.finditer(node.value):
                yield match[1] or match[0]


SYMBOLS = sorted(
    {
        symbol
        for folder in PRINTING
        for path in (ROOT / "initbench" / folder).rglob("*.py")
        for symbol in _printed(path.read_text(encoding="utf-8"))
    }
)


def test_symbols_are_seen():
    assert {"E[δ²]", "σ_w²", "χ₁", "χ∥", "ξ", "q*", "γ"} <= set(SYMBOLS)
    assert list(_printed('"""About ζ."""\nx = f"{1} ψ₂ of E[y²]"')) == ["ψ₂", "E[y²]"]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_printed_symbol_is_defined(symbol: str):
    assert symbol in DEFINED or symbol == "σ"  # a part of σ_w, replaced on ASCII terminals


@pytest.mark.parametrize("word", REQUIRED)
def test_a_word_is_defined(word: str):
    assert word in DEFINED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_a_row_is_whole(row: list[str]):
    assert len(row) == 5 and all(cell.strip() for cell in row)


@pytest.mark.parametrize(
    "heading", ["std", "zeros %", "dead %", "saturated %", "E[δ²] first/last", "δ² ratio", "steps to"]
)
def test_a_heading_is_explained(heading: str):
    assert f"*{heading}*" in PAGE or heading in DEFINED


def test_numbers_are_those_of_the_code():
    assert f"{SATURATED_BELOW:g}·max" in PAGE and f"about {TRAINABLE:g} ξ" in PAGE


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(f"docs/{name}.md" for name in ("tutorial", "compare", "ci", "diagnosis", "lint", "how-it-works")),
    ],
)
def test_pages_link_to_it(page: str):
    assert "glossary.md" in (ROOT / page).read_text(encoding="utf-8")
