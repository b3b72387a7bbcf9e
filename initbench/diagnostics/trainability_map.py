"""Map signal propagation, gradients and learning of a net over weight scale and depth.

At each point, nets of the config are drawn with this depth and weights N(0, σ_w²/fan_in). The diagnosis of
`initbench probe` judges them. Nothing is stored.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Protocol

import torch

from initbench.components.init_scheme import INITS
from initbench.config.schema import ExperimentConfig
from initbench.data.batches import check_batch_size
from initbench.data.preprocessing import PreparedData, Split
from initbench.determinism import one_thread
from initbench.diagnostics.short_training import LearningThreshold, train_variants
from initbench.errors import UsageError
from initbench.models.network import FAMILIES, Network
from initbench.probing.diagnosis import diagnose
from initbench.probing.theory import theory_layers, why_no_prediction
from initbench.registry_choice import default_choice
from initbench.runner.advice_trials import probe_untrained
from initbench.runner.capacity import check_network
from initbench.theory.depth_scales import DepthScales, critical_sigma_w, deep_chi_1, depth_scales
from initbench.theory.types import TheoryLayer
from initbench.train.loop import fixed_sample
from initbench.train.network_builder import build_networks

MIN_LAYERS = 3
"""Minimum depth for theory, which relates two successive hidden layers: these two and the head."""


@dataclass(frozen=True)
class MapAxes:
    """The values along both axes, in ascending order."""

    sigma_w: tuple[float, ...]
    depth: tuple[int, ...]
    """Numbers of weight layers, including the head."""


MAX_PROFILE_LAYERS = 16
"""Largest number of layers in the profile of a point."""


@dataclass(frozen=True)
class PointProfile:
    """Statistics of evenly spaced weight layers of the nets of one point, the first and the last included."""

    layers: tuple[int, ...]
    """Numbers of the layers, from 1."""
    q: tuple[float | None, ...]
    """E[h²] of the pre-activations; median over the nets."""
    gradient: tuple[float | None, ...]
    """E[δ²]; median over the nets."""


@dataclass(frozen=True)
class MapPoint:
    """The results of the nets of one σ_w and depth."""

    sigma_w: float
    depth: int
    diagnosis: tuple[str, ...]
    """Codes of findings in more than half of the nets, in order of precedence."""
    signal_ratio: float | None
    """Variance over samples, last hidden pre-activation over the first; median over the nets."""
    gradient_ratio: float | None
    """E[δ²] of the first hidden layer, divided by that of the last; median over the nets."""
    learned: bool | None = None
    """Whether more than half of the nets learned; None without training."""
    val_accuracy: float | None = None
    """Mean over the nets after training; None if a net diverged, or without training."""
    profile: PointProfile | None = None


@dataclass(frozen=True)
class TrainabilityMap:
    """The results at all points, with theory and the learning threshold."""

    config: ExperimentConfig
    axes: MapAxes
    dataset: str
    requested: str
    samples: int
    """Size of the probe batch."""
    points: list[MapPoint]
    """Points ordered by depth, then by σ_w."""
    theory: list[DepthScales] | None
    """Depth scales for each σ_w; None without theory."""
    reason: str | None
    """Reason why theory makes no prediction, or None."""
    critical: float | None
    """The σ_w within the axis where χ₁ = 1, or None."""
    bar: LearningThreshold | None
    """Threshold for learning; None without training."""


class MapProgress(Protocol):
    """Receives the progress of a map."""

    def begun(self, what: str, total: int) -> None:
        """Report the start of a stage of `total` units."""

    def advanced(self, units: int) -> None:
        """Report that `units` more units are done."""


def compute_map(
    config: ExperimentConfig, axes: MapAxes, data: PreparedData, observer: MapProgress, *, steps: int | None
) -> TrainabilityMap:
    """Draw and judge the nets of all points, and train them for `steps` updates unless it is None.

    The config must pass `check_family`.
    """
    check_batch_size(len(data.train), config.train.batch_size)
    for depth in {axes.depth[0], axes.depth[-1]}:
        at = config_at(config, axes.sigma_w[0], depth)
        check_network(at, data, copies=2)
    deepest = config_at(config, axes.sigma_w[0], max(MIN_LAYERS, axes.depth[-1]))
    reason = why_no_prediction(_meta_network(deepest, data), deepest.init, config.model.norm.name)
    batch = fixed_sample(data.train, config.probe.batch)
    theory, critical = (None, None) if reason is not None else _theory(config, axes, data, batch, observer)
    points = list(_probe_points(config, axes, data, batch, observer))
    bar = None if steps is None else LearningThreshold.for_split(data.val, steps)
    if bar is not None:
        points = list(_train_points(points, config, axes, data, observer, bar))
    return TrainabilityMap(
        config=config,
        axes=axes,
        dataset=data.name,
        requested=data.requested,
        samples=len(batch),
        points=points,
        theory=theory,
        reason=reason,
        critical=critical,
        bar=bar,
    )


def config_at(config: ExperimentConfig, sigma_w: float, depth: int) -> ExperimentConfig:
    """Return the config at one point; biases and the scheme of the head stay unchanged."""
    init = config.init.model_copy(
        update={"scheme": default_choice(INITS, "lecun_normal"), "gain": float(sigma_w)}
    )
    model = config.model.model_copy(update={"depth": depth})
    return config.model_copy(update={"init": init, "model": model})


def _meta_network(config: ExperimentConfig, data: PreparedData) -> Network:
    """Return the net on the device "meta", which has shapes and no values."""
    with torch.device("meta"):
        return FAMILIES[config.model.family].build(config.model, data.form)


def check_family(config: ExperimentConfig, data: PreparedData) -> None:
    """Raise UsageError unless the net is a plain stack of layers whose depth is model.depth."""
    family = config.model.family
    if not hasattr(config.model, "depth"):
        raise UsageError(f"--map needs model.depth, which model.family={family} lacks. Try model.family=mlp")
    if not _meta_network(config, data).plain:
        raise UsageError(
            f"--map needs a plain stack of layers, and model.family={family} has shortcuts."
            " Try model.family=mlp"
        )


def _theory(
    config: ExperimentConfig, axes: MapAxes, data: PreparedData, batch: Split, observer: MapProgress
) -> tuple[list[DepthScales], float | None]:
    """Return the depth scales of each σ_w, and the first σ_w where χ₁ crosses 1, or None."""
    depth, q = max(MIN_LAYERS, axes.depth[-1]), float(batch.x.double().square().mean())

    def stack(sigma_w: float) -> list[TheoryLayer]:
        at = config_at(config, sigma_w, depth)
        return theory_layers(_meta_network(at, data), at.init)

    observer.begun("computing depth scales", len(axes.sigma_w))
    with one_thread():  # the tensors are small
        expected = []
        for sigma_w in axes.sigma_w:
            expected.append(depth_scales(stack(sigma_w), q))
            observer.advanced(1)
        pairs = zip(pairwise(axes.sigma_w), pairwise(point.chi_1 >= 1.0 for point in expected), strict=True)
        passed = next((ends for ends, (below, above) in pairs if below != above), None)
        return expected, None if passed is None else critical_sigma_w(
            lambda s: deep_chi_1(stack(s), q), *passed
        )


def _probe_points(
    config: ExperimentConfig, axes: MapAxes, data: PreparedData, batch: Split, observer: MapProgress
) -> Iterator[MapPoint]:
    columns, seeds = len(axes.sigma_w), config.seed_list
    nets = columns * len(axes.depth) * len(seeds)
    observer.begun(f"probing {nets:,} nets", sum(axes.depth) * columns * len(seeds))
    for depth, sigma_w in product(axes.depth, axes.sigma_w):
        at, measurements = config_at(config, sigma_w, depth), []
        for seed in seeds:
            (network,) = build_networks(at, data, [seed])
            measurements.append(probe_untrained(network, batch, config).layers)
            observer.advanced(depth)
        yield _summarise_point(sigma_w, depth, measurements)


def _summarise_point(sigma_w: float, depth: int, nets: Sequence[list[dict[str, Any]]]) -> MapPoint:
    counts: dict[str, int] = {}
    for layers in nets:
        for finding in diagnose([{"when": "init", "step": 0, "layers": layers}], None, None):
            counts[finding.code] = counts.get(finding.code, 0) + 1
    codes = tuple(code for code, count in counts.items() if 2 * count > len(nets))
    signal = [_ratio(layers, "pre", "signal", last_over_first=True) for layers in nets]
    gradient = [_ratio(layers, "grad", "pre_q", last_over_first=False) for layers in nets]
    return MapPoint(sigma_w, depth, codes, _median(signal), _median(gradient), profile=_profile(nets))


def _profile(nets: Sequence[list[dict[str, Any]]]) -> PointProfile:
    last, gaps = len(nets[0]) - 1, MAX_PROFILE_LAYERS - 1
    positions = sorted({round(i * last / gaps) for i in range(MAX_PROFILE_LAYERS)})
    return PointProfile(
        tuple(nets[0][position]["index"] for position in positions),
        tuple(_median([layers[position]["pre"]["q"] for layers in nets]) for position in positions),
        tuple(_median([layers[position]["grad"]["pre_q"] for layers in nets]) for position in positions),
    )


def _ratio(
    layers: Sequence[dict[str, Any]], part: str, statistic: str, *, last_over_first: bool
) -> float | None:
    hidden = [layer[part][statistic] for layer in layers if layer["act"] is not None]
    if not hidden or hidden[0] is None or hidden[-1] is None:
        return None
    over, under = (hidden[-1], hidden[0]) if last_over_first else (hidden[0], hidden[-1])
    return over / under if under else None


def _median(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return statistics.median(finite) if finite else None


def _train_points(
    points: Sequence[MapPoint],
    config: ExperimentConfig,
    axes: MapAxes,
    data: PreparedData,
    observer: MapProgress,
    bar: LearningThreshold,
) -> Iterator[MapPoint]:
    """Yield the points with training results. Nets of one depth have equal shapes and train together."""
    seeds = config.seed_list
    nets = len(points) * len(seeds)
    units = sum(axes.depth) * len(axes.sigma_w) * len(seeds) * bar.steps
    observer.begun(f"training {nets:,} nets, {bar.steps:,} steps each", units)
    for depth in axes.depth:
        row = [point for point in points if point.depth == depth]
        starts = [(config_at(config, point.sigma_w, depth), seed) for point in row for seed in seeds]

        def advanced(nets: int, depth: int = depth) -> None:
            observer.advanced(nets * depth)

        accuracies = train_variants(starts, data, bar.steps, advanced)
        for index, point in enumerate(row):
            point_accuracies = accuracies[index * len(seeds) : (index + 1) * len(seeds)]
            finite = [accuracy for accuracy in point_accuracies if accuracy is not None]
            learned = sum(map(bar.reached_by, point_accuracies))
            mean = statistics.fmean(finite) if len(finite) == len(point_accuracies) else None
            yield replace(point, learned=2 * learned > len(point_accuracies), val_accuracy=mean)
