"""Summaries of stored runs: the fields that comparisons need, small enough to load thousands at once."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

from initbench.analysis.recorded_defaults import with_defaults
from initbench.store.packed_numbers import EVALUATION_KEYS, Evaluations, Layer, PackedNumbers
from initbench.store.run_directory import COMPLETE
from initbench.store.store import StoredRun
from initbench.store.summary_file import (
    TRAIN,
    LineStatistics,
    StoredSummary,
    parse_shared,
    summary_fields,
)

NOT_COMPARED = ("name", "notes", "seeds")
"""Config keys that do not affect what is computed."""
UNPACKED_RUNS = 256
"""Runs whose numbers are kept as Python objects, which take ten times the memory of packed ones."""
_STAND_IN = "data.fallback"
"""Config key of the fallback data set; it does not affect a run, which records the data set it used."""


@dataclass(frozen=True)
class RunSummary:
    """A run without its histograms and weights; all fields are plain data."""

    run_id: str
    experiment: str
    arm: str
    """Hash of config, code and device, which all seeds share."""
    seed: int
    status: str
    created: str
    dataset: str
    dataset_requested: str
    fingerprint: str
    """Hash of the data; empty if the run does not record it."""
    config: dict[str, Any]
    """Stored config, with keys that were added later at their defaults; empty unless `is_placed`."""
    identity: dict[str, Any]
    steps: int | None
    """Budget in updates."""
    batch_size: int | None
    final: dict[str, float | None]
    begin: dict[str, float | None]
    """Validation losses and accuracies at step 0 with batch and population statistics of batch norm."""
    packed: PackedNumbers
    """Numbers of `evaluations` and `layers`."""
    scores: dict[str, list[float | None]]
    """Other scores of each evaluation, by key, such as val_r2; only those that the run has."""
    diverged_step: int | None
    diagnosis: list[str]
    seconds: float | None
    """Training time in seconds: that of the cohort divided by its number of runs."""
    machine: str
    """Processor that trained the run; empty if the run does not record it."""
    error: str | None
    """Reason why the run failed, crashed or is damaged; None if there is none or it is unknown."""
    version: str
    """Version of initbench that trained the run; empty if the run does not record it."""
    pretraining: dict[str, float]
    """Cost of layer-wise pre-training: "seconds" (per run, like `seconds`) and "samples", if any."""

    @property
    def is_complete(self) -> bool:
        """Whether the run has a result, which may be a divergence."""
        return self.status in COMPLETE

    @property
    def is_finished(self) -> bool:
        """Whether the run reached the end of its budget."""
        return self.status == "finished"

    @property
    def is_placed(self) -> bool:
        """Whether the config is known, so that the run belongs to a row; only damaged runs may lack it."""
        return bool(self.config)

    @property
    def evaluations(self) -> Evaluations:
        """[step, train_loss, val_loss, val_accuracy] of each evaluation."""
        return _unpack(self.packed)[0]

    @property
    def layers(self) -> dict[str, list[Layer]]:
        """Weight layers of each moment in order, with the head last; at TRAIN only the hidden layers."""
        return _unpack(self.packed)[1]

    def curve(self, key: str) -> list[tuple[float | None, float | None]]:
        """Return (step, value) of each evaluation for a key such as val_loss; empty if the run lacks it."""
        if key in EVALUATION_KEYS:
            column = EVALUATION_KEYS.index(key)
            return [(entry[0], entry[column]) for entry in self.evaluations]
        steps = (entry[0] for entry in self.evaluations)
        return list(zip(steps, self.scores.get(key, ()), strict=False))

    @property
    def main_score(self) -> str:
        """Key of the score that targets refer to: val_r2 if the run has it, otherwise val_accuracy."""
        return "val_r2" if "val_r2" in self.scores else "val_accuracy"

    def hidden(self, moment: str) -> list[Layer]:
        """Return the hidden layers from first to last; empty if they were not measured at that moment."""
        return _unpack(self.packed)[2].get(moment, [])

    @cached_property
    def config_keys(self) -> dict[str, Any]:
        """Dotted config keys that affect what is computed, with their values."""
        return computation_keys(self.config)

    @property
    def keys(self) -> dict[str, Any]:
        """The `config_keys`, and the experiment, seed, status, data set, device, versions and code.

        They are not kept: those of thousands of runs would take more memory than the runs.
        """
        extra = {
            "experiment": self.experiment,
            "seed": self.seed,
            "status": self.status,
            "dataset": self.dataset,
            "with": self.identity,
        }
        return {**self.config_keys, **flatten_keys(extra)}

    @cached_property
    def batches(self) -> str:
        """Text that determines, together with the seed, the training batches and the validation set."""
        # Interned, since the texts of all runs are compared for every pair of rows.
        return sys.intern(repr((self.config.get("data"), self.batch_size, self.fingerprint)))

    def as_data(self) -> dict[str, Any]:
        """Return the fields as plain data; `RunSummary(**data)` restores the summary."""
        return asdict(self)


def computation_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return `RunSummary.config_keys` of a run with this config."""
    keys = flatten_keys({key: value for key, value in config.items() if key not in NOT_COMPARED})
    keys.pop(_STAND_IN, None)
    return keys


def flatten_keys(value: Any, path: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys.

    The name of a component replaces the mapping: {"norm": {"name": "group", "num_groups": 8}} becomes
    {"norm": "group", "norm.num_groups": 8}. Keys with the value None are omitted.
    """
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        inner_path = f"{path}.{key}" if path else key
        flat |= flatten_keys(inner, path if path and key == "name" else inner_path)
    return flat


def summarise_run(run: StoredRun) -> RunSummary:
    """Return the summary of a stored run, whose files must not be damaged."""
    lines = LineStatistics.from_lines(run.convergence, run.snapshots)
    fields = summary_fields({**run.record, "run_id": run.run_id}, lines, run.shifts)
    return RunSummary(**{**fields, "config": with_defaults(fields["config"])})


def decode_summary(stored: StoredSummary) -> RunSummary:
    """Return the summary in a summary file; raise ValueError if its contents are invalid."""
    config, identity, keys = _parse_shared(stored.shared)
    summary = RunSummary(**stored.parse_fields(), config=config, identity=identity)
    vars(summary)["config_keys"] = keys  # sets the cached property, which is the same for all seeds
    return summary


@lru_cache(maxsize=UNPACKED_RUNS)
def _unpack(packed: PackedNumbers) -> tuple[Evaluations, dict[str, list[Layer]], dict[str, list[Layer]]]:
    """Return the evaluations, the layers and the hidden layers of a run; do not mutate them."""
    evaluations, layers = packed.unpack()
    hidden = {
        moment: [layer for layer in rows if moment == TRAIN or layer["act_std"] is not None]
        for moment, rows in layers.items()
    }
    return evaluations, layers, hidden


@lru_cache(maxsize=4096)
def _parse_shared(line: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return config, identity and `config_keys`; all seeds share the result, so do not mutate it."""
    config, identity = parse_shared(line)
    config = with_defaults(config)
    return config, identity, computation_keys(config)
