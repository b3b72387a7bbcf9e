"""Runs of nets of the user: the numbers of our mlp, reproducible random layers, workers and resumption."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from safetensors.torch import load

from initbench.config.loading import load_mapping
from initbench.config.schema import ExperimentConfig
from initbench.errors import ConfigError, Terminated
from initbench.runner.runner import Runner
from tests.runner.driven import Silent, numbers, run_all

OF_MODULES = {"is_hidden", "is_recurrent", "was_constant", "row_spread", "below", "is_head"}
"""Keys that only the records of traced nets have."""


def only_run(context: Any) -> tuple[Any, ...]:
    (result,) = numbers(context.store).values()
    return result


def as_mlp(config: ExperimentConfig, **model: Any) -> ExperimentConfig:
    """The experiment with our mlp instead."""
    plain = {**config.resolved(), "name": "ours", "model": {"family": "mlp", "width": 128, **model}}
    return ExperimentConfig.model_validate(plain)


@pytest.mark.parametrize(
    "init", [{"scheme": "kaiming_normal"}, {"scheme": "orthogonal", "head": "zeros", "bias": 0.1}]
)
def test_an_mlp_of_the_same_operations_has_the_numbers_of_ours(use, experiment, place, init):
    """All of them, bit for bit: weights, losses, measurements of the layers, theory and diagnosis."""
    use("mlp")
    config = experiment(init, {"steps": 60})
    mine, ours = place("mine"), place("ours")
    run_all([config], mine)
    run_all([as_mlp(config, depth=4)], ours)
    record, convergence, snapshots, shifts, weights = only_run(mine)
    assert (record, convergence, shifts) == (*only_run(ours)[:2], only_run(ours)[3])
    assert weights == only_run(ours)[4]
    assert len(convergence) > 5
    assert convergence[0]["train_loss"] > convergence[-1]["train_loss"]
    for snapshot in snapshots:
        for layer in snapshot["layers"]:
            for key in OF_MODULES:
                layer.pop(key, None)
    assert snapshots == only_run(ours)[2]
    assert ("theory" in snapshots[0]["layers"][0]) == (init["scheme"] == "kaiming_normal")
    assert "jacobian" in snapshots[0]["layers"][0]


def test_activation_and_norm_of_the_config_reach_the_function(use, experiment, place):
    use("mlp")
    config = experiment({"scheme": "lecun_normal", "gain": "auto"}, activation="tanh", options={"depth": 3})
    mine, ours = place("mine"), place("ours")
    run_all([config], mine)
    run_all([as_mlp(config, depth=3, activation="tanh")], ours)
    assert only_run(mine)[4] == only_run(ours)[4]


@pytest.mark.parametrize("name", ["stateful", "functional", "convolutional", "exchangeable"])
def test_the_numbers_do_not_depend_on_workers_and_other_seeds(use, experiment, place, name):
    use(name)
    config = experiment(train={"steps": 12})
    alone, together = place("alone"), place("together", workers=2)
    torch.manual_seed(5)
    run_all([config.with_seeds(1)], alone)
    torch.manual_seed(6)
    state = torch.random.get_rng_state()
    run_all([config.with_seeds(0, 1, 2)], together)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left as it was"
    (run_id,) = numbers(alone.store)
    assert numbers(alone.store)[run_id] == numbers(together.store)[run_id]
    weights = [result[4] for result in numbers(together.store).values()]
    assert len(set(weights)) == 3, "seeds differ"


@pytest.mark.parametrize("name", ["recurrent", "tied"])
def test_nets_of_many_kinds_train(use, experiment, place, name):
    """Every parameter that the pass uses learns, and the loss falls."""
    use(name)
    start, end = place("start"), place("end")
    run_all([experiment(train={"steps": 1, "lr": 0.0})], start)
    run_all([experiment(train={"steps": 30, "lr": 0.1})], end)
    convergence = only_run(end)[1]
    assert convergence[-1]["train_loss"] < convergence[0]["train_loss"]
    before, after = load(only_run(start)[4]), load(only_run(end)[4])
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert same == {name for name in before if name.startswith("unused.")}


def test_a_buffer_that_the_module_replaces_is_kept(use, experiment, place):
    use("stateful")
    context = place("runs")
    run_all([experiment(train={"steps": 7})], context)
    tensors = load(only_run(context)[4])
    assert float(tensors["count"]) == 7
    assert int(tensors["stages.1.num_batches_tracked"]) == 7
    assert float(tensors["stages.1.running_mean"].abs().sum()) > 0


class _Interrupts(Silent):
    """Ends the command once, after a number of updates."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def advanced(self, step: int) -> None:
        if self.step and step >= self.step:
            self.step = 0
            signal.raise_signal(signal.SIGTERM)


def test_an_interrupted_run_with_dropout_resumes_to_the_same_numbers(use, experiment, place):
    use("stateful")
    config = experiment(train={"steps": 200})
    whole, halved = place("whole"), place("halved")
    run_all([config], whole)
    from initbench.interrupts import install_signal_handlers

    previous = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    install_signal_handlers()
    try:
        with pytest.raises(Terminated), Runner(halved, _Interrupts(60)) as runner:
            runner.run([config])
    finally:
        for signum, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(signum, handler)
    assert only_run(halved)[0]["status"] == "interrupted"
    run_all([config], halved)
    assert only_run(halved) == only_run(whole)


def test_as_built_keeps_the_weights_and_depends_on_the_seed(use, experiment, place):
    """The uniform weights of torch's constructor, whose bound is 1/√fan_in, before any update."""
    use("functional")
    config = experiment({"scheme": "as_built"}, {"steps": 1, "lr": 0.0}).with_seeds(0, 1)
    context = place("runs")
    run_all([config], context)
    first, second = (load(result[4]) for result in numbers(context.store).values())
    assert float(first["hidden.weight"].abs().max()) == pytest.approx(64**-0.5, rel=0.01)
    assert float(first["hidden.bias"].abs().max()) > 0
    assert not torch.equal(first["hidden.weight"], second["hidden.weight"])
    assert not torch.equal(first["mixed"], second["mixed"])


def test_covariate_shift_is_refused(experiment):
    config = {**experiment().resolved(), "probe": {"covariate_shift": 5}}
    with pytest.raises(ConfigError, match=r"probe\.covariate_shift: compares .* may use layers in parallel"):
        load_mapping(config, [], ExperimentConfig)
