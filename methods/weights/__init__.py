"""How a rounded matrix is stored: grids, levels, outliers, codebooks, packed codes, and its bits per weight."""
