"""The labels of given points under a run's model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from gwg_dist.evaluation.labels import label_probs
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say
from gwg_dist.training.loading import load_run
from gwg_dist.training.scoring import check_out, fresh_file, points_of, write_csv


def classify_run(
    run: str, file: str, site: str | None, out: Path | None, checkpoint: str, device: str | None, trust: str
) -> Path:
    """Classify the points of a file; see ``gwg_dist.classify``. Raises InputError for what cannot be used."""
    check_out(out, (".csv",))
    loaded = load_run(run, checkpoint, device=device, trust=trust)
    data, target = loaded.data, loaded.module.target
    names_of_sites = data.site_names()
    number = chosen_site(names_of_sites, site)
    codes, names = points_of(data, file, missing_as=-1)
    given = codes[:, number].clone()
    codes = torch.where(codes < 0, data.blanks(), codes)  # of a table, a missing cell is a category of its own
    codes[:, number] = 0
    if (codes < 0).any():
        row, column = (codes < 0).nonzero()[0].tolist()
        missing = f"point {names[row]}, site {names_of_sites[column]} is missing"
        raise InputError(f"file: {file}: {missing}; gwg_dist complete fills it in")
    path = fresh_file(out, Path(run), f"labels-{Path(file).stem}", ".csv")
    probs = label_probs(target, codes, number)
    found, labels = probs.argmax(1), data.category_names()[number]
    header = ("name", "given", "label", *(f"p({label})" for label in labels))
    shown = [labels[k] if k >= 0 else "" for k in given.tolist()]
    rows = zip(names, shown, (labels[k] for k in found.tolist()), *probs.T.tolist(), strict=True)
    write_csv(path, header, rows)
    known = given >= 0
    if known.any():
        right, log_p = (found == given)[known].double(), probs[known, given[known]].log()
        accuracy = float(right.mean())
        stderr = math.sqrt(accuracy * (1 - accuracy) / len(right))
        most = torch.bincount(given[known]).max() / len(right)
        say(f"accuracy {accuracy:.3f} ± {stderr:.3f} on {len(right)} points, the commonest label {most:.3f}; "
            f"log p(label | rest) {log_p.mean():.3f} nats", "bold")  # fmt: skip
    say(f"site {names_of_sites[number]}, {len(labels)} labels; {len(codes)} points, written to {path}")
    return path


def chosen_site(names: Sequence[str], site: str | None) -> int:
    """A site from 0 by its name, else by its number from 1; the last one for None. Raises InputError for none."""
    if site is None:
        return len(names) - 1
    if site in names:
        return list(names).index(site)
    if site.isdecimal() and 1 <= int(site) <= len(names):
        return int(site) - 1
    shown = ", ".join(names[:3])
    raise InputError(f"site: {site} is no name ({shown}, ...) and no number from 1 to {len(names)}")
