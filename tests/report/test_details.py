"""The tables of the section with details."""

from __future__ import annotations

from initbench.render.compare.config_diff import config_diff_table
from initbench.report.page import HtmlTable
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
    assert [table.title for table in tables] == ["Data, versions and machines"]


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
    runs[2].record["machine"] = runs[3].record["machine"] = {"processor": "Xeon"}
    lines = {tuple(line) for line in details_section(report_of(runs)).tables[-1].rows}
    assert lines == {
        ("data", "digits (in place of mnist)", "all"),
        ("fingerprint of the data", "f1n9er", "all"),
        ("initbench", "0.7", "all"),
        ("torch", "2.0, 2.1", "all"),
        ("python", "3.11", "all"),
        ("hash of the code", "c0de", "all"),
        ("device", "cpu", "all"),
        ("machine", "EPYC", "kaiming"),
        ("machine", "Xeon", "xavier"),
        ("days of training", "2026-11-20, 2026-11-21", "kaiming"),
        ("days of training", "2026-11-22, 2026-11-23", "xavier"),
    }
