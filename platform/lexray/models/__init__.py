"""The models, as plain PyTorch: tensors in, tensors out. No Ray, no files, no configuration."""
