"""What runs leave on disk, read without torch: layout, records, attempts, progress, measurements."""
