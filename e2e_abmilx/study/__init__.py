"""The first hour with one's own slides: a study folder is made from a label table and slides.

- ``table``: what the label table holds: its target, classes, cases, splits, and what is doubtful
- ``survey``: a few slides: their µm per pixel, their patches, copies
- ``recipe``: the config of a study, and the values of ``configs/classification.yaml`` and ``configs/survival.yaml``
- ``choices``: the values that suit a table and its slides
- ``page``: the study's README and the summary
- ``init``: the command ``e2e-abmilx init``
"""
