"""docs/scale.md: figures per run from the samples, and the parts of the page that the benchmark writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale_page
from benchmarks.directory_fanout import OPERATIONS, Fanout
from benchmarks.scale import COMMANDS, COMPARE, Footprint, Sample


def sample(size: int, cpu: float, command: str = COMPARE, runs: int | None = None) -> Sample:
    return Sample("points", size, command, size if runs is None else runs, 2.0 * cpu, cpu, 1e6 * cpu)


def test_figure_per_run_is_the_growth_beyond_the_smallest_size() -> None:
    samples = [sample(100, 1.0), sample(1000, 2.0), sample(1000, 1.9), sample(1000, 9.0)]
    assert scale_page.per_run(samples, 1000, lambda s: s.cpu) == pytest.approx(1.0 / 900)
    assert scale_page.per_run(samples, 100, lambda s: s.cpu) is None
    halves = [sample(100, 1.0, runs=50), sample(1000, 2.0, runs=500)]
    assert scale_page.per_run(halves, 1000, lambda s: s.cpu) == pytest.approx(1.0 / 450)


def test_measured_parts_are_replaced_and_prose_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scale.md"
    path.write_text(scale_page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(scale_page, "PAGE", path)
    sizes = (100, 1000, 10_000)
    samples = [sample(size, size / 1e3, command) for size in sizes for command in COMMANDS]
    fanouts = [Fanout(10_000, False, dict.fromkeys(OPERATIONS, 1.5))]
    scale_page.write(samples, Footprint(40e3, 9.0, 300.0), fanouts)
    text = path.read_text(encoding="utf-8")
    assert "| compare | 1 | 1 | 1.00 |" in text
    assert "| 10,000 | one directory | 1.5 | 1.5 | 1.5 | 1.5 | 1.5 |" in text
    assert "| space | 4.0 GB | 400 GB |" in text
    assert "## What was changed" in text
