"""The first hour with one's own slides: a study folder, and a plan of what its fit will take and what its test can show.

- ``init``: the command ``e2e-abmilx init``: a study folder from a label table and slides
- ``table``: what the label table holds: its target, classes, cases, splits, and what is doubtful
- ``survey``: a few slides: their µm per pixel, their patches, copies
- ``recipe``: the config of a study, and the values of ``configs/classification.yaml`` and ``configs/survival.yaml``
- ``choices``: the values that suit a table and its slides
- ``page``: the study's README and the summary
- ``plan``: the command ``e2e-abmilx plan`` and its JSON
- ``plan_table``: its table
- ``plan_config``: the objects that a config names, built without a run
- ``plan_cohort``: cases, classes and slides by split
- ``plan_cache``: patches, size and time of the cache
- ``plan_steps``: steps, validations and patch passes of a training
- ``allocations``: the peak of the memory that tensors hold
- ``plan_memory``: a model of the memory of training, and what fits a GPU
- ``plan_probe``: seconds per step and patches per second, measured on this machine
- ``plan_room``: workers, shared memory and disk
- ``plan_power``: the smallest differences that the test cases can show
- ``plan_warnings``: reasons why a plan cannot work
"""
