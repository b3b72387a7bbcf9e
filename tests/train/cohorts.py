"""Helpers for the tests of training: small data, nets, and a receiver that keeps all events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from initbench.components.target import SampleShape
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData, Split
from initbench.models.build import build
from initbench.models.network import Network
from initbench.train.events import Advanced, Ended, Evaluated, Probed, Shifted, TrainingEvent
from initbench.train.loop import Training, TrainingSetup

CPU = torch.device("cpu")
DIM, CLASSES = 20, 5
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"name": "sgd"}, "lr": 0.05},
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9}, "lr": 0.02},
    "nesterov": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}, "lr": 0.02},
    "adam": {"optimizer": {"name": "adam", "beta1": 0.8, "eps": 1e-6}, "lr": 1e-3},
    "adamw": {"optimizer": {"name": "adamw", "beta2": 0.99}, "lr": 1e-3, "weight_decay": 0.1},
    "rmsprop": {"optimizer": {"name": "rmsprop", "alpha": 0.9}, "lr": 1e-4},
    "rmsprop_momentum": {"optimizer": {"name": "rmsprop", "momentum": 0.5}, "lr": 1e-4},
}


def separable(samples: int, seed: int = 0) -> Split:
    """Normal features whose class is given by a fixed linear map: something a net can learn."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, DIM, generator=stream)
    centres = torch.randn(DIM, CLASSES, generator=torch.Generator().manual_seed(99))
    return Split(x=x, y=(x @ centres).argmax(1))


def bundle(train: int = 300, val: int = 70, test: int = 50) -> PreparedData:
    return PreparedData(
        train=separable(train, 1),
        val=separable(val, 2),
        test=separable(test, 3),
        form=SampleShape((DIM,), CLASSES),
        name="separable",
        requested="separable",
        fingerprint="",
    )


def nets(config: ExperimentConfig, seeds: Sequence[int]) -> list[Network]:
    batch = separable(8).x
    return [
        build(config.model, config.init, form=SampleShape((DIM,), CLASSES), seed=seed, batch=batch)
        for seed in seeds
    ]


class Ear:
    """Receives events and keeps them, by run."""

    def __init__(self) -> None:
        self.entries: dict[int, list[dict[str, Any]]] = {}
        self.snapshots: dict[int, list[dict[str, Any]]] = {}
        self.shifts: dict[int, list[dict[str, Any]]] = {}
        self.outcomes: dict[int, Ended] = {}
        self.steps: list[tuple[int, int]] = []
        """(step, how many runs it updated)"""

    def receive(self, event: TrainingEvent) -> None:
        match event:
            case Evaluated(run, entry):
                self.entries.setdefault(run, []).append(entry)
            case Probed(run, snapshot):
                self.snapshots.setdefault(run, []).append(snapshot)
            case Shifted(run, entry):
                self.shifts.setdefault(run, []).append(entry)
            case Advanced(step, losses):
                self.steps.append((step, len(losses)))
            case Ended(run=run):
                assert run not in self.outcomes
                self.outcomes[run] = event


def train(
    config: ExperimentConfig,
    seeds: Sequence[int],
    *,
    networks: Sequence[Network] | None = None,
    data: PreparedData | None = None,
    threads: int = 1,
    poison: tuple[int, int] | None = None,
    **setup_options: Any,
) -> Ear:
    """Train one cohort to its end; `poison` (run, step) makes a run's weights infinite after that step."""
    ear = Ear() if poison is None else Poisoner(*poison)
    chosen = nets(config, seeds) if networks is None else networks
    data = data or bundle()
    setup = TrainingSetup(
        networks=chosen,
        seeds=seeds,
        config=config,
        mode="vmap",
        data=data,
        threads=threads,
        **{"device": CPU, **setup_options},
    )
    training = Training(setup, ear.receive)
    if isinstance(ear, Poisoner):
        ear.training = training
    training.run()
    return ear


class Poisoner(Ear):
    """Makes one run diverge at a moment of its choosing, whatever the optimizer."""

    training: Training

    def __init__(self, run: int, step: int) -> None:
        super().__init__()
        self._run, self._step = run, step

    def receive(self, event: TrainingEvent) -> None:
        super().receive(event)
        if isinstance(event, Advanced) and event.step == self._step:
            weight = self.training._cohort.parameters["blocks.1.linear.weight"]
            weight.detach()[self._run].fill_(float("inf"))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether the tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
