"""`python -m zoo`, which is also what a launcher of several processes starts."""

from zoo.cli import main

if __name__ == "__main__":
    main()
