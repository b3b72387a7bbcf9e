"""The JSON documents against the contract, written out here as JSON Schemas."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from synthetic import COMPARED, EXPERIMENTS, run

from initbench.analysis.run_summary import summarise_run
from initbench.analysis.tables import build_tables
from initbench.render.run_documents import compare_document, runs_document
from initbench.store import strict_json

NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}


def exactly(**properties: Any) -> dict[str, Any]:
    """An object that has all of these keys; later versions may add others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": least}


COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}
HISTOGRAM = exactly(edges=listed(NUMBER, 2), counts=listed(COUNT, 1))
ACT = exactly(
    mean=NUMBER,
    std=NUMBER,
    zero_fraction=or_null(NUMBER),
    dead_fraction=or_null(NUMBER),
    saturated_fraction=or_null(NUMBER),
    histogram=HISTOGRAM,
)
LAYER = exactly(
    index={"type": "integer", "minimum": 1},
    name=TEXT,
    pre=exactly(mean=NUMBER, std=NUMBER, q=NUMBER),
    act=or_null(ACT),
    grad=exactly(pre_q=NUMBER, weight_norm=NUMBER),
)
FINAL = exactly(train_loss=NUMBER, val_loss=NUMBER, val_accuracy=NUMBER, test_accuracy=NUMBER)
RUN = {
    **exactly(
        run_id=TEXT,
        seed=COUNT,
        status={"enum": ["finished", "diverged", "failed", "interrupted", "crashed", "running"]},
        final=or_null(FINAL),
        convergence=listed(
            exactly(step=COUNT, epoch=NUMBER, train_loss=NUMBER, val_loss=NUMBER, val_accuracy=NUMBER)
        ),
        snapshots=listed(
            exactly(when={"enum": ["init", "train", "end"]}, step=COUNT, layers=listed(LAYER, 1))
        ),
        diagnosis=listed(
            exactly(
                code=TEXT,
                layer=or_null(COUNT),
                value=NUMBER,
                threshold=or_null({"type": "number"}),
                message=TEXT,
            )
        ),
    ),
    "if": {"properties": {"status": {"const": "finished"}}},
    "then": {"properties": {"final": FINAL}},
    "else": {"properties": {"final": {"type": "null"}}},
}
RUN_DOCUMENT = exactly(
    schema={"const": "initbench.run/1"},
    experiment=TEXT,
    dataset=TEXT,
    dataset_requested=TEXT,
    device=TEXT,
    runs=listed(RUN, 1),
)
SUMMARY = {
    **exactly(mean=or_null(NUMBER), std=or_null(NUMBER)),
    "if": {"properties": {"mean": {"type": "null"}}},
    "then": {"properties": {"std": {"type": "null"}}},
}
METRICS = (
    "act_std_init_first",
    "act_std_init_middle",
    "act_std_init_last",
    "grad_ratio_init",
    "best_val_accuracy",
    "final_val_accuracy",
    "test_accuracy",
    "steps_to_target",
)
COMPARE_DOCUMENT = exactly(
    schema={"const": "initbench.compare/1"},
    tables=listed(
        exactly(
            dataset=TEXT,
            fingerprint=or_null(TEXT),
            rows=listed(
                {
                    **exactly(
                        key=exactly(experiment=TEXT),
                        n=COUNT,
                        diverged=COUNT,
                        metrics=exactly(**dict.fromkeys(METRICS, SUMMARY)),
                    ),
                    "if": {"properties": {"n": {"const": 1}}},
                    "then": {
                        "properties": {
                            "metrics": {"additionalProperties": {"properties": {"std": {"type": "null"}}}}
                        }
                    },
                },
                1,
            ),
        )
    ),
)


def strict(document: Any) -> Any:
    """Through strict JSON and back, as any parser reads it."""

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(strict_json.dumps(document), parse_constant=refuse)


def check(document: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_a_run_document_keeps_the_contract(name: str) -> None:
    document = strict(runs_document(EXPERIMENTS[name]))
    check(document, RUN_DOCUMENT)
    assert len(document["runs"]) == len(EXPERIMENTS[name])


@pytest.mark.parametrize("status", ["running", "interrupted", "crashed", "failed"])
def test_unfinished_runs_keep_it_too(status: str) -> None:
    stored = run(status=status)
    for key in ("final", "diagnosis", "error"):
        stored.record.pop(key)
    check(strict(runs_document([stored])), RUN_DOCUMENT)


def test_numbers_that_are_not_finite_are_words() -> None:
    document = strict(runs_document(EXPERIMENTS["diverged"]))
    last = document["runs"][0]["convergence"][-1]
    assert (last["train_loss"], last["val_loss"]) == ("NaN", "Infinity")
    assert '"NaN"' in strict_json.dumps(document)


def test_the_head_has_no_activation() -> None:
    document = runs_document(EXPERIMENTS["one_seed"])
    for snapshot in document["runs"][0]["snapshots"]:
        assert [layer["act"] is None for layer in snapshot["layers"]] == [False, False, False, True]
        assert [layer["index"] for layer in snapshot["layers"]] == [1, 2, 3, 4]


def test_a_fallback_is_in_the_document() -> None:
    document = runs_document(EXPERIMENTS["three_seeds_one_diverged"])
    assert (document["dataset"], document["dataset_requested"]) == ("digits", "mnist")


@pytest.mark.parametrize("target", [None, 0.5, 1.0])
def test_a_compare_document_keeps_the_contract(target: float | None) -> None:
    document = strict(compare_document(build_tables(map(summarise_run, COMPARED), target=target)))
    check(document, COMPARE_DOCUMENT)
    digits = {row["key"]["experiment"]: row for row in document["tables"][0]["rows"]}
    if target != 0.5:
        steps = digits["relu_misprint"]["metrics"]["steps_to_target"]
        assert (steps["mean"], steps["std"]) == (None, None)
    assert digits["relu_kaiming"]["n"] == 3
    assert digits["relu_kaiming"]["metrics"]["test_accuracy"]["mean"] == pytest.approx(0.92)
    assert digits["relu_kaiming"]["metrics"]["test_accuracy"]["std"] == pytest.approx(0.01)
    assert [table["dataset"] for table in document["tables"]] == ["digits", "mnist"]


def test_the_spread_of_a_geometric_mean_is_named_for_what_it_is() -> None:
    (table,) = compare_document(build_tables(map(summarise_run, [run(seed=0), run(seed=1)])))["tables"]
    metrics = table["rows"][0]["metrics"]
    assert metrics["grad_ratio_init"]["log_std"] == metrics["grad_ratio_init"]["std"] == 0.0
    assert [name for name, summary in metrics.items() if "log_std" in summary] == [
        "grad_ratio_init",
        "grad_ratio_end",
    ]


def test_a_table_says_which_data_it_is_on() -> None:
    stored = run()
    stored.record["identity"] = {"data": {"name": "digits", "fingerprint": "abc"}}
    assert [
        t["fingerprint"]
        for t in compare_document(build_tables(map(summarise_run, [stored, run()])))["tables"]
    ] == [
        None,
        "abc",
    ]


def test_one_experiment_and_several_have_one_shape() -> None:
    one, two = EXPERIMENTS["one_seed"], EXPERIMENTS["deep"]
    alone, both = strict(runs_document(one)), strict(runs_document([*one, *two]))
    assert alone.keys() == both.keys() == runs_document([]).keys()
    assert both["runs"] == alone["runs"] + strict(runs_document(two))["runs"]
    assert (alone["experiment"], both["experiment"]) == (one[0].record["experiment"], None)


def test_an_empty_comparison() -> None:
    assert compare_document([]) == {
        "schema": "initbench.compare/1",
        "by": [],
        "baseline": None,
        "confidence": 0.95,
        "tables": [],
    }


@pytest.mark.parametrize(
    "path",
    [
        ("runs", 0, "final"),
        ("runs", 0, "convergence", 0, "epoch"),
        ("runs", 0, "snapshots", 0, "layers", 0, "grad", "pre_q"),
        ("runs", 0, "snapshots", 0, "layers", 0, "act", "histogram", "edges"),
        ("dataset_requested",),
    ],
)
def test_the_contract_above_is_not_empty(path: tuple[Any, ...]) -> None:
    """A key that goes missing is found out."""
    document = copy.deepcopy(runs_document(EXPERIMENTS["one_seed"]))
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    with pytest.raises(ValidationError):
        check(strict(document), RUN_DOCUMENT)
