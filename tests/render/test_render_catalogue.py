"""The catalogue's data, the pictures of norms, the curves of activations, and how entries are written.

`UPDATE_GOLDEN=1 pytest tests/render` rewrites the golden files.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from initbench.components.activation import ACTIVATIONS, Activation, bound
from initbench.components.init_scheme import INITS, Scheme
from initbench.components.norm import NORMS
from initbench.components.target import SampleShape
from initbench.config import examples, registry_fields
from initbench.config.overrides import apply_overrides, parse_override
from initbench.config.yaml_reader import parse_yaml
from initbench.errors import UnknownNameError
from initbench.models.build import build
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.probing.tensor_statistics import SATURATED_BELOW
from initbench.registry_choice import options_model
from initbench.render import activation_curve, catalog, explain, norm_diagram
from initbench.render.page import Page
from initbench.render.text_table import TextTable

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = tuple(norm_diagram.SIZES[axis] for axis in "NCHW")
GROUPS = norm_diagram.PARTS

ENTRIES = [(kind, entry) for kind in catalog.catalog_kinds() for entry in kind.entries]
PLACED = [(kind.field, entry) for kind, entry in ENTRIES if kind.field is not None]
ELEMENTWISE = [entry for entry in ACTIVATIONS if entry.elementwise]


def named(pairs: list) -> list[str]:
    return [entry.name for _, entry in pairs]


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), (
        "UPDATE_GOLDEN=1 pytest tests/render, and look at the diff"
    )


# --- norms


def marked(lines: list[str], filled: str) -> set[tuple[int, ...]]:
    """The entries that a picture fills, read from its characters alone."""
    _, channels, height, width = SIZES
    rows = [line for line in lines if any(mark in line for mark in ("│", "|"))]
    found = set()
    for at, line in enumerate(rows):
        start = min(line.index(fence) for fence in "│|" if fence in line) + 1
        for channel, column in product(range(channels), range(width)):
            if line[start + channel * (width + 1) + column] == filled:
                found.add((at // height, channel, at % height, column))
    return found


def expected(over: tuple[str, ...]) -> set[tuple[int, ...]]:
    """Entries that differ from the first in nothing but the axes averaged over, asked one by one."""

    def same(axis: str, size: int, index: int) -> bool:
        parted = [name for name in over if name.startswith(axis + "/")]
        return axis in over or index == 0 or (bool(parted) and index * GROUPS < size)

    return {
        place
        for place in product(*map(range, SIZES))
        if all(
            same(axis, size, i)
            for axis, size, i in zip(
                "OIHW" if norm_diagram.of_weights(over) else "NCHW", SIZES, place, strict=True
            )
        )
    }


OVER = sorted(
    {entry.axes for entry in NORMS if norm_diagram.is_drawable(entry.axes)}
    | {
        ("H", "W"),
        ("C",),
        ("N",),
        ("N", "C", "H", "W"),
        ("N/B", "H", "W"),
        ("N", "C/G"),
        ("I", "H", "W"),
        ("O", "I/G"),
    }
)


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("over", OVER, ids="-".join)
def test_a_picture_fills_what_the_axes_say(over: tuple[str, ...], ascii_only: bool) -> None:
    lines = norm_diagram.draw_diagram(over, ascii_only=ascii_only)
    assert marked(lines, "#" if ascii_only else "█") == expected(over)
    assert len(lines) == 2 + 1 + SIZES[0] * (SIZES[2] + 1)
    assert len({len(line) for line in lines[2:]}) == 1
    if ascii_only:
        assert "\n".join([*lines, *norm_diagram.diagram_legend(over, ascii_only=True)]).isascii()


@pytest.mark.parametrize(
    ("over", "norm"),
    [
        (("N", "H", "W"), lambda x: functional.batch_norm(x, None, None, training=True)),
        (("C", "H", "W"), lambda x: functional.layer_norm(x, x.shape[1:])),
        (("C/G", "H", "W"), lambda x: functional.group_norm(x, GROUPS)),
        (("H", "W"), functional.instance_norm),
    ],
    ids=["batch", "layer", "group", "instance"],
)
def test_a_picture_fills_what_torch_averages(over: tuple[str, ...], norm) -> None:
    """An output of a norm depends on the entries that share its statistic, and on no other."""
    x = torch.randn(
        SIZES, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    (gradient,) = torch.autograd.grad(norm(x)[0, 0, 0, 0], x)
    depends = {tuple(place) for place in torch.nonzero(gradient.abs() > 1e-12).tolist()}
    assert marked(norm_diagram.draw_diagram(over), "█") == depends


@pytest.mark.parametrize("name", ["batch", "layer", "group"])
def test_the_picture_of_a_norm(name: str) -> None:
    over = NORMS[name].axes
    lines = [
        norm_diagram.describe_statistic(over),
        "",
        *norm_diagram.draw_diagram(over),
        "",
        *norm_diagram.diagram_legend(over),
    ]
    assert_golden(f"norm_{name}", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        (("N", "H", "W"), "one statistic for each channel, over all its samples and positions"),
        (("H", "W"), "one statistic for each sample and channel, over all its positions"),
        (("C",), "one statistic for each sample and position, over all its channels"),
        (("I", "H", "W"), "one statistic for each unit, over all its inputs and positions"),
        (("N", "C", "H", "W"), "one statistic, over all samples, channels and positions"),
        (
            ("C/G", "H", "W"),
            "one statistic for each sample and group of channels, over all its channels and positions",
        ),
    ],
)
def test_the_axes_in_words(over: tuple[str, ...], sentence: str) -> None:
    assert norm_diagram.describe_statistic(over) == sentence


def test_what_is_no_axis_of_a_batch_is_not_drawn() -> None:
    assert not norm_diagram.is_drawable(())
    assert not norm_diagram.is_drawable(("fan_in",))
    assert not norm_diagram.is_drawable(("O", "C"))


# --- activations


def floats(function):
    return lambda xs: [float(y) for y in function(torch.tensor(xs, dtype=torch.float64)[:, None]).flatten()]


def dots(lines: list[str]) -> dict[int, list[int]]:
    """Column of dots → rows of dots from the top, read from the braille characters alone."""
    bits = {0: (0, 0), 1: (0, 1), 2: (0, 2), 3: (1, 0), 4: (1, 1), 5: (1, 2), 6: (0, 3), 7: (1, 3)}
    found: dict[int, list[int]] = {}
    for row, line in enumerate(lines[1:-1]):
        for column, character in enumerate(line[8:]):
            code = ord(character) - 0x2800
            for bit, (dx, dy) in bits.items():
                if 0 <= code < 256 and code >> bit & 1:
                    found.setdefault(2 * column + dx, []).append(4 * row + dy)
    return found


@pytest.mark.parametrize("which", ["phi", "derivative"])
@pytest.mark.parametrize("entry", ELEMENTWISE, ids=lambda entry: entry.name)
def test_every_dot_lies_on_the_curve(entry: Activation, which: str) -> None:
    """Each column of dots holds the function's values over it and nothing else, to half a dot."""
    function = floats(getattr(bound(entry.name), which))
    lines = activation_curve.plot_function(function, which)
    top, bottom = float(lines[1][:7]), float(lines[-2][:7])
    height = (top - bottom) / (4 * activation_curve.HEIGHT - 1)
    columns, width = (
        dots(lines),
        (activation_curve.HIGH - activation_curve.LOW) / (2 * activation_curve.WIDTH),
    )
    assert sorted(columns) == list(range(2 * activation_curve.WIDTH))
    for column, rows in columns.items():
        left = activation_curve.LOW + column * width
        ys = function([left + width * i / 200 for i in range(201)])
        for row in rows:
            assert min(abs(top - row * height - y) for y in ys) <= 0.5001 * height + 0.5 * _step(ys)
        assert {round((top - y) / height) for y in ys[5:-5:13]} <= {
            row + d for row in rows for d in (-1, 0, 1)
        }


def _step(ys: list[float]) -> float:
    """The largest gap between neighbouring samples that is no jump."""
    return sorted(abs(a - b) for a, b in pairwise(ys))[-2]


@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_curve_of_an_activation(ascii_only: bool) -> None:
    own = bound("tanh")
    left = activation_curve.plot_function(floats(own.phi), "f(x)", ascii_only=ascii_only)
    right = activation_curve.plot_function(floats(own.derivative), "f'(x)", ascii_only=ascii_only)
    text = "\n".join(activation_curve.side_by_side(left, right)) + "\n"
    assert not ascii_only or text.isascii()
    assert_golden(f"curve_tanh{'_ascii' if ascii_only else ''}", text)


def test_a_curve_has_round_labels_and_survives_what_is_no_curve() -> None:
    flat = activation_curve.plot_function(lambda xs: [0.0] * len(xs), "0")
    assert (flat[1].split()[0], flat[-2].split()[0]) == ("1", "0")
    steep = activation_curve.plot_function(lambda xs: [170.0 * x for x in xs], "170x")
    assert (steep[1].split()[0], steep[-2].split()[0]) == ("800", "-800")


def test_saturated_regions_in_closed_form() -> None:
    """|φ′| is 1 − tanh² = 1/20 at arcosh √20; for the sigmoid s(1 − s) = 1/80."""
    edge = math.acosh(math.sqrt(1 / SATURATED_BELOW))
    assert explain.flat_intervals(bound("tanh")) == [
        (-math.inf, pytest.approx(-edge, abs=1e-6)),
        (pytest.approx(edge, abs=1e-6), math.inf),
    ]
    s = (1 + math.sqrt(1 - SATURATED_BELOW)) / 2
    low, high = explain.flat_intervals(bound("sigmoid"))
    assert (low[1], high[0]) == (
        pytest.approx(-math.log(s / (1 - s)), abs=1e-6),
        pytest.approx(math.log(s / (1 - s)), abs=1e-6),
    )
    assert explain.flat_intervals(bound("relu")) == [(-math.inf, 0.0)]
    assert explain.flat_intervals(bound("linear")) == []


@pytest.mark.parametrize("entry", [e for e in ELEMENTWISE if e.saturates], ids=lambda entry: entry.name)
def test_what_saturates_is_flat_on_both_sides(entry: Activation) -> None:
    (_, low), (high, _) = explain.flat_intervals(bound(entry.name))
    assert -20 < low < 0 < high < 20


# --- inits


@pytest.mark.parametrize("scheme", [s for s in INITS if s.variance is not None], ids=lambda s: s.name)
def test_the_variance_shown_is_the_one_drawn(scheme: Scheme) -> None:
    """Against a layer of a net; five standard errors of the mean of m·n squares, by their own spread."""
    n, _ = catalog.EXAMPLE_FANS
    model = options_model(FAMILIES["mlp"], "family")(depth=3, width=n)
    options = InitOptions(scheme=options_model(scheme, "name")())
    network = build(model, options, form=SampleShape((n,), n), seed=1, batch=torch.zeros(2, n))
    stated = catalog.sigma_w2(scheme, n, n, bound("relu"))
    assert stated is not None
    squares = network.weight_layers()[1].module.get_parameter("weight").detach().double().square()
    error = float(squares.std()) / math.sqrt(squares.numel())
    assert abs(float(squares.mean()) - stated / n) <= 5 * error
    shown = explain.explain_document([(catalog.kind_of("inits"), scheme)])["entries"][0]["example"]
    assert shown["sigma_w2"] == pytest.approx(n * shown["variance"]) == pytest.approx(n * shown["std"] ** 2)


def test_growth_in_closed_form() -> None:
    kaiming = dict(catalog.growth_factors(INITS["kaiming_normal"], 128))
    assert kaiming["relu"] == pytest.approx(1.0, abs=1e-6)
    assert kaiming["linear"] == pytest.approx(2.0, abs=1e-6)
    assert dict(catalog.growth_factors(INITS["torch_default"], 128))["linear"] == pytest.approx(
        1 / 3, abs=1e-6
    )
    # crelu puts out two channels a unit: n = 2m, so σ_w² = n·2/(n + m) = 4/3, of which it keeps a half.
    assert dict(catalog.growth_factors(INITS["xavier_normal"], 128))["crelu"] == pytest.approx(
        2 / 3, abs=1e-6
    )
    assert dict(catalog.growth_factors(INITS["orthogonal"], 128)) == {}


# --- the data


def test_every_registry_of_the_config_has_a_kind() -> None:
    places = [kind.field for kind in catalog.catalog_kinds() if kind.field is not None]
    assert {id(place.registry) for place in places} == {
        id(kind.registry) for kind in registry_fields.registry_fields()
    }
    words = [kind.word for kind in catalog.catalog_kinds()]
    assert len(set(words)) == len(words)
    assert {
        "inits",
        "activations",
        "norms",
        "families",
        "datasets",
        "optimizers",
        "executors",
        "diagnostics",
    } <= set(words)


def test_each_kind_states_what_is_its_own() -> None:
    document = catalog.catalog_document(catalog.catalog_kinds())
    relu = next(row for row in document["activations"] if row["name"] == "relu")
    assert relu["gain"] == pytest.approx(math.sqrt(2), abs=1e-6)
    assert relu["kaiming_gain"] == pytest.approx(math.sqrt(2), abs=1e-12)
    assert (relu["bounded"], relu["kinks"], relu["elementwise"]) == (False, [0.0], True)
    batch = next(row for row in document["norms"] if row["name"] == "batch")
    assert (batch["axes"], batch["min_batch"]) == (["N", "H", "W"], 2)
    assert all({"needs", "has_gain"} <= row.keys() for row in document["inits"])
    assert {row["name"]: row["devices"] for row in document["executors"]}["cuda"] == ["cuda"]
    assert all({"measure", "threshold"} <= row.keys() for row in document["diagnostics"])
    group = next(row for row in document["norms"] if row["name"] == "group")["options"]["num_groups"]
    assert group["type"] == "integer > 0, ≤ 1,000,000,000"
    assert (group["default"], group["required"]) == (8, False)
    assert group["description"].startswith("Number of groups")


@pytest.mark.parametrize(("kind", "entry"), PLACED, ids=named(PLACED))
def test_an_entry_is_written_as_shown(kind: registry_fields.RegistryField, entry) -> None:
    """The YAML and the last override say the same, and the entry's own options accept it."""
    laid = [
        apply_overrides({}, [parse_override(word) for word in way])
        for way in examples.override_examples(kind, entry)
    ]
    document = parse_yaml("\n".join(examples.yaml_example(kind, entry)) + "\n", "example")
    assert not document.faults
    assert document.data == laid[-1]
    for data in laid:
        value = data
        for part in kind.key.split(".")[: None if kind.shorthand else -1]:
            value = value[part]
        given = value if isinstance(value, dict) else {kind.tag: value}
        given = {key: "x.pt" if part == examples.PLACEHOLDER else part for key, part in given.items()}
        assert getattr(options_model(entry, kind.tag).model_validate(given), kind.tag) == entry.name


def test_shipped_configs_are_found_and_missed_quietly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = {kind.word: kind.field for kind in catalog.catalog_kinds()}
    assert "configs/relu_kaiming.yaml" in examples.bundled_configs(places["inits"], "kaiming_normal")
    assert "configs/relu_kaiming.yaml" in examples.bundled_configs(places["families"], "mlp")
    assert "configs/relu_kaiming.yaml" not in examples.bundled_configs(places["inits"], "xavier_normal")
    monkeypatch.setattr(examples, "CONFIGS", tmp_path / "none")
    assert examples.bundled_configs(places["inits"], "kaiming_normal") == []


@pytest.mark.parametrize(
    ("name", "word", "kinds"),
    [
        ("constant", None, ["inits", "schedules"]),
        ("inits/constant", None, ["inits"]),
        ("schedule/constant", None, ["schedules"]),
        ("constant", "schedules", ["schedules"]),
        ("dead", None, ["diagnostics"]),
    ],
)
def test_a_name_is_found_in_its_kinds(name: str, word: str | None, kinds: list[str]) -> None:
    assert [kind.word for kind, _ in catalog.find_entries(name, word)] == kinds


@pytest.mark.parametrize(
    ("name", "word", "said"),
    [
        ("bacth", None, "did you mean 'batch'"),
        ("norms/bacth", None, "unknown norm 'bacth'; did you mean 'batch'"),
        ("nroms/batch", None, "unknown kind 'nroms'; did you mean 'norms'"),
        ("batch", "inits", "unknown init 'batch'"),
        ("@@@@", None, "`initbench catalog` lists all names"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, word: str | None, said: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        catalog.find_entries(name, word)
    assert said in str(error.value)


# --- the page


@pytest.mark.parametrize(("kind", "entry"), ENTRIES, ids=named(ENTRIES))
def test_every_entry_has_a_page_that_fits(kind: catalog.CatalogKind, entry) -> None:
    sheet = Page(100)
    explain.explain_entry(sheet, kind, entry, ascii_only=False)
    lines = [line for part in sheet.parts for line in _lines(part)]
    assert entry.name in lines[0]
    assert [line for line in lines if len(line) > 100] == []
    assert "  initbench run FILE" in "\n".join(lines) or kind.field is None


def _lines(part: object) -> list[str]:
    if not isinstance(part, TextTable):
        return [str(part)]
    rows = [list(part.headings), *(cells for cells, _ in part.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def test_the_last_column_wraps_and_loses_no_word() -> None:
    grid = TextTable(("a", "b"), left_aligned=("a", "b"))
    sentence = "one two three four five six seven eight nine ten"
    grid.add(["name", sentence])
    wrapped = grid.wrapped(34)
    assert wrapped.width <= 34
    assert [cells[0] for cells, _ in wrapped.rows] == ["name", ""]
    assert " ".join(cells[1] for cells, _ in wrapped.rows) == sentence
    assert [cells for cells, _ in grid.wrapped(200).rows] == [["name", sentence]]
