"""Summaries of stored runs: the fields that comparisons need, small enough to load thousands at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from initbench.analysis.recorded_defaults import with_defaults
from initbench.store.run_directory import COMPLETE
from initbench.store.store import StoredRun
from initbench.store.strict_json import parse_number_or_none

_ACTIVATION = {
    "act_std": "std",
    "act_mean": "mean",
    "zero_fraction": "zero_fraction",
    "dead_fraction": "dead_fraction",
    "saturated_fraction": "saturated_fraction",
    "effective_rank": "effective_rank",
}
LAYER_STATISTICS = ("q", *_ACTIVATION, "delta_q", "weight_gradient", "weight_std", "unit_spread")
"""E[h²] of the pre-activation, statistics of the activation, E[δ²] at the pre-activation, ‖∂L/∂W‖, the std of
the weights, and the largest relative spread over units (0 if all units are equal)."""
RUNNING_STATISTICS = ("running_mean_gap", "running_var_ratio")
"""Additional statistics of layers that are followed by batch norm."""
SHIFT_STATISTICS = ("gradient_shift", "gradient_shift_cosine", "input_mean_drift", "input_std_drift")
"""Statistics of internal covariate shift, only at TRAIN: means over the updates where it was measured."""
NOT_COMPARED = ("name", "notes", "seeds")
"""Config keys that do not affect what is computed."""
_STAND_IN = "data.fallback"
"""Config key of the fallback data set; it does not affect a run, which records the data set it used."""
PROBED = ("init", "end")
TRAIN = "train"
MOMENTS = (*PROBED, TRAIN)
Layer = dict[str, float | None]
"""Statistics of one weight layer by name: LAYER_STATISTICS, and RUNNING_STATISTICS in nets with batch norm;
at TRAIN, SHIFT_STATISTICS. `act_std` of a head is None."""


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
    evaluations: list[list[float | None]]
    """[step, train_loss, val_loss, val_accuracy] of each evaluation."""
    layers: dict[str, list[Layer]]
    """By moment, the weight layers in order, with the head last; at TRAIN only the hidden layers."""
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

    def hidden(self, moment: str) -> list[Layer]:
        """Return the hidden layers from first to last; empty if they were not measured at that moment."""
        return self._hidden.get(moment, [])

    @cached_property
    def _hidden(self) -> dict[str, list[Layer]]:
        return {
            moment: [layer for layer in layers if moment == TRAIN or layer["act_std"] is not None]
            for moment, layers in self.layers.items()
        }

    @cached_property
    def config_keys(self) -> dict[str, Any]:
        """Dotted config keys that affect what is computed, with their values."""
        return computation_keys(self.config)

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The `config_keys`, and the experiment, seed, status, data set, device, versions and code."""
        extra = {
            "experiment": self.experiment,
            "seed": self.seed,
            "status": self.status,
            "dataset": self.dataset,
            "with": self.identity,
        }
        return {**self.config_keys, **flatten(extra)}

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
    keys = flatten({key: value for key, value in config.items() if key not in NOT_COMPARED})
    keys.pop(_STAND_IN, None)
    return keys


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys.

    The name of a component replaces the mapping: {"norm": {"name": "group", "num_groups": 8}} becomes
    {"norm": "group", "norm.num_groups": 8}. Keys with the value None are omitted.
    """
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        inner_path = f"{path}.{key}" if path else key
        flat |= flatten(inner, path if path and key == "name" else inner_path)
    return flat


def summarise_run(run: StoredRun) -> RunSummary:
    """Return the summary of a stored run, whose files must not be damaged."""
    record = run.record
    config, identity = record["config"], record.get("identity") or {}
    train = config.get("train") or {}
    return RunSummary(
        run_id=run.run_id,
        experiment=str(record["experiment"]),
        arm=str(record.get("arm")),
        seed=int(record["seed"]),
        status=str(record["status"]),
        created=str(record.get("created") or ""),
        dataset=str(record.get("dataset")),
        dataset_requested=str(record.get("dataset_requested")),
        fingerprint=str((identity.get("data") or {}).get("fingerprint") or ""),
        config=with_defaults(_config_with_data_used(record)),
        identity=identity,
        steps=record.get("steps") or train.get("steps"),
        batch_size=train.get("batch_size"),
        final={name: parse_number_or_none(value) for name, value in (record.get("final") or {}).items()},
        begin=_initial_norm_metrics(run.convergence),
        evaluations=[_evaluation_row(entry) for entry in run.convergence],
        layers={**dict(_probed_layers(run.snapshots)), **_mean_shift_statistics(run.shifts)},
        diverged_step=(record.get("diverged") or {}).get("step"),
        diagnosis=[finding["code"] for finding in record.get("diagnosis") or []],
        seconds=_training_seconds(record),
        machine=str((record.get("machine") or {}).get("processor") or ""),
        error=str(record["error"]) if record.get("error") else None,
        version=str((record.get("versions") or {}).get("initbench") or ""),
        pretraining=_pretraining_cost(record),
    )


def _config_with_data_used(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the data set that was used, if the stored config has the requested one."""
    config: dict[str, Any] = record["config"]
    data: dict[str, Any] = config.get("data") or {}
    used, requested = record.get("dataset"), record.get("dataset_requested")
    if None in (used, requested) or used == requested or data.get("name") != requested:
        return config
    return {**config, "data": {**data, "name": used}}


def _evaluation_row(entry: dict[str, Any]) -> list[float | None]:
    measured = (parse_number_or_none(entry[key]) for key in ("train_loss", "val_loss", "val_accuracy"))
    return [float(entry["step"]), *measured]


def _initial_norm_metrics(convergence: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    first = next((entry for entry in convergence if entry["step"] == 0), {})
    kinds = ("_batch", "_population")
    return {name: parse_number_or_none(value) for name, value in first.items() if name.endswith(kinds)}


def _probed_layers(snapshots: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Layer]]]:
    for moment in PROBED:
        snapshot = next((s for s in snapshots if s["when"] == moment), None)
        if snapshot is not None:
            names = RUNNING_STATISTICS if any("batch_norm" in layer for layer in snapshot["layers"]) else ()
            yield moment, [_layer_statistics(layer, names) for layer in snapshot["layers"]]


def _layer_statistics(layer: dict[str, Any], running: Sequence[str]) -> Layer:
    act, norm = layer["act"] or {}, layer.get("batch_norm") or {}
    return {
        "q": parse_number_or_none(layer["pre"]["q"]),
        **{name: parse_number_or_none(act.get(key)) for name, key in _ACTIVATION.items()},
        "delta_q": parse_number_or_none(layer["grad"]["pre_q"]),
        "weight_gradient": parse_number_or_none(layer["grad"].get("weight_norm")),
        "weight_std": parse_number_or_none(layer.get("weight_std")),
        "unit_spread": parse_number_or_none(layer.get("unit_spread")),
        **{name: parse_number_or_none(norm.get(name)) for name in running},
    }


def _mean_shift_statistics(shifts: Sequence[dict[str, Any]]) -> dict[str, list[Layer]]:
    """Return the hidden layers at TRAIN, averaged over the measured updates; empty without measurements."""
    hidden = [[layer for layer in entry["layers"] if layer["hidden"]] for entry in shifts]
    layers = [
        {
            name: _mean_of_known([parse_number_or_none(layer[name]) for layer in moments])
            for name in SHIFT_STATISTICS
        }
        for moments in zip(*hidden, strict=False)
    ]
    return {TRAIN: layers} if layers else {}


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _training_seconds(record: dict[str, Any]) -> float | None:
    timings = record.get("timings") or {}
    total = parse_number_or_none(timings.get("train"))
    return None if total is None else total / max(1, int(record.get("cohort") or 1))


def _pretraining_cost(record: dict[str, Any]) -> dict[str, float]:
    cost = record.get("pretraining")
    if not cost:
        return {}
    seconds = float(cost["seconds"]) / max(1, int(record.get("cohort") or 1))
    return {"seconds": seconds, "samples": float(cost["samples"])}
