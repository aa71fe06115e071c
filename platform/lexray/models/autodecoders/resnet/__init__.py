"""`resnet`: PPAD as published (Song et al. 2025, arXiv:2502.01627)."""
