"""What transforms of whole blocks share.

Rewrites that keep the function (rewriting, affine_norm), factors that are computed or learned (smoothing,
affine, learned_transform, block_training, fake_quant), searches (clip_search, input_statistics,
first_tokens), and activations in few bits (activations, attention_operands).
"""
