"""`initbench data`: list, fetch and verify data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from initbench.cli.options import DataDir, Json, Plugins, add_command
from initbench.errors import DataError, UsageError
from initbench.render.terminal import print_uncut, stdout_console
from initbench.render.text import DASH
from initbench.render.text_table import TextTable

if TYPE_CHECKING:
    from initbench.data.dataset import DataOptions, DataSource, LocatedDataset

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="List, fetch and verify data sets.",
)

Offline = Annotated[
    bool, typer.Option("--offline", help="No network access (`ls` and `verify` never use it).")
]


def list_sets(
    data_dir: DataDir = None, offline: Offline = False, _plugins: Plugins = None, as_json: Json = False
) -> None:
    """List the data sets and their locations, without network access."""
    del offline
    from initbench.data.dataset import DATASETS

    source = _data_source(data_dir, offline=True)
    rows = [{**_status_row(entry.name, source), "summary": entry.summary} for entry in DATASETS]
    _print_rows(rows, source, as_json)


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Data sets to fetch.")],
    data_dir: DataDir = None,
    offline: Offline = False,
    _plugins: Plugins = None,
) -> None:
    """Fetch data sets into the data root; existing ones are only verified."""
    from initbench.data.dataset import DATASETS

    source = _data_source(data_dir, offline=offline)
    named_options = [(name, _default_options(name)) for name in names]
    for name, options in named_options:
        located = DATASETS[name].locate(options, source)
        typer.echo(f"{name}  {_location(located)}")


def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Default: all.")] = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    _plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Compute the checksums of the files on disk and compare them with the published ones.

    Exit 3 if a file is damaged or a named data set is missing.
    """
    del offline
    from initbench.data.dataset import DATASETS

    source = _data_source(data_dir, offline=True, recheck=True)
    for name in names or []:
        _default_options(name)
    rows = [_status_row(name, source) for name in names or DATASETS.names()]
    _print_rows(rows, source, as_json)
    failing_statuses = {"damaged", "missing"} if names else {"damaged"}
    failing_rows = [row for row in rows if row["status"] in failing_statuses]
    if failing_rows:
        raise DataError("\n".join(str(row["problem"]) for row in failing_rows))


def _data_source(data_dir: Path | None, *, offline: bool, recheck: bool = False) -> DataSource:
    from initbench.data.dataset import DataSource
    from initbench.data.locate import data_root

    def notify(message: str) -> None:
        typer.echo(message, err=True)

    return DataSource(root=data_root(data_dir), offline=offline, notify=notify, recheck=recheck)


def _default_options(name: str) -> DataOptions:
    """Return the default options of the data set; raise UsageError if it has required options."""
    from initbench.data.dataset import DATASETS
    from initbench.registry_choice import default_choice

    entry = DATASETS[name]
    needed = [key for key, field in entry.options.model_fields.items() if field.is_required()]
    if needed:
        keys = ", ".join(f"data.{key}" for key in needed)
        raise UsageError(f"{name} reads your own files; set {keys} in a config")
    options: DataOptions = default_choice(DATASETS, name)
    return options


def _status_row(name: str, source: DataSource) -> dict[str, Any]:
    """Return the row of a data set; its status is ok, missing, damaged or `yours` (files set in a config)."""
    from initbench.data.dataset import DATASETS, UnavailableError

    row: dict[str, Any] = {"name": name, "status": "ok", "where": None, "bytes": None, "problem": None}
    try:
        located = DATASETS[name].locate(_default_options(name), source)
    except UsageError:
        return {**row, "status": "yours"}
    except UnavailableError as error:
        return {**row, "status": "missing", "problem": error.missing}
    except DataError as error:
        return {**row, "status": "damaged", "problem": str(error)}
    size = sum(path.stat().st_size for path in located.files)
    return {**row, "where": _location(located), "bytes": size if located.files else None}


def _location(located: LocatedDataset) -> str:
    folders = dict.fromkeys(str(path.parent) for path in located.files)
    return ", ".join(folders) or "generated"


def _print_rows(rows: list[dict[str, Any]], source: DataSource, as_json: bool) -> None:
    if as_json:
        import json

        document = {"schema": "initbench.data/1", "root": str(source.root), "sets": rows}
        typer.echo(json.dumps(document, indent=2))
        return

    headings = ["data set", "status", "size", "where", "what it is"]
    grid = TextTable(headings, left_aligned=[heading for heading in headings if heading != "size"])
    for row in rows:
        cells = [row["name"], row["status"], _format_size(row["bytes"]), row["where"] or DASH]
        grid.add([*cells, row.get("summary", "")])
    print_uncut(stdout_console(), (grid if "summary" in rows[0] else grid.without(headings[-1:])).table())


def _format_size(count: int | None) -> str:
    return DASH if count is None else f"{count / 1e6:.1f} MB"


for _name, _command in (("ls", list_sets), ("fetch", fetch), ("verify", verify)):
    add_command(app, _name, _command)
