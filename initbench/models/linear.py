"""The fully connected layer of every family."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Linear):
    """nn.Linear for (B, in), with the weight on the left: y = (W xᵀ)ᵀ + b.

    The product is the same, but the gradient of a stacked weight then arrives in the weight's own
    memory order. torch's batching rule for nn.Linear hands it over transposed, to be copied at every
    step: a tenth of the training time of a narrow net.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        product = (self.weight @ x.mT).mT
        return product if self.bias is None else product + self.bias
