"""``python -m pactolus`` is the ``pactolus`` command."""

from pactolus.cli import main

if __name__ == "__main__":
    main()
