"""Text vectors: the engines that compute them, and the table that holds them."""
