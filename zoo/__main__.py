"""Entry point of `python -m zoo`; launchers of several processes use it too."""

from zoo.cli import main

if __name__ == "__main__":
    main()
