"""``python -m msgdas``: the command line."""

from msgdas.cli import main

main()
