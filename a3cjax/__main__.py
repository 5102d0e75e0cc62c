"""`python -m a3cjax`: the command `a3cjax`."""

from a3cjax.commands import main

if __name__ == "__main__":
    main()
