# SPDX-License-Identifier: MIT        (full text at the end of this file)
"""Look keys up in live Linux BPF maps.  One file, standard library only.

    with Map.from_pin("/sys/fs/bpf/flows", key=FlowKey, value=FlowStats) as flows:
        print(flows[FlowKey(src=..., dst=...)].packets)

Map                 open a map: from_pin, from_id, from_name, from_fd, create; then lookup, [], in, get, lookup_into,
                    update, delete, items, batches, push and pop, mmap; .btf and types from it
open_map            a Map from "id 5", "name foo", "pinned PATH", 5, "/path" or "foo"
create_token        a BPF token, which lets a user namespace make maps and read their BTF
maps, pins, users   MapInfo of every map; {map id: [pin, ...]}; the programs and processes that use a map
BTF                 type information: from_vmlinux, from_id, from_file; offsetof, ctype, members, describe
check_layout        refuse a ctypes type that does not fit; describe_layout shows offsets and holes
to_python, to_json  decode a key or value
capture, Capture    write a map down; read it elsewhere
possible_cpus       the CPUs that the values of a per-CPU map belong to
lpm_key, parse_type the key of an LPM trie for "10.0.0.0/8"; the ctypes type for "u32 src, u16 port"
trace               print every bpf(2) call, like strace
BPFError            root of every error raised here; KeyNotFound is also a KeyError
main                the command line: python3 bpflookup.py --help

Sections (grep '^# ---- '): 1 ABI  2 Errors  3 System call  4 Layout  5 BTF  6 Map  7 Inspection  8 Output formats
9 Command line
"""

__version__ = "0.1.0"

import ctypes
import errno
import os
import struct
import sys
from _functools import partial  # type: ignore  # functools reads many files more
from _thread import get_ident
from _operator import methodcaller  # type: ignore  # as light
from ctypes import addressof, byref, get_errno, set_errno, sizeof
from itertools import islice

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
(BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY,       # 3.18
 BPF_PROG_LOAD, BPF_OBJ_PIN, BPF_OBJ_GET, BPF_PROG_ATTACH, BPF_PROG_DETACH,         # 3.18, 4.4, 4.4, 4.10, 4.10
 BPF_PROG_TEST_RUN, BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID,  # 4.13
 BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_QUERY, BPF_RAW_TRACEPOINT_OPEN,                   # 4.13, 4.15, 4.17
 BPF_BTF_LOAD, BPF_BTF_GET_FD_BY_ID, BPF_TASK_FD_QUERY,                             # 4.18
 BPF_MAP_LOOKUP_AND_DELETE_ELEM, BPF_MAP_FREEZE, BPF_BTF_GET_NEXT_ID,               # 4.20 (hashes 5.14), 5.2, 5.4
 BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_AND_DELETE_BATCH, BPF_MAP_UPDATE_BATCH, BPF_MAP_DELETE_BATCH,          # 5.6
 BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_LINK_GET_FD_BY_ID, BPF_LINK_GET_NEXT_ID, BPF_ENABLE_STATS,            # 5.8
 BPF_ITER_CREATE, BPF_LINK_DETACH, BPF_PROG_BIND_MAP, BPF_TOKEN_CREATE,             # 5.8, 5.9, 5.10, 6.9
 BPF_PROG_STREAM_READ_BY_FD, BPF_PROG_ASSOC_STRUCT_OPS) = range(39)                 # 6.17, 7.0
_CMD_NAMES = {number: name for name, number in dict(globals()).items() if name.startswith("BPF_")}

# enum bpf_map_type; append only
(BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_PERF_EVENT_ARRAY,     # 3.19, 4.2, 4.3
 BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_STACK_TRACE, BPF_MAP_TYPE_CGROUP_ARRAY,   # 4.6, 4.8
 BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_LPM_TRIE,        # 4.10, 4.11
 BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS, BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_SOCKMAP,  # 4.12, 4.14
 BPF_MAP_TYPE_CPUMAP, BPF_MAP_TYPE_XSKMAP, BPF_MAP_TYPE_SOCKHASH,                   # 4.15, 4.18
 BPF_MAP_TYPE_CGROUP_STORAGE, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,  # 4.19, 4.20
 BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_STACK, BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_DEVMAP_HASH,         # 4.20, 5.2, 5.4
 BPF_MAP_TYPE_STRUCT_OPS, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_INODE_STORAGE,         # 5.6, 5.8, 5.10
 BPF_MAP_TYPE_TASK_STORAGE, BPF_MAP_TYPE_BLOOM_FILTER, BPF_MAP_TYPE_USER_RINGBUF,   # 5.11, 5.16, 6.1
 BPF_MAP_TYPE_CGRP_STORAGE, BPF_MAP_TYPE_ARENA, BPF_MAP_TYPE_INSN_ARRAY, BPF_MAP_TYPE_RHASH,       # 6.2, 6.9, 6.19, 7.2
 ) = range(1, 36)
_MAP_TYPE_NAMES = {number: name[len("BPF_MAP_TYPE_"):].lower() for name, number in dict(globals()).items()
                   if name.startswith("BPF_MAP_TYPE_")}

# map_flags of BPF_MAP_CREATE; RDONLY and WRONLY also open_flags, file_flags
(BPF_F_NO_PREALLOC, BPF_F_NO_COMMON_LRU, BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_WRONLY,       # 4.6, 4.10, 4.14, 4.15
 BPF_F_STACK_BUILD_ID, BPF_F_ZERO_SEED, BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG,       # 4.17, 5.0, 5.2
 BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_PRESERVE_ELEMS, BPF_F_INNER_MAP,                # 5.4, 5.5, 5.10
 BPF_F_LINK, BPF_F_PATH_FD, BPF_F_VTYPE_BTF_OBJ_FD, BPF_F_TOKEN_FD,                 # 6.4, 6.5, 6.9
 BPF_F_SEGV_ON_FAULT, BPF_F_NO_USER_CONV, BPF_F_RB_OVERWRITE) = (1 << bit for bit in range(20))     # 6.9, 7.0

# flags of the element commands: create or replace, create only, replace only, under the value's bpf_spin_lock (5.1);
# 7.0, per-CPU values: one CPU's, its number in bits 32..63, or the same for every CPU
BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK, BPF_F_CPU, BPF_F_ALL_CPUS = 0, 1, 2, 4, 8, 16

# kinds of struct btf_type (linux/btf.h): up to FUNC_PROTO 4.18, VAR and DATASEC 5.2, then 5.13, 5.16, 5.17, 6.0
(BTF_KIND_INT, BTF_KIND_PTR, BTF_KIND_ARRAY, BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_FWD,
 BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_FUNC, BTF_KIND_FUNC_PROTO,
 BTF_KIND_VAR, BTF_KIND_DATASEC, BTF_KIND_FLOAT, BTF_KIND_DECL_TAG, BTF_KIND_TYPE_TAG, BTF_KIND_ENUM64) = range(1, 20)
_KIND_NAMES = {number: name[len("BTF_KIND_"):].lower() for name, number in dict(globals()).items()
               if name.startswith("BTF_KIND_")}

BPF_PROG_TYPE_SOCKET_FILTER = 1        # 3.19
_PROG_TYPES = (                        # enum bpf_prog_type, as bpftool names them
    "unspec socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb cgroup_sock lwt_in lwt_out "
    "lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint cgroup_sock_addr lwt_seg6local lirc_mode2 "
    "sk_reuseport flow_dissector cgroup_sysctl raw_tracepoint_writable cgroup_sockopt tracing struct_ops ext lsm "
    "sk_lookup syscall netfilter").split()

# fmt: on


def map_type_name(map_type):
    """Return "percpu_array" for 6, "type_99" for a type newer than this file."""
    return _MAP_TYPE_NAMES.get(map_type, "type_%d" % map_type)


def cmd_name(cmd):
    """Return "BPF_MAP_LOOKUP_ELEM" for 1, "cmd_99" for a command newer than this file, "mmap" as it is."""
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
    """BPF_MAP_*_ELEM, BPF_MAP_GET_NEXT_KEY (value is the next key) and BPF_MAP_FREEZE; key and value are addresses."""

    _fields_ = [("map_fd", u32), ("_pad", u32), ("key", u64), ("value", u64), ("flags", u64)]


class bpf_attr_batch(ctypes.Structure):
    """BPF_MAP_*_BATCH: four addresses, in_batch 0 to begin; count is the room, then the elements done."""

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
    """BPF_*_GET_NEXT_ID and BPF_*_GET_FD_BY_ID; start_id is also map_id, prog_id ...; next_id is always written."""

    _fields_ = [
        ("start_id", u32),
        ("next_id", u32),
        ("open_flags", u32),
        ("fd_by_id_token_fd", s32),
    ]  # 4.15, 6.15


class bpf_attr_info(ctypes.Structure):
    """BPF_OBJ_GET_INFO_BY_FD: info is an address, info_len the room there and then the bytes written."""

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
    """The argument of bpf(2).  Always allocated whole: the kernel writes outputs beyond a short size."""

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


# Arm, the last field that must be passed, and the commands: a kernel refuses bytes it does not know, so no more
# than that is passed unless a caller says so.  MAP_CREATE passes what is set.
_ARMS = {
    cmd: (arm, last)
    for arm, last, cmds in (
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
    )
    for cmd in cmds
}


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

    _fields_ = [  # ifindex, btf_vmlinux_value_type_id, netns 4.16, 5.6, 4.16; btf 4.18; map_extra 5.16; hash 6.18
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
    """What BPF_OBJ_GET_INFO_BY_FD tells of a BTF object: btf and name are addresses; name and on are of 5.11."""

    _fields_ = [
        ("btf", u64),
        ("btf_size", u32),
        ("id", u32),
        ("name", u64),
        ("name_len", u32),
        ("kernel_btf", u32),
    ]


class bpf_prog_info(ctypes.Structure):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a program, up to what tells its maps (4.15)."""

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
    ]


# ---- 2. Errors --------------------------------------------------------------

ENOTSUPP = 524  # kernel-internal, yet it reaches user space; libc has no name for it
EBADFD = getattr(
    errno, "EBADFD", 77
)  # errno is a Linux one wherever an error comes from the kernel


class BPFError(Exception):
    """Root of every error this module raises on purpose, but for ValueError from a closed map."""


class SyscallError(OSError, BPFError):
    """A command that the kernel refused: .errno, .cmd ("BPF_MAP_LOOKUP_ELEM"), .map in words, .hint (the likely cause,
    found after the failure, or None), .count of a batch command (elements done before).  args is (errno, message)."""

    cmd = map = _meaning = ""
    hint = count = None

    def __str__(self):
        message = self.args[1] if len(self.args) > 1 else OSError.__str__(self)
        return "%s; %s" % (message, self.hint) if self.hint else str(message)


class KeyNotFound(SyscallError, KeyError):
    """ENOENT from an element command: the map has no such key (.key).  Not a failure of the call."""

    key = None
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
    """ENOENT from reading or deleting at an index that is not below max_entries, as KeyOutOfRange is from writing."""


class MapNotFound(SyscallError, FileNotFoundError):
    """ENOENT when a map was to be opened by pin, id or name."""

    _meaning = "no such map"


class PermissionDenied(SyscallError, PermissionError):
    """EPERM, EACCES: .hint says which of descriptor mode, frozen map, capability or limit it was."""


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


class LayoutError(BPFError, TypeError):
    """A ctypes type that does not fit the map, or a key or value that does not fit its type."""


class BTFError(BPFError, ValueError):
    """Type information that is malformed, or not to be had."""


class IterationAborted(BPFError, RuntimeError):
    """A scan that could not be finished without the risk of a gap."""


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


def errno_name(code):
    """Return "ENOENT" for 2, "ENOTSUPP" for 524, "errno 999" for what has no name."""
    kernel_names = {
        ENOTSUPP: "ENOTSUPP",
        errno.EOPNOTSUPP: "EOPNOTSUPP",
    }  # Python's for the latter is ENOTSUP
    return kernel_names.get(code) or errno.errorcode.get(code, "errno %d" % code)


def _error(code, cmd, about="", map_type=None, fd=None, detail=None, path=None, flags=0, cls=None):
    """Return the exception for an errno: the class from the tables, the hint from a look around.

    about is what the command was used on, in words; fd, path and its flags explain refusals; detail replaces the
    class's words, cls the class.
    """
    cls = cls or _error_class(code, cmd, map_type)
    name = cmd_name(cmd)
    meaning = detail or cls._meaning or os.strerror(code)
    error = cls(
        code, "%s%s: %s (%s)" % (name, " on " + about if about else "", meaning, errno_name(code))
    )
    error.cmd, error.map = name, about
    try:
        error.hint = _diagnose(code, cmd, map_type, fd, path, flags)
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
        "this takes permission to %s the file, whose mode is %03o, owner %d, group %d; this process has uid %d"
        % (what, status.st_mode & 0o777, status.st_uid, status.st_gid, os.geteuid())
    )


def _bpffs_mounts():
    """Return the directories that a bpffs is mounted on, [] without /proc."""
    lines = [line.split() for line in _read_text("/proc/self/mounts").splitlines()]
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
    """Say why a command on an open map was refused, None if it is not for what the descriptor or the map is."""
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
    """Whether this process is in another user namespace than the initial one, as far as /proc tells."""
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
        for name, colon, value in (line.partition(":") for line in _read_text(path).splitlines())
        if colon
    )


def _fdinfo(fd):
    """Return what /proc says of a descriptor, {} without /proc.  Needs no privilege; alone shows "frozen"."""
    return _colon_file("/proc/self/fdinfo/%d" % fd)


def _kernel_release():
    """Return (6, 18) on Linux 6.18.44."""
    return tuple(int(part) for part in os.uname().release.replace("-", ".").split(".")[:2])


# ---- 3. System call ---------------------------------------------------------

SYSCALL_NUMBER = None  # set this where the table lacks your architecture

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


def syscall_number(machine=None, pointer_size=None):
    """Return the number of bpf(2), 321 on x86-64; raise NotSupported where it is not known.

    machine and pointer_size are those of uname -m and sizeof(void *); left out, the ELF header of the running
    interpreter is asked first, as uname describes the kernel and not the process.
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
    """Return the number for the ABI in an executable's ELF header, None if the table does not tell."""
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
    """Makes an errno of what syscall(2) returned: 0 stays 0; for -1 set_errno is called, which returns errno.

    All of that is C's: no signal handler, whose own calls may fail, runs between the call and the reading of errno.
    """

    __missing__ = set_errno


class _Errno(ctypes._SimpleCData):
    """The result of a system call that returns 0 if it succeeds: 0 or errno."""

    _type_ = "l"
    _check_retval_ = _Outcomes({0: 0}).__getitem__


def _in_one_step(kept, function, *words):
    """Append function(*words), a function of C's, to the list kept: no signal handler comes between."""
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
    """Append bpf(2)'s result and errno to the list kept, in one step: whoever holds the list owns a new descriptor."""
    if _nr_bpf is None:
        _find_libc()
    call = partial(_libc_function, _nr_bpf, *words)
    kept.extend(map(_call, (call, get_errno)))


_nr_bpf = _libc_function = None  # type: ignore
_call = methodcaller("__call__")
_libc_syscall = _first_syscall
# Every call goes through one of these two; trace() puts its own here.
_syscall = _first_syscall  # (number, command, attr, size): 0 or errno, for commands that return 0
_syscall_into = _libc_syscall_into  # (kept, number, command, attr, size): appends result, errno


def _bpf(cmd, attr, about="", size=None, kept=None, **known):
    """Call bpf(2); return its result or raise _error of what is known.  The caller keeps alive what attr points to.

    A list given as kept holds the result as soon as there is one: a descriptor is closed with it, whatever interrupts.
    """
    kept = [] if kept is None else kept
    del kept[:]
    _syscall_into(kept, _nr_bpf, cmd, byref(attr), _ATTR_SIZES[cmd] if size is None else size)
    result, code = kept
    if result == -1:
        raise _error(code, cmd, about, **known)
    return result


def _bpf_charged(cmd, attr, about="", size=None, kept=None, **known):
    """Do what _bpf does; where kernels before 5.11 answer EPERM for RLIMIT_MEMLOCK, raise that and try again."""
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
    """The descriptor that make(...) returns, closed when nobody refers to it any more: calls under way keep it open.

    make is a function of C's, or one of ours that takes kept, the list that holds the descriptor from its first moment.
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

    def fileno(self):
        return self.number

    def __reduce__(self):
        raise TypeError("a descriptor means nothing in another process")


def _info_by_fd(fd, info, about):
    """Fill info, a zeroed structure, from BPF_OBJ_GET_INFO_BY_FD; return how many bytes the kernel knows."""
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
    """Yield (id, read(id)) of the ids that a BPF_*_GET_NEXT_ID tells; what goes away meanwhile is left out."""
    for number in _ids(cmd):
        try:
            found = read(number)
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            yield number, found


class trace:
    """Print every bpf(2) call made inside the with block, decoded, with result and duration: with trace(): ...

    write takes a str and is sys.stderr.write if left out.  Keys and values are shown as bytes.
    """

    def __init__(self, write=None):
        self._write = write or (lambda text: sys.stderr.write(text))

    def __enter__(self):
        global _syscall, _syscall_into
        _tracers.append(self._write)
        _syscall, _syscall_into = _traced_syscall, _traced_syscall_into
        return self

    def __exit__(self, *_):
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
            text = '"%s"' % os.fsdecode(
                value if isinstance(value, bytes) else ctypes.string_at(value)
            )
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
    """Return (key, value) bytes as an element command moves them; zeros where the kernel does not tell."""
    info = bpf_map_info()
    attr = _info_attr(elem.map_fd, info)
    size = _ATTR_SIZES[BPF_OBJ_GET_INFO_BY_FD]
    if _libc_syscall(_nr_bpf, BPF_OBJ_GET_INFO_BY_FD, byref(attr), size):
        return 0, 0
    value_size = info.value_size
    if info.type in _PERCPU_TYPES and not elem.flags & (BPF_F_CPU | BPF_F_ALL_CPUS):
        value_size = percpu_stride(value_size) * len(_proven_cpus or ())
    return info.key_size, value_size


def percpu_stride(value_size):
    """Bytes from one CPU's value to the next's, as the kernel copies them (bpf_map_value_size)."""
    return (value_size + 7) & ~7


_proven_cpus = None  # once per process: the possible CPUs, their number told by the kernel
_MAX_CPUS = 8192  # the largest NR_CPUS that any architecture can be built with


def possible_cpus():
    """Return the ids of the possible CPUs; values of per-CPU maps lie in this order.

    Their number is what the kernel itself rounds an LRU map to, or, without the right to create one (CAP_BPF), what
    /sys says.  /sys alone tells which ids; where it contradicts the kernel they count from 0.  raises SyscallError
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
    """Ask the kernel: it rounds max_entries of a BPF_F_NO_COMMON_LRU map up to a multiple of the CPUs."""
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
    return tuple(cpu for ends in ranges for cpu in range(ends[0], min(ends[-1], _MAX_CPUS) + 1))


# ---- 4. Layout --------------------------------------------------------------
# ctypes types on one side, the kernel's bytes on the other; nothing here needs a kernel.

MAX_DEPTH = 32  # of types inside types, for checks and decoding

_INT_CODES, _SIGNED_CODES, _FLOAT_CODES = "bBhHiIlLqQ", "bhilq", "fd"
_SIGNED_INTS = {1: ctypes.c_int8, 2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}
_UNSIGNED_INTS = {1: u8, 2: u16, 4: u32, 8: u64}
_BASES = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._SimpleCData)
_CDATA = ctypes._SimpleCData.__mro__[1]  # the base of every ctypes object

# What a caller's class defines (__new__, a field named from_buffer, a property named value) must not come
# between us and the bytes, so objects are made, copied and read through the classes of ctypes itself.
_get_value = ctypes._SimpleCData.__dict__["value"].__get__


def _base(ctype):
    return next(base for base in _BASES if issubclass(ctype, base))


def _maker(ctype):
    """Return what makes a zeroed object of ctype, whatever __new__ and __init__ the class has or will be given."""
    return ctype if _is_plain(ctype) else partial(_base(ctype).__new__, ctype)


def _copier(ctype):
    """Return f(buffer, offset=0), which makes a ctype of the bytes there."""
    return type(_base(ctype)).from_buffer_copy.__get__(
        ctype, type(ctype)
    )  # without: a crash in 3.13


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
    """Whether it is a scalar class of ctypes itself, whose value attribute and array elements are plain numbers."""
    return (
        _is_scalar(ctype)
        and ctype.__mro__[1] is ctypes._SimpleCData
        and ctype.__module__ == "ctypes"
    )


def _is_plain_int(ctype):
    return _is_plain(ctype) and _is_int(ctype)


def _int_range(ctype):
    """Return (lowest, highest) of an integer type."""
    bits = 8 * sizeof(ctype)
    return (
        (-1 << bits - 1, (1 << bits - 1) - 1)
        if ctype._type_ in _SIGNED_CODES
        else (0, (1 << bits) - 1)
    )


def _is_swapped(ctype):
    """Whether the type keeps its bytes in the order that this machine does not."""
    native = "__ctype_le__" if sys.byteorder == "little" else "__ctype_be__"
    return (
        hasattr(ctype, "_swappedbytes_")
        or _is_scalar(ctype)
        and getattr(ctype, native, ctype) is not ctype
    )


def type_name(ctype):
    """Return a ctypes type in C's terms: "u32", "be16", "char[16]", "struct FlowKey"."""
    brackets = ""
    while _is_array(ctype):
        ctype, brackets = ctype._type_, brackets + "[%d]" % ctype._length_
    if _is_record(ctype):
        return (
            ("union " if issubclass(ctype, ctypes.Union) else "struct ") + ctype.__name__ + brackets
        )
    if not _is_scalar(ctype) or ctype._type_ not in _INT_CODES + _FLOAT_CODES + "?c":
        return getattr(ctype, "__name__", repr(ctype)) + brackets
    if ctype._type_ in "?c":
        return ("bool" if ctype._type_ == "?" else "char") + brackets
    letter = "f" if ctype._type_ in _FLOAT_CODES else "s" if ctype._type_ in _SIGNED_CODES else "u"
    if _is_swapped(ctype):
        letter = ("be" if sys.byteorder == "little" else "le") + letter.replace("u", "")
    return "%s%d%s" % (letter, 8 * sizeof(ctype), brackets)


class _Field:
    """A field of a Structure or Union: .name .type .bits (None: no bitfield) .descriptor .offset"""

    __slots__ = ("name", "type", "bits", "descriptor", "offset")

    def __init__(self, owner, spec):
        self.name, self.type = spec[0], spec[1]
        self.bits = spec[2] if len(spec) > 2 else None
        self.descriptor = owner.__dict__.get(self.name)
        self.offset = getattr(self.descriptor, "offset", None)
        if not isinstance(self.offset, int):
            raise LayoutError(
                "%s.%s is no longer the field that ctypes made" % (owner.__name__, self.name)
            )


def _own_fields(ctype):
    return [_Field(ctype, spec) for spec in ctype.__dict__.get("_fields_", ())]


def _fields(ctype):
    """Return the fields of a Structure or Union, those of its base classes first."""
    return [field for cls in reversed(ctype.__mro__) for field in _own_fields(cls)]


def check_layout(ctype, size, what="value"):
    """Raise LayoutError unless ctype is plain data of exactly size bytes, its bits where C has them.

    ctype is a scalar, Structure, Union or array, or bytes, which fits any size; what is the word for it in messages.
    Pointers, py_object and wide characters are refused at any depth: they mean nothing in a map.
    """
    if ctype is bytes:
        return
    _check_plain(ctype, what)
    if sizeof(ctype) == size:
        return
    message = "%s has %d bytes in the map, %s has %d" % (
        what,
        size,
        type_name(ctype),
        sizeof(ctype),
    )
    if _is_record(ctype):
        for pack, words in ((1, "with _pack_ = 1"), (0, "without _pack_")):
            other = _c_layout(ctype, pack)[1]
            if other != sizeof(ctype):
                message += "; %s it would have %d%s" % (
                    words,
                    other,
                    ", which fits" if other == size else "",
                )
        message += "\n" + describe_layout(ctype)
    raise LayoutError(message)


def _check_plain(ctype, what, depth=0):
    """Return how many values the type holds; LayoutError unless it does so itself, in a form and in places as C's."""
    if depth > MAX_DEPTH:
        raise LayoutError("%s: more than %d levels of types inside types" % (what, MAX_DEPTH))
    values = 1
    if _is_array(ctype):
        values += ctype._length_ * _check_plain(ctype._type_, what + "[]", depth + 1)
    elif _is_scalar(ctype):  # by what _type_ says now, and what it said when ctypes made the class
        codes = _INT_CODES + _FLOAT_CODES + "?c"
        if (
            ctype._type_ not in codes
            or memoryview(_base(ctype).__new__(ctype)).format[-1] not in codes
        ):
            raise LayoutError(
                "%s is %s: a pointer, object or wide character of this process means nothing in a map"
                % (what, ctype.__name__)
            )
    elif not _is_record(ctype) or ctype in (ctypes.Structure, ctypes.Union):
        raise LayoutError(
            "%s must be a ctypes scalar, Structure, Union or array, or bytes, not %r"
            % (what, ctype)
        )
    else:
        # From the first object on its _fields_ are final; this one takes no memory, and none is looked at.
        type(_base(ctype)).from_address.__get__(ctype, type(ctype))(addressof(_ZERO))
        names = [field.name for field in _fields(ctype)]
        if len(set(names)) < len(names):
            raise LayoutError("%s: %s has two fields of one name" % (what, type_name(ctype)))
        for field in _fields(ctype):
            values += _check_plain(field.type, "%s.%s" % (what, field.name), depth + 1)
        for cls in ctype.__mro__:
            if any(field.bits for field in _own_fields(cls)):
                _check_bitfields(cls, what)
    if values > 16 * sizeof(ctype) + 4096:
        raise LayoutError("%s: %d values in %d bytes are too many" % (what, values, sizeof(ctype)))
    return values


def _c_layout(ctype, pack):
    """Return ([bit offset of each own field], bytes) as C on Linux lays them out; pack is n of #pragma pack(n), or 0.

    A bitfield takes the next free bits, unless it would cross more units of its type's alignment than the
    type has (never asked under a pragma): the System V rule, PCC_BITFIELD_TYPE_MATTERS in GCC.
    """
    base = ctype.__mro__[1]
    inherits = any("_fields_" in cls.__dict__ for cls in base.__mro__)
    position = 8 * sizeof(base) if inherits else 0
    align = ctypes.alignment(base) if inherits else 1
    end, offsets = position, []
    for field in _own_fields(ctype):
        unit = ctypes.alignment(field.type)
        unit_bits = 8 * (min(unit, pack) if pack else unit)
        if issubclass(ctype, ctypes.Union):
            position = 0
        width = 8 * sizeof(field.type) if field.bits is None else field.bits
        crosses = not pack and (position % unit_bits + width + unit_bits - 1) // unit_bits > (
            8 * sizeof(field.type) // unit_bits
        )
        if field.bits is None or crosses:
            position = -(-position // unit_bits) * unit_bits
        offsets.append(position)
        position += width
        end, align = max(end, position), max(align, unit_bits // 8)
    size = -(-end // 8)
    return offsets, -(-size // align) * align


def _check_bitfields(ctype, what):
    """Raise LayoutError if this Python (before 3.14) keeps a field in other bits than C: each is set to ones."""
    expected, size = _c_layout(ctype, getattr(ctype, "_pack_", 0))
    order = (
        sys.byteorder
        if not _is_swapped(ctype)
        else "big"
        if sys.byteorder == "little"
        else "little"
    )
    over = _overlay(ctype)
    wrong = (
        ["it has %d bytes here and %d in C" % (sizeof(ctype), size)]
        if size != sizeof(ctype)
        else []
    )
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
        ):  # else setting it would write elsewhere
            field.descriptor.__set__(over(raw), -1)
        shift = position if order == "little" else 8 * sizeof(ctype) - position - field.bits
        if shift < 0 or int.from_bytes(raw, order) != (1 << field.bits) - 1 << shift:
            wrong.append(
                "%s: C has it in %d bits from bit %d on, Python %s elsewhere"
                % (field.name, field.bits, position, sys.version.split()[0])
            )
    if wrong:
        raise LayoutError(
            "%s: the bitfields of %s do not lie where C puts them (%s); declare whole integers "
            "and shift, or order the fields by the size of their types"
            % (what, type_name(ctype), "; ".join(wrong))
        )


def describe_layout(ctype):
    """Return a table of a type's fields: offset, size, name, C type; holes are shown, bits as ":5".

    Padding in a key is compared like any other byte: unless it is zero on both sides, lookups miss.  raises LayoutError
    """
    _check_plain(ctype, "the type")
    known = getattr(ctype, "_btf_type_", None)
    if known:
        return known[0].describe(known[1])
    rows = _rows(ctype) if _is_record(ctype) else []
    return _table(
        type_name(ctype), sizeof(ctype), rows, _is_record(ctype) and issubclass(ctype, ctypes.Union)
    )


def _placed(ctype):
    """Return [(field, bit offset, bits)] of a record whose bitfields have been checked."""
    return [
        (
            field,
            position if field.bits is not None else 8 * field.offset,
            8 * sizeof(field.type) if field.bits is None else field.bits,
        )
        for cls in reversed(ctype.__mro__)
        if "_fields_" in cls.__dict__
        for field, position in zip(_own_fields(cls), _c_layout(cls, getattr(cls, "_pack_", 0))[0])
    ]


def _rows(ctype):
    """Return a record's rows for _table."""
    return [
        (
            "%s: %s%s"
            % (field.name, type_name(field.type), "" if field.bits is None else ":%d" % field.bits),
            offset,
            bits,
            (_rows(field.type), sizeof(field.type), issubclass(field.type, ctypes.Union))
            if _is_record(field.type)
            else None,
        )
        for field, offset, bits in _placed(ctype)
    ]


def _table(title, size, rows, is_union):
    """Return a layout as text.  A row: (text, bit offset, bits, None or (rows, bytes, is_union) of a record inside)."""
    lines = ["%6s %5s  %s" % ("offset", "size", title)]
    holes = _table_rows(lines, rows, size, is_union, 0, "  ") if rows else 0
    lines.append(
        "%d bytes%s"
        % (
            size,
            ", %s of them padding (must match in a key, best zero)"
            % (holes // 8 if holes % 8 == 0 else "%d bits" % holes)
            if holes
            else "",
        )
    )
    return "\n".join(lines)


def _table_rows(lines, rows, size, is_union, start, indent):
    """Append a line per row of what begins at bit start; return how many bits are holes."""
    end = holes = 0
    for text, offset, bits, inside in rows + [("", 8 * size, 0, None)]:
        if offset > end and not is_union:
            lines.append(
                "%6s %5s  %s(hole)" % (_bytes_text(start + end), _bytes_text(offset - end), indent)
            )
            holes += offset - end
        if text:
            lines.append(
                "%6s %5s  %s%s" % (_bytes_text(start + offset), _bytes_text(bits), indent, text)
            )
        if inside:
            holes += _table_rows(
                lines, inside[0], inside[1], inside[2], start + offset, indent + "  "
            )
        end = max(end, offset + bits)
    return holes


def _bytes_text(bits):
    return "%d" % (bits // 8) if bits % 8 == 0 else "%s:%d" % (bits // 8 or "", bits % 8)


class _Bits:
    """Descriptor of an integer that lies in bits, or bytes, where ctypes has no field.

    Bits are counted as C does, from the low end of each byte, in big-endian data from the high one.
    """

    def __init__(self, offset, bits, order, signed):
        self.first, self.last = offset // 8, (offset + bits + 7) // 8
        self.shift = offset - 8 * self.first if order == "little" else 8 * self.last - offset - bits
        self.bits, self.mask, self.order, self.sign = (
            bits,
            (1 << bits) - 1,
            order,
            signed and 1 << bits - 1,
        )

    def of(self, raw):
        """Return the number in raw bytes."""
        number = int.from_bytes(raw[self.first : self.last], self.order) >> self.shift & self.mask
        return (number ^ self.sign) - self.sign

    def source(self):
        """Return Python that does that with self."""
        number = "int.from_bytes(bytes(self)[%d:%d], %r) >> %d & %#x" % (
            self.first,
            self.last,
            self.order,
            self.shift,
            self.mask,
        )
        return "((%s) ^ %#x) - %#x" % (number, self.sign, self.sign) if self.sign else number

    def __get__(self, obj, owner=None):
        return self if obj is None else self.of(memoryview(obj).tobytes())

    def put(self, buffer, number):
        """Store a number in a buffer of bytes; LayoutError if it does not fit."""
        number = (
            _integer(number, -self.sign, self.mask - self.sign, "a field of %d bits" % self.bits)
            & self.mask
        )
        whole = int.from_bytes(bytes(buffer[self.first : self.last]), self.order) & ~(
            self.mask << self.shift
        )
        buffer[self.first : self.last] = (whole | number << self.shift).to_bytes(
            self.last - self.first, self.order
        )

    def __set__(self, obj, number):
        self.put((u8 * sizeof(obj)).from_buffer(obj), number)


def python_source(ctype, name=""):
    """Return Python that makes a ctypes type anew, with neither BTF nor this module, and calls it name."""
    lines = ["import ctypes"]
    expression = _source_of(ctype, {}, lines)
    wanted = _identifier(name or (expression if _is_record(ctype) else "value"))
    if wanted != expression:  # of a typedef, a scalar, an array
        lines += ["", "%s = %s" % (wanted, expression)]
    return "\n".join(lines) + "\n"


def _source_of(ctype, names, lines):
    """Return the expression for a ctypes type; append to lines the classes that it needs, named in names."""
    if _is_array(ctype):
        return "(%s * %d)" % (_source_of(ctype._type_, names, lines), ctype._length_)
    if _is_scalar(ctype):
        name = {"?": "bool", "c": "char", "f": "float", "d": "double"}.get(
            ctype._type_
        ) or "%sint%d" % ("" if ctype._type_ in _SIGNED_CODES else "u", 8 * sizeof(ctype))
        order = "be" if sys.byteorder == "little" else "le"
        return "ctypes.c_%s%s" % (name, ".__ctype_%s__" % order if _is_swapped(ctype) else "")
    if ctype not in names:
        name = _identifier(ctype.__name__)
        name = (
            name.lstrip("_") or "anonymous" if name[:2] == "__" else name
        )  # class bodies mangle the others
        while name in names.values():
            name += "_"
        names[ctype] = name  # before those inside: the outermost keeps its name
        fields = [(field.name, _source_of(field.type, names, lines)) for field in _fields(ctype)]
        lines += [
            "",
            "",
            "class %s(ctypes.%s):" % (name, _base(ctype).__name__),
            "    _pack_ = 1",
            "    _layout_ = 'ms'",
        ]
        lines += (
            ["    _anonymous_ = %a" % ctype._anonymous_]
            if ctype.__dict__.get("_anonymous_")
            else []
        )
        lines += (
            ["    _fields_ = ["] + ["        (%a, %s)," % field for field in fields] + ["    ]"]
        )
        holes = {field: None for field, _ in fields if field.startswith("_hole")}
        lines += ["    _btf_ = _json_ = %a" % holes] if holes else []
        own = [
            (name, label, one.source())
            for label, one in sorted(ctype.__dict__.items())
            if isinstance(one, _Bits)
        ]
        lines += ["", ""][: 2 * len(own)] + [
            "setattr(%s, %a, property(lambda self: %s))" % spec for spec in own
        ]
    return names[ctype]


def _identifier(text):
    """Return a name that Python takes: what compilers write is one but for keywords and the dot of ".bss"."""
    import keyword

    name = (
        "".join(char if char.isalnum() and char < "\x80" else "_" for char in text.lstrip("."))
        or "anonymous"
    )
    taken = ("ctypes", "setattr", "property", "int", "bytes")  # the source itself needs those
    return (
        "_" + name
        if name[0].isdigit()
        else name + "_"
        if keyword.iskeyword(name) or name in taken
        else name
    )


def _integer(given, low, high, what):
    """Return given as an int; LayoutError unless it is one (or has __index__) from low to high."""
    number = given.__index__() if hasattr(type(given), "__index__") else given
    if issubclass(type(number), int):
        number = int.__index__(number)  # a subclass may compare as it likes
    else:
        raise LayoutError("%s must be an int, not %s" % (what, type(given).__name__))
    if not low <= number <= high:
        raise LayoutError("%s is %d, outside %d..%d" % (what, number, low, high))
    return number


def _to_ctype(ctype, size, given, what):
    """Return a ctypes object that holds given as the kernel wants it, given itself where it is one already.

    For ctype bytes, size raw bytes.  raises LayoutError: nothing is converted that is not meant, cut or padded
    """
    # The class alone proves nothing: an object's __class__ can be assigned a larger one.
    if type(given) is ctype and ctype is not bytes and sizeof(given) >= size:
        return given
    # An array class made by BTF is not the one that ctypes caches for ever.
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
        return _set(
            ctype, _integer(given, *_int_range(ctype), what="%s (%s)" % (what, type_name(ctype)))
        )
    if _is_scalar(ctype) and isinstance(given, (int, float)):
        if ctype._type_ == "?" and given in (0, 1) and isinstance(given, int):
            return _set(ctype, given)
        if ctype._type_ in _FLOAT_CODES:
            try:
                obj = _set(ctype, given)
                number = _get_value(obj)
            except OverflowError:
                number = None
            # A float may be rounded, that is its nature; an int may not, and neither may become infinite.
            if (
                number == given
                or isinstance(given, float)
                and number not in (float("inf"), float("-inf"), None)
            ):
                return obj
            raise LayoutError("%s is %s, which does not hold %r" % (what, type_name(ctype), given))
    accepted = "%d bytes" % size
    if ctype is not bytes:
        accepted = "%s%s or %s" % (type_name(ctype), ", an int" if _is_int(ctype) else "", accepted)
    raise LayoutError("%s must be %s, not %s" % (what, accepted, type(given).__name__))


def _set(ctype, number):
    """Return a new scalar of that value."""
    obj = _maker(ctype)()
    ctypes._SimpleCData.__dict__["value"].__set__(obj, number)
    return obj


def to_python(obj):
    """Return a key or value as plain dict, list, int, float, bool and str.

    Structures become dicts; a class's _json_ renames fields or, with None, leaves them out; its _union_ tells which
    branch of a union field holds: {"u": ("kind", {4: "ip4", 6: "ip6"})} reads field kind.  char arrays become str up to
    their first NUL where that is text, else lists.  raises LayoutError for pointers, an unknown tag, past 32 levels
    """
    return _plain(obj, 0)


def to_json(obj):
    """Return to_python(obj) as JSON text; numbers that JSON lacks become "NaN", "Infinity", "-Infinity"."""
    import json

    return json.dumps(_finite(to_python(obj)), allow_nan=False)


def _finite(plain):
    """Replace the floats that JSON does not have by their names."""
    if isinstance(plain, float) and (plain != plain or plain in (float("inf"), float("-inf"))):
        return "NaN" if plain != plain else "Infinity" if plain > 0 else "-Infinity"
    if isinstance(plain, dict):
        return {name: _finite(member) for name, member in plain.items()}
    return [_finite(member) for member in plain] if isinstance(plain, list) else plain


def _plain(obj, depth):
    """Decode what a caller hands in: plain Python data, and ctypes objects once their type is checked."""
    if depth > MAX_DEPTH:
        raise LayoutError("more than %d levels of lists inside lists" % MAX_DEPTH)
    if isinstance(obj, _CDATA):
        _check_plain(type(obj), type_name(type(obj)))
        if sizeof(obj) < sizeof(type(obj)):  # its __class__ was assigned
            raise LayoutError("this %s has only %d bytes" % (type_name(type(obj)), sizeof(obj)))
        return _decode(type(obj), memoryview(obj).tobytes(), 0)
    if isinstance(obj, (list, tuple)):
        return [_plain(member, depth + 1) for member in obj]
    if isinstance(obj, (bytes, bytearray)):
        return list(obj)
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    raise LayoutError("%s is no plain data" % type(obj).__name__)


def _decode(ctype, raw, offset):
    """Return the plain form of the ctype at a byte offset of raw; the type has been checked."""
    if _is_scalar(ctype):
        number = _get_value(_copier(ctype)(raw, offset))
        return (
            number if ctype._type_ != "c" else number[0] if _text(number) is None else _text(number)
        )
    if _is_record(ctype):
        known = getattr(ctype, "_btf_type_", None)
        return (
            known[0]._plain(known[1], raw, 8 * offset)
            if known
            else _decode_record(ctype, raw, offset, None)
        )
    if ctype._type_ is ctypes.c_char:
        chars = raw[offset : offset + sizeof(ctype)]
        return list(chars) if _text(chars) is None else _text(chars)
    step = sizeof(ctype._type_)
    return [_decode(ctype._type_, raw, offset + index * step) for index in range(ctype._length_)]


def _text(raw):
    """Return what a C string in a char array says, None where it is not text."""
    try:
        text = raw.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\t\n\r" for char in text) else None


def _decode_record(ctype, raw, offset, branch):
    """Return a record's fields as a dict; of a union with a discriminator only the branch."""
    fields = {field.name: field for field in _fields(ctype)}
    labels, unions, plain = _tag(ctype, "_json_", fields), _tag(ctype, "_union_", fields), {}

    def member(field, branch=None):
        if field.bits is not None:
            return field.descriptor.__get__(_copier(ctype)(raw, offset))
        if branch is not None:
            return _decode_record(field.type, raw, offset + field.offset, branch)
        return _decode(field.type, raw, offset + field.offset)

    for name, field in fields.items():
        label = labels.get(name, name)
        if label is None or branch not in (None, name):
            continue
        if label in plain:
            raise LayoutError("%s: _json_ gives two fields the name %r" % (ctype.__name__, label))
        plain[label] = member(
            field, _branch(ctype, field, unions[name], fields, member) if name in unions else None
        )
    return plain


def _branch(ctype, field, spec, fields, member):
    """Return the name of the branch of a union that its _union_ entry, (field, {value: branch}), selects."""
    try:
        tag_name, branches = spec
        tag = member(fields[tag_name])
        known = tag in branches
    except (TypeError, ValueError, KeyError):
        raise LayoutError(
            "%s._union_: %r is not (field, {value: branch})" % (ctype.__name__, spec)
        ) from None
    if not known:
        raise LayoutError(
            "%s.%s: no branch for %s = %r" % (ctype.__name__, field.name, tag_name, tag)
        )
    if not _is_record(field.type) or branches[tag] not in [
        inner.name for inner in _fields(field.type)
    ]:
        raise LayoutError("%s.%s has no branch %r" % (ctype.__name__, field.name, branches[tag]))
    return branches[tag]


def _tag(ctype, tag, fields):
    """Return a class's tag dict, those of its base classes in it; a name that is no field is an error."""
    entries = {}
    for cls in reversed(ctype.__mro__):
        entries.update(cls.__dict__.get(tag) or {})
    for name in entries:
        if name not in fields:
            raise LayoutError("%s.%s names %r, which is no field" % (ctype.__name__, tag, name))
    return entries


# ---- 5. BTF -----------------------------------------------------------------
# Types as compilers describe them and the kernel keeps them (linux/btf.h).  A blob may be hostile: nothing is
# built or decoded from a type before _prove has found it finite and each member inside of what holds it.

_MODIFIERS = frozenset(
    (BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG)
)
_RECORDS = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_DATASEC))
_ENUMS = frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64))
_INTEGERS = _ENUMS | {BTF_KIND_INT}
_SIZED = _RECORDS | _ENUMS | {BTF_KIND_INT, BTF_KIND_FLOAT}
# What a bare name means first; the other kinds follow by number.
_NAME_ORDER = (BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_ENUM, BTF_KIND_ENUM64, BTF_KIND_TYPEDEF)
# kind -> words behind the three that every record has: always, for each of vlen
_TAIL_WORDS = dict.fromkeys(_KIND_NAMES, (0, 0))
_TAIL_WORDS.update(
    {
        BTF_KIND_INT: (1, 0),
        BTF_KIND_ARRAY: (3, 0),
        BTF_KIND_STRUCT: (0, 3),
        BTF_KIND_UNION: (0, 3),
        BTF_KIND_ENUM: (0, 2),
        BTF_KIND_FUNC_PROTO: (0, 2),
        BTF_KIND_VAR: (1, 0),
        BTF_KIND_DATASEC: (0, 3),
        BTF_KIND_DECL_TAG: (1, 0),
        BTF_KIND_ENUM64: (0, 3),
    }
)
_INT_SIGNED, _INT_CHAR, _INT_BOOL = 1, 2, 4
_MAX_BYTES = min(0xFFFFFFFF, sys.maxsize)  # of a type: no key or value is larger
_MAX_NAME = 4096  # eight times what the kernel takes: many members can share one long name


class BTFType:
    """A type as BTF records it: .id .kind (BTF_KIND_*, 0 for void) .name ("" where it has none) .size (bytes, or None)
    .type_id (what it points to, stands for, or has as elements) .count (of members, enumerators, parameters, elements)
    .flag (the record's kind_flag)
    """

    __slots__ = ("id", "kind", "name", "size", "type_id", "count", "flag", "_words", "_at", "_byte")

    def __repr__(self):
        return "<BTF type %d: %s>" % (self.id, self._label)

    @property
    def _label(self):
        return (
            "%s %s"
            % (_KIND_NAMES.get(self.kind, "kind %d" % self.kind), self.name or "(anonymous)")
            if (self.kind)
            else "void"
        )

    def _error(self, text):
        where = "type %d (%s)%s" % (
            self.id,
            self._label,
            " at byte %d" % self._byte if self.id else "",
        )
        return BTFError("%s: %s" % (where, text))


class _Steps(dict):
    """The info word of a record -> how many words the record takes; worked out once for each info word there is."""

    def __init__(self, tails):
        self.tails = tails

    def __missing__(self, info):
        always, each = self.tails[info >> 24 & 0x7F]  # 5 bits before 2026, the two above them zero
        self[info] = words = (
            3 + always + each * (info & 0xFFFFFF)
        )  # 16 before, the eight above them zero
        return words


class BTF:
    """Type information: what the types of a BPF object, a program or the kernel are called and how they lie.

    from_bytes, from_file, from_vmlinux and from_id open it; .data is its bytes, .order theirs ("little", "big"), .base
    what split BTF builds upon.  A type is given by id or name, alone or with its kind: "task_struct", "struct
    task_struct".  All raise BTFError for what is malformed or not there.
    """

    def __init__(self, data, base=None):
        import array
        import weakref

        self.data, self.base = data, base
        self.order = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}.get(data[:2], "")
        if not self.order or len(data) < 24:
            raise BTFError(
                "no BTF: %d bytes that begin with %s, not with 9feb or eb9f"
                % (len(data), data[:4].hex())
            )
        word = lambda at: int.from_bytes(data[at : at + 4], self.order)
        header_len, type_off, type_len, str_off, str_len = (word(at) for at in range(4, 24, 4))
        if data[2] != 1 or data[3]:
            raise BTFError(
                "BTF of version %d with flags %#x at byte 2: only version 1 is known"
                % (data[2], data[3])
            )
        if header_len < 24:
            raise BTFError("a header of %d bytes, at byte 4" % header_len)
        self._type_byte = header_len + type_off
        types, strings = (
            self._section("types", self._type_byte, type_len),
            self._section("strings", header_len + str_off, str_len),
        )
        if type_len % 4:
            raise BTFError("the types take %d bytes at byte 12, no multiple of 4" % type_len)
        if strings[-1:] != b"\0" and strings or base is None and strings[:1] != b"\0":
            raise BTFError(
                "the strings at byte %d do not begin and end with NUL%s"
                % (
                    header_len + str_off,
                    "" if strings[-1:] != b"\0" else ": split BTF? It needs its base",
                )
            )
        self._strings, self._str_base = strings, base._str_base + len(base._strings) if base else 0
        self._first = base._first + base.count if base else 1
        if base and base._cut:
            raise BTFError("the ids of split BTF follow those of its base, where %s" % base._cut)
        self._words = array.array("I", types)
        if self.order != sys.byteorder:
            self._words.byteswap()
        self._tails = dict(_TAIL_WORDS)
        if header_len >= 32:  # the layout section says how long the records of each kind are
            layout = self._section("layout", header_len + word(24), word(28))
            for kind in range(1, len(layout) // 4):
                self._tails.setdefault(kind, (layout[4 * kind] // 4, layout[4 * kind + 1] // 4))
        self._offsets, self._cut = None, ""
        self._found, self._proved, self._enums, self._made = {}, {}, {}, {}
        self._ctypes = (
            weakref.WeakValueDictionary()
        )  # they hold this, in cycles that gc may not see before 3.13
        self._decl_tags, self._pointer_size = None, 0

    def _section(self, what, start, size):
        if start + size > len(self.data):
            raise BTFError("the %s end at byte %d of %d" % (what, start + size, len(self.data)))
        return self.data[start : start + size]

    @classmethod
    def from_bytes(cls, data, base=None):
        """Return the BTF in a buffer, of either byte order; base is what the BTF of a kernel module builds upon."""
        return cls(memoryview(data).tobytes(), base)

    @classmethod
    def from_file(cls, path, base=None):
        """Return the BTF in a file, raw or the .BTF of an ELF file; of modules in /sys/kernel/btf the base is known."""
        with open(path, "rb") as file:
            data = file.read()
        if data[:4] == b"\x7fELF":
            data = _elf_section(data, b".BTF")
        directory, name = os.path.split(os.path.realpath(os.fsdecode(path)))
        if base is None and directory == "/sys/kernel/btf" and name != "vmlinux":
            base = cls.from_vmlinux()
        return cls(data, base)

    @classmethod
    def from_vmlinux(cls):
        """Return the running kernel's BTF, from /sys (5.4) or else by its id (5.11, CAP_SYS_ADMIN)."""
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
    def from_id(cls, btf_id, token=None):
        """Return the BTF with an id, as of MapInfo.btf_id; it takes CAP_SYS_ADMIN or a BPF token (6.15).

        BPF_BTF_GET_FD_BY_ID, 4.18
        """
        info, name, data = _btf_info(btf_id, token)
        btf = _kept_btf.get(data)
        if btf is None:
            btf = cls(data, cls.from_vmlinux() if info.kernel_btf and name != "vmlinux" else None)
            if len(_kept_btf) > 15:
                _kept_btf.clear()
            btf = _kept_btf.setdefault(data, btf)  # another thread's, if that came first
        return btf

    # -- records

    @property
    def count(self):
        return len(self._index())

    def __repr__(self):
        return "<BTF: %d types in %d bytes%s>" % (
            self.count,
            len(self.data),
            ", split" if self.base else "",
        )

    def _index(self):
        """Return where in _words each type begins: one pass over all of them, on the first question."""
        if self._offsets is None:
            import array

            words, steps, offsets, at = self._words, _Steps(self._tails), array.array("I"), 0
            total, append = len(words), offsets.append
            try:
                while at < total:
                    append(at)
                    at += steps[words[at + 1]]
            except (KeyError, IndexError):
                at = total + 1
            if at > total:  # the last one is cut, or of a kind whose length nobody tells
                start = offsets.pop()
                kind = words[start + 1] >> 24 & 0x7F if start + 1 < total else 0
                self._cut = "the record at byte %d is %s" % (
                    self._type_byte + 4 * start,
                    "cut" if kind in self._tails else "of unknown kind %d" % kind,
                )
            self._offsets = offsets
        return self._offsets

    def type(self, t):
        """Return the BTFType for a type id or name."""
        if not isinstance(t, int):
            t = t.id if isinstance(t, BTFType) else self.find(t)
        if self.base and t < self._first:
            return self.base.type(t)
        index, found = self._index(), BTFType()
        found.id, words = t, self._words
        if t == 0:
            found.kind, found.name, found.size, found.type_id, found.count, found.flag = (
                0,
                "void",
                None,
                0,
                0,
                False,
            )
            return found
        if not 0 <= t - self._first < len(index):
            raise BTFError("there is no type %d%s" % (t, ": " + self._cut if self._cut else ""))
        found._words, found._at = words, index[t - self._first]
        found._byte = self._type_byte + 4 * found._at
        name_off, info, number = words[found._at : found._at + 3]
        found.kind, found.flag, found.count = info >> 24 & 0x7F, bool(info >> 31), info & 0xFFFFFF
        found.name = self._string(name_off)
        found.size, found.type_id = (number, 0) if found.kind in _SIZED else (None, number)
        if found.kind == BTF_KIND_ARRAY:
            found.type_id, _, found.count = words[found._at + 3 : found._at + 6]
        return found

    def _string(self, offset):
        if offset < self._str_base:
            return self.base._string(offset)
        start = offset - self._str_base
        end = self._strings.find(b"\0", start, start + _MAX_NAME)
        if end < 0 and offset:
            raise BTFError(
                "a name at byte %d of the strings, which end at %d" % (start, len(self._strings))
            )
        return self._strings[start:end].decode("utf-8", "backslashreplace")

    def find(self, name, kind=None):
        """Return the id of the type with a name ("task_struct", "struct task_struct", "long unsigned int").

        Of several, the first struct, union, enum or typedef; kind looks for that alone: "struct", "func" ...
        """
        word, _, rest = name.partition(" ")
        if word in ("struct", "union", "enum") and rest:
            kind, name = word, rest.strip()
        if (name, kind) in self._found:
            return self._found[name, kind]
        wanted, ids, btf = name.encode(errors="backslashreplace") + b"\0", [], self
        kinds = [
            number
            for number, text in _KIND_NAMES.items()
            if kind in (None, text) or kind == text.rstrip("64")
        ]
        while btf and name:
            strings, layers = btf, []
            while strings:  # a split name may stand in its base
                layers.append(strings)
                strings = strings.base
            offsets = {
                layer._str_base + at
                for layer in layers
                for at in _occurrences(layer._strings, wanted)
            }
            words = btf._words
            ids += [
                btf._first + index
                for index, at in enumerate(btf._index())
                if words[at] in offsets and words[at + 1] >> 24 & 0x7F in kinds
            ]
            btf = btf.base
        if not ids:
            raise BTFError(
                "no %s is named '%s'%s"
                % (kind or "type", name, "; " + self._cut if self._cut else "")
            )
        ranks = {number: rank for rank, number in enumerate(_NAME_ORDER)}
        self._found[name, kind] = min(
            ids, key=lambda type_id: (ranks.get(self.type(type_id).kind, 99), type_id)
        )
        return self._found[name, kind]

    def _resolve(self, t):
        """Return the BTFType behind typedefs, qualifiers and type tags."""
        for _ in range(MAX_DEPTH):
            t = self.type(t)
            if t.kind not in _MODIFIERS:
                return t
            t = t.type_id
        raise self.type(t)._error("more than %d typedefs and qualifiers of one another" % MAX_DEPTH)

    def _members(self, t):
        """Yield (name, type id, bit offset, bits) of a record's own members; bits is 0 but for bitfields."""
        words = t._words
        for at in range(t._at + 3, t._at + 3 + 3 * t.count, 3):
            name_off, type_id, offset = words[at : at + 3]
            if t.kind == BTF_KIND_DATASEC:
                variable = self.type(name_off)
                if variable.kind != BTF_KIND_VAR:
                    raise t._error("type %d in it is no variable" % name_off)
                yield variable.name, variable.type_id, 8 * type_id, 0
                continue
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

    def _parts(self, t, start=0):
        """Yield the same, the members of anonymous records in the place of those."""
        for name, type_id, offset, bits in self._members(t):
            inner = None if name or bits else self._resolve(type_id)
            if inner and inner.kind in _RECORDS:
                for part in self._parts(inner, start + offset):
                    yield part
            else:
                yield name or "_", type_id, start + offset, bits

    def _prove(self, t, depth=0):
        """Return (bytes, values, members, levels) of a finite, sized and whole type; raise BTFError for any other."""
        t = self._resolve(t)
        known = self._proved.get(t.id)
        if depth + (known[3] if known else 0) > MAX_DEPTH:
            raise t._error("types inside types, more than %d deep" % MAX_DEPTH)
        if known:
            return known
        size, values, members, levels = t.size, 1, 0, 0
        if t.kind == BTF_KIND_ARRAY:
            one, values, members, levels = self._prove(t.type_id, depth + 1)
            size, values, levels = one * t.count, 1 + values * t.count, levels + 1
        elif t.kind == BTF_KIND_PTR:
            size = self.pointer_size
        elif t.kind in _RECORDS:
            for name, type_id, offset, bits in self._members(t):
                inner = self._prove(type_id, depth + 1)
                values, members, levels = (
                    values + inner[1],
                    members + 1 + inner[2],
                    max(levels, inner[3] + 1),
                )
                if (
                    offset + (bits or 8 * inner[0]) > 8 * size
                    or bits > 8 * inner[0]
                    or not bits
                    and offset % 8
                ):
                    raise t._error("member '%s' does not lie inside of it" % name)
                if (
                    bits
                    and self._resolve(type_id).kind not in _INTEGERS
                    or offset
                    and not bits
                    and (t.kind == BTF_KIND_UNION)
                ):
                    raise t._error("member '%s' can't lie at bit %d of it" % (name, offset))
        elif t.kind not in _SIZED or not 1 <= size <= 16:
            raise t._error("it has no size" if size is None else "its size can't be %d" % size)
        if size > _MAX_BYTES or values > 16 * size + 4096 or members > self.count + 2048:
            raise t._error("%d bytes, %d values, %d members: too large" % (size, values, members))
        self._proved[t.id] = size, values, members, levels
        return self._proved[t.id]

    @property
    def pointer_size(self):
        """Bytes of a pointer, which are those of a long; 8 where no long is: BPF has 64 bits everywhere."""
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

    def sizeof(self, t):
        """Return a type's size in bytes."""
        return self._prove(t)[0]

    def members(self, t):
        """Yield (name, type id, offset in bits, bitfield size or 0, tags) of a struct, union or data section.

        tags are those of the member's declaration and of its type: ("kptr",), ("user",).
        """
        t = self._resolve(t)
        if t.kind not in _RECORDS:
            raise t._error("it has no members")
        for index, (name, type_id, offset, bits) in enumerate(self._members(t)):
            yield name, type_id, offset, bits, self.tags(t.id, index) + self._type_tags(type_id)

    def tags(self, t, component=-1):
        """Return the declaration tags of a type, or of one of its members or parameters."""
        if self._decl_tags is None:
            found = {}
            for index, at in enumerate(self._index()):
                if self._words[at + 1] >> 24 & 0x7F == BTF_KIND_DECL_TAG:
                    tag = self.type(self._first + index)
                    found.setdefault((tag.type_id, self._words[at + 3]), []).append(tag.name)
            self._decl_tags = found
        own = tuple(self._decl_tags.get((self.type(t).id, component & 0xFFFFFFFF), ()))
        return own + (
            self.base.tags(t, component) if self.base and self.type(t).id < self._first else ()
        )

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

    def enumerators(self, t):
        """Return {number: name} of an enum; the first name where a number has several."""
        t = self._resolve(t)
        if t.kind not in _ENUMS:
            raise t._error("it is no enum")
        if t.id not in self._enums:
            names, step = {}, 2 if t.kind == BTF_KIND_ENUM else 3
            for at in range(t._at + 3, t._at + 3 + step * t.count, step):
                number = sum(
                    word << 32 * place for place, word in enumerate(t._words[at + 1 : at + step])
                )
                if t.flag and number >> 32 * (step - 1) - 1:
                    number -= 1 << 32 * (step - 1)
                names.setdefault(number, self._string(t._words[at]))
            self._enums[t.id] = names
        return self._enums[t.id]

    def offsetof(self, t, path):
        """Return the Offset of a member, an int in bytes: "comm", "se.avg", "cpus_mask.bits[1]".

        Through pointers ("signal.group_exit_code") a tuple: an Offset for each step from one to the next.
        """
        steps, position, bits, type_id = [], 0, 0, self.type(t).id
        self._prove(type_id)
        for word in path.replace("->", ".").replace("[", ".[").split("."):
            inner = self._resolve(type_id)
            if inner.kind == BTF_KIND_PTR and bits == 0:
                steps.append(Offset(position, 0))
                position, inner = 0, self._resolve(inner.type_id)
                self._prove(inner)
            if (
                inner.kind == BTF_KIND_ARRAY
                and word[:1] == "["
                and word[-1:] == "]"
                and word[1:-1].isdecimal()
            ):
                index = int(word[1:-1][:99])
                if inner.count and index >= inner.count:
                    raise BTFError(
                        "%s: %s has %d elements" % (path, self.c_type(inner.id), inner.count)
                    )
                position, type_id = position + 8 * index * self.sizeof(inner.type_id), inner.type_id
                continue
            for name, type_id, offset, bits in self._parts(inner) if inner.kind in _RECORDS else ():
                if name == word:
                    position += offset
                    break
            else:
                raise BTFError("%s: %s has no member '%s'" % (path, self.c_type(inner.id), word))
        steps.append(Offset(position, bits))
        return steps[0] if len(steps) == 1 else tuple(steps)

    def c_type(self, t):
        """Return a type in C's terms, the order of words made plain: "struct task_struct __rcu *", "u32 [4]"."""
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

    # -- ctypes and plain Python

    def ctype(self, t):
        """Return the ctypes type with exactly a type's size and members' offsets; the same class each time.

        Enums and pointers are integers; bitfields, and integers of sizes that ctypes does not have, are attributes but
        no ctypes fields.  Objects of records compare and hash by their bytes and print their fields.
        """
        t = self._resolve(t)
        self._prove(t)
        return self._ctype(t)

    def _ctype(self, t):
        if t.kind in _RECORDS:
            return self._ctypes.get(t.id) or self._keep(t.id, self._record(t))
        if t.kind == BTF_KIND_ARRAY:
            element = self._resolve(t.type_id)
            inner = ctypes.c_char if self._is_char(element) else self._ctype(element)
            if _is_scalar(inner):
                return inner * t.count
            return self._ctypes.get(t.id) or self._keep(
                t.id,
                type(ctypes.Array)(
                    "%s_Array_%d" % (inner.__name__, t.count),
                    (ctypes.Array,),
                    {"_type_": inner, "_length_": t.count},
                ),
            )
        size = self.sizeof(t)
        if t.kind == BTF_KIND_INT and size == 1 and self._encoding(t) & _INT_BOOL:
            return ctypes.c_bool
        scalar = (
            {4: ctypes.c_float, 8: ctypes.c_double}
            if t.kind == BTF_KIND_FLOAT
            else _SIGNED_INTS
            if (self._is_signed(t))
            else _UNSIGNED_INTS
        )
        if size not in scalar:
            return u8 * size
        return getattr(scalar[size], "__ctype_%se__" % self.order[0])

    def _keep(self, type_id, made):
        """Return the class for a type: made, or that of a thread that was faster (_ctypes.setdefault is many steps)."""
        made = self._made.setdefault(type_id, made)
        self._ctypes[type_id] = made = self._ctypes.get(type_id) or made
        self._made.pop(type_id, None)
        return made

    def _encoding(self, t):
        return t._words[t._at + 3] >> 24 & 0xF if t.kind == BTF_KIND_INT else 0

    def _is_signed(self, t):
        return bool(t.flag if t.kind in _ENUMS else self._encoding(t) & _INT_SIGNED)

    def _is_char(self, t):
        return (
            t.kind == BTF_KIND_INT
            and t.size == 1
            and (t.name == "char" or bool(self._encoding(t) & _INT_CHAR))
        )

    def _bits(self, type_id, offset, bits):
        """Return the descriptor of a member that ctypes has no field for, None where it has one."""
        t = self._resolve(type_id)
        if not bits and (t.kind != BTF_KIND_INT or t.size in _UNSIGNED_INTS):
            return None
        return _Bits(offset, bits or 8 * t.size, self.order, self._is_signed(t))

    def _record(self, t):
        """Return a new Structure or Union.  It is packed and every hole a field, so that no ABI has a say."""
        is_union, end, fields, anonymous = t.kind == BTF_KIND_UNION, 0, [], []
        base = _BTFUnion if is_union else _BTFStructure
        own = {
            "_pack_": 1,
            "_layout_": "ms",
            "_btf_type_": (self, t.id),
            "_anonymous_": anonymous,
            "_fields_": fields,
        }
        reserved = (
            set(dir(base)) | set(own) | {"_swappedbytes_", "_align_", "_json_", "_union_", "_btf_"}
        )
        taken = set(reserved)

        def free(name):
            if name in reserved or name[:2] == name[-2:] == "__":  # Python and ctypes look for such
                name += "_"
            while name in taken:
                name += "_%d" % len(taken)
            taken.add(name)
            return name

        members = list(self._members(t))
        named = {index: free(member[0]) for index, member in enumerate(members) if member[0]}
        for index, (name, type_id, offset, bits) in sorted(
            enumerate(members), key=lambda pair: pair[1][2]
        ):
            inner = self._resolve(type_id)
            if not name and not bits and inner.kind in _RECORDS:
                for part, part_type, part_offset, part_bits in self._parts(inner, offset):
                    part, extra = free(part), self._bits(part_type, part_offset, part_bits)
                    if extra:
                        own[part] = extra
                name = free("_anon%d_%d" % (t.id, index))
                anonymous.append(name)
            else:
                name = named.get(index) or free("_")
                own_bits = self._bits(type_id, offset, bits)
                if own_bits:
                    own[name] = own_bits
                    continue
            if offset // 8 < end and not is_union:
                raise t._error("members that overlap")
            if offset // 8 > end and not is_union:
                fields.append((free("_hole%d_%d" % (t.id, end)), u8 * (offset // 8 - end)))
            fields.append((name, self._ctype(inner)))
            end = max(end, offset // 8 + self.sizeof(inner))
        if end < t.size:
            fields.append(
                (free("_hole%d_%d" % (t.id, end)), u8 * (t.size if is_union else t.size - end))
            )
        own["_btf_"] = {name: None for name, _ in fields if name.startswith("_hole")}
        return type(base)(t.name or "anonymous", (base,), own)

    def _plain(self, t, raw, offset=0, bits=0):
        """Return the plain Python form of the type at a bit offset of raw; see to_python.  It has been proved."""
        t, start = self._resolve(t), offset // 8
        if t.kind in _RECORDS:
            plain = {}
            for name, type_id, part_offset, part_bits in self._parts(t, offset):
                while name in plain:
                    name += "_%d" % len(plain)
                plain[name] = self._plain(type_id, raw, part_offset, part_bits)
            return plain
        if t.kind == BTF_KIND_ARRAY:
            text = (
                _text(raw[start : start + t.count])
                if self._is_char(self._resolve(t.type_id))
                else None
            )
            step = 8 * self.sizeof(t.type_id)
            return (
                text
                if text is not None
                else [
                    self._plain(t.type_id, raw, offset + index * step) for index in range(t.count)
                ]
            )
        size = self.sizeof(t)
        if t.kind == BTF_KIND_FLOAT:
            code = {2: "e", 4: "f", 8: "d"}.get(size)
            mark = "<" if self.order == "little" else ">"
            return (
                struct.unpack_from(mark + code, raw, start)[0]
                if code
                else list(raw[start : start + size])
            )
        number = _Bits(offset, bits or 8 * size, self.order, self._is_signed(t)).of(raw)
        if t.kind == BTF_KIND_PTR:
            return hex(number)
        if t.kind in _ENUMS:
            return self.enumerators(t).get(number, number)
        return bool(number) if self._encoding(t) & _INT_BOOL else number

    # -- tables and source

    def _rows(self, t):
        """Return the rows of a record for _table, tags and enum names in them."""
        rows = []
        for index, (name, type_id, offset, bits) in enumerate(self._members(t)):
            inner = self._resolve(type_id)
            text = (name and name + ": ") + self.c_type(type_id) + (":%d" % bits if bits else "")
            if inner.kind in _ENUMS:
                names = [
                    "%s=%d" % (label, number)
                    for number, label in islice(self.enumerators(inner).items(), 17)
                ]
                text += " {%s%s}" % (", ".join(names[:16]), ", ..." if len(names) > 16 else "")
            text += "".join(" [%s]" % tag for tag in self.tags(t, index))
            nested = (
                (self._rows(inner), inner.size, inner.kind == BTF_KIND_UNION)
                if inner.kind in _RECORDS
                else None
            )
            rows.append((text, offset, bits or 8 * self.sizeof(inner), nested))
        return rows

    def describe(self, t):
        """Return a table of a type: offset, size, name and C type of each member, enum names, tags and holes."""
        size, inner = self.sizeof(t), self._resolve(t)
        rows = self._rows(inner) if inner.kind in _RECORDS else []
        return _table(self.c_type(t), size, rows, inner.kind == BTF_KIND_UNION)

    def python_source(self, t):
        """Return Python that makes the ctypes type anew, with neither BTF nor this module; bitfields are read-only."""
        return python_source(self.ctype(t), self.type(t).name)


_kept_btf = {}  # type: dict  # those used last, by bytes: maps opened twice have the same types


class Offset(int):
    """Where a member begins, in bytes; .bit_offset the same in bits, .bits the size of a bitfield, else 0."""

    def __new__(cls, bit_offset, bits):
        self = int.__new__(cls, bit_offset // 8)
        self.bit_offset, self.bits = bit_offset, bits
        return self

    def __getnewargs__(self):
        return self.bit_offset, self.bits


class _ByBytes:
    """What the types made from BTF have in common."""

    def __eq__(self, other):
        return _raw(self) == _raw(other) if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash(_raw(self))  # of what it holds now: a key that is changed is another key

    def __repr__(self):
        return "%s(%s)" % (
            type(self).__name__,
            ", ".join("%s=%r" % pair for pair in to_python(self).items()),
        )


class _BTFStructure(_ByBytes, ctypes.Structure):
    pass


class _BTFUnion(_ByBytes, ctypes.Union):
    pass


def _occurrences(haystack, needle):
    at = haystack.find(needle)
    while at >= 0:
        yield at
        at = haystack.find(needle, at + 1)


def _elf_section(data, wanted):
    """Return the bytes of an ELF file's section."""
    wide, mark = data[4:5] == b"\2", ">" if data[5:6] == b"\2" else "<"
    try:
        (start,) = struct.unpack_from(mark + ("Q" if wide else "I"), data, 40 if wide else 32)
        entry_size, count, names = struct.unpack_from(mark + "3H", data, 58 if wide else 46)
        name_at = lambda header: names_start + struct.unpack_from(mark + "I", data, header)[0]
        span = lambda header: struct.unpack_from(
            mark + ("2Q" if wide else "2I"), data, header + (24 if wide else 16)
        )
        names_start = span(start + names * entry_size)[0]
        for header in range(start, start + count * entry_size, entry_size or 1):
            if data.startswith(wanted + b"\0", name_at(header)):
                offset, size = span(header)
                return data[offset : offset + size]
    except (struct.error, OverflowError) as failure:
        raise BTFError("a broken ELF file: %s" % failure) from None
    raise BTFError("this ELF file has no section %s" % wanted.decode())


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


def _prove_layout(ctype, btf, type_id, strict, what):
    """Raise LayoutError where a caller's type and the map's BTF disagree, with both side by side and what to write."""
    found = list(_differences(ctype, btf, type_id, strict))
    if not found:
        return
    left, right = describe_layout(ctype).split("\n"), btf.describe(type_id).split("\n")
    right[0] += " in the map's BTF"
    where = max(_shown_in(table, found[0][0]) for table in (left, right))[1]
    width = max(map(len, left))
    table = [
        "%s %-*s | %s" % (">" if number == where else " ", width, mine, theirs)
        for number, (mine, theirs) in enumerate(_zip_longest(left, right))
    ]
    source = btf.python_source(type_id).split("\n")
    raise LayoutError(
        "%s: %s is not what the map's BTF says: %s\n%s%s"
        % (
            what,
            type_name(ctype),
            "; ".join("%s %s" % pair if pair[0] else pair[1] for pair in found[:8]),
            "\n".join(table),
            "\nwrite instead\n" + "\n".join(source[1:]).lstrip() if len(source) < 60 else "",
        )
    )


def _shown_in(table, path):
    """Return (how much of a field's path, the number of the line) where a table shows it, or what holds it."""
    best, names = (0, 0), []
    for number, line in enumerate(table[1:-1], 1):
        depth = (len(line[14:]) - len(line[14:].lstrip())) // 2 - 1
        names[depth:] = [line[14:].strip().split(":")[0]]
        rest = iter(names)
        known = [name for name in path.replace("[]", "").split(".") if name in rest]
        if known and known[-1] == names[-1] and len(known) > best[0]:
            best = len(known), number
    return best


def _zip_longest(left, right):
    return zip(left + [""] * (len(right) - len(left)), right + [""] * (len(left) - len(right)))


def _differences(ctype, btf, type_id, strict, path=""):
    """Yield (field, what is wrong with it); only strict looks at more than where things are and how large."""
    t = btf._resolve(type_id)
    if _is_record(ctype) and t.kind in _RECORDS:
        for difference in _record_differences(ctype, btf, t, strict, path and path + "."):
            yield difference
        return
    bytewise = lambda one: (
        _is_array(one) and sizeof(one._type_) == 1 or _is_scalar(one) and one._type_ == "c"
    )
    theirs = btf._ctype(t)
    if bytewise(ctype) or bytewise(theirs):
        return
    if _is_array(ctype) and _is_array(theirs) and len(ctype()) == t.count:
        for difference in _differences(ctype._type_, btf, t.type_id, strict, path + "[]"):
            yield difference
    elif strict and not (
        _is_scalar(ctype)
        and _is_scalar(theirs)
        and (t.kind in _ENUMS and _is_int(ctype) or _family(ctype) == _family(theirs))
    ):
        yield path, "is %s here, %s in BTF" % (type_name(ctype), btf.c_type(type_id))


def _family(scalar):
    """Return what strict tells apart: floating point, signed, unsigned."""
    return next(
        index
        for index, codes in enumerate((_FLOAT_CODES, _SIGNED_CODES, _INT_CODES + "?"))
        if scalar._type_ in codes
    )


def _record_differences(ctype, btf, t, strict, path):
    parts = {
        name: (type_id, offset, bits or 8 * btf.sizeof(type_id))
        for name, type_id, offset, bits in btf._parts(t)
    }
    rest, span = dict(parts), "byte %s, %s bytes"
    for field, name, offset, bits in _bound(ctype):
        where = path + field.name
        if name in parts:
            rest.pop(name, None)
            type_id, other_offset, other_bits = parts[name]
            if (offset, bits) != (other_offset, other_bits):
                yield (
                    where,
                    "is at %s here, at %s in BTF"
                    % tuple(
                        span % (_bytes_text(at), _bytes_text(size))
                        for at, size in ((offset, bits), (other_offset, other_bits))
                    ),
                )
            elif field.bits is None:
                for difference in _differences(field.type, btf, type_id, strict, where):
                    yield difference
            continue
        over = [
            other
            for other, (_, at, size) in parts.items()
            if at < offset + bits and offset < at + size
        ]
        if name is None:  # bound to nothing: what lies there needs no field of its own
            rest = {other: part for other, part in rest.items() if other not in over}
        elif name != field.name or strict and over:
            yield where, "has no member '%s' in BTF" % name
    for name, (_, _, bits) in rest.items() if strict else ():
        if bits:
            yield path + name, "is in BTF alone"


def _bound(ctype, start=0):
    """Yield (field, name of its BTF member or None, bit offset, bits); fields of anonymous records in their place."""
    placed = _placed(ctype)
    tags = _tag(ctype, "_btf_", [field.name for field, _, _ in placed])
    for field, offset, bits in placed:
        if field.name in getattr(ctype, "_anonymous_", ()) and field.name not in tags:
            for inner in _bound(field.type, start + offset):
                yield inner
        else:
            yield field, tags.get(field.name, field.name), start + offset, bits


# ---- 6. Map -----------------------------------------------------------------
# What a Map is made of, an idea a class: _OpenMap, _Converting, _PerCPU, _Elements, _Keyless, _Scanning, _Writing,
# _Whole; Map itself is the ways to open one.

_MODES = {"r": BPF_F_RDONLY, "w": BPF_F_WRONLY, "rw": 0}


def _mode_flags(mode):
    if mode not in _MODES:
        raise ValueError('mode must be "r", "w" or "rw", not %r' % (mode,))
    return _MODES[mode]


class _LaterInfo:
    """What MapInfo learnt to tell later, and captures do not hold."""

    ifindex = netns_dev = netns_ino = hash = None


class MapInfo(_LaterInfo):
    """What the kernel tells of a map, as in struct bpf_map_info; None stands for what it does not tell.

    frozen, memlock (bytes) and, of a prog_array, owner_prog_type and owner_jited are from /proc.  ifindex, netns_dev
    and netns_ino are those of an offloaded map (4.16); hash is the SHA-256 of a frozen array in hex (6.18).
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

    def _asdict(self):
        """Return {name: value} of all of it."""
        return {name: getattr(self, name) for name in self._names}

    def __eq__(self, other):
        return self._asdict() == other._asdict() if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash(tuple(self._asdict().values()))

    def __getstate__(self):
        return self._asdict()

    def __setstate__(self, state):
        for name, value in state.items():
            setattr(self, name, value)

    def __repr__(self):
        return "MapInfo(%s)" % ", ".join("%s=%r" % pair for pair in self._asdict().items())

    @property
    def _about(self):
        """The map in words: "map 5 (hash 'flows')"."""
        name = " '%s'" % self.name if self.name else ""
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
    """Raise unless the descriptor is a map's: the info of a program or BTF object reads like one's."""
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

    On what is no map every element command is EINVAL; on a map, LOOKUP without a key is EFAULT and the like on all
    types but arenas, for which NEXT_KEY is EOPNOTSUPP.
    """
    attr = bpf_attr()
    attr.elem.map_fd = fd
    for cmd in (BPF_MAP_LOOKUP_ELEM, BPF_MAP_GET_NEXT_KEY):
        if _syscall(_nr_bpf, cmd, byref(attr), _ATTR_SIZES[cmd]) != errno.EINVAL:
            return True
    return False


class _Call:
    """A prepared element command, used by one call at a time.

    key, value and flags are those of attr, as objects that are set faster than fields.  cell is the memory of an int
    key, as a memoryview, which refuses what is no int or out of range; None for keys of other types.
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
    """What the arrays that come out of a map have in common: they compare, hash and print by their bytes."""

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


class _OpenMap:
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
    order = sys.byteorder

    @classmethod
    def _opened(cls, owner, about, key, value, strict, token=None, prove=False, keep=False):
        """Return the Map on an _Fd.  keep: a failure leaves the descriptor open, it is the caller's."""
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
                refused.append(str(failure))
        if refused:
            raise LayoutError("\n".join(refused))
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
        # What LOOKUP writes into, its size, and how to make one; per-CPU: known once the CPUs are counted.
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
    def btf(self):
        """The map's BTF; None where there is none, or no right to it (CAP_SYS_ADMIN, or a token)."""
        if self._btf is None:
            found = _map_btf(self._btf_info, self._token)
            self._types, self._no_btf, self._btf = found  # _btf last: threads look
        return self._btf or None

    @property
    def _btf_types(self):
        return self._types if self.btf else {}

    def _checked_type(self, ctype, size, numeric, what, strict):
        """Return the type of keys or values: None where there are none; if none is given, BTF's, a number or bytes."""
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
            _prove_layout(ctype, self.btf, type_id, strict, about)
        return ctype if size else None

    def close(self):
        """Close the map: calls under way finish, later ones raise ValueError.  Closing twice is fine."""
        self._fd = None  # first, so that no new call is made from it
        self._idle_calls = []

    def __enter__(self):
        self._live()
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
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
        """Return the _Fd, which stays open as long as the caller keeps it; ValueError if the map is closed."""
        owner = self._fd
        if owner is None:
            raise ValueError("this map is closed")
        return owner

    def fileno(self):
        """Return the descriptor's number."""
        return self._live().number

    fd = property(fileno)

    @property
    def info(self):
        """A fresh MapInfo."""
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
    """Return the number of a descriptor given as an object with fileno() or as a ctypes int; else what was given."""
    if hasattr(given, "fileno"):
        return given.fileno()
    return _get_value(given) if _is_plain_int(type(given)) else given


class _Converting(_OpenMap):
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
        """Return a ctypes object over out, where a lookup of key may write; None if there is no such key."""
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
        """Return a ctypes object over the caller's writable memory, which must have out_type's size."""
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


class _PerCPU(_Converting):
    """Values of per-CPU maps: a slot for every possible CPU, whose number has to be proved first."""

    def percpu_type(self):
        """Return the ctypes array type of one per-CPU value: a slot, with field value, per possible CPU."""
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
        """Return the type of the one value that flags select of a per-CPU map, None if they select none."""
        selects = self._is_percpu and flags & (BPF_F_CPU | BPF_F_ALL_CPUS)
        return self._raw_value_type if selects else None

    def _prove_out(self, key):
        """Return the array type that a per-CPU value fits, having proved the number of its slots."""
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
        """Return what LOOKUP writes into, None if only a lookup of key could tell and there is no such key."""
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
        """Look key up into a buffer that no machine outgrows; return how many slots the kernel wrote.

        For who may not create a map.  raises KeyNotFound where key is absent: nothing is proved then
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
        """Return what UPDATE reads of a value for all CPUs, a list of one for each, or the bytes of all."""
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


def _element_command(cmd, convert, moves_value=True):
    """Return the method that runs an element command: the short way, which all of the calls for one element take.

    It goes method(map, key, out, flags=0): out is what the kernel writes to, or for UPDATE reads.  It returns False if
    there is no such key.  Keys of the map's key class, or ints, and objects of the class that LOOKUP writes go straight
    to the kernel; for all else there is _take_the_long_way, which converts with the method named by convert.
    """
    size, absent = _ATTR_SIZES[cmd], errno.ENOENT

    def command(self, key, out, flags=0):
        if (
            type(key) is not self._key_class
            or flags != 0
            # The class alone proves nothing: an object's __class__ can be assigned a larger one.
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


class _Elements(_PerCPU):
    """The commands for one element, and the methods of a mapping made of them."""

    def _new_call(self):
        return _Call(self._live(), self.key_type, self._has_int_keys)

    def _take_the_long_way(self, cmd, convert, key, out, flags):
        """Run an element command on what has to be converted first; return False if there is no such key."""
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

        key is an int within bounds for int keys, else a ctypes object of key_size bytes, or None for NULL; value a
        ctypes object as large as the kernel takes it to be; flags are as _flag_bits returns them.
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

    lookup_into = _public(
        _element_command(BPF_MAP_LOOKUP_ELEM, "_room_in"),
        "lookup_into",
        """Write the value under key into out; return False if there is none, leaving out as it is.

        out is a value_type, for per-CPU maps a percpu_type(), an array of one value_type or of bytes, or any other
        writable buffer of exactly that many bytes, which must not be moved (ctypes.resize) meanwhile.  Else as lookup.
        """,
    )
    _take_into = _element_command(BPF_MAP_LOOKUP_AND_DELETE_ELEM, "_room_in")
    _store = _element_command(BPF_MAP_UPDATE_ELEM, "_value_in")
    _remove = _element_command(BPF_MAP_DELETE_ELEM, "_nothing_in", moves_value=False)

    def lookup(self, key, flags=0):
        """Return the value stored under key: a new value_type, a Python number for scalars, a list of per-CPU values.

        key is an instance of key_type, an int for integer keys, or exactly key_size bytes; for the storages of sockets,
        tasks, inodes and cgroups a descriptor, or an object with fileno().  flags are BPF_F_LOCK (5.1), or BPF_F_CPU |
        cpu << 32 for that CPU's value alone (7.0).  raises KeyNotFound, LayoutError, NotSupported, SyscallError.
        BPF_MAP_LOOKUP_ELEM, 3.18
        """
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            raise self._error(BPF_MAP_LOOKUP_ELEM, errno.ENOENT, key)
        return out if self._finish is None else self._finish(out)

    __getitem__ = lookup

    def get(self, key, default=None, flags=0):
        """Return the value under key, or default if there is none; else as lookup."""
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            return default
        return out if self._finish is None else self._finish(out)

    def __contains__(self, key):
        """Whether the map has the key, a bloom filter the value: a lookup.  NotSupported for queues and stacks"""
        if self._key_class is None and self.type == BPF_MAP_TYPE_BLOOM_FILTER:
            return self._filter_has(key)
        out = self._new_out() if self._new_out else self._percpu_room(key, 0)
        return out is not None and self.lookup_into(key, out)

    def lookup_bytes(self, key, flags=0):
        """Return the value under key as bytes; of a per-CPU map every CPU's slot of 8 * n bytes.  Else as lookup."""
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
        if out is None or not self.lookup_into(key, out, flags):
            raise self._error(BPF_MAP_LOOKUP_ELEM, errno.ENOENT, key)
        return memoryview(out).tobytes()  # not what the class's __bytes__ says

    def lookup_and_delete(self, key, flags=0):
        """Remove key and return its value, in one step; else as lookup.

        BPF_MAP_LOOKUP_AND_DELETE_ELEM, 5.14 for hashes; NotSupported where type or kernel has none
        """
        out = self._new_out() if self._new_out else self._percpu_room(key, flags)
        if out is None or not self._take_into(key, out, flags):
            raise self._error(BPF_MAP_LOOKUP_AND_DELETE_ELEM, errno.ENOENT, key)
        return out if self._finish is None else self._finish(out)

    def update(self, key, value, flags=BPF_ANY):
        """Store value under key: an instance of value_type, a number for scalars, or exactly value_size bytes.

        Per-CPU maps take a list of those, one per possible CPU, or one for all; maps that hold maps, programs, sockets
        or cgroups a Map, a descriptor, or an object with fileno().  flags: BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK;
        BPF_F_CPU | cpu << 32 to store one CPU's value, BPF_F_ALL_CPUS one for all (7.0).  raises KeyExists,
        KeyNotFound, MapFull, KeyOutOfRange, LayoutError, PermissionDenied.  BPF_MAP_UPDATE_ELEM, 3.18
        """
        if type(value) is int and self._value_min <= value <= self._value_max:
            value = self.value_type(value)
        if not self._store(key, value, flags):
            raise self._error(BPF_MAP_UPDATE_ELEM, errno.ENOENT, key)

    __setitem__ = update

    def delete(self, key):
        """Remove key.  raises KeyNotFound, NotSupported (arrays), PermissionDenied.  BPF_MAP_DELETE_ELEM, 3.18"""
        if not self._remove(key, _ZERO):
            raise self._error(BPF_MAP_DELETE_ELEM, errno.ENOENT, key)

    __delitem__ = delete

    def next_key(self, key=None):
        """Return the key after key, the first one if key is None (4.12); None after the last.

        A hash that no longer has key starts over at its first one; an index is next whether it is set or not.
        raises NotSupported (queues, storages, ring buffers), SyscallError.  BPF_MAP_GET_NEXT_KEY, 3.18
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


class _Keyless(_Elements):
    """Queues, stacks, bloom filters: values without keys."""

    def push(self, value, flags=0):
        """Add value to a queue, a stack (4.20) or a bloom filter (5.16); BPF_EXIST drops the oldest of a full one.

        raises MapFull, LayoutError, NotSupported, PermissionDenied, SyscallError.  BPF_MAP_UPDATE_ELEM
        """
        flags = _flag_bits(flags)
        if self.key_type is not None:
            raise self._lacks(BPF_MAP_UPDATE_ELEM, "order of values")
        obj = self._value_in(None, value) if self.value_size else self._new_out()
        code = self._element(BPF_MAP_UPDATE_ELEM, None, obj, flags)
        if code:
            raise self._keyless_error(BPF_MAP_UPDATE_ELEM, code)

    def peek(self):
        """Return the value that pop would; KeyNotFound if there is none.  BPF_MAP_LOOKUP_ELEM, 4.20"""
        return self._read_in_turn(BPF_MAP_LOOKUP_ELEM)

    def pop(self):
        """Remove and return the oldest value of a queue, the newest of a stack; KeyNotFound if there is none.  4.20"""
        return self._read_in_turn(BPF_MAP_LOOKUP_AND_DELETE_ELEM)

    def _read_in_turn(self, cmd):
        """Return the value whose turn it is."""
        if self.key_type is not None:
            raise self._lacks(cmd, "order of values")
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


class _Scanning(_Keyless):
    """All the entries: over the batch commands where the kernel has them, else key by key."""

    @property
    def exact_scan(self):
        """Whether a scan yields every entry that is in the map from start to end exactly once, come what may.

        True over the batch commands of hashes (5.6) and for arrays.  False where a walk is all there is (LPM tries,
        RHASH, DEVMAP_HASH, SOCKHASH, hashes before 5.6): an update moves an entry in its bucket, and a walk may
        miss it meanwhile.  raises ValueError, SyscallError
        """
        return self.type in _INDEX_TYPES or self._batches()

    def _batches(self):
        """Whether the kernel has LOOKUP_BATCH for this type: asked once, with a batch of none."""
        if self._has_batch is None:
            owner, attr, code = self._live(), bpf_attr(), ENOTSUPP
            attr.batch.map_fd = owner.number
            if self.type in _BATCH_TYPES:
                size = _ATTR_SIZES[BPF_MAP_LOOKUP_BATCH]
                code = _syscall(_nr_bpf, BPF_MAP_LOOKUP_BATCH, byref(attr), size)
            del owner
            if code not in (0, errno.EINVAL, ENOTSUPP):
                raise self._error(BPF_MAP_LOOKUP_BATCH, code)
            self._has_batch = code == 0
        return self._has_batch

    def keys(self):
        """Return an iterator over the keys of the entries that are there; see items."""
        return (key for key, _ in self._scan(False))

    __iter__ = keys

    def values(self, flags=0):
        """Return an iterator over the values; see items."""
        return (value for _, value in self._scan(True, flags))

    def items(self, flags=0):
        """Return an iterator over (key, value) of every entry, each new objects; flags as of lookup.

        Where exact_scan is True, what is in the map from start to end comes exactly once; elsewhere nothing comes
        twice, but an entry that others update meanwhile may be missed.  The current key may be deleted.  raises
        IterationAborted if that cannot be kept, NotSupported (queues, storages ...).  BPF_MAP_LOOKUP_BATCH, 5.6
        """
        return self._scan(True, flags)

    def _scan(self, with_values, flags=0):
        flags = _flag_bits(flags)
        self._require_keys(BPF_MAP_GET_NEXT_KEY)
        if not self._batches():
            return ((self._key_out(key), self._finished(out)) for key, out in self._walk(flags))
        return self._scan_batches(with_values, flags)

    def _scan_batches(self, with_values, flags):
        parts = _Batches(self, BPF_MAP_LOOKUP_BATCH, None, flags)
        parts._owner = None  # a generator lets in one thread at a time, whichever
        for keys, values in parts:
            finished = [None] * len(keys)
            if with_values:
                finished = self._finished_elements(values, self.value_type)
            for entry in zip(self._finished_elements(keys, self.key_type), finished):
                yield entry

    def _finished_elements(self, array, ctype):
        """Return the list of what callers get for the elements of an array that is about to be reused."""
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

    def _walk(self, flags):
        """Return an iterator over (key, out) as ctypes objects of every entry, each once."""
        return self._walk_indices(flags) if self.type in _INDEX_TYPES else self._walk_keys(flags)

    def _walk_indices(self, flags):
        """Yield the entries of an array: what is there stays where it is."""
        copy = _copier(self._raw_key_type)
        for index in range(self.max_entries):
            raw = index.to_bytes(self.key_size, sys.byteorder)
            out = self._present(raw, flags)
            if out is not None:
                yield copy(raw), out

    def _walk_keys(self, flags):
        """Yield the entries in the order of the keys.

        A cursor that others delete sends the kernel back to its first key, or (cgroup storages) to the end.
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

    def lookup_batch(self, size=None, flags=0):
        """Return an iterator over (keys, values): ctypes arrays of at most size entries each (left out: about a MiB).

        The kernel fills them, and they are valid until the next step: memoryview(values), struct.iter_unpack and
        numpy.frombuffer take them as they are; per-CPU values are arrays of percpu_type(); flags are those of lookup.
        Exact where exact_scan is True.  raises IterationAborted, NotSupported (also of flags), SyscallError.
        BPF_MAP_LOOKUP_BATCH, 5.6; else entry by entry
        """
        flags = _flag_bits(flags)
        self._require_keys(BPF_MAP_LOOKUP_BATCH)
        if self._batches():
            return _Batches(self, BPF_MAP_LOOKUP_BATCH, size, flags)
        return self._walked_batches(size, flags)

    def lookup_and_delete_batch(self, size=None, flags=0):
        """Return an iterator like lookup_batch's that removes the entries it hands out.

        Nothing is lost: what the kernel has removed comes with the next step, if the one that did it ended in an error
        or KeyboardInterrupt; .last is the part that was handed out last.  raises NotSupported (arrays, LPM tries;
        queues: use pop), PermissionDenied, SyscallError.  BPF_MAP_LOOKUP_AND_DELETE_BATCH, 5.6
        """
        self._require_keys(BPF_MAP_LOOKUP_AND_DELETE_BATCH)
        return _Batches(self, BPF_MAP_LOOKUP_AND_DELETE_BATCH, size, _flag_bits(flags))

    def _walked_batches(self, size, flags):
        entries, room = self._walk(flags), self._batch_room(size)
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
        """Have the possible CPUs counted, by key (bytes) or any key there is, before per-CPU values move in bulk."""
        if self._proved_type(self._key_in(key)) is None:
            first = self._next(None)
            if first is None or self._proved_type(self._key_in(_raw(first))) is None:
                what = "entry by which the possible CPUs could be counted"
                raise self._lacks(BPF_MAP_LOOKUP_BATCH, what)


class _Writing(_Scanning):
    """Many entries written in one call."""

    def update_batch(self, keys, values, flags=0):
        """Store values under keys, in one call where the kernel can (5.6); return how many, which is all of them.

        Each is an array of the type, a buffer of whole elements, or a sequence of what update takes; flags that the
        batch command does not know (BPF_NOEXIST) make it go entry by entry.  raises as update, .count: stored before
        """
        flags = _flag_bits(flags)
        keys = self._batch_in(self._raw_key_type, keys, self._key_in, "keys")
        if self._is_percpu and not self._flagged_type(flags) and len(keys):
            self._prove_some(bytes(keys)[: self.key_size])
        value_type = self._flagged_type(flags) or self._out_type or self._raw_value_type
        convert = partial(self._value_in, None, flags=flags)
        values = self._batch_in(value_type, values, convert, "values")
        if len(keys) != len(values):
            raise LayoutError("%d keys and %d values do not go together" % (len(keys), len(values)))
        return self._write_batch(BPF_MAP_UPDATE_BATCH, BPF_MAP_UPDATE_ELEM, keys, values, flags)

    def delete_batch(self, keys):
        """Remove keys, in one call where the kernel can (5.6); return how many, which is all of them.

        raises as delete, KeyNotFound at the first that is absent (.count says how many were removed before)
        """
        keys = self._batch_in(self._raw_key_type, keys, self._key_in, "keys")
        return self._write_batch(BPF_MAP_DELETE_BATCH, BPF_MAP_DELETE_ELEM, keys, None, 0)

    def _batch_in(self, ctype, given, convert, what):
        """Return a new array of ctype with the elements given: one that nobody else can resize or redefine."""
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
        """Run cmd on one element after the other; return how many are done and 0 or the errno of the next."""
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


class _Whole(_Writing):
    """The map as a whole: frozen, pinned, mapped."""

    def freeze(self):
        """Forbid user space to change the map, for good and through every descriptor; programs still may.

        raises PermissionDenied (frozen already, read-only), Busy (mapped writable; before 6.5 also frozen already),
        NotSupported.  BPF_MAP_FREEZE, 5.2
        """
        owner, attr = self._live(), bpf_attr()
        attr.elem.map_fd = owner.number
        code = _syscall(_nr_bpf, BPF_MAP_FREEZE, byref(attr), _ATTR_SIZES[BPF_MAP_FREEZE])
        del owner
        if code:
            raise self._error(BPF_MAP_FREEZE, code)

    def pin(self, path):
        """Give the map a name in a bpffs, which keeps it alive.

        raises PinExists, PermissionDenied (no bpffs, a dot in the name), SyscallError.  BPF_OBJ_PIN, 4.4
        """
        owner = self._live()
        try:
            _obj_cmd(BPF_OBJ_PIN, path, bpf_fd=owner.number)
        finally:
            del owner

    def unpin(self, path):
        """Remove a pin of this map; BPFError for what is another map's, MapNotFound, OSError."""
        self._live()
        with Map.from_pin(path) as pinned:
            if pinned.id != self.id:
                raise BPFError(
                    "%s is a pin of %s, not of %s" % (os.fsdecode(path), pinned._about, self._about)
                )
        os.unlink(path)

    def mmap(self, writable=False):
        """Map the map's memory: a MemoryMap, whose reads make no system call.  Indices are 0..max_entries-1.

        For arrays created with BPF_F_MMAPABLE (5.5; the .data, .bss and .rodata of programs are), ring buffers, arenas.
        Even reading takes mode="rw": the kernel maps no read-only descriptor.  raises NotSupported, PermissionDenied
        (descriptor, frozen, BPF_F_RDONLY_PROG), SyscallError
        """
        import fcntl
        import mmap

        owner = self._live()
        try:
            length = self._mapped_length(mmap.PAGESIZE)
            if fcntl.fcntl(owner.number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
                raise _error(errno.EACCES, "mmap", self._about, self.type, owner.number)
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            try:
                memory = mmap.mmap(owner.number, length, mmap.MAP_SHARED, protection)
            except OSError as failure:
                raise _error(failure.errno, "mmap", self._about, self.type, owner.number) from None
        finally:
            del owner
        return MemoryMap(self, memory, writable)

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


class Map(_Whole):
    """A live BPF map.  Open one with from_fd, from_id, from_pin, from_name or create.

    key and value are ctypes types, bytes, or BTF to demand the map's own; left out they are BTF's, else numbers for
    indices, ids and descriptors, else bytes.  Where BTF can be had they are compared with it, with strict=True to the
    last sign.  mode is "r", "w" or "rw".  A Map may be shared by threads.  close() may race with calls: those under way
    finish on this map, later ones raise ValueError.  A dropped Map closes its descriptor; with closes it at the end.
    """

    def __init__(self):
        raise TypeError("open a map with Map.from_pin, from_id, from_name, from_fd or create")

    @classmethod
    def from_fd(cls, fd, key=None, value=None, *, dup=True, strict=False, token=None):
        """Return a Map on a duplicate of a descriptor, an int or an object with fileno(); dup=False: on the int itself.

        token as in from_pin.  raises InvalidArgument if it is no map's, LayoutError if a type does not fit.
        BPF_OBJ_GET_INFO_BY_FD, 4.13
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
    def from_id(cls, map_id, key=None, value=None, *, mode="r", strict=False):
        """Return a Map on the map with an id; it takes CAP_SYS_ADMIN.

        raises MapNotFound, PermissionDenied, LayoutError, SyscallError.  BPF_MAP_GET_FD_BY_ID, 4.13
        """
        return cls._opened(
            _fd_by_id(map_id, _mode_flags(mode)), "map %d" % map_id, key, value, strict
        )

    @classmethod
    def from_pin(cls, path, key=None, value=None, *, mode="r", strict=False, token=None):
        """Return a Map on a map pinned in a bpffs; file permission is all it takes.

        token: a BPF token's descriptor (create_token), if it takes one to have the map's BTF.  raises MapNotFound,
        PermissionDenied, InvalidArgument for a pinned program, LayoutError, SyscallError.  BPF_OBJ_GET, 4.4
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
    def from_name(cls, name, key=None, value=None, *, mode="r", strict=False):
        """Return a Map on the one map that has a name (at most 15 characters, as the kernel keeps it).

        raises MapNotFound; AmbiguousName listing the ids if there are several; else as from_id
        """
        flags, about = _mode_flags(mode), "'%s'" % name
        if len(name) > 15:
            detail = "a map's name has at most 15 characters, not %d" % len(name)
            error = _error(errno.ENOENT, BPF_MAP_GET_FD_BY_ID, about, detail=detail)
            error.hint = "the kernel keeps the first 15 of them: try '%s'" % name[:15]
            raise error
        found = dict(_still_there([info.id for info in maps() if info.name == name], flags))
        if len(found) > 1:
            several = AmbiguousName(
                "%d maps are named '%s': ids %s; open one by its id"
                % (len(found), name, ", ".join(map(str, found)))
            )
            several.ids = list(found)
            raise several
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
        map_type,
        key=None,
        value=None,
        max_entries=None,
        *,
        key_size=None,
        value_size=None,
        name="",
        flags=0,
        inner=None,
        map_extra=0,
        numa_node=None,
        btf=None,
        btf_key=None,
        btf_value=None,
        token=None,
        strict=False,
    ):
        """Create a map and return it, open for reading and writing.  BPF_MAP_CREATE, 3.18; CAP_BPF since 5.8

        key_size, value_size default to those of the types; max_entries to 1, for perf_event_arrays and cpumaps to the
        number of possible CPUs; name has at most 15 of A-Z a-z 0-9 _ .; inner is the Map or descriptor that is the
        pattern for the entries of a map of maps; btf a descriptor of loaded BTF, btf_key and btf_value type ids in it;
        token a BPF token's.  raises PermissionDenied, InvalidArgument, LayoutError
        """
        sizes = (
            _size_for("key", key, key_size, map_type, _NUMBER_KEY_TYPES, _KEYLESS_TYPES),
            _size_for("value", value, value_size, map_type, _NUMBER_VALUE_TYPES, _VALUELESS_TYPES),
        )
        if max_entries is None:
            max_entries = len(possible_cpus()) if map_type in _ENTRY_PER_CPU_TYPES else 1
        settings = {
            "map_type": map_type,
            "key_size": sizes[0],
            "value_size": sizes[1],
            "max_entries": max_entries,
            "map_flags": flags,
            "inner_map_fd": _fd_number(inner),
            "numa_node": numa_node or 0,
            "map_extra": map_extra,
            "btf_fd": _fd_number(btf),
            "btf_key_type_id": btf_key or 0,
            "btf_value_type_id": btf_value or 0,
            "map_token_fd": _fd_number(token),
        }
        attr = bpf_attr()
        size = _set_create(attr.map_create, settings, name)
        attr.map_create.map_flags |= 0 if numa_node is None else BPF_F_NUMA_NODE
        attr.map_create.map_flags |= 0 if token is None else BPF_F_TOKEN_FD
        about = "a new map (%s%s)" % (map_type_name(map_type), " '%s'" % name if name else "")
        try:
            owner = _Fd(_bpf_charged, BPF_MAP_CREATE, attr, about, size, map_type=map_type)
        except InvalidArgument as error:
            error.hint = _creation_log(attr, size) or error.hint
            raise
        try:
            return cls._opened(owner, about, key, value, strict, token)
        finally:
            del owner


_ENTRY_PER_CPU_TYPES = frozenset((BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_CPUMAP))
_NUMBER_KEY_TYPES = _INDEX_TYPES | _FD_KEY_TYPES | {BPF_MAP_TYPE_HASH_OF_MAPS}


def _set_create(create, settings, name):
    """Set the fields of a bpf_attr_map_create; return how many bytes of it must be passed."""
    size, types = _ATTR_SIZES[BPF_MAP_CREATE], dict(create._fields_)
    for field in settings:  # ctypes would cut a number that is too large
        low, high = _int_range(types[field])
        number = _integer(settings[field], low, high, field)
        setattr(create, field, number)
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
    """Return what the kernel says of a map that it refused to create, "" where it has no words (before 7.2)."""
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


class _Batches:
    """Iterator over a map's entries in parts, by LOOKUP_BATCH or LOOKUP_AND_DELETE_BATCH, for one thread.

    An exception may strike anywhere (Ctrl-C): a call is known to have run by what it wrote (count; next cursor, which
    is all ones before; keys, of which no two are alike), and what it removed is handed out by the next step.
    """

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

    def __iter__(self):
        return self

    def __next__(self):
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
        """Make a call, or take the outcome of one that an exception cut short; taken twice, it is the same."""
        code = None
        if not self._under_way:
            if not self._prepare():
                self._end = StopIteration
                return
            code = self._call()
        self._take_outcome(code)
        self._under_way = False

    def _prepare(self):
        """Have arrays for the next call; False if the map has no entry by which to count the possible CPUs."""
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


class MemoryMap:
    """The memory of a map: an array created with BPF_F_MMAPABLE, a ring buffer or an arena.  Made by Map.mmap.

    mm[i] is the value of element i: a number for scalars, else a copy or, of a writable mapping, an object that lives
    in the map's memory; mm[i] = value stores, if it is writable.  len(mm) counts elements, mm.view is a memoryview of
    the bytes, all that ring buffers and arenas have.  Reads and writes are native loads and stores: a value wider than
    a word can be torn.  The memory stays as long as views and objects in it do.  A child of fork() has no arena's.
    """

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

    def __len__(self):
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

    def __getitem__(self, index):
        words = self._words
        if words is not None and 0 <= index < self._count:
            return words[index]
        memory, start, end = self._at(index)
        if self._type is bytes:
            return memory[start:end]
        if _is_scalar(self._type):
            return _get_value(_copier(self._type)(memory, start))
        return (_overlay if self._writable else _copier)(self._type)(memory, start)

    def __setitem__(self, index, value):
        memory, start, end = self._at(index)
        if not self._writable:
            raise TypeError("this mapping is read-only: m.mmap(writable=True)")
        obj, words = _to_ctype(self._type, self._size, value, self._about), self._words
        if words is not None:
            words[index] = _get_value(obj)
        else:
            memory[start:end] = _raw(obj)

    def close(self):
        """Let go of the memory; it is unmapped with the last view or object in it."""
        self._memory = self.view = self._words = None
        self._count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def lpm_key(text):
    """Return the key of an LPM trie, as bytes, for "10.0.0.0/8" or an IPv6 prefix; the whole address without a /."""
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


def _default_type(source, what, size, numeric, demanded=False):
    """Return the type of a source's keys or values: BTF's (or BTFError if demanded), a number, bytes, or None."""
    btf, type_id = source.btf, source._btf_types.get(what)
    try:
        if not type_id:
            raise BTFError("%s of %s has no BTF type: %s" % (what, source._about, source._no_btf))
        if btf.sizeof(type_id) != size:
            raise BTFError(
                "%s of %s has %d bytes, its BTF type %d"
                % (what, source._about, size, btf.sizeof(type_id))
            )
        return btf.ctype(type_id)
    except BTFError as failure:
        if demanded:
            raise
        source._no_btf = str(failure) if type_id else source._no_btf
    if size == 0:
        return None
    if numeric and size in (4, 8):
        return getattr(_UNSIGNED_INTS[size], "__ctype_%se__" % source.order[0])
    return bytes


def _map_btf(info, token):
    """Return ({"key": type id, "value": type id}, why not, BTF) of a map; ({}, why, False) where it can't be had."""
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
    except (SyscallError, BTFError) as failure:
        return {}, str(failure), False


def _size_for(what, ctype, size, map_type, word_types, void_types):
    """Return the key_size or value_size to create a map with: 4 in word_types, 0 in void_types if none is given."""
    if size is not None:
        return size
    if ctype is not None and ctype is not bytes:
        _check_plain(ctype, what)
        return sizeof(ctype)
    if map_type in word_types or map_type in void_types:
        return 4 if map_type in word_types else 0
    raise LayoutError("give %s= a ctypes type, or %s_size=" % (what, what))


def _fd_number(source):
    """Return the descriptor number of an int, an object with fileno(), or None (0)."""
    if source is None:
        return 0
    return source.fileno() if hasattr(source, "fileno") else source


def _fd_by_id(map_id, open_flags):
    """Return the _Fd of the map with an id."""
    attr = bpf_attr()
    attr.get_id.start_id = _integer(map_id, 0, (1 << 32) - 1, "map id")
    attr.get_id.open_flags = open_flags
    return _Fd(_bpf, BPF_MAP_GET_FD_BY_ID, attr, "map %d" % map_id)


def _still_there(map_ids, open_flags):
    """Yield (id, _Fd) of the maps that can still be opened; those that are gone meanwhile are left out."""
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


def open_map(spec, key=None, value=None, *, mode="r", strict=False, token=None):
    """Return the Map that spec names, as bpftool does: "id 5" or 5, "name foo" or "foo", "pinned PATH" or "/path".

    token is for pins.  raises ValueError for a spec of no such form; else as Map.from_id, from_name, from_pin
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


def create_token(path="/sys/fs/bpf"):
    """Return a BPF token's descriptor (fileno()), with the rights that a bpffs delegates to this user namespace.

    Kernels take it for making maps, and 6.15 for a map's BTF; ids need CAP_SYS_ADMIN all the same.  raises
    PermissionDenied, NotSupported outside of user namespaces, SyscallError.  BPF_TOKEN_CREATE, 6.9
    """
    bpffs, attr = _Fd(os.open, path, os.O_RDONLY | os.O_DIRECTORY), bpf_attr()
    attr.token_create.bpffs_fd = bpffs.number
    return _Fd(_bpf, BPF_TOKEN_CREATE, attr, os.fsdecode(path))


# ---- 7. Inspection ----------------------------------------------------------


def maps():
    """Yield the MapInfo of every map in the kernel, by id; it takes CAP_SYS_ADMIN.  BPF_MAP_GET_NEXT_ID, 4.13"""

    def read(map_id):
        owner = _fd_by_id(map_id, BPF_F_RDONLY)
        try:
            return MapInfo(owner.number, "map %d" % map_id)
        finally:
            del owner  # and not kept by a traceback

    for _, info in _read_ids(BPF_MAP_GET_NEXT_ID, read):
        yield info


def pins(root=None):
    """Return {map id: [path, ...]} of the maps pinned below root, by default on every bpffs that is mounted.

    What may not be read is left out.  raises BPFError for a root that is no directory of a bpffs, nor holds any
    """
    found = {}
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
        raise BPFError("%s is in no bpffs, nor is one below it; mounted are: %s" % (root, where))
    return below


def users(map_id, asking=()):
    """Return who uses a map: {"progs": ["7 name"], "pids": ["comm(pid)"]}, as far as one may see (4.13, /proc).

    asking are descriptors of this process, or Maps, that were opened to ask: they alone make it no user of the map.
    """
    found = {"progs": [], "pids": []}
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
                comm = _read_text("/proc/%d/comm" % pid).strip()
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


def _open_program(spec):
    """Return the descriptor (fileno()) of the program that "id N", "pinned PATH", "tag T" or "name S" says."""
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
# A source is a Map opened with bytes as key and value, or a Capture; an entry of it is (key, value), the value of a
# per-CPU map a list.


class View:
    """A source with the types of its keys and values: those given, or BTF's, or numbers, or bytes."""

    def __init__(self, source, key=None, value=None):
        self.source, self.info, self.cpus, self.width = (
            source,
            source.info,
            getattr(source, "cpus", ()),
            0,
        )
        if self.info.type in _PERCPU_TYPES and not self.cpus:
            self.cpus = possible_cpus()
        numeric = {"key": _INDEX_TYPES | _FD_KEY_TYPES, "value": _NUMBER_VALUE_TYPES}
        self.key, self.value = (
            _default_type(source, what, size, self.info.type in numeric[what]) or bytes
            if ctype is None
            else ctype
            for ctype, what, size in (
                (key, "key", self.info.key_size),
                (value, "value", self.info.value_size),
            )
        )
        check_layout(self.key, self.info.key_size, "key of " + self.info._about)
        check_layout(self.value, self.info.value_size, "value of " + self.info._about)
        shown = {"key": key is None and self.key, "value": value is None and self.value}
        self.ids = {
            what: type_id
            for what, type_id in source._btf_types.items()
            if shown[what] not in (False, bytes)
        }

    def entries(self):
        """Return an iterator over (key, value) as bytes; of a per-CPU map values are lists."""
        return self.source.items() if isinstance(self.source, Map) else self.source.entries()

    def plain(self, raw, what):
        """Return the plain form of a key or value; of a list that of each CPU's."""
        if isinstance(raw, list):
            return [
                {"cpu": cpu, "value": self.plain(one, what)} for cpu, one in zip(self.cpus, raw)
            ]
        ctype = getattr(self, what)
        if what in self.ids:
            return self.source.btf._plain(self.ids[what], raw)
        return list(raw) if ctype is bytes else _decode(ctype, raw, 0)

    def names(self, what):
        """Return {number: name} where keys or values are of an enum, else {}; a pointer's is {None: ""}."""
        t = what in self.ids and self.source.btf._resolve(self.ids[what])
        if not t or t.kind not in _ENUMS:
            return {None: ""} if t and t.kind == BTF_KIND_PTR else {}
        return self.source.btf.enumerators(t)

    def pair(self, key, value):
        """Return an entry as a dict of plain data."""
        plain = {"values" if isinstance(value, list) else "value": self.plain(value, "value")}
        return dict(key=self.plain(key, "key"), **plain) if self.info.key_size else plain

    def bpftool(self, key, value):
        """Return an entry as bpftool's JSON has it."""

        def form(each):
            if not isinstance(value, list):
                there = (
                    {"error": os.strerror(errno.ENOENT)} if value is None else each("value", value)
                )
                return {"key": each("key", key), "value": there}
            return {
                "key": each("key", key),
                "values": [
                    {"cpu": cpu, "value": each("value", one)} for cpu, one in zip(self.cpus, value)
                ],
            }

        btf, types = self.source.btf, self.source._btf_types
        entry = form(lambda _, raw: ["0x%02x" % byte for byte in raw])
        if self.info.type in _OF_MAPS_TYPES and value is not None:  # from bpftool 7.5 on
            entry["inner_map_id"] = int.from_bytes(value, self.source.order)
        if "value" in types and self.info.key_size:
            shown = form(lambda what, raw: what in types and _bpftool_form(btf, types[what], raw))
            entry["formatted"] = {
                name: part for name, part in shown.items() if name != "key" or "key" in types
            }
        return entry

    def per_cpu(self, value):
        """Return [(CPU, its value)], or [(None, value)] where there is one for all."""
        return list(zip(self.cpus, value)) if isinstance(value, list) else [(None, value)]

    def words(self, value):
        """Return [the value in words], of a per-CPU map those of each CPU."""
        return [
            ("" if cpu is None else "[cpu %d] " % cpu)
            + _words(self.plain(one, "value"), self.value)
            for cpu, one in self.per_cpu(value)
        ]

    def human(self, key, value):
        """Return an entry as a line to read, of a per-CPU map one for each CPU."""
        head = _words(self.plain(key, "key"), self.key) + ": " if self.info.key_size else ""
        self.width = max(self.width, min(len(head), 60))
        return "\n".join(head.ljust(self.width) + text for text in self.words(value))

    def hexadecimal(self, key, value):
        """Return an entry in hex, a line for each CPU's value, as bpftool prints it to people."""
        cpu_text = lambda cpu: "" if cpu is None else "  cpu %d" % cpu
        head = "key: %s%%s  " % _hex(key) if self.info.key_size else "%s"
        return "\n".join(
            head % cpu_text(cpu) + "value: " + _hex(one) for cpu, one in self.per_cpu(value)
        )

    def json_lines(self, entries, whole=False):
        """Yield lines of JSON, an entry each; of a whole map of plain numbers many at a time, in a shorter way."""
        import json

        quick = (
            _line_format(self.key, self.names("key")),
            _line_format(self.value, self.names("value")),
        )
        if (
            whole
            and all(quick)
            and isinstance(self.source, Map)
            and self.info.type not in _PERCPU_TYPES
        ):
            (key, key_text), (value, value_text) = quick
            line = '{"key":%s,"value":%s}' % (key_text, value_text)
            for keys, values in self.source.lookup_batch():
                both = zip(
                    struct.iter_unpack(key, bytes(keys)), struct.iter_unpack(value, bytes(values))
                )
                yield "\n".join([line % (one + other) for one, other in both])
            return
        for key, value in entries:
            yield json.dumps(_finite(self.pair(key, value)), separators=(",", ":"))

    def metrics(self, entries):
        """Yield OpenMetrics text: a gauge for every number in the values, with the key's fields as labels."""
        if self.value is bytes:
            raise ValueError("metrics need the type of the values: --value-type")
        base, samples = _identifier("bpf_map_" + (self.info.name or "id%d" % self.info.id)), {}
        text_of = lambda plain: _words(plain) if isinstance(plain, list) else str(plain)
        escape = lambda plain: (
            text_of(plain).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        )
        for key, value in entries:
            for cpu, one in self.per_cpu(value):
                labels = {} if cpu is None else {"cpu": cpu}
                for path, label in _leaves(self.plain(key, "key"), words=True):
                    name = _identifier(
                        "key_" + path if not path or path[0].isdigit() else path
                    ).rstrip("_")
                    while name in labels:
                        name += "_"
                    labels[name] = label
                text = ",".join('%s="%s"' % (name, escape(label)) for name, label in labels.items())
                for path, number in _leaves(self.plain(one, "value")):
                    if isinstance(number, (int, float)):
                        samples.setdefault(_identifier((base + "_" + path).rstrip("_")), []).append(
                            "{%s} %s"
                            % (text, float(number) if isinstance(number, float) else int(number))
                        )
        for name, lines in samples.items():
            yield "# TYPE %s gauge" % name
            for line in lines:
                yield name + line
        yield "# EOF"


def _bpftool_form(btf, t, raw, offset=0, bits=0):
    """Return what bpftool's JSON says of a type at a bit offset of raw."""
    t = btf._resolve(t)
    if t.kind in _RECORDS:
        members = [
            (name, _bpftool_form(btf, type_id, raw, offset + at, width))
            for name, type_id, at, width in btf._members(t)
        ]
        return (
            {t.name: [dict([pair]) for pair in members]}
            if t.kind == BTF_KIND_DATASEC
            else dict(members)
        )
    if t.kind == BTF_KIND_ARRAY:
        chars = raw[offset // 8 : offset // 8 + t.count].split(b"\0")
        if (
            btf._is_char(btf._resolve(t.type_id))
            and len(chars) > 1
            and all(0x1F < char < 0x7F for char in chars[0])
        ):
            return chars[0].decode()
        step = 8 * btf.sizeof(t.type_id)
        return [
            _bpftool_form(btf, t.type_id, raw, offset + index * step) for index in range(t.count)
        ]
    if bits or btf.sizeof(t) not in _UNSIGNED_INTS:
        return "0x%x" % _Bits(offset, bits or 8 * btf.sizeof(t), btf.order, False).of(raw)
    if t.kind in _ENUMS:  # all of them signed, to bpftool
        half = 1 << (31 if t.kind == BTF_KIND_ENUM else 63)
        number = _Bits(offset, 8 * t.size, btf.order, True).of(raw)
        return {
            (one + half) % (2 * half) - half: name for one, name in btf.enumerators(t).items()
        }.get(number, number)
    plain = btf._plain(t, raw, offset)
    return int(plain, 16) if t.kind == BTF_KIND_PTR else plain


def _hex(raw):
    return " ".join("%02x" % byte for byte in raw)


def _words(plain, ctype=None):
    """Return plain data in few words: "src=10 port=443", what is inside in braces, bytes in hex."""
    inner = lambda one: "{%s}" % _words(one) if isinstance(one, dict) else _words(one)
    if isinstance(plain, dict):
        return " ".join("%s=%s" % (name, inner(one)) for name, one in plain.items())
    if isinstance(plain, list):
        return _hex(plain) if ctype is bytes else "[%s]" % " ".join(map(inner, plain))
    bare = (
        isinstance(plain, str)
        and plain.isprintable()
        and plain
        and not set(plain) & set(" ='\"{}[]")
    )
    return plain if bare else repr(plain)


def _leaves(plain, path="", words=False):
    """Yield (path, leaf) of plain data: "addr_ip4", "hits_0"; the empty path is the whole; words: lists are leaves."""
    if not isinstance(plain, dict if words else (dict, list)):
        yield path, plain
        return
    for name, member in plain.items() if isinstance(plain, dict) else enumerate(plain):
        for leaf in _leaves(member, "%s_%s" % (path, name) if path else str(name), words):
            yield leaf


def _line_format(ctype, enum):
    """Return (struct format, JSON with %d in it) for a type of plain numbers, None for any other."""
    import json

    known, fields = getattr(ctype, "_btf_type_", None), None
    if _is_plain_int(ctype) and not enum:
        fields = [("%d", ctype, 0)]
    elif _is_record(ctype) and not issubclass(ctype, ctypes.Union) and not hasattr(ctype, "_json_"):
        fields = [
            (json.dumps(field.name).replace("%", "%%") + ":%d", field.type, field.offset)
            for field in _fields(ctype)
            if not field.name.startswith("_hole")
        ]
        members = known[0]._members(known[0].type(known[1])) if known else ()
        if any(
            bits
            or known[0]._encoding(known[0]._resolve(type_id)) not in (0, _INT_SIGNED)
            or known[0]._resolve(type_id).kind != BTF_KIND_INT
            for _, type_id, _, bits in members
        ):
            return None
    codes, end = "=", 0
    for _, scalar, offset in fields or ():
        if not _is_plain_int(scalar) or _is_swapped(scalar):
            return None
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[sizeof(scalar)]
        codes += "%dx%s" % (offset - end, code if _int_range(scalar)[0] else code.upper())
        end = offset + sizeof(scalar)
    if not fields:
        return None
    text = ",".join(label for label, _, _ in fields)
    return codes + "%dx" % (sizeof(ctype) - end), text if _is_scalar(ctype) else "{%s}" % text


# A capture is text: a line of JSON about the map, a line of hex for each entry, and a line with the number of
# entries and the SHA-256 of all before it, so that whatever is cut off or changed is noticed.


def capture(m, path):
    """Write a map's info, BTF and entries to a file, which appears when it is whole; return the number of entries."""
    import base64
    import hashlib
    import json
    import time

    with Map.from_fd(m, bytes, bytes) as source:
        info, system = source.info, os.uname()
        header = {
            "bpflookup_capture": 1,
            "info": {name: getattr(info, name) for name in info.__slots__},
            "btf": source.btf and base64.b64encode(source.btf.data).decode(),
            "types": source._btf_types,
            "base": source.btf
            and source.btf.base
            and base64.b64encode(source.btf.base.data).decode(),
            "order": sys.byteorder,
            "cpus": possible_cpus() if info.type in _PERCPU_TYPES else [],
            "host": system.nodename,
            "kernel": system.release,
            "machine": system.machine,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "exact": source.exact_scan,
        }
        temporary, digest, count = "%s.%d.tmp" % (os.fspath(path), os.getpid()), hashlib.sha256(), 0
        if os.path.islink(path) or os.path.exists(path) and not os.path.isfile(path):
            raise OSError(errno.EINVAL, "a capture takes the place of a plain file only", path)
        try:
            with open(temporary, "xb") as file:

                def put(text):
                    line = text.encode() + b"\n"
                    digest.update(line)
                    file.write(line)

                put(json.dumps(header))
                for count, (key, value) in enumerate(_progress(source.items(), info), 1):
                    put(
                        " ".join(
                            raw.hex() or "-"
                            for raw in [key] + (value if isinstance(value, list) else [value])
                        )
                    )
                put(json.dumps({"entries": count, "sha256": digest.hexdigest()}))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    return count


class Capture:
    """A map as capture wrote it down: .info, .btf, .header (host, kernel, time ...), items() as of the map.

    load(path) opens one, on any machine.  raises ValueError for a file that is cut, changed or none; OSError
    """

    def __init__(self, data, key=None, value=None):
        import base64
        import hashlib
        import json

        lines = data.split(b"\n")
        try:
            self.header, end = json.loads(lines[0].decode()), json.loads(lines[-2].decode())
            whole = (
                end
                == {
                    "entries": len(lines) - 3,
                    "sha256": hashlib.sha256(data[: len(data) - len(lines[-2]) - 1]).hexdigest(),
                }
                and not lines[-1]
            )
            if not whole or self.header["bpflookup_capture"] != 1:
                raise ValueError
            self.info = MapInfo.__new__(MapInfo)
            for name in MapInfo.__slots__:
                setattr(self.info, name, self.header["info"][name])
            blob = lambda name: base64.b64decode(self.header[name]) if self.header[name] else None
            self.btf = blob("btf") and BTF(blob("btf"), blob("base") and BTF(blob("base")))
            self._btf_types, self.cpus, self._lines = (
                self.header["types"],
                self.header["cpus"],
                lines[1:-2],
            )
            numbers = [
                number
                for name, number in self.header["info"].items()
                if name != "name"
                and (
                    number is not None
                    or name in ("id", "type", "key_size", "value_size", "max_entries", "map_flags")
                )
            ]
            numbers += self.cpus + list(self._btf_types.values())
            if (
                self.header["order"] not in ("little", "big")
                or not isinstance(self.info.name or "", str)
                or not self.info.key_size
                or set(self._btf_types) - ({"key", "value"} if self.btf else set())
                or not all(isinstance(number, int) and 0 <= number < 1 << 64 for number in numbers)
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise ValueError("no capture, or one that was cut or changed") from None
        self._about, self._no_btf, self.order = (
            self.info._about,
            "the map had none",
            self.header["order"],
        )
        self._view = View(self, key, value)

    @classmethod
    def load(cls, path, key=None, value=None):
        """Return the Capture in a file; key and value as of Map.from_pin."""
        with open(path, "rb") as file:
            return cls(file.read(), key, value)

    def entries(self):
        """Yield (key, value) as bytes; of a per-CPU map a list of each CPU's."""
        wanted = [self.info.key_size] + [self.info.value_size] * max(len(self.cpus), 1)
        for line in self._lines:
            parts = [
                b"" if word == b"-" else bytes.fromhex(word.decode()) for word in line.split(b" ")
            ]
            if list(map(len, parts)) != wanted:
                raise ValueError(
                    "a capture's entry of %s bytes, not %s" % (list(map(len, parts)), wanted)
                )
            yield parts[0], parts[1:] if self.cpus else parts[1]

    def items(self):
        """Yield (key, value) as Map.items does; of a per-CPU map a list of each CPU's."""
        one = lambda raw, ctype: (
            raw
            if ctype is bytes
            else _get_value(_copier(ctype)(raw))
            if _is_scalar(ctype)
            else _copier(ctype)(raw)
        )
        for key, value in self.entries():
            yield (
                one(key, self._view.key),
                [one(raw, self._view.value) for raw in value]
                if isinstance(value, list)
                else one(value, self._view.value),
            )


def _progress(entries, info):
    """Yield the entries, and tell people on a terminal how far it is."""
    import time

    shown, watched = time.time() + 1, sys.stderr.isatty() and not sys.stdout.isatty()
    for count, entry in enumerate(entries, 1):
        if watched and not count & 0x3FF and time.time() > shown:
            shown = time.time() + 0.5
            sys.stderr.write("\r%d of at most %d entries\033[K" % (count, info.max_entries))
            sys.stderr.flush()
        yield entry
    if watched and shown:
        sys.stderr.write("\r\033[K")


# ---- 9. Command line --------------------------------------------------------

# command -> usage, what it does, an example.  The order is bpftool's: a prefix stands for the first that it fits.
_COMMANDS = {
    "show": (
        "[MAP]",
        "list the maps, or one with its pins, programs and processes",
        "map show name flows",
    ),
    "list": ("[MAP]", "as show", "map list"),
    "help": ("[COMMAND]", "this text, or a command's", "help dump"),
    "dump": ("MAP", "print every entry", "--ndjson map dump name flows | jq .value.packets"),
    "update": (
        "MAP [key DATA] value VALUE [cpu=N] [any|exist|noexist]",
        "store an entry; VALUE: DATA, or of a map of "
        "maps or programs id N, name S, pinned PATH, tag T",
        "map update name limits key 10.0.0.1 value 100",
    ),
    "lookup": (
        "MAP key DATA",
        "print an entry; exit status 1 if there is none",
        "map lookup name flows key 10 0 0 1",
    ),
    "getnext": (
        "MAP [key DATA]",
        "print the key after a key, or the first",
        "map getnext name flows",
    ),
    "delete": (
        "MAP key DATA",
        "remove an entry",
        "map delete name flows key src=10.0.0.1,port=443",
    ),
    "pin": ("MAP PATH", "give the map a name in a bpffs", "map pin id 5 /sys/fs/bpf/flows"),
    "peek": ("MAP", "print the value that pop would", "map peek name queue"),
    "push": (
        "MAP value DATA",
        "add a value to a queue, stack or bloom filter",
        "map push id 5 value 7",
    ),
    "enqueue": ("MAP value DATA", "as push", "map enqueue id 5 value 7"),
    "pop": ("MAP", "remove a value from a queue or stack and print it", "map pop id 5"),
    "dequeue": ("MAP", "as pop", "map dequeue id 5"),
    "freeze": ("MAP", "forbid user space to change it, for good", "map freeze id 5"),
    "create": (
        "PATH type TYPE key SIZE value SIZE entries N name NAME [flags N] [inner_map MAP]",
        "make a map, pin it",
        "map create /sys/fs/bpf/hits type hash key 4 value 8 entries 1024 name hits",
    ),
    "layout": (
        "MAP",
        "show key and value: offsets, holes, Python that declares them",
        "map layout name flows",
    ),
    "watch": (
        "MAP [once] [interval SECONDS]",
        "show the entries live, those that change most first",
        "map watch id 5",
    ),
    "hist": (
        "MAP [linear]",
        "draw a histogram; slots, log2 unless linear, are the key's last field",
        "map hist id 5",
    ),
    "save": (
        "MAP FILE",
        "write a capture, to be read with --from",
        "map save name flows flows.capture",
    ),
    "btf": (
        "offset TYPE.MEMBER | layout TYPE",
        "ask the kernel's BTF",
        "btf offset task_struct.comm",
    ),
    "probe": ("", "tell what this kernel and these privileges allow", "-j probe"),
    "demo": ("", "have the kernel fill a map and look it up", "demo"),
}
_SAME = {"list": "show", "enqueue": "push", "dequeue": "pop"}
_SILENT = frozenset(
    ("update", "delete", "pin", "push", "freeze", "create")
)  # null in bpftool's JSON
_OPTIONS_HELP = """\
  MAP   id N | name S | pinned PATH, or just N, S, /PATH
  DATA  [hex] BYTE...   a word per byte: 10 0x0a, after hex: 0a
        or typed        1234, -1, 10.0.0.1, 10.0.0.0/8, fe80::1, 02:00:00:00:00:01, text, the name of an enumerator,
                        src=10.0.0.1,port=443 {"src": 1, "port": 2}

  -j, --json     JSON as bpftool prints it     -p, --pretty  the same, indented     -f, --bpffs  -j show tells pins too
  --hex          bytes, not decoded            --ndjson      decoded, one a line    --metrics    OpenMetrics text
  --key-type T, --value-type T    for maps without BTF: u32, be16, char[16], "u64 count, u64 last_seen"
  --from FILE    a capture instead of a map    --btf FILE    instead of the running kernel's
  --token DIR    in a user namespace: the rights that the bpffs at DIR delegates
  --trace        print every bpf(2) call       -h, --help    -V, --version

exit status: 0 done, 1 failed or not found, 2 usage"""


class _UsageError(Exception):
    """A command line that makes no sense; the message says why."""


class _Miss(Exception):
    """What was asked for is not there: what to tell people, what bpftool's JSON says."""


class _Options:
    """A command line: its options as attributes, and .words, which commands take from the front."""

    FLAGS = {
        "-j": "json",
        "--json": "json",
        "-p": "pretty",
        "--pretty": "pretty",
        "-f": "bpffs",
        "--bpffs": "bpffs",
        "--hex": "hex",
        "--ndjson": "ndjson",
        "--metrics": "metrics",
        "--trace": "trace",
        "--once": "once",
        "-h": "help",
        "--help": "help",
        "-V": "version",
        "--version": "version",
        "-n": "same",
        "--nomount": "same",
        "-d": "same",
        "--debug": "same",
        "-l": "same",
        "--legacy": "same",
    }
    VALUES = {
        "--key-type": "key_type",
        "--value-type": "value_type",
        "--from": "file",
        "--btf": "btf",
        "--token": "token",
    }

    def __init__(self, words):
        self.words, given = (
            [],
            iter(
                [
                    one
                    for word in words
                    for one in (
                        ["-" + letter for letter in word[1:]]
                        if word[:1] == "-" and word[1:].isalpha()
                        else [word]
                    )
                ]
            ),
        )
        for name in list(self.FLAGS.values()) + list(self.VALUES.values()):
            setattr(self, name, None)
        for word in given:
            option, sign, value = word.partition("=")
            if option in self.VALUES:
                value = value if sign else next(given, None)
                if value is None:
                    raise _UsageError("%s wants a value" % word)
                setattr(self, self.VALUES[option], value)
            elif word in self.FLAGS:
                setattr(self, self.FLAGS[word], True)
            elif word[:2] == "--" or word[:1] == "-" and word[1:2].isalpha():
                raise _UsageError("unknown option %s" % word)
            else:
                self.words.append(word)
        self.json = self.json or self.pretty

    def text(self, thing):
        import json

        how = {"indent": 4} if self.pretty else {"separators": (",", ":")}
        return json.dumps(_finite(thing), **how)

    def put(self, thing, end="\n"):
        """Print a thing as JSON."""
        sys.stdout.write(self.text(thing) + end)

    def put_entry(self, view, key, value):
        """Print an entry in the form asked for."""
        if self.json:
            return self.put(view.bpftool(key, value))
        form = view.json_lines if self.ndjson else view.metrics if self.metrics else None
        for text in (
            form([(key, value)])
            if form
            else [(view.hexadecimal if self.hex else view.human)(key, value)]
        ):
            print(text)
        return None

    def view(self, mode=None, rest=0):
        """Take the words of a map or, with no mode, the capture; return its View.  rest words may follow, None: any."""
        types = [
            text if text is None else parse_type(text) for text in (self.key_type, self.value_type)
        ]
        spec = self.take("a map: id N, name S, pinned PATH") if self.file is None else ""
        kind = next(
            (kind for kind in ("id", "name", "pinned") if spec and kind.startswith(spec)), None
        )
        if kind and (kind == spec or self.words and not self.words[0].startswith(("k", "v"))):
            spec = kind + " " + self.take("what follows '%s'" % kind)
        self.end(rest)
        if not spec and mode:
            raise _UsageError("this takes a map, not a capture")
        return View(
            open_map(spec, bytes, bytes, mode=mode or "r", token=self.token)
            if spec
            else Capture.load(self.file),
            *types,
        )

    def views(self):
        """Take the words of a map; return a View of each map that has the name."""
        try:
            return [self.view()]
        except AmbiguousName as several:
            if self.ndjson or self.metrics:
                raise
            found = []
            for map_id in several.ids:
                self.words[:] = ["id", str(map_id)]
                found.append(self.view())
            return found

    def take(self, what, keyword=None):
        """Take the next word, which is what; keyword, if given, is that word and may be shortened."""
        word = self.words.pop(0) if self.words else ""
        if not word or keyword and not keyword.startswith(word):
            raise _UsageError("%s is needed%s" % (what, ", not '%s'" % word if word else ""))
        return word

    def end(self, rest=0):
        if rest is not None and len(self.words) > rest:
            raise _UsageError("unexpected '%s'" % self.words[rest])


def main(argv=None):
    """Run the command line; return 0 (done), 1 (failed, not found) or 2 (usage)."""
    for name in ("stdout", "stderr"):  # closed by who started us
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    if hasattr(sys.stdout, "reconfigure"):  # 3.7; a map's name may hold what LANG=C cannot print
        sys.stdout.reconfigure(errors="backslashreplace")
    options = None
    try:
        options = _Options(sys.argv[1:] if argv is None else argv)
        status = _run(options) or 0
        sys.stdout.flush()
        return status
    except _Miss as miss:
        return _complain(options, miss.args[0], 1, miss)
    except BrokenPipeError:  # the reader has gone: nothing is left to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except _UsageError as error:
        return _complain(options, "%s (see --help)" % error, 2)
    except (
        BPFError,
        OSError,
        ValueError,
        OverflowError,
        ImportError,
    ) as error:  # a bare system may lack json
        return _complain(options, error, 1)


def _complain(options, message, status, miss=None):
    try:
        if options and options.json and not isinstance(message, ImportError):
            options.put(miss.args[1] if miss else {"error": str(message)})
            sys.stdout.flush()
        if not miss or not options.json:
            sys.stderr.write("bpflookup: %s\n" % message)
    except OSError:  # nobody can be told
        pass
    return status


def _run(options):
    words = options.words
    if options.version:
        return print("bpflookup %s" % __version__)
    if words and words[0] and words[0] not in _COMMANDS and "map".startswith(words[0]):
        words.pop(0)
    word = words.pop(0) if words else "help" if options.help else ""
    name = (
        word
        if word in _COMMANDS
        else next((name for name in _COMMANDS if word and name.startswith(word)), None)
    )
    if name is None:
        raise _UsageError("unknown command '%s'" % word if word else "a command is needed")
    if options.help and name != "help":
        words[:], name = [name], "help"
    command = globals()["_" + _SAME.get(name, name)]
    with trace() if options.trace else _Nothing():
        options.token = options.token and create_token(options.token)
        status = command(options)
    if name in _SILENT and options.json:
        options.put(None)
    return status


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _help(options):
    if not options.words:
        lines = ["  %-12s %s" % (name, text) for name, (_, text, _) in _COMMANDS.items()]
        return print(
            "usage: bpflookup.py [OPTION]... [map] COMMAND ...    (COMMAND -h: its usage)\n\n%s\n\n%s"
            % ("\n".join(lines), _OPTIONS_HELP)
        )
    name = options.words[0]
    if name not in _COMMANDS:
        raise _UsageError("unknown command '%s'" % name)
    return print(
        "usage: bpflookup.py [OPTION]... %s %s\n%s\nfor example: bpflookup.py %s\n\n%s"
        % ((name,) + _COMMANDS[name] + (_OPTIONS_HELP,))
    )


def _show(options):
    views = options.views() if options.words or options.file else []
    infos = [view.info for view in views] or list(maps())
    pinned = pins() if not options.file and (options.bpffs or not options.json) else {}
    if options.json:
        shown = [_info_json(info, pinned.get(info.id)) for info in infos]
        return options.put(shown[0] if len(views) == 1 else shown)
    for info in infos:
        known = _info_json(info)
        used = users(info.id, [view.source for view in views]) if views and not options.file else {}
        print(_headline(info))
        words = (
            "bytes_key",
            "bytes_value",
            "max_entries",
            "bytes_memlock",
            "owner_prog_type",
            "btf_id",
            "frozen",
        )
        print(
            "\t"
            + "  ".join(
                "%s %s" % (word.replace("bytes_", ""), known[word])
                for word in words
                if word in known
            )
        )
        for what, things in (
            ("pinned", pinned.get(info.id)),
            ("programs", used.get("progs")),
            ("processes", used.get("pids")),
        ):
            if things:
                print("\t%s %s" % (what, ", ".join(things)))
    return None


def _headline(info):
    name = "  name " + info.name if info.name else ""
    return "%d: %s%s  flags 0x%x" % (info.id, map_type_name(info.type), name, info.map_flags)


def _info_json(info, pinned=None):
    """Return a map's info as bpftool names it, without what the kernel does not tell."""
    owner = info.owner_prog_type
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
        "owner_jited": info.owner_jited,
        "frozen": None if info.frozen is None else int(info.frozen),
        "btf_id": info.btf_id or None,
        "pinned": pinned,
    }
    return {name: value for name, value in known.items() if value is not None}


# Those of whose indices bpftool says that there is no entry.
_HOLED_TYPES = frozenset(
    (
        BPF_MAP_TYPE_DEVMAP,
        BPF_MAP_TYPE_SOCKMAP,
        BPF_MAP_TYPE_CPUMAP,
        BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
    )
)


def _dump(options):
    views = options.views()
    for view in views:
        if views[1:]:  # each with a head, then
            known, first = _info_json(view.info), view is views[0]
            head = {name: known[name] for name in ("id", "type", "name", "flags")}
            print(
                ("[" if first else ",") + options.text(head).rstrip("}\n ") + ',"elements":'
                if options.json
                else "\n" * (not first) + _headline(view.info)
            )
        _dump_one(options, view)
        if views[1:] and options.json:
            print("}]" if view is views[-1] else "}")


def _dump_one(options, view):
    entries, count = _progress(view.entries(), view.info), 0
    if options.json and view.info.type in _HOLED_TYPES:
        there = dict(entries)
        entries = (
            (key, there.get(key))
            for key in (
                index.to_bytes(4, view.source.order) for index in range(view.info.max_entries)
            )
        )
    if options.ndjson or options.metrics:
        for line in (
            view.json_lines(entries, whole=True) if options.ndjson else view.metrics(entries)
        ):
            print(line)
        return
    for count, (key, value) in enumerate(entries, 1):
        if options.json:
            sys.stdout.write("[" if count == 1 else ",")
            options.put(view.bpftool(key, value), "")
        else:
            print((view.hexadecimal if options.hex else view.human)(key, value))
    if options.json:
        print("]" if count else "[]")
    else:
        print("Found %d element%s" % (count, "" if count == 1 else "s"))


def _lookup(options):
    view = options.view(rest=None)
    if not view.info.key_size:
        return _show_peeked(options, view, view.source.peek)
    key = _key(options, view)
    options.end()
    value = dict(view.entries()).get(key) if options.file else view.source.get(key)
    if value is None:
        raise _Miss("no such key: %s" % _hex(key), None)
    options.put_entry(view, key, value)


def _getnext(options):
    view = options.view("r", None)
    key = _key(options, view) if options.words else None
    options.end()
    following = view.source.next_key(key)
    if following is None:
        raise _Miss("no next key", {"error": "can't get next key: No such file or directory"})
    shown = lambda raw: (
        raw
        and (
            ["0x%02x" % byte for byte in raw]
            if options.json
            else _hex(raw)
            if options.hex
            else _words(view.plain(raw, "key"), view.key)
        )
    )
    if options.json:
        return options.put({"key": shown(key), "next_key": shown(following)})
    return print("key: %s\nnext key: %s" % (shown(key), shown(following)))


def _update(options):
    view = options.view(
        "rw" if any(word.startswith("cpu=") for word in options.words) else "w", None
    )
    key = _key(options, view) if view.info.key_size else None
    options.take("'value'", "value")
    words, flags = options.words, {"any": BPF_ANY, "exist": BPF_EXIST, "noexist": BPF_NOEXIST}
    flag = [flags[name] for name in flags if words[1:] and name.startswith(words[-1])]
    flag = flag[0] if flag and words.pop() else BPF_ANY
    cpu = words.pop()[4:] if words and words[-1].startswith("cpu=") else None
    if view.info.type in _FD_VALUE_TYPES and words and words[0] in ("id", "pinned", "name", "tag"):
        held = (_open_program if view.info.type == BPF_MAP_TYPE_PROG_ARRAY else open_map)(
            " ".join(words)
        )
        value = held.fileno().to_bytes(view.info.value_size, sys.byteorder)
    else:
        value = _data(words, view.value, view.info.value_size, "value", view)
    if cpu is not None:
        if not cpu.isdecimal() or int(cpu) not in view.cpus:
            raise _UsageError(
                "cpu=%s is none of this map's: %s" % (cpu, " ".join(map(str, view.cpus)))
            )
        try:  # 7.0; before, what other CPUs add meanwhile is lost
            return view.source.update(key, value, flag | BPF_F_CPU | int(cpu) << 32)
        except SyscallError:
            pass
        values = view.source.get(key) or [bytes(view.info.value_size)] * len(view.cpus)
        values[view.cpus.index(int(cpu))], value = value, values
    view.source.push(value, flag) if key is None else view.source.update(key, value, flag)


def _push(options):
    view = options.view("w", None)
    options.take("'value'", "value")
    view.source.push(_data(options.words, view.value, view.info.value_size, "value", view))


def _delete(options):
    view = options.view("w", None)
    key = _key(options, view)
    options.end()
    try:
        view.source.delete(key)
    except KeyNotFound:
        raise _Miss(
            "no such key: %s" % _hex(key), {"error": "delete failed: No such file or directory"}
        ) from None


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


def _create(options):
    path, settings, types = (
        options.take("a path in a bpffs"),
        {},
        {name: one for one, name in _MAP_TYPE_NAMES.items()},
    )
    while options.words:
        word = options.words.pop(0)
        name = next(
            (
                name
                for name in ("type", "key", "value", "entries", "name", "flags", "inner_map")
                if name.startswith(word)
            ),
            word,
        )
        settings[name] = (
            options.view(rest=None).source
            if name == "inner_map"
            else options.take("what follows " + word)
        )
    try:
        number = lambda name: int(settings.pop(name, "0"), 0)
        map_type = settings.pop("type", "")
        sizes = dict(
            key_size=number("key"), value_size=number("value"), max_entries=number("entries")
        )
        made = Map.create(
            types[map_type] if map_type in types else int(map_type, 0),
            flags=number("flags"),
            inner=settings.pop("inner_map", None),
            name=settings.pop("name", ""),
            token=options.token,
            **sizes,
        )
    except ValueError as error:
        raise _UsageError("a map needs a type, sizes and a number of entries: %s" % error) from None
    if settings:
        raise _UsageError("unexpected '%s'" % min(settings))
    made.pin(path)


def _layout(options):
    view = options.view()
    typed = [
        (what, ctype)
        for what, ctype in (("key", view.key), ("value", view.value))
        if ctype is not bytes
    ]
    if options.json:
        return options.put({what: describe_layout(ctype).split("\n") for what, ctype in typed})
    for what, ctype in typed or [("", bytes)]:
        print(
            "%s:\n%s\n\n%s" % (what, describe_layout(ctype), python_source(ctype, what))
            if typed
            else "keys of %d bytes, values of %d; no BTF: %s"
            % (view.info.key_size, view.info.value_size, view.source._no_btf)
        )
    return None


def _save(options):
    view = options.view("r", 1)
    count = capture(view.source, options.take("a file"))
    return options.put({"entries": count}) if options.json else print("%d entries" % count)


def _btf(options):
    what = options.take("offset or layout")
    if what not in ("offset", "layout"):
        raise _UsageError("offset or layout is needed, not '%s'" % what)
    btf, name = (
        BTF.from_file(options.btf) if options.btf else BTF.from_vmlinux(),
        options.take("a type"),
    )
    name += "".join(" " + word for word in options.words)  # "struct task_struct"
    if what == "layout":
        table, source = btf.describe(name), btf.python_source(name)
        return (
            options.put({"layout": table.split("\n"), "python": source.split("\n")})
            if options.json
            else print("%s\n\n%s" % (table, source))
        )
    name, _, path = name.partition(".")
    steps = btf.offsetof(name, path)
    steps = steps if isinstance(steps, tuple) else (steps,)
    if options.json:
        return options.put(
            [{"offset": step, "bit_offset": step.bit_offset, "bits": step.bits} for step in steps]
        )
    return print(
        " -> ".join(
            "%d" % step
            + (
                " bits %d..%d" % (step.bit_offset % 8, step.bit_offset % 8 + step.bits - 1)
                if step.bits
                else ""
            )
            for step in steps
        )
    )


# What people write for a type, a key, a value.

_NAMED_TYPES = {
    "char": ctypes.c_char,
    "bool": ctypes.c_bool,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
}
_NAMED_TYPES.update(
    {
        "%s%d" % (letter, 8 * size): getattr(ctype, "__ctype_%s__" % letter, ctype)
        for letter, ints in (
            ("u", _UNSIGNED_INTS),
            ("s", _SIGNED_INTS),
            ("i", _SIGNED_INTS),
            ("be", _UNSIGNED_INTS),
            ("le", _UNSIGNED_INTS),
        )
        for size, ctype in ints.items()
    }
)


def parse_type(text):
    """Return the ctypes type for "u32", "be16", "char[16]" or "u64 count, u64 last_seen", laid out as in C.

    raises LayoutError for what is no type
    """
    import re

    members = {}
    for field in text.split(","):
        found = re.match(
            r"\s*(\w+)\s*((?:\[\d+\])*)(?:\s+([A-Za-z_]\w*(?<!_)))?\s*((?:\[\d+\])*)\s*\Z",
            field,
            re.ASCII,
        )
        base, near, name, far = found.groups("") if found else [""] * 4
        ctype = _NAMED_TYPES.get(base)
        if not ctype or name in members or not name and "," in text:
            raise LayoutError(
                "'%s' is no type: %s, each with [N], or several with names: \"u32 src, u16 port\""
                % (text, " ".join(_NAMED_TYPES))
            )
        for length in reversed(re.findall(r"\d+", near + far)):
            if max(sizeof(ctype), 1) * int(length) > _MAX_BYTES:
                raise LayoutError("'%s' is too large" % text)
            ctype = ctype * int(length)
        members[name] = ctype
    return members.get("") or type("given", (_BTFStructure,), {"_fields_": list(members.items())})


def _key(options, view):
    """Take "key DATA" and return the bytes."""
    options.take("'key'", "key")
    ends = [at for at, word in enumerate(options.words) if "value".startswith(word)]
    words = options.words[: ends[0] if ends else None]
    del options.words[: len(words)]
    return _data(words, view.key, view.info.key_size, "key", view)


def _data(words, ctype, size, what, view):
    """Return the bytes that DATA stands for: bytes as bpftool takes them, or what the type makes of the text."""
    text = " ".join(words)
    if not words:
        raise _UsageError("a %s of %d bytes is needed" % (what, size))
    try:
        if words[1:] and "hex".startswith(words[0]):
            raw = bytes(int(word, 16) for word in words[1:])
        elif len(words) in (size, max(len(words), 2)) and all(
            word[:1].isdigit() and word.isalnum() for word in words
        ):
            raw = bytes(map(_number, words))
        elif (
            what == "key"
            and view.info.type == BPF_MAP_TYPE_LPM_TRIE
            and set(text) & set(".:")
            and text[0] != "{"
            and "=" not in text
        ):
            raw = lpm_key(text)
        elif text[:1] in ("{", "["):
            import json

            raw = _pack(ctype, size, json.loads(text))
        else:
            raw = _pack(ctype, size, _assignments(text) if "=" in text else text, view.names(what))
    except (ValueError, OverflowError, LayoutError, RecursionError) as error:
        raise _UsageError("%s: %s" % (what, error)) from None
    if len(raw) != size:
        raise _UsageError("the %s has %d bytes, not %d" % (what, size, len(raw)))
    return raw


def _number(word):
    """Return the integer that a word is: 010 is octal, as bpftool's strtoul has it."""
    return int(word, 8 if word.isdecimal() and word[0] == "0" else 0)


def _assignments(text):
    """Return {"addr": {"ip4": "10.0.0.1"}} for "addr.ip4=10.0.0.1"."""
    tree = {}
    for word in text.replace(",", " ").split():
        path, _, value = word.partition("=")
        branch, names = tree, path.split(".")
        for name in names[:-1]:
            branch = branch.setdefault(name, {}) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or names[-1] in branch or "=" not in word:
            raise ValueError("'%s' is no NAME=VALUE, or a second one for the name" % word)
        branch[names[-1]] = value
    return tree


def _pack(ctype, size, given, names=(), what="it"):
    """Return the bytes of a type for plain data: numbers, text, dicts by field, lists; names are those of an enum."""
    if _is_record(ctype) and isinstance(given, dict):
        raw, places, btf = bytearray(size), _places(ctype), getattr(ctype, "_btf_type_", [None])[0]
        for name, one in given.items():
            if name not in places:
                raise ValueError("no field '%s'; there are %s" % (name, ", ".join(places)))
            inner, offset, bits, enum = places[name]
            if bits:
                number = one if isinstance(one, int) else _number(one)
                _Bits(offset, bits, btf.order, number < 0).put(raw, number)
            else:
                raw[offset // 8 : offset // 8 + sizeof(inner)] = _pack(
                    inner, sizeof(inner), one, enum, name
                )
        return bytes(raw)
    if _is_array(ctype) and isinstance(given, list):
        if len(given) != ctype._length_:
            raise ValueError(what + ": %d elements, not %d" % (ctype._length_, len(given)))
        return b"".join(
            _pack(ctype._type_, sizeof(ctype._type_), one, what=what + "[]") for one in given
        )
    if isinstance(given, str):
        raw = _address(given, size)
        if ctype is ctypes.c_char and len(given.encode()) == 1:
            raw = given.encode()
        if raw is None and _is_array(ctype) and ctype._type_ is ctypes.c_char:
            raw = given.encode().ljust(size, b"\0")
            if len(raw) > size:
                raise ValueError("%s: %r has more than %d bytes" % (what, given, size))
        if raw is not None:
            return raw
        numbers = dict(
            {name: number for number, name in dict(names).items()},
            **({"true": 1, "false": 0} if ctype is ctypes.c_bool else {}),
        )
        is_float = _is_scalar(ctype) and ctype._type_ in _FLOAT_CODES
        try:
            given = (
                numbers[given] if given in numbers else float(given) if is_float else _number(given)
            )
        except ValueError:
            known = " and none of " + " ".join(map(str, numbers)) if numbers else ""
            raise ValueError("%s: %r is no number%s" % (what, given, known)) from None
    if ctype is bytes and size in _UNSIGNED_INTS and isinstance(given, int):
        ctype = (_SIGNED_INTS if given < 0 else _UNSIGNED_INTS)[size]
    if not _is_scalar(ctype):
        raise ValueError("%s: %r does not say what its %d bytes are" % (what, given, size))
    return bytes(_to_ctype(u8 if ctype is ctypes.c_char else ctype, size, given, what))


def _places(ctype):
    """Return {field: (its ctype, bit offset, bits if it is none of a ctype, {number: name} of an enum)} of a record."""
    btf, type_id = getattr(ctype, "_btf_type_", (None, None))
    if not btf:
        return {field.name: (field.type, 8 * field.offset, 0, ()) for field in _fields(ctype)}
    places = {}
    for name, member, offset, bits in btf._parts(btf._resolve(type_id)):
        inner = btf._resolve(member)
        odd = bits or (
            8 * inner.size if inner.kind == BTF_KIND_INT and inner.size not in _UNSIGNED_INTS else 0
        )
        places[name] = (
            btf._ctype(inner),
            offset,
            odd,
            btf.enumerators(inner) if inner.kind in _ENUMS else (),
        )
    return places


def _address(text, size):
    """Return the bytes of an IPv4, IPv6 or MAC address that has this size, None if text is none."""
    import socket

    if size == 6 and text.count(":") == 5:
        return bytes(int(part, 16) for part in text.split(":"))
    if not (size == 4 and text.count(".") == 3 or size == 16 and text.count(":") > 1):
        return None
    try:
        return socket.inet_pton(socket.AF_INET if size == 4 else socket.AF_INET6, text)
    except OSError:
        raise ValueError("'%s' is no address" % text) from None


# Live views.


def _watch(options):
    import signal
    import threading
    import time

    view, once, interval, before, then = options.view(rest=None), options.once, 1.0, {}, 0.0
    while options.words:
        word = options.words.pop(0)
        if word == "once":
            once = True
        elif (
            word == "interval"
            and options.words
            and options.words[0].replace(".", "", 1).isdecimal()
        ):
            interval = float(options.words.pop(0))
        else:
            raise _UsageError("once, or interval SECONDS, not '%s'" % word)
    live = sys.stdout.isatty() and not once
    leave = "\033[?25h\033[?1049l" if live else ""

    def killed(number, _):
        signal.signal(number, signal.SIG_DFL)
        try:
            os.write(sys.stdout.fileno(), leave.encode())
        finally:  # the terminal may be gone
            os.kill(os.getpid(), number)

    caught = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        if live
        and signal.getsignal(number) == signal.SIG_DFL
        and get_ident() == threading.main_thread().ident
    ]
    try:
        for number in caught:
            signal.signal(number, killed)
        sys.stdout.write("\033[?1049h\033[?25l" if live else "")  # a screen of its own, no cursor
        while True:
            now, rows = time.time(), _samples(view)
            if then or live:
                lines = _watch_lines(view, rows, before, now - then, live)
                sys.stdout.write(
                    "\033[H%s\033[J" % "\033[K\n".join(lines) if live else "\n".join(lines) + "\n"
                )
                sys.stdout.flush()
                if once:
                    return
            before, then = rows, now
            time.sleep(interval)
    finally:
        sys.stdout.write(leave)
        sys.stdout.flush()
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _samples(view):
    """Return {key: (its text, the value's text, {path: number})}, a value's CPUs added up."""
    rows = {}
    for key, value in view.entries():
        totals, per_cpu = {}, value if isinstance(value, list) else [value]
        for one in per_cpu if view.value is not bytes else ():
            for path, leaf in _leaves(view.plain(one, "value")):
                if type(leaf) is int:
                    totals[path] = totals.get(path, 0) + leaf
        text = (
            _words({path or "sum": number for path, number in totals.items()})
            if per_cpu is value and totals
            else " ".join(view.words(value))
        )
        rows[key] = _words(view.plain(key, "key"), view.key), text, totals
    return rows


def _watch_lines(view, rows, before, seconds, live):
    """Return the lines of a screen: the entries by how fast they change, those that did marked."""
    import shutil

    columns, height = 1 << 16, len(rows) + 2
    if live:  # a size of 0 is none
        columns, height = [
            told or usual for told, usual in zip(shutil.get_terminal_size(), (80, 24))
        ]
    bold, plain = ("\033[1m", "\033[0m") if live and not os.environ.get("NO_COLOR") else ("", "")
    sorted_rows = []
    for key, (shown, text, totals) in rows.items():
        old = before[key][2] if key in before else {}
        rates = [
            (path, (number - old[path]) / seconds) for path, number in totals.items() if path in old
        ]
        same = key in before and before[key][1] == text or not before
        sorted_rows.append(
            (
                -sum(abs(rate) for _, rate in rates),
                same,
                shown,
                text,
                "  ".join(
                    "%s%+.6g/s" % (path and path + " ", rate) for path, rate in rates if rate
                ),
            )
        )
    sorted_rows.sort()
    width = min(max([len(row[2]) for row in sorted_rows] or [0]), columns // 2)
    lines = [("%s: %d entries" % (view.info._about, len(rows)))[:columns]]
    for _, same, shown, text, rates in sorted_rows[: height - 1]:
        line = ("%s %-*s  %s  %s" % (" " if same else "*", width, shown, text, rates)).rstrip()[
            :columns
        ]
        lines.append(line if same else bold + line + plain)
    if len(sorted_rows) > height - 1:
        lines[-1] = "... %d more" % (len(sorted_rows) - height + 2)
    return lines


def _hist(options):
    view, groups = options.view(rest=None), {}
    linear = options.words[:1] == ["linear"]
    options.end(int(linear))
    for key, value in view.entries():
        slots = list(_leaves(view.plain(key, "key")))
        numbers = [
            leaf
            for one in (value if isinstance(value, list) else [value])
            for _, leaf in _leaves(view.plain(one, "value"))
            if type(leaf) is int
        ]
        if (
            len(numbers) != (len(value) if isinstance(value, list) else 1)
            or not slots
            or type(slots[-1][1]) is not int
        ):
            raise _UsageError(
                "a histogram needs a number as the key's last field and one number as the value; "
                "--key-type and --value-type can say so"
            )
        counts = groups.setdefault(
            " ".join("%s=%s" % (path, _words(leaf)) for path, leaf in slots[:-1]), {}
        )
        counts[slots[-1][1]] = counts.get(slots[-1][1], 0) + sum(numbers)
    if options.json:
        return options.put([{"key": prefix, "slots": counts} for prefix, counts in groups.items()])
    for prefix, counts in sorted(groups.items()):
        print("\n".join(([prefix] if prefix else []) + histogram(counts, linear)))
    return None


def histogram(counts, linear=False, width=40):
    """Return the lines of a histogram of {slot: count}: slot n is 2^(n-1) .. 2^n - 1 (1: 0 and 1) or, if linear, n."""
    used = [slot for slot, count in counts.items() if count]
    if not used:
        return ["no samples"]
    if (
        min(used) < 0
        or max(used) - min(used) > (1 << 12 if linear else 64)
        or max(used) > 64
        and not linear
    ):
        hint = "" if linear else " for log2 (linear?)"
        raise ValueError("slots %d to %d are too many%s" % (min(used), max(used), hint))
    top, rows = max(counts[slot] for slot in used), [("value", "count", "distribution")]
    for slot in range(min(used), max(used) + 1):
        label = (
            str(slot)
            if linear
            else "%d -> %d" % (1 << slot >> 1 if slot > 1 else 0, (1 << slot) - 1)
        )
        rows.append(
            (
                label,
                counts.get(slot, 0),
                "|%-*s|" % (width, "*" * (counts.get(slot, 0) * width // top)),
            )
        )
    return [
        "%*s : %-*s %s" % (max(16, len(label)), row[0], max(8, len(str(top))), row[1], row[2])
        for row in rows
    ]


def _probe(options):
    options.end()
    token = options.token
    checks = [
        (
            "Linux",
            lambda: (
                "%s on %s, Python %s"
                % (os.uname().release, os.uname().machine, sys.version.split()[0])
            ),
        ),
        ("bpf(2)", lambda: "number %d" % syscall_number()),
        ("possible CPUs", lambda: " ".join(map(str, possible_cpus()))),
        ("maps and programs by id", lambda: "%d maps" % sum(1 for _ in maps())),
        ("the kernel's BTF", lambda: "%d types" % BTF.from_vmlinux().count),
        (
            "batches, exact scans",
            lambda: _probe_map(token, BPF_MAP_TYPE_HASH, lambda m: m.exact_scan),
        ),
        ("freeze", lambda: _probe_map(token, BPF_MAP_TYPE_ARRAY, lambda m: m.freeze())),
        (
            "mapped arrays",
            lambda: _probe_map(
                token, BPF_MAP_TYPE_ARRAY, lambda m: m.mmap().close(), BPF_F_MMAPABLE
            ),
        ),
        ("BPF tokens", _probe_token),
    ]
    checks += [
        (name, lambda bit=bit: _capability(bit))
        for name, bit in (
            ("CAP_BPF", _CAP_BPF),
            ("CAP_PERFMON", 38),
            ("CAP_NET_ADMIN", _CAP_NET_ADMIN),
            ("CAP_SYS_ADMIN", _CAP_SYS_ADMIN),
        )
    ]
    checks += [
        ("map type " + name, lambda map_type=map_type: _probe_map(token, map_type, lambda m: None))
        for map_type, name in sorted(_MAP_TYPE_NAMES.items())
    ]
    checks.insert(3, ("RLIMIT_MEMLOCK", lambda: "%s bytes; charged before Linux 5.11" % _memlock()))
    rows = [(what,) + _outcome(check) for what, check in checks]
    rows = [
        (what, there, text or ("" if there else "not held by this process"))
        for what, there, text in rows
    ]
    setting = _read_text("/proc/sys/kernel/unprivileged_bpf_disabled").strip()
    mounts = _bpffs_mounts()
    rows[3:3] = [
        ("initial user namespace", not _in_user_namespace(), "capabilities count only there"),
        (
            "unprivileged bpf(2)",
            setting == "0",
            "kernel.unprivileged_bpf_disabled: " + (setting or "unknown"),
        ),
        (
            "bpffs",
            bool(mounts),
            " ".join(mounts) or "none is mounted (mount -t bpf bpf /sys/fs/bpf)",
        ),
    ]
    if options.json:
        return options.put(
            [{"what": what, "available": there, "detail": text} for what, there, text in rows]
        )
    for what, there, text in rows:
        print(("%-3s  %-32s %s" % ("yes" if there else "no", what, text)).rstrip())
    return None


def _memlock():
    import resource

    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else soft


def _outcome(check):
    """Return (whether, detail) of a check, which returns one of the two or fails."""
    try:
        found = check()
        return (found, "") if isinstance(found, bool) else (True, str(found or ""))
    except (BPFError, OSError, ValueError, KeyError, ImportError) as failure:
        return False, str(failure)


def _probe_token():
    """Ask for a token of no bpffs, which is EBADF where the command is known (6.9)."""
    attr = bpf_attr()
    attr.token_create.bpffs_fd = 0xFFFFFFFF
    try:
        _bpf(BPF_TOKEN_CREATE, attr)
    except BadFileDescriptor:
        return True


def _probe_map(token, map_type, check, flags=0):
    """Make the smallest map of a type and return what check makes of it."""
    if (
        map_type == BPF_MAP_TYPE_STRUCT_OPS
    ):  # of the kernel's type 1, which is none for it: ENOTSUPP if known
        attr = bpf_attr()
        attr.map_create.map_type, attr.map_create.btf_vmlinux_value_type_id = map_type, 1
        attr.map_create.key_size = attr.map_create.value_size = 4
        attr.map_create.max_entries = 1
        try:
            _bpf(BPF_MAP_CREATE, attr, "", _size_up_to("map_create", "btf_vmlinux_value_type_id"))
        except NotSupported:
            return True
    key_size, value_size, entries, flags = {
        BPF_MAP_TYPE_LPM_TRIE: (8, 4, 1, BPF_F_NO_PREALLOC),
        BPF_MAP_TYPE_RHASH: (4, 4, 1, BPF_F_NO_PREALLOC),
        BPF_MAP_TYPE_STACK_TRACE: (4, 8, 1, 0),
        BPF_MAP_TYPE_INSN_ARRAY: (4, 16, 1, 0),
        BPF_MAP_TYPE_ARENA: (0, 0, 1, BPF_F_MMAPABLE),
        BPF_MAP_TYPE_CGROUP_STORAGE: (16, 4, 0, 0),
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: (16, 4, 0, 0),
        BPF_MAP_TYPE_RINGBUF: (0, 0, 4096, 0),
        BPF_MAP_TYPE_USER_RINGBUF: (0, 0, 4096, 0),
    }.get(
        map_type,
        (
            0 if map_type in _KEYLESS_TYPES else 4,
            4,
            0 if map_type in _FD_KEY_TYPES else 1,
            flags | (BPF_F_NO_PREALLOC if map_type in _FD_KEY_TYPES else 0),
        ),
    )
    of_maps = map_type in _OF_MAPS_TYPES
    inner = Map.create(BPF_MAP_TYPE_ARRAY, u32, u32, token=token) if of_maps else None
    btf = _int_btf(token) if map_type in _FD_KEY_TYPES else None
    with Map.create(
        map_type,
        None,
        None,
        entries,
        key_size=key_size,
        value_size=value_size,
        flags=flags,
        inner=inner,
        btf=btf,
        btf_key=btf and 1,
        btf_value=btf and 1,
        token=token,
    ) as m:
        return check(m)


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
    """Return a socket filter that adds each packet to flows[ports] and to total[0], and lets it pass."""
    fp = 10
    ports, zeros = (
        _insn(0xBF, 2, fp) + _insn(0x07, 2, 0, 0, -4),
        _insn(0xBF, 3, fp) + _insn(0x07, 3, 0, 0, -24),
    )
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
    """Load a socket filter; return its _Fd.  What the verifier says, if it refuses, is the error's hint."""
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
    import socket

    options.end()
    try:
        flows = Map.create(
            BPF_MAP_TYPE_HASH, _Ports, _Traffic, 16, name="demo_flows", token=options.token
        )
    except PermissionDenied as error:
        return _complain(
            None,
            "the demo makes a map of its own, and may not: %s; run it as root (sudo python3 "
            "bpflookup.py demo), or in a container started with --cap-add BPF" % error,
            1,
        )
    with flows, Map.create(
        BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, 1, name="demo_total", token=options.token
    ) as total, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as sender:
        print("created  %r\n         %r" % (flows, total))
        receiver.bind(("127.0.0.1", 0))
        sender.bind(("127.0.0.1", 0))
        ports = _Ports(sender.getsockname()[1], receiver.getsockname()[1])
        sizes = [10, 20, 30]
        try:
            program = _load_program(_counting_program(flows.fd, total.fd), "demo")
            receiver.setsockopt(socket.SOL_SOCKET, 50, program.number)  # SO_ATTACH_BPF
            for size in sizes:
                sender.sendto(bytes(size), receiver.getsockname())
                receiver.settimeout(5)
                receiver.recv(100)
            print(
                "kernel   a socket filter counted %d datagrams from port %d to %d"
                % (len(sizes), ports.source, ports.destination)
            )
        except OSError as error:
            print("no kernel program here: %s\nso the values are written from user space" % error)
            flows[ports] = _Traffic(len(sizes), sum(sizes) + 8 * len(sizes))
            total[0] = [len(sizes)] + [0] * (len(possible_cpus()) - 1)
        found = flows[ports]
        print("hit      flows[%s] -> %s" % (to_json(ports), to_json(found)))
        try:
            flows[_Ports(1, 1)]
        except KeyNotFound as error:
            print("miss     %s" % error)
        try:
            Map.from_fd(
                flows,
                _Ports,
                type("TooSmall", (ctypes.Structure,), {"_fields_": [("packets", u64)]}),
            )
        except LayoutError as error:
            print("misfit   %s" % str(error).replace("\n", "\n         "))
        per_cpu = total[0]
        print(
            "per CPU  total[0] -> %s"
            % ", ".join("cpu %d: %d" % pair for pair in zip(possible_cpus(), per_cpu))
        )
        # 8 bytes of UDP header before each datagram's own
        right = (found.packets, found.bytes, sum(per_cpu)) == (3, sum(sizes) + 24, 3)
        print("the counts are right" if right else "the counts are wrong")
        return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

# MIT License
#
# Copyright (c) 2026 the bpflookup authors
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
# documentation files (the "Software"), to deal in the Software without restriction, including without limitation
# the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and
# to permit persons to whom the Software is furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all copies or substantial portions of
# the Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
# THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
# AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
# CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS
# IN THE SOFTWARE.
