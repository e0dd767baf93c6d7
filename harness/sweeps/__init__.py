"""Many runs: points, launching, processes and their supervision, watching."""
