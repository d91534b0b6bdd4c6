#!/usr/bin/env bash
# Train on every GPU of this machine, or of several, under torchrun.
#
#   launch/torchrun.sh --config configs/experiment/mnist_dynamic.yaml
#   more="--run_dir=DIR --ckpt_path=last --config FILE"
#   NODES=2 NODE_RANK=0 MASTER_ADDR=first-host launch/torchrun.sh $more     on the first of two machines
#   NODES=2 NODE_RANK=1 MASTER_ADDR=first-host launch/torchrun.sh $more     on the second
#   NODES=2:4 MASTER_ADDR=first-host launch/torchrun.sh $more               on two to four, the same on each
#
# On several machines DIR is on a disk they share, and --ckpt_path=last goes on with what is there. Without NODE_RANK the
# rendezvous is elastic: machines may come and go within the bounds of NODES, and all go on from the last checkpoint.
# PROCESSES  on this machine (its GPUs, or one)
# RESTARTS   how often processes are started again after one has died (3); they go on from the last checkpoint
# RUN_ID     name of the job, the same on all machines and new for every job
# JOIN_S     seconds to wait for the other machines (300)
# Batch size and number of chains are those of all processes together, so the same command line means the same run on
# any number of them.
set -euo pipefail
processes=${PROCESSES:-$(python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}
nodes=${NODES:-1}
address=${MASTER_ADDR:-127.0.0.1}
port=${MASTER_PORT:-29511}
getent hosts "$address" >/dev/null || { echo "error: MASTER_ADDR: the host $address is not known here" >&2; exit 2; }
if [[ $nodes == 1 ]]; then
  where=(--standalone)
elif [[ -n ${NODE_RANK:-} ]]; then
  where=(--node-rank="$NODE_RANK" --master-addr="$address" --master-port="$port" --rdzv-conf="timeout=${JOIN_S:-300}")
else
  where=(--rdzv-backend=c10d --rdzv-endpoint="$address:$port" --rdzv-conf="join_timeout=${JOIN_S:-300}")
fi
[[ $nodes == 1 ]] || where+=(--rdzv-id="${RUN_ID:-none}")
if [[ $nodes != 1 && ${NODE_RANK:-0} != 0 ]]; then  # torchrun's own message is a page
  until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do
    ((SECONDS < ${JOIN_S:-300})) || { echo "error: no machine 0 at $address:$port within ${JOIN_S:-300} s" >&2; exit 2; }
    sleep 1
  done
fi
# torch 2.13's agent shares its store with the workers by default; a restarted worker then reads stale keys.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --nnodes="$nodes" --nproc-per-node="$processes" --max-restarts="${RESTARTS:-3}" "${where[@]}" \
  -m gwg_dist.fit "$@"
