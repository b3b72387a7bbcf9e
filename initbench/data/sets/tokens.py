"""The user's own text or token ids, cut into blocks whose targets are the next tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from initbench.components.target import SampleShape, TargetKind
from initbench.data.dataset import (
    DATASETS,
    DataOptions,
    Dataset,
    DataSource,
    LocatedDataset,
    RawData,
)
from initbench.data.download.checksums import checksum
from initbench.data.npy_file import read_npy
from initbench.data.user_files import find_user_path
from initbench.errors import DataError
from initbench.machine import require_memory
from initbench.registry import MAX_COUNT

_BYTES = 256
_MAX_CHARACTERS = 20_000
"""Maximum number of different characters of a text."""


class TokensOptions(DataOptions):
    """Options of a text or a file of token ids."""

    path: str = Field(min_length=1)
    """Path of a text in UTF-8, or of token ids: integers in a `.npy` file or, in `.bin`, of type `dtype`.

    Relative to the config, the current folder or the data root."""
    level: Literal["char", "byte"] = "char"
    """Tokens of a text: its characters, numbered in the order of their code points, or its bytes."""
    block: int = Field(default=64, ge=1, le=1_000_000)
    """Number of tokens in a sample; samples do not overlap. The target of a token is the next one."""
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] = "uint16"
    """Type of the numbers in a `.bin` file, little-endian."""
    vocabulary: int | None = Field(default=None, ge=2, le=MAX_COUNT)
    """Number of token ids in a `.npy` or `.bin` file; null for the largest id plus one."""
    val_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the samples for validation: a span behind the training samples and before the test samples."""
    test_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the samples for testing: the last ones of the file."""


def _locate(options: TokensOptions, source: DataSource) -> LocatedDataset:
    path = find_user_path(options.path, source.root, "the file of tokens")
    fractions = options.val_fraction, options.test_fraction
    return LocatedDataset(
        name="tokens",
        fingerprint=checksum(path, "sha256", recheck=source.recheck),
        load=partial(
            read_tokens, path, options.level, options.block, options.dtype, options.vocabulary, fractions
        ),
        files=(path,),
    )


def read_tokens(
    path: Path, level: str, block: int, dtype: str, vocabulary: int | None, fractions: tuple[float, float]
) -> RawData:
    """Read a file of N·block + 1 tokens or more as N samples (N, block) with the next tokens as targets.

    Args:
        path: A text, or token ids (.npy, .bin).
        level: "char" or "byte", for texts.
        block: Number of tokens in a sample.
        dtype: Type of the numbers of a .bin file.
        vocabulary: Number of token ids of a .npy or .bin file; None for the largest one plus one.
        fractions: Shares of validation and test samples.

    Raises:
        DataError: If the file is neither text nor token ids, or too short for three parts.
    """
    require_memory(16.0 * path.stat().st_size, f"the tokens of {path}", "use a part of the file")
    names: tuple[str, ...] | None = None
    if path.suffix in (".npy", ".bin"):
        tokens = _token_ids(path, dtype, vocabulary)
        classes = vocabulary or int(tokens.max()) + 1
    elif level == "byte":
        tokens, classes = np.fromfile(path, np.uint8), _BYTES
    else:
        tokens, names = _characters(path)
        classes = len(names)
    if classes < 2:
        raise DataError(f"{path} repeats one token; at least two different tokens are needed")
    samples = max(0, (len(tokens) - 1) // block)
    val, test = (max(1, round(samples * fraction)) for fraction in fractions)
    if samples - val - test < 1:
        raise DataError(
            f"{path} has {len(tokens):,} tokens, {samples:,} blocks of data.block={block:,}: too few for"
            " training, validation and test samples"
        )
    ids = torch.from_numpy(tokens[: samples * block + 1].astype(np.int64))
    sizes = [samples - val - test, val, test]
    x_train, x_val, x_test = torch.split(ids[:-1].view(samples, block), sizes)
    y_train, y_val, y_test = torch.split(ids[1:].view(samples, block), sizes)
    return RawData(
        x_train=x_train,
        y_train=y_train,
        x_val=x_val,
        y_val=y_val,
        x_test=x_test,
        y_test=y_test,
        classes=classes,
        target=TargetKind.SEQUENCE,
        vocabulary=classes,
        class_names=names,
    )


def _characters(path: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the characters of a text as numbers (L,), and the character of each number."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{path}:{line}:{column}: not UTF-8 ({error.reason}); set data.level=byte for other files"
        ) from None
    codes, tokens = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    if len(codes) > _MAX_CHARACTERS:
        raise DataError(f"{path} has {len(codes):,} different characters, more than {_MAX_CHARACTERS:,}")
    return tokens, tuple(map(chr, codes.tolist()))


def _token_ids(path: Path, dtype: str, vocabulary: int | None) -> NDArray[Any]:
    """Return the token ids (L,) of a .npy or .bin file."""
    if path.suffix == ".bin":
        width = np.dtype(dtype).itemsize
        if path.stat().st_size % width:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes, which are not numbers of {dtype}")
        tokens: NDArray[Any] = np.fromfile(path, np.dtype(dtype).newbyteorder("<"))
    else:
        tokens = read_npy(path)
    if tokens.dtype.kind not in "iu" or tokens.ndim != 1 or not tokens.size:
        raise DataError(f"{path} must contain integers (L,), found {tokens.dtype} {tokens.shape}")
    low, high = int(tokens.min()), int(tokens.max())
    most = vocabulary or MAX_COUNT
    if low < 0 or high >= most:
        raise DataError(f"{path} must contain token ids 0 … {most - 1:,}, found {low:,} … {high:,}")
    return tokens


def _form(options: TokensOptions) -> SampleShape | None:
    """Return the form of the samples if the number of tokens does not depend on the file."""
    is_text = Path(options.path).suffix not in (".npy", ".bin")
    tokens = (_BYTES if options.level == "byte" else None) if is_text else options.vocabulary
    if tokens is None:
        return None
    shape = (options.block,)
    return SampleShape(shape, tokens, TargetKind.SEQUENCE, shape, vocabulary=tokens)


DATASETS.add(
    Dataset(
        name="tokens",
        aliases=("text", "char"),
        summary="Your own text, by characters or bytes, or your own token ids: each token predicts the next.",
        source="the user",
        formula="blocks x = t₀ … t₍T−1₎, y = t₁ … t_T; contiguous spans for training, validation and test",
        options=TokensOptions,
        locate=_locate,
        form=_form,
    )
)
