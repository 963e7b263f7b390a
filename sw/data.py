"""The data sets: scikit-learn's digits, embedded, and two that are read from a folder in their authors' own files.

Nothing is downloaded. What is not there, or is not what its authors published, is refused in one sentence.
"""
from __future__ import annotations

import gzip
import hashlib
import math
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

__all__ = ["AUGMENTATIONS", "DATASETS", "SHAPES", "Dataset", "Split", "augment", "digits", "load"]


@dataclass(frozen=True)
class Split:
    """Images as their files store them, and their labels.

    Parameters
    ----------
    pixels : :class:`torch.Tensor`
        (N, C, H, W) uint8.
    labels : :class:`torch.Tensor`
        (N,) int64.
    top : :class:`int`
        The pixel value that stands for 1.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    top: int = 255

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> torch.Tensor:
        """All images, (N, C, H, W) float32 in 0..1, made anew at every access."""
        return self.pixels.to(torch.float32) / self.top

    def part(self, which: torch.Tensor | slice) -> Split:
        """Some of the images, by index."""
        return Split(self.pixels[which], self.labels[which], self.top)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set of images with its two splits.

    Members
    -------
    name : :class:`str`
        A key of :data:`DATASETS`.
    train, test : :class:`Split`
    classes : :class:`int`
        Labels are 0..classes − 1.
    """

    name: str
    train: Split
    test: Split
    classes: int = 10

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width


def digits() -> tuple[Split, Split]:
    """scikit-learn's 8×8 digits, 0..16: the training split (1437 images) and the test split (360).

    They are stratified by class and always the same.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images.reshape(-1, 1, 8, 8), dtype=torch.uint8)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    labels = torch.tensor(labels, dtype=torch.int64)
    return Split(pixels[train], labels[train], 16), Split(pixels[test], labels[test], 16)


def _digits(_directory: Path) -> Dataset:
    train, test = digits()
    return Dataset(name="digits", train=train, test=test)


FASHION_MNIST = {
    "train-images-idx3-ubyte": ((60_000, 28, 28), "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte": ((60_000,), "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte": ((10_000,), "15d484375f8d13e6eb1aabb0c3f46965"),
}
"""Shape and MD5 of each file's *contents*: compressed again, the same contents are another file."""

CIFAR_ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""Of ``cifar-10-binary.tar.gz``, as its authors give it."""

CIFAR_RECORDS = 10_000
"""In each of its six files; a record is a label and 3072 pixels."""

CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR_TEST = "test_batch.bin"
CIFAR_FOLDER = "cifar-10-batches-bin"


def _find(dataset: str, names: tuple[str, ...], directory: Path, home: str) -> Path:
    """The first of ``names`` that is in ``directory`` or in its folder for the data set."""
    folders = dict.fromkeys((directory, directory / home))
    for name in names:
        for folder in folders:
            if (folder / name).exists():
                return folder / name
    where = " or ".join(repr(str(folder)) for folder in folders)
    source = {"Fashion-MNIST": "https://github.com/zalandoresearch/fashion-mnist",
              "CIFAR-10": "https://www.cs.toronto.edu/~kriz/cifar.html"}[dataset]
    raise ValueError(f"{dataset} must have its file {names[0]} in {where}, which has none: it is at {source}, and "
                     "--data-dir or PACTOLUS_DATA names another folder")


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"File {str(path)!r} must be the original, which it is not: {what}")


def _idx(path: Path, shape: tuple[int, ...], checksum: str) -> torch.Tensor:
    """A gzip file of the IDX format: two zero bytes, the type (8: unsigned byte), the dimensions, the values."""
    try:
        contents = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from None
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    if not contents.startswith(header) or len(contents) != len(header) + math.prod(shape):
        raise _damaged(path, f"it must hold {'×'.join(map(str, shape))} bytes in the IDX format")
    found = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise _damaged(path, f"the MD5 of its contents must be {checksum}, not {found}")
    return torch.frombuffer(bytearray(contents[len(header):]), dtype=torch.uint8).reshape(shape)


def _fashion_mnist(directory: Path) -> Dataset:
    # All four before the first is read: what is missing is said at once.
    paths = {name: _find("Fashion-MNIST", (f"{name}.gz",), directory, "fashion-mnist") for name in FASHION_MNIST}
    values = [_idx(paths[name], *what) for name, what in FASHION_MNIST.items()]
    train, test = (Split(images.unsqueeze(1), labels.to(torch.int64))
                   for images, labels in (values[:2], values[2:]))
    return Dataset(name="fashion-mnist", train=train, test=test)


def _cifar_records(path: Path, name: str, contents: bytes) -> np.ndarray:
    records = np.frombuffer(contents, np.uint8)
    if len(records) != CIFAR_RECORDS * 3073:
        raise _damaged(path, f"{name} must have {CIFAR_RECORDS * 3073} bytes, not {len(records)}")
    return records.reshape(-1, 3073)


def _cifar_10(directory: Path) -> Dataset:
    path = _find("CIFAR-10", ("cifar-10-binary.tar.gz", CIFAR_FOLDER, CIFAR_TEST), directory, "cifar-10")
    names = (*CIFAR_TRAIN, CIFAR_TEST)
    if path.name == CIFAR_TEST:
        path = path.parent
    if path.is_dir():
        paths = [_find("CIFAR-10", (name,), path, ".") for name in names]
        records = [_cifar_records(p, p.name, p.read_bytes()) for p in paths]
    else:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != CIFAR_ARCHIVE_MD5:
            raise _damaged(path, f"its MD5 must be {CIFAR_ARCHIVE_MD5}, not {found}")
        with tarfile.open(path) as archive:
            members = [archive.extractfile(f"{CIFAR_FOLDER}/{name}") for name in names]
            records = [_cifar_records(path, name, member.read()) for name, member in zip(names, members) if member]
    splits = []
    for rows in (np.concatenate(records[:-1]), records[-1]):
        labels, counts = rows[:, 0], np.bincount(rows[:, 0], minlength=10)
        if len(counts) > 10 or len(set(counts.tolist())) > 1:
            raise _damaged(path, "each of the labels 0 to 9 must be there equally often in each split")
        pixels = torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).copy())
        splits.append(Split(pixels, torch.from_numpy(labels.astype(np.int64))))
    return Dataset(name="cifar-10", train=splits[0], test=splits[1])


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _digits, "fashion-mnist": _fashion_mnist, "cifar-10": _cifar_10}
"""What :func:`load` knows, by name."""

SHAPES = {"digits": ((1, 8, 8), 10), "fashion-mnist": ((1, 28, 28), 10), "cifar-10": ((3, 32, 32), 10)}
"""(C, H, W) of the images, and the number of classes, by name: what a network must know without the files."""


def load(name: str, directory: Path | None = None) -> Dataset:
    """A data set.

    Parameters
    ----------
    name : :class:`str`
        ``digits`` needs no files. ``fashion-mnist`` needs its four ``.gz`` files, ``cifar-10`` the binary version:
        ``cifar-10-binary.tar.gz``, or ``cifar-10-batches-bin`` as it unpacks.
    directory : path or ``None``
        Where the files are, or a folder of the data set's name with them. ``None``: what the environment variable
        ``PACTOLUS_DATA`` names, or else ``data`` in the working directory.

    Raises
    ------
    ValueError
        An unknown name; a file that is not there, or is not the original: by its checksum, and for CIFAR-10 that is
        unpacked, for which there is none, by length and the number of images in each class.
    """
    if name not in DATASETS:
        raise ValueError(f"Data must be one of {', '.join(DATASETS)}, not {name!r}")
    return DATASETS[name](directory or Path(os.environ.get("PACTOLUS_DATA") or "data"))


AUGMENTATIONS = ("none", "crop-flip")
"""What :func:`augment` does to a training image, by name."""


def augment(images: torch.Tensor, name: str) -> torch.Tensor:
    """A batch changed at random, drawn from PyTorch's global generator.

    Parameters
    ----------
    images : :class:`torch.Tensor`
        (N, C, H, W).
    name : :class:`str`
        ``none`` draws nothing. ``crop-flip``, usual for CIFAR-10: each image is moved by −4..4 pixels in y and in x,
        zeros coming in, and is mirrored left to right with probability ½.
    """
    if name == "none":
        return images
    count, channels, height, width = images.shape
    down, right = torch.randint(0, 9, (2, count, 1, 1, 1))
    mirrored = torch.rand(count, 1, 1, 1) < 0.5
    rows = down + torch.arange(height).reshape(1, 1, -1, 1)
    columns = torch.arange(width).reshape(1, 1, 1, -1)
    columns = right + torch.where(mirrored, width - 1 - columns, columns)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    batch, channel = torch.arange(count).reshape(-1, 1, 1, 1), torch.arange(channels).reshape(1, -1, 1, 1)
    return padded[batch, channel, rows, columns]
