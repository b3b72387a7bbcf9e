"""Names, numbers and keys as people type them: accepted, or answered with what was meant."""

import pytest

from initbench.config.issue_messages import type_mismatch, unknown_key
from initbench.config.loading import load_all, load_config
from initbench.config.registry_fields import registry_fields
from initbench.config.schema import ExperimentConfig
from initbench.errors import ConfigError

REGISTRIES = {kind.registry.kind: kind.registry for kind in registry_fields()}
MEANT = {
    "init scheme": {
        "kaiming_normal": "he_normal HeNormal kaiming_normal_ Kaiming-Normal msra_normal",
        "kaiming_uniform": "he_uniform KaimingUniform",
        "xavier_normal": "glorot_normal GlorotNormal xavier_normal_",
        "xavier_uniform": "glorot_uniform Glorot_Uniform",
        "trunc_normal": "truncated_normal TruncatedNormal trunc_normal_",
        "orthogonal": "Orthogonal orthogonal_",
        "zeros": "Zeros zero",
        "torch_default": "default pytorch",
    },
    "activation": {
        "silu": "swish SiLU Swish",
        "leaky_relu": "LeakyReLU leakyrelu lrelu leaky-relu",
        "relu": "ReLU RELU",
        "linear": "identity none",
        "sigmoid": "logistic Sigmoid",
        "gelu_tanh": "gelu_new",
        "hard_swish": "Hardswish",
    },
    "norm": {
        "batch": "BatchNorm batchnorm batch_norm BatchNorm1d BatchNorm2d bn BatchNormalization",
        "layer": "LayerNorm layernorm layer_norm ln",
        "group": "GroupNorm group_norm",
        "instance": "InstanceNorm2d",
        "rms": "RMSNorm rms_norm",
        "local_response": "lrn LRN LocalResponseNorm",
        "weight": "weight_norm WeightNorm",
        "spectral": "SpectralNorm spectral_norm",
        "none": "None NONE",
    },
    "optimizer": {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW adam_w", "rmsprop": "RMSprop"},
    "schedule": {"cosine": "CosineAnnealingLR", "step": "StepLR MultiStepLR"},
    "data set": {
        "mnist": "MNIST Mnist",
        "cifar10": "cifar-10 CIFAR10 CIFAR-10",
        "cifar100": "CIFAR-100",
        "fashion_mnist": "FashionMNIST fashion-mnist",
        "kmnist": "KMNIST",
    },
    "model family": {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet"},
}
SUGGESTED = {
    "init scheme": {
        "xavier": "'xavier_normal' or 'xavier_uniform'",
        "glorot": "'xavier_normal' or 'xavier_uniform'",
        "kaiming": "'kaiming_normal' or 'kaiming_uniform'",
        "He": "'kaiming_normal' or 'kaiming_uniform'",
        "hewy_normal": "'kaiming_normal'",
    },
    "optimizer": {"momentum": "'sgd'"},
    "model family": {"resnet18": "'torchvision'", "resnet56": "'resnet'"},
    "data set": {"cifar": "'cifar10' or 'cifar100'"},
}


def pairs(table):
    return [
        (kind, name, word)
        for kind, names in table.items()
        for name, words in names.items()
        for word in words.split()
    ]


@pytest.mark.parametrize(("kind", "name", "word"), pairs(MEANT))
def test_names_of_torch_keras_and_papers_mean_ours(kind, name, word):
    assert REGISTRIES[kind].canonical_name(word) == name
    assert REGISTRIES[kind][word].name == name


@pytest.mark.parametrize(
    ("kind", "word", "names"),
    [(k, word, names) for k, table in SUGGESTED.items() for word, names in table.items()],
)
def test_names_that_could_mean_several_are_answered_with_all(kind, word, names):
    assert REGISTRIES[kind].canonical_name(word) is None
    assert REGISTRIES[kind].unknown_message(word).endswith(f"did you mean {names}?")


@pytest.mark.parametrize(
    ("kind", "word"),
    [("optimizer", "nadam"), ("optimizer", "Adagrad"), ("data set", "EMNIST"), ("activation", "quick_gelu")],
)
def test_no_near_name_is_offered_for_another_thing(kind, word):
    assert "; choose from " in REGISTRIES[kind].unknown_message(word)


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=lambda registry: registry.kind)
def test_every_alias_means_one_entry(registry):
    for entry in registry:
        for alias in entry.aliases:
            assert registry.canonical_name(alias) == entry.name
        for word in entry.suggested_for:
            assert registry.canonical_name(word) is None


def test_an_alias_is_stored_under_the_name_it_stands_for(tmp_path):
    ours = tmp_path / "ours.yaml"
    ours.write_text(
        "name: a\ndata: {name: mnist}\nmodel: {family: mlp, activation: silu, norm: batch}\n"
        "init: {scheme: kaiming_normal}\ntrain: {optimizer: {name: adam, beta1: 0.8}}\n"
    )
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        "name: a\ndata: {name: MNIST}\nmodel: {family: MLP, activation: swish, norm: {name: BatchNorm2d}}\n"
        "init: {scheme: he_normal}\ntrain: {optimizer: {name: Adam, beta1: 0.8}}\n"
    )
    one, other = load_all([ours, theirs], [], ExperimentConfig)
    assert one == other
    assert one.identity_keys() == other.identity_keys()
    changed = load_config(ours, ["model.norm=GroupNorm", "model.norm.num_groups=4"], ExperimentConfig)
    assert changed.resolved()["model"]["norm"]["name"] == "group"


WHOLE, NUMBER, LIST = {"type": "int_type"}, {"type": "float_type"}, {"type": "list_type"}


@pytest.mark.parametrize(
    ("text", "nouns", "hint"),
    [
        ("1,2,3", (WHOLE, LIST), "write [1, 2, 3]"),
        ("1 2 3", (WHOLE, LIST), "write [1, 2, 3]"),
        ("(1, 2)", (LIST,), "write [1, 2]"),
        ("relu, tanh", (LIST,), "write [relu, tanh]"),
        ("Conv", (LIST,), "write [Conv]"),
        ("1,2,3", (WHOLE,), None),
        ("1,2,3", (NUMBER,), None),
        ("0,01", (NUMBER,), "write 0.01"),
        ("0,01", (WHOLE, LIST), None),
        ("1,5", (NUMBER,), "write 1.5"),
        ("-1,5", (NUMBER,), "write -1.5"),
        ("1,5e-3", (NUMBER,), "write 1.5e-3"),
        ("1,500", (WHOLE,), "write 1500"),
        ("1,500", (NUMBER,), "write 1500 or 1.500"),
        ("1,500", (WHOLE, LIST), "write 1500 or [1, 500]"),
        ("1.500,25", (NUMBER,), "write 1500.25"),
        ("1,500.25", (NUMBER,), "write 1500.25"),
        ("1_000", (WHOLE,), "write 1000"),
        ("1 000", (WHOLE, LIST), "write 1000"),
        ("1'000'000", (WHOLE,), "write 1000000"),
        ("10 %", (NUMBER,), "write 0.1"),
        ("05", (WHOLE,), "write 5"),
        ("5", (WHOLE,), "write 5 without quotes"),
        ("1/3", (NUMBER,), None),
        ("ten", (NUMBER,), None),
        ("1.2.3", (NUMBER,), None),
    ],
)
def test_wrong_suggestions_are_none_of_these(text, nouns, hint):
    problem = type_mismatch([{**noun, "input": text} for noun in nouns])
    assert (problem.rpartition("; ")[2] if "; " in problem else None) == hint


@pytest.mark.parametrize(
    ("key", "siblings", "guess"),
    [
        ("learning_rate", ("lr", "label_smoothing", "steps"), "lr"),
        ("scheduler", ("schedule", "steps"), "schedule"),
        ("nonlinearity", ("activation", "norm", "norm_placement"), "activation"),
        ("num_layers", ("width", "depth"), "depth"),
        ("hidden_size", ("width", "depth"), "width"),
        ("name", ("family", "depth"), "family"),
        ("dpeth", ("width", "depth"), "depth"),
    ],
)
def test_keys_of_other_libraries_are_answered_with_ours(key, siblings, guess):
    assert unknown_key(key, siblings) == f"unknown key; did you mean {guess!r}?"


def faults(tmp_path, text, *overrides):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, ExperimentConfig)
    return "\n".join(str(fault) for fault in caught.value.issues)


@pytest.mark.parametrize(
    "text",
    [
        "name: a\nmodel:\n  family:mlp\n",
        "name: a\nmodel: {family:mlp}\n",
        "name: a\ntrain:\n  lr:0.1\n",
        "name: a\nmodel:\n  norm:\n    name:group\n",
        "name: a\nmodel:\n  family: mlp\n  depth:3\n",
        "name: a\ndata:digits\nmodel:\n  family: mlp\n",
        "name:a\n",
    ],
)
def test_a_missing_space_behind_a_colon_is_named(tmp_path, text):
    assert "a space is missing behind ':'" in faults(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+model.depth=3", "write model.depth=3 (no + or ~ here)"),
        ("++model.depth=3", "write model.depth=3 (no + or ~ here)"),
        ("~train.lr", "write train.lr=VALUE (no + or ~ here)"),
        ("train.lr:0.1", "write train.lr=0.1"),
        ("train.lr==0.1", "write train.lr=0.1"),
        ("train.lr+=0.1", "write train.lr=0.1"),
    ],
)
def test_overrides_of_other_programs_are_answered_with_ours(tmp_path, override, said):
    from initbench.config.overrides import split_arguments

    assert split_arguments([override]) == ([], [override])
    assert said in faults(tmp_path, "name: a\n", override)
