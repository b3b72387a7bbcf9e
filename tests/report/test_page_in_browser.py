"""The report page in a real browser: controls, links, downloads, keyboard, layout and colours."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_runs import SyntheticRow, write_runs
from initbench.analysis.load_runs import load_run_summaries
from initbench.cli.main import run_command
from initbench.render.compare.display_options import View
from initbench.report.build import figures_of
from initbench.report.figure import ReportFigure
from initbench.report.report_runs import compare_for_report
from initbench.store.store import Store

HEALTHY, SCRIPT = "healthy \"quoted\" & 'single'", "<script>alert(1)</script>"
WIDTHS = (360, 800, 1600)


@pytest.fixture(scope="module")
def figures(store_root: Path) -> dict[str, ReportFigure]:
    """The figures that the page shows, by key."""
    store = Store(store_root)
    runs = load_run_summaries(store, [])
    return {figure.key: figure for figure in figures_of(compare_for_report(store, runs, View()))}


def with_parameter(figures: dict[str, ReportFigure], name: str) -> set[str]:
    """Return the keys of the figures that a parameter changes."""
    found = {
        key
        for key, figure in figures.items()
        if any(p["name"] == name for p in figure.spec.get("params", ()))
    }
    assert found
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the keys of the figures whose marks differ."""
    return {key for key in after if before[key] != after[key]}


def set_slider(page: Any, name: str, value: int) -> None:
    """Move a slider as a user does."""
    page.locator(f"#{name}").fill(str(value))


def test_names_are_text(open_page: Callable[..., Any]) -> None:
    opened = open_page()
    names = opened.page.locator("#legend span").all_inner_texts()
    assert {HEALTHY, SCRIPT, "=1+1"} < set(names)
    assert any("</script><b>🚀" in name for name in names)
    assert opened.page.evaluate("document.querySelectorAll('main script:not(.figure-data)').length") == 0


def test_step_slider_changes_every_figure_of_a_step(
    open_page: Callable[..., Any], figures: dict[str, ReportFigure]
) -> None:
    opened = open_page()
    before = opened.plots()
    opened.change(lambda: set_slider(opened.page, "step", 3))
    assert opened.page.inner_text("#step-value") == "2,000"
    assert changed(before, opened.plots()) == with_parameter(figures, "step")


def test_hidden_row_is_in_no_figure(open_page: Callable[..., Any], figures: dict[str, ReportFigure]) -> None:
    opened = open_page()
    row = opened.page.locator("#legend li", has_text="healthy")
    colour = row.locator("line").get_attribute("stroke")
    marks = f".plot [stroke='{colour}'], .plot [fill='{colour}']"
    before = opened.plots()
    assert opened.page.locator(marks).count() > len(figures)
    opened.change(lambda: row.locator("input").uncheck())
    assert opened.page.locator(marks).count() == 0
    assert changed(before, opened.plots()) == with_parameter(figures, "hidden")
    assert opened.page.inner_text("#state") == "1 row is hidden."
    opened.change(lambda: row.locator("input").check())
    assert opened.page.locator(marks).count() > len(figures)


def test_baseline_makes_lines_relative(
    open_page: Callable[..., Any], figures: dict[str, ReportFigure]
) -> None:
    opened = open_page()
    before = opened.plots()
    opened.change(lambda: opened.page.select_option("#baseline", HEALTHY))
    assert opened.page.inner_text("#state").startswith(f"Lines are differences from {HEALTHY}")
    assert changed(before, opened.plots()) == with_parameter(figures, "baseline")
    opened.change(lambda: opened.page.click("#reset"))
    assert opened.page.inner_text("#state") == ""
    assert opened.plots() == before


def test_scale_button_switches_the_axis(open_page: Callable[..., Any]) -> None:
    opened = open_page()
    button = opened.page.locator("#depth-q .scale")
    labels = opened.page.locator("#depth-q .plot text")
    logarithmic = labels.all_text_contents()
    assert any("e" in label for label in logarithmic)
    button.click()
    opened.page.wait_for_function(
        "document.querySelector('#depth-q .scale').textContent === 'Logarithmic axis'"
    )
    opened.page.wait_for_function(
        "(old) => [...document.querySelectorAll('#depth-q .plot text')].map((t) => t.textContent).join() !== old",
        arg=",".join(logarithmic),
    )
    button.click()
    opened.page.wait_for_function(
        "(old) => [...document.querySelectorAll('#depth-q .plot text')].map((t) => t.textContent).join() === old",
        arg=",".join(logarithmic),
    )


def test_click_on_a_point_selects_its_layer_everywhere(
    open_page: Callable[..., Any], figures: dict[str, ReportFigure]
) -> None:
    opened = open_page()
    before = opened.plots()
    point = opened.page.locator("#depth-q .plot .mark-symbol path").nth(2)
    point.scroll_into_view_if_needed()
    opened.change(lambda: point.click(force=True))
    assert opened.page.inner_text("#layer-value") == "3"
    assert changed(before, opened.plots()) >= with_parameter(figures, "layer")
    opened.change(lambda: set_slider(opened.page, "layer", 0))
    assert opened.page.inner_text("#layer-value") == "none"
    assert opened.plots() == before


def test_hover_shows_the_exact_value(open_page: Callable[..., Any], figures: dict[str, ReportFigure]) -> None:
    opened = open_page()
    point = opened.page.locator("#depth-q .plot .mark-symbol path").nth(1)
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    tooltip = opened.page.wait_for_selector("#vg-tooltip-element.visible")
    cells = dict(re.findall(r"^(.*?)\t(.*)$", tooltip.inner_text(), re.MULTILINE))
    record = next(
        record
        for record in figures["depth-q"].rows()
        if (record["row"], record["step"], record["layer"]) == (cells["row"], 0, int(cells["layer"]))
    )
    assert float(cells["q = E[h²]"]) == record["value"]


def test_tables_sort_by_number(open_page: Callable[..., Any]) -> None:
    opened = open_page(draw=False)
    heading = opened.page.locator("#verdict th", has_text="test accuracy")
    column = "[...document.querySelectorAll('#verdict tbody tr')].map((row) => row.cells[2].textContent)"
    orders = {}
    for order in ("ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        cells = opened.page.evaluate(column)
        orders[order] = [float(cell.split()[0]) for cell in cells if cell.strip(" -–—")]
        assert len(orders[order]) == 3
    assert orders["ascending"] == sorted(orders["ascending"])
    assert orders["descending"] == sorted(orders["descending"], reverse=True)


def test_link_restores_the_view(open_page: Callable[..., Any]) -> None:
    opened = open_page()
    set_slider(opened.page, "step", 2)
    set_slider(opened.page, "layer", 4)
    opened.page.select_option("#baseline", SCRIPT)
    opened.change(lambda: opened.page.locator("#legend li", has_text="=1+1").locator("input").uncheck())
    opened.settle()
    again = open_page("#" + opened.page.url.partition("#")[2])
    assert again.page.input_value("#step") == "2"
    assert again.page.input_value("#layer") == "4"
    assert again.page.input_value("#baseline") == SCRIPT
    assert not again.page.locator("#legend li", has_text="=1+1").locator("input").is_checked()
    assert again.plots() == opened.plots()


def test_damaged_link_shows_the_first_view(open_page: Callable[..., Any]) -> None:
    opened = open_page("#depth?step=x&layer=99999&baseline=no&hidden=no&%ff", draw=False)
    opened.page.wait_for_function("document.body.dataset.ready === 'true'")
    assert opened.page.inner_text("#state") == ""
    assert opened.page.input_value("#step") == "0"


def test_downloads_are_the_figure_and_its_data(
    open_page: Callable[..., Any], figures: dict[str, ReportFigure]
) -> None:
    opened = open_page()
    for key, figure in figures.items():
        with opened.page.expect_download() as download:
            opened.page.click(f"#{key} .csv")
        assert download.value.suggested_filename == f"{key}.csv"
        text = Path(download.value.path()).read_bytes().decode()
        assert text == figure.to_csv()
        assert len(list(csv.reader(io.StringIO(text)))) == len(list(figure.rows())) + 1
    with opened.page.expect_download() as download:
        opened.page.click("#depth-q .svg")
    root = ET.parse(download.value.path()).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "layer" in texts
    assert SCRIPT in texts, "a picture of its own needs a legend"


def test_keyboard_reaches_and_operates_every_control(open_page: Callable[..., Any]) -> None:
    opened = open_page()
    page = opened.page
    focusable = page.evaluate(
        """() => {
          const all = document.querySelectorAll("a[href], input, select, button, summary, [tabindex='0']");
          const seen = [...all].filter((e) => e.checkVisibility() && !e.disabled);
          seen.forEach((e, i) => { e.dataset.order = String(i); });
          return seen.length;
        }"""
    )
    assert focusable > 30
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(focusable):
        page.keyboard.press("Tab")
        reached.append(int(page.evaluate("document.activeElement.dataset.order ?? '-1'")))
    assert reached == list(range(focusable))

    def press(selector: str, key: str) -> None:
        page.focus(selector)
        page.keyboard.press(key)

    opened.change(lambda: press(".row-shown", "Space"))
    assert not page.is_checked(".row-shown")
    opened.change(lambda: press("#step", "ArrowRight"))
    assert page.input_value("#step") == "1"
    opened.change(lambda: press("#layer", "ArrowRight"))
    assert page.inner_text("#layer-value") == "1"
    opened.change(lambda: press("#baseline", "ArrowDown"))
    assert page.input_value("#baseline") != ""
    press("#verdict th button", "Enter")
    assert page.get_attribute("#verdict th", "aria-sort") == "ascending"
    press("#depth-q summary", "Enter")
    assert page.get_attribute("#depth-q details", "open") is not None
    opened.change(lambda: press("#reset", "Enter"))
    assert page.is_checked(".row-shown")


def test_play_shows_one_step_after_another(open_page: Callable[..., Any]) -> None:
    opened = open_page()
    opened.change(lambda: opened.page.click("#play"))
    assert opened.page.inner_text("#play") == "Pause"
    opened.page.click("#play")
    assert opened.page.inner_text("#play") == "Play"
    assert int(opened.page.input_value("#step")) >= 1
    still = open_page(reduced_motion="reduce")
    assert not still.page.is_visible("#play")
    assert still.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_page_reads_without_scripts(open_page: Callable[..., Any], figures: dict[str, ReportFigure]) -> None:
    page = open_page(java_script_enabled=False).page
    for key, figure in figures.items():
        box = page.locator(f"#{key} .plot svg").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert page.locator(f"#{key} .plot svg path").count() > 3
        assert page.locator(f"#{key} tbody tr").count() == min(200, len(list(figure.rows())))
        assert not page.is_visible(f"#{key} .tools")
    assert page.locator("#verdict tbody tr").count() == 4
    assert page.locator("#legend span").count() == 4
    assert not page.is_visible("#sliders")
    assert not page.is_visible("#legend input")
    empty = (
        "[...document.querySelectorAll('main *')].filter((e) => e.tagName === 'DIV' && e.checkVisibility()"
    )
    assert page.evaluate(f"{empty} && !e.childElementCount && !e.textContent.trim()).length") == 0


def test_each_figure_is_described(open_page: Callable[..., Any], figures: dict[str, ReportFigure]) -> None:
    opened = open_page(draw=False)
    for key, figure in figures.items():
        plot = opened.page.locator(f"#{key} .plot")
        assert plot.get_attribute("role") == "img"
        assert plot.get_attribute("aria-label") == f"{figure.title}. {figure.takeaway}"


OVERLAPS = """() => {
  const found = [];
  const name = (e) => `${e.tagName}.${e.getAttribute("class") ?? ""}#${e.id} ${e.textContent.trim().slice(0, 30)}`;
  const check = (elements, slack) => {
    const boxes = elements.map((e) => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width && b.height);
    boxes.forEach(([first, a], i) => boxes.slice(i + 1).forEach(([second, b]) => {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > slack && y > slack) found.push(`${name(first)} overlaps ${name(second)}`);
    }));
  };
  const inFlow = (e) => e.checkVisibility() && !["absolute", "fixed", "sticky"].includes(getComputedStyle(e).position);
  for (const parent of document.querySelectorAll("body, header, main, section, figure, .figures, form, ul, nav, #sliders")) {
    check([...parent.children].filter(inFlow), 0.5);
  }
  for (const svg of document.querySelectorAll(".plot svg")) {
    check([...svg.querySelectorAll("text")].filter((t) => t.textContent && getComputedStyle(t).opacity !== "0"), 1);
    const frame = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const isOut = box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
      if (text.textContent && getComputedStyle(text).opacity !== "0" && isOut) found.push(`${name(text)} is cut off`);
    }
  }
  const width = document.documentElement.clientWidth;
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest(".scroll, pre, .plot, .skip, #legend, table") && !e.matches(".scroll, .plot, #legend")) continue;
    if (e.checkVisibility() && e.getBoundingClientRect().right > width + 0.5) found.push(`${name(e)} overflows`);
  }
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  return found;
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overlaps(open_page: Callable[..., Any], width: int) -> None:
    opened = open_page(width=width)
    assert opened.page.evaluate(OVERLAPS) == []


def test_window_can_become_narrow(open_page: Callable[..., Any]) -> None:
    opened = open_page(width=1600)
    opened.page.set_viewport_size({"width": 360, "height": 900})
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg').width.baseVal.value"
        " <= p.clientWidth + 1)"
    )
    opened.draw_all()
    assert opened.page.evaluate(OVERLAPS) == []


CONTRASTS = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const luminance = (rgb) => rgb
    .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) > 0.99) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || e.closest("script, style, .skip") || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const paper = background(e);
    const ink = over(parse(e.closest(".plot svg") ? style.fill : style.color), paper);
    const [dark, light] = [luminance(ink), luminance(paper)].sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${e.tagName} ${node.textContent.trim().slice(0, 40)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(open_page: Callable[..., Any], scheme: str) -> None:
    opened = open_page(color_scheme=scheme)
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == (scheme == "dark")
    opened.page.hover("#depth-q .plot .mark-symbol path >> nth=1", force=True)
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    assert opened.page.evaluate(CONTRASTS) == []


def test_print_has_the_figures_and_no_controls(open_page: Callable[..., Any]) -> None:
    opened = open_page(color_scheme="dark")
    opened.page.emulate_media(media="print")
    for selector in ("#sliders", "nav", ".tools", "#legend input", "#state", ".skip", "details.data"):
        assert not opened.page.locator(selector).first.is_visible(), selector
    assert opened.page.locator("#legend span").first.is_visible()
    assert opened.page.locator(".plot svg").first.is_visible()
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.evaluate(CONTRASTS) == []
    assert opened.page.pdf().startswith(b"%PDF")


def test_diverged_run_is_two_clicks_from_its_config(open_page: Callable[..., Any]) -> None:
    opened = open_page(draw=False)
    finding = opened.page.locator("#verdict .fold summary").first
    assert finding.is_visible()
    assert "layer 3 was the first to overflow" in finding.inner_text()
    opened.page.locator("#verdict tbody a", has_text="a name that is quite long").click()
    opened.page.wait_for_selector("#runs details[open] pre")
    config = opened.page.locator("#runs details[open] pre")
    assert "gain: 2.0" in config.inner_text()
    assert config.evaluate(
        "(e) => e.getBoundingClientRect().top >= document.getElementById('controls').getBoundingClientRect().bottom"
    )


@pytest.fixture(scope="session")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 24 rows."""
    folder = tmp_path_factory.mktemp("many")
    rows = [SyntheticRow(f"net_{number:02}", 0.9 + 0.01 * number) for number in range(24)]
    write_runs(folder / "runs", rows, depth=4, probes=2, bins=8)
    path = folder / "report.html"
    assert run_command(["report", "--runs-dir", str(folder / "runs"), "-o", str(path)]) == 0
    return path


def test_many_rows_can_be_searched(open_page: Callable[..., Any], many_rows: Path) -> None:
    opened = open_page(path=many_rows)
    page = opened.page
    assert page.locator("#legend li:visible").count() == 24
    page.fill("#filter", "NET_1")
    assert page.locator("#legend li:visible").count() == 10
    opened.change(lambda: page.click("#none"))
    assert page.inner_text("#state") == "10 rows are hidden."
    page.fill("#filter", "")
    opened.change(lambda: page.click("#none"))
    assert page.inner_text("#state") == "24 rows are hidden."
    page.fill("#filter", "net_07")
    opened.change(lambda: page.click("#all"))
    assert page.inner_text("#state") == "23 rows are hidden."
    headings = page.locator("#histograms-activation .plot text").all_text_contents()
    assert "net_07" in headings
    assert page.evaluate(OVERLAPS) == []
    height = page.evaluate("document.getElementById('controls').offsetHeight")
    assert height < 250


def test_headings_are_not_covered_when_links_are_followed(
    open_page: Callable[..., Any], many_rows: Path
) -> None:
    opened = open_page(path=many_rows, reduced_motion="reduce")
    for link in opened.page.locator("nav a").all():
        link.click()
        target = link.get_attribute("href").partition("#")[2]
        assert opened.page.evaluate(
            """(id) => {
              const top = document.querySelector(`#${id} h2`).getBoundingClientRect().top;
              return top >= document.getElementById("controls").getBoundingClientRect().bottom && top < innerHeight;
            }""",
            target,
        ), target
