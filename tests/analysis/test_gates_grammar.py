"""Parsing of gates to trees, printing of trees, and error messages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initbench.analysis.gates import expression
from initbench.analysis.gates.expression import GateNode
from initbench.analysis.gates.parser import ALIASES, DEEPEST, LONGEST, parse_gate
from initbench.analysis.metrics import METRICS
from initbench.errors import UsageError
from initbench.store.packed_numbers import LAYER_STATISTICS
from initbench.store.summary_file import PROBED

EVERY = expression.RowName(None)


def metric(name: str, row: str | None = None, *, earlier: bool = False) -> expression.MetricValue:
    return expression.MetricValue(expression.RowName(row, earlier), name)


def test_a_metric_of_every_row():
    found = expression.Comparison(metric("final_val_accuracy"), "<", expression.Number(0.95))
    assert parse_gate("final_val_accuracy < 0.95") == found
    assert parse_gate("final_val_accuracy<95%") == found
    assert parse_gate("  final_val_accuracy\n<\t95 %") == found


def test_two_rows():
    found = parse_gate("relu_kaiming.final_val_accuracy <= relu_xavier.final_val_accuracy")
    sides = metric("final_val_accuracy", "relu_kaiming"), metric("final_val_accuracy", "relu_xavier")
    assert found == expression.Comparison(sides[0], "<=", sides[1])


def test_a_layer():
    row = expression.RowName("relu_misprint")
    found = parse_gate("relu_misprint.layer[-1].act_std@init > 10")
    assert found == expression.Comparison(
        expression.LayerStatistic(row, -1, "act_std", "init"), ">", expression.Number(10.0)
    )
    assert parse_gate("relu_misprint.layer[ −1 ].std@init > 10") == found


@pytest.mark.parametrize(
    ("text", "row", "earlier"),
    [
        ("a.test_accuracy", "a", False),
        ("a-b.c-2.d.test_accuracy", "a-b.c-2.d", False),
        ("größe_2.test_accuracy", "größe_2", False),
        ('"my-exp v2".test_accuracy', "my-exp v2", False),
        ("'2 layers'.test_accuracy", "2 layers", False),
        (r'"a\"b\\c".test_accuracy', 'a"b\\c', False),
        ('"a.b" . test_accuracy', "a.b", False),
        ("before.a.test_accuracy", "a", True),
        ("before.test_accuracy", None, True),
        ('before."a b".test_accuracy', "a b", True),
        ('"before".test_accuracy', "before", False),
        ("or.test_accuracy", "or", False),
        ("orderly.test_accuracy", "orderly", False),
        ("layer.test_accuracy", "layer", False),
        ("abs.mean.test_accuracy", "abs.mean", False),
    ],
)
def test_names_of_rows(text: str, row: str | None, earlier: bool):
    assert parse_gate(f"{text} < 1").children[0] == metric("test_accuracy", row, earlier=earlier)


@pytest.mark.parametrize("alias", ALIASES)
def test_short_names_of_statistics(alias: str):
    assert parse_gate(f"slope({alias}@end) < 1") == parse_gate(f"slope({ALIASES[alias]}@end) < 1")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("1 - 2 - 3", "(1 - 2) - 3"),
        ("1 - 2 * 3", "1 - (2 * 3)"),
        ("8 / 4 / 2", "(8 / 4) / 2"),
        ("-1 * 2", "(-1) * 2"),
        ("2 × 3 ÷ 4 − 1", "2 * 3 / 4 - 1"),
        ("- -1", "-(-1)"),
        ("1-0.5", "1 - 0.5"),
    ],
)
def test_precedence(text: str, same: str):
    assert parse_gate(f"test_accuracy < {text}") == parse_gate(f"test_accuracy < {same}")


def test_a_minus_without_blanks_before_a_number():
    assert parse_gate("a.test_accuracy-0.01 < 1") == parse_gate("a.test_accuracy - 0.01 < 1")


def test_a_chain_is_every_link():
    found = parse_gate("0.8 < test_accuracy <= 1.2")
    left = expression.Comparison(expression.Number(0.8), "<", metric("test_accuracy"))
    right = expression.Comparison(metric("test_accuracy"), "<=", expression.Number(1.2))
    assert found == expression.And((left, right))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("final_val_accuracy < 95", "column 20: final_val_accuracy is a share from 0 to 1: write 95 %"),
        ("20 > divergence_rate", "column 4: divergence_rate is a share from 0 to 1: write 20 %"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str):
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_gate(text)
    parse_gate("final_train_loss < 95")


def test_near():
    found = expression.Approx(metric("test_accuracy", "a"), metric("test_accuracy", "b"), 0.01)
    assert parse_gate("a.test_accuracy ≈ b.test_accuracy within 1 %") == found
    assert parse_gate("a.test_accuracy ~= b.test_accuracy within 0.01") == found


def test_and_binds_tighter_than_or_and_not_tightest():
    a, b, c = (f"test_accuracy < {i}" for i in range(3))
    assert parse_gate(f"{a} or {b} and {c}") == parse_gate(f"{a} or ({b} and {c})")
    assert parse_gate(f"not {a} and {b}") == parse_gate(f"(not {a}) and {b}")
    assert parse_gate(f"(({a}))") == parse_gate(a)
    assert parse_gate("not ((test_accuracy) < 1)") == expression.Not(parse_gate("test_accuracy < 1"))


def test_aggregates_steps_and_slopes():
    inner = expression.Binary("*", metric("test_accuracy"), expression.Number(2.0))
    assert parse_gate("min(test_accuracy * 2) < 1").children[0] == expression.Aggregate(inner, "min")
    assert parse_gate("a.steps_to(90 %) > 5").children[0] == expression.StepsTo(expression.RowName("a"), 0.9)
    assert parse_gate("abs(slope(q@init)) > 5").children[0] == expression.Function(
        expression.LayerAggregate(EVERY, "slope", "q", "init"), "abs"
    )


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("final_val_acuracy < 1", 1, "did you mean 'final_val_accuracy'?"),
        ("a.final_val_acuracy < 1", 3, "unknown metric 'final_val_acuracy'"),
        ("zzz < 1", 1, "docs/ci.md lists all metrics"),
        ("test_accuracy = 1", 15, "write == for equality"),
        ("test_accuracy < 1 & 2", 19, "write `and`"),
        ("test_accuracy <", 16, "expected a number, a metric (or row.metric) or '(', got the end"),
        ("test_accuracy", 14, "expected one of < <= > >= == !="),
        ("test_accuracy < 1 )", 19, "expected the end, got ')'"),
        ("(test_accuracy < 1", 19, "expected ')', got the end"),
        ("", 1, "got the end"),
        ("test_accuracy < §", 17, "unexpected character '§'"),
        ("1 < 2", 3, "name a metric"),
        ("layer[0].std@init > 1", 7, "there is no layer 0"),
        ("layer[1].stdd@init > 1", 10, "did you mean 'std'?"),
        ("layer[1].std@strt > 1", 14, "unknown moment 'strt'"),
        ("layer[1].std > 1", 14, "expected @, got '>'"),
        ("std > 1", 1, "layer[-1].std@init"),
        ("'abc < 1", 1, "closing quote is missing"),
        ("'a'.b.test_accuracy < 1", 5, "the row is already given as 'a'"),
        ("divergence_rate + 1 > 2", 1, "must be alone on its side"),
        ("divergence_rate > test_accuracy", 1, "with a constant or another rate"),
        ("a.divergence_rate ≈ b.divergence_rate within 1", 1, "≈ cannot compare two divergence rates"),
        ("min(a.test_accuracy - b.test_accuracy) > 0", 1, "of one row"),
        ("test_accuracy < min(max(test_accuracy))", 17, "cannot be applied to a mean, min or max"),
        ("min(1) < test_accuracy", 1, "of one row"),
        ("layer[1].q@train > 1", 12, "q is measured at init or end, not at train"),
        ("slope(gradient_shift@end) > 1", 22, "gradient_shift is measured at train, not at end"),
        ("input_mean_drift < 1", 1, "layer[-1].input_mean_drift@train"),
        ("steps_to(0) > 1", 10, "above 0 and up to 1"),
        ("steps_to(2) > 1", 10, "above 0 and up to 1"),
        ("test_accuracy < 1e999", 17, "too large"),
        ("test_accuracy ≈ 1 within test_accuracy", 26, "expected a number"),
        ("-" * (DEEPEST + 1) + "test_accuracy < 1", 1, "deep"),
    ],
)
def test_mistakes_name_their_column(text: str, column: int, problem: str):
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    first, _, pointer = str(caught.value).splitlines()
    assert first.startswith(f"--fail-if: column {column}: ")
    assert problem in first
    assert pointer == " " * (column + 1) + "^"


def test_a_long_gate_is_cut_around_the_column():
    with pytest.raises(UsageError) as caught:
        parse_gate(" + ".join(["test_accuracy"] * 50) + " § 1 < 2" + " " * 200)
    _, line, pointer = str(caught.value).splitlines()
    assert len(line) < 110 and line[len(pointer) - 1] == "§"


def test_a_gate_has_an_end():
    with pytest.raises(UsageError, match=f"at most {LONGEST} characters"):
        parse_gate("test_accuracy < 1" + " " * LONGEST)


numbers = st.floats(0.0, 1e300).map(expression.Number)
rows = st.builds(expression.RowName, st.none() | st.text(max_size=12), st.booleans())
statistics, moments = st.sampled_from(LAYER_STATISTICS), st.sampled_from(PROBED)
layers = st.integers(-999, 999).filter(bool)
quantities = st.one_of(
    st.builds(expression.MetricValue, rows, st.sampled_from(list(METRICS))),
    st.builds(expression.LayerStatistic, rows, layers, statistics, moments),
    st.builds(
        expression.LayerAggregate,
        rows,
        st.sampled_from(["slope", "max_layer", "min_layer"]),
        statistics,
        moments,
    ),
    st.builds(expression.StepsTo, rows, st.floats(1e-9, 1.0)),
)
kinds = st.sampled_from(["mean", "min", "max"])
expressions = st.recursive(
    quantities | numbers | st.builds(expression.Aggregate, quantities, kinds),
    lambda inner: st.one_of(
        st.builds(expression.Binary, st.sampled_from("+-*/"), inner, inner),
        st.builds(expression.Negation, inner),
        st.builds(expression.Function, inner, st.sampled_from(["abs", "exp", "ln"])),
    ),
    max_leaves=8,
)
relations = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
comparisons = st.one_of(
    st.builds(expression.Comparison, expressions, relations, expressions),
    st.builds(expression.Approx, expressions, expressions, st.floats(0.0, 1e300)),
).filter(lambda node: node.quantities)
several = st.lists(comparisons, min_size=2, max_size=3).map(tuple)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(expression.Not, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda nodes: expression.And(tuple(nodes))),
        st.lists(inner, min_size=2, max_size=3).map(lambda nodes: expression.Or(tuple(nodes))),
    ),
    max_leaves=4,
)


@given(conditions.filter(lambda node: node.depth < DEEPEST and len(str(node)) < LONGEST))
@settings(deadline=None)
def test_what_is_printed_is_read_as_the_same(condition: GateNode):
    assert parse_gate(str(condition)) == condition


PIECES = [
    "test_accuracy",
    "a.",
    "<",
    "≈",
    "within",
    " ",
    "(",
    ")",
    "-",
    "0.1",
    "%",
    "layer",
    "[",
    "]",
    "@init",
]
PIECES += [
    "and",
    "or",
    "not",
    "abs",
    "slope",
    "before.",
    '"',
    "'",
    "\\",
    "\x00",
    "\ud800",
    "steps_to",
    ".",
    "1e9",
]
PIECES += ["divergence_rate", "mean", "std", "/", "==", "\n", "é", "²", "٣"]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=60))
@settings(deadline=None, max_examples=300)
def test_junk_is_a_usage_error(text: str):
    try:
        assert isinstance(parse_gate(text), GateNode)
    except UsageError as error:
        assert str(error).startswith("--fail-if: ")
