"""Submit a run to SLURM: write the job script beside its settings and the version of the code, and hand it to sbatch.

python -m gwg_dist.launch --nodes 2 --gpus 8 --time 08:00:00 -- --config configs/experiment/mnist_dynamic.yaml
python -m gwg_dist.launch --gpus 1 --seeds 0-9 -- --run_dir runs/ten
python -m gwg_dist.launch --submit false -- --resume RUN                write RUN/job.sbatch and leave it at that
What follows -- are settings of gwg_dist.fit. A job that is preempted, requeued or reaches its time limit goes on from
its last checkpoint until it is done.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from gwg_dist.tools import trust
from gwg_dist.tools.commands import errors_for_people, expand_option, make_parser
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import quiet, say

SCRIPT, SETTINGS = "job.sbatch", "launched.yaml"
LONGEST_WARNING = 65535

TEMPLATE = r"""#!/usr/bin/env bash
{header}
{setup}
set -uo pipefail
# One task a process. Rank 0 is on the first machine; the port is the job's own.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((15000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"
echo "$(date -Is) job $SLURM_JOB_ID, start ${{SLURM_RESTART_COUNT:-0}}, on $SLURM_JOB_NODELIST"

run={run}
saved() {{ stat -c %Y "$run/last.ckpt" 2>/dev/null || echo 0; }}
before=$(saved)

# A process that has saved and left must not take along those that are about to: no --kill-on-bad-exit.
trap : TERM
srun --kill-on-bad-exit=0 --wait=60 {command} --run_dir="$run" --ckpt_path={checkpoint}
code=$?

case $code in
  0 | 2 | 3) again=no ;; # done, a mistake, diverged
  *) again=yes ;;        # 75: told to stop before it was done; else a process or a machine died
esac
# Not for ever: the third start in a row that saves nothing is the last.
idle=0
[[ $(saved) != "$before" ]] || idle=$(($(cat "$run/.idle" 2>/dev/null || echo 0) + 1))
[[ ! -d $run ]] || echo "$idle" >"$run/.idle"
# A job that was cancelled is no longer RUNNING, and stays away.
job=$SLURM_JOB_ID
[[ -z ${{SLURM_ARRAY_JOB_ID:-}} ]] || job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
if [[ $again == yes && $idle -lt 3 && $(scontrol show job "$job") == *JobState=RUNNING* ]]; then
  echo "$(date -Is) exit code $code, queued again" && scontrol requeue "$job"
fi
exit $code
"""

# Lines of the user's own; what they call may fail inside as it likes.
SETUP = """trap 'echo "setup: exit code $? of: $BASH_COMMAND" >&2; exit 2' ERR
{}
trap - ERR"""


def launch(
    fit: list[str],
    *,
    nodes: int = 1,
    gpus: int = 1,
    processes: int = 1,
    cpus: int = 4,
    time: str = "04:00:00",
    memory: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    constraint: str | None = None,
    seeds: str | None = None,
    name: str = "gwg_dist",
    warning: int = 90,
    setup: str = "",
    container: str = "",
    srun: str = "",
    python: str | None = None,
    submit: bool = True,
) -> Path:
    """Write the job script and submit it; returns the script's path.

    Args:
        fit: settings of gwg_dist.fit.
        nodes: number of machines.
        gpus: GPUs on each machine, with a process for each; 0 for processes without one.
        processes: processes on each machine, where gpus is 0.
        cpus: CPU cores for each process.
        time: limit of a start of the job, D-HH:MM:SS or HH:MM:SS; it is requeued until the run is done.
        memory: memory on each machine, e.g. 64G.
        partition: partition of the cluster.
        account: account to charge.
        qos: quality of service.
        constraint: feature that the machines must have, e.g. a100.
        seeds: an array of runs, one a seed, each in its own folder seed-N: 0-9, or 0,3,7.
        name: name of the job.
        warning: seconds before the limit at which the run is told to save and stop.
        setup: shell lines before the run, e.g. "module load cuda"; one that fails ends the job.
        container: what comes before python, e.g. "apptainer exec --nv image.sif".
        srun: more options of srun.
        python: the interpreter on the machines; this one by default, "python" in a container.
        submit: whether to call sbatch.

    Raises:
        InputError: settings that do not fit, a folder that holds another run, an sbatch that fails or is not there.
    """
    from gwg_dist.tools.provenance import code_version

    check_job(nodes, gpus, processes, cpus, time, warning, seeds, name)
    per_node = gpus or processes
    folder, checkpoint, trusting = resolve(fit, per_node, nodes)
    interpreter = python or ("python" if container else sys.executable)
    settings = (
        f"--config={shlex.quote(str(folder / SETTINGS))}{' --seed=$SLURM_ARRAY_TASK_ID' if seeds else ''}{trusting}"
    )
    text = script(
        {
            "job-name": name, "nodes": nodes, "ntasks-per-node": per_node, "gres": f"gpu:{gpus}" if gpus else None,
            "cpus-per-task": cpus, "mem": memory, "time": time, "signal": f"SIGUSR1@{warning}", "array": seeds,
            "partition": partition, "account": account, "qos": qos, "constraint": constraint,
            "output": f"{str(folder).replace('%', '%%')}/slurm-{'%A_%a' if seeds else '%j'}.out", "chdir": Path.cwd(),
        },
        command=f"{srun} {container} {shlex.quote(interpreter)} -m gwg_dist.fit {settings}",
        run=shlex.quote(str(folder)) + ("/seed-$SLURM_ARRAY_TASK_ID" if seeds else ""), checkpoint=checkpoint,
        setup=setup, comment=" ".join(f"{code_version()}; fit {shlex.join(fit)}".split()),
    )  # fmt: skip
    path = folder / SCRIPT
    path.write_text(text)
    say(f"written: {path}")
    if submit:
        say(submitted(path))
    return path


def check_job(
    nodes: int, gpus: int, processes: int, cpus: int, time: str, warning: int, seeds: str | None, name: str
) -> None:
    """Raise InputError for settings of a job that sbatch would refuse, or would not understand as they are meant."""
    if min(nodes, processes, cpus) < 1 or gpus < 0:
        counts = f"nodes {nodes}, gpus {gpus}, processes {processes}, cpus {cpus}"
        raise InputError(f"nodes, processes and cpus must be positive, gpus not negative, got {counts}")
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", time) or not seconds_of(time):
        raise InputError(f"time must be like 04:00:00 or 2-00:00:00, got {time}")
    if not 0 < warning < seconds_of(time):
        raise InputError(f"warning must be positive and shorter than time ({time}), got {warning} s")
    if warning > LONGEST_WARNING:
        raise InputError(f"warning must be at most {LONGEST_WARNING} s, which is what SLURM takes, got {warning} s")
    if seeds is not None and not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", seeds):
        raise InputError(f"seeds must be like 0-9 or 0,3,7, got {seeds}")
    if name in ("bash", "interactive"):
        raise InputError(f"name: Lightning takes a job called {name} for a shell; choose another")


def seconds_of(time: str) -> int:
    """Seconds of a limit as sbatch reads it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    hours, minutes, seconds = parts if len(parts) == 3 else (0, *parts, 0)[:3]
    return (hours * 60 + minutes) * 60 + seconds


def resolve(fit: list[str], per_node: int, nodes: int) -> tuple[Path, str, str]:
    """Check the settings as fit would and write them; the run's folder, the checkpoint to start from, and ``--trust``.

    Raises InputError, or exits with 2, for a bad setting or a folder that holds another run.
    """
    from gwg_dist.tools.files import make_folder
    from gwg_dist.training.folder import default_folder, find_place, now, resume_arguments
    from gwg_dist.training.living import make_new
    from gwg_dist.training.ranges import check
    from gwg_dist.training.settings import build_parser, instantiate, save_config

    parser = build_parser()
    fit = expand_option(fit, "--resume", resume_arguments)
    config = parser.parse_args([*fit, f"--trainer.devices={per_node}", f"--trainer.num_nodes={nodes}"])
    check(config)
    instantiate(parser, config.clone())  # the run makes its own choices
    if config.run_dir is None:
        config.run_dir = str(make_new(default_folder(config, now()), name="run_dir"))
    place = find_place(config)
    make_folder(place.folder, name="run_dir")
    save_config(parser, config, place.folder / SETTINGS)
    if place.checkpoint is None or place.is_own():
        return place.folder, "last", trust.option_for(config)
    return place.folder, str(Path(place.checkpoint).resolve()), trust.option_for(config)


def script(
    options: dict[str, object], *, command: str, run: str, checkpoint: str = "last", setup: str = "", comment: str = ""
) -> str:
    """The job script.

    Args:
        options: options of sbatch; those that are None are left out, those that are "" have no value.
        command: command for srun, without the folder and the checkpoint.
        run: the folder, as the shell reads it.
        checkpoint: a file, or "last".
        setup: lines before; one that fails ends the job.
        comment: a line above them.
    """
    options = {**options, "requeue": "", "open-mode": "append"}
    lines = []
    for key, value in options.items():
        if value is not None:
            lines.append(f"#SBATCH --{key}" + (f"={shlex.quote(str(value))}" if value != "" else ""))
    if comment:
        lines.append(f"# {comment}")
    return TEMPLATE.format(
        header="\n".join(lines), setup=SETUP.format(setup) if setup else "", command=command.strip(), run=run,
        checkpoint=shlex.quote(checkpoint),
    )  # fmt: skip


def submitted(path: Path) -> str:
    """sbatch's answer. Raises InputError where it refuses, or is not there."""
    try:
        result = subprocess.run(["sbatch", str(path)], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no sbatch here; on a machine of the cluster: sbatch {path}") from error
    if result.returncode:
        raise InputError(f"sbatch refuses {path}: {' '.join(result.stderr.split())}")
    return result.stdout.strip()


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    args = sys.argv[1:] if args is None else args
    cut = args.index("--") if "--" in args else len(args)
    quiet()
    parser = make_parser("python -m gwg_dist.launch", __doc__)
    parser.add_function_arguments(launch, skip={"fit"})
    config = parser.parse_args(args[:cut])
    with errors_for_people():
        launch(args[cut + 1 :], **config.as_dict())


if __name__ == "__main__":
    main()
