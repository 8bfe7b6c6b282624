"""`python -m advisor` is the command `advise`."""

from advisor.cli import main

if __name__ == "__main__":  # the processes that `advise ui` starts load this module, too
    main()
