"""Every fault in plain words, at its place."""

from __future__ import annotations

import pytest

GOOD = "name: a\nmodel: {family: mlp, depth: 3}\n"
MODEL = "model: {family: mlp, depth: 3}\n"
ONE_FAULT = [
    (MODEL, "f.yaml:1:1: name: this key is required"),
    ("name: a\nmodel:\n  family: mlp", "f.yaml:2:1: model.depth: this key is required"),
    ("name: a\nmodel: {depth: 3}", "f.yaml:2:1: model.family: needs a family: one of mlp"),
    ("name: a\nmodel: mlp", "f.yaml:2:8: model: must be a mapping with a family; write {family: mlp}"),
    ("name: a\nmodel: {family: mlq}", "f.yaml:2:17: model.family: unknown family 'mlq'; did you mean 'mlp'?"),
    (GOOD + "nots: x", "f.yaml:3:1: nots: unknown key; did you mean 'notes'?"),
    (
        GOOD + "zzz: x",
        "f.yaml:3:1: zzz: unknown key; choose from name, notes, seeds, model, head, train",
    ),
    (
        GOOD + "zz.qq.yy: x",
        "f.yaml:3:1: zz.qq.yy: unknown key; in a file, keys are nested by indentation instead of dots",
    ),
    (
        GOOD + "tarin.stps: 1",
        "f.yaml:3:1: tarin.stps: unknown key; in a file, keys are nested by indentation instead of dots:"
        " write train: {steps: …}",
    ),
    (
        GOOD + "model.norm.num_group: 1",
        "f.yaml:3:1: model.norm.num_group: unknown key; in a file, keys are nested by indentation instead of"
        " dots: write model: {norm: {num_groups: …}}",
    ),
    (GOOD + "train:\n  stps: 1", "f.yaml:4:3: train.stps: unknown key; did you mean 'steps'?"),
    (
        "name: a\nmodel:\n  family: mlp\n  depth: ten",
        "f.yaml:4:10: model.depth: must be a whole number, not the text 'ten'",
    ),
    (
        "name: a\nmodel: {family: mlp, depth: 1_000}",
        "f.yaml:2:29: model.depth: must be a whole number, not the text '1_000'; write 1000",
    ),
    (
        "name: a\nmodel: {family: mlp, depth: '10'}",
        "f.yaml:2:29: model.depth: must be a whole number, not the text '10'; write 10 without quotes",
    ),
    (
        "name: a\nmodel: {family: mlp, depth: 1e2}",
        "f.yaml:2:29: model.depth: must be a whole number, not the number 100.0; write 100",
    ),
    (
        "name: a\nmodel: {family: mlp, depth: }",
        "f.yaml:2:28: model.depth: must be a whole number, not empty (null)",
    ),
    (
        "name: a\nmodel: {family: mlp, depth: true}",
        "f.yaml:2:29: model.depth: must be a whole number, not true",
    ),
    ("name: a\nmodel: {family: mlp, depth: 0}", "f.yaml:2:29: model.depth: must be greater than 0, is 0"),
    (
        "name: a\nmodel: {family: mlp, depth: 3, activation: rleu}",
        "f.yaml:2:44: model.activation: must be 'relu' or 'tanh', not the text 'rleu'; did you mean 'relu'?",
    ),
    (
        "name: a\nmodel: {family: mlp, depth: 3, norm: grop}",
        "f.yaml:2:38: model.norm: unknown norm 'grop'; did you mean 'group'?",
    ),
    (
        "name: a\nmodel:\n  family: mlp\n  depth: 3\n  norm: {name: group, num_groups: 0}",
        "f.yaml:5:35: model.norm.num_groups: must be at least 1, is 0",
    ),
    (
        "name: a\nmodel:\n  family: mlp\n  depth: 3\n  norm: {name: group, group: 2}",
        "f.yaml:5:23: model.norm.group: unknown key; did you mean 'num_groups'?",
    ),
    (
        "name: a\nmodel:\n  family: mlp\n  depth: 3\n  norm: {num_groups: 4}",
        "f.yaml:5:3: model.norm.name: needs a name: one of batch, group",
    ),
    (
        GOOD + "head: {name: group, sizes: [1, x]}",
        "f.yaml:3:32: head.sizes.1: must be a whole number, not the text 'x'",
    ),
    (
        GOOD + "train: {nesterov: yes}",
        "f.yaml:3:19: train.nesterov: must be true or false, not the text 'yes'; write true",
    ),
    (
        GOOD + "train: {nesterov: off}",
        "f.yaml:3:19: train.nesterov: must be true or false, not the text 'off'; write false",
    ),
    (GOOD + "train: {nesterov: 1}", "f.yaml:3:19: train.nesterov: must be true or false, not the number 1"),
    (GOOD + "train: {lr: -1}", "f.yaml:3:13: train.lr: must be at least 0, is -1"),
    (GOOD + "train: {lr: .inf}", "f.yaml:3:13: train.lr: must be a finite number, is inf"),
    (GOOD + "train: 3", "f.yaml:3:8: train: must be a mapping, not the number 3"),
    (GOOD + "train: {betas: [1]}", "f.yaml:3:16: train.betas: needs more values, has 1"),
    (GOOD + "train: {betas: [1, 2, 3]}", "f.yaml:3:16: train.betas: must have at most 2 values, has 3"),
    (GOOD + "train: {betas: 1}", "f.yaml:3:16: train.betas: must be a list, not the number 1"),
    (GOOD + "train: {by_layer: {a: x}}", "f.yaml:3:23: train.by_layer.a: must be a number, not the text 'x'"),
    (
        GOOD + "train: {gain: atuo}",
        "f.yaml:3:15: train.gain: must be a number or 'auto', not the text 'atuo'; did you mean 'auto'?",
    ),
    (GOOD + "train: {gain: -1}", "f.yaml:3:15: train.gain: must be greater than 0, is -1"),
    (GOOD + "train:\n  steps: 1\n  epochs: 2", "f.yaml:5:11: train.epochs: not both"),
    (GOOD + "train:\n  lr: 4", "f.yaml:4:7: train.lr: too large"),
    (GOOD + "seeds: [1, x]", "f.yaml:3:12: seeds.1: must be a whole number, not the text 'x'"),
    (GOOD + "seeds: x", "f.yaml:3:8: seeds: must be a whole number or a list, not the text 'x'"),
    (GOOD + "seeds: []", "f.yaml:3:8: seeds: must have at least 1 value, has 0"),
    (GOOD + "seeds: 0", "f.yaml:3:8: seeds: must be at least 1, is 0"),
    (GOOD + "notes: 10", "f.yaml:3:8: notes: must be text, not the number 10; write '10'"),
    (GOOD + "notes: true", "f.yaml:3:8: notes: must be text, not true; write 'true'"),
    (GOOD + "notes:", "f.yaml:3:7: notes: must be text, not empty (null); write ''"),
    (GOOD + "notes: todo", "f.yaml:3:8: notes: say what to look at"),
    ("name: A\n" + MODEL, "f.yaml:1:7: name: must match the pattern ^[a-z]+$, is 'A'"),
    ("name: ''\n" + MODEL, "f.yaml:1:7: name: must have at least 1 character, has 0"),
    ("name: abcdefghi\n" + MODEL, "f.yaml:1:7: name: must have at most 8 characters, has 9"),
]


@pytest.mark.parametrize(("text", "line"), ONE_FAULT, ids=range(len(ONE_FAULT)))
def test_each_fault_has_its_place_and_words(told, text, line):
    assert told(text) == [line]


def test_a_long_text_is_quoted_in_part(told):
    assert told("name: a\nmodel: {family: mlp, depth: " + "x" * 80 + "}") == [
        f"f.yaml:2:29: model.depth: must be a whole number, not the text '{'x' * 57}...'"
    ]


def test_what_the_reader_refused_is_told_once(told):
    text = "name: a\nmodel: {family: mlp, depth: 010, norm: !x batch, q: 1}\nseeds: [08]\n"
    assert [line.split(": ")[:3:2] for line in told(text)] == [
        ["f.yaml:2:29", "ambiguous"],
        ["f.yaml:2:40", "the tag '!x' is not accepted; write the plain value"],
        ["f.yaml:2:50", "unknown key; choose from family, depth, norm, activation"],
        ["f.yaml:3:9", "ambiguous"],
    ]


def test_a_document_with_faults_is_no_config_even_if_it_fits(told):
    assert told(GOOD + "notes: 010\n")[0].startswith("f.yaml:3:8: notes: ambiguous")


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (
            ["model.depth=x"],
            ["override model.depth=x: model.depth: must be a whole number, not the text 'x'"],
        ),
        (["modl.depth=3"], ["override modl.depth=3: modl: unknown key; did you mean 'model.depth'?"]),
        (["model.dept=3"], ["override model.dept=3: model.dept: unknown key; did you mean 'model.depth'?"]),
        (
            ["model={family: mlp, depth: 3, nrom: group}"],
            [
                "override model={family: mlp, depth: 3, nrom: group}: model.nrom: unknown key;"
                " did you mean 'norm'?"
            ],
        ),
        (
            ["model.norm=group", "model.norm.num_groups=0"],
            ["override model.norm.num_groups=0: model.norm.num_groups: must be at least 1, is 0"],
        ),
        (["model={family: mlp}"], ["override model={family: mlp}: model.depth: this key is required"]),
        (["head.sizes=[1]"], ["override head.sizes=[1]: head.name: needs a name: one of batch, group"]),
        (["train.steps=1", "train.epochs=2"], ["override train.epochs=2: train.epochs: not both"]),
        (
            ["model.depth=x", "model.depth=3", "notes=5"],
            ["override notes=5: notes: must be text, not the number 5; write '5'"],
        ),
        (
            ["seeds=1,2", "name.x=1", "seeds=y", "name.x.y=1", "train.lr=0", "train.lr.x=2"],
            [
                "override seeds=1,2: seeds: one value belongs here; to run each, use "
                "`initbench sweep FILE seeds=1,2`; a list is written seeds=[1,2]",
                "override name.x=1: name: must be text, not a mapping",
                "override seeds=y: seeds: must be a whole number or a list, not the text 'y'",
                "override name.x.y=1: name.x.y: name.x is the number 1 and has no keys; replace it whole",
                "override train.lr.x=2: train.lr.x: "
                "train.lr is the number 0 and has no keys; replace it whole",
            ],
        ),
    ],
)
def test_a_fault_of_an_override_names_it(told, overrides, lines):
    assert told(GOOD, *overrides) == lines


def test_a_fault_left_in_the_file_keeps_its_line(told):
    text = "name: a\nmodel:\n  family: mlp\n  depth: 3\n  norm: {name: group, num_groups: 4}\n"
    assert told(text, "model.norm.name=batch") == [
        "f.yaml:5:23: model.norm.num_groups: unknown key; choose from name"
    ]


@pytest.mark.parametrize(
    ("section", "lines"),
    [
        (
            "model: {dpth: 3, norm: grop, depth: x}",
            [
                "f.yaml:2:1: model.family: needs a family: one of mlp",
                "f.yaml:2:9: model.dpth: unknown key; did you mean 'depth'?",
                "f.yaml:2:24: model.norm: unknown norm 'grop'; did you mean 'group'?",
                "f.yaml:2:37: model.depth: must be a whole number, not the text 'x'",
            ],
        ),
        (
            "model: {family: mpl, depth: 0, mlp: 1, norm: {eps: 1}}",
            [
                "f.yaml:2:17: model.family: unknown family 'mpl'; did you mean 'mlp'?",
                "f.yaml:2:29: model.depth: must be greater than 0, is 0",
                "f.yaml:2:32: model.mlp: unknown key; choose from family, depth, norm, activation",
                "f.yaml:2:40: model.norm.name: needs a name: one of batch, group",
                "f.yaml:2:47: model.norm.eps: unknown key; choose from name, num_groups, sizes",
            ],
        ),
        (
            "model: {family: [mlp], depth: 3}",
            ["f.yaml:2:17: model.family: unknown family \"['mlp']\"; did you mean 'mlp'?"],
        ),
        (
            # The first is an option of one of the norms, given as it takes it; the second of none.
            "model: {family: mlp, depth: 3}\nhead: {sizes: [1, 2], sises: [1]}",
            [
                "f.yaml:3:1: head.name: needs a name: one of batch, group",
                "f.yaml:3:23: head.sises: unknown key; did you mean 'sizes'?",
            ],
        ),
    ],
)
def test_options_without_a_name_are_checked_as_far_as_all_entries_agree(told, section, lines):
    assert told(f"name: a\n{section}\n") == lines
