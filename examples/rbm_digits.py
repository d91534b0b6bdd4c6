"""Train a restricted Boltzmann machine on handwritten digits with Lightning's Trainer, from Python.

The command line adds checkpoints, resuming, averaged weights and pictures to the same objects. Expect a test
log-likelihood of about -20 nats after 1,000 iterations, five nats above that of the reference, which knows the mean of
each pixel alone.
"""

from __future__ import annotations

import logging
import warnings

import torch
from lightning.pytorch import Trainer, seed_everything

from gwg_dist.callbacks import DivergenceGuard
from gwg_dist.data import Digits
from gwg_dist.energies import RBMEnergy
from gwg_dist.evaluation import AISSettings, assess
from gwg_dist.module import EBMModule
from gwg_dist.samplers import GWG


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    data = Digits(batch_size=100)
    module = EBMModule(RBMEnergy(data.space, num_hidden=64), GWG(), num_steps=10, learning_rate=3e-3)
    trainer = Trainer(
        max_steps=1000,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DivergenceGuard()],
    )
    trainer.fit(module, datamodule=data)

    settings, generator = AISSettings(num_chains=200, num_temperatures=1000), torch.Generator().manual_seed(0)
    splits = {"test": (data.splits.test, None)}
    assessment = assess(module.target, module.sampler, splits, settings, generator=generator)
    test = assessment.likelihoods["test"]
    print(f"test log-likelihood {test.mean:.2f} ± {test.stderr:.2f} nats, reference {assessment.reference['test']:.2f}")
    print(f"effective AIS chains {assessment.estimate.ess:.0f} of {len(assessment.estimate.log_weights)}")


if __name__ == "__main__":
    main()
