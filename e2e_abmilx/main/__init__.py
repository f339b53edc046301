"""The command line.

* ``command_line``: ``main``, which runs a command and ends it with a message where it fails
* ``commands``: the table of all commands, and the overview that ``e2e-abmilx --help`` prints
* ``starting``: how a command gets its options, and what is done with its result
* ``completion``: the scripts with which shells complete commands and options
* ``debug``: tracebacks of errors, on demand
"""

from e2e_abmilx.main.command_line import main

__all__ = ["main"]
