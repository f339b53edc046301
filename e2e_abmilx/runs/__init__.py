"""Runs: fits, each in a process of its own, and the folders that they leave.

- ``fits``: several fits, shared among processes and resumed
- ``crossval``: one fit per fold
- ``compare``: one fit per config, head and seed
- ``read``: a finished run, read from its folder
"""
