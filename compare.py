"""Compares the runs of an MLflow experiment: backbones, ways of training, and frameworks.

    python compare.py --experiment demo --html report.html

prints a recommendation and the main table, writes all tables to comparison/ as Markdown, CSV and LaTeX, and writes
tables and figures to one page. It needs neither PyTorch nor Keras.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from dataclasses import replace
from pathlib import Path

from tandem.errors import UserError, run_program
from tandem.evaluation.margin import MARGIN, checked_margin
from tandem.protocol.settings import TrackingSettings


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py",
        description="Compares the runs of an MLflow experiment: on the terminal, in tables, figures\nand on one page.",
        epilog="examples:\n"
        "  python compare.py --experiment flowers --html report.html\n"
        "  python compare.py --experiment flowers --register flowers",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--experiment",
        "--tracking.experiment",
        dest="experiment",
        default=TrackingSettings().experiment,
        help="MLflow experiment whose runs are compared (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking.uri",
        dest="tracking_uri",
        metavar="URI",
        help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, or else the sqlite file mlflow.db in this folder)",
    )
    # The name in version 0.2.0 and earlier.
    parser.add_argument("--tracking_uri", dest="tracking_uri", help=argparse.SUPPRESS)
    parser.add_argument("--all", action="store_true", help="print all tables, not only the main one")
    parser.add_argument(
        "--scores",
        nargs="+",
        default=(),
        metavar="NAME",
        help="further columns of the main table, such as balanced_accuracy, cohen_kappa, matthews_correlation, "
        "roc_auc_macro, average_precision_macro; the table of all scores has them anyway",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("comparison"),
        help="folder for the tables: each as .md, .csv and .tex, and all in tables.md (default: %(default)s)",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write tables and figures to this page, which needs no network, and log it to the experiment in MLflow",
    )
    parser.add_argument(
        "--figures",
        choices=("png", "svg", "pdf"),
        help="write the figures to the folder figures in --output in this format; needs Chrome or Chromium",
    )
    parser.add_argument(
        "--register",
        metavar="NAME",
        help="register the recommended model under this name in MLflow's model registry, with the alias recommended "
        "and the reasons in its description",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN,
        help="largest difference in accuracy at which two rows count as equally good; they are called equivalent if "
        "the test images show that they differ by less (default: %(default)s, one point)",
    )
    parser.add_argument(
        "--published",
        metavar="NAME",
        help="show the results of a document beside these runs and judge its claims: birds, cifar100_lightweight, "
        "eight_datasets, imagenette or mobilenet_vs_efficientnetv2; works without any runs, unless --html, --figures "
        "or --register is given",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    margin = checked_margin(arguments.margin)
    # After parsing, so that --help does not wait for MLflow, which takes seconds to import.
    from tandem.comparison.comparison import compare_runs
    from tandem.comparison.group_tables import checked_scores
    from tandem.comparison.output import print_comparison, print_published, write_comparison_tables
    from tandem.comparison.predictions import read_predictions
    from tandem.comparison.record import describe_experiment
    from tandem.published.documents import read_document
    from tandem.published.tables import published_tables
    from tandem.tracking.reader import NoRuns, metric_history, read_runs

    more_scores = checked_scores(arguments.scores)
    document = None if arguments.published is None else read_document(arguments.published)
    # Keeps the garbage collector from walking the imported libraries again, which takes a second for 1,000 runs.
    gc.freeze()
    no_runs: NoRuns | None = None
    try:
        runs = read_runs(arguments.tracking_uri, arguments.experiment)
    except NoRuns as error:
        runs, no_runs = [], error
    except UserError:
        if document is not None:  # which needs no runs
            print_published(published_tables(document, ()), None)
        raise
    with tempfile.TemporaryDirectory(prefix="tandem-compare-") as name:
        folder = Path(name)
        comparison = compare_runs(
            runs,
            lambda configurations: read_predictions(configurations, folder),
            margin=margin,
            more_scores=more_scores,
        )
        if document is not None:
            comparison = replace(comparison, published=published_tables(document, comparison.groups, metric_history))
        if not comparison.groups and no_runs is None:
            no_runs = NoRuns(
                f"experiment {arguments.experiment!r} has no finished run with results on test images; "
                "wait for one to finish, or start one with train_torch.py or train_keras.py"
            )
        print_comparison(comparison, arguments.output, all_tables=arguments.all)
        if no_runs is not None and document is None:
            raise no_runs
        write_comparison_tables(comparison, arguments.experiment, arguments.output)
        if no_runs is None:
            describe_experiment(comparison, runs, arguments.experiment)
        if no_runs is not None and (arguments.html or arguments.figures or arguments.register):
            raise no_runs
        if arguments.register is not None:
            from tandem.comparison.registration import register_recommended

            print(register_recommended(comparison, arguments.experiment, arguments.register))
        if no_runs is not None:
            print(no_runs)
        elif arguments.html or arguments.figures:
            from tandem.comparison.drawing import draw_comparison  # imports plotly

            draw_comparison(
                comparison,
                runs,
                experiment=arguments.experiment,
                page=arguments.html,
                figures=arguments.output / "figures",
                kind=arguments.figures,
                folder=folder,
            )


if __name__ == "__main__":
    run_program("compare.py", main)
