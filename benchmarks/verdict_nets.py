"""Nets for the study of verdicts: sound nets with the init of their authors, and nets with a mistake."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor | None]
CLASSES, TOKENS, LENGTH = 10, 65, 24


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A net, a batch for it, and the correct verdict."""

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    chance: float | None = None
    """Loss of equal logits; None if the output is not a classification."""
    loss: Callable[..., Tensor] | None = None
    """Loss function for `probe` and `lint`; None for their default."""
    mistake: str = ""
    """Description of the planted mistake; empty for a sound net."""
    millions: float = 0.0
    """Parameters of a large net, in millions."""
    named_by: str = ""
    """Regular expression that the code or sentence of a correct finding matches."""


# Batches -------------------------------------------------------------------------------------------------


def vectors(features: int = 64, samples: int = 32) -> Batch:
    """Draw N(0, 1) features and random labels."""
    return torch.randn(samples, features), torch.randint(CLASSES, (samples,))


def images(side: int = 32, samples: int = 16) -> Batch:
    """Draw N(0, 1) pixels and random labels."""
    return torch.randn(samples, 3, side, side), torch.randint(CLASSES, (samples,))


def tokens(samples: int = 8) -> Batch:
    """Draw random tokens, and the next token at each position."""
    text = torch.randint(TOKENS, (samples, LENGTH + 1))
    return text[:, :-1], text[:, 1:]


def token_classes(samples: int = 16) -> Batch:
    """Draw random tokens and one label per sample."""
    return torch.randint(TOKENS, (samples, LENGTH)), torch.randint(CLASSES, (samples,))


def pixel_classes() -> Batch:
    """Draw images and a label for every pixel."""
    return torch.randn(4, 3, 32, 32), torch.randint(4, (4, 32, 32))


# Modern nets ---------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Causal self-attention of four heads, with a projection for q, k and v together."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.qkv, self.proj, self.causal = nn.Linear(width, 3 * width), nn.Linear(width, width), causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, 4, c // 4).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class TransformerBlock(nn.Module):
    """Attention and a GELU net of four times the width, each with a shortcut."""

    def __init__(self, width: int, *, pre_norm: bool, causal: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, causal=causal)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class GPT(nn.Module):
    """Six pre-norm blocks over token and position embeddings; the head is the token embedding."""

    def __init__(self, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(TOKENS, width), nn.Embedding(LENGTH, width)
        parts = [TransformerBlock(width, pre_norm=True, causal=True) for _ in range(blocks)]
        self.blocks, self.norm = nn.Sequential(*parts), nn.LayerNorm(width)
        self.head = nn.Linear(width, TOKENS, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, text: Tensor) -> Tensor:
        x = self.wte(text) + self.wpe(torch.arange(text.shape[1], device=text.device))
        return self.head(self.norm(self.blocks(x)))


def gpt() -> GPT:
    """Return a GPT with GPT-2's init: std 0.02, divided by √(2·blocks) before the residual stream."""
    net = GPT()
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            into_stream = name.endswith(("proj", "down"))
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(12) if into_stream else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def gpt_with_unit_embedding() -> GPT:
    """Return a GPT with GPT-2's init except for the tied embedding, which stays at N(0, 1)."""
    net = gpt()
    nn.init.normal_(net.wte.weight)
    return net


class TransformerClassifier(nn.Module):
    """Four blocks over embedded tokens, their mean and a linear head."""

    def __init__(self, *, pre_norm: bool, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(TOKENS, width), nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        parts = [TransformerBlock(width, pre_norm=pre_norm, causal=False) for _ in range(blocks)]
        self.blocks, self.norm = nn.Sequential(*parts), nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embed.weight, std=width**-0.5)

    def forward(self, text: Tensor) -> Tensor:
        x = self.embed(text) * math.sqrt(self.embed.embedding_dim) + self.place
        return self.head(self.norm(self.blocks(x)).mean(1))


class UNet(nn.Module):
    """Two levels down and up with batch norm and skips; He's init, as its authors ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self._pair(3, 16), self._pair(16, 32), self._pair(32, 64)
        self.rise2, self.rise1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.up2, self.up1, self.head = self._pair(64, 32), self._pair(32, 16), nn.Conv2d(16, 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.rise2(self.bottom(F.max_pool2d(second, 2)))
        x = self.rise1(self.up2(torch.cat([x, second], 1)))
        return self.head(self.up1(torch.cat([x, first], 1)))


def _dcgan_init(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    return net


def dcgan_generator() -> nn.Module:
    """Return a generator from 100 noise channels to a 32 × 32 image (Radford et al. 2016)."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(100, 128, 4, 1, 0, bias=False)]
    for inputs, outputs in ((128, 64), (64, 32)):
        layers += [nn.BatchNorm2d(inputs), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(32), nn.ReLU(True), nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return _dcgan_init(nn.Sequential(*layers))


def dcgan_discriminator() -> nn.Module:
    """Return a discriminator from a 32 × 32 image to the probability that it is real."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for inputs, outputs in ((32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, True)]
    layers += [nn.Conv2d(128, 1, 4, bias=False), nn.Flatten(), nn.Sigmoid()]
    return _dcgan_init(nn.Sequential(*layers))


class LSTMClassifier(nn.Module):
    """Embedded tokens, two recurrent layers and a head on the last state; forget gates open."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(TOKENS, 32), nn.LSTM(32, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, CLASSES)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for name, weight in self.lstm.named_parameters():
            if "bias" in name:
                nn.init.zeros_(weight)
                if "bias_ih" in name:
                    nn.init.ones_(weight.data[64:128])
            elif "weight_hh" in name:
                for gate in weight.data.chunk(4):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.xavier_uniform_(weight)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(text))[0][:, -1])


class ActorCritic(nn.Module):
    """Separate tanh nets for policy and value, orthogonal as in PPO (Andrychowicz et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = self._net(CLASSES, 0.01), self._net(1, 1.0)

    @staticmethod
    def _net(outputs: int, gain: float) -> nn.Sequential:
        layers = [nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)]
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain if place == 4 else math.sqrt(2.0))
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(x), self.critic(x)


def binary(output: Tensor, y: Tensor) -> Tensor:
    """Compute the binary cross-entropy of probabilities."""
    return F.binary_cross_entropy(output[:, 0], y)


def modern_nets() -> Iterator[Subject]:
    """Return modern nets with the init of their authors."""
    ln = math.log
    yield Subject(name="GPT, tied embedding, std 0.02", make=gpt, batch=tokens, chance=ln(TOKENS))
    for pre_norm, words in ((True, "pre"), (False, "post")):
        yield Subject(
            name=f"transformer, {words}-LN",
            make=lambda pre_norm=pre_norm: TransformerClassifier(pre_norm=pre_norm),
            batch=token_classes,
            chance=ln(CLASSES),
        )
    yield Subject(name="U-Net", make=UNet, batch=pixel_classes, chance=ln(4))
    yield Subject(
        name="DCGAN generator", make=dcgan_generator, batch=lambda: (torch.randn(16, 100, 1, 1), None)
    )
    yield Subject(
        name="DCGAN discriminator",
        make=dcgan_discriminator,
        batch=lambda: (images(32)[0], torch.randint(2, (16,)).float()),
        loss=binary,
        chance=ln(2),
    )
    yield Subject(name="LSTM classifier", make=LSTMClassifier, batch=token_classes, chance=ln(CLASSES))
    yield Subject(
        name="actor-critic", make=ActorCritic, batch=lambda: (torch.randn(32, 64), None), chance=None
    )
    yield Subject(
        name="relu mlp, 10 layers, Kaiming", make=lambda: mlp(10), batch=vectors, chance=ln(CLASSES)
    )
    yield Subject(
        name="relu mlp, 50 layers, Kaiming", make=lambda: mlp(50), batch=vectors, chance=ln(CLASSES)
    )
    yield Subject(
        name="tanh mlp, 10 layers, Xavier",
        make=lambda: mlp(10, nn.Tanh, nn.init.xavier_normal_),
        batch=vectors,
        chance=ln(CLASSES),
    )
    yield Subject(name="conv net, batch norm", make=conv_net, batch=images, chance=ln(CLASSES))
    yield Subject(name="residual mlp, 1/√L", make=residual_mlp, batch=vectors, chance=ln(CLASSES))


# Nets to plant a mistake in ------------------------------------------------------------------------------

Draw = Callable[[Tensor], object]


def kaiming(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def mlp(depth: int, activation: Callable[[], nn.Module] = nn.ReLU, draw: Draw = kaiming) -> nn.Sequential:
    """Return `depth` weight layers of 64 units with biases 0 and a Xavier head."""
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(64, 64), activation()]
    net = nn.Sequential(*layers, nn.Linear(64, CLASSES))
    for layer in linears(net):
        draw(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.xavier_normal_(net[-1].weight)
    return net


def as_constructed(depth: int) -> nn.Sequential:
    """Return the same relu net with the default init of torch."""
    parts = [[nn.Linear(64, 64), nn.ReLU()] for _ in range(depth - 1)]
    return nn.Sequential(*(module for part in parts for module in part), nn.Linear(64, CLASSES))


def linears(net: nn.Module) -> list[nn.Linear]:
    return [module for module in net.modules() if isinstance(module, nn.Linear)]


def conv_net(blocks: int = 6, *, norm: bool = True) -> nn.Sequential:
    """Return convolutions of 32 channels with batch norm and relu, a mean over the map and a head."""
    layers: list[nn.Module] = []
    for place in range(blocks):
        layers += [nn.Conv2d(32 if place else 3, 32, 3, padding=1, bias=False)]
        layers += [*([nn.BatchNorm2d(32)] if norm else []), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kaiming(module.weight)
    nn.init.xavier_normal_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return net


class ResidualMLP(nn.Module):
    """Blocks x + scale·W₂ relu(W₁ x) without a norm."""

    def __init__(self, blocks: int, scale: float) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(64, 64) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(64, 64) for _ in range(blocks))
        self.head, self.scale = nn.Linear(64, CLASSES), scale
        for layer in linears(self):
            kaiming(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.first, self.second, strict=True):
            x = x + self.scale * second(F.relu(first(x)))
        return self.head(x)


def residual_mlp() -> ResidualMLP:
    """Return thirty blocks, each scaled by 1/√30."""
    return ResidualMLP(30, 30**-0.5)


class Trunk(nn.Module):
    """Three hidden layers under one head, or under a head and a value."""

    def __init__(self, *, two_heads: bool = False) -> None:
        super().__init__()
        self.body, self.head = mlp(4)[:-1], nn.Linear(64, CLASSES)
        self.value = nn.Linear(64, 1) if two_heads else None
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features) if self.value is None else (self.head(features), self.value(features))


# Planted mistakes ----------------------------------------------------------------------------------------


def _changed(net: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    with torch.no_grad():
        change(net)
    return net


def _gammas_around_zero() -> nn.Module:
    net = conv_net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return net


def _recurrent_times_five() -> nn.Module:
    net = LSTMClassifier()
    with torch.no_grad():
        for name, weight in net.lstm.named_parameters():
            if "weight_hh" in name:
                weight.mul_(5.0)
    return net


def _copied_layers() -> nn.Module:
    net = mlp(6)
    for place in (4, 6, 8):
        net[place] = copy.deepcopy(net[2])
    return net


def _frozen() -> nn.Module:
    net = mlp(5)
    net[2].requires_grad_(False)
    return net


def _one_nan(net: nn.Module) -> None:
    linears(net)[2].weight.data[3, 5] = math.nan


class _Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = mlp(4)[:-1], mlp(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).detach())


class _Unused(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.forgotten = nn.Linear(64, 64)
        kaiming(self.forgotten.weight)


def _raw_images() -> Batch:
    x, y = images()
    return (x * 60.0 + 127.5).clamp(0.0, 255.0).round(), y


def _one_large_column() -> Batch:
    x, y = vectors()
    return x * torch.tensor([1e4] + [1.0] * 63), y


def _samples_alike() -> Batch:
    x, y = vectors()
    return x[:1].expand(32, 64).clone(), y


def planted_mistakes() -> Iterator[Subject]:
    """Return nets with one mistake each, and how a verdict should name it."""
    ln = math.log(CLASSES)

    def planted(mistake: str, named_by: str, make: Callable[[], nn.Module], **more: object) -> Subject:
        values = {"batch": vectors, "chance": ln} | more
        return Subject(name=mistake, mistake=mistake, named_by=named_by, make=make, **values)  # type: ignore[arg-type]

    equal = "symmetric|duplicated_units"
    yield planted("all weights 0", equal, lambda: mlp(5, draw=nn.init.zeros_))
    yield planted("one layer all 0.1", equal, lambda: _changed(mlp(5), lambda net: net[2].weight.fill_(0.1)))
    yield planted("N(0, 1) in a deep relu net", "exploding_forward", lambda: mlp(10, draw=nn.init.normal_))
    yield planted(
        "the misprint 4/n, 20 layers",
        "exploding_forward",
        lambda: mlp(20, draw=lambda w: nn.init.normal_(w, std=math.sqrt(4.0 / w.shape[1]))),
    )
    yield planted(
        "Xavier under relu, 25 layers", "vanishing_forward", lambda: mlp(25, draw=nn.init.xavier_normal_)
    )
    yield planted(
        "torch's default, 15 layers of relu",
        "torch_default",
        lambda: as_constructed(15),
    )
    yield planted(
        "GPT, tied embedding N(0, 1)",
        r"head_scale|loss|embedding|wte",
        gpt_with_unit_embedding,
        batch=tokens,
        chance=math.log(TOKENS),
    )
    yield planted(
        "head × 100", "head_scale|head", lambda: _changed(mlp(5), lambda net: net[-1].weight.mul_(100.0))
    )
    yield planted(
        "biases of −10",
        "dead|bias",
        lambda: _changed(mlp(5), lambda net: [m.bias.fill_(-10.0) for m in linears(net)[:-1]]),
    )
    yield planted(
        "norm scales drawn around 0",
        r"norm\w*.*around 0|γ|gamma|norm_scale",
        _gammas_around_zero,
        batch=images,
    )
    yield planted(
        "NaN in one weight",
        r"4\.weight.*1 |not_finite.*4\.weight|1 .*4\.weight",
        lambda: _changed(mlp(5), _one_nan),
    )
    yield planted(
        "sigmoid, 15 layers",
        "vanishing_(forward|backward)",
        lambda: mlp(15, nn.Sigmoid, nn.init.xavier_normal_),
    )
    yield planted(
        "one head of two left as constructed", r"untouched.*value", lambda: Trunk(two_heads=True), chance=None
    )
    yield planted(
        "recurrent weights × 5", r"lstm|weight_hh|recurrent", _recurrent_times_five, batch=token_classes
    )
    yield planted("pixels 0 … 255", r"\binput|pixel", lambda: conv_net(norm=False), batch=_raw_images)
    yield planted("one column × 10,000", r"\binput", lambda: mlp(5), batch=_one_large_column)
    yield planted(
        "samples all alike", r"samples? .*(alike|same|equal|identical)", lambda: mlp(5), batch=_samples_alike
    )
    yield planted("deep-copied layers", r"cop(y|ies|ied)|identical|same weights", _copied_layers)
    yield planted("a frozen layer", r"frozen|requires_grad", _frozen)
    yield planted(
        "softmax before the cross-entropy", "softmax", lambda: nn.Sequential(*mlp(5), nn.Softmax(1))
    )
    yield planted("relu behind the logits", "relu", lambda: nn.Sequential(*mlp(5), nn.ReLU()))
    yield planted("features detached", "no_gradient", _Detached)
    yield planted("a layer never used", r"unused.*forgotten|forgotten", _Unused)
    yield planted("30 residual blocks unscaled", "exploding_forward|residual", lambda: ResidualMLP(30, 1.0))
