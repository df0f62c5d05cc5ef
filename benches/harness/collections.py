"""Measures collections of many sensors: the wall clock against the ideal, and the CPU time per request."""

import json
import os
import re
import statistics
import subprocess
import time
import urllib.parse
import urllib.request

from . import corpus, load
from .machine import MEASURED_CPU, clean_environment, on
from .servers import TlsFront

LATENCY = "20ms"
CONCURRENCY = 64


def measure(bench, size, rounds, progress):
    progress(f"collections, N = {size}")
    return {
        "sensors": size,
        "slots": CONCURRENCY,
        "capacity": capacity(bench, size),
        "by_id": by_id(bench, size, rounds),
        "over_tls": over_tls(bench, size, rounds),
        "by_location": by_location(bench, size, rounds),
    }


def capacity(bench, size):
    """Measures how many requests the simulated cloud can answer; the exporter must need far fewer."""
    simulator = bench.simulator(size)
    sample = asked_by_wrk(simulator, size, 2)
    bench.end(simulator)
    return {"rps": sample.seen_rps, "cpu": sample.server_cpu}


def by_id(bench, size, rounds):
    simulator = bench.simulator(size, latency=LATENCY)
    walls, cpus, latencies = [], [], []
    for _ in range(rounds):
        latencies.append(asked_by_wrk(simulator, size, 2).p50)
        simulator_before = simulator.cpu_seconds()
        took, cpu, requests = first_collection(bench, simulator, corpus.listed(size))
        assert requests["sensor"] == size, requests
        walls.append(took)
        cpus.append(cpu / size)
        simulator_cpu = (simulator.cpu_seconds() - simulator_before) / size
    bench.end(simulator)
    latency = statistics.median(latencies)
    return {
        "latency": latency,
        "ideal": size * latency / CONCURRENCY,
        "wall": statistics.median(walls),
        "rounds": walls,
        "cpu_per_request": statistics.median(cpus),
        "simulator_cpu_per_request": simulator_cpu,
    }


def over_tls(bench, size, rounds):
    """Measures the same sensors with the simulated cloud behind TLS."""
    simulator = bench.simulator(size, latency=LATENCY)
    front = bench.started(TlsFront(bench, simulator))
    walls, cpus = [], []
    for _ in range(rounds):
        took, cpu, requests = first_collection(bench, front, corpus.listed(size))
        assert requests["sensor"] == size, requests
        walls.append(took)
        cpus.append(cpu / size)
    bench.end(front, simulator)
    return {"wall": statistics.median(walls), "cpu_per_request": statistics.median(cpus)}


def by_location(bench, size, rounds):
    simulator = bench.simulator(size, latency=LATENCY)
    walls, cpus = [], []
    for _ in range(rounds):
        took, cpu, requests = first_collection(bench, simulator, corpus.LOCATIONS)
        walls.append(took)
        cpus.append(cpu / size)
    bench.end(simulator)
    return {
        "requests": requests["location"] + requests["base_location"],
        "wall": statistics.median(walls),
        "cpu_per_sensor": statistics.median(cpus),
    }


def first_collection(bench, simulator, where):
    """Returns duration, CPU time and requests by route of the first collection, which runs as fast as it may.

    The CPU time that `check` needs to load the same configuration is subtracted.
    """
    exporter = bench.exporter(simulator, where, api={"max_concurrency": CONCURRENCY})
    start, _, _ = check(bench, exporter.file)
    own = exporter.own()
    requests = {route: exporter.requests(route, own) for route in ("sensor", "location", "base_location")}
    bench.end(exporter)
    return own["lightfi_collect_duration_seconds"], exporter.cpu_at_ready - start, requests


def check(bench, configuration):
    """Returns CPU seconds, wall seconds and peak memory of `check`, which only loads a configuration."""
    begun = time.monotonic()
    child = subprocess.Popen(
        [bench.exporter_program, "check", "--config.file", configuration],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        preexec_fn=on(MEASURED_CPU),
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"check of {configuration} ends with {child.returncode}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begun, usage.ru_maxrss * 1024


def many_objects(bench, size, progress):
    """Measures time and memory to load a configuration with this many sensor objects."""
    progress(f"a configuration of {size} sensor objects")
    simulator = bench.simulator(10)
    path = bench.directory / "many.yaml"
    path.write_text(corpus.configuration(simulator.configuration, corpus.listed(size)))
    cpu, wall, peak = check(bench, path)
    bench.end(simulator)
    return {"sensors": size, "bytes": path.stat().st_size, "cpu": cpu, "wall": wall, "peak_rss": peak}


def asked_by_wrk(simulator, size, seconds):
    """Measures the latency with as many connections as the exporter opens."""
    headers = {"Authorization": f"Bearer {token(simulator)}"}
    path = f"/sensors/{corpus.ids(size)[size // 2]}?project=latest&project=value"
    return load.by_wrk(simulator.port, headers, seconds, simulator.cpu_seconds, connections=CONCURRENCY, path=path)


def token(simulator):
    keys = ("client_id", "client_secret", "refresh_token")
    value = lambda key: re.search(rf'{key}: "([^"]*)"', simulator.configuration).group(1)
    form = {"grant_type": "refresh_token", **{key: value(key) for key in keys}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{simulator.port}/oauth2/token", urllib.parse.urlencode(form).encode()
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)["access_token"]
