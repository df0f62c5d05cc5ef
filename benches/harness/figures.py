"""Draws the figures as SVG: lines over the number of sensors with logarithmic axes, and lines over time with
linear axes."""

import math
from typing import NamedTuple

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 150, 46, 46
# A palette for colour-blind readers (Okabe and Ito).
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
# The smallest distance between two labels.
MOST_DOTS = 40
FONT = 'font-family="system-ui, sans-serif"'


def scrape_chart(scrapes):
    """Draws the CPU time of one compressed scrape: the exporter, nginx with the same bytes, and the peers."""
    names = {
        "python": "Python, prometheus_client",
        "rust": "Rust, prometheus crate",
        "exporter": "lightfi-exporter",
        "nginx": "nginx, the same bytes",
    }
    lines = {}
    for name, label in names.items():
        points = [
            (int(size), encodings["gz"][name]["server_cpu"])
            for size, encodings in scrapes.items()
            if name in encodings.get("gz", {})
        ]
        if points:
            lines[label] = points
    return chart("CPU time of one scrape (gzip), by number of sensors", lines, seconds)


def growth_chart(growth):
    """Draws the cost per sensor relative to the cost at a thousand sensors."""
    measures = {
        "CPU of a refresh, a sensor": lambda size, at: at["refresh_cpu"] / size,
        "resident memory, a sensor": lambda size, at: at["rss"] / size,
        "bytes on the wire, a series": lambda size, at: at["wire"] / at["series"],
    }
    lines = {}
    for label, measure in measures.items():
        points = {int(size): measure(int(size), at) for size, at in growth.items()}
        base = points.get(1000) or points[max(points)]
        lines[label] = [(size, value / base) for size, value in points.items()]
    return chart("Cost of a sensor as they become many (1,000 sensors = 1)", lines, lambda value: f"{value:g}")


def seconds(value):
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.999 * size:
            return f"{value / size:g} {unit}"
    return f"{value * 1e9:g} ns"


def soak_chart(title, lines):
    """Draws lines over minutes."""
    across = even([x for points in lines.values() for x, _ in points])
    up = even([y for points in lines.values() for _, y in points])
    return drawing(title, lines, across, up, "minutes")


def chart(title, lines, tick):
    xs = [x for points in lines.values() for x, _ in points]
    ys = [math.log10(y) for points in lines.values() for _, y in points]
    low, high = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)
    across = powers(math.log10(min(xs)), math.log10(max(xs)), lambda value: f"{value:,}")
    return drawing(title, lines, across, powers(low, high, tick), "sensors")


class Axis(NamedTuple):
    """Returns the position of a value on an axis and its label."""

    part: callable
    ticks: list


def powers(low, high, tick):
    exponents = range(round(low), round(high) + 1)
    part = lambda value: (math.log10(value) - low) / ((high - low) or 1)
    return Axis(part, [(10.0**exponent, tick(10**exponent if exponent >= 0 else 10.0**exponent)) for exponent in exponents])


def even(values):
    most = max(values)
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if most / step <= 7)
    count = math.ceil(most / step) or 1
    return Axis(lambda value: value / (count * step), [(step * at, f"{step * at:,}") for at in range(count + 1)])


def drawing(title, lines, across, up, unit):
    place_x = lambda x: LEFT + across.part(x) * (WIDTH - LEFT - RIGHT)
    place_y = lambda y: HEIGHT - BOTTOM - up.part(y) * (HEIGHT - TOP - BOTTOM)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 26, title, size=16, weight="600"),
    ]
    for value, words in up.ticks:
        y = place_y(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 8, y + 4, words, anchor="end"))
    for value, words in across.ticks:
        parts.append(text(place_x(value), HEIGHT - BOTTOM + 20, words, anchor="middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, unit, anchor="middle"))
    ends = apart([place_y(points[-1][1]) for points in lines.values()])
    for (label, points), colour, end in zip(lines.items(), COLOURS, ends):
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in points)
        few = len(points) <= MOST_DOTS
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{2.5 if few else 1.2}"/>')
        if few:
            parts += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        for number, words in enumerate(label.split(", ")):
            parts.append(text(WIDTH - RIGHT + 10, end + 4 + 14 * number, words, fill=colour))
    return "\n".join(parts + ["</svg>"]) + "\n"


def apart(places, distance=32):
    """Moves labels down until they do not overlap."""
    moved = list(places)
    last = -math.inf
    for index in sorted(range(len(places)), key=places.__getitem__):
        moved[index] = last = max(places[index], last + distance)
    over = max(0, last - (HEIGHT - BOTTOM - 8))
    return [place - over for place in moved]


def text(x, y, words, size=13, anchor="start", fill="#333", weight="400"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" {FONT} font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{fill}">{words}</text>'
    )
