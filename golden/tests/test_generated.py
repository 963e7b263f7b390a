"""Generated networks: what they cover, that they can be repeated and shrunk, and that their codes are well spread."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from golden import vectors
from golden.execute import execute
from golden.generated import (
    MAX_WORDS,
    WIDTHS,
    WORK,
    AddSpec,
    ConvSpec,
    NetworkSpec,
    PoolSpec,
    ResidualSpec,
    generate,
    random_spec,
    resnet20,
    shrink,
)
from golden.network import Add, Conv2d, Grid, Kind, MaxPool2d, NetworkError, signed_width
from golden.tests import onnx_runtime

SEEDS = range(200)


@pytest.fixture(scope="module")
def networks():
    """Spec, network, input and every tensor of each seed."""
    made = []
    for seed in SEEDS:
        spec = random_spec(seed)
        network, x = spec.build(frames=2)
        made.append((spec, network, x, execute(network, x)))
    return made


@pytest.fixture(scope="module")
def resnet():
    network, x = resnet20()
    return network, x, execute(network, x)


def widths(network):
    """The widest M, M_skip and B, and the largest S."""
    found = np.zeros(4, int)
    for operation in network.operations:
        constants = None if isinstance(operation, MaxPool2d) else operation.requantize
        if constants is not None:
            skips = constants.skip_multiplier if constants.skip_multiplier is not None else np.zeros(1, int)
            values = (constants.multiplier, skips, constants.bias)
            needed = [signed_width(int(v.min()), int(v.max())) for v in values]
            found = np.maximum(found, [*needed, int(constants.shift.max())])
    return found


def test_the_same_seed_gives_the_same_network():
    for seed in (0, 7, 12):
        (a, x), (b, y) = random_spec(seed).build(), random_spec(seed).build()
        assert random_spec(seed) == random_spec(seed) != random_spec(seed + 1)
        np.testing.assert_array_equal(x, y)
        for p, q in zip(a.operations, b.operations, strict=True):
            if isinstance(p, Conv2d):
                np.testing.assert_array_equal(p.codes, q.codes)
        for name, value in execute(a, x).items():
            np.testing.assert_array_equal(value, execute(b, y)[name])


def test_a_printed_spec_can_be_pasted_back():
    for seed in SEEDS:
        spec = random_spec(seed)
        assert eval(repr(spec)) == spec
    spec = NetworkSpec(1, (2, 3, 3), (ConvSpec(4, grid=Grid.ODD), PoolSpec()))
    assert repr(spec) == (
        "NetworkSpec(seed=1, shape=(2, 3, 3), blocks=(ConvSpec(channels=4, grid=Grid.ODD), PoolSpec()))"
    )


def test_every_corner_is_reached(networks):
    seen = Counter()
    for _, network, _, _ in networks:
        source = network.input
        seen["zero point of the input"] += source.zero_point > 0
        seen["one-dimensional"] += source.shape[1] == 1
        seen[f"end in {network.output.kind.value}s"] += 1
        made = {source.name: None}
        for operation in network.operations:
            tensor = network.tensor(operation.output)
            if tensor.kind is Kind.CODE:
                seen[f"{tensor.bits}-bit codes"] += 1
                seen["inner zero point"] += tensor.zero_point > 0
            if isinstance(operation, Conv2d):
                before = network.tensor(operation.input)
                kernel = operation.codes.shape[2:]
                seen[f"kernel {min(kernel[0], 5)}"] += 1
                seen["wide kernel"] += kernel[1] > kernel[0]
                seen["high kernel"] += kernel[1] < kernel[0]
                seen[f"stride {max(operation.stride)}"] += 1
                seen["two strides"] += operation.stride[0] != operation.stride[1]
                seen["dilation"] += max(operation.dilation) > 1
                seen["padding"] += max(operation.padding) > 0
                seen["asymmetric padding"] += operation.padding[:2] != operation.padding[2:]
                seen["padding with a zero point"] += max(operation.padding) > 0 and before.zero_point > 0
                seen[f"{operation.bits}-bit weights"] += 1
                seen[operation.grid.value] += 1
                seen["groups"] += operation.groups > 1
                seen["depthwise"] += operation.groups == before.shape[0] > 1
                seen["odd channels"] += operation.codes.shape[0] % 4 != 0
                seen["one channel"] += operation.codes.shape[0] == 1
                seen["broadcast"] += operation.broadcast and before.shape[1] * before.shape[2] > 1
                seen["whole map"] += kernel == before.shape[1:] != (1, 1) and not operation.broadcast
                seen["pixelwise end"] += tensor.kind is Kind.ACCUMULATOR and tensor.shape[1] * tensor.shape[2] > 1
                if operation.skip is not None:
                    projection = isinstance(made[operation.skip], Conv2d)
                    seen["projection" if projection else "identity"] += 1
                    seen["projection with zero point 128"] += network.tensor(operation.skip).zero_point == 128
                    seen["residual operand is the input"] += operation.skip == source.name
            elif isinstance(operation, MaxPool2d):
                overlap = operation.kernel[0] > operation.stride[0] or operation.kernel[1] > operation.stride[1]
                seen["overlapping pool"] += overlap
                seen["padded pool"] += max(operation.padding) > 0
                seen["2x2 pool"] += operation.kernel == operation.stride == (2, 2)
            else:
                seen["addition"] += 1
            made[operation.output] = operation
    expected = {f"kernel {k}" for k in range(1, 6)} | {f"stride {s}" for s in (1, 2, 3)}
    assert expected <= set(seen)
    assert {f"{b}-bit {what}" for b in range(1, 9) for what in ("codes", "weights")} <= set(seen)
    rare = {what: count for what, count in seen.items() if count < 5}
    assert not rare


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_onnx_runtime_gives_the_same_numbers(networks, first):
    for spec, network, x, values in networks[first : first + 20]:
        for name, value in onnx_runtime.executed(network, x).items():
            np.testing.assert_array_equal(values[name], value, err_msg=f"{name} of {spec}")


def test_networks_are_small(networks):
    works = [spec.work() for spec, *_ in networks]
    assert max(works) <= WORK[1] and np.median(works) >= 1000
    assert all(spec.fits() for spec, *_ in networks)
    assert MAX_WORDS <= 1024
    assert max(max(tensor.shape) for _, network, *_ in networks for tensor in network.tensors) <= 20


def test_codes_are_well_spread(networks):
    """Among all tensors of more than eight codes, few have one code in more than nine of ten places."""
    shares, codes = [], []
    for _, network, _, values in networks:
        for tensor in network.tensors:
            value = values[tensor.name]
            if tensor.kind is Kind.CODE and value.size > 8:
                counts = np.bincount(value.ravel(), minlength=1 << tensor.bits)
                shares.append(counts.max() / value.size)
                codes.append(np.count_nonzero(counts) / min(1 << tensor.bits, value.size))
    assert np.mean(np.array(shares) > 0.9) < 0.02
    assert np.median(codes) > 0.6


def test_constants_fit_and_use_the_widths(networks):
    widest = np.max([widths(network) for _, network, *_ in networks], axis=0)
    limits = [WIDTHS.multiplier_bits, WIDTHS.skip_multiplier_bits, WIDTHS.bias_bits, WIDTHS.max_shift]
    assert (widest <= limits).all() and (widest >= np.array(limits) - [2, 6, 2, 0]).all()
    constants = [o.requantize for _, n, *_ in networks for o in n.operations if isinstance(o, Conv2d) and o.requantize]
    assert min(int(c.multiplier.min()) for c in constants) < 0
    assert any((c.multiplier == 0).any() for c in constants)
    for _, network, *_ in networks:
        for operation in network.operations:
            if isinstance(operation, Conv2d):
                low, high = network.accumulator_bounds(operation)
                assert signed_width(int(low.min()), int(high.max())) <= 32


def test_simpler_specs_are_smaller_and_can_be_built():
    for seed in range(0, 40, 4):
        spec = random_spec(seed)
        simpler = list(spec.simpler())
        assert len(simpler) == len(set(simpler)) and spec not in simpler
        for candidate in simpler[:: max(1, len(simpler) // 8)]:
            network, x = candidate.build()
            execute(network, x)


def test_shrinking_ends_at_one_pixel():
    for seed in range(5):
        spec = shrink(random_spec(seed), lambda candidate: True, tries=1000)
        network, _ = spec.build()
        assert len(network.operations) == 1 and network.input.shape == (1, 1, 1) and network.input.bits == 1


def test_shrinking_keeps_the_fault():
    def fails(spec):
        network, _ = spec.build()
        return any(isinstance(o, Conv2d) and o.skip and max(o.stride) > 1 and o.bits > 2 for o in network.operations)

    spec = next(spec for spec in map(random_spec, range(1000)) if fails(spec))
    small = shrink(spec, fails, tries=2000)
    (block,) = small.blocks
    assert isinstance(block, ResidualSpec) and len(block.body) == 1
    assert block.body[0].weight_bits == 3 and small.shape[0] == 1 and small.bits == 1
    calls = []
    assert shrink(spec, lambda candidate: calls.append(candidate), tries=7) == spec
    assert len(calls) == 7


def test_what_does_not_fit_is_one_sentence():
    def refused(sentence, *blocks, shape=(4, 4, 4)):
        with pytest.raises(NetworkError, match=sentence):
            NetworkSpec(0, shape, blocks)

    refused(r"^Spec must have at least one block$")
    refused(
        r"^Window of step 0 of the spec must fit its input, but its output would be \(1, 0, 4\)$", ConvSpec(1, (5, 1))
    )
    refused(r"^Groups of step 0 of the spec must divide the channels, not 3$", ConvSpec(3, groups=3))
    refused(r"^Accumulators of step 0 of the spec must be the network's output$", ConvSpec(3, bits=None), PoolSpec())
    refused(
        r"^Residual operand of step 0 of the spec must have shape \(3, 4, 4\), not \(4, 4, 4\)$",
        ResidualSpec((ConvSpec(3),)),
    )
    refused(
        r"^Residual operand of step 2 of the spec must have shape \(3, 4, 4\), not \(3, 2, 2\)$",
        ResidualSpec((ConvSpec(3),), ConvSpec(3, stride=(2, 2)), AddSpec()),
    )


def test_resnet20_is_the_documented_network(resnet):
    network, x, _ = resnet
    convs = [o for o in network.operations if isinstance(o, Conv2d)]
    assert len(convs) == len(network.operations) == 1 + 18 + 2 + 1
    assert network.name == "resnet20" and x.shape == (2, 3, 32, 32) and network.input.bits == 8
    assert (convs[0].bits, convs[-1].bits) == (8, 8) and convs[-1].broadcast
    assert {c.bits for c in convs[1:-1]} == {4}
    shortcuts = [c for c in convs if c.name.endswith("shortcut")]
    for conv, size in zip(shortcuts, (16, 8), strict=True):
        tensor = network.tensor(conv.output)
        assert conv.codes.shape[2:] == (1, 1) and conv.stride == (2, 2) and tensor.shape[1:] == (size, size)
        assert (tensor.bits, tensor.zero_point) == (8, 128)
    assert sum(c.skip is not None for c in convs) == 9
    inner = [network.tensor(c.output).bits for c in convs if c not in shortcuts][:-2]
    assert set(inner) == {4} and len(inner) == 18
    assert network.tensor("stage3.3.conv2.out").bits == 8
    assert network.output.shape == (10, 1, 1) and network.output.kind is Kind.ACCUMULATOR
    macs = sum(c.codes[0].size * np.prod(network.tensor(c.output).shape) for c in convs[:-1])
    assert macs == 40_550_400 + 2 * 131_072  # the published network, and its two projections


def test_resnet20_codes_are_well_spread(resnet):
    network, _, values = resnet
    for tensor in network.tensors:
        if tensor.kind is Kind.CODE:
            share = np.bincount(values[tensor.name].ravel(), minlength=1 << tensor.bits) / values[tensor.name].size
            assert np.count_nonzero(share) >= 0.95 * len(share), tensor.name
            assert share[0] < 0.55 and share[-1] < 0.25, tensor.name
    assert len(np.unique(values["logits"])) == values["logits"].size


def test_resnet20_fits_the_widths(resnet):
    network, *_ = resnet
    assert (widths(network) <= [36, 46, 56, 48]).all()
    assert network.output.bits <= 32


@pytest.mark.slow
def test_resnet20_of_another_seed_is_another_network():
    network, x = resnet20(seed=3, frames=1)
    assert network.name == "resnet20-3" and len(x) == 1
    assert not np.array_equal(network.operations[0].codes, resnet20()[0].operations[0].codes)


def test_names_of_generated_networks():
    network, x, seed = generate("random-17")
    assert (network.name, len(x), seed) == ("random-17", 4, 17)
    for name in ("random-", "random-x", "random-1234567890", "resnet", "digits-plain-w4a4"):
        assert generate(name) is None


def test_find_writes_a_generated_network_once(tmp_path):
    folder = vectors.find("random-3", tmp_path / "made")
    assert folder == tmp_path / "made" / "random-3"
    network, values = vectors.read(folder)
    for name, value in execute(network, values["x"]).items():
        np.testing.assert_array_equal(values[name], value)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert vectors.find("random-3", tmp_path / "made") == folder
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    # What an older version of the generator wrote is replaced, and nothing is left beside it.
    (folder / "manifest.json").write_text("{}")
    (folder / "old").write_text("")
    vectors.read(vectors.find("random-3", tmp_path / "made"))
    assert not (folder / "old").exists()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["random-3"]


def test_find_names_what_can_be_generated(tmp_path):
    with pytest.raises(NetworkError, match=r"^Network must be .*, resnet20, random-SEED, not 'random-x'$"):
        vectors.find("random-x", tmp_path)
    with pytest.raises(NetworkError, match=r"^Network must be .*-w8a8, not 'resnet20'$"):
        vectors.find("resnet20")


def test_a_committed_folder_comes_before_a_generated_one(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "NETWORKS", tmp_path)
    network, x = random_spec(1).build()
    vectors.write(tmp_path / "random-5", dataclasses.replace(network, name="random-5"), x, seed=1)
    assert vectors.find("random-5", tmp_path / "made") == tmp_path / "random-5"
    assert not (tmp_path / "made").exists()


def test_additions_and_pools_are_compared_too(networks):
    kinds = Counter(type(o) for _, network, *_ in networks for o in network.operations)
    assert min(kinds[Conv2d], kinds[MaxPool2d], kinds[Add]) >= 40
