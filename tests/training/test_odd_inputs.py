"""Whatever is typed, named or read: a mistake is one line and exit code 2, without a traceback, and leaves nothing.

A line of the table is a command line, typed where the files of ``folder`` lie; what follows ``#`` is in the answer.
"""

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import gwg_dist.__main__ as top
from gwg_dist import doctor, evaluate, fit, launch, sample
from gwg_dist.bench import cli as bench
from tests.support.runs import fails, run_fit

VERBS = {"fit": fit.main, "evaluate": evaluate.main, "sample": sample.main, "bench": bench.main, "launch": launch.main,
         "doctor": doctor.main, "gwg_dist": top.main}  # fmt: skip

SETTINGS = r"""
fit --model.nm_steps=3
fit --lr=0.1  # did you mean model.learning_rate?
fit --model.lr=0.1  # did you mean model.learning_rate?
fit --learning_rate=0.1
fit --epochs=3  # did you mean trainer.max_steps?
fit --max_epochs=3  # did you mean trainer.max_steps?
fit --max_steps=3
fit --trainer.max_epochs=3
fit --steps=10
fit --iterations=10  # did you mean trainer.max_steps?
fit --batch_size=10
fit --model.batch_size=10
fit --gpus=1  # did you mean trainer.devices?
fit --device=cpu  # did you mean trainer.accelerator?
fit --devices=2x
fit --data.path=x.npz  # a setting of Alignment or Arrays or Images
fit --path=good.npz
fit --seeed=3
fit --trainer.max_step=3
fit --trainer.max_steps=0
fit --trainer.max_steps=-1
fit --trainer.max_steps=1.5
fit --trainer.max_steps=many
fit --trainer.max_steps=
fit --max_minutes=0  # max_minutes must be positive
fit --max_minutes=-1
fit --max_minutes=soon
fit --model.learning_rate=autto
fit --trainer.max_time=soon
fit --trainer.max_time=-1
fit --trainer.gradient_clip_val=-1  # trainer.gradient_clip_val must not be negative, got -1
fit --trainer.gradient_clip_val=nan
fit --trainer.gradient_clip_algorithm=cube
fit --trainer.log_every_n_steps=-1
fit --trainer.devices=0
fit --trainer.devices=-2
fit --trainer.devices=99999
fit --trainer.accelerator=quantum
fit --trainer.accelerator=tpu  # torch_xla
fit --trainer.strategy=dpp
fit --trainer.strategy=fsdp
fit --trainer.precision=bf16-true
fit --trainer.precision=13
fit --trainer.num_nodes=0
fit --trainer.logger=NoSuchLogger
fit --trainer.logger=WandbLogger  # wandb
fit --trainer.logger=MLFlowLogger  # mlflow
fit --trainer.logger=lightning.pytorch.loggers.WandbLogger
fit --trainer.logger=lightning.pytorch.loggers.MLFlowLogger
fit --trainer.callbacks=NoSuch
fit --trainer.profiler=none
fit --trainer.detect_anomaly=maybe
fit --trainer.benchmark=7
fit --trainer.plugins=none
fit --model.num_steps=many
fit --model.num_steps=0
fit --model.num_steps=-3
fit --model.num_steps=1e30
fit --model.num_steps=2.5
fit --model.learning_rate=-1
fit --model.learning_rate=0
fit --model.learning_rate=nan
fit --model.learning_rate=inf
fit --model.learning_rate=fast
fit --model.warmup_iterations=-1
fit --model.smoothing=0
fit --model.smoothing=2
fit --model.smoothing=nan
fit --model.backend=compield
fit --model.optimizer=Adm
fit --model.optimizer=os.system
fit --model.optimizer=torch.nn.Linear
fit --model.energy=MPLEnergy
fit --model.energy=
fit --model.energy=Energy
fit --model.energy=GWG  # it is one for model.sampler
fit --model.energy=gwg_dist.energies
fit --model.energy=mine.Energy
fit --model.energy=MLPEnergy --model.energy.num_hidden=0
fit --model.energy=MLPEnergy --model.energy.num_hidden=-1
fit --model.energy=MLPEnergy --model.energy.num_hidden=999999999999  # MLPEnergy does not fit into memory
fit --model.energy=MLPEnergy --model.energy.num_layers=0
fit --model.energy.width=3  # model.energy: settings of a class need its name beside them
fit --model.energy=RBMEnergy --model.energy.width=3
fit --model.sampler=BlockGibbs --model.energy=MLPEnergy  # BlockGibbs needs an energy of pairs
fit --model.sampler=DULA  # a run estimates its likelihood
fit --model.sampler=DMALA --model.sampler.step_size=0  # step_size must be positive and finite
fit --model.sampler=DMALA --model.sampler.scales=[1,2]  # scales must hold one number for each of the 64 sites
fit --model.sampler=ACS --model.sampler.step_size_min=2  # step_size_min must be at most step_size_max
fit --model.sampler=gibs
fit --model.sampler=MLPEnergy  # it is one for model.energy
fit --model.sampler.temperature=-1
fit --model.sampler.temperature=inf
fit --model.sampler.temperature=hot
fit --model.sampler.balancing=cubic
fit --model.chains=Nothing
fit --model.chains.size=50
fit --model.chains.size=0
fit --model.chains.init=zeros
fit --model.chains.restart_prob=2
fit --model.chains.restart_prob=nan
fit --model.objective=MSE
fit --model=nosuch
fit --model.sampler=nosuch.yaml
fit --evaluation=nosuch
fit --data=MNIST2
fit --data=
fit --data=Digits3
fit --data.batch_size=0
fit --data.batch_size=-5
fit --data.batch_size=2000
fit --data.batch_size=half
fit --data.binarization=grey
fit --data=Arrays
fit --evaluation.schedule=cubic
fit --evaluation.every=-1
fit --evaluation.num_chains=1
fit --evaluation.num_chains=0
fit --evaluation.num_temperatures=0
fit --evaluation.final_temperatures=0
fit --evaluation.final_temperatures=-2
fit --ema.decay=1
fit --ema.decay=-0.1
fit --ema.decay=nan
fit --guard.max_gap=-1
fit --guard.max_gap=nan
fit --guard.check_every=0
fit --adaptation.warmup=-1
fit --adaptation.warmap=100
fit --seed=-1
fit --seed=4294967296
fit --seed=x
fit --seed=1.5
fit --num_threads=0
fit --num_threads=-1
fit --checkpoint_every=0
fit --checkpoint_every=-1
fit --pictures_every=-1
fit --join_seconds=0
fit --join_seconds=-1
fit --join_seconds=nan
fit --run_dir=  # run_dir must be a path, got an empty one
fit --run_dir=file
fit --run_dir=file/run
fit --run_dir=run
fit --run_dir=/proc/nothing
fit --run_dir=/dev/null
fit --ckpt_path=
fit --ckpt_path=none.ckpt
fit --ckpt_path=other.ckpt
fit --ckpt_path=list.ckpt
fit --ckpt_path=module.ckpt
fit --ckpt_path=good.npz
fit --ckpt_path=run
fit --resume=none
fit --resume=
fit --resume=file
fit --resume=noconfig
fit --resume=badckpt
fit --resume=badcfg
fit --resume
fit --config
fit --config=
fit --config=nosuch
fit --config=none.yaml
fit --config=folder.npz
fit --config=list.yaml
fit --config=word.yaml
fit --config=number.yaml
fit --config=open.yaml
fit --config=tab.yaml
fit --config=key.yaml
fit --config=top.yaml
fit --config=tag.yaml
fit --config=intkey.yaml
fit --config=null.yaml
fit --config=nest.yaml
fit --config=self.yaml
fit --config=val.yaml
fit --config=multi.yaml
fit --config=date.yaml
fit --config=inf.yaml
fit --config=nan.yaml
fit --
fit ---
fit -x
fit extra
fit --model
fit --model.energy
fit '='
fit --=3
fit --print_config=what
fit '--model.energy={"class_path":"MLPEnergy","init_args":{"num_hiden":3}}'
fit --model.energy={
fit '--trainer={"max_steps":"x"}'
fit --model.sampler=Gibbs --model.sampler.temperature=1
fit --config=empty.yaml --seed=-1
fit --resume=nockpt --seed=-1
"""

DATA = """
one.npz
flat.npz
float.npz
nan.npz
neg.npz
big.npz
str.npz
two.npz
empty.npz
none.npz
nosites.npz
cplx.npz
obj.npz
torn.npz
text.npz
zero.npz
folder.npz
nothing.npz
huge.npy
file
''
.
good.txt
/dev/null
odd.npz --data.train=x --data.test=y
good.npz --data.train=z
good.npz --data.weights=z
weights.npz --data.train=x --data.weights=w
weights.npz --data.train=x --data.weights=s
weights.npz --data.train=x --data.weights=z
weights.npz --data.train=x --data.weights=n
weights.npz --data.train=x --data.weights=t
good.npz --data.num_categories=1
good.npz --data.num_categories=0
good.npz --data.num_categories=-1
good.npz --data.held_out=0
good.npz --data.held_out=0.9
good.npz --data.held_out=nan
good.npz --data.batch_size=500
good.npz --data.num_categories=9999999
"""

OTHERS = """
evaluate
evaluate none
evaluate ''
evaluate file
evaluate noconfig
evaluate nockpt
evaluate badckpt
evaluate badcfg
evaluate run --checkpoint=newest
evaluate run --checkpoint=other.ckpt
evaluate run --checkpoint=
evaluate run --num_chains=1
evaluate run --num_chains=many
evaluate run --num_temperatures=0
evaluate run --num_temperatures=99999999999999
evaluate run --schedule=cubic
evaluate run --device=quantum
evaluate run --device=cuda:77
evaluate run --device=
evaluate run --num_chain=3
evaluate run extra
sample
sample none
sample run --num=0
sample run --num=-1
sample run --num=many
sample run --num=999999
sample run --num_steps=-1
sample run --start=noise
sample run --start=reference --num=9999999999999
sample run --out=x.txt
sample run --out=file/x.npz
sample run --out=
sample run --seed=x
sample run --device=quantum
sample run --nmu=3
sample run --checkpoint=module.ckpt
bench --only=nothing
bench --backend=fast
bench --onyl=3
bench extra
launch --nodes=0
launch --gpus=x
launch --nonsense
launch -- --model.nm_steps=3
launch --submit=maybe
doctor --nonsense
doctor extra
gwg_dist fitt
gwg_dist ''
gwg_dist --nope
gwg_dist FIT
gwg_dist fit --seed=x
fit --data=MNIST --data.root=nowhere --data.rot=3
fit --data=MNIST --data.root=file
fit --data=IsingSamples --data.num_steps=0
fit --data=IsingSamples --data.num_steps=-1
fit --data=Arrays --data.path=good.npz --data.batch_size=10 --model.energy=ResNetEnergy
"""

LONG = [["fit", "--run_dir", "x" * 300], ["fit", "--run_dir", "a/" * 3000], ["fit", "--run_dir=a\0b"],
        ["fit", "--ckpt_path", "x" * 5000]]  # fmt: skip


def cases(table: str, prefix: str = "") -> list:
    found = []
    for line in table.strip().splitlines():
        typed, _, expected = line.partition("  # ")
        found.append(pytest.param(shlex.split(prefix + typed), expected, id=typed[:60]))
    return found


ARRAYS = "fit --data=Arrays --data.batch_size=10 --model.energy=RBMEnergy --data.path="
CASES = [
    *cases(SETTINGS),
    *cases(DATA, ARRAYS),
    *cases(OTHERS),
    *[pytest.param(line, "must be a path", id=f"{line[1][:12]}-{number}") for number, line in enumerate(LONG)],
]
YAML = {
    "empty": "", "list": "- 1\n- 2\n", "word": "hello", "number": "3\n", "open": "model: [\n",
    "tab": "model:\n\tnum_steps: 3\n", "key": "model:\n  nm_steps: 3\n", "top": "modle:\n  num_steps: 3\n",
    "tag": "model: !!python/object/apply:os.system ['ls']\n", "intkey": "3: 4\n", "null": "model: null\n",
    "nest": "model:\n  energy:\n    class_path: MLPEnergy\n    init_args: 3\n", "self": "config: self.yaml\n",
    "val": "seed: [1, 2]\n", "multi": "seed: 1\n---\nseed: 2\n", "date": "seed: 2020-01-01\n",
    "inf": "model:\n  learning_rate: .inf\n", "nan": "model:\n  learning_rate: .nan\n",
}  # fmt: skip


def write_arrays() -> None:
    x = np.random.default_rng(0).integers(0, 2, (40, 6))
    numbers = np.arange(240).reshape(40, 6)
    arrays = {
        "good": x, "one": x[:1], "flat": x[:, 0], "float": x + 0.5, "nan": np.where(x > 0, np.nan, 0.0),
        "neg": numbers % 5 - 2, "big": numbers * 2**40, "str": np.array([["a", "b"]] * 5), "none": x[:0],
        "nosites": x[:, :0], "cplx": x * 1j, "obj": np.array([[{}, 1]] * 5, dtype=object),
    }  # fmt: skip
    for name, array in arrays.items():
        np.savez(f"{name}.npz", x=array)
    np.savez("two.npz", a=x, b=x)
    np.savez("empty.npz")
    np.savez("odd.npz", x=x, y=x[:, :3])
    np.savez("weights.npz", x=x, w=-np.ones(40), s=np.ones(3), z=np.zeros(40), n=np.full(40, np.nan), t=["a"] * 40)
    Path("torn.npz").write_bytes(Path("good.npz").read_bytes()[:200])
    Path("text.npz").write_text("hello")
    Path("zero.npz").write_text("")
    Path("folder.npz").mkdir()
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    Path("huge.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command lines are typed: odd files, a good run, and runs that have lost something."""
    place = tmp_path_factory.mktemp("odd")
    before = Path.cwd()
    os.chdir(place)
    run_fit(Path("run"), "--trainer.max_steps=2", "--evaluation.every=1", "--pictures_every=0")
    for name in ("noconfig", "nockpt", "badckpt", "badcfg"):
        shutil.copytree("run", name)
    Path("noconfig/config.yaml").unlink()
    Path("badcfg/config.yaml").write_text("model: [\n")
    for name in ("best.ckpt", "last.ckpt"):
        Path("nockpt", name).unlink()
        Path("badckpt", name).write_bytes(b"nonsense")
    torch.save({"a": 1}, "other.ckpt")
    torch.save([1], "list.ckpt")
    torch.save(torch.nn.Linear(1, 1), "module.ckpt")
    Path("file").write_text("")
    for name, text in YAML.items():
        Path(f"{name}.yaml").write_text(text)
    write_arrays()
    os.chdir(before)
    return place


def listing(place: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_size if path.is_file() else 0) for path in place.rglob("*")}


def test_there_are_many() -> None:
    assert len(CASES) >= 150


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_one_line_and_nothing_left(
    line: list[str], expected: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = listing(folder)
    verb, *args = line
    message = fails(VERBS[verb], args, capsys)
    assert expected in message
    assert len(message) < 700
    assert "collections.abc" not in message, "what the parser's library calls its types"
    assert listing(folder) == before
