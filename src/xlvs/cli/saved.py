# SPDX-License-Identifier: GPL-2.0-only
"""``xlvs save``, ``load`` and ``run``: the table in a file, for the next boot.

The file is what an operator would type, a command a line: ``ipvsadm --set``,
``-A`` and ``-a``, ``xlvs mark add`` and ``xlvs sysctl``.  What ``ipvsadm -S`` writes can be loaded as well.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import threading

from xlvs.cli import follow, saved_file
from xlvs.cli.attach import add_sizes, capacity_of
from xlvs.cli.terminal import add_command
from xlvs.datapath import open_datapath
from xlvs.datapath.modes import CHOICES
from xlvs.errors import NotLoaded, TableError, UsageError, XlvsError

DEFAULT_FILE = "/var/lib/xlvs/table"

_SAVE_HELP = """\
Write timeouts, services, real servers with their thresholds, mark rules and
changed settings to a file, for `xlvs load`. The file is replaced as a whole, or not at all."""

_SAVE_EPILOG = f"""\
examples:
  xlvs save                      to {DEFAULT_FILE}
  xlvs save -                    to standard output
  xlvs save >~/table.txt -       the same, into a file of your own

The file has a command a line, as typed: it can be read, edited and kept in
version control."""

_LOAD_HELP = """\
Load the data plane if it is not loaded, attach it, and bring the table to what
a file says. What the file does not have is removed; services and real servers
that stay as they are keep their connections and counters. A wrong line changes
nothing."""

_LOAD_EPILOG = f"""\
examples:
  xlvs load                      {DEFAULT_FILE}, attached to every interface that is up
  xlvs load eth0 eth1
  ipvsadm -Sn | xlvs load --file -
  xlvs load --file /etc/ipvsadm.rules

At boot: the service of systemd does it, see the README. Without systemd: `xlvs
load` in a start script and `xlvs save` in the one for the end, or `xlvs run`."""

_RUN_HELP = """\
What the service of systemd does, as one command for containers, labs and other
supervisors: load the file, follow interfaces (`xlvs follow`) until SIGTERM or
SIGINT, then save the table and detach the data plane. SIGHUP loads the file
anew. The packet path needs no process: if this one is killed, traffic goes on."""

_RUN_EPILOG = """\
examples:
  xlvs run                       as a container's command
  xlvs run --file /config/table --no-save eth0"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three commands."""
    save = add_command(subparsers, "save", "write the table to a file", _SAVE_HELP, _SAVE_EPILOG)
    save.add_argument("file", nargs="?", default=DEFAULT_FILE, metavar="FILE", help="- for standard output")
    save.add_argument("--file", dest="named", metavar="FILE", help="the same, as in `xlvs load`")
    save.add_argument("--if-loaded", action="store_true", help="no error where nothing is loaded")
    save.set_defaults(run=_save)

    load = add_command(
        subparsers, "load", "bring the table to what a file says, and attach", _LOAD_HELP, _LOAD_EPILOG
    )
    _add_load_arguments(load)
    load.set_defaults(run=_load)

    run = add_command(subparsers, "run", "load, wait for a signal, save and detach", _RUN_HELP, _RUN_EPILOG)
    _add_load_arguments(run)
    run.add_argument("--no-save", action="store_true", help="leave the file as it is at the end")
    run.set_defaults(run=_run, named=None)


def _add_load_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("interfaces", nargs="*", metavar="INTERFACE", help="default: every one that is up")
    parser.add_argument("--mode", choices=CHOICES, help="as in `xlvs attach`")
    add_sizes(parser)
    parser.add_argument(
        "--file", default=DEFAULT_FILE, metavar="FILE", help=f"default {DEFAULT_FILE}; - for standard input"
    )
    parser.add_argument("--if-saved", action="store_true", help="attach only, where there is no such file")


def _save(arguments: argparse.Namespace) -> int:
    from xlvs.kernel import bpffs
    from xlvs.kernel.privilege import require_root

    require_root()
    path = arguments.file if arguments.named is None else arguments.named
    if bpffs.namespace_folder() is None:
        if arguments.if_loaded:
            return 0
        raise NotLoaded(
            f"nothing is loaded in this network namespace, so there is nothing to save in {path}",
            "The file stays as it is. See what there is: xlvs status",
        )
    with open_datapath() as datapath:
        text = "".join(saved_file.write(datapath))
    if path == "-":
        sys.stdout.write(text)
    else:
        try:
            _replace(path, text)
        except OSError as error:
            raise XlvsError(
                f"cannot save to {path}: {error.strerror}", "Save elsewhere: xlvs save FILE"
            ) from error
    return 0


def _replace(path: str, text: str) -> None:
    """Put a text into a file's place from one moment to the next, on the disk when it is there.

    What is no file (/dev/stdout, a pipe) or a mount by itself, as in containers, is written to.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        _write(path, text)
        return
    path = os.path.realpath(path)  # a link stays a link
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    unfinished = f"{path}.{os.getpid()}"
    try:
        with open(unfinished, "x", encoding="utf-8", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(unfinished, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _write(path, text)
            os.unlink(unfinished)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _load(arguments: argparse.Namespace) -> int:
    from xlvs.datapath.activate import activate
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock
    from xlvs.kernel.privilege import require_root

    require_root()
    wanted = _read(arguments)
    loaded_before = bpffs.namespace_folder() is not None
    with table_lock(exclusive=True):
        # What is loaded keeps its sizes: the same command loads at boot, and anew later.
        loaded = bpffs.namespace_folder() is not None
        capacity = None if loaded else capacity_of(arguments)
        activation = activate(capacity, arguments.interfaces or None, arguments.mode, again=loaded)
    for refusal in activation.refused:
        print(f"xlvs: {refusal}", file=sys.stderr)
    if wanted is not None:
        try:
            with open_datapath(write=True, load=True) as datapath:
                saved_file.bring_about(wanted, datapath)
        except TableError as error:
            if not loaded_before:
                _detach()
            raise XlvsError(
                f"the table cannot be brought to what {arguments.file} says: {error.message}",
                error.hint or "Nothing was changed.",
            ) from error
    for link, hook in activation.attached:
        print(f"{link.name}: {hook}" if link.up else f"{link.name}: {hook}, but the interface is down")
    if not (activation.attached or activation.left_out):
        print("No Ethernet interface is up; later: xlvs attach INTERFACE")
    if wanted is not None:
        services = wanted.services()
        servers = sum(len(entry.destinations) for entry in services)
        print(f"services: {len(services)}, real servers: {servers}, mark rules: {len(wanted.mark_rules())}")
    return 0


def _read(arguments: argparse.Namespace) -> saved_file.Wanted | None:
    """The table that the file describes; None where it need not be there and is not."""
    try:
        if arguments.file == "-":
            text = sys.stdin.read()
        else:
            with open(arguments.file, encoding="utf-8") as file:
                text = file.read()
    except FileNotFoundError:
        if arguments.if_saved:
            return None
        raise UsageError(
            f"there is no file {arguments.file}",
            "Save a table first: xlvs save; or attach only: xlvs attach",
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{arguments.file} is no text") from None
    except OSError as error:
        raise XlvsError(
            f"cannot read {arguments.file}: {error.strerror}", "Name another one: xlvs load --file FILE"
        ) from error
    return saved_file.read(text, "standard input" if arguments.file == "-" else arguments.file)


def _run(arguments: argparse.Namespace) -> int:
    import signal

    if arguments.file == "-" and not arguments.no_save:
        raise UsageError("what came from standard input cannot be saved there", "Add --no-save")
    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    # Before loading, so that one that comes while it goes on is heard afterwards.
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    arguments.if_loaded = True
    _load(arguments)
    sys.stdout.flush()
    # A thread: it is in the same namespaces, and the signals are blocked in it, too.
    threading.Thread(target=_follow, daemon=True).start()
    while signal.sigwait(awaited) == signal.SIGHUP:
        try:
            _load(arguments)
        except (XlvsError, OSError) as error:  # the table is as it was
            print(f"xlvs: {error}", file=sys.stderr)
        sys.stdout.flush()
    if not arguments.no_save:
        _save(arguments)
    _detach()
    return 0


def _follow() -> None:
    try:
        follow.stay()
    except (XlvsError, OSError) as error:
        print(f"xlvs: interfaces that come back are not attached again: {error}", file=sys.stderr)


def _detach() -> None:
    from xlvs.datapath.activate import deactivate
    from xlvs.kernel import bpffs
    from xlvs.kernel.lock import table_lock

    if bpffs.root() is None:
        return
    with table_lock(exclusive=True):
        folder = bpffs.namespace_folder()
        if folder is not None:
            deactivate(folder)
