"""The views of a comparison as golden files, and what must be in them whatever they look like."""

from __future__ import annotations

import dataclasses
import io
import re
from collections import Counter

import pytest
from compared import FACTS, LONGER
from rich.console import Console
from test_render_golden import assert_golden

from initbench.analysis.tables import build_tables
from initbench.errors import UsageError
from initbench.render.compare.display_options import View
from initbench.render.compare.output import print_tables, render_comparison
from initbench.render.compare.titles import table_title
from initbench.render.terminal import PIPED_WIDTH, stdout_console, stdout_width

BY = ("init.scheme", "model.norm")
VIEWS: dict[str, tuple[tuple[str, ...], View]] = {
    "overview": ((), View()),
    "activation": ((), View(view="activation")),
    "convergence": ((), View(view="convergence")),
    "baseline": ((), View(baseline="kaiming")),
    "metric": ((), View(metrics=("test_accuracy", "grad_ratio_init"), baseline="kaiming")),
    "pivot": (BY, View()),
    "by": (BY[:1], View(sort="-test_accuracy")),
    "layers": ((), View(layers=True)),
    "changed": ((), View(only_changed=True)),
    "columns": ((), View(columns=("model.norm", "n", "test_accuracy"), sort="label")),
    "plot": ((), View(plot=True)),
    "plot_ascii": ((), View(plot=True, metrics=("final_val_loss",), ascii_only=True)),
}
WIDTHS = (80, 120, 200)


def shown(name: str, width: int | None) -> str:
    by, view = VIEWS[name]
    return render_comparison(
        build_tables(LONGER if name == "overview" else FACTS, by=by), with_width(view, width)
    )


def with_width(view: View, width: int | None) -> View:
    return dataclasses.replace(view, width=width)


def text_of(view: View, by: tuple[str, ...] = (), runs: object = FACTS) -> str:
    return render_comparison(build_tables(runs, by=by), view)  # type: ignore[arg-type]


def cells_of(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(VIEWS))
def test_views(name: str, width: int) -> None:
    assert_golden(f"compared_{name}_{width}", shown(name, width))


def test_piped(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(stdout_console(), build_tables(FACTS), View(width=stdout_width()))
    piped = capsys.readouterr().out
    assert_golden("compared_piped", piped)
    assert piped == text_of(View(width=PIPED_WIDTH))


@pytest.mark.parametrize("width", [40, *WIDTHS])
@pytest.mark.parametrize("name", [name for name in VIEWS if not name.startswith("plot")])
def test_nothing_is_left_out_where_it_is_narrow(name: str, width: int) -> None:
    assert not Counter(shown(name, None).split()) - Counter(shown(name, width).split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(VIEWS))
def test_lines_keep_to_the_width(name: str, width: int) -> None:
    longest = max(map(len, shown(name, width).splitlines()))
    assert longest <= width


def test_why_tables_are_separate() -> None:
    text = text_of(View(), runs=LONGER)
    assert "different budget: 1,000 and 2,000 steps" in text.splitlines()[0]
    assert "digits · 1,000 steps   5 experiments" in text
    assert "digits · 2,000 steps   1 experiment" in text
    assert "tables, because" not in text_of(View())


def test_what_is_missing_or_few_is_said() -> None:
    text = text_of(View())
    assert "1 unfinished run is not counted: 1 running." in text
    assert "3 runs diverged: counted in n, " in text
    assert "A single run (n = 1) has no spread, no interval and no test: single." in text
    two = text_of(View(), runs=[one for one in FACTS if one.seed < 2])
    assert "Fewer than 3 seeds, so the spread is unreliable: " in two
    assert "none (n = 1)" in text_of(View(metrics=("test_accuracy",)))


def test_rows_that_average_over_keys_say_so() -> None:
    text = text_of(View(), by=("init.scheme",))
    assert "init.scheme=lsuv averages over model.norm (batch, none), model.norm.affine (None, True)," in text
    assert text.count("averages over") == 1


def test_letters_tell_apart_what_differs() -> None:
    lines = text_of(View(metrics=("test_accuracy",))).splitlines()
    letters = {
        line.split()[0]: cells_of(line)[-1] for line in lines if line.startswith(("kai", "xav", "lsuv"))
    }
    assert not set(letters["kaiming"]) & set(letters["xavier"])
    assert set(letters["kaiming"]) & set(letters["lsuv"])


def test_the_verdict_of_a_baseline() -> None:
    block = text_of(View(baseline="kaiming")).partition("Compared with kaiming")[2]
    rows = [cells_of(line) for line in block.splitlines()]
    start = next(i for i, row in enumerate(rows) if row[0] == "xavier")
    test = next(row for row in rows[start:] if row[0] == "test %")
    assert test[1].startswith("−6.") and test[3] == "worse"
    assert any("3 of 3 vs. 0 of 5" in row for row in rows)
    assert "Holm-adjusted over the 2 rows" in block


def test_a_pivot_marks_what_has_no_runs_and_counts_the_others() -> None:
    lines = text_of(View(), by=BY).splitlines()
    (kaiming,) = (cells_of(line) for line in lines if line.startswith("kaiming_normal"))
    (misprint,) = (cells_of(line) for line in lines if line.startswith("kaiming_misprint"))
    assert kaiming[1] == "no runs" and "(5)" in kaiming[2]
    assert misprint[1:] == ["no runs", "diverged (3)"]


def test_changed_shows_the_keys_that_differ_and_no_other() -> None:
    keys = [cells_of(line)[0] for line in text_of(View(only_changed=True)).splitlines() if "." in line]
    assert [key for key in keys if key.count(".") == 1][:2] == ["init.scheme", "model.norm"]
    assert "model.depth" not in keys
    longer = text_of(View(only_changed=True), runs=LONGER)
    assert "kaiming (digits, 1000 steps)" in longer and "kaiming (digits, 2000 steps)" in longer


def test_many_rows_have_no_letters_and_say_why() -> None:
    many = [dataclasses.replace(one, experiment=f"{one.experiment}{i}") for i in range(8) for one in FACTS]
    text = text_of(View(), runs=many)
    assert "No letters: with more than 30 rows" in text
    assert " ab" not in text


def test_sorting() -> None:
    def names(sort: str) -> list[str]:
        lines = text_of(View(columns=("n",), sort=sort)).splitlines()
        return [line.split()[0] for line in lines[3 : 3 + 5]]

    assert names("label") == ["kaiming", "lsuv", "misprint", "single", "xavier"]
    assert names("-label") == names("label")[::-1]
    best = names("-test_accuracy")
    assert (best[0], best[-2], best[-1]) == ("single", "xavier", "misprint"), "without a value comes last"
    assert names("test_accuracy")[0] == "xavier" and names("test_accuracy")[-1] == "misprint"
    assert names("n")[0] == "single"


@pytest.mark.parametrize(
    ("view", "answer"),
    [
        (View(metrics=("test_acuracy",)), "did you mean 'test_accuracy'?"),
        (View(columns=("tset_accuracy",)), "did you mean 'test_accuracy'?"),
        (View(columns=("init.schem",)), "did you mean 'init.scheme'?"),
        (View(sort="-best_val_acc"), "did you mean 'best_val_accuracy'?"),
        (View(sort="xyzzy"), "some metrics are"),
        (View(baseline="kaimin"), "did you mean 'kaiming'?"),
        (View(plot=True, metrics=("act_std_init_last",)), "--plot cannot draw 'act_std_init_last'"),
    ],
)
def test_unknown_names_are_answered(view: View, answer: str) -> None:
    with pytest.raises(UsageError, match=re.escape(answer)):
        render_comparison(build_tables(FACTS), view)


@pytest.mark.parametrize("wanted", ["table", "csv", "markdown", "latex", "json"])
def test_names_are_checked_in_every_format(wanted: str) -> None:
    with pytest.raises(UsageError):
        render_comparison(build_tables(FACTS), View(metrics=("nothing",), format=wanted))  # type: ignore[arg-type]


def test_no_runs_is_no_table() -> None:
    for wanted in ("table", "csv", "markdown", "latex", "json"):
        render_comparison([], View(format=wanted))  # type: ignore[arg-type]


def test_curves_have_a_mark_each_and_say_whom_they_leave_out() -> None:
    text = text_of(View(plot=True, width=100))
    for mark, name in zip("●○■□▲", ["single", "lsuv", "kaiming", "xavier", "misprint"], strict=True):
        assert f"{mark} {name}  n = " in text
        assert text.count(mark) > 1, "in the legend and on its curve"
    assert "where the first run diverged" in text
    ascii_text = text_of(View(plot=True, ascii_only=True, width=100)).partition("Lines are")[0]
    assert ascii_text.replace("±", "").isascii()


def test_a_console_s_width_is_used() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_tables(console, build_tables(FACTS))
    assert console.file.getvalue() == text_of(View(width=80))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(VIEWS))
def test_one_line_stands_for_the_notes_unless_all_are_asked_for(name: str) -> None:
    """Warnings of missing and diverged runs are there either way."""
    by, view = VIEWS[name]
    every = text_of(with_width(view, 80), by).splitlines()
    short = text_of(dataclasses.replace(view, width=80, all_notes=False), by).splitlines()
    told = [line for line in short if line.endswith("; --notes for details")]
    assert len(short) <= len(every) and all(len(line) <= 80 for line in told)
    assert "significantly" not in "".join(short) and "Student" not in "".join(short)
    for warning in ("1 unfinished run is not counted", "3 runs diverged: counted"):
        assert "".join(short).count(warning) == "".join(every).count(warning)


def test_the_footer_of_a_table() -> None:
    view = View(width=80, all_notes=False)
    line = "±: std over seeds; same letter: no significant difference; --notes for details"
    assert line in text_of(view).splitlines()
    line = "differences are row − baseline; p is Holm-adjusted; --notes for details"
    assert line in text_of(dataclasses.replace(view, baseline="kaiming")).splitlines()


def test_a_title_holds_no_control_characters_of_a_foreign_store() -> None:
    facts = FACTS[:2]
    names = ("\x1b[31mred", "0123456789")
    runs = [dataclasses.replace(run, fingerprint=name) for run, name in zip(facts, names, strict=True)]
    tables = build_tables(runs)
    titles = [table_title(table, tables) for table in tables]
    assert len(titles) == 2
    assert not any("\x1b" in title for title in titles)
