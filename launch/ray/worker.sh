#!/usr/bin/env bash
# Give this machine to the Ray cluster at an address, in the foreground; Ctrl-C takes it away.
#
#   launch/ray/worker.sh HEAD:6379
#
# Further arguments go to `ray start`, such as --num-cpus=8 or --num-gpus=1. Trials that ran here go on elsewhere from
# their last checkpoint. The cluster's token must be here, see head.sh.
set -euo pipefail
[[ $# -ge 1 ]] || { echo "usage: launch/ray/worker.sh HEAD:PORT [arguments of ray start]" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
address=$1
shift
exec ray start --address="$address" --disable-usage-stats --block "$@"
