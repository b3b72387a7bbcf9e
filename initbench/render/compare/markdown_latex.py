"""Comparison tables in GitHub's Markdown and in LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from initbench.render.compare.table import ComparisonTable, TableCell

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "∂": r"$\partial$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "φ": r"$\varphi$",
    "σ": r"$\sigma$",
    "²": r"$^{2}$",
    "⌈": r"$\lceil$",
    "⌉": r"$\rceil$",
}
"""LaTeX code of each special character; braces keep a bracket from being parsed as an option of `\\\\`."""
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~&$])")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def to_markdown(blocks: Sequence[ComparisonTable]) -> str:
    """Return the blocks as Markdown: bold titles, pipe tables and their notes."""
    return "\n".join(_markdown_block(block) for block in blocks)


def _markdown_block(block: ComparisonTable) -> str:
    lines = [f"**{markdown_text(block.title)}**", ""] if block.title else []
    if block.picture:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "\n".join(block.picture))), default=0))
        lines += [f"{fence}text", *block.picture, fence, ""]
    elif block.headings:
        marks = ["---" if heading in block.left_aligned else "---:" for heading in block.headings]
        lines += [_piped(map(markdown_text, block.headings)), _piped(marks)]
        lines += [_piped(_markdown_cell(cell) for cell in row) for row in block.rows] + [""]
    for note in [*block.notes, *block.warnings]:
        lines += [markdown_text(note), ""]
    return "\n".join(lines)


def _piped(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: TableCell) -> str:
    letters = f" {cell.letters}" if cell.letters else ""
    return markdown_text(cell.text) + letters


def markdown_text(words: str) -> str:
    """Escape text for Markdown; underscores inside words, as in most names, need no escape."""
    return _EDGE_UNDERSCORE.sub(r"\\_", _MARKDOWN.sub(r"\\\1", words))


def to_latex(blocks: Sequence[ComparisonTable]) -> str:
    r"""Return the blocks as LaTeX: one `tabular` each and its notes; requires `\usepackage{booktabs}`."""
    return "\n".join(["% \\usepackage{booktabs}", *map(_latex_block, blocks)])


def _latex_block(block: ComparisonTable) -> str:
    lines = [rf"\noindent\textbf{{{latex_text(block.title)}}}\par\smallskip"] if block.title else []
    if block.picture:
        # A name that contains \end{verbatim} must not end the verbatim environment.
        picture = [line.replace("\\end{", "\\ end{") for line in block.picture]
        lines += [r"\begin{verbatim}", *picture, r"\end{verbatim}"]
    elif block.headings:
        columns = "".join("l" if heading in block.left_aligned else "r" for heading in block.headings)
        lines += [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(map(latex_text, block.headings)),
        ]
        lines += [r"\midrule", *(_latex_row(map(_latex_cell, row)) for row in block.rows)]
        lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [latex_text(note) for note in [*block.notes, *block.warnings]]
    return "\n".join([*lines, *(rf"\par{{\footnotesize {note}}}" for note in notes), ""])


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: TableCell) -> str:
    return latex_text(cell.text) + (f"$^{{\\mathrm{{{cell.letters}}}}}$" if cell.letters else "")


def latex_text(words: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in words)
