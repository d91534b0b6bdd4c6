#!/usr/bin/env bash
# Start a Ray cluster on this machine, in the foreground; Ctrl-C ends it.
#
#   launch/ray/head.sh                                  here
#   launch/ray/worker.sh THIS_MACHINE:6379              on every other machine, with the same code and disk
#   python -m gwg_dist.tune --address THIS_MACHINE:6379 --config configs/sweep/digits.yaml --sweep_dir SHARED/sweep
#
# PORT      where Ray listens (6379)
# The cluster takes orders from whoever has its token: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token,
# which is written here where there is none. Machines that do not share a home need a copy, readable by its owner alone.
# Further arguments go to `ray start`, such as --num-cpus=8 or --num-gpus=1.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
if [[ -z ${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-} ]]; then
  (umask 077 && ray get-auth-token --generate >/dev/null 2>&1)
fi
exec ray start --head --port="${PORT:-6379}" --include-dashboard=false --disable-usage-stats --block "$@"
