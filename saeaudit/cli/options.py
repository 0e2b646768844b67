"""Options that commands share: the same name, help and check everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from saeaudit.errors import AuditError
from saeaudit.escape import LINE, escape
from saeaudit.vocabulary import Format

if TYPE_CHECKING:
    from saeaudit.records import ErrorRecord

INPUT, POLICY, OUTPUT, RUN = "What is read", "What must hold", "What is written", "How it runs"
GROUPS = (INPUT, POLICY, OUTPUT, RUN)
"""Headings of the help, under which options stand that several commands have."""

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET",
        help="A weight file, an SAE's folder, a folder of such folders, "
        "[hf://]owner/repo[@revision][/path], release[/sae_id], Neuronpedia's model/source, the "
        "address of its page there or on the hub, or `sample` / `sample/stitched`; with #N behind "
        "it layer N of a cross-layer decoder.",
    ),
]
Saved = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE", help="Records of scan, mediators and score; - for standard input."
    ),
]
Sae = Annotated[
    list[str] | None,
    typer.Option(
        "--sae",
        metavar="GLOB",
        help="Only SAEs whose id matches; repeatable.",
        rich_help_panel=INPUT,
    ),
]
Assume = Annotated[
    str | None,
    typer.Option(
        "--assume", metavar="WORDS",
        help="What plain files leave open: centred or uncentred; relu, jumprelu, linear, topk=K "
        "or pursuit=K.",
        rich_help_panel=INPUT,
    ),
]  # fmt: skip
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE",
        help="Write records here, once complete; - is standard output.",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="D",
        help="auto, cpu, cuda or cuda:N.",
        rich_help_panel=RUN,
    ),
]
Form = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="F[=FILE]",
        show_default=False,
        help=f"What to write, and where if not to -o: {', '.join(get_args(Format))}; repeatable. "
        "[the screen on a terminal without -o, else jsonl]",
        rich_help_panel=OUTPUT,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Thresholds, policy and a release of your own (YAML).",
        rich_help_panel=INPUT,
    ),
]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Fail where a number of the summary does; repeatable.",
        rich_help_panel=POLICY,
    ),
]
ExitZero = Annotated[
    bool,
    typer.Option(
        "--exit-zero", help="Exit 0 although the policy is broken.", rich_help_panel=POLICY
    ),
]
Activations = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Activations [N, d]: a folder of `saeaudit collect` or of files, a file "
        "(.safetensors, .npy, .npz, .pt, .parquet, .arrow) or a glob; repeatable.",
        rich_help_panel=INPUT,
    ),
]
Tokens = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Their texts: a JSON list, or a line each.", rich_help_panel=INPUT
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="S",
        help="Of the draw of activations.",
        rich_help_panel=INPUT,
    ),
]
KeepOutliers = Annotated[
    bool,
    typer.Option(
        "--keep-outliers",
        help="Look at activations of outlying norms (BOS) too.",
        rich_help_panel=INPUT,
    ),
]
Neuronpedia = Annotated[
    str | None,
    typer.Option(
        "--neuronpedia", metavar="MODEL/SOURCE",
        help="Where Neuronpedia has the SAE's explanations and features, where that is not known.",
        rich_help_panel=INPUT,
    ),
]  # fmt: skip
Explanations = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="What features' labels say: a .jsonl or .csv of index and description, an export's "
        "folder, `fetched` or `none`.",
        rich_help_panel=INPUT,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", help="Open no network connection: only what is cached.", rich_help_panel=RUN
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help="Fetch more than 20 GB, or than is free, without asking.", rich_help_panel=RUN
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Nothing but errors on standard error.", rich_help_panel=OUTPUT
    ),
]
NoProgress = Annotated[
    bool,
    typer.Option(
        "--no-progress",
        help="No progress display.",
        rich_help_panel=OUTPUT,
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="A traceback for every error.",
        rich_help_panel=RUN,
    ),
]


def error_line(record: ErrorRecord) -> str:
    """An error record as the one line that people read."""
    return AuditError(record.reason, where=record.sae, hint=record.hint).line()


def say(line: str) -> None:
    """Write one line for people."""
    typer.echo(f"saeaudit: {escape(line, LINE)}", err=True)
