#!/bin/bash
# Purpose: a whole experiment as one Slurm job: a Ray of its own over the job's nodes, and the run.
# Cost: the nodes asked for below, until the run is done or --time is over.
# Launch: sbatch cluster/slurm.sh --experiment isles2015 --data /data/SISS2015_Training
#
# Submit from the repository's root, where `.venv` lies on a file system that all nodes share (or
# with another environment active), as must the storage, which is `runs` unless --storage says
# otherwise (of a URI, its working copy: set STROKESEG_WORK). All arguments go to `strokeseg run`. More nodes, other GPUs, a partition: options of
# sbatch before the script's name win over the lines below:
#   sbatch --nodes=4 --gpus-per-node=8 --partition=gpu cluster/slurm.sh \
#     --experiment isles2015 --data /data/SISS2015_Training
# Over time, cancelled, or a node lost? The same sbatch line goes on from there.
#
# The job makes its own token, which goes to the nodes in the environment and ends with the job; its
# port is of its own, its dashboard off, its temporary files removed.
#
#SBATCH --job-name=strokeseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=strokeseg-%j.log

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run this with sbatch}"
if [ -f .venv/bin/activate ]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi

nodes=$SLURM_JOB_NUM_NODES
head=$SLURMD_NODENAME   # a batch script runs on the first node of its job
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
port=$((20000 + SLURM_JOB_ID % 10000))
# Short, since Ray puts sockets below it.
temporary=/tmp/strokeseg-$SLURM_JOB_ID
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_ADDRESS=$ip:$port
common=(--num-cpus="$SLURM_CPUS_PER_TASK" --min-worker-port=0 --max-worker-port=0
    --disable-usage-stats --block)
if [ -n "${SLURM_MEM_PER_NODE:-}" ]; then
    # In bytes, of MiB: what Ray takes by itself, but of the job's memory, not of the whole node's.
    common+=(--object-store-memory=$((SLURM_MEM_PER_NODE * 1024 * 1024 * 3 / 10)))
fi

steps=()
driver=
# shellcheck disable=SC2329  # called by name
finish() {
    trap - EXIT TERM INT
    # The run puts down what it has while its Ray still lives.
    if [ -n "$driver" ]; then
        kill "$driver" 2>/dev/null || true
        wait "$driver" || true
    fi
    [ ${#steps[@]} -eq 0 ] || kill "${steps[@]}" 2>/dev/null || true
    wait || true
    srun --overlap --nodes="$nodes" --ntasks="$nodes" rm -rf "$temporary"
}
trap finish EXIT
trap 'echo "stopped; the same sbatch line goes on from here" >&2; exit 143' TERM INT

# Wait, a second a time, until a command succeeds.
patiently() {
    local what=$1 left=300
    shift
    until "$@" 2>/dev/null; do
        left=$((left - 1))
        if [ "$left" -eq 0 ]; then
            echo "error: $what did not start within 5 minutes; see the log above" >&2
            exit 1
        fi
        kill -0 "${steps[0]}" || { echo "error: Ray's head ended; see the log above" >&2; exit 1; }
        sleep 1
    done
}
# shellcheck disable=SC2329  # called by name
answers() { (exec 3<>"/dev/tcp/$ip/$port"); }
# shellcheck disable=SC2329  # called by name
all_joined() {
    python - "$nodes" <<'PYTHON'
import sys
import ray
ray.init(log_to_driver=False, logging_level="error")
sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]))
PYTHON
}

# RAY_ADDRESS is for the driver: a head refuses to start under it.
# Since Slurm 22.05 steps do not inherit the job's CPUs for each task.
srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$head" env --unset=RAY_ADDRESS \
    ray start --head --node-ip-address="$ip" --port="$port" --temp-dir="$temporary" \
    --include-dashboard=false "${common[@]}" &
steps+=($!)
patiently "Ray's head" answers
if [ "$nodes" -gt 1 ]; then
    srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" --exclude="$head" \
        ray start --address="$RAY_ADDRESS" "${common[@]}" &
    steps+=($!)
fi
patiently "one of the $nodes nodes" all_joined

python -m strokeseg.run "$@" &
driver=$!
code=0
wait "$driver" || code=$?
driver=
exit "$code"
