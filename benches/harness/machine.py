"""Reads facts about the machine and about a process from the kernel, and starts and ends processes on one CPU."""

import contextlib
import ctypes
import os
import platform
import signal
import socket
import subprocess
import time
from pathlib import Path

# The measured server and the load share one CPU; the simulated cloud and this program use the other one, if there is one.
AVAILABLE = sorted(os.sched_getaffinity(0))
MEASURED_CPU = {AVAILABLE[0]}
OTHER_CPU = {AVAILABLE[-1]}

PRCTL = ctypes.CDLL(None).prctl
PR_SET_PDEATHSIG = 1


class Process:
    """A child process pinned to one CPU. Its output goes to a file, because a full pipe would block it."""

    def __init__(self, arguments, cpu, log, stdout=None, environment=()):
        self.log = Path(log)
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else out,
                stderr=out,
                env=clean_environment() | dict(environment),
                preexec_fn=on(cpu),
            )
        self.pid = self.child.pid

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def peak_rss(self):
        return memory(self.pid, "VmHWM")

    def rss(self):
        return memory(self.pid, "VmRSS")

    def alive(self):
        return self.child.poll() is None

    def end(self):
        end(self.child)


def on(cpu):
    """Returns the set-up of a child process: pin it to the CPU, and end it when this program ends."""

    def prepare():
        os.sched_setaffinity(0, cpu)
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


def end(child):
    """Ends the process by SIGTERM, then by SIGKILL."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(6)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def clean_environment():
    """Returns the environment without proxies and without settings of an exporter."""
    leave_out = ("LIGHTFI_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {key: value for key, value in os.environ.items() if not key.upper().startswith(leave_out)}


def cpu_seconds(pid):
    """Returns user and system time of a process and its ended threads, as the kernel accounts them.

    `/proc/PID/stat` has the same value in hundredths of a second, which is too coarse for a refresh of ten sensors. The
    number is what clock_getcpuclockid(3) makes of a pid.
    """
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid, what):
    """Returns a value of /proc/<pid>/status in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {what}")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(true, what, seconds=60.0, every=0.02):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took more than {seconds:.0f} s")
        time.sleep(every)


def description():
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{len(AVAILABLE)} CPUs ({model}), {gib:.0f} GiB, Linux {kernel}"
