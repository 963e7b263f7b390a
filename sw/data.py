"""scikit-learn's handwritten digits: 1797 images of 8×8, values 0..16, embedded in the package, nothing downloaded."""
from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Split", "digits"]


@dataclass(frozen=True)
class Split:
    """Images (N, 1, 8, 8) float32 in 0..1 and labels (N,) int64."""

    images: torch.Tensor
    labels: torch.Tensor


def digits() -> tuple[Split, Split]:
    """The training split (1437 images) and the test split (360), stratified by class, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    labels = torch.tensor(labels, dtype=torch.int64)
    return Split(images[train], labels[train]), Split(images[test], labels[test])
