"""Several runs from one set of settings: a seed and a fold each."""

from __future__ import annotations

from dataclasses import dataclass

from tandem.protocol.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """One of the runs."""

    seed: int
    fold: int | None
    """None where the split is no cross-validation."""

    @property
    def options(self) -> list[str]:
        """What makes a single run of the settings, as words of the command line."""
        fold = [] if self.fold is None else ["--data.fold", str(self.fold)]
        return ["--seeds", "null", "--seed", str(self.seed), *fold]

    @property
    def title(self) -> str:
        """For people: seed 1, fold 2."""
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


def repeats_of(settings: Settings) -> tuple[Repeat, ...]:
    """A run for each of `seeds`, and for each fold where `data.split` is folds and `data.fold` is not given.

    Returns:
        None of them where the settings are those of a single run.
    """
    data = settings.data
    every_fold = data.split == "folds" and data.fold is None
    if settings.seeds is None and not every_fold:
        return ()
    folds = range(data.folds) if every_fold else [data.fold if data.split == "folds" else None]
    seeds = [settings.seed] if settings.seeds is None else settings.seeds
    return tuple(Repeat(seed=seed, fold=fold) for seed in seeds for fold in folds)
