"""The user's own images, one folder per class."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from initbench.components.target import TargetKind
from initbench.data.array_cache import cached_data
from initbench.data.dataset import DATASETS, Dataset, DataSource, LocatedDataset, RawData, image_size
from initbench.data.download.checksums import folder_checksum
from initbench.data.resizing import resize_batch
from initbench.data.user_arrays import hold_out
from initbench.data.user_files import HeldOutOptions, find_user_path
from initbench.errors import DataError
from initbench.machine import available_cores, require_memory

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_RECIPE = "images/1"
"""Version of the code that turns files into tensors."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_PARTS = ("train", "val", "test")
_GREY_MODES = ("1", "L", "LA")
_MODES_OF_8_BITS = (*_GREY_MODES, "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")
_MIN_IMAGES = 2
_MAX_NAMED = 3


class ImagesOptions(HeldOutOptions):
    """Options of a folder of images."""

    path: str = Field(min_length=1)
    """Folder with one subfolder per class, or with `train`, `test` and optionally `val`, which have those.

    Relative to the config, the current folder or the data root. Classes are numbered in the order of their
    names. Images in deeper subfolders are included; other files are ignored."""
    colour: Literal["auto", "grey", "rgb"] = "auto"
    """Channels of the images: 1 (`grey`) or 3 (`rgb`); `auto` is grey if all images are. Alpha is dropped."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder."""

    root: Path
    classes: tuple[str, ...]
    parts: Mapping[str, tuple[tuple[Path, int], ...]]
    """For each part (train, val, test) its images with their class numbers, sorted by class and path."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All images."""
        return tuple(path for images in self.parts.values() for path, _ in images)


def _locate(options: ImagesOptions, source: DataSource) -> LocatedDataset:
    root = find_user_path(options.path, source.root, "the folder of images", kind="folder")
    folder = list_images(root)
    fingerprint = folder_checksum(root, folder.files, recheck=source.recheck)
    size = None if options.resize is None else image_size(options.resize)
    return LocatedDataset(
        name="images",
        fingerprint=fingerprint,
        load=partial(_load, fingerprint, folder, options.colour, size, options.test_fraction),
        files=folder.files,
    )


def list_images(root: Path) -> ImageFolder:
    """Return the images below `root`, without opening them.

    Raises:
        DataError: If there is no class with images, a class has one image, or a class of validation or test
            images has no training images. Symbolic links below `root` are rejected.
    """
    subfolders = [folder.name for folder in _subfolders(root)]
    if "train" not in subfolders:
        classes = _class_names(subfolders, root)
        return ImageFolder(root, classes, {"train": tuple(_images_of(root, classes))})
    if others := [name for name in subfolders if name not in _PARTS]:
        raise DataError(f"{root} has the folder train and may have val and test, but also has {others[0]}")
    classes = _class_names([folder.name for folder in _subfolders(root / "train")], root / "train")
    parts = {}
    for part in _PARTS:
        if part in subfolders:
            names = [folder.name for folder in _subfolders(root / part)]
            if unknown := [name for name in names if name not in classes]:
                raise DataError(f"{root / part / unknown[0]}: there is no class {unknown[0]} in train")
            present = [name for name in classes if name in names]
            parts[part] = tuple(_images_of(root / part, classes, present))
            if not parts[part]:
                raise DataError(f"{root / part} contains no images ({', '.join(SUFFIXES)})")
    return ImageFolder(root, classes, parts)


def _class_names(names: Sequence[str], root: Path) -> tuple[str, ...]:
    if len(names) < 2:
        content = f"has the subfolder {names[0]} only" if names else "has no subfolders"
        raise DataError(f"{root} {content}: expected one subfolder of images per class, at least two")
    is_numbered = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if is_numbered else None))


def _images_of(
    folder: Path, classes: Sequence[str], present: Sequence[str] | None = None
) -> Iterator[tuple[Path, int]]:
    """Yield the images of the classes in `folder`; of the training part, each class needs two of them."""
    for number, name in enumerate(classes):
        if present is not None and name not in present:
            continue
        paths = sorted(_image_files(folder / name))
        if len(paths) < _MIN_IMAGES and (present is None or folder.name == "train"):
            count = "one image" if paths else f"no images ({', '.join(SUFFIXES)})"
            raise DataError(f"{folder / name} contains {count}: each class needs at least {_MIN_IMAGES}")
        yield from ((path, number) for path in paths)


def _image_files(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _image_files(entry)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder by name, without hidden ones; raise DataError for links and pipes."""
    try:
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
                    kind = "a symbolic link" if entry.is_symlink() else "not a regular file"
                    raise DataError(
                        f"{entry.path} is {kind}: below data.path only files and folders are read"
                    )
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {(error.strerror or str(error)).lower()}") from None
    return sorted(Path(entry.path) for entry in entries)


def _load(
    fingerprint: str, folder: ImageFolder, colour: str, size: tuple[int, int] | None, test_fraction: float
) -> RawData:
    recipe = f"{_RECIPE} {fingerprint} colour={colour} size={size} test={test_fraction} {folder.classes}"
    return cached_data(recipe, partial(read_images, folder, colour, size, test_fraction))


def read_images(
    folder: ImageFolder, colour: str, size: tuple[int, int] | None, test_fraction: float
) -> RawData:
    """Decode all images to uint8 tensors (N, C, H, W).

    Args:
        folder: The images.
        colour: "auto", "grey" or "rgb".
        size: Height and width to which each image is resized; None if all images have the same size.
        test_fraction: Share of the training images that becomes the test part if there is none.

    Raises:
        DataError: If an image cannot be read, or if sizes differ and `size` is None.
    """
    with ThreadPoolExecutor(available_cores()) as pool:
        headers = list(pool.map(_read_header, folder.files))
        if size is None:
            size = _common_size(folder.files, [header[0] for header in headers])
        is_grey = colour == "grey" or (colour == "auto" and all(mode in _GREY_MODES for _, mode in headers))
        shape = (1 if is_grey else 3, *size)
        require_memory(
            float(len(headers) * math.prod(shape)),
            f"{len(headers):,} images in {folder.root}",
            "set data.resize",
        )
        tensors: dict[str, Tensor] = {}
        for part, images in folder.parts.items():
            x = torch.empty(len(images), *shape, dtype=torch.uint8)
            read = partial(_read_image, mode="L" if is_grey else "RGB", size=size)
            for index, image in enumerate(pool.map(read, (path for path, _ in images))):
                x[index] = image
            tensors |= {f"x_{part}": x, f"y_{part}": torch.tensor([number for _, number in images])}
    if "x_test" not in tensors:
        x, y = tensors["x_train"], tensors["y_train"]
        train, test = hold_out(y, test_fraction, TargetKind.CLASSES)
        tensors |= {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return RawData(
        x_train=tensors["x_train"],
        y_train=tensors["y_train"],
        x_test=tensors["x_test"],
        y_test=tensors["y_test"],
        x_val=tensors.get("x_val"),
        y_val=tensors.get("y_val"),
        classes=len(folder.classes),
        class_names=folder.classes,
    )


def _open(path: Path) -> ImageFile:
    from PIL import Image  # takes 0.1 s

    return Image.open(path, formats=_FORMATS)


def _read_header(path: Path) -> tuple[tuple[int, int], str]:
    """Return (height, width) and the mode of an image."""
    try:
        with _open(path) as image:
            size, mode = (image.height, image.width), image.mode
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        raise _unreadable(path, error) from error
    if mode not in _MODES_OF_8_BITS:
        raise DataError(f"{path} has more than 8 bits per value (mode {mode}): convert it to 8 bits")
    return size, mode


def _read_image(path: Path, *, mode: str, size: tuple[int, int]) -> Tensor:
    """Return an image as uint8 (C, H, W)."""
    try:
        with _open(path) as image:
            values = np.asarray(image.convert(mode)).copy()
    except Exception as error:
        raise _unreadable(path, error) from error
    channels_first = torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)
    return resize_batch(channels_first[None], size)[0]


def _unreadable(path: Path, error: Exception) -> DataError:
    lines = str(error).splitlines()
    is_unknown = type(error).__name__ == "UnidentifiedImageError"
    reason = "it is damaged or of another format" if is_unknown or not lines else lines[0]
    return DataError(f"{path} cannot be read as an image: {reason}")


def _common_size(paths: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    examples: dict[tuple[int, int], Any] = {}
    for path, size in zip(paths, sizes, strict=True):
        examples.setdefault(size, path)
    if len(examples) == 1:
        return sizes[0]
    common = [size for size, _ in Counter(sizes).most_common(_MAX_NAMED)]
    listed = ", ".join(f"{height} × {width} ({examples[height, width]})" for height, width in common)
    more = "" if len(examples) <= _MAX_NAMED else f", and {len(examples) - _MAX_NAMED:,} others"
    raise DataError(
        f"the images have {len(examples):,} sizes (height × width): {listed}{more}; set one with data.resize"
    )


DATASETS.add(
    Dataset(
        name="images",
        aliases=("image_folder", "imagefolder"),
        summary="Your own images in one folder per class, with or without train, val and test folders.",
        source="the user",
        formula="uint8 (N, C, H, W); parts as in the folder, or by test_fraction and val_fraction",
        options=ImagesOptions,
        locate=_locate,
    )
)
