"""``python -m msgdas``: the command line."""

from msgdas.cli.main import main

main()
