"""`initbench catalog` and `initbench explain` as a person and a program meet them."""

from __future__ import annotations

import json

import pytest

from initbench.components.activation import ACTIVATIONS
from initbench.components.norm import NORMS
from initbench.render.catalog import catalog_kinds

WORDS = [kind.word for kind in catalog_kinds()]


def strict(text: str):
    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    return json.loads(text, parse_constant=refuse)


def test_catalog_lists_every_entry_on_a_line_of_its_own(initbench) -> None:
    said = initbench("catalog")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    for kind in catalog_kinds():
        assert any(line.startswith(kind.title) for line in lines)
        for entry in kind.entries:
            summary = entry.summary
            assert any(line.split()[0] == entry.name and summary in line for line in lines if line)
    assert "\x1b" not in said.out


@pytest.mark.parametrize("word", WORDS)
def test_catalog_of_one_kind(initbench, word: str) -> None:
    document = strict(initbench("catalog", word, "--json").out)
    (kind,) = (kind for kind in catalog_kinds() if kind.word == word)
    assert document.pop("schema") == "initbench.catalog/1"
    assert {key: [row["name"] for row in rows] for key, rows in document.items()} == {
        word: [entry.name for entry in kind.entries]
    }
    for row in document[word]:
        assert {"name", "summary", "formula", "source", "options"} <= row.keys()
        for option in row["options"].values():
            assert option.keys() == {"type", "required", "default", "description"}
            assert option["type"] and option["description"]


def test_catalog_without_a_kind_is_all_of_them(initbench) -> None:
    assert list(strict(initbench("catalog", "--json").out)) == ["schema", *WORDS]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["catalog", "activatoins"], "unknown kind 'activatoins'; did you mean 'activations'?"),
        (["explain", "bathc"], "unknown name 'bathc'; did you mean 'batch'?"),
        (["explain", "relu", "--kind", "norm"], "unknown norm 'relu'"),
        (["explain", "batch", "--kind", "nrom"], "unknown kind 'nrom'; did you mean 'norms'?"),
    ],
)
def test_an_unknown_word_is_wrong_usage(initbench, arguments: list[str], said: str) -> None:
    answer = initbench(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_explain_shows_a_norm(initbench) -> None:
    said = initbench("explain", "group")
    assert said.code == 0
    assert "Wu & He 2018" in said.out
    assert "█" in said.out
    assert "initbench run FILE 'model.norm={name: group, num_groups: 8}'" in said.out
    assert "configs/relu_xavier_groupnorm.yaml" in said.out


def test_explain_shows_an_activation(initbench) -> None:
    out = initbench("explain", "tanh").out
    assert f"{1.5925374:.4f}" in out  # 1/√E[tanh²(z)], by quadrature to 12 digits elsewhere
    assert "x < -2.18 or x > 2.18" in out
    assert any(0x2800 <= ord(character) < 0x2900 for character in out)


def test_explain_shows_an_init_and_a_diagnosis(initbench) -> None:
    out = initbench("explain", "kaiming_normal").out
    assert "σ_w² = n·var  2\n" in out
    assert "softsign ×0.37" in out
    assert "log-slope" in initbench("explain", "vanishing_forward").out


def test_explain_shows_all_that_share_a_name(initbench) -> None:
    both = strict(initbench("explain", "constant", "--json").out)
    assert both["schema"] == "initbench.explain/1"
    assert [entry["kind"] for entry in both["entries"]] == ["inits", "schedules"]
    assert initbench("explain", "constant").out.count("In a config") == 2
    one = strict(initbench("explain", "schedules/constant", "--json").out)
    assert (
        one["entries"]
        == strict(initbench("explain", "constant", "--kind", "schedule", "--json").out)["entries"]
    )
    assert one["entries"][0]["overrides"] == [["train.schedule=constant"]]


@pytest.mark.parametrize("kind", catalog_kinds(), ids=WORDS)
def test_everything_can_be_explained(initbench, kind) -> None:
    for entry in kind.entries:
        name = f"{kind.word}/{entry.name}"
        said = initbench("explain", name)
        assert (said.code, said.err) == (0, ""), name
        assert said.out.startswith(entry.name)
        (row,) = strict(initbench("explain", name, "--json").out)["entries"]
        assert (row["kind"], row["name"]) == (kind.word, entry.name)


@pytest.mark.parametrize("width", [80, 100, 240])
def test_a_terminal_is_filled_and_nothing_is_lost(
    initbench, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("initbench.cli.catalog.stdout_width", lambda: width)
    out = initbench("catalog").out
    assert max(map(len, out.splitlines())) <= width
    words = " ".join(out.split())
    for entry in [*ACTIVATIONS, *NORMS]:
        assert entry.summary in words or entry.summary in " ".join(out.split("\n"))
        assert entry.formula in words
