"""Files and the terminal, as every other room uses them.

* ``tables``: CSV files as people write them: encodings, separators, missing values
* ``locks``: one process at a time; a lock ends with the process that holds it
* ``progress``: how far long work has come, as a bar or as lines of the log
"""
