"""Compare the predictions of theory with measured nets.

python -m benchmarks.theory_agreement [--quick] writes a section of docs/results.md.

The study measures 16 nets of depth 20 and width 512 with standard normal inputs, for every pair of ten
activations and six inits. For each layer with a band,
z = (mean over the nets − prediction) / (predicted standard deviation / √nets). If the bands are right, z is
standard normal: a standard deviation above 1 means that the bands are too narrow, below 1 too wide.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, pstdev

from pydantic import ValidationError

from benchmarks.results_page import write_section, written_by
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import data_root, resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.diagnostics.net_source import ConfigNets
from initbench.diagnostics.survey import Survey, survey

ACTIVATIONS = (
    "relu leaky_relu tanh sigmoid gelu silu selu elu hard_tanh linear".split()  # noqa: SIM905
)
INITS = "lecun_normal xavier_normal kaiming_normal torch_default kaiming_misprint critical".split()  # noqa: SIM905
STATISTICS = ("log_q", "act_mean", "act_std", "grad_ratio")


@dataclass(frozen=True)
class Score:
    """The z score of one statistic of one layer."""

    statistic: str
    z: float


def config_of(activation: str, scheme: str, *, width: int) -> ExperimentConfig:
    """Return the experiment of a pair; raise ValidationError if the pair is invalid."""
    return ExperimentConfig.model_validate(
        {
            "name": f"{activation}-{scheme}",
            "seeds": 16,
            "data": {"name": "gaussian", "dim": 512, "samples": 1000},
            "model": {"family": "mlp", "depth": 20, "width": width, "activation": activation},
            "init": {"scheme": scheme},
            "probe": {"batch": 128},
        }
    )


def scores(found: Survey) -> Iterator[Score]:
    """Yield the z scores of all trusted layers."""
    nets = len(found.seeds)
    for layer, said in zip(found.layers, found.expected.layers, strict=True):
        if not said.trusted:
            continue
        for name in STATISTICS:
            values = [_value(net, name) for net in layer.measured]
            statistic = said.statistics.get(name)
            if name == "grad_ratio" and not said.backward_trusted:
                continue
            if statistic is None or statistic.sd == 0.0 or None in values:
                continue
            mean = fmean(value for value in values if value is not None)
            yield Score(name, (mean - statistic.value) / (statistic.sd / math.sqrt(nets)))


def _value(net: dict[str, float | None], name: str) -> float | None:
    if name != "log_q":
        return net[name]
    return math.log(net["q"]) if net["q"] else None


def _row(name: str, found: list[Score]) -> str:
    z = [score.z for score in found]
    if not z:
        return f"| {name} | 0 | – | – | – | – | – |"
    beyond = [sum(abs(value) > limit for value in z) / len(z) for limit in (2.0, 3.0)]
    worst = max(z, key=abs)
    shares = " | ".join(f"{100 * share:.1f} %" for share in beyond)
    return f"| {name} | {len(z):,} | {fmean(z):+.2f} | {pstdev(z):.2f} | {shares} | {worst:+.1f} |"


_HEADS = "| z | mean | sd | beyond 2 | beyond 3 | worst |\n|---|---|---|---|---|---|---|"


def section(by_pair: dict[str, list[Score]], refused: dict[str, str]) -> str:
    """Return the section of the page."""
    everything = [score for found in by_pair.values() for score in found]
    statistics = [_row(f"`{name}`", [s for s in everything if s.statistic == name]) for name in STATISTICS]
    pairs = [_row(name, found) for name, found in by_pair.items()]
    lines = [
        "## Theory against nets",
        "",
        written_by("theory_agreement"),
        "",
        str(__doc__).split("\n\n", 2)[2].strip(),
        "",
        "The layers of a net are not independent, so the z scores of a pair are strongly correlated: a pair"
        " is worth a few independent scores, not eighty. A standard normal |z| exceeds 2 in 4.6 % and 3 in"
        " 0.3 % of cases.",
        "",
        f"| statistic {_HEADS}",
        *statistics,
        _row("all", everything),
        "",
        "### Pairs",
        "",
        "This table combines all four statistics. Pairs have few z scores if their nets deviate too much for"
        " the leading order in 1/width, or exceed the range of float32.",
        "",
        f"| pair {_HEADS}",
        *pairs,
    ]
    if refused:
        lines += ["", "Skipped, because the init does not exist:", ""]
        lines += [f"- {name}: {reason}" for name, reason in refused.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all pairs and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="width 128, and print instead of writing")
    quick = parser.parse_args().quick
    source = DataSource(root=data_root(None), offline=True)
    by_pair: dict[str, list[Score]] = {}
    refused: dict[str, str] = {}
    for activation in ACTIVATIONS:
        for scheme in INITS:
            name = f"{activation} · {scheme}"
            try:
                config = config_of(activation, scheme, width=128 if quick else 512)
            except ValidationError as error:
                refused[name] = error.errors()[0]["msg"]
                continue
            data = preprocess(resolve_dataset(config.data, source), config.data, "cpu")
            by_pair[name] = list(scores(survey(ConfigNets(config, data))))
            print(_row(name, by_pair[name]), flush=True)
    text = section(by_pair, refused)
    if quick:
        print(text)
    else:
        write_section("theory agreement", text)


if __name__ == "__main__":
    main()
