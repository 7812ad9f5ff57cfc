"""Lets `python -m byheart` do what `byheart` does."""

from byheart.cli import main

if __name__ == "__main__":
    main()
