"""What a killed run has finished, so that the next attempt goes on at the next block and ends bit for bit as
an undisturbed one.

    results/runs/<run_key>/resume/
      <sha256>.safetensors    a quantized block, or the hidden states that enter the next one
      manifest.json           the blocks in order, with the reports of their linears, and which hidden
                              states are theirs
      evaluation.json         the corpora and tasks that are evaluated

A block counts once the manifest that names it is renamed into place; whatever the manifest does not name is
garbage of an attempt that died, and is removed. Files are believed only if their hash is that of their name,
and only by the same software on the same kind of device; else the run starts anew. Blocks are written while
the next one is being quantized.
"""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.checkpoints import modules
from harness.foundation.errors import UserError
from harness.foundation.files import ASIDE, disk_errors, replace_file, write_atomic
from harness.foundation.hashes import sha256_file
from harness.foundation.seals import seal, unseal
from harness.quantization.batches import Batch
from harness.quantization.layer_reports import BlockReport, LayerReport
from methods.contracts.block import Block

log = logging.getLogger(__name__)
MANIFEST, EVALUATION = "manifest.json", "evaluation.json"


class Resume:
    """The finished part of one run. Each run has its own; nobody else writes to its directory."""

    def __init__(self, directory: Path, identity: dict[str, Any]):
        """
        Args:
            identity: JSON-able; what a former attempt must have been for its results to be the same bit for
                bit.
        """
        self.directory, self._identity = directory, identity
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None
        self._begun = time.perf_counter()
        # seconds that this attempt's commits took, most of them while the next block was at work
        self.writing = 0.0
        self._manifest = self._verified(MANIFEST) or {"blocks": [], "stream": None, "seconds": 0.0}
        self._evaluation = self._verified(EVALUATION) or {"stages": {}}
        self._former = self._manifest["seconds"]
        self._sweep_out()

    @property
    def blocks(self) -> int:
        """How many are finished."""
        return len(self._manifest["blocks"])

    @property
    def evaluations(self) -> int:
        """How many corpora and tasks are finished."""
        return len(self._evaluation["stages"])

    def seconds(self) -> float:
        """Spent on the blocks so far, by all attempts; what a killed attempt did after its last block is lost
        and not counted.
        """
        return self._former + time.perf_counter() - self._begun

    def can_continue(self, blocks: int, streams: bool) -> bool:
        """Is what the next of `blocks` needs here, given whether it needs hidden states?"""
        return not (streams and 0 < self.blocks < blocks and self._manifest["stream"] is None)

    def start_over(self) -> None:
        """Forget the blocks."""
        self._manifest = {"blocks": [], "stream": None, "seconds": 0.0}
        self._former = 0.0

    def restore_(self, block: Block) -> list[LayerReport | BlockReport]:
        """Make a float block the finished one, and return what was told of it."""
        finished = self._manifest["blocks"][block.index]
        device = next(block.module.parameters()).device
        tensors = load_file(self._path(finished["file"]), device=str(device))
        modules.rebuild_(block.module, tensors, finished["entry"], blocks="")
        return [LayerReport(**row) if "layer" in row else BlockReport(**row) for row in finished["reports"]]

    def enter_(self, batches: Sequence[Batch]) -> None:
        """Give calibration batches the hidden states behind the last finished block."""
        if not batches or self._manifest["stream"] is None:
            return
        stream = load_file(self._path(self._manifest["stream"]))
        for number, batch in enumerate(batches):
            home = batch.hidden.device
            batch.hidden = stream[f"hidden.{number}"].to(home)
            if batch.of_float is not None:
                batch.of_float = stream[f"of_float.{number}"].to(home)

    def keep(
        self, block: Block, reports: Sequence[LayerReport | BlockReport], batches: Sequence[Batch]
    ) -> None:
        """Commit a finished block in the background.

        Args:
            batches: as the next block sees them; empty if it needs none. Their tensors are not changed any
                more.

        Raises:
            UserError: the block before could not be written.
        """
        self.settle()
        tensors, entry = modules.described(block.module)
        described = {"entry": entry, "reports": [asdict(report) for report in reports]}
        stream = {}
        for number, batch in enumerate(batches):
            stream[f"hidden.{number}"] = batch.hidden
            if batch.of_float is not None:
                stream[f"of_float.{number}"] = batch.of_float
        work = tensors, described, stream, self.seconds()
        self._writer = threading.Thread(target=self._write, args=work)
        self._writer.start()

    def settle(self) -> None:
        """Wait until every finished block is committed.

        Raises:
            UserError: one could not be written.
        """
        self.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait for the writing, whatever comes of it."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def evaluated(self, stage: str, evaluate: Callable[[], dict]) -> dict:
        """What one corpus or task gave: kept from an attempt before, or evaluated now and committed."""
        stages = self._evaluation["stages"]
        if stage not in stages:
            stages[stage] = evaluate()
            self._commit(EVALUATION, self._evaluation)
        return stages[stage]

    def _write(
        self, tensors: dict[str, Tensor], described: dict, stream: dict[str, Tensor], seconds: float
    ) -> None:
        start = time.perf_counter()
        try:
            former = self._manifest["stream"]
            entry = described | {"file": self._store(tensors)}
            on_host = {name: tensor.cpu().contiguous() for name, tensor in stream.items()}
            later = self._store(on_host) if stream else None
            manifest = {"blocks": [*self._manifest["blocks"], entry], "stream": later, "seconds": seconds}
            self._commit(MANIFEST, manifest)
            self._manifest = manifest
            if former not in (None, later):
                with suppress(OSError):  # the next attempt, or the end of the run, removes it
                    self._path(former).unlink(missing_ok=True)
        except BaseException as error:
            self._error = error
        finally:
            self.writing += time.perf_counter() - start

    def _store(self, tensors: dict[str, Tensor]) -> str:
        """Write tensors under the hash of their file; returns the hash."""
        # should two be at it, each has its own
        aside = self.directory / f"{ASIDE}tensors-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.directory.mkdir(parents=True, exist_ok=True)
        with disk_errors(aside):
            save_file(tensors, aside)
        digest = sha256_file(aside)
        with replace_file(self._path(digest)) as path:
            aside.rename(path)
        return digest

    def _commit(self, name: str, content: dict) -> None:
        write_atomic(self.directory / name, seal(content | {"identity": self._identity}))

    def _verified(self, name: str) -> dict | None:
        """The content of a file that this run may go on from."""
        if not (self.directory / name).exists():
            return None
        try:
            content = unseal((self.directory / name).read_bytes())
            if content.pop("identity") != json.loads(json.dumps(self._identity)):
                raise ValueError("made by other software or on another device")
            files = {block["file"] for block in content.get("blocks", [])} | {content.get("stream")}
            for digest in files - {None}:
                if sha256_file(self._path(digest)) != digest:
                    raise ValueError(f"{digest}.safetensors is damaged")
            return content
        except (OSError, ValueError, TypeError, KeyError, UserError) as error:
            log.warning("%s is of no use and the work starts anew: %s", self.directory / name, error)
            return None

    def _sweep_out(self) -> None:
        """Remove what no manifest names."""
        digests = [*(block["file"] for block in self._manifest["blocks"]), self._manifest["stream"]]
        named = {MANIFEST, EVALUATION} | {f"{digest}.safetensors" for digest in digests}
        for path in self.directory.glob("*"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.directory / f"{digest}.safetensors"
