"""Resizing of images before normalisation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from initbench.data.dataset import RawData

_CHUNK_VALUES = 1 << 22


def resize_images(raw: RawData, size: tuple[int, int]) -> RawData:
    """Return the set with all images resized to H × W = `size`, by bilinear interpolation with antialiasing.

    uint8 images are rounded to uint8, as in torchvision and Pillow.
    """
    return replace(
        raw,
        x_train=resize_batch(raw.x_train, size),
        x_test=resize_batch(raw.x_test, size),
        x_val=None if raw.x_val is None else resize_batch(raw.x_val, size),
    )


def resize_batch(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize x (N, C, H, W) to (N, C, *size) in its dtype, in chunks to avoid a float copy of all images."""
    if tuple(x.shape[2:]) == size:
        return x
    values = x.shape[1] * max(x.shape[2] * x.shape[3], size[0] * size[1])
    chunks = torch.split(x, max(1, _CHUNK_VALUES // values))
    return torch.cat([_interpolate(chunk, size) for chunk in chunks])


def _interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    # Interpolate in float32 even for uint8: results of torch's uint8 kernel differ between machines.
    y = interpolate(x.float(), size, mode="bilinear", antialias=True)
    return y.round_().clamp_(0, 255).to(torch.uint8) if x.dtype == torch.uint8 else y
