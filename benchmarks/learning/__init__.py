"""The parts of the comparison of heads and kinds of training on real tissue, whose configs lie beside them.

- ``tiles``: lung tiles with their classes, grey and rank-equalised or in colour, split by original image
- ``bags``: bags of grey tiles as patch stores, with labels and truth
- ``control``: what colour and intensity statistics alone predict
- ``ceiling``: what an encoder gains if it is told the class of every tile
- ``measures``: attention against the truth of patches, the paper's MAX-N over noise patches, sparsity and α
- ``by_epoch``: the same after each epoch of a fit
- ``sweep``: all fits of the comparison, by one command
- ``results``: the table of their results
- ``weights``: ImageNet weights from a package of the registry, as a file for ``TimmEncoder``
- ``end_to_end.yaml``, ``frozen.yaml``, ``scratch.yaml``: the encoder trained from ImageNet, not trained, or from
  scratch
- ``variants.yaml``: the heads
"""
