"""``python -m e2e_abmilx``: the command line, with the current folder on the import path."""

from e2e_abmilx.main import main

if __name__ == "__main__":
    main()
