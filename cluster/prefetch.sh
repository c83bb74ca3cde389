#!/usr/bin/env bash
# Purpose: gather what a cluster without a network needs into one folder: wheels, pretrained weights,
#   experiments, search spaces and launch files, with checksums and the two commands to give there.
# Cost: 3 GB and some minutes; what pip has in its cache is not fetched again.
# Launch: cluster/prefetch.sh FOLDER [SPACE.yaml ...]     (default: all search spaces that ship)
#
# Run it on Linux, in a checkout that is installed with its extra `cluster`, in .venv or in the active
# environment. The wheels are for CPython on Linux with glibc 2.28 or newer (RHEL 8, Debian 10, Ubuntu
# 18.10); for another Python or processor than this machine's:
#   PYTHON_VERSION=3.12 MACHINE=aarch64 cluster/prefetch.sh FOLDER
# UV_DEFAULT_INDEX and PIP_INDEX_URL name another index, EXTRAS other extras of strokeseg.
# Interrupted, or something could not be had? The same command again.

set -euo pipefail
: "${1:?usage: cluster/prefetch.sh FOLDER [SPACE.yaml ...]}"
checkout=$(cd "$(dirname "$0")/.." && pwd)
if [ -f "$checkout/.venv/bin/activate" ]; then
    # shellcheck disable=SC1091
    source "$checkout/.venv/bin/activate"
fi
mkdir -p "$1/wheels" "$1/weights"
folder=$(realpath "$1")
spaces=("${@:2}")
[ ${#spaces[@]} -gt 0 ] || spaces=("$checkout"/search_spaces/*.yaml)
extras=${EXTRAS:-cluster,predict,search}
version=${PYTHON_VERSION:-$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
machine=${MACHINE:-$(uname -m)}
glibc=28
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

# They say that all is there, and come back at the end.
rm -f "$folder/README.txt" "$folder/SHA256SUMS"
(
    cd "$checkout"
    cp --parents experiments/*/experiment.yaml search_spaces/*.yaml cluster/slurm.sh \
        cluster/on-premise.yaml "$folder"
)

python - "$folder/weights" "${spaces[@]}" <<'PYTHON'
import sys
from pathlib import Path

from strokeseg.errors import UserError
from strokeseg.training.encoders import find_encoders
from strokeseg.tuning.space_file import load_space

folder, *spaces = map(Path, sys.argv[1:])
try:
    for space in spaces:
        # Read even where they are there, to see that they are whole.
        for found in find_encoders(load_space(space).wanted_encoders(space, 4, folder)):
            path = folder / f"{found.encoder}.safetensors"
            if not path.exists():
                (folder / ".partial").write_bytes(found.content)
                (folder / ".partial").rename(path)
except UserError as error:
    sys.exit(f"error: {error}")
PYTHON

# By way of a source archive, so that modules of earlier builds do not come along.
python -m uv build --quiet --out-dir "$built" "$checkout"
cd "$folder"
rm -f wheels/strokeseg-*.whl
mv "$built"/strokeseg-*.whl wheels
own=$(basename wheels/strokeseg-*.whl)
hash=$(sha256sum "wheels/$own" | cut -d' ' -f1)
# uv judges the packages' conditions by the target; pip would by the interpreter that it runs on.
echo "strokeseg[$extras] @ file://$folder/wheels/$own" |
    python -m uv pip compile - --quiet --only-binary :all: --constraints "$checkout/constraints.txt" \
        --python-version "$version" --python-platform "$machine-manylinux_2_$glibc" \
        --generate-hashes --no-header --no-annotate --no-emit-package strokeseg >"$built/needed.txt"
# pip fetches what it need not install, and checks the hashes; unlike uv, it takes no wheel for an
# older glibc unless that is named.
platforms=()
for minor in $(seq $glibc -1 5); do platforms+=("--platform=manylinux_2_${minor}_$machine"); done
for year in 2014 2010 1; do platforms+=("--platform=manylinux${year}_$machine"); done
python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --require-hashes --requirement "$built/needed.txt" --dest wheels \
    --implementation cp --python-version "$version" "${platforms[@]}"
{
    echo "strokeseg[$extras]==$(cut -d- -f2 <<<"$own") --hash=sha256:$hash"
    cat "$built/needed.txt"
} >requirements.txt

find experiments search_spaces cluster weights wheels requirements.txt -type f -print0 | sort -z |
    xargs -0 sha256sum >"$built/SHA256SUMS"
mv "$built/SHA256SUMS" .
tee README.txt <<TEXT
strokeseg for a cluster without a network: $(find wheels -name '*.whl' | wc -l) wheels (CPython $version, Linux $machine,
glibc 2.$glibc or newer), weights of $(find weights -name '*.safetensors' | wc -l) encoders, $(du -shc wheels weights | tail -1 | cut -f1).

Copy this folder to where all nodes see it, and there, in it:

    sha256sum --check --quiet SHA256SUMS && python$version -m venv .venv && .venv/bin/pip install --no-index --find-links wheels --require-hashes --requirement requirements.txt
    .venv/bin/strokeseg run --experiment NAME --data CASES --weights-dir weights

Under Slurm the second is sbatch cluster/slurm.sh, with the same options.
TEXT
