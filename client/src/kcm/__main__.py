"""``python -m kcm``: the ``kcm`` command where no script of it is installed."""

from kcm.entry import main

if __name__ == "__main__":
    main()
