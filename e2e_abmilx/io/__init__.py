"""Files and the terminal, as all other rooms use them.

* ``tables``: CSV files as people write them: encodings, separators, words for missing values
* ``locks``: lock files, which one process at a time can hold
* ``atomic``: files that are either complete or absent
* ``scratch``: temporary folders, which are removed even if their process was killed
* ``old_names``: options, class paths and metrics of earlier releases, as their files have them
* ``progress``: progress of long work, as a bar or as log lines
* ``option_parser``: the parser of options: lists as people type them
* ``urls``: refusal of URLs where a folder or file on a disk is meant
* ``near_misses``: the name that a mistyped name probably means
"""
