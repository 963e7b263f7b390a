"""The command line: parses, calls, prints; what it calls is in the other packages.

Exit status: 0 done, 1 a check failed (a mismatch, say), 2 a mistake in what was asked: one sentence on standard error.
"""

from __future__ import annotations

import enum
import os
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["app", "main"]

BUILD = Path("build")

app = typer.Typer(
    name="pactolus",
    help="From PyTorch models trained with 1- to 8-bit weights and activations to RTL that computes the very same "
    "integers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
report_app = typer.Typer(help="Studies that write their tables to files.", no_args_is_help=True)
app.add_typer(report_app, name="report")
study_app = typer.Typer(help="Studies that train or measure: each writes a table and a plot.", no_args_is_help=True)
app.add_typer(study_app, name="study")
bench_app = typer.Typer(help="Measurements of speed; they depend on the machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


DataDir = Annotated[
    Path | None,
    typer.Option(envvar="PACTOLUS_DATA", help="Folder of the data's files; data in the working directory if none."),
]
Jobs = Annotated[int, typer.Option(help="Trainings at once, one thread each.")]
Checkpoints = Annotated[Path, typer.Option(help="What is there is not trained again.")]
CellTechnology = Annotated[str, typer.Option(help="Technology with standard cells.")]
Liberty = Annotated[
    Path | None, typer.Option(help="Liberty file (.lib or .lib.gz) that overrides the technology's own.")
]
PowerLiberty = Annotated[Path | None, typer.Option(help="Liberty file (.lib or .lib.gz) with internal power.")]
ClockTarget = Annotated[float | None, typer.Option(help="Clock target in ns; the technology's if not given.")]


class Simulator(enum.Enum):
    """The simulators of the benches."""

    VERILATOR = "verilator"
    ICARUS = "icarus"


class Form(enum.Enum):
    """The forms of ONNX files."""

    INTEGER = "integer"
    QCDQ = "qcdq"
    QONNX = "qonnx"


class Component(enum.Enum):
    """What Verilog is made of."""

    ACCELERATOR = "accelerator"
    DATAPATH = "datapath"
    MAC_ARRAY = "mac_array"
    REQUANTIZER = "requantizer"


def main() -> None:
    """Run the command; a user's mistake ends in one sentence and exit status 2.

    ``PACTOLUS_TRACEBACK=1`` in the environment shows where the sentence comes from.
    """
    try:
        app()
    except ModuleNotFoundError as error:
        extras = {"torch": "train", "sklearn": "train", "pyosys": "synth", "matplotlib": "synth", "onnx": "import",
              "onnxruntime": "import", "qonnx": "import", "atheris": "fuzz",
                  "botorch": "search", "distributed": "search", "numpyro": "search", "jax": "search"}
        extra = extras.get(error.name or "")
        _fail(f"Package {error.name} must be there for this command: pip install 'pactolus[{extra or 'sim'}]'", error)
    except (ValueError, OSError) as error:
        _fail(str(error), error)
    except RuntimeError as error:
        # A tool failed: the message ends with what it said.
        _fail(str(error), error, status=1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str, error: Exception, *, status: int = 2) -> None:
    if os.environ.get("PACTOLUS_TRACEBACK"):
        raise error
    Console(stderr=True).print(f"pactolus: {sentence}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)


def _command() -> str:
    """What was typed, for the first line of a table's file."""
    return shlex.join(["pactolus", *sys.argv[1:]])


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pactolus {version('pactolus')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def sim(
    networks: Annotated[
        list[str] | None, typer.Argument(help="Committed networks or folders of vectors; none: all committed ones.")
    ] = None,
    config: Annotated[str, typer.Option(help="Preset of the hardware.")] = "small",
    simulator: Annotated[Simulator, typer.Option(help="Who runs the RTL.")] = Simulator.VERILATOR,
    frames: Annotated[int, typer.Option(help="Frames of each network.")] = 1,
    break_layer: Annotated[
        str | None,
        typer.Option("--break", metavar="LAYER", help="Give the RTL one wrong weight of this layer: it must be found."),
    ] = None,
    wave: Annotated[bool, typer.Option("--wave", help="Write a waveform (VCD) of each network.")] = False,
    seed: Annotated[int, typer.Option(help="Of the simulators' state at power-up.")] = 1,
) -> None:
    """Run networks through the RTL and compare every output of every layer with golden, and every cycle with the model.

    Reports go to build/reports/sim-NETWORK-CONFIG-SIMULATOR.json. Exit status 1: something differs.
    """
    from tb import simulate

    status = simulate.run(
        networks or [],
        config=config,
        simulator=simulator.value,
        frames=frames,
        break_layer=break_layer,
        wave=wave,
        seed=seed,
        reports=BUILD / "reports",
    )
    raise typer.Exit(status)


@app.command()
def fuzz(
    count: Annotated[int, typer.Option(min=1, help="How many networks.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first network; the others follow.")] = 0,
    config: Annotated[str, typer.Option(help="Preset of the hardware.")] = "tiny",
    simulator: Annotated[Simulator, typer.Option(help="Who runs the RTL.")] = Simulator.VERILATOR,
) -> None:
    """Run random small networks through the RTL; one that fails is made smaller and printed with its seed.

    Exit status 1: one failed.
    """
    from tb import fuzz as random_networks

    raise typer.Exit(random_networks.run(count, seed=seed, config=config, simulator=simulator.value))


@app.command("fuzz-import")
def fuzz_import(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders with .onnx files to change, besides some built in.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many files.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first file; the others follow.")] = 0,
    guided: Annotated[
        bool, typer.Option("--guided", help="Let atheris choose the files by the code that they reach.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files that fail.")] = BUILD
    / "fuzz-import",
) -> None:
    """Give the importer broken and hostile ONNX files: each must be imported, or refused in one sentence.

    It runs in a process with limited memory and a clock. Exit status 1: one file did something else.
    """
    from pactolus import import_fuzz

    if guided:
        import_fuzz.guided(count, seed=seed, folders=folders or (), output=output)
    failures = import_fuzz.run(count, seed=seed, folders=folders or (), output=output)
    raise typer.Exit(1 if failures else 0)


@bench_app.command("simulation")
def bench_simulation(
    configs: Annotated[str, typer.Option("--config", help="Presets.")] = "tiny,small,wide,int8",
    network: Annotated[str, typer.Option(help="What they compute.")] = "digits-residual-w4a4",
    simulator: Annotated[Simulator, typer.Option(help="Who runs the RTL.")] = Simulator.VERILATOR,
    cycles: Annotated[int, typer.Option(min=1, help="Cycles to simulate, about.")] = 300_000,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file.")] = BUILD
    / "reports"
    / "simulation-speed.csv",
) -> None:
    """Measure the speed of simulation: cycles per second, and the share of the time that Python takes."""
    from tb import speed

    speed.run(configs.split(","), network=network, simulator=simulator.value, cycles=cycles, path=output)


@bench_app.command("training")
def bench_training(
    networks: Annotated[str, typer.Option("--network", help="Names, separated by commas.")] = "cnn",
    bits: Annotated[str, typer.Option(help="Of the middle layers, separated by commas.")] = "4",
    batch: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 128,
    rounds: Annotated[int, typer.Option(min=2, help="Steps of each model.")] = 30,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file.")] = BUILD / "reports" / "training-step.csv",
) -> None:
    """Measure what a training step costs by method, as a ratio to the float32 step beside it."""
    from sw import step_cost

    console = Console()
    costs = [
        cost
        for network in networks.split(",")
        for width in bits.split(",")
        for cost in step_cost.measure(network, bits=_width(width), batch=batch, rounds=rounds, console=console)
    ]
    console.print(step_cost.table(costs))
    step_cost.write(costs, output, command=_command())
    console.print(f"Written to {output}.", highlight=False)


@app.command()
def program(
    network: Annotated[str, typer.Argument(help="A committed or generated network, or a folder of vectors.")],
    config: Annotated[str, typer.Option(help="Preset of the hardware.")] = "small",
    show: Annotated[bool, typer.Option("--list", help="Print the commands for reading; write only with -o.")] = False,
    cycles: Annotated[bool, typer.Option("--cycles", help="Print where the cycles go; write only with -o.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Store every layer's output, not the last one only.")] = False,
    frames: Annotated[int, typer.Option(min=1, help="Frames of input to write.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; build/programs/NETWORK-CONFIG if not given.")
    ] = None,
) -> None:
    """Build a network's program: its stream, its input and the expected output as .hex files, and a listing."""
    from golden import vectors
    from hw.config import preset
    from hw.program import build
    from hw.program import files as program_files
    from hw.program.listing import cycles_listing, listing

    integers, tensors = vectors.read(vectors.find(network, BUILD / "vectors"))
    built = build(integers, preset(config), trace=trace)
    if show:
        print(listing(built), end="")
    if cycles:
        print(cycles_listing(built), end="")
    if (show or cycles) and output is None:
        return
    available = len(tensors[integers.input.name])
    if frames > available:
        raise ValueError(f"Frames must be between 1 and {available}, those of the vectors, not {frames}")
    folder = output or BUILD / "programs" / f"{integers.name}-{config}"
    program_files.write(folder, built, {name: values[:frames] for name, values in tensors.items()})
    print(f"{folder}: {len(built.commands)} commands, {len(built.words())} words of {built.config.stream_bits} bits")


@app.command()
def verilog(
    config: Annotated[str, typer.Option(help="Preset of the hardware.")] = "small",
    component: Annotated[Component, typer.Option(help="Which part of it.")] = Component.ACCELERATOR,
    bits: Annotated[
        int | None, typer.Option(help="Output width of a requantizer of one width: the smaller of its forms.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; build/verilog/COMPONENT-CONFIG.v if not given.")
    ] = None,
) -> None:
    """Write the Verilog of a preset; the file is only touched if its text changes."""
    from hw.accelerator import Accelerator
    from hw.config import preset
    from hw.datapath import Datapath
    from hw.mac_array import MacArray
    from hw.requantizer import requantizer
    from hw.verilog import generate, write_if_changed

    chosen = preset(config)
    if (component is Component.REQUANTIZER) != (bits is not None):
        raise ValueError("Output width (--bits) and --component requantizer must come together")
    if component is Component.ACCELERATOR:
        text = generate(Accelerator(chosen))
    elif component is Component.DATAPATH:
        text = generate(Datapath(chosen))
    elif bits is not None:
        unit = requantizer(
            acc_bits=chosen.acc_bits,
            output_bits=bits,
            multiplier_bits=chosen.multiplier_bits,
            bias_bits=chosen.bias_bits,
            max_shift=chosen.max_shift,
        )
        text = generate(unit)
    else:
        array = MacArray(
            rows=chosen.rows,
            lanes=chosen.lanes,
            digit_bits=chosen.digit_bits,
            acc_bits=chosen.acc_bits,
            drain_rows=chosen.requant_lanes,
        )
        text = generate(array)
    path = output or BUILD / "verilog" / f"{component.value}-{config}.v"
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = write_if_changed(path, text)
    print(f"{path}: {len(text.splitlines())} lines{'' if changed else ', unchanged'}")


@app.command()
def docs(
    folder: Annotated[Path, typer.Argument(help="Where the pages are.")] = Path("docs"),
) -> None:
    """Write the pages that are made from the code: registers, stream format, the C header of the registers."""
    from hw.reference import write

    changed = write(folder)
    print("\n".join(map(str, changed)) or f"{folder}: nothing has changed")


@app.command()
def synth(
    pdk: Annotated[str, typer.Option(help="Technology; see the documentation for the names.")] = "mini",
    liberty: Liberty = None,
    components: Annotated[str, typer.Option(help="What to synthesize.")] = "array,pact",
    digit_bits: Annotated[str, typer.Option(help="Digit widths of the arrays.")] = "1,2,4,8,16",
    output_bits: Annotated[str, typer.Option(help="Output widths of the PACT units.")] = "1,2,3,4,8",
    rows: Annotated[int | None, typer.Option(help="Rows of the arrays; by technology if not given.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Lanes of the arrays; by digit width if not given.")] = None,
    accumulator_bits: Annotated[int | None, typer.Option(help="Of the arrays; 2d + 12 if not given.")] = None,
    clock_ns: ClockTarget = None,
) -> None:
    """Area per bit width of the array and the PACT unit: a table, a CSV file and a plot in build/reports."""
    from hw.synth import report

    report.run(
        pdk=pdk,
        liberty=liberty,
        components=components.split(","),
        digit_bits=[_width(text) for text in digit_bits.split(",")],
        output_bits=[_width(text) for text in output_bits.split(",")],
        rows=rows,
        lanes=lanes,
        accumulator_bits=accumulator_bits,
        clock_ns=clock_ns,
        build=BUILD / "synth",
        reports=BUILD / "reports",
    )


@app.command()
def prove(
    bits: Annotated[str, typer.Option(help="Digit widths, separated by commas.")] = "1,2,4,8,16",
    lanes: Annotated[int | None, typer.Option(help="One size per width; small ones and the report's if none.")] = None,
    rows: Annotated[int | None, typer.Option(help="By digit width if not given.")] = None,
    accumulator_bits: Annotated[int | None, typer.Option(help="2d + 12 if not given.")] = None,
    form: Annotated[str, typer.Option(help="Of the dot product, separated by commas; or best.")] = "and,nand,pairs",
    pipeline: Annotated[int | None, typer.Option(help="Pipeline registers; by digit width if not given.")] = None,
    carry_save: Annotated[bool, typer.Option("--carry-save", help="Accumulators in carry-save form.")] = False,
    reported: Annotated[
        bool, typer.Option("--reported", help="Every array of the area report too, mapped for its clock.")
    ] = False,
    pdk: Annotated[str, typer.Option(help="Technology of cells or gates.")] = "mini",
    liberty: Liberty = None,
    clock_ns: ClockTarget = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file.")] = None,
) -> None:
    """Prove arrays and their mapped netlists equal to the plain sum of products; see docs/datapath.md for how.

    Exit status 1: something is not proven.
    """
    from hw.synth.equivalence import run as proofs

    widths = [_width(text) for text in bits.split(",")]
    proofs.run(
        proofs.subjects(
            widths,
            lanes=lanes,
            rows=rows,
            acc_bits=accumulator_bits,
            forms=form.split(","),
            pipeline=pipeline,
            carry_save=carry_save,
        ),
        pdk=pdk,
        liberty=liberty,
        clock_ns=clock_ns,
        reported_bits=widths if reported else (),
        build=BUILD / "synth",
        path=output or BUILD / "reports" / f"proofs-{pdk}.csv",
        command=_command(),
    )


@app.command()
def train(
    networks: Annotated[
        list[str] | None,
        typer.Argument(help="digits-plain, digits-residual, cnn, resnet-8, resnet-20; the first two if none."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any field of sw.train.TrainConfig; options come before it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="digits, fashion-mnist or cifar-10.")] = None,
    data_dir: DataDir = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Bits of the middle layers' weights and activations, and fp32 for the baseline; what the file says, "
            "or else fp32,8,4,3,2."
        ),
    ] = None,
    edge_bits: Annotated[
        str | None, typer.Option(help="Bits of the first and the last layer; fp32 cannot be exported.")
    ] = None,
    shortcut_bits: Annotated[int | None, typer.Option(help="Bits of the residual stream.")] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weight quantizer: dorefa, sawb, octav, maxabs or vsquant.")
    ] = None,
    activations: Annotated[
        str | None, typer.Option(help="Activation quantizer: pact, pact+, octav or vsquant.")
    ] = None,
    octav_clips: Annotated[
        str | None, typer.Option(help="OCTAV's clips: dynamic, anew at every step, or static.")
    ] = None,
    octav_weight_gradient: Annotated[
        str | None, typer.Option(help="Of OCTAV weights beyond the clip: ste, pwl or mad.")
    ] = None,
    octav_activation_gradient: Annotated[
        str | None, typer.Option(help="Of OCTAV activations beyond the clip: ste, pwl or mad.")
    ] = None,
    vsquant_vector: Annotated[int | None, typer.Option(help="Channels of VS-Quant's vectors.")] = None,
    vsquant_scale_bits: Annotated[int | None, typer.Option(help="Of VS-Quant's integer scales.")] = None,
    vsquant_scales: Annotated[
        str | None, typer.Option(help="VS-Quant activations: static, or dynamic, at every position.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the first on.")] = 1,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Training epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate.")] = None,
    augmentation: Annotated[str | None, typer.Option(help="none or crop-flip.")] = None,
    validation: Annotated[int | None, typer.Option(help="Training images to hold out and count.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; the result depends on their number.")] = None,
    checkpoints: Annotated[
        Path, typer.Option(help="Folder of checkpoints and metrics; what is there is not trained again.")
    ] = BUILD / "checkpoints",
    table: Annotated[Path | None, typer.Option(help="CSV file for the accuracy of every run.")] = None,
) -> None:
    """Train, and end with the accuracy of the integer networks on the test split.

    A run that was stopped, in whatever way, goes on from its last epoch when the command is given again, and ends with
    the same bytes. The metrics of every epoch are in a CSV file beside the checkpoint.
    """
    from sw.studies import accuracy
    from sw.train import read_toml

    given = {
        "data": data,
        "edge_bits": None if edge_bits in (None, "fp32") else _width(str(edge_bits)),
        "shortcut_bits": shortcut_bits,
        "width": width,
        "weights": weights,
        "activations": activations,
        "octav_clips": octav_clips,
        "octav_weight_gradient": octav_weight_gradient,
        "octav_activation_gradient": octav_activation_gradient,
        "vsquant_vector": vsquant_vector,
        "vsquant_scale_bits": vsquant_scale_bits,
        "vsquant_scales": vsquant_scales,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "augmentation": augmentation,
        "validation": validation,
        "threads": threads,
    }
    fields = read_toml(config) if config else {}
    fields |= {name: value for name, value in given.items() if value is not None}
    if edge_bits == "fp32":
        fields["edge_bits"] = None
    if networks is None and "network" in fields:
        networks = [fields["network"]]
    widths = [(fields.get("weight_bits"), fields.get("activation_bits"))] if "weight_bits" in fields else None
    if bits is not None or widths is None:
        found = [None if text == "fp32" else _width(text) for text in (bits or "fp32,8,4,3,2").split(",")]
        widths = [(width, width) for width in found]
    first = fields.get("seed", 0)
    console = Console()
    configs = accuracy.configurations(
        networks or accuracy.DIGITS, bits=widths, seeds=range(first, first + seeds), fields=fields
    )
    runs = accuracy.study(configs, checkpoints, directory=data_dir, console=console)
    console.print(accuracy.table(runs))
    console.print(f"Checkpoints are in {checkpoints}.", highlight=False, soft_wrap=True)
    if table is not None:
        accuracy.write(runs, table, command=_command())


@study_app.command()
def methods(
    network: Annotated[str, typer.Option(help="cnn or resnet-8; both, parts of one table, with a comma.")] = "cnn",
    method: Annotated[str, typer.Option("--methods", help="Names with commas; all if not given.")] = "",
    bits: Annotated[str, typer.Option(help="Of the middle layers; the baseline is always there.")] = "2,3,4,8",
    seeds: Annotated[int, typer.Option(min=1, help="Of the small CNN; ResNet-8 has one.")] = 3,
    epochs: Annotated[int | None, typer.Option(help="Other than the study's.")] = None,
    jobs: Jobs = 2,
    data_dir: DataDir = None,
    checkpoints: Checkpoints = BUILD / "studies" / "methods",
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file; the plot is beside it.")] = BUILD
    / "reports"
    / "methods.csv",
) -> None:
    """Methods × bits on Fashion-MNIST: accuracy of the integer networks, mean ± standard deviation over the seeds.

    Stopped in whatever way, the same command goes on from what is on disk.
    """
    from sw.studies import methods as methods_study

    console = Console()
    runs = []
    for name in network.split(","):
        runs += methods_study.configurations(
            name,
            methods=method.split(",") if method else tuple(methods_study.METHODS),
            bits=[_width(text) for text in bits.split(",")],
            seeds=range(seeds if name == "cnn" else 1),
            changes={} if epochs is None else {"epochs": epochs},
        )
    rows = methods_study.study(runs, checkpoints, jobs=jobs, directory=data_dir, console=console)
    console.print(methods_study.table(rows))
    methods_study.write(rows, output, command=_command())
    methods_study.draw(rows, output.with_suffix(".svg"))
    console.print(f"{output} and {output.with_suffix('.svg')}", highlight=False, soft_wrap=True)


@study_app.command("model-size")
def model_size(
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0 on.")] = 3,
    epochs: Annotated[int | None, typer.Option(help="Other than the study's.")] = None,
    jobs: Jobs = 2,
    data_dir: DataDir = None,
    checkpoints: Checkpoints = BUILD / "studies" / "model-size",
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file; the plot is beside it.")] = BUILD
    / "reports"
    / "model-size.csv",
) -> None:
    """One weight bitwidth: 1, 2, 4, 8 and mixed weight bits at equal size, by the width of the network.

    Stopped in whatever way, the same command goes on from what is on disk.
    """
    from sw.studies import model_size as model_size_study

    console = Console()
    runs = model_size_study.configurations(
        seeds=range(seeds), changes={} if epochs is None else {"epochs": epochs}
    )
    rows = model_size_study.study(runs, checkpoints, jobs=jobs, directory=data_dir, console=console)
    console.print(model_size_study.table(rows))
    model_size_study.write(rows, output, command=_command())
    model_size_study.draw(rows, output.with_suffix(".svg"))
    console.print(f"{output} and {output.with_suffix('.svg')}", highlight=False, soft_wrap=True)


@study_app.command()
def pact(
    epochs: Annotated[int | None, typer.Option(help="Of 12 800 images; other than the study's.")] = None,
    jobs: Jobs = 2,
    data_dir: DataDir = None,
    checkpoints: Checkpoints = BUILD / "studies" / "pact",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the tables and plots.")] = BUILD / "reports",
) -> None:
    """PACT's figures: α over training, the loss against α, λ of α, and the ends quantized or not.

    Stopped in whatever way, the same command goes on from what is on disk.
    """
    from sw.studies import pact_figures

    console = Console()
    configs = pact_figures.configurations(changes={} if epochs is None else {"epochs": epochs})
    runs = pact_figures.study(configs, checkpoints, jobs=jobs, directory=data_dir, console=console)
    alphas, losses = pact_figures.figures(configs, checkpoints, directory=data_dir)
    command = _command()
    for path in (
        *pact_figures.write(runs, alphas, losses, output, command=command),
        *pact_figures.draw(runs, alphas, losses, output),
    ):
        console.print(str(path), highlight=False, soft_wrap=True)


def _width(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"Bits must be numbers separated by commas, not {text!r}")
    return int(text)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="What pactolus train saved.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of golden vectors; build/vectors/NAME if not given.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Images of the test split to write vectors for.")] = 2,
    config: Annotated[
        str | None, typer.Option(help="Preset whose widths the constants must fit; as wide as needed if not given.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Quantize a float32 checkpoint without training, by max, percentile, mse, octav or vsquant over 1024 "
            "images.",
        ),
    ] = None,
    bits: Annotated[int, typer.Option(help="Of weights and activations, with --calibrate.")] = 8,
    product_shift: Annotated[
        int, typer.Option(help="Bits by which the products of VS-Quant's scales are rounded; 0 loses nothing.")
    ] = 0,
    onnx: Annotated[
        bool,
        typer.Option("--onnx", help="Write NAME.onnx beside the vectors too, in the form of --form, and execute it."),
    ] = False,
    form: Annotated[Form, typer.Option(help="What --onnx writes.")] = Form.INTEGER,
    data_dir: DataDir = None,
) -> None:
    """Turn a checkpoint into an integer network and its golden vectors, and report on every layer.

    Exit status 1: integer codes differ from the model's own forward in float64 (narrow widths can make them, and so
    can rounded scale products), or codes of the ONNX file from the network's.
    """
    from golden.requantize import INT64
    from hw.config import preset
    from sw.calibrate import WEIGHT_SCALES, post_training
    from sw.export import export_checkpoint
    from sw.train import load_checkpoint

    trained = load_checkpoint(checkpoint)[0]
    name, prepare = trained.name, None
    if calibrate is not None:
        if trained.weight_bits is not None:
            raise ValueError(f"Checkpoint must be of a float32 network to be calibrated, not {name}")
        name = name.replace("fp32", f"{calibrate}-w{bits}a{bits}")

        def prepare(model, split):
            return post_training(
                model,
                split.part(slice(1024)).images.split(256),
                weight_bits=bits,
                activation_bits=bits,
                weights=calibrate if calibrate in WEIGHT_SCALES else "mse",
                activations=calibrate,
            )

    folder = output or BUILD / "vectors" / name
    limits = INT64 if config is None else preset(config).widths
    result = export_checkpoint(
        checkpoint,
        folder,
        frames=frames,
        limits=limits,
        product_shift=product_shift,
        name=name,
        prepare=prepare,
        directory=data_dir,
    )
    console = Console()
    console.print(result.report.table())
    console.print(f"Golden vectors are in {folder}.", highlight=False, soft_wrap=True)
    different = sum(layer.float64_differences for layer in result.report.layers)
    if different:
        console.print(f"{different} codes differ from the model's forward in float64.", highlight=False)
    status = int(different > 0)
    if onnx:
        from golden import vectors
        from pactolus import onnx_files

        network, values = vectors.read(folder)
        path = folder / f"{network.name}.onnx"
        status |= onnx_files.write(network, form.value, path, values[network.input.name], console)
    if status:
        raise typer.Exit(1)


@app.command("onnx")
def export_onnx(
    networks: Annotated[
        list[str] | None,
        typer.Argument(help="Committed networks, folders of vectors or network files; none: all committed ones."),
    ] = None,
    form: Annotated[
        Form, typer.Option(help="Integer operators, QuantizeLinear with DequantizeLinear, or QONNX's Quant.")
    ] = Form.INTEGER,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; build/onnx/NAME-FORM.onnx if not given.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Execute it on every test image of digits, fashion-mnist or cifar-10, not on the network's vectors."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Random frames for a network file, which has no vectors.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the random frames.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Write networks as ONNX files, execute them by ONNX Runtime or qonnx, and compare every tensor with golden.

    Exit status 1: something differs.
    """
    from golden import vectors
    from pactolus import onnx_files

    names = networks or vectors.committed()
    if output is not None and len(names) > 1:
        raise ValueError(f"Output must be given with one network only, not with {len(names)}")
    status, console = 0, Console()
    for name in names:
        network, codes = onnx_files.find(name, BUILD / "vectors", frames=frames, seed=seed)
        if data is not None:
            codes = onnx_files.test_codes(network, data, data_dir)
        path = output or BUILD / "onnx" / f"{network.name}-{form.value}.onnx"
        status |= onnx_files.write(network, form.value, path, codes, console)
    raise typer.Exit(status)


@app.command("import")
def import_onnx(
    file: Annotated[Path, typer.Argument(help="ONNX: QONNX, QCDQ, or integers as NEMO and quantlib write them.")],
    input_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH", help="Integers that the input holds; as its quantizer or its type says, if not given."
        ),
    ] = None,
    input_scale: Annotated[
        float | None, typer.Option(help="With --input-range: what the network reads is this times the integers.")
    ] = None,
    multiply: Annotated[
        bool,
        typer.Option(
            "--multiply",
            help="Multiply and shift where only a comparison with thresholds is exact, and count what differs.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of golden vectors; build/vectors/NAME if not given.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option("--input", help="Input values, batch first, in a .npy file; random if not given.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Random frames.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the random frames.")] = 0,
) -> None:
    """Turn an ONNX file of a quantized network into the network of its integers and golden vectors.

    What is not exact is refused, with the node and the reason.
    """
    from golden.onnx_import import import_file

    folder = output or BUILD / "vectors" / file.stem
    result = import_file(
        file,
        folder,
        input_range=None if input_range is None else _range(input_range),
        input_scale=input_scale,
        thresholds=not multiply,
        inputs=inputs,
        frames=frames,
        seed=seed,
    )
    print(result.table(), end="")
    for notice in result.notices:
        print(notice)
    print(f"Golden vectors are in {folder}.")


def _range(text: str) -> tuple[int, int]:
    try:
        low, high = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"Input range must be two integers separated by a comma, not {text!r}") from None
    return low, high


Liberties = Annotated[
    list[Path] | None,
    typer.Option("--liberty", help="Liberty file, or folder of them; may be given several times."),
]


@report_app.command()
def area(
    technologies: Annotated[
        str | None,
        typer.Option("--technology", help="Names; mini, those of the Liberty files and the FPGAs if none."),
    ] = None,
    liberties: Liberties = None,
    digit_bits: Annotated[str, typer.Option(help="Digit widths of the arrays.")] = "1,2,4,8,16",
    series: Annotated[
        str | None, typer.Option(help="best, and, nand, pairs, wide, plain, booth, mac, ...; by technology if none.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of the arrays; by digit width if not given.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Lanes of the arrays; by digit width if not given.")] = None,
    route: Annotated[bool, typer.Option(help="Place and route on FPGAs, where nextpnr is there.")] = True,
    jobs: Annotated[int | None, typer.Option(help="Yosys processes at once; one per core if not given.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files.")] = BUILD / "reports",
) -> None:
    """Area per MAC of every technology and width by part, beside its floor, plain HDL and single MACs; with delays.

    One CSV file per technology and three plots. Stopped in whatever way, the same command goes on from there.
    """
    from hw.synth import area as report

    report.run(
        liberties=liberties or (),
        technologies=technologies.split(",") if technologies else None,
        digit_bits=[_width(text) for text in digit_bits.split(",")],
        chosen=series.split(",") if series else None,
        rows=rows,
        lanes=lanes,
        routed=route,
        processes=jobs,
        build=BUILD / "synth",
        reports=output,
        command=_command(),
    )


@report_app.command()
def accelerators(
    configs: Annotated[list[str] | None, typer.Argument(help="Presets; all if none.")] = None,
    pdk: CellTechnology = "mini",
    liberty: Liberty = None,
    clock_ns: ClockTarget = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file.")] = None,
) -> None:
    """Area of whole accelerators by component, memories as black boxes of stated sizes."""
    from hw.config import PRESETS
    from hw.synth import breakdown

    breakdown.run(
        configs or list(PRESETS),
        pdk=pdk,
        liberty=liberty,
        clock_ns=clock_ns,
        build=BUILD / "synth",
        path=output or BUILD / "reports" / f"area-accelerators-{pdk}.csv",
        command=_command(),
    )


@report_app.command("energy")
def report_energy(
    pdk: CellTechnology = "nangate45",
    liberty: PowerLiberty = None,
    digit_bits: Annotated[
        str, typer.Option("--bits", help="Digit widths of the area report's arrays; none if empty.")
    ] = "1,2,4,8,16",
    rows: Annotated[int | None, typer.Option(help="Rows of those arrays; 16, 8 for wide digits, if not given.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Lanes of those arrays; by digit width if not given.")] = None,
    beats: Annotated[int, typer.Option(help="Cycles with drawn operands.")] = 128,
    config: Annotated[str, typer.Option(help="Preset whose array computes layers; none if empty.")] = "small",
    layers: Annotated[
        list[str] | None, typer.Option("--layer", metavar="NETWORK:LAYER", help="Committed network and layer.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Of each layer.")] = 1,
    clock_ns: Annotated[float | None, typer.Option(help="Clock period in ns; the technology's if not given.")] = None,
    slew_ns: Annotated[float | None, typer.Option(help="Slew of all inputs in ns; an adder's if not given.")] = None,
    simulator: Annotated[Simulator, typer.Option(help="Who runs the netlists; Verilator compiles for minutes.")] = (
        Simulator.ICARUS
    ),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file; the plots are beside it.")] = None,
) -> None:
    """Energy per product by digit width, operands and part: gate-level activity with the Liberty's power.

    The netlists are simulated with random operands, those of trained layers, zeros and none; every accumulator is
    compared with golden.
    """
    from pactolus import energy_report

    chosen = [tuple(layer.split(":")) for layer in layers or ()]
    for layer in chosen:
        if len(layer) != 2:
            raise ValueError(f"Layer must be NETWORK:LAYER, not {':'.join(layer)!r}")
    energy_report.run(
        pdk=pdk,
        liberty=liberty,
        digit_bits=[_width(text) for text in digit_bits.split(",") if text],
        rows=rows,
        lanes=lanes,
        beats=beats,
        config=config or None,
        layers=[(network, layer) for network, layer in chosen] or energy_report.LAYERS,
        frames=frames,
        clock_ns=clock_ns,
        slew_ns=slew_ns,
        simulator=simulator.value,
        build=BUILD / "synth",
        output=output or BUILD / "reports" / f"energy-{pdk}.csv",
        command=_command(),
    )


@report_app.command("vector-scales")
def vector_scales(
    pdk: CellTechnology = "mini",
    liberty: Liberty = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the arrays.")] = 2,
    scale_bits: Annotated[
        list[int] | None, typer.Option(min=1, max=16, help="Width of both scales; several are possible.")
    ] = None,
    clock_ns: ClockTarget = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Yosys processes at a time.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file; the plots go beside it.")] = None,
) -> None:
    """Area and delay of the array with two-level scales (VS-Quant) beside the plain one, at 4 and 8 bits."""
    from hw.synth import vector_scales as study

    study.run(
        pdk=pdk,
        liberty=liberty,
        rows=rows,
        scale_bits=scale_bits or study.SCALE_BITS,
        clock_ns=clock_ns,
        jobs=jobs,
        build=BUILD / "synth",
        path=output or BUILD / "reports" / f"vector-scales-{pdk}.csv",
        command=_command(),
    )


@report_app.command("glitches")
def report_glitches(
    pdk: CellTechnology = "nangate45",
    liberty: PowerLiberty = None,
    digit_bits: Annotated[int, typer.Option("--bits", help="Digit width of the array.")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="Of the array.")] = 4,
    lanes: Annotated[int, typer.Option(min=1, help="Of the array.")] = 16,
    beats: Annotated[int, typer.Option(help="Cycles with uniform digits.")] = 64,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file.")] = None,
) -> None:
    """How much of an array's energy is glitches: Icarus without delays, and with those of OpenSTA."""
    from pactolus import glitch_report

    glitch_report.run(
        pdk=pdk,
        liberty=liberty,
        digit_bits=digit_bits,
        rows=rows,
        lanes=lanes,
        beats=beats,
        build=BUILD / "synth",
        output=output or BUILD / "reports" / f"glitches-{pdk}.csv",
        command=_command(),
    )


@report_app.command()
def imports(
    folders: Annotated[list[Path], typer.Argument(help="Folders of .onnx files, or such files.")],
    frames: Annotated[int, typer.Option(help="Random inputs of each file.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the inputs.")] = 0,
    input_ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--input-range",
            metavar="[NAME=]LOW,HIGH",
            help="Integers that the input of NAME.onnx holds, or of all other files; may be given several times.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv and .md files, without an ending.")] = BUILD
    / "reports"
    / "imports",
) -> None:
    """Which files can be imported, how exactly, and why the others are refused: a table to paste into a bug report.

    Every tensor is compared with the file's own executor, ONNX Runtime or qonnx. Exit status 1: codes differ that are
    no float32 ties and that the importer did not announce.
    """
    from pactolus import import_report

    ranges = {}
    for text in input_ranges or ():
        name, _, values = text.rpartition("=")
        ranges[name] = _range(values)
    console = Console()
    rows = import_report.report(folders, frames=frames, seed=seed, ranges=ranges, console=console)
    for path in import_report.write(rows, output, command=_command(), console=console):
        console.print(f"Written to {path}.", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if any(row.unexplained for row in rows) else 0)


@report_app.command()
def solver(
    channels: Annotated[int, typer.Option(min=0, help="Channels without a residual operand.")] = 10_000,
    residuals: Annotated[int, typer.Option(min=0, help="Channels with one.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the channels.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file.")] = BUILD / "reports" / "solver.csv",
) -> None:
    """Widths that lossless requantization needs, beside plain rounding; every threshold checked exactly."""
    from pactolus.solver_report import write

    raise typer.Exit(write(channels, residuals, seed=seed, path=output, console=Console()))


@study_app.command("octav")
def study_octav(
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file; the plot goes beside it.")] = BUILD
    / "reports"
    / "octav.csv",
) -> None:
    """Clip and squared error of OCTAV against the best by search, and its steps, by bits and distribution."""
    from sw.studies import octav

    rows = octav.study(seed=seed, weights=octav.trained_weights())
    octav.write(rows, output, command=_command())
    octav.draw(rows, output.with_suffix(".svg"))
    Console().print(f"Table and plot are in {output.parent}.", highlight=False, soft_wrap=True)


@study_app.command("search")
def study_search(
    evaluations: Annotated[int, typer.Option(min=2, help="Of each search.")] = 48,
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each kind, from seed 0 on.")] = 2,
    epochs: Annotated[int, typer.Option(min=1, help="Of the training in an evaluation.")] = 6,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the local cluster.")] = 2,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of a Dask cluster instead.")] = None,
    folder: Annotated[Path, typer.Option(help="What is there is not evaluated again.")] = BUILD / "search",
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file; the plot is beside it.")] = BUILD
    / "reports"
    / "search.csv",
) -> None:
    """Bits, width and array for accuracy and latency: SAAS models with qLogNEHVI beside Sobol points.

    Stopped in whatever way, the same command goes on from what is on disk.
    """
    from pactolus.search import REFERENCE, SPACE, DigitsObjective
    from sw.search import Nuts, Proposer, Saas, Sobol, dask_client, evaluate_on_dask, search
    from sw.studies import search as study

    console = Console()
    proposers: dict[str, Proposer] = {
        "sobol": Sobol(),
        "saas": Saas(reference=REFERENCE, nuts=Nuts(warmup=128, samples=128)),
    }
    results = {}
    with dask_client(scheduler, workers=workers) as client:
        for seed in range(seeds):
            for method, propose in proposers.items():
                results[method, seed] = search(
                    SPACE,
                    DigitsObjective(epochs=epochs),
                    folder / f"{method}-{seed}-{epochs}",
                    propose=propose,
                    evaluations=evaluations,
                    initial=2 * (len(SPACE.choices) + 1),
                    batch=4,
                    seed=seed,
                    evaluate=evaluate_on_dask(client),
                    show=lambda e: console.print(f"{e.number}: {e.values[0]:.4f}, 2^{-e.values[1]:.2f} cycles"),
                )
    study.write(results, output, reference=REFERENCE, command=_command())
    study.draw(results, output.with_suffix(".svg"), reference=REFERENCE)
    for (method, seed), found in results.items():
        console.print(f"{method}, seed {seed}: hypervolume {study.volumes(found, REFERENCE)[-1]:.4f}")
    console.print(f"Table and plot are in {output.parent}.", highlight=False, soft_wrap=True)
