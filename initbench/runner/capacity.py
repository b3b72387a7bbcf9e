"""Check that a net can be built for a data set and fits into memory."""

from __future__ import annotations

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.machine import require_memory
from initbench.models.build import check


def check_network(config: ExperimentConfig, data: PreparedData, *, copies: int) -> None:
    """Check that the net fits the data and that memory suffices for `copies` of its parameters.

    Raises:
        ConfigError: If no such net can be built on such samples.
        AllocationError: If there is not enough memory.
    """
    parameters = check(config.model, config.init, input_shape=data.input_shape, classes=data.form.outputs)
    if data.train.x.device.type == "cpu":
        remedy = "choose a smaller model.width or model.depth"
        require_memory(copies * parameters, f"the net of {config.name}", remedy)
