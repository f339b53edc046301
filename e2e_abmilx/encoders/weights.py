"""Load encoder weights from files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from e2e_abmilx.errors import InputError


def load_weight_file(model: nn.Module, path: Path) -> None:
    """Load a state dict from a file that holds nothing but tensors; its classifier may be left over."""
    if not Path(path).is_file():
        raise InputError(f"weights {path}: there is no such file; check the path")
    if Path(path).suffix == ".safetensors":
        state = load_file(path)
    else:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved.get("state_dict", saved.get("model", saved))
    load_weights(model, state, f"weights {path}")


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights; all of the model's must be there."""
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    missing = sorted(set(own) - set(fitting))
    if missing:
        raise InputError(
            f"{source} do not fit: {len(missing)} of {len(own)} tensors are missing or of another shape,"
            f" first {missing[:3]}; there are {sorted(state)[:3]} …"
        )
    model.load_state_dict(fitting)
