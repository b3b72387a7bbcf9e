"""`probe --report` and `probe --map --report`: pages of untrained nets."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import initbench as package
from initbench.cli.main import run_command
from initbench.diagnostics.trainability_map import MAX_PROFILE_LAYERS
from initbench.report.figure import start_engine
from tests.conftest import Said
from tests.report.pages import Page

pytest.importorskip("vl_convert")
Command = Callable[..., Said]
SMALL = ("data.name=digits", "model.depth=6", "model.width=32", "seeds=4", "probe.batch=64")
LAYERS = 6


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command that a page names, and an empty working directory."""
    monkeypatch.setattr(sys, "argv", ["initbench", "test"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def configs(repository: Path) -> list[Path]:
    return [repository / "configs" / f"{name}.yaml" for name in ("relu_kaiming", "relu_xavier")]


def test_configs_are_rows_with_findings_histograms_profiles_and_layers(
    initbench: Command, configs: list[Path]
) -> None:
    said = initbench("probe", *configs, *SMALL, "model.depth=40", "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert page.rows == ["relu_kaiming", "relu_xavier"]
    assert page.sections == ["verdict", "histograms", "depth", "layers-1", "layers-2"]
    assert page.cells_of("relu_kaiming")[1:] == ["healthy", *page.cells_of("relu_kaiming")[2:4], "4"]
    assert "vanishing_forward (4 of 4 nets)" in page.cells_of("relu_xavier")[1]
    message = next(line for line in said.out.splitlines() if "vanishing_forward" in line)
    assert message.partition(": ")[2][:60] in page.words
    assert "relu_kaiming: theory: every q is a fixed point" in page.words
    for figure in ("activation", "pre-activation", "gradient"):
        assert set(page.column(f"histograms-{figure}", "row")) == {"relu_kaiming", "relu_xavier"}
    assert any(page.column("histograms-pre-activation", "theory"))
    assert initbench("probe", *configs, *SMALL, "model.depth=40", "--report", "again.html").code == 0
    assert Path("again.html").read_bytes() == Path("page.html").read_bytes()


def test_profiles_have_the_numbers_of_the_probe(initbench: Command, configs: list[Path]) -> None:
    said = initbench("probe", configs[1], *SMALL, "--report", "page.html", "--json")
    document = json.loads(said.out)
    page = Page(Path("page.html"))
    layers = document["layers"]
    assert page.column("depth-q", "layer") == [layer["index"] for layer in layers]
    for name, part in (("value", "measured"), ("theory", "predicted")):
        expected = [layer[part]["q"] for layer in layers]
        expected = [value["mean"] if isinstance(value, dict) else value for value in expected]
        assert page.column("depth-q", name) == pytest.approx(expected, rel=1e-5)
    lows, highs = page.column("depth-q", "theory_low"), page.column("depth-q", "theory_high")
    bands = [layer["band"]["q"] for layer in layers]
    assert any(bands)
    for low, high, band in zip(lows, highs, bands, strict=True):
        assert (low, high) == (None, None) if band is None else pytest.approx(band, rel=1e-5) == [low, high]
    least, most = page.column("depth-q", "least"), page.column("depth-q", "most")
    value = page.column("depth-q", "value")
    assert all(low < mean < high for low, mean, high in zip(least, value, most, strict=True))
    gradient = page.column("depth-gradient", "theory")
    assert gradient[-1] == page.column("depth-gradient", "value")[-1]
    ratios = [layer["predicted"]["grad_ratio"] for layer in layers[:-1]]
    assert gradient[0] == pytest.approx(gradient[-1] * math.prod(ratios), rel=1e-4)


def test_depths_are_rows(initbench: Command, configs: list[Path]) -> None:
    options = [option for option in SMALL if "depth" not in option]
    said = initbench("probe", configs[0], *options, "--depths", "3,5", "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert page.rows == ["depth 3", "depth 5"]
    assert len(page.column("depth-q", "layer")) == 3 + 5


def test_a_module_has_a_page(initbench: Command) -> None:
    module = "torch.nn:Identity"
    said = initbench("probe", "--model", module, "--input", "8", "--report", "page.html")
    assert said.code == 2 and not Path("page.html").exists()  # it has no weights
    Path("mine.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))\n",
        encoding="utf-8",
    )
    said = initbench("probe", "--model", "mine:net", "--input", "8", "seeds=2", "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert page.rows == ["mine:net"]
    assert {"histograms-activation", "histograms-gradient", "depth-activation-std"} <= set(page.figures)
    assert sum(row[0] in ("1 0", "2 2") for row in page.cells if row) == 2  # index and name of the layers


def test_names_of_modules_are_inert() -> None:
    name = "<script>alert(1)</script>\"'🚀"
    module = type(name, (nn.Sequential,), {})(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    package.probe(module, torch.randn(16, 4)).report("page.html")
    page = Page(Path("page.html"))
    assert page.rows == [name]
    assert sorted(page.scripts) == sorted(page.own_scripts) and page.handlers == []


def test_a_probe_without_gradients_has_a_page() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x).detach().relu())

    package.probe(Cut(), torch.randn(16, 4)).report("page.html")
    page = Page(Path("page.html"))
    assert page.column("depth-gradient", "layer") == [2]
    assert "histograms-pre-activation" in page.figures


@pytest.fixture
def mapped(configs: list[Path]) -> Page:
    """The page of a map of two weight scales and two depths, with training."""
    axes = ["--map", "sigma_w=0.5:1.5:2", "depth=3:40:2"]
    options = [option for option in SMALL if "depth" not in option and "seeds" not in option]
    arguments = ["probe", str(configs[0]), *options, *axes, "--train", "5", "--report", "page.html"]
    assert run_command(arguments) == 0
    return Page(Path("page.html"))


def test_a_map_shows_findings_theory_accuracies_and_profiles(mapped: Page) -> None:
    page = mapped
    assert page.figures == ["map", "map-accuracy", "map-q", "map-gradient"]
    kinds = page.column("map", "kind")
    points = [i for i, kind in enumerate(kinds) if kind == "point"]
    assert [page.column("map", "depth")[i] for i in points] == [3, 3, 40, 40]
    assert [page.column("map", "sigma_w")[i] for i in points] == [0.5, 1.5, 0.5, 1.5]
    findings = [page.column("map", "finding")[i] for i in points]
    assert findings[:2] == ["healthy", "healthy"] and findings[2] == "vanishing"
    assert "vanishing_forward" in page.column("map", "codes")[points[2]]
    low, high = (page.column("map", name) for name in ("low", "high"))
    assert all(low[i] < page.column("map", "depth")[i] < high[i] for i in points)
    assert low[points[2]] == high[points[0]]  # cells touch
    assert kinds.count("theory") == 2 and kinds.count("critical") == 1
    assert 0.5 < page.column("map", "sigma_w")[kinds.index("critical")] < 1.5
    profile = list(zip(*(page.column("map-q", name) for name in ("point", "layer", "value")), strict=True))
    assert [layer for point, layer, _ in profile if point == 0] == [1, 2, 3]
    deep = [(layer, value) for point, layer, value in profile if point == 2]
    assert len(deep) == MAX_PROFILE_LAYERS and (deep[0][0], deep[-1][0]) == (1, 40)
    assert deep[-1][1] < 1e-6 * deep[0][1]
    assert "of 4 points" in page.words.lower()


def test_the_specifications_of_a_map_compile(mapped: Page, capfd: pytest.CaptureFixture[str]) -> None:
    text = mapped.path.read_text(encoding="utf-8")
    for key in mapped.figures:
        start = text.index('class="figure-data">', text.index(f'data-key="{key}"'))
        data = json.loads(text[start + len('class="figure-data">') : text.index("</script>", start)])
        columns = {name: mapped.column(key, name) for name in data["columns"]}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        for point in (None, 1):
            params = [{"name": "point", "value": point}, {"name": "layer", "value": 2}]
            spec = {**data["spec"], "params": params, "data": {"values": rows}, "width": 400}
            assert "<svg" in start_engine().vegalite_to_svg(spec, show_warnings=True)
            assert capfd.readouterr().err == "", key


def test_a_link_holds_the_selected_point_of_a_map(chromium: Any, mapped: Page) -> None:
    tab = chromium.new_page(viewport={"width": 900, "height": 900})

    def profile(fragment: str) -> str:
        """Return the picture of the profile after opening the page with this fragment."""
        tab.goto("about:blank")
        tab.goto(mapped.path.absolute().as_uri() + fragment)
        tab.locator("#map-q").scroll_into_view_if_needed()
        return str(tab.locator("#map-q .plot[data-drawn] svg").inner_html())

    pictures = {point: profile(f"#map-q?point={point}") for point in (0, 2)}
    assert pictures[0] != pictures[2]
    profile("")
    tab.locator("#map .plot[data-drawn] .mark-rect path").first.click(force=True)
    tab.wait_for_function("location.hash.includes('point=')")
    fragment = tab.evaluate("location.hash")
    point = int(fragment.partition("point=")[2].partition("&")[0])
    assert profile(f"#map-q?point={point}") == profile(fragment)
    tab.close()


def test_a_map_of_one_point_without_theory_has_a_page(initbench: Command, configs: list[Path]) -> None:
    axes = ["--map", "sigma_w=1.4:1.4:1", "depth=4:4:1"]
    options = [option for option in SMALL if "depth" not in option]
    said = initbench("probe", configs[0], *options, "model.norm=layer", *axes, "--report", "page.html")
    assert said.code == 0
    page = Page(Path("page.html"))
    assert "theory" not in page.column("map", "kind")
    assert page.figures == ["map", "map-q", "map-gradient"]


def test_profiles_are_not_in_the_document_of_a_map(initbench: Command, configs: list[Path]) -> None:
    axes = ["--map", "sigma_w=1:1:1", "depth=3:3:1", "--json"]
    options = [option for option in SMALL if "depth" not in option]
    document = json.loads(initbench("probe", configs[0], *options, *axes).out)
    assert "profile" not in document["points"][0]
