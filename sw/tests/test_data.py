"""Data sets: what the files must be, and the sentence for what they are not; augmentation."""
from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sw import data
from sw.data import Split, augment, load

FILES = Path(__file__).parents[2].parent / "shared" / "data"


def test_digits_need_no_files(tmp_path):
    dataset = load("digits", tmp_path)
    assert dataset.name == "digits" and dataset.shape == (1, 8, 8) and dataset.classes == 10
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.train.pixels.dtype == torch.uint8 and dataset.train.images.max() == 1


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^Data must be one of digits, fashion-mnist, cifar-10, not 'mnist'$"):
        load("mnist", tmp_path)


@pytest.mark.skipif(not (FILES / "fashion-mnist").is_dir(), reason="Fashion-MNIST of ../shared/data is not here")
def test_fashion_mnist_is_read_from_either_folder(monkeypatch):
    dataset = load("fashion-mnist", FILES)
    assert dataset.shape == (1, 28, 28)
    assert dataset.train.labels.bincount().tolist() == [6000] * 10
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    assert dataset.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert dataset.test.part(slice(3)).images.dtype == torch.float32
    assert dataset.test.images.min() >= 0 and dataset.test.images.max() == 1
    monkeypatch.setenv("PACTOLUS_DATA", str(FILES / "fashion-mnist"))
    assert load("fashion-mnist").test.pixels.equal(dataset.test.pixels)


def test_split_parts_and_scale():
    split = Split(torch.arange(8, dtype=torch.uint8).reshape(4, 1, 1, 2), torch.arange(4), 16)
    assert len(split) == 4 and split.images[3].flatten().tolist() == [6 / 16, 7 / 16]
    part = split.part(torch.tensor([2, 0]))
    assert part.labels.tolist() == [2, 0] and part.images[0].flatten().tolist() == [4 / 16, 5 / 16]


def small_fashion(folder, monkeypatch, *, images=3):
    """Files of the right form with a few images, and checksums to match."""
    table = {}
    for name, shape in (("train-images-idx3-ubyte", (images, 28, 28)), ("train-labels-idx1-ubyte", (images,)),
                        ("t10k-images-idx3-ubyte", (2, 28, 28)), ("t10k-labels-idx1-ubyte", (2,))):
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        contents = header + bytes(i % 10 for i in range(int(np.prod(shape))))
        table[name] = (shape, hashlib.md5(contents, usedforsecurity=False).hexdigest())
        (folder / f"{name}.gz").write_bytes(gzip.compress(contents))
    monkeypatch.setattr(data, "FASHION_MNIST", table)


def test_fashion_mnist_refuses_what_is_missing_or_damaged(tmp_path, monkeypatch):
    small_fashion(tmp_path, monkeypatch)
    dataset = load("fashion-mnist", tmp_path)
    assert dataset.train.pixels[1, 0, 0, :3].tolist() == [4, 5, 6] and dataset.train.labels.tolist() == [0, 1, 2]

    path = tmp_path / "train-images-idx3-ubyte.gz"
    where = re.escape(repr(str(path)))
    good = path.read_bytes()
    contents = gzip.decompress(good)
    for damaged, sentence in (
            (gzip.compress(contents[:-1] + b"x"), r"the MD5 of its contents must be [0-9a-f]{32}, not [0-9a-f]{32}"),
            (gzip.compress(contents[:-1]), "it must hold 3×28×28 bytes in the IDX format"),
            (gzip.compress(b"\0\0\x0b" + contents[3:]), "it must hold 3×28×28 bytes in the IDX format"),
            (good[:-20], "Compressed file ended before the end-of-stream marker was reached"),
            (b"no gzip", r"Not a gzipped file \(b'no'\)"),
            (good[:60] + b"\xff" * 30 + good[90:], ".+")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^File {where} must be the original, which it is not: {sentence}$"):
            load("fashion-mnist", tmp_path)
    path.unlink()
    folders = " or ".join(re.escape(repr(str(folder))) for folder in (tmp_path, tmp_path / "fashion-mnist"))
    with pytest.raises(ValueError, match=(
            rf"^Fashion-MNIST must have its file train-images-idx3-ubyte\.gz in {folders}, which has none: it is at "
            r"https://github\.com/zalandoresearch/fashion-mnist, and --data-dir or PACTOLUS_DATA names another "
            r"folder$")):
        load("fashion-mnist", tmp_path)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """``cifar-10-batches-bin`` with 20 images a file, and its archive."""
    monkeypatch.setattr(data, "CIFAR_RECORDS", 20)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (6, 20, 3073), np.uint8)
    rows[:, :, 0] = np.arange(20) % 10
    for name, part in zip((*data.CIFAR_TRAIN, data.CIFAR_TEST), rows, strict=True):
        (folder / name).write_bytes(part.tobytes())
    archive = tmp_path / "archive" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    monkeypatch.setattr(data, "CIFAR_ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    return folder, archive, rows


def test_cifar_is_read_packed_and_unpacked(cifar):
    folder, archive, rows = cifar
    for directory in (folder, folder.parent, archive.parent):
        dataset = load("cifar-10", directory)
        assert dataset.shape == (3, 32, 32) and (len(dataset.train), len(dataset.test)) == (100, 20)
        assert dataset.test.labels.tolist() == rows[5, :, 0].tolist()
        assert dataset.train.pixels[25, 2, 1, 3] == rows[1, 5, 1 + 2 * 1024 + 32 + 3]


def test_cifar_refuses_what_is_missing_or_damaged(cifar, tmp_path):
    folder, archive, rows = cifar

    def refused(directory, path, sentence):
        where = re.escape(repr(str(path)))
        with pytest.raises(ValueError, match=rf"^File {where} must be the original, which it is not: {sentence}$"):
            load("cifar-10", directory)

    first = folder / "data_batch_1.bin"
    first.write_bytes(rows[0].tobytes()[:-1])
    refused(folder, first, "data_batch_1.bin must have 61460 bytes, not 61459")
    for label in (1, 11):
        changed = rows[0].copy()
        changed[0, 0] = label
        first.write_bytes(changed.tobytes())
        refused(folder, folder, "each of the labels 0 to 9 must be there equally often in each split")
    archive.write_bytes(archive.read_bytes()[:-1])
    refused(archive.parent, archive, "its MD5 must be [0-9a-f]{32}, not [0-9a-f]{32}")
    first.unlink()
    with pytest.raises(ValueError, match=r"^CIFAR-10 must have its file data_batch_1\.bin in '.*-bin', which has none"):
        load("cifar-10", folder)
    with pytest.raises(ValueError, match=r"^CIFAR-10 must have its file cifar-10-binary\.tar\.gz in '.*' or '.*'"
                                         r", which has none: it is at https://www\.cs\.toronto\.edu/~kriz/cifar\.html"):
        load("cifar-10", tmp_path / "nowhere")


def test_crop_and_flip_move_and_mirror():
    images = torch.rand(200, 3, 9, 11)
    torch.manual_seed(0)
    changed = augment(images, "crop-flip")
    torch.manual_seed(0)
    assert augment(images, "crop-flip").equal(changed)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    seen = set()
    for before, after in zip(padded, changed, strict=True):
        found = [(y, x, mirror) for y in range(9) for x in range(9) for mirror in (False, True)
                 if (before[:, y:y + 9, x:x + 11].flip(2) if mirror else before[:, y:y + 9, x:x + 11]).equal(after)]
        assert len(found) == 1
        seen.add(found[0])
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(9))
    assert {mirror for _, _, mirror in seen} == {False, True}


def test_no_augmentation_draws_nothing():
    state = torch.random.get_rng_state()
    images = torch.rand(2, 1, 4, 4)
    torch.random.set_rng_state(state)
    assert augment(images, "none") is images and torch.random.get_rng_state().equal(state)
