"""What is the same for every block on the way through a model."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.config.groups import DataConfig
from harness.quantization.blocks import ModelBlocks
from harness.quantization.hessian_cache import StatisticsCache
from harness.quantization.needs import Needs
from methods.contracts.method import Method
from methods.contracts.scheme import Scheme

Note = Callable[[int, str], None]  # (index of the block at work, what a person wants to read)


@dataclass(frozen=True)
class Walk:
    """How the blocks of one model are quantized."""

    source: ModelBlocks
    method: Method
    scheme: Scheme
    data: DataConfig
    cache: StatisticsCache  # of statistics of the float model; unused with propagate=quantized
    note: Note = lambda index, text: None

    @property
    def needs(self) -> Needs:
        return Needs.of(self.method, self.scheme, self.data)
