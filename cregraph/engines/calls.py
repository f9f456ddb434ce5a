"""System calls that no sandbox gives its command, as a seccomp filter: classic BPF, struct sock_filter (seccomp(2)).

The default profiles of Docker and BuildKit refuse these to a container without CAP_SYS_ADMIN; namespaces by themselves do
not: a command there could make a user namespace in which it has every capability, and read the keyring of the user outside.
One filter in all of them makes what fails fail everywhere, in the same way. For programs of x86-64 and of i386; all else is
let through.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

__all__ = ["FILTER"]

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; of an argument its lower half
_X86_64, _I386 = 0xC000003E, 0x40000003
_X32 = 0x40000000  # the bit that marks calls of the x32 ABI
_NEW_NAMESPACES = 0x7E020000
#: personality(2): the flags that Docker lets through: Linux, 32 bit, UNAME26, both, and the question.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

#: Call -> its number on x86-64 and on i386, of those that are refused whole.
_REFUSED: Mapping[str, tuple[int, int]] = {
    "unshare": (272, 310),
    "setns": (308, 346),
    "add_key": (248, 286),
    "request_key": (249, 287),
    "keyctl": (250, 288),
    "perf_event_open": (298, 336),
    "bpf": (321, 357),
    "userfaultfd": (323, 374),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_CLONE, _CLONE3, _PERSONALITY = (56, 120), (435, 435), (135, 136)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; `yes` and `no` say how many of the next ones a comparison leaves out."""
    return struct.pack("<HBBI", code, yes, no, value)


def _answer(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number if number else _ALLOW)


def _of(machine: int) -> bytes:
    """The steps for one machine (0: x86-64, 1: i386); each ends with an answer."""
    steps = [_step(_LOAD, _NUMBER)]
    if machine == 0:
        steps += [_step(_AT_LEAST, _X32, no=1), _answer(errno.ENOSYS)]
    for numbers in _REFUSED.values():
        steps += [_step(_EQUAL, numbers[machine], no=1), _answer(errno.EPERM)]
    # The C library then takes clone, whose flags a filter can see.
    steps += [_step(_EQUAL, _CLONE3[machine], no=1), _answer(errno.ENOSYS)]
    steps += [_step(_EQUAL, _CLONE[machine], no=4), _step(_LOAD, _ARGUMENT), _step(_ANY_BIT, _NEW_NAMESPACES, no=1)]
    steps += [_answer(errno.EPERM), _answer(0)]
    steps += [_step(_EQUAL, _PERSONALITY[machine], no=2 * len(_PERSONALITIES) + 2), _step(_LOAD, _ARGUMENT)]
    for allowed in _PERSONALITIES:
        steps += [_step(_EQUAL, allowed, no=1), _answer(0)]
    return b"".join([*steps, _answer(errno.EPERM), _answer(0)])


def _filter() -> bytes:
    first, second = _of(0), _of(1)
    head = [_step(_LOAD, _MACHINE), _step(_EQUAL, _X86_64, no=len(first) // 8)]
    return b"".join([*head, first, _step(_EQUAL, _I386, no=len(second) // 8), second, _answer(0)])


#: The filter. It needs no_new_privs, and stays with all that the command starts.
FILTER = _filter()
