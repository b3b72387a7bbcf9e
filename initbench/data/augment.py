"""Random augmentation of training images, applied to a whole batch on its device.

Legend: K runs, B batch size, C channels, H × W pixels, c the pixels of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from initbench.rng import stream_generator


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Pad-and-crop and mirror images (He et al. 2016, section 4.2).

    The changes depend only on the run's seed and the step, not on other runs of the cohort, so a resumed run
    sees the same images as an uninterrupted one.
    """

    flip: bool
    """Mirror each image left to right with probability 1/2."""
    crop: int
    """c: pad with c black pixels, then crop H × W at one of (2c + 1)² positions, all equally likely."""
    black: float
    """Value of a black pixel (0) after normalisation."""

    def __call__(self, x: Tensor, seeds: Sequence[int], step: int) -> Tensor:
        """Return augmented copies of the batches x (K, B, C, H, W) of runs with `seeds` (K) at `step`."""
        draws = [self._draw(x.shape[1], seed, step) for seed in seeds]
        offsets, mirrored = (torch.cat(drawn).to(x.device) for drawn in zip(*draws, strict=True))
        images = x.flatten(0, 1)
        if self.crop:
            images = self._cropped(images, offsets)
        if self.flip:
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images.view(x.shape)

    def _draw(self, batch: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the offsets of the crops (B, 2), 0 … 2c, and which images are mirrored (B,)."""
        stream = stream_generator(seed, "augment", step)
        offsets = torch.randint(2 * self.crop + 1, (batch, 2), generator=stream)
        return offsets, torch.randint(2, (batch,), generator=stream).bool()

    def _cropped(self, images: Tensor, offsets: Tensor) -> Tensor:
        """Return the window of each padded image (N, C, H, W) at its offset (N, 2)."""
        height, width = images.shape[-2:]
        padded = pad(images, [self.crop] * 4, value=self.black)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, 2c+1, 2c+1, H, W)
        image = torch.arange(len(images), device=images.device)
        return windows[image, :, offsets[:, 0], offsets[:, 1]]
