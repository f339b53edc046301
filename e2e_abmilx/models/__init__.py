"""A trained model as a thing to hand on: files that run without the training, a card that describes it, and the hub.

- ``onnx_files``: the networks as ONNX, checked with onnxruntime
- ``card``, ``card_facts``, ``card.md``: the model card, and what it says
- ``markdown``: text from users inside Markdown
- ``hub``: exported folders on the Hugging Face hub
"""
