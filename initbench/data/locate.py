"""Resolution of a config's data section to an available data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from initbench.data.dataset import DATASETS, DataOptions, DataSource, LocatedDataset, UnavailableError
from initbench.data.download.checksums import cache_folder
from initbench.errors import DataError
from initbench.paths import expand_user, file_kind
from initbench.registry_choice import default_choice


@dataclass(frozen=True, kw_only=True)
class ResolvedDataset:
    """The data set that a run uses, and the one that its config requests."""

    requested: str
    located: LocatedDataset


def data_root(folder: Path | None) -> Path:
    """Return the data root: `folder` (--data-dir or INITBENCH_DATA), or else the XDG cache.

    It need not exist. Raises DataError if the path exists and is not a folder.
    """
    root = expand_user(folder).absolute() if folder else cache_folder()
    try:
        is_usable = file_kind(root) in ("folder", "missing")
    except OSError as error:
        raise DataError(f"the data root {str(root)[:200]} cannot be used: {error.strerror}") from None
    if not is_usable:
        raise DataError(f"the data root {root} is not a folder")
    return root


def resolve_dataset(options: DataOptions, source: DataSource) -> ResolvedDataset:
    """Find or download the data set `options.name`, or use its `fallback` if it is unavailable.

    An unavailable set is searched, and its fallback reported through `source.notify`, once per DataSource,
    however many configs request it.

    Raises:
        UnavailableError: If the set is unavailable and has no fallback.
        DataError: If a file fails verification.
    """
    key = _lookup_key(options)
    previous_error = source.unavailable.get(key)
    try:
        if previous_error is not None:
            raise previous_error
        located = DATASETS[options.name].locate(options, source)
    except UnavailableError as error:
        if options.fallback is None:
            raise
        located = _fall_back(options, source)
        if previous_error is None:
            source.notify(
                f"{error.missing}, so {located.name} is used instead; to get the real set,"
                f" {error.remedies[0]}"
            )
            source.unavailable[key] = error
    return ResolvedDataset(requested=options.name, located=located)


def options_used(options: DataOptions, resolved: ResolvedDataset) -> DataOptions:
    """Return the options under which the located set is used: `options`, or those of the fallback.

    A fallback keeps the requested preprocessing and has its own options at their defaults. The result equals
    the options of a config that requests the fallback by its name.
    """
    name = resolved.located.name
    if name == options.name:
        return options
    stand_in: DataOptions = default_choice(DATASETS, name)
    shared = {key: getattr(options, key) for key in DataOptions.model_fields}
    return stand_in.model_copy(update={**shared, "name": name, "fallback": None})


def _lookup_key(options: DataOptions) -> str:
    """Return the key that decides where a set is searched: its name and the options that only it has."""
    shared = set(DataOptions.model_fields) - {"name"}
    return options.model_dump_json(exclude=shared)


def _fall_back(options: DataOptions, source: DataSource) -> LocatedDataset:
    name = str(options.fallback)
    return DATASETS[name].locate(default_choice(DATASETS, name), source)
