"""What tests of tiny models share."""

import torch

from harness.config.groups import Bos, Dtype, ModelConfig
from harness.models import tiny

VARIANTS = sorted(tiny.CONFIGS)


def config(
    identifier, dtype: Dtype = Dtype.float32, revision: str | None = None, allow_pickle: bool = False
) -> ModelConfig:
    return ModelConfig(
        "m", str(identifier), revision, dtype, Bos.stream, source_bits=None, allow_pickle=allow_pickle
    )


def tokens(samples: int, window: int = 96) -> torch.Tensor:
    """Random bytes, as the tiny models' tokenizer numbers them; longer than their sliding windows."""
    return torch.randint(3, 259, (samples, window), generator=torch.Generator().manual_seed(0))
