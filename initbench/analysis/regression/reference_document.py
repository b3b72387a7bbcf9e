"""A reference read from the output of `compare --json`, which has means, spreads and counts but not runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.analysis.metrics import METRICS
from initbench.analysis.operands import Operand, SummaryOperand
from initbench.analysis.regression.reference import ReferenceRow
from initbench.analysis.stats.summary import Summary
from initbench.analysis.tables import Row, Table
from initbench.errors import UsageError
from initbench.paths import read_regular_file
from initbench.store import strict_json

MAX_BYTES = 64 * 1024 * 1024
"""Maximum size of a document; a comparison of 5,000 runs takes about 5 MB."""
SCHEMA = "initbench.compare/1"
_MAX_RUNS = 10**9
_TERMS = ("dataset", "fingerprint", "precision", "steps", "batch_size")


@dataclass(frozen=True)
class ReferenceDocument:
    """A reference document; as it has no configs, rows match by experiment and variant, or by their keys."""

    tables: Sequence[Mapping[str, Any]]

    def match_row(self, table: Table, row: Row) -> Operand | None:
        """Return the row with the same key, data, precision and budget; None unless there is exactly one."""
        matches = [
            (document_table, document_row)
            for document_table in self._tables_with_conditions_of(table)
            for document_row in document_table["rows"]
            if _comparable_key(document_row["key"]) == _comparable_key(row.key)
        ]
        return _summary_operand(*matches[0], table) if len(matches) == 1 else None

    def find_row(self, table: Table, name: str) -> Operand | None:
        """Return the row of that experiment or label; None unless there is exactly one."""
        matches = [
            (document_table, document_row)
            for document_table in self._tables_with_conditions_of(table)
            for document_row in document_table["rows"]
            if name in (_row_label(document_row), document_row["key"].get("experiment"))
        ]
        return _summary_operand(*matches[0], table) if len(matches) == 1 else None

    def row_labels(self) -> list[str]:
        """Return the labels of all rows."""
        return list(
            dict.fromkeys(
                _row_label(document_row)
                for document_table in self.tables
                for document_row in document_table["rows"]
            )
        )

    def unmatched_rows(self, tables: Sequence[Table]) -> list[ReferenceRow]:
        """Return the rows that match no row of `tables`."""
        matched = {
            (id(document_table), _comparable_key(row.key))
            for table in tables
            for document_table in self._tables_with_conditions_of(table)
            for row in table.rows
        }
        return [
            _reference_row(document_table, document_row)
            for document_table in self.tables
            for document_row in document_table["rows"]
            if (id(document_table), _comparable_key(document_row["key"])) not in matched
        ]

    def _tables_with_conditions_of(self, table: Table) -> list[Mapping[str, Any]]:
        return [
            document_table for document_table in self.tables if _has_same_conditions(document_table, table)
        ]


def _reference_row(document_table: Mapping[str, Any], row: Mapping[str, Any]) -> ReferenceRow:
    label = _row_label(row)
    return ReferenceRow(
        str(row["key"].get("experiment", label)),
        f"{label} ({document_table['dataset']})",
        lambda table: _has_same_conditions(document_table, table),
        lambda table: _summary_operand(document_table, row, table),
        None,
    )


def _accept_all(_row: Mapping[str, Any]) -> bool:
    return True


def read_document(
    path: Path, selects_row: Callable[[Mapping[str, Any]], bool] = _accept_all
) -> ReferenceDocument:
    """Read the output of `initbench compare --json`.

    Args:
        path: The file.
        selects_row: Whether to keep a row, given its data set and the keys that make it.

    Raises:
        UsageError: The file cannot be read or has another content.
    """
    try:
        document = strict_json.loads(read_regular_file(path, MAX_BYTES).decode("utf-8"))
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        tables = document["tables"]
        for document_table in tables:
            for row in document_table["rows"]:
                _check_row(row)
    except OSError as error:
        raise UsageError(f"--against: cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"--against: {path} is not the output of `initbench compare --json` ({problem})"
        ) from None
    document_table = [
        {
            **document_table,
            "rows": [row for row in document_table["rows"] if selects_row(_row_keys(document_table, row))],
        }
        for document_table in tables
    ]
    return ReferenceDocument(document_table)


def _row_keys(document_table: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a row that the document has, with the data set."""
    rest = {name: value for name, value in row["key"].items() if name != "variant"}
    return {"dataset": document_table.get("dataset"), **(row["key"].get("variant") or {}), **rest}


def _check_row(row: Mapping[str, Any]) -> None:
    _row_label(row)
    _comparable_key(row["key"])
    _run_counts(row)
    for name, summary in row["metrics"].items():
        _parse_summary(name, summary)


def _run_counts(row: Mapping[str, Any]) -> tuple[int, int]:
    n, diverged = row["n"], row["diverged"]
    if not (type(n) is type(diverged) is int and 0 <= diverged <= n <= _MAX_RUNS):
        raise ValueError(f"{diverged!r} of {n!r} runs diverged")
    return n, diverged


def _parse_summary(name: str, document: Mapping[str, Any]) -> Summary:
    """Return the summary of a metric; raise ValueError for numbers that no values can have."""
    n, mean, std = (
        document["n"],
        strict_json.parse_number_or_none(document["mean"]),
        strict_json.parse_number_or_none(document["std"]),
    )
    if type(n) is not int or not 0 <= n <= _MAX_RUNS:
        raise ValueError(f"n must be a count, got {n!r}")
    if std is not None and (std < 0.0 or n < 2):
        raise ValueError(f"{n} values cannot have the std {std!r}")
    if mean is not None and mean <= 0.0 and name in METRICS and METRICS[name].log:
        raise ValueError(f"a geometric mean must be positive, got {mean!r}")
    return Summary(mean, std, n)


def _has_same_conditions(document_table: Mapping[str, Any], table: Table) -> bool:
    conditions = {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint,
        "precision": table.conditions.precision,
        "steps": table.conditions.steps,
        "batch_size": table.conditions.batch_size,
    }
    return all(document_table[name] == conditions[name] for name in _TERMS if name in document_table)


def _comparable_key(key: Mapping[str, Any]) -> str:
    """Return the key as text, without the keys that may differ between two states: code, torch, device."""
    variant = {
        name: value for name, value in (key.get("variant") or {}).items() if not name.startswith("with.")
    }
    rest = {name: value for name, value in key.items() if name != "variant"}
    return repr((sorted(rest.items()), sorted(variant.items())))


def _row_label(row: Mapping[str, Any]) -> str:
    key = row["key"]
    if "label" in row:
        return str(row["label"])
    return str(key["experiment"]) if "experiment" in key else " ".join(f"{k}={v}" for k, v in key.items())


def _summary_operand(
    document_table: Mapping[str, Any], row: Mapping[str, Any], table: Table
) -> SummaryOperand:
    metrics = {
        name: _parse_summary(name, summary) for name, summary in row["metrics"].items() if name in METRICS
    }
    if document_table.get("target") != table.target:
        # The number of updates to a different target accuracy is not comparable.
        metrics = {name: summary for name, summary in metrics.items() if not METRICS[name].censored}
    n, diverged = _run_counts(row)
    return SummaryOperand(_row_label(row), metrics, n, diverged)
