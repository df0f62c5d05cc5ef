"""Measures scrapes of the exporter, of nginx with the same bytes, and of the peers, in turns on one CPU."""

import statistics
import zlib

from . import corpus, load
from .servers import FileServer, Peer, answering

SIZES = (10, 100, 1000, 10000)
ENCODINGS = ("gz", "identity")


def measure(bench, sizes, encodings, names, rounds, seconds, progress):
    """Returns {size: {encoding: {server: figures}}}."""
    return {size: measure_size(bench, size, encodings, names, rounds, seconds, progress) for size in sizes}


def measure_size(bench, size, encodings, names, rounds, seconds, progress):
    progress(f"scrapes, N = {size}")
    simulator = bench.simulator(size)
    exporter = bench.exporter(simulator, corpus.listed(size))
    bench.end(simulator)
    bodies = {encoding: load.get(exporter.port, load.HEADERS[encoding]) for encoding in ENCODINGS}
    servers = [exporter]
    if "nginx" in names:
        servers.append(bench.started(FileServer(bench, bodies["identity"].wire, bodies["gz"].wire)))
    series = bench.series(size)
    text = bodies["identity"].text()
    corpus.write_series(series, text)
    servers += [bench.started(Peer(bench, name, series)) for name in ("rust", "python") if name in names]
    expected = corpus.readings(text)
    for server in servers:
        answering(server)
        say_the_same(server, expected)
    figures = {encoding: {} for encoding in encodings}
    for encoding in encodings:
        headers = load.HEADERS[encoding]
        slow = {}
        wire = {}
        for server in servers:
            # This is also the warm-up: the first scrape of a format may be slower.
            wire[server] = len(load.get(server.port, headers).wire)
            first = load.window(server.port, headers, 0, server.cpu_seconds, slow=True)
            slow[server] = first.p50 > load.SLOW
        samples = {server: [] for server in servers}
        for number in range(rounds):
            for server in servers:
                # The peers differ by far more than the noise.
                ordinary = isinstance(server, Peer)
                if ordinary and number % 2 == 1:
                    continue
                length = seconds / 2 if ordinary else seconds
                sample = load.window(server.port, headers, length, server.cpu_seconds, slow[server])
                samples[server].append(sample)
        for server in servers:
            median = lambda of: statistics.median(of(sample) for sample in samples[server])
            figures[encoding][server.name] = {
                "rps": median(lambda sample: sample.rps),
                "seen_rps": median(lambda sample: sample.seen_rps),
                "p50": median(lambda sample: sample.p50),
                "server_cpu": median(lambda sample: sample.server_cpu),
                "all_cpu": median(lambda sample: sample.all_cpu),
                "peak_rss": server.peak_rss(),
                "wire": wire[server],
                "requests": sum(sample.requests for sample in samples[server]),
                "one_by_one": slow[server],
                "rounds": [sample.rps for sample in samples[server]],
            }
    for encoding in encodings:
        body = bodies[encoding]
        about = figures[encoding]["exporter"]
        about["series"] = len(expected)
        if encoding == "gz":
            plain = body.text().encode()
            squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
            about["zlib6"] = len(squeeze.compress(plain) + squeeze.flush())
            about["plain"] = len(plain)
    bench.end(*servers)
    return figures


def say_the_same(server, expected):
    """Fails if the answer is not the expected one: the speed of a wrong answer has no meaning."""
    text = load.get(server.port, {"Accept": "text/plain"}).text()
    found = corpus.readings(text)
    if found != expected:
        missing, more = expected.keys() - found.keys(), found.keys() - expected.keys()
        changed = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
        raise RuntimeError(
            f"{server.name} does not serve the exporter's readings: {len(missing)} missing, {len(more)} more, "
            f"{len(changed)} others, such as {(list(missing) + list(more) + changed)[:2]}"
        )
