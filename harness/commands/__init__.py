"""What a person can call, a file each."""
