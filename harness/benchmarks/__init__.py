"""What `ptq-bench bench` measures on this machine: solvers beside each other, and one solver against the size
of its layers.
"""
