"""`initbench ls` and `initbench rm`. `python tests/store/test_store_commands.py` writes the golden file."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from records import RECORD
from rich.console import Console
from typer.testing import CliRunner

from initbench.cli.ls import format_age, ls, run_table
from initbench.cli.rm import rm
from initbench.cli.run_groups import sort_runs
from initbench.errors import StoreError, UnknownNameError, UsageError
from initbench.render.terminal import stdout_console
from initbench.store.store import Store

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2030, 1, 2, tzinfo=UTC)
LONG = "sigmoid_xavier_batchnorm_with_a_rather_long_name-s12-0123456789abcdef"
RECORDS = [
    {
        "run_id": "relu_kaiming-s0-ab12cd34",
        "experiment": "relu_kaiming",
        "status": "finished",
        "dataset": "digits",
        "dataset_requested": "mnist",
        "created": "2030-01-01T23:57:00.000Z",
        "steps": 2000,
        "final": {"val_accuracy": 0.956, "test_accuracy": 0.9612},
    },
    {
        "run_id": LONG,
        "experiment": "x",
        "status": "diverged",
        "dataset": "mnist",
        "dataset_requested": "mnist",
        "created": "2029-12-30T00:00:00.000Z",
        "steps": 120,
        "final": None,
    },
    {
        "run_id": "[red]odd[/red]:smile:-s0-1",
        "experiment": "[red]odd[/red]",
        "status": "running",
        "created": "2030-01-01T23:59:30Z",
    },
]


def rendered(width: int) -> str:
    console = Console(
        file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False, color_system=None
    )
    console.print(run_table(RECORDS, NOW), crop=False)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [120])
def test_the_table_looks_like_this(width: int) -> None:
    assert rendered(width) == (GOLDEN / f"ls_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [20, 60, 80, 240])
def test_no_run_id_is_ever_cut(width: int) -> None:
    lines = rendered(width).splitlines()
    for line, record in zip(lines[1:], RECORDS, strict=True):
        assert line.split()[:2] == [record["run_id"], record["status"]]
    assert "…" not in rendered(width)


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2030-01-01T23:59:59Z", "1 s"),
        ("2030-01-01T23:00:01Z", "59 min"),
        ("2030-01-01T23:00:00Z", "1 h"),
        ("2029-12-30T00:00:00Z", "3 d"),
        ("2031-01-01T00:00:00Z", "0 s"),
        ("2030-01-01T00:00:00", "–"),
        (None, "–"),
    ],
)
def test_age(created: object, text: str) -> None:
    assert format_age(created, NOW) == text


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    store = Store(tmp_path / "runs")
    for seed in range(2):
        with store.claim(f"{LONG}{seed}", {**RECORD, "seed": seed}, "") as run:
            run.finish({"steps": 10, "final": {"val_accuracy": float("nan"), "test_accuracy": 0.5}})
    store.claim("tanh-s0-x", {**RECORD, "experiment": "tanh"}, "").stop("interrupted")
    return store.root


def call(*arguments: object, answer: str | None = None):
    app = typer.Typer()
    app.command()(ls)
    app.command()(rm)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_piped_output_is_wide_and_plain(runs: Path) -> None:
    result = call("ls", "--runs-dir", runs)
    assert result.exit_code == 0
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == ["run", "status", "data", "val", "%", "test", "%", "steps", "age"]
    assert [line.split()[:6] for line in lines] == [
        [f"{LONG}0", "finished", "digits", "NaN", "50.0", "10"],
        [f"{LONG}1", "finished", "digits", "NaN", "50.0", "10"],
        ["tanh-s0-x", "interrupted", "digits", "–", "–", "–"],
    ]
    assert "\x1b" not in result.stdout


def test_ls_selects_and_speaks_json(runs: Path) -> None:
    document = json.loads(call("ls", "relu", "--runs-dir", runs, "--json").stdout)
    assert document["schema"] == "initbench.ls/1"
    assert [run["seed"] for run in document["runs"]] == [0, 1]
    assert document["runs"][0]["val_accuracy"] == "NaN"
    document = json.loads(call("ls", "--status", "interrupted", "--runs-dir", runs, "--json").stdout)
    assert [run["run_id"] for run in document["runs"]] == ["tanh-s0-x"]
    with pytest.raises(UsageError, match="did you mean 'crashed'"):
        call("ls", "--status", "crash", "--runs-dir", runs)
    with pytest.raises(UsageError, match="did you mean 'tanh'"):
        call("ls", "tanj", "--runs-dir", runs)


def test_an_empty_store_says_how_to_start(tmp_path: Path) -> None:
    result = call("ls", "--runs-dir", tmp_path / "none")
    assert result.stdout == ""
    assert "initbench run configs/relu_kaiming.yaml" in result.stderr
    document = json.loads(call("ls", "--json", "--runs-dir", tmp_path / "none").stdout)
    assert document == {"schema": "initbench.ls/1", "runs": []}
    assert not (tmp_path / "none").exists()


def test_rm_needs_yes_when_nobody_can_be_asked(runs: Path) -> None:
    with pytest.raises(UsageError, match="--yes to remove 2 runs"):
        call("rm", "relu", "--runs-dir", runs)
    assert (
        call("rm", "relu", "--dry-run", "--runs-dir", runs).stdout
        == f"would remove {LONG}0\nwould remove {LONG}1\n"
    )
    assert len(Store(runs).find([])) == 3
    assert call("rm", "relu", "--yes", "--runs-dir", runs).stdout == f"removed {LONG}0\nremoved {LONG}1\n"
    assert Store(runs).find([]) == ["tanh-s0-x"]


def test_rm_ends_a_removal_that_was_cut_off(runs: Path) -> None:
    """Its run is not found by name any more, so the removal must not wait for a command that names it."""
    trash = runs / f".{LONG}0.trash"
    (runs / f"{LONG}0").rename(trash)
    with pytest.raises(UsageError, match="no stored run"):
        call("rm", f"{LONG}0", "--dry-run", "--runs-dir", runs)
    assert trash.is_dir()
    with pytest.raises(UsageError, match="no stored run"):
        call("rm", f"{LONG}0", "--yes", "--runs-dir", runs)
    assert not trash.exists()


@pytest.mark.parametrize(("answer", "left"), [("y\n", 2), ("n\n", 3), ("\n", 3)])
def test_rm_asks_on_a_terminal(runs: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int) -> None:
    monkeypatch.setattr("initbench.cli.rm._is_interactive", lambda: True)
    result = call("rm", "tanh", "--runs-dir", runs, answer=answer)
    assert "Remove 1 run?" in result.stderr
    assert len(Store(runs).find([])) == left


def test_rm_refuses_all_when_one_is_running(runs: Path) -> None:
    with Store(runs).claim("tanh-s1-y", {**RECORD, "experiment": "tanh"}, "") as run:
        with pytest.raises(StoreError, match="still running, so nothing was removed: tanh-s1-y"):
            call("rm", "*", "--yes", "--runs-dir", runs)
        assert len(Store(runs).find([])) == 4
        run.finish({})


def test_verify_names_every_run_that_is_not_as_it_was_stored(runs: Path) -> None:
    whole = call("ls", "--verify", "--json", "--runs-dir", runs)
    assert whole.exit_code == 0
    assert [run["problems"] for run in json.loads(whole.stdout)["runs"]] == [[], [], []]
    assert "problems" not in json.loads(call("ls", "--json", "--runs-dir", runs).stdout)["runs"][0]
    config = runs / f"{LONG}0" / "config.yaml"
    config.write_text("x")
    same_size = runs / f"{LONG}1" / "run.json"
    same_size.write_text(same_size.read_text().replace('"seed": 1', '"seed": 7'))
    listed = [record["status"] for record in Store(runs).records()]
    assert listed == ["crashed", "finished", "interrupted"], "sizes alone are looked at without --verify"
    expected = (
        f"{LONG}0: config.yaml has 1 bytes, expected 0\n"
        f"{LONG}1: run.json has changed since the run was stored"
    )
    for more in ([], ["--json"]):
        with pytest.raises(StoreError) as raised:
            call("ls", "--verify", *more, "--runs-dir", runs)
        assert str(raised.value) == expected
    assert call("ls", "tanh", "--verify", "--runs-dir", runs).exit_code == 0


def test_ls_goes_on_after_a_damaged_run(runs: Path) -> None:
    (runs / f"{LONG}0" / "run.json").write_text(
        json.dumps({"schema": "initbench.stored/1", "run_id": f"{LONG}0", "final": {"val_accuracy": "high"}})
    )
    _, *lines = call("ls", "--runs-dir", runs).stdout.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["damaged", "finished", "interrupted"]
    document = json.loads(call("ls", "--status", "damaged", "--json", "--runs-dir", runs).stdout)
    assert [run["run_id"] for run in document["runs"]] == [f"{LONG}0"]
    assert call("rm", f"{LONG}0", "--yes", "--runs-dir", runs).exit_code == 0


@pytest.mark.parametrize("forced", ["", "1"])
def test_the_console_is_wide_when_piped_and_prints_text_as_it_is(
    forced: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setenv("COLUMNS", "40")
    stdout_console().print("[b]x[/b] :smile: " + "y" * 200)
    assert capsys.readouterr().out == "[b]x[/b] :smile: " + "y" * 200 + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "ls_120.txt").write_text(rendered(120), encoding="utf-8")
    sys.stdout.write(rendered(120))


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("test", ["b", "a", "c"]),
        ("-test %", ["a", "b", "c"]),
        ("-test_accuracy", ["a", "b", "c"]),
        ("age", ["c", "b", "a"]),
        ("-age", ["a", "b", "c"]),
        ("created", ["a", "b", "c"]),
        ("-run", ["c", "b", "a"]),
        ("status", ["a", "b", "c"]),
    ],
)
def test_runs_are_sorted_and_those_without_a_value_come_last(sort: str, expected: list[str]) -> None:
    accuracies = {"a": 0.9, "b": 0.5, "c": "NaN"}
    runs = [
        {
            "run_id": name,
            "status": "finished",
            "test_accuracy": accuracies[name],
            "created": f"2030-01-0{day}",
        }
        for day, name in enumerate("abc", 1)
    ]
    assert [run["run_id"] for run in sort_runs(runs, sort)] == expected


def test_ls_has_a_line_for_each_group(runs: Path) -> None:
    heading, *lines = call(
        "ls", "--runs-dir", runs, "--by", "experiment", "--sort", "-run"
    ).stdout.splitlines()
    assert heading.split() == ["experiment", "runs", "status", "val", "%", "test", "%", "age"]
    assert [line.split()[:5] for line in lines] == [
        ["tanh", "1", "interrupted", "–", "–"],
        ["relu", "2", "finished", "–", "50.0"],
    ]
    document = json.loads(call("ls", "--runs-dir", runs, "--by", "data", "--json").stdout)
    (group,) = document["groups"]
    assert (group["dataset"], group["runs"], group["test_accuracy"]) == ("digits", 3, 0.5)
    assert group["statuses"] == {"finished": 2, "interrupted": 1} and len(document["runs"]) == 3


@pytest.mark.parametrize("options", [("--sort", "tset"), ("--sort", ""), ("--by", "stauts"), ("--by", "")])
def test_an_unknown_order_or_group_is_a_usage_error(runs: Path, options: tuple[str, str]) -> None:
    with pytest.raises(UnknownNameError, match=f"{options[0]}: unknown key"):
        call("ls", "--runs-dir", runs, *options)
