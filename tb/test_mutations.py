"""Every planted fault is caught, and the page that says so is up to date."""

from __future__ import annotations

import pytest

from tb import mutations

SAMPLE = (*mutations.MUTATIONS[::5], mutations.MUTATIONS[-1])


def test_some_faults_are_caught(icarus: str) -> None:
    assert {name for mutation in SAMPLE for name in mutation.designs} == set(mutations.DESIGN_NAMES)
    for outcome in mutations.run_all(icarus, SAMPLE):
        assert (outcome.reason is None) == (outcome.mutation is None), outcome


@pytest.mark.slow
def test_every_fault_is_caught(icarus: str) -> None:
    outcomes = mutations.run_all(icarus)
    escaped = [
        f"{outcome.design}: {outcome.mutation.name}"
        for outcome in outcomes
        if outcome.mutation is not None and outcome.reason is None
    ]
    assert not escaped
    broken = [
        f"{outcome.design}: {outcome.reason}" for outcome in outcomes if outcome.mutation is None and outcome.reason
    ]
    assert not broken
    assert len(outcomes) == len(mutations.DESIGN_NAMES) + sum(len(mutation.designs) for mutation in mutations.MUTATIONS)
    assert mutations.PAGE.read_text() == mutations.markdown(outcomes), "run python -m tb.mutations"


def example(pattern: str) -> mutations.Mutation:
    return mutations.Mutation("example", "adder", pattern, "-", ("MacArray",))


TEXT = "module other(a);\n  assign a = b + c;\nendmodule\n\nmodule adder(a);\n  assign a = b + c + d;\nendmodule\n"


def test_a_mutation_edits_its_module_only() -> None:
    assert example(r"\+ c").apply(TEXT) == TEXT.replace("b + c + d", "b - + d")


@pytest.mark.parametrize(("pattern", "count"), [(r"\+", 2), (r"\*", 0)])
def test_a_pattern_must_match_once(pattern: str, count: int) -> None:
    with pytest.raises(
        mutations.MutationError,
        match=f"^Pattern of mutation 'example' must match once in adder, not {count} times$",
    ):
        example(pattern).apply(TEXT)


def test_a_module_must_occur_once() -> None:
    with pytest.raises(
        mutations.MutationError, match=r"^Module adder of mutation 'example' must occur once, not 0 times$"
    ):
        example("b").apply(TEXT.replace("adder", "adders"))


def test_an_escaped_fault_shows() -> None:
    outcomes = [mutations.Outcome(None, name, None) for name in mutations.DESIGN_NAMES]
    outcomes += [mutations.Outcome(m, name, None) for m in mutations.MUTATIONS for name in m.designs]
    rows = mutations.table(outcomes)
    assert all("caught" not in row for row in rows) and all("escaped" in row for row in rows[2:])
    assert rows[1] == ("none", "", *["passes"] * len(mutations.DESIGN_NAMES))
