#!/usr/bin/env python3
"""`make bench`: what a scrape, a refresh and a collection cost, beside a file server and two ordinary exporters.

Everything runs on loopback and ends by itself. What is measured shares one CPU with the load; ratios of interleaved
rounds are what carries over to another machine. Figures go to target/bench/results.json and, as tables, to standard
output; `--write` also puts them into BENCHMARKS.md and the README's chart.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from harness import machine, report, scrapes
from harness.servers import ROOT, Bench


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--exporter", default=ROOT / "target/release/lightfi-exporter", help="the program to measure")
    add("--simulator", help="the program whose `simulate` is the cloud (default: the same)")
    add("--rust-peer", default=ROOT / "target/peers/release/ordinary-rust-peer")
    add("--quick", action="store_true", help="fewer and shorter rounds, without the Python peer")
    add("--only", default=",".join(PARTS), help="comma-separated parts of: " + ", ".join(PARTS))
    add("--sizes", help="comma-separated numbers of sensors for the scrapes")
    add("--encodings", default=",".join(scrapes.ENCODINGS))
    add("--peers", help="comma-separated: nginx, rust, python")
    add("--rounds", type=int)
    add("--seconds", type=float)
    add("--output", type=Path, default=ROOT / "target/bench/results.json")
    return parser.parse_args()


def tell(text):
    print(f"[{time.monotonic() - BEGUN:5.0f} s] {text}", file=sys.stderr, flush=True)


def measure_scrapes(bench, options):
    sizes = [int(size) for size in options.sizes.split(",")] if options.sizes else scrapes.SIZES
    peers = options.peers or ("nginx,rust" if options.quick else "nginx,rust,python")
    return scrapes.measure(
        bench,
        sizes,
        options.encodings.split(","),
        peers.split(","),
        options.rounds or (3 if options.quick else 5),
        options.seconds or (1 if options.quick else 2),
        tell,
    )


PARTS = {"scrapes": measure_scrapes}
BEGUN = time.monotonic()


def main():
    options = arguments()
    # So that the children are ended on the way out, whoever ends this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    results = {"machine": machine.description()}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        # nginx's worker is another user where this is root.
        Path(directory).chmod(0o755)
        programs = options.exporter, options.simulator or options.exporter, options.rust_peer
        with Bench(directory, *programs) as bench:
            for part in options.only.split(","):
                results[part] = PARTS[part](bench, options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(report.text(results))
    tell(f"done; figures in {options.output}")


if __name__ == "__main__":
    main()
