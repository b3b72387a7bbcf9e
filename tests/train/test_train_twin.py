"""The cohort against its slow twin: one plain loop of nn.Module and torch.optim.

The two sum in different orders, so they agree to rounding and no better. float32 rounds each
operation by up to 6e-8 relative, and a step hands its error on to the next. Measured after 20 steps
(norm of the difference over the norm, for each tensor): 1e-7 to 7e-7. So 1e-6 is the bound.

- adam, adamw and rmsprop divide a gradient by its own size. One entry that comes out near zero, where
  most of it is rounding, then moves by something else: a bias vector of the *plain loop* was seen 6e-6
  off a twin in float64, of which the cohort was 3e-7 off. Their vectors get 1e-5; a wrong update is off
  by over 1e-3. The net as a whole must be as near to the float64 twin as the plain loop is.
- A bias in front of a batch norm has no effect: its gradient is zero but for rounding. SGD scales the
  rounding by lr; the others turn it into a random walk of up to lr a step, in the plain loop as well. No
  tolerance allows for that, so with them such a bias, and the running mean that follows it, are skipped,
  and the output of the net in training mode is compared. In `batch_without_bias` nothing is skipped.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cohorts import CLASSES, CPU, DIM, OPTIMIZERS, bundle, nets, separable, train
from torch import Tensor, nn

from initbench.config.schema import ExperimentConfig
from initbench.data.batches import Batches
from initbench.models.network import Network
from initbench.train.cohort import EVALUATION_CHUNK, Cohort
from initbench.train.matmul_precision import true_fp32

TOLERANCE, VECTOR_TOLERANCE = 1e-6, 1e-5
STEPS, BATCH, WIDTH, DEPTH = 20, 64, 32, 4
NORMS: dict[str, Any] = {
    "none": "none",
    "batch": "batch",
    "batch_without_bias": "batch",
    "batch_options": {"name": "batch", "momentum": 0.3, "eps": 1e-3, "affine": False},
    "layer": "layer",
    "group": {"name": "group", "num_groups": 4},
}


def norm_of(config: ExperimentConfig) -> nn.Module:
    norm: Any = config.model.norm
    match norm.name:
        case "batch":
            return nn.BatchNorm1d(WIDTH, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
        case "layer":
            return nn.LayerNorm(WIDTH)
        case "group":
            return nn.GroupNorm(norm.num_groups, WIDTH)
    return nn.Identity()


def twin_of(network: Network, config: ExperimentConfig, dtype: torch.dtype) -> nn.Sequential:
    """torch's own modules, in initbench's order, with copies of the weights."""
    layers: list[nn.Module] = []
    bias: bool = config.model.bias  # type: ignore[attr-defined]
    for i in range(DEPTH - 1):
        layers += [nn.Linear(WIDTH if i else DIM, WIDTH, bias=bias), norm_of(config), nn.ReLU()]
    plain = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES, bias=bias))
    for theirs, ours in names().items():
        plain.get_submodule(theirs).load_state_dict(network.get_submodule(ours).state_dict(), strict=False)
    return plain.to(dtype)


def names() -> dict[str, str]:
    """Names of the twin's modules, and what they are called in the Mlp."""
    hidden = range(DEPTH - 1)
    return {
        **{str(3 * i): f"blocks.{i}.linear" for i in hidden},
        **{str(3 * i + 1): f"blocks.{i}.norm" for i in hidden},
        str(3 * (DEPTH - 1)): "head",
    }


def state_of(plain: nn.Module) -> dict[str, Tensor]:
    """The twin's parameters and buffers under the Mlp's names."""
    return {
        f"{names()[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
        for key, value in plain.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def torch_optimizer(plain: nn.Module, config: ExperimentConfig) -> torch.optim.Optimizer:
    o: Any = config.train.optimizer
    common: dict[str, Any] = {"lr": config.train.lr, "weight_decay": config.train.weight_decay}
    match o.name:
        case "sgd":
            return torch.optim.SGD(plain.parameters(), momentum=o.momentum, nesterov=o.nesterov, **common)
        case "adam":
            return torch.optim.Adam(plain.parameters(), betas=(o.beta1, o.beta2), eps=o.eps, **common)
        case "adamw":
            return torch.optim.AdamW(plain.parameters(), betas=(o.beta1, o.beta2), eps=o.eps, **common)
        case "rmsprop":
            return torch.optim.RMSprop(
                plain.parameters(), alpha=o.alpha, eps=o.eps, momentum=o.momentum, **common
            )
    raise AssertionError(o.name)


def plain_loop(
    plain: nn.Module, config: ExperimentConfig, batches: list[tuple[Tensor, Tensor]]
) -> list[float]:
    optimizer = torch_optimizer(plain, config)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.train.label_smoothing)
    dtype = next(plain.parameters()).dtype
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = criterion(plain(x.to(dtype)), y)
        loss.backward()
        if config.train.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), config.train.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


def the_batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    split = separable(500, 10 + seed)
    return [split.take(torch.arange(i * 20, i * 20 + BATCH)) for i in range(STEPS)]


def distance(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()


CASES = [
    *((o, n, {}) for o in OPTIMIZERS for n in ("none", "batch", "batch_without_bias", "layer", "group")),
    ("momentum", "batch_options", {}),
    ("momentum", "none", {"clip_norm": 0.5}),
    ("momentum", "layer", {"label_smoothing": 0.2, "weight_decay": 0.05}),
    ("adam", "none", {"weight_decay": 0.05, "clip_norm": 0.5}),
    ("rmsprop", "group", {"weight_decay": 0.05}),
]


@pytest.mark.parametrize(("optimizer", "norm", "extra"), CASES)
def test_a_cohort_is_as_many_plain_loops(make_config: Any, optimizer: str, norm: str, extra: Any) -> None:
    config = make_config(
        model={"depth": DEPTH, "width": WIDTH, "norm": NORMS[norm], "bias": norm != "batch_without_bias"},
        train={"batch_size": BATCH, **OPTIMIZERS[optimizer], **extra},
    )
    networks = nets(config, [0, 1, 2])
    batches = [the_batches(k) for k in range(3)]
    twins = [twin_of(network, config, torch.float32) for network in networks]
    exact_twins = [twin_of(network, config, torch.float64) for network in networks]

    cohort = Cohort(networks, config.train, "vmap", CPU)
    losses = []
    with true_fp32(CPU):
        for step in range(STEPS):
            x, y = (torch.stack([b[step][i] for b in batches]) for i in (0, 1))
            losses.append(cohort.gradients(x, y))
            cohort.update(config.train.lr)

    for k, (plain, exact) in enumerate(zip(twins, exact_twins, strict=True)):
        expected = plain_loop(plain, config, batches[k])
        plain_loop(exact, config, batches[k])
        assert [float(row[k]) for row in losses] == pytest.approx(expected, rel=TOLERANCE)
        parameters, buffers = cohort.run_state(k)
        ours = {**parameters, **buffers}
        assert_agree(
            ours,
            state_of(plain),
            state_of(exact),
            idle_bias=norm in ("batch", "batch_options"),
            config=config,
        )
        x = batches[k][0][0]
        logits = torch.func.functional_call(
            networks[k].train(), {k: v.clone() for k, v in ours.items()}, (x,)
        )
        assert distance(logits, plain.train()(x)) < TOLERANCE


def assert_agree(
    ours: dict[str, Tensor],
    theirs: dict[str, Tensor],
    truth: dict[str, Tensor],
    *,
    idle_bias: bool,
    config: ExperimentConfig,
) -> None:
    assert ours.keys() == theirs.keys()
    divides = config.train.optimizer.name != "sgd"
    walks = ("linear.bias", "norm.running_mean") if divides else ("linear.bias",)
    known = [name for name in ours if not (idle_bias and name.startswith("blocks") and name.endswith(walks))]
    for name in known:
        loose = divides and ours[name].ndim == 1
        error = distance(ours[name], theirs[name])
        assert error < (VECTOR_TOLERANCE if loose else TOLERANCE), name
    ours_flat, theirs_flat, exact = (
        torch.cat([state[name].double().flatten() for name in known]) for state in (ours, theirs, truth)
    )
    assert distance(ours_flat, exact) < max(TOLERANCE, 2 * distance(theirs_flat, exact))
    if idle_bias and not divides:
        assert all(ours[f"blocks.{i}.linear.bias"].abs().max() < 1e-6 for i in range(DEPTH - 1))


def test_the_whole_training_is_a_plain_loop(make_config: Any) -> None:
    """Order of the batches, schedule, evaluation and epochs too, at every moment of evaluation."""
    config = make_config(
        model={"depth": DEPTH, "width": WIDTH, "norm": "batch", "activation": "relu"},
        train={
            "steps": 23,
            "batch_size": BATCH,
            "eval_every": 7,
            "warmup_steps": 5,
            "schedule": {"name": "cosine", "final": 0.1},
            **OPTIMIZERS["momentum"],
        },
    )
    data = bundle()
    ear = train(config, [3, 8], data=data)
    for k, seed in enumerate((3, 8)):
        plain = twin_of(nets(config, [seed])[0], config, torch.float32)
        optimizer = torch_optimizer(plain, config)
        order = Batches(len(data.train), BATCH, [seed])
        expected = [evaluated(plain, 0, order.per_epoch)]
        for step in range(23):
            x, y = data.train.take(order.indices(step)[0])
            rate = (step + 1) / 5 if step < 5 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 5) / 18))
            optimizer.param_groups[0]["lr"] = 0.02 * rate
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain.train()(x), y).backward()
            optimizer.step()
            if step + 1 in (7, 14, 21, 23):
                expected.append(evaluated(plain, step + 1, order.per_epoch))
        assert len(ear.entries[k]) == len(expected)
        for entry, wanted in zip(ear.entries[k], expected, strict=True):
            other = {k: entry.pop(k) for k in list(entry) if k.endswith(("_batch", "_population"))}
            assert len(other) == (4 if wanted["step"] in (0, 23) else 0), "test_train_norms.py has their twin"
            assert entry == pytest.approx(wanted, rel=3e-6)
        final, last = ear.outcomes[k].final, expected[-1]
        assert final is not None
        assert final["test_accuracy"] == pytest.approx(accuracy(plain, data.test.x, data.test.y))
        assert {name: final[name] for name in ("train_loss", "val_loss", "val_accuracy")} == {
            name: ear.entries[k][-1][name] for name in ("train_loss", "val_loss", "val_accuracy")
        }
        assert last["val_loss"] < expected[0]["val_loss"] - 0.2, "the net learns, or this test says little"


@torch.no_grad()
def evaluated(plain: nn.Module, step: int, per_epoch: int) -> dict[str, float]:
    data = bundle()
    plain.eval()
    return {
        "step": step,
        "epoch": step / per_epoch,
        "train_loss": nn.functional.cross_entropy(plain(data.train.x), data.train.y).item(),
        "val_loss": nn.functional.cross_entropy(plain(data.val.x), data.val.y).item(),
        "val_accuracy": accuracy(plain, data.val.x, data.val.y),
    }


@torch.no_grad()
def accuracy(plain: nn.Module, x: Tensor, y: Tensor) -> float:
    return (plain.eval()(x).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_evaluate_is_a_plain_loop(make_config: Any, norm: str) -> None:
    """Over a split that no chunk divides, in evaluation mode, without label smoothing."""
    config = make_config(
        model={"depth": DEPTH, "width": WIDTH, "norm": norm},
        train={"batch_size": BATCH, "label_smoothing": 0.3, **OPTIMIZERS["momentum"]},
    )
    networks = nets(config, [0, 1])
    cohort = Cohort(networks, config.train, "vmap", CPU)
    twins = [twin_of(network, config, torch.float32) for network in networks]
    for x, y in the_batches(0)[:5]:
        cohort.gradients(torch.stack([x, x]), torch.stack([y, y]))
        cohort.update(config.train.lr)
    split = separable(2 * EVALUATION_CHUNK + 77, 4)
    values = cohort.evaluate(split.x, split.y)
    losses, accuracies = values["loss"], values["accuracy"]
    for k, plain in enumerate(twins):
        plain_loop(plain, config, the_batches(0)[:5])
        plain.eval()
        with torch.no_grad():
            wanted = [
                nn.functional.cross_entropy(plain(split.x[[i]]), split.y[[i]]) for i in range(len(split))
            ]
        assert losses[k] == pytest.approx(float(torch.stack(wanted).double().mean()), rel=3e-6)
        assert accuracies[k] == pytest.approx(accuracy(plain, split.x, split.y), abs=1.5 / len(split))
