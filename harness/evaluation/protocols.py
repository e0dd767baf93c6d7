"""The protocol of a metric: all that a number depends on beside the model."""

from torch import LongTensor

from harness.config.groups import Bos
from harness.evaluation import tasks
from harness.evaluation.perplexity import scored


def perplexity_protocol(corpus: str, text_sha256: str, windows: LongTensor, bos: Bos, dtype: str) -> str:
    """All that a perplexity depends on besides the model. The hash tells a mirror's or another release's text
    apart.
    """
    count, window = windows.shape
    return (
        f"{corpus}/test, {count} windows of {window} tokens, disjoint, bos={bos.value}, {dtype}, "
        f"{scored(windows)} tokens scored, text {text_sha256[:8]}"
    )


def zero_shot_protocol(task: str, scores: tasks.TaskScores, bos: Bos, dtype: str, seed: int) -> str:
    """All that a task's score depends on besides the model. The hash is of the very texts asked."""
    whole = scores.asked == scores.available
    items = (
        f"all {scores.available} items"
        if whole
        else f"{scores.asked} of {scores.available} items, seed {seed}"
    )
    cut = f", {scores.truncated} requests cut to {scores.max_length} tokens" if scores.truncated else ""
    return f"lm-eval {tasks.version()}, {task} v{scores.version}, 0-shot, {items}, bos={bos.value}, {dtype}, text {scores.digest[:8]}{cut}"
