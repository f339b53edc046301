"""Bags, in pure torch: patches or features of a case with its target, drawn, collated and loaded.

- ``bag``: the batch and its letters; how bags are collated
- ``ahead``: bags read before they are asked for
- ``inputs``: the input of a model: patches of a size and resolution, or features of an encoder
- ``seen_cases``: the cases that a model has seen in training, known by hashes
- ``contract``: the input contract of a trained model
- ``jpegs``: JPEG streams of patches that the device decodes
- ``samplers``: the order of cases, and their distribution among processes
- ``draws``: draws of patches: uniform, in runs, by region, or by attention
- ``slide_bags``: bags of patches: random multi-scale draws, or whole slides in parts
- ``feature_bags``: bags of extracted features
- ``loaders``: loaders that measure waiting time and limit memory
- ``transfer``: batches moved to the device during computation
- ``features/``: feature files of all common tools
"""
