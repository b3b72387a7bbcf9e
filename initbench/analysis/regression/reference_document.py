"""An earlier state of which a document of `compare --json` was kept: means, spreads and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.analysis.metrics import METRICS
from initbench.analysis.operands import Side, SummaryOperand
from initbench.analysis.regression.reference import EarlierRow
from initbench.analysis.stats.summary import Summary
from initbench.analysis.tables import Row, Table
from initbench.errors import UsageError
from initbench.paths import read_regular_file
from initbench.store import strict_json

MAX_BYTES = 64 * 1024 * 1024
"""Of a document: a comparison of 5,000 runs takes about 5 MB."""
SCHEMA = "initbench.compare/1"
_MAX_RUNS = 10**9
_TERMS = ("dataset", "fingerprint", "precision", "steps", "batch_size")


@dataclass(frozen=True)
class ReferenceDocument:
    """Rows are matched by experiment and variant, or by the keys that made them: there are no configs."""

    tables: Sequence[Mapping[str, Any]]

    def match(self, table: Table, row: Row) -> Side | None:
        """The row of the same key on the same terms, if it is the only one."""
        found = [
            (kept, one)
            for kept in self._alike(table)
            for one in kept["rows"]
            if _key(one["key"]) == _key(row.key)
        ]
        return _side(*found[0], table) if len(found) == 1 else None

    def named(self, table: Table, name: str) -> Side | None:
        """The row of that experiment or label, if it is the only one."""
        found = [
            (kept, one)
            for kept in self._alike(table)
            for one in kept["rows"]
            if name in (_label(one), one["key"].get("experiment"))
        ]
        return _side(*found[0], table) if len(found) == 1 else None

    def labels(self) -> list[str]:
        """The names of all its rows."""
        return list(dict.fromkeys(_label(one) for kept in self.tables for one in kept["rows"]))

    def unmatched(self, tables: Sequence[Table]) -> list[EarlierRow]:
        """Its rows that no row of `tables` matches."""
        known = {
            (id(kept), _key(row.key)) for table in tables for kept in self._alike(table) for row in table.rows
        }
        return [
            _earlier_row(kept, one)
            for kept in self.tables
            for one in kept["rows"]
            if (id(kept), _key(one["key"])) not in known
        ]

    def _alike(self, table: Table) -> list[Mapping[str, Any]]:
        return [kept for kept in self.tables if _same_terms(kept, table)]


def _earlier_row(kept: Mapping[str, Any], row: Mapping[str, Any]) -> EarlierRow:
    label = _label(row)
    return EarlierRow(
        str(row["key"].get("experiment", label)),
        f"{label} ({kept['dataset']})",
        lambda table: _same_terms(kept, table),
        lambda table: _side(kept, row, table),
        None,
    )


def _every(_row: Mapping[str, Any]) -> bool:
    return True


def read_document(path: Path, chosen: Callable[[Mapping[str, Any]], bool] = _every) -> ReferenceDocument:
    """Read what `initbench compare --json` printed. Raises UsageError for anything else.

    `chosen`: which of its rows count, by their data set and the keys that make them.
    """
    try:
        document = strict_json.loads(read_regular_file(path, MAX_BYTES).decode("utf-8"))
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        tables = document["tables"]
        for kept in tables:
            for row in kept["rows"]:
                _checked(row)
    except OSError as error:
        raise UsageError(f"--against: cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"--against: {path} is not what `initbench compare --json` prints ({problem})"
        ) from None
    kept = [{**one, "rows": [row for row in one["rows"] if chosen(_known(one, row))]} for one in tables]
    return ReferenceDocument(kept)


def _known(kept: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a row as far as the document has them."""
    rest = {name: value for name, value in row["key"].items() if name != "variant"}
    return {"dataset": kept.get("dataset"), **(row["key"].get("variant") or {}), **rest}


def _checked(row: Mapping[str, Any]) -> None:
    _label(row)
    _key(row["key"])
    _counted(row)
    for name, kept in row["metrics"].items():
        _summary(name, kept)


def _counted(row: Mapping[str, Any]) -> tuple[int, int]:
    n, diverged = row["n"], row["diverged"]
    if not (type(n) is type(diverged) is int and 0 <= diverged <= n <= _MAX_RUNS):
        raise ValueError(f"{diverged!r} of {n!r} runs diverged")
    return n, diverged


def _summary(name: str, kept: Mapping[str, Any]) -> Summary:
    """Mean, spread and count; raises ValueError for what no values have."""
    n, mean, std = (
        kept["n"],
        strict_json.number_or_none(kept["mean"]),
        strict_json.number_or_none(kept["std"]),
    )
    if type(n) is not int or not 0 <= n <= _MAX_RUNS:
        raise ValueError(f"n is {n!r}")
    if std is not None and (std < 0.0 or n < 2):
        raise ValueError(f"the std of {n} values is {std!r}")
    if mean is not None and mean <= 0.0 and name in METRICS and METRICS[name].log:
        raise ValueError(f"a geometric mean is {mean!r}")
    return Summary(mean, std, n)


def _same_terms(kept: Mapping[str, Any], table: Table) -> bool:
    own = {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint,
        "precision": table.terms.precision,
        "steps": table.terms.steps,
        "batch_size": table.terms.batch_size,
    }
    return all(kept[name] == own[name] for name in _TERMS if name in kept)


def _key(key: Mapping[str, Any]) -> str:
    """Without what is allowed to change between two states: code, torch, device."""
    variant = {
        name: value for name, value in (key.get("variant") or {}).items() if not name.startswith("with.")
    }
    rest = {name: value for name, value in key.items() if name != "variant"}
    return repr((sorted(rest.items()), sorted(variant.items())))


def _label(row: Mapping[str, Any]) -> str:
    key = row["key"]
    if "label" in row:
        return str(row["label"])
    return str(key["experiment"]) if "experiment" in key else " ".join(f"{k}={v}" for k, v in key.items())


def _side(kept: Mapping[str, Any], row: Mapping[str, Any], table: Table) -> SummaryOperand:
    metrics = {name: _summary(name, found) for name, found in row["metrics"].items() if name in METRICS}
    if kept.get("target") != table.target:
        # Updates to another accuracy are another quantity.
        metrics = {name: found for name, found in metrics.items() if not METRICS[name].censored}
    n, diverged = _counted(row)
    return SummaryOperand(_label(row), metrics, n, diverged)
