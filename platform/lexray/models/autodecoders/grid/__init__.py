"""`grid`: a latent for each detection, decoded to log-rates on a grid of knots in time."""
