"""The examples of docs/own_data.md, each run on data of its kind."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import initbench
from initbench.cli.main import app
from initbench.cli.recorded_sources import NO_DATA_FUNCTION, recorded_sources
from initbench.config.loading import load_config
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.data.preprocessing import preprocess
from initbench.errors import UsageError

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")
CONFIGS = {yaml.safe_load(text)["name"]: text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)}


def write_photos() -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (Path("photos") / label).mkdir(parents=True)
        for number in range(20):
            image = rng.integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
            Image.fromarray(image).save(f"photos/{label}/{number}.jpg")


def write_survey() -> None:
    header, first, second = re.search(r"(age,.*)\n(.*)\n(.*)\n```", PAGE).groups()
    Path("survey.csv").write_text("\n".join([header, *[first, second] * 20, ""]), encoding="utf-8")


def write_novel() -> None:
    Path("novel.txt").write_text("It was a dark and stormy night. " * 100, encoding="utf-8")


def write_mine() -> None:
    exec(re.search(r"```python\n(import numpy.*?)```", PAGE, re.DOTALL)[1], {})


def write_spirals() -> None:
    function = re.search(r"```python\n(import numpy as np\n\n\ndef make_data.*?)```", PAGE, re.DOTALL)[1]
    Path("spirals.py").write_text(function, encoding="utf-8")


def write_scans() -> None:
    rng = np.random.default_rng(0)
    Path("scans").mkdir()
    files = {"images-idx3": rng.integers(0, 256, (50, 8, 8)), "labels-idx1": np.arange(50) % 5}
    for name, values in files.items():
        header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        content = gzip.compress(header + values.astype("u1").tobytes())
        Path(f"scans/train-{name}-ubyte.gz").write_bytes(content)


def write_flowers() -> None:
    rng = np.random.default_rng(0)
    columns = {"petal": rng.normal(size=60), "sepal": rng.normal(size=60), "species": ["iris", "rose"] * 30}
    Path("flowers").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), "flowers/train.parquet")


WRITE: dict[str, Callable[[], None]] = {
    "photos": write_photos,
    "survey": write_survey,
    "novel": write_novel,
    "mine": write_mine,
    "scans": write_scans,
    "spirals": write_spirals,
    "flowers": write_flowers,
}


def test_every_example_is_run() -> None:
    assert set(CONFIGS) == set(WRITE)
    assert all(len(text.splitlines()) <= 10 for text in CONFIGS.values())


@pytest.mark.parametrize("name", WRITE)
def test_an_example_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if name == "flowers":
        pytest.importorskip("datasets")
    WRITE[name]()
    Path("example.yaml").write_text(CONFIGS[name], encoding="utf-8")
    if name == "novel":  # no family of initbench embeds tokens
        data = load_config("example.yaml", [], ExperimentConfig).data
        prepared = preprocess(resolve_dataset(data, DataSource(root=tmp_path)), data, "cpu")
        assert prepared.form.vocabulary == len(prepared.class_names)
        assert prepared.input_shape == (32,)
        return
    if name == "spirals":
        command = re.search(r"```sh\ninitbench (run spirals.*?)\n```", PAGE)[1].replace(
            "spirals.yaml", "example.yaml"
        )
        result = CliRunner().invoke(app, [*command.split(), "--workers", "1"])
        assert result.exit_code == 0, result.output
        with pytest.raises(UsageError, match=NO_DATA_FUNCTION) as caught:
            initbench.run("example.yaml", device="cpu")
        (line,) = recorded_sources(caught.value, ["run", "example.yaml"])
        assert line == "the stored runs of spirals were trained on data of --data-from spirals:make_data"
        shown = CliRunner().invoke(app, ["show", "spirals"]).stdout
        assert "Data      made with --data-from spirals:make_data" in shown
        (shown_run,) = json.loads(CliRunner().invoke(app, ["show", "spirals", "--json"]).stdout)["runs"]
        assert shown_run["custom_data"] == {"function": "spirals:make_data"}
        return
    (run,) = initbench.run("example.yaml", device="cpu")
    assert run.status == "finished"
