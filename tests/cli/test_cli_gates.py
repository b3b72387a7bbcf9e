"""Gates as the command line applies them: exit codes, what is printed where, what is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from initbench.analysis.run_summary import RunSummary
from initbench.analysis.selection import Selection
from initbench.analysis.tables import build_tables
from initbench.cli.gate_options import GateOptions, GateReport, check_gates, gate_options, print_verdicts
from initbench.errors import UsageError
from initbench.store.store import Store
from tests.analysis.test_gates_verdicts import arm

RUNS = arm("a", [0.90, 0.92, 0.97])
CLEAR, UNDECIDED, TRIGGERED = "test_accuracy < 0.5", "test_accuracy < 0.95", "test_accuracy < 1.5"


def options(
    *gates: str, strict: bool = False, against: Path | None = None, junit: Path | None = None
) -> GateOptions:
    return gate_options(list(gates), strict, against, junit)


class Chosen(Selection):
    """RUNS, and an earlier state of the same runs in any directory called before."""

    runs = RUNS

    def reference_runs(self, root: Path) -> list[RunSummary]:
        return RUNS if root.name == "before" else super().reference_runs(root)


def checked(given: GateOptions) -> GateReport:
    verdicts = check_gates(given, Chosen(Store(Path("runs"))), build_tables(RUNS))
    print_verdicts(verdicts)
    return verdicts


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch):
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("gates", "strict", "code"),
    [
        ([], False, 0),
        ([CLEAR], True, 0),
        ([UNDECIDED], False, 0),
        ([UNDECIDED], True, 1),
        ([TRIGGERED], False, 1),
        ([CLEAR, TRIGGERED], False, 1),
    ],
)
def test_exit_codes(gates: list[str], strict: bool, code: int):
    if gates:
        assert checked(options(*gates, strict=strict)).exit_code == code


def test_verdicts_go_to_stderr(capsys: pytest.CaptureFixture[str]):
    checked(options(CLEAR, TRIGGERED))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines() if line[0] != " "] == ["clear", "triggered"]


def test_against_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "before").mkdir()
    found = checked(options("test_accuracy != before.test_accuracy", against=tmp_path / "before"))
    assert found.exit_code == 0 and found.document()["against"]["rows"][0]["same_runs"]
    assert found.document()["gates"][0]["state"] == "clear"
    assert "identical run ids: config, data, torch and code are unchanged" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no runs in"):
        checked(options(against=tmp_path))


def test_github_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    checked(options(TRIGGERED, junit=tmp_path / "junit.xml"))
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("::error title=")
    assert "❌ triggered" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "<failure" in (tmp_path / "junit.xml").read_text(encoding="utf-8")


def test_lark_comes_with_a_gate_and_torch_never():
    program = (
        "import sys; from initbench.cli.gate_options import gate_options; "
        "gate_options(None, False, None, None);"
        "assert 'lark' not in sys.modules; gate_options(['test_accuracy < 1'], False, None, None);"
        "assert 'lark' in sys.modules and not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
