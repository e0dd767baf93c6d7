"""What transforms of whole blocks share.

Rewrites that keep the function (rewriting, installing, affine_norm), factors that are computed or learned
(smoothing, affine, learned_transform, lesson, block_training, fake_quant), searches (clip_search,
input_statistics), and activations in few bits (activations, attention_operands).
"""
