"""Files with the tidy tables, one for each table, written run by run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from initbench.export.tables import Columns, RunTables, Schemas, TableColumn
from initbench.store.files import remove_temporaries, replacing


@dataclass
class ExportCounts:
    """Result of an export to one target."""

    written: int = 0
    """Number of runs that were written."""
    unchanged: int = 0
    """Number of runs that the target already had and that were not touched."""
    files: list[Path] = field(default_factory=list)
    """The files of the tables, or the directory or database that contains the runs."""
    advice: str = ""
    """The next command of the user; empty if there is none."""


class TableFile(Protocol):
    """A file that receives the rows of one table."""

    def write(self, rows: Columns) -> None:
        """Append rows."""


OpenTable = Callable[[Path, Sequence[TableColumn]], AbstractContextManager[TableFile]]
"""Opens a new file at a path for a table with these columns; the file is complete when the context ends."""


def write_table_files(
    runs: Iterable[RunTables], schemas: Schemas, output: Path, suffix: str, open_table: OpenTable
) -> ExportCounts:
    """Write `TABLE` + `suffix` for each table; each file is replaced atomically once all runs are written.

    The caller must be the only one that exports to `output`.
    """
    counts = ExportCounts(files=[output / f"{name}{suffix}" for name in schemas])
    remove_temporaries(output)
    with ExitStack() as stack:
        files = {}
        for (name, schema), path in zip(schemas.items(), counts.files, strict=True):
            temporary = stack.enter_context(replacing(path))
            files[name] = stack.enter_context(open_table(temporary, schema))
        for tables in runs:
            for name, file in files.items():
                file.write(tables.columns(name, schemas[name]))
            counts.written += 1
    return counts
