"""A study before it starts: what a config will take, and what its cases can show.

- ``plan``: the command ``plan`` and its JSON
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
