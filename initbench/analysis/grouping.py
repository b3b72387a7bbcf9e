"""Grouping of runs into tables and rows: by experiment, or by the values of selected keys.

Runs on different data, in different precision or with different budgets are never averaged. They are in
different tables, unless the rows are made by the key that differs. Runs under different data conditions are
never averaged either: they are different rows, labelled with their non-default conditions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.analysis.config_keys import keys_that_differ
from initbench.analysis.run_summary import RunSummary

Key = dict[str, Any]
_OF_A_RUN = ("experiment", "seed", "status", "dataset")
_CODE = "with.code"
"""Key of a run with the hash of the code that computed it."""
_DAY_LENGTH, _MINUTE_LENGTH = len("2026-11-28"), len("2026-11-28T10:15")
_HASH_DIGITS = 6
"""Number of digits of a hash that are shown to distinguish two versions that ran within the same minute."""
DEFAULT_CONDITIONS: dict[str, Any] = {
    "data.whiten": "none",
    "data.whiten_eps": None,
    "data.order": "shuffled",
    "data.labelled": None,
    "data.label_noise": 0.0,
    "data.shift.brightness": 0.0,
    "data.shift.translate": 0,
    "data.shift.noise": 0.0,
}
"""The config keys of data conditions, with their defaults."""
_EVALUATION_PREFIX = "data.shift."


@dataclass(frozen=True)
class TableConditions:
    """The data, precision and budget that the runs of one table share."""

    dataset: str
    fingerprint: str
    """Hash of the data, which distinguishes archives and recipes; empty if the runs do not record it."""
    precision: str
    steps: int | None
    """Budget in updates; None if it makes the rows."""
    batch_size: int | None
    """Batch size; None if it makes the rows."""

    @property
    def sort_key(self) -> tuple[str, str, str, int, int]:
        """Key that sorts tables by data set, then by budget."""
        return self.dataset, self.fingerprint, self.precision, self.steps or 0, self.batch_size or 0


@dataclass(frozen=True)
class RunGroup:
    """The runs of one row."""

    key: Key
    """Keys that make the row: "experiment", with "variant" if several groups have that name, or the selected
    keys. Non-default data conditions are included if the runs of the table differ in them."""
    runs: Sequence[RunSummary]
    varies: dict[str, list[Any]]
    """Values of the config keys in which the runs of this row differ, i.e. over which the row averages."""
    repeats: int = 0
    """Number of runs omitted since the same training is in the row under the name of another experiment."""
    code_version: str = ""
    """Version and days of its runs if the rows of its experiment differ in the code, otherwise empty."""

    @property
    def label(self) -> str:
        """Label of the row; a code version is given by its number and the days of its runs."""
        if not self.code_version:
            return self.key_label
        variant = {key: value for key, value in self.key["variant"].items() if key != _CODE}
        return f"{self.key['experiment']}{_join_keys(variant)} ({self.code_version})"

    @property
    def key_label(self) -> str:
        """Label of the row made of its keys only, which gates and documents accept as well."""
        if "experiment" in self.key and set(self.key) <= {"experiment", "variant"}:
            return str(self.key["experiment"]) + _join_keys(self.key.get("variant", {}))
        return _join_keys(self.key).strip()


def _join_keys(values: dict[str, Any]) -> str:
    return "".join(f" {key}={'null' if value is None else value}" for key, value in values.items())


def pairing_keys(runs: Iterable[RunSummary], varying: Sequence[str]) -> list[str]:
    """Return the unit of each run: the text that it shares with its partner in another row.

    The unit contains the seed and the keys that vary within rows. Runs of a row with the same unit (such as
    those of two code versions) are numbered.
    """
    counts: Counter[str] = Counter()
    units = []
    for run in runs:
        keys = run.config_keys
        unit = "|".join([f"seed={run.seed}", *(f"{key}={keys.get(key)!r}" for key in varying)])
        counts[unit] += 1
        units.append(unit if counts[unit] == 1 else f"{unit} ({counts[unit]})")
    return units


def share_batches(runs: Iterable[RunSummary]) -> bool:
    """Return whether runs of the same seed saw the same batches, i.e. share data, split and batch size."""
    return len({run.batches for run in runs}) <= 1


def group_runs(runs: Iterable[RunSummary], by: Sequence[str]) -> list[tuple[TableConditions, list[RunGroup]]]:
    """Group runs into the rows of tables, sorted by the conditions of the tables.

    Args:
        runs: The runs.
        by: The keys whose values make the rows; without any, each experiment is a row.
    """
    tables: defaultdict[TableConditions, list[RunSummary]] = defaultdict(list)
    for run in runs:
        tables[_table_conditions(run, by)].append(run)
    make = _group_by_keys if by else _group_by_experiment
    return [
        (conditions, make(tables[conditions], by))
        for conditions in sorted(tables, key=lambda conditions: conditions.sort_key)
    ]


def _table_conditions(run: RunSummary, by: Sequence[str]) -> TableConditions:
    steps = None if {"train.steps", "train.epochs"} & set(by) else run.steps
    batch_size = None if "train.batch_size" in by else run.batch_size
    precision = str(run.identity.get("precision") or "fp32")
    return TableConditions(run.dataset, run.fingerprint, precision, steps, batch_size)


def shared_conditions(runs: Iterable[RunSummary]) -> TableConditions:
    """Return the conditions that the runs share.

    Differing data sets and precisions are joined by "and"; a differing budget is None.
    """
    conditions = [_table_conditions(run, ()) for run in runs]

    def common(name: str) -> Any:
        values = {getattr(terms, name) for terms in conditions}
        return values.pop() if len(values) == 1 else None

    def joined(name: str) -> str:
        return " and ".join(dict.fromkeys(getattr(terms, name) for terms in conditions))

    return TableConditions(
        joined("dataset"),
        common("fingerprint") or "",
        joined("precision"),
        common("steps"),
        common("batch_size"),
    )


def _group_by_experiment(runs: Sequence[RunSummary], _by: Sequence[str]) -> list[RunGroup]:
    arms: defaultdict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for run in runs:
        arms[run.experiment, run.arm].append(run)
    keys_by_arm = {arm: _distinguishing_keys(group[0]) for arm, group in arms.items()}
    evaluation_keys = _varying_evaluation_conditions(group[0] for group in arms.values())
    arms_by_experiment: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, arm in arms:
        arms_by_experiment[name].append((name, arm))
    versions, differing_keys = {}, {}
    for name, own_arms in arms_by_experiment.items():
        versions[name] = _code_versions(run for own_arm in own_arms for run in arms[own_arm])
        differing_keys[name] = keys_that_differ([keys_by_arm[own_arm] for own_arm in own_arms])
    groups = []
    for (name, arm), group in arms.items():
        own_keys = keys_by_arm[name, arm]
        variant = {
            key: own_keys[key] for key in differing_keys[name] if key in own_keys
        } | _non_default_conditions(group[0], evaluation_keys)
        key = {"experiment": name, **({"variant": variant} if variant else {})}
        version = versions[name].get(str(variant[_CODE]), "") if _CODE in variant else ""
        groups.append(RunGroup(key, group, {}, code_version=version))
    return groups


def _distinguishing_keys(run: RunSummary) -> dict[str, Any]:
    """Return the keys that can distinguish two arms of the same name, with their values."""
    return {key: value for key, value in run.keys.items() if key not in _OF_A_RUN}


def _group_by_keys(runs: Sequence[RunSummary], by: Sequence[str]) -> list[RunGroup]:
    rows: defaultdict[str, list[RunSummary]] = defaultdict(list)
    keys: dict[str, Key] = {}
    varying = [name for name in _varying_conditions(runs) if name not in by]
    for run in runs:
        values = {**run.keys, **data_conditions(run)}
        key = {name: values.get(name) for name in by} | _non_default_conditions(run, varying)
        rows[repr(key)].append(run)
        keys[repr(key)] = key
    return [_group_without_repeats(keys[name], group, by) for name, group in rows.items()]


def _group_without_repeats(key: Key, runs: Sequence[RunSummary], by: Sequence[str]) -> RunGroup:
    """Return the runs as a row in which each arm and seed is counted once.

    Runs with the same arm and seed are one training, whatever the names of their experiments.
    """
    first_runs: dict[tuple[str, int], RunSummary] = {}
    for run in sorted(runs, key=lambda run: not run.is_complete):
        first_runs.setdefault((run.arm, run.seed), run)
    unique = [run for run in runs if first_runs[run.arm, run.seed] is run]
    return RunGroup(key, unique, _varying_values(unique, by), len(runs) - len(unique))


def _varying_values(runs: Sequence[RunSummary], by: Sequence[str]) -> dict[str, list[Any]]:
    all_keys = [run.config_keys for run in runs]
    return {
        key: sorted({repr(keys.get(key)): keys.get(key) for keys in all_keys}.values(), key=str)
        for key in keys_that_differ(all_keys)
        if key not in by
    }


def _code_versions(runs: Iterable[RunSummary]) -> dict[str, str]:
    """Return a readable name for each hash of the code, such as `initbench 0.1.0, runs of 2026-11-28`.

    The time of day is added if two hashes have the same version and days, and a part of the hash if these are
    equal as well. The result is empty if a run records neither its version nor its time.
    """
    by_code: defaultdict[str, list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.identity.get("code") is not None:
            by_code[str(run.identity["code"])].append(run)
    if not all(run.version or run.created for group in by_code.values() for run in group):
        return {}
    candidates: Sequence[Callable[[str, list[RunSummary]], str]] = (
        lambda _code, group: _describe_runs(group, _DAY_LENGTH),
        lambda _code, group: _describe_runs(group, _MINUTE_LENGTH),
        lambda code, group: f"{_describe_runs(group, _MINUTE_LENGTH)}, code {code[:_HASH_DIGITS]}",
    )
    for words in candidates:
        versions = {code: words(code, group) for code, group in by_code.items()}
        if len(set(versions.values())) == len(versions):
            return versions
    return {}


def _describe_runs(runs: Sequence[RunSummary], length: int) -> str:
    """Return the versions of runs and the times of the first and the last, cut to `length` characters."""
    versions = " and ".join(sorted({run.version for run in runs if run.version}))
    times = sorted(run.created[:length].replace("T", " ") for run in runs if run.created)
    span = " to ".join(dict.fromkeys((times[0], times[-1]))) if times else ""
    return ", ".join([*[f"initbench {versions}"] * bool(versions), *[f"runs of {span}"] * bool(span)])


def data_conditions(run: RunSummary) -> dict[str, Any]:
    """Return the data conditions of a run by key.

    `whiten_eps` is None without whitening, as it has no effect.
    """
    values = {key: run.config_keys.get(key, plain) for key, plain in DEFAULT_CONDITIONS.items()}
    return {**values, "data.whiten_eps": None} if values["data.whiten"] == "none" else values


def _non_default_conditions(run: RunSummary, keys: Iterable[str]) -> dict[str, Any]:
    """Return the conditions among `keys` that differ from their defaults."""
    return {
        key: value
        for key, value in data_conditions(run).items()
        if key in keys and value != DEFAULT_CONDITIONS[key]
    }


def _varying_conditions(runs: Iterable[RunSummary]) -> list[str]:
    """Return the keys of the data conditions in which runs differ, which are never averaged.

    `whiten_eps` is included only if whitened runs differ in it.
    """
    all_conditions = [data_conditions(run) for run in runs]
    whitened = [conditions for conditions in all_conditions if conditions["data.whiten"] != "none"]
    return [
        key
        for key in keys_that_differ(all_conditions)
        if key in keys_that_differ(whitened) or key != "data.whiten_eps"
    ]


def _varying_evaluation_conditions(runs: Iterable[RunSummary]) -> list[str]:
    """Return the varying conditions that affect the data that runs are evaluated on."""
    return [key for key in _varying_conditions(runs) if key.startswith(_EVALUATION_PREFIX)]
