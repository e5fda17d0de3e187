# SPDX-License-Identifier: GPL-2.0-only
"""Loading the packet path into this network namespace, and taking it out again.

Loading makes the maps, pins them under this namespace's folder, and starts
the timer that expires connections.  It is done in a folder of another name,
renamed at the end: a namespace has a whole data plane or none.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import time
from contextlib import suppress

from xlvs import __version__
from xlvs.datapath import hashing, sysctls
from xlvs.datapath.maps import Maps, row_bytes
from xlvs.datapath.records import milliseconds_to_ticks, seconds_to_ticks
from xlvs.errors import Unavailable, XlvsError
from xlvs.kernel import abi, bpf, bpffs, leftovers, libbpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Thread

OBJECT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "bpf", "director.bpf.o")
PROGRAMS = ("xlvs_tc", "xlvs_tc_out", "xlvs_tc_lo", "xlvs_xdp", "xlvs_start")

DEFAULT_CONNECTIONS = 262_144
DEFAULT_SERVICES = 16_384
DEFAULT_DESTINATIONS = 131_072

_TCP_TIMEOUTS = (2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120)
"""Seconds by state, in the order of `model.TCP_STATES` (kernel: ``tcp_timeouts``)."""
_UDP_TIMEOUT = 300
_SCTP_TIMEOUTS = (2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61)
"""Seconds by state, in the order of `model.SCTP_STATES` (kernel: ``sctp_timeouts``)."""
_TIMER_ATTEMPTS = 20
_ETHERNET_MINIMUM = bytes(64)


class Capacity:
    """How much a data plane can hold.

    ``connections`` is what certainly fits: the table has twice as many slots,
    so that every connection finds one near its place.
    """

    __slots__ = ("connections", "destinations", "services")

    def __init__(
        self,
        connections: int = DEFAULT_CONNECTIONS,
        services: int = DEFAULT_SERVICES,
        destinations: int = DEFAULT_DESTINATIONS,
    ) -> None:
        self.connections = connections
        self.services = services
        self.destinations = destinations


def _power_of_two(at_least: int) -> int:
    return 1 << max(at_least - 1, 1).bit_length()


def _cpu_rows() -> int:
    """One more than the highest CPU number that is online.

    Virtual machines often declare hundreds of possible CPUs; a row of
    counters for each would take hundreds of megabytes.
    """
    with open("/sys/devices/system/cpu/online") as file:
        return int(file.read().strip().replace(",", "-").split("-")[-1]) + 1


def _maglev_room(capacity: Capacity) -> int:
    """Pool elements for mh's tables, were it every service's scheduler, and one table more for a change.

    The more real servers a service has, the wider are its table's slots, and
    the fewer such services there can be.
    """
    tables = []
    for fewest in (2, 17, 257):  # with so many, slots have up to 4, then 8, then 16 bits
        width = max(hashing.slot_width(fewest - 1), 4)
        services = min(capacity.services, capacity.destinations // fewest)
        tables.append(hashing.packed_elements(abi.MH_SLOTS, width) * services)
    return max(tables) + hashing.packed_elements(abi.MH_SLOTS, 16)


def _limits(capacity: Capacity) -> abi.Limits:
    slots = _power_of_two(capacity.connections * 2)
    limits = abi.Limits(
        hash_seed=secrets.randbits(64),
        buckets=max(slots // abi.SLOTS_PER_BUCKET, abi.SWEEPS_PER_SECOND),
        services=capacity.services,
        destinations=capacity.destinations,
        # Each service's run has a header.  A change writes a second run, and the
        # gaps that earlier ones left may be too small for it.
        pool=2 * (2 * capacity.destinations + 16 * capacity.services) + _maglev_room(capacity),
        cpus=_cpu_rows(),
        # A tree has a block for eight real servers, and one for eight blocks; with 17 real servers,
        # 4 blocks.  A change makes a second one.
        loads=capacity.destinations // 2 + 64,
        services_at=abi.EVENTS_ROOM + capacity.destinations * ctypes.sizeof(abi.Traffic),
    )
    limits.hash_factor[:] = [secrets.randbits(64) | 1 for _ in limits.hash_factor]
    return limits


def map_entries(limits: abi.Limits) -> dict[str, int]:
    """The size of each map."""
    return {
        "settings": 1,
        "connections": limits.buckets,
        "bucket_guards": limits.buckets // abi.GUARDED_BUCKETS,
        "service_index": 2 * limits.services,
        "services": 2 * limits.services,
        "destinations": limits.destinations,
        "senders": limits.destinations,
        "pool": limits.pool,
        "loads": limits.loads,
        "counters": limits.cpus,
        "service_base": limits.services,
        "destination_base": limits.destinations,
        "service_estimates": limits.services,
        "destination_estimates": limits.destinations,
        "mark_rules": 2 * abi.MARK_RULES,
        "interfaces": 1,
        "sweepers": 1,
        "quotes": 1,
        "error_budgets": 4096,
        "fragments": 4096,
        "localities": 65536,
        "replicas": 131072,
        "call_ids": max(limits.buckets * abi.SLOTS_PER_BUCKET // 8, 1024),
    }


def size_maps(opened: libbpf.BpfObject, limits: abi.Limits) -> None:
    """Give every map its size; before the object is loaded."""
    for name, count in map_entries(limits).items():
        opened.set_entries(name, count)
    opened.set_value_size("counters", row_bytes(limits))


def load(capacity: Capacity | None = None) -> str:
    """Load the packet path and start its timer; returns the folder of pins.

    Attaches nothing.  The caller holds the table's lock and knows that
    nothing is loaded.  Raises `Unavailable` or `NotPermitted`; then nothing
    is left behind.
    """
    opened, limits = (ahead.take() if capacity is None else None) or _verified(capacity or Capacity())
    with opened:
        folder = _pin(opened, limits)
    leftovers.sweep()
    return folder


def _verified(capacity: Capacity) -> tuple[libbpf.BpfObject, abi.Limits]:
    """A packet path that the kernel has made maps for and verified, and the sizes of these."""
    limits = _limits(capacity)
    opened = libbpf.BpfObject(OBJECT)
    try:
        size_maps(opened, limits)
        opened.set_constants(".rodata.limits", bytes(limits))
        check_memory(sum(opened.map_bytes(name) for name in map_entries(limits)))
        opened.load()
    except BaseException:
        opened.close()
        raise
    return opened, limits


class Ahead:
    """A packet path of the usual size that is verified while whoever will `load` it does something else.

    The kernel takes half a second for it.  Nothing is pinned or attached before `load`, so
    nothing has changed if it never comes to that.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._made: tuple[libbpf.BpfObject, abi.Limits] | None = None

    def begin(self) -> None:
        """Begin, in a thread; then `take` it, or `drop` it."""
        from threading import Thread  # commands do without it

        self._thread = Thread(target=self._make, name="verifying", daemon=True)
        self._thread.start()

    def _make(self) -> None:
        with suppress(XlvsError):  # `load` will tell of it
            self._made = _verified(Capacity())

    def take(self) -> tuple[libbpf.BpfObject, abi.Limits] | None:
        """What has been verified, when it has; None where nothing was begun, or it was refused."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        made, self._made = self._made, None
        return made

    def drop(self) -> None:
        """Give it up if nobody has taken it."""
        made = self.take()
        if made is not None:
            made[0].close()


ahead = Ahead()
"""Of this process."""


def table_bytes(limits: abi.Limits) -> int:
    """About the memory that the maps take at these sizes, full."""
    with libbpf.BpfObject(OBJECT) as opened:
        size_maps(opened, limits)
        return sum(opened.map_bytes(name) for name in map_entries(limits))


def check_memory(needed: int) -> None:
    """Raise `Unavailable` for maps that the machine has no memory for.

    The kernel would find out only in the middle, and end other processes first.
    """
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    if needed > available:
        raise Unavailable(
            f"the table needs {needed >> 20} MiB of memory, and {available >> 20} MiB are available",
            libbpf.SMALLER_TABLE,
        )


def _pin(loaded: libbpf.BpfObject, limits: abi.Limits) -> str:
    """Pin a loaded object under this namespace's folder, all of it or nothing."""
    folder = bpffs.new_namespace_folder()
    unfinished = f"{folder}-new"  # a bpffs allows no dots
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        os.mkdir(unfinished, 0o700)
        os.mkdir(f"{unfinished}/links", 0o700)
        for name in map_entries(limits):
            loaded.pin_map(name, f"{unfinished}/{name}")
        for name in PROGRAMS:
            loaded.pin_program(name, f"{unfinished}/{name}")
        _write_settings(unfinished, limits)
        start_timer(f"{unfinished}/xlvs_start")
        os.rename(unfinished, folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise Unavailable(
            f"cannot pin the packet path under {bpffs.outside_path(folder)}: {error.strerror}",
            "Is the BPF file system there writable, and does the kernel have eBPF (Linux 6.1)?",
        ) from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def _write_settings(folder: str, limits: abi.Limits) -> None:
    settings = abi.Settings(abi_version=abi.ABI_VERSION, limits=limits, loaded_at=int(time.time()))
    note_version(settings)
    for state, seconds in enumerate(_TCP_TIMEOUTS):
        settings.timeout[state] = seconds_to_ticks(seconds)
    settings.timeout[abi.TIMEOUT_UDP] = seconds_to_ticks(_UDP_TIMEOUT)
    for state, seconds in enumerate(_SCTP_TIMEOUTS, start=abi.TIMEOUT_SCTP):
        settings.timeout[state] = seconds_to_ticks(seconds)
    settings.icmp_interval = _icmp_interval()
    sysctls.set_defaults(settings)
    descriptor = bpf.open_pin(f"{folder}/settings")
    try:
        bpf.update(descriptor, bytes(4), bytes(settings))
    finally:
        os.close(descriptor)


def note_version(settings: abi.Settings) -> None:
    """Note that the programs are this version's."""
    settings.program_version[:] = list(__version__.encode()[:16].ljust(16, b"\0"))


def program_version(settings: abi.Settings) -> str:
    """The version of the programs that are loaded."""
    return bytes(settings.program_version).rstrip(b"\0").decode(errors="replace")


def _icmp_interval() -> int:
    """Ticks between two ICMP errors to one client, by the sysctl that limits the kernel's own."""
    with open("/proc/sys/net/ipv4/icmp_ratelimit") as file:
        return milliseconds_to_ticks(int(file.read()))


def start_timer(pin: str) -> None:
    """Run the pinned program that starts the sweeper, or takes it over from another program.

    The kernel may lack memory for a moment.  Raises `Unavailable` if it goes on so.
    """
    program = bpf.open_pin(pin)
    try:
        for _ in range(_TIMER_ATTEMPTS):
            verdict, _, _ = bpf.run_program(program, _ETHERNET_MINIMUM)
            if verdict == 0:
                return
            time.sleep(0.05)
    finally:
        os.close(program)
    raise Unavailable(
        "the kernel has no memory for the timer that expires connections",
        "Free some memory, then try again.",
    )


def unload(folder: str) -> None:
    """Remove every pin of a data plane: its programs, links and tables end with them."""
    shutil.rmtree(folder)


def fill(maps: Maps) -> tuple[int, int]:
    """Live connections, and how many certainly fit."""
    live = 0
    for index in range(maps.settings.destinations_top):
        record = maps.destination(index)
        live += max(record.active, 0) + max(record.inactive, 0)
    return live, maps.limits.buckets * abi.SLOTS_PER_BUCKET // 2
