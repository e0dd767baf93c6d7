"""What every room stands on: errors, files, hashes, seals, the cache, resources of this machine."""
