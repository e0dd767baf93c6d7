"""The one grammar of options: argparse, whose errors are one line each, and `key=value` as Hydra's commands
have it.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError


class Options(argparse.ArgumentParser):
    """Of `ptq-bench COMMAND`; `--results DIR` may also be written results=DIR or paths.results=DIR."""

    def __init__(self, command: str, description: str, epilog: str = ""):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(f"ptq-bench {command}", None, description, epilog, formatter_class=layout)

    def add_results(self, what: str) -> None:
        """`--results DIR`; `what` says what the directory is to the command."""
        self.add_argument(
            "--results",
            type=os.path.expanduser,  # of --results=~/x, which a shell leaves as it is
            default="results",
            metavar="DIR",
            help=f"{what} (default: %(default)s)",
        )

    def parse_args(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The values of the options.

        Raises:
            UserError: an option is unknown, lacks its value, or has one that it does not take.
        """
        rewritten = [self._rewritten(argument) for argument in arguments]
        options, unknown = self.parse_known_intermixed_args(rewritten)
        if unknown:
            self.refuse(unknown[0])
        for name, value in vars(options).items():
            if value == "" and f"--{name}" in self._flags():
                raise UserError(f"--{name}: give it a value")
        return options

    def error(self, message: str) -> None:
        raise UserError(message)

    def refuse(self, argument: str) -> None:
        """Raises UserError: there is no such option; did you mean another?"""
        name = argument.partition("=")[0]
        word = name.lstrip("-").rpartition(".")[2]
        hint = nearest_name(f"--{word}", self._flags(), cutoff=0.5) or f"known: {', '.join(self._flags())}"
        raise UserError(f"unknown option {name!r}: {hint}")

    def _flags(self) -> list[str]:
        return [flag for flag in self._option_string_actions if flag.startswith("--") and flag != "--help"]

    def _rewritten(self, argument: str) -> str:
        key, equals, _ = argument.partition("=")
        flag = f"--{key.removeprefix('paths.')}"
        known = equals and flag in self._flags() and not _is_directory(argument)
        return flag + argument[len(key) :] if known else argument


def _is_directory(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # too long for a name
        return False
