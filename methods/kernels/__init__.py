"""The hot loops: each with a torch reference, a CPU kernel, a Triton kernel, and a dispatch by device."""
