"""`python -m advisor` is the command `advise`."""

from advisor.cli import main

main()
