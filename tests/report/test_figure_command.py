"""`initbench figure`: one figure of stored runs, with its caption, in every format."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.errors import UsageError
from initbench.report.figure_selection import select_figure
from initbench.report.print_layout import COLUMN_INCHES, PrintLayout, full_caption, print_figure, print_spec
from tests.report.report_runs import report_of, stored_run, two_arms

pytest.importorskip("vl_convert")
CONFIG = """\
kind: experiment
name: {name}
seeds: 2
data: {{name: digits}}
model: {{family: mlp, depth: 3, width: 16, activation: relu}}
init: {{scheme: {scheme}}}
train: {{steps: 20, batch_size: 32, lr: 0.05}}
probe: {{batch: 64, bins: 8}}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four stored runs of two experiments."""
    from initbench.cli.main import run_command

    folder = tmp_path_factory.mktemp("figure")
    files = []
    for name, scheme in (("kaiming", "kaiming_normal"), ("xavier", "xavier_normal")):
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(CONFIG.format(name=name, scheme=scheme), encoding="utf-8")
    store = folder / "runs"
    assert run_command(["run", *map(str, files), "--runs-dir", str(store), "--quiet"]) == 0
    return store


@pytest.fixture
def figure(initbench: Callable[..., Any], runs: Path) -> Callable[..., Any]:
    """Call `initbench figure` on the stored runs."""
    return lambda *arguments: initbench("figure", *arguments, "--runs-dir", runs)


def test_svg_has_the_size_of_the_column_and_text(figure: Callable[..., Any], tmp_path: Path) -> None:
    for columns in (1, 2):
        file = tmp_path / f"{columns}.svg"
        said = figure("depth-q", "-o", file, "--columns", columns)
        assert said.code == 0 and f"written to {file}" in said.err
        svg = file.read_text(encoding="utf-8")
        width = re.search(r'<svg [^>]*\bwidth="([\d.]+)in"', svg)
        assert width is not None and abs(float(width[1]) - COLUMN_INCHES[columns]) < 0.02
        assert ">kaiming<" in svg and ">xavier<" in svg, "the legend names the rows"
        assert "2 seeds a row" in svg and "mlp 3 × 16" in svg.replace("\n", " ")
        assert "<title>Second moment of the pre-activations against depth</title>" in svg


def test_the_caption_on_stdout_states_n_data_config_and_moment(
    figure: Callable[..., Any], tmp_path: Path
) -> None:
    said = figure("depth-q", "-o", tmp_path / "x.svg", "--title", "The signal.")
    assert said.out.count("\n") == 1
    assert said.out.startswith("The signal. Second moment of the pre-activations in each layer")
    for words in ("digits", "2 seeds a row", "20 steps", "Shown: at init.", "kaiming: kaiming_normal"):
        assert words in said.out


def test_png_has_300_pixels_per_inch_and_pdf_has_text(figure: Callable[..., Any], tmp_path: Path) -> None:
    assert figure("depth-q", "-o", tmp_path / "x.png").code == 0
    png = (tmp_path / "x.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert abs(int.from_bytes(png[16:20], "big") - 300 * COLUMN_INCHES[1]) < 8
    assert figure("depth-q", "-o", tmp_path / "x.pdf").code == 0
    pdf = (tmp_path / "x.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+)", pdf)
    assert box is not None and abs(float(box[1]) - 72 * COLUMN_INCHES[1]) < 2
    assert b"/ToUnicode" in pdf and b"/FontFile" in pdf, "text is text in an embedded font"


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".csv", ".json"])
def test_the_same_runs_give_the_same_bytes(suffix: str) -> None:
    for key in ("validation-accuracy", "histograms-activation"):
        contents = set()
        for _ in range(4):
            drawn = select_figure(report_of(two_arms()), key)
            contents.add(print_figure(drawn, PrintLayout(1), suffix))
        assert len(contents) == 1, key


def test_the_objects_of_a_pdf_are_where_its_table_says(figure: Callable[..., Any], tmp_path: Path) -> None:
    assert figure("depth-q", "-o", tmp_path / "x.pdf").code == 0
    pdf = (tmp_path / "x.pdf").read_bytes()
    table = int(pdf.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    assert pdf[table:].startswith(b"xref\n")
    entries = re.findall(rb"^(\d{10}) 00000 n", pdf[table:], re.MULTILINE)
    assert len(entries) > 20
    for number, offset in enumerate(entries, 1):
        assert pdf[int(offset) :].startswith(b"%d 0 obj" % number)


def test_csv_has_the_numbers_of_the_nearest_probe(figure: Callable[..., Any], tmp_path: Path) -> None:
    said = figure("depth-q", "-o", tmp_path / "x.csv", "--step", 1000)
    assert said.code == 0 and "Shown: after 20 updates." in said.out
    with (tmp_path / "x.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert {record["row"] for record in records} == {"kaiming", "xavier"}
    assert {record["step"] for record in records} == {"20"}


def test_json_is_the_specification(figure: Callable[..., Any], tmp_path: Path) -> None:
    assert figure("validation-accuracy", "-o", tmp_path / "x.json").code == 0
    spec = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert spec["$schema"].endswith("vega-lite/v6.json")
    assert {record["row"] for record in spec["datasets"]["table"]} == {"kaiming", "xavier"}


def test_without_output_the_file_is_named_after_the_figure(
    figure: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert figure("training-loss").code == 0
    assert (tmp_path / "training-loss.svg").exists()


def test_a_caption_is_left_out_on_request(figure: Callable[..., Any], tmp_path: Path) -> None:
    said = figure("depth-q", "-o", tmp_path / "x.svg", "--no-caption")
    assert "2 seeds a row" in said.out
    texts = re.sub(r"<(title|desc)>.*?</\1>", "", (tmp_path / "x.svg").read_text(encoding="utf-8"))
    assert "seeds a row" not in texts and ">kaiming<" in texts


def test_the_list_names_the_figures_that_the_runs_allow(figure: Callable[..., Any], tmp_path: Path) -> None:
    said = figure("--list")
    keys = [line.split("\t")[0] for line in said.out.splitlines()]
    assert said.code == 0 and {"depth-q", "histograms-activation", "validation-accuracy"} <= set(keys)
    assert figure("--list", "xavier").out.splitlines()[0].startswith(keys[0])
    for key in keys:
        assert figure(key, "-o", tmp_path / f"{key}.svg").code == 0, key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["depth-qq"], ["unknown figure 'depth-qq'; did you mean 'depth-q'?", "validation-accuracy"]),
        ([], ["name a figure", "--list"]),
        (["depth-q", "-o", "x.gif"], [".gif of x.gif", ".svg, .png, .pdf, .csv, .json"]),
        (["depth-q", "-o", "x"], ["cannot choose a format from x"]),
        (["depth-q", "-o", "missing/x.svg"], ["cannot write missing/x.svg"]),
        (["depth-q", "xaver"], ["xaver"]),
        (["validation-accuracy", "--step", "3"], ["validation-accuracy shows all steps: drop --step"]),
        (["histograms-activation", "--baseline", "xavier"], ["drop --baseline"]),
        (["depth-q", "--baseline", "xavir"], ["xavier"]),
        (["depth-q", "--columns", "3"], ["--columns"]),
    ],
)
def test_a_mistake_is_one_line(
    figure: Callable[..., Any],
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = figure(*arguments)
    assert said.code == 2 and said.out == ""
    assert all(word in said.err for word in words), said.err
    assert "Traceback" not in said.err and list(tmp_path.iterdir()) == []


def test_without_the_extra_numbers_are_written_and_pictures_are_not(
    figure: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    said = figure("depth-q", "-o", tmp_path / "x.svg")
    assert said.code == 2 and "pip install 'initbench[report]'" in said.err and said.err.count("\n") == 1
    assert figure("depth-q", "-o", tmp_path / "x.csv").code == 0


def test_a_baseline_gives_ratios_on_logarithmic_and_differences_on_linear_axes() -> None:
    report = report_of(two_arms(), baseline="kaiming")
    for key, words in (("depth-q", "ratio to kaiming"), ("validation-accuracy", "difference from kaiming")):
        drawn = select_figure(report, key)
        spec = json.dumps(print_spec(drawn, PrintLayout(1)))
        assert '"name": "baseline", "value": "kaiming"' in spec
        assert words in spec and "kaiming" in full_caption(drawn, PrintLayout(1))
    assert "Differences of the mean from kaiming" in select_figure(report, "forest-test-accuracy").caption


def test_python_returns_the_figure_of_the_command(
    figure: Callable[..., Any], runs: Path, tmp_path: Path
) -> None:
    import initbench

    loaded = initbench.load_runs(runs_dir=runs)
    assert figure("depth-q", "-o", tmp_path / "x.csv").code == 0
    assert loaded.figure("depth-q").to_csv() == (tmp_path / "x.csv").read_text(encoding="utf-8")
    assert "Shown: after 20 updates." in loaded.figure("depth-q", step=1000).caption
    ratios = initbench.compare(loaded, baseline="xavier").figure("depth-q")
    assert "ratios to xavier" in ratios.caption
    with pytest.raises(UsageError, match="did you mean 'depth-q'"):
        loaded.figure("depth-qq")


def test_a_notebook_shows_the_picture_and_the_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = select_figure(report_of([stored_run("a<b"), stored_run("c")]), "depth-q")
    bundle = drawn._repr_mimebundle_()
    assert bundle["image/svg+xml"] in bundle["text/html"]
    assert "a&lt;b: " not in bundle["text/plain"]
    assert "<figcaption><b>Second moment of the pre-activations against depth.</b>" in bundle["text/html"]
    assert "a<b" not in bundle["text/html"]
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert list(drawn._repr_mimebundle_()) == ["text/plain"]


def test_legends_distinguish_rows_without_colours() -> None:
    report = report_of([stored_run(f"row{i}") for i in range(10)])
    spec = print_spec(select_figure(report, "depth-q"), PrintLayout(1))
    (legend,) = [layer for layer in spec["layer"] if layer["mark"] == {"type": "point", "opacity": 0}]
    assert legend["encoding"]["shape"]["scale"]["domain"] == [f"row{i}" for i in range(10)]
    assert len(set(legend["encoding"]["shape"]["scale"]["range"])) == 10
    assert legend["encoding"]["shape"]["legend"]["symbolOpacity"] == 1


def test_a_figure_that_names_its_rows_has_a_legend_only_if_the_names_do_not_fit() -> None:
    def legends(*names: str) -> int:
        runs = [stored_run(name) for name in names]
        spec = print_spec(select_figure(report_of(runs), "histograms-activation"), PrintLayout(1))
        return sum(layer["mark"] == {"type": "point", "opacity": 0} for layer in spec["layer"])

    assert legends("kaiming", "xavier") == 0
    assert legends("kaiming", "xavier_" + 30 * "x") == 1


def test_captions_of_svg_have_space_for_a_wider_font() -> None:
    drawn = select_figure(report_of(two_arms()), "depth-q")
    anywhere, here = (print_spec(drawn, PrintLayout(1), has_font=has_font) for has_font in (False, True))
    longest = [max(map(len, spec["title"]["subtitle"])) for spec in (anywhere, here)]
    assert longest[0] < 0.93 * longest[1]


def test_the_command_does_not_import_torch(runs: Path, tmp_path: Path) -> None:
    arguments = ["figure", "depth-q", "-o", str(tmp_path / "x.svg"), "--runs-dir", str(runs)]
    code = f"import sys; from initbench.cli.main import run_command; run_command({arguments!r})"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    assert (tmp_path / "x.svg").exists()


def test_text_is_wrapped_to_the_width_and_a_long_word_is_broken() -> None:
    drawn = select_figure(report_of(two_arms()), "depth-q")
    title = print_spec(drawn, PrintLayout(1, heading=120 * "x"))["title"]
    assert "".join(title["text"]) == 120 * "x"
    assert " ".join(title["subtitle"]) == full_caption(drawn, PrintLayout(1)).partition(". ")[2]
    assert max(map(len, [*title["text"], *title["subtitle"]])) < 80
