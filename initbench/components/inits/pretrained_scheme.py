"""The scheme that takes its weights from elsewhere: a stored run, a file, a published net."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from initbench.components.init_scheme import INITS, Scheme, SchemeRequirement, kaiming_gain
from initbench.components.inits.variance_scaling import draw, fan_in_variance
from initbench.registry import Options

TORCHVISION = "torchvision:"
_FREEZE = r"none|all_but_head|first_[1-9][0-9]{0,5}"
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def _fault(key: str, problem: str) -> PydanticCustomError:
    return PydanticCustomError("key_fault", "{problem}", {"problem": problem, "at": key})


class TransferOptions(Options):
    """Options of pretrained; `from`, a keyword of Python, is added to them below."""

    freeze: str = Field(default="none", json_schema_extra={"pattern": f"^({_FREEZE})$"})
    """Weight layers that are not trained: `none`, `all_but_head`, or `first_k` for the first k, as `first_3`.

    Their biases and norm layers are frozen with them: no update, no weight decay. What is frozen has to be
    taken from the source."""
    frozen_norm: Literal["running", "batch"] = "running"
    """What batch norm in frozen layers normalises by in training.

    `running`: its running statistics, which stay as they were taken, so that frozen layers are one fixed
    function. `batch`: each batch's own, which the running ones go on following."""

    @field_validator("freeze")
    @classmethod
    def _freeze_is_known(cls, freeze: str) -> str:
        if re.fullmatch(_FREEZE, freeze) is None:
            raise _fault(
                "", f"is none, all_but_head or first_k with a number k, as first_3; found {freeze!r}"
            )
        return freeze

    @model_validator(mode="after")
    def _source_is_known(self) -> TransferOptions:
        if self.source.startswith(TORCHVISION):
            problem = _unknown_weights(self.source.removeprefix(TORCHVISION))
            if problem is not None:
                raise _fault("from", problem)
        return self

    @property
    def source(self) -> str:
        """The option `from`."""
        return str(getattr(self, "from"))

    @property
    def is_file(self) -> bool:
        """Whether `from` is the path of a file: it has a slash, or ends as files of weights do."""
        return "/" in self.source or self.source.endswith(_FILES)

    def frozen(self, layers: int) -> int:
        """How many weight layers are frozen, from the first on, in a net of `layers`, head included."""
        if self.freeze == "none":
            return 0
        return layers - 1 if self.freeze == "all_but_head" else int(self.freeze.removeprefix("first_"))


def _unknown_weights(name: str) -> str | None:
    """Why `name` names no weights of torchvision; None where it does."""
    from torchvision.models import get_weight  # takes a second

    if re.fullmatch(r"\w+_Weights\.\w+", name):
        try:
            get_weight(name)
        except (ValueError, KeyError, AttributeError):
            return f"torchvision knows no weights {name!r}"
        return None
    return f"{TORCHVISION}NAME needs a name such as ResNet18_Weights.IMAGENET1K_V1; found {name!r}"


_FROM = """Where the weights come from: a stored run, a file, or torchvision.

The id of a run; the name of an experiment, for its finished run of the same seed; the path of a file,
.safetensors or a state_dict as torch.save writes it, relative to the config or the current folder; or
torchvision:NAME for published weights, such as
`torchvision:ResNet18_Weights.IMAGENET1K_V1`. A path has a slash in it, or ends in .safetensors, .pt, .pth,
.bin or .ckpt. A state_dict is read without running any code that is in it."""
_source: dict[str, Any] = {"from": (str, Field(min_length=1, description=_FROM))}

INITS.add(
    Scheme(
        name="pretrained",
        summary="Weights of an earlier run or a file, by name and shape; the rest is kaiming_normal's.",
        formula="W = W_A where name and shape agree, else N(0, gain²/n)",
        source="Yosinski et al. 2014",
        options=create_model("PretrainedOptions", __base__=TransferOptions, **_source),
        needs=SchemeRequirement.STORED_RUN,
        fill=draw(fan_in_variance, "normal"),
        default_gain=kaiming_gain,
    )
)
