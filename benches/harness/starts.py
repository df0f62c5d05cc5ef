"""Measures the time from the start of the process to the first answer of /metrics."""

import socket
import statistics
import time

from . import corpus


def measure(bench, times, progress):
    progress("starts")
    simulator = bench.simulator(10)
    took = []
    for _ in range(times):
        exporter = bench.exporter(simulator, corpus.listed(10), wait=False)
        until_answered(exporter)
        took.append(time.monotonic() - exporter.started_at)
        bench.end(exporter)
    bench.end(simulator)
    return {"median": statistics.median(took), "least": min(took), "times": times}


def until_answered(exporter, seconds=10):
    """Sends requests from the start on; an answer waits for the first collection, so the time includes one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", exporter.port), timeout=seconds) as connection:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except ConnectionRefusedError:
            time.sleep(0.0005)
    raise TimeoutError("the exporter does not answer")
