"""The formats of a comparison, read back; and that no name breaks a table in any of them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from compared import FACTS, LONGER
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from initbench.analysis.baseline import compare_to_baseline, letter_display, mean_interval_of
from initbench.analysis.metrics import METRICS
from initbench.analysis.run_summary import RunSummary
from initbench.analysis.tables import Table, build_tables
from initbench.errors import UsageError
from initbench.render.compare.display_options import SUFFIXES, View, format_of
from initbench.render.compare.markdown_latex import latex_text, markdown_text
from initbench.render.compare.output import render_comparison, save_comparison
from initbench.render.run_documents import compare_document
from initbench.render.text import one_line
from initbench.store import strict_json

BY = ("init.scheme", "model.norm")
FORMATS = ("table", "markdown", "csv", "json", "latex")
ODD = [
    "[red]odd[/red]",
    "two\nlines\r\n\x1b[31mred",
    "a | b \\| c & d \\\\ $x_1$ #2 %3 {4} ^5 ~6",
    "=1+1",
    "-2",
    '@sum, "quoted"',
    "x" * 200,
    "漢字 ｗｉｄｅ é",
    "_edge_ *star* `code` <b>",
    " ",
]

ALWAYS_LISTED = [name for name, metric in METRICS.items() if not metric.is_optional]
"""The metrics that are listed without a value, too."""


def in_format(wanted: str, runs: list[RunSummary] = FACTS, by: tuple[str, ...] = (), **view: Any) -> str:
    return render_comparison(build_tables(runs, by=by), View(format=wanted, **view))  # type: ignore[arg-type]


def renamed(names: list[str]) -> list[RunSummary]:
    """The runs under other names, an index behind each so that no two are the same."""
    old = list(dict.fromkeys(run.experiment for run in FACTS))
    new = {one: f"{name}{i}" for i, (one, name) in enumerate(zip(old, names, strict=False))}
    return [dataclasses.replace(run, experiment=new.get(run.experiment, run.experiment)) for run in FACTS]


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def number(text: str) -> float | None:
    return float(text) if text else None


# CSV


def test_csv_has_a_line_for_each_table_row_and_metric_with_the_numbers_of_the_tables() -> None:
    found = build_tables(LONGER)
    lines = parsed(in_format("csv", LONGER, baseline="kaiming"))
    assert len(lines) == sum(len(table.rows) for table in found) * (len(ALWAYS_LISTED) + 1)
    at = {(line["steps"], line["row"], line["metric"]): line for line in lines}
    for table in found:
        baseline = next(row for row in table.rows if row.label == "kaiming")
        against = {name: compare_to_baseline(table, baseline, name) for name in ALWAYS_LISTED}
        for row in table.rows:
            for name in ALWAYS_LISTED:
                summary = row.metrics[name]
                line = at[str(table.conditions.steps), row.label, name]
                assert (number(line["mean"]), number(line["std"])) == (summary.mean, summary.std)
                assert (int(line["n"]), int(line["runs"])) == (summary.n, row.n)
                interval = mean_interval_of(row, name)
                assert number(line["ci_low"]) == (interval.low if interval else None)
                if row is not baseline:
                    expected = against[name][row.label]
                    assert number(line["difference"]) == expected.difference.difference
                    assert number(line["p_adjusted"]) == expected.p_adjusted
                    assert line["verdict"] == str(expected.verdict)
            rate = at[str(table.conditions.steps), row.label, "divergence_rate"]
            assert number(rate["mean"]) == row.diverged / row.n


def test_csv_has_the_keys_that_make_the_rows_and_the_metrics_asked_for() -> None:
    lines = parsed(in_format("csv", by=BY, metrics=("test_accuracy",)))
    assert {line["metric"] for line in lines} == {"test_accuracy", "divergence_rate"}
    assert {(line["key:init.scheme"], line["key:model.norm"]) for line in lines} >= {("lsuv", "batch")}
    text = in_format("csv")
    assert text.count("\r\n") == text.count("\n") > 1


def test_text_that_a_spreadsheet_would_run_is_marked() -> None:
    lines = parsed(in_format("csv", renamed(["=1+1", "-2", "@x", "+3", "=\tx"])))
    for line in lines:
        assert not line["row"].startswith(("=", "+", "-", "@")), line["row"]
        assert line["row"].startswith("'")
    losses = [
        line for line in parsed(in_format("csv", baseline="kaiming")) if line["difference"].startswith("-")
    ]
    assert losses, "numbers keep their sign"


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("layers", [False, True])
def test_no_format_prints_the_control_characters_of_a_name(wanted: str, layers: bool) -> None:
    text = in_format(wanted, renamed(["a\x1b[31m\x07", "\rb\tc", "d\x9b2J"]), layers=layers)
    assert not set("\x1b\x07\t\x9b") & set(text)
    assert "\r" not in text.replace("\r\n", "")


# JSON

NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}, {"type": "null"}]}
CI = {"anyOf": [{"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}, {"type": "null"}]}


def keys(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


HELD = keys(
    difference=NUMBER,
    ci=CI,
    p_adjusted=NUMBER,
    effect_size=NUMBER,
    verdict={"type": "string"},
    seeds_needed=NUMBER,
)
ROW = keys(
    key={"type": "object"},
    label={"type": "string"},
    varies={"type": "object"},
    letters={"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
    metrics=keys(
        **{name: keys(mean=NUMBER, std=NUMBER, n={"type": "integer"}, ci=CI) for name in ALWAYS_LISTED}
    ),
    versus_baseline={"anyOf": [keys(**dict.fromkeys(ALWAYS_LISTED, HELD)), {"type": "null"}]},
)
DOCUMENT = keys(
    schema={"const": "initbench.compare/1"},
    by={"type": "array", "items": {"type": "string"}},
    baseline={"type": "string"},
    confidence={"type": "number"},
    tables={"type": "array", "items": keys(rows={"type": "array", "items": ROW})},
)


def test_json_has_intervals_letters_and_differences() -> None:
    document = strict_json.loads(in_format("json", LONGER, baseline="kaiming", confidence=0.9))
    Draft202012Validator(DOCUMENT).validate(document)
    assert (document["baseline"], document["confidence"], document["by"]) == ("kaiming", 0.9, [])
    table = build_tables(LONGER)[0]
    letters = letter_display(table, "test_accuracy", 0.9)
    for row, told in zip(table.rows, document["tables"][0]["rows"], strict=True):
        interval = mean_interval_of(row, "test_accuracy", 0.9)
        expected = [interval.low, interval.high] if interval else None
        assert told["metrics"]["test_accuracy"]["ci"] == expected
        assert told["letters"].get("test_accuracy") == letters.get(row.label)
    assert [row["versus_baseline"] is None for row in document["tables"][0]["rows"]].count(True) == 1


def test_json_without_a_baseline_has_no_differences() -> None:
    document = json.loads(in_format("json", by=BY[:1]))
    assert (document["by"], document["baseline"]) == (["init.scheme"], None)
    rows = document["tables"][0]["rows"]
    assert all("versus_baseline" not in row for row in rows)
    assert {tuple(row["varies"])[:1] for row in rows} == {(), ("model.norm",)}


def test_the_order_of_rows_is_that_asked_for() -> None:
    document = compare_document(build_tables(FACTS), View(sort="label"))
    labels = [row["label"] for row in document["tables"][0]["rows"]]
    assert labels == sorted(labels)


# Markdown and LaTeX


def columns_of(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line)))


def assert_markdown(text: str) -> None:
    block: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("| "):
            block.append(line)
        elif block:
            assert len({columns_of(one) for one in block}) == 1, block
            assert re.fullmatch(r"\|( ---:? \|)+", block[1])
            block = []


def assert_latex(text: str) -> None:
    plain = re.sub(r"\\[\\{}$&#%_]", "", text.replace(r"\\", ""))
    depth = 0
    for sign in plain:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0 and plain.count("$") % 2 == 0
    assert text.count(r"\begin{") == text.count(r"\end{")
    for table in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", text, re.DOTALL):
        rows = [line for line in table[1].split("\n") if line.endswith(r"\\")]
        assert all(len(re.findall(r"(?<!\\)&", row)) == len(table[0]) - 1 for row in rows), rows


@pytest.mark.parametrize(
    "view",
    [
        {},
        {"view": "activation"},
        {"metrics": ("test_accuracy",)},
        {"only_changed": True},
        {"baseline": "kaiming"},
    ],
)
def test_markup_is_well_formed(view: dict[str, Any]) -> None:
    assert_markdown(in_format("markdown", LONGER, **view))
    assert_latex(in_format("latex", LONGER, **view))
    assert_markdown(in_format("markdown", by=BY, plot=view == {}))
    assert_latex(in_format("latex", by=BY, plot=view == {}))


def test_latex_uses_booktabs_and_sets_letters_high() -> None:
    text = in_format("latex")
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"$\pm$" in text and r"$^{\mathrm{a}}$" in text
    assert latex_text(r"50 % of a_b & {c}\d") == r"50 \% of a\_b \& \{c\}\textbackslash{}d"


def test_markdown_escapes_what_it_would_read() -> None:
    assert markdown_text("a|b *c* _d_ relu_kaiming") == r"a\|b \*c\* \_d\_ relu_kaiming"


# Odd names


def assert_unbroken(names: list[str]) -> None:
    """Every format has as many lines and columns as with plain names, and every name is in it."""
    plain, odd = FACTS, renamed(names)
    labels = [one_line(run.experiment) for run in odd]
    text = in_format("table", odd)
    assert len(text.splitlines()) == len(in_format("table", plain).splitlines())
    rows = text.splitlines()[3:8]
    for row in rows:
        label = max((label for label in labels if row.startswith(label)), key=len)
        assert re.fullmatch(r"\s+\d+\s+\d.*", row[len(label) :]), row
    assert all(label in text for label in labels)
    for width in (40, 80):
        narrow = unwrapped(in_format("table", odd, width=width))
        assert all(unwrapped(label) in narrow for label in labels if len(label) > 200)
    markdown, latex = in_format("markdown", odd), in_format("latex", odd)
    assert_markdown(markdown)
    assert_latex(latex)
    assert all(markdown_text(label) in markdown and latex_text(label) in latex for label in labels)
    told = {row["label"] for table in json.loads(in_format("json", odd))["tables"] for row in table["rows"]}
    assert told == {run.experiment for run in odd}
    read = {line["row"] for line in parsed(in_format("csv", odd))}
    assert {one.removeprefix("'") for one in read} == {label.removeprefix("'") for label in labels}


def unwrapped(text: str) -> str:
    """Without blanks: a name may go on in the next line."""
    return "".join(text.split())


@pytest.mark.parametrize("name", ODD)
def test_odd_names(name: str) -> None:
    assert_unbroken([name, f"{name} too"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=220), min_size=1, max_size=5))
def test_no_name_breaks_a_table(names: list[str]) -> None:
    assert_unbroken(names)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_names_stand_below_the_table(width: int) -> None:
    name = "n" * 200
    text = in_format("table", renamed([name]), width=width)
    legend = re.findall(r"^\d  (n.*(?:\n {3}n*\d?$)*)", text, re.MULTILINE)
    assert [re.sub(r"\n {3}", "", entry) for entry in legend] == [f"{name}0"]
    assert max(map(len, text.splitlines())) <= width


# Files


@pytest.mark.parametrize(("suffix", "wanted"), list(SUFFIXES.items()))
def test_a_file_has_the_format_of_its_name(tmp_path: Path, suffix: str, wanted: str) -> None:
    path = tmp_path / f"out{suffix}"
    assert format_of(path) == wanted
    view = View(format=format_of(path), width=80)
    found: list[Table] = build_tables(FACTS)
    save_comparison(path, found, view)
    with path.open(encoding="utf-8", newline="") as file:
        assert file.read() == render_comparison(found, dataclasses.replace(view, width=None))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        save_comparison(tmp_path / "none" / "x.md", build_tables(FACTS), View())
    with pytest.raises(UsageError, match=r"\.md, \.csv"):
        format_of(Path("x.xlsx"))


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        save_comparison(path, build_tables(FACTS[:1]), View(format="csv", metrics=("test_accuracy",)))
        assert os.read(reader, 100_000).startswith(b"dataset,")
        assert path.is_fifo()
    finally:
        os.close(reader)


def test_the_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    with pytest.raises(UsageError):
        save_comparison(path, build_tables(FACTS), View(format="csv", metrics=("nothing",)))
    assert path.read_text() == "old"
