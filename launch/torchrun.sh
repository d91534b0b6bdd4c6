#!/usr/bin/env bash
# Train on every GPU of this machine, or of several, under torchrun.
#
#   launch/torchrun.sh --config configs/experiment/mnist_dynamic.yaml
#   NODES=2 NODE_RANK=0 MASTER_ADDR=first-host launch/torchrun.sh ...     on the first of two machines
#   NODES=2 NODE_RANK=1 MASTER_ADDR=first-host launch/torchrun.sh ...     on the second
#
# On several machines give all of them the same --run_dir, on a disk they share, or the same RUN_ID.
# PROCESSES is the number of processes on this machine (its GPUs by default). Batch size and number of chains are those
# of all processes together, so the same command line means the same run on any number of them.
set -euo pipefail
processes=${PROCESSES:-$(python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}
nodes=${NODES:-1}
# torch 2.13's agent shares its store with the workers by default; a restarted worker then reads stale keys.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --nnodes="$nodes" --nproc-per-node="$processes" --node-rank="${NODE_RANK:-0}" \
  --rdzv-id="${RUN_ID:-$(date +%Y%m%d-%H%M%S)}" --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${MASTER_PORT:-29511}" \
  -m gwg_dist.fit --trainer.strategy=ddp --trainer.num_nodes="$nodes" --trainer.devices="$processes" "$@"
