"""The way into a sandbox: run as a program of its own (`python -I -S enter.py`), never imported by cregraph.

It reads one JSON object from the descriptor that its argument names (made in `cregraph.engines.namespaces`), becomes the
sandbox, runs the command and writes one JSON object to the descriptor `report`:

    {"setup": text}                                 the system does not let the sandbox be made
    {"fault": text}                                 an error of ours
    {"exit": n, "end": text|null, "output": path}   it ran; `end` says which limit ended it; exit is -n for a signal

Two processes stand between cregraph and the command: the outer one holds the namespaces and kills the inner one when told to
(SIGTERM) or when cregraph dies; the inner one is process 1 inside, so all that runs there ends with it. Nothing but the
standard library is used, and nothing is imported once the root has changed: the modules found there are not ours.
"""

# ruff: noqa: PTH101, PTH102, PTH108, PTH110, PTH112, PTH116, PTH119, PTH120, PTH208, PTH211, S606
# Few imports, so that it starts fast; relative paths of mounts are texts.

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import termios
import time
import traceback
import warnings  # os.execvpe would import it, when it is too late
from typing import Any, NoReturn

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 24, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_RT_SIGACTION = (13, 134)  # x86-64, aarch64
_LOOK = 0.2  # seconds between two looks at the limits

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    with open(int(sys.argv[1]), "rb") as orders:
        spec = json.load(orders)
    os.set_inheritable(spec["report"], False)  # the command must not be able to answer for us
    try:
        status = _outer(spec)
    except BaseException as error:
        _report(spec, _words(error))
        status = 1
    os._exit(status)


def _outer(spec: dict[str, Any]) -> int:
    """Make the namespaces, start process 1 in them, and wait for it or for the order to end it."""
    if spec["user"]:
        uid, gid = os.geteuid(), os.getegid()
        _call("unshare (user namespace)", _libc.unshare(_NEWUSER))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    else:
        with contextlib.suppress(OSError):  # forbidden where root is root of a user namespace only
            os.setgroups([])
    _call("unshare", _libc.unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET | _NEWCGROUP))
    # After unshare: a change of credentials forgets it. The parent may have died before.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spec["parent"]:
        return 1
    signals = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    alive, held = os.pipe()
    inner = os.fork()
    if inner == 0:
        os.close(held)
        try:
            _inner(spec, alive)
        except BaseException as error:
            _report(spec, _words(error))
        os._exit(1)
    while signal.sigwait(signals) == signal.SIGCHLD:
        pid, _ = os.waitpid(inner, os.WNOHANG)
        if pid:
            return 0
    os.kill(inner, signal.SIGKILL)
    os.waitpid(inner, 0)  # returns once every process inside is gone
    return 1


def _inner(spec: dict[str, Any], alive: int) -> None:
    """Process 1: make the root, run the command, watch its limits. Ending ends everything inside."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # the outer process was gone before it could be noticed
    sys.meta_path.clear()  # from here on nothing can be imported
    _root(spec)
    socket.sethostname(spec["hostname"])
    _call("setdomainname", _libc.setdomainname(b"(none)", 6))
    _loopback()
    os.umask(spec["umask"])
    _rename("/cregraph/enter")
    output = spec["output"]
    if os.path.lexists(output):
        shutil.rmtree(output) if stat.S_ISDIR(os.lstat(output).st_mode) else os.unlink(output)
    made = _make_folders(output, spec["epoch"])
    real = os.path.realpath(output)
    if any(spec["cwd"].startswith(place + "/") for place in (*spec["writable"], output)):
        made += _make_folders(spec["cwd"], spec["epoch"])
    for path, times in [*reversed(made), *((path, (spec["epoch"],) * 2) for path in spec["timeless"])]:
        os.utime(path, times)
    os.chdir(spec["cwd"])
    if spec["cpu"] is not None:
        os.sched_setaffinity(0, {spec["cpu"]})
    _drop(spec["capabilities"])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _refuse_calls(bytes.fromhex(spec["filter"]))
    _prctl(_PR_SET_DUMPABLE, 0)  # the command cannot look into this process
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    command = os.fork()
    if command == 0:
        _command(spec)
    code, end = _watch(command, None if spec["shell"] else spec["limits"])
    _report(spec, {"exit": code, "end": end, "output": real})
    os._exit(0)


def _root(spec: dict[str, Any]) -> None:
    """Mount the task's root over the folder `merged` and make it /. Paths are relative, so that no mount tells of the host's."""
    os.chdir(spec["folder"])
    _mount("none", "/", None, _REC | _PRIVATE)
    lowers = ":".join(["skeleton", *(f"l/{i}" for i in range(spec["lowers"]))])
    options = f"lowerdir={lowers},upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,index=off"
    # Only root of the first user namespace may write overlayfs's own attributes; others keep them under user.*
    with open("/proc/self/uid_map", "rb") as file:
        xattr = "" if file.read().split() == [b"0", b"0", b"4294967295"] else ",userxattr"
    _mount("overlay", "merged", "overlay", _NODEV | _NOSUID, options + xattr)
    # A read-only overlay, not a bind mount: the mount table would name the store's folder.
    _mount("overlay", "merged" + spec["inputs"], "overlay", _RDONLY | _NODEV | _NOSUID, f"lowerdir=in:none{xattr}")
    _mount("proc", "merged/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    size = spec["limits"]["temporary"]
    _mount("tmpfs", "merged/tmp", "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={size}")
    _mount("tmpfs", "merged/dev", "tmpfs", _NOSUID | _NOEXEC, "mode=755,size=64k")
    for name in spec["devices"]:
        _write(f"merged/dev/{name}", "")
        _mount(f"/dev/{name}", f"merged/dev/{name}", None, _BIND)
    for name, target in spec["links"].items():
        os.symlink(target, f"merged/dev/{name}")
    for name in ("shm", "pts", "mqueue"):
        os.mkdir(f"merged/dev/{name}")
        os.chmod(f"merged/dev/{name}", 0o755)  # noqa: S103
    _mount("tmpfs", "merged/dev/shm", "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={size}")
    _mount("none", "merged/dev", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NOEXEC)
    for name in spec["read_only"]:
        path = f"merged/proc/{name}"
        if os.path.exists(path):
            _mount(path, path, None, _BIND | _REC)
            _mount("none", path, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    for name in spec["masked"]:
        path = f"merged/proc/{name}"
        if os.path.isdir(path):
            _mount("tmpfs", path, "tmpfs", _RDONLY | _NOSUID | _NODEV | _NOEXEC, "mode=555,size=0")
        elif os.path.exists(path):
            _mount("/dev/null", path, None, _BIND)
    os.chdir("merged")
    _call("pivot_root", _libc.pivot_root(b".", b"."))
    _call("umount2", _libc.umount2(b".", _DETACH))
    os.chdir("/")


def _make_folders(path: str, epoch: int) -> list[tuple[str, tuple[float, float]]]:
    """Make `path`, with what is missing above it. Returns the folders that this touched, with the times that they are to have."""
    if os.path.isdir(path):
        return []
    parent = os.path.dirname(path)
    above = _make_folders(parent, epoch)
    was = os.stat(parent)
    os.mkdir(path, 0o755)
    return [*above, *([] if above else [(parent, (was.st_atime, was.st_mtime))]), (path, (epoch, epoch))]


def _rename(name: str) -> None:
    """Have the process table show `name` for this process, and not the host's paths that it was started by."""
    _prctl(_PR_SET_NAME, ctypes.cast(ctypes.c_char_p(os.path.basename(name).encode()), ctypes.c_void_p).value or 0)
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc_pid_stat(5)
    text = name.encode()[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


def _loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _drop(kept: list[int]) -> None:
    """Give up all capabilities but `kept`, for good: what uid 0 gains by starting a program is bounded by the bounding set."""
    for number in range(64):
        if number not in kept and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # past the last one that this kernel knows
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    low = sum(1 << number for number in kept)
    data = struct.pack("6I", low, low, 0, 0, 0, 0)  # effective, permitted, inheritable; the same for numbers from 32
    _call("capset", _libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), data))


def _refuse_calls(program: bytes) -> None:
    """Set the seccomp filter `program` (struct sock_filter, one after the other), for good."""
    steps = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps))
    _call("prctl (seccomp)", _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), head, 0, 0))


def _command(spec: dict[str, Any]) -> NoReturn:
    """Become the command. Descriptors 1 and 2 are the log."""
    try:
        os.setsid()
        if not spec["shell"]:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        elif os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        limits = spec["limits"]
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_FSIZE, limits["file"])
        _limit(resource.RLIMIT_DATA, limits["memory"])
        _limit(resource.RLIMIT_NOFILE, 4096)
        _limit(resource.RLIMIT_STACK, 8 << 20, soft=True)
        for number in range(1, signal.NSIG):  # Python ignores some, and what is ignored stays so
            if number in (32, 33):  # the C library's own, which it lets nobody set; a parent may have left them ignored
                _libc.syscall(_RT_SIGACTION[os.uname().machine == "aarch64"], number, bytes(32), None, 8)
            elif number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:  # in the words of env(1)
        os.write(2, f"env: '{spec['argv'][0]}': {error.strerror}\n".encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    os._exit(125)


def _watch(command: int, limits: dict[str, int] | None) -> tuple[int, str | None]:
    """Reap what dies until the command itself does, or a limit is passed. Its exit status (-n: signal n), and which limit."""
    deadline = time.monotonic() + limits["seconds"] if limits else 0
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, _LOOK)
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == command:
                return os.waitstatus_to_exitcode(status), None
            if pid == 0:
                break
        if limits is None:
            continue
        if time.monotonic() > deadline:
            return -9, f"it ran longer than {limits['seconds']} s"
        count, memory = _usage()
        if count > limits["processes"]:
            return -9, f"it had {count} processes at once; {limits['processes']} are allowed"
        if memory > limits["memory"]:
            return -9, f"its processes held {memory >> 20} MiB of memory; {limits['memory'] >> 20} are allowed"
        disk = os.statvfs("/")
        if disk.f_bavail * disk.f_frsize < limits["spare"]:
            return -9, f"less than {limits['spare'] >> 20} MiB were left on the file system that it writes to"


def _usage() -> tuple[int, int]:
    """The processes beside this one, and the bytes that they hold resident and unshared."""
    count = pages = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != "1":
            count += 1
            try:
                with open(f"/proc/{name}/statm", "rb") as file:
                    fields = file.read().split()
                pages += int(fields[1]) - int(fields[2])
            except (OSError, IndexError):
                continue  # gone meanwhile
    return count, pages * resource.getpagesize()


def _limit(which: int, value: int, *, soft: bool = False) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, hard if soft else value))


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), data.encode() or None
    )
    _call(f"mount {kind or source} at /{target.partition('/')[2]}", result)


def _prctl(option: int, value: int) -> None:
    _call("prctl", _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _call(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "wb") as file:
        file.write(text.encode())


def _words(error: BaseException) -> dict[str, str]:
    if isinstance(error, OSError):
        return {"setup": f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"}
    return {"fault": "".join(traceback.format_exception(error))}


def _report(spec: dict[str, Any], answer: dict[str, Any]) -> None:
    os.write(spec["report"], json.dumps(answer).encode())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
