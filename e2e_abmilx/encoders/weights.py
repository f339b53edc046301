"""Loading of pretrained encoder weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from e2e_abmilx.errors import InputError


def load_weight_file(model: nn.Module, path: Path) -> None:
    """Load a state dict from a safetensors or PyTorch file; tensors that the model lacks are ignored."""
    if not Path(path).is_file():
        raise InputError(f"weights {path}: there is no such file; check the path")
    if Path(path).suffix == ".safetensors":
        state = load_file(path)
    else:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved.get("state_dict", saved.get("model", saved))
    load_weights(model, state, f"weights {path}")


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model; refuse them unless they hold every tensor of the model.

    Args:
        model: The model.
        state: Weights by name; names that the model lacks, such as a classifier's, are ignored.
        source: Where the weights come from, for the message of the error.

    Raises:
        InputError: Tensors are missing or have other shapes.
    """
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    missing = sorted(set(own) - set(fitting))
    if missing:
        raise InputError(
            f"{source} do not fit: {len(missing)} of {len(own)} tensors are missing or have another shape,"
            f" the first are {missing[:3]}; the weights hold {sorted(state)[:3]} …"
        )
    model.load_state_dict(fitting)
