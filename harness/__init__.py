"""The imperative shell: everything that touches models, data, disk, processes and tracking."""
