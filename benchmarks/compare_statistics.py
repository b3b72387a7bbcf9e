"""Check the coverage, error rates and power of the statistics of `initbench compare`.

python -m benchmarks.compare_statistics [--quick] writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy

from benchmarks.results_page import write_section
from benchmarks.simulated_arms import CORRELATION, LAWS, NORMAL, Arm, Law, experiments
from docs.generators.markdown import page, table
from initbench.analysis.stats.confidence_intervals import Interval, mean_interval
from initbench.analysis.stats.confidence_sequences import mean_sequence
from initbench.analysis.stats.mean_difference import compare_means
from initbench.analysis.stats.multiple_comparisons import holm
from initbench.analysis.stats.paired_samples import align_samples
from initbench.analysis.stats.power import MAX_SEEDS, seeds_needed, t_power
from initbench.study.stopping_rule import DEFAULT_MAX_SEEDS, next_count

SEEDS = (3, 5, 10, 20)
ARMS = 10
LEVEL = 0.05
POWER_SEEDS = (3, 5, 10, 17, 20)
EFFECTS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""True differences, in standard deviations of the difference of a pair."""


def rounds() -> list[int]:
    """Return the numbers of seeds at which `sweep --until` looks at the results, from three seeds on."""
    counts = [3]
    while counts[-1] < DEFAULT_MAX_SEEDS:
        counts.append(next_count(counts[-1], DEFAULT_MAX_SEEDS))
    return counts


@dataclass(frozen=True)
class Share:
    """A share of replications in which an event occurred."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    def __str__(self) -> str:
        error = math.sqrt(self.value * (1.0 - self.value) / self.n)
        return f"{100.0 * self.value:.1f} ± {100.0 * error:.1f} %"


def coverage(law: Law, n: int, replications: int, kind: str) -> Share:
    """Estimate how often the interval of a mean, a Welch or a paired difference covers the true value."""
    found = [_of(kind, law, arms) for arms in _two_arms(law, n, replications, shared=kind == "paired")]
    there = [own for own in found if own is not None]
    truth = law.first.mean if kind == "mean" else law.difference
    return Share(sum(own.contains(truth) for own in there), len(there))


def _two_arms(law: Law, n: int, replications: int, *, shared: bool) -> list[list[Arm]]:
    kinds = [law.first, law.second]
    seed = [n, LAWS.index(law), shared]
    return list(experiments(kinds, n, replications, shared=shared, diverging=law.diverging, seed=seed))


def _of(kind: str, law: Law, arms: list[Arm]) -> Interval | None:
    if kind == "mean":
        return mean_interval(list(arms[0].values()), scale=law.scale)
    return compare_means(*arms, paired=kind == "paired", scale=law.scale).interval


def family_errors(law: Law, n: int, replications: int, *, paired: bool) -> tuple[Share, Share]:
    """Estimate how often any pair of equal arms is called different, with Holm's adjustment and without."""
    adjusted = unadjusted = 0
    seed = [n, LAWS.index(law), paired, ARMS]
    equal = [law.first] * ARMS
    for arms in experiments(equal, n, replications, shared=paired, diverging=law.diverging, seed=seed):
        tests = [compare_means(a, b, paired=paired, scale=law.scale).p for a, b in combinations(arms, 2)]
        unadjusted += any(p is not None and p < LEVEL for p in tests)
        adjusted += any(p is not None and p < LEVEL for p in holm(tests))
    return Share(adjusted, replications), Share(unadjusted, replications)


def power(n: int, replications: int, *, paired: bool) -> tuple[Share, float]:
    """Estimate and predict the power for a difference of one standard deviation between normal arms."""
    kinds = [NORMAL.first, NORMAL.first]
    hits = 0
    for a, b in experiments(kinds, n, replications, shared=paired, diverging=0.0, seed=[n, paired, 1]):
        moved = {seed: None if value is None else value + 1.0 for seed, value in a.items()}
        p = compare_means(moved, b, paired=paired).p
        hits += p is not None and p < LEVEL
    spread = math.sqrt(2.0 * (1.0 - CORRELATION) if paired else 2.0)
    df = n - 1.0 if paired else 2.0 * n - 2.0
    return Share(hits, replications), t_power(math.sqrt(n) / spread, df, 1.0 - LEVEL)


@dataclass(frozen=True)
class RunningCoverage:
    """Shares of replications in which the intervals of all rounds of `sweep --until` cover the true value."""

    always_valid: Share
    fixed: Share
    """The same for Student's interval, which is valid at one number of seeds."""
    fixed_at_end: Share
    """Coverage of Student's interval after the last round alone."""


def running_coverage(law: Law, replications: int, kind: str) -> RunningCoverage:
    """Estimate how often all intervals of a mean, or of a paired difference, cover the true value."""
    arms = _two_arms(law, DEFAULT_MAX_SEEDS, replications, shared=kind == "paired")
    truth = _on_linear_scale(law.first.mean if kind == "mean" else law.difference, law)
    hits = [0, 0, 0]
    for pair in arms:
        always, fixed = True, [True]
        for n in rounds():
            values = _first_values(pair, n, law, kind)
            sequence, interval = mean_sequence(values), mean_interval(values)
            always = always and (sequence is None or sequence.contains(truth))
            fixed.append(interval is None or interval.contains(truth))
        hits = [hits[0] + always, hits[1] + all(fixed), hits[2] + fixed[-1]]
    return RunningCoverage(*(Share(count, replications) for count in hits))


def _first_values(pair: list[Arm], n: int, law: Law, kind: str) -> list[float]:
    """Return what is averaged after a round: values of the first arm, or differences of pairs."""
    first, second = ({seed: value for seed, value in arm.items() if seed < n} for arm in pair)
    if kind == "mean":
        return [_on_linear_scale(value, law) for value in first.values() if value is not None]
    samples = align_samples(first, second, True, law.scale)
    return [a - b for a, b in zip(samples.left, samples.right, strict=True)] if samples.are_pairs else []


def _on_linear_scale(value: float, law: Law) -> float:
    return math.log(value) if law.scale == "log" else value


def seeds_until_decided(effect: float, replications: int) -> tuple[Share, float]:
    """Estimate how often a difference is decided within the maximum, and the mean number of seeds."""
    stream = np.random.default_rng([int(10 * effect), 3])
    decided = 0
    seeds = []
    for differences in stream.normal(effect, 1.0, size=(replications, DEFAULT_MAX_SEEDS)).tolist():
        for n in rounds():
            interval = mean_sequence(differences[:n])
            if interval is not None and not interval.contains(0.0):
                decided += 1
                break
        seeds.append(n)
    return Share(decided, replications), float(np.mean(seeds))


def estimates_of_seeds(n: int, replications: int) -> list[int]:
    """Return the 10 %, 50 % and 90 % quantiles of `seeds_needed`, where 17 is right, from n seeds a side."""
    kinds = [NORMAL.first, NORMAL.first]
    found = []
    for a, b in experiments(kinds, n, replications, shared=False, diverging=0.0, seed=[n, 2]):
        moved = {seed: None if value is None else value + 1.0 for seed, value in a.items()}
        needed = seeds_needed(moved, b)
        assert needed is not None
        found.append(MAX_SEEDS + 1 if needed.more else needed.seeds)
    return [int(q) for q in np.quantile(found, (0.1, 0.5, 0.9), method="nearest")]


def section(replications: int, families: int) -> str:
    """Return the section of the page."""
    return page(
        "## The statistics of `compare` on simulated runs",
        f"Written by `python -m benchmarks.compare_statistics` with scipy {scipy.__version__}.",
        "Simulated runs with known true values are analysed with the functions that `initbench compare`"
        " calls. Shares are given with their binomial standard errors. The confidence level is 95 %. If seeds"
        " are shared, the normal random numbers of two runs with the same seed have the correlation"
        f" {CORRELATION}.",
        "\n".join(f"- **{law.name}**: {law.about}" for law in LAWS),
        "### Coverage of 95 % intervals",
        f"Each cell has {replications:,} replications. The mean is the mean of the first arm, and the"
        " differences are between the two arms. If runs diverge, cases without an interval (fewer than two"
        " values) are skipped.",
        _coverages(replications),
        "Student's t is exact for the normal distribution, and Welch's t is nearly exact. For skewed"
        " distributions the coverage is below 95 %, because a few seeds do not show a long tail, and no"
        " interval can compensate for that. Compare ratios of positive quantities on the log scale.",
        f"### False alarms among {ARMS} equal arms",
        f"Share of replications in which at least one of the {math.comb(ARMS, 2)} pairs of {ARMS} arms of the"
        f" first kind is called different, for {families:,} replications in each cell. With Holm's adjustment"
        " the share must be 5 % or less.",
        _families(families),
        "### Power for a difference of one standard deviation",
        f"Two normal arms with equal spread, {replications:,} replications in each cell. `seeds needed` is"
        " computed from the noncentral t; the power of Welch's test is lower for fewer than about five"
        " seeds.",
        _powers(replications),
        "### Seeds needed, estimated from few seeds",
        "For the same two arms, unpaired, 17 seeds per arm give 80 % power. The table shows the values of"
        f" `seeds needed` estimated from n seeds per arm, in {families:,} replications.",
        _estimates(families),
        "### Intervals that are looked at while seeds are added",
        f"`sweep --until` looks at the results after {', '.join(map(str, rounds()))} seeds. The table shows"
        " how often the intervals of **all** these rounds cover the true value, in"
        f" {replications:,} replications: `always-valid` with the confidence sequence that `--until` uses,"
        " `Student` with the t interval of"
        " `compare`. The last column is the coverage of the t interval after the last round alone.",
        _running_coverages(replications),
        "The confidence sequence is valid for normal values, with at least 95 % for any number of rounds."
        " Skewed values lose coverage for the same reason as in the first table.",
        "The number of seeds until `A > B` is decided, for normal differences of pairs with a true mean of"
        f" `effect` standard deviations, in {replications:,} replications. At an effect of 0 every decision"
        " is an error.",
        _stops(replications),
    )


def _running_coverages(replications: int) -> str:
    rows = []
    for law in LAWS:
        for kind in ("mean", "paired"):
            shares = running_coverage(law, replications, kind)
            rows.append(_progress([law.name, kind, shares.always_valid, shares.fixed, shares.fixed_at_end]))
    return table(["law", "interval", "always-valid", "Student", "Student, last round"], rows)


def _stops(replications: int) -> str:
    rows = []
    for effect in EFFECTS:
        decided, seeds = seeds_until_decided(effect, replications)
        rows.append(_progress([f"{effect:g}", decided, f"{seeds:.1f}"]))
    return table(["effect", "decided", f"mean number of seeds (at most {DEFAULT_MAX_SEEDS})"], rows)


def _progress(row: list[object]) -> list[object]:
    print(*row, sep="  ", file=sys.stderr, flush=True)
    return row


def _coverages(replications: int) -> str:
    kinds = ("mean", "Welch", "paired")
    rows = [
        _progress([law.name, n, *(coverage(law, n, replications, kind) for kind in kinds)])
        for law in LAWS
        for n in SEEDS
    ]
    return table(["law", "n", "mean", "difference, Welch", "difference, paired"], rows)


def _families(replications: int) -> str:
    rows = []
    for law in LAWS[:4]:
        for n in SEEDS:
            both = [family_errors(law, n, replications, paired=paired) for paired in (False, True)]
            rows.append(_progress([law.name, n, *(share for pair in both for share in pair)]))
    heads = ["Welch, Holm", "Welch, unadjusted", "paired, Holm", "paired, unadjusted"]
    return table(["law", "n", *heads], rows)


def _powers(replications: int) -> str:
    rows = []
    for n in POWER_SEEDS:
        (welch, said), (paired, also) = (power(n, replications, paired=p) for p in (False, True))
        rows.append(_progress([n, welch, f"{100 * said:.1f} %", paired, f"{100 * also:.1f} %"]))
    return table(["n", "Welch", "noncentral t", "paired", "noncentral t"], rows)


def _estimates(replications: int) -> str:
    def shown(seeds: int) -> str:
        return f"> {MAX_SEEDS}" if seeds > MAX_SEEDS else str(seeds)

    rows = [_progress([n, *map(shown, estimates_of_seeds(n, replications))]) for n in SEEDS]
    return table(["from n", "10 % say fewer than", "median", "10 % say more than"], rows)


def main() -> None:
    """Simulate and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few replications, and print instead of writing")
    quick = parser.parse_args().quick
    text = section(500, 100) if quick else section(20_000, 4_000)
    if quick:
        print(text)
    else:
        write_section("statistics of compare", text)


if __name__ == "__main__":
    main()
