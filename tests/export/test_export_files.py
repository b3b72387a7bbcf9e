"""Tables as CSV and Parquet files."""

from __future__ import annotations

import csv
import gc
import json
import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported import CONFIG, store_run

from initbench.analysis.run_summary import RunSummary, summarise_run
from initbench.analysis.selection import Selection
from initbench.export.export_runs import export_runs, load_exporter
from initbench.export.tables import RunTables, build_run_tables, table_schemas
from initbench.store.store import Store

TABLES = ("runs", "curves", "layers", "histograms")
HOSTILE = ('=1+1,"x"', "+cmd|' /C calc'!A0", "@SUM(A1)", "a,b\n🎉\t\x1b[31m", "-2")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A finished run, a diverged one with NaN and infinity, and one with hostile text."""
    root = tmp_path / "runs"
    store_run(root, "relu", shifts=True)
    store_run(root, "bad", val_losses=(2.0, math.inf, -math.inf, math.nan), diverged=17)
    config = {"train": {**CONFIG["train"], **{f"t{i}": text for i, text in enumerate(HOSTILE)}}}
    store_run(root, "hostile", config=config, record={"dataset_requested": HOSTILE[0]})
    return root


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_all_digits_and_empty_cells_for_missing_values(stored: Path, tmp_path: Path, initbench: Any):
    said = initbench("export", "--to", "csv", "--runs-dir", stored, "-o", tmp_path / "out")
    assert said.code == 0 and said.out.startswith(f"3 runs written to {tmp_path / 'out'}\n")
    assert said.err == ""
    curves = read_csv(tmp_path / "out" / "curves.csv")
    bad = [row["val_loss"] for row in curves if row["experiment"] == "bad"]
    assert bad == ["2.0", "inf", "-inf", "NaN"]
    assert {row["val_loss_batch"] for row in curves} == {""}
    layers = read_csv(tmp_path / "out" / "layers.csv")
    assert layers[0]["delta_q"] == "1e-300" and layers[1]["act_std"] == ""
    assert layers[0]["hidden"] == "True" and layers[-2]["jacobian_condition"] == "inf"
    histograms = read_csv(tmp_path / "out" / "histograms.csv")
    assert len(histograms) == 3 * 3 * 3 * 5


def test_hostile_text_is_inert_in_csv_and_unchanged_in_parquet(stored: Path, tmp_path: Path, initbench: Any):
    for kind in ("csv", "parquet"):
        assert initbench("export", "hostile", "--to", kind, "--runs-dir", stored, "-o", tmp_path).code == 0
    text = (tmp_path / "runs.csv").read_text(encoding="utf-8")
    (row,) = read_csv(tmp_path / "runs.csv")
    assert row["dataset_requested"] == "'" + HOSTILE[0]
    assert [row[f"train.t{i}"] for i in (1, 2, 4)] == ["'" + HOSTILE[i] for i in (1, 2, 4)]
    assert row["train.t3"] == "a,b\\n🎉\\t\\x1b[31m"
    assert "\x1b" not in text and text.count("\n") == 2
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `table`")
    (record,) = parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    assert [record[f"train.t{i}"] for i in range(len(HOSTILE))] == list(HOSTILE)


def test_parquet_has_the_cells_of_csv(stored: Path, tmp_path: Path, initbench: Any):
    pytest.importorskip("pyarrow", reason="needs the extra `table`")
    pandas = pytest.importorskip("pandas")
    for kind in ("csv", "parquet"):
        for name in ("relu", "bad"):
            initbench("export", name, "--to", kind, "--runs-dir", stored, "-o", tmp_path / name)
    for name in ("relu", "bad"):
        for table in TABLES:
            columns = pandas.read_parquet(tmp_path / name / f"{table}.parquet")
            text = pandas.read_csv(tmp_path / name / f"{table}.csv")
            assert list(columns) == list(text) and len(columns) == len(text) > 0
            for column in columns:
                if text[column].isna().all():
                    assert columns[column].isna().all(), column
                    continue
                pandas.testing.assert_series_equal(
                    columns[column], text[column], check_dtype=False, rtol=0, atol=0
                )


def test_polars_and_duckdb_read_the_tables(stored: Path, tmp_path: Path, initbench: Any):
    pytest.importorskip("pyarrow", reason="needs the extra `table`")
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    for kind in ("csv", "parquet"):
        initbench("export", "--to", kind, "--runs-dir", stored, "-o", tmp_path / "out")
    for table in TABLES:
        path = tmp_path / "out" / table
        columns = polars.read_parquet(f"{path}.parquet")
        names, rows = columns.columns, columns.rows()
        relation = duckdb.sql(f"SELECT * FROM '{path}.parquet'")
        assert relation.columns == names
        assert repr(relation.fetchall()) == repr(rows)  # as text, because NaN is not equal to NaN
        text = polars.read_csv(f"{path}.csv", infer_schema_length=None)
        numbers = [name for name in names if columns[name].dtype.is_float() and columns[name].count()]
        assert numbers or table == "runs"
        assert repr(text.select(numbers).rows()) == repr(columns.select(numbers).rows())
        text = duckdb.sql(f"SELECT * FROM read_csv('{path}.csv', sample_size = -1)")
        assert repr(text.select(*map(duckdb.ColumnExpression, numbers)).fetchall()) == repr(
            columns.select(numbers).rows()
        )


def test_metadata_of_parquet_explains_the_columns(stored: Path, tmp_path: Path, initbench: Any):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `table`")
    initbench("export", "--to", "parquet", "--runs-dir", stored, "-o", tmp_path)
    field = parquet.read_schema(tmp_path / "layers.parquet").field("delta_q")
    assert field.metadata[b"description"].decode() == "E[δ²] of the gradient δ at the pre-activation"
    assert str(field.type) == "double"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_repeated_export_gives_identical_bytes_and_touches_nothing_else(
    kind: str, stored: Path, tmp_path: Path, initbench: Any
):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `table`")
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    (output / f".runs.{kind}.123-0.tmp").write_text("part of an export that was killed")
    said = initbench("export", "--to", kind, "--runs-dir", stored, "-o", output, "--json")
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert set(first) == {"mine.txt", ".export.lock", *(f"{table}.{kind}" for table in TABLES)}
    document = json.loads(said.out)
    assert document["schema"] == "initbench.export/1" and document["written"] == 3
    assert document["files"] == [str(output / f"{table}.{kind}") for table in TABLES]
    initbench("export", "--to", kind, "--runs-dir", stored, "-o", output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first


def test_tables_selects_files(stored: Path, tmp_path: Path, initbench: Any):
    said = initbench("export", "--to", "csv", "--tables", "runs,curves", "--runs-dir", stored, "-o", tmp_path)
    assert said.code == 0
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["curves.csv", "runs.csv"]


def test_damaged_and_unfinished_runs_are_reported_and_skipped(stored: Path, tmp_path: Path, initbench: Any):
    lines = stored / store_run(stored, "cut") / "layers.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"q": 4.0', b'"q": "x"', 1))
    record = {"experiment": "open", "arm": "a", "seed": 0, "config": CONFIG, "device": "cpu"}
    sets = {"dataset": "digits", "dataset_requested": "digits"}
    Store(stored).claim("open-s0-abc", {**record, **sets}, "name: open\n").stop("interrupted")
    said = initbench("export", "--to", "csv", "--runs-dir", stored, "-o", tmp_path / "out")
    assert said.code == 0 and said.out.startswith("3 runs written")
    problem = "layers.jsonl is damaged: line 1: layers[1].pre.q is not a number"
    assert set(said.err.splitlines()) == {
        f"skipped: cut-s0-abc: {problem}",
        "skipped: open-s0-abc: interrupted",
    }
    names = {row["experiment"] for row in read_csv(tmp_path / "out" / "histograms.csv")}
    assert names == {"relu", "bad", "hostile"}
    only = initbench("export", "open", "cut", "--to", "csv", "--runs-dir", stored, "-o", tmp_path / "none")
    assert only.code == 3 and "nothing was exported" in only.err and problem in only.err
    assert not (tmp_path / "none").exists()


def test_an_error_leaves_the_earlier_files(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    selection = Selection(Store(stored))
    export_runs(selection, "csv", tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}

    def fail(*_: object) -> RunTables:
        raise KeyboardInterrupt

    monkeypatch.setattr("initbench.export.export_runs.build_run_tables", fail)
    with pytest.raises(KeyboardInterrupt):
        export_runs(selection, "csv", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == first
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("kind", ["csv", "parquet", "tensorboard"])
def test_runs_are_written_one_by_one(kind: Any, stored: Path, tmp_path: Path):
    if kind != "csv":
        pytest.importorskip("pyarrow" if kind == "parquet" else "crc32c", reason="needs an extra")
    store, alive = Store(stored), []
    run = store.read("relu-s0-abc")
    summary = summarise_run(run)

    def tables() -> Iterator[RunTables]:
        for _ in range(20):
            one = build_run_tables(run, summary, None)
            alive.append(weakref.ref(one))
            yield one
            del one
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 1

    counts = load_exporter(kind).write(tables(), table_schemas([summary]), tmp_path)
    assert counts.written + counts.unchanged == 20


def test_a_run_that_is_damaged_after_its_selection_is_skipped(stored: Path, tmp_path: Path):
    class Changed(Selection):
        @property
        def runs(self) -> list[RunSummary]:
            runs = super().runs
            (stored / "bad-s0-abc" / "run.json").write_text("{}")
            return runs

    report = export_runs(Changed(Store(stored)), "csv", tmp_path)
    assert report.counts.written == 2 and "run.json" in report.skipped["bad-s0-abc"]


def test_a_directory_that_cannot_be_written_is_one_line(stored: Path, tmp_path: Path, initbench: Any):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    said = initbench("export", "--to", "csv", "--runs-dir", stored, "-o", blocked / "sub")
    assert said.code == 2 and said.err.startswith("initbench: cannot write ") and said.err.count("\n") == 1
    assert initbench("export", "--to", "csv", "--runs-dir", stored, "-o", blocked).code == 2


def test_two_exports_to_one_directory_at_a_time_are_refused(stored: Path, tmp_path: Path, initbench: Any):
    from initbench.export.export_runs import LOCK
    from initbench.store.locks import acquire_lock

    lock = acquire_lock(tmp_path / LOCK)
    assert lock is not None
    said = initbench("export", "--to", "csv", "--runs-dir", stored, "-o", tmp_path)
    lock.release()
    assert said.code == 3 and "another process is exporting" in said.err
    assert not (tmp_path / "runs.csv").exists()
