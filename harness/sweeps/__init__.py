"""Many runs: points, launching, processes and their supervision (a lost child: worker.py), progress."""
