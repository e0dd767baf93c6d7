"""A quantized model as modules, tensors and files, and back."""
