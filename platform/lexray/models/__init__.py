"""The models, in PyTorch alone: tensors in, tensors out. No Ray here, and no tables."""
