#!/usr/bin/env python3
"""Compares the cost of scrapes, refreshes and collections with a file server and two ordinary exporters.

Everything runs on loopback and ends automatically. The measured server shares one CPU with the load generator, and servers
are measured in turns, so ratios carry over to other machines. Results go to target/bench/results.json and, as tables, to
standard output; `--write` also writes them into BENCHMARKS.md and draws its figures.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ among the sources

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


def progress(text):
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
        progress,
    )


def measure_refresh(bench, options):
    sizes = {100: 50, 1000: 15, 10000: 3}
    progress("refreshes without network")
    return {size: refreshes.without_network(bench, options.refresh, size, times) for size, times in sizes.items()}


def built_refresh():
    command = ["cargo", "bench", "--locked", "--profile", "budget", "--no-run", "--bench", "refresh"]
    said = subprocess.run(
        [*command, "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    artifacts = (json.loads(line) for line in said.stdout.splitlines() if line.startswith("{"))
    return next(made["executable"] for made in artifacts if made.get("target", {}).get("name") == "refresh")


def measure_during_refreshes(bench, options):
    return refreshes.scrape_during_refreshes(bench, 10000, 3, 2 if options.quick else 3, progress)


def measure_memory(bench, options):
    sizes = (100, 1000) if options.quick else (100, 1000, 10000)
    return {size: refreshes.memory(bench, size, by_location=False, refreshes=3, progress=progress) for size in sizes}


def measure_growth(bench, options):
    sizes = (10, 100, 1000, 10000) if options.quick else (10, 100, 1000, 10000, 100000)
    return {size: refreshes.growth(bench, size, refreshes=6 if size <= 10000 else 3, progress=progress) for size in sizes}


def measure_collections(bench, options):
    figures = collections.measure(bench, 10000, 1 if options.quick else 3, progress)
    return figures | {"many_objects": collections.many_objects(bench, 100000, progress)}


def measure_starts(bench, options):
    return starts.measure(bench, 5 if options.quick else 15, progress)


# Absolute measurements go first: minutes of load make some machines slower.
PARTS = {
    "starts": measure_starts,
    "collections": measure_collections,
    "during_refreshes": measure_during_refreshes,
    "memory": measure_memory,
    "scrapes": measure_scrapes,
    "refresh": measure_refresh,
    "growth": measure_growth,
}
BEGUN = time.monotonic()


def main():
    options = arguments()
    # Run the clean-up that ends the child processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if options.again:
        results = json.loads(options.again.read_text())
    else:
        results = measure(options)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")
        progress(f"done; figures in {options.output}")
        # JSON turns the keys into strings, as when the file is read.
        results = json.loads(options.output.read_text())
    print(report.text(results))
    if options.write:
        publish.write(ROOT, results)


def measure(options):
    results = {"machine": machine.description()}
    if "refresh" in options.only.split(",") and not options.refresh:
        # Build before measuring, and let the machine cool down.
        options.refresh = built_refresh()
        time.sleep(30)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        # When run as root, nginx's worker has another user.
        Path(directory).chmod(0o755)
        programs = options.exporter, options.simulator or options.exporter, options.rust_peer
        with Bench(directory, *programs) as bench:
            for part in options.only.split(","):
                results[part] = PARTS[part](bench, options)
    return results


if __name__ == "__main__":
    main()
