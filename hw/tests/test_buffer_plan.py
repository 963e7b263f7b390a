"""The buffer plan: nothing that lives at the same time overlaps, and little is wasted."""

from hypothesis import given
from hypothesis import strategies as st

from hw.program.buffer_plan import Lifetime, place

LIFETIMES = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=12)


def lives(table):
    return [Lifetime(str(number), words, first, first + more) for number, (words, first, more) in enumerate(table)]


@given(LIFETIMES)
def test_what_lives_together_lies_apart(table):
    lifetimes = lives(table)
    regions = place(lifetimes)
    assert [region.lifetime for region in regions] == lifetimes
    for number, a in enumerate(regions):
        assert a.address >= 0
        for b in regions[:number]:
            assert not a.lifetime.meets(b.lifetime) or a.end <= b.address or b.end <= a.address


@given(LIFETIMES)
def test_no_more_than_all_and_no_less_than_what_lives(table):
    lifetimes = lives(table)
    end = max(region.end for region in place(lifetimes))
    alive = [sum(life.words for life in lifetimes if life.first <= step <= life.last) for step in range(20)]
    assert max(alive) <= end <= sum(life.words for life in lifetimes)


def test_a_chain_alternates():
    """Each tensor lives while the next is written: the two largest neighbours are all that is needed."""
    regions = place(lives([(10, 0, 1), (20, 1, 1), (15, 2, 1), (5, 3, 1)]))
    assert max(region.end for region in regions) == 35
    assert regions[0].address == regions[2].address


def test_a_residual_operand_stays():
    """The first tensor lives until step 3: what comes between goes around it."""
    regions = place(lives([(8, 0, 3), (8, 1, 1), (8, 2, 1), (8, 3, 1)]))
    assert max(region.end for region in regions) == 24
