"""How a rounded matrix is stored: grids, levels, outliers, codebooks, packed codes, bits per weight."""
