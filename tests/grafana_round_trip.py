"""Reads each given dashboard with Grafana's own model, writes it again, and reports what was lost or changed.

Grafana would ignore a key that the model does not know: usually a misspelt option.
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(path, ours, theirs):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            # The model drops null values.
            if key not in theirs:
                if value is not None:
                    yield f"{path}.{key} is dropped"
            else:
                yield from differences(f"{path}.{key}", value, theirs[key])
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(f"{path}[{index}]", one, other)
    elif ours != theirs:
        yield f"{path} was {ours!r}, is {theirs!r}"


register_default_plugins()
found = False
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        dashboard = json.load(file)
    model = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    written = json.loads(json.dumps(model, cls=JSONEncoder))
    for difference in differences("", dashboard, written):
        found = True
        print(f"{name}: {difference}")
sys.exit(found)
