"""From a config's data section to a data set that is really there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from initbench.choice import default_choice
from initbench.data.dataset import DATASETS, DataOptions, Located, Source, UnavailableError
from initbench.data.obtain.checksums import cache_folder
from initbench.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The data set a run will use, and the one its config asked for."""

    requested: str
    located: Located

    @property
    def fell_back(self) -> bool:
        """Whether another set stands in for the one that was asked for."""
        return self.located.name != self.requested


def data_root(explicit: Path | None = None) -> Path:
    """The data root: `explicit` (--data-dir), else INITBENCH_DATA, else the XDG cache.

    It need not exist. Raises DataError when it is something other than a folder.
    """
    named = explicit or os.environ.get("INITBENCH_DATA")
    root = Path(named).expanduser().absolute() if named else cache_folder()
    if root.exists() and not root.is_dir():
        raise DataError(f"the data root {root} is not a folder")
    return root


def resolve(options: DataOptions, source: Source) -> Resolved:
    """Find or fetch the data set `options.name`, or its `fallback` when it cannot be had.

    A fallback is said once through `source.notify`. Raises UnavailableError without one, and
    DataError whenever a file is there that cannot be trusted.
    """
    try:
        located = DATASETS[options.name].locate(options, source)
    except UnavailableError as error:
        if options.fallback is None:
            raise
        located = _fall_back(options, source, error)
    return Resolved(requested=options.name, located=located)


def _fall_back(options: DataOptions, source: Source, error: UnavailableError) -> Located:
    entry = DATASETS[str(options.fallback)]
    plain = default_choice(DATASETS, entry.name)
    located = entry.locate(plain.model_copy(update={"normalize": options.normalize}), source)
    source.notify(
        f"{error.missing}, so {entry.name} is used instead; to get the real set, {error.remedies[0]}"
    )
    return located
