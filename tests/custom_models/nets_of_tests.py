"""Nets that a user may write, as functions for `--model`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class SameProduct(nn.Linear):
    """A linear layer with the operations of those of initbench, in the same order."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.mT).mT + self.bias


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, activation: Any) -> None:
        super().__init__()
        self.linear = SameProduct(inputs, width)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """The mlp of initbench, under the same names."""

    def __init__(self, inputs: int, classes: int, depth: int, width: int, activation: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width if i else inputs, width, activation) for i in range(depth - 1)
        )
        self.head = SameProduct(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


def mlp(
    input_shape: tuple[int, ...], classes: int, depth: int = 4, width: int = 128, activation: Any = nn.ReLU
) -> nn.Module:
    return Mlp(math.prod(input_shape), classes, depth, width, activation)


class Stateful(nn.Module):
    """Replaces a buffer in each pass, and applies dropout, noise and batch norm."""

    count: Tensor
    stages: nn.Sequential

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            nn.Linear(inputs, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, classes)
        )
        self.activation = nn.Identity()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count = self.count + 1
            x = x + 0.1 * torch.randn_like(x)
        return self.stages(x.flatten(1))  # type: ignore[no-any-return]


def stateful(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Stateful(math.prod(input_shape), classes)


class Functional(nn.Module):
    """Weights and activations without modules; the head is defined first."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(16, classes)
        self.hidden = nn.Linear(inputs, 16)
        self.mixed = nn.Parameter(torch.randn(16, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.hidden(x.flatten(1)))
        return self.out(torch.relu(h @ self.mixed))  # type: ignore[no-any-return]


def functional(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Functional(math.prod(input_shape), classes)


def exchangeable(
    input_shape: tuple[int, ...], classes: int, norm: Any = nn.BatchNorm1d, activation: Any = nn.ReLU
) -> nn.Module:
    inputs = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), norm(32), activation(), nn.Linear(32, classes))


def convolutional(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


class Recurrent(nn.Module):
    """An LSTM over the rows of an image, and attention over its states."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 16, batch_first=True)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, classes)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.rnn(x[:, 0])[0]).mean(1))  # type: ignore[no-any-return]


def recurrent(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Recurrent(classes)


class Tied(nn.Module):
    """Two layers with one weight, and a weight that is computed by a parametrization."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, inputs), nn.Linear(inputs, inputs)
        self.second.weight = self.first.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(inputs, 16))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))
        return self.head(torch.relu(self.normed(h)))  # type: ignore[no-any-return]


def tied(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Tied(math.prod(input_shape), classes)


def raises(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    raise RuntimeError("no such net")


def number(input_shape: tuple[int, ...], classes: int) -> Any:
    return 3


def other_classes(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes - 3))


def without_parameters(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Flatten()


def frozen(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return mlp(input_shape, classes).requires_grad_(requires_grad=False)


def in_float64(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return mlp(input_shape, classes).double()


def lazy(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def embedding(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Embedding(20, 4), nn.Flatten(), nn.Linear(256, classes))


class InDictionary(Mlp):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


def dictionary(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return InDictionary(math.prod(input_shape), classes, 2, 8, nn.ReLU)


def requires_width(input_shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    return mlp(input_shape, classes, width=width)


def any_option(classes: int, **options: Any) -> nn.Module:
    assert set(options) <= {"width"}, options
    return mlp((1, 8, 8), classes, **options)
