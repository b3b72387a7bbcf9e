"""Runs on a CUDA device against the same runs on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench.train.cohort import Cohort
from initbench.train.matmul_precision import FP32_ERROR, true_fp32
from tests.train.cohorts import DIM, nets, separable, train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

STEPS = 20
FIRST, LAST = 2e-5, 5e-3
"""Relative tolerance of losses before training (another order of sums), and after STEPS updates of that."""
NETS = {
    "mlp": {},
    "mlp_batch_norm": {"model.norm": "batch", "init.scheme": "xavier_normal"},
    "mlp_layer_norm_adam": {"model.norm": "layer", "train.optimizer": "adam", "train.lr": 0.001},
    "cnn_group_norm": {"model.family": "cnn", "model.width": 8, "model.norm": "group"},
    "cnn_batch_norm": {"model.family": "cnn", "model.width": 8, "model.norm": "batch"},
    "resnet": {"model.family": "resnet", "model.width": 8, "model.norm": "batch"},
    "orthogonal_tanh": {"init.scheme": "orthogonal", "model.activation": "tanh"},
    "lsuv": {"init.scheme": "lsuv"},
    "autoencoder": {"init.scheme": "{name: autoencoder, steps: 10}", "model.activation": "sigmoid"},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"name: small\ndata: {{name: digits}}\nmodel: {{family: mlp, depth: 8}}\n"
        f"train: {{steps: {STEPS}, batch_size: 32, lr: 0.01, eval_every: 10}}\n"
    )
    return path


def run(initbench: Any, config: Path, store: Path, *arguments: object) -> dict[int, list[dict[str, Any]]]:
    """Entries of each seed, after `initbench run`."""
    said = initbench("run", config, "--runs-dir", store, *arguments)
    assert said.code == 0, said.err
    entries = {}
    for path in store.glob("*/metrics.jsonl"):
        seed = json.loads((path.parent / "run.json").read_text())["seed"]
        entries[seed] = [json.loads(line) for line in path.read_text().splitlines()]
    return entries


def numbers(entry: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in entry.items() if "loss" in key}


@pytest.mark.parametrize("keys", NETS.values(), ids=NETS)
def test_losses_are_those_of_the_cpu(initbench: Any, config: Path, tmp_path: Path, keys: Any) -> None:
    """The draws are the CPU's, so that the nets are the same before the first update."""
    overrides = [f"{key}={value}" for key, value in keys.items()]
    here, there = (
        run(initbench, config, tmp_path / device, *overrides, "seeds=2", "--device", device)
        for device in ("cpu", "cuda")
    )
    assert here.keys() == there.keys() == {0, 1}
    for seed in here:
        assert len(here[seed]) == len(there[seed]) == 3
        first = FIRST if keys.get("init.scheme", "")[:1] != "{" else LAST  # trained before the first entry
        assert numbers(there[seed][0]) == pytest.approx(numbers(here[seed][0]), rel=first)
        assert numbers(there[seed][-1]) == pytest.approx(numbers(here[seed][-1]), rel=LAST)


@pytest.mark.parametrize("name", ["mlp", "cnn_batch_norm", "resnet"])
def test_the_same_run_gives_the_same_numbers(initbench: Any, config: Path, tmp_path: Path, name: str) -> None:
    overrides = [f"{key}={value}" for key, value in NETS[name].items()]
    first, again = (
        run(initbench, config, tmp_path / store, *overrides, "seeds=3", "--device", "cuda") for store in "ab"
    )
    assert first == again


def test_a_run_is_that_of_its_cohort(initbench: Any, config: Path, tmp_path: Path) -> None:
    together = run(initbench, config, tmp_path / "a", "seeds=4", "--device", "cuda")
    alone = run(initbench, config, tmp_path / "b", "seeds=[2]", "--device", "cuda")
    for entry, other in zip(together[2], alone[2], strict=True):
        assert numbers(entry) == pytest.approx(numbers(other), rel=LAST)


def test_products_and_convolutions_are_of_true_float32() -> None:
    """TF32, which is torch's default for convolutions, is off inside the block, and as before after it."""
    stream = torch.Generator("cuda").manual_seed(0)
    left, right = (torch.randn(256, 256, device="cuda", generator=stream) for _ in range(2))
    maps = torch.randn(16, 64, 16, 16, device="cuda", generator=stream)
    kernels = torch.randn(64, 64, 3, 3, device="cuda", generator=stream)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with true_fp32(torch.device("cuda")):
        product, convolved = left @ right, torch.conv2d(maps, kernels)
    exact = left.double() @ right.double(), torch.conv2d(maps.double(), kernels.double())
    for found, wanted in zip((product, convolved), exact, strict=True):
        assert (found - wanted).square().mean().sqrt() < FP32_ERROR * wanted.square().mean().sqrt()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_captured_step_is_one_cuda_graph_with_the_numbers_of_a_plain_step(
    make_config: Any, norm: str
) -> None:
    config = make_config(model={"depth": 4, "width": 24, "norm": norm}, train={"batch_size": 32})
    device = torch.device("cuda")
    plain, captured = (
        Cohort(nets(config, [0, 1, 2]), config.train, "vmap", device, captures=captures)
        for captures in (False, True)
    )
    for step in range(4):
        batch = separable(3 * 32, seed=step)
        x, y = batch.x.view(3, 32, DIM).to(device), batch.y.view(3, 32).to(device)
        assert torch.equal(captured.gradients(x, y), plain.gradients(x, y))
        for cohort in (plain, captured):
            cohort.update(0.05)
    assert all(torch.equal(captured.parameters[name], p) for name, p in plain.parameters.items())
    replay = captured._captured["gradients"]._replay
    assert replay is not None
    assert len(replay._operations) == 1


def test_losses_that_are_checked_late_change_nothing(make_config: Any) -> None:
    config = make_config(
        model={"depth": 4, "width": 24}, train={"steps": 30, "batch_size": 50, "eval_every": 7}
    )
    at_once, late = (train(config, [0, 1], device=torch.device("cuda"), updates_per_check=n) for n in (1, 16))
    assert late.steps == at_once.steps
    assert repr(late.entries) == repr(at_once.entries)
