"""``python -m kcm``: the ``kcm`` command where no script of it is installed."""

from kcm.cli.main import main

if __name__ == "__main__":
    main()
