"""The wrong weight that ``--break`` gives the RTL: exactly one, and one that shows."""

from __future__ import annotations

import numpy as np
import pytest

from golden.execute import execute
from golden.network import Conv2d, IntegerNetwork
from tb import examples
from tb.broken import break_weight

NETWORKS = [examples.plain_network(8), examples.plain_network(1), examples.residual_network(2)]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_one_code_changes_and_is_seen(network: IntegerNetwork) -> None:
    x = examples.random_codes(network, 1, seed=5)
    for operation in network.operations:
        if not isinstance(operation, Conv2d):
            continue
        broken = break_weight(network, operation.name, x, visible=operation.output)
        assert broken is not None
        changed = broken.network.operation(operation.name)
        assert isinstance(changed, Conv2d)
        assert np.argwhere(changed.codes != operation.codes).tolist() == [list(broken.index)]
        assert operation.codes[broken.index] == broken.was and changed.codes[broken.index] == broken.code
        wrong, right = (execute(n, x)[operation.output] for n in (broken.network, network))
        assert np.unique(np.argwhere(wrong != right)[:, 1]).tolist() == [broken.index[0]]
        index = ", ".join(map(str, broken.index))
        said = f"weight code {broken.code} instead of {broken.was} at [{index}] of layer {operation.name}"
        assert str(broken) == said


def test_a_pool_may_hide_it() -> None:
    network = examples.plain_network(3)
    x = examples.random_codes(network, 1, seed=5)
    broken = break_weight(network, "grouped", x, visible="pool")
    assert broken is not None and (execute(broken.network, x)["pool"] != execute(network, x)["pool"]).any()


def test_says_when_it_cannot() -> None:
    network = examples.residual_network(4)
    assert network.input.zero_point == 0
    assert break_weight(network, "stem", np.zeros((1, *network.input.shape), np.uint8), visible="stem") is None
