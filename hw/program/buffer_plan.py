"""Where each tensor lies in the activation buffer: regions that overlap in address never live at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Lifetime", "Region", "place"]


@dataclass(frozen=True)
class Lifetime:
    """A tensor that needs ``words`` words from step ``first``, which writes it, to step ``last``, its last reader."""

    tensor: str
    words: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether there is a step at which both live; what a step writes never lies where the step reads."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Region:
    """A tensor's words ``address .. address + words - 1``."""

    lifetime: Lifetime
    address: int

    @property
    def end(self) -> int:
        """The address behind the last word."""
        return self.address + self.lifetime.words


def place(lifetimes: Sequence[Lifetime]) -> list[Region]:
    """Give every tensor an address, in the given order of tensors, with a small largest end.

    Each tensor takes the lowest gap that is free during all of its life. The order in which they choose decides how
    well that goes, so several are tried: long-lived and large first, large first, and as they come.
    """
    orders = (
        lambda lifetime: (-lifetime.words * (lifetime.last - lifetime.first + 1), lifetime.first),
        lambda lifetime: (-lifetime.words, lifetime.first),
        lambda lifetime: (lifetime.first, -lifetime.words),
        lambda lifetime: (-lifetime.last, lifetime.words),
    )
    best: dict[str, Region] = {}
    for order in orders:
        placed: list[Region] = []
        for lifetime in sorted(lifetimes, key=order):
            placed.append(Region(lifetime, _lowest_gap(lifetime, placed)))
        if not best or max(r.end for r in placed) < max(r.end for r in best.values()):
            best = {region.lifetime.tensor: region for region in placed}
    return [best[lifetime.tensor] for lifetime in lifetimes]


def _lowest_gap(lifetime: Lifetime, placed: Sequence[Region]) -> int:
    address = 0
    for region in sorted((r for r in placed if r.lifetime.meets(lifetime)), key=lambda r: r.address):
        if region.address - address >= lifetime.words:
            break
        address = max(address, region.end)
    return address
