"""Where papers come from, and which sources they are about."""
