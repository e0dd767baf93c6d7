"""`ptq-bench bench solvers`: error, true bits and seconds of every solver on the same real layers, and three speeds beside each other.

Times are medians of this machine at this moment; compare numbers of one run with each other, not with those of another.
"""

import argparse
import csv
import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

import conf
from harness import assets, corpora
from harness.blocks import ModelBlocks
from harness.config import Bos, DataConfig, Dtype, ModelConfig, Propagate
from harness.errors import UserError
from harness.files import write_atomic
from harness.methods import build_method
from harness.models import LoadedModel, load_model
from harness.pipeline import quantize
from harness.statistics import Batch, StatisticsCache, gather
from methods.core.grid import Grid
from methods.core.linalg import layer_error
from methods.core.method import Method
from methods.core.problem import LayerProblem
from methods.core.ranges import find_grid
from methods.core.scheme import RangeRule, Scheme, ZeroPoint
from methods.core.weight import bits_per_weight

console = Console(highlight=False)
MODEL = ModelConfig("smollm2-135m", "asset:smollm2-135m", None, Dtype.float32, Bos.stream, 4)
LAYERS = (15, ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"))  # block and linears of the set of real layers


@dataclass(frozen=True)
class Layer:
    name: str
    weight: Tensor  # (out, in)
    hessian: Tensor  # (in, in)


def main(argv: list[str]) -> int:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(prog="ptq-bench bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["solvers"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--layers", type=Path, help="safetensors file with NAME.weight and NAME.hessian (default: three layers of SmolLM2)")
    parser.add_argument("--methods", default=",".join(methods()), help="comma separated (default: %(default)s)")
    parser.add_argument("--bits", default="4,3,2", help="comma separated (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="solves per median (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("reports/bench_solvers.csv"), help="default: %(default)s")
    parser.add_argument("--no-model", action="store_true", help="leave out the whole-model times, which take minutes")
    arguments = parser.parse_args(argv)
    for name in arguments.methods.split(","):
        if name not in methods():
            raise UserError(f"--methods {name}: no such method; choose among {', '.join(methods())}")
    layers = read_layers(arguments.layers) if arguments.layers else real_layers()
    rows = list(measure(layers, arguments))
    show(rows)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out, stream.getvalue())
    against_textbook(max(layers, key=lambda layer: layer.weight.shape[1]))
    if not arguments.no_model:
        whole_model()
    return 0


def methods() -> list[str]:
    """Names of the methods that have a solver."""
    found = sorted(Path(conf.__file__).parent.glob("method/*.yaml"))
    return [path.stem for path in found if yaml.safe_load(path.read_text())["solver"]]


def method_named(name: str) -> Method:
    return build_method(yaml.safe_load((Path(conf.__file__).parent / "method" / f"{name}.yaml").read_text()))


def measure(layers: list[Layer], arguments: argparse.Namespace) -> Iterator[dict]:
    """One row per layer, method, bits and range rule."""
    for bits in map(int, arguments.bits.split(",")):
        for rule in (RangeRule.minmax, RangeRule.search):
            scheme = Scheme(bits, None, False, ZeroPoint.integer, rule)
            for name in arguments.methods.split(","):
                solver = method_named(name).solver
                for layer in layers:
                    weight, hessian = layer.weight.to(arguments.device), layer.hessian.to(arguments.device)
                    problem = LayerProblem(weight, hessian, scheme)
                    solution = solver.solve(problem)  # the first solve may compile kernels
                    seconds, _ = timed(lambda solver=solver, problem=problem: solver.solve(problem), arguments.repeats, arguments.device)
                    yield {
                        "layer": layer.name,
                        "shape": "x".join(map(str, weight.shape)),
                        "bits": bits,
                        "range": rule.name,
                        "method": name,
                        "error": f"{layer_error(weight, solution.weight.dequantize(), hessian):.6g}",
                        "true_bits": f"{bits_per_weight(solution.weight.tensors(), weight.numel()):.4f}",
                        "seconds": f"{seconds:.4f}",
                    }


def timed(work: Callable, repeats: int, device: str = "cpu") -> tuple[float, object]:
    """Median seconds of `work()`, and what it returned last."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def show(rows: list[dict]) -> None:
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shapes = {row["layer"]: row["shape"] for row in rows}
    table = Table(title="layer error tr((W-Q)H(W-Q)^T) / tr(WHW^T), seconds")
    for column in ("bits", "range", "method", "true bits", *(f"{layer} {shapes[layer]}" for layer in layers)):
        table.add_column(column)
    cells: dict[tuple, dict] = {}
    for row in rows:
        cells.setdefault((row["bits"], row["range"], row["method"]), {})[row["layer"]] = row
    for (bits, rule, name), found in cells.items():
        true_bits = statistics.mean(float(row["true_bits"]) for row in found.values())
        values = [f"{float(found[layer]['error']):.5f}  {float(found[layer]['seconds']):.3f} s" for layer in layers]
        table.add_row(str(bits), rule, name, f"{true_bits:.2f}", *values)
    console.print(table)


def against_textbook(layer: Layer) -> None:
    """QuantEase and the column-by-column loop of the paper, the same 30 sweeps on the same layer, one after the other."""
    solver = method_named("quantease").solver
    problem = LayerProblem(layer.weight, layer.hessian, Scheme(3, None, False, ZeroPoint.integer, RangeRule.minmax))
    grid = find_grid(problem)
    fast, solution = timed(lambda: solver.solve(problem), 5)
    relaxed = [solver.relaxes(sweep) for sweep in range(solver.sweeps)]
    slow, values = timed(lambda: textbook_quantease(layer.weight, layer.hessian, grid, relaxed), 1)
    errors = [layer_error(layer.weight, found, layer.hessian) for found in (solution.weight.dequantize(), values)]
    console.print(
        f"QuantEase, {solver.sweeps} sweeps on {layer.name} {tuple(layer.weight.shape)}: {fast:.2f} s (error {errors[0]:.6f}); "
        f"the paper's column loop in torch: {slow:.2f} s (error {errors[1]:.6f}); ratio {slow / fast:.1f}"
    )


def textbook_quantease(weight: Tensor, hessian: Tensor, grid: Grid, relaxed: list[bool]) -> Tensor:
    """Cyclic descent as the paper writes it down (Algorithm 2): one product per sweep, then per column what this sweep has moved."""
    scaled = hessian / torch.diagonal(hessian)  # column j divided by H_jj
    target = weight @ scaled
    coupling = scaled.clone().fill_diagonal_(0)
    values = weight.clone()
    for relax in relaxed:
        reached, moved = values @ coupling, torch.zeros_like(values)
        for j in range(weight.shape[1]):
            wanted = target[:, j] - reached[:, j] - moved[:, :j] @ coupling[:j, j]
            if not relax:
                wanted = grid.columns(slice(j, j + 1)).round(wanted[:, None]).squeeze(1)
            moved[:, j] = wanted - values[:, j]
            values[:, j] = wanted
    return values


def whole_model() -> None:
    """All linears of SmolLM2, and the calibration forward that the same machine needs for 128 x 512 tokens."""
    loaded = load_model(MODEL, "cpu")
    tokens = calibration(loaded, 128)
    forward, _ = timed(lambda: run_blocks(loaded, tokens), 1)
    console.print(f"one calibration forward of 128 x 512 tokens through SmolLM2's 30 blocks: {forward:.1f} s")
    for name in ("gptq", "quantease", "quantease_gptq"):
        fresh = load_model(MODEL, "cpu")
        source = ModelBlocks(fresh.model, fresh.family)
        cache = StatisticsCache(assets.cache_dir() / "statistics", "bench", len(source), source.statistics_bytes(), 10)
        data = DataConfig("wiki", 32, 512, 8, Propagate.float, True, None)
        scheme = Scheme(3, None, False, ZeroPoint.integer, RangeRule.search)
        reports = list(quantize(source, lambda: tokens[:32], method_named(name), scheme, data, cache))
        seconds = sum(report.seconds for report in reports)
        console.print(f"{name}, 3 bits, all {len(reports)} linears: {seconds:.1f} s ({seconds / forward:.2f} of that forward)")


@torch.no_grad()
def run_blocks(loaded: LoadedModel, tokens: Tensor) -> None:
    for batch in tokens.split(8):
        loaded.model.base_model(batch, use_cache=False)


def calibration(loaded: LoadedModel, samples: int) -> Tensor:
    return corpora.calibration_tokens(corpora.documents("wiki", "train"), loaded.tokenizer, samples, 512, 0, Bos.stream)


def real_layers() -> list[Layer]:
    """Three layers of SmolLM2, with Hessians of 16 x 512 tokens of Wikipedia.

    Raises:
        UserError: the embedded model can be had neither from the cache nor from the network.
    """
    loaded = load_model(MODEL, "cpu")
    source = ModelBlocks(loaded.model, loaded.family)
    batches = [Batch(entry.hidden, entry.calls) for entry in source.capture(calibration(loaded, 16), 8)]
    index, paths = LAYERS
    for k, block in enumerate(source):
        found, outputs = gather(block, k, batches, block.groups if k == index else ())
        if k == index:
            return [Layer(path.rsplit(".", 1)[-1], block.module.get_submodule(path).weight.detach(), found[path].hessian) for path in paths]
        for batch, output in zip(batches, outputs, strict=True):
            batch.hidden = output
    raise UserError(f"the model has no block {index}")


def read_layers(path: Path) -> list[Layer]:
    """Layers of a safetensors file with NAME.weight and NAME.hessian.

    Raises:
        UserError: the file is missing or holds no such pairs.
    """
    if not path.is_file():
        raise UserError(f"--layers {path}: no such file")
    tensors = load_file(path)
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    if not names or any(f"{name}.hessian" not in tensors for name in names):
        raise UserError(f"--layers {path}: needs pairs NAME.weight and NAME.hessian")
    return [Layer(name, tensors[f"{name}.weight"], tensors[f"{name}.hessian"]) for name in names]


if __name__ == "__main__":
    import sys

    from harness.cli import main as command

    sys.exit(command(["bench", *sys.argv[1:]]))
