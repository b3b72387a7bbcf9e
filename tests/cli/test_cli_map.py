"""`initbench probe --map`: from the command line to the map, compared with theory."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = ("data.name=gaussian", "data.dim=32", "data.samples=400", "model.width=128", "probe.batch=64")


@pytest.fixture
def mapped(initbench: Any, repository: Path) -> Any:
    def call(*arguments: str, config: str = "tanh_critical") -> dict[str, Any]:
        said = initbench("probe", str(repository / "configs" / f"{config}.yaml"), *arguments, "--json")
        assert said.code == 0, said.err
        document: dict[str, Any] = json.loads(said.out)
        return document

    return call


def codes_at(document: dict[str, Any]) -> dict[tuple[float, int], list[str]]:
    return {(point["sigma_w"], point["depth"]): point["diagnosis"] for point in document["points"]}


def test_tanh_vanishes_below_the_depth_that_theory_gives_and_not_at_the_edge(mapped: Any) -> None:
    document = mapped(*SMALL, "--map", "sigma_w=0.7:1:2", "depth=2:40:20")
    (scales, at_edge), codes = document["theory"], codes_at(document)
    assert scales["chi_1"] == pytest.approx(0.49, rel=1e-3)
    # E[δ²] falls by χ₁ a layer, over depth − 2 of them, and the diagnosis asks for a fall to 1e-4. The first
    # layers' q is not small yet, which takes a factor of the order of 1; width 128 scatters its ln by 0.5.
    border = 2 + math.log(1e4) * scales["depth_scale_gradient"]
    for depth in document["axes"]["depth"]:
        vanishing = "vanishing_backward" in codes[0.7, depth]
        if depth >= border + 2:
            assert vanishing, depth
        elif depth <= border - 4:
            assert codes[0.7, depth] == [], depth
        assert codes[1.0, depth] == [], depth
    assert at_edge["depth_scale_gradient"] > 20


def test_relu_is_healthy_around_the_square_root_of_two(mapped: Any) -> None:
    document = mapped(*SMALL, "--map", "depth=40:40", "sigma_w=1.0:1.8284:5", config="relu_kaiming")
    codes = [point["diagnosis"] for point in document["points"]]
    assert codes[2] == [], "σ_w = √2"
    assert {"vanishing_forward", "vanishing_backward"} <= set(codes[0])
    assert {"exploding_forward", "exploding_backward"} <= set(codes[4])
    assert document["critical_sigma_w"] == pytest.approx(math.sqrt(2.0), rel=1e-3)


def test_gradients_fall_by_chi_1_a_layer(mapped: Any) -> None:
    """Over ten layers of width 256, the median of 8 nets: ln scatters by √(2·(10 + 20)/256/8)·1.25 = 0.22."""
    wide = [word for word in SMALL if "width" not in word]
    document = mapped(*wide, "model.width=256", "seeds=8", "--map", "sigma_w=0.7:0.75:2", "depth=12:22:2")
    ratios = {(point["sigma_w"], point["depth"]): point["gradient_ratio"] for point in document["points"]}
    fall = math.log(ratios[0.7, 22] / ratios[0.7, 12])
    own, neighbour = (10 * math.log(theory["chi_1"]) for theory in document["theory"])
    assert fall == pytest.approx(own, abs=0.66)
    assert abs(fall - neighbour) > 0.66


def test_the_order_of_axes_and_words_does_not_matter(mapped: Any, initbench: Any, repository: Path) -> None:
    config = str(repository / "configs" / "tanh_critical.yaml")
    first = mapped(*SMALL, "--map", "sigma_w=0.7:1:2", "depth=2:4")
    said = initbench("probe", "--map", "depth=2:4", "sigma_w=0.7:1:2", "--json", config, *SMALL)
    assert json.loads(said.out) == first


def test_every_point_is_what_probe_says_of_that_net(mapped: Any, initbench: Any, repository: Path) -> None:
    document = mapped(*SMALL, "--map", "sigma_w=0.6:2.6:2", "depth=20:30:2")
    for (sigma_w, depth), codes in codes_at(document).items():
        said = initbench(
            "probe",
            str(repository / "configs" / "tanh_critical.yaml"),
            *(*SMALL, "seeds=1", "init.scheme=lecun_normal", f"init.gain={sigma_w}", f"model.depth={depth}"),
            "--json",
        )
        assert [finding["code"] for finding in json.loads(said.out)["diagnosis"]] == codes


def test_what_theory_has_no_word_on_is_mapped_all_the_same(mapped: Any) -> None:
    document = mapped(*SMALL, "model.activation=crelu", "--map", "sigma_w=0.5:1:2", "depth=2:3")
    assert "crelu" in document["no_prediction"]
    assert document["theory"] == [] and len(document["points"]) == 4


def test_training_tells_which_nets_learn(
    mapped: Any, initbench: Any, repository: Path, tmp_path: Path
) -> None:
    words = ("data.name=digits", "model.width=32", "train.lr=0.02", "--train", "60")
    document = mapped(*words, "--map", "sigma_w=0.3:1.2:2", "depth=3:30:2")
    learned = {(point["sigma_w"], point["depth"]): point["learned"] for point in document["points"]}
    assert learned[1.2, 3] and not learned[0.3, 30]
    train = document["train"]
    for point in document["points"]:
        assert point["learned"] == (point["val_accuracy"] > train["learned_above"])
    config = str(repository / "configs" / "tanh_critical.yaml")
    said = initbench("probe", config, *words[:-1], "2", "--map", "sigma_w=0.9:1.2:2", "depth=3:4")
    assert "+ learned" in said.out and "Traceback" not in said.err
    assert "training 4 nets" in said.err and "training" not in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--map", "sigma=1:2", "depth=1:5"), "did you mean 'sigma_w'"),
        (("--map", "sigma_w=1:2"), "lacks the axis depth"),
        (("--map", "sigma_w=1:2", "depth=5:1"), "5 is above 1"),
        (("--map", "sigma_w=1:2", "depth=1:20000:3"), "model.depth"),
        (("--map", "sigma_w=1:2", "depth=1:5", "model.depth=3"), "--map sets model.depth at every point"),
        (("--map", "sigma_w=1:2", "depth=1:5", "init.scheme=zeros"), "--map sets init.scheme at every point"),
        (("--map", "sigma_w=1:2", "depth=1:5", "--depths", "1,2"), "cannot be combined with --depths"),
        (("--train", "5"), "--map"),
        (("--map", "sigma_w=1:2", "depth=1:5", "--train", "0"), "--train"),
        (("--map", "sigma_w=1:2", "depth=1:5", "model={family: resnet_mlp}"), "shortcuts"),
        (("--map", "sigma_w=1:2", "depth=1:5", "data.resize=32", "model={family: torchvision}"), "lacks"),
    ],
)
def test_what_cannot_be_mapped_is_refused(
    initbench: Any, repository: Path, arguments: tuple[str, ...], words: str
) -> None:
    said = initbench("probe", str(repository / "configs" / "tanh_critical.yaml"), *arguments)
    assert said.code == 2 and words in said.err
    assert said.out == "" and "Traceback" not in said.err


@pytest.mark.slow
def test_ctrl_c_ends_a_training_cleanly(repository: Path, tmp_path: Path) -> None:
    words = ("data.name=digits", "--map", "sigma_w=0.9:1:2", "depth=3:4", "--train", "1000000")
    process = subprocess.Popen(
        [sys.executable, "-m", "initbench", "probe", repository / "configs" / "tanh_critical.yaml", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "training" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == "" and "Traceback" not in err
