"""A stand-in for the wandb module that writes down what it is told, and can raise or hang at any of its
calls.
"""

import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class FakeWandb(ModuleType):
    """`heard` is all that a server would have received. `trouble` is called at `where` (init, log, finish) in
    place of the call.
    """

    def __init__(self, where: str = "", trouble: Callable[[], Any] = lambda: None):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)  # transformers asks whether it is installed
        self.heard: list[tuple] = []
        self.where, self.trouble = where, trouble
        self.Settings = SimpleNamespace
        self.Table = lambda columns, data, allow_mixed_types: ("table", columns, data)

    def tell(self, where: str, *what: Any) -> None:
        if where == self.where:
            self.trouble()
        self.heard.append((where, *what))

    def init(self, dir: Path, settings: Any, **identity: Any) -> "FakeRun":
        self.tell("init", identity)
        return FakeRun(self, identity["id"], identity["tags"])

    def Artifact(self, name: str, type: str) -> SimpleNamespace:
        files: list[tuple[str, bytes]] = []
        return SimpleNamespace(
            add_file=lambda path: files.append((Path(path).name, Path(path).read_bytes())),
            told=(name, type, files),
        )

    def install(self, monkeypatch) -> "FakeWandb":
        monkeypatch.setitem(sys.modules, "wandb", self)
        return self


class FakeRun:
    def __init__(self, fake: FakeWandb, id: str, tags: list[str]):
        self._fake, self.id, self.tags, self.summary = fake, id, tuple(tags), {}

    def define_metric(self, *names: str, **options: Any) -> None:
        self._fake.tell("define_metric", names, options)

    def log(self, values: dict, step: int | None = None) -> None:
        self._fake.tell("log", values, step)

    def log_artifact(self, artifact: SimpleNamespace) -> None:
        self._fake.tell("artifact", artifact.told)

    def finish(self, exit_code: int) -> None:
        self._fake.tell("finish", exit_code, self.tags, dict(self.summary))


def hang() -> None:
    """A minute, but for the end of the test process."""
    threading.Event().wait(60)


def explode() -> None:
    raise OSError("no route to host")
