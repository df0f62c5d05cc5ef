#!/usr/bin/env python3
"""Checks that nothing grows while everything around the exporter fails for half an hour (`make soak`).

A seed selects faults that are switched on and off in the simulated cloud, which also rotates the refresh token every few
seconds. Two scrapers send requests all the time, as Prometheus and as curl do. After the warm-up, memory, descriptors and
threads must not grow, and no scrape may fail; otherwise the exit code is 1. Samples, figures and the exporter's log go to
target/soak, a table to standard output. Everything runs on loopback and ends automatically.
"""

import argparse
import collections
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True  # no litter among the sources

from harness import figures, load, machine, publish, report  # noqa: E402
from harness.refreshes import Scrapers  # noqa: E402
from harness.servers import ROOT, Bench  # noqa: E402
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as plain  # noqa: E402

# As short as allowed, because leaks happen per collection, request, token or scrape.
INTERVAL = 0.5
TOKEN_LIFETIME = "4s"
# Shorter than the slow faults: a token request that is cancelled just as its answer arrives would lose the rotated token, and
# only a new login could fix that.
API_TIMEOUT = "1s"
SAMPLE_EVERY = 2
# One in this many scrapes is parsed strictly, because the parser is slow.
PARSED_EVERY = 20
# Only a new login ends these faults.
FOR_PERSONS = {"token-revoked", "token-invalid-client"}
# Enough for this building. Longer answers are refused, because their memory could hide a leak.
MOST_BYTES = 256 * 1024
# The time after the warm-up is divided into this many parts, and the smallest sample of each counts: a leak stays, the memory
# of a fault does not.
PARTS = 30

# Limits of the growth per hour: 256 bytes per collection, one descriptor or thread in three minutes.
LEAK_BYTES = 256
MEMORY_LIMIT = LEAK_BYTES * 3600 / INTERVAL
LIMITS = {"anonymous": MEMORY_LIMIT, "resident": MEMORY_LIMIT, "descriptors": 20, "threads": 20}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--exporter", default=ROOT / "target/release/lightfi-exporter", help="the program to watch")
    add("--simulator", help="the program whose `simulate` is the cloud (default: the same)")
    add("--seconds", type=float, default=1800, help="of all (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the faults' order, places and times (default: %(default)s)")
    add("--write", action="store_true", help="the figures and the drawing of memory into BENCHMARKS.md and benches/figures")
    add("--again", type=Path, metavar="RESULTS.json", help="watch nothing: print, and --write, these")
    add("--output", type=Path, default=ROOT / "target/soak")
    options = parser.parse_args()
    # Long enough that every fault comes once, so the peak memory of each is reached.
    options.warm_up = min(360, options.seconds / 2)
    return options


def progress(text):
    print(f"[{time.monotonic() - BEGUN:5.0f} s] {text}", file=sys.stderr, flush=True)


BEGUN = time.monotonic()


class Faults(threading.Thread):
    """Yields one or two faults at a time for some seconds, with pauses; every fault comes before one is repeated."""

    def __init__(self, cloud, exporter_program, seed):
        super().__init__()
        self.cloud = cloud
        self.random = random.Random(seed)
        listing = cloud.configuration.partition("\nsensors:")[2]
        sensors, _, locations = listing.partition("\nlocations:")
        ids = lambda text: re.findall(r'(?:id:|-) "([^"]+)"', text)
        self.sensors, self.locations = ids(sensors), ids(locations)
        self.kinds = known_faults(exporter_program)
        self.count = collections.Counter()
        self.on = []
        self.failure = None
        self.stop = threading.Event()

    def run(self):
        try:
            for kind in itertools.chain.from_iterable(self.decks()):
                self.on.append(self.switch_on(kind))
                self.stop.wait(self.random.uniform(1, 5))
                while self.on and (self.stop.is_set() or len(self.on) > 1 or self.random.random() < 0.7):
                    self.ask("DELETE", self.on.pop(0))
                if self.stop.wait(0 if self.on else self.random.uniform(0, 2)):
                    return
        except Exception as failure:
            self.failure = repr(failure)

    def decks(self):
        while True:
            yield self.random.sample(self.kinds, len(self.kinds))

    def switch_on(self, kind):
        places = ["", "=token", f"={self.random.choice(self.sensors)}", f"={self.random.choice(self.locations)}"]
        if "=" in kind:
            places = [""]
        # Some faults apply only to some routes.
        for place in self.random.sample(places, len(places)):
            if self.ask("PUT", kind + place):
                self.count[kind] += 1
                return kind + place
        raise RuntimeError(f"{kind} can happen nowhere")

    def ask(self, method, fault):
        request = urllib.request.Request(f"http://127.0.0.1:{self.cloud.port}/simulator/faults/{fault}", method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20):
                return True
        except urllib.error.HTTPError as error:
            if error.code == 400:
                return False
            raise


def known_faults(program):
    """Returns the names of the faults, from the error message for an unknown one."""
    said = subprocess.run([program, "simulate", "--fault", "?"], capture_output=True, text=True, timeout=20).stderr
    kinds = re.search(r"known are ([a-z0-9, \n-]+)", said).group(1).replace("\n", " ").split(", ")
    # A token endpoint that fails gets faults of its own, so that it fails as often as the API.
    of_tokens = {"error-500=token", "slow=token", "html=token"}
    return sorted({kind.strip() for kind in kinds} - FOR_PERSONS | of_tokens)


class Check:
    """Checks an answer; now and then with a strict parser."""

    def __init__(self):
        self.parsed = 0
        self.number = itertools.count()

    def __call__(self, answer):
        body = answer.plain()
        if b"\nlightfi_up " not in body or b"\nlightfi_sensor_info{" not in body:
            raise ValueError(f"lightfi_up or lightfi_sensor_info is missing: {body[:200]!r}")
        if next(self.number) % PARSED_EVERY == 0:
            parse = strict if "openmetrics" in answer.type else plain
            names = {family.name for family in parse(body.decode())}
            if "lightfi_sensor_read_success" not in names:
                raise ValueError(f"a parser finds no lightfi_sensor_read_success among {sorted(names)}")
            self.parsed += 1


def is_well(own):
    return own["lightfi_up"] == 1 and own["lightfi_collect_sensors_failed"] == own["lightfi_collect_locations_failed"] == 0


def sample(pid):
    return {
        "minutes": (time.monotonic() - BEGUN) / 60,
        "anonymous": machine.memory(pid, "RssAnon"),
        "resident": machine.memory(pid, "VmRSS"),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
    }


def slope(points):
    """Returns the growth per hour: the median of all pairwise slopes (Theil–Sen), which ignores outliers, and its
    95 % interval (Kendall)."""
    slopes = sorted(
        60 * (later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in itertools.combinations(points, 2)
    )
    count = len(points)
    half = 1.96 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18) / 2
    at = lambda place: slopes[min(max(place, 0), len(slopes) - 1)]
    middle = len(slopes) / 2
    return statistics.median(slopes), at(math.floor(middle - half)), at(math.ceil(middle + half))


def least(samples, what):
    """Returns the smallest sample of each part of the time."""
    size = len(samples) / PARTS
    parts = (samples[round(at * size) : round((at + 1) * size)] for at in range(PARTS))
    return [min(((one["minutes"], one[what]) for one in part), key=lambda point: point[1]) for part in parts if part]


def soak(options, directory):
    with Bench(directory, options.exporter, options.simulator or options.exporter, "") as bench:
        cloud = bench.cloud("--rotate-refresh-tokens", "--token-lifetime", TOKEN_LIFETIME)
        head, _, listing = cloud.configuration.partition("\nsensors:")
        store = f"oauth:\n  token_store: {bench.directory}/token.json\n"
        cloud.configuration = head.replace("oauth:\n", store) + "\nsensors:" + listing
        exporter = bench.exporter(
            cloud,
            "sensors:" + listing,
            cpu=set(machine.AVAILABLE),
            api={"timeout": API_TIMEOUT, "max_response_bytes": MOST_BYTES, "max_concurrency": 8},
            collect={"interval": f"{INTERVAL * 1000:.0f}ms", "stale_after": "1h"},
        )
        faults, check, samples = Faults(cloud, bench.simulator_program, options.seed), Check(), []
        faults.start()
        try:
            with Scrapers(exporter.port, [load.PROMETHEUS, load.PLAIN], check) as scrapers:
                while time.monotonic() - BEGUN < options.seconds and exporter.process.alive() and faults.is_alive():
                    samples.append(sample(exporter.process.pid) | {"faults": list(faults.on)})
                    time.sleep(SAMPLE_EVERY)
                    if len(samples) % 30 == 0:
                        progress(f"{scrapers.scrapes} scrapes, {len(scrapers.failures)} failed; {samples[-1]}")
        finally:
            faults.stop.set()
            faults.join()
        failures = scrapers.failures + ([f"faults: {faults.failure}"] if faults.failure else [])
        own = {}
        try:
            machine.wait_until(lambda: is_well(exporter.own()), "the way back to a good collection", 120, every=0.5)
            own = exporter.own()
        except Exception as failure:
            failures.append(repr(failure))
        return {
            "machine": machine.description(),
            "seconds": time.monotonic() - BEGUN,
            "warm_up": options.warm_up,
            "samples": samples,
            "faults": faults.count,
            "scrapes": scrapers.scrapes,
            "parsed": check.parsed,
            "failures": failures,
            "own": own,
        }


def main():
    options = arguments()
    # Run the clean-up that ends the child processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if options.again:
        results = json.loads(options.again.read_text())
    else:
        options.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="soak-") as directory:
            results = soak(options, directory)
            shutil.copy(Path(directory) / "exporter.log", options.output)
        (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    memory, counts = drawings(results["samples"])
    grown = growth(results)
    said = text(results, grown)
    print(said)
    if not options.again:
        (options.output / "memory.svg").write_text(memory)
        (options.output / "counts.svg").write_text(counts)
    if options.write:
        (ROOT / "benches/figures/soak.svg").write_text(memory)
        publish.put(ROOT, publish.SOAK, said)
    for failure in results["failures"][:10]:
        print(f"failed: {failure}")
    return 1 if results["failures"] or not all(flat for *_, flat in grown) else 0


def growth(results):
    """Returns name, slope, interval, limit and verdict of each watched value."""
    begin = results["samples"][0]["minutes"] + results["warm_up"] / 60
    after = [one for one in results["samples"] if one["minutes"] >= begin]
    rows = []
    for what, limit in LIMITS.items():
        grows, low, high = slope(least(after, what))
        rows.append((what, grows, low, high, limit, high <= limit))
    return rows


def text(results, grown):
    rows = []
    for what, grows, low, high, limit, flat in grown:
        bytes_ = what in ("anonymous", "resident")
        unit = (lambda value: f"{value / 1024:,.0f} KiB") if bytes_ else (lambda value: f"{value:.2g}")
        rows.append([
            f"{what} memory" if bytes_ else what, unit(grows), f"{unit(low)} to {unit(high)}", f"≤ {unit(limit)}",
            "✓" if flat else "✗",
        ])  # fmt: skip
    own = results["own"]
    total = lambda name: sum(value for series, value in own.items() if series.partition("{")[0] == name)
    count = lambda value: f"{value:,.0f}"
    facts = [
        f"{count(results['seconds'])} s, including {count(results['warm_up'])} s of warm-up; {results['machine']}",
        f"{count(results['scrapes'])} scrapes, {len(results['failures'])} failed, {count(results['parsed'])} parsed strictly",
        f"{count(sum(results['faults'].values()))} faults of {len(results['faults'])} kinds",
        f"{count(total('lightfi_exporter_api_requests_total'))} requests to the API, "
        f"{count(total('lightfi_exporter_api_request_failures_total'))} failed; "
        f"{count(total('lightfi_exporter_token_refreshes_total'))} token requests, "
        f"{count(total('lightfi_exporter_token_refresh_failures_total'))} failed",
    ]
    header = ["grows in an hour by", "slope", "95 %", "limit", ""]
    return "\n".join(f"- {fact}" for fact in facts) + "\n\n" + report.table(header, rows)


def drawings(samples):
    over_time = lambda what, scale=1: [(one["minutes"], one[what] / scale) for one in samples]
    memory = {"resident": over_time("resident", 2**20), "of it anonymous, (no file)": over_time("anonymous", 2**20)}
    counts = {what: over_time(what) for what in ("descriptors", "threads")}
    return (
        figures.soak_chart("Memory under faults, in MiB", memory),
        figures.soak_chart("Descriptors and threads under faults", counts),
    )


if __name__ == "__main__":
    sys.exit(main())
