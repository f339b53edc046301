#!/usr/bin/env bash
# Fetches the wheels that a GPU machine without a network lacks into .whl/ (48 MB), which git ignores.
#
#     benchmarks/gpu_wheels.sh
#
# For Python 3.12 on x86-64 Linux with torch 2.11, torchvision, timm, lightning, torchmetrics, pandas, scikit-image,
# matplotlib, h5py, tifffile and pytest. PYTHON names the Python whose pip is used. Each package has one version, because
# two would stop the installation. Requirements that the machine already has are not fetched (--no-deps).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

packages=(
    imagecodecs==2026.10.10
    zarr==3.4.2 donfig==0.8.1.post1 numcodecs==0.17.1 google-crc32c==1.9.0 msgspec==0.22.0
    tiffslide==4.0.0
    openslide-python==1.4.7 openslide-bin==4.0.1.2 pydicom==3.0.2
    torchcodec==0.17.0
    lifelines==0.30.3 autograd==1.9.1 autograd-gamma==0.4.2
    formulaic==1.2.2 interface-meta==2.0.1 narwhals==2.29.0 wrapt==2.5.2  # lifelines imports them
    jsonargparse==4.53.0 docstring-parser==0.18.0 typeshed-client==2.15.0 importlib-resources==7.1.0
)

rm -rf .whl
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 312 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .whl "${packages[@]}"

ls -lS .whl | awk 'NR > 1 { printf "%11.2f MB  %s\n", $5 / 1e6, $9; sum += $5 } END { printf "%11.2f MB  in total\n", sum / 1e6 }'
cat <<'END'

To install them, in the folder of the checkout and .whl:
python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site .whl/*.whl && PYTHONPATH=/tmp/site:. python3 benchmarks/gpu.py --out OUT
END
