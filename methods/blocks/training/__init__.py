"""What OmniQuant and AffineQuant learn, and how: factors of seams under a mask, clipping of weights, the
block as a lesson, the loop that trains it, and what comes of it for the block.
"""
