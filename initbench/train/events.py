"""Events of a training, from its first pre-training update to the results of its runs.

Pre-training and the training loop pass events to one function `emit`. Most of them go unchanged through the
worker pipe to the recorder, which stores them, and to the progress display; receivers select them with
`match`. Events are plain data that can be pickled, except `Ended`, which stays in the process that trains.

`run` is the index of a run in its cohort, counted from 0 at the start of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from initbench.train.timings import Timings


@dataclass(frozen=True)
class Pretrained:
    """A pre-training update of a cohort."""

    layer: int
    """Number of the layer, from 1."""
    layers: int
    step: int
    """Number of updates of this layer made."""
    steps: int
    """Number of updates of each layer."""
    loss: float
    """Loss of the batch, mean over the runs."""


@dataclass(frozen=True)
class Advanced:
    """A training update of a cohort."""

    step: int
    """Number of updates made."""
    losses: Mapping[int, float]
    """Run → loss of its batch, for the runs still in training."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of a run."""

    run: int
    entry: dict[str, Any]
    """{"step", "epoch", "train_loss", "val_loss", "val_accuracy"}, and at init and at the end of nets with
    batch norm the results of `batchnorm_evaluation.evaluate_norms`."""


@dataclass(frozen=True)
class Probed:
    """A probe of a run."""

    run: int
    snapshot: dict[str, Any]
    """{"when", "step", "layers"}; before the first update, layers have the prediction of theory."""


@dataclass(frozen=True)
class Shifted:
    """A measurement of the covariate shift of a run at one update."""

    run: int
    entry: dict[str, Any]
    """{"step", "layers"}, as measured by `covariate_shift_updates`."""


@dataclass(frozen=True)
class Checkpointed:
    """A state from which a run can resume."""

    run: int
    state: bytes
    """Contents of a safetensors file, see `checkpoint.restore`."""


@dataclass(frozen=True)
class Released:
    """Runs that left their cohort after a checkpoint, so that another worker can go on with them."""

    runs: tuple[int, ...]


@dataclass(frozen=True)
class Divergence:
    """Step and layer at which the loss of a run stopped being finite."""

    step: int
    """Number of updates made before."""
    layer: int | None
    """Index of the first weight layer whose pre-activation is not finite; None if only the loss is not."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a run, before its diagnosis. Its cohort may go on."""

    run: int
    final: dict[str, float] | None
    """{"train_loss", "val_loss", "val_accuracy", "test_accuracy"} and the results of `evaluate_norms`; None
    for a diverged run."""
    diverged: Divergence | None
    steps: int
    """Number of updates of the whole budget."""
    start_loss: float | None
    """Training loss before the first update."""
    pretraining: dict[str, Any] | None
    """{"layers", "seconds", "samples", "steps"} of a pre-trained run."""
    timings: Timings
    """Seconds of the whole cohort until now."""
    steps_with_threads: dict[int, int]
    """Number of threads → number of training steps of the cohort."""
    parameters: dict[str, Tensor] = field(repr=False)
    buffers: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Diagnosed:
    """The result of an ended run, with its diagnosis."""

    run: int
    result: dict[str, Any]
    """Entries of run.json; "status" is `finished` or `diverged`."""
    weights: bytes
    """Contents of a safetensors file."""


@dataclass(frozen=True)
class RunFailed:
    """A run that will not end, because its training raised an exception or killed its worker."""

    run: int
    error: str
    """The traceback, or the reason if there is none."""


PretrainingEvent = Pretrained | Checkpointed
"""Events of pre-training."""
TrainingEvent = Advanced | Evaluated | Probed | Shifted | Checkpointed | Released | Ended
"""Events of the training loop."""
RunEvent = (
    Pretrained | Advanced | Evaluated | Probed | Shifted | Checkpointed | Released | Diagnosed | RunFailed
)
"""Events for the recorder and the progress display."""
