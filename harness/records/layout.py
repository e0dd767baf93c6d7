"""Where everything lies that runs leave: the one place that spells these names.

results/sweeps/<digest>.json        the points of a sweep that was started, for `ptq-bench status`
results/runs/<run_key>/
  record.json                       the truth, written last: its presence vouches for the rest
  config.yaml                       what the run key is the hash of
  layers.parquet  blocks.parquet    a row per linear; a row per block, where a method reports on blocks
  items.json                        the values that each metric is the mean of
  checkpoint/                       the quantized model, with save=true
  attempts/  resume/                who works on it; what a killed attempt has finished
  log.txt  progress.json            what happened; how far it is
  mirrored.json                     which trackers hold it
"""

from pathlib import Path

RUNS, SWEEPS = "runs", "sweeps"
RECORD, CONFIG, ITEMS = "record.json", "config.yaml", "items.json"
LAYERS, BLOCKS = "layers.parquet", "blocks.parquet"
CHECKPOINT, ATTEMPTS, RESUME = "checkpoint", "attempts", "resume"
LOG, PROGRESS, MIRRORED = "log.txt", "progress.json", "mirrored.json"


def run_directory(results: str | Path, run_key: str) -> Path:
    """Where the run with this key leaves its files."""
    return Path(results, RUNS, run_key)


def run_directories(results: str | Path) -> list[Path]:
    """Where runs have left files below a directory of results, or of several of these; those with a dot in
    front are none.
    """
    found = Path(results).glob(f"**/{RUNS}/[!.]*/")
    return sorted(path for path in found if path.is_dir())


def results_of(directory: Path) -> Path:
    """The directory of results that the directory of a run lies in."""
    return directory.parent.parent
