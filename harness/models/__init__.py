"""From model.id to a model, its shape or its fingerprint; the families of architectures."""
