"""Sources of pretrained weights: located, read, checked, and hashed for the run id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import save
from torch import Tensor

from initbench.components.inits.pretrained_scheme import TORCHVISION, TransferOptions
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.errors import ConfigError, ConfigIssue, DataError, StoreError
from initbench.machine import require_memory
from initbench.paths import expand_user
from initbench.pretrain.torchvision_weights import published
from initbench.pretrain.weight_files import read
from initbench.registry import nearest_name
from initbench.store.run_directory import WEIGHTS
from initbench.store.store import Store


@dataclass(frozen=True)
class WeightSource:
    """Weights from which one run starts, as plain data."""

    name: str
    """Run id, path of the file, or name in torchvision."""
    sha256: str
    """Hash of `tensors`; part of the run id."""
    kind: str
    """Equal for all seeds of an experiment: the arm of the source, or the hash if they share one source."""
    tensors: bytes = field(repr=False)
    """Contents of a safetensors file, under this net's names."""


def resolve_weight_sources(
    config: ExperimentConfig, store: Store, source: DataSource
) -> dict[int, WeightSource]:
    """Return the weight source of every seed; empty if the scheme loads no weights.

    Raises:
        ConfigError: If a run is not in the store.
        StoreError: If a run is damaged.
        DataError: If a file is missing or holds no weights.
    """
    options = config.init.scheme
    if not isinstance(options, TransferOptions):
        return {}
    if options.source.startswith(TORCHVISION):
        name = options.source.removeprefix(TORCHVISION)
        return dict.fromkeys(
            config.seed_list, _same_source(options.source, published(name, config.model, source))
        )
    if options.is_file:
        return dict.fromkeys(
            config.seed_list, _same_source(options.source, read(expand_user(options.source)))
        )
    return _stored(options.source, config.seed_list, store)


def _same_source(name: str, tensors: Mapping[str, Tensor]) -> WeightSource:
    packed = _packed(name, tensors)
    digest = hashlib.sha256(packed).hexdigest()
    return WeightSource(name, digest, digest, packed)


def _packed(name: str, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the tensors as the bytes of a safetensors file, independent of their original format."""
    broken = [key for key, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise DataError(
            f"{name}: {broken[0]} holds values that are NaN or infinite; it is no net to start from"
        )
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    require_memory(2 * size, f"the weights of {name}", "check that the file is what it should be")
    return save({key: tensors[key].detach().clone().contiguous() for key in sorted(tensors)})


def _stored(name: str, seeds: tuple[int, ...], store: Store) -> dict[int, WeightSource]:
    if store.directory(name) is not None:
        return dict.fromkeys(seeds, _of_run(store, name, None))
    records = [r for r in store.records() if r.get("experiment") == name]
    if not records:
        raise _not_there(name, store)
    finished = [record for record in records if record["status"] == "finished"]
    return {seed: _of_seed(name, seed, finished, store) for seed in seeds}


def _of_seed(name: str, seed: int, finished: list[dict[str, Any]], store: Store) -> WeightSource:
    same_seed = [record for record in finished if record.get("seed") == seed]
    if not same_seed:
        seeds = sorted(int(record["seed"]) for record in finished)
        there = f"there are seeds {', '.join(map(str, seeds))}" if seeds else "none of its runs is finished"
        raise _fault(f"experiment {name} has no finished run of seed {seed}: {there}")
    if len(same_seed) > 1:
        ids = ", ".join(str(record["run_id"]) for record in same_seed)
        raise _fault(
            f"experiment {name} has {len(same_seed)} finished runs of seed {seed}: name one, of {ids}"
        )
    return _of_run(store, str(same_seed[0]["run_id"]), str(same_seed[0].get("arm")))


def _of_run(store: Store, run_id: str, arm: str | None) -> WeightSource:
    status = store.status(run_id)
    if status != "finished":
        raise _fault(f"run {run_id} is {status or 'gone'}, and only a finished run has weights to start from")
    for problem in store.verify(run_id):
        raise StoreError(f"run {run_id} is damaged: {problem}; train it again with --rerun")
    tensors = store.read_stable(run_id, lambda directory: read(directory / WEIGHTS))
    if tensors is None:
        raise _fault(f"run {run_id} is gone, and only a finished run has weights to start from")
    origin = _same_source(run_id, tensors)
    return origin if arm is None else WeightSource(run_id, origin.sha256, arm, origin.tensors)


def _not_there(name: str, store: Store) -> ConfigError:
    records = store.records()
    names = dict.fromkeys([str(r.get("experiment")) for r in records] + [str(r["run_id"]) for r in records])
    guess = nearest_name(name, names)
    hint = f"did you mean {guess!r}?" if guess else "`initbench ls` lists the stored runs"
    if not names:
        hint = f"{store.root} contains no runs"
    return _fault(f"no stored run or experiment is called {name!r}; {hint} (a file's path has a slash in it)")


def _fault(problem: str) -> ConfigError:
    return ConfigError([ConfigIssue("", "init.scheme.from", problem)])
