"""`python -m pushforward`."""

from pushforward.cli import main

main()
