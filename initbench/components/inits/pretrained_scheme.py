"""The scheme `pretrained`, which loads weights from a stored run, a file or a published net."""

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
    """Options of pretrained; `from`, which is a keyword of Python, is added below."""

    freeze: str = Field(default="none", json_schema_extra={"pattern": f"^({_FREEZE})$"})
    """Weight layers that are not trained: `none`, `all_but_head`, or `first_k` for k layers, e.g. `first_3`.

    Their biases and norm layers are frozen too: no update, no weight decay. The source must contain the
    weights of all frozen layers."""
    frozen_norm: Literal["running", "batch"] = "running"
    """Statistics used by batch norm in frozen layers during training.

    `running`: the running statistics, which are not updated, so that frozen layers are a fixed function.
    `batch`: the statistics of each batch; the running statistics are updated."""

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
        """Value of the option `from`."""
        return str(getattr(self, "from"))

    @property
    def is_file(self) -> bool:
        """Whether `from` is the path of a file: it contains a slash or has the suffix of a weight file."""
        return "/" in self.source or self.source.endswith(_FILES)

    def frozen(self, layers: int) -> int:
        """Return the number of frozen weight layers in a net of `layers` weight layers, head included."""
        if self.freeze == "none":
            return 0
        return layers - 1 if self.freeze == "all_but_head" else int(self.freeze.removeprefix("first_"))


def _unknown_weights(name: str) -> str | None:
    """Return why `name` is not the name of torchvision weights, or None if it is."""
    from torchvision.models import get_weight  # takes a second

    if re.fullmatch(r"\w+_Weights\.\w+", name):
        try:
            get_weight(name)
        except (ValueError, KeyError, AttributeError):
            return f"torchvision knows no weights {name!r}"
        return None
    return f"{TORCHVISION}NAME needs a name such as ResNet18_Weights.IMAGENET1K_V1; found {name!r}"


_FROM = """Source of the weights: a stored run, a file, or torchvision.

One of: the id of a run; the name of an experiment, for its finished run with the same seed; the path of a
file (.safetensors, or a state_dict written by torch.save), relative to the config or the current folder;
`torchvision:NAME` for published weights, such as `torchvision:ResNet18_Weights.IMAGENET1K_V1`. A path
contains a slash, or ends in .safetensors, .pt, .pth, .bin or .ckpt. A state_dict is read without executing
any code in it."""
_source: dict[str, Any] = {"from": (str, Field(min_length=1, description=_FROM))}

INITS.add(
    Scheme(
        name="pretrained",
        summary="Loads weights of an earlier run or a file, by name and shape; others are kaiming_normal.",
        formula="W = W_A where name and shape agree, else N(0, gain²/n)",
        source="Yosinski et al. 2014",
        options=create_model("PretrainedOptions", __base__=TransferOptions, **_source),
        needs=SchemeRequirement.STORED_RUN,
        fill=draw(fan_in_variance, "normal"),
        default_gain=kaiming_gain,
    )
)
