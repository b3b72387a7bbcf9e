"""Linear auto-encoders against PCA: the optimal loss is the variance outside the first components."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_pretrain_twin import SHAPES, bundle, config, networks, pretrain


def residual(x: torch.Tensor, units: int) -> float:
    """Mean squared error of the best affine reconstruction from `units` numbers (Eckart & Young 1936)."""
    singular = torch.linalg.svdvals((x - x.mean(0)).double())
    return float(singular[units:].square().sum() / x.numel())


@pytest.mark.parametrize(("units", "tied"), [(2, True), (2, False), (4, True)])
def test_a_linear_auto_encoder_comes_down_to_pca(make_config: Any, units: int, tied: bool) -> None:
    """No code of `units` numbers does better (Bourlard & Kamp 1988; Baldi & Hornik 1989), so it is a bound
    from below, and training closes in on it: to 10 % (Adam goes on
    to move by its learning rate), while one component less leaves more than 30 % more.

    The error is measured on 512 rows of 512 samples, all of them once, so that it is that of the SVD."""
    data = bundle((12,), samples=512)
    chosen = make_config(
        model={"family": "mlp", "depth": 2, "width": units, "activation": "linear"},
        init={"scheme": {"name": "autoencoder", "tied": tied, "steps": 1200, "lr": 0.01, "batch_size": 128}},
    )
    (record,) = pretrain(chosen, data, networks(chosen, (12,), [0]), [0])
    reached = record["layers"][0]["loss_end"]
    best, worse = residual(data.train.x, units), residual(data.train.x, units - 1)
    assert best * (1 - 1e-5) < reached < 1.1 * best
    assert worse > 1.3 * best, "one component less would be seen"


@pytest.mark.parametrize("case", ["plain", "bce", "masking", "contractive", "batch", "cnn", "cnn_untied"])
def test_the_reconstruction_loss_falls_in_every_layer(make_config: Any, case: str) -> None:
    chosen = config(make_config, case)
    chosen = chosen.model_copy(
        update={
            "init": chosen.init.model_copy(
                update={"scheme": chosen.init.scheme.model_copy(update={"steps": 60})}
            )
        }
    )
    data = bundle(SHAPES[chosen.model.family])
    events: list[Any] = []
    (record,) = pretrain(chosen, data, networks(chosen, data.input_shape, [0]), [0], emit=events.append)
    assert [layer["layer"] for layer in record["layers"]] == [1, 2, 3]
    assert all(0.0 < layer["loss_end"] < layer["loss_start"] for layer in record["layers"])
    assert record["steps"] == 180 and record["samples"] == 180 * 16
    assert [(event.layer, event.step) for event in events] == [
        (k, i) for k in (1, 2, 3) for i in range(1, 61)
    ]


def test_samples_without_labels_are_seen(make_config: Any) -> None:
    """The labelled 16 alone give other weights than these and 80 without a label."""
    chosen = config(make_config, "plain")
    found = []
    for unlabelled in (0, 80):
        nets = networks(chosen, (20,), [0])
        pretrain(chosen, bundle((20,), samples=16, unlabelled=unlabelled), nets, [0])
        found.append(nets[0].weight_layers()[0].module.weight)
    assert not torch.allclose(*found, atol=1e-3)
