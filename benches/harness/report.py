"""Renders the measurements as tables and compares them with their targets."""

# A target counts as met within this margin, because measurements are noisy.
NOISE = 0.15

NOTE = "✓ means met within 15 %, because measurements are noisy.\n\n"
# Targets by number of sensors.
REQUESTS = {
    "gz": {100: 0.8, 1000: 0.8, 10000: 0.8},
    "identity": {100: 0.5, 1000: 0.5, 10000: 0.5},
}
CPU_OF_PEER = {100: 1 / 140, 1000: 1 / 900, 10000: 1 / 1300}
REFRESH_OF_PEER = {1000: 0.25, 10000: 0.25}
PEAK_RSS = {100: 14 * 2**20, 1000: 18 * 2**20, 10000: 48 * 2**20}
WALL_OF_IDEAL = 1.10
START = 20e-3


class Target:
    def __init__(self, what, figure, target, at_least=False, unit=lambda value: f"{value:.3g}"):
        self.what, self.figure, self.target, self.at_least = what, figure, target, at_least
        self.unit = unit
        slack = 1 - NOISE if at_least else 1 + NOISE
        self.met = figure >= target * slack if at_least else figure <= target * slack

    def row(self):
        sign = "≥" if self.at_least else "≤"
        return [self.what, f"{sign} {self.unit(self.target)}", self.unit(self.figure), "✓" if self.met else "✗"]


def text(results):
    """Returns the report that BENCHMARKS.md contains."""
    titles = {
        "scrapes": ("A scrape", scrapes_table),
        "refresh": ("A refresh without its network", refresh_table),
        "during_refreshes": ("A scrape during refreshes", during_refreshes_table),
        "memory": ("Memory under three scrapers", memory_table),
        "collections": ("A collection", collections_table),
        "starts": ("Start", starts_table),
        "growth": ("Growth", growth_table),
    }
    parts = []
    rows = [target.row() for target in targets(results)]
    if rows:
        parts.append("### Targets\n\n" + NOTE + table(["what", "target", "measured", ""], rows))
    for part, (title, made) in titles.items():
        if part in results:
            parts.append(f"### {title}\n\n{made(results[part])}")
    return "\n\n".join(parts)


def table(header, rows):
    """Returns a Markdown table whose first column is left-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def scrapes_table(sizes):
    rows = []
    for size, encodings in sizes.items():
        for encoding, servers in encodings.items():
            for name, at in servers.items():
                rows.append([
                    f"{int(size):,} {encoding}", name, number(at["rps"]), duration(at["p50"]), duration(at["server_cpu"]),
                    duration(at["all_cpu"]), mebibytes(at["peak_rss"]), f"{at['wire']:,}",
                ])
    header = ["sensors, encoding", "server", "requests/s", "p50", "CPU of the server", "CPU with the client's", "peak RSS",
              "bytes on the wire"]
    return table(header, rows)


def refresh_table(sizes):
    rows = [
        [f"{int(size):,}", *(duration(at[stage]) for stage in ("decode", "build", "render", "gzip", "all")),
         duration(at["all"] / int(size))]
        for size, at in sizes.items()
    ]  # fmt: skip
    return table(["sensors", "decode", "build", "render", "gzip", "together", "a sensor"], rows)


def during_refreshes_table(at):
    rows = [[
        f"{at['sensors']:,}", duration(at["p90_idle"]), duration(at["p90_during"]),
        f"{at['refreshes_per_second']:.2g}",
    ]]  # fmt: skip
    return table(["sensors", "p90 without refreshes", "p90 during refreshes", "refreshes/s"], rows)


def memory_table(sizes):
    rows = [
        [f"{int(size):,} by {at['by']}", mebibytes(at["peak_rss"]), mebibytes(at["rss"]), at["refreshes"], at["scrapes"]]
        for size, at in sizes.items()
    ]
    return table(["sensors", "peak RSS", "RSS at the end", "refreshes", "scrapes"], rows)


def collections_table(at):
    tls = at["over_tls"]
    by_id, by_location, many, capacity = at["by_id"], at["by_location"], at["many_objects"], at["capacity"]
    rows = [
        ["by id: wall clock", duration(by_id["wall"])],
        ["by id: ideal (latency measured by wrk with as many connections × sensors ÷ connections)",
         f"{duration(by_id['ideal'])} (latency {duration(by_id['latency'])})"],
        ["by id: CPU of the exporter per request", duration(by_id["cpu_per_request"])],
        ["by id: CPU of the simulated cloud per request", duration(by_id["simulator_cpu_per_request"])],
        ["requests/s that the simulated cloud can answer without latency, measured by wrk", f"{number(capacity['rps'])}/s"],
        ["requests/s of this collection", f"{number(at['sensors'] / by_id['wall'])}/s"],
        ["by id over TLS: wall clock", duration(tls["wall"])],
        ["by id over TLS: CPU of the exporter per request", duration(tls["cpu_per_request"])],
        ["by location: wall clock", f"{duration(by_location['wall'])}, {by_location['requests']:.0f} requests"],
        ["by location: CPU of the exporter per sensor", duration(by_location["cpu_per_sensor"])],
        [f"`check` of {many['sensors']:,} sensor objects ({mebibytes(many['bytes'])} of YAML)",
         f"{duration(many['wall'])}, peak RSS {mebibytes(many['peak_rss'])}"],
    ]  # fmt: skip
    return table([f"{at['sensors']:,} sensors, {at['slots']} at once", "measured"], rows)


def starts_table(at):
    return table(["start of the process to the answer of `/metrics`", "median", "minimum"],
                 [[f"{at['times']} starts", duration(at["median"]), duration(at["least"])]])  # fmt: skip


def growth_table(sizes):
    rows = []
    for size, at in sizes.items():
        size = int(size)
        rows.append([
            f"{size:,}", duration(at["refresh_cpu"]), duration(at["refresh_cpu"] / size), mebibytes(at["rss"]),
            f"{number(at['rss'] / size / 1024)} KiB", f"{at['wire'] / at['series']:.3g}", f"{at['plain'] / at['series']:.3g}",
        ])  # fmt: skip
    header = ["sensors", "CPU of a refresh", "a sensor", "RSS", "a sensor", "bytes a series, gz", "bytes a series, plain"]
    return table(header, rows)


def targets(results):
    scrapes = results.get("scrapes", {})
    for size, encodings in scrapes.items():
        yield from scrape_targets(int(size), encodings)
    for size, at in results.get("refresh", {}).items():
        if "peer_scrape" in at and int(size) in REFRESH_OF_PEER:
            what = f"CPU of a refresh ÷ one scrape of the Rust peer, {int(size):,} sensors"
            yield Target(what, at["all"] / at["peer_scrape"], REFRESH_OF_PEER[int(size)])
    for size, at in results.get("memory", {}).items():
        if int(size) in PEAK_RSS:
            yield Target(f"peak RSS, {int(size):,} sensors", at["peak_rss"], PEAK_RSS[int(size)], unit=mebibytes)
    if at := results.get("collections"):
        by_id = at["by_id"]
        yield Target("collection by id: wall ÷ ideal", by_id["wall"] / by_id["ideal"], WALL_OF_IDEAL)
    if at := results.get("starts"):
        yield Target("start to the first answer", at["median"], START, unit=duration)


def scrape_targets(size, encodings):
    for encoding, servers in encodings.items():
        exporter, nginx, rust = (servers.get(name) for name in ("exporter", "nginx", "rust"))
        at = f"{encoding}, {size:,} sensors"
        if nginx and size in REQUESTS[encoding]:
            ratio = exporter["rps"] / nginx["rps"]
            yield Target(f"requests/s ÷ nginx, {at}", ratio, REQUESTS[encoding][size], at_least=True)
        if encoding != "gz":
            continue
        if rust and size in CPU_OF_PEER:
            ratio = exporter["server_cpu"] / rust["server_cpu"]
            yield Target(f"CPU of a scrape ÷ Rust peer, {at}", ratio, CPU_OF_PEER[size], unit=fraction)


def fraction(value):
    return f"1/{1 / value:.0f}" if value else "0"


def number(value):
    """Returns the value with three significant digits, or as a whole number from 100 on."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def duration(seconds):
    # Round first, so that 999.9 ms becomes 1 s.
    seconds = float(f"{seconds:.3g}")
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e6)} µs"


def mebibytes(size):
    return f"{size / 2**20:.1f} MiB"
