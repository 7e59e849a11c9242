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

Sections (grep '^# ---- '): 1 ABI  2 Errors  3 System call  4 Layout  5 BTF  6 Map  7 Inspection
8 Output formats  9 Command line
"""

__version__ = "0.2.0"

# What is for users, and so what "from bpflookup import *" brings; section 1 adds the constants.
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
from _functools import partial  # type: ignore  # functools reads many files more
from _operator import add, itemgetter, methodcaller  # operator is more than these
from _thread import RLock, allocate_lock, get_ident
from _weakref import ref as weak_reference
from ctypes import addressof, byref, get_errno, set_errno, sizeof
from itertools import chain, cycle, groupby, islice, repeat

# Annotations are text, so that typing, which reads many files, need not be imported.  What follows
# is for mypy, pyright and editors, which take TYPE_CHECKING for true; typing_extensions is in what
# they bring along.
#
# What is public is annotated.  What is not is left alone by checkers: ctypes makes its types at run
# time, where they can't follow.  Which errors that is about:
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
        """Has Map[FlowKey, FlowStats] be Map, in annotations that are run, on 3.6 too."""

        def __getitem__(cls, types):
            return cls

    class _Generic(metaclass=_Subscriptable):
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
    # A Map[FlowKey, c_uint64] is named by the types that it was opened with: its keys are FlowKey
    # objects, its values ints, as the overloads of what hands them out say.  BTF's types are Any.
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
# Names and numbers of linux/bpf.h; the kernel version that brought each stands beside it.

u8, u16, u32, u64, s32 = (
    ctypes.c_uint8,
    ctypes.c_uint16,
    ctypes.c_uint32,
    ctypes.c_uint64,
    ctypes.c_int32,
)

# fmt: off
# enum bpf_cmd; append only
(BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM,     # 3.18
 BPF_MAP_GET_NEXT_KEY, BPF_PROG_LOAD, BPF_OBJ_PIN, BPF_OBJ_GET,                     # 3.18, 4.4
 BPF_PROG_ATTACH, BPF_PROG_DETACH, BPF_PROG_TEST_RUN,                               # 4.10, 4.12
 BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID,                  # 4.13
 BPF_MAP_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD,                                      # 4.13
 BPF_PROG_QUERY, BPF_RAW_TRACEPOINT_OPEN,                                           # 4.15, 4.17
 BPF_BTF_LOAD, BPF_BTF_GET_FD_BY_ID, BPF_TASK_FD_QUERY,                             # 4.18
 BPF_MAP_LOOKUP_AND_DELETE_ELEM,                                                    # 4.20 (5.14)
 BPF_MAP_FREEZE, BPF_BTF_GET_NEXT_ID,                                               # 5.2, 5.4
 BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_AND_DELETE_BATCH,                             # 5.6
 BPF_MAP_UPDATE_BATCH, BPF_MAP_DELETE_BATCH, BPF_LINK_CREATE, BPF_LINK_UPDATE,      # 5.6, 5.7
 BPF_LINK_GET_FD_BY_ID, BPF_LINK_GET_NEXT_ID, BPF_ENABLE_STATS,                     # 5.8
 BPF_ITER_CREATE, BPF_LINK_DETACH, BPF_PROG_BIND_MAP, BPF_TOKEN_CREATE,             # 5.8-10, 6.9
 BPF_PROG_STREAM_READ_BY_FD, BPF_PROG_ASSOC_STRUCT_OPS) = range(39)                 # 6.17, 7.0
_CMD_NAMES = {number: name for name, number in dict(globals()).items() if name.startswith("BPF_")}

# enum bpf_map_type; append only
(BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY,                                             # 3.19
 BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_PERF_EVENT_ARRAY,                            # 4.2, 4.3
 BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY,                               # 4.6
 BPF_MAP_TYPE_STACK_TRACE, BPF_MAP_TYPE_CGROUP_ARRAY,                               # 4.6, 4.8
 BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_LPM_TRIE,        # 4.10, 4.11
 BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS,                             # 4.12
 BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_SOCKMAP,                                         # 4.14
 BPF_MAP_TYPE_CPUMAP, BPF_MAP_TYPE_XSKMAP, BPF_MAP_TYPE_SOCKHASH,                   # 4.15, 4.18
 BPF_MAP_TYPE_CGROUP_STORAGE, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,                     # 4.19
 BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE, BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_STACK,        # 4.20
 BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_DEVMAP_HASH,                                 # 5.2, 5.4
 BPF_MAP_TYPE_STRUCT_OPS, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_INODE_STORAGE,         # 5.6, 5.8, 5.10
 BPF_MAP_TYPE_TASK_STORAGE, BPF_MAP_TYPE_BLOOM_FILTER,                              # 5.11, 5.16
 BPF_MAP_TYPE_USER_RINGBUF, BPF_MAP_TYPE_CGRP_STORAGE, BPF_MAP_TYPE_ARENA,          # 6.1, 6.2, 6.9
 BPF_MAP_TYPE_INSN_ARRAY, BPF_MAP_TYPE_RHASH,                                       # 6.19, 7.2
 ) = range(1, 36)
_MAP_TYPE_NAMES = {number: name[len("BPF_MAP_TYPE_"):].lower()
                   for name, number in dict(globals()).items()
                   if name.startswith("BPF_MAP_TYPE_")}

# map_flags of BPF_MAP_CREATE; RDONLY and WRONLY also open_flags, file_flags
(BPF_F_NO_PREALLOC, BPF_F_NO_COMMON_LRU, BPF_F_NUMA_NODE,                           # 4.6, 4.10, .14
 BPF_F_RDONLY, BPF_F_WRONLY,                                                        # 4.15
 BPF_F_STACK_BUILD_ID, BPF_F_ZERO_SEED, BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG,       # 4.17, 5.0, 5.2
 BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_PRESERVE_ELEMS, BPF_F_INNER_MAP,                # 5.4, 5.5, 5.10
 BPF_F_LINK, BPF_F_PATH_FD, BPF_F_VTYPE_BTF_OBJ_FD, BPF_F_TOKEN_FD,                 # 6.4, 6.5, 6.9
 BPF_F_SEGV_ON_FAULT, BPF_F_NO_USER_CONV,                                           # 6.9
 BPF_F_RB_OVERWRITE) = (1 << bit for bit in range(20))                              # 7.0

# flags of the element commands: create or replace, create only, replace only, under the value's
# bpf_spin_lock (5.1); 7.0, per-CPU values: one CPU's, its number in bits 32..63, or the same for
# every CPU
BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK, BPF_F_CPU, BPF_F_ALL_CPUS = 0, 1, 2, 4, 8, 16

# kinds of struct btf_type (linux/btf.h): up to FUNC_PROTO 4.18, VAR and DATASEC 5.2, FLOAT 5.13,
# the tags 5.16, 5.17, ENUM64 6.0; the last three, of inlined calls, after 7.2
(BTF_KIND_INT, BTF_KIND_PTR, BTF_KIND_ARRAY, BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM,
 BTF_KIND_FWD, BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT,
 BTF_KIND_FUNC, BTF_KIND_FUNC_PROTO, BTF_KIND_VAR, BTF_KIND_DATASEC, BTF_KIND_FLOAT,
 BTF_KIND_DECL_TAG, BTF_KIND_TYPE_TAG, BTF_KIND_ENUM64, BTF_KIND_LOC_PARAM,
 BTF_KIND_LOC_PROTO, BTF_KIND_LOCSEC) = range(1, 23)
_KIND_NAMES = {number: name[len("BTF_KIND_"):].lower() for name, number in dict(globals()).items()
               if name.startswith("BTF_KIND_")}

BPF_PROG_TYPE_SOCKET_FILTER = 1        # 3.19
_PROG_TYPES = (                        # enum bpf_prog_type, as bpftool names them
    "unspec socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb "
    "cgroup_sock lwt_in lwt_out lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint "
    "cgroup_sock_addr lwt_seg6local lirc_mode2 sk_reuseport flow_dissector cgroup_sysctl "
    "raw_tracepoint_writable cgroup_sockopt tracing struct_ops ext lsm sk_lookup syscall "
    "netfilter").split()

# all of these once more: checkers read the list, they don't run the file
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


# What the kernel makes of a map's key and value, by type.
_PERCPU_TYPES = frozenset(
    (
        BPF_MAP_TYPE_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    )
)
_INDEX_TYPES = frozenset(
    (  # the key is an index below max_entries
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
_OF_MAPS_TYPES = frozenset((BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS))
_FD_VALUE_TYPES = frozenset(
    (  # written as a descriptor, read, if at all, as an id or cookie
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
_NUMBER_VALUE_TYPES = _FD_VALUE_TYPES | {  # the others: an ifindex, a queue size
    BPF_MAP_TYPE_DEVMAP,
    BPF_MAP_TYPE_DEVMAP_HASH,
    BPF_MAP_TYPE_CPUMAP,
}
_FD_KEY_TYPES = frozenset(
    (
        BPF_MAP_TYPE_SK_STORAGE,
        BPF_MAP_TYPE_INODE_STORAGE,
        BPF_MAP_TYPE_TASK_STORAGE,
        BPF_MAP_TYPE_CGRP_STORAGE,
    )
)
_BATCH_TYPES = frozenset(
    (  # LOOKUP_BATCH reads whole buckets, or an array in order: exact scans
        BPF_MAP_TYPE_HASH,
        BPF_MAP_TYPE_LRU_HASH,
        BPF_MAP_TYPE_PERCPU_HASH,
        BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_HASH_OF_MAPS,
        BPF_MAP_TYPE_ARRAY,
        BPF_MAP_TYPE_PERCPU_ARRAY,
    )
)
_VALUELESS_TYPES = frozenset((BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_USER_RINGBUF, BPF_MAP_TYPE_ARENA))
_KEYLESS_TYPES = _VALUELESS_TYPES | {
    BPF_MAP_TYPE_QUEUE,
    BPF_MAP_TYPE_STACK,
    BPF_MAP_TYPE_BLOOM_FILTER,
}

# union bpf_attr, an arm per group of commands.  64-bit fields are __aligned_u64 in C: what i386
# would not pad by itself is spelled out, so that there is one layout for every ABI.


class bpf_attr_map_create(ctypes.Structure):
    """BPF_MAP_CREATE."""

    _fields_ = [
        ("map_type", u32),
        ("key_size", u32),
        ("value_size", u32),
        ("max_entries", u32),
        ("map_flags", u32),
        ("inner_map_fd", u32),
        ("numa_node", u32),  # 4.6, 4.12, 4.14
        ("map_name", ctypes.c_char * 16),
        ("map_ifindex", u32),  # 4.15, 4.16
        ("btf_fd", u32),
        ("btf_key_type_id", u32),
        ("btf_value_type_id", u32),  # 4.18
        ("btf_vmlinux_value_type_id", u32),
        ("map_extra", u64),  # 5.6, 5.16
        ("value_type_btf_obj_fd", s32),
        ("map_token_fd", s32),  # 6.9
        ("excl_prog_hash", u64),
        ("excl_prog_hash_size", u32),
        ("_pad", u32),
    ]  # 6.18; an address


class bpf_attr_elem(ctypes.Structure):
    """BPF_MAP_*_ELEM, BPF_MAP_GET_NEXT_KEY (value is the next key) and BPF_MAP_FREEZE.

    key and value are addresses.
    """

    _fields_ = [("map_fd", u32), ("_pad", u32), ("key", u64), ("value", u64), ("flags", u64)]


class bpf_attr_batch(ctypes.Structure):
    """BPF_MAP_*_BATCH: four addresses, in_batch 0 to begin.

    count is the room, then the elements done.
    """

    _fields_ = [
        ("in_batch", u64),
        ("out_batch", u64),
        ("keys", u64),
        ("values", u64),
        ("count", u32),
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
    """BPF_OBJ_PIN and BPF_OBJ_GET: pathname is an address, file_flags of 4.15, path_fd of 6.5."""

    _fields_ = [
        ("pathname", u64),
        ("bpf_fd", u32),
        ("file_flags", u32),
        ("path_fd", s32),
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
    """BPF_*_GET_NEXT_ID and BPF_*_GET_FD_BY_ID; start_id is also map_id, prog_id ...

    next_id is always written.
    """

    _fields_ = [
        ("start_id", u32),
        ("next_id", u32),
        ("open_flags", u32),
        ("fd_by_id_token_fd", s32),
    ]  # 4.15, 6.15


class bpf_attr_info(ctypes.Structure):
    """BPF_OBJ_GET_INFO_BY_FD: info is an address, info_len the room, then the bytes written."""

    _fields_ = [("bpf_fd", u32), ("info_len", u32), ("info", u64)]


class bpf_attr_btf_load(ctypes.Structure):
    """BPF_BTF_LOAD; btf_log_true_size is of 6.4, what follows of 6.9."""

    _fields_ = [
        ("btf", u64),
        ("btf_log_buf", u64),
        ("btf_size", u32),
        ("btf_log_size", u32),
        ("btf_log_level", u32),
        ("btf_log_true_size", u32),
        ("btf_flags", u32),
        ("btf_token_fd", s32),
    ]


class bpf_attr_token_create(ctypes.Structure):
    """BPF_TOKEN_CREATE."""

    _fields_ = [("flags", u32), ("bpffs_fd", u32)]


class bpf_attr(ctypes.Union):
    """The argument of bpf(2).

    Always allocated whole: the kernel writes outputs beyond a short size.
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


# Arm, the last field that must be passed, and the commands: a kernel refuses bytes it does not
# know, so no more than that is passed unless a caller says so.  MAP_CREATE passes what is set.
_ARMS = {}
for _arm, _last, _cmds in (
    ("map_create", "map_flags", (BPF_MAP_CREATE,)),
    (
        "elem",
        "flags",
        (
            BPF_MAP_LOOKUP_ELEM,
            BPF_MAP_UPDATE_ELEM,
            BPF_MAP_GET_NEXT_KEY,
            BPF_MAP_LOOKUP_AND_DELETE_ELEM,
        ),
    ),
    ("elem", "key", (BPF_MAP_DELETE_ELEM,)),
    ("elem", "map_fd", (BPF_MAP_FREEZE,)),
    (
        "batch",
        "flags",
        (
            BPF_MAP_LOOKUP_BATCH,
            BPF_MAP_LOOKUP_AND_DELETE_BATCH,
            BPF_MAP_UPDATE_BATCH,
            BPF_MAP_DELETE_BATCH,
        ),
    ),
    ("prog_load", "prog_flags", (BPF_PROG_LOAD,)),
    ("obj", "file_flags", (BPF_OBJ_PIN, BPF_OBJ_GET)),
    ("prog_attach", "attach_flags", (BPF_PROG_ATTACH, BPF_PROG_DETACH)),
    (
        "get_id",
        "next_id",
        (BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_BTF_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID),
    ),
    (
        "get_id",
        "open_flags",
        (
            BPF_PROG_GET_FD_BY_ID,
            BPF_MAP_GET_FD_BY_ID,
            BPF_BTF_GET_FD_BY_ID,
            BPF_LINK_GET_FD_BY_ID,
        ),
    ),
    ("info", "info", (BPF_OBJ_GET_INFO_BY_FD,)),
    ("btf_load", "btf_log_level", (BPF_BTF_LOAD,)),
    ("token_create", "bpffs_fd", (BPF_TOKEN_CREATE,)),
):
    _ARMS.update(dict.fromkeys(_cmds, (_arm, _last)))


def _size_up_to(arm, field):
    """Return the offset behind field in the named arm of bpf_attr."""
    descriptor = getattr(dict(bpf_attr._fields_)[arm], field)
    return descriptor.offset + descriptor.size


_ATTR_SIZES = {cmd: _size_up_to(arm, field) for cmd, (arm, field) in _ARMS.items()}


# A bit of the command: arguments 4 and 5 of bpf(2) are a bpf_common_attr and its size.
BPF_COMMON_ATTRS = 1 << 16  # 7.2


class bpf_common_attr(ctypes.Structure):
    """Where a command, so far MAP_CREATE, is to say why it fails: log_buf is an address."""

    _fields_ = [
        ("log_buf", u64),
        ("log_size", u32),
        ("log_level", u32),
        ("log_true_size", u32),
        ("_pad", u32),
    ]


class bpf_map_info(ctypes.Structure):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a map.  Also input since 6.18 (hash): must be zeroed."""

    # ifindex, btf_vmlinux_value_type_id, netns 4.16, 5.6, 4.16; btf 4.18; map_extra 5.16; hash 6.18
    _fields_ = [
        ("type", u32),
        ("id", u32),
        ("key_size", u32),
        ("value_size", u32),
        ("max_entries", u32),
        ("map_flags", u32),
        ("name", ctypes.c_char * 16),
        ("ifindex", u32),
        ("btf_vmlinux_value_type_id", u32),
        ("netns_dev", u64),
        ("netns_ino", u64),
        ("btf_id", u32),
        ("btf_key_type_id", u32),
        ("btf_value_type_id", u32),
        ("btf_vmlinux_id", u32),
        ("map_extra", u64),
        ("hash", u64),
        ("hash_size", u32),
        ("_pad", u32),
    ]


class bpf_btf_info(ctypes.Structure):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a BTF object: btf and name are addresses.

    What stands from name on is of 5.11.
    """

    _fields_ = [
        ("btf", u64),
        ("btf_size", u32),
        ("id", u32),
        ("name", u64),
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
        ("_pad", u32),  # gpl_compatible:1
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


def _printable(text):
    """Return foreign text (names, paths, what others wrote) as it may stand on a terminal.

    Nothing in it steers a terminal, begins a new line or hides: what is not printable shows as
    Python spells it.
    """
    return text if text.isprintable() else "".join(map(_printable_char, text))


def _printable_char(char):
    return char if char.isprintable() else ascii(char)[1:-1]


ENOTSUPP = 524  # kernel-internal, yet it reaches user space; libc has no name for it
EBADFD = getattr(
    errno, "EBADFD", 77
)  # errno is a Linux one wherever an error comes from the kernel


class BPFError(Exception):
    """Root of every error this module raises on purpose, but for ValueError from a closed map.

    args is (message, line of a table ...).  str() of it steers no terminal and has no lines but
    those, whatever the names in the message are: they may be of foreign BTF.
    """

    def __str__(self) -> str:
        return "\n".join([_printable(str(one)) for one in self.args])


class SyscallError(OSError, BPFError):
    """A command that the kernel refused.  args is (errno, message).

    errno      a number of Linux, also elsewhere
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

    Not a failure of the call.
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
    """ENOENT from reading or deleting at an index past the end, as KeyOutOfRange from writing."""


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
    """A scan that could not be finished without the risk of a gap, a ring buffer that lies."""


# errno -> class, where the command does not matter
_BY_ERRNO = {
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

# (errno, commands, class), where it does
_BY_CMD = (
    (errno.ENOENT, _ELEMENT_CMDS, KeyNotFound),
    (errno.ENOENT, _OPEN_CMDS, MapNotFound),
    (errno.EEXIST, _ELEMENT_CMDS, KeyExists),
    (errno.EEXIST, {BPF_OBJ_PIN}, PinExists),
    (errno.E2BIG, _UPDATE_CMDS, MapFull),
    (errno.ENOSPC, _UPDATE_CMDS, MapFull),
    # Nothing that these refuse is ever passed to them, so that it is the kernel that lacks them.
    (
        errno.EINVAL,
        {BPF_MAP_FREEZE, BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_AND_DELETE_BATCH},
        NotSupported,
    ),
)

# command -> map types without it that answer EINVAL instead of ENOTSUPP
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
    for row_code, cmds, cls in _BY_CMD:
        if code == row_code and cmd in cmds:
            return cls
    return _BY_ERRNO.get(code, SyscallError)


def errno_name(code: int) -> str:
    """Return "ENOENT" for 2, "ENOTSUPP" for 524, "errno 999" for what has no name."""
    kernel_names = {
        ENOTSUPP: "ENOTSUPP",
        errno.EOPNOTSUPP: "EOPNOTSUPP",
    }  # Python's for the latter is ENOTSUP
    return kernel_names.get(code) or errno.errorcode.get(code, "errno %d" % code)


def _error(code, cmd, about="", map_type=None, fd=None, detail=None, path=None, flags=0, cls=None):
    """Return the exception for an errno: the class from the tables, the hint from a look around.

    about is what the command was used on, in words; fd, path and its flags explain refusals; detail
    replaces the class's words, cls the class.
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


_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39
_NET_ADMIN_TYPES = frozenset(
    (
        BPF_MAP_TYPE_DEVMAP,
        BPF_MAP_TYPE_DEVMAP_HASH,
        BPF_MAP_TYPE_SOCKMAP,
        BPF_MAP_TYPE_SOCKHASH,
        BPF_MAP_TYPE_XSKMAP,
    )
)
_BY_ID_CMDS = frozenset(cmd for cmd, arm in _ARMS.items() if arm[0] == "get_id")
_MAKING_CMDS = frozenset((BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_BTF_LOAD, BPF_TOKEN_CREATE))

_HINTS = {  # where errno and command tell enough
    (errno.EINVAL, "mmap"): "an arena can be mapped again only at the address of its first mapping",
    (
        errno.EINVAL,
        BPF_MAP_CREATE,
    ): "a size, flag, max_entries or name that this map type refuses, or a type this kernel lacks",
    (
        errno.EINVAL,
        BPF_BTF_GET_FD_BY_ID,
    ): "no BPF token, or a kernel that takes none for this (6.15 does)",
    (
        errno.EINVAL,
        BPF_TOKEN_CREATE,
    ): "not the root of a bpffs, or a kernel without tokens (before 6.9)",
    (
        errno.ENOENT,
        BPF_TOKEN_CREATE,
    ): "this bpffs delegates nothing: mount it with delegate_cmds=, delegate_maps=",
    (
        errno.EOPNOTSUPP,
        BPF_TOKEN_CREATE,
    ): "tokens are for user namespaces; outside of one, capabilities are held",
    (
        errno.E2BIG,
        BPF_MAP_CREATE,
    ): "a size or max_entries beyond this map type's limit, or an attribute that this kernel lacks",
}


def _diagnose(code, cmd, map_type, fd, path, flags):
    """Return the likely cause of an errno in a clause, or None.  Runs after a failure only."""
    hint = None if path is None else _why_not_this_path(code, cmd, path, flags)
    if hint:
        return hint
    if code in (errno.EPERM, errno.EACCES):
        on_map = fd is not None and (cmd in _ELEMENT_CMDS or cmd == "mmap")
        return on_map and _why_fd_refuses(cmd, fd) or _why_not_privileged(cmd, map_type)
    if code == errno.EBUSY and cmd == BPF_MAP_FREEZE:  # before 6.5 also what is EPERM now
        is_frozen = _fdinfo(fd).get("frozen") == "1"
        return "the map is frozen already" if is_frozen else "it is mapped for writing"
    if code == errno.EMFILE:
        return "this process has too many open descriptors (ulimit -n)"
    if code == errno.ENOSYS:
        text = "this kernel has no bpf(2), or a sandbox hides it; the number used was %r"
        return text % (_nr_bpf,)
    if code == errno.ERANGE and cmd in _ELEMENT_CMDS:
        return "the CPU number in the flags is none of a possible CPU"
    return _HINTS.get((code, cmd))


def _why_not_this_path(code, cmd, path, flags):
    """Say what is wrong with the path of a pin, None if nothing shows."""
    directory = os.path.dirname(os.path.abspath(path))
    if code == errno.EACCES:  # from the deepest directory that shows
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
    if code != errno.EACCES:  # EPERM is a matter of privilege, before 6.1
        return None
    return _why_no_access(path, flags)


def _why_no_pin_here(code, path, directory):
    """Say why nothing can be pinned at a path, None if nothing shows."""
    if "." in os.path.basename(path):
        return "the name of a pin has no dot"
    if code == errno.EACCES:
        return "the directory is not open to this user for writing"
    old = _kernel_release() < (5, 19) and not _capability(_CAP_BPF)
    if old or code not in (errno.EPERM, errno.ENOENT) or _in_bpffs(directory):
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
    """Return a path as it is, of which /proc writes blanks and the like as octal numbers: \\040."""
    head, *parts = text.split("\\")
    path = head + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)
    return os.fsdecode(path.encode("latin-1"))


def _in_bpffs(path):
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
    """Return {name: number} of the capabilities that a command takes here."""
    wanted = {}
    enough = (6, 5) if cmd == BPF_MAP_FREEZE else (5, 19)  # from where on a descriptor is
    if cmd in _BY_ID_CMDS:
        wanted["CAP_SYS_ADMIN"] = _CAP_SYS_ADMIN
    elif cmd in _MAKING_CMDS or _kernel_release() < enough:
        wanted["CAP_BPF (before Linux 5.8 CAP_SYS_ADMIN)"] = _CAP_BPF
    if cmd == BPF_MAP_CREATE and map_type in _NET_ADMIN_TYPES:
        wanted["CAP_NET_ADMIN"] = _CAP_NET_ADMIN
    return wanted


def _memlock_limit(cmd):
    """Say that old kernels charge a limit, None if that can't be it."""
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


def _in_user_namespace():
    """Whether this process is in another than the initial user namespace, as far as /proc tells."""
    return _read_text("/proc/self/uid_map").split() not in ([], ["0", "0", "4294967295"])


def _capability(number):
    """Whether this process has a capability; KeyError without /proc."""
    return bool(int(_colon_file("/proc/self/status")["CapEff"], 16) >> number & 1)


def _read_text(path):
    """Return what is in a small file of the kernel's, "" where it can't be read."""
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
    """Return what /proc says of a descriptor, {} without /proc.

    Needs no privilege; alone shows "frozen".
    """
    return _colon_file("/proc/self/fdinfo/%d" % fd)


def _kernel_release():
    """Return (6, 18) on Linux 6.18.44."""
    return tuple(int(part) for part in os.uname().release.replace("-", ".").split(".")[:2])


# ---- 3. System call ---------------------------------------------------------

SYSCALL_NUMBER: "Optional[int]" = None  # set this where the table lacks your architecture

# uname -m begins with; e_machine of ELF; number of bpf(2) for 32-bit and for 64-bit programs
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
_NR_X32 = 0x40000000 + 321  # 32-bit ELF for x86-64
_NR_MIPS_N32 = 6319  # 32-bit ELF for MIPS with EF_MIPS_ABI2


def syscall_number(machine: "Optional[str]" = None, pointer_size: "Optional[int]" = None) -> int:
    """Return the number of bpf(2), 321 on x86-64.

    machine    as of uname -m; left out, the ELF header of the running interpreter is asked first,
               as uname describes the kernel and not the process
    pointer_size  sizeof(void *)
    raises     NotSupported: it is not known
    """
    if machine is None and pointer_size is None:
        number = _elf_syscall_number() if SYSCALL_NUMBER is None else SYSCALL_NUMBER
        if number is not None:
            return number
    if machine is None and not hasattr(os, "uname"):
        raise _unknown_machine(sys.platform)
    machine, wide = machine or os.uname().machine, (pointer_size or sizeof(ctypes.c_void_p)) == 8
    for prefixes, _, number32, number64 in _SYSCALL_TABLE:
        number = number64 if wide else number32
        if machine.startswith(prefixes) and number is not None:
            return number
    raise _unknown_machine("%s, %d-bit" % (machine, 64 if wide else 32))


def _unknown_machine(text):
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
    if not wide and (e_machine == 62 or e_machine == 8 and e_flags & 0x20):
        return _NR_X32 if e_machine == 62 else _NR_MIPS_N32
    return next(
        (
            number64 if wide else number32
            for _, e_machines, number32, number64 in _SYSCALL_TABLE
            if e_machine in e_machines
        ),
        None,
    )


class _Outcomes(dict):
    """Makes an errno of what syscall(2) returned: 0 stays 0.

    For -1 set_errno is called, which returns errno.  All of that is C's: no signal handler, whose
    own calls may fail, runs between the call and the reading of errno.
    """

    __missing__ = set_errno


class _Errno(ctypes._SimpleCData):
    """The result of a system call that returns 0 if it succeeds: 0 or errno."""

    _type_ = "l"
    _check_retval_ = _Outcomes({0: 0}).__getitem__


def _in_one_step(kept, function, *words):
    """Append function(*words), of C's, to the list kept: no signal handler comes between."""
    kept.extend(map(function, *zip(words)))


def _find_libc():
    """Find syscall(2) and its number, at the first use: importing does no I/O and fails nowhere."""
    global _nr_bpf, _libc_function, _libc_syscall, _syscall
    if not sys.platform.startswith("linux"):
        raise _unknown_machine(sys.platform)
    number, libc = syscall_number(), ctypes.CDLL(None, use_errno=True)
    # Without argtypes plain ints travel fastest; libffi widens them to the registers they take.
    plain, checked = libc["syscall"], libc["syscall"]
    plain.restype, checked.restype = ctypes.c_long, _Errno
    _libc_function, _libc_syscall = plain, checked
    if _syscall is _first_syscall:
        _syscall = checked
    _nr_bpf = number  # last: other threads may look for it


def _first_syscall(_, *words):
    """Stand in for libc's syscall(2) until the first use."""
    _find_libc()
    return _libc_syscall(_nr_bpf, *words)


def _libc_syscall_into(kept, _, *words):
    """Append bpf(2)'s result and errno to the list kept, whose holder owns a new descriptor."""
    if _nr_bpf is None:
        _find_libc()
    call = partial(_libc_function, _nr_bpf, *words)
    kept.extend(map(_call, (call, get_errno)))


_nr_bpf = _libc_function = None
_call = methodcaller("__call__")
_libc_syscall = _first_syscall
# Every call goes through one of these two; trace() puts its own here.
_syscall = _first_syscall  # (number, command, attr, size): 0 or errno, for commands that return 0
_syscall_into = _libc_syscall_into  # (kept, number, command, attr, size): appends result, errno


def _bpf(cmd, attr, about="", size=None, kept=None, **known):
    """Call bpf(2); return its result or raise _error of what is known.

    The caller keeps alive what attr points to.  A list given as kept holds the result as soon as
    there is one: a descriptor is closed with it, whatever interrupts.
    """
    kept = [] if kept is None else kept
    del kept[:]
    _syscall_into(kept, _nr_bpf, cmd, byref(attr), _ATTR_SIZES[cmd] if size is None else size)
    result, code = kept
    if result == -1:
        raise _error(code, cmd, about, **known)
    return result


def _bpf_charged(cmd, attr, about="", size=None, kept=None, **known):
    """Do what _bpf does.

    Where kernels before 5.11 answer EPERM for RLIMIT_MEMLOCK, raise that and try again.
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


class _Fd:
    """The descriptor that make(...) returns, closed when nobody, no call either, refers to it.

    make is a function of C's, or one of ours that takes kept, the list that holds the descriptor
    from its first moment.
    """

    __slots__ = ("number", "_kept")

    def __init__(self, make, *words, **options):
        self._kept = []  # type: list
        if hasattr(make, "__code__"):
            make(*words, kept=self._kept, **options)
        else:
            _in_one_step(self._kept, make, *words)
        self.number = self._kept[0]

    def __del__(self, close=os.close):
        try:
            close(self._kept[0])
        except (OSError, AttributeError, IndexError):  # there was none, or no memory to make it
            pass

    def release(self):
        """Leave the descriptor open: it is another's."""
        del self._kept[:]

    def fileno(self) -> int:
        return self.number

    def __reduce__(self):
        raise TypeError("a descriptor means nothing in another process")


def _info_by_fd(fd, info, about):
    """Fill info, a zeroed structure, from BPF_OBJ_GET_INFO_BY_FD.

    Return how many bytes the kernel knows.
    """
    attr = _info_attr(fd, info)
    _bpf(BPF_OBJ_GET_INFO_BY_FD, attr, about)
    return attr.info.info_len


def _info_attr(fd, info):
    attr = bpf_attr()
    attr.info.bpf_fd, attr.info.info_len, attr.info.info = fd, sizeof(info), addressof(info)
    return attr


def _ids(cmd):
    """Yield the ids that a BPF_*_GET_NEXT_ID tells."""
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
    """Yield (id, read(id)) of the ids that a BPF_*_GET_NEXT_ID tells.

    What goes away meanwhile is left out.
    """
    for number in _ids(cmd):
        try:
            found = read(number)
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            yield number, found


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


_tracers = []  # type: list


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
    # What may be shown as bytes: inputs of a size that is known
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
    """Return (key, value) bytes as an element command moves them.

    Zeros where the kernel does not tell.
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


def percpu_stride(value_size: int) -> int:
    """Bytes from one CPU's value to the next's, as the kernel copies them (bpf_map_value_size)."""
    return (value_size + 7) & ~7


_proven_cpus = None  # once per process: the possible CPUs, their number told by the kernel
_MAX_CPUS = 8192  # the largest NR_CPUS that any architecture can be built with


def possible_cpus() -> "Tuple[int, ...]":
    """Return the ids of the possible CPUs; values of per-CPU maps lie in this order.

    Their number is what the kernel itself rounds an LRU map to, or, without the right to create
    one (CAP_BPF), what /sys says.  /sys alone tells which ids; where it contradicts the kernel
    they count from 0.

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
    attr.map_create.map_type, attr.map_create.map_flags = (
        BPF_MAP_TYPE_LRU_HASH,
        BPF_F_NO_COMMON_LRU,
    )  # 4.10
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
# What the bytes of a key or value mean is one tree of Layout nodes.  A front end makes and proves
# it: of a ctypes class or of C text here, of BTF in section 5.  Everything else is a reader of the
# tree; nothing else walks _fields_ or the members of BTF.  Nothing here needs a kernel.

MAX_DEPTH = 32  # of types inside types

_INT_CODES, _SIGNED_CODES, _FLOAT_CODES = "bBhHiIlLqQ", "bhilq", "fd"
_SIGNED_INTS = {1: ctypes.c_int8, 2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}
_UNSIGNED_INTS = {1: u8, 2: u16, 4: u32, 8: u64}
_FLOATS = {4: ctypes.c_float, 8: ctypes.c_double}
# what BTF says of an integer besides its size
_INT_SIGNED, _INT_CHAR, _INT_BOOL = 1, 2, 4
_STRUCT_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}  # of signed integers; upper case: unsigned
_ORDER_MARKS = {"little": "<", "big": ">"}
_FOREIGN_ORDER = "big" if sys.byteorder == "little" else "little"
_BASES = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._SimpleCData)
_CDATA = ctypes._SimpleCData.__mro__[1]  # the base of every ctypes object

# -- ctypes objects.  What a caller's class defines (__new__, a field named from_buffer, a property
# named value) must not come between us and the bytes, so objects are made, copied and read through
# the classes of ctypes.
_get_value = ctypes._SimpleCData.__dict__["value"].__get__


def _base(ctype):
    return next(base for base in _BASES if issubclass(ctype, base))


def _maker(ctype):
    """Return what makes a zeroed object of ctype, whatever __new__ and __init__ the class has or
    gets.
    """
    return ctype if _is_plain(ctype) else partial(_base(ctype).__new__, ctype)


def _copier(ctype):
    """Return f(buffer, offset=0), which makes a ctype of the bytes there."""
    # without type(ctype): a crash in 3.13
    return type(_base(ctype)).from_buffer_copy.__get__(ctype, type(ctype))


def _overlay(ctype):
    """Return f(buffer, offset=0), which makes a ctype that lives in those bytes."""
    return type(_base(ctype)).from_buffer.__get__(ctype, type(ctype))


_ZERO = u8()


def _raw(obj):
    """Return the bytes of an object, not what its class's __bytes__ says."""
    return ctypes.string_at(addressof(obj), sizeof(obj))


def _is_scalar(ctype):
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
    """Whether it is a scalar class of ctypes itself, whose value and array elements are plain
    numbers.
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


def _range_of(bits, signed):
    """Return (lowest, highest) of the integers of so many bits."""
    if signed:
        return -1 << bits - 1, (1 << bits - 1) - 1
    return 0, (1 << bits) - 1


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


def _number_name(kind, bits, order):
    """Return "u32", "s8", "f64"; of the foreign byte order "be16", "bes16", "bef64"."""
    if order == sys.byteorder or bits == 8:
        return "%s%d" % (kind, bits)
    return "%s%s%d" % (order[0] + "e", kind.replace("u", ""), bits)


def _integer(given, low, high, what):
    """Return given as an int; LayoutError unless it is one (or has __index__) from low to high."""
    number = given.__index__() if hasattr(type(given), "__index__") else given
    if not issubclass(type(number), int):
        raise LayoutError("%s must be an int, not %s" % (what, type(given).__name__))
    number = int.__index__(number)  # a subclass may compare as it likes
    if not low <= number <= high:
        raise LayoutError("%s is %d, outside %d..%d" % (what, number, low, high))
    return number


def _to_ctype(ctype, size, given, what):
    """Return a ctypes object that holds given as the kernel wants it, given itself where it is one
    already.

    For ctype bytes, size raw bytes.  raises LayoutError: nothing is converted that is not meant,
    cut or padded
    """
    # The class alone proves nothing: an object's __class__ can be assigned a larger one.
    if type(given) is ctype and ctype is not bytes and sizeof(given) >= size:
        return given
    # An array class made from a Layout is not the one that ctypes caches for ever.
    same = (
        _is_array(ctype) and isinstance(given, ctypes.Array) and type(given)._type_ is ctype._type_
    )
    if same or isinstance(given, (bytes, bytearray, memoryview)):
        try:
            raw = memoryview(given).tobytes()  # a copy: nobody can resize what is measured here
        except ValueError as error:  # a memoryview that was released
            raise LayoutError("%s: %s" % (what, error)) from None
        if len(raw) != size:
            raise LayoutError("%s takes exactly %d bytes, not %d" % (what, size, len(raw)))
        return _copier(u8 * size if ctype is bytes else ctype)(raw)
    if _is_int(ctype) and hasattr(type(given), "__index__"):
        about = "%s (%s)" % (what, type_name(ctype))
        return _set(ctype, _integer(given, *_int_range(ctype), what=about))
    if _is_scalar(ctype) and isinstance(given, (int, float)):
        if ctype._type_ == "?" and given in (0, 1) and isinstance(given, int):
            return _set(ctype, given)
        if ctype._type_ in _FLOAT_CODES:
            return _float_object(ctype, given, what)
    accepted = "%d bytes" % size
    if ctype is not bytes:
        kinds = (type_name(ctype), ", an int" if _is_int(ctype) else "", accepted)
        accepted = "%s%s or %s" % kinds
    raise LayoutError("%s must be %s, not %s" % (what, accepted, type(given).__name__))


def _float_object(ctype, given, what):
    """Return a float scalar.  A float may be rounded, that is its nature; an int may not, nor may
    either overflow.
    """
    try:
        obj = _set(ctype, given)
        number = _get_value(obj)
    except OverflowError:
        number = None
    infinite = number in (float("inf"), float("-inf"), None)
    if number == given or isinstance(given, float) and not infinite:
        return obj
    raise LayoutError("%s is %s, which does not hold %r" % (what, type_name(ctype), given))


def _set(ctype, number):
    """Return a new scalar of that value."""
    obj = _maker(ctype)()
    ctypes._SimpleCData.__dict__["value"].__set__(obj, number)
    return obj


# -- the tree


class Layout:
    """What some bytes mean: an immutable tree that can be read, written and described.

    layout(t) makes one of a ctypes class or of C text, btf.layout(t) of BTF; m.key_layout and
    m.value_layout are a map's.

    size       bytes
    name       the type in C's terms
    members    of a record, in the order of their declaration; else ()
    meaning    the Meaning that was asked for, or None
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
    takes_addresses = False  # whether text in the form of an IP or MAC address of its size is one

    def __init__(self, size, name, values=1, levels=0, has_choice=False):
        self.size, self.name = size, name
        self.values, self.levels = values, levels  # leaves, and types inside types
        self.has_choice = has_choice  # whether a field in it says how to read another one
        self.meaning = None  # what it is to people, where that was asked for
        self._readers = {}  # (form, stride, CPUs) -> reader
        self._hash = None

    def _facts(self):
        """Return what makes two layouts the same."""
        return [getattr(self, name) for name in self._state_names() if name != "values"]

    def _state_names(self):
        """Return the slots that make it what it is; the others are worked out."""
        slots = [name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ())]
        return [name for name in slots if name not in _WORKED_OUT]

    def __eq__(self, other: object) -> bool:
        return _same_tree(self, other, set()) if isinstance(other, Layout) else NotImplemented

    def __hash__(self) -> int:
        # of all that is in it, each part once: types that a hostile BTF makes alike must not
        # collide
        if self._hash is None:
            self._hash = hash((type(self), self.size, self.name, self.levels) + self._inside())
        return self._hash

    def _inside(self):
        """Return what else the hash is of."""
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
            if form not in _FORMS:
                raise LayoutError("no form '%s'; there are %s" % (form, ", ".join(_FORMS)))
            if stride is not None and stride < self.size:
                words = (self.name, self.size, stride)  # type: Tuple[Any, ...]
                raise LayoutError("%s: elements of %d bytes are no %d bytes apart" % words)
            if self.values > 16 * self.size + 4096:
                words = (self.name, self.values, self.size)
                raise LayoutError("%s: %d values in %d bytes are too many to read" % words)
            is_unrolled = _FORMS[form].unrolls_arrays or cpus > 1
            if is_unrolled and self.values > _MAX_SAMPLES:
                words = (self.name, self.values, form, _MAX_SAMPLES)
                raise LayoutError("%s: %d values are too many for %s, at most %d" % words)
            made = _ChoosingReader if self.is_undecided(_FORMS[form]) else Reader
            known = made(self, _FORMS[form], stride, cpus)
            known = self._readers.setdefault((form, stride, cpus), known)
        return known

    def is_undecided(self, form):
        """Whether a form needs to know branches of unions before it can read this in one go."""
        return False

    def compiled(self, form, at, columns):
        """Return the piece of a form for what lies at a bit; its leaves become columns."""
        spelling = form.spelling_of(self)
        if spelling and at % 8 == 0 and columns.cpus == 1:
            return columns.add_spelled(at // 8, self.size, spelling)
        convert = form.meant(self)
        if convert is not None:
            return self._leaf(form, at, columns, convert)
        if columns.cpus == 1:
            return self._compile(form, at, columns)
        is_added, meaning = columns.is_added, self.meaning or _proved(self)
        columns.is_added = is_added and (meaning is None or meaning.kind.adds_up)
        piece = self._compile(form, at, columns)
        columns.is_added = is_added
        return piece

    def _leaf(self, form, at, columns, convert):
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
        return _shown_at(self, [step for step in path.split(".") if step], word, path)

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
        """Have packing hold what was given, for what lies at a bit."""
        told = self.told(given)
        if isinstance(told, bytes) and told is not given:
            packing.put_bytes(at // 8, told, what)
        else:
            self._put(packing, at, told, what)

    def told(self, given):
        """Return the number or the bytes that a text stands for by what this means, else given."""
        meaning = self.meaning or _proved(self)
        if meaning is None or not isinstance(given, str):
            return given
        told = meaning.told(given.strip(), self)
        return given if told is None else told


def _field_text(path):
    """Return the name of a field as conditions have it: hits[3], addr.ip4; "value" for a whole."""
    text = "".join("[%d]" % one if isinstance(one, int) else "." + one for one in path)
    return text.lstrip(".") if path and isinstance(path[0], str) else "value" + text


_WORKED_OUT = frozenset(("_readers", "_hash", "__weakref__", "_parts", "_plan"))


def _same_tree(one, other, seen):
    """Whether two trees say the same; seen are the pairs under comparison, so that shared parts
    cost once.
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
    """A leaf: .order of its bytes, .bits (fewer than 8 * size in a bitfield), .signed; its class
    says what it means.
    """

    # raw_order is what the record around it has: bpftool knows no other.  encoding is BTF's, 0
    # elsewhere.
    __slots__ = ("order", "raw_order", "bits", "signed", "encoding", "is_bitfield")
    order: str
    bits: int
    signed: bool
    kind = "u"  # of its name, where it has none of its own

    def __init__(self, size, name="", order=sys.byteorder, signed=False, encoding=0):
        name = name or _number_name(
            "s" if signed and self.kind == "u" else self.kind, 8 * size, order
        )
        Layout.__init__(self, size, name)
        self.order = self.raw_order = order
        self.bits, self.signed, self.encoding = 8 * size, signed, encoding
        self.is_bitfield = (
            False  # one of all the bits of its type is none to struct, but to bpftool
        )

    def _inside(self):
        return self.bits, self.signed, self.order

    def bitfield(self, bits):
        """Return the same number as a bitfield: of its type's byte order nothing is left."""
        return self._changed(bits=bits, order=self.raw_order, is_bitfield=True)

    def ordered(self, order):
        """Return the same number in a byte order that its type prescribes."""
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
        return self._leaf(form, at, columns, self.converter(form))

    @property
    def adds_up(self) -> bool:
        """Whether the sum of what CPUs have says something."""
        is_count = type(self) in (Number, Float)
        return is_count and (self.meaning is None or self.meaning.kind.adds_up)

    def _leaf(self, form, at, columns, convert):
        if convert is SKIPPED:
            return form.nothing()
        order, signed, written = form.order_of(self), self.signed, None
        if isinstance(convert, _Written):
            signed, written, convert = False, convert.template, None
        convert = columns.of_cpus(convert, self.adds_up)
        if self.is_whole and at % 8 == 0:
            code = self.code if signed == self.signed else self.code.upper()
            return columns.add(form, at // 8, self.size, code, order, convert, written)
        bits = _Bits(at, self.bits, order, signed, convert)
        return columns.add(
            form, bits.first, bits.last - bits.first, bits.code, order, bits, written
        )

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
        if self.bits != 8 * self.size:
            return "a field of %d bits" % self.bits
        return self.name

    def _from_text(self, text, what):
        raw = self._address(text)
        if raw is not None:
            number = int.from_bytes(raw, self.order)
            return number - (self.signed and number > self.high) * (1 << self.bits)
        try:
            return _parsed_int(text)
        except ValueError:
            raise LayoutError("%s: %r is no number%s" % (what, text, self._names_text())) from None

    def _names_text(self):
        return ""


class Enum(Number):
    """An integer with names: .names is {number: name}."""

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
    """A byte that is text.  is_plain_char: not by way of a typedef, for bpftool."""

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
            code = "<" + self.code  # native ones overflow without a word
            stored = struct.unpack(code, struct.pack(code, given))[0]
        except (OverflowError, struct.error):
            stored = None
        if stored is None or isinstance(given, int) and stored != given:
            raise LayoutError("%s is %s, which does not hold %r" % (what, self.name, given))
        return given


class Pointer(Number):
    """An address; of the kernel, for reading only, though its bytes may be given as a number."""

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
        if isinstance(given, int) and self.size in _STRUCT_CODES:
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
    """.count elements of one layout, .element."""

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
        """Yield (member that tells, its bit offset) for each union in each of the elements."""
        for index, element in enumerate(self.elements):
            for tag in element.undecided(form, at + 8 * element.size * index):
                yield tag

    def decided(self, form, tags):
        """Return an array whose elements have the branches that those members choose."""
        return _ChosenElements(self, [one.decided(form, tags) for one in self.elements])

    def _dtype(self):
        if self.is_text:
            return "S%d" % self.size
        return self.element._dtype(), (self.count,)

    def _compile(self, form, at, columns):
        element = self.element
        if self.is_text:
            return columns.add_bytes(form, at, self.size, form.text(self))
        if form.joins_arrays:
            return columns.add_bytes(form, at, self.size, _Together(self.reader(form.joins_arrays)))
        if not self.size and self.count > 64:
            return form.array(self, [])  # nothing, many times
        if columns.cpus == 1 and self._fuses(form):
            return columns.add_many(form, self, at // 8)
        if columns.cpus == 1 and form.lists_arrays and (self.values > 64 or element.has_choice):
            inner = element.reader(form.name)
            return columns.add_bytes(form, at, self.size, form.series(inner))
        step = 8 * element.size
        pieces = [element.compiled(form, at + step * index, columns) for index in range(self.count)]
        return form.array(self, pieces)

    def of(self, element):
        """Return the same array of another element."""
        return self._changed(element=element)

    def _fuses(self, form):
        """Whether it is an array of numbers that a form shows as they are."""
        element = self.element
        if not form.fuses or type(element) is not Number or not element.is_whole:
            return False
        is_bare = form.meant(element) is None and form.integer(element) is None
        return is_bare and self.count <= 1 << 16

    def _put(self, packing, at, given, what):
        if self.is_text and isinstance(given, str):
            raw = _text_bytes(given)
            if len(raw) > self.size:
                raise LayoutError("%s: %r has more than %d bytes" % (what, given, self.size))
            return packing.put_bytes(at // 8, raw.ljust(self.size, b"\0"), what)
        if isinstance(given, str):
            raw = self._address(given)
            if raw is not None:
                return packing.put_bytes(at // 8, raw, what)
        if not isinstance(given, (list, tuple)):
            words = (what, self.count, self.element.name, given)
            raise LayoutError("%s takes a list of %d %s, not %r" % words)
        if len(given) != self.count:
            raise LayoutError("%s: %d elements, not %d" % (what, len(given), self.count))
        for index, one in enumerate(given):
            step = 8 * self.element.size * index
            self.element.put(packing, at + step, one, "%s[%d]" % (what, index))
        return None


class _ChosenElements(Array):
    """An array whose elements have chosen different branches of their unions."""

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
    """A member of a record: .name ("" where anonymous), .layout, .offset in bits, .bits of a
    bitfield or 0.

    label     its name in every form, None: it is left out
    tags      what BTF or its declaration says of it
    choice    (name of the member that tells, {its value: name of the branch}) of a union, or None
    bound     name of the BTF member that it has to agree with, None: of none
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
        self.bound, self.is_anonymous = (
            name,
            False,
        )  # what ctypes' _anonymous_ says: it has a name all the same

    def changed(self, **changes):
        """Return the same member but for some facts."""
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
        """Whether it is a union to choose a branch of, or has one in it that the form reads with
        it.
        """
        return bool(self.choice) or self.layout.is_undecided(form)

    @property
    def is_odd(self) -> bool:
        """Whether it is a number in bits, or of a size, that neither ctypes nor NumPy has."""
        number = self.layout
        return isinstance(number, Number) and (not number.is_whole or self.offset % 8 > 0)

    @property
    def is_merged(self) -> bool:
        """Whether its members are named as if they were those of the record around it."""
        return not self.name and isinstance(self.layout, Record) and not self.choice

    def steps_in(self, steps: "List[str]") -> int:
        """Return how many of the steps of a path are its name, 0: it is another's.

        Names of variables in data sections have dots: those that are static in a function.
        """
        for name in filter(None, (self.label, self.name)):
            count = name.count(".") + 1
            if ".".join(steps[:count]) == name:
                return count
        return 0

    def moved(self, offset):
        """Return the same member so many bits further on."""
        return self.changed(offset=self.offset + offset)

    def choosing(self, branch):
        """Return the same member with only one branch of the union that it is."""
        return self.changed(layout=self.layout.only(branch), choice=None)


class Record(Layout):
    """A struct, a union or a data section, .kind; .members in the order of their declaration.

    .parts are the same with those of anonymous records in the place of these.  btf_name is what
    bpftool calls it.
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
        """The members, those of anonymous records in the place of these, no two labels the same."""
        if self._parts is None:
            self._parts = tuple(_labelled(_merged_parts(self.members)))
        return self._parts

    @property
    def plan(self):
        """What the class of the record has."""
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
        made.meaning = self.meaning
        return made

    @property
    def takes_addresses(self) -> bool:  # type: ignore[override]  # a fact of Layout
        """Whether it is a wrapper like in_addr and in6_addr: one of numbers alone, as a whole."""
        inside = [one.layout for one in self.members if one.layout.size == self.size]
        return any(one.takes_addresses for one in inside)

    def is_undecided(self, form):
        return self.has_choice and any(member.is_undecided(form) for member in self.members)

    def undecided(self, form, at=0):
        """Yield (member that tells, its bit offset) for each union that waits for one, in the order
        of decided().
        """
        for member in self.members:
            if member.choice:
                tag = next(one for one in self.members if one.name == member.choice[0])
                yield tag, at + tag.offset
            elif member.is_undecided(form):
                for tag in member.layout.undecided(form, at + member.offset):
                    yield tag

    def decided(self, form, tags):
        """Return the record with the branches that the values of those members choose."""
        members = []
        for member in self.members:
            if member.choice:
                member = member.choosing(self._branch(member, next(tags)))
            elif member.is_undecided(form):
                member = member.changed(layout=member.layout.decided(form, tags))
            members.append(member)
        return self.having(members)

    def _branch(self, member, tag):
        name, branches = member.choice
        try:
            return branches[tag]
        except (KeyError, TypeError):
            words = (self.name.split(" ")[-1], member.name, name, tag)
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
            inner = form.layout_of(one) if columns.cpus == 1 else _with_proved(one)
            pieces.append(inner.compiled(form, at + one.offset, columns))
        return form.record(self, members, pieces)

    # -- what was typed

    def _put(self, packing, at, given, what):
        if isinstance(given, str):
            raw = self._address(given)
            if raw is not None:
                packing.put_bytes(at // 8, raw, what)
                return
            named = [one for one in self.parts if one.label is not None]
            if len(named) == 1:
                named[0].layout.put(packing, at + named[0].offset, given, what)
                return
        if not isinstance(given, dict):
            words = (what, given, self.name, self._labels_text())
            raise LayoutError("%s: %r does not say what %s are: %s" % words)
        given, known, kept = dict(given), self._parts_by_name(), packing.keep
        if "rest" in given and "rest" not in known:
            self._put_rest(packing, at, given.pop("rest"), what)
            packing.keep = True
        parts = set()
        for name, one in given.items():
            part = known.get(name)
            if part is None:
                words = (what, name, self._labels_text())
                raise LayoutError("%s: no field '%s'; there are %s" % words)
            inside = "%s.%s" % (what, name) if what else name
            part.layout.put(packing, at + part.offset, one, inside)
            parts.add(part)
        missing = [] if packing.keep else self._missing(iter(self.parts), parts)
        if missing:
            words = (what, ", ".join(missing))
            raise LayoutError("%s: %s not given (rest=0 sets what is left to zero)" % words)
        packing.keep = kept

    def _put_rest(self, packing, at, rest, what):
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
        """Return the labels that are not given, but for those of what no form shows; parts yields
        all.
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
            return [label for labels in open_members for label in labels]
        if not open_members or any(not labels for labels in open_members):
            return []
        return ["one of " + ", ".join(labels[0] for labels in open_members)]


_MAX_SAMPLES = 1 << 19  # of one value, each with a path
_MAX_ROWS = 1 << 14  # of a table: what is shared by records multiplies
_MAX_VALUES = (
    1 << 20
)  # in a type, besides those that its bytes can hold: bitfields in unions take none


def _labelled(parts):
    """Yield the parts with labels that differ."""
    names = _Names(())
    for part in parts:
        label = part.label if part.label is None else names.free(part.label)
        yield part if label == part.label else part.changed(label=label)


class _Names:
    """Names that are taken; each of them is met once while free ones are looked for."""

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


def _merged_parts(members):
    """Yield the members, those of anonymous records in the place of these."""
    for member in members:
        if not member.is_merged:
            yield member
            continue
        for part in member.layout.parts:
            yield part.moved(member.offset)


class _Packing:
    """The buffer that pack fills: what has been said of a byte once can't be said otherwise."""

    __slots__ = ("start", "keep", "said", "_buffer")

    def __init__(self, start, keep, buffer=None):
        self.start, self.keep = start, keep  # start: what a bytearray is made of
        self.said = {}  # byte -> its bits that were given
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
            self.buffer[at] &= self.said.get(at, 0)

    def put_bits(self, bits, number, what):
        whole = (number & bits.mask) << bits.shift
        mask = bits.mask << bits.shift
        size = bits.last - bits.first
        pairs = zip(whole.to_bytes(size, bits.order), mask.to_bytes(size, bits.order))
        for at, (byte, part) in enumerate(pairs, bits.first):
            self._put(at, byte, part, what)

    def _put(self, at, byte, mask, what):
        both = self.said.get(at, 0) & mask
        if (self.buffer[at] ^ byte) & both:
            raise LayoutError(
                "%s says something else of byte %d than what was given before" % (what, at)
            )
        self.said[at] = self.said.get(at, 0) | mask
        self.buffer[at] = self.buffer[at] & ~mask | byte & mask


def _parsed_int(text):
    """Return the integer that a word is: 010 is octal, as bpftool's strtoul has it.  raises
    ValueError
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


# -- meanings: what a number or some bytes are to people.  One is asked for (_show_ of a class, a
# tag "show:WORD" in BTF, --show) or proved by what a declaration says, which is for people alone.


class Meaning:
    """What a number or some bytes are to people: a .word of MEANINGS, in the .names of a machine.

    is_asked   whether somebody asked for it, so that it is shown wherever text may stand
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
    def kind(self) -> "_Kind":
        return MEANINGS[self.word]

    @property
    def is_shown(self) -> bool:
        """Whether there is something to show: "plain" is the wish for nothing."""
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
        """Return the int or bytes that a text stands for, None for any other text."""
        return self.kind.told(text, layout, self.names)


class _Kind:
    """A kind of meaning: which layouts can have it, and its text, both ways."""

    is_of_bytes = False  # of bytes in their order, else of a number
    is_quantity = False  # so that metrics can have its number
    adds_up = False  # whether the sum of what CPUs have says something
    is_named = False  # by the machine
    is_ordered = False  # as the machine is, where the layout does not tell
    spelling = ""  # a template of its bytes, where there is one for all
    takes = "an integer"
    sizes = ()  # type: tuple  # in bytes; (): any

    def fits(self, layout):
        is_number = isinstance(layout, Number) and not isinstance(layout, (Float, Char))
        return is_number and (not self.sizes or layout.size in self.sizes)

    def applied(self, layout, word):
        """Return a layout that means this, None if it can't."""
        return layout._changed(meaning=Meaning(word)) if self.fits(layout) else None

    def text(self, leaf, layout, names):
        """Return what a leaf means."""
        return str(leaf)

    def text_for_people(self, leaf, layout, names):
        """Return the same with what is true only now."""
        return self.text(leaf, layout, names)

    def told(self, text, layout, names):
        """Return the number, or the bytes, that a text stands for; None: it is no such text."""
        return None


class _Plain(_Kind):
    """Nothing but what the type says, whatever the declaration proves."""

    adds_up = True
    takes = "anything"

    def fits(self, layout):
        return not isinstance(layout, Array) or isinstance(layout.element, Number)


class _NetworkOrder(_Kind):
    """A number in network byte order, which is a fact of the type and not only to people."""

    takes, sizes = "an integer of 2, 4 or 8 bytes", (2, 4, 8)

    def applied(self, layout, word):
        is_whole = _Kind.fits(self, layout) and layout.is_whole
        return layout.ordered("big") if is_whole else None


class _OfBytes(_Kind):
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
        self.spelling = "%d.%d.%d.%d" if sizes == (4,) else ""

    def text(self, raw, layout, names):
        if len(raw) == 16 and 4 in self.sizes and not any(raw[4:]):
            raw = raw[:4]
        return _ip_text(raw)

    def told(self, text, layout, names):
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
    spelling = ":".join(["%02x"] * 6)

    def text(self, raw, layout, names):
        return self.spelling % tuple(raw)

    def told(self, text, layout, names):
        return _address_bytes(text, 6)


class _Prefix(_OfBytes):
    """The key of an LPM trie: a length of 32 bits, then an IPv4 or IPv6 address."""

    is_ordered = True

    def text(self, raw, layout, names):
        length = int.from_bytes(raw[:4], _order_of_first(layout, names))
        return "%s/%d" % (_ip_text(raw[4:]), length)

    def told(self, text, layout, names):
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
        if family == self.INET6 and len(raw) >= 28 and not any(raw[4:8]):  # no flow
            scope = int.from_bytes(raw[24:28], _order_of_first(layout, names))
            return "[%s%s]:%d" % (_ip_text(raw[8:24]), "%%%d" % scope if scope else "", port)
        return raw.hex()

    def told(self, text, layout, names):
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


class _Hexadecimal(_Kind):
    takes = "anything but floats and text"
    is_quantity = adds_up = True

    def fits(self, layout):
        return _Kind.fits(self, layout) or isinstance(layout, (Bytes, Array, Record))

    def text(self, leaf, layout, names):
        if isinstance(leaf, bytes):
            return leaf.hex()
        return "0x%x" % (leaf & (1 << layout.bits) - 1)

    def told(self, text, layout, names):
        if isinstance(layout, Number):
            return _number_of_hex(text, layout)
        return bytes.fromhex(text) if _is_hex_of(text, layout.size) else None


def _number_of_hex(text, number):
    """Return what a number of a layout is, given its bits as 0x...; None for any other text."""
    is_hex = text[:2] in ("0x", "0X") and _HEX_DIGITS.issuperset(text[2:])
    return _signed_as(number, int(text, 16)) if is_hex and text[2:] else None


def _signed_as(number, raw):
    """Return what a number of a layout is, given its bits; more of them stay what they are."""
    is_negative = number.signed and number.high < raw < 1 << number.bits
    return raw - (1 << number.bits) if is_negative else raw


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


def _duration_told(text):
    """Return the nanoseconds of a duration with units, None if it is none."""
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


class _Duration(_Kind):
    """A time that something took."""

    is_quantity = adds_up = True

    def __init__(self, unit):
        self.unit = unit  # in nanoseconds

    def text(self, number, layout, names):
        return _duration_text(number * self.unit)

    def told(self, text, layout, names):
        told = _duration_told(text)
        return None if told is None or told % self.unit else told // self.unit


class _BootTime(_Kind):
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
        except (ValueError, OverflowError, OSError):  # a year that has no name
            return str(number)
        return "%s.%06d" % (local, rest // 1000)

    def text_for_people(self, number, layout, names):
        text = self.text(number, layout, names)
        if " " not in text:
            return text
        age = names.now() - number
        how = "%s (%s ago)" if age >= 0 else "%s (in %s)"
        return how % (text, _duration_text(abs(age) // 10**6 * 10**6))

    def told(self, text, layout, names):
        import re
        import time

        if names.boot is None:
            return None
        age = re.match(r"(\S+) ago\Z", text)
        if age and _duration_told(age.group(1)) is not None:
            return max(names.now() - _duration_told(age.group(1)), layout.low)
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


class _ByteCount(_Kind):
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

    def told(self, text, layout, names):
        import re

        found = re.match(r"(-?\d{1,30})(?:\.(\d{1,9}))?([KMGTPEZ]?i?B)\Z", text)
        if not found or found.group(3) not in self.UNITS:
            return None
        whole, part, unit = found.group(1), found.group(2) or "", found.group(3)
        if part and unit == "B":
            return None
        return int(whole + part) * (1 << 10 * self.UNITS.index(unit)) // 10 ** len(part)


class _ErrorNumber(_Kind):
    """An errno, negative as the kernel returns it or not."""

    def text(self, number, layout, names):
        name = errno_name(abs(number))
        if " " in name:
            return str(number)
        return "-" + name if number < 0 else name

    def told(self, text, layout, names):
        sign = -1 if text[:1] == "-" else 1
        codes = [code for code in range(1, 600) if errno_name(code) == text.lstrip("-")]
        return sign * codes[0] if codes else None


class _Character(_Kind):
    """A number that is a character."""

    def text(self, number, layout, names):
        if 0x20 < number < 0x7F and number != 0x5C:
            return chr(number)
        return "\\x%02x" % (number & (1 << layout.bits) - 1)

    def told(self, text, layout, names):
        if len(text) == 1:
            return ord(text)
        return _number_of_hex("0x" + text[2:], layout) if text[:2] == "\\x" else None


class _Flags(_Kind):
    """Enumerators that are or'ed: their names, and what is left of the bits."""

    takes = "an enum of at most 256 names"

    def fits(self, layout):
        return isinstance(layout, Enum) and len(layout.names) <= 256  # looked through for each

    def text(self, number, layout, names):
        if number in layout.names:
            return layout.names[number]
        left, found = number & (1 << layout.bits) - 1, []
        for bits in sorted(layout.names, reverse=True):
            if bits > 0 and left & bits == bits:
                found.insert(0, layout.names[bits])
                left &= ~bits
        return "|".join(found + ["0x%x" % left] * (left > 0)) or "0"

    def told(self, text, layout, names):
        if "|" not in text:
            return _number_of_hex(text, layout)
        numbers = {name: number for number, name in layout.names.items()}
        total = 0
        for word in text.split("|"):
            number = numbers.get(word)
            if number is None:
                try:
                    number = _parsed_int(word)
                except (ValueError, IndexError):
                    return None
            total |= number
        return _signed_as(layout, total)


class _Named(_Kind):
    """A number that the machine has a name for: the name, else the number."""

    is_named = True

    def __init__(self, word, *sizes):
        self.word, self.sizes = word, sizes
        if sizes:
            self.takes = "an integer of %s bytes" % " or ".join(map(str, sizes))

    def text(self, number, layout, names):
        return names.text(self.word, number & (1 << layout.bits) - 1) or str(number)

    def told(self, text, layout, names):
        number = names.number(self.word, text)
        return None if number is None else _signed_as(layout, number)


class _Symbol(_Named):
    """An address in the kernel: its symbol and the offset in it, else the address."""

    def text(self, number, layout, names):
        address = number & (1 << layout.bits) - 1
        return names.text(self.word, address) or "0x%x" % address

    def told(self, text, layout, names):
        number = _number_of_hex(text, layout)
        return _Named.told(self, text, layout, names) if number is None else number


class _Stack(_Kind):
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

    def told(self, text, layout, names):
        one, words = Number(8), text.split(";") if text else []
        found = [MEANINGS["ksym"].told(word, one, names) for word in reversed(words)]
        room = layout.size // 8 - len(found)
        if None in found or room < 0 or max(found, default=0) > one.high:
            return None
        return self._struct(layout, names).pack(*found + [0] * room)


MEANINGS: "Dict[str, _Kind]" = {
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
    "ifindex": _Named("ifindex", 4),
    "cgroup": _Named("cgroup", 8),
    "uid": _Named("uid", 4),
    "pid": _Named("pid", 4),
    "errno": _ErrorNumber(),
    "char": _Character(),
    "flags": _Flags(),
    "plain": _Plain(),
}


def _shown_at(found, steps, word, path):
    """Return a layout in which what the steps lead to means a word; see Layout.showing."""
    if not steps:
        return _meaning_a_word(found, word, path)
    if isinstance(found, Array):
        return found.of(_shown_at(found.element, steps, word, path))
    own = [member.steps_in(steps) for member in found.members]
    inner = [one.layout._first_named(steps)[1] if one.is_merged else 0 for one in found.members]
    most, members = max(own + inner, default=0), []
    if not most:
        raise NoSuchField("no field '%s'; there are %s" % (path, found._labels_text()))
    for member, count, merged in zip(found.members, own, inner):
        if most in (count, merged):
            inside = _shown_at(member.layout, steps[count:], word, path)
            member = member.changed(layout=inside)
        members.append(member)
    return found.having(members)


def _meaning_a_word(found, word, path):
    kind = MEANINGS[word]
    made = _applied(kind, found, word)
    if made is None:
        words = (path or found.name, word, kind.takes, found.name, found.size)
        raise LayoutError("%s: %s takes %s, not %s of %d bytes" % words)
    return made


def _applied(kind, found, word):
    """Return a layout that means a word as a whole, else of which each element does, else None."""
    made = kind.applied(found, word)
    if made is None and isinstance(found, Array):
        inner = _applied(kind, found.element, word)
        made = inner and found.of(inner)
    return made


def _shown_by_tags(found, tags):
    """Return a layout with the meaning of a tag "show:WORD"; one that can't be is a mere tag."""
    for tag in tags:
        if tag.startswith("show:"):
            try:
                return found.showing("", tag[5:])
            except LayoutError:
                pass
    return found


def _rebuilt(found, change, layout_of=None, made=None):
    """Return a layout in which change(part) stands for each part, what is inside first.

    layout_of   of a member; None: that which it has
    made        those that are done, each once: what is shared multiplies
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
    made[id(found)] = found, change(whole)  # keeps the one whose id it is
    return made[id(found)][1]


def _named_by(found, names):
    """Return a layout whose meanings take their names, and the byte order, from there."""

    def named(one):
        meaning = one.meaning
        if meaning is None or not (meaning.kind.is_named or meaning.kind.is_ordered):
            return one
        return one._changed(meaning=Meaning(meaning.word, names, meaning.is_asked))

    return _rebuilt(found, named)


# What a declaration proves.

_ADDRESS_RECORDS = {
    ("in_addr", 4): "ip4",
    ("in6_addr", 16): "ip6",
    ("ethaddr", 6): "mac",
    ("ether_addr", 6): "mac",
}
_ADDRESS_RECORDS.update(
    ((name, size), "sockaddr")
    for name, size in (
        ("sockaddr", 16),
        ("sockaddr_storage", 128),
        ("__kernel_sockaddr_storage", 128),
    )
)


def _proved(layout):
    """Return the Meaning that a type proves by itself, None if it proves none."""
    if not isinstance(layout, Record):
        return None
    word = _ADDRESS_RECORDS.get((layout.name.split(" ")[-1], layout.size))
    if layout.is_union and layout.size == 16 and len(layout.members) > 1:
        word = "ip" if _is_any_address(layout) else None
    return Meaning(word, is_asked=False) if word else None


def _asks_inside(found):
    """Whether somebody asked for what a part of a layout means, which is then what is shown."""
    inside = [member.layout for member in found.members]
    if isinstance(found, Array):
        inside = [found.element]
    return any(one.meaning and one.meaning.is_asked or _asks_inside(one) for one in inside)


def _is_any_address(union):
    """Whether a union has an address of 4 bytes and one of 16."""
    words = set()
    for member in union.members:
        meaning = _with_proved(member).meaning or _proved(member.layout)
        if meaning is not None:
            words.add(meaning.word)
        elif _names_ip(member.name) or member.name in ("v4", "v6"):
            words.add({4: "ip4", 16: "ip6"}.get(member.layout.size))
    return {"ip4", "ip6"} <= words


def _with_proved(member):
    """Return the layout of a member with the meaning that its name proves, if it has none."""
    found = member.layout
    if found.meaning is not None or not member.name:
        return found
    number = found.element if isinstance(found, Array) else found
    if not isinstance(number, Number):
        return found
    word = None
    if number.size == 4 and number.name.lstrip("_") == "be32" and number.is_whole:
        word = {4: "ip4", 16: "ip6"}.get(found.size) if _names_ip(member.name) else None
    elif found.size == 6 and number.size == 1 and type(number) is Number and not number.signed:
        word = "mac" if _names_mac(member.name) else None
    return found._changed(meaning=Meaning(word, is_asked=False)) if word else found


def _with_proved_asked(found):
    """Return a layout in which what declarations prove counts as asked for, for forms of which
    people see the text.
    """

    def asked(one):
        meaning = one.meaning or _proved(one)
        if meaning is None or meaning.is_asked:
            return one
        return one._changed(meaning=Meaning(meaning.word, meaning.names))

    return _rebuilt(found, asked, _with_proved)


def _names_ip(name):
    """Whether a name says that it is an IP address: saddr, dst_ip, ip6, remote_addr_v4, srcIp."""
    ends = [word.rstrip("46").rstrip("v") for word in name.lower().split("_")]
    return any(word in _IP_WORDS or word.endswith("addr") for word in ends)


_IP_WORDS = frozenset(("ip", "sip", "dip", "srcip", "dstip"))


def _names_mac(name):
    """Whether a name says that it is a MAC address: src_mac, dmac, h_dest, eth_src."""
    is_mac = any(word.endswith("mac") for word in name.lower().split("_"))
    return is_mac or name in ("h_dest", "h_source") or name.startswith("eth")


# -- the names that a machine gives to numbers


class _Machine:
    """The names of this machine: each kind is read, or each number asked for, once a run.

    order is its byte order
    """

    order = sys.byteorder

    def __init__(self):
        self.forget()

    def forget(self):
        """Begin another run."""
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


def _name_text(name):
    """Return a name of the system's as text: what is no UTF-8 is escaped, as in char arrays."""
    return _escaped(os.fsencode(name))


class _Interfaces:
    def text(self, number):
        try:
            import socket

            return _name_text(socket.if_indextoname(number)) if number else None
        except (ImportError, AttributeError, OSError, OverflowError):  # of a bare system, another's
            return None

    def number(self, text):
        import socket

        try:
            return socket.if_nametoindex(os.fsdecode(_text_bytes(text)))
        except (OSError, ValueError):
            return None


class _Users:
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


_NAMERS = {
    "ifindex": _Interfaces,
    "uid": _Users,
    "pid": _Processes,
    "cgroup": _Cgroups,
    "ksym": _Symbols,
}


# -- readers: bytes -> what a form says.  The leaves in their order become columns of as few structs
# as the overlaps of unions ask for; only columns that need it are converted, a column at a time; an
# entry is one % of a template, or one call of a builder.

SKIPPED = object()  # what a form's method returns for leaves that it leaves out


class _Bits:
    """Converts a column of the integers, or bytes, that hold a number of some bits into these
    numbers.

    Bits are counted as C does, from the low end of each byte, in big-endian data from the high one.
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
        """Return the number in the bytes of the whole."""
        whole = int.from_bytes(raw[self.first : self.last], self.order)
        return ((whole >> self.shift & self.mask) ^ self.sign) - self.sign


class _Cache(dict):
    """Converts a column by a function of one value, worked out once for each that occurs, as long
    as there are few.
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


class _Each:
    """Converts a column by a function of one value."""

    __slots__ = ("make",)

    def __init__(self, make):
        self.make = make

    def __call__(self, column):
        return map(self.make, column)


class _Together:
    """Converts a column of bytes by a reader of them all."""

    __slots__ = ("reader",)

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, column):
        if not self.reader.layout.size:
            return map(self.reader.one, column)
        return self.reader.read(b"".join(column))


def _added_up(column, count):
    """Return the sums of each count values in a row."""
    return column if count == 1 else list(map(sum, zip(*[iter(column)] * count)))


class _OfCPUs:
    """Converts a column with so many leaves for each element, one of each CPU: adds them up, or
    takes the first.
    """

    __slots__ = ("count", "adds_up", "then")

    def __init__(self, count, adds_up, then):
        self.count, self.adds_up, self.then = count, adds_up, then

    def __call__(self, column):
        column = list(column)
        column = _added_up(column, self.count) if self.adds_up else column[:: self.count]
        return column if self.then is None else self.then(column)


class _Written:
    """In place of a converter: text has the numbers, unsigned, in a template of its own."""

    __slots__ = ("template",)

    def __init__(self, template):
        self.template = template


class _Column:
    """Leaves that lie one behind the other: .count columns of one code."""

    __slots__ = ("first", "size", "code", "order", "convert", "count")

    def __init__(self, first, size, code, order, convert, count=1):
        self.first, self.size, self.code, self.order = first, size, code, order
        self.convert, self.count = convert, count

    @property
    def end(self):
        return self.first + self.size


class _Columns:
    """The columns of a layout while it is compiled, and what they become."""

    def __init__(self, cpus):
        self.wanted, self.width, self.cpus = [], 0, cpus
        self.is_added = True  # whether what is compiled is not part of an address or the like

    def of_cpus(self, convert, adds_up):
        """Return a converter that makes one leaf of those of the CPUs."""
        is_added = adds_up and self.is_added
        return convert if self.cpus == 1 else _OfCPUs(self.cpus, is_added, convert)

    def add(self, form, first, size, code, order, convert, written=None):
        self.wanted.append(_Column(first, size, code, order, convert))
        self.width += 1
        return written or form.leaf(self.width - 1, convert)

    def add_bytes(self, form, at, size, convert):
        """Add bytes that a form makes something of as a whole."""
        if convert is SKIPPED:
            return form.nothing()
        convert = self.of_cpus(convert, False)
        return self.add(form, at // 8, size, "%ds" % size, "little", convert)

    def add_spelled(self, first, size, template):
        """Add bytes that a template of text has each: one item of a struct, many columns."""
        self.wanted.append(_Column(first, size, "%dB" % size, "little", None, size))
        self.width += size
        return template

    def add_many(self, form, array, first):
        """Add an array of numbers that the form shows as they are: one item of a struct, many
        columns.
        """
        many, order = "%d%s" % (array.count, array.element.code), form.order_of(array.element)
        self.wanted.append(_Column(first, array.size, many, order, None, array.count))
        self.width += array.count
        return form.leaves(self.width - array.count, array.count)

    def rows(self, stride):
        """Return f(raw), which iterates over a tuple of leaves for each stride bytes."""
        if not self.wanted:
            step = stride * self.cpus
            return lambda raw: iter([()] * (len(raw) // step if step else 1))
        passes, order = [], []
        for shared in self._passes():
            passes.append(_one_pass(shared, stride))
            order += chain.from_iterable(shared)
        starts, place = {}, 0
        for column in order:
            starts[id(column)] = place
            place += column.count
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
        """Yield lists of what does not overlap: lists of columns of the same bytes."""
        groups = {}  # type: dict
        for column in self.wanted:
            is_converted = column.convert is not None
            group = groups.setdefault((is_converted, column.order), {})
            place = (column.first, column.size, column.code) if is_converted else id(column)
            group.setdefault(place, []).append(column)
        for key in sorted(groups):
            same = {id(columns[0]): columns for columns in groups[key].values()}
            for firsts in _apart([columns[0] for columns in same.values()]):
                yield [same[id(first)] for first in firsts]


def _apart(columns):
    """Return lists of columns that lie one behind the other, as few as can be."""
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
    """Return f(raw) that iterates over the tuples of columns which do not overlap."""
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
    """Return f(raw) that iterates over the tuples of all passes, each entry's as one."""
    if len(passes) == 1:
        return passes[0]
    if len(passes) == 2:
        first, second = passes
        return lambda raw: map(add, first(raw), second(raw))
    flat = chain.from_iterable
    return lambda raw: map(tuple, map(flat, zip(*[one(raw) for one in passes])))


class Reader:
    """Reads bytes as one form of a layout; see Layout.reader.

    rows(raw) are tuples of leaves, shape(row) what the form makes of one; template is what a form
    of text fills.
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
        """Yield (path, None, column) of the form "samples"; see _ChoosingReader for the other
        shape.
        """
        for path, column in zip(self.paths, zip(*self.rows(raw))):
            yield path, None, column


def _misfit(reader, raw):
    words = (reader.layout.name, reader.stride, memoryview(raw).nbytes)
    return LayoutError("%s takes %d bytes, not %d" % words)


class _ChoosingReader:
    """Reads elements in which a member tells how to read a union, each with the reader of its
    branches.
    """

    template = None

    def __init__(self, layout, form, stride, cpus):
        stride = layout.size if stride is None else stride
        self.layout, self.form, self.stride = layout, form, stride * cpus
        self._as = form.name, stride, cpus
        tags = [_Tag(tag.layout, at) for tag, at in layout.undecided(form)]
        found = Record(
            "struct", layout.name, layout.size, [tag.member(at) for at, tag in enumerate(tags)]
        )
        self._tags = found.reader("plain", self.stride)  # the first CPU's decide
        self._readers = {}  # the values of the tags -> reader

    def _reader_for(self, tags):
        key = tuple(tags.values())
        try:
            return self._readers[key]
        except (KeyError, TypeError):
            made = self.layout.decided(self.form, iter(key)).reader(*self._as)
            if len(self._readers) >= 256:
                self._readers.clear()
            return self._readers.setdefault(key, made)

    def _each(self, raw):
        for index, tags in enumerate(self._tags.read(raw)):
            one = raw[index * self.stride : (index + 1) * self.stride]
            yield self._reader_for(tags), one

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
        """Yield (path, indices of the elements, column) of the form "samples"."""
        found = {}  # type: dict
        for index, (reader, one) in enumerate(self._each(raw)):
            for path, _, column in reader.series(one):
                indices, numbers = found.setdefault(path, ([], []))
                indices.append(index)
                numbers.append(column[0])
        for path, (indices, numbers) in found.items():
            yield path, indices, numbers


class _Tag:
    """A member that chooses a branch, as a member of a record of such members."""

    __slots__ = ("layout", "at")

    def __init__(self, layout, at):
        self.layout, self.at = layout, at

    def member(self, number):
        return Member(str(number), self.layout, self.at, label=str(number))


class _Form:
    """How one output says what there is: a converter for each kind of leaf, and how parts become a
    whole.

    A converter takes a column and returns as many things; None: the numbers are right as they are;
    _Written: they are, in a form of text; SKIPPED: there is nothing to say of them.  To add a form,
    subclass this or one of its subclasses and name it in _FORMS.
    """

    name = ""
    fuses = True  # arrays of plain numbers are one item of a struct
    lists_arrays = True  # long arrays have a reader of their own
    joins_arrays = ""  # the form of arrays, where each is one leaf
    unrolls_arrays = False  # the elements of arrays are read with what is around them
    is_for_people = False  # what is true only now may stand in it

    def order_of(self, number):
        """Return the byte order in which a number is read."""
        return number.order

    def members_of(self, record):
        """Return the members of a record that are shown."""
        return [member for member in record.parts if member.label is not None]

    def layout_of(self, member):
        """Return the layout of a member, with what it means."""
        return member.layout

    def meant(self, layout):
        """Return the converter of what a layout means to people; None where its parts are shown."""
        meaning = self.meaning_of(layout)
        if meaning is None:
            return None
        write = self.meant_text(meaning.writer(layout, self.is_for_people))
        return _Each(write) if meaning.kind.is_named else _Cache(write)

    def meaning_of(self, layout):
        """Return the meaning that is shown of a layout, one that was asked for, or None."""
        meaning = layout.meaning
        return meaning if meaning is not None and meaning.is_asked and meaning.is_shown else None

    def meant_text(self, write):
        """Return f(leaf) for a function that gives text, as the form spells text."""
        return write

    def spelling_of(self, layout):
        """Return the template of what a layout means, if all it takes are its bytes, in order."""
        return None

    def nothing(self):
        """Return the piece for a leaf that is left out."""
        return None

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
    """dicts, lists, numbers and text.  A piece is the number of a leaf's column, or a function of
    the row.
    """

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
    """Forms of text.  A piece is a template with a % for each leaf."""

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

    def spelling_of(self, layout):
        meaning = self.meaning_of(layout)
        spelling = meaning and meaning.kind.spelling
        return self.meant_text(lambda leaf: leaf)(spelling) if spelling else None

    def array(self, array, pieces):
        return self._listed(pieces)

    def finish(self, piece):
        return piece.__mod__


def _json_text(text):
    import json

    return json.dumps(text)


def _json_float(number):
    """Return a float as a number of JSON: what JSON lacks is null (NaN) and what every parser
    overflows to infinity.
    """
    if number != number:
        return "null"
    if number in (float("inf"), float("-inf")):
        return "1e999" if number > 0 else "-1e999"
    return repr(number)


def _json_label(text):
    return _json_text(text).replace("%", "%%")


class _JSONForm(_TextForm):
    """JSON without blanks: what plain Python says, as text."""

    name = "json"

    def meant_text(self, write):
        return lambda leaf: _json_text(write(leaf))

    def boolean(self, number):
        return _Cache(lambda number: "true" if number else "false")

    def enum(self, number):
        return _Cache(lambda value: _json_text(number.text_of(value)))

    def pointer(self, number):
        return _Written('"0x%x"')

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


def _string_of_wide(number, convert):
    """Return what makes strings of numbers that may not fit the 53 bits which JavaScript, jq and
    others read exactly; convert where all do.
    """
    return _Each('"%d"'.__mod__) if convert is None and number.bits > 53 else convert


class _JSONStringsForm(_JSONForm):
    """JSON in which numbers of more than 53 bits are strings, whatever their value."""

    name = "json strings"

    def integer(self, number):
        return _string_of_wide(number, _JSONForm.integer(self, number))


class _BpftoolForm(_JSONForm):
    """What bpftool's JSON says of BTF types: enums are signed, bitfields hex, anonymous members
    have no name.
    """

    name = "bpftool"

    def meaning_of(self, layout):
        return None

    def order_of(self, number):
        return number.raw_order

    def members_of(self, record):
        return record.members

    def integer(self, number):
        if number.is_bitfield or not number.is_whole:
            return _Written('"0x%x"')
        if number.encoding == _INT_CHAR:
            return _Cache(lambda value: _json_text(chr(value & 0xFF)))
        return None

    def enum(self, number):
        if number.is_bitfield or not number.is_whole:
            return _Written('"0x%x"')
        # A value is signed to bpftool, and so is what stands in the enum: 32 bits there, 64 of an
        # enum64.
        bits = 64 if number.size == 8 else 32
        names = {_signed(one, bits): name for one, name in number.names.items()}
        size_bits = 8 * number.size

        def named(value):
            value = _signed(value, size_bits)
            return _json_text(names[value]) if value in names else str(value)

        return _Cache(named)

    def boolean(self, number):
        if number.is_bitfield or not number.is_whole:
            return _Written('"0x%x"')
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

        def told(raw):
            text, end, _ = raw.partition(b"\0")
            if end and number.is_plain_char and all(0x1F < byte < 0x7F for byte in text):
                return _json_text(text.decode())
            return listed(raw)

        return _Cache(told)

    def record(self, record, members, pieces):
        pairs = [_json_label(one.name) + ":" + piece for one, piece in zip(members, pieces)]
        if record.kind != "section":
            return "{%s}" % ",".join(pairs)
        return "{%s:[%s]}" % (
            _json_label(record.btf_name),
            ",".join("{%s}" % pair for pair in pairs),
        )


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


def _signed(number, bits):
    """Return the low bits of a number as a signed one."""
    half = 1 << bits - 1
    return (number + half) % (2 * half) - half


class _WordsForm(_TextForm):
    """A line for people: "src=10 port=443", what is inside in braces."""

    name = "words"
    between = " "
    is_for_people = True

    def layout_of(self, member):
        return _with_proved(member)

    def meaning_of(self, layout):
        meaning = layout.meaning or _proved(layout)
        if meaning is None or not meaning.is_shown:
            return None
        return meaning if meaning.is_asked or not _asks_inside(layout) else None

    def meant_text(self, write):
        return lambda leaf: _bare(write(leaf))

    def pointer(self, number):
        return _Each(hex)

    def leaf(self, column, convert):
        return "%s"

    def has_cell(self, layout):
        """Whether a layout is one word, a cell of a table; arrays of a few numbers are."""
        if self.meaning_of(layout) is not None or isinstance(layout, Array) and layout.is_text:
            return True
        element = layout
        while isinstance(element, Array):
            element = element.element
        return layout.values <= 8 and not isinstance(element, Record)

    def is_right(self, layout):
        """Whether it is a number, which stands on the right of a cell."""
        return type(layout) in (Number, Float) and self.meaning_of(layout) is None

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


def _hex(raw):
    return _hex_text(raw, " ")


def _hex_text(raw, between):
    """Return bytes in hex with a character between them."""
    if sys.version_info < (3, 8):
        return between.join(map(_HEX_BYTES.__getitem__, raw))
    return raw.hex(between) if between else raw.hex()


def _hex_column(size, between, stride=None):
    """Return f(raw) that gives a list: the bytes of each element in hex."""
    stride = stride or size
    width = 2 + len(between)
    step, length = width * stride, width * size - len(between)

    def column(raw):
        text = _hex_text(raw, between)
        return [text[at : at + length] for at in range(0, width * len(raw), step)]

    return column


class _HexWords:
    """Converts a column of bytes into hex for people."""

    __slots__ = ("column", "size")

    def __init__(self, size):
        self.size, self.column = size, _hex_column(size, " ")

    def __call__(self, column):
        return self.column(b"".join(column)) if self.size else [""] * len(column)


_HEX_BYTES = ["%02x" % byte for byte in range(256)]
_DECIMAL_BYTES = ["%d" % byte for byte in range(256)]


_NEED_QUOTES = frozenset(" ='\"{}[],")


def _bare(text):
    """Return text as a word, quoted where it would not be one."""
    if text and text.isprintable() and _NEED_QUOTES.isdisjoint(text):
        return text
    return repr(text) if text.isprintable() else ascii(text)


class _SamplesForm(_Form):
    """Numbers with their paths: a piece is a list of paths, and reading gives pairs of path and
    number.

    A path is a tuple of labels and indices.  Enumerators are their numbers; text and addresses are
    no samples.
    """

    name = "samples"
    lists_arrays = False
    unrolls_arrays = True

    def meant(self, layout):
        meaning = self.meaning_of(layout)
        return SKIPPED if meaning and not meaning.kind.is_quantity else None

    def nothing(self):
        return []

    def leaf(self, column, convert):
        return [()]

    def leaves(self, column, count):
        return [(index,) for index in range(count)]

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

    def array(self, array, pieces):
        return [(index,) + path for index, paths in enumerate(pieces) for path in paths]

    def record(self, record, members, pieces):
        found = []
        for member, paths in zip(members, pieces):
            found += [(member.label,) + path for path in paths]
        return found

    def finish(self, paths):
        return partial(zip, paths)


class _NamesForm(_SamplesForm):
    """The numbers that a machine has names for: pairs of path and [(word, number)]."""

    name = "names"

    def meaning_of(self, layout):
        return layout.meaning

    def meant(self, layout):
        meaning = self.meaning_of(layout)
        kind = meaning and meaning.kind
        if isinstance(kind, _Stack):
            names = meaning.names
            return _Each(lambda raw: [("ksym", one) for one in kind.addresses(raw, layout, names)])
        if not isinstance(kind, _Named):
            return None
        mask = (1 << layout.bits) - 1
        return _Each(lambda number: [(kind.word, number & mask)])

    def integer(self, number):
        return SKIPPED

    enum = boolean = pointer = real = integer


class _CountsForm(_SamplesForm):
    """The samples that can be added up: enumerators, bools, times and addresses are not."""

    name = "counts"

    def layout_of(self, member):
        return _with_proved(member)

    def meant(self, layout):
        meaning = layout.meaning or _proved(layout)
        return SKIPPED if meaning and not meaning.kind.adds_up else None

    def enum(self, number):
        return SKIPPED

    boolean = enum


class _LeavesForm(_SamplesForm):
    """What plain Python says, each leaf by itself, with its path."""

    name = "leaves"

    def meant(self, layout):
        return _Form.meant(self, layout)

    def enum(self, number):
        return _Form.enum(self, number)

    def boolean(self, number):
        return _Form.boolean(self, number)

    def pointer(self, number):
        return _Form.pointer(self, number)

    def char(self, number):
        return _Form.char(self, number)

    text = char

    def raw_bytes(self, layout):
        return _Each(bytes)


class _CellsForm(_WordsForm):
    """The same with a leaf for each word, of tables."""

    name = "cells"
    joins_arrays = "words"

    def spelling_of(self, layout):
        return None


class _JoinedForm(_WordsForm):
    """Arrays in labels: words, but text goes on after its first NUL and bools are numbers."""

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


class _LabelsForm(_SamplesForm):
    """Every leaf, text or number, with its path: nothing that differs looks the same."""

    name = "labels"
    joins_arrays = "joined"
    unrolls_arrays = False

    def meant(self, layout):
        return _Form.meant(self, layout)

    def enum(self, number):
        return _Cache(number.text_of)

    def boolean(self, number):
        return _Cache(str)

    def pointer(self, number):
        return _Each(hex)

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
    bytes.
    """
    lines = ["%6s %5s  %s" % ("offset", "size", _printable(layout.name))]
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
    if bits <= 0:
        return 0
    lines.append(_row(offset, bits, indent + "(hole)"))
    return bits


def _row(offset, bits, text):
    return "%6s %5s  %s" % (_bytes_text(offset), _bytes_text(bits), text)


def _member_text(member):
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


# -- a layout as a ctypes class, and as the source of one


class _BitField:
    """Descriptor of an integer that lies in bits, or bytes, where ctypes has no field."""

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
        """Return Python that reads it from self."""
        bits = self.bits
        words = (bits.first, bits.last, bits.order, bits.shift, bits.mask)
        number = "int.from_bytes(bytes(self)[%d:%d], %r) >> %d & %#x" % words
        return "((%s) ^ %#x) - %#x" % (number, bits.sign, bits.sign) if bits.sign else number


class _Inner:
    """Descriptor of an attribute of an anonymous record, whose name is another one in the record
    around it.
    """

    def __init__(self, record, name):
        self.record, self.name = record, name

    def __get__(self, obj, owner=None):
        return self if obj is None else getattr(getattr(obj, self.record), self.name)

    def __set__(self, obj, given):
        setattr(getattr(obj, self.record), self.name, given)

    def source(self):
        """Return Python that reads it from self."""
        return "getattr(self.%s, %a)" % (self.record, self.name)


class _ClassPlan:
    """What the class of a record has: it is packed and every hole a field, so that no ABI has a
    say.

    fields      (name, Layout) in the order of the bytes
    properties  {name: descriptor} of attributes that are no fields
    renames     whether there are other names for attributes of anonymous records
    anonymous   names of fields whose members are attributes of the record too
    holes       names of fields that are none
    attributes  {name: Layout} of what a user may set, in the order of declaration
    """

    def __init__(self, record):
        self.base = _MadeUnion if record.is_union else _MadeStructure
        self.fields, self.properties, self.anonymous, self.holes = [], {}, [], []
        self.renames = False
        self.attributes = {}  # type: dict
        self._reserved = set(dir(self.base)) | _RESERVED_NAMES
        self._names = _Names(self._reserved)
        self._end = 0
        names = [self._names_of(member) for member in record.members]
        order = sorted(range(len(names)), key=lambda at: _place_of(record.members[at]))
        for at in order:
            self._add(record, at, record.members[at], names[at])
        if self._end < record.size:
            self._add_hole(record, record.size)
        for parts in names:
            self.attributes.update((name, part.layout) for name, part in parts)

    def _names_of(self, member):
        """Return [(attribute, part)] of a member, of an anonymous record those of its parts."""
        parts = [member]
        if member.is_merged:
            parts = member.layout.parts
        elif not member.name:
            return []
        return [(self._free(part.label or part.name or "_"), part) for part in parts]

    def _free(self, name):
        """Return a name that neither Python nor ctypes looks for, and that is not taken yet."""
        is_looked_for = name in self._reserved or name[:2] == name[-2:] == "__"
        return self._names.free(name + "_" * is_looked_for)

    def _add(self, record, at, member, names):
        first = member.offset // 8
        if member.is_merged:
            name = self._add_merged(self._free("_anon%d" % at), member, names)
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
        """Make what is in an anonymous record attributes; return the name of its field."""
        inner = member.layout.plan
        inner_names = list(inner.attributes)
        is_renamed = inner.renames or inner_names != [name for name, _ in names]
        if not is_renamed:
            self.anonymous.append(field)
        for (name, part), inner_name in zip(names, inner_names):
            is_bits = self._add_bits(name, part.layout, part.offset + member.offset)
            if is_renamed and not is_bits:
                self.properties[name], self.renames = _Inner(field, inner_name), True
        return field

    def _add_bits(self, name, layout, offset):
        """Whether it is a member that ctypes has no field for."""
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
    return member.offset, member.layout.size > 0


_RESERVED_NAMES = frozenset(
    "_pack_ _layout_ _made_of_ _attributes_ _anonymous_ _fields_ _swappedbytes_ _align_ _json_"
    " _union_ _btf_ _show_".split()
)


class _MadeOfLayout:
    """What the classes made from a Layout have in common."""

    _attributes_ = {}  # type: dict

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "_made_of_" not in cls.__dict__:
            cls._attributes_ = None  # its own fields are there, and final, with the first object

    def __init__(self, *given, **named):
        if self._attributes_ is None:
            _take_in_attributes(type(self))
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
            _take_in_attributes(type(self))
        if name not in self._attributes_ and not hasattr(type(self), name):
            words = (type(self).__name__, name, ", ".join(self._attributes_))
            raise NoSuchField("%s has no field '%s'; there are %s" % words)
        layout = self._attributes_.get(name)
        if layout is not None and not isinstance(given, _CDATA):
            given = self._checked(layout, given, name)
        super().__setattr__(name, given)

    def _checked(self, layout, given, name):
        """Return what ctypes may set for what is given: it would cut what is too large without a
        word.
        """
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
                raw = raw.ljust(layout.size, b"\0")  # as ctypes has it
            if len(raw) != layout.size:
                raise LayoutError("%s has %d bytes, not %d" % (what, layout.size, len(raw)))
        else:
            given = list(given) if isinstance(given, tuple) else given
            raw = layout.pack(given, what=what)
        return raw if is_text else _copier(layout.ctype())(raw)

    def __eq__(self, other):
        return _raw(self) == _raw(other) if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash(_raw(self))  # of what it holds now: a key that is changed is another key

    def __repr__(self):
        pairs = to_python(self)
        shown = ", ".join("%s=%r" % pair for pair in pairs.items())
        return _printable("%s(%s)" % (type(self).__name__, shown))

    def __reduce__(self):
        if "_made_of_" not in type(self).__dict__:
            return super().__reduce__()
        return _revived, (self._made_of_, _raw(self))


def _take_in_attributes(cls):
    """Set what may be assigned to objects of a subclass: its own fields, and those of the class
    made of a Layout.
    """
    found = {}  # type: dict
    for base in reversed(cls.__mro__):
        found.update(base.__dict__.get("_attributes_") or {})
        if "_made_of_" not in base.__dict__ and "_fields_" in base.__dict__:
            own = _own_members(base, base.__name__, 0)
            found.update((member.name, member.layout) for member in own)
    type(ctypes.Structure).__setattr__(cls, "_attributes_", found)


def _assigned(layout, given, what):
    """Return the number for what is assigned: text only where it is a char or the name of an
    enumerator.
    """
    if isinstance(given, str) and not isinstance(layout, Char):
        if not isinstance(layout, Enum) or given not in layout.names.values():
            raise LayoutError("%s must be %s, not %r" % (what, layout._wanted(), given))
    return layout.number(given, what)


class NoSuchField(LayoutError, AttributeError):
    """A name that is no field of a class made from BTF or C text."""


class _MadeStructure(_MadeOfLayout, ctypes.Structure):
    pass


class _MadeUnion(_MadeOfLayout, ctypes.Union):
    pass


def _revived(layout, raw):
    """Return the object that was pickled."""
    return _copier(layout.ctype())(raw)


# Layout -> the class made of it, as long as anybody holds that.  What two threads make at once is
# in _being_made until one has won.
_classes = None
_being_made = {}  # type: dict


def _class_of(layout):
    """Return the ctypes type of a layout."""
    if isinstance(layout, Number):
        return layout.scalar() if layout.has_scalar else u8 * layout.size
    if not isinstance(layout, (Array, Record)):
        return layout.ctype()
    if isinstance(layout, Array):
        element = layout.element.ctype()
        if _is_scalar(element) or not isinstance(layout.element, (Array, Record)):
            return element * layout.count
    if isinstance(layout, Record):
        layout = layout.renamed(
            layout.own_name
        )  # typedefs and qualifiers make no class of their own
    return _known_class(layout) or _keep_class(layout, _new_class(layout))


def _known_class(layout):
    global _classes
    if _classes is None:
        import weakref

        _classes = weakref.WeakValueDictionary()
    return _classes.get(layout)


def _keep_class(layout, made):
    """Return the class for a layout: made, or that of a thread that was faster (setdefault is many
    steps there).
    """
    made = _being_made.setdefault(layout, made)
    _classes[layout] = made = _classes.get(layout) or made
    _being_made.pop(layout, None)
    return made


def _new_class(layout):
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


def python_source(ctype: "Type[_Object]", name: str = "") -> str:
    """Return Python that makes a ctypes type anew, with neither BTF nor this module, and calls it
    name.
    """
    return layout(ctype).python_source(name)


def _source_of_layout(layout, name):
    lines = ["import ctypes"]
    expression = _source_of(layout, {}, lines)
    wanted = _identifier(name or (expression if isinstance(layout, Record) else "value"))
    if wanted != expression:  # of a typedef, a scalar, an array
        lines += ["", "%s = %s" % (wanted, expression)]
    return "\n".join(lines) + "\n"


def _source_of(layout, names, lines):
    """Return the expression for a layout; append to lines the classes that it needs, named in
    names.
    """
    if isinstance(layout, Array):
        return "(%s * %d)" % (_source_of(layout.element, names, lines), layout.count)
    if not isinstance(layout, Record):
        return _scalar_source(layout.ctype())
    if id(layout) not in names:
        name = _class_name(layout, names)
        names[id(layout)] = name  # before those inside: the outermost keeps its name
        names.setdefault("taken", set()).add(name)
        plan = layout.plan
        fields = [(field, _source_of(inner, names, lines)) for field, inner in plan.fields]
        base = "Union" if layout.is_union else "Structure"
        lines += ["", "", "class %s(ctypes.%s):" % (name, base), "    _pack_ = 1"]
        lines.append("    _layout_ = 'ms'")
        if plan.anonymous:
            lines.append("    _anonymous_ = %a" % plan.anonymous)
        lines += (
            ["    _fields_ = ["] + ["        (%a, %s)," % field for field in fields] + ["    ]"]
        )
        if plan.holes:
            lines.append("    _btf_ = _json_ = %a" % dict.fromkeys(plan.holes))
        shown = _shown_words(layout, plan)
        if shown:
            lines.append("    _show_ = %a" % shown)
        lines += ["", ""] if plan.properties else []
        for field, one in sorted(plan.properties.items()):
            lines.append("setattr(%s, %a, property(lambda self: %s))" % (name, field, one.source()))
    return names[id(layout)]


def _shown_words(layout, plan):
    """Return {name of a ctypes field: what it means}."""
    fields = {name for name, _ in plan.fields}
    shown = {}
    for member in layout.members:
        meaning = _meaning_inside(member.layout)
        has_names = meaning is not None and isinstance(meaning.kind, _Flags)  # unlike ctypes' ints
        if meaning is not None and member.name in fields and not has_names:
            shown[member.name] = meaning.word
    return shown


def _meaning_inside(found):
    """Return the meaning of a layout, of an array without one that of its elements; or None."""
    while found.meaning is None and isinstance(found, Array):
        found = found.element
    return found.meaning


def _class_name(layout, names):
    """Return a name for a record's class that none of the others has."""
    name = _identifier(layout.name.split(" ")[-1] if layout.name[-1:] != ")" else "anonymous")
    if name[:2] == "__":  # class bodies mangle the others
        name = name.lstrip("_") or "anonymous"
    taken, base = names.get("taken", ()), name
    counts = names.setdefault("counts", {})
    while name in taken:
        counts[base] = counts.get(base, 0) + 1
        name = "%s_%d" % (base, counts[base])
    return name


def _scalar_source(ctype):
    if _is_array(ctype):
        return "(%s * %d)" % (_scalar_source(ctype._type_), ctype._length_)
    names = {"?": "bool", "c": "char", "f": "float", "d": "double"}
    name = names.get(ctype._type_)
    if name is None:
        name = "%sint%d" % ("" if ctype._type_ in _SIGNED_CODES else "u", 8 * sizeof(ctype))
    suffix = ".__ctype_%se__" % _FOREIGN_ORDER[0] if _is_swapped(ctype) else ""
    return "ctypes.c_%s%s" % (name, suffix)


def _identifier(text):
    """Return a name that Python takes: what compilers write is one but for keywords and the dot of
    ".bss".
    """
    import keyword

    letters = (char if char.isalnum() and char < "\x80" else "_" for char in text.lstrip("."))
    name = "".join(letters) or "anonymous"
    if name[0].isdigit():
        return "_" + name
    taken = (
        "ctypes",
        "setattr",
        "getattr",
        "property",
        "int",
        "bytes",
    )  # the source itself needs those
    return name + "_" if keyword.iskeyword(name) or name in taken else name


# -- the proof of a caller's class: two layouts compared


def _differences(mine, theirs, strict, path):
    """Yield (path, what is wrong with it); only strict looks at more than where things are and how
    large.
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
    """Whether it is chars or bytes, which match anything of their size."""
    if isinstance(layout, Array):
        return layout.element.size == 1
    return isinstance(layout, (Char, Bytes))


def _same_family(mine, theirs):
    """Whether strict takes one number for the other: floats, signed and unsigned integers are
    apart.
    """
    if not isinstance(mine, Number) or not isinstance(theirs, Number):
        return False
    if isinstance(mine, Float) or isinstance(theirs, Float):
        return isinstance(mine, Float) and isinstance(theirs, Float)
    return isinstance(theirs, Enum) or mine.signed == theirs.signed


def _record_differences(mine, theirs, strict, path):
    parts = {part.name: part for part in theirs.parts}
    rest = dict(parts)
    for member, offset in _bound(mine, 0):
        where, bound = path + member.name, member.bound
        if bound in parts:
            rest.pop(bound, None)
            for difference in _member_differences(member, offset, parts[bound], strict, where):
                yield difference
            continue
        end = offset + member.width
        over = [
            name
            for name, part in parts.items()
            if part.offset < end and offset < part.offset + part.width
        ]
        if bound is None:  # bound to nothing: what lies there needs no field of its own
            rest = {name: part for name, part in rest.items() if name not in over}
        elif bound != member.name or strict and over:
            yield where, "has no member '%s' in BTF" % bound
    for name, part in rest.items() if strict else ():
        if part.width:
            yield path + name, "is in BTF alone"


def _member_differences(member, offset, other, strict, where):
    if (offset, member.width) != (other.offset, other.width):
        here, there = (
            "byte %s, %s bytes" % (_bytes_text(at), _bytes_text(width))
            for at, width in ((offset, member.width), (other.offset, other.width))
        )
        yield where, "is at %s here, at %s in BTF" % (here, there)
        return
    for difference in _differences(member.layout, other.layout, strict, where):
        yield difference


def _bound(record, start):
    """Yield (member, bit offset) of what binds to BTF; the members of anonymous records in their
    place.
    """
    for member in record.members:
        if member.is_anonymous or member.is_merged:
            for inner in _bound(member.layout, start + member.offset):
                yield inner
        else:
            yield member, start + member.offset


# -- front end: ctypes classes


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
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            words = (what, getattr(ctype, "__name__", ctype), error)
            raise LayoutError("%s: %s is not what ctypes made: %s" % words) from None
        _class_layouts[ctype] = known
    return known


def _layout_of_class(ctype, what, depth):
    if depth > MAX_DEPTH:
        raise LayoutError("%s: more than %d levels of types inside types" % (what, MAX_DEPTH))
    if _is_array(ctype):
        made = _array_layout(ctype, what, depth)
    elif _is_scalar(ctype):
        return _scalar_layout(ctype, what)
    elif not _is_record(ctype) or ctype in (ctypes.Structure, ctypes.Union):
        wanted = "a ctypes scalar, Structure, Union or array, or bytes"
        raise LayoutError("%s must be %s, not %r" % (what, wanted, ctype))
    else:
        made = _record_layout(ctype, what, depth)
    if made.values > 16 * sizeof(ctype) + 4096:
        words = (what, made.values, sizeof(ctype))
        raise LayoutError("%s: %d values in %d bytes are too many" % words)
    return made


def _array_layout(ctype, what, depth):
    element = _layout_of_class(ctype._type_, what + "[]", depth + 1)
    made = Array(element, ctype._length_)
    if made.size != sizeof(ctype):
        raise LayoutError("%s: %s is no longer the array that ctypes made" % (what, ctype.__name__))
    return made


def _scalar_layout(ctype, what):
    codes = _INT_CODES + _FLOAT_CODES + "?c"
    # by what _type_ says now, and what it said when ctypes made the class
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


class _Field:
    """A field of a Structure or Union: .name .type .bits (None: no bitfield) .descriptor .offset"""

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
    return [_Field(ctype, spec) for spec in ctype.__dict__.get("_fields_", ())]


def _origin(cls):
    """Return the Layout that a class was made of, None if it was not."""
    made_of = cls.__dict__.get("_made_of_")
    is_true = isinstance(made_of, Record) and _known_class(made_of) is cls
    return made_of if is_true else None


def _record_layout(ctype, what, depth):
    # From the first object on its _fields_ are final; this one takes no memory, and none is looked
    # at.
    type(_base(ctype)).from_address.__get__(ctype, type(ctype))(addressof(_ZERO))
    made_of = _origin(ctype)
    if made_of is not None:
        return made_of
    members = []  # type: list
    for cls in reversed(ctype.__mro__):
        made_of = _origin(cls)
        if made_of is not None:
            members += [member.changed() for member in made_of.members]  # tags are set on them
        else:
            members += _own_members(cls, what, depth)
    names = [member.name for member in members if member.name]
    if len(set(names)) < len(names):
        raise LayoutError("%s: %s has two fields of one name" % (what, type_name(ctype)))
    _take_in_tags(ctype, members)
    kind = "union" if issubclass(ctype, ctypes.Union) else "struct"
    return Record(kind, type_name(ctype), sizeof(ctype), members)


def _own_members(cls, what, depth):
    """Return the Members of the fields that a class itself has, its bitfields where C has them."""
    fields = _own_fields(cls)
    places = [8 * field.offset for field in fields]
    if any(field.bits for field in fields):
        for field in fields:  # refused before they are set
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


def _take_in_tags(ctype, members):
    """Set on members, which are new, what _json_, _show_, _btf_, _union_ and _anonymous_ say."""
    named = {member.name: member for member in members}
    for name, label in _tag(ctype, "_json_", named).items():
        if label is not None and not isinstance(label, str):
            words = (ctype.__name__, label, name)
            raise LayoutError("%s._json_: %r is no name for '%s'" % words)
        named[name].label = label
    labels = set()  # type: set
    for label in (member.label for member in members if member.label is not None):
        if label in labels:
            raise LayoutError("%s: _json_ gives two fields the name %r" % (ctype.__name__, label))
        labels.add(label)
    for name, word in _tag(ctype, "_show_", named).items():
        try:
            named[name].layout = named[name].layout.showing("", word)
        except LayoutError as failure:
            raise LayoutError("%s._show_: %s: %s" % (ctype.__name__, name, failure)) from None
    bound = _tag(ctype, "_btf_", named)
    for name, other in bound.items():
        named[name].bound = other
    for name in getattr(ctype, "_anonymous_", ()):
        if name in named and name not in bound:
            named[name].is_anonymous = isinstance(named[name].layout, Record)
    for name, spec in _tag(ctype, "_union_", named).items():
        named[name].choice = _checked_choice(ctype, named, named[name], spec)


def _checked_choice(ctype, named, member, spec):
    """Return (name of the member that tells, {value: branch}) of a _union_ entry."""
    try:
        tag_name, branches = spec
        branches = dict(branches)
        named[tag_name]
    except (TypeError, ValueError, KeyError):
        words = (ctype.__name__, spec)
        raise LayoutError("%s._union_: %r is not (field, {value: branch})" % words) from None
    known = [inner.name for inner in member.layout.members]
    for branch in branches.values():
        if branch not in known:
            raise LayoutError("%s.%s has no branch %r" % (ctype.__name__, member.name, branch))
    return tag_name, branches


def _tag(ctype, tag, named):
    """Return a class's tag dict, those of its base classes in it; a name that is no field is an
    error.
    """
    entries = {}  # type: dict
    for cls in reversed(ctype.__mro__):
        if "_made_of_" not in cls.__dict__:
            entries.update(cls.__dict__.get(tag) or {})
    for name in entries:
        if name not in named:
            raise LayoutError("%s.%s names %r, which is no field" % (ctype.__name__, tag, name))
    return entries


def check_layout(ctype: "Type[Union[_Object, bytes]]", size: int, what: str = "value") -> None:
    """Raise LayoutError unless ctype is plain data of exactly size bytes, laid out as in C.

    Pointers, py_object and wide characters are refused at any depth: they mean nothing in a map.

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


def _c_offsets(ctype, pack):
    """Return ([bit offset of each own field], bytes) as C lays a class out; pack is n of #pragma
    pack(n), or 0.
    """
    base = ctype.__mro__[1]
    inherits = any("_fields_" in cls.__dict__ for cls in base.__mro__)
    position = 8 * sizeof(base) if inherits else 0
    align = ctypes.alignment(base) if inherits else 1
    fields = [
        (sizeof(one.type), ctypes.alignment(one.type), one.bits) for one in _own_fields(ctype)
    ]
    return _placed(fields, issubclass(ctype, ctypes.Union), pack, position, align)


def _placed(fields, is_union, pack=0, position=0, align=1):
    """Return ([bit offset], bytes) of (size, alignment, bits or None) in the order of declaration.

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


def _check_bitfields(ctype, what):
    """Raise LayoutError if this Python (before 3.14) keeps a field in other bits than C: each is
    set to ones.
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
        if (
            0 <= field.offset <= sizeof(ctype) - sizeof(field.type)
        ):  # else it would be set elsewhere
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


# -- front end: C text


def _c_numbers():
    """Return {name: Layout} of the integers and floats that go by one word."""
    real = {"f32": 4, "float": 4, "f64": 8, "double": 8}
    found = {name: Float(size, signed=True) for name, size in real.items()}
    found.update(char=Char(), bool=Boolean(), _Bool=Boolean(), size_t=Number(8), uchar=Number(1))
    spellings = (
        ("u", ("u%d", "__u%d", "uint%d_t", "u_int%d_t")),
        ("s", ("s%d", "__s%d", "int%d_t", "i%d")),
    )
    orders = ((order, prefix + order[0] + "e%d") for order in _ORDER_MARKS for prefix in ("", "__"))
    for order, spelling in orders:
        for size in (2, 4, 8, 16):
            # also where all numbers are big-endian: the name says that it may be an address
            name = "be%d" % (8 * size) if order == "big" else ""
            found[spelling % (8 * size)] = Number(size, name, order=order)
    for letter, names in spellings:
        for size in (1, 2, 4, 8, 16):
            number = Number(size, signed=letter == "s")
            found.update((spelling % (8 * size), number) for spelling in names)
    found.update(be8=Number(1), le8=Number(1))
    return found


_C_NUMBERS = _c_numbers()
# The words that C spells an integer with, in any order -> bytes; long is BPF's.
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

    named is f(kind or None, name) -> Layout, or None, of what is declared elsewhere
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
    """Reads C declarations: types in words, struct, union and enum bodies, arrays, bitfields,
    packed.
    """

    def __init__(self, text, named):
        import re

        self.text, self.named = text, named
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
        self.words = re.findall(r"[A-Za-z_]\w*|0[xX][0-9a-fA-F]+|\d+|\S", text, re.ASCII) + [""]
        self.at = self.depth = 0

    def error(self, why=""):
        known = "u8 .. u128, s8 .., be16 .., char, bool, float, double, C's own, struct { ... }"
        usage = 'each with [N], or several with names: "u32 src, u16 port"'
        return LayoutError(
            "'%s' is no type%s: %s, %s" % (self.text, why and " (%s)" % why, known, usage)
        )

    def peek(self):
        return self.words[self.at]

    def take(self, *wanted):
        """Return the next word, if it is one of those wanted; "" if it is not."""
        word = self.words[self.at]
        if wanted and word not in wanted:
            return ""
        self.at += 1
        return word

    def need(self, wanted):
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
        """Whether what follows a comma is a further name of the same type: "u32 a, b", not "u32 a,
        u16 b".
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
            return self.spelled()
        number = _C_NUMBERS.get(self.take())
        if number is not None:
            return number, min(number.size, 16)
        return self.declared_elsewhere(None, word)

    def declared_elsewhere(self, kind, name):
        """Return (Layout, alignment) of a type that only has its name here."""
        made = self.named(kind, name) if name.isidentifier() else None
        if made is not None:
            return made, _alignment(made, {})
        if kind:
            words = (kind, name)
            raise LayoutError("'%s %s' is declared neither here nor in BTF at hand" % words)
        raise self.error("'%s'" % name if name else "")

    def spelled(self):
        """Read an integer that is spelled in C's words."""
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
        """Skip __attribute__((...)); return the words in them."""
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
        attributes = self.attributes()
        name = ""
        if self.peek() != "{":
            name = self.take()
            attributes += self.attributes()
        if self.peek() == "*":  # a pointer to what need not be known
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
        align = _aligned(attributes, align)
        return made._changed(size=-(-made.size // align) * align), align

    def record(self, kind, name, members, pack):
        """Return (Layout, alignment) of the members that were read."""
        fields = [(one.size, align, bits) for _, one, align, bits in members]
        offsets, size = _placed(fields, kind == "union", pack)
        if size > _MAX_BYTES:
            raise LayoutError("'%s' is too large" % self.text)
        made = []
        for (label, one, _, bits), offset in zip(members, offsets):
            if bits is not None:
                if not label:
                    continue  # padding
                one = one._changed(raw_order=sys.byteorder).bitfield(bits)  # as a C compiler has it
            made.append(Member(label, one, offset, bits or 0, label or None))
        record = Record(kind, "%s %s" % (kind, name or "(anonymous)"), size, made)
        labels = [part.name for part in record.parts]
        if len(set(labels)) < len(labels):
            raise LayoutError("'%s' is no type: two members of one name" % self.text)
        align = 1 if pack else max([align for _, _, align, _ in members] or [1])
        return record, align

    def enum_body(self):
        self.take()
        name = "" if self.peek() == "{" else self.take()
        if name and self.peek() != "{":
            return self.declared_elsewhere("enum", name)
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
        low, high = min(names or [0]), max(names or [0])
        for size in (4, 8):
            least, most = _range_of(8 * size, low < 0)
            if least <= low and high <= most:
                name = "enum " + (name or "(anonymous)")
                return Enum(size, name, names, signed=low < 0), size
        raise self.error("an enum of numbers that no integer holds")

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
        bits = None
        if self.take(":"):
            bits = _parsed_int(self.take())
            whole = isinstance(made, Number) and not isinstance(made, Float)
            if not whole or bits > made.bits or not bits and name:
                raise self.error("%d bits of %s" % (bits, made.name))
        attributes = self.attributes()
        made = _shown_by_tags(made, re.findall(r'decl_tag\("([^"]*)"\)', "".join(attributes)))
        return name, made, _aligned(attributes, align), bits

    def lengths(self):
        found = []
        while self.take("["):
            found.append(_parsed_int(self.take()) if self.peek() != "]" else 0)
            self.need("]")
        return found


def _aligned(attributes, align):
    """Return the alignment of what has one by its type, and attributes."""
    for at, word in enumerate(attributes):
        if word in ("aligned", "__aligned__"):
            asked = _parsed_int(attributes[at + 2])
            if asked < 1 or asked & asked - 1 or asked > _MAX_BYTES:
                raise ValueError
            align = max(align, asked)
    return align


def _alignment(found, known):
    """Return what a C compiler aligns a layout to, as far as its offsets tell; known: by id."""
    if isinstance(found, Array):
        return _alignment(found.element, known)
    if not isinstance(found, Record):
        return found.size if isinstance(found, Number) and found.size else 1
    if id(found) not in known:
        own = [_alignment(member.layout, known) for member in found.members]
        places = [0 if member.bits else member.offset for member in found.members]
        align = max(own or [1])
        while found.size % align or any(at % (8 * min(align, n)) for at, n in zip(places, own)):
            align //= 2
        known[id(found)] = align
    return known[id(found)]


# -- plain Python and JSON


def to_python(obj: "Any") -> "Any":
    """Return a key or value as plain dict, list, int, float, bool and str.

    Structures become dicts.  char arrays become str up to their first NUL, bytes that are no text
    in it \\xNN; enumerators their names, or the number as text; pointers hex.

    _json_     of a class renames fields or, with None, leaves them out
    _union_    of a class tells which branch of a union field holds: {"u": ("kind", {4: "ip4", 6:
               "ip6"})} reads field kind
    raises     LayoutError: pointers of ctypes, an unknown tag, past 32 levels
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
# Types as compilers describe them and the kernel keeps them (linux/btf.h).  A blob may be hostile:
# nothing is built or decoded from a type before _prove has found it finite and each member inside
# of what holds it.

_MODIFIERS = frozenset(
    (BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG)
)
_RECORDS = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_DATASEC))
_ENUMS = frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64))
_SIZED = _RECORDS | _ENUMS | {BTF_KIND_INT, BTF_KIND_FLOAT}
# What a bare name means first; of the other kinds, the first.
_NAME_ORDER = (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_TYPEDEF)
_NAME_RANKS = {kind: rank for rank, kind in enumerate(_NAME_ORDER)}
# kind -> what the words of its record are: the third, those that follow always, for each of vlen.
# n is a name, t a type id, - a number, ? not told yet.  The first two are n and the info word.
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
_TAIL_WORDS = {kind: (len(words[1]), len(words[2])) for kind, words in _RECORD_WORDS.items()}
_MAX_NAME = 4096  # eight times what the kernel takes
_LONG_NAME = 127  # bytes, what it took before 6.1: those above are counted
_MAX_KEPT_BTF = 16
_VAR_STATIC = 0  # its linkage
_SCANNED_QUESTIONS = 2  # for names, before an index of all is made
# elf.h: ET_REL, SHN_XINDEX, SHT_SYMTAB, SHT_NOBITS, SHF_COMPRESSED, STB_LOCAL
_ELF_RELOCATABLE, _ELF_EXTENDED = 1, 0xFFFF
_ELF_SYMBOLS, _ELF_NOBITS, _ELF_COMPRESSED, _ELF_LOCAL = 2, 8, 0x800, 0
_BTF_ORDERS = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}


class BTFType:
    """A type as BTF records it.

    id, name   "" where it has none
    kind       BTF_KIND_*, 0 for void
    size       bytes, or None
    type_id    what it points to, stands for, or has as elements
    count      of members, enumerators, parameters, elements
    flag       the record's kind_flag
    """

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
        if not self.kind:
            return "void"
        kind = _KIND_NAMES.get(self.kind, "kind %d" % self.kind)
        return "%s %s" % (kind, _printable(self.name) or "(anonymous)")

    def _error(self, text):
        where = "type %d (%s)%s" % (
            self.id,
            self._label,
            " at byte %d" % self._byte if self.id else "",
        )
        return BTFError("%s: %s" % (where, text))


class _RecordWords(dict):
    """The info word of a record -> how many words the record takes.

    Worked out once for each info word there is.
    """

    def __init__(self, tails):
        self.tails = tails

    def __missing__(self, info):
        # kind and vlen have 7 and 24 bits; 5 and 16 before 2026, those above them zero
        always, for_each = self.tails[info >> 24 & 0x7F]
        self[info] = 3 + always + for_each * (info & 0xFFFFFF)
        return self[info]


class _BTFBlob:
    """What BTF asks for its types: the strings and records of a blob, ids and names.

    Nothing of a type is proved here, but that its record lies inside of the blob.
    """

    data: bytes
    base: "Optional[BTF]"
    order: str

    def __init__(self, data, base=None):
        import array

        self.data, self.base = data, base
        self.order = _BTF_ORDERS.get(data[:2], "")
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
        self._layout = self._section("layout", header_len + layout_off, layout_len)
        self._tails = dict(_TAIL_WORDS)
        for kind in range(1, len(self._layout) // 4):
            always_bytes, each_bytes = self._layout[4 * kind : 4 * kind + 2]
            self._tails.setdefault(kind, (always_bytes // 4, each_bytes // 4))
        self._offsets, self._cut, self._decl_tags = None, "", None
        self._found, self._enums, self._long_names, self._long_bytes = {}, {}, {}, 0
        self._questions, self._by_name = 0, None
        self._first, self._str_base = 1, 0
        if base is not None:
            self._first, self._str_base = self._places_behind(base)
            self._prove_base()

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
            header = header[:24] + bytes(8)
        return struct.unpack_from("<7I" if self.order == "little" else ">7I", header, 4)

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
        """Return the first id and the first offset of a string of this if it is split from base."""
        if base.order != self.order:
            raise BTFError("BTF of %s and its base of %s byte order" % (self.order, base.order))
        count = base.count
        if base._cut:
            raise BTFError("the ids of split BTF follow those of its base, where %s" % base._cut)
        return base._first + count, base._str_base + len(base._strings)

    def _prove_base(self):
        """Raise BTFError where a name begins inside of one of the base's: it is another kernel's.

        Ids and names would be those of other types; libbpf and pahole share whole names alone.
        """
        for at in self._index():
            layer, offset = self.base, self._words[at]
            if offset < self._str_base:
                while offset < layer._str_base:
                    layer = layer.base
                start = offset - layer._str_base
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
        header_len, types = (32 if self._layout else 24), words.tobytes()
        places = [header_len, 0, len(types), len(types), len(strings)]
        if self._layout:
            places += [len(types) + len(strings), len(self._layout)]
        mark = "<" if self.order == "little" else ">"
        header = struct.pack("%sHBB%dI" % (mark, len(places)), 0xEB9F, 1, 0, *places)
        return type(self)(header + types + strings + self._layout, base)

    # -- records

    @property
    def count(self) -> int:
        """How many types there are, without those of the base."""
        return len(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def __bool__(self) -> bool:
        return True  # of no types as well: it is not None

    def __iter__(self) -> "Iterator[BTFType]":
        """Yield the BTFType of each type, without those of the base."""
        for type_id in range(self._first, self._first + self.count):
            yield self.type(type_id)

    def __repr__(self) -> str:
        split = "" if self.base is None else ", split"
        return "<BTF: %d types in %d bytes%s>" % (self.count, len(self.data), split)

    def _index(self):
        """Return where in _words each type begins: one pass over all of them, on the first
        question.
        """
        if self._offsets is None:
            import array

            words, lengths, offsets, at = (
                self._words,
                _RecordWords(self._tails),
                array.array("I"),
                0,
            )
            total, append = len(words), offsets.append
            try:
                while at < total:
                    append(at)
                    at += lengths[words[at + 1]]
            except (KeyError, IndexError):
                at = total + 1
            if at > total:
                self._cut = self._why_cut(offsets.pop())
            self._offsets = offsets
        return self._offsets

    def _why_cut(self, at):
        """Say why no types follow the last record: it is cut, or of a kind of unknown length."""
        kind = self._words[at + 1] >> 24 & 0x7F if at + 1 < len(self._words) else 0
        why = "cut" if kind in self._tails else "of unknown kind %d" % kind
        return "the record at byte %d is %s" % (self._type_byte + 4 * at, why)

    def type(self, t: "_GivenType") -> "BTFType":
        """Return the BTFType for a type id or name."""
        if not isinstance(t, int):
            t = t.id if isinstance(t, BTFType) else self.find(t)
        if self.base is not None and t < self._first:
            return self.base.type(t)
        if t == 0:
            return _void()
        index = self._index()
        if not 0 <= t - self._first < len(index):
            raise BTFError("there is no type %d%s" % (t, self._cut and ": " + self._cut))
        found, words, at = BTFType(), self._words, index[t - self._first]
        found.id, found._words, found._at = t, words, at
        found._byte = self._type_byte + 4 * at
        name_off, info, number = words[at : at + 3]
        found.kind, found.flag, found.count = info >> 24 & 0x7F, bool(info >> 31), info & 0xFFFFFF
        found.name = self._string(name_off)
        found.size, found.type_id = (number, 0) if found.kind in _SIZED else (None, number)
        if found.kind == BTF_KIND_ARRAY:
            found.type_id, _, found.count = words[at + 3 : at + 6]
        return found

    # -- names

    def _name_bytes(self, offset):
        """Return the bytes of a name, of which those of split BTF may stand in the base."""
        layer = self
        while offset < layer._str_base:
            layer = layer.base
        start = offset - layer._str_base
        end = layer._strings.find(b"\0", start, start + _MAX_NAME)
        if end < 0 and offset:
            raise BTFError(
                "a name at byte %d of the strings, which end at %d" % (start, len(layer._strings))
            )
        return layer._strings[start:end]

    def _string(self, offset):
        """Return a name.

        All long ones together are not much longer than the strings: names that share one text, or
        its end, would take memory that the blob does not.
        """
        name = self._long_names.get(offset)
        if name is None:
            encoded = self._name_bytes(offset)
            name = encoded.decode("utf-8", "backslashreplace")
            if len(encoded) > _LONG_NAME:
                self._long_bytes += len(encoded)
                if self._long_bytes > 2 * (self._str_base + len(self._strings)):
                    raise BTFError(
                        "long names, one within the other, at %d of the strings" % offset
                    )
                self._long_names[offset] = name
        return name

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
        kinds = {number for number, text in _KIND_NAMES.items() if kind in (None, text)}
        if kind == "enum":
            kinds = _ENUMS
        encoded, best, layer = name.encode(errors="backslashreplace"), None, self
        while layer is not None and name:
            for type_id, at in layer._named(encoded):
                number = layer._words[at + 1] >> 24 & 0x7F
                rank = _NAME_RANKS.get(number, len(_NAME_RANKS)), type_id
                if number in kinds and (best is None or rank < best):
                    best = rank
            layer = layer.base
        if best is None:
            cut = self._cut and "; " + self._cut
            raise BTFError("no %s is named '%s'%s" % (kind or "type", name, cut))
        return best[1]

    def _named(self, encoded):
        """Return (id, where in _words) of each type that has a name, of those of the base none.

        The first questions look through the strings and records: one answer takes a tenth of the
        index for all.
        """
        index, first = self._index(), self._first
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
            at = layer._strings.find(wanted)
            while at >= 0:
                offsets.add(layer._str_base + at)
                at = layer._strings.find(wanted, at + 1)
            layer = layer.base
        return offsets

    def _name_index(self):
        """Return {hash of a name: id of the first type} and {hash: [ids of the others]}.

        Not the names themselves: types may share the ends of one long string.
        """
        words, first_ids, other_ids = self._words, {}, {}
        for type_id, at in enumerate(self._index(), self._first):
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
        if self.base is not None and type_id < self._first:
            own += self.base.tags(type_id, component)
        return own

    def _all_tags(self):
        """Return {(type id, component): [tag]}; the few there are, are looked for in the bytes."""
        raw, places = self._words.tobytes(), set()
        for info in (BTF_KIND_DECL_TAG << 24, 1 << 31 | BTF_KIND_DECL_TAG << 24):
            for at in _occurrences(raw, info.to_bytes(4, sys.byteorder)):
                places.add(at // 4 - 1 if at % 4 == 0 else -1)
        found = {}  # type: dict
        for index, at in enumerate(self._index()) if places else ():
            if at in places:
                tag = self.type(self._first + index)
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
    found = BTFType()
    found.id, found.kind, found.name, found.size = 0, 0, "void", None
    found.type_id, found.count, found.flag = 0, 0, False
    return found


class BTF(_BTFBlob):
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
        _BTFBlob.__init__(self, data, base)
        self._layouts = {}  # type: Dict[int, Layout]
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
                inner = self._resolve(type_id)
                if inner.kind == BTF_KIND_INT:  # before kind_flag the int itself told of bits
                    encoding = inner._words[inner._at + 3]
                    if (
                        encoding & 0xFF != 8 * inner.size & 0xFF
                        or encoding >> 16 & 0xFF
                        or offset % 8
                    ):
                        offset, bits = offset + (encoding >> 16 & 0xFF), encoding & 0xFF
            yield self._string(name_off), type_id, offset, bits

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
        steps, position, bits, type_id = [], 0, 0, self.type(t).id
        self.layout(type_id)
        for word in self._words_of_path(type_id, path):
            inner = self._resolve(type_id)
            if inner.kind == BTF_KIND_PTR and bits == 0:
                steps.append(Offset(position, 0))
                position, inner = 0, self._resolve(inner.type_id)
                self.layout(inner)
            if inner.kind == BTF_KIND_ARRAY and word[:1] == "[" and word[-1:] == "]":
                type_id, bits = inner.type_id, 0
                position += 8 * self._index_in(inner, word[1:-1], path) * self.sizeof(type_id)
                continue
            type_id, offset, bits = self._member_named(inner, word, path)
            position += offset
        steps.append(Offset(position, bits))
        return steps[0] if len(steps) == 1 else tuple(steps)

    def _index_in(self, array, digits, path):
        if not digits.isdecimal():
            raise BTFError("%s: '%s' is no index" % (path, digits))
        index = int(digits[:99])
        if array.count and index >= array.count:
            words = (path, self.c_type(array.id), array.count)
            raise BTFError("%s: %s has %d elements" % words)
        return index

    def _member_named(self, record, name, path):
        """Return (type id, bit offset, bits) of a member, also of one in an anonymous record."""
        found = self._part_named(record, name, 0, 0) if record.kind in _RECORDS else None
        if found is None:
            raise BTFError("%s: %s has no member '%s'" % (path, self.c_type(record.id), name))
        return found

    def _part_named(self, record, name, start, depth):
        inside = []
        for label, type_id, offset, bits in self._members(record):
            if name and label == name:
                return type_id, start + offset, bits
            if not label and not bits:
                inside.append((type_id, offset))
        for type_id, offset in inside if depth < MAX_DEPTH else ():
            inner = self._resolve(type_id)
            found = None
            if inner.kind in _RECORDS:
                found = self._part_named(inner, name, start + offset, depth + 1)
            if found is not None:
                return found
        return None

    def _words_of_path(self, t, path):
        """Return the steps of a path; the first may be a variable whose name holds dots."""
        t, variable = self._resolve(t), ""
        if t.kind == BTF_KIND_DATASEC:
            names = [entry.name for entry, _ in self._section_members(t)]
            variable = max(
                [name for name in names if _begins_with(path, name)], key=len, default=""
            )
        words = path[len(variable) :].replace("->", ".").replace("[", ".[").split(".")
        words[0] = variable + words[0]
        return words[1:] if path.startswith("[") else words

    def c_type(self, t: "_GivenType") -> str:
        """Return a type in C's terms, the order of words made plain: "struct task_struct __rcu *",
        "u32 [4]".
        """
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
                kind = {
                    BTF_KIND_FWD: ("struct ", "union ")[t.flag],
                    BTF_KIND_STRUCT: "struct ",
                    BTF_KIND_ENUM: "enum ",
                    BTF_KIND_UNION: "union ",
                    BTF_KIND_ENUM64: "enum ",
                }.get(t.kind, "")
                return kind + (t.name or "(anonymous)") + tail
            t = t.type_id
        return "..." + tail

    # -- types as Layouts

    def layout(self, t: "_GivenType") -> "Layout":
        """Return the Layout of a type: finite, sized, each member inside of what holds it.

        raises     BTFError
        """
        return _FrontEnd(self).layout(self.type(t).id, 0)

    def ctype(self, t: "_GivenType") -> "Type[Any]":
        """Return the ctypes type of a type, as Layout.ctype makes it; the same class each time."""
        try:
            return self.layout(t).ctype()
        except LayoutError as failure:
            raise BTFError(*failure.args) from None

    def describe(self, t: "_GivenType") -> str:
        """Return a table of a type: offset, size, name and C type of each member, enum names, tags
        and holes.
        """
        try:
            return self.layout(t).describe()
        except LayoutError as failure:
            raise BTFError(*failure.args) from None

    def python_source(self, t: "_GivenType") -> str:
        """Return Python that makes the ctypes type anew, with neither BTF nor this module.

        Bitfields are read-only.
        """
        try:
            return self.layout(t).python_source(self.type(t).name)
        except LayoutError as failure:
            raise BTFError(*failure.args) from None


# typedefs that say in which order the bytes lie
_ORDERED_TYPEDEFS = {
    prefix + order[0] + "e%d" % bits: order
    for prefix, order in (("", "big"), ("__", "big"), ("", "little"), ("__", "little"))
    for bits in (16, 32, 64)
}


def _occurrences(haystack, needle):
    at = haystack.find(needle)
    while at >= 0:
        yield at
        at = haystack.find(needle, at + 1)


def _encoding(t):
    """Return what an INT says of itself: _INT_SIGNED, _INT_CHAR, _INT_BOOL; 0 for other kinds."""
    return t._words[t._at + 3] >> 24 & 0xF if t.kind == BTF_KIND_INT else 0


class _FrontEnd:
    """Makes Layouts of the types of a BTF, each once, and proves them on the way."""

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
            known = self._modified(t, depth) if t.kind in _MODIFIERS else self._whole(t, depth)
            known = _shown_by_tags(known, self.btf.tags(type_id))
            rows = getattr(known, "row_count", 0)
            if known.values > 16 * known.size + _MAX_VALUES or rows > _MAX_ROWS:
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

    def _whole(self, t, depth):
        if t.kind in _RECORDS:
            return self._record(t, depth)
        if t.kind == BTF_KIND_ARRAY:
            element = self._char(t.type_id) or self.layout(t.type_id, depth + 1)
            self._check_size(t, element.size * t.count)
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
        return self._number(t, name)

    def _char(self, type_id):
        """Return the Layout of a char that is an element, which makes its array text.

        None for any other type.
        """
        t = self.btf._resolve(type_id)
        encoding = _encoding(t)
        if t.kind != BTF_KIND_INT or t.size != 1 or t._words[t._at + 3] & 0xFF00FF != 8:
            return None
        if t.name != "char" and not encoding & _INT_CHAR:
            return None
        step = self.btf.type(type_id)
        while step.kind in _MODIFIERS and step.kind != BTF_KIND_TYPEDEF:
            step = self.btf.type(step.type_id)
        is_plain = step.kind == BTF_KIND_INT and (t.name == "char" or encoding == _INT_CHAR)
        name = self.btf.c_type(type_id)
        return Char(name, encoding, is_plain, encoding & _INT_SIGNED > 0)

    def _check_size(self, t, size):
        if size > _MAX_BYTES:
            raise t._error("%d bytes: too large" % size)

    def _number(self, t, name):
        order = self.btf.order
        if t.kind in _ENUMS:
            names = self.btf.enumerators(t)
            return Enum(t.size, name, names, order, self.btf._is_signed_enum(t))
        if t.kind == BTF_KIND_FLOAT:
            known = t.size in (2, 4, 8)
            return Float(t.size, name, order, True) if known else Bytes(t.size, name)
        encoding, bits = _encoding(t), t._words[t._at + 3] & 0xFF
        if not t.size or t._words[t._at + 3] >> 16 & 0xFF:
            return Bytes(t.size, name)  # of no bits, or of some in the middle
        if encoding & _INT_BOOL:
            return Boolean(t.size, name, order)
        made = Number(t.size, name, order, bool(encoding & _INT_SIGNED), encoding)
        return made if bits == made.bits or not 0 < bits < made.bits else made.bitfield(bits)

    def _record(self, t, depth):
        if t.count > _MAX_ROWS:
            raise t._error("%d members: too large" % t.count)
        members = []
        for index, (name, type_id, offset, bits) in enumerate(self.btf._members(t)):
            inner = self._bits(type_id, bits) if bits else self._member(type_id, depth)
            self._check_member(t, name, inner, offset, bits)
            label = name or "_"
            tags = self.btf.tags(t.id, index)
            members.append(Member(name, _shown_by_tags(inner, tags), offset, bits, label, tags))
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

    def _bits(self, type_id, bits):
        """Return the Layout of a bitfield, None if its type has none.

        Of an int only the kind counts.
        """
        t = self.btf._resolve(type_id)
        name = self.btf.c_type(type_id)
        if t.kind == BTF_KIND_INT and t.size <= 16:
            signed = bool(_encoding(t) & _INT_SIGNED)
            made = Number(t.size, name, self.btf.order, signed, _encoding(t))
            if _encoding(t) & _INT_BOOL:
                made = Boolean(t.size, name, self.btf.order)
        elif t.kind in _ENUMS:
            made = self._number(t, name)
        else:
            return None
        return made.bitfield(bits) if bits <= made.bits else None

    def _check_member(self, t, name, inner, offset, bits):
        if inner is None or offset and not bits and t.kind == BTF_KIND_UNION:
            raise t._error("member '%s' can't lie at bit %d of it" % (name, offset))
        if offset + (bits or 8 * inner.size) > 8 * t.size or not bits and offset % 8:
            raise t._error("member '%s' does not lie inside of it" % name)


_kept_btf = {}  # type: dict  # those used last, by bytes: maps opened twice have the same types


def _begins_with(path, name):
    """Return whether a path of members begins with this one."""
    return path.startswith(name) and path[len(name) :][:1] in ("", ".", "[", "-")


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


class _ELFSection:
    __slots__ = ("number", "name", "kind", "flags", "address", "offset", "size", "link")


class _ELFFile:
    """The sections and symbols of an ELF file of either class and byte order, maybe hostile."""

    def __init__(self, file, start=b""):
        if not file.seekable():
            import io

            file = io.BytesIO(start + file.read())
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        identity = self._read(0, 16, "header")
        self._mark, self._is_wide = ">" if identity[5] == 2 else "<", identity[4] == 2
        header = struct.Struct(self._mark + ("2HI3QI6H" if self._is_wide else "2HI3II6H"))
        fields = header.unpack(self._read(16, header.size, "header"))
        self._is_relocatable = fields[0] == _ELF_RELOCATABLE
        self._sections = list(self._section_headers(fields[5], *fields[10:12]))
        names_number = fields[12]
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
        if offset + size > self._size:
            raise BTFError(
                "a broken ELF file: its %s would end at byte %d of %d"
                % (what, offset + size, self._size)
            )
        self._file.seek(offset)
        return self._file.read(size)

    def _bytes_of(self, number, what):
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


def _with_placed_variables(btf, elf):
    """Return BTF whose data sections have sizes and offsets, as libbpf completes them to load it.

    clang leaves the size of each 0 and gcc the offsets too.  What the file has no section for
    (.ksyms, .kconfig) stays.
    """
    words, unplaced = btf._words, []
    for at in btf._index():
        if words[at + 1] >> 24 & 0x7F == BTF_KIND_DATASEC and not words[at + 2]:
            section = elf.section(btf._string(words[at]))
            if section is not None and 0 < section.size <= 0xFFFFFFFF:
                unplaced.append((at, section))
    if not unplaced:
        return btf
    keys = [
        _symbol_key(btf, entry[0], section)
        for at, section in unplaced
        for entry in _section_entries(words, at)
    ]
    symbols, words = elf.symbols(set(keys)), words[:]
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


def _section_entries(words, at):
    """Return the (type id, offset, size) of the variables and functions of a data section."""
    start, end = at + 3, at + 3 + 3 * (words[at + 1] & 0xFFFFFF)
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


def _relocated(btf, base):
    """Return the BTF of a module, split from a distilled base, upon that of a kernel.

    A distilled base (.BTF.base, 6.11) has the names and sizes of those types of the kernel that the
    module uses, under ids of its own.  The rules are those of btf_relocate in the kernel and
    libbpf; what does not fit is a BTFError.
    """
    distilled, embedded, counterparts = btf.base, _embedded(btf), _Counterparts(base)
    first_id, first_string = btf._places_behind(base)
    ids = {t.id: counterparts.find(t, t.id in embedded) for t in distilled}
    ids[0] = 0
    names_start, own_names = len(distilled._strings), len(btf._strings)
    words = btf._words[:]
    for at in btf._index():
        for place, what in enumerate(_record_pattern(words, at), at):
            number = words[place]
            if what == "?":
                raise BTFError(
                    "type kind %d can't be moved to another base" % (words[at + 1] >> 24 & 0x7F)
                )
            if what == "t" and number < btf._first:
                words[place] = ids[number]
            elif what == "t":
                words[place] = _word(number - btf._first + first_id)
            elif what == "n" and number >= names_start:
                words[place] = _word(number - names_start + first_string)
            elif what == "n" and number:  # a name of the distilled base: those go behind the others
                words[place] = _word(number + own_names + first_string)
    return btf._rewritten(words, btf._strings + distilled._strings, base)


def _word(number):
    if number > 0xFFFFFFFF:
        raise BTFError("%d, an id or the place of a name, can't be moved to another base" % number)
    return number


def _record_pattern(words, at):
    """Return what each word of a record is, as in _RECORD_WORDS."""
    kind, count = words[at + 1] >> 24 & 0x7F, words[at + 1] & 0xFFFFFF
    third, always, for_each = _RECORD_WORDS.get(kind, ("?", "", ""))
    return "n-" + third + always + for_each * count


def _embedded(btf):
    """Return the ids of the types that stand in records of split BTF: their size counts there."""
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


# What a type of a distilled base can stand for; enums of either kind are ENUM there.
_FLAVORS = {
    BTF_KIND_INT: "int",
    BTF_KIND_FLOAT: "float",
    BTF_KIND_ENUM: "enum",
    BTF_KIND_ENUM64: "enum",
    BTF_KIND_STRUCT: "struct",
    BTF_KIND_UNION: "union",
}


def _flavor(t):
    """Return (flavor, encoding of an integer); None of what no distilled base has."""
    if t.kind == BTF_KIND_FWD:
        return ("union" if t.flag else "struct"), 0
    encoding = t._words[t._at + 3] if t.kind == BTF_KIND_INT else 0
    return (_FLAVORS[t.kind], encoding) if t.kind in _FLAVORS else None


class _Counterparts:
    """Finds the types of a base that those of a distilled one stand for.

    Each name is looked up once.
    """

    def __init__(self, base):
        self._base, self._names, self._candidates = base, set(), {}

    def _types(self, *key):
        """Return the types of a name and flavor that are whole (True), declared or of a size."""
        name = key[0]
        if name not in self._names:
            self._names.add(name)
            for t in self._base._all_named(name):
                whole = t.kind != BTF_KIND_FWD
                for more in (whole, ("size", t.size)):
                    self._candidates.setdefault((name, _flavor(t), more), []).append(t)
        return self._candidates.get(key, [])

    def find(self, t, is_embedded):
        """Return the id of the one type that t can stand for.

        Raise BTFError if there is not one.
        """
        flavor = _flavor(t)
        if flavor is None or not t.name:
            raise t._error("nothing that a .BTF.base may have")
        whole = self._types(t.name, flavor, True)
        fitting = whole or self._types(t.name, flavor, False)
        by_size = is_embedded or len(whole) > 1 or flavor[0] not in ("struct", "union")
        if by_size and t.size is not None:
            fitting = self._types(t.name, flavor, ("size", t.size))
        if len(fitting) != 1:
            wanted = "" if t.size is None else " of %d bytes" % t.size
            raise BTFError(
                ".BTF.base: the base has %s '%s'%s: the module was not built for it"
                % ("several" if fitting else "no", t._label, wanted)
            )
        return fitting[0].id


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
        data, name = (
            ctypes.create_string_buffer(info.btf_size or 1),
            ctypes.create_string_buffer(64),
        )
        info = bpf_btf_info(addressof(data), info.btf_size)
        if known == sizeof(info):  # 5.11; kernels before take no name
            info.name, info.name_len = addressof(name), sizeof(name)
        _info_by_fd(owner.number, info, about)
        return info, name.value.decode("latin-1"), data.raw[: info.btf_size]
    finally:
        del owner


def _prove_agreement(mine, theirs, strict, what):
    """Raise LayoutError where a caller's layout and BTF's disagree, with both side by side and what
    to write.
    """
    found = list(mine.differences(theirs, strict))
    if not found:
        return
    left, right = mine.describe().split("\n"), theirs.describe().split("\n")
    right[0] += " in the map's BTF"
    where = max(_shown_in(table, found[0][0]) for table in (left, right))[1]
    width = max(map(len, left))
    rows = zip(left + [""] * (len(right) - len(left)), right + [""] * (len(left) - len(right)))
    table = []
    for number, (here, there) in enumerate(rows):
        table.append("%s %-*s | %s" % (">" if number == where else " ", width, here, there))
    wrong = "; ".join("%s %s" % pair if pair[0] else pair[1] for pair in found[:8])
    told = "%s: %s is not what the map's BTF says: %s" % (what, mine.name, wrong)
    raise LayoutError(told, *(table + _advice(theirs)))


def _advice(theirs):
    """Return lines: the class to write instead, unless it is long or can't be one."""
    try:
        source = theirs.python_source()
    except LayoutError:
        return []
    _, _, classes = source.partition("\n")  # without the import
    lines = classes.lstrip().split("\n")
    return ["write instead"] + lines if len(lines) < 60 else []


def _shown_in(table, path):
    """Return (how much of a field's path, the number of the line) where a table shows it, or what
    holds it.
    """
    best, names = (0, 0), []
    for number, line in enumerate(table[1:-1], 1):
        depth = (len(line[14:]) - len(line[14:].lstrip())) // 2 - 1
        names[depth:] = [line[14:].strip().split(":")[0]]
        rest = iter(names)
        known = [name for name in path.replace("[]", "").split(".") if name in rest]
        if known and known[-1] == names[-1] and len(known) > best[0]:
            best = len(known), number
    return best


# ---- 6. Map -----------------------------------------------------------------
# What a Map is made of, an idea a class: _OpenMap, _Converting, _PerCPU, _Elements, _Keyless,
# _Scanning, _Writing, _Whole; Map itself is the ways to open one.

_MODES = {"r": BPF_F_RDONLY, "w": BPF_F_WRONLY, "rw": 0}


def _mode_flags(mode):
    if mode not in _MODES:
        raise ValueError('mode must be "r", "w" or "rw", not %r' % (mode,))
    return _MODES[mode]


class _LaterInfo:
    """What MapInfo learnt to tell later, and captures do not hold."""

    ifindex: "Optional[int]" = None
    netns_dev: "Optional[int]" = None
    netns_ino: "Optional[int]" = None
    hash: "Optional[str]" = None


class MapInfo(_LaterInfo):
    """What the kernel tells of a map, as in struct bpf_map_info.

    None stands for what it does not tell.

    frozen, memlock (bytes)         from /proc, as the next two
    owner_prog_type, owner_jited    of a prog_array
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

    def __init__(self, fd, about):
        info = bpf_map_info()
        known = _info_by_fd(fd, info, about)
        for name in self.__slots__[:-4] + ("ifindex", "netns_dev", "netns_ino"):
            descriptor = getattr(bpf_map_info, name)
            told = descriptor.offset + descriptor.size <= known
            setattr(self, name, getattr(info, name) if told else None)
        if self.name is not None:  # the kernel's isalnum() lets Latin-1 letters in
            self.name = self.name.decode("latin-1")
        proc = _fdinfo(fd)
        self.frozen = proc["frozen"] == "1" if "frozen" in proc else None
        self.memlock = int(proc["memlock"]) if "memlock" in proc else None
        self.owner_prog_type = int(proc["owner_prog_type"]) if "owner_prog_type" in proc else None
        self.owner_jited = proc["owner_jited"] == "1" if "owner_jited" in proc else None
        if self.frozen and self.type == BPF_MAP_TYPE_ARRAY and known >= sizeof(info):
            self.hash = _array_hash(fd)

    def _asdict(self) -> "Dict[str, Any]":
        """Return {name: value} of all of it."""
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


def _prove_map(fd, about):
    """Raise unless the descriptor is a map's: the info of a program or BTF reads like one's."""
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

    On what is no map every element command is EINVAL; on a map, LOOKUP without a key is EFAULT and
    the like on all types but arenas, for which NEXT_KEY is EOPNOTSUPP.
    """
    attr = bpf_attr()
    attr.elem.map_fd = fd
    for cmd in (BPF_MAP_LOOKUP_ELEM, BPF_MAP_GET_NEXT_KEY):
        if _syscall(_nr_bpf, cmd, byref(attr), _ATTR_SIZES[cmd]) != errno.EINVAL:
            return True
    return False


class _Call:
    """A prepared element command, used by one call at a time.

    key, value and flags are those of attr, as objects that are set faster than fields.  cell is the
    memory of an int key, as a memoryview, which refuses what is no int or out of range; None for
    keys of other types.
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


class _ByteArray:
    """What arrays that come out of a map share: they compare, hash and print by their bytes."""

    def __eq__(self, other):
        is_bytes = isinstance(other, (bytes, ctypes.Array))
        return bytes(self) == bytes(other) if is_bytes else NotImplemented

    def __hash__(self):
        return hash(bytes(self))  # of what it holds now: a key that is changed is another key

    def __repr__(self):
        shown = repr(bytes(self).rstrip(b"\0")) if self._type_ is ctypes.c_char else list(self)
        return "%s(%s)" % (type_name(type(self)), shown)


_BYTE_ARRAYS = {}  # type: dict  # length -> class of char arrays that are _ByteArrays


def _byte_array(ctype):
    """Return the class of the arrays that come out of a map for an array type."""
    if ctype._type_ is not ctypes.c_char:
        return type(ctype.__name__, (_ByteArray, ctype), {})
    if ctype._length_ not in _BYTE_ARRAYS:
        made = type(ctype.__name__, (_ByteArray, ctypes.c_char * ctype._length_), {})
        _BYTE_ARRAYS.setdefault(ctype._length_, made)
    return _BYTE_ARRAYS[ctype._length_]


def _is_char_array(ctype):
    return _is_array(ctype) and ctype._type_ is ctypes.c_char


_NO_QUEUE = "queue: its values have keys (push, peek and pop are for queues and stacks)"


class _OpenMap(_Generic[_Key, _Value]):
    """The state of an open map: what it is, its types and its descriptor."""

    # What the short way looks at, where it is found fastest; there are other attributes.
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
    order: str = sys.byteorder
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
        """Return the Map on an _Fd.

        keep: a failure leaves the descriptor open, it is the caller's.
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
            opened._fd = owner = None  # a traceback that is kept must not keep the descriptor open
            raise

    def _adopt(self, info, key, value, strict):
        """Take in what the map is, and check the types against it."""
        self.id, self.name, self.type, self.flags = info.id, info.name, info.type, info.map_flags
        self.key_size, self.value_size = info.key_size, info.value_size
        self.max_entries = info.max_entries
        self._about = info._about
        self._btf_info, self._btf, self._no_btf = info, None, ""  # fetched when it is needed
        self._given = {"key": key, "value": value}
        self._is_percpu = self.type in _PERCPU_TYPES
        numeric_key = self.type in _INDEX_TYPES | _FD_KEY_TYPES
        numeric_value = self.type in _NUMBER_VALUE_TYPES
        refused = []  # both are told
        for what, given, size, numeric in (
            ("key", key, self.key_size, numeric_key),
            ("value", value, self.value_size, numeric_value),
        ):
            try:
                checked = self._checked_type(given, size, numeric, what, strict)
                setattr(self, what + "_type", checked)
            except LayoutError as failure:
                refused += failure.args
        if refused:
            raise LayoutError(*refused)
        self._prepare_keys(key in (None, BTF))
        self._prepare_values(value in (None, BTF))
        self._has_batch = None  # whether the kernel has LOOKUP_BATCH: asked before the first scan
        self._idle_calls = []  # pop and append of a list are atomic

    def _prepare_keys(self, is_btfs):
        """Set what the element commands look at for keys; is_btfs: the type is not the caller's."""
        ctype = self.key_type
        self._has_int_keys = _is_plain_int(ctype) and not _is_swapped(ctype)
        # The class of the keys that go to the kernel as they are; None where there are none such.
        self._key_class = int if self._has_int_keys else ctype
        self._raw_key_type = ctype
        if ctype in (bytes, None):
            self._key_class, self._raw_key_type = None, u8 * self.key_size
        elif _is_char_array(ctype) or is_btfs and _is_array(ctype):
            self._raw_key_type = _byte_array(ctype)
        self._new_key = _maker(self._raw_key_type)

    def _prepare_values(self, is_btfs):
        """Set what the element commands look at for values."""
        ctype = self.value_type
        self._raw_value_type = u8 * self.value_size if ctype in (bytes, None) else ctype
        if _is_char_array(ctype) or is_btfs and _is_array(ctype):
            self._raw_value_type = _byte_array(ctype)
        finish = (
            None  # what turns what the kernel wrote into what the caller gets; None: it is that
        )
        if ctype is bytes:
            finish = bytes
        elif _is_scalar(ctype):
            finish = _get_value
        # A number inside these bounds needs no further look.
        self._value_min, self._value_max = 1, 0
        # What LOOKUP writes into, its size, and how to make one; per-CPU: known once the CPUs are
        # counted.
        self._out_type = self._new_out = self._out_size = None
        self._percpu_types = {}  # number of slots -> array type
        if self._is_percpu:
            copy = _copier(self._raw_value_type)
            self._finish = partial(_percpu_values, self._raw_value_type, copy, finish)
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
        if ctype is None:
            return None
        if self._given[what] in (None, BTF):  # BTF knows more than the class that it makes
            types = _INDEX_TYPES | _FD_KEY_TYPES if what == "key" else _NUMBER_VALUE_TYPES
            return _found_layout(self, what, size, self.type in types)
        return Bytes(size) if ctype is bytes else layout(ctype)

    def _checked_type(self, ctype, size, numeric, what, strict):
        """Return the type of keys or values: None where there are none.

        If none is given, BTF's, a number or bytes.
        """
        about = "%s of %s" % (what, self._about)
        if ctype is None or ctype is BTF:
            return _default_type(self, what, size, numeric, ctype is BTF)
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
        self._fd = None  # first, so that no new call is made from it
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
        """Return the _Fd, which stays open as long as the caller keeps it.

        ValueError if the map is closed.
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
        owner = self._live()  # held: its number must not become another's meanwhile
        try:
            return MapInfo(owner.number, self._about)
        finally:
            del owner

    def _error(self, cmd, code, key=None):
        """Return the error for an errno of a command; key is the key it was about, in any form."""
        detail = cls = None
        if code == errno.ENOENT and key is not None:
            key = self._told_key(key)
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

    def _lacks(self, cmd, what):
        """Return the error for what this type of map does not have."""
        return _error(ENOTSUPP, cmd, self._about, self.type, detail="this map has no %s" % what)


def _converted(ctype, size, given, what):
    """Do what _to_ctype does; a str for an array of chars is text: UTF-8, filled up with NULs."""
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
    """Return the number of a descriptor given as an object with fileno() or as a ctypes int.

    Else what was given.
    """
    if hasattr(given, "fileno"):
        return given.fileno()
    return _get_value(given) if _is_plain_int(type(given)) else given


class _Converting(_OpenMap[_Key, _Value]):
    """From what callers give to what the kernel reads and writes, and back."""

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
        raise self._lacks(cmd, what)

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

    def _told_key(self, key):
        """Return a key, in any form that callers give, as an error tells it."""
        if not isinstance(key, _CDATA):
            try:
                key = self._key_in(key)
            except (BPFError, ValueError):  # closed, or another than it was, by now
                pass
        return self._key_out(key) if isinstance(key, _CDATA) else key

    def _value_in(self, key, value, flags=0):
        """Return value as a ctypes object that UPDATE may read; key is where it goes."""
        if self.type in _FD_VALUE_TYPES:
            value = _descriptor_in(value)
        if self._is_percpu and not self._flagged_type(flags):
            return self._slots_in(key, value)
        return _converted(self.value_type, self.value_size, value, "value of " + self._about)

    def _room_in(self, key, out, flags=0):
        """Return a ctypes object over out, where a lookup of key may write.

        None if there is no such key.
        """
        out_type = self._flagged_type(flags) or self._proved_type(key)
        if out_type is None:
            return None
        if type(out) is out_type and sizeof(out) >= sizeof(out_type):
            return out
        return self._buffer(out, out_type)

    def _nothing_in(self, key, value, flags=0):
        """Return the object for a command that moves no value."""
        return _ZERO

    def _buffer(self, out, out_type):
        """Return a ctypes object over the caller's writable memory, of out_type's size."""
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


def _percpu_values(one_type, copy, finish, out):
    """Return the list of the values in a per-CPU value, or the one value that flags selected."""
    if type(out) is one_type:
        return finish(out) if finish else out
    raw, stride = bytes(out), sizeof(out._type_)
    values = [copy(raw, offset) for offset in range(0, len(raw), stride)]
    return [finish(value) for value in values] if finish else values


class _PerCPU(_Converting[_Key, _Value]):
    """Values of per-CPU maps: a slot for every possible CPU, whose number is proved first."""

    def percpu_type(self) -> "Type[ctypes.Array[Any]]":
        """Return the ctypes array type of a per-CPU value: a slot, .value, for each possible CPU.

        raises     NotSupported: the map is not per-CPU, SyscallError
        """
        if not self._is_percpu:
            raise self._lacks(BPF_MAP_LOOKUP_ELEM, "value per CPU")
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
        """Return the type of the one value that flags select of a per-CPU map, or None."""
        selects = self._is_percpu and flags & (BPF_F_CPU | BPF_F_ALL_CPUS)
        return self._raw_value_type if selects else None

    def _prove_out(self, key):
        """Return the array type that a per-CPU value fits, the number of its slots proved."""
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

    def _proved_type(self, key):
        """Return what LOOKUP writes into; None if a lookup was to tell and has no such key."""
        try:
            return self._out_type or self._prove_out(key)
        except KeyNotFound:
            return None

    def _percpu_room(self, key, flags):
        """Return a new object for what LOOKUP writes; None as _proved_type."""
        flags = _flag_bits(flags)
        room_type = self._flagged_type(flags)
        if room_type:
            return _maker(room_type)()
        room_type = self._out_type or self._proved_type(self._key_in(key))
        return None if room_type is None else room_type()

    def _count_cpus_by_lookup(self, key):
        """Look key up into a buffer that no machine outgrows.

        Return how many slots the kernel wrote.  For who may not create a map.  raises KeyNotFound
        where key is absent: nothing is proved then
        """
        import mmap

        stride = percpu_stride(self.value_size)
        with mmap.mmap(-1, stride * _MAX_CPUS, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            mark = os.urandom(8)  # no value looks like it
            for offset in range(0, len(memory), stride):
                memory[offset : offset + 8] = mark
            room = u8.from_buffer(memory)
            try:
                code = self._element(BPF_MAP_LOOKUP_ELEM, key, room)
            finally:
                del room  # or the memory could not be unmapped
            if code:
                raise self._error(BPF_MAP_LOOKUP_ELEM, code, key)
            count = 0
            while count < _MAX_CPUS and memory[count * stride : count * stride + 8] != mark:
                count += 1
            return count

    def _slots_in(self, key, value):
        """Return what UPDATE reads of a value for all CPUs, one for each, or their bytes."""
        try:
            room = (self._out_type or self._prove_out(key))()
            cpus = len(room)
        except SyscallError:  # nothing to count by: believe /sys, but have room for any number
            room, cpus = self._slots(_MAX_CPUS)(), len(_sysfs_cpus())
        stride = sizeof(room._type_)
        is_whole = type(value) is self._percpu_types.get(cpus)
        if cpus and (is_whole or isinstance(value, (bytes, bytearray, memoryview))):
            raw = memoryview(value).tobytes()  # a copy: nobody can resize what is measured here
            if len(raw) == cpus * stride:
                ctypes.memmove(room, raw, len(raw))
                return room
        for index, one in enumerate(self._listed_values(value, cpus, len(room))):
            obj = _converted(self.value_type, self.value_size, one, "value of " + self._about)
            ctypes.memmove(addressof(room) + index * stride, addressof(obj), self.value_size)
        return room

    def _listed_values(self, value, cpus, slots):
        """Return a tuple of the values given for the CPUs; one value is meant for all slots."""
        if not isinstance(value, (list, tuple)):
            return (value,) * slots
        values = tuple(value)  # ours: an __index__ could append to a list
        if len(values) != cpus or not cpus:
            raise LayoutError(
                "value of %s takes one value, or one for each of %s possible CPUs, not %d"
                % (self._about, cpus or "the unknown number of", len(values))
            )
        return values


# The methods made here go method(map, key, out, flags=0): out is what the kernel writes to, or for
# UPDATE reads.  They return False if there is no such key.  Keys of the map's key class, or ints,
# and objects of the class that LOOKUP writes go straight to the kernel; for all else there is
# _take_the_long_way, which converts with the method named by convert.  The class alone proves
# nothing: an object's __class__ can be assigned a larger one, so that sizes are asked too.
def _element_command(cmd, convert, moves_value=True):
    """Return the method that runs an element command: the short way, which all calls take."""
    size, absent = _ATTR_SIZES[cmd], errno.ENOENT

    def command(self: "Any", key: "Any", out: "Any", flags: int = 0) -> bool:
        if (
            type(key) is not self._key_class
            or flags != 0
            or (moves_value and (type(out) is not self._out_type or sizeof(out) < self._out_size))
        ):
            return self._take_the_long_way(cmd, convert, key, out, flags)
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
        if call is None:  # errors are raised with nothing at hand that keeps the descriptor open
            return self._take_the_long_way(cmd, convert, key, out, flags)
        call.value.value = addressof(out)
        code = _syscall(_nr_bpf, cmd, call.ref, size)
        idle.append(call)
        if not code:
            return True
        if code == absent:
            return False
        call = idle = None
        raise self._error(cmd, code, key)

    return command


def _public(command, name, doc):
    """Return a made method with the name and the words that users see."""
    command.__name__, command.__qualname__, command.__doc__ = name, "Map." + name, doc
    return command


class _Elements(_PerCPU[_Key, _Value]):
    """The commands for one element, and the methods of a mapping made of them."""

    def _new_call(self):
        return _Call(self._live(), self.key_type, self._has_int_keys)

    def _take_the_long_way(self, cmd, convert, key, out, flags):
        """Run an element command on what has to be converted first.

        Return False if there is no such key.
        """
        flags = _flag_bits(flags)  # before out is looked at: an __index__ could move it
        key = self._key_in(key, cmd)
        obj = getattr(self, convert)(key, out, flags)
        if obj is None:
            return False
        code = self._element(cmd, key, obj, flags)
        if code not in (0, errno.ENOENT):
            raise self._error(cmd, code, key)
        return code == 0

    def _element(self, cmd, key, value, flags=0):
        """Run an element command on what needs no look any more; return 0 or an errno.

        key is an int within bounds for int keys, else a ctypes object of key_size bytes, or None
        for NULL; value a ctypes object as large as the kernel takes it to be; flags are as
        _flag_bits returns them.
        """
        idle = self._idle_calls
        try:
            call = self._new_call() if key is None else idle.pop()
        except IndexError:
            call = self._new_call()
        if type(key) is int:
            call.cell[0] = key
        else:
            call.key.value = 0 if key is None else addressof(key)
        call.value.value, call.flags.value = addressof(value), flags
        code = _syscall(_nr_bpf, cmd, call.ref, _ATTR_SIZES[cmd])
        call.flags.value = 0
        if key is not None:
            idle.append(call)
        return code

    if TYPE_CHECKING:

        def lookup_into(self, key: "_GivenKey", out: "Buffer", flags: int = 0) -> bool: ...

    else:
        lookup_into = _public(
            _element_command(BPF_MAP_LOOKUP_ELEM, "_room_in"),
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
    _take_into = _element_command(BPF_MAP_LOOKUP_AND_DELETE_ELEM, "_room_in")
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
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
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
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            return default
        return out if self._finish is None else self._finish(out)

    def __contains__(self, key: "Any") -> bool:
        """Return whether the map has the key, a bloom filter (as far as it can tell) the value.

        raises     LayoutError, SyscallError, NotSupported: queues and stacks
        kernel     BPF_MAP_LOOKUP_ELEM, 3.18
        """
        if self._key_class is None and self.type == BPF_MAP_TYPE_BLOOM_FILTER:
            return self._filter_has(key)  # type: ignore[attr-defined]  # of _Keyless
        out = self._new_out() if self._new_out else self._percpu_room(key, 0)
        return out is not None and self.lookup_into(key, out)

    def lookup_bytes(self, key: "_GivenKey", flags: int = 0) -> bytes:
        """Return the value under key as bytes.

        returns    value_size bytes; of a per-CPU map the slots of all CPUs,
                   percpu_stride(value_size) bytes each

        Else as lookup.
        """
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
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
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
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
        """Return the ctypes object of the key after key, None at the end."""
        self._require_keys(BPF_MAP_GET_NEXT_KEY)
        following = self._new_key()
        code = self._element(BPF_MAP_GET_NEXT_KEY, key, following)
        if code == errno.ENOENT:
            return None
        if code:
            raise self._error(BPF_MAP_GET_NEXT_KEY, code)
        return following

    def _present(self, raw, flags=0):
        """Return what LOOKUP writes for a key given as bytes, None if there is no such key."""
        out = self._new_out() if self._new_out else self._percpu_room(raw, flags)
        return out if out is not None and self.lookup_into(raw, out, flags) else None

    def _finished(self, out):
        """Return what LOOKUP wrote in the form that callers get."""
        return out if self._finish is None else self._finish(out)


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
            raise self._lacks(BPF_MAP_UPDATE_ELEM, _NO_QUEUE)
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
        return self._read_in_turn(BPF_MAP_LOOKUP_ELEM)

    @overload
    def pop(self: "_NumberValues[_Number]") -> "_Number": ...
    @overload
    def pop(self) -> "_Value": ...
    def pop(self) -> "Any":
        """Remove and return the oldest value of a queue, the newest of a stack.

        raises     KeyNotFound: there is none, NotSupported, PermissionDenied, SyscallError
        kernel     BPF_MAP_LOOKUP_AND_DELETE_ELEM, 4.20
        """
        return self._read_in_turn(BPF_MAP_LOOKUP_AND_DELETE_ELEM)

    def _read_in_turn(self, cmd):
        """Return the value whose turn it is."""
        if self.key_type is not None:
            raise self._lacks(cmd, _NO_QUEUE)
        if self.type == BPF_MAP_TYPE_BLOOM_FILTER:  # LOOKUP reads the buffer there
            raise self._lacks(cmd, "values to read")
        out = self._new_out()
        code = self._element(cmd, None, out)
        if code:
            raise self._keyless_error(cmd, code)
        return self._finished(out)

    def _keyless_error(self, cmd, code):
        error = self._error(cmd, code)
        if code == errno.ENOENT:
            error.args = code, "%s on %s: the map is empty (ENOENT)" % (error.cmd, self._about)
        return error

    def _filter_has(self, value):
        """Whether a bloom filter has a value, as far as those can tell."""
        code = self._element(BPF_MAP_LOOKUP_ELEM, None, self._value_in(None, value))
        if code not in (0, errno.ENOENT):
            raise self._error(BPF_MAP_LOOKUP_ELEM, code)
        return code == 0


class _Scanning(_Keyless[_Key, _Value]):
    """All the entries: over the batch commands where the kernel has them, else key by key."""

    @property
    def exact_scan(self) -> bool:
        """Whether a scan yields every entry that is there from start to end once, come what may.

        True over the batch commands of hashes (5.6) and for arrays.  False where a walk is all
        there is (LPM tries, RHASH, DEVMAP_HASH, SOCKHASH, hashes before 5.6): an update moves an
        entry in its bucket, and a walk may miss it meanwhile.

        raises     ValueError: closed, SyscallError
        """
        return self.type in _INDEX_TYPES or self.type in _BATCH_TYPES and self._batches()

    def _batches(self):
        """Whether the kernel has LOOKUP_BATCH for this type: asked once, with a batch of none.

        That of a trie is a walk inside the kernel.
        """
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
        flags = _flag_bits(flags)
        self._require_keys(BPF_MAP_GET_NEXT_KEY)
        if self._walks_by_key():
            walk = self._walk_keys(flags)
            return ((self._key_out(key), self._finished(out)) for key, out in walk)
        return self._scan_parts(with_values, flags)

    def _walks_by_key(self):
        """Whether there is no other way to the entries than from key to key."""
        return self.type not in _INDEX_TYPES and not self._batches()

    def _scan_parts(self, with_values, flags):
        for keys, values in self._parts(None, flags, is_shared=True):
            finished = [None] * len(keys)
            if with_values:
                finished = self._finished_elements(values, self.value_type)
            for entry in zip(self._finished_elements(keys, self.key_type), finished):
                yield entry

    def _finished_elements(self, array, ctype):
        """Return the list of what callers get for the elements of an array, which is reused."""
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
        """Return an iterator over (keys, values), arrays; is_shared: by threads in turns."""
        if not self._batches():
            room = self._batch_room(size)
            by_key = self._walks_by_key()
            return self._walked_parts(room, flags) if by_key else self._index_parts(room, flags)
        is_trie = self.type == BPF_MAP_TYPE_LPM_TRIE
        parts = _Batches(self, BPF_MAP_LOOKUP_BATCH, None if is_trie else size, flags)
        if is_shared or is_trie:
            parts._owner = None  # a generator lets in one thread at a time, whichever
        return self._trie_parts(parts, size) if is_trie else parts

    def _index_parts(self, room, flags):
        """Yield the entries of an array without batches: what is there stays where it is."""
        for first, values, codes in self._read_indices(room, flags):
            failed = [at for at, code in enumerate(codes) if code not in (0, errno.ENOENT)]
            there = [
                at for at, code in enumerate(codes[: failed[0] if failed else None]) if not code
            ]
            if there:
                indices = (u32 * len(codes))(*range(first, first + len(codes)))
                keys = _copier(self._raw_key_type * len(codes))(bytes(indices))
                yield _picked(keys, there), _picked(values, there)
            if failed:  # after the entries that are there
                raise self._error(BPF_MAP_LOOKUP_ELEM, codes[failed[0]], first + failed[0])

    def _read_indices(self, room, flags=0):
        """Yield (first index, values, [0 or errno of each]): a lookup for each index."""
        key, attr, size = u32(), bpf_attr(), _ATTR_SIZES[BPF_MAP_LOOKUP_ELEM]
        value = u64.from_buffer(attr, bpf_attr_elem.value.offset)
        attr.elem.key, attr.elem.flags, ref = addressof(key), flags, byref(attr)
        one_type = self._flagged_type(flags) or self._proved_type(self._key_in(bytes(4)))
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

    def _trie_parts(self, parts, size):
        """Yield the entries that the batches of a trie bring, each once.

        Their cursor is the last key.  One that others delete sends the kernel back to the first;
        the batches are
        large, whatever size, so that this is rare.
        """
        seen, steps, room = set(), 0, self._batch_room(size)
        for keys, values in parts:
            raw, step = bytes(keys), self.key_size
            each = [raw[at : at + step] for at in range(0, len(raw), step)]
            steps += len(each)
            if steps > 20 * self.max_entries + 1000:
                raise IterationAborted(
                    "%s: deletions keep sending the scan back to its start" % self._about
                )
            news = {key: at for at, key in enumerate(each) if key not in seen}
            seen.update(news)
            there = sorted(news.values())
            for at in range(0, len(there), room):
                part = there[at : at + room]
                yield _picked(keys, part), _picked(values, part)

    def _walk_keys(self, flags):
        """Yield the entries in the order of the keys.

        A cursor that others delete sends the kernel back to its first key, or (cgroup storages) to
        the end.
        """
        seen, steps, news = set(), 0, 0
        cursor = self._next(None)
        while cursor is not None:
            steps += 1
            if steps > 20 * (self.max_entries or len(seen)) + 1000:
                raise IterationAborted(
                    "%s: deletions keep sending the scan back to its start" % self._about
                )
            raw = _raw(cursor)
            following, failure = self._following(raw)  # before the current key may be deleted
            out = None
            if raw not in seen:
                seen.add(raw)
                out = self._present(raw, flags)
            if out is not None:
                news += 1
                yield cursor, out
            if failure:  # after the entry that was there
                raise failure
            if out is None and following is None and news and self._present(raw, flags) is None:
                # vanished just then: once more, until nothing new comes
                news, following = 0, self._next(None)
            cursor = following

    def _following(self, raw):
        """Return the key after one given as bytes, and the error if that can't be told."""
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

    def lookup_and_delete_batch(self, size: "Optional[int]" = None, flags: int = 0) -> "_Batches":
        """Return an iterator like lookup_batch's that removes the entries it hands out.

        Nothing is lost: what the kernel has removed comes with the next step, if the one that did
        it ended in an error or KeyboardInterrupt; .last is the part that was handed out last.

        size       as of lookup_batch
        flags      as of lookup
        raises     PermissionDenied, SyscallError, NotSupported: arrays, LPM tries; queues: use
                   pop
        kernel     BPF_MAP_LOOKUP_AND_DELETE_BATCH, 5.6
        """
        self._require_keys(BPF_MAP_LOOKUP_AND_DELETE_BATCH)
        return _Batches(self, BPF_MAP_LOOKUP_AND_DELETE_BATCH, size, _flag_bits(flags))

    def _walked_parts(self, room, flags):
        entries = self._walk_keys(flags)
        while True:
            part = list(islice(entries, room))
            if not part:
                return
            yield tuple(_array_of(type(column[0]), column) for column in zip(*part))

    def _batch_room(self, size):
        """Return how many entries a batch is to hold: size, or as many as fit into about a MiB."""
        if size is not None:
            return min(_integer(size, 1, (1 << 32) - 1, "size"), self.max_entries or 1 << 12)
        cpus = 1
        if self._is_percpu:
            cpus = len(_proven_cpus or range(64))  # no more than a guess at the memory
        entry = self.key_size + cpus * percpu_stride(self.value_size)
        return max(1, min(self.max_entries or 1 << 12, 1 << 16, (1 << 20) // entry))

    def _prove_some(self, key):
        """Have the CPUs counted, by key (bytes) or any other, before values move in bulk."""
        if self._proved_type(self._key_in(key)) is None:
            first = self._next(None)
            if first is None or self._proved_type(self._key_in(_raw(first))) is None:
                what = "entry by which the possible CPUs could be counted"
                raise self._lacks(BPF_MAP_LOOKUP_BATCH, what)


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
            self._prove_some(bytes(all_keys)[: self.key_size])
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
        """Return a new array of ctype with the elements given, which nobody else can resize."""
        self._require_keys(BPF_MAP_UPDATE_BATCH)
        try:
            if (
                isinstance(given, (str, _CDATA))
                and getattr(type(given), "_type_", None) is not ctype
            ):
                raise TypeError("not " + type(given).__name__)
            raw = None
            if not isinstance(given, (list, tuple)):
                try:
                    raw = memoryview(given).tobytes()
                except TypeError:  # no buffer
                    given = list(given)
            if raw is not None and len(raw) % sizeof(ctype):
                raise ValueError("%d bytes are not a multiple of %d" % (len(raw), sizeof(ctype)))
        except (TypeError, ValueError) as failure:
            raise LayoutError(
                "%s must be an array of %s, a buffer of whole ones or a sequence: %s"
                % (what, type_name(ctype), failure)
            ) from None
        if raw is not None:
            return _copier(ctype * (len(raw) // sizeof(ctype)))(raw)
        return _array_of(ctype, [convert(one) for one in given])

    def _write_batch(self, batch_cmd, cmd, keys, values, flags):
        """Run UPDATE_BATCH or DELETE_BATCH on arrays; where there is no batch, cmd on each."""
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
        done = batch.count if batch.count < total else 0  # as it was: refused as a whole
        if code in (ENOTSUPP, errno.EINVAL) and not done:
            batch_cmd = cmd
            done, code = self._write_each(cmd, keys, values, flags)
        if not code:
            return total
        raw = bytes(keys)[done * self.key_size : (done + 1) * self.key_size]
        error = self._error(batch_cmd, code, self._key_in(raw))
        error.count = done
        raise error

    def _write_each(self, cmd, keys, values, flags):
        """Run cmd on one element after the other.

        Return how many are done and 0 or the errno of the next.
        """
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

        It is for arrays created with BPF_F_MMAPABLE (the .data, .bss and .rodata of programs are),
        whose indices are 0 up to max_entries - 1, for ring buffers and arenas.  Even reading takes
        mode="rw": the kernel maps no read-only descriptor.

        writable   whether values can be stored, and objects in it be changed
        raises     NotSupported, SyscallError, PermissionDenied: descriptor, frozen,
                   BPF_F_RDONLY_PROG
        kernel     mmap(2), 5.5; ring buffers 5.8, arenas 6.9
        """
        import mmap

        length = self._mapped_length(mmap.PAGESIZE)
        return MemoryMap(self, self._mapped(0, length, writable), writable)

    def _mapped(self, offset, length, writable):
        """Return so much of the map's memory, an mmap.mmap."""
        import mmap

        owner = self._read_write()
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return mmap.mmap(owner.number, length, mmap.MAP_SHARED, protection, offset=offset)
        except OSError as failure:
            raise _error(failure.errno, "mmap", self._about, self.type, owner.number) from None
        finally:
            del owner

    def _read_write(self):
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

        It takes mode="rw".  It is there whole or, if an exception comes before that, not at all.
        Threads may share the map; it is for the caller to see to it that one process at a time
        submits, as the kernel can't tell them apart.
        value      a ctypes object, or bytes or another buffer
        raises     MapFull: no room until programs read, LayoutError: it never fits,
                   PermissionDenied, NotSupported, ValueError in a child of fork()
        kernel     BPF_MAP_TYPE_USER_RINGBUF, 6.1
        """
        if self.type != BPF_MAP_TYPE_USER_RINGBUF:
            raise _no_ring("submit", self)
        raw = _raw(value) if isinstance(value, _CDATA) else bytes(memoryview(value))
        submitter = self.__dict__.get("_submitter")
        if submitter is None:
            self._read_write()  # for this map too, whoever has mapped it already
            _, submitter = _claim_ring(_submitters, self, lambda: _Submitter(self))
            self._submitter = submitter
        self._live()
        submitter.submit(raw)


def _ambiguous(name, ids):
    """Return the AmbiguousName of maps with these ids."""
    listed = ", ".join(map(str, ids))
    error = AmbiguousName(
        "%d maps are named '%s': ids %s; open one by its id" % (len(ids), name, listed)
    )
    error.ids = ids
    return error


class Map(_Whole[_Key, _Value]):
    """A live BPF map.  Open one with from_pin, from_id, from_name, from_fd or create.

        with Map.from_pin("/sys/fs/bpf/flows", key=FlowKey, value=FlowStats) as flows:
            print(flows[FlowKey(src=..., dst=...)].packets)

    key, value ctypes types, bytes, or BTF to demand the map's own; left out they are BTF's, else
               numbers for indices, ids and descriptors, else bytes.  Where BTF can be had they are
               compared with it
    strict     compare them with BTF to the last sign
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
        if not dup:
            return cls._opened(
                _Fd(int, number), about, key, value, strict, token, prove=True, keep=True
            )
        import fcntl

        try:
            owner = _Fd(fcntl.fcntl, number, fcntl.F_DUPFD_CLOEXEC, 0)
        except (OSError, ValueError) as failure:
            raise _error(
                getattr(failure, "errno", errno.EBADF), BPF_OBJ_GET_INFO_BY_FD, about
            ) from None
        try:
            return cls._opened(owner, about, key, value, strict, token, prove=True)
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
        return cls._opened(
            _fd_by_id(map_id, _mode_flags(mode)), "map %d" % map_id, key, value, strict
        )

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
        return cls._opened(
            _Fd(_obj_cmd, BPF_OBJ_GET, path, file_flags=_mode_flags(mode)),
            os.fsdecode(path),
            key,
            value,
            strict,
            token,
            prove=True,
        )

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
            found.clear()  # closes them now: an exception that is kept keeps this frame
            raise _ambiguous(name, ids)
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
        attr, settings = (
            bpf_attr(),
            {
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
            },
        )
        size = _set_create(attr.map_create, settings, name)
        about = "a new map (%s%s)" % (map_type_name(map_type), " '%s'" % name if name else "")
        owner = _created(attr, about, size, map_type)
        try:
            return cls._opened(owner, about, key, value, strict, token)
        finally:
            del owner


_ENTRY_PER_CPU_TYPES = frozenset((BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_CPUMAP))
_NUMBER_KEY_TYPES = _INDEX_TYPES | _FD_KEY_TYPES | {BPF_MAP_TYPE_HASH_OF_MAPS}


# fields that may be None, and flags that go with those which are given, be it 0
_OPTIONAL_FIELDS = frozenset(
    "inner_map_fd numa_node btf_fd btf_key_type_id btf_value_type_id map_token_fd".split()
)
_FLAGS_OF_FIELDS = {"numa_node": BPF_F_NUMA_NODE, "map_token_fd": BPF_F_TOKEN_FD}


def _set_create(create, settings, name):
    """Set the fields of a bpf_attr_map_create, None for what is not given.

    Return how many bytes must be passed.
    """
    size, types = _ATTR_SIZES[BPF_MAP_CREATE], dict(create._fields_)
    for field, given in settings.items():  # ctypes would cut a number that is too large
        if given is None and field in _OPTIONAL_FIELDS:
            continue
        low, high = _int_range(types[field])
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


def _created(attr, about, size, map_type):
    """Return the _Fd of a new map.

    What is refused is told in the kernel's own words, if it has any.
    """
    try:
        return _Fd(_bpf_charged, BPF_MAP_CREATE, attr, about, size, map_type=map_type)
    except InvalidArgument as error:
        error.hint = _creation_log(attr, size) or error.hint
        raise


def _creation_log(attr, size):
    """Return what the kernel says of a map that it refused, "" before 7.2."""
    log = ctypes.create_string_buffer(4096)
    common = bpf_common_attr(log_buf=addressof(log), log_size=sizeof(log), log_level=1)
    words = BPF_MAP_CREATE | BPF_COMMON_ATTRS, byref(attr), size, byref(common), sizeof(common)
    _Fd(_ask_for_log, *words)  # what is created after all is closed at once
    return log.value.decode("latin-1").strip()


def _ask_for_log(*words, kept):
    _syscall_into(kept, _nr_bpf, *words)


def _array_of(ctype, objects):
    """Return an array of ctype holding objects: ctypes objects of its size, or ints."""
    array = (ctype * len(objects))()
    step = sizeof(ctype)
    for index, obj in enumerate(objects):
        obj = _set(ctype, obj) if isinstance(obj, int) else obj
        ctypes.memmove(addressof(array) + index * step, addressof(obj), step)
    return array


def _picked(array, places):
    """Return those elements of an array, which may be reused: itself if that is all of them, else
    a new array.
    """
    if len(places) == len(array):
        return array
    raw, step = bytes(array), sizeof(array._type_)
    picked = b"".join([raw[at * step : (at + 1) * step] for at in places])
    return _copier(array._type_ * len(places))(picked)


class _Batches:
    """Iterator over a map's entries in parts, by LOOKUP_(AND_DELETE_)BATCH, for one thread.

    An exception may strike anywhere (Ctrl-C): a call is known to have run by what it wrote (count;
    next cursor, which is all ones before; keys, of which no two are alike), and what it removed is
    handed out by the next step.
    """

    last: "Optional[Tuple[ctypes.Array[Any], ctypes.Array[Any]]]"

    def __init__(self, m, cmd, size, flags=0):
        self._map, self._cmd, self._room = m, cmd, m._batch_room(size)
        self._attr, self._out_batch = bpf_attr(), (u8 * max(4, m.key_size))()
        self._attr.batch.elem_flags = flags
        self._one_type = m._flagged_type(flags)  # of the one CPU that flags select
        self._arrays = None  # (keys, values) of one length
        self._cursor = None  # bytes, or None: from the start
        self._part = self.last = None  # the same: it has been handed out
        self._under_way = False  # a call was begun whose outcome has not been taken
        self._end, self._idle, self._owner = None, 0, {}
        # RHASH: its cursor is a key, and may be gone: drain from the start
        self._restarts = m.type == BPF_MAP_TYPE_RHASH

    def __iter__(self) -> "Self":
        return self

    def __next__(self) -> "Tuple[ctypes.Array[Any], ctypes.Array[Any]]":
        if self._owner is not None and self._owner.setdefault("thread", get_ident()) != get_ident():
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
        """Make a call, or take the outcome of one that an exception cut short.

        Taken twice, it is the same.
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
        """Have arrays for the next call.

        False if the map has no entry by which to count the possible CPUs.
        """
        m = self._map
        if m._is_percpu and m._out_type is None and self._one_type is None:
            first = m._next(None)
            if first is None:
                return False
            m._prove_some(_raw(first))
        keys = self._arrays and self._arrays[0]
        fits = keys and sizeof(keys) == self._room * m.key_size
        if self._cmd != BPF_MAP_LOOKUP_BATCH or not fits:
            value_type = self._one_type or m._out_type
            self._arrays = (m._raw_key_type * self._room)(), (value_type * self._room)()
        return True

    def _call(self):
        """Make a call; return 0 or errno."""
        m, batch = self._map, self._attr.batch
        keys, values = self._arrays  # the room is theirs: no other count goes with them
        ctypes.memset(self._out_batch, 0xFF, sizeof(self._out_batch))
        in_batch = ctypes.create_string_buffer(self._cursor or b"")
        owner = m._live()
        batch.in_batch = addressof(in_batch) if self._cursor else 0
        batch.out_batch = addressof(self._out_batch)
        batch.keys, batch.values = addressof(keys), addressof(values)
        batch.map_fd, batch.count = owner.number, sizeof(keys) // m.key_size
        self._under_way = True
        code = _syscall(_nr_bpf, self._cmd, byref(self._attr), _ATTR_SIZES[self._cmd])
        del owner
        return code

    def _take_outcome(self, code):
        """Take in what a call did; code None: an exception came before it could be told."""
        keys, values = self._arrays
        step = self._map.key_size
        room, count = sizeof(keys) // step, self._attr.batch.count
        cursor = bytes(self._out_batch)
        moved = cursor.strip(b"\xff") != b""
        filled = self._restarts and room > 1 and bytes(keys)[:step] != bytes(keys)[-step:]
        if not (code == 0 or moved or count != room or filled):
            count = 0  # it did not run
        if count:
            self._part = (
                (keys._type_ * count).from_buffer(keys),
                (values._type_ * count).from_buffer(values),
            )
        self._idle = 0 if count else self._idle + 1
        self._go_on(code, count, room)
        if moved and not self._end:
            self._cursor = cursor
        if self._restarts:
            self._cursor = None

    def _go_on(self, code, count, room):
        """Decide how the scan goes on, or ends, after a call that brought count entries."""
        m = self._map
        if code == errno.ENOENT and not (self._restarts and count):
            self._end = StopIteration
        elif code == errno.ENOSPC and not count:  # one bucket holds more
            if room >= m.max_entries:
                self._end = IterationAborted(
                    "%s: a bucket of more than all %d entries" % (m._about, room)
                )
            self._room = min(2 * room, m.max_entries)
        elif code not in (0, None, errno.ENOENT, errno.EINTR, errno.EAGAIN):
            self._end = m._error(self._cmd, code)
        elif self._idle > 1000:
            self._end = IterationAborted("%s: the kernel keeps interrupting the scan" % m._about)


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
        self._size, self._stride, self._about = (
            m.value_size,
            percpu_stride(m.value_size),
            "value of " + m._about,
        )
        self._count = m.max_entries if m.value_size else 0
        self.view, self._words = memoryview(memory), None
        if (
            _is_plain(self._type)
            and self._type._type_ in _INT_CODES + "fd"
            and not _is_swapped(self._type)
        ):
            # One load an element, and the fastest that Python has.
            words = self.view[: self._stride * self._count].cast(self._type._type_)
            self._words = words[:: self._stride // self._size]

    def __len__(self) -> int:
        return self._count

    def _at(self, index):
        """Return (memory, where element index begins and ends in it)."""
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


# -- ring buffers: BPF_MAP_TYPE_RINGBUF (5.8), which programs fill and a reader empties, and
# BPF_MAP_TYPE_USER_RINGBUF (6.1), the other way round.  A page for the consumer's position, one for
# the producer's, then the data, mapped twice in a row: what wraps around the end is contiguous.
# Positions count bytes since the beginning.  A record is a header and its bytes, in steps of 8; of
# the header's first word two bits tell what becomes of the record.
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
_LENGTH = _DISCARDED - 1
_MAX_TRIES = 100
_DRAIN_BYTES = 1 << 16  # what is copied at a time: it is to stay in the processor's cache
_MAX_SUBMITTED_BYTES = (1 << 24) - 1  # DYNPTR_MAX_SIZE, what bpf_user_ringbuf_drain() takes
_LONG_MASK = (1 << 8 * sizeof(ctypes.c_long)) - 1  # positions wrap

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
    """Let every load and store before come before every one behind; NotSupported where it can't."""
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
    """Stand where x86 needs none."""


def _kernel_long_bytes():
    """Return the size of the kernel's long, in which it counts: 8, or 4 on a 32-bit kernel."""
    if sizeof(ctypes.c_long) == 8:
        return 8
    try:  # as wide as the kernel's pointers, shown or zeroed; uname(2) can be told to lie
        with open("/proc/kallsyms") as file:
            digits = len(file.read(17).partition(" ")[0])
    except OSError:
        digits = 0
    if digits in (8, 16):
        return digits // 2
    machine = os.uname().machine
    return 8 if "64" in machine or machine == "s390x" else 4


class _Position:
    """A position in a page of a ring buffer, the index-th of the kernel's longs there.

    A 32-bit program on a 64-bit kernel looks at its lower half: two positions are never as far
    apart as that goes.
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
        """Make the upper half what it must be beside the other position, shortly before or behind.

        Who stored the lower half and was killed then left another; so do 32-bit programs of libbpf.
        """
        if self._high is None:
            return
        high = None
        while high != other._words[other._high]:  # it moves
            high = other._words[other._high]
            _full_barrier()
            low = other.load()
            _full_barrier()
        mine = self.load()
        wanted = high + (mine < low) if is_ahead else high - (mine > low)
        if self._words[self._high] != wanted & _LONG_MASK:
            self._words[self._high] = wanted & _LONG_MASK


class _RingMemory:
    """The memory of a ring buffer: its positions and its data.

    writes is "consumer" or "producer", the position that is ours to move, or None.  order() is what
    keeps loads apart from what comes behind them, settle() a full barrier.
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


def _record_bytes(length):
    """Return how many bytes a record of so many takes with its header."""
    return (length + _HEADER_BYTES + 7) & ~7


def _records_in(words):
    """Return (starts, lengths, used, following) of the records that a copy begins with.

    words are those of the copy, u32.  starts and lengths are those of the bytes of each record that
    is neither busy nor discarded; used is where the first one begins that is busy, or that is not
    all there: then following is where it ends.
    """
    end, first = 4 * len(words), words[0]
    if first < _DISCARDED:  # records of one size, as most are: no loop
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
        following = at + ((length & _LENGTH) + 15 & -8)  # as _record_bytes()
        if following > end:
            return starts, lengths, at, following
        if length < _DISCARDED:
            starts.append(at + _HEADER_BYTES)
            lengths.append(length)
        at = following
    return starts, lengths, at, 0


class _Waiter:
    """Waits until a ring buffer has records, or until close() in another thread.

    A reader that peeks can't wait for the kernel alone, which wakes who has consumed all there was:
    it is woken now and then besides.
    """

    PEEK_NS, STALLED_SECONDS, LONGEST_SECONDS = 10 * 10**6, 0.001, 86400

    def __init__(self, owner, is_peek):
        import select

        self.owner = owner  # holds the descriptor that epoll watches
        ends = os.pipe()
        self._closed_end, self._closing_end = (_Fd(int, number) for number in ends)
        self._closing, self._epoll = select.poll(), select.epoll()
        self._closing.register(ends[0], select.POLLIN)
        self._epoll.register(ends[0], select.EPOLLIN)
        # what was peeked at stays readable until its owner consumes it: only news are told then
        edge = select.EPOLLET if is_peek else 0
        self._epoll.register(owner.number, select.EPOLLIN | edge)
        self._timer = _ticking(self.PEEK_NS) if is_peek else None
        if self._timer:
            self._epoll.register(self._timer.number, select.EPOLLIN)
        self.number = self._epoll.fileno()

    def wait(self, seconds, is_stalled):
        """Wait so long, None: for ever, for something new; of a busy record nothing is told."""
        if is_stalled:  # to epoll it is there
            shortest = self.STALLED_SECONDS
            seconds = shortest if seconds is None else min(seconds, shortest)
            self._closing.poll(seconds * 1000)
        else:
            self._epoll.poll(-1 if seconds is None else min(seconds, self.LONGEST_SECONDS))

    def catch_up(self):
        """Take what was told until now as known, before looking at what is there."""
        if self._timer:
            self._epoll.poll(0)
            try:
                os.read(self._timer.number, 8)
            except BlockingIOError:
                pass

    def wake(self):
        """Wake all who wait, now and later."""
        os.write(self._closing_end.number, b"\0")


def _ticking(every_ns):
    """Return the _Fd of a timerfd that is readable every so often."""
    libc = ctypes.CDLL(None, use_errno=True)
    times = (ctypes.c_long * 4)(0, every_ns, 0, every_ns)  # struct itimerspec, of old time_t
    timer = _Fd(libc.timerfd_create, 1, os.O_NONBLOCK | os.O_CLOEXEC)  # CLOCK_MONOTONIC
    if timer.number < 0 or libc.timerfd_settime(timer.number, 0, times, None):
        raise OSError(get_errno(), "timerfd: %s" % os.strerror(get_errno()))
    return timer


class _Turns:
    """Takes one step at a time on what it is for."""

    __slots__ = ("_about", "_lock", "_inside")

    def __init__(self, about):
        self._about, self._lock, self._inside = about, RLock(), allocate_lock()

    def take(self, step, *otherwise):
        """Return step(), after that of any other thread.

        A signal handler or finalizer that comes into the middle of one gets otherwise; ValueError
        without that.
        """
        with self._lock:  # waits for other threads
            if not self._inside.locked():
                with self._inside:
                    return step()
        if not otherwise:
            raise ValueError("%s is in use by the call that was interrupted" % self._about)
        return otherwise[0]


class _Batch:
    """Records that were read together; values iterates over those that were not handed out yet."""

    __slots__ = ("ring", "values", "starts", "position", "used", "rest")

    def __init__(self, ring, starts, position, used):
        self.ring, self.starts, self.position, self.used = ring, starts, position, used
        self.values, self.rest = iter(()), []

    @property
    def end(self):
        return self.position + self.used & _LONG_MASK

    def handed_out(self):
        """Return the position behind what was handed out; what is left is given up."""
        self.rest.extend(self.values)  # in one step: what interrupts comes before or after
        left = len(self.rest)
        if not left:
            return self.end
        return self.position + self.starts[-left] - _HEADER_BYTES & _LONG_MASK


# (process, map id) -> what consumes it, and what submits to it, in this process
_consumers = {}  # type: dict
_submitters = {}  # type: dict
_ring_locks = {}  # type: dict  # process -> its lock: a child of fork() may inherit a taken one


def _claim_ring(claims, m, make):
    """Return (whether it was there, the ring of a map that this process has, else make())."""
    key = os.getpid(), m.id
    with _ring_locks.setdefault(key[0], RLock()):
        known = claims.get(key, lambda: None)()
        if known is None:
            made = make()
            claims[key] = weak_reference(made)
            return False, made
    return True, known


class Records(_Generic[_Value]):
    """The records of a ring buffer, read as programs write them.  Made by Map.records.

        for record in m.records(Event): ...         # waits; ends when another thread closes it
        records.read(timeout=0.5)                   # a list: all that is there, as soon as any is
        loop.add_reader(records.fileno(), lambda: handle(records.read(0)))

    lost       bytes, headers included, that were overwritten before they could be read: records
               that are gone can't be counted

    A record that a program has reserved and not yet committed keeps those behind it back;
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
            raise _no_ring("records", m)
        self._about, self._is_peek, self.lost = m._about, bool(peek), 0
        self._overwrites = bool(m.flags & BPF_F_RB_OVERWRITE)
        self._size, self._make, self._finish = _record_type(m, value)
        self._turns = _Turns(m._about)
        self._is_stalled, self._batch = False, None
        waiter, self._key = _Waiter(m._live(), self._is_peek), (os.getpid(), m.id)
        if self._is_peek:
            ring = _RingMemory(m)
            self._position = ring.producer.load()
        else:
            is_taken, ring = _claim_ring(_consumers, m, lambda: _RingMemory(m, "consumer"))
            if is_taken:
                del ring, waiter  # who keeps the error keeps neither
                raise _taken(m)
        self._open = ring, waiter  # None when it is closed

    def __repr__(self) -> str:
        how = "peeking" if self._is_peek else "consuming"
        return "<Records of %s, %s>" % (self._about, how if self._open else "closed")

    def _opened(self):
        if self._open is None:
            raise ValueError("these records are closed")
        return self._open

    def fileno(self) -> int:
        """Return a descriptor that select, poll, epoll and asyncio find readable when there may be
        records: read(0) then.  While peeking it is so every 10 ms.
        """
        return self._opened()[1].number

    def read(self, timeout: "Optional[float]" = None) -> "List[_Value]":
        """Return a list of the records that are there, of many those of about 64 KiB.

        timeout    seconds to wait for the first one; None: as long as it takes; 0: not at all
        returns    []: there was none, or close() was called meanwhile
        raises     LayoutError: the next record has not the size of value; it is the error's .record
                   and consumed.  IterationAborted: the buffer holds what no kernel writes.
                   ValueError: closed, or in a child of fork()
        """
        self._opened()
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
        self._opened()
        return self._handed_out()

    def _handed_out(self):
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
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self):
        raise TypeError("records cannot be pickled or copied")

    # -- one drain

    def _leave(self):
        """Consume what was handed out, also after a close() in the middle of a drain."""
        batch = self._batch
        if batch is not None and batch.ring.process == os.getpid():
            self._turns.take(self._settle, None)

    def _awaited(self, deadline, take):
        """Return take() of the next batch, None: it was closed, or is over at the deadline."""
        while True:
            opened = self._open
            if opened is None:
                return None
            opened[0].check_process(self._about)  # before the lock, which a thread may hold there
            taken = self._turns.take(partial(self._take, opened, take))
            if taken is not None:
                return taken
            left = deadline and deadline()
            if left is not None and left <= 0:
                return None
            opened[1].wait(left, self._is_stalled)

    def _take(self, opened, take):
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
        elif batch.values.__length_hint__():  # an exception came between consuming and returning
            return
        self._batch = None

    def _consumed(self, batch):
        """Consume a batch, and return it."""
        if not self._is_consumed(batch):
            self._move(batch.ring, batch.end)
        return batch

    def _place(self, ring):
        return self._position if self._is_peek else ring.consumer.load()

    def _is_consumed(self, batch):
        """Whether a batch is consumed.

        The position itself tells: a flag beside it could be missed by what interrupts, and the
        position then go back to what a program has written over since.
        """
        return self._place(batch.ring) - batch.end & _LONG_MASK <= _LONG_MASK >> 1

    def _move(self, ring, position):
        """Go on to a position; never back to what another reader of the map consumed meanwhile."""
        if _LONG_MASK >> 1 < position - self._place(ring) & _LONG_MASK:
            return
        if self._is_peek:
            self._position = position
        else:
            ring.consumer.store(position)
            ring.settle()

    def _next_batch(self, ring):
        """Return the next _Batch.

        None if nothing is there, or nothing but what is discarded or overwritten at once for so
        long that whoever set a time limit wants it looked at.
        """
        self._is_stalled = False
        for _ in range(_MAX_TRIES):
            position, unread = self._unread(ring)
            if not unread:
                return None
            starts, lengths, used, following = self._headers(ring, position, unread)
            at = position & ring.size - 1
            raw = bytes(ring.data[at : at + used])
            ring.order()
            if self._is_overwritten(ring, position):
                self._skip(ring, position)
                continue
            if following > unread and not used:
                words = (self._about, following - used, unread - used)
                raise IterationAborted("%s: a record of %d bytes where there are %d" % words)
            if not used:
                self._is_stalled = True
                return None
            if not starts:  # discarded, all of them
                self._move(ring, position + used & _LONG_MASK)
                continue
            return self._decoded(ring, _Batch(ring, starts, position, used), raw, lengths)
        return None

    def _unread(self, ring):
        """Return where to read on, and how many bytes there are."""
        for _ in range(_MAX_TRIES):  # positions may move between the two loads
            end = ring.producer.load()
            ring.order()
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
        """Return what _records_in() tells of a copy of what is there, of one record at least."""
        at, wanted = position & ring.size - 1, _DRAIN_BYTES
        while True:
            span = min(unread, wanted)
            found = _records_in(memoryview(bytes(ring.data[at : at + span])).cast("I"))
            ring.order()
            used, following = found[2:]
            if used or following <= span or following > unread:
                return found
            wanted = following

    def _oldest(self, ring):
        """Return the position of the oldest record that is not overwritten."""
        return (ring.overwritten if self._overwrites else ring.consumer).load()

    def _is_overwritten(self, ring, position):
        """Whether a program may have written, or be writing, over what stood at a position.

        That takes that the oldest record lies behind it, and, but for what a program says itself
        (overwrite_pos, stored first), that the producer has come round to it.  The header in
        __bpf_ringbuf_reserve() is written before producer_pos is stored, hence ">=".  Where stores
        may overtake each other, a program's next stores may be seen before that of the position,
        for as long as it takes them to leave the processor: the barrier before is far longer, yet
        no proof.
        """
        if not (self._is_peek or self._overwrites):
            return False
        behind = self._oldest(ring) - position & _LONG_MASK
        if not 0 < behind <= _LONG_MASK >> 1:
            return False
        return self._overwrites or ring.producer.load() - position & _LONG_MASK >= ring.size

    def _skip(self, ring, position):
        """Go on with the oldest record, and count what is lost."""
        oldest = self._oldest(ring)
        self.lost += oldest - position & _LONG_MASK
        self._move(ring, oldest)

    def _decoded(self, ring, batch, raw, lengths):
        """Return the batch with its values: of records of another size those before the first."""
        starts = batch.starts
        if self._size is None:
            batch.values = iter([raw[at : at + size] for at, size in zip(starts, lengths)])
            return batch
        if lengths.count(self._size) != len(lengths):
            odd = next(place for place, size in enumerate(lengths) if size != self._size)
            if not odd:
                raise self._refused(ring, batch, raw[starts[0] : starts[0] + lengths[0]])
            batch.used = starts[odd] - _HEADER_BYTES
            del starts[odd:]
        made = map(self._make, repeat(raw), starts)
        batch.values = iter(list(map(self._finish, made) if self._finish else made))
        return batch

    def _refused(self, ring, batch, record):
        """Consume a record that is not of the type's size, and return the error that holds it."""
        used = batch.starts[0] - _HEADER_BYTES + _record_bytes(len(record))
        words = (self._about, len(record), self._size)
        error = LayoutError("%s: a record of %d bytes, the type has %d" % words)
        error.record = record
        self._move(ring, batch.position + used & _LONG_MASK)
        return error


def _values_of(batch):
    return batch.values


def _deadline(seconds):
    """Return what tells the seconds that are left of so many, None for no limit."""
    if seconds is None:
        return None
    from time import monotonic

    end = monotonic() + seconds
    return lambda: end - monotonic()


# Errors are made here and raised elsewhere: a frame that raises what it has a name for is part of a
# cycle, and what it holds, a reader with its claim, would stay until the next garbage collection.


def _taken(m):
    """Return the error for a ring buffer that another reader of the process consumes."""
    detail = "this process has a reader that consumes its records already"
    error = _error(errno.EBUSY, "records", m._about, detail=detail)
    error.hint = "close that one, or look on with peek=True"
    return error


def _no_ring(operation, m):
    """Return the error for what a map of another type does not have."""
    error = _error(ENOTSUPP, operation, m._about, detail="it has no %s" % operation)
    error.hint = {
        BPF_MAP_TYPE_RINGBUF: "programs write to this ring buffer: read it with records()",
        BPF_MAP_TYPE_USER_RINGBUF: "programs read this ring buffer: write to it with submit(value)",
        BPF_MAP_TYPE_PERF_EVENT_ARRAY: "its records are in the buffers of perf_event_open(2)",
    }.get(m.type)
    return error


def _record_type(m, value):
    """Return (size, f(buffer, offset), f that finishes it or None) of a type; size None: bytes."""
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


class _Submitter:
    """Writes records to a ring buffer that programs read.  One for each map and process.

    bpf_user_ringbuf_drain() loads producer_pos and the header with smp_load_acquire().  libbpf's
    user_ring_buffer__reserve() stores a busy header, then the position, and
    user_ring_buffer__submit() exchanges the header.  Here a record is whole before the position
    says that it is there: whoever is killed in between has written nothing, and no busy record
    keeps the program from what comes behind.
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


def lpm_key(text: str) -> bytes:
    """Return the key of an LPM trie, as bytes: four of the prefix length, then the address.

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


def _flag_bits(flags):
    if type(flags) is int and 0 <= flags < 1 << 64:
        return flags
    return _integer(flags, 0, (1 << 64) - 1, "flags")


def _brief_key(key):
    """Return a key in few characters, for a message."""
    is_raw = isinstance(key, (bytes, bytearray, memoryview))
    try:
        text = bytes(key).hex() if is_raw else repr(to_python(key))
    except LayoutError:  # the class has a _union_ without a branch for it
        text = bytes(key).hex()
    return text if len(text) <= 200 else text[:200] + "..."


def _layout_by_btf(source, what):
    """Return the Layout that BTF has of a source's keys or values.

    None, and why in ._no_btf, where it has none.
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


def _found_layout(source, what, size, numeric):
    """Return the Layout of keys or values of which nobody has told: BTF's, a number, or bytes."""
    found = _layout_by_btf(source, what)
    if found is not None:
        return found
    if numeric and size in (4, 8):
        return Number(size, order=source.order)
    return Bytes(size)


def _default_type(source, what, size, numeric, demanded=False):
    """Return the type of a source's keys or values: BTF's, a number, bytes, or None."""
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


def _map_btf(info, token):
    """Return ({"key": type id, "value": type id}, why not, BTF) of a map.

    ({}, why, False) where it can't be had.
    """
    key_id, value_id, btf_id = info.btf_key_type_id, info.btf_value_type_id, info.btf_id
    if info.btf_vmlinux_value_type_id:  # struct_ops: a type of the kernel's, or of a module's
        key_id, value_id, btf_id = 0, info.btf_vmlinux_value_type_id, info.btf_vmlinux_id
    try:
        if not btf_id and not value_id:
            return {}, "the map has none", False
        btf = BTF.from_id(btf_id, token) if btf_id else BTF.from_vmlinux()
        return (
            {what: type_id for what, type_id in (("key", key_id), ("value", value_id)) if type_id},
            "its BTF has no type for it",
            btf,
        )
    except (SyscallError, BTFError, ImportError) as failure:  # a bare system lacks modules
        return {}, str(failure), False


# what is 4 bytes in these types, and what they have none of
_WORD_TYPES = {"key": _NUMBER_KEY_TYPES, "value": _NUMBER_VALUE_TYPES}
_VOID_TYPES = {"key": _KEYLESS_TYPES, "value": _VALUELESS_TYPES}


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


def _fd_by_id(map_id, open_flags):
    """Return the _Fd of the map with an id."""
    attr = bpf_attr()
    attr.get_id.start_id = _integer(map_id, 0, (1 << 32) - 1, "map id")
    attr.get_id.open_flags = open_flags
    return _Fd(_bpf, BPF_MAP_GET_FD_BY_ID, attr, "map %d" % map_id)


def _still_there(map_ids, open_flags):
    """Yield (id, _Fd) of the maps that can still be opened.

    Those that are gone meanwhile are left out.
    """
    for map_id in map_ids:
        try:
            owner = _fd_by_id(map_id, open_flags)
        except MapNotFound:
            continue
        yield map_id, owner
        del owner


def _obj_cmd(cmd, path, bpf_fd=0, file_flags=0, kept=None):
    """Run BPF_OBJ_PIN or BPF_OBJ_GET on a path; return its result."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("a path cannot contain a NUL byte")
    pathname = ctypes.create_string_buffer(raw)
    attr = bpf_attr()
    attr.obj.pathname, attr.obj.bpf_fd, attr.obj.file_flags = (
        addressof(pathname),
        bpf_fd,
        file_flags,
    )
    about = os.fsdecode(path)
    return _bpf(cmd, attr, about, kept=kept, path=about, flags=file_flags)


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


# ---- 7. Inspection ----------------------------------------------------------


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
    """Return the directories to look for pins below."""
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
    try:
        for prog_id, (info, map_ids) in _read_ids(BPF_PROG_GET_NEXT_ID, _prog_info):
            if map_id in map_ids:
                found["progs"].append(("%d %s" % (prog_id, info.name.decode("latin-1"))).strip())
    except SyscallError:
        pass
    own = os.getpid(), {str(_fd_number(one)) for one in asking}
    processes = filter(str.isdecimal, os.listdir("/proc") if os.path.isdir("/proc") else ())
    for pid in sorted(map(int, processes)):
        try:
            if _holds(pid, map_id, own[1] if pid == own[0] else ()):
                comm = os.fsdecode(_read_text("/proc/%d/comm" % pid).encode("latin-1")).rstrip("\n")
                found["pids"].append("%s(%d)" % (comm, pid))
        except OSError:  # gone, or not ours to see
            continue
    return found


def _holds(pid, map_id, but):
    """Whether a process has a descriptor of a map, other than those named in but."""
    directory = "/proc/%d/fdinfo" % pid
    for number in os.listdir(directory):
        if number not in but:  # a descriptor closed meanwhile is an empty file
            if _colon_file("%s/%s" % (directory, number)).get("map_id") == str(map_id):
                return True
    return False


def _prog_fd(prog_id):
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
        del owner


class _TypeNames:
    """The types that have a name where a map comes from: in its BTF or that of the programs that
    use it, else in the kernel's.  Of a capture only its own is known, and .btf, which is given
    besides.
    """

    def __init__(self, source, btf=None):
        self.source, self.btf = source, btf
        self._read = {}  # type: dict  # _near and _kernel -> what they yield

    def _btfs(self, where):
        """Return what _near or _kernel yields; a text may have many names, each is asked for."""
        if where not in self._read:
            self._read[where] = list(where())
        return self._read[where]

    def layout(self, kind, name):
        """Return the Layout of a type of a kind ("struct" ...) or any, None if there is none.

        raises LayoutError for one that can't be read, or that is not the same in all programs
        """
        for where in (self._near, self._kernel):
            found = {}  # type: dict
            for btf in self._btfs(where):
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

    def _near(self):
        for btf in (self.source.btf, self.btf):
            if btf:
                yield btf
        if self.btf or not isinstance(self.source, Map):
            return
        btf_ids = set()
        try:
            for _, (info, map_ids) in _read_ids(BPF_PROG_GET_NEXT_ID, _prog_info):
                if self.source.id in map_ids and info.btf_id:
                    btf_ids.add(info.btf_id)
        except SyscallError:  # not for us to see
            pass
        for btf_id in sorted(btf_ids - {self.source.info.btf_id}):
            try:
                btf = BTF.from_id(btf_id)
            except (SyscallError, BTFError):  # gone meanwhile, or none that can be read
                continue
            yield btf

    def _kernel(self):
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
    told = {
        "id": lambda prog_id, info: str(prog_id),
        "tag": lambda prog_id, info: bytes(info.tag).hex(),
    }.get(kind, lambda prog_id, info: info.name.decode("latin-1"))
    programs = _read_ids(BPF_PROG_GET_NEXT_ID, _prog_info)
    found = [prog_id for prog_id, (info, _) in programs if told(prog_id, info) == which]
    if len(found) != 1:
        raise ValueError("%d programs are '%s'" % (len(found), spec))
    return _prog_fd(found[0])


# ---- 8. Output formats ------------------------------------------------------
# A source is a Map opened with bytes as key and value, or a Capture; an entry of it is (key,
# value), the value of a per-CPU map a list.


class View:
    """A source with what its keys and values mean: the types given, or BTF's, or numbers, or bytes.

    key and value are ctypes types, Layouts or C text, for which btf has names.  .key_layout,
    .value_layout are what they come to; .cpus the possible CPUs of per-CPU values, else empty.
    """

    width = 0  # of the widest key so far, in words
    query = None  # what of the entries a dump shows; None: all
    adds_up = False  # whether the CPUs' values are shown as one
    json_suffix = ""  # " strings": JSON has numbers of more than 53 bits as strings

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
        self.slot = self.info.value_size  # bytes from one CPU's value to the next
        if self.cpus and isinstance(source, Map):
            self.slot = percpu_stride(self.slot)
        entry_bytes = self.info.key_size + self.slot * max(len(self.cpus), 1)
        self.chunk_entries = max(1, min(_CHUNK_ENTRIES, _CHUNK_BYTES // max(entry_bytes, 1)))

    def _named(self, found):
        """Return a layout whose names are those of the machine that the source is from."""
        is_from_here = isinstance(self.source, Map)
        return found if is_from_here else _named_by(found, self.source.names)

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
        """Yield (keys, values, count): the bytes of a few thousand entries, each behind the other.

        A value is .slot bytes for each of .cpus, or value_size bytes.
        """
        if not isinstance(self.source, Map):
            self._prove_affordable()
            yield from self.source.chunks(self.chunk_entries)
            return
        for keys, values in self.source.lookup_batch():
            count, keys, values = len(keys), bytes(keys), bytes(values)
            for chunk in self._pieces(keys, values, count):
                yield chunk

    def _prove_affordable(self):
        """Raise ValueError for a capture that says far more values than it holds bytes."""
        cpus, count = max(len(self.cpus), 1), self.source.count
        layouts = {what: _layout_by_btf(self.source, what) for what in ("key", "value")}
        key, value = layouts["key"] or self.key_layout, layouts["value"] or self.value_layout
        values = max(key.values, self.key_layout.values)
        values += max(value.values, self.value_layout.values) * cpus
        size = self.info.key_size + self.info.value_size * cpus
        if count * (values - 16 * size) > _MAX_SURPLUS:
            words = (count, values, size)
            raise ValueError("a capture of %d entries, %d values in %d bytes: too many" % words)

    def _pieces(self, keys, values, count):
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

    def chunk_of(self, entries):
        """Return a list of (key, value) as chunks() yields them."""
        keys = b"".join([key for key, _ in entries])
        if not self.cpus:
            return keys, b"".join([value for _, value in entries]), len(entries)
        slots = [one.ljust(self.slot, b"\0") for _, value in entries for one in value]
        return keys, b"".join(slots), len(entries)

    # -- forms of text: each is a template for an entry and the columns that fill it

    @property
    def cpus_shown(self):
        """The CPUs whose values are shown each."""
        return () if self.adds_up else self.cpus

    @property
    def cpus_added(self):
        """How many values are shown as one."""
        return max(len(self.cpus), 1) if self.adds_up else 1

    def _columns(self, layout, form, stride=None, cpus=1):
        """Return (template, f(raw) that iterates over what fills it) of a layout's form."""
        reader = layout.reader(form, stride, cpus)
        if reader.template is not None:
            return reader.template, reader.rows
        return "%s", lambda raw: zip(reader.read(raw))

    def _of_value(self, columns):
        """Return the same for a whole value: JSON's "value", or "values" with one for each CPU."""
        template, rows = columns
        if not self.cpus_shown:
            return '"value":' + template, rows
        each = ['{"cpu":%d,"value":%s}' % (cpu, "\0") for cpu in self.cpus]
        whole = '"values":[%s]' % ",".join(each).replace("\0", template)
        count = len(self.cpus)

        def grouped(raw):
            return map(tuple, map(chain.from_iterable, zip(*[iter(rows(raw))] * count)))

        return whole, grouped

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
        """Yield text: entries as bpftool's JSON has them, one behind the other with commas."""
        parts = self._bpftool_parts()
        line = "{%s}" % ",".join([template for template, _, _ in parts])
        for keys, values, _ in chunks:
            raws = {"key": keys, "value": values}
            columns = [column(raws[what]) for _, what, column in parts]
            text = ",".join(map(line.__mod__, zip(*columns)))
            yield text.replace(_BETWEEN_BYTES, '","0x')

    def _bpftool_parts(self):
        """Return [(template, "key" or "value", f(raw) that gives its text)] of an entry as
        bpftool has it.
        """
        size, order = self.info.value_size, self.source.order
        parts = []
        if self.info.key_size:
            hexed = _hex_column(self.info.key_size, _BETWEEN_BYTES)
            parts.append(('"key":["0x%s"]', "key", hexed))
        else:
            parts.append(('"key":[]%s', "value", lambda raw: repeat("")))
        hexed = _hex_column(size, _BETWEEN_BYTES, self.slot)
        if self.cpus:
            rows = '["0x%s"]', lambda raw: zip(hexed(raw))
            parts.append(self._text_part("", "value", self._of_value(rows)))
        else:
            parts.append(('"value":["0x%s"]', "value", hexed))
        if self.info.type in _OF_MAPS_TYPES:  # from bpftool 7.5 on
            unpack = struct.Struct(_ORDER_MARKS[order] + "I").iter_unpack
            parts.append(self._text_part('"inner_map_id":', "value", ("%d", unpack)))
        return parts + self._formatted_parts()

    def _text_part(self, before, what, columns, after=""):
        """Return a part, as of _bpftool_parts, of (template, f(raw) that iterates over what fills
        it).
        """
        template, rows = columns
        fill = template.__mod__
        return before + "%s" + after, what, lambda raw: map(fill, rows(raw))

    def _formatted_parts(self):
        """Return the parts of "formatted": what BTF makes of an entry.

        None where its values can't be read.
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
        """Return [words for people] of keys or values."""
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
                heads = [head for head in heads for _ in self.cpus]
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
            if self.info.key_size:
                columns.insert(0, key_column(keys))
            if self.cpus:
                each = [(key, cpu) for key in columns[0] for cpu in self.cpus]
                columns = list(zip(*each)) + columns[1:]
            yield "\n".join(map(line.__mod__, zip(*columns)))


# What is turned into text at a time: the text, several times as long, is to stay in the
# processor's cache.
_CHUNK_ENTRIES, _CHUNK_BYTES = 2048, 1 << 16
_MAX_SURPLUS = 1 << 20  # values of a capture, besides those that its bytes can hold


_BETWEEN_BYTES = "\x01"  # stands in JSON for what bpftool has there: in JSON it is nowhere else


def _split(raw, count):
    """Return bytes in so many pieces of one length."""
    size = len(raw) // count if count else 0
    if not size:
        return [raw] * count
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def _view_layout(source, what, given, btf):
    """Return the Layout of a source's keys or values, which given is, or that is found."""
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
    """Return the layout of an LPM trie's keys, as a prefix where it is an address's."""
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


class _Numbering:
    """What the slots of a histogram stand for, integers all of them.

    .word as --slots has it, .told in words.  start(slot) is the lowest number of a slot, None
    where there is none.  .first is the slot that a drawing begins with, None: the first in use;
    .last the last that there can be, which is_open if it has no highest number.
    """

    def __init__(self, word, told, start, first=None, lowest=0, last=None, is_open=False):
        self.word, self.told, self.start, self.first = word, told, start, first
        self.lowest, self.last, self.is_open = lowest, last, is_open
        self.is_plain = False  # drawn as a slot's lowest number alone
        self.labels = {}  # type: dict  # (slot, width) -> how it is drawn

    def is_wide(self, slots):
        """Whether these slots are drawn in wide columns: as BCC does, elsewhere as they need it."""
        if self.word in ("log2", "bcc"):
            return slots[-1] > 32
        ends = self.bounds(slots[0]) + self.bounds(slots[-1])
        return max(len("%d" % end) for end in ends if end is not None) > 10

    def has(self, slot):
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
        """Return the slots that buckets have bounds of, in order; ValueError if they are too many.

        They are the same from run to run as far as can be, and end with one that is empty, or open.
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
    if used and max(used) - min(used) > _MAX_ROWS_DRAWN:
        raise ValueError("slots %d to %d are too many" % (min(used), max(used)))


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
    low, step = (tuple(numbers) + (0, 1)[len(numbers) :])[:2]
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
        numbers = [0] * (most + 1)
    if not least <= len(numbers) <= most or text.endswith(":"):
        raise ValueError("'%s' is no numbering of slots: %s" % (text, _NUMBERINGS_TEXT))
    return make(numbers)


class _KeySlots:
    """Histograms of which each key has a slot, and its value the count.

    .groups is {paths: {leaves of the rest of the key: [{slot: count} of each CPU, or of all]}}.
    """

    default = "bcc"

    def __init__(self, view, path):
        self.view, self.path, self.groups = view, path, {}
        self.fields = (path,)
        self.column = view.value_layout.reader("samples", view.slot).paths.index(path)

    def add(self, keys, values, cpus):
        """Take in a chunk; cpus are those whose counts stay apart, or ()."""
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

    default = "log2"

    def __init__(self, view, arrays):
        self.view = view
        self.arrays = arrays  # [(path of the array, the first of its columns, their number)]
        self.fields = tuple(path for path, _, _ in arrays)

    def rows(self, values, cpus):
        """Yield (path of an array, its counts in each value of a chunk), the CPUs' added up unless
        they stay apart.
        """
        reader = self.view.value_layout.reader("samples", self.view.slot)
        columns = list(zip(*reader.rows(values)))
        together = 1 if cpus else max(len(self.view.cpus), 1)
        for path, first, count in self.arrays if columns else ():
            _prove_integers(columns[first])
            yield path, zip(*[_added_up(one, together) for one in columns[first : first + count]])


def _prove_integers(column):
    if column and isinstance(column[0], float):
        raise ValueError(_NO_HISTOGRAM)


def _keyed_slots(view, keys):
    """Yield (paths and leaves of what else a key has, the number that is its slot) of each key."""
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


_NO_HISTOGRAM = (
    "a histogram needs a number as the key's last field and one number as the value, or an array "
    "of numbers in the value; --key-type and --value-type can say so"
)


class _NoSuchSlots(ValueError):
    """There is no such field."""


def _fields_text(paths):
    return ", ".join(dict.fromkeys(map(_members_text, paths))) or "none"


def _slots_of(view, field=""):
    """Return where a map has its histograms: the _KeySlots or the _ArraySlots of a field.

    Without a field it is what there is one of: a number for a value, an array, one called slots.
    """
    paths = getattr(view.value_layout.reader("samples", view.slot), "paths", None)
    if paths is None:  # unions, decided value by value
        raise ValueError(_NO_HISTOGRAM)
    arrays = _arrays_in(paths)
    field = field or _likely_slots(view, paths, arrays)
    for name, places in arrays.items():
        chosen = [one for one in places if field in (name, _field_text(one[0]))]
        if chosen:
            return _ArraySlots(view, chosen)
    if view.info.key_size and field in map(_members_text, paths):
        return _KeySlots(view, next(path for path in paths if _members_text(path) == field))
    raise _NoSuchSlots("no field '%s'; there are %s" % (field, _fields_text(paths)))


def _arrays_in(paths):
    """Return {field: [(path of an array of it, its first column, their number)]}."""
    lengths = {}  # type: dict
    for column, path in enumerate(paths):
        if path and isinstance(path[-1], int):
            first, count = lengths.get(path[:-1], (column, 0))
            lengths[path[:-1]] = first, count + 1
    arrays = {}  # type: dict
    for path, (first, count) in lengths.items():
        arrays.setdefault(_members_text(path), []).append((path, first, count))
    return arrays


def _likely_slots(view, paths, arrays):
    """Return the field that has the slots or, where the keys have them, the counts."""
    named = [name for name in arrays if name.split(".")[-1] == "slots"]
    if len(paths) == 1 and view.info.key_size:
        return _members_text(paths[0])
    for names in (list(arrays), named):
        if len(names) == 1:
            return names[0]
    if arrays:
        words = (_NO_HISTOGRAM, ", ".join(arrays))
        raise ValueError("%s; --slots FIELD=NUMBERING tells which of %s it is" % words)
    raise ValueError(_NO_HISTOGRAM)


def _members_text(path):
    """Return the name of a family's field: the labels alone, "value" where there is none."""
    return ".".join(step for step in path if not isinstance(step, int)) or "value"


# -- metrics


class _MetricWishes:
    """How metrics are to be: .types {field: "counter" or "gauge"}, .slots {field: numbering}, ""
    for the field that is likely, .is_per_cpu.
    """

    def __init__(self, types=(), slots=(), is_per_cpu=False):
        self.types, self.slots, self.is_per_cpu = dict(types), dict(slots), is_per_cpu


class _Family:
    """A metric: .name, .kind, what HELP says, the .lines of its series."""

    def __init__(self, name, kind, about):
        self.name, self.kind, self.about, self.lines = name, kind, about, []


# kind -> what stands behind the name of a family in its series (or is kept for it)
_SUFFIXES = {
    "gauge": ("",),
    "counter": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}


class _Families:
    """The metrics of a run, text for Prometheus: each family once, from whatever maps its series
    come.  Without counters it is OpenMetrics, too.
    """

    def __init__(self, wishes):
        self.wishes, self.known, self.taken = wishes, {}, set()
        self.unmet = (set(wishes.types) | set(wishes.slots)) - {""}  # fields that no map had
        self.fields = {}  # type: dict  # those that there were, in order

    def take(self, view, chunks):
        """Take in the entries of a map."""
        metrics = _MapMetrics(view, self)
        for keys, values, count in chunks:
            metrics.add(keys, values, count)
        metrics.end()

    def has(self, field):
        """Note that there is a field."""
        self.unmet.discard(field)
        self.fields[field] = True

    def of(self, base, members, kind, about):
        """Return the family of a field of maps of one name; its name is nobody else's."""
        key = base, members, kind
        if key not in self.known:
            wanted = _metric_name("_".join((base,) + members))
            self.known[key] = _Family(self._free(wanted, kind), kind, about)
        return self.known[key]

    def _free(self, wanted, kind):
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
                for lines in family.lines:
                    yield lines
        yield "# EOF"


class _MapMetrics:
    """What a map adds to the families: a series for each key and number in its value (and CPU, and
    index).
    """

    def __init__(self, view, families):
        if isinstance(view.value_layout, Bytes):
            told = "metrics need the type of the values of %s: --value-type"
            raise ValueError(told % view.info._about)
        self.view, self.info, self.families = view, view.info, families
        self.base = _metric_name("bpf_map_" + (self.info.name or "id%d" % self.info.id))
        self.seen = set()  # type: set  # labels of the keys
        self.reader = view.value_layout.reader("samples", view.slot)
        self.counts = view.value_layout.reader("counts", view.slot)
        self.added_up = None  # paths of what can be, where that is the same for all values
        if isinstance(self.counts, Reader):
            self.added_up = frozenset(self.counts.paths)
        self.keys = view.key_layout.reader("labels") if self.info.key_size else None
        self.labels = _Labels(["id", "map", "cpu"] + _INDEX_LABELS)
        self.paths = self.labelled = None  # of the last key, and the template of its labels
        self.common = 'id="%s",map="%s"' % (self.info.id, _label_text(self.info.name or ""))
        self.shown = self.info.name or "%d" % self.info.id
        self.apart = view.cpus if families.wishes.is_per_cpu else ()
        self.places = {}  # type: dict  # path -> (its family, the template of a line)
        self.histograms, self.drawn = [], set()  # drawn: paths of their fields
        for field, numbering in families.wishes.slots.items():
            self._take_slots(field, numbering)
        paths = getattr(self.reader, "paths", None)
        self.has_series = paths is None or not all(map(self._is_drawn, paths))
        for path in paths or ():
            families.has(_members_text(path))

    def _take_slots(self, field, numbering):
        try:
            slots = _slots_of(self.view, field)
        except _NoSuchSlots:  # another map may have it
            return
        self.families.unmet.discard(field)
        self.histograms.append((slots, numbering))
        self.drawn.update(slots.fields)

    def _is_drawn(self, path):
        return path in self.drawn or path[:-1] in self.drawn and isinstance(path[-1], int)

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
        heads = self._heads(keys, count)
        for path, where, column in self._series(values, heads):
            if path not in self.places:
                self.places[path] = self._place(path)
            lines, line = self.places[path]
            if isinstance(column[0], float):
                column = map(_metric_number, column)
            lines.append("\n".join(map(line.__mod__, zip(where, column))))
        for slots, numbering in in_arrays:
            self._add_arrays(slots, numbering, values, self._by_cpu(heads, self.apart))

    def end(self):
        """Write down what is known when all has been seen."""
        for slots, numbering in self.histograms:
            if isinstance(slots, _KeySlots) and slots.groups:
                self._add_groups(slots, numbering)

    def _by_cpu(self, heads, cpus):
        return [head + ',cpu="%d"' % cpu for head in heads for cpu in cpus] if cpus else heads

    def _series(self, values, heads):
        """Yield (path, labels, numbers) of the samples; the CPUs' counts are added up unless they
        stay apart.
        """
        cpus = max(len(self.view.cpus), 1)
        apart, countable = heads, frozenset()
        if self.view.cpus:
            apart = self._by_cpu(heads, self.view.cpus)
            countable = self._countable(values)
        for path, indices, column in self.reader.series(values):
            if self._is_drawn(path):
                continue
            if path not in countable:
                where = apart if indices is None else [apart[index] for index in indices]
                yield path, where, column
            elif indices is None:
                yield path, heads, _added_up(column, cpus)
            else:
                sums = {}  # type: dict
                for index, number in zip(indices, column):
                    sums[index // cpus] = sums.get(index // cpus, 0) + number
                yield path, [heads[entry] for entry in sums], list(sums.values())

    def _countable(self, values):
        """Return the paths of what is added up over the CPUs."""
        if self.apart:
            return frozenset()
        if self.added_up is not None:
            return self.added_up
        return {path for path, _, _ in self.counts.series(values)}

    def _place(self, path):
        """Return the lines of a path's family, and the template of one."""
        members = tuple(step for step in path if not isinstance(step, int))
        field = _members_text(path)
        self.families.has(field)
        kind = self.families.wishes.types.get(field, "gauge")
        family = self._family(members, kind, "%s of BPF map %s." % (field, self.shown))
        return family.lines, family.name + "{%s" + _index_labels(path) + "} %s"

    def _family(self, members, kind, about):
        return self.families.of(self.base, members, kind, about)

    # -- histograms: buckets add up from the lowest on; what a map does not tell, the sum of the
    # numbers, is given as if each were the lowest of its slot

    def _histogram(self, path, numbering):
        members = tuple(step for step in path if not isinstance(step, int))
        words = (_members_text(path), self.shown, numbering.word)
        about = "%s of BPF map %s, slots %s; _sum takes each for the lowest of its slot." % words
        return self._family(members, "histogram", about)

    def _add_arrays(self, slots, numbering, values, heads):
        for path, rows in slots.rows(values, self.apart):
            family, tail = self._histogram(path, numbering), _index_labels(path)
            for head, row in zip(heads, rows):
                counts = dict(enumerate(row))
                numbering.prove(slot for slot, count in counts.items() if count)
                known = [slot for slot in counts if numbering.has(slot)]
                # the last element of an array has what is larger, too
                family.lines.append(_buckets(family.name, head + tail, known, counts, numbering))

    def _add_groups(self, slots, numbering):
        family = self._histogram(slots.path, numbering)
        tail = _index_labels(slots.path)
        found, used = {}, set()
        for paths, leaves, cpu, counts in slots.histograms(self.apart):
            head = self._head(paths, leaves) + tail
            if cpu is not None:
                head += ',cpu="%d"' % cpu
            into = found.setdefault(head, {})
            for slot, count in counts.items():
                into[slot] = into.get(slot, 0) + count
            used.update(slot for slot, count in counts.items() if count)
        known = numbering.bounded(used)
        for head, counts in found.items():
            family.lines.append(_buckets(family.name, head, known, counts, numbering))

    # -- labels

    def _heads(self, keys, count):
        """Return the labels of each key, which tell it from all others."""
        if self.keys is None:
            return [self.common] * count
        heads, size = [], self.info.key_size
        for index, (paths, row) in enumerate(self.keys.pathed(keys)):
            head = self._head(paths, row)
            if head in self.seen:  # they differ in a hole, or in what has no name
                raw = keys[index * size : (index + 1) * size]
                head += ',key_bytes="%s"' % _hex(raw)
            self.seen.add(head)
            heads.append(head)
        return heads

    def _head(self, paths, row):
        """Return the labels of a key with these leaves."""
        if paths is not self.paths:
            labels = ['%s="%%s"' % self.labels.name(path) for path in paths]
            self.paths, self.labelled = paths, ",".join([self.common.replace("%", "%%")] + labels)
            self.quotes = self.labelled.count('"')
        head = self.labelled % row
        if "\\" not in head and head.count('"') == self.quotes and head.isprintable():
            return head
        return self.labelled % tuple([_label_text(str(leaf)) for leaf in row])


# what the indices of arrays in arrays are labelled with
_INDEX_LABELS = ["index"] + ["index_%d" % number for number in range(2, MAX_DEPTH + 1)]


def _index_labels(path):
    """Return the labels for the indices in a path, as they stand behind others."""
    places = [step for step in path if isinstance(step, int)]
    return "".join(map(',%s="%d"'.__mod__, zip(_INDEX_LABELS, places)))


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


class _Labels:
    """Names of labels for the paths of a key's leaves: legal, not reserved, no two the same."""

    def __init__(self, taken):
        self.taken, self.names = set(taken) | {"le", "quantile", "key_bytes"}, {}

    def name(self, path):
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


def _metric_name(text):
    """Return text with what a metric's name can't have replaced."""
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
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    return "NaN" if number != number else repr(number)


# A capture is text: a line of JSON about the map, a line of hex for each entry, and a line with the
# number of entries and the SHA-256 of all before it, so that whatever is cut off or changed is
# noticed.


def capture(m: "_Descriptor", path: "_Path") -> int:
    """Write a map's info, BTF and entries to a file, which appears when it is whole.

    A plain file of that name is replaced, its mode and (where one may) its owner kept; of several
    captures to one path the last stays.

    returns    the number of entries
    raises     SyscallError, OSError: also for what is no plain file, a link among them
    """
    return _capture(m, path, isinstance(m, Map) and [m.key_layout, m.value_layout])


def _capture(m, path, layouts=None, shown=()):
    """Write a capture, with the names that the machine has for what is in it.

    layouts are of keys and values, where they are not BTF's; shown are the pairs of field and word
    that were asked for.
    """
    path = os.fsdecode(path)
    with Map.from_fd(m, bytes, bytes) as source, _Replacement(path) as replacement:
        if not layouts:
            view = View(source)
            layouts = [view.key_layout, view.value_layout]
        view = View(source, bytes, bytes)
        return _write_capture(view, replacement.file, _NamesFound(layouts, view), shown)


class _NamesFound:
    """The names of what is captured, as this machine has them: .texts {word: {number: text}}.

    What they can't be looked for in, a type of too many values or an entry that chooses no branch
    of a _union_, is captured all the same.
    """

    def __init__(self, layouts, view):
        self.texts, self.readers = {}, []
        strides = view.info.key_size, view.slot
        for at, (one, stride) in enumerate(zip(layouts, strides)):
            if one is None or _named_by(one, self) is one:  # it has no such names
                continue
            try:
                reader = one.reader("names", stride)
            except LayoutError:
                continue
            if not isinstance(reader, Reader) or reader.paths:
                self.readers.append((at, reader))

    def add(self, chunk):
        """Take in the names of what is in a chunk."""
        for at, reader in self.readers:
            for pairs in self._read(reader, chunk[at]):
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
                self.file = open(self.temporary, "xb", opener=opener)
                return
            except FileExistsError:
                self.temporary = None

    def _keep_rights(self):
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


def _write_capture(view, file, names, shown):
    """Write a map to a file; return the number of entries."""
    import hashlib
    import json

    digest, count, progress = hashlib.sha256(), 0, _Progress(view.info)

    def put(text):
        line = text.encode() + b"\n"
        digest.update(line)
        file.write(line)

    header = _capture_header(view.source)
    header["shown"] = [list(pair) for pair in shown]
    if names.readers:
        header["bpflookup_capture"] = _CAPTURE_WITH_NAMES
    put(json.dumps(header))
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


def _capture_header(source):
    """Return what the first line of a capture tells."""
    import base64
    import time  # which on old Pythons reads the zone's file

    def encoded(btf):
        return btf and base64.b64encode(btf.data).decode()

    info, system = source.info, os.uname()
    return {
        "bpflookup_capture": _CAPTURE_PLAIN,
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
        "exact": source.exact_scan,
    }


def _captured_chunks(view):
    """Yield a map's entries as View.chunks does, of one without batch commands too."""
    if view.source._batches():
        yield from view.chunks()
        return
    entries = view.entries()
    while True:
        part = list(islice(entries, _CHUNK_ENTRIES))
        if not part:
            return
        yield view.chunk_of(part)


def _capture_lines(view, chunk):
    """Return the lines of a chunk: hex for the key, and for the value or that of each CPU."""
    keys, values, _ = chunk
    value_words = _hex_words(values, view.info.value_size, view.slot)
    words = [_hex_words(keys, view.info.key_size)] + [value_words] * max(len(view.cpus), 1)
    return "\n".join(map(" ".join, zip(*words)))


def _hex_words(raw, size, stride=None):
    """Return an iterator over the elements of raw in hex, "-" for those without bytes."""
    if not size:
        return repeat("-")
    text, step = raw.hex(), 2 * (stride or size)
    return (text[start : start + 2 * size] for start in range(0, len(text), step))


_CAPTURE_DIGITS = 20  # of a number: more are hostile, and take Python long
_MAX_SHOWN = 256  # of the wishes that a capture keeps; people type a few
# What the first line says of the lines: those of version 2 end with one of names.
_CAPTURE_PLAIN, _CAPTURE_WITH_NAMES = 1, 2


class Capture:
    """A map as capture wrote it down; load(path) opens one, on any machine.

    info, btf  as of the map
    header     a dict: host, kernel, time ...
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
        """Take in a capture's first and last line; the entries are kept as they are."""
        header = self.header = _capture_json(data[: data.index(b"\n") + 1])
        self._data, self._first = data, data.index(b"\n") + 1
        self._end = data.rindex(b"\n", 0, len(data) - 1) + 1
        version = header["bpflookup_capture"]
        if version not in (_CAPTURE_PLAIN, _CAPTURE_WITH_NAMES):
            raise ValueError
        self.count = _check_whole(data, self._end, version)
        names = {}
        if version == _CAPTURE_WITH_NAMES:
            end, self._end = self._end, data.rindex(b"\n", 0, self._end - 1) + 1
            names = _capture_json(data[self._end : end])["names"]
        self.names = _CapturedNames(names, header.get("clock"), header["order"])
        self.shown = [
            (str(field), str(word)) for field, word in header.get("shown", ())[:_MAX_SHOWN]
        ]
        self.info = MapInfo.__new__(MapInfo)
        for name in MapInfo.__slots__:
            setattr(self.info, name, header["info"][name])
        base = _capture_btf(header["base"])
        self.btf = _capture_btf(header["btf"], base)
        self._btf_types, self.cpus, self.order = header["types"], header["cpus"], header["order"]
        _check_capture_info(self.info)
        cpus_fit = self.info.type not in _PERCPU_TYPES or self.cpus
        types_fit = set(self._btf_types) <= ({"key", "value"} if self.btf else set())
        if self.order not in _ORDER_MARKS or not cpus_fit or not types_fit:
            raise ValueError
        for number in self.cpus + list(self._btf_types.values()):
            _check_number(number, 32)

    @property
    def _lines(self):
        """The lines of the entries, one by one: together they would be the file once more."""
        start, data = self._first, self._data
        while start < self._end:
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
            words = b" \n ".join(lines).split(b" ") + [b"\n"]
            step = len(sizes) + 1
            lengths = [set(map(len, words[at::step])) for at in range(step)]
            lines_end = set(words[step - 1 :: step]) == {b"\n"} and len(words) == step * len(lines)
            if not lines_end or lengths != [{2 * size or 1} for size in sizes] + [{1}]:
                raise ValueError("a capture's entry is not of %s bytes" % sizes)
            keys = b"".join(words[::step])
            del words[step - 1 :: step]
            del words[:: step - 1]
            values = b"".join(words) if sizes[1] else b""
            yield bytes.fromhex(keys.decode()), bytes.fromhex(values.decode()), len(lines)

    def items(self) -> "Iterator[Tuple[Any, Any]]":
        """Yield (key, value) as Map.items does; of a per-CPU map a list of each CPU's."""
        key_of, value_of = (
            _object_maker(self._view.key_layout),
            _object_maker(self._view.value_layout),
        )
        for key, value in self.entries():
            if isinstance(value, list):
                yield key_of(key), [value_of(one) for one in value]
            else:
                yield key_of(key), value_of(value)


def _capture_json(line):
    """Return what a line of a capture says."""
    import json

    return json.loads(line.decode(), parse_int=_captured_number)


def _captured_number(digits):
    if len(digits) > _CAPTURE_DIGITS:
        raise ValueError
    return int(digits)


class _CapturedNames:
    """The names that a machine had for numbers when a capture was made; see _Machine."""

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
            _check_number(self._now, 64)
            _check_number(self.boot, 64)

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


def _check_whole(data, end, version):
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


# Numbers that the kernel keeps in 64 bits, those that are always there, and the rest.
_CAPTURED_LONG = frozenset(("map_extra", "memlock"))
_CAPTURED_ALWAYS = frozenset(("id", "type", "key_size", "value_size", "max_entries", "map_flags"))


def _check_capture_info(info):
    """Raise ValueError for numbers that no map has."""
    for name in MapInfo.__slots__:
        number = getattr(info, name)
        if name != "name" and (number is not None or name in _CAPTURED_ALWAYS):
            _check_number(number, 64 if name in _CAPTURED_LONG else 32)
    if not isinstance(info.name or "", str) or not info.key_size or not info.value_size:
        raise ValueError
    key_fits = info.type not in _INDEX_TYPES or info.key_size == 4
    value_fits = info.type not in _OF_MAPS_TYPES or info.value_size == 4
    if not key_fits or not value_fits:
        raise ValueError


def _check_number(number, bits):
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
    """Tells people on a terminal how far it is."""

    def __init__(self, info):
        import time  # which on old Pythons reads the zone's file

        self.info, self.clock = info, time.time
        self.next_time = self.clock() + 1
        self.is_watched = sys.stderr.isatty() and not sys.stdout.isatty()

    def show(self, count):
        if self.is_watched and self.clock() > self.next_time:
            self.next_time = self.clock() + 0.5
            sys.stderr.write("\r%d of at most %d entries\033[K" % (count, self.info.max_entries))
            sys.stderr.flush()

    def end(self):
        if self.is_watched:
            sys.stderr.write("\r\033[K")


# ---- 9. Command line --------------------------------------------------------

# command -> usage, what it does, an example, what else its -h says.  The order is bpftool's: a
# prefix stands for the first that it fits.  No line of help has more than 80 columns.
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
_SAME = {"list": "show", "enqueue": "push", "dequeue": "pop"}
# Those that show keys or values.
_SHOWING = frozenset("dump lookup getnext peek pop watch hist".split())
_SILENT = frozenset(
    ("update", "delete", "pin", "push", "freeze", "create")
)  # null in bpftool's JSON
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


def _metric_kind(word):
    if word not in ("counter", "gauge"):
        raise ValueError("a metric is a counter or a gauge, not '%s'" % word)
    return word


class _UsageError(Exception):
    """A command line that makes no sense; the message says why."""


class _Miss(Exception):
    """What was asked for is not there: what to tell people, what bpftool's JSON says."""


def _stands_for(word, *names):
    """Return the first of the names that a word is, or begins; None if it is none of them."""
    if word in names:
        return word
    return next((name for name in names if word and name.startswith(word)), None)


_MAP_WORDS = ("id", "name", "pinned")
_FLAG_WORDS = {"any": BPF_ANY, "exist": BPF_EXIST, "noexist": BPF_NOEXIST}
# What can stand after MAP in the commands that take DATA; from there on the words are _Given's.
_CLAUSES = {
    "lookup": ("key",),
    "getnext": ("key",),
    "delete": ("key",),
    "push": ("value",),
    "enqueue": ("value",),
    "update": ("key", "value") + tuple(_FLAG_WORDS),
}


class _Options:
    """A command line: its options as attributes, and its words.

    Commands take .words from the front.  .data is what stands after MAP from the first "key",
    "value" or flag on: there the map's types tell what a word is.
    """

    # fmt: off
    FLAGS = {
        "-j": "json", "--json": "json", "-p": "pretty", "--pretty": "pretty",
        "-f": "bpffs", "--bpffs": "bpffs", "--hex": "hex", "--ndjson": "ndjson",
        "--metrics": "metrics", "--per-cpu": "per_cpu", "--entries": "entries",
        "--big-ints-as-strings": "strings", "--trace": "trace", "--once": "once",
        "-h": "help", "--help": "help", "-V": "version", "--version": "version",
        # bpftool's, which change nothing here
        "-n": "same", "--nomount": "same", "-d": "same", "--debug": "same",
        "-l": "same", "--legacy": "same",
    }
    VALUES = {
        "--key-type": "key_type", "--value-type": "value_type", "--from": "file",
        "--btf": "btf", "--base-btf": "base_btf", "-B": "base_btf", "--token": "token",
        "--metrics-type": "metrics_type", "--slots": "slots", "--show": "show",
    }
    # fmt: on
    # What may still be said behind DATA; the others would come too late there.
    LATE = frozenset(
        "json pretty bpffs hex ndjson metrics same key_type value_type per_cpu metrics_type slots "
        "strings show".split()
    )
    LISTS = frozenset(("metrics_type", "slots", "show"))  # given twice they add up
    # what would do nothing without --metrics
    METRICS = {"metrics_type": "--metrics-type", "per_cpu": "--per-cpu", "entries": "--entries"}

    def __init__(self, words):
        self.words, self.data, ended = [], [], False
        self.notice = ""  # what is told in the end, or with what went wrong
        self.unfinished = ""  # what ends the JSON that was begun, should it break off
        for name in list(self.FLAGS.values()) + list(self.VALUES.values()):
            setattr(self, name, None)
        rest = list(words)
        while rest:
            if ended or not self.is_option(rest[0]):
                self.words.append(rest.pop(0))
                if self._data_follows(rest):
                    self.data = [self.words.pop()] + rest
                    break
            elif rest[0] == "--":
                ended = rest.pop(0)
            else:
                self.option(rest)
        self.ended = bool(ended)

    def is_option(self, word):
        """Whether a word is an option; after id, name and pinned only one that there is."""
        if word[:1] != "-" or not (word[1:2].isalpha() or word[1:2] == "-"):
            return False
        argument = self.words and self.words[-1] in _MAP_WORDS
        return not argument or word == "--" or self.sets(word) is not None

    def sets(self, word):
        """Return the attributes that an option sets, None if there is none such; -jp is -j -p."""
        option = word.partition("=")[0]
        if option in self.VALUES:
            return [self.VALUES[option]]
        short = word[:1] == "-" and word[1:].isalpha()
        names = [self.FLAGS.get(one) for one in (["-" + c for c in word[1:]] if short else [word])]
        return None if None in names else names

    def option(self, words):
        """Take an option from the front of words, and its value."""
        word = words.pop(0)
        names, (option, sign, value) = self.sets(word), word.partition("=")
        if names is None:
            known = [one for one in list(self.FLAGS) + list(self.VALUES) if one[:2] == "--"]
            raise _UsageError(_unknown("option " + word, word, known))
        if option in self.VALUES and not sign and not words:
            raise _UsageError("%s wants a value" % word)
        if option in self.VALUES:
            value = value if sign else words.pop(0)
            before = getattr(self, names[0])
            if names[0] in self.LISTS and before:
                value = before + "," + value
            setattr(self, names[0], value)
            return
        for name in names:
            setattr(self, name, True)
        self.json = self.json or self.pretty

    def _data_follows(self, following):
        """Whether the words so far are a command, MAP, and "key", "value" or a flag."""
        words = self.words[1:] if _is_map(self.words[0]) else self.words
        clauses = _CLAUSES.get(_command_name(words[0])) if words else None
        if not clauses:
            return False
        ahead = [word for word in following[:3] if not self.is_option(word)]
        length = 0 if self.file else _map_length(words[1:] + ahead, _opens(clauses))
        return len(words) == length + 2 and _stands_for(words[-1], *clauses) is not None

    def text(self, thing):
        import json

        how = {"indent": 4} if self.pretty else {"separators": (",", ":")}
        return json.dumps(thing, **how)

    def put(self, thing, end="\n"):
        """Print a thing as JSON."""
        sys.stdout.write(self.text(thing) + end)

    def put_entry(self, view, key, value):
        """Print an entry in the form asked for."""
        if self.json:
            self.put_text(view.bpftool_entry(key, value))
            return
        for text in self.form_of(view)([view.chunk_of([(key, value)])]):
            print(text)

    def put_text(self, text, end="\n"):
        """Print JSON that is text already."""
        sys.stdout.write((_indented(text) if self.pretty else text) + end)

    def form_of(self, view):
        """Return the method of a view that makes text of chunks of entries, but for -j."""
        for is_asked, form in (
            (self.ndjson, view.json_lines),
            (self.metrics, lambda chunks: self.metrics_of([(view, chunks)])),
            (self.hex, view.hexadecimal),
        ):
            if is_asked:
                return form
        return view.words

    def metrics_of(self, sources):
        """Return the lines of the metrics of (view, chunks) of maps."""
        types = self._assigned("--metrics-type", self.metrics_type, _metric_kind)
        slots = self.numberings()
        families = _Families(_MetricWishes(types, slots, self.per_cpu))
        for view, chunks in sources:
            families.take(_with_types_of_bpftrace(self, view, slots.get("")), chunks)
        if families.unmet:
            words = sorted(families.unmet)[0], ", ".join(families.fields) or "none"
            raise _UsageError("no field '%s' for metrics; there are %s" % words)
        return families.text()

    def numberings(self):
        """Return {field, or "" for the likely one: _Numbering} of --slots."""
        return self._assigned("--slots", self.slots, _numbering, "")

    def _assigned(self, option, text, make, default=None):
        """Return {field: what make makes of its word} of an option's FIELD=WORD,... ."""
        found = {}
        for pair in text.split(",") if text is not None else ():
            field, sign, word = pair.rpartition("=")
            if not sign and default is None or sign and not field:
                raise _UsageError("%s takes FIELD=WORD,..., not '%s'" % (option, pair))
            try:
                found[field if sign else default] = make(word)
            except ValueError as error:
                raise _UsageError("%s: %s" % (option, error)) from None
        return found

    def view(self, mode=None, rest=0):
        """Take the words of a map or, with no mode, the capture; return its View.

        rest words may follow, None: any number.
        """
        if self.file is not None and mode:
            raise _UsageError("this takes a map, not a capture")
        if self.file is not None and self.command in _CLAUSES:
            self.data = self.words + self.data  # whether --from stood before or behind
            self.words = []
        if self.file is not None:
            self.end(rest)
            return self.view_of(Capture.load(self.file))
        view = self.view_of(self.opened(mode or "r", rest))
        if self.command in _SHOWING and not self.hex and None in (self.key_type, self.value_type):
            self._tell_why_untyped(view)
        return view

    def opened(self, mode, rest):
        """Take the words of a map; return the Map, of bytes."""
        if not self.words or not self.words[0]:
            raise _UsageError("a map: id N, name S, pinned PATH is needed")
        length = _map_length(self.words, lambda after: rest is None or len(after) == rest)
        self.map, self.words = self.words[:length], self.words[length:]
        self.end(rest)
        return _open_words(self.map, mode, self.token)

    def view_of(self, source, *types):
        """Return the View of a map or capture with the types, meanings and form of numbers that
        were asked for; types are of keys and values where they are not the options'.
        """
        key, value = types or (self.key_type, self.value_type)
        view = View(source, key, value, self.given_btf())
        view.json_suffix = " strings" if self.strings else ""
        for wish in self.wishes():
            _as_wished(view.show, wish)
        return view

    def given_btf(self):
        """Return the BTF of --btf, None without it."""
        return None if self.btf is None else _asked_btf(self)

    def wishes(self):
        """Return the pairs of field and word of --show."""
        texts = self.show.split(",") if self.show else ()
        return [_field_and_word(text) for text in texts if text.strip()]

    def _tell_why_untyped(self, view):
        """Say in a line why keys and values come as bytes, although the map has BTF."""
        info = view.info
        if not (info.btf_id or info.btf_vmlinux_value_type_id) or view.source.btf:
            return
        why = "the map's types are missing: " + _one_line(view.source._no_btf)
        if self.metrics and isinstance(view.value_layout, Bytes):
            raise ValueError("metrics need the type of the values (--value-type); " + why)
        self.notice = why

    def given(self, view):
        """Return (View, _Given) of the words of DATA; another View if they end in --value-type."""
        before = self.key_type, self.value_type, self.show
        given = _Given(self, view)
        if (self.key_type, self.value_type, self.show) != before:
            view = self.view_of(view.source)
            given = _Given(self, view)
        return view, given

    def views(self):
        """Take the words of maps; return a View of each, and of each map that has the name."""
        if self.file is not None:
            return [self.view()]
        found = self._named_views()
        while self.words:
            found += self._named_views()
        if self.ndjson and found[1:]:
            raise _UsageError("--ndjson takes one map: its lines do not tell of which they are")
        return found

    def _named_views(self):
        """Take the words of a map; return a View of each map that has the name."""
        try:
            return [self.view(rest=None)]
        except AmbiguousName as several:
            if self.ndjson:
                raise
            return self._views_of(several.ids)

    def _views_of(self, ids):
        """Return a View of each map that is still there."""
        found, gone, others = [], None, self.words
        for map_id in ids:
            self.words = ["id", str(map_id)]
            try:
                found.append(self.view())
            except MapNotFound as error:
                gone = error
        self.words = others
        if gone and not found:
            raise gone
        return found

    def take(self, what):
        """Take the next word, which is what."""
        if not self.words or not self.words[0]:
            raise _UsageError("%s is needed" % what)
        return self.words.pop(0)

    def end(self, rest=0):
        """Refuse words that are left, but for rest ones; None: any number."""
        if rest is not None and len(self.words) > rest:
            opening = [one for one in _CLAUSES.get(self.command, ()) if one not in _FLAG_WORDS]
            wanted = ", %s is needed" % " or ".join(map(repr, opening)) if opening else ""
            raise _UsageError("unexpected '%s'%s" % (self.words[rest], wanted))


def _field_and_word(text):
    """Return (field, word) of FIELD=WORD, what --show takes."""
    field, sign, word = text.rpartition("=")
    if not sign:
        raise _UsageError("--show takes FIELD=WORD,..., not '%s'" % text)
    return field.strip(), word.strip()


def _as_wished(showing, wish):
    """Return showing(field, word) for a wish of --show."""
    try:
        return showing(*wish)
    except LayoutError as failure:
        raise _UsageError("--show: %s" % failure) from None


def _is_map(word):
    """Whether a word is "map", which may be left out, or begins it; "m" is no command."""
    return word not in _COMMANDS and _stands_for(word, "map") is not None


def _command_name(word):
    return _stands_for(word, *_COMMANDS)


def _opens(clauses):
    """Return what tells whether words can follow MAP: none, or those of a clause."""
    return lambda words: not words or _stands_for(words[0], *clauses) is not None


def _map_length(words, can_follow):
    """Return how many of the first words are MAP: 2 for "id N", "name S", "pinned PATH", else 1.

    A shortened "n" may be a map's own name: it is that where what stands behind "n S" can't follow.
    """
    kind = _stands_for(words[0], *_MAP_WORDS) if words else None
    if kind == words[0] if words else False:
        return min(2, len(words))
    return 2 if kind and words[1:] and can_follow(words[2:]) else min(1, len(words))


def _open_words(words, mode="r", token=None):
    """Return the Map that MAP names, of bytes.  A path is taken as it is, blanks and all."""
    kind, which = _stands_for(words[0], *_MAP_WORDS) if words[1:] else None, words[-1]
    if words == [kind] or words[0] in _MAP_WORDS and not words[1:]:
        raise _UsageError("what follows '%s' is needed" % words[0])
    if kind is None:
        bare = {"/" in which: "pinned", which.isdecimal(): "id"}
        kind = bare.get(True, "name")
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
        missing.hint = "is it %s?" % " or ".join(map(repr, near)) if near else missing.hint
        raise


def _unknown(what, word, names):
    """Return the message that what is unknown, and which of the names its word was meant for."""
    near = _nearest(word, names)
    return "unknown %s%s" % (what, "; is it %s?" % " or ".join(near) if near else "")


def _nearest(word, names):
    """Return those of the names that are nearly a word, at most three."""
    meant = _folded(word.replace("@", "AT_"))  # bpftrace's maps
    found = [name for name in names if _folded(name) == meant[:15]]
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
    return name.lower().replace("-", "_")


class _Closed:
    """Standard output that was closed when we started: no harm until something is written."""

    failure = None

    def write(self, text):
        self.failure = self.failure or OSError(errno.EBADF, "it is closed")
        raise self.failure

    def flush(self):
        if self.failure:
            raise self.failure

    def isatty(self):
        return False


def main(argv: "Optional[Sequence[str]]" = None) -> int:
    """Run the command line; return 0 (done), 1 (failed, not found) or 2 (usage)."""
    _prepare_streams()
    _this_machine.forget()
    options = None
    try:
        options = _Options(sys.argv[1:] if argv is None else argv)
        status = _run(options) or 0
        sys.stdout.flush()
        return status
    except _Miss as miss:
        return _complain(options, miss.args[0], 1, miss)
    except BrokenPipeError:  # the reader has gone: nothing is left to say, not even at exit
        _give_up_stdout()
        return 1
    except KeyboardInterrupt:
        return 130
    except _UsageError as error:
        return _complain(options, "%s (see --help)" % error, 2)
    except (BPFError, OSError, ValueError, OverflowError, ImportError) as error:
        return _complain(options, error, 1)  # ImportError: a bare system may lack json
    except MemoryError:
        return _complain(options, "out of memory", 1)


def _prepare_streams():
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if hasattr(sys.stdout, "reconfigure"):  # 3.7; a map's name may hold what LANG=C cannot print
        sys.stdout.reconfigure(errors="backslashreplace")


def _give_up_stdout():
    """Let what could not be written be forgotten, or Python would complain once more at exit."""
    try:
        if isinstance(sys.stdout, _Closed):
            sys.stdout = open(os.devnull, "w")
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # no file, or closed
        pass


def _complain(options, problem, status, miss=None):
    """Tell a problem, in one line and as JSON where that is asked for; return the exit status."""
    told = False
    try:
        if options and options.json:
            told = _complain_in_json(options, problem, miss)
        sys.stdout.flush()
    except OSError as failure:  # a full disk, a closed descriptor
        _give_up_stdout()
        problem, status, told = failure, 1, False
    try:
        if not miss or not told:
            line = _one_line(_problem_text(problem))
            if options and options.notice and options.notice not in line:
                line += "; " + options.notice
            sys.stderr.write("bpflookup: %s\n" % line)
    except OSError:  # nobody can be told
        pass
    return status


def _complain_in_json(options, problem, miss):
    """Print a problem as JSON, or only end what was begun; return whether that tells a miss."""
    if options.unfinished:
        sys.stdout.write(options.unfinished + "\n")
        return False
    try:
        options.put(miss.args[1] if miss else {"error": _problem_text(problem)})
    except ImportError:
        return False
    return True


def _problem_text(problem):
    """Return what an error says; of the system's own ones without the number."""
    if not isinstance(problem, OSError) or isinstance(problem, BPFError):
        return str(problem)
    # what has no name is what we write to
    name = "standard output" if problem.filename is None else os.fsdecode(problem.filename)
    return "%s: %s" % (_printable(name), problem.strerror or problem)


def _one_line(text):
    """Return the first line of a text, what can't be printed escaped."""
    return _printable(text.split("\n")[0])


def _run(options):
    if options.version:
        return print("bpflookup %s" % __version__)
    name = _take_command(options)
    if options.help and name != "help":
        options.words[:], name = [name], "help"
    options.command = _SAME.get(name, name)
    for setting, option in options.METRICS.items():
        if getattr(options, setting) and not options.metrics:
            raise _UsageError("%s goes with --metrics" % option)
    if options.slots and not options.metrics and options.command != "hist":
        raise _UsageError("--slots goes with hist or --metrics")
    with trace() if options.trace else _Nothing():
        options.token = options.token and create_token(options.token)
        status = globals()["_" + options.command](options)
    if options.notice:
        sys.stderr.write("bpflookup: %s\n" % options.notice)
    if options.command in _SILENT and options.json:
        options.put(None)
    return status


def _take_command(options):
    """Take the name of the command from the front, whole."""
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
    name = _command_name(word)
    if name is None:
        raise _UsageError(_unknown("command '%s'" % word, word, _COMMANDS))
    return name


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _help(options):
    name = options.words[0] if options.words else None
    if name is None:
        print("usage: %s [OPTION]... [map] COMMAND ...\n" % _program())
        for name, (_, text, _, _) in _COMMANDS.items():
            print("  %-9s %s" % (name, text))
        return print("\nCOMMAND -h tells more of one.\n\n%s" % _WORDS_HELP)
    if name not in _COMMANDS:
        raise _UsageError(_unknown("command '%s'" % name, name, _COMMANDS))
    usage, text, example, _ = _COMMANDS[name]
    _, same, _, more = _COMMANDS[_SAME.get(name, name)]
    text = text if text == same else "%s: %s" % (text, same)
    print(("usage: %s [OPTION]... %s %s" % (_program(), name, usage)).rstrip())
    print("%s%s.\n%s" % (text[0].upper(), text[1:], more and "\n%s\n" % more))
    print("for example: %s %s" % (_program(), example))
    return print("%s --help tells what MAP and DATA are, and all options." % _program())


def _program():
    """Return the name that we were called by; where that tells nothing, the file's."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    known = name not in ("", "-", "-c") and __name__ == "__main__" or name.startswith("bpflookup")
    return name if known else "bpflookup.py"


def _show(options):
    views = options.views() if options.words or options.file else []
    infos = [view.info for view in views] or list(maps())
    if options.metrics and not options.json:
        return _show_metrics(options, infos, views)
    pinned = pins() if not options.file and (options.bpffs or not options.json) else {}
    if options.json:
        # bpftool tells of each map where it is pinned as soon as any is
        shown = [_info_json(info, pinned.get(info.id, []) if pinned else None) for info in infos]
        return options.put(shown[0] if len(views) == 1 else shown)
    if not views and infos and _is_terminal():
        return _show_table(infos, pinned)
    for info in infos:
        used = {}
        if views and not options.file:
            used = users(info.id, [view.source for view in views])
        _show_one(info, pinned.get(info.id), used)
    return None


# What the table of map show tells: (name, whether a number), and what it is.
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
    table = _Aligned([column for column, _ in _SHOWN_COLUMNS] + [("pinned", False)], rows)
    print(table.head)
    print(table.text(rows))


# The metrics of map show: name behind bpf_maps_, what of a map's info it is, what HELP says.
# They begin as no family of a dump does.
_INFO_METRICS = (
    ("max_entries", "max_entries", "Entries that the map may have"),
    ("key_size_bytes", "key_size", "Size of a key"),
    ("value_size_bytes", "value_size", "Size of a value, on one CPU"),
    ("memlock_bytes", "memlock", "Memory that the map takes"),
)


def _show_metrics(options, infos, views):
    """Print what the kernel tells of maps as metrics."""
    families, infos = _Families(_MetricWishes()), {info.id: info for info in infos}
    labels = 'id="%d",map="%s",type="%s"'
    heads = {
        info.id: labels % (info.id, _label_text(info.name or ""), map_type_name(info.type))
        for info in infos.values()
    }

    def add(name, about, numbers):
        family = families.of("bpf_maps", (name,), "gauge", about + ".")
        for map_id, number in numbers:
            if number is not None:
                family.lines.append("%s{%s} %d" % (family.name, heads[map_id], number))

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
    except BPFError:  # gone meanwhile, or of a type whose entries can't be read
        return None


# What a map's second line tells, in bpftool's names for it.
_SHOWN_NUMBERS = (
    "bytes_key",
    "bytes_value",
    "max_entries",
    "bytes_memlock",
    "owner_prog_type",
    "btf_id",
    "frozen",
)


def _show_one(info, pinned, used):
    """Print what people want to know of a map."""
    known = _info_json(info)
    numbers = ["%s %s" % (word, known[word]) for word in _SHOWN_NUMBERS if word in known]
    print("%s\n\t%s" % (_headline(info), "  ".join(numbers).replace("bytes_", "")))
    for what, things in (
        ("pinned", pinned),
        ("programs", used.get("progs")),
        ("processes", used.get("pids")),
    ):
        if things:
            print("\t%s %s" % (what, ", ".join(map(_printable, things))))


def _headline(info):
    name = "  name " + _printable(info.name) if info.name else ""
    return "%d: %s%s  flags 0x%x" % (info.id, map_type_name(info.type), name, info.map_flags)


def _info_json(info, pinned=None):
    """Return a map's info as bpftool names it, without what the kernel does not tell."""
    owned = info.type == BPF_MAP_TYPE_PROG_ARRAY  # newer kernels tell it of others too
    owner = info.owner_prog_type if owned else None
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
        "owner_jited": info.owner_jited if owned else None,
        "frozen": None if info.frozen is None else int(info.frozen),
        "btf_id": info.btf_id or None,
        "pinned": pinned,
    }
    return {name: value for name, value in known.items() if value is not None}


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
    """What a dump has in place of an entry whose value can't be read: .key, .text of the errno."""

    def __init__(self, key, code):
        self.key, self.code = key, code

    @property
    def text(self):
        return os.strerror(self.code)


def _entries(view):
    """Yield (key, value) of what is looked up key by key, or of a capture of it; _Unread where
    that fails.
    """
    source, info = view.source, view.info
    if info.type in _DESCRIPTOR_ARRAYS:
        there = _kept_slots(view)
        for index in range(info.max_entries):
            key = index.to_bytes(info.key_size, source.order)
            yield there.get(key) or _Unread(key, errno.ENOENT)
        return
    seen = set()
    try:
        for key, value in view.entries():
            seen.add(key)
            yield key, value
    except SyscallError:  # one lookup's, or that of a type without next key: then it comes again
        yield from _walked(source, seen)


_MAX_EMPTY_SLOTS = 1 << 18  # of a capture, which says more than it holds


def _kept_slots(view):
    """Return {key: entry} of a capture whose slots are going to be told, each."""
    found = {entry[0]: entry for entry in view.entries()}
    if view.info.max_entries - len(found) > _MAX_EMPTY_SLOTS:
        words = len(found), view.info.max_entries
        raise ValueError("a capture of %d entries for %d slots: too many to tell each" % words)
    return found


def _index_runs(view):
    """Yield the chunks of an array that is looked up index by index, _Unread where that fails."""
    tells_all = view.info.type in _DESCRIPTOR_ARRAYS
    for first, values, codes in view.source._read_indices(view.chunk_entries):
        keys = struct.pack("=%dI" % len(codes), *range(first, first + len(codes)))
        raw, step, begin = bytes(values), sizeof(values._type_), 0
        for end in [at for at, code in enumerate(codes) if code] + [len(codes)]:
            if end > begin:
                yield keys[4 * begin : 4 * end], raw[step * begin : step * end], end - begin
            begin = end + 1
            if end < len(codes) and (tells_all or codes[end] != errno.ENOENT):
                yield _Unread(keys[4 * end : 4 * begin], codes[end])


def _walked(source, seen):
    """Yield (key, value) or _Unread of the keys that were not seen, a lookup each."""
    key, steps = source.next_key(), 0
    while key is not None and steps <= 20 * source.max_entries + 1000:
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


def _runs(view):
    """Yield chunks of entries, between them an _Unread for each that can't be read.

    view.count is the number of those that can.
    """
    view.count, progress = 0, _Progress(view.info)
    runs = _unbroken_runs(view)
    for run in view.query.runs(runs) if view.query else runs:
        if not isinstance(run, _Unread):
            if not run[2]:
                continue
            view.count += run[2]
            progress.show(view.count)
        yield run
    progress.end()


def _unbroken_runs(view):
    info, is_live = view.info, isinstance(view.source, Map)
    if is_live and info.type in _INDEX_TYPES and info.type not in _BATCH_TYPES:
        yield from _index_runs(view)
        return
    by_key = is_live and info.key_size and view.source._walks_by_key()
    if not by_key and info.type not in _DESCRIPTOR_ARRAYS:
        yield from view.chunks()
        return
    run = []
    try:
        for entry in _entries(view):
            if isinstance(entry, tuple):
                run.append(entry)
            if run and (len(run) == view.chunk_entries or isinstance(entry, _Unread)):
                yield view.chunk_of(run)
                run = []
            if isinstance(entry, _Unread):
                yield entry
    except BPFError:  # what was read is handed out first
        if run:
            yield view.chunk_of(run)
        raise
    if run:
        yield view.chunk_of(run)


def _dump(options):
    options.words, query = _split_query(options.words, options.file is None)
    query = query and _Query(query)
    views = options.views()
    for view in views if query else ():
        query.bind(view, options.json)
    _hint_at_json(options, views[0])
    if options.metrics and not options.json:
        return _dump_metrics(options, views)
    if not views[1:]:
        return _dump_one(options, views[0])
    for view in views:  # each with a head, then
        first, last = view is views[0], view is views[-1]
        known = _info_json(view.info)
        head = {name: known[name] for name in ("id", "type", "name", "flags")}
        if options.json:
            start = options.text(head).rstrip("}\n ") + ',"elements":'
            print(("[" if first else ",") + start)
        else:
            print("\n" * (not first) + _headline(view.info))
        _dump_one(options, view, "}]")
        if options.json:
            print("}]" if last else "}")
    return None


def _dump_metrics(options, views):
    """Print the metrics of maps, of each once."""
    known = {view.info.id: view for view in reversed(views)}
    chosen = [view for view in views if known[view.info.id] is view]
    for text in options.metrics_of([(view, _readable(options, view)) for view in chosen]):
        print(text)


def _hint_at_json(options, view):
    """Tell who pipes a map with BTF into jq, as bpftool's plain dump can be, what to ask for."""
    asked = options.json or options.ndjson or options.metrics or options.hex
    asked = asked or options.key_type or options.value_type
    if asked or options.file or not view.source.btf:
        return
    if _is_terminal() is False:
        sys.stderr.write("bpflookup: this is the form for people; -j prints bpftool's JSON\n")


def _dump_one(options, view, closing=""):
    """Print the entries of a map; closing: what ends the JSON around it."""
    if options.json:
        _dump_json(options, view, closing)
        return
    for text in _text_of_entries(options, view)(_readable(options, view)):
        print(text)
    if not options.ndjson and not options.metrics:
        print("Found %d element%s" % (view.count, "" if view.count == 1 else "s"))


def _text_of_entries(options, view):
    """Return f(chunks) that yields the text of a dump; to people on a terminal it is a table."""
    form = options.form_of(view)
    return _Table(view).texts if form == view.words and _is_terminal() else form


def _is_terminal():
    """Whether people look at what is printed; None: it is no file, but a caller's of main."""
    try:
        return os.isatty(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return None


def _terminal_size():
    """Return (columns, lines) of the terminal, as shutil has them, which a bare system may lack."""
    asked = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    asked = [int(text) if text.isdecimal() else 0 for text in asked]
    try:
        found = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # no terminal, no file
        found = 0, 0
    columns, lines = [one or other for one, other in zip(asked, found)]
    return columns or 80, lines or 24  # a size of 0 is none


class _Table:
    """Entries for a terminal: where keys and values are records of words and the first entries fit,
    a row each under a header.  Else a line each, folded between its words.
    """

    def __init__(self, view):
        self.view, form = view, _FORMS["cells"]
        keys = _table_columns(form, view.key_layout, "key") if view.info.key_size else []
        values = _table_columns(form, view.value_layout, None)
        self.columns = None
        if keys is not None and values:
            known = {name for name, _ in values}
            cpu_name = "[cpu]" if "cpu" in known else "cpu"
            cpu = [(cpu_name, True)] if view.cpus_shown else []
            keys = [("key." + name if name in known else name, right) for name, right in keys]
            self.columns = keys + cpu + values

    def texts(self, chunks):
        """Yield the text of chunks of entries."""
        width, _ = _terminal_size()
        chunks = iter(chunks)
        first = list(islice(chunks, 1))
        table = None
        if self.columns and first and first[0][2]:
            table = _Aligned(self.columns, self._rows(*first[0]))
        if table is None or table.width > width:
            for text in self.view.words(chain(first, chunks)):
                yield "\n".join(_fold(line, width) for line in text.split("\n"))
            return
        yield table.head
        for chunk in chain(first, chunks):
            yield table.text(self._rows(*chunk))

    def _rows(self, keys, values, count):
        """Return the rows of a chunk, a list of tuples of text."""
        view, cells = self.view, [()] * count
        if view.info.key_size:
            cells = view.key_layout.reader("cells").rows(keys)
        rows = view.value_layout.reader("cells", view.slot, view.cpus_added).rows(values)
        if view.cpus_shown:
            cells = [cell + (cpu,) for cell in cells for cpu in view.cpus]
        return [tuple(map(str, cell + row)) for cell, row in zip(cells, rows)]


def _table_columns(form, found, name):
    """Return [(name, whether numbers)] of a layout whose parts are a word each, else None.

    name is that of a layout that is one itself, None where there is to be a record.
    """
    if not isinstance(found, Record) or form.meaning_of(found) is not None:
        return [(name, form.is_right(found))] if name and form.has_cell(found) else None
    parts = form.members_of(found)
    inside = [form.layout_of(part) for part in parts]
    if not all(map(form.has_cell, inside)) or any(part.choice for part in parts):
        return None
    return [(_printable(one.label), form.is_right(two)) for one, two in zip(parts, inside)]


class _Aligned:
    """Rows of text under .head, as wide as some of them want; .width is that of a whole row."""

    def __init__(self, columns, rows):
        names = tuple(name for name, _ in columns)
        self.widths = [max(_widths(cells)) for cells in zip(names, *rows)]
        self.rights = [right for _, right in columns]
        self.width = sum(self.widths) + 2 * (len(names) - 1)
        parts = [
            "%%%s%ds" % ("" if right else "-", wide)
            for right, wide in zip(self.rights, self.widths)
        ]
        self.line = "  ".join(parts)
        self.head = self._row(names)

    def text(self, rows):
        """Return rows as text."""
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


def _readable(options, view):
    """Yield the chunks of a view, and print what can't be read."""
    for run in _runs(view):
        if not isinstance(run, _Unread):
            yield run
        elif run.code == errno.ENOENT or options.metrics:
            continue
        elif options.ndjson:
            key = view.key_layout.reader("json" + view.json_suffix).one(run.key)
            print('{"key":%s,"error":%s}' % (key, options.text(run.text)))
        else:
            why = errno_name(run.code) if run.code == ENOTSUPP else run.text
            line = "key: %s  value: <%s>" if options.hex else "%s: <%s>"
            print(line % (_key_text(options, view, run.key), why))


def _dump_json(options, view, closing):
    """Print the entries as bpftool's JSON has them: an array that ends whatever happens."""
    before, options.unfinished = "[", "[]" + closing
    for texts in _many(_json_texts(options, view)):
        sys.stdout.write(before)
        options.put_text(",".join(texts), "")
        before, options.unfinished = ",\n" if options.pretty else ",", "]" + closing
    print("[]" if before == "[" else "]")
    options.unfinished = ""


def _json_texts(options, view):
    """Yield entries as bpftool's JSON: chunks of them, by themselves those that can't be read."""
    entry = '{"key":["0x%s"],"value":{"error":%s}}'
    errors = {}  # type: dict  # errno -> what it means, as JSON
    for run in _runs(view):
        if not isinstance(run, _Unread):
            yield from view.bpftool([run])
            continue
        if run.code not in errors:
            errors[run.code] = options.text(run.text)
        yield entry % ('","0x'.join(map("%02x".__mod__, run.key)), errors[run.code])


def _many(texts):
    """Yield lists of texts, so many that writing them costs little.

    What is there when it breaks off too.
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


def _hex_list(raw):
    """Return bytes as bpftool's JSON has them."""
    return ["0x%02x" % byte for byte in raw]


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


# Looking at a part: map dump MAP where FIELD=VALUE ... sort FIELD top N columns A,B

_QUERY_WORDS = ("where", "sort", "top", "columns", "sum")
_COMPARISONS = ("!=", "<=", ">=", "=", "<", ">", "~")  # the longer ones first


def _split_query(words, has_map):
    """Return (the words of the map, those of the query); a map may have the name of one of them."""
    start = 1 if has_map else 0
    if has_map and words and any(_stands_for(words[0], one) for one in ("id", "name", "pinned")):
        start = 2
    for at in range(start, len(words)):
        if words[at] in _QUERY_WORDS:
            return words[:at], words[at:]
    return words, []


class _Query:
    """What of a map is shown: entries that meet conditions, the largest first, so many, these
    fields of them.
    """

    def __init__(self, words):
        self.conditions, self.columns = [], []
        self.sort_field = self.top = None
        self.adds_up = False
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "sum":
                self.adds_up = True
                continue
            if not words:
                raise _UsageError("what follows '%s' is needed" % word)
            if word == "where":
                while words and words[0] not in _QUERY_WORDS:
                    self.conditions.append(words.pop(0))
            elif word == "sort":
                self.sort_field = words.pop(0)
            elif word == "columns":
                self.columns += [name for name in words.pop(0).split(",") if name]
            elif word == "top" and words[0].isdecimal():
                self.top = int(words.pop(0))
            else:
                known = "where FIELD=VALUE, sort FIELD, top N, columns A,B or sum"
                raise _UsageError("%s is needed, not '%s %s'" % (known, word, words[0]))

    def bind(self, view, is_bpftools):
        """Find the fields in a view's layouts; have it show the columns asked for."""
        for is_asked, word in ((self.columns, "columns"), (self.adds_up, "sum")):
            if is_asked and is_bpftools:
                raise _UsageError("-j is bpftool's JSON; %s can go with --ndjson" % word)
        if self.adds_up and not view.cpus:
            raise _UsageError("sum adds up the values of CPUs, of which this map has one")
        view.adds_up = self.adds_up
        conditions = [_Condition(view, text) for text in self.conditions]
        field = self.sort_field and _FieldColumn(view, self.sort_field.lstrip("+"))
        chosen = {"key": [], "value": []}  # type: dict
        for name in self.columns:
            column = _FieldColumn(view, name)
            chosen[column.what].append(column.steps)
        view.query = _BoundQuery(view, conditions, field, self.sort_field or "", self.top)
        if chosen["value"]:
            view.value_layout = _selected(view.value_layout, chosen["value"], "value")
        if chosen["key"]:
            view.key_layout = _selected(view.key_layout, chosen["key"], "key")


def _selected(found, paths, what=""):
    """Return a layout with the members that paths, lists of names and "[N]", lead to; [] is the
    whole.  what is the word for found, if that is an array.
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
    """Return a member for each element of an array that paths lead to, called "hits[3]"."""
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


class _FieldColumn:
    """A field of keys or values: .what of the two, .steps to it, and its values in a chunk.

    Numbers are compared as numbers (a per-CPU map's are added up, where that says something),
    text as text, anything else as bytes.
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
        self.first, self.size = offset // 8, leaf.size
        self.stride = view.slot if self.what == "value" else view.info.key_size
        self.cpus = len(view.cpus) if self.what == "value" and view.cpus else 1
        self.bare = leaf if leaf.meaning is None else leaf.showing("", "plain")
        alone = Record("struct", "", whole.size, [Member("f", self.bare, offset, bits, "f")])
        self.reader = alone.reader("samples" if self.is_number else "plain", self.stride)

    def of(self, keys, values):
        """Return the field's value in each entry of a chunk."""
        raw = keys if self.what == "key" else values
        if self.is_number:
            numbers = [number for pairs in self.reader.read(raw) for _, number in pairs]
            if self.leaf.adds_up:
                return _added_up(numbers, self.cpus)
            return numbers[:: self.cpus]
        step = self.stride * self.cpus
        if self.is_text:
            return [plain["f"] for plain in self.reader.read(raw)][:: self.cpus]
        starts = range(self.first, len(raw), step) if step else ()
        return [raw[at : at + self.size] for at in starts]

    def words(self, one):
        """Return a value as text, for patterns."""
        if isinstance(one, str):
            return one
        if not self.is_number:
            return self.leaf.reader("words").one(one)
        meaning = self.leaf.meaning
        if meaning is not None and meaning.is_shown:
            return meaning.writer(self.leaf)(one)
        return getattr(self.leaf, "names", {}).get(one) or str(one)

    def given(self, text):
        """Return the value that a text stands for."""
        if self.is_text:
            return text
        raw = self.leaf.pack(text, what=self.name)
        if not self.is_number:
            return raw
        ((_, number),) = self.bare.reader("samples").one(raw)
        return number


def _find_field(view, name):
    """Return ("key" or "value", steps, layout, bit offset, bits) of a field by its name.

    Values come first.
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
    known = [
        part.label
        for one in (view.value_layout, view.key_layout)
        for part in getattr(one, "parts", ())
    ]
    told = ", ".join(filter(None, known)) or "key and value"
    raise _UsageError("no field '%s'; there are %s" % (name, told))


def _follow(found, path):
    """Return (steps, layout, bit offset, bits) of what a path leads to, None if nothing."""
    offset, bits, steps = 0, 0, []
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
        found, offset, bits = _with_proved(part), offset + part.offset, part.bits
    return steps, found, offset, bits


class _Condition:
    """FIELD, a comparison, VALUE."""

    def __init__(self, view, text):
        ends = [(text.find(sign), -len(sign), sign) for sign in _COMPARISONS if sign in text]
        if not ends or not min(ends)[0]:
            told = "'%s' is no condition: FIELD and one of = != < > <= >= ~, then a value"
            raise _UsageError(told % text)
        at, _, self.sign = min(ends)
        self.field = _FieldColumn(view, text[:at].strip())
        wanted = text[at + len(self.sign) :].strip()
        if self.sign == "~":
            self.pattern = _pattern(wanted)
            return
        if not self.field.is_number and not self.field.is_text and self.sign not in ("=", "!="):
            raise _UsageError("%s has no order: only = and != can be asked of it" % self.field.name)
        try:
            self.wanted = self.field.given(wanted)
        except LayoutError as failure:
            raise _UsageError(str(failure)) from None

    def holds(self, keys, values):
        """Return for each entry of a chunk whether it meets the condition."""
        column = self.field.of(keys, values)
        if self.sign == "~":
            search = self.pattern.search
            return [bool(search(self.field.words(one))) for one in column]
        import operator

        signs = {"=": "eq", "!=": "ne", "<": "lt", ">": "gt", "<=": "le", ">=": "ge"}
        compare, wanted = getattr(operator, signs[self.sign]), self.wanted
        return [compare(one, wanted) for one in column]


def _pattern(text):
    import re

    try:
        return re.compile(text)
    except re.error as failure:
        raise _UsageError("'%s' is no pattern: %s" % (text, failure)) from None


class _BoundQuery:
    """A query with the fields of a view: a filter of its chunks."""

    def __init__(self, view, conditions, field, sort_field, top):
        self.view, self.conditions, self.field, self.top = view, conditions, field, top
        self.is_upward = sort_field.startswith("+")
        self.key_size = view.info.key_size
        self.value_size = view.slot * max(len(view.cpus), 1)

    def runs(self, runs):
        """Yield of the runs what is asked for; with a sort field at the end, else as it comes."""
        entries = self._matching(runs)
        if self.field:
            entries = self._sorted(entries)
        left = self.top
        part = []  # type: list
        for entry in entries:
            if left is not None:
                if not left:
                    break
                left -= 1
            part.append(entry)
            if len(part) == _CHUNK_ENTRIES:
                yield self._chunk(part)
                part = []
        yield self._chunk(part)

    def _chunk(self, entries):
        keys = b"".join([key for _, key, _ in entries])
        return keys, b"".join([value for _, _, value in entries]), len(entries)

    def _matching(self, runs):
        """Yield (what it is sorted by, key, value) of the entries that meet all conditions."""
        for run in runs:
            if isinstance(run, _Unread):
                continue  # nothing is known of it
            keys, values, count = run
            keep = [True] * count
            for condition in self.conditions:
                keep = [one and other for one, other in zip(keep, condition.holds(keys, values))]
            ranks = self.field.of(keys, values) if self.field else [None] * count
            for index in range(count):
                if keep[index]:
                    key = keys[index * self.key_size : (index + 1) * self.key_size]
                    value = values[index * self.value_size : (index + 1) * self.value_size]
                    yield ranks[index], key, value

    def _sorted(self, entries):
        """Return the entries in order; with a top no more are kept than that takes."""
        kept = []  # type: list
        room = None if self.top is None else 2 * self.top + 4096
        for entry in entries:
            kept.append(entry)
            if room is not None and len(kept) > room:
                kept = self._in_order(kept)[: self.top]
        return self._in_order(kept)

    def _in_order(self, entries):
        return sorted(entries, key=_rank_of, reverse=not self.is_upward)


def _rank_of(entry):
    rank = entry[0]
    return (rank == rank, rank) if isinstance(rank, float) else (True, rank)  # NaN is the least


def _lookup(options):
    view, given = options.given(options.view())
    if not view.info.key_size:
        return _show_peeked(options, view, view.source.peek)
    key = _key(given)
    value = dict(view.entries()).get(key) if options.file else view.source.get(key)
    if value is None:
        raise _Miss(given.missed(key), None)
    options.put_entry(view, key, value)


def _getnext(options):
    view, given = options.given(options.view("r"))
    key = None if given.key is None else _key(given)
    following = view.source.next_key(key)
    if following is None:
        what = "the map is empty" if key is None else "no key follows: it was the last"
        raise _Miss(
            "no next key; " + what, {"error": "can't get next key: No such file or directory"}
        )
    if options.json:
        shown = key and _hex_list(key)
        return options.put({"key": shown, "next_key": _hex_list(following)})
    if key is not None:
        print("key: %s" % _key_text(options, view, key))
    return print("next key: %s" % _key_text(options, view, following))


def _key_text(options, view, key):
    """Return a key in words or, with --hex, in hex."""
    return _hex(key) if options.hex else view.key_layout.reader("words").one(key)


def _update(options):
    one_cpu = any(word.startswith("cpu=") for word in options.data)
    view, given = options.given(options.view("rw" if one_cpu else "w"))
    key = _key(given) if view.info.key_size else None
    if given.value is None:
        raise _UsageError("'value' is needed")
    at = None if given.cpu is None else _slot_of(view, given.cpu)
    value, flag = _whole_value(options, view, given, key, at), given.flag or BPF_ANY
    if at is not None:
        _update_cpu(view, at, key, value, flag)
    elif key is None:
        view.source.push(value, flag)
    else:
        view.source.update(key, value, flag)


def _whole_value(options, view, given, key, at):
    """Return the bytes to store, of the fields that were not named those that are there.

    at is the slot of the one CPU that is meant; a list where every CPU keeps its own.
    """
    try:
        return _value(given)
    except _UsageError as incomplete:
        if key is None or not given.value or not _names_fields(given.value, view.value_layout):
            raise
        stored = _stored(options, view, key)
        if stored is None:
            hint = "%s; there is no entry whose other fields could stay" % incomplete
            raise _UsageError(hint if "not given" in str(incomplete) else incomplete) from None
    if at is not None:
        return _data(given.value, view, "value", stored[at])
    if isinstance(stored, list):
        return [_data(given.value, view, "value", one) for one in stored]
    return _data(given.value, view, "value", stored)


def _stored(options, view, key):
    """Return the value that is there, None if there is none; read by a descriptor of its own."""
    with _open_words(options.map, "r", options.token) as reader:
        if reader.id != view.source.id:
            raise ValueError("another map has taken the place of %s" % view.info._about)
        return reader.get(key)


def _names_fields(words, found):
    """Whether DATA is NAME=VALUE or a JSON object, which may leave fields out; text may look so."""
    name, sign, _ = words[0].partition("=")
    if _is_text(found):
        return bool(sign) and _field(found, name) is not None
    return bool(sign) or words[0][:1] == "{"


def _slot_of(view, cpu):
    """Return which of a value's slots is a CPU's."""
    if not cpu.isdecimal() or int(cpu) not in view.cpus:
        known = " ".join(map(str, view.cpus))
        raise _UsageError("cpu=%s is none of this map's: %s" % (cpu, known))
    return view.cpus.index(int(cpu))


def _update_cpu(view, at, key, value, flag):
    """Store one CPU's value."""
    try:  # 7.0; before, what other CPUs add meanwhile is lost
        view.source.update(key, value, flag | BPF_F_CPU | view.cpus[at] << 32)
        return
    except SyscallError:
        pass
    values = view.source.get(key) or [bytes(view.info.value_size)] * len(view.cpus)
    values[at] = value
    view.source.update(key, values, flag)


def _key(given):
    """Return the bytes of the key that was given."""
    if given.key is None:
        raise _UsageError("'key' is needed")
    return _data(given.key, given.view, "key")


def _value(given):
    """Return the bytes of the value that was given, of a map of maps or programs its descriptor."""
    info, words = given.view.info, given.value
    kind = words and _held(info.type, words)
    if not kind or len(words) != 2:
        return _data(words, given.view, "value")
    is_program = info.type == BPF_MAP_TYPE_PROG_ARRAY
    given.held = (  # open until the map has been told
        _open_program("%s %s" % (kind, words[1])) if is_program else _open_words([kind, words[1]])
    )
    return given.held.fileno().to_bytes(info.value_size, sys.byteorder)


def _push(options):
    view, given = options.given(options.view("w"))
    if given.value is None:
        raise _UsageError("'value' is needed")
    view.source.push(_data(given.value, view, "value"))


def _delete(options):
    view, given = options.given(options.view("w"))
    key = _key(given)
    try:
        view.source.delete(key)
    except KeyNotFound:
        told = {"error": "delete failed: No such file or directory"}
        raise _Miss(given.missed(key), told) from None


def _show_peeked(options, view, take):
    options.end()
    try:
        options.put_entry(view, b"", take())
    except KeyNotFound:
        raise _Miss("the map is empty", None) from None


def _peek(options):
    view = options.view("r")
    _show_peeked(options, view, view.source.peek)


def _pop(options):
    view = options.view("rw")
    _show_peeked(options, view, view.source.pop)


def _pin(options):
    view = options.view("r", 1)
    view.source.pin(options.take("a path in a bpffs"))


def _freeze(options):
    options.view("w").source.freeze()


# word of create -> what Map.create calls it
_SETTINGS = {
    "type": "map_type",
    "key": "key_size",
    "value": "value_size",
    "entries": "max_entries",
    "name": "name",
    "flags": "flags",
    "inner_map": "inner",
}


def _create(options):
    path, settings = options.take("a path in a bpffs"), {}
    while options.words:
        word = options.words.pop(0)
        name = _stands_for(word, *_SETTINGS)
        if name is None:
            raise _UsageError(_unknown("word '%s'" % word, word, _SETTINGS))
        if name == "inner_map":
            settings["inner"] = options.view(rest=None).source
        else:
            settings[_SETTINGS[name]] = _setting(name, options.take("what follows " + name))
    if "map_type" not in settings:
        raise _UsageError("'type' is needed: " + " ".join(_MAP_TYPE_NAMES.values()))
    numbers = [name for name in _SETTINGS if name in ("key", "value", "entries")]
    absent = [name for name in numbers if _SETTINGS[name] not in settings]
    for name in absent:
        settings[_SETTINGS[name]] = 0
    try:
        made = Map.create(token=options.token, **settings)
    except InvalidArgument as error:
        if absent:
            error.hint = "not given: %s; %s" % (", ".join(absent), error.hint)
        raise
    made.pin(path)


def _setting(name, word):
    """Return what a word says for a setting: text, the number of a map type, or a number."""
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


def _layout(options):
    view = options.view()
    layouts = (("key", view.key_layout), ("value", view.value_layout))
    typed = [(what, found) for what, found in layouts if not isinstance(found, Bytes)]
    if options.json:
        return options.put({what: found.describe().split("\n") for what, found in typed})
    if not typed:
        words = (view.info.key_size, view.info.value_size, view.source._no_btf)
        print(_printable("keys of %d bytes, values of %d; no BTF: %s" % words))
    for what, found in typed:
        print("%s:\n%s\n\n%s" % (what, found.describe(), found.python_source(what)))
    return None


def _save(options):
    view = options.view("r", 1)
    path = options.take("a file")
    layouts = [view.key_layout, view.value_layout]
    count = _capture(view.source, path, layouts, options.wishes())
    return options.put({"entries": count}) if options.json else print("%d entries" % count)


def _btf(options):
    what = options.take("offset or layout")
    if what not in ("offset", "layout"):
        raise _UsageError("offset or layout is needed, not '%s'" % what)
    btf, name = _asked_btf(options), options.take("a type")
    name += "".join(" " + word for word in options.words)  # "struct task_struct"
    return (_show_btf_layout if what == "layout" else _show_btf_offset)(options, btf, name)


def _asked_btf(options):
    """Return the BTF of --btf, split from that of --base-btf if given; or the running kernel's."""
    if options.btf is None and options.base_btf is None:
        return BTF.from_vmlinux()
    if options.btf is None:
        raise _UsageError("--base-btf goes with --btf")
    return BTF.from_file(options.btf, options.base_btf and BTF.from_file(options.base_btf))


def _show_btf_layout(options, btf, name):
    table, source = btf.describe(name), btf.python_source(name)
    if options.json:
        return options.put({"layout": table.split("\n"), "python": source.split("\n")})
    return print("%s\n\n%s" % (table, source))


def _show_btf_offset(options, btf, name):
    steps = _offset_of(btf, name)
    steps = steps if isinstance(steps, tuple) else (steps,)
    if options.json:
        told = [
            {"offset": step, "bit_offset": step.bit_offset, "bits": step.bits} for step in steps
        ]
        return options.put(told)
    return print(" -> ".join("%d%s" % (step, _bits_text(step)) for step in steps))


def _bits_text(step):
    first = step.bit_offset % 8
    return " bits %d..%d" % (first, first + step.bits - 1) if step.bits else ""


def _offset_of(btf, name):
    """Return what offsetof does for TYPE.MEMBER; the type, too, may hold dots: .data..percpu.x."""
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
    raise _UsageError("TYPE.MEMBER is needed%s" % _known_members(btf, name.rstrip(".")))


def _known_members(btf, name):
    """Return what a message tells of a type without a member: some that it has."""
    try:
        known = [member[0] for member in btf.members(name) if member[0]]
    except BTFError:
        return ", not '%s'" % name
    return "; members of %s: %s" % (name, " ".join(known[:8] + ["..."] * (len(known) > 8)))


# What people write for a type, a key, a value.


class _Given:
    """What stands after MAP: .key, .value: words of DATA; .flag: a number; .cpu: text.  Or None.

    As in bpftool key and value come in any order, flags anywhere between.  What stands behind DATA
    (a flag, cpu=N, an option, the other clause) is told from it by where DATA is complete:
    - with as many bytes as the type has, in decimal or after "hex", whatever else they could mean;
    - with one word where the type is a number, with a record's last NAME=VALUE, with JSON's end;
    - text of several words goes on to the end, to "value", or to a flag that is spelled out.
    The first word is DATA whatever it is.
    """

    def __init__(self, options, view):
        self.view, self.options, self.ended = view, options, options.ended
        self.key = self.value = self.flag = self.cpu = None
        keyless = () if view.info.key_size else ("key",)
        self.wanted = [one for one in _CLAUSES[options.command] if one not in keyless]
        words = list(options.data)
        while words:
            clause = self._clause(words[0])
            if clause:
                del words[0]
                self.wanted.remove(clause)
                count = self._count(clause, words)
                setattr(self, clause, words[:count])
                del words[:count]
            elif not self._takes(words):
                raise _UsageError("unexpected '%s'" % words[0])

    def missed(self, key):
        """Return the message that there is no such key: as it was typed, and its bytes."""
        typed = " ".join(self.key)
        if _bytes_end(self.key, Bytes(len(key))):
            return "no such key: " + _hex(key)
        text = "no such key: %s (%s)" % (typed, _hex(key))
        if self.key[1:] and self._is_option(self.key[-1]):
            text += "; %s was taken for text: options stand before it" % self.key[-1]
        return text

    def _clause(self, word):
        """Return the clause that a word opens, None if it opens none that may still come."""
        return _stands_for(word, *[one for one in ("key", "value") if one in self.wanted])

    def _flag(self, word):
        return (
            _stands_for(word, *_FLAG_WORDS) if self.flag is None and "any" in self.wanted else None
        )

    def _is_cpu(self, word):
        return word[:4] == "cpu=" and self.cpu is None and self.view.info.type in _PERCPU_TYPES

    def _is_option(self, word):
        if self.ended or word[:1] != "-" or len(word) < 2:
            return False
        return self.options.sets(word) is not None or word == "--"

    def _takes(self, words):
        """Take a flag, cpu=N or an option from the front of words; return whether there was one."""
        if self._flag(words[0]):
            self.flag = _FLAG_WORDS[self._flag(words.pop(0))]
        elif self._is_cpu(words[0]):
            self.cpu = words.pop(0)[4:]
        elif words[0] == "--" and not self.ended:
            self.ended = bool(words.pop(0))
        elif self._is_option(words[0]):
            late = self.options.sets(words[0])
            if not self.options.LATE.issuperset(late):
                raise _UsageError("%s has to stand before the key and value" % words[0])
            self.options.option(words)
        else:
            return False
        return True

    def _count(self, clause, words):
        """Return how many of the words are the clause's DATA."""
        if words[1:] and words[0] == "--" and not self.ended:
            self.ended = bool(words.pop(0))
        if not words:
            return 0
        count = self._complete(clause, words)
        if count and (count == len(words) or self._is_behind(words[count])):
            return count
        return self._text_end(words[: self._next_clause(words)])

    def _is_behind(self, word):
        """Whether a word can stand behind DATA that is complete."""
        named = self._clause(word) or self._flag(word)
        return bool(named) or self._is_cpu(word) or self._is_option(word)

    def _complete(self, clause, words):
        """Return with how many words DATA is complete, 0 for text, which goes on."""
        found = _layout_of(self.view, clause)
        count = _bytes_end(words, found)
        if count or _is_text(found) and not _names_fields(words, found):
            return count
        if clause == "value" and _held(self.view.info.type, words):
            return 2
        if words[0][:1] in ("{", "["):
            return _json_end(words)
        if "=" not in words[0]:
            return 1
        count = next((at for at, word in enumerate(words) if "=" not in word), len(words))
        if count > 1 and self._is_cpu(words[count - 1]):
            named = ",cpu=" in "," + ",".join(words[: count - 1])
            count -= named or "cpu" not in _field_names(found)
        return count

    def _next_clause(self, words):
        """Return where the other clause begins; a word that is spelled out goes first."""
        others = [one for one in ("key", "value") if one in self.wanted]
        inner = range(1, len(words) - 1)
        full = [at for at in inner if words[at] in others]
        return (full or [at for at in inner if _stands_for(words[at], *others)] or [len(words)])[0]

    def _text_end(self, words):
        """Return how many words are text: those before a flag that is spelled out and cpu=N."""
        end, flag, cpu = len(words), False, False
        while end > 1:
            word = words[end - 1]
            if not flag and word in _FLAG_WORDS and self._flag(word):
                flag = True
            elif not cpu and self._is_cpu(word):
                cpu = True
            else:
                break
            end -= 1
        return end


def _layout_of(view, what):
    return view.key_layout if what == "key" else view.value_layout


def _is_text(found):
    """Whether a layout holds text: an array of char, alone or as a record's only field."""
    while isinstance(found, Record) and len(_field_names(found)) == 1:
        found = [part.layout for part in found.parts if part.label is not None][0]
    return isinstance(found, Array) and found.is_text


def _as_text(found, text):
    """Return what pack takes for text: never an address, which a record of that size could be."""
    if not isinstance(found, Record):
        return text
    (part,) = [part for part in found.parts if part.label is not None]
    return {part.label: _as_text(part.layout, text)}


def _field_names(found):
    """Return the names that the fields of a layout have, none where it is no record."""
    labels = [part.label for part in found.parts] if isinstance(found, Record) else []
    return [label for label in labels if label is not None]


def _json_end(words):
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


def _held(map_type, words):
    """Return the kind of name that a value is for a map or program, None if it is none."""
    kinds = _MAP_WORDS + (("tag",) if map_type == BPF_MAP_TYPE_PROG_ARRAY else ())
    return _stands_for(words[0], *kinds) if map_type in _FD_VALUE_TYPES and words[1:] else None


def _hex_bytes(word):
    """Return the bytes of hexadecimal digits: 7f, 0x7f, f, or 7f000001; None for what is none."""
    digits = word[2:] if word[:2].lower() == "0x" else word
    if not digits or set(digits) - set("0123456789abcdefABCDEF"):
        return None
    if len(digits) > 2 and len(digits) % 2:
        return None
    return bytes.fromhex(digits if len(digits) > 1 else "0" + digits)


def _byte(word):
    """Return the number of a word like bpftool's bytes: 10, 0x0a, 012; None for another."""
    if not "0" <= word[:1] <= "9" or set(word) - set("0123456789abcdefxABCDEFX"):
        return None
    try:
        return _parsed_int(word)
    except ValueError:
        return None


def _bytes_end(words, found):
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


def _data(words, view, what, base=None):
    """Return the bytes that DATA stands for; base: those whose fields stay where none is named."""
    found = _layout_of(view, what)
    if not words:
        raise _UsageError("a %s of %d bytes is needed" % (what, found.size))
    if words[1:] and words[-1][:4] == "cpu=" and not _is_text(found):
        if view.info.type not in _PERCPU_TYPES and "cpu" not in _field_names(found):
            raise _UsageError("unexpected '%s': this map has no value per CPU" % words[-1])
    if isinstance(found, Bytes) and _names_fields(words, found):
        raise _UsageError("the %s has no fields: --%s-type can tell them" % (what, what))
    try:
        raw = _bytes_given(words, found)
        if raw is None:
            given = _typed(words, found, what == "key" and view.info.type)
            raw = given if isinstance(given, bytes) else found.pack(given, base, what)
    except (ValueError, OverflowError, LayoutError, RecursionError) as error:
        told = str(error)
        told = told if told.startswith(what) else "%s: %s" % (what, told)
        raise _UsageError(told) from None
    if len(raw) != found.size:
        quote = "; as text quote it: '%s'" % " ".join(words) if _is_text(found) else ""
        raise _UsageError("the %s has %d bytes, not %d%s" % (what, found.size, len(raw), quote))
    return raw


def _bytes_given(words, found):
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
    """Whether a lone number is a byte as in bpftool: of no type, or 255 for a signed one."""
    if found.size != 1 or isinstance(found, Bytes):
        return found.size == 1
    return type(found) is Number and found.signed and number > found.high


def _typed(words, found, key_of=None):
    """Return what pack takes for text, NAME=VALUE or JSON; bytes of a key of an LPM trie."""
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
    if key_of == BPF_MAP_TYPE_LPM_TRIE and set(text) & set(".:"):
        return lpm_key(text)
    return text


# NAME=VALUE: one or more in a word, with commas between them, or with blanks where another field's
# NAME= follows.  A comma or blank that no NAME= follows is VALUE's own; what would be taken for
# more than that can be put in quotes.  {...} and [...] are JSON where the field is no text.


def _assignments(words, found):
    """Return {"addr": {"ip4": "10.0.0.1"}} for ["addr.ip4=10.0.0.1"]; found is the layout."""
    tree, names = {}, _field_names(found)
    for at, word in enumerate(words):
        if at + 1 < len(words) and word[-1:] == ",":
            word = word[:-1]
        end = 0
        while end < len(word):
            name, sign, _ = word[end:].partition("=")
            if not sign:
                quoted = " ".join(words[max(at - 1, 0) : at + 1])
                told = "'%s' is no NAME=VALUE" % word[end:]
                raise ValueError(told + (", or quote '%s'" % quoted if at else ""))
            value, end = _value_in(word, end + len(name) + 1, names, _field(found, name))
            _assign(tree, names, name.strip(), value)
    return tree


def _assign(tree, names, path, value):
    """Put a value where its path says: into the dict of a dict."""
    branch, steps = tree, [path] if path in names else path.split(".")
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
    """Return (VALUE, where the next NAME begins) of what stands behind a "="."""
    first = word[start : start + 1]
    if first in ("{", "[") and not _is_text(field):
        value, end = _in_brackets(word, start)
        return value, _separated(word, end)
    if first in ("'", '"'):
        end = start + 1
        while end < len(word) and word[end] != first:
            end += 2 if word[end] == "\\" else 1
        if end < len(word) and word[end + 1 : end + 2] in ("", ",", " "):
            return _unquoted(word[start + 1 : end]), end + 2
    end = start
    while end < len(word) and not (word[end] in ", " and _name_follows(word, end, names)):
        end += 1
    return word[start:end], end + 1


def _in_brackets(text, start):
    """Return (value, end) of JSON, or of what a dump prints: [1 2 3], {a=1 b={c=2}}."""
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
    quote, end = text[at], at + 1
    if quote not in "'\"":
        while text[end] not in ", ]}":
            end += 1
        return text[at:end], end
    while text[end] != quote:
        end += 2 if text[end] == "\\" else 1
    return _unquoted(text[at + 1 : end]), end + 1


def _separated(word, end):
    if word[end : end + 1] not in ("", ",", " "):
        raise ValueError("'%s' is more than the JSON before it" % word[end:])
    return end + 1


def _name_follows(word, at, names):
    """Whether NAME= stands behind a separator; behind a blank only that of a field."""
    path, sign, _ = word[at + 1 :].partition("=")
    path = path.strip()
    if not sign or not path or not path.replace("_", "a").replace(".", "a").isalnum():
        return False
    return word[at] == "," or path.partition(".")[0] in names or path in names + ["rest"]


def _unquoted(text):
    """Return a text in quotes without what backslashes stand for in it."""
    if "\\" not in text:
        return text
    return text.encode("ascii", "backslashreplace").decode("unicode_escape")


# Live views.


def _watch(options):
    view, watch = options.view(rest=None), _Watch(options)
    words = options.words
    while words:
        word = words.pop(0)
        if word == "once":
            watch.is_once = True
        elif word == "interval" and words:
            watch.interval = _seconds(words.pop(0))
        elif word == "sort" and words:
            watch.sort_field = words.pop(0)
        else:
            raise _UsageError("once, interval SECONDS or sort FIELD, not '%s'" % word)
    watch.run(view)


def _seconds(text):
    """Return an interval; what would spin is refused."""
    if not text.replace(".", "", 1).isdecimal() or not 0.05 <= float(text) <= 86400:
        raise _UsageError("an interval is 0.05 to 86400 seconds, not '%s'" % text)
    return float(text)


class _Watch:
    """Shows a map's entries again and again: on a terminal a screen, else a list, or a line of
    JSON, an interval.
    """

    def __init__(self, options):
        self.is_once, self.interval, self.sort_field = options.once, 1.0, None
        self.is_json, self.is_hex = options.json or options.ndjson, options.hex
        if options.metrics:
            raise _UsageError("watch has no --metrics; map dump has")
        self.is_live, self.time = False, 0.0

    def run(self, view):
        import time

        is_capture = not isinstance(view.source, Map)
        self.is_once = self.is_once or is_capture
        self.is_live = sys.stdout.isatty() and not self.is_once and not self.is_json
        with _Screen() if self.is_live else _Nothing():
            before, then = None, 0.0
            while True:
                # no clock that is set changes the one for rates
                now, look = time.monotonic(), _Look(view)
                self.time = time.time()
                self._check_sort(look)
                # what is printed once has rates; a screen or a list that goes on need not wait
                if before is not None or not self.is_once or is_capture:
                    if before is not None:
                        look.compare(before, now - then)
                    self._show(look, None if before is None else now - then)
                    if self.is_once:
                        return
                before, then = look, now
                time.sleep(self.interval)

    def _check_sort(self, look):
        known = look.fields() if self.sort_field else []
        if self.sort_field and look.values and self.sort_field not in known:
            raise _UsageError(
                "no field '%s' to sort by; there are %s" % (self.sort_field, ", ".join(known))
            )

    def _show(self, look, seconds):
        keys = look.ranked(self.sort_field)
        if self.is_json:
            print(self._json(look, keys, seconds))
        elif self.is_live:
            lines = self._screen(look, keys, seconds is not None)
            sys.stdout.write("\033[H%s\033[J" % "\033[K\n".join(lines))
        else:
            print("\n".join(self._lines(look, keys, seconds is not None, 1 << 16)))
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

    def _screen(self, look, keys, has_before):
        """Return the lines that fill a terminal, what changed in bold."""
        columns, height = _terminal_size()
        lines = self._lines(look, keys[: height - 1], has_before, columns)
        lines[0] = _cut("%s: %d entries" % (look.view.info._about, len(keys)), columns)
        if len(keys) > height - 1:
            lines[-1] = "... %d more" % (len(keys) - height + 2)
        if os.environ.get("NO_COLOR"):
            return lines
        return ["\033[1m%s\033[0m" % line if line[:1] == "*" else line for line in lines]

    def _lines(self, look, keys, has_before, columns):
        """Return a line for each entry: a mark if it changed, its key, its rates, its numbers."""
        heads = [look.heads[key] for key in keys]
        widths = _widths(heads)
        width = min(max(widths, default=0), columns * 2 // 5)
        rates = {key: _rates_text(look.rates[key]) for key in keys if key in look.rates}
        rates_width = min(max(map(len, rates.values()), default=0), max(columns - width - 6, 0))
        lines = ["%s: %d entries" % (look.view.info._about, len(keys))]
        between = "  " + " " * (rates_width + 2 if rates_width else 0)
        for key, head, wide, text in zip(keys, heads, widths, look.texts(keys)):
            mark, told = "  ", between
            head = head + " " * (width - wide) if wide <= width else _padded(head, width)
            if key in rates:
                mark = "* " if has_before else mark
                told = "  %s  " % rates[key].ljust(rates_width) if rates_width else between
            line = mark + head + told + text
            lines.append(_cut(line.rstrip(), columns))
        return lines


class _Screen:
    """A screen of its own on a terminal, without a cursor.

    Left as it was found, whatever ends it.
    """

    LEAVE = "\033[?25h\033[?1049l"

    def __enter__(self):
        import signal
        import threading

        self.signal, self.caught = signal, []
        if get_ident() == threading.main_thread().ident:
            numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
            self.caught = [one for one in numbers if signal.getsignal(one) == signal.SIG_DFL]
        for number in self.caught:
            signal.signal(number, self._killed)
        sys.stdout.write("\033[?1049h\033[?25l")
        return self

    def _killed(self, number, _):
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


# What only names times and ids: that it changes fast means nothing.
_NAMING_WORDS = frozenset(
    "ns us ms ts time timestamp ktime seen stamp start last first expires deadline pid tid tgid id "
    "uid gid ifindex cpu port sport dport addr saddr daddr ip mac key cookie inode ino state flags "
    "cgroup netns seq".split()
)


def _only_names(field):
    """Whether a field's name says that it is a time, an id, an address: no number of things."""
    return bool(_NAMING_WORDS.intersection(field.lower().split("_")))


def _rates_text(rates):
    """Return the rates for people; of times and ids none is worth telling."""
    told = [(name, rate) for name, rate in rates.items() if rate and not _only_names(name)]
    return "  ".join(("%s %s/s" % (name, _scaled(rate))).strip() for name, rate in told)


def _scaled(number):
    """Return a number in few letters, "+3.40M"."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return "%+.4g%s" % (number / factor, letter)
    return "%+.4g" % number


def _width(text):
    """Return how many columns of a terminal a text takes: wide characters take two, marks upon
    others none.
    """
    if _is_ascii(text):
        return len(text)
    try:
        import unicodedata
    except ImportError:  # a bare system
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _widths(texts):
    """Return how many columns each text takes."""
    return list(map(len if _is_ascii("".join(texts)) else _width, texts))


def _is_ascii(text):
    return text.isascii() if hasattr(text, "isascii") else max(text, default="") < "\x80"


def _cut(text, columns):
    """Return as much of a text as fits into so many columns, with an end that says if it is not
    all.
    """
    if 2 * len(text) <= columns or _width(text) <= columns:
        return text
    room, kept = max(columns - 2, 0), 0
    while kept < len(text):
        room -= _width(text[kept])
        if room < 0:
            break
        kept += 1
    return text[:kept] + ".."[:columns]


def _padded(text, columns):
    """Return a text that fills so many columns."""
    free = columns - _width(text)
    return text + " " * free if free >= 0 else _padded(_cut(text, columns), columns)


class _Look:
    """A look at a map's entries, .values {key: value} as bytes, beside an earlier one.

    .heads are the keys in words.  .rates, {key: {field: a second}}, are those of the entries that
    changed; one that
    was not there has none.  Only what changed is decoded twice.
    """

    def __init__(self, view):
        self.view, self.values, self.heads, self.rates = view, {}, {}, {}
        self.cpus = max(len(view.cpus), 1)
        for keys, values, count in view.chunks():
            names = _split(keys, count)
            self.values.update(zip(names, _split(values, count)))

    def compare(self, before, seconds):
        """Take in how it changed since another look."""
        known = before.values
        self.rates = {key: {} for key in self.values if key not in known}
        changed = [key for key, value in self.values.items() if known.get(key, value) != value]
        for keys in self._parts(changed):
            totals = zip(self._totals(keys), before._totals(keys))
            texts = zip(self.texts(keys), before.texts(keys))
            for key, (now, then), (text, old_text) in zip(keys, totals, texts):
                if text != old_text:
                    known_then = [name for name in now if name in then]
                    self.rates[key] = {
                        name: (now[name] - then[name]) / seconds for name in known_then
                    }

    def ranked(self, sort_field):
        """Return the keys, the fastest first: by a field, or by the first of each that counts
        something.
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
        """Return {key: what sorts it} by a field: its rate, then itself."""
        ranks = {}
        for keys in self._parts(list(self.values)):
            for key, totals in zip(keys, self._totals(keys)):
                rate = abs(self.rates.get(key, {}).get(field, 0))
                ranks[key] = -rate, -totals.get(field, 0), self.heads[key]
        return ranks

    def all_rates(self, keys):
        """Yield {field: a second} of each key, zeros where nothing changed."""
        for part in self._parts(keys):
            for key, totals in zip(part, self._totals(part)):
                yield self.rates[key] if key in self.rates else dict.fromkeys(totals, 0.0)

    def texts(self, keys):
        """Return the values of keys in words: of a per-CPU map the sums, or each CPU's where
        there are no numbers.
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
        return _totals(self.view, self._raw(keys), len(keys), self.cpus)

    def _raw(self, keys):
        return b"".join(map(self.values.__getitem__, keys))

    def _parts(self, keys):
        """Yield parts of a list that are read at a time."""
        step = self.view.chunk_entries
        for at in range(0, len(keys), step):
            yield keys[at : at + step]


def _events(options):
    if options.file is not None:
        raise _UsageError("this takes a map, not a capture")
    if options.metrics:
        raise _UsageError("events has no --metrics")
    options.ndjson = options.ndjson or options.json
    m = options.opened("rw", None)
    is_peek, limits = False, {"count": None, "timeout": None}
    while options.words:
        word = options.words.pop(0)
        if word == "peek":
            is_peek = True
        elif word in limits and options.words:
            limits[word] = _limit(word, options.words.pop(0))
        else:
            raise _UsageError("peek, count N or timeout SECONDS, not '%s'" % word)
    found = _layout_of_records(options, m)
    records = m.records(peek=is_peek)
    try:
        return _print_records(options, records, _RecordViews(m.info, found), **limits)
    finally:
        records.close()
        if records.lost:
            text = "bpflookup: %d bytes of records were overwritten before they were seen\n"
            sys.stderr.write(text % records.lost)


def _layout_of_records(options, m):
    """Return the Layout that was asked for, with its meanings; None if there is none."""
    if options.value_type is None:
        if options.show:
            raise _UsageError("--show wants --value-type here")
        return None
    names = _TypeNames(m, options.given_btf())
    found = _c_text_layout(options.value_type, names.layout)
    for wish in options.wishes():
        found = _as_wished(found.showing, wish)
    return found


def _limit(word, text):
    """Return the number of records, or of seconds."""
    is_number = text.isdecimal() if word == "count" else text.replace(".", "", 1).isdecimal()
    if not is_number:
        raise _UsageError("'%s' is no number for %s" % (text, word))
    return min(int(text), sys.maxsize) if word == "count" else float(text)  # islice() takes no more


def _print_records(options, records, views, count, timeout):
    """Print records until there were so many, or so many seconds have gone; return the status."""
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
        if deadline and deadline() < 0:  # there may be more all the time
            break
    return 1 if count else 0


class _RecordViews(dict):
    """Record's size -> _RecordView."""

    def __init__(self, info, layout_of_type):
        dict.__init__(self)
        self.info, self.layout_of_type = info, layout_of_type

    def __missing__(self, size):
        known = self.layout_of_type
        has_type = known is not None and known.size == size
        self[size] = view = _RecordView(self.info, known if has_type else Bytes(size))
        return view


class _RecordView(View):
    """Records of one size as the values of a map that has no keys."""

    def __init__(self, info, value_layout):
        self.info = MapInfo.__new__(MapInfo)
        self.info.__setstate__(dict(info._asdict(), value_size=value_layout.size))
        self.value_layout, self.slot, self.cpus = value_layout, value_layout.size, ()

    def texts_of(self, options, records):
        """Yield the text of records, in the form asked for."""
        self.json_suffix = " strings" if options.strings else ""
        if self.slot:
            yield from options.form_of(self)([(b"", b"".join(records), len(records))])
            return
        empty = '{"value":[]}' if options.ndjson else "value:"
        yield "\n".join([empty] * len(records))


def _totals(view, values, count, cpus):
    """Return [{path: number}] of a chunk's entries, the integers of a value's CPUs added up."""
    columns = {}  # type: dict
    some = [{} for _ in range(count)]  # type: list  # fields that a union has in some entries only
    for path, indices, column in view.value_layout.reader("samples", view.slot).series(values):
        if isinstance(column[0], float):
            continue
        name = "_".join(map(str, path))
        if indices is None:
            sums = _added_up(column, cpus)
            columns[name] = map(add, columns[name], sums) if name in columns else sums
            continue
        for index, number in zip(indices, column):
            into = some[index // cpus]
            into[name] = into.get(name, 0) + number
    return [dict(zip(columns, row)) for row in zip(*columns.values())] or some


def _hist(options):
    if options.metrics:
        raise _UsageError("hist has no --metrics; dump has, and takes --slots")
    view = options.view(rest=None)
    is_linear = options.words[:1] == ["linear"]
    options.end(int(is_linear))
    if is_linear and options.slots:
        raise _UsageError("either 'linear' or --slots")
    chosen = {"": _numbering("linear")} if is_linear else options.numberings()
    if len(chosen) > 1:
        raise _UsageError("--slots: a histogram has one numbering")
    field, numbering = next(iter(chosen.items()), ("", None))
    if numbering is None and _is_of_bpftrace(view.info):
        numbering = _numbering("bpftrace")
    view = _with_types_of_bpftrace(options, view, numbering)
    try:
        slots = _slots_of(view, field)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    numbering = numbering or _numbering(slots.default)
    if not options.json and not options.ndjson:
        view.key_layout = _with_proved_asked(view.key_layout)
    found = _key_histograms if isinstance(slots, _KeySlots) else _array_histograms
    _put_histograms(options, numbering, found(view, slots))


def _is_of_bpftrace(info):
    return (info.name or "")[:3] == "AT_" and info.value_size == 8


def _with_types_of_bpftrace(options, view, numbering):
    """Return a View in which a map without types has a slot behind what else is in the keys, as
    bpftrace's histograms have it.
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
    return options.view_of(view.source, key, Number(8, order=order))


def _key_histograms(view, slots):
    """Yield (head, counts by slot), the heads in their order."""
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
    """Yield the same of each value and array; a head has the key and the texts of the value."""
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
    """Yield what of each value is text, in words."""
    labels = view.value_layout.reader("labels", view.slot)
    samples = view.value_layout.reader("samples", view.slot)
    numbers = {path[:length] for path in samples.paths for length in range(len(path) + 1)}
    cpus = max(len(view.cpus), 1)
    for index, (paths, leaves) in enumerate(labels.pathed(values)):
        if index % cpus == 0:
            pairs = [(path, leaf) for path, leaf in zip(paths, leaves) if path not in numbers]
            yield " ".join("%s=%s" % (_field_text(path), _bare(str(leaf))) for path, leaf in pairs)


def _put_histograms(options, numbering, found):
    """Print histograms, in JSON with the numbers that the slots stand for."""
    if not options.json and not options.ndjson:
        words = (numbering.word, numbering.told)
        print("slots are numbered as %s (%s); --slots tells another numbering" % words)
        drawn = 0
        for drawn, (head, counts) in enumerate(found, 1):
            print("\n".join(([head] if head else []) + _drawn(counts, numbering)))
        if not drawn:
            print("no samples")
        return
    wide = str if options.strings else int
    things = (_histogram_json(head, counts, numbering, wide) for head, counts in found)
    if options.json:
        options.put(list(things))
        return
    for thing in things:
        options.put(thing)


def _histogram_json(head, counts, numbering, wide):
    used = sorted(slot for slot, count in counts.items() if count)
    numbering.prove(used)
    buckets = []
    for slot in used:
        low, high = [None if one is None else wide(one) for one in numbering.bounds(slot)]
        buckets.append({"low": low, "high": high, "count": wide(counts[slot])})
    told = {slot: wide(count) for slot, count in counts.items()}
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
    """Return (heading, labels) of rows for single numbers."""
    lows = [numbering.start(slot) for slot in slots]
    column = max(10, max(len("%d" % low) for low in lows))
    head = "     %-*s" % (column + 3, "value")
    return head, ["        %-*d" % (column, low) for low in lows]


def _range_labels(numbering, slots):
    """Return the same of rows for ranges."""
    is_wide = numbering.is_wide(slots)
    head = "%s%-*s" % (" " * (15 if is_wide else 5), 29 if is_wide else 19, "value")
    return head, [_range_label(numbering, slot, 20 if is_wide else 10) for slot in slots]


def _range_label(numbering, slot, column):
    known = numbering.labels.get((slot, column))
    if known is None:
        ends = ["" if one is None else "%d" % one for one in numbering.bounds(slot)]
        known = "%*s -> %-*s" % (column, ends[0], column, ends[1])
        numbering.labels[slot, column] = known
    return known


def _probe(options):
    options.end()
    rows = []
    for what, check in _checks(options.token):
        there, detail = _outcome(check)
        rows.append((what, there, detail or ("" if there else "not held by this process")))
    if options.json:
        names = ("what", "available", "detail")
        return options.put([dict(zip(names, row)) for row in rows])
    for what, there, text in rows:
        line = "%-3s  %-32s %s" % ("yes" if there else "no", what, _printable(text))
        print(line.rstrip())
    return None


def _checks(token):
    """Yield (what, its check) of all that probe asks; a check is as _outcome takes it."""
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


def _outcome(check):
    """Return (whether, detail) of a check, which returns both or one of them, or fails."""
    try:
        found = check()
    except (BPFError, OSError, ValueError, KeyError, ImportError) as failure:
        return False, str(failure)
    if isinstance(found, tuple):
        return found
    return (found, "") if isinstance(found, bool) else (True, str(found or ""))


def _probe_token():
    """Ask for a token of no bpffs, which is EBADF where the command is known (6.9)."""
    attr = bpf_attr()
    attr.token_create.bpffs_fd = 0xFFFFFFFF
    try:
        _bpf(BPF_TOKEN_CREATE, attr)
    except BadFileDescriptor:
        return True


# map type -> key size, value size, entries and flags of the smallest one, where it is not _SMALLEST
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


def _probe_map(token, map_type, check, flags=0):
    """Make the smallest map of a type and return what check makes of it."""
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


def _knows_struct_ops():
    """Ask for a map of the kernel's type 1, which is none for it: ENOTSUPP where they are known."""
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
    """Load the BTF of one signed int; return its _Fd."""
    words = (24, 0, 16, 16, 5, 1, BTF_KIND_INT << 24, 4, _INT_SIGNED << 24 | 32)
    blob = struct.pack("=HBB9I", 0xEB9F, 1, 0, *words) + b"\0int\0"
    data, attr = ctypes.create_string_buffer(blob, len(blob)), bpf_attr()
    attr.btf_load.btf, attr.btf_load.btf_size = addressof(data), len(blob)
    if token is not None:
        attr.btf_load.btf_flags, attr.btf_load.btf_token_fd = BPF_F_TOKEN_FD, token.number
    return _Fd(
        _bpf, BPF_BTF_LOAD, attr, "BTF of an int", None if token is None else sizeof(attr.btf_load)
    )


# The demo: a socket filter that counts the datagrams a socket gets, by the ports in the UDP header.


class _Ports(ctypes.BigEndianStructure):
    _fields_ = [("source", u16), ("destination", u16)]


class _Traffic(ctypes.Structure):
    _fields_ = [("packets", u64), ("bytes", u64)]


def _insn(opcode, dst=0, src=0, offset=0, immediate=0):
    """Return the 8 bytes of a struct bpf_insn."""
    import struct

    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", opcode, registers, offset, immediate)


def _load_map_fd(dst, fd):
    """Return the two instructions that load a map's address (BPF_PSEUDO_MAP_FD)."""
    return _insn(0x18, dst, 1, 0, fd) + _insn(0)


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


def _load_program(instructions, name):
    """Load a socket filter; return its _Fd.  What the verifier says is a failure's hint."""
    code, licence = (
        ctypes.create_string_buffer(instructions, len(instructions)),
        ctypes.create_string_buffer(b"MIT"),
    )
    log, attr = ctypes.create_string_buffer(1 << 16), bpf_attr()
    load = attr.prog_load
    load.prog_type, load.insn_cnt = BPF_PROG_TYPE_SOCKET_FILTER, len(instructions) // 8
    load.insns, load.license = addressof(code), addressof(licence)
    try:
        return _Fd(_bpf_charged, BPF_PROG_LOAD, attr, "program '%s'" % name)
    except SyscallError as error:
        load.log_buf, load.log_size, load.log_level = addressof(log), sizeof(log), 1
        _syscall_into([], _nr_bpf, BPF_PROG_LOAD, byref(attr), _ATTR_SIZES[BPF_PROG_LOAD])
        error.hint = log.value.decode("latin-1").strip() or error.hint
        raise


def _demo(options):
    """Have the kernel fill a map of ours and look it up; leave nothing behind."""
    options.end()
    try:
        flows = Map.create(
            BPF_MAP_TYPE_HASH, _Ports, _Traffic, 16, name="demo_flows", token=options.token
        )
    except PermissionDenied as error:
        return _complain(
            None,
            "the demo makes a map of its own, and may not: %s; run it as root (sudo python3 "
            "bpflookup.py demo), or in a container started with --cap-add SYS_ADMIN" % error,
            1,
        )
    total_type = BPF_MAP_TYPE_PERCPU_ARRAY
    with flows, Map.create(
        total_type, u32, u64, 1, name="demo_total", token=options.token
    ) as total:
        print("created  %r\n         %r" % (flows, total))
        ports = _demo_traffic(flows, total)
        found, per_cpu = flows[ports], total[0]
        print("hit      flows[%s] -> %s" % (to_json(ports), to_json(found)))
        _demo_errors(flows)
        counts = ["cpu %d: %d" % pair for pair in zip(possible_cpus(), per_cpu)]
        print("per CPU  total[0] -> %s" % ", ".join(counts))
        right = (found.packets, found.bytes, sum(per_cpu)) == (len(_DATAGRAMS), _DEMO_BYTES, 3)
        print("the counts are right" if right else "the counts are wrong")
        return 0 if right else 1


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
