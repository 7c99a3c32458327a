"""`loadgen hdr`: records as HdrHistogram's own files."""

from __future__ import annotations

from pathlib import Path

import click

from loadgen.cli.ending import one_sentence
from loadgen.cli.options import debug as with_debug
from loadgen.hdr_files import export_hdr
from loadgen.result import load_result


@click.command("hdr")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="The folder.", show_default=True)
@with_debug
def histograms(debug: bool, records: tuple[Path, ...], out: Path) -> None:
    """Write .hgrm and .hlog of each operation of a run; several RECORDS of one configuration are added up."""
    with one_sentence(debug):
        for path in export_hdr([load_result(record) for record in records], out):
            click.echo(f"written: {path}")
