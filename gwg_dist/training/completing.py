"""Missing sites of a file of points filled in by a run's model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from gwg_dist.data import DiscreteData
from gwg_dist.evaluation.baselines import commonest, judge, logistic
from gwg_dist.evaluation.completion import MISSING, ChainSettings, Completion, complete, without_blanks
from gwg_dist.pictures import save_filled
from gwg_dist.samplers import Target
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import console, make_progress, say, track
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.scoring import check_out, fresh_file, points_of, write_csv

WHAT = ("mode", "samples", "marginals")
SWEEPS, LEAST_STEPS, MOST_STEPS = 20, 500, 5000
SHOWN_LINES, SHOWN_PICTURES = 4, 24
LEAST_SIDE = 4  # of what is an image


def complete_run(
    run: str,
    file: str,
    what: str,
    out: Path | None,
    mask: str | None,
    hide: float,
    num_chains: int,
    num_steps: int,
    seed: int,
    checkpoint: str,
    device: str | None,
    trust: str,
) -> Path:
    """Fill in missing sites; see ``gwg_dist.complete``. Raises InputError for what cannot be used."""
    if what not in WHAT:
        raise InputError(f"what must be one of {', '.join(WHAT)}, got {what!r}")
    if not 0 <= hide < 1:
        raise InputError(f"hide must lie in [0, 1), got {hide}")
    check_out(out, (".csv",) if what == "marginals" else None)
    loaded = load_run(run, checkpoint, device=device, trust=trust)
    data, module = loaded.data, loaded.module
    check_out(out, (".csv",) if what == "marginals" else data.writes)
    suffix = ".csv" if what == "marginals" else suffix_as(file, data)
    original, names = points_of(data, file, missing_as=MISSING)
    original = original.masked_fill(original == data.blanks(), MISSING)
    target = without_blanks(module.target, data.blanks())
    given = with_holes(original, hide, sites_named(mask, data.site_names()), seed)
    if not bool((given == MISSING).any()):
        raise InputError(f"file: nothing is missing in {file}: --mask=SITES or --hide=0.2 makes holes")
    if not bool((given != MISSING).any()):
        raise InputError(
            f"file: every site of {file} is missing: there is nothing to go by; gwg_dist sample draws points"
        )
    path = fresh_file(out, Path(run), f"completed-{Path(file).stem}", suffix)
    most = int((given == MISSING).sum(1).max())
    steps = num_steps or min(max(SWEEPS * most, LEAST_STEPS), MOST_STEPS)
    try:
        settings = ChainSettings(num_chains, steps)
    except ValueError as error:
        raise InputError(str(error)) from error
    generator = make_generator(seed, "complete", device=module.device)
    with make_progress() as progress, track(progress, "completing", len(given)) as advance:
        found = complete(
            target, given, generator=generator, kernel=module.sampler.annealed(), settings=settings,
            progress=advance,
        )  # fmt: skip
    tell_completion(found, settings)
    write_completion(found, data, path, what, names)
    say(f"{what} of {len(given)} points, written to {path}")
    compare_with_truth(loaded, target, found, original, seed)
    show_completion(found, original, data, path)
    return path


def suffix_as(file: str, data: DiscreteData) -> str:
    """The suffix of a file where its data write such files, else that of words or letters, else that of arrays."""
    known = [suffix for suffix in data.writes if file.lower().endswith(suffix)]
    return max(known, key=len, default=data.beside or ".npz")


def with_holes(codes: Tensor, hide: float, sites: list[int], seed: int) -> Tensor:
    """Codes without these sites, and without a share ``hide`` of the other ones that are there, drawn by ``seed``."""
    given = codes.clone()
    given[:, sites] = MISSING
    there = (given != MISSING).nonzero()
    chosen = there[torch.randperm(len(there), generator=make_generator(seed, "hide"))[: round(hide * len(there))]]
    given[chosen[:, 0], chosen[:, 1]] = MISSING
    return given


def sites_named(mask: str | None, names: list[str]) -> list[int]:
    """Positions of sites named one by one, or as ranges A-B, with commas between. Raises InputError for others."""
    place, found = {name: number for number, name in enumerate(names)}, []
    for part in [] if mask is None else mask.split(","):
        ends = [part] if part in place else re.split(r"(?<!^)-", part, maxsplit=1)
        for end in ends:
            if end not in place:
                raise InputError(f"mask: there is no site {end!r}; they are {names[0]} to {names[-1]}, 3-9 is a range")
        found += range(place[ends[0]], place[ends[-1]] + 1)
    return found


def tell_completion(found: Completion, settings: ChainSettings) -> None:
    """How sites were filled in, and what the chains are worth."""
    holes = torch.bincount(found.cells[:, 0], minlength=len(found.given)) > 0
    exact, by_chains = int((found.exact & holes).sum()), int((~found.exact).sum())
    say(f"{len(found.cells)} missing sites in {int(holes.sum())} points")
    if exact:
        say(f"exact, by enumeration: {exact} points")
    if by_chains:
        inside = ~found.exact
        bad, sizes = int((~found.trusted() & inside).sum()), found.ess[inside & ~found.ess.isnan()]
        worth = f"median {float(sizes.median()):.0f}, least {float(sizes.min()):.0f}" if len(sizes) else "unknown"
        say(
            f"by chains, {settings.num_chains} of {settings.num_steps} steps each: {by_chains} points; effective "
            f"energies a point, where each of its chains moved: {worth}"
        )
        if bad:
            more = f"--num_steps={4 * settings.num_steps} and more chains may help"
            say(
                f"R-hat above 1.1 in {bad} of them: their chains disagree, and so may their marginals; {more}", "yellow"
            )


def write_completion(found: Completion, data: DiscreteData, path: Path, what: str, names: list[str]) -> None:
    """Write points with their most probable sites, or samples, in the format of the data; or a table of marginals."""
    if what == "marginals":
        write_csv(path, ("name", "site", "category", "probability"), marginal_rows(found, data, names))
    elif what == "mode":
        data.write_file(path, found.mode, names)
    else:
        labels = [f"{name} sample {n + 1}" for name in names for n in range(len(found.samples))]
        data.write_file(path, found.samples.transpose(0, 1).flatten(0, 1), labels)


def marginal_rows(found: Completion, data: DiscreteData, names: list[str]) -> Iterable[tuple[str, str, str, float]]:
    """(point, site, category, probability) of every category of every missing site."""
    sites, categories = data.site_names(), data.category_names()
    for (row, site), probs in zip(found.cells.tolist(), found.probs.tolist(), strict=True):
        for name, prob in zip(categories[site], probs, strict=False):
            yield names[row], sites[site], name, prob


def compare_with_truth(loaded: LoadedRun, target: Target, found: Completion, original: Tensor, seed: int) -> None:
    """Print how well hidden cells whose truth is known are foretold, beside what needs no model."""
    truth = original[found.cells[:, 0], found.cells[:, 1]]
    known = truth != MISSING
    if not bool(known.any()):
        return
    cells, truth = found.cells[known], truth[known]
    reference = target.reference or loaded.module.reference
    guesses = {"model": found.probs[known], "commonest category": commonest(reference.probs.cpu(), cells)}
    try:
        train = loaded.data.splits.train
        regression = None if train.is_floating_point() else logistic(
            train, found.given, cells, loaded.module.space.num_categories, seed=seed
        )  # fmt: skip
    except InputError as error:
        say(f"no logistic regression: {error}")
    else:
        if regression is None:
            say("no logistic regression: too many sites and categories, or points that are drawn anew in every batch")
        else:
            barred = regression.masked_fill(reference.probs.cpu()[cells[:, 1]] == 0, 0.0)
            guesses["logistic regression"] = barred / barred.sum(1, keepdim=True)
    table = Table(title=f"{len(cells)} hidden cells", title_justify="left", pad_edge=False)
    for column in ("", "accuracy", "±", "log p(truth), nats"):
        table.add_column(column, justify="right" if column else "left")
    for name, probs in guesses.items():
        guess = judge(probs, truth)
        table.add_row(name, f"{guess.accuracy:.4f}", f"{guess.stderr:.4f}", f"{guess.log_prob:.4f}")
    console.print(table)


def show_completion(found: Completion, original: Tensor, data: DiscreteData, path: Path) -> None:
    """A picture of images beside the file; a few lines of text or sequences."""
    space, names = data.space, data.category_names()
    if len(space.shape) > 1 and min(space.shape[-2:]) >= LEAST_SIDE:
        some, picture = slice(0, SHOWN_PICTURES), path.with_suffix(".png")
        if not picture.exists():
            save_filled(found.given[some], found.samples[0, some], original[some], space, picture)
            say(f"picture, given, completed and original in turn: {picture}")
    elif all(len(name) == 1 and not name.isdecimal() for site in names for name in site):
        for given, sample in list(zip(found.given, found.samples[0], strict=True))[:SHOWN_LINES]:
            for code in (given, sample):
                say("".join("_" if k < 0 else names[site][k] for site, k in enumerate(code.tolist())))
