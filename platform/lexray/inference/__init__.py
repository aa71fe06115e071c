"""A trained model on tables: encoding, reconstruction and projection."""
