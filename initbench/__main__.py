"""`python -m initbench` is the `initbench` command."""

from initbench.cli.main import main

main()
