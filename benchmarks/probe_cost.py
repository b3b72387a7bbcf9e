"""Measure the cost of a probe in passes, and the share of evaluations and probes in the training time.

A pass is one forward and backward pass of the net over the probe batch, with the gradients of all parameters,
on one thread. Passes and probes are called in turn in this process, and timed in CPU time. The share is that
of `initbench show --timings`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.bare_loop import source
from benchmarks.measurements import Measurement, measure_repeatedly, ratios
from benchmarks.throughput import CONFIG
from initbench.api import run
from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.determinism import one_thread
from initbench.probing.network_probe import probe
from initbench.probing.tensor_statistics import ProbeDetail
from initbench.train.loop import fixed_sample
from initbench.train.matmul_precision import true_fp32
from initbench.train.network_builder import build_networks

CPU = torch.device("cpu")
CALLS = 5
"""Number of calls of a pass and of each probe that one value averages."""
TARGETS = {ProbeDetail.EVALUATION: 1.5}


def measure(repeats: int) -> list[Measurement]:
    """Return the cost of a probe at each detail in passes, and the share in a training of relu_kaiming."""
    config = load_config(CONFIG, [], ExperimentConfig)
    functions = _functions(config)
    with true_fp32(CPU), one_thread():
        for function in functions:
            function()
        of_pass, *of_probes = measure_repeatedly(repeats, *(_timed(function) for function in functions))
    (shares,) = measure_repeatedly(repeats, _percentage_outside_updates)
    return [
        *(
            Measurement(
                f"probe of relu_kaiming at detail {detail.name} / its pass",
                ratios(seconds, of_pass),
                target=TARGETS.get(detail),
                is_cost=True,
            )
            for detail, seconds in zip(ProbeDetail, of_probes, strict=True)
        ),
        Measurement(
            "evaluations and probes / updates, one seed of relu_kaiming",
            tuple(shares),
            unit="%",
            target=10.0,
            is_cost=True,
        ),
    ]


def _functions(config: ExperimentConfig) -> list[Callable[[], object]]:
    """Return functions that run a pass of the first seed's net, and its probe at each detail."""
    data = preprocess(resolve_dataset(config.data, source()), config.data, CPU)
    (network,) = build_networks(config, data, config.seed_list[:1])
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())
    batch = fixed_sample(data.train, config.probe.batch)

    def one_pass() -> None:
        """Run a pass without measurements."""
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        logits = functional_call(network, {**leaves, **buffers}, (batch.x,))
        torch.autograd.grad(cross_entropy(logits, batch.y), list(leaves.values()))

    def one_probe(detail: ProbeDetail) -> Callable[[], object]:
        """Return a function that probes the net."""
        bins = config.probe.bins
        x, y = batch.x, batch.y
        return lambda: probe(
            network, parameters, buffers, x=x, y=y, loss=cross_entropy, bins=bins, detail=detail
        )

    return [one_pass, *map(one_probe, ProbeDetail)]


def _timed(function: Callable[[], object]) -> Callable[[], float]:
    """Return a function that returns the CPU seconds of CALLS calls."""

    def seconds() -> float:
        start = time.process_time()
        for _ in range(CALLS):
            function()
        return time.process_time() - start

    return seconds


def _percentage_outside_updates() -> float:
    """Train one seed in this process, and return the time of evaluations and probes in % of the updates'."""
    with tempfile.TemporaryDirectory(prefix="initbench-benchmark-") as runs_dir:
        runs = run(CONFIG, runs_dir=runs_dir, device="cpu", offline=True, seeds=[0])
        share = runs.store.read(runs.run_ids[0]).evaluation_share
    assert share is not None
    return 100.0 * share
