#!/usr/bin/env bash
# Train on the GPUs of one node, or of several: tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# Several nodes: NNODES, NODE_RANK, MASTER_ADDR and PORT come from the environment.
set -euo pipefail
config=$1 gpus=$2
exec python -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$gpus" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "${@:3}"
