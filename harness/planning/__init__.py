"""What a run will take, known from its configuration and the shapes of its model: operations, seconds, bytes
of memory and of disk.

Nothing is loaded. Methods are not known by name: they count for themselves, see `methods.contracts.effort`.
"""
