"""What a filter of system calls decides on an architecture that this machine is not: libseccomp compiles it, as the
container runtime does, and a small machine for its instructions runs it."""

from __future__ import annotations

import ctypes
import struct
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

#: seccomp.h and linux/seccomp.h.
_ERRNO, ALLOW = 0x00050000, 0x7FFF0000
_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
_UNKNOWN = -1


class _Condition(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """A profile, compiled for one architecture and its 32-bit one.

    Arguments:
        profile: as the engine takes it; rules that depend on a capability are taken as for a container without any.
        architectures: in libseccomp's words, such as `aarch64`.
    """

    def __init__(self, profile: Mapping[str, Any], architectures: Sequence[str]) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")  # the container runtime needs it, so it is there
        self._lib.seccomp_init.restype = ctypes.c_void_p
        context = ctypes.c_void_p(self._lib.seccomp_init(_ERRNO | profile["defaultErrnoRet"]))
        native = self._lib.seccomp_arch_native()
        self._tokens = [self._lib.seccomp_arch_resolve_name(name.encode()) for name in architectures]
        for token in self._tokens:
            assert self._lib.seccomp_arch_add(context, token) == 0 or token == native
        if native not in self._tokens:
            assert self._lib.seccomp_arch_remove(context, native) == 0
        for rule in profile["syscalls"]:
            if "caps" not in rule.get("includes", {}):
                self._add(context, rule, profile["defaultErrnoRet"])
        with tempfile.TemporaryFile() as file:
            assert self._lib.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            self._code = list(struct.iter_unpack("=HBBI", file.read()))

    def _add(self, context: ctypes.c_void_p, rule: Mapping[str, Any], default: int) -> None:
        action = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule["errnoRet"]
        if action == _ERRNO | default:
            return  # as the runtimes do
        conditions = (_Condition * len(rule["args"]))(
            *(
                _Condition(
                    one["index"], _OPERATORS[one["op"].removeprefix("SCMP_CMP_")], one["value"], one.get("valueTwo", 0)
                )
                for one in rule["args"]
            )
        )
        for name in rule["names"]:
            number = self._lib.seccomp_syscall_resolve_name(name.encode())
            if number != _UNKNOWN:
                code = self._lib.seccomp_rule_add_array(context, action, number, len(conditions), conditions)
                assert code == 0, (name, code)

    def decide(self, call: str, *arguments: int, architecture: int = 0) -> int:
        """The kernel's action for a call by its name: `ALLOW`, or the number of the error."""
        token = self._tokens[architecture]
        number = self._lib.seccomp_syscall_resolve_name_arch(token, call.encode())
        assert number >= 0, call
        padded = [*arguments, *[0] * (6 - len(arguments))]
        found = self._run(struct.pack("=iIQ6Q", number, token & 0xFFFFFFFF, 0, *padded))
        return found if found == ALLOW else found & 0xFFFF

    def _run(self, data: bytes) -> int:
        at = value = 0
        while True:
            code, yes, no, k = self._code[at]
            at += 1
            if code == 0x20:  # load a word
                (value,) = struct.unpack_from("=I", data, k)
            elif code == 0x54:  # and
                value &= k
            elif code == 0x05:  # jump
                at += k
            elif code == 0x06:  # return
                return int(k)
            else:
                holds = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}[code]
                at += yes if holds else no
