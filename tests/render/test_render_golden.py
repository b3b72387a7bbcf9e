"""Golden files of the tables at fixed widths. `UPDATE_GOLDEN=1 pytest tests/render` rewrites them."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import COMPARED, EXPERIMENTS, run

from initbench.analysis.run_summary import summarise_run
from initbench.analysis.tables import build_tables
from initbench.render.compare.output import print_tables
from initbench.render.run_tables import print_experiment
from initbench.render.terminal import PIPED_WIDTH, stdout_console
from initbench.store.store import StoredRun

GOLDEN = Path(__file__).parents[1] / "golden"
WIDTHS = (80, 120, PIPED_WIDTH)


def console(width: int) -> Console:
    """Return a console like `stdout_console` on a terminal of this width, without colours, into a file."""
    return Console(
        file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False, color_system=None
    )


def shown(name: str, width: int, *, all_layers: bool = False) -> str:
    """Return the output for one of the EXPERIMENTS."""
    screen = console(width)
    print_experiment(screen, EXPERIMENTS[name], all_layers=all_layers)
    return screen.file.getvalue()  # type: ignore[attr-defined]


def compared(width: int) -> str:
    """Return the comparison of the COMPARED runs."""
    screen = console(width)
    print_tables(screen, build_tables(map(summarise_run, COMPARED)))
    return screen.file.getvalue()  # type: ignore[attr-defined]


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing; UPDATE_GOLDEN=1 pytest tests/render writes it"
    assert text == path.read_text(encoding="utf-8"), (
        "UPDATE_GOLDEN=1 pytest tests/render, and look at the diff"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_run_tables(name: str, width: int) -> None:
    assert_golden(f"run_{name}_{width}", shown(name, width))


@pytest.mark.parametrize("width", WIDTHS)
def test_compare_tables(width: int) -> None:
    assert_golden(f"compare_{width}", compared(width))


def test_all_layers() -> None:
    few, every = shown("deep", 120), shown("deep", 120, all_layers=True)
    assert_golden("run_deep_all_layers_120", every)
    count = [sum(line.startswith(("layer ", "head ")) for line in text.splitlines()) for text in (few, every)]
    assert count[1] == 41
    assert 12 <= count[0] <= 24
    for first_or_last in ("layer 1 ", "layer 2 ", "layer 40 ", "head 41 "):
        assert f"\n{first_or_last}" in few


def test_piped_output_is_the_golden_file_of_the_piped_width(capsys: pytest.CaptureFixture[str]) -> None:
    for name, runs in EXPERIMENTS.items():
        print_experiment(stdout_console(), runs, all_layers=False)
        assert_golden(f"run_{name}_{PIPED_WIDTH}", capsys.readouterr().out)
    print_tables(stdout_console(), build_tables(map(summarise_run, COMPARED)))
    assert_golden(f"compare_{PIPED_WIDTH}", capsys.readouterr().out)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off(width: int) -> None:
    """No cell has an ellipsis; columns that do not fit a narrow terminal are omitted as a whole."""
    assert not Counter(compared(1000).split()) - Counter(compared(width).split())
    for name in EXPERIMENTS:
        narrow, wide = shown(name, width), shown(name, 1000)
        assert "…" not in narrow
        layers = [[row for row in text.splitlines() if row.startswith("layer ")] for text in (narrow, wide)]
        for row, whole in zip(*layers, strict=True):
            assert row.split()[:6] == whole.split()[:6]
            assert set(row.split()) <= set(whole.split())


def test_brackets_are_text() -> None:
    assert "[red]odd[/red]" in shown("brackets", 120)
    assert "RuntimeError: out of [memory]" in shown("brackets", 120)
    assert "[b]bold[/b]" in compared(120)


def test_what_the_tables_say() -> None:
    """The golden files show the layout; these facts must be in them."""
    text = shown("three_seeds_one_diverged", 120)
    assert "digits (in place of mnist)" in text
    assert "3 seeds" in text
    assert "seed 2 diverged after 437 updates, first in layer 2" in text
    assert "vanishing_forward (2 of 3 seeds)" in text
    assert "diverged (1 of 3 seeds)" in text
    assert "saturated" not in text
    assert "saturated %" in shown("saturated", 120)
    assert "healthy" in shown("one_seed", 120)
    both = compared(240)
    assert "not reached" in both
    assert "2 of 2" in both
    assert "reached by 1 of 2" in both
    assert "1 unfinished run is not counted" in both


def test_the_numbers_of_a_table_are_means_over_the_seeds() -> None:
    """std 0.6·0.8 + 0.01·seed at init, over seeds 0 and 1: 0.485, as `round` writes it."""
    row = next(line for line in shown("saturated", 240).splitlines() if line.startswith("layer 1"))
    first, last = (sum(0.6 * 0.8 * scale + 0.01 * seed for seed in (0, 1)) / 2 for scale in (1, 2))
    assert f"{first:.2f} → {last:.2f}" in row
    assert "10" in row.split(), "saturated: 0.1 of the first layer"
    assert "43" in row.split(), "zeros: 42 and 44 %"
    assert "1.0e-04" in row.split()


def test_init_and_end_are_means_over_the_same_runs() -> None:
    """Seed 2 diverged; std 0.48·scale + 0.01·seed is 0.485 at init over seeds 0 and 1, 0.49 over all."""
    text = shown("three_seeds_one_diverged", 240)
    row = next(line for line in text.splitlines() if line.startswith("layer 1"))
    first, last = (sum(0.6 * 0.8 * scale + 0.01 * seed for seed in (0, 1)) / 2 for scale in (1, 2))
    assert f"{first:.2f} → {last:.2f}" in row
    assert f"{0.6 * 0.8 + 0.01:.2f} →" not in row
    assert "means over 2 of 3 seeds, init → end" in text
    assert "means over 2 seeds, init\n" in shown("diverged", 240), "no run has an end: all of them at init"


def test_a_loss_that_is_no_number_reads_as_diverged() -> None:
    text = shown("diverged", 240)
    train, val = (
        next(line for line in text.splitlines() if line.startswith(f"{k} loss")) for k in ("train", "val")
    )
    assert train.endswith("  diverged") and val.endswith("  diverged")
    assert "NaN" not in text
    assert "∞" not in text


def test_tables_that_share_a_data_set_s_name_say_which() -> None:
    def on(fingerprint: str, name: str = "npz") -> StoredRun:
        stored = run(dataset=name)
        stored.record["identity"] = {"data": {"name": name, "fingerprint": fingerprint}}
        return stored

    screen = console(120)
    print_tables(
        screen,
        build_tables(map(summarise_run, [on("aaaabbbbcccc"), on("ddddeeeeffff"), on("1234", "digits")])),
    )
    titles = [line for line in screen.file.getvalue().splitlines() if line.endswith("1 experiment")]  # type: ignore[attr-defined]
    assert titles == ["digits   1 experiment", "npz aaaabbbb   1 experiment", "npz ddddeeee   1 experiment"]


@pytest.mark.parametrize(
    "forced", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}]
)
def test_colours(
    forced: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for variable, value in forced.items():
        monkeypatch.setenv(variable, value)
    print_experiment(stdout_console(), EXPERIMENTS["three_seeds_one_diverged"], all_layers=False)
    out = capsys.readouterr().out
    coloured = any(f"\x1b[{style}" in out for style in ("32m", "33m", "1;33m"))
    assert coloured == (forced == {"FORCE_COLOR": "1"})
    assert ("\x1b" in out) == ("FORCE_COLOR" in forced)
