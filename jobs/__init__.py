"""The jobs of the pipeline. Each module is one command of `lexray`; `registry` names them."""
