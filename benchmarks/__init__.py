"""Measurements for those who work on ptq-bench itself; no part of the package, run from a checkout."""
