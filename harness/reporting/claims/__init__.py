"""The ledger: what papers claim, the runs that test it, and the verdicts."""
