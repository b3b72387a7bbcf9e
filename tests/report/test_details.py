"""The tables of the section with details."""

from __future__ import annotations

import pytest

from initbench.render.compare.config_diff import config_diff_table
from initbench.report.page import HtmlTable
from initbench.report.views import details
from initbench.report.views.details import details_section
from tests.report.report_runs import report_of, stored_run, swept_runs, two_arms


def columns_of(table: HtmlTable) -> dict[str, list[str]]:
    return {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}


def test_the_keys_that_differ_are_those_of_compare() -> None:
    report = report_of(swept_runs())
    keys, *_ = details_section(report).tables
    block = config_diff_table(report.tables)
    assert keys.title == block.title and {"init.scheme", "train.lr"} <= set(columns_of(keys)["key"])
    assert [list(row) for row in keys.rows] == [[cell.text for cell in row] for row in block.rows]


def test_equal_configs_have_no_table_of_keys() -> None:
    tables = details_section(report_of([stored_run("only", seed) for seed in range(2)])).tables
    assert [table.title for table in tables] == ["Data, versions and machines", "Runs"]


def test_data_versions_and_machines_are_those_of_the_runs() -> None:
    runs = two_arms(2)
    for seed, run in enumerate(runs):
        run.record["identity"] |= {
            "torch": f"2.{seed % 2}",
            "code": "c0de",
            "device": "cpu",
            "data": {"fingerprint": "f1n9er"},
        }
        run.record["versions"] = {"initbench": "0.7", "python": "3.11", "torch": "9.9"}
        run.record["machine"] = {"processor": "EPYC"}
        run.record["created"] = f"2026-11-{20 + seed}T10:00:00Z"
        run.record["dataset_requested"] = "mnist"
    origins = columns_of(details_section(report_of(runs)).tables[-2])
    first = {name: values[origins["row"].index("kaiming")] for name, values in origins.items()}
    assert first["torch"] == "2.0, 2.1"
    assert first["data"] == "digits (in place of mnist)"
    assert first["fingerprint of the data"] == "f1n9er"
    assert (first["initbench"], first["other versions"]) == ("0.7", "python 3.11")
    assert (first["code"], first["device"], first["machine"]) == ("c0de", "cpu", "EPYC")
    assert first["trained"] == "2026-11-20, 2026-11-21"


def test_all_runs_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [*two_arms(2), stored_run("broken", status="diverged")]
    listed = details_section(report_of(runs)).tables[-1]
    assert sorted(columns_of(listed)["run"]) == sorted(run.run_id for run in runs)
    assert columns_of(listed)["status"].count("diverged") == 1
    monkeypatch.setattr(details, "MAX_RUNS", 2)
    shorter = details_section(report_of(runs)).tables[-1]
    assert len(shorter.rows) == 2 and shorter.notes == ["The first 2 of 5 runs; `initbench ls` lists all."]
