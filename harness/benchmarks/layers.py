"""Real layers to solve, weight and Hessian, and the methods to solve them with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.config import method_builder
from harness.config.compose import method_config, method_names
from harness.config.groups import Bos, Dtype, ModelConfig
from harness.data import corpora
from harness.data.windows import calibration_tokens
from harness.foundation.errors import UserError
from harness.models.loading import LoadedModel, load_model
from harness.quantization.batches import Batch
from harness.quantization.blocks import ModelBlocks
from harness.quantization.hessians import gather
from methods.contracts.method import Method

MODEL = ModelConfig("smollm2-135m", "asset:smollm2-135m", None, Dtype.float32, Bos.stream, 4)
BLOCK, LINEARS = 15, ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj")  # the set of real layers


@dataclass(frozen=True)
class Layer:
    name: str
    weight: Tensor  # (out, in)
    hessian: Tensor  # (in, in)

    @property
    def title(self) -> str:
        return f"{self.name} {'×'.join(map(str, self.weight.shape))}"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.hessian.nbytes

    def to(self, device: str) -> "Layer":
        return Layer(self.name, self.weight.to(device), self.hessian.to(device))


def real_layers() -> list[Layer]:
    """Three layers of SmolLM2, with Hessians of 16 x 512 tokens of Wikipedia.

    Raises:
        UserError: the embedded model can be had neither from the cache nor from the network.
    """
    loaded = load_model(MODEL, "cpu")
    source = ModelBlocks(loaded.model, loaded.family)
    batches = [Batch(entry.hidden, entry.calls) for entry in source.capture(calibration(loaded, 16), 8)]
    for block in source:
        found, outputs = gather(block, batches, block.groups if block.index == BLOCK else ())
        if block.index == BLOCK:
            linears = {path: block.module.get_submodule(path).weight.detach() for path in LINEARS}
            return [
                Layer(path.rsplit(".", 1)[-1], weight, found[path].hessian)
                for path, weight in linears.items()
            ]
        for batch, output in zip(batches, outputs, strict=True):
            batch.hidden = output
    raise UserError(f"the model has no block {BLOCK}")


def calibration(loaded: LoadedModel, samples: int) -> Tensor:
    return calibration_tokens(
        corpora.documents("wiki", "train"), loaded.tokenizer, samples, 512, 0, Bos.stream
    )


def read_layers(path: Path) -> list[Layer]:
    """Layers of a safetensors file with NAME.weight and NAME.hessian.

    Raises:
        UserError: the file is missing or holds no such pairs.
    """
    if not path.is_file():
        raise UserError(f"--layers {path}: no such file")
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors has exceptions of its own
        raise UserError(f"--layers {path}: {' '.join(str(error).split())}") from error
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    if not names or any(f"{name}.hessian" not in tensors for name in names):
        raise UserError(f"--layers {path}: needs pairs NAME.weight and NAME.hessian")
    for name in names:
        weight, hessian = tensors[f"{name}.weight"], tensors[f"{name}.hessian"]
        if (
            weight.ndim != 2
            or hessian.shape != (weight.shape[1],) * 2
            or weight.dtype != hessian.dtype
            or not weight.is_floating_point()
        ):
            raise UserError(
                f"--layers {path}: {name} needs a weight (out, in) "
                "and a hessian (in, in) of one floating dtype"
            )
    return [Layer(name, tensors[f"{name}.weight"], tensors[f"{name}.hessian"]) for name in names]


def solver_names() -> list[str]:
    """Names of the methods that have a solver of their own; those that transform or tune a block around
    another's solver are left out.
    """
    found = {name: method_config(name) for name in method_names()}
    return [
        name
        for name, config in found.items()
        if config["solver"] and not (config.get("transform") or config.get("tuning"))
    ]


def method_named(name: str, changes: dict | None = None) -> Method:
    """A method as configured, but for `changes` of its solver's values.

    Raises:
        UserError: a change names no value of the solver, or is out of range.
    """
    config = method_config(name)
    return method_builder.build_method(config | {"solver": config["solver"] | (changes or {})})


def synthetic_layer(rows: int, columns: int, device: str, tokens: int = 2048) -> Layer:
    """A layer of any size: normal weights, inputs with a few strong shared directions and uneven column
    sizes, in float32.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    sizes = 0.2 + torch.rand(columns, generator=generator).to(device)
    inputs = (normal(tokens, 3) @ normal(3, columns) + normal(tokens, columns)) * sizes
    hessian = inputs.T @ inputs / tokens
    # fewer tokens than columns leave directions unseen
    torch.diagonal(hessian).add_(0.1 * torch.diagonal(hessian).mean())
    return Layer(f"synthetic {rows}×{columns}", 0.05 * normal(rows, columns), hessian)
