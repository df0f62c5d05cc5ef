"""Tables of the figures, and each target with its figure. Reads only what the measurements gave."""

# A figure this much beyond its target is still called met: noise of a machine that others use too.
NOISE = 0.15

# By number of sensors.
REQUESTS = {
    "gz": {100: 1.0, 1000: 0.85, 10000: 1.6},
    "identity": {100: 1.3, 1000: 1.4, 10000: 0.9},
}
P50 = {100: 1.0, 1000: 1.0, 10000: 0.5}
CPU_OF_PEER = {100: 1 / 140, 1000: 1 / 900, 10000: 1 / 1300}
ZLIB6 = 1.01


class Target:
    def __init__(self, what, figure, target, at_least=False, noise=NOISE, unit=lambda value: f"{value:.3g}"):
        self.what, self.figure, self.target, self.at_least = what, figure, target, at_least
        self.unit = unit
        slack = 1 - noise if at_least else 1 + noise
        self.met = figure >= target * slack if at_least else figure <= target * slack

    def row(self):
        sign = "≥" if self.at_least else "≤"
        return [self.what, f"{sign} {self.unit(self.target)}", self.unit(self.figure), "✓" if self.met else "✗"]


def text(results):
    parts = []
    if "scrapes" in results:
        parts.append(scrapes_table(results["scrapes"]))
    rows = [target.row() for target in targets(results)]
    if rows:
        parts.append(table(["what", "target", "measured", ""], rows))
    return "\n\n".join(parts)


def table(header, rows):
    """Markdown, the first column to the left."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def scrapes_table(sizes):
    rows = []
    for size, encodings in sizes.items():
        for encoding, servers in encodings.items():
            for name, at in servers.items():
                rows.append([
                    f"{size:,} {encoding}", name, number(at["rps"]), duration(at["p50"]), duration(at["server_cpu"]),
                    duration(at["all_cpu"]), mebibytes(at["peak_rss"]), f"{at['wire']:,}",
                ])
    header = ["sensors, encoding", "server", "requests/s", "p50", "CPU of the server", "CPU with the client's", "peak RSS",
              "bytes on the wire"]
    return table(header, rows)


def targets(results):
    for size, encodings in results.get("scrapes", {}).items():
        yield from scrape_targets(int(size), encodings)


def scrape_targets(size, encodings):
    for encoding, servers in encodings.items():
        exporter, nginx, rust = (servers.get(name) for name in ("exporter", "nginx", "rust"))
        at = f"{encoding}, {size:,} sensors"
        if nginx and size in REQUESTS[encoding]:
            ratio = exporter["rps"] / nginx["rps"]
            yield Target(f"requests/s ÷ nginx, {at}", ratio, REQUESTS[encoding][size], at_least=True)
        if encoding != "gz":
            continue
        if nginx and size in P50:
            yield Target(f"p50 ÷ nginx, {at}", exporter["p50"] / nginx["p50"], P50[size])
        if rust and size in CPU_OF_PEER:
            ratio = exporter["server_cpu"] / rust["server_cpu"]
            yield Target(f"CPU of a scrape ÷ Rust peer, {at}", ratio, CPU_OF_PEER[size], unit=fraction)
        yield Target(f"bytes ÷ zlib -6, {at}", exporter["wire"] / exporter["zlib6"], ZLIB6, noise=0, unit="{:.4f}".format)


def fraction(value):
    return f"1/{1 / value:.0f}" if value else "0"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def mebibytes(size):
    return f"{size / 2**20:.1f} MiB"
