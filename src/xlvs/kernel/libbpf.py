# SPDX-License-Identifier: GPL-2.0-only
"""Loading an eBPF object with libbpf, and clsact where the kernel has no tcx.

Only loading and attaching need this module; everything that works on pinned
maps does without libbpf.  Functions of libbpf 1.0 only.
"""

from __future__ import annotations

import ctypes
import errno
import os
from types import TracebackType

from xlvs.errors import NotPermitted, Unavailable
from xlvs.kernel import bpf

SMALLER_TABLE = (
    "There is not enough memory for the table. Choose a smaller one: "
    "xlvs attach --connections 65536 --destinations 8192"
)
"""The hint for whoever asked for more than the machine has."""

_LOG_SIZE = 1 << 20
_BPF_TC_INGRESS = 1
_BPF_TC_EGRESS = 2
_BPF_TC_REPLACE = 1
_WITHOUT_JIT = "non-JITed programs"
"""In what the verifier says of callbacks while net.core.bpf_jit_enable is 0 (kernel: verifier.c)."""
_CAP_SYS_ADMIN, _CAP_PERFMON = 21, 38


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("unused", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
        ("kernel_log_buffer", ctypes.c_char_p),
        ("kernel_log_size", ctypes.c_size_t),
        ("kernel_log_level", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class _TcHook(ctypes.Structure):
    """``struct bpf_tc_hook``."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    """``struct bpf_tc_opts``."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise Unavailable(
            "libbpf.so.1 is not on this machine",
            "Install libbpf 1.0 or later (Debian, Ubuntu: apt-get install libbpf1).",
        ) from error
    for name in (
        "bpf_object__open_file", "bpf_object__find_map_by_name", "bpf_object__find_program_by_name",
        "bpf_map__initial_value",
    ):  # fmt: skip
        getattr(library, name).restype = ctypes.c_void_p
    # Its running commentary would go to stderr; errors reach us as return values.
    library.libbpf_set_print(None)
    for name in (
        "bpf_map__type", "bpf_map__key_size", "bpf_map__value_size", "bpf_map__max_entries",
        "bpf_map__map_flags",
    ):  # fmt: skip
        getattr(library, name).restype = ctypes.c_uint32
    return library


def _may_trace() -> bool:
    """Whether this process has PERFMON, or SYS_ADMIN, which includes it.

    Without it the verifier refuses programs that it would else accept, in many words.
    """
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective & (1 << _CAP_PERFMON | 1 << _CAP_SYS_ADMIN))


def _failure(what: str, error: int, log: str = "") -> Unavailable:
    """The exception for a refusal by libbpf or the kernel; ``error`` is an errno."""
    reason = os.strerror(error)
    if error == errno.EPERM or (error == errno.EACCES and not _may_trace()):
        return NotPermitted(
            f"{what}: {reason}",
            "Run it as root; in a container the capabilities BPF, NET_ADMIN and PERFMON are needed.",
        )
    if error == errno.ENOMEM:
        return Unavailable(f"{what}: {reason}", SMALLER_TABLE)
    if error in (errno.ENOSYS, errno.EOPNOTSUPP):
        return Unavailable(f"{what}: {reason}", "xlvs needs a kernel with eBPF, Linux 6.1 or later.")
    if _WITHOUT_JIT in log:
        return Unavailable(
            f"{what}: {reason}",
            "The kernel's JIT compiler for eBPF is turned off, and the packet path needs it: "
            "sysctl -w net.core.bpf_jit_enable=1",
        )
    tail = "\n".join(log.strip().splitlines()[-6:])
    return Unavailable(
        f"{what}: {reason}",
        f"The kernel refused it; xlvs needs Linux 6.1 or later.\n{tail}".rstrip(),
    )


class BpfObject:
    """An eBPF object file: open it, set sizes and constants, load, pin.

    Every method raises `Unavailable` (or `NotPermitted`) with the reason.
    """

    def __init__(self, path: str) -> None:
        self._library = _library()
        self._log = ctypes.create_string_buffer(_LOG_SIZE)
        options = _OpenOptions(
            size=ctypes.sizeof(_OpenOptions),
            object_name=b"xlvs",
            kernel_log_buffer=ctypes.cast(self._log, ctypes.c_char_p),
            kernel_log_size=_LOG_SIZE,
        )
        if not os.path.exists(path):
            raise Unavailable(f"{path} is missing", "Build it with: make build")
        handle = self._library.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
        if not handle:
            error = ctypes.get_errno()
            # From 4000 on they are libbpf's own, about the object's format (enum libbpf_errno).
            reason = os.strerror(error) if 0 < error < 4000 else "it is not a whole eBPF object"
            raise Unavailable(f"cannot open {path}: {reason}", "Build it again with: make build")
        self._options = options
        self._handle = ctypes.c_void_p(handle)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; what is pinned or attached of it stays."""
        self._library.bpf_object__close(self._handle)

    def _map(self, name: str) -> ctypes.c_void_p:
        find = self._library.bpf_object__find_map_by_name
        # A variable's is named after its section.
        handle = find(self._handle, name.encode()) or find(self._handle, f".data.{name}".encode())
        if not handle:
            raise Unavailable(f"the eBPF object has no map {name}", "Build it again with: make build")
        return ctypes.c_void_p(handle)

    def set_entries(self, name: str, entries: int) -> None:
        """Set a map's size; before `load`."""
        result = self._library.bpf_map__set_max_entries(self._map(name), ctypes.c_uint32(entries))
        if result:
            raise _failure(f"cannot size the map {name}", -result)

    def set_value_size(self, name: str, size: int) -> None:
        """Set how many bytes a map's values have; before `load`."""
        result = self._library.bpf_map__set_value_size(self._map(name), ctypes.c_uint32(size))
        if result:
            raise _failure(f"cannot size the map {name}", -result)

    def map_bytes(self, name: str) -> int:
        """About the memory that a map takes, full, at its present size."""
        library, handle = self._library, self._map(name)
        record = library.bpf_map__key_size(handle) + library.bpf_map__value_size(handle)
        return int(record * library.bpf_map__max_entries(handle))

    def map_layout(self, name: str) -> tuple[int, int, int, int, int]:
        """The layout that a map will have, as `xlvs.kernel.bpf.map_layout` tells that of one there is."""
        library, handle = self._library, self._map(name)
        return (
            int(library.bpf_map__type(handle)),
            int(library.bpf_map__key_size(handle)),
            int(library.bpf_map__value_size(handle)),
            int(library.bpf_map__max_entries(handle)),
            int(library.bpf_map__map_flags(handle)),
        )

    def reuse_map(self, name: str, descriptor: int) -> None:
        """Have the programs work on a map that there is; before `load`; the caller closes it."""
        result = self._library.bpf_map__reuse_fd(self._map(name), descriptor)
        if result:
            raise _failure(f"cannot go on with the map {name}", -result)

    def set_constants(self, section: str, value: bytes) -> None:
        """Overwrite the beginning of a constant section such as ``.rodata.limits``; before `load`."""
        size = ctypes.c_size_t()
        address = self._library.bpf_map__initial_value(self._map(section), ctypes.byref(size))
        if not address or size.value < len(value):
            raise Unavailable(f"the eBPF object has no room in {section}", "Build it again: make build")
        ctypes.memmove(address, value, len(value))

    def load(self) -> None:
        """Create the maps and have the kernel verify the programs."""
        result = self._library.bpf_object__load(self._handle)
        if result:
            log = self._log.value.decode(errors="replace")
            raise _failure("cannot load the packet path into the kernel", -result, log)

    def map_descriptor(self, name: str) -> int:
        """The file descriptor of a loaded object's map; it is closed with the object."""
        return int(self._library.bpf_map__fd(self._map(name)))

    def pin_map(self, name: str, path: str) -> None:
        """Pin a map of a loaded object."""
        result = self._library.bpf_map__pin(self._map(name), os.fsencode(path))
        if result:
            raise _failure(f"cannot pin the map {name} at {path}", -result)

    def _program(self, name: str) -> ctypes.c_void_p:
        handle = self._library.bpf_object__find_program_by_name(self._handle, name.encode())
        if not handle:
            raise Unavailable(f"the eBPF object has no program {name}", "Build it again: make build")
        return ctypes.c_void_p(handle)

    def program(self, name: str) -> int:
        """The file descriptor of a loaded object's program; it is closed with the object."""
        return int(self._library.bpf_program__fd(self._program(name)))

    def pin_program(self, name: str, path: str) -> None:
        """Pin a program of a loaded object."""
        result = self._library.bpf_program__pin(self._program(name), os.fsencode(path))
        if result:
            raise _failure(f"cannot pin the program {name} at {path}", -result)


def attach_xdp(ifindex: int, program: int) -> None:
    """Attach a program at native XDP, in the place of any, for as long as the interface lives.

    Raises `OSError` with the driver's reason.
    """
    result = _library().bpf_xdp_attach(ifindex, program, bpf.XDP_FLAGS_DRV_MODE, None)
    if result:
        raise OSError(-result, os.strerror(-result))


def _tc_hook(ifindex: int, direction: str) -> _TcHook:
    point = {"ingress": _BPF_TC_INGRESS, "egress": _BPF_TC_EGRESS}[direction]
    return _TcHook(size=ctypes.sizeof(_TcHook), ifindex=ifindex, attach_point=point)


def _tc_filter(handle: int, priority: int) -> _TcOptions:
    return _TcOptions(size=ctypes.sizeof(_TcOptions), handle=handle, priority=priority)


def attach_clsact(ifindex: int, direction: str, program: int, handle: int, priority: int) -> bool:
    """Make a program the clsact filter of that direction, handle and priority.

    ``direction`` is ``ingress`` or ``egress``.

    Returns whether the qdisc was made for it.  Raises `OSError`: EEXIST where
    another filter has that place.
    """
    library = _library()
    hook = _tc_hook(ifindex, direction)
    created = library.bpf_tc_hook_create(ctypes.byref(hook))
    if created and -created != errno.EEXIST:
        raise OSError(-created, os.strerror(-created))
    options = _tc_filter(handle, priority)
    options.prog_fd = program
    result = library.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
    if result:
        if not created:
            remove_clsact(ifindex)
        raise OSError(-result, os.strerror(-result))
    return not created


def replace_clsact(ifindex: int, direction: str, program: int, handle: int, priority: int) -> None:
    """Put a program in the place of the filter of that direction, handle and priority.

    The kernel exchanges them between two packets (``cls_bpf_change``).  Raises `OSError`.
    """
    hook = _tc_hook(ifindex, direction)
    options = _tc_filter(handle, priority)
    options.prog_fd = program
    options.flags = _BPF_TC_REPLACE
    result = _library().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
    if result:
        raise OSError(-result, os.strerror(-result))


def remove_clsact(ifindex: int) -> None:
    """Remove an interface's clsact qdisc, with every filter in it."""
    hook = _tc_hook(ifindex, "ingress")
    hook.attach_point = _BPF_TC_INGRESS | _BPF_TC_EGRESS
    _library().bpf_tc_hook_destroy(ctypes.byref(hook))


def clsact_program(ifindex: int, direction: str, handle: int, priority: int) -> int:
    """The kernel's number of the program in that place; 0 where there is none."""
    library = _library()
    hook = _tc_hook(ifindex, direction)
    options = _tc_filter(handle, priority)
    if library.bpf_tc_query(ctypes.byref(hook), ctypes.byref(options)):
        return 0
    return int(options.prog_id)


def detach_clsact(ifindex: int, direction: str, handle: int, priority: int) -> None:
    """Remove the filter in that place; the qdisc stays, others may use it."""
    library = _library()
    hook = _tc_hook(ifindex, direction)
    options = _tc_filter(handle, priority)
    result = library.bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
    if result and -result not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
        raise OSError(-result, os.strerror(-result))
