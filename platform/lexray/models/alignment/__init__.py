"""Two towers into one space, their contrastive loss, and heads on the vectors."""
