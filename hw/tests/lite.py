"""An AXI4-Lite manager for benches, stalled at random, that checks the rules of the subordinate's channels."""

import random


class Lite:
    """Drives a :class:`~hw.axi.LiteSignature` from one testbench.

    Parameters
    ----------
    port
        Mapping of channel signal names to signals.
    stall : :class:`float`
        Probability that a cycle passes without a valid or without a ready.
    """

    def __init__(self, port, *, stall=0.0, seed=0):
        self.port = port
        self.stall = stall
        self.rng = random.Random(seed)

    async def run(self, ctx, *, writes=(), reads=(), delays=(0, 0, 0), holds=(0, 0)):
        """Do ``writes`` (address, data[, strobe]) and ``reads`` (addresses) side by side.

        ``delays`` are cycles before the first valid on AW, W, AR; ``holds`` cycles before the first ready on B, R.
        Returns the list of write responses, and the list of (data, response) of the reads.
        """
        port = self.port
        writes = [write if len(write) == 3 else (*write, 0xF) for write in writes]
        queues = {
            "aw": [{"awaddr": address} for address, _, _ in writes],
            "w": [{"wdata": data, "wstrb": strobe} for _, data, strobe in writes],
            "ar": [{"araddr": address} for address in reads],
        }
        starts = dict(zip(("aw", "w", "ar"), delays)) | dict(zip(("b", "r"), holds))
        offering = dict.fromkeys(queues, False)
        answers = {"b": [], "r": []}
        fields = {"b": ("bresp",), "r": ("rdata", "rresp")}
        pending = dict.fromkeys(answers)
        taken = dict.fromkeys(queues, 0)
        cycle = 0
        while len(answers["b"]) < len(writes) or len(answers["r"]) < len(reads):
            assert cycle < 1000, "no answer any more"

            def stalls(channel, cycle=cycle):
                return cycle < starts[channel] or (self.stall > 0 and self.rng.random() < self.stall)

            before = {name: ctx.get(port[name]) for name in ("awready", "wready", "arready", "bvalid", "rvalid")}
            for channel, queue in queues.items():
                if not offering[channel]:
                    offering[channel] = bool(queue) and not stalls(channel)
                    noise = {"aw": ("awaddr",), "w": ("wdata", "wstrb"), "ar": ("araddr",)}[channel]
                    item = queue[0] if offering[channel] else {name: self.rng.getrandbits(4) for name in noise}
                    for name, value in item.items():
                        ctx.set(port[name], value)
                    ctx.set(port[f"{channel}valid"], offering[channel])
            ready = {channel: not stalls(channel) for channel in answers}
            for channel, value in ready.items():
                ctx.set(port[f"{channel}ready"], value)
            for name, value in before.items():
                assert ctx.get(port[name]) == value, f"{name} depends on an input of the same cycle"
            for channel in answers:
                if not ctx.get(port[f"{channel}valid"]):
                    assert pending[channel] is None, f"{channel}valid dropped before the transfer"
                    continue
                word = tuple(ctx.get(port[name]) for name in fields[channel])
                assert pending[channel] in (None, word), f"{channel} changed before the transfer"
                assert len(answers[channel]) < (min(taken["aw"], taken["w"]) if channel == "b" else taken["ar"])
                pending[channel] = None if ready[channel] else word
                if ready[channel]:
                    answers[channel].append(word)
            for channel in queues:
                if offering[channel] and ctx.get(port[f"{channel}ready"]):
                    queues[channel].pop(0)
                    taken[channel] += 1
                    offering[channel] = False
            await ctx.tick()
            cycle += 1
        for name in ("awvalid", "wvalid", "arvalid", "bready", "rready"):
            ctx.set(port[name], 0)
        return [response for (response,) in answers["b"]], answers["r"]

    async def write(self, ctx, address, value, strobe=0xF):
        """One write that must be answered with OKAY."""
        responses, _ = await self.run(ctx, writes=[(address, value, strobe)])
        assert responses == [0]

    async def read(self, ctx, address):
        """One read that must be answered with OKAY; its data."""
        _, ((value, response),) = await self.run(ctx, reads=[address])
        assert response == 0
        return value
