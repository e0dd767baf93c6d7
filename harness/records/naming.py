"""What tables and progress lines call a method: its own name, or those of its halves, e.g. "awq+gptq".

A configuration says what the user chose (`method=awq method/solver=gptq`, or the other way round,
`method=gptq method/transform=awq`). Both are one method and get one name here, from the classes that the
configuration names: a file of `methods` holds one method, so that a class is called after its file. Rounding
to nearest behind a transform goes without saying.
"""

from collections.abc import Mapping
from typing import Any

TRANSFORMS = ("smoothquant", "awq", "omniquant", "affinequant")
METHODS = (
    *(
        "float",
        "rtn",
        "gptq",
        "spqr",
        "quantease",
        "quantease_gptq",
        "quantease_further",
        "quantease_further_spqr",
    ),
    *("gptvq", "gptvq_tuned", "vptq", "vptq_tuned", "vptq_further"),
    *TRANSFORMS,
)
PLUS = "+"


def method_name(config: Mapping[str, Any]) -> str:
    """The name of a `method` configuration (name, solver, transform, tuning), as records keep it.

    A name of the user's own that belongs to neither half stays.
    """
    name = str(config["name"])
    transform, solver = _file(config.get("transform")), _file(config.get("solver"))
    if not solver:
        return name
    rounding = _setting(solver, config)
    if name not in METHODS:  # a setting of one half under a name of its own, or something else altogether
        if _belongs(name, transform):
            transform = name
        elif _belongs(name, solver):
            rounding = name
        elif not any(_belongs(name, known) for known in METHODS):
            return name
    if not transform:
        return rounding
    return transform if rounding == "rtn" else f"{transform}{PLUS}{rounding}"


def method_rank(name: str) -> tuple:
    """Well-known methods in their usual order, each pair right behind its transform, others after them by
    name.
    """
    first, _, second = name.partition(PLUS)
    places = [METHODS.index(half) if half in METHODS else len(METHODS) for half in (first, second)]
    return (places[0], places[1] if second else -1, name)


def keeps_outliers(method: str) -> bool:
    """Whether a method always keeps outliers, so that they go without saying."""
    return "spqr" in method


def _file(node: Any) -> str:
    """The file of the class that a part of a configuration names; "" where there is none."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return target.rpartition(".")[0].rpartition(".")[2] if isinstance(target, str) else ""


def _setting(solver: str, config: Mapping[str, Any]) -> str:
    """The solver, or, where that is a method of its own, the solver with what it starts from or with what
    tunes the block after it.
    """
    longer = [f"{solver}_{_file(config['solver'].get('start'))}"] + (
        [f"{solver}_tuned"] if config.get("tuning") else []
    )
    return next((name for name in longer if name in METHODS), solver)


def _belongs(name: str, part: str) -> bool:
    return bool(part) and (name == part or name.startswith(f"{part}_"))
