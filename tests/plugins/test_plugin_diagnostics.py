"""Diagnostics of a plug-in: the example of docs/plugins.md in all commands, and diagnostics with mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.plugins.processes import Call, run_python

PLUGIN = ("--plugin", "my_diagnostic.py")
SMALL = ("init.scheme=kaiming_normal", "seeds=2")


@pytest.fixture(autouse=True)
def diagnostic(folder: Path, repository: Path) -> Path:
    """The file of the example."""
    page = (repository / "docs" / "plugins.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"`my_diagnostic\.py`:\n\n```python\n(.*?)```", page, re.DOTALL)
    file = folder / "my_diagnostic.py"
    file.write_text(text, encoding="utf-8")
    return file


def ids_and_findings(call: Call, *arguments: str) -> dict[str, list[dict[str, object]]]:
    done = call("run", "tiny.yaml", *SMALL, "-q", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return {run["run_id"]: run["diagnosis"] for run in json.loads(done.stdout)["runs"]}


@pytest.mark.slow
def test_runs_and_probes_report_what_it_sees(call: Call) -> None:
    by_run = ids_and_findings(call, *PLUGIN, "init.bias=3.0")
    assert len(by_run) == 2
    for findings in by_run.values():
        (shifted,) = (finding for finding in findings if finding["code"] == "shifted")
        assert shifted["level"] == "note"
        assert shifted["threshold"] == 0.5
        assert abs(float(str(shifted["value"]))) > 0.5
        assert str(shifted["message"]).startswith("the mean of layer ")
    assert ids_and_findings(call, "init.bias=3.0") == by_run  # the ids do not depend on it
    without = ids_and_findings(call, "init.bias=3.0", "--rerun")
    assert without.keys() == by_run.keys()
    assert all(finding["code"] != "shifted" for findings in without.values() for finding in findings)
    probed = call("probe", "tiny.yaml", *SMALL, "init.bias=3.0", *PLUGIN)
    assert "shifted (2 of 2 nets): the mean of layer" in " ".join(probed.stdout.split())


@pytest.mark.slow
def test_its_name_is_known_and_the_checks_pass(call: Call, folder: Path, repository: Path) -> None:
    explained = call("explain", "shifted", *PLUGIN)
    assert "|mean| > 0.5 standard deviations" in explained.stdout
    document = json.loads(call("catalog", "diagnostics", "--json", *PLUGIN).stdout)
    assert document["diagnostics"][-1]["name"] == "shifted"
    tested = run_python(folder, repository, "-m", "initbench.testing", "my_diagnostic.py")
    assert tested.returncode == 0, tested.stdout
    assert "2 checks: 2 ok" in tested.stdout


def test_a_taken_name_is_refused(call: Call, diagnostic: Path) -> None:
    diagnostic.write_text(diagnostic.read_text(encoding="utf-8").replace('"shifted"', '"dead"'), "utf-8")
    done = call("probe", "tiny.yaml", *SMALL, *PLUGIN)
    assert done.returncode == 2
    assert "diagnostic 'dead' of my_diagnostic is taken: it is a name of 'dead' of initbench" in done.stderr


@pytest.mark.slow
def test_a_diagnostic_that_fails_is_named(
    call: Call, diagnostic: Path, folder: Path, repository: Path
) -> None:
    text = diagnostic.read_text(encoding="utf-8")
    for wrong, message in (
        (text.replace('["pre"]["mean"]', '["pre"]["men"]'), "the diagnostic shifted fails: KeyError: 'men'"),
        (text.replace("yield Symptom(", "yield tuple(["), "SyntaxError"),
        (text.replace("mean / std,", "None,"), "the diagnostic shifted fails: TypeError"),
    ):
        diagnostic.write_text(wrong, encoding="utf-8")
        done = call("probe", "tiny.yaml", *SMALL, "init.bias=3.0", *PLUGIN)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    tested = run_python(folder, repository, "-m", "initbench.testing", "my_diagnostic.py")
    assert tested.returncode == 1
    assert "FAILED" in tested.stdout
