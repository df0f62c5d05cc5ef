"""What is started: the simulated cloud, the exporter, nginx, and the two ordinary peers. All on loopback."""

import sys
from pathlib import Path

from . import corpus, load
from .machine import MEASURED_CPU, OTHER_CPU, Process, children, cpu_seconds, free_port, memory, wait_until

HERE = Path(__file__).parent.parent
ROOT = HERE.parent


class Bench:
    """A directory to work in, the programs, and every child that was started: leaving it ends them all."""

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

    def simulator(self, count, recorded=True, **options):
        return self.started(Simulator(self, count, recorded, **options))

    def exporter(self, simulator, where, cpu=MEASURED_CPU, wait=True, **sections):
        exporter = self.started(Exporter(self, simulator, where, cpu, **sections))
        if wait:
            exporter.wait()
        return exporter


class Simulator:
    """The simulated cloud, on the other CPU."""

    def __init__(self, bench, count, recorded, latency="0", listing="sensors", moments=1):
        arguments = [bench.simulator_program, "simulate", "--latency", latency, "--listing", listing]
        if recorded:
            recording = bench.directory / f"recording-{count}-{moments}.csv"
            if not recording.exists():
                corpus.write_recording(recording, count, moments)
            arguments += ["--replay", recording]
        else:
            arguments += ["--sensors", str(count)]
        printed = bench.directory / "simulator.yaml"
        with open(printed, "wb") as stdout:
            self.process = Process(arguments, OTHER_CPU, bench.directory / "simulator.log", stdout)
        ready = lambda: printed.read_text().endswith("# ready\n") or not self.process.alive()
        wait_until(ready, "the simulated cloud's start")
        self.configuration = printed.read_text()
        if not self.process.alive():
            raise RuntimeError(f"the simulated cloud ended: {self.process.log.read_text()[-2000:]}")
        self.port = int(self.configuration.partition("url: ")[2].partition("\n")[0].strip('"').rpartition(":")[2])
        self.cpu_seconds = self.process.cpu_seconds
        self.end = self.process.end


class Exporter:
    name = "exporter"

    def __init__(self, bench, simulator, where, cpu, api=None, collect=None, extra="", program=None):
        self.port = free_port()
        self.file = bench.directory / f"exporter-{self.port}.yaml"
        self.file.write_text(corpus.configuration(simulator.configuration, where, api, collect) + extra)
        self.process = Process(
            [
                program or bench.exporter_program,
                "--config.file", self.file,
                "--web.listen-address", f"127.0.0.1:{self.port}",
                "--log.level", "warn",
            ],
            cpu,
            bench.directory / "exporter.log",
        )
        self.cpu_seconds = self.process.cpu_seconds
        self.peak_rss = self.process.peak_rss
        self.rss = self.process.rss
        self.end = self.process.end

    def wait(self, seconds=180):
        """Until the first collection has ended, and it was a good one."""

        def ready():
            if not self.process.alive():
                raise RuntimeError(f"the exporter ended: {self.process.log.read_text()[-2000:]}")
            try:
                load.get(self.port, path="/-/ready", timeout=5)
                return True
            except (OSError, RuntimeError):
                return False

        wait_until(ready, "the exporter's first collection", seconds)
        own = self.own()
        if own["lightfi_up"] != 1 or own["lightfi_collect_sensors_failed"] != 0:
            raise RuntimeError(f"the first collection failed: {self.process.log.read_text()[-2000:]}")

    def own(self):
        """The families without labels and the exporter's own, by name and labels."""
        return own(load.get(self.port).text())


def own(body):
    values = {}
    for line in body.splitlines():
        if line.startswith(("lightfi_exporter_", "lightfi_collect_", "lightfi_up", "process_")):
            series, _, value = line.rpartition(" ")
            values[series] = float(value)
    return values


class Nginx:
    """One worker, serving the exporter's own bytes as a file."""

    name = "nginx"
    CONFIGURATION = """
        daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
            open_file_cache max=16 inactive=1h; open_file_cache_valid 1h;
            default_type "text/plain; version=0.0.4; charset=utf-8";
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{ listen 127.0.0.1:{port}; root {directory}/files; gzip_static on; }}
        }}
    """

    def __init__(self, bench, plain, gzipped):
        self.port = free_port()
        directory = bench.directory / f"nginx-{self.port}"
        (directory / "files").mkdir(parents=True)
        (directory / "files/metrics").write_bytes(plain)
        (directory / "files/metrics.gz").write_bytes(gzipped)
        for path in (directory, directory / "files"):
            path.chmod(0o755)
        configuration = directory / "nginx.conf"
        configuration.write_text(self.CONFIGURATION.format(directory=directory, port=self.port))
        self.process = Process(["nginx", "-c", configuration, "-p", directory], MEASURED_CPU, directory / "log")
        self.end = self.process.end

    def cpu_seconds(self):
        return sum(cpu_seconds(pid) for pid in [self.process.pid, *children(self.process.pid)])

    def peak_rss(self):
        return max(memory(pid, "VmHWM") for pid in [self.process.pid, *children(self.process.pid)])


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
    """Waits until it does."""

    def asked():
        if not server.process.alive():
            raise RuntimeError(f"{server.name} ended: {server.process.log.read_text()[-2000:]}")
        try:
            load.get(server.port)
            return True
        except OSError:
            return False

    wait_until(asked, f"the start of {server.name}")
    return server
