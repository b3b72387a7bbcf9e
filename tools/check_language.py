"""Count vague names and archaic phrases; fail if there are more of them than the limits allow.

Run `python -m tools.check_language` for the counts, with `--list KIND` for the locations of one kind, and
with `--lower` to write the current counts as new limits once they have fallen. Limits never rise.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMITS = Path(__file__).with_name("language_limits.json")

VAGUE_NAMES = frozenset(
    [
        "before",
        "chosen",
        "found",
        "given",
        "here",
        "kept",
        "known",
        "left",
        "made",
        "named",
        "one",
        "own",
        "place",
        "said",
        "seen",
        "shown",
        "taken",
        "told",
    ]
)
"""Names of variables that do not say what they hold."""

FRAGMENT = re.compile(
    r"(Of|By|Those|That|So|Beside|Behind|Below|What|Which|Who|Whoever|Where|How|As|The same)\b(?! is\b.*\?)"
)
"""Start of a docstring without a subject or a verb."""

PHRASES = {
    r"\banew\b": "again, from scratch",
    r"\breckon(ed|s|ing)?\b": "estimate",
    r"\bto be had\b": "available",
    r"\b(is|are|was|were|be|been) told\b|\btold of\b|\btells? of\b": "report",
    r"\bleft out\b": "skipped, omitted",
    r"\btaken up\b|\bgone on with\b|\bgoes on from\b": "resumed",
    r"\b(hold|held|holds) against\b": "compare with",
    r"\btold apart\b": "distinguished",
    r"\bcomes? to (its|their|an) end\b": "finish",
    r"\bhas no word\b|\bhas a word\b": "does not predict",
    r"\bnobody\b|\bwhoever\b|\bsomebody\b": "no process, the user",
    r"(?<![\"`])\bbeside\b": "in addition to, next to",
    r"\bwhat trains\b|\bwhat came of\b": "name the subject",
    r"\bhand(s|ed)? on\b": "pass on",
    r"\bso many\b": "n",
    r"\bhas no use\b": "cannot be combined with",
    r"(?<!there )\bare no\b [a-z]+s\b": "are not …",
}
"""Phrases that are archaic or telegraphic, each with a plain one."""

ONE_WORD = "public functions of one word, per cent"
VAGUE = "vague names, per 1,000 bindings"
FRAGMENTS = "docstrings that are fragments"
DUPLICATES = "class names that stand for several things"
PHRASE = "phrases to write in plain English"


@dataclass(frozen=True)
class Count:
    """One figure, with every location that contributes to it."""

    kind: str
    value: float
    locations: tuple[str, ...]


def main() -> int:
    """Print the counts and return 1 if one exceeds its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", metavar="KIND", help="print the locations of kinds that contain KIND")
    parser.add_argument("--lower", action="store_true", help="write lower counts as new limits")
    options = parser.parse_args()
    limits: dict[str, float] = json.loads(LIMITS.read_text(encoding="utf-8")) if LIMITS.is_file() else {}
    counts = list(measure(ROOT))
    for count in counts:
        if options.list and options.list in count.kind:
            print("\n".join(count.locations))
    exceeded = [count for count in counts if count.value > limits.get(count.kind, float("inf"))]
    for count in counts:
        mark = "  EXCEEDED" if count in exceeded else ""
        print(f"{count.value:8.1f}  {count.kind} (limit {limits.get(count.kind, '–')}){mark}")
    if options.lower:
        fallen = {count.kind: min(count.value, limits.get(count.kind, count.value)) for count in counts}
        LIMITS.write_text(json.dumps(fallen, indent=2) + "\n", encoding="utf-8")
    for count in exceeded:
        print(f"more {count.kind} than before; see --list '{count.kind[:12]}'", file=sys.stderr)
    return int(bool(exceeded))


def measure(root: Path) -> Iterator[Count]:
    """Yield the counts of all tracked files of a checkout."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md", "*.yaml"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    paths = [root / name for name in tracked if name and not name.startswith("tools/")]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths if path.suffix == ".py"}
    package = {path: tree for path, tree in trees.items() if path.relative_to(root).parts[0] == "initbench"}

    def location(path: Path, line: int, text: str) -> str:
        return f"{path.relative_to(root)}:{line}: {text}"

    yield _vague_names(package, location)
    yield _one_word_functions(package, location)
    yield _fragments(trees, location)
    yield _duplicate_classes(package, location)
    yield _phrases(paths, location)


Location = Callable[[Path, int, str], str]


def _vague_names(trees: dict[Path, ast.Module], location: Location) -> Count:
    bindings = [(path, node.lineno, name) for path, tree in trees.items() for node, name in _bindings(tree)]
    with_right = {path for path, _, name in bindings if name == "right"}
    locations = [
        location(path, line, name)
        for path, line, name in bindings
        if name in VAGUE_NAMES and not (name == "left" and path in with_right)  # the sides of an operator
    ]
    return Count(VAGUE, round(1000 * len(locations) / len(bindings), 1), tuple(locations))


def _bindings(tree: ast.Module) -> Iterator[tuple[ast.Name | ast.arg, str]]:
    """Yield every name that is assigned, and every parameter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node, node.id
        elif isinstance(node, ast.arg):
            yield node, node.arg


def _one_word_functions(trees: dict[Path, ast.Module], location: Location) -> Count:
    functions = [
        (path, node)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    locations = [location(path, node.lineno, node.name) for path, node in functions if "_" not in node.name]
    return Count(ONE_WORD, round(100 * len(locations) / len(functions), 1), tuple(locations))


def _fragments(trees: dict[Path, ast.Module], location: Location) -> Count:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    locations = [
        location(path, getattr(node, "lineno", 1), docstring.splitlines()[0])
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, documented)
        and (docstring := ast.get_docstring(node))
        and FRAGMENT.match(docstring)
    ]
    return Count(FRAGMENTS, len(locations), tuple(locations))


def _duplicate_classes(trees: dict[Path, ast.Module], location: Location) -> Count:
    definitions: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                definitions[node.name.lstrip("_")].append(location(path, node.lineno, node.name))
    several = [locations for locations in definitions.values() if len(locations) > 1]
    return Count(DUPLICATES, len(several), tuple(text for locations in several for text in locations))


def _phrases(paths: Iterable[Path], location: Location) -> Count:
    locations = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for phrase, plain in PHRASES.items():
                for match in re.finditer(phrase, line, re.IGNORECASE):
                    locations.append(location(path, number, f"“{match[0]}” → {plain}"))
    return Count(PHRASE, len(locations), tuple(locations))


if __name__ == "__main__":
    sys.exit(main())
