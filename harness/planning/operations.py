"""Operations of a run by stage: what `harness.quantization.pipeline` and `harness.evaluation.evaluate` will
do, counted.

Units are those of `methods.contracts.effort`. Stages are those of `seconds` in a record: calibrate (forward
passes, Hessians, scoring), transform, quantize (solvers and tunings), evaluate.
"""

from harness.config.groups import DataConfig, EvalConfig
from harness.config.run_config import RunConfig
from harness.models.shape import ModelShape
from harness.quantization.needs import Needs
from methods.contracts.effort import BlockEffort, counted
from methods.contracts.method import Method
from methods.contracts.scheme import Scheme

DOUBLE = 2  # a product in float64
ACTIVATIONS = 250  # rounding one activation
TEST_TOKENS = {
    "wiki": 110_000,
    "news": 6_200,
    "synthetic": 25_000,
    "wikitext2": 300_000,
    "ptb": 100_000,
    "c4": 530_000,
}
# (items, tokens of all requests of one together, what they share counted once), with a vocabulary of about 50
# thousand
ITEMS = {
    "analogies": (550, 20),
    "news_cloze": (277, 60),
    "lambada_openai": (5153, 90),
    "piqa": (1838, 100),
    "arc_easy": (2376, 140),
    "arc_challenge": (1172, 160),
    "hellaswag": (10042, 400),
    "winogrande": (1267, 55),
    "boolq": (3270, 150),
}
OTHER_TASK = (1000, 200)


def operations(config: RunConfig, model: ModelShape, known: bool) -> dict[str, float | None]:
    """By stage; None where a part of the method does not count its work.

    Args:
        known: the statistics of the float model are on disk.
    """
    counts = {"evaluate": evaluation(config.eval, model)}
    if config.method.solver is None:
        return counts
    effort = block_effort(config.data, model)
    counts["calibrate"] = model.blocks * calibration(config, effort, model, known)
    counts["quantize"] = solving(config.method, config.scheme, effort, model)
    if config.method.transform is not None:
        one = counted(config.method.transform, effort, config.scheme)
        counts["transform"] = None if one is None else model.blocks * one
    return counts


def block_effort(data: DataConfig, model: ModelShape) -> BlockEffort:
    tokens, batches = data.samples * data.window, -(-data.samples // data.batch_size)
    return BlockEffort(
        model.linears, model.seams, tokens, data.window, batches, tokens * pass_of_block(model, data.window)
    )


def pass_of_block(model: ModelShape, window: int) -> float:
    """One token through one block: its linears and its attention."""
    return 2.0 * model.block_weights + attention(model, window)


def attention(model: ModelShape, window: int) -> float:
    return 4.0 * window * model.width


def solving(method: Method, scheme: Scheme, effort: BlockEffort, model: ModelShape) -> float | None:
    """All rounding and tuning; None where one of them does not count its work."""
    parts = [counted(method.solver, rows, columns, scheme) for rows, columns in model.linears]
    if method.tuning is not None:
        parts.append(counted(method.tuning, effort))
    return None if None in parts else model.blocks * sum(parts)


def needs_of(config: RunConfig) -> Needs:
    return Needs.of(config.method, config.scheme, config.data)


def calibration(config: RunConfig, effort: BlockEffort, model: ModelShape, known: bool) -> float:
    """One block: the passes of `harness.quantization.pipeline.quantize`, one Hessian for each group, the
    error of each linear in float64.
    """
    scoring = sum(DOUBLE * 2 * 2.0 * rows * columns**2 for rows, columns in model.linears)
    if known and not needs_of(config).activations:
        return scoring
    hessians = sum(2.0 * effort.tokens * group[0][1] ** 2 for group in model.groups)
    rounding = (
        ACTIVATIONS * effort.tokens * sum(group[0][1] for group in model.groups)
        if config.scheme.quantizes_activations
        else 0.0
    )
    return passes(config, model) * (effort.forward + rounding) + hessians + scoring


def passes(config: RunConfig, model: ModelShape) -> float:
    """How often all calibration tokens go through a block, outside of transforms, solvers and tunings; parts
    of a pass count as such.
    """
    needs, transform, data = needs_of(config), config.method.transform, config.data
    if needs.shared:
        return 1.0 + (transform is not None) + needs.watched + needs.static
    own = needs.tuned + bool(getattr(transform, "auxiliary_loss", False))
    before = shares_before_groups(model, data.window)
    gathering = sum(before) if data.true_sequential else before[-1]
    return needs.watched + own + gathering + needs.static + 1.0


def shares_before_groups(model: ModelShape, window: int) -> list[float]:
    """The share of a block's pass that is done when each group has had its input."""
    whole, done, shares = pass_of_block(model, window), 0.0, []
    for index, group in enumerate(model.groups):
        shares.append(done / whole)
        done += sum(2.0 * rows * columns for rows, columns in group)
        done += attention(model, window) if index == 0 else 0.0
    return shares


def evaluation(config: EvalConfig, model: ModelShape) -> float:
    """Windows of all corpora through the model and its head; items of tasks through the model: few of their
    logits are needed.
    """
    head = 2.0 * model.vocabulary * model.width
    text = sum(evaluated_tokens(corpus, config) for corpus in config.corpora)
    total = text * (model.blocks * pass_of_block(model, config.window) + head)
    for task in config.tasks:
        items, tokens = ITEMS.get(task, OTHER_TASK)
        total += min(items, config.limit or items) * tokens * model.blocks * pass_of_block(model, tokens)
    return total


def evaluated_tokens(corpus: str, config: EvalConfig) -> int:
    whole = TEST_TOKENS.get(corpus, OTHER_TASK[0] * OTHER_TASK[1])
    return min(whole, (config.windows_of(corpus) or whole) * config.window)
