"""Whether a net can be built for a data set, and whether the memory that it takes is there."""

from __future__ import annotations

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.memory import require_memory
from initbench.models.build import check


def check_network(config: ExperimentConfig, data: PreparedData, *, copies: int) -> None:
    """Check the experiment's net against the data, and `copies` of its parameters against the memory.

    Raises:
        ConfigError: If no such net can be built on such samples.
        AllocationError: If the memory is not there.
    """
    parameters = check(config.model, config.init, input_shape=data.input_shape, classes=data.classes)
    if data.train.x.device.type == "cpu":
        remedy = "choose a smaller model.width or model.depth"
        require_memory(copies * parameters, f"the net of {config.name}", remedy)
