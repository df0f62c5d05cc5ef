"""Checks the Helm chart with the real Helm engine and the schemas of Kubernetes and its operators, and writes derived files.

    chart.py write            writes the derived files: copies, generated parts, deploy/kubernetes  (`make chart`)
    chart.py check EXPORTER   checks everything; EXPORTER is the binary that reads the rendered configurations

Derived files: `files/` in the chart are copies, because Helm reads nothing outside the chart; the alerts' entries in
values.yaml and values.schema.json come from the rules; the README table from values.yaml; deploy/kubernetes from the
templates.
"""

import copy
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml
from helm_python import _native

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/lightfi-exporter"
PLAIN = ROOT / "deploy/kubernetes"
KUBERNETES = ["1.27", "1.30", "1.33"]
# The Kubernetes types that values are checked against: the newest ones, so that a new key is not reported as a typo.
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
QUANTITY_PATTERN = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
KUBERNETES_TYPES = pathlib.Path(kubernetes_validate.__file__).parent / f"kubernetes-json-schema/v{kubernetes_validate.latest_version()}-local-strict"
# The operators' models by API group.
OPERATORS = {
    "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator",
    "grafana.integreatly.org/v1beta1": "@kubernetes-models/grafana-operator",
}
THRESHOLD = re.compile(r"[<>]=? ([-+.0-9eE]+)$")
# Values that no file in ci/ changes: the security contexts are checked with their defaults, and `global` has no effect.
UNTRIED = {"podSecurityContext", "securityContext", "global"}
RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
# Keys of the exporter's configuration that the chart sets.
OWN_KEYS = {"web.listen_address", "web.config_file", "oauth.token_store"} | {
    f"oauth.{key}_file" for key in ("client_id", "client_secret", "refresh_token")
}

failures = []


def expect(good, what):
    if not good:
        failures.append(what)


def read(path):
    return yaml.load(path.read_text(), yaml.CSafeLoader)


# Derived files.


def copies():
    """Returns the copied files by their path in the chart."""
    found = {f"files/{name}": ROOT / "deploy/prometheus" / name for name in ("alerts.yml", "recording.yml")}
    found |= {f"files/dashboards/{path.name}": path for path in sorted((ROOT / "grafana").glob("*.json"))}
    return {CHART / name: source.read_text() for name, source in found.items()}


def alerts():
    """Returns each alert's entry in the values."""
    entries = {}
    for group in read(ROOT / "deploy/prometheus/alerts.yml")["groups"]:
        for rule in group["rules"]:
            entry = {"enabled": True, "for": rule["for"], "severity": rule["labels"]["severity"]}
            # `== 0` and `== 1` are no thresholds.
            if threshold := THRESHOLD.search(rule["expr"].strip()):
                entry["threshold"] = yaml.load(threshold[1], yaml.CSafeLoader)
            entries[rule["alert"]] = entry
    return entries


def with_alerts(values):
    begin, end = "    # begin of the alerts (written by `make chart`)\n", "    # end of the alerts\n"
    head, tail = values.split(begin)[0], values.split(end)[1]
    lines = [
        f"    {name}: {{{', '.join(f'{key}: {json.dumps(value) if isinstance(value, bool) else value}' for key, value in entry.items())}}}\n"
        for name, entry in alerts().items()
    ]
    return head + begin + "".join(lines) + end + tail


def schema_of_values(text):
    """Returns the schema with the alerts by name and the Kubernetes types that the values refer to."""
    schema = json.loads(text)
    schema["properties"]["prometheusRule"]["properties"]["alerts"]["properties"] = {
        name: {"$ref": "#/$defs/" + ("alertWithThreshold" if "threshold" in entry else "alert")}
        for name, entry in alerts().items()
    }
    own = {name: part for name, part in schema["$defs"].items() if not name.startswith("io.k8s.")}
    kubernetes = json.loads((KUBERNETES_TYPES / "_definitions.json").read_text())["$defs"]
    taken, wanted = {}, references([schema["properties"], own])
    while wanted:
        name = wanted.pop()
        if name.startswith("io.k8s.") and name not in taken:
            taken[name] = bare(kubernetes[name])
            wanted |= references(taken[name])
    # The Kubernetes schema accepts a text that is no quantity, such as 128MB, but the API server does not.
    taken[QUANTITY] = {"type": ["string", "number"], "pattern": QUANTITY_PATTERN}
    schema["$defs"] = own | dict(sorted(taken.items()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def references(part):
    """Returns the names in `$defs` that a part of a schema refers to."""
    if isinstance(part, list):
        return set().union(*map(references, part))
    if isinstance(part, dict):
        return {part["$ref"].removeprefix("#/$defs/")} if "$ref" in part else references(list(part.values()))
    return set()


def bare(part):
    """Returns a Kubernetes type without its descriptions, which are most of its size."""
    if isinstance(part, list):
        return [bare(one) for one in part]
    if isinstance(part, dict):
        return {
            key: bare(value)
            for key, value in part.items()
            if not (key == "description" and isinstance(value, str)) and not key.startswith("x-kubernetes-")
        }
    return part


def documented(values):
    """Returns the rows of the README table: key, default, description. Every value must have a `# --` comment."""
    lines = values.splitlines()
    rows = []

    def description(line):
        comment = []
        while line and lines[line - 1].strip().startswith("#"):
            line -= 1
            comment.insert(0, lines[line].strip().removeprefix("#").strip())
        starts = [at for at, text in enumerate(comment) if text.startswith("-- ")]
        return " ".join(comment[starts[-1] :]).removeprefix("-- ") if starts else None

    def walk(node, path):
        for key, value in node.value:
            name = f"{path}{key.value}"
            told = description(key.start_mark.line)
            if told is not None:
                default = yaml.load(yaml.serialize(value), yaml.CSafeLoader)
                shown = "see `values.yaml`" if name == "prometheusRule.alerts" else f"`{json.dumps(default, ensure_ascii=False)}`"
                rows.append((name, shown, told))
            elif isinstance(value, yaml.MappingNode) and value.value:
                walk(value, name + ".")
            else:
                failures.append(f"values.yaml: {name} has no description (`# -- …`)")

    walk(yaml.compose(values), "")
    return rows


def readme(text, values):
    begin, end = "<!-- begin of the values (written by `make chart`) -->\n", "<!-- end of the values -->\n"
    table = "| key | default | meaning |\n|---|---|---|\n"
    for name, default, told in documented(values):
        told, default = told.replace("|", "\\|"), default.replace("|", "\\|")
        table += f"| `{name}` | {default} | {told} |\n"
    return text.split(begin)[0] + begin + table + end + text.split(end)[1]


def plain():
    """Returns the manifests for users without Helm, without the parts that only Helm uses."""
    values = read(PLAIN / "values.yaml")
    files = {}
    with helm.Chart.load(CHART) as chart:
        for document in documents(render(chart, values, "lightfi-exporter", "default")):
            metadata = document["metadata"]
            if "helm.sh/hook" in metadata.get("annotations", {}):
                continue
            for part in (metadata, document["spec"]["template"]["metadata"] if document["kind"] == "Deployment" else {}):
                for labels in (part.get("labels", {}), part.get("annotations", {})):
                    for key in list(labels):
                        if key.startswith(("helm.sh/", "checksum/")) or key == "app.kubernetes.io/managed-by":
                            del labels[key]
                if not part.get("annotations", True):
                    del part["annotations"]
            metadata.pop("namespace")
            body = yaml.dump(document, Dumper=Readable, sort_keys=False, allow_unicode=True, width=120)
            files[document["kind"].lower() + ".yaml"] = f"# Rendered from deploy/helm by `make chart`.\n{body}"
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(files),
        "images": [{"name": "lightfi-exporter", "newName": "lightfi-exporter", "newTag": app_version()}],
    }
    files["kustomization.yaml"] = (
        "# Rendered from deploy/helm by `make chart`. Point images to where you pushed the image, write your sensors or\n"
        "# locations into configmap.yaml, make the Secret `lightfi-exporter` with the keys client-id, client-secret and\n"
        "# refresh-token, then: kubectl apply -n NAMESPACE -k .\n"
        "# A changed configmap.yaml is in use after: kubectl rollout restart -n NAMESPACE deployment/lightfi-exporter\n"
        + yaml.dump(kustomization, Dumper=Readable, sort_keys=False)
    )
    return {PLAIN / name: text for name, text in files.items()}


class Readable(yaml.SafeDumper):
    """Writes multi-line texts as blocks and indents lists."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def app_version():
    return re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def derived():
    """Returns every derived file with its expected content."""
    values = with_alerts((CHART / "values.yaml").read_text())
    files = copies()
    files[CHART / "values.yaml"] = values
    files[CHART / "values.schema.json"] = schema_of_values((CHART / "values.schema.json").read_text())
    files[CHART / "README.md"] = readme((CHART / "README.md").read_text(), values)
    return files


def stale_copies(files):
    folders = [CHART / "files", CHART / "files/dashboards", PLAIN]
    there = {path for folder in folders for path in folder.glob("*") if path.is_file()}
    return there - set(files) - {PLAIN / "values.yaml", PLAIN / "README.md"}


def write():
    for files in (derived, plain):  # the second renders what the first wrote
        for path, text in files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale_copies(derived() | plain()):
        path.unlink()


# Rendering.


def render(chart, values, name="lightfi", namespace="buildings"):
    options = {"name": name, "namespace": namespace, "kube_version": "1.30.0"}
    return json.loads(_native.call_string("helm_render", chart._raw(), json.dumps(values), json.dumps(options)))


def documents(rendered):
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml"):
            yield from (document for document in yaml.load_all(text, yaml.CSafeLoader) if document)


# Cached, because parsing the definitions takes most of the time.
kubernetes_validate.utils.schema_contents = functools.lru_cache(None)(kubernetes_validate.utils.schema_contents)


def check_kubernetes(case, document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(map(str, error.path))
        expect(False, f"{case}: {document['kind']}, Kubernetes {version}: {where}: {error.message}")
    except kubernetes_validate.SchemaNotFoundError as error:
        expect(False, f"{case}: {error.message}")


def check_restricted(case, kind, pod):
    """Checks the restricted Pod Security Standard, a read-only root, and no access to the API server."""
    security = pod["securityContext"]
    expect(security["runAsNonRoot"] is True and security["runAsUser"] == 65532, f"{case}: {kind} may run as root")
    expect(security["seccompProfile"] == {"type": "RuntimeDefault"}, f"{case}: {kind} has no seccomp profile")
    expect(pod["automountServiceAccountToken"] is False, f"{case}: {kind} mounts a service account's token")
    expect(pod["enableServiceLinks"] is False, f"{case}: {kind} gets service links")
    of_the_host = {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
    expect(not of_the_host, f"{case}: {kind} takes {sorted(of_the_host)}")
    for volume in pod.get("volumes", []):
        expect(set(volume) - {"name"} <= RESTRICTED_VOLUMES, f"{case}: {kind} mounts {volume}")
    for container in pod["containers"]:
        expect(not any("hostPort" in port for port in container.get("ports", [])), f"{case}: {kind} takes a port of the host")
        own = container["securityContext"]
        expect(own["allowPrivilegeEscalation"] is False, f"{case}: {kind} may escalate")
        expect(own["readOnlyRootFilesystem"] is True, f"{case}: {kind} may write its root")
        expect(own["capabilities"] == {"drop": ["ALL"]}, f"{case}: {kind} keeps capabilities")
    mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    expect(mounts == volumes, f"{case}: {kind} mounts {sorted(mounts)} of the volumes {sorted(volumes)}")


def check_exporter_reads(exporter, case, text):
    """Checks that the exporter accepts the rendered configuration, with its paths in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        for path in ("/etc/lightfi-exporter", "/var/lib/lightfi-exporter"):
            text = text.replace(path, folder)
        (pathlib.Path(folder) / "credentials").mkdir()
        for name in ("client-id", "client-secret", "refresh-token"):
            (pathlib.Path(folder) / "credentials" / name).write_text("word")
        config = yaml.load(text, yaml.CSafeLoader)
        if web := config.get("web", {}).get("config_file"):
            pathlib.Path(web).parent.mkdir()
            pathlib.Path(web).write_text("")
        file = pathlib.Path(folder) / "config.yaml"
        file.write_text(text)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LIGHTFI_")}
        done = subprocess.run([exporter, "check", f"--config.file={file}"], capture_output=True, text=True, env=environment)
        expect(done.returncode == 0, f"{case}: the exporter refuses its configuration: {done.stderr.strip()}")


def refused(chart, values, word):
    try:
        render(chart, values)
    except helm.HelmError as error:
        expect(word in str(error), f"{json.dumps(values)} is refused without the word {word}: {error}")
    else:
        expect(False, f"{json.dumps(values)} is not refused")


def leaves(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key


def objects(schema, part, path=()):
    """Returns every object of the schema with a closed set of keys, by its path: `*` is an element of a list or a
    name that the user chooses."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
    if "properties" in part:
        yield path, part
    for key, value in part.get("properties", {}).items():
        yield from objects(schema, value, (*path, key))
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            yield from objects(schema, part[key], (*path, ("*", key)))


def planted(path):
    """Returns values with an unknown key at this path."""
    value = {"tpyo": 1}
    for key in reversed(path):
        value = [value] if key == ("*", "items") else {"x" if isinstance(key, tuple) else key: value}
    return value


def check_schema(chart):
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = dict(objects(schema, schema))
    for path, part in known.items():
        expect(part.get("additionalProperties") is False, f"values.schema.json: {path} takes unknown keys")
        refused(chart, planted(path), "tpyo")
    expect(len(known) > 200, f"values.schema.json: only {len(known)} objects are found")
    for leaf in leaves(read(CHART / "values.yaml")):
        parts, place = leaf.split("."), schema
        for part in parts:
            place = place.get("properties", {}).get(part) if "properties" in place else {}
            expect(place is not None, f"values.schema.json does not know {leaf}")
            place = place or {}
    config = {
        ".".join((*path[1:], key))
        for path, part in known.items()
        if path[:1] == ("config",) and all(isinstance(step, str) for step in path)
        for key in part["properties"]
        if (*path, key) not in known
    }
    defaults = set(leaves(read(ROOT / "src/config/default.yaml")))
    expect(config == defaults - OWN_KEYS, f"config in values.schema.json and src/config/default.yaml differ: {sorted(config ^ (defaults - OWN_KEYS))}")
    for values, word in [
        ({"config": {"oauth": {"client_secret": "x"}}}, "ConfigMap"),
        ({"config": {"oauth": {"refresh_token": "x"}}}, "ConfigMap"),
        ({"config": {"collect": {"interval": "10"}}}, "interval"),
        ({"config": {"collect": {"intreval": "10s"}}}, "intreval"),
        ({"config": {"sensors": [{"id": "A", "nmae": "x"}]}}, "sensors"),
        ({"credentials": {"clientId": "x"}}, "clientSecret"),
        ({"webConfig": {"tls": {"enabled": True}}}, "existingSecret"),
        ({"prometheusRule": {"alerts": {"LightFiCo2High": {"enabled": False}}}}, "LightFiCo2High"),
        ({"image": {"digest": "0123"}}, "digest"),
        ({"resources": {"limits": {"memory": "128MB"}}}, "memory"),
        ({"tokenStore": {"persistence": {"size": "1 Gi"}}}, "size"),
    ]:
        refused(chart, values, word)
    for quantity in ["64Mi", "0.5", "100m", "1e9", "128000Ki", 1]:
        render(chart, {"resources": {"limits": {"memory": quantity}}, "tokenStore": {"persistence": {"enabled": True, "size": quantity}}})


def check_alerts(chart):
    """Checks that the defaults give the rules of the file, and that each value changes only what it names."""

    def rules(values):
        enabled = {"enabled": True} | values
        found = [document for document in documents(render(chart, {"prometheusRule": enabled})) if document["kind"] == "PrometheusRule"]
        return {rule["alert"]: rule for group in found[0]["spec"]["groups"] for rule in group["rules"] if "alert" in rule}

    groups = read(ROOT / "deploy/prometheus/alerts.yml")["groups"]
    plain_rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    for rule in plain_rules.values():
        rule["expr"] = rule["expr"].strip()
    expect(rules({}) == plain_rules, "the chart's alerts are not those of deploy/prometheus/alerts.yml")
    entries = alerts()
    silent = {"prometheusRule": {"enabled": True, "alerts": {name: None for name in entries}}}
    expect("PrometheusRule" not in {document["kind"] for document in documents(render(chart, silent))}, "there are rules though each is taken out")
    off = rules({"alerts": {name: {"enabled": False} for name in list(entries)[1:]}})
    expect(set(off) == set(list(entries)[:1]), f"alerts that cannot be switched off: {sorted(off)[1:]}")
    turned = rules(
        {
            "alertLabels": {"team": "x"},
            "alerts": {
                name: {"for": "7h", "severity": "page"} | ({"threshold": 123.5} if "threshold" in entry else {})
                for name, entry in entries.items()
            },
        }
    )
    by_set = rules({"alerts": {"LightFiHumidityLow": {"threshold": "0.3"}}})["LightFiHumidityLow"]["expr"]
    expect(by_set == "lightfi_humidity_ratio < 0.3", f"a threshold by --set, which is a text, gives {by_set}")
    for name, rule in copy.deepcopy(plain_rules).items():
        rule["for"], rule["labels"] = "7h", rule["labels"] | {"severity": "page", "team": "x"}
        if "threshold" in entries[name]:
            rule["expr"] = THRESHOLD.sub(lambda found: found[0].removesuffix(found[1]) + "123.5", rule["expr"])
        expect(turned[name] == rule, f"{name} does not turn as its values say: {turned[name]}")


def check_promises(chart):
    """Checks what README and values say about the objects and no schema covers."""

    def rendered(kind, **values):
        return [document for document in documents(render(chart, values)) if document["kind"] == kind]

    def endpoint(**values):
        return rendered("ServiceMonitor", serviceMonitor={"enabled": True}, **values)[0]["spec"]["endpoints"][0]

    def container(**values):
        return rendered("Deployment", **values)[0]["spec"]["template"]["spec"]["containers"][0]

    def promised(good, what):
        expect(good, f"the chart does not keep its promise: {what}")

    stable = [{"action": "replace", "targetLabel": "instance", "replacement": "here"}, {"action": "labeldrop", "regex": "pod"}]
    promised(endpoint(fullnameOverride="here")["relabelings"] == stable, "a restart starts no new series")
    promised(endpoint(config={"web": {"telemetry_path": "/m"}})["path"] == "/m", "the monitor follows the telemetry path")

    tls = {"existingSecret": "web", "tls": {"enabled": True, "existingSecret": "tls"}}
    secure = endpoint(webConfig=tls)
    trusted = {"ca": {"secret": {"name": "tls", "key": "ca.crt"}}, "serverName": "lightfi-lightfi-exporter.buildings.svc"}
    promised(secure["scheme"] == "https" and secure["tlsConfig"] == trusted, "a scrape by TLS trusts the certificate's issuer")
    probes = [container(webConfig=tls)[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
    promised(all(probe["httpGet"]["scheme"] == "HTTPS" for probe in probes), "probes speak TLS where the exporter does")
    tls["tls"]["clientCertificates"] = True
    promised("tcpSocket" in container(webConfig=tls)["readinessProbe"], "probes need no client certificate")
    promised(not rendered("Pod", webConfig=tls), "no test without a client certificate")

    tls["tls"]["clientCertificates"] = False
    on = {"enabled": True}
    elsewhere = {"serviceMonitor": {"enabled": True, "namespace": "monitoring"}, "webConfig": tls}
    refused(chart, elsewhere, "serviceMonitor.tlsConfig")
    certified = {"existingSecret": "web", "tls": {"enabled": True, "existingSecret": "tls", "clientCertificates": True}}
    refused(chart, {"podMonitor": on, "webConfig": certified}, "podMonitor.tlsConfig")
    public = endpoint(webConfig={"existingSecret": "web", "tls": on})
    promised(public["tlsConfig"] == {"serverName": trusted["serverName"]}, "a scrape by TLS asks for the certificate's name")

    refused(chart, {"commonLabels": {"app.kubernetes.io/name": "other"}}, "selectors look for")
    refused(chart, {"credentials": {"existingSecret": "mine", "clientId": "a", "clientSecret": "b"}}, "existingSecret")
    refused(chart, {"config": {"api": {"url": "https://user:pass-8d1@example.com"}}}, "url")
    part_of = {"app.kubernetes.io/part-of": "platform"}
    for document in documents(render(chart, {"commonLabels": part_of, "tests": on, "networkPolicy": on})):
        promised(document["metadata"]["labels"].items() >= part_of.items(), "commonLabels win over the chart's labels")
    promised(rendered("ConfigMap", config=None), "a configuration of nothing is one")
    words = {"existingSecret": "1234", "keys": {"clientId": "null", "clientSecret": "true", "refreshToken": "0x10"}}
    volumes = rendered("Deployment", credentials=words, priorityClassName="100")[0]["spec"]["template"]["spec"]["volumes"]
    keys = [item["key"] for volume in volumes if volume["name"] == "credentials" for item in volume["secret"]["items"]]
    promised(keys == ["null", "true", "0x10"], "a name that looks like a number is a name")
    for document in documents(render(chart, {"tests": on}, "true", "2024")):
        metadata = document["metadata"]
        promised(metadata["namespace"] == "2024" and metadata["labels"]["app.kubernetes.io/instance"] == "true", "so are the release's")
    try:
        render(chart, {}, "1st")
    except helm.HelmError as error:
        promised("fullnameOverride" in str(error), f"a Service's name begins with a letter: {error}")
    else:
        promised(False, "a Service's name begins with a letter")

    policy = rendered("NetworkPolicy", networkPolicy={"enabled": True})[0]["spec"]
    ports = [(port["port"], port["protocol"]) for rule in policy["egress"] for port in rule["ports"]]
    promised(ports == [(53, "UDP"), (53, "TCP"), (443, "TCP")], "egress to DNS and 443 only")
    tests_pod = rendered("Pod")[0]["metadata"]["labels"]
    monitoring, tests = policy["ingress"][0]["from"]
    promised(monitoring == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}, "ingress from monitoring")
    other = {"enabled": True, "ingress": {"namespaceSelector": {"team": "observability"}}}
    peer = rendered("NetworkPolicy", networkPolicy=other)[0]["spec"]["ingress"][0]["from"][0]
    promised(peer["namespaceSelector"]["matchLabels"] == {"team": "observability"}, "ingress from whom the values name, not also monitoring")
    promised(tests["podSelector"]["matchLabels"].items() <= tests_pod.items(), "ingress from the pod of helm test")
    own = policy["podSelector"]["matchLabels"].items()
    promised(not own <= tests_pod.items(), "the test's pod is none of the service's")

    pods = [rendered("Deployment", config={"collect": {"interval": every}})[0]["spec"]["template"] for every in ("1m", "2m")]
    promised(pods[0]["metadata"] != pods[1]["metadata"], "a new configuration rolls the pod")
    given = {"clientId": "id-8d1", "clientSecret": "secret-8d1", "refreshToken": "token-8d1"}
    for document in documents(render(chart, {"credentials": given})):
        promised("8d1" not in json.dumps(document), f"no credential in plain text: {document['kind']}")
    kept = rendered("Deployment", tokenStore={"persistence": {"enabled": True}})[0]["spec"]["template"]["spec"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in kept["volumes"] if "persistentVolumeClaim" in volume]
    made = [claim["metadata"]["name"] for claim in rendered("PersistentVolumeClaim", tokenStore={"persistence": {"enabled": True}})]
    promised(claims == made != [], "the token store is on the claim")
    shown = {"dashboards": {"enabled": True, "grafanaOperator": {"enabled": True}}}
    maps = {document["metadata"]["name"]: document for document in rendered("ConfigMap", **shown)}
    for board in rendered("GrafanaDashboard", **shown):
        place = board["spec"]["configMapRef"]
        promised(place["key"] in maps[place["name"]]["data"], "each GrafanaDashboard finds its dashboard")
        promised(maps[place["name"]]["metadata"]["labels"]["grafana_dashboard"] == "1", "the sidecar finds each dashboard")
        promised(board["spec"]["instanceSelector"] == {"matchLabels": {"dashboards": "grafana"}}, "a Grafana of the usual label shows it")


MODELS = """
import { readFileSync } from "node:fs";
for (const [model, document] of JSON.parse(readFileSync(0, "utf8"))) {
  const models = await import(model);
  new models[document.kind](document).validate();
}
"""


def check_operators(seen):
    """Checks values with the operators' own models, and unknown keys with their types."""
    modelled = [(f"{OPERATORS[document['apiVersion']]}/{document['apiVersion']}", document) for document in seen]
    node = ROOT / ".tools/node"
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", MODELS], input=json.dumps(modelled), capture_output=True, text=True, cwd=node
    )
    expect(done.returncode == 0, f"the operators' models refuse: {done.stdout}{done.stderr}")
    planted = copy.deepcopy(next(pair for pair in modelled if pair[1]["kind"] == "ServiceMonitor"))
    planted[1]["spec"]["endpoints"][0]["intreval"] = "30s"
    with tempfile.TemporaryDirectory(dir=node) as folder:
        for name, pairs in (("rendered", modelled), ("planted", [planted])):
            lines = [
                f'export const d{index}: import("{model}").I{document["kind"]} = {json.dumps(document)};'
                for index, (model, document) in enumerate(pairs)
            ]
            (pathlib.Path(folder) / f"{name}.mts").write_text("\n".join(lines))
        done = subprocess.run(
            [node / "node_modules/.bin/tsc", "--noEmit", "--skipLibCheck", "--module", "nodenext", "rendered.mts", "planted.mts"],
            capture_output=True,
            text=True,
            cwd=folder,
        )
    wrong = [line for line in done.stdout.splitlines() if not line.startswith("planted.mts")]
    expect(not wrong, f"the operators' types refuse: {wrong}")
    expect("intreval" in done.stdout, f"the operators' types see no unknown key: {done.stdout}{done.stderr}")


def check_case(chart, exporter, case, values, operators):
    report = helm.lint(CHART, values, strict=True)
    # Severity 1 is information, about a missing icon.
    said = [message for message in report["messages"] or [] if message["severity"] > 1]
    expect(not said and not report["errors"], f"{case}: helm lint: {said or report['errors']}")
    known = set()
    checked = 0
    rendered = list(documents(render(chart, values)))
    for document in rendered:
        kind, metadata = document["kind"], document["metadata"]
        identity = (kind, metadata["namespace"], metadata["name"])
        expect(identity not in known, f"{case}: {identity} is rendered twice")
        known.add(identity)
        for label, value in (values.get("commonLabels") or {}).items():
            expect(metadata["labels"].get(label) == value, f"{case}: {kind} lacks the common label {label}")
        checked += 1
        if document["apiVersion"] in OPERATORS:
            operators.append(document)
        else:
            for version in KUBERNETES:
                check_kubernetes(case, document, version)
        if kind == "Deployment":
            check_restricted(case, kind, document["spec"]["template"]["spec"])
            expect(document["spec"]["replicas"] == 1 and document["spec"]["strategy"] == {"type": "Recreate"}, f"{case}: two exporters may run at once")
        if kind == "Pod":
            check_restricted(case, kind, document["spec"])
        if kind == "ConfigMap":
            for name, text in document["data"].items():
                if name.endswith(".json"):
                    expect(json.loads(text) == json.loads((ROOT / "grafana" / name).read_text()), f"{case}: {name} is another dashboard")
                    expect(len(text.encode()) < 250_000, f"{case}: {name} is too large for kubectl apply")
                else:
                    check_exporter_reads(exporter, case, text)
    if values.get("demo"):
        left = {document["kind"] for document in rendered} & {"Secret", "PersistentVolumeClaim"}
        expect(not left, f"{case}: a demo needs no {sorted(left)}")
    return checked


def check_every_value_is_tried(cases):
    """Checks that each value of the table is set in some file of ci/ to something other than its default."""
    defaults = read(CHART / "values.yaml")

    def at(tree, name):
        for key in name.split("."):
            tree = tree.get(key) if isinstance(tree, dict) else None
        return tree

    for name, _, _ in documented((CHART / "values.yaml").read_text()):
        tried = any(at(values, name) not in (None, at(defaults, name)) for values in cases.values())
        expect(tried or name in UNTRIED, f"no file in ci/ tries {name}")


def notes(values):
    with helm.Config(storage_driver="memory") as config:
        return config.install(CHART, "lightfi", values=values, namespace="buildings", dry_run="client")["notes"]


def check(exporter):
    for path, text in (derived() | plain()).items():
        current = path.read_text() if path.exists() else None
        expect(current == text, f"{path.relative_to(ROOT)} is not current: `make chart` writes it")
    for path in stale_copies(derived() | plain()):
        expect(False, f"{path.relative_to(ROOT)} is derived from nothing: `make chart` removes it")
    expect(read(CHART / "Chart.yaml")["appVersion"] == app_version(), "appVersion is not the crate's version")
    cases = {path.name: read(path) for path in sorted(CHART.glob("ci/*-values.yaml"))} | {"no values": {}}
    check_every_value_is_tried(cases)
    operators = []
    with helm.Chart.load(CHART) as chart:
        checked = sum(check_case(chart, exporter, case, values, operators) for case, values in cases.items())
        check_schema(chart)
        check_alerts(chart)
        check_promises(chart)
    for case, values in cases.items():
        expect("1. Check that it runs" in notes(values), f"{case}: NOTES.txt has no instructions")
    check_operators(operators)
    manifests = [path for path in sorted(PLAIN.glob("*.yaml")) if path.name not in ("kustomization.yaml", "values.yaml")]
    for path in manifests:
        for version in KUBERNETES:
            check_kubernetes(path.name, read(path), version)
    done = subprocess.run([ROOT / ".tools/venv/bin/hadolint", "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    expect(done.returncode == 0 and not done.stdout + done.stderr, f"hadolint says: {done.stdout}{done.stderr}")
    if failures:
        sys.exit("\n".join(failures))
    print(f"{checked} documents of {len(cases)} cases, {len(operators)} of them of operators, and {len(manifests)} plain manifests")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    else:
        check(sys.argv[2])
