"""MLflow runs in a local SQLite database."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initbench.errors import StoreError, UsageError
from initbench.export.csv_files import csv_text
from initbench.export.table_files import ExportCounts
from initbench.export.tables import FIXED_COLUMNS, RunTables, Schemas, format_value, parse_time
from initbench.export.tracker_values import curve_scalars
from initbench.optional_packages import import_optional
from initbench.store.files import remove_temporaries, replacing

EXPERIMENT = "initbench"
"""Name of the MLflow experiment with all runs."""
DATABASE = "mlflow.db"
RUN_ID, DIGEST = "initbench.run_id", "initbench.digest"
"""Tags that identify the run and what was exported of it."""
_SUBJECT, _EXTRA = "MLflow runs", "mlflow"
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Environment in which MLflow sends no usage data; it must be set before mlflow is imported."""
_MAX_METRICS, _MAX_PARAMS = 1000, 100
"""Maximum numbers of metrics and of params in one call."""
_MAX_VALUE, _PAGE = 6000, 1000
_NOT_IN_PATHS = "?#%"
"""Characters with a meaning in the URI of a database."""
_INVALID = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True)
class _Exported:
    """A run of an earlier export."""

    mlflow_id: str
    digest: str | None
    """Digest of what was exported; None if the export did not finish."""


class MlflowExporter:
    """Writes the runs to `mlflow.db`, and the tables of layers and histograms of each run as artifacts."""

    def __init__(self) -> None:
        os.environ.update(_ENVIRONMENT)
        import_optional("alembic", _SUBJECT, _EXTRA)
        database_error = import_optional("sqlalchemy.exc", _SUBJECT, _EXTRA).SQLAlchemyError
        self._entities = import_optional("mlflow.entities", _SUBJECT, _EXTRA)
        mlflow_error = import_optional("mlflow.exceptions", _SUBJECT, _EXTRA).MlflowException
        self._errors = (database_error, mlflow_error)
        self._open_client = import_optional("mlflow.tracking", _SUBJECT, _EXTRA).MlflowClient
        for name in ("mlflow", "alembic"):  # which report the creation of every table
            logging.getLogger(name).setLevel(logging.WARNING)

    def write(self, runs: Iterable[RunTables], schemas: Schemas, output: Path) -> ExportCounts:
        """Write each run; a run that has changed replaces the earlier one, which MLflow marks as deleted."""
        database = output.resolve() / DATABASE
        for character in _NOT_IN_PATHS:
            if character in str(database):
                raise UsageError(f"MLflow cannot open {database}: the path must not contain {character!r}")
        uri = f"sqlite:///{database}"
        command = shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
        counts = ExportCounts(files=[output / DATABASE], advice=f"view them with: {command}")
        with self._reporting_errors(database):
            self._create_database(database)
            client = self._open_client(uri)
            experiment = self._experiment_id(client, output)
            exported = self._find_exported(client, experiment)
            for tables in runs:
                earlier = exported.pop(tables.run_id, [])
                current = next((run for run in earlier if run.digest == tables.digest), None)
                if current is None:
                    self._write_run(client, experiment, tables, schemas)
                    counts.written += 1
                else:
                    counts.unchanged += 1
                for run in earlier:
                    if run is not current:
                        client.delete_run(run.mlflow_id)
        return counts

    @contextmanager
    def _reporting_errors(self, database: Path) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise StoreError(f"MLflow cannot write {database}: {error}") from error

    def _create_database(self, database: Path) -> None:
        """Create the database if there is none, so that a kill never leaves one without all its tables."""
        remove_temporaries(database.parent)
        if not database.exists():
            with replacing(database) as temporary:
                self._open_client(f"sqlite:///{temporary}").search_experiments(max_results=1)

    @staticmethod
    def _experiment_id(client: Any, output: Path) -> str:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            artifacts = (output.resolve() / "artifacts").as_uri()
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    @staticmethod
    def _find_exported(client: Any, experiment: str) -> dict[str, list[_Exported]]:
        """Return the runs of earlier exports by run id."""
        exported: defaultdict[str, list[_Exported]] = defaultdict(list)
        token = None
        while True:
            page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
            for run in page:
                if RUN_ID in run.data.tags:
                    is_complete = run.info.status == "FINISHED"
                    digest = run.data.tags.get(DIGEST) if is_complete else None
                    exported[run.data.tags[RUN_ID]].append(_Exported(run.info.run_id, digest))
            token = page.token
            if not token:
                return exported

    def _write_run(self, client: Any, experiment: str, tables: RunTables, schemas: Schemas) -> None:
        fixed = {column.name: tables.run[column.name] for column in FIXED_COLUMNS["runs"]}
        tags = {
            f"initbench.{name}": format_value(value) for name, value in fixed.items() if value is not None
        }
        values = {"seed": fixed["seed"], **tables.config}
        run = client.create_run(
            experiment,
            start_time=_milliseconds(tables.time_of_step(0)),
            tags={**tags, DIGEST: tables.digest},
            run_name=tables.run_id,
        )
        mlflow_id = run.info.run_id
        params = [self._entities.Param(_name(key), _value(value)) for key, value in values.items()]
        for part in _parts(params, _MAX_PARAMS):
            client.log_batch(mlflow_id, params=part)
        for part in _parts(list(self._metrics(tables)), _MAX_METRICS):
            client.log_batch(mlflow_id, metrics=part)
        for table in ("layers", "histograms"):
            client.log_text(mlflow_id, csv_text(tables, table, schemas[table]), f"{table}.csv")
        end = parse_time(tables.run["finished"])
        client.set_terminated(mlflow_id, end_time=None if end is None else _milliseconds(end))

    def _metrics(self, tables: RunTables) -> Iterator[Any]:
        """Yield the curves, and the metrics of `compare` at the last step."""
        metrics = ((tables.last_step, name, number) for name, number in tables.metrics.items())
        for step, name, number in (*curve_scalars(tables), *metrics):
            time = _milliseconds(tables.time_of_step(step))
            yield self._entities.Metric(name, number, time, step)


def _name(key: str) -> str:
    """Return a config key without the characters that MLflow rejects."""
    return _INVALID.sub("_", key)


def _value(value: Any) -> str:
    return format_value(value)[:_MAX_VALUE]


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
