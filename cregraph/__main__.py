"""`python -m cregraph`."""

from cregraph.cli import main

main()
