"""Check an experiment before training, and compute the data that its tasks and records share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.preprocessing import PreparedData
from initbench.models.families.custom import CustomOptions, require_factory
from initbench.plugins import origin_of
from initbench.pretrain.initial_networks import check_pretraining_inputs
from initbench.pretrain.transfer import describe_transfers
from initbench.runner.capacity import check_network
from initbench.runner.code_fingerprint import factory_fingerprint, plugin_entries
from initbench.runner.plan import Plan
from initbench.runner.run_identity import Identity
from initbench.store.run_directory import Record
from initbench.train.loop import total_steps
from initbench.train.matmul_precision import matmul_backend


@dataclass(frozen=True)
class Preflight:
    """The facts about the runs of an experiment that are known before training."""

    steps: int
    record: Record
    transfers: Mapping[int, Record]
    """For each seed that starts from the weights of another net: the transferred weights."""

    def initial_record(self, seed: int, identity: Identity, threads: int, device: str) -> Record:
        """Return the initial contents of run.json for a seed."""
        parts = {key: value for key, value in identity.parts.items() if key != "config"}
        weights = {} if identity.weights is None else {"weights": identity.weights}
        return {
            **self.record,
            "seed": seed,
            "arm": identity.arm,
            "identity": {**parts, **weights},
            "device": device,
            "threads": threads,
            "transfer": self.transfers.get(seed),
        }


def preflight(plan: Plan, seeds: tuple[int, ...], data: PreparedData, surroundings: Record) -> Preflight:
    """Check that these seeds of an experiment can be trained on the data.

    `surroundings`: versions, machine and git state. Raises ConfigError or UsageError, which name the keys.
    """
    config = plan.config
    check_batch_size(len(data.train), config.train.batch_size)
    check_network(config, data, copies=2)  # weights and gradients
    check_pretraining_inputs(config, data)
    transfers = describe_transfers(config, data, {seed: plan.origins[seed] for seed in seeds if plan.origins})
    steps = total_steps(config.train, len(data.train) // config.train.batch_size)
    return Preflight(steps, {**_record(config, data), **_custom_data(plan), **surroundings}, transfers)


def _record(config: ExperimentConfig, data: PreparedData) -> Record:
    return {
        "experiment": config.name,
        "config": config.resolved(),
        "dataset": data.name,
        "dataset_requested": data.requested,
        "precision": config.train.precision,
        "matmul": matmul_backend(data.train.x.device),
        "samples": _samples(data),
        "classes": data.classes,
        **({} if data.class_names is None else {"class_names": list(data.class_names)}),
        **_plugins(config, data.name),
        **_custom_model(config),
        **dict.fromkeys(("parameters", "steps", "final", "diverged", "diagnosis", "error")),
    }


def _plugins(config: ExperimentConfig, dataset: str) -> Record:
    """Return the entries of plug-ins that the runs use, each with its module and distribution."""
    entries = [
        {"kind": entry.registry.kind, "name": entry.name, **asdict(origin_of(entry.module))}
        for entry in plugin_entries(config, dataset)
    ]
    return {"plugins": entries} if entries else {}


def _custom_model(config: ExperimentConfig) -> Record:
    """Return the function that builds a net of the user, and the hash of its code."""
    if not isinstance(config.model, CustomOptions):
        return {}
    factory = require_factory()
    code = factory_fingerprint(config)
    return {"custom_model": {"module": factory.module, "function": factory.attribute, "code": code}}


def _custom_data(plan: Plan) -> Record:
    """Return the function of the user that returned the data, if there is one."""
    function = plan.resolved.located.function
    return {"custom_data": {"function": function}} if function else {}


def _samples(data: PreparedData) -> dict[str, int]:
    """Return the size of each split.

    `unlabelled` samples are in addition to `train`; `mislabelled` samples are part of `train`.
    """
    unlabelled = 0 if data.unlabelled is None else len(data.unlabelled)
    return {
        "train": len(data.train),
        "val": len(data.val),
        "test": len(data.test),
        "unlabelled": unlabelled,
        "mislabelled": data.mislabelled,
    }
