"""The `ptq-bench` command. Every error a user can fix is one line on stderr and a non-zero exit code."""

import os
import shlex
import sys
from collections.abc import Callable

from harness.foundation.did_you_mean import nearest_name

COMMANDS = {
    "run": "quantize, evaluate and record every point of a sweep",
    "plan": "print the points of a sweep and their state, and run nothing",
    "status": "how far a sweep is, while it runs or after",
    "sync": "mirror finished runs into W&B or trackio",
    "report": "write tables and figures from the records",
    "compare": "two runs side by side: configuration, metrics with intervals, layers",
    "evaluate": "measure a model that a run kept in another way, without quantizing again",
    "load": "rebuild a quantized model that a run saved, and see that it works",
    "assets": "list and fetch the embedded models and texts",
    "doctor": "check this machine: versions, memory, disk, assets",
    "bench": "measure the solvers on this machine",
}


def main(argv: list[str] | None = None) -> int:
    """Dispatch to a command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["help"]:  # help run, run --help
        argv = [*argv[1:2], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        hint = nearest_name(command, COMMANDS) or f"choose among {', '.join(COMMANDS)}"
        if "=" in command:
            hint = f"did you mean ptq-bench run {shlex.join(argv)}"
        return fail(f"{command}: no such command; {hint}")
    return guarded(lambda: _checked(command, rest), debug=bool(os.environ.get("PTQ_BENCH_DEBUG")))


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    more = "ptq-bench COMMAND --help says more; PTQ_BENCH_DEBUG=1 shows tracebacks."
    return "\n".join(["ptq-bench: compare post-training quantization methods", "", *lines, "", more])


def _checked(command: str, arguments: list[str]) -> int:
    from harness.foundation.redaction import refuse_secret_arguments

    refuse_secret_arguments(arguments)
    return _command(command)(arguments)


def _command(name: str) -> Callable[[list[str]], int]:
    # each command imports what it needs, so that `report` and `--help` answer without loading torch
    if name in ("run", "plan"):
        from harness.commands.sweep import plan, run

        return {"run": run, "plan": plan}[name]
    if name == "status":
        from harness.commands.status import main as command
    elif name == "sync":
        from harness.commands.sync import main as command
    elif name == "report":
        from harness.commands.report import main as command
    elif name == "compare":
        from harness.commands.compare import main as command
    elif name == "evaluate":
        from harness.commands.evaluate import main as command
    elif name == "load":
        from harness.commands.load import main as command
    elif name == "assets":
        from harness.commands.assets import main as command
    elif name == "doctor":
        from harness.commands.doctor import main as command
    else:
        from harness.commands.bench.dispatch import main as command
    return command


def guarded(command: Callable[[], int], debug: bool) -> int:
    """Turn exceptions into one line each: 2 for what the user can fix, 1 for points that did not finish, 130
    for ^C.
    """
    from harness.foundation.errors import UserError

    try:
        return command() or 0
    except KeyboardInterrupt:
        return fail("interrupted; finished points are kept, run the same command again to go on", 130)
    except SystemExit as ended:  # --help
        if ended.code:
            raise
        return 0
    except UserError as error:
        if debug:
            raise
        return fail(str(error), 1 if type(error).__name__ == "Unfinished" else 2)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        return fail(f"unexpected {type(error).__name__}: {text} (PTQ_BENCH_DEBUG=1 shows where)", 3)


def fail(message: str, code: int = 2) -> int:
    from harness.foundation.redaction import redact

    for line in redact(message).splitlines():
        print(f"ptq-bench: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
