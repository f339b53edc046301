"""Export of a trained model, to be handed to others: the command, and the files that it adds.

- ``command``: the command ``export``
- ``onnx_files``: the networks as ONNX, checked with onnxruntime
- ``card``, ``card_facts``, ``card.md``: the model card, and what it says
- ``markdown``: text from users inside Markdown
- ``hub``: exported folders on the Hugging Face hub
"""
