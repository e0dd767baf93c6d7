"""Whether texts are long enough for what is asked of them, before any model is loaded."""

from collections.abc import Iterable
from functools import lru_cache

from harness.config.groups import Bos, ModelConfig
from harness.config.run_config import RunConfig
from harness.data import corpora
from harness.data.tokens import prefix
from harness.data.windows import check_calibration, check_evaluation, windows_up_to
from harness.models.tokenizers import tokenizer_of, with_bos


def check_texts(config: RunConfig) -> None:
    """Reads the texts of a point, and as much of their tokens as it takes; downloads what is not here.

    Raises:
        UserError: a text is too short, or there is no BOS to put; names the settings to change.
    """
    model = with_bos(config.model)
    prefix(tokenizer_of(model), model.bos)
    for corpus in config.eval.corpora:
        _evaluation(model, corpus, config.eval.window, config.eval.mirror)
    if config.method.solver is not None:
        data = config.data
        _calibration(model, data.name, data.samples, data.window, data.mirror)


def decided(configs: Iterable[RunConfig]) -> list[str]:
    """What models and texts of checked points decide: where a BOS goes, and where a corpus has fewer windows
    than are asked for.
    """
    lines = []
    for config in configs:
        model, window = with_bos(config.model), config.eval.window
        if config.model.bos is Bos.auto:
            lines.append(f"model.bos=auto: {model.bos.value} for {model.name}")
        for corpus in config.eval.corpora:
            asked = config.eval.windows_of(corpus)
            if asked and (found := _windows(model, corpus, asked, window, config.eval.mirror)) < asked:
                lines.append(
                    f"eval.windows={asked}: {corpus} has {found} of {window} tokens for {model.name}, "
                    "which are taken"
                )
    return list(dict.fromkeys(lines))


@lru_cache(maxsize=1024)  # the points of a sweep share their texts
def _evaluation(model: ModelConfig, corpus: str, window: int, mirror: str | None) -> None:
    documents = corpora.documents(corpus, "test", mirror)
    check_evaluation(corpus, documents, tokenizer_of(model), window, model.bos)


@lru_cache(maxsize=1024)
def _windows(model: ModelConfig, corpus: str, asked: int, window: int, mirror: str | None) -> int:
    documents = corpora.documents(corpus, "test", mirror)
    return windows_up_to(asked, documents, tokenizer_of(model), window, model.bos)


@lru_cache(maxsize=1024)
def _calibration(model: ModelConfig, corpus: str, samples: int, window: int, mirror: str | None) -> None:
    documents = corpora.documents(corpus, "train", mirror)
    check_calibration(corpus, documents, tokenizer_of(model), samples, window, model.bos)
