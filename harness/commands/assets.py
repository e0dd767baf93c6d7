"""`ptq-bench assets`: list and fetch the embedded models and texts."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from harness.commands.options import Options
from harness.data.assets import catalogue, fetch, is_cached, matching, megabytes, model_directory
from harness.foundation.cache import cache_dir
from harness.foundation.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """`ptq-bench assets`: fetch what is asked for, then show the table. Returns the exit code."""
    parser = Options("assets", "Show the embedded models and texts, and fetch them into the cache.")
    cached = f"The cache is {cache_dir()}; PTQ_BENCH_CACHE=<directory> moves it."
    licences = "Licences are those of the works; fetching one means accepting it."
    parser.epilog = f"Names: {', '.join(catalogue())}.\n{cached}\n{licences}"
    parser.add_argument("--fetch", nargs="+", metavar="NAME", default=[], help="names of the table, or `all`")
    wanted = parser.parse_args(argv).fetch
    try:
        for asset in [
            asset for name in (catalogue() if "all" in wanted else wanted) for asset in matching(name)
        ]:
            model_directory(asset.name) if asset.kind == "model" else fetch(asset.name)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _show(Console())
    return 0


def _show(console: Console) -> None:
    table = Table("asset", "kind", "state", title=f"cache: {cache_dir()}", title_justify="left")
    table.add_column("size", justify="right")
    table.add_column("licence")
    for asset in catalogue().values():
        state = "[green]cached[/]" if is_cached(asset.name) else "missing"
        table.add_row(asset.name, asset.kind, state, megabytes(asset.bytes), asset.licence)
    console.print(table)
    for asset in catalogue().values():
        console.print(f"{asset.name}: {asset.title}; {asset.note}", highlight=False, soft_wrap=True)
