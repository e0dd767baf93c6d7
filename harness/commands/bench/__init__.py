"""`ptq-bench bench`: what it measures is in `harness.benchmarks`; here are its options and its tables."""
