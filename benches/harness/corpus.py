"""The benchmark's input: N sensors of five variables each, and the exporter's configuration that lists them.

The simulated cloud replays the readings from a file, so every run and every version of the exporter sees the same.
"""

import json
import random

# The variables of an air quality sensor with a light sensor.
VARIABLES = {
    "CO2ppm": lambda chance: round(chance.uniform(400, 1600), 1),
    "temperatureC": lambda chance: round(chance.uniform(17, 27), 2),
    "relativeHumidity": lambda chance: round(chance.uniform(20, 65), 2),
    "batteryLevelPct": lambda chance: float(chance.randint(8, 100)),
    "illuminanceArb": lambda chance: round(chance.uniform(0, 900), 1),
}

# Sensors per location.
FLOOR = 100
# An arbitrary time: the simulated cloud shifts the recording to now.
START = 1e9


def ids(count):
    chance = random.Random(count)
    return [f"AQ2-{chance.getrandbits(28):07X}{number:05X}" for number in range(count)]


def write_recording(path, count, moments, apart):
    """Returns the recording that the simulated cloud replays: new values at each of `moments` times, which are
    this many seconds apart."""
    chance = random.Random(f"readings of {count}")
    # Values come from a small pool, because generating random numbers is slow.
    stock = {name: [str(value(chance)) for _ in range(100)] for name, value in VARIABLES.items()}
    with open(path, "w") as out:
        out.write("time,sensor_id,location,var_name,value\n")
        # The recording starts with its first row; all sensors report within a second.
        out.write(f"{START:.3f},{ids(count)[0]},Floor 0,CO2ppm,612.5\n")
        for number, sensor in enumerate(ids(count)):
            phase = chance.randrange(1000) / 1000
            for moment in range(moments):
                time = f"{START + apart * moment + phase:.3f},{sensor},Floor {number // FLOOR}"
                for name, values in stock.items():
                    out.write(f"{time},{name},{values[chance.getrandbits(16) % 100]}\n")


def listed(count):
    """Returns the key `sensors:` with a name and a location for each sensor."""
    lines = ["sensors:"]
    for number, sensor in enumerate(ids(count)):
        floor = number // FLOOR
        lines.append(f"  - id: {sensor}")
        lines.append(f"    name: Room {floor}.{number % FLOOR:02}")
        lines.append(f"    location: HQ / Floor {floor}")
    return "\n".join(lines) + "\n"


LOCATIONS = "locations:\n  - id: base\n    name: HQ\n"


def configuration(simulated, where, api=None, collect=None):
    """Returns the configuration that `simulate` prints, with the sensors of this measurement."""
    api = {"max_concurrency": 64, "max_response_bytes": 268435456, **(api or {})}
    collect = {"interval": "1h", "stale_after": 0, **(collect or {})}
    head = simulated.partition("\nsensors:")[0].partition("\nlocations:")[0]
    assert head.startswith("api:\n"), head
    lines = "".join(f"  {key}: {value}\n" for key, value in api.items())
    text = head.replace("api:\n", "api:\n" + lines, 1).rstrip("\n") + "\n"
    text += "collect:\n" + "".join(f"  {key}: {value}\n" for key, value in collect.items())
    return text + "metrics:\n  reading_timestamps: true\n" + where


def write_series(path, body):
    """Returns the exporter's readings, from its own answer, in the form that the peers load."""
    helps = {}
    count = 0
    with open(path, "w") as out:
        for line in body.splitlines():
            if line.startswith("# HELP "):
                name, _, text = line[7:].partition(" ")
                helps[name] = text
            elif not line.startswith("#"):
                name, labels, value = parse(line)
                if is_reading(name):
                    series = {"name": name, "help": helps[name], "labels": dict(labels), "value": float(value)}
                    out.write(json.dumps(series) + "\n")
                    count += 1
    return count


def is_reading(name):
    """Excludes the exporter's own families, which no peer has, and those about the collection."""
    return name.startswith("lightfi_") and not name.startswith(("lightfi_exporter_", "lightfi_collect_", "lightfi_up"))


def parse(line):
    """Splits one line of the text format into name, labels and value. The corpus has no escapes."""
    series, _, value = line.rpartition(" ")
    name, _, labels = series.partition("{")
    pairs = []
    rest = labels.rstrip("}")
    while rest:
        label, _, rest = rest.partition('="')
        text, _, rest = rest.partition('"')
        assert "\\" not in text, line
        pairs.append((label, text))
        rest = rest.lstrip(",")
    return name, tuple(sorted(pairs)), value


def readings(body):
    """Returns every reading of a body in the text format, to compare two bodies."""
    lines = (parse(line) for line in body.splitlines() if line and not line.startswith("#"))
    found = [((name, labels), float(value)) for name, labels, value in lines if is_reading(name)]
    unique = dict(found)
    assert len(unique) == len(found), "a series twice"
    return unique
