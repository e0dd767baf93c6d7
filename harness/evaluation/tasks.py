"""Zero-shot tasks through lm-eval's Python API: embedded ones, and stock ones from the hub or from a local
mirror.

lm-eval is asked for nothing but tasks and their scoring rules. Its model wrapper, its caches and
`simple_evaluate` are left out: they tie embeddings again, answer for another model, reseed every generator,
and return None under a launcher that sets LOCAL_RANK.
"""

import hashlib
import json
import logging
import math
import random
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import yaml

from harness.config.groups import EvalConfig
from harness.evaluation.embedded_tasks import EMBEDDED, EmbeddedTask, rank
from harness.evaluation.subject import OnBatch, Subject, evaluating
from harness.foundation.errors import UserError
from harness.records.protocol import TaskProtocol

# name: (stock file below lm_eval/tasks, data set on the hub)
STOCK = {
    "lambada_openai": ("lambada/lambada_openai.yaml", "EleutherAI/lambada_openai"),
    "piqa": ("piqa/piqa.yaml", "baber/piqa"),
    "arc_easy": ("arc/arc_easy.yaml", "allenai/ai2_arc"),
    "arc_challenge": ("arc/arc_challenge.yaml", "allenai/ai2_arc"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "Rowan/hellaswag"),
    "winogrande": ("winogrande/default.yaml", "allenai/winogrande"),
    "boolq": ("super_glue/boolq/default.yaml", "aps/super_glue"),
}
TASKS = (*EMBEDDED, *STOCK)
METRICS = ("acc", "acc_norm", "perplexity")  # of what a task reports, what we keep
# tokens; of a longer request the beginning is cut, as lm-eval does, and its protocol says so
MAX_LENGTH = 2048


@dataclass(frozen=True)
class TaskScores:
    """What one task gave, item by item."""

    items: dict[str, list[float]]  # metric -> 0/1 of every item asked; for perplexity: nats of its target
    protocol: TaskProtocol

    @property
    def asked(self) -> int:
        return len(next(iter(self.items.values())))


def run_task(name: str, subject: Subject, config: EvalConfig, on_batch: OnBatch = None) -> TaskScores:
    """Ask a model, 0-shot, a seeded sample of `config.limit` items of a task (None: all).

    An item for which the model gives a log-likelihood that is not finite counts as wrong.

    Raises:
        UserError: no task has this name, or its data cannot be had.
    """
    check(name, config.mirror)
    import lm_eval

    from harness.evaluation.language_model import Scorer

    positions = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    longest = min(MAX_LENGTH, positions or MAX_LENGTH)
    batch_tokens = config.batch_size * config.window
    scorer = Scorer(subject.model, subject.tokenizer, subject.bos, batch_tokens, longest, on_batch)
    with evaluating(subject.model), _undisturbed():
        task = _load(name, config.mirror)
        task.set_fewshot_seed(config.seed)
        documents, embedded = task.eval_docs, EMBEDDED.get(name)
        groups = documents[embedded.group] if embedded and embedded.group else range(len(documents))
        samples = {name: sample(name, groups, config.limit, config.seed)}
        options = {"samples": samples, "bootstrap_iters": 0, "log_samples": True}
        results = lm_eval.evaluate(scorer, {"tasks": {name: task}}, **options)
    answers = results["samples"][name]
    items = {kind: [_value(answer, kind) for answer in answers] for kind in METRICS if kind in answers[0]}
    texts, whole = json.dumps([answer["arguments"] for answer in answers]), len(answers) == len(documents)
    protocol = TaskProtocol(
        lm_eval=version(),
        task=name,
        version=str(results["versions"][name]),
        asked=None if whole else len(answers),
        available=len(documents),
        seed=None if whole else config.seed,
        bos=subject.bos.value,
        dtype=subject.dtype,
        text=hashlib.sha256(texts.encode()).hexdigest()[:8],
        truncated=scorer.truncated or None,
        max_length=longest if scorer.truncated else None,
    )
    return TaskScores(items, protocol)


def check(name: str, mirror: str | None) -> None:
    """Raise UserError for an unknown task, or one whose data the mirror does not hold."""
    if name not in TASKS:
        raise UserError(f"eval.tasks={name}: unknown; choose among {', '.join(sorted(TASKS))}")
    data = task_data(name, mirror)
    if data and not data.is_dir():
        raise UserError(
            f"eval.mirror={mirror}: has no directory {STOCK[name][1]}, which {name} needs; "
            "add it, or set eval.mirror=null"
        )


def task_data(name: str, mirror: str | None) -> Path | None:
    """Where a mirror holds the data of a task; None without a mirror, and for a task that needs none."""
    return Path(mirror, STOCK[name][1]) if mirror and name in STOCK else None


def sample(name: str, groups: Sequence[Hashable], limit: int | None, seed: int) -> list[int]:
    """Ascending indices of `limit` items; `groups[i]` is the group of item i, and whole groups are taken in
    turn.

    A smaller limit gives a subset of a larger one's items.
    """
    order = sorted(range(len(groups)), key=lambda index: (rank(seed, name, groups[index]), index))
    return sorted(order[:limit])


def _load(name: str, mirror: str | None):
    """The lm-eval task `name`, its data loaded."""
    from lm_eval.tasks import TaskManager

    if name in EMBEDDED:
        manager = TaskManager(include_defaults=False)
        return manager.load([_embedded(name, EMBEDDED[name])])["tasks"][name]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, f"{name}.yaml").write_text(overlay(name, mirror), encoding="utf-8")
        manager = TaskManager(include_path=directory, include_defaults=False)
        if name not in manager.all_tasks:  # lm-eval skips a broken file without a word
            raise UserError(
                f"eval.tasks={name}: lm-eval {version()} cannot read its own {STOCK[name][0]}; "
                "install lm-eval>=0.4.12,<0.5"
            )
        try:
            return manager.load([name])["tasks"][name]
        except Exception as error:  # hub, proxy, file format: many types, one remedy
            where = f"eval.mirror={mirror}" if mirror else "the hub"
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"eval.tasks={name}: cannot read {STOCK[name][1]} from {where} "
                f"({type(error).__name__}: {reason}); "
                f"go online once, or set eval.mirror to a directory that holds {STOCK[name][1]}/"
            ) from error


def overlay(name: str, mirror: str | None) -> str:
    """A task file that is lm-eval's stock one, read from the mirror if there is one."""
    from lm_eval import tasks

    file, dataset = STOCK[name]
    config = {"include": str(Path(tasks.__file__).parent / file), "task": name}
    if mirror:
        config["dataset_path"] = str(Path(mirror, dataset).absolute())
    return yaml.safe_dump(config)


def _embedded(name: str, task: EmbeddedTask) -> dict:
    """An embedded task as lm-eval wants it."""

    def dataset(**metadata):
        from datasets import Dataset

        return {"test": Dataset.from_list(task.items())}

    config = {
        "task": name,
        "custom_dataset": dataset,
        "output_type": task.kind,
        "test_split": "test",
        "doc_to_text": task.context,
        "doc_to_target": task.target,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": task.version},
    }
    return config | ({"doc_to_choice": task.choices} if task.choices else {})


def _value(answer: dict, metric: str) -> float:
    """One item's metric, from lm-eval's sample of it."""
    finite = all(math.isfinite(likelihood) for responses in answer["resps"] for likelihood, _ in responses)
    if metric == "perplexity":
        return -float(answer[metric]) if finite else math.inf
    return float(answer[metric]) if finite else 0.0


def version() -> str:
    """Installed version of lm-eval."""
    return metadata.version("lm-eval")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep lm-eval's and datasets' bars and chatter off the terminal, and their hands off the global
    generators.
    """
    import datasets
    import lm_eval.api.task as task_module

    bars, tqdm = not datasets.are_progress_bars_disabled(), task_module.tqdm
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            datasets.disable_progress_bars()
            task_module.tqdm = partial(tqdm, disable=True)  # no option reaches this bar
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            task_module.tqdm = tqdm
            if bars:
                datasets.enable_progress_bars()
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            random.setstate(states[0])
            np.random.set_state(states[1])
