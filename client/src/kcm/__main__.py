"""``python -m kcm`` runs the ``kcm`` command if its script is not installed."""

from kcm.entry import main

if __name__ == "__main__":
    main()
