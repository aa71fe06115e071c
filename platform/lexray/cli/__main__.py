"""`python -m lexray.cli`: the command line where the script `lexray` is not on the path, such as on a cluster."""

from lexray.cli.app import main

main()
