"""Starts the servers on loopback: the simulated cloud, the exporter, nginx, and the two peers."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import corpus, load
from .machine import MEASURED_CPU, OTHER_CPU, Process, children, cpu_seconds, free_port, memory, wait_until

HERE = Path(__file__).parent.parent
ROOT = HERE.parent
# Debian installs nginx in /usr/sbin, which may be missing from PATH.
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

# The same settings as in the image.
ENVIRONMENT = re.findall(r"^ENV (MALLOC_\w+)=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

OWN = re.compile(rb"^((?:lightfi_exporter_|lightfi_collect_|lightfi_up|process_)\S*) (\S+)$", re.MULTILINE)


class Bench:
    """A working directory, the programs, and every child process; leaving the context ends them all."""

    def __init__(self, directory, exporter, simulator, rust_peer):
        self.directory = Path(directory)
        self.exporter_program = Path(exporter).resolve()
        self.simulator_program = Path(simulator).resolve()
        self.rust_peer_program = Path(rust_peer).resolve()
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in reversed(self.running):
            server.end()

    def started(self, server):
        self.running.append(server)
        return server

    def end(self, *servers):
        for server in servers:
            server.end()
            self.running.remove(server)

    def series(self, count):
        """Returns the file that the peers serve."""
        return self.directory / f"series-{count}.jsonl"

    def simulator(self, count, latency="0", moments=1, apart=1):
        recording = self.directory / f"recording-{count}-{moments}-{apart}.csv"
        if not recording.exists():
            corpus.write_recording(recording, count, moments, apart)
        return self.cloud("--latency", latency, "--replay", recording)

    def cloud(self, *options):
        return self.started(Simulator(self, options))

    def exporter(self, simulator, where, cpu=MEASURED_CPU, wait=True, **sections):
        exporter = self.started(Exporter(self, simulator, where, cpu, **sections))
        if wait:
            exporter.wait()
        return exporter


class Simulator:
    """The simulated cloud, on the other CPU."""

    def __init__(self, bench, options):
        arguments = [bench.simulator_program, "simulate", *options]
        printed = bench.directory / "simulator.yaml"
        with open(printed, "wb") as stdout:
            self.process = Process(arguments, OTHER_CPU, bench.directory / "simulator.log", stdout)
        ready = lambda: printed.read_text().endswith("# ready\n") or not self.process.alive()
        wait_until(ready, "the simulated cloud's start")
        # All recorded sensors report within the first second.
        time.sleep(1.1)
        self.configuration = printed.read_text()
        if not self.process.alive():
            raise RuntimeError(f"the simulated cloud ended: {self.process.log.read_text()[-2000:]}")
        self.port = int(self.configuration.partition("url: ")[2].partition("\n")[0].strip('"').rpartition(":")[2])
        self.cpu_seconds = self.process.cpu_seconds
        self.end = self.process.end


class Exporter:
    name = "exporter"

    def __init__(self, bench, simulator, where, cpu, api=None, collect=None):
        self.port = free_port()
        self.file = bench.directory / f"exporter-{self.port}.yaml"
        self.configure = lambda collect: self.file.write_text(
            corpus.configuration(simulator.configuration, where, api, collect)
        )
        self.configure(collect)
        self.started_at = time.monotonic()
        self.process = Process(
            [
                bench.exporter_program,
                "--config.file", self.file,
                "--web.listen-address", f"127.0.0.1:{self.port}",
                "--log.level", "warn",
            ],
            cpu,
            bench.directory / "exporter.log",
            environment=ENVIRONMENT,
        )
        self.cpu_seconds = self.process.cpu_seconds
        self.peak_rss = self.process.peak_rss
        self.rss = self.process.rss
        self.end = self.process.end

    def wait(self, seconds=180):
        """Waits until the first collection has succeeded."""

        def ready():
            if not self.process.alive():
                raise RuntimeError(f"the exporter ended: {self.process.log.read_text()[-2000:]}")
            try:
                load.get(self.port, path="/-/ready", timeout=5)
                return True
            except (OSError, RuntimeError):
                return False

        wait_until(ready, "the exporter's first collection", seconds)
        # Measured before the first scrape.
        self.cpu_at_ready = self.cpu_seconds()
        own = self.own()
        if own["lightfi_up"] != 1 or own["lightfi_collect_sensors_failed"] != 0:
            raise RuntimeError(f"the first collection failed: {self.process.log.read_text()[-2000:]}")

    def own(self):
        """Returns the exporter's own series. Requested as Prometheus does, so that no other body has to be rendered."""
        body = load.get(self.port, load.PROMETHEUS).plain()
        return {series.decode(): float(value) for series, value in OWN.findall(body)}

    def requests(self, route, own=None):
        """Returns the number of API requests sent so far."""
        return (own or self.own())[f'lightfi_exporter_api_requests_total{{route="{route}"}}']

    def reload(self, collect):
        """Restarts it with other keys under `collect`."""
        self.configure(collect)
        os.kill(self.process.pid, signal.SIGHUP)


class Nginx:
    """nginx with one worker."""

    name = "nginx"
    CONFIGURATION = """
        daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            {http}
        }}
    """

    def __init__(self, bench, cpu, http, files, **more):
        self.port = free_port()
        directory = bench.directory / f"nginx-{self.port}"
        (directory / "files").mkdir(parents=True)
        for name, content in files.items():
            (directory / "files" / name).write_bytes(content)
        # When run as root, nginx's worker has another user.
        for path in (directory, directory / "files"):
            path.chmod(0o755)
        self.directory = directory
        configuration = directory / "nginx.conf"
        http = http.format(directory=directory, port=self.port, **more)
        configuration.write_text(self.CONFIGURATION.format(directory=directory, http=http))
        self.process = Process([NGINX, "-c", configuration, "-p", directory], cpu, directory / "log")
        self.end = self.process.end

    def cpu_seconds(self):
        return sum(cpu_seconds(pid) for pid in [self.process.pid, *children(self.process.pid)])

    def peak_rss(self):
        return max(memory(pid, "VmHWM") for pid in [self.process.pid, *children(self.process.pid)])


class FileServer(Nginx):
    """nginx that serves the exporter's own bytes as a file."""

    HTTP = """
            open_file_cache max=16 inactive=1h; open_file_cache_valid 1h;
            default_type "text/plain; version=0.0.4; charset=utf-8";
            server {{ listen 127.0.0.1:{port}; root {directory}/files; gzip_static on; }}
    """

    def __init__(self, bench, plain, gzipped):
        super().__init__(bench, MEASURED_CPU, self.HTTP, {"metrics": plain, "metrics.gz": gzipped})


class TlsFront(Nginx):
    """nginx that serves the simulated cloud over TLS."""

    HTTP = """
            upstream cloud {{ server 127.0.0.1:{cloud}; keepalive 128; keepalive_requests 1000000000; }}
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {directory}/files/certificate.pem; ssl_certificate_key {directory}/files/key.pem;
                location / {{ proxy_pass http://cloud; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}
    """

    def __init__(self, bench, simulator):
        certificate, key = certificate_of_loopback(bench.directory)
        files = {"certificate.pem": certificate.read_bytes(), "key.pem": key.read_bytes()}
        super().__init__(bench, OTHER_CPU, self.HTTP, files, cloud=simulator.port)
        self.configuration = simulator.configuration.replace(
            f'  url: "http://127.0.0.1:{simulator.port}"',
            f'  url: "https://127.0.0.1:{self.port}"\n  ca_file: {certificate}',
            1,
        )
        assert self.configuration != simulator.configuration
        answering(self)


def certificate_of_loopback(directory):
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not certificate.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
             "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
    return certificate, key


class Peer:
    """An ordinary exporter that serves the series of a file."""

    def __init__(self, bench, name, series):
        self.name = name
        self.port = free_port()
        program = {
            "rust": [bench.rust_peer_program],
            "python": [sys.executable, HERE / "peers/python/peer.py"],
        }[name]
        self.process = Process([*program, series, self.port], MEASURED_CPU, bench.directory / f"{name}.log")
        self.cpu_seconds = self.process.cpu_seconds
        self.peak_rss = self.process.peak_rss
        self.end = self.process.end


def answering(server):
    """Waits until the server accepts connections."""

    def asked():
        if not server.process.alive():
            raise RuntimeError(f"{server.name} ended: {server.process.log.read_text()[-2000:]}")
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", server.port)) == 0

    wait_until(asked, f"the start of {server.name}")
    return server
