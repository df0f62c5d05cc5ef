"""Measures refreshes: scrapes during refreshes, memory after them, and both as the number of sensors grows."""

import json
import statistics
import subprocess
import threading
import time

from . import corpus, load
from .machine import MEASURED_CPU, on
from .servers import Peer, TlsFront, answering

# The part of the interval that one request may take, in seconds.
SECONDS_PER_SENSOR = 0.001
# The interval of collections next to a scraper that never pauses, in seconds.
LONGEST_INTERVAL = 20.0
LAST_SUCCESS = "lightfi_collect_last_success_timestamp_seconds"


def without_network(bench, program, size, times, rounds=4):
    """Measures the CPU time of decode, build, render and gzip of one format inside a program that does nothing else,
    in turns with scrapes of the Rust peer."""
    series = bench.series(size)
    peer = bench.started(Peer(bench, "rust", series)) if series.exists() else None
    refreshes, scrapes = [], []
    for _ in range(rounds):
        lines = subprocess.run(
            [program, str(size), str(times)],
            check=True, capture_output=True, text=True, preexec_fn=on(MEASURED_CPU),
        ).stdout.splitlines()  # fmt: skip
        refreshes += map(json.loads, lines)
        if peer:
            answering(peer)
            scrapes.append(load.window(peer.port, load.PROMETHEUS, 1, peer.cpu_seconds, slow=True).server_cpu)
    figures = {stage: statistics.median(at[stage] for at in refreshes) for stage in refreshes[0]}
    figures |= {"all": statistics.median(sum(at.values()) for at in refreshes), "rounds": len(refreshes)}
    if peer:
        bench.end(peer)
        figures["peer_scrape"] = statistics.median(scrapes)
    return figures


def until_collected(exporter, before, seconds=120):
    """Waits until a collection other than `before` has been published; returns the own families and its time."""
    deadline = time.monotonic() + seconds
    while True:
        own = exporter.own()
        if own[LAST_SUCCESS] != before:
            return own
        if time.monotonic() > deadline:
            raise TimeoutError(f"no collection within {seconds} s: {exporter.process.log.read_text()[-2000:]}")
        time.sleep(0.05)


def scrape_during_refreshes(bench, size, rounds, seconds, progress):
    """Measures p90 of one scraper's scrapes while collections run back to back, and without any, in turns.

    The readings come by location and change each second, so a refresh is decoding, building, rendering and gzip, and
    next to nothing of the network.
    """
    progress(f"scrapes during refreshes, N = {size}")
    simulator = bench.simulator(size, moments=30)
    exporter = bench.exporter(simulator, corpus.LOCATIONS)
    took = exporter.own()["lightfi_collect_duration_seconds"]
    # A collection must end within its interval although it shares the CPU with scrapes.
    interval = max(0.1, 3 * took)
    idle, during, refreshes = [], [], []
    while len(during) < rounds:
        reload_and_wait(exporter, {"interval": "1h"})
        alone = by_one_scraper(exporter, seconds)
        reload_and_wait(exporter, {"interval": f"{interval * 1000:.0f}ms"})
        before = exporter.requests("location")
        sample = by_one_scraper(exporter, seconds)
        own = exporter.own()
        if own["lightfi_collect_sensors_failed"]:
            # Scrapes without a pause would leave too little CPU time for these collections, and incomplete
            # collections must not be measured.
            interval *= 1.5
            progress(f"collections do not end in time, every {interval:.2f} s from now on")
            if interval > LONGEST_INTERVAL:
                raise RuntimeError("no collection ended in time while one scraper ran")
            continue
        made = exporter.requests("location", own) - before
        idle.append(alone)
        during.append(sample)
        refreshes.append(made / (size / corpus.FLOOR + 1) / seconds)
    bench.end(exporter, simulator)
    p90 = lambda samples: statistics.median(sample.p90 for sample in samples)
    return {
        "sensors": size,
        "p90_idle": p90(idle),
        "p90_during": p90(during),
        "interval": interval,
        "refreshes_per_second": statistics.median(refreshes),
        "rounds": [[sample.p90 for sample in samples] for samples in (idle, during)],
    }


def by_one_scraper(exporter, seconds):
    return load.by_wrk(exporter.port, load.PROMETHEUS, seconds, exporter.cpu_seconds, connections=1)


def reload_and_wait(exporter, collect):
    before = exporter.own()[LAST_SUCCESS]
    exporter.reload(collect)
    until_collected(exporter, before)


class Scrapers:
    """Scrapes as two Prometheus servers and one curl client do until the end, at a pace that leaves the CPU mostly idle.
    `check` verifies the answers."""

    PAUSE = 0.2

    def __init__(self, port, kinds=(load.PROMETHEUS, load.PROMETHEUS, load.PLAIN), check=lambda answer: None):
        self.port = port
        self.check = check
        self.stop = threading.Event()
        self.failures = []
        self.scrapes = 0
        self.threads = [threading.Thread(target=self.scrape, args=[headers]) for headers in kinds]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def scrape(self, headers):
        while not self.stop.wait(self.PAUSE):
            try:
                self.check(load.get(self.port, headers))
                self.scrapes += 1
            except Exception as failure:  # any failure is a wrong answer
                self.failures.append(repr(failure))


def memory(bench, size, by_location, refreshes, progress):
    """Measures resident memory after refreshes under three scrapers with the cloud behind TLS, and the CPU of a refresh."""
    progress(f"memory, N = {size}")
    simulator = bench.simulator(size, moments=5)
    front = bench.started(TlsFront(bench, simulator))
    where = corpus.LOCATIONS if by_location else corpus.listed(size)
    # Collections are spread over half of the interval, and the CPU is shared.
    interval = max(1.0, size * SECONDS_PER_SENSOR)
    exporter = bench.exporter(front, where, collect={"interval": f"{interval * 1000:.0f}ms"})
    with Scrapers(exporter.port) as scrapers:
        last = exporter.own()[LAST_SUCCESS]
        for _ in range(refreshes):
            own = until_collected(exporter, last)
            last = own[LAST_SUCCESS]
            if own["lightfi_collect_sensors_failed"]:
                raise RuntimeError(f"{own['lightfi_collect_sensors_failed']} of {size} sensors failed at {interval} s")
    if scrapers.failures:
        raise RuntimeError(f"scrapes failed: {scrapers.failures[0]}")
    figures = {
        "sensors": size,
        "by": "location" if by_location else "id",
        "peak_rss": exporter.peak_rss(),
        "rss": exporter.rss(),
        "refreshes": refreshes,
        "scrapes": scrapers.scrapes,
        "interval": interval,
    }
    bench.end(exporter, front, simulator)
    return figures


def growth(bench, size, refreshes, progress):
    """Measures CPU per sensor of a refresh by location with one Prometheus-like scraper, memory and bytes."""
    progress(f"growth, N = {size}")
    # New readings at each refresh; a refresh takes longer with more sensors.
    simulator = bench.simulator(size, moments=30) if size <= 10000 else bench.simulator(size, moments=4, apart=8)
    exporter = bench.exporter(simulator, corpus.LOCATIONS)
    took = exporter.own()["lightfi_collect_duration_seconds"]
    load.get(exporter.port, load.PROMETHEUS)
    # Rendering and scrapes share the CPU.
    interval = max(0.2, 6 * took)
    reload_and_wait(exporter, {"interval": f"{interval * 1000:.0f}ms"})
    last = exporter.own()[LAST_SUCCESS]
    last = until_collected(exporter, last)[LAST_SUCCESS]
    before, requests = exporter.cpu_seconds(), exporter.requests("location")
    until = time.monotonic() + max(2.0, refreshes * interval)
    while time.monotonic() < until:
        # Often enough that the format stays cached, but too rarely to affect the result.
        time.sleep(min(3 * interval, until - time.monotonic() + 0.01))
        answer = load.get(exporter.port, load.PROMETHEUS)
    cpu = exporter.cpu_seconds() - before
    own = exporter.own()
    made = (exporter.requests("location", own) - requests) / (max(1, -(-size // corpus.FLOOR)) + 1)
    if own["lightfi_collect_sensors_failed"] or made < 1:
        raise RuntimeError(f"{made} collections, {own['lightfi_collect_sensors_failed']} sensors failed")
    text = answer.text()
    series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    figures = {
        "sensors": size,
        "refresh_cpu": cpu / made,
        "refreshes": made,
        "rss": exporter.rss(),
        "peak_rss": exporter.peak_rss(),
        "wire": len(answer.wire),
        "plain": len(text),
        "series": series,
    }
    bench.end(exporter, simulator)
    return figures
