"""`ptq-bench evaluate RUN eval=…`: measure a model that a run kept in another way, not making it again."""

from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from harness.bookkeeping.kept_models import kept_model, key_of
from harness.bookkeeping.keys import quantized_key
from harness.bookkeeping.point import Point
from harness.bookkeeping.words import outcome
from harness.commands.load import OFF
from harness.commands.options import Options
from harness.config.arguments import overrides_of
from harness.config.explaining import explain, sentence
from harness.config.run_config import from_plain, plain_config
from harness.foundation.errors import UserError
from harness.planning.preflight import check
from harness.records import layout
from harness.records.format import FINISHED
from harness.records.lookup import find
from harness.records.record import Record
from harness.records.store import Store
from harness.run import run
from harness.sweeps.points import as_meant, expand

console = Console(highlight=False, soft_wrap=True, stderr=True)
# what may differ from the run
OPEN = ("eval", "tracker", "device", "retry", "data.mirror", "paths.cache_gib")


def main(argv: list[str]) -> int:
    """1 if an evaluation did not end well."""
    parser = Options(
        "evaluate",
        "Measure the quantized model that a run kept (save=true) in another way, without quantizing again.",
        "Every combination of overrides leaves a record of its own beside the run's.",
    )
    parser.add_argument("run", metavar="RUN", help="a run key, the beginning of one, or its directory")
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="eval=…",
        help="such as eval=standard, eval.windows=8,16, eval.tasks=piqa",
    )
    parser.add_results("where runs are looked for")
    options = parser.parse_args(argv)
    directory = find(options.run, Path(options.results))
    record = Store(layout.results_of(directory)).record(directory.name)
    if record is None or record["status"] != "done" or not record["method"].get("solver"):
        raise UserError(f"{directory}: no finished run of a quantized model, so there is nothing to evaluate")
    points = [_point(directory, record, overrides) for overrides in _combinations(options.overrides)]
    records = []
    for point in points:
        if not point.finished() and kept_model(point) is None:
            raise UserError(_why_not(directory, point))
        records.append(run(point))
        console.print(outcome(point.config, records[-1]))
        console.print(f"  {point.directory}", markup=False)
    return 0 if all(ended["status"] in FINISHED for ended in records) else 1


def _combinations(overrides: list[str]) -> list[tuple[str, ...]]:
    """Of what is asked for; only the evaluation may be.

    Raises:
        UserError: something else is, or the overrides cannot be read.
    """
    for override in overrides:
        key = override.partition("=")[0].strip().lstrip("+~")
        if not any(key == name or key.startswith((f"{name}.", f"{name}@")) for name in OPEN):
            raise UserError(
                f"{key}: evaluate changes only eval.* (and {', '.join(OPEN[1:])}); "
                "`ptq-bench run` makes another model"
            )
    try:
        parsed = OverridesParser.create().parse_overrides(overrides_of(overrides))
        return [as_meant(combination) for combination in expand(parsed)]
    except HydraException as error:
        raise UserError(explain(error, overrides)) from error


def _point(directory: Path, record: Record, overrides: tuple[str, ...]) -> Point:
    """The run's point with another evaluation.

    Raises:
        UserError: that evaluation is not possible.
    """
    plain = _composed(record, overrides)
    own = {name: value for name, value in record["model"].items() if name != "fingerprint"}
    mirror = {"mirror": plain["data"]["mirror"]}
    plain |= {
        "model": plain["model"] | own,
        "data": record["data"] | mirror,
        "scheme": OFF | record["scheme"],
        "method": record["method"],
        "seed": record["seed"],
        "save": False,
        "isolate": False,
        "paths": plain["paths"] | {"results": str(layout.results_of(directory))},
    }
    config = from_plain(plain)
    check(config)
    return Point.of(config)


def _composed(record: Record, overrides: tuple[str, ...]) -> dict:
    """Everything that a run is, with the record's evaluation where none is chosen."""
    chosen = any(override.partition("=")[0] == "eval" for override in overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            config = compose("config", [item for item in overrides if not _sets(item)])
            if not chosen:
                own = record["eval"] | {"mirror": config.eval.mirror}
                OmegaConf.update(config, "eval", own, merge=False)
            for item in OverridesParser.create().parse_overrides(list(filter(_sets, overrides))):
                OmegaConf.update(config, item.key_or_group, item.value(), merge=True)
        return plain_config(config)
    except HydraException as error:
        raise UserError(explain(error, list(overrides))) from error
    except OmegaConfBaseException as error:
        raise UserError(sentence(error)) from error


def _sets(override: str) -> bool:
    """Does it set a value of the evaluation, rather than choose one?"""
    return override.startswith("eval.")


def _why_not(directory: Path, point: Point) -> str:
    if key_of(directory) != quantized_key(point.config):
        return f"{directory}: its model, texts or settings are no longer those that the run was made of"
    return f"{directory}: the run kept no whole checkpoint; run the same point again with save=true"
