#!/usr/bin/env python3
"""`make bench`: what a scrape, a refresh and a collection cost, beside a file server and two ordinary exporters.

Everything runs on loopback and ends by itself. What is measured shares one CPU with the load; ratios of interleaved
rounds are what carries over to another machine. Figures go to target/bench/results.json and, as tables, to standard
output; `--write` also puts them into BENCHMARKS.md and the README's chart.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no litter among the sources

from harness import collections, machine, publish, refreshes, report, scrapes, starts  # noqa: E402
from harness.servers import ROOT, Bench  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--exporter", default=ROOT / "target/release/lightfi-exporter", help="the program to measure")
    add("--simulator", help="the program whose `simulate` is the cloud (default: the same)")
    add("--rust-peer", default=ROOT / "target/peers/release/ordinary-rust-peer")
    add("--refresh", help="the program of benches/refresh.rs (default: built by cargo where it is needed)")
    add("--quick", action="store_true", help="fewer and shorter rounds, without the Python peer")
    add("--only", default=",".join(PARTS), help="comma-separated parts of: " + ", ".join(PARTS))
    add("--sizes", help="comma-separated numbers of sensors for the scrapes")
    add("--encodings", default=",".join(scrapes.ENCODINGS))
    add("--peers", help="comma-separated: nginx, rust, python")
    add("--rounds", type=int)
    add("--seconds", type=float)
    add("--write", action="store_true", help="a whole run's figures into BENCHMARKS.md and benches/figures")
    add("--again", type=Path, metavar="RESULTS.json", help="measure nothing: print, and --write, these")
    add("--output", type=Path, default=ROOT / "target/bench/results.json")
    options = parser.parse_args()
    whole = not options.quick and set(options.only.split(",")) == set(PARTS)
    if options.write and not whole:
        parser.error("--write is for a whole run: without --quick and --only")
    return options


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
        options.rounds or (3 if options.quick else 4),
        options.seconds or (1 if options.quick else 2),
        tell,
    )


def measure_refresh(bench, options):
    sizes = {100: 50, 1000: 15, 10000: 3}
    tell("refreshes without network")
    return {size: refreshes.without_network(bench, options.refresh, size, times) for size, times in sizes.items()}


def built_refresh():
    command = ["cargo", "bench", "--locked", "--profile", "budget", "--no-run", "--bench", "refresh"]
    said = subprocess.run(
        [*command, "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    artifacts = (json.loads(line) for line in said.stdout.splitlines() if line.startswith("{"))
    return next(made["executable"] for made in artifacts if made.get("target", {}).get("name") == "refresh")


def measure_beside(bench, options):
    return refreshes.scrape_beside(bench, 10000, 3, 2 if options.quick else 3, tell)


def measure_memory(bench, options):
    sizes = (100, 1000) if options.quick else (100, 1000, 10000)
    return {size: refreshes.memory(bench, size, by_location=False, refreshes=3, tell=tell) for size in sizes}


def measure_growth(bench, options):
    sizes = (10, 100, 1000, 10000) if options.quick else (10, 100, 1000, 10000, 100000)
    return {size: refreshes.growth(bench, size, refreshes=6 if size <= 10000 else 3, tell=tell) for size in sizes}


def measure_collections(bench, options):
    figures = collections.measure(bench, 10000, 1 if options.quick else 3, tell)
    return figures | {"many_objects": collections.many_objects(bench, 100000, tell)}


def measure_starts(bench, options):
    return starts.measure(bench, 5 if options.quick else 15, tell)


# What is held against a figure, not another server, goes first: minutes of load make some machines slower.
PARTS = {
    "starts": measure_starts,
    "collections": measure_collections,
    "beside": measure_beside,
    "memory": measure_memory,
    "scrapes": measure_scrapes,
    "refresh": measure_refresh,
    "growth": measure_growth,
}
BEGUN = time.monotonic()


def main():
    options = arguments()
    # So that the children are ended on the way out, whoever ends this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if options.again:
        results = json.loads(options.again.read_text())
    else:
        results = measure(options)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")
        tell(f"done; figures in {options.output}")
        # With the keys that a file gives, whether it was read or written.
        results = json.loads(options.output.read_text())
    print(report.text(results))
    if options.write:
        publish.write(ROOT, results)


def measure(options):
    results = {"machine": machine.description()}
    if "refresh" in options.only.split(",") and not options.refresh:
        # Now, as nothing is measured beside a compiler. What it has heated cools down.
        options.refresh = built_refresh()
        time.sleep(30)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        # nginx's worker is another user where this is root.
        Path(directory).chmod(0o755)
        programs = options.exporter, options.simulator or options.exporter, options.rust_peer
        with Bench(directory, *programs) as bench:
            for part in options.only.split(","):
                results[part] = PARTS[part](bench, options)
    return results


if __name__ == "__main__":
    main()
