#!/usr/bin/env python3
# SPDX-License-Identifier: MIT        (full text at the end of this file)
"""Look keys up in live Linux BPF maps.  One file, standard library only.

    with Map.from_pin("/sys/fs/bpf/flows", key=FlowKey, value=FlowStats) as flows:
        print(flows[FlowKey(src=..., dst=...)].packets)

Map                 open a map: from_pin, from_id, from_name, from_fd, create; then lookup, [], in,
                    get, lookup_into, update, delete, items, batches, push and pop, mmap; its .btf;
                    records and submit of ring buffers
open_map            a Map from "id 5", "name foo", "pinned PATH", 5, "/path" or "foo"
create_token        a BPF token, with which a user namespace makes maps and reads their BTF
maps, pins, users   MapInfo of every map; {map id: [pin, ...]}; the programs and processes of one
layout, Layout      what bytes mean, of a ctypes class or of C text: describe, pack, ctype
BTF                 type information: from_vmlinux, from_id, from_file; offsetof, ctype, layout
check_layout        refuse a ctypes type that does not fit; describe_layout shows its holes
to_python, to_json  decode a key or value
capture, Capture    write a map down; read it elsewhere
possible_cpus       the CPUs that the values of a per-CPU map belong to
lpm_key, parse_type the key of an LPM trie for "10.0.0.0/8"; the ctypes type for "u32 a, u16 b"
trace               print every bpf(2) call, like strace
BPFError            root of every error raised here; KeyNotFound is also a KeyError
main                the command line: python3 bpflookup.py --help

Sections (grep '^# ---- '), each of which begins with how it works and uses only earlier ones;
their parts have a line "# -- " each (grep '^# -' lists both):
1 ABI               numbers and structures of linux/bpf.h; what sets the map types apart
2 Errors            the exceptions, which errno becomes which, and the hints
3 System call       the one way into bpf(2); who closes descriptors; trace; possible CPUs
4 Layout            what the bytes of a key or value mean, and how they are read and written
5 BTF               type information: parse it, prove it, make Layouts of it
6 Map               open maps, single elements, scans, batches, mmap, ring buffers
7 Inspection        which maps there are, who pins and who uses them
8 Views, captures   entries as JSON, words, histograms, metrics; captures of maps in files
9 Command line      main
"""

__version__ = "0.2.0"

# The public names, which "from bpflookup import *" brings; section 1 adds the kernel's constants.
# fmt: off
__all__ = [
    "Map", "MapInfo", "MemoryMap", "Records", "open_map", "create_token", "maps", "pins",
    "users",
    "layout", "Layout", "Number", "Enum", "Boolean", "Char", "Float", "Pointer", "Bytes",
    "Array", "Record", "Member", "Meaning", "MEANINGS", "Reader",
    "check_layout", "describe_layout", "type_name", "parse_type", "python_source", "to_python",
    "to_json",
    "BTF", "BTFType", "Offset", "capture", "Capture", "histogram",
    "possible_cpus", "percpu_stride", "lpm_key", "trace", "main",
    "map_type_name", "cmd_name", "errno_name", "syscall_number", "ENOTSUPP",
    "BPFError", "SyscallError", "KeyNotFound", "KeyExists", "KeyOutOfRange", "IndexNotFound",
    "MapFull", "MapNotFound", "PinExists",
    "PermissionDenied", "NotSupported", "BadFileDescriptor", "BadAddress", "InvalidArgument",
    "Busy", "OutOfMemory",
    "AmbiguousName", "LayoutError", "NoSuchField", "BTFError", "IterationAborted",
]
# fmt: on

import sys

try:
    import ctypes
except ImportError as _missing:  # _ctypes, an extension that distributions package by itself
    _missing.msg = (
        "this Python lacks ctypes, which bpflookup needs (%s): install python3, not only "
        "python3-minimal" % _missing.msg
    )
    if __name__ != "__main__":
        raise
    sys.exit("bpflookup: %s" % _missing)
import errno
import os
import struct

# the C halves of functools, operator, threading and weakref: those whole take longer to import
from _functools import partial  # type: ignore
from _operator import add, itemgetter, methodcaller
from _thread import RLock, allocate_lock, get_ident
from _weakref import ref as weak_reference
from ctypes import addressof, byref, get_errno, set_errno, sizeof
from itertools import chain, cycle, groupby, islice, repeat

# Annotations are strings, so that typing, which reads many files, need not be imported when the
# file runs.  The names in them are for mypy, pyright and editors, which take TYPE_CHECKING for
# true; typing_extensions is among what those bring along.
#
# Only what is public is annotated.  ctypes makes its types at run time, where checkers can't
# follow, so they leave the rest alone.  What they are not to report:
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs, no-warn-return-any
# mypy: allow-any-generics, no-warn-unused-ignores, disable-error-code=annotation-unchecked
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportReturnType=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportIndexIssue=false
# pyright: reportOptionalCall=false, reportOptionalIterable=false, reportOptionalOperand=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
TYPE_CHECKING = False
if not TYPE_CHECKING:

    class _Subscriptable(type):
        """Makes Map[FlowKey, FlowStats] the class Map, for annotations that are evaluated."""

        def __getitem__(cls, types):
            return cls

    class _Generic(metaclass=_Subscriptable):
        """Stands in for typing.Generic, for which typing would have to be imported."""

        __slots__ = ()

    _Key = _Value = None

    def overload(method):
        return method

else:
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional
    from typing import Generic as _Generic
    from typing import Protocol, Sequence, SupportsIndex, Tuple, Type, Union, overload
    from typing_extensions import Buffer, Self, TypeAlias, TypeVar

    class _HasFileno(Protocol):
        def fileno(self) -> int: ...

    _Path = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]
    _Descriptor = Union[int, _HasFileno]
    _Object = Union[ctypes.Structure, ctypes.Union, ctypes.Array[Any], ctypes._SimpleCData[Any]]
    _GivenKey = Union[Buffer, SupportsIndex, str, _HasFileno]
    _GivenBatch = Union[Buffer, Iterable[Any]]
    _GivenValue = Union[_GivenKey, float, List[Any], Tuple[Any, ...]]
    # The parameters of Map are the types it was opened with.  A Map[FlowKey, c_uint64] hands out
    # keys that are FlowKey objects and values that are ints: the overloads of lookup and the
    # others say so.  Types that come from BTF are Any.
    _Key = TypeVar("_Key", covariant=True)
    _Value = TypeVar("_Value", covariant=True)
    _KeyType = TypeVar("_KeyType", bound=Union[_Object, bytes], default=Any)
    _ValueType = TypeVar("_ValueType", bound=Union[_Object, bytes], default=Any)
    _Number = TypeVar("_Number")
    _KeyNumber = TypeVar("_KeyNumber")
    _Default = TypeVar("_Default")
    _Scalar = ctypes._SimpleCData
    _NumberValues: TypeAlias = "_OpenMap[Any, _Scalar[_Number]]"
    _NumberKeys: TypeAlias = "_OpenMap[_Scalar[_KeyNumber], Any]"
    _TypeOf = Union[Type[_Number], Type["BTF"], None]
    _Meant = Union[Type[_Object], Type[bytes], "Layout", str, None]
    _GivenType = Union[int, str, "BTFType"]


# ---- 1. ABI -----------------------------------------------------------------
# Numbers, names and structures of linux/bpf.h and linux/btf.h, in the kernel's spelling.  The
# margin says which kernel version brought each.  In order: constants; their names; sets of map
# types; the arms of union bpf_attr; which arm a command uses and how many bytes of it are passed;
# the structures that BPF_OBJ_GET_INFO_BY_FD fills.
#
# The kernel's enumerations only ever grow at the end.  What a newer kernel knows and this file does
# not is printed as "type_99" or "cmd_99" and is never an error by itself.
#
# A new constant      goes to the end of its list, and once more into __all__ below.
# A new map type      also goes into those of the sets below that fit it: they decide what its keys
#                     and values are, and how it is scanned.  A type that is in no set is a map of
#                     keys and values that is walked from key to key.  Then, where it applies:
#                     2  _EINVAL_MEANS_NO  commands that it refuses with EINVAL
#                        _NET_ADMIN_TYPES  creating it takes CAP_NET_ADMIN
#                     6  _ENTRY_PER_CPU_TYPES  max_entries is the number of CPUs if not given
#                        _Whole._mapped_length  its memory can be mapped
#                        _no_ring_error    programs send records through it
#                     8  View.__init__     what its keys or values mean, where no BTF says it
#                     9  _DESCRIPTOR_ARRAYS  a dump shows every index, with an error if it has one
#                        _ALWAYS_FULL      every index has an entry
#                        _SMALLEST_OF      the smallest map of it, for probe
#                     What is special to a single type asks for it by name: grep one that is alike.
# A new command       also gets a row in _ARMS.
# A new field         goes to the end of its arm or structure; _ARMS only has to change where the
#                     field must always be passed.

# -- constants

u8 = ctypes.c_uint8
u16 = ctypes.c_uint16
u32 = ctypes.c_uint32
u64 = ctypes.c_uint64
s32 = ctypes.c_int32

# fmt: off
# enum bpf_cmd
BPF_MAP_CREATE = 0                      # 3.18
BPF_MAP_LOOKUP_ELEM = 1                 # 3.18
BPF_MAP_UPDATE_ELEM = 2                 # 3.18
BPF_MAP_DELETE_ELEM = 3                 # 3.18
BPF_MAP_GET_NEXT_KEY = 4                # 3.18
BPF_PROG_LOAD = 5                       # 3.18
BPF_OBJ_PIN = 6                         # 4.4
BPF_OBJ_GET = 7                         # 4.4
BPF_PROG_ATTACH = 8                     # 4.10
BPF_PROG_DETACH = 9                     # 4.10
BPF_PROG_TEST_RUN = 10                  # 4.12
BPF_PROG_GET_NEXT_ID = 11               # 4.13
BPF_MAP_GET_NEXT_ID = 12                # 4.13
BPF_PROG_GET_FD_BY_ID = 13              # 4.13
BPF_MAP_GET_FD_BY_ID = 14               # 4.13
BPF_OBJ_GET_INFO_BY_FD = 15             # 4.13
BPF_PROG_QUERY = 16                     # 4.15
BPF_RAW_TRACEPOINT_OPEN = 17            # 4.17
BPF_BTF_LOAD = 18                       # 4.18
BPF_BTF_GET_FD_BY_ID = 19               # 4.18
BPF_TASK_FD_QUERY = 20                  # 4.18
BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21     # 4.20, of hashes 5.14
BPF_MAP_FREEZE = 22                     # 5.2
BPF_BTF_GET_NEXT_ID = 23                # 5.4
BPF_MAP_LOOKUP_BATCH = 24               # 5.6
BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25    # 5.6
BPF_MAP_UPDATE_BATCH = 26               # 5.6
BPF_MAP_DELETE_BATCH = 27               # 5.6
BPF_LINK_CREATE = 28                    # 5.7
BPF_LINK_UPDATE = 29                    # 5.7
BPF_LINK_GET_FD_BY_ID = 30              # 5.8
BPF_LINK_GET_NEXT_ID = 31               # 5.8
BPF_ENABLE_STATS = 32                   # 5.8
BPF_ITER_CREATE = 33                    # 5.8
BPF_LINK_DETACH = 34                    # 5.9
BPF_PROG_BIND_MAP = 35                  # 5.10
BPF_TOKEN_CREATE = 36                   # 6.9
BPF_PROG_STREAM_READ_BY_FD = 37         # 6.17
BPF_PROG_ASSOC_STRUCT_OPS = 38          # 7.0
# So far only commands begin with BPF_.
_CMD_NAMES = {number: name for name, number in dict(globals()).items() if name.startswith("BPF_")}

# A bit of the command: arguments 4 and 5 of bpf(2) are a bpf_common_attr and its size.
BPF_COMMON_ATTRS = 1 << 16              # 7.2

# enum bpf_map_type
BPF_MAP_TYPE_HASH = 1                   # 3.19
BPF_MAP_TYPE_ARRAY = 2                  # 3.19
BPF_MAP_TYPE_PROG_ARRAY = 3             # 4.2
BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4       # 4.3
BPF_MAP_TYPE_PERCPU_HASH = 5            # 4.6
BPF_MAP_TYPE_PERCPU_ARRAY = 6           # 4.6
BPF_MAP_TYPE_STACK_TRACE = 7            # 4.6
BPF_MAP_TYPE_CGROUP_ARRAY = 8           # 4.8
BPF_MAP_TYPE_LRU_HASH = 9               # 4.10
BPF_MAP_TYPE_LRU_PERCPU_HASH = 10       # 4.10
BPF_MAP_TYPE_LPM_TRIE = 11              # 4.11
BPF_MAP_TYPE_ARRAY_OF_MAPS = 12         # 4.12
BPF_MAP_TYPE_HASH_OF_MAPS = 13          # 4.12
BPF_MAP_TYPE_DEVMAP = 14                # 4.14
BPF_MAP_TYPE_SOCKMAP = 15               # 4.14
BPF_MAP_TYPE_CPUMAP = 16                # 4.15
BPF_MAP_TYPE_XSKMAP = 17                # 4.18
BPF_MAP_TYPE_SOCKHASH = 18              # 4.18
BPF_MAP_TYPE_CGROUP_STORAGE = 19        # 4.19
BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 20   # 4.19
BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE = 21 # 4.20
BPF_MAP_TYPE_QUEUE = 22                 # 4.20
BPF_MAP_TYPE_STACK = 23                 # 4.20
BPF_MAP_TYPE_SK_STORAGE = 24            # 5.2
BPF_MAP_TYPE_DEVMAP_HASH = 25           # 5.4
BPF_MAP_TYPE_STRUCT_OPS = 26            # 5.6
BPF_MAP_TYPE_RINGBUF = 27               # 5.8
BPF_MAP_TYPE_INODE_STORAGE = 28         # 5.10
BPF_MAP_TYPE_TASK_STORAGE = 29          # 5.11
BPF_MAP_TYPE_BLOOM_FILTER = 30          # 5.16
BPF_MAP_TYPE_USER_RINGBUF = 31          # 6.1
BPF_MAP_TYPE_CGRP_STORAGE = 32          # 6.2
BPF_MAP_TYPE_ARENA = 33                 # 6.9
BPF_MAP_TYPE_INSN_ARRAY = 34            # 6.19
BPF_MAP_TYPE_RHASH = 35                 # 7.2
_MAP_TYPE_NAMES = {number: name[len("BPF_MAP_TYPE_"):].lower()
                   for name, number in dict(globals()).items()
                   if name.startswith("BPF_MAP_TYPE_")}

# map_flags of BPF_MAP_CREATE; RDONLY and WRONLY are also open_flags and file_flags
BPF_F_NO_PREALLOC = 1 << 0              # 4.6
BPF_F_NO_COMMON_LRU = 1 << 1            # 4.10
BPF_F_NUMA_NODE = 1 << 2                # 4.14
BPF_F_RDONLY = 1 << 3                   # 4.15
BPF_F_WRONLY = 1 << 4                   # 4.15
BPF_F_STACK_BUILD_ID = 1 << 5           # 4.17
BPF_F_ZERO_SEED = 1 << 6                # 5.0
BPF_F_RDONLY_PROG = 1 << 7              # 5.2
BPF_F_WRONLY_PROG = 1 << 8              # 5.2
BPF_F_CLONE = 1 << 9                    # 5.4
BPF_F_MMAPABLE = 1 << 10                # 5.5
BPF_F_PRESERVE_ELEMS = 1 << 11          # 5.10
BPF_F_INNER_MAP = 1 << 12               # 5.10
BPF_F_LINK = 1 << 13                    # 6.4
BPF_F_PATH_FD = 1 << 14                 # 6.5
BPF_F_VTYPE_BTF_OBJ_FD = 1 << 15        # 6.9
BPF_F_TOKEN_FD = 1 << 16                # 6.9
BPF_F_SEGV_ON_FAULT = 1 << 17           # 6.9
BPF_F_NO_USER_CONV = 1 << 18            # 6.9
BPF_F_RB_OVERWRITE = 1 << 19            # 7.0

# flags of the element commands
BPF_ANY = 0                             # create or replace
BPF_NOEXIST = 1                         # create only
BPF_EXIST = 2                           # replace only
BPF_F_LOCK = 4                          # 5.1: under the bpf_spin_lock in the value
BPF_F_CPU = 8                           # 7.0: the value of one CPU, whose number is in bits 32..63
BPF_F_ALL_CPUS = 16                     # 7.0: one value for every CPU

# kinds of struct btf_type (linux/btf.h)
BTF_KIND_INT = 1                        # 4.18
BTF_KIND_PTR = 2                        # 4.18
BTF_KIND_ARRAY = 3                      # 4.18
BTF_KIND_STRUCT = 4                     # 4.18
BTF_KIND_UNION = 5                      # 4.18
BTF_KIND_ENUM = 6                       # 4.18
BTF_KIND_FWD = 7                        # 4.18
BTF_KIND_TYPEDEF = 8                    # 4.18
BTF_KIND_VOLATILE = 9                   # 4.18
BTF_KIND_CONST = 10                     # 4.18
BTF_KIND_RESTRICT = 11                  # 4.18
BTF_KIND_FUNC = 12                      # 5.0
BTF_KIND_FUNC_PROTO = 13                # 5.0
BTF_KIND_VAR = 14                       # 5.2
BTF_KIND_DATASEC = 15                   # 5.2
BTF_KIND_FLOAT = 16                     # 5.13
BTF_KIND_DECL_TAG = 17                  # 5.16
BTF_KIND_TYPE_TAG = 18                  # 5.17
BTF_KIND_ENUM64 = 19                    # 6.0
BTF_KIND_LOC_PARAM = 20                 # after 7.2: of inlined calls, as the next two
BTF_KIND_LOC_PROTO = 21
BTF_KIND_LOCSEC = 22
_KIND_NAMES = {number: name[len("BTF_KIND_"):].lower() for name, number in dict(globals()).items()
               if name.startswith("BTF_KIND_")}

BPF_PROG_TYPE_SOCKET_FILTER = 1        # 3.19
_PROG_TYPES = (                        # enum bpf_prog_type, as bpftool names them
    "unspec socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb "
    "cgroup_sock lwt_in lwt_out lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint "
    "cgroup_sock_addr lwt_seg6local lirc_mode2 sk_reuseport flow_dissector cgroup_sysctl "
    "raw_tracepoint_writable cgroup_sockopt tracing struct_ops ext lsm sk_lookup syscall "
    "netfilter").split()

# All of these once more: type checkers read this list, they do not run the file.
__all__ += [
    "BPF_MAP_CREATE", "BPF_MAP_LOOKUP_ELEM", "BPF_MAP_UPDATE_ELEM", "BPF_MAP_DELETE_ELEM",
    "BPF_MAP_GET_NEXT_KEY", "BPF_PROG_LOAD", "BPF_OBJ_PIN", "BPF_OBJ_GET", "BPF_PROG_ATTACH",
    "BPF_PROG_DETACH", "BPF_PROG_TEST_RUN", "BPF_PROG_GET_NEXT_ID", "BPF_MAP_GET_NEXT_ID",
    "BPF_PROG_GET_FD_BY_ID", "BPF_MAP_GET_FD_BY_ID", "BPF_OBJ_GET_INFO_BY_FD",
    "BPF_PROG_QUERY", "BPF_RAW_TRACEPOINT_OPEN", "BPF_BTF_LOAD", "BPF_BTF_GET_FD_BY_ID",
    "BPF_TASK_FD_QUERY", "BPF_MAP_LOOKUP_AND_DELETE_ELEM", "BPF_MAP_FREEZE",
    "BPF_BTF_GET_NEXT_ID", "BPF_MAP_LOOKUP_BATCH", "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
    "BPF_MAP_UPDATE_BATCH", "BPF_MAP_DELETE_BATCH", "BPF_LINK_CREATE", "BPF_LINK_UPDATE",
    "BPF_LINK_GET_FD_BY_ID", "BPF_LINK_GET_NEXT_ID", "BPF_ENABLE_STATS", "BPF_ITER_CREATE",
    "BPF_LINK_DETACH", "BPF_PROG_BIND_MAP", "BPF_TOKEN_CREATE", "BPF_PROG_STREAM_READ_BY_FD",
    "BPF_PROG_ASSOC_STRUCT_OPS",
    "BPF_MAP_TYPE_HASH", "BPF_MAP_TYPE_ARRAY", "BPF_MAP_TYPE_PROG_ARRAY",
    "BPF_MAP_TYPE_PERF_EVENT_ARRAY", "BPF_MAP_TYPE_PERCPU_HASH", "BPF_MAP_TYPE_PERCPU_ARRAY",
    "BPF_MAP_TYPE_STACK_TRACE", "BPF_MAP_TYPE_CGROUP_ARRAY", "BPF_MAP_TYPE_LRU_HASH",
    "BPF_MAP_TYPE_LRU_PERCPU_HASH", "BPF_MAP_TYPE_LPM_TRIE", "BPF_MAP_TYPE_ARRAY_OF_MAPS",
    "BPF_MAP_TYPE_HASH_OF_MAPS", "BPF_MAP_TYPE_DEVMAP", "BPF_MAP_TYPE_SOCKMAP",
    "BPF_MAP_TYPE_CPUMAP", "BPF_MAP_TYPE_XSKMAP", "BPF_MAP_TYPE_SOCKHASH",
    "BPF_MAP_TYPE_CGROUP_STORAGE", "BPF_MAP_TYPE_REUSEPORT_SOCKARRAY",
    "BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE", "BPF_MAP_TYPE_QUEUE", "BPF_MAP_TYPE_STACK",
    "BPF_MAP_TYPE_SK_STORAGE", "BPF_MAP_TYPE_DEVMAP_HASH", "BPF_MAP_TYPE_STRUCT_OPS",
    "BPF_MAP_TYPE_RINGBUF", "BPF_MAP_TYPE_INODE_STORAGE", "BPF_MAP_TYPE_TASK_STORAGE",
    "BPF_MAP_TYPE_BLOOM_FILTER", "BPF_MAP_TYPE_USER_RINGBUF", "BPF_MAP_TYPE_CGRP_STORAGE",
    "BPF_MAP_TYPE_ARENA", "BPF_MAP_TYPE_INSN_ARRAY", "BPF_MAP_TYPE_RHASH",
    "BPF_F_NO_PREALLOC", "BPF_F_NO_COMMON_LRU", "BPF_F_NUMA_NODE", "BPF_F_RDONLY",
    "BPF_F_WRONLY", "BPF_F_STACK_BUILD_ID", "BPF_F_ZERO_SEED", "BPF_F_RDONLY_PROG",
    "BPF_F_WRONLY_PROG", "BPF_F_CLONE", "BPF_F_MMAPABLE", "BPF_F_PRESERVE_ELEMS",
    "BPF_F_INNER_MAP", "BPF_F_LINK", "BPF_F_PATH_FD", "BPF_F_VTYPE_BTF_OBJ_FD",
    "BPF_F_TOKEN_FD", "BPF_F_SEGV_ON_FAULT", "BPF_F_NO_USER_CONV", "BPF_F_RB_OVERWRITE",
    "BPF_ANY", "BPF_NOEXIST", "BPF_EXIST", "BPF_F_LOCK", "BPF_F_CPU", "BPF_F_ALL_CPUS",
    "BPF_PROG_TYPE_SOCKET_FILTER", "BPF_COMMON_ATTRS",
    "BTF_KIND_INT", "BTF_KIND_PTR", "BTF_KIND_ARRAY", "BTF_KIND_STRUCT", "BTF_KIND_UNION",
    "BTF_KIND_ENUM", "BTF_KIND_FWD", "BTF_KIND_TYPEDEF", "BTF_KIND_VOLATILE", "BTF_KIND_CONST",
    "BTF_KIND_RESTRICT", "BTF_KIND_FUNC", "BTF_KIND_FUNC_PROTO", "BTF_KIND_VAR",
    "BTF_KIND_DATASEC", "BTF_KIND_FLOAT", "BTF_KIND_DECL_TAG", "BTF_KIND_TYPE_TAG",
    "BTF_KIND_ENUM64", "BTF_KIND_LOC_PARAM", "BTF_KIND_LOC_PROTO", "BTF_KIND_LOCSEC",
]
# fmt: on


def map_type_name(map_type: int) -> str:
    """Return "percpu_array" for 6, "type_99" for a type newer than this file."""
    return _MAP_TYPE_NAMES.get(map_type, "type_%d" % map_type)


def cmd_name(cmd: "Union[int, str]") -> str:
    """Return "BPF_MAP_LOOKUP_ELEM" for 1, "cmd_99" for one newer than this file."""
    if isinstance(cmd, int):
        cmd &= ~BPF_COMMON_ATTRS
    return _CMD_NAMES.get(cmd) or (cmd if isinstance(cmd, str) else "cmd_%d" % cmd)


# -- sets of map types, by what the kernel makes of their keys and values

# a value is one slot for each possible CPU
_PERCPU_TYPES = frozenset(
    (
        BPF_MAP_TYPE_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    )
)
# the key is an index below max_entries
_INDEX_TYPES = frozenset(
    (
        BPF_MAP_TYPE_ARRAY,
        BPF_MAP_TYPE_PROG_ARRAY,
        BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_CGROUP_ARRAY,
        BPF_MAP_TYPE_ARRAY_OF_MAPS,
        BPF_MAP_TYPE_DEVMAP,
        BPF_MAP_TYPE_SOCKMAP,
        BPF_MAP_TYPE_CPUMAP,
        BPF_MAP_TYPE_XSKMAP,
        BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
        BPF_MAP_TYPE_STRUCT_OPS,
        BPF_MAP_TYPE_INSN_ARRAY,
    )
)
# the value is a map: written as its descriptor, read as its id
_OF_MAPS_TYPES = frozenset((BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS))
# the value is written as a descriptor and read, if it can be read at all, as an id or a cookie
_FD_VALUE_TYPES = frozenset(
    (
        BPF_MAP_TYPE_PROG_ARRAY,
        BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        BPF_MAP_TYPE_CGROUP_ARRAY,
        BPF_MAP_TYPE_ARRAY_OF_MAPS,
        BPF_MAP_TYPE_HASH_OF_MAPS,
        BPF_MAP_TYPE_XSKMAP,
        BPF_MAP_TYPE_SOCKMAP,
        BPF_MAP_TYPE_SOCKHASH,
        BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
    )
)
# the value is a number even without BTF: those, and an ifindex or the length of a queue
_NUMBER_VALUE_TYPES = _FD_VALUE_TYPES | {
    BPF_MAP_TYPE_DEVMAP,
    BPF_MAP_TYPE_DEVMAP_HASH,
    BPF_MAP_TYPE_CPUMAP,
}
# the key is a descriptor: of the socket, inode, task or cgroup that the value is stored with
_FD_KEY_TYPES = frozenset(
    (
        BPF_MAP_TYPE_SK_STORAGE,
        BPF_MAP_TYPE_INODE_STORAGE,
        BPF_MAP_TYPE_TASK_STORAGE,
        BPF_MAP_TYPE_CGRP_STORAGE,
    )
)
# LOOKUP_BATCH reads whole buckets, or an array in order: scans over it are exact
_BATCH_TYPES = frozenset(
    (
        BPF_MAP_TYPE_HASH,
        BPF_MAP_TYPE_LRU_HASH,
        BPF_MAP_TYPE_PERCPU_HASH,
        BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_HASH_OF_MAPS,
        BPF_MAP_TYPE_ARRAY,
        BPF_MAP_TYPE_PERCPU_ARRAY,
    )
)
# there are neither keys nor values: the map is memory
_VALUELESS_TYPES = frozenset((BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_USER_RINGBUF, BPF_MAP_TYPE_ARENA))
# there are no keys
_KEYLESS_TYPES = _VALUELESS_TYPES | {
    BPF_MAP_TYPE_QUEUE,
    BPF_MAP_TYPE_STACK,
    BPF_MAP_TYPE_BLOOM_FILTER,
}

# -- union bpf_attr
# One arm, a structure, for each group of commands.  Fields of 64 bits are __aligned_u64 in C.  i386
# would not align them by itself, so every gap is spelled out as _pad, and the layout is the same on
# every machine.


class bpf_attr_map_create(ctypes.Structure):
    """BPF_MAP_CREATE."""

    _fields_ = [
        ("map_type", u32),
        ("key_size", u32),
        ("value_size", u32),
        ("max_entries", u32),
        ("map_flags", u32),  # 4.6
        ("inner_map_fd", u32),  # 4.12
        ("numa_node", u32),  # 4.14
        ("map_name", ctypes.c_char * 16),  # 4.15
        ("map_ifindex", u32),  # 4.16
        ("btf_fd", u32),  # 4.18
        ("btf_key_type_id", u32),
        ("btf_value_type_id", u32),
        ("btf_vmlinux_value_type_id", u32),  # 5.6
        ("map_extra", u64),  # 5.16
        ("value_type_btf_obj_fd", s32),  # 6.9
        ("map_token_fd", s32),  # 6.9
        ("excl_prog_hash", u64),  # 6.18, an address
        ("excl_prog_hash_size", u32),
        ("_pad", u32),
    ]


class bpf_attr_elem(ctypes.Structure):
    """BPF_MAP_*_ELEM, BPF_MAP_GET_NEXT_KEY and BPF_MAP_FREEZE."""

    _fields_ = [
        ("map_fd", u32),
        ("_pad", u32),
        ("key", u64),  # an address
        ("value", u64),  # an address; of GET_NEXT_KEY where the next key goes
        ("flags", u64),
    ]


class bpf_attr_batch(ctypes.Structure):
    """BPF_MAP_*_BATCH.  in_batch and out_batch point to the cursor, which the kernel defines."""

    _fields_ = [
        ("in_batch", u64),  # an address, 0 to begin
        ("out_batch", u64),  # an address
        ("keys", u64),  # an address
        ("values", u64),  # an address
        ("count", u32),  # how many elements there is room for, then how many were done
        ("map_fd", u32),
        ("elem_flags", u64),
        ("flags", u64),
    ]


class bpf_attr_prog_load(ctypes.Structure):
    """BPF_PROG_LOAD; 4.4 ends at kern_version, prog_token_fd is of 6.9."""

    _fields_ = [
        ("prog_type", u32),
        ("insn_cnt", u32),
        ("insns", u64),
        ("license", u64),
        ("log_level", u32),
        ("log_size", u32),
        ("log_buf", u64),
        ("kern_version", u32),
        ("prog_flags", u32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", u32),
        ("expected_attach_type", u32),
        ("prog_btf_fd", u32),
        ("func_info_rec_size", u32),
        ("func_info", u64),
        ("func_info_cnt", u32),
        ("line_info_rec_size", u32),
        ("line_info", u64),
        ("line_info_cnt", u32),
        ("attach_btf_id", u32),
        ("attach_prog_fd", u32),
        ("core_relo_cnt", u32),
        ("fd_array", u64),
        ("core_relos", u64),
        ("core_relo_rec_size", u32),
        ("log_true_size", u32),
        ("prog_token_fd", s32),
        ("fd_array_cnt", u32),
        ("signature", u64),
        ("signature_size", u32),
        ("keyring_id", s32),
    ]


class bpf_attr_obj(ctypes.Structure):
    """BPF_OBJ_PIN and BPF_OBJ_GET."""

    _fields_ = [
        ("pathname", u64),  # an address
        ("bpf_fd", u32),
        ("file_flags", u32),  # 4.15
        ("path_fd", s32),  # 6.5
        ("_pad", u32),
    ]


class bpf_attr_prog_attach(ctypes.Structure):
    """BPF_PROG_ATTACH and BPF_PROG_DETACH, as far as cgroups need it."""

    _fields_ = [
        ("target_fd", u32),
        ("attach_bpf_fd", u32),
        ("attach_type", u32),
        ("attach_flags", u32),
    ]


class bpf_attr_get_id(ctypes.Structure):
    """BPF_*_GET_NEXT_ID and BPF_*_GET_FD_BY_ID."""

    _fields_ = [
        ("start_id", u32),  # in C a union with map_id, prog_id, btf_id, link_id
        ("next_id", u32),  # GET_NEXT_ID writes it
        ("open_flags", u32),  # 4.15
        ("fd_by_id_token_fd", s32),  # 6.15
    ]


class bpf_attr_info(ctypes.Structure):
    """BPF_OBJ_GET_INFO_BY_FD."""

    _fields_ = [
        ("bpf_fd", u32),
        ("info_len", u32),  # how many bytes there is room for, then how many the kernel wrote
        ("info", u64),  # an address
    ]


class bpf_attr_btf_load(ctypes.Structure):
    """BPF_BTF_LOAD."""

    _fields_ = [
        ("btf", u64),  # an address
        ("btf_log_buf", u64),  # an address
        ("btf_size", u32),
        ("btf_log_size", u32),
        ("btf_log_level", u32),
        ("btf_log_true_size", u32),  # 6.4
        ("btf_flags", u32),  # 6.9
        ("btf_token_fd", s32),  # 6.9
    ]


class bpf_attr_token_create(ctypes.Structure):
    """BPF_TOKEN_CREATE."""

    _fields_ = [("flags", u32), ("bpffs_fd", u32)]


class bpf_attr(ctypes.Union):
    """The argument of bpf(2).

    Allocate it whole, however few bytes of it are passed: the kernel writes some outputs (next_id,
    count) beyond a size that is shorter.
    """

    _fields_ = [
        ("map_create", bpf_attr_map_create),
        ("elem", bpf_attr_elem),
        ("batch", bpf_attr_batch),
        ("prog_load", bpf_attr_prog_load),
        ("obj", bpf_attr_obj),
        ("prog_attach", bpf_attr_prog_attach),
        ("get_id", bpf_attr_get_id),
        ("info", bpf_attr_info),
        ("btf_load", bpf_attr_btf_load),
        ("token_create", bpf_attr_token_create),
    ]


# command -> the arm of bpf_attr that it uses, and the last field of it that must be passed.  A
# kernel may refuse (E2BIG) fields that it does not know, so no more than that is passed unless a
# caller says so.  MAP_CREATE passes as much as is set (_set_create).
# fmt: off
_ARMS = {
    BPF_MAP_CREATE: ("map_create", "map_flags"),
    BPF_MAP_LOOKUP_ELEM: ("elem", "flags"),
    BPF_MAP_UPDATE_ELEM: ("elem", "flags"),
    BPF_MAP_GET_NEXT_KEY: ("elem", "flags"),
    BPF_MAP_LOOKUP_AND_DELETE_ELEM: ("elem", "flags"),
    BPF_MAP_DELETE_ELEM: ("elem", "key"),
    BPF_MAP_FREEZE: ("elem", "map_fd"),
    BPF_MAP_LOOKUP_BATCH: ("batch", "flags"),
    BPF_MAP_LOOKUP_AND_DELETE_BATCH: ("batch", "flags"),
    BPF_MAP_UPDATE_BATCH: ("batch", "flags"),
    BPF_MAP_DELETE_BATCH: ("batch", "flags"),
    BPF_PROG_LOAD: ("prog_load", "prog_flags"),
    BPF_OBJ_PIN: ("obj", "file_flags"),
    BPF_OBJ_GET: ("obj", "file_flags"),
    BPF_PROG_ATTACH: ("prog_attach", "attach_flags"),
    BPF_PROG_DETACH: ("prog_attach", "attach_flags"),
    BPF_PROG_GET_NEXT_ID: ("get_id", "next_id"),
    BPF_MAP_GET_NEXT_ID: ("get_id", "next_id"),
    BPF_BTF_GET_NEXT_ID: ("get_id", "next_id"),
    BPF_LINK_GET_NEXT_ID: ("get_id", "next_id"),
    BPF_PROG_GET_FD_BY_ID: ("get_id", "open_flags"),
    BPF_MAP_GET_FD_BY_ID: ("get_id", "open_flags"),
    BPF_BTF_GET_FD_BY_ID: ("get_id", "open_flags"),
    BPF_LINK_GET_FD_BY_ID: ("get_id", "open_flags"),
    BPF_OBJ_GET_INFO_BY_FD: ("info", "info"),
    BPF_BTF_LOAD: ("btf_load", "btf_log_level"),
    BPF_TOKEN_CREATE: ("token_create", "bpffs_fd"),
}
# fmt: on


def _size_up_to(arm, field):
    """Return the offset behind field in the named arm of bpf_attr."""
    descriptor = getattr(dict(bpf_attr._fields_)[arm], field)
    return descriptor.offset + descriptor.size


_ATTR_SIZES = {cmd: _size_up_to(arm, field) for cmd, (arm, field) in _ARMS.items()}


class bpf_common_attr(ctypes.Structure):
    """Where a command (so far only MAP_CREATE) is to write why it fails."""

    _fields_ = [
        ("log_buf", u64),  # an address
        ("log_size", u32),
        ("log_level", u32),
        ("log_true_size", u32),
        ("_pad", u32),
    ]


# -- what BPF_OBJ_GET_INFO_BY_FD fills


class bpf_map_info(ctypes.Structure):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a map.

    Zero it before the call: since 6.18 hash and hash_size are also inputs.
    """

    _fields_ = [
        ("type", u32),
        ("id", u32),
        ("key_size", u32),
        ("value_size", u32),
        ("max_entries", u32),
        ("map_flags", u32),
        ("name", ctypes.c_char * 16),  # 4.15
        ("ifindex", u32),  # 4.16
        ("btf_vmlinux_value_type_id", u32),  # 5.6
        ("netns_dev", u64),  # 4.16
        ("netns_ino", u64),
        ("btf_id", u32),  # 4.18
        ("btf_key_type_id", u32),
        ("btf_value_type_id", u32),
        ("btf_vmlinux_id", u32),  # 6.9
        ("map_extra", u64),  # 5.16
        ("hash", u64),  # 6.18, an address
        ("hash_size", u32),
        ("_pad", u32),
    ]


class bpf_btf_info(ctypes.Structure):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a BTF object."""

    _fields_ = [
        ("btf", u64),  # an address
        ("btf_size", u32),
        ("id", u32),
        ("name", u64),  # 5.11, an address
        ("name_len", u32),
        ("kernel_btf", u32),
    ]


class bpf_prog_info(ctypes.Structure):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a program, up to its maps (4.15) and its BTF (5.0)."""

    _fields_ = [
        ("type", u32),
        ("id", u32),
        ("tag", u8 * 8),
        ("jited_prog_len", u32),
        ("xlated_prog_len", u32),
        ("jited_prog_insns", u64),
        ("xlated_prog_insns", u64),
        ("load_time", u64),
        ("created_by_uid", u32),
        ("nr_map_ids", u32),
        ("map_ids", u64),
        ("name", ctypes.c_char * 16),
        ("ifindex", u32),  # 4.16
        ("_pad", u32),  # in C gpl_compatible:1 and padding
        ("netns_dev", u64),
        ("netns_ino", u64),
        ("nr_jited_ksyms", u32),  # 4.18
        ("nr_jited_func_lens", u32),
        ("jited_ksyms", u64),
        ("jited_func_lens", u64),
        ("btf_id", u32),  # 5.0
        ("func_info_rec_size", u32),
    ]


# ---- 2. Errors --------------------------------------------------------------
# Every failure of a command goes through _error(errno, command, what is known): it picks the class
# from tables, puts the message together, and only then looks around for the likely cause (.hint).
# A success costs nothing of this.  In order: the exceptions; the tables; _error; what finds hints;
# what reads /proc for them.  Each function stands above those that it calls.
#
# The class is a function of errno, command and map type alone (_error_class).  Diagnosis changes
# nothing but the hint, and a hint that can't be found hides nothing.
#
# OSError comes first among the bases of SyscallError, so that .errno is OSError's own attribute.
# args is (errno, message), all else is in __dict__, so that pickling and copying keep everything.
#
# A new errno      goes into _CLASS_BY_ERRNO, or, if its meaning depends on the command, into
#                  _CLASS_BY_CMD; where an EINVAL only says that a map type has no such operation,
#                  into _EINVAL_MEANS_NO.  An errno in no table is a plain SyscallError.
# A new hint       goes into _HINTS where errno and command are enough to know it, else into
#                  _diagnose.  It is a clause that follows "; ", and says what to do about it.
# A new exception  also goes into __all__ at the top, and into the README's table of errors.


def _printable(text):
    """Return text that others wrote (names, paths) so that it is safe to print on a terminal.

    What is not printable is escaped as Python does it: no control sequence, no new line, nothing
    that hides.
    """
    return text if text.isprintable() else "".join(map(_printable_char, text))


def _printable_char(char):
    return char if char.isprintable() else ascii(char)[1:-1]


# Two numbers of Linux that Python's errno module lacks, one always, the other on other systems.
ENOTSUPP = 524  # internal to the kernel, which lets it out all the same; libc has no name for it
EBADFD = getattr(errno, "EBADFD", 77)


# -- the exceptions


class BPFError(Exception):
    """Root of every error this module raises on purpose, but for ValueError from a closed map.

    args is (message, line of a table ...).  str() is these lines, made safe for a terminal: the
    names in them may come from foreign BTF.
    """

    def __str__(self) -> str:
        return "\n".join([_printable(str(one)) for one in self.args])


class SyscallError(OSError, BPFError):
    """A command that the kernel refused.  args is (errno, message).

    errno      the number that Linux gives it, whatever system this runs on
    cmd        "BPF_MAP_LOOKUP_ELEM"
    map        the map in words
    hint       the likely cause, found after the failure, or None
    count      of a batch command: elements done before, else None
    """

    errno: int
    cmd: str = ""
    map: str = ""
    hint: "Optional[str]" = None
    count: "Optional[int]" = None
    _meaning = ""

    def __str__(self) -> str:
        message = self.args[1] if len(self.args) > 1 else OSError.__str__(self)
        return _printable("%s; %s" % (message, self.hint) if self.hint else str(message))


class KeyNotFound(SyscallError, KeyError):
    """ENOENT from an element command: the map has no such key (.key).

    The call itself has not failed: this is an answer.
    """

    key: "Any" = None
    _meaning = "no such key"


class KeyExists(SyscallError):
    """EEXIST from an element command: the key is in the map already."""

    _meaning = "the key is in the map already"


class PinExists(SyscallError, FileExistsError):
    """EEXIST from BPF_OBJ_PIN: the path is taken."""


class MapFull(SyscallError):
    """E2BIG or ENOSPC from an update: no room for another element."""

    _meaning = "the map is full"


class KeyOutOfRange(SyscallError, IndexError):
    """E2BIG from an update of an array: the index is not below max_entries."""

    _meaning = "the index is past the end of the map"


class IndexNotFound(KeyNotFound, KeyOutOfRange):
    """ENOENT from reading or deleting at an index past the end, where writing is KeyOutOfRange."""


class MapNotFound(SyscallError, FileNotFoundError):
    """ENOENT when a map was to be opened by pin, id or name."""

    _meaning = "no such map"


class PermissionDenied(SyscallError, PermissionError):
    """EPERM, EACCES: .hint says which of descriptor mode, frozen map, capability, limit it was."""


class NotSupported(SyscallError):
    """The kernel has no such command, or the map type has no such operation."""

    _meaning = "not supported"


class BadFileDescriptor(SyscallError):
    """EBADF, EBADFD: a descriptor that is not open, or not of the kind wanted as a key or value."""


class BadAddress(SyscallError):
    """EFAULT: the kernel could not reach a buffer."""


class InvalidArgument(SyscallError):
    """EINVAL, E2BIG: a size, flag or number that the kernel refuses."""


class Busy(SyscallError):
    """EBUSY, EAGAIN: in use just now."""


class OutOfMemory(SyscallError, MemoryError):
    """ENOMEM: the kernel could not allocate the map or element."""


class AmbiguousName(BPFError, LookupError):
    """Several maps have the name; the message lists their ids, as does .ids."""

    ids: "List[int]"


class LayoutError(BPFError, TypeError):
    """A ctypes type that does not fit the map, or a key or value that does not fit its type."""


class BTFError(BPFError, ValueError):
    """Type information that is malformed, or not to be had."""


class IterationAborted(BPFError, RuntimeError):
    """A scan that could not be exact to its end, or a ring buffer that holds nonsense."""


# -- which errno becomes which exception

# errno -> class, where the command does not matter
_CLASS_BY_ERRNO = {
    errno.EPERM: PermissionDenied,
    errno.EACCES: PermissionDenied,
    ENOTSUPP: NotSupported,
    errno.EOPNOTSUPP: NotSupported,
    errno.ENOSYS: NotSupported,
    errno.EBADF: BadFileDescriptor,
    EBADFD: BadFileDescriptor,
    errno.EFAULT: BadAddress,
    errno.EINVAL: InvalidArgument,
    errno.E2BIG: InvalidArgument,
    errno.EBUSY: Busy,
    errno.EAGAIN: Busy,
    errno.ENOMEM: OutOfMemory,
}
_ELEMENT_CMDS = frozenset(cmd for cmd, arm in _ARMS.items() if arm[0] in ("elem", "batch"))
_READ_CMDS = frozenset(
    (
        BPF_MAP_LOOKUP_ELEM,
        BPF_MAP_GET_NEXT_KEY,
        BPF_MAP_LOOKUP_BATCH,
        BPF_MAP_LOOKUP_AND_DELETE_ELEM,
        BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    )
)
_WRITE_CMDS = _ELEMENT_CMDS - {BPF_MAP_LOOKUP_ELEM, BPF_MAP_GET_NEXT_KEY, BPF_MAP_LOOKUP_BATCH}
_UPDATE_CMDS = frozenset((BPF_MAP_UPDATE_ELEM, BPF_MAP_UPDATE_BATCH))
_OPEN_CMDS = frozenset((BPF_OBJ_GET, BPF_MAP_GET_FD_BY_ID))

# (errno, commands, class), where it does matter; the first row that fits counts
_CLASS_BY_CMD = (
    (errno.ENOENT, _ELEMENT_CMDS, KeyNotFound),
    (errno.ENOENT, _OPEN_CMDS, MapNotFound),
    (errno.EEXIST, _ELEMENT_CMDS, KeyExists),
    (errno.EEXIST, {BPF_OBJ_PIN}, PinExists),
    (errno.E2BIG, _UPDATE_CMDS, MapFull),
    (errno.ENOSPC, _UPDATE_CMDS, MapFull),
    # What these get from us is never invalid: EINVAL says that the kernel lacks the command.
    (
        errno.EINVAL,
        {BPF_MAP_FREEZE, BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_AND_DELETE_BATCH},
        NotSupported,
    ),
)

# command -> map types that lack it and say so by EINVAL instead of ENOTSUPP
_EINVAL_MEANS_NO = {
    BPF_MAP_LOOKUP_ELEM: {BPF_MAP_TYPE_ARENA},
    BPF_MAP_UPDATE_ELEM: {BPF_MAP_TYPE_STACK_TRACE},
    BPF_MAP_GET_NEXT_KEY: {BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_STACK},
    BPF_MAP_DELETE_ELEM: {
        BPF_MAP_TYPE_ARRAY,
        BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_CGROUP_STORAGE,
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
        BPF_MAP_TYPE_QUEUE,
        BPF_MAP_TYPE_STACK,
        BPF_MAP_TYPE_INSN_ARRAY,
    },
}


def _error_class(code, cmd, map_type=None):
    """Return the class for an errno: a function of errno, command and map type alone."""
    if code == errno.E2BIG and map_type in _INDEX_TYPES and cmd in _ELEMENT_CMDS:
        return KeyOutOfRange
    if code == errno.EINVAL and map_type in _EINVAL_MEANS_NO.get(cmd, ()):
        return NotSupported
    for row_code, cmds, cls in _CLASS_BY_CMD:
        if code == row_code and cmd in cmds:
            return cls
    return _CLASS_BY_ERRNO.get(code, SyscallError)


def errno_name(code: int) -> str:
    """Return "ENOENT" for 2, "ENOTSUPP" for 524, "errno 999" for what has no name."""
    # Python has no name for the first; it calls the second ENOTSUP.
    kernel_names = {ENOTSUPP: "ENOTSUPP", errno.EOPNOTSUPP: "EOPNOTSUPP"}
    return kernel_names.get(code) or errno.errorcode.get(code, "errno %d" % code)


def _error(code, cmd, about="", map_type=None, fd=None, detail=None, path=None, flags=0, cls=None):
    """Return the exception for an errno: the class from the tables, the hint from a look around.

    cmd        BPF_*, or the name of an operation that is no bpf(2) command: "mmap", "submit"
    about      what the command was used on, in words: "map 5 (hash 'flows')"
    map_type, fd, path, flags (those to open the path with) help to find class and hint
    detail     replaces the words that the class has for the errno
    cls        replaces the class
    """
    cls = cls or _error_class(code, cmd, map_type)
    name = cmd_name(cmd)
    meaning = detail or cls._meaning or os.strerror(code)
    about = _printable(about)
    where = " on " + about if about else ""
    error = cls(code, "%s%s: %s (%s)" % (name, where, _printable(meaning), errno_name(code)))
    error.cmd, error.map = name, about
    try:
        hint = _diagnose(code, cmd, map_type, fd, path, flags)
        error.hint = hint and _printable(hint)
    except Exception:  # a hint must never hide the error it explains
        pass
    return error


# -- hints: the likely cause of a failure

_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39  # linux/capability.h
# types of maps that take CAP_NET_ADMIN besides to be created
_NET_ADMIN_TYPES = frozenset(
    (
        BPF_MAP_TYPE_DEVMAP,
        BPF_MAP_TYPE_DEVMAP_HASH,
        BPF_MAP_TYPE_SOCKMAP,
        BPF_MAP_TYPE_SOCKHASH,
        BPF_MAP_TYPE_XSKMAP,
    )
)
# commands that take CAP_SYS_ADMIN, and those that take CAP_BPF whatever descriptors there are
_BY_ID_CMDS = frozenset(cmd for cmd, arm in _ARMS.items() if arm[0] == "get_id")
_MAKING_CMDS = frozenset((BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_BTF_LOAD, BPF_TOKEN_CREATE))

# what the kernel demands of a new map of some types, which is easily forgotten
_DEMANDS = {
    BPF_MAP_TYPE_LPM_TRIE: "an LPM trie takes the flag BPF_F_NO_PREALLOC (1)",
    BPF_MAP_TYPE_RINGBUF: "a ring buffer's max_entries are bytes: a power of two, whole pages",
    BPF_MAP_TYPE_USER_RINGBUF: "a ring buffer's max_entries are bytes: a power of two, whole pages",
    BPF_MAP_TYPE_ARRAY_OF_MAPS: "a map of maps takes an inner map as the pattern of its entries",
    BPF_MAP_TYPE_HASH_OF_MAPS: "a map of maps takes an inner map as the pattern of its entries",
}

# command -> errno -> the likely cause, where these two are enough to know it
_HINTS = {
    "mmap": {
        errno.EINVAL: "an arena can be mapped again only at the address of its first mapping",
    },
    BPF_MAP_CREATE: {
        errno.EINVAL: "a size, flag, max_entries or name that this map type refuses, or a type "
        "this kernel lacks",
        errno.E2BIG: "a size or max_entries beyond this map type's limit, or an attribute that "
        "this kernel lacks",
    },
    BPF_BTF_GET_FD_BY_ID: {
        errno.EINVAL: "no BPF token, or a kernel that takes none for this (6.15 does)",
    },
    BPF_TOKEN_CREATE: {
        errno.EINVAL: "not the root of a bpffs, or a kernel without tokens (before 6.9)",
        errno.ENOENT: "this bpffs delegates nothing: mount it with delegate_cmds=, delegate_maps=",
        errno.EOPNOTSUPP: "tokens are for user namespaces; outside of one, capabilities are held",
    },
}


def _diagnose(code, cmd, map_type, fd, path, flags):
    """Return the likely cause of an errno in a clause, or None.  Runs after a failure only."""
    hint = None if path is None else _why_not_this_path(code, cmd, path, flags)
    if hint:
        return hint
    if code in (errno.EPERM, errno.EACCES):
        is_on_map = fd is not None and (cmd in _ELEMENT_CMDS or cmd == "mmap")
        hint = _why_fd_refuses(cmd, fd) if is_on_map else None
        return hint or _why_not_privileged(cmd, map_type)
    if code == errno.EBUSY and cmd == BPF_MAP_FREEZE:  # before 6.5 also if it is frozen already
        is_frozen = _fdinfo(fd).get("frozen") == "1"
        return "the map is frozen already" if is_frozen else "it is mapped for writing"
    if code == errno.EMFILE:
        return "this process has too many open descriptors (ulimit -n)"
    if code == errno.ENOSYS:
        text = "this kernel has no bpf(2), or a sandbox hides it; the number used was %r"
        return text % (_nr_bpf,)
    if code == errno.ERANGE and cmd in _ELEMENT_CMDS:
        return "the CPU number in the flags is none of a possible CPU"
    hint = _HINTS.get(cmd, {}).get(code)
    if code == errno.EINVAL and cmd == BPF_MAP_CREATE and map_type in _DEMANDS:
        return "%s; %s" % (_DEMANDS[map_type], hint)
    return hint


def _why_not_this_path(code, cmd, path, flags):
    """Say what is wrong with the path of a pin, None if nothing is seen to be."""
    directory = os.path.dirname(os.path.abspath(path))
    if code == errno.EACCES:  # go up to the deepest directory that can be seen
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        if not os.access(directory, os.X_OK):
            return "the directory %s is not open to this user (no x permission)" % directory
    if not os.path.isdir(directory):
        return (
            "there is no directory %s (is bpffs mounted? mount -t bpf bpf /sys/fs/bpf)" % directory
        )
    if cmd == BPF_OBJ_PIN:
        return _why_no_pin_here(code, path, directory)
    if code == errno.ENOENT:
        return "it exists, but is no pin" if os.path.exists(path) else None
    if code != errno.EACCES:  # EPERM (before 6.1) is about privilege, not about the path
        return None
    return _why_no_access(path, flags)


def _why_no_pin_here(code, path, directory):
    """Say why nothing can be pinned at a path, None if no reason is seen."""
    if "." in os.path.basename(path):
        return "the name of a pin has no dot"
    if code == errno.EACCES:
        return "the directory is not open to this user for writing"
    is_about_privilege = _kernel_release() < (5, 19) and not _capability(_CAP_BPF)
    is_about_place = code in (errno.EPERM, errno.ENOENT) and not is_about_privilege
    if not is_about_place or _in_bpffs(directory):
        return None
    return "%s is not in a mounted bpffs (mount -t bpf bpf /sys/fs/bpf)" % directory


def _why_no_access(path, flags):
    """Say why what is at a path may not be opened as a pin."""
    if os.path.isdir(path):
        return "it is a directory"
    what, bits = {BPF_F_RDONLY: ("read", os.R_OK), BPF_F_WRONLY: ("write", os.W_OK)}.get(
        flags, ("read and write", os.R_OK | os.W_OK)
    )
    if os.access(path, bits):
        return "an LSM may forbid it" if _in_bpffs(path) else "it is no pin: an ordinary file"
    status = os.stat(path)
    return (
        "this takes permission to %s the file, whose mode is %03o, owner %d, group %d; "
        "this process has uid %d"
        % (what, status.st_mode & 0o777, status.st_uid, status.st_gid, os.geteuid())
    )


def _bpffs_mounts():
    """Return the directories that a bpffs is mounted on, [] without /proc."""
    lines = [line.split(" ") for line in _read_text("/proc/self/mounts").split("\n")]
    return [_unescaped(words[1]) for words in lines if words[2:3] == ["bpf"]]


def _unescaped(text):
    """Return the path that /proc writes with octal numbers for blanks and the like (\\040)."""
    head, *parts = text.split("\\")
    path = head + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)
    return os.fsdecode(path.encode("latin-1"))


def _in_bpffs(path):
    """Whether a path is inside of a mounted bpffs."""
    return os.stat(path).st_dev in [
        os.stat(mount).st_dev for mount in _bpffs_mounts() if os.path.isdir(mount)
    ]


def _why_fd_refuses(cmd, fd):
    """Say why a command on an open map was refused; None if descriptor and map allow it."""
    import fcntl

    mode, info = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, _fdinfo(fd)
    writes = cmd in _WRITE_CMDS | {"mmap"}
    only = None
    if mode == os.O_RDONLY and writes:
        only = "read"
    if mode == os.O_WRONLY and cmd not in _WRITE_CMDS - _READ_CMDS:
        only = "write"
    if only:
        return 'this descriptor is %s-only: open the map with mode="rw"' % only
    if info.get("frozen") == "1" and writes:
        return "the map is frozen: user space can no longer write to it"
    if cmd != "mmap":
        return None
    ring = info.get("map_type") in (str(BPF_MAP_TYPE_RINGBUF), str(BPF_MAP_TYPE_USER_RINGBUF))
    what = "a whole ring buffer" if ring else "a map created with BPF_F_RDONLY_PROG"
    return "%s can be mapped for reading only" % what


def _why_not_privileged(cmd, map_type):
    """Say which privilege the command wanted, and what this process has."""
    wanted = _wanted_capabilities(cmd, map_type)
    instead = ""
    if cmd in (BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID):
        instead = "; with a pin, file permission is enough"
    if wanted and cmd != BPF_TOKEN_CREATE and _in_user_namespace():
        if cmd in _MAKING_CMDS | {BPF_BTF_GET_FD_BY_ID}:
            instead = ", or in it and a BPF token that allows this"
        text = "capabilities of its user namespace do not count: bpf(2) wants %s outside of it%s"
        return text % (" and ".join(wanted), instead)
    is_admin = wanted and _capability(_CAP_SYS_ADMIN)
    lacked = [name for name, number in wanted.items() if not is_admin and not _capability(number)]
    if lacked:
        return (
            "needs %s, which this process lacks (CapEff %s, kernel.unprivileged_bpf_disabled %s)%s"
            % (
                " and ".join(lacked),
                _colon_file("/proc/self/status")["CapEff"].lstrip("0") or "0",
                _read_text("/proc/sys/kernel/unprivileged_bpf_disabled").strip() or "unknown",
                instead,
            )
        )
    if cmd == BPF_TOKEN_CREATE:
        return "this bpffs was not mounted for this process's user namespace"
    return _memlock_limit(cmd) or _who_else_forbids(wanted)


def _wanted_capabilities(cmd, map_type):
    """Return {name: number} of the capabilities that a command takes on this kernel."""
    wanted = {}
    # the kernel from which on a descriptor is all that a command takes
    fd_is_enough = (6, 5) if cmd == BPF_MAP_FREEZE else (5, 19)
    if cmd in _BY_ID_CMDS:
        wanted["CAP_SYS_ADMIN"] = _CAP_SYS_ADMIN
    elif cmd in _MAKING_CMDS or _kernel_release() < fd_is_enough:
        wanted["CAP_BPF (before Linux 5.8 CAP_SYS_ADMIN)"] = _CAP_BPF
    if cmd == BPF_MAP_CREATE and map_type in _NET_ADMIN_TYPES:
        wanted["CAP_NET_ADMIN"] = _CAP_NET_ADMIN
    return wanted


def _memlock_limit(cmd):
    """Say that old kernels charge maps to RLIMIT_MEMLOCK, None if that can't be the cause."""
    if _kernel_release() >= (5, 11) or cmd not in (BPF_MAP_CREATE, BPF_PROG_LOAD):
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    text = (
        "kernels before 5.11 charge RLIMIT_MEMLOCK, here %d bytes: raise it (ulimit -l unlimited)"
    )
    return text % limit


def _who_else_forbids(wanted):
    """Say what may forbid a command that this process has the capabilities for."""
    forbids = "an LSM or kernel lockdown may forbid it"
    if _colon_file("/proc/self/status").get("Seccomp", "0") != "0":
        forbids = "a seccomp filter (of the container?) or an LSM forbids it"
    has = "the capabilities are there" if wanted else "this needs no capability"
    return "%s: %s" % (has, forbids)


# -- what /proc and uname tell; other sections ask by these too


def _in_user_namespace():
    """Whether this process is in another than the initial user namespace, as far as /proc tells."""
    return _read_text("/proc/self/uid_map").split() not in ([], ["0", "0", "4294967295"])


def _capability(number):
    """Whether this process has a capability; KeyError without /proc."""
    return bool(int(_colon_file("/proc/self/status")["CapEff"], 16) >> number & 1)


def _read_text(path):
    """Return the text of a small file in /proc or /sys, "" where it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError:
        return ""


def _colon_file(path):
    """Return the "name: value" lines of a file in /proc as a dict, {} where it can't be read."""
    return dict(
        (name.strip(), value.strip())
        for name, colon, value in (line.partition(":") for line in _read_text(path).split("\n"))
        if colon
    )


def _fdinfo(fd):
    """Return what /proc says of a descriptor as a dict, {} without /proc.

    It takes no privilege, and "frozen" is told nowhere else.
    """
    return _colon_file("/proc/self/fdinfo/%d" % fd)


def _kernel_release():
    """Return (6, 18) on Linux 6.18.44."""
    return tuple(int(part) for part in os.uname().release.replace("-", ".").split(".")[:2])


# ---- 3. System call ---------------------------------------------------------
# The one way into bpf(2).  In order: the number of the system call; libc's syscall(2); _bpf, which
# calls and raises; _Fd, which owns a descriptor; object info and ids; trace; the possible CPUs.
#
# Two functions make all calls, and trace() replaces both while it is active:
#     _syscall(number, command, attr, size)              for commands that return 0; the result is 0
#                                                        or the errno.  The fast way: element and
#                                                        batch commands.
#     _syscall_into(kept, number, command, attr, size)   appends result and errno to a list.  For
#                                                        commands that return a descriptor.
# _bpf wraps the second: it raises what _error makes of an errno.
#
# errno is read by C code right after the call, where no signal handler can run in between, and only
# there.  EINTR: the map commands do not sleep where a signal could interrupt them, so no call is
# repeated here.  Only batches of older kernels answer EINTR, for another reason: see
# _BatchScan._go_on in section 6.  What does sleep, waiting for records (epoll, poll) and writing
# output, is Python's own code, which runs the signal handlers and then goes on (PEP 475).
#
# Buffers: attr holds addresses, which keep nothing alive.  Whoever makes a call holds the ctypes
# objects that attr, key and value point to until it returns, has proved that they are as large as
# the kernel takes them to be, and shares none of them with another call under way.
#
# Descriptors: each belongs to one _Fd, which closes it when the last reference goes.  A function
# that uses a descriptor's number holds the _Fd, in a local that is called owner, until it is done:
# the number can't become another file's meanwhile.  It also lets go of owner (del owner) before an
# exception leaves it: a traceback keeps the locals of its frames, and who keeps the exception
# would keep the descriptor open.

# -- the number of bpf(2)

SYSCALL_NUMBER: "Optional[int]" = None  # set this where the table lacks your architecture

# (what uname -m begins with, e_machine of ELF headers, number of bpf(2) for 32-bit programs, for
# 64-bit programs).  A new CPU architecture is a row here and, for ring buffers, one in
# _MEMBARRIER_NUMBERS (section 6).
_SYSCALL_TABLE = (
    (("x86_64", "i386", "i486", "i586", "i686"), (62, 3), 357, 321),
    (("aarch64", "arm"), (183, 40), 386, 280),
    (("riscv",), (243,), 280, 280),
    (("s390",), (22,), 351, 351),
    (("ppc",), (21, 20), 361, 361),
    (("mips",), (8,), 4355, 5315),
    (("loongarch",), (258,), 280, 280),
    (("sparc",), (43, 18, 2), 349, 349),
    (("parisc",), (15,), 341, 341),
    (("alpha",), (0x9026,), None, 515),
    (("ia64",), (50,), None, 1341),
    (("m68k",), (4,), 354, None),
    (("sh",), (42,), 375, None),
    (("xtensa",), (94,), 340, None),
    (("microblaze",), (189,), 387, None),
    (("arc", "csky", "hexagon", "nios2", "openrisc"), (93, 195, 252, 164, 113, 92), 280, None),
)
# two more ABIs of 32-bit programs
_NR_X32 = 0x40000000 + 321  # x86-64, in a 32-bit ELF file
_NR_MIPS_N32 = 6319  # MIPS, in a 32-bit ELF file with EF_MIPS_ABI2
_EM_X86_64, _EM_MIPS, _EF_MIPS_ABI2 = 62, 8, 0x20  # elf.h


def syscall_number(machine: "Optional[str]" = None, pointer_size: "Optional[int]" = None) -> int:
    """Return the number of bpf(2), 321 on x86-64.

    machine    as uname -m prints it; left out, the ELF header of the running interpreter is asked
               first, as uname describes the kernel and not the process
    pointer_size  sizeof(void *)
    raises     NotSupported: it is not known
    """
    if machine is None and pointer_size is None:
        number = _elf_syscall_number() if SYSCALL_NUMBER is None else SYSCALL_NUMBER
        if number is not None:
            return number
    if machine is None and not hasattr(os, "uname"):
        raise _unknown_machine_error(sys.platform)
    machine, wide = machine or os.uname().machine, (pointer_size or sizeof(ctypes.c_void_p)) == 8
    for prefixes, _, number32, number64 in _SYSCALL_TABLE:
        number = number64 if wide else number32
        if machine.startswith(prefixes) and number is not None:
            return number
    raise _unknown_machine_error("%s, %d-bit" % (machine, 64 if wide else 32))


def _unknown_machine_error(text):
    """Return the error for an architecture without a row in the table."""
    error = NotSupported(errno.ENOSYS, "bpf(2) has no known number here (%s)" % text)
    error.hint = (
        "if this is Linux, set bpflookup.SYSCALL_NUMBER to the number from its asm/unistd.h"
    )
    return error


def _elf_syscall_number(path="/proc/self/exe"):
    """Return the number for the ABI in an executable's ELF header, None if the table has none."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return None
    if len(head) < 64 or head[:4] != b"\x7fELF":
        return None
    order, wide = "little" if head[5] == 1 else "big", head[4] == 2
    e_machine, e_flags = int.from_bytes(head[18:20], order), int.from_bytes(head[36:40], order)
    if not wide and e_machine == _EM_X86_64:
        return _NR_X32
    if not wide and e_machine == _EM_MIPS and e_flags & _EF_MIPS_ABI2:
        return _NR_MIPS_N32
    for _, e_machines, number32, number64 in _SYSCALL_TABLE:
        if e_machine in e_machines:
            return number64 if wide else number32
    return None


# -- libc's syscall(2)


class _Outcomes(dict):
    """Turns what syscall(2) returned into an errno; 0 stays 0.

    -1 is no key of this dict, so __missing__ is called with it: set_errno, which returns the errno
    as it was.  All of that is C code: no signal handler, whose own calls may fail, runs between the
    call and the reading of errno.
    """

    __missing__ = set_errno


class _Errno(ctypes._SimpleCData):
    """The restype of a system call that returns 0 if it succeeds: the result is 0 or the errno."""

    _type_ = "l"
    _check_retval_ = _Outcomes({0: 0}).__getitem__


def _find_libc():
    """Find syscall(2) and the number of bpf(2): at the first call, as importing does no I/O."""
    global _nr_bpf, _plain_syscall, _libc_syscall, _syscall
    if not sys.platform.startswith("linux"):
        raise _unknown_machine_error(sys.platform)
    number, libc = syscall_number(), ctypes.CDLL(None, use_errno=True)
    # Without argtypes plain ints travel fastest; libffi widens them to the registers they take.
    plain, checked = libc["syscall"], libc["syscall"]
    plain.restype, checked.restype = ctypes.c_long, _Errno
    _plain_syscall, _libc_syscall = plain, checked
    if _syscall is _first_syscall:  # and not what trace() has put there
        _syscall = checked
    _nr_bpf = number  # last: other threads look at it to know whether all is there


def _first_syscall(_, *words):
    """Stand in for libc's syscall(2) until the first call."""
    _find_libc()
    return _libc_syscall(_nr_bpf, *words)


def _libc_syscall_into(kept, _, *words):
    """Append bpf(2)'s result and errno to the list kept.

    The list has the result from the first moment on: an _Fd that holds it closes a new descriptor
    even if an exception (KeyboardInterrupt) comes right after the call.
    """
    if _nr_bpf is None:
        _find_libc()
    call = partial(_plain_syscall, _nr_bpf, *words)
    kept.extend(map(_call, (call, get_errno)))  # one step of C code


_nr_bpf = None  # the number of bpf(2), once it is found
_plain_syscall = None  # libc's syscall(2): returns the result, -1 for an error
_libc_syscall = _first_syscall  # libc's syscall(2): returns 0 or the errno
_call = methodcaller("__call__")
# The two that all calls go through; trace() puts its own here.
_syscall = _first_syscall
_syscall_into = _libc_syscall_into


def _bpf(cmd, attr, about="", size=None, kept=None, **known):
    """Call bpf(2); return its result or raise _error(..., **known).

    The caller keeps alive what attr points to.  kept is an empty list, whose first element will be
    the result (see _libc_syscall_into).
    """
    kept = [] if kept is None else kept
    del kept[:]
    _syscall_into(kept, _nr_bpf, cmd, byref(attr), _ATTR_SIZES[cmd] if size is None else size)
    result, code = kept
    if result == -1:
        raise _error(code, cmd, about, **known)
    return result


def _bpf_charged(cmd, attr, about="", size=None, kept=None, **known):
    """Do what _bpf does for commands that kernels before 5.11 charge to RLIMIT_MEMLOCK.

    Where those answer EPERM, raise the limit and try once more.
    """
    try:
        return _bpf(cmd, attr, about, size, kept, **known)
    except PermissionDenied:
        if _kernel_release() >= (5, 11):
            raise
        import resource

        for limit in (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]):
            try:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
                break
            except (ValueError, OSError):  # no CAP_SYS_RESOURCE, or a sandbox
                pass
    return _bpf(cmd, attr, about, size, kept, **known)


# -- descriptors


class _Fd:
    """Owns a descriptor, and closes it when nobody, and no call either, refers to it any more.

    make(*words, **options) returns the descriptor: a function written in C, or one of ours that
    takes kept, the list that holds the descriptor from its first moment.
    """

    __slots__ = ("number", "_kept")

    def __init__(self, make, *words, **options):
        self._kept = []  # type: list
        if hasattr(make, "__code__"):  # a Python function
            make(*words, kept=self._kept, **options)
        else:
            _in_one_step(self._kept, make, *words)
        self.number = self._kept[0]

    def __del__(self, close=os.close):
        try:
            close(self._kept[0])
        except (OSError, AttributeError, IndexError):  # __init__ failed: there is none
            pass

    def release(self):
        """Give the descriptor up without closing it: it belongs to somebody else."""
        del self._kept[:]

    def fileno(self) -> int:
        return self.number

    def __reduce__(self):
        raise TypeError("a descriptor means nothing in another process")


def _in_one_step(kept, function, *words):
    """Append the result of function(*words), which is C code, to the list kept.

    No signal handler, and so no exception, comes between the two.
    """
    kept.extend(map(function, *zip(words)))


# -- object info and ids


def _info_by_fd(fd, info, about):
    """Have BPF_OBJ_GET_INFO_BY_FD fill info, a zeroed structure.

    Return how many bytes of it the kernel knows.
    """
    attr = _info_attr(fd, info)
    _bpf(BPF_OBJ_GET_INFO_BY_FD, attr, about)
    return attr.info.info_len


def _info_attr(fd, info):
    """Return the bpf_attr of BPF_OBJ_GET_INFO_BY_FD; the caller keeps info alive."""
    attr = bpf_attr()
    attr.info.bpf_fd, attr.info.info_len, attr.info.info = fd, sizeof(info), addressof(info)
    return attr


def _ids(cmd):
    """Yield all the ids that cmd, a BPF_*_GET_NEXT_ID, tells."""
    attr = bpf_attr()
    while True:
        attr.get_id.start_id = attr.get_id.next_id
        try:
            _bpf(cmd, attr)
        except SyscallError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield attr.get_id.next_id


def _read_ids(cmd, read):
    """Yield (id, read(id)) for all the ids that cmd, a BPF_*_GET_NEXT_ID, tells.

    Left out are those whose object goes away before it is read (ENOENT).
    """
    for number in _ids(cmd):
        try:
            found = read(number)
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            yield number, found


# -- trace


class trace:
    """Print every bpf(2) call made inside the with block, decoded, with result and duration.

        with trace():
            m.lookup(key)

    write      takes a str; left out sys.stderr.write

    Keys and values are shown as bytes.
    """

    def __init__(self, write: "Optional[Callable[[str], object]]" = None) -> None:
        self._write = write or (lambda text: sys.stderr.write(text))

    def __enter__(self) -> "Self":
        global _syscall, _syscall_into
        _tracers.append(self._write)
        _syscall, _syscall_into = _traced_syscall, _traced_syscall_into
        return self

    def __exit__(self, *_: object) -> None:
        global _syscall, _syscall_into
        _tracers.remove(self._write)
        if not _tracers:
            _syscall, _syscall_into = _libc_syscall, _libc_syscall_into


_tracers = []  # type: list  # the write functions of all traces that are active


def _traced_syscall(*words):
    """Do what libc's syscall(2) does and tell the tracers; return 0 or errno."""
    kept = []  # type: list
    _traced_syscall_into(kept, *words)
    return kept[1] if kept[0] == -1 else 0


def _traced_syscall_into(kept, number, cmd, ref, size, *common):
    """Do what _libc_syscall_into does and tell the tracers."""
    import time  # it reads a file in older Pythons: not at import

    attr = ref._obj
    before = _format_attr(cmd & ~BPF_COMMON_ATTRS, attr, size)
    start = time.perf_counter()
    _libc_syscall_into(kept, number, cmd, ref, size, *common)
    duration_ns = (time.perf_counter() - start) * 1e9
    result, code = kept
    if result == -1:
        outcome = "-1 " + errno_name(code)
    else:
        outcome = "%d%s" % (result, _format_outputs(cmd, attr))
    for write in tuple(_tracers):
        write(
            "bpf(%s, {%s}, %d) = %s <%d ns>\n" % (cmd_name(cmd), before, size, outcome, duration_ns)
        )


def _format_attr(cmd, attr, size):
    """Return the fields of a command's arm of bpf_attr, as far as size reaches."""
    name, _ = _ARMS.get(cmd, ("get_id", ""))
    arm, words = getattr(attr, name), []
    # the fields that are shown as the bytes they point to: inputs whose size is known
    inputs = ("key", "value") if cmd == BPF_MAP_UPDATE_ELEM else ("key",)
    sizes = dict(zip(inputs, _traced_sizes(arm))) if name == "elem" else {}
    for field, ctype in arm._fields_:
        value = getattr(arm, field)
        if field == "_pad" or getattr(type(arm), field).offset >= size:
            continue
        if isinstance(value, bytes) or field == "pathname":
            raw = value if isinstance(value, bytes) else ctypes.string_at(value)
            text = '"%s"' % _printable(os.fsdecode(raw))
        elif value and sizes.get(field):
            text = ctypes.string_at(value, sizes[field]).hex()
        else:
            text = hex(value) if ctype is u64 and value else str(value)
        words.append("%s=%s" % (field, text))
    return ", ".join(words)


def _format_outputs(cmd, attr):
    """Return what a successful command wrote, as " -> ..."."""
    arm = _ARMS.get(cmd, ("", ""))
    if cmd in (BPF_MAP_LOOKUP_ELEM, BPF_MAP_LOOKUP_AND_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY):
        size = _traced_sizes(attr.elem)[cmd != BPF_MAP_GET_NEXT_KEY]
        return " -> " + ctypes.string_at(attr.elem.value, size).hex()
    if arm[0] == "batch":
        return " -> count=%d" % attr.batch.count
    return " -> next_id=%d" % attr.get_id.next_id if arm == ("get_id", "next_id") else ""


def _traced_sizes(elem):
    """Return how many bytes of (key, value) an element command moves.

    (0, 0) where the kernel does not tell: nothing is shown then.
    """
    info = bpf_map_info()
    attr = _info_attr(elem.map_fd, info)
    size = _ATTR_SIZES[BPF_OBJ_GET_INFO_BY_FD]
    if _libc_syscall(_nr_bpf, BPF_OBJ_GET_INFO_BY_FD, byref(attr), size):
        return 0, 0
    value_size = info.value_size
    if info.type in _PERCPU_TYPES and not elem.flags & (BPF_F_CPU | BPF_F_ALL_CPUS):
        value_size = percpu_stride(value_size) * len(_proven_cpus or ())
    return info.key_size, value_size


# -- per-CPU values


def percpu_stride(value_size: int) -> int:
    """Return the bytes from one CPU's value to the next's (bpf_map_value_size in the kernel)."""
    return (value_size + 7) & ~7


# The kernel writes one slot for each possible CPU, so a buffer of too few would be overrun.  /sys
# may be missing or masked: before the first per-CPU value moves, the kernel itself is asked how
# many there are, once per process.
_proven_cpus = None  # the ids of the possible CPUs, once the kernel has told their number
_MAX_CPUS = 8192  # the largest NR_CPUS that any architecture can be built with


def possible_cpus() -> "Tuple[int, ...]":
    """Return the ids of the possible CPUs; values of per-CPU maps lie in this order.

    Their number is what the kernel rounds the size of an LRU map to, or, without the right to
    create one (CAP_BPF), what /sys says.  Only /sys tells which ids they have; where it contradicts
    the kernel, ids count from 0.

    raises     SyscallError
    kernel     BPF_F_NO_COMMON_LRU, 4.10
    """
    if _proven_cpus is not None:
        return _proven_cpus
    try:
        return _prove_cpus(_count_cpus_by_lru())
    except SyscallError:
        hint = _sysfs_cpus()
        if not hint:
            raise
        return hint


def _prove_cpus(count):
    """Keep count, which the kernel gave, as the number of possible CPUs; return their ids."""
    global _proven_cpus
    hint = _sysfs_cpus()
    _proven_cpus = hint if len(hint) == count else tuple(range(count))
    return _proven_cpus


def _count_cpus_by_lru():
    """Ask the kernel: it rounds max_entries of a BPF_F_NO_COMMON_LRU map up by the CPUs."""
    attr, about, info = bpf_attr(), "a map that counts the possible CPUs", bpf_map_info()
    attr.map_create.map_type = BPF_MAP_TYPE_LRU_HASH
    attr.map_create.map_flags = BPF_F_NO_COMMON_LRU
    attr.map_create.key_size = attr.map_create.value_size = 4
    attr.map_create.max_entries = 1
    owner = _Fd(_bpf_charged, BPF_MAP_CREATE, attr, about)
    try:
        _info_by_fd(owner.number, info, about)
    finally:
        del owner
    return info.max_entries


def _sysfs_cpus():
    """Return the possible CPUs as /sys has them ("0-3,8"), () where it can't be read."""
    text = _read_text("/sys/devices/system/cpu/possible")
    try:
        ranges = [[int(end) for end in part.split("-")] for part in text.split(",")]
    except ValueError:
        return ()
    return tuple(
        chain.from_iterable(range(ends[0], min(ends[-1], _MAX_CPUS) + 1) for ends in ranges)
    )


# ---- 4. Layout --------------------------------------------------------------
# What the bytes of a key or value mean is one immutable tree of Layout nodes: a Record has Members,
# each at a bit offset, an Array has an element, and Numbers and Bytes are the leaves.  All that is
# read, written, compared or described goes by this tree; nothing else looks at _fields_ or at the
# members of BTF.  Nothing in this section needs a kernel.
#
# Three front ends make a tree: layout(cls) of a ctypes class, layout("struct { ... }") of C text,
# both here, and BTF.layout() in section 5.  Each proves what it makes, so that no reader has to
# check again: every part lies inside of what holds it, nothing is a pointer or an object of this
# process, a bitfield lies where C puts it, types are at most MAX_DEPTH deep, and there are not many
# more values than bytes.
#
# The parts of the section, "# -- " each, in this order:
#
#   the tree                        Layout and its subclasses, Member
#   bitfields                       _Bits: where a number of some bits lies, in either byte order
#   input                           Layout.pack: text, numbers, dicts -> bytes
#   ctypes objects, front ends      a ctypes class, or C text -> Layout
#   two layouts compared            does the class of a caller agree with BTF?
#   meanings, names of a machine    what --show WORD shows: MEANINGS, asked for or implied
#   readers, converters, forms      Layout.reader(form): bytes -> plain Python, JSON, words ...
#   table, ctypes class, source     Layout.describe, ctype and python_source
#   plain Python and JSON           to_python and to_json of whatever a caller hands in
#
# Where to add: a word for --show is a _MeaningKind in MEANINGS, an output form a _Form in _FORMS
# (section 8 lists the other places), a kind of leaf a subclass of Number whose converter() asks the
# form by a method of its own.
# Functions stand before those that they call, bases of classes and tables where Python needs them.

# Types may be hostile: records that share parts multiply, and members of no bits, or of a union,
# take no bytes.
MAX_DEPTH = 32  # levels of types inside types
_VALUES_PER_BYTE = 16  # leaves that a byte can hold: eight bits, each in two branches of a union
_SPARE_VALUES = 4096  # leaves besides those, of a type that is read or written whole
_MAX_VALUES = 1 << 20  # leaves besides those, of a type of BTF
_MAX_SAMPLES = 1 << 19  # leaves of one value, where each is read with its path
_MAX_ROWS = 1 << 14  # lines of a table

_INT_CODES, _SIGNED_CODES, _FLOAT_CODES = "bBhHiIlLqQ", "bhilq", "fd"  # _type_ of ctypes scalars
_SIGNED_INTS = {1: ctypes.c_int8, 2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}
_UNSIGNED_INTS = {1: u8, 2: u16, 4: u32, 8: u64}
_FLOATS = {4: ctypes.c_float, 8: ctypes.c_double}
# what a ctypes class that can stand for bytes in a map is derived from
_BASES = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._SimpleCData)
_CDATA = ctypes._SimpleCData.__mro__[1]  # the base of every ctypes object
_INT_SIGNED, _INT_CHAR, _INT_BOOL = 1, 2, 4  # the encoding of an integer in BTF
# size -> what the struct module calls a signed integer; in upper case, an unsigned one
_STRUCT_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
_ORDER_MARKS = {"little": "<", "big": ">"}  # of the struct module
_FOREIGN_ORDER = "big" if sys.byteorder == "little" else "little"


# -- the tree
#
#   Layout        what all nodes have: size, name, meaning; and what can be done with a tree
#     Number      an integer; Enum, Boolean, Char, Float and Pointer are Numbers, too
#     Bytes       bytes of which nothing more is known
#     Array       count elements of one layout
#     Record      a struct, a union or a data section, of Members
#
# Byte order is a fact of each Number (order): that of the class, the BTF or the machine, unless its
# type says one, like __be32.  A node never changes: what makes another of it returns a copy, so
# that parts may be shared, by any number of trees.


class Layout:
    """What some bytes mean: an immutable tree that can be read, written and described.

    layout(t) makes one of a ctypes class or of C text, btf.layout(t) of BTF; m.key_layout and
    m.value_layout are a map's.

    size       bytes
    name       the type in C's terms
    members    of a record, in the order of their declaration; else ()
    meaning    the Meaning that was asked for, or None

    A subclass has _compile, which makes the piece of a form that reads what lies at a bit offset,
    _put, which stores there what was given, _dtype for NumPy, and _inside: what else is hashed.
    """

    __slots__ = (
        "size",
        "name",
        "values",
        "levels",
        "has_choice",
        "meaning",
        "_readers",
        "_hash",
        "__weakref__",
    )
    size: int
    name: str
    meaning: "Optional[Meaning]"
    members: "Tuple[Member, ...]" = ()
    is_union = False
    takes_addresses = False  # whether input may be an IP or MAC address of its size

    def __init__(self, size, name, values=1, levels=0, has_choice=False):
        self.size, self.name = size, name
        self.values = values  # how many leaves it has, and records
        self.levels = levels  # of types inside types
        self.has_choice = has_choice  # whether a union in it has a discriminant, see Member.choice
        self.meaning = None
        self._readers = {}  # (form, stride, CPUs) -> reader
        self._hash = None

    def _facts(self):
        """Return what makes two layouts the same.  The number of values follows from the others."""
        return [getattr(self, name) for name in self._state_names() if name != "values"]

    def _state_names(self):
        """Return the names of the slots that say what it is; those _WORKED_OUT from them are kept
        for speed.
        """
        slots = chain.from_iterable(getattr(cls, "__slots__", ()) for cls in type(self).__mro__)
        return [name for name in slots if name not in _WORKED_OUT]

    def __eq__(self, other: object) -> bool:
        return _same_tree(self, other, set()) if isinstance(other, Layout) else NotImplemented

    def __hash__(self) -> int:
        # Of all that is in it: hostile BTF could make many types that differ only deep inside, and
        # a hash of less would be the same for all.  Each part keeps its own, as parts are shared.
        if self._hash is None:
            self._hash = hash((type(self), self.size, self.name, self.levels) + self._inside())
        return self._hash

    def _inside(self):
        """Return what the hash is of besides what every layout has."""
        return ()

    def __repr__(self) -> str:
        return "<Layout %s: %d bytes>" % (_printable(self.name), self.size)

    def __getstate__(self):
        return {name: getattr(self, name) for name in self._state_names()}

    def __setstate__(self, state):
        for name, value in state.items():
            setattr(self, name, value)
        self._readers, self._hash = {}, None
        if isinstance(self, Record):
            self._parts = self._plan = None

    def renamed(self, name: str) -> "Self":
        """Return the same layout under another name, as a typedef gives it."""
        if name == self.name:
            return self
        return self._changed(name=name)

    def _changed(self, **changes):
        """Return a copy in which some slots differ."""
        copy = type(self).__new__(type(self))
        copy.__setstate__(dict(self.__getstate__(), **changes))
        return copy

    def reader(
        self, form: str, stride: "Optional[int]" = None, cpus: int = 1
    ) -> "Union[Reader, _ChoosingReader]":
        """Return what reads bytes as a form.

        It is compiled once.  read(raw) iterates over what each element of raw says, one(raw) is
        that of one; raw is any buffer of bytes.

        form       "plain", "json", "bpftool", "words", "samples" or "labels"
        stride     bytes from one element to the next, where they are more than the size
        cpus       so many elements, those of the CPUs, are read as one: numbers are added up, of
                   anything else the first counts
        raises     LayoutError: a form or stride that can't be, more values than bytes could hold;
                   when read, a buffer that is no whole number of elements, or a member that
                   chooses no branch of a _union_
        """
        known = self._readers.get((form, stride, cpus))
        if known is None:
            self._check_readable(form, stride, cpus)
            made = _ChoosingReader if self.is_undecided(_FORMS[form]) else Reader
            known = made(self, _FORMS[form], stride, cpus)
            # another thread may have been faster
            known = self._readers.setdefault((form, stride, cpus), known)
        return known

    def _check_readable(self, form, stride, cpus):
        """Raise LayoutError where there can be no such reader, or it would be too large."""
        if form not in _FORMS:
            raise LayoutError("no form '%s'; there are %s" % (form, ", ".join(_FORMS)))
        if stride is not None and stride < self.size:
            words = (self.name, self.size, stride)  # type: Tuple[Any, ...]
            raise LayoutError("%s: elements of %d bytes are no %d bytes apart" % words)
        if _has_too_many_values(self):
            words = (self.name, self.values, self.size)
            raise LayoutError("%s: %d values in %d bytes are too many to read" % words)
        is_unrolled = _FORMS[form].unrolls_arrays or cpus > 1
        if is_unrolled and self.values > _MAX_SAMPLES:
            words = (self.name, self.values, form, _MAX_SAMPLES)
            raise LayoutError("%s: %d values are too many for %s, at most %d" % words)

    def is_undecided(self, form):
        """Whether it has a union of which the form reads only the branch that a discriminant
        chooses, so that no single reader does for all values.
        """
        return False

    def compiled(self, form, at, columns):
        """Return the piece of a form for what lies at bit `at`, and add its leaves to the columns.

        What the form shows as its meaning is one leaf, whatever there is inside; of anything else
        the node's own _compile makes the piece.
        """
        template = form.template_of_meaning(self)
        if template and at % 8 == 0 and columns.cpus == 1:
            return columns.add_bytes_apart(at // 8, self.size, template)
        convert = form.converter_of_meaning(self)
        if convert is not None:
            return self._add_leaf(form, at, columns, convert)
        if columns.cpus == 1:
            return self._compile(form, at, columns)
        # Of what CPUs have, counts are added up, but never parts of an address, a time or the like.
        is_added, meaning = columns.is_added, self.meaning or _implied_meaning(self)
        columns.is_added = is_added and (meaning is None or meaning.kind.adds_up)
        piece = self._compile(form, at, columns)
        columns.is_added = is_added
        return piece

    def _add_leaf(self, form, at, columns, convert):
        """Add the whole of it to the columns as one leaf; return the form's piece for it."""
        return columns.add_bytes(form, at, self.size, convert)

    def showing(self, path: str, word: str) -> "Layout":
        """Return the same layout in which a field is shown as what it means to people.

        path       "seen", "tuple.saddr", "" for the whole; of an array each element, unless the
                   array as a whole has the size
        word       one of MEANINGS: "ip4", "ktime" ...; "plain" for none, whatever its declaration
        raises     LayoutError: no such field or meaning, or one for something of another size
        """
        if not isinstance(word, str) or word not in MEANINGS:
            words = (word, " ".join(sorted(MEANINGS)))
            raise LayoutError("there is no meaning '%s'; there are %s" % words)
        return _with_meaning_at(self, [step for step in path.split(".") if step], word, path)

    def _labels_text(self):
        """Return what fields there are, for messages."""
        return "none in %s" % self.name

    def _address(self, text):
        """Return the bytes of an address of this size, None: text is none, or means none here."""
        return _address_bytes(text, self.size) if self.takes_addresses else None

    def describe(self) -> str:
        """Return a table: offset, size, name and C type of each member; holes, enumerators and tags
        are shown.

        Padding in a key is compared like any other byte: unless it is zero on both sides, lookups
        miss.
        """
        return _table(self)

    def ctype(self) -> "Type[Any]":
        """Return the ctypes type with exactly these offsets; the same class each time, LayoutError
        if it can't be.

        Enums and pointers are integers; bitfields, and integers of sizes that ctypes does not have,
        are attributes but no ctypes fields.  Objects of records compare, hash and pickle by their
        bytes, print their fields, and refuse numbers that do not fit.
        """
        return _class_of(self)

    def python_source(self, name: str = "") -> str:
        """Return Python that makes the ctypes type anew, without this module, and calls it name."""
        return _source_of_layout(self, name)

    def differences(self, other: "Layout", strict: bool = False) -> "Iterator[Tuple[str, str]]":
        """Yield (path, what is wrong) where this layout, a caller's, does not agree with another,
        the map's.
        """
        return _differences(self, other, strict, "")

    def dtype(self, stride: "Optional[int]" = None) -> "Any":
        """Return what numpy.dtype() takes: numpy.frombuffer(values, m.value_layout.dtype()).

        A code such as "<u4", or a dict of names, formats, offsets and itemsize.  Chars are "S16",
        padding has no name, the members of anonymous records are those of the record around them,
        enumerators their numbers.  Bitfields and integers that NumPy does not have are left out:
        columns() has them.
        stride     bytes from one element to the next, percpu_stride(m.value_size) for per-CPU
                   values; what has no fields is then the field "value"
        """
        made = self._dtype()
        if stride is None:
            return made
        if stride < self.size:
            words = (self.name, self.size, stride)
            raise LayoutError("%s: elements of %d bytes are no %d bytes apart" % words)
        if not isinstance(made, dict):
            made = {"names": ["value"], "formats": [made], "offsets": [0]}
        return dict(made, itemsize=stride)

    def columns(self, raw: "Buffer", stride: "Optional[int]" = None) -> "Dict[str, List[Any]]":
        """Return {field: list}, a column for each leaf of the elements in raw, as pandas.DataFrame
        and pyarrow.table take it.

        Fields are named as conditions name them ("hits[3]", "addr.ip4"; what has none "value").
        Numbers of any bits are ints or floats, enumerators and chars text, whatever the value.
        stride     as of reader()
        raises     LayoutError, also where a _union_ gives the elements different fields
        """
        reader = self.reader("leaves", stride)
        if not isinstance(reader, Reader):
            raise LayoutError("%s: what its unions hold differs: no columns" % self.name)
        if self.size and memoryview(raw).nbytes % reader.stride:
            raise _misfit(reader, raw)
        found = list(zip(*reader.rows(raw))) or [()] * len(reader.paths)
        return {_field_text(path): list(column) for path, column in zip(reader.paths, found)}

    def _dtype(self):
        return "V%d" % self.size

    def pack(self, given: "Any", base: "Optional[bytes]" = None, what: str = "value") -> bytes:
        """Return the bytes for what was typed or read from JSON: text, numbers, lists, dicts by
        name.

        base       bytes whose fields stay where given does not name them; without it all must be
                   named, of a union one branch, or "rest" be given as 0, which is what the rest
                   of that record becomes
        what       the word for it in messages
        raises     LayoutError: nothing is cut, padded or guessed
        """
        packing = _Packing(self.size if base is None else base, base is not None)
        self.put(packing, 0, given, what)
        return bytes(packing.buffer)

    def put(self, packing, at, given, what):
        """Have packing hold what was given, for what lies at bit `at`."""
        stored = self._read_as_meaning(given)
        if isinstance(stored, bytes) and stored is not given:
            packing.put_bytes(at // 8, stored, what)
        else:
            self._put(packing, at, stored, what)

    def _read_as_meaning(self, given):
        """Return the number or the bytes that a text stands for by what this means; given itself
        where it is no such text.
        """
        meaning = self.meaning or _implied_meaning(self)
        if meaning is None or not isinstance(given, str):
            return given
        stored = meaning.told(given.strip(), self)
        return given if stored is None else stored


def _field_text(path):
    """Return the name of a field as conditions have it: hits[3], addr.ip4; "value" for a whole."""
    text = "".join("[%d]" % one if isinstance(one, int) else "." + one for one in path)
    return text.lstrip(".") if path and isinstance(path[0], str) else "value" + text


def _has_too_many_values(layout):
    """Whether it has so many more leaves than bytes that nobody could read it.  Honest types have a
    few more: bitfields share a byte, and branches of unions their bytes.
    """
    return layout.values > _VALUES_PER_BYTE * layout.size + _SPARE_VALUES


# slots of layouts that are no part of what they are: neither compared nor pickled
_WORKED_OUT = frozenset(("_readers", "_hash", "__weakref__", "_parts", "_plan"))


def _same_tree(one, other, seen):
    """Whether two trees say the same.

    seen       pairs of ids that are compared already, so that a part that many share costs once
    """
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(
            _same_tree(mine, theirs, seen) for mine, theirs in zip(one, other)
        )
    if not isinstance(one, (Layout, Member)):
        return one == other
    seen.add((id(one), id(other)))
    return _same_tree(one._facts(), other._facts(), seen)


class Number(Layout):
    """An integer, a leaf of the tree; its subclasses are enums, bools, chars, floats and pointers.

    order      "little" or "big": how its bytes are stored
    bits       8 * size; of a bitfield those that it has
    signed     whether it can be negative

    raw_order is the byte order of the record around it, without what a type like __be32 says:
    bpftool knows no other.  encoding is BTF's (_INT_SIGNED ...), 0 elsewhere.  is_bitfield is true
    also of a bitfield that has all the bits of its type: bpftool prints it as one.
    """

    __slots__ = ("order", "raw_order", "bits", "signed", "encoding", "is_bitfield")
    order: str
    bits: int
    signed: bool
    kind = "u"  # in the name that it gets where it has none: "u32"

    def __init__(self, size, name="", order=sys.byteorder, signed=False, encoding=0):
        kind = "s" if signed and self.kind == "u" else self.kind
        Layout.__init__(self, size, name or _number_name(kind, 8 * size, order))
        self.order = self.raw_order = order
        self.bits, self.signed, self.encoding = 8 * size, signed, encoding
        self.is_bitfield = False

    def _inside(self):
        return self.bits, self.signed, self.order

    def bitfield(self, bits):
        """Return the same number as a bitfield.  Its byte order is that of the record: compilers
        know nothing of __be32.
        """
        return self._changed(bits=bits, order=self.raw_order, is_bitfield=True)

    def ordered(self, order):
        """Return the same number in the byte order that a type like __be32 prescribes."""
        return self._changed(order=order)

    @property
    def low(self) -> int:
        """The lowest number that it holds."""
        return _range_of(self.bits, self.signed)[0]

    @property
    def high(self) -> int:
        """The highest number that it holds."""
        return _range_of(self.bits, self.signed)[1]

    @property
    def is_whole(self) -> bool:
        """Whether struct and ctypes have a type for it."""
        return self.bits == 8 * self.size and self.size in _STRUCT_CODES

    @property
    def takes_addresses(self) -> bool:  # type: ignore[override]  # a fact of Layout
        return type(self) is Number and self.bits == 8 * self.size

    @property
    def code(self) -> str:
        """What the struct module calls it, if it is_whole."""
        code = _STRUCT_CODES[self.size]
        return code if self.signed else code.upper()

    @property
    def has_scalar(self) -> bool:
        """Whether ctypes has a type for it."""
        return self.is_whole

    def scalar(self) -> "Type[Any]":
        """Return the ctypes scalar, if it has_scalar."""
        ints = _SIGNED_INTS if self.signed else _UNSIGNED_INTS
        return getattr(ints[self.size], "__ctype_%se__" % self.order[0])

    def converter(self, form):
        """Return what turns a column of these numbers into what the form says, or None."""
        return form.integer(self)

    def _compile(self, form, at, columns):
        return self._add_leaf(form, at, columns, self.converter(form))

    @property
    def adds_up(self) -> bool:
        """Whether the sum of what CPUs have says something."""
        is_count = type(self) in (Number, Float)
        return is_count and (self.meaning is None or self.meaning.kind.adds_up)

    def _add_leaf(self, form, at, columns, convert):
        if convert is SKIPPED:
            return form.nothing()
        order, signed, template = form.order_of(self), self.signed, None
        if isinstance(convert, _NumberTemplate):
            signed, template, convert = False, convert.template, None
        convert = columns.of_cpus(convert, self.adds_up)
        if self.is_whole and at % 8 == 0:
            code = self.code if signed == self.signed else self.code.upper()
            return columns.add(form, at // 8, self.size, code, order, convert, template)
        # A bitfield: a column of the bytes around it, from which _Bits takes its number.
        bits = _Bits(at, self.bits, order, signed, convert)
        size = bits.last - bits.first
        return columns.add(form, bits.first, size, bits.code, order, bits, template)

    def _put(self, packing, at, given, what):
        number = self.number(given, what)
        if at % 8 == 0 and self.bits == 8 * self.size:
            raw = (number & (1 << self.bits) - 1).to_bytes(self.size, self.order)
            packing.put_bytes(at // 8, raw, what)
        else:
            packing.put_bits(_Bits(at, self.bits, self.order, self.signed), number, what)

    def number(self, given, what):
        """Return the integer that is stored for what was given; LayoutError unless it is one that
        fits.
        """
        if isinstance(given, str):
            given = self._from_text(given.strip(), what)
        if isinstance(given, float) or given is None:
            raise LayoutError("%s must be %s, not %r" % (what, self._wanted(), given))
        return _integer(given, self.low, self.high, "%s (%s)" % (what, self._wanted()))

    def _dtype(self):
        if not self.is_whole:
            return "V%d" % self.size
        return "%s%s%d" % (_ORDER_MARKS[self.order], "i" if self.signed else "u", self.size)

    def _wanted(self):
        """Return what it takes, for messages."""
        if self.bits != 8 * self.size:
            return "a field of %d bits" % self.bits
        return self.name

    def _from_text(self, text, what):
        """Return the number that a text stands for."""
        raw = self._address(text)
        if raw is not None:
            number = int.from_bytes(raw, self.order)
            return number - (self.signed and number > self.high) * (1 << self.bits)
        try:
            return _parsed_int(text)
        except ValueError:
            raise LayoutError("%s: %r is no number%s" % (what, text, self._names_text())) from None

    def _names_text(self):
        """Return what names there are, for the message that a text is none."""
        return ""


def _number_name(kind, bits, order):
    """Return "u32", "s8", "f64"; of the foreign byte order "be16", "bes16", "bef64"."""
    if order == sys.byteorder or bits == 8:
        return "%s%d" % (kind, bits)
    return "%s%s%d" % (order[0] + "e", kind.replace("u", ""), bits)


def _range_of(bits, signed):
    """Return (lowest, highest) of the integers of so many bits."""
    if signed:
        return -1 << bits - 1, (1 << bits - 1) - 1
    return 0, (1 << bits) - 1


class Enum(Number):
    """An integer whose values have names: .names is {number: name}."""

    __slots__ = ("names",)
    names: "Dict[int, str]"

    def __init__(self, size, name, names, order=sys.byteorder, signed=False):
        Number.__init__(self, size, name, order, signed)
        self.names = names

    def _inside(self):
        return Number._inside(self) + tuple(self.names.items())

    def text_of(self, number: int) -> str:
        """Return a number's name, or the number as text: a column of enumerators is text, whatever
        the value.
        """
        return self.names.get(number) or str(number)

    def converter(self, form):
        return form.enum(self)

    def _from_text(self, text, what):
        for number, name in self.names.items():
            if name == text:
                return number
        return Number._from_text(self, text, what)

    def _names_text(self):
        shown = " ".join(list(self.names.values())[:32])
        return " and none of %s%s" % (shown, " ..." if len(self.names) > 32 else "")


class Boolean(Number):
    """A bool: zero or anything else."""

    __slots__ = ()
    kind = "bool"

    def __init__(self, size=1, name="bool", order=sys.byteorder):
        Number.__init__(self, size, name, order)

    def converter(self, form):
        return form.boolean(self)

    def _dtype(self):
        return "?" if self.size == 1 else Number._dtype(self)

    def scalar(self) -> "Type[Any]":
        return ctypes.c_bool if self.size == 1 else Number.scalar(self)

    def number(self, given, what):
        number = Number.number(self, given, what)
        if number not in (0, 1):
            raise LayoutError("%s is a bool: true or false, 1 or 0, not %d" % (what, number))
        return number

    def _from_text(self, text, what):
        words = {"true": 1, "false": 0}
        return words[text.lower()] if text.lower() in words else Number._from_text(self, text, what)


class Char(Number):
    """A byte that is text.

    is_plain_char  whether BTF says char itself and not a typedef of it: bpftool prints an array of
                   no others as text
    """

    __slots__ = ("is_plain_char",)
    kind = "char"

    def __init__(self, name="char", encoding=0, is_plain_char=True, signed=False):
        Number.__init__(self, 1, name, signed=signed, encoding=encoding)
        self.is_plain_char = is_plain_char

    def converter(self, form):
        return form.char(self)

    def _dtype(self):
        return "S1"

    def scalar(self) -> "Type[Any]":
        return ctypes.c_char

    def bitfield(self, bits):
        return Number(1, self.name, signed=self.signed).bitfield(bits)

    @property
    def code(self) -> str:
        return "c"

    def number(self, given, what):
        if isinstance(given, str):
            raw = _text_bytes(given)
            if len(raw) == 1 or not raw:
                return raw[0] if raw else 0
            try:
                given = _parsed_int(given)
            except ValueError:
                raise LayoutError("%s: %r is more than one char" % (what, given)) from None
        if isinstance(given, float) or given is None:
            raise LayoutError("%s must be a char, not %r" % (what, given))
        return _integer(given, -128, 255, "%s (char)" % what)


class Float(Number):
    """A floating-point number of 2, 4 or 8 bytes."""

    __slots__ = ()
    kind = "f"

    def converter(self, form):
        return form.real(self)

    def _dtype(self):
        return "%sf%d" % (_ORDER_MARKS[self.order], self.size)

    @property
    def code(self) -> str:
        return {2: "e", 4: "f", 8: "d"}[self.size]

    @property
    def has_scalar(self) -> bool:
        return self.size in _FLOATS

    def scalar(self) -> "Type[Any]":
        return getattr(_FLOATS[self.size], "__ctype_%se__" % self.order[0])

    @property
    def is_whole(self) -> bool:
        return True

    def _put(self, packing, at, given, what):
        raw = struct.pack(_ORDER_MARKS[self.order] + self.code, self.number(given, what))
        packing.put_bytes(at // 8, raw, what)

    def number(self, given, what):
        """Return what is given.  A float may be rounded, an int may not; neither may overflow."""
        if isinstance(given, str):
            try:
                given = float(given)
            except ValueError:
                raise LayoutError("%s: %r is no number" % (what, given)) from None
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            raise LayoutError("%s must be %s, not %r" % (what, self.name, given))
        try:
            code = "<" + self.code  # in native order struct does not refuse what is too large
            stored = struct.unpack(code, struct.pack(code, given))[0]
        except (OverflowError, struct.error):
            stored = None
        if stored is None or isinstance(given, int) and stored != given:
            raise LayoutError("%s is %s, which does not hold %r" % (what, self.name, given))
        return given


class Pointer(Number):
    """An address in the kernel, which is of use to nobody else; input takes it as a number."""

    __slots__ = ()

    def converter(self, form):
        return form.pointer(self)


class Bytes(Layout):
    """Bytes of which nothing more is known."""

    __slots__ = ()
    takes_addresses = True

    def __init__(self, size, name=""):
        Layout.__init__(self, size, name or "u8[%d]" % size)

    def ctype(self) -> "Type[Any]":
        return u8 * self.size

    def _compile(self, form, at, columns):
        return columns.add_bytes(form, at, self.size, form.raw_bytes(self))

    def _put(self, packing, at, given, what):
        packing.put_bytes(at // 8, self._bytes_for(given, what), what)

    def _bytes_for(self, given, what):
        """Return the bytes that an address, a number of their size or a list of numbers is."""
        if isinstance(given, str):
            raw = self._address(given)
            if raw is not None:
                return raw
            try:
                given = _parsed_int(given)
            except ValueError:
                raise LayoutError(
                    "%s: %r does not say what its %d bytes are" % (what, given, self.size)
                ) from None
        if isinstance(given, int) and self.size in _STRUCT_CODES:  # signed or not, as it comes
            given = _integer(given, -1 << 8 * self.size - 1, (1 << 8 * self.size) - 1, what)
            return (given & (1 << 8 * self.size) - 1).to_bytes(self.size, sys.byteorder)
        if not isinstance(given, list):
            raise LayoutError(
                "%s: %r does not say what its %d bytes are" % (what, given, self.size)
            )
        if len(given) != self.size:
            raise LayoutError("%s: %d bytes, not %d" % (what, len(given), self.size))
        return bytes(_integer(one, 0, 255, "%s[%d]" % (what, at)) for at, one in enumerate(given))


class Array(Layout):
    """An array.

    element    the layout of each element; chars make the array a text
    count      how many there are
    """

    __slots__ = ("element", "count")
    element: "Layout"
    count: int

    def __init__(self, element, count, name=""):
        Layout.__init__(
            self,
            element.size * count,
            name or _array_name(element, count),
            max(element.values * count, 1),
            element.levels + 1,
            element.has_choice and count > 0,
        )
        self.element, self.count = element, count

    def _inside(self):
        return self.count, hash(self.element)

    @property
    def is_text(self) -> bool:
        """Whether it is of chars, which are read as text."""
        return isinstance(self.element, Char)

    @property
    def takes_addresses(self) -> bool:  # type: ignore[override]  # a fact of Layout
        return type(self.element) is Number

    @property
    def elements(self) -> "List[Layout]":
        """The layout of each element."""
        return [self.element] * self.count

    def is_undecided(self, form):
        if not form.unrolls_arrays or not self.has_choice:
            return False
        return any(one.is_undecided(form) for one in self.elements)

    def undecided(self, form, at=0):
        """Yield (discriminant, its bit offset) for each union that has one, in each element."""
        for index, element in enumerate(self.elements):
            yield from element.undecided(form, at + 8 * element.size * index)

    def decided(self, form, values):
        """Return an array whose elements have only the branches that are chosen; values is an
        iterator over what the discriminants hold, in the order of undecided().
        """
        return _ChosenElements(self, [one.decided(form, values) for one in self.elements])

    def _dtype(self):
        if self.is_text:
            return "S%d" % self.size
        return self.element._dtype(), (self.count,)

    def _compile(self, form, at, columns):
        element = self.element
        if self.is_text:
            return columns.add_bytes(form, at, self.size, form.text(self))
        if form.joins_arrays:
            return columns.add_bytes(form, at, self.size, _ByReader(self.reader(form.joins_arrays)))
        if not self.size and self.count > 64:
            return form.array(self, [])  # elements of no bytes: BTF may have billions of them
        if columns.cpus == 1 and self._is_of_bare_numbers(form):
            return columns.add_many(form, self, at // 8)
        # An array that is long, or whose elements each choose branches, is one leaf, its bytes,
        # which a reader of its own converts: to unroll it would take a column for each element.
        if columns.cpus == 1 and form.lists_arrays and (self.values > 64 or element.has_choice):
            inner = element.reader(form.name)
            return columns.add_bytes(form, at, self.size, form.series(inner))
        step = 8 * element.size
        pieces = [element.compiled(form, at + step * index, columns) for index in range(self.count)]
        return form.array(self, pieces)

    def of(self, element):
        """Return the same array of another element."""
        return self._changed(element=element)

    def _is_of_bare_numbers(self, form):
        """Whether it is an array of numbers that a form shows as they are, so that one item of a
        struct ("16I") reads it.
        """
        element = self.element
        if type(element) is not Number or not element.is_whole:
            return False
        is_bare = form.converter_of_meaning(element) is None and form.integer(element) is None
        return is_bare and self.count <= 1 << 16

    def _put(self, packing, at, given, what):
        if self.is_text and isinstance(given, str):
            raw = _text_bytes(given)
            if len(raw) > self.size:
                raise LayoutError("%s: %r has more than %d bytes" % (what, given, self.size))
            packing.put_bytes(at // 8, raw.ljust(self.size, b"\0"), what)
            return
        if isinstance(given, str):
            raw = self._address(given)
            if raw is not None:
                packing.put_bytes(at // 8, raw, what)
                return
        if not isinstance(given, (list, tuple)):
            words = (what, self.count, self.element.name, given)
            raise LayoutError("%s takes a list of %d %s, not %r" % words)
        if len(given) != self.count:
            raise LayoutError("%s: %d elements, not %d" % (what, len(given), self.count))
        for index, one in enumerate(given):
            step = 8 * self.element.size * index
            self.element.put(packing, at + step, one, "%s[%d]" % (what, index))


class _ChosenElements(Array):
    """An array made by decided(): its elements may have chosen different branches."""

    __slots__ = ("elements",)

    def __init__(self, array, elements):
        Array.__init__(self, array.element, array.count, array.name)
        self.elements = elements

    def _compile(self, form, at, columns):
        step = 8 * self.element.size
        placed = enumerate(self.elements)
        pieces = [one.compiled(form, at + step * index, columns) for index, one in placed]
        return form.array(self, pieces)


def _array_name(element, count):
    """Return the C name of an array, the outer length first: "u32[2][4]"."""
    base, bracket, rest = element.name.partition("[")
    return "%s[%d]%s" % (base, count, bracket + rest)


class Member:
    """A member of a record: a layout with a name and a place.

    name      "" where it is anonymous
    layout    of what it holds
    offset    in bits from the start of the record
    bits      of a bitfield; 0: it is none
    label     its name in every form, _json_ may give another; None: it is left out
    tags      BTF's declaration tags of it
    choice    of a union with a discriminant, which _union_ declares: (name of that member, {its
              value: name of the branch}); else None
    bound     name of the BTF member that it has to agree with, _btf_ may give another; None: none

    is_anonymous says that ctypes' _anonymous_ lists it: its members bind to BTF as if they were
    those of the record, though it has a name.
    """

    __slots__ = (
        "name",
        "layout",
        "offset",
        "bits",
        "label",
        "tags",
        "choice",
        "bound",
        "is_anonymous",
    )
    name: str
    layout: "Layout"
    offset: int
    bits: int
    label: "Optional[str]"
    tags: "Tuple[str, ...]"
    choice: "Optional[Tuple[str, Dict[Any, str]]]"
    bound: "Optional[str]"

    def __init__(self, name, layout, offset, bits=0, label=None, tags=()):
        self.name, self.layout, self.offset, self.bits = name, layout, offset, bits
        self.label, self.tags, self.choice = label, tags, None
        self.bound, self.is_anonymous = name, False

    def changed(self, **changes):
        """Return a copy in which some slots differ."""
        copy = Member.__new__(Member)
        for name in self.__slots__:
            setattr(copy, name, changes.get(name, getattr(self, name)))
        return copy

    def _facts(self):
        return [getattr(self, name) for name in self.__slots__]

    def __repr__(self) -> str:
        words = (_printable(self.name), _printable(self.layout.name), self.offset)
        return "<Member %s: %s at bit %d>" % words

    @property
    def width(self) -> int:
        """Bits that it takes."""
        return self.bits or 8 * self.layout.size

    def is_undecided(self, form):
        """Whether it is a union with a discriminant, or is undecided as a layout is."""
        return bool(self.choice) or self.layout.is_undecided(form)

    @property
    def is_odd(self) -> bool:
        """Whether it is a number in bits, or of a size, that neither ctypes nor NumPy has."""
        number = self.layout
        return isinstance(number, Number) and (not number.is_whole or self.offset % 8 > 0)

    @property
    def is_merged(self) -> bool:
        """Whether it is an anonymous record, whose members are named as those of the record around
        it.
        """
        return not self.name and isinstance(self.layout, Record) and not self.choice

    def steps_in(self, steps: "List[str]") -> int:
        """Return how many of the first steps of a path are its name; 0: they name another member.

        Names of variables in data sections have dots: those that are static in a function.
        """
        for name in filter(None, (self.label, self.name)):
            count = name.count(".") + 1
            if ".".join(steps[:count]) == name:
                return count
        return 0

    def moved(self, offset):
        """Return the same member, offset bits further on."""
        return self.changed(offset=self.offset + offset)

    def choosing(self, branch):
        """Return the same member with only one branch of the union that it is."""
        return self.changed(layout=self.layout.only(branch), choice=None)


class Record(Layout):
    """A struct, a union or a data section of BTF.

    kind      "struct", "union" or "section"
    members   Members in the order of their declaration
    parts     the same, but the members of anonymous records in the place of these
    btf_name  what bpftool calls a data section

    own_name is the name without typedefs and qualifiers, row_count how many lines describe() has
    for the members; plan is what its ctypes class has.
    """

    __slots__ = (
        "kind",
        "members",
        "btf_name",
        "own_name",
        "row_count",
        "_parts",
        "_plan",
    )
    kind: str
    btf_name: str

    def __init__(self, kind, name, size, members, btf_name=""):
        self.kind, self.btf_name, self.own_name = kind, btf_name, name
        self.members = tuple(members)
        inside = [member.layout for member in self.members]
        self.row_count = sum(1 + getattr(one, "row_count", 0) for one in inside)
        self._parts = self._plan = None
        Layout.__init__(
            self,
            size,
            name,
            1 + sum(one.values for one in inside),
            1 + max([one.levels for one in inside] or [0]),
            any(member.choice or member.layout.has_choice for member in self.members),
        )

    def _inside(self):
        members = self.members
        return tuple((one.name, one.offset, one.label, hash(one.layout)) for one in members)

    @property
    def parts(self) -> "Tuple[Member, ...]":
        """The members, those of anonymous records in the place of these; no two labels are the
        same.
        """
        if self._parts is None:
            self._parts = tuple(_labelled(_merged_parts(self.members)))
        return self._parts

    @property
    def plan(self):
        """The _ClassPlan of its ctypes class."""
        if self._plan is None:
            self._plan = _ClassPlan(self)
        return self._plan

    @property
    def is_union(self) -> bool:  # type: ignore[override]  # a fact of Layout
        return self.kind == "union"

    def only(self, branch):
        """Return the union with one of its branches."""
        return self.having([member for member in self.members if member.name == branch])

    def having(self, members):
        """Return the same record with other members."""
        made = Record(self.kind, self.name, self.size, members, self.btf_name)
        made.own_name, made.meaning = self.own_name, self.meaning
        return made

    @property
    def takes_addresses(self) -> bool:  # type: ignore[override]  # a fact of Layout
        """Whether it is a wrapper like in_addr and in6_addr: one of numbers alone, as a whole."""
        inside = [one.layout for one in self.members if one.layout.size == self.size]
        return any(one.takes_addresses for one in inside)

    def is_undecided(self, form):
        return self.has_choice and any(member.is_undecided(form) for member in self.members)

    def undecided(self, form, at=0):
        """Yield (discriminant, its bit offset) for each union that has one."""
        for member in self.members:
            if member.choice:
                found = next(one for one in self.members if one.name == member.choice[0])
                yield found, at + found.offset
            elif member.is_undecided(form):
                for found in member.layout.undecided(form, at + member.offset):
                    yield found

    def decided(self, form, values):
        """Return the record with only the branches that are chosen; values is an iterator over what
        the discriminants hold, in the order of undecided().
        """
        members = []
        for member in self.members:
            if member.choice:
                member = member.choosing(self._branch(member, next(values)))
            elif member.is_undecided(form):
                member = member.changed(layout=member.layout.decided(form, values))
            members.append(member)
        return self.having(members)

    def _branch(self, member, value):
        """Return the name of the branch of a union that a value of its discriminant chooses."""
        name, branches = member.choice
        try:
            return branches[value]
        except (KeyError, TypeError):  # TypeError: a list or dict
            words = (self.name.split(" ")[-1], member.name, name, value)
            raise LayoutError("%s.%s: no branch for %s = %r" % words) from None

    def _dtype(self):
        shown = [part for part in self.parts if part.label is not None and not part.is_odd]
        return {
            "names": [part.label for part in shown],
            "formats": [part.layout._dtype() for part in shown],
            "offsets": [part.offset // 8 for part in shown],
            "itemsize": self.size,
        }

    def _compile(self, form, at, columns):
        members = form.members_of(self)
        pieces = []
        for one in members:
            inner = form.layout_of(one) if columns.cpus == 1 else _with_implied_meaning(one)
            pieces.append(inner.compiled(form, at + one.offset, columns))
        return form.record(self, members, pieces)

    def _put(self, packing, at, given, what):
        if isinstance(given, str) and self._put_text(packing, at, given, what):
            return
        if not isinstance(given, dict):
            words = (what, given, self.name, self._labels_text())
            raise LayoutError("%s: %r does not say what %s are: %s" % words)
        given, known, kept = dict(given), self._parts_by_name(), packing.keep
        if "rest" in given and "rest" not in known:
            self._put_rest(packing, at, given.pop("rest"), what)
            packing.keep = True  # nothing is missing now, of this record and of what is in it
        parts = self._put_fields(packing, at, given, known, what)
        missing = [] if packing.keep else self._missing(iter(self.parts), parts)
        if missing:
            words = (what, ", ".join(missing))
            raise LayoutError("%s: %s not given (rest=0 sets what is left to zero)" % words)
        packing.keep = kept

    def _put_text(self, packing, at, text, what):
        """Store an address, or what the only field takes: of struct { u32 id; } a number.  Return
        whether it is one of these.
        """
        raw = self._address(text)
        if raw is not None:
            packing.put_bytes(at // 8, raw, what)
            return True
        named = [one for one in self.parts if one.label is not None]
        if len(named) != 1:
            return False
        named[0].layout.put(packing, at + named[0].offset, text, what)
        return True

    def _put_fields(self, packing, at, given, known, what):
        """Store what is given by the names of fields; return the set of their parts."""
        parts = set()
        for name, one in given.items():
            part = known.get(name)
            if part is None:
                words = (what, name, self._labels_text())
                raise LayoutError("%s: no field '%s'; there are %s" % words)
            inside = "%s.%s" % (what, name) if what else name
            part.layout.put(packing, at + part.offset, one, inside)
            parts.add(part)
        return parts

    def _put_rest(self, packing, at, rest, what):
        """Set to zero what was not given of the record."""
        if isinstance(rest, (bool, float)) or rest not in (0, "0"):
            raise LayoutError("%s: rest can only be 0, not %r" % (what, rest))
        packing.clear(at // 8, self.size)

    def _first_named(self, steps):
        """Return (part, how many of the steps of a path are its name), else (None, 0)."""
        known = self._parts_by_name()
        most = 1 + max((name.count(".") for name in known), default=0)
        for count in range(min(most, len(steps)), 0, -1):
            part = known.get(".".join(steps[:count]))
            if part is not None:
                return part, count
        return None, 0

    def _labels_text(self):
        return ", ".join(part.label for part in self.parts if part.label is not None)

    def _parts_by_name(self):
        """Return {label, or name of a field that has another label: part}."""
        known = {part.name: part for part in self.parts}
        known.update((part.label, part) for part in self.parts if part.label is not None)
        return known

    def _missing(self, parts, given):
        """Return the labels of what must be given and is not; no form shows the others.

        parts      an iterator over the parts of the outermost record, of which each record in turn
                   takes its own
        given      the set of parts that are given
        """
        open_members = []
        for member in self.members:
            if member.is_merged:
                open_members.append(member.layout._missing(parts, given))
                continue
            part = next(parts)
            if part in given:
                open_members.append([])
            elif part.layout.size and part.label is not None:
                open_members.append([part.label])
        if not self.is_union:
            return list(chain.from_iterable(open_members))
        if not open_members or any(not labels for labels in open_members):
            return []  # one branch of the union is there as a whole
        return ["one of " + ", ".join(labels[0] for labels in open_members)]


def _merged_parts(members):
    """Yield the members, those of anonymous records in the place of these."""
    for member in members:
        if not member.is_merged:
            yield member
            continue
        for part in member.layout.parts:
            yield part.moved(member.offset)


def _labelled(parts):
    """Yield the parts; one whose label an earlier part has gets another label."""
    names = _TakenNames(())
    for part in parts:
        label = part.label if part.label is None else names.free(part.label)
        yield part if label == part.label else part.changed(label=label)


class _TakenNames:
    """Names that are taken.  To find a free one takes as long with many names as with few: the
    next number to try is kept for each name.
    """

    __slots__ = ("taken", "numbers")

    def __init__(self, taken):
        self.taken, self.numbers = set(taken), {}  # name -> number to try next

    def free(self, name):
        """Take and return the name, or the next of name_1, name_2 that is free."""
        found = name
        while found in self.taken:
            number = self.numbers[name] = self.numbers.get(name, 0) + 1
            found = "%s_%d" % (name, number)
        self.taken.add(found)
        return found


# -- bitfields
# Where a number lies that is no whole number of bytes, or begins inside of one.  Readers convert
# columns with it, packing and the classes made from a Layout set bits by it.


class _Bits:
    """Where a bitfield lies: which bytes hold it, how far it is shifted in their number, its mask.

    Of struct { u16 a:3, b:10; } b lies at bit 3: bytes 0 and 1, as one number, hold it; on a
    little-endian machine it is shifted by 3 there, on a big-endian one by 16 - 3 - 10.

    It is a converter, too.  Called with a column of what the bytes hold (integers, or bytes where
    struct has no integer of that size) it returns the numbers of the bitfield, which then, if it is
    not None, converts further.

    offset     in bits, as C counts them: from the low end of each byte, in big-endian data from
               the high one
    first, last  the first byte, and the one behind the last
    sign       the mask of the sign bit, 0 of an unsigned number
    code       what the struct module calls a number of those bytes
    """

    __slots__ = ("first", "last", "shift", "bits", "mask", "order", "sign", "code", "then")

    def __init__(self, offset, bits, order, signed, then=None):
        self.first, self.last = offset // 8, (offset + bits + 7) // 8
        size = self.last - self.first
        inside = offset - 8 * self.first
        self.shift = inside if order == "little" else 8 * size - inside - bits
        self.bits, self.mask, self.order = bits, (1 << bits) - 1, order
        self.sign = 1 << bits - 1 if signed and bits else 0
        self.code = _STRUCT_CODES[size].upper() if size in _STRUCT_CODES else "%ds" % size
        self.then = then

    def __call__(self, column):
        shift, mask, sign = self.shift, self.mask, self.sign
        if self.code[-1] == "s":
            order = self.order
            column = [int.from_bytes(raw, order) for raw in column]
        if sign:
            column = [((whole >> shift & mask) ^ sign) - sign for whole in column]
        else:
            column = [whole >> shift & mask for whole in column]
        return column if self.then is None else self.then(column)

    def of(self, raw):
        """Read the bitfield: return its number, given the bytes of the record."""
        whole = int.from_bytes(raw[self.first : self.last], self.order)
        return ((whole >> self.shift & self.mask) ^ self.sign) - self.sign


# -- input: what was typed, or read from JSON, becomes bytes
# Layout.pack begins with a _Packing, the buffer.  Each node puts what it was given into it (put),
# records and arrays by their parts.  A text is first tried as what the layout means ("5m ago",
# "eth0"), then as the node reads text itself (_from_text: a number, an enumerator, an address).
# Nothing is cut, padded or guessed, and no byte is given twice with different values.


class _Packing:
    """The buffer that pack fills.  Bits that were given once can't be given otherwise, by another
    branch of a union or another name of a field.

    start      the bytes to begin with, or how many zeros
    keep       whether what is not given stays; else all must be given
    """

    __slots__ = ("start", "keep", "given", "_buffer")

    def __init__(self, start, keep, buffer=None):
        self.start, self.keep = start, keep
        self.given = {}  # byte -> mask of its bits that were given
        self._buffer = buffer

    @property
    def buffer(self):
        """The bytes, made when the first is put: what is refused may be of gigabytes."""
        if self._buffer is None:
            self._buffer = bytearray(self.start)
        return self._buffer

    def put_bytes(self, first, raw, what):
        for at, byte in enumerate(raw, first):
            self._put(at, byte, 0xFF, what)

    def clear(self, first, size):
        """Set to zero what has not been given of some bytes."""
        for at in range(first, first + size):
            self.buffer[at] &= self.given.get(at, 0)

    def put_bits(self, bits, number, what):
        """Write a bitfield: store a number where its _Bits say that it lies."""
        whole = (number & bits.mask) << bits.shift
        mask = bits.mask << bits.shift
        size = bits.last - bits.first
        pairs = zip(whole.to_bytes(size, bits.order), mask.to_bytes(size, bits.order))
        for at, (byte, part) in enumerate(pairs, bits.first):
            self._put(at, byte, part, what)

    def _put(self, at, byte, mask, what):
        """Store the bits of a byte that mask has."""
        both = self.given.get(at, 0) & mask
        if (self.buffer[at] ^ byte) & both:
            raise LayoutError(
                "%s says something else of byte %d than what was given before" % (what, at)
            )
        self.given[at] = self.given.get(at, 0) | mask
        self.buffer[at] = self.buffer[at] & ~mask | byte & mask


def _integer(given, low, high, what):
    """Return given as an int; LayoutError unless it is one (or has __index__) from low to high."""
    number = given.__index__() if hasattr(type(given), "__index__") else given
    if not issubclass(type(number), int):
        raise LayoutError("%s must be an int, not %s" % (what, type(given).__name__))
    number = int.__index__(number)  # a subclass of int may define < as it likes
    if not low <= number <= high:
        raise LayoutError("%s is %d, outside %d..%d" % (what, number, low, high))
    return number


def _parsed_int(text):
    """Return the integer that a word stands for: 010 is octal, as for bpftool's strtoul.

    raises     ValueError
    """
    digits = text.lstrip("+-")
    if not digits.isalnum() or max(digits) > "~" or len(text) > len(digits) + 1:
        raise ValueError("'%s' is no number" % text)
    is_octal = digits.isdigit() and digits[0] == "0"
    return int(text, 8 if is_octal else 0)


_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _address_bytes(text, size):
    """Return the bytes of an IPv4, IPv6 or MAC address of this size, None if text is none."""
    if size == 6 and text.count(":") == 5:
        parts = text.split(":")
        if not all(0 < len(part) < 3 and _HEX_DIGITS.issuperset(part) for part in parts):
            raise LayoutError("'%s' is no address" % text)
        return bytes(int(part, 16) for part in parts)
    is_ip4 = size == 4 and text.count(".") == 3
    if not is_ip4 and not (size == 16 and text.count(":") > 1):
        return None
    import socket

    try:
        return socket.inet_pton(socket.AF_INET if is_ip4 else socket.AF_INET6, text)
    except (OSError, ValueError):  # ValueError: NULs, and what is no UTF-8
        raise LayoutError("'%s' is no address" % text) from None


# Text in char arrays ends at its first NUL.  Bytes that are no UTF-8 show as \xNN, and where that
# could be mistaken for what the text says itself, a backslash shows as two.


def _text_of(raw):
    """Return what a C string says."""
    return _escaped(raw.split(b"\0", 1)[0])


def _escaped(raw):
    """Return bytes as text, in the form that _text_bytes reads again."""
    try:
        text = raw.decode("utf-8")
        if "\\x" not in text:
            return text
    except UnicodeDecodeError:
        pass
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _text_bytes(text):
    """Return the bytes that a text, as _escaped writes it, stands for."""
    if "\\x" not in text:
        return text.encode("utf-8", "surrogateescape")
    import re

    def byte(found):
        return b"\\" if found.group(1) == b"\\" else bytes([int(found.group(1)[1:], 16)])

    raw = text.encode("utf-8", "surrogateescape")
    return re.sub(rb"\\(\\|x[0-9a-fA-F]{2})", byte, raw)


# -- ctypes objects
# What a caller's class defines (__new__, a field named from_buffer, a property named value) must
# not come between us and the bytes, so objects are made, copied and read through the classes of
# ctypes.

# f(scalar), which returns its value, whatever its class has under that name
_get_value = ctypes._SimpleCData.__dict__["value"].__get__


def _base(ctype):
    """Return the class of ctypes that a type is derived from."""
    return next(base for base in _BASES if issubclass(ctype, base))


def _maker(ctype):
    """Return f(), which makes a zeroed object of ctype, whatever __new__ and __init__ the class has
    or gets.
    """
    return ctype if _is_plain(ctype) else partial(_base(ctype).__new__, ctype)


def _copier(ctype):
    """Return f(buffer, offset=0), which makes a ctype of a copy of the bytes there."""
    # __get__ without type(ctype) crashes 3.13
    return type(_base(ctype)).from_buffer_copy.__get__(ctype, type(ctype))


def _overlay(ctype):
    """Return f(buffer, offset=0), which makes a ctype that shares its memory with the buffer."""
    return type(_base(ctype)).from_buffer.__get__(ctype, type(ctype))


def _raw(obj):
    """Return the bytes of an object, not what its class's __bytes__ says."""
    return ctypes.string_at(addressof(obj), sizeof(obj))


def _is_scalar(ctype):
    """Whether it is a scalar class of ctypes or derived from one, of whatever _type_."""
    return (
        isinstance(ctype, type)
        and issubclass(ctype, ctypes._SimpleCData)
        and hasattr(ctype, "_type_")
    )


def _is_record(ctype):
    return isinstance(ctype, type) and issubclass(ctype, (ctypes.Structure, ctypes.Union))


def _is_array(ctype):
    return isinstance(ctype, type) and issubclass(ctype, ctypes.Array)


def _is_int(ctype):
    return _is_scalar(ctype) and ctype._type_ in _INT_CODES


def _is_plain(ctype):
    """Whether it is a scalar class of ctypes itself and no subclass: only of these ctypes hands out
    plain numbers, as fields and as elements of arrays.
    """
    return (
        _is_scalar(ctype)
        and ctype.__mro__[1] is ctypes._SimpleCData
        and ctype.__module__ == "ctypes"
    )


def _is_plain_int(ctype):
    return _is_plain(ctype) and _is_int(ctype)


def _int_range(ctype):
    """Return (lowest, highest) of an integer type."""
    return _range_of(8 * sizeof(ctype), ctype._type_ in _SIGNED_CODES)


def _is_swapped(ctype):
    """Whether the type keeps its bytes in the order that this machine does not."""
    native = "__ctype_le__" if sys.byteorder == "little" else "__ctype_be__"
    if hasattr(ctype, "_swappedbytes_"):
        return True
    return _is_scalar(ctype) and getattr(ctype, native, ctype) is not ctype


def type_name(ctype: "Type[Any]") -> str:
    """Return a ctypes type in C's terms: "u32", "be16", "char[16]", "struct FlowKey"."""
    brackets = ""
    while _is_array(ctype):
        ctype, brackets = ctype._type_, brackets + "[%d]" % ctype._length_
    if _is_record(ctype):
        word = "union" if issubclass(ctype, ctypes.Union) else "struct"
        return "%s %s%s" % (word, ctype.__name__, brackets)
    if not _is_scalar(ctype) or ctype._type_ not in _INT_CODES + _FLOAT_CODES + "?c":
        return getattr(ctype, "__name__", repr(ctype)) + brackets
    if ctype._type_ in "?c":
        return ("bool" if ctype._type_ == "?" else "char") + brackets
    order = _FOREIGN_ORDER if _is_swapped(ctype) else sys.byteorder
    kind = "f" if ctype._type_ in _FLOAT_CODES else "u"
    if ctype._type_ in _SIGNED_CODES:
        kind = "s"
    return _number_name(kind, 8 * sizeof(ctype), order) + brackets


def _to_ctype(ctype, size, given, what):
    """Return a ctypes object that holds what a caller gave as key or value; given itself where it
    is one already.

    ctype      the type of keys or values, or bytes for size raw bytes
    given      an object of that type, its bytes, or a number where the type is a scalar
    what       the word for it in messages
    raises     LayoutError: anything else; nothing is cut, padded or converted otherwise
    """
    # Its class alone does not tell how large an object is: __class__ may have been assigned.
    if type(given) is ctype and ctype is not bytes and sizeof(given) >= size:
        return given
    if isinstance(given, (bytes, bytearray, memoryview)) or _is_same_array(ctype, given):
        return _object_of_bytes(ctype, size, given, what)
    if _is_int(ctype) and hasattr(type(given), "__index__"):
        about = "%s (%s)" % (what, type_name(ctype))
        return _scalar_object(ctype, _integer(given, *_int_range(ctype), what=about))
    if _is_scalar(ctype) and isinstance(given, (int, float)):
        if ctype._type_ == "?" and given in (0, 1) and isinstance(given, int):
            return _scalar_object(ctype, given)
        if ctype._type_ in _FLOAT_CODES:
            return _float_object(ctype, given, what)
    accepted = "%d bytes" % size
    if ctype is not bytes:
        kinds = (type_name(ctype), ", an int" if _is_int(ctype) else "", accepted)
        accepted = "%s%s or %s" % kinds
    raise LayoutError("%s must be %s, not %s" % (what, accepted, type(given).__name__))


def _is_same_array(ctype, given):
    """Whether it is an array of the elements that an array class has.  There may be two classes for
    one type: ctypes keeps one, Layout.ctype makes another.
    """
    is_array = _is_array(ctype) and isinstance(given, ctypes.Array)
    return is_array and type(given)._type_ is ctype._type_


def _object_of_bytes(ctype, size, given, what):
    """Return a new object of a type, or of bytes, that holds a copy of what a buffer has."""
    try:
        raw = memoryview(given).tobytes()  # a copy: no other thread can resize it
    except ValueError as error:  # a memoryview that was released
        raise LayoutError("%s: %s" % (what, error)) from None
    if len(raw) != size:
        raise LayoutError("%s takes exactly %d bytes, not %d" % (what, size, len(raw)))
    return _copier(u8 * size if ctype is bytes else ctype)(raw)


def _float_object(ctype, given, what):
    """Return a new float scalar.  A float may be rounded to fit, an int may not; neither may
    overflow.
    """
    try:
        obj = _scalar_object(ctype, given)
        number = _get_value(obj)
    except OverflowError:
        number = None
    infinite = number in (float("inf"), float("-inf"), None)
    if number == given or isinstance(given, float) and not infinite:
        return obj
    raise LayoutError("%s is %s, which does not hold %r" % (what, type_name(ctype), given))


def _scalar_object(ctype, number):
    """Return a new scalar that holds a number."""
    obj = _maker(ctype)()
    ctypes._SimpleCData.__dict__["value"].__set__(obj, number)
    return obj


# -- front end: ctypes classes
# A class may have been changed after ctypes made it: a _type_ assigned, a field deleted, a
# descriptor replaced.  So what its _fields_ say is compared with what ctypes really does.  The
# proof is made once for a class, with its first use, from which on ctypes lets nobody add fields.


def layout(t: "Union[Layout, str, Type[_Object]]") -> "Layout":
    """Return the Layout of a ctypes class or of a type in C's words.

    t          FlowKey, "u32", "struct { __be16 port; char name[14]; }", or a Layout, which is
               itself
    raises     LayoutError: no plain data, or no type
    """
    if isinstance(t, Layout):
        return t
    return _c_text_layout(t) if isinstance(t, str) else _class_layout(t, "the type")


_class_layouts = None  # class -> Layout, as long as the class lives


def _class_layout(ctype, what):
    """Return the Layout of a ctypes class, proved once; what is the word for it in messages."""
    global _class_layouts
    if _class_layouts is None:
        import weakref

        _class_layouts = weakref.WeakKeyDictionary()
    try:
        known = _class_layouts.get(ctype)
    except TypeError:  # no class at all
        known = None
    if known is None:
        try:
            known = _layout_of_class(ctype, what, 0)
        except LayoutError:
            raise
        # LayoutError is a TypeError.  The others come of a class whose attributes were replaced.
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            words = (what, getattr(ctype, "__name__", ctype), error)
            raise LayoutError("%s: %s is not what ctypes made: %s" % words) from None
        _class_layouts[ctype] = known
    return known


def _way_to_a_class(given):
    """Return what makes a ctypes class of what is none, for the error that refuses it."""
    if isinstance(given, str):
        return "; parse_type() makes one of C text"
    return "; its .ctype() is one" if isinstance(given, Layout) else ""


def _layout_of_class(ctype, what, depth):
    """Return the Layout of a ctypes class that is inside of depth others."""
    if depth > MAX_DEPTH:
        raise LayoutError("%s: more than %d levels of types inside types" % (what, MAX_DEPTH))
    if _is_array(ctype):
        made = _array_layout(ctype, what, depth)
    elif _is_scalar(ctype):
        return _scalar_layout(ctype, what)
    elif not _is_record(ctype) or ctype in (ctypes.Structure, ctypes.Union):
        wanted = "a ctypes scalar, Structure, Union or array, or bytes"
        words = (what, wanted, ctype, _way_to_a_class(ctype))
        raise LayoutError("%s must be %s, not %r%s" % words)
    else:
        made = _record_layout(ctype, what, depth)
    if _has_too_many_values(made):
        words = (what, made.values, made.size)
        raise LayoutError("%s: %d values in %d bytes are too many" % words)
    return made


def _array_layout(ctype, what, depth):
    """Return the Layout of an array class."""
    element = _layout_of_class(ctype._type_, what + "[]", depth + 1)
    made = Array(element, ctype._length_)
    if made.size != sizeof(ctype):
        raise LayoutError("%s: %s is no longer the array that ctypes made" % (what, ctype.__name__))
    return made


def _scalar_layout(ctype, what):
    """Return the Layout of a scalar class; LayoutError if its value means something only here."""
    codes = _INT_CODES + _FLOAT_CODES + "?c"
    # _type_ may have been assigned; the format of an object is what it was when ctypes made the
    # class
    if ctype._type_ not in codes or memoryview(_base(ctype).__new__(ctype)).format[-1] not in codes:
        raise LayoutError(
            "%s is %s: a pointer, object or wide character of this process means nothing in a map"
            % (what, ctype.__name__)
        )
    order = _FOREIGN_ORDER if _is_swapped(ctype) else sys.byteorder
    if ctype._type_ == "c":
        return Char()
    if ctype._type_ == "?":
        return Boolean(sizeof(ctype), order=order)
    if ctype._type_ in _FLOAT_CODES:
        return Float(sizeof(ctype), order=order, signed=True)
    return Number(sizeof(ctype), order=order, signed=ctype._type_ in _SIGNED_CODES)


_ZERO = u8()


def _record_layout(ctype, what, depth):
    """Return the Layout of a Structure or Union, with the fields that it inherits."""
    # ctypes lets nobody add _fields_ once there is an object.  This one takes no memory of its own,
    # however large the class is, and nothing reads it.
    type(_base(ctype)).from_address.__get__(ctype, type(ctype))(addressof(_ZERO))
    made_of = _origin(ctype)
    if made_of is not None:
        return made_of
    members = []  # type: list
    for cls in reversed(ctype.__mro__):
        made_of = _origin(cls)
        if made_of is not None:
            # copies: what the class declares is set on them
            members += [member.changed() for member in made_of.members]
        else:
            members += _own_members(cls, what, depth)
    names = [member.name for member in members if member.name]
    if len(set(names)) < len(names):
        raise LayoutError("%s: %s has two fields of one name" % (what, type_name(ctype)))
    _apply_declarations(ctype, members)
    kind = "union" if issubclass(ctype, ctypes.Union) else "struct"
    return Record(kind, type_name(ctype), sizeof(ctype), members)


def _origin(cls):
    """Return the Layout that Layout.ctype made a class of, None if it did not."""
    made_of = cls.__dict__.get("_made_of_")
    is_true = isinstance(made_of, Record) and _known_class(made_of) is cls
    return made_of if is_true else None


def _own_members(cls, what, depth):
    """Return a Member of each field that a class declares itself, bitfields where C has them."""
    fields = _own_fields(cls)
    places = [8 * field.offset for field in fields]
    if any(field.bits for field in fields):
        for field in fields:  # proved before _check_bitfields sets them
            _layout_of_class(field.type, "%s.%s" % (what, field.name), depth + 1)
        _check_bitfields(cls, what)
        positions = _c_offsets(cls, getattr(cls, "_pack_", 0))[0]
        for at, field in enumerate(fields):
            places[at] = places[at] if field.bits is None else positions[at]
    members, order = [], _FOREIGN_ORDER if _is_swapped(cls) else sys.byteorder
    for field, place in zip(fields, places):
        inner = _layout_of_class(field.type, "%s.%s" % (what, field.name), depth + 1)
        if field.bits is not None:
            inner = inner._changed(raw_order=order).bitfield(field.bits)
        if place < 0 or place + (field.bits or 8 * inner.size) > 8 * sizeof(cls):
            words = (cls.__name__, field.name)
            raise LayoutError("%s.%s is no longer the field that ctypes made" % words)
        members.append(Member(field.name, inner, place, field.bits or 0, field.name))
    return members


class _Field:
    """A field that a Structure or Union declares itself.

    name, type, bits  as _fields_ has them; bits is None where it is no bitfield
    descriptor        what ctypes made of it, with its .offset in bytes
    """

    __slots__ = ("name", "type", "bits", "descriptor", "offset")

    def __init__(self, owner, spec):
        self.name, self.type = spec[0], spec[1]
        self.bits = spec[2] if len(spec) > 2 else None
        self.descriptor = owner.__dict__.get(self.name)
        self.offset = getattr(self.descriptor, "offset", None)
        if not isinstance(self.offset, int):
            words = (owner.__name__, self.name)
            raise LayoutError("%s.%s is no longer the field that ctypes made" % words)


def _own_fields(ctype):
    """Return the _Fields of a class, without those of its base classes."""
    return [_Field(ctype, spec) for spec in ctype.__dict__.get("_fields_", ())]


def _check_bitfields(ctype, what):
    """Raise LayoutError where this Python has a field in other bits than C, as those before 3.14 do
    for some classes.  It is found out by setting each bitfield to ones.
    """
    expected, size = _c_offsets(ctype, getattr(ctype, "_pack_", 0))
    order = _FOREIGN_ORDER if _is_swapped(ctype) else sys.byteorder
    over = _overlay(ctype)
    wrong = []
    if size != sizeof(ctype):
        wrong.append("it has %d bytes here and %d in C" % (sizeof(ctype), size))
    for field, position in zip(_own_fields(ctype), expected):
        if field.bits is None:
            if 8 * field.offset != position:
                wrong.append(
                    "%s: byte %d here, %d in C" % (field.name, field.offset, position // 8)
                )
            continue
        raw = bytearray(sizeof(ctype))
        is_inside = 0 <= field.offset <= sizeof(ctype) - sizeof(field.type)
        if is_inside:  # ctypes would write to where the descriptor says, whatever is there
            field.descriptor.__set__(over(raw), -1)
        shift = position if order == "little" else 8 * sizeof(ctype) - position - field.bits
        if shift < 0 or int.from_bytes(raw, order) != (1 << field.bits) - 1 << shift:
            words = (field.name, field.bits, position, sys.version.split()[0])
            wrong.append("%s: C has it in %d bits from bit %d on, Python %s elsewhere" % words)
    if wrong:
        raise LayoutError(
            "%s: the bitfields of %s do not lie where C puts them (%s); declare whole integers and"
            " shift, or order the fields by the size of their types"
            % (what, type_name(ctype), "; ".join(wrong))
        )


def _c_offsets(ctype, pack):
    """Return ([bit offset of each field of its own], bytes) of a class as C lays it out.

    pack       n of #pragma pack(n), 0: none
    """
    base = ctype.__mro__[1]
    inherits = any("_fields_" in cls.__dict__ for cls in base.__mro__)
    position = 8 * sizeof(base) if inherits else 0
    align = ctypes.alignment(base) if inherits else 1
    fields = [
        (sizeof(one.type), ctypes.alignment(one.type), one.bits) for one in _own_fields(ctype)
    ]
    return _c_placement(fields, issubclass(ctype, ctypes.Union), pack, position, align)


def _c_placement(fields, is_union, pack=0, position=0, align=1):
    """Return ([bit offset of each field], bytes) as C lays a record out.

    fields     (size, alignment, bits or None) of each, in the order of declaration
    pack       n of #pragma pack(n), 0: none
    position, align  those that what is inherited ends with

    A bitfield takes the next free bits, unless it would cross more units of its type's alignment
    than the type has (never asked under a pragma): the System V rule, PCC_BITFIELD_TYPE_MATTERS in
    GCC.  One of no bits ends a unit.
    """
    end, offsets = position, []
    for size, unit, bits in fields:
        unit_bits = 8 * (min(unit, pack) if pack else unit)
        if is_union:
            position = 0
        width = 8 * size if bits is None else bits
        units = (position % unit_bits + width + unit_bits - 1) // unit_bits
        crosses = not pack and units > 8 * size // unit_bits
        if bits is None or crosses or bits == 0:
            position = -(-position // unit_bits) * unit_bits
        offsets.append(position)
        position += width
        end, align = max(end, position), max(align, unit_bits // 8)
    size = -(-end // 8)
    return offsets, -(-size // align) * align


def _apply_declarations(ctype, members):
    """Set on members, which nobody else has yet, what the class declares of them: _json_, _show_,
    _btf_, _anonymous_ and _union_.
    """
    named = {member.name: member for member in members}
    for name, label in _declared(ctype, "_json_", named).items():
        if label is not None and not isinstance(label, str):
            words = (ctype.__name__, label, name)
            raise LayoutError("%s._json_: %r is no name for '%s'" % words)
        named[name].label = label
    _prove_labels_differ(ctype, members)
    for name, word in _declared(ctype, "_show_", named).items():
        try:
            named[name].layout = named[name].layout.showing("", word)
        except LayoutError as failure:
            raise LayoutError("%s._show_: %s: %s" % (ctype.__name__, name, failure)) from None
    bound = _declared(ctype, "_btf_", named)
    for name, other in bound.items():
        named[name].bound = other
    for name in getattr(ctype, "_anonymous_", ()):
        if name in named and name not in bound:
            named[name].is_anonymous = isinstance(named[name].layout, Record)
    for name, spec in _declared(ctype, "_union_", named).items():
        named[name].choice = _checked_choice(ctype, named, named[name], spec)


def _prove_labels_differ(ctype, members):
    """Raise LayoutError if members of a class have one name in JSON."""
    labels = set()  # type: set
    for label in (member.label for member in members if member.label is not None):
        if label in labels:
            raise LayoutError("%s: _json_ gives two fields the name %r" % (ctype.__name__, label))
        labels.add(label)


def _declared(ctype, attribute, named):
    """Return a dict that a class has as an attribute like _json_, with what its base classes have
    in theirs.

    raises     LayoutError: a key that is not in named, no field
    """
    entries = {}  # type: dict
    for cls in reversed(ctype.__mro__):
        if "_made_of_" not in cls.__dict__:
            entries.update(cls.__dict__.get(attribute) or {})
    for name in entries:
        if name not in named:
            words = (ctype.__name__, attribute, name)
            raise LayoutError("%s.%s names %r, which is no field" % words)
    return entries


def _checked_choice(ctype, named, member, spec):
    """Return (name of the discriminant, {value: branch}) of an entry of _union_, checked.

    named      {name: member} of the class
    member     the union
    """
    try:
        discriminant, branches = spec
        branches = dict(branches)
        named[discriminant]
    except (TypeError, ValueError, KeyError):
        words = (ctype.__name__, spec)
        raise LayoutError("%s._union_: %r is not (field, {value: branch})" % words) from None
    known = [inner.name for inner in member.layout.members]
    for branch in branches.values():
        if branch not in known:
            raise LayoutError("%s.%s has no branch %r" % (ctype.__name__, member.name, branch))
    return discriminant, branches


def check_layout(ctype: "Type[Union[_Object, bytes]]", size: int, what: str = "value") -> None:
    """Raise LayoutError unless ctype is plain data of exactly size bytes, laid out as in C.

    It looks at the size and at the rules of C alone.  A map's BTF is compared with the class when
    the map is opened (_prove_agreement).  Pointers, py_object and wide characters are refused at
    any depth: they mean nothing in a map.

    ctype      a scalar, Structure, Union or array, or bytes, which fits any size
    what       the word for it in messages
    """
    if ctype is bytes:
        return
    found = _class_layout(ctype, what)
    if found.size == size:
        return
    message = "%s has %d bytes in the map, %s has %d" % (what, size, type_name(ctype), found.size)
    if _is_record(ctype):
        for pack, words in ((1, "with _pack_ = 1"), (0, "without _pack_")):
            other = _c_offsets(ctype, pack)[1]
            if other != found.size:
                fits = ", which fits" if other == size else ""
                message += "; %s it would have %d%s" % (words, other, fits)
    table = found.describe().split("\n") if _is_record(ctype) else ()
    raise LayoutError(message, *table)


def describe_layout(ctype: "Type[_Object]") -> str:
    """Return Layout.describe() of a ctypes class: a table of its members and holes.

    raises     LayoutError
    """
    return layout(ctype).describe()


# -- front end: C text
# A parser by recursive descent, of declarations alone.  Sizes and alignments are those of the BPF
# target, where a long and a pointer have 8 bytes, whatever this machine has.


def _c_numbers():
    """Return {name: Layout} of the integers and floats that have a name of one word."""
    real = {"f32": 4, "float": 4, "f64": 8, "double": 8}
    found = {name: Float(size, signed=True) for name, size in real.items()}
    found.update(char=Char(), bool=Boolean(), _Bool=Boolean(), size_t=Number(8), uchar=Number(1))
    unsigned = ("u%d", "__u%d", "uint%d_t", "u_int%d_t")
    signed = ("s%d", "__s%d", "int%d_t", "i%d")
    for size in (1, 2, 4, 8, 16):
        numbers = [(unsigned, Number(size)), (signed, Number(size, signed=True))]
        if size > 1:
            # named also where all numbers are big-endian: the name says that it may be an address
            big = Number(size, "be%d" % (8 * size), order="big")
            numbers.append((("be%d", "__be%d"), big))
            numbers.append((("le%d", "__le%d"), Number(size, order="little")))
        for spellings, number in numbers:
            found.update((spelling % (8 * size), number) for spelling in spellings)
    found.update(be8=Number(1), le8=Number(1))
    return found


_C_NUMBERS = _c_numbers()
# The words that C spells an integer with, in any order.
_C_WORDS = frozenset(
    ("char", "short", "int", "long", "signed", "unsigned", "__signed__", "__int128")
)
_C_QUALIFIERS = frozenset(("const", "volatile", "restrict", "static", "struct_group"))

_MAX_BYTES = min(0xFFFFFFFF, sys.maxsize)  # of a type: no key or value is larger


def parse_type(text: str) -> "Type[Any]":
    """Return the ctypes type for C text.

    text       "u32", "be16", "char[16]", "u64 count, u64 last_seen", "struct { ... }"
    raises     LayoutError: it is no type
    """
    return _c_text_layout(text).ctype()


def _c_text_layout(text, named=None):
    """Return the Layout of a type in C's words.

    named      f(kind, name), which returns the Layout of what is declared elsewhere, or None; kind
               is "struct", "union", "enum" or None
    """
    parser = _CParser(text, named or (lambda kind, name: None))
    try:
        found = parser.whole()
    except (IndexError, ValueError, RecursionError):
        raise parser.error() from None
    if found.size > _MAX_BYTES:
        raise LayoutError("'%s' is too large" % text)
    if found.levels > MAX_DEPTH:
        raise LayoutError("'%s': more than %d levels of types inside types" % (text, MAX_DEPTH))
    return found


class _CParser:
    """Reads C declarations: types in words, bodies of struct, union and enum, arrays, bitfields,
    attributes.

    Each method that reads takes the words that it is about and leaves the next one to its caller.
    IndexError, where the text ends too early, and ValueError of a number are errors of the text.
    A base type is (Layout, alignment); the Layout is None of what only a pointer can be made to.
    """

    def __init__(self, text, named):
        import re

        self.text, self.named = text, named
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
        self.words = re.findall(r"[A-Za-z_]\w*|0[xX][0-9a-fA-F]+|\d+|\S", text, re.ASCII) + [""]
        self.at = self.depth = 0

    def error(self, why=""):
        """Return the error that the text is no type."""
        known = "u8 .. u128, s8 .., be16 .., char, bool, float, double, C's own, struct { ... }"
        usage = 'each with [N], or several with names: "u32 src, u16 port"'
        return LayoutError(
            "'%s' is no type%s: %s, %s" % (self.text, why and " (%s)" % why, known, usage)
        )

    def peek(self):
        return self.words[self.at]

    def take(self, *wanted):
        """Take and return the next word; "" if others are wanted."""
        word = self.words[self.at]
        if wanted and word not in wanted:
            return ""
        self.at += 1
        return word

    def need(self, wanted):
        """Take a word that must be there."""
        if not self.take(wanted):
            raise self.error("'%s' is missing before '%s'" % (wanted, self.peek()))

    def whole(self):
        """Return the Layout of all of the text."""
        members = self.members("")
        if len(members) == 1 and not members[0][0]:
            return members[0][1]
        if not members or any(not name for name, *_ in members):
            raise self.error()
        return self.record("struct", "given", members, 0)[0]

    def members(self, end):
        """Read declarations up to end; return [(name, Layout, alignment, bits or None)]."""
        found = []  # type: list
        while not self.take(end) if end else self.peek():
            base = self.type()
            while True:
                found.append(self.declarator(base))
                if not self.take(","):
                    break
                if not self.goes_on():
                    base = self.type()
            while self.take(";"):
                pass
        return found

    def goes_on(self):
        """Whether another name of the same type follows a comma, as in "u32 a, b", and not another
        type, as in "u32 a, u16 b".
        """
        following = self.words[self.at + 1] if self.peek() else ""
        return (
            self.peek() == "*" or following in (",", ";", "[", ":", "}", "") and not self.is_type()
        )

    def is_type(self):
        word = self.peek()
        return word in _C_NUMBERS or word in _C_WORDS or word in ("struct", "union", "enum", "void")

    def type(self):
        """Read a type without its declarators; return (Layout, alignment)."""
        self.attributes()
        while self.take(*_C_QUALIFIERS):
            pass
        word = self.peek()
        if word in ("struct", "union"):
            return self.record_body(self.take())
        if word == "enum":
            return self.enum_body()
        if word == "void":
            self.take()
            return None, 1
        if word in _C_WORDS:
            return self.integer_in_words()
        number = _C_NUMBERS.get(self.take())
        if number is not None:
            return number, min(number.size, 16)
        return self.declared_elsewhere(None, word)

    def declared_elsewhere(self, kind, name):
        """Return (Layout, alignment) of a type that only has its name here."""
        made = self.named(kind, name) if name.isidentifier() else None
        if made is not None:
            return made, _c_alignment(made, {})
        if kind:
            words = (kind, name)
            raise LayoutError("'%s %s' is declared neither here nor in BTF at hand" % words)
        raise self.error("'%s'" % name if name else "")

    def integer_in_words(self):
        """Read an integer like "unsigned long int"; return (Layout, alignment)."""
        words = []
        while self.peek() in _C_WORDS or self.peek() in _C_QUALIFIERS:
            words.append(self.take())
        is_signed = "unsigned" not in words
        if "char" in words:
            explicit = len(words) > 1 and {"signed", "unsigned", "__signed__"} & set(words)
            return (Number(1, signed=is_signed) if explicit else Char()), 1
        size = 4
        for word, bytes_ in (("short", 2), ("long", 8), ("__int128", 16)):
            size = bytes_ if word in words else size
        return Number(size, signed=is_signed), size

    def attributes(self):
        """Read what there is of __attribute__((...)) and __packed; return the words in it."""
        found = []
        while self.take("__attribute__", "__packed"):
            if self.words[self.at - 1] == "__packed":
                found.append("packed")
                continue
            depth = 0
            while True:
                word = self.take()
                depth += {"(": 1, ")": -1}.get(word, 0)
                found.append(word)
                if depth == 0:
                    break
        return found

    def record_body(self, kind):
        """Read a struct or union behind that word; return (Layout, alignment)."""
        attributes = self.attributes()
        name = ""
        if self.peek() != "{":
            name = self.take()
            attributes += self.attributes()
        if self.peek() == "*":  # a pointer: it does not matter to what
            return None, 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("more than %d levels" % MAX_DEPTH)
        if not self.take("{"):
            self.depth -= 1
            return self.declared_elsewhere(kind, name)
        members = self.members("}")
        attributes += self.attributes()
        self.depth -= 1
        is_packed = "packed" in attributes or "__packed__" in attributes
        made, align = self.record(kind, name, members, 1 if is_packed else 0)
        align = _alignment_asked(attributes, align)
        return made._changed(size=-(-made.size // align) * align), align

    def record(self, kind, name, members, pack):
        """Return (Layout, alignment) of a record of members that were read."""
        fields = [(one.size, align, bits) for _, one, align, bits in members]
        offsets, size = _c_placement(fields, kind == "union", pack)
        if size > _MAX_BYTES:
            raise LayoutError("'%s' is too large" % self.text)
        made = []
        for (label, one, _, bits), offset in zip(members, offsets):
            if bits is not None:
                if not label:
                    continue  # padding
                # to a C compiler __be32 has the order of the machine
                one = one._changed(raw_order=sys.byteorder).bitfield(bits)
            made.append(Member(label, one, offset, bits or 0, label or None))
        record = Record(kind, "%s %s" % (kind, name or "(anonymous)"), size, made)
        labels = [part.name for part in record.parts]
        if len(set(labels)) < len(labels):
            raise LayoutError("'%s' is no type: two members of one name" % self.text)
        align = 1 if pack else max([align for _, _, align, _ in members] or [1])
        return record, align

    def enum_body(self):
        """Read an enum; return (Layout, alignment): it is of 4 bytes where these hold its numbers,
        as GCC and Clang have it.
        """
        self.take()
        name = "" if self.peek() == "{" else self.take()
        if name and self.peek() != "{":
            return self.declared_elsewhere("enum", name)
        names = self.enumerators()
        low, high = min(names or [0]), max(names or [0])
        for size in (4, 8):
            least, most = _range_of(8 * size, low < 0)
            if least <= low and high <= most:
                name = "enum " + (name or "(anonymous)")
                return Enum(size, name, names, signed=low < 0), size
        raise self.error("an enum of numbers that no integer holds")

    def enumerators(self):
        """Read the body of an enum; return {number: name}, of several names the first."""
        self.need("{")
        names, number = {}, 0
        while not self.take("}"):
            label = self.take()
            if self.take("="):
                sign = -1 if self.take("-") else 1
                number = sign * _parsed_int(self.take())
            names.setdefault(number, label)
            number += 1
            if not self.take(",") and self.peek() != "}":
                raise self.error("'%s' in an enum" % self.peek())
        return names

    def declarator(self, base):
        """Read a name with its stars, brackets and bits; return (name, Layout, alignment, bits or
        None).
        """
        import re

        made, align = base
        while self.take("*"):
            made, align = Pointer(8, "void *"), 8
            while self.take(*_C_QUALIFIERS):
                pass
        if made is None:
            raise self.error("void has no size")
        near = self.lengths()
        name = self.take() if self.peek().isidentifier() and self.peek() != "__attribute__" else ""
        if name.endswith("__") and name.startswith("__"):
            raise self.error("a member can't be called '%s'" % name)
        for length in reversed(near + self.lengths()):
            if max(made.size, 1) * length > _MAX_BYTES:
                raise LayoutError("'%s' is too large" % self.text)
            made = Array(made, length)
        bits = self.width(made, name)
        attributes = self.attributes()
        tags = re.findall(r'decl_tag\("([^"]*)"\)', "".join(attributes))
        made = _with_meaning_of_tags(made, tags)
        return name, made, _alignment_asked(attributes, align), bits

    def width(self, made, name):
        """Read the ":N" of a bitfield of a type and name; return its bits, None if it is none."""
        if not self.take(":"):
            return None
        bits = _parsed_int(self.take())
        is_integer = isinstance(made, Number) and not isinstance(made, Float)
        if not is_integer or bits > made.bits or not bits and name:
            raise self.error("%d bits of %s" % (bits, made.name))
        return bits

    def lengths(self):
        """Read what there is of [N]; return the lengths."""
        found = []
        while self.take("["):
            found.append(_parsed_int(self.take()) if self.peek() != "]" else 0)
            self.need("]")
        return found


def _alignment_asked(attributes, align):
    """Return an alignment, or that which attributes ask for if it is larger.

    raises     ValueError: they ask for none that there can be
    """
    for at, word in enumerate(attributes):
        if word in ("aligned", "__aligned__"):
            asked = _parsed_int(attributes[at + 2])
            if asked < 1 or asked & asked - 1 or asked > _MAX_BYTES:
                raise ValueError
            align = max(align, asked)
    return align


def _c_alignment(found, known):
    """Return what a C compiler aligns a layout to, as far as its size and offsets tell: BTF does
    not say it.

    known      {id of a record: its alignment}, so that shared ones are looked at once
    """
    if isinstance(found, Array):
        return _c_alignment(found.element, known)
    if not isinstance(found, Record):
        return found.size if isinstance(found, Number) and found.size else 1
    if id(found) not in known:
        own = [_c_alignment(member.layout, known) for member in found.members]
        places = [0 if member.bits else member.offset for member in found.members]
        align = max(own or [1])
        while found.size % align or any(at % (8 * min(align, n)) for at, n in zip(places, own)):
            align //= 2
        known[id(found)] = align
    return known[id(found)]


# -- two layouts compared
# Does the class of a caller say what BTF says?  Without strict only that members of the same name
# are at the same place.


def _differences(mine, theirs, strict, path):
    """Yield (path, what is wrong with it) for each difference of two layouts.

    mine, theirs  the layout of a caller's class, and that of BTF
    strict     whether more counts than where members are and how large: members that only BTF
               has, and kinds of numbers
    """
    if isinstance(mine, Record) and isinstance(theirs, Record):
        for difference in _record_differences(mine, theirs, strict, path and path + "."):
            yield difference
        return
    if _is_bytewise(mine) or _is_bytewise(theirs):
        return
    if isinstance(mine, Array) and isinstance(theirs, Array) and mine.count == theirs.count:
        for difference in _differences(mine.element, theirs.element, strict, path + "[]"):
            yield difference
    elif strict and not _same_family(mine, theirs):
        yield path, "is %s here, %s in BTF" % (mine.name, theirs.name)


def _is_bytewise(layout):
    """Whether it is chars or bytes, which agree with anything of their size."""
    if isinstance(layout, Array):
        return layout.element.size == 1
    return isinstance(layout, (Char, Bytes))


def _same_family(mine, theirs):
    """Whether both are numbers of one kind: floats, signed integers or unsigned ones.  An enum of
    BTF may be either.
    """
    if not isinstance(mine, Number) or not isinstance(theirs, Number):
        return False
    if isinstance(mine, Float) or isinstance(theirs, Float):
        return isinstance(mine, Float) and isinstance(theirs, Float)
    return isinstance(theirs, Enum) or mine.signed == theirs.signed


def _record_differences(mine, theirs, strict, path):
    """Yield differences of two records, whose members are paired by name."""
    parts = {part.name: part for part in theirs.parts}
    rest = dict(parts)
    for member, offset in _binding_members(mine, 0):
        where, bound = path + member.name, member.bound
        if bound in parts:
            rest.pop(bound, None)
            yield from _member_differences(member, offset, parts[bound], strict, where)
            continue
        end = offset + member.width
        over = [
            name
            for name, part in parts.items()
            if part.offset < end and offset < part.offset + part.width
        ]
        if bound is None:  # _btf_ says that it stands for whatever BTF has there
            rest = {name: part for name, part in rest.items() if name not in over}
        elif bound != member.name or strict and over:
            yield where, "has no member '%s' in BTF" % bound
    for name, part in rest.items() if strict else ():
        if part.width:
            yield path + name, "is in BTF alone"


def _member_differences(member, offset, other, strict, where):
    """Yield differences of a member, which lies at that bit offset, and the one it is bound to."""
    if (offset, member.width) != (other.offset, other.width):
        here, there = (
            "byte %s, %s bytes" % (_bytes_text(at), _bytes_text(width))
            for at, width in ((offset, member.width), (other.offset, other.width))
        )
        yield where, "is at %s here, at %s in BTF" % (here, there)
        return
    yield from _differences(member.layout, other.layout, strict, where)


def _binding_members(record, start):
    """Yield (member, bit offset) of what is bound to a member of BTF; in the place of anonymous
    records what is in them.
    """
    for member in record.members:
        if member.is_anonymous or member.is_merged:
            yield from _binding_members(member.layout, start + member.offset)
        else:
            yield member, start + member.offset


# -- meanings: what a number or some bytes are to people
# A Layout node may have a .meaning: a word of MEANINGS, and whose names it takes.  The _MeaningKind
# behind a word says which layouts can mean it (fits), writes the text of a leaf (text, and more for
# people) and reads it again (parse).
#
# To add a word: a subclass of _MeaningKind, an entry in MEANINGS, the word in the help of --show
# (_WORDS_HELP, section 9), a row in the README's table; then --show, _show_, tags in BTF, input and
# conditions have it.


class Meaning:
    """What a number or some bytes are to people.

    word       one of MEANINGS
    names      the names of the machine that it is about: a _Machine, or those in a capture
    is_asked   whether somebody asked for it, so that every form shows it; one that a declaration
               implies is for people alone
    """

    __slots__ = ("word", "names", "is_asked")
    word: str
    is_asked: bool

    def __init__(self, word: str, names: "Any" = None, is_asked: bool = True) -> None:
        self.word, self.names, self.is_asked = word, names or _this_machine, is_asked

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Meaning):
            return NotImplemented
        return (self.word, self.is_asked) == (other.word, other.is_asked) and (
            self.names is other.names
        )

    def __hash__(self) -> int:
        return hash(self.word)

    def __repr__(self) -> str:
        return "<Meaning %s>" % self.word

    @property
    def kind(self) -> "_MeaningKind":
        return MEANINGS[self.word]

    @property
    def is_shown(self) -> bool:
        """Whether there is something to show: who asks for "plain" wants nothing shown."""
        return self.word != "plain"

    def writer(self, layout: "Layout", is_for_people: bool = False) -> "Callable[[Any], str]":
        """Return f(leaf) -> text; a leaf of a Number is an int, of anything else bytes."""
        kind, names = self.kind, self.names
        text = kind.text_for_people if is_for_people else kind.text
        if not kind.is_of_bytes or not isinstance(layout, Number):
            return lambda leaf: text(leaf, layout, names)
        mask = (1 << layout.bits) - 1

        def write(number):
            raw = (number & mask).to_bytes(layout.size, layout.order)
            return text(raw, layout, names)

        return write

    def told(self, text: str, layout: "Layout") -> "Union[int, bytes, None]":
        """Return the int or bytes that a text stands for, None where it is no such text."""
        return self.kind.parse(text, layout, self.names)


class _MeaningKind:
    """What a word of MEANINGS does: which layouts can mean it, and its text, both ways.

    text(), text_for_people() and parse() get the layout that has the meaning, and the names of a
    machine.  A leaf is bytes if is_of_bytes or if the layout is no Number, else an int.
    """

    is_of_bytes = False  # its text is made of the bytes in their order, also of a number's
    is_quantity = False  # it is still a number, so that metrics can have it
    adds_up = False  # the sum of what CPUs have says something
    is_named = False  # the text depends on a machine: on its names, or on its clock
    is_ordered = False  # a layout that tells no byte order has the machine's
    template = ""  # which makes the text, with a % for each byte, where one does for all values
    takes = "an integer"  # which layouts fit, for messages
    sizes = ()  # type: tuple  # of layouts that fit, in bytes; (): any

    def fits(self, layout):
        """Whether a layout can mean this."""
        is_number = isinstance(layout, Number) and not isinstance(layout, (Float, Char))
        return is_number and (not self.sizes or layout.size in self.sizes)

    def applied(self, layout, word):
        """Return a layout that means this, None if it can't."""
        return layout._changed(meaning=Meaning(word)) if self.fits(layout) else None

    def text(self, leaf, layout, names):
        """Return what a leaf means, as text."""
        return str(leaf)

    def text_for_people(self, leaf, layout, names):
        """Return the same with more that is true only now, like how long ago a time is."""
        return self.text(leaf, layout, names)

    def parse(self, text, layout, names):
        """Return the int or bytes that a text stands for, None where it is no such text."""
        return None


class _Plain(_MeaningKind):
    """Nothing but what the type says, whatever the declaration implies."""

    adds_up = True
    takes = "anything"

    def fits(self, layout):
        return not isinstance(layout, Array) or isinstance(layout.element, Number)


class _NetworkOrder(_MeaningKind):
    """A number in network byte order.  It changes the layout itself, so that the number is right in
    every form; no Meaning is left.
    """

    takes, sizes = "an integer of 2, 4 or 8 bytes", (2, 4, 8)

    def applied(self, layout, word):
        is_whole = _MeaningKind.fits(self, layout) and layout.is_whole
        return layout.ordered("big") if is_whole else None


class _OfBytes(_MeaningKind):
    """A meaning of bytes in their order, whether the layout has them as an array or as a number."""

    is_of_bytes = True

    def __init__(self, *sizes):
        self.sizes = sizes
        self.takes = "%s bytes" % " or ".join(map(str, sizes))

    def fits(self, layout):
        is_odd = isinstance(layout, Number) and layout.bits != 8 * layout.size
        return layout.size in self.sizes and not is_odd and not isinstance(layout, Float)


class _IPAddress(_OfBytes):
    """An IPv4 or IPv6 address; of 16 bytes that are zero behind the fourth an IPv4 address."""

    def __init__(self, *sizes):
        _OfBytes.__init__(self, *sizes)
        self.template = "%d.%d.%d.%d" if sizes == (4,) else ""

    def text(self, raw, layout, names):
        if len(raw) == 16 and 4 in self.sizes and not any(raw[4:]):
            raw = raw[:4]
        return _ip_text(raw)

    def parse(self, text, layout, names):
        raw = _address_bytes(text, layout.size)
        if raw is None and 4 in self.sizes and layout.size == 16:
            raw = _address_bytes(text, 4)
        return raw and raw.ljust(layout.size, b"\0")


_IP6_GROUPS = struct.Struct(">8H")


def _ip_text(raw):
    """Return the text of an address; a rescue image may lack Python's socket module."""
    if len(raw) == 4:
        return "%d.%d.%d.%d" % tuple(raw)
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "::ffff:" + _ip_text(raw[12:])
    text = ":%x:%x:%x:%x:%x:%x:%x:%x:" % _IP6_GROUPS.unpack(raw)
    most = 8 if ":0:0:" in text else 1
    for length in range(most, 1, -1):  # RFC 5952: the longest run of zeros, the first of several
        before, zeros, after = text.partition(":0" * length + ":")
        if zeros:
            return "%s::%s" % (before.strip(":"), after.strip(":"))
    return text[1:-1]


class _MACAddress(_OfBytes):
    """An Ethernet address."""

    template = ":".join(["%02x"] * 6)

    def text(self, raw, layout, names):
        return self.template % tuple(raw)

    def parse(self, text, layout, names):
        return _address_bytes(text, 6)


class _Prefix(_OfBytes):
    """The key of an LPM trie: a length of 32 bits, then an IPv4 or IPv6 address."""

    is_ordered = True

    def text(self, raw, layout, names):
        length = int.from_bytes(raw[:4], _order_of_first(layout, names))
        return "%s/%d" % (_ip_text(raw[4:]), length)

    def parse(self, text, layout, names):
        address, slash, length = text.partition("/")
        raw = _address_bytes(address, layout.size - 4)
        if raw is None or not slash or not length.isdecimal() or int(length) > 8 * len(raw):
            return None
        return int(length).to_bytes(4, _order_of_first(layout, names)) + raw


def _order_of_first(found, names):
    """Return the byte order of the number that a layout begins with; one that tells none has the
    machine's.
    """
    while isinstance(found, (Array, Record)):
        if isinstance(found, Array):
            found = found.element
        else:
            found = found.members[0].layout if found.members else None
    return found.order if isinstance(found, Number) and found.size > 1 else names.order


class _SocketAddress(_OfBytes):
    """A struct sockaddr of whatever family: an address and a port, else bytes in hex."""

    is_ordered = True
    INET, INET6 = 2, 10  # AF_ of linux/socket.h

    def text(self, raw, layout, names):
        family = int.from_bytes(raw[:2], _order_of_first(layout, names))
        port = int.from_bytes(raw[2:4], "big")
        if family == self.INET:
            return "%s:%d" % (_ip_text(raw[4:8]), port)
        if family == self.INET6 and len(raw) >= 28 and not any(raw[4:8]):  # no flow label
            scope = int.from_bytes(raw[24:28], _order_of_first(layout, names))
            return "[%s%s]:%d" % (_ip_text(raw[8:24]), "%%%d" % scope if scope else "", port)
        return raw.hex()

    def parse(self, text, layout, names):
        if _is_hex_of(text, layout.size):
            return bytes.fromhex(text)
        import re

        found = re.match(r"(?:\[([^]%]+)(?:%([0-9]{1,10}))?\]|([^:]+)):([0-9]{1,5})\Z", text)
        if not found:
            return None
        ip6, scope, ip4, port = found.groups()
        raw = _address_bytes(ip6 or ip4, 16 if ip6 else 4)
        is_there = raw is not None and (not ip6 or layout.size >= 28)
        if not is_there or int(port) > 0xFFFF or int(scope or 0) > 0xFFFFFFFF:
            return None
        order = _order_of_first(layout, names)
        whole = (self.INET6 if ip6 else self.INET).to_bytes(2, order) + int(port).to_bytes(2, "big")
        whole += bytes(4) + raw + int(scope or 0).to_bytes(4, order) if ip6 else raw
        return whole.ljust(layout.size, b"\0")


def _is_hex_of(text, size):
    return len(text) == 2 * size and _HEX_DIGITS.issuperset(text)


class _Hexadecimal(_MeaningKind):
    """The bits of a number, or bytes, in hex."""

    takes = "anything but floats and text"
    is_quantity = adds_up = True

    def fits(self, layout):
        return _MeaningKind.fits(self, layout) or isinstance(layout, (Bytes, Array, Record))

    def text(self, leaf, layout, names):
        if isinstance(leaf, bytes):
            return leaf.hex()
        return "0x%x" % (leaf & (1 << layout.bits) - 1)

    def parse(self, text, layout, names):
        if isinstance(layout, Number):
            return _number_of_hex(text, layout)
        return bytes.fromhex(text) if _is_hex_of(text, layout.size) else None


def _number_of_hex(text, number):
    """Return the value of a Number, given its bits as 0x...; None for any other text."""
    is_hex = text[:2] in ("0x", "0X") and _HEX_DIGITS.issuperset(text[2:])
    return _signed_as(number, int(text, 16)) if is_hex and text[2:] else None


def _signed_as(number, raw):
    """Return the value of a Number, given its bits as an unsigned integer: a signed one may be
    negative.  What has more bits is returned as it is, to be refused as too large.
    """
    is_negative = number.signed and number.high < raw < 1 << number.bits
    return raw - (1 << number.bits) if is_negative else raw


class _Duration(_MeaningKind):
    """A time that something took."""

    is_quantity = adds_up = True

    def __init__(self, unit):
        self.unit = unit  # in nanoseconds

    def text(self, number, layout, names):
        return _duration_text(number * self.unit)

    def parse(self, text, layout, names):
        nanoseconds = _parse_duration(text)
        if nanoseconds is None or nanoseconds % self.unit:
            return None
        return nanoseconds // self.unit


# The units of Go's Duration, in nanoseconds, as texts write them: the longer names first.
_TIME_UNITS = (
    ("h", 3600 * 10**9),
    ("ms", 10**6),
    ("us", 10**3),
    ("ns", 1),
    ("m", 60 * 10**9),
    ("s", 10**9),
)


def _duration_text(nanoseconds):
    """Return a duration as Go writes it, with all that there is of it: "1.5us", "2h0m1.25s"."""
    sign, left = "-" * (nanoseconds < 0), abs(nanoseconds)
    for unit, size in (("ns", 1), ("us", 10**3), ("ms", 10**6)):
        if 0 < left < 1000 * size:
            return "%s%s%s" % (sign, _fraction_text(left, size), unit)
    minutes, left = divmod(left, 60 * 10**9)
    text = _fraction_text(left, 10**9) + "s"
    if minutes:
        text = "%dm%s" % (minutes % 60, text)
    if minutes >= 60:
        text = "%dh%s" % (minutes // 60, text)
    return sign + text


def _fraction_text(number, unit):
    """Return number / unit, exactly; unit is a power of ten."""
    text = "%d.%0*d" % (number // unit, len(str(unit)) - 1, number % unit)
    return text.rstrip("0").rstrip(".") if unit > 1 else str(number)


def _parse_duration(text):
    """Return the nanoseconds that a text like "1h2.5s" stands for, None for any other text."""
    import re

    names = "|".join(unit for unit, _ in _TIME_UNITS)
    one = r"(\d+)(?:\.(\d{1,30}))?(%s)" % names
    if not re.match(r"-?(%s)+\Z" % one, text) or len(text) > 99:
        return None
    total, units = 0, dict(_TIME_UNITS)
    for whole, part, unit in re.findall(one, text):
        count, rest = divmod(int(whole + part) * units[unit], 10 ** len(part))
        if rest:
            return None
        total += count
    return -total if text[0] == "-" else total


class _BootTime(_MeaningKind):
    """Nanoseconds since boot, as bpf_ktime_get_ns has them: the local time, and how long ago."""

    is_quantity = True
    is_named = True
    takes, sizes = "an integer of 8 bytes", (8,)

    def text(self, number, layout, names):
        if not number or names.boot is None:
            return str(number)
        import time

        seconds, rest = divmod(names.boot + number, 10**9)
        try:
            local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        except (ValueError, OverflowError, OSError):  # a year that strftime can't write
            return str(number)
        return "%s.%06d" % (local, rest // 1000)

    def text_for_people(self, number, layout, names):
        text = self.text(number, layout, names)
        if " " not in text:
            return text
        age = names.now() - number
        how = "%s (%s ago)" if age >= 0 else "%s (in %s)"
        return how % (text, _duration_text(abs(age) // 10**6 * 10**6))

    def parse(self, text, layout, names):
        import re
        import time

        if names.boot is None:
            return None
        age = re.match(r"(\S+) ago\Z", text)
        if age and _parse_duration(age.group(1)) is not None:
            return max(names.now() - _parse_duration(age.group(1)), layout.low)
        form = r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?( \(.*\))?\Z"
        found = re.match(form, text)
        if not found:
            return None
        day, minutes, seconds, part = found.group(1, 2, 3, 4)
        try:
            local = time.strptime(day + minutes + (seconds or ":00"), "%Y-%m-%d%H:%M:%S")
            since = int(time.mktime(local)) * 10**9 + int((part or "0").ljust(9, "0")) - names.boot
        except (ValueError, OverflowError):
            return None
        return max(since, layout.low)


class _ByteCount(_MeaningKind):
    """A number of bytes, in KiB and so on to two places."""

    is_quantity = adds_up = True
    UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB")

    def text(self, number, layout, names):
        step = max(abs(number).bit_length() - 1, 0) // 10
        step = min(step, len(self.UNITS) - 1)
        if not step:
            return "%dB" % number
        text = "%.2f" % (number / (1 << 10 * step))
        return text.rstrip("0").rstrip(".") + self.UNITS[step]

    def parse(self, text, layout, names):
        import re

        found = re.match(r"(-?\d{1,30})(?:\.(\d{1,9}))?([KMGTPEZ]?i?B)\Z", text)
        if not found or found.group(3) not in self.UNITS:
            return None
        whole, part, unit = found.group(1), found.group(2) or "", found.group(3)
        if part and unit == "B":
            return None
        return int(whole + part) * (1 << 10 * self.UNITS.index(unit)) // 10 ** len(part)


class _ErrorNumber(_MeaningKind):
    """An errno, negative as the kernel returns it or not."""

    def text(self, number, layout, names):
        name = errno_name(abs(number))
        if " " in name:
            return str(number)
        return "-" + name if number < 0 else name

    def parse(self, text, layout, names):
        sign = -1 if text[:1] == "-" else 1
        codes = [code for code in range(1, 600) if errno_name(code) == text.lstrip("-")]
        return sign * codes[0] if codes else None


class _Character(_MeaningKind):
    """A number that is a character."""

    def text(self, number, layout, names):
        if 0x20 < number < 0x7F and number != 0x5C:
            return chr(number)
        return "\\x%02x" % (number & (1 << layout.bits) - 1)

    def parse(self, text, layout, names):
        if len(text) == 1:
            return ord(text)
        return _number_of_hex("0x" + text[2:], layout) if text[:2] == "\\x" else None


class _Flags(_MeaningKind):
    """Enumerators that are or'ed: their names, and what is left of the bits."""

    takes = "an enum of at most 256 names"

    def fits(self, layout):
        # few enough to be tried one by one for each value
        return isinstance(layout, Enum) and len(layout.names) <= 256

    def text(self, number, layout, names):
        if number in layout.names:
            return layout.names[number]
        left, found = number & (1 << layout.bits) - 1, []
        for bits in sorted(layout.names, reverse=True):
            if bits > 0 and left & bits == bits:
                found.insert(0, layout.names[bits])
                left &= ~bits
        return "|".join(found + ["0x%x" % left] * (left > 0)) or "0"

    def parse(self, text, layout, names):
        if "|" not in text:
            return _number_of_hex(text, layout)
        numbers = {name: number for number, name in layout.names.items()}
        total = 0
        for word in text.split("|"):
            number = numbers.get(word)
            if number is None:
                try:
                    number = _parsed_int(word)
                except ValueError:
                    return None
            total |= number
        return _signed_as(layout, total)


class _MachineName(_MeaningKind):
    """The name that the machine has for a number; the number where nobody knows a name."""

    is_named = True

    def __init__(self, word, *sizes):
        self.word, self.sizes = word, sizes  # word: of _NAMERS
        if sizes:
            self.takes = "an integer of %s bytes" % " or ".join(map(str, sizes))

    def text(self, number, layout, names):
        return names.text(self.word, number & (1 << layout.bits) - 1) or str(number)

    def parse(self, text, layout, names):
        number = names.number(self.word, text)
        return None if number is None else _signed_as(layout, number)


class _Symbol(_MachineName):
    """An address in the kernel: its symbol and the offset in it, else the address."""

    def text(self, number, layout, names):
        address = number & (1 << layout.bits) - 1
        return names.text(self.word, address) or "0x%x" % address

    def parse(self, text, layout, names):
        number = _number_of_hex(text, layout)
        return _MachineName.parse(self, text, layout, names) if number is None else number


class _Stack(_MeaningKind):
    """Addresses of 8 bytes, the innermost first, up to a zero: symbols as flame graphs fold them,
    the outermost first.
    """

    is_of_bytes = is_named = True
    takes = "bytes, 8 for each address"

    def fits(self, layout):
        return isinstance(layout, (Bytes, Array, Record)) and layout.size % 8 == 0

    def addresses(self, raw, layout, names):
        """Return the addresses in a stack."""
        found = self._struct(layout, names).unpack(raw)
        return found[: found.index(0)] if 0 in found else found

    def _struct(self, layout, names):
        order = _ORDER_MARKS[_order_of_first(layout, names)]
        return struct.Struct("%s%dQ" % (order, layout.size // 8))

    def text(self, raw, layout, names):
        addresses = reversed(self.addresses(raw, layout, names))
        return ";".join(names.text("ksym", one) or "0x%x" % one for one in addresses)

    def parse(self, text, layout, names):
        one, words = Number(8), text.split(";") if text else []
        found = [MEANINGS["ksym"].parse(word, one, names) for word in reversed(words)]
        room = layout.size // 8 - len(found)
        if None in found or room < 0 or max(found, default=0) > one.high:
            return None
        return self._struct(layout, names).pack(*found + [0] * room)


MEANINGS: "Dict[str, _MeaningKind]" = {
    "ip4": _IPAddress(4),
    "ip6": _IPAddress(16),
    "ip": _IPAddress(4, 16),
    "mac": _MACAddress(6),
    "prefix": _Prefix(8, 20),
    "sockaddr": _SocketAddress(16, 28, 128),
    "net": _NetworkOrder(),
    "hex": _Hexadecimal(),
    "ktime": _BootTime(),
    "ns": _Duration(1),
    "us": _Duration(10**3),
    "ms": _Duration(10**6),
    "bytes": _ByteCount(),
    "ksym": _Symbol("ksym", 4, 8),
    "stack": _Stack(),
    "ifindex": _MachineName("ifindex", 4),
    "cgroup": _MachineName("cgroup", 8),
    "uid": _MachineName("uid", 4),
    "pid": _MachineName("pid", 4),
    "errno": _ErrorNumber(),
    "char": _Character(),
    "flags": _Flags(),
    "plain": _Plain(),
}


# -- meanings that are asked for
# By _show_ of a class, by a tag "show:WORD" in BTF or C text, by --show and Layout.showing.  They
# are shown in every form but bpftool's.


def _with_meaning_at(found, steps, word, path):
    """Return a layout in which the field at the end of a path has a meaning; see Layout.showing.

    steps      what is left of the path from here on
    path       the whole, for messages
    """
    if not steps:
        return _with_meaning(found, word, path)
    if isinstance(found, Array):
        return found.of(_with_meaning_at(found.element, steps, word, path))
    # A field is a member of the record, or one of an anonymous record in it.  Where names with and
    # without dots fit, the longest counts, and all members of that name.
    own = [member.steps_in(steps) for member in found.members]
    inner = [one.layout._first_named(steps)[1] if one.is_merged else 0 for one in found.members]
    most, members = max(own + inner, default=0), []
    if not most:
        raise NoSuchField("no field '%s'; there are %s" % (path, found._labels_text()))
    for member, count, merged in zip(found.members, own, inner):
        if most in (count, merged):
            inside = _with_meaning_at(member.layout, steps[count:], word, path)
            member = member.changed(layout=inside)
        members.append(member)
    return found.having(members)


def _with_meaning(found, word, path):
    """Return a layout with a meaning of the whole, else of each element; LayoutError: none fits."""
    kind = MEANINGS[word]
    made = _applied_to_whole_or_each(kind, found, word)
    if made is None:
        words = (path or found.name, word, kind.takes, found.name, found.size)
        raise LayoutError("%s: %s takes %s, not %s of %d bytes" % words)
    return made


def _applied_to_whole_or_each(kind, found, word):
    """Return a layout with a meaning of the whole, else of each element; None if neither fits."""
    made = kind.applied(found, word)
    if made is None and isinstance(found, Array):
        inner = _applied_to_whole_or_each(kind, found.element, word)
        made = inner and found.of(inner)
    return made


def _with_meaning_of_tags(found, tags):
    """Return a layout with the meaning that a tag "show:WORD" asks for.  One that can't be is no
    error: tags are there for others, too.
    """
    for tag in tags:
        if tag.startswith("show:"):
            try:
                return found.showing("", tag[5:])
            except LayoutError:
                pass
    return found


def _with_names_of(found, names):
    """Return a layout whose meanings take names and byte order from another machine."""

    def named(one):
        meaning = one.meaning
        if meaning is None or not (meaning.kind.is_named or meaning.kind.is_ordered):
            return one
        return one._changed(meaning=Meaning(meaning.word, names, meaning.is_asked))

    return _rebuilt(found, named)


def _rebuilt(found, change, layout_of=None, made=None):
    """Return a layout in which change(part) stands for each part, the innermost first.

    layout_of  f(member), which returns the layout to begin with; None: that of the member
    made       {id: (part, what stands for it)}, so that a part that many share is changed once
    """
    made = {} if made is None else made
    if id(found) in made:
        return made[id(found)][1]
    whole = found
    if isinstance(found, Array):
        element = _rebuilt(found.element, change, layout_of, made)
        whole = found if element is found.element else found.of(element)
    elif isinstance(found, Record):
        parts = [layout_of(one) if layout_of else one.layout for one in found.members]
        inside = [_rebuilt(part, change, layout_of, made) for part in parts]
        pairs = list(zip(found.members, inside))
        if any(member.layout is not inner for member, inner in pairs):
            whole = found.having([member.changed(layout=inner) for member, inner in pairs])
    made[id(found)] = found, change(whole)  # found is kept, so that no other gets its id
    return made[id(found)][1]


# -- meanings that a declaration implies
# A record implies one by its name (struct in_addr: _implied_meaning), a member by its type and its
# name (__be32 saddr: _with_implied_meaning).  What is only implied is shown to people alone, and
# where nobody asked for another meaning.

# (name of a record, its size) -> the meaning of it
_ADDRESS_RECORDS = {
    ("in_addr", 4): "ip4",
    ("in6_addr", 16): "ip6",
    ("ethaddr", 6): "mac",
    ("ether_addr", 6): "mac",
    ("sockaddr", 16): "sockaddr",
    ("sockaddr_storage", 128): "sockaddr",
    ("__kernel_sockaddr_storage", 128): "sockaddr",
}


def _implied_meaning(layout):
    """Return the Meaning that a record implies by its name, or a union of addresses; else None."""
    if not isinstance(layout, Record):
        return None
    word = _ADDRESS_RECORDS.get((layout.name.split(" ")[-1], layout.size))
    if layout.is_union and layout.size == 16 and len(layout.members) > 1:
        word = "ip" if _is_any_address(layout) else None
    return Meaning(word, is_asked=False) if word else None


def _is_any_address(union):
    """Whether a union has an IPv4 address and an IPv6 address."""
    words = set()
    for member in union.members:
        meaning = _with_implied_meaning(member).meaning or _implied_meaning(member.layout)
        if meaning is not None:
            words.add(meaning.word)
        elif _is_ip_name(member.name) or member.name in ("v4", "v6"):
            words.add({4: "ip4", 16: "ip6"}.get(member.layout.size))
    return {"ip4", "ip6"} <= words


def _with_implied_meaning(member):
    """Return the layout of a member, with the meaning that type and name imply if it has none."""
    found = member.layout
    if found.meaning is not None or not member.name:
        return found
    number = found.element if isinstance(found, Array) else found
    if not isinstance(number, Number):
        return found
    word = None
    if number.size == 4 and number.name.lstrip("_") == "be32" and number.is_whole:
        word = {4: "ip4", 16: "ip6"}.get(found.size) if _is_ip_name(member.name) else None
    elif found.size == 6 and number.size == 1 and type(number) is Number and not number.signed:
        word = "mac" if _is_mac_name(member.name) else None
    return found._changed(meaning=Meaning(word, is_asked=False)) if word else found


def _with_implied_as_asked(found):
    """Return a layout in which the meanings that declarations imply count as asked for, so that
    every form shows them.
    """

    def asked(one):
        meaning = one.meaning or _implied_meaning(one)
        if meaning is None or meaning.is_asked:
            return one
        return one._changed(meaning=Meaning(meaning.word, meaning.names))

    return _rebuilt(found, asked, _with_implied_meaning)


def _asks_inside(found):
    """Whether somebody asked for the meaning of a part: it would be hidden by one that is only
    implied of the whole.
    """
    inside = [member.layout for member in found.members]
    if isinstance(found, Array):
        inside = [found.element]
    return any(one.meaning and one.meaning.is_asked or _asks_inside(one) for one in inside)


def _is_ip_name(name):
    """Whether a name says that it is an IP address: saddr, dst_ip, ip6, remote_addr_v4, srcIp."""
    ends = [word.rstrip("46").rstrip("v") for word in name.lower().split("_")]
    return any(word in _IP_WORDS or word.endswith("addr") for word in ends)


_IP_WORDS = frozenset(("ip", "sip", "dip", "srcip", "dstip"))


def _is_mac_name(name):
    """Whether a name says that it is a MAC address: src_mac, dmac, h_dest, eth_src."""
    is_mac = any(word.endswith("mac") for word in name.lower().split("_"))
    return is_mac or name in ("h_dest", "h_source") or name.startswith("eth")


# -- the names that a machine gives to numbers
# Interfaces, users, processes, cgroups and symbols.  A Meaning holds whose names it takes: those of
# this machine, or of the one where a capture was made.


class _Machine:
    """The names of this machine.  What was found is kept for the rest of a run.

    order      its byte order
    boot       nanoseconds from 1970 to its boot
    """

    order = sys.byteorder

    def __init__(self):
        self.forget()

    def forget(self):
        """Begin another run: what names there are may have changed."""
        self._namers, self._known = {}, {}
        self._boot = self._known_offset = None

    def text(self, word, number):
        """Return the name of a number, None if it has none."""
        key = word, number
        if key not in self._known:
            if len(self._known) >= 1 << 16:
                self._known.clear()
            self._known[key] = self._namer(word).text(number)
        return self._known[key]

    def number(self, word, text):
        """Return the number that has a name, None if there is none."""
        return self._namer(word).number(text)

    def _namer(self, word):
        if word not in self._namers:
            self._namers[word] = _NAMERS[word]()
        return self._namers[word]

    def now(self):
        """Return the nanoseconds since boot, as the kernel's CLOCK_MONOTONIC counts them."""
        import time

        return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 10**9) - self._offset

    @property
    def _offset(self):
        """Nanoseconds that the clock of our time namespace (5.6) is ahead of the kernel's."""
        if self._known_offset is None:
            self._known_offset = 0 if _only_children_enter_time_namespace() else self._told_offset()
        return self._known_offset

    def _told_offset(self):
        lines = map(str.split, _read_text("/proc/self/timens_offsets").splitlines())
        offsets = {clock: int(rest) + int(seconds) * 10**9 for clock, seconds, rest in lines}
        return offsets.get("monotonic", 0)

    @property
    def boot(self):
        """Nanoseconds from 1970 to where that clock began, None where there is no such clock."""
        import time

        if self._boot is None and hasattr(time, "CLOCK_MONOTONIC"):
            looks = []
            for _ in range(5):  # the quickest: between two clocks another process may run
                before, wall, after = self.now(), int(time.time() * 10**9), self.now()
                looks.append((after - before, wall - (before + after) // 2))
            self._boot = min(looks)[1]
        return self._boot

    def __reduce__(self):
        return "_this_machine"


_this_machine = _Machine()


def _only_children_enter_time_namespace():
    """Return whether a time namespace was made that only our children will be in.

    unshare(2) leaves the caller in its old one, and so does an exec on older kernels (5.10); yet
    /proc/self/timens_offsets already tells what the children will have.
    """
    try:
        ours = os.readlink("/proc/self/ns/time")
        return ours != os.readlink("/proc/self/ns/time_for_children")
    except OSError:  # before 5.6, or without /proc
        return False


# A namer has text(number) and number(text): the name of a number and the number of a name, or None.


class _Interfaces:
    """Network interfaces, of the network namespace that we are in."""

    def text(self, number):
        try:
            import socket

            return _name_text(socket.if_indextoname(number)) if number else None
        except (ImportError, AttributeError, OSError, OverflowError):  # no socket, or no such one
            return None

    def number(self, text):
        import socket

        try:
            return socket.if_nametoindex(os.fsdecode(_text_bytes(text)))
        except (OSError, ValueError):
            return None


class _Users:
    """Users, by uid."""

    def text(self, number):
        try:
            import pwd

            return _name_text(pwd.getpwuid(number).pw_name)
        except (ImportError, KeyError, OverflowError):
            return None

    def number(self, text):
        import pwd

        try:
            return pwd.getpwnam(os.fsdecode(_text_bytes(text))).pw_uid
        except (KeyError, ValueError):
            return None


class _Processes:
    """A process is comm(pid), as several have one name."""

    def text(self, number):
        comm = _read_text("/proc/%d/comm" % number).rstrip("\n")
        return "%s(%d)" % (_escaped(comm.encode("latin-1")), number) if comm else None

    def number(self, text):
        number = text.rpartition("(")[2][:-1]
        return int(number) if text[-1:] == ")" and number.isdecimal() else None


class _Cgroups:
    """A cgroup's id is the inode of its directory; a path counts from the root of the hierarchy."""

    def __init__(self):
        self.paths = {}  # type: dict
        for line in _read_text("/proc/self/mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            if after.split(" ")[0] == "cgroup2":
                self._read(before.split(" ")[4])
        self.numbers = {path: number for number, path in self.paths.items()}

    def _read(self, top):
        for directory, _, _ in os.walk(top):
            try:
                number = os.stat(directory).st_ino
            except OSError:  # gone
                continue
            self.paths.setdefault(number, _name_text(directory[len(top) :]) or "/")

    def text(self, number):
        return self.paths.get(number)

    def number(self, text):
        return self.numbers.get(text)


class _Symbols:
    """The kernel's symbols, by address; without the right to see addresses there are none."""

    def __init__(self):
        found = []
        for line in _read_text("/proc/kallsyms").splitlines():
            words = line.split(None, 3)
            found.append((int(words[0], 16), words[2]))
        found.sort(key=itemgetter(0))
        self.addresses = [address for address, _ in found if address]
        self.symbols = [name for address, name in found if address]

    def text(self, number):
        import bisect

        at = bisect.bisect_right(self.addresses, number)
        if not at or number - self.addresses[at - 1] >= 1 << 20:
            return None  # before the first, or in no function
        # of several names the first
        at = bisect.bisect_left(self.addresses, self.addresses[at - 1])
        offset = number - self.addresses[at]
        return self.symbols[at] + ("+0x%x" % offset if offset else "")

    def number(self, text):
        name, plus, offset = text.partition("+0x")
        found = {one for one, symbol in zip(self.addresses, self.symbols) if symbol == name}
        is_hex = bool(offset) and _HEX_DIGITS.issuperset(offset)
        if len(found) != 1 or plus and not is_hex:  # static functions of one name are many
            return None
        return found.pop() + int(offset or "0", 16)


def _name_text(name):
    """Return a name of the system's as text: what is no UTF-8 is escaped, as in char arrays."""
    return _escaped(os.fsencode(name))


# word of a meaning -> the class of its namer
_NAMERS = {
    "ifindex": _Interfaces,
    "uid": _Users,
    "pid": _Processes,
    "cgroup": _Cgroups,
    "ksym": _Symbols,
}


# -- readers: bytes -> what a form says
# A layout is compiled once for a form.  Its leaves, in their order, ask for columns; columns that
# do not overlap are one struct, which unpacks all elements of a buffer, so that most types need one
# and unions a few.  Only columns that need it are converted, a whole column at a time.  What is
# left for each element is one % of a template, or one call of a builder.
#
#   Layout.reader(form)   finds or makes a Reader, which has compiled the layout:
#   Layout.compiled       asks the form what a node means, else
#   node._compile         compiles its parts, or has a leaf add its column to _Columns
#   form.record, .array   make one piece of those of the parts; what a piece is is up to the form
#   _Columns.rows         makes of the columns f(raw), which iterates over rows of leaves
#   form.finish           makes of the last piece f(row), which returns what the form says
#
# A union of which another member, the discriminant, says the branch (_union_) can't be read in one
# go.  A layout that is_undecided has a _ChoosingReader: it reads the discriminants (undecided) and
# keeps a Reader for each choice that occurs, of the layout with those branches alone (decided).
#
# A per-CPU value that is read as one (cpus) has its CPUs' leaves in a row in each column; _OfCPUs
# makes one of them.


class Reader:
    """Reads bytes as one form of a layout; see Layout.reader.

    rows       f(raw), which iterates over a tuple of leaves for each element
    shape      f(row), which returns what the form makes of such a tuple
    template   the piece of the whole layout: of a form of text the template that a row fills
    paths      the same: of forms with paths the path of each leaf
    stride     bytes of an element, of all CPUs where these are read as one
    """

    rows: "Callable[[Buffer], Iterator[Tuple[Any, ...]]]"
    shape: "Callable[[Tuple[Any, ...]], Any]"
    template: "Any"

    def __init__(self, layout, form, stride, cpus):
        columns = _Columns(cpus)
        piece = layout.compiled(form, 0, columns)
        stride = layout.size if stride is None else stride
        self.layout, self.stride = layout, stride * cpus
        self.template = self.paths = piece
        self.rows = columns.rows(stride)
        self.shape = form.finish(piece)

    def read(self, raw: "Buffer") -> "Iterator[Any]":
        """Iterate over what each element in raw says."""
        if self.stride and memoryview(raw).nbytes % self.stride:
            raise _misfit(self, raw)
        return map(self.shape, self.rows(raw))

    def one(self, raw: bytes) -> "Any":
        """Return what one element says."""
        if len(raw) != self.stride:
            raise _misfit(self, raw)
        return self.shape(next(self.rows(raw)))

    def pathed(self, raw: "Buffer") -> "Iterator[Tuple[Any, Any]]":
        """Iterate over (paths, leaves) of each element in raw."""
        return zip(repeat(self.paths), self.rows(raw))

    def series(self, raw: "Buffer") -> "Iterator[Tuple[Any, None, Any]]":
        """Yield (path, None, column) for each path of a form with paths.  None: the column has all
        elements, unlike those of a _ChoosingReader.
        """
        for path, column in zip(self.paths, zip(*self.rows(raw))):
            yield path, None, column


class _ChoosingReader:
    """Reads elements in which discriminants say how to read unions, each element with a Reader of
    the branches that it has.
    """

    template = None

    def __init__(self, layout, form, stride, cpus):
        stride = layout.size if stride is None else stride
        self.layout, self.form, self.stride = layout, form, stride * cpus
        self._wanted = form.name, stride, cpus  # of each Reader
        members = [
            Member(str(number), discriminant.layout, at, label=str(number))
            for number, (discriminant, at) in enumerate(layout.undecided(form))
        ]
        discriminants = Record("struct", layout.name, layout.size, members)
        # of several CPUs those of the first decide
        self._discriminants = discriminants.reader("plain", self.stride)
        self._readers = {}  # values of the discriminants -> Reader

    def _reader_for(self, values):
        """Return the Reader of the branches that values of the discriminants choose."""
        try:
            return self._readers[values]
        except (KeyError, TypeError):  # TypeError: a list, which chooses no branch
            made = self.layout.decided(self.form, iter(values)).reader(*self._wanted)
            if len(self._readers) >= 256:
                self._readers.clear()
            return self._readers.setdefault(values, made)

    def _each(self, raw):
        """Yield (Reader, its bytes) for each element in raw."""
        for index, found in enumerate(self._discriminants.read(raw)):
            one = raw[index * self.stride : (index + 1) * self.stride]
            yield self._reader_for(tuple(found.values())), one

    def read(self, raw: "Buffer") -> "Iterator[Any]":
        """Iterate over what each element in raw says."""
        return (reader.one(one) for reader, one in self._each(raw))

    def one(self, raw: bytes) -> "Any":
        """Return what one element says."""
        if len(raw) != self.stride:
            raise _misfit(self, raw)
        return next(self.read(raw))

    def pathed(self, raw: "Buffer") -> "Iterator[Tuple[Any, Any]]":
        """Iterate over (paths, leaves) of each element in raw."""
        return (next(reader.pathed(one)) for reader, one in self._each(raw))

    def series(self, raw: "Buffer") -> "Iterator[Tuple[Any, List[int], List[Any]]]":
        """Yield (path, indices of the elements that have it, column) of a form with paths."""
        found = {}  # type: dict
        for index, (reader, one) in enumerate(self._each(raw)):
            for path, _, column in reader.series(one):
                indices, numbers = found.setdefault(path, ([], []))
                indices.append(index)
                numbers.append(column[0])
        for path, (indices, numbers) in found.items():
            yield path, indices, numbers


def _misfit(reader, raw):
    """Return the error of bytes that are no whole number of elements."""
    words = (reader.layout.name, reader.stride, memoryview(raw).nbytes)
    return LayoutError("%s takes %d bytes, not %d" % words)


class _Columns:
    """The columns that the leaves of a layout ask for while it is compiled; rows() makes what reads
    them.
    """

    def __init__(self, cpus):
        self.wanted = []  # each _Column, in the order of the leaves
        self.width = 0  # how many leaves there are in a row so far
        self.cpus = cpus
        self.is_added = True  # whether the CPUs' numbers may be added up: no part of an address

    def of_cpus(self, convert, adds_up):
        """Return a converter that also makes one leaf of those of the CPUs, where there are any."""
        is_added = adds_up and self.is_added
        return convert if self.cpus == 1 else _OfCPUs(self.cpus, is_added, convert)

    def add(self, form, first, size, code, order, convert, template=None):
        """Add a leaf; return its piece: the template that is given, else what the form makes."""
        self.wanted.append(_Column(first, size, code, order, convert))
        self.width += 1
        return template or form.leaf(self.width - 1, convert)

    def add_bytes(self, form, at, size, convert):
        """Add bytes that are one leaf."""
        if convert is SKIPPED:
            return form.nothing()
        convert = self.of_cpus(convert, False)
        return self.add(form, at // 8, size, "%ds" % size, "little", convert)

    def add_bytes_apart(self, first, size, template):
        """Add bytes that are a leaf each, for a template with a % for each of them."""
        self.wanted.append(_Column(first, size, "%dB" % size, "little", None, size))
        self.width += size
        return template

    def add_many(self, form, array, first):
        """Add an array of numbers that the form shows as they are: each is a leaf, but one item of
        a struct reads them all.
        """
        many, order = "%d%s" % (array.count, array.element.code), form.order_of(array.element)
        self.wanted.append(_Column(first, array.size, many, order, None, array.count))
        self.width += array.count
        return form.leaves(self.width - array.count, array.count)

    def rows(self, stride):
        """Return f(raw), which iterates over a tuple of leaves for each stride bytes.

        Each pass yields tuples of its own columns.  They are joined, and picked from where their
        order is not that of the leaves.
        """
        if not self.wanted:
            step = stride * self.cpus
            return lambda raw: iter([()] * (len(raw) // step if step else 1))
        passes, order = [], []
        for shared in self._passes():
            passes.append(_one_pass(shared, stride))
            order += chain.from_iterable(shared)
        starts, width = {}, 0  # where in the joined tuple the leaves of a column begin
        for column in order:
            starts[id(column)] = width
            width += column.count
        picks = []
        for column in self.wanted:
            start = starts[id(column)]
            picks += range(start, start + column.count)
        joined = _joined(passes)
        if picks == list(range(len(picks))):
            return joined
        pick = itemgetter(*picks)
        return lambda raw: map(pick, joined(raw))

    def _passes(self):
        """Yield what one struct reads: a list of places that do not overlap, each of them the list
        of the columns that are made of its bytes.

        A struct has one byte order.  Columns that are converted have passes of their own, so that
        the rows of the others need not be taken apart.
        """
        groups = {}  # type: dict
        for column in self.wanted:
            is_converted = column.convert is not None
            group = groups.setdefault((is_converted, column.order), {})
            place = (column.first, column.size, column.code) if is_converted else id(column)
            group.setdefault(place, []).append(column)
        for key in sorted(groups):
            same = {id(columns[0]): columns for columns in groups[key].values()}
            for firsts in _without_overlaps([columns[0] for columns in same.values()]):
                yield [same[id(first)] for first in firsts]


class _Column:
    """What an item of a struct reads for each element: a leaf, or count of them.

    first, size  the bytes
    code, order  the item, as the struct module writes it, and "little" or "big"
    convert    the converter of the column, or None
    """

    __slots__ = ("first", "size", "code", "order", "convert", "count")

    def __init__(self, first, size, code, order, convert, count=1):
        self.first, self.size, self.code, self.order = first, size, code, order
        self.convert, self.count = convert, count

    @property
    def end(self):
        return self.first + self.size


def _without_overlaps(columns):
    """Return lists of columns, as few as can be, of which none overlap in a list.

    Columns come by where they begin.  Each goes to a list whose last column has ended, else to a
    new one.
    """
    by_start = sorted(columns, key=lambda column: (column.first, column.size))
    by_end = sorted(columns, key=lambda column: (column.end, column.first, column.size))
    passes, free, number_of, ended = [], [], {}, 0
    for column in by_start:
        while by_end[ended].end <= column.first and id(by_end[ended]) in number_of:
            free.append(number_of[id(by_end[ended])])
            ended += 1
        if not free:
            free.append(len(passes))
            passes.append([])
        number_of[id(column)] = number = free.pop()
        passes[number].append(column)
    return passes


def _one_pass(shared, stride):
    """Return f(raw), which iterates over the tuples of columns that one struct reads."""
    columns = [same[0] for same in shared]
    codes, end = [_ORDER_MARKS[columns[0].order]], 0
    for column in columns:
        if column.first > end:
            codes.append("%dx" % (column.first - end))
        codes.append(column.code)
        end = column.first + column.size
    codes.append("%dx" % (stride - end))
    compiled = struct.Struct("".join(codes))
    unpack = compiled.iter_unpack if stride else lambda raw: iter([compiled.unpack(raw)])
    if columns[0].convert is None:
        return unpack
    converters = []
    for at, same in enumerate(shared):
        converters += [(at, column.convert) for column in same]

    def converted(raw):
        found = list(zip(*unpack(raw)))
        return zip(*[convert(found[at]) for at, convert in converters if found])

    return converted


def _joined(passes):
    """Return f(raw), which iterates over tuples with the leaves of all passes."""
    if len(passes) == 1:
        return passes[0]
    if len(passes) == 2:
        first, second = passes
        return lambda raw: map(add, first(raw), second(raw))
    flat = chain.from_iterable
    return lambda raw: map(tuple, map(flat, zip(*[one(raw) for one in passes])))


# -- converters: a column of leaves -> as many things that a form says
# Python calls a converter once for each column, not for each value.


SKIPPED = object()  # in place of a converter: the form leaves the leaf out


class _NumberTemplate:
    """In place of a converter: a form of text has the bits of the numbers, unsigned, in a template
    like "0x%x".
    """

    __slots__ = ("template",)

    def __init__(self, template):
        self.template = template


class _Each:
    """Converts a column by a function of one value."""

    __slots__ = ("make",)

    def __init__(self, make):
        self.make = make

    def __call__(self, column):
        return map(self.make, column)


class _Cache(dict):
    """Converts a column by a function of one value, like _Each, and keeps what it returns: most
    columns have few different values.
    """

    __slots__ = ("make",)

    def __init__(self, make):
        dict.__init__(self)
        self.make = make

    def __missing__(self, value):
        made = self.make(value)
        if type(value) is not bytes or len(value) <= 64:
            if len(self) >= 4096:
                self.clear()
            self[value] = made
        return made

    def __call__(self, column):
        return map(self.__getitem__, column)


class _ByReader:
    """Converts a column of bytes by a reader, to which all of them are one buffer."""

    __slots__ = ("reader",)

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, column):
        if not self.reader.layout.size:
            return map(self.reader.one, column)
        return self.reader.read(b"".join(column))


class _OfCPUs:
    """Converts a column in which each element has count leaves in a row, one of each CPU, into one
    that has one: their sum if it adds_up, else the first.
    """

    __slots__ = ("count", "adds_up", "then")

    def __init__(self, count, adds_up, then):
        self.count, self.adds_up, self.then = count, adds_up, then

    def __call__(self, column):
        column = list(column)
        column = _added_up(column, self.count) if self.adds_up else column[:: self.count]
        return column if self.then is None else self.then(column)


def _added_up(column, count):
    """Return a list of sums, each of count values that follow each other in the column."""
    return column if count == 1 else list(map(sum, zip(*[iter(column)] * count)))


# -- forms: how one output says what there is
#
#   plain                dicts, lists, numbers and text: to_python
#   json                 the same as JSON text: --ndjson
#   bpftool              the JSON that bpftool makes of BTF types: -j
#   ... strings          json and bpftool with strings for numbers of more than 53 bits
#   words                a line for people
#   cells                words as cells of a table
#   samples              (path, number) of each quantity: metrics, histograms, sums
#   counts               those samples that can be added up
#   leaves               (path, leaf) of all that plain Python says: Layout.columns
#   labels, joined       (path, text) of all there is, and of the arrays in it: labels of metrics
#   names                (path, [(word, number)]) of what a machine has names for: captures
#
# To add a form, subclass _Form or one of those below and list it in _FORMS.


class _Form:
    """How one output says what there is: a converter for each kind of leaf, and how the pieces of
    parts become that of a whole.

    What a piece is, each form decides.  It has methods that make them:

    leaf(column, convert)            of a leaf, which is the one numbered column in the row
    leaves(column, count)            of count leaves that follow each other, unconverted numbers
    nothing()                        of a leaf that is left out
    array(array, pieces)             of an array, given those of its elements
    record(record, members, pieces)  of a record, given those of the members that are shown
    series(inner)                    (no piece) the converter of a long array, whose bytes are one
                                     leaf; inner is the Reader of an element
    finish(piece)                    f(row), which makes what the form says of a row of leaves

    and one for each kind of leaf, from integer() on, which returns its converter; None, where the
    numbers are right as they are; a _NumberTemplate; or SKIPPED.
    """

    name = ""  # that Layout.reader knows it by
    lists_arrays = True  # a long array is one leaf, which a reader of its own converts (series)
    joins_arrays = ""  # every array is one leaf, in the form of this name
    unrolls_arrays = False  # no array is one leaf, so that unions in it are those of the whole
    is_for_people = False  # what is true only now may stand in it

    def order_of(self, number):
        """Return the byte order in which a number is read."""
        return number.order

    def members_of(self, record):
        """Return the members of a record that are shown."""
        return [member for member in record.parts if member.label is not None]

    def layout_of(self, member):
        """Return the layout of a member, in which meanings may be implied."""
        return member.layout

    def converter_of_meaning(self, layout):
        """Return the converter of a layout that is shown as its meaning; None if it has none."""
        meaning = self.meaning_of(layout)
        if meaning is None:
            return None
        write = self.quoting(meaning.writer(layout, self.is_for_people))
        # names may change from one run of a reader to the next; a machine keeps them for one run
        return _Each(write) if meaning.kind.is_named else _Cache(write)

    def meaning_of(self, layout):
        """Return the meaning that is shown of a layout, or None: here, one that was asked for."""
        meaning = layout.meaning
        return meaning if meaning is not None and meaning.is_asked and meaning.is_shown else None

    def quoting(self, write):
        """Return a function like write, f(leaf) -> text, whose text is quoted as the form wants."""
        return write

    def template_of_meaning(self, layout):
        """Return the template that makes a layout's meaning of its bytes, if there is one for all
        values: that is faster than a converter.
        """
        return None

    def nothing(self):
        """Return the piece of a leaf that is left out."""
        return None

    # A converter for each kind of leaf: of Number and its subclasses, of an Array of Chars (text)
    # and of Bytes (raw_bytes).

    def integer(self, number):
        return None

    def enum(self, number):
        return _Cache(number.text_of)

    def pointer(self, number):
        return _Each(hex)

    def boolean(self, number):
        return _Cache(bool)

    def char(self, number):
        return _Cache(_text_of)

    def real(self, number):
        return None

    def text(self, array):
        return _Cache(_text_of)

    def raw_bytes(self, layout):
        return _Each(list)


class _PlainForm(_Form):
    """dicts, lists, numbers and text.  A piece is the number of a leaf in the row, or f(row)."""

    name = "plain"

    def leaf(self, column, convert):
        return column

    def leaves(self, column, count):
        end = column + count
        return lambda row: list(row[column:end])

    def series(self, inner):
        return _Each(lambda raw: list(inner.read(raw)))

    def array(self, array, pieces):
        if pieces and all(isinstance(piece, int) for piece in pieces):
            return self.leaves(pieces[0], len(pieces))
        return lambda row: [piece(row) for piece in pieces]

    def record(self, record, members, pieces):
        names = [member.label for member in members]
        leaves = [(name, piece) for name, piece in zip(names, pieces) if isinstance(piece, int)]
        others = [(name, piece) for name, piece in zip(names, pieces) if not isinstance(piece, int)]
        if not others:
            first, end = (leaves[0][1], leaves[-1][1] + 1) if leaves else (0, 0)
            return lambda row: dict(zip(names, row[first:end]))
        empty = dict.fromkeys(names)  # keeps the order of the names

        def build(row):
            plain = empty.copy()
            for name, column in leaves:
                plain[name] = row[column]
            for name, piece in others:
                plain[name] = piece(row)
            return plain

        return build

    def finish(self, piece):
        return itemgetter(piece) if isinstance(piece, int) else piece


class _TextForm(_Form):
    """What forms of text have in common: a piece is a template with a % for each leaf."""

    between = ","
    list_brackets = "[]"

    def leaf(self, column, convert):
        return "%d" if convert is None else "%s"

    def leaves(self, column, count):
        return self._listed(["%d"] * count)

    def _listed(self, texts):
        opening, closing = self.list_brackets
        return opening + self.between.join(texts) + closing

    def series(self, inner):
        return _Each(lambda raw: self._listed(inner.read(raw)))

    def template_of_meaning(self, layout):
        meaning = self.meaning_of(layout)
        template = meaning and meaning.kind.template
        return self.quoting(lambda leaf: leaf)(template) if template else None

    def array(self, array, pieces):
        return self._listed(pieces)

    def finish(self, piece):
        return piece.__mod__


class _JSONForm(_TextForm):
    """JSON without blanks: what plain Python says, as text."""

    name = "json"

    def quoting(self, write):
        return lambda leaf: _json_text(write(leaf))

    def boolean(self, number):
        return _Cache(lambda number: "true" if number else "false")

    def enum(self, number):
        return _Cache(lambda value: _json_text(number.text_of(value)))

    def pointer(self, number):
        return _NumberTemplate('"0x%x"')

    def char(self, number):
        return _Cache(lambda raw: _json_text(_text_of(raw)))

    text = char

    def real(self, number):
        return _Each(_json_float)

    def raw_bytes(self, layout):
        return _Each(lambda raw: "[%s]" % ",".join(map(_DECIMAL_BYTES.__getitem__, raw)))

    def record(self, record, members, pieces):
        pairs = [_json_label(one.label) + ":" + piece for one, piece in zip(members, pieces)]
        return "{%s}" % ",".join(pairs)


def _json_text(text):
    import json

    return json.dumps(text)


def _json_label(text):
    """Return JSON for a name in a template."""
    return _json_text(text).replace("%", "%%")


def _json_float(number):
    """Return a float as a number of JSON.  JSON has no NaN, which becomes null, and no infinity,
    for which stands a number that every parser overflows to it.
    """
    if number != number:
        return "null"
    if number in (float("inf"), float("-inf")):
        return "1e999" if number > 0 else "-1e999"
    return repr(number)


class _JSONStringsForm(_JSONForm):
    """JSON in which numbers of more than 53 bits are strings, whatever their value."""

    name = "json strings"

    def integer(self, number):
        return _string_of_wide(number, _JSONForm.integer(self, number))


class _BpftoolForm(_JSONForm):
    """The JSON that bpftool makes of BTF types, value for value: no meanings, enums are signed,
    bitfields are hex, and anonymous members have an empty name.
    """

    name = "bpftool"

    def meaning_of(self, layout):
        return None

    def order_of(self, number):
        return number.raw_order

    def members_of(self, record):
        return record.members

    def integer(self, number):
        if _is_bits_to_bpftool(number):
            return _NumberTemplate('"0x%x"')
        if number.encoding == _INT_CHAR:
            return _Cache(lambda value: _json_text(chr(value & 0xFF)))
        return None

    def enum(self, number):
        if _is_bits_to_bpftool(number):
            return _NumberTemplate('"0x%x"')
        # bpftool compares signed numbers: the value as wide as the type, the enumerators 32 bits
        # wide, of an enum64 64.
        bits = 64 if number.size == 8 else 32
        names = {_signed(one, bits): name for one, name in number.names.items()}
        size_bits = 8 * number.size

        def named(value):
            value = _signed(value, size_bits)
            return _json_text(names[value]) if value in names else str(value)

        return _Cache(named)

    def boolean(self, number):
        if _is_bits_to_bpftool(number):
            return _NumberTemplate('"0x%x"')
        return _JSONForm.boolean(self, number)

    def pointer(self, number):
        return None

    def char(self, number):
        if number.encoding == _INT_CHAR:
            return _Cache(lambda raw: _json_text(raw.decode("latin-1")))
        return _Cache(lambda raw: "%d" % int.from_bytes(raw, "big", signed=number.signed))

    def text(self, array):
        number = array.element
        one = self.char(number)

        def listed(raw):
            return "[%s]" % ",".join(one(raw[at : at + 1] for at in range(len(raw))))

        def read(raw):
            text, end, _ = raw.partition(b"\0")
            if end and number.is_plain_char and all(0x1F < byte < 0x7F for byte in text):
                return _json_text(text.decode())
            return listed(raw)

        return _Cache(read)

    def record(self, record, members, pieces):
        pairs = [_json_label(one.name) + ":" + piece for one, piece in zip(members, pieces)]
        if record.kind != "section":
            return "{%s}" % ",".join(pairs)
        return "{%s:[%s]}" % (
            _json_label(record.btf_name),
            ",".join("{%s}" % pair for pair in pairs),
        )


def _is_bits_to_bpftool(number):
    """Whether bpftool prints a number as a bitfield, that is in hex."""
    return number.is_bitfield or not number.is_whole


class _BpftoolStringsForm(_BpftoolForm):
    """The same in which numbers of more than 53 bits are strings."""

    name = "bpftool strings"

    def integer(self, number):
        return _string_of_wide(number, _BpftoolForm.integer(self, number))

    def pointer(self, number):
        return _string_of_wide(number, _BpftoolForm.pointer(self, number))

    def enum(self, number):
        convert = _BpftoolForm.enum(self, number)
        if number.bits <= 53 or not isinstance(convert, _Cache):
            return convert
        return _Cache(lambda value: '"%s"' % convert.make(value).strip('"'))


def _string_of_wide(number, convert):
    """Return a converter into strings if the numbers have more than the 53 bits that JavaScript, jq
    and others read exactly and nothing else converts them; else convert.
    """
    return _Each('"%d"'.__mod__) if convert is None and number.bits > 53 else convert


def _signed(number, bits):
    """Return the low bits of a number as a signed one."""
    half = 1 << bits - 1
    return (number + half) % (2 * half) - half


class _WordsForm(_TextForm):
    """A line for people: "src=10 port=443", with records inside of others in braces."""

    name = "words"
    between = " "
    is_for_people = True

    def layout_of(self, member):
        return _with_implied_meaning(member)

    def meaning_of(self, layout):
        meaning = layout.meaning or _implied_meaning(layout)
        if meaning is None or not meaning.is_shown:
            return None
        return meaning if meaning.is_asked or not _asks_inside(layout) else None

    def quoting(self, write):
        return lambda leaf: _bare(write(leaf))

    def pointer(self, number):
        return _Each(hex)

    def leaf(self, column, convert):
        return "%s"

    def enum(self, number):
        return _Cache(lambda value: _bare(number.text_of(value)))

    def char(self, number):
        return _Cache(lambda raw: _bare(_text_of(raw)))

    text = char

    def raw_bytes(self, layout):
        return _HexWords(layout.size)

    def record(self, record, members, pieces):
        pairs = []
        for member, piece in zip(members, pieces):
            inside = "{%s}" % piece if self._has_parts(member.layout) else piece
            pairs.append(_printable(member.label).replace("%", "%%") + "=" + inside)
        return " ".join(pairs)

    def _has_parts(self, layout):
        """Whether it is a record whose fields are shown, and not what it means as a whole."""
        return isinstance(layout, Record) and self.meaning_of(layout) is None

    def array(self, array, pieces):
        if self._has_parts(array.element):
            pieces = ["{%s}" % piece for piece in pieces]
        return self._listed(pieces)

    def series(self, inner):
        if self._has_parts(inner.layout):
            return _Each(lambda raw: self._listed(map("{%s}".__mod__, inner.read(raw))))
        return _TextForm.series(self, inner)


class _CellsForm(_WordsForm):
    """The cells of a table: words, each a leaf of its own."""

    name = "cells"
    joins_arrays = "words"

    def template_of_meaning(self, layout):
        return None  # of several leaves

    def has_cell(self, layout):
        """Whether a layout is one cell of a table: no record, but an array of a few numbers is."""
        if self.meaning_of(layout) is not None or isinstance(layout, Array) and layout.is_text:
            return True
        element = layout
        while isinstance(element, Array):
            element = element.element
        return layout.values <= 8 and not isinstance(element, Record)

    def is_right(self, layout):
        """Whether it is a number, which is aligned to the right of its cell."""
        return type(layout) in (Number, Float) and self.meaning_of(layout) is None


class _JoinedForm(_WordsForm):
    """Arrays in labels: words, but what differs must not look the same, so text goes on after its
    first NUL; and nothing is only for people.
    """

    name = "joined"
    is_for_people = False

    def layout_of(self, member):
        return member.layout

    def meaning_of(self, layout):
        return _Form.meaning_of(self, layout)

    def char(self, number):
        return _Cache(lambda raw: _bare(_escaped(raw.rstrip(b"\0"))))

    text = char

    def boolean(self, number):
        return _Cache(str)


_NEED_QUOTES = frozenset(" ='\"{}[],")


def _bare(text):
    """Return text as a word, quoted where it would not be one."""
    if text and text.isprintable() and _NEED_QUOTES.isdisjoint(text):
        return text
    return repr(text) if text.isprintable() else ascii(text)


class _HexWords:
    """Converts a column of bytes into hex for people."""

    __slots__ = ("column", "size")

    def __init__(self, size):
        self.size, self.column = size, _hex_column(size, " ")

    def __call__(self, column):
        return self.column(b"".join(column)) if self.size else [""] * len(column)


def _hex(raw):
    """Return bytes in hex for people: "0a 00 00 01"."""
    return _hex_text(raw, " ")


def _hex_column(size, between, stride=None):
    """Return f(raw), which returns a list: the bytes of each element in hex.

    size       bytes of an element
    between    a character between them, or ""
    stride     bytes from one element to the next; None: the size
    """
    stride = stride or size
    width = 2 + len(between)
    step, length = width * stride, width * size - len(between)

    def column(raw):
        text = _hex_text(raw, between)
        return [text[at : at + length] for at in range(0, width * len(raw), step)]

    return column


def _hex_text(raw, between):
    """Return bytes in hex, with a character or nothing between them."""
    if sys.version_info < (3, 8):
        return between.join(map(_HEX_BYTES.__getitem__, raw))
    return raw.hex(between) if between else raw.hex()


_HEX_BYTES = ["%02x" % byte for byte in range(256)]
_DECIMAL_BYTES = ["%d" % byte for byte in range(256)]


class _PathsForm(_Form):
    """What forms with paths have in common: a reader yields pairs of path and leaf.

    A piece is a list of paths, one for each leaf in it; a path is a tuple of labels and indices.
    """

    lists_arrays = False
    unrolls_arrays = True

    def nothing(self):
        return []

    def leaf(self, column, convert):
        return [()]

    def leaves(self, column, count):
        return [(index,) for index in range(count)]

    def array(self, array, pieces):
        found = []
        for index, paths in enumerate(pieces):
            found += [(index,) + path for path in paths]
        return found

    def record(self, record, members, pieces):
        found = []
        for member, paths in zip(members, pieces):
            found += [(member.label,) + path for path in paths]
        return found

    def finish(self, paths):
        return partial(zip, paths)


class _SamplesForm(_PathsForm):
    """Quantities.  An enumerator is its number; text and addresses are left out, and so is what
    means something else than a quantity.
    """

    name = "samples"

    def converter_of_meaning(self, layout):
        meaning = self.meaning_of(layout)
        return SKIPPED if meaning and not meaning.kind.is_quantity else None

    def enum(self, number):
        return None

    def boolean(self, number):
        return _Cache(lambda value: int(value != 0))

    def pointer(self, number):
        return SKIPPED

    def char(self, number):
        return SKIPPED

    text = char

    def raw_bytes(self, layout):
        return SKIPPED


class _CountsForm(_SamplesForm):
    """The samples of which a sum says something: no enumerators, bools, times or addresses."""

    name = "counts"

    def layout_of(self, member):
        return _with_implied_meaning(member)

    def converter_of_meaning(self, layout):
        meaning = layout.meaning or _implied_meaning(layout)
        return SKIPPED if meaning and not meaning.kind.adds_up else None

    def enum(self, number):
        return SKIPPED

    boolean = enum


class _NamesForm(_SamplesForm):
    """The numbers that a machine has names for, which a capture keeps: pairs of path and [(word,
    number)].
    """

    name = "names"

    def meaning_of(self, layout):
        return layout.meaning

    def converter_of_meaning(self, layout):
        meaning = self.meaning_of(layout)
        kind = meaning and meaning.kind
        if isinstance(kind, _Stack):
            names = meaning.names
            return _Each(lambda raw: [("ksym", one) for one in kind.addresses(raw, layout, names)])
        if not isinstance(kind, _MachineName):
            return None
        mask = (1 << layout.bits) - 1
        return _Each(lambda number: [(kind.word, number & mask)])

    def integer(self, number):
        return SKIPPED

    enum = boolean = pointer = real = integer


class _LeavesForm(_PathsForm):
    """What plain Python says, each leaf by itself."""

    name = "leaves"

    def raw_bytes(self, layout):
        return _Each(bytes)


class _LabelsForm(_PathsForm):
    """Every leaf as text; what differs must not look the same."""

    name = "labels"
    joins_arrays = "joined"
    unrolls_arrays = False

    def boolean(self, number):
        return _Cache(str)

    def char(self, number):
        return _Cache(lambda raw: _escaped(raw.rstrip(b"\0")))

    text = char

    def raw_bytes(self, layout):
        return _HexWords(layout.size)


_FORMS = {}

for _form in (
    _PlainForm,
    _JSONForm,
    _JSONStringsForm,
    _BpftoolForm,
    _BpftoolStringsForm,
    _WordsForm,
    _CellsForm,
    _JoinedForm,
    _SamplesForm,
    _NamesForm,
    _CountsForm,
    _LeavesForm,
    _LabelsForm,
):
    _FORMS[_form.name] = _form()


# -- a layout as a table


def _table(layout):
    """Return a layout as text: offset, size, name and type of each member, in the order of the
    bytes; of an enum, every enumerator.
    """
    lines = ["%6s %5s  %s" % ("offset", "size", _printable(layout.name))]
    if isinstance(layout, Enum):
        pairs = layout.names.items()
        lines += ["%14s  %s=%d" % ("", _printable(name), number) for number, name in pairs]
    holes = _table_rows(lines, layout, 0, "  ") if layout.members else 0
    total = "%d bytes" % layout.size
    if holes:
        holes_text = "%d bits" % holes if holes % 8 else "%d" % (holes // 8)
        total += ", %s of them padding (must match in a key, best zero)" % holes_text
    return "\n".join(lines + [total])


def _table_rows(lines, record, start, indent):
    """Append a line for each member of what begins at bit start; return how many bits are holes."""
    end = holes = 0
    for member in sorted(record.members, key=lambda one: one.offset):
        holes += _hole_row(lines, start + end, member.offset - end, indent)
        lines.append(_row(start + member.offset, member.width, indent + _member_text(member)))
        if member.layout.members:
            holes += _table_rows(lines, member.layout, start + member.offset, indent + "  ")
        end = max(end, member.offset + member.width)
    return holes + _hole_row(lines, start + end, 8 * record.size - end, indent)


def _hole_row(lines, offset, bits, indent):
    """Append a line for a hole, if there is one; return how many bits it has."""
    if bits <= 0:
        return 0
    lines.append(_row(offset, bits, indent + "(hole)"))
    return bits


def _row(offset, bits, text):
    return "%6s %5s  %s" % (_bytes_text(offset), _bytes_text(bits), text)


def _member_text(member):
    """Return the name, type, enumerators and tags of a member."""
    text = "%s: %s" % (member.name, member.layout.name) if member.name else member.layout.name
    if member.bits:
        text += ":%d" % member.bits
    if isinstance(member.layout, Enum):
        pairs = islice(member.layout.names.items(), 17)
        names = ["%s=%d" % (name, number) for number, name in pairs]
        text += " {%s%s}" % (", ".join(names[:16]), ", ..." if len(names) > 16 else "")
    tags = list(member.tags)
    meaning = _meaning_inside(member.layout)
    if meaning is not None and "show:" + meaning.word not in tags:
        tags.append("show:" + meaning.word)
    text = _printable(text + "".join(" [%s]" % tag for tag in tags))
    return text if len(text) <= 1024 else text[:1021] + "..."


def _bytes_text(bits):
    """Return a number of bits as bytes: "4", "4:3" for 35 bits."""
    return "%d" % (bits // 8) if bits % 8 == 0 else "%s:%d" % (bits // 8 or "", bits % 8)


# -- a layout as a ctypes class
# A class made from a Layout is packed and has every hole as a field, so that its offsets do not
# depend on this machine's ABI.  Its fields are set by __setattr__ of _MadeOfLayout, which lets the
# Layout check what is given.  What ctypes has no field for is a property: _BitField.


# Layout -> the class made of it, as long as anybody holds that.  Where two threads make one at once
# the class of the first stands in _being_made until it is in _classes.
_classes = None
_being_made = {}  # type: dict


def _class_of(layout):
    """Return the ctypes type of a layout."""
    if isinstance(layout, Number):
        return layout.scalar() if layout.has_scalar else u8 * layout.size
    if not isinstance(layout, (Array, Record)):
        return layout.ctype()
    if isinstance(layout, Array):
        # ctypes keeps what * makes for ever, and the element with it: not for classes made here
        element = layout.element.ctype()
        if _is_scalar(element) or not isinstance(layout.element, (Array, Record)):
            return element * layout.count
    if isinstance(layout, Record):  # typedefs and qualifiers make no class of their own
        layout = layout.renamed(layout.own_name)
    return _known_class(layout) or _keep_class(layout, _new_class(layout))


def _known_class(layout):
    """Return the class that was made of a layout, None if there is none."""
    global _classes
    if _classes is None:
        import weakref

        _classes = weakref.WeakValueDictionary()
    return _classes.get(layout)


def _keep_class(layout, made):
    """Return the class of a layout: made, or that of another thread that was faster.  setdefault of
    a WeakValueDictionary is many steps, that of a dict is one.
    """
    made = _being_made.setdefault(layout, made)
    _classes[layout] = made = _classes.get(layout) or made
    _being_made.pop(layout, None)
    return made


def _new_class(layout):
    """Make the ctypes class of an array or a record."""
    if isinstance(layout, Array):
        element = layout.element.ctype()
        own = {"_type_": element, "_length_": layout.count}
        name = "%s_Array_%d" % (element.__name__, layout.count)
        return type(ctypes.Array)(name, (ctypes.Array,), own)
    plan = layout.plan
    own = {"_pack_": 1, "_layout_": "ms", "_made_of_": layout, "_attributes_": plan.attributes}
    own.update(plan.properties)
    own["_anonymous_"] = plan.anonymous
    own["_btf_"] = own["_json_"] = dict.fromkeys(plan.holes)
    own["_fields_"] = [(name, inner.ctype()) for name, inner in plan.fields]
    name = _printable(layout.name.split(" ")[-1])
    return type(plan.base)(name if name != "(anonymous)" else "anonymous", (plan.base,), own)


class _ClassPlan:
    """What the ctypes class of a record has.

    fields      [(name, Layout)] of _fields_, in the order of the bytes, holes among them
    properties  {name: descriptor} of attributes that are no fields: numbers that ctypes has no
                field for, and what is in anonymous records under another name
    renames     whether there are such other names
    anonymous   names of fields that _anonymous_ lists: their members are attributes of the record
    holes       names of the fields that are holes
    attributes  {name: Layout} of what a user may set, in the order of declaration
    """

    def __init__(self, record):
        self.base = _MadeUnion if record.is_union else _MadeStructure
        self.fields, self.properties, self.anonymous, self.holes = [], {}, [], []
        self.renames = False
        self.attributes = {}  # type: dict
        self._reserved = set(dir(self.base)) | _RESERVED_NAMES
        self._names = _TakenNames(self._reserved)
        self._end = 0
        # Members get their names as they are declared, and become fields in the order of the bytes.
        names = [self._names_of(member) for member in record.members]
        order = sorted(range(len(names)), key=lambda at: _place_of(record.members[at]))
        for at in order:
            self._add(record, at, record.members[at], names[at])
        if self._end < record.size:
            self._add_hole(record, record.size)
        for parts in names:
            self.attributes.update((name, part.layout) for name, part in parts)

    def _names_of(self, member):
        """Return [(attribute, part)] of a member; of an anonymous record those of its parts."""
        parts = [member]
        if member.is_merged:
            parts = member.layout.parts
        elif not member.name:
            return []
        return [(self._free(part.label or part.name or "_"), part) for part in parts]

    def _free(self, name):
        """Return a name that is not taken yet and that neither Python nor ctypes looks for."""
        is_looked_for = name in self._reserved or name[:2] == name[-2:] == "__"
        return self._names.free(name + "_" * is_looked_for)

    def _add(self, record, at, member, names):
        """Add a member, the one numbered at: a field, or properties, and the hole before it."""
        first = member.offset // 8
        if member.is_merged:
            name = self._free("_anon%d" % at)
            self._add_merged(name, member, names)
        else:
            name = names[0][0] if names else self._free("_")
            if self._add_bits(name, member.layout, member.offset):
                return
        if first < self._end and not record.is_union:
            if not member.layout.size:
                return  # it lies inside of another: there is nothing to see
            raise LayoutError("%s: members that overlap, '%s' is one" % (record.name, member.name))
        if first > self._end and not record.is_union:
            self._add_hole(record, first)
        self.fields.append((name, member.layout))
        self._end = max(self._end, first + member.layout.size)

    def _add_merged(self, field, member, names):
        """Make attributes of what is in an anonymous record, whose field it is.

        ctypes does it by _anonymous_, unless a name in it is another one out here: the class of a
        shared record is the same everywhere.  Then all of them are properties.
        """
        inner = member.layout.plan
        inner_names = list(inner.attributes)
        is_renamed = inner.renames or inner_names != [name for name, _ in names]
        if not is_renamed:
            self.anonymous.append(field)
        for (name, part), inner_name in zip(names, inner_names):
            is_bits = self._add_bits(name, part.layout, part.offset + member.offset)
            if is_renamed and not is_bits:
                self.properties[name], self.renames = _RenamedField(field, inner_name), True

    def _add_bits(self, name, layout, offset):
        """Add a property if ctypes has no field for a member; return whether it has none."""
        is_odd = isinstance(layout, Number) and (not layout.is_whole or offset % 8)
        needed = is_odd and layout.size > 0
        if needed:
            self.properties[name] = _BitField(layout, offset)
        return needed

    def _add_hole(self, record, until):
        name = self._free("_hole%d" % self._end)
        self.holes.append(name)
        self.fields.append((name, Bytes(until if record.is_union else until - self._end)))
        self._end = until


def _place_of(member):
    """Return where a member stands among the fields: what has no bytes before what begins there."""
    return member.offset, member.layout.size > 0


# names that ctypes and this module look for in a class: no field may have one
_RESERVED_NAMES = frozenset(
    "_pack_ _layout_ _made_of_ _attributes_ _anonymous_ _fields_ _swappedbytes_ _align_ _json_"
    " _union_ _btf_ _show_".split()
)


class _BitField:
    """Descriptor of a bitfield, or of an integer of a size, that ctypes has no field for."""

    def __init__(self, number, offset):
        self.number = number
        self.bits = _Bits(offset, number.bits, number.order, number.signed)

    def __get__(self, obj, owner=None):
        return self if obj is None else self.bits.of(memoryview(obj).tobytes())

    def __set__(self, obj, given):
        number = _assigned(self.number, given, "a field")
        if sizeof(obj) < self.bits.last:  # its __class__ was assigned
            raise LayoutError("this %s has only %d bytes" % (type(obj).__name__, sizeof(obj)))
        buffer = (u8 * sizeof(obj)).from_buffer(obj)
        packing = _Packing(0, True, buffer)
        packing.put_bits(self.bits, number, "a field")

    def source(self):
        """Return a Python expression that reads it from self."""
        bits = self.bits
        words = (bits.first, bits.last, bits.order, bits.shift, bits.mask)
        number = "int.from_bytes(bytes(self)[%d:%d], %r) >> %d & %#x" % words
        return "((%s) ^ %#x) - %#x" % (number, bits.sign, bits.sign) if bits.sign else number


class _RenamedField:
    """Descriptor of what is in an anonymous record but has another name in the record around it.

    record     name of the field that the anonymous record is
    name       the attribute of that
    """

    def __init__(self, record, name):
        self.record, self.name = record, name

    def __get__(self, obj, owner=None):
        return self if obj is None else getattr(getattr(obj, self.record), self.name)

    def __set__(self, obj, given):
        setattr(getattr(obj, self.record), self.name, given)

    def source(self):
        """Return a Python expression that reads it from self."""
        return "getattr(self.%s, %a)" % (self.record, self.name)


class _MadeOfLayout:
    """What the classes made from a Layout have in common, and those that users derive from them.

    _attributes_ is {name: Layout} of what may be set.  __setattr__ has the Layout check what is
    given, as ctypes would cut what is too large without a word; then ctypes stores it.
    """

    _attributes_ = {}  # type: dict

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "_made_of_" not in cls.__dict__:
            cls._attributes_ = None  # until there is an object: _fields_ may be added up to then

    def __init__(self, *given, **named):
        if self._attributes_ is None:
            _collect_attributes(type(self))
        names = list(self._attributes_)
        if len(given) > len(names):
            words = (type(self).__name__, len(names), len(given))
            raise LayoutError("%s has %d fields, not %d" % words)
        for name, value in zip(names, given):
            if name in named:
                raise LayoutError("%s: two values for '%s'" % (type(self).__name__, name))
            setattr(self, name, value)
        for name, value in named.items():
            setattr(self, name, value)

    def __setattr__(self, name, given):
        if self._attributes_ is None:
            _collect_attributes(type(self))
        if name not in self._attributes_ and not hasattr(type(self), name):
            words = (type(self).__name__, name, ", ".join(self._attributes_))
            raise NoSuchField("%s has no field '%s'; there are %s" % words)
        layout = self._attributes_.get(name)
        if layout is not None and not isinstance(given, _CDATA):
            given = self._checked(layout, given, name)
        super().__setattr__(name, given)

    def _checked(self, layout, given, name):
        """Return what ctypes is to store for what was given; LayoutError where it does not fit."""
        what = "%s.%s" % (type(self).__name__, name)
        if isinstance(layout, Char) and isinstance(given, bytes):
            return given
        if isinstance(layout, Number):
            number = _assigned(layout, given, what)
            return bytes([number & 0xFF]) if isinstance(layout, Char) else number
        is_text = isinstance(layout, Array) and layout.is_text
        if isinstance(given, (bytes, bytearray)):
            raw = bytes(given)
            if is_text and len(raw) < layout.size:
                raw = raw.ljust(layout.size, b"\0")  # as ctypes does
            if len(raw) != layout.size:
                raise LayoutError("%s has %d bytes, not %d" % (what, layout.size, len(raw)))
        else:
            given = list(given) if isinstance(given, tuple) else given
            raw = layout.pack(given, what=what)
        return raw if is_text else _copier(layout.ctype())(raw)

    def __eq__(self, other):
        return _raw(self) == _raw(other) if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash(_raw(self))  # equal objects have equal bytes; one that changes is another key

    def __repr__(self):
        pairs = to_python(self)
        shown = ", ".join("%s=%r" % pair for pair in pairs.items())
        return _printable("%s(%s)" % (type(self).__name__, shown))

    def __reduce__(self):
        if "_made_of_" not in type(self).__dict__:
            return super().__reduce__()
        return _revived, (self._made_of_, _raw(self))


def _collect_attributes(cls):
    """Set _attributes_ of a class that a user derived from one made of a Layout: what both have."""
    found = {}  # type: dict
    for base in reversed(cls.__mro__):
        found.update(base.__dict__.get("_attributes_") or {})
        if "_made_of_" not in base.__dict__ and "_fields_" in base.__dict__:
            own = _own_members(base, base.__name__, 0)
            found.update((member.name, member.layout) for member in own)
    type(ctypes.Structure).__setattr__(cls, "_attributes_", found)


def _assigned(layout, given, what):
    """Return the number that is stored for what was assigned.  Unlike input, objects take no text
    but chars and names of enumerators.
    """
    if isinstance(given, str) and not isinstance(layout, Char):
        if not isinstance(layout, Enum) or given not in layout.names.values():
            raise LayoutError("%s must be %s, not %r" % (what, layout._wanted(), given))
    return layout.number(given, what)


class NoSuchField(LayoutError, AttributeError):
    """A name that is no field of a Layout, or of a class made from one."""


class _MadeStructure(_MadeOfLayout, ctypes.Structure):
    pass


class _MadeUnion(_MadeOfLayout, ctypes.Union):
    pass


def _revived(layout, raw):
    """Return the object that was pickled."""
    return _copier(layout.ctype())(raw)


# -- a layout as the source of a ctypes class
# The same class as text, which needs neither BTF nor this module.


def python_source(ctype: "Type[_Object]", name: str = "") -> str:
    """Return Python that makes a ctypes type anew, with neither BTF nor this module, and calls it
    name.
    """
    return layout(ctype).python_source(name)


def _source_of_layout(layout, name):
    """Return Python that makes the ctypes type of a layout and calls it name."""
    source = _ClassSource()
    expression = source.expression(layout)
    wanted = _identifier(name or (expression if isinstance(layout, Record) else "value"))
    if wanted != expression:  # of a typedef, a scalar, an array
        source.lines += ["", "%s = %s" % (wanted, expression)]
    return "\n".join(source.lines) + "\n"


class _ClassSource:
    """Python text that makes ctypes classes.

    lines      the text: for each record a class, those that it needs before it
    """

    def __init__(self):
        self.lines = ["import ctypes"]
        self._class_names = {}  # id of a record -> name of its class
        self._taken = _TakenNames(())

    def expression(self, layout):
        """Return the expression for a layout; the classes that it needs are added to the lines."""
        if isinstance(layout, Array):
            return "(%s * %d)" % (self.expression(layout.element), layout.count)
        if not isinstance(layout, Record):
            return _scalar_source(layout.ctype())
        name = self._class_names.get(id(layout))
        if name is None:
            name = self._taken.free(_class_name(layout))  # before those inside take it
            self._class_names[id(layout)] = name
            self._add_class(name, layout)
        return name

    def _add_class(self, name, record):
        """Add the class of a record, behind those of its fields."""
        plan = record.plan
        fields = [(field, self.expression(inner)) for field, inner in plan.fields]
        base = "Union" if record.is_union else "Structure"
        lines = ["", "", "class %s(ctypes.%s):" % (name, base)]
        lines += ["    _pack_ = 1", "    _layout_ = 'ms'"]
        if plan.anonymous:
            lines.append("    _anonymous_ = %a" % plan.anonymous)
        lines.append("    _fields_ = [")
        lines += ["        (%a, %s)," % field for field in fields]
        lines.append("    ]")
        if plan.holes:
            lines.append("    _btf_ = _json_ = %a" % dict.fromkeys(plan.holes))
        shown = _shown_words(record)
        if shown:
            lines.append("    _show_ = %a" % shown)
        lines += ["", ""] if plan.properties else []
        for field, one in sorted(plan.properties.items()):
            lines.append("setattr(%s, %a, property(lambda self: %s))" % (name, field, one.source()))
        self.lines += lines


def _shown_words(record):
    """Return the _show_ of a class: {name of a field: word of its meaning}."""
    fields = {name for name, _ in record.plan.fields}
    shown = {}
    for member in record.members:
        meaning = _meaning_inside(member.layout)
        if meaning is None or member.name not in fields:
            continue
        if not isinstance(meaning.kind, _Flags):  # these need an enum, and ctypes has integers
            shown[member.name] = meaning.word
    return shown


def _meaning_inside(found):
    """Return the meaning of a layout, of an array without one that of its elements; or None."""
    while found.meaning is None and isinstance(found, Array):
        found = found.element
    return found.meaning


def _class_name(record):
    """Return a name for the class of a record."""
    name = _identifier(record.name.split(" ")[-1] if record.name[-1:] != ")" else "anonymous")
    if name[:2] == "__":  # class bodies mangle these
        name = name.lstrip("_") or "anonymous"
    return name


def _scalar_source(ctype):
    """Return the expression for a scalar of ctypes, or an array of scalars."""
    if _is_array(ctype):
        return "(%s * %d)" % (_scalar_source(ctype._type_), ctype._length_)
    names = {"?": "bool", "c": "char", "f": "float", "d": "double"}
    name = names.get(ctype._type_)
    if name is None:
        name = "%sint%d" % ("" if ctype._type_ in _SIGNED_CODES else "u", 8 * sizeof(ctype))
    suffix = ".__ctype_%se__" % _FOREIGN_ORDER[0] if _is_swapped(ctype) else ""
    return "ctypes.c_%s%s" % (name, suffix)


def _identifier(text):
    """Return a name that Python takes.  What compilers write is one, but for keywords and the dot
    of ".bss".
    """
    import keyword

    letters = (char if char.isalnum() and char < "\x80" else "_" for char in text.lstrip("."))
    name = "".join(letters) or "anonymous"
    if name[0].isdigit():
        return "_" + name
    needed = ("ctypes", "setattr", "getattr", "property", "int", "bytes")  # by the source itself
    return name + "_" if keyword.iskeyword(name) or name in needed else name


# -- plain Python and JSON


def to_python(obj: "Any") -> "Any":
    """Return a key or value as plain dict, list, int, float, bool and str.

    Structures become dicts.  char arrays become str up to their first NUL, bytes that are no text
    in it \\xNN; enumerators their names, or the number as text; pointers hex.

    _json_     of a class renames fields or, with None, leaves them out
    _union_    of a class says which branch a union has: {"u": ("kind", {4: "ip4", 6: "ip6"})}
               reads u.ip4 where the field kind is 4
    raises     LayoutError: pointers of ctypes, a _union_ without such a branch, past 32 levels
    """
    return _plain(obj, 0)


def to_json(obj: "Any") -> str:
    """Return to_python(obj) as JSON text; NaN, which JSON lacks, is null, an infinity 1e999."""
    return _json_of(to_python(obj))


def _json_of(plain):
    """Return plain data as JSON text."""
    if isinstance(plain, dict):
        pairs = ["%s: %s" % (_json_text(name), _json_of(one)) for name, one in plain.items()]
        return "{%s}" % ", ".join(pairs)
    if isinstance(plain, list):
        return "[%s]" % ", ".join(map(_json_of, plain))
    return _json_float(plain) if isinstance(plain, float) else _json_text(plain)


def _plain(obj, depth):
    """Decode what a caller hands in: plain Python data, and ctypes objects once their type is
    proved.
    """
    if depth > MAX_DEPTH:
        raise LayoutError("more than %d levels of lists inside lists" % MAX_DEPTH)
    if isinstance(obj, _CDATA):
        found = _class_layout(type(obj), "the type")
        if sizeof(obj) < found.size:  # its __class__ was assigned
            words = (type_name(type(obj)), sizeof(obj))
            raise LayoutError("this %s has only %d bytes" % words)
        return found.reader("plain").one(ctypes.string_at(addressof(obj), found.size))
    if isinstance(obj, (list, tuple)):
        return [_plain(member, depth + 1) for member in obj]
    if isinstance(obj, (bytes, bytearray)):
        return list(obj)
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    raise LayoutError("%s is no plain data" % type(obj).__name__)


# ---- 5. BTF -----------------------------------------------------------------
# Types as compilers describe them and the kernel keeps them (linux/btf.h).  A blob of BTF is a
# header, a record for each type, one behind the other, and the strings with all names.  In order:
#
#   BTFType             a record that was read
#   _BTFBlob            the bytes taken apart: where each record begins, and the strings
#   _BTFRecords         types by id and by name, and what stands in their records
#   BTF                 what users have of it: files, ids of the kernel, members, offsets, Layouts
#   _MemberPath         follows "se.avg" to an Offset
#   _BTFFrontEnd        makes the Layout (section 4) of a type, which does everything else: tables,
#                       ctypes classes, Python source, decoding
#   _ELFFile            finds BTF in object files and kernel modules
#   _with_placed_variables, _relocated   fill in what compilers and builds of modules leave out
#   _prove_agreement    compares the type that a caller gave with BTF's
#
# Type ids: they are not stored, the n-th record is type n; 0 is void.  Split BTF (of a module)
# builds upon a base (vmlinux's): its ids go on where those of the base end, from _first_id on, and
# so do the offsets of names, from _first_string on; what is below is in the base.  A base may be
# split itself.  A distilled base (.BTF.base) is a stand-in for the base, see _relocated.
#
# Hostile BTF: files, captures and the maps of others may bring any bytes.  Opening a blob proves
# that its sections lie inside of it, _index that each record does.  Ids may still form circles, and
# sizes may be wrong.  Only a type of which _BTFFrontEnd made a Layout is known to be finite, with
# each member inside of what holds it, and so values are decoded by Layouts alone.  Code that goes
# from type id to type id without a Layout has to count its steps.  The bounds: MAX_DEPTH types
# inside types, and _MAX_BYTES, _MAX_ROWS, _MAX_VALUES, _MAX_NAME.
#
# Threads share a BTF without locks.  What was found is kept; where two look for the same thing at
# once, both do the work, and either result will do.
#
# A new BTF kind: name it in section 1 (BTF_KIND_*), put the words of its record into _RECORD_WORDS
# and the kind itself into the sets below that fit; then say in _BTFFrontEnd._unmodified what Layout
# it has, and in c_type how C spells it.  A kind that is not in _RECORD_WORDS is stepped over if the
# blob tells its length (_take_sections), else the types behind it can't be reached.

# -- the records of a blob: which kinds there are, where each record is, what stands in it

# kinds that stand for another type, and have its size
_MODIFIERS = frozenset(
    (BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG)
)
_RECORDS = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_DATASEC))  # they have members
_ENUMS = frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64))
# kinds whose size is the third word of their record
_SIZED = _RECORDS | _ENUMS | {BTF_KIND_INT, BTF_KIND_FLOAT}
# Of several types with a name, find takes one of the first kind here; of the other kinds all rank
# the same, and the lowest id wins.
_NAME_ORDER = (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_TYPEDEF)
_NAME_RANKS = {kind: rank for rank, kind in enumerate(_NAME_ORDER)}
# A record is three 32-bit words (struct btf_type: name, info, size or type), then the words that
# every type of its kind has, then those for each member, enumerator or parameter, vlen times.
# kind -> (the third word, the words that every type has, the words for each), a letter for a word:
# n the offset of a name, t a type id, - a number, ? what the kernel has not defined yet.
_RECORD_WORDS = {
    BTF_KIND_INT: ("-", "-", ""),
    BTF_KIND_PTR: ("t", "", ""),
    BTF_KIND_ARRAY: ("-", "tt-", ""),
    BTF_KIND_STRUCT: ("-", "", "nt-"),
    BTF_KIND_UNION: ("-", "", "nt-"),
    BTF_KIND_ENUM: ("-", "", "n-"),
    BTF_KIND_FWD: ("-", "", ""),
    BTF_KIND_TYPEDEF: ("t", "", ""),
    BTF_KIND_VOLATILE: ("t", "", ""),
    BTF_KIND_CONST: ("t", "", ""),
    BTF_KIND_RESTRICT: ("t", "", ""),
    BTF_KIND_FUNC: ("t", "", ""),
    BTF_KIND_FUNC_PROTO: ("t", "", "nt"),
    BTF_KIND_VAR: ("t", "-", ""),
    BTF_KIND_DATASEC: ("-", "", "t--"),
    BTF_KIND_FLOAT: ("-", "", ""),
    BTF_KIND_DECL_TAG: ("t", "-", ""),
    BTF_KIND_TYPE_TAG: ("t", "", ""),
    BTF_KIND_ENUM64: ("-", "", "n--"),
    BTF_KIND_LOC_PARAM: ("?", "?", "?"),
    BTF_KIND_LOC_PROTO: ("?", "", "?"),
    BTF_KIND_LOCSEC: ("?", "", "???"),
}
# kind -> (how many words every type of it has behind the three, how many for each of vlen)
_TAIL_WORDS = {kind: (len(words[1]), len(words[2])) for kind, words in _RECORD_WORDS.items()}
_MAX_NAME = 4096  # bytes of a name: eight times what the kernel takes
_LONG_NAME = 127  # bytes, the most that kernels took before 6.1; longer ones: see _string
_SCANNED_QUESTIONS = 2  # how many names are searched for before an index of all names is made
_BTF_ORDERS = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}  # by the magic that a blob begins with


def _info_kind(info):
    """Return the kind in the info word of a record: 7 bits; before 2026 the upper two were zero."""
    return info >> 24 & 0x7F


def _info_vlen(info):
    """Return vlen in the info word of a record: 24 bits; before 2026 the upper 8 were zero."""
    return info & 0xFFFFFF


class BTFType:
    """A type as BTF records it.

    id, name   "" where it has none
    kind       BTF_KIND_*, 0 for void
    size       bytes, or None
    type_id    what it points to, stands for, or has as elements
    count      of members, enumerators, parameters, elements
    flag       the record's kind_flag
    """

    # The record itself is _words[_at:], the words of all records of its blob; _byte is where it
    # begins in the blob, for messages.
    __slots__ = ("id", "kind", "name", "size", "type_id", "count", "flag", "_words", "_at", "_byte")
    id: int
    kind: int
    name: str
    size: "Optional[int]"
    type_id: int
    count: int
    flag: bool
    _words: "Any"
    _at: int
    _byte: int

    def __repr__(self) -> str:
        return "<BTF type %d: %s>" % (self.id, self._label)

    @property
    def _label(self):
        """The kind and name, for messages."""
        if not self.kind:
            return "void"
        kind = _KIND_NAMES.get(self.kind, "kind %d" % self.kind)
        return "%s %s" % (kind, _printable(self.name) or "(anonymous)")

    def _error(self, text):
        """Return a BTFError that says which type is wrong, and where its record is."""
        where = " at byte %d" % self._byte if self.id else ""
        return BTFError("type %d (%s)%s: %s" % (self.id, self._label, where, text))


class _RecordLengths(dict):
    """The info word of a record -> how many words the record takes.

    A dict, since very many records share few info words: each is worked out once.
    """

    def __init__(self, tails):
        self.tails = tails

    def __missing__(self, info):
        always, for_each = self.tails[_info_kind(info)]
        self[info] = 3 + always + for_each * _info_vlen(info)
        return self[info]


class _BTFBlob:
    """The bytes of BTF taken apart: where each record begins, and the strings.

    That is all that is proved here.  What stands in a record is looked at when somebody asks for
    its type: the kernel has more than 100,000.
    """

    data: bytes
    base: "Optional[BTF]"
    order: str

    def __init__(self, data, base=None):
        self.data, self.base = data, base
        self.order = _BTF_ORDERS.get(data[:2], "")
        self._take_sections()
        self._offsets = None  # what _index returns
        self._cut_reason = ""  # why types are missing behind the last one, if they are
        self._long_names, self._long_bytes = {}, 0  # see _string
        self._first_id, self._first_string = 1, 0
        if base is not None:
            self._first_id, self._first_string = self._places_behind(base)
            self._prove_base()

    def _take_sections(self):
        """Take the records, the strings and the lengths of kinds out of data."""
        import array

        header_len, type_off, type_len, str_off, str_len, layout_off, layout_len = self._header()
        self._type_byte = header_len + type_off
        types = self._section("types", self._type_byte, type_len)
        if type_len % 4:
            raise BTFError("the types take %d bytes at byte 12, no multiple of 4" % type_len)
        self._words = array.array("I", types)
        if self.order != sys.byteorder:
            self._words.byteswap()
        self._strings = self._section("strings", header_len + str_off, str_len)
        self._prove_strings(header_len + str_off)
        # The layout section (2026) tells the length of the records of each kind, so that readers
        # can step over kinds that they do not know: struct btf_layout, 4 bytes for a kind.
        self._kind_lengths = self._section("layout", header_len + layout_off, layout_len)
        self._tails = dict(_TAIL_WORDS)
        for kind in range(1, len(self._kind_lengths) // 4):
            always_bytes, each_bytes = self._kind_lengths[4 * kind : 4 * kind + 2]
            self._tails.setdefault(kind, (always_bytes // 4, each_bytes // 4))

    def _header(self):
        """Return hdr_len, type_off, type_len, str_off, str_len, layout_off, layout_len."""
        data = self.data
        if not self.order or len(data) < 24:
            raise BTFError(
                "no BTF: %d bytes that begin with %s, not with 9feb or eb9f"
                % (len(data), data[:4].hex())
            )
        if data[2] != 1 or data[3]:
            raise BTFError(
                "BTF of version %d with flags %#x at byte 2: only version 1 is known"
                % (data[2], data[3])
            )
        header_len = int.from_bytes(data[4:8], self.order)
        if header_len < 24:
            raise BTFError("a header of %d bytes, at byte 4" % header_len)
        header = self._section("header", 0, header_len)[:32].ljust(32, b"\0")
        if header_len < 32:
            # An older header ends at byte 24, before layout_off and layout_len, which then are 0.
            # One that ends inside of them has neither.
            header = header[:24] + bytes(8)
        return struct.unpack_from(_ORDER_MARKS[self.order] + "7I", header, 4)

    def _section(self, what, start, size):
        if start + size > len(self.data):
            raise BTFError("the %s end at byte %d of %d" % (what, start + size, len(self.data)))
        return self.data[start : start + size]

    def _prove_strings(self, start):
        strings, text = self._strings, "the strings at byte %d do not begin and end with NUL%s"
        if strings and strings[-1:] != b"\0":
            raise BTFError(text % (start, ""))
        if self.base is None and strings[:1] != b"\0":
            raise BTFError(text % (start, ": split BTF? It needs its base"))

    def _places_behind(self, base):
        """Return what the first type id and the first offset of a string are in what is split from
        base.
        """
        if base.order != self.order:
            raise BTFError("BTF of %s and its base of %s byte order" % (self.order, base.order))
        count = base.count
        if base._cut_reason:
            words = "the ids of split BTF follow those of its base, where %s"
            raise BTFError(words % base._cut_reason)
        return base._first_id + count, base._first_string + len(base._strings)

    def _prove_base(self):
        """Raise BTFError if base is not what this was split from but, say, another kernel's.

        Then ids and names would be those of other types.  It shows in names: libbpf and pahole
        share whole names alone, so an offset into the middle of a name is wrong.
        """
        for at in self._index():
            offset = self._words[at]
            if offset < self._first_string:
                layer, start = self.base._layer_of_name(offset)
                if start and layer._strings[start - 1]:
                    raise BTFError(
                        "a name of the record at byte %d begins inside of one of the base's: "
                        "that is not the base of this BTF" % (self._type_byte + 4 * at)
                    )

    def _rewritten(self, words, strings, base):
        """Return the same BTF with other records and strings upon another base."""
        if self.order != sys.byteorder:
            words = words[:]
            words.byteswap()
        header_len, types = (32 if self._kind_lengths else 24), words.tobytes()
        places = [header_len, 0, len(types), len(types), len(strings)]
        if self._kind_lengths:
            places += [len(types) + len(strings), len(self._kind_lengths)]
        mark = _ORDER_MARKS[self.order]
        header = struct.pack("%sHBB%dI" % (mark, len(places)), 0xEB9F, 1, 0, *places)
        return type(self)(header + types + strings + self._kind_lengths, base)

    # -- records

    @property
    def count(self) -> int:
        """How many types there are, without those of the base."""
        return len(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def __bool__(self) -> bool:
        return True  # of no types as well: it is not None

    def __repr__(self) -> str:
        split = "" if self.base is None else ", split"
        return "<BTF: %d types in %d bytes%s>" % (self.count, len(self.data), split)

    def _index(self):
        """Return an array: where in _words each record begins, first that of type _first_id.

        It takes one pass over all of them, on the first question.
        """
        if self._offsets is None:
            import array

            words, lengths, at = self._words, _RecordLengths(self._tails), 0
            offsets = array.array("I")
            total, append = len(words), offsets.append
            try:
                while at < total:
                    append(at)
                    at += lengths[words[at + 1]]
            except (KeyError, IndexError):
                at = total + 1
            if at > total:
                self._cut_reason = self._why_cut(offsets.pop())
            self._offsets = offsets
        return self._offsets

    def _why_cut(self, at):
        """Say why no types follow the last record: it is cut, or of a kind of unknown length."""
        kind = _info_kind(self._words[at + 1]) if at + 1 < len(self._words) else 0
        why = "cut" if kind in self._tails else "of unknown kind %d" % kind
        return "the record at byte %d is %s" % (self._type_byte + 4 * at, why)

    # -- strings

    def _layer_of_name(self, offset):
        """Return (self or the base that has the name at an offset, where in its strings it is)."""
        layer = self
        while offset < layer._first_string:
            layer = layer.base
        return layer, offset - layer._first_string

    def _name_bytes(self, offset):
        """Return the bytes of the name at an offset."""
        layer, start = self, offset - self._first_string
        if start < 0:
            layer, start = self.base._layer_of_name(offset)
        end = layer._strings.find(b"\0", start, start + _MAX_NAME)
        if end < 0 and offset:
            raise BTFError(
                "a name at byte %d of the strings, which end at %d" % (start, len(layer._strings))
            )
        return layer._strings[start:end]

    def _string(self, offset):
        """Return the name at an offset.

        Hostile names may all be the ends of one long text, and so take far more memory than the
        blob.  So long ones are added up, and refused when they are twice as long as all strings.
        """
        name = self._long_names.get(offset)
        if name is None:
            encoded = self._name_bytes(offset)
            name = encoded.decode("utf-8", "backslashreplace")
            if len(encoded) > _LONG_NAME:
                self._long_bytes += len(encoded)
                if self._long_bytes > 2 * (self._first_string + len(self._strings)):
                    raise BTFError(
                        "long names, one within the other, at %d of the strings" % offset
                    )
                self._long_names[offset] = name
        return name


class _BTFRecords(_BTFBlob):
    """The types of a blob and of its base: by id, by name, and what stands in their records."""

    def __init__(self, data, base=None):
        _BTFBlob.__init__(self, data, base)
        self._found = {}  # type: dict  # (name, kind) -> type id
        self._questions = 0  # how often _named was called
        self._by_name = None  # what _name_index returned
        self._decl_tags = None  # what _all_tags returned
        self._enums = {}  # type: dict  # type id -> {number: name}

    def __iter__(self) -> "Iterator[BTFType]":
        """Yield the BTFType of each type, without those of the base."""
        for type_id in range(self._first_id, self._first_id + self.count):
            yield self.type(type_id)

    def type(self, t: "_GivenType") -> "BTFType":
        """Return the BTFType for a type id or name."""
        if not isinstance(t, int):
            t = t.id if isinstance(t, BTFType) else self.find(t)
        if self.base is not None and t < self._first_id:
            return self.base.type(t)
        if t == 0:
            return _void()
        index = self._index()
        if not 0 <= t - self._first_id < len(index):
            why = self._cut_reason and ": " + self._cut_reason
            raise BTFError("there is no type %d%s" % (t, why))
        found, words, at = BTFType(), self._words, index[t - self._first_id]
        found.id, found._words, found._at = t, words, at
        found._byte = self._type_byte + 4 * at
        name_off, info, number = words[at : at + 3]
        # as _info_kind and _info_vlen have it; calls would take a tenth of the time
        found.kind, found.flag, found.count = info >> 24 & 0x7F, bool(info >> 31), info & 0xFFFFFF
        found.name = self._string(name_off)
        found.size, found.type_id = (number, 0) if found.kind in _SIZED else (None, number)
        if found.kind == BTF_KIND_ARRAY:
            found.type_id, _, found.count = words[at + 3 : at + 6]
        return found

    # -- names

    def find(self, name: str, kind: "Optional[str]" = None) -> int:
        """Return the id of the type with a name: "task_struct", "struct task_struct", "long int".

        Of several, the first struct, union, enum or typedef.

        kind       look for that alone: "struct", "func" ...
        raises     BTFError: no type has it
        """
        word, _, rest = name.partition(" ")
        if word in ("struct", "union", "enum") and rest:
            kind, name = word, rest.strip()
        if (name, kind) not in self._found:
            self._found[name, kind] = self._search(name, kind)
        return self._found[name, kind]

    def _all_named(self, name):
        """Return the BTFType of each type with a name, those of the base last."""
        encoded, found, layer = name.encode(errors="backslashreplace"), [], self
        while layer is not None and name:
            found += [layer.type(type_id) for type_id, _ in layer._named(encoded)]
            layer = layer.base
        return found

    def _search(self, name, kind):
        """Look for what find returns, in the base as well."""
        kinds = {number for number, text in _KIND_NAMES.items() if kind in (None, text)}
        if kind == "enum":
            kinds = _ENUMS
        encoded, best, layer = name.encode(errors="backslashreplace"), None, self
        while layer is not None and name:
            for type_id, at in layer._named(encoded):
                found_kind = _info_kind(layer._words[at + 1])
                rank = _NAME_RANKS.get(found_kind, len(_NAME_RANKS)), type_id
                if found_kind in kinds and (best is None or rank < best):
                    best = rank
            layer = layer.base
        if best is None:
            why = self._cut_reason and "; " + self._cut_reason
            raise BTFError("no %s is named '%s'%s" % (kind or "type", name, why))
        return best[1]

    def _named(self, encoded):
        """Return (id, where in _words) of each type that has a name, without those of the base.

        The first questions are answered by a look through the strings and records, which takes a
        tenth of the time of the index that later ones use: most processes ask once.
        """
        index, first = self._index(), self._first_id
        self._questions += 1
        if self._by_name is None and self._questions <= _SCANNED_QUESTIONS:
            offsets = self._name_offsets(encoded)
            words = self._words
            places = [
                (number, at) for number, at in enumerate(index, first) if words[at] in offsets
            ]
            return places if offsets else []
        if self._by_name is None:
            self._by_name = self._name_index()
        first_ids, other_ids = self._by_name
        key = hash(encoded)
        ids = ([first_ids[key]] if key in first_ids else []) + other_ids.get(key, [])
        places = [(type_id, index[type_id - first]) for type_id in ids]
        return [place for place in places if self._name_bytes(self._words[place[1]]) == encoded]

    def _name_offsets(self, encoded):
        """Return where a name stands in the strings, of the base too: split BTF shares those."""
        offsets, layer, wanted = set(), self, encoded + b"\0"
        while layer is not None:
            for at in _occurrences(layer._strings, wanted):
                offsets.add(layer._first_string + at)
            layer = layer.base
        return offsets

    def _name_index(self):
        """Return {hash of a name: id of the first type} and {hash: [ids of the others]}.

        Not the names themselves: types may share the ends of one long string.
        """
        words, first_ids, other_ids = self._words, {}, {}
        for type_id, at in enumerate(self._index(), self._first_id):
            if words[at]:
                try:
                    key = hash(self._name_bytes(words[at]))
                except BTFError:  # a name outside of the strings is no name
                    continue
                if first_ids.setdefault(key, type_id) != type_id:
                    other_ids.setdefault(key, []).append(type_id)
        return first_ids, other_ids

    # -- what stands in records

    def _resolve(self, t):
        """Return the BTFType behind typedefs, qualifiers and type tags, and of a variable."""
        for _ in range(MAX_DEPTH):
            t = self.type(t)
            if t.kind not in _MODIFIERS and t.kind != BTF_KIND_VAR:
                return t
            t = t.type_id
        raise self.type(t)._error("more than %d typedefs and qualifiers of one another" % MAX_DEPTH)

    def tags(self, t: "_GivenType", component: int = -1) -> "Tuple[str, ...]":
        """Return the declaration tags of a type, or of one of its members or parameters."""
        if self._decl_tags is None:
            self._decl_tags = self._all_tags()
        type_id = self.type(t).id
        own = tuple(self._decl_tags.get((type_id, component & 0xFFFFFFFF), ()))
        if self.base is not None and type_id < self._first_id:
            own += self.base.tags(type_id, component)
        return own

    def _all_tags(self):
        """Return {(type id, component): [tag]} of the declaration tags.

        They are few among many records, so the bytes are searched for their info words, with and
        without kind_flag; what is found in other words of records is no tag.
        """
        raw, places = self._words.tobytes(), set()
        for info in (BTF_KIND_DECL_TAG << 24, 1 << 31 | BTF_KIND_DECL_TAG << 24):
            for at in _occurrences(raw, info.to_bytes(4, sys.byteorder)):
                if at % 4 == 0:
                    places.add(at // 4 - 1)
        found = {}  # type: dict
        for index, at in enumerate(self._index()) if places else ():
            if at in places:
                tag = self.type(self._first_id + index)
                found.setdefault((tag.type_id, self._words[at + 3]), []).append(tag.name)
        return found

    def enumerators(self, t: "_GivenType") -> "Dict[int, str]":
        """Return {number: name} of an enum, numbers as values read; of several names the first.

        raises     BTFError
        """
        enum = self._resolve(t)
        if enum.kind not in _ENUMS:
            raise enum._error("it is no enum")
        if enum.id not in self._enums:
            self._enums[enum.id] = self._enum_names(enum)
        return self._enums[enum.id]

    def _enum_names(self, t):
        """Return {number: name} of an enum, the numbers as its size and sign have them.

        They are stored in 32 or 64 bits, whatever the size is: each is first a signed number of
        those, then cut to the enum's bits, whose highest is the sign if it is signed.
        """
        if not 1 <= t.size <= 16:
            raise t._error("its size can't be %d" % t.size)
        step, bits, names = _TAIL_WORDS[t.kind][1], 8 * t.size, {}
        sign, stored_sign = 1 << bits - 1, 1 << 32 * (step - 1) - 1
        sign = sign if self._is_signed_enum(t) else 0
        name_offsets = t._words[t._at + 3 : t._at + 3 + step * t.count : step]
        for name_off, number in zip(name_offsets, self._enum_numbers(t)):
            number = ((number ^ stored_sign) - stored_sign) & (1 << bits) - 1
            names.setdefault((number ^ sign) - sign, self._string(name_off))
        return names

    def _enum_numbers(self, t):
        """Return the numbers of an enum as they are stored, each in 32 or 64 bits."""
        step = _TAIL_WORDS[t.kind][1]
        start, end = t._at + 3, t._at + 3 + step * t.count
        numbers = t._words[start + 1 : end : step]
        if t.kind == BTF_KIND_ENUM:
            return numbers
        high = t._words[start + 2 : end : step]
        return [number | more << 32 for number, more in zip(numbers, high)]

    def _is_signed_enum(self, t):
        """Return whether an enum is signed.

        Its kind_flag says so; clang before 15 and pahole before 1.24 set none.  Without it an enum
        as wide as its numbers are stored (32 bits) is unsigned: 0xffffffff and -1 are one, in BTF
        and in memory.  A smaller one with a number that is negative where it is stored can't be
        unsigned, and a wider one, whose numbers would be ENUM64 since, is of the time when all were
        signed.
        """
        stored_bits = 32 * (_TAIL_WORDS[t.kind][1] - 1)
        if t.flag or 8 * t.size == stored_bits:
            return t.flag
        return any(number >> stored_bits - 1 for number in self._enum_numbers(t))


def _void():
    """Return the type with id 0, which has no record."""
    found = BTFType()
    found.id, found.kind, found.name, found.size = 0, 0, "void", None
    found.type_id, found.count, found.flag = 0, 0, False
    return found


def _occurrences(haystack, needle):
    """Yield where needle begins in haystack."""
    at = haystack.find(needle)
    while at >= 0:
        yield at
        at = haystack.find(needle, at + 1)


# -- BTF, as users have it: where it comes from, names, sizes, members


class BTF(_BTFRecords):
    """Type information: how the types of a BPF object or the kernel are called and lie.

        btf = BTF.from_vmlinux()
        btf.offsetof("task_struct", "comm")

    from_vmlinux, from_id, from_file and from_bytes open it.  A type is given by id, by BTFType or
    by name, alone or with its kind: "task_struct", "struct task_struct".  Iterating yields its own
    types, len() counts them.

    data       its bytes
    order      of these: "little" or "big"
    base       the BTF that split BTF builds upon, or None
    raises     BTFError, all of it, for what is malformed or not there
    """

    def __init__(self, data: bytes, base: "Optional[BTF]" = None) -> None:
        _BTFRecords.__init__(self, data, base)
        self._layouts = {}  # type: Dict[int, Layout]  # by type id, see _BTFFrontEnd
        self._pointer_size = 0

    @classmethod
    def from_bytes(cls, data: "Buffer", base: "Optional[BTF]" = None) -> "Self":
        """Return the BTF in a buffer, of either byte order.

        base       what split BTF builds upon
        raises     BTFError
        """
        return cls(memoryview(data).tobytes(), base)

    @classmethod
    def from_file(cls, path: "_Path", base: "Optional[BTF]" = None) -> "Self":
        """Return the BTF in a file, raw or the .BTF of an ELF file.

        base     what split BTF builds upon; of the modules in /sys/kernel/btf it is known
        ELF      modules that bring a .BTF.base, the part of the kernel's types that they use, are
                 fitted to base by names and sizes or refused with a BTFError, as the kernel does
                 (6.11); without base that part is it.  Sections whose size the compiler left to the
                 loader (.bss, .data ...) take it from the ELF file, the offsets of their variables
                 from its symbols.
        """
        with open(path, "rb") as file:
            start = file.read(4)
            if start == b"\x7fELF":
                return cls._from_elf(_ELFFile(file, start), base)
            data = start + file.read()
        directory, name = os.path.split(os.path.realpath(os.fsdecode(path)))
        if base is None and directory == "/sys/kernel/btf" and name != "vmlinux":
            base = cls.from_vmlinux()
        return cls(data, base)

    @classmethod
    def _from_elf(cls, elf, base):
        """Return the BTF in an _ELFFile, as from_file does."""
        data, distilled = elf.section_bytes(".BTF"), None
        if elf.section(".BTF.base") is not None:
            distilled = cls(elf.section_bytes(".BTF.base"))
        btf = _with_placed_variables(cls(data, base if distilled is None else distilled), elf)
        return btf if distilled is None or base is None else _relocated(btf, base)

    @classmethod
    def from_vmlinux(cls) -> "Self":
        """Return the running kernel's BTF.

        raises     BTFError: it can't be had
        kernel     /sys/kernel/btf/vmlinux, 5.4; by its id, 5.11, which takes CAP_SYS_ADMIN
        """
        try:
            return cls.from_file("/sys/kernel/btf/vmlinux")
        except OSError as failure:
            reason = failure
        try:
            for _, (info, name, data) in _read_ids(BPF_BTF_GET_NEXT_ID, _btf_info):
                if info.kernel_btf and name == "vmlinux":
                    return cls(data)
        except SyscallError as failure:
            reason = failure
        raise BTFError("the kernel's BTF can't be had: %s" % reason)

    @classmethod
    def from_id(cls, btf_id: int, token: "Optional[_Descriptor]" = None) -> "Self":
        """Return the BTF with an id, as of MapInfo.btf_id; it takes CAP_SYS_ADMIN or a BPF token.

        raises     BTFError, PermissionDenied, SyscallError
        kernel     BPF_BTF_GET_FD_BY_ID, 4.18; tokens 6.15
        """
        info, name, data = _btf_info(btf_id, token)
        btf = _kept_btf.get(data)
        if btf is None:
            btf = cls(data, cls.from_vmlinux() if info.kernel_btf and name != "vmlinux" else None)
            if len(_kept_btf) >= _MAX_KEPT_BTF:
                _kept_btf.clear()
            btf = _kept_btf.setdefault(data, btf)  # another thread's, if that came first
        return btf

    # -- members

    def _members(self, t):
        """Yield (name, type id, bit offset, bits) of a record's own members.

        Bits is 0 but for bitfields.
        """
        if t.kind == BTF_KIND_DATASEC:
            for entry, offset in self._section_members(t):
                if t.size and entry.kind == BTF_KIND_VAR:  # nothing else has a place
                    yield entry.name, entry.type_id, offset, 0
            return
        words = t._words
        for at in range(t._at + 3, t._at + 3 + 3 * t.count, 3):
            name_off, type_id, offset = words[at : at + 3]
            bits = offset >> 24 if t.flag else 0
            offset = offset & 0xFFFFFF if t.flag else offset
            if not bits:
                offset, bits = self._place_by_int(type_id, offset)
            yield self._string(name_off), type_id, offset, bits

    def _place_by_int(self, type_id, offset):
        """Return (bit offset, bits) of a member whose record does not say that it is a bitfield.

        Before there was kind_flag, the INT that is its type said so: it had fewer bits than bytes
        for them, or a bit offset of its own.
        """
        inner = self._resolve(type_id)
        if inner.kind != BTF_KIND_INT:
            return offset, 0
        _, int_offset, bits = _int_parts(inner)
        if bits == 8 * inner.size & 0xFF and not int_offset and not offset % 8:
            return offset, 0
        return offset + int_offset, bits

    def _section_members(self, t):
        """Yield (BTFType, bit offset) of the variables and functions of a data section."""
        for type_id, offset, _ in _section_entries(t._words, t._at):
            entry = self.type(type_id)
            if entry.kind not in (BTF_KIND_VAR, BTF_KIND_FUNC):
                raise t._error("type %d in it is no variable or function" % type_id)
            yield entry, 8 * offset

    @property
    def pointer_size(self) -> int:
        """Bytes of a pointer, which are those of a long.

        8 where no long is: BPF has 64 bits everywhere.
        """
        if not self._pointer_size:
            self._pointer_size = 8
            for name in ("long unsigned int", "long int", "unsigned long", "long"):
                try:
                    size = self.type(self.find(name, "int")).size
                except BTFError:
                    continue
                self._pointer_size = size if size in (4, 8) else 8
                break
        return self._pointer_size

    # -- questions

    def sizeof(self, t: "_GivenType") -> int:
        """Return a type's size in bytes."""
        return self.layout(t).size

    def members(self, t: "_GivenType") -> "Iterator[Tuple[str, int, int, int, Tuple[str, ...]]]":
        """Yield (name, type id, offset, bits, tags) of a struct's, union's or section's members.

        offset     in bits
        bits       of a bitfield, else 0
        tags       those of the member's declaration and of its type: ("kptr",), ("user",)

        The functions of a section (.ksyms) are told as well: their type is a function's and has
        no size.  In a section of no size nothing has a place.
        """
        record = self._resolve(t)
        if record.kind not in _RECORDS:
            raise record._error("it has no members")
        if record.kind == BTF_KIND_DATASEC:
            for entry, offset in self._section_members(record):
                tags = self.tags(entry) + self._type_tags(entry.type_id)
                yield entry.name, entry.type_id, offset, 0, tags
            return
        for index, (name, type_id, offset, bits) in enumerate(self._members(record)):
            all_tags = self.tags(record.id, index) + self._type_tags(type_id)
            yield name, type_id, offset, bits, all_tags

    def _type_tags(self, type_id):
        """Return the type tags between a member and what it is or points to."""
        tags = []
        for _ in range(MAX_DEPTH):
            t = self.type(type_id)
            if t.kind == BTF_KIND_TYPE_TAG:
                tags.append(t.name)
            elif t.kind not in _MODIFIERS and t.kind != BTF_KIND_PTR:
                break
            type_id = t.type_id
        return tuple(tags)

    def offsetof(self, t: "_GivenType", path: str) -> "Union[Offset, Any]":
        """Return where a member begins: an Offset, which is an int in bytes.

        path       "comm", "se.avg", "cpus_mask.bits[1]"
        returns    through pointers ("signal.group_exit_code") a tuple: an Offset for each step
                   from one to the next
        raises     BTFError
        """
        found = _MemberPath(self, path).offsets(self.type(t).id)
        return found[0] if len(found) == 1 else tuple(found)

    def c_type(self, t: "_GivenType") -> str:
        """Return a type as C spells it, but read from left to right: "struct task_struct __rcu *",
        "u32 [4]".
        """
        # From the type itself to what it is made of, which goes in front of what is there so far;
        # only the brackets of arrays of arrays stand in the order of C.
        tail = brackets = ""
        for _ in range(MAX_DEPTH):
            t = self.type(t)
            if brackets and t.kind != BTF_KIND_ARRAY:
                tail, brackets = " " + brackets + tail, ""
            if t.kind == BTF_KIND_PTR:
                tail = " *" + tail
            elif t.kind == BTF_KIND_ARRAY:
                brackets += "[%d]" % t.count
            elif t.kind == BTF_KIND_TYPE_TAG:
                tail = " __" + t.name + tail
            elif t.kind in _MODIFIERS and t.kind != BTF_KIND_TYPEDEF:
                tail = " " + _KIND_NAMES[t.kind] + tail
            elif t.kind == BTF_KIND_FUNC_PROTO:
                return "function" + tail
            else:
                keyword = _C_KEYWORDS.get((t.kind, t.flag and t.kind == BTF_KIND_FWD), "")
                return keyword + (t.name or "(anonymous)") + tail
            t = t.type_id
        return "..." + tail

    # -- types as Layouts

    def layout(self, t: "_GivenType") -> "Layout":
        """Return the Layout of a type: finite, sized, each member inside of what holds it.

        raises     BTFError
        """
        return _BTFFrontEnd(self).layout(self.type(t).id, 0)

    def ctype(self, t: "_GivenType") -> "Type[Any]":
        """Return the ctypes type of a type, as Layout.ctype makes it; the same class each time."""
        return _with_btf_errors(lambda: self.layout(t).ctype())

    def describe(self, t: "_GivenType") -> str:
        """Return a table of a type: offset, size, name and C type of each member, enum names, tags
        and holes.
        """
        return _with_btf_errors(lambda: self.layout(t).describe())

    def python_source(self, t: "_GivenType") -> str:
        """Return Python that makes the ctypes type anew, with neither BTF nor this module.

        Bitfields are read-only.
        """
        return _with_btf_errors(lambda: self.layout(t).python_source(self.type(t).name))


def _with_btf_errors(make):
    """Return make(), which calls a method of a Layout: its LayoutError becomes a BTFError."""
    try:
        return make()
    except LayoutError as failure:
        raise BTFError(*failure.args) from None


# The BTF of ids that were asked for last, by its bytes: maps opened twice have the same types.
_kept_btf = {}  # type: dict
_MAX_KEPT_BTF = 16


def _btf_info(btf_id, token=None):
    """Return (bpf_btf_info, name, bytes) of the BTF that the kernel holds under an id."""
    attr, about, size = bpf_attr(), "BTF %d" % btf_id, None
    attr.get_id.start_id = _integer(btf_id, 0, (1 << 32) - 1, "BTF id")
    if token is not None:
        attr.get_id.open_flags, size = BPF_F_TOKEN_FD, sizeof(attr.get_id)
        attr.get_id.fd_by_id_token_fd = _integer(
            _fd_number(token), -1 << 31, (1 << 31) - 1, "token"
        )
    owner = _Fd(_bpf, BPF_BTF_GET_FD_BY_ID, attr, about, size)
    try:
        info = bpf_btf_info()
        known = _info_by_fd(owner.number, info, about)
        data = ctypes.create_string_buffer(info.btf_size or 1)
        name = ctypes.create_string_buffer(64)
        info = bpf_btf_info(addressof(data), info.btf_size)
        if known == sizeof(info):  # 5.11; kernels before take no name
            info.name, info.name_len = addressof(name), sizeof(name)
        _info_by_fd(owner.number, info, about)
        return info, name.value.decode("latin-1"), data.raw[: info.btf_size]
    finally:
        del owner  # closes it now, also where a traceback would keep it


# -- offsets: where the member of a path lies


class Offset(int):
    """Where a member begins, in bytes.

    bit_offset the same in bits
    bits       of a bitfield, else 0
    """

    bit_offset: int
    bits: int

    def __new__(cls, bit_offset: int, bits: int) -> "Self":
        self = int.__new__(cls, bit_offset // 8)
        self.bit_offset, self.bits = bit_offset, bits
        return self

    def __getnewargs__(self) -> "Tuple[int, int]":  # type: ignore[override]  # int has one
        return self.bit_offset, self.bits


class _MemberPath:
    """The way from a type to one of its members, such as "se.avg" or "cpus_mask.bits[1]"."""

    def __init__(self, btf, path):
        self.btf, self.path = btf, path

    def offsets(self, type_id):
        """Return the Offset of the member in a list, behind one for each pointer on the way."""
        found, position, bits = [], 0, 0
        self.btf.layout(type_id)  # proves the type before its members are looked at
        for step in self._steps(type_id):
            inner = self.btf._resolve(type_id)
            if inner.kind == BTF_KIND_PTR and bits == 0:
                found.append(Offset(position, 0))
                position, inner = 0, self.btf._resolve(inner.type_id)
                self.btf.layout(inner)
            if inner.kind == BTF_KIND_ARRAY and step[:1] == "[" and step[-1:] == "]":
                type_id, bits = inner.type_id, 0
                position += 8 * self._index_in(inner, step[1:-1]) * self.btf.sizeof(type_id)
                continue
            type_id, offset, bits = self._member_of(inner, step)
            position += offset
        found.append(Offset(position, bits))
        return found

    def _steps(self, type_id):
        """Return the steps of the path, names and indices: ["cpus_mask", "bits", "[1]"].

        In a data section the first may be a variable whose name holds dots.
        """
        t, variable, path = self.btf._resolve(type_id), "", self.path
        if t.kind == BTF_KIND_DATASEC:
            names = [entry.name for entry, _ in self.btf._section_members(t)]
            variable = max(filter(self._begins_with, names), key=len, default="")
        steps = path[len(variable) :].replace("->", ".").replace("[", ".[").split(".")
        steps[0] = variable + steps[0]
        return steps[1:] if path.startswith("[") else steps

    def _begins_with(self, name):
        """Return whether the first step of the path is this name."""
        return self.path.startswith(name) and self.path[len(name) :][:1] in ("", ".", "[", "-")

    def _index_in(self, array, digits):
        """Return the number that digits say, an index of an array."""
        if not digits.isdecimal():
            raise BTFError("%s: '%s' is no index" % (self.path, digits))
        # Python refuses thousands of digits; no array has so many elements
        index = int(digits[:99])
        if array.count and index >= array.count:
            words = (self.path, self.btf.c_type(array.id), array.count)
            raise BTFError("%s: %s has %d elements" % words)
        return index

    def _member_of(self, record, name):
        """Return (type id, bit offset, bits) of a member, also of one in an anonymous record."""
        found = None
        if record.kind in _RECORDS:
            found = self._member_inside(record, name, 0, 0)
        if found is None:
            words = (self.path, self.btf.c_type(record.id), name)
            raise BTFError("%s: %s has no member '%s'" % words)
        return found

    def _member_inside(self, record, name, start, depth):
        """Return what _member_of does, None if there is no such member.

        The record begins at bit start, and is depth records inside of the one asked about.
        """
        anonymous = []
        for label, type_id, offset, bits in self.btf._members(record):
            if name and label == name:
                return type_id, start + offset, bits
            if not label and not bits:
                anonymous.append((type_id, offset))
        for type_id, offset in anonymous if depth < MAX_DEPTH else ():
            inner = self.btf._resolve(type_id)
            found = None
            if inner.kind in _RECORDS:
                found = self._member_inside(inner, name, start + offset, depth + 1)
            if found is not None:
                return found
        return None


# (kind, whether it is a FWD with kind_flag) -> what C has before the name
_C_KEYWORDS = {
    (BTF_KIND_STRUCT, False): "struct ",
    (BTF_KIND_UNION, False): "union ",
    (BTF_KIND_ENUM, False): "enum ",
    (BTF_KIND_ENUM64, False): "enum ",
    (BTF_KIND_FWD, False): "struct ",
    (BTF_KIND_FWD, True): "union ",
}


def _int_parts(t):
    """Return (encoding, bit offset, bits) of an INT, BTF_INT_ENCODING(), _OFFSET() and _BITS() of
    linux/btf.h; encoding is of _INT_SIGNED, _INT_CHAR and _INT_BOOL.

    An offset that is not 0, or fewer bits than the size has, is how old compilers described a
    bitfield; today its member says it.
    """
    word = t._words[t._at + 3]
    return word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF


# -- Layouts of BTF's types

# Typedefs of the kernel that say in which order the bytes lie.
_ORDERED_TYPEDEFS = dict.fromkeys(("be16", "be32", "be64", "__be16", "__be32", "__be64"), "big")
_ORDERED_TYPEDEFS.update(
    dict.fromkeys(("le16", "le32", "le64", "__le16", "__le32", "__le64"), "little")
)


class _BTFFrontEnd:
    """Makes Layouts of the types of a BTF, each once, and proves them on the way.

    A type is proved finite by depth, how many types it is inside of: the ids of a circle would go
    beyond MAX_DEPTH.  What a Layout takes is bounded as well, since types that share others stand
    for many more members than the blob has bytes.
    """

    def __init__(self, btf):
        self.btf = btf
        self._made = btf._layouts  # type id -> Layout; of two that threads make, either will do

    def layout(self, type_id, depth):
        """Return the Layout of a type id, depth types inside of others."""
        known = self._made.get(type_id)
        if depth + (known.levels if known else 0) > MAX_DEPTH:
            raise self.btf.type(type_id)._error("types inside types, more than %d deep" % MAX_DEPTH)
        if known is None:
            t = self.btf.type(type_id)
            make = self._modified if t.kind in _MODIFIERS else self._unmodified
            known = make(t, depth)
            known = _with_meaning_of_tags(known, self.btf.tags(type_id))
            rows = getattr(known, "row_count", 0)
            most = _VALUES_PER_BYTE * known.size + _MAX_VALUES
            if known.values > most or rows > _MAX_ROWS:
                words = (known.size, known.values, rows)
                raise t._error("%d bytes, %d values, %d members: too large" % words)
            known = self._made.setdefault(type_id, known)
        return known

    def _modified(self, t, depth):
        """Return the Layout behind a typedef, qualifier or tag, under the name that it has so."""
        name, order = self.btf.c_type(t.id), None
        for _ in range(MAX_DEPTH + 1):
            if t.kind not in _MODIFIERS:
                break
            order = order or t.kind == BTF_KIND_TYPEDEF and _ORDERED_TYPEDEFS.get(t.name)
            t = self.btf.type(t.type_id)
        else:
            raise t._error("more than %d typedefs and qualifiers of one another" % MAX_DEPTH)
        made = self.layout(t.id, depth).renamed(name)
        return made.ordered(order) if order and type(made) is Number else made

    def _unmodified(self, t, depth):
        """Return the Layout of a type that is no typedef, qualifier or tag."""
        if t.kind in _RECORDS:
            return self._record(t, depth)
        if t.kind == BTF_KIND_ARRAY:
            element = self._char(t.type_id) or self.layout(t.type_id, depth + 1)
            if element.size * t.count > _MAX_BYTES:
                raise t._error("%d bytes: too large" % (element.size * t.count))
            return Array(element, t.count, self.btf.c_type(t.id))
        if t.kind == BTF_KIND_VAR:
            return self.layout(t.type_id, depth + 1)
        name = self.btf.c_type(t.id)
        if t.kind == BTF_KIND_PTR:
            return Pointer(self.btf.pointer_size, name, self.btf.order)
        if t.kind not in _SIZED:
            raise t._error("it has no size")
        if t.size > 16 or t.kind in _ENUMS and t.size not in _STRUCT_CODES:
            raise t._error("its size can't be %d" % t.size)
        return self._number_of(t, name)

    def _char(self, type_id):
        """Return the Layout of a char that is an element, which makes its array text.

        None for any other type.
        """
        t = self.btf._resolve(type_id)
        if t.kind != BTF_KIND_INT or t.size != 1:
            return None
        encoding, int_offset, bits = _int_parts(t)
        if int_offset or bits != 8 or t.name != "char" and not encoding & _INT_CHAR:
            return None
        step = self.btf.type(type_id)  # up to a typedef, or the INT, which _resolve has reached
        while step.kind in _MODIFIERS and step.kind != BTF_KIND_TYPEDEF:
            step = self.btf.type(step.type_id)
        is_plain = step.kind == BTF_KIND_INT and (t.name == "char" or encoding == _INT_CHAR)
        name = self.btf.c_type(type_id)
        return Char(name, encoding, is_plain, encoding & _INT_SIGNED > 0)

    def _number_of(self, t, name):
        """Return the Layout of an enum, float or integer; Bytes for sizes that nothing reads."""
        order = self.btf.order
        if t.kind in _ENUMS:
            names = self.btf.enumerators(t)
            return Enum(t.size, name, names, order, self.btf._is_signed_enum(t))
        if t.kind == BTF_KIND_FLOAT:
            known = t.size in (2, 4, 8)
            return Float(t.size, name, order, True) if known else Bytes(t.size, name)
        encoding, int_offset, bits = _int_parts(t)
        if not t.size or int_offset:
            return Bytes(t.size, name)  # of no bits, or of some in the middle
        made = self._integer_of(t, name, encoding)
        is_short = 0 < bits < made.bits and not isinstance(made, Boolean)
        return made.bitfield(bits) if is_short else made

    def _integer_of(self, t, name, encoding):
        """Return the Layout of all bits of an INT, a bool among them."""
        if encoding & _INT_BOOL:
            return Boolean(t.size, name, self.btf.order)
        return Number(t.size, name, self.btf.order, bool(encoding & _INT_SIGNED), encoding)

    def _record(self, t, depth):
        """Return the Layout of a struct, union or data section."""
        if t.count > _MAX_ROWS:
            raise t._error("%d members: too large" % t.count)
        members = []
        for index, (name, type_id, offset, bits) in enumerate(self.btf._members(t)):
            inner = self._bitfield(type_id, bits) if bits else self._member(type_id, depth)
            self._prove_member(t, name, inner, offset, bits)
            label = name or "_"
            tags = self.btf.tags(t.id, index)
            members.append(
                Member(name, _with_meaning_of_tags(inner, tags), offset, bits, label, tags)
            )
        kinds = {BTF_KIND_UNION: "union", BTF_KIND_DATASEC: "section"}
        return Record(kinds.get(t.kind, "struct"), self.btf.c_type(t.id), t.size, members, t.name)

    def _member(self, type_id, depth):
        """Return the Layout of a member, one of no bytes for what has no size: void, a function."""
        t = self.btf._resolve(type_id)
        if t.kind in _SIZED or t.kind in (BTF_KIND_PTR, BTF_KIND_ARRAY, BTF_KIND_VAR):
            return self.layout(type_id, depth + 1)
        if t.kind and t.kind not in (BTF_KIND_FUNC, BTF_KIND_FUNC_PROTO):
            raise t._error("it has no size")
        return Bytes(0, self.btf.c_type(type_id))

    def _bitfield(self, type_id, bits):
        """Return the Layout of a bitfield, None if its type can't be one.

        The member says how many bits there are; of an INT only the encoding counts.
        """
        t = self.btf._resolve(type_id)
        name = self.btf.c_type(type_id)
        if t.kind == BTF_KIND_INT and t.size <= 16:
            made = self._integer_of(t, name, _int_parts(t)[0])
        elif t.kind in _ENUMS:
            made = self._number_of(t, name)
        else:
            return None
        return made.bitfield(bits) if bits <= made.bits else None

    def _prove_member(self, t, name, inner, offset, bits):
        """Raise BTFError unless a member, of Layout inner, lies inside of its record t."""
        if inner is None or offset and not bits and t.kind == BTF_KIND_UNION:
            raise t._error("member '%s' can't lie at bit %d of it" % (name, offset))
        if offset + (bits or 8 * inner.size) > 8 * t.size or not bits and offset % 8:
            raise t._error("member '%s' does not lie inside of it" % name)


# -- ELF files

# elf.h: ET_REL, SHN_XINDEX, SHT_SYMTAB, SHT_NOBITS, SHF_COMPRESSED, STB_LOCAL
_ELF_RELOCATABLE, _ELF_EXTENDED = 1, 0xFFFF
_ELF_SYMBOLS, _ELF_NOBITS, _ELF_COMPRESSED, _ELF_LOCAL = 2, 8, 0x800, 0


class _ELFSection:
    """A section header: its number, then the fields of Elf64_Shdr in their order, up to sh_link."""

    __slots__ = ("number", "name", "kind", "flags", "address", "offset", "size", "link")


class _ELFFile:
    """The sections and symbols of an ELF file of either class and byte order, maybe hostile.

    Nothing but the headers is read before it is asked for: a kernel module may be large.
    """

    def __init__(self, file, start=b""):
        if not file.seekable():
            import io

            file = io.BytesIO(start + file.read())
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        identity = self._read(0, 16, "header")
        self._mark, self._is_wide = ">" if identity[5] == 2 else "<", identity[4] == 2
        # e_type, e_machine, e_version; e_entry, e_phoff, e_shoff; e_flags; e_ehsize, e_phentsize,
        # e_phnum, e_shentsize, e_shnum, e_shstrndx
        header = struct.Struct(self._mark + ("2HI3QI6H" if self._is_wide else "2HI3II6H"))
        fields = header.unpack(self._read(16, header.size, "header"))
        self._is_relocatable, table_start = fields[0] == _ELF_RELOCATABLE, fields[5]
        entry_size, count, names_number = fields[10:]
        self._sections = list(self._section_headers(table_start, entry_size, count))
        if names_number == _ELF_EXTENDED and self._sections:
            names_number = self._sections[0].link
        names = self._bytes_of(names_number, "section names")
        self._by_name = {}
        for section in self._sections:
            section.name = _elf_name(names, section.name)
            self._by_name.setdefault(section.name, section)

    def _section_headers(self, start, entry_size, count):
        """Yield the _ELFSection of each section, where its name stands as .name."""
        entry = struct.Struct(self._mark + ("2I4QI" if self._is_wide else "7I"))
        if start and not count:  # it does not fit: the size of the first one tells
            count = entry.unpack(self._read(start, entry.size, "section headers"))[5]
        if count and entry_size < entry.size:
            raise BTFError("a broken ELF file: section headers of %d bytes" % entry_size)
        table = self._read(start, count * entry_size, "section headers")
        for number in range(count):
            section, fields = _ELFSection(), entry.unpack_from(table, number * entry_size)
            section.number = number
            for attribute, field in zip(_ELFSection.__slots__[1:], fields):
                setattr(section, attribute, field)
            yield section

    def _read(self, offset, size, what):
        """Return bytes of the file; raise BTFError, before memory is taken, if it is too short."""
        if offset + size > self._size:
            raise BTFError(
                "a broken ELF file: its %s would end at byte %d of %d"
                % (what, offset + size, self._size)
            )
        self._file.seek(offset)
        return self._file.read(size)

    def _bytes_of(self, number, what):
        """Return what a section holds, by its number; what is its name in errors."""
        if number >= len(self._sections):
            raise BTFError(
                "a broken ELF file: its %s are section %d of %d"
                % (what, number, len(self._sections))
            )
        section = self._sections[number]
        if section.kind == _ELF_NOBITS:
            return b""
        return self._read(section.offset, section.size, what)

    def section(self, name):
        """Return the _ELFSection of a name, of several the first; None where the file has none."""
        return self._by_name.get(name)

    def section_bytes(self, name):
        """Return what a section holds; BTFError where the file has none, or no bytes of it."""
        section = self.section(name)
        if section is None:
            raise BTFError("this ELF file has no section %s" % name)
        if section.kind == _ELF_NOBITS:
            raise BTFError("section %s of this ELF file holds no bytes (NOBITS)" % name)
        if section.flags & _ELF_COMPRESSED:
            raise BTFError("section %s of this ELF file is compressed" % name)
        return self._bytes_of(section.number, name)

    def symbols(self, wanted):
        """Return {(section number, is local, name): offset} of those wanted that are there once."""
        # Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value; Elf32_Sym has st_value and
        # st_size before st_info
        entry = struct.Struct(self._mark + ("I2BHQ8x" if self._is_wide else "3I2BH"))
        found, several = {}, set()
        tables = [section for section in self._sections if section.kind == _ELF_SYMBOLS]
        for table in tables[:1]:  # no file has two
            names = self._bytes_of(table.link, "symbol names")
            symbols = self._bytes_of(table.number, "symbols")
            for symbol in entry.iter_unpack(symbols[: len(symbols) - len(symbols) % entry.size]):
                if self._is_wide:
                    name_at, info, _, number, value = symbol
                else:
                    name_at, value, _, info, _, number = symbol
                key = number, info >> 4 == _ELF_LOCAL, _elf_name(names, name_at)
                if key in found:
                    several.add(key)
                elif key in wanted:
                    found[key] = value - self._start_of(number)
        return {key: offset for key, offset in found.items() if key not in several}

    def _start_of(self, number):
        """Return what the values of a section's symbols count from: its address, if it has one."""
        return 0 if self._is_relocatable else self._sections[number].address


def _elf_name(names, start):
    """Return the name that begins at start, "" where it is longer than any is."""
    end = names.find(b"\0", start, start + _MAX_NAME)
    return names[start:end].decode("utf-8", "backslashreplace") if end > 0 else ""


_VAR_STATIC = 0  # BTF_VAR_STATIC, the linkage of a VAR


def _with_placed_variables(btf, elf):
    """Return BTF whose data sections have sizes and offsets, as libbpf completes them to load it.

    clang leaves the size of each 0 and gcc the offsets too.  What the file has no section for
    (.ksyms, .kconfig) stays.
    """
    unplaced = _unplaced_sections(btf, elf)
    if not unplaced:
        return btf
    keys = set()
    for at, section in unplaced:
        for type_id, _, _ in _section_entries(btf._words, at):
            keys.add(_symbol_key(btf, type_id, section))
    symbols, words = elf.symbols(keys), btf._words[:]
    for at, section in unplaced:
        words[at + 2] = section.size
        entries = []
        for type_id, offset, size in _section_entries(words, at):
            place = symbols.get(_symbol_key(btf, type_id, section), offset)
            entries.append((place if 0 <= place < section.size else offset, type_id, size))
        for number, (offset, type_id, size) in enumerate(sorted(entries)):
            start = at + 3 + 3 * number
            words[start], words[start + 1], words[start + 2] = type_id, offset, size
    return btf._rewritten(words, btf._strings, btf.base)


def _unplaced_sections(btf, elf):
    """Return [(where the record is in words, _ELFSection)] of the data sections without a size."""
    words, unplaced = btf._words, []
    for at in btf._index():
        if _info_kind(words[at + 1]) == BTF_KIND_DATASEC and not words[at + 2]:
            section = elf.section(btf._string(words[at]))
            if section is not None and 0 < section.size <= 0xFFFFFFFF:
                unplaced.append((at, section))
    return unplaced


def _section_entries(words, at):
    """Return the (type id, offset, size) of the variables and functions of a data section."""
    start, end = at + 3, at + 3 + 3 * _info_vlen(words[at + 1])
    return zip(words[start:end:3], words[start + 1 : end : 3], words[start + 2 : end : 3])


def _symbol_key(btf, type_id, section):
    """Return the key of a variable's symbol in _ELFFile.symbols; statics have local ones."""
    try:
        variable = btf.type(type_id)
    except BTFError:
        return None
    if variable.kind != BTF_KIND_VAR:
        return None
    is_static = variable._words[variable._at + 3] == _VAR_STATIC
    return section.number, is_static, variable.name


# -- distilled bases


def _relocated(btf, base):
    """Return the BTF of a module, split from a distilled base, upon that of a kernel.

    A distilled base (.BTF.base, 6.11) has the names and sizes of those types of the kernel that the
    module uses, under ids of its own.  Each stands for one type of the kernel, found by
    _Counterparts.  Then all ids and names in the module's records are put right: what was the
    distilled base's becomes the counterpart, the module's own move to behind those of the kernel.
    The rules are those of btf_relocate in the kernel and libbpf; what does not fit is a BTFError.
    """
    distilled, embedded, counterparts = btf.base, _embedded_ids(btf), _Counterparts(base)
    first_id, first_string = btf._places_behind(base)
    ids = {t.id: counterparts.find(t, t.id in embedded) for t in distilled}
    ids[0] = 0
    names_start, own_names = len(distilled._strings), len(btf._strings)
    words = btf._words[:]
    for at in btf._index():
        for place, what in enumerate(_record_pattern(words, at), at):
            number = words[place]
            if what == "?":
                told = "type kind %d can't be moved to another base"
                raise BTFError(told % _info_kind(words[at + 1]))
            if what == "t" and number < btf._first_id:
                words[place] = ids[number]
            elif what == "t":
                words[place] = _moved(number - btf._first_id + first_id)
            elif what == "n" and number >= names_start:
                words[place] = _moved(number - names_start + first_string)
            elif what == "n" and number:  # a name of the distilled base: those go behind the others
                words[place] = _moved(number + own_names + first_string)
    return btf._rewritten(words, btf._strings + distilled._strings, base)


def _moved(number):
    """Return a new id or place of a name; raise BTFError if it has no room in a word."""
    if number > 0xFFFFFFFF:
        raise BTFError("%d, an id or the place of a name, can't be moved to another base" % number)
    return number


def _record_pattern(words, at):
    """Return a letter for each word of a record, as in _RECORD_WORDS."""
    info = words[at + 1]
    third, always, for_each = _RECORD_WORDS.get(_info_kind(info), ("?", "", ""))
    return "n-" + third + always + for_each * _info_vlen(info)


def _embedded_ids(btf):
    """Return the ids of the types that records of split BTF hold, not only point to: a counterpart
    of another size would move the members behind it.
    """
    found, seen = set(), set()
    for t in btf:
        if t.kind not in (BTF_KIND_STRUCT, BTF_KIND_UNION):
            continue
        for type_id in t._words[t._at + 4 : t._at + 3 + 3 * t.count : 3]:
            while type_id not in seen:
                seen.add(type_id)
                inner = btf.type(type_id)
                if inner.kind not in _MODIFIERS and inner.kind != BTF_KIND_ARRAY:
                    found.add(type_id)
                    break
                type_id = inner.type_id
    return found


# kind of a type of a distilled base -> what kinds of types it can stand for.  Enums of both kinds
# are ENUM there.
_COUNTERPART_KINDS = {
    BTF_KIND_INT: "int",
    BTF_KIND_FLOAT: "float",
    BTF_KIND_ENUM: "enum",
    BTF_KIND_ENUM64: "enum",
    BTF_KIND_STRUCT: "struct",
    BTF_KIND_UNION: "union",
}


def _counterpart_kind(t):
    """Return (what a type and its counterpart both are, the encoding word of an INT); None of what
    no distilled base has.
    """
    if t.kind == BTF_KIND_FWD:
        return ("union" if t.flag else "struct"), 0
    encoding = t._words[t._at + 3] if t.kind == BTF_KIND_INT else 0
    return (_COUNTERPART_KINDS[t.kind], encoding) if t.kind in _COUNTERPART_KINDS else None


class _Counterparts:
    """Finds the types of a base that those of a distilled one stand for.

    Each name is looked up once.
    """

    def __init__(self, base):
        self._base = base
        self._by_name = {}  # type: dict  # name -> {(counterpart kind, which): [BTFType]}

    def _types(self, name, kind, which):
        """Return the types of a name and counterpart kind.

        which      "whole", "declared" (forward, with no size), or a size
        """
        if name not in self._by_name:
            found = self._by_name[name] = {}
            for t in self._base._all_named(name):
                for one in ("declared" if t.kind == BTF_KIND_FWD else "whole", t.size):
                    found.setdefault((_counterpart_kind(t), one), []).append(t)
        return self._by_name[name].get((kind, which), [])

    def find(self, t, is_embedded):
        """Return the id of the one type that t can stand for; raise BTFError if there is not one.

        The size counts where the type is_embedded in a record of the module, where several have
        the name, and for numbers.
        """
        kind = _counterpart_kind(t)
        if kind is None or not t.name:
            raise t._error("nothing that a .BTF.base may have")
        whole = self._types(t.name, kind, "whole")
        fitting = whole or self._types(t.name, kind, "declared")
        by_size = is_embedded or len(whole) > 1 or kind[0] not in ("struct", "union")
        if by_size and t.size is not None:
            fitting = self._types(t.name, kind, t.size)
        if len(fitting) != 1:
            wanted = "" if t.size is None else " of %d bytes" % t.size
            raise BTFError(
                ".BTF.base: the base has %s '%s'%s: the module was not built for it"
                % ("several" if fitting else "no", t._label, wanted)
            )
        return fitting[0].id


# -- a caller's type beside BTF's
# When a map is opened (_checked_type in section 6), the class that the caller gave is compared with
# the type in the map's BTF.  Layout.differences (section 4) compares; here the message is made.


def _prove_agreement(mine, theirs, strict, what):
    """Raise LayoutError where a caller's layout and BTF's disagree, with both side by side and what
    to write.
    """
    found = list(mine.differences(theirs, strict))
    if not found:
        return
    left, right = mine.describe().split("\n"), theirs.describe().split("\n")
    right[0] += " in the map's BTF"
    wrong_row = max(_row_showing(table, found[0][0]) for table in (left, right))[1]
    width = max(map(len, left))
    rows = zip(left + [""] * (len(right) - len(left)), right + [""] * (len(left) - len(right)))
    table = []
    for number, (here, there) in enumerate(rows):
        mark = ">" if number == wrong_row else " "
        table.append("%s %-*s | %s" % (mark, width, here, there))
    wrong = "; ".join("%s %s" % pair if pair[0] else pair[1] for pair in found[:8])
    told = "%s: %s is not what the map's BTF says: %s" % (what, mine.name, wrong)
    raise LayoutError(told, *(table + _advice(theirs)))


def _advice(theirs):
    """Return lines with the class to write instead; none where it is long, or can't be one."""
    try:
        source = theirs.python_source()
    except LayoutError:
        return []
    _, _, classes = source.partition("\n")  # without the import
    lines = classes.lstrip().split("\n")
    return ["write instead"] + lines if len(lines) < 60 else []


def _row_showing(table, path):
    """Return (how many steps of a field's path, the number of the line) where a table of
    Layout.describe shows the field, or else what holds it.
    """
    best, names = (0, 0), []
    for number, line in enumerate(table[1:-1], 1):
        text = line[14:]  # behind the columns offset and size
        depth = (len(text) - len(text.lstrip())) // 2 - 1
        names[depth:] = [text.strip().split(":")[0]]
        rest = iter(names)  # `in` takes from it: the steps stand in names in their order
        known = [name for name in path.replace("[]", "").split(".") if name in rest]
        if known and known[-1] == names[-1] and len(known) > best[0]:
            best = len(known), number
    return best


# ---- 6. Map -----------------------------------------------------------------
# An open map and all that is done with it.  Map is put together from a chain of base classes, one
# idea each, so that each can be read by itself; nobody but Map uses them:
#     _OpenMap      what the map is, the types of its keys and values, its descriptor
#     _Converting   what callers give -> what the kernel reads, and back
#     _PerCPU       values that are one slot for each possible CPU
#     _Elements     lookup, update, delete ... of one element
#     _Keyless      queues, stacks, bloom filters
#     _Scanning     all entries: keys, values, items, lookup_batch (_BatchScan holds the cursor)
#     _Writing      update_batch, delete_batch
#     _Whole        freeze, pin, mmap, ring buffers
#     Map           the ways to open or create one
# Each class stands above the functions that it is the first to use.  MemoryMap follows _Whole;
# Records and all about ring buffers stand at the end.
#
# Threads share a map without a lock.  What is set when it is opened does not change; what is found
# out later (BTF, the number of CPUs) comes out the same whoever finds it, and the attribute that
# others test is set last.  A call takes a prepared _Call from a list, _idle_calls, and puts it back
# when it is done: no two calls ever use the same memory.
#
# Descriptors: section 3 tells how they are closed.  close() only forgets the _Fd; calls that are
# under way hold it, and finish on the same map.
#
# A new map type: what section 1 says about it.  A new command for one element: a method made by
# _element_command.  A new way to scan: _Scanning._parts decides among them.

# -- what the kernel tells of a map


class _UncapturedInfo:
    """The fields of MapInfo that captures do not hold, as they have MapInfo.__slots__ alone."""

    ifindex: "Optional[int]" = None
    netns_dev: "Optional[int]" = None
    netns_ino: "Optional[int]" = None
    hash: "Optional[str]" = None


class MapInfo(_UncapturedInfo):
    """What the kernel tells of a map, as in struct bpf_map_info.

    id, type (BPF_MAP_TYPE_*), name, key_size, value_size, max_entries, map_flags, map_extra, and
    the ids of its BTF: btf_id, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id,
    btf_vmlinux_id.

    None stands for what it does not tell.  These need more than Linux 4.18, or /proc:

    frozen, memlock (bytes)         from /proc
    owner_prog_type, owner_jited    of a prog_array, from /proc
    ifindex, netns_dev, netns_ino   of an offloaded map (4.16)
    hash                            the SHA-256 of a frozen array in hex (6.18)
    """

    __slots__ = (
        "id",
        "type",
        "name",
        "key_size",
        "value_size",
        "max_entries",
        "map_flags",
        "map_extra",
        "btf_id",
        "btf_key_type_id",
        "btf_value_type_id",
        "btf_vmlinux_value_type_id",
        "btf_vmlinux_id",
        "frozen",
        "memlock",
        "owner_prog_type",
        "owner_jited",
    )
    id: int
    type: int
    name: "Optional[str]"
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    map_extra: "Optional[int]"
    btf_id: "Optional[int]"
    btf_key_type_id: "Optional[int]"
    btf_value_type_id: "Optional[int]"
    btf_vmlinux_value_type_id: "Optional[int]"
    btf_vmlinux_id: "Optional[int]"
    frozen: "Optional[bool]"
    memlock: "Optional[int]"
    owner_prog_type: "Optional[int]"
    owner_jited: "Optional[bool]"
    _names = __slots__ + ("ifindex", "netns_dev", "netns_ino", "hash")
    _names_from_proc = ("frozen", "memlock", "owner_prog_type", "owner_jited")

    def __init__(self, fd, about):
        info = bpf_map_info()
        known_bytes = _info_by_fd(fd, info, about)
        for name in self._names:
            if name in self._names_from_proc or name == "hash":
                continue
            descriptor = getattr(bpf_map_info, name)
            is_told = descriptor.offset + descriptor.size <= known_bytes
            setattr(self, name, getattr(info, name) if is_told else None)
        if self.name is not None:  # the kernel's isalnum() lets Latin-1 letters in
            self.name = self.name.decode("latin-1")
        proc = _fdinfo(fd)
        self.frozen = proc["frozen"] == "1" if "frozen" in proc else None
        self.memlock = int(proc["memlock"]) if "memlock" in proc else None
        self.owner_prog_type = int(proc["owner_prog_type"]) if "owner_prog_type" in proc else None
        self.owner_jited = proc["owner_jited"] == "1" if "owner_jited" in proc else None
        if self.frozen and self.type == BPF_MAP_TYPE_ARRAY and known_bytes >= sizeof(info):
            self.hash = _array_hash(fd)

    def _asdict(self) -> "Dict[str, Any]":
        """Return {name: value} of all fields."""
        return {name: getattr(self, name) for name in self._names}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MapInfo):
            return NotImplemented
        return self._asdict() == other._asdict()

    def __hash__(self) -> int:
        return hash(tuple(self._asdict().values()))

    def __getstate__(self):
        return self._asdict()

    def __setstate__(self, state):
        for name, value in state.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return "MapInfo(%s)" % ", ".join("%s=%r" % pair for pair in self._asdict().items())

    @property
    def _about(self):
        """The map in words: "map 5 (hash 'flows')"."""
        name = " '%s'" % _printable(self.name) if self.name else ""
        return "map %s (%s%s)" % (self.id, map_type_name(self.type), name)


def _array_hash(fd):
    """Return the SHA-256 of a frozen array in hex, None where the kernel does not tell it."""
    digest, info = (u8 * 32)(), bpf_map_info()
    info.hash, info.hash_size = addressof(digest), sizeof(digest)
    attr = _info_attr(fd, info)
    size = _ATTR_SIZES[BPF_OBJ_GET_INFO_BY_FD]
    failed = _syscall(_nr_bpf, BPF_OBJ_GET_INFO_BY_FD, byref(attr), size)
    return None if failed else bytes(digest).hex()


# -- an open map: its state, its types, its descriptor


class _OpenMap(_Generic[_Key, _Value]):
    """The state of an open map: what it is, its types and its descriptor.

    Set when the map is opened, and not changed after that:

    _raw_key_type     the ctypes type of the memory of a key: key_type, or bytes as an array of u8
    _raw_value_type   the same for a value; of a per-CPU map for the value of one CPU
    _has_int_keys     whether keys are plain ints of this machine's byte order
    _key_class        keys of exactly this class go to the kernel without conversion; None: none do
    _new_key          makes memory for a key
    _out_type, _out_size, _new_out   what LOOKUP writes into, its size, what makes one; of a per-CPU
                      map the first two are None until the CPUs are counted, _new_out always
    _finish           turns what LOOKUP wrote into what callers get; None: it is that already
    _value_min, _value_max   ints between these are values without a further look
    _is_percpu, _about (the map in words), _given (the types as the caller gave them)

    Found out when first needed:

    _btf              the BTF; None: not asked for yet, False: not to be had, and _no_btf says why
    _types            {"key": type id, "value": type id} in it
    _has_batch        whether the kernel has LOOKUP_BATCH for this type of map; None: not asked yet

    _fd is the _Fd, None when the map is closed; _idle_calls are the _Calls that no call uses.
    """

    # The attributes that a lookup looks at are slots, which are found fastest.
    __slots__ = (
        "_key_class",
        "_out_type",
        "_out_size",
        "_idle_calls",
        "_new_out",
        "_finish",
        "_value_min",
        "_value_max",
        "key_size",
        "__dict__",
        "__weakref__",
    )
    order: str = sys.byteorder  # of the bytes of numbers; a capture's may be the other one
    id: int
    name: "Optional[str]"
    type: int
    flags: int
    key_size: int
    value_size: int
    max_entries: int
    key_type: "Any"
    value_type: "Any"
    _token: "Optional[_Descriptor]"

    @classmethod
    def _opened(cls, owner, about, key, value, strict, token=None, prove=False, keep=False):
        """Return the Map on owner, an _Fd.

        prove      the descriptor may be another object's than a map's: ask first
        keep       leave the descriptor open after a failure: it is still the caller's
        """
        opened = cls.__new__(cls)
        opened._fd, opened._token = owner, token
        try:
            if prove:
                _prove_map(owner.number, about)
            opened._adopt(MapInfo(owner.number, about), key, value, strict)
            return opened
        except BaseException:
            if keep:
                owner.release()
            opened._fd = owner = None  # a traceback must not keep the descriptor open
            raise

    def _adopt(self, info, key, value, strict):
        """Set what the map is, and the types, once they are found to fit it."""
        self.id, self.name, self.type, self.flags = info.id, info.name, info.type, info.map_flags
        self.key_size, self.value_size = info.key_size, info.value_size
        self.max_entries = info.max_entries
        self._about = info._about
        self._btf_info, self._btf, self._no_btf = info, None, ""
        self._given = {"key": key, "value": value}
        self._is_percpu = self.type in _PERCPU_TYPES
        messages = []  # about both types, not only the first that does not fit
        for what, given, size in (("key", key, info.key_size), ("value", value, info.value_size)):
            try:
                setattr(self, what + "_type", self._checked_type(given, size, what, strict))
            except LayoutError as failure:
                messages += failure.args
        if messages:
            raise LayoutError(*messages)
        self._prepare_keys(is_callers_type=key not in (None, BTF))
        self._prepare_values(is_callers_type=value not in (None, BTF))
        self._has_batch = None
        self._idle_calls = []  # pop and append of a list are atomic

    def _prepare_keys(self, is_callers_type):
        """Set the attributes that the element commands look at for keys."""
        ctype = self.key_type
        self._has_int_keys = _is_plain_int(ctype) and not _is_swapped(ctype)
        self._key_class = int if self._has_int_keys else ctype
        self._raw_key_type = ctype
        if ctype in (bytes, None):
            self._key_class, self._raw_key_type = None, u8 * self.key_size
        elif _is_char_array(ctype) or _is_array(ctype) and not is_callers_type:
            self._raw_key_type = _byte_array(ctype)
        self._new_key = _maker(self._raw_key_type)

    def _prepare_values(self, is_callers_type):
        """Set the attributes that the element commands look at for values."""
        ctype = self.value_type
        self._raw_value_type = u8 * self.value_size if ctype in (bytes, None) else ctype
        if _is_char_array(ctype) or _is_array(ctype) and not is_callers_type:
            self._raw_value_type = _byte_array(ctype)
        finish = None
        if ctype is bytes:
            finish = bytes
        elif _is_scalar(ctype):
            finish = _get_value
        self._value_min, self._value_max = 1, 0  # no int is between these
        self._out_type = self._new_out = self._out_size = None
        self._percpu_types = {}  # number of slots -> array type
        if self._is_percpu:
            copy = _copier(self._raw_value_type)
            self._finish = partial(_percpu_list, self._raw_value_type, copy, finish)
            return
        self._finish = finish
        self._out_type, self._out_size = self._raw_value_type, self.value_size
        self._new_out = _maker(self._raw_value_type)
        if _is_plain_int(ctype):
            self._value_min, self._value_max = _int_range(ctype)

    @property
    def btf(self) -> "Optional[BTF]":
        """The map's BTF; None where there is none, or no right to it.

        It takes CAP_SYS_ADMIN, or a token (6.15).
        """
        if self._btf is None:
            found = _map_btf(self._btf_info, self._token)
            self._types, self._no_btf, self._btf = found  # _btf last: threads look
        return self._btf or None

    @property
    def _btf_types(self):
        """{"key": type id, "value": type id} in the map's BTF, {} without BTF."""
        return self._types if self.btf else {}

    @property
    def key_layout(self) -> "Optional[Layout]":
        """The Layout of the keys; None where there are none."""
        return self._layout_of("key", self.key_type, self.key_size)

    @property
    def value_layout(self) -> "Optional[Layout]":
        """The Layout of the values, per CPU that of one CPU's; None where there are none."""
        return self._layout_of("value", self.value_type, self.value_size)

    def _layout_of(self, what, ctype, size):
        """Return the Layout of keys or values (what), None where there are none."""
        if ctype is None:
            return None
        if self._given[what] in (None, BTF):  # BTF knows more than the class that it makes
            return _found_layout(self, what, size, self._is_numeric(what))
        return Bytes(size) if ctype is bytes else layout(ctype)

    def _is_numeric(self, what):
        """Whether keys or values are numbers in this type of map, even where no BTF says so."""
        types = _INDEX_TYPES | _FD_KEY_TYPES if what == "key" else _NUMBER_VALUE_TYPES
        return self.type in types

    def _checked_type(self, ctype, size, what, strict):
        """Return the type of keys or values (what), None where the map has none.

        ctype is the caller's, which must fit; None or BTF: it comes from BTF.
        """
        about = "%s of %s" % (what, self._about)
        if ctype is None or ctype is BTF:
            return _default_type(self, what, size, self._is_numeric(what), ctype is BTF)
        if size == 0 and ctype is not bytes:
            raise LayoutError(
                "%s: the map has none, so that %s can't be its type" % (about, type_name(ctype))
            )
        check_layout(ctype, size, about)
        type_id = None if ctype is bytes else self._btf_types.get(what)
        if type_id and self.btf.sizeof(type_id) == size:
            _prove_agreement(layout(ctype), self.btf.layout(type_id), strict, about)
        return ctype if size else None

    def close(self) -> None:
        """Close the map: calls under way finish, later ones raise ValueError.  Twice is fine."""
        self._fd = None  # first, so that no new _Call is made of it
        # Calls under way put theirs back into the old list, which goes away with the last of them.
        self._idle_calls = []

    def __enter__(self) -> "Self":
        self._live()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._fd is None:
            return "<Map %s, closed>" % self._about[4:]
        return "<Map %s: key %s (%d bytes), value %s (%d bytes), %d entries at most>" % (
            self._about[4:],
            self.key_type and type_name(self.key_type),
            self.key_size,
            self.value_type and type_name(self.value_type),
            self.value_size,
            self.max_entries,
        )

    def __reduce__(self):
        raise TypeError("a Map cannot be pickled or copied: open it again")

    def _live(self):
        """Return the _Fd, which stays open as long as the caller holds it.

        raises     ValueError: the map is closed
        """
        owner = self._fd
        if owner is None:
            raise ValueError("this map is closed")
        return owner

    def fileno(self) -> int:
        """Return the descriptor's number; ValueError if the map is closed."""
        return self._live().number

    @property
    def fd(self) -> int:
        """The descriptor's number."""
        return self._live().number

    @property
    def info(self) -> "MapInfo":
        """A fresh MapInfo: what the kernel tells of the map now."""
        owner = self._live()
        try:
            return MapInfo(owner.number, self._about)
        finally:
            del owner

    def _error(self, cmd, code, key=None):
        """Return the error for an errno of a command; key, in any form, is what it was about."""
        detail = cls = None
        if code == errno.ENOENT and key is not None:
            key = self._key_for_error(key)
            detail = "no such key: %s" % _brief_key(key)
            if self.type in _INDEX_TYPES and isinstance(key, int) and key >= self.max_entries:
                cls = IndexNotFound
                detail = "no such index: %d, past the end (%d entries)" % (key, self.max_entries)
        owner = self._fd
        number = owner and owner.number
        error = _error(code, cmd, self._about, self.type, number, detail, cls=cls)
        if isinstance(error, KeyNotFound):
            error.key = key
        return error

    def _lack_error(self, cmd, what):
        """Return the NotSupported for what (in words) this type of map lacks."""
        return _error(ENOTSUPP, cmd, self._about, self.type, detail="this map has no %s" % what)


def _prove_map(fd, about):
    """Raise InvalidArgument unless the descriptor is a map's.

    It can't be left to BPF_OBJ_GET_INFO_BY_FD: that answers for programs and BTF too, and their
    info would be read as a map's.
    """
    try:
        kind = os.readlink("/proc/self/fd/%d" % fd)
    except OSError:
        kind = None
    if kind == "anon_inode:bpf-map" or kind is None and _answers_as_a_map(fd):
        return
    kinds = {
        "anon_inode:bpf-prog": "a BPF program",
        "anon_inode:btf": "a BTF object",
        "anon_inode:bpf_link": "a BPF link",
        None: "something else",
    }
    detail = "no BPF map but " + kinds.get(kind, str(kind))
    raise _error(errno.EINVAL, BPF_OBJ_GET_INFO_BY_FD, about, detail=detail)


def _answers_as_a_map(fd):
    """Whether a descriptor is a map's, where there is no /proc to tell.

    Element commands without a key are tried.  On what is no map each is EINVAL.  On a map, LOOKUP
    is another errno (EFAULT mostly), but for arenas, and there GET_NEXT_KEY is (EOPNOTSUPP).
    """
    attr = bpf_attr()
    attr.elem.map_fd = fd
    for cmd in (BPF_MAP_LOOKUP_ELEM, BPF_MAP_GET_NEXT_KEY):
        if _syscall(_nr_bpf, cmd, byref(attr), _ATTR_SIZES[cmd]) != errno.EINVAL:
            return True
    return False


def _default_type(source, what, size, numeric, demanded=False):
    """Return the type of keys or values whose type is not given; None where there are none.

    demanded: BTF must have it, so raise BTFError where it has not.
    """
    found = _layout_by_btf(source, what)
    if demanded and found is None:
        if what not in source._btf_types:
            words = (what, source._about, source._no_btf)
            raise BTFError("%s of %s has no BTF type: %s" % words)
        raise BTFError(source._no_btf)
    if size == 0:
        return None
    try:
        found = found or _found_layout(source, what, size, numeric)
        return bytes if isinstance(found, Bytes) else found.ctype()
    except LayoutError as failure:  # it can be read, but has no class
        if demanded:
            raise BTFError(*failure.args) from None
        source._no_btf = str(failure)
        return bytes


def _found_layout(source, what, size, numeric):
    """Return the Layout of keys or values whose type is not given: BTF's, a number, or bytes."""
    found = _layout_by_btf(source, what)
    if found is not None:
        return found
    if numeric and size in (4, 8):
        return Number(size, order=source.order)
    return Bytes(size)


def _layout_by_btf(source, what):
    """Return the Layout that BTF has of the keys or values (what) of a source: a map or a capture.

    None where there is none; then source._no_btf says why.
    """
    btf, type_id = source.btf, source._btf_types.get(what)
    size = source.info.key_size if what == "key" else source.info.value_size
    try:
        if not type_id:
            return None
        found = btf.layout(type_id)
        if found.size == size:
            found.reader("plain")
            return found
        words = (what, source._about, size, found.size)
        source._no_btf = "%s of %s has %d bytes, its BTF type %d" % words
    except (BTFError, LayoutError) as failure:
        source._no_btf = str(failure)
    return None


def _map_btf(info, token):
    """Return ({"key": type id, "value": type id}, reason, BTF) of a map.

    reason says why a type may be missing.  ({}, reason, False) where there is no BTF to be had.
    """
    key_id, value_id, btf_id = info.btf_key_type_id, info.btf_value_type_id, info.btf_id
    if info.btf_vmlinux_value_type_id:  # struct_ops: the type is in the BTF of kernel or module
        key_id, value_id, btf_id = 0, info.btf_vmlinux_value_type_id, info.btf_vmlinux_id
    types = {what: type_id for what, type_id in (("key", key_id), ("value", value_id)) if type_id}
    try:
        if not btf_id and not value_id:
            return {}, "the map has none", False
        btf = BTF.from_id(btf_id, token) if btf_id else BTF.from_vmlinux()
        return types, "its BTF has no type for it", btf
    except (SyscallError, BTFError, ImportError) as failure:  # a bare system lacks modules
        return {}, str(failure), False


class _ByteArray:
    """Base of the arrays that come out of a map: they compare, hash and print by their bytes."""

    def __eq__(self, other):
        is_bytes = isinstance(other, (bytes, ctypes.Array))
        return bytes(self) == bytes(other) if is_bytes else NotImplemented

    def __hash__(self):
        return hash(bytes(self))  # by what it holds now: when that changes it is another key

    def __repr__(self):
        shown = repr(bytes(self).rstrip(b"\0")) if self._type_ is ctypes.c_char else list(self)
        return "%s(%s)" % (type_name(type(self)), shown)


# length -> the class of char arrays that are _ByteArrays
_BYTE_ARRAYS = {}  # type: dict


def _byte_array(ctype):
    """Return the _ByteArray class of an array type; of char arrays there is one for each length."""
    if ctype._type_ is not ctypes.c_char:
        return type(ctype.__name__, (_ByteArray, ctype), {})
    if ctype._length_ not in _BYTE_ARRAYS:
        made = type(ctype.__name__, (_ByteArray, ctypes.c_char * ctype._length_), {})
        _BYTE_ARRAYS.setdefault(ctype._length_, made)
    return _BYTE_ARRAYS[ctype._length_]


def _is_char_array(ctype):
    return _is_array(ctype) and ctype._type_ is ctypes.c_char


def _brief_key(key):
    """Return a key in few characters, for a message."""
    is_raw = isinstance(key, (bytes, bytearray, memoryview))
    try:
        text = bytes(key).hex() if is_raw else repr(to_python(key))
    except LayoutError:  # the class has a _union_ without a branch for it
        text = bytes(key).hex()
    return text if len(text) <= 200 else text[:200] + "..."


# -- from what callers give to what the kernel gets, and back


class _Converting(_OpenMap[_Key, _Value]):
    """Keys and values: from what callers give to what the kernel reads and writes, and back.

    Names that end in _in go to the kernel, those that end in _out come from it.  _value_in,
    _out_buffer and _nothing_in are what an element command does about its value: all are called
    with (key, the value or out that the caller gave, flags), by _take_the_long_way.
    """

    def _require_keys(self, cmd):
        """Raise ValueError if the map is closed, NotSupported if it has no keys."""
        self._live()
        if self.key_type is not None:
            return
        what = "keys and values"
        if self.value_size:
            is_bloom = self.type == BPF_MAP_TYPE_BLOOM_FILTER
            use = "asked for with in" if is_bloom else "peeked at and popped"
            what = "keys; values are pushed, " + use
        raise self._lack_error(cmd, what)

    def _key_in(self, key, cmd=BPF_MAP_LOOKUP_ELEM):
        """Return key as an int within bounds (int keys) or a ctypes object of key_size bytes."""
        self._require_keys(cmd)
        if self.type in _FD_KEY_TYPES:
            key = _descriptor_in(key)
        obj = _converted(self.key_type, self.key_size, key, "key of " + self._about)
        return _get_value(obj) if self._has_int_keys else obj

    def _key_out(self, obj):
        """Return a key that the kernel wrote in the form that callers get."""
        if self.key_type is bytes:
            return bytes(obj)
        return _get_value(obj) if _is_scalar(self.key_type) else obj

    def _key_for_error(self, key):
        """Return a key, in any form that callers give, in the form that an error holds."""
        if not isinstance(key, _CDATA):
            try:
                key = self._key_in(key)
            except (BPFError, ValueError):  # since the call the map was closed, or the key changed
                pass
        return self._key_out(key) if isinstance(key, _CDATA) else key

    def _value_in(self, key, value, flags=0):
        """Return a ctypes object with the value, for UPDATE to read."""
        if self.type in _FD_VALUE_TYPES:
            value = _descriptor_in(value)
        if self._is_percpu and not self._flagged_type(flags):
            return self._slots_in(key, value)
        return _converted(self.value_type, self.value_size, value, "value of " + self._about)

    def _out_buffer(self, key, out, flags=0):
        """Return a ctypes object over out, memory of the caller's, where a lookup of key may write.

        None if there is no such key.
        """
        out_type = self._flagged_type(flags) or self._out_type_for(key)
        if out_type is None:
            return None
        if type(out) is out_type and sizeof(out) >= sizeof(out_type):
            return out
        return self._over_memory(out, out_type)

    def _nothing_in(self, key, value, flags=0):
        """Return an object for a command that moves no value."""
        return _ZERO

    def _over_memory(self, out, out_type):
        """Return a ctypes object over writable memory of the caller's, of out_type's size.

        LayoutError for anything else.
        """
        size = sizeof(out_type)
        try:
            element = out._type_ if isinstance(out, ctypes.Array) else None
            is_own = element is not None and (sizeof(element) == 1 or element is self.value_type)
            foreign = isinstance(out, _CDATA) and not (is_own or self.value_type is bytes)
            view = memoryview(out).cast("B")
            if foreign or view.nbytes != size:
                raise TypeError("%s of %d bytes" % (type(out).__name__, view.nbytes))
            return (u8 * size).from_buffer(view)
        except (TypeError, ValueError) as failure:  # no buffer, read-only, not contiguous
            raise LayoutError(
                "out must be %s or a writable buffer of %d bytes: %s"
                % (type_name(out_type), size, failure)
            ) from None


def _converted(ctype, size, given, what):
    """Do what _to_ctype does, and take a str for a char array: as UTF-8, filled up with NULs."""
    if isinstance(given, str) and _is_char_array(ctype):
        try:
            raw = given.encode("utf-8")
        except UnicodeEncodeError as failure:
            raise LayoutError("%s: %s" % (what, failure)) from None
        if len(raw) > size:
            raise LayoutError(
                "%s is %s, which %d bytes of text do not fit into"
                % (what, type_name(ctype), len(raw))
            )
        given = raw.ljust(size, b"\0")
    return _to_ctype(ctype, size, given, what)


def _descriptor_in(given):
    """Return the number of a descriptor, given as an object with fileno() or as a ctypes int.

    Anything else is returned as it is.
    """
    if hasattr(given, "fileno"):
        return given.fileno()
    return _get_value(given) if _is_plain_int(type(given)) else given


def _flag_bits(flags):
    """Return flags as an int of 64 bits; LayoutError for what is none."""
    if type(flags) is int and 0 <= flags < 1 << 64:
        return flags
    return _integer(flags, 0, (1 << 64) - 1, "flags")


# -- per-CPU values


class _PerCPU(_Converting[_Key, _Value]):
    """Values of per-CPU maps: a slot for every possible CPU, whose number is proved first.

    The kernel tells the number when a map is created (_count_cpus_by_lru); who may not do that
    finds it by a lookup into a very large buffer, which takes a key that is there.
    """

    def percpu_type(self) -> "Type[ctypes.Array[Any]]":
        """Return the ctypes array type of a per-CPU value: a slot, .value, for each possible CPU.

        raises     NotSupported: the map is not per-CPU, SyscallError
        """
        if not self._is_percpu:
            raise self._lack_error(BPF_MAP_LOOKUP_ELEM, "value per CPU")
        return self._out_type or self._slots(len(possible_cpus()))

    def _slots(self, count):
        """Return the array type of count slots of percpu_stride bytes."""
        if count not in self._percpu_types:
            padding = percpu_stride(self.value_size) - self.value_size
            fields = [("value", self._raw_value_type)]
            if padding:
                fields.append(("_pad", u8 * padding))
            slot = type("slot", (ctypes.Structure,), {"_fields_": fields})
            self._percpu_types.setdefault(count, slot * count)
        return self._percpu_types[count]

    def _flagged_type(self, flags):
        """Return the type of a value if flags select a single one of a per-CPU map, else None."""
        selects = self._is_percpu and flags & (BPF_F_CPU | BPF_F_ALL_CPUS)
        return self._raw_value_type if selects else None

    def _prove_percpu_type(self, key):
        """Count the CPUs, if that is still to do; set _out_type and return it.

        raises     KeyNotFound: a lookup was to tell, and there is no such key
        """
        if _proven_cpus is None:
            try:
                count = _count_cpus_by_lru()
            except SyscallError:
                count = self._count_cpus_by_lookup(key)
            _prove_cpus(count)
        out_type = self._slots(len(_proven_cpus))
        self._out_size = sizeof(out_type)
        self._out_type = out_type  # last: threads look
        return out_type

    def _out_type_for(self, key):
        """Return the type that LOOKUP writes into; None if key was to tell and is not there."""
        try:
            return self._out_type or self._prove_percpu_type(key)
        except KeyNotFound:
            return None

    def _new_percpu_out(self, key, flags):
        """Do for a per-CPU map what _new_out does for others; None if there is no such key."""
        flags = _flag_bits(flags)
        one_type = self._flagged_type(flags)
        if one_type:
            return _maker(one_type)()
        out_type = self._out_type or self._out_type_for(self._key_in(key))
        return None if out_type is None else out_type()

    def _count_cpus_by_lookup(self, key):
        """Look key up into memory for _MAX_CPUS slots; return how many of them the kernel wrote.

        raises     KeyNotFound: nothing is learnt then
        """
        import mmap

        stride, private = percpu_stride(self.value_size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            room = mmap.mmap(-1, stride * _MAX_CPUS, private)
        except OSError as failure:
            raise _error(failure.errno, "mmap", self._about) from None
        with room as memory:
            mark = os.urandom(8)  # no value begins like it
            for offset in range(0, len(memory), stride):
                memory[offset : offset + 8] = mark
            first_byte = u8.from_buffer(memory)
            try:
                code = self._element(BPF_MAP_LOOKUP_ELEM, key, first_byte)
            finally:
                del first_byte  # or the memory could not be unmapped
            if code:
                raise self._error(BPF_MAP_LOOKUP_ELEM, code, key)
            count = 0
            while count < _MAX_CPUS and memory[count * stride : count * stride + 8] != mark:
                count += 1
            return count

    def _slots_in(self, key, value):
        """Return slots for UPDATE to read.

        value is one for all CPUs, a list of one for each, or all the slots as an array or as bytes.
        """
        try:
            slots = (self._out_type or self._prove_percpu_type(key))()
            cpus = len(slots)
        except SyscallError:  # nothing to count by: believe /sys, but have slots for any number
            slots, cpus = self._slots(_MAX_CPUS)(), len(_sysfs_cpus())
        stride = sizeof(slots._type_)
        is_whole = type(value) is self._percpu_types.get(cpus)
        if cpus and (is_whole or isinstance(value, (bytes, bytearray, memoryview))):
            raw = memoryview(value).tobytes()  # a copy: nobody can resize what is measured here
            if len(raw) == cpus * stride:
                ctypes.memmove(slots, raw, len(raw))
                return slots
        for index, one in enumerate(self._listed_values(value, cpus, len(slots))):
            obj = _converted(self.value_type, self.value_size, one, "value of " + self._about)
            ctypes.memmove(addressof(slots) + index * stride, addressof(obj), self.value_size)
        return slots

    def _listed_values(self, value, cpus, slot_count):
        """Return a tuple of the values for the CPUs; what is no list or tuple goes to all slots."""
        if not isinstance(value, (list, tuple)):
            return (value,) * slot_count
        values = tuple(value)  # a copy: the __index__ of a value could change the list
        if len(values) != cpus or not cpus:
            raise LayoutError(
                "value of %s takes one value, or one for each of %s possible CPUs, not %d"
                % (self._about, cpus or "the unknown number of", len(values))
            )
        return values


def _percpu_list(one_type, copy, finish, out):
    """Return the list of the values in a per-CPU value, or the one value that flags selected."""
    if type(out) is one_type:
        return finish(out) if finish else out
    raw, stride = bytes(out), sizeof(out._type_)
    values = [copy(raw, offset) for offset in range(0, len(raw), stride)]
    return [finish(value) for value in values] if finish else values


# -- commands for one element
#
# An element command is a method (key, out, flags=0), where out is the memory that the kernel writes
# to, or reads from for UPDATE.  It returns False if there is no such key.
#
# There are two ways through it.  The short way is for calls that need no conversion: a key of
# exactly the class _key_class, an out of exactly _out_type, no flags.  Everything else takes the
# long way (_take_the_long_way), which converts first.  That an object has the right class proves
# nothing about its memory, as __class__ can be assigned: sizes are asked too.
def _element_command(cmd, convert, moves_value=True):
    """Return the method that runs cmd.

    convert is the name of the method by which the long way converts out.
    """
    size, absent = _ATTR_SIZES[cmd], errno.ENOENT

    def command(self: "Any", key: "Any", out: "Any", flags: int = 0) -> bool:
        if (
            type(key) is not self._key_class
            or flags != 0
            or (moves_value and (type(out) is not self._out_type or sizeof(out) < self._out_size))
        ):
            return self._take_the_long_way(cmd, convert, key, out, flags)
        # The list in a local: close() puts another in its place, and a call that was begun before
        # must not return to that one, where it would keep the descriptor of a closed map open.
        idle = self._idle_calls
        try:
            call = idle.pop()
        except IndexError:
            call = self._new_call()
        cell = call.cell
        try:
            if cell is not None:
                cell[0] = key
            elif sizeof(key) >= self.key_size:
                call.key.value = addressof(key)
            else:
                call = None
        except ValueError:  # an int out of range
            call = None
        if call is None:  # let go of first: it holds the descriptor, and the long way may raise
            return self._take_the_long_way(cmd, convert, key, out, flags)
        call.value.value = addressof(out)
        code = _syscall(_nr_bpf, cmd, call.ref, size)
        idle.append(call)
        if not code:
            return True
        if code == absent:
            return False
        call = idle = None  # a traceback must not keep the descriptor open
        raise self._error(cmd, code, key)

    return command


def _public(command, name, doc):
    """Return a method made by _element_command with the name and docstring that users see."""
    command.__name__, command.__qualname__, command.__doc__ = name, "Map." + name, doc
    return command


class _Elements(_PerCPU[_Key, _Value]):
    """The commands for one element, and the methods of a mapping that are made of them.

    lookup, get, in and the others begin with the same line, which makes memory for the value, and
    end with the same condition about _finish: a function call less in what is called most.
    """

    def _new_call(self):
        """Return a new _Call, for when none is idle."""
        return _Call(self._live(), self.key_type, self._has_int_keys)

    def _take_the_long_way(self, cmd, convert, key, out, flags):
        """Run an element command on what has to be converted first.

        Return False if there is no such key.
        """
        flags = _flag_bits(flags)  # before out is looked at, as an __index__ could resize it
        key = self._key_in(key, cmd)
        obj = getattr(self, convert)(key, out, flags)
        if obj is None:
            return False
        code = self._element(cmd, key, obj, flags)
        if code not in (0, errno.ENOENT):
            raise self._error(cmd, code, key)
        return code == 0

    def _element(self, cmd, key, value, flags=0):
        """Run an element command on what is converted and checked; return 0 or the errno.

        key        for int keys an int within bounds, else a ctypes object of key_size bytes; None
                   is passed as NULL
        value      a ctypes object that is as large as the kernel takes it to be
        flags      as _flag_bits returns them
        """
        idle = self._idle_calls  # as in command: the call goes back to this list
        try:
            # With int keys attr.key always points to the cell: NULL needs a call of its own.
            call = self._new_call() if key is None else idle.pop()
        except IndexError:
            call = self._new_call()
        if type(key) is int:
            call.cell[0] = key
        else:
            call.key.value = 0 if key is None else addressof(key)
        call.value.value, call.flags.value = addressof(value), flags
        code = _syscall(_nr_bpf, cmd, call.ref, _ATTR_SIZES[cmd])
        call.flags.value = 0  # the short way counts on it
        if key is not None:
            idle.append(call)
        return code

    if TYPE_CHECKING:

        def lookup_into(self, key: "_GivenKey", out: "Buffer", flags: int = 0) -> bool: ...

    else:
        lookup_into = _public(
            _element_command(BPF_MAP_LOOKUP_ELEM, "_out_buffer"),
            "lookup_into",
            """Write the value under key into out; return whether there is one, else out stays.

            key        as of lookup
            out        a value_type, for per-CPU maps a percpu_type(), an array of one value_type or
                       of bytes, or any other writable buffer of exactly that many bytes, which
                       must not be moved (ctypes.resize) meanwhile
            flags      as of lookup
            raises     LayoutError, NotSupported, SyscallError
            kernel     BPF_MAP_LOOKUP_ELEM, 3.18
            """,
        )
    _take_into = _element_command(BPF_MAP_LOOKUP_AND_DELETE_ELEM, "_out_buffer")
    _store = _element_command(BPF_MAP_UPDATE_ELEM, "_value_in")
    _remove = _element_command(BPF_MAP_DELETE_ELEM, "_nothing_in", moves_value=False)

    @overload
    def lookup(self: "_NumberValues[_Number]", key: "_GivenKey", flags: int = 0) -> "_Number": ...
    @overload
    def lookup(self, key: "_GivenKey", flags: int = 0) -> "_Value": ...
    def lookup(self, key: "_GivenKey", flags: int = 0) -> "Any":
        """Return the value stored under key.

        key        an instance of key_type, an int for integer keys, text for arrays of char, or
                   exactly key_size bytes; of the storages of sockets, tasks, inodes and cgroups a
                   descriptor, or an object with fileno()
        flags      BPF_F_LOCK: under the value's bpf_spin_lock; BPF_F_CPU | cpu << 32: of a
                   per-CPU map the value of that CPU alone
        returns    a new value_type; a number for scalars; of a per-CPU map a list, one for each
                   of possible_cpus()
        raises     KeyNotFound, LayoutError, NotSupported, SyscallError
        kernel     BPF_MAP_LOOKUP_ELEM, 3.18; BPF_F_LOCK 5.1, BPF_F_CPU 7.0
        """
        out = self._new_out() if self._new_out else self._new_percpu_out(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            raise self._error(BPF_MAP_LOOKUP_ELEM, errno.ENOENT, key)
        return out if self._finish is None else self._finish(out)

    __getitem__ = lookup

    @overload
    def get(
        self: "_NumberValues[_Number]",
        key: "_GivenKey",
        default: None = None,
        flags: int = 0,
    ) -> "Optional[_Number]": ...
    @overload
    def get(
        self: "_NumberValues[_Number]", key: "_GivenKey", default: "_Default", flags: int = 0
    ) -> "Union[_Number, _Default]": ...
    @overload
    def get(self, key: "_GivenKey", default: None = None, flags: int = 0) -> "Optional[_Value]": ...
    @overload
    def get(
        self, key: "_GivenKey", default: "_Default", flags: int = 0
    ) -> "Union[_Value, _Default]": ...
    def get(self, key: "_GivenKey", default: "Any" = None, flags: int = 0) -> "Any":
        """Return the value under key, or default if there is none.

        Else as lookup.
        """
        out = self._new_out() if self._new_out else self._new_percpu_out(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            return default
        return out if self._finish is None else self._finish(out)

    def __contains__(self, key: "Any") -> bool:
        """Return whether the map has the key, a bloom filter (as far as it can tell) the value.

        raises     LayoutError, SyscallError, NotSupported: queues and stacks
        kernel     BPF_MAP_LOOKUP_ELEM, 3.18
        """
        if self._key_class is None and self.type == BPF_MAP_TYPE_BLOOM_FILTER:
            return self._bloom_has(key)  # type: ignore[attr-defined]  # of _Keyless
        out = self._new_out() if self._new_out else self._new_percpu_out(key, 0)
        return out is not None and self.lookup_into(key, out)

    def lookup_bytes(self, key: "_GivenKey", flags: int = 0) -> bytes:
        """Return the value under key as bytes.

        returns    value_size bytes; of a per-CPU map the slots of all CPUs,
                   percpu_stride(value_size) bytes each

        Else as lookup.
        """
        out = self._new_out() if self._new_out else self._new_percpu_out(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            raise self._error(BPF_MAP_LOOKUP_ELEM, errno.ENOENT, key)
        return memoryview(out).tobytes()  # not what the class's __bytes__ says

    @overload
    def lookup_and_delete(
        self: "_NumberValues[_Number]", key: "_GivenKey", flags: int = 0
    ) -> "_Number": ...
    @overload
    def lookup_and_delete(self, key: "_GivenKey", flags: int = 0) -> "_Value": ...
    def lookup_and_delete(self, key: "_GivenKey", flags: int = 0) -> "Any":
        """Remove key and return its value, in one step.

        raises     KeyNotFound, LayoutError, PermissionDenied, SyscallError, NotSupported: type or
                   kernel has no such command
        kernel     BPF_MAP_LOOKUP_AND_DELETE_ELEM, 5.14 for hashes

        Else as lookup.
        """
        out = self._new_out() if self._new_out else self._new_percpu_out(key, flags)
        if out is None or not self._take_into(key, out, flags):
            raise self._error(BPF_MAP_LOOKUP_AND_DELETE_ELEM, errno.ENOENT, key)
        return out if self._finish is None else self._finish(out)

    def update(self, key: "_GivenKey", value: "_GivenValue", flags: int = BPF_ANY) -> None:
        """Store value under key.

        key        as of lookup
        value      a value_type, a number for scalars, text for arrays of char, or exactly
                   value_size bytes; of a per-CPU map a list of those, one for each of
                   possible_cpus(), or one for all; of a map that holds maps, programs, sockets or
                   cgroups a Map, a descriptor, or an object with fileno()
        flags      BPF_ANY, BPF_NOEXIST: create only, BPF_EXIST: replace only, BPF_F_LOCK: under
                   the value's bpf_spin_lock; of a per-CPU map BPF_F_CPU | cpu << 32: one CPU's
                   value, BPF_F_ALL_CPUS: one for all
        raises     KeyExists, KeyNotFound, KeyOutOfRange, MapFull, LayoutError, PermissionDenied,
                   SyscallError
        kernel     BPF_MAP_UPDATE_ELEM, 3.18; BPF_F_LOCK 5.1, BPF_F_CPU and BPF_F_ALL_CPUS 7.0
        """
        if type(value) is int and self._value_min <= value <= self._value_max:
            value = self.value_type(value)
        if not self._store(key, value, flags):
            raise self._error(BPF_MAP_UPDATE_ELEM, errno.ENOENT, key)

    __setitem__ = update

    def delete(self, key: "_GivenKey") -> None:
        """Remove key.

        raises     KeyNotFound, LayoutError, PermissionDenied, SyscallError, NotSupported: arrays
        kernel     BPF_MAP_DELETE_ELEM, 3.18
        """
        if not self._remove(key, _ZERO):
            raise self._error(BPF_MAP_DELETE_ELEM, errno.ENOENT, key)

    __delitem__ = delete

    @overload
    def next_key(
        self: "_NumberKeys[_KeyNumber]", key: "Optional[_GivenKey]" = None
    ) -> "Optional[_KeyNumber]": ...
    @overload
    def next_key(self, key: "Optional[_GivenKey]" = None) -> "Optional[_Key]": ...
    def next_key(self, key: "Optional[_GivenKey]" = None) -> "Any":
        """Return the key after key, None after the last.

        key        as of lookup; None: the first key (4.12).  A hash that no longer has key starts
                   over at its first one; an index is next whether it is set or not
        raises     LayoutError, SyscallError, NotSupported: queues, storages, ring buffers
        kernel     BPF_MAP_GET_NEXT_KEY, 3.18
        """
        following = self._next(None if key is None else self._key_in(key, BPF_MAP_GET_NEXT_KEY))
        return None if following is None else self._key_out(following)

    def _next(self, key):
        """Do what next_key does, from and to what the kernel gets (see _element)."""
        self._require_keys(BPF_MAP_GET_NEXT_KEY)
        following = self._new_key()
        code = self._element(BPF_MAP_GET_NEXT_KEY, key, following)
        if code == errno.ENOENT:
            return None
        if code:
            raise self._error(BPF_MAP_GET_NEXT_KEY, code)
        return following

    def _present(self, raw, flags=0):
        """Look up a key given as bytes; return what LOOKUP wrote, None if there is no such key."""
        out = self._new_out() if self._new_out else self._new_percpu_out(raw, flags)
        return out if out is not None and self.lookup_into(raw, out, flags) else None

    def _finished(self, out):
        """Return what LOOKUP wrote in the form that callers get."""
        return out if self._finish is None else self._finish(out)


class _Call:
    """A prepared bpf_attr for an element command, used by one call at a time.

    key, value and flags are the fields of attr, as objects that can be set faster than a field.
    For int keys, cell is a memoryview of the memory that attr's key points to: to store a key there
    is fast, and refuses what is no int or out of range.  For other keys it is None.
    """

    __slots__ = ("fd", "attr", "ref", "key", "value", "flags", "cell")

    def __init__(self, fd, key_type, has_int_keys):
        self.fd = fd  # keeps the descriptor open, whatever close() does meanwhile
        self.attr = attr = bpf_attr()
        self.ref = byref(attr)
        self.key = u64.from_buffer(attr, bpf_attr_elem.key.offset)
        self.value = u64.from_buffer(attr, bpf_attr_elem.value.offset)
        self.flags = u64.from_buffer(attr, bpf_attr_elem.flags.offset)
        attr.elem.map_fd = fd.number
        self.cell = None
        if has_int_keys:
            cell = key_type()
            self.key.value = addressof(cell)
            self.cell = memoryview(cell).cast("B").cast(key_type._type_)


# -- queues, stacks, bloom filters

# what a map with keys is said to lack when a value is pushed or popped
_NO_QUEUE = "queue: its values have keys (push, peek and pop are for queues and stacks)"


class _Keyless(_Elements[_Key, _Value]):
    """Queues, stacks, bloom filters: values without keys."""

    def push(self, value: "_GivenValue", flags: int = 0) -> None:
        """Add value to a queue, a stack or a bloom filter.

        value      as of update
        flags      BPF_EXIST: a full queue or stack drops its oldest
        raises     MapFull, LayoutError, NotSupported, PermissionDenied, SyscallError
        kernel     BPF_MAP_UPDATE_ELEM, 4.20; bloom filters 5.16
        """
        flags = _flag_bits(flags)
        if self.key_type is not None:
            raise self._lack_error(BPF_MAP_UPDATE_ELEM, _NO_QUEUE)
        obj = self._value_in(None, value) if self.value_size else self._new_out()
        code = self._element(BPF_MAP_UPDATE_ELEM, None, obj, flags)
        if code:
            raise self._keyless_error(BPF_MAP_UPDATE_ELEM, code)

    @overload
    def peek(self: "_NumberValues[_Number]") -> "_Number": ...
    @overload
    def peek(self) -> "_Value": ...
    def peek(self) -> "Any":
        """Return the value that pop would, and leave it.

        raises     KeyNotFound: there is none, NotSupported, SyscallError
        kernel     BPF_MAP_LOOKUP_ELEM, 4.20
        """
        return self._read_next_value(BPF_MAP_LOOKUP_ELEM)

    @overload
    def pop(self: "_NumberValues[_Number]") -> "_Number": ...
    @overload
    def pop(self) -> "_Value": ...
    def pop(self) -> "Any":
        """Remove and return the oldest value of a queue, the newest of a stack.

        raises     KeyNotFound: there is none, NotSupported, PermissionDenied, SyscallError
        kernel     BPF_MAP_LOOKUP_AND_DELETE_ELEM, 4.20
        """
        return self._read_next_value(BPF_MAP_LOOKUP_AND_DELETE_ELEM)

    def _read_next_value(self, cmd):
        """Peek at or pop the next value."""
        if self.key_type is not None:
            raise self._lack_error(cmd, _NO_QUEUE)
        if self.type == BPF_MAP_TYPE_BLOOM_FILTER:  # its LOOKUP reads the value, to look for it
            raise self._lack_error(cmd, "values to read")
        out = self._new_out()
        code = self._element(cmd, None, out)
        if code:
            raise self._keyless_error(cmd, code)
        return self._finished(out)

    def _keyless_error(self, cmd, code):
        """Return the error for an errno, in which ENOENT says that the map is empty."""
        error = self._error(cmd, code)
        if code == errno.ENOENT:
            error.args = code, "%s on %s: the map is empty (ENOENT)" % (error.cmd, self._about)
        return error

    def _bloom_has(self, value):
        """Whether a bloom filter has a value, as far as those can tell."""
        code = self._element(BPF_MAP_LOOKUP_ELEM, None, self._value_in(None, value))
        if code not in (0, errno.ENOENT):
            raise self._error(BPF_MAP_LOOKUP_ELEM, code)
        return code == 0


# -- scans: keys, values, items, lookup_batch, lookup_and_delete_batch
#
# Exact scans.  LOOKUP_BATCH of a hash reads whole buckets, each under its lock.  Its cursor is the
# number of the next bucket, and an entry never changes its bucket: what is there from start to end
# is seen exactly once, whatever others insert, update or delete.  The indices of arrays do not move
# at all.  Where a scan can't be exact to its end, it raises IterationAborted.
#
# All other scans go from key to key, and can't be exact.  Their cursor is a key: when it is deleted
# the kernel starts again at the first one, and an update moves an entry within its bucket.  They
# remember the keys they have seen, so nothing comes twice, and give up after so many steps
# (_WALK_ROUNDS) that they end.  exact_scan tells which it will be.
#
# _parts decides how a map is scanned, and yields (keys, values), two arrays:
#     _BatchScan       hashes and arrays, where the kernel has LOOKUP_BATCH (5.6)
#     _trie_parts      the same for LPM tries, whose batches are walks in the kernel
#     _index_parts     maps with indices, without batches: one lookup for each index
#     _walked_parts    everything else: _walk_keys
# keys, values and items (_scan) take the entries out of the parts; where a map must be walked, they
# get them from _walk_keys directly.  lookup_and_delete_batch is always a _BatchScan.

# Deletions send a walk back to its start.  It may take as many steps as this many walks through a
# full map, and some more for the sake of small maps.  The numbers have no other reason than that a
# walk has to end.
_WALK_ROUNDS, _WALK_SPARE_STEPS = 20, 1000


class _Scanning(_Keyless[_Key, _Value]):
    """All the entries: by batch commands where the kernel has them, else key by key."""

    @property
    def exact_scan(self) -> bool:
        """Whether a scan yields every entry that is there from start to end once, come what may.

        True over the batch commands of hashes (5.6) and for arrays.  False where a walk is all
        there is (LPM tries, RHASH, DEVMAP_HASH, SOCKHASH, hashes before 5.6): an update moves an
        entry in its bucket, and a walk may miss it meanwhile.

        raises     ValueError: closed, SyscallError
        """
        return self.type in _INDEX_TYPES or self.type in _BATCH_TYPES and self._can_batch()

    def _can_batch(self):
        """Whether the kernel has LOOKUP_BATCH for this type: asked once, with a batch of none."""
        if self._has_batch is None:
            owner, attr, code = self._live(), bpf_attr(), ENOTSUPP
            attr.batch.map_fd = owner.number
            if self.type in _BATCH_TYPES or self.type == BPF_MAP_TYPE_LPM_TRIE:
                size = _ATTR_SIZES[BPF_MAP_LOOKUP_BATCH]
                code = _syscall(_nr_bpf, BPF_MAP_LOOKUP_BATCH, byref(attr), size)
            del owner
            if code not in (0, errno.EINVAL, ENOTSUPP):
                raise self._error(BPF_MAP_LOOKUP_BATCH, code)
            self._has_batch = code == 0
        return self._has_batch

    @overload
    def keys(self: "_NumberKeys[_KeyNumber]") -> "Iterator[_KeyNumber]": ...
    @overload
    def keys(self) -> "Iterator[_Key]": ...
    def keys(self) -> "Iterator[Any]":
        """Return an iterator over the keys of the entries that are there; see items."""
        return (key for key, _ in self._scan(False))

    __iter__ = keys

    @overload
    def values(self: "_NumberValues[_Number]", flags: int = 0) -> "Iterator[_Number]": ...
    @overload
    def values(self, flags: int = 0) -> "Iterator[_Value]": ...
    def values(self, flags: int = 0) -> "Iterator[Any]":
        """Return an iterator over the values; see items."""
        return (value for _, value in self._scan(True, flags))

    @overload
    def items(
        self: "_OpenMap[_Scalar[_KeyNumber], _Scalar[_Number]]", flags: int = 0
    ) -> "Iterator[Tuple[_KeyNumber, _Number]]": ...
    @overload
    def items(
        self: "_OpenMap[_Scalar[_KeyNumber], _Value]", flags: int = 0
    ) -> "Iterator[Tuple[_KeyNumber, _Value]]": ...
    @overload
    def items(
        self: "_OpenMap[_Key, _Scalar[_Number]]", flags: int = 0
    ) -> "Iterator[Tuple[_Key, _Number]]": ...
    @overload
    def items(self, flags: int = 0) -> "Iterator[Tuple[_Key, _Value]]": ...
    def items(self, flags: int = 0) -> "Iterator[Tuple[Any, Any]]":
        """Return an iterator over (key, value) of every entry, each new objects.

        Where exact_scan is True, what is in the map from start to end comes exactly once;
        elsewhere nothing comes twice, but an entry that others update meanwhile may be
        missed.  The current key may be deleted.

        flags      as of lookup
        raises     IterationAborted: that cannot be kept, SyscallError, NotSupported: queues,
                   storages ...
        kernel     BPF_MAP_LOOKUP_BATCH, 5.6; else BPF_MAP_GET_NEXT_KEY and BPF_MAP_LOOKUP_ELEM
        """
        return self._scan(True, flags)

    def _scan(self, with_values, flags=0):
        """Return an iterator over (key, value); value is None without with_values, if cheaper."""
        flags = _flag_bits(flags)
        self._require_keys(BPF_MAP_GET_NEXT_KEY)
        if self._walks_by_key():
            walk = self._walk_keys(flags)
            return ((self._key_out(key), self._finished(out)) for key, out in walk)
        return self._entries_in_parts(with_values, flags)

    def _walks_by_key(self):
        """Whether there is no other way to the entries than from key to key."""
        return self.type not in _INDEX_TYPES and not self._can_batch()

    def _entries_in_parts(self, with_values, flags):
        """Yield (key, value), as callers get them, of every entry in the parts of a scan."""
        for keys, values in self._parts(None, flags, is_shared=True):
            finished = [None] * len(keys)
            if with_values:
                finished = self._finished_elements(values, self.value_type)
            yield from zip(self._finished_elements(keys, self.key_type), finished)

    def _finished_elements(self, array, ctype):
        """Return a list of the elements of an array as callers get them.

        They are copies: the memory of the array is written to again by the next batch.
        """
        step, raw = sizeof(array._type_), bytes(array)
        if array._type_ is self._out_type and self._is_percpu:
            copy = _copier(self._out_type)
            return [self._finish(copy(raw, offset)) for offset in range(0, len(raw), step)]
        if ctype is bytes:
            return [raw[offset : offset + step] for offset in range(0, len(raw), step)]
        if _is_plain(ctype) and ctype._type_ != "c":
            return array[:]
        copy = _copier(array._type_)
        objects = [copy(raw, offset) for offset in range(0, len(raw), step)]
        return [_get_value(obj) for obj in objects] if _is_scalar(ctype) else objects

    def _parts(self, size, flags, is_shared=False):
        """Return an iterator over (keys, values), two arrays of up to size entries.

        is_shared: it is read inside of a generator, which lets in one thread at a time, whichever.
        """
        if not self._can_batch():
            room = self._entries_per_batch(size)
            by_key = self._walks_by_key()
            return self._walked_parts(room, flags) if by_key else self._index_parts(room, flags)
        if self.type == BPF_MAP_TYPE_LPM_TRIE:
            # as large as they go, whatever size, so that being sent back to the start is rare
            batches = _BatchScan(self, BPF_MAP_LOOKUP_BATCH, None, flags, True)
            return self._trie_parts(batches, size)
        return _BatchScan(self, BPF_MAP_LOOKUP_BATCH, size, flags, is_shared)

    def _index_parts(self, room, flags):
        """Yield the parts of an array, by a lookup for each index; an empty slot is no entry."""
        for first, values, codes in self._read_indices(room, flags):
            failures = [at for at, code in enumerate(codes) if code not in (0, errno.ENOENT)]
            end = failures[0] if failures else len(codes)
            there = [at for at in range(end) if not codes[at]]
            if there:
                indices = (u32 * len(codes))(*range(first, first + len(codes)))
                keys = _copier(self._raw_key_type * len(codes))(bytes(indices))
                yield _picked(keys, there), _picked(values, there)
            if failures:  # only after the entries before it
                raise self._error(BPF_MAP_LOOKUP_ELEM, codes[end], first + end)

    def _read_indices(self, room, flags=0):
        """Yield (first index, values, [0 or errno of each]) of up to room indices in turn.

        One bpf_attr serves them all: this is the fastest way to look up many indices.
        """
        key, attr, size = u32(), bpf_attr(), _ATTR_SIZES[BPF_MAP_LOOKUP_ELEM]
        value = u64.from_buffer(attr, bpf_attr_elem.value.offset)
        attr.elem.key, attr.elem.flags, ref = addressof(key), flags, byref(attr)
        one_type = self._flagged_type(flags) or self._out_type_for(self._key_in(bytes(4)))
        for first in range(0, self.max_entries if one_type else 0, room):
            values = (one_type * min(room, self.max_entries - first))()
            owner, codes = self._live(), []
            attr.elem.map_fd = owner.number
            start, step = addressof(values), sizeof(one_type)
            for index in range(first, first + len(values)):
                key.value, value.value = index, start
                start += step
                codes.append(_syscall(_nr_bpf, BPF_MAP_LOOKUP_ELEM, ref, size))
            del owner
            yield first, values, codes

    def _trie_parts(self, batches, size):
        """Yield the entries that the batches of a trie bring, each once, in parts.

        The kernel's cursor is the last key.  If others delete that, it starts again at the first.
        """
        seen, steps, room = set(), 0, self._entries_per_batch(size)
        for keys, values in batches:
            raw, step = bytes(keys), self.key_size
            each = [raw[at : at + step] for at in range(0, len(raw), step)]
            steps += len(each)
            if steps > _WALK_ROUNDS * self.max_entries + _WALK_SPARE_STEPS:
                raise self._restarts_error()
            new_keys = {key: at for at, key in enumerate(each) if key not in seen}
            seen.update(new_keys)
            places = sorted(new_keys.values())
            for at in range(0, len(places), room):
                part = places[at : at + room]
                yield _picked(keys, part), _picked(values, part)

    def _walk_keys(self, flags):
        """Yield (key, value), as ctypes objects, from key to key.

        If others delete the current key, the kernel goes on at its first key, or (cgroup storages)
        says that this was the last.
        """
        seen, steps = set(), 0
        found_since_start = 0
        cursor = self._next(None)
        while cursor is not None:
            steps += 1
            if steps > _WALK_ROUNDS * (self.max_entries or len(seen)) + _WALK_SPARE_STEPS:
                raise self._restarts_error()
            raw = _raw(cursor)
            following, failure = self._following(raw)  # now, as the caller may delete this key
            out = None
            if raw not in seen:
                seen.add(raw)
                out = self._present(raw, flags)
            if out is not None:
                found_since_start += 1
                yield cursor, out
            if failure:  # only after the entry that was there
                raise failure
            is_last = out is None and following is None
            if is_last and found_since_start and self._present(raw, flags) is None:
                # It was deleted, so it may not be the last one: start again, until that finds
                # nothing new.
                found_since_start, following = 0, self._next(None)
            cursor = following

    def _restarts_error(self):
        """Return the error for a scan from key to key that does not come to an end."""
        return IterationAborted(
            "%s: deletions keep sending the scan back to its start" % self._about
        )

    def _following(self, raw):
        """Return (the key after one given as bytes, None), or (None, the error)."""
        try:
            return self._next(self._key_in(raw)), None
        except SyscallError as failure:
            return None, failure

    def lookup_batch(
        self, size: "Optional[int]" = None, flags: int = 0
    ) -> "Iterator[Tuple[ctypes.Array[Any], ctypes.Array[Any]]]":
        """Return an iterator over (keys, values): the entries in parts, as the kernel writes them.

        size       entries in a part at most; None: as many as fit into about a MiB
        flags      as of lookup
        returns    two ctypes arrays of one length, valid until the next step; memoryview(values),
                   struct.iter_unpack and numpy.frombuffer take them as they are; per-CPU values
                   are arrays of percpu_type().  Exact where exact_scan is True
        raises     IterationAborted, SyscallError, NotSupported: also of flags
        kernel     BPF_MAP_LOOKUP_BATCH, 5.6; else entry by entry
        """
        flags = _flag_bits(flags)
        self._require_keys(BPF_MAP_LOOKUP_BATCH)
        return self._parts(size, flags)

    def lookup_and_delete_batch(self, size: "Optional[int]" = None, flags: int = 0) -> "_BatchScan":
        """Return an iterator like lookup_batch's that removes the entries it hands out.

        Nothing is removed before the first step, and each step removes a part.  Nothing is lost:
        what the kernel has removed comes with the next step, if the one that did it ended in an
        error or KeyboardInterrupt; .last is the part that was handed out last.

        size       as of lookup_batch
        flags      as of lookup
        raises     PermissionDenied, SyscallError, NotSupported: arrays, LPM tries; queues: use
                   pop
        kernel     BPF_MAP_LOOKUP_AND_DELETE_BATCH, 5.6
        """
        self._require_keys(BPF_MAP_LOOKUP_AND_DELETE_BATCH)
        return _BatchScan(self, BPF_MAP_LOOKUP_AND_DELETE_BATCH, size, _flag_bits(flags))

    def _walked_parts(self, room, flags):
        """Yield what _walk_keys does, in parts."""
        entries = self._walk_keys(flags)
        while True:
            part = list(islice(entries, room))
            if not part:
                return
            yield tuple(_array_of(type(column[0]), column) for column in zip(*part))

    def _entries_per_batch(self, size):
        """Return how many entries a batch is to hold: size, or as many as fit into about a MiB."""
        if size is not None:
            return min(_integer(size, 1, (1 << 32) - 1, "size"), self.max_entries or 1 << 12)
        cpus = 1
        if self._is_percpu:
            cpus = len(_proven_cpus or range(64))  # if they are not counted yet, a guess will do
        entry = self.key_size + cpus * percpu_stride(self.value_size)
        return max(1, min(self.max_entries or 1 << 12, 1 << 16, (1 << 20) // entry))

    def _prove_by_any_key(self, key):
        """Have the CPUs counted before values move in bulk: by key (bytes), or by any key."""
        if self._out_type_for(self._key_in(key)) is None:
            first = self._next(None)
            if first is None or self._out_type_for(self._key_in(_raw(first))) is None:
                what = "entry by which the possible CPUs could be counted"
                raise self._lack_error(BPF_MAP_LOOKUP_BATCH, what)


def _array_of(ctype, objects):
    """Return an array of ctype holding objects: ctypes objects of its size, or ints."""
    array = (ctype * len(objects))()
    step = sizeof(ctype)
    for index, obj in enumerate(objects):
        obj = _scalar_object(ctype, obj) if isinstance(obj, int) else obj
        ctypes.memmove(addressof(array) + index * step, addressof(obj), step)
    return array


def _picked(array, places):
    """Return an array of the elements at some places of an array: itself if that is all of them."""
    if len(places) == len(array):
        return array
    raw, step = bytes(array), sizeof(array._type_)
    picked = b"".join([raw[at * step : (at + 1) * step] for at in places])
    return _copier(array._type_ * len(places))(picked)


# how many calls in a row may bring nothing before a scan is given up
_MAX_EMPTY_CALLS = 1000


class _BatchScan:
    """Iterator over a map's entries in parts, by LOOKUP_(AND_DELETE_)BATCH, for one thread.

    The cursor is what the kernel writes to out_batch and wants back as in_batch.  It lies in
    _out_batch during a call and is then copied to _cursor (bytes; None: from the start).

    An exception (KeyboardInterrupt) may come between any two steps, also right after a call that
    has removed entries.  So what a call did is taken in by a step of its own, _take_outcome, which
    the next __next__ makes up for if it was cut short (_under_way).  Whether the call ran at all is
    seen from what it wrote: a count other than the room; a cursor, which is all ones before; keys,
    of which no two are alike.  What was removed is so handed out in any case.
    """

    last: "Optional[Tuple[ctypes.Array[Any], ctypes.Array[Any]]]"

    def __init__(self, m, cmd, size, flags=0, is_shared=False):
        self._map, self._cmd = m, cmd
        self._room = m._entries_per_batch(size)
        self._attr, self._out_batch = bpf_attr(), (u8 * max(4, m.key_size))()
        self._attr.batch.elem_flags = flags
        self._one_type = m._flagged_type(flags)  # the type of a value of the one CPU flags select
        self._arrays = None  # (keys, values) of one length, which the kernel writes to
        self._cursor = None
        # The part that came last and the part that was handed out last: when they are the same it
        # is time for the next call.
        self._part = self.last = None
        self._under_way = False  # a call was begun whose outcome has not been taken in
        self._end = None  # the exception that ends the scan
        self._empty_calls = 0  # in a row
        self._thread = None if is_shared else {}  # {"id": of the thread that began}
        # An RHASH's cursor is a key.  In a drain that key may be gone: always start from the first.
        self._restarts = m.type == BPF_MAP_TYPE_RHASH

    def __iter__(self) -> "Self":
        return self

    def __next__(self) -> "Tuple[ctypes.Array[Any], ctypes.Array[Any]]":
        if self._thread is not None and self._thread.setdefault("id", get_ident()) != get_ident():
            raise ValueError("this iterator belongs to the thread that began it")
        last = self.last
        while self._under_way or self._part is last:
            if self._end and not self._under_way:
                raise self._end
            self._step()
        try:
            self.last = self._part
            return self.last
        except BaseException:  # the caller never saw it
            self.last = last
            raise

    def _step(self):
        """Make a call and take in its outcome, or only that of a call that an exception cut short.

        To take in an outcome twice does no harm.
        """
        code = None
        if not self._under_way:
            if not self._prepare():
                self._end = StopIteration
                return
            code = self._call()
        self._take_outcome(code)
        self._under_way = False

    def _prepare(self):
        """Make arrays for the next call; what a drain handed out stays the caller's.

        False if the CPUs have to be counted, and the map has no entry to do it by.
        """
        m = self._map
        if m._is_percpu and m._out_type is None and self._one_type is None:
            first = m._next(None)
            if first is None:
                return False
            m._prove_by_any_key(_raw(first))
        keys = self._arrays and self._arrays[0]
        fits = keys and sizeof(keys) == self._room * m.key_size
        if self._cmd != BPF_MAP_LOOKUP_BATCH or not fits:
            value_type = self._one_type or m._out_type
            self._arrays = (m._raw_key_type * self._room)(), (value_type * self._room)()
        return True

    def _call(self):
        """Make a call; return 0 or the errno."""
        m, batch = self._map, self._attr.batch
        keys, values = self._arrays
        ctypes.memset(self._out_batch, 0xFF, sizeof(self._out_batch))
        in_batch = ctypes.create_string_buffer(self._cursor or b"")
        owner = m._live()
        batch.in_batch = addressof(in_batch) if self._cursor else 0
        batch.out_batch = addressof(self._out_batch)
        batch.keys, batch.values = addressof(keys), addressof(values)
        # the room that these arrays have, whatever self._room is by now
        batch.map_fd, batch.count = owner.number, sizeof(keys) // m.key_size
        self._under_way = True
        code = _syscall(_nr_bpf, self._cmd, byref(self._attr), _ATTR_SIZES[self._cmd])
        del owner
        return code

    def _take_outcome(self, code):
        """Take in what a call did; code None: an exception came before its result was seen."""
        keys, values = self._arrays
        step = self._map.key_size
        room, count = sizeof(keys) // step, self._attr.batch.count
        cursor = bytes(self._out_batch)
        moved = cursor.strip(b"\xff") != b""
        # Whether the call ran, where code does not say so.  At its end RHASH writes no cursor, and
        # with all the room used count does not tell either.  The keys do: arrays are new before a
        # drain, all zero, and no map has a key twice.  So the first key and the last one differ
        # only if the call wrote them; a single key (room 1) can't show that.
        filled = self._restarts and room > 1 and bytes(keys)[:step] != bytes(keys)[-step:]
        if not (code == 0 or moved or count != room or filled):
            count = 0  # the call did not run
        if count:
            self._part = (
                (keys._type_ * count).from_buffer(keys),
                (values._type_ * count).from_buffer(values),
            )
        self._empty_calls = 0 if count else self._empty_calls + 1
        self._go_on(code, count, room)
        if moved and not self._end:
            self._cursor = cursor
        if self._restarts:
            self._cursor = None

    def _go_on(self, code, count, room):
        """Decide how the scan goes on, or ends, after a call that brought count entries.

        ENOENT     that was the last entry; the entries that came with it count
        ENOSPC     a bucket has more entries than there is room for: more room
        EINTR      in older kernels (generic_map_lookup_batch), no signal: keys vanished while they
                   were read.  What came counts, the scan goes on from the new cursor
        EAGAIN     the key that was the cursor is gone: once more
        """
        m = self._map
        if code == errno.ENOENT and not (self._restarts and count):
            self._end = StopIteration
        elif code == errno.ENOSPC and not count:
            if room >= m.max_entries:
                self._end = IterationAborted(
                    "%s: a bucket of more than all %d entries" % (m._about, room)
                )
            self._room = min(2 * room, m.max_entries)
        elif code not in (0, None, errno.ENOENT, errno.EINTR, errno.EAGAIN):
            self._end = m._error(self._cmd, code)
        elif self._empty_calls > _MAX_EMPTY_CALLS:
            self._end = IterationAborted("%s: the kernel keeps interrupting the scan" % m._about)


# -- writing many elements


class _Writing(_Scanning[_Key, _Value]):
    """Many entries written in one call."""

    def update_batch(self, keys: "_GivenBatch", values: "_GivenBatch", flags: int = 0) -> int:
        """Store values under keys, in one call where the kernel can.

        keys       an array of the key's type, a buffer of whole keys, or a sequence of what
                   update takes
        values     the same of values
        flags      as of update; those that the batch command does not know (BPF_NOEXIST) make it
                   go entry by entry
        returns    how many were stored, which is all of them
        raises     as update; the error's .count says how many were stored before
        kernel     BPF_MAP_UPDATE_BATCH, 5.6; else BPF_MAP_UPDATE_ELEM
        """
        flags = _flag_bits(flags)
        all_keys = self._batch_in(self._raw_key_type, keys, self._key_in, "keys")
        if self._is_percpu and not self._flagged_type(flags) and len(all_keys):
            self._prove_by_any_key(bytes(all_keys)[: self.key_size])
        value_type = self._flagged_type(flags) or self._out_type or self._raw_value_type
        convert = partial(self._value_in, None, flags=flags)
        all_values = self._batch_in(value_type, values, convert, "values")
        if len(all_keys) != len(all_values):
            counts = len(all_keys), len(all_values)
            raise LayoutError("%d keys and %d values do not go together" % counts)
        commands = BPF_MAP_UPDATE_BATCH, BPF_MAP_UPDATE_ELEM
        return self._write_batch(*commands, all_keys, all_values, flags)

    def delete_batch(self, keys: "_GivenBatch") -> int:
        """Remove keys, in one call where the kernel can.

        keys       as of update_batch
        returns    how many were removed, which is all of them
        raises     as delete, KeyNotFound at the first that is absent; the error's .count says how
                   many were removed before
        kernel     BPF_MAP_DELETE_BATCH, 5.6; else BPF_MAP_DELETE_ELEM
        """
        all_keys = self._batch_in(self._raw_key_type, keys, self._key_in, "keys")
        return self._write_batch(BPF_MAP_DELETE_BATCH, BPF_MAP_DELETE_ELEM, all_keys, None, 0)

    def _batch_in(self, ctype, given, convert, what):
        """Return a new array of ctype with the elements given, which nobody else can resize.

        given is an array of that type, a buffer of whole elements, or any iterable of what convert
        takes.
        """
        self._require_keys(BPF_MAP_UPDATE_BATCH)
        try:
            raw = self._batch_bytes(ctype, given)
            elements = None if raw is not None else list(given)
        except (TypeError, ValueError) as failure:
            raise LayoutError(
                "%s must be an array of %s, a buffer of whole ones or a sequence: %s"
                % (what, type_name(ctype), failure)
            ) from None
        if raw is not None:
            return _copier(ctype * (len(raw) // sizeof(ctype)))(raw)
        return _array_of(ctype, [convert(element) for element in elements])

    def _batch_bytes(self, ctype, given):
        """Return the bytes of elements given as an array or a buffer, None if it is neither."""
        is_ctypes_or_text = isinstance(given, (str, _CDATA))
        if is_ctypes_or_text and getattr(type(given), "_type_", None) is not ctype:
            raise TypeError("not " + type(given).__name__)
        if isinstance(given, (list, tuple)):
            return None
        try:
            raw = memoryview(given).tobytes()
        except TypeError:  # no buffer
            return None
        if len(raw) % sizeof(ctype):
            raise ValueError("%d bytes are not a multiple of %d" % (len(raw), sizeof(ctype)))
        return raw

    def _write_batch(self, batch_cmd, cmd, keys, values, flags):
        """Run batch_cmd on arrays, or where there is no such batch, cmd on each element.

        Return how many are done, which is all: a failure is raised, with .count.
        """
        owner, attr, total = self._live(), bpf_attr(), sizeof(keys) // self.key_size
        batch = attr.batch
        batch.map_fd, batch.count, batch.elem_flags = owner.number, total, flags
        batch.keys, batch.values = addressof(keys), 0 if values is None else addressof(values)
        code = 0
        if total:
            code = _syscall(_nr_bpf, batch_cmd, byref(attr), _ATTR_SIZES[batch_cmd])
        del owner
        if not code:
            return total
        # a count that is still what we set it to: the kernel refused the command as a whole
        done = batch.count if batch.count < total else 0
        if code in (ENOTSUPP, errno.EINVAL) and not done:
            batch_cmd = cmd  # for the error
            done, code = self._write_each(cmd, keys, values, flags)
        if not code:
            return total
        raw = bytes(keys)[done * self.key_size : (done + 1) * self.key_size]
        error = self._error(batch_cmd, code, self._key_in(raw))
        error.count = done
        raise error

    def _write_each(self, cmd, keys, values, flags):
        """Run cmd on one element after the other; return (how many are done, 0 or the errno)."""
        raw, step, value = bytes(keys), self.key_size, _ZERO
        total = len(raw) // step
        for index in range(total):
            key = self._key_in(raw[index * step : (index + 1) * step])
            if values is not None:
                value = u8.from_buffer(values, index * sizeof(values._type_))
            code = self._element(cmd, key, value, flags)
            if code:
                return index, code
        return total, 0


# -- the map as a whole


class _Whole(_Writing[_Key, _Value]):
    """The map as a whole: frozen, pinned, mapped."""

    def freeze(self) -> None:
        """Forbid user space to change the map, for good; programs still may.

        It holds for every descriptor.

        raises     PermissionDenied: frozen already, read-only; Busy: mapped writable, before 6.5
                   also frozen already; NotSupported
        kernel     BPF_MAP_FREEZE, 5.2
        """
        owner, attr = self._live(), bpf_attr()
        attr.elem.map_fd = owner.number
        code = _syscall(_nr_bpf, BPF_MAP_FREEZE, byref(attr), _ATTR_SIZES[BPF_MAP_FREEZE])
        del owner
        if code:
            raise self._error(BPF_MAP_FREEZE, code)

    def pin(self, path: "_Path") -> None:
        """Give the map a name in a bpffs, which keeps it alive.

        raises     PinExists, SyscallError, PermissionDenied: no bpffs, a dot in the name
        kernel     BPF_OBJ_PIN, 4.4
        """
        owner = self._live()
        try:
            _obj_cmd(BPF_OBJ_PIN, path, bpf_fd=owner.number)
        finally:
            del owner

    def unpin(self, path: "_Path") -> None:
        """Remove a pin of this map.

        raises     BPFError: it is another map's, MapNotFound, OSError
        """
        self._live()
        with Map.from_pin(path) as pinned:
            if pinned.id != self.id:
                raise BPFError(
                    "%s is a pin of %s, not of %s" % (os.fsdecode(path), pinned._about, self._about)
                )
        os.unlink(path)

    def mmap(self, writable: bool = False) -> "MemoryMap[_Value]":
        """Map the map's memory: return a MemoryMap, whose reads make no system call.

        There is memory to map of arrays created with BPF_F_MMAPABLE (the .data, .bss and .rodata of
        programs are), of ring buffers and of arenas.  Even reading takes mode="rw": the kernel maps
        no read-only descriptor.

        writable   whether values can be stored, and objects in it be changed
        raises     NotSupported, SyscallError, PermissionDenied: descriptor, frozen,
                   BPF_F_RDONLY_PROG
        kernel     mmap(2), 5.5; ring buffers 5.8, arenas 6.9
        """
        import mmap

        length = self._mapped_length(mmap.PAGESIZE)
        return MemoryMap(self, self._mapped(0, length, writable), writable)

    def _mapped(self, offset, length, writable):
        """Return length bytes of the map's memory from offset on, as an mmap.mmap."""
        import mmap

        owner = self._live_read_write()
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return mmap.mmap(owner.number, length, mmap.MAP_SHARED, protection, offset=offset)
        except OSError as failure:
            raise _error(failure.errno, "mmap", self._about, self.type, owner.number) from None
        finally:
            del owner

    def _live_read_write(self):
        """Return the _Fd; PermissionDenied unless it may read and write, which mapping takes."""
        import fcntl

        owner = self._live()
        try:
            if fcntl.fcntl(owner.number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
                raise _error(errno.EACCES, "mmap", self._about, self.type, owner.number)
            return owner
        finally:
            del owner

    def _mapped_length(self, page_size):
        """Return how many bytes of memory the map shows; NotSupported if it shows none."""
        if self.type == BPF_MAP_TYPE_ARRAY and self.flags & BPF_F_MMAPABLE:
            return percpu_stride(self.value_size) * self.max_entries
        if self.type == BPF_MAP_TYPE_ARENA:
            return self.max_entries * page_size
        if self.type in _VALUELESS_TYPES:  # ring buffers: two positions, the data twice
            return 2 * page_size + 2 * self.max_entries
        detail = "not an array created with BPF_F_MMAPABLE, a ring buffer or an arena"
        raise _error(ENOTSUPP, "mmap", self._about, detail=detail)

    @overload
    def records(
        self, value: "Optional[Type[bytes]]" = None, *, peek: bool = False
    ) -> "Records[bytes]": ...
    @overload
    def records(self, value: "Union[str, Layout]", *, peek: bool = False) -> "Records[Any]": ...
    @overload
    def records(  # type: ignore[overload-overlap]  # a scalar is no _Object to hand out
        self, value: "Type[_Scalar[_Number]]", *, peek: bool = False
    ) -> "Records[_Number]": ...
    @overload
    def records(
        self, value: "Type[_ValueType]", *, peek: bool = False
    ) -> "Records[_ValueType]": ...
    def records(self, value: "Any" = None, *, peek: bool = False) -> "Records[Any]":
        """Return the Records of a ring buffer: what programs write to it, as they do.

        It takes mode="rw", even to peek: the kernel maps no other descriptor.

        value      a ctypes class, a Layout, C text, or the name of a type in the BTF of a program
                   that uses the map ("struct event"; CAP_SYS_ADMIN); records must be of its size.
                   bytes, or left out: records are bytes, of any size
        peek       leave the records to whoever consumes them, write nothing, and begin with what
                   comes next.  What its owner has consumed may be overwritten before it was seen:
                   .lost counts that
        raises     PermissionDenied (descriptor), NotSupported (another type of map; no memory
                   barrier), Busy: another reader of this process consumes it, LayoutError
        kernel     BPF_MAP_TYPE_RINGBUF, 5.8; BPF_F_RB_OVERWRITE, 7.0: it begins with the oldest
                   record that there is, and .lost counts what was overwritten
        """
        return Records(self, value, peek)

    def submit(self, value: "Buffer") -> None:
        """Write a record to a ring buffer that programs read, with bpf_user_ringbuf_drain().

        It takes mode="rw".  The record is there whole or, if an exception comes before that, not at
        all.  Threads may share the map; processes may not, as the kernel can't tell them apart: the
        caller has to see to it that only one at a time submits.

        value      a ctypes object, or bytes or another buffer
        raises     MapFull: no room until programs read, LayoutError: it never fits,
                   PermissionDenied, NotSupported, ValueError in a child of fork()
        kernel     BPF_MAP_TYPE_USER_RINGBUF, 6.1
        """
        if self.type != BPF_MAP_TYPE_USER_RINGBUF:
            raise _no_ring_error("submit", self)
        raw = _raw(value) if isinstance(value, _CDATA) else bytes(memoryview(value))
        submitter = self.__dict__.get("_submitter")
        if submitter is None:
            self._live_read_write()  # for this map too, whoever has mapped it already
            _, submitter = _claim_ring(_submitters, self, lambda: _Submitter(self))
            self._submitter = submitter
        self._live()
        submitter.submit(raw)


class MemoryMap(_Generic[_Value]):
    """The memory of a map: an array created with BPF_F_MMAPABLE, a ring buffer or an arena.

    Made by Map.mmap.  mm[i] is the value of element i: a number for scalars, else a copy or, of a
    writable mapping, an object that lives in the map's memory; mm[i] = value stores, if it is
    writable.  len(mm) counts elements.

    view       a memoryview of the bytes, all that ring buffers and arenas have

    Reads and writes are native loads and stores: a value wider than a word can be torn.  The
    memory stays as long as views and objects in it do.  A child of fork() has no arena's.
    """

    view: memoryview

    def __init__(self, m, memory, writable):
        self._memory, self._writable, self._type = memory, writable, m.value_type
        self._about = "value of " + m._about
        self._size, self._stride = m.value_size, percpu_stride(m.value_size)
        self._count = m.max_entries if m.value_size else 0
        self.view, self._words = memoryview(memory), None
        is_native = _is_plain(self._type) and not _is_swapped(self._type)
        if is_native and self._type._type_ in _INT_CODES + _FLOAT_CODES:
            # A strided memoryview of numbers reads an element by one load, faster than all else.
            words = self.view[: self._stride * self._count].cast(self._type._type_)
            self._words = words[:: self._stride // self._size]

    def __len__(self) -> int:
        return self._count

    def _at(self, index):
        """Return (memory, start, end): where element index is in the memory."""
        memory = self._memory
        if memory is None:
            raise ValueError("this mapping is closed")
        if not 0 <= index < self._count:
            raise IndexError("index %r is not in 0..%d" % (index, self._count - 1))
        index = range(self._count)[index]  # numpy's integers would overflow below
        return memory, index * self._stride, index * self._stride + self._size

    @overload
    def __getitem__(self: "MemoryMap[_Scalar[_Number]]", index: int) -> "_Number": ...
    @overload
    def __getitem__(self, index: int) -> "_Value": ...
    def __getitem__(self, index: int) -> "Any":
        words = self._words
        if words is not None and 0 <= index < self._count:
            return words[index]
        memory, start, end = self._at(index)
        if self._type is bytes:
            return memory[start:end]
        if _is_scalar(self._type):
            return _get_value(_copier(self._type)(memory, start))
        return (_overlay if self._writable else _copier)(self._type)(memory, start)

    def __setitem__(self, index: int, value: "_GivenValue") -> None:
        memory, start, end = self._at(index)
        if not self._writable:
            raise TypeError("this mapping is read-only: m.mmap(writable=True)")
        obj, words = _to_ctype(self._type, self._size, value, self._about), self._words
        if words is not None:
            words[index] = _get_value(obj)
        else:
            memory[start:end] = _raw(obj)

    def close(self) -> None:
        """Let go of the memory; it is unmapped with the last view or object in it."""
        self._memory = self._words = None
        self.view = None  # type: ignore[assignment]  # while it is open it is one
        self._count = 0

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- opening and creating maps

# mode -> open_flags, file_flags
_MODES = {"r": BPF_F_RDONLY, "w": BPF_F_WRONLY, "rw": 0}


class Map(_Whole[_Key, _Value]):
    """A live BPF map.  Open one with from_pin, from_id, from_name, from_fd or create.

        with Map.from_pin("/sys/fs/bpf/flows", key=FlowKey, value=FlowStats) as flows:
            print(flows[FlowKey(src=..., dst=...)].packets)

    key, value ctypes types, bytes, or BTF to demand the map's own; left out they are BTF's, else
               numbers for indices, ids and descriptors, else bytes.  Where BTF can be had they are
               compared with it: each field's offset and size
    strict     compare signs, lengths of arrays and nesting too; nothing may be left over
    mode       "r", "w" or "rw"
    token      a BPF token (create_token) for what takes one

    A Map may be shared by threads.  close() may race with calls: those under way finish on this
    map, later ones raise ValueError.  A dropped Map closes its descriptor; with closes it at the
    end.

    Of the map it tells .id, .name, .type (BPF_MAP_TYPE_*), .flags, .key_size, .value_size,
    .max_entries, and what is asked for: .info, .btf, .key_layout, .value_layout.  .key_type and
    .value_type are the types in use, None where the map has no keys or values.
    """

    def __init__(self) -> None:
        raise TypeError("open a map with Map.from_pin, from_id, from_name, from_fd or create")

    @classmethod
    def from_fd(
        cls,
        fd: "_Descriptor",
        key: "_TypeOf[_KeyType]" = None,
        value: "_TypeOf[_ValueType]" = None,
        *,
        dup: bool = True,
        strict: bool = False,
        token: "Optional[_Descriptor]" = None,
    ) -> "Map[_KeyType, _ValueType]":
        """Return a Map on a duplicate of a descriptor.

        fd         an int or an object with fileno()
        dup        False: use the int itself, which the Map then closes
        raises     InvalidArgument: it is no map's, BadFileDescriptor, LayoutError: a type does
                   not fit, SyscallError
        kernel     BPF_OBJ_GET_INFO_BY_FD, 4.13
        """
        number = fd.fileno() if dup and hasattr(fd, "fileno") else fd
        number = _integer(number, -1 << 31, (1 << 31) - 1, "descriptor")
        about = "descriptor %d" % number
        owner = _duplicate(number, about) if dup else _Fd(int, number)
        try:
            return cls._opened(owner, about, key, value, strict, token, prove=True, keep=not dup)
        finally:
            del owner

    @classmethod
    def from_id(
        cls,
        map_id: int,
        key: "_TypeOf[_KeyType]" = None,
        value: "_TypeOf[_ValueType]" = None,
        *,
        mode: str = "r",
        strict: bool = False,
    ) -> "Map[_KeyType, _ValueType]":
        """Return a Map on the map with an id; it takes CAP_SYS_ADMIN.

        raises     MapNotFound, PermissionDenied, LayoutError: a type does not fit, SyscallError
        kernel     BPF_MAP_GET_FD_BY_ID, 4.13
        """
        owner = _fd_by_id(map_id, _mode_flags(mode))
        try:
            return cls._opened(owner, "map %d" % map_id, key, value, strict)
        finally:
            del owner

    @classmethod
    def from_pin(
        cls,
        path: "_Path",
        key: "_TypeOf[_KeyType]" = None,
        value: "_TypeOf[_ValueType]" = None,
        *,
        mode: str = "r",
        strict: bool = False,
        token: "Optional[_Descriptor]" = None,
    ) -> "Map[_KeyType, _ValueType]":
        """Return a Map on a map pinned in a bpffs; file permission is all it takes.

        token      a BPF token's descriptor (create_token), if it takes one to have the map's BTF
        raises     MapNotFound, PermissionDenied, InvalidArgument: a pinned program, LayoutError:
                   a type does not fit, SyscallError
        kernel     BPF_OBJ_GET, 4.4
        """
        owner = _Fd(_obj_cmd, BPF_OBJ_GET, path, file_flags=_mode_flags(mode))
        try:
            return cls._opened(owner, os.fsdecode(path), key, value, strict, token, prove=True)
        finally:
            del owner

    @classmethod
    def from_name(
        cls,
        name: str,
        key: "_TypeOf[_KeyType]" = None,
        value: "_TypeOf[_ValueType]" = None,
        *,
        mode: str = "r",
        strict: bool = False,
    ) -> "Map[_KeyType, _ValueType]":
        """Return a Map on the one map of a name; it takes CAP_SYS_ADMIN.

        name       at most 15 characters, as the kernel keeps it
        raises     MapNotFound, AmbiguousName: several have it, which the error lists as .ids;
                   else as from_id
        kernel     BPF_MAP_GET_NEXT_ID, 4.13; names 4.15
        """
        flags, about = _mode_flags(mode), "'%s'" % name
        if len(name) > 15:
            detail = "a map's name has at most 15 characters, not %d" % len(name)
            error = _error(errno.ENOENT, BPF_MAP_GET_FD_BY_ID, about, detail=detail)
            error.hint = "the kernel keeps the first 15 of them: try '%s'" % name[:15]
            raise error
        found = dict(_still_there([info.id for info in maps() if info.name == name], flags))
        if len(found) > 1:
            ids = list(found)
            found.clear()  # closes them: the traceback would keep them open
            raise _ambiguous_error(name, ids)
        if not found:
            detail = "no map is named so"
            raise _error(errno.ENOENT, BPF_MAP_GET_FD_BY_ID, about, detail=detail)
        map_id, owner = found.popitem()
        try:
            return cls._opened(owner, "map %d" % map_id, key, value, strict)
        finally:
            del owner

    @classmethod
    def create(
        cls,
        map_type: int,
        key: "_TypeOf[_KeyType]" = None,
        value: "_TypeOf[_ValueType]" = None,
        max_entries: "Optional[int]" = None,
        *,
        key_size: "Optional[int]" = None,
        value_size: "Optional[int]" = None,
        name: str = "",
        flags: int = 0,
        inner: "Optional[_Descriptor]" = None,
        map_extra: int = 0,
        numa_node: "Optional[int]" = None,
        btf: "Optional[_Descriptor]" = None,
        btf_key: "Optional[int]" = None,
        btf_value: "Optional[int]" = None,
        token: "Optional[_Descriptor]" = None,
        strict: bool = False,
    ) -> "Map[_KeyType, _ValueType]":
        """Create a map and return it, open for reading and writing; it takes CAP_BPF.

        map_type   BPF_MAP_TYPE_*
        key_size   and value_size, in bytes; left out those of the types
        max_entries  left out 1, for perf_event_arrays and cpumaps the number of possible CPUs
        name       at most 15 of A-Z a-z 0-9 _ .
        flags      BPF_F_*, map_extra, numa_node: as the kernel has them
        inner      the Map or descriptor that is the pattern for the entries of a map of maps
        btf        a descriptor of loaded BTF; btf_key, btf_value: type ids in it
        token      a BPF token's descriptor
        raises     PermissionDenied, InvalidArgument, LayoutError, NotSupported, SyscallError
        kernel     BPF_MAP_CREATE, 3.18; CAP_BPF 5.8, CAP_SYS_ADMIN before
        """
        settings = {
            "map_type": map_type,
            "key_size": _size_for("key", key, key_size, map_type),
            "value_size": _size_for("value", value, value_size, map_type),
            "max_entries": _entries_for(map_type, max_entries),
            "map_flags": flags,
            "inner_map_fd": _fd_number(inner),
            "numa_node": numa_node,
            "map_extra": map_extra,
            "btf_fd": _fd_number(btf),
            "btf_key_type_id": btf_key,
            "btf_value_type_id": btf_value,
            "map_token_fd": _fd_number(token),
        }
        owner = _new_map_fd(settings, name)
        try:
            return cls._opened(owner, _about_new_map(map_type, name), key, value, strict, token)
        finally:
            del owner


def _mode_flags(mode):
    """Return the flags to open a map with; ValueError for another mode than r, w, rw."""
    if mode not in _MODES:
        raise ValueError('mode must be "r", "w" or "rw", not %r' % (mode,))
    return _MODES[mode]


def _duplicate(number, about):
    """Return the _Fd of a duplicate of a descriptor."""
    import fcntl

    try:
        return _Fd(fcntl.fcntl, number, fcntl.F_DUPFD_CLOEXEC, 0)
    except (OSError, ValueError) as failure:  # ValueError: negative
        code = getattr(failure, "errno", errno.EBADF)
        raise _error(code, BPF_OBJ_GET_INFO_BY_FD, about) from None


def _fd_by_id(map_id, open_flags):
    """Return the _Fd of the map with an id."""
    attr = bpf_attr()
    attr.get_id.start_id = _integer(map_id, 0, (1 << 32) - 1, "map id")
    attr.get_id.open_flags = open_flags
    return _Fd(_bpf, BPF_MAP_GET_FD_BY_ID, attr, "map %d" % map_id)


def _obj_cmd(cmd, path, bpf_fd=0, file_flags=0, kept=None):
    """Run BPF_OBJ_PIN or BPF_OBJ_GET on a path; return its result."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("a path cannot contain a NUL byte")
    pathname = ctypes.create_string_buffer(raw)
    attr = bpf_attr()
    attr.obj.pathname = addressof(pathname)
    attr.obj.bpf_fd, attr.obj.file_flags = bpf_fd, file_flags
    about = os.fsdecode(path)
    return _bpf(cmd, attr, about, kept=kept, path=about, flags=file_flags)


def _still_there(map_ids, open_flags):
    """Yield (id, _Fd) of maps, leaving out those that are gone by now."""
    for map_id in map_ids:
        try:
            owner = _fd_by_id(map_id, open_flags)
        except MapNotFound:
            continue
        yield map_id, owner
        del owner


def _ambiguous_error(name, ids):
    """Return the AmbiguousName of maps with these ids."""
    listed = ", ".join(map(str, ids))
    error = AmbiguousName(
        "%d maps are named '%s': ids %s; open one by its id" % (len(ids), name, listed)
    )
    error.ids = ids
    return error


# -- what Map.create needs: defaults, then the bpf_attr, then the call
# max_entries, left out, is the number of possible CPUs
_ENTRY_PER_CPU_TYPES = frozenset((BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_CPUMAP))
# keys and values of 4 bytes, and of 0 bytes, where no size is given
_WORD_TYPES = {
    "key": _INDEX_TYPES | _FD_KEY_TYPES | {BPF_MAP_TYPE_HASH_OF_MAPS},
    "value": _NUMBER_VALUE_TYPES,
}
_VOID_TYPES = {"key": _KEYLESS_TYPES, "value": _VALUELESS_TYPES}
# fields of bpf_attr_map_create that may be None: not given
_OPTIONAL_FIELDS = frozenset(
    "inner_map_fd numa_node btf_fd btf_key_type_id btf_value_type_id map_token_fd".split()
)
# the flag that says that a field counts, even if it is 0
_FLAGS_OF_FIELDS = {"numa_node": BPF_F_NUMA_NODE, "map_token_fd": BPF_F_TOKEN_FD}


def _size_for(what, ctype, size, map_type):
    """Return the key_size or value_size to create a map with."""
    if size is not None:
        return size
    if ctype is not None and ctype is not bytes:
        return _class_layout(ctype, what).size
    if map_type in _WORD_TYPES[what]:
        return 4
    if map_type in _VOID_TYPES[what]:
        return 0
    raise LayoutError("give %s= a ctypes type, or %s_size=" % (what, what))


def _entries_for(map_type, given):
    """Return the max_entries to create a map with."""
    if given is not None:
        return given
    return len(possible_cpus()) if map_type in _ENTRY_PER_CPU_TYPES else 1


def _fd_number(source):
    """Return the descriptor number of an int or an object with fileno(), None for None."""
    return source.fileno() if hasattr(source, "fileno") else source


def _new_map_fd(settings, name):
    """Create a map and return its _Fd.

    settings is {field of bpf_attr_map_create: number or None}.  The hint of a refusal is what the
    kernel itself says about it, if it says anything.
    """
    attr = bpf_attr()
    size = _set_create(attr.map_create, settings, name)  # proves them: the type is a number now
    map_type = settings["map_type"]
    about = _about_new_map(map_type, name)
    try:
        return _Fd(_bpf_charged, BPF_MAP_CREATE, attr, about, size, map_type=map_type)
    except InvalidArgument as error:
        error.hint = _creation_log(attr, size) or error.hint
        raise


def _about_new_map(map_type, name):
    """Return what messages call a map that has no id yet."""
    return "a new map (%s%s)" % (map_type_name(map_type), " '%s'" % name if name else "")


def _set_create(create, settings, name):
    """Set the fields of a bpf_attr_map_create; return how many bytes of it must be passed.

    That is up to the last field that is not 0: old kernels refuse more than they know.
    """
    size, types = _ATTR_SIZES[BPF_MAP_CREATE], dict(create._fields_)
    for field, given in settings.items():
        if given is None and field in _OPTIONAL_FIELDS:
            continue
        low, high = _int_range(types[field])  # ctypes itself would cut off what does not fit
        number = _integer(given, low, high, field)
        setattr(create, field, number)
        create.map_flags |= _FLAGS_OF_FIELDS.get(field, 0)
        if number:
            size = max(size, _size_up_to("map_create", field))
    if name:
        raw = name.encode("latin-1")
        if len(raw) > 15 or b"\0" in raw:
            raise ValueError("a map's name has at most 15 characters, no NUL among them: %r" % name)
        create.map_name = raw
        size = max(size, _size_up_to("map_create", "map_name"))
    return size


def _creation_log(attr, size):
    """Have the kernel refuse a map once more; return what it says about it, "" before 7.2."""
    log = ctypes.create_string_buffer(4096)
    common = bpf_common_attr(log_buf=addressof(log), log_size=sizeof(log), log_level=1)
    words = BPF_MAP_CREATE | BPF_COMMON_ATTRS, byref(attr), size, byref(common), sizeof(common)
    _Fd(_ask_for_log, *words)  # and if it creates the map now, that is closed at once
    return log.value.decode("latin-1").strip()


def _ask_for_log(*words, kept):
    """Make a call whose failure does not matter; kept is for _Fd."""
    _syscall_into(kept, _nr_bpf, *words)


# -- more ways to open a map


def open_map(
    spec: "Union[int, str, os.PathLike[str]]",
    key: "_TypeOf[_KeyType]" = None,
    value: "_TypeOf[_ValueType]" = None,
    *,
    mode: str = "r",
    strict: bool = False,
    token: "Optional[_Descriptor]" = None,
) -> "Map[_KeyType, _ValueType]":
    """Return the Map that spec names.

    spec       "id 5" or 5, "name foo" or "foo", "pinned PATH" or "/path"
    token      is for pins
    raises     ValueError: a spec of no such form; else as Map.from_id, from_name, from_pin
    """
    if isinstance(spec, int):
        return Map.from_id(spec, key, value, mode=mode, strict=strict)
    if not isinstance(spec, str):
        return Map.from_pin(os.fspath(spec), key, value, mode=mode, strict=strict, token=token)
    kind, _, which = spec.strip().partition(" ")
    which = which.strip()
    if kind not in ("id", "name", "pinned"):
        which = spec.strip()
        kind = "id" if which.isdecimal() else "name"
        kind = "pinned" if "/" in which else kind
    if kind == "id" and which.isdecimal():
        return Map.from_id(int(which), key, value, mode=mode, strict=strict)
    if kind == "pinned" and which:
        return Map.from_pin(which, key, value, mode=mode, strict=strict, token=token)
    if kind == "name" and len(which.split()) == 1:
        return Map.from_name(which, key, value, mode=mode, strict=strict)
    raise ValueError(
        'a map is given as "id N", "name S", "pinned PATH", N, S or /PATH, not %r' % spec
    )


def create_token(path: "_Path" = "/sys/fs/bpf") -> "_Fd":
    """Return a BPF token, which has fileno(): the rights a bpffs delegates to this user namespace.

    Kernels take it for making maps, and 6.15 for a map's BTF; ids need CAP_SYS_ADMIN all the
    same.

    raises     PermissionDenied, SyscallError, NotSupported: outside of user namespaces
    kernel     BPF_TOKEN_CREATE, 6.9
    """
    bpffs, attr = _Fd(os.open, path, os.O_RDONLY | os.O_DIRECTORY), bpf_attr()
    attr.token_create.bpffs_fd = bpffs.number
    return _Fd(_bpf, BPF_TOKEN_CREATE, attr, os.fsdecode(path))


# -- keys of LPM tries


def lpm_key(text: str) -> bytes:
    """Return the key of an LPM trie, as bytes: four for the prefix length, then the address.

    text       "10.0.0.0/8", "2001:db8::/32"; without a / the whole address counts
    raises     ValueError
    """
    import socket

    address, slash, length = text.partition("/")
    try:
        raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        raise ValueError("%r is no IPv4 or IPv6 address" % address) from None
    if slash and (set(length) - set("0123456789") or not length or int(length) > 8 * len(raw)):
        raise ValueError("%r: the prefix length must be 0..%d" % (text, 8 * len(raw)))
    return (int(length) if slash else 8 * len(raw)).to_bytes(4, sys.byteorder) + raw


# -- ring buffers
# BPF_MAP_TYPE_RINGBUF (5.8), which programs fill and a reader empties (Records), and
# BPF_MAP_TYPE_USER_RINGBUF (6.1), the other way round (_Submitter).
#
# Such a map is memory: a page for the consumer's position, a page for the producer's, then the
# data, which is mapped twice in a row, so that what wraps around the end is contiguous.  Positions
# count bytes since the beginning.  A record is a header and its bytes, in steps of 8; two bits of
# the header's first word tell whether it is still being written (busy) or to be left out
# (discarded).
#
# In order: Records and what it is made of (_RecordBatch, records read together; _Turns, one step
# at a time; the claims that keep a second reader away; _Waiter); _Submitter; what both use:
# _RingMemory, _Position, the barriers.
#
# Memory order.  In the kernel __bpf_ringbuf_reserve() writes a header with the busy bit and then
# stores producer_pos (smp_store_release); bpf_ringbuf_commit() exchanges the header for one without
# the bit (xchg, a full barrier), then loads consumer_pos and wakes who has come as far as this
# record.  Here a drain is
#
#     A load producer_pos | B copy, for the headers | C copy, for the data | D store consumer_pos
#
# and then again A, which may find nothing and sleep.  What each | keeps apart:
#     A|B  No header is older than the position that says it is there: pairs with the store of
#          producer_pos.  (libbpf's ringbuf_process_ring() has smp_load_acquire() here.)
#     B|C  No data are older than the header that says they are whole: pairs with the xchg.  A copy
#          loads its bytes in any order, so headers that were read with the data prove nothing:
#          they are copied first, by themselves.  (libbpf: smp_load_acquire() of each header.)
#     C|D  Nothing is loaded after its place was given back: pairs with reserve's
#          smp_load_acquire() of consumer_pos.  (libbpf: smp_store_release().)
#     D|A  The store is out before we look for the last time: either this A and B see a record, or
#          its commit sees that we have come up to it, and wakes us.  It takes a full barrier, store
#          before load, on every machine.  (libbpf has none, epoll_wait() looks once more.)
# x86 keeps loads in order, and loads before later stores: there only D|A needs a barrier.  Python
# has no instruction for one, but membarrier(2) with MEMBARRIER_CMD_GLOBAL_EXPEDITED (4.16) is one
# in its caller, registered or not (membarrier_global_expedited(): smp_mb() at both ends; it leaves
# early where one CPU is online, which needs none).  PRIVATE_EXPEDITED is not: it returns at once in
# a process of one thread.  The interpreter's loads and stores of a position are single
# instructions, in the order of the program.

_HEADER_BYTES = 8  # struct bpf_ringbuf_hdr
_BUSY, _DISCARDED = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
_LENGTH_MASK = _DISCARDED - 1  # the other bits of the header's first word
_MAX_TRIES = 100  # to read what programs keep overwriting
_DRAIN_BYTES = 1 << 16  # copied at a time: so much stays in the processor's cache
_MAX_SUBMITTED_BYTES = (1 << 24) - 1  # DYNPTR_MAX_SIZE, what bpf_user_ringbuf_drain() takes
_LONG_MASK = (1 << 8 * sizeof(ctypes.c_long)) - 1  # positions wrap


class Records(_Generic[_Value]):
    """The records of a ring buffer, read as programs write them.  Made by Map.records.

        for record in m.records(Event): ...         # waits; ends when another thread closes it
        records.read(timeout=0.5)                   # a list: all that is there, as soon as any is
        loop.add_reader(records.fileno(), lambda: handle(records.read(0)))

    lost       bytes, headers included, that were overwritten before they could be read: records
               that are gone can't be counted

    A record that a program has reserved but not yet committed (busy) holds back those behind it;
    discarded ones are left out.

    What read() returns is consumed as it returns: whoever is killed with it has had it.  What a
    loop is given is consumed when it asks for more, about 64 KiB of records at a time, when it is
    left, and by close(): a process that is killed in it leaves the last of them to the next
    reader as well, and takes along none that it was not given.

    The reader may outlive its Map.  Threads may share it: each record goes to one.  In a child of
    fork() it raises ValueError.
    """

    lost: int

    def __init__(self, m, value=None, peek=False):
        if m.type != BPF_MAP_TYPE_RINGBUF:
            raise _no_ring_error("records", m)
        self._about, self._is_peek, self.lost = m._about, bool(peek), 0
        self._overwrites = bool(m.flags & BPF_F_RB_OVERWRITE)
        self._size, self._make, self._finish = _record_type(m, value)
        self._turns = _Turns(m._about)
        self._batch = None  # the _RecordBatch read last, until it is settled
        self._is_stalled = False  # the next record is busy
        waiter, self._key = _new_waiter(m, self._is_peek), (os.getpid(), m.id)
        if self._is_peek:
            ring = _RingMemory(m)
            self._position = ring.producer.load()
        else:
            is_taken, ring = _claim_ring(_consumers, m, lambda: _RingMemory(m, "consumer"))
            if is_taken:
                del ring, waiter  # the error's traceback must keep neither
                raise _taken_error(m)
        self._open = ring, waiter  # None when it is closed

    def __repr__(self) -> str:
        how = "peeking" if self._is_peek else "consuming"
        return "<Records of %s, %s>" % (self._about, how if self._open else "closed")

    def _ring_and_waiter(self):
        """Return (_RingMemory, _Waiter); ValueError if the reader is closed."""
        if self._open is None:
            raise ValueError("these records are closed")
        return self._open

    def fileno(self) -> int:
        """Return a descriptor that select, poll, epoll and asyncio find readable when there may be
        records: read(0) then.  While peeking it is so every 10 ms.
        """
        return self._ring_and_waiter()[1].number

    def read(self, timeout: "Optional[float]" = None) -> "List[_Value]":
        """Return a list of the records that are there, of many those of about 64 KiB.

        timeout    seconds to wait for the first one; None: as long as it takes; 0: not at all
        returns    []: there was none, or close() was called meanwhile
        raises     LayoutError: the next record has not the size of value; it is the error's .record
                   and consumed.  IterationAborted: the buffer holds what no kernel writes.
                   ValueError: closed, or in a child of fork()
        """
        self._ring_and_waiter()
        deadline = _deadline(timeout)
        while True:
            batch = self._awaited(deadline, self._consumed)
            values = [] if batch is None else list(batch.values)
            if values or batch is None:  # else another thread was given them
                return values

    def __iter__(self) -> "Iterator[_Value]":
        """Return an iterator over the records, which waits for more.

        raises     as read
        """
        self._ring_and_waiter()
        return self._handed_out()

    def _handed_out(self):
        """Yield record after record, batch by batch.

        A batch is consumed when the next one is asked for, or the loop is left.
        """
        try:
            values = iter(())
            while values is not None:
                yield from values
                values = self._awaited(None, _values_of)
        finally:
            self._leave()

    def close(self) -> None:
        """Give the buffer back: who waits for records gets none any more.  Twice is fine."""
        opened, self._open = self._open, None
        if opened is None or opened[0].process != os.getpid():  # a child would wake its parent
            return
        opened[1].wake()
        self._leave()
        if not self._is_peek:
            _consumers.pop(self._key, None)

    def __enter__(self) -> "Self":
        self._ring_and_waiter()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self):
        raise TypeError("records cannot be pickled or copied")

    # One drain: _awaited waits and takes its turn; _take, in that turn, settles the last batch
    # and reads the next one (_next_batch); settling moves the consumer's position (_move).

    def _leave(self):
        """Consume what was handed out, also after a close() in the middle of a drain."""
        batch = self._batch
        if batch is not None and batch.ring.process == os.getpid():
            self._turns.take(self._settle, None)

    def _awaited(self, deadline, take):
        """Wait for the next batch and return take(batch).

        None if the reader is closed or nothing comes before the deadline.
        """
        while True:
            opened = self._open
            if opened is None:
                return None
            # before the lock is taken: in a child of fork() nobody may be there to release it
            opened[0].check_process(self._about)
            taken = self._turns.take(partial(self._take, opened, take))
            if taken is not None:
                return taken
            left = deadline and deadline()
            if left is not None and left <= 0:
                return None
            opened[1].wait(left, self._is_stalled)

    def _take(self, opened, take):
        """Return take() of the next batch, None if there is none; opened is what _awaited saw."""
        if self._open is not opened:
            return None
        ring, waiter = opened
        waiter.catch_up()
        self._settle()
        if self._batch is None:
            self._batch = self._next_batch(ring)
        return self._batch and take(self._batch)

    def _settle(self):
        """Consume what was handed out of the last batch, and forget the rest of it."""
        batch = self._batch
        if batch is None:
            return
        if not self._is_consumed(batch):
            self._move(batch.ring, batch.handed_out())
        elif batch.values.__length_hint__():
            # It is consumed but not handed out: an exception came in between.  Keep it.
            return
        self._batch = None

    def _consumed(self, batch):
        """Consume a batch, and return it."""
        if not self._is_consumed(batch):
            self._move(batch.ring, batch.end)
        return batch

    def _place(self, ring):
        """Return the position up to which all is consumed, or was peeked at."""
        return self._position if self._is_peek else ring.consumer.load()

    def _is_consumed(self, batch):
        """Whether a batch is consumed.

        The position itself tells.  A flag beside it could be wrong after an exception between the
        two; then the position would be set back to what programs have overwritten since.
        """
        return _has_reached(self._place(batch.ring), batch.end)

    def _move(self, ring, position):
        """Go on to a position; never back to what another reader of the map consumed meanwhile."""
        if not _has_reached(position, self._place(ring)):
            return
        if self._is_peek:
            self._position = position
        else:
            ring.consumer.store(position)
            ring.settle()  # D|A

    def _next_batch(self, ring):
        """Return the next _RecordBatch.

        None if there is no record, or if after _MAX_TRIES there still is none that is neither
        discarded nor overwritten: the time limit has to be looked at again.
        """
        self._is_stalled = False
        for _ in range(_MAX_TRIES):
            position, unread = self._unread(ring)
            if not unread:
                return None
            starts, lengths, used, following = self._headers(ring, position, unread)
            at = position & ring.size - 1
            raw = bytes(ring.data[at : at + used])
            ring.order()  # C|D
            if self._is_overwritten(ring, position):
                self._skip(ring, position)
                continue
            if following > unread and not used:
                words = (self._about, following - used, unread - used)
                raise IterationAborted("%s: a record of %d bytes where there are %d" % words)
            if not used:
                self._is_stalled = True
                return None
            if not starts:  # all of them are discarded
                self._move(ring, position + used & _LONG_MASK)
                continue
            return self._decoded(ring, _RecordBatch(ring, starts, position, used), raw, lengths)
        return None

    def _unread(self, ring):
        """Return (the position to read on at, how many bytes there are)."""
        for _ in range(_MAX_TRIES):  # positions may move between the two loads
            end = ring.producer.load()
            ring.order()  # A|B
            position = self._place(ring)
            if self._is_overwritten(ring, position):
                self._skip(ring, position)
                continue
            unread = end - position & _LONG_MASK
            # a producer leaves 8 bytes free at least
            if unread < ring.size and not unread % 8 and not position % 8:
                return position, unread
        words = (self._about, position, end)
        raise IterationAborted("%s: positions that no kernel writes, %d and %d" % words)

    def _headers(self, ring, position, unread):
        """Return what _records_in tells of a copy of the unread bytes.

        The copy is as long as it takes to hold at least one record.
        """
        at, wanted = position & ring.size - 1, _DRAIN_BYTES
        while True:
            span = min(unread, wanted)
            found = _records_in(memoryview(bytes(ring.data[at : at + span])).cast("I"))
            ring.order()  # B|C
            used, following = found[2:]
            if used or following <= span or following > unread:
                return found
            wanted = following

    def _oldest(self, ring):
        """Return the position of the oldest record that is not overwritten."""
        return (ring.overwritten if self._overwrites else ring.consumer).load()

    def _is_overwritten(self, ring, position):
        """Whether a program may have written, or be writing, over what stood at a position.

        It may if the oldest record that is left begins after it.  Where a program says so itself
        (overwrite_pos, which it stores first) that is enough; else the producer must also have come
        round to the position.  __bpf_ringbuf_reserve() writes a header before it stores
        producer_pos, hence ">=".

        On machines that reorder stores, a program's next stores may be seen before that of the
        position, for as long as they take to leave the processor.  The barrier before this takes
        far longer than that, but it is no proof.
        """
        if not (self._is_peek or self._overwrites):
            return False
        oldest = self._oldest(ring)
        if oldest == position or not _has_reached(oldest, position):
            return False
        return self._overwrites or ring.producer.load() - position & _LONG_MASK >= ring.size

    def _skip(self, ring, position):
        """Go on with the oldest record, and count what is lost."""
        oldest = self._oldest(ring)
        self.lost += oldest - position & _LONG_MASK
        self._move(ring, oldest)

    def _decoded(self, ring, batch, raw, lengths):
        """Return the batch with its values, cut off before the first record of another size."""
        starts = batch.starts
        if self._size is None:
            batch.values = iter([raw[at : at + size] for at, size in zip(starts, lengths)])
            return batch
        if lengths.count(self._size) != len(lengths):
            odd = next(place for place, size in enumerate(lengths) if size != self._size)
            if not odd:
                raise self._wrong_size_error(ring, batch, raw[starts[0] : starts[0] + lengths[0]])
            batch.used = starts[odd] - _HEADER_BYTES
            del starts[odd:]
        made = map(self._make, repeat(raw), starts)
        batch.values = iter(list(map(self._finish, made) if self._finish else made))
        return batch

    def _wrong_size_error(self, ring, batch, record):
        """Consume a record that is not of the type's size; return the error, which holds it."""
        used = batch.starts[0] - _HEADER_BYTES + _record_bytes(len(record))
        words = (self._about, len(record), self._size)
        error = LayoutError("%s: a record of %d bytes, the type has %d" % words)
        error.record = record
        self._move(ring, batch.position + used & _LONG_MASK)
        return error


def _record_type(m, value):
    """Return (size, make, finish) of the type of records: finish(make(buffer, offset)) is a record.

    size None: records are bytes, of any size.  finish None: make is all.
    """
    if value is None or value is bytes:
        return None, None, None
    if isinstance(value, str):
        value = _c_text_layout(value, _TypeNames(m).layout)
    is_layout = isinstance(value, Layout)
    ctype = value.ctype() if is_layout else value
    size = value.size if is_layout else _class_layout(ctype, "record").size
    if _is_char_array(ctype) or is_layout and _is_array(ctype):
        ctype = _byte_array(ctype)
    return size, _copier(ctype), _get_value if _is_scalar(ctype) else None


def _has_reached(position, other):
    """Whether a position is at another one or ahead of it.

    Positions wrap, so one is behind if it is more than half the range of a long ahead.
    """
    return position - other & _LONG_MASK <= _LONG_MASK >> 1


def _values_of(batch):
    """Return the iterator over a batch's records: what a loop takes of it."""
    return batch.values


def _deadline(seconds):
    """Return a function that tells how many of these seconds are left, None for no limit."""
    if seconds is None:
        return None
    from time import monotonic

    end = monotonic() + seconds
    return lambda: end - monotonic()


# Errors are made in functions of their own.  A frame that raises an error it has a name for is part
# of a reference cycle, so all that its locals hold (a reader with its claim) would stay until the
# next garbage collection.


def _taken_error(m):
    """Return the error for a ring buffer that another reader of the process consumes."""
    detail = "this process has a reader that consumes its records already"
    error = _error(errno.EBUSY, "records", m._about, detail=detail)
    error.hint = "close that one, or look on with peek=True"
    return error


def _no_ring_error(operation, m):
    """Return the error for an operation ("records", "submit") that this type of map lacks."""
    error = _error(ENOTSUPP, operation, m._about, detail="it has no %s" % operation)
    error.hint = {
        BPF_MAP_TYPE_RINGBUF: "programs write to this ring buffer: read it with records()",
        BPF_MAP_TYPE_USER_RINGBUF: "programs read this ring buffer: write to it with submit(value)",
        BPF_MAP_TYPE_PERF_EVENT_ARRAY: "its records are in the buffers of perf_event_open(2)",
    }.get(m.type)
    return error


class _RecordBatch:
    """Records that were read together.

    position, used   where they are in the ring, headers included
    starts           where the bytes of each record begin, counted from position
    values           an iterator over the records that have not been handed out yet
    rest             records that were given up instead
    """

    __slots__ = ("ring", "values", "starts", "position", "used", "rest")

    def __init__(self, ring, starts, position, used):
        self.ring, self.starts, self.position, self.used = ring, starts, position, used
        self.values, self.rest = iter(()), []

    @property
    def end(self):
        return self.position + self.used & _LONG_MASK

    def handed_out(self):
        """Return the position behind what was handed out; give up what is left."""
        self.rest.extend(self.values)  # one step: no exception comes in the middle
        left = len(self.rest)
        if not left:
            return self.end
        return self.position + self.starts[-left] - _HEADER_BYTES & _LONG_MASK


def _records_in(words):
    """Parse the records that a copy of the ring begins with; words are the copy as u32.

    returns    (starts, lengths, used, following).  starts and lengths are of the bytes of each
               record that is neither busy nor discarded.  used is where parsing ended: at the end
               of the copy, at a busy record, or at one that the copy does not hold whole; then
               following is where that one ends, else 0
    """
    end, first = 4 * len(words), words[0]
    if first < _DISCARDED:  # if all records have the size of the first, it goes without a loop
        step = _record_bytes(first)
        headers, whole = words[:: step >> 2].tolist(), end // step
        if headers.count(first) == len(headers):
            used = whole * step
            following = used + step if used < end else 0
            starts = range(_HEADER_BYTES, used + _HEADER_BYTES, step)
            return starts, [first] * whole, used, following
    starts, lengths, at = [], [], 0
    while at < end:
        length = words[at >> 2]
        if length & _BUSY:
            break
        following = at + ((length & _LENGTH_MASK) + 15 & -8)  # as _record_bytes()
        if following > end:
            return starts, lengths, at, following
        if length < _DISCARDED:
            starts.append(at + _HEADER_BYTES)
            lengths.append(length)
        at = following
    return starts, lengths, at, 0


def _record_bytes(length):
    """Return how many bytes of the ring a record of length bytes takes, with its header."""
    return (length + _HEADER_BYTES + 7) & ~7


class _Turns:
    """Lets one step be taken at a time, by whichever thread, and none inside of another."""

    __slots__ = ("_about", "_lock", "_inside")

    def __init__(self, about):
        self._about, self._lock, self._inside = about, RLock(), allocate_lock()

    def take(self, step, *otherwise):
        """Return step(), after that of any other thread.

        A signal handler or finalizer that runs in the middle of this thread's own step gets
        otherwise, or ValueError if that is not given.
        """
        with self._lock:  # waits for other threads; this one may hold it already
            if not self._inside.locked():
                with self._inside:
                    return step()
        if not otherwise:
            raise ValueError("%s is in use by the call that was interrupted" % self._about)
        return otherwise[0]


# Claims: (process id, map id) -> weak reference to what consumes the ring buffer, or submits to it,
# in this process.  There must be no more than one of each: they would overwrite its position.
_consumers = {}  # type: dict
_submitters = {}  # type: dict
# process id -> the lock of its claims: one that a child of fork() inherits may be taken for good
_ring_locks = {}  # type: dict


def _claim_ring(claims, m, make):
    """Return (True, what this process has claimed the map's ring with), else (False, make())."""
    key = os.getpid(), m.id
    with _ring_locks.setdefault(key[0], RLock()):
        known = claims.get(key, lambda: None)()
        if known is None:
            made = make()
            claims[key] = weak_reference(made)
            return False, made
    return True, known


def _new_waiter(m, is_peek):
    """Return a _Waiter for a ring buffer; what the system refuses it is a SyscallError."""
    try:
        return _Waiter(m._live(), is_peek)
    except OSError as failure:
        code = failure.errno
    # raised here, not above, as the frames of that failure hold descriptors
    raise _error(code, "epoll", m._about)


class _Waiter:
    """Waits until a ring buffer has records, or until close() in another thread.

    The kernel wakes only a reader that has consumed everything.  One that peeks consumes nothing,
    so a timer wakes it now and then.
    """

    PEEK_NS, STALLED_SECONDS, LONGEST_SECONDS = 10 * 10**6, 0.001, 86400

    def __init__(self, owner, is_peek):
        import select

        self.owner = owner  # holds the descriptor that epoll watches
        # An eventfd: it is readable once close() was called.  It is one descriptor; the two of a
        # pipe could not both be given an _Fd before an exception comes.
        self._closed = _event()
        self._closing, self._epoll = select.poll(), select.epoll()
        self._closing.register(self._closed.number, select.POLLIN)
        self._epoll.register(self._closed.number, select.EPOLLIN)
        # what was peeked at stays there until its owner consumes it: wake up only for what is new
        edge = select.EPOLLET if is_peek else 0
        self._epoll.register(owner.number, select.EPOLLIN | edge)
        self._timer = _ticking(self.PEEK_NS) if is_peek else None
        if self._timer:
            self._epoll.register(self._timer.number, select.EPOLLIN)
        self.number = self._epoll.fileno()

    def wait(self, seconds, is_stalled):
        """Wait so many seconds (None: for ever) for something new, or for close().

        is_stalled: there is a busy record.  The kernel does not tell when it is committed, and
        epoll finds it readable already, so sleep for a moment.
        """
        if is_stalled:
            shortest = self.STALLED_SECONDS
            seconds = shortest if seconds is None else min(seconds, shortest)
            self._closing.poll(seconds * 1000)
        else:
            self._epoll.poll(-1 if seconds is None else min(seconds, self.LONGEST_SECONDS))

    def catch_up(self):
        """Forget what epoll and timer have told so far: the caller is about to look himself."""
        if self._timer:
            self._epoll.poll(0)
            try:
                os.read(self._timer.number, 8)
            except BlockingIOError:
                pass

    def wake(self):
        """Wake all who wait, now and later: what is written is never read."""
        os.write(self._closed.number, struct.pack("=Q", 1))


def _event():
    """Return the _Fd of an eventfd that is not readable yet."""
    event = _Fd(ctypes.CDLL(None, use_errno=True).eventfd, 0, os.O_CLOEXEC)
    if event.number < 0:
        raise OSError(get_errno(), "eventfd: %s" % os.strerror(get_errno()))
    return event


def _ticking(every_ns):
    """Return the _Fd of a timerfd that becomes readable every so many nanoseconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    times = (ctypes.c_long * 4)(0, every_ns, 0, every_ns)  # struct itimerspec, of old time_t
    timer = _Fd(libc.timerfd_create, 1, os.O_NONBLOCK | os.O_CLOEXEC)  # CLOCK_MONOTONIC
    if timer.number < 0 or libc.timerfd_settime(timer.number, 0, times, None):
        raise OSError(get_errno(), "timerfd: %s" % os.strerror(get_errno()))
    return timer


class _Submitter:
    """Writes records to a ring buffer that programs read.  One for each map and process.

    Memory order: bpf_user_ringbuf_drain() loads producer_pos and the header with
    smp_load_acquire().  libbpf's user_ring_buffer__reserve() stores a busy header, then the
    position, and user_ring_buffer__submit() exchanges the header.  Here a record is whole before
    the position says that it is there: whoever is killed in between has written nothing, and no
    busy record keeps the program from what comes behind.
    """

    def __init__(self, m):
        self._ring, self._about = _RingMemory(m, "producer"), m._about
        self._turns = _Turns(m._about)

    def submit(self, raw):
        ring, wanted = self._ring, _record_bytes(len(raw))
        ring.check_process(self._about)
        if wanted > ring.size or len(raw) > _MAX_SUBMITTED_BYTES:
            largest = min(ring.size - _HEADER_BYTES, _MAX_SUBMITTED_BYTES)
            words = (self._about, len(raw), largest)
            raise LayoutError("%s: a record of %d bytes, at most %d fit in" % words)
        self._turns.take(partial(self._write, ring, raw, wanted))

    def _write(self, ring, raw, wanted):
        position, oldest = ring.producer.load(), ring.consumer.load()
        ring.order()  # what is read is read before its place is written to
        free = ring.size - (position - oldest & _LONG_MASK)
        if free < 0 or position % 8:
            words = (self._about, oldest, position)
            raise IterationAborted("%s: positions that no kernel writes, %d and %d" % words)
        if free < wanted:
            detail = "the map is full: %d bytes are wanted, %d free" % (wanted, free)
            raise _error(errno.ENOSPC, "submit", self._about, detail=detail, cls=MapFull)
        at = position & ring.size - 1
        record = struct.pack("=II", len(raw), 0) + raw
        ring.data[at : at + len(record)] = record
        ring.order()  # the record is there before the position that says so
        ring.producer.store(position + wanted & _LONG_MASK)


class _RingMemory:
    """The memory of a ring buffer: its positions and its data.

    writes      the position that is ours to move: "consumer", "producer" or None
    order()     barrier for all but a store before and a load behind it
    settle()    full barrier
    """

    def __init__(self, m, writes=None):
        import mmap

        page, data_bytes, long_bytes = mmap.PAGESIZE, m.max_entries, _kernel_long_bytes()
        consumer_page = memoryview(m._mapped(0, page, writes == "consumer"))
        rest = memoryview(m._mapped(page, page + 2 * data_bytes, writes == "producer"))
        self.size, self.data = data_bytes, rest[page:]
        self.consumer = _Position(consumer_page, 0, long_bytes)
        self.producer = _Position(rest[:page], 0, long_bytes)
        self.overwritten = _Position(rest[:page], 2, long_bytes)  # overwrite_pos, 7.0
        self.settle = _full_barrier
        self.order = _no_barrier if _nr_bpf in _X86_NUMBERS else _full_barrier
        self.settle()  # where there is no barrier nothing is begun
        self.process = os.getpid()
        if writes == "consumer":
            self.consumer.mend(self.producer, is_ahead=False)
        if writes == "producer":
            self.producer.mend(self.consumer, is_ahead=True)

    def check_process(self, about):
        """Refuse to go on in a child of fork(), which shares the memory with its parent."""
        if self.process != os.getpid():
            text = "%s: process %d opened it; open the map anew in this one"
            raise ValueError(text % (about, self.process))


class _Position:
    """A position in a ring buffer: the kernel's long number index in a page.

    A 32-bit program on a 64-bit kernel counts with the lower half alone, as two positions are never
    so far apart that it would not do.
    """

    __slots__ = ("_words", "_low", "_high")

    def __init__(self, page, index, long_bytes):
        self._words, self._low, self._high = page.cast("L"), index, None
        if long_bytes > sizeof(ctypes.c_long):
            low_first = sys.byteorder == "little"
            self._low, self._high = 2 * index + (not low_first), 2 * index + low_first

    def load(self):
        return self._words[self._low]

    def store(self, position):
        words, wraps = self._words, position < self._words[self._low]
        words[self._low] = position
        if wraps and self._high is not None:
            # In between the kernel sees a position that lies behind: nothing to read, or no room.
            _full_barrier()
            words[self._high] = words[self._high] + 1 & _LONG_MASK

    def mend(self, other, is_ahead):
        """Correct the upper half: this position is a little ahead of the other one, or behind it.

        It may be wrong if somebody was killed after storing the lower half, or if a 32-bit program
        with libbpf moved it, which knows no upper half.
        """
        if self._high is None:
            return
        high = None
        while high != other._words[other._high]:  # until it does not move while we look
            high = other._words[other._high]
            _full_barrier()
            low = other.load()
            _full_barrier()
        mine = self.load()
        wanted = high + (mine < low) if is_ahead else high - (mine > low)
        if self._words[self._high] != wanted & _LONG_MASK:
            self._words[self._high] = wanted & _LONG_MASK


# number of bpf(2) -> that of membarrier(2); both are in the same asm/unistd.h
_MEMBARRIER_NUMBERS = {
    321: 324,  # x86-64
    357: 375,  # i386
    _NR_X32: 0x40000000 + 324,
    280: 283,  # arm64, riscv, loongarch and all that came later
    386: 389,  # arm
    351: 356,  # s390
    361: 365,  # ppc
    4355: 4358,  # mips: o32, n64, n32
    5315: 5318,
    _NR_MIPS_N32: 6322,
    349: 351,  # sparc
    341: 343,  # parisc
    515: 517,  # alpha
    1341: 1344,  # ia64
    354: 374,  # m68k
    375: 378,  # sh
}
_X86_NUMBERS = frozenset((321, 357, _NR_X32))
_MEMBARRIER_CMD_GLOBAL_EXPEDITED = 1 << 1


def _full_barrier():
    """Be a full memory barrier; NotSupported where there is none to be had."""
    number = _MEMBARRIER_NUMBERS.get(_nr_bpf)
    code = errno.ENOSYS
    if number is not None:
        code = _libc_syscall(number, _MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0)
    if code:
        detail = "no memory barrier is to be had from membarrier(2)"
        error = _error(code, "membarrier", detail=detail, cls=NotSupported)
        error.hint = "a kernel without CONFIG_MEMBARRIER, a sandbox, or an unknown architecture"
        raise error


def _no_barrier():
    """Do nothing: where other machines need a barrier, x86 needs none."""


def _kernel_long_bytes():
    """Return the size of the kernel's long, in which it counts: 8, or 4 on a 32-bit kernel."""
    if sizeof(ctypes.c_long) == 8:
        return 8
    try:  # addresses there have the kernel's width, even if they are zeroed; uname(2) may be faked
        with open("/proc/kallsyms") as file:
            digits = len(file.read(17).partition(" ")[0])
    except OSError:
        digits = 0
    if digits in (8, 16):
        return digits // 2
    machine = os.uname().machine
    return 8 if "64" in machine or machine == "s390x" else 4


# ---- 7. Inspection ----------------------------------------------------------
# What there is in the kernel, and who uses it: maps() walks the ids of maps, pins() the mounted
# bpffs, users() the ids of programs and the descriptors in /proc.  Each looks anew, nothing is
# kept.  Maps, programs and processes come and go meanwhile, and some may not be seen: what is gone
# or hidden is left out.  Only maps() raises where the kernel refuses the very walk; the answers of
# the others are worth having without programs.
#
# _TypeNames finds types by name in the BTF that belongs to a map; _open_program finds programs.


def maps() -> "Iterator[MapInfo]":
    """Yield the MapInfo of every map in the kernel, by id; it takes CAP_SYS_ADMIN.

    raises     PermissionDenied, SyscallError
    kernel     BPF_MAP_GET_NEXT_ID, 4.13
    """

    def read(map_id):
        owner = _fd_by_id(map_id, BPF_F_RDONLY)
        try:
            return MapInfo(owner.number, "map %d" % map_id)
        finally:
            del owner  # and not kept by a traceback

    for _, info in _read_ids(BPF_MAP_GET_NEXT_ID, read):
        yield info


def pins(root: "Optional[_Path]" = None) -> "Dict[int, List[str]]":
    """Return {map id: [path, ...]} of the maps that are pinned; what may not be read is left out.

    root       look below it; None: on every mounted bpffs
    raises     BPFError: a root that is no directory of a bpffs, nor holds any
    """
    found = {}  # type: Dict[int, List[str]]
    for top in _bpffs_tops(root):
        for directory, _, names in os.walk(top):
            for name in names:
                path = os.path.join(directory, name)
                try:
                    with Map.from_pin(path) as pinned:
                        paths = found.setdefault(pinned.id, [])
                except SyscallError:  # a program's pin, a link's, no pin at all, or not for us
                    continue
                if path not in paths:
                    paths.append(path)
    return found


def _bpffs_tops(root):
    """Return the directories below which pins looks, for its root."""
    mounts = _bpffs_mounts()
    if root is None:
        return mounts or ["/sys/fs/bpf"]
    root = os.fsdecode(root)
    if not os.path.isdir(root):
        raise BPFError("%s is no directory" % root)
    if not mounts or _in_bpffs(root):  # without /proc nobody can tell
        return [root]
    inside = os.path.realpath(root).rstrip("/") + "/"
    below = [mount for mount in mounts if mount.startswith(inside)]
    if not below:
        where = ", ".join(mounts)
        text = "%s is in no bpffs, nor is one below it; mounted are: %s"
        raise BPFError(text % (root, where))
    return below


def users(map_id: int, asking: "Iterable[_Descriptor]" = ()) -> "Dict[str, List[str]]":
    """Return who uses a map, as far as one may see: {"progs": ["7 name"], "pids": ["comm(pid)"]}.

    asking     descriptors of this process, or Maps, that were opened to ask: they alone make it
               no user of the map
    """
    found = {"progs": [], "pids": []}  # type: Dict[str, List[str]]
    for prog_id, info in _programs_of(map_id):
        found["progs"].append(("%d %s" % (prog_id, info.name.decode("latin-1"))).strip())
    asking_numbers = {str(_fd_number(one)) for one in asking}
    processes = filter(str.isdecimal, os.listdir("/proc") if os.path.isdir("/proc") else ())
    for pid in sorted(map(int, processes)):
        try:
            if _holds(pid, map_id, asking_numbers if pid == os.getpid() else ()):
                comm = os.fsdecode(_read_text("/proc/%d/comm" % pid).encode("latin-1")).rstrip("\n")
                found["pids"].append("%s(%d)" % (comm, pid))
        except OSError:  # gone, or not ours to see
            continue
    return found


def _holds(pid, map_id, ignored):
    """Return whether a process has a descriptor of a map, other than those of ignored numbers."""
    directory = "/proc/%d/fdinfo" % pid
    for number in os.listdir(directory):
        if number not in ignored:  # a descriptor closed meanwhile is an empty file
            if _colon_file("%s/%s" % (directory, number)).get("map_id") == str(map_id):
                return True
    return False


def _programs_of(map_id):
    """Yield (id, bpf_prog_info) of the programs that use a map, as far as one may see them."""
    try:
        for prog_id, (info, map_ids) in _read_ids(BPF_PROG_GET_NEXT_ID, _prog_info):
            if map_id in map_ids:
                yield prog_id, info
    except SyscallError:  # programs are not ours to see
        return


def _prog_fd(prog_id):
    """Return the _Fd of a program."""
    attr = bpf_attr()
    attr.get_id.start_id = prog_id
    return _Fd(_bpf, BPF_PROG_GET_FD_BY_ID, attr, "program %d" % prog_id)


def _prog_info(prog_id):
    """Return (bpf_prog_info, its map ids) of a program."""
    owner, about, info = _prog_fd(prog_id), "program %d" % prog_id, bpf_prog_info()
    try:
        _info_by_fd(owner.number, info, about)
        ids = (u32 * info.nr_map_ids)()
        info = bpf_prog_info(nr_map_ids=len(ids), map_ids=addressof(ids))
        _info_by_fd(owner.number, info, about)
        return info, list(ids)
    finally:
        del owner  # closes it now, also where a traceback would keep it


class _TypeNames:
    """Finds the types that C text names: in the BTF of a map or of the programs that use it, else
    in the kernel's.

    Where btf is given (--btf), that stands for the programs' and the kernel's.  Of a capture there
    is only its own, and btf.
    """

    def __init__(self, source, btf=None):
        self.source, self.btf = source, btf
        self._read = {}  # type: dict  # _near and _kernel -> what they yield

    def layout(self, kind, name):
        """Return the Layout of a type of a kind ("struct" ...) or any, None if there is none.

        raises LayoutError for one that can't be read, or that is not the same in all programs
        """
        for look in (self._near, self._kernel):
            found = {}  # type: dict
            for btf in self._btfs(look):
                try:
                    type_id = btf.find(name, kind)
                except BTFError:
                    continue
                try:
                    found[btf.layout(type_id)] = True
                except BTFError as failure:
                    raise LayoutError(str(failure)) from None
            if len(found) > 1:
                words = (_printable(name), self.source._about)
                raise LayoutError("'%s' is not one type in the BTF of the programs of %s" % words)
            if found:
                return next(iter(found))
        return None

    def _btfs(self, look):
        """Return what _near or _kernel yields, read once: a text may have many names."""
        if look not in self._read:
            self._read[look] = list(look())
        return self._read[look]

    def _near(self):
        """Yield the BTF of the source, the one that was given, and that of programs that use it."""
        for btf in (self.source.btf, self.btf):
            if btf:
                yield btf
        if self.btf or not isinstance(self.source, Map):
            return
        btf_ids = {info.btf_id for _, info in _programs_of(self.source.id)}
        for btf_id in sorted(btf_ids - {0, self.source.info.btf_id}):
            try:
                btf = BTF.from_id(btf_id)
            except (SyscallError, BTFError):  # gone meanwhile, or none that can be read
                continue
            yield btf

    def _kernel(self):
        """Yield the BTF of the running kernel, if it is the source's and can be had."""
        if self.btf is None and isinstance(self.source, Map):
            try:
                yield BTF.from_vmlinux()
            except (SyscallError, BTFError):
                pass


def _open_program(spec):
    """Return the descriptor of the program that "id N", "pinned PATH", "tag T" or "name S" says."""
    kind, _, which = spec.partition(" ")
    if kind == "pinned":
        return _Fd(_obj_cmd, BPF_OBJ_GET, which)
    text_of = {
        "id": lambda prog_id, info: str(prog_id),
        "tag": lambda prog_id, info: bytes(info.tag).hex(),
    }.get(kind, lambda prog_id, info: info.name.decode("latin-1"))
    programs = _read_ids(BPF_PROG_GET_NEXT_ID, _prog_info)
    found = [prog_id for prog_id, (info, _) in programs if text_of(prog_id, info) == which]
    if len(found) != 1:
        raise ValueError("%d programs are '%s'" % (len(found), spec))
    return _prog_fd(found[0])


# ---- 8. Views and captures --------------------------------------------------
# What becomes of entries: text in several forms, histograms, metrics, captures.
#
# A source is a Map opened with bytes as key and value, or a Capture.  A View is a source with what
# its keys and values mean.  It reads entries in chunks, (keys, values, count): the bytes of a few
# thousand keys, one behind the other, and those of their values, of a per-CPU map one for each CPU.
# Outputs take chunks and yield text, so that maps of any size are shown in little memory.
#
#   _EntryTexts      json_lines (--ndjson), bpftool (-j), words (for people), hexadecimal (--hex)
#   View             the entries of a source and their types, with these forms
#   _slots_of        where a map has histograms; a _Numbering is what their slots stand for
#   _Families        metrics (--metrics): all that a run prints, each map's by a _MapMetrics
#   capture, Capture a map written to a file, and read back as a source
#
# A new output form, --yaml say:
#   section 4   how numbers, text, records and arrays are spelled is a _Form, listed behind _FORMS,
#               which gives a Layout a new reader; nothing else decodes a value
#   here        a method of _EntryTexts, which puts what the readers of key_layout and value_layout
#               give into lines, as json_lines does
#   section 9   its option (see there), and _form_of, which chooses: dump, lookup, peek, pop and
#               events then have it.  These ask for the form by themselves: _print_unread (an entry
#               that can't be read), _dump_one (the line "Found N elements"), _hint_at_json,
#               _open_views (several maps), _key_text (getnext), _RecordView (records of no bytes);
#               show, watch and hist, whose output is no entries
#   README      the table of options
#
# Widths: words lines values up behind the widest key so far, of at most 60 characters.  The tables
# of columns that terminals get are made in section 9, of the form "cells": a column is as wide as
# its head and the widest text of the first chunk.  The bars of histograms are drawn there, too.


class _EntryTexts:
    """The forms of text that entries have, a method for each: it takes chunks and yields text.

    Text of a chunk is made in few steps for all entries: a template of one entry, such as
    '{"key":%d,"value":{"a":%d,"b":"%s"}}', and for each entry the tuple that fills it.  Key and
    value give a part of the template each, and a function from bytes to an iterator over tuples.
    The pair of them is called columns here.

    What it is about, .info, .key_layout, .value_layout, .cpus and .slot, is told by View, and for
    bpftool's form .source.
    """

    width = 0  # of the widest key so far, in words
    adds_up = False  # whether the CPUs' values are shown as one
    json_suffix = ""  # " strings": JSON has numbers of more than 53 bits as strings

    @property
    def cpus_shown(self):
        """The CPUs whose values are shown apart, none where there is one value."""
        return () if self.adds_up else self.cpus

    @property
    def cpus_added(self):
        """How many values are shown as one."""
        return max(len(self.cpus), 1) if self.adds_up else 1

    def _columns(self, layout, form, stride=None, cpus=1):
        """Return (template, f(raw) that iterates over what fills it) of a layout in a form.

        A layout that has no one template, as where unions choose a branch, fills "%s" with text.
        """
        reader = layout.reader(form, stride, cpus)
        if reader.template is not None:
            return reader.template, reader.rows
        return "%s", lambda raw: zip(reader.read(raw))

    def _of_value(self, columns):
        """Return columns of JSON's "value", or "values" with one for each CPU, from those of one
        CPU's value.
        """
        template, rows = columns
        if not self.cpus_shown:
            return '"value":' + template, rows
        each = ['{"cpu":%d,"value":' % cpu + template + "}" for cpu in self.cpus]
        count = len(self.cpus)

        def of_all_cpus(raw):
            groups = zip(*[iter(rows(raw))] * count)
            return map(tuple, map(chain.from_iterable, groups))

        return '"values":[%s]' % ",".join(each), of_all_cpus

    def json_lines(self, chunks):
        """Yield text: a line of JSON for each entry."""
        form = "json" + self.json_suffix
        value, value_rows = self._of_value(
            self._columns(self.value_layout, form, self.slot, self.cpus_added)
        )
        if not self.info.key_size:
            line = "{%s}" % value
            for _, values, _ in chunks:
                yield "\n".join(map(line.__mod__, value_rows(values)))
            return
        key, key_rows = self._columns(self.key_layout, form)
        line = '{"key":%s,%s}' % (key, value)
        for keys, values, _ in chunks:
            rows = map(add, key_rows(keys), value_rows(values))
            yield "\n".join(map(line.__mod__, rows))

    def bpftool(self, chunks):
        """Yield text: entries as bpftool's JSON has them, one behind the other with commas.

        An entry has parts: "key" and "value" as bytes, "inner_map_id", and "formatted" by BTF.
        """
        parts = self._bpftool_parts()
        line = "{%s}" % ",".join([template for template, _, _ in parts])
        for keys, values, _ in chunks:
            raws = {"key": keys, "value": values}
            texts = [texts_of(raws[what]) for _, what, texts_of in parts]
            text = ",".join(map(line.__mod__, zip(*texts)))
            yield text.replace(_BETWEEN_BYTES, '","0x')

    def _bpftool_parts(self):
        """Return [(template with one %s, "key" or "value", f(raw) that gives a text for each)] of
        an entry as bpftool has it.
        """
        parts = []
        if self.info.key_size:
            hex_of = _hex_column(self.info.key_size, _BETWEEN_BYTES)
            parts.append(('"key":["0x%s"]', "key", hex_of))
        else:
            parts.append(('"key":[]%s', "value", lambda raw: repeat("")))
        hex_of = _hex_column(self.info.value_size, _BETWEEN_BYTES, self.slot)
        if self.cpus:
            columns = '["0x%s"]', lambda raw: zip(hex_of(raw))
            parts.append(self._text_part("", "value", self._of_value(columns)))
        else:
            parts.append(('"value":["0x%s"]', "value", hex_of))
        if self.info.type in _OF_MAPS_TYPES:  # from bpftool 7.5 on
            unpack = struct.Struct(_ORDER_MARKS[self.source.order] + "I").iter_unpack
            parts.append(self._text_part('"inner_map_id":', "value", ("%d", unpack)))
        return parts + self._formatted_parts()

    def _text_part(self, before, what, columns, after=""):
        """Return a part, as of _bpftool_parts, whose text is filled columns between two texts."""
        template, rows = columns
        fill = template.__mod__
        return before + "%s" + after, what, lambda raw: map(fill, rows(raw))

    def _formatted_parts(self):
        """Return the parts of "formatted", what BTF makes of an entry; none where BTF has no type
        for the values.  What the user gave as types does not count: bpftool knows none.
        """
        layouts = {what: _layout_by_btf(self.source, what) for what in ("key", "value")}
        if layouts["value"] is None or not self.info.key_size:
            return []
        form = "bpftool" + self.json_suffix
        value = self._of_value(self._columns(layouts["value"], form, self.slot))
        if layouts["key"] is None:
            return [self._text_part('"formatted":{', "value", value, "}")]
        key = self._columns(layouts["key"], form)
        return [
            self._text_part('"formatted":{"key":', "key", key),
            self._text_part("", "value", value, "}"),
        ]

    def bpftool_entry(self, key, value):
        """Return one entry as bpftool's JSON."""
        return "".join(self.bpftool([self.chunk_of([(key, value)])]))

    def texts(self, layout, raw, stride=None, cpus=1):
        """Return a list with words for people of each of the keys or values in raw."""
        return list(layout.reader("words", stride, cpus).read(raw))

    def words(self, chunks):
        """Yield text: a line to read for each entry, of a per-CPU map one for each CPU."""
        for keys, values, count in chunks:
            heads = [""] * count
            if self.info.key_size:
                heads = [text + ": " for text in self.texts(self.key_layout, keys)]
            self.width = max([self.width] + [min(len(head), 60) for head in heads])
            texts = self.texts(self.value_layout, values, self.slot, self.cpus_added)
            if self.cpus_shown:
                heads = self._for_each_cpu(heads)
                marks = ["[cpu %d] " % cpu for cpu in self.cpus] * count
                texts = map(add, marks, texts)
            line = "%%-%ds%%s" % self.width
            yield "\n".join(map(line.__mod__, zip(heads, texts)))

    def hexadecimal(self, chunks):
        """Yield text: the bytes of each entry, a line for each CPU's value, as bpftool prints it
        to people.
        """
        key_column = _hex_column(self.info.key_size, " ")
        value_column = _hex_column(self.info.value_size, " ", self.slot)
        line = "key: %s  value: %s" if self.info.key_size else "value: %s"
        if self.cpus:
            line = "key: %s  cpu %d  value: %s"
        for keys, values, _ in chunks:
            columns = [value_column(values)]
            if self.cpus:
                columns = [self._for_each_cpu(key_column(keys)), cycle(self.cpus)] + columns
            elif self.info.key_size:
                columns.insert(0, key_column(keys))
            yield "\n".join(map(line.__mod__, zip(*columns)))

    def _for_each_cpu(self, texts):
        """Return an iterator over texts of keys, each as often as it has values of CPUs."""
        return chain.from_iterable([repeat(text, len(self.cpus)) for text in texts])

    def chunk_of(self, entries):
        """Return a chunk of a list of (key, value), values of per-CPU maps being lists."""
        keys = b"".join([key for key, _ in entries])
        if not self.cpus:
            return keys, b"".join([value for _, value in entries]), len(entries)
        values_of_cpus = chain.from_iterable([value for _, value in entries])
        slots = [one.ljust(self.slot, b"\0") for one in values_of_cpus]
        return keys, b"".join(slots), len(entries)


# Stands in text for the '","0x' that bpftool has between bytes, since bytes.hex takes one character
# there.  JSON has no such character anywhere else, so one replace puts it right.
_BETWEEN_BYTES = "\x01"

# Entries in a chunk, and bytes: the text, several times as long, is to stay in the processor's
# cache.
_CHUNK_ENTRIES, _CHUNK_BYTES = 2048, 1 << 16
_MAX_SURPLUS = 1 << 20  # values of a capture, besides those that its bytes can hold


class View(_EntryTexts):
    """A source with what its keys and values mean: the types given, or BTF's, or numbers, or bytes.

    key, value     ctypes types, Layouts or C text, for which btf has names
    .key_layout, .value_layout   what they come to
    .cpus          the possible CPUs of per-CPU values, else empty
    .slot          bytes from one CPU's value to the next, or of a value
    .chunk_entries entries in a chunk, at most
    """

    query = None  # what of the entries a dump shows (_BoundQuery); None: all
    count = 0  # how many entries a dump has read so far (_dumped_chunks)

    def __init__(self, source, key=None, value=None, btf=None):
        self.source, self.info = source, source.info
        self.cpus = tuple(getattr(source, "cpus", ()))
        if self.info.type in _PERCPU_TYPES and not self.cpus:
            self.cpus = possible_cpus()
        self.key_layout = _view_layout(source, "key", key, btf)
        self.value_layout = _view_layout(source, "value", value, btf)
        if self.info.type == BPF_MAP_TYPE_LPM_TRIE:
            self.key_layout = _lpm_layout(self.key_layout)
        if self.info.type == BPF_MAP_TYPE_STACK_TRACE:
            self.value_layout = _stack_layout(self.value_layout, self.info.map_flags)
        if isinstance(source, Capture):
            self._take_meanings(source)
        self.slot = self.info.value_size
        if self.cpus and isinstance(source, Map):  # captures hold no padding
            self.slot = percpu_stride(self.slot)
        entry_bytes = self.info.key_size + self.slot * max(len(self.cpus), 1)
        self.chunk_entries = max(1, min(_CHUNK_ENTRIES, _CHUNK_BYTES // max(entry_bytes, 1)))

    def _named(self, found):
        """Return a layout whose names, of users or interfaces say, are those of the machine that
        the source is from.
        """
        is_from_here = isinstance(self.source, Map)
        return found if is_from_here else _with_names_of(found, self.source.names)

    def _take_meanings(self, captured):
        """Have shown what was asked for when a capture was made, where the types have it."""
        self.key_layout = self._named(self.key_layout)
        self.value_layout = self._named(self.value_layout)
        for field, word in captured.shown:
            try:
                self.show(field, word)
            except LayoutError:  # other types were given
                pass

    def show(self, field, word):
        """Have a field shown as what it means: of the value, else of the key; "key.NAME" of that.

        raises LayoutError: no such field or meaning, or one that can't be of it
        """
        known = []
        for what in ("value", "key"):
            path, found = field, getattr(self, what + "_layout")
            if field == what or field.startswith(what + "."):
                path = field[len(what) + 1 :]
            elif not isinstance(found, Record):
                continue
            try:
                setattr(self, what + "_layout", self._named(found.showing(path, word)))
                return
            except NoSuchField:
                known.append(found._labels_text())
        told = ", ".join(filter(None, known)) or "key and value"
        raise NoSuchField("no field '%s'; there are %s" % (field, told))

    # -- entries

    def entries(self):
        """Return an iterator over (key, value) as bytes; of a per-CPU map values are lists."""
        return self.source.items() if isinstance(self.source, Map) else self.source.entries()

    def chunks(self):
        """Yield (keys, values, count), the bytes of entries; a value is .slot bytes for each of
        .cpus, or once.
        """
        if not isinstance(self.source, Map):
            self._prove_affordable()
            yield from self.source.chunks(self.chunk_entries)
            return
        for keys, values in self.source.lookup_batch():
            count, keys, values = len(keys), bytes(keys), bytes(values)
            yield from self._pieces(keys, values, count)

    def _prove_affordable(self):
        """Raise ValueError for a capture whose entries would be far more values than it has bytes.

        Types in a hostile BTF may have many values in few bytes, and a capture many entries: text
        of all that would have no end.
        """
        cpus, count = max(len(self.cpus), 1), self.source.count
        layouts = {what: _layout_by_btf(self.source, what) for what in ("key", "value")}
        key, value = layouts["key"] or self.key_layout, layouts["value"] or self.value_layout
        values = max(key.values, self.key_layout.values)
        values += max(value.values, self.value_layout.values) * cpus
        size = self.info.key_size + self.info.value_size * cpus
        if count * (values - _VALUES_PER_BYTE * size) > _MAX_SURPLUS:
            words = (count, values, size)
            raise ValueError("a capture of %d entries, %d values in %d bytes: too many" % words)

    def _pieces(self, keys, values, count):
        """Yield a batch, which may be larger, in chunks."""
        key_size, value_size = self.info.key_size, self.slot * max(len(self.cpus), 1)
        if count <= self.chunk_entries:
            yield keys, values, count
            return
        for first in range(0, count, self.chunk_entries):
            end = min(first + self.chunk_entries, count)
            yield (
                keys[first * key_size : end * key_size],
                values[first * value_size : end * value_size],
                end - first,
            )


def _view_layout(source, what, given, btf):
    """Return the Layout of a source's keys or values: of the type given, or that which is found.

    what       "key" or "value"
    btf        has the types that are named in C text, see _TypeNames
    """
    info = source.info
    size = info.key_size if what == "key" else info.value_size
    if given is None:
        types = _INDEX_TYPES | _FD_KEY_TYPES if what == "key" else _NUMBER_VALUE_TYPES
        return _found_layout(source, what, size, info.type in types)
    if isinstance(given, str):
        found = _c_text_layout(given, _TypeNames(source, btf).layout)
    else:
        found = Bytes(size) if given is bytes else layout(given)
    if found.size != size:
        words = (what, info._about, size, found.name, found.size)
        told = "%s of %s has %d bytes in the map, %s has %d" % words
        raise LayoutError(told, *found.describe().split("\n"))
    return found


def _lpm_layout(found):
    """Return the layout of an LPM trie's keys, shown as 10.0.0.0/8 where it has a length of 4
    bytes and the bytes of an address.
    """
    has_parts = isinstance(found, Record) and len(found.parts) == 2 and not found.is_union
    if not has_parts or found.meaning or found.size not in MEANINGS["prefix"].sizes:
        return found
    length, data = [part.layout for part in found.parts]
    is_length = isinstance(length, Number) and length.size == 4 and not found.parts[0].offset
    if not is_length or isinstance(data, Array) and data.is_text:
        return found
    return found._changed(meaning=Meaning("prefix", is_asked=False))


def _stack_layout(found, map_flags):
    """Return the layout of a stack trace map's values: addresses, where nobody says otherwise."""
    is_open = found.meaning is None and isinstance(found, Bytes)
    if not is_open or map_flags & BPF_F_STACK_BUILD_ID or not MEANINGS["stack"].fits(found):
        return found
    return found._changed(meaning=Meaning("stack", is_asked=False))


# -- histograms: what the slots stand for, and where a map has them
#
# BPF programs count samples in slots: slot n of BCC has the numbers from 2^(n-1) to 2^n - 1, other
# tools number them otherwise (--slots).  A new numbering is a function that makes a _Numbering and
# a line in _NUMBERINGS.  Slots are either numbers in keys, the counts being the values (_KeySlots),
# or indices of an array in the values (_ArraySlots); _slots_of finds out.  Both give {slot: count},
# which hist draws (section 9) and metrics turn into buckets (_buckets).


class _Numbering:
    """What the slots of a histogram stand for, integers all of them.

    .word, .told   as --slots names it, and explained to people
    .start(slot)   the lowest number of a slot, None where there is none
    .first         the slot that a drawing begins with, None: the first in use
    .lowest, .last the first and last slots that there can be; .last None: no end
    .is_open       whether the last slot has no highest number
    """

    def __init__(self, word, told, start, first=None, lowest=0, last=None, is_open=False):
        self.word, self.told, self.start, self.first = word, told, start, first
        self.lowest, self.last, self.is_open = lowest, last, is_open
        self.is_plain = False  # drawn as a slot's lowest number alone
        self.labels = {}  # type: dict  # (slot, width) -> how it is drawn

    def is_wide(self, slots):
        """Return whether these slots are drawn in wide columns: with powers of two where BCC does
        so, else where a number needs it.
        """
        if self.word in ("log2", "bcc"):
            return slots[-1] > 32
        ends = self.bounds(slots[0]) + self.bounds(slots[-1])
        return max(len("%d" % end) for end in ends if end is not None) > 10

    def has(self, slot):
        """Return whether there can be a slot of this number."""
        return slot >= self.lowest and (self.last is None or slot <= self.last)

    def bounds(self, slot):
        """Return (lowest, highest number) of a slot, None at an open end."""
        if slot == self.last and self.is_open:
            return self.start(slot), None
        return self.start(slot), self.start(slot + 1) - 1

    def prove(self, slots):
        """Raise ValueError unless there can be all the slots."""
        wrong = [slot for slot in slots if not self.has(slot)]
        if wrong:
            others = ", ".join(word for word in _NUMBERINGS if word != self.word.split(":")[0])
            words = (wrong[0], self.word, others)
            told = "there is no slot %d where they are numbered as %s; --slots tells how: %s"
            raise ValueError(told % words)

    def bounded(self, used):
        """Return the slots whose bounds are those of buckets, in order; ValueError if they are too
        many.

        They begin where slots can begin, not with the first in use, so that the buckets are the
        same from run to run; the last is one that is empty, or open, as the bucket of +Inf.
        """
        self.prove(used)
        _prove_rows(used)
        if not used:
            return []
        first = min(used)
        if self.last is not None and first - self.lowest <= _MAX_ROWS_DRAWN:
            first = self.lowest
        return [slot for slot in range(first, max(used) + 2) if self.has(slot)]


_MAX_ROWS_DRAWN = 1 << 12


def _prove_rows(used):
    """Raise ValueError if there are too many slots from the first to the last in use."""
    if used and max(used) - min(used) > _MAX_ROWS_DRAWN:
        raise ValueError("slots %d to %d are too many" % (min(used), max(used)))


# What makes a _Numbering; numbers are those behind its word: (0, 100, 10) of lhist:0:100:10.


def _log2_slots(numbers):
    told = "slot n: 2^n to 2^(n+1) - 1, slot 0: 0 and 1"
    return _Numbering("log2", told, lambda slot: slot and 1 << slot, 0, last=63)


def _bcc_slots(numbers):
    told = "slot n: 2^(n-1) to 2^n - 1, slot 1: 0 and 1"
    start = _log2_slots(()).start
    return _Numbering("bcc", told, lambda slot: start(slot - 1), 1, lowest=1, last=64)


def _bpftrace_slots(numbers):
    bits = numbers[0] if numbers else 0
    if not 0 <= bits <= 5:
        raise ValueError("bpftrace's hist() has 0 to 5 bits, not %d" % bits)

    def start(slot):
        index = slot - 1  # each power of two has 2^bits slots, from 2^bits on
        if index < 1 << bits:
            return index if slot else None
        return (1 << bits) + (index & (1 << bits) - 1) << (index >> bits) - 1

    word, told = "bpftrace", "slot 0: negative, slot 1: 0, slot n: 2^(n-2) to 2^(n-1) - 1"
    if bits:
        word = "bpftrace:%d" % bits
        told = "slot 0: negative, then %d slots for each power of 2" % (1 << bits)
    return _Numbering(word, told, start, last=64 - bits << bits)


def _lhist_slots(numbers):
    low, high, step = numbers
    if step < 1 or high <= low:
        raise ValueError("lhist:MIN:MAX:STEP: MAX is above MIN, STEP above 0")
    told = "slot 0: below %d, the last: from %d on" % (low, low + (high - low) // step * step)
    word = "lhist:%d:%d:%d" % (low, high, step)

    def start(slot):
        return low + (slot - 1) * step if slot else None

    return _Numbering(word, told, start, last=(high - low) // step + 1, is_open=True)


def _linear_slots(numbers):
    low, step = (tuple(numbers) + (0, 1)[len(numbers) :])[:2]  # from 0 and by 1, if left out
    if step < 1:
        raise ValueError("linear:MIN:STEP: STEP is above 0")
    word = ":".join(["linear"] + ["%d" % number for number in numbers])
    told = "slot n: n"
    if numbers:
        told = "slot n: %d + n * %d and on" % (low, step)
    made = _Numbering(word, told, lambda slot: low + slot * step, lowest=-float("inf"))
    made.is_plain = True
    return made


# What --slots takes: word -> (numbers behind it at least, at most, what makes it)
_NUMBERINGS = {
    "log2": (0, 0, _log2_slots),  # log2l() of libbpf-tools
    "bcc": (0, 0, _bcc_slots),  # bpf_log2l() of BCC
    "bpftrace": (0, 1, _bpftrace_slots),  # hist(n, BITS)
    "lhist": (3, 3, _lhist_slots),  # lhist(n, MIN, MAX, STEP) of bpftrace
    "linear": (0, 2, _linear_slots),
}
_NUMBERINGS_TEXT = "log2, bcc, bpftrace[:BITS], lhist:MIN:MAX:STEP, linear[:MIN[:STEP]]"


def _numbering(text):
    """Return the _Numbering that a text names; ValueError if it names none."""
    word, _, rest = text.partition(":")
    least, most, make = _NUMBERINGS.get(word, (0, -1, None))
    try:
        numbers = [_parsed_int(one) for one in rest.split(":")] if rest else []
    except ValueError:
        numbers = [0] * (most + 1)  # too many, which is refused as well
    if not least <= len(numbers) <= most or text.endswith(":"):
        raise ValueError("'%s' is no numbering of slots: %s" % (text, _NUMBERINGS_TEXT))
    return make(numbers)


_NO_HISTOGRAM = (
    "a histogram needs a number as the key's last field and one number as the value, or an array "
    "of numbers in the value; --key-type and --value-type can say so"
)


class _NoSuchSlots(ValueError):
    """There is no field of the name that --slots says."""


def _slots_of(view, field=""):
    """Return where a map has its histograms: the _KeySlots or the _ArraySlots of a field.

    A field is an array of counts in the values, or the count itself where keys have the slots.
    Without a field it is the likely one, see _likely_field.
    """
    paths = getattr(view.value_layout.reader("samples", view.slot), "paths", None)
    if paths is None:  # unions, decided value by value
        raise ValueError(_NO_HISTOGRAM)
    arrays = _arrays_in(paths)
    field = field or _likely_field(view, paths, arrays)
    for name, places in arrays.items():
        chosen = [one for one in places if field in (name, _field_text(one[0]))]
        if chosen:
            return _ArraySlots(view, chosen)
    if view.info.key_size and field in map(_members_text, paths):
        return _KeySlots(view, next(path for path in paths if _members_text(path) == field))
    raise _NoSuchSlots("no field '%s'; there are %s" % (field, _fields_text(paths)))


def _arrays_in(paths):
    """Return {field: [(path of an array of it, its first column, their number)]}.

    Samples come as a column for each element, those of an array one behind the other.
    """
    lengths = {}  # type: dict
    for column, path in enumerate(paths):
        if path and isinstance(path[-1], int):
            first, count = lengths.get(path[:-1], (column, 0))
            lengths[path[:-1]] = first, count + 1
    arrays = {}  # type: dict
    for path, (first, count) in lengths.items():
        arrays.setdefault(_members_text(path), []).append((path, first, count))
    return arrays


def _likely_field(view, paths, arrays):
    """Return the field that is meant where nobody says: the only number of a value that has a key,
    the only array, or the only one that is called slots.
    """
    if len(paths) == 1 and view.info.key_size:
        return _members_text(paths[0])
    called_slots = [name for name in arrays if name.split(".")[-1] == "slots"]
    for names in (list(arrays), called_slots):
        if len(names) == 1:
            return names[0]
    if arrays:
        words = (_NO_HISTOGRAM, ", ".join(arrays))
        raise ValueError("%s; --slots FIELD=NUMBERING tells which of %s it is" % words)
    raise ValueError(_NO_HISTOGRAM)


def _members_text(path):
    """Return a path without its indices, as users name a field: "stats.bytes"; "value" of a value
    that is a number or an array itself.
    """
    return ".".join(step for step in path if not isinstance(step, int)) or "value"


def _fields_text(paths):
    """Return the names of fields for a message."""
    return ", ".join(dict.fromkeys(map(_members_text, paths))) or "none"


class _KeySlots:
    """Histograms whose slots are in the keys: a key has the slot, its value the count.

    What else is in a key tells whose histogram it is: .groups is {paths: {leaves: [{slot: count} of
    each CPU, or of all]}}.  Keys with unions have different paths, others all the same.
    """

    default = "bcc"  # the numbering, where nobody says

    def __init__(self, view, path):
        self.view, self.path, self.groups = view, path, {}  # path of the counts in the value
        self.fields = (path,)
        self.column = view.value_layout.reader("samples", view.slot).paths.index(path)

    def add(self, keys, values, cpus):
        """Take in a chunk; cpus are those whose counts stay apart, (): add them up."""
        reader = self.view.value_layout.reader("samples", self.view.slot)
        counts = [row[self.column] for row in reader.rows(values)]
        _prove_integers(counts)
        if not cpus:
            counts = _added_up(counts, max(len(self.view.cpus), 1))
        of_keys = zip(*[iter(counts)] * max(len(cpus), 1))
        known = group = None
        for (paths, leaves, slot), of_cpus in zip(_keyed_slots(self.view, keys), of_keys):
            if paths is not known:
                known, group = paths, self.groups.setdefault(paths, {})
            if leaves not in group:
                group[leaves] = [{} for _ in of_cpus]
            for slots, count in zip(group[leaves], of_cpus):
                slots[slot] = slots.get(slot, 0) + count

    def histograms(self, cpus):
        """Yield (paths and leaves of what else is in the keys, CPU or None, counts by slot)."""
        for paths, group in self.groups.items():
            for leaves, of_cpus in group.items():
                for cpu, counts in zip(cpus or (None,), of_cpus):
                    yield paths, leaves, cpu, counts


class _ArraySlots:
    """Histograms that are arrays of counts in the values, those of one field."""

    default = "log2"  # the numbering, where nobody says

    def __init__(self, view, arrays):
        self.view = view
        self.arrays = arrays  # [(path of the array, the first of its columns, their number)]
        self.fields = tuple(path for path, _, _ in arrays)

    def rows(self, values, cpus):
        """Yield (path of an array, an iterator over its counts in each value of a chunk); cpus as
        of _KeySlots.add.
        """
        reader = self.view.value_layout.reader("samples", self.view.slot)
        columns = list(zip(*reader.rows(values)))
        together = 1 if cpus else max(len(self.view.cpus), 1)
        for path, first, count in self.arrays if columns else ():
            _prove_integers(columns[first])
            yield path, zip(*[_added_up(one, together) for one in columns[first : first + count]])


def _prove_integers(column):
    """Raise ValueError unless a column of samples, all of one type, has integers."""
    if column and isinstance(column[0], float):
        raise ValueError(_NO_HISTOGRAM)


def _keyed_slots(view, keys):
    """Yield (paths, leaves, slot) of each key: of what else it has, and the number that is its
    slot.  Paths are the same object from key to key, unless a union chooses another branch.
    """
    labels = view.key_layout.reader("labels").pathed(keys)
    samples = view.key_layout.reader("samples").pathed(keys)
    known = others = None
    for (paths, leaves), (sample_paths, numbers) in zip(labels, samples):
        if paths is not known:
            known, at = paths, _slot_place(paths, sample_paths)
            place = sample_paths.index(paths[at])
            others = tuple(paths[:at] + paths[at + 1 :])
            _prove_integers(numbers[place : place + 1])
        yield others, leaves[:at] + leaves[at + 1 :], numbers[place]


def _slot_place(paths, sample_paths):
    """Return which of a key's leaves is the slot: the one of that name, else the last."""
    named = [at for at, path in enumerate(paths) if path[-1:] == ("slot",)]
    at = named[0] if len(named) == 1 else len(paths) - 1
    if not paths or paths[at] not in sample_paths:
        raise ValueError(_NO_HISTOGRAM)
    return at


# -- metrics
#
# Text for Prometheus.  A family is a metric's name with its HELP, its TYPE and its series, and has
# to stand in one piece: a run collects the series of all maps in _Families, then writes them.
#
# The name of a family is bpf_map_MAP_FIELD: the map's name, then the names of the members on the
# way to a number in the value (none where the value is that number), without indices; then _total
# if --metrics-type says counter.  _metric_name replaces what Prometheus does not take, and where a
# name is taken _Families._free counts on: bpf_map_x_2.  Maps of one name share their families.
#
# The labels of a series are id and map, then what the key says, a label for each leaf of it
# (_KeyLabels), then what tells apart numbers of one name in a value: cpu where the CPUs' values are
# not added up, and index, index_2 ... of arrays (_index_labels).  A new label goes to one of these.
#
# The numbers come from three forms of section 4: "samples" of a value, each with its path, "counts"
# are those of them that can be added up, and "labels" are the leaves of keys.


class _MetricWishes:
    """What was asked for: .types {field: "counter" or "gauge"}, .slots {field: numbering}, where ""
    is for the field that is likely, and .is_per_cpu: CPUs are not to be added up.
    """

    def __init__(self, types=(), slots=(), is_per_cpu=False):
        self.types, self.slots, self.is_per_cpu = dict(types), dict(slots), is_per_cpu


class _Family:
    """A metric: .name, .kind, what HELP says, the .lines of its series."""

    def __init__(self, name, kind, about):
        self.name, self.kind, self.about, self.lines = name, kind, about, []


# kind -> what stands behind the name of a family in the names of its series, or may by OpenMetrics:
# no other family may be called so
_SUFFIXES = {
    "gauge": ("",),
    "counter": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}


class _Families:
    """The metrics of a run: each family once, from whatever maps its series come.

    Without counters its text is OpenMetrics, too.
    """

    def __init__(self, wishes):
        self.wishes = wishes
        self.known = {}  # type: dict  # (base, members, kind) -> _Family
        self.taken = set()  # type: set  # names of families, with all suffixes
        self.unmet = (set(wishes.types) | set(wishes.slots)) - {""}  # fields that no map had
        self.fields = {}  # type: dict  # the fields that there were are its keys, in order

    def take(self, view, chunks):
        """Take in the entries of a map."""
        metrics = _MapMetrics(view, self)
        for keys, values, count in chunks:
            metrics.add(keys, values, count)
        metrics.end()

    def note_field(self, field):
        """Note that there is a map with a field of this name."""
        self.unmet.discard(field)
        self.fields[field] = True

    def of(self, base, members, kind, about):
        """Return the family of a field, made on the first question; its name is nobody else's.

        base       what the name begins with, the same for maps of one name
        members    names of the members that the field's path has
        about      for HELP
        """
        key = base, members, kind
        if key not in self.known:
            wanted = _metric_name("_".join((base,) + members))
            self.known[key] = _Family(self._free(wanted, kind), kind, about)
        return self.known[key]

    def _free(self, wanted, kind):
        """Return a name that no other family has, and take it: the one wanted, or with a number."""
        total = "_total" if kind == "counter" else ""
        if total and wanted.endswith(total):
            wanted = wanted[: -len(total)]
        name, number = wanted + total, 1
        while any(name + suffix in self.taken for suffix in _SUFFIXES[kind]):
            number += 1
            name = "%s_%d%s" % (wanted, number, total)
        self.taken.update(name + suffix for suffix in _SUFFIXES[kind])
        return name

    def text(self):
        """Yield the lines, a family's together."""
        for family in self.known.values():
            if family.lines:
                yield "# HELP %s %s" % (family.name, _label_text(family.about).replace('\\"', '"'))
                yield "# TYPE %s %s" % (family.name, family.kind)
                yield from family.lines
        yield "# EOF"


class _MapMetrics:
    """What a map adds to the families: a series for each key and number in its value (and CPU, and
    index), or a histogram where --slots says so.
    """

    def __init__(self, view, families):
        if isinstance(view.value_layout, Bytes):
            told = "metrics need the type of the values of %s: --value-type"
            raise ValueError(told % view.info._about)
        self.view, self.info, self.families = view, view.info, families
        self.base = _metric_name("bpf_map_" + (self.info.name or "id%d" % self.info.id))
        self.map_text = self.info.name or "%d" % self.info.id  # in HELP
        self.key_labels = _KeyLabels(view)
        self.samples = view.value_layout.reader("samples", view.slot)
        self.counts = view.value_layout.reader("counts", view.slot)
        self.count_paths = None  # those of counts, where they are the same for all values
        if isinstance(self.counts, Reader):
            self.count_paths = frozenset(self.counts.paths)
        self.apart = view.cpus if families.wishes.is_per_cpu else ()
        self.lines_of = {}  # type: dict  # path -> (lines of its family, the template of a line)
        self.histograms = []  # type: list  # (_KeySlots or _ArraySlots, _Numbering)
        self.in_histograms = set()  # type: set  # paths of their fields
        for field, numbering in families.wishes.slots.items():
            self._take_slots(field, numbering)
        paths = getattr(self.samples, "paths", None)  # None: unions decide, value by value
        self.has_series = paths is None or not all(map(self._is_in_histogram, paths))
        for path in paths or ():
            families.note_field(_members_text(path))

    def _take_slots(self, field, numbering):
        """Have a field, if the map has it, become a histogram."""
        try:
            slots = _slots_of(self.view, field)
        except _NoSuchSlots:  # another map may have it
            return
        self.families.unmet.discard(field)
        self.histograms.append((slots, numbering))
        self.in_histograms.update(slots.fields)

    def _is_in_histogram(self, path):
        """Return whether a path is that of a histogram's counts, or of one in an array of them."""
        known = self.in_histograms
        return path in known or path[:-1] in known and isinstance(path[-1], int)

    def add(self, keys, values, count):
        """Take in a chunk of entries."""
        in_arrays = []
        for slots, numbering in self.histograms:
            if isinstance(slots, _KeySlots):
                slots.add(keys, values, self.apart)
            else:
                in_arrays.append((slots, numbering))
        if not in_arrays and not self.has_series:
            return
        labels = self.key_labels.of_keys(keys, count)
        for path, labels_of_each, column in self._series(values, labels):
            if path not in self.lines_of:
                self.lines_of[path] = self._lines_and_template(path)
            lines, line = self.lines_of[path]
            if isinstance(column[0], float):
                column = map(_metric_number, column)
            lines.append("\n".join(map(line.__mod__, zip(labels_of_each, column))))
        for slots, numbering in in_arrays:
            self._add_arrays(slots, numbering, values, self._with_cpu(labels, self.apart))

    def end(self):
        """Add what is known only when all entries have been seen."""
        for slots, numbering in self.histograms:
            if isinstance(slots, _KeySlots) and slots.groups:
                self._add_groups(slots, numbering)

    def _with_cpu(self, labels, cpus):
        """Return the labels of each CPU's value of each key; the same without CPUs."""
        if not cpus:
            return labels
        marks, found = [',cpu="%d"' % cpu for cpu in cpus], []
        for text in labels:
            found += [text + mark for mark in marks]
        return found

    def _series(self, values, labels):
        """Yield (path, labels of each, numbers) of the samples, from the labels of each key.

        The CPUs' counts are added up unless they stay apart, what is no count always stays so.
        """
        cpus = max(len(self.view.cpus), 1)
        apart, added_up = labels, frozenset()
        if self.view.cpus:
            apart = self._with_cpu(labels, self.view.cpus)
            added_up = self._added_up_paths(values)
        for path, indices, column in self.samples.series(values):
            if self._is_in_histogram(path):
                continue
            if path not in added_up:
                where = apart if indices is None else [apart[index] for index in indices]
                yield path, where, column
            elif indices is None:  # each value has it
                yield path, labels, _added_up(column, cpus)
            else:
                sums = {}  # type: dict
                for index, number in zip(indices, column):
                    sums[index // cpus] = sums.get(index // cpus, 0) + number
                yield path, [labels[entry] for entry in sums], list(sums.values())

    def _added_up_paths(self, values):
        """Return the paths of what is added up over the CPUs."""
        if self.apart:
            return frozenset()
        if self.count_paths is not None:
            return self.count_paths
        return {path for path, _, _ in self.counts.series(values)}

    def _lines_and_template(self, path):
        """Return the lines of a path's family, and the template of one: labels and a number."""
        field = _members_text(path)
        self.families.note_field(field)
        kind = self.families.wishes.types.get(field, "gauge")
        family = self._family(path, kind, "%s of BPF map %s." % (field, self.map_text))
        return family.lines, family.name + "{%s" + _index_labels(path) + "} %s"

    def _family(self, path, kind, about):
        """Return the _Family of a path, which is that of all elements of an array."""
        members = tuple(step for step in path if not isinstance(step, int))
        return self.families.of(self.base, members, kind, about)

    # -- histograms: buckets add up from the lowest on; what a map does not tell, the sum of the
    # numbers, is given as if each were the lowest of its slot

    def _histogram(self, path, numbering):
        """Return the _Family of a histogram of the counts at a path."""
        words = (_members_text(path), self.map_text, numbering.word)
        about = "%s of BPF map %s, slots %s; _sum takes each for the lowest of its slot." % words
        return self._family(path, "histogram", about)

    def _add_arrays(self, slots, numbering, values, labels):
        """Add the histograms that are arrays in a chunk's values."""
        for path, rows in slots.rows(values, self.apart):
            family, tail = self._histogram(path, numbering), _index_labels(path)
            for text, row in zip(labels, rows):
                counts = dict(enumerate(row))
                numbering.prove(slot for slot, count in counts.items() if count)
                known = [slot for slot in counts if numbering.has(slot)]
                # the last element of an array has what is larger, too
                family.lines.append(_buckets(family.name, text + tail, known, counts, numbering))

    def _add_groups(self, slots, numbering):
        """Add the histograms whose slots are in the keys, all with the same buckets."""
        family = self._histogram(slots.path, numbering)
        tail = _index_labels(slots.path)
        found, used = {}, set()
        for paths, leaves, cpu, counts in slots.histograms(self.apart):
            labels = self.key_labels.of_leaves(paths, leaves) + tail
            if cpu is not None:
                labels += ',cpu="%d"' % cpu
            into = found.setdefault(labels, {})
            for slot, count in counts.items():
                into[slot] = into.get(slot, 0) + count
            used.update(slot for slot, count in counts.items() if count)
        known = numbering.bounded(used)
        for labels, counts in found.items():
            family.lines.append(_buckets(family.name, labels, known, counts, numbering))


class _KeyLabels:
    """The labels of a map and of its keys, which tell each key from all others: text such as
    id="7",map="flows",addr="10.0.0.1",port="443".
    """

    def __init__(self, view):
        self.key_size = view.info.key_size
        self.reader = view.key_layout.reader("labels") if self.key_size else None
        self.of_map = 'id="%s",map="%s"' % (view.info.id, _label_text(view.info.name or ""))
        self.names = _LabelNames(["id", "map", "cpu"] + _INDEX_LABELS)
        self.seen = set()  # type: set  # the labels of all keys so far
        self.paths = self.template = None  # of the last key; unions have keys of different paths
        self.quotes = 0  # in the template

    def of_keys(self, keys, count):
        """Return the labels of each key of a chunk."""
        if self.reader is None:
            return [self.of_map] * count
        found, size = [], self.key_size
        for index, (paths, leaves) in enumerate(self.reader.pathed(keys)):
            labels = self.of_leaves(paths, leaves)
            if labels in self.seen:  # they differ in a hole, or in what has no name
                raw = keys[index * size : (index + 1) * size]
                labels += ',key_bytes="%s"' % _hex(raw)
            self.seen.add(labels)
            found.append(labels)
        return found

    def of_leaves(self, paths, leaves):
        """Return the labels of a key with these leaves."""
        if paths is not self.paths:
            labels = ['%s="%%s"' % self.names.name(path) for path in paths]
            self.paths, self.template = paths, ",".join([self.of_map.replace("%", "%%")] + labels)
            self.quotes = self.template.count('"')
        text = self.template % leaves
        # quoting is slow, and most leaves need none
        if "\\" not in text and text.count('"') == self.quotes and text.isprintable():
            return text
        return self.template % tuple([_label_text(str(leaf)) for leaf in leaves])


class _LabelNames:
    """Names of labels for the paths of a key's leaves: legal, not reserved, no two the same."""

    def __init__(self, taken):
        self.taken, self.names = set(taken) | {"le", "quantile", "key_bytes"}, {}

    def name(self, path):
        """Return the label of a path: "addr_port", "key" of a key that is one number."""
        known = self.names.get(path)
        if known is None:
            text = "_".join(map(str, path))
            legal = _metric_name("key_" + text if not text or text[0].isdigit() else text)
            if legal[:2] == "__":  # reserved
                legal = "key_" + legal.lstrip("_")
            base, number = legal.rstrip("_") or "key", 1
            legal = base
            while legal in self.taken:
                number += 1
                legal = "%s_%d" % (base, number) if number > 2 else "key_" + base
            self.taken.add(legal)
            known = self.names[path] = legal
        return known


# The labels for indices: of an array, of an array in that, and so on.
_INDEX_LABELS = ["index"] + ["index_%d" % number for number in range(2, MAX_DEPTH + 1)]


def _index_labels(path):
    """Return the labels for the indices in a path, text to stand behind other labels."""
    indices = [step for step in path if isinstance(step, int)]
    return "".join(map(',%s="%d"'.__mod__, zip(_INDEX_LABELS, indices)))


def _buckets(name, labels, slots, counts, numbering):
    """Return the series of a histogram; the last of the slots has no upper bound."""
    up_to, below, total = {}, 0, 0  # up_to: bound -> count; large ones may be one as floats
    for slot in slots:
        count = counts.get(slot, 0)
        low, high = numbering.bounds(slot)
        below, total = below + count, total + count * max(low or 0, 0)
        if slot != slots[-1] and high >= 0:  # with negative ones there may be no _sum
            up_to[_bound_text(high)] = below
    up_to["+Inf"] = below
    lines = ['%s_bucket{%s,le="%s"} %d' % (name, labels, *bucket) for bucket in up_to.items()]
    lines.append("%s_sum{%s} %d" % (name, labels, total))
    lines.append("%s_count{%s} %d" % (name, labels, below))
    return "\n".join(lines)


def _bound_text(number):
    """Return a bound as Prometheus writes it: 1023.0, 1e+06."""
    text = repr(float(number))
    if "e" in text or len(text) < 9:
        return text
    digits, _, power = ("%.16e" % number).partition("e")
    return "%se%s" % (digits.rstrip("0").rstrip("."), power)


def _metric_name(text):
    """Return text as part of a metric's or label's name: "_" for each character that it can't have,
    none at its end.
    """
    letters = [char if char.isalnum() and char < "\x80" else "_" for char in text]
    return "".join(letters).rstrip("_") or "_"


def _label_text(text):
    """Return text as it stands between the quotes of a label."""
    return _printable_label(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))


def _printable_label(text):
    """Return text without what steers a terminal: \\x1b is spelled with a backslash of its own."""
    if text.isprintable():
        return text
    shown = (
        char if char.isprintable() or char == "\t" else "\\" + ascii(char)[1:-1] for char in text
    )
    return "".join(shown)


def _metric_number(number):
    """Return a float as Prometheus writes it."""
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    return "NaN" if number != number else repr(number)


# -- captures
#
# A capture file is text, a thing a line:
#
#   header   JSON: the version of the format ("bpflookup_capture"), what MapInfo tells ("info"), the
#            map's BTF and its base in base 64 with the type ids of key and value ("btf", "base",
#            "types"), byte order, CPU ids, --show, clock, and where and when it was made
#   entries  hex: the key, a space, the value, of a per-CPU map one for each CPU; - is no bytes
#   names    JSON, in version 2 only: what this machine calls users, interfaces, symbols ...
#   the end  JSON: how many entries there are, and the SHA-256 of all lines before
#
# It is written to a file of another name that takes its place when all is there (_Replacement), and
# the last line is checked before anything else is believed (_proved_count), so what is cut off or
# changed is noticed.  Somebody may still have written a file with a sum that is right: numbers of
# the header are held to the ranges that the kernel has (_prove_captured_info), BTF is as hostile as
# any, each entry is checked when it is read (_line_words), and what is not as capture writes it is
# a ValueError.
#
# Something new goes into the header (_capture_header) under a name of its own, which older readers
# ignore, and is read with .get(), for older files.  Lines of another form need another version.


def capture(m: "_Descriptor", path: "_Path") -> int:
    """Write a map's info, BTF and entries to a file, which appears when it is whole.

    A plain file of that name is replaced, its mode and (where one may) its owner kept; of several
    captures to one path the last stays.

    returns    the number of entries
    raises     SyscallError, OSError: also for what is no plain file, a link among them
    """
    return _capture(m, path, isinstance(m, Map) and [m.key_layout, m.value_layout])


def _capture(m, path, layouts=None, shown=()):
    """Write a capture, as capture does.

    layouts    of keys and values, where they are not BTF's: they tell which names are needed
    shown      the pairs of field and word of --show, to be shown again when it is read
    """
    path = os.fsdecode(path)
    with Map.from_fd(m, bytes, bytes) as source, _Replacement(path) as replacement:
        if not layouts:
            view = View(source)
            layouts = [view.key_layout, view.value_layout]
        view = View(source, bytes, bytes)
        return _write_capture(view, replacement.file, _NamesFound(layouts, view), shown)


class _NamesFound:
    """The names that this machine has for the numbers of what is captured.

    .texts     {word of a meaning: {number: text}}, of those numbers that occur
    .readers   empty where nothing in the types has names

    What no names can be looked for in, a type of too many values or an entry that chooses no
    branch of a _union_, is captured all the same.
    """

    def __init__(self, layouts, view):
        self.texts, self.readers = {}, []
        strides = view.info.key_size, view.slot
        for place, (one, stride) in enumerate(zip(layouts, strides)):  # in a chunk: keys, values
            if one is None or _with_names_of(one, self) is one:  # it has no such names
                continue
            try:
                reader = one.reader("names", stride)
            except LayoutError:
                continue
            if not isinstance(reader, Reader) or reader.paths:
                self.readers.append((place, reader))

    def add(self, chunk):
        """Take in the names of what is in a chunk."""
        for place, reader in self.readers:
            for pairs in self._read(reader, chunk[place]):
                for word, number in chain.from_iterable(asked for _, asked in pairs):
                    known = self.texts.setdefault(word, {})
                    text = known.get(number) or _this_machine.text(word, number)
                    if text:  # numbers without a name may be as many as entries
                        known[number] = text

    def _read(self, reader, raw):
        """Yield the numbers of each element that can be read."""
        if isinstance(reader, Reader):
            yield from reader.read(raw)
            return
        for one in _split(raw, len(raw) // reader.stride):
            try:
                yield reader.one(one)
            except LayoutError:
                pass


def _split(raw, count):
    """Return bytes in so many pieces of one length."""
    size = len(raw) // count if count else 0
    if not size:
        return [raw] * count
    return [raw[at : at + size] for at in range(0, len(raw), size)]


class _Replacement:
    """A new file, .file, that takes a path's place if all goes well, and else leaves nothing."""

    def __init__(self, path):
        import stat

        self.path, self.mode, self.owner = path, 0o666, None
        self.temporary = self.file = None
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "a capture takes the place of a plain file only", path)
        self.mode, self.owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)

    def __enter__(self):
        try:
            self._create()
            if self.owner is not None:
                self._keep_rights()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _create(self):
        """Create a file of a name that nobody has: what is not made here is not removed here."""
        opener = partial(os.open, mode=self.mode if self.owner is None else 0o600)
        while True:
            name = ".bpflookup-%s.tmp" % os.urandom(8).hex()
            self.temporary = os.path.join(os.path.dirname(self.path), name)
            try:
                self.file = open(self.temporary, "xb", opener=opener)  # noqa: SIM115  # _discard closes
                return
            except FileExistsError:
                self.temporary = None

    def _keep_rights(self):
        """Give the new file the owner, where one may, and the mode of the one that it replaces."""
        number = self.file.fileno()
        try:
            os.fchown(number, *self.owner)
        except OSError:  # another's file in a directory of ours
            pass
        os.fchmod(number, self.mode)

    def __exit__(self, kind, error, _):
        try:
            if kind is None:
                self._take_place()
        except OSError as failure:
            self._name_path(failure)
            raise
        finally:
            self._discard()
        self._name_path(error)

    def _take_place(self):
        """Put the file where the old one is, safe on the disk before."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.temporary, self.path)
        self.temporary = None

    def _name_path(self, error):
        """Have an error of our file name the path that it was to have: users know no other."""
        if isinstance(error, OSError) and not isinstance(error, BPFError):
            if error.filename in (None, self.temporary):
                error.filename, error.filename2 = self.path, None

    def _discard(self):
        """Close the file, and remove it unless it has taken its place."""
        try:
            if self.file is not None:
                self.file.close()
        except OSError:  # what could not be written is not wanted any more
            pass
        try:
            if self.temporary is not None:
                os.unlink(self.temporary)
        except OSError:  # it was not made, or has just taken its place
            pass


# Versions of the format: what the first line says of the others.
_CAPTURE_PLAIN, _CAPTURE_WITH_NAMES = 1, 2


def _write_capture(view, file, names, shown):
    """Write a map to a file; return the number of entries."""
    import hashlib
    import json

    digest, count, progress = hashlib.sha256(), 0, _Progress(view.info)

    def put(text):
        line = text.encode() + b"\n"
        digest.update(line)
        file.write(line)

    version = _CAPTURE_WITH_NAMES if names.readers else _CAPTURE_PLAIN
    put(json.dumps(_capture_header(view.source, version, shown)))
    for chunk in _captured_chunks(view):
        if chunk[2]:
            put(_capture_lines(view, chunk))
            names.add(chunk)
            count += chunk[2]
            progress.show(count)
    if names.readers:
        put(json.dumps({"names": names.texts}))
    progress.end()
    put(json.dumps({"entries": count, "sha256": digest.hexdigest()}))
    return count


def _capture_header(source, version, shown):
    """Return what the first line of a capture tells."""
    import base64
    import time  # which on old Pythons reads the zone's file

    def encoded(btf):
        return btf and base64.b64encode(btf.data).decode()

    info, system = source.info, os.uname()
    return {
        "bpflookup_capture": version,
        "info": {name: getattr(info, name) for name in info.__slots__},
        "btf": encoded(source.btf),
        "types": source._btf_types,
        "base": source.btf and encoded(source.btf.base),
        "order": sys.byteorder,
        "cpus": possible_cpus() if info.type in _PERCPU_TYPES else [],
        "host": system.nodename,
        "kernel": system.release,
        "machine": system.machine,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "clock": [_this_machine.now(), _this_machine.boot],
        # Nothing here reads this one.  It is for people, who find in Capture.header whether entries
        # may be missing that were updated meanwhile, and the file can't tell otherwise.
        "exact": source.exact_scan,
        "shown": [list(pair) for pair in shown],
    }


def _captured_chunks(view):
    """Yield a map's entries as View.chunks does, of one without batch commands too."""
    if view.source._can_batch():
        yield from view.chunks()
        return
    entries = view.entries()
    while True:
        part = list(islice(entries, _CHUNK_ENTRIES))
        if not part:
            return
        yield view.chunk_of(part)


def _capture_lines(view, chunk):
    """Return the lines of a chunk's entries; what pads the values of CPUs is left out."""
    keys, values, _ = chunk
    value_words = _hex_words(values, view.info.value_size, view.slot)
    words = [_hex_words(keys, view.info.key_size)] + [value_words] * max(len(view.cpus), 1)
    return "\n".join(map(" ".join, zip(*words)))


def _hex_words(raw, size, stride=None):
    """Return an iterator over the elements of raw in hex, size bytes at each stride; where size is
    0 there are none to count, and "-" comes without end.
    """
    if not size:
        return repeat("-")
    text, step = raw.hex(), 2 * (stride or size)
    return (text[start : start + 2 * size] for start in range(0, len(text), step))


_CAPTURE_DIGITS = 20  # of a number: more are hostile, and take Python long
_MAX_SHOWN = 256  # pairs of --show that are read; people type a few


class Capture:
    """A map as capture wrote it down; load(path) opens one, on any machine.

    info, btf  as of the map
    header     a dict: host, kernel, time, exact (Map.exact_scan of the map) ...
    count      of entries
    cpus       ids of the possible CPUs, if it is per-CPU
    raises     OSError, ValueError: a file that is cut, changed or none
    """

    info: "MapInfo"
    btf: "Optional[BTF]"
    header: "Dict[str, Any]"
    count: int
    cpus: "List[int]"

    def __init__(self, data: bytes, key: "_Meant" = None, value: "_Meant" = None) -> None:
        try:
            self._read(data)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise ValueError("no capture, or one that was cut or changed") from None
        self._about, self._no_btf = self.info._about, "the map had none"
        self._view = View(self, key, value)

    def _read(self, data):
        """Take in all but the entries: of these, lines from _entries_start up to _entries_end, only
        what chunks reads is looked at.
        """
        self._data, self._entries_start = data, data.index(b"\n") + 1
        header = self.header = _capture_json(data[: self._entries_start])
        self._entries_end = data.rindex(b"\n", 0, len(data) - 1) + 1
        version = header["bpflookup_capture"]
        if version not in (_CAPTURE_PLAIN, _CAPTURE_WITH_NAMES):
            raise ValueError
        self.count = _proved_count(data, self._entries_end, version)
        names = {}
        if version == _CAPTURE_WITH_NAMES:
            names_end = self._entries_end
            self._entries_end = data.rindex(b"\n", 0, names_end - 1) + 1
            names = _capture_json(data[self._entries_end : names_end])["names"]
        self.names = _CapturedNames(names, header.get("clock"), header["order"])
        self._take_header(header)

    def _take_header(self, header):
        """Take in what the first line tells, each number proved to be one that a map can have."""
        self.shown = [
            (str(field), str(word)) for field, word in header.get("shown", ())[:_MAX_SHOWN]
        ]
        self.info = MapInfo.__new__(MapInfo)
        for name in MapInfo.__slots__:
            setattr(self.info, name, header["info"][name])
        base = _capture_btf(header["base"])
        self.btf = _capture_btf(header["btf"], base)
        self._btf_types, self.cpus, self.order = header["types"], header["cpus"], header["order"]
        _prove_captured_info(self.info)
        cpus_fit = self.info.type not in _PERCPU_TYPES or self.cpus
        types_fit = set(self._btf_types) <= ({"key", "value"} if self.btf else set())
        if self.order not in _ORDER_MARKS or not cpus_fit or not types_fit:
            raise ValueError
        for number in self.cpus + list(self._btf_types.values()):
            _prove_number(number, 32)

    @property
    def _lines(self):
        """The lines of the entries, one by one: together they would be the file once more."""
        start, data = self._entries_start, self._data
        while start < self._entries_end:
            end = data.index(b"\n", start)
            yield data[start:end]
            start = end + 1

    @classmethod
    def load(cls, path: "_Path", key: "_Meant" = None, value: "_Meant" = None) -> "Self":
        """Return the Capture in a file.

        key, value ctypes types, Layouts, C text, or bytes; left out BTF's
        raises     OSError, ValueError: it is cut, changed or none, LayoutError: a type does not
                   fit
        """
        with open(path, "rb") as file:
            return cls(file.read(), key, value)

    def entries(self) -> "Iterator[Tuple[bytes, Any]]":
        """Yield (key, value) as bytes; of a per-CPU map a list of each CPU's."""
        cpus = max(len(self.cpus), 1)
        for keys, raw, count in self.chunks(_CHUNK_ENTRIES):
            values = _split(raw, count * cpus)
            if self.cpus:
                values = map(list, zip(*[iter(values)] * cpus))
            yield from zip(_split(keys, count), values)

    def chunks(self, most: int) -> "Iterator[Tuple[bytes, bytes, int]]":
        """Yield (keys, values, count): the bytes of at most so many entries, each behind the
        other.
        """
        sizes = [self.info.key_size] + [self.info.value_size] * max(len(self.cpus), 1)
        remaining = iter(self._lines)
        while True:
            lines = list(islice(remaining, most))
            if not lines:
                return
            words = _line_words(lines, sizes)
            keys = b"".join(words[:: len(sizes)])
            del words[:: len(sizes)]
            values = b"".join(words) if sizes[1] else b""
            yield bytes.fromhex(keys.decode()), bytes.fromhex(values.decode()), len(lines)

    def items(self) -> "Iterator[Tuple[Any, Any]]":
        """Yield (key, value) as Map.items does; of a per-CPU map a list of each CPU's."""
        key_of = _object_maker(self._view.key_layout)
        value_of = _object_maker(self._view.value_layout)
        for key, value in self.entries():
            if isinstance(value, list):
                yield key_of(key), [value_of(one) for one in value]
            else:
                yield key_of(key), value_of(value)


def _line_words(lines, sizes):
    """Return the words of the lines of entries, all proved to be of these sizes.

    All are split at once, as that is fast; a word "\\n" behind those of each line shows where one
    has too many or too few.
    """
    words = b" \n ".join(lines).split(b" ") + [b"\n"]
    step = len(sizes) + 1
    lengths = [set(map(len, words[at::step])) for at in range(step)]
    lines_end = set(words[step - 1 :: step]) == {b"\n"} and len(words) == step * len(lines)
    if not lines_end or lengths != [{2 * size or 1} for size in sizes] + [{1}]:
        raise ValueError("a capture's entry is not of %s bytes" % sizes)
    del words[step - 1 :: step]
    return words


def _capture_json(line):
    """Return what a line of JSON in a capture says."""
    import json

    return json.loads(line.decode(), parse_int=_captured_number)


def _captured_number(digits):
    """Return the number that digits say; raise ValueError if no capture has so many."""
    if len(digits) > _CAPTURE_DIGITS:
        raise ValueError
    return int(digits)


class _CapturedNames:
    """What a machine called numbers when a capture was made: it stands for _this_machine then."""

    def __init__(self, names, clock, order):
        self.order = order
        self._texts = {
            word: {_captured_number(number): text for number, text in known.items()}
            for word, known in names.items()
        }
        for known in self._texts.values():
            if not all(isinstance(text, str) for text in known.values()):
                raise ValueError
        self._now = self.boot = None
        if clock is not None:
            self._now, self.boot = clock
            _prove_number(self._now, 64)
            _prove_number(self.boot, 64)

    def now(self):
        """Return the nanoseconds since boot when it was captured."""
        return self._now

    def text(self, word, number):
        """Return the name of a number, None if it has none."""
        return self._texts.get(word, {}).get(number)

    def number(self, word, text):
        """Return the number that has a name, None if there is none."""
        known = self._texts.get(word, {})
        return next((number for number, name in known.items() if name == text), None)


def _proved_count(data, end, version):
    """Return the number of entries; raise ValueError unless the line from end on is the last, and
    true of what is before.
    """
    import hashlib

    with memoryview(data) as view:
        digest = hashlib.sha256(view[:end]).hexdigest()
    others = 3 if version == _CAPTURE_WITH_NAMES else 2
    told = {"entries": data.count(b"\n") - others, "sha256": digest}
    if data[-1:] != b"\n" or _capture_json(data[end:]) != told:
        raise ValueError
    return told["entries"]


def _capture_btf(text, base=None):
    """Return the BTF that a capture holds in base 64, None for None."""
    import base64

    return BTF(base64.b64decode(text), base) if text else None


# Of the numbers in MapInfo: those that the kernel keeps in 64 bits, not 32, and those that it tells
# of every map.
_CAPTURED_LONG = frozenset(("map_extra", "memlock"))
_CAPTURED_ALWAYS = frozenset(("id", "type", "key_size", "value_size", "max_entries", "map_flags"))


def _prove_captured_info(info):
    """Raise ValueError for numbers that no map has, or none that can be captured."""
    for name in MapInfo.__slots__:
        number = getattr(info, name)
        if name != "name" and (number is not None or name in _CAPTURED_ALWAYS):
            _prove_number(number, 64 if name in _CAPTURED_LONG else 32)
    if not isinstance(info.name or "", str) or not info.key_size or not info.value_size:
        raise ValueError
    key_fits = info.type not in _INDEX_TYPES or info.key_size == 4
    value_fits = info.type not in _OF_MAPS_TYPES or info.value_size == 4
    if not key_fits or not value_fits:
        raise ValueError


def _prove_number(number, bits):
    """Raise ValueError unless it is an unsigned integer of so many bits."""
    if not isinstance(number, int) or not 0 <= number < 1 << bits:
        raise ValueError


def _object_maker(found):
    """Return f(raw) that makes what a Map of a layout hands out: a number, an object, or bytes."""
    if isinstance(found, Bytes):
        return bytes
    ctype = found.ctype()
    copy = _copier(ctype)
    return (lambda raw: _get_value(copy(raw))) if _is_scalar(ctype) else copy


class _Progress:
    """A line on the terminal that tells how far a long scan is, while its output goes elsewhere."""

    def __init__(self, info):
        import time  # which on old Pythons reads the zone's file

        self.info, self.clock = info, time.time
        self.next_time = self.clock() + 1
        self.is_watched = sys.stderr.isatty() and not sys.stdout.isatty()

    def show(self, count):
        """Tell the number of entries, if it is time."""
        if self.is_watched and self.clock() > self.next_time:
            self.next_time = self.clock() + 0.5
            sys.stderr.write("\r%d of at most %d entries\033[K" % (count, self.info.max_entries))
            sys.stderr.flush()

    def end(self):
        """Wipe the line away."""
        if self.is_watched:
            sys.stderr.write("\r\033[K")


# ---- 9. Command line --------------------------------------------------------
#
# From words, in bpftool's grammar, to text on standard output and an exit status.
#
# main()         runs _run(), and turns whatever is raised into one line on stderr (with -j, JSON on
#                standard output) and an exit status; a broken pipe and Ctrl-C end quietly
# _run()         finds the command and calls its function, _command_NAME(options), which prints and
#                returns None or a status; what goes wrong it raises: _UsageError (2), _Miss (1),
#                BPFError and other errors (1)
# _Options       the words taken apart: options as attributes, .words for the command, .data with
#                what stands behind MAP
# _open_view()   opens MAP, or loads the capture of --from, as a View (section 8), which knows types
#                and meanings, and makes text; a map is closed when its last View is dropped
# _Given         tells keywords, options and DATA apart; _bytes_of_data() makes bytes of DATA
#
# The commands follow, in groups (grep '^# -- '); a function stands before those that it calls.
#
# A new command: usage and help in _COMMANDS, a function _command_NAME; if it takes DATA, its
# keywords in _CLAUSES; if it prints keys or values, or nothing, its name in _SHOWING or _SILENT; a
# row in the README's table.
# A new option: _Options.FLAGS or VALUES; LATE if it may follow DATA, LISTS if it may be given
# twice; where it does nothing without another one, NEED_METRICS or _refuse_idle_options; then
# _WORDS_HELP and the README's table.  A new output form: section 8 lists its places.
# Help is written by hand.  A test proves that it names every option, not that what it says of a
# command is so: whoever changes the one, changes the other.

# -- the commands, and what help says of them

# command -> (usage, what it does, an example, what else its -h says).  The order is bpftool's, as a
# prefix stands for the first command that it fits.  No line of help has more than 80 columns.
# fmt: off
_COMMANDS = {
    "show": ("[MAP ...]", "list the maps, or tell one's pins and users", "map show name flows", """\
Without MAP all maps of the kernel, with their pins; with MAP also the
programs and the processes that hold it, as far as one may see them.
Of several maps of the name all are shown.  It takes CAP_SYS_ADMIN, with
'pinned PATH' read permission for the pin.
-j prints bpftool's JSON, -j -f with the pins too; --metrics sizes, max_entries
and memory with the labels id, map and type, and the entries of arrays: of other
maps, which have to be read for it, with --entries."""),
    "list": ("[MAP]", "as show", "map list", ""),
    "help": ("[COMMAND]", "this text, or a command's", "help dump", ""),
    "dump": (
        "MAP ... [where FIELD=VALUE ...]\n           [sort FIELD] [top N] [columns A,B...] [sum]",
        "print entries",
        "map dump name flows where dport=443 sort bytes top 20", """\
An entry a line, decoded by the map's BTF or by --key-type and --value-type;
of a per-CPU map a line for each CPU.  Without types: bytes in hex.
-j prints bpftool's JSON, --ndjson decoded JSON, an entry a line, --metrics
text for Prometheus, --hex bytes.  Of several maps of the name, and of several
MAPs, all are printed.
Where values can't be read (perf_event_array, xskmap, ...) each key is printed
with the error.
where: entries that meet all conditions, FIELD and one of = != < > <= >= ~ (a
pattern of Python's re) and a value as key and value take it.  A FIELD is one of
the value, else of the key: bytes, addr.ip4, hits[3], key.port, key, value; of a
per-CPU map its CPUs' numbers, added up, are compared, of enums, times,
addresses and text the first CPU's.  sort: the largest first, 'sort +FIELD' the
smallest.  top: the first N.  columns: these fields alone (of the key if any is
named).  sum: CPUs are shown as they are compared.  columns and sum not with
-j."""),
    "update": (
        "MAP key DATA value VALUE\n           [cpu=N] [any|exist|noexist]", "store an entry",
        "map update name limits key 10.0.0.1 value 100", """\
VALUE is DATA, or of a map of maps or programs: id N, name S,
pinned PATH, tag T.
any, the usual one, stores in any case, exist only over an entry, noexist only
a new one.
cpu=N stores the value of one CPU of a per-CPU map, else all CPUs get it;
kernels before 7.0 do that by reading all and storing all, and what other CPUs
count in between is lost.  If the value has a field 'cpu', give cpu=N after it.
A flag, cpu=N or an option stands behind the DATA, see --help.  Text that ends
in 'any' is to be quoted: value 'plan any'.
NAME=VALUE and JSON objects change the fields that they name: the entry is read,
changed and stored, on every CPU or on that of cpu=N.  This is not atomic: what
a program writes to it in between is lost.  Where there is no entry all fields
are needed, or rest=0 for those that are zero."""),
    "lookup": ("MAP key DATA", "print an entry; exit status 1 if there is none",
        "map lookup name flows key 10 0 0 1", """\
Everything behind 'key' is DATA; of a queue or stack leave 'key' out."""),
    "getnext": ("MAP [key DATA]", "print the key after a key, or the first",
        "map getnext name flows", """\
Exit status 1 after the last one.  A hash that has not got the key (any more)
starts over with its first."""),
    "delete": ("MAP key DATA", "remove an entry", "map delete name flows key src=10.0.0.1,port=443",
        "Exit status 1 if there was none.  Entries of arrays can't be removed."),
    "pin": ("MAP PATH", "give the map a name in a bpffs", "map pin id 5 /sys/fs/bpf/flows", """\
The map then stays when no program and no process holds it; rm PATH ends that."""),
    "peek": ("MAP", "print the value that pop would", "map peek name queue", ""),
    "push": ("MAP value DATA", "add a value to a queue, stack or bloom filter",
        "map push id 5 value 7", ""),
    "enqueue": ("MAP value DATA", "as push", "map enqueue id 5 value 7", ""),
    "pop": ("MAP", "remove a value from a queue or stack and print it", "map pop id 5", ""),
    "dequeue": ("MAP", "as pop", "map dequeue id 5", ""),
    "freeze": ("MAP", "forbid user space to change it, for good", "map freeze id 5", """\
Programs still change it.  It can't be undone, and maps that are mapped writable
can't be frozen."""),
    "create": ("PATH type TYPE key SIZE value SIZE\n"
        "           entries N [name NAME] [flags N] [inner_map MAP]", "make a map, pin it",
        "create /sys/fs/bpf/h type hash key 4 value 8 entries 9", """\
Sizes in bytes.  'inner_map' is for maps of maps: one like those they will hold.
It takes CAP_BPF, or a --token."""),
    "layout": ("MAP", "show offsets, holes, and Python that declares the types",
        "map layout name flows", """\
Key and value as the map's BTF or --key-type and --value-type have them."""),
    "watch": ("MAP [once] [interval SEC] [sort FIELD]", "show the entries live, with rates",
        "map watch id 5 sort bytes", """\
The entries that change fastest come first: by the rate of FIELD, else of the
first field that counts something (not of what only names a time, an id or an
address).  What changed is marked.  The numbers of a per-CPU map are added up.
'once' prints one interval and ends, as a capture does.  Into a pipe it prints a
list an interval; with -j or --ndjson a line of JSON: time, seconds, entries and
their rates."""),
    "hist": ("MAP [linear]", "draw a histogram", "map hist --slots log2 name hists", """\
Either the key's last field (or that called slot) is the slot and the value the
count, or an array in the value (slots, or the only one) has the counts, as in
libbpf-tools.  What else is in the key makes a histogram each.  CPUs are added
up.  What a slot stands for is nowhere in the map; --slots says it:
  log2      n: 2^n to 2^(n+1) - 1, 0: 0 and 1; usual for arrays in values
  bcc       n: 2^(n-1) to 2^n - 1, 1: 0 and 1; usual for slots in keys
  bpftrace[:BITS]     hist(n, BITS) of bpftrace; usual for maps called AT_...
  lhist:MIN:MAX:STEP  lhist(n, MIN, MAX, STEP) of bpftrace
  linear[:MIN[:STEP]] n itself (as the word 'linear'), or MIN + n * STEP
'--slots FIELD=NUMBERING' names the array (hists.slots, hists[3].slots) or the
count.  Maps of bpftrace need no types: what else is in the key is then bytes.
-j, --ndjson: key, numbering, slots, and buckets with low, high and count."""),
    "events": ("MAP [peek] [count N] [timeout SEC]", "print the records of a ring buffer",
        "map events name rb peek --value-type 'struct event'", """\
A record a line, as programs write them, decoded by --value-type: C, or the name
of a type in the BTF of a program that uses the map.  A record of another size,
or without a type, is shown as bytes in hex.  --ndjson prints a line of JSON for
each, --hex bytes.
The records are consumed: no other reader gets them.  'peek' leaves them to whom
they belong and begins with what comes next; what was overwritten before it was
seen is told in bytes at the end.
It ends with Ctrl-C, after 'count' records, or after 'timeout' seconds: then
with exit status 1 if they were fewer than 'count'.  It takes the right to
write to the map."""),
    "save": ("MAP FILE", "write a capture, to be read with --from",
        "map save name flows flows.capture", """\
FILE holds the map's info, its BTF and every entry; it appears when it is whole.
'--from FILE' stands for MAP in show, dump, lookup, layout and hist, anywhere."""),
    "btf": ("offset TYPE.MEMBER | layout TYPE", "ask the kernel's BTF",
        "btf offset task_struct.comm", """\
offset: the byte at which a member lies; members of members with more dots,
through pointers too: then an offset for each step.  layout: the type with
offsets and holes, and Python that declares it.  --btf FILE asks another BTF."""),
    "probe": ("", "tell what this kernel and these privileges allow", "-j probe", ""),
    "demo": ("", "have the kernel fill a map and look it up", "demo", """\
It makes two maps and a socket filter, sends three datagrams to itself and looks
the counts up.  Nothing is left behind."""),
}
# fmt: on
# other names of commands
_SAME = {"list": "show", "enqueue": "push", "dequeue": "pop"}
# Commands that show keys or values; they tell if these have no types.
_SHOWING = frozenset("dump lookup getnext peek pop watch hist".split())
# Commands that print nothing; bpftool's JSON of that is null.
_SILENT = frozenset("update delete pin push freeze create".split())
_WORDS_HELP = """\
  MAP   id N | name S | pinned PATH, or just N, S, /PATH
  DATA  [hex] BYTE...  a word a byte: 10 0x0a 012; after hex: 0a, or 7f000001
        or as the type has it: 1234, -1, 10.0.0.1, 10.0.0.0/8, fe80::1,
        02:00:00:00:00:01, text, the name of an enumerator,
        src=10.0.0.1,port=443 or src=10.0.0.1 port=443, {"src": 1, "port": 2}
        A key names all its fields (of a union one), or rest=0 for those left.
        A VALUE may hold blanks and commas (quote the word: 'comm=a b,c'), what
        looks like ,NAME= only in quotes: comm='"a,b=c"',port=1

What a word is: the first word behind key and value is DATA, whatever it is.
DATA ends after as many bytes as the type has, after one word for a number,
after the last NAME=VALUE, after JSON's last bracket; text of several words at
'value' or at any, exist, noexist in full (quote what would be taken for them).
Flags, cpu=N and options stand behind that.  '--' ends the options.

  -j, --json         JSON as bpftool prints it
  -p, --pretty       the same, indented
  -f, --bpffs        -j map show tells pins too
  --ndjson           decoded JSON, an entry a line
  --metrics          text for Prometheus
  --metrics-type FIELD=counter|gauge,...
                     what a field is, a gauge if not told
  --per-cpu          metrics of each CPU; else they are added up (enums are not)
  --entries          metrics of map show: count entries, which reads the maps
  --slots [FIELD=]NUMBERING
                     of hist; metrics have that field as a histogram
  --big-ints-as-strings
                     in JSON, -j too: numbers of more than 53 bits, which many
                     readers round, as strings, whatever they are
  --hex              bytes, not decoded
  --key-type T, --value-type T
                     for maps without BTF: u32, be16, char[16], "u64 count, u32
                     pid", C's struct { ... }, or the name of a type in the BTF
                     of the map, of its programs, or of the kernel (or --btf)
  --show FIELD=WORD,...
                     what numbers and bytes mean: ip4 ip6 ip mac prefix sockaddr
                     net (network byte order) hex ktime (since boot) ns us ms
                     bytes ksym stack ifindex cgroup uid pid errno char flags
                     plain; so it is shown, and taken as DATA and by where
  --from FILE        a capture instead of a map
  --btf FILE         instead of the running kernel's
  -B, --base-btf FILE
                     what that of a module is split from, for --btf with its .ko
  --token DIR        in a user namespace: the rights that the bpffs delegates
  --trace            print every bpf(2) call to stderr
  -h, --help         after a command: what it does, in full
  -V, --version

Exit status: 0 done, 1 failed or not found, 2 usage."""


# -- main: from words to an exit status


def main(argv: "Optional[Sequence[str]]" = None) -> int:
    """Run the command line; return 0 (done), 1 (failed, not found) or 2 (usage)."""
    _prepare_streams()
    _this_machine.forget()  # the names of symbols, users and the like are read once a run
    options = None  # until the words have been understood
    try:
        options = _Options(sys.argv[1:] if argv is None else argv)
        status = _run(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has gone: nothing is left to say, not even at exit
        _give_up_stdout()
        return 1
    except KeyboardInterrupt:  # Ctrl-C: as shells have it, 128 and the number of SIGINT
        return 130
    except _UsageError as error:
        return _complain(options, "%s (see --help)" % error, 2)
    # ImportError: a bare system may lack json
    except (_Miss, BPFError, OSError, ValueError, OverflowError, ImportError) as error:
        return _complain(options, error, 1)
    except MemoryError:
        return _complain(options, "out of memory", 1)


class _UsageError(Exception):
    """A command line that makes no sense: the message says why, the exit status is 2."""


class _Miss(Exception):
    """What was asked for is not there: the exit status is 1.

    The message is for people; with -j .in_json is printed in its place, as bpftool does.
    """

    def __init__(self, message, in_json):
        Exception.__init__(self, message)
        self.in_json = in_json


def _prepare_streams():
    """Have a standard output and error that can be written to, whatever we were started with."""
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open until the process ends
    if hasattr(sys.stdout, "reconfigure"):  # 3.7; a map's name may hold what LANG=C cannot print
        sys.stdout.reconfigure(errors="backslashreplace")


class _ClosedOutput:
    """Stands for a standard output that was closed when we started: an error once it is written
    to, not before.
    """

    failure = None

    def write(self, text):
        self.failure = self.failure or OSError(errno.EBADF, "it is closed")
        raise self.failure

    def flush(self):
        if self.failure:
            raise self.failure

    def isatty(self):
        return False


def _give_up_stdout():
    """Forget what could not be written, or Python would try again, and complain, at exit."""
    try:
        if isinstance(sys.stdout, _ClosedOutput):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # open until the process ends
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # no file, or closed
        pass


def _run(options):
    """Run the command that the words begin with; return its exit status, None for 0."""
    if options.version:
        print("bpflookup %s" % __version__)
        return None
    name = _take_command(options)
    if options.help and name != "help":  # COMMAND -h is help COMMAND
        options.words[:], name = [name], "help"
    options.command = _SAME.get(name, name)
    _refuse_idle_options(options)
    with trace() if options.trace else _NoContext():
        if options.token_path is not None:
            options.token = create_token(options.token_path)
        status = globals()["_command_" + options.command](options)
    if options.notice:
        sys.stderr.write("bpflookup: %s\n" % options.notice)
    if options.command in _SILENT and options.json:
        _put_json(options, None)
    return status


def _refuse_idle_options(options):
    """Refuse options that would do nothing for want of another one."""
    for name, option in options.NEED_METRICS.items():
        if getattr(options, name) and not options.metrics:
            raise _UsageError("%s goes with --metrics" % option)
    if options.slots and not options.metrics and options.command != "hist":
        raise _UsageError("--slots goes with hist or --metrics")


class _NoContext:
    """Stands in a with statement where there is nothing to enter; contextlib costs an import."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _complain(options, problem, status):
    """Tell a problem, an exception or a text, in one line on stderr, and with -j as JSON; return
    the exit status.
    """
    is_told = False  # so that stderr stays empty
    try:
        if options and options.json:
            is_told = _complain_in_json(options, problem)
        sys.stdout.flush()
    except OSError as failure:  # a full disk, a closed descriptor
        _give_up_stdout()
        problem, status, is_told = failure, 1, False
    try:
        if not is_told:
            line = _one_line(_problem_text(problem))
            if options and options.notice and options.notice not in line:
                line += "; " + options.notice
            sys.stderr.write("bpflookup: %s\n" % line)
    except OSError:  # nobody can be told
        pass
    return status


def _complain_in_json(options, problem):
    """Print a problem as JSON, or only end the JSON that was begun; return whether that is all
    there is to tell, as of a miss.
    """
    if options.unfinished:
        sys.stdout.write(options.unfinished + "\n")
        return False
    is_miss = isinstance(problem, _Miss)
    try:
        _put_json(options, problem.in_json if is_miss else {"error": _problem_text(problem)})
    except ImportError:
        return False
    return is_miss


def _problem_text(problem):
    """Return what an error says; where that is the system's own, without its number."""
    if not isinstance(problem, OSError) or isinstance(problem, BPFError):
        return str(problem)
    # an error without a file's name is one of writing the output
    name = "standard output" if problem.filename is None else os.fsdecode(problem.filename)
    return "%s: %s" % (_printable(name), problem.strerror or problem)


def _one_line(text):
    """Return the first line of a text, what can't be printed escaped."""
    return _printable(text.split("\n")[0])


def _command_help(options):
    if options.words:
        _print_help_of(options.words[0])
        return
    print("usage: %s [OPTION]... [map] COMMAND ...\n" % _program_name())
    for name, (_, summary, _, _) in _COMMANDS.items():
        print("  %-9s %s" % (name, summary))
    print("\nCOMMAND -h tells more of one.\n\n%s" % _WORDS_HELP)


def _print_help_of(name):
    """Print the help of one command; of another name of one, what that one's says."""
    if name not in _COMMANDS:
        raise _UsageError(_unknown("command '%s'" % name, name, _COMMANDS))
    usage, summary, example, _ = _COMMANDS[name]
    _, same_summary, _, details = _COMMANDS[_SAME.get(name, name)]
    if summary != same_summary:
        summary = "%s: %s" % (summary, same_summary)
    print(("usage: %s [OPTION]... %s %s" % (_program_name(), name, usage)).rstrip())
    print("%s%s.\n%s" % (summary[0].upper(), summary[1:], details and "\n%s\n" % details))
    print("for example: %s %s" % (_program_name(), example))
    print("%s --help tells what MAP and DATA are, and all options." % _program_name())


def _program_name():
    """Return the name that we were called by; where that tells nothing, the file's."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    known = name not in ("", "-", "-c") and __name__ == "__main__" or name.startswith("bpflookup")
    return name if known else "bpflookup.py"


# -- words: commands, options, and where MAP ends

_MAP_WORDS = ("id", "name", "pinned")
_FLAG_WORDS = {"any": BPF_ANY, "exist": BPF_EXIST, "noexist": BPF_NOEXIST}
# command that takes DATA -> the keywords that can follow MAP.  From the first of them on, words are
# left to _Given.
_CLAUSES = {
    "lookup": ("key",),
    "getnext": ("key",),
    "delete": ("key",),
    "push": ("value",),
    "enqueue": ("value",),
    "update": ("key", "value") + tuple(_FLAG_WORDS),
}


class _Options:
    """A command line taken apart: its options as attributes, None where not given, and its words.

    Commands take .words from the front, with take() and end().  .data is what stands after MAP from
    the first "key", "value" or flag on: there only the map's types tell what a word is (_Given).
    """

    # fmt: off
    # option -> the attribute that it sets, to True or to the value behind it
    FLAGS = {
        "-j": "json", "--json": "json", "-p": "pretty", "--pretty": "pretty",
        "-f": "bpffs", "--bpffs": "bpffs", "--hex": "hex", "--ndjson": "ndjson",
        "--metrics": "metrics", "--per-cpu": "per_cpu", "--entries": "entries",
        "--big-ints-as-strings": "big_ints_as_strings", "--trace": "trace", "--once": "once",
        "-h": "help", "--help": "help", "-V": "version", "--version": "version",
        # bpftool's, which change nothing here
        "-n": "same", "--nomount": "same", "-d": "same", "--debug": "same",
        "-l": "same", "--legacy": "same",
    }
    VALUES = {
        "--key-type": "key_type", "--value-type": "value_type", "--from": "capture_path",
        "--btf": "btf", "--base-btf": "base_btf", "-B": "base_btf", "--token": "token_path",
        "--metrics-type": "metrics_type", "--slots": "slots", "--show": "show",
    }
    # fmt: on
    # What may still be said behind DATA: the others would come too late there.
    LATE = frozenset(
        "json pretty bpffs hex ndjson metrics same key_type value_type per_cpu metrics_type slots "
        "big_ints_as_strings show".split()
    )
    # Given twice, the values of these are joined by a comma; of the others the last counts.
    LISTS = frozenset(("metrics_type", "slots", "show"))
    # These do nothing without --metrics, so that they are refused.
    NEED_METRICS = {
        "metrics_type": "--metrics-type",
        "per_cpu": "--per-cpu",
        "entries": "--entries",
    }

    def __init__(self, words):
        for name in list(self.FLAGS.values()) + list(self.VALUES.values()):
            setattr(self, name, None)
        self.words, self.data = [], []
        # What a command leaves for main: a line for stderr, told in the end or with what went
        # wrong, and what closes the JSON that was begun, should it break off.
        self.notice = self.unfinished = ""
        self.token = None  # the BPF token of --token, once it is made
        self.options_ended = False  # whether "--" was there
        self._take_apart(list(words))

    def _take_apart(self, rest):
        """Take options out of all the words; the others are the command's."""
        while rest:
            if self.options_ended or not self.is_option(rest[0]):
                self.words.append(rest.pop(0))
                if self._data_begins(rest):
                    self.data = [self.words.pop()] + rest
                    return
            elif rest[0] == "--":
                self.options_ended = bool(rest.pop(0))
            else:
                self.take_option(rest)

    def is_option(self, word):
        """Whether a word is an option; behind id, name and pinned only one that is known."""
        if word[:1] != "-" or not (word[1:2].isalpha() or word[1:2] == "-"):
            return False
        follows_map_word = self.words and self.words[-1] in _MAP_WORDS  # a name may begin with "-"
        return not follows_map_word or word == "--" or self.attributes_of(word) is not None

    def attributes_of(self, word):
        """Return the attributes that an option sets, None if it is unknown; -jp is -j -p."""
        option = word.partition("=")[0]
        if option in self.VALUES:
            return [self.VALUES[option]]
        is_short = word[:1] == "-" and word[1:].isalpha()
        flags = ["-" + letter for letter in word[1:]] if is_short else [word]
        names = [self.FLAGS.get(flag) for flag in flags]
        return None if None in names else names

    def take_option(self, words):
        """Take an option, and its value, from the front of words."""
        word = words.pop(0)
        names, (option, sign, value) = self.attributes_of(word), word.partition("=")
        if names is None:
            known = [one for one in list(self.FLAGS) + list(self.VALUES) if one[:2] == "--"]
            raise _UsageError(_unknown("option " + word, word, known))
        if option not in self.VALUES:
            for name in names:
                setattr(self, name, True)
            self.json = self.json or self.pretty
            return
        if not sign and not words:
            raise _UsageError("%s wants a value" % word)
        value = value if sign else words.pop(0)
        before = getattr(self, names[0])
        if names[0] in self.LISTS and before:
            value = before + "," + value
        setattr(self, names[0], value)

    def _data_begins(self, following):
        """Whether the last of the words is the first keyword behind a command that takes DATA and
        its MAP.

        following   the words that are still to come
        """
        words = self.words[1:] if _is_map(self.words[0]) else self.words
        clauses = _CLAUSES.get(_command_meant(words[0])) if words else None
        if not clauses:
            return False
        # how long MAP is can depend on what follows it
        ahead = [word for word in following[:3] if not self.is_option(word)]
        length = 0
        if not self.is_capture:
            length = _map_length(words[1:] + ahead, _opens(clauses))
        return len(words) == length + 2 and _stands_for(words[-1], *clauses) is not None

    @property
    def is_capture(self):
        """Whether a capture takes the place of MAP (--from)."""
        return self.capture_path is not None

    def take(self, what):
        """Take the next word; what is how an error calls the word that is missing."""
        if not self.words or not self.words[0]:
            raise _UsageError("%s is needed" % what)
        return self.words.pop(0)

    def end(self, rest=0):
        """Refuse more words than the rest that may still follow; None: any number may."""
        if rest is not None and len(self.words) > rest:
            opening = [one for one in _CLAUSES.get(self.command, ()) if one not in _FLAG_WORDS]
            wanted = ", %s is needed" % " or ".join(map(repr, opening)) if opening else ""
            raise _UsageError("unexpected '%s'%s" % (self.words[rest], wanted))

    def meanings(self):
        """Return [(field, word)] of --show, the field "" for the whole; empty ones are passed
        over.
        """
        pairs = self.show.split(",") if self.show else ()
        return [_field_and_word("--show", pair) for pair in pairs if pair.strip()]

    def metric_kinds(self):
        """Return {field: "counter" or "gauge"} of --metrics-type."""
        return _made_by_field("--metrics-type", self.metrics_type, _metric_kind)

    def numberings(self):
        """Return {field, or "" for the likely one: _Numbering} of --slots."""
        return _made_by_field("--slots", self.slots, _numbering, needs_field=False)


def _made_by_field(option, text, make, needs_field=True):
    """Return {field: make(word)} of an option's FIELD=WORD,... .

    Where no field is needed, WORD may stand alone, for the field "".
    """
    found = {}
    for pair in text.split(",") if text is not None else ():
        field, word = "", pair.strip()
        if needs_field or "=" in pair:
            field, word = _field_and_word(option, pair)
            if not field:
                raise _no_pair_error(option, pair)
        try:
            found[field] = make(word)
        except ValueError as error:
            raise _UsageError("%s: %s" % (option, error)) from None
    return found


def _field_and_word(option, pair):
    """Return (field, word) of FIELD=WORD; the field may be empty."""
    field, sign, word = [part.strip() for part in pair.rpartition("=")]
    if not sign:
        raise _no_pair_error(option, pair)
    return field, word


def _no_pair_error(option, pair):
    return _UsageError("%s takes FIELD=WORD,..., not '%s'" % (option, pair))


def _metric_kind(word):
    """Return a word of --metrics-type that there is; ValueError for another."""
    if word not in ("counter", "gauge"):
        raise ValueError("a metric is a counter or a gauge, not '%s'" % word)
    return word


def _take_command(options):
    """Take the command from the front of the words; return its name in full."""
    words = options.words
    if words and _is_map(words[0]):
        words.pop(0)
        if not words and not options.help:
            return "show"  # as bpftool
    if not words and options.help:
        return "help"
    word = words.pop(0) if words else ""
    if not word:
        raise _UsageError("a command is needed")
    name = _command_meant(word)
    if name is None:
        raise _UsageError(_unknown("command '%s'" % word, word, _COMMANDS))
    return name


def _stands_for(word, *names):
    """Return the first of the names that a word is, or begins; None if it is none of them."""
    if word in names:
        return word
    return next((name for name in names if word and name.startswith(word)), None)


def _is_map(word):
    """Whether a word is "map" or its beginning ("m" is no command); it may be left out."""
    return word not in _COMMANDS and _stands_for(word, "map") is not None


def _command_meant(word):
    """Return the command that a word is, or begins; None if it is none."""
    return _stands_for(word, *_COMMANDS)


def _map_length(words, can_follow):
    """Return how many of the first words are MAP: 2 for "id N", "name S", "pinned PATH", else 1.

    A shortened one may be a map's own name: in "n 5 key" it can stand for "name", in "n key 5" not.
    can_follow(words) tells whether words can stand behind MAP.
    """
    if not words:
        return 0
    kind = _stands_for(words[0], *_MAP_WORDS)
    if kind == words[0]:
        return min(2, len(words))
    return 2 if kind and words[1:] and can_follow(words[2:]) else 1


def _opens(clauses):
    """Return f(words): whether they can stand behind MAP, as none can, or those of a clause."""
    return lambda words: not words or _stands_for(words[0], *clauses) is not None


def _unknown(what, word, names):
    """Return the message that what is unknown, with those of the names that the word is near to."""
    near = _nearest(word, names)
    return "unknown %s%s" % (what, "; is it %s?" % " or ".join(near) if near else "")


def _nearest(word, names):
    """Return those of the names that are nearly a word, at most three."""
    meant = _folded(word.replace("@", "AT_"))  # so the maps of bpftrace are called
    found = [name for name in names if _folded(name) == meant[:15]]  # a map's name is cut there
    if not found and meant:
        found = [name for name in names if meant in _folded(name)]
    if not found:
        try:
            import difflib
        except ImportError:  # a bare system
            return []
        found = difflib.get_close_matches(word, names, 3, 0.7)
    return sorted(found)[:3]


def _folded(name):
    """Return a name as it is compared: without regard to case, and to "-" for "_"."""
    return name.lower().replace("-", "_")


# -- the maps and captures that words name


def _open_view(options, mode=None, rest=0):
    """Take the words of MAP and open it, or load the capture of --from; return a View of it.

    mode    "r", "w" or "rw" where it has to be a map, None where a capture will do as well
    rest    how many words may follow MAP; None: any number

    Nobody closes a map here: its descriptor is closed when its last View is dropped.
    """
    if options.is_capture:
        if mode:
            raise _UsageError("this takes a map, not a capture")
        return _load_view(options, rest)
    view = _make_view(options, _open_map(options, mode or "r", rest))
    is_typed = None not in (options.key_type, options.value_type)
    if options.command in _SHOWING and not options.hex and not is_typed:
        _tell_why_untyped(options, view)
    return view


def _load_view(options, rest):
    """Return a View of the capture of --from, beside which no MAP may be given."""
    if options.command in _CLAUSES:
        # in "lookup key 1 --from FILE", "key" could be MAP as long as --from had not been seen
        options.data = options.words + options.data
        options.words = []
    options.end(rest)
    return _make_view(options, _load_file(Capture.load, options.capture_path))


def _load_file(load, path, *given):
    """Return load(path, *given); what is wrong with what stands in the file, names the file."""
    try:
        return load(path, *given)
    except BTFError as error:
        raise BTFError("%s: %s" % (path, error)) from None
    except ValueError as error:
        raise ValueError("%s: %s" % (path, error)) from None


def _open_map(options, mode, rest):
    """Take the words of MAP; return the Map, its keys and values as bytes."""
    if not options.words or not options.words[0]:
        raise _UsageError("a map: id N, name S, pinned PATH is needed")
    length = _map_length(options.words, lambda after: rest is None or len(after) == rest)
    options.map_words, options.words = options.words[:length], options.words[length:]
    options.end(rest)
    return _open_words(options.map_words, mode, options.token)


def _make_view(options, source, *types):
    """Return the View of a map or capture, its types, meanings and form of numbers as the options
    say.

    types   of keys and of values, in place of --key-type and --value-type
    """
    key, value = types or (options.key_type, options.value_type)
    view = View(source, key, value, _btf_of_options(options))
    view.json_suffix = " strings" if options.big_ints_as_strings else ""
    for field, word in options.meanings():
        _ask_meaning(view.show, field, word)
    return view


def _ask_meaning(show, field, word):
    """Return show(field, word) for a pair of --show, whose mistakes are the command line's."""
    try:
        return show(field, word)
    except LayoutError as failure:
        raise _UsageError("--show: %s" % failure) from None


def _btf_of_options(options):
    """Return the BTF of --btf, None without it."""
    return None if options.btf is None else _asked_btf(options)


def _tell_why_untyped(options, view):
    """Leave a notice why keys and values come as bytes where the map has BTF that can't be had."""
    info = view.info
    if not (info.btf_id or info.btf_vmlinux_value_type_id) or view.source.btf:
        return
    why = "the map's types are missing: " + _one_line(view.source._no_btf)
    if options.metrics and isinstance(view.value_layout, Bytes):
        raise ValueError("metrics need the type of the values (--value-type); " + why)
    options.notice = why


def _open_views(options):
    """Take the words of all MAPs; return a View of each, and of each map that has the name."""
    if options.is_capture:
        return [_open_view(options)]
    found = _open_views_named(options)
    while options.words:
        found += _open_views_named(options)
    if options.ndjson and found[1:]:
        raise _UsageError("--ndjson takes one map: its lines do not tell of which they are")
    return found


def _open_views_named(options):
    """Take the words of one MAP; return a View of each map that has the name."""
    try:
        return [_open_view(options, rest=None)]
    except AmbiguousName as several:
        if options.ndjson:
            raise
        return _open_views_by_id(options, several.ids)


def _open_views_by_id(options, ids):
    """Return a View of each map that is still there."""
    found, gone, others = [], None, options.words
    for map_id in ids:
        options.words = ["id", str(map_id)]
        try:
            found.append(_open_view(options))
        except MapNotFound as error:
            gone = error
    options.words = others
    if gone and not found:
        raise gone
    return found


def _open_words(words, mode="r", token=None):
    """Return the Map that the words of MAP name, its keys and values as bytes."""
    if words[0] in _MAP_WORDS and not words[1:]:
        raise _UsageError("what follows '%s' is needed" % words[0])
    which = words[-1]  # a path as it is, blanks and all
    kind = _stands_for(words[0], *_MAP_WORDS) if words[1:] else _kind_of_bare(which)
    if not which or kind == "id" and not which.isdecimal():
        raise _UsageError("'%s %s': a map is id N, name S or pinned PATH" % (kind, which))
    if kind == "id":
        return Map.from_id(int(which), bytes, bytes, mode=mode)
    if kind == "pinned":
        return Map.from_pin(which, bytes, bytes, mode=mode, token=token)
    try:
        return Map.from_name(which, bytes, bytes, mode=mode)
    except MapNotFound as missing:
        near = _nearest(which, {info.name for info in maps() if info.name})
        if near:
            missing.hint = "is it %s?" % " or ".join(map(repr, near))
        raise


def _kind_of_bare(word):
    """Return what MAP is by a word alone: "id", "name" or "pinned"."""
    if word.isdecimal():
        return "id"
    return "pinned" if "/" in word else "name"


# -- DATA: what people write for a key or a value
#
# Two questions are answered one after the other:
#
# Where does DATA end?  Behind MAP a word can be a keyword ("key", "value", a flag, cpu=N), an
# option, or DATA.  _Given goes through them from left to right.  The first word behind "key" or
# "value" is DATA, whatever it looks like; DATA then ends where it is complete:
# - with as many bytes as the type has, in decimal or after "hex", whatever else they could mean;
# - with one word where the type is a number, with a record's last NAME=VALUE, with JSON's last
#   bracket;
# - text of several words goes on to the end, to "value", or to a flag that is spelled out.
# What follows is a keyword or an option again.
#
# Which bytes is it?  _bytes_of_data() takes words that are bytes each as they are; what else they
# are (text, NAME=VALUE, JSON, a number, an address), Layout.pack() makes bytes of.


def _take_data(options, view):
    """Return (View, _Given) of the words behind MAP; another View where there are options of types
    among them, by which the words are read again.
    """
    before = options.key_type, options.value_type, options.show
    given = _Given(options, view)
    if (options.key_type, options.value_type, options.show) != before:
        view = _make_view(options, view.source)
        given = _Given(options, view)
    return view, given


class _Given:
    """What stands behind MAP, taken apart: .key and .value are the words of DATA, .flag a number
    (BPF_ANY, ...), .cpu the text behind cpu=; each None where it is not given.

    As in bpftool key and value come in any order, flags anywhere between.
    """

    def __init__(self, options, view):
        self.view, self.options = view, options
        self.options_ended = options.options_ended
        self.key = self.value = self.flag = self.cpu = None
        self.held = None  # what the value is a descriptor of: it has to stay open till it is stored
        clauses = _CLAUSES[options.command]
        self.takes_flag = "any" in clauses
        self.clauses_left = [one for one in ("key", "value") if one in clauses]
        if not view.info.key_size and "key" in self.clauses_left:
            self.clauses_left.remove("key")
        words = list(options.data)
        while words:
            clause = self._clause_named(words[0])
            if clause:
                del words[0]
                self.clauses_left.remove(clause)
                length = self._data_length(clause, words)
                setattr(self, clause, words[:length])
                del words[:length]
            elif not self._takes(words):
                raise _UsageError("unexpected '%s'" % words[0])

    def missed(self, key):
        """Return the message that there is no such key: as it was typed, and its bytes."""
        typed = " ".join(self.key)
        if _length_as_bytes(self.key, Bytes(len(key))):
            return "no such key: " + _hex(key)
        text = "no such key: %s (%s)" % (typed, _hex(key))
        if self.key[1:] and self._is_option(self.key[-1]):
            text += "; %s was taken for text: options stand before it" % self.key[-1]
        return text

    def _clause_named(self, word):
        """Return "key" or "value" if a word is that, or begins it, and it may still come."""
        return _stands_for(word, *self.clauses_left)

    def _flag_named(self, word):
        """Return the flag that a word is, or begins; None if none may come (any more)."""
        if not self.takes_flag or self.flag is not None:
            return None
        return _stands_for(word, *_FLAG_WORDS)

    def _is_cpu(self, word):
        return word[:4] == "cpu=" and self.cpu is None and self.view.info.type in _PERCPU_TYPES

    def _is_option(self, word):
        if self.options_ended or word[:1] != "-" or len(word) < 2:
            return False
        return self.options.attributes_of(word) is not None or word == "--"

    def _takes(self, words):
        """Take a flag, cpu=N or an option from the front of words; return whether there was one."""
        if self._flag_named(words[0]):
            self.flag = _FLAG_WORDS[self._flag_named(words.pop(0))]
        elif self._is_cpu(words[0]):
            self.cpu = words.pop(0)[4:]
        elif words[0] == "--" and not self.options_ended:
            self.options_ended = bool(words.pop(0))
        elif self._is_option(words[0]):
            if not self.options.LATE.issuperset(self.options.attributes_of(words[0])):
                raise _UsageError("%s has to stand before the key and value" % words[0])
            self.options.take_option(words)
        else:
            return False
        return True

    def _data_length(self, clause, words):
        """Return how many of the words behind "key" or "value" are its DATA."""
        if words[1:] and words[0] == "--" and not self.options_ended:
            self.options_ended = bool(words.pop(0))
        if not words:
            return 0
        length = self._complete_length(clause, words)
        if length and (length == len(words) or self._can_follow_data(words[length])):
            return length
        return self._text_length(words[: self._next_clause(words)])

    def _can_follow_data(self, word):
        named = self._clause_named(word) or self._flag_named(word)
        return bool(named) or self._is_cpu(word) or self._is_option(word)

    def _complete_length(self, clause, words):
        """Return with how many words DATA is complete, 0 for text, which goes on."""
        found = _layout_of(self.view, clause)
        length = _length_as_bytes(words, found)
        if length or _is_text(found) and not _names_fields(words, found):
            return length
        if clause == "value" and _kind_of_held(self.view.info.type, words):
            return 2
        if words[0][:1] in ("{", "["):
            return _length_as_json(words)
        if "=" not in words[0]:
            return 1
        return self._length_of_assignments(words, found)

    def _length_of_assignments(self, words, found):
        """Return how many words are NAME=VALUE; a last cpu=N is the field cpu only where the layout
        has one that is not named before.
        """
        length = next((at for at, word in enumerate(words) if "=" not in word), len(words))
        if length > 1 and self._is_cpu(words[length - 1]):
            is_named = ",cpu=" in "," + ",".join(words[: length - 1])
            if is_named or "cpu" not in _field_names(found):
                length -= 1
        return length

    def _next_clause(self, words):
        """Return where in text the other clause begins: where its word is spelled out, or else
        where it is shortened; at the end if nowhere.
        """
        inner = range(1, len(words) - 1)  # text has a word at least, and so has what follows
        whole = [at for at in inner if words[at] in self.clauses_left]
        shortened = [at for at in inner if self._clause_named(words[at])]
        return (whole or shortened or [len(words)])[0]

    def _text_length(self, words):
        """Return how many words are text: those before a flag that is spelled out and cpu=N."""
        length, has_flag, has_cpu = len(words), False, False
        while length > 1:
            word = words[length - 1]
            if not has_flag and word in _FLAG_WORDS and self._flag_named(word):
                has_flag = True
            elif not has_cpu and self._is_cpu(word):
                has_cpu = True
            else:
                break
            length -= 1
        return length


def _bytes_of_data(words, view, what, base=None):
    """Return the bytes that DATA stands for, of a "key" or "value" (what).

    base    bytes of the same type: fields that are not named are as they are there
    """
    found = _layout_of(view, what)
    if not words:
        raise _UsageError("a %s of %d bytes is needed" % (what, found.size))
    if words[1:] and words[-1][:4] == "cpu=" and not _is_text(found):
        if view.info.type not in _PERCPU_TYPES and "cpu" not in _field_names(found):
            raise _UsageError("unexpected '%s': this map has no value per CPU" % words[-1])
    if isinstance(found, Bytes) and _names_fields(words, found):
        raise _UsageError("the %s has no fields: --%s-type can tell them" % (what, what))
    try:
        raw = _bytes_spelled_out(words, found)
        if raw is None:
            is_lpm_key = what == "key" and view.info.type == BPF_MAP_TYPE_LPM_TRIE
            given = _what_words_say(words, found, is_lpm_key)
            raw = given if isinstance(given, bytes) else found.pack(given, base, what)
    except (ValueError, OverflowError, LayoutError, RecursionError) as error:
        told = str(error)
        told = told if told.startswith(what) else "%s: %s" % (what, told)
        raise _UsageError(told) from None
    if len(raw) != found.size:
        quote = "; as text quote it: '%s'" % " ".join(words) if _is_text(found) else ""
        raise _UsageError("the %s has %d bytes, not %d%s" % (what, found.size, len(raw), quote))
    return raw


def _layout_of(view, what):
    return view.key_layout if what == "key" else view.value_layout


def _is_text(found):
    """Whether a layout holds text: an array of char, alone or as a record's only field."""
    while isinstance(found, Record) and len(_field_names(found)) == 1:
        found = [part.layout for part in found.parts if part.label is not None][0]
    return isinstance(found, Array) and found.is_text


def _field_names(found):
    """Return the names of the fields of a record, none of another layout."""
    labels = [part.label for part in found.parts] if isinstance(found, Record) else []
    return [label for label in labels if label is not None]


def _names_fields(words, found):
    """Whether DATA is NAME=VALUE or a JSON object, which may leave fields out.

    Text may look so: there NAME has to be a field's.
    """
    name, sign, _ = words[0].partition("=")
    if _is_text(found):
        return bool(sign) and _field(found, name) is not None
    return bool(sign) or words[0][:1] == "{"


def _kind_of_held(map_type, words):
    """Return "id", "name", "pinned" or "tag" where a value names the map or program that the entry
    is to hold; else None.
    """
    if map_type not in _FD_VALUE_TYPES or not words[1:]:
        return None
    kinds = _MAP_WORDS + (("tag",) if map_type == BPF_MAP_TYPE_PROG_ARRAY else ())
    return _stands_for(words[0], *kinds)


def _length_as_json(words):
    """Return with how many words JSON is complete, 0 if never."""
    import json

    text, count = " ".join(words), 1
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
    except (ValueError, RecursionError):
        return 0
    while len(" ".join(words[:count])) < end:
        count += 1
    return count


def _length_as_bytes(words, found):
    """Return how many words are the bytes of a layout, 0 if they do not begin with so many."""
    size = found.size
    if words[1:] and _stands_for(words[0], "hex"):
        total = 0
        for at, word in enumerate(words[1:], 2):
            total += len(_hex_bytes(word) or b"")
            if total >= size or not _hex_bytes(word):
                return at if total == size and _hex_bytes(word) else 0
        return 0
    if len(words) < size or size < 2 and not isinstance(found, Bytes):
        return 0
    numbers = [_byte(word) for word in words[:size]]
    return 0 if not size or None in numbers or max(numbers) > 255 else size


def _hex_bytes(word):
    """Return the bytes of a word in hex: 7f, 0x7f, f, or 7f000001; None if it is not in hex."""
    digits = word[2:] if word[:2].lower() == "0x" else word
    if not digits or set(digits) - set("0123456789abcdefABCDEF"):
        return None
    if len(digits) > 2 and len(digits) % 2:
        return None
    return bytes.fromhex(digits if len(digits) > 1 else "0" + digits)


def _byte(word):
    """Return the number of a word that bpftool takes for a byte: 10, 0x0a, 012; else None.  It may
    be too large for one.
    """
    if not "0" <= word[:1] <= "9" or set(word) - set("0123456789abcdefxABCDEFX"):
        return None
    try:
        return _parsed_int(word)
    except ValueError:
        return None


def _bytes_spelled_out(words, found):
    """Return the bytes of words that are bytes each, None where they are something else."""
    if words[1:] and _stands_for(words[0], "hex"):
        parts = [_hex_bytes(word) for word in words[1:]]
        if None not in parts:
            return b"".join(parts)
        if not _is_text(found):
            raise ValueError("'%s' is no byte in hex" % words[1 + parts.index(None)])
        return None
    numbers = [_byte(word) for word in words]
    if None in numbers or len(words) == 1 and not _is_one_byte(numbers[0], found):
        return None
    for word, number in zip(words, numbers):
        if number > 255:
            raise ValueError("'%s' is no byte, which is 0 to 255" % word)
    return bytes(numbers)


def _is_one_byte(number, found):
    """Whether a number that stands alone is a byte, as in bpftool, and not a number of the type."""
    if found.size != 1:
        return False
    if isinstance(found, Bytes):
        return True
    # for a signed byte 255 is -1
    return type(found) is Number and found.signed and number > found.high


def _what_words_say(words, found, is_lpm_key):
    """Return what words say as Layout.pack() takes it; of an LPM trie's key its bytes."""
    text = " ".join(words)
    if _is_text(found) and not _names_fields(words, found):
        return _as_text(found, text)
    if text[:1] in ("{", "["):
        value, end = _in_brackets(text, 0)
        if text[end:].strip():
            raise ValueError("'%s' is more than the JSON before it" % text[end:].strip())
        return value
    if words[1:] and all(len(word) < 3 and _hex_bytes(word) for word in words):
        raise ValueError("'%s' is no decimal number; before bytes in hex write 'hex'" % text)
    if "=" in words[0]:
        return _assignments(words, found)
    if is_lpm_key and set(text) & set(".:"):
        return lpm_key(text)
    return text


def _as_text(found, text):
    """Return what Layout.pack() takes for text that a layout holds.

    Of a record that is the field by name: text alone it could take for an address.
    """
    if not isinstance(found, Record):
        return text
    (part,) = [part for part in found.parts if part.label is not None]
    return {part.label: _as_text(part.layout, text)}


# -- NAME=VALUE, and JSON, in DATA
#
# A word holds one NAME=VALUE or more, with commas between them, or with blanks where the NAME= of
# another field follows.  A comma or blank that no NAME= follows belongs to VALUE; what would be
# taken for more than that can be put in quotes.  {...} and [...] are JSON where the field is no
# text.


def _assignments(words, found):
    """Return {"addr": {"ip4": "10.0.0.1"}} for ["addr.ip4=10.0.0.1"]; found is the layout."""
    tree, names = {}, _field_names(found)
    for at, word in enumerate(words):
        if at + 1 < len(words) and word[-1:] == ",":  # "a=1, b=2": a comma and a blank
            word = word[:-1]
        end = 0
        while end < len(word):
            name, sign, _ = word[end:].partition("=")
            if not sign:
                told = "'%s' is no NAME=VALUE" % word[end:]
                if at:  # then it may be meant for the VALUE before
                    told += ", or quote '%s'" % " ".join(words[at - 1 : at + 1])
                raise ValueError(told)
            value, end = _value_in(word, end + len(name) + 1, names, _field(found, name))
            _assign(tree, names, name.strip(), value)
    return tree


def _assign(tree, names, path, value):
    """Put a value into a dict, or a dict in it, where the path says."""
    branch, steps = tree, path.split(".")
    if path in names:  # a field's name may have dots
        steps = [path]
    for step in steps[:-1]:
        branch = branch.setdefault(step, {}) if isinstance(branch, dict) else None
    if not isinstance(branch, dict) or steps[-1] in branch:
        raise ValueError("'%s' is given twice" % path)
    branch[steps[-1]] = value


def _field(found, path):
    """Return the layout of a field, None if there is no such field."""
    steps = path.strip().split(".")
    while steps:
        part, count = found._first_named(steps) if isinstance(found, Record) else (None, 0)
        if part is None:
            return None
        found, steps = part.layout, steps[count:]
    return found


def _value_in(word, start, names, field):
    """Return (VALUE, where the next NAME begins) of what stands behind a "=".

    names are those of all fields; field is the layout of this one.
    """
    first = word[start : start + 1]
    if first in ("{", "[") and not _is_text(field):
        value, end = _in_brackets(word, start)
        return value, _separated(word, end)
    if first in ("'", '"'):
        end = start + 1
        while end < len(word) and word[end] != first:
            end += 2 if word[end] == "\\" else 1
        # quotes that end in the middle of a word are VALUE's own
        if end < len(word) and word[end + 1 : end + 2] in ("", ",", " "):
            return _unquoted(word[start + 1 : end]), end + 2
    end = start
    while end < len(word) and not (word[end] in ", " and _name_follows(word, end, names)):
        end += 1
    return word[start:end], end + 1


def _name_follows(word, at, names):
    """Whether NAME= stands behind the separator at; behind a blank it has to be a field's name."""
    path, sign, _ = word[at + 1 :].partition("=")
    path = path.strip()
    if not sign or not path or not path.replace("_", "a").replace(".", "a").isalnum():
        return False
    return word[at] == "," or path.partition(".")[0] in names or path in names + ["rest"]


def _separated(word, end):
    """Return where the next NAME begins behind JSON, which has to end with a separator."""
    if word[end : end + 1] not in ("", ",", " "):
        raise ValueError("'%s' is more than the JSON before it" % word[end:])
    return end + 1


def _unquoted(text):
    """Return what stood in quotes with its backslashes, \\n and the like, resolved."""
    if "\\" not in text:
        return text
    return text.encode("ascii", "backslashreplace").decode("unicode_escape")


def _in_brackets(text, start):
    """Return (value, end) of JSON, or of what a dump prints to people: [1 2 3], {a=1 b={c=2}}."""
    import json

    try:
        return json.JSONDecoder().raw_decode(text, start)
    except ValueError as failure:
        try:
            return _printed(text, start, 0)
        except (ValueError, IndexError):
            raise failure from None


def _printed(text, at, depth):
    """Return (value, end) of a list, a record or a word as the form "words" prints them."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    opening = text[at]
    if opening not in "[{":
        return _printed_word(text, at)
    values, names = [], []
    at += 1
    while True:
        while text[at] in ", ":
            at += 1
        if text[at] in "]}":
            break
        if opening == "{":
            end = text.index("=", at)
            names.append(text[at:end])
            at = end + 1
        value, at = _printed(text, at, depth + 1)
        values.append(value)
    if text[at] != {"[": "]", "{": "}"}[opening]:
        raise ValueError("'%s' closes nothing" % text[at])
    return dict(zip(names, values)) if opening == "{" else values, at + 1


def _printed_word(text, at):
    """Return (text, end) of a word, which may be in quotes."""
    quote, end = text[at], at + 1
    if quote not in "'\"":
        while text[end] not in ", ]}":
            end += 1
        return text[at:end], end
    while text[end] != quote:
        end += 2 if text[end] == "\\" else 1
    return _unquoted(text[at + 1 : end]), end + 1


# -- output: JSON, and text that fits a terminal


def _put_json(options, thing):
    """Print plain Python as JSON, with -p indented."""
    print(_as_json(options, thing))


def _as_json(options, thing):
    """Return plain Python as JSON, without blanks or, with -p, indented."""
    import json

    how = {"indent": 4} if options.pretty else {"separators": (",", ":")}
    return json.dumps(thing, **how)


def _put_entry(options, view, key, value):
    """Print an entry in the form asked for."""
    if options.json:
        _put_json_text(options, view.bpftool_entry(key, value))
        return
    for text in _form_of(options, view)([view.chunk_of([(key, value)])]):
        print(text)


def _put_json_text(options, text, end="\n"):
    """Print what is JSON already, with -p indented."""
    sys.stdout.write((_indented(text) if options.pretty else text) + end)


def _form_of(options, view):
    """Return f(chunks) that yields the text of entries in the form asked for, which is not -j."""
    if options.ndjson:
        return view.json_lines
    if options.metrics:
        return lambda chunks: _metrics_of(options, [(view, chunks)])
    if options.hex:
        return view.hexadecimal
    return view.words


def _metrics_of(options, sources):
    """Return the lines of the metrics of maps; sources are (view, chunks)."""
    kinds, slots = options.metric_kinds(), options.numberings()
    families = _Families(_MetricWishes(kinds, slots, options.per_cpu))
    for view, chunks in sources:
        families.take(_with_types_of_bpftrace(options, view, slots.get("")), chunks)
    if families.unmet:
        words = sorted(families.unmet)[0], ", ".join(families.fields) or "none"
        raise _UsageError("no field '%s' for metrics; there are %s" % words)
    return families.text()


def _indented(text):
    """Return JSON text with an indent of four for each level, nothing in it changed."""
    import re

    lines, level = [], 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|\[\]|\{\}|[\[\]{},:]|[^\s,:\[\]{}"]+', text):
        if token in ("[]", "{}"):
            lines.append(token)
        elif token in "[{":
            level += 1
            lines.append(token + "\n" + "    " * level)
        elif token in "]}":
            level -= 1
            lines.append("\n" + "    " * level + token)
        elif token == ",":
            lines.append(",\n" + "    " * level)
        else:
            lines.append(": " if token == ":" else token)
    return "".join(lines)


def _is_terminal():
    """Whether people look at what is printed; None where it is no file, as a caller of main() may
    have it.
    """
    try:
        return os.isatty(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return None


def _terminal_size():
    """Return (columns, lines) of the terminal, as shutil's does, which a bare system may lack."""
    asked = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    asked = [int(text) if text.isdecimal() else 0 for text in asked]
    try:
        found = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # no terminal, no file
        found = 0, 0
    columns, lines = [one or other for one, other in zip(asked, found)]
    return columns or 80, lines or 24  # a size of 0 is none


class _TextColumns:
    """Rows of text as lines whose cells stand below each other, .head the line of the names.

    columns is [(name, whether it is of numbers, which stand on the right)].  Cells are as wide as
    the given rows need it, not all that follow: the first line need not wait for the last.  .width
    is that of a whole line.
    """

    def __init__(self, columns, rows):
        names = tuple(name for name, _ in columns)
        self.widths = [max(_widths(cells)) for cells in zip(names, *rows)]
        self.rights = [right for _, right in columns]
        self.width = sum(self.widths) + 2 * (len(names) - 1)
        sides = ["" if right else "-" for right in self.rights]
        self.line = "  ".join("%%%s%ds" % pair for pair in zip(sides, self.widths))
        self.head = self._row(names)

    def text(self, rows):
        """Return rows, tuples of text, as lines."""
        return "\n".join(map(self._row, rows))

    def _row(self, cells):
        if _is_ascii("".join(cells)):
            return (self.line % cells).rstrip()
        padded = []
        for cell, width, right in zip(cells, self.widths, self.rights):
            free = " " * (width - _width(cell))
            padded.append(free + cell if right else cell + free)
        return "  ".join(padded).rstrip()


def _fold(line, width):
    """Return a line that is too long for a terminal as several, broken between words."""
    if 2 * len(line) <= width or _width(line) <= width:
        return line
    lines, room = [""], width
    for word in line.split(" "):
        if _width(word) >= room and lines[-1].strip():
            lines.append("   ")
            room = width - 3
        lines[-1] += word if lines == [""] else " " + word
        room -= _width(word) + 1
    return "\n".join(one.rstrip() for one in lines)


def _padded(text, columns):
    """Return a text that fills so many columns, with blanks or cut."""
    free = columns - _width(text)
    return text + " " * free if free >= 0 else _padded(_cut(text, columns), columns)


def _cut(text, columns):
    """Return as much of a text as fits into so many columns; ".." at its end if that is not all."""
    if 2 * len(text) <= columns or _width(text) <= columns:
        return text
    room, kept = max(columns - 2, 0), 0
    while kept < len(text):
        room -= _width(text[kept])
        if room < 0:
            break
        kept += 1
    return text[:kept] + ".."[:columns]


def _widths(texts):
    """Return how many columns each text takes."""
    return list(map(len if _is_ascii("".join(texts)) else _width, texts))


def _width(text):
    """Return how many columns of a terminal a text takes: wide characters take two, those that
    combine with the one before none.
    """
    if _is_ascii(text):
        return len(text)
    try:
        import unicodedata
    except ImportError:  # a bare system
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _is_ascii(text):
    # isascii() is of 3.7
    return text.isascii() if hasattr(text, "isascii") else max(text, default="") < "\x80"


# -- map show


def _command_show(options):
    views = _open_views(options) if options.words or options.is_capture else []
    infos = [view.info for view in views] or list(maps())
    if options.metrics and not options.json:
        _show_metrics(options, infos, views)
        return
    pinned = pins() if not options.is_capture and (options.bpffs or not options.json) else {}
    if options.json:
        # bpftool tells of each map where it is pinned as soon as any is
        shown = [_info_json(info, pinned.get(info.id, []) if pinned else None) for info in infos]
        _put_json(options, shown[0] if len(views) == 1 else shown)
        return
    if not views and infos and _is_terminal():
        _show_table(infos, pinned)
        return
    for info in infos:
        held_by = {}
        if views and not options.is_capture:
            held_by = users(info.id, [view.source for view in views])
        _show_one(info, pinned.get(info.id), held_by)


# The columns of map show on a terminal: (name, whether it is of numbers), what it has of a MapInfo.
_SHOWN_COLUMNS = (
    (("id", True), lambda info: info.id),
    (("type", False), lambda info: map_type_name(info.type)),
    (("name", False), lambda info: _printable(info.name or "")),
    (("key", True), lambda info: info.key_size),
    (("value", True), lambda info: info.value_size),
    (("max_entries", True), lambda info: info.max_entries),
    (("flags", True), lambda info: "0x%x" % info.map_flags),
    (("memlock", True), lambda info: "" if info.memlock is None else info.memlock),
)


def _show_table(infos, pinned):
    """Print a line for each map, and where it is pinned."""
    rows = []
    for info in infos:
        cells = [str(tell(info)) for _, tell in _SHOWN_COLUMNS]
        rows.append(tuple(cells + [_printable(" ".join(pinned.get(info.id, [])))]))
    table = _TextColumns([column for column, _ in _SHOWN_COLUMNS] + [("pinned", False)], rows)
    print(table.head)
    print(table.text(rows))


# The metrics of map show: the name behind bpf_maps_, with which no family of a dump begins; the
# attribute of a MapInfo; what HELP says.
_INFO_METRICS = (
    ("max_entries", "max_entries", "Entries that the map may have"),
    ("key_size_bytes", "key_size", "Size of a key"),
    ("value_size_bytes", "value_size", "Size of a value, on one CPU"),
    ("memlock_bytes", "memlock", "Memory that the map takes"),
)


def _show_metrics(options, infos, views):
    """Print what the kernel tells of maps as metrics, of each map once."""
    families, infos = _Families(_MetricWishes()), {info.id: info for info in infos}
    form = 'id="%d",map="%s",type="%s"'
    labels = {
        info.id: form % (info.id, _label_text(info.name or ""), map_type_name(info.type))
        for info in infos.values()
    }

    def add(name, about, numbers):
        family = families.of("bpf_maps", (name,), "gauge", about + ".")
        for map_id, number in numbers:
            if number is not None:
                family.lines.append("%s{%s} %d" % (family.name, labels[map_id], number))

    for name, attribute, about in _INFO_METRICS:
        add(name, about, [(info.id, getattr(info, attribute)) for info in infos.values()])
    sources = {view.info.id: view.source for view in views}
    counts = ((one.id, _count_of(options, one, sources.get(one.id))) for one in infos.values())
    add("entries", "Entries that the map has", counts)
    for text in families.text():
        print(text)


_ALWAYS_FULL = frozenset((BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY))


def _count_of(options, info, source):
    """Return the number of a map's entries, None where it is not asked for or can't be had."""
    if info.type in _ALWAYS_FULL:
        return info.max_entries
    if not options.entries and not isinstance(source, Capture) or not info.key_size:
        return None
    try:
        source = source or Map.from_id(info.id, bytes, bytes)
        return sum(count for _, _, count in View(source, bytes, bytes).chunks())
    except (MapNotFound, NotSupported):  # gone meanwhile, or of a type that has no entries to read
        return None
    except BPFError as failure:
        options.notice = "the entries of map %d are not counted: %s" % (info.id, failure)
        return None


# What the second line of a map tells, as bpftool's JSON names it.
_SHOWN_NUMBERS = (
    "bytes_key",
    "bytes_value",
    "max_entries",
    "bytes_memlock",
    "owner_prog_type",
    "btf_id",
    "frozen",
)


def _show_one(info, pinned, held_by):
    """Print what is known of a map to people.

    pinned    its paths
    held_by   what users() found: programs and processes
    """
    known = _info_json(info)
    numbers = ["%s %s" % (word, known[word]) for word in _SHOWN_NUMBERS if word in known]
    print("%s\n\t%s" % (_headline(info), "  ".join(numbers).replace("bytes_", "")))
    for what, things in (
        ("pinned", pinned),
        ("programs", held_by.get("progs")),
        ("processes", held_by.get("pids")),
    ):
        if things:
            print("\t%s %s" % (what, ", ".join(map(_printable, things))))


def _headline(info):
    """Return the line that a map begins with, as bpftool has it."""
    name = "  name " + _printable(info.name) if info.name else ""
    return "%d: %s%s  flags 0x%x" % (info.id, map_type_name(info.type), name, info.map_flags)


def _info_json(info, pinned=None):
    """Return a map's info as bpftool names it, without what the kernel does not tell."""
    has_owner = info.type == BPF_MAP_TYPE_PROG_ARRAY  # newer kernels tell one of others too
    owner = info.owner_prog_type if has_owner else None
    known = {
        "id": info.id,
        "type": map_type_name(info.type),
        "name": info.name or None,
        "flags": info.map_flags,
        "bytes_key": info.key_size,
        "bytes_value": info.value_size,
        "max_entries": info.max_entries,
        "bytes_memlock": info.memlock,
        "owner_prog_type": owner and dict(enumerate(_PROG_TYPES)).get(owner, owner),
        "owner_jited": info.owner_jited if has_owner else None,
        "frozen": None if info.frozen is None else int(info.frozen),
        "btf_id": info.btf_id or None,
        "pinned": pinned,
    }
    return {name: value for name, value in known.items() if value is not None}


# -- map dump


def _command_dump(options):
    options.words, query_words = _split_query(options.words, not options.is_capture)
    query = _Query(query_words) if query_words else None
    views = _open_views(options)
    for view in views if query else ():
        query.bind(view, options.json)
    _hint_at_json(options, views[0])
    if options.metrics and not options.json:
        _dump_metrics(options, views)
    elif views[1:]:
        _dump_several(options, views)
    else:
        _dump_one(options, views[0])


def _dump_several(options, views):
    """Print the entries of maps, before those of each what map it is."""
    for view in views:
        first, last = view is views[0], view is views[-1]
        known = _info_json(view.info)
        head = {name: known[name] for name in ("id", "type", "name", "flags")}
        if options.json:
            start = _as_json(options, head).rstrip("}\n ") + ',"elements":'
            print(("[" if first else ",") + start)
        else:
            print("\n" * (not first) + _headline(view.info))
        _dump_one(options, view, "}]")
        if options.json:
            print("}]" if last else "}")


def _dump_metrics(options, views):
    """Print the metrics of maps, of each once."""
    known = {view.info.id: view for view in reversed(views)}
    chosen = [view for view in views if known[view.info.id] is view]
    for text in _metrics_of(options, [(view, _readable(options, view)) for view in chosen]):
        print(text)


def _hint_at_json(options, view):
    """Tell who pipes a map with BTF elsewhere that -j is JSON: bpftool's plain dump of it is."""
    asked = options.json or options.ndjson or options.metrics or options.hex
    asked = asked or options.key_type or options.value_type
    if asked or options.is_capture or not view.source.btf:
        return
    if _is_terminal() is False:
        sys.stderr.write("bpflookup: this is the form for people; -j prints bpftool's JSON\n")


def _dump_one(options, view, closing=""):
    """Print the entries of a map.

    closing   what ends the JSON that stands around them, should the dump break off
    """
    if options.json:
        _dump_json(options, view, closing)
        return
    for text in _text_of_entries(options, view)(_readable(options, view)):
        print(text)
    if not options.ndjson and not options.metrics:
        print("Found %d element%s" % (view.count, "" if view.count == 1 else "s"))


def _text_of_entries(options, view):
    """Return f(chunks) that yields the text of a dump; to people on a terminal it is a table."""
    form = _form_of(options, view)
    return _EntryTable(view).texts if form == view.words and _is_terminal() else form


class _EntryTable:
    """Entries for a terminal: a row each under a header, where keys and values have a word a field
    and the first entries fit into the width.  Else a line each, folded between its words.
    """

    def __init__(self, view):
        self.view = view
        keys = _table_columns(view.key_layout, "key") if view.info.key_size else []
        values = _table_columns(view.value_layout, None)
        self.columns = None  # where it can't be a table
        if keys is not None and values:
            taken = {name for name, _ in values}
            cpu_name = "[cpu]" if "cpu" in taken else "cpu"
            cpu = [(cpu_name, True)] if view.cpus_shown else []
            keys = [("key." + name if name in taken else name, right) for name, right in keys]
            self.columns = keys + cpu + values

    def texts(self, chunks):
        """Yield the text of chunks of entries."""
        width, _ = _terminal_size()
        chunks = iter(chunks)
        first = list(islice(chunks, 1))
        table = None
        if self.columns and first and first[0][2]:
            table = _TextColumns(self.columns, self._rows(*first[0]))
        if table is None or table.width > width:
            for text in self.view.words(chain(first, chunks)):
                yield "\n".join(_fold(line, width) for line in text.split("\n"))
            return
        yield table.head
        for chunk in chain(first, chunks):
            yield table.text(self._rows(*chunk))

    def _rows(self, keys, values, count):
        """Return the rows of a chunk, a list of tuples of text."""
        view, of_keys = self.view, [()] * count
        if view.info.key_size:
            of_keys = view.key_layout.reader("cells").rows(keys)
        of_values = view.value_layout.reader("cells", view.slot, view.cpus_added).rows(values)
        if view.cpus_shown:
            cpus = [(cpu,) for cpu in view.cpus]
            of_keys = map(add, _each_repeated(of_keys, len(cpus)), cycle(cpus))
        return [tuple(map(str, left + right)) for left, right in zip(of_keys, of_values)]


def _each_repeated(things, count):
    """Return an iterator over things, each so many times in a row."""
    return chain.from_iterable(repeat(thing, count) for thing in things)


def _table_columns(found, name):
    """Return [(name, whether it is of numbers)] of a record with a word for each field, else None.

    name   that of a layout which is one word itself, None where there has to be a record
    """
    form = _FORMS["cells"]
    if not isinstance(found, Record) or form.meaning_of(found) is not None:
        return [(name, form.is_right(found))] if name and form.has_cell(found) else None
    parts = form.members_of(found)
    inside = [form.layout_of(part) for part in parts]
    if not all(map(form.has_cell, inside)) or any(part.choice for part in parts):
        return None
    return [(_printable(one.label), form.is_right(two)) for one, two in zip(parts, inside)]


def _readable(options, view):
    """Yield the chunks of a view; print, where it stands, what can't be read."""
    for chunk in _dumped_chunks(view):
        if isinstance(chunk, _Unread):
            _print_unread(options, view, chunk)
        else:
            yield chunk


def _print_unread(options, view, unread):
    """Print a key with the error in place of its value; of an empty slot nothing."""
    if unread.code == errno.ENOENT or options.metrics:
        return
    if options.ndjson:
        key = view.key_layout.reader("json" + view.json_suffix).one(unread.key)
        print('{"key":%s,"error":%s}' % (key, _as_json(options, unread.text)))
        return
    # the C library has no words for ENOTSUPP
    why = errno_name(unread.code) if unread.code == ENOTSUPP else unread.text
    line = "key: %s  value: <%s>" if options.hex else "%s: <%s>"
    print(line % (_key_text(options, view, unread.key), why))


def _dump_json(options, view, closing):
    """Print the entries as bpftool's JSON has them: an array that ends whatever happens.

    Should it break off, _complain() prints what is .unfinished then.
    """
    before, options.unfinished = "[", "[]" + closing
    for texts in _batched(_json_texts(options, view)):
        sys.stdout.write(before)
        _put_json_text(options, ",".join(texts), "")
        before, options.unfinished = ",\n" if options.pretty else ",", "]" + closing
    print("[]" if before == "[" else "]")
    options.unfinished = ""


def _json_texts(options, view):
    """Yield entries as bpftool's JSON: chunks of them, and one by one those that can't be read."""
    entry = '{"key":["0x%s"],"value":{"error":%s}}'
    errors = {}  # type: dict  # errno -> what it means, as JSON
    for chunk in _dumped_chunks(view):
        if not isinstance(chunk, _Unread):
            yield from view.bpftool([chunk])
            continue
        key, code = chunk.key, chunk.code
        if code not in errors:
            errors[code] = _as_json(options, chunk.text)
        yield entry % ('","0x'.join(map("%02x".__mod__, key)), errors[code])


def _batched(texts):
    """Yield lists of texts, so many at a time that writing them costs little.

    Where it breaks off, what there is by then is handed out before the error.
    """
    waiting, length = [], 0
    try:
        for text in texts:
            waiting.append(text)
            length += len(text)
            if length > 1 << 16:
                yield waiting
                waiting, length = [], 0
    except BPFError:
        if waiting:
            yield waiting
        raise
    if waiting:
        yield waiting


# -- the entries of a dump, those that can't be read among them
#
# A chunk is (keys, values, count) as View.chunks() yields it.  Where a lookup fails, a dump has an
# _Unread between the chunks, and goes on.

# Arrays of descriptors: bpftool tells of each index what its lookup said, which may be an error.
_DESCRIPTOR_ARRAYS = frozenset(
    (
        BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        BPF_MAP_TYPE_CGROUP_ARRAY,
        BPF_MAP_TYPE_DEVMAP,
        BPF_MAP_TYPE_SOCKMAP,
        BPF_MAP_TYPE_CPUMAP,
        BPF_MAP_TYPE_XSKMAP,
        BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
    )
)


class _Unread:
    """Stands in a dump for an entry whose value can't be read: .key, and .code, the errno."""

    def __init__(self, key, code):
        self.key, self.code = key, code

    @property
    def text(self):
        """What the errno means, as bpftool's JSON has it."""
        return os.strerror(self.code)


def _dumped_chunks(view):
    """Yield the chunks of what a dump shows of a view, of all or of what its query asks for, and
    _Unread between them; show progress.

    view.count is the number of the entries that could be read.
    """
    view.count, progress = 0, _Progress(view.info)
    chunks = _all_chunks(view)
    for chunk in view.query.chunks(chunks) if view.query else chunks:
        if not isinstance(chunk, _Unread):
            _, _, count = chunk
            if not count:
                continue
            view.count += count
            progress.show(view.count)
        yield chunk
    progress.end()


def _all_chunks(view):
    """Return an iterator over all chunks of a view, _Unread between them, as its type is read."""
    info = view.info
    if not isinstance(view.source, Map):
        if info.type in _DESCRIPTOR_ARRAYS:
            return _chunks_of_entries(view, _slots_of_capture(view))
        return view.chunks()
    if info.type in _INDEX_TYPES and info.type not in _BATCH_TYPES:
        return _chunks_by_index(view)
    if info.key_size and view.source._walks_by_key():
        return _chunks_of_entries(view, _entries_by_key(view))
    return view.chunks()


def _chunks_of_entries(view, entries):
    """Yield chunks of entries that come one by one, _Unread between them."""
    waiting = []  # type: list
    try:
        for entry in entries:
            is_read = not isinstance(entry, _Unread)
            if is_read:
                waiting.append(entry)
            if waiting and (len(waiting) == view.chunk_entries or not is_read):
                yield view.chunk_of(waiting)
                waiting = []
            if not is_read:
                yield entry
    except BPFError:  # what was read is handed out first
        if waiting:
            yield view.chunk_of(waiting)
        raise
    if waiting:
        yield view.chunk_of(waiting)


def _chunks_by_index(view):
    """Yield the chunks of an array that is looked up index by index, _Unread between them."""
    tells_empty = view.info.type in _DESCRIPTOR_ARRAYS
    for first, values, codes in view.source._read_indices(view.chunk_entries):
        keys = struct.pack("=%dI" % len(codes), *range(first, first + len(codes)))
        raw, step, begin = bytes(values), sizeof(values._type_), 0
        # entries between two that failed are a chunk
        for end in [at for at, code in enumerate(codes) if code] + [len(codes)]:
            if end > begin:
                yield keys[4 * begin : 4 * end], raw[step * begin : step * end], end - begin
            begin = end + 1
            if end < len(codes) and (tells_empty or codes[end] != errno.ENOENT):
                yield _Unread(keys[4 * end : 4 * begin], codes[end])


def _entries_by_key(view):
    """Yield (key, value) of a map that is looked up key by key; _Unread where that fails."""
    seen = set()
    try:
        for key, value in view.entries():
            seen.add(key)
            yield key, value
    except SyscallError:
        # where a lookup failed, the walk goes on behind it; a type without next key fails again
        yield from _walked(view.source, seen)


def _walked(source, seen):
    """Yield (key, value) or _Unread of the keys that were not seen, a lookup each.

    The steps are bounded: a key that is deleted meanwhile starts the walk over.
    """
    key, steps = source.next_key(), 0
    while key is not None and steps <= _WALK_ROUNDS * source.max_entries + _WALK_SPARE_STEPS:
        if key not in seen:
            seen.add(key)
            found = _looked_up(source, key)
            if found is not None:
                yield found
        key, steps = source.next_key(key), steps + 1


def _looked_up(source, key):
    """Return (key, value), an _Unread, or None where there is no such key."""
    try:
        value = source.get(key)
    except SyscallError as error:
        return _Unread(key, error.errno)
    return None if value is None else (key, value)


# A capture of a few bytes can claim any number of slots, and each would be a line.
_MAX_EMPTY_SLOTS = 1 << 18


def _slots_of_capture(view):
    """Yield (key, value) of all slots of an array of descriptors; _Unread of those that the capture
    has no entry of, as bpftool tells them.
    """
    info, entries = view.info, {entry[0]: entry for entry in view.entries()}
    if info.max_entries - len(entries) > _MAX_EMPTY_SLOTS:
        words = len(entries), info.max_entries
        raise ValueError("a capture of %d entries for %d slots: too many to tell each" % words)
    for index in range(info.max_entries):
        key = index.to_bytes(info.key_size, view.source.order)
        yield entries.get(key) or _Unread(key, errno.ENOENT)


# -- a part of a dump: where FIELD=VALUE ... sort FIELD top N columns A,B sum
#
# _Query is what the words ask for, whatever the map.  Bound to a View it is a _BoundQuery, which
# filters and sorts chunks; columns are the View's layouts with all other fields taken out.

_QUERY_WORDS = ("where", "sort", "top", "columns", "sum")
# comparison -> what it is in the module operator; "~" takes a pattern instead of a value
_COMPARISONS = {
    "=": "eq",
    "!=": "ne",
    "<": "lt",
    ">": "gt",
    "<=": "le",
    ">=": "ge",
    "~": None,
}


def _split_query(words, has_map):
    """Return (the words of MAPs, those of the query); a map may be called as one of the latter."""
    start = 1 if has_map else 0
    if has_map and words and _stands_for(words[0], *_MAP_WORDS):
        start = 2
    for at in range(start, len(words)):
        if words[at] in _QUERY_WORDS:
            return words[:at], words[at:]
    return words, []


class _Query:
    """The words of a query taken apart: .conditions, .columns and .sort_name as text, .top a number
    (the last two None where they are not given), .adds_up for sum.
    """

    def __init__(self, words):
        self.conditions, self.columns = [], []
        self.sort_name = self.top = None
        self.adds_up = False
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "sum":
                self.adds_up = True
                continue
            if not words and word in _QUERY_WORDS:
                raise _UsageError("what follows '%s' is needed" % word)
            if word == "where":
                while words and words[0] not in _QUERY_WORDS:
                    self.conditions.append(words.pop(0))
            elif word == "sort":
                self.sort_name = words.pop(0)
            elif word == "columns":
                self.columns += [name for name in words.pop(0).split(",") if name]
            elif word == "top" and words[0].isdecimal():
                self.top = int(words.pop(0))
            else:
                known = "where FIELD=VALUE, sort FIELD, top N, columns A,B or sum"
                found = " ".join([word] + words[:1])
                raise _UsageError("%s is needed, not '%s'" % (known, found))

    def bind(self, view, is_json):
        """Find the fields in a view's layouts; give it a .query, and the columns asked for."""
        for is_asked, word in ((self.columns, "columns"), (self.adds_up, "sum")):
            if is_asked and is_json:
                raise _UsageError("-j is bpftool's JSON; %s can go with --ndjson" % word)
        if self.adds_up and not view.cpus:
            raise _UsageError("sum adds up the values of CPUs, of which this map has one")
        view.adds_up = self.adds_up
        conditions = [_Condition(view, text) for text in self.conditions]
        sort_field, is_upward = None, False
        if self.sort_name:
            sort_field = _FieldColumn(view, self.sort_name.lstrip("+"))
            is_upward = self.sort_name.startswith("+")
        view.query = _BoundQuery(view, conditions, sort_field, is_upward, self.top)
        chosen = {"key": [], "value": []}  # type: dict
        for name in self.columns:
            column = _FieldColumn(view, name)
            chosen[column.what].append(column.steps)
        if chosen["value"]:
            view.value_layout = _selected(view.value_layout, chosen["value"], "value")
        if chosen["key"]:
            view.key_layout = _selected(view.key_layout, chosen["key"], "key")


# entries that are kept while the first "top" of them are sought, besides twice as many as those
_SPARE_ENTRIES = 4096


class _BoundQuery:
    """A query with the fields of a view found: chunks() filters the view's.

    conditions   _Conditions, all of which have to hold
    sort_field   a _FieldColumn, or None
    is_upward    whether the smallest come first
    top          how many entries at most, or None
    """

    def __init__(self, view, conditions, sort_field, is_upward, top):
        self.conditions, self.top = conditions, top
        self.sort_field, self.is_upward = sort_field, is_upward
        self.key_size = view.info.key_size
        self.value_size = view.slot * max(len(view.cpus), 1)

    def chunks(self, chunks):
        """Yield chunks of the entries that are asked for: as they come, or, sorted, at the end."""
        entries = self._matching(chunks)
        if self.sort_field:
            entries = self._sorted(entries)
        entries = self._first(entries)
        while True:
            part = list(islice(entries, _CHUNK_ENTRIES))
            yield self._chunk(part)
            if len(part) < _CHUNK_ENTRIES:
                return

    def _first(self, entries):
        """Yield the first of the entries, .top of them.

        One more is read, and with 'top 0' one: a map that can't be read is told then as well.
        """
        for number, entry in enumerate(entries):
            if number == self.top:
                return
            yield entry

    def _chunk(self, entries):
        keys = b"".join([key for _, key, _ in entries])
        return keys, b"".join([value for _, _, value in entries]), len(entries)

    def _matching(self, chunks):
        """Yield (what it is sorted by, key, value) of the entries that meet all conditions."""
        for chunk in chunks:
            if isinstance(chunk, _Unread):
                continue  # nothing is known of it
            keys, values, count = chunk
            keep = [True] * count
            for condition in self.conditions:
                keep = [one and other for one, other in zip(keep, condition.holds(keys, values))]
            ranks = [None] * count
            if self.sort_field:
                ranks = self.sort_field.of(keys, values)
            for index in range(count):
                if keep[index]:
                    key = keys[index * self.key_size : (index + 1) * self.key_size]
                    value = values[index * self.value_size : (index + 1) * self.value_size]
                    yield ranks[index], key, value

    def _sorted(self, entries):
        """Return the entries in order; with a top, few more than that are kept at a time."""
        kept = []  # type: list
        room = None if self.top is None else 2 * self.top + _SPARE_ENTRIES
        for entry in entries:
            kept.append(entry)
            if room is not None and len(kept) > room:
                kept = self._in_order(kept)[: self.top]
        return self._in_order(kept)

    def _in_order(self, entries):
        return sorted(entries, key=_rank_of, reverse=not self.is_upward)


def _rank_of(entry):
    """Return what an entry of _matching() is sorted by, so that NaN is the least of all numbers."""
    rank = entry[0]
    return (rank == rank, rank) if isinstance(rank, float) else (True, rank)


class _Condition:
    """FIELD, a comparison, VALUE: .sign is the comparison."""

    def __init__(self, view, text):
        # the first comparison in the text, the longer one of two at one place
        found = [(text.find(sign), -len(sign), sign) for sign in _COMPARISONS if sign in text]
        at, _, self.sign = min(found, default=(0, 0, ""))
        if not at:
            told = "'%s' is no condition: FIELD and one of = != < > <= >= ~, then a value"
            raise _UsageError(told % text)
        self.field = _FieldColumn(view, text[:at].strip())
        wanted = text[at + len(self.sign) :].strip()
        if self.sign == "~":
            self.pattern = _pattern(wanted)
            return
        if not self.field.is_number and not self.field.is_text and self.sign not in ("=", "!="):
            raise _UsageError("%s has no order: only = and != can be asked of it" % self.field.name)
        try:
            self.wanted = self.field.value_of(wanted)
        except LayoutError as failure:
            raise _UsageError(str(failure)) from None

    def holds(self, keys, values):
        """Return for each entry of a chunk whether it meets the condition."""
        column = self.field.of(keys, values)
        if self.sign == "~":
            search = self.pattern.search
            return [bool(search(self.field.words(one))) for one in column]
        import operator

        compare, wanted = getattr(operator, _COMPARISONS[self.sign]), self.wanted
        return [compare(one, wanted) for one in column]


def _pattern(text):
    """Return the compiled pattern of Python's re that "~" compares with."""
    import re

    try:
        return re.compile(text)
    except re.error as failure:
        raise _UsageError("'%s' is no pattern: %s" % (text, failure)) from None


class _FieldColumn:
    """A field of keys or values, to compare and sort by: of() are its values in a chunk.

    .what is "key" or "value", .steps the names that lead to the field there.  Numbers are compared
    as numbers (a per-CPU map's are added up, where that says something), text as text, anything
    else as bytes.
    """

    def __init__(self, view, name):
        self.view, self.name = view, name
        self.what, self.steps, leaf, offset, bits = _find_field(view, name)
        self.leaf = leaf
        whole = view.key_layout if self.what == "key" else view.value_layout
        self.is_number = isinstance(leaf, Number) and not isinstance(leaf, (Char, Pointer))
        is_shown = leaf.meaning is not None and leaf.meaning.is_shown
        is_text = isinstance(leaf, Char) or isinstance(leaf, Array) and leaf.is_text
        self.is_text = is_text and not is_shown
        self.first, self.size = offset // 8, leaf.size  # in bytes
        self.stride = view.slot if self.what == "value" else view.info.key_size
        self.cpus = len(view.cpus) if self.what == "value" and view.cpus else 1
        # Numbers are compared by themselves, whatever they mean.  The reader is that of a record
        # which has this field alone, at its place.
        self.bare = leaf if leaf.meaning is None else leaf.showing("", "plain")
        alone = Record("struct", "", whole.size, [Member("f", self.bare, offset, bits, "f")])
        self.reader = alone.reader("samples" if self.is_number else "plain", self.stride)

    def of(self, keys, values):
        """Return the field's value in each entry of a chunk; of CPUs' that can't be added up, the
        first's.
        """
        raw = keys if self.what == "key" else values
        if self.is_number:
            pairs = chain.from_iterable(self.reader.read(raw))
            numbers = [number for _, number in pairs]
            if self.leaf.adds_up:
                return _added_up(numbers, self.cpus)
            return numbers[:: self.cpus]
        step = self.stride * self.cpus
        if self.is_text:
            return [plain["f"] for plain in self.reader.read(raw)][:: self.cpus]
        starts = range(self.first, len(raw), step) if step else ()
        return [raw[at : at + self.size] for at in starts]

    def words(self, one):
        """Return one of the field's values as text, for patterns."""
        if isinstance(one, str):
            return one
        if not self.is_number:
            return self.leaf.reader("words").one(one)
        meaning = self.leaf.meaning
        if meaning is not None and meaning.is_shown:
            return meaning.writer(self.leaf)(one)
        return getattr(self.leaf, "names", {}).get(one) or str(one)

    def value_of(self, text):
        """Return the value that a text stands for, to compare with those of the field."""
        if self.is_text:
            return text
        raw = self.leaf.pack(text, what=self.name)
        if not self.is_number:
            return raw
        ((_, number),) = self.bare.reader("samples").one(raw)
        return number


def _find_field(view, name):
    """Return ("key" or "value", steps, layout, bit offset, bits) of a field by its name, first of
    a value's.  steps are names and "[N]".
    """
    for what in ("value", "key"):
        found = view.value_layout if what == "value" else view.key_layout
        path = name
        if name == what or name.startswith(what + "."):
            path = name[len(what) + 1 :]
        elif name.startswith(what + "[") and isinstance(found, Array):
            path = name[len(what) :]
        elif not isinstance(found, Record):
            continue
        place = _follow(found, path)
        if place is not None:
            return (what,) + place
    layouts = (view.value_layout, view.key_layout)
    parts = chain.from_iterable(getattr(one, "parts", ()) for one in layouts)
    told = ", ".join(part.label for part in parts if part.label)
    told = told or "key and value; --key-type and --value-type can name more"
    raise _UsageError("no field '%s'; there are %s" % (name, told))


def _follow(found, path):
    """Return (steps, layout, bit offset, bits) of what a path leads to, None if nothing."""
    offset, bits, steps = 0, 0, []
    # "hits[3].count" is ["hits", "[3]", "count"]
    words = path.replace("[", ".[").split(".") if path else []
    words = words[1:] if path.startswith("[") else words
    while words:
        if isinstance(found, Array) and words[0][:1] == "[" and words[0][1:-1].isdecimal():
            index = int(words[0][1:-1])
            if index >= found.count:
                return None
            found, offset = found.element, offset + 8 * index * found.element.size
            steps.append(words.pop(0))
            continue
        part, count = found._first_named(words) if isinstance(found, Record) else (None, 0)
        if part is None:
            return None
        steps.append(".".join(words[:count]))
        words = words[count:]
        found, offset, bits = _with_implied_meaning(part), offset + part.offset, part.bits
    return steps, found, offset, bits


def _selected(found, paths, what=""):
    """Return a layout that has of another one only what paths lead to, and so shows only that.

    paths   lists of names and "[N]"; [] leads to the whole
    what    how the layout is called in print, if it is an array
    """
    if [] in paths or not isinstance(found, (Record, Array)):
        return found
    if isinstance(found, Array):
        members = _selected_elements(Member(what, found, 0, label=what), paths)
        return Record("struct", found.name, found.size, members)
    members, known = [], found._parts_by_name()
    for part in found.parts:
        inside = [path[1:] for path in paths if known[path[0]] is part]
        if inside and isinstance(part.layout, Array) and [] not in inside:
            members += _selected_elements(part, inside)
        elif inside:
            members.append(part.changed(layout=_selected(part.layout, inside)))
    return Record("struct", found.name, found.size, members)


def _selected_elements(part, paths):
    """Return a member, called "hits[3]", for each element that paths lead to in the array that part
    is.
    """
    members = []
    for index in sorted({int(path[0][1:-1]) for path in paths}):
        inside = [path[1:] for path in paths if int(path[0][1:-1]) == index]
        name, element = "%s[%d]" % (part.label, index), part.layout.element
        whole = part.changed(name=name, label=name, layout=element)
        whole = whole.moved(8 * index * element.size)
        if isinstance(element, Array) and [] not in inside:
            members += _selected_elements(whole, inside)
        else:
            members.append(whole.changed(layout=_selected(element, inside)))
    return members


# -- a single entry: map lookup, getnext, update, delete, push, peek, pop


def _command_lookup(options):
    view, given = _take_data(options, _open_view(options))
    if not view.info.key_size:  # of a queue or stack, as bpftool
        _put_taken(options, view, view.source.peek)
        return
    key = _bytes_of_key(given)
    value = dict(view.entries()).get(key) if options.is_capture else view.source.get(key)
    if value is None:
        raise _Miss(given.missed(key), None)
    _put_entry(options, view, key, value)


def _command_getnext(options):
    view, given = _take_data(options, _open_view(options, "r"))
    key = None if given.key is None else _bytes_of_key(given)
    following = view.source.next_key(key)
    if following is None:
        what = "the map is empty" if key is None else "no key follows: it was the last"
        in_json = {"error": "can't get next key: No such file or directory"}
        raise _Miss("no next key; " + what, in_json)
    if options.json:
        shown = key and _hex_list(key)
        _put_json(options, {"key": shown, "next_key": _hex_list(following)})
        return
    if key is not None:
        print("key: %s" % _key_text(options, view, key))
    print("next key: %s" % _key_text(options, view, following))


def _hex_list(raw):
    """Return bytes as bpftool's JSON has them."""
    return ["0x%02x" % byte for byte in raw]


def _key_text(options, view, key):
    """Return a key in words or, with --hex, in hex."""
    return _hex(key) if options.hex else view.key_layout.reader("words").one(key)


def _command_update(options):
    # before 7.0 the value of one CPU is stored by reading those of all first
    is_of_one_cpu = any(word.startswith("cpu=") for word in options.data)
    view, given = _take_data(options, _open_view(options, "rw" if is_of_one_cpu else "w"))
    key = _bytes_of_key(given) if view.info.key_size else None
    if given.value is None:
        raise _UsageError("'value' is needed")
    slot = None if given.cpu is None else _slot_of(view, given.cpu)
    value, flag = _value_to_store(options, view, given, key, slot), given.flag or BPF_ANY
    if slot is not None:
        _update_cpu(view, slot, key, value, flag)
    elif key is None:
        view.source.push(value, flag)
    else:
        view.source.update(key, value, flag)


def _value_to_store(options, view, given, key, slot):
    """Return the bytes to store: of fields that are not named, those of the entry that is there.

    slot      that of the one CPU that is meant, None for all
    returns   a list where each CPU's value keeps fields of its own
    """
    try:
        return _bytes_of_value(given)
    except _UsageError as incomplete:
        if key is None or not given.value or not _names_fields(given.value, view.value_layout):
            raise
        stored = _stored_value(options, view, key)
        if stored is None:
            told = str(incomplete)
            if "not given" in told:  # fields are missing; else the error is another
                told += "; there is no entry whose other fields could stay"
            raise _UsageError(told) from None
    if slot is not None:
        stored = stored[slot]
    if isinstance(stored, list):
        return [_bytes_of_data(given.value, view, "value", one) for one in stored]
    return _bytes_of_data(given.value, view, "value", stored)


def _stored_value(options, view, key):
    """Return the value that is there, None if there is none.

    view's map may be open for writing alone, so it is opened once more, for reading.
    """
    with _open_words(options.map_words, "r", options.token) as reader:
        if reader.id != view.source.id:
            raise ValueError("another map has taken the place of %s" % view.info._about)
        return reader.get(key)


def _slot_of(view, cpu):
    """Return which of a value's slots is a CPU's."""
    if not cpu.isdecimal() or int(cpu) not in view.cpus:
        known = " ".join(map(str, view.cpus))
        raise _UsageError("cpu=%s is none of this map's: %s" % (cpu, known))
    return view.cpus.index(int(cpu))


def _update_cpu(view, slot, key, value, flag):
    """Store one CPU's value."""
    try:
        view.source.update(key, value, flag | BPF_F_CPU | view.cpus[slot] << 32)  # 7.0
        return
    except SyscallError:
        pass
    # what programs add on other CPUs between these two is lost
    values = view.source.get(key) or [bytes(view.info.value_size)] * len(view.cpus)
    values[slot] = value
    view.source.update(key, values, flag)


def _bytes_of_key(given):
    """Return the bytes of the key that was given."""
    if given.key is None:
        raise _UsageError("'key' is needed")
    return _bytes_of_data(given.key, given.view, "key")


def _bytes_of_value(given):
    """Return the bytes of the value that was given: in a map of maps or programs, a descriptor."""
    info, words = given.view.info, given.value
    kind = words and _kind_of_held(info.type, words)
    if not kind or len(words) != 2:
        return _bytes_of_data(words, given.view, "value")
    is_program = info.type == BPF_MAP_TYPE_PROG_ARRAY
    if is_program:
        given.held = _open_program("%s %s" % (kind, words[1]))
    else:
        given.held = _open_words([kind, words[1]])
    return given.held.fileno().to_bytes(info.value_size, sys.byteorder)


def _command_push(options):
    view, given = _take_data(options, _open_view(options, "w"))
    if given.value is None:
        raise _UsageError("'value' is needed")
    view.source.push(_bytes_of_data(given.value, view, "value"))


def _command_delete(options):
    view, given = _take_data(options, _open_view(options, "w"))
    key = _bytes_of_key(given)
    try:
        view.source.delete(key)
    except KeyNotFound:
        in_json = {"error": "delete failed: No such file or directory"}
        raise _Miss(given.missed(key), in_json) from None


def _command_peek(options):
    view = _open_view(options, "r")
    _put_taken(options, view, view.source.peek)


def _command_pop(options):
    view = _open_view(options, "rw")
    _put_taken(options, view, view.source.pop)


def _put_taken(options, view, take):
    """Print the value that take(), a peek or pop, returns; a miss where there is none."""
    options.end()
    try:
        _put_entry(options, view, b"", take())
    except KeyNotFound:
        raise _Miss("the map is empty", None) from None


# -- maps and types: map pin, freeze, create, layout, save; btf


def _command_pin(options):
    view = _open_view(options, "r", 1)
    view.source.pin(options.take("a path in a bpffs"))


def _command_freeze(options):
    _open_view(options, "w").source.freeze()


def _command_create(options):
    path, settings = options.take("a path in a bpffs"), {}
    while options.words:
        word = options.words.pop(0)
        name = _stands_for(word, *_SETTINGS)
        if name is None:
            raise _UsageError(_unknown("word '%s'" % word, word, _SETTINGS))
        if name == "inner_map":
            settings["inner"] = _open_view(options, rest=None).source
        else:
            settings[_SETTINGS[name]] = _setting(name, options.take("what follows " + name))
    if "map_type" not in settings:
        raise _UsageError("'type' is needed: " + " ".join(_MAP_TYPE_NAMES.values()))
    # some types want 0 for each of these: whether it was right to leave it out, the kernel knows
    absent = [name for name in ("key", "value", "entries") if _SETTINGS[name] not in settings]
    for name in absent:
        settings[_SETTINGS[name]] = 0
    try:
        made = Map.create(token=options.token, **settings)
    except InvalidArgument as error:
        if absent:
            error.hint = "not given: %s; %s" % (", ".join(absent), error.hint)
        raise
    made.pin(path)


# word of map create -> what Map.create() calls it
_SETTINGS = {
    "type": "map_type",
    "key": "key_size",
    "value": "value_size",
    "entries": "max_entries",
    "name": "name",
    "flags": "flags",
    "inner_map": "inner",
}


def _setting(name, word):
    """Return what a word says for a setting of _SETTINGS: text, or a number."""
    if name == "name":
        return word
    types = {text: number for number, text in _MAP_TYPE_NAMES.items()}
    if name == "type" and word in types:
        return types[word]
    try:
        return _parsed_int(word)
    except ValueError:
        if name == "type":
            raise _UsageError(_unknown("map type '%s'" % word, word, types)) from None
        raise _UsageError("%s takes a number, not '%s'" % (name, word)) from None


def _command_layout(options):
    view = _open_view(options)
    layouts = (("key", view.key_layout), ("value", view.value_layout))
    typed = [(what, found) for what, found in layouts if not isinstance(found, Bytes)]
    if options.json:
        _put_json(options, {what: found.describe().split("\n") for what, found in typed})
        return
    if not typed:
        words = (view.info.key_size, view.info.value_size, view.source._no_btf)
        print(_printable("keys of %d bytes, values of %d; no BTF: %s" % words))
    for what, found in typed:
        print("%s:\n%s\n\n%s" % (what, found.describe(), found.python_source(what)))


def _command_save(options):
    view = _open_view(options, "r", 1)
    path = options.take("a file")
    layouts = [view.key_layout, view.value_layout]
    count = _capture(view.source, path, layouts, options.meanings())
    if options.json:
        _put_json(options, {"entries": count})
    else:
        print("%d entries" % count)


def _command_btf(options):
    what = options.take("offset or layout")
    if what not in ("offset", "layout"):
        raise _UsageError("offset or layout is needed, not '%s'" % what)
    btf, name = _asked_btf(options), options.take("a type")
    name += "".join(" " + word for word in options.words)  # "struct task_struct"
    show = _show_btf_layout if what == "layout" else _show_btf_offset
    show(options, btf, name)


def _asked_btf(options):
    """Return the BTF of --btf, split from that of --base-btf if given; or the running kernel's."""
    if options.btf is None and options.base_btf is None:
        return BTF.from_vmlinux()
    if options.btf is None:
        raise _UsageError("--base-btf goes with --btf")
    base = None
    if options.base_btf is not None:
        base = _load_file(BTF.from_file, options.base_btf)
    return _load_file(BTF.from_file, options.btf, base)


def _show_btf_layout(options, btf, name):
    """Print the table of a type, and the Python that declares it."""
    table, source = btf.describe(name), btf.python_source(name)
    if options.json:
        _put_json(options, {"layout": table.split("\n"), "python": source.split("\n")})
    else:
        print("%s\n\n%s" % (table, source))


def _show_btf_offset(options, btf, name):
    """Print the offset of TYPE.MEMBER; through pointers one for each step."""
    steps = _offset_of(btf, name)
    steps = steps if isinstance(steps, tuple) else (steps,)
    if options.json:
        names = ("offset", "bit_offset", "bits")
        _put_json(options, [dict(zip(names, (one, one.bit_offset, one.bits))) for one in steps])
    else:
        print(" -> ".join("%d%s" % (step, _bits_text(step)) for step in steps))


def _bits_text(step):
    """Return which bits of its byte a bitfield has, nothing for what is none."""
    first = step.bit_offset % 8
    return " bits %d..%d" % (first, first + step.bits - 1) if step.bits else ""


def _offset_of(btf, name):
    """Return what BTF.offsetof() does for TYPE.MEMBER; the type may have dots, too, as
    .data..percpu has: each dot is tried.
    """
    unknown = failure = None
    for dot in [at for at, letter in enumerate(name) if letter == "." and at]:
        path = name[dot + 1 :]
        if path and not path.startswith("."):
            try:
                type_id = btf.type(name[:dot]).id
            except BTFError as error:
                unknown = unknown or error
                continue
            try:
                return btf.offsetof(type_id, path)
            except BTFError as error:
                failure = error  # of the longest name that is a type's
    if failure or unknown:
        raise failure or unknown
    raise _UsageError("TYPE.MEMBER is needed%s" % _members_hint(btf, name.rstrip(".")))


def _members_hint(btf, name):
    """Return what a message tells where a type stands without a member: some that it has."""
    try:
        known = [member[0] for member in btf.members(name) if member[0]]
    except BTFError:
        return ", not '%s'" % name
    return "; members of %s: %s" % (name, " ".join(known[:8] + ["..."] * (len(known) > 8)))


# -- map watch: the entries live, with their rates
#
# A _Look has the bytes of all entries at one time.  Rates are what differs between it and the look
# before, over the seconds between: compare() decodes only those entries whose bytes changed.
# Nothing older is kept.  _Watch takes look after look and prints them.


def _command_watch(options):
    view, watch = _open_view(options, rest=None), _Watch(options)
    words = options.words
    while words:
        word = words.pop(0)
        if word == "once":
            watch.is_once = True
        elif word == "interval" and words:
            watch.interval = _interval(words.pop(0))
        elif word == "sort" and words:
            watch.sort_field = words.pop(0)
        else:
            raise _UsageError("once, interval SECONDS or sort FIELD, not '%s'" % word)
    watch.run(view)


def _interval(text):
    """Return an interval in seconds; one so short that it would keep a CPU busy is refused."""
    if not text.replace(".", "", 1).isdecimal() or not 0.05 <= float(text) <= 86400:
        raise _UsageError("an interval is 0.05 to 86400 seconds, not '%s'" % text)
    return float(text)


class _Watch:
    """Shows a map's entries again and again, once an interval: as a screen on a terminal, else as a
    list, or as a line of JSON.

    .is_once, .interval (seconds) and .sort_field are what the command's words say.
    """

    def __init__(self, options):
        self.is_once, self.interval, self.sort_field = options.once, 1.0, None
        self.is_json = options.json or options.ndjson
        if options.metrics:
            raise _UsageError("watch has no --metrics; map dump has")
        self.is_live = False  # whether there is a screen
        self.time = 0.0  # of the look that is shown, since 1970

    def run(self, view):
        """Show look after look until Ctrl-C; once: the first that has rates."""
        import time

        is_capture = not isinstance(view.source, Map)
        self.is_once = self.is_once or is_capture
        self.is_live = sys.stdout.isatty() and not self.is_once and not self.is_json
        with _Screen() if self.is_live else _NoContext():
            before, then = None, 0.0
            while True:
                # rates are by a clock that nobody sets
                now, look = time.monotonic(), _Look(view)
                self.time = time.time()
                self._check_sort(look)
                seconds = None
                if before is not None:
                    seconds = now - then
                    look.compare(before, seconds)
                # What is printed once waits for rates, which a capture never has.
                if seconds is not None or not self.is_once or is_capture:
                    self._show(look, seconds)
                    if self.is_once:
                        return
                before, then = look, now
                time.sleep(self.interval)

    def _check_sort(self, look):
        """Refuse a field to sort by that there is not; an empty map has none to compare with."""
        if not self.sort_field or not look.values:
            return
        known = look.fields()
        if self.sort_field not in known:
            there = ", ".join(known) or "none; --value-type can name the numbers in the values"
            raise _UsageError("no field '%s' to sort by; there are %s" % (self.sort_field, there))

    def _show(self, look, seconds):
        """Print a look; seconds are those since the one before, None if it is the first."""
        keys = look.ranked(self.sort_field)
        if self.is_json:
            print(self._json(look, keys, seconds))
        elif self.is_live:
            lines = self._screen(look, keys)
            sys.stdout.write("\033[H%s\033[J" % "\033[K\n".join(lines))
        else:
            print("\n".join(self._lines(look, keys, 1 << 16)))
        sys.stdout.flush()

    def _json(self, look, keys, seconds):
        """Return a line of JSON: the entries as --ndjson has them, with rates a second."""
        entries = look.json(keys)
        if seconds is not None:
            rates = map(_json_of, look.all_rates(keys))
            entries = ['%s,"rates":%s}' % (entry[:-1], told) for entry, told in zip(entries, rates)]
        return '{"time":%s,"seconds":%s,"entries":[%s]}' % (
            _json_float(round(self.time, 3)),
            "null" if seconds is None else _json_float(round(seconds, 3)),
            ",".join(entries),
        )

    def _screen(self, look, keys):
        """Return the lines that fill a terminal, what changed in bold."""
        columns, height = _terminal_size()
        lines = self._lines(look, keys[: height - 1], columns)
        lines[0] = _cut("%s: %d entries" % (look.view.info._about, len(keys)), columns)
        if len(keys) > height - 1:
            lines[-1] = "... %d more" % (len(keys) - height + 2)
        if os.environ.get("NO_COLOR"):
            return lines
        return ["\033[1m%s\033[0m" % line if line[:1] == "*" else line for line in lines]

    def _lines(self, look, keys, columns):
        """Return lines: what map it is, then for each entry a mark if it changed, its key, its
        rates, its value.  Each is cut at so many columns.
        """
        heads = [look.heads[key] for key in keys]
        widths = _widths(heads)
        width = min(max(widths, default=0), columns * 2 // 5)
        rates = {key: _rates_text(look.rates[key]) for key in keys if key in look.rates}
        rates_width = min(max(map(len, rates.values()), default=0), max(columns - width - 6, 0))
        lines = ["%s: %d entries" % (look.view.info._about, len(keys))]
        for key, head, wide, text in zip(keys, heads, widths, look.texts(keys)):
            mark = "* " if key in rates else "  "
            head = head + " " * (width - wide) if wide <= width else _padded(head, width)
            between = "  "
            if rates_width:
                between = "  %s  " % rates.get(key, "").ljust(rates_width)
            lines.append(_cut((mark + head + between + text).rstrip(), columns))
        return lines


class _Screen:
    """A screen of its own on a terminal, without a cursor: a context, left however it ends.

    Ctrl-C and errors end the with statement; for signals that kill, handlers leave it first.
    """

    LEAVE = "\033[?25h\033[?1049l"

    def __enter__(self):
        import signal
        import threading

        self.signal, self.caught = signal, []
        if get_ident() == threading.main_thread().ident:  # others may not set handlers
            numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
            self.caught = [one for one in numbers if signal.getsignal(one) == signal.SIG_DFL]
        for number in self.caught:
            signal.signal(number, self._killed)
        sys.stdout.write("\033[?1049h\033[?25l")
        return self

    def _killed(self, number, _):
        """Leave the screen, then die of the signal as if it had not been caught."""
        self.signal.signal(number, self.signal.SIG_DFL)
        try:
            os.write(sys.stdout.fileno(), self.LEAVE.encode())
        finally:  # the terminal may be gone
            os.kill(os.getpid(), number)

    def __exit__(self, *_):
        try:
            sys.stdout.write(self.LEAVE)
            sys.stdout.flush()
        finally:
            for number in self.caught:
                self.signal.signal(number, self.signal.SIG_DFL)


class _Look:
    """All entries of a map at one time, .values {key: value} as bytes.

    .heads   {key: the key in words}, since ranked()
    .rates   {key: {field: change per second}} of the entries that changed, since compare(); one
             that was not there before has no fields
    """

    def __init__(self, view):
        self.view, self.values, self.heads, self.rates = view, {}, {}, {}
        self.cpus = max(len(view.cpus), 1)
        for keys, values, count in view.chunks():
            names = _split(keys, count)
            self.values.update(zip(names, _split(values, count)))

    def compare(self, before, seconds):
        """Set .rates: what has changed since another look, so many seconds before."""
        known = before.values
        self.rates = {key: {} for key in self.values if key not in known}
        changed = [key for key, value in self.values.items() if known.get(key, value) != value]
        for keys in self._parts(changed):
            totals = zip(self._totals(keys), before._totals(keys))
            texts = zip(self.texts(keys), before.texts(keys))
            for key, (now, then), (text, old_text) in zip(keys, totals, texts):
                if text == old_text:  # only bytes changed that nobody sees, such as padding
                    continue
                self.rates[key] = {
                    name: (now[name] - then[name]) / seconds for name in now if name in then
                }

    def ranked(self, sort_field):
        """Return the keys, those that change fastest first: by a field, or by the first field of
        each entry that counts something.  Sets .heads.
        """
        for keys in self._parts(list(self.values)):
            heads = [""] * len(keys)
            if self.view.info.key_size:
                heads = self.view.texts(self.view.key_layout, b"".join(keys))
            self.heads.update(zip(keys, heads))
        if sort_field:
            return sorted(self.values, key=self._ranks(sort_field).__getitem__)
        ranks = {}
        for key, rates in self.rates.items():
            counted = [-abs(rate) for name, rate in rates.items() if not _only_names(name)]
            ranks[key] = counted, self.heads[key]
        still = [key for key in self.values if key not in ranks]
        return sorted(ranks, key=ranks.__getitem__) + sorted(still, key=self.heads.__getitem__)

    def _ranks(self, field):
        """Return {key: what sorts it} by a field: its rate, then its number, then the key."""
        ranks = {}
        for keys in self._parts(list(self.values)):
            for key, totals in zip(keys, self._totals(keys)):
                rate = abs(self.rates.get(key, {}).get(field, 0))
                ranks[key] = -rate, -totals.get(field, 0), self.heads[key]
        return ranks

    def all_rates(self, keys):
        """Yield {field: change per second} of each key, zeros where nothing changed."""
        for part in self._parts(keys):
            for key, totals in zip(part, self._totals(part)):
                yield self.rates[key] if key in self.rates else dict.fromkeys(totals, 0.0)

    def texts(self, keys):
        """Return the values of keys in words; of a per-CPU map the sums, or, where there are no
        numbers, each CPU's.
        """
        found, view = [], self.view
        for part in self._parts(keys):
            raw = self._raw(part)
            if not view.cpus or any(self._totals(part[:1])):
                head = "" if not view.cpus or isinstance(view.value_layout, Record) else "sum="
                texts = view.texts(view.value_layout, raw, view.slot, self.cpus)
                found += [head + text for text in texts] if head else texts
            else:
                found += self._of_each_cpu(view.texts(view.value_layout, raw, view.slot))
        return found

    def _of_each_cpu(self, texts):
        """Return the texts of CPUs, those of a value together."""
        marked = ["[cpu %d] %s" % pair for pair in zip(cycle(self.view.cpus), texts)]
        return [" ".join(marked[at : at + self.cpus]) for at in range(0, len(marked), self.cpus)]

    def json(self, keys):
        """Return the entries of keys as --ndjson has them."""
        found = []
        for part in self._parts(keys):
            raw_keys = b"".join(part) if self.view.info.key_size else b""
            for text in self.view.json_lines([(raw_keys, self._raw(part), len(part))]):
                found += text.split("\n")
        return found

    def fields(self):
        """Return the names of the fields that have rates."""
        first = list(islice(self.values, 1))
        return list(self._totals(first)[0]) if first else []

    def _totals(self, keys):
        """Return {field: number} of each key, CPUs added up."""
        return _totals(self.view, self._raw(keys), len(keys), self.cpus)

    def _raw(self, keys):
        """Return the bytes of the values of keys."""
        return b"".join(map(self.values.__getitem__, keys))

    def _parts(self, keys):
        """Yield a list in parts, as many keys as are decoded at a time."""
        step = self.view.chunk_entries
        for at in range(0, len(keys), step):
            yield keys[at : at + step]


def _rates_text(rates):
    """Return {field: rate} as text, but for the fields that count nothing."""
    told = [(name, rate) for name, rate in rates.items() if rate and not _only_names(name)]
    return "  ".join(("%s %s/s" % (name, _scaled(rate))).strip() for name, rate in told)


def _scaled(number):
    """Return a number in few letters, "+3.40M"."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return "%+.4g%s" % (number / factor, letter)
    return "%+.4g" % number


def _only_names(field):
    """Whether a field's name says that it is a time, an id or an address, and counts nothing."""
    return bool(_NAMING_WORDS.intersection(field.lower().split("_")))


# Words in the names of fields that are times, ids or addresses: how fast those change says nothing.
_NAMING_WORDS = frozenset(
    "ns us ms ts time timestamp ktime seen stamp start last first expires deadline pid tid tgid id "
    "uid gid ifindex cpu port sport dport addr saddr daddr ip mac key cookie inode ino state flags "
    "cgroup netns seq".split()
)


def _totals(view, values, count, cpus):
    """Return [{field: number}] of a chunk's entries: their integers, those of CPUs added up."""
    # Where a member tells how to read a union, each column says which entries have it, and the sums
    # are found entry by entry; elsewhere all entries have all columns.
    columns = {}  # type: dict
    by_entry = [{} for _ in range(count)]  # type: list
    for path, indices, column in view.value_layout.reader("samples", view.slot).series(values):
        if isinstance(column[0], float):
            continue
        name = "_".join(map(str, path))
        if indices is None:
            sums = _added_up(column, cpus)
            columns[name] = map(add, columns[name], sums) if name in columns else sums
            continue
        for index, number in zip(indices, column):
            into = by_entry[index // cpus]
            into[name] = into.get(name, 0) + number
    return [dict(zip(columns, row)) for row in zip(*columns.values())] or by_entry


# -- map events: the records of ring buffers
#
# Records are printed as the values of a map without keys: so all forms of output are there.  Those
# of one size share a _RecordView.


def _command_events(options):
    if options.is_capture:
        raise _UsageError("this takes a map, not a capture")
    if options.metrics:
        raise _UsageError("events has no --metrics")
    options.ndjson = options.ndjson or options.json
    m = _open_map(options, "rw", None)
    is_peek, limits = False, {"count": None, "timeout": None}
    while options.words:
        word = options.words.pop(0)
        if word == "peek":
            is_peek = True
        elif word in limits and options.words:
            limits[word] = _limit(word, options.words.pop(0))
        else:
            raise _UsageError("peek, count N or timeout SECONDS, not '%s'" % word)
    views = _RecordViews(m.info, _layout_of_records(options, m))
    records = m.records(peek=is_peek)
    try:
        return _print_records(options, records, views, **limits)
    finally:
        records.close()
        if records.lost:
            text = "bpflookup: %d bytes of records were overwritten before they were seen\n"
            sys.stderr.write(text % records.lost)


def _layout_of_records(options, m):
    """Return the Layout of --value-type with the meanings of --show; None if there is none."""
    if options.value_type is None:
        if options.show:
            raise _UsageError("--show wants --value-type here")
        return None
    names = _TypeNames(m, _btf_of_options(options))
    found = _c_text_layout(options.value_type, names.layout)
    for field, word in options.meanings():
        found = _ask_meaning(found.showing, field, word)
    return found


def _limit(word, text):
    """Return what stands behind "count", a number of records, or "timeout", one of seconds."""
    is_count = word == "count"
    if not (text if is_count else text.replace(".", "", 1)).isdecimal():
        raise _UsageError("'%s' is no number for %s" % (text, word))
    return min(int(text), sys.maxsize) if is_count else float(text)  # islice() takes no more


def _print_records(options, records, views, count, timeout):
    """Print records until there were count, or timeout seconds have gone; return the exit status.

    views   _RecordViews
    """
    deadline = _deadline(timeout)
    while count is None or count > 0:
        batch = records._awaited(deadline, _values_of)
        if batch is None:
            break
        try:
            raws = list(islice(batch, count))
            for size, run in groupby(raws, len):
                for text in views[size].texts_of(options, list(run)):
                    print(text)
            sys.stdout.flush()
        except BaseException:  # what was not printed is left to the next reader
            records._batch = None
            raise
        count = None if count is None else count - len(raws)
        if deadline and deadline() < 0:  # where records come faster than they are printed
            break
    return 1 if count else 0


class _RecordViews(dict):
    """Size of a record -> _RecordView, made when such a record comes: of the layout that was asked
    for, where that has the size, else of bytes.
    """

    def __init__(self, info, asked_layout):
        dict.__init__(self)
        self.info, self.asked_layout = info, asked_layout

    def __missing__(self, size):
        found = self.asked_layout
        if found is None or found.size != size:
            found = Bytes(size)
        self[size] = view = _RecordView(self.info, found)
        return view


class _RecordView(View):
    """Records of one size as the values of a map that has no keys."""

    def __init__(self, info, value_layout):
        self.info = MapInfo.__new__(MapInfo)
        self.info.__setstate__(dict(info._asdict(), value_size=value_layout.size))
        self.value_layout, self.slot, self.cpus = value_layout, value_layout.size, ()

    def texts_of(self, options, records):
        """Yield the text of records of this size, in the form asked for."""
        self.json_suffix = " strings" if options.big_ints_as_strings else ""
        if self.slot:
            yield from _form_of(options, self)([(b"", b"".join(records), len(records))])
            return
        # a record may have no bytes, which no reader knows how to read
        empty = '{"value":[]}' if options.ndjson else "value:"
        yield "\n".join([empty] * len(records))


# -- map hist
#
# What counts by slot a map has, and where, _slots_of() finds (section 8, as for metrics); what
# number a slot stands for, a _Numbering says; here they are told apart by key and drawn.


def _command_hist(options):
    if options.metrics:
        raise _UsageError("hist has no --metrics; dump has, and takes --slots")
    view = _open_view(options, rest=None)
    field, numbering = _asked_numbering(options)
    if numbering is None and _is_of_bpftrace(view.info):
        numbering = _numbering("bpftrace")
    view = _with_types_of_bpftrace(options, view, numbering)
    try:
        slots = _slots_of(view, field)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    numbering = numbering or _numbering(slots.default)
    if not options.json and not options.ndjson:  # for people, who see what a declaration proves
        view.key_layout = _with_implied_as_asked(view.key_layout)
    found = _key_histograms if isinstance(slots, _KeySlots) else _array_histograms
    _put_histograms(options, numbering, found(view, slots))


def _asked_numbering(options):
    """Return (field, _Numbering) of the word "linear" or of --slots; ("", None) without them."""
    is_linear = options.words[:1] == ["linear"]
    options.end(int(is_linear))
    if is_linear and options.slots:
        raise _UsageError("either 'linear' or --slots")
    if is_linear:
        return "", _numbering("linear")
    asked = options.numberings()
    if len(asked) > 1:
        raise _UsageError("--slots: a histogram has one numbering")
    return next(iter(asked.items()), ("", None))


def _is_of_bpftrace(info):
    """Whether a map looks like a histogram of bpftrace, which says so nowhere."""
    return (info.name or "")[:3] == "AT_" and info.value_size == 8


def _with_types_of_bpftrace(options, view, numbering):
    """Return a View in which the keys of a map without types end with a slot, as those of
    bpftrace's histograms do; the same View if the numbering is none of its, or there are types.
    """
    info, layouts = view.info, (view.key_layout, view.value_layout)
    is_its = numbering and numbering.word.split(":")[0] in ("bpftrace", "lhist")
    is_typed = options.key_type or options.value_type or {type(one) for one in layouts} != {Bytes}
    if not is_its or is_typed or info.value_size != 8 or info.key_size < 8:
        return view
    order, rest = view.source.order, info.key_size - 8
    slot = Member("slot", Number(8, order=order), 8 * rest, label="slot")
    members = [Member("key", Bytes(rest), 0, label="key"), slot] if rest else [slot]
    key = Record("struct", "bpftrace_key", info.key_size, members)
    return _make_view(options, view.source, key, Number(8, order=order))


def _key_histograms(view, slots):
    """Yield (head, {slot: count}) of a map whose keys have the slots, sorted by the heads: what
    else is in a key.
    """
    for keys, values, _ in view.chunks():
        slots.add(keys, values, ())
    named = {}  # type: dict
    for paths, leaves, _, counts in slots.histograms(()):
        pairs = [
            "%s=%s" % (_field_text(path), _bare(str(leaf))) for path, leaf in zip(paths, leaves)
        ]
        named.setdefault(_printable(" ".join(pairs)), []).append(counts)
    for head in sorted(named):
        for counts in named[head]:
            yield head, counts


def _array_histograms(view, slots):
    """Yield the same of a map whose values have arrays of counts, for each array of each value; a
    head is the key and what text the value has.
    """
    for keys, values, count in view.chunks():
        heads = [""] * count
        if view.info.key_size:
            heads = view.texts(view.key_layout, keys)
        texts = list(_texts_of(view, values))
        for path, rows in slots.rows(values, ()):
            name = _field_text(path) if slots.arrays[1:] else ""
            for head, text, row in zip(heads, texts, rows):
                head = ": ".join(filter(None, (head, " ".join(filter(None, (text, name))))))
                yield _printable(head), dict(enumerate(row))


def _texts_of(view, values):
    """Yield in words, of each value (of the first CPU), the fields that are no numbers."""
    labels = view.value_layout.reader("labels", view.slot)
    samples = view.value_layout.reader("samples", view.slot)
    numbers = set()  # the paths of all numbers, and what leads to them
    for path in samples.paths:
        numbers.update(path[:length] for length in range(len(path) + 1))
    cpus = max(len(view.cpus), 1)
    for index, (paths, leaves) in enumerate(labels.pathed(values)):
        if index % cpus == 0:
            pairs = [(path, leaf) for path, leaf in zip(paths, leaves) if path not in numbers]
            yield " ".join("%s=%s" % (_field_text(path), _bare(str(leaf))) for path, leaf in pairs)


def _put_histograms(options, numbering, found):
    """Print histograms, drawn, or as JSON with the numbers that the slots stand for.

    found   (head, {slot: count}) of each
    """
    if not options.json and not options.ndjson:
        words = (numbering.word, numbering.told)
        print("slots are numbered as %s (%s); --slots tells another numbering" % words)
        drawn = 0
        for drawn, (head, counts) in enumerate(found, 1):
            print("\n".join(([head] if head else []) + _drawn(counts, numbering)))
        if not drawn:
            print("no samples")
        return
    as_number = str if options.big_ints_as_strings else int
    things = (_histogram_json(head, counts, numbering, as_number) for head, counts in found)
    if options.json:
        _put_json(options, list(things))
        return
    for thing in things:
        _put_json(options, thing)


def _histogram_json(head, counts, numbering, as_number):
    """Return what JSON has of a histogram; as_number is int or, for --big-ints-as-strings, str."""
    used = sorted(slot for slot, count in counts.items() if count)
    numbering.prove(used)
    buckets = []
    for slot in used:
        low, high = [None if end is None else as_number(end) for end in numbering.bounds(slot)]
        buckets.append({"low": low, "high": high, "count": as_number(counts[slot])})
    told = {slot: as_number(count) for slot, count in counts.items()}
    return {"key": head, "numbering": numbering.word, "slots": told, "buckets": buckets}


def histogram(
    counts: "Mapping[int, int]", linear: bool = False, width: int = 40, slots: str = ""
) -> "List[str]":
    """Return the lines of a histogram of {slot: count}, as BCC and libbpf-tools draw it.

    slots      what --slots takes; without it "linear" if linear, else "bcc": slot n is 2^(n-1) up
               to 2^n - 1 (1: 0 and 1)
    raises     ValueError: slots that can't be, too many
    """
    return _drawn(counts, _numbering(slots or ("linear" if linear else "bcc")), width)


def _drawn(counts, numbering, width=40):
    """Return the lines of a histogram; the longest bar has width stars, half as many where the
    labels are wide.
    """
    used = [slot for slot, count in counts.items() if count]
    if not used:
        return ["no samples"]
    numbering.prove(used)
    _prove_rows(used)
    first = min(used) if numbering.first is None else numbering.first
    slots = range(first, max(used) + 1)
    draw = _plain_labels if numbering.is_plain else _range_labels
    head, labels = draw(numbering, slots)
    width = width // 2 if numbering.is_wide(slots) and not numbering.is_plain else width
    lines, top = [head + " : count     distribution"], max(max(counts.values()), 1)
    count_width = max(8, len(str(top)))
    for label, slot in zip(labels, slots):
        count = counts.get(slot, 0)
        bar = "*" * (count * width // top)
        lines.append("%s : %-*d |%-*s|" % (label, count_width, count, width, bar))
    return lines


def _plain_labels(numbering, slots):
    """Return (heading, labels) of rows that each stand for one number, the slot's lowest."""
    lows = [numbering.start(slot) for slot in slots]
    column = max(10, max(len("%d" % low) for low in lows))
    head = "     %-*s" % (column + 3, "value")
    return head, ["        %-*d" % (column, low) for low in lows]


def _range_labels(numbering, slots):
    """Return (heading, labels) of rows that each stand for a range."""
    is_wide = numbering.is_wide(slots)
    head = "%s%-*s" % (" " * (15 if is_wide else 5), 29 if is_wide else 19, "value")
    return head, [_range_label(numbering, slot, 20 if is_wide else 10) for slot in slots]


def _range_label(numbering, slot, column):
    """Return "low -> high", kept for the next histogram of the same slots."""
    known = numbering.labels.get((slot, column))
    if known is None:
        ends = ["" if one is None else "%d" % one for one in numbering.bounds(slot)]
        known = "%*s -> %-*s" % (column, ends[0], column, ends[1])
        numbering.labels[slot, column] = known
    return known


# -- probe: what the kernel and these privileges allow
#
# _checks() lists all that is asked, a new one goes there.  What can be tried is tried, with maps
# that are gone at once.


def _command_probe(options):
    options.end()
    rows = []
    for what, check in _checks(options.token):
        there, detail = _outcome(check)
        rows.append((what, there, detail or ("" if there else "not held by this process")))
    if options.json:
        names = ("what", "available", "detail")
        _put_json(options, [dict(zip(names, row)) for row in rows])
        return
    for what, there, text in rows:
        line = "%-3s  %-32s %s" % ("yes" if there else "no", what, _printable(text))
        print(line.rstrip())


def _checks(token):
    """Yield (what is asked, its check), a function without arguments: see _outcome()."""
    yield "Linux", _probe_system
    yield "bpf(2)", lambda: "number %d" % syscall_number()
    yield "possible CPUs", lambda: " ".join(map(str, possible_cpus()))
    yield "initial user namespace", _probe_namespace
    yield "unprivileged bpf(2)", _probe_unprivileged
    yield "bpffs", _probe_bpffs
    yield "RLIMIT_MEMLOCK", lambda: "%s bytes; charged before Linux 5.11" % _memlock()
    yield "maps and programs by id", lambda: "%d maps" % sum(1 for _ in maps())
    yield "the kernel's BTF", lambda: "%d types" % BTF.from_vmlinux().count
    on_a_map = partial(_probe_map, token)
    yield "batches, exact scans", partial(on_a_map, BPF_MAP_TYPE_HASH, lambda m: m.exact_scan)
    yield "freeze", partial(on_a_map, BPF_MAP_TYPE_ARRAY, lambda m: m.freeze())
    mapped = partial(on_a_map, BPF_MAP_TYPE_ARRAY, lambda m: m.mmap().close(), BPF_F_MMAPABLE)
    yield "mapped arrays", mapped
    yield "BPF tokens", _probe_token
    for name, bit in (
        ("CAP_BPF", _CAP_BPF),
        ("CAP_PERFMON", 38),
        ("CAP_NET_ADMIN", _CAP_NET_ADMIN),
        ("CAP_SYS_ADMIN", _CAP_SYS_ADMIN),
    ):
        yield name, partial(_capability, bit)
    for map_type, name in sorted(_MAP_TYPE_NAMES.items()):
        yield "map type " + name, partial(on_a_map, map_type, lambda m: None)


def _probe_system():
    system = os.uname()
    return "%s on %s, Python %s" % (system.release, system.machine, sys.version.split()[0])


def _probe_namespace():
    return not _in_user_namespace(), "capabilities count only there"


def _probe_unprivileged():
    setting = _read_text("/proc/sys/kernel/unprivileged_bpf_disabled").strip()
    return setting == "0", "kernel.unprivileged_bpf_disabled: " + (setting or "unknown")


def _probe_bpffs():
    mounts = _bpffs_mounts()
    return bool(mounts), " ".join(mounts) or "none is mounted (mount -t bpf bpf /sys/fs/bpf)"


def _memlock():
    import resource

    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else soft


def _probe_token():
    """Ask for a token of a bpffs that is none: EBADF where the command is known (6.9)."""
    attr = bpf_attr()
    attr.token_create.bpffs_fd = 0xFFFFFFFF
    try:
        _bpf(BPF_TOKEN_CREATE, attr)
    except BadFileDescriptor:
        return True


def _probe_map(token, map_type, check, flags=0):
    """Make the smallest map of a type; return what check(map) returns."""
    if map_type == BPF_MAP_TYPE_STRUCT_OPS and _knows_struct_ops():
        return True
    smallest = (0,) + _SMALLEST[1:] if map_type in _KEYLESS_TYPES else _SMALLEST
    key_size, value_size, entries, needed = _SMALLEST_OF.get(map_type, smallest)
    known = {"key_size": key_size, "value_size": value_size, "flags": flags | needed}
    if map_type in _OF_MAPS_TYPES:
        known["inner"] = Map.create(BPF_MAP_TYPE_ARRAY, u32, u32, token=token)
    if map_type in _FD_KEY_TYPES:
        known.update(btf=_int_btf(token), btf_key=1, btf_value=1)
    with Map.create(map_type, None, None, entries, token=token, **known) as m:
        return check(m)


# Key size, value size, entries and flags of the smallest map; of the types that want others.
_SMALLEST = (4, 4, 1, 0)
_SMALLEST_OF = {
    BPF_MAP_TYPE_LPM_TRIE: (8, 4, 1, BPF_F_NO_PREALLOC),
    BPF_MAP_TYPE_RHASH: (4, 4, 1, BPF_F_NO_PREALLOC),
    BPF_MAP_TYPE_STACK_TRACE: (4, 8, 1, 0),
    BPF_MAP_TYPE_INSN_ARRAY: (4, 16, 1, 0),
    BPF_MAP_TYPE_ARENA: (0, 0, 1, BPF_F_MMAPABLE),
    BPF_MAP_TYPE_CGROUP_STORAGE: (16, 4, 0, 0),
    BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: (16, 4, 0, 0),
    BPF_MAP_TYPE_RINGBUF: (0, 0, 4096, 0),
    BPF_MAP_TYPE_USER_RINGBUF: (0, 0, 4096, 0),
}
_SMALLEST_OF.update({one: (4, 4, 0, BPF_F_NO_PREALLOC) for one in _FD_KEY_TYPES})


def _knows_struct_ops():
    """Whether the kernel knows struct_ops maps: it then says ENOTSUPP to one of a BTF type that is
    no struct_ops, as its type 1 is not.
    """
    attr = bpf_attr()
    create = attr.map_create
    create.map_type, create.btf_vmlinux_value_type_id = BPF_MAP_TYPE_STRUCT_OPS, 1
    create.key_size = create.value_size = 4
    create.max_entries = 1
    try:
        _bpf(BPF_MAP_CREATE, attr, "", _size_up_to("map_create", "btf_vmlinux_value_type_id"))
    except NotSupported:
        return True
    return False


def _int_btf(token):
    """Load the BTF of one signed int, which local storage wants; return its _Fd."""
    words = (24, 0, 16, 16, 5, 1, BTF_KIND_INT << 24, 4, _INT_SIGNED << 24 | 32)
    blob = struct.pack("=HBB9I", 0xEB9F, 1, 0, *words) + b"\0int\0"
    data, attr = ctypes.create_string_buffer(blob, len(blob)), bpf_attr()
    attr.btf_load.btf, attr.btf_load.btf_size = addressof(data), len(blob)
    if token is not None:
        attr.btf_load.btf_flags, attr.btf_load.btf_token_fd = BPF_F_TOKEN_FD, token.number
    return _Fd(
        _bpf, BPF_BTF_LOAD, attr, "BTF of an int", None if token is None else sizeof(attr.btf_load)
    )


def _outcome(check):
    """Return (whether, detail) of a check: it returns both, or a bool, or the detail of what is
    there, or fails, where the error is the detail.
    """
    try:
        found = check()
    except (BPFError, OSError, ValueError, KeyError, ImportError) as failure:
        return False, str(failure)
    if isinstance(found, tuple):
        return found
    return (found, "") if isinstance(found, bool) else (True, str(found or ""))


# -- demo
# A socket filter counts the datagrams that a socket gets, by their UDP ports.


def _command_demo(options):
    """Have the kernel fill a map of ours and look it up; leave nothing behind."""
    options.end()
    make = partial(Map.create, token=options.token)
    try:
        flows = make(BPF_MAP_TYPE_HASH, _Ports, _Traffic, 16, name="demo_flows")
    except PermissionDenied as error:
        told = (
            "the demo makes a map of its own, and may not: %s; run it as root (sudo python3 "
            "bpflookup.py demo), or in a container started with --cap-add SYS_ADMIN"
        )
        return _complain(None, told % error, 1)
    with flows, make(BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, 1, name="demo_total") as total:
        print("created  %r\n         %r" % (flows, total))
        ports = _demo_traffic(flows, total)
        found, per_cpu = flows[ports], total[0]
        print("hit      flows[%s] -> %s" % (to_json(ports), to_json(found)))
        _demo_errors(flows)
        counts = ["cpu %d: %d" % pair for pair in zip(possible_cpus(), per_cpu)]
        print("per CPU  total[0] -> %s" % ", ".join(counts))
        sent = len(_DATAGRAMS)
        right = (found.packets, found.bytes, sum(per_cpu)) == (sent, _DEMO_BYTES, sent)
        print("the counts are right" if right else "the counts are wrong")
        return 0 if right else 1


class _Ports(ctypes.BigEndianStructure):
    _fields_ = [("source", u16), ("destination", u16)]


class _Traffic(ctypes.Structure):
    _fields_ = [("packets", u64), ("bytes", u64)]


_DATAGRAMS = (10, 20, 30)  # bytes of each
_DEMO_BYTES = sum(8 + size for size in _DATAGRAMS)  # with the UDP header, as the program sees them


def _demo_traffic(flows, total):
    """Have a program count datagrams, or write what it would; return their key."""
    import socket

    make = partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with make() as receiver, make() as sender:
            receiver.bind(("127.0.0.1", 0))
            sender.bind(("127.0.0.1", 0))
            ports = _Ports(sender.getsockname()[1], receiver.getsockname()[1])
            program = _load_program(_counting_program(flows.fd, total.fd), "demo")
            receiver.setsockopt(socket.SOL_SOCKET, 50, program.number)  # SO_ATTACH_BPF
            receiver.settimeout(5)
            for size in _DATAGRAMS:
                sender.sendto(bytes(size), receiver.getsockname())
                receiver.recv(100)
        told = (len(_DATAGRAMS), ports.source, ports.destination)
        print("kernel   a socket filter counted %d datagrams from port %d to %d" % told)
    except OSError as error:
        print("no kernel program here: %s\nso the values are written from user space" % error)
        ports = _Ports(1000, 2000)
        flows[ports] = _Traffic(len(_DATAGRAMS), _DEMO_BYTES)
        total[0] = [len(_DATAGRAMS)] + [0] * (len(possible_cpus()) - 1)
    return ports


def _load_program(instructions, name):
    """Load a socket filter; return its _Fd.  What the verifier says is a failure's hint."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"MIT")
    log, attr = ctypes.create_string_buffer(1 << 16), bpf_attr()
    load = attr.prog_load
    load.prog_type, load.insn_cnt = BPF_PROG_TYPE_SOCKET_FILTER, len(instructions) // 8
    load.insns, load.license = addressof(code), addressof(licence)
    try:
        return _Fd(_bpf_charged, BPF_PROG_LOAD, attr, "program '%s'" % name)
    except SyscallError as error:
        # once more, as the verifier is asked to say why only here
        load.log_buf, load.log_size, load.log_level = addressof(log), sizeof(log), 1
        _syscall_into([], _nr_bpf, BPF_PROG_LOAD, byref(attr), _ATTR_SIZES[BPF_PROG_LOAD])
        error.hint = log.value.decode("latin-1").strip() or error.hint
        raise


def _counting_program(flows_fd, total_fd):
    """Return a socket filter that counts each packet in flows[ports] and total[0]."""
    fp = 10
    ports = _insn(0xBF, 2, fp) + _insn(0x07, 2, 0, 0, -4)
    zeros = _insn(0xBF, 3, fp) + _insn(0x07, 3, 0, 0, -24)
    return b"".join(
        [
            _insn(0xBF, 6, 1),
            _insn(0x61, 7, 6, 0),  # r6 = skb; r7 = skb->len
            _insn(0xB7, 2),
            _insn(0xBF, 3, fp),
            _insn(0x07, 3, 0, 0, -4),
            _insn(0xB7, 4, 0, 0, 4),
            _insn(0x85, 0, 0, 0, 26),  # bpf_skb_load_bytes(skb, 0, fp - 4, 4)
            _insn(0x55, 0, 0, 28),  # if r0 goto out
            _insn(0x7A, fp, 0, -24),
            _insn(0x7A, fp, 0, -16),  # 16 zeros at fp - 24
            _load_map_fd(1, flows_fd),
            ports,
            zeros,
            _insn(0xB7, 4, 0, 0, BPF_NOEXIST),
            _insn(0x85, 0, 0, 0, 2),  # bpf_map_update_elem(flows, ports, zeros, ..)
            _load_map_fd(1, flows_fd),
            ports,
            _insn(0x85, 0, 0, 0, 1),  # r0 = bpf_map_lookup_elem(flows, ports)
            _insn(0x15, 0, 0, 12),  # if not r0 goto out
            _insn(0xB7, 1, 0, 0, 1),
            _insn(0xDB, 0, 1, 0),
            _insn(0xDB, 0, 7, 8),  # lock packets += 1; lock bytes += r7
            _insn(0x62, fp, 0, -4),  # *(u32 *)(fp - 4) = 0
            _load_map_fd(1, total_fd),
            ports,
            _insn(0x85, 0, 0, 0, 1),  # r0 = bpf_map_lookup_elem(total, 0)
            _insn(0x15, 0, 0, 2),
            _insn(0xB7, 1, 0, 0, 1),
            _insn(0xDB, 0, 1, 0),
            _insn(0xB7, 0, 0, 0, 0x7FFFFFFF),
            _insn(0x95),  # out: keep all of the packet
        ]
    )


def _insn(opcode, dst=0, src=0, offset=0, immediate=0):
    """Return the 8 bytes of a struct bpf_insn."""
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", opcode, registers, offset, immediate)


def _load_map_fd(dst, fd):
    """Return the two instructions that load a map's address (BPF_PSEUDO_MAP_FD)."""
    return _insn(0x18, dst, 1, 0, fd) + _insn(0)


def _demo_errors(flows):
    """Show a miss, and a type that does not fit."""
    try:
        flows[_Ports(1, 1)]
    except KeyNotFound as error:
        print("miss     %s" % error)
    too_small = type("TooSmall", (ctypes.Structure,), {"_fields_": [("packets", u64)]})
    try:
        Map.from_fd(flows, _Ports, too_small)
    except LayoutError as error:
        print("misfit   %s" % str(error).replace("\n", "\n         "))


if __name__ == "__main__":
    sys.exit(main())

# MIT License
#
# Copyright (c) 2026 the bpflookup authors
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
# associated documentation files (the "Software"), to deal in the Software without restriction,
# including without limitation the rights to use, copy, modify, merge, publish, distribute,
# sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
# furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all copies or
# substantial portions of the Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
# NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
# NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
# DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
# OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
