"""The config of an experiment: one computation has one form, and keys that do not go together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from initbench.components.norm import NORMS
from initbench.config.loading import load_config, to_yaml, validate_data
from initbench.config.schema import ExperimentConfig, TrainOptions
from initbench.errors import ConfigError
from initbench.registry_choice import default_choice


def keys_at_fault(config):
    """The keys named by what is wrong with a config given as plain data."""
    _, faults = validate_data(ExperimentConfig, {"name": "a", **config}, lambda _path, _of_key: "")
    return [fault.key for fault in faults]


class TestOneForm:
    @pytest.mark.parametrize("train", [{}, {"steps": None}, {"steps": None, "epochs": None}, {"steps": 2000}])
    def test_the_default_budget_is_written_out(self, train):
        config = ExperimentConfig(name="a", train=TrainOptions(**train))
        assert config.resolved()["train"]["steps"] == 2000
        assert config.resolved()["train"]["epochs"] is None
        assert config == ExperimentConfig(name="a")

    def test_epochs_stand_alone(self):
        assert TrainOptions(epochs=3.0).steps is None
        assert TrainOptions(epochs=3.0, steps=None).steps is None

    @pytest.mark.parametrize("train", [{"epochs": 0.5}, {"steps": 7}, {}])
    def test_the_resolved_config_is_a_config_again(self, tmp_path, train):
        config = ExperimentConfig.model_validate({"name": "a", "train": train})
        assert ExperimentConfig.model_validate(config.resolved()) == config
        (tmp_path / "a.yaml").write_text(to_yaml(config), encoding="utf-8")
        assert load_config(tmp_path / "a.yaml", [], ExperimentConfig) == config

    def test_an_override_changes_steps_into_epochs(self, tmp_path):
        (tmp_path / "a.yaml").write_text("name: a\ntrain: {steps: 100}\n")
        changed = load_config(tmp_path / "a.yaml", ["train.steps=null", "train.epochs=2"], ExperimentConfig)
        assert (changed.train.steps, changed.train.epochs) == (None, 2.0)

    @pytest.mark.parametrize("when", [["end", "init"], ["init", "end"], ["end", "init", "end"]])
    def test_the_order_of_the_moments_of_measurement_does_not_matter(self, make_config, when):
        assert make_config(probe={"when": when}).resolved()["probe"]["when"] == ["init", "end"]

    def test_what_is_computed_has_neither_names_nor_seeds_nor_places(self, make_config):
        plain = make_config().identity_keys()
        assert (
            plain
            == make_config(
                name="b", notes="x", seeds=[5], data={"name": "digits", "fallback": "digits"}
            ).identity_keys()
        )
        assert not {"name", "notes", "seeds"} & set(plain)
        archives = [
            make_config(data={"name": "npz", "path": path}).identity_keys() for path in ("a.npz", "b.npz")
        ]
        assert archives[0] == archives[1]
        assert archives[0]["data"].items() >= {"name": "npz", "normalize": "global"}.items()
        assert not {"path", "fallback"} & set(archives[0]["data"])

    def test_what_is_stored_keeps_them(self, make_config):
        stored = make_config(notes="x", data={"name": "npz", "path": "a.npz"}).resolved()
        assert (stored["name"], stored["notes"], stored["seeds"]) == ("tiny", "x", 1)
        assert (stored["data"]["path"], stored["data"]["fallback"]) == ("a.npz", None)

    @pytest.mark.parametrize(
        "change",
        [
            {"model": {"depth": 4}},
            {"init": {"gain": 2.0}},
            {"train": {"epochs": 1.0, "steps": None}},
            {"data": {"normalize": "none"}},
            {"data": {"name": "mnist"}},
            {"probe": {"when": ["end"]}},
        ],
    )
    def test_what_is_computed_knows_every_other_change(self, make_config, change):
        assert make_config(**change).identity_keys() != make_config().identity_keys()


class TestKeysThatDoNotGoTogether:
    def test_steps_and_epochs(self):
        with pytest.raises(
            ValidationError, match=r"train\.epochs\n +give train\.steps or train\.epochs, not both"
        ):
            ExperimentConfig.model_validate({"name": "a", "train": {"steps": 5, "epochs": 1.0}})

    def test_a_budget_given_twice_is_told_beside_other_faults(self, tmp_path):
        (tmp_path / "a.yaml").write_text("name: a\ntrain: {steps: 5, epochs: 1, lr: x}\n")
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "a.yaml", [], ExperimentConfig)
        assert [fault.key for fault in caught.value.issues] == ["train.epochs", "train.lr"]

    def test_an_initial_bias_without_biases(self):
        with pytest.raises(ValidationError) as caught:
            ExperimentConfig.model_validate(
                {"name": "a", "model": {"family": "mlp", "bias": False}, "init": {"bias": 0.1}}
            )
        (error,) = caught.value.errors()
        assert error["ctx"]["key"] == "init.bias"
        assert "init.bias=0.1" in error["msg"]
        assert "model.bias=false" in error["msg"]
        without = {"name": "a", "model": {"family": "mlp", "bias": False}}
        assert ExperimentConfig.model_validate(without).init.bias is None

    def test_all_of_them_at_once(self):
        config = {
            "model": {"family": "mlp", "bias": False, "norm": "batch"},
            "init": {"bias": 0.1},
            "train": {"batch_size": 1},
        }
        assert NORMS["batch"].min_batch == 2
        assert keys_at_fault(config) == ["init.bias", "train.batch_size"]

    def test_ghost_batches_that_do_not_divide_the_batch(self):
        config = {"model": {"family": "mlp", "norm": "ghost_batch"}, "train": {"batch_size": 48}}
        assert keys_at_fault(config) == ["model.norm.ghost_size"]
        assert keys_at_fault({**config, "train": {"batch_size": 64}}) == []

    @pytest.mark.parametrize("norm", NORMS.names())
    def test_lsuv_rescales_nothing_where_the_scale_of_a_weight_has_no_effect(self, norm):
        entry = NORMS[norm]
        if entry.problem((128,), default_choice(NORMS, norm)) is not None:
            pytest.skip("no norm of a fully connected net")
        for scheme in ("lsuv", "orthogonal"):
            faults = keys_at_fault({"model": {"family": "mlp", "norm": norm}, "init": {"scheme": scheme}})
            assert faults == (["init.scheme"] if scheme == "lsuv" and entry.scale_free else [])

    def test_every_fault_of_a_file_at_once(self, tmp_path):
        (tmp_path / "a.yaml").write_text(
            "kind: experimant\nname: a b\nmodel: {dpth: 3, activation: rleu}\ndata: {name: mnits}\n"
            "train: {lr: x, optimizer: {momentum: 2}}\nprobe: {when: [start]}\nzzz: 1\n"
        )
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "a.yaml", ["init.gain=0"], ExperimentConfig)
        assert [fault.key for fault in caught.value.issues] == [
            "kind",
            "name",
            "model.family",
            "model.dpth",
            "model.activation",
            "data.name",
            "train.lr",
            "train.optimizer.name",
            "train.optimizer.momentum",
            "probe.when.0",
            "zzz",
            "init.gain",
        ]


class TestNetsThatCannotBe:
    """Refused from the published form of the data set, before it is looked for."""

    @pytest.mark.parametrize(
        ("config", "key"),
        [
            (
                {"data": {"name": "digits"}, "model": {"family": "mlp"}, "init": {"scheme": "fixup"}},
                "init.scheme",
            ),
            (
                {
                    "data": {"name": "cifar10"},
                    "model": {"family": "cnn", "depth": 4, "width": 2},
                    "init": {"scheme": "delta_orthogonal"},
                },
                "init.scheme",
            ),
            (
                {"data": {"name": "gaussian"}, "model": {"family": "cnn", "depth": 4, "width": 8}},
                "model.family",
            ),
        ],
    )
    def test_it_is_refused(self, config, key):
        assert keys_at_fault(config) == [key]

    def test_the_size_that_data_resize_asks_for_counts(self):
        model = {"family": "cnn", "depth": 6, "width": 8, "norm": "instance"}
        sizes = {
            size: keys_at_fault({"data": {"name": "mnist", "resize": size}, "model": model})
            for size in (2, 32)
        }
        assert sizes[2] and not sizes[32]

    def test_an_archive_of_ones_own_is_not_judged_before_it_is_read(self):
        data = {"name": "npz", "path": "nowhere.npz"}
        assert keys_at_fault({"data": data, "model": {"family": "mlp"}, "init": {"scheme": "fixup"}}) == []
