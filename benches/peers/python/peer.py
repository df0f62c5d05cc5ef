"""An ordinary exporter: a custom collector that yields the readings at each scrape, behind prometheus_client's server.

peer.py SERIES.jsonl PORT: one series a line, {"name", "help", "labels": {...}, "value"}.
"""

import json
import sys
import threading

from prometheus_client import start_http_server
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily


class Sensors:
    def __init__(self, path):
        self.families = {}
        with open(path) as lines:
            for line in lines:
                series = json.loads(line)
                key = series["name"], series["help"], tuple(series["labels"])
                self.families.setdefault(key, []).append((list(series["labels"].values()), series["value"]))

    def collect(self):
        for (name, help, labels), samples in self.families.items():
            family = GaugeMetricFamily(name, help, labels=labels)
            for values, value in samples:
                family.add_metric(values, value)
            yield family


registry = CollectorRegistry()
registry.register(Sensors(sys.argv[1]))
start_http_server(int(sys.argv[2]), addr="127.0.0.1", registry=registry)
threading.Event().wait()
