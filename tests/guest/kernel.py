# SPDX-License-Identifier: GPL-2.0-only
"""Prepares what the guest boots from: a Debian kernel, an initramfs, the real ipvsadm.

Debian packages are downloaded with ``apt-get download`` and unpacked into a
cache folder (``$XLVS_GUEST_CACHE``, else ``/var/cache/xlvs/guest``).  Nothing
is installed on the machine.  Each cache entry is made in a temporary folder
and renamed into place, so a broken download never leaves half an entry, and
an entry that exists is used without asking the network.

Run ``python -m tests.guest.kernel [PACKAGE...]`` to prepare ahead of time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PACKAGE = "linux-image-amd64"
"""The kernel of Debian 12 (6.1): the generic flavour, because the cloud one lacks 9p."""
NEWER_PACKAGE = "linux-image-6.12-amd64"
"""The newer kernel that Debian 12 ships beside its own."""

BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What the initramfs must load before it can see the host's files."""

KEPT_MODULES = (
    "arch", "crypto", "lib", "net", "fs/9p", "fs/netfs", "fs/fscache", "fs/overlayfs",
    "drivers/virtio", "drivers/net/*.ko*", "drivers/net/bonding", "drivers/net/ipvlan",
    "drivers/net/team", "drivers/net/vxlan", "drivers/net/phy/*lib*", "drivers/ptp", "drivers/pps",
)  # fmt: skip
"""The parts of the module tree that a test of networking can want; the rest is 90 % of it."""

IPVSADM_PACKAGES = ("ipvsadm", "libnl-3-200", "libnl-genl-3-200", "libpopt0")
NEEDED = "The guest needs qemu-system-x86, kmod, xz-utils, and Debian's own apt and dpkg."
_XZ_MAGIC = b"\xfd7zXZ\0"
INIT_SCRIPT = Path(__file__).with_name("init.sh")


class PrepareError(Exception):
    """The guest's kernel or tools could not be made ready; the message says what to do."""


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """Where the things to boot are."""

    release: str
    """What ``uname -r`` will say."""
    kernel: Path
    """Unpacked where we can unpack it: under emulation that takes longer than all the rest of a boot."""
    initramfs: Path
    modules: Path
    """A folder with ``<release>/``, to be bound over /lib/modules."""
    tools: Path
    """A folder with ``sbin/ipvsadm`` and ``lib/*.so*``."""


def cache_folder() -> Path:
    """The cache's place, from the environment or the default."""
    return Path(os.environ.get("XLVS_GUEST_CACHE") or "/var/cache/xlvs/guest")


def prepare(package: str = DEFAULT_PACKAGE, *, refresh: bool = False) -> GuestFiles:
    """Make a kernel package and the tools ready and return where they are.

    Downloads only what the cache lacks, or everything when `refresh` is set.
    Raises `PrepareError`.
    """
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(
            f"cannot make the guest cache {cache}: {error.strerror}; "
            "set XLVS_GUEST_CACHE to a folder of your own"
        ) from error
    with _locked(cache):
        busybox = _entry(cache, "busybox-static", _unpack_busybox, refresh) / "busybox"
        tools = _entry(cache, "ipvsadm", _unpack_ipvsadm, refresh)
        tree = _entry(cache, package, lambda folder: _unpack_kernel(package, folder), refresh)
        release = (tree / "release").read_text().strip()
        initramfs = _initramfs(tree, release, busybox)
        kernel = _unpacked_kernel(tree)
    return GuestFiles(release, kernel, initramfs, tree / "lib/modules", tools)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let one process at a time work on the cache; another waits and then finds it filled."""
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _entry(cache: Path, name: str, fill: Callable[[Path], None], refresh: bool) -> Path:
    entry = cache / name
    if entry.is_dir() and not refresh:
        return entry
    making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        making.chmod(0o755)
        fill(making)
        if entry.is_dir():
            shutil.rmtree(entry)
        making.rename(entry)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return entry


# --- Debian packages ---------------------------------------------------------


def _unpack_busybox(folder: Path) -> None:
    with _downloaded(["busybox-static"]) as packages:
        _unpack(packages[0], folder, ["./bin/busybox", "./usr/bin/busybox"])
    _only(folder, "**/busybox").rename(folder / "busybox")


def _unpack_ipvsadm(folder: Path) -> None:
    with _downloaded(IPVSADM_PACKAGES) as packages:
        for package in packages:
            _unpack(package, folder / "all", ["./sbin", "./lib", "./usr/lib", "./usr/sbin"])
    (folder / "sbin").mkdir()
    _only(folder / "all", "**/sbin/ipvsadm").rename(folder / "sbin/ipvsadm")
    (folder / "lib").mkdir()
    for library in folder.glob("all/**/*.so*"):
        library.rename(folder / "lib" / library.name)
    shutil.rmtree(folder / "all")


def _unpack_kernel(package: str, folder: Path) -> None:
    image = _kernel_image(package)
    patterns = ["./boot/vmlinuz-*", "./boot/config-*"]
    for root in ("./lib/modules/*", "./usr/lib/modules/*"):
        patterns += [f"{root}/modules.*", *(f"{root}/kernel/{part}" for part in KEPT_MODULES)]
    with _downloaded([image]) as packages:
        _unpack(packages[0], folder, patterns)
    kernel = _only(folder, "boot/vmlinuz-*")
    release = kernel.name.removeprefix("vmlinuz-")
    kernel.rename(folder / "vmlinuz")
    if not (folder / "lib").exists():
        (folder / "usr/lib").rename(folder / "lib")
    packed = [str(module) for module in folder.glob("lib/modules/**/*.ko.xz")]
    if packed:
        _run(["xz", "--decompress", "--threads=0", *packed])
    _run(["depmod", "-b", str(folder), release])
    (folder / "release").write_text(f"{release}\n")


def _kernel_image(package: str) -> str:
    """Follow a kernel meta-package to the image that it depends on."""
    listing = _apt(["apt-cache", "depends", "--important", package])
    found = re.search(r"Depends: (linux-image-\d\S*)", listing)
    return found.group(1) if found else package


@contextmanager
def _downloaded(names: Sequence[str]) -> Iterator[list[Path]]:
    """Download Debian packages and yield their files, in the order of `names`."""
    with tempfile.TemporaryDirectory(prefix="xlvs-guest-") as folder:
        # apt's own unprivileged user cannot write into our folder, hence the sandbox user.
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names]
        _apt(command, folder)
        yield [_only(Path(folder), f"{name}_*.deb") for name in names]


def _apt(command: Sequence[str], folder: str | None = None) -> str:
    """Run an apt command; when it fails, refresh apt's package lists once and try again."""
    try:
        return _run(command, folder)
    except PrepareError:
        print("guest: refreshing apt's package lists", file=sys.stderr)
    try:
        _run(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"])
        return _run(command, folder)
    except PrepareError as error:
        raise PrepareError(
            f"{error}\nThe guest needs Debian packages ({' '.join(command[-4:])}): "
            "check the network and /etc/apt/sources.list.d, then try again"
        ) from error


def _unpack(package: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Unpack those files of a package that match; patterns that match nothing are no error."""
    folder.mkdir(exist_ok=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as stream:
        selection = ["--wildcards", "--no-wildcards-match-slash", *patterns]
        command = ["tar", "-x", "--no-same-owner", "-C", str(folder), *selection]
        done = subprocess.run(command, stdin=stream.stdout, stderr=subprocess.PIPE, text=True, check=False)
        stream.communicate()
    unexpected = [
        line
        for line in done.stderr.splitlines()
        if "Not found in archive" not in line and "previous errors" not in line
    ]
    if stream.returncode or unexpected:
        raise PrepareError(f"cannot unpack {package.name}: {'; '.join(unexpected) or 'damaged package'}")


def _only(folder: Path, pattern: str) -> Path:
    found = [path for path in folder.glob(pattern) if path.is_file()]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "nothing"
        raise PrepareError(f"expected one {pattern} in {folder}, found {names}")
    return found[0]


def _run(command: Sequence[str], folder: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise PrepareError(f"{command[0]} is missing; is a package not installed? {NEEDED}") from error
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise PrepareError(f"{' '.join(command[:8])} failed with status {done.returncode}: {last}")
    return done.stdout


def _unpacked_kernel(tree: Path) -> Path:
    """The kernel proper, an ELF file that boots by its PVH entry; the packed image if it is not xz's."""
    packed, kernel = tree / "vmlinuz", tree / "vmlinux"
    if kernel.exists():
        return kernel
    payload = _payload(packed.read_bytes())
    if not payload.startswith(_XZ_MAGIC):
        return packed
    making = kernel.with_suffix(f".{os.getpid()}")
    # Some bytes that are no part of the stream follow it.
    making.write_bytes(lzma.LZMADecompressor().decompress(payload))
    making.rename(kernel)
    return kernel


def _payload(image: bytes) -> bytes:
    """What a kernel image unpacks when it starts (Documentation/x86/boot.rst: payload_offset)."""
    try:
        sectors, offset, length = image[0x1F1] or 4, *struct.unpack_from("<II", image, 0x248)
    except (IndexError, struct.error):
        raise PrepareError(
            "the kernel's image is cut off; fetch it again: python -m tests.guest.kernel --refresh"
        ) from None
    start = (sectors + 1) * 512 + offset
    return image[start : start + length]


# --- initramfs ---------------------------------------------------------------


def _initramfs(tree: Path, release: str, busybox: Path) -> Path:
    """The initramfs of a kernel: busybox, the boot modules, and init.sh.

    Its name carries a digest of init.sh, so that an edited script makes a new one.
    """
    init = INIT_SCRIPT.read_bytes()
    digest = hashlib.sha256(init + repr(BOOT_MODULES).encode()).hexdigest()[:12]
    image = tree / f"initramfs-{digest}.cpio"
    if image.exists():
        return image
    modules = _load_order(tree, release)
    archive = _Cpio()
    for folder in ("bin", "modules", "proc", "sys", "dev", "host", "memory", "new"):
        archive.folder(folder)
    archive.file("init", 0o755, init)
    archive.file("bin/busybox", 0o755, busybox.read_bytes())
    archive.file("modules/order", 0o644, "".join(f"{module.name}\n" for module in modules).encode())
    for module in modules:
        archive.file(f"modules/{module.name}", 0o644, module.read_bytes())
    making = image.with_suffix(f".{os.getpid()}")
    making.write_bytes(archive.finish())
    making.rename(image)
    for stale in tree.glob("initramfs-*.cpio"):
        if stale != image:
            stale.unlink()
    return image


def _load_order(tree: Path, release: str) -> list[Path]:
    """The files of the boot modules with what they depend on, each once, in loading order."""
    order: dict[Path, None] = {}
    for name in BOOT_MODULES:
        shown = _run(["modprobe", "-d", str(tree), "-S", release, "--show-depends", name])
        for line in shown.splitlines():
            words = line.split()
            if words[0] == "insmod":
                order[Path(words[1])] = None
    return list(order)


class _Cpio:
    """Writes the archive format of an initramfs ("newc" in the kernel's buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def folder(self, name: str) -> None:
        self._add(name, 0o040755, b"")

    def file(self, name: str, mode: int, content: bytes) -> None:
        self._add(name, 0o100000 | mode, content)

    def finish(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._parts += [header, b"\0" * (-len(header) % 4), content, b"\0" * (-len(content) % 4)]


def main() -> int:
    """Prepare the kernels named on the command line and say where they are."""
    parser = argparse.ArgumentParser(description="Download and unpack what the guest boots from.")
    parser.add_argument("package", nargs="*", default=[DEFAULT_PACKAGE], help="Debian kernel packages")
    parser.add_argument("--refresh", action="store_true", help="download again what the cache already has")
    options = parser.parse_args()
    try:
        for package in options.package:
            files = prepare(package, refresh=options.refresh)
            print(f"{package}: kernel {files.release} in {files.kernel.parent}")
    except PrepareError as error:
        print(f"guest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
