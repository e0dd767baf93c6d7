"""What transforms of whole blocks share.

Rewrites that keep the function (rewriting, installing, affine_norm), factors that are computed (smoothing),
searches (clip_search, input_statistics), activations in few bits (activations, attention_operands), a block
run on other parameters than its own (functional); training/: factors and clipping that are learned.
"""
