"""Python functions that do what the commands of the same names do, and return objects instead of printing.

`probe` and `lint` examine a module; `run` and `sweep` train experiments; `load_runs` and `compare` read
stored runs.
`print` shows a result as its command does, and notebooks show it as HTML.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from initbench.analysis.baseline import CONFIDENCE
from initbench.analysis.load_runs import load_run_summaries
from initbench.analysis.selection import Selection
from initbench.config.loading import load_config, load_mapping, with_overrides
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import data_root
from initbench.diagnostics.lint_report import lint_nets
from initbench.diagnostics.net_source import ModuleNets
from initbench.diagnostics.survey import survey
from initbench.errors import RunFailedError, UsageError
from initbench.models.init_weights import init_options
from initbench.probing.model_inputs import split_batch
from initbench.render.progress import LiveProgress
from initbench.render.sweep_progress import SweepDisplay
from initbench.results import Lint, Probe, RunComparison, Runs, SweepRuns, compare_runs
from initbench.runner.device import resolve_device
from initbench.runner.pending import RunLimits
from initbench.runner.plan import RunContext
from initbench.runner.runner import Runner
from initbench.runner.user_code import UserCode, function_path, use_functions
from initbench.store.store import Store
from initbench.study.load import load_sweep
from initbench.study.run_study import load_stored_study, run_study
from initbench.user_functions import import_user_function

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]


def probe(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    chance: float | None = None,
) -> Probe:
    """Measure activations and gradients of an untrained module layer by layer, and diagnose problems.

    The pass runs in training mode. It preserves the module's parameters, buffers, modes, hooks and attributes
    and the states of the random generators.

    Args:
        module: The network.
        batch: Inputs x of shape (B, …), or (x, y) with labels y. If forward takes several arguments, x is a
            tuple of them, or a mapping by their names, whose entry `labels` is y. A tuple without labels is
            accepted if forward requires as many arguments as the tuple has entries.
        loss: A function `loss(output)` or `loss(output, y)` that returns the mean over the batch. `output` is
            the return value of the module: a tensor, tuple, mapping or object. If the loss fails on it or
            does not return a single number, it is called with the main output alone: the one called `logits`
            or `out`, otherwise the first with a gradient. The default loss is the cross-entropy for an output
            of shape (B, C), (B, T, V) or (B, C, H, W) and integer labels for all axes but the class axis
            (random labels if none are given); binary cross-entropy for labels 0 and 1; otherwise the mean
            squared error to targets of the output's shape, or to noise.
        chance: Loss of a net that predicts at chance level. It is determined automatically for a
            cross-entropy, passed as `loss` or not.

    Raises:
        UsageError: If the module cannot run on the batch or has no weight layer that the pass uses.
    """
    inputs, y = split_batch(batch, module)
    name, words = type(module).__name__, f"given {inputs.words}"
    nets = ModuleNets([module], inputs, name, [0], batch=words, y=y, loss=loss, chance=chance)
    return Probe(survey(nets))


def lint(
    module: nn.Module,
    batch: Batch,
    loss: Callable[..., Tensor] | None = None,
    *,
    scheme: str | None = None,
    gain: float | str | None = None,
    chance: float | None = None,
) -> Lint:
    """Check a module's init for mistakes; docs/lint.md lists the codes.

    The pass preserves the module, like that of `probe`.

    Args:
        module: The network.
        batch: As for `probe`.
        loss: As for `probe`.
        scheme: Init scheme that all weights are meant to have; each weight is compared with it.
        gain: Gain of the scheme.
        chance: As for `probe`.

    Raises:
        UsageError: If the module cannot run on the batch or has no weight layer that the pass uses.
    """
    inputs, y = split_batch(batch, module)
    declared = None if scheme is None else init_options("lint", scheme, {}, gain, None)
    name = type(module).__name__
    nets = ModuleNets([module], inputs, name, [0], y=y, loss=loss, chance=chance, declared=declared)
    return Lint(lint_nets(nets))


def run(
    config: str | Path | Mapping[str, Any] | ExperimentConfig,
    *,
    model: UserCode | None = None,
    data: UserCode | None = None,
    loss: UserCode | None = None,
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    device: str = "auto",
    workers: int | None = 1,
    offline: bool = False,
    rerun: bool = False,
    quiet: bool = True,
    **overrides: Any,
) -> Runs:
    """Train the missing seeds of an experiment, store every run, and return all of them.

    Args:
        config: A config file, the name of a shipped config, a mapping with the keys of a config file, or a
            loaded config.
        model: Function of a module, or its name "module:function", that builds the net (docs/own_nets.md).
        data: Function of a module, or its name, that returns the data (docs/own_data.md).
        loss: Function of a module, or its name, that returns the loss (docs/own_data.md). It replaces
            `train.loss` unless an override names another one.
        runs_dir: Directory of stored runs.
        data_dir: Data root in torchvision's layout; default: INITBENCH_DATA, else the cache directory.
        device: auto, cpu, cuda or cuda:n.
        workers: Number of training processes; None chooses it. With more than one, call this function below
            `if __name__ == "__main__":`, since each process imports the main script.
        offline: Whether to do without the network.
        rerun: Whether to train finished runs again.
        quiet: Whether to print no progress on stderr.
        **overrides: Values of config keys; two underscores stand for a dot, as in
            `train__steps=200, init__scheme="lsuv", seeds=5`.

    Raises:
        ConfigError: If the config or an override is invalid.
        DataError: If the data are not available.
        RunFailedError: If the training of a seed raised an error; its run is stored as failed.
    """
    experiment = load_experiment(config, _with_functions(overrides, model, data, loss))
    context = _run_context(runs_dir, data_dir, device, workers, data, offline=offline)
    display = LiveProgress(quiet=quiet)
    with Runner(context, display, RunLimits(rerun=rerun)) as runner, display.showing():
        (outcome,) = runner.run([experiment])
    if outcome.errors:
        raise RunFailedError("\n".join(outcome.errors))
    return Runs(context.store, tuple(load_run_summaries(context.store, outcome.run_ids)))


def sweep(
    config: str | Path | Mapping[str, Any] | ExperimentConfig,
    axes: Mapping[str, Sequence[Any]] | None = None,
    *,
    model: UserCode | None = None,
    data: UserCode | None = None,
    loss: UserCode | None = None,
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    device: str = "auto",
    workers: int | None = 1,
    offline: bool = False,
    rerun: bool = False,
    skip_invalid: bool = False,
    quiet: bool = True,
    **overrides: Any,
) -> SweepRuns:
    """Train the missing runs of a sweep, store every run, and return the points with their runs.

    Runs are the same, under the same ids, as those of the command `initbench sweep`.

    Args:
        config: A file of a sweep or of an experiment, the name of a shipped one, a mapping with the keys of a
            file, or a loaded experiment.
        axes: Values of config keys, as in `{"init.scheme": ["lsuv", "orthogonal"], "model.depth": [5, 50]}`.
            Every combination is a point. A sweep may have axes of its own.
        model: As for `run`.
        data: As for `run`.
        loss: As for `run`.
        runs_dir: As for `run`.
        data_dir: As for `run`.
        device: As for `run`.
        workers: As for `run`.
        offline: As for `run`.
        rerun: As for `run`.
        skip_invalid: Whether to skip points that cannot be built, as long as others remain.
        quiet: As for `run`.
        **overrides: Values of config keys for all points, as for `run`.

    Raises:
        ConfigError: If the config, an axis or an override is invalid.
        DataError: If the data are not available.
        RunFailedError: If a training raised an error; its run is stored as failed.
    """
    words = [f"{key}={','.join(map(json.dumps, values))}" for key, values in (axes or {}).items()]
    if isinstance(config, ExperimentConfig):
        config = config.resolved()
    source = config if isinstance(config, Mapping) else _checked_path(config)
    study = load_sweep(
        source,
        [*words, *_override_words(_with_functions(overrides, model, data, loss, axes or {}))],
        skip_invalid=skip_invalid,
    )
    context = _run_context(runs_dir, data_dir, device, workers, data, offline=offline)
    limits = RunLimits(rerun=rerun, keep_failed=True)
    display = SweepDisplay(study.name, quiet=quiet)
    stored = load_stored_study(study, context)
    with (
        display.showing(stored.total, stored.total - stored.count_to_train(limits)),
        Runner(context, display, limits) as runner,
    ):
        result = run_study(study, context, runner.run)
    if result.failures:
        raise RunFailedError("\n".join(result.failures))
    return SweepRuns(result)


def load_runs(*patterns: str, runs_dir: str | Path = "runs", where: Sequence[str] = ()) -> Runs:
    """Load stored runs.

    Args:
        *patterns: Run ids or prefixes of them, experiments, sweeps or globs; none means all runs.
        runs_dir: Directory of stored runs.
        where: Conditions such as "model.depth=50", all of which a run must meet.

    Raises:
        UsageError: If a pattern or a condition matches no run.
    """
    selection = Selection(Store(Path(runs_dir)), patterns, where)
    return Runs(selection.store, tuple(selection.runs))


def compare(
    *runs: str | Runs,
    by: str | Sequence[str] = (),
    baseline: str | None = None,
    target: float | None = None,
    confidence: float = CONFIDENCE,
    runs_dir: str | Path = "runs",
    where: Sequence[str] = (),
) -> RunComparison:
    """Compare stored runs: activation statistics and convergence, with intervals and significance.

    Args:
        *runs: Results of `run` and `load_runs`, or patterns as for `load_runs`; none means all stored runs.
        by: Config keys whose values make the rows, at most two; default: experiments are the rows.
        baseline: Label of the row that all others are compared with.
        target: Validation accuracy of `steps_to_target`; default: 0.9 of the best mean of a table.
        confidence: Confidence of the intervals, between 0.5 and 1.
        runs_dir: Directory of stored runs, for patterns.
        where: Conditions such as "model.depth=50", for patterns.

    Raises:
        UsageError: If nothing matches, or the baseline or a key does not exist.
    """
    patterns = [item for item in runs if isinstance(item, str)]
    loaded = [item for item in runs if not isinstance(item, str)]
    if patterns or not loaded:
        loaded.append(load_runs(*patterns, runs_dir=runs_dir, where=where))
    keys = [by] if isinstance(by, str) else list(by)
    return compare_runs(loaded, by=keys, baseline=baseline, target=target, confidence=confidence)


def load_experiment(config: object, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config of `run` with its overrides applied.

    Raises:
        ConfigError: If the config or an override is invalid; the error lists all issues.
        UsageError: If `config` is of another type than `run` accepts.
    """
    words = _override_words(overrides)
    if isinstance(config, ExperimentConfig):
        return with_overrides(config, words)
    if isinstance(config, Mapping):
        return load_mapping(config, words, ExperimentConfig)
    return load_config(_checked_path(config), words, ExperimentConfig)


def _override_words(overrides: Mapping[str, Any]) -> list[str]:
    return [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in overrides.items()]


def _checked_path(config: object) -> str:
    if not isinstance(config, str | Path):
        kind = type(config).__name__
        raise UsageError(f"the config must be a path, a name, a mapping or an ExperimentConfig, not a {kind}")
    return str(config)


def _with_functions(
    overrides: Mapping[str, Any],
    model: UserCode | None,
    data: UserCode | None,
    loss: UserCode | None,
    axes: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Use the functions of the user in the following training, and return the overrides with their keys."""
    keys = use_functions(model, loss)
    if data is not None:
        keys["data.name"] = "custom"
    keys_named = {key.replace("__", ".") for key in (*overrides, *axes)}
    if keys_named & {"train.loss", "train.loss.name"}:
        keys.pop("train.loss", None)
    return {**overrides, **{key.replace(".", "__"): value for key, value in keys.items()}}


def _run_context(
    runs_dir: str | Path,
    data_dir: str | Path | None,
    device: str,
    workers: int | None,
    data: UserCode | None,
    *,
    offline: bool,
) -> RunContext:
    root = data_dir if data_dir is not None else os.environ.get("INITBENCH_DATA")
    function = None
    if data is not None:
        path = function_path(data, "data")
        function = import_user_function(path, "data", example="data:make_data", returns="the data")
    source = DataSource(
        root=data_root(Path(root) if root else None), offline=offline, notify=_warn, function=function
    )
    return RunContext(
        store=Store(Path(runs_dir)), source=source, device=resolve_device(device), workers=workers
    )


def _warn(message: str) -> None:
    """Report that other data are used than requested."""
    warnings.warn(message, stacklevel=4)
