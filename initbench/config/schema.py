"""Schema of an experiment's config. Names and options are checked against the registries.

Whether the net can be built is checked when a config is loaded (`config.loading`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from initbench.components.init_scheme import INITS, SchemeContext, SchemeRequirement
from initbench.components.inits.pretrained_scheme import TransferOptions
from initbench.components.loss import LOSSES, fitting_losses
from initbench.components.norm import NORMS
from initbench.components.optimizer import OPTIMIZERS
from initbench.components.schedule import SCHEDULES
from initbench.components.target import SampleShape
from initbench.data.dataset import DATASETS, DataOptions, form_of
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES, FamilyOptions
from initbench.registry import MAX_COUNT, MAX_NUMBER, Options, Section
from initbench.registry_choice import Choice, default_choice

Seed = Annotated[int, Field(ge=0, lt=2**63)]
SeedList = Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
When = Literal["init", "train", "end"]
TopK = Literal[2, 3, 5, 10, 20]

DEFAULT_STEPS = 2000

_COMPUTES_NOTHING = {"name", "notes", "seeds"}
_LOCATES_DATA = re.compile(r"fallback|(?:\w+_)?path")


def _key_issue(problem: str, **location: str) -> PydanticCustomError:
    """Return an error at `at`, a key below the validated value, or `key`, a key of the whole config."""
    return PydanticCustomError("key_fault", "{problem}", {"problem": problem, **location})


class LrFactors(Section):
    """Learning rates by part of the net, as multiples of `train.lr`."""

    body: float = Field(default=1.0, gt=0.0)
    """Factor of every layer but the last."""
    head: float = Field(default=1.0, gt=0.0)
    """Factor of the last layer."""


class TrainOptions(Section):
    """Training of the net."""

    steps: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Number of updates; 2,000 if `epochs` is not given either."""
    epochs: float | None = Field(default=None, gt=0.0, le=1e6)
    """Passes over the training split, instead of `steps`; a fraction is allowed."""
    batch_size: int = Field(default=128, ge=1, le=MAX_COUNT)
    """Samples per update; the incomplete last batch of an epoch is dropped."""
    optimizer: Annotated[Options, Choice(OPTIMIZERS)] = Field(
        default_factory=lambda: default_choice(OPTIMIZERS, "sgd")
    )
    """Optimizer: a name, or a mapping of name and options (momentum, nesterov, …)."""
    loss: Annotated[Options, Choice(LOSSES)] = Field(
        default_factory=lambda: default_choice(LOSSES, "cross_entropy")
    )
    """Loss: a name, or a mapping of name and options. It must fit the targets of the data set."""
    lr: float = Field(default=0.01, ge=0.0)
    """Learning rate before the schedule."""
    lr_factors: LrFactors = Field(default_factory=LrFactors)
    """Factors of the learning rate: `body` for every layer but the last, `head` for the last; 1 for both.

    A pretrained body is often trained more slowly than its new head: `lr_factors: {body: 0.1}`."""
    schedule: Annotated[Options, Choice(SCHEDULES)] = Field(
        default_factory=lambda: default_choice(SCHEDULES, "constant")
    )
    """Learning-rate schedule: a name, or a mapping of name and options."""
    warmup_steps: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Updates over which the learning rate rises linearly to `lr`."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Weight decay of every parameter; decoupled from the gradient only for adamw."""
    clip_norm: float | None = Field(default=None, gt=0.0)
    """Maximum norm of a run's whole gradient; null for no clipping."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the target spread evenly over all classes; only with `loss: cross_entropy`."""
    eval_every: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Updates between evaluations; null for ten evaluations, spread evenly over the budget."""
    top_k: list[TopK] | None = None
    """Numbers k of the top-k accuracies to record: 2, 3, 5, 10 or 20, each below the number of classes.

    null records the top-5 accuracy if samples have one of more than ten classes."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of matrix products in training and evaluation; bf16 gives other numbers.

    Weights, norm statistics, losses, the optimizer and probes are float32 in either case. On a processor with
    bf16 instructions, bf16 is faster for stacked runs of nets without norm layers, and slower for a single
    run of a narrow net."""

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, options: Any) -> Any:
        """Set the default number of steps explicitly, so that a budget has one form."""
        if isinstance(options, dict) and options.get("steps") is None and options.get("epochs") is None:
            return {**options, "steps": DEFAULT_STEPS}
        return options

    @model_validator(mode="after")
    def _updates_fit_float32(self) -> TrainOptions:
        """Refuse a learning rate that the optimizer's factors make infinite in float32."""
        rate = self.lr * max(self.lr_factors.body, self.lr_factors.head)
        rate /= 1.0 - getattr(self.optimizer, "beta1", 0.0)  # Adam's correction of its first update
        largest = rate * max(1.0, self.weight_decay)
        if largest > MAX_NUMBER:
            problem = (
                f"the learning rate times lr_factors and weight_decay is {largest:.3g}; at most"
                f" {MAX_NUMBER:g} is finite in float32"
            )
            raise _key_issue(problem, at="lr")
        return self

    @field_validator("top_k")
    @classmethod
    def _in_ascending_order(cls, top_k: list[TopK] | None) -> list[TopK] | None:
        return None if top_k is None else sorted(set(top_k))

    @field_validator("label_smoothing")
    @classmethod
    def _smoothing_fits_the_loss(cls, smoothing: float, others: ValidationInfo) -> float:
        loss = others.data.get("loss")
        if smoothing and loss is not None and loss.name != "cross_entropy":
            raise _key_issue(f"label_smoothing is only for train.loss=cross_entropy, not for {loss.name}")
        return smoothing

    @field_validator("epochs")
    @classmethod
    def _one_budget(cls, epochs: float | None, others: ValidationInfo) -> float | None:
        if epochs is not None and others.data.get("steps") is not None:
            raise _key_issue("give train.steps or train.epochs, not both")
        return epochs


class ProbeOptions(Section):
    """Measurement of the layers."""

    when: list[When] = Field(default=["init", "train", "end"])
    """Moments of measurement: at init, at the evaluations in between, at the end; in any order."""
    batch: int = Field(default=512, ge=2, le=1_000_000)
    """Samples of the fixed batch from the training split; convolutional nets use at most the first 64."""
    bins: int = Field(default=32, ge=2, le=1024)
    """Bins of the histograms of activations, pre-activations and gradients."""
    covariate_shift: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Updates between measurements of internal covariate shift, layer by layer; null for none.

    Each costs about as much as two updates for every three weight layers."""

    @field_validator("when")
    @classmethod
    def _in_order_of_time(cls, when: list[When]) -> list[When]:
        return [moment for moment in get_args(When) if moment in when]


class ExperimentConfig(Section):
    """One experiment: an architecture, an init, a data set and a training, under some seeds."""

    kind: Literal["experiment"] = "experiment"
    """Kind of config that this file declares."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the experiment: letters, digits, dots, dashes and underscores."""
    notes: str = ""
    """Notes for readers: what to look at."""
    seeds: (
        Annotated[int, Field(ge=1, le=10_000)] | Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
    ) = 1
    """Number of seeds (n means 0 … n−1), or a list of seeds."""
    data: Annotated[DataOptions, Choice(DATASETS, shorthand=False)] = Field(
        default_factory=lambda: default_choice(DATASETS, "mnist")
    )
    """Data set, its preparation and its options."""
    model: Annotated[FamilyOptions, Choice(FAMILIES, "family", shorthand=False)] = Field(
        default_factory=lambda: default_choice(FAMILIES, "mlp", "family")
    )
    """Architecture."""
    init: InitOptions = Field(default_factory=InitOptions)
    """Weight initialisation."""
    train: TrainOptions = Field(default_factory=TrainOptions)
    """Training."""
    probe: ProbeOptions = Field(default_factory=ProbeOptions)
    """Measurement."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
            raise _key_issue("a seed is listed twice")
        return seeds

    @model_validator(mode="after")
    def _sections_fit(self) -> ExperimentConfig:
        misfits = [InitErrorDetails(type=fault, input=self) for fault in self._cross_section_issues()]
        if misfits:
            raise ValidationError.from_exception_data("ExperimentConfig", misfits)
        return self

    def _cross_section_issues(self) -> Iterator[PydanticCustomError]:
        """Yield the conflicts between sections that are valid by themselves."""
        if isinstance(self.init.scheme, TransferOptions) and self.init.scheme.source == self.name:
            yield _key_issue("an experiment cannot start from its own runs", key="init.scheme.from")
        if self.init.bias is not None and not self.model.bias:
            problem = f"init.bias={self.init.bias:g} has no effect: with model.bias=false there are no biases"
            yield _key_issue(problem, key="init.bias")
        norm_options = self.model.declared_norm
        norm = NORMS["none" if norm_options is None else norm_options.name]
        activation = self.model.declared_activation
        setting = None if activation is None else SchemeContext(activation, norm.name, self.model.bias)
        for key, problem in self.init.misfits(setting):
            yield _key_issue(problem, key=key)
        if self.probe.covariate_shift is not None and not FAMILIES[self.model.family].has_layer_order:
            problem = (
                "compares a layer's gradient before and after the update of the layers below it, and a net of"
                " your own may use layers in parallel, twice or as functions; remove the key"
            )
            yield _key_issue(problem, key="probe.covariate_shift")
        form, labelled = form_of(self.data), self.data.labelled
        if form is not None:
            for key, problem in self.target_issues(form):
                yield _key_issue(problem, key=key)
        if form is not None and labelled is not None and labelled < form.outputs:
            problem = f"{labelled:,} labels are too few for {form.outputs:,} classes: each needs one at least"
            yield _key_issue(problem, key="data.labelled")
        for key, batch in self._batch_sizes():
            if batch < norm.min_batch:
                problem = (
                    f"model.norm={norm.name} needs at least {norm.min_batch} samples a batch, not {batch}"
                )
                yield _key_issue(problem, key=key)
            unfit = norm.batch_problem(batch, norm_options)
            if unfit is not None:
                option, sentence = unfit
                yield _key_issue(f"{sentence} ({key})", key=f"model.norm.{option}".rstrip("."))
        if norm.acts_on == "weights" and self.model.norm_placement != "before_activation":
            problem = f"{self.model.norm_placement} has no effect: model.norm={norm.name} acts on the weights"
            yield _key_issue(problem, key="model.norm_placement")
        if norm.scale_free and INITS[self.init.scheme.name].needs is SchemeRequirement.FIRST_BATCH:
            scheme = self.init.scheme.name
            problem = f"init.scheme={scheme} rescales weights, which model.norm={norm.name} undoes"
            yield _key_issue(problem, key="init.scheme")

    def target_issues(self, form: SampleShape) -> Iterator[tuple[str, str]]:
        """Yield (key, message) for each conflict of the loss and the net with samples of this form."""
        loss, family = self.train.loss.name, self.model.family
        if form.target not in LOSSES[loss].targets:
            fitting = " or ".join(fitting_losses(form.target)) or "a loss of your own (--loss-from)"
            yield (
                "train.loss",
                f"{loss} is not for the targets of this data set, {form.target.phrase}: use {fitting}",
            )
        if top_k := self.train.top_k:
            if not form.target.is_class_index:
                yield "train.top_k", f"the targets of this data set are not classes but {form.target.phrase}"
            elif top_k[-1] >= form.outputs:
                problem = f"all predictions are in the top {top_k[-1]} of {form.outputs} classes"
                yield "train.top_k", f"{problem}; choose numbers below {form.outputs}"
        if FAMILIES[family].takes_positions:
            return
        if form.vocabulary is not None:
            yield (
                "model.family",
                f"{family} takes real inputs and not token ids; use a net of your own (--model)",
            )
        elif form.target.has_positions(form.target_shape):
            yield (
                "model.family",
                f"{family} has outputs for whole samples, and the targets of this data set,"
                f" {form.target.phrase}, belong to positions; use a net of your own (--model)",
            )

    def _batch_sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the batch sizes of training and, if separate, of pre-training, with their keys."""
        yield "train.batch_size", self.train.batch_size
        pretraining_batch = getattr(self.init.scheme, "batch_size", None)
        if pretraining_batch is not None:
            yield "init.scheme.batch_size", pretraining_batch

    @property
    def seed_list(self) -> tuple[int, ...]:
        """Seeds, one for each run."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    def with_seeds(self, *seeds: int) -> ExperimentConfig:
        """Return a copy of the experiment with other seeds."""
        return self.model_copy(update={"seeds": list(seeds)})

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, defaults included, as plain YAML data."""
        return self.model_dump(mode="json")

    def identity_keys(self) -> dict[str, Any]:
        """Return the keys of `resolved` that determine the numbers of a run, given its seed and data.

        These are all keys but `name`, `notes`, `seeds`, and the keys that locate the data set or the weights
        of another net. The located data and weights have identities of their own.
        """
        keys = {key: value for key, value in self.resolved().items() if key not in _COMPUTES_NOTHING}
        keys["data"] = {key: value for key, value in keys["data"].items() if not _LOCATES_DATA.fullmatch(key)}
        if isinstance(self.init.scheme, TransferOptions):
            scheme = {key: value for key, value in keys["init"]["scheme"].items() if key != "from"}
            keys["init"] = {**keys["init"], "scheme": scheme}
        return keys


def rebuild_schemas() -> None:
    """Validate configs with the losses that are registered now."""
    TrainOptions.model_rebuild(force=True)
    ExperimentConfig.model_rebuild(force=True)
