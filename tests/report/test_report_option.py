"""`--report FILE`: the pages of commands that train or compare."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from initbench.analysis.load_runs import load_run_summaries
from initbench.store.files import check_output
from initbench.store.store import Store, StoredRun
from tests.cli.test_cli_process import WATCH, environment, stored  # noqa: F401  (fixtures)
from tests.conftest import TINY, Said
from tests.report.pages import Page
from tests.report.report_runs import stored_run

pytest.importorskip("vl_convert")
Command = Callable[..., Said]
HOSTILE = '<script>alert(\'1\')</script> " onload="x" 🚀 </script>'
LESSON = {
    "kind": "lesson",
    "name": "lesson",
    "question": "Does the scale of the weights matter?",
    "source": "a test",
    "base": {**{key: value for key, value in TINY.items() if key != "name"}, "seeds": 2},
    "arms": {"none": {"init.scheme": "zeros"}, "some": {"init.scheme": "kaiming_normal"}},
    "claims": [
        {"says": "Zeros pass no signal", "holds_if": "none.layer[1].act_std@init < 0.001"},
        {"says": "Zeros learn well", "holds_if": "none.final_val_accuracy > 90 %"},
        {"says": "They are alike", "holds_if": "some.final_val_accuracy > 50 %"},
    ],
}


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command that a page names, and an empty working directory."""
    monkeypatch.setattr(sys, "argv", ["initbench", "test"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two experiments, a lesson, and the runs that the tests share."""
    root = tmp_path_factory.mktemp("report")
    for name, scheme in (("tiny", "kaiming_normal"), ("other", "xavier_normal")):
        config = {"kind": "experiment", **TINY, "name": name, "seeds": 2, "init": {"scheme": scheme}}
        (root / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (root / "lesson.yaml").write_text(yaml.safe_dump(LESSON), encoding="utf-8")
    return root


def train(initbench: Command, files: Path, *options: str, report: str = "page.html") -> Said:
    """Train both experiments, or find them stored."""
    configs = [str(files / f"{name}.yaml") for name in ("tiny", "other")]
    return initbench("run", *configs, "--runs-dir", files / "runs", "-q", "--report", report, *options)


def test_run_writes_a_page_of_the_experiments(initbench: Command, files: Path) -> None:
    said = train(initbench, files)
    assert said.code == 0 and "written to page.html" in said.err
    page = Page(Path("page.html"))
    assert sorted(page.rows) == ["other", "tiny"]
    assert page.sections[0] == "verdict"
    assert {"histograms-activation", "depth-q", "validation-accuracy"} <= set(page.figures)
    assert set(page.column("depth-q", "row")) == {"tiny", "other"}
    assert page.cells_of("tiny")[-1] == "2"  # n
    assert "initbench test" in page.words


def test_the_same_runs_give_the_same_bytes(initbench: Command, files: Path) -> None:
    train(initbench, files, report="a.html")
    train(initbench, files, report="b.html")
    (first, second) = (Path(name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_only_the_given_experiments_are_rows(initbench: Command, files: Path) -> None:
    train(initbench, files)
    said = initbench("run", files / "tiny.yaml", "--runs-dir", files / "runs", "-q", "--report", "one.html")
    assert said.code == 0 and Page(Path("one.html")).rows == ["tiny"]


def test_gates_are_described_and_do_not_prevent_the_page(initbench: Command, files: Path) -> None:
    gates = ["--fail-if", "final_val_loss < 999", "--fail-if", "final_val_loss > 999"]
    said = train(initbench, files, *gates, "--fail-unless", "final_val_loss < 999")
    assert said.code == 1
    page = Page(Path("page.html"))
    _, result, numbers = page.cells_of("fail if final_val_loss < 999")
    assert result == "failed" and "the whole interval is < 999" in numbers
    assert page.cells_of("fail if final_val_loss > 999")[1] == "passed"
    assert page.cells_of("fail unless final_val_loss < 999")[1] == "passed"
    assert "3 gates: 2 passed, 1 failed." in page.words
    assert "The command ended with exit code 1." in page.words


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
def test_an_undecided_gate_is_undecided(
    initbench: Command, files: Path, strict: list[str], code: int
) -> None:
    train(initbench, files)
    runs = load_run_summaries(Store(files / "runs"), ["tiny"])
    mean = statistics.fmean(run.layers["init"][0]["act_std"] or 0.0 for run in runs)
    gate = f"tiny.layer[1].act_std@init < {mean}"
    said = initbench(
        *("compare", "--runs-dir", files / "runs", "--fail-if", gate, *strict, "--report", "page.html")
    )
    page = Page(Path("page.html"))
    assert page.cells_of(f"fail if {gate}")[1] == "undecided"
    assert said.code == code
    assert ("exit code 1" in page.words) == bool(code)


def test_compare_writes_its_selection(initbench: Command, files: Path) -> None:
    train(initbench, files)
    row = "init.scheme=kaiming_normal"
    options = ["--by", "init.scheme", "--baseline", row, "--confidence", "0.9"]
    against = ["--against", files / "runs"]
    said = initbench("compare", "--runs-dir", files / "runs", *options, *against, "--report", "page.html")
    assert said.code == 0 and "kaiming_normal" in said.out
    page = Page(Path("page.html"))
    assert sorted(page.rows) == [row, "init.scheme=xavier_normal"]
    assert "Against" in page.words and "identical run ids" in page.words
    text = Path("page.html").read_text(encoding="utf-8")
    assert f'"baseline":"{row}"' in text and "90 % interval" in text
    only = initbench("compare", "tiny", "--runs-dir", files / "runs", "--report", "page.html")
    assert only.code == 0 and Page(Path("page.html")).rows == ["tiny"]


def test_a_sweep_has_its_points_as_rows_and_a_map_of_two_keys(initbench: Command, files: Path) -> None:
    axes = ["model.width=8,16", "init.scheme=kaiming_normal,xavier_normal", "seeds=1"]
    said = initbench("sweep", files / "tiny.yaml", *axes, "-q", "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert sorted(page.rows) == [
        "width16_kaiming_normal",
        "width16_xavier_normal",
        "width8_kaiming_normal",
        "width8_xavier_normal",
    ]
    assert sorted(set(page.column("sweep-map", "down"))) != sorted(set(page.column("sweep-map", "across")))
    assert len(page.column("sweep-map", "value")) == 4


def test_the_page_has_the_tuning_and_what_made_the_command_fail(initbench: Command, files: Path) -> None:
    lesson = {**LESSON, "name": "tuned", "tune": {"train.lr": [0.1, 1e9], "seeds": 1}}
    (files / "tuned.yaml").write_text(yaml.safe_dump(lesson), encoding="utf-8")
    arguments = ("lesson", files / "tuned.yaml", "--runs-dir", files / "tuned", "-q", "--report", "page.html")
    assert initbench(*arguments).code == 0
    page = Page(Path("page.html"))
    assert page.sections.index("tuning") > page.sections.index("convergence")
    assert "train.lr was tuned for each arm over 2 values from 0.1 to 1e+09" in page.words
    assert "The command failed" not in page.words
    diverging = ("train.lr=1e9", "--fail-on", "diverged", "--runs-dir", files / "diverged")
    said = initbench("run", files / "tiny.yaml", *diverging, "-q", "--report", "page.html")
    assert said.code == 1 and "2 runs diverged" in said.err
    assert "The command failed: 2 runs diverged." in Page(Path("page.html")).words


def test_a_lesson_begins_with_its_claims(initbench: Command, files: Path) -> None:
    said = initbench(
        "lesson", files / "lesson.yaml", "--runs-dir", files / "lessons", "-q", "--report", "page.html"
    )
    assert said.code == 0
    page = Page(Path("page.html"))
    assert page.sections[:2] == ["claims", "verdict"]
    assert page.rows == ["none", "some"]
    assert page.cells_of("Zeros pass no signal")[1] == "supported"
    _, verdict, condition, numbers = page.cells_of("Zeros learn well")
    assert (verdict, condition) == ("contradicted", "none.final_val_accuracy > 90 %")
    assert numbers in said.out and "n = 2" in numbers
    assert LESSON["question"] in page.words


def test_several_lessons_keep_their_arms_apart(initbench: Command, files: Path) -> None:
    second = {**LESSON, "name": "again", "base": {**LESSON["base"], "seeds": 1}}  # type: ignore[dict-item]
    (files / "again.yaml").write_text(yaml.safe_dump(second), encoding="utf-8")
    lessons = [files / "lesson.yaml", files / "again.yaml"]
    said = initbench("lesson", *lessons, "--runs-dir", files / "lessons", "-q", "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert page.rows == ["lesson: none", "lesson: some", "again: none", "again: some"]
    assert page.sections[:2] == ["claims-lesson", "claims-again"]


COMMANDS = {
    "run": ["run", "tiny.yaml"],
    "sweep": ["sweep", "tiny.yaml", "model.width=8,16"],
    "lesson": ["lesson", "lesson.yaml"],
    "compare": ["compare"],
    "probe": ["probe", "tiny.yaml"],
    "map": ["probe", "tiny.yaml", "--map", "sigma_w=1:2:2", "depth=2:3:2"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("path", ["missing/page.html", "."])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    initbench: Command, files: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: str
) -> None:
    monkeypatch.chdir(files)
    said = initbench(*COMMANDS[name], "--report", path, *(() if name in ("probe", "map") else no_runs()))
    assert said.code == 2
    assert said.err.startswith(f"initbench: cannot write {path}: ") and said.out == ""
    assert not (files / "nothing").exists()


def no_runs() -> tuple[str, str]:
    """Options for a store that does not exist yet."""
    return "--runs-dir", "nothing"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("module", ["jinja2", "vl_convert"])
def test_without_the_extra_nothing_is_trained(
    initbench: Command, files: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setitem(sys.modules, module, None)
    said = initbench(
        *COMMANDS[name], "--report", "new.html", *(() if name in ("probe", "map") else no_runs())
    )
    assert said.code == 2 and "pip install 'initbench[report]'" in said.err
    assert said.out == "" and not (files / "nothing").exists() and not (files / "new.html").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["run", "tiny.yaml", "--print-config"], "--print-config"),
        (["sweep", "tiny.yaml", "model.width=8,16", "--dry-run"], "--dry-run"),
        (["lesson", "ls", "lesson.yaml"], "ls"),
    ],
)
def test_commands_without_results_have_no_report(
    initbench: Command, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], option: str
) -> None:
    monkeypatch.chdir(files)
    said = initbench(*arguments, "--report", "new.html")
    assert said.code == 2 and f"--report cannot be combined with {option}" in said.err
    assert not (files / "new.html").exists()


def test_the_check_changes_nothing(tmp_path: Path) -> None:
    existing = tmp_path / "page.html"
    existing.write_text("old", encoding="utf-8")
    check_output(existing)
    check_output(tmp_path / "new.html")
    check_output(Path("/dev/null"))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert existing.read_text(encoding="utf-8") == "old"


def test_names_of_any_kind_are_inert(initbench: Command) -> None:
    save(Store(Path("runs")), stored_run("a"), HOSTILE)
    said = initbench("compare", "--fail-if", "test_accuracy < 0", "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert page.rows == [HOSTILE]
    assert sorted(page.scripts) == sorted(page.own_scripts)
    assert page.handlers == []
    assert page.cells_of(HOSTILE)[0] == HOSTILE
    assert set(page.column("depth-q", "row")) == {HOSTILE}


def save(store: Store, run: StoredRun, name: str) -> None:
    """Store a run under the name of another experiment."""
    record = {**run.record, "experiment": name}
    with store.claim(run.run_id, record, "") as writer:
        for entry in run.convergence:
            writer.append_convergence(entry)
        for snapshot in run.snapshots:
            writer.append_snapshot(snapshot)
        writer.finish({"final": record["final"]})


def test_without_a_finished_run_there_is_no_page(initbench: Command) -> None:
    run = stored_run("a")
    with Store(Path("runs")).claim(run.run_id, run.record, ""):
        pass
    said = initbench("compare", "--report", "page.html")
    assert said.code == 0
    assert "initbench: page.html is not written: no run is finished" in said.err
    assert not Path("page.html").exists()


def test_pages_of_stored_runs_do_not_import_torch(stored: Path, environment: dict[str, str]) -> None:  # noqa: F811
    commands = [["report"], ["compare", "--report", "page.html"]]
    done = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(commands)],
        cwd=stored,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    for command in map(" ".join, commands):
        code, heavy = seen[command]
        assert code == 0 and not {"torch", "torchvision", "sklearn"} & set(heavy)
    assert (stored / "report.html").is_file() and (stored / "page.html").is_file()
