"""Runs: fits, each in a process of its own, and the folders that they leave.

- ``fits``: several fits, shared among processes and resumed
- ``crossval``: one fit per fold
- ``compare``: one fit per config, head or variant, and seed
- ``variants``: named variants of a model, read from a file
- ``read``: a finished run, read from its folder
- ``embeddings``: the embeddings of its tested cases
"""
