"""Check whether the diagnosis before training predicts which nets learn.

python -m benchmarks.probe_predicts_training [--quick] writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from benchmarks.learning_scores import Case, report
from benchmarks.results_page import write_section
from initbench.components.activation import ACTIVATIONS
from initbench.components.init_scheme import INITS, SchemeRequirement
from initbench.components.norm import NORMS
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import data_root, resolve_dataset
from initbench.data.preprocessing import PreparedData, Split, preprocess
from initbench.determinism import one_thread
from initbench.diagnostics.short_training import LearningThreshold, train_variants
from initbench.errors import ConfigError
from initbench.probing.diagnosis import diagnose
from initbench.probing.log_slopes import VANISHING_RATIO, finite_prefix, log_slope
from initbench.probing.network_probe import probe
from initbench.probing.tensor_statistics import ALIKE, ProbeDetail
from initbench.runner.capacity import check_network
from initbench.train.loop import fixed_sample
from initbench.train.network_builder import build_networks

CONFIGS, SEED, STEPS, SAMPLES = 200, 0, 250, 128
DRAWS_FROM = 2026
RATES = {"sgd": 0.05, "adam": 1e-3}
_MOST = 10.0
SLOW = (SchemeRequirement.STORED_RUN, SchemeRequirement.TRAINING)
"""Requirements of schemes that cannot be drawn at random, or that take longer than the training."""


def drawn(stream: random.Random) -> dict[str, Any]:
    """Draw the model, init and train sections of one config, which may be invalid."""
    family = stream.choices(["mlp", "resnet_mlp", "cnn"], [11, 7, 2])[0]
    scheme = stream.choice([entry for entry in INITS if entry.needs not in SLOW])
    norm = stream.choice([entry.name for entry in NORMS if entry.name != "none"])
    depth = round(math.exp(stream.uniform(math.log(2), math.log(60))))
    model = {
        "family": family,
        "depth": {"mlp": depth, "resnet_mlp": depth + depth % 2, "cnn": 4 + depth // 8}[family],
        "width": {"cnn": 8}.get(family, stream.choice([32, 64, 96, 128])),
        "activation": stream.choice([entry.name for entry in ACTIVATIONS]),
        "norm": norm if stream.random() < 0.4 else "none",
    }
    init: dict[str, Any] = {"scheme": {"name": scheme.name, **_options(scheme, stream)}}
    if scheme.default_gain is not None and stream.random() < 0.5:
        init["gain"] = stream.choice(["auto", math.exp(stream.uniform(math.log(0.5), math.log(2.5)))])
    if stream.random() < 0.15:
        init["bias"] = stream.uniform(-1.0, 1.0)
    optimizer = stream.choice(list(RATES))
    return {"model": model, "init": init, "train": {"optimizer": optimizer, "lr": RATES[optimizer]}}


def _options(scheme: Any, stream: random.Random) -> dict[str, float]:
    """Draw the scale of a scheme that has one, log-uniformly."""
    scales = [name for name in ("std", "bound", "value") if name in scheme.options.model_fields]
    return {name: math.exp(stream.uniform(math.log(0.01), math.log(0.5))) for name in scales}


def configs(count: int) -> Iterator[ExperimentConfig | str]:
    """Yield `count` valid configs, and a message for each rejected one."""
    stream, made = random.Random(DRAWS_FROM), 0
    while made < count:
        sections = drawn(stream)
        sections["train"] |= {"batch_size": 64, "steps": STEPS}
        try:
            yield ExperimentConfig.model_validate(
                {"name": f"c{made:03d}", "seeds": [SEED], "data": {"name": "digits"}, **sections}
            )
        except ValidationError as error:
            yield error.errors()[0]["msg"]
            continue
        made += 1


def judge(config: ExperimentConfig, data: PreparedData, batch: Split) -> tuple[tuple[str, ...], float]:
    """Return the codes that the untrained net shows, and the severity."""
    (network,) = build_networks(config, data, [SEED])
    state = dict(network.named_parameters()), dict(network.named_buffers())
    layers = probe(
        network, *state, x=batch.x, y=batch.y, loss=cross_entropy, bins=8, detail=ProbeDetail.DIAGNOSIS
    )
    found = diagnose([{"when": "init", "step": 0, "layers": layers}], None, None)
    codes = tuple(dict.fromkeys(finding.code for finding in found if finding.level == "warning"))
    return codes, severity_of(layers, codes)


def severity_of(layers: list[dict[str, Any]], codes: Sequence[str]) -> float:
    """Return the largest ratio of a measure to its threshold, at most 10, and 10 for a symmetric net.

    Equal units stay equal whatever the other measures are, and a net with q = 0 may show nothing else.
    """
    if "symmetric" in codes:
        return _MOST
    hidden = [layer for layer in layers if layer["act"] is not None]
    seen = [layer for layer in hidden if layer["pre"]["q"] > 0.0]  # a branch that starts closed has q = 0
    shares = [
        -_log_growth([layer["pre"]["signal"] for layer in seen]),
        _log_growth([layer["pre"]["q"] for layer in seen]),
        abs(_log_growth([layer["grad"]["pre_q"] for layer in hidden if layer["grad"]["pre_q"]])),
    ]
    for layer in hidden:
        shares.append((layer["act"]["dead_fraction"] or 0.0) / 0.9)
        shares.append((layer["act"]["saturated_fraction"] or 0.0) / 0.5)
        if layer["units"] > 1 and layer["pre"]["q"] > 0.0:
            shares.append(ALIKE / max(layer["unit_spread"], ALIKE / _MOST))
    return min(_MOST, max((share for share in shares if not math.isnan(share)), default=_MOST))


def _log_growth(values: list[float | None]) -> float:
    """Return the log change of a value over all layers that the slope implies, in units of ln(1/FALL)."""
    numbers = finite_prefix(values)
    return log_slope(numbers) * (len(numbers) - 1) / -math.log(VANISHING_RATIO)


def measure(count: int) -> tuple[list[Case], list[str], LearningThreshold, float]:
    """Return all cases, the reasons of rejections, the learning threshold and the elapsed seconds."""
    source, start = DataSource(root=data_root(None), offline=True), time.perf_counter()
    cases: list[Case] = []
    refused: list[str] = []
    data: PreparedData | None = None
    for config in configs(count):
        if isinstance(config, str):
            refused.append(config)
            continue
        if data is None:
            data = preprocess(resolve_dataset(config.data, source), config.data, "cpu")
            batch, bar = fixed_sample(data.train, SAMPLES), LearningThreshold.for_split(data.val, STEPS)
        try:
            cases.append(_case(config, data, batch))
        except ConfigError as error:
            refused.append(str(error))
            continue
        print(f"{len(cases)} of {count}, {time.perf_counter() - start:.0f} s: {cases[-1]}", flush=True)
    return cases, refused, bar, time.perf_counter() - start


def _case(config: ExperimentConfig, data: PreparedData, batch: Split) -> Case:
    check_network(config, data, copies=2)  # some schemes need a norm or a shape that others do without
    with one_thread():
        codes, severity = judge(config, data, batch)
    (accuracy,) = train_variants([(config, SEED)], data, STEPS, lambda _nets: None)
    model, init = config.model, config.init
    return Case(
        parts={
            "family": model.family,
            "activation": model.activation.name,
            "norm": model.norm.name,
            "init": init.scheme.name,
            "optimizer": config.train.optimizer.name,
        },
        details={"gain": init.gain, "bias": init.bias, **init.scheme.model_dump(exclude={"name"})},
        depth=int(getattr(model, "depth", 0)),
        width=int(getattr(model, "width", 0)),
        codes=codes,
        severity=severity,
        accuracy=accuracy,
    )


def about(cases: list[Case], refused: list[str], bar: LearningThreshold, seconds: float) -> str:
    """Return the description of the study."""
    return f"""
{len(cases)} configs are drawn at random from the registries: families mlp, resnet_mlp and cnn as 11 : 7 : 2,
depth 2 to 60 (log-uniform; cnn 4 to 11), width 32 to 128 (cnn 8), every activation and init, a norm in 4 of
10, gains 0.5 to 2.5, a bias between −1 and 1 in 15 %; sgd at a rate of {RATES["sgd"]} or adam at
{RATES["adam"]}. {len(refused)} more were drawn and rejected as invalid. For each config, one net is
probed with {SAMPLES} samples and diagnosed as by `initbench probe`. The same net is then trained for
{bar.steps} updates with batches of 64 on scikit-learn's digits.

A net is *healthy* if it shows no finding that is a warning. It *learns* if it exceeds a validation accuracy
of {bar.accuracy:.3f} (chance is {bar.majority:.3f}), the threshold of `probe --map`, which was fixed
beforehand. A net that diverges does not learn. The study took {seconds / 60:.0f} minutes on two shared cores.
""".strip()


def main() -> None:
    """Measure and write the section of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 configs, and print instead of writing")
    quick = parser.parse_args().quick
    cases, refused, bar, seconds = measure(12 if quick else CONFIGS)
    text = report(cases, bar.accuracy, about(cases, refused, bar, seconds))
    if quick:
        print(text)
    else:
        write_section("probe predicts training", text)


if __name__ == "__main__":
    main()
