"""The search: its space, its store, restarts, killed workers; what BoTorch proposes is in make test-slow."""
from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sw.search import (
    Choice,
    Evaluation,
    Nuts,
    Saas,
    Sobol,
    Space,
    evaluate_here,
    evaluate_on_dask,
    front,
    hypervolume,
    search,
)

SPACE = Space((Choice("a", (1, 2, 3, 4)), Choice("b", (0.25, 0.5, 1.0)), Choice("c", (8,))))


def objective(point):
    return point["a"] / 4 * point["b"], 1 - point["b"] * point["a"] / 8


def test_points_and_coordinates():
    assert len(list(SPACE.points())) == 12
    for point in SPACE.points():
        assert SPACE.decode(SPACE.encode(point)) == point
    assert SPACE.decode([1.0, 0.0, 0.3]) == {"a": 4, "b": 0.25, "c": 8}
    with pytest.raises(ValueError, match=r"^Value of 'a' must be one of 1, 2, 3, 4, not 5$"):
        SPACE.encode({"a": 5, "b": 0.5, "c": 8})
    with pytest.raises(ValueError, match=r"^Values of 'a' must be different and at least one, not \(1, 1\)$"):
        Choice("a", (1, 1))
    with pytest.raises(ValueError, match=r"^Choices must have different names, not \['a', 'a'\]$"):
        Space((Choice("a", (1,)), Choice("a", (2,))))


def test_front_and_hypervolume():
    values = [(1.0, 1.0), (2.0, 0.5), (0.5, 3.0), (0.5, 2.0), (2.0, 0.5), (1.0, 0.9)]
    assert front(values) == [(2.0, 0.5), (1.0, 1.0), (0.5, 3.0)]
    assert hypervolume(values, (0.0, 0.0)) == pytest.approx(2 * 0.5 + 1 * 0.5 + 0.5 * 2)
    assert hypervolume(values, (0.75, 0.75)) == pytest.approx(0.25 * 0.25)
    assert hypervolume([], (0.0, 0.0)) == hypervolume(values, (9.0, 9.0)) == 0
    generator = random.Random(0)
    cloud = [(generator.random(), generator.random()) for _ in range(30)]
    grid = [((i + 0.5) / 200, (j + 0.5) / 200) for i in range(200) for j in range(200)]
    covered = sum(any(x <= a and y <= b for a, b in cloud) for x, y in grid) / len(grid)
    assert hypervolume(cloud, (0.0, 0.0)) == pytest.approx(covered, abs=0.01)


class Greedy(Sobol):
    """Depends on all that is done."""

    def __call__(self, space, done, count, seed):
        best = max(done, key=lambda e: e.values[0], default=None)
        points = super().__call__(space, done, count, seed)
        return points if best is None else [{**point, "a": best.point["a"]} for point in points]


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("survives", [0, 3, 5, 8])
def test_a_search_that_was_stopped_ends_like_one_that_was_not(tmp_path, survives):
    options = {"propose": Greedy(), "evaluations": 10, "initial": 4, "batch": 3, "seed": 5}
    expected = search(SPACE, objective, tmp_path / "whole", **options)
    calls = []

    def killed(point):
        if len(calls) == survives:
            raise KeyboardInterrupt
        calls.append(point)
        return objective(point)

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, killed, tmp_path / "parts", **options)
    (tmp_path / "parts" / "0009.77.part").write_text('{"num')
    assert len(list((tmp_path / "parts").glob("????.json"))) == survives

    def backwards(objective, points):
        return evaluate_here(objective, points[::-1])

    found = search(SPACE, objective, tmp_path / "parts", evaluate=backwards, **options)
    assert found == expected and [e.number for e in found] == list(range(10))
    (tmp_path / "parts" / "0009.77.part").unlink()
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert search(SPACE, killed, tmp_path / "parts", **options) == expected, "nothing is evaluated twice"


def test_a_longer_search_goes_on_from_a_shorter_one(tmp_path):
    options = {"propose": Sobol(), "initial": 4, "batch": 4}
    search(SPACE, objective, tmp_path / "a", evaluations=6, **options)
    longer = search(SPACE, objective, tmp_path / "a", evaluations=9, **options)
    assert longer == search(SPACE, objective, tmp_path / "b", evaluations=9, **options)
    assert [e.point for e in longer] == Sobol()(SPACE, [], 9, 0)


def test_folders_of_other_searches_are_refused(tmp_path):
    search(SPACE, objective, tmp_path, propose=Sobol(), evaluations=1, initial=1, batch=1)
    with pytest.raises(ValueError, match=r"^Folder '.*' must be that of the same search, or a new one$"):
        search(SPACE, objective, tmp_path, propose=Sobol(), evaluations=1, initial=1, batch=1, seed=1)
    with pytest.raises(ValueError, match=r"^Batch must be positive, not 0$"):
        search(SPACE, objective, tmp_path, propose=Sobol(), evaluations=1, initial=1, batch=0)


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    """The first task kills its process; a task that raises is tried again too."""
    from distributed import Client, LocalCluster

    marks = tmp_path / "marks"
    marks.mkdir()

    def hazardous(point, marks=str(marks)):
        import os
        import signal

        first = f"{marks}/{point['a']}-{point['b']}"
        if not os.path.exists(first):
            with open(first, "w"):
                pass
            if point["a"] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if point["a"] == 2:
                raise OSError("a passing fault")
        return point["a"] / 4 * point["b"], 1 - point["b"] * point["a"] / 8

    options = {"propose": Sobol(), "evaluations": 8, "initial": 8, "batch": 1}
    expected = search(SPACE, objective, tmp_path / "here", **options)
    assert {1, 2} <= {e.point["a"] for e in expected}
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        found = search(SPACE, hazardous, tmp_path / "dask", evaluate=evaluate_on_dask(client), **options)
    assert found == expected


@pytest.mark.slow
def test_saas_enlarges_the_front(tmp_path):
    """A smooth problem of five choices, two of which matter; how it does beside Sobol points is a study's question."""
    pytest.importorskip("botorch")
    space = Space(tuple(Choice(name, tuple(range(9))) for name in "abcde"))

    def smooth(point):
        x, y = point["a"] / 8, point["b"] / 8
        return 1 - (x - 0.3) ** 2 - (y - 0.7) ** 2, 1 - (x - 0.9) ** 2 - (y - 0.7) ** 2

    reference = (0.2, 0.2)
    saas = Saas(reference=reference, nuts=Nuts(warmup=32, samples=32, thinning=8, max_tree_depth=4), samples=16,
                restarts=2, raw_samples=16)
    options = {"evaluations": 14, "initial": 8, "batch": 3}
    found = search(space, smooth, tmp_path / "saas", propose=saas, **options)
    points = [tuple(e.point.values()) for e in found]
    assert len(set(points)) == 14 and all(isinstance(e, Evaluation) for e in found)
    assert [e.point for e in found[:8]] == Sobol()(space, [], 8, 0)
    assert saas(space, found[:8], 3, 0) == [e.point for e in found[8:11]], "the same again"
    before, after = (hypervolume([e.values for e in found[:count]], reference) for count in (8, 14))
    assert after > before
    assert json.loads((tmp_path / "saas/search.json").read_text())["propose"][0] == "Saas"


def test_saas_runs_out_of_points_only_when_there_are_none(tmp_path, monkeypatch):
    """What the models propose is known already: every other point of the space comes before a point comes twice."""
    monkeypatch.setattr(Saas, "_candidates", lambda self, space, done, count, seed: [[0.0] * 3] * count)
    found = search(SPACE, objective, tmp_path, propose=Saas(reference=(0, 0)), evaluations=12, initial=4, batch=4)
    assert len({tuple(e.point.values()) for e in found}) == 12
