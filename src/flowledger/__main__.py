"""`python -m flowledger` is the same as `flowledger`."""

from flowledger.cli import main

main()
