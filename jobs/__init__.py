"""The jobs of the pipeline, in the order of the data's way. Each module is one command of `lexray`."""
