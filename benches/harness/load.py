"""Sends scrapes: a single one, many with wrk, or one after the other if the server is slow."""

import gzip
import http.client
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from .machine import MEASURED_CPU, on

# The request headers of Prometheus.
PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/2.42.0",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
# The request headers of curl.
PLAIN = {"Accept": "*/*", "User-Agent": "curl/7.88.1"}
HEADERS = {"gz": PROMETHEUS, "identity": PLAIN}

# Enough connections that the server never waits for the load generator.
CONNECTIONS = 4
# For slower answers a round of wrk would contain too few of them, and unfinished ones would count.
SLOW = 0.05


class Answer:
    def __init__(self, response):
        self.wire = response.read()
        self.encoding = response.getheader("Content-Encoding", "identity")
        self.type = response.getheader("Content-Type")

    def plain(self):
        return gzip.decompress(self.wire) if self.encoding == "gzip" else self.wire

    def text(self):
        return self.plain().decode()


def get(port, headers=PLAIN, path="/metrics", timeout=60):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        answer = Answer(response)
        if response.status != 200:
            raise RuntimeError(f"port {port}{path} answers {response.status}: {answer.wire[:200]!r}")
        return answer
    finally:
        connection.close()


class Sample:
    """The measurements of one server in one round; CPU is CPU time per request."""

    def __init__(self, requests, seconds, p50, p90, server_cpu, client_cpu):
        self.requests = requests
        self.p50 = p50
        self.p90 = p90
        self.server_cpu = server_cpu / requests
        self.all_cpu = (server_cpu + client_cpu) / requests
        # Requests/s of one CPU; `seen_rps` is also affected by other processes.
        self.rps = 1 / self.all_cpu
        self.seen_rps = requests / seconds


def window(port, headers, seconds, server_cpu, slow=False):
    """Loads the server for this many seconds; `server_cpu` returns its CPU time so far."""
    return (one_by_one if slow else by_wrk)(port, headers, seconds, server_cpu)


def by_wrk(port, headers, seconds, server_cpu, connections=CONNECTIONS, path="/metrics"):
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    for name, value in headers.items():
        arguments += ["-H", f"{name}: {value}"]
    arguments += ["-s", str(Path(__file__).with_name("load.lua")), f"http://127.0.0.1:{port}{path}"]
    before = server_cpu()
    child = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=on(MEASURED_CPU),
    )
    try:
        said = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        child.stderr.close()
        if child.returncode is None:
            child.kill()
            child.wait()
    spent = server_cpu() - before
    report = json.loads(said.splitlines()[-1]) if child.returncode == 0 and said else None
    if not report or report["errors"] or not report["requests"]:
        raise RuntimeError(f"wrk against port {port}: {said.strip() or child.returncode}")
    return Sample(
        report["requests"], report["seconds"], report["p50"], report["p90"], spent, usage.ru_utime + usage.ru_stime
    )


def one_by_one(port, headers, seconds, server_cpu):
    """Sends the requests from this process, on the measured CPU, so that it does not run in parallel with the server."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, MEASURED_CPU)
    try:
        before, own_before, start = server_cpu(), time.thread_time(), time.monotonic()
        took = []
        while not took or time.monotonic() - start < seconds:
            begun = time.monotonic()
            get(port, headers)
            took.append(time.monotonic() - begun)
        wall = time.monotonic() - start
        own_cpu = time.thread_time() - own_before
        return Sample(
            len(took), wall, statistics.median(took), sorted(took)[int(0.9 * (len(took) - 1))],
            server_cpu() - before, own_cpu,
        )
    finally:
        os.sched_setaffinity(0, own)
