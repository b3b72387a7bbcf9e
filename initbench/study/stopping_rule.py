"""Seeds as needed: train a sweep in rounds of more seeds until a condition is decided.

The condition is judged after each round, so its intervals are those of confidence sequences, which hold
however often one looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from initbench.analysis.gates.evaluate import Gate, GateCase, GateResult, GateState, evaluate_gates
from initbench.analysis.gates.expression import Aggregate, Approx, Comparison, MetricValue
from initbench.analysis.gates.parser import parse_gate, with_caret
from initbench.analysis.metrics import METRICS
from initbench.config.study import Sweep, Variant
from initbench.errors import UsageError
from initbench.runner.plan import RunContext
from initbench.runner.runner import dependency_in
from initbench.study.run_study import SweepResult, Train, load_stored_study, run_study
from initbench.study.validate import Arms, quantity_issue

UNTIL, MAX_SEEDS = "--until", "--max-seeds"
DEFAULT_MAX_SEEDS = 40
CONFIDENCE = 0.95
_GROWTH = 3
"""Each round adds one seed for every `_GROWTH` seeds, and at least two."""


@dataclass(frozen=True)
class StoppingRule:
    """A condition that ends the training of more seeds as soon as it is decided."""

    gate: Gate
    rows: tuple[str, ...]
    """Labels of the rows that the condition is evaluated for: all rows, or those that it names."""
    max_seeds: int

    @property
    def named(self) -> list[str]:
        """Labels of the rows that the condition names."""
        return list(dict.fromkeys(q.row.name for q in self.gate.quantities if q.row.name is not None))

    @property
    def comparisons(self) -> int:
        """Number of intervals that are computed: comparisons of the condition, for each of its cases."""
        nodes = sum(isinstance(node, Comparison | Approx) for node in self.gate.condition.walk())
        is_for_each_row = any(quantity.row.name is None for quantity in self.gate.quantities)
        return nodes * (len(set(self.rows) - set(self.named)) if is_for_each_row else 1)

    @property
    def confidence(self) -> float:
        """Confidence of each interval, by Bonferroni: all of them hold at once with CONFIDENCE."""
        return 1.0 - (1.0 - CONFIDENCE) / self.comparisons

    def evaluate(self, result: SweepResult) -> GateResult:
        """Evaluate the condition on the stored runs."""
        (judgement,) = evaluate_gates([self.gate], [result.table], self.confidence, always_valid=True)
        return judgement

    def rows_of_case(self, case: GateCase) -> set[str]:
        """Return the labels of the rows whose runs decide a case."""
        return {*self.named, *([case.label] if case.label else [])}


def read_stopping_rule(text: str, sweep: Sweep, max_seeds: int | None) -> StoppingRule:
    """Parse the condition of `--until`.

    Raises:
        UsageError: The condition is invalid, names an unknown row, or has no interval that is valid at any
            number of seeds, or the sweep has tuning or more seeds than `max_seeds`.
    """
    most = DEFAULT_MAX_SEEDS if max_seeds is None else max_seeds
    condition = parse_gate(text, UNTIL)
    labels = [variant.row for variant in sweep.variants]
    configs = {variant.row: variant.config for variant in sweep.variants}
    for column, problem in _issues(Gate(text, condition, UNTIL), configs):
        raise UsageError(f"{UNTIL}: {with_caret(text, column, problem)}")
    if sweep.tune is not None:
        raise UsageError(f"{UNTIL} cannot be combined with tune, which uses the seeds after those of a point")
    names = {quantity.row.name for quantity in condition.quantities}
    rows = labels if None in names else [label for label in labels if label in names]
    begin = max(len(variant.config.seed_list) for variant in sweep.variants if variant.row in rows)
    if most < begin:
        raise UsageError(
            f"{MAX_SEEDS} {most} is less than the {begin} seeds of the first round (seeds={begin})"
        )
    rule = StoppingRule(Gate(text, condition, UNTIL), tuple(rows), most)
    if not rule.comparisons:
        raise UsageError(f"{UNTIL}: there is no other row to compare with")
    return rule


def _issues(gate: Gate, rows: Arms) -> Iterator[tuple[int, str]]:
    """Yield columns and descriptions of what cannot be judged while seeds are added."""
    for node in gate.condition.walk():
        if isinstance(node, Aggregate):
            problem = f"{node.kind}() is a number of the stored runs without an interval: leave it out"
            yield node.column, problem
    for quantity in gate.quantities:
        unfit = quantity_issue(quantity, "row", rows)
        if unfit is None and isinstance(quantity, MetricValue) and not quantity.is_rate:
            metric = METRICS[quantity.metric]
            if metric.has_shared_measurement:
                unfit = f"{metric.name} is measured for several runs at once, so seeds are not independent"
            elif metric.censored:
                unfit = f"the target of {metric.name} changes with the runs: write steps_to(0.9), for example"
        if unfit is not None:
            yield quantity.column, unfit


Report = Callable[[GateResult, int, Sweep], None]
"""Function that receives the result of a round, the number of seeds of the next round, and its new runs."""


def run_until_decided(
    sweep: Sweep, context: RunContext, train: Train, rule: StoppingRule, report: Report
) -> tuple[SweepResult, GateResult]:
    """Train the seeds of the sweep, and then more until the rule is decided.

    Only undecided rows get more seeds. Training also stops at `max_seeds`, or if runs are left unfinished
    because the limits of `train` are reached; the rule is then undecided, because the runs that finish first
    are not a random choice. Raises the errors of `run_study`.

    Returns:
        All runs of the sweep, and the result of the rule.
    """
    count = max(len(variant.config.seed_list) for variant in sweep.variants if variant.row in rule.rows)
    added = sweep
    while True:
        run_study(added, context, train)
        result = load_stored_study(sweep, context)
        if result.unfinished:
            return result, GateResult(rule.gate, [], ["not all runs of this round have been trained"])
        judgement = rule.evaluate(result)
        rows = _undecided_rows(rule, judgement, sweep.variants)
        if not rows or count >= rule.max_seeds:
            return result, judgement
        count = next_count(count, rule.max_seeds)
        extended = {
            variant.row: _with_seeds_up_to(variant, count)
            for variant in sweep.variants
            if variant.row in rows
        }
        added = sweep.part(tuple(filter(None, (_new_seeds(v, extended) for v in sweep.variants))))
        sweep = sweep.part(tuple(extended.get(variant.row, variant) for variant in sweep.variants))
        report(judgement, count, added)


def next_count(count: int, max_seeds: int) -> int:
    """Return the number of seeds of the round after one with `count` seeds."""
    return min(max_seeds, count + max(2, count // _GROWTH))


def _undecided_rows(rule: StoppingRule, judgement: GateResult, variants: Sequence[Variant]) -> list[str]:
    """Return the labels of undecided rows, and of the rows whose weights their nets start from."""
    rows = {row for case in judgement.undecided for row in rule.rows_of_case(case)}
    label_of = {variant.config.name: variant.row for variant in variants}
    waiting = list(rows)
    while waiting:
        label = waiting.pop()
        (config,) = (variant.config for variant in variants if variant.row == label)
        source = dependency_in(config, set(label_of))
        if source is not None and label_of[source] not in rows:
            rows.add(label_of[source])
            waiting.append(label_of[source])
    return [variant.row for variant in variants if variant.row in rows]


def _with_seeds_up_to(variant: Variant, count: int) -> Variant:
    """Return a variant with `count` seeds: its own, followed by the numbers after the largest of them."""
    seeds = variant.config.seed_list
    first = max(seeds) + 1
    new = range(first, first + count - len(seeds))
    return replace(variant, config=variant.config.with_seeds(*seeds, *new))


def _new_seeds(variant: Variant, extended: Mapping[str, Variant]) -> Variant | None:
    """Return a variant with only the seeds that `extended` adds to it, None if there are none."""
    if variant.row not in extended:
        return None
    seeds = extended[variant.row].config.seed_list[len(variant.config.seed_list) :]
    return replace(variant, config=variant.config.with_seeds(*seeds)) if seeds else None


def holds(judgement: GateResult) -> bool | None:
    """Return whether the condition holds in every case, or None if that is undecided."""
    states = {case.state for case in judgement.cases}
    if GateState.CLEAR in states:
        return False
    return True if states == {GateState.TRIGGERED} else None
