"""The auto-encoders of a cohort against a plain loop of nn.Module and torch.optim, one layer at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv_transpose2d

from initbench.components.target import SampleShape
from initbench.data.batches import Batches
from initbench.data.preprocessing import PreparedData, Split
from initbench.models.build import build
from initbench.models.network import Network
from initbench.pretrain.layerwise import Pretraining
from initbench.rng import stream_generator
from initbench.runner.run_identity import training_mode
from initbench.train.loop import TrainingSetup

CPU = torch.device("cpu")
SEEDS = [3, 8, 11]


def bundle(shape: tuple[int, ...], samples: int = 96, unlabelled: int = 0) -> PreparedData:
    """Inputs between 0 and 1 around a plane, so that there is something to learn."""
    stream = torch.Generator().manual_seed(5)
    size = math.prod(shape)

    def inputs(n: int) -> Tensor:
        mixed = torch.randn(n, 4, generator=stream) @ torch.randn(4, size, generator=stream)
        return mixed.sigmoid().view(n, *shape)

    def split(n: int) -> Split:
        return Split(x=inputs(n), y=torch.arange(n) % 3)

    return PreparedData(
        train=split(samples),
        val=split(8),
        test=split(8),
        form=SampleShape(shape, 3),
        name="plane",
        requested="plane",
        fingerprint="",
        unlabelled=inputs(unlabelled) if unlabelled else None,
    )


MLP = {"family": "mlp", "depth": 4, "width": 32, "activation": "sigmoid"}
CNN = {"family": "cnn", "depth": 4, "width": 4, "stages": 3, "activation": "tanh"}
POOLED = {**CNN, "downsample": "max_pool", "activation": "relu"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (MLP, {}),
    "untied": ({**MLP, "activation": "tanh"}, {"tied": False}),
    "masking": (MLP, {"kind": "denoising", "corruption_level": 0.4}),
    "gaussian": ({**MLP, "activation": "relu"}, {"kind": "denoising", "corruption": "gaussian"}),
    "contractive": (MLP, {"kind": "contractive", "contraction": 3.0}),
    "contractive_tanh": ({**MLP, "activation": "tanh"}, {"kind": "contractive", "tied": False}),
    "bce": (MLP, {"loss": "bce"}),
    "batch": ({**MLP, "norm": "batch", "activation": "relu"}, {}),
    "ghost": ({**MLP, "norm": {"name": "ghost_batch", "ghost_size": 8}}, {}),
    "crelu": ({**MLP, "activation": "crelu"}, {"tied": False}),
    "cnn": (CNN, {}),
    "cnn_untied": (CNN, {"tied": False, "kind": "denoising"}),
    "cnn_pooled": ({**POOLED, "norm": "batch"}, {}),
}
SHAPES = {"mlp": (20,), "cnn": (2, 9, 8)}


def config(make_config: Any, case: str, **train: Any) -> Any:
    model, options = CASES[case]
    scheme = {"name": "autoencoder", "steps": 12, "lr": 0.01, "batch_size": 16, **options}
    return make_config(model=model, init={"scheme": scheme}, train=train)


def networks(chosen: Any, shape: tuple[int, ...], seeds: list[int]) -> list[Network]:
    batch = torch.zeros(4, *shape)
    return [
        build(chosen.model, chosen.init, form=SampleShape(shape, 3), seed=seed, batch=batch) for seed in seeds
    ]


def pretrain(
    chosen: Any,
    data: PreparedData,
    nets: list[Network],
    seeds: list[int],
    mode: Any = None,
    threads: int = 1,
    emit: Callable[[Any], None] = lambda _event: None,
) -> list[dict[str, Any]]:
    """Pre-train the nets, and return their records."""
    records, mode = [], mode or training_mode(chosen, CPU)
    cohorts = [(nets, seeds)] if mode == "vmap" else [([n], [s]) for n, s in zip(nets, seeds, strict=True)]
    for some, own in cohorts:
        setup = TrainingSetup(
            networks=some, seeds=own, config=chosen, mode=mode, data=data, device=CPU, threads=threads
        )
        records += Pretraining(setup, emit).run()
    return records


def twin(chosen: Any, data: PreparedData, network: Network, seed: int) -> None:
    """Greedy pre-training as one would write it down for a single net."""
    options = chosen.init.scheme
    x, inner = data.pretraining_x, network.weight_layers()
    below: list[Any] = []
    for place, stage in enumerate(network.stages()):
        site, layer = inner[place], stage.layer
        weight = site.module.weight
        decoder_weight, decoder_bias = own_decoder(chosen, network, place, seed)
        trained = [*layer.parameters(), decoder_bias]
        if decoder_weight is not None:
            trained.append(decoder_weight)
        optimizer = torch.optim.Adam(trained, lr=options.lr)
        batches = Batches(len(x), options.batch_size, [seed], stream=("pretrain", "order", place + 1))
        network.train()
        for done in below:
            done.layer.eval()
        for step in range(options.steps):
            h = x[batches.indices(step)[0]]
            with torch.no_grad():
                for done in below:
                    h = done.layer(done.preceding(h))
                h = stage.preceding(h)
            given = corrupted(options, h, seed, place, step)
            decoded = decode(site.module, layer(given), decoder_weight, weight, decoder_bias, h)
            loss = (
                binary_cross_entropy_with_logits(decoded, h)
                if options.loss == "bce"
                else (decoded - h).square().mean()
            )
            if options.kind == "contractive":
                loss = loss + options.contraction * jacobian_norm(layer, given) / h.shape[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        below.append(stage)


def own_decoder(chosen: Any, network: Network, place: int, seed: int) -> tuple[Any, Any]:
    from initbench.models.init_weights import rule_for_layer
    from initbench.pretrain.autoencoder import Decoder

    layer = network.weight_layers()[place]
    units = layer.module.weight.shape[0] * (2 if chosen.model.activation.name == "crelu" else 1)
    decoder = Decoder(layer.module, units, tied=chosen.init.scheme.tied)
    rule = rule_for_layer(layer, chosen.init, network.activation)
    decoder.draw(rule, stream_generator(seed, "pretrain", "decoder", layer.name))
    return decoder.weight, decoder.bias


def corrupted(options: Any, h: Tensor, seed: int, place: int, step: int) -> Tensor:
    stream = stream_generator(seed, "pretrain", "corruption", place + 1, step)
    if options.kind != "denoising":
        return h
    if options.corruption == "masking":
        return h.where(torch.rand(h.shape, generator=stream) >= options.corruption_level, 0.0)
    return h + torch.randn(h.shape, generator=stream) * options.corruption_level


def decode(op: nn.Module, code: Tensor, own: Any, weight: Tensor, bias: Tensor, h: Tensor) -> Tensor:
    used = weight if own is None else own
    if isinstance(op, nn.Linear):
        return code @ used + bias
    # The transposed convolution, cut or filled up to the size that the inputs had.
    stride, side = op.stride[0], op.kernel_size[0] // 2
    whole = conv_transpose2d(code, used, None, stride)
    room = torch.zeros(*h.shape[:2], h.shape[2] + 4 * side + stride, h.shape[3] + 4 * side + stride)
    room[:, :, : whole.shape[2], : whole.shape[3]] = whole
    return room[:, :, side : side + h.shape[2], side : side + h.shape[3]] + bias.view(1, -1, 1, 1)


def jacobian_norm(layer: nn.Module, given: Tensor) -> Tensor:
    """Mean over the samples of ‖∂layer/∂x‖², entry by entry of what autograd gives.

    No output of these layers depends on two samples, so the gradients of the sum are those of each sample.
    """

    def summed(x: Tensor) -> Tensor:
        result: Tensor = layer(x).sum(0)
        return result

    by_unit = torch.autograd.functional.jacobian(summed, given, create_graph=True)  # (U, B, D)
    return by_unit.square().sum((0, 2)).mean()


# A bias that ghost batches take away again has a gradient of nothing but rounding, which Adam makes steps of.
@pytest.mark.parametrize("case", [case for case in CASES if case != "ghost"])
def test_a_cohort_agrees_with_a_plain_loop(make_config: Any, case: str) -> None:
    chosen = config(make_config, case)
    data = bundle(SHAPES[chosen.model.family])
    nets = networks(chosen, data.input_shape, SEEDS)
    drawn = copy.deepcopy(nets)
    twins = copy.deepcopy(nets)
    pretrain(chosen, data, nets, SEEDS)
    for seed, net, slow, before in zip(SEEDS, nets, twins, drawn, strict=True):
        twin(chosen, data, slow, seed)
        for (name, p), q, start in zip(
            net.state_dict().items(), slow.state_dict().values(), before.state_dict().values(), strict=True
        ):
            # Adam divides by the size of a gradient, so what is rounded to nothing in it may differ.
            assert torch.allclose(p, q, atol=2e-4, rtol=1e-3), name
            head = name.startswith("head")
            assert torch.equal(p, start) if head else not torch.equal(p, start), name


@pytest.mark.parametrize("case", ["plain", "masking", "contractive", "bce", "batch", "ghost"])
def test_a_run_is_the_same_in_any_cohort_bit_for_bit(make_config: Any, case: str) -> None:
    chosen = config(make_config, case)
    data = bundle((20,))
    assert training_mode(chosen, CPU) == "vmap"
    together = networks(chosen, (20,), SEEDS)
    records = pretrain(chosen, data, together, SEEDS)
    for place, seed in enumerate(SEEDS):
        alone = networks(chosen, (20,), [seed])
        own = pretrain(chosen, data, alone, [seed], threads=2)
        for p, q in zip(alone[0].state_dict().values(), together[place].state_dict().values(), strict=True):
            assert torch.equal(p, q)
        assert own[0]["layers"] == records[place]["layers"]


def test_runs_of_which_stacking_would_change_the_digits_are_trained_singly(make_config: Any) -> None:
    """33 units × 32 samples fill no whole vectors, and nor do 32 × 15."""
    assert training_mode(config(make_config, "plain"), CPU) == "vmap"
    narrow = make_config(model={**MLP, "width": 33}, init={"scheme": {"name": "autoencoder"}})
    assert training_mode(narrow, CPU) == "single"
    odd = make_config(model=MLP, init={"scheme": {"name": "autoencoder", "batch_size": 15}})
    assert training_mode(odd, CPU) == "single"


def test_the_corruption_changes_what_is_learned(make_config: Any) -> None:
    data, found = bundle((20,)), []
    for case in ("plain", "masking", "contractive"):
        chosen = config(make_config, case)
        nets = networks(chosen, (20,), [0])
        pretrain(chosen, data, nets, [0])
        found.append(nets[0].weight_layers()[0].module.weight)
    assert not any(torch.allclose(found[0], other, atol=1e-3) for other in found[1:])


@pytest.mark.parametrize("case", ["plain", "cnn", "cnn_pooled", "batch"])
def test_the_stages_and_the_head_are_the_whole_net(make_config: Any, case: str) -> None:
    chosen = config(make_config, case)
    data = bundle(SHAPES[chosen.model.family])
    (net,) = networks(chosen, data.input_shape, [0])
    net.eval()
    h = data.val.x
    for stage in net.stages():
        h = stage.layer(stage.preceding(h))
    top = net.head(net.pool(h).flatten(1) if hasattr(net, "pool") else h)
    assert torch.equal(top, net(data.val.x))
    assert len(net.stages()) == len(net.weight_layers()) - 1
