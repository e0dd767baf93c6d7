"""Codebooks: what VPTQ and GPTVQ share and what each needs beside its own file.

VPTQ's vectors run along the output rows inside one column (weight, codebook, frame, descent, refit, shake),
GPTVQ's along the row over neighbouring columns (row_weight, row_refit, metric_kmeans).
"""
