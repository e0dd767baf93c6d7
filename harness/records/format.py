"""Versions of what is written to disk."""

RECORD = 1  # layout of record.json: raise it when a reader of the old layout would misread the new one
# part of every run key: raise it when a change of the code moves numbers, so that old records answer no new
# run
NUMBERS = 1
CHECKPOINT = 1  # layout of a saved quantized model

FINISHED = ("done", "skipped")  # statuses of records of runs that are never computed again
FAILED = ("failed", "oom", "diverged")  # and of those that are, with retry=true
STATUSES = ("done", "diverged", "oom", "failed", "skipped")  # all of them, as reports count them
