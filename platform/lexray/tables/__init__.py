"""Tables on disk and in object stores: schemas, atomic commits, quarantine and checkpoints. Nothing here knows Ray."""
