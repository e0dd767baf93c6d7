"""The walk over the blocks: statistics, transforms, solvers, tuning, and how it is resumed."""
