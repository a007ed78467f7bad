"""Several runs from one set of settings, one per seed and fold."""

from __future__ import annotations

from dataclasses import dataclass

from tandem.protocol.settings import FOLD_SPLITS, Settings


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """One of the runs."""

    seed: int
    """Value of `seed`."""
    fold: int | None
    """Value of `data.fold`; None without cross-validation."""

    @property
    def options(self) -> list[str]:
        """Words of the command line that select this run."""
        fold = [] if self.fold is None else ["--data.fold", str(self.fold)]
        return ["--seeds", "null", "--seed", str(self.seed), *fold]

    @property
    def title(self) -> str:
        """Name for people: seed 1, fold 2."""
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


def repeats_of(settings: Settings) -> tuple[Repeat, ...]:
    """One run per entry of `seeds`, and per fold if `data.split` has folds and `data.fold` is not given.

    Returns:
        Empty if the settings are those of a single run.
    """
    data = settings.data
    has_folds = data.split in FOLD_SPLITS
    every_fold = has_folds and data.fold is None
    if settings.seeds is None and not every_fold:
        return ()
    folds = range(data.folds) if every_fold else [data.fold if has_folds else None]
    seeds = [settings.seed] if settings.seeds is None else settings.seeds
    return tuple(Repeat(seed=seed, fold=fold) for seed in seeds for fold in folds)
