"""`python -m jobledger`: the same as `jobledger`."""

from jobledger.cli.main import main

main()
