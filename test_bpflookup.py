"""Tests of bpflookup: the sections of the module in their order, then the file as such, README, Bench.

How to find a test: grep '^# ---- ' for the sections, '^# -- ' for the questions inside them.  A test's name says
what must hold.  What several sections use stands at the head, in groups: time limits, what a test needs, programs
that are run, the command line, maps, the kernel and stand-ins for it, processes with fewer rights, programs of BPF,
BTF put together by hand.  What one section or one question uses stands at its head, what one test uses before it.

How to write one:
- @kernel, where it uses the real bpf(2): without the right to create maps it is skipped.  What else may be missing
  is asked for by program(), created(), since(), lacking() and the like.  With BPFLOOKUP_KERNEL=1 all these skips are
  failures.
- @once, where it is long and the same on every Python.  @pytest.mark.bench, where it measures: not run by default.
- A map is made by Map.create(); by created(), where kernels lack the type; the usual ones are the fixtures flows and
  numbers.  The tests run in parallel, beside other runs on the same kernel: a name of a map has RUN in it.
- The command line runs by main() in this process; done() and refused() check its status.  command() starts a process.
- A witness is something else than the module: bpftool, a compiler, the kernel by bpf_call(), plain Python.  Private
  names of the module stand only in tests of just them.
"""

import base64
import collections
import contextlib
import copy
import ctypes
import doctest
import errno
import fcntl
import functools
import gc
import glob
import hashlib
import inspect
import io
import itertools
import json
import keyword
import math
import os
import pickle
import pty
import pwd
import random
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import textwrap
import threading
import time
import tracemalloc
import zipapp
from unittest import mock

import pytest

import bpflookup as bpf
from bpflookup import BTF, Map

u8, u16, u32, u64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
MODULE = os.path.abspath(bpf.__file__)
HERE = os.path.dirname(MODULE)
BPFFS = "/sys/fs/bpf"
STRICT = os.environ.get("BPFLOOKUP_KERNEL") == "1"
KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
LONG_MASK = (1 << 8 * ctypes.sizeof(ctypes.c_long)) - 1
PAGE = os.sysconf("SC_PAGESIZE")  # 64 KiB on some ppc64le and arm64
# Map names are one space for the whole kernel, where other runs of these tests may be under way,
# in containers whose process numbers are the same.
RUN = random.SystemRandom().randrange(10**6, 10**7)
FLOWS, NUMS, CLI, CLI_CPU, LONG = [
    "%s_%d" % (name, RUN) for name in ("flow", "nums", "cli", "cpu", "long")
]

for _number_of, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    # a shell's background job, nohup: as would be every child
    if signal.getsignal(_number_of) == signal.SIG_IGN:
        signal.signal(_number_of, _usual)


# Seconds that a test may take, generously; those of the benchmarks, and those that try as often as they are told to.
PATIENCE, LONG_PATIENCE = 120, 7200


# -- a time limit for each test


def children_of(pid):
    """Return the ids of a process's children, and theirs."""
    found = []
    for path in glob.glob("/proc/%d/task/*/children" % pid):
        try:
            with open(path) as file:
                for child in map(int, file.read().split()):
                    found += [child] + children_of(child)
        except OSError:  # it has ended
            pass
    return found


@contextlib.contextmanager
def over_within(seconds, name):
    """Fail what is not over by then, by its name, wherever it waits; its children are killed."""

    def fail(*_):
        for child in children_of(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        pytest.fail("%s was not over within %g seconds" % (name, seconds))

    handler = signal.signal(signal.SIGALRM, fail)
    before = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, before)
        signal.signal(signal.SIGALRM, handler)


def leave_out_of_collections():
    """Leave all objects that there are out of later garbage collections: open_fds() asks for many."""
    gc.collect()
    if hasattr(gc, "freeze"):  # 3.7
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _quick_collections():
    """Collect garbage without a look at what pytest has made."""
    leave_out_of_collections()


@pytest.fixture(autouse=True)
def _no_test_hangs(request):
    """Put a time limit on every test."""
    is_long = request.node.get_closest_marker("bench") or "BPFLOOKUP_FUZZ" in os.environ
    with over_within(LONG_PATIENCE if is_long else PATIENCE, request.node.nodeid):
        yield


# -- what a test needs, and what is said where it is missing


def lacking(what):
    """Skip the test for want of something, or fail it where nothing may be wanting."""
    (pytest.fail if STRICT else pytest.skip)("%s is needed" % what)


@pytest.fixture(scope="session")
def right_to_create():
    """Why this process may not create maps, or None if it may."""
    try:
        Map.create(bpf.BPF_MAP_TYPE_ARRAY, u32, u32).close()
    except bpf.BPFError as error:
        return str(error)
    return None


@pytest.fixture
def _kernel(right_to_create):
    """Skip the test where maps may not be created: see kernel."""
    if right_to_create is not None:
        lacking("the right to create BPF maps (%s)" % right_to_create)


kernel = pytest.mark.usefixtures("_kernel")

# Long, and the same on every Python: .ci/run has them run on two of all that there are.
once = pytest.mark.once


def since(*release):
    """Skip the test on a kernel older than what it is about."""
    if release > KERNEL:
        lacking("Linux %d.%d" % release)


def bpf_is_for_the_privileged():
    """Return whether nothing of bpf(2), not even a lookup, is left to processes without CAP_BPF."""
    with open("/proc/sys/kernel/unprivileged_bpf_disabled") as file:
        return KERNEL < (5, 19) and file.read().strip() != "0"


def program(name):
    """Return the path of a program; skip the test where it is missing."""
    if shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
        lacking(name)
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def bpftool_can(err):
    """Skip the test where bpftool's own words tell that it lacks something."""
    for words, what in (
        ("BTF is required, but is missing or corrupted", "a bpftool as new as clang's types"),
        ("cpu mask file", "/sys for bpftool"),
    ):
        if words in err:
            lacking("%s (%s)" % (what, err.strip()))


def ipv6():
    """Skip the test on a Python built without IPv6, whose inet_pton has none."""
    try:
        socket.inet_pton(socket.AF_INET6, "::")
    except OSError:
        lacking("a Python with IPv6")


def loopback():
    """Skip the test where datagrams do not come back: a new network namespace, a machine that has not set it up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("127.0.0.1", 9))
        except OSError as error:
            lacking("a loopback device that is up (%s)" % error)


def user_called_root():
    """Skip the test where user 0 has no name: a container without /etc/passwd."""
    try:
        assert pwd.getpwuid(0).pw_name == "root"
    except KeyError:
        lacking("a user called root")


# -- programs that are run


def run(*words, **options):
    """Run a program; return (status, stdout, stderr)."""
    options.setdefault("timeout", 60)
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        errors="surrogateescape",
        **options,
    )
    return done.returncode, done.stdout, done.stderr


def importing(environment=os.environ):
    """Return an environment in which the module is found, and compiled once for all."""
    found = dict(environment, PYTHONPATH=HERE)
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def python(source, *arguments, **options):
    """Run a piece of Python that imports the module; return (status, stdout, stderr)."""
    options.setdefault("env", importing())
    return run(sys.executable, "-W", "error", "-c", textwrap.dedent(source), *arguments, **options)


def bpftool(*words):
    """Return what bpftool answers in JSON."""
    status, out, err = run(program("bpftool"), "-j", *words)
    bpftool_can(err)
    assert status == 0, out + err
    return json.loads(out) if out else None


def listed_bytes(listed):
    """Return the bytes that bpftool's JSON lists as ["0x0a", ...]."""
    return bytes(int(byte, 16) for byte in listed)


def straced(calls, source, *arguments, options=(), **more):
    """Run a piece of Python under strace, which writes such calls to stderr; return (status, stdout, stderr)."""
    words = ["-f", "-e", "trace=" + calls, *options, sys.executable, "-S", "-c"]
    more.setdefault("env", importing())
    return run(program("strace"), *words, textwrap.dedent(source), *arguments, **more)


def compiled(tmp_path, source):
    """Compile and run a C program; return what it prints."""
    (tmp_path / "witness.c").write_text(source)
    status, _, err = run(program("gcc"), "-w", "-o", tmp_path / "witness", tmp_path / "witness.c")
    assert status == 0, err
    return run(tmp_path / "witness")[1]


def bpf_object(directory, name, source, target="bpf"):
    """Compile C for BPF with type information; return the object's path."""
    text, made = directory / (name + ".c"), directory / (name + ".o")
    text.write_text(source)
    options = ["-O2", "-g", "-w", "-target", target]
    status, _, err = run(program("clang"), *options, "-c", text, "-o", made)
    if status and "unknown" in err and target != "bpf":
        lacking("a clang with the target %s and its attributes" % target)
    assert status == 0, err
    return made


@pytest.fixture(scope="session")
def vmlinux_h(tmp_path_factory):
    """The running kernel's own declarations, as bpftool writes them."""
    status, out, err = run(
        program("bpftool"), "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"
    )
    if status:
        lacking("BTF of the kernel (%s)" % err.strip())
    path = tmp_path_factory.mktemp("c") / "vmlinux.h"
    path.write_text(out)
    return str(path)


@pytest.fixture(scope="session")
def vmlinux():
    """The running kernel's own BTF."""
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        lacking("BTF of the kernel")
    return BTF.from_vmlinux()


def in_a_terminal(words, until=b"$.", keys=b"", meanwhile=lambda: None, **environment):
    """Run it in a terminal of 8 x 50 until a pattern appears, type keys or send a signal; return (status, output)."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("=4H", 8, 50, 0, 0))
        os.execve(
            sys.executable,
            [sys.executable, "-m", "bpflookup"] + list(map(str, words)),
            dict(
                {k: v for k, v in importing().items() if k not in ("LINES", "COLUMNS")},
                **environment,
            ),
        )
    before, text, end = termios.tcgetattr(terminal), bytearray(), time.time() + 60
    while time.time() < end:
        meanwhile()
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                text += os.read(terminal, 1 << 16)
            except OSError:  # the other end is closed
                break
        if keys and re.search(until, bytes(text), re.S):
            assert termios.tcgetattr(terminal) == before
            if isinstance(keys, int):
                os.kill(pid, keys)
            else:
                os.write(terminal, keys)
            keys = b""
    os.close(terminal)
    return os.waitpid(pid, 0)[1], text.decode().replace("\r\n", "\n")


# -- the command line


def command(*words, **options):
    """Run the command line in a process of its own; return (status, stdout, stderr)."""
    options["env"] = importing(options.get("env", os.environ))
    return run(sys.executable, "-W", "error", "-m", "bpflookup", *words, **options)


def main(*words):
    """Run it in this process; return (status, stdout, stderr)."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = bpf.main([str(word) for word in words])
        sys.stdout.flush()
    return status, out.buffer.getvalue().decode(), err.getvalue()


def done(*words):
    """Return what it prints when all goes well."""
    status, out, err = main(*words)
    assert (status, err) == (0, ""), (words, status, out, err)
    return out


def refused(*words):
    """Return what it says of a line that makes no sense: in one line."""
    status, out, err = main(*words)
    assert (status, out, err[:11], err.count("\n")) == (2, "", "bpflookup: ", 1), (words, err)
    return err


def equal_json(*words, **more):
    """Check that our JSON is bpftool's for the same words, and failure its failure; return it."""
    words = [more.get("option", "-j"), "map"] + [str(word) for word in words]
    return alike(words, main(*words), run(program("bpftool"), *words))


def alike(words, ours, theirs):
    """Check that two answers, (status, stdout, stderr), are the same to a script; return ours, decoded."""
    if theirs[0] < 0:
        lacking("a bpftool that survives %s" % " ".join(words))
    bpftool_can(theirs[2])
    found, told = [
        json.loads(answer[1]) if answer[1].strip() else None for answer in (ours, theirs)
    ]
    assert ours[0] in (0, 1, 2) and (ours[0] == 0) == (theirs[0] == 0), (words, ours, theirs)
    if isinstance(told, dict):
        told.pop("pids", None)  # of a bpftool built with skeletons
    for entry, other in zip(
        *[answer if isinstance(answer, list) else [answer] for answer in (found, told)]
    ):
        # from bpftool 7.5 on; the value says it too
        if isinstance(entry, dict) and "inner_map_id" in entry:
            value = listed_bytes(entry["value"])
            assert (
                other.setdefault("inner_map_id", int.from_bytes(value, sys.byteorder))
                == entry["inner_map_id"]
            )
    # the words of errors are its own; half a dump is one too
    if ours[0] and "error" in (found or ()):
        assert told in (None, []) or "error" in told, (words, ours, theirs)
    else:
        assert found == told, words
    return found


# -- maps

HASH = bpf.BPF_MAP_TYPE_HASH
ARRAY = bpf.BPF_MAP_TYPE_ARRAY
QUEUE = bpf.BPF_MAP_TYPE_QUEUE
LPM = bpf.BPF_MAP_TYPE_LPM_TRIE
PERCPU_HASH, PERCPU_ARRAY = bpf.BPF_MAP_TYPE_PERCPU_HASH, bpf.BPF_MAP_TYPE_PERCPU_ARRAY
RINGBUF, USER_RINGBUF = bpf.BPF_MAP_TYPE_RINGBUF, bpf.BPF_MAP_TYPE_USER_RINGBUF

LOOKUP = bpf.BPF_MAP_LOOKUP_ELEM
UPDATE = bpf.BPF_MAP_UPDATE_ELEM
DELETE = bpf.BPF_MAP_DELETE_ELEM
NEXT = bpf.BPF_MAP_GET_NEXT_KEY

# types that came after 5.10, and those that a kernel may be built without, or without a JIT for
SINCE = {
    "bloom_filter": (5, 16),
    "user_ringbuf": (6, 1),
    "cgrp_storage": (6, 2),
    "arena": (6, 9),
    "task_storage": (5, 11),
}
OPTIONAL = ("arena", "inode_storage", "task_storage", "struct_ops", "xskmap")


def created(map_type, *arguments, **options):
    """Create a map; skip the test where the kernel has no such maps."""
    try:
        return Map.create(map_type, *arguments, **options)
    # no memory: as with storages, see fill
    except (bpf.InvalidArgument, bpf.NotSupported, bpf.OutOfMemory):
        name = bpf.map_type_name(map_type)
        if name not in OPTIONAL and SINCE.get(name, (0,)) <= KERNEL:
            raise
        return lacking("a kernel with maps of type %s" % name)


@pytest.fixture
def bpffs():
    """A directory for pins."""
    if not os.path.ismount(BPFFS):
        status, _, err = run(program("mount"), "-t", "bpf", "bpf", BPFFS)
        if status:
            lacking("a bpffs (%s)" % err.strip())
    path = os.path.join(BPFFS, "bpflookup-test-%d" % RUN)
    os.mkdir(path)
    yield path
    shutil.rmtree(path)


class Key(ctypes.Structure):
    """The key of flows: 8 bytes without a hole."""

    _fields_ = [("src", u32), ("port", u16), ("proto", u8), ("flags", u8)]


class Value(ctypes.Structure):
    """The value of flows, and of many maps here."""

    _fields_ = [("packets", u64), ("bytes", u64)]


class Natural(ctypes.Structure):
    """A structure with holes, laid out as a compiler does it."""

    _fields_ = [("kind", u8), ("address", u32), ("name", ctypes.c_char * 3)]


@pytest.fixture
def flows():
    """A hash of four Key -> Value."""
    with Map.create(HASH, Key, Value, 4, name=FLOWS) as m:
        yield m


@pytest.fixture
def numbers():
    """A hash of four u32 -> u64."""
    with Map.create(HASH, u32, u64, 4, name=NUMS) as m:
        yield m


def pages(value=u64, entries=4, **options):
    """Create an array that can be mapped into memory."""
    return Map.create(ARRAY, u32, value, entries, flags=bpf.BPF_F_MMAPABLE, **options)


def raw_key(ctype, given):
    """Return the bytes of a key, given as a number or as an object."""
    return bytes(ctype(given)) if isinstance(given, int) else bytes(given)


def native(number, size=8):
    """Return the bytes of a number as this machine stores it."""
    return number.to_bytes(size, sys.byteorder, signed=number < 0)


def in_hex(raw):
    """Return bytes as the command line prints and takes them: 0a 1b."""
    return " ".join("%02x" % byte for byte in raw)


# -- the kernel, and stand-ins for it


def syscall(*arguments):
    """Make a system call by the C library; return its result or raise OSError."""
    result = ctypes.CDLL(None, use_errno=True).syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def bpf_call(cmd, attr, size=None):
    """Call bpf(2) without the module; return its result or raise OSError."""
    return syscall(bpf.syscall_number(), cmd, ctypes.byref(attr), size or ctypes.sizeof(attr))


class Descriptor:
    """A file descriptor that is closed when nothing refers to it."""

    def __init__(self, number):
        self.number = number

    def __del__(self, close=os.close):
        close(self.number)

    def fileno(self):
        return self.number


def obj_get(path):
    """Return a descriptor of what is pinned there."""
    text, attr = ctypes.create_string_buffer(path.encode()), bpf.bpf_attr()
    attr.obj.pathname = ctypes.addressof(text)
    return Descriptor(bpf_call(bpf.BPF_OBJ_GET, attr))


def fdinfo(number):
    """Return what the kernel says of a descriptor, {name: value}."""
    with open("/proc/self/fdinfo/%d" % number) as file:
        return dict(line.split(":", 1) for line in file if ":" in line)


def real_kernel(number, cmd, ref, size, *common):
    """Return what bpf(2) does, with -errno instead of -1."""
    kept = []
    bpf._libc_syscall_into(kept, number, cmd, ref, size, *common)
    return kept[0] if kept[0] != -1 else -kept[1]


@pytest.fixture
def kernel_is(monkeypatch):
    """Have a function of (number, cmd, ref, size) answer for the kernel: a result, or -errno."""

    def replace(fake):
        def syscall_into(kept, *words):
            result = fake(*words)
            kept.extend((result, 0) if result >= 0 else (-1, -result))

        monkeypatch.setattr(bpf, "_syscall", lambda *words: max(0, -fake(*words)))
        monkeypatch.setattr(bpf, "_syscall_into", syscall_into)

    return replace


def fake_sys(monkeypatch, text):
    """Have the file of possible CPUs in /sys say so, or be missing ("")."""
    real = bpf._read_text
    monkeypatch.setattr(
        bpf, "_read_text", lambda path: text if path.endswith("cpu/possible") else real(path)
    )


def ask_the_machine_anew(monkeypatch):
    """Have the module forget the names and times of this machine that it knows already."""
    monkeypatch.setattr(bpf, "_this_machine", bpf._Machine())


def kernel_symbols(programs=False):
    """Return (address, name) of the kernel's symbols, with BPF programs' only where asked: they come and go."""
    with open("/proc/kallsyms") as file:
        found = [line.split() for line in file]
    return [
        (int(words[0], 16), words[2])
        for words in found
        if int(words[0], 16) and (programs or words[3:] != ["[bpf]"])
    ]


def at_boot():
    """Nanoseconds since 1970 at boot."""
    return int((time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)) * 10**9)


def mounted(kind):
    """Return the fields of /proc/self/mounts, of what is mounted of a kind of file system."""
    with open("/proc/self/mounts") as file:
        return [line.split() for line in file if line.split()[2] == kind]


def open_fds():
    """Return the descriptors that this process has, what only garbage holds left out."""
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


def resident(field="VmRSS"):
    """Return the bytes of memory that this process has; VmHWM: the most that it ever had."""
    if not os.path.exists("/proc/self/status"):
        lacking("/proc")
    with open("/proc/self/status") as file:
        return int(file.read().split(field + ":")[1].split()[0]) << 10


def within(seconds, function, *arguments):
    """Return what a function does in that time of the CPU, in the best of three tries: machines have other work too."""
    for _ in range(3):
        start = time.process_time()
        result = function(*arguments)
        took = time.process_time() - start
        if took < seconds:
            return result
    pytest.fail("it took %.2f s" % took)


# -- a process with fewer rights


def in_a_child(become, source, names):
    """Run a piece of Python in a child that first calls become; return what it prints."""
    for module in (
        "array",
        "base64",
        "fcntl",
        "hashlib",
        "json",
        "mmap",
        "resource",
        "socket",
        "traceback",
        "weakref",
    ):
        __import__(module)  # the library may lie where nobody may not read
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            sys.stdout = sys.stderr = os.fdopen(writer, "w")
            become()
            bpf._proven_cpus = None
            exec(textwrap.dedent(source), dict(names, bpf=bpf, os=os, u32=u32, u64=u64))
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, text
    return text


def as_nobody(source, keeps=(), **names):
    """Run a piece of Python in a child without capabilities but those it keeps; return what it prints."""

    def become():
        os.setgroups([])
        os.setgid(65534)
        libc, bits = ctypes.CDLL(None, use_errno=True), sum(1 << number for number in keeps)
        assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
        os.setuid(65534)
        words = [word for half in (bits & 0xFFFFFFFF, bits >> 32) for word in (half, half, 0)]
        assert libc.capset((u32 * 2)(0x20080522, 0), (u32 * 6)(*words)) == 0

    return in_a_child(become, source, names)


FSOPEN, FSCONFIG, FSMOUNT, MOVE_MOUNT = 430, 431, 432, 429
MAKE_AND_ASK = 1 << bpf.BPF_MAP_CREATE | 1 << bpf.BPF_BTF_LOAD | 1 << bpf.BPF_BTF_GET_FD_BY_ID


def in_user_namespace(source, cmds=MAKE_AND_ASK, map_types=1 << HASH, **names):
    """Run a piece of Python as root of a user namespace, with path, a bpffs that delegates to it; return its output.

    As container managers do it: the namespace opens the filesystem, root outside sets what is delegated (6.9).
    """
    import array

    path = tempfile.mkdtemp()
    os.chmod(path, 0o755)
    inside, outside = socket.socketpair(socket.AF_UNIX)

    def delegate(pid):
        assert outside.recv(1) == b"u"
        for name in ("uid_map", "gid_map"):
            with open("/proc/%d/%s" % (pid, name), "w") as file:
                file.write("0 65534 1")
        outside.send(b"m")
        (fs,) = array.array("i", outside.recvmsg(1, socket.CMSG_SPACE(4))[1][0][2][:4])
        for option, bits in (("cmds", cmds), ("maps", map_types)):
            if bits:
                syscall(FSCONFIG, fs, 1, b"delegate_" + option.encode(), b"0x%x" % bits, 0)
        syscall(FSCONFIG, fs, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
        outside.send(b"c")

    def become():
        pid = os.getpid()
        helper = os.fork()
        if helper == 0:
            inside.close()
            try:
                delegate(pid)
            finally:
                os._exit(0)
        outside.close()  # so that a helper that failed is noticed
        if not in_namespaces_of_its_own():
            os.kill(helper, signal.SIGKILL)  # or it would wait for ever, and its parent for it
            raise OSError("no user namespace")
        inside.send(b"u")
        assert inside.recv(1) == b"m"
        os.setgroups([])
        os.setgid(0)
        os.setuid(0)
        fs = syscall(FSOPEN, b"bpf", 0)
        inside.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fs]))])
        assert inside.recv(1) == b"c"
        syscall(MOVE_MOUNT, syscall(FSMOUNT, fs, 0, 0), b"", -100, path.encode(), 4)
        os.waitpid(helper, 0)

    try:
        return in_a_child(become, source, dict(names, path=path))
    finally:
        inside.close()
        outside.close()
        os.rmdir(path)


def in_namespaces_of_its_own():
    """Have this process leave for new user and mount namespaces; return whether it may."""
    return ctypes.CDLL(None, use_errno=True).unshare(0x10020000) == 0


@pytest.fixture
def tokens():
    """Skip the test where no user namespace can have BPF tokens."""
    since(6, 9)  # BPF tokens
    child = os.fork()  # a chroot has none, nor have many containers
    if child == 0:
        os._exit(not in_namespaces_of_its_own())
    if os.waitpid(child, 0)[1]:
        lacking("the right to a user namespace")


# -- programs of BPF that the tests assemble


def insn(opcode, dst=0, src=0, offset=0, immediate=0):
    """Return the 8 bytes of a struct bpf_insn."""
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", opcode, registers, offset, immediate)


def insn_map(dst, fd):
    """Return the two instructions that load a map's address (BPF_PSEUDO_MAP_FD)."""
    return insn(0x18, dst, 1, 0, fd) + insn(0)


RETURN_0 = insn(0xB7) + insn(0x95)


def load(prog_type, code, **fields):
    """Load a program of any type, under the GPL; return its descriptor."""
    buffer = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.c_char_p(b"GPL")
    attr = bpf.bpf_attr()
    prog = attr.prog_load
    prog.prog_type, prog.insn_cnt, prog.insns = prog_type, len(code) // 8, ctypes.addressof(buffer)
    prog.license = ctypes.cast(licence, ctypes.c_void_p).value
    for name, value in fields.items():
        setattr(prog, name, value)
    return Descriptor(bpf_call(bpf.BPF_PROG_LOAD, attr, ctypes.sizeof(prog)))


def prog_test_run(program, repeat=1, data=bytes(64)):
    """Run a program on a packet, if it takes one, so many times; return what it returned last."""
    packet, attr = ctypes.create_string_buffer(data, len(data) or 1), (u32 * 20)()
    attr[0], attr[2], attr[8] = program.number, len(data), repeat
    if data:
        ctypes.c_uint64.from_buffer(attr, 16).value = ctypes.addressof(packet)
    bpf_call(bpf.BPF_PROG_TEST_RUN, attr, ctypes.sizeof(attr))
    return attr[1]


def record_program(ring_fd, counts_fd, number, kind):
    """Return a socket filter that writes one record, (number, n, n, n, n, n, n, n) as u64, cut to a length.

    counts[0] is n, which it adds one to, and how often there was no room.  kind "mixed": n + 16 bytes, without bit
    4 of n, and every fifth is reserved, filled in part and discarded; "fixed": 64 bytes.
    """
    fp = 10
    start = [insn(0x62, fp, 0, -4), insn_map(1, counts_fd), insn(0xBF, 2, fp)]
    start += [insn(0x07, 2, 0, 0, -4), insn(0x85, 0, 0, 0, 1)]  # r0 = lookup(counts, 0)
    start += [insn(0x55, 0, 0, 1), insn(0x95), insn(0xBF, 7, 0), insn(0x79, 8, 7)]  # r8 = n
    start += [insn(0x7A, fp, 0, -72, number)] + [insn(0x7B, fp, 8, -64 + 8 * i) for i in range(7)]
    reserve = [insn_map(1, ring_fd), insn(0xB7, 2, 0, 0, 40), insn(0xB7, 3)]
    reserve += [insn(0x85, 0, 0, 0, 131)]  # r0 = bpf_ringbuf_reserve(ring, 40, 0)
    discard = [insn(0x7B, 0, 8), insn(0xBF, 1, 0), insn(0xB7, 2), insn(0x85, 0, 0, 0, 133)]
    length = [insn(0xB7, 3, 0, 0, 64)]
    if kind == "mixed":
        length = [insn(0xBF, 3, 8), insn(0x57, 3, 0, 0, 47), insn(0x07, 3, 0, 0, 16)]
    output = [insn_map(1, ring_fd), insn(0xBF, 2, fp), insn(0x07, 2, 0, 0, -72)] + length
    # r0 = bpf_ringbuf_output(ring, fp - 72, r3, 0)
    output += [insn(0xB7, 4), insn(0x85, 0, 0, 0, 130)]
    count = [insn(0x07, 8, 0, 0, 1), insn(0x7B, 7, 8), insn(0xB7), insn(0x95)]
    full = [
        insn(0x79, 1, 7, 8),
        insn(0x07, 1, 0, 0, 1),
        insn(0x7B, 7, 1, 8),
        insn(0xB7),
        insn(0x95),
    ]

    def size(part):
        return len(b"".join(part)) // 8

    if kind == "mixed":
        to_full = size(discard) + 1 + size(output) + 1 + size(count)
        every_fifth = reserve + [insn(0x15, 0, 0, to_full)] + discard
        every_fifth += [insn(0x05, 0, 0, size(output) + 1)]
        start += [insn(0xBF, 1, 8), insn(0x97, 1, 0, 0, 5), insn(0x55, 1, 0, size(every_fifth))]
        start += every_fifth
    return b"".join(start + output + [insn(0x55, 0, 0, size(count))] + count + full)


class Recorder:
    """A program that writes records to a ring buffer; run() has it write so many."""

    def __init__(self, ring, number=1, kind="mixed"):
        self.number, self.kind = number, kind
        self.counts = Map.create(ARRAY, u32, Value, 1)
        self.program = load(1, record_program(ring.fd, self.counts.fd, number, kind))

    @property
    def written(self):
        return self.counts[0].packets

    @property
    def refused(self):
        return self.counts[0].bytes

    def run(self, repeat):
        prog_test_run(self.program, repeat)

    def records(self, first=0, end=None):
        """Return what those from first to end are, discarded ones left out."""
        end = self.written if end is None else end
        if self.kind == "fixed":
            return [struct.pack("=8Q", self.number, *([n] * 7)) for n in range(first, end)]
        kept = [n for n in range(first, end) if n % 5]
        return [struct.pack("=8Q", self.number, *([n] * 7))[: (n & 47) + 16] for n in kept]


def a_ring(size=PAGE, **options):
    """Create a ring buffer."""
    return Map.create(RINGBUF, max_entries=size, **options)


# -- maps that a compiled program has filled

WITNESS = r"""
#define SEC(name) __attribute__((section(name), used))
#define MAP(name, kind, k, v, n, f) \
    struct { int (*type)[kind]; k *key; v *value; int (*max_entries)[n]; int (*map_flags)[f]; } name SEC(".maps")
#define SIZED(name, kind, k, v) \
    struct { int (*type)[kind]; int (*key_size)[k]; int (*value_size)[v]; int (*max_entries)[4]; } name SEC(".maps")
#define OUTER(name, kind) struct { int (*type)[kind]; int (*key_size)[4]; int (*max_entries)[3]; \
    struct inner *values[]; } name SEC(".maps") = {.values = {[1] = &w_inner}}
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
static long (*update)(void *, const void *, const void *, u64) = (void *)2;
static long (*push)(void *, const void *, u64) = (void *)87;
enum proto { ICMP = 1, TCP = 6, UDP = 17 };
enum mood { BAD = -2, GOOD = 1 };
struct flow { u32 src; u16 port; u8 proto; };
struct addr { union { u32 ip4; u8 ip6[16]; }; };
struct stats {
    u64 count; long long delta; enum proto proto; enum mood mood; struct addr addr; u8 mac[6]; char comm[16];
    u32 low:3, mid:10; int high:19; _Bool ok; u16 grid[2][3]; void *next;
    unsigned __int128 wide; char c; signed char sc;
};
struct lpm { u32 prefixlen; u8 data[4]; };
struct slot { u32 pid; u32 slot; };
MAP(w_hash, 1, struct flow, struct stats, 8, 0); MAP(w_array, 2, u32, struct stats, 2, 0);
MAP(w_lpm, 11, struct lpm, long long, 4, 1);
MAP(w_pc_hash, 5, u32, struct addr, 8, 0); MAP(w_pc_array, 6, u32, u64, 40, 0); MAP(w_lru, 9, enum proto, u16, 8, 0);
MAP(w_lru_pc, 10, char, u16, 8, 0); MAP(w_pairs, 1, struct slot, u64, 64, 0); MAP(w_real, 1, u32, double, 4, 0);
SIZED(w_queue, 22, 0, 8); SIZED(w_stack, 23, 0, 4); SIZED(w_prog, 3, 4, 4); SIZED(w_dev, 14, 4, 4);
SIZED(w_trace, 7, 4, 80); SIZED(w_plain, 1, 4, 5);
struct { int (*type)[30]; u32 *value; int (*max_entries)[4]; } w_bloom SEC(".maps");
struct inner { int (*type)[2]; u32 *key; u64 *value; int (*max_entries)[1]; } w_inner SEC(".maps");
OUTER(w_outer, 12); OUTER(w_houter, 13);
int counter = 3; static volatile struct stats last; const volatile u32 limit = 7;
SEC("socket") int fill(void *context) {
    struct flow flow; struct stats s; struct addr addr = {};
    struct lpm lpm = {24, {10, 1, 2, 0}}; struct slot slot = {1, 2};
    u32 zero = 0, six = 6; u64 nine = 9, real = 0x3ff8000000000000ULL; u16 five = 5; char k = 'k'; long long neg = -5;
    u8 bytes[5] = {1, 2, 3, 4, 5};
    __builtin_memset(&flow, 0, sizeof flow);
    __builtin_memset(&s, 0, sizeof s);
    flow.src = 0x0100007f; flow.port = 443; flow.proto = 6;
    s.count = 77; s.delta = -3; s.proto = TCP; s.mood = BAD; s.addr.ip4 = 0x0100000a; s.mac[0] = 2; s.c = 'x';
    s.sc = -1; s.comm[0] = 'b'; s.comm[1] = '"'; s.low = 5; s.mid = 1000; s.high = -7; s.ok = 1; s.grid[1][2] = 3;
    s.wide = 12; s.next = (void *)0xffff888000000000ULL;
    update(&w_hash, &flow, &s, 0);
    flow.port = 80; s.count = ~0ULL; s.proto = 99; s.comm[0] = 0xe9;
    update(&w_hash, &flow, &s, 0);
    update(&w_array, &zero, &s, 0);
    addr.ip4 = 0x7f;
    update(&w_pc_hash, &six, &addr, 0); update(&w_pc_array, &six, &nine, 0); update(&w_lru, &six, &five, 0);
    update(&w_lru_pc, &k, &five, 0); update(&w_pairs, &slot, &nine, 0); update(&w_real, &six, &real, 0);
    update(&w_lpm, &lpm, &neg, 0); update(&w_plain, &six, bytes, 0);
    push(&w_queue, &nine, 0); push(&w_bloom, &six, 0); push(&w_stack, &six, 0);
    counter++; last.count = 3;
    return limit;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    """The program, compiled."""
    return bpf_object(tmp_path_factory.mktemp("witness"), "w", WITNESS)


@pytest.fixture
def pins(_kernel, bpffs, witness):
    """A directory of pinned maps, most with BTF, that a program has filled in the kernel."""
    bpftool("prog", "load", witness, bpffs + "/fill", "pinmaps", bpffs)
    prog_test_run(obj_get(bpffs + "/fill"))
    return bpffs


# -- BTF put together by hand


class Blob:
    """BTF put together by hand.  Each method adds a type and returns its id; a name may be a number, of a byte."""

    (
        INT,
        PTR,
        ARRAY,
        STRUCT,
        UNION,
        ENUM,
        FWD,
        TYPEDEF,
        VOLATILE,
        CONST,
        RESTRICT,
        FUNC,
        FUNC_PROTO,
        VAR,
        DATASEC,
        FLOAT,
        DECL_TAG,
        TYPE_TAG,
        ENUM64,
    ) = range(1, 20)

    def __init__(self, order="little", base=None):
        self.order, self.base, self.mark = order, base, "<" if order == "little" else ">"
        self.types, self.strings = [], bytearray(b"" if base else b"\0")
        self.first, self.start = (
            (base.first + len(base.types), base.start + len(base.strings)) if base else (1, 0)
        )

    def name(self, text):
        if not isinstance(text, str) or text == "":
            return text or 0
        self.strings += text.encode() + b"\0"
        return self.start + len(self.strings) - len(text.encode()) - 1

    def add(self, kind, name="", vlen=0, number=0, words=(), flag=0):
        words = [self.name(name), flag << 31 | kind << 24 | vlen, number] + [
            self.name(word) for word in words
        ]
        self.types.append(
            struct.pack("%s%dI" % (self.mark, len(words)), *[word & 0xFFFFFFFF for word in words])
        )
        return self.first + len(self.types) - 1

    def int(self, name, size, encoding=0, bits=None, offset=0):
        return self.add(
            self.INT,
            name,
            0,
            size,
            [encoding << 24 | offset << 16 | (8 * size if bits is None else bits)],
        )

    def of(self, kind, type_id, name=""):
        return self.add(kind, name, 0, type_id)

    def array(self, type_id, count):
        return self.add(self.ARRAY, words=[type_id, 1, count])

    def struct(self, name, size, *members, **kind):
        """Members are (name, type, bit offset) or (..., bits), which sets the kind_flag."""
        flag = any(len(member) > 3 for member in members)
        words = [
            word
            for member in members
            for word in (
                member[0],
                member[1],
                member[2] | (member[3] << 24 if len(member) > 3 else 0),
            )
        ]
        return self.add(kind.get("kind", self.STRUCT), name, len(members), size, words, flag)

    def union(self, name, size, *members):
        return self.struct(name, size, *members, kind=self.UNION)

    def enum(self, name, size, names, signed=0, wide=False):
        words = [
            word
            for label, number in names
            for word in ([label, number, number >> 32] if wide else [label, number])
        ]
        return self.add(self.ENUM64 if wide else self.ENUM, name, len(names), size, words, signed)

    def data(self, header=24, layout=None, **changed):
        """Return the blob.  layout: {kind: (bytes always, bytes for each of vlen)}; changed: header fields."""
        types, strings, entries = b"".join(self.types), bytes(self.strings), b""
        header = max(header, 32 if layout else 0)
        for kind in range(max(layout) + 1 if layout else 0):
            entries += struct.pack(self.mark + "BBH", *layout.get(kind, (0, 0)), 0)
        fields = dict(
            magic=0xEB9F,
            version=1,
            flags=0,
            hdr_len=header,
            type_off=0,
            type_len=len(types),
            str_off=len(types) + len(entries),
            str_len=len(strings),
            layout_off=len(types),
            layout_len=len(entries),
        )
        fields.update(changed)
        head = struct.pack(
            self.mark + "HBB7I",
            *[
                fields[name]
                for name in (
                    "magic",
                    "version",
                    "flags",
                    "hdr_len",
                    "type_off",
                    "type_len",
                    "str_off",
                    "str_len",
                    "layout_off",
                    "layout_len",
                )
            ],
        ) + bytes(8)
        return head[:header] + types + entries + strings

    def btf(self, **header):
        return bpf.BTF.from_bytes(self.data(**header), self.base and self.base.btf())


ORDERS = pytest.mark.parametrize("order", ["little", "big"])


def in_order(order, *numbers_of_bits):
    """Return the bytes that hold (number, bits) one behind the other, counted as C does in that order."""
    digits = [format(number & (1 << bits) - 1, "0%db" % bits) for number, bits in numbers_of_bits]
    if order == "big":
        return int("".join(digits), 2).to_bytes(sum(map(len, digits)) // 8, order)
    return int("".join(reversed(digits)), 2).to_bytes(sum(map(len, digits)) // 8, order)


def zoo(order="little"):
    """Return a Blob with a type of each kind, its id the number of its kind (which the kernel takes as well)."""
    b = Blob(order)
    b.int("int", 4, 1)
    b.of(b.PTR, 5)
    b.array(1, 3)
    b.struct("pair", 8, ("low", 1, 0), ("high", 1, 32, 5))
    b.union("either", 8, ("whole", 4, 0), ("list", 2, 0))
    b.enum("sign", 4, [("PLUS", 1), ("MINUS", -1)], signed=1)
    b.add(b.FWD, "later", flag=1)
    b.of(b.TYPEDEF, 1, "s32")
    b.of(b.VOLATILE, 8)
    b.of(b.CONST, 9)
    b.of(b.RESTRICT, 2)
    b.of(b.FUNC, 13, "main")
    b.add(b.FUNC_PROTO, "", 2, 1, ["argc", 1, 0, 0])
    b.add(b.VAR, "counter", 0, 10, [1])
    b.add(b.DATASEC, ".bss", 1, 8, [14, 4, 4])
    b.add(b.FLOAT, "double", 0, 8)
    b.add(b.DECL_TAG, "tag", 0, 4, [-1])
    b.of(b.TYPE_TAG, 5, "user")
    b.enum("long_sign", 8, [("FAR", 1 << 40), ("BELOW", -5)], signed=1, wide=True)
    return b


def house(order="little"):
    """Return a Blob with struct house: packed, members in members with and without a name, arrays, itself."""
    b = Blob(order)
    byte = b.int("u8", 1)
    char = b.int("char", 1, 1)
    half = b.int("s16", 2, 1)
    word = b.int("u32", 4)
    itself, letter = b.of(b.PTR, 16), b.of(b.CONST, char)
    point = b.struct("point", 4, ("x", half, 0), ("y", half, 16))
    name = b.array(letter, 8)
    row = b.array(half, 3)
    inner = b.union("", 4, ("whole", word, 0), ("part", b.array(byte, 4), 0))
    inner = b.struct("", 6, ("door", half, 0), ("", inner, 16))
    assert (
        b.struct(
            "house",
            64,
            ("number", byte, 0),
            ("", inner, 8),
            ("line", b.array(point, 2), 64),
            ("grid", b.array(row, 2), 128),
            ("name", name, 224),
            ("next", itself, 288),
            ("mode", word, 352, 3),
            ("tail", b.array(point, 0), 512),
        )
        == 16
    )
    return b


HOUSE = (
    [(1, 8), (-2, 16), (0x04030201, 32), (0, 8), (1, 16), (2, 16), (3, 16), (-4, 16)]
    + [(number, 16) for number in range(6)]
    + [(ord(char), 8) for char in "Hill\0\0\0\0"]
    + [(1 << 63, 64), (5, 3), (0, 29), (0, 128)]
)


def extension(base):
    """Return a Blob of split BTF on zoo: struct more, with a name of the base's, an own one, and itself."""
    b = Blob(base.order, base)
    itself = b.of(b.PTR, 21)
    b.struct(
        "more", 24, (base.strings.index(b"low\0"), 4, 0), ("own", itself, 64), ("sign", 6, 128)
    )
    b.add(b.DECL_TAG, "late", 0, 4, [-1])
    b.of(b.TYPEDEF, 4, "sign")
    return b


def chain(b, length, add, inner=1):
    """Add types one upon another, each by add(b, the one before, number); return the last."""
    for number in range(length):
        inner = add(b, inner, number)
    return inner


def assert_same_from_source(btf, t, name=None):
    """Run python_source where there is nothing and compare what it makes with ctype."""
    source, names, ctype = btf.python_source(t), {}, btf.ctype(t)
    exec(compile(source.encode("ascii"), "source", "exec"), names)
    made, rng = list(names.values())[-1], random.Random(9)
    assert ctypes.sizeof(made) == ctypes.sizeof(ctype) and (name is None or name == list(names)[-1])
    if hasattr(ctype, "_fields_"):
        raw = bytes(rng.randrange(256) for _ in range(ctypes.sizeof(ctype)))
        first, second = ctype.from_buffer_copy(raw), made.from_buffer_copy(raw)
        for label, _ in ctype._fields_:
            assert (getattr(made, label).offset, getattr(made, label).size) == (
                getattr(ctype, label).offset,
                getattr(ctype, label).size,
            )
        numbers = {
            label: getattr(first, label)
            for label in vars(ctype)
            if isinstance(getattr(first, label), (int, float))
        }
        assert all(
            number != number or getattr(second, label) == number
            for label, number in numbers.items()
        )
        assert {number for number in bpf.to_python(first).values() if type(number) is int} <= set(
            numbers.values()
        )
    return made


def load_btf(data, **fields):
    """Have the kernel hold BTF; return its descriptor."""
    buffer, attr = ctypes.create_string_buffer(data, len(data)), bpf.bpf_attr()
    attr.btf_load.btf, attr.btf_load.btf_size = ctypes.addressof(buffer), len(data)
    for name, value in fields.items():
        setattr(attr.btf_load, name, value)
    return Descriptor(bpf_call(bpf.BPF_BTF_LOAD, attr, ctypes.sizeof(attr.btf_load)))


def lock_types():
    """Return the bytes of BTF of 1 int, 2 struct bpf_spin_lock, 3 struct { struct bpf_spin_lock lock; int n; }."""
    b = Blob(sys.byteorder)
    number = b.int("int", 4, 1)
    lock = b.struct("bpf_spin_lock", 4, ("val", number, 0))
    b.struct("locked", 8, ("lock", lock, 0), ("n", number, 32))
    return b.data()


# -- that the time limit holds


def test_a_test_that_hangs_is_failed_by_its_name_and_its_children_end():
    """In a read of what never comes, in a lock, waiting for a child."""
    left, right = socket.socketpair()
    lock = threading.Lock()
    lock.acquire()
    for wait in (lambda child: left.recv(1), lambda child: lock.acquire(), subprocess.Popen.wait):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        with pytest.raises(pytest.fail.Exception, match="the name was not over within 0.2 sec"):
            with over_within(0.2, "the name"):
                wait(child)
        assert child.wait() == -signal.SIGKILL
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 1  # that of this test goes on
    left.close()
    right.close()


def test_no_test_goes_without_a_time_limit(request):
    assert "_no_test_hangs" in request.fixturenames


# ---- 1. ABI -----------------------------------------------------------------
# Numbers and structures of linux/bpf.h: against offsets that are written down here, and against compiled C.

ARMS = dict(
    bpf.bpf_attr._fields_,
    bpf_map_info=bpf.bpf_map_info,
    bpf_btf_info=bpf.bpf_btf_info,
    bpf_prog_info=bpf.bpf_prog_info,
)

# offset of every field of union bpf_attr and the info structs: linux/bpf.h compiled for ten ABIs agrees on them
GOLDEN = {
    "map_create": "map_type@0 key_size@4 value_size@8 max_entries@12 map_flags@16 inner_map_fd@20 numa_node@24 "
    "map_name@28 map_ifindex@44 btf_fd@48 btf_key_type_id@52 btf_value_type_id@56 "
    "btf_vmlinux_value_type_id@60 map_extra@64 value_type_btf_obj_fd@72 map_token_fd@76 "
    "excl_prog_hash@80 excl_prog_hash_size@88 =96",
    "elem": "map_fd@0 key@8 value@16 flags@24 =32",
    "batch": "in_batch@0 out_batch@8 keys@16 values@24 count@32 map_fd@36 elem_flags@40 flags@48 =56",
    "prog_load": "prog_type@0 insn_cnt@4 insns@8 license@16 log_level@24 log_size@28 log_buf@32 kern_version@40 "
    "prog_flags@44 prog_name@48 prog_ifindex@64 expected_attach_type@68 prog_btf_fd@72 "
    "func_info_rec_size@76 func_info@80 func_info_cnt@88 line_info_rec_size@92 line_info@96 "
    "line_info_cnt@104 attach_btf_id@108 attach_prog_fd@112 core_relo_cnt@116 fd_array@120 "
    "core_relos@128 core_relo_rec_size@136 log_true_size@140 prog_token_fd@144 fd_array_cnt@148 "
    "signature@152 signature_size@160 keyring_id@164 =168",
    "obj": "pathname@0 bpf_fd@8 file_flags@12 path_fd@16 =24",
    "prog_attach": "target_fd@0 attach_bpf_fd@4 attach_type@8 attach_flags@12 =16",
    "get_id": "start_id@0 next_id@4 open_flags@8 fd_by_id_token_fd@12 =16",
    "info": "bpf_fd@0 info_len@4 info@8 =16",
    "btf_load": "btf@0 btf_log_buf@8 btf_size@16 btf_log_size@20 btf_log_level@24 btf_log_true_size@28 btf_flags@32 "
    "btf_token_fd@36 =40",
    "token_create": "flags@0 bpffs_fd@4 =8",
    "bpf_map_info": "type@0 id@4 key_size@8 value_size@12 max_entries@16 map_flags@20 name@24 ifindex@40 "
    "btf_vmlinux_value_type_id@44 netns_dev@48 netns_ino@56 btf_id@64 btf_key_type_id@68 "
    "btf_value_type_id@72 btf_vmlinux_id@76 map_extra@80 hash@88 hash_size@96 =104",
    "bpf_btf_info": "btf@0 btf_size@8 id@12 name@16 name_len@24 kernel_btf@28 =32",
    "bpf_prog_info": "type@0 id@4 tag@8 jited_prog_len@16 xlated_prog_len@20 jited_prog_insns@24 "
    "xlated_prog_insns@32 load_time@40 created_by_uid@48 nr_map_ids@52 map_ids@56 name@64 ifindex@80 "
    "netns_dev@88 netns_ino@96 nr_jited_ksyms@104 nr_jited_func_lens@108 "
    "jited_ksyms@112 jited_func_lens@120 btf_id@128 func_info_rec_size@132 =136",
}


def test_the_fields_of_every_arm_lie_at_their_offsets():
    assert set(GOLDEN) == set(ARMS)
    assert ctypes.sizeof(bpf.bpf_attr) == 168
    for name, arm in ARMS.items():
        found = [
            "%s@%d" % (field[0], getattr(arm, field[0]).offset)
            for field in arm._fields_
            if field[0] != "_pad"
        ]
        assert " ".join(found + ["=%d" % ctypes.sizeof(arm)]) == GOLDEN[name]


@kernel
def test_offsets_sizes_and_numbers_are_those_of_compiled_c(tmp_path, vmlinux_h):
    lines, expected = [], []
    for name, arm in ARMS.items():
        owner = "struct " + name if name.startswith("bpf_") else "union bpf_attr"
        for field in arm._fields_:
            if field[0] == "_pad":
                continue
            prefix = name + "." if name in ("info", "batch", "token_create") else ""
            if (name, field[0]) == ("obj", "bpf_fd"):
                prefix = "/* not info.bpf_fd */ "
            member = prefix + field[0]
            descriptor = getattr(arm, field[0])
            lines.append(
                'printf("%%d %%d\\n", (int)offsetof(%s, %s), (int)sizeof(((%s *)0)->%s));'
                % (owner, member, owner, member)
            )
            expected.append("%d %d" % (descriptor.offset, descriptor.size))
    newest = {
        "BPF_PROG_ASSOC_STRUCT_OPS",
        "BPF_MAP_TYPE_INSN_ARRAY",
        "BPF_MAP_TYPE_RHASH",
        "BPF_F_RB_OVERWRITE",
        "BPF_F_CPU",
        "BPF_F_ALL_CPUS",
        "BPF_COMMON_ATTRS",
    }
    with open(vmlinux_h) as file:
        text = file.read()
    for name, number in sorted(vars(bpf).items()):
        if (
            name.startswith("BPF_")
            and isinstance(number, int)
            and (name not in newest or name + " =" in text)
        ):
            lines.append('printf("%%d\\n", (int)%s);' % name)
            expected.append(str(number))
    lines.append('printf("%d\\n", (int)sizeof(union bpf_attr));')
    expected.append("168")
    source = '#include "%s"\nint printf(const char *, ...);\n' % vmlinux_h
    source += "#define offsetof(t, m) __builtin_offsetof(t, m)\n"
    printed = compiled(tmp_path, source + "int main(void) {\n%s\nreturn 0; }\n" % "\n".join(lines))
    assert printed.splitlines() == expected


def test_numbers_of_types_and_commands_have_their_kernel_names():
    assert bpf.map_type_name(6) == "percpu_array" and bpf.map_type_name(35) == "rhash"
    assert bpf.map_type_name(99) == "type_99"
    assert bpf.cmd_name(1) == "BPF_MAP_LOOKUP_ELEM"
    assert bpf.cmd_name(38) == "BPF_PROG_ASSOC_STRUCT_OPS"
    assert bpf.cmd_name(99) == "cmd_99"
    assert bpf.cmd_name(bpf.BPF_COMMON_ATTRS | bpf.BPF_MAP_CREATE) == "BPF_MAP_CREATE"
    assert sorted(bpf._MAP_TYPE_NAMES) == list(range(1, 36))
    assert sorted(bpf._CMD_NAMES) == list(range(39))


# ---- 2. Errors --------------------------------------------------------------
# Which class an errno becomes, what hint it gets, and that any errno at any call is told and leaks nothing.


# -- classes of errors, and which errno becomes which

TREE = {
    "SyscallError": (OSError, bpf.BPFError),
    "KeyNotFound": (bpf.SyscallError, KeyError),
    "KeyExists": (bpf.SyscallError,),
    "PinExists": (bpf.SyscallError, FileExistsError),
    "MapFull": (bpf.SyscallError,),
    "KeyOutOfRange": (bpf.SyscallError, IndexError),
    "MapNotFound": (bpf.SyscallError, FileNotFoundError),
    "PermissionDenied": (bpf.SyscallError, PermissionError),
    "NotSupported": (bpf.SyscallError,),
    "BadFileDescriptor": (bpf.SyscallError,),
    "BadAddress": (bpf.SyscallError,),
    "InvalidArgument": (bpf.SyscallError,),
    "Busy": (bpf.SyscallError,),
    "OutOfMemory": (bpf.SyscallError, MemoryError),
    "AmbiguousName": (bpf.BPFError, LookupError),
    "LayoutError": (bpf.BPFError, TypeError),
    "BTFError": (bpf.BPFError, ValueError),
    "IterationAborted": (bpf.BPFError, RuntimeError),
}


@pytest.mark.parametrize("name", sorted(TREE))
def test_error_classes_survive_pickle_and_copy(name):
    cls = getattr(bpf, name)
    assert issubclass(cls, TREE[name]) and issubclass(cls, bpf.BPFError)
    error = cls(errno.ENOENT, "a sentence")
    if issubclass(cls, OSError):
        error.cmd = "BPF_MAP_LOOKUP_ELEM"
        error.map = "map 5 (hash)"
        error.hint = "try again"
        error.key = 7
    for twin in (
        pickle.loads(pickle.dumps(error)),
        pickle.loads(pickle.dumps(error, 2)),
        copy.copy(error),
    ):
        assert type(twin) is cls and twin.args == (errno.ENOENT, "a sentence")
        assert twin.__dict__ == error.__dict__
        if issubclass(cls, OSError):
            assert twin.errno == errno.ENOENT and twin.strerror == "a sentence"
            assert str(twin) == "a sentence; try again"


@pytest.mark.parametrize(
    "code, cmd, map_type, name",
    [
        (errno.ENOENT, LOOKUP, HASH, "KeyNotFound"),
        (errno.ENOENT, UPDATE, HASH, "KeyNotFound"),
        (errno.ENOENT, bpf.BPF_OBJ_GET, None, "MapNotFound"),
        (errno.ENOENT, bpf.BPF_OBJ_PIN, None, "SyscallError"),
        (errno.ENOENT, bpf.BPF_MAP_GET_FD_BY_ID, None, "MapNotFound"),
        (errno.EEXIST, UPDATE, HASH, "KeyExists"),
        (errno.EEXIST, bpf.BPF_OBJ_PIN, None, "PinExists"),
        (errno.E2BIG, UPDATE, HASH, "MapFull"),
        (errno.E2BIG, UPDATE, QUEUE, "MapFull"),
        (errno.ENOSPC, UPDATE, LPM, "MapFull"),
        (errno.ENOSPC, LOOKUP, bpf.BPF_MAP_TYPE_SOCKMAP, "SyscallError"),
        (errno.E2BIG, UPDATE, ARRAY, "KeyOutOfRange"),
        (errno.E2BIG, DELETE, bpf.BPF_MAP_TYPE_PROG_ARRAY, "KeyOutOfRange"),
        (errno.E2BIG, bpf.BPF_MAP_CREATE, ARRAY, "InvalidArgument"),
        (errno.EINVAL, LOOKUP, HASH, "InvalidArgument"),
        (errno.EINVAL, DELETE, ARRAY, "NotSupported"),
        (errno.EINVAL, DELETE, HASH, "InvalidArgument"),
        (errno.EINVAL, NEXT, QUEUE, "NotSupported"),
        (errno.EINVAL, bpf.BPF_MAP_FREEZE, HASH, "NotSupported"),
        (524, LOOKUP, HASH, "NotSupported"),
        (errno.EOPNOTSUPP, LOOKUP, HASH, "NotSupported"),
        (errno.ENOSYS, LOOKUP, HASH, "NotSupported"),
        (errno.EPERM, UPDATE, HASH, "PermissionDenied"),
        (errno.EACCES, bpf.BPF_OBJ_GET, None, "PermissionDenied"),
        (errno.EBADF, LOOKUP, HASH, "BadFileDescriptor"),
        (77, bpf.BPF_OBJ_GET_INFO_BY_FD, None, "BadFileDescriptor"),
        (errno.EFAULT, LOOKUP, HASH, "BadAddress"),
        (errno.EBUSY, bpf.BPF_MAP_FREEZE, ARRAY, "Busy"),
        (errno.EAGAIN, LOOKUP, HASH, "Busy"),
        (errno.ENOMEM, bpf.BPF_MAP_CREATE, ARRAY, "OutOfMemory"),
        (errno.EMFILE, bpf.BPF_OBJ_GET, None, "SyscallError"),
        (errno.ENODEV, UPDATE, bpf.BPF_MAP_TYPE_CPUMAP, "SyscallError"),
        (999, LOOKUP, HASH, "SyscallError"),
    ],
)
def test_an_errno_and_its_command_decide_the_class(code, cmd, map_type, name):
    error = bpf._error(code, cmd, "map 5 (x)", map_type)
    assert type(error) is getattr(bpf, name)
    assert error.errno == code == error.args[0]
    assert error.cmd == bpf.cmd_name(cmd)
    assert error.map == "map 5 (x)"
    assert bpf.errno_name(code) in str(error)
    assert error.cmd in str(error)
    assert "map 5 (x)" in str(error)


def raised(cls, function, *arguments, **options):
    """Call a function that has to raise just this class; return the error."""
    with pytest.raises(bpf.BPFError) as info:
        function(*arguments, **options)
    assert type(info.value) is cls, info.value
    return info.value


@kernel
def test_the_kernel_provokes_the_classes_of_element_calls(flows):
    key, value = Key(1), Value(1, 2)
    missing = raised(bpf.KeyNotFound, flows.lookup, key)
    assert missing.key is key and "'src': 1" in str(missing)
    assert missing.map == "map %d (hash '%s')" % (flows.id, FLOWS)
    in_bytes = raised(bpf.KeyNotFound, flows.lookup, bytes(8))
    assert pickle.loads(pickle.dumps(in_bytes)).map == missing.map
    raised(bpf.KeyNotFound, flows.update, key, value, bpf.BPF_EXIST)
    raised(bpf.KeyNotFound, flows.delete, key)
    flows[key] = value
    raised(bpf.KeyExists, flows.update, key, value, bpf.BPF_NOEXIST)
    for src in range(2, 5):
        flows[Key(src)] = value
    raised(bpf.MapFull, flows.update, Key(9), value)
    raised(bpf.InvalidArgument, flows.lookup, key, bpf.BPF_F_LOCK)
    array = Map.create(ARRAY, u32, u32, 2)
    raised(bpf.KeyOutOfRange, array.update, 2, 0)
    raised(bpf.NotSupported, array.delete, 0)
    perf = Map.create(bpf.BPF_MAP_TYPE_PERF_EVENT_ARRAY, max_entries=2)
    assert "ENOTSUPP" in str(raised(bpf.NotSupported, perf.lookup, 0))
    raised(bpf.BadFileDescriptor, perf.update, 0, 987654)


@kernel
def test_the_kernel_provokes_the_classes_of_creating_and_opening(flows):
    raised(bpf.InvalidArgument, Map.create, 77, u32, u32)
    if KERNEL >= (5, 11):  # before, RLIMIT_MEMLOCK can't be charged with 4 GiB: E2BIG
        raised(bpf.OutOfMemory, Map.create, ARRAY, u32, u64, 0xFFFFFFFF)
    with pytest.raises(bpf.BadAddress):
        bpf._bpf(bpf.BPF_MAP_CREATE, ctypes.c_char.from_address(8), size=16)
    raised(bpf.BadFileDescriptor, Map.from_fd, 987654)
    raised(bpf.BadFileDescriptor, Map.from_fd, 987654, dup=False)
    raised(bpf.MapNotFound, Map.from_id, 0x7FFFFFFE)
    raised(bpf.MapNotFound, Map.from_name, "no such name")
    cut = raised(bpf.MapNotFound, Map.from_name, "a_name_of_16_chr")
    assert "try 'a_name_of_16_ch'" in str(cut)
    other = Map.create(HASH, u32, u32, 1, name=FLOWS)
    assert str(flows.id) in str(raised(bpf.AmbiguousName, Map.from_name, FLOWS))
    assert str(other.id) in str(raised(bpf.AmbiguousName, bpf.open_map, "name " + FLOWS))
    raised(bpf.LayoutError, Map.from_fd, flows, Key, u64)


@kernel
def test_the_kernel_provokes_the_classes_of_pins(flows, bpffs, tmp_path):
    pin = os.path.join(bpffs, "flows")
    flows.pin(pin)
    raised(bpf.PinExists, flows.pin, pin)
    raised(bpf.MapNotFound, Map.from_pin, pin + "x")
    assert "bpffs" in str(raised(bpf.PermissionDenied, flows.pin, str(tmp_path / "pin")))
    assert "dot" in str(raised(bpf.PermissionDenied, flows.pin, pin + ".d"))
    assert "bpffs" in str(raised(bpf.SyscallError, flows.pin, os.path.join(bpffs, "none", "pin")))
    assert "ordinary file" in str(raised(bpf.PermissionDenied, Map.from_pin, MODULE))
    raised(bpf.PermissionDenied, Map.from_pin, bpffs)


@kernel
def test_the_kernel_provokes_the_classes_of_modes_and_freezing(flows, bpffs):
    import mmap

    pin = os.path.join(bpffs, "flows")
    flows.pin(pin)
    reader, writer = Map.from_pin(pin), Map.from_pin(pin, mode="w")
    assert "read-only" in raised(bpf.PermissionDenied, reader.update, bytes(8), bytes(16)).hint
    assert "read-only" in raised(bpf.PermissionDenied, reader.delete, bytes(8)).hint
    assert "write-only" in raised(bpf.PermissionDenied, writer.lookup, bytes(8)).hint
    assert "write-only" in raised(bpf.PermissionDenied, writer.next_key).hint
    flows.freeze()
    assert "frozen" in raised(bpf.PermissionDenied, flows.update, Key(1), Value(1, 2)).hint
    twice = bpf.PermissionDenied if KERNEL >= (6, 5) else bpf.Busy
    assert "frozen" in raised(twice, flows.freeze).hint
    with pages() as m, mmap.mmap(m.fd, PAGE):
        assert "mapped" in raised(bpf.Busy, m.freeze).hint


@kernel
def test_an_index_past_the_end_is_an_index_error_too():
    per_cpu = PERCPU_ARRAY
    for map_type, value in ((ARRAY, u32), (per_cpu, u64), (bpf.BPF_MAP_TYPE_PROG_ARRAY, None)):
        with Map.create(map_type, u32, value, 8) as m:
            for action in (lambda: m[8], lambda: m.lookup_bytes(9), lambda: m.lookup(1 << 31)):
                with pytest.raises(bpf.KeyNotFound) as info:
                    action()
                error = info.value
                assert isinstance(error, IndexError) and isinstance(error, bpf.KeyOutOfRange)
                assert error.key >= 8 and "8 entries" in str(error)
                assert str(pickle.loads(pickle.dumps(error))) == str(error)
            assert m.get(8) is None and 8 not in m
    with Map.create(bpf.BPF_MAP_TYPE_PROG_ARRAY, max_entries=8) as m:
        with pytest.raises(bpf.KeyNotFound) as info:
            m[7]
        assert not isinstance(info.value, IndexError)  # inside, and not set


@kernel
def test_a_program_is_no_map():
    fd = load(bpf.BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0)
    before = open_fds()
    for dup in (True, False):
        with pytest.raises(bpf.InvalidArgument, match="no BPF map but a BPF program"):
            Map.from_fd(fd.number, dup=dup)
    with pytest.raises(bpf.InvalidArgument, match="no BPF map but /dev/null"):
        with open(os.devnull) as null:
            Map.from_fd(null)
    assert open_fds() == before
    os.fstat(fd.number)  # a refused dup=False leaves it open


@kernel
def test_without_proc_a_program_is_still_no_map(monkeypatch, flows):
    def no_proc(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", no_proc)
    fd = load(bpf.BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0)
    with pytest.raises(bpf.InvalidArgument, match="no BPF map but something else"):
        Map.from_fd(fd.number)
    queue = Map.create(QUEUE, None, u64, 2)
    ring = Map.create(RINGBUF, max_entries=PAGE)
    for m in (flows, queue, ring):
        assert Map.from_fd(m).id == m.id
    arena = created(bpf.BPF_MAP_TYPE_ARENA, max_entries=1, flags=bpf.BPF_F_MMAPABLE)
    assert Map.from_fd(arena).id == arena.id


# -- hints: what this process or this kernel lacks


@kernel
def test_without_capabilities_the_hint_names_them(flows, bpffs):
    os.chmod(bpffs, 0o755)
    flows.pin(os.path.join(bpffs, "flows"))
    text = as_nobody(
        """
        for what in (lambda: bpf.Map.create(1, u32, u32), lambda: bpf.Map.from_id(5), lambda: list(bpf.maps()),
                     lambda: bpf.Map.create(bpf.BPF_MAP_TYPE_SOCKMAP), lambda: bpf.Map.from_pin(pin)):
            try:
                what()
            except bpf.PermissionDenied as error:
                print(error.hint)
    """,
        pin=os.path.join(bpffs, "flows"),
    ).splitlines()
    assert len(text) == 5, text
    assert "CAP_BPF" in text[0] and "CapEff 0" in text[0] and "unprivileged_bpf_disabled" in text[0]
    assert "CAP_SYS_ADMIN" in text[1] and "CAP_SYS_ADMIN" in text[2]
    assert "CAP_NET_ADMIN" in text[3]
    assert ("CAP_BPF" if bpf_is_for_the_privileged() else "permission to read the file") in text[4]


@kernel
def test_each_capability_opens_what_it_should(flows, bpffs):
    script = """
        for what in (lambda: bpf.Map.create(1, u32, u32)[5], lambda: bpf.Map.from_id(map_id),
                     lambda: bpf.BTF.from_id(btf_id), lambda: bpf.Map.create(bpf.BPF_MAP_TYPE_SOCKMAP),
                     lambda: bpf.Map.from_fd(fd).info.id,
                     lambda: bpf._load_program(code, "nothing")):
            try:
                what()
                print("fine")
            except bpf.BPFError as error:
                print(type(error).__name__, error.hint)
    """
    types = load_btf(lock_types())
    names = dict(map_id=flows.id, fd=flows.fd, btf_id=int(fdinfo(types.number)["btf_id"]))
    names.update(code=RETURN_0)
    for keeps in ((39,), (39, 38)):  # CAP_BPF; and CAP_PERFMON
        told = as_nobody(script, keeps, **names).splitlines()
        assert told[0].startswith("KeyNotFound") and told[4:] == ["fine", "fine"], told
        assert all("PermissionDenied needs CAP_SYS_ADMIN" in line for line in told[1:3])
        assert "CAP_NET_ADMIN" in told[3]
    told = as_nobody(script, (21,), **names).splitlines()  # CAP_SYS_ADMIN is all of them
    assert told[0].startswith("KeyNotFound") and told[1:3] == ["fine", "fine"]
    told = as_nobody(script, **names).splitlines()
    assert all(line.startswith("PermissionDenied needs CAP_") for line in told[:4])
    assert told[4].startswith(
        "PermissionDenied needs CAP_BPF" if bpf_is_for_the_privileged() else "fine"
    )
    told = as_nobody(script, (39,), **names).splitlines()
    assert told[3].startswith("PermissionDenied needs CAP_NET_ADMIN, which")  # and not what is held


@kernel
def test_what_file_permission_lacks_is_said(flows, bpffs):
    """Which of the pin's mode, a directory above it, or what it is stood in the way."""
    if bpf_is_for_the_privileged():
        lacking("a kernel that lets everybody use a pin")
    os.chmod(bpffs, 0o755)
    for mode in (0o444, 0o440, 0o400, 0o200, 0o222):
        flows.pin("%s/m%03o" % (bpffs, mode))
        os.chmod("%s/m%03o" % (bpffs, mode), mode)
    for directory, mode in (("closed", 0o744), ("hidden", 0o711)):
        os.mkdir(os.path.join(bpffs, directory))
        flows.pin(os.path.join(bpffs, directory, "m"))
        os.chmod(os.path.join(bpffs, directory, "m"), 0o444)
        os.chmod(os.path.join(bpffs, directory), mode)
    # 0600, 0700
    ordinary, private, public = tempfile.mkstemp()[1], tempfile.mkdtemp(), tempfile.mkstemp()[1]
    os.chmod(public, 0o644)
    reads = {
        "m444": "no such key",
        "hidden/m": "no such key",
        "none": "no such map",
        public: "no pin",
        ordinary: "to read the file",
        private + "/x/y": "the directory %s is not open" % private,
    }
    reads.update(
        (name, "the directory %s/closed is not open" % bpffs)
        for name in ("closed/m", "closed/none")
    )
    for mode in ("440", "400", "200", "222"):
        reads["m" + mode] = "permission to read the file, whose mode is %s, owner 0" % mode
    writes = {
        "m444": "permission to write the file, whose mode is 444",
        "hidden/m": "permission to write",
        "m222": "0" if KERNEL >= (6, 5) else "needs CAP_BPF",
    }
    for words, expected in (
        (["lookup", None, "key", "hex"] + ["00"] * 8, reads),
        (["freeze", None], writes),
    ):
        for name, wanted in expected.items():
            told = as_nobody(
                "print(bpf.main(words))",
                words=[word or os.path.join(bpffs, name) for word in words],
            )
            if wanted == "0":
                assert told == "0\n", name
            else:
                assert wanted in told and told.splitlines()[1:] == ["1"], (name, told)
    os.unlink(ordinary)
    os.unlink(public)
    os.rmdir(private)


@kernel
def test_a_seccomp_filter_is_named(flows, bpffs):
    """Docker's makes bpf(2) EPERM, also what takes no capability."""
    if bpf_is_for_the_privileged():
        lacking("a kernel where a lookup needs no capability")
    os.chmod(bpffs, 0o755)
    flows.pin(os.path.join(bpffs, "m"))
    os.chmod(os.path.join(bpffs, "m"), 0o444)
    code = b"".join(
        struct.pack("=HBBI", *insn)
        for insn in (
            (0x20, 0, 0, 0),
            (0x15, 0, 1, bpf.syscall_number()),
            (0x06, 0, 0, 0x50001),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )
    told = {}
    for keeps in ((), (21,)):
        told[keeps] = as_nobody(
            """
            import ctypes
            libc, program = ctypes.CDLL(None), ctypes.create_string_buffer(code, len(code))
            class Filter(ctypes.Structure):
                _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
            assert libc.prctl(38, 1, 0, 0, 0) == 0             # PR_SET_NO_NEW_PRIVS
            assert libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(program))), 0, 0) == 0
            for what in (lambda: m.get(bytes(8)), lambda: bpf.Map.from_pin(pin), lambda: m.pin(pin + "2"),
                         lambda: bpf.Map.create(1, u32, u32), lambda: bpf.Map.from_id(m.id)):
                try:
                    what()
                except bpf.PermissionDenied as error:
                    print(error.hint)
        """,
            keeps,
            code=code,
            pin=os.path.join(bpffs, "m"),
            m=Map.from_fd(flows),
        ).splitlines()
    assert len(told[()]) == len(told[21,]) == 5, told
    assert all(
        "needs no capability: a seccomp filter" in line for line in told[()][:3] + told[21,][:3]
    ), told
    assert all("needs CAP_" in line for line in told[()][3:])
    assert all("the capabilities are there: a seccomp filter" in line for line in told[21,][3:])


@kernel
def test_a_read_only_bpffs_is_read_and_not_pinned_to(flows):
    unshare, path = program("unshare"), tempfile.mkdtemp()
    status, out, err = run(
        unshare,
        "-m",
        "sh",
        "-c",
        textwrap.dedent("""
        mount -t bpf -o nosuid,nodev,noexec bpf {path} && {python} {module} pin id {id} {path}/m &&
        mount -o remount,ro {path} && {python} {module} -j lookup {path}/m key {key} &&
        {python} {module} pin {path}/m {path}/n""").format(
            path=path, python=sys.executable, module=MODULE, id=flows.id, key="0 " * 8
        ),
    )
    os.rmdir(path)
    assert status == 1 and out == "null\n", err


@pytest.fixture
def machine(monkeypatch):
    """A function that has the module see a kernel, a memlock limit and files of /proc of our making."""

    def pretend(release, limit=resource.RLIM_INFINITY, **files):
        files = {"/proc/self/" + name: text for name, text in files.items()}
        monkeypatch.setattr(bpf, "_read_text", lambda path: files.get(path, ""))
        monkeypatch.setattr(bpf, "_kernel_release", lambda: release)
        monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))

    return pretend


ALL, NONE = "000001ffffffffff", "0"  # capabilities
OUTSIDE, INSIDE = "0 0 4294967295", "0 1000 1"  # of a user namespace
XSKMAP = bpf.BPF_MAP_TYPE_XSKMAP


@pytest.mark.parametrize(
    "release, limit, capabilities, seccomp, uid_map, map_type, wanted",
    [
        ((5, 4), 65536, ALL, 0, OUTSIDE, HASH, ["RLIMIT_MEMLOCK, here 65536"]),
        ((5, 4), resource.RLIM_INFINITY, ALL, 0, OUTSIDE, HASH, ["LSM"]),
        ((6, 1), resource.RLIM_INFINITY, ALL, 0, OUTSIDE, HASH, ["LSM"]),
        ((6, 1), resource.RLIM_INFINITY, ALL, 2, OUTSIDE, HASH, ["seccomp"]),
        ((6, 1), resource.RLIM_INFINITY, ALL, 2, INSIDE, HASH, ["user namespace"]),
        # where more of them would not help
        (
            (6, 1),
            resource.RLIM_INFINITY,
            NONE,
            2,
            INSIDE,
            XSKMAP,
            ["CAP_BPF", "CAP_NET_ADMIN outside of it, or in it and a BPF token"],
        ),
    ],
)
def test_what_refuses_to_create_a_map_is_told(
    machine, release, limit, capabilities, seccomp, uid_map, map_type, wanted
):
    status = "CapEff:\t%s\nSeccomp:\t%d\n" % (capabilities, seccomp)
    machine(release, limit, status=status, uid_map=uid_map)
    hint = bpf._error(errno.EPERM, bpf.BPF_MAP_CREATE, map_type=map_type).hint
    assert all(part in hint for part in wanted), hint


@pytest.mark.parametrize(
    "release, freezing", [((5, 18), "CAP_BPF"), ((6, 4), "CAP_BPF"), ((6, 5), "no capability")]
)
def test_a_hint_names_a_capability_where_the_kernel_asks_for_it(machine, release, freezing):
    machine(release, status="CapEff:\t0\nSeccomp:\t0\n", uid_map=OUTSIDE)
    assert freezing in bpf._error(errno.EPERM, bpf.BPF_MAP_FREEZE, map_type=HASH).hint
    looking = bpf._error(errno.EPERM, LOOKUP, map_type=HASH).hint
    assert ("CAP_BPF" in looking) == (release < (5, 19))


def test_without_proc_an_error_has_no_hint(machine):
    machine((6, 1))
    assert bpf._error(errno.EPERM, bpf.BPF_MAP_CREATE, map_type=HASH).hint is None


@pytest.mark.parametrize(
    "cmd, is_told", [(bpf.BPF_MAP_UPDATE_ELEM, True), (LOOKUP, True), (bpf.BPF_MAP_CREATE, False)]
)
def test_a_cpu_that_there_is_not_is_hinted_at(cmd, is_told):
    hint = bpf._error(errno.ERANGE, cmd).hint
    assert "CPU number" in hint if is_told else hint is None


@kernel
@pytest.mark.parametrize(
    "map_type, given, wanted",
    [
        (bpf.BPF_MAP_TYPE_LPM_TRIE, dict(key_size=8, value_size=4), "BPF_F_NO_PREALLOC"),
        (bpf.BPF_MAP_TYPE_RINGBUF, dict(max_entries=100), "a power of two"),
        (bpf.BPF_MAP_TYPE_HASH_OF_MAPS, dict(key_size=4), "inner map"),
    ],
)
def test_what_a_type_demands_of_a_new_map_is_told(map_type, given, wanted):
    with pytest.raises(bpf.InvalidArgument) as info:
        Map.create(map_type, **given)
    assert wanted in info.value.hint and "that this map type refuses" in info.value.hint


@kernel
def test_a_failed_creation_is_explained_by_the_kernel(kernel_is):
    """As Linux 7.3 does it; kernels without the words are asked, and their hint is ours."""
    with pytest.raises(bpf.InvalidArgument) as info:
        Map.create(HASH, u32, u32, 1, name="no blanks")
    assert "name" in info.value.hint

    def kernel(number, cmd, ref, size, *common):
        if cmd == bpf.BPF_MAP_CREATE | 1 << 16:
            attr, length = common[0]._obj, common[1]
            assert length == 24 and attr.log_level and attr.log_size >= 64
            ctypes.memmove(attr.log_buf, b"Invalid map_name.\n\0", 19)
        if cmd & 0xFFFF == bpf.BPF_MAP_CREATE:
            return -errno.EINVAL
        return real_kernel(number, cmd, ref, size)

    kernel_is(kernel)
    with pytest.raises(bpf.InvalidArgument) as info:
        Map.create(HASH, u32, u32, 1, name="no blanks")
    assert info.value.hint == "Invalid map_name."
    before = open_fds()
    kernel_is(lambda number, cmd, *rest: os.dup(2) if cmd >> 16 else -errno.EINVAL)
    with pytest.raises(bpf.InvalidArgument):
        Map.create(HASH, u32, u32)
    assert open_fds() == before


@kernel
@pytest.mark.parametrize("name", ["a_name_of_16_chr", "x" * 40])
def test_a_name_that_is_too_long_is_told_so(name):
    with pytest.raises(bpf.MapNotFound, match="at most 15 characters, not %d" % len(name)) as info:
        Map.from_name(name)
    assert name[:15] in info.value.hint


# -- faults: every errno at every call of every operation


def faulty(m, fd):
    """Return {name: operation} of what can be done with a hash map of u32 keys that has the keys 0..9."""
    return {
        "lookup": lambda: m[3],
        "get": lambda: m.get(3),
        "contains": lambda: 3 in m,
        "into": lambda: m.lookup_into(3, bytearray(8)),
        "bytes": lambda: m.lookup_bytes(3),
        "update": lambda: m.update(3, 9),
        "delete": lambda: m.delete(3),
        "take": lambda: m.lookup_and_delete(4),
        "next": lambda: m.next_key(3),
        "items": lambda: sorted(m.items()),
        "keys": lambda: sorted(m),
        "batch": lambda: sum(len(keys) for keys, _ in m.lookup_batch(4)),
        "drain": lambda: sum(len(keys) for keys, _ in m.lookup_and_delete_batch(4)),
        "updates": lambda: m.update_batch([1, 2], [1, 2]),
        "deletes": lambda: m.delete_batch([5, 6]),
        "info": lambda: m.info.id,
        "open": lambda: Map.from_fd(fd, u32, u64).close(),
        "by id": lambda: Map.from_id(m.id).close(),
        "create": lambda: Map.create(ARRAY, u32, u32, 1).close(),
        "maps": lambda: sum(1 for _ in bpf.maps()),
        "freeze": m.freeze,
        "capture": lambda: bpf.capture(
            m, os.path.join(tempfile.gettempdir(), "capture-%d" % os.getpid())
        ),
        "dump": lambda: bpf.main(["-j", "dump", "id", str(m.id)]),
        "btf": lambda: BTF.from_id(1).count,
    }


ERRNOS = [
    errno.EPERM,
    errno.ENOENT,
    errno.E2BIG,
    errno.EBADF,
    errno.EAGAIN,
    errno.ENOMEM,
    errno.EACCES,
    errno.EFAULT,
    errno.EBUSY,
    errno.EEXIST,
    errno.EINVAL,
    errno.ENOSPC,
    errno.EINTR,
    errno.ENOSYS,
    524,
    999,
]


# operations that write: what a fault leaves of the map is not what it was
WRITING = ("update", "delete", "take", "drain", "updates", "deletes", "freeze")


def strike(operation, code, at, kernel_is):
    """Have one call of an operation, the at-th, fail with an errno; check its error and return how many calls it made."""
    calls, numbers = [], {bpf.cmd_name(number): number for number in range(39)}

    def inject(*words):
        calls.append(words[1])
        return -code if len(calls) - 1 == at else real_kernel(*words)

    kernel_is(inject)
    try:
        operation()
    except bpf.SyscallError as failure:
        wanted = bpf._error_class(code, numbers[failure.cmd], HASH)
        assert type(failure) is wanted and failure.errno == code, (code, at)
    except (
        bpf.IterationAborted,
        bpf.BTFError,
    ):  # the kernel's BTF is asked for in another way then
        pass
    finally:
        kernel_is(real_kernel)
    return len(calls)


def check_fault(name, code, at, kernel_is):
    """Check that a failing call leaves the map and the descriptors as they were; return how many calls there were."""
    with Map.create(HASH, u32, u64, 64) as m:
        m.update_batch(list(range(10)), list(range(10)))
        operation, before = faulty(m, m)[name], set(os.listdir("/proc/self/fd"))
        calls = strike(operation, code, at, kernel_is)
        del operation
        if set(os.listdir("/proc/self/fd")) - before:
            gc.collect()  # slow with all the kernel's types about
        assert not set(os.listdir("/proc/self/fd")) - before, (code, at)
        if name not in WRITING:
            assert dict(m) == {key: key for key in range(10)}
        elif name == "drain":  # what is gone was handed out, or is still there
            assert set(m) <= set(range(10))
    return calls


@kernel
@pytest.mark.parametrize("name", sorted(faulty(mock.MagicMock(), 0)))
def test_any_errno_at_any_call_is_an_error_of_its_class_and_leaks_nothing(name, kernel_is, capsys):
    if name == "take":
        since(5, 14)  # of hashes
    elif name == "btf":
        since(5, 11)  # the kernel's by id
        if not os.path.exists("/sys/kernel/btf/vmlinux"):
            lacking("BTF of the kernel")
    gc.collect()  # what earlier tests left behind is not to be closed meanwhile
    for code in ERRNOS:
        for at in range(6):
            if check_fault(name, code, at, kernel_is) <= at:
                break
    capsys.readouterr()
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(tempfile.gettempdir(), "capture-%d" % os.getpid()))


@kernel
@pytest.mark.parametrize(
    "name, when", [("EPERM", 1), ("ENOENT", 3), ("EINTR", 4), ("ENOMEM", 2), ("EBADF", 4)]
)
def test_a_fault_that_strace_injects_is_an_error_of_its_class(name, when):
    source = """
        import bpflookup as bpf
        try:
            with bpf.Map.create(1, bpf.u32, bpf.u64, 8) as m:
                m[1] = 1
                print(m[1], list(m))
        except bpf.SyscallError as error:
            print(type(error).__name__, error.errno)
    """
    options = ["-e", "inject=bpf:error=%s:when=%d" % (name, when), "-o", os.devnull]
    status, out, err = straced("bpf", source, options=options)
    code = getattr(errno, name)
    assert status == 0 and (out.split()[-1] == str(code) or out == "1 [1]\n"), (out, err)


# ---- 3. System call ---------------------------------------------------------
# The number of bpf(2), what one call costs, trace(), how CPUs are counted.


# -- the number of bpf(2)


@pytest.mark.parametrize(
    "machine, pointer_size, number",
    [
        ("x86_64", 8, 321),
        ("x86_64", 4, 357),
        ("i686", 4, 357),
        ("i686", 8, 321),
        ("aarch64", 8, 280),
        ("aarch64", 4, 386),
        ("armv7l", 4, 386),
        ("armv8l", 4, 386),
        ("riscv64", 8, 280),
        ("s390x", 8, 351),
        ("s390x", 4, 351),
        ("ppc64le", 8, 361),
        ("ppc", 4, 361),
        ("mips", 4, 4355),
        ("mips64", 8, 5315),
        ("loongarch64", 8, 280),
        ("sparc64", 8, 349),
        ("parisc", 4, 341),
        ("alpha", 8, 515),
        ("ia64", 8, 1341),
        ("m68k", 4, 354),
        ("sh4", 4, 375),
        ("xtensa", 4, 340),
        ("microblaze", 4, 387),
        ("arc", 4, 280),
    ],
)
def test_uname_tells_the_number_of_bpf(machine, pointer_size, number):
    assert bpf.syscall_number(machine, pointer_size) == number


@pytest.mark.parametrize(
    "bits, order, machine, flags, number",
    [
        (64, "little", 62, 0, 321),
        (32, "little", 62, 0, 0x40000000 + 321),
        (32, "little", 3, 0, 357),
        (64, "little", 183, 0, 280),
        (32, "little", 40, 0, 386),
        (64, "big", 22, 0, 351),
        (32, "big", 22, 0, 351),
        (64, "little", 8, 0, 5315),
        (32, "little", 8, 0x20, 6319),
        (32, "big", 8, 0, 4355),
        (64, "big", 21, 0, 361),
        (64, "little", 258, 0, 280),
        (64, "little", 0x9026, 0, 515),
        (64, "little", 9999, 0, None),
    ],
)
def test_the_elf_header_tells_the_number_of_bpf(tmp_path, bits, order, machine, flags, number):
    head = bytearray(64)
    head[:6] = b"\x7fELF" + bytes([bits // 32, 1 if order == "little" else 2])
    head[18:20] = machine.to_bytes(2, order)
    head[36 if bits == 32 else 48 :][:4] = flags.to_bytes(4, order)
    start = 36 if bits == 32 else 48
    head[start : start + 4] = flags.to_bytes(4, order)
    (tmp_path / "exe").write_bytes(bytes(head))
    assert bpf._elf_syscall_number(str(tmp_path / "exe")) == number


def test_this_process_uses_the_number_of_its_own_program(monkeypatch, tmp_path):
    assert bpf.syscall_number() == bpf._elf_syscall_number("/proc/self/exe")
    (tmp_path / "text").write_text("no ELF")
    assert bpf._elf_syscall_number(str(tmp_path / "text")) is None
    assert bpf._elf_syscall_number(str(tmp_path / "none")) is None
    monkeypatch.setattr(bpf, "_elf_syscall_number", lambda: None)
    assert bpf.syscall_number() == bpf.syscall_number(
        os.uname().machine, ctypes.sizeof(ctypes.c_void_p)
    )
    with pytest.raises(bpf.NotSupported, match="SYSCALL_NUMBER"):
        bpf.syscall_number("vax", 4)
    monkeypatch.setattr(bpf, "SYSCALL_NUMBER", 4711)
    assert bpf.syscall_number() == 4711


def test_uname_of_another_personality_does_not_mislead():
    status, out, err = run(
        program("setarch"),
        "linux32",
        sys.executable,
        "-c",
        "import os, bpflookup; print(os.uname().machine, bpflookup.syscall_number())",
        env=importing(),
    )
    assert status == 0, err
    if ctypes.sizeof(ctypes.c_void_p) == 8 and os.uname().machine == "x86_64":
        assert out == "i686 321\n"


# -- one call


def test_importing_makes_no_system_call_of_note():
    source = """
        import ctypes, os, sys, errno
        os.write(2, b"MARK")
        import bpflookup
        os.write(2, b"MARK")
    """
    status, _, err = straced("bpf,openat,open", source)
    assert status == 0
    opened = [
        line
        for line in err.split("MARK")[1].splitlines()
        if "open" in line and "bpflookup" not in line
    ]
    assert opened == [line for line in opened if "O_DIRECTORY" in line], opened


@kernel
def test_a_lookup_is_one_system_call(flows, bpffs):
    flows[Key(7)] = Value(1, 2)
    pin = os.path.join(bpffs, "flows")
    flows.pin(pin)
    source = """
        import ctypes, os, sys
        import bpflookup as bpf
        class Key(ctypes.Structure):
            _fields_ = [("src", ctypes.c_uint32), ("rest", ctypes.c_uint32)]
        m = bpf.Map.from_pin(sys.argv[1], Key)
        key = Key(7)
        print(m.fd, ctypes.addressof(key))
        for name in ("lookup", "lookup_bytes", "__contains__", "get"):
            os.write(2, b"MARK\\n")
            getattr(m, name)(key)
        os.write(2, b"MARK\\n")
    """
    status, out, err = straced("bpf", source, pin)
    assert status == 0, err
    fd, address = map(int, out.split())
    opening, *lookups, end = err.split("MARK\n")
    assert "BPF_OBJ_GET" in opening
    assert "BPF_OBJ_GET_INFO_BY_FD" in opening
    assert "ELEM" not in opening
    assert len(lookups) == 4
    for text in lookups:
        lines = [line for line in text.splitlines() if "bpf(" in line]
        assert len(lines) == 1, lines
        assert "bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=%d, key=%#x, value=0x" % (fd, address) in lines[0]
        assert lines[0].endswith("flags=BPF_ANY}, 32) = 0")
    assert "bpf(" not in end


@pytest.mark.parametrize(
    "raised, wanted", [(True, resource.RLIM_INFINITY), (False, 99), (None, None)]
)
def test_the_memlock_limit_of_old_kernels_is_raised_where_that_is_allowed(
    monkeypatch, kernel_is, raised, wanted
):
    calls, limits = [], [65536, 99]

    def fake(number, cmd, ref, size):
        calls.append(cmd)
        return 7 if limits[0] == wanted else -errno.EPERM

    def setrlimit(which, new):
        assert which == resource.RLIMIT_MEMLOCK
        if raised is None or not raised and new[1] == resource.RLIM_INFINITY:
            raise ValueError("not allowed to raise maximum limit")
        limits[:] = new

    kernel_is(fake)
    monkeypatch.setattr(bpf, "_kernel_release", lambda: (5, 10))
    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    if raised is None:  # a sandbox refuses setrlimit altogether
        with pytest.raises(bpf.PermissionDenied):
            bpf._bpf_charged(bpf.BPF_MAP_CREATE, bpf.bpf_attr())
        return
    assert bpf._bpf_charged(bpf.BPF_MAP_CREATE, bpf.bpf_attr()) == 7
    assert calls == [bpf.BPF_MAP_CREATE] * 2
    monkeypatch.setattr(bpf, "_kernel_release", lambda: (5, 11))
    limits[0] = 65536
    with pytest.raises(bpf.PermissionDenied):
        bpf._bpf_charged(bpf.BPF_MAP_CREATE, bpf.bpf_attr())
    assert limits[0] == 65536 and len(calls) == 3


# -- trace


@kernel
def test_trace_tells_calls_and_costs_nothing_when_off(flows):
    assert flows.get(Key(1)) is None
    libc = bpf._syscall
    outer, inner = [], []
    with bpf.trace(outer.append):
        flows[Key(1, 2, 3, 4)] = Value(5, 6)
        with bpf.trace(inner.append):
            flows[Key(1, 2, 3, 4)]
        assert Key(9) not in flows
        flows.next_key()
        m = Map.create(HASH, u32, u32, 3, name="traced")
    assert bpf._syscall is libc
    flows.get(Key(1))
    key, value = "0100000002000304", "05000000000000000600000000000000"
    if sys.byteorder == "little":
        assert len(outer) == 6 and len(inner) == 1
        assert (
            "UPDATE_ELEM, {map_fd=%d, key=%s, value=%s, flags=0}, 32) = 0 <"
            % (flows.fd, key, value)
            in outer[0]
        )
        assert inner[0] == outer[1]
        assert "key=%s" % key in inner[0]
        assert "= 0 -> %s <" % value in inner[0]
        assert "= -1 ENOENT <" in outer[2] and "-> %s <" % key in outer[3]
    assert (
        'max_entries=3, map_flags=0, inner_map_fd=0, numa_node=0, map_name="traced"}, 44) = %d <'
        % m.fd
        in outer[4]
    )
    assert all(line.endswith(" ns>\n") for line in outer)


@kernel
def test_trace_reads_no_more_than_a_flagged_value_has():
    lines = []
    with Map.create(PERCPU_ARRAY, u32, u32, 1) as m, bpf.trace(lines.append):
        with contextlib.suppress(bpf.InvalidArgument):  # before 7.0
            m.update(0, 7, bpf.BPF_F_ALL_CPUS)
    assert "value=%s, flags=0x10}" % bytes(u32(7)).hex() in lines[0]


# -- CPUs


@pytest.mark.parametrize(
    "text, cpus",
    [
        ("0-3\n", (0, 1, 2, 3)),
        ("0\n", (0,)),
        ("0,2-5\n", (0, 2, 3, 4, 5)),
        ("0-1,8-9,12\n", (0, 1, 8, 9, 12)),
        ("", ()),
        ("\n", ()),
        ("0-\n", ()),
        ("all\n", ()),
        ("0-999999\n", tuple(range(8193))),  # more than any machine has
    ],
)
def test_a_list_of_cpus_is_read_range_by_range(monkeypatch, text, cpus):
    fake_sys(monkeypatch, text)
    assert bpf._sysfs_cpus() == cpus


@pytest.mark.parametrize(
    "text, count, cpus",
    [
        ("0-3", 4, (0, 1, 2, 3)),
        ("0,2-4", 4, (0, 2, 3, 4)),  # a hole: slots follow the mask
        # the kernel's count wins
        ("", 4, (0, 1, 2, 3)),
        ("0-1", 4, (0, 1, 2, 3)),
        ("0-7", 4, (0, 1, 2, 3)),
    ],
)
def test_the_kernel_counts_and_sysfs_names(monkeypatch, text, count, cpus):
    fake_sys(monkeypatch, text)
    monkeypatch.setattr(bpf, "_proven_cpus", None)
    monkeypatch.setattr(bpf, "_count_cpus_by_lru", lambda: count)
    assert bpf.possible_cpus() == cpus == bpf._proven_cpus


@kernel
def test_cpus_are_counted_right(monkeypatch):
    monkeypatch.setattr(bpf, "_proven_cpus", None)
    fake_sys(monkeypatch, "")
    counted = len(bpf.possible_cpus())
    monkeypatch.undo()
    if not os.path.exists("/sys/devices/system/cpu/possible"):
        lacking("/sys")
    assert counted == len(bpf._sysfs_cpus())


# ---- 4. Layout --------------------------------------------------------------
# Types as ctypes classes and C text: what is taken and refused; bytes into values and back in every form; meanings;
# classes and source made from layouts; types that lie.


class Packed(ctypes.Structure):
    """The same fields as Natural without holes."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("kind", u8), ("address", u32), ("name", ctypes.c_char * 3)]


def hostile_btf(n):
    """Yield (Blob, type id) of types that are larger than they look, of n parts."""
    b = Blob()
    one = b.int("u8", 1)
    parts = [b.struct("", 1, ("a", one, 0)) for _ in range(n)]
    yield (
        b,
        b.struct("anonymous", n, *[("m%d" % at, part, 8 * at) for at, part in enumerate(parts)]),
    )
    b = Blob()
    one = b.int("u8", 1)
    names = [("a_%d" % (at + n), one, 8 * at) for at in range(n)]
    yield b, b.struct("collide", 2 * n, *names, *[("a", one, 8 * (n + at)) for at in range(n)])
    b = Blob()
    one = b.int("u8", 1)

    def alike(at):
        return [("abcdefgh"[index], one, 8 * index) for index in range(8)] + [("z%d" % at, one, 64)]

    parts = [b.struct("s", 9, *alike(at)) for at in range(n // 4)]
    yield (
        b,
        b.struct(
            "alike", 9 * len(parts), *[("m%d" % at, part, 72 * at) for at, part in enumerate(parts)]
        ),
    )
    b = Blob()
    name = b.name("x" * 1000)
    one = b.int("u8", 1)
    yield b, b.struct("long", n, *[(name, one, 8 * at) for at in range(n)])
    b = Blob()
    number = b.int("u32", 4)
    yield b, b.union("bits", 4, *[("m%d" % at, number, 0, 1) for at in range(n)])


class Choosing(ctypes.Structure):
    """A structure whose first field tells the branch of its union."""

    _fields_ = [
        ("kind", u8),
        ("u", type("U", (ctypes.Union,), {"_fields_": [("a", u8), ("b", u16)]})),
    ]
    _union_ = {"u": ("kind", {0: "a", 1: "b"})}


# -- ctypes classes: what is taken for a layout, what is refused


class Nested(ctypes.Structure):
    """A structure in a structure; 40 bytes, also where u64 is aligned to 4 (i386)."""

    _fields_ = [("inner", Natural), ("list", u16 * 5), ("tail", u64)]


OTHER, OTHER16 = ("be", u16.__ctype_be__) if sys.byteorder == "little" else ("le", u16.__ctype_le__)


@pytest.mark.parametrize(
    "ctype, size",
    [
        (u8, 1),
        (ctypes.c_int64, 8),
        (ctypes.c_double, 8),
        (ctypes.c_bool, 1),
        (Packed, 8),
        (Natural, 12),
        (Nested, 32),
        (u32 * 4, 16),
        (ctypes.c_char * 16, 16),
        (bytes, 12345),
        (u32.__ctype_be__, 4),
        (Natural * 2 * 3, 72),
    ],
)
def test_plain_types_of_the_right_size_pass(ctype, size):
    bpf.check_layout(ctype, size)


@pytest.mark.parametrize(
    "ctype",
    [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_wchar_p,
        ctypes.c_wchar,
        ctypes.py_object,
        ctypes.POINTER(u32),
        ctypes.CFUNCTYPE(None),
        ctypes.c_void_p * 2,
        ctypes.c_longdouble,
        ctypes.Structure,
        ctypes.Union,
        ctypes._SimpleCData,
        int,
        str,
        None,
        8,
        "u32",
        u32(5),
        type("P", (ctypes.Structure,), {"_fields_": [("a", u32), ("p", ctypes.py_object)]}),
        type("Q", (ctypes.Structure,), {"_fields_": [("a", ctypes.POINTER(u32) * 3)]}),
    ],
)
def test_what_means_nothing_in_a_map_is_refused(ctype):
    with pytest.raises(bpf.LayoutError):
        bpf.check_layout(ctype, ctypes.sizeof(ctypes.c_void_p))
    with pytest.raises(bpf.LayoutError):
        bpf.describe_layout(ctype) and bpf.check_layout(ctype, 8)


def test_a_wrong_size_is_explained():
    with pytest.raises(bpf.LayoutError) as info:
        bpf.check_layout(Natural, 8, "value of map 5")
    text = str(info.value)
    assert text.startswith(
        "value of map 5 has 8 bytes in the map, struct Natural has 12; "
        "with _pack_ = 1 it would have 8, which fits\n"
    )
    assert bpf.describe_layout(Natural) in text
    with pytest.raises(bpf.LayoutError, match="without _pack_ it would have 12, which fits"):
        bpf.check_layout(Packed, 12)
    with pytest.raises(bpf.LayoutError, match="has 8 bytes in the map, u32 has 4"):
        bpf.check_layout(u32, 8)


@pytest.mark.parametrize(
    "given, way",
    [
        ("u64 a, u64 b", "'; parse_type() makes one of C text"),
        (bpf.layout("u64 a, u64 b"), ">; its .ctype() is one"),
        (int, "not <class 'int'>"),
    ],
)
def test_what_could_become_a_class_is_refused_with_the_way_to_one(given, way):
    with pytest.raises(bpf.LayoutError) as refusal:
        bpf.check_layout(given, 16)
    assert str(refusal.value).endswith(way)


def test_two_fields_of_one_name_are_refused():
    twice = type("twice", (ctypes.Structure,), {"_fields_": [("a", u32), ("a", u32)]})
    with pytest.raises(bpf.LayoutError, match="two fields of one name"):
        bpf.check_layout(twice, 8)


def test_lists_nested_too_deeply_are_refused():
    nested = []
    for _ in range(40):
        nested = [nested]
    with pytest.raises(bpf.LayoutError, match="32 levels of lists"):
        bpf.to_python(nested)


@pytest.mark.parametrize(
    "spec", [5, ("kind",), ("none", {1: "x"}), ("kind", 5), ("kind", {1: "x"})]
)
def test_a_union_tag_that_names_no_branch_is_refused(spec):
    union = type("union", (ctypes.Union,), {"_fields_": [("x", u32), ("y", u32)]})
    fields = [("u", union), ("kind", u32)]
    tagged = type("tagged", (ctypes.Structure,), {"_fields_": fields, "_union_": {"u": spec}})
    with pytest.raises(bpf.LayoutError, match="_union_|no branch"):
        bpf.to_python(tagged())


def test_types_nested_too_deeply_are_refused():
    deep = u8
    for _ in range(40):
        deep = deep * 1
    with pytest.raises(bpf.LayoutError, match="32 levels"):
        bpf.check_layout(deep, 1)
    with pytest.raises(bpf.LayoutError, match="32 levels"):
        bpf.to_python(deep())
    deep = u8
    for _ in range(40):
        deep = type("S", (ctypes.Structure,), {"_fields_": [("s", deep)]})
    for function in (
        lambda: bpf.check_layout(deep, 1),
        lambda: bpf.to_python(deep()),
        lambda: bpf.describe_layout(deep),
    ):
        with pytest.raises(bpf.LayoutError, match="32 levels"):
            function()


@pytest.mark.parametrize(
    "ctype, name",
    [
        (u8, "u8"),
        (ctypes.c_int8, "s8"),
        (u16, "u16"),
        (ctypes.c_int32, "s32"),
        (u64, "u64"),
        (ctypes.c_float, "f32"),
        (ctypes.c_double, "f64"),
        (ctypes.c_bool, "bool"),
        (ctypes.c_char, "char"),
        (ctypes.c_char * 16, "char[16]"),
        (u16 * 3 * 2, "u16[2][3]"),
        (Natural, "struct Natural"),
        (bytes, "bytes"),
        (type("Mine", (u32,), {}), "u32"),
        (OTHER16, OTHER + "16"),
    ],
)
def test_a_ctype_has_a_short_name(ctype, name):
    assert bpf.type_name(ctype) == name


def test_describe_layout_shows_every_enumerator_of_an_enum():
    names = "A = -1, " + ", ".join("N%d" % number for number in range(20))
    lines = bpf.describe_layout("enum state { %s }" % names).splitlines()
    assert lines[0] == "offset  size  enum state" and lines[-1] == "4 bytes"
    found = [line.strip() for line in lines[1:-1]]
    assert found == ["A=-1"] + ["N%d=%d" % (number, number) for number in range(20)]


def test_describe_layout_shows_offsets_and_holes():
    assert bpf.describe_layout(Nested) == textwrap.dedent("""\
        offset  size  struct Nested
             0    12    inner: struct Natural
             0     1      kind: u8
             1     3      (hole)
             4     4      address: u32
             8     3      name: char[3]
            11     1      (hole)
            12    10    list: u16[5]
            22     2    (hole)
            24     8    tail: u64
        32 bytes, 6 of them padding (must match in a key, best zero)""")
    assert bpf.describe_layout(OTHER16).endswith("%s16\n2 bytes" % OTHER)


def test_inherited_fields_count():
    class Base(ctypes.Structure):
        _fields_ = [("a", u8), ("b", u8, 3)]

    class Derived(Base):
        _fields_ = [("c", u8), ("d", u32)]

    bpf.check_layout(Derived, ctypes.sizeof(Derived))
    assert bpf.to_python(Derived(1, 2, 3, 4)) == {"a": 1, "b": 2, "c": 3, "d": 4}

    class Bad(ctypes.Structure):  # for CPython before 3.14
        _fields_ = [("a", u8), ("b", u32, 24), ("c", u32, 8)]

    class Heir(Bad):
        _fields_ = [("d", u32)]

    def outcome(ctype):
        try:
            bpf.check_layout(ctype, ctypes.sizeof(ctype))
        except bpf.LayoutError as error:
            return "bitfields" if "bitfields" in str(error) else error
        return "fits"

    assert outcome(Bad) == outcome(Heir) == ("bitfields" if sys.version_info < (3, 14) else "fits")


@pytest.mark.parametrize("tag", ["_union_", "_json_"])
def test_the_tags_of_a_base_class_hold_for_its_fields_in_a_derived_one(tag):
    """Two levels up too; a class of its own tags adds to them."""

    class Branches(ctypes.Union):
        _fields_ = [("number", u32), ("raw", u8 * 4)]

    tags = {"_union_": {"u": ("kind", {1: "number", 2: "raw"})}, "_json_": {"u": "said"}}
    base = type(
        "Base", (ctypes.Structure,), {"_fields_": [("kind", u32), ("u", Branches)], tag: tags[tag]}
    )
    middle = type("Middle", (base,), {"_fields_": [("more", u32)], "_json_": {"more": "less"}})
    last = type("Last", (middle,), {"_fields_": [("end", u32)]})
    wanted = {
        "_union_": {"kind": 2, "u": {"raw": [7, 0, 0, 0]}},
        "_json_": {"kind": 2, "said": {"number": 7, "raw": [7, 0, 0, 0]}},
    }[tag]
    raw = struct.pack("=I4B2I", 2, 7, 0, 0, 0, 8, 9)
    if sys.byteorder == "big" and tag == "_json_":
        wanted["said"]["number"] = 7 << 24
    assert bpf.to_python(base.from_buffer_copy(raw[:8])) == wanted
    assert bpf.to_python(middle.from_buffer_copy(raw[:12])) == dict(wanted, less=8)
    assert bpf.to_python(last.from_buffer_copy(raw)) == dict(wanted, less=8, end=9)


@pytest.mark.parametrize(
    "tags",
    [
        {"_json_": {"a": "b"}},
        {"_json_": {"x": "y"}},
        {"_union_": {"x": ("a", {})}},
        {"_union_": {"a": ("b", {0: "ip4"})}},
    ],
)
def test_union_tags_that_make_no_sense_are_refused(tags):
    cls = type("T", (ctypes.Structure,), dict(_fields_=[("a", u8), ("b", u8)], **tags))
    with pytest.raises(bpf.LayoutError):
        bpf.to_python(cls())


@pytest.mark.parametrize(
    "ctype",
    [
        Choosing,
        Choosing * 2,
        type("Outer", (ctypes.Structure,), {"_fields_": [("in", Choosing * 3)]}),
    ],
)
def test_a_tag_without_a_branch_is_told_wherever_it_stands(ctype):
    for form in bpf._FORMS:
        reader = bpf.layout(ctype).reader(form)
        with pytest.raises(bpf.LayoutError, match="Choosing.u: no branch for kind = 2"):
            raw = bytes(ctypes.sizeof(ctype) - 4) + b"\2\0\0\0"
            whole(form, reader.one(raw))


def test_equal_hashes_are_for_equal_layouts():
    layouts = [list(hostile_btf(80))[2]]
    b, type_id = layouts[0]
    btf = b.btf()
    parts = [member.layout for member in btf.layout(type_id).members]
    texts = [
        "u8 a, u8 b",
        "u8 a, s8 b",
        "u8 a, u8 c",
        "enum { A } e",
        "enum { B } e",
        "u8[2] a",
        "u8[3] a",
        "be16 a",
        "le16 a",
    ]
    parts += [bpf.layout("struct { u8 x; struct { %s; } in; }" % text) for text in texts]
    assert len({hash(one) for one in parts}) == len(set(parts)) == len(parts)


@pytest.mark.parametrize("mine, theirs, wrong", [
    ("u32 a, u32 pad, u64 b", "u32 a, u64 b", ""),  # what lies in holes, from end to end
    ("u64 b, u32 a, u16 pad, u16 more", "u64 b, u32 a", ""),
    ("u64 a, u32 pad, u32 b", "struct { u64 a; struct { u32 : 32; u32 b; }; }", ""),
    ("u32 a, u32 c, u64 b", "u32 a, u32 x, u64 b", "c has no member 'c' in BTF; x is in BTF alone"),
    ("u32 a:3, s32 b:5", "u32 a:3, s32 b:5", ""),
    ("s32 a:3, s32 b:5", "u32 a:3, s32 b:5", "a is s32 here, u32 in BTF"),
    ("u32 a:3, u32 b:5", "u32 a:3, enum { A } b:5", ""),
    ("u32 a:3, u32 b:6", "u32 a:3, u32 b:5", "b is at byte :3, :6 bytes here, at byte :3, :5 bytes in BTF"),
    ("u64 a, u32 b", "u8 a[8], char b[4]", ""),
    ("u8 a[8], char b[4]", "u64 a, float b", ""),
    ("struct { u8 x; u8 y; } a", "u16 a", "a is struct (anonymous) here, u16 in BTF"),
    ("struct { struct { u16 x; u16 y; } i; u32 z; } a", "struct { struct { u16 x; s16 y; } i; u32 z; } a",
     "a.i.y is u16 here, s16 in BTF"),
    ("struct { u32 p; struct { u16 x; u16 y; }; } a[2]", "struct { u32 p; struct { u16 x; s16 y; }; } a[2]",
     "a[].y is u16 here, s16 in BTF"),
    ("struct { u32 q; struct { u32 p; struct { u16 x; u16 y; }; }; }", "u32 q, u32 p, u16 x, u16 y", ""),
    ("struct { u32 q; struct { u32 p; struct { u16 x; u16 y; }; }; }", "u32 q, u32 p, u16 y, u16 x",
     "x is at byte 8, 2 bytes here, at byte 10, 2 bytes in BTF; y is at byte 10, 2 bytes here, at byte 8, 2 bytes in BTF"),
    ("u32 a, u8 z[0]", "u32 a", ""), ("u32 a", "u32 a, u8 z[0]", ""),
])  # fmt: skip
def test_strict_differences_are_those_of_what_is_read(mine, theirs, wrong):
    mine, theirs = bpf.layout(mine), bpf.layout(theirs)
    assert "; ".join("%s %s" % pair for pair in mine.differences(theirs, True)) == wrong
    loose = "; ".join("%s %s" % pair for pair in mine.differences(theirs))
    assert loose == (wrong if " is at byte " in wrong else ""), loose


# -- bitfields

C_NAMES = {
    u8: "unsigned char",
    u16: "unsigned short",
    u32: "unsigned int",
    u64: "unsigned long long",
}


def random_record(rng, number):
    """Return (ctypes class, C declaration) of the same random fields, about half of them bitfields."""
    pack = rng.choice([0, 0, 0, 1, 2, 4])
    fields, members = [], []
    for index in range(rng.randrange(1, 7)):
        ctype = rng.choice(list(C_NAMES))
        bits = rng.randrange(1, 8 * ctypes.sizeof(ctype) + 1) if rng.random() < 0.6 else None
        fields.append(("f%d" % index, ctype) + ((bits,) if bits else ()))
        members.append("%s f%d%s;" % (C_NAMES[ctype], index, ":%d" % bits if bits else ""))
    body = dict({"_pack_": pack, "_layout_": "ms"} if pack else {}, _fields_=fields)
    declaration = "struct r%d { %s };" % (number, " ".join(members))
    if pack:
        declaration = "#pragma pack(push, %d)\n%s\n#pragma pack(pop)" % (pack, declaration)
    return type("r%d" % number, (ctypes.Structure,), body), declaration


def test_bitfields_lie_where_gcc_puts_them_or_are_refused(tmp_path):
    rng = random.Random(20260101)
    records = [random_record(rng, number) for number in range(300)]
    source = ["#include <stdio.h>\n#include <string.h>"] + [
        declaration for _, declaration in records
    ]
    source.append(
        "#define SHOW(t, f) { struct t x; memset(&x, 0, sizeof x); x.f = ~0ull; "
        'for (unsigned i = 0; i < sizeof x; i++) printf("%02x", ((unsigned char *)&x)[i]); puts(""); }'
    )
    source.append("int main(void) {")
    for ctype, _ in records:
        source += ["SHOW(%s, %s)" % (ctype.__name__, field[0]) for field in ctype._fields_]
    printed = iter(compiled(tmp_path, "\n".join(source) + "\nreturn 0; }\n").split())
    accepted = refused_rightly = 0
    for ctype, declaration in records:
        in_c = [next(printed) for _ in ctype._fields_]
        here = []
        for field in ctype._fields_:
            raw = bytearray(ctypes.sizeof(ctype) + 16)  # older Pythons may set bits beyond the end
            setattr(ctype.from_buffer(raw), field[0], (1 << 64) - 1)
            here.append(bytes(raw[: ctypes.sizeof(ctype)]).hex())
        try:
            bpf.check_layout(ctype, len(in_c[0]) // 2)
            assert here == in_c, declaration
            accepted += 1
        except bpf.LayoutError as error:
            assert here != in_c, "%s\n%s" % (error, declaration)
            refused_rightly += 1
    assert accepted > 100


@pytest.mark.parametrize("fields, placed", [
    ([(4, 4, 20), (8, 4, 33)], ([0, 20], 8)), ([(4, 4, 20), (8, 4, 50)], ([0, 32], 12)),
    ([(2, 2, None), (8, 4, 60), (4, 4, 3)], ([0, 32, 92], 12)),
])  # fmt: skip
def test_bits_of_a_type_wider_than_its_alignment_lie_as_gcc_for_i386_has_them(fields, placed):
    """There a long long is aligned to 4 bytes: it may cross one unit of them, not two."""
    assert bpf._c_placement(fields, False) == placed


@pytest.mark.parametrize(
    "fields",
    [
        [("a", u32 * 4), ("b", ctypes.c_ulong, 28), ("c", u32, 4)],
        [("a", u8, 8), ("b", ctypes.c_int32, 1), ("f", ctypes.c_float), ("z", u64 * 0)],
    ],
)
def test_bitfields_before_the_object_are_never_touched(fields):
    """Older Pythons give bitfields of a union negative offsets."""
    union = type("U", (ctypes.Union,), {"_fields_": fields})
    outside = any(getattr(union, field[0]).offset < 0 for field in fields)
    for _ in range(50):
        try:
            bpf.check_layout(union, ctypes.sizeof(union))
            assert not outside
        except bpf.LayoutError:
            pass


@pytest.mark.parametrize("bits", [(), (0,)], ids=["", "kind_flag"])
def test_only_bitfields_begin_within_a_byte(bits):
    for kind in ("struct", "array", "pointer", "enum", "float", "int"):
        b = Blob()
        number = b.int("u8", 1)
        ids = {
            "struct": b.struct("in", 1, ("m", number, 0)),
            "array": b.array(number, 2),
            "pointer": b.of(b.PTR, number),
            "enum": b.enum("e", 4, [("A", 1)]),
            "float": b.add(b.FLOAT, "float", 0, 4),
            "int": number,
        }
        record = b.struct("s", 16, ("first", number, 0), ("x", ids[kind], 11) + bits)
        if kind == "int":  # before kind_flag one of all its bits may be a bitfield
            assert b.btf().layout(record).members[1].bits == 8
        else:
            with pytest.raises(bpf.BTFError, match="member 'x' does not lie inside of it"):
                b.btf().layout(record)


def test_bytes_of_big_endian_bitfields_are_counted_from_the_high_end():
    class Bits(ctypes.BigEndianStructure):
        _fields_ = [
            ("a", u8, 1),
            ("b", u8, 7),
            ("c", u16.__ctype_be__, 4),
            ("d", u16.__ctype_be__, 12),
        ]

    raw = b"\x61\x12\x34"
    layout = bpf.layout(Bits)
    shown = {name: getattr(Bits.from_buffer_copy(raw + b"\0"), name) for name in "ab"}
    assert shown == {"a": 0, "b": 0x61}
    raw = bytes(Bits(a=1, b=5, c=3, d=0x456))
    assert layout.reader("plain").one(raw) == {"a": 1, "b": 5, "c": 3, "d": 0x456}
    assert layout.pack({"a": 1, "b": 5, "c": 3, "d": 0x456}, base=bytes(len(raw))) == raw


def test_bitfields_of_ordered_types_lie_as_those_of_the_machine():
    given = {"a": 5, "b": 0x123}
    for text in ("be16 a : 4, be16 b : 12", "le16 a : 4, le16 b : 12"):
        assert bpf.layout(text).pack(given) == bpf.layout("u16 a : 4, u16 b : 12").pack(given)


# -- what goes in: objects, numbers, bytes


@pytest.mark.parametrize(
    "ctype, given, raw",
    [
        (u32, 7, b"\7\0\0\0"),
        (u32, True, b"\1\0\0\0"),
        (ctypes.c_int8, -1, b"\xff"),
        (u8, 255, b"\xff"),
        (u16.__ctype_be__, 1, b"\0\1"),
        (u32, b"abcd", b"abcd"),
        (u32, memoryview(b"abcd"), b"abcd"),
        (u32, memoryview(b"a.b.c.d.")[::2], b"abcd"),
        (bytes, bytearray(b"abcd"), b"abcd"),
        (ctypes.c_bool, True, b"\1"),
        (ctypes.c_bool, 0, b"\0"),
        (ctypes.c_double, 0, bytes(8)),
        (u32, u32(7), b"\7\0\0\0"),
    ],
)
def test_numbers_text_and_bytes_become_the_bytes_of_their_type(ctype, given, raw):
    obj = bpf._to_ctype(ctype, len(raw), given, "key")
    if sys.byteorder == "little":
        assert bytes(obj) == raw


class Huge:
    """A number that no key holds."""

    def __index__(self):
        return 1 << 64


@pytest.mark.parametrize(
    "ctype, given",
    [
        (u32, -1),
        (u32, 1 << 32),
        (ctypes.c_int8, 128),
        (ctypes.c_int8, -129),
        (u32, 1.0),
        (u32, "7"),
        (u32, None),
        (u32, b"abc"),
        (u32, b"abcde"),
        (u32, memoryview(b"abcdef")),
        (u32, ctypes.c_int32(1)),
        (u32, (u8 * 4)()),
        (u32, Packed()),
        (u32, Huge()),
        (ctypes.c_bool, 2),
        (ctypes.c_bool, "x"),
        (ctypes.c_float, 1e300),
        (ctypes.c_float, "1"),
        (Packed, Natural()),
        (Packed, 5),
        (Packed, Packed),
        (bytes, u32(1)),
        (bytes, 5),
        (bytes, "abcd"),
    ],
)
def test_what_does_not_fit_is_refused(ctype, given):
    size = 4 if ctype is bytes else ctypes.sizeof(ctype)
    with pytest.raises(bpf.LayoutError, match="key"):
        bpf._to_ctype(ctype, size, given, "key")


def test_released_memory_and_numbers_without_end_are_refused():
    released = memoryview(bytes(4))
    released.release()
    with pytest.raises(bpf.LayoutError, match="released"):
        bpf._to_ctype(u32, 4, released, "key")
    with pytest.raises(bpf.LayoutError):
        bpf._to_ctype(ctypes.c_double, 8, 10**400, "value")


def test_an_object_whose_class_was_replaced_is_no_buffer_overrun():
    class Big(ctypes.Structure):
        _fields_ = [("a", u64 * 100)]

    class Small(ctypes.Structure):
        _fields_ = [("a", u8)]

    small = Small()
    try:
        small.__class__ = Big
    except TypeError:
        return
    with pytest.raises(bpf.LayoutError):
        bpf._to_ctype(Big, 800, small, "key")


# -- what comes out: plain Python and JSON


class Address(ctypes.Union):
    _fields_ = [("ip4", u8 * 4), ("ip6", u16 * 8)]


class User(ctypes.Structure):
    _fields_ = [
        ("ID", u32),
        ("name", ctypes.c_char * 8),
        ("u", Address),
        ("kind", u8),
        ("secret", u8),
    ]
    _json_ = {"ID": "id", "secret": None}
    _union_ = {"u": ("kind", {4: "ip4", 6: "ip6"})}


def test_to_python_follows_tags():
    user = User(7, b"root", Address((10, 0, 0, 1)), 4, 99)
    assert bpf.to_python(user) == {"id": 7, "name": "root", "u": {"ip4": [10, 0, 0, 1]}, "kind": 4}
    user.kind = 6
    assert bpf.to_python(user)["u"] == {
        "ip6": [
            10 if sys.byteorder == "little" else 2560,
            256 if sys.byteorder == "little" else 1,
            0,
            0,
            0,
            0,
            0,
            0,
        ]
    }
    user.kind = 5
    with pytest.raises(bpf.LayoutError, match="no branch for kind = 5"):
        bpf.to_python(user)
    assert set(bpf.to_python(Address())) == {"ip4", "ip6"}  # without a tag every branch is shown
    assert json.loads(bpf.to_json([user.ID, User(kind=4)]))[1]["id"] == 0


@pytest.mark.parametrize(
    "raw, plain",
    [
        (b"bash\0\0\0\0", "bash"),
        (b"bash\0old", "bash"),
        (b"12345678", "12345678"),
        (bytes(8), ""),
        (b"\xc3\xa9\0\0\0\0\0\0", "\xe9"),
        (b"\xff\xfe\0\0\0\0\0\0", "\\xff\\xfe"),
        (b"C:\\x41\0\0", "C:\\\\x41"),
        (b"C:\\d\xff\0\0\0", "C:\\\\d\\xff"),
        (b"\1\2\3\4\5\6\7\x08", "\1\2\3\4\5\6\7\x08"),
    ],
)
def test_char_arrays_are_text_where_they_are_text(raw, plain):
    assert bpf.to_python((ctypes.c_char * 8).from_buffer_copy(raw)) == plain
    assert bpf.to_python(
        type("S", (ctypes.Structure,), {"_fields_": [("c", ctypes.c_char * 8)]}).from_buffer_copy(
            raw
        )
    ) == {"c": plain}


def test_chars_by_way_of_a_typedef_are_no_text_to_bpftool():
    b = Blob()
    char = b.int("char", 1, 2)
    const, alias = b.of(b.CONST, char), b.of(b.TYPEDEF, char, "letter")
    texts = [
        b.array(char, 4),
        b.array(const, 4),
        b.array(alias, 4),
        b.array(b.of(b.CONST, alias), 4),
    ]
    btf = b.btf()
    told = [btf.layout(text).reader("bpftool").one(b"ab\0\0") for text in texts]
    assert told[0] == told[1] == '"ab"' and told[2] == told[3] == '["a","b","\\u0000","\\u0000"]'
    assert {btf.layout(text).reader("json").one(b"ab\0\0") for text in texts} == {'"ab"'}


def test_json_has_no_nan():
    assert (
        bpf.to_json((ctypes.c_double * 3)(float("nan"), float("inf"), 0.5)) == "[null, 1e999, 0.5]"
    )
    assert bpf.to_json(b"\1\2") == "[1, 2]"
    assert bpf.to_json([True, None, "x", 1 << 64]) == '[true, null, "x", 18446744073709551616]'
    for obj in (object(), ctypes.c_void_p(5), ctypes.pointer(u32(1))):
        with pytest.raises(bpf.LayoutError):
            bpf.to_json(obj)


@pytest.mark.parametrize(
    "text, size, exact, inexact, over",
    [
        ("float", 4, 1 << 24, (1 << 24) + 1, 1e39),
        ("double", 8, 1 << 53, (1 << 53) + 1, 1 << 1024),
    ],
)
def test_floats_are_rounded_and_ints_are_not(text, size, exact, inexact, over):
    layout = bpf.layout(text)
    record = bpf.layout(text + " f").ctype()
    code = "=f" if size == 4 else "=d"
    assert layout.pack(exact) == bytes(record(f=exact)) == struct.pack(code, exact)
    assert layout.pack(0.1) == bytes(record(f=0.1)) == struct.pack(code, 0.1)
    assert layout.pack("-inf") == struct.pack(code, float("-inf"))
    for wrong in (inexact, over, -over, (1 << 1023) + 1, 1 << 5000, None, True, [1.0], "x"):
        with pytest.raises(bpf.LayoutError):
            layout.pack(wrong)
        with pytest.raises(bpf.LayoutError):
            record(f=wrong)


# -- C text


@pytest.mark.parametrize(
    "text, size, name",
    [
        ("u32", 4, "u32"),
        ("be16", 2, "be16"),
        ("le64", 8, "u64"),
        ("char[16]", 16, "char[16]"),
        ("u8[2][3]", 6, "u8[2][3]"),
        ("s64", 8, "s64"),
        ("i8", 1, "s8"),
        ("bool", 1, "bool"),
        ("double", 8, "f64"),
        ("f32", 4, "f32"),
        (" u64 ", 8, "u64"),
        ("u8 [5]", 5, "u8[5]"),
    ],
)
def test_types_in_words_have_their_size_and_name(text, size, name):
    ctype = bpf.parse_type(text)
    assert ctypes.sizeof(ctype) == size
    assert bpf.type_name(ctype) == (name if sys.byteorder == "little" else mock.ANY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "u33",
        "u32 a, u32",
        "u32 a, u32 a",
        "u32 a b",
        "u32 a:33",
        "u32 a:0",
        "float a:3",
        "struct nosuch a",
        "struct { u32 a; } }",
        "struct { u32 a",
        "enum { A B } e",
        "void a",
        "unsigned float a",
        "struct { u32 a; struct { u32 a; }; }",
        "u32 a[1_0]",
        "u32[",
        "u32]",
        "u32[-1]",
        "u32[1",
        "u8 a[5",
        "u8 a[5]]",
        "u8[99999999999]",
        "u8[65536][65536][2]",
        "u32 1a",
        "u32 a-b",
        "u8 __class__",
        "lambda",
        "__import__('os').system('true')",
        "u8[__import__('os')]",
        "\0",
        "u\u0663",
        "u8[\u0663]",
    ],
)
def test_nonsense_is_no_type(text):
    with pytest.raises(bpf.LayoutError) as caught:
        bpf.parse_type(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [
    "u8 a" + "[1]" * 33, "u8 a" + "[1]" * 3000, "struct { " * 33 + "u8 a;" + " } x;" * 33, "u8 a[4294967295][2]",
    "struct { u8 a; } __attribute__((aligned(99999999999999)))", "u8 a[99999999999999999999]", "u8 a, u8 a",
    "struct { u8 a; struct { u8 a; }; }", "u8 a : 9", "float f : 3", "void", "struct s", "u8 a : 0", "__class__", "u8 __x__",
    "union { u8 a[4294967295]; } u[2]", "struct { u8 a; } __attribute__((aligned(0x100000000)))",
])  # fmt: skip
def test_texts_that_are_no_type_are_refused(text):
    with pytest.raises(bpf.LayoutError):
        bpf.layout(text)


def test_random_words_are_types_or_layout_errors():
    rng, taken = random.Random(5), 0
    words = "struct union enum { } [ ] ; , : u8 u32 be16 char bool float void * a b c 0 1 5 0x10 99999999999 -1 = ( )".split()
    words += "__attribute__ packed aligned const unsigned long int short __int128 // /* */ \\ \n \u00e9 struct { } ; a".split(
        " "
    )
    for _ in range(3000):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 20)))
        try:
            layout = bpf.layout(text)
        except bpf.LayoutError:
            continue
        taken += 1
        layout.describe()
        exec(layout.python_source(), {})
        assert ctypes.sizeof(layout.ctype()) == layout.size
        if layout.size < 10000:
            for form in bpf._FORMS:
                whole(form, layout.reader(form).one(bytes(layout.size)))
    assert taken > 50


@pytest.mark.parametrize("text, size, signed", [
    ("A", 4, False), ("A = 0xffffffff", 4, False), ("A = 0x100000000", 8, False), ("A = -1, B = 0x7fffffff", 4, True),
    ("A = -1, B = 0x80000000", 8, True), ("A = -2147483648", 4, True), ("A = -2147483649", 8, True),
    ("A = 0xffffffffffffffff", 8, False), ("A = -1, B = 0x7fffffffffffffff", 8, True), ("A = -9223372036854775807", 8, True),
])  # fmt: skip
def test_an_enum_is_as_large_as_its_numbers_ask_for_in_c(text, size, signed, tmp_path):
    found = bpf.layout("enum { %s }" % text)
    assert (found.size, found.signed) == (size, signed)
    program("gcc")
    source = '#include <stdio.h>\nint main(void) { enum e { %s }; printf("%%d", (int)sizeof(enum e)); return 0; }\n'
    assert compiled(tmp_path, source % text) == "%d" % size


@pytest.mark.parametrize(
    "text", ["A = 0x10000000000000000", "A = -1, B = 0x8000000000000000", "A = -0x8000000000000001"]
)
def test_an_enum_of_numbers_that_no_integer_holds_is_refused(text):
    with pytest.raises(bpf.LayoutError, match="no integer holds"):
        bpf.layout("enum { %s }" % text)


def test_packed_types_in_words_have_their_offsets_as_attributes():
    text = "struct tuple { be32 dst; be32 src; be16 dport; be16 sport; u8 proto; u8 flags; } __attribute__((packed))"
    layout = bpf.layout(text)
    made = layout.ctype()
    raw = bytes(made(0x0A000001, 0x0A000002, 443, 55555, 6, 1))
    assert len(raw) == 14 and raw == bytes([10, 0, 0, 1, 10, 0, 0, 2, 1, 187, 0xD9, 3, 6, 1])
    assert (
        layout.pack(
            {
                "dst": "10.0.0.1",
                "src": "10.0.0.2",
                "dport": 443,
                "sport": 55555,
                "proto": 6,
                "flags": 1,
            }
        )
        == raw
    )
    odd = bpf.layout("struct { u8 a; u32 b; u16 c : 9; u64 d; } __attribute__((packed))")
    obj = odd.ctype()(a=1, b=0x01020304, c=0x155, d=1 << 63)
    assert bytes(obj) == bytes.fromhex("010403020155010000000000000080") or sys.byteorder == "big"
    assert (obj.a, obj.b, obj.c, obj.d) == (1, 0x01020304, 0x155, 1 << 63)


# -- meanings: what numbers and bytes are to people


def member(text):
    """Return the declaration of f, of a type in C's words."""
    base, bracket, rest = text.partition("[") if text[:6] != "struct" else (text, "", "")
    return "%s f%s" % (base, bracket + rest)


# word, type, the number or bytes, the text; by hand, from the manual of what is shown
MEANT = [
    ("ip4", "be32", 0x0A000001, "10.0.0.1"),
    ("ip4", "u8[4]", bytes([192, 168, 0, 255]), "192.168.0.255"),
    ("ip4", "struct { be16 high, low; }", bytes([1, 2, 3, 4]), "1.2.3.4"),
    ("ip6", "u8[16]", b"\xfe\x80" + bytes(13) + b"\1", "fe80::1"),
    ("ip6", "be32[4]", bytes(16), "::"),
    ("ip6", "u64[2]", bytes(10) + b"\xff\xff\1\2\3\4", "::ffff:1.2.3.4"),
    ("ip", "u8[16]", bytes([10, 0, 0, 1]) + bytes(12), "10.0.0.1"),
    ("ip", "u8[16]", b"\x20\1\x0d\xb8" + bytes(11) + b"\7", "2001:db8::7"),
    ("ip", "u8[4]", bytes([10, 0, 0, 1]), "10.0.0.1"),
    ("mac", "u8[6]", bytes([2, 0, 0, 0xAB, 0, 1]), "02:00:00:ab:00:01"),
    ("prefix", "struct { u32 length; u8 data[4]; }", bytes(u32(24)) + b"\n\1\2\0", "10.1.2.0/24"),
    ("prefix", "u8[20]", bytes(u32(8)) + b"\xfc" + bytes(15), "fc00::/8"),
    ("sockaddr", "u8[16]", bytes(u16(2)) + b"\1\xbb\n\0\0\1" + bytes(8), "10.0.0.1:443"),
    ("sockaddr", "u8[28]", bytes(u16(10)) + b"\0\x35" + bytes(19) + b"\1" + bytes(4), "[::1]:53"),
    (
        "sockaddr",
        "u8[16]",
        bytes(u16(1)) + b"/run" + bytes(10),
        (bytes(u16(1)) + b"/run").hex() + "00" * 10,
    ),
    (
        "sockaddr",
        "u8[28]",
        bytes(u16(10)) + b"\0\x35" + bytes(4) + b"\xfe\x80" + bytes(13) + b"\1" + bytes(u32(3)),
        "[fe80::1%3]:53",
    ),  # fmt: skip
    ("hex", "u32", 0xBEEF, "0xbeef"),
    ("hex", "s8", -1, "0xff"),
    ("hex", "u8[3]", b"\0\x0a\xff", "000aff"),
    ("ns", "u64", 0, "0s"),
    ("ns", "u64", 999, "999ns"),
    ("ns", "s64", -1500, "-1.5us"),
    ("ns", "u64", 1234567, "1.234567ms"),
    ("ns", "u64", 2 * 10**9 + 1, "2.000000001s"),
    ("ns", "u64", 60 * 10**9, "1m0s"),
    ("us", "u32", 3723 * 10**6 + 250000, "1h2m3.25s"),
    ("ms", "u16", 1, "1ms"),
    ("bytes", "u32", 1023, "1023B"),
    ("bytes", "u32", 1536, "1.5KiB"),
    ("bytes", "u64", 1 << 63, "8EiB"),
    ("bytes", "s32", -2048, "-2KiB"),
    ("errno", "s32", -2, "-ENOENT"),
    ("errno", "u8", 11, "EAGAIN"),
    ("errno", "s64", -524, "-ENOTSUPP"),
    ("errno", "s32", 99999, "99999"),
    ("char", "u16", 65, "A"),
    ("char", "u32", 5, "\\x05"),
    ("char", "u32", 0x5C, "\\x5c"),
    ("char", "u32", 0x1F600, "\\x1f600"),
    ("char", "s16", -2, "\\xfffe"),
    ("char", "__int128", 1 << 100, "\\x1" + "0" * 25),
    ("flags", "enum { READ = 1, WRITE = 2, ALL = 7 }", 3, "READ|WRITE"),
    ("flags", "enum { READ = 1, WRITE = 2, ALL = 7 }", 7, "ALL"),
    ("flags", "enum { READ = 1, WRITE = 2, ALL = 7 }", 15, "ALL|0x8"),
    ("flags", "enum { READ = 1, WRITE = 2, ALL = 7 }", 0, "0"),
    ("flags", "enum { NONE = -1, READ = 1 }", -(1 << 31), "0x80000000"),
    ("uid", "u32", 0, "root"),
    ("uid", "u32", 4000000000, "4000000000"),
    ("pid", "u32", 4000000000, "4000000000"),
    ("ifindex", "u32", 4000000000, "4000000000"),
    ("cgroup", "u64", 1 << 63, str(1 << 63)),
    ("ksym", "u64", 0x1000, "0x1000"),
    ("ksym", "s64", -1 << 62, "0xc000000000000000"),
    ("stack", "u64[4]", bytes(u64(5)) + bytes(u64(7)) + bytes(16), "0x7;0x5"),
    ("stack", "u8[8]", bytes(8), ""),
    ("ktime", "u64", 0, "0"),
]


def bytes_of(found, said):
    """Return the bytes of a number or of bytes."""
    return said if isinstance(said, bytes) else found.showing("", "plain").pack(said)


@pytest.mark.parametrize("word, text, said, wanted", MEANT)
def test_meanings_are_shown_and_taken(word, text, said, wanted):
    if wanted == "root":
        user_called_root()
    if wanted == "root":
        user_called_root()
    bare = bpf.layout(text)
    found, raw = bare.showing("", word), bytes_of(bare, said)
    assert found.reader("plain").one(raw) == wanted
    assert json.loads(found.reader("json").one(raw)) == wanted
    words = found.reader("words").one(raw)
    assert words.strip("'") in (wanted, wanted.replace("\\", "\\\\"))
    assert found.pack(wanted) == raw
    for form in ("bpftool",):
        assert found.reader(form).one(raw) == bare.reader(form).one(raw)
    # in a record, in an array of records, behind a bitfield, with a column for each
    many = bpf.layout(
        "struct { u8 low:3, high:5; struct { %s; u8 after; } in[2]; u8 last; }" % member(text)
    )
    shown = many.showing("in.f", word)
    whole = bytearray(many.size)
    places = [
        many.members[2].offset // 8 + at * many.members[2].layout.element.size for at in (0, 1)
    ]
    for place in places:
        at = place + many.members[2].layout.element.members[0].offset // 8
        whole[at : at + len(raw)] = raw
    plain = shown.reader("plain").one(bytes(whole))
    assert [one["f"] for one in plain["in"]] == [wanted, wanted]
    assert shown.reader("bpftool").one(whole) == many.reader("bpftool").one(whole)
    inside = [{"f": wanted, "after": 0}] * 2
    assert shown.pack({"low": 0, "high": 0, "in": inside, "last": 0}) == bytes(whole)
    labels = dict(shown.reader("labels").one(whole))
    assert wanted in labels["in",] or word in ("hex", "char")
    assert shown.ctype() is not many.ctype()
    assert bytes(shown.ctype().from_buffer_copy(whole)) == whole
    assert bpf.to_python(shown.ctype().from_buffer_copy(whole)) == plain


# word, type, texts that are none of its: nothing is cut, wrapped or a traceback
NO_MEANINGS_TEXT = [
    ("hex", "u32", "0x 0xzz 0x1_0 0x-1 0x100000000"),
    ("hex", "s32", "0x100000000 0x17fffffff"),
    ("char", "s8", "\\x \\x100 \\x17f \\x1_0"),
    ("flags", "enum { READ = 1, WRITE = 2 }", "READ| READ|0x100000001 READ|-1 0x100000000"),
    ("ksym", "u64", "0x10000000000000000 nosuch nosuch+0x5 tcp_sendmsg+-5 tcp_sendmsg+0x tcp_sendmsg+0x_5"),
    ("stack", "u64[2]", "0x1;0x2;0x3 0x1;; nosuch 0x1ffffffffffffffff"),
    ("bytes", "u64", "1.5B 1.KiB KiB -1B"),
    ("ip4", "u32", "1.2.3.400 1.2.3.\udcff 1.2.3.4\0 1.2.3"),
    ("ip6", "u8[16]", "::\udcff ::\0 ::g"),
    ("sockaddr", "u8[28]", "1.2.3.4:65536 1.2.3.4%5:80 [::1%4294967296]:80 [::1]:\u0663 [::1] 1.2.3.4"),
    ("uid", "u32", "no\0body no\udcff"),
    ("ifindex", "u32", "no\0such no\udcff"),
    ("pid", "u32", "a(99999999999999) a() ()"),
]  # fmt: skip


@pytest.mark.parametrize("word, text, given", NO_MEANINGS_TEXT)
def test_what_is_no_text_of_a_meaning_is_refused(word, text, given):
    shown = bpf.layout(text).showing("", word)
    for one in given.split(" "):
        with pytest.raises(bpf.LayoutError):
            print(one, shown.pack(one))


@pytest.mark.parametrize("brackets", ["[2]", "[2][3]", "[1][2][2]"])
@pytest.mark.parametrize("form", ["plain", "json", "words", "labels", "leaves"])
def test_a_meaning_of_an_array_is_that_of_each_element(brackets, form):
    base, raw = bpf.layout("struct { __be32 f%s; }" % brackets), bytes([10, 0, 0, 1])
    for word, wanted in (("ip4", "10.0.0.1"), ("hex", "0a000001"), ("us", "2h47m52.160001ms")):
        shown = base.showing("f", word)
        told = shown.reader(form).one(raw * (base.size // 4))
        told = str(list(told) if form in ("labels", "leaves") else told)
        if word == "us":
            wanted = bpf.layout("be32").showing("", "us").reader("plain").one(raw)
        assert told.count(wanted) == base.size // 4, told
        plain = shown.reader("plain").one(raw * (base.size // 4))
        assert shown.pack(plain) == raw * (base.size // 4)


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_byte_order_of_prefixes_addresses_and_stacks_is_their_numbers(order):
    b = Blob(order)
    u, short, long_ = b.int("unsigned int", 4), b.int("u16", 2), b.int("u64", 8)
    few, many = b.array(b.int("u8", 1), 4), b.array(b.int("u8", 1), 14)
    trie_key = b.struct("trie_key", 4, ("prefixlen", u, 0))
    b.struct("lpm", 8, ("trie", trie_key, 0), ("data", few, 32))
    b.struct("words", 8, ("both", b.array(u, 2), 0))
    b.struct("sockaddr", 16, ("family", short, 0), ("data", many, 16))
    b.struct("traced", 16, ("stack", b.array(long_, 2), 0))
    found, size = b.btf(), lambda number, length: number.to_bytes(length, order)
    cases = (
        ("lpm", "", "prefix", size(8, 4) + b"\x0a\0\0\0", "10.0.0.0/8"),
        ("words", "", "prefix", size(8, 4) + b"\x0a\0\0\0", "10.0.0.0/8"),
        ("sockaddr", "", "sockaddr", size(2, 2) + b"\0\x35\1\2\3\4" + bytes(8), "1.2.3.4:53"),
        ("traced", "stack", "stack", size(5, 8) + size(7, 8), {"stack": "0x7;0x5"}),
    )
    for name, field, word, raw, wanted in cases:
        shown = found.layout(name).showing(field, word)
        assert shown.reader("plain").one(raw) == wanted
        assert shown.pack(wanted) == raw


def test_addresses_are_those_of_the_standard_library():
    rng = random.Random(4)
    for _ in range(3000):
        raw = bytes(rng.choice((0, 0, 0, 1, 0xFF, rng.randrange(256))) for _ in range(16))
        if rng.random() < 0.1:
            raw = bytes(10) + b"\xff\xff" + raw[12:]
        text = bpf.layout("u8[16]").showing("", "ip6").reader("plain").one(raw)
        assert socket.inet_pton(socket.AF_INET6, text) == raw
        if raw[:10] != bytes(10):  # the C library also writes ::1.2.3.4, which RFC 5952 does not
            assert text == socket.inet_ntop(socket.AF_INET6, raw)
        assert bpf.layout("be32").showing("", "ip4").reader("plain").one(
            raw[:4]
        ) == socket.inet_ntoa(raw[:4])


EXACT = [("s32", "char"), ("s16:9", "char"), ("s64", "ksym"), ("u64", "ns"), ("s64", "us"), ("u32", "ms"), ("s16", "errno"), ("u32", "char"), ("s64", "hex"),
         ("u8[5]", "hex"), ("u16:11", "ns"), ("s32:9", "us")]  # fmt: skip


@pytest.mark.parametrize("text, word", EXACT)
def test_what_is_shown_is_taken_for_the_same(text, word):
    base, _, bits = text.partition(":")
    declared = "struct { u8 before:5; %s }" % (
        base + " f:" + bits + ";" if bits else member(text) + ";"
    )
    found, rng = bpf.layout(declared), random.Random(text + word)
    shown = found.showing("f", word)
    for _ in range(500):
        raw = random_bytes(rng, found.size)
        if rng.random() < 0.3:
            raw = bytes(rng.choices(b"\0\1\xff", k=found.size))
        raw = found.pack(found.reader("plain").one(raw))  # no bits in holes
        for told in (shown.reader("plain").one(raw), json.loads(shown.reader("json").one(raw))):
            assert shown.pack(told) == raw, told


def test_durations_are_sums_of_their_units():
    """Of a fraction worked out otherwise."""
    from fractions import Fraction

    sizes = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    rng = random.Random(2)
    for _ in range(2000):
        number = rng.randrange(1 << rng.randrange(1, 65))
        text = bpf.layout("u64").showing("", "ns").reader("plain").one(bytes(u64(number)))
        parts = re.findall(r"([\d.]+)([a-z]+)", text)
        assert "".join(map("".join, parts)) == text
        assert sum(Fraction(count) * sizes[unit] for count, unit in parts) == number
        assert len(parts) == 1 or all(Fraction(count) < 60 for count, unit in parts if unit in "ms")
    for text in ("1.5", "ns", "1,5s", "1 s", "--1s", "1d", "1e3s", "1s" * 60, "0.5ns"):
        with pytest.raises(bpf.LayoutError):
            bpf.layout("u64").showing("", "us").pack(text)


def test_byte_counts_are_rounded_and_no_more():
    rng = random.Random(3)
    shown = bpf.layout("u64").showing("", "bytes")
    for _ in range(2000):
        number = rng.randrange(1 << rng.randrange(1, 65))
        text = shown.reader("plain").one(bytes(u64(number)))
        amount, unit = re.match(r"([\d.]+)(\w+)$", text).groups()
        size = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
        assert abs(float(amount) * size - number) <= 0.006 * size and float(amount) <= 1024
        if float(amount) * size < 1 << 64:
            told = int.from_bytes(shown.pack(text), sys.byteorder)
            assert abs(told - number) <= 0.006 * size


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_times_since_boot_are_local_ones(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        ask_the_machine_anew(monkeypatch)
        shown = bpf.layout("u64").showing("", "ktime")
        now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 10**9)
        for age in (0, 10**9, 90 * 10**9):
            then = max(now - age, 1)
            text = shown.reader("plain").one(bytes(u64(then)))
            seconds = time.mktime(time.strptime(text.split(".")[0], "%Y-%m-%d %H:%M:%S"))
            assert abs(seconds + float("0." + text.split(".")[1]) - (at_boot() + then) / 1e9) < 5
            again = int.from_bytes(shown.pack(text), sys.byteorder)
            assert abs(again - then) <= 1000
            words = shown.reader("words").one(bytes(u64(then)))
            assert words.startswith("'" + text + " (") and words.endswith(" ago)'")
            assert abs(int.from_bytes(shown.pack(words.strip("'")), sys.byteorder) - then) <= 1000
        assert (
            abs(int.from_bytes(shown.pack("90s ago"), sys.byteorder) - max(now - 90 * 10**9, 0))
            < 10**10
        )
        assert int.from_bytes(shown.pack("1970-01-01 00:00"), sys.byteorder) == 0  # before boot
        signed = bpf.layout("s64").showing("", "ktime")
        before = ctypes.c_int64(-(10**9)).value.to_bytes(8, sys.byteorder, signed=True)
        told = signed.pack(signed.reader("plain").one(before))
        told = int.from_bytes(told, sys.byteorder, signed=True)
        assert abs(told + 10**9) <= 1000
        assert "(in " in shown.reader("words").one(bytes(u64(now + 3600 * 10**9)))
        assert shown.reader("plain").one(bytes(u64((1 << 64) - 1)))[:2] in ("18", "25", "26")
        for text in ("yesterday", "2026-13-01 00:00", "10:00", "x ago"):
            with pytest.raises(bpf.LayoutError):
                shown.pack(text)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_names_are_those_of_this_machine():
    import pwd

    lo = socket.if_nametoindex("lo")
    own = os.getpid()
    with open("/proc/self/comm") as file:
        comm = file.read().rstrip("\n")
    cases = [
        ("ifindex", "u32", lo, "lo"),
        ("uid", "u32", os.getuid(), pwd.getpwuid(os.getuid()).pw_name),
        ("pid", "s32", own, "%s(%d)" % (comm, own)),
    ]
    symbols = kernel_symbols()
    if not symbols:
        lacking("the right to see the addresses of kernel symbols")
    rng, addresses = random.Random(1), sorted({address for address, _ in symbols})
    for at in sorted(rng.sample(range(len(addresses) - 1), 50)):
        names = [name for address, name in symbols if address == addresses[at]]
        gap = addresses[at + 1] - addresses[at]
        offset = rng.randrange(min(gap, 4096))
        text = "%s+0x%x" % (names[0], offset) if offset else names[0]
        cases.append(("ksym", "u64", addresses[at] + offset, text))
    counts = collections.Counter(name for _, name in symbols)
    for word, text, number, wanted in cases:
        shown = bpf.layout(text).showing("", word)
        raw = bpf.layout(text).pack(number)
        assert shown.reader("plain").one(raw) == wanted
        if word != "ksym" or counts[wanted.partition("+")[0]] == 1:
            assert shown.pack(wanted) == raw
    many = next(name for name, count in counts.items() if count > 1 and len({one for one, other in symbols if other == name}) > 1)  # fmt: skip
    with pytest.raises(bpf.LayoutError):  # any of these would be a guess
        bpf.layout("u64").showing("", "ksym").pack(many)
    mounts = mounted("cgroup2")
    for _, top, *_ in mounts[:1]:
        for directory, _, _ in itertools.islice(os.walk(top), 5):
            raw = bytes(u64(os.stat(directory).st_ino))
            shown = bpf.layout("u64").showing("", "cgroup")
            assert shown.reader("plain").one(raw) == (directory[len(top) :] or "/")
            assert shown.pack(directory[len(top) :] or "/") == raw


# declaration, bytes, what people see
PROVED = [
    ("struct { struct in_addr { be32 s_addr; } a; }", bytes([10, 0, 0, 1]), "a=10.0.0.1"),
    ("struct in6_addr { u8 s6_addr[16]; }", b"\xfe\x80" + bytes(14), "fe80::"),
    ("struct ethaddr { u8 addr[6]; }", bytes([2, 0, 0, 0, 0, 1]), "02:00:00:00:00:01"),
    ("struct { struct in6_addr { u8 b[16]; } a[2]; }", bytes(31) + b"\1", "a=[:: ::1]"),
    ("struct { __be32 saddr; __be32 dst_ip; __be32 spi; }", bytes([1, 2, 3, 4] * 3), "saddr=1.2.3.4 dst_ip=1.2.3.4 spi=16909060"),
    ("struct { __u32 saddr; }", bytes([1, 0, 0, 0]), "saddr=1" if sys.byteorder == "little" else "saddr=16777216"),
    ("struct { __be32 ip6[4]; __be32 other[4]; }", bytes(15) + b"\1" + bytes(15) + b"\1", "ip6=::1 other=[0 0 0 1]"),
    ("struct { u8 h_dest[6], eth_src[6], src_mac[6], key[6]; }", bytes([2, 0, 0, 0, 0, 1] * 4),
     "h_dest=02:00:00:00:00:01 eth_src=02:00:00:00:00:01 src_mac=02:00:00:00:00:01 key=[2 0 0 0 0 1]"),
    ("struct { union { __be32 ip; __be32 ip6[4]; } a; }", bytes([10, 0, 0, 1]) + bytes(12), "a=10.0.0.1"),
    ("struct { union { u32 v4; u8 v6[16]; } a; }", b"\xfe\x80" + bytes(13) + b"\1", "a=fe80::1"),
    ("struct { union { __be32 saddr; u8 b[4]; u32 n; } a; u8 src_mac[6]; }", bytes([10, 0, 0, 10, 2, 0, 0, 0, 0, 1, 0, 0]), "a={saddr=10.0.0.10 b=[10 0 0 10] n=167772170} src_mac=02:00:00:00:00:01"),
    ("struct { union { u32 low; u8 all[16]; } a; }", bytes([1]) * 16, "a={low=16843009 all=[%s]}" % " ".join("1" * 16)),
    ("struct { struct sockaddr { u16 family; char data[14]; } a; }", bytes(u16(2)) + b"\0\x50\x7f\0\0\1" + bytes(8), "a=127.0.0.1:80"),
    ("struct { char mac[6], end; }", b"abcdefg", "mac=abcdef end=g"),
    ("struct { __be32 addrs[2]; }", bytes([1, 2, 3, 4] * 2), "addrs=[16909060 16909060]"),
]  # fmt: skip


@pytest.mark.parametrize("text, raw, wanted", PROVED)
def test_a_declaration_that_proves_a_meaning_shows_it_to_people_alone(text, raw, wanted):
    found = bpf.layout(text)
    assert found.reader("words").one(raw) == wanted
    told = json.dumps(found.reader("plain").one(raw)) + found.reader("json").one(raw)
    told += repr(list(found.reader("labels").one(raw))) + repr(
        list(found.reader("samples").one(raw))
    )
    assert not re.search(r"\d\.\d|::|:0", told.replace(" ", ""))
    if found.members and " " not in wanted and "=" in wanted and "{" not in wanted:
        name, _, value = wanted.partition("=")
        assert found.pack({name: value}) == raw
        bare = found.showing(name, "plain").reader("words").one(raw)
        assert bare.startswith(name + "=") and (bare != wanted or value.isdigit())


def test_a_meaning_that_is_asked_for_is_shown_inside_of_one_that_is_proved():
    found = bpf.layout("struct { struct in_addr { __be32 s; } a, b; u8 h_dest[6]; }")
    raw, asked = bytes([10, 0, 0, 1] * 2 + [2] * 8), found.showing("a.s", "hex")
    assert asked.reader("words").one(raw).startswith("a={s=0xa000001} b=10.0.0.1 h_dest=02:02:")
    trie = bpf._lpm_layout(bpf.layout("struct { u32 len; u8 data[4]; }"))
    raw = bytes(u32(8)) + bytes([10, 0, 0, 0])
    assert trie.reader("words").one(raw) == "10.0.0.0/8"
    assert trie.showing("data", "hex").reader("words").one(raw) == "len=8 data=0a000000"


SOME_FIELDS = (
    "struct { u32 a; struct { u64 b; char c[4]; double d; } in; enum { X } e; struct { u8 f; }; }"
)


@pytest.mark.parametrize(
    "path, word",
    [
        ("a", "ip4"),
        ("in.b", "ktime"),
        ("e", "flags"),
        ("f", "hex"),
        ("", "hex"),
        ("in", "hex"),
    ],
)
def test_a_meaning_leaves_the_size_as_it_is(path, word):
    found = bpf.layout(SOME_FIELDS)
    assert found.showing(path, word).size == found.size


@pytest.mark.parametrize(
    "path, word, part",
    [
        ("a", "ip6", "a: ip6 takes 16 bytes, not u32 of 4 bytes"),
        ("a", "ktime", "8 bytes"),
        ("a", "flags", "an enum"),
        ("in.d", "hex", "hex takes"),
        ("in.d", "ns", "an integer"),
        ("in.d", "prefix", "prefix takes"),
        ("in", "net", "an integer"),
        ("in.c", "net", "an integer of 2, 4 or 8 bytes"),
        ("f", "net", "an integer of 2, 4 or 8 bytes"),
        ("a", "nope", "there is no meaning 'nope'; there are bytes cgroup char"),
        ("nope", "hex", "no field 'nope'; there are a, in, e, f"),
        ("in.x", "hex", "no field 'in.x'; there are b, c, d"),
        ("a.x", "hex", "no field 'a.x'"),
    ],
)
def test_meanings_that_can_not_be_are_refused(path, word, part):
    with pytest.raises(bpf.LayoutError) as info:
        bpf.layout(SOME_FIELDS).showing(path, word)
    assert part in str(info.value), str(info.value)


@pytest.mark.parametrize(
    "tags, part",
    [
        ({"a": "ip6"}, "Tagged._show_: a: u32: ip6 takes"),
        ({"b": "hex"}, "no field"),
        ({"a": 5}, "no meaning"),
        ({"a": ["hex"]}, "no meaning"),
    ],
)
def test_tags_of_meanings_that_can_not_be_are_refused(tags, part):
    members = {"_fields_": [("a", u32)], "_show_": tags}
    tagged = type("Tagged", (ctypes.Structure,), members)
    with pytest.raises(bpf.LayoutError) as info:
        bpf.layout(tagged)
    assert part in str(info.value), str(info.value)


def test_network_byte_order_is_a_fact_of_the_number():
    shown = bpf.layout("struct { u16 port; u32 n[2]; }").showing("port", "net").showing("n", "net")
    raw = b"\1\xbb\0\0" + bytes([0, 0, 0, 1, 0, 0, 1, 0])
    assert shown.reader("plain").one(raw) == {"port": 443, "n": [1, 256]}
    assert shown.pack({"port": 443, "n": [1, 256]}) == raw
    assert dict(shown.reader("samples").one(raw))["port",] == 443
    assert shown.ctype().from_buffer_copy(raw).port == 443


class Meant(ctypes.Structure):
    _fields_ = [("src", u32), ("took", u64), ("why", ctypes.c_int32), ("who", u32)]
    _show_ = {"src": "ip4", "took": "us", "why": "errno"}


def test_tags_of_a_class_show_and_its_source_keeps_them():
    raw = bytes(Meant(int.from_bytes(bytes([10, 0, 0, 1]), sys.byteorder), 1500, -13, 7))
    wanted = {"src": "10.0.0.1", "took": "1.5ms", "why": "-EACCES", "who": 7}
    assert bpf.to_python(Meant.from_buffer_copy(raw)) == wanted
    assert json.loads(bpf.to_json(Meant.from_buffer_copy(raw))) == wanted
    assert "took: u64 [show:us]" in bpf.describe_layout(Meant)
    space = {}
    exec(bpf.python_source(Meant, "Again"), space)
    assert bpf.to_python(space["Again"].from_buffer_copy(raw)) == wanted

    class Child(Meant):
        _show_ = {"who": "hex"}

    assert bpf.to_python(Child.from_buffer_copy(raw)) == dict(wanted, who="0x7")
    assert pickle.loads(pickle.dumps(bpf.layout(Meant))) == bpf.layout(Meant)
    assert bpf.layout(Meant) != bpf.layout(Meant).showing("src", "hex")


def test_a_source_and_a_table_have_the_meanings_of_arrays_and_none_that_ctypes_lacks():
    user_called_root()
    text = "struct { u32 x[3], y[2][2]; enum { A = 1 } z; struct in_addr { __be32 s; } a[2]; u8 eth[6]; }"
    found = bpf.layout(text)
    for field, word in (("x", "ip4"), ("y", "uid"), ("z", "flags"), ("a", "plain"), ("eth", "hex")):
        found = found.showing(field, word)
    for line in ("x: u32[3] [show:ip4]", "y: u32[2][2] [show:uid]", "a: struct in_addr[2] [show:plain]"):  # fmt: skip
        assert line in found.describe()
    space = {}
    exec(found.python_source("Made"), space)
    raw = bytes(found.size)
    made = bpf.layout(space["Made"]).reader("plain").one(raw)
    wanted = found.reader("plain").one(raw)
    assert made == dict(wanted, z=0) and wanted["y"] == [["root", "root"]] * 2
    assert "a=[{s=0} {s=0}]" in found.reader("words").one(raw)


def test_a_typedef_makes_no_class_of_its_own_where_meanings_are_shown_either():
    flow = bpf.layout("struct flow { u64 seen; }")
    typedef = flow.renamed("flow_t")
    assert typedef.ctype() is flow.ctype()
    assert typedef.having(typedef.members) == typedef
    shown = typedef.showing("seen", "ktime")
    assert shown.name == "flow_t"
    assert shown.ctype() is flow.showing("seen", "ktime").ctype()
    assert shown.ctype().__name__ == "flow"


def test_tags_in_btf_show_and_what_is_no_meaning_is_a_mere_tag():
    b = Blob()
    number = b.int("unsigned int", 4)
    s = b.struct(
        "s",
        16,
        ("src", number, 0),
        ("odd", number, 32),
        ("wrong", number, 64),
        ("t", number + 2, 96),
    )
    assert b.of(b.TYPEDEF, number, "when_t") == number + 2
    for member_index, tag in ((0, "show:ip4"), (1, "show:nope"), (2, "show:ip6")):
        b.add(b.DECL_TAG, tag, 0, s, [member_index])
    b.add(b.DECL_TAG, "show:hex", 0, number + 2, [-1])
    found = b.btf().layout("s")
    told = found.reader("plain").one(bytes([10, 0, 0, 1]) + bytes(8) + struct.pack("<I", 255))
    assert told == {"src": "10.0.0.1", "odd": 0, "wrong": 0, "t": "0xff"}
    assert "odd: u32 [show:nope]" in found.describe().replace("unsigned int", "u32")


def test_variables_of_data_sections_have_dots_in_their_names():
    b = Blob(sys.byteorder)
    number = b.int("u32", 4)
    inner = b.struct("inner", 4, ("took", number, 0))
    names = (("run.count", number), ("run.in", inner), ("run", inner))
    entries = [(b.add(b.VAR, name, 0, type_id, [0]), 4 * at, 4) for at, (name, type_id) in enumerate(names)]  # fmt: skip
    b.add(b.DATASEC, ".bss", 3, 12, [word for entry in entries for word in entry])
    found, raw = b.btf().layout(".bss"), bytes(u32(1000)) + bytes(u32(2000)) + bytes(u32(3000))
    for field, wanted in (
        ("run.count", {"run.count": "1ms", "run.in": {"took": 2000}, "run": {"took": 3000}}),
        ("run.in.took", {"run.count": 1000, "run.in": {"took": "2ms"}, "run": {"took": 3000}}),
        ("run.took", {"run.count": 1000, "run.in": {"took": 2000}, "run": {"took": "3ms"}}),
    ):
        assert found.showing(field, "us").reader("plain").one(raw) == wanted
        steps, leaf, offset, _ = bpf._follow(found, field)
        assert offset == 32 * [name for name, _ in names].index(steps[0])
        assert bpf._field(found, field) == leaf and ".".join(steps) == field
        assert list(bpf._selected(found, [steps]).reader("plain").one(raw)) == steps[:1]
    with pytest.raises(bpf.NoSuchField):
        found.showing(".".join(["run"] * 100000), "hex")


def test_metrics_take_quantities_and_leave_names_out():
    user_called_root()
    found = bpf.layout("struct { u32 src; u64 took; u32 uid; u64 size; }")
    for field, word in (("src", "ip4"), ("took", "ns"), ("uid", "uid"), ("size", "bytes")):
        found = found.showing(field, word)
    raw = bytes(u32(1)) + bytes(4) + bytes(u64(5)) + bytes(u32(0)) + bytes(4) + bytes(u64(2048))
    assert dict(found.reader("samples").one(raw)) == {("took",): 5, ("size",): 2048}
    labels = dict(found.reader("labels").one(raw))
    assert (labels["took",], labels["uid",], labels["size",]) == ("5ns", "root", "2KiB")


# -- readers of random types, against a plain walk that knows nothing of the module


class Said:
    """A type as a test describes it.  members: (name, Said, bit offset, bits or None); choices as _union_ has them."""

    def __init__(self, kind, size, order="little", **facts):
        self.kind, self.size, self.order, self.raw_order = kind, size, order, order
        self.signed, self.names, self.members, self.choices, self.count = False, {}, [], {}, 0
        self.__dict__.update(facts)

    @property
    def leaves(self):
        if self.kind == "array":
            return self.count * self.element.leaves
        return sum(member[1].leaves for member in self.members) if self.kind == "record" else 1


Seen = collections.namedtuple("Seen", "kind value said")


def number_at(said, raw, at, bits):
    """Return the unsigned bits of a leaf that stand at a bit offset."""
    order = said.order if bits is None else said.raw_order
    width = 8 * said.size if bits is None else bits
    if bits is None:
        number = int.from_bytes(raw[at // 8 : at // 8 + said.size], order)
    elif order == "little":
        number = int.from_bytes(raw, order) >> at & (1 << width) - 1
    else:
        number = int.from_bytes(raw, order) >> 8 * len(raw) - at - width & (1 << width) - 1
    return number - (1 << width) if said.signed and number >> width - 1 else number


def seen(said, raw, at=0, bits=None, branch=None):
    """Return what stands in the bytes as a tree of Seen: records hold pairs, arrays lists."""
    if said.kind == "record":
        pairs = []
        for name, inner, offset, width in said.members:
            if branch not in (None, name):
                continue
            chosen = None
            if name in said.choices:
                tag, branches = said.choices[name]
                chosen = branches[plain_of(dict(pairs)[tag])]
            found = seen(inner, raw, at + offset, width, chosen)
            is_merged = not name and inner.kind == "record"
            pairs += found.value if is_merged else [(name or "_", found)]
        return Seen("record", pairs, said)
    if said.kind == "array":
        steps = [at + 8 * said.element.size * index for index in range(said.count)]
        return Seen("array", [seen(said.element, raw, step) for step in steps], said)
    piece = raw[at // 8 : at // 8 + said.size]
    if said.kind in ("char", "text", "bytes"):
        return Seen(said.kind, piece, said)
    if said.kind == "float":
        code = {2: "e", 4: "f", 8: "d"}[said.size]
        mark = "<" if said.order == "little" else ">"
        return Seen("float", struct.unpack(mark + code, piece)[0], said)
    return Seen(said.kind, number_at(said, raw, at, bits), said)


def escaped(raw):
    """Return bytes as text, what is no UTF-8 as \\xNN and then the backslash as two."""
    with contextlib.suppress(UnicodeDecodeError):
        if "\\x" not in raw.decode():
            return raw.decode()
    text, at = "", 0
    while at < len(raw):
        for size in range(1, 5):
            with contextlib.suppress(UnicodeDecodeError):
                text, at = text + raw[at : at + size].decode().replace("\\", "\\\\"), at + size
                break
        else:
            text, at = text + "\\x%02x" % raw[at], at + 1
    return text


def c_string(raw):
    """Return the text before the first NUL."""
    return escaped(raw.split(b"\0")[0])


def plain_of(found):
    """Return what the form "plain" has to give for a tree of Seen."""
    kind, value, said = found
    if kind == "record":
        return {name: plain_of(one) for name, one in value}
    if kind == "array":
        return [plain_of(one) for one in value]
    if kind in ("char", "text"):
        return c_string(value)
    if kind == "enum":
        return said.names.get(value) or str(value)
    shown = {"bool": bool, "pointer": hex, "bytes": list}
    return shown[kind](value) if kind in shown else value


def json_of(found):
    """Return what the form "json" has to give."""
    kind, value, _ = found
    if kind == "record":
        return "{%s}" % ",".join(json.dumps(name) + ":" + json_of(one) for name, one in value)
    if kind == "array":
        return "[%s]" % ",".join(map(json_of, value))
    if kind == "float" and math.isnan(value):
        return "null"
    if kind == "float" and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return json.dumps(plain_of(found), separators=(",", ":"))


def word(text):
    """Return a text as the command line prints it: quoted where it would read as something else."""
    if not text.isprintable():
        return ascii(text)
    return repr(text) if not text or any(mark in text for mark in " ='\"{}[],") else text


def words_of(found, text_of=c_string, shown=bool):
    """Return what the forms for people have to give."""
    kind, value, said = found
    if kind in ("record", "array"):
        texts = []
        for name, one in value if kind == "record" else [("", one) for one in value]:
            text = words_of(one, text_of, shown)
            text = "{%s}" % text if one.kind == "record" else text
            texts.append(name + "=" + text if kind == "record" else text)
        return ("%s" if kind == "record" else "[%s]") % " ".join(texts)
    if kind in ("char", "text"):
        return word(text_of(value))
    if kind == "bytes":
        return " ".join("%02x" % byte for byte in value)
    if kind == "bool":
        return str(shown(value))
    return word(plain_of(found)) if kind == "enum" else str(plain_of(found))


def samples_of(found, path=()):
    """Return what metrics count of a value: [(path, number)]."""
    kind, value, _ = found
    if kind in ("record", "array"):
        steps = value if kind == "record" else enumerate(value)
        return [pair for step, one in steps for pair in samples_of(one, path + (step,))]
    if kind in ("char", "text", "bytes", "pointer"):
        return []
    return [(path, int(value != 0) if kind == "bool" else value)]


def labels_of(found, path=()):
    """Return what metrics tell of a key: [(path, text)]."""
    kind, value, _ = found

    def in_full(raw):
        return escaped(raw.rstrip(b"\0"))

    if kind == "record":
        return [pair for step, one in value for pair in labels_of(one, path + (step,))]
    if kind in ("char", "text"):
        return [(path, in_full(value))]
    if kind == "array":
        return [(path, words_of(found, in_full, int))]
    return [(path, plain_of(found) if kind == "enum" else words_of(found, shown=int))]


WALKS = {
    "plain": plain_of,
    "json": json_of,
    "words": words_of,
    "samples": samples_of,
    "labels": labels_of,
}


class RandomBTF:
    """Makes random types in a Blob, and says what they are."""

    def __init__(self, rng, order, gentle=False):
        # gentle: what kernel and bpftool know
        self.rng, self.order, self.gentle = rng, order, gentle
        self.b, self.count = Blob(order), 0

    def said(self, kind, size, **facts):
        return Said(kind, size, self.order, **facts)

    def label(self, stem):
        self.count += 1
        return "%s%d" % (stem, self.count)

    def number(self, for_bits=False):
        sizes = [1, 2, 4, 8] if self.gentle else [1, 2, 3, 4, 5, 6, 7, 8, 16]
        size, signed = self.rng.choice(sizes), self.rng.random() < 0.5
        kind = self.rng.choice(["int", "int", "bool", "enum"] + ["order"] * (not for_bits))
        if kind == "bool":
            size = 1 if self.gentle else self.rng.choice([1, 1, 1, 4])
            return self.b.int("bool", size, 4), self.said("bool", size)
        if kind == "enum":
            size = self.rng.choice([4, 8] if self.gentle else [1, 2, 4, 8])
            limit = 1 << min(8 * size, 20) - 1
            numbers = self.rng.sample(range(-3, 9) if signed else range(12), 4) + [limit - 1]
            names = [(self.label("E"), number) for number in numbers]
            type_id = self.b.enum(self.label("enum"), size, names, signed, size == 8)
            facts = dict(signed=signed, names={number: name for name, number in names})
            return type_id, self.said("enum", size, **facts)
        if kind == "order":
            size, order = self.rng.choice([2, 4, 8]), self.rng.choice(["little", "big"])
            inner = self.b.int("uint%d" % size, size)
            name = "__%se%d" % (order[0], 8 * size)
            said = Said("int", size, order, raw_order=self.order)
            return self.b.of(self.b.TYPEDEF, inner, name), said
        made = self.b.int(self.label("i"), size, signed)
        return made, self.said("int", size, signed=signed)

    def leaf(self):
        kinds = ["number"] * 5 + ["text", "pointer"] + ["float", "char", "odd"] * (not self.gentle)
        kind = self.rng.choice(kinds)
        if kind == "number":
            return self.number()
        if kind == "float":
            size = self.rng.choice([2, 4, 8])
            return self.b.add(self.b.FLOAT, self.label("f"), 0, size), self.said("float", size)
        if kind == "pointer":
            return self.b.of(self.b.PTR, self.b.int("void", 1)), self.said("pointer", 8)
        if kind == "odd":  # what has no meaning: bytes
            made = self.b.add(self.b.FLOAT, self.label("f"), 0, 16)
            return made, self.said("bytes", 16)
        if kind == "char":  # alone, it is a number as in C
            return self.b.int("char", 1, 1), self.said("int", 1, signed=True)
        count = self.rng.choice([0, 1, 5, 16, 70])
        char = self.b.int("char", 1, self.rng.choice([0, 1, 2, 3]))
        return self.b.array(char, count), self.said("text", count)

    def any(self, depth):
        pick = self.rng.random()
        if depth and pick < 0.25:
            return self.record(depth - 1)
        if depth and pick < 0.5:
            type_id, element = self.any(depth - 1)
            if element.kind == "int" and element.size == 1:
                type_id, element = self.number()
            count = self.rng.choice([0, 1, 2, 3, 3, 65, 70])
            count = min(count, 2 if element.leaves > 8 else count)
            if not element.size or self.gentle and not count:
                count = 1
            facts = dict(element=element, count=count)
            return self.b.array(type_id, count), self.said("array", count * element.size, **facts)
        return self.leaf()

    def record(self, depth):
        is_union, end, members, words = self.rng.random() < 0.3, 0, [], []
        for _ in range(self.rng.randint(1, 5)):
            bits, is_bits = None, self.rng.random() < 0.3
            type_id, said = self.number(True) if is_bits else self.any(depth)
            at = 0 if is_union else end + self.rng.choice([0, 0, 0, 3, 8, 21])
            if is_bits:
                bits = self.rng.randint(1, min(8 * said.size, 30 if self.gentle else 128))
            else:
                at = -(-at // 8) * 8
            is_nameless = said.kind == "record" and self.rng.random() < 0.4
            name = "" if is_nameless else self.label("m")
            members.append((name, said, at, bits))
            words.append((name, type_id, at, bits or 0))
            end = max(end, at + (8 * said.size if bits is None else bits))
        size = -(-end // 8) + self.rng.choice([0, 0, 1, 5])
        kind = self.b.UNION if is_union else self.b.STRUCT
        type_id = self.b.struct(self.label("s"), size, *words, kind=kind)
        return type_id, self.said("record", size, members=members, is_union=is_union)


def random_bytes(rng, size, order="little"):
    """Return bytes in which there are zeros, ones, text, what is no text, infinities and NaN."""
    mark, found = "<" if order == "little" else ">", b""
    while len(found) < size:
        found += rng.choice(
            [
                bytes(rng.getrandbits(8) for _ in range(8)),
                bytes(rng.randint(0, 4)),
                b"\xff" * 8,
                b"\1",
                b"a::b'\"\\x %s\n",
                b"a,b\0[c]\0{d}\0e=f\0",
                "gr\u00fcn \u20ac".encode(),
                struct.pack(mark + "2f", float("inf"), float("-inf")),
                struct.pack(mark + "d", float("nan")),
                struct.pack(mark + "d", float("inf")),
            ]
        )
    return found[:size]


def whole(form, found):
    """Return what a reader gives for one element with what iterates in it taken out."""
    if form == "labels":  # numbers may come as such
        return [(path, leaf if isinstance(leaf, str) else str(leaf)) for path, leaf in found]
    return list(found) if form == "samples" else found


def assert_reads_as_walked(layout, walked, batch, stride):
    """Every form says of the elements in batch what walked, their trees, say."""
    for form, walk in WALKS.items():
        wanted = [repr(walk(one)) for one in walked]
        reader = layout.reader(form, stride)
        assert [repr(whole(form, one)) for one in reader.read(batch)] == wanted, (form, layout)
        assert repr(whole(form, reader.one(batch[:stride]))) == wanted[0], (form, layout)
    pairs = [[] for _ in walked]
    for path, indices, column in layout.reader("samples", stride).series(batch):
        for index, number in zip(range(len(walked)) if indices is None else indices, column):
            pairs[index].append((path, number))
    wanted = [repr(sorted(samples_of(one), key=repr)) for one in walked]
    assert [repr(sorted(one, key=repr)) for one in pairs] == wanted


def assert_batches_agree(rng, layout, said, order, many=1000):
    """Check every form on random bytes, in batches of several lengths and strides."""
    assert layout.size == said.size
    for count, more in ((1, 0), (2, 0), (2, rng.randint(1, 9)), (many, 0)):
        if count * said.leaves > 4000:
            count = max(1, 4000 // said.leaves)
        stride = said.size + more
        rows = [random_bytes(rng, stride, order) for _ in range(count)]
        if stride:
            walked = [seen(said, row[: said.size]) for row in rows]
            assert_reads_as_walked(layout, walked, b"".join(rows), stride)


def places(said, path, told, start=0):
    """Ask gcc for the place of each member, or with what it told (an iterator) take that in; yield the questions."""
    said.at = start
    if said.kind == "array":
        for question in places(said.element, path + "[0]", told, start):
            yield question
        said.size = said.count * said.element.size
        return
    if said.kind != "record":
        return
    yield "size(%s);" % (path or "x")
    said.size = next(told) if told else 0
    for member in said.members:
        here = (path or "x") + ("." + member[0] if member[0] else "")
        if member[0]:
            yield "%s(%s);" % ("bits" if member[3] else "bytes", here)
            at = next(told) if told else 0
            member[2] = at - start
        at = start + member[2]
        inner = (
            places(member[1], here, told, at) if member[0] else nameless(member[1], here, told, at)
        )
        for question in inner:
            yield question


def nameless(said, path, told, start):
    """The same of a record without a name, of which C can't be asked the size."""
    for number, question in enumerate(
        places(said, path, told and itertools.chain([0], told), start)
    ):
        if number:
            yield question


@ORDERS
def test_every_form_of_random_btf_is_what_a_plain_walk_sees(order):
    for seed in range(60):
        rng = random.Random(seed)
        made = RandomBTF(rng, order)
        type_id, said = made.record(3) if seed % 4 else made.any(2)
        layout = made.b.btf().layout(type_id)
        assert_batches_agree(rng, layout, said, order, 1000 if seed % 5 == 0 else 20)


def byte_at(obj, offset):
    """Return a byte of an object as a number."""
    return ctypes.string_at(ctypes.addressof(obj) + offset, 1)[0]


def seen_object(obj, ctype, branch=None):
    """Return what ctypes itself says of an object, as a tree of Seen."""
    if isinstance(obj, (ctypes.Structure, ctypes.Union)):
        pairs, values, names = [], {}, getattr(obj, "_json_", {})
        for name, inner, *_ in obj._fields_:
            if branch not in (None, name):
                continue
            chosen = None
            if name in getattr(obj, "_union_", {}):
                tag, branches = obj._union_[name]
                chosen = branches[values[tag]]
            values[name] = getattr(obj, name)
            if inner is ctypes.c_bool:
                values[name] = byte_at(obj, getattr(type(obj), name).offset)
            found = seen_object(values[name], inner, chosen)
            if names.get(name, name) is not None:
                pairs.append((names.get(name, name), found))
        return Seen("record", pairs, None)
    if isinstance(obj, ctypes.Array) or isinstance(obj, bytes) and issubclass(ctype, ctypes.Array):
        if ctype._type_ is ctypes.c_char:
            return Seen("text", obj.raw, None)
        if ctype._type_ is ctypes.c_bool:
            obj = [byte_at(obj, at) for at in range(len(obj))]
        return Seen("array", [seen_object(one, ctype._type_) for one in obj], None)
    kind = {"?": "bool", "c": "char", "f": "float", "d": "float"}.get(ctype._type_, "int")
    return Seen(kind, obj, None)


def random_ctype(rng, depth, bases):
    """Return a random plain ctypes class of the byte order of bases, (Structure, Union)."""
    scalars = [ctypes.c_int8, u8, ctypes.c_int16, u16, ctypes.c_int32, u32, ctypes.c_int64, u64]
    scalars += [ctypes.c_char, ctypes.c_float, ctypes.c_double, ctypes.c_longlong]
    scalars += [ctypes.c_bool] * (bases[0] is ctypes.Structure)  # others have none
    pick = rng.random()
    if depth == 0 or pick < 0.4:
        return rng.choice(scalars)
    if pick < 0.65:
        element = random_ctype(rng, depth - 1, bases)
        if bases[0] is not ctypes.Structure and issubclass(element, ctypes._SimpleCData):
            mark = "__ctype_%se__" % bpf._FOREIGN_ORDER[0]
            element = getattr(element, mark, element)
        small = ctypes.sizeof(element) < 100
        return element * rng.choice([0, 1, 2, 3] + [65, 70] * small)
    fields, own = [], {}
    for number in range(rng.randint(1, 5)):
        inner = random_ctype(rng, depth - 1, bases)
        if issubclass(inner, ctypes.Array) and inner._type_ is ctypes.c_char:
            inner = u8  # what getattr cuts at its NUL; see below
        fields.append(("f%d" % number, inner))
    if rng.random() < 0.3:
        fields.append(("hidden", u16))
        own["_json_"] = {"hidden": None, "f0": "first"}
    if rng.random() < 0.3:
        own["_pack_"], own["_layout_"] = 1, "ms"
    own["_fields_"] = fields
    base = rng.choice(bases)
    return type(base)("Random", (base,), own)


def bit_fields(rng, bases):
    """Return a class of bitfields of one type, which every Python has where C has them."""
    number = rng.choice([u32, ctypes.c_int32, ctypes.c_int64, u64, u16, u8])
    fields, left = [], 8 * ctypes.sizeof(number)
    while left:
        bits = rng.randint(1, left)
        fields.append(("b%d" % left, number, bits))
        left -= bits
    return type(bases[0])("Bits", (bases[0],), {"_fields_": fields + [("last", u8)]})


def choosing(rng, bases, depth):
    """Return a class in which a field tells how to read a union; deeper, its branches are such classes."""
    structure, union, number = bases
    inner = choosing(rng, bases, depth - 1) if depth else number
    either = {"_fields_": [("a", inner), ("b", u8 * 3), ("c", number)]}
    either = type(union)("Either", (union,), either)
    branches = {tag: rng.choice("abc") for tag in range(256)}
    own = {"_fields_": [("kind", u8), ("u", either)], "_union_": {"u": ("kind", branches)}}
    made = type(structure)("Choosing", (structure,), own)
    around = {"_fields_": [("n", u16), ("in_it", made)]}
    return rng.choice([made, type(structure)("Around", (structure,), around)])


SWAPPED = (
    getattr(ctypes, "%sEndianStructure" % bpf._FOREIGN_ORDER.title()),
    None,  # few Pythons take unions in these
    getattr(u64, "__ctype_%se__" % bpf._FOREIGN_ORDER[0]),
)


@pytest.mark.parametrize("bases", [(ctypes.Structure, ctypes.Union, u64), SWAPPED])
def test_every_form_of_random_classes_is_what_ctypes_says(bases):
    for seed in range(90):
        rng = random.Random(seed)
        plain_bases = bases[:2] if bases[1] else bases[:1]
        kinds = [lambda: random_ctype(rng, 3, plain_bases), lambda: bit_fields(rng, bases)]
        if bases[1]:
            made = choosing(rng, bases, seed % 3)
            kinds += [lambda: made, lambda: made * 3]
            more = [("n", u8), ("many", made * 2), ("one", made)]
            kinds.append(lambda: type(bases[0])("Outer", (bases[0],), {"_fields_": more}))
        ctype = kinds[seed % len(kinds)]()
        if ctype is ctypes.c_char:
            continue
        layout = bpf.layout(ctype)
        for count, more in ((1, 0), (2, 3), (20, 0)):
            stride = ctypes.sizeof(ctype) + more
            rows = [random_bytes(rng, stride) for _ in range(count)]
            objects = [(ctype * 1).from_buffer_copy(row) for row in rows]
            walked = [seen_object(one, ctype * 1).value[0] for one in objects]
            if stride:
                assert_reads_as_walked(layout, walked, b"".join(rows), stride)


def random_c_leaf(rng, count):
    """Return (declaration with %s for what is declared, brackets, Said) of a random scalar or array of chars."""
    kind = rng.choice(["int"] * 6 + ["order", "char", "bool", "float", "enum", "pointer"])
    if kind == "int":
        size, signed = rng.choice([1, 2, 4, 8, 16]), rng.random() < 0.5
        return "%s%d %%s" % ("us"[signed], 8 * size), "", Said("int", size, signed=signed)
    if kind == "order":
        size, order = rng.choice([2, 4, 8]), rng.choice(["little", "big"])
        return (
            "__%se%d %%s" % (order[0], 8 * size),
            "",
            Said("int", size, order, raw_order="little"),
        )
    if kind == "enum":
        low = rng.choice([-2, 0])
        names = {number: "E%d" % next(count) for number in range(low, 3)}
        body = ", ".join("%s = %d" % (name, number) for number, name in sorted(names.items()))
        return "enum { %s } %%s" % body, "", Said("enum", 4, signed=low < 0, names=names)
    if kind == "float":
        size = rng.choice([4, 8])
        return {4: "float %s", 8: "double %s"}[size], "", Said("float", size)
    if kind == "pointer":
        return "void *%s", "", Said("pointer", 8)
    return kind + " %s", "", Said(kind, 1)


def random_c_text(rng, depth, count):
    """Return (declaration with %s for what is declared, its brackets, Said without offsets)."""
    pick = rng.random()
    if depth and pick > 0.7:
        return random_c_record(rng, depth - 1, count)
    if not depth or pick < 0.5:
        return random_c_leaf(rng, count)
    base, brackets, element = random_c_text(rng, depth - 1, count)
    length = rng.choice([0, 1, 2, 3, 65] if element.leaves < 5 else [1, 2])
    length = length if element.leaves else 1
    if element.kind == "char":
        return base, "[%d]" % length, Said("text", length)
    said = Said("array", 0, element=element, count=length)
    return base, "[%d]%s" % (length, brackets), said  # the outer length stands first


def random_c_record(rng, depth, count):
    """Return the same of a random struct or union."""
    kind, packed = rng.choice(["struct", "struct", "union"]), " __attribute__((packed))"
    members, texts = [], []
    for _ in range(rng.randint(1, 5)):
        base, brackets, said = random_c_text(rng, depth, count)
        bits, name = None, "m%d" % next(count)
        if said.kind in ("int", "bool", "enum") and said.size < 16 and rng.random() < 0.3:
            bits = 1 if said.kind == "bool" else rng.randint(3, 8 * said.size)
        if said.kind == "record" and rng.random() < 0.4:
            name = ""
        members.append([name, said, 0, bits])
        texts.append(base % (name + brackets) + (" : %d" % bits if bits else "") + ";")
    end = packed if rng.random() < 0.3 else ""
    said = Said("record", 0, members=members)
    return "%s { %s }%s %%s" % (kind, " ".join(texts), end), "", said


C_PRELUDE = """
#include <stdio.h>
#include <string.h>
#include <stdbool.h>
%s
typedef unsigned __int128 u128; typedef __int128 s128;
#define size(path) printf("%%ld ", 8L * sizeof(path) / 8)
#define bytes(path) printf("%%ld ", 8L * ((char *)&(path) - (char *)&x))
#define bits(path) memset(&x, 0, sizeof x), (path) = -1, first(&x)
static void first(void *object)
{
    int bit = 0;
    while (!(((unsigned char *)object)[bit / 8] >> bit %% 8 & 1))
        bit++;
    printf("%%d ", bit);
}
""" % "\n".join(
    "typedef unsigned %(stem)s u%(bits)d, __le%(bits)d, __be%(bits)d; typedef signed %(stem)s s%(bits)d;"
    % {"stem": stem, "bits": bits}
    for stem, bits in (("char", 8), ("short", 16), ("int", 32), ("long", 64))
)


@pytest.mark.skipif(sys.byteorder == "big", reason="the walk of C text is of little-endian data")
def test_every_form_of_random_c_text_is_what_a_plain_walk_at_gccs_offsets_sees(tmp_path):
    made, source = [], C_PRELUDE
    for seed in range(60):
        rng = random.Random(seed)
        base, _, said = random_c_record(rng, 3, itertools.count())
        made.append((base % "", said))
        asked = "\n".join(places(said, "", None))
        function = 'static void f%d(void)\n{\n    static %s;\n%s\n    puts("");\n}\n'
        source += function % (seed, base % "x", asked)
    source += "int main(void)\n{\n%s}\n" % "".join("f%d();\n" % seed for seed in range(60))
    for (text, said), line in zip(made, compiled(tmp_path, source).splitlines()):
        told = iter(list(map(int, line.split())))
        collections.deque(places(said, "", told), 0)
        assert not list(told)
        rng = random.Random(text)
        assert_batches_agree(rng, bpf.layout(text), said, "little", 20)


@kernel
def test_bpftool_says_the_same_of_random_types():
    told = 0
    for seed in range(40):
        rng = random.Random(seed)
        made = RandomBTF(rng, sys.byteorder, gentle=True)
        made.b.int("unsigned int", 4)
        type_id, said = made.record(2)
        try:
            types = load_btf(made.b.data())
            m = Map.create(
                ARRAY,
                max_entries=3,
                key_size=4,
                value_size=said.size,
                btf=types,
                btf_key=1,
                btf_value=type_id,
            )
        except OSError:
            continue  # what the kernel knows better
        with m:
            # bpftool's JSON is none where chars are these
            unquoted = bytes.maketrans(b'"\\', b"qb")
            rows = [random_bytes(rng, said.size).translate(unquoted) for _ in range(3)]
            for index, row in enumerate(rows):
                m.update(bytes(u32(index)), row)
            pairs = lambda found: found  # both of two members of one name
            _, out, err = run(program("bpftool"), "-j", "map", "dump", "id", m.id)
            bpftool_can(err)
            theirs = json.loads(out, object_pairs_hook=pairs)
            reader = made.b.btf().layout(type_id).reader("bpftool")
            for row, entry in zip(rows, theirs):
                formatted = dict(dict(entry)["formatted"])
                ours = json.loads(reader.one(row), object_pairs_hook=pairs)
                assert ours == formatted["value"], (seed, row)
                told += 1
    assert told > 50


@ORDERS
def test_source_of_random_types_has_the_same_offsets_without_the_module(order):
    for seed in range(40):
        rng = random.Random(seed)
        made = RandomBTF(rng, order)
        type_id, said = made.record(3)
        layout = made.b.btf().layout(type_id)
        try:
            wanted = layout.ctype()
        except bpf.LayoutError as error:
            assert "overlap" in str(error)
            continue
        names = {}
        exec(layout.python_source("made"), names)
        assert ctypes.sizeof(names["made"]) == said.size
        raw = random_bytes(rng, said.size)
        one, other = names["made"].from_buffer_copy(raw), wanted.from_buffer_copy(raw)
        told = layout.reader("plain").one(raw)
        for name, inner in wanted._attributes_.items():
            mine, theirs = getattr(one, name), getattr(other, name)
            if isinstance(inner, bpf.Number) and not isinstance(mine, ctypes.Array):
                assert mine == theirs or mine != mine, (seed, name)
                if type(inner) is bpf.Number:
                    assert mine == told[name]
            elif not isinstance(mine, bytes):
                assert bytes(mine) == bytes(theirs)
            if not isinstance(mine, (int, float, bytes)):
                at = ctypes.addressof(mine) - ctypes.addressof(one)
                assert at == ctypes.addressof(theirs) - ctypes.addressof(other)


# -- packing: plain Python into bytes


def put(said, rng, bits_of, at=0, bits=None):
    """Choose a value for a type; return it in plain Python, its bits in bits_of: {bit of memory: 0 or 1}.

    Of a union one branch is chosen.
    """
    if said.kind == "record":
        values = {}
        members = [rng.choice(said.members)] if said.is_union else said.members
        for name, inner, offset, width in members:
            value = put(inner, rng, bits_of, at + offset, width)
            values.update(value if not name and inner.kind == "record" else {name or "_": value})
        return values
    if said.kind == "array":
        steps = [at + 8 * said.element.size * index for index in range(said.count)]
        return [put(said.element, rng, bits_of, step) for step in steps]
    if said.kind in ("text", "bytes", "float"):
        value, raw = put_whole(said, rng)
        set_bits(bits_of, at, 8 * said.size, int.from_bytes(raw, "little"), "little")
        return value
    width = 8 * said.size if bits is None else bits
    low = -1 << width - 1 if said.signed else 0
    number = rng.choice([low, low + (1 << width) - 1, 0, low + rng.getrandbits(width)])
    number = rng.getrandbits(1) if said.kind == "bool" else number
    number = 0 if said.kind == "bool" and low + number < low else number
    set_bits(bits_of, at, width, number, said.order if bits is None else said.raw_order)
    if said.kind == "enum":
        return said.names.get(number) or rng.choice([number, str(number), hex(number)])
    shown = {"bool": [bool(number), number], "pointer": [hex(number), number]}
    return rng.choice(shown.get(said.kind, [number, number, str(number), hex(number)]))


def put_whole(said, rng):
    """Return (plain value, bytes) of a leaf that is no integer."""
    if said.kind == "text":
        texts = ["", "ab::", "::1", "1.2.3.4", "a\\x5cx41", "\u20ac'\"", "7", "0x7", "null", "a b"]
        fitting = [text for text in texts if len(text.encode()) <= said.size]
        text = rng.choice(fitting)
        return text, text.replace("\\x5c", "\\").encode().ljust(said.size, b"\0")
    if said.kind == "bytes":
        raw = bytes(rng.getrandbits(8) for _ in range(said.size))
        return list(raw), raw
    value = rng.choice([0.0, -1.5, 3, float("inf"), 1024])
    mark = "<" if said.order == "little" else ">"
    return value, struct.pack(mark + {2: "e", 4: "f", 8: "d"}[said.size], value)


def set_bits(bits_of, at, width, number, order):
    """Note a number of some bits: bit n of byte m is 8 * m + n, and big-endian data begin at the high end of each."""
    for bit in range(width):
        place = at + bit
        if order == "big":
            place = at + width - 1 - bit
            place += 7 - 2 * (place % 8)
        bits_of[place] = number >> bit & 1


def joined_bits(bits_of, size):
    """Return the bytes of so many bits, as set_bits() noted them."""
    raw = bytearray(size)
    for place, bit in bits_of.items():
        raw[place // 8] |= bit << place % 8
    return bytes(raw)


@ORDERS
def test_pack_is_the_inverse_of_what_random_types_say(order):
    for seed in range(200):
        rng = random.Random(seed)
        made = RandomBTF(rng, order)
        type_id, said = made.record(3)
        layout = made.b.btf().layout(type_id)
        bits_of = {}
        value = put(said, rng, bits_of)
        raw = joined_bits(bits_of, said.size)
        assert layout.pack(value) == raw, (seed, value)
        assert layout.pack(dict(value, rest=0), base=b"\xff" * said.size) == raw
        kept = random_bytes(rng, said.size)
        mask = joined_bits(dict.fromkeys(bits_of, 1), said.size)
        both = bytes(a & m | b & ~m for a, m, b in zip(raw, mask, kept))
        assert layout.pack(value, base=kept) == both and layout.pack({}, base=both) == both


@ORDERS
def test_what_is_read_and_each_word_of_it_can_be_packed_again(order):
    tried = 0
    for seed in range(200):
        rng = random.Random(seed)
        made = RandomBTF(rng, order)
        type_id, said = made.record(2)
        layout = made.b.btf().layout(type_id)
        bits_of = {}
        put(said, rng, bits_of)
        raw = joined_bits(bits_of, said.size)
        for part in layout.parts:
            if part.layout.has_choice or isinstance(
                part.layout, (bpf.Record, bpf.Array, bpf.Bytes)
            ):
                continue
            said_of_part = layout.reader("plain").one(raw)[part.label]
            one = bpf.Record("struct", "one", layout.size, [part])
            text = one.reader("words").one(raw).partition("=")[2]
            for given in (said_of_part, bpf._unquoted(text) if text[:1] in "'\"" else text):
                if isinstance(given, float) and math.isnan(given) or given == "nan":
                    continue
                if isinstance(part.layout, bpf.Boolean):
                    continue  # in a union: any number
                assert layout.pack({part.label: given}, base=raw) == raw, (seed, part, given)
                tried += 1
    assert tried > 500


def test_text_that_is_read_is_packed_again_whatever_stands_in_it():
    """Backslashes, what looks like an escape, bytes that are no UTF-8: each is itself again."""
    rng, found = random.Random(4), bpf.layout("char[8]")
    parts = [b"\\", b"\\", b"x", b"x41", b"4", b"\xff", b"\xc3\xa9", b"n", b'"', b"'", b"x4g"]
    raws = [b"\\x41", b"\\\\x41", b"\\\\\\x41", b"\xff\\\\x41", b"\\", b"\\\\", b"\\x4"]
    for _ in range(2000):
        raws.append(b"".join(rng.choice(parts) for _ in range(rng.randrange(1, 6)))[:8])
    shown = set()
    for raw in set(raws):
        text = found.reader("plain").one(raw.ljust(8, b"\0"))
        assert found.pack(text) == raw.ljust(8, b"\0"), (raw, text)
        shown.add(text)
    assert len(shown) == len(set(raws))  # none looks like another


@pytest.mark.parametrize("text, low, high", [
    (text % bits, -1 << bits - 1 if signed else 0, (1 << bits - signed) - 1)
    for text, signed in (("u%d", 0), ("s%d", 1), ("be%d", 0), ("le%d", 0))
    for bits in (8, 16, 32, 64, 128)
] + [
    ("%s64 pad : 3, %s64 f : %d, u8 b : 1" % (sign, sign, bits), -1 << bits - 1 if sign == "s" else 0,
     (1 << bits - (sign == "s")) - 1)
    for bits in range(1, 60, 3)
    for sign in "us"
])  # fmt: skip
def test_numbers_of_every_width_have_their_range(text, low, high):
    layout, name = bpf.layout(text), "f" if ":" in text else None

    def wrap(number):
        return {name: number, "rest": 0} if name else number

    def plain(raw):
        return layout.reader("plain").one(raw)

    for number in (low, high, low // 2, high // 2, 0):
        for given in (number, str(number), hex(number)):
            found = plain(layout.pack(wrap(given)))
            assert (found[name] if name else found) == number
    for wrong in (low - 1, high + 1, 1 << 200, -1 << 200, str(high + 1), hex(high + 1)):
        with pytest.raises(bpf.LayoutError, match=r"outside -?\d+\.\.\d+"):
            layout.pack(wrap(wrong))
    for wrong in (
        None,
        1.0,
        [1],
        [],
        {},
        {"a": 1},
        "1.0",
        "",
        "x",
        "1 2",
        "1_0",
        "\u0661",
        float("nan"),
        b"1",
    ):
        with pytest.raises(bpf.LayoutError):
            layout.pack(wrap(wrong))


@pytest.mark.parametrize("text, given, raw", [
    ("char n[4]", {"n": "ab::"}, b"ab::"), ("char n[16]", {"n": "ab::"}, b"ab::" + bytes(12)),
    ("char n[16]", "ab::", b"ab::" + bytes(12)), ("char n[6]", "1:2:3:", b"1:2:3:"),
    ("struct { struct { char n[16]; } a; }", "::1", b"::1" + bytes(13)),
    ("char n[6]", {"n": "a:b:c"}, b"a:b:c\0"), ("char[4]", "1.2.", b"1.2."),
    ("char[16]", "dead::beef", b"dead::beef" + bytes(6)), ("char n[2][16]", {"n": ["::1", "::"]}, b"::1" + bytes(13) + b"::" + bytes(14)),
    ("union { char a[16]; char b[2]; }", {"a": "ab::"}, b"ab::" + bytes(12)),
    ("be32", "10.0.0.1", b"\x0a\0\0\1"), ("u32", "10.0.0.1", b"\x0a\0\0\1"), ("s32 a", {"a": "255.0.0.1"}, b"\xff\0\0\1"),
    ("u8 m[6]", {"m": "0:1b:2:3:4:FF"}, b"\0\x1b\2\3\4\xff"), ("u8[4]", "10.0.0.1", b"\x0a\0\0\1"),
    ("u8 a[16]", {"a": "::1"}, bytes(15) + b"\1"), ("u32 a[4]", {"a": "::1"}, bytes(15) + b"\1"),
    ("struct { union { u8 a[16]; be16 b[8]; be32 c[4]; } u; }", "fe80::1", b"\xfe\x80" + bytes(13) + b"\1"),
    ("struct { be32 s_addr; }", "10.0.0.1", b"\x0a\0\0\1"), ("u128", "::2", bytes(15) + b"\2"),
    ("union { struct { u32 p1; u32 p2; u32 p3; u32 p4; }; u8 addr[16]; }", "::1", bytes(15) + b"\1"),
])  # fmt: skip
def test_the_type_decides_whether_text_is_an_address(text, given, raw):
    assert bpf.layout(text).pack(given) == raw


@pytest.mark.parametrize("size", [1, 2, 4, 6, 8, 15, 16, 17, 20, 32])
def test_an_address_fills_its_bytes_exactly(size):
    """Of IPv6 16, of IPv4 4, of a MAC 6: no other field takes one."""
    ipv6()
    for text, wanted in (("fe80::1", 16), ("10.0.0.1", 4), ("2:0:0:0:0:1", 6)):
        try:
            found = bpf._address_bytes(text, size)
        except bpf.LayoutError:
            found = None
        assert (found is not None and len(found) == size) == (size == wanted), text
        try:
            packed = bpf.layout(u8 * size).pack(text)
        except (bpf.LayoutError, ValueError):
            packed = None
        assert packed is None or len(packed) == size
        if size == wanted:
            assert packed == found


@pytest.mark.parametrize("text, given", [
    ("u32 a, u32 b, u32 c, u32 d", "::1"), ("u16 a, u16 b", "1.2.3.4"), ("enum { A } e", {"e": "10.0.0.1"}),
    ("u64", "10.0.0.1"), ("u32 a : 31", {"a": "10.0.0.1"}), ("u8[6]", "1:2:3:4:5:100"), ("u8[6]", "1:2:3:4:5:"),
    ("u8[6]", "+1:2:3:4:5:6"), ("u8[6]", " 1:2:3:4:5:6"), ("u8[16]", "::g"), ("u8[16]", "1.2.3.4"), ("u8[16]", ":::"),
    ("struct { u16 a; } r[2]", {"r": "1.2.3.4"}), ("float", "1.2.3.4"), ("u8[5]", "1:2:3:4:5:6"), ("u8[15]", "::1"),
    ("u32", "10.0.0"), ("u32", "10.0.0.256"), ("bool", "2"), ("bool", 2), ("bool", -1), ("bool", "maybe"),
    ("char[2]", "abc"), ("char[2]", "\u20ac"), ("char", "ab"), ("char", 256), ("char", -129), ("char", None),
    ("char[2]", ["ab", "c"]), ("char[2]", ["a"]), ("u8[2]", [1]), ("u8[2]", [1, 2, 3]), ("u8[2]", 5), ("u8[2]", {"a": 1}),
    ("u8[2]", [1, None]), ("u8 a", None), ("u8 a", [1]), ("u8 a, u8 b", "1"), ("u8 a", {"b": 1}), ("u8 a", 1.0),
    ("u8 a, u8 b", {"a": 1}), ("u8 a, u8 b", {"a": 1, "rest": 1}), ("u8 a, u8 b", {"a": 1, "rest": None}),
    ("u8 a, u8 b", {"a": 1, "rest": False}), ("u8 a, u8 b", {"a": 1, "rest": 0.0}), ("u8 a, u8 b", {"a": 1, "rest": "00"}),
    ("union { u8 a; u16 b; } u", {"u": {}}), ("union { u8 a; u16 b; }", {}), ("u8 a, struct { u8 b; };", {"a": 1}),
    ("union { u8 a; u16 b; }", {"a": 1, "b": 2}), ("union { struct { u8 a; u8 b; }; u16 c; }", {"a": 1}),
])  # fmt: skip
def test_what_does_not_say_every_byte_or_says_it_twice_is_refused(text, given):
    with pytest.raises(bpf.LayoutError):
        bpf.layout(text).pack(given)


def test_pack_lists_what_is_missing_and_keeps_or_clears_the_rest():
    layout = bpf.layout(
        "u8 a, struct { u8 b; union { u8 c; u16 d; }; u8 e[2]; } in, u8 f : 3, u8 g : 5"
    )
    whole = {"a": 1, "in": {"b": 2, "d": 3, "e": [4, 5]}, "f": 6, "g": 7}
    raw = layout.pack(whole)
    assert layout.pack(whole, base=b"\xff" * layout.size)[:5] != raw[:5]  # the hole stays
    for change, words in (
        ({"a": 1}, "in, f, g not given"),
        ({"a": 1, "f": 1, "in": {"b": 1}}, r"in: one of c, d, e not given"),
        ({"a": 1, "f": 1, "in": {"d": 1, "e": [1, 2]}}, r"in: b not given"),
        (dict(whole, **{"in": {"b": 2, "c": 1, "d": 3, "e": [4, 5]}}), "in.d says something else"),
    ):
        with pytest.raises(bpf.LayoutError, match=words):
            layout.pack(change)
    assert (
        layout.pack({"a": 1, "rest": 0})
        == layout.pack({"a": "1", "rest": "0"})
        == b"\1" + bytes(layout.size - 1)
    )
    assert layout.pack({}, base=raw) == raw and layout.pack({"g": 7, "f": 6}, base=raw) == raw
    ones = b"\xff" * layout.size
    assert layout.pack({"a": 1, "rest": 0}, base=ones) == b"\1" + bytes(layout.size - 1)
    given = {"in": {"b": 1, "rest": 0}}  # what is around it stays
    at = [member.offset // 8 for member in layout.members]
    wanted = ones[: at[1]] + b"\1" + bytes(at[2] - at[1] - 1) + ones[at[2] :]
    assert layout.pack(given, base=ones) == wanted
    assert bpf.layout("u8 rest, u8 b").pack({"rest": 3, "b": 4}) == b"\3\4"  # a field of that name
    union = bpf.layout("union { struct { u8 a; u8 b; } x; u16 c; }")  # what was said is no rest
    assert union.pack({"c": 0x0505, "x": {"rest": 0}}) == b"\5\5"
    assert union.pack({"c": 0x0505, "x": {"a": 5, "rest": 0}}, base=b"\1\1") == b"\5\5"


def test_fields_that_are_hidden_or_renamed_are_packed_under_either_name():
    class Tagged(ctypes.Structure):
        _fields_ = [("a", u8), ("pad", u8), ("b", u8), ("nothing", u8 * 0)]
        _json_ = {"pad": None, "b": "second"}

    layout = bpf.layout(Tagged)
    assert layout.pack({"a": 1, "second": 2}) == layout.pack({"a": 1, "b": 2}) == b"\1\0\2"
    assert layout.pack({"a": 1, "b": 2, "pad": 3}) == b"\1\3\2"
    assert layout.pack({"a": 1, "b": 2}, base=b"\7\7\7") == b"\1\7\2"
    with pytest.raises(bpf.LayoutError, match="second not given"):
        layout.pack({"a": 1, "pad": 3})
    with pytest.raises(bpf.LayoutError, match="no field 'c'; there are a, second"):
        layout.pack({"a": 1, "c": 3})


def test_members_of_nameless_records_that_share_a_name_are_all_wanted():
    b = Blob()
    inner = b.struct("", 2, ("a", b.int("u8", 1), 0), ("b", 1, 8))
    outer = b.struct("s", 4, ("a", 1, 0), ("", inner, 8), ("b", 1, 24))
    layout = b.btf().layout(outer)
    assert list(layout.reader("plain").one(b"\1\2\3\4").values()) == [1, 2, 3, 4]
    names = list(layout.reader("plain").one(b"\1\2\3\4"))
    for number in range(4):
        with pytest.raises(bpf.LayoutError, match=": %s not given" % names[number]):
            layout.pack({name: 0 for name in names if name != names[number]})
    assert layout.pack(dict(zip(names, b"\1\2\3\4"))) == b"\1\2\3\4"
    made = layout.ctype()(**dict(zip(names, b"\1\2\3\4")))
    assert bytes(made) == b"\1\2\3\4"
    around = b.struct("around", 9, ("", outer, 0), ("", outer, 32), ("b", 1, 64))
    layout = b.btf().layout(around)
    names = list(layout.reader("plain").one(bytes(9)))
    made = layout.ctype()(*range(9))
    assert bytes(made) == bytes(range(9)) and list(layout.ctype()._attributes_) == names
    source = {}
    exec(layout.python_source("made"), source)
    twin = source["made"].from_buffer_copy(bytes(range(9)))
    assert [getattr(made, name) for name in names] == [getattr(twin, name) for name in names]
    assert [getattr(twin, name) for name in names] == list(range(9))


# -- readers: what they refuse, remember and share


@pytest.mark.parametrize(
    "layout",
    [
        bpf.layout("u32 a, u8 b"),
        bpf.layout("struct { u8 n; char c[7]; } a[70]"),
        bpf.layout(Choosing),
    ],
)
def test_readers_refuse_buffers_forms_and_strides_that_do_not_fit(layout):
    size = layout.size
    for form in bpf._FORMS:
        reader = layout.reader(form)
        assert reader is layout.reader(form) and list(reader.read(b"")) == []
        for wrong in (0, 1, size - 1, size + 1, 2 * size):
            with pytest.raises(bpf.LayoutError, match="takes %d bytes, not %d" % (size, wrong)):
                reader.one(bytes(wrong))
        for wrong in (1, size - 1, size + 1, 2 * size + 1):
            with pytest.raises(bpf.LayoutError, match="takes %d bytes" % size):
                list(reader.read(bytes(wrong)))
        for stride in (0, 1, size - 1, -1):
            with pytest.raises(bpf.LayoutError, match="apart"):
                layout.reader(form, stride)
    with pytest.raises(bpf.LayoutError, match="no form 'csv'; there are plain, json"):
        layout.reader("csv")


def test_more_values_than_bytes_could_hold_are_not_read():
    """Their offsets can be asked all the same: a class may have more fields than a reader unrolls."""
    b = Blob()
    number = b.int("u32", 4)
    many = b.union("many", 4, *[("m%d" % at, number, 0) for at in range(4200)])
    few = b.union("few", 4, *[("m%d" % at, number, 0) for at in range(4000)])
    btf = b.btf()
    for form in bpf._FORMS:
        assert btf.layout(few).reader(form)
        with pytest.raises(bpf.LayoutError, match="4201 values in 4 bytes are too many to read"):
            btf.layout(many).reader(form)
    assert btf.offsetof(many, "m4199") == 0 and "m4199" in btf.describe(many)
    for count in (4000, 4200):
        fields = [("m%d" % at, u32) for at in range(count)]
        made = type("Made", (ctypes.Union,), {"_fields_": fields})
        if count == 4000:
            assert bpf.layout(made).values == 4001
        else:
            with pytest.raises(bpf.LayoutError, match="4201 values in 4 bytes are too many"):
                bpf.layout(made)


def test_what_readers_remember_is_bounded():
    """Of enumerators, texts and branches: those that a map holds may be as many as its entries."""
    many = bpf.Enum(4, "e", {1: "A"}).reader("json")
    long = bpf.layout("char[65536]").reader("json")
    tracemalloc.start()
    try:
        for number in range(30):
            assert (
                len(
                    list(
                        many.read(
                            struct.pack("=3000I", *range(3000 * number, 3000 * number + 3000))
                        )
                    )
                )
                == 3000
            )
            long.one(b"%d" % number + b"x" * 60000 + bytes(65536 - 60000 - len(str(number))))
        assert tracemalloc.get_traced_memory()[0] < 1500000
    finally:
        tracemalloc.stop()

    class Either(ctypes.Union):
        _fields_ = [("a", u8), ("b", u8)]

    class One(ctypes.Structure):
        _fields_ = [("kind", u8), ("of", Either)]
        _union_ = {"of": ("kind", {0: "a", 1: "b"})}

    reader = bpf.layout(One * 10).reader("samples")
    for number in range(1 << 10):
        kinds = [number >> at & 1 for at in range(10)]
        found = list(reader.one(bytes(one for kind in kinds for one in (kind, 7))))
        assert [path[2] for path, _ in found[1::2]] == ["ab"[kind] for kind in kinds]
    assert len(reader._readers) <= 256


def test_threads_that_ask_at_once_get_one_reader_and_one_class():
    for number in range(20):
        layout = bpf.layout("struct { u8 a%d; struct { be16 b; char c[4]; } d[70]; }" % number)
        start, found = threading.Barrier(8), []

        def ask():
            start.wait()
            raw = bytes(range(layout.size % 256)) + bytes(layout.size - layout.size % 256)
            found.append(
                (
                    layout.ctype(),
                    layout.reader("json"),
                    layout.reader("json").one(raw),
                    hash(layout),
                )
            )

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and len(set(found)) == 1


# -- classes made from layouts

PORTS = "be16 dport, u8 proto, enum { TCP = 6, UDP = 17 } kind, char name[8], u32 low : 3, s32 high : 5, u8 mac[6], float f"
REFUSED = [
    ("dport", 65536), ("dport", -1), ("dport", "443"), ("dport", None), ("dport", 1.0), ("dport", b"ab"), ("proto", 256),
    ("kind", "SCTP"), ("kind", 1 << 32), ("name", "nine chars"), ("name", b"123456789"), ("name", 5), ("low", 8), ("low", -1),
    ("high", 16), ("high", -17), ("mac", b"12345"), ("mac", [1, 2]), ("mac", [1, 2, 3, 4, 5, 256]), ("f", 1e39),
    ("nosuch", 1), ("_fields", 1), ("Dport", 1),
]  # fmt: skip


@pytest.mark.parametrize("name, given", REFUSED)
def test_constructors_and_setattr_refuse_what_is_unknown_or_does_not_fit(name, given):
    class Sub(bpf.layout(PORTS).ctype()):
        _fields_ = [("more", u8)]

    for made in (bpf.layout(PORTS).ctype(), Sub):
        with pytest.raises(bpf.LayoutError):
            made(**{name: given})
        obj = made(dport=1, name="x", low=7)
        before = bytes(obj)
        with pytest.raises(bpf.LayoutError):
            setattr(obj, name, given)
        assert bytes(obj) == before
        for wrong in ({"more": 256}, {"more": -1}) if made is Sub else ({"more": 1},):
            with pytest.raises(bpf.LayoutError):
                made(**wrong)
    with pytest.raises(bpf.LayoutError):
        made(*range(20))
    with pytest.raises(bpf.LayoutError):
        made(1, dport=1)


@ORDERS
def test_a_big_endian_typedef_of_btf_is_a_number_of_that_order(order):
    b = Blob(order)
    port = b.of(b.TYPEDEF, b.int("unsigned short", 2), "__be16")
    b.struct(
        "key", 8, ("dport", b.of(b.CONST, port), 0), ("list", b.array(port, 2), 16), ("n", 1, 48)
    )
    btf = b.btf()
    layout, made = btf.layout("key"), btf.ctype("key")
    native = (443).to_bytes(2, order)
    raw = b"\1\xbb\0\x50\1\xbc" + native
    given = {"dport": 443, "list": [80, 444], "n": 443}
    assert layout.pack(given) == raw == bytes(made(**given)) and made(dport=443).dport == 443
    found = made.from_buffer_copy(raw)
    assert (found.dport, list(found.list), found.n) == (443, [80, 444], 443)
    assert bpf.to_python(found) == given
    assert layout.reader("words").one(raw) == "dport=443 list=[80 444] n=443"
    for form in ("samples", "labels"):
        assert list(layout.reader(form).one(raw))[0][1] in (443, "443")
    shown = json.loads(layout.reader("bpftool").one(raw))  # which knows of no typedef
    assert shown["dport"] == int.from_bytes(b"\1\xbb", order) and shown["n"] == 443
    names = {}
    exec(btf.python_source("key"), names)
    assert names["key"].from_buffer_copy(raw).dport == 443


def test_a_class_of_a_layout_takes_names_text_bytes_lists_and_dicts():
    made = bpf.layout(PORTS + ", struct { u8 x; u8 y[2]; } in, char n2[2][4]").ctype()
    obj = made(443, 6, "UDP", "bash", high=-16, mac=b"\1\2\3\4\5\6", f=1)
    setattr(obj, "in", {"x": 1, "y": [2, 3]})
    obj.n2 = ["ab", "abcd"]
    assert (obj.dport, obj.kind, obj.high, list(obj.mac), obj.f) == (
        443,
        17,
        -16,
        [1, 2, 3, 4, 5, 6],
        1,
    )
    plain = bpf.to_python(obj)
    assert plain["name"] == "bash" and plain["kind"] == "UDP" and plain["n2"] == ["ab", "abcd"]
    assert plain["in"] == {"x": 1, "y": [2, 3]}
    obj.mac, obj.name, obj.kind = "ff:0:0:0:0:1", b"sh", 6
    assert bpf.to_python(obj)["mac"] == [255, 0, 0, 0, 0, 1] and bpf.to_python(obj)["name"] == "sh"
    twin = made.from_buffer_copy(bytes(obj))
    assert twin == obj
    assert hash(twin) == hash(obj)
    assert {obj: 1}[twin] == 1
    assert "dport=443" in repr(obj)
    twin.low = 1
    assert twin != obj and obj != bytes(obj)


def test_a_subclass_decodes_with_its_own_fields_and_leaves_the_base_alone():
    layout = bpf.layout("struct { u8 a; struct { be16 b; } __attribute__((packed)); }")
    made = layout.ctype()
    sub = type(
        "Sub",
        (made,),
        {"_fields_": [("more", u16), ("text", ctypes.c_char * 4)], "_json_": {"a": "first"}},
    )
    subsub = type("SubSub", (sub,), {"_fields_": [("last", u8)], "_json_": {"more": None}})
    obj = subsub(1, 2, 3, "abc", 5)
    assert bpf.to_python(obj) == {"first": 1, "b": 2, "text": "abc", "last": 5}
    assert bpf.to_python(sub(a=1, more=7)) == {"first": 1, "b": 0, "more": 7, "text": ""}
    assert bpf.to_python(made(a=1)) == {"a": 1, "b": 0} and layout.members[0].label == "a"
    assert bpf.layout(made) == layout
    for wrong in ({"last": 256}, {"more": "x"}, {"text": "abcde"}):
        with pytest.raises(bpf.LayoutError):
            subsub(**wrong)


class Tagless(ctypes.BigEndianStructure):
    _fields_ = [("a", u16), ("bits", u16, 3), ("more", u16, 13), ("b", u8 * 3)]


def test_objects_and_errors_that_hold_them_survive_pickling_in_another_process():
    b = house("little")
    btf = b.btf()
    values = [
        bpf.layout(PORTS).ctype()(dport=443, name="x"),
        btf.ctype("house")(),
        bpf.layout("union { u8 a; u16 b; }").ctype()(b=7),
    ]
    layouts = [
        bpf.layout(PORTS),
        btf.layout("house"),
        bpf.layout(Tagless),
        bpf.layout("char n[3][4]"),
    ]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        error = bpf.KeyNotFound(errno.ENOENT, "no such key")
        error.key = values[0]
        for value in values:
            twin = pickle.loads(pickle.dumps(value, protocol))
            assert twin == value and type(twin) is type(value) and copy.deepcopy(value) == value
        assert pickle.loads(pickle.dumps(error, protocol)).key == values[0]
        for layout in layouts:
            twin = pickle.loads(pickle.dumps(layout, protocol))
            assert twin == layout
            assert hash(twin) == hash(layout)
            assert twin.describe() == layout.describe()
            raw = bytes(range(layout.size))
            for form in ("plain", "json", "words"):
                assert twin.reader(form).one(raw) == layout.reader(form).one(raw)
        given = pickle.dumps([values, error], protocol)
        told = python(
            "import pickle, sys; values, error = pickle.loads(%r); print([bytes(one).hex() for one in values],"
            " error.key == values[0], values[0].dport)" % given
        )
        assert told[1].strip() == "%s True 443" % [bytes(one).hex() for one in values], told


@pytest.mark.parametrize("count", [20, 200])
def test_a_class_to_write_instead_is_shown_unless_it_is_long(count):
    names = ["m%d" % at for at in range(count)]
    theirs = bpf.layout("struct { %s }" % "".join("u32 %s;" % name for name in names))
    fields = [(name, u32) for name in reversed(names)]
    mine = bpf.layout(type("Mine", (ctypes.Structure,), {"_fields_": fields}))
    with pytest.raises(bpf.LayoutError) as told:
        bpf._prove_agreement(mine, theirs, False, "value")
    assert ("write instead" in str(told.value)) == (count == 20)
    assert str(told.value).count("\n") < 2 * count + 30


# -- source of classes


@ORDERS
def test_source_makes_the_same_types(order):
    btf = house(order).btf()
    made = assert_same_from_source(btf, "house", "house").from_buffer_copy(in_order(order, *HOUSE))
    assert (made.door, made.mode, made.line[1].y, made.grid[1][2], made.name) == (
        -2,
        5,
        -4,
        5,
        b"Hill",
    )
    b = zoo(order)
    b.of(b.TYPEDEF, b.struct("", 4, ("n", 1, 0)), "named_t")
    b.of(b.TYPEDEF, 3, "three")
    b.struct("pair", 8, ("in", 4, 0))
    b.struct("__pair", 16, ("a", 23, 0), ("b", 4, 64))
    b.int("u24", 3)
    for t, name in (
        ("pair", "pair"),
        (".bss", None),
        (3, "value"),
        ("s32", "s32"),
        ("named_t", "named_t"),
        (24, None),
        ("either", "either"),
        ("three", "three"),
        (23, "pair"),
        ("sign", "sign"),
        ("double", "double"),
        ("u24", "u24"),
        (2, "value"),
    ):
        assert_same_from_source(b.btf(), t, name)
    assert "\nclass" not in b.btf().python_source("s32")
    assert b.btf().python_source(4).count("class ") == 1


HOSTILE_NAMES = [
    "class",
    "None",
    "lambda",
    "self",
    "int",
    "bytes",
    "property",
    "ctypes",
    "setattr",
    "type",
    ".bss",
    ".",
    "1st",
    "9",
    "_9",
    "__x",
    "a b",
    "a\nb",
    "a\\",
    "'",
    '"',
    "'''",
    '"""',
    "\u00e9",
    "\U0001f40d",
    "x\r",
    "%s",
    "{}",
    "__class__",
    "__slots__",
    "__qualname__",
    "__classcell__",
    "__dict__",
    "__init__",
    "__new__",
    "__del__",
    "__bytes__",
    "__len__",
    "__bool__",
    "__hash__",
    "__eq__",
    "__getattr__",
    "__getattribute__",
    "__setattr__",
    "__set_name__",
    "__buffer__",
    "__module__",
    "__doc__",
    "mro",
    "__annotations__",
    "__firstlineno__",
    "__static_attributes__",
    "__reduce__",
    "__copy__",
    "__index__",
    "__call__",
    "_fields_",
    "_pack_",
    "_layout_",
    "_anonymous_",
    "_align_",
    "_swappedbytes_",
    "_btf_type_",
    "_btf_",
    "_json_",
    "_union_",
    "_type_",
    "_length_",
    "_objects",
    "_b_base_",
    "_hole8_4",
    "_hole8_0",
    "_anon8_1",
    "_anon8_0",
    "_anon7_0",
    "_",
    "')]; import builtins; builtins.PWNED = 1 #",
    "x')\nimport builtins\nbuiltins.PWNED = 1\n('",
    "x:\n    import builtins; builtins.PWNED = 1\nclass y",
    "__import__('builtins').__dict__.update(PWNED=1)",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_neither_break_nor_inject(name, capfd):
    b = Blob()
    byte, word, odd = b.int("u8", 1), b.int("u32", 4), b.int("u24", 3)
    same = b.struct(name, 8, (name, word, 0), ("other", byte, 56))
    bits = b.struct(
        name,
        4,
        (name, word, 0, 3),
        ("__" + name.strip("_"), word, 3, 5),
        (name.strip("_") or "x", word, 8, 7),
    )
    twice = b.struct("twice", 12, (name, word, 0), (name, word, 32), ("other", odd, 64))
    inner = b.struct("", 8, (name, word, 32))
    outer = b.struct(
        "outer",
        40,
        (name, byte, 0),
        ("", inner, 32),
        ("s", same, 96),
        ("b", bits, 160),
        ("t", twice, 192),
        ("last", odd, 288),
    )
    b.enum(name + "_enum", 4, [(name, 1), (name, 2)])
    btf = b.btf()
    for t in (same, bits, twice, outer, inner):
        ctype = btf.ctype(t)
        obj = ctype.from_buffer_copy(bytes(range(1, ctypes.sizeof(ctype) + 1)))
        assert obj == ctype.from_buffer_copy(obj)
        assert {obj: 1}[copy.copy(obj)] == 1
        assert bool(obj)
        assert repr(obj)
        assert len(bpf.to_python(obj)) == {same: 2, bits: 3, twice: 3, outer: 6, inner: 1}[t]
        assert bpf.to_json(obj)
        found, raw = btf.layout(t), bytes(obj)
        plain = found.reader("plain").one(raw)
        assert json.loads(found.reader("json").one(raw)) == plain == bpf.to_python(obj)
        if t == same:
            assert list(plain) == [name, "other"]  # a name is the same in every form
            assert [path for path, _ in found.reader("samples").one(raw)] == [(name,), ("other",)]
            words = found.reader("words").one(raw)
            assert words.endswith(" other=8") and words.isprintable()
        assert btf.describe(t)
        assert bpf.describe_layout(ctype)
        assert len(list(btf.members(t))) == btf.type(t).count
        if t != outer:  # which has the same name twice, once in an anonymous member
            assert_same_from_source(btf, t)
    assert btf.offsetof(twice, "other") == 8 and bpf.to_python(btf.ctype(name + "_enum")(1)) == 1
    del obj
    assert capfd.readouterr() == ("", "") and not hasattr(sys.modules["builtins"], "PWNED")


def test_what_a_union_does_not_fill_is_padding():
    class Inner(ctypes.Union):
        _fields_ = [("a", u8), ("b", u16)]

    class Outer(ctypes.Union):
        _fields_ = [("inner", Inner), ("wide", u32 * 2), ("odd", u8 * 9)]

    b = Blob()
    union = b.union("u", 12, ("odd", b.array(b.int("u8", 1), 9), 0))
    for table in (bpf.describe_layout(Outer), b.btf().describe(union)):
        assert "     9     3  " in table and "(hole)" in table
        assert table.splitlines()[-1].startswith("12 bytes, 3 of them padding")
    for text in ("u64 wide; u8 first;", "u8 first; u64 wide;", "u16 two; u64 wide; u32 four;"):
        for made in ("union { %s }" % text, "struct { union { %s }; }" % text):
            table = bpf.layout(made).describe()
            assert "(hole)" not in table and table.endswith("\n8 bytes"), table


def test_a_member_of_no_bytes_may_lie_anywhere():
    """Rust has them inside of others, and in any order: they take nothing, and nothing is in their place."""
    b = Blob()
    wide, unit = b.int("u64", 8), b.struct("unit", 0)
    units = b.array(unit, 3)
    made = b.struct(
        "s", 16, ("a", wide, 0), ("z", unit, 32), ("y", units, 8), ("b", wide, 64), ("e", unit, 128)
    )
    btf = b.btf()
    ctype = btf.ctype(made)
    assert [name for name, _ in ctype._fields_] == ["a", "b", "e"] and ctypes.sizeof(ctype) == 16
    assert [btf.offsetof(made, name) for name in "azybe"] == [0, 4, 1, 8, 16]
    assert "(hole)" not in btf.describe(made) and btf.describe(made).endswith("\n16 bytes")
    raw = struct.pack("<QQ", 5, 6)
    plain = {"a": 5, "z": {}, "y": [{}, {}, {}], "b": 6, "e": {}}
    assert btf.layout(made).reader("plain").one(raw) == plain
    assert bpf.to_python(ctype.from_buffer_copy(raw)) == plain
    assert btf.layout(made).pack({"a": 5, "b": 6}) == raw
    assert_same_from_source(btf, made)


# -- types and classes that lie


def hostile_classes():
    """Yield classes that say something else of themselves than ctypes made of them."""

    def fresh():
        made = type("S", (ctypes.Structure,), {"_fields_": [("a", u8, 3), ("b", u16)]})
        made()
        return made

    for name, lies in (
        ("_length_", (-1, "x", 10**12, 2.0, None, 2, 8)),
        ("_type_", (u64, ctypes.c_void_p, int, None, ctypes.py_object, u8 * 2)),
    ):
        for lie in lies:
            made = type("A", (u32 * 4,), {})
            setattr(made, name, lie)
            yield made
    for lie in ("P", "z", "O", "Z", "g", 5, None):
        made = type("N", (u32,), {})
        made._type_ = lie
        yield made
    for field in (
        5,
        "x",
        (),
        ("a",),
        ("b", u64),
        ("b", u16, 300),
        ("b", u16, -3),
        ("b", u16, "x"),
        ("b", None),
    ):
        made = fresh()
        made.__dict__["_fields_"][1] = field
        yield made
    made = fresh()
    made.__dict__["_fields_"][1] = ("b", made)
    yield made
    for tag, lies in (
        ("_json_", (5, "ab", [1], {"a": 5}, {"a": []}, {"zz": "b"}, {"a": "b"})),
        ("_btf_", (5, "ab", [1], {"zz": "b"})),
        ("_union_", (5, "ab", {"a": 5}, {"a": ("zz", {})}, {"a": ("b", {1: 2})}, {"a": ("b", 5)})),
        ("_pack_", ("x", -1)),
        ("_anonymous_", (5,)),
    ):
        for lie in lies:
            made = fresh()
            setattr(made, tag, lie)
            yield made


def test_classes_that_lie_are_layout_errors():
    for number, made in enumerate(hostile_classes()):
        for ask in (bpf.layout, lambda made: bpf.to_python((made * 1)()), bpf.describe_layout):
            with pytest.raises(bpf.LayoutError):
                ask(made)
                pytest.fail("%d was taken" % number)


class Natural2(ctypes.Structure):
    _fields_ = [("a", u8), ("b", u16)]


def test_what_a_class_was_made_of_can_not_be_forged():
    far = bpf.Member("far", bpf.layout("u32"), 8000, 0, "far")
    for lie in (
        bpf.Record("struct", "s", 4, [far]),
        bpf.layout("u32 x"),
        bpf.layout("u8 c, u16 d"),
        far,
        5,
        None,
    ):
        made = type(
            "S", (ctypes.Structure,), {"_fields_": [("a", u8), ("b", u16)], "_made_of_": lie}
        )
        assert list(bpf.layout(made).reader("plain").read(b"\1\0\2\0")) == list(
            bpf.layout(Natural2).reader("plain").read(b"\1\0\2\0")
        )
    sub = type("Sub", (bpf.layout("u8 a, u16 b").ctype(),), {"_made_of_": bpf.layout("u32 x")})
    assert [member.name for member in bpf.layout(sub).members] == ["a", "b"]


def test_objects_of_a_swapped_class_are_neither_read_nor_written_past_their_end():
    large, small = bpf.layout("u64 a, u64 b : 5").ctype(), bpf.layout("u8 z").ctype()
    obj = small(z=7)
    obj.__class__ = large
    for use in (
        lambda: setattr(obj, "b", 3),
        lambda: repr(obj),
        lambda: bpf.to_python(obj),
        lambda: obj.copy(),
    ):
        with pytest.raises((bpf.LayoutError, AttributeError)):
            use()
    assert obj.b == 0 and bytes(memoryview(obj)) == b"\7"


def steps_of(ask):
    """Return how many lines of the module run, and calls into C are made, while something is asked."""
    count = [0]

    def tracer(frame, event, argument):
        count[0] += event in ("call", "c_call")

    sys.setprofile(tracer)
    try:
        ask()
    finally:
        sys.setprofile(None)
    return count[0]


def everything_of(layout):
    """Ask a layout for all that it gives."""
    raw = bytes(layout.size)
    for form in bpf._FORMS:
        with contextlib.suppress(bpf.LayoutError):
            whole(form, layout.reader(form).one(raw))
    for ask in (
        layout.describe,
        layout.ctype,
        layout.python_source,
        lambda: layout.pack({"rest": 0}),
    ):
        with contextlib.suppress(bpf.LayoutError):
            ask()


@once
def test_the_work_for_hostile_types_grows_with_them_and_no_faster():
    for case in range(5):
        steps = []
        for n in (100, 200, 400):
            b, type_id = list(hostile_btf(n))[case]
            btf = b.btf()
            steps.append(steps_of(lambda: everything_of(btf.layout(type_id))))  # noqa: B023
        assert steps[2] < 2.6 * steps[1] and steps[1] < 2.6 * steps[0], (case, steps)


@pytest.mark.parametrize("make, why", [
    (lambda b: b.array(b.int("u8", 1), 0xFFFFFFFF), None), (lambda b: b.array(b.struct("e", 0), 0xFFFFFFFF), "too large"),
    (lambda b: b.array(b.array(b.int("u8", 1), 0xFFFF), 0x10000), None), (lambda b: b.struct("s", 8, ("a", 1, 0)), "deep"),
    (lambda b: b.array(b.array(b.int("u8", 1), 0xFFFF), 0x10002), "too large"), (lambda b: b.array(1, 3), "deep"),
    (lambda b: chain(b, 28, lambda b, t, _: b.struct("s", 1, ("a", t, 0), ("b", t, 0)), b.int("u8", 1)), "too large"),
    (lambda b: chain(b, 28, lambda b, t, _: b.union("", 1, ("", t, 0), ("", t, 0)), b.union("u", 1, ("a", b.int("u8", 1), 0))), "too large"),
    (lambda b: b.union("u", 60000, *[("m%d" % at, at and 2 or b.array(b.int("u16", 2), 30000), 0) for at in range(80)]), "too large"),
])  # fmt: skip
def test_types_larger_than_they_look_are_refused_or_bounded(make, why):
    def ask():
        b = Blob()
        type_id = make(b)
        try:
            layout = b.btf().layout(type_id)
        except bpf.BTFError as error:
            assert why and why in str(error)
            return
        assert why is None
        for form in bpf._FORMS:
            with contextlib.suppress(bpf.LayoutError):
                layout.reader(form)
        layout.describe()
        layout.ctype()
        layout.python_source()
        hash(layout)
        with pytest.raises(bpf.LayoutError, match="too many for samples"):
            layout.reader("samples")

    before = resident("VmHWM")
    within(20, ask)
    assert resident("VmHWM") - before < 64 << 20


def test_types_inside_types_are_counted_whatever_was_asked_first():
    def nested(depth):
        b = Blob()
        ids = [b.int("u8", 1)]
        for number in range(depth):
            ids.append(b.struct("s%d" % number, 1, ("m", ids[-1], 0)))
        return b.btf(), ids

    for first in (None, 5, 20, 31):
        btf, ids = nested(40)
        if first is not None:
            assert btf.layout(ids[first]).levels == first
        assert btf.layout(ids[32]).levels == 32
        for depth in (33, 34, 40):
            with pytest.raises(bpf.BTFError, match="deep"):
                btf.layout(ids[depth])


class Trap(ctypes.Structure):
    """A class whose own methods and fields stand where ctypes has some of its own."""

    _fields_ = [("a", u64 * 8), ("value", u32), ("from_buffer_copy", u32)]

    def __init__(self, required):
        raise AssertionError("the caller's __init__ is not for us")

    def __new__(cls, *_):
        return (u8 * 3)()


class Seven(u32):
    value = property(lambda self: 7)


@kernel
def test_fields_and_methods_with_names_of_ctypes_stay_out_of_the_way():
    raw = bytes(range(72))
    with Map.create(HASH, Trap, Trap, 4) as m:
        m[raw] = raw
        found = m[raw]
        assert type(found) is Trap and bytes(found) == raw and m.get(raw).value == found.value
        assert [bytes(key) for key in m] == [raw]
        assert [bytes(part[0]) for part, _ in m.lookup_batch()] == [raw]
        m._has_batch = False
        assert [(bytes(key), bytes(value)) for key, value in m.items()] == [(raw, raw)]
        assert bytes(m[found]) == raw and bpf.to_python(found)["value"] == found.value
    with Map.create(PERCPU_ARRAY, u32, Trap, 1) as m:
        m[0] = raw
        assert [bytes(value) for value in m[0]] == [raw] * len(bpf.possible_cpus())


@kernel
def test_a_property_of_a_number_stays_out_of_the_way():
    with Map.create(HASH, Seven, Seven, 4) as m:
        m[5] = 6
        m[Seven(8)] = Seven(9)
        assert m[5] == 6
        assert sorted(m.items()) == [(5, 6), (8, 9)]
        assert m.next_key() in (5, 8)
        assert 7 not in m
    with Map.create(HASH, u32, u32, 4) as m:
        m[7] = 1
        with pytest.raises(bpf.LayoutError):
            m[Seven(5)]

    class Stuck(ctypes._SimpleCData):
        _type_ = "I"
        value = property(lambda self: 7, lambda self, number: None)

    with Map.create(HASH, Stuck, Stuck, 4) as m:
        m[1] = 2
        assert m[1] == 2 and list(m.items()) == [(1, 2)]


@kernel
def test_a_conversion_to_bytes_that_lies_is_not_asked():
    class Bytes(bytes):
        def __bytes__(self):
            return b"x"

    class Liar(ctypes.Structure):
        _fields_ = [("a", u32)]
        __bytes__ = Bytes.__bytes__

    with Map.create(HASH, Liar, Liar, 4) as m:
        m[Liar(1)], m[Liar(2)], m._has_batch = Liar(3), Liar(4), False
        assert m.lookup_bytes(Liar(1)) == bytes(u32(3))
        assert sorted((k.a, v.a) for k, v in m.items()) == [(1, 3), (2, 4)]
    with Map.create(ARRAY, u32, Liar, 2, flags=bpf.BPF_F_MMAPABLE) as m, m.mmap(True) as mapped:
        mapped[1] = Liar(5)
        assert m[1].a == 5
    with Map.create(PERCPU_ARRAY, u32, u64 * 8, 1) as m:
        cpus = len(bpf.possible_cpus())
        m[0] = Bytes(b"y" * 64 * cpus)
        assert m.lookup_bytes(0) == b"y" * 64 * cpus


@kernel
def test_a_comparison_that_lies_is_not_asked():
    class Larger(int):
        __le__ = __ge__ = lambda self, other: True

    with Map.create(HASH, u32, u32, 4) as m:
        for action in (lambda: m.update(1, Larger(1 << 32)), lambda: m.update(Larger(1 << 32), 1)):
            with pytest.raises(bpf.LayoutError):
                action()


@kernel
def test_what_becomes_of_a_class_later_moves_no_bytes():
    class Base(ctypes.Structure):
        _fields_ = [("a", u32)]

    class Value(Base):
        pass

    class Pointer(ctypes._SimpleCData):
        _type_ = "z"

    Pointer._type_ = "Q"
    with Map.create(HASH, Value, Value, 8) as m:
        m[Value(1)] = Value(2)
        with pytest.raises(AttributeError):  # or batches would be sized by it
            Value._fields_ = [("more", u8 * 400)]
        Value.__new__ = lambda cls: u8()
        Value.__init__ = None
        key = bytes(u32(1))
        assert type(m[key]) is type(m.get(key)) is Value
        assert m[key].a == 2
        assert [k.a for k in m] == [1]
    for ctype in (Pointer, Pointer * 2, ctypes.py_object):
        with pytest.raises(bpf.LayoutError, match="means nothing"):
            bpf.check_layout(ctype, ctypes.sizeof(ctype))


def test_types_of_more_values_than_bytes_are_refused_at_once():
    inner = type("inner", (ctypes.Structure,), {"_fields_": []})
    for _ in range(15):
        inner = type("inner", (ctypes.Structure,), {"_fields_": [("a", inner), ("b", inner)]})
    for many in (inner, (u8 * 0) * 10**6):  # of which ctypes keeps a list
        with pytest.raises(bpf.LayoutError, match="too many"):
            bpf.check_layout(
                type("outer", (ctypes.Structure,), {"_fields_": [("a", u32), ("b", many)]}), 4
            )


# ---- 5. BTF -----------------------------------------------------------------
# Blobs put together by hand, by clang and by the kernel: read whole, refused where they lie, never more than bytes.


def ask_everything(btf, t, path="x"):
    """Put every question about a type that takes no object; let nothing but BTFError out; return the answers."""
    answers = {}
    for name, question in (
        ("type", btf.type),
        ("c_type", btf.c_type),
        ("sizeof", btf.sizeof),
        ("tags", btf.tags),
        ("members", lambda t: list(btf.members(t))),
        ("enumerators", btf.enumerators),
        ("describe", btf.describe),
        ("offsetof", lambda t: btf.offsetof(t, path)),
        ("ctype", btf.ctype),
        ("source", btf.python_source),
    ):
        with contextlib.suppress(bpf.BTFError):
            answers[name] = question(t)
    return answers


INTERESTING = list(range(34)) + [
    127,
    128,
    255,
    256,
    0xFFFF,
    0x10000,
    0xFFFFFF,
    0x1000000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
]


# -- every kind, as C and bpftool have it


def assert_bpftool_agrees(btf, types):
    """Check that bpftool's types, as its JSON lists them, are those that we read."""
    for theirs in types:
        t = btf.type(theirs["id"])
        ours = {
            "kind": t.kind,
            "name": t.name or "(anon)",
            "size": t.size,
            "vlen": t.count,
            "nr_elems": t.count,
            "type_id": t.type_id,
            "ret_type_id": t.type_id,
            "fwd_kind": "union" if t.flag else "struct",
        }
        theirs["kind"] = getattr(bpf, "BTF_KIND_" + theirs["kind"])
        if t.kind == bpf.BTF_KIND_DATASEC and not theirs["size"]:
            del theirs["size"]  # we complete what the compiler left to the loader
        if "members" in theirs:
            ours["members"] = [
                dict(
                    {"name": name or "(anon)", "type_id": type_id, "bits_offset": offset},
                    **{"bitfield_size": bits} if bits else {},
                )
                for name, type_id, offset, bits, _ in btf.members(t)
            ]
        if "values" in theirs:
            ours["values"] = [
                {"name": name, "val": number} for number, name in btf.enumerators(t).items()
            ]

            def wrap(number):
                return number & 0xFFFFFFFF if t.kind == bpf.BTF_KIND_ENUM and not t.flag else number

            seen = set()  # a number that two names have is told by the first alone
            theirs["values"] = [
                dict(row, val=wrap(row["val"]))
                for row in theirs["values"]
                if not (row["val"] in seen or seen.add(row["val"]))
            ]
        assert {name: ours[name] for name in ours if name in theirs} == {
            name: theirs[name] for name in ours if name in theirs
        }


KINDS = [  # as zoo makes them: name, size, type_id, count, flag
    ("int", 4, 0, 0, 0),
    ("", None, 5, 0, 0),
    ("", None, 1, 3, 0),
    ("pair", 8, 0, 2, 1),
    ("either", 8, 0, 2, 0),
    ("sign", 4, 0, 2, 1),
    ("later", None, 0, 0, 1),
    ("s32", None, 1, 0, 0),
    ("", None, 8, 0, 0),
    ("", None, 9, 0, 0),
    ("", None, 2, 0, 0),
    ("main", None, 13, 0, 0),
    ("", None, 1, 2, 0),
    ("counter", None, 10, 0, 0),
    (".bss", 8, 0, 1, 0),
    ("double", 8, 0, 0, 0),
    ("tag", None, 4, 0, 0),
    ("user", None, 5, 0, 0),
    ("long_sign", 8, 0, 2, 1),
]
C_TYPES = [
    "int",
    "union either *",
    "int [3]",
    "struct pair",
    "union either",
    "enum sign",
    "union later",
    "s32",
    "s32 volatile",
    "s32 volatile const",
    "union either * restrict",
    "main",
    "function",
    "counter",
    ".bss",
    "double",
    "tag",
    "union either __user",
    "enum long_sign",
]


@ORDERS
@pytest.mark.parametrize("header", [24, 28, 32, 40])
def test_every_kind_is_read(order, header):
    btf = zoo(order).btf(header=header)
    assert (btf.order, btf.base, btf.count) == (order, None, 19) and "19 types" in repr(btf)
    for number, (expected, c_type) in enumerate(zip(KINDS, C_TYPES), 1):
        t = btf.type(number)
        assert (t.id, t.kind) == (number, number)
        assert (t.name, t.size, t.type_id, t.count, t.flag) == expected
        assert btf.c_type(number) == c_type and str(number) in repr(t)
        assert not t.name or btf.find(t.name) == number == btf.type(t.name).id == btf.type(t).id
    assert btf.type(0).kind == 0 and btf.c_type(0) == "void"
    assert list(btf.members("pair")) == [("low", 1, 0, 0, ()), ("high", 1, 32, 5, ())]
    assert list(btf.members(".bss")) == [("counter", 10, 32, 0, ())]
    assert btf.tags("pair") == ("tag",)
    assert btf.enumerators("sign") == {1: "PLUS", -1: "MINUS"}
    assert btf.enumerators("enum long_sign") == {1 << 40: "FAR", -5: "BELOW"}
    assert bpf.to_python(
        btf.ctype(".bss").from_buffer_copy(in_order(order, (0, 32), (-7, 32)))
    ) == {"counter": -7}
    with pytest.raises(bpf.BTFError, match="no type 20"):
        btf.type(20)


@ORDERS
def test_bpftool_reads_the_same_in_made_up_types(order, tmp_path):
    path, split = tmp_path / "zoo", extension(zoo(order))
    path.write_bytes(zoo(order).data())
    assert_bpftool_agrees(
        bpf.BTF.from_file(str(path)), bpftool("btf", "dump", "file", path)["types"]
    )
    (tmp_path / "split").write_bytes(split.data())
    found = bpftool("-B", path, "btf", "dump", "file", tmp_path / "split")["types"]
    assert [t["id"] for t in found] == list(range(20, 20 + len(split.types)))
    assert_bpftool_agrees(split.btf(), found)


def test_bpftool_reads_the_same_in_the_kernels_types():
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        lacking("the kernel's BTF")
    btf = bpf.BTF.from_vmlinux()
    found = bpftool("btf", "dump", "file", "/sys/kernel/btf/vmlinux")["types"]
    assert btf.count == len(found) and btf.order == sys.byteorder
    assert_bpftool_agrees(btf, random.Random(5).sample(found, 4000))


@kernel
def test_the_kernel_takes_the_zoo_and_gives_it_back():
    blob = zoo(sys.byteorder).data()
    try:
        types = load_btf(blob)
    except OSError:
        if KERNEL >= (6, 15):
            raise
        lacking("a kernel that knows every kind of type (6.15 for tags that are attributes)")
    assert bpf.BTF.from_id(int(fdinfo(types.number)["btf_id"])).data == blob


@kernel
def test_btf_is_opened_by_its_id():
    with pytest.raises(bpf.BPFError):
        bpf.BTF.from_id(0xFFFFFFFF)
    since(5, 11)  # before, the kernel's types have no id
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        lacking("BTF of the kernel")
    assert bpf.BTF.from_id(1).data == bpf.BTF.from_vmlinux().data


C_SOURCE = """
#define TAG(kind, text) __attribute__((kind(text)))
enum sign { MINUS = -1, PLUS = 5 };
struct inner { char name[8]; unsigned low:3, high:5; int wide:24; unsigned long long far:33; };
struct all {
    char magic[8];
    unsigned char one;
    struct inner inner[2];
    union { int whole; struct { short half, other; }; float real; };
    enum sign sign;
    double number;
    _Bool yes;
    unsigned __int128 big;
    short grid[2][3];
    int TAG(btf_type_tag, "user") *there;
    struct { struct all *next; struct { long back:60; }; } links;
    signed char last TAG(btf_decl_tag, "mine");
} __attribute__((packed));
struct all value = {"BPFLOOK", 254, {{"hey", 1, 2, -3, 1}, {"", 7, 31, 8388607, 8589934591}},
        {.real = -1.5}, MINUS, 0.1,
                    1, (unsigned __int128)1 << 100, {{1, 2, 3}, {4, -5, 6}}, 0, {0, {-7}}, -1};
"""


@pytest.mark.parametrize("target, order", [("bpfel", "little"), ("bpfeb", "big")])
def test_objects_from_clang_decode_their_own_data(tmp_path, target, order):
    bpf_object(tmp_path, "all", C_SOURCE, target)
    btf, raw = bpf.BTF.from_file(str(tmp_path / "all.o")), (tmp_path / "all.o").read_bytes()
    plain = bpf.to_python(btf.ctype("all").from_buffer_copy(raw, raw.index(b"BPFLOOK\0")))
    other, half = (-16448, 0) if order == "little" else (0, -16448)
    assert btf.order == order
    assert plain == {
        "magic": "BPFLOOK",
        "one": 254,
        "inner": [
            {"name": "hey", "low": 1, "high": 2, "wide": -3, "far": 1},
            {"name": "", "low": 7, "high": 31, "wide": 8388607, "far": 8589934591},
        ],
        "whole": -1077936128,
        "half": half,
        "other": other,
        "real": -1.5,
        "sign": "MINUS",
        "number": 0.1,
        "yes": True,
        "big": 1 << 100,
        "grid": [[1, 2, 3], [4, -5, 6]],
        "there": "0x0",
        "links": {"next": "0x0", "back": -7},
        "last": -1,
    }
    tags = {name: tags for name, _, _, _, tags in btf.members("all")}
    assert (tags["there"], tags["last"], tags["one"]) == (("user",), ("mine",), ())
    assert btf.offsetof("all", "inner[1].far").bits == 33
    assert btf.offsetof("all", "links.next.one")[1] == 8
    assert_same_from_source(btf, "all")
    if order == sys.byteorder:
        assert_bpftool_agrees(btf, bpftool("btf", "dump", "file", tmp_path / "all.o")["types"])


def test_btf_is_counted_and_iterated_and_true(vmlinux):
    b = zoo()
    btf, split = b.btf(), extension(b).btf()
    assert len(btf) == btf.count == 19 and [t.id for t in btf] == list(range(1, 20))
    assert len(split) == 4 and [t.id for t in split] == [20, 21, 22, 23]
    assert [t.name for t in split] == ["", "more", "late", "sign"]
    assert all(isinstance(t, bpf.BTFType) for t in btf)
    nothing = Blob("little", b).btf()
    assert len(nothing) == 0 and list(nothing) == [] and nothing, "BTF of no types is there as well"
    assert nothing.find("pair") == 4
    on_nothing = Blob("little", Blob())
    on_nothing.int("int", 4)
    assert [t.name for t in on_nothing.btf()] == ["int"] and on_nothing.btf().base is not None
    assert len(vmlinux) == sum(1 for _ in vmlinux)


@ORDERS
def test_kinds_of_inlined_calls_are_stepped_over(order):
    b = Blob(order)
    b.int("int", 4)
    b.add(20, "", 0, 8, [1])
    b.add(20, "", 2, 8, [1, 2, 3])
    b.add(21, "", 3, 0, [2, 3, 2])
    b.add(21)
    b.add(22, ".inline", 2, 0, [1, 2, 3, 4, 5, 6])
    b.add(22)
    last = b.struct("after", 4, ("x", 1, 0))
    btf = b.btf()
    assert [t.kind for t in btf] == [1, 20, 20, 21, 21, 22, 22, 4]
    assert btf.find("after") == last and btf.offsetof("after", "x") == 0
    assert [repr(btf.type(number)).split()[3] for number in (2, 4, 6)] == [
        "loc_param",
        "loc_proto",
        "locsec",
    ]
    assert btf.find(".inline", "locsec") == 6
    for t in (2, 3, 4, 5, 6, 7):
        with pytest.raises(bpf.BTFError):
            btf.sizeof(t)


def test_layout_sections_tell_the_size_of_unknown_kinds():
    b = Blob()
    b.int("int", 4)
    b.add(25, "other", 2, 7, [1, 2, 3, 4, 5])
    b.struct("s", 8, ("a", 1, 0), ("b", 2, 32))
    b.enum("many", 4, [("" if number else "FIRST", number) for number in range(70000)])
    btf = b.btf(layout={25: (4, 8), 1: (99, 99)})
    assert btf.count == 4
    assert len(btf.enumerators("many")) == 70000
    assert btf.type("many").count == 70000
    assert (btf.type(2).kind, btf.type(2).name) == (25, "other") and "25" in repr(btf.type(2))
    with pytest.raises(bpf.BTFError, match="no size"):
        btf.sizeof("s")  # one of its members is of that kind
    for header, cut in (
        (24, b.btf()),
        (32, b.btf(layout={24: (4, 8)})),
        (40, b.btf(header=40, layout_len=0)),
    ):
        assert cut.count == 1 and cut.sizeof("int") == 4
        for t in (2, 3, "s", "many"):  # what stands before the unknown kind can be used
            with pytest.raises(bpf.BTFError, match="byte %d is of unknown kind 25" % (header + 16)):
                cut.type(t)


@ORDERS
def test_a_header_that_ends_within_the_layout_section_has_none(order):
    for header in (25, 28, 31):
        btf = zoo(order).btf(header=header, layout_off=1 << 30, layout_len=1 << 30)
        assert btf.count == 19 and btf.find("pair") == 4
    for wrong in (dict(layout_off=1 << 30), dict(layout_len=1 << 30)):
        with pytest.raises(bpf.BTFError, match="layout"):
            zoo(order).btf(header=32, **wrong)


# -- scalars, bitfields, records, enums

SCALARS = [  # what adds the type, an example in big-endian bytes, what that means
    (lambda b: b.int("u8", 1), "fe", 254),
    (lambda b: b.int("s8", 1, 1), "fe", -2),
    (lambda b: b.int("u16", 2), "fffe", 65534),
    (lambda b: b.int("s16", 2, 1), "fffe", -2),
    (lambda b: b.int("u24", 3), "010203", 0x010203),
    (lambda b: b.int("s24", 3, 1), "fffffe", -2),
    (lambda b: b.int("u32", 4), "fffffffe", 0xFFFFFFFE),
    (lambda b: b.int("s32", 4, 1), "fffffffe", -2),
    (lambda b: b.int("u40", 5), "0102030405", 0x0102030405),
    (lambda b: b.int("s64", 8, 1), "ff" * 7 + "fe", -2),
    (lambda b: b.int("u128", 16), "0102" * 8, int("0102" * 8, 16)),
    (lambda b: b.int("s128", 16, 1), "ff" * 16, -1),
    (lambda b: b.int("bool", 1, 4), "01", True),
    (lambda b: b.int("bool32", 4, 4), "00000001", True),
    (lambda b: b.add(b.FLOAT, "half", 0, 2), "3e00", 1.5),
    (lambda b: b.add(b.FLOAT, "float", 0, 4), "bfc00000", -1.5),
    (lambda b: b.add(b.FLOAT, "double", 0, 8), "3ff8" + "00" * 6, 1.5),
    (lambda b: b.enum("e", 4, [("ONE", 1), ("TOP", -1)]), "ffffffff", "TOP"),
    (lambda b: b.enum("e", 4, [("ONE", 1)]), "fffffffe", "4294967294"),
    (lambda b: b.enum("e", 4, [("TOP", -1), ("AGAIN", -1)], signed=1), "ffffffff", "TOP"),
    (lambda b: b.enum("e", 1, [("TOP", -1)], signed=1), "ff", "TOP"),
    (lambda b: b.enum("e", 8, [("ONE", 1)], signed=1), "ff" * 7 + "fe", "-2"),
    (lambda b: b.enum("e", 8, [("BIG", 1 << 63)], wide=True), "80" + "00" * 7, "BIG"),
    (lambda b: b.enum("e", 8, [("LOW", -1 << 63)], 1, wide=True), "80" + "00" * 7, "LOW"),
    (lambda b: b.enum("e", 4, [("TOP", -1)], 1, wide=True), "ffffffff", "TOP"),
    (lambda b: b.of(b.PTR, 0), "ffff888012345678", "0xffff888012345678"),
    (
        lambda b: b.of(b.TYPEDEF, b.of(b.CONST, b.of(b.TYPE_TAG, b.int("u16", 2), "tag")), "port"),
        "1f90",
        8080,
    ),
]


@ORDERS
def test_scalars_of_every_kind_and_size(order):
    blob, raw, members, expected = Blob(order), b"", [], {}
    # back to back, so most of them unaligned
    for index, (add, example, value) in enumerate(SCALARS):
        one = bytes.fromhex(example) if order == "big" else bytes.fromhex(example)[::-1]
        members.append(("f%d" % index, add(blob), 8 * len(raw)))
        raw, expected["f%d" % index] = raw + one, value
    # no Python number holds it
    members.append(("quad", blob.add(blob.FLOAT, "long double", 0, 16), 8 * len(raw)))
    raw, expected["quad"] = raw + bytes(range(16)), list(range(16))
    blob.struct("all", len(raw), *members)
    btf = blob.btf()
    obj = btf.ctype("all").from_buffer_copy(raw)
    assert bpf.to_python(obj) == expected
    assert bytes(obj) == raw
    assert json.loads(bpf.to_json(obj)) == expected
    for name, type_id, offset, _, _ in btf.members("all"):
        assert btf.offsetof("all", name) == offset // 8 and btf.offsetof("all", name).bits == 0
        ctype, value = btf.ctype(type_id), expected[name]
        assert ctypes.sizeof(ctype) == btf.sizeof(type_id)
        if type(value) in (int, float) and ctypes.sizeof(ctype) in (1, 4, 8):
            assert bpf.to_python(ctype.from_buffer_copy(raw, offset // 8)) == value
        if isinstance(value, int):
            assert getattr(obj, name) == value
            setattr(obj, name, 1)
            setattr(obj, name, value)
            assert bytes(obj) == raw


@ORDERS
@pytest.mark.parametrize("style", ["kind_flag", "int"])
def test_bitfields_lie_and_are_set_as_in_c(order, style):
    rng = random.Random(order)
    for _ in range(40):
        widths = [
            rng.choice([1, 3, 5, 7, 8, 11, 24, 31, 32, 33, 63, 64])
            for _ in range(rng.randrange(1, 9))
        ]
        widths.append(-sum(widths) % 8 or 8)
        blob, members, offset, numbers = Blob(order), [], 0, []
        for index, bits in enumerate(widths):
            size = rng.choice([size for size in (1, 2, 4, 8) if 8 * size >= bits])
            signed = rng.randrange(2)
            within = 0
            if style == "int":
                within = rng.randrange(min(offset, 255) + 1)
                members.append(
                    ("f%d" % index, blob.int("int", size, signed, bits, within), offset - within)
                )
            else:
                members.append(("f%d" % index, blob.int("int", size, signed), offset, bits))
            numbers.append(rng.randrange(1 << bits) - (signed << bits - 1))
            offset += bits
        btf = Blob.struct(blob, "bits", offset // 8, *members) and blob.btf()
        raw = in_order(order, *zip(numbers, widths))
        obj = btf.ctype("bits").from_buffer_copy(raw)
        assert (
            list(bpf.to_python(obj).values())
            == [getattr(obj, member[0]) for member in members]
            == numbers
        )
        blank = btf.ctype("bits")()
        for (name, type_id, at, bits, _), number in zip(btf.members("bits"), numbers):
            setattr(blank, name, number)
            where = btf.offsetof("bits", name)
            assert (where, where.bit_offset, where.bits) == (at // 8, at, bits)
            if bits:  # an int may fill its bytes: that is a plain field
                for wrong in (1 << bits, -(1 << bits), 1.0, "1", None):
                    with pytest.raises(bpf.LayoutError):
                        setattr(blank, name, wrong)
        assert blank == obj and bytes(blank) == raw


@pytest.mark.parametrize("order, raw", [("little", "11030000"), ("big", "22000003")])
def test_bitfields_lie_as_measured_in_both_byte_orders(order, raw):
    blob = Blob(order)
    number = blob.int("unsigned int", 4)
    blob.struct("bits", 4, ("a", number, 0, 3), ("b", number, 3, 5), ("c", number, 8, 24))
    assert bpf.to_python(blob.btf().ctype("bits").from_buffer_copy(bytes.fromhex(raw))) == {
        "a": 1,
        "b": 2,
        "c": 3,
    }
    # of iphdr, as the kernels' BTF has it
    names = ["ihl", "version"] if order == "little" else ["version", "ihl"]
    blob.struct("iphdr", 1, *[(name, number, 4 * index, 4) for index, name in enumerate(names)])
    assert bpf.to_python(blob.btf().ctype("iphdr").from_buffer_copy(b"\x45")) == {
        "ihl": 5,
        "version": 4,
    }


@ORDERS
def test_records_in_records_arrays_of_arrays_and_characters(order):
    btf, raw = house(order).btf(), in_order(order, *HOUSE)
    obj = btf.ctype("house").from_buffer_copy(raw)
    part = [1, 2, 3, 4] if order == "little" else [4, 3, 2, 1]
    assert bpf.to_python(obj) == {
        "number": 1,
        "door": -2,
        "whole": 0x04030201,
        "part": part,
        "line": [{"x": 1, "y": 2}, {"x": 3, "y": -4}],
        "grid": [[0, 1, 2], [3, 4, 5]],
        "name": "Hill",
        "next": hex(1 << 63),
        "mode": 5,
        "tail": [],
    }
    assert (
        obj.door,
        obj.whole,
        obj.part[1],
        obj.line[1].y,
        obj.grid[1][2],
        obj.name,
        obj.mode,
    ) == (-2, 0x04030201, part[1], -4, 5, b"Hill", 5)
    obj.whole, obj.grid[0][1], obj.mode, obj.line[0].x = 0, 7, 1, 9
    assert obj.part[:] == [0, 0, 0, 0] and bpf.to_python(obj)["grid"] == [[0, 7, 2], [3, 4, 5]]
    assert (obj.mode, bpf.to_python(obj)["line"][0]) == (1, {"x": 9, "y": 2})
    assert bpf.to_python((btf.ctype("house") * 2)(obj, obj)) == [bpf.to_python(obj)] * 2
    obj.number = 255
    assert bytes(obj)[0] == 255 and bytes(obj)[1:3] == raw[1:3]
    assert bpf.to_python(
        btf.ctype("point").from_buffer_copy(in_order(order, (-1, 16), (2, 16)))
    ) == {"x": -1, "y": 2}
    assert btf.ctype("house") is btf.ctype("struct house") is btf.ctype(16)
    assert btf.sizeof("house") == 64
    assert ctypes.sizeof(btf.ctype("house")) == 64 and btf.ctype("house").line.size == 8


def test_objects_compare_hash_and_print():
    point = house().btf().ctype("point")
    one, other = point(1, 2), point(x=1, y=2)
    assert one == other and hash(one) == hash(other) and one is not other and one != point(2, 1)
    assert one == house().btf().ctype("point")(1, 2)  # the same type, read twice
    assert one != house().btf().ctype("house")() and one != (1, 2) and one != None  # noqa: E711
    assert len({one, other, point(2, 1)}) == 2 and {one: "here"}[other] == "here"
    assert repr(one) == "point(x=1, y=2)"
    assert repr(house().btf().ctype("house")()).startswith("house(number=0, door=0, ")
    other.y = 3
    assert one != other and other in {point(1, 3)}
    assert copy.copy(one) == one and bytes(one) == struct.pack("<hh", 1, 2)


def test_describe_shows_offsets_bits_and_holes():
    b = Blob()
    word, sign = b.int("u32", 4), b.enum("sign", 4, [("PLUS", 1), ("MINUS", -1)], signed=1)
    inner = b.struct(
        "", 8, ("a", b.int("u8", 1), 0), ("", b.union("u", 4, ("b", word, 0), ("c", sign, 0)), 32)
    )
    b.struct(
        "s", 20, ("mode", word, 3, 5), ("x", inner, 32), ("p", b.array(b.of(b.PTR, inner), 1), 96)
    )
    text = b.btf().describe("s")
    assert text == textwrap.dedent("""\
        offset  size  struct s
             0    :3    (hole)
            :3    :5    mode: u32:5
             1     3    (hole)
             4     8    x: struct (anonymous)
             4     1      a: u8
             5     3      (hole)
             8     4      union u
             8     4        b: u32
             8     4        c: enum sign {PLUS=1, MINUS=-1}
            12     8    p: struct (anonymous) * [1]
        20 bytes, 51 bits of them padding (must match in a key, best zero)""")
    assert bpf.describe_layout(b.btf().ctype("s")) == text


ENUM_FORMS = [  # bytes, stored as ENUM64, kind_flag, numbers as stored, numbers as they read
    (1, False, 0, [("A", -1), ("B", 127), ("C", -128)], [-1, 127, -128]),
    (1, False, 0, [("A", 255), ("B", 128)], [255, 128]),
    (1, False, 1, [("A", -1), ("B", 5)], [-1, 5]),
    (2, False, 0, [("A", -2), ("B", 300)], [-2, 300]),
    (2, False, 0, [("A", 65535), ("B", 32768)], [65535, 32768]),
    (2, False, 1, [("A", -32768), ("B", 1)], [-32768, 1]),
    (4, False, 0, [("A", -1), ("B", 7)], [0xFFFFFFFF, 7]),
    (4, False, 1, [("A", -1), ("B", 7)], [-1, 7]),
    (8, False, 0, [("A", -1), ("B", 7)], [-1, 7]),
    (8, False, 0, [("A", 0x7FFFFFFF), ("B", 7)], [0x7FFFFFFF, 7]),
    (8, False, 1, [("A", -3), ("B", 7)], [-3, 7]),
    (1, True, 0, [("A", -1), ("B", 3)], [-1, 3]),
    (4, True, 0, [("A", -1), ("B", 3)], [-1, 3]),
    (4, True, 0, [("A", 0xFFFFFFFF), ("B", 3)], [0xFFFFFFFF, 3]),
    (4, True, 1, [("A", -1), ("B", 3)], [-1, 3]),
    (8, True, 0, [("A", -1), ("B", 3)], [(1 << 64) - 1, 3]),
    (8, True, 1, [("A", -1), ("B", 1 << 40)], [-1, 1 << 40]),
]


@ORDERS
@pytest.mark.parametrize("size, wide, flag, stored, read", ENUM_FORMS)
def test_enumerators_are_the_numbers_that_memory_reads_as(order, size, wide, flag, stored, read):
    b = Blob(order)
    e = b.enum("e", size, stored, signed=flag, wide=wide)
    b.struct("s", size, ("e", e, 0))
    btf = b.btf()
    assert btf.enumerators("enum e") == dict(zip(read, [name for name, _ in stored]))
    for name, number in stored:
        raw = (number & (1 << 8 * size) - 1).to_bytes(size, order)
        obj = btf.ctype("s").from_buffer_copy(raw)
        assert bpf.to_python(obj) == {"e": name}
        assert obj.e in btf.enumerators("e"), "a field reads as one of its numbers"


def test_enums_of_a_compiler_without_kind_flag_read_as_in_its_source(tmp_path):
    numbers = {"int": {"M4": -1, "P4": 7}}
    numbers["packed"] = {"M1": -1, "L1": -128, "P1": 5}
    numbers["packed2"] = {"M2": -300, "P2": 300}
    numbers["unsigned1"] = {"U1": 255, "V1": 128}
    numbers["wide"] = {"M8": -2, "P8": 1 << 30, "BEYOND": 1 << 35}
    source = ""
    for kind, names in numbers.items():
        attribute = "" if kind in ("int", "wide") else "__attribute__((packed)) "
        listed = ", ".join("%s = %dLL" % pair for pair in names.items())
        source += "enum %se_%s { %s } v_%s;\n" % (attribute, kind, listed, kind)
    btf = bpf.BTF.from_file(bpf_object(tmp_path, "e", source))
    for kind, names in numbers.items():
        t = btf.type("enum e_" + kind)
        b = ctypes.create_string_buffer(t.size)
        for name, number in names.items():
            if t.kind == bpf.BTF_KIND_ENUM and number >> 32 not in (0, -1):
                continue  # ENUM has but 32 bits of it
            b.raw = (number & (1 << 8 * t.size) - 1).to_bytes(t.size, btf.order)
            (read,) = struct.unpack(
                "<" + {1: "bB", 2: "hH", 4: "iI", 8: "qQ"}[t.size][min(btf.enumerators(t)) >= 0],
                b.raw,
            )
            assert btf.enumerators(t)[read] == name, (kind, t.flag)


@pytest.mark.parametrize("size", [0, 17, 0x7FFFFFFF, 0xFFFFFFFF])
def test_enums_of_impossible_sizes_are_refused_at_once(size):
    b = Blob()
    b.enum("e", size, [("A", -1)], signed=1)
    b.enum("f", size, [("A", -1)])
    for name in ("e", "f"):
        with pytest.raises(bpf.BTFError, match="size"):
            b.btf().enumerators(name)


@pytest.mark.parametrize(
    "size, stored, raw, told",
    [
        (1, 200, b"\xc8", "-56"),
        (1, -56, b"\xc8", '"A"'),
        (2, 65535, b"\xff\xff", "-1"),
        (2, -1, b"\xff\xff", '"A"'),
        (4, 0xFFFFFFFF, b"\xff" * 4, '"A"'),
        (8, 0xFFFFFFFFFFFFFFFF, b"\xff" * 8, '"A"'),
        (1, 100, b"\x64", '"A"'),
    ],
)
def test_a_small_enum_has_the_names_that_bpftool_finds(size, stored, raw, told):
    """It compares what it reads as signed with the number as it is stored, in 32 or 64 bits."""
    enum = bpf.Enum(size, "e", {stored: "A"}, signed=stored < 0)
    assert enum.reader("bpftool").one(raw) == told


@ORDERS
def test_sections_that_hold_functions_show_them_and_are_not_refused(order):
    b = Blob(order)
    word, void = b.int("int", 4, 1), b.of(b.CONST, 0)
    proto = b.add(b.FUNC_PROTO, "", 1, word, ["a", word])
    func = b.of(b.FUNC, proto, "call")
    number = b.add(b.VAR, "number", 0, word, [2])
    b.add(b.DECL_TAG, "marked", 0, func, [-1])
    b.add(b.DECL_TAG, "counted", 0, number, [-1])
    entries = [func, 0, 0, number, 0, 4, b.add(b.VAR, "thing", 0, void, [2]), 0, 1]
    unplaced = b.add(b.DATASEC, ".ksyms", 3, 0, entries)
    b.add(b.DATASEC, ".mixed", 2, 8, [func, 0, 0, number, 4, 4])
    b.add(b.DATASEC, ".functions", 1, 0, [func, 0, 0])
    b.add(b.DATASEC, ".wrong", 1, 8, [word, 0, 4])
    btf = b.btf()
    assert list(btf.members(".ksyms")) == [
        ("call", proto, 0, 0, ("marked",)),
        ("number", word, 0, 0, ("counted",)),
        ("thing", void, 0, 0, ()),
    ]
    assert [member[:3] for member in btf.members(".mixed")] == [
        ("call", proto, 0),
        ("number", word, 32),
    ]
    for name, size in ((".ksyms", 0), (".mixed", 8), (".functions", 0)):
        assert btf.sizeof(name) == size == ctypes.sizeof(btf.ctype(name))
        assert "%d bytes" % size in btf.describe(name) and "class" in btf.python_source(name)
    assert bpf.to_python(
        btf.ctype(".mixed").from_buffer_copy(in_order(order, (0, 32), (-7, 32)))
    ) == {"number": -7}
    assert btf.offsetof(".mixed", "number") == 4
    with pytest.raises(bpf.BTFError, match="no size"):
        btf.sizeof(func)
    with pytest.raises(bpf.BTFError, match="no variable or function"):
        btf.ctype(".wrong")
    assert unplaced == btf.find(".ksyms")


@ORDERS
def test_a_variable_is_of_the_size_and_type_of_its_type(order):
    b = Blob(order)
    word = b.int("int", 4, 1)
    pair = b.struct("pair", 8, ("a", word, 0), ("b", word, 32))
    for name, of in (
        ("scalar", word),
        ("record", b.of(b.CONST, pair)),
        ("array", b.array(pair, 3)),
    ):
        b.add(b.VAR, name, 0, of, [1])
    btf = b.btf()
    assert [btf.sizeof(name) for name in ("scalar", "record", "array")] == [4, 8, 24]
    assert btf.ctype("record") is btf.ctype("pair") and ctypes.sizeof(btf.ctype("array")) == 24
    assert btf.offsetof("record", "b") == 4 and btf.offsetof("array", "[2].b") == 20
    assert list(btf.members("record")) == list(btf.members("pair"))
    assert "a: int" in btf.describe("record") and "class" in btf.python_source("record")
    itself = Blob(order)
    itself.add(itself.VAR, "x", 0, 1, [1])
    with pytest.raises(bpf.BTFError):
        itself.btf().sizeof("x")


# -- names, offsets, tags


def every_name(btf):
    """Return the names of all types."""
    return sorted({t.name for t in btf if t.name})


def test_names_find_the_kind_meant():
    b = Blob()
    b.int("x", 4)
    b.of(b.FUNC, b.add(b.FUNC_PROTO), "x")
    b.of(b.TYPEDEF, 1, "x")
    b.add(b.FWD, "x")
    b.enum("x", 4, [])
    b.enum("y", 8, [], wide=True)
    b.struct("x", 0)
    b.struct("x", 4)
    b.union("z", 4)
    b.int("long unsigned int", 4)
    b.of(b.PTR, 0)
    btf = b.btf()
    assert [
        btf.find(name)
        for name in (
            "x",
            "struct x",
            "enum x",
            "y",
            "enum y",
            "z",
            "union z",
            "union  z",
            "long unsigned int",
        )
    ] == [8, 8, 6, 7, 7, 10, 10, 10, 11]
    assert [
        btf.find("x", kind) for kind in ("int", "func", "typedef", "fwd", "enum", "struct")
    ] == [1, 3, 4, 5, 6, 8]
    for name, kind in (
        ("x", "union"),
        ("union x", None),
        ("unsigned int", "struct"),
        ("y", "enum6"),
        ("x", "enums"),
    ):
        with pytest.raises(bpf.BTFError):
            btf.find(name, kind)
    assert btf.sizeof(12) == 4  # a pointer is as long as a long


@pytest.mark.parametrize("collide", [False, True])
def test_names_are_found_alike_by_scanning_and_by_the_index(monkeypatch, collide):
    b = zoo()
    b.of(b.TYPEDEF, 4, "sign")
    b.struct("pair", 8)
    b.union("pair", 8)
    b.int("counter", 4)
    b.add(b.FWD, b.strings.index(b"ir\0"))
    b.int(b.name("pa") and "\u00fc" * 40, 4)
    split = extension(b)
    split.struct("pair", 16)
    split.int("of its own", 4)
    monkeypatch.setattr(bpf, "_SCANNED_QUESTIONS", 10000)
    indexed, scanned = split.btf(), split.btf()
    indexed._questions = indexed.base._questions = 10000
    if collide:
        monkeypatch.setattr(bpf, "hash", len, raising=False)
    kinds = [None, "struct", "union", "enum", "typedef", "int", "fwd", "func", "enum64", "nothing"]
    names = (
        every_name(scanned) + every_name(scanned.base) + ["", "ai", "pair\0", "own", "elsewhere"]
    )
    for name, kind in itertools.product(names, kinds):
        answers = []
        for btf in (indexed, scanned):
            try:
                answers.append(btf.find(name, kind))
            except bpf.BTFError as error:
                answers.append(str(error))
        assert answers[0] == answers[1], (name, kind)
    assert scanned.base._by_name is None and indexed.base._by_name is not None
    assert indexed.find("pair") == 4 and indexed.find("pair", "union") == 22
    assert [t.id for t in indexed._all_named("pair")] == [split.first + 4, 4, 21, 22]


def test_many_questions_for_names_look_through_the_records_once(vmlinux, monkeypatch):
    btf = bpf.BTF.from_vmlinux()
    names = every_name(vmlinux)
    names = random.Random(8).sample(names, 3000)
    for name in names[: bpf._SCANNED_QUESTIONS]:
        btf.find(name)
    assert btf._by_name is None, "one question of a process costs no index"
    monkeypatch.setattr(btf, "_name_offsets", None)
    for name in names:
        t = btf.type(btf.find(name))
        assert t.name == name
        assert vmlinux._all_named(name)[0].name == name
    with pytest.raises(bpf.BTFError, match="no type is named"):
        btf.find("no such thing")


def test_names_that_share_their_ends_take_no_more_memory_than_the_blob():
    for count in (2000, 4000, 8000):
        b = Blob()
        long_name = b.name("x" * 4000)
        for index in range(count):
            b.int(long_name + index % 3900, 4)
        btf, before = b.btf(), resident()
        for name in ("a", "b", "c", "x" * 90):
            with contextlib.suppress(bpf.BTFError):
                btf.find(name)
        assert btf.find("x" * 3999) == 2 and btf._by_name is not None
        with pytest.raises(bpf.BTFError, match="long names"):
            [t.name for t in btf]
        assert resident() - before < 16 << 20
    b = Blob()  # one that all share is no matter
    long_name = b.name("y" * 4000)
    b.struct("s", 4, *([(long_name, b.int("int", 4), 0)] * 3000))
    names = [member[0] for member in b.btf().members("s")]
    assert len(names) == 3000 and len(set(map(id, names))) == 1


@pytest.mark.parametrize(
    "path, bits",
    [
        ("number", 0),
        ("door", 8),
        ("whole", 24),
        ("part", 24),
        ("part[3]", 48),
        ("line", 64),
        ("line[1]", 96),
        ("line[1].y", 112),
        ("grid[1][2]", 208),
        ("name[7]", 280),
        ("next", 288),
        ("mode", 352),
        ("tail[9].y", 816),
        ("next.door", (288, 8)),
        ("next->next->line[0].y", (288, 288, 80)),
        ("next.mode", (288, 352)),
    ],
)
def test_offsetof_follows_members_elements_and_pointers(path, bits):
    found = house().btf().offsetof("house", path)
    steps, wanted = (found, bits) if isinstance(found, tuple) else ((found,), (bits,))
    assert [(step, step.bit_offset) for step in steps] == [(bit // 8, bit) for bit in wanted]
    assert [step.bits for step in steps] == [0] * (len(steps) - 1) + [
        3 if path.endswith("mode") else 0
    ]
    assert copy.copy(steps[0]) == steps[0]
    assert pickle.loads(pickle.dumps(steps[0])).bit_offset == steps[0].bit_offset


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "nothing",
        "number.x",
        "number[0]",
        "line[2]",
        "line[-1]",
        "line[x]",
        "line[]",
        "line[0",
        "line[0]x",
        "line.x",
        "grid[0][3]",
        "grid[2]",
        "mode.x",
        "next[0]",
        "door.whole",
        "->",
        "house",
        "line[%s]" % ("9" * 5000),
    ],
)
def test_offsetof_refuses_what_is_not_there(path):
    with pytest.raises(bpf.BTFError):
        house().btf().offsetof("house", path)


def test_questions_about_what_has_no_answer():
    btf = zoo().btf()
    for question in (
        btf.sizeof,
        btf.ctype,
        btf.describe,
        btf.python_source,
        lambda t: list(btf.members(t)),
        btf.enumerators,
        lambda t: btf.offsetof(t, "low"),
    ):
        for t in (
            0,
            "later",
            "main",
            13,
            "tag",
            20,
            -1,
            1 << 40,
            "nobody",
            "struct either",
            "",
            "struct ",
            "\udc80",
            "int\0bool",
        ):
            with pytest.raises(bpf.BTFError):
                question(t)
    blank = Blob()
    blank.struct("s", 16, ("p", blank.of(blank.PTR, 0), 0), ("q", blank.of(blank.PTR, 9), 64))
    for path in ("p.x", "q.x"):
        with pytest.raises(bpf.BTFError):
            blank.btf().offsetof("s", path)


def test_tags_stand_with_members():
    b = Blob()
    number = b.int("int", 4, 1)
    task = b.of(b.PTR, b.of(b.CONST, b.of(b.TYPE_TAG, b.add(b.FWD, "task"), "rcu")))
    twice = b.of(b.TYPE_TAG, b.of(b.TYPEDEF, b.of(b.TYPE_TAG, number, "inner"), "t"), "outer")
    s = b.struct("s", 16, ("task", task, 0), ("t", twice, 64), ("n", number, 96))
    for text, member in (("whole", -1), ("one", 2), ("two", 2), ("late", 9)):
        b.add(b.DECL_TAG, text, 0, s, [member])
    btf = b.btf()
    assert [(name, tags) for name, _, _, _, tags in btf.members("s")] == [
        ("task", ("rcu",)),
        ("t", ("outer", "inner")),
        ("n", ("one", "two")),
    ]
    assert btf.tags("s") == ("whole",)
    assert btf.tags("s", 2) == ("one", "two")
    assert btf.tags("s", 0) == ()
    assert btf.c_type(task) == "struct task __rcu const *"
    assert bpf.to_python(btf.ctype("s")())["task"] == "0x0" and "[one] [two]" in btf.describe("s")
    b.add(b.DECL_TAG, 9999, 0, s, [0])  # what can't be read stays unread, whoever asks again
    btf = b.btf()
    for _ in range(2):
        with pytest.raises(bpf.BTFError):
            btf.tags("s")


# -- what is made and kept


def test_threads_that_ask_for_a_type_at_once_get_one_class():
    btf, results = house().btf(), []

    class Slow(dict):
        def __setitem__(self, *words):
            time.sleep(0.1)
            super().__setitem__(*words)

    assert btf.ctype("house")  # the table of classes is made
    data, bpf._classes.data = bpf._classes.data, Slow()
    threads = [
        threading.Thread(target=lambda: results.append(btf.ctype("point"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bpf._classes.data = data
    assert len(results) == 4 and len(set(results)) == 1 and not bpf._being_made


def test_few_btf_are_kept_and_those_are_the_same_object(monkeypatch):
    blobs = {}
    for number in range(1, 60):
        b = Blob()
        b.int("int%d" % number, 4)
        blobs[number] = b.data()
    monkeypatch.setattr(bpf, "_kept_btf", {})
    monkeypatch.setattr(
        bpf, "_btf_info", lambda btf_id, token=None: (bpf.bpf_btf_info(), "", blobs[btf_id])
    )
    for number in blobs:
        btf = bpf.BTF.from_id(number)
        assert bpf.BTF.from_id(number) is btf and btf.find("int%d" % number) == 1
        assert len(bpf._kept_btf) <= 16
    assert bpf._kept_btf, "one that was just read is kept"


def test_questions_about_a_type_take_none_of_its_memory():
    b = Blob()
    huge = b.struct("huge", 1 << 30, ("all", b.array(b.int("char", 1, 1), 1 << 30), 0))
    btf, before = b.btf(), resident("VmHWM")
    answers = ask_everything(btf, huge, "all[7]")
    ctype = answers["ctype"]
    bpf.check_layout(ctype, 1 << 30)
    assert answers["offsetof"] == 7
    assert bpf.describe_layout(ctype) == answers["describe"]
    assert bpf.python_source(ctype)
    assert resident("VmHWM") - before < 64 << 20


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 13) and sysconfig.get_config_var("Py_GIL_DISABLED"),
    reason="free-threaded 3.13 keeps every class once a thread has run",
)
def test_nothing_is_kept_once_it_is_dropped():
    def use():
        btf = house().btf()
        bpf.to_python(btf.ctype("house")())
        btf.describe("house")
        btf.python_source("house")

    def kept():
        for _ in range(3):  # what the collector frees can free more
            gc.collect()
        return sum(isinstance(thing, bpf.BTF) for thing in gc.get_objects())

    before = kept()
    for _ in range(5):
        use()
    assert kept() <= before


# -- split BTF


@ORDERS
def test_split_btf_stands_on_its_base(order):
    base = zoo(order)
    split = extension(base).btf()
    assert (split.count, split.find("more"), split.find("pair"), split.find("struct more")) == (
        4,
        21,
        4,
        21,
    )
    assert split.base.count == 19 and split.type(4).name == "pair" and split.type(20).type_id == 21
    assert split.find("sign") == 6
    assert split.find("sign", "typedef") == 23
    assert "split" in repr(split)
    assert [member[:3] for member in split.members("more")] == [
        ("low", 4, 0),
        ("own", 20, 64),
        ("sign", 6, 128),
    ]
    raw = in_order(order, (7, 32), (3, 5), (0, 27), (1, 64), (-1, 32), (0, 32))
    assert bpf.to_python(split.ctype("more").from_buffer_copy(raw)) == {
        "low": {"low": 7, "high": 3},
        "own": "0x1",
        "sign": "MINUS",
    }
    assert split.offsetof("more", "own.low.high") == (8, 4)
    assert split.tags("pair") == ("late", "tag")
    assert split.base.tags("pair") == ("tag",) and split.enumerators(6) == {1: "PLUS", -1: "MINUS"}
    with pytest.raises(bpf.BTFError, match="base"):
        bpf.BTF.from_bytes(extension(base).data())
    base.add(99, "of the future")  # and what follows it has ids that nobody can tell
    with pytest.raises(bpf.BTFError, match="base"):
        extension(base).btf()


@ORDERS
def test_split_btf_stands_on_split_btf(order, tmp_path):
    base = zoo(order)
    middle = extension(base)
    top = Blob(order, middle)
    top.struct(
        "top",
        40,
        ("pair", 4, 0),
        (middle.start + middle.strings.index(b"own\0"), 21, 64),
        (base.strings.index(b"low\0"), 8, 256),
    )
    top.add(top.DECL_TAG, "latest", 0, 21, [-1])
    top.add(top.DECL_TAG, "topmost", 0, 4, [-1])
    btf = top.btf()
    assert (btf.base.base.base, btf.count, btf.find("top")) == (None, 3, 24)
    assert [member[:3] for member in btf.members("top")] == [
        ("pair", 4, 0),
        ("own", 21, 64),
        ("low", 8, 256),
    ]
    assert btf.type(21).name == "more" and btf.type(4).name == "pair" and btf.find("more") == 21
    assert btf.offsetof("top", "own.low.high") == 12 and btf.offsetof("top", "own.sign") == 24
    assert btf.tags(21) == ("latest",) and btf.tags(4) == ("topmost", "late", "tag")
    assert btf.base.tags(4) == ("late", "tag") and btf.base.base.tags(4) == ("tag",)
    for number, blob in enumerate((base, middle, top)):
        (tmp_path / str(number)).write_bytes(blob.data())
    path = [str(tmp_path / str(number)) for number in range(3)]
    read = bpf.BTF.from_file(path[2], bpf.BTF.from_file(path[1], bpf.BTF.from_file(path[0])))
    assert read.describe("top") == btf.describe("top") and read.data == btf.data


def test_names_of_split_btf_that_stand_in_its_base_are_found():
    base = zoo()
    b = Blob("little", base)
    first = b.struct(base.strings.index(b"counter\0"), 4, (base.strings.index(b"low\0"), 1, 0))
    for _ in range(4):  # scanned at first, then by the index
        assert b.btf().find("struct counter") == first and b.btf().find("counter", "var") == 14
    btf = b.btf()
    assert [btf.find("counter", kind) for kind in ("struct", "var", "struct", None)] == [
        first,
        14,
        first,
        first,
    ]
    assert [member[0] for member in btf.members("counter")] == ["low"]


def test_a_base_of_the_other_byte_order_is_refused():
    with pytest.raises(bpf.BTFError, match="byte order"):
        bpf.BTF.from_bytes(extension(zoo("big")).data(), zoo("little").btf())


@ORDERS
def test_a_base_that_split_btf_is_not_made_for_is_refused(order):
    """Of another kernel: ids and names would be those of other types."""
    base, other = zoo(order), Blob(order)
    other.int("longer than before", 4)
    other.int("and more", 8)
    shifted = zoo(order)
    other.types += shifted.types
    other.strings += shifted.strings[1:]
    b = Blob(order, base)
    b.struct(base.strings.index(b"pair\0"), 4)
    assert b.btf().type(20).name == "pair"
    for wrong in (other.btf(), Blob(order, other).btf()):
        with pytest.raises(bpf.BTFError, match="not the base"):
            bpf.BTF.from_bytes(b.data(), wrong)
    top = Blob(order, extension(base))  # names of either layer, the first of the upper one too
    top.struct(base.strings.index(b"pair\0"), 4)
    top.struct(top.base.start, 4)
    assert [t.name for t in top.btf()] == ["pair", "more"]


# -- ELF files: sections, symbols


def elf_file(sections, symbols=(), wide=True, order="little", kind=1, counted=True):
    """Return an ELF file.

    sections  (name, bytes or the size of one without bytes[, flags[, address]])
    symbols   (name, offset, is local, section name)
    counted   False: the numbers of sections stand in the first section, as where they are many
    """
    mark = "<" if order == "little" else ">"
    names, data, rows = b"\0", b"", [(0,) * 8]
    numbers = {one[0]: number for number, one in enumerate(sections, 1)}
    start = 64 if wide else 52
    table, labels = b"", b"\0"
    for name, value, is_local, section in symbols:
        words = len(labels), value, 4, 1 | (not is_local) << 4, 0, numbers.get(section, 0)
        if wide:
            table += struct.pack(mark + "I2BH2Q", *[words[at] for at in (0, 3, 4, 5, 1, 2)])
        else:
            table += struct.pack(mark + "3I2BH", *words)
        labels += name.encode() + b"\0"
    extra = [(".symtab", table), (".strtab", labels)] if symbols else []
    for name, content, *more in list(sections) + extra + [(".shstrtab", None)]:
        flags, address = (more + [0, 0])[:2]
        at, names = len(names), names + name.encode() + b"\0"
        content = names if content is None else content
        size = content if isinstance(content, int) else len(content)
        section_kind = 8 if isinstance(content, int) else {".symtab": 2}.get(name, 1)
        link = len(sections) + 2 if name == ".symtab" else 0
        rows.append((at, section_kind, flags, address, start + len(data), size, link))
        data += b"" if isinstance(content, int) else content
    count = len(rows)
    if not counted:
        rows[0] = (0, 0, 0, 0, 0, count, count - 1)
    headers = b"".join(
        struct.pack(mark + ("2I4Q2I2Q" if wide else "10I"), *tuple(row[:7]), 0, 1, 0)
        for row in rows
    )
    places = (64, 56, 0, 64) if wide else (52, 32, 0, 40)
    head = struct.pack(
        mark + ("2HI3QI6H" if wide else "2HI3II6H"),
        kind,
        247,
        1,
        0,
        0,
        start + len(data),
        0,
        *places,
        *((count, count - 1) if counted else (0, 0xFFFF)),
    )
    identity = b"\x7fELF" + bytes([1 + wide, 1 + (order == "big"), 1]) + bytes(9)
    return identity + head + data + headers


def sections_of(btf):
    """Return {data section: (size, {variable: (offset, type)})}."""
    found = {}
    for t in btf:
        if t.kind == bpf.BTF_KIND_DATASEC:
            members = {name: (at, btf.c_type(of)) for name, of, at, _, _ in btf.members(t)}
            found[t.name] = t.size, members
    return found


OBJECT = """
#define SEC(name) __attribute__((section(name), used))
struct conf { int a; long b; };
int zero; static int zeros[3] SEC(".bss"); struct conf conf = {1, 2}; static long started SEC(".data") = 5;
const int fixed = 7; static const volatile int hidden SEC(".rodata") = 9;
int in_x SEC(".bss.x"); long in_y SEC(".data.my.sec") = 4; char gap SEC(".data.my.sec") = 1;
extern const void kernel_thing SEC(".ksyms") __attribute__((weak));
extern int kernel_number SEC(".ksyms");
extern void kernel_function(int) SEC(".ksyms");
extern int CONFIG_HZ SEC(".kconfig");
struct { int (*type)[1]; int *key; } a_map SEC(".maps");
static __attribute__((noinline)) int other(int x) { static int counter; return ++counter + x; }
SEC("xdp") int handler(void *ctx)
{
	static int counter = 5;
	kernel_function(1);
	zero += CONFIG_HZ + kernel_number + *(int *)&kernel_thing;
	zeros[ctx != 0]++;
	started++;
	in_x++;
	return fixed + hidden + other(3) + ++counter + conf.a;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def unloaded(tmp_path_factory):
    """A directory with w.o, as clang makes it, and linked.o, whose sections bpftool's linker has completed."""
    where = tmp_path_factory.mktemp("unloaded")
    made = bpf_object(where, "w", OBJECT.replace("license[]", "terms[]"))
    status, _, err = run(program("bpftool"), "gen", "object", where / "linked.o", made)
    assert status == 0, err
    return where


def unplaced(order, size=0):
    """Return a Blob with sections as compilers leave them: a global and two statics, a function."""
    b = Blob(order)
    word = b.int("int", 4, 1)
    globally, locally = b.add(b.VAR, "x", 0, word, [1]), b.add(b.VAR, "x", 0, word, [0])
    twice = b.add(b.VAR, "twice", 0, word, [0])
    entries = [twice, 12, 4, globally, 0, 4, locally, 4, 4]
    b.add(b.DATASEC, ".data", 3, size, entries)
    b.add(b.DATASEC, ".bss.far.away", 1, 0, [globally, 0, 4])
    b.add(b.DATASEC, ".ksyms", 1, 0, [b.of(b.FUNC, b.add(b.FUNC_PROTO), "call"), 0, 0])
    return b


SYMBOLS = [
    ("x", 20, False, ".data"),
    ("x", 16, True, ".data"),
    ("x", 8, False, ".bss.far.away"),
    ("twice", 0, True, ".data"),
    ("twice", 8, True, ".data"),
    ("", 99, True, ".data"),
]


def elf32(section, name=b".BTF"):
    """Return a big-endian 32-bit ELF file with that section."""
    names = b"\0" + name + b"\0.shstrtab\0"
    header = (
        b"\x7fELF\1\2\1"
        + bytes(9)
        + struct.pack(">HHIIIIIHHHHHH", 1, 247, 1, 0, 0, 52, 0, 52, 0, 0, 40, 3, 2)
    )
    places = [
        (0, 0, 0, 0),
        (1, 1, 172 + len(names), len(section)),
        (2 + len(name), 3, 172, len(names)),
    ]
    return (
        header
        + b"".join(
            struct.pack(">10I", label, kind, 0, 0, offset, size, 0, 0, 1, 0)
            for label, kind, offset, size in places
        )
        + names
        + section
    )


def test_elf_files_are_read_whole_and_refused_broken(tmp_path):
    path, whole = tmp_path / "small.o", elf32(house("big").data())

    def sizeof(data):
        path.write_bytes(data)
        return bpf.BTF.from_file(str(path)).sizeof("house")

    assert sizeof(whole) == 64
    assert bpf.BTF.from_file(path).data == bpf.BTF.from_file(str(path).encode()).data
    for data in [whole[:end] for end in range(len(whole))] + [
        elf32(house("big").data(), b".BTF.ext"),
        whole[:32] + b"\xff" * 20,
        elf32(b""),
    ]:
        with pytest.raises(bpf.BTFError):
            sizeof(data)
    rng = random.Random(3)
    for _ in range(1000):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.choice([4, 5] + list(range(32, 172)))] = rng.choice([0, 1, 2, 127, 128, 255])
        with contextlib.suppress(bpf.BTFError):
            sizeof(bytes(broken))
    path.write_bytes(extension(zoo()).data())
    assert bpf.BTF.from_file(str(path), zoo().btf()).find("more") == 21
    with pytest.raises(OSError):
        bpf.BTF.from_file(str(tmp_path / "nowhere"))


def test_sections_of_an_unloaded_object_are_those_that_the_linker_completes(unloaded):
    ours, theirs = [sections_of(bpf.BTF.from_file(unloaded / name)) for name in ("w.o", "linked.o")]
    for unplaced in (".ksyms", ".kconfig"):
        assert set(ours.pop(unplaced)[1]) == set(theirs.pop(unplaced)[1])
    assert ours == theirs and {".bss", ".data", ".rodata", ".bss.x", ".data.my.sec"} < set(ours)
    assert ours[".bss"][0] == 20 and "handler.counter" in ours[".data"][1]
    btf = bpf.BTF.from_file(unloaded / "w.o")
    for name in ours:
        assert btf.sizeof(name) == ours[name][0] == ctypes.sizeof(btf.ctype(name))
        assert btf.describe(name) and btf.python_source(name)
    assert len(btf.data) == len(bpf.BTF.from_bytes(btf.data).data)


def test_variables_of_gccs_objects_lie_where_their_symbols_are(tmp_path):
    (tmp_path / "g.c").write_text(
        "int first; static int zeros[3]; int data = 5; static long more = 6; const int fixed = 7;\n"
        "int f(int x) { static int counter = 1; zeros[x]++; more++; return counter++ + fixed; }\n"
    )
    words = ["-gbtf", "-O1", "-c", tmp_path / "g.c", "-o", tmp_path / "g.o"]
    status, _, err = run(program("gcc"), *words)
    if status and "gbtf" in err:
        lacking("a gcc with -gbtf (12)")
    assert status == 0, err
    status, out, _ = run(program("readelf"), "-sW", tmp_path / "g.o")
    symbols = {
        row[7]: int(row[1], 16)
        for row in map(str.split, out.splitlines())
        if len(row) == 8 and row[3] == "OBJECT"
    }
    found = sections_of(bpf.BTF.from_file(tmp_path / "g.o"))
    assert set(found) == {".bss", ".data", ".rodata"}
    for size, members in found.values():
        assert size > 0
        for name, (at, _) in members.items():
            assert at == 8 * symbols[name], name


@ORDERS
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_sizes_and_offsets_come_from_sections_and_symbols(tmp_path, order, wide, counted):
    path, b = tmp_path / "x.o", unplaced(order)
    sections = [(".BTF", b.data()), (".data", bytes(24)), (".bss.far.away", 12)]
    path.write_bytes(elf_file(sections, SYMBOLS, wide, order, counted=counted))
    btf = bpf.BTF.from_file(path)
    assert sections_of(btf)[".bss.far.away"] == (12, {"x": (64, "int")})
    assert btf.sizeof(".data") == 24 and btf.sizeof(".ksyms") == 0
    in_order = [member[:3:2] for member in btf.members(".data")]
    assert in_order == [("twice", 96), ("x", 128), ("x", 160)], "sorted, as the kernel wants them"
    assert btf.order == order and len(btf) == len(b.types)
    sections[1:] = [(".data", bytes(24), 3, 0x1000), (".bss.far.away", 12, 3, 0x2000)]
    path.write_bytes(elf_file(sections, SYMBOLS, wide, order))
    assert sections_of(bpf.BTF.from_file(path)) == sections_of(btf)
    # an executable's symbols are addresses
    moved = [
        (name, at + {".data": 0x1000}.get(where, 0x2000), local, where)
        for name, at, local, where in SYMBOLS
    ]
    path.write_bytes(elf_file(sections, moved, wide, order, kind=2))
    assert sections_of(bpf.BTF.from_file(path)) == sections_of(btf)


def test_symbols_that_lie_behind_their_section_place_nothing(tmp_path):
    path, b = tmp_path / "x.o", unplaced("little")
    for at in (24, 25, 1 << 31):
        symbols = [("x", at, False, ".data"), ("x", at, True, ".data")]
        path.write_bytes(elf_file([(".BTF", b.data()), (".data", bytes(24))], symbols))
        btf = bpf.BTF.from_file(path)
        assert sorted(member[2] for member in btf.members(".data")) == [0, 32, 96], at
        assert btf.layout(".data").size == 24


def test_sections_that_have_sizes_or_are_in_no_file_keep_what_they_say(tmp_path):
    path, b = tmp_path / "x.o", unplaced("little", size=32)
    sections = [(".BTF", b.data()), (".data", bytes(24)), (".ksyms", 0)]
    path.write_bytes(elf_file(sections, SYMBOLS))
    btf = bpf.BTF.from_file(path)
    assert btf.data == b.data() and btf.sizeof(".data") == 32
    assert [member[2] for member in btf.members(".data")] == [96, 0, 32]
    assert btf.sizeof(".bss.far.away") == 0 and list(btf.members(".ksyms"))[0][0] == "call"


def test_the_layout_section_survives_the_placing_of_variables(tmp_path):
    path, b = tmp_path / "x.o", unplaced("little")
    b.add(99, "of the future", 2, 0, [7, 7])
    b.int("behind", 2)
    sections = [(".BTF", b.data(layout={99: (0, 4)})), (".data", bytes(24))]
    path.write_bytes(elf_file(sections, SYMBOLS))
    btf = bpf.BTF.from_file(path)
    assert btf.sizeof(".data") == 24 and btf.sizeof("behind") == 2 and len(btf) == len(b.types)


def test_btf_that_an_elf_file_does_not_hold_is_told(tmp_path):
    path, blob = tmp_path / "x.o", zoo().data()
    for sections, why in (
        ([(".BTF", len(blob))], "NOBITS"),
        ([(".BTF", blob, 0x800)], "compressed"),
        ([(".BTF.ext", blob)], "no section .BTF"),
        ([], "no section .BTF"),
        ([(".BTF", b"")], "no BTF"),
    ):
        path.write_bytes(elf_file(sections))
        with pytest.raises(bpf.BTFError, match=why):
            bpf.BTF.from_file(path)


def test_elf_files_come_through_a_pipe_too(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(str(path))
    for data in (elf_file([(".BTF", zoo().data())]), zoo().data()):
        writer = threading.Thread(target=path.write_bytes, args=(data,))
        writer.start()
        assert bpf.BTF.from_file(path).count == 19
        writer.join()


@once
@pytest.mark.parametrize("wide", [True, False])
def test_hostile_elf_files_are_refused_or_read_but_never_more(tmp_path, wide):
    path, order = tmp_path / "x.o", "little" if wide else "big"
    sections = [(".BTF", unplaced(order).data()), (".data", bytes(24)), (".bss.far.away", 12)]
    whole = elf_file(sections, SYMBOLS, wide, order)
    rng, peak = random.Random(11), resident("VmHWM")

    def read(data):
        path.write_bytes(data)
        with contextlib.suppress(bpf.BTFError):
            for t in bpf.BTF.from_file(path):
                with contextlib.suppress(bpf.BTFError):
                    t.kind == bpf.BTF_KIND_DATASEC and list(bpf.BTF.from_file(path).members(t))

    for end in range(0, len(whole), 7):
        read(whole[:end])
    places = list(range(4, 6)) + list(range(16, 64)) + list(range(len(whole) - 640, len(whole)))
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.choice(places)
            broken[at : at + 1] = bytes([rng.choice([0, 1, 2, 3, 8, 64, 127, 128, 255])])
            if not rng.randrange(4):
                broken[at : at + 8] = b"\xff" * len(broken[at : at + 8])
        read(bytes(broken))
    assert resident("VmHWM") - peak < 32 << 20


# -- distilled bases


def kernel_base(order="little", more=0):
    """Return a Blob as a kernel's BTF; more: as many types before, so that the ids are others."""
    b = Blob(order)
    for number in range(more):
        b.int("filler%d" % number, 4)
    b.types_by_name = {}
    word, wide = b.int("int", 4, 1), b.int("u64", 8)
    real = b.add(b.FLOAT, "double", 0, 8)
    color = b.enum("color", 4, [("RED", 1), ("BLUE", 2)])
    far = b.enum("far", 8, [("AWAY", 1 << 40)], wide=True)
    b.struct("list", 16, ("next", b.of(b.PTR, b.first + len(b.types) + 1), 0), ("size", wide, 64))
    b.union("either", 8, ("number", word, 0), ("wide", wide, 0))
    b.struct("twin", 4, ("a", word, 0))
    b.struct("twin", 8, ("b", wide, 0))
    b.struct("seen_whole", 12, ("x", word, 32), ("e", color, 64))
    b.add(b.FWD, "never_seen")
    b.add(b.FWD, "never_seen_union", flag=1)
    b.struct("precise", 16, ("d", real, 0), ("f", far, 64))
    return b


DISTILLED = [  # as pahole leaves them: (method, name, size or flag)
    ("int", "int", 4),
    ("int", "u64", 8),
    ("float", "double", 8),
    ("enum", "color", 4),
    ("enum", "far", 8),
    ("struct", "list", 16),
    ("union", "either", 8),
    ("struct", "twin", 8),
    ("fwd", "seen_whole", 0),
    ("fwd", "never_seen", 0),
    ("fwd", "never_seen_union", 1),
    ("struct", "precise", 16),
]


def distilled_base(order="little", rows=DISTILLED):
    """Return a Blob of the rows: the types that a module points to, of records no more than name and size."""
    b = Blob(order)
    for kind, name, number in rows:
        if kind == "int":
            b.int(name, number, name == "int")
        elif kind in ("struct", "union"):
            b.struct(name, number, kind=getattr(b, kind.upper()))
        elif kind == "fwd":
            b.add(b.FWD, name, flag=number)
        else:
            b.add(getattr(b, kind.upper()), name, 0, number)
    return b


def module(base, names):
    """Return a Blob of a module's types upon a base; names: of the base's types -> their ids."""
    b, of = Blob(base.order, base), names
    embedded, pointer = b.array(of["list"], 2), b.of(b.PTR, of["seen_whole"])
    b.struct(
        "mine",
        72,
        ("lists", b.of(b.TYPEDEF, b.of(b.CONST, embedded), "lists_t"), 0),
        ("whole", pointer, 256),
        ("u", of["either"], 320),
        ("p", of["precise"], 384),
        (base.strings.index(b"list\0"), of["color"], 512, 0),  # a name that the base has as well
        ("bits", of["int"], 544, 3),
    )
    b.add(b.FUNC_PROTO, "", 2, of["int"], ["a", pointer, "b", b.of(b.PTR, of["twin"])])
    b.add(b.FUNC, "call", 1, b.first + len(b.types) - 2)
    b.add(b.VAR, "here", 0, of["u64"], [1])
    b.add(b.DATASEC, ".data..percpu", 1, 8, [b.first + len(b.types) - 1, 0, 8])
    b.add(b.DECL_TAG, "tag", 0, b.first + 4, [0])
    b.enum("own", 4, [("ONE", 1)])
    b.enum("own64", 8, [("ONE", 1), ("TWO", 2)], wide=True)
    b.union("both", 8, ("f", of["far"], 0), ("o", b.of(b.PTR, of["never_seen"]), 0))
    b.of(b.PTR, of["never_seen_union"])
    b.of(b.TYPE_TAG, of["double"], "user")
    b.of(b.PTR, 0)
    return b


def ids_of(blob):
    """Return {name: type id} of what DISTILLED names."""
    return {name: blob.btf().find(name) for _, name, _ in DISTILLED if name != "twin"}


def with_base(tmp_path, blob, base, **names):
    """Write an ELF file with a blob and the distilled base under it; return its path."""
    path = tmp_path / "module.ko"
    sections = [(".BTF", blob.data()), (names.get("section", ".BTF.base"), base.data())]
    path.write_bytes(elf_file(sections, order=blob.order))
    return path


@ORDERS
@pytest.mark.parametrize("more", [0, 5])
def test_a_module_with_a_distilled_base_is_read_as_if_split_from_the_kernels(tmp_path, order, more):
    kernel_types, distilled = kernel_base(order, more), distilled_base(order)
    ids, small_ids = ids_of(kernel_types), ids_of(distilled)
    small_ids["twin"] = distilled.btf().find("twin")
    ids["twin"] = [t.id for t in kernel_types.btf()._all_named("twin") if t.size == 8][0]
    expected = module(kernel_types, ids).btf()
    path = with_base(tmp_path, module(distilled, small_ids), distilled)
    btf = bpf.BTF.from_file(path, kernel_types.btf())
    assert len(btf) == len(expected) and btf.base.data == kernel_types.data()
    for mine, theirs in zip(btf, expected):
        for slot in ("id", "kind", "name", "size", "type_id", "count", "flag"):
            assert getattr(mine, slot) == getattr(theirs, slot), (mine, slot)
        assert btf.c_type(mine) == expected.c_type(theirs)
        if mine.kind in (bpf.BTF_KIND_STRUCT, bpf.BTF_KIND_UNION, bpf.BTF_KIND_DATASEC):
            assert btf.describe(mine) == expected.describe(theirs)
            assert list(btf.members(mine)) == list(expected.members(theirs))
    assert "next" in btf.describe("list") and "BLUE" in btf.describe("mine")
    assert btf.offsetof("mine", "lists[1].size") == 24
    assert btf.offsetof("mine", "whole.x") == (32, 4)
    assert btf.enumerators("own64") == {1: "ONE", 2: "TWO"}
    assert bpf.BTF.from_bytes(btf.data, kernel_types.btf()).describe("mine") == btf.describe("mine")


def test_without_the_kernels_types_a_distilled_base_is_the_base(tmp_path):
    distilled = distilled_base()
    path = with_base(tmp_path, module(distilled, dict(ids_of(distilled), twin=8)), distilled)
    btf = bpf.BTF.from_file(path)
    assert btf.base.data == distilled.data() and btf.sizeof("mine") == 72
    assert btf.type("list").size == 16 and list(btf.members("list")) == []
    with pytest.raises(bpf.BTFError, match="member"):
        btf.offsetof("mine", "lists[0].next")


CHANGES = [  # what a kernel has instead, what is said of it
    ("struct list", lambda b: b.struct("list", 24), "list'.*16 bytes"),
    ("struct list", lambda b: b.union("list", 16), "list"),
    ("struct list", lambda b: b.add(b.FWD, "list"), "list"),
    ("union either", lambda b: b.struct("either", 8), "either"),
    ("int u64", lambda b: b.int("u64", 8, 1), "u64"),
    ("int u64", lambda b: b.int("u64", 4), "u64"),
    ("float double", lambda b: b.add(b.FLOAT, "double", 0, 4), "double"),
    ("enum color", lambda b: b.enum("color", 1, [("RED", 1)]), "color"),
    ("enum color", lambda b: b.of(b.TYPEDEF, 1, "color"), "color"),
    ("struct twin", lambda b: b.struct("twin", 8, ("c", 1, 0)), "several.*twin"),
    ("struct twin", lambda b: b.struct("twin", 16), "twin"),
    ("fwd never_seen", lambda b: b.add(b.FWD, "never_seen", flag=1), "never_seen"),
    ("struct seen_whole", lambda b: b.union("seen_whole", 12), "seen_whole"),
    ("struct precise", lambda b: b.struct("precise", 8), "precise"),
    (None, lambda b: b.struct("precise", 16), "several.*precise"),
]


@pytest.mark.parametrize("gone, change, why", CHANGES)
def test_a_module_that_does_not_fit_the_kernels_types_is_refused(tmp_path, gone, change, why):
    base, distilled = kernel_base(), distilled_base()
    path = with_base(tmp_path, module(distilled, dict(ids_of(distilled), twin=8)), distilled)
    assert bpf.BTF.from_file(path, base.btf()).sizeof("mine") == 72
    if gone is not None:
        kind, name = gone.split()
        for t in base.btf()._all_named(name):
            if bpf._KIND_NAMES[t.kind] == kind and not (
                name == "twin" and t.size == 4 + 4 * ("several" in why)
            ):
                record = bytearray(base.types[t.id - 1])
                record[:4] = struct.pack("<I", base.name("gone"))
                base.types[t.id - 1] = bytes(record)
    change(base)
    if gone == "struct twin" and "several" in why:
        base.struct("twin", 8, ("d", 1, 0))
    with pytest.raises(bpf.BTFError, match=why):
        bpf.BTF.from_file(path, base.btf())


FITTING = [
    ("struct list", lambda b: b.struct("list", 24), [("struct", "list", 16)]),  # by pointer alone
    ("struct list", lambda b: b.add(b.FWD, "list"), [("struct", "list", 16)]),
    ("enum color", lambda b: b.enum("color", 4, [("RED", 1)], wide=True), [("enum", "color", 4)]),
    ("fwd never_seen", lambda b: b.struct("never_seen", 4), [("fwd", "never_seen", 0)]),
    (
        "fwd never_seen_union",
        lambda b: b.union("never_seen_union", 4),
        [("fwd", "never_seen_union", 1)],
    ),
]


@pytest.mark.parametrize("gone, change, rows", FITTING)
def test_what_a_module_only_points_to_may_have_changed(tmp_path, gone, change, rows):
    base, distilled = Blob(), distilled_base(rows=rows)
    base.int("filler", 4)
    wanted = change(base)
    b = Blob("little", distilled)
    b.struct("mine", 8, ("p", b.of(b.PTR, b.of(b.CONST, 1)), 0))
    btf = bpf.BTF.from_file(with_base(tmp_path, b, distilled), base.btf())
    ((_, pointer, _, _, _),) = btf.members("mine")
    assert btf.type(btf.type(pointer).type_id).type_id == wanted


def base_names():
    """Return the names of what DISTILLED lists."""
    return [name for _, name, _ in DISTILLED]


def test_what_no_distilled_base_may_have_is_refused(tmp_path):
    base = kernel_base()
    for wrong in (
        lambda b: b.of(b.PTR, 1),
        lambda b: b.of(b.TYPEDEF, 1, "int"),
        lambda b: b.struct("", 16),
        lambda b: b.add(99, "list"),
        lambda b: b.add(20, "list", 0, 0, [1]),
    ):
        distilled = distilled_base(rows=DISTILLED[:2])
        wrong(distilled)
        b = Blob("little", distilled)
        b.struct("mine", 8, ("x", 1, 0))
        with pytest.raises(bpf.BTFError):
            bpf.BTF.from_file(with_base(tmp_path, b, distilled), base.btf())
    distilled = distilled_base(rows=DISTILLED[:2])
    b = Blob("little", distilled)
    b.struct("mine", 8, ("x", 1, 0))
    b.add(21, "", 1, 0, [1])
    with pytest.raises(bpf.BTFError, match="kind 21"):
        bpf.BTF.from_file(with_base(tmp_path, b, distilled), base.btf())
    path = with_base(tmp_path, module(distilled_base(), dict.fromkeys(base_names(), 1)), distilled)
    with pytest.raises(bpf.BTFError):  # nor is what is split from another distilled base
        for t in bpf.BTF.from_file(path, base.btf()):
            bpf.BTF.from_file(path, base.btf()).c_type(t)


def test_no_mutation_of_a_module_with_a_distilled_base_gets_out(tmp_path):
    base, distilled = kernel_base().btf(), distilled_base()
    whole = module(distilled, dict(ids_of(distilled), twin=8)).data()
    rng, peak = random.Random(12), resident("VmHWM")
    for _ in range(1500):
        parts = [bytearray(whole), bytearray(distilled.data())]
        part = rng.choice(parts)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(24, len(part) - 4) & ~3
            part[at : at + 4] = struct.pack("<I", rng.choice(INTERESTING))
        path = tmp_path / "m.ko"
        path.write_bytes(elf_file([(".BTF", bytes(parts[0])), (".BTF.base", bytes(parts[1]))]))
        with contextlib.suppress(bpf.BTFError):
            btf = bpf.BTF.from_file(path, base)
            for t in btf:
                with contextlib.suppress(bpf.BTFError):
                    btf.describe(t)
    assert resident("VmHWM") - peak < 64 << 20


def test_a_distilled_base_of_many_types_of_one_name_is_looked_up_once(tmp_path, monkeypatch):
    base, distilled = Blob(), Blob()
    for size in range(1, 300):
        base.struct("same", size)
    for size in range(1, 300):
        distilled.struct("same", size)
    b = Blob("little", distilled)
    b.struct("mine", 8, ("x", 7, 0))
    asked = []
    _all_named = bpf.BTF._all_named
    monkeypatch.setattr(
        bpf.BTF, "_all_named", lambda btf, name: asked.append(name) or _all_named(btf, name)
    )
    btf = bpf.BTF.from_file(with_base(tmp_path, b, distilled), base.btf())
    assert asked == ["same"] and list(btf.members("mine"))[0][1] == 7


# -- hostile blobs

HOSTILE = [  # each adds types behind 1 int, 2 struct { int x; }, 3 float, and gives the id of one that nobody can use
    lambda b: b.of(b.TYPEDEF, 4, "loop"),
    lambda b: b.of(b.CONST, b.of(b.TYPEDEF, 5, "loop")),
    lambda b: chain(b, 40, lambda b, inner, _: b.of(b.CONST, inner)),
    lambda b: b.struct("self", 4, ("x", 4, 0)),
    lambda b: b.struct("", 4, ("", 4, 0)),
    lambda b: b.union("", 4, ("", 5, 0)) and b.struct("", 4, ("", 4, 0)),
    lambda b: b.struct("self", 8, ("x", b.array(5, 1), 0)),
    lambda b: b.struct("self", 0, ("x", b.array(5, 0), 0)),
    lambda b: b.array(4, 4),
    lambda b: chain(b, 40, lambda b, inner, _: b.array(inner, 1)),
    lambda b: chain(b, 2000, lambda b, inner, _: b.struct("", 4, ("", inner, 0))),
    lambda b: chain(b, 2000, lambda b, inner, number: b.struct("s", 4, ("x", inner, 0))),
    lambda b: chain(
        b, 40, lambda b, inner, _: b.struct("", 0, ("", inner, 0), ("", inner, 0)), b.struct("", 0)
    ),
    lambda b: chain(
        b,
        32,
        lambda b, inner, _: b.struct("s", 0, ("a", inner, 0), ("b", inner, 0)),
        b.struct("", 0),
    ),
    lambda b: chain(b, 32, lambda b, inner, _: b.union("", 4, ("", inner, 0), ("", inner, 0))),
    lambda b: chain(
        b, 20, lambda b, inner, _: b.union("", 0xFFFFFFFF, ("", inner, 0), ("", inner, 0))
    ),
    lambda b: chain(
        b, 20, lambda b, inner, _: b.union("s", 0xFFFFFFFF, ("a", inner, 0), ("b", inner, 0))
    ),
    lambda b: chain(b, 4, lambda b, inner, _: b.array(inner, 60000), b.struct("", 0)),
    lambda b: chain(b, 5, lambda b, inner, _: b.array(inner, 0xFFFFFFFF)),
    lambda b: b.array(b.int("u64", 8), 0xFFFFFFFF),
    lambda b: b.array(b.struct("", 0), 0xFFFFFFFF),
    lambda b: b.array(0, 4),
    lambda b: b.array(99, 4),
    lambda b: b.array(0xFFFFFFFF, 4),
    lambda b: b.struct("s", 4, ("x", 99, 0)),
    lambda b: b.struct("s", 4, (9999, 1, 0)),
    lambda b: b.struct(9999, 4, ("x", 1, 0)),
    lambda b: b.struct(0xFFFFFFFF, 4, ("x", 1, 0)),
    lambda b: b.struct("s", 4, ("x", 1, 8)),
    lambda b: b.struct("s", 3, ("x", 1, 0)),
    lambda b: b.struct("s", 8, ("x", 1, 33)) and b.struct("s", 4, ("x", 1, 0xFFFFFFF8)),
    lambda b: b.struct("s", 4, ("x", 1, 28, 5)),
    lambda b: b.struct("s", 8, ("x", 1, 0, 33)),
    lambda b: b.struct("s", 80, ("x", 2, 632, 1)),
    lambda b: b.struct("s", 8, ("x", 3, 0, 5)),
    lambda b: b.struct("s", 8, ("x", b.array(1, 2), 0, 5)),
    lambda b: b.struct("s", 8, ("", 2, 3, 5)),
    lambda b: b.union("s", 8, ("x", 1, 32)),
    lambda b: b.struct("s", 8, ("x", b.struct("t", 2, ("x", 1, 0)), 0)),
    lambda b: b.int("x", 255),
    lambda b: b.int("x", 17),
    lambda b: b.int("x", 0xFFFFFFFF),
    lambda b: b.struct("s", 4, ("x", b.int("i", 4, 0, 255), 0)),
    lambda b: b.enum("x", 0, []),
    lambda b: b.enum("x", 99, []),
    lambda b: b.struct("s", 4, ("x", b.int("i", 4, 0, 8, 255), 0)),
    lambda b: b.add(b.DATASEC, ".data", 1, 4, [1, 0, 4]),
    lambda b: b.add(b.DATASEC, ".data", 1, 4, [99, 0, 4]),
    lambda b: b.add(b.DATASEC, ".data", 1, 4, [b.add(b.VAR, "v", 0, 1, [1]), 2, 4]),
    lambda b: b.add(b.STRUCT, "s", 0xFFFFFF, 4, ["x", 1, 0]),
    lambda b: b.add(b.ENUM, "e", 0xFFFFFF, 4),
    lambda b: b.add(b.INT, "cut", 0, 4),
    lambda b: b.add(0, "zero"),
    lambda b: b.add(99, "new"),
]


@once
@ORDERS
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_types_that_can_not_be_are_refused_quickly(order, number):
    b = Blob(order)
    b.int("int", 4, 1)
    b.struct("s", 4, ("x", 1, 0))
    b.add(b.FLOAT, "double", 0, 8)
    bad = HOSTILE[number](b)
    before = range(1, bad, max(1, bad // 100))
    for ids in ([bad], list(before) + [bad]):  # nor may it depend on what was asked before
        btf = b.btf()
        for t in ids:
            within(2, ask_everything, btf, t)
        assert not {"sizeof", "ctype", "describe", "source", "offsetof"} & set(
            ask_everything(btf, bad)
        ), repr(btf.type(bad))
        assert btf.sizeof(1) == 4 and btf.offsetof(2, "x") == 0  # the others are as good as ever


def test_what_is_strange_but_sound_is_taken():
    b = Blob()
    word, byte, empty = b.int("u32", 4), b.int("u8", 1), b.struct("empty", 0)
    most = min(0xFFFFFFFF, sys.maxsize)  # bytes that ctypes can take
    chars, huge = b.array(b.int("char", 1), 0), b.array(byte, most)
    b.struct(
        "s",
        4,
        ("a", empty, 0),
        ("b", chars, 0),
        ("w", word, 0),
        ("c", empty, 32),
        ("d", b.array(b.array(empty, 3), 2), 32),
    )
    b.struct("big", most, ("a", huge, 0))
    b.of(b.TYPEDEF, chain(b, 29, lambda b, i, _: b.of(b.CONST, i)), "t")
    btf = b.btf()
    assert bpf.to_python(btf.ctype("s")(w=5)) == {
        "a": {},
        "b": "",
        "w": 5,
        "c": {},
        "d": [[{}] * 3] * 2,
    }
    assert btf.ctype("empty")() == btf.ctype("empty")()
    assert bpf.to_python(btf.ctype("empty")()) == {}
    assert btf.sizeof("t") == 4 and btf.sizeof("big") == btf.sizeof(huge) == most
    if sys.maxsize > 1 << 32:
        assert ctypes.sizeof(btf.ctype("big")) == ctypes.sizeof(btf.ctype(huge)) == 0xFFFFFFFF
        assert btf.describe("big") and assert_same_from_source
    deep = chain(b, 31, lambda b, inner, _: b.struct("s", 4, ("x", inner, 0)))
    obj = b.btf().ctype(deep)()
    assert bpf.to_python(obj)["x"]["x"]
    assert bpf.describe_layout(type(obj))
    assert b.btf().python_source(deep)


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": 0x9FEA},
        {"magic": 0},
        {"version": 0},
        {"version": 2},
        {"flags": 1},
        {"hdr_len": 0},
        {"hdr_len": 23},
        {"hdr_len": 0xFFFFFFFF},
        {"hdr_len": 4000},
        {"type_off": 4000},
        {"type_off": 0xFFFFFFF0},
        {"type_len": 4000},
        {"type_len": 0xFFFFFFFF},
        {"type_len": 5},
        {"str_off": 4000},
        {"str_len": 4000},
        {"str_len": 0},
        {"str_len": 3},
        {"str_off": 0xFFFFFFFF},
        {"header": 32, "layout_off": 4000},
        {"header": 32, "layout_len": 4000},
        {"header": 40, "layout_off": 0xFFFFFFFF, "layout_len": 0xFFFFFFFF},
    ],
)
@ORDERS
def test_broken_headers_are_refused(order, changed):
    with pytest.raises(bpf.BTFError):
        zoo(order).btf(**changed)


@ORDERS
def test_a_blob_cut_anywhere_is_refused_or_usable_up_to_there(order):
    blob = zoo(order)
    whole, types = blob.data(header=32, layout={30: (4, 4)}), len(b"".join(blob.types))
    for end in range(len(whole)):
        with pytest.raises(bpf.BTFError):
            bpf.BTF.from_bytes(whole[:end])
    at = 24
    for number, record in enumerate(blob.types, 1):
        for end in range(at, at + len(record), 4):
            btf = blob.btf(type_len=end - 24)
            assert btf.count == number - 1
            for t in range(1, number):
                ask_everything(btf, t)
            with pytest.raises(bpf.BTFError, match="byte %d" % at if end > at else "no type"):
                btf.type(number)
        at += len(record)
    assert at == 24 + types and bpf.BTF.from_bytes(memoryview(bytearray(whole))).data == whole


def test_large_blobs_are_read_in_time_and_memory():
    b = Blob()
    word = b.int("u32", 4)
    name, suffixes = b.name("same"), b.name("x" * 100000)
    b.struct("twins", 4 * 4000, *[(name, word, 32 * index) for index in range(4000)])
    names = b.enum("names", 4, [(name, index) for index in range(20000)])
    b.struct("users", 4 * 2000, *[("", names, 32 * index) for index in range(2000)])
    b.struct("long", 4 * 20000, *[(suffixes + index, word, 32 * index) for index in range(20000)])
    chain(b, 3000, lambda b, inner, number: b.of(b.PTR, inner))
    before = resident()
    for t in ("twins", "users", "long"):
        within(2.0, ask_everything, b.btf(), t)
    assert len(bpf.to_python(within(2.0, lambda: b.btf().ctype("twins")()))) == 4000
    for t in range(b.first + len(b.types) - 1, 1, -500):
        within(2, ask_everything, b.btf(), t)
    assert resident() - before < 300 << 20


FUZZ = int(os.environ.get("BPFLOOKUP_FUZZ", "1500"))  # blobs to try; CI sets 20000


def strange(order):
    """Return Blobs for the fuzz test to begin with, besides zoo and house: small, each with its own dangers."""
    bits, odd, union, empty, deep = [Blob(order) for _ in range(5)]
    bits.int("u32", 4)
    bits.int("s64", 8, 1)
    bits.int("b", 1, 4, 1, 3)
    bits.enum("e", 4, [("A", 1), ("B", 2)])
    bits.struct(
        "bits",
        12,
        ("a", 1, 0, 3),
        ("b", 2, 3, 40),
        ("__class__", 1, 43, 9),
        ("e", 4, 64, 2),
        ("c", 1, 66, 30),
    )
    bits.struct("old", 8, ("_fields_", 3, 0), ("y", 3, 5), ("z", 1, 32))
    odd.int("u24", 3)
    odd.int("u128", 16)
    odd.add(odd.FLOAT, "half", 0, 2)
    odd.array(1, 2)
    odd.int("char", 1, 2)
    odd.struct(
        "odd",
        32,
        ("__slots__", 1, 0),
        ("a", 2, 24),
        ("_hole6_0", 3, 152),
        ("b", 4, 168),
        ("c", odd.array(5, 3), 216),
    )
    union.int("u32", 4)
    union.struct("", 4, ("a", 1, 0))
    union.union("", 4, ("", 2, 0), ("b", 1, 0))
    union.union("u", 8, ("", 3, 0), ("c", 3, 0), ("d", union.array(3, 2), 0))
    union.of(union.TYPEDEF, 4, "u_t")
    empty.struct("", 0)
    empty.int("u8", 1)
    for _ in range(12):
        last = empty.first + len(empty.types) - 1
        empty.struct(
            "", 4, ("", last if last > 2 else 1, 0), ("x", 1, 0), ("", last if last > 2 else 1, 0)
        )
    deep.int("u8", 1)
    chain(
        deep,
        30,
        lambda b, inner, number: (
            b.struct("s", 1, ("x", inner, 0)) if number % 2 else b.array(inner, 1)
        ),
    )
    return [bits, odd, union, empty, deep]


def mutated(rng, blob):
    """Return the bytes of a Blob with some words of its types, or anything at all, changed."""
    types = bytearray(b"".join(blob.types))
    words = range(0, len(types), 4)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, how = rng.choice(words), rng.random()
        if how < 0.3:
            number = rng.choice(INTERESTING)
        elif how < 0.5:
            number = (
                rng.randrange(2) << 31
                | rng.randrange(1, 21) << 24
                | rng.choice((0, 1, 2, 3, 0xFFFF, 0xFFFFFF))
            )
        elif how < 0.6:
            number = rng.randrange(1 << 32)
        else:  # another word of it: ids, names, offsets and sizes change places
            (number,) = struct.unpack_from(blob.mark + "I", types, rng.choice(words))
        if rng.random() < 0.2:
            types[at + rng.randrange(4)] = rng.randrange(256)
        else:
            struct.pack_into(blob.mark + "I", types, at, number)
    header = struct.pack(
        blob.mark + "HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(blob.strings)
    )
    data = bytearray(header + types + blob.strings)
    if rng.random() < 0.1:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.01 else data)


def exercise(data, base, seed):
    """Do with a blob what there is to do; only BTFError is an answer."""
    rng = random.Random(seed)
    try:
        btf = bpf.BTF.from_bytes(data, base)
        ids = range(btf.count + (base.count if base else 0) + 2)
    except bpf.BTFError:
        return
    for t in ids:
        with contextlib.suppress(bpf.BTFError):
            btf.sizeof(t)
    for t in rng.sample(ids, min(2, len(ids))):
        names = ["x"]
        with contextlib.suppress(bpf.BTFError):
            names = [member[0] for member in btf.members(t)] or names
        answers = ask_everything(btf, t, ".".join([rng.choice(names), "x"][: rng.randrange(1, 3)]))
        with contextlib.suppress(bpf.BTFError):
            assert btf.type(btf.find(btf.type(t).name)).name == btf.type(t).name
        if "ctype" in answers:
            assert ctypes.sizeof(answers["ctype"]) == answers["sizeof"] and "source" in answers
            with contextlib.suppress(bpf.BTFError):  # an enum's names are read when they are wanted
                exercise_object(answers["ctype"], answers["source"], rng)


def exercise_object(ctype, source, rng):
    """Do with an object of a class what there is to do."""
    if ctypes.sizeof(ctype) > 4096:
        return
    obj = ctype.from_buffer_copy(bytes(rng.randrange(256) for _ in range(ctypes.sizeof(ctype))))
    plain = bpf.to_python(obj)
    if isinstance(plain, dict):
        assert obj == ctype.from_buffer_copy(obj)
        assert {obj: 1}[obj]
        assert repr(obj)
        assert bpf.describe_layout(ctype)
        for name in plain:
            with contextlib.suppress(bpf.LayoutError, TypeError):  # not the name of a number
                setattr(obj, name, 1)
        assert len(bpf.to_python(obj)) == len(plain)
    if rng.random() < 0.2:
        bpf.to_json(obj)
        exec(source, {})


def test_no_mutation_gets_anything_but_a_btf_error_out():
    seeds = [
        blob
        for order in ("little", "big")
        for blob in [zoo(order), house(order), zoo(order)] + strange(order)
    ]
    bases = {
        blob: (zoo(blob.order).btf()) for blob in [extension(zoo("little")), extension(zoo("big"))]
    }
    seeds += list(bases)
    exercise(zoo().data(), None, 0)
    highest, slow = resident("VmHWM"), []
    for number in range(FUZZ):
        rng = random.Random(number)
        blob = rng.choice(seeds)
        data = mutated(rng, blob)
        start = time.perf_counter()
        try:
            exercise(data, bases.get(blob), number)
        except Exception as error:
            raise AssertionError("blob %d, %s" % (number, data.hex())) from error
        if time.perf_counter() - start > 0.1:
            slow.append((data, bases.get(blob), number))
    assert resident("VmHWM") - highest < 256 << 20
    for arguments in slow:
        within(1, exercise, *arguments)


# -- the running kernel's types

RECORDS = (bpf.BTF_KIND_STRUCT, bpf.BTF_KIND_UNION)


def of_kind(btf, *kinds):
    """Return the ids of the types of these kinds."""
    return [type_id for type_id in range(1, btf.count + 1) if btf.type(type_id).kind in kinds]


def some_records(btf, rng):
    """Return the ids of some 370 structs and unions, each the only type of its tag."""
    tags = collections.Counter(
        btf.type(type_id).name
        for type_id in of_kind(
            btf, bpf.BTF_KIND_ENUM, bpf.BTF_KIND_ENUM64, bpf.BTF_KIND_FWD, *RECORDS
        )
    )
    ids = [type_id for type_id in of_kind(btf, *RECORDS) if tags[btf.type(type_id).name] == 1]
    with_bits = [type_id for type_id in ids if any(bits for _, _, _, bits in flat(btf, type_id))]
    underscored = [type_id for type_id in ids if btf.type(type_id).name.startswith("__")]
    return (
        rng.sample(ids, 300)
        + rng.sample(with_bits, 50)
        + underscored[:20]
        + [btf.find("task_struct")]
    )


def flat(btf, t, start=0):
    """Yield (name, type id, bit offset, bits) of a record's members, those of anonymous records in their place."""
    for name, type_id, offset, bits, _ in btf.members(t):
        if name:
            yield name, type_id, start + offset, bits
        elif not bits:
            yield from flat(btf, type_id, start + offset)


def test_offsets_in_the_kernel_are_those_of_compiled_c(tmp_path, vmlinux_h):
    btf, rng, lines, expected = bpf.BTF.from_vmlinux(), random.Random(7), [], []
    names = sorted(
        t.name for t in map(btf.type, range(1, btf.count + 1)) if t.kind == Blob.STRUCT and t.name
    )
    unique = [
        name
        for before, name, behind in zip([""] + names, names, names[1:])
        if before != name != behind
    ]
    for name in ["task_struct", "net_device", "sk_buff", "bpf_map"] + rng.sample(unique, 300):
        own, paths = btf.find("struct " + name), []
        todo = [(own, "")]
        for t, before in todo:
            for member, type_id, _, bits, _ in btf.members(t):
                if btf.type(type_id).kind in (Blob.STRUCT, Blob.UNION):
                    todo.append((type_id, before + member + "." if member else before))
                if member and not bits:
                    paths.append(before + member)
        for path in rng.sample(paths, min(20, len(paths))):
            # 0 where C's type is not the kernel's: bpftool forgets that some enums are packed
            lines.append(
                "sizeof(struct %s) == %d ? 1 + (int)__builtin_offsetof(struct %s, %s) : 0"
                % (name, btf.sizeof(own), name, path)
            )
            expected.append(1 + btf.offsetof(own, path))
    found = map(
        int,
        compiled(
            tmp_path,
            '#include "%s"\nint printf(const char *, ...);\nint main(void) {\n%s return 0; }'
            % (vmlinux_h, "".join('printf("%%d ", %s);\n' % line for line in lines)),
        ).split(),
    )
    rows = [row for row in zip(lines, found, expected) if row[1]]
    wrong = [row for row in rows if row[1] != row[2]]
    assert len(rows) > 2000 and len(wrong) < 20, wrong
    for name in ["task_struct", "sk_buff"] + rng.sample(unique, 60):
        assert_same_from_source(btf, btf.find("struct " + name))


@once
def test_btf_every_record_of_the_kernel_is_built_at_its_offsets(vmlinux):
    fields, wide = 0, 0
    for type_id in of_kind(vmlinux, *RECORDS):
        ctype = vmlinux.ctype(type_id)
        assert ctypes.sizeof(ctype) == vmlinux.type(type_id).size == vmlinux.sizeof(type_id)
        for name, member_id, offset, bits in flat(vmlinux, type_id):
            field = getattr(ctype, name)
            if hasattr(field, "offset"):
                assert 8 * field.offset == offset and bits in (0, 8 * field.size), (ctype, name)
                fields += 1
            else:  # bitfields and 128 bits are no fields of ctypes
                assert bits or vmlinux.sizeof(member_id) == 16, (ctype, name)
                wide += 1
    assert fields > 10000 and wide > 100
    leave_out_of_collections()  # the classes stay for the session


@kernel
def test_btf_of_the_kernel_without_sys(vmlinux):
    """On rescue systems the kernel is asked for its types."""
    source = (
        "import sys, bpflookup; print(bpflookup.BTF.from_vmlinux().data == sys.stdin.buffer.read())"
    )
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        status, out, err = run(
            program("unshare"),
            "-m",
            "sh",
            "-c",
            'mount -t tmpfs none /sys/kernel && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            source,
            stdin=file,
            env=importing(),
        )
    if KERNEL < (5, 11):
        assert "BTFError: the kernel's BTF can't be had" in err
    else:
        assert (status, out) == (0, "True\n"), err


def random_path(btf, rng, t):
    """Return the path to a member of a member ... of a record, indices of arrays in it."""
    path = ""
    while True:
        t = btf.type(t)
        if t.kind in (
            bpf.BTF_KIND_TYPEDEF,
            bpf.BTF_KIND_CONST,
            bpf.BTF_KIND_VOLATILE,
            bpf.BTF_KIND_TYPE_TAG,
        ):
            t = t.type_id
        elif t.kind == bpf.BTF_KIND_ARRAY and t.count:
            t, path = t.type_id, path + "[%d]" % rng.randrange(t.count)
        else:
            members = (
                [member for member in flat(btf, t) if not member[3]] if t.kind in RECORDS else []
            )
            if not members:
                return path[1:]
            name, t, _, _ = rng.choice(members)
            path += "." + name


def questions_of_record(btf, type_id, rng):
    """Yield (C statement that prints it, what we say of it) for the size, offsets and bitfields of a record."""
    t, ctype, name = btf.type(type_id), btf.ctype(type_id), btf.c_type(type_id)
    yield 'printf("%%d\\n", (int)sizeof(%s));' % name, "%d" % btf.sizeof(type_id)
    paths = [member[0] for member in flat(btf, type_id) if not member[3]]
    for path in paths + [random_path(btf, rng, type_id) for _ in range(3 if paths else 0)]:
        line = 'printf("%%d\\n", (int)__builtin_offsetof(%s, %s));' % (name, path)
        yield line, "%d" % btf.offsetof(type_id, path)
    for path, _, offset, bits in flat(btf, type_id):
        if not bits:
            continue
        every_bit = getattr(ctype.from_buffer_copy(b"\xff" * t.size), path)
        place = btf.offsetof(t, path)
        assert every_bit in (-1, (1 << bits) - 1)
        assert (place.bit_offset, place.bits) == (offset, bits)
        obj = ctype()
        setattr(obj, path, every_bit)
        line = "{ %s *v = memset(room, 0, sizeof(*v)); v->%s = -1; show(sizeof(*v)); }"
        set_bytes = [pair for pair in enumerate(bytes(obj)) if pair[1]]
        yield line % (name, path), "".join("%d:%02x " % pair for pair in set_bytes)


def questions_of_enums(btf, enums, rng):
    """Yield the same for enumerators, of enums whose names are nobody else's."""
    names = collections.Counter()
    for t in enums:
        names.update([t.name] + list(btf.enumerators(t).values()))
    alone = []
    for t in enums:
        if t.name and all(names[name] == 1 for name in btf.enumerators(t).values()):
            alone.append(t)
    some = rng.sample([t for t in alone if names[t.name] == 1], 100)
    for t in some + [t for t in alone if t.flag][:20]:
        is_signed = btf.ctype(t)(-1).value < 0
        for number, name in btf.enumerators(t).items():
            line = 'printf("%%lld %%d\\n", (long long)%s, (enum %s)-1 < 0);' % (name, t.name)
            yield line, "%d %d" % (number, is_signed)


def with_sizes(header, enums):
    """Return vmlinux.h with the sizes of enums: older bpftools leave out how large one is."""
    for t in enums:
        start = header.find("\nenum %s {" % t.name)
        end = header.find("}", start) + 1
        if start >= 0 and t.size != 4 and header[end] == ";":
            mode = " __attribute__((mode(%s)))" % {1: "QI", 2: "HI", 8: "DI"}[t.size]
            header = header[:end] + mode + header[end:]
    return header


KERNEL_TYPES_C = """
    int printf(const char *, ...);
    void *memset(void *, int, unsigned long);
    static unsigned char room[1 << 20];
    static void show(int size)
    {
        for (int i = 0; i < size; i++) if (room[i]) printf("%%d:%%02x ", i, room[i]);
        printf("\\n");
    }
    int main(void) { %s return 0; }
"""


@once
def test_btf_offsets_of_kernel_types_are_those_of_compiled_c(tmp_path, vmlinux, vmlinux_h):
    rng, asked = random.Random(1), []
    for type_id in some_records(vmlinux, rng):
        asked += questions_of_record(vmlinux, type_id, rng)
    kinds = bpf.BTF_KIND_ENUM, bpf.BTF_KIND_ENUM64
    enums = [vmlinux.type(type_id) for type_id in of_kind(vmlinux, *kinds)]
    asked += questions_of_enums(vmlinux, enums, rng)
    with open(vmlinux_h) as file:
        header = with_sizes(file.read(), enums)
    source = header + KERNEL_TYPES_C % "\n".join(line for line, _ in asked)
    printed = compiled(tmp_path, source).splitlines()
    assert len(printed) == len(asked) > 2000
    wrong = [(line, ours, one) for (line, ours), one in zip(asked, printed) if ours != one]
    assert wrong == []


def test_btf_python_source_needs_neither_btf_nor_the_module(vmlinux):
    rng, given = random.Random(2), []
    sample = some_records(vmlinux, rng)
    for type_id in sample:
        name = vmlinux.type(type_id).name
        content = bytes(rng.getrandbits(8) for _ in range(vmlinux.sizeof(type_id)))
        given.append(
            [name + "_" * keyword.iskeyword(name), vmlinux.python_source(type_id), content.hex()]
        )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-W",
            "error",
            "-c",
            textwrap.dedent("""
        import json, sys
        def told(name, source, content):
            namespace = {}
            exec(source, namespace)
            cls = namespace[name]
            obj = cls.from_buffer_copy(bytes.fromhex(content))
            attributes = {key: getattr(cls, key) for key in dir(cls)}
            return [namespace["ctypes"].sizeof(cls),
                    {key: field.offset for key, field in attributes.items() if hasattr(field, "offset")},
                    {key: getattr(obj, key) for key, field in attributes.items() if isinstance(field, property)}]
        print(json.dumps([told(*one) for one in json.load(sys.stdin)]))
        assert "bpflookup" not in sys.modules
    """),
        ],
        input=json.dumps(given).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr.decode()
    for type_id, (_, _, content), (size, offsets, numbers) in zip(
        sample, given, json.loads(done.stdout.decode())
    ):
        obj = vmlinux.ctype(type_id).from_buffer_copy(bytes.fromhex(content))
        assert size == vmlinux.sizeof(type_id)
        for name, _, offset, bits in flat(vmlinux, type_id):
            if name in offsets:
                assert 8 * offsets[name] == offset and not bits
            else:
                assert numbers[name] == getattr(obj, name), (type_id, name)


# ---- 6. Map -----------------------------------------------------------------
# Maps of every type on the running kernel: opening, elements, scans, batches, memory, ring buffers; an oracle of what
# each type answers; maps that other programs have filled.


def with_handler(action, handler, functions=None):
    """Return action(), with handler() run after every step of the module's code, where a signal's could run.

    A step is a bytecode, before Python 3.10 a line, of the functions of these names or of all.
    """

    def tracer(frame, event, _):
        if frame.f_code.co_filename != bpf.__file__:
            return None
        if functions is not None and frame.f_code.co_name not in functions:
            return None
        if sys.version_info >= (3, 10):  # before, an exception in the middle of a line can be lost
            frame.f_trace_opcodes = True
        handler()
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        return action()
    finally:
        sys.settrace(before)


class Odd(ctypes.Structure):
    """A structure whose size is no multiple of 8."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("a", u8), ("b", u64), ("c", u16)]


def in_child(function, *arguments):
    """Run a function in a child of fork(2); return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


EVERY_C = r"""
#define HIGH (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)     // which half of 128 bits
#define SEC(name) __attribute__((section(name), used))
#define MAP(name, kind, k, v, n) \
    struct { int (*type)[kind]; k *key; v *value; int (*max_entries)[n]; } name SEC(".maps")
typedef unsigned char u8; typedef signed char s8; typedef unsigned short u16; typedef short s16;
typedef unsigned int u32; typedef unsigned long long u64; typedef long long s64;
static void *(*lookup)(void *, const void *) = (void *)1;
static long (*update)(void *, const void *, const void *, u64) = (void *)2;
static u32 (*prandom)(void) = (void *)7;

enum color { RED, GREEN = 5, BLUE = 7 };
enum mood { BAD = -2, GOOD = 1 };
enum big { SMALL = 1, LARGE = 0x500000002ULL };
enum tiny { NONE, SOME = 100 } __attribute__((packed));
typedef u16 pair_t[2];
typedef const volatile pair_t cv_pair_t;

struct key {
    union { struct { u8 a, b, c, d; }; u32 word; };
    struct { u16 port; } ends[2];
    enum color color;
    u32 low:3, mid:10, high:19;
};
struct inner { s16 odd; union { u32 number; u8 bytes[4]; struct { u16 lower; cv_pair_t pair; }; } u; };
typedef struct inner inners_t[3];
struct every {
    char name[16], text[8], code; _Bool yes; enum tiny tiny; s8 signs[2][3];
    struct { u8 tag; u32 wide; s16 odd; } __attribute__((packed)) packed[2];
    u16 grid[2][2][3];
    int five:5, seven:7; s64 crossing:33; u8 one:1, :2, three:3; _Bool flag:1; enum color hue:4;
    u32 whole:32; u64 forty:40; enum color color, colors[2]; enum mood mood; enum big big;
    struct inner inner, *next;
    union { struct { int x, y; union { u64 deep; struct { u8 deeper[2][4]; }; }; }; u8 raw[16]; };
    const volatile u32 qualified; int (*call)(struct every *); void *const opaque;
    __int128 wide; unsigned __int128 uwide;
    u8 tail[];
};
struct number { double d; float f; double more[2]; };
struct locked { struct bpf_spin_lock { u32 val; } lock; int count; struct bpf_timer { u64 opaque[2]; } timer; };
typedef struct task_struct { int pid; } task_t;         // Clang 14 drops the tag of a pointer to a struct by its tag
struct held { u64 id; task_t __attribute__((btf_type_tag("kptr"))) *task; };
struct flow {
    u32 src; u16 port; u8 proto, flags; s64 delta; char label[8]; struct { u16 low, high; } first, second;
    union { u32 ip4; u8 ip6[16]; }; u32 mark:4, rest:28; u32 counts[4]; enum color color; u32 :32;
};

MAP(hash, 1, struct key, struct every, 8);              MAP(scratch, 2, u32, struct every, 2);
MAP(percpu_hash, 5, enum color, struct inner, 4);       MAP(percpu_array, 6, u32, u64, 2);
MAP(lru, 9, pair_t, s64, 100);                          MAP(rows, 1, u64, inners_t, 8);
MAP(moods, 1, s64, enum mood, 8);                       MAP(floats, 2, u32, struct number, 1);
MAP(locks, 1, u64, struct locked, 2);                   MAP(kptrs, 2, u32, struct held, 1);
MAP(flow, 1, u32, struct flow, 4);
volatile u64 hits = 5, never;
struct key last = {.word = 1};
static volatile struct { u8 tag; enum mood mood; char text[8]; } state[2];
volatile const int limit = 7;
const volatile char greeting[16] = "hello";

static void fill_every(struct every *v)
{
    for (int i = 0; i < 16; i++) v->name[i] = greeting[i];
    v->text[0] = 0xff; v->text[1] = 1; v->code = 'c'; v->yes = 1; v->tiny = SOME; v->signs[1][2] = -3;
    v->packed[1].tag = 1; v->packed[1].wide = 0x12345678; v->packed[1].odd = -2; v->grid[1][0][2] = 65535;
    v->five = -5; v->seven = 33; v->crossing = -0x76543210ll; v->one = 1; v->three = 5; v->flag = 1; v->hue = BLUE;
    v->whole = 0xfedcba98; v->forty = 0x123456789aull; v->color = GREEN; v->colors[1] = 6; v->mood = BAD;
    v->big = LARGE; v->inner.odd = -1; v->inner.u.number = 0x01020304; v->x = 41; v->y = -1;
    v->deep = 0x0807060504030201ull; *(u32 *)&v->qualified = 9; *(u64 *)&v->call = 0xffff888000001234ull;
    ((u64 *)&v->wide)[!HIGH] = -7; ((u64 *)&v->wide)[HIGH] = -1; ((u64 *)&v->uwide)[HIGH] = 1;
}
SEC("tc") int fill(void *ctx)
{
    u32 zero = 0, one = 1, n;
    struct every *fixed = lookup(&scratch, &zero), *noise = lookup(&scratch, &one);
    struct number *number = lookup(&floats, &zero);
    u64 *count = lookup(&percpu_array, &one);
    if (!fixed || !noise || !number || !count) return 1;
    fill_every(fixed);
    for (n = 0; n < sizeof(*noise) / 4; n++) ((u32 *)noise)[n] = prandom();
    for (n = 0; n < 3; n++) {
        struct key key = {};
        key.word = 0x01020300 + n; key.ends[0].port = 80 + n; key.ends[1].port = 65535; key.color = n ? BLUE : GREEN;
        key.low = 5 + n; key.mid = 1000; key.high = 0x70000 + n;
        update(&hash, &key, n == 2 ? noise : fixed, 0);
        last = key;
        struct inner inners[3];
        __builtin_memset(inners, 0, sizeof(inners));
        inners[0].odd = -(s16)n; inners[2].u.number = n;
        update(&rows, &(u64){n}, &inners, 0);
        update(&percpu_hash, &(enum color){n}, &inners[0], 0);
        update(&lru, &(pair_t){n, 7}, &(s64){-(s64)n}, 0);
        update(&moods, &(s64){-(s64)n}, &(enum mood){n ? GOOD : BAD}, 0);
    }
    *(u64 *)&number->d = 0x400921fb54442d18ull; *(u32 *)&number->f = 0xbf000000;
    *(u64 *)&number->more[0] = 0x7ff0000000000000ull; *(u64 *)&number->more[1] = 0xbff0000000000000ull;
    struct locked locked = {.count = 3};
    update(&locks, &(u64){1}, &locked, 0);
    *count += 3; hits += limit;
    state[1].tag = 1; state[1].mood = BAD; state[1].text[0] = greeting[0];
    return 0;
}
char _license[] SEC("license") = "GPL";
"""

ENUMS = dict(RED=0, GREEN=5, BLUE=7, BAD=-2, GOOD=1, SMALL=1, LARGE=0x500000002, NONE=0, SOME=100)
ENUM_BITS = dict(tiny=8, big=64, color=32, colors=32, mood=32)


@pytest.fixture(scope="session")
def every_object(tmp_path_factory):
    """The program that fills a map of every type of value, compiled."""
    return bpf_object(tmp_path_factory.mktemp("every"), "every", EVERY_C)


@pytest.fixture
def every(every_object, bpffs):
    """Load the program above and run it once; return a function from a map's name to its pin; .run() runs it again."""
    directory, prog = os.path.join(bpffs, "maps"), os.path.join(bpffs, "fill")
    bpftool("prog", "load", every_object, prog, "type", "classifier", "pinmaps", directory)
    pinned = {
        name.replace(".", "_"): os.path.join(directory, name) for name in os.listdir(directory)
    }

    def pin(name):
        return pinned[name]

    pin.run = lambda: prog_test_run(obj_get(prog))
    assert pin.run() == 0
    pin.names = sorted(pinned)
    return pin


def agree(ours, told, name=""):
    """Whether to_python and bpftool say the same, each in its form; name is that of the member they are in.

    bpftool nests anonymous records under "", prints bitfields and 128 bits as unsigned "0x..", enums without a
    name as signed numbers, pointers in decimal, and char arrays with any byte that is no text as numbers.
    """
    if isinstance(told, dict):
        if "" in told:
            flattened = {}
            for label, member in told.items():
                flattened.update(member if label == "" else {label: member})
            return agree(ours, flattened)
        return list(ours) == list(told) and all(
            agree(ours[label], told[label], label) for label in told
        )
    if isinstance(ours, list):
        return len(ours) == len(told) and all(agree(*pair, name=name) for pair in zip(ours, told))
    if isinstance(told, list):
        raw = bytes(number & 0xFF for number in told).split(b"\0")[0]
        return raw in (ours.encode(), unescaped(ours))
    if isinstance(ours, str) and ours.lstrip("-").isdigit():  # an enumerator without a name
        ours = int(ours)
    if isinstance(ours, str) and ours.startswith("0x") and isinstance(told, int):
        return int(ours, 16) == told
    if isinstance(told, str) and told.startswith("0x"):
        number, bits = ENUMS.get(ours, ours), int(told, 16)
        return bits == (number if number >= 0 else number & (1 << bits.bit_length()) - 1)
    # a whole key or value is a number, its name is lost
    if isinstance(told, str) and isinstance(ours, int):
        return (ours - ENUMS[told]) % (1 << 32) == 0
    if isinstance(told, int) and name in ENUM_BITS:
        return (ours - told) % (1 << ENUM_BITS[name]) == 0
    return ours == told


def unescaped(text):
    """Return the bytes that text with \\xNN in it stands for."""
    pieces = re.split(r"(\\\\|\\x[0-9a-f]{2})", text)
    found = b""
    for piece in pieces:
        if piece == "\\\\":
            found += b"\\"
        elif piece[:2] == "\\x":
            found += bytes([int(piece[2:], 16)])
        else:
            found += piece.encode()
    return found


def dumped(*words):
    """Return {raw key: what bpftool makes of the entry} of a map."""
    return {
        listed_bytes(entry["key"]): entry["formatted"] for entry in bpftool("map", "dump", *words)
    }


# -- ways in: opening, creating, types


@kernel
def test_every_way_in_sees_the_same_map(flows, bpffs):
    gc.collect()  # maps of that name that earlier tests left behind
    pin = os.path.join(bpffs, "flows")
    flows.pin(pin)
    flows[Key(1)] = Value(2, 3)
    fd = os.dup(flows.fd)
    opened = [
        Map.from_fd(flows.fd, Key, Value),
        Map.from_fd(flows, Key, Value),
        Map.from_fd(fd, Key, Value, dup=False),
        Map.from_id(flows.id, Key, Value),
        Map.from_pin(pin, Key, Value),
        Map.from_pin(pin.encode(), Key, Value),
        Map.from_name(FLOWS, Key, Value),
    ]
    opened += [
        bpf.open_map(spec, Key, Value)
        for spec in (
            flows.id,
            str(flows.id),
            "id %d" % flows.id,
            "name " + FLOWS,
            FLOWS,
            "pinned " + pin,
            pin,
        )
    ]
    for m in opened:
        assert (m.id, m.name, m.type, m.key_size, m.value_size, m.max_entries, m.flags) == (
            flows.id,
            FLOWS,
            HASH,
            8,
            16,
            4,
            0,
        )
        assert m[Key(1)].bytes == 3 and not os.get_inheritable(m.fd)
    assert opened[2].fd == fd and opened[0].fd != flows.fd
    assert bpf.pins(bpffs) == {flows.id: [pin]}
    assert [info.name for info in bpf.maps() if info.id == flows.id] == [FLOWS]


def test_what_can_name_no_map_is_refused():
    for spec in ("", "id", "id x", "name", "pinned", "a b c"):
        with pytest.raises(ValueError):
            bpf.open_map(spec)
    with pytest.raises(ValueError, match="mode"):
        Map.from_id(5, mode="a")
    with pytest.raises(ValueError, match="NUL"):
        Map.from_pin("a\0b")
    for number in (-1, 1 << 32):
        with pytest.raises(bpf.LayoutError):
            Map.from_id(number)


@kernel
def test_unpin_removes_a_pin_of_this_map_alone(flows, bpffs):
    pin = os.path.join(bpffs, "flows")
    flows.pin(pin)
    other = Map.create(HASH, u32, u32, 1)
    with pytest.raises(bpf.BPFError, match="is a pin of"):
        other.unpin(pin)
    flows.unpin(pin)
    assert not os.path.exists(pin) and bpf.pins(bpffs) == {}
    with pytest.raises(bpf.MapNotFound):
        flows.unpin(pin)


@kernel
def test_modes_are_least_privilege(flows, bpffs):
    pin = os.path.join(bpffs, "flows")
    flows.pin(pin)
    writer = Map.from_pin(pin, Key, Value, mode="w")
    writer[Key(1)] = Value(1, 1)
    with pytest.raises(bpf.PermissionDenied):
        writer[Key(1)]
    reader = Map.from_pin(pin, Key, Value)
    assert reader[Key(1)].packets == 1
    with pytest.raises(bpf.PermissionDenied):
        reader[Key(1)] = Value()
    both = Map.from_id(flows.id, Key, Value, mode="rw")
    del both[Key(1)]
    assert Key(1) not in both


@kernel
def test_create_takes_map_extra():
    bloom = created(bpf.BPF_MAP_TYPE_BLOOM_FILTER, None, u32, 10, map_extra=3)
    assert bloom.info.map_extra == 3


@kernel
def test_create_takes_every_setting_and_checks_them():
    inner = Map.create(ARRAY, u32, u32, 2)
    outer = Map.create(bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, max_entries=2, inner=inner)
    outer[0] = inner.fd
    assert outer[0] == inner.id
    near = Map.create(
        HASH, bytes, bytes, 3, key_size=3, value_size=5, numa_node=0, flags=bpf.BPF_F_NO_PREALLOC
    )
    assert near.flags == bpf.BPF_F_NUMA_NODE | bpf.BPF_F_NO_PREALLOC
    assert (near.key_size, near.value_size) == (3, 5)
    for options in (
        dict(max_entries=-1),
        dict(max_entries=1 << 32),
        dict(flags=-1),
        dict(key_size=1 << 32),
        dict(map_extra=1 << 64),
        dict(max_entries=1.5),
        dict(max_entries="3"),
    ):
        with pytest.raises(bpf.LayoutError):
            Map.create(HASH, bytes, u32, **dict(dict(key_size=4), **options))
    for map_type in ("hash", None, [HASH], 1.5):
        with pytest.raises(bpf.LayoutError, match="map_type must be an int"):
            Map.create(map_type, u32, u32, 1)
    with pytest.raises(ValueError, match="15 characters"):
        Map.create(HASH, u32, u32, 1, name="a_name_of_16_chr")
    with pytest.raises(bpf.InvalidArgument, match="name"):
        Map.create(HASH, u32, u32, 1, name="no blanks")
    assert Map.create(HASH, u32, u32, 1, name="a_name_of_15_ch").name == "a_name_of_15_ch"
    with pytest.raises(TypeError, match="from_pin"):
        Map()


@kernel
def test_types_are_checked_when_the_map_is_opened(flows, numbers):
    for key, value in (
        (Value, None),
        (None, Key),
        (u32, None),
        (Key, u64),
        (ctypes.c_void_p, None),
        (Key, ctypes.py_object),
        (Key, "u64"),
        (Key, 16),
    ):
        with pytest.raises(bpf.LayoutError, match="of map %d" % flows.id):
            Map.from_fd(flows, key, value)
    before = open_fds()
    with pytest.raises(bpf.LayoutError, match="has 8 bytes in the map, u32 has 4"):
        Map.from_fd(flows, u32)
    with pytest.raises(bpf.LayoutError):
        Map.create(HASH, ctypes.c_void_p, u32, 1)
    with pytest.raises(bpf.LayoutError, match="key_size="):
        Map.create(HASH, None, u32, 1)
    assert open_fds() == before
    array = Map.create(ARRAY, None, Value, 2)
    assert Map.from_fd(array).key_type is u32 and Map.from_fd(array).value_type is bytes
    programs = Map.create(bpf.BPF_MAP_TYPE_PROG_ARRAY, max_entries=2)
    assert programs.key_type is u32 and programs.value_type is u32
    ring = Map.create(RINGBUF, max_entries=PAGE)
    assert ring.key_type is None and ring.value_type is None
    queue = Map.create(QUEUE, None, u64, 2)
    assert queue.key_type is None and queue.value_type is u64
    with pytest.raises(bpf.LayoutError, match="has none"):
        Map.from_fd(queue, u32)
    for action in (
        lambda: ring[0],
        lambda: 0 in queue,
        queue.next_key,
        lambda: list(queue),
        lambda: queue.get(1),
    ):
        with pytest.raises(bpf.NotSupported, match="has no keys"):
            action()


@kernel
def test_a_layout_error_names_key_and_value_both(flows):
    with pytest.raises(bpf.LayoutError) as info:
        Map.from_fd(flows, u64 * 2, u32)
    assert "key of map" in str(info.value) and "value of map" in str(info.value)
    for options in (dict(key=u32), dict(value=u32)):
        with pytest.raises(bpf.LayoutError) as info:
            Map.from_fd(flows, **options)
        assert ("key of map" in str(info.value)) == ("key" in options)


@kernel
def test_maps_of_descriptors_take_ctypes_ints_and_sizes_are_left_out():
    inner = Map.create(ARRAY, u32, u32, 2)
    for map_type in (bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, bpf.BPF_MAP_TYPE_HASH_OF_MAPS):
        with Map.create(map_type, inner=inner) as outer:
            assert (outer.key_size, outer.value_size, outer.max_entries) == (4, 4, 1)
            key = 0 if outer.key_type is u32 else bytes(4)
            for given in (ctypes.c_int(inner.fd), u32(inner.fd), inner, inner.fd):
                outer[key] = given
                assert outer.lookup_bytes(key) == bytes(u32(inner.id))
    for map_type in (bpf.BPF_MAP_TYPE_PERF_EVENT_ARRAY, bpf.BPF_MAP_TYPE_CPUMAP):
        with created(map_type) as m:
            assert m.max_entries == len(bpf.possible_cpus())
    with Map.create(ARRAY, u32, u32) as m:
        out = (u32 * 1)()
        m[0] = 7
        assert m.max_entries == 1 and m.lookup_into(0, out) and out[0] == 7


@kernel
def test_maps_that_vanish_between_listing_and_opening_are_not_missed(kernel_is):
    name = "van_%d" % RUN
    first, second = [Map.create(HASH, u32, u32, 1, name=name) for _ in range(2)]
    with pytest.raises(bpf.AmbiguousName):
        Map.from_name(name)
    opened = []

    def kernel(number, cmd, ref, size):
        if cmd == bpf.BPF_MAP_GET_FD_BY_ID and ref._obj.get_id.start_id in gone:
            opened.append(ref._obj.get_id.start_id)
            if opened.count(opened[-1]) > 1:  # it was there when it was listed
                return -errno.ENOENT
        return real_kernel(number, cmd, ref, size)

    kernel_is(kernel)
    for gone in ({first.id}, {second.id}):
        del opened[:]
        with Map.from_name(name) as m:
            assert {m.id} == {first.id, second.id} - gone
    gone = {first.id, second.id}
    del opened[:]
    with pytest.raises(bpf.MapNotFound, match=name):
        Map.from_name(name)


@kernel
def test_pins_are_found_on_every_bpffs(flows, bpffs, tmp_path):
    mounts = [tmp_path / "with blank\tand\\040", tmp_path / "deep" / "er"]
    flows.pin(os.path.join(bpffs, "first"))
    try:
        for mount in mounts:
            mount.mkdir(parents=True)
            status, _, err = run(program("mount"), "-t", "bpf", "bpf", mount)
            assert status == 0, err
            flows.pin(mount / "second")
        wanted = [os.path.join(bpffs, "first")] + [str(mount / "second") for mount in mounts]
        assert sorted(bpf.pins()[flows.id]) == sorted(wanted)
        assert bpf.pins(mounts[0]) == {flows.id: wanted[1:2]}
        assert sorted(bpf.pins(str(tmp_path))[flows.id]) == sorted(wanted[1:])
        assert flows.id in bpf.pins("/sys/fs/bpf")
    finally:
        for mount in mounts:
            run(program("umount"), mount)
    for path in (tmp_path, "/proc", tmp_path / "none", MODULE):
        with pytest.raises(bpf.BPFError, match="no bpffs|no directory"):
            bpf.pins(path)


@kernel
def test_btf_in_place_of_a_type_demands_the_maps_own(every, flows, bpffs):
    with Map.from_pin(every("hash"), BTF, BTF) as m:
        assert m.key_type is m.btf.ctype(m.info.btf_key_type_id) and m.key_type.__name__ == "key"
        assert m.value_type is m.btf.ctype("struct every") and m.value_type.__name__ == "every"
    with Map.from_pin(every("hash"), bytes, bytes) as m:
        assert all(type(key) is type(value) is bytes for key, value in m.items())
        assert m.btf is not None
    with Map.from_pin(every("every_data"), value=BTF) as m:
        assert m.key_type is u32 and m.value_type.__name__ == ".data"
        with pytest.raises(
            bpf.BTFError, match="key of map .* has no BTF type: its BTF has no type for it"
        ):
            Map.from_pin(every("every_data"), key=BTF)
    for options in (dict(key=BTF), dict(value=BTF)):
        with pytest.raises(bpf.BTFError, match="has no BTF type: the map has none"):
            Map.from_id(flows.id, **options)
    with Map.from_id(flows.id) as m:
        assert m.btf is None and m.key_type is m.value_type is bytes


@kernel
def test_maps_whose_types_may_not_be_had_are_bytes(every, bpffs):
    """Nobody may read the map by its pin, but not its types: they are bytes, the caller's, or an error if demanded."""
    if bpf_is_for_the_privileged():
        lacking("a kernel that lets everybody use a pin")
    for directory in (bpffs, os.path.join(bpffs, "maps")):
        os.chmod(directory, 0o755)
    for name in every.names:
        os.chmod(every(name), 0o444)
    text = as_nobody(
        """
        m = bpf.Map.from_pin(pin("hash"))
        print(m.btf, m.key_type, m.value_type, m.info.btf_id > 0, len(list(m.items())))
        m = bpf.Map.from_pin(pin("every_data"))
        print(m.btf, m.key_type is u32, m.value_type, 12 in m[0][:8])
        m = bpf.Map.from_pin(pin("rows"), value=own, strict=True)      # nothing to compare it with
        print(m.btf, m[bytes(u64(2))].last)
        for what in ({"key": bpf.BTF}, {"value": bpf.BTF}):
            try:
                bpf.Map.from_pin(pin("hash"), **what)
            except bpf.BTFError as error:
                print(error)
    """,
        pin=every,
        own=type(
            "own",
            (ctypes.Structure,),
            {"_fields_": [("first", u32 * 7), ("last", u32), ("_", u32)]},
        ),
    )
    lines = text.splitlines()
    assert lines[:3] == [
        "None <class 'bytes'> <class 'bytes'> True 3",
        "None True <class 'bytes'> True",
        "None 2",
    ]
    for what, line in zip(("key", "value"), lines[3:]):
        assert line.startswith(what + " of map ") and "(hash 'hash') has no BTF type: " in line
        assert "BPF_BTF_GET_FD_BY_ID" in line and "EPERM" in line and "CAP_SYS_ADMIN" in line


STRUCT_OPS_C = r"""
#define SEC(name) __attribute__((section(name), used))
typedef unsigned int u32; typedef unsigned long long u64;
struct sock;
struct tcp_congestion_ops {
    u32 (*ssthresh)(struct sock *); void (*cong_avoid)(struct sock *, u32, u32); u32 (*undo_cwnd)(struct sock *);
    char name[16];
};
SEC("struct_ops/one") u32 one(u64 *ctx) { return 2; }
SEC("struct_ops/two") void two(u64 *ctx) { }
SEC("struct_ops/three") u32 three(u64 *ctx) { return 2; }
SEC(".struct_ops") struct tcp_congestion_ops NAME = {
    .ssthresh = (void *)one, .cong_avoid = (void *)two, .undo_cwnd = (void *)three, .name = "NAME" };
char _license[] SEC("license") = "GPL";
"""


@kernel
def test_btf_of_struct_ops_is_the_kernels_own(tmp_path, vmlinux):
    try:
        vmlinux.find("bpf_struct_ops_tcp_congestion_ops")
    except bpf.BTFError:
        pytest.skip("this kernel has no struct_ops for TCP (5.6, CONFIG_BPF_JIT)")
    name = "cc_%d" % RUN
    bpftool(
        "struct_ops", "register", bpf_object(tmp_path, "ops", STRUCT_OPS_C.replace("NAME", name))
    )
    (map_id,) = [ops["id"] for ops in bpftool("struct_ops", "show") if ops["name"] == name]
    try:
        with Map.from_id(map_id) as m:
            assert m.type == bpf.BPF_MAP_TYPE_STRUCT_OPS
            assert m.info.btf_id != 0
            assert m.info.btf_value_type_id == 0
            value = m[0]
            assert (
                type(value).__name__ == "bpf_struct_ops_tcp_congestion_ops" == m.value_type.__name__
            )
            assert agree(bpf.to_python(value), dumped("id", map_id)[bytes(4)]["value"])
            assert bpf.to_python(value)["data"]["name"] == name and value.data.name == name.encode()
            assert m.btf.offsetof(m.value_type.__name__, "data.name") == m.lookup_bytes(0).index(
                name.encode()
            )
            assert [
                bpftool("prog", "show", "id", prog)["name"]
                for prog in (value.data.ssthresh, value.data.cong_avoid, value.data.undo_cwnd)
            ] == ["one", "two", "three"]
    finally:
        bpftool("struct_ops", "unregister", "id", map_id)


# -- a caller's types, proved by the map's BTF


class Pair(ctypes.Structure):
    _fields_ = [("low", u16), ("high", u16)]


class SwappedPair(ctypes.Structure):
    _fields_ = [("high", u16), ("low", u16)]


class EitherAddresses(ctypes.Union):
    _fields_ = [("ip4", u32), ("ip6", u8 * 16)]


FLOW = [
    ("src", u32),
    ("port", u16),
    ("proto", u8),
    ("flags", u8),
    ("delta", ctypes.c_int64),
    ("label", ctypes.c_char * 8),
    ("first", Pair),
    ("second", Pair),
    ("address", EitherAddresses),
    ("mark", u32, 4),
    ("rest", u32, 28),
    ("counts", u32 * 4),
    ("color", u32),
    ("_pad", u64),
]


def flow_like(first="", last="", *new, **tags):
    """Return struct flow as a caller would write it; new fields, if any, in the place of those from first to last."""
    names, fields = [field[0] for field in FLOW], list(FLOW)
    if new:
        fields[names.index(first) : names.index(last) + 1] = new
    if ("address", EitherAddresses) in fields:
        tags["_anonymous_"] = ["address"]
    return type("flow", (ctypes.Structure,), dict(tags, _fields_=fields))


# {case: (a caller's type, what is wrong with it, what is wrong if strict)}
PROOFS = {
    "all is right": (flow_like(), None, None),
    "fields swapped": (
        flow_like("port", "flags", ("proto", u8), ("flags", u8), ("port", u16)),
        "proto is at byte 4, 1 bytes here, at byte 6, 1 bytes in BTF",
        "port is at byte 6",
    ),
    "fields of one size swapped": (
        flow_like("first", "second", ("second", Pair), ("first", Pair)),
        "second is at byte 24, 4 bytes here, at byte 28, 4 bytes in BTF; first is at byte 28",
        "first is at byte 28",
    ),
    "wider": (
        flow_like("port", "flags", ("port", u32)),
        "port is at byte 4, 4 bytes here, at byte 4, 2 bytes",
        "port",
    ),
    "narrower": (
        flow_like("delta", "delta", ("delta", u32), ("_x", u32)),
        "delta is at byte 8, 4 bytes here",
        "delta",
    ),
    "nested swapped": (
        flow_like("second", "second", ("second", SwappedPair)),
        "second.high is at byte 0, 2 bytes here, at byte 2, 2 bytes in BTF; second.low is",
        "second.high",
    ),
    "anonymous branch moved": (
        flow_like("address", "address", ("ip6", u8 * 8), ("ip4", u32), ("_x", u32)),
        "ip6 is at byte 32, 8 bytes here, at byte 32, 16 bytes in BTF; ip4 is at byte 40",
        "ip4 is at byte 40",
    ),
    "bits moved": (
        flow_like("mark", "rest", ("mark", u32, 5), ("rest", u32, 27)),
        "mark is at byte 48, :5 bytes here",
        "rest",
    ),
    "renamed": (flow_like("src", "src", ("source", u32), _btf_={"source": "src"}), None, None),
    "renamed wrongly": (
        flow_like("src", "src", ("source", u32), _btf_={"source": "color"}),
        "source is at byte 0, 4 bytes here, at byte 68, 4 bytes in BTF",
        "src is in BTF alone",
    ),
    "renamed to nothing": (
        flow_like(_btf_={"src": "sauce"}),
        "src has no member 'sauce' in BTF",
        "src is in BTF alone",
    ),
    "bound to nothing": (
        flow_like(
            "port", "flags", ("flags", u16), ("port", u16), _btf_={"flags": None, "port": None}
        ),
        None,
        None,
    ),
    "no name in common": (
        flow_like("src", "_pad", ("x", u64), ("y", u64 * 9)),
        None,
        "x has no member 'x' in BTF; y has no member 'y' in BTF; src is in BTF alone",
    ),
    "signedness": (
        flow_like("delta", "delta", ("delta", u64)),
        None,
        "delta is u64 here, s64 in BTF",
    ),
    "signed enum": (flow_like("color", "color", ("color", ctypes.c_int32)), None, None),
    "floating point": (
        flow_like("counts", "counts", ("counts", ctypes.c_float * 4)),
        None,
        "counts[] is f32 here",
    ),
    "array length": (
        flow_like("counts", "counts", ("counts", u16 * 8)),
        None,
        "counts is u16[8] here, u32 [4] in BTF",
    ),
    "array for a number": (
        flow_like("delta", "delta", ("delta", u32 * 2)),
        None,
        "delta is u32[2] here",
    ),
    "number for a record": (
        flow_like("first", "first", ("first", u32)),
        None,
        "first is u32 here, struct (anonymous)",
    ),
    "record for a number": (
        flow_like("src", "src", ("src", Pair)),
        None,
        "src is struct Pair here, u32 in BTF",
    ),
    "a member left out": (
        flow_like("second", "second", ("_x", u32)),
        None,
        "_x has no member '_x' in BTF; second is in BTF alone",
    ),
    "bits as a whole": (
        flow_like("mark", "rest", ("bits", u32)),
        None,
        "bits has no member 'bits' in BTF; mark is in BTF alone; rest is in BTF alone",
    ),
    "bytes match anything": (
        flow_like(
            "label", "second", ("label", u8 * 8), ("first", u8 * 4), ("second", ctypes.c_char * 4)
        ),
        None,
        None,
    ),
}


@kernel
@pytest.mark.parametrize("case", sorted(PROOFS))
def test_btf_proves_a_callers_type(case, every):
    ctype, wrong, wrong_if_strict = PROOFS[case]
    for strict, expected in ((False, wrong), (True, wrong_if_strict)):
        if expected is None:
            with Map.from_pin(every("flow"), u32, ctype, mode="rw", strict=strict) as m:
                m[1] = ctype()
                assert bytes(m[1]) == bytes(80)
            continue
        with pytest.raises(bpf.LayoutError) as error:
            Map.from_pin(every("flow"), u32, ctype, strict=strict)
        text = str(error.value)
        assert expected in text.split("\n")[0]
        assert "value of map" in text
        assert "(hash 'flow')" in text
        table, source = text.split("\nwrite instead\n")
        marked = [line for line in table.split("\n")[1:] if line.startswith(">")]
        first = (
            table.split(" in BTF")[0]
            .split(": ", 2)[2]
            .split(" ")[0]
            .replace("[]", "")
            .split(".")[-1]
        )
        assert len(marked) == 1 and " %s: " % first in marked[0] and table.count(" | ") >= 15, text
        assert "delta: s64" in table and "flow in the map's BTF" in table
        namespace = {"ctypes": ctypes}
        exec(source, namespace)
        with Map.from_pin(every("flow"), u32, namespace["flow"], strict=True) as m:
            assert m.value_type is namespace["flow"]


@kernel
def test_btf_suggestions_work_for_every_type(every):
    """What an error says to write instead passes the strictest proof, whatever the type, and reads alike."""
    for name in every.names:
        with Map.from_pin(every(name)) as m:
            info, types = m.info, []
            for type_id, ctype in (
                (info.btf_key_type_id, m.key_type),
                (info.btf_value_type_id, m.value_type),
            ):
                namespace = {}
                if type_id:
                    exec(m.btf.python_source(type_id), namespace)
                made = [made for label, made in namespace.items() if isinstance(made, type)][-1:]
                types.append(made[0] if made else ctype)
            with Map.from_pin(every(name), *types, strict=True) as own:
                assert own.key_type is types[0] and own.value_type is types[1]

                def read(m):
                    return {raw_key(m.key_type, key): m.lookup_bytes(key) for key in m}

                assert read(own) == read(m)
                labels = "five crossing hue forty wide uwide" if name == "scratch" else ""
                for label in labels.split():
                    found = [getattr(own[index], label) for index in own]
                    assert found == [getattr(m[index], label) for index in m]
    wrong = type("wrong", (ctypes.Structure,), {"_fields_": [("state", u8 * 40)]})
    with pytest.raises(bpf.LayoutError, match="state is at byte 0, 40 bytes here, at byte"):
        Map.from_pin(every("every_bss"), value=wrong)
    with pytest.raises(
        bpf.LayoutError, match="(?s)is u64 here, s64 in BTF.*write.*c_int64"
    ) as error:
        Map.from_pin(every("moods"), key=u64, strict=True)
    assert "(hole)" not in str(error.value)
    Map.from_pin(every("moods"), u64, ctypes.c_int32).close()
    Map.from_pin(every("lru"), u8 * 4, u8 * 8, strict=True).close()


# -- BPF tokens


@kernel
def test_a_token_makes_maps_and_reads_their_types_in_a_user_namespace(tokens):
    def int_type(token):
        return load_btf(lock_types(), btf_flags=bpf.BPF_F_TOKEN_FD, btf_token_fd=token.fileno())

    source = """
        def refused(what):
            try:
                print("NOT REFUSED", what())
            except bpf.SyscallError as error:
                print(type(error).__name__, error)
        pin, token = os.path.join(path, "m"), bpf.create_token(path)
        with bpf.Map.create(1, u32, u64, 4, token=token, name="tok") as m:
            m[1] = 2
            print(m[1], m.info.btf_id)
        refused(lambda: bpf.Map.create(1, u32, u64))
        refused(lambda: bpf.Map.create(2, u32, u64, token=token))      # an array is not delegated
        refused(lambda: bpf.Map.from_id(m.id))
        refused(lambda: list(bpf.maps()))
        refused(lambda: bpf.create_token("/tmp"))
        refused(lambda: bpf.create_token("/sys/fs/bpf"))
        typed = bpf.Map.create(1, key_size=4, value_size=4, max_entries=2, btf=int_type(token), btf_key=1,
                               btf_value=1, token=token)
        typed.pin(pin)
        typed.update(bytes(u32(5)), bytes(u32(-5)))                    # before 6.15 the types may not be had
        for opened in (bpf.Map.from_pin(pin), bpf.Map.from_pin(pin, token=token), typed,
                       bpf.open_map(pin, token=token.fileno()), bpf.Map.from_fd(typed, token=token)):
            print(opened.btf is not None, opened.key_type.__name__, list(opened.items()))
        refused(lambda: bpf.BTF.from_id(typed.info.btf_id))
        refused(lambda: bpf.BTF.from_id(typed.info.btf_id, token=typed.fd))
        refused(lambda: bpf.BTF.from_id(typed.info.btf_id, token).count)
        for value in (1 << 32, "x"):
            try:
                bpf.BTF.from_id(typed.info.btf_id, value)
            except TypeError:
                print("refused")
    """
    told = in_user_namespace(source, int_type=int_type).splitlines()
    assert told[0] == "2 0", told
    assert told[1].startswith("PermissionDenied BPF_MAP_CREATE") and "CAP_BPF" in told[1]
    assert "a BPF token that allows this" in told[1]
    assert told[2].startswith("PermissionDenied BPF_MAP_CREATE")
    assert "(array)" in told[2]
    assert "BPF token" in told[2]
    for line in told[3:5]:  # the kernel takes no token for them
        assert line.startswith("PermissionDenied BPF_MAP_GET_")
        assert "user namespace" in line
        assert "pin" in line
        assert "token" not in line
    assert told[5].startswith("InvalidArgument BPF_TOKEN_CREATE on /tmp")
    assert "not the root of a bpffs" in told[5]
    assert told[6].startswith("PermissionDenied BPF_TOKEN_CREATE on /sys/fs/bpf")
    assert "user namespace" in told[6]
    assert told[7] == "False bytes [(%r, %r)]" % (
        bytes(ctypes.c_int32(5)),
        bytes(ctypes.c_int32(-5)),
    )
    if KERNEL >= (6, 15):
        assert told[8:12] == ["True %s [(5, -5)]" % ctypes.c_int32.__name__] * 4
        assert told[12].startswith("PermissionDenied BPF_BTF_GET_FD_BY_ID")
        assert "BPF token" in told[12]
        assert told[13].startswith("InvalidArgument BPF_BTF_GET_FD_BY_ID")
        assert "no BPF token" in told[13]
        assert told[14] == "NOT REFUSED 3"
    assert told[15:] == ["refused", "refused"], told


@kernel
def test_where_a_user_namespace_is_refused_the_tests_of_tokens_end(tokens, monkeypatch):
    monkeypatch.setitem(globals(), "in_namespaces_of_its_own", lambda: False)
    with pytest.raises(Exception, match="no user namespace"):
        in_user_namespace("")


@kernel
def test_a_bpffs_that_delegates_nothing_and_a_process_outside_say_so(tokens):
    source = """
        try:
            bpf.create_token(path)
        except bpf.SyscallError as error:
            print(type(error).__name__, error.errno, error.hint)
    """
    assert "delegates nothing" in in_user_namespace(source, cmds=0, map_types=0)
    with pytest.raises(bpf.NotSupported, match="tokens are for user namespaces"):
        bpf.create_token(BPFFS)
    assert "needs CAP_BPF" in as_nobody(source, path=BPFFS)
    assert main("--token", BPFFS, "probe")[0] == 1
    for path in (os.path.join(BPFFS, "none"), __file__):
        with pytest.raises(OSError):
            bpf.create_token(path)


# -- info


@kernel
def test_info_agrees_with_bpftool(flows):
    told = bpftool("map", "show", "id", flows.id)
    info = flows.info
    assert (
        info.id,
        bpf.map_type_name(info.type),
        info.name,
        info.map_flags,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.memlock,
        int(info.frozen),
    ) == (
        told["id"],
        told["type"],
        told["name"],
        told["flags"],
        told["bytes_key"],
        told["bytes_value"],
        told["max_entries"],
        told["bytes_memlock"],
        told["frozen"],
    )
    assert "name=%r" % FLOWS in repr(info) and info.btf_id == 0
    assert info.map_extra == (0 if KERNEL >= (5, 16) else None)
    flows.freeze()
    assert flows.info.frozen is True


@kernel
def test_info_of_shorter_kernels_is_none_not_zero(flows, kernel_is, monkeypatch):
    def knowing_64_bytes(number, cmd, ref, size):
        result = real_kernel(number, cmd, ref, size)
        ref._obj.info.info_len = min(ref._obj.info.info_len, 64)
        return result

    kernel_is(knowing_64_bytes)
    monkeypatch.setattr(bpf, "_read_text", lambda path: "")
    info = flows.info
    assert info.name == FLOWS and info.btf_id is None and info.map_extra is None
    assert info.frozen is None and info.memlock is None


@kernel
def test_what_info_says_is_a_dict_a_pickle_and_the_same_as_bpftools():
    with Map.create(ARRAY, u32, u64, 2, name="info") as m:
        info = m.info
        told = info._asdict()
        assert told["id"] == m.id and told["name"] == "info" and told["hash"] is None
        assert (info.ifindex, info.netns_dev, info.netns_ino) == (0, 0, 0)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            twin = pickle.loads(pickle.dumps(info, protocol))
            assert twin == info and hash(twin) == hash(info) and repr(twin) == repr(info)
        assert copy.copy(info) == info == m.info and info != told
        assert json.loads(json.dumps(told)) == told
        m[1] = 5
        m.freeze()
        assert m.info != info
        if KERNEL >= (6, 18):
            content = bytes(u64(0)) + bytes(u64(5))
            assert m.info.hash == hashlib.sha256(content).hexdigest()
    with Map.create(HASH, u32, u64, 2) as m:
        m.freeze()
        assert m.info.hash is None


# -- elements


@kernel
def test_every_form_of_lookup_finds_the_same(flows):
    key, value = Key(1, 2, 3, 4), Value(10, 20)
    flows[key] = value
    found = flows[key]
    assert type(found) is Value and bytes(found) == bytes(value)
    assert flows.lookup(key) is not found  # nobody else holds what a caller got
    found.packets = 99
    assert flows[key].packets == 10
    for same in (bytes(key), bytearray(bytes(key)), memoryview(bytes(key))):
        assert flows[same].packets == 10
        assert same in flows
        assert flows.lookup_bytes(same) == bytes(value)
    assert key in flows and Key(9) not in flows
    assert flows.get(key).bytes == 20 and flows.get(Key(9)) is None and flows.get(Key(9), 5) == 5
    out = Value(7, 7)
    assert flows.lookup_into(key, out) is True and out.bytes == 20
    assert flows.lookup_into(Key(9), out) is False and out.bytes == 20
    for out in (
        bytearray(16),
        memoryview(bytearray(16)),
        (u8 * 16)(),
        ctypes.create_string_buffer(16),
    ):
        assert flows.lookup_into(key, out) and bytes(out) == bytes(value)
    raw = Map.from_fd(flows, bytes, bytes)
    assert raw[bytes(key)] == bytes(value) and list(raw.items()) == [(bytes(key), bytes(value))]
    out = Value()
    # raw values fit any object of their size
    assert raw.lookup_into(bytes(key), out) and out.packets == 10
    assert list(flows.keys())[0].port == 2
    assert list(flows.values())[0].bytes == 20
    assert len(list(flows)) == 1


@kernel
@pytest.mark.parametrize(
    "out",
    [
        bytearray(15),
        bytearray(17),
        bytes(16),
        memoryview(bytes(16)),
        Key(),
        Natural(),
        None,
        "x" * 16,
        memoryview(bytearray(32))[::2],
        (u16 * 8)(),
        5,
        Value,
    ],
)
def test_lookup_into_refuses_what_does_not_fit(flows, out):
    flows[Key(1)] = Value(1, 1)
    with pytest.raises(
        bpf.LayoutError, match="out must be struct Value or a writable buffer of 16 bytes"
    ):
        flows.lookup_into(Key(1), out)


@kernel
def test_lookup_into_a_replaced_class_never_overruns():
    class Big(ctypes.Structure):
        _fields_ = [("a", u64 * 100)]

    class Small(ctypes.Structure):
        _fields_ = [("a", u8)]

    class Liar(Small):
        __class__ = Big

    m = Map.create(ARRAY, u32, Big)
    small = Small()
    with contextlib.suppress(TypeError):
        small.__class__ = Big
    for out in (small, Liar()):
        with pytest.raises(bpf.LayoutError):
            m.lookup_into(0, out)
        with pytest.raises(bpf.LayoutError):
            m[0] = out


@kernel
def test_scalars_go_in_and_come_out_as_numbers_of_their_range(numbers):
    numbers[1] = 1 << 63
    numbers[True] = 5
    assert numbers[1] == 5 and type(numbers[1]) is int
    numbers[u32(2)] = u64(6)
    assert numbers[b"\2\0\0\0" if sys.byteorder == "little" else b"\0\0\0\2"] == 6
    assert numbers.lookup(2) == 6
    assert numbers.get(2) == 6
    assert sorted(numbers.items()) == [(1, 5), (2, 6)]
    assert numbers.next_key() in (1, 2) and numbers.next_key(numbers.next_key()) in (1, 2)
    for key in (-1, 1 << 32, 1.0, "1", None, b"abc", u64(1), ctypes.c_int32(1), Key()):
        for action in (
            numbers.lookup,
            numbers.get,
            numbers.delete,
            numbers.lookup_bytes,
            lambda k: k in numbers,
            lambda k: numbers.update(k, 1),
            lambda k: numbers.lookup_into(k, u64()),
        ):
            with pytest.raises(bpf.LayoutError, match="key of map"):
                action(key)
        if key is not None:
            with pytest.raises(bpf.LayoutError):
                numbers.next_key(key)
    for value in (-1, 1 << 64, 1.5, "x", None, bytes(7), u32(1)):
        with pytest.raises(bpf.LayoutError, match="value of map"):
            numbers[1] = value
    for flags in (-1, 1 << 64, "1", 1.0):
        with pytest.raises(bpf.LayoutError, match="flags"):
            numbers.update(1, 1, flags)
    for flags in (-1, 1 << 64, "1"):
        with pytest.raises(bpf.LayoutError, match="flags"):
            numbers.lookup(1, flags)
    assert sorted(numbers.items()) == [(1, 5), (2, 6)]  # nothing of all that did anything


@kernel
@pytest.mark.parametrize(
    "ctype, numbers",
    [
        (ctypes.c_int8, [-128, 0, 127]),
        (ctypes.c_int64, [-1 << 63, -1]),
        (u16.__ctype_be__, [1, 0xFF00]),
        (ctypes.c_double, [0.5, -1e300]),
        (ctypes.c_bool, [True, False]),
        (type("Mine", (u32,), {}), [1, 2]),
        (u64, [0, (1 << 64) - 1]),
    ],
)
def test_every_kind_of_number_comes_back(ctype, numbers):
    with Map.create(HASH, ctype, ctype, 10) as m:
        for number in numbers:
            m[number] = number
        assert sorted(m.items()) == sorted((number, number) for number in numbers)
        for number in numbers:
            assert m[number] == number and type(m[number]) is type(number) and number in m
            if ctypes.sizeof(ctype) > 1 and ctype._type_ in "bhilqBHILQ":
                assert m.lookup_bytes(number) == bytes(ctype(number))
        assert m.get(numbers[0]) == numbers[0] and m.lookup_into(numbers[0], ctype())


@kernel
def test_slow_and_fast_keys_mix_on_one_map(numbers):
    """The prepared calls are shared by all operations: none may leave another one's pointer behind."""
    numbers[1], numbers[2] = 10, 20
    rng = random.Random(5)
    for _ in range(2000):
        key = rng.choice([1, 2])
        form = rng.choice([key, u32(key), bytes(u32(key)), True if key == 1 else key])
        action = rng.randrange(6)
        if action == 0:
            assert numbers.lookup(form) == 10 * key
        elif action == 1:
            out = u64()
            assert numbers.lookup_into(form, out) and out.value == 10 * key
        elif action == 2:
            assert numbers.get(form) == 10 * key and form in numbers and 3 not in numbers
        elif action == 3:
            numbers.update(form, 10 * key, rng.choice([bpf.BPF_ANY, bpf.BPF_EXIST]))
        elif action == 4:
            assert numbers.next_key(form) in (None, 1, 2) and numbers.next_key() in (1, 2)
        else:
            with pytest.raises(bpf.KeyNotFound):
                numbers.lookup(rng.randrange(3, 100))
        gc.collect(0)


@kernel
def test_char_arrays_that_come_out_are_keys_of_a_dict():
    text = ctypes.c_char * 16
    with Map.create(HASH, text, text, 8) as m:
        m["bash"], m["gr\u00fcn"] = "sh", b"x" * 16
        m[text(b"z", b"s", b"h")] = text(b"a")

        def raw(word):
            return word.encode("utf-8").ljust(16, b"\0")

        assert {bytes(key): bytes(value) for key, value in dict(m).items()} == {
            raw("bash"): raw("sh"),
            raw("gr\u00fcn"): b"x" * 16,
            raw("zsh"): raw("a"),
        }
        for entries in (dict(m), dict(m.items()), dict(zip(m.keys(), m.values()))):
            assert entries[raw("bash")] == m["bash"] == m[raw("bash")]
        first = next(iter(m))
        assert m[first] and first in m and first in set(m) and isinstance(first, text)
        assert first == text(*[bytes([byte]) for byte in bytes(first)])
        assert first != b""
        assert first != 1
        assert repr(m["bash"]) == "char[16](b'sh')" and m.next_key(first) != first
        m.lookup_into("bash", text())
        m.update(first, m[first])
        m.delete(first)
        assert first not in m and m.key_type is text
        assert m.update_batch(["a", b"b" * 16], ["c", "d"]) == 2 and m["a"] == raw("c")
        for wrong in ("seventeen letters", "\udc80", b"bash", 5, None, (ctypes.c_char * 15)()):
            with pytest.raises(bpf.LayoutError):
                m[wrong]
            with pytest.raises(bpf.LayoutError):
                m["bash"] = wrong
    with Map.create(HASH, u32, text, 8) as m:
        m[1] = m[2] = "one"
        assert set(m.values()) == {m[1]}
        assert KERNEL < (5, 14) or m.lookup_and_delete(1) == m[2]
    with Map.create(HASH, Key, u32, 1) as m, pytest.raises(bpf.LayoutError):
        m["bashbash"]


@kernel
def test_update_obeys_its_flags_and_delete_removes(numbers):
    numbers.update(1, 1, bpf.BPF_NOEXIST)
    with pytest.raises(bpf.KeyExists):
        numbers.update(1, 2, bpf.BPF_NOEXIST)
    numbers.update(1, 3, bpf.BPF_EXIST)
    with pytest.raises(bpf.KeyNotFound) as info:
        numbers.update(2, 3, bpf.BPF_EXIST)
    assert info.value.key == 2
    assert dict(numbers.items()) == {1: 3}
    del numbers[1]
    with pytest.raises(KeyError) as info:
        del numbers[1]
    assert info.value.key == 1 and str(info.value).startswith("BPF_MAP_DELETE_ELEM on map")


@kernel
def test_lookup_and_delete_takes_what_it_returns(numbers):
    with pytest.raises(bpf.NotSupported, match="array"):
        Map.create(ARRAY, u32, u32, 1).lookup_and_delete(0)
    numbers[1] = 5
    if KERNEL < (5, 14):
        with pytest.raises(bpf.NotSupported, match="hash"):
            numbers.lookup_and_delete(1)
        assert numbers[1] == 5
        since(5, 14)
    assert numbers.lookup_and_delete(1) == 5 and 1 not in numbers
    with pytest.raises(bpf.KeyNotFound) as info:
        numbers.lookup_and_delete(1)
    assert info.value.key == 1 and info.value.cmd == "BPF_MAP_LOOKUP_AND_DELETE_ELEM"
    numbers[2] = 6
    for key in ("x", -1):
        with pytest.raises(bpf.LayoutError):
            numbers.lookup_and_delete(key)
    assert numbers[2] == 6
    cpus = len(bpf.possible_cpus())
    with Map.create(PERCPU_HASH, u32, u64, 2) as m:
        m[1] = list(range(cpus))
        assert m.lookup_and_delete(1) == list(range(cpus)) and list(m) == []


@kernel
def test_an_lpm_trie_finds_the_longest_prefix_of_an_lpm_key():
    assert bpf.lpm_key("10.0.0.0/8") == (8).to_bytes(4, sys.byteorder) + bytes([10, 0, 0, 0])
    assert bpf.lpm_key("10.1.2.3") == (32).to_bytes(4, sys.byteorder) + bytes([10, 1, 2, 3])
    for text in (
        "",
        "10.0.0.0/33",
        "10.0.0/8",
        "::/129",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "x/8",
        "10.0.0.0/8/8",
    ):
        with pytest.raises(ValueError):
            bpf.lpm_key(text)
    with Map.create(LPM, bytes, u32, 10, key_size=8, flags=bpf.BPF_F_NO_PREALLOC) as m:
        m[bpf.lpm_key("10.0.0.0/8")], m[bpf.lpm_key("10.1.0.0/16")] = 8, 16
        assert m[bpf.lpm_key("10.1.2.3")] == 16 and m[bpf.lpm_key("10.2.0.0")] == 8
        assert bpf.lpm_key("11.0.0.0") not in m and m.exact_scan is False
        assert dict(m.items()) == {bpf.lpm_key("10.0.0.0/8"): 8, bpf.lpm_key("10.1.0.0/16"): 16}
        assert sum(len(keys) for keys, _ in m.lookup_batch()) == 2
    ipv6()
    assert bpf.lpm_key("2001:db8::/32") == (32).to_bytes(4, sys.byteorder) + bytes.fromhex(
        "20010db8"
    ) + bytes(12)


@kernel
def test_queues_stacks_and_bloom_filters_take_push_peek_and_pop():
    queue, stack = [
        Map.create(map_type, None, u64, 3) for map_type in (QUEUE, bpf.BPF_MAP_TYPE_STACK)
    ]
    for m, order in ((queue, [1, 2, 3]), (stack, [3, 2, 1])):
        for number in (1, 2, 3):
            m.push(number)
        with pytest.raises(bpf.MapFull):
            m.push(4)
        assert m.peek() == order[0] and [m.pop() for _ in range(3)] == order
        for action in (m.peek, m.pop):
            with pytest.raises(bpf.KeyNotFound, match="the map is empty"):
                action()
        m.push(1)
        for number in (2, 3, 4):
            m.push(number, bpf.BPF_EXIST)  # the oldest makes room
        assert sorted(m.pop() for _ in range(3)) == [2, 3, 4]
        for action in (
            lambda: 1 in m,
            lambda: m[1],
            lambda: m.update(1, 1),
            m.next_key,
            m.lookup_batch,
            m.keys,
        ):
            with pytest.raises(bpf.NotSupported, match="pushed, peeked at and popped"):
                action()
        for value in (-1, "x", bytes(7)):
            with pytest.raises(bpf.LayoutError):
                m.push(value)
    with Map.create(HASH, u32, u32, 1) as m:
        for action in (m.peek, m.pop, lambda: m.push(1)):
            with pytest.raises(bpf.NotSupported):
                action()
    bloom = created(bpf.BPF_MAP_TYPE_BLOOM_FILTER, None, Value, 100)
    bloom.push(Value(1, 2))
    assert Value(1, 2) in bloom and bytes(Value(1, 2)) in bloom and Value(2, 1) not in bloom
    for action in (bloom.peek, bloom.pop):
        with pytest.raises(bpf.NotSupported):
            action()


# -- closing: descriptors, threads, signals, memory


@kernel
def test_a_closed_map_says_so(flows):
    assert "hash '%s'" % FLOWS in repr(flows) and "struct Key (8 bytes)" in repr(flows)
    flows[Key(1)] = Value()
    flows[Key(1)]
    number = flows.fd
    flows.close()
    flows.close()
    assert "closed" in repr(flows)
    with pytest.raises(OSError):
        os.fstat(number)
    for action in (
        lambda: flows[Key(1)],
        lambda: flows.lookup_into(Key(1), Value()),
        lambda: flows.get(Key(1)),
        lambda: Key(1) in flows,
        lambda: flows.update(Key(1), Value()),
        lambda: flows.delete(Key(1)),
        flows.next_key,
        lambda: list(flows),
        flows.freeze,
        lambda: flows.pin("x"),
        lambda: flows.unpin("x"),
        lambda: flows.fd,
        flows.fileno,
        lambda: flows.info,
        flows.__enter__,
        lambda: flows.lookup(Key(1), bpf.BPF_F_LOCK),
    ):
        with pytest.raises(ValueError, match="closed"):
            action()


@kernel
def test_descriptors_are_closed_when_nothing_refers_to_them(numbers):
    before = open_fds()
    m = Map.from_fd(numbers)
    del m
    assert open_fds() == before
    with Map.from_fd(numbers, u32, u64) as m:
        kept = []
        for action in (
            lambda m: m[77],
            lambda m: m["x"],
            lambda m: m.lookup_into(77, bytes(8)),
            lambda m: m.delete(77),
            lambda m: m.update(1, 1, 99),
        ):
            try:
                action(m)
            except bpf.BPFError as error:
                kept.append(error)
    for opening in (
        lambda: Map.from_id(numbers.id, u64),
        lambda: Map.from_name(NUMS, u64),
        lambda: Map.from_fd(numbers, u64),
        lambda: Map.create(HASH, u32, u32, key_size=8),
        lambda: Map.from_fd(2),
        lambda: numbers.pin("/dev/null/x"),
    ):
        try:
            opening()
        except bpf.BPFError as error:
            kept.append(error)
    assert len(kept) == 11 and open_fds() == before  # errors that are kept do not keep it open
    for action in (
        lambda: Map.from_fd(numbers),
        lambda: Map.from_id(numbers.id),
        lambda: Map.create(HASH, u32, u32),
    ):
        with pytest.raises(BrokenPipeError), bpf.trace(mock.Mock(side_effect=BrokenPipeError)):
            action()
    assert open_fds() == before
    for twin in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            twin(numbers)
        with pytest.raises(TypeError):
            twin(numbers._fd)


@kernel
def test_a_want_of_memory_anywhere_leaks_nothing():
    testcapi = pytest.importorskip("_testcapi")
    if not hasattr(testcapi, "set_nomemory"):
        pytest.skip("this Python has no set_nomemory")  # 3.7
    status, out, err = python("""
        import _testcapi, bpflookup as bpf, ctypes, gc, os
        m = bpf.Map.create(bpf.BPF_MAP_TYPE_HASH, ctypes.c_uint32, ctypes.c_uint64, 8)
        m[1] = 2
        actions = [lambda: bpf.Map.from_fd(m), lambda: bpf.Map.create(bpf.BPF_MAP_TYPE_HASH, key_size=4, value_size=4),
                   lambda: m[1], lambda: m.update(1, 2), lambda: list(m.items()),
                   lambda: m.lookup_into(1, bytearray(8))]
        for action in actions:
            action()
            gc.collect()
            before = len(os.listdir("/proc/self/fd"))
            for number in range(300):
                _testcapi.set_nomemory(number, number + 1)
                try:
                    action()
                except Exception:
                    pass
                finally:
                    _testcapi.remove_mem_hooks()
            gc.collect()
            assert len(os.listdir("/proc/self/fd")) == before and m[1] == 2, action
    """)
    assert "__del__" not in err
    if status == -signal.SIGSEGV and sys.version_info >= (3, 12):
        # 3.12 and 3.13, reading /proc as text
        pytest.skip("this Python itself crashes for want of memory")
    assert (status, out) == (0, ""), err


@kernel
def test_interpreter_shutdown_with_open_maps_is_quiet():
    status, out, err = python("""
        import bpflookup as bpf, ctypes
        m = bpf.Map.create(bpf.BPF_MAP_TYPE_HASH, ctypes.c_uint32, ctypes.c_uint32, 3)
        m[1] = 2
        walk = iter(m)
        next(walk)
    """)
    assert (status, out, err) == (0, "", "")


@kernel
@pytest.mark.parametrize("map_type", [HASH, ARRAY, PERCPU_HASH])
def test_a_dropped_map_closes_its_descriptor_without_the_garbage_collector(map_type):
    bpf.possible_cpus()
    before = open_fds()
    gc.disable()
    try:
        m = Map.create(map_type, u32, u64, 4)
        m[1] = 2
        assert m[1] and 1 in m and list(m.items()) and m.get(77) is None
        del m
        assert sorted(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


@kernel
def test_a_failure_closes_what_was_opened_without_the_garbage_collector(numbers, bpffs, tmp_path):
    pin, file = bpffs + "/p", str(tmp_path / "c")
    numbers.pin(pin)
    bpf.capture(numbers, file)
    twin = Map.create(HASH, u32, u64, 4, name=NUMS)
    map_id, key = str(numbers.id), ["key", "1", "0", "0", "0"]
    calls = [
        lambda: Map.from_name(NUMS, u64),
        lambda: Map.from_id(numbers.id, u64),
        lambda: Map.from_pin(pin, u64),
        lambda: Map.from_fd(numbers, u64),
        lambda: Map.from_pin(pin, value=bpf.BTF),
        lambda: Map.create(HASH, u32, bpf.BTF, 4),
        lambda: Map.create(PERCPU_HASH, u32, u64, 4, key_size=8),
        lambda: bpf.capture(numbers, str(tmp_path / "none" / "c")),
        lambda: bpf.open_map("name " + NUMS),
        lambda: bpf.BTF.from_file(MODULE),
        lambda: bpf.Capture.load(MODULE),
    ]
    lines = [
        [command] + words + rest
        for command, rest in (
            ("show", []),
            ("dump", []),
            ("lookup", key),
            ("getnext", key),
            ("update", key + ["value", "x"]),
            ("delete", key),
            ("pin", [pin]),
            ("freeze", ["no"]),
            ("hist", []),
            ("watch", ["--count", "x"]),
            ("layout", []),
            ("save", [str(tmp_path / "none" / "c")]),
        )
        for words in (["id", map_id], ["name", NUMS], [pin], ["id", map_id, "--value-type", "u8"])
    ]
    lines += [["--from", file] + line for line in (["show"], ["dump"], ["lookup"] + key)]
    gc.collect()
    gc.disable()
    try:
        before = sorted(os.listdir("/proc/self/fd"))
        for call in calls:
            with contextlib.suppress(bpf.BPFError, OSError, ValueError):
                call()
            assert sorted(os.listdir("/proc/self/fd")) == before
        for line in lines:
            main(*line)
            assert sorted(os.listdir("/proc/self/fd")) == before, line
    finally:
        gc.enable()
        twin.close()


@kernel
def test_threads_share_a_map_without_a_lock():
    with Map.create(HASH, u32, Value, 256) as m:
        for key in range(256):
            m[key] = Value(key, ~key & 0xFFFF)
        wrong, stop = [], time.time() + 2
        # What is looked up is not written: the kernel puts an update into another element, and lets
        # the next one have the old, also while a CPU still copies it.

        def hammer(seed):
            rng, out = random.Random(seed), Value()
            while time.time() < stop:
                key = rng.randrange(0, 300, 2)
                found = m[key] if key < 256 and rng.random() < 0.5 else m.get(key)
                told = found and (found.packets, found.bytes)
                if told != ((key, ~key & 0xFFFF) if key < 256 else None):
                    wrong.append(key)
                if m.lookup_into(key, out) != (key < 256) or key < 256 and out.packets != key:
                    wrong.append(key)
                if key < 256:
                    m[key | 1] = Value(key | 1, ~key & 0xFFFE)

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        for key in range(256):
            assert (m[key].packets, m[key].bytes) == (key, ~key & 0xFFFF)


@kernel
def test_close_may_race_with_lookups():
    """Eight threads look up while the map is closed under them and its number is reused by other maps."""
    decoy = Map.create(HASH, u32, u64 * 64, 4)  # values would not fit into the buffers used
    decoy[1] = (u64 * 64)(*([666] * 64))
    stop, problems, finished = time.time() + 3, [], []
    current = []

    def fresh():
        m = Map.create(HASH, u32, u64, 4)
        m[1] = 42
        return m

    current.append(fresh())

    def reader():
        guarded = bytearray(b"\xa5" * 1024)
        out = memoryview(guarded)[512:520]
        count = 0
        while time.time() < stop:
            m = current[0]
            try:
                if m.lookup(1) != 42 or not m.lookup_into(1, out) or m.get(1) != 42 or 1 not in m:
                    problems.append("wrong answer")
                count += 1
            except ValueError as error:
                if "closed" not in str(error):
                    problems.append(error)
            except Exception as error:
                problems.append(error)
            if set(guarded[:512] + guarded[520:]) != {0xA5}:
                problems.append("a byte outside the buffer")
        finished.append(count)

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    while time.time() < stop:
        old, current[0] = current[0], fresh()
        old.close()
        squatters = [os.dup(decoy.fd) for _ in range(4)]  # take the number at once
        for fd in squatters:
            os.close(fd)
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]
    assert len(finished) == 8 and all(finished)


def element_calls(m, present, absent, value):
    """Yield what every element command answers, or the class and errno of its error."""
    out = type(value)()
    for action in (
        lambda: m[absent],
        lambda: m.lookup(present),
        lambda: m.get(absent),
        lambda: m.get(present),
        lambda: m.get(present, flags=bpf.BPF_F_LOCK),
        lambda: m.lookup_into(absent, out),
        lambda: m.lookup_into(present, bytearray(ctypes.sizeof(out))),
        lambda: absent in m,
        lambda: present in m,
        lambda: m.lookup_bytes(absent),
        lambda: m.lookup_and_delete(absent),
        lambda: m.delete(absent),
        lambda: m.update(present, value, bpf.BPF_NOEXIST),
        lambda: m.update(absent, value, bpf.BPF_EXIST),
        lambda: m.next_key(present),
        lambda: len(list(m.items())),
        lambda: m.delete_batch([absent]),
        lambda: m.update_batch([present], [value], bpf.BPF_NOEXIST),
        lambda: Map.from_id(0xFFFFFFFF),
        lambda: Map.from_pin("/sys/fs/bpf/no/such/pin"),
    ):
        try:
            found = action()
            yield bytes(found) if isinstance(found, ctypes.Structure) else found
        except bpf.SyscallError as error:
            yield type(error), error.errno, error.count


@kernel
@pytest.mark.parametrize("mode", ["r", "w", "rw"])
@pytest.mark.parametrize("key", [u32, Key])
def test_what_signal_handlers_do_changes_no_answer(key, mode):
    """Whether they fail in calls of another library, or use a map of this module's."""
    libc, other = ctypes.CDLL(None, use_errno=True), Map.create(HASH, u32, u32, 1)
    other[1] = 1
    with Map.create(HASH, key, Value, 4) as owner:
        present, absent = (1, 77) if key is u32 else (Key(1), Key(77))
        owner[present] = Value(2, 3)
        with Map.from_id(owner.id, key, Value, mode=mode) as m:

            def actions():
                return list(element_calls(m, present, absent, Value(2, 3)))

            wanted = actions()
            assert (
                bpf.PermissionDenied in [told[0] for told in wanted if type(told) is tuple]
            ) == (mode != "rw")

            def failing():
                assert libc.close(-1) == -1

            def reentrant():
                with pytest.raises(bpf.KeyExists):
                    other.update(1, 1, bpf.BPF_NOEXIST)

            assert with_handler(actions, failing) == wanted
            for call in (lambda: m.get(absent), lambda: m.update(absent, Value(), bpf.BPF_EXIST)):
                with contextlib.suppress(bpf.SyscallError):
                    assert with_handler(call, reentrant) is None
            assert actions() == wanted


@kernel
def test_an_exception_raised_by_a_signal_handler_leaks_no_descriptor(numbers, bpffs, request):
    pin = os.path.join(bpffs, "numbers")
    numbers.pin(pin)
    # No exception can be raised in finalizers; what comes after a map is open makes no descriptor.
    functions = set("__init__ _bpf _bpf_charged _in_one_step _libc_syscall_into _obj_cmd".split())
    functions |= set("_fd_by_id _opened from_id from_pin from_fd create maps read pins".split())
    functions |= set("records _event _ticking".split())
    ring = Map.create(bpf.BPF_MAP_TYPE_RINGBUF, max_entries=4096)
    request.addfinalizer(ring.close)
    for action in (
        lambda: Map.from_id(numbers.id).close(),
        lambda: Map.from_pin(pin).close(),
        lambda: Map.from_fd(numbers).close(),
        lambda: Map.create(HASH, u32, u32).close(),
        lambda: [info.id for info in itertools.islice(bpf.maps(), 1)],
        lambda: bpf.pins(bpffs),
        lambda: ring.records(peek=True).close(),
    ):
        before, struck, left = open_fds(), 0, [0]
        while True:
            left[0] = struck

            def strike():
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

            try:
                with_handler(action, strike, functions)
                break
            except KeyboardInterrupt:
                struck += 1 if struck < 60 else 4  # each step at first, then some
            if len(os.listdir("/proc/self/fd")) != len(before):
                assert open_fds() == before, struck
        assert struck > 30


@kernel
def test_fork_and_threads_leave_the_parent_alone(numbers):
    numbers[1] = 5
    pid = os.fork()
    if pid == 0:
        os._exit(0 if numbers[1] == 5 and numbers.close() is None else 1)
    assert os.waitpid(pid, 0)[1] == 0 and numbers[1] == 5


# -- a value for each CPU

PERCPU = [PERCPU_ARRAY, PERCPU_HASH, bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH]


@kernel
@pytest.mark.parametrize("size", list(range(1, 18)) + [31, 33, 100, 4095])
@pytest.mark.parametrize("map_type", PERCPU)
def test_percpu_lookup_stays_inside_its_buffer(map_type, size):
    cpus, stride = len(bpf.possible_cpus()), (size + 7) // 8 * 8
    with Map.create(map_type, u32, bytes, 2, value_size=size) as m:
        written = [
            bytes(random.Random(cpu).choice(range(1, 256)) for _ in range(size))
            for cpu in range(cpus)
        ]
        m[1] = written
        assert m[1] == written and m.get(1) == written
        guarded = bytearray(b"\xa5" * (stride * cpus + 8192))
        out = memoryview(guarded)[4096 : 4096 + stride * cpus]
        assert m.lookup_into(1, out)
        assert set(guarded[:4096] + guarded[4096 + len(out) :]) == {0xA5}
        padded = b"".join(value + bytes(stride - size) for value in written)
        assert bytes(out) == padded == m.lookup_bytes(1)
        slots = m.percpu_type()()
        assert m.lookup_into(1, slots)
        assert bytes(slots) == padded
        assert ctypes.sizeof(slots[0]) == stride
        m[1] = b"\7" * size
        assert m[1] == [b"\7" * size] * cpus  # one value for all
        m[0] = slots
        assert m[0] == written
        m[0] = bytes(padded)
        assert m[0] == written
        for wrong in (len(out) - 1, len(out) + 1, size if stride * cpus != size else 0):
            with pytest.raises(bpf.LayoutError):
                m.lookup_into(1, bytearray(wrong))
        for wrong in (written + written[:1], [], bytes(size + 1), 5, None, [1] * cpus):
            with pytest.raises(bpf.LayoutError):
                m[1] = wrong


@kernel
def test_values_of_all_cpus_are_a_list_of_structures_or_numbers():
    cpus = len(bpf.possible_cpus())
    with Map.create(PERCPU_ARRAY, u32, Odd, 1) as m:
        m[0] = [Odd(cpu, 1000 + cpu, 7) for cpu in range(cpus)]
        assert [(odd.a, odd.b, odd.c) for odd in m[0]] == [
            (cpu, 1000 + cpu, 7) for cpu in range(cpus)
        ]
        assert all(type(odd) is Odd for odd in m[0])
        slots = m.percpu_type()()
        assert m.lookup_into(0, slots) and slots[cpus - 1].value.b == 999 + cpus
    with Map.create(PERCPU_HASH, u32, u64, 1) as m:
        m[5] = list(range(cpus))
        assert m[5] == list(range(cpus))
        assert m.get(6) is None
        assert dict(m.items()) == {5: list(range(cpus))}
        m[5] = 9
        assert m[5] == [9] * cpus
        with pytest.raises(bpf.KeyNotFound):
            m[6]

    class Grows:
        def __init__(self, values):
            self.values = values

        def __index__(self):
            self.values.append(self)
            return 1

    values = []
    values += [Grows(values) for _ in range(cpus)]
    with Map.create(PERCPU_ARRAY, u32, u64, 1) as m:
        m[0] = values  # as many as there were, and no slot beyond
        assert m[0] == [1] * cpus
    with pytest.raises(bpf.NotSupported, match="no value per CPU"):
        Map.create(HASH, u32, u32, 1).percpu_type()


@kernel
@pytest.mark.parametrize("hint", ["0-1\n", "", "0\n", "0-63\n", "garbage"])
def test_values_of_all_cpus_are_found_without_the_right_to_count(hint, bpffs):
    """Nobody, with a pin only: the slots are counted by a lookup, whatever /sys says."""
    if bpf_is_for_the_privileged():
        lacking("a kernel that lets everybody use a pin")
    cpus = len(bpf.possible_cpus())
    os.chmod(bpffs, 0o755)
    with Map.create(PERCPU_HASH, u32, u64, 4) as m:
        m[1] = list(range(100, 100 + cpus))
        m.pin(os.path.join(bpffs, "m"))
        os.chmod(os.path.join(bpffs, "m"), 0o666)
        text = as_nobody(
            """
            real = bpf._read_text
            bpf._read_text = lambda path: hint if path.endswith("cpu/possible") else real(path)
            m = bpf.Map.from_pin(path, u32, u64, mode="rw")
            m[2] = 5                              # nothing is known yet: every slot the kernel may read is there
            assert m.get(3) is None and 3 not in m and not m.lookup_into(3, bytearray(8))
            try:
                m[3]
            except bpf.KeyNotFound:
                print(bpf._proven_cpus, m[1], m[2], bpf._proven_cpus)
        """,
            path=os.path.join(bpffs, "m"),
            hint=hint,
        )
        ids = tuple(range(cpus))
        assert text == "None %r %r %r\n" % (list(range(100, 100 + cpus)), [5] * cpus, ids)


@kernel
def test_scans_find_all_cpus_without_the_right_to_count(bpffs):
    if bpf_is_for_the_privileged():
        lacking("a kernel that lets everybody use a pin")
    cpus = len(bpf.possible_cpus())
    os.chmod(bpffs, 0o755)
    with Map.create(PERCPU_HASH, u32, u64, 4) as m:
        m.pin(os.path.join(bpffs, "m"))
        os.chmod(os.path.join(bpffs, "m"), 0o666)
        source = """
            real = bpf._read_text
            bpf._read_text = lambda path: "" if path.endswith("cpu/possible") else real(path)
            m = bpf.Map.from_pin(path, u32, u64, mode="rw")
            print(sorted(m.items()), sum(len(keys) for keys, _ in m.lookup_batch()), m.update_batch([], []))
        """
        assert as_nobody(source, path=os.path.join(bpffs, "m")) == "[] 0 0\n"
        m[1], m[2] = 5, 6
        assert as_nobody(source, path=os.path.join(bpffs, "m")) == "%r 2 0\n" % [
            (1, [5] * cpus),
            (2, [6] * cpus),
        ]


@kernel
def test_holes_in_the_cpu_mask_do_not_move_slots(monkeypatch):
    count = bpf._count_cpus_by_lru()
    fake_sys(monkeypatch, "0,%d-%d\n" % (5, 5 + count - 2) if count > 1 else "3\n")
    monkeypatch.setattr(bpf, "_proven_cpus", None)
    with Map.create(PERCPU_ARRAY, u32, u64, 1) as m:
        m[0] = list(range(count))
        assert m[0] == list(range(count))
        assert bpf.possible_cpus() == ((0,) + tuple(range(5, 4 + count)) if count > 1 else (3,))


@kernel
def test_one_cpus_values_in_batches(kernel_is):
    """As Linux 7.0 has it: packed, without padding."""
    with Map.create(PERCPU_HASH, u32, u8 * 5, 8) as m:

        def kernel(number, cmd, ref, size):
            batch = ref._obj.batch
            if cmd != bpf.BPF_MAP_LOOKUP_BATCH or not batch.count:
                return real_kernel(number, cmd, ref, size)
            assert batch.elem_flags == bpf.BPF_F_CPU | 1 << 32
            ctypes.memmove(batch.values, b"aaaaabbbbb", 10)
            ctypes.memmove(batch.keys, bytes((u32 * 2)(1, 2)), 8)
            batch.count = 2
            return -errno.ENOENT

        assert m.exact_scan
        kernel_is(kernel)
        flags = bpf.BPF_F_CPU | 1 << 32
        assert [(key, bytes(value)) for key, value in m.items(flags=flags)] == [
            (1, b"aaaaa"),
            (2, b"bbbbb"),
        ]


@kernel
@pytest.mark.parametrize("map_type", PERCPU)
@pytest.mark.parametrize("size", [1, 5, 8, 12])
def test_values_of_all_cpus_go_through_batches(map_type, size):
    cpus = len(bpf.possible_cpus())
    with Map.create(
        map_type, u32, bytes, 50 if map_type == PERCPU[0] else 2000, value_size=size
    ) as m:
        rows = {
            key: [bytes([key + 1, cpu + 1] * 8)[:size] for cpu in range(cpus)] for key in range(50)
        }
        assert m.update_batch(list(rows), list(rows.values())) == 50
        assert dict(m.items()) == rows and {key: m[key] for key in rows} == rows
        for keys, values in m.lookup_batch(7):
            assert values._type_ is m.percpu_type() and values._type_._type_.value.size == size
            for key, slots in zip(keys, values):
                assert [bytes(slot)[:size] for slot in slots] == rows[key]
        parts = [(keys[:], bytes(values)) for keys, values in m.lookup_batch(7)]
        for keys, values in parts:
            m.update_batch(keys, values)
        assert dict(m.items()) == rows
        if map_type != PERCPU_ARRAY:
            drained = {
                key: [bytes(slot)[:size] for slot in slots]
                for keys, values in m.lookup_and_delete_batch(7)
                for key, slots in zip(keys, values)
            }
            assert drained == rows and list(m) == []


# -- scans and walks


@kernel
def test_a_walk_that_never_ends_is_ended(monkeypatch, numbers):
    answers = iter(range(10**9))
    monkeypatch.setattr(numbers, "_has_batch", False)
    monkeypatch.setattr(Map, "_next", lambda self, key: u32(next(answers) % 7))
    with pytest.raises(bpf.IterationAborted):
        list(numbers)


@kernel
def test_a_walk_whose_last_key_vanishes_looks_once_more(kernel_is):
    """A cgroup storage's walk ends when its cursor has gone, wherever that stood; entries behind it are found."""
    with Map.create(HASH, u32, u64, 8) as m:
        m.update_batch([1, 2, 3], [1, 2, 3])
        m._has_batch, listed, gone = False, [1, 2, 3], []

        def kernel(number, cmd, ref, size):
            elem = ref._obj.elem
            reads = cmd == bpf.BPF_MAP_LOOKUP_ELEM
            if reads and not gone and u32.from_address(elem.key).value == 2:
                gone.append(listed.pop(1))  # before it is read
                attr = bpf.bpf_attr()
                attr.elem.map_fd, attr.elem.key = elem.map_fd, elem.key
                assert not real_kernel(number, bpf.BPF_MAP_DELETE_ELEM, ctypes.byref(attr), 16)
            if cmd != bpf.BPF_MAP_GET_NEXT_KEY:
                return real_kernel(number, cmd, ref, size)
            key = u32.from_address(elem.key).value if elem.key else None
            following = listed[0]
            if key is not None:
                # the key is asked for its successor before it is read, and ends the walk as one that has gone
                at = listed.index(key) + 1 if key in listed and key != 2 else len(listed)
                if at == len(listed):
                    return -errno.ENOENT
                following = listed[at]
            u32.from_address(elem.value).value = following
            return 0

        kernel_is(kernel)
        assert list(m.items()) == [(1, 1), (3, 3)] and gone == [2]


@kernel
def test_a_walk_that_fails_hands_out_the_entry_it_has(kernel_is):
    with Map.create(HASH, u32, u64, 8) as m:
        m.update_batch(range(4), range(4))
        m._has_batch, steps = False, []

        def kernel(number, cmd, ref, size):
            if cmd == bpf.BPF_MAP_GET_NEXT_KEY:
                steps.append(cmd)
                if len(steps) == 3:
                    return -errno.EPERM
            return real_kernel(number, cmd, ref, size)

        found = []
        kernel_is(kernel)
        with pytest.raises(bpf.PermissionDenied):
            for entry in m.items():
                found.append(entry)
        assert len(found) == 2 and all(key == value for key, value in found)


@kernel
@pytest.mark.parametrize("key_size", [1, 2, 3, 4, 5, 8, 260])
@pytest.mark.parametrize("map_type", [HASH, bpf.BPF_MAP_TYPE_LRU_HASH, PERCPU_HASH])
def test_scans_are_complete_for_every_key_size(map_type, key_size):
    count = 256 if key_size == 1 else 500
    with Map.create(map_type, bytes, u32, 1000, key_size=key_size) as m:
        expected = {}
        for number in range(count):
            key = number.to_bytes(min(key_size, 2), "little").ljust(key_size, b"x")
            m[key] = number
            expected[key] = (
                [number] * len(bpf.possible_cpus()) if map_type == PERCPU_HASH else number
            )
        assert m.exact_scan is True
        assert sorted(m) == sorted(m.keys()) == sorted(expected) and dict(m.items()) == expected
        assert sorted(m.values()) == sorted(expected.values())
        for size in (1, 2, 7, 64, 1000, 5000):  # one is too small for buckets where keys collide
            found = []
            for keys, values in m.lookup_batch(size):
                assert len(keys) == len(values) > 0
                found += [bytes(key) for key in keys]
            assert sorted(found) == sorted(expected)
        m._has_batch = False
        assert m.exact_scan is False
        assert dict(m.items()) == expected and sorted(m) == sorted(expected)
        assert sorted(bytes(key) for keys, _ in m.lookup_batch(7) for key in keys) == sorted(
            expected
        )


@kernel
@pytest.mark.parametrize("value_size", [1, 2, 3, 5, 8, 12, 4096, 65536])
@pytest.mark.parametrize("map_type", [HASH, ARRAY])
def test_scans_are_complete_for_every_value_size(map_type, value_size):
    with Map.create(map_type, u32, bytes, 20, value_size=value_size) as m:
        expected = {key: bytes([key + 1]) * value_size for key in range(20)}
        assert m.update_batch(list(expected), list(expected.values())) == 20
        assert dict(m.items()) == expected == {key: m[key] for key in range(20)}
        for keys, values in m.lookup_batch(3):
            for key, value in zip(keys, values):
                assert bytes(value) == expected[key]
            assert memoryview(values).nbytes == len(keys) * value_size


@once
@kernel
def test_scans_of_the_smallest_and_of_large_maps():
    for map_type in (HASH, ARRAY, bpf.BPF_MAP_TYPE_LRU_HASH, PERCPU_ARRAY):
        with Map.create(map_type, u32, u32, 1) as m:
            m[0] = 7
            for size in (None, 1, 2):
                assert [list(keys) for keys, _ in m.lookup_batch(size)] == [[0]]
            assert len(list(m.items())) == 1
    with Map.create(HASH, u32, u32, 5) as m:
        assert list(m) == list(m.lookup_batch()) == [] and m.exact_scan
    count = 1000000
    for map_type in (ARRAY, HASH):
        with Map.create(map_type, u32, u64, count) as m:
            assert (
                m.update_batch((u32 * count)(*range(count)), (u64 * count)(*range(1, count + 1)))
                == count
            )
            seen = bytearray(count)
            for key, value in m.items():
                assert value == key + 1 and not seen[key]
                seen[key] = 1
            assert all(seen)


@kernel
@pytest.mark.parametrize("has_batch", [None, False])
def test_a_scan_survives_the_deletion_of_what_it_hands_out(has_batch):
    with Map.create(HASH, u32, u32, 1000) as m:
        m.update_batch(list(range(1000)), list(range(1000)))
        m._has_batch = has_batch
        seen = []
        for key in m:
            seen.append(key)
            del m[key]
        assert sorted(seen) == list(range(1000)) and list(m) == []


@kernel
def test_index_maps_scan_what_is_there():
    inner = Map.create(ARRAY, u32, u32, 1)
    outer = Map.create(bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, max_entries=8, inner=inner)
    outer[3] = outer[5] = inner
    assert outer.exact_scan
    assert list(outer) == [3, 5]
    assert list(outer.items()) == [(3, inner.id), (5, inner.id)]
    parts = [(list(keys), list(values)) for keys, values in outer.lookup_batch(1)]
    assert parts == [([3], [inner.id]), ([5], [inner.id])]
    perf = Map.create(bpf.BPF_MAP_TYPE_PERF_EVENT_ARRAY, max_entries=2)
    for scan in (perf.keys, perf.items):
        with pytest.raises(bpf.NotSupported):
            list(scan())


@kernel
def test_flags_of_scans_and_batches_reach_the_kernel(kernel_is):
    with Map.create(HASH, u32, u64, 8) as m:
        m.update_batch([1, 2], [3, 4])
        seen, flags = [], bpf.BPF_F_LOCK

        def kernel(number, cmd, ref, size):
            name = bpf.cmd_name(cmd)
            if name.endswith("_BATCH"):
                seen.append((cmd, ref._obj.batch.elem_flags))
                ref._obj.batch.elem_flags = 0  # there is no lock in these values
            elif cmd == LOOKUP:
                address = ctypes.addressof(ref._obj)
                seen.append((cmd, ref._obj.elem.flags))
                u64.from_address(address + bpf.bpf_attr_elem.flags.offset).value = 0
            return real_kernel(number, cmd, ref, size)

        assert m.exact_scan
        kernel_is(kernel)
        assert sum(len(keys) for keys, _ in m.lookup_batch(flags=flags)) == 2
        assert dict(m.items(flags=flags)) == dict(m.items(flags)) == {1: 3, 2: 4}
        assert sorted(m.values(flags=flags)) == [3, 4]
        assert sum(len(keys) for keys, _ in m.lookup_and_delete_batch(None, flags)) == 2
        assert {told for _, told in seen} == {flags} and len(seen) >= 5
        del seen[:]
        m._has_batch = False
        m[1] = 5
        assert list(m.items(flags=flags)) == [(1, 5)] and (LOOKUP, flags) in seen
        assert [list(values) for _, values in m.lookup_batch(flags=flags)] == [[5]]
        for action in (m.items, m.values, m.lookup_batch, m.lookup_and_delete_batch):
            with pytest.raises(bpf.LayoutError):
                action(flags="x")
    kernel_is(real_kernel)
    with Map.create(HASH, u32, u64, 8) as m, pytest.raises(bpf.SyscallError):
        list(m.items(flags=bpf.BPF_F_LOCK))


class FakeBatches:
    """Answers LOOKUP_BATCH like a kernel with these answers: (errno, keys, cursor)."""

    def __init__(self, answers):
        self.answers, self.rooms = list(answers), []

    def __call__(self, number, cmd, ref, size):
        assert cmd == bpf.BPF_MAP_LOOKUP_BATCH
        batch = ref._obj.batch
        self.rooms.append(batch.count)
        code, keys, cursor = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if keys is not None:
            assert len(keys) <= batch.count
            (u32 * len(keys)).from_address(batch.keys)[:] = keys
            (u64 * len(keys)).from_address(batch.values)[:] = keys
            batch.count = len(keys)
        if cursor is not None:
            u32.from_address(batch.out_batch).value = cursor
        return -code


@kernel
@pytest.mark.parametrize(
    "answers, keys, error",
    [
        # a short count is no end
        ([(0, [1, 2], 5), (0, [3], 6), (errno.ENOENT, [4], 7)], [1, 2, 3, 4], None),
        ([(0, [], 5), (errno.ENOENT, [1], 7)], [1], None),
        ([(errno.ENOENT, [], None)], [], None),
        ([(errno.EINTR, [1], 5), (errno.EINTR, [], None), (errno.ENOENT, [2], 7)], [1, 2], None),
        ([(errno.ENOSPC, [], None), (errno.ENOENT, [1, 2, 3], 7)], [1, 2, 3], None),
        ([(errno.ENOSPC, [], None)], [], "IterationAborted"),  # for ever
        ([(errno.EINTR, [], None)], [], "IterationAborted"),
        ([(errno.EINTR, None, None)], [], "IterationAborted"),  # the count untouched
        ([(errno.EAGAIN, None, None)], [], "IterationAborted"),
        ([(0, [], 5)], [], "IterationAborted"),
        ([(0, [1], 5), (errno.EPERM, None, None)], [1], "PermissionDenied"),
        ([(0, [1], 5), (errno.EFAULT, [2], 6)], [1, 2], "BadAddress"),
        ([(errno.ENOMEM, None, None)], [], "OutOfMemory"),
    ],
)
def test_answers_that_the_real_kernel_will_not_give(kernel_is, numbers, answers, keys, error):
    assert numbers.exact_scan
    fake = FakeBatches(answers)
    kernel_is(fake)
    found = []

    def scan():
        for part, values in numbers.lookup_batch(2):
            assert list(part) == list(values)
            found.extend(part)

    if error:
        with pytest.raises(getattr(bpf, error)):
            scan()
    else:
        scan()
    assert found == keys and fake.rooms[0] == 2 and max(fake.rooms) <= 4  # max_entries of the map


# -- scans beside a writer


def churn(path, stop_after, writer):
    """In a child: write to the pinned map until the parent says stop, which it does by closing the pipe."""
    m = Map.from_pin(path, u32, u64, mode="rw")
    rng = random.Random(1)
    end = time.time() + stop_after
    while time.time() < end:
        for _ in range(100):
            writer(m, rng)


def write_stable_and_other_keys(m, rng):
    """Write one of 1,000 keys that stay, and one of others that come and go."""
    key = rng.randrange(1000)
    m[key] = key
    other = rng.randrange(5000, 8000)
    if rng.random() < 0.5:
        m[other] = other
    else:
        with contextlib.suppress(bpf.KeyNotFound):
            del m[other]


@kernel
def test_a_trie_whose_cursor_was_deleted_hands_out_each_entry_once(monkeypatch):
    """The kernel begins anew then: a batch repeats what earlier ones brought."""
    since(5, 13)  # batches of tries
    with Map.create(LPM, None, u32, 8, key_size=8, flags=bpf.BPF_F_NO_PREALLOC) as m:
        for number in range(6):
            m[native(32, 4) + bytes([10, 0, 0, number])] = number
        ((keys, values),) = m.lookup_batch()
        batches = [
            (bpf._picked(keys, places), bpf._picked(values, places))
            for places in ([0, 1], [0, 1, 2], [1, 0, 2], [3, 2, 4], [5])
        ]

        class Repeating:
            def __init__(self, *_):
                self._thread = 1

            def __iter__(self):
                return iter(batches)

        entries = list(m.items())
        monkeypatch.setattr(bpf, "_BatchScan", Repeating)
        assert list(m.items()) == entries and len(entries) == 6
        assert [list(values) for _, values in m.lookup_batch(2)] == [
            [values[at] for at in places] for places in ([0, 1], [2], [3, 4], [5])
        ]


@once
@kernel
@pytest.mark.parametrize("map_type", [HASH, bpf.BPF_MAP_TYPE_LRU_HASH, PERCPU_HASH])
def test_two_thousand_scans_against_a_writer_miss_and_repeat_nothing(map_type, bpffs):
    path = os.path.join(bpffs, "m")
    with Map.create(map_type, u32, u64, 8192) as m:
        m.pin(path)
        for key in range(1000):
            m[key] = key
        writer = in_child(churn, path, 600, write_stable_and_other_keys)
        try:
            stable = set(range(1000))
            for turn in range(2000):
                found = []
                for keys, _ in m.lookup_batch([None, 64, 300][turn % 3]):
                    found += keys[:]
                distinct = set(found)
                assert len(found) == len(distinct) and stable <= distinct
            for _ in range(20):
                found = list(m)
                assert len(found) == len(set(found)) and stable <= set(found)
            assert os.waitpid(writer, os.WNOHANG) == (0, 0)  # it was at it all the time
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)


@kernel
def test_a_walk_against_a_writer_repeats_nothing_and_ends(bpffs):
    path = os.path.join(bpffs, "m")
    with Map.create(HASH, u32, u64, 8192) as m:
        m.pin(path)
        m.update_batch(list(range(1000)), list(range(1000)))
        m._has_batch = False
        writer = in_child(churn, path, 600, write_stable_and_other_keys)
        try:
            for _ in range(20):
                found = list(m)
                assert len(found) == len(set(found))
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)


@kernel
def test_a_drain_against_an_inserter_loses_and_repeats_nothing(bpffs):
    path, count = os.path.join(bpffs, "m"), 60000
    with Map.create(HASH, u32, u64, 4096) as m:
        m.pin(path)

        def insert():
            pinned = Map.from_pin(path, u32, u64, mode="rw")
            for key in range(count):
                while True:
                    try:
                        pinned.update(key, key, bpf.BPF_NOEXIST)
                        break
                    except bpf.MapFull:
                        time.sleep(0.001)

        child, seen, alive = in_child(insert), bytearray(count), True
        while alive or next(iter(m), None) is not None:
            alive = alive and os.waitpid(child, os.WNOHANG) == (0, 0)
            for keys, values in m.lookup_and_delete_batch(500):
                for key, value in zip(keys, values):
                    assert key == value and not seen[key]
                    seen[key] = 1
        assert all(seen)


# -- batches


@kernel
def test_a_drain_interrupted_anywhere_still_hands_over_everything():
    """KeyboardInterrupt at every line that a drain executes, one run each."""
    codes = {
        bpf._BatchScan.__next__.__code__,
        bpf._BatchScan._step.__code__,
        bpf.Map._live.__code__,
    }
    strike, struck = 0, True
    while struck:
        strike += 1
        struck = False
        with Map.create(HASH, u32, u64, 64) as m:
            m.update_batch(list(range(40)), list(range(40)))
            drain, found, line = m.lookup_and_delete_batch(16), [], [0]

            def tracer(frame, event, _):
                if frame.f_code not in codes:
                    return None
                if event == "line":
                    line[0] += 1
                    if line[0] == strike:
                        raise KeyboardInterrupt
                return tracer

            while True:
                before = sys.gettrace()  # a debugger's, or that of coverage
                sys.settrace(tracer)
                try:
                    keys, values = next(drain)
                    sys.settrace(before)
                except KeyboardInterrupt:
                    sys.settrace(before)
                    struck = True
                    continue
                except StopIteration:
                    sys.settrace(before)
                    break
                found += list(zip(keys, values))
            assert sorted(found) == [(key, key) for key in range(40)] and list(m) == []
    assert strike > 50


@kernel
def test_a_drain_that_fails_midway_hands_over_what_was_removed(kernel_is):
    with Map.create(HASH, u32, u64, 64) as m:
        m.update_batch(list(range(40)), list(range(40)))
        calls, found = [0], []

        def failing(number, cmd, ref, size):
            result = real_kernel(number, cmd, ref, size)
            if cmd == bpf.BPF_MAP_LOOKUP_AND_DELETE_BATCH:
                calls[0] += 1
                if calls[0] == 2:  # done, but reported as an error
                    return -errno.EFAULT
            return result

        kernel_is(failing)
        with pytest.raises(bpf.BadAddress):
            for keys, values in m.lookup_and_delete_batch(16):
                found += list(keys)
        left = list(m)
        assert sorted(found + left) == list(range(40)) and len(found) > 16


@kernel
def test_a_part_that_was_handed_out_stays_as_it_is():
    with Map.create(HASH, u32, u64, 64) as m:
        m.update_batch(range(40), range(40))
        drain = m.lookup_and_delete_batch(16)
        assert drain.last is None
        kept = []
        for keys, values in drain:
            assert drain.last[0] is keys and drain.last[1] is values
            kept.append((keys, list(keys)))
        assert len(kept) > 2 and all(list(keys) == then for keys, then in kept)
        with pytest.raises(StopIteration):
            next(drain)


@kernel
def test_an_iterator_over_batches_belongs_to_one_thread():
    with Map.create(HASH, u32, u64, 64) as m:
        m.update_batch(range(40), range(40))
        parts, seen, items = m.lookup_batch(8), [], m.items()
        next(parts)
        first = next(items)

        def elsewhere():
            # a generator may move on
            assert sorted([first] + list(items)) == [(key, key) for key in range(40)]
            with pytest.raises(ValueError, match="belongs to the thread"):
                next(parts)
            seen.append(1)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen and next(parts)


@kernel
def test_arrays_that_lie_about_their_length_are_taken_by_their_bytes():
    class Liar(u32 * 4):
        def __len__(self):
            return 2000

    liar = Liar(1, 2, 3, 4)
    with Map.create(HASH, u32, u32, 5000) as m:
        assert m.update_batch(liar, liar) == 4 and dict(m.items()) == {1: 1, 2: 2, 3: 3, 4: 4}
        assert m.delete_batch(liar) == 4


@kernel
def test_batches_are_arrays_that_everything_reads_as_they_are():
    with Map.create(HASH, u32, Value, 100) as m:
        assert m.update_batch(list(range(100)), [Value(key, 2 * key) for key in range(100)]) == 100
        for keys, values in m.lookup_batch():
            assert isinstance(keys, ctypes.Array) and keys._type_ is u32 and values._type_ is Value
            assert values[0].bytes == 2 * values[0].packets
            unpacked = list(struct.iter_unpack("=QQ", memoryview(values).cast("B")))
            assert unpacked == [(key, 2 * key) for key in keys]
            assert bytes(keys) == bytes(memoryview(keys))


@kernel
def test_what_update_batch_and_delete_batch_take():
    with Map.create(HASH, u32, u64, 10) as m:
        raw = b"".join(bytes(u32(key)) for key in (1, 2))
        for keys in (
            (u32 * 2)(1, 2),
            [1, 2],
            (1, 2),
            raw,
            bytearray(raw),
            memoryview(raw),
            range(1, 3),
            iter([1, 2]),
        ):
            assert m.update_batch(keys, [5, 6]) == 2 and sorted(m.items()) == [(1, 5), (2, 6)]
        assert m.delete_batch(raw) == 2
        assert list(m) == []
        assert m.update_batch([], []) == m.delete_batch([]) == 0
        for keys, values in (
            ([1], [1, 2]),
            ([1, -1], [1, 1]),
            ([1, "x"], [1, 1]),
            ([1], [1 << 64]),
            (b"abc", [1]),
            ((u64 * 1)(), [1]),
            ([1], (u32 * 2)()),
            ("ab", [1]),
            (5, [1]),
            (None, [1]),
            ([None], [1]),
        ):
            with pytest.raises((bpf.LayoutError, TypeError)):
                m.update_batch(keys, values)
        assert list(m) == []  # nothing of a bad call is stored
    with Map.create(HASH, Key, Value, 10) as m:
        assert m.update_batch([Key(1), bytes(Key(2))], [Value(1), bytes(Value(2))]) == 2
        assert m[Key(2)].packets == 2


@kernel
@pytest.mark.parametrize("has_batch", [True, False])
def test_batches_that_fail_midway_tell_how_far_they_came(kernel_is, has_batch):
    if not has_batch:

        def without(number, cmd, ref, size):
            if bpf.cmd_name(cmd).endswith("_BATCH"):
                return -errno.EINVAL
            return real_kernel(number, cmd, ref, size)

        kernel_is(without)
    with Map.create(HASH, u32, u64, 4) as m:
        with pytest.raises(bpf.MapFull) as info:
            m.update_batch(range(8), range(8))
        assert info.value.count == 4 and sorted(m) == [0, 1, 2, 3]
        with pytest.raises(bpf.KeyNotFound) as info:
            m.delete_batch([0, 9, 1])
        assert info.value.count == 1 and info.value.key == 9 and sorted(m) == [1, 2, 3]
        assert m.delete_batch([1, 2, 3]) == 3
        assert m.update_batch([1, 2], [1, 2], bpf.BPF_NOEXIST) == 2
        with pytest.raises(bpf.KeyExists) as info:
            m.update_batch([3, 1], [3, 3], bpf.BPF_NOEXIST)
        assert info.value.count == 1 and dict(m.items()) == {1: 1, 2: 2, 3: 3}
    with Map.create(HASH, u32, u64, 4, flags=bpf.BPF_F_RDONLY) as m:
        with pytest.raises(bpf.PermissionDenied) as info:
            m.update_batch([1], [1])
        assert info.value.count == 0
    with Map.create(ARRAY, u32, u64, 4) as m:
        with pytest.raises(bpf.KeyOutOfRange) as info:
            m.update_batch([0, 3, 4], [1, 2, 3])
        assert info.value.count == 2 and list(m.values()) == [1, 0, 0, 2]
        with pytest.raises(bpf.NotSupported):
            m.delete_batch([0])
        with pytest.raises(bpf.NotSupported):
            list(m.lookup_and_delete_batch())


# -- numpy, pandas, pyarrow

DATA_TYPES = [
    "u32",
    "__be16",
    "char[6]",
    "double",
    "struct { u8 a; u64 b; char name[14]; __be16 port; }",
    "struct { u32 hits[3]; struct { s16 x, y; } p[2]; bool yes; float f; }",
    "struct { union { u32 ip4; u8 ip6[16]; }; enum { A, B } e; s8 low; }",
    "struct { u32 a:3, b:29; u64 whole; u128 wide; u8 last; } __attribute__((packed))",
    "struct { u8 grid[2][3]; char names[2][4]; }",
]


def data_maps():
    """Yield maps of seven types with the same 50 entries, whose values have no array and no bitfield."""
    text = "struct { u64 bytes; s32 low; u16 port; char comm[6]; double load; u8 kind; }"
    value = bpf.layout(text)
    entries = [
        value.pack(
            dict(bytes=2**60 + at, low=-at, port=at, comm="c%d" % at, load=at / 3, kind=at % 2)
        )
        for at in range(50)
    ]
    types = HASH, ARRAY, bpf.BPF_MAP_TYPE_LRU_HASH
    types += PERCPU_HASH, PERCPU_ARRAY
    types += bpf.BPF_MAP_TYPE_LRU_PERCPU_HASH, LPM
    for map_type in types:
        is_lpm = map_type == LPM
        room = 5000 if "lru" in bpf.map_type_name(map_type) else 50
        flags = bpf.BPF_F_NO_PREALLOC if is_lpm else 0
        with Map.create(
            map_type,
            key_size=8 if is_lpm else 4,
            value_size=value.size,
            max_entries=room,
            flags=flags,
        ) as made:
            for at, raw in enumerate(entries):
                key = struct.pack("=I", 32) + struct.pack(">I", at) if is_lpm else bytes(u32(at))
                is_percpu = "percpu" in bpf.map_type_name(map_type)
                made[key] = [raw] * len(bpf.possible_cpus()) if is_percpu else raw
            yield made, value, text


@pytest.mark.parametrize("text", DATA_TYPES)
def test_numpy_reads_what_plain_python_says(text):
    numpy = pytest.importorskip("numpy")
    found, rng = bpf.layout(text), random.Random(text)

    def alike(ours, theirs):
        if isinstance(ours, dict):
            names = list(theirs.dtype.names)
            assert [name for name in ours if name in names] == names
            assert set(ours) - set(names) <= {"a", "b", "wide"}  # bits, and 128 of them
            return all(alike(ours[name], theirs[name]) for name in names)
        if isinstance(ours, list):
            return len(ours) == len(theirs) and all(map(alike, ours, theirs))
        if isinstance(ours, str):
            known = {"A": 0, "B": 1}.get(ours)
            return theirs.decode() == ours if isinstance(theirs, bytes) else theirs == known
        return theirs == ours

    raws = []
    for _ in range(20):
        raw = bytes(rng.choice((0, 1, 65, 66)) for _ in range(found.size))
        if "char" in text:  # NumPy shows what stands behind a NUL, too
            raw = found.pack(found.reader("plain").one(raw))
        if "enum" in text:
            raw = raw[:16] + struct.pack("=I", rng.randrange(2)) + raw[20:]
        raws.append(raw)
    array = numpy.frombuffer(b"".join(raws), dtype=numpy.dtype(found.dtype()))
    assert len(array) == 20 and array.itemsize == found.size
    for raw, row in zip(raws, array):
        assert alike(found.reader("plain").one(raw), row), (raw, row)


@pytest.mark.parametrize("text", DATA_TYPES + ["struct { u64 *at; enum { A, B } e[2]; u8 ok:1; }"])
def test_columns_are_what_plain_python_says_leaf_by_leaf(text):
    found, rng = bpf.layout(text), random.Random(text)

    def leaves(plain, path):
        if isinstance(plain, dict):
            pairs = [(path + "." + name if path else name, one) for name, one in plain.items()]
        elif isinstance(plain, list):
            pairs = [("%s[%d]" % (path or "value", at), one) for at, one in enumerate(plain)]
        else:
            return [(path or "value", plain)]
        return [leaf for name, one in pairs for leaf in leaves(one, name)]

    raws = [bytes(rng.choice((0, 1, 65, 66)) for _ in range(found.size)) for _ in range(9)]
    wanted = [dict(leaves(found.reader("plain").one(raw), "")) for raw in raws]
    columns = found.columns(b"".join(raws))
    assert columns == {name: [row[name] for row in wanted] for name in wanted[0]}
    assert list(columns) == list(wanted[0])
    for column in columns.values():
        assert len(set(map(type, column))) == 1
    apart = [raw.ljust(found.size + 3, b"x") for raw in raws]
    assert found.columns(b"".join(apart), found.size + 3) == columns
    assert found.columns(b"") == {name: [] for name in columns}
    with pytest.raises(bpf.LayoutError):
        found.columns(b"x" * (found.size + 1))
    with pytest.raises(bpf.LayoutError):
        found.dtype(found.size - 1)


@pytest.mark.parametrize("text", DATA_TYPES)
def test_numpy_reads_values_that_lie_apart(text):
    numpy = pytest.importorskip("numpy")
    found = bpf.layout(text)
    stride = bpf.percpu_stride(found.size) + 8
    raws = [bytes([65 + at]) * found.size for at in range(3)]
    apart = b"".join(raw.ljust(stride, b"x") for raw in raws)
    array = numpy.frombuffer(apart, dtype=found.dtype(stride))
    close = numpy.frombuffer(b"".join(raws), dtype=found.dtype())
    for name in array.dtype.names:
        wanted = close[name] if close.dtype.names else close
        assert array[name].tolist() == wanted.tolist()


def test_columns_of_unions_that_differ_are_refused():
    class Either(ctypes.Union):
        _fields_ = [("a", u32), ("b", u32)]

    class Tagged(ctypes.Structure):
        _fields_ = [("kind", u32), ("u", Either)]
        _union_ = {"u": ("kind", {0: "a", 1: "b"})}

    with pytest.raises(bpf.LayoutError, match="unions"):
        bpf.layout(Tagged).columns(bytes(16))


@kernel
def test_numpy_reads_batches_and_mappings_in_place():
    numpy = pytest.importorskip("numpy")
    with Map.create(HASH, u32, Value, 100) as m:
        m.update_batch(list(range(100)), [Value(key, 2 * key) for key in range(100)])
        keys, values = next(m.lookup_batch())
        found = numpy.frombuffer(values, dtype=[("packets", "u8"), ("bytes", "u8")])
        assert numpy.ctypeslib.as_array(keys).sum() == 4950 and found["bytes"].sum() == 9900
        wanted = numpy.arange(10, dtype="u4")
        assert m.delete_batch(wanted) == 10 and 9 not in m and 10 in m
    with pages(u64, 4) as m, m.mmap() as mapped:
        array = numpy.frombuffer(mapped.view, dtype="u8")
        m[2] = 7
        assert list(array) == [0, 0, 7, 0] and not array.flags.writeable
        del array


@kernel
def test_numpy_pandas_and_pyarrow_take_batches_of_any_map():
    numpy = pytest.importorskip("numpy")
    pandas, pyarrow = [pytest.importorskip(name) for name in ("pandas", "pyarrow")]
    types = 0
    for made, value, _ in data_maps():
        with Map.from_fd(made, None, value.ctype()) as m:
            layout, cpus = m.value_layout, 1
            stride = None
            if "percpu" in bpf.map_type_name(m.type):
                stride, cpus = bpf.percpu_stride(m.value_size), len(bpf.possible_cpus())
            arrays = [
                numpy.frombuffer(values, layout.dtype(stride)).copy()
                for _, values in m.lookup_batch()
            ]
            array = numpy.concatenate(arrays)
            assert array.dtype.names == ("bytes", "low", "port", "comm", "load", "kind")
            array = array[array["comm"] != b""]  # LRU arrays have none else
            assert len(array) == 50 * cpus and array["comm"].dtype == "S6"
            frames = (
                pandas.DataFrame(array),
                pandas.concat(
                    pandas.DataFrame(layout.columns(values, stride))
                    for _, values in m.lookup_batch()
                ),
            )
            table = pyarrow.table({name: array[name] for name in array.dtype.names})
            again = pyarrow.table(
                layout.columns(b"".join(bytes(values) for _, values in m.lookup_batch()), stride)
            )
            for found in frames + (table.to_pandas(), again.to_pandas()):
                assert len(found) == 50 * cpus
                assert (
                    int(found["bytes"].sum()) == sum(2**60 + at for at in range(50)) * cpus % 2**64
                )
                assert found["low"].min() == -49 and found["port"].max() == 49
                assert len(set(found["comm"])) == 50
                assert found["load"].sum() == pytest.approx(sum(range(50)) / 3 * cpus)
            types += 1
    assert types == 7


@kernel
def test_what_the_readme_says_of_pandas():
    pandas = pytest.importorskip("pandas")
    made = {"pandas": pandas, "numpy": pytest.importorskip("numpy")}
    with open(os.path.join(HERE, "README.md")) as file:
        blocks = re.findall(r"^```\n((?:batches|columns) = .*?)^```", file.read(), re.M | re.S)
    assert len(blocks) == 2
    with Map.create(HASH, u32, Value, 20000) as m:
        m.update_batch(list(range(20000)), [Value(key, 2 * key) for key in range(20000)])
        made["m"] = m
        exec(blocks[0], made)
        assert len(made["frame"]) == 20000 and made["frame"]["bytes"].sum() == 19999 * 20000
        exec(blocks[1], made)
    frame = made["frame"]
    assert len(frame) == 20000 and (2 * frame["key"]["value"] == frame["value"]["bytes"]).all()


@kernel
def test_json_lines_keep_a_type_a_column_in_pandas_pyarrow_and_jq(tmp_path):
    for made, value, text in data_maps():
        key = "u32" if made.key_size == 4 else "struct { u32 bits; __be32 addr; }"
        types = ["--key-type", key, "--value-type", text]
        words = types + ["--ndjson", "dump", "id", made.id]
        out = done(*words)
        (tmp_path / "lines").write_text(out)
        one = "values[].value" if "percpu" in bpf.map_type_name(made.type) else "value"
        query = '[.[]|.%s|[.[]|type]|join(" ")]|unique[]' % one
        status, told, err = run(program("jq"), "-s", "-r", query, tmp_path / "lines")
        assert status == 0, err
        assert set(told.split("\n")) == {"number number number string number number", ""}, err
        exact = ".%s.bytes" % one
        out = done("--big-ints-as-strings", *words)
        (tmp_path / "lines").write_text(out)
        status, told, err = run(program("jq"), "-r", exact, tmp_path / "lines")
        assert sorted(set(map(int, told.split()))) == [2**60 + at for at in range(50)], err
        pandas = pytest.importorskip("pandas")
        reader = pytest.importorskip("pyarrow.json")
        table = reader.read_json(str(tmp_path / "lines"))
        assert table.num_rows == 50
        assert len(pandas.read_json(str(tmp_path / "lines"), lines=True)) == 50


@kernel
def test_big_ints_are_strings_by_their_type_and_only_where_asked(pins):
    text = (
        "struct { u64 a; s64 b; u32 c; u64 d[2]; u64 bits:54, few:10; enum { A, B } e; void *p; }"
    )
    found = bpf.layout(text)
    with Map.create(HASH, key_size=8, value_size=found.size, max_entries=2) as m:
        m[bytes(u64(2**63))] = bytes(found.size)
        m[bytes(u64(5))] = b"\xff" * found.size
        types = ["--key-type", "u64", "--value-type", text, "--ndjson", "dump", m.id]
        plain = {line["key"]: line["value"] for line in map(json.loads, done(*types).splitlines())}
        strings = [json.loads(line) for line in done("--big-ints-as-strings", *types).splitlines()]
        for line in strings:
            assert isinstance(line["key"], str)
            told, wanted = line["value"], dict(plain[int(line["key"])])
            for name in ("a", "b", "bits"):
                wanted[name] = str(wanted[name])
            wanted["d"] = [str(one) for one in wanted["d"]]
            assert told == wanted
    named = bpf.Enum(8, "enum big", {1: "ONE"})
    told = [named.reader("bpftool strings").one(bytes(u64(one))) for one in (1, 2**60)]
    assert told == ['"ONE"', '"%d"' % 2**60]
    for name in ("w_hash", "w_pc_hash", "w_lpm", "w_bss", "w_pairs"):
        words = ["dump", "pinned", os.path.join(pins, name)]
        entries = equal_json(*words)  # bpftool's, unless asked
        status, out, err = main("-j", "--big-ints-as-strings", *words)
        assert status == 0 and len(json.loads(out)) == len(entries)

        def same(ours, theirs):
            if isinstance(theirs, dict):
                return list(ours) == list(theirs) and all(same(ours[x], theirs[x]) for x in theirs)
            if isinstance(theirs, list):
                return len(ours) == len(theirs) and all(map(same, ours, theirs))
            return ours == theirs or ours == str(theirs)

        assert same(json.loads(out), entries)
        assert out != done("-j", *words) or name != "w_hash"


# -- memory maps


@kernel
@pytest.mark.parametrize(
    "ctype, given",
    [
        (u8, [1, 255]),
        (u16, [1, 2]),
        (u32, [1, 1 << 31]),
        (u64, [1, 1 << 63]),
        (ctypes.c_int64, [-1, 5]),
        (ctypes.c_double, [0.5, -2.0]),
        (u32.__ctype_be__, [1, 2]),
        (ctypes.c_bool, [True, False]),
        (type("Mine", (u16,), {}), [3, 4]),
    ],
)
def test_mapped_numbers_are_those_of_lookup(ctype, given):
    with pages(ctype, 2) as m:
        mapped, writable = m.mmap(), m.mmap(writable=True)
        for index, number in enumerate(given):
            m[index] = number
        assert [mapped[0], mapped[1]] == given == list(mapped) and len(mapped) == 2
        for index, number in enumerate(reversed(given)):
            writable[index] = number
        assert [m[0], m[1]] == given[::-1] == [mapped[0], mapped[1]]
        for index in (-1, 2, 1 << 70):
            with pytest.raises(IndexError):
                mapped[index]
            with pytest.raises(IndexError):
                writable[index] = given[0]
        with pytest.raises(TypeError):
            mapped[0] = given[0]
        if ctype not in (ctypes.c_double, ctypes.c_bool):
            for wrong in (1 << 64, "x", None):
                with pytest.raises(bpf.LayoutError):
                    writable[0] = wrong


@kernel
def test_mapped_structures_are_copies_or_live():
    with pages(Odd, 3) as m:
        m[2] = Odd(1, 2, 3)
        mapped, writable = m.mmap(), m.mmap(writable=True)
        copied, live = mapped[2], writable[2]
        assert (copied.a, copied.b, copied.c) == (live.a, live.b, live.c) == (1, 2, 3)
        live.b = 77
        assert m[2].b == 77 == mapped[2].b and copied.b == 2
        # as numpy's are
        narrow = type("narrow", (), dict.fromkeys(("__ge__", "__lt__"), lambda *_: True))
        narrow.__index__, narrow.__mul__ = lambda _: 2, lambda *_: 0
        assert mapped[narrow()].b == 77
        copied.b = 99
        assert m[2].b == 77
        assert mapped.view.readonly and not writable.view.readonly and mapped.view.nbytes == 3 * 16
        with pytest.raises(TypeError):
            mapped.view[0] = 1
        with pytest.raises((TypeError, BufferError)):
            Odd.from_buffer(mapped.view)
        assert bytes(mapped.view[32:43]) == bytes(m[2])
    with pages(bytes, 2, value_size=5) as m:
        m[1] = b"abcde"
        mapped, writable = m.mmap(), m.mmap(writable=True)
        assert mapped[1] == b"abcde"
        writable[1] = b"vwxyz"
        assert m[1] == b"vwxyz" == mapped[1]


@kernel
def test_mapped_memory_outlives_what_it_came_from():
    m = pages()
    m[1] = 5
    mapped, writable = m.mmap(), m.mmap(writable=True)
    m.close()
    writable[1] = 6
    view = mapped.view
    assert mapped[1] == 6
    for one in (mapped, writable):
        one.close()
        one.close()
        for action in (lambda: one[1], lambda: one.__setitem__(1, 1), lambda: list(one)):
            with pytest.raises(ValueError, match="closed"):
                action()
        assert len(one) == 0
    del mapped, writable
    one = None
    gc.collect()
    assert view[8] == 6 or sys.byteorder == "big"
    with pages(Value) as m, m.mmap(writable=True) as writable:
        live = writable[3]
    del writable, m
    gc.collect()
    live.packets = 3
    assert live.packets == 3
    pid = in_child(lambda: (live.packets, setattr(live, "packets", 4)))
    assert os.waitpid(pid, 0)[1] == 0 and live.packets == 4  # shared with the child


@kernel
def test_mapping_what_cannot_be_mapped_says_why(bpffs):
    m = pages()
    m.pin(os.path.join(bpffs, "m"))
    with pytest.raises(bpf.PermissionDenied) as info:
        Map.from_pin(os.path.join(bpffs, "m")).mmap()
    assert 'mode="rw"' in info.value.hint
    writable = m.mmap(writable=True)
    with pytest.raises(bpf.Busy):
        m.freeze()
    del writable
    gc.collect()
    m.freeze()
    with pytest.raises(bpf.PermissionDenied) as info:
        m.mmap(writable=True)
    assert "frozen" in info.value.hint
    assert m.mmap()[0] == 0
    for other in (Map.create(ARRAY, u32, u64, 4), Map.create(HASH, u32, u64, 4)):
        with pytest.raises(bpf.NotSupported, match="BPF_F_MMAPABLE"):
            other.mmap()
    program_only = Map.create(ARRAY, u32, u64, 4, flags=bpf.BPF_F_MMAPABLE | bpf.BPF_F_RDONLY_PROG)
    with pytest.raises(bpf.PermissionDenied) as info:
        program_only.mmap(writable=True)
    assert "BPF_F_RDONLY_PROG" in info.value.hint and program_only.mmap()[0] == 0


@kernel
@pytest.mark.parametrize(
    "map_type, size, pages, options",
    [
        (RINGBUF, PAGE, 4, {}),
        (USER_RINGBUF, PAGE, 4, {}),
        (bpf.BPF_MAP_TYPE_ARENA, 2, 2, dict(flags=bpf.BPF_F_MMAPABLE)),
    ],
)
def test_mapped_bytes_of_what_has_no_entries(map_type, size, pages, options):
    with created(map_type, max_entries=size, **options) as m:
        mapped = m.mmap()
        assert len(mapped) == 0 and mapped.view.nbytes == pages * PAGE
        with pytest.raises(IndexError):
            mapped[0]
        assert set(bytes(mapped.view)) == {0}


@kernel
def test_global_variables_of_a_program_are_read_in_place(tmp_path, bpffs):
    source = """
        #define SEC(name) __attribute__((section(name), used))
        volatile unsigned long long hits = 5;
        volatile const int limit = 7;
        SEC("socket") int count(void *ctx) { hits += limit; return 0; }
        char _license[] SEC("license") = "GPL";
    """
    pin, maps = os.path.join(bpffs, "count"), os.path.join(bpffs, "maps")
    made = bpf_object(tmp_path, "counter", source)
    bpftool("prog", "load", made, pin, "type", "socket", "pinmaps", maps)
    names = {name: os.path.join(maps, name) for name in os.listdir(maps)}
    data = next(
        path for name, path in names.items() if name.endswith("_data") or name.endswith(".data")
    )
    with Map.from_pin(data, value=u64, mode="rw") as m, m.mmap() as mapped:
        assert mapped[0] == 5
        for turn in range(1, 4):
            prog_test_run(obj_get(pin))
            assert mapped[0] == 5 + 7 * turn == m[0]


@kernel
def test_btf_global_variables_are_read_and_set_in_place(every):
    with Map.from_pin(every("every_data"), mode="rw") as m, m.mmap() as mapped, m.mmap(
        writable=True
    ) as live:
        assert mapped[0].hits == m[0].hits == 12
        assert mapped[0].last == m[0].last
        assert mapped[0].last.low == 7
        every.run()
        assert (mapped[0].hits, live[0].hits) == (19, 19)
        live[0].hits = 100  # the program sees what is stored here
        live[0].last.mid = 3
        assert m[0].hits == 100 and m[0].last.mid == 3 and m[0].last.low == 7
        every.run()
        assert mapped[0].hits == 107 and mapped[0].last.mid == 1000
        value = m[0]
        value.hits = 1
        live[0] = value
        assert mapped[0] == value == m[0]
        with pytest.raises(TypeError):
            mapped[0] = value
        at = m.btf.offsetof(".data", "last.word")
        assert at == m.btf.offsetof(m.info.btf_value_type_id, "last") == type(value).last.offset
        assert bytes(mapped.view[at : at + 4]) == bytes(u32(value.last.word))
    with Map.from_pin(every("every_rodata"), mode="rw") as m, m.mmap() as mapped:
        assert mapped[0].greeting == b"hello" and mapped[0].limit == 7
        with pytest.raises(bpf.PermissionDenied):
            m[0] = m[0]
    with Map.from_pin(every("every_bss"), mode="rw") as m, m.mmap() as mapped:
        state = mapped[0].state[1]
        assert (state.tag, state.text) == (1, b"h")
        assert bpf.to_python(state)["mood"] == "BAD"
        assert mapped[0].never == 0


# -- ring buffers: records, once, whole and in order


def everything(records):
    """Return all that is there."""
    found, batch = [], [None]
    while batch:
        batch = records.read(0)
        found += batch
    return found


class Eight(ctypes.Structure):
    """A record of 64 bytes, as Recorder writes it."""

    _fields_ = [("number", u64), ("n", u64), ("rest", u64 * 6)]


READER_C = r"""
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>
static long left;
static int quiet;
static unsigned long long sum;
static int show(void *context, void *data, size_t size)
{
    const unsigned char *at = data;
    if (quiet)
        sum += *(unsigned long long *)(at + 8);     /* a field of it */
    else {
        for (size_t i = 0; i < size; i++)
            printf("%02x", at[i]);
        printf("\n");
    }
    return --left ? 0 : -1;     /* so that it stops here */
}
int main(int count, char **words)
{
    struct ring_buffer *ring = ring_buffer__new(atoi(words[1]), show, NULL, NULL);
    struct timespec start, end;
    if (!ring)
        return 1;
    left = atol(words[2]);
    quiet = count > 3;
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (left > 0 && ring_buffer__poll(ring, 1000) >= 0)
        ;
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (quiet)
        printf("%f %llu\n", end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9, sum);
    fflush(stdout);
    return left != 0;
}
"""


@pytest.fixture(scope="session")
def libbpf_reader(tmp_path_factory):
    """A program that reads so many records of a ring buffer, which it inherits, with libbpf."""
    directory = tmp_path_factory.mktemp("libbpf")
    (directory / "reader.c").write_text(READER_C)
    words = [directory / "reader.c", "-o", directory / "reader", "-lbpf"]
    status, _, err = run(program("gcc"), "-O2", "-w", *words)
    if "bpf/libbpf.h" in err or "-lbpf" in err:
        lacking("libbpf-dev")
    assert status == 0, err
    return directory / "reader"


RING_C = r"""
#define SEC(name) __attribute__((section(name), used))
#define RING(name, kind) struct { int (*type)[kind]; int (*max_entries)[65536]; } name SEC(".maps")
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long long u64;
static u32 (*load_bytes)(const void *, u32, void *, u32) = (void *)26;
static u32 (*cpu)(void) = (void *)8;
static long (*output)(void *, void *, u64, u64) = (void *)130;
static void *(*reserve)(void *, u64, u64) = (void *)131;
static void (*submit)(void *, u64) = (void *)132;
static void (*discard)(void *, u64) = (void *)133;
enum state { CLOSED, OPEN };
struct event { u32 cpu, thread; u64 n; enum state state; char comm[16]; u8 pad[4]; };
struct small { u32 thread, n; };
struct event *event_type; struct small *small_type;
RING(events, 27);
u64 next[64], full[64];
#define SLOT ({ u32 slot = thread; asm volatile("" : "+r"(slot)); slot & 63; })     /* for the verifier to see */
SEC("tc") int produce(void *skb)
{
    u32 thread = 0;
    load_bytes(skb, 0, &thread, 4);
    u64 n = next[SLOT];
    if (n % 7 == 3) {
        struct small *small = reserve(&events, sizeof *small, 0);
        if (!small) { full[SLOT]++; return 1; }
        small->thread = thread; small->n = n;
        submit(small, 0);
    } else {
        struct event *event = reserve(&events, sizeof *event, 0);
        if (!event) { full[SLOT]++; return 1; }
        *event = (struct event){ cpu(), thread, n, n & 1, "comm" };
        if (n % 7 == 5) discard(event, 0); else submit(event, 0);
    }
    next[SLOT] = n + 1;
    return 0;
}
char _license[] SEC("license") = "GPL";
"""

# 5.17 and 6.1: what keeps a record busy for long, and what reads a user ring buffer
LATER_C = r"""
static long (*repeat)(u32, void *, void *, u64) = (void *)181;
static long (*drain)(void *, void *, void *, u64) = (void *)209;
static long (*dynptr_read)(void *, u32, const void *, u32, u64) = (void *)201;
static u32 (*random32)(void) = (void *)7;
struct bpf_dynptr { u64 :64; u64 :64; } __attribute__((aligned(8)));
RING(inbox, 31);
u32 drained, turns = 1 << 20;
static long spin(u32 at, u64 *sum) { *sum += random32(); return 0; }
SEC("tc") int slowly(void *skb)
{
    u64 sum = 0;
    struct event *event = reserve(&events, sizeof *event, 0);
    if (!event) return 1;
    *event = (struct event){ cpu(), 99, 0, OPEN, "slow" };
    repeat(turns, spin, &sum, 0);
    submit(event, 0);
    return 0;
}
static long forward(struct bpf_dynptr *record, void *context)
{
    char bytes[64] = {};
    if (dynptr_read(bytes, 64, record, 0, 0) && dynptr_read(bytes, 5, record, 0, 0))
        return 1;
    output(&events, bytes, 64, 0);
    return 0;
}
SEC("tc") int take(void *skb) { drained = drain(&inbox, forward, 0, 0); return 0; }
"""


@pytest.fixture(scope="session")
def ring_object(tmp_path_factory):
    """The programs that write to ring buffers and read from them, compiled."""
    directory = tmp_path_factory.mktemp("ring")
    source = RING_C + (LATER_C if KERNEL >= (6, 1) else "")
    return bpf_object(directory, "ring", source)


@pytest.fixture
def ring_programs(ring_object, bpffs):
    """Load the programs above; return a function from a name to the pin of a map or program."""
    maps, programs = os.path.join(bpffs, "maps"), os.path.join(bpffs, "progs")
    bpftool("prog", "loadall", ring_object, programs, "type", "classifier", "pinmaps", maps)

    def pin(name):
        where = maps if name in ("events", "inbox", "bss") else programs
        (found,) = glob.glob(os.path.join(where, "*%s*" % name))
        return found

    pin.fd = lambda name: obj_get(pin(name))
    pin.run = lambda name, *rest: prog_test_run(pin.fd(name), *rest)
    return pin


@kernel
@pytest.mark.parametrize("kind", ["mixed", "fixed"])
def test_records_come_once_whole_and_in_order(kind):
    """Round and round a small buffer, those that wrap around its end included, in many lengths."""
    with a_ring() as ring, ring.records() as records:
        recorder, rng, found = Recorder(ring, kind=kind), random.Random(1), []
        assert records.read(0) == [] and records.read(0.01) == []
        while recorder.written < 40 * PAGE // 64:
            recorder.run(rng.randrange(1, PAGE // 20))
            found += everything(records) if rng.random() < 0.8 else records.read()
        found += everything(records)
        assert found == recorder.records() and recorder.refused > 0 and records.lost == 0
        assert all(type(record) is bytes for record in found)


@kernel
def test_typed_records_are_objects_numbers_or_what_c_text_says():
    c_text = "struct eight { u64 number; u64 n; u64 rest[6]; }"
    with a_ring() as ring:
        recorder = Recorder(ring, kind="fixed")
        for turn, value in enumerate((Eight, c_text, bpf.layout(Eight), u64 * 8)):
            recorder.run(3)
            with ring.records(value) as records:
                found = records.read(0)
                assert [bytes(record) for record in found] == recorder.records(3 * turn)
                if turn < 3:
                    assert [record.n for record in found] == [3 * turn + n for n in range(3)]
        assert type(found[0]) is u64 * 8


@kernel
def test_a_record_of_another_size_is_an_error_that_has_it():
    with a_ring() as ring, ring.records(u64 * 3) as records:
        recorder, found, others = Recorder(ring), [], []
        recorder.run(60)
        while True:
            try:
                batch = records.read(0)
            except bpf.LayoutError as error:
                assert "%d bytes" % len(error.record) in str(error) and "24" in str(error)
                others.append(error.record)
            else:
                found += [bytes(record) for record in batch]
                if not batch:
                    break
        wanted = recorder.records()
        assert found == [record for record in wanted if len(record) == 24] and found
        assert others == [record for record in wanted if len(record) != 24]
        recorder.run(60)
        with pytest.raises(bpf.LayoutError):
            for _ in records:
                pass
        for refused in ("no type", "struct", "u65", "struct { u8", "union of_none"):
            with pytest.raises(bpf.BPFError):
                ring.records(refused, peek=True)
        with pytest.raises(bpf.LayoutError, match="pointer"):
            ring.records(ctypes.c_void_p, peek=True)


@kernel
@pytest.mark.parametrize("pages", [1, 64])
def test_the_largest_record_arrives_whole(pages):
    """All of the buffer but 8 bytes, which is more than is copied at a time."""
    size = pages * PAGE
    with a_ring(size) as ring, ring.records() as records:
        for payload in (size - 16, size - 8):
            code = [insn_map(1, ring.fd), insn(0xB7, 2, 0, 0, payload), insn(0xB7, 3)]
            code += [insn(0x85, 0, 0, 0, 131), insn(0x55, 0, 0, 2), insn(0xB7), insn(0x95)]
            if payload - 8 < 1 << 15:
                code += [insn(0x7A, 0, 0, payload - 8, 7)]
            else:
                code += [insn(0xBF, 1, 0), insn(0x07, 1, 0, 0, payload - 8), insn(0x7A, 1, 0, 0, 7)]
            code += [insn(0x7A, 0, 0, 0, 5), insn(0xBF, 1, 0), insn(0xB7, 2)]
            code += [insn(0x85, 0, 0, 0, 132), insn(0xB7, 0, 0, 0, 1), insn(0x95)]
            program, recorder = load(1, b"".join(code)), Recorder(ring)
            for _ in range(3):
                assert prog_test_run(program) == (payload == size - 16)
                if payload == size - 16:
                    (record,) = records.read(0)
                    assert len(record) == payload
                    assert record[:8] + record[-8:] == struct.pack("=QQ", 5, 7)
                recorder.run(7)  # from then on it begins elsewhere
                everything(records)


@once
@kernel
def test_records_of_programs_on_every_cpu_come_once_and_in_order():
    """A million records of three programs in threads: each once, whole, each program's in order."""
    with a_ring(max(PAGE, 1 << 18)) as ring, ring.records() as records:
        recorders, wanted = [Recorder(ring, number) for number in range(3)], 420000

        def write(recorder):
            while recorder.written < wanted:
                recorder.run(1000)

        threads = [threading.Thread(target=write, args=[recorder]) for recorder in recorders]
        for thread in threads:
            thread.start()
        found, following = 0, [1, 1, 1]
        pattern = struct.Struct("=QQ")
        try:
            while True:
                over = not any(thread.is_alive() for thread in threads)
                batch = records.read(0.05)
                if over and not batch:
                    break
                for record in batch:
                    number, n = pattern.unpack_from(record)
                    assert n == following[number]
                    assert record == struct.pack("=8Q", number, *([n] * 7))[: (n & 47) + 16]
                    following[number] = n + 2 if n % 5 == 4 else n + 1
                found += len(batch)
        finally:
            for thread in threads:
                thread.join()
        last = [recorder.written for recorder in recorders]
        assert following == [n + 1 if n % 5 == 0 else n for n in last]
        assert found == sum(n - (n + 4) // 5 for n in last) > 10**6


@kernel
def test_libbpfs_own_reader_sees_the_same(libbpf_reader):
    """In turns: what one has consumed the other finds consumed, and goes on from there."""
    with a_ring(max(PAGE, 1 << 16)) as ring:
        recorder, found, theirs = Recorder(ring), [], []
        for turn in range(6):
            recorder.run(700)
            status, out, err = run(libbpf_reader, ring.fd, 200, pass_fds=[ring.fd])
            assert status == 0, err
            theirs += out.split()
            found += [bytes.fromhex(line) for line in out.split()]
            with ring.records() as records:
                found += everything(records) if turn % 2 else records.read()
        assert found == recorder.records() and len(theirs) == 1200


@kernel
def test_a_loop_consumes_what_it_was_given_and_no_more():
    with a_ring() as ring, ring.records() as records:
        recorder = Recorder(ring)
        recorder.run(30)
        wanted = recorder.records()
        for at, record in enumerate(records):
            assert record == wanted[at]
            if at == 4:
                break
        assert records.read(0) == wanted[5:]
        recorder.run(10)
        with pytest.raises(ZeroDivisionError):
            for record in records:
                1 / 0
        with ring.records(peek=True) as peeking:
            assert peeking.read(0) == []
        records.close()
        with ring.records() as again:
            assert next(iter(again)) == recorder.records(30)[1]
        with ring.records() as again:
            assert again.read(0) == recorder.records(30)[2:]


@kernel
def test_types_by_their_name_in_the_programs_btf(ring_programs):
    with Map.from_pin(ring_programs("events"), mode="rw") as ring:
        ring_programs.run("produce", 3)
        for name in ("struct event", "event"):
            with ring.records(name, peek=True):
                pass
        with ring.records("struct event") as records:
            found = records.read(0)
            assert [(one.thread, one.n, one.comm) for one in found] == [
                (0, n, b"comm") for n in range(3)
            ]
            assert [bpf.to_python(one)["state"] for one in found] == ["CLOSED", "OPEN", "CLOSED"]
            ring_programs.run("produce", 1)
            with pytest.raises(bpf.LayoutError) as info:
                records.read(0)
            assert info.value.record == struct.pack("=II", 0, 3)
        for name in ("struct nothing", "nothing", "union event"):
            with pytest.raises(bpf.LayoutError, match="is no type|declared neither"):
                ring.records(name)
    with a_ring() as other, pytest.raises(bpf.LayoutError, match="declared neither"):
        other.records("struct event")


@kernel
def test_records_of_a_compiled_program_come_from_every_cpu_in_order(ring_programs):
    """Of several sizes, some discarded, from several CPUs, while it is read; each as pahole would have it."""
    cpus, wanted = sorted(os.sched_getaffinity(0)), 20000
    with Map.from_pin(ring_programs("bss"), mode="rw") as bss:
        written = bss.mmap().view.cast("Q")

    def write(thread):
        os.sched_setaffinity(0, [cpus[thread % len(cpus)]])
        program = ring_programs.fd("produce")
        while written[thread] < wanted:
            prog_test_run(program, 100, struct.pack("=I", thread).ljust(64, b"\0"))

    with Map.from_pin(ring_programs("events"), mode="rw") as ring, ring.records() as records:
        threads = [threading.Thread(target=write, args=[thread]) for thread in range(4)]
        for thread in threads:
            thread.start()
        following, seen_on, sizes = [0] * 4, set(), collections.Counter()
        while True:
            over = not any(thread.is_alive() for thread in threads)
            batch = records.read(0.05)
            for record in batch:
                sizes[len(record)] += 1
                if len(record) == 8:
                    thread, n = struct.unpack("=II", record)
                else:
                    cpu, thread, n, state, comm = struct.unpack("=IIQI16s4x", record)
                    assert (state, comm) == (n & 1, b"comm".ljust(16, b"\0"))
                    seen_on.add(cpu)
                while following[thread] % 7 == 5:
                    following[thread] += 1
                assert n == following[thread]
                following[thread] += 1
            if over and not batch:
                break
        for thread in threads:
            thread.join()
        assert set(sizes) == {8, 40} and min(following) >= wanted and seen_on <= set(cpus)
        assert len(seen_on) == min(len(cpus), 4)


@kernel
def test_a_record_that_a_program_keeps_busy_is_waited_for(ring_programs):
    since(6, 1)
    with Map.from_pin(ring_programs("events"), mode="rw") as ring, ring.records() as records:
        slow = threading.Thread(target=ring_programs.run, args=["slowly"])
        ring_programs.run("produce", 2)
        assert len(records.read(0)) == 2
        slow.start()
        while select.select([records], [], [], 0)[0] == []:
            pass
        ring_programs.run("produce", 1)
        found = []
        while len(found) < 2:
            found += records.read(30)
        slow.join()
        assert [struct.unpack_from("=IIQ", record)[1:] for record in found] == [(99, 0), (0, 2)]


# -- ring buffers: interrupted, killed, shared, closed


@kernel
def test_a_reader_that_is_killed_leaves_a_buffer_that_the_next_one_reads_on(tmp_path):
    """SIGKILL at any moment: nothing is lost; what came twice is what the loop had been given last."""
    size = max(PAGE, 1 << 16)
    with a_ring(size) as ring:
        recorder = Recorder(ring)
        rng = random.Random(1)
        path = tmp_path / "got"
        expected = 0
        repeated = 0
        source = """
            import os, sys, bpflookup
            out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for record in bpflookup.Map.from_fd(int(sys.argv[1])).records():
                os.write(out, record[8:16])
        """
        environment = importing()
        for _ in range(12):
            words = [sys.executable, "-c", textwrap.dedent(source), str(ring.fd), str(path)]
            path.write_bytes(b"")
            child = subprocess.Popen(words, pass_fds=[ring.fd], env=environment)
            while path.stat().st_size == 0 and child.poll() is None:
                recorder.run(50)
            end = time.time() + rng.random() / 10
            while time.time() < end:
                recorder.run(rng.randrange(1, 200))
            child.kill()
            child.wait()
            raw = path.read_bytes()[: path.stat().st_size & ~7]
            got = [n for (n,) in struct.iter_unpack("=Q", raw)]
            assert got == [n for n in range(got[0], got[-1] + 1) if n % 5]
            assert got[0] <= expected + 1
            repeated = max(repeated, expected - got[0])
            expected = max(expected, got[-1] + 1)
        recorder.run(5)  # the last may have left none
        with ring.records() as records:
            left = [struct.unpack_from("=Q", record, 8)[0] for record in everything(records)]
        assert left[0] <= expected + 1 and left[-1] in (recorder.written - 1, recorder.written - 2)
        assert repeated < size // 24


@kernel
def test_interrupted_anywhere_nothing_is_lost():
    """KeyboardInterrupt at every line, in a loop and in read(); there but for its own last line."""
    source = [bpf.Records, bpf._RecordBatch, bpf._Position]
    codes = {
        function.__code__: function.__name__
        for cls in source
        for function in vars(cls).values()
        if hasattr(function, "__code__")
    }
    for by_read in (False, True):
        strike, struck = 0, True
        while struck:
            strike, struck = strike + 1, False
            with a_ring() as ring, ring.records() as records:
                recorder, found, lines = Recorder(ring), [], [0]
                recorder.run(20)
                wanted = recorder.records()

                def tracer(frame, event, _):
                    name = codes.get(frame.f_code)
                    # no signal's handler runs where a with ends
                    if name is None or by_read and name in ("read", "_awaited"):
                        return None
                    if event == "line":
                        lines[0] += 1
                        if lines[0] == strike:
                            raise KeyboardInterrupt
                    return tracer

                def one_pass():
                    if by_read:
                        found.extend(records.read(0))
                        return
                    while wanted[-1] not in found:
                        loop = iter(records)
                        for record in itertools.islice(loop, 6):
                            found.append(record)
                            if record == wanted[-1]:
                                break
                        loop.close()

                before = sys.gettrace()
                while True:
                    sys.settrace(tracer)
                    try:
                        one_pass()
                        sys.settrace(before)
                        break
                    except KeyboardInterrupt:
                        sys.settrace(before)
                        struck = True
                found += records.read(0)
                in_order = sorted(
                    set(found),
                    key=lambda record: record[8:16][:: 1 if sys.byteorder == "big" else -1],
                )
                assert in_order == wanted
                recorder.run(5)  # and it goes on as ever
                assert everything(records) == recorder.records(20)
        assert strike > 25


@kernel
def test_what_interrupts_a_reader_never_takes_its_position_back():
    """A program may have written over what was consumed."""
    with a_ring() as ring, ring.records() as records:
        recorder, memory = Recorder(ring, kind="fixed"), records._open[0]
        settle = memory.settle

        def interrupted():
            memory.settle = settle
            raise KeyboardInterrupt

        recorder.run(PAGE // 72 - 1)
        memory.settle = interrupted  # the position is stored
        with pytest.raises(KeyboardInterrupt):
            records.read(0)
        recorder.run(PAGE // 72 - 1)
        assert everything(records) == recorder.records() and recorder.refused == 0


@kernel
@pytest.mark.parametrize("taken", [0, 2])
def test_a_loop_that_a_signal_handler_closes_has_consumed_what_it_was_given(taken):
    """In the middle of a drain, too; and if the handler opens the next reader, that one's place stays."""
    with a_ring() as ring, ring.records() as records:
        recorder, then = Recorder(ring, kind="fixed"), []
        recorder.run(5)

        def handler():
            if sys._getframe(2).f_code.co_name == "_decoded" and not then:
                records.close()
                then.append(ring.records())
                found = iter(then[0])
                then.extend(itertools.islice(found, taken))
                found.close()

        loop = iter(records)
        assert with_handler(lambda: next(loop), handler, ["_decoded"]) == recorder.records()[0]
        loop.close()
        left = then[0].read(0)
        then[0].close()
        assert left == recorder.records()[max(taken, 1) :]


@kernel
def test_signals_that_raise_lose_nothing():
    """At random moments, as they come."""
    rng, armed, me = random.Random(1), [], threading.get_ident()

    def handler(*_):
        if armed:
            del armed[:]
            raise KeyboardInterrupt

    def strike():
        while going:
            time.sleep(rng.random() / 2000)
            signal.pthread_kill(me, signal.SIGUSR1)

    before, going = signal.signal(signal.SIGUSR1, handler), [1]
    thread = threading.Thread(target=strike)
    try:
        with a_ring(max(PAGE, 1 << 16)) as ring, ring.records() as records:
            recorder, found, interrupted = Recorder(ring), [], 0
            recorder.run(2)
            thread.start()
            while interrupted < 200:
                with contextlib.suppress(InterruptedError):
                    recorder.run(rng.randrange(1, 600))
                (last,) = recorder.records(recorder.written - 2)[-1:]
                while found[-1:] != [last]:
                    try:
                        armed.append(1)
                        loop = iter(records)
                        while found[-1:] != [last]:
                            # in one step of C: no handler runs between what is handed out and its place here
                            found.extend(itertools.islice(loop, 1))
                        loop.close()
                        del armed[:]
                    except KeyboardInterrupt:
                        interrupted += 1
            found += everything(records)
            assert set(found) == set(recorder.records())
    finally:
        del going[:], armed[:]  # an error of another kind would be hidden by that of a signal
        thread.join()
        signal.signal(signal.SIGUSR1, before)


@kernel
def test_a_signal_handler_that_reads_what_it_interrupts_is_refused():
    with a_ring() as ring, ring.records() as records:
        recorder, told = Recorder(ring), []
        recorder.run(10)

        def handler():
            if sys._getframe(2).f_code.co_name == "_next_batch" and not told:
                try:
                    told.append(records.read(0))
                except ValueError as error:
                    told.append(str(error))

        found = with_handler(lambda: records.read(0), handler, ["_next_batch"])
        assert found == recorder.records() and "interrupted" in told[0]
    with created(USER_RINGBUF, max_entries=PAGE) as inbox:
        refusals = []

        def submit():
            with contextlib.suppress(bpf.MapFull):
                with pytest.raises(ValueError, match="interrupted"):
                    inbox.submit(b"inner")
                refusals.append(1)

        with_handler(lambda: inbox.submit(b"outer"), submit, ["_write"])
        view = inbox.mmap().view
        assert refusals and view[PAGE : PAGE + 8] == struct.pack("@L", 16).ljust(8, b"\0")[:8]
        assert view[2 * PAGE : 2 * PAGE + 13] == struct.pack("=II", 5, 0) + b"outer"


@kernel
@pytest.mark.parametrize("how", ["read", "iterate", "peek"])
def test_close_wakes_who_waits(how):
    with a_ring() as ring:
        records, outcome = ring.records(peek=how == "peek"), []

        def wait(records=records, outcome=outcome, how=how):
            outcome.append(records.read() if how != "iterate" else list(records))

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        assert all(thread.is_alive() for thread in threads)
        records.close()
        for thread in threads:
            thread.join(20)
        assert outcome == [[], []]
        records.close()
        for use in (records.read, records.fileno, records.__enter__, lambda: iter(records)):
            with pytest.raises(ValueError, match="closed"):
                use()
        assert "closed" in repr(records)


@kernel
def test_threads_share_the_records():
    with a_ring(max(PAGE, 1 << 16)) as ring, ring.records() as records:
        recorder, found, stop = Recorder(ring), [[] for _ in range(4)], []

        def take(mine, loops):
            while not stop:
                if loops:
                    for record in records:
                        mine.append(record)
                        if len(mine) % 50 == 0:
                            break
                else:
                    mine.extend(records.read(0.01))

        threads = [
            threading.Thread(target=take, args=[mine, at % 2]) for at, mine in enumerate(found)
        ]
        for thread in threads:
            thread.start()
        for _ in range(300):
            recorder.run(100)
        end = time.time() + 60
        while sum(map(len, found)) < len(recorder.records()) and time.time() < end:
            time.sleep(0.01)
        stop.append(1)
        recorder.run(400)  # who waits in a loop finds that it is over
        time.sleep(0.1)
        records.close()
        for thread in threads:
            thread.join()
        with ring.records() as rest:
            got = sorted(
                struct.unpack_from("=Q", record, 8)[0] for record in sum(found, everything(rest))
            )
        assert sorted(set(got)) == [n for n in range(recorder.written) if n % 5]
        assert len(got) == len(set(got))


@kernel
def test_a_child_of_fork_has_to_open_the_map_anew():
    with a_ring() as ring, ring.records() as records:
        recorder = Recorder(ring)
        recorder.run(9)
        loop = iter(records)
        assert next(loop) == recorder.records()[0]

        def child():
            for use in (lambda: records.read(0), lambda: records.read(), lambda: list(records)):
                with pytest.raises(ValueError, match="process %d" % os.getppid()):
                    use()
            records.close()

        pid = in_child(child)
        assert os.waitpid(pid, 0)[1] == 0
        assert list(itertools.islice(loop, 6)) == recorder.records()[1:]
        recorder.run(3)
        assert records.read(1) == recorder.records(9)
        start = time.process_time()
        assert records.read(0.3) == [] and time.process_time() - start < 0.2  # it does wait


@kernel
def test_a_child_of_fork_opens_records_while_a_thread_of_its_parent_does():
    begun, may_end = threading.Event(), threading.Event()

    def make():
        begun.set()
        may_end.wait(60)
        return begun

    def child():
        signal.alarm(20)
        ring.records().close()

    with a_ring() as ring, a_ring() as other:
        thread = threading.Thread(target=bpf._claim_ring, args=({}, other, make))
        thread.start()
        try:
            begun.wait(60)
            assert os.waitpid(in_child(child), 0)[1] == 0
        finally:
            may_end.set()
            thread.join()


@kernel
def test_the_reader_outlives_its_map_and_leaves_nothing_behind():
    before = open_fds()
    ring = a_ring()
    recorder = Recorder(ring)
    records, peeking = ring.records(Eight), ring.records(peek=True)
    ring.close()
    recorder.run(1)
    assert peeking.read(1) == [] == records.read(0)  # the first is discarded
    with pytest.raises(ValueError, match="closed"):
        ring.records()
    for one in (records, peeking):
        with pytest.raises(TypeError):
            pickle.dumps(one)
        one.close()
    del ring, recorder, records, peeking, one
    assert open_fds() == before


@kernel
def test_what_an_error_told_of_is_not_kept_open():
    """Neither by the error nor, until the next garbage collection, by a cycle that it is in."""
    gc.collect()
    gc.disable()
    try:
        with a_ring() as ring:
            recorder, before = Recorder(ring), open_fds()
            records = ring.records(Eight)
            with pytest.raises(bpf.Busy) as busy:
                ring.records()
            recorder.run(2)
            try:
                records.read(0)
            except bpf.LayoutError as error:
                assert error.record == recorder.records()[0]
            del records
            assert sorted(os.listdir("/proc/self/fd")) == before
            ring.records().close()
            assert "peek" in busy.value.hint
    finally:
        gc.enable()


@kernel
def test_records_take_a_descriptor_that_may_write(bpffs):
    pin = os.path.join(bpffs, "ring")
    with a_ring() as ring:
        ring.pin(pin)
    for mode in ("r", "w"):
        with Map.from_pin(pin, mode=mode) as m:
            for peek in (False, True):
                with pytest.raises(bpf.PermissionDenied, match='mode="rw"'):
                    m.records(peek=peek)
    with Map.from_pin(pin, mode="rw") as m:
        m.records()


@kernel
def test_one_consumer_in_a_process_and_any_number_that_peek():
    with a_ring() as ring, Map.from_fd(ring) as same:
        records = ring.records()
        recorder = Recorder(ring)
        for m in (ring, same):
            with pytest.raises(bpf.Busy, match="peek=True"):
                m.records()
        with ring.records(peek=True) as one, same.records(peek=True) as other:
            recorder.run(6)
            assert one.read(0) == other.read(0) == records.read(0) == recorder.records()
        assert "peeking" in repr(one) or "closed" in repr(one)
        records.close()
        same.records()  # dropped at once
        with same.records(Eight) as again, pytest.raises(bpf.Busy):
            ring.records()
            del again


@kernel
def test_maps_that_have_no_records_say_what_they_have():
    with Map.create(HASH, u32, u32) as m:
        for use in (m.records, lambda: m.records(peek=True), lambda: m.submit(b"x")):
            with pytest.raises(bpf.NotSupported, match="hash"):
                use()
    with Map.create(bpf.BPF_MAP_TYPE_PERF_EVENT_ARRAY, u32, u32) as m:
        with pytest.raises(bpf.NotSupported, match="perf_event_open"):
            m.records()
    with a_ring() as m, pytest.raises(bpf.NotSupported, match=r"records\(\)"):
        m.submit(b"x")
    with created(USER_RINGBUF, max_entries=PAGE) as m:
        with pytest.raises(bpf.NotSupported, match=r"submit\(value\)"):
            m.records()


@kernel
def test_without_a_memory_barrier_nothing_is_begun(monkeypatch):
    with a_ring() as ring:
        with monkeypatch.context() as patched:
            patched.setattr(bpf, "_MEMBARRIER_NUMBERS", {})
            for peek in (False, True):
                with pytest.raises(bpf.NotSupported, match="barrier"):
                    ring.records(peek=peek)
        with monkeypatch.context() as patched:
            patched.setattr(bpf, "_MEMBARRIER_CMD_GLOBAL_EXPEDITED", 1 << 30)
            with pytest.raises(bpf.NotSupported, match="EINVAL"):
                ring.records()
        ring.records()


@kernel
def test_a_drain_makes_one_memory_barrier():
    source = """
        import sys, bpflookup
        records = bpflookup.Map.from_fd(int(sys.argv[1])).records()
        print(len(records.read(0)))
    """
    with a_ring() as ring:
        recorder = Recorder(ring)
        recorder.run(50)
        status, out, err = straced("membarrier", source, ring.fd, pass_fds=[ring.fd])
    assert (status, out) == (0, "40\n"), err
    calls = [line for line in err.splitlines() if "membarrier(" in line]
    assert all(
        re.search(r"MEMBARRIER_CMD_(GLOBAL|SHARED)_EXPEDITED, 0.*= 0", line) for line in calls
    )
    wanted = 2 if bpf.syscall_number() in (321, 357) else 6  # one to see whether there is any
    assert len(calls) == wanted


@kernel
def test_select_epoll_and_asyncio_find_records_readable():
    import asyncio

    with a_ring(max(PAGE, 1 << 16)) as ring, ring.records() as records:
        recorder = Recorder(ring)

        def is_readable(seconds=0):
            return select.select([records], [], [], seconds)[0] == [records]

        assert not is_readable(0.05)
        recorder.run(2)
        assert is_readable() and records.read(0) == recorder.records() and not is_readable()
        loop, found = asyncio.new_event_loop(), []

        def take():
            found.extend(records.read(0))
            if found == recorder.records(2, 1002):
                loop.stop()

        loop.add_reader(records.fileno(), take)
        for turn in range(10):
            loop.call_later(turn / 100, recorder.run, 100)
        loop.call_later(60, loop.stop)
        loop.run_forever()
        loop.remove_reader(records.fileno())
        loop.close()
        assert found == recorder.records(2, 1002)
        with ring.records(peek=True) as peeking:
            recorder.run(2)
            assert select.select([peeking], [], [], 30)[0] == [peeking]
            assert peeking.read(0) == recorder.records(1002)


@kernel
def test_who_peeks_sleeps_beside_what_is_not_consumed(monkeypatch):
    waits, wait = [], bpf._Waiter.wait
    monkeypatch.setattr(bpf._Waiter, "wait", lambda *words: (waits.append(1), wait(*words)))
    with a_ring() as ring, ring.records(peek=True) as peeking:
        recorder = Recorder(ring)
        recorder.run(6)
        assert peeking.read() == recorder.records() and peeking.read(0.3) == []
        assert len(waits) < 60
        recorder.run(1)
        assert peeking.read(30) == recorder.records(6)


@kernel
def test_who_peeks_takes_nothing_away_and_knows_what_it_missed():
    """An owner in another process consumes; bytes seen + .lost are those produced, and the owner has all."""
    size = max(PAGE, 1 << 15)
    with a_ring(size) as ring:
        recorder, rng = Recorder(ring, kind="fixed"), random.Random(1)
        source = """
            import sys, bpflookup
            count = 0
            for record in bpflookup.Map.from_fd(int(sys.argv[1])).records():
                count += 1
                if record[8:] == bytes(56):
                    print("ready", flush=True)
                if record[8:] == b"\\xff" * 56:
                    break
            print(count)
        """
        words = [sys.executable, "-c", textwrap.dedent(source), str(ring.fd)]
        environment = importing()
        owner = subprocess.Popen(words, pass_fds=[ring.fd], env=environment, stdout=subprocess.PIPE)
        with ring.records(peek=True) as peeking:
            recorder.run(1)
            assert owner.stdout.readline() == b"ready\n"
            seen = everything(peeking)
            while recorder.written < 60000 or not peeking.lost:
                recorder.run(rng.randrange(1, 300))
                if rng.random() < 0.2 or recorder.written < 2000:
                    seen += everything(peeking)
            recorder.counts[0] = Value(2**64 - 1, 0)
            while recorder.counts[0].packets != 0:
                recorder.run(1)
            seen += everything(peeking)
            out, _ = owner.communicate(timeout=60)
            ends = ring.mmap().view[PAGE:].cast("Q")[0]
            assert 72 * len(seen) + peeking.lost == ends and peeking.lost > 0
            assert int(out) * 72 == ends
            for record in seen:
                number, n, *rest = struct.unpack("=8Q", record)
                assert number == 1 and set(rest) == {n}


# -- ring buffers: memory that the test writes in place of the kernel's


class FakeRing:
    """A ring buffer's memory that a test writes to, in place of the kernel's."""

    def __init__(self, m, writes=None):
        self.size, self.process = m.max_entries, os.getpid()
        self.pages, self.real = bytearray(PAGE * 2), bytearray(self.size)
        self.consumer = bpf._Position(
            memoryview(self.pages)[:PAGE], 0, ctypes.sizeof(ctypes.c_long)
        )
        rest = memoryview(self.pages)[PAGE:]
        self.producer = bpf._Position(rest, 0, ctypes.sizeof(ctypes.c_long))
        self.overwritten = bpf._Position(rest, 2, ctypes.sizeof(ctypes.c_long))
        self.order = self.settle = lambda: None
        FakeRing.last = self

    check_process = bpf._RingMemory.check_process

    @property
    def data(self):
        return memoryview(bytes(self.real + self.real))

    def begin(self, position):
        """Have both positions be this one."""
        self.consumer.store(position & LONG_MASK)
        self.producer.store(position & LONG_MASK)

    def put(self, raw, flags=0, length=None):
        """Add a record as the kernel does; return where its header is."""
        position = self.producer.load()
        header = struct.pack("=II", (len(raw) if length is None else length) | flags, 0)
        whole = (header + raw).ljust(len(raw) + 15 & ~7, b"\0")
        for at, byte in enumerate(whole):
            self.real[(position + at) % self.size] = byte
        self.producer.store(position + len(whole) & LONG_MASK)
        return position % self.size


@pytest.fixture
def fake_ring(_kernel, monkeypatch):
    """A function that opens the records of a ring buffer whose memory is a FakeRing."""
    monkeypatch.setattr(bpf, "_RingMemory", FakeRing)
    made = []

    def make(value=None, **options):
        made.append(a_ring())
        made.append(made[-1].records(value, **options))
        return made[-1], FakeRing.last

    yield make
    for one in made:
        one.close()


BUSY, DISCARDED = 1 << 31, 1 << 30


@kernel
def test_a_busy_record_keeps_those_behind_it_back(fake_ring):
    records, ring = fake_ring()
    ring.put(b"first")
    at = ring.put(b"second", BUSY)
    ring.put(b"third")
    assert records.read(0) == [b"first"] and records.read(0) == [] == records.read(0.01)
    assert ring.consumer.load() == at  # so that its commit wakes us
    timer = threading.Timer(
        0.1, lambda: ring.real.__setitem__(slice(at, at + 4), struct.pack("=I", 6))
    )
    timer.start()
    assert records.read() == [b"second", b"third"] and records.read(0) == []
    timer.join()
    at = ring.put(b"gone", BUSY)
    assert records.read(0) == []
    ring.real[at : at + 4] = struct.pack("=I", 4 | DISCARDED)
    assert records.read(0) == [] and ring.consumer.load() == ring.producer.load()


@kernel
def test_nothing_but_discarded_records_for_long(fake_ring, monkeypatch):
    """A reader that would go on with them for ever could keep no time limit."""
    monkeypatch.setattr(bpf, "_DRAIN_BYTES", 64)
    monkeypatch.setattr(bpf, "_MAX_TRIES", 3)
    records, ring = fake_ring()
    for _ in range(90):
        ring.put(bytes(24), DISCARDED)
    ring.put(b"at last")
    assert records.read(0) == [] and ring.consumer.load() == 3 * 64
    monkeypatch.setattr(bpf._Waiter, "wait", lambda *words: None)  # epoll tells that there is more
    assert records.read() == [b"at last"]


@kernel
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_what_another_process_consumed_stays_consumed(fake_ring, ahead):
    records, ring = fake_ring()
    for begin in (0, -16):  # the second wraps
        ring.begin(begin)
        for _ in range(4):
            ring.put(b"12345678")
        loop = iter(records)
        next(loop)
        ring.consumer.store(begin + 16 * ahead & LONG_MASK)
        loop.close()
        assert ring.consumer.load() == begin + 16 * max(ahead, 1) & LONG_MASK


@kernel
def test_positions_wrap_around_without_a_loss(fake_ring):
    """As longs do: after 4 GiB on 32 bits."""
    for start in (-8, -PAGE, -PAGE + 8, -3 * PAGE + 16):
        for peek in (False, True):
            records, ring = fake_ring(peek=peek)
            ring.begin(start)
            records._position = start & LONG_MASK
            found, wanted, rng = [], [], random.Random(1)
            for turn in range(600):
                raw = bytes([turn & 255]) * rng.randrange(0, 100)
                flags = rng.choice([0, 0, DISCARDED])
                ring.put(raw, flags)
                wanted += [] if flags else [raw]
                if rng.random() < 0.1:
                    found += everything(records)
                    if peek:
                        ring.consumer.store(ring.producer.load())
            assert found + everything(records) == wanted and records.lost == 0
            records.close()


def test_a_position_of_two_halves_is_read_and_stored_whole(monkeypatch):
    """A 32-bit program sees a 64-bit kernel's longs as this test sees some of twice as many bits."""
    long = ctypes.sizeof(ctypes.c_long)
    monkeypatch.setattr(bpf, "_full_barrier", lambda: None)
    for index in (0, 2):
        page = bytearray(8 * long)
        position = bpf._Position(memoryview(page), index, 2 * long)

        def whole():
            return int.from_bytes(page[2 * long * index :][: 2 * long], sys.byteorder)

        page[2 * long * index :][: 2 * long] = (0).to_bytes(2 * long, sys.byteorder)
        total = 0
        for step in (8, 1 << 8 * long - 1, (1 << 8 * long - 1) - 16, 16, 8, (1 << 8 * long) - 8):
            total += step
            position.store(total & LONG_MASK)
            assert whole() == total and position.load() == total & LONG_MASK


def test_a_position_whose_carry_is_missing_is_mended(monkeypatch):
    long = ctypes.sizeof(ctypes.c_long)
    monkeypatch.setattr(bpf, "_full_barrier", lambda: None)
    half = 1 << 8 * long
    behind, ahead = [bytearray(4 * long) for _ in range(2)]
    first, second = [bpf._Position(memoryview(page), 0, 2 * long) for page in (behind, ahead)]
    rng = random.Random(1)
    for _ in range(1000):
        start = rng.choice([0, half, 5 * half, rng.randrange(half**2)]) + rng.randrange(-1000, 1000)
        start %= half**2
        end = (start + rng.randrange(2000)) % half**2
        for is_ahead, page, position, other in (
            (False, behind, first, second),
            (True, ahead, second, first),
        ):
            behind[: 2 * long] = start.to_bytes(2 * long, sys.byteorder)
            ahead[: 2 * long] = end.to_bytes(2 * long, sys.byteorder)
            wanted = bytes(page)
            at = position._high * long
            page[at : at + long] = rng.randrange(half).to_bytes(long, sys.byteorder)
            position.mend(other, is_ahead)
            assert bytes(page) == wanted
    narrow = bpf._Position(memoryview(behind), 0, long)
    before = bytes(behind)
    narrow.mend(second, False)
    assert bytes(behind) == before


@pytest.mark.parametrize(
    "first, long_bytes", [("ffffffff81000000 T _text\n", 8), ("c0008000 T x\n", 4)]
)
def test_the_kernels_long_is_that_of_its_addresses(monkeypatch, tmp_path, first, long_bytes):
    (tmp_path / "kallsyms").write_text(first + "0000 T y\n")
    real = open
    paths = {"/proc/kallsyms": str(tmp_path / "kallsyms")}
    monkeypatch.setattr(bpf, "open", lambda path: real(paths[path]), raising=False)
    monkeypatch.setattr(bpf, "sizeof", lambda ctype: 4)
    assert bpf._kernel_long_bytes() == long_bytes
    for text in ("", "unheard of"):
        (tmp_path / "kallsyms").write_text(text)
        for machine, expected in (("ppc64", 8), ("s390x", 8), ("armv7l", 4)):
            monkeypatch.setattr(os, "uname", lambda: mock.Mock(machine=machine))
            assert bpf._kernel_long_bytes() == expected


@kernel
def test_memory_that_lies_is_an_error(fake_ring):
    past = ctypes.c_ulong(-1).value
    lies = [
        lambda ring: ring.put(b"x" * 8, length=1 << 20),
        lambda ring: ring.put(b"x" * 8, length=(1 << 30) - 1),
        lambda ring: ring.put(b"x" * 8, length=(1 << 30) - 1 | DISCARDED),
        lambda ring: ring.put(b"x" * 8, length=9),
        lambda ring: ring.producer.store(past & ~7),  # it went back
        lambda ring: ring.producer.store(ring.size),
        lambda ring: ring.producer.store(1 << 30),
        lambda ring: ring.producer.store(12),
        lambda ring: (ring.put(b"x"), ring.consumer.store(4)),
        lambda ring: ring.consumer.store(8),
    ]
    for lie in lies:
        records, ring = fake_ring()
        lie(ring)
        for use in (lambda: records.read(0), lambda: records.read(), lambda: list(records)):
            with pytest.raises(bpf.IterationAborted, match="map %s" % records._about.split()[1]):
                use()
        records.close()
    records, ring = fake_ring()
    ring.put(b"good")
    ring.put(b"bad", length=4000000)
    assert records.read(0) == [b"good"]
    with pytest.raises(bpf.IterationAborted, match="4000008 bytes where there are 16"):
        records.read(0)


def past_any(rng):
    """Return a position that no buffer has reached."""
    return ctypes.c_ulong(-rng.randrange(1, 1 << 20)).value & ~7


@kernel
def test_noise_is_read_within_bounds_or_refused(fake_ring):
    rng, outcomes = random.Random(7), collections.Counter()
    records, ring = fake_ring()
    for turn in range(3000):
        ring.real[:] = bytes(rng.randrange(256) for _ in range(64)).ljust(
            ring.size, bytes([turn & 31])
        )
        if turn % 2:  # headers that may do
            for at in range(0, 512, 8):
                ring.real[at : at + 4] = struct.pack(
                    "=I", rng.choice([0, 8, 24, 30 | DISCARDED, 1 << 9])
                )
        ring.consumer.store(rng.choice([0, 8, 64, rng.randrange(1 << 31), past_any(rng)]))
        ring.producer.store(
            ring.consumer.load() + rng.choice([8, 64, 400, rng.randrange(PAGE)]) & LONG_MASK
        )
        try:
            found = records.read(0)
        except bpf.IterationAborted:
            outcomes["refused"] += 1
            continue
        outcomes["read" if found else "nothing"] += 1
        assert sum(map(len, found)) < ring.size
    assert min(outcomes["refused"], outcomes["read"], outcomes["nothing"]) > 20


@kernel
def test_a_foreign_consumer_position_that_lies_is_an_error():
    """The consumer's page is every process's that may write to the map."""
    import mmap

    with a_ring() as ring, ring.records() as records:
        Recorder(ring).run(10)
        page = memoryview(mmap.mmap(ring.fd, PAGE)).cast("L")
        page[0] = 4
        with pytest.raises(bpf.IterationAborted):
            records.read(0)
        page[0] = 8  # inside of a record: what is no error is within bounds
        with contextlib.suppress(bpf.IterationAborted):
            assert sum(map(len, everything(records))) < PAGE
        page[0] = 1 << 30
        with pytest.raises(bpf.IterationAborted):
            records.read(0)
        page[0] = 0
        assert len(records.read(0)) == 8


@kernel
def test_what_is_overwritten_while_it_is_copied_is_counted_and_never_shown(fake_ring):
    records, ring = fake_ring(peek=True)
    rng, seen, passed = random.Random(3), [], [0]

    def put_some(most):
        for _ in range(rng.randrange(most)):
            raw = struct.pack("=Q", passed[0]) * rng.randrange(1, 9)
            passed[0] += 1
            ring.consumer.store(ring.producer.load())  # the owner is fast
            ring.put(raw)

    def order():
        put_some(rng.choice([1, 3, 3, 300]))

    for _ in range(400):
        put_some(100)
        ring.order = order
        seen += records.read(0)
        ring.order = lambda: None
    seen += everything(records)
    assert sum(8 + len(record) for record in seen) + records.lost == ring.producer.load()
    numbers = [struct.unpack_from("=Q", record)[0] for record in seen]
    assert numbers == sorted(set(numbers)) and len(numbers) > 1000 and records.lost > 0
    assert all(record == record[:8] * (len(record) // 8) for record in seen)


@kernel
@pytest.mark.parametrize("is_fake", [True, False])
def test_a_buffer_that_overwrites_its_oldest_tells_what_is_lost(is_fake, fake_ring, monkeypatch):
    """BPF_F_RB_OVERWRITE: the reader begins with the oldest that there is, and counts what is gone."""
    if not is_fake and KERNEL < (7, 0):
        with pytest.raises(bpf.InvalidArgument):
            a_ring(flags=bpf.BPF_F_RB_OVERWRITE)
        return
    if is_fake:
        records, ring = fake_ring()
        records._overwrites, length = True, PAGE
        first = []

        def write(count):
            for _ in range(count):
                while ring.producer.load() + 72 - ring.overwritten.load() >= ring.size:
                    ring.overwritten.store(ring.overwritten.load() + 72)
                ring.put(struct.pack("=8Q", 1, *([len(first)] * 7)))
                first.append(0)
    else:
        monkeypatch.undo()
        m = a_ring(flags=bpf.BPF_F_RB_OVERWRITE)
        records, recorder, length = m.records(), Recorder(m, kind="fixed"), PAGE
        write = recorder.run
    held, total = (length - 8) // 72, 0
    for count in (10, held, 3 * held + 5, 1):
        write(count)
        total += count
        found = everything(records)
        wanted = list(range(total - min(count, held), total))
        assert [struct.unpack_from("=Q", record, 8)[0] for record in found] == wanted
    assert records.lost == 72 * (2 * held + 5)
    records.close()


def test_records_in_a_copy_are_those_of_a_plain_walk():
    """Against a plain walk, for copies that end anywhere, in sizes that are all one and that are not."""
    rng = random.Random(5)
    for _ in range(2000):
        sizes = [rng.choice([0, 1, 8, 9, 40])] if rng.random() < 0.5 else [0, 1, 7, 8, 9, 24, 100]
        flags = [0] * 10 + [BUSY, DISCARDED] * rng.randrange(2)
        raw, expected, stopped = b"", [], None
        for _ in range(rng.randrange(1, 12)):
            size, flag = rng.choice(sizes), rng.choice(flags)
            record = struct.pack("=II", size | flag, 9) + bytes(size)
            record += bytes(-len(record) % 8)
            if flag & BUSY and stopped is None:
                stopped = len(raw)
            if not flag and stopped is None:
                expected.append((len(raw) + 8, size, len(raw) + len(record)))
            raw += record
        cut = rng.randrange(8, len(raw) + 1, 8)
        starts, lengths, used, following = bpf._records_in(memoryview(raw[:cut]).cast("I"))
        kept = [(start, size) for start, size, end in expected if end <= cut]
        assert list(zip(starts, lengths)) == kept
        assert used <= cut and (stopped is None or used <= stopped)
        assert following == 0 or following > cut
        assert (following or used in (cut, stopped)) and not (used == stopped and following)


# -- ring buffers that user space fills


@kernel
def test_what_is_submitted_arrives_at_the_program(ring_programs):
    since(6, 1)
    rng = random.Random(1)
    with Map.from_pin(ring_programs("events"), mode="rw") as ring, ring.records() as records:
        with Map.from_pin(ring_programs("inbox"), mode="rw") as inbox:
            for turn in range(300):
                sent = [
                    bytes(rng.randrange(256) for _ in range(64))
                    for _ in range(rng.randrange(1, 40))
                ]
                for at, raw in enumerate(sent):
                    inbox.submit(
                        [raw, bytearray(raw), Eight.from_buffer_copy(raw), memoryview(raw)][at % 4]
                    )
                ring_programs.run("take")
                assert everything(records) == sent
            count = 0
            with pytest.raises(bpf.MapFull, match="72 bytes are wanted, 16 free"):
                while True:
                    inbox.submit(bytes(64))
                    count += 1
            assert count == 65536 // 72
            inbox.submit(bytes(8))
            ring_programs.run("take")
            everything(records)
            inbox.submit(b"short")
            ring_programs.run("take")
            assert records.read(0) == [b"short".ljust(64, b"\0")]
            for size in (65536 - 7, 1 << 20):
                with pytest.raises(bpf.LayoutError, match="at most 65528"):
                    inbox.submit(bytes(size))
            inbox.submit(bytes(65528))
            with pytest.raises(bpf.MapFull):
                inbox.submit(b"")
            with pytest.raises(TypeError):
                inbox.submit("text")
        with Map.from_pin(ring_programs("inbox")) as reading:
            with pytest.raises(bpf.PermissionDenied, match='mode="rw"'):
                reading.submit(b"x")


@kernel
def test_threads_and_maps_of_a_process_submit_in_turns(ring_programs):
    since(6, 1)
    with Map.from_pin(ring_programs("events"), mode="rw") as ring, ring.records() as records:
        inboxes = [Map.from_pin(ring_programs("inbox"), mode="rw") for _ in range(2)]
        found, sent = [], [0] * 4

        def send(thread):
            for n in range(400):
                while sum(sent) - len(found) > 400:  # more may not fit where the program puts them
                    time.sleep(0.001)
                sent[thread] += 1
                while True:
                    try:
                        inboxes[thread % 2].submit(struct.pack("=QQ", thread, n).ljust(64, b"\0"))
                        break
                    except bpf.MapFull:
                        time.sleep(0.001)

        threads = [threading.Thread(target=send, args=[thread]) for thread in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or len(found) < 1600:
            ring_programs.run("take")
            found += everything(records)
        for thread in range(4):
            mine = [
                struct.unpack_from("=QQ", one)[1]
                for one in found
                if one[0 if sys.byteorder == "little" else 7] == thread
            ]
            assert mine == list(range(400))

        def child():
            with pytest.raises(ValueError, match="open the map anew"):
                inboxes[0].submit(b"x")

        assert os.waitpid(in_child(child), 0)[1] == 0
        inboxes[0].close()
        with pytest.raises(ValueError, match="closed"):
            inboxes[0].submit(b"x")
        inboxes[1].submit(b"x")


# -- oracle: every map type, as Linux 6.18 was measured to answer

# Operations, and the state of the map they find: nothing, one entry, no room (and they want one more), frozen.
COLUMNS = (
    ("empty", "get next del take put exist"),
    ("one", "get next put noexist del take"),
    ("full", "get put del"),
    ("one", "batch take_batch put_batch del_batch"),
    ("one", "freeze"),
    ("frozen", "get put freeze"),
    ("one", "mmap mmap_write"),
)

# get is lookup, take is lookup_and_delete; without keys peek (bloom filters: in) and pop, and put is push.
# Where the kernel has no batch, the module goes from entry to entry.  -: has no meaning, is not tried
ANSWERS = {
    #                         empty                       | one entry                   | full           | batch
    #                         get  next del  take put exi | get  next put  noe del take | get  put  del  | L  LD U  D
    #                         ... | freeze | get put freeze | mmap
    "hash": "none none none none ok   none | ok ok ok   have ok  ok | none full none | ok ok ok   ok",
    "array": "ok   ok   no   no   ok   ok   | ok ok ok   have no  no | none past no   | ok no ok   no",
    "mmapable array": "ok   ok   no   no   ok   ok   | ok ok ok   have no  no | none past no   | ok no ok   no"
    "| ok | ok perm perm | ok ok",
    "prog_array": "none ok   none no   ok   bad  | ok ok ok   bad  ok  no | none past past | ok no ok   ok",
    "perf_event_array": "no   ok   none no   ok   bad  | no ok ok   bad  ok  no | no   past past | no no ok   ok"
    "| ok | no perm perm | no no",
    "percpu_hash": "none none none none ok   none | ok ok ok   have ok  ok | none full none | ok ok ok   ok",
    "percpu_array": "ok   ok   no   no   ok   ok   | ok ok ok   have no  no | none past no   | ok no ok   no",
    "stack_trace": "none none none none no   no   | ok ok no   no   ok  ok | none no   bad  | ok no no   ok",
    "cgroup_array": "no   ok   none no   ok   bad  | no ok ok   bad  ok  no | no   past past | no no ok   ok"
    "| ok | no perm perm | no no",
    "lru_hash": "none none none none ok   none | ok ok ok   have ok  ok | none ok   none | ok ok ok   ok",
    "lru_percpu_hash": "none none none none ok   none | ok ok ok   have ok  ok | none ok   none | ok ok ok   ok",
    "lpm_trie": "none none none no   ok   none | ok ok ok   have ok  no | none full none | ok no ok   ok",
    "array_of_maps": "none ok   none no   ok   bad  | ok ok ok   bad  ok  no | none past past | ok no ok   ok",
    "hash_of_maps": "none none none no   ok   none | ok ok ok   have ok  no | none full none | ok ok ok   ok",
    "devmap": "none ok   ok   no   ok   ok   | ok ok ok   have ok  no | none past bad  | ok no ok   ok",
    "sockmap": "none ok   bad  no   ok   none | ok ok ok   have ok  no | none past bad  | ok no ok   ok",
    "cpumap": "none ok   ok   no   ok   ok   | ok ok ok   have ok  no | none past bad  | ok no ok   ok",
    "xskmap": "no   ok   ok   no   ok   none | no ok ok   have ok  no | no   past bad  | no no ok   ok"
    "| ok | no perm perm | no no",
    "sockhash": "none none none no   ok   none | ok ok ok   have ok  no | none full none | ok no ok   ok",
    "cgroup_storage": "none none no   no   none none | ok ok ok   bad  no  no | -    -    -    | ok no ok   no",
    "reuseport_sockarray": "none ok   none no   ok   none | ok ok ok   have ok  no | none past past | ok no ok   ok",
    "percpu_cgroup_storage": "none none no   no   none none | ok ok ok   bad  no  no | -    -    -    | ok no ok   no",
    "queue": "none no   no   none ok   ok   | ok no ok   bad  no  ok | -    full no   | no no no   no",
    "stack": "none no   no   none ok   ok   | ok no ok   bad  no  ok | -    full no   | no no no   no",
    "sk_storage": "none no   none no   ok   none | ok no ok   have ok  no | -    -    -    | no no ok   ok",
    "devmap_hash": "none none none no   ok   ok   | ok ok ok   have ok  no | none full none | ok no ok   ok",
    "struct_ops": "ok   ok   none no   ok   bad  | ok ok busy bad  ok  no | none past ok   | ok no busy ok"
    "| no | ok busy no   | no no",
    "ringbuf": "no   no   no   no   no   no   | no no no   no   no  no | -    -    -    | no no no   no"
    "| ok | no perm perm | ok perm",  # the consumer's page alone can be mapped writable
    "inode_storage": "none no   none no   ok   none | ok no ok   have ok  no | -    -    -    | no no ok   ok",
    "task_storage": "none no   none no   ok   none | ok no ok   have ok  no | -    -    -    | no no ok   ok",
    "bloom_filter": "none no   no   no   ok   bad  | ok no ok   bad  no  no | -    ok   no   | no no no   no",
    "user_ringbuf": "no   no   no   no   no   no   | no no no   no   no  no | -    -    -    | no no no   no"
    "| ok | no perm perm | ok perm",
    "cgrp_storage": "none no   none no   ok   none | ok no ok   have ok  no | -    -    -    | no no ok   ok",
    "arena": "no   no   no   no   no   no   | no no no   no   no  no | -    no   no   | no no no   no"
    "| ok | no perm perm | ok ok",
}
USUAL = "| ok | ok perm perm | no no"  # of freeze and mmap

# what Map.create is told (max_entries is 4 if not said), and what keys and values are made of: methods of Scene
NUMBERS = dict(key=u32, value=u64)
STORAGE = dict(value=u32, max_entries=0, flags=bpf.BPF_F_NO_PREALLOC)
CGROUPS, QUEUES = dict(key_size=16, value=u64, max_entries=0), dict(value=u64)
SHAPES = {
    "hash": (NUMBERS, "index", "number"),
    "array": (NUMBERS, "index", "number"),
    "mmapable array": (dict(NUMBERS, flags=bpf.BPF_F_MMAPABLE), "index", "number"),
    "prog_array": ({}, "index", "program"),
    "perf_event_array": ({}, "index", "perf_event"),
    "percpu_hash": (NUMBERS, "index", "number"),
    "percpu_array": (NUMBERS, "index", "number"),
    "stack_trace": (dict(key=u32, value=u64 * 10), "index", "frames"),
    "cgroup_array": ({}, "index", "cgroup"),
    "lru_hash": (NUMBERS, "index", "number"),
    "lru_percpu_hash": (NUMBERS, "index", "number"),
    "lpm_trie": (dict(key_size=8, value=u64, flags=bpf.BPF_F_NO_PREALLOC), "prefix", "number"),
    "array_of_maps": ({}, "index", "inner"),
    "hash_of_maps": (dict(key=u32), "index", "inner"),
    "devmap": ({}, "index", "one"),
    "devmap_hash": (dict(key=u32), "index", "one"),  # the loopback device
    "sockmap": (dict(value_size=8), "index", "tcp"),
    "sockhash": (dict(key=u32, value_size=8), "index", "tcp"),
    "cpumap": (dict(max_entries=1), "index", "number"),
    "xskmap": ({}, "index", "xdp"),
    "cgroup_storage": (CGROUPS, "attachment", "number"),
    "percpu_cgroup_storage": (CGROUPS, "attachment", "number"),
    "reuseport_sockarray": (dict(value_size=8), "index", "udp"),
    "queue": (QUEUES, "index", "number"),
    "stack": (QUEUES, "index", "number"),
    "bloom_filter": (QUEUES, "index", "one"),
    "sk_storage": (STORAGE, "udp", "number"),
    "inode_storage": (STORAGE, "file", "number"),
    "task_storage": (STORAGE, "pidfd", "number"),
    "cgrp_storage": (STORAGE, "cgroup", "number"),
    "struct_ops": ({}, "index", "congestion_control"),
    "ringbuf": (dict(max_entries=PAGE), "index", "nothing"),
    "user_ringbuf": (dict(max_entries=PAGE), "index", "nothing"),
    "arena": (dict(flags=bpf.BPF_F_MMAPABLE), "index", "nothing"),
}
KEYLESS = ("queue", "stack", "bloom_filter", "ringbuf", "user_ringbuf", "arena")


@functools.lru_cache(None)
def kernel_struct(name):
    """Return (type id, size, {member: offset}) of a structure in the kernel's own BTF."""
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        lacking("the kernel's BTF")
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        raw = file.read()
    header, types, length, strings = struct.unpack_from("=4I", raw, 4)
    place, end, strings = header + types, header + types + length, header + strings

    def text(offset):
        return raw[strings + offset : raw.index(b"\0", strings + offset)].decode()

    wanted, type_id = raw.find(b"\0" + name.encode() + b"\0", strings) + 1 - strings, 0
    fixed, each = {1: 4, 3: 12, 14: 4, 17: 4}, {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
    while place < end:
        type_id += 1
        named, info, size = struct.unpack_from("=3I", raw, place)
        kind, count = info >> 24 & 31, info & 0xFFFF
        if kind == 4 and named == wanted:
            members = [struct.unpack_from("=3I", raw, place + 12 + 12 * i) for i in range(count)]
            return (
                type_id,
                size,
                {text(member): (bits & 0xFFFFFF) // 8 for member, _, bits in members},
            )
        place += 12 + fixed.get(kind, 0) + each.get(kind, 0) * count
    return lacking("a kernel that has struct %s" % name)


@pytest.fixture
def cgroup(tmp_path):
    """A function that makes cgroup2 number i and opens its directory."""
    tops = [words[1] for words in mounted("cgroup2")]
    made = []

    def make(i):
        if not tops:
            status, _, err = run(program("mount"), "-t", "cgroup2", "none", tmp_path)
            if status:
                lacking("a cgroup2 (%s)" % err.strip())
            tops.append(str(tmp_path))
        path = os.path.join(tops[0], "bpflookup-test-%d-%d" % (RUN, i))
        if path not in made:
            os.mkdir(path)
            made.append(path)
        return Descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    yield make
    for path in made:
        os.rmdir(path)
    if str(tmp_path) in tops:
        gc.collect()  # descriptors in it
        status, _, err = run("umount", tmp_path)
        assert status == 0, err


class Scene:
    """A fresh map of a type in a state, and what its keys and values are made of: the i-th is made when wanted."""

    def __init__(self, label, cgroup, state):
        self.label, self.cgroup, self.made, self.open = label, cgroup, {}, contextlib.ExitStack()
        options, self.key_kind, self.value_kind = SHAPES[label]
        try:
            self.m = self.open.enter_context(self.create(dict({"max_entries": 4}, **options)))
            for i in range({"empty": 0, "full": self.m.max_entries}.get(state, 1)):
                self.fill(i)
            if state == "frozen" and label != "struct_ops":
                self.m.freeze()
        except BaseException:
            self.open.close()
            raise

    def create(self, options):
        map_type = getattr(bpf, "BPF_MAP_TYPE_" + self.label.split()[-1].upper())
        if self.label == "struct_ops":
            types, attr = load_btf(lock_types()), bpf.bpf_attr()
            create = attr.map_create
            create.map_type = map_type
            create.key_size = 4
            create.max_entries = 1
            create.btf_fd = types.number
            create.btf_vmlinux_value_type_id, create.value_size, _ = kernel_struct(
                "bpf_struct_ops_tcp_congestion_ops"
            )
            size = type(create).map_extra.offset
            return Map.from_fd(bpf_call(bpf.BPF_MAP_CREATE, attr, size), dup=False)
        if self.label.endswith("_of_maps"):
            options["inner"] = self.value(0)
        elif options.get("value") is u32:
            options.update(btf=load_btf(lock_types()), btf_key=1, btf_value=1)
        return created(map_type, **options)

    def fill(self, i):
        if self.label.endswith("cgroup_storage"):
            self.attach(i)
        if self.label == "stack_trace":
            self.made["index", 0] = self.run_for_a_stack()
        elif self.label not in KEYLESS:
            try:
                self.m.update(self.key(i), self.value(i))
            except bpf.BadFileDescriptor:
                if self.label != "inode_storage":
                    raise
                lacking("the bpf LSM, which keeps room for storages in inodes")
            except bpf.OutOfMemory as error:  # of every element, on ppc64le 7.2
                if self.label not in (
                    "sk_storage",
                    "inode_storage",
                    "task_storage",
                    "cgrp_storage",
                ):
                    raise
                lacking("a kernel whose storages work on this CPU (%s)" % error)
        elif self.value_kind != "nothing":
            self.m.push(self.value(i))

    def thing(self, kind, i):
        if (kind, i) not in self.made:
            self.made[kind, i] = getattr(self, kind)(i)
        return self.made[kind, i]

    def key(self, i):
        return self.thing(self.key_kind, i)

    def value(self, i):
        return self.thing(self.value_kind, i)

    def read(self, i):
        """Return what a lookup has to find where value i was stored."""
        value = self.value(i)
        if self.value_kind in ("tcp", "udp"):
            # SO_COOKIE
            return int.from_bytes(value.getsockopt(socket.SOL_SOCKET, 57, 8), sys.byteorder)
        if self.value_kind == "program":
            return int(fdinfo(value.number)["prog_id"])
        if self.value_kind == "frames":
            return mock.ANY  # the kernel's own
        value = value.id if self.value_kind == "inner" else value
        return [value] * len(bpf.possible_cpus()) if "percpu" in self.label else value

    index, number, one = [
        staticmethod(make) for make in (lambda i: i, lambda i: 7 + i, lambda i: 1)
    ]
    nothing, frames = staticmethod(lambda i: b""), staticmethod(lambda i: bytes(80))
    prefix = staticmethod(lambda i: bpf.lpm_key("10.0.%d.0/24" % i))
    program = staticmethod(lambda i: load(bpf.BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0))
    inner = staticmethod(lambda i: Map.create(ARRAY, u32, u32, 1))

    # struct bpf_cgroup_storage_key: cgroup, attach type (0 is ingress), padding
    def attachment(self, i):
        return struct.pack("=QII", os.fstat(self.thing("cgroup", i).number).st_ino, 0, 0)

    def file(self, i):
        return self.open.enter_context(tempfile.TemporaryFile())

    def socket(self, *kind):
        return self.open.enter_context(socket.socket(*kind))

    def tcp(self, i):
        loopback()
        listener, client = self.socket(), self.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        self.open.enter_context(listener.accept()[0])
        return client

    def udp(self, i):
        bound = self.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", 0))
        return bound

    def xdp(self, i):
        ringed = self.socket(44, socket.SOCK_RAW)  # AF_XDP
        ringed.setsockopt(283, 2, 64)  # XDP_RX_RING
        return ringed

    def pidfd(self, i):
        # ends with its input
        child = subprocess.Popen([shutil.which("cat") or sys.executable], stdin=subprocess.PIPE)
        self.open.callback(child.communicate)
        number = {4355: 4434, 5315: 5434}.get(bpf.syscall_number(), 434)  # MIPS counts on
        return Descriptor(syscall(number, child.pid, 0))

    def perf_event(self, i):
        numbers = {
            321: 298,
            357: 336,
            386: 364,
            280: 241,
            361: 319,
            351: 331,
            4355: 4333,
            5315: 5292,
        }
        if bpf.syscall_number() not in numbers:  # that tells the ABI
            pytest.skip("the number of perf_event_open(2) is not known here")
        bpf_output = struct.pack("=IIQQQ80x", 1, 112, 10, 1, 1 << 10)
        words = [ctypes.c_long(word) for word in (-1, 0, -1, 8)]
        return Descriptor(syscall(numbers[bpf.syscall_number()], bpf_output, *words))

    def run_for_a_stack(self):
        """Have the kernel store a stack, by a test run of a raw_tracepoint program; return its id.

        The program stays: where it went, its address would be nobody's, or another program's.
        """
        code = (
            insn_map(2, self.m.fd)
            + insn(0xB7, 3, 0, 0, 1 << 10)
            + insn(0x85, 0, 0, 0, 27)
            + insn(0x95)
        )
        stacker = load(17, code)
        self.open.callback(lambda: stacker)
        return prog_test_run(stacker, 0, b"")

    def attach(self, i):
        """Attach a cgroup_skb program that uses the map: that makes the storage."""
        code = [
            insn_map(1, self.m.fd),
            insn(0xB7, 2),
            insn(0x85, 0, 0, 0, 81),
            insn(0xB7, 0, 0, 0, 1),
            insn(0x95),
        ]
        user, attr = load(8, b"".join(code)), bpf.bpf_attr()
        attr.prog_attach.target_fd = self.thing("cgroup", i).number
        attr.prog_attach.attach_bpf_fd = user.number
        bpf_call(bpf.BPF_PROG_ATTACH, attr)
        self.open.callback(lambda: (bpf_call(bpf.BPF_PROG_DETACH, attr), user))

    def congestion_control(self, i):
        """A value that registers a TCP congestion control; its programs live as long as the scene."""
        type_id, _, members = kernel_struct("tcp_congestion_ops")
        _, size, common = kernel_struct("bpf_struct_ops_tcp_congestion_ops")
        value, start = bytearray(size), common["data"]
        for name in ("ssthresh", "cong_avoid", "undo_cwnd"):
            self.made[name, i] = load(
                27, RETURN_0, attach_btf_id=type_id, expected_attach_type=list(members).index(name)
            )
            struct.pack_into("=Q", value, start + members[name], self.made[name, i].number)
        struct.pack_into("15s", value, start + members["name"], b"bpft_%d" % RUN)
        self.open.callback(self.unregister)
        return bytes(value)

    def unregister(self):
        with contextlib.suppress(bpf.SyscallError):  # never registered, or no longer
            self.m.delete(0)


WORDS = {
    bpf.KeyNotFound: "none",
    bpf.IndexNotFound: "none",
    bpf.KeyExists: "have",
    bpf.MapFull: "full",
    bpf.KeyOutOfRange: "past",
    bpf.NotSupported: "no",
    bpf.InvalidArgument: "bad",
    bpf.PermissionDenied: "perm",
    bpf.Busy: "busy",
}

# the last: not what was written
UNREADABLE = ("perf_event_array", "cgroup_array", "xskmap", "struct_ops")
FILLED = ("array", "mmapable array", "percpu_array")  # with every index, from the start


def mapped(m, *new):
    """Return what is at the start of the memory; if there is a new value, it goes there."""
    with m.mmap(writable=bool(new)) as memory:
        found = memory[0] if len(memory) else bytes(memory.view[:8]).strip(b"\0")
        if new and len(memory):
            memory[0] = new[0]
        return found


def values_of(batches):
    """Return the bytes of all values of batches."""
    return b"".join(bytes(values) for keys, values in batches if len(keys) == len(values))


# operation: call; what it returns, and what is under the key then: the old value, the new one, None
OPS = {
    "get": (lambda m, k, v: m[k], "old", "old"),
    "next": (lambda m, k, v: m.next_key(), "key", "old"),
    "del": (lambda m, k, v: m.delete(k), None, None),
    "take": (lambda m, k, v: m.lookup_and_delete(k), "old", None),
    "put": (lambda m, k, v: m.update(k, v), None, "new"),
    "noexist": (lambda m, k, v: m.update(k, v, bpf.BPF_NOEXIST), None, "new"),
    "exist": (lambda m, k, v: m.update(k, v, bpf.BPF_EXIST), None, "new"),
    "batch": (lambda m, k, v: values_of(m.lookup_batch()), "all", "old"),
    "take_batch": (lambda m, k, v: values_of(m.lookup_and_delete_batch()), "all", None),
    "put_batch": (lambda m, k, v: m.update_batch([k], [v]), 1, "new"),
    "del_batch": (lambda m, k, v: m.delete_batch([k]), 1, None),
    "freeze": (lambda m, k, v: m.freeze(), None, "old"),
    "mmap": (lambda m, k, v: mapped(m), "old", "old"),
    "mmap_write": (lambda m, k, v: mapped(m, v), "old", "new"),
}
KEYLESS_OPS = dict(
    OPS,
    get=(lambda m, k, v: m.peek(), "old", None),
    take=(lambda m, k, v: m.pop(), "old", None),
    put=(lambda m, k, v: m.push(v), None, None),
    noexist=(lambda m, k, v: m.push(v, bpf.BPF_NOEXIST), None, None),
    exist=(lambda m, k, v: m.push(v, bpf.BPF_EXIST), None, None),
)
BLOOM_OPS = dict(KEYLESS_OPS, get=(lambda m, k, v: (v in m) or None, True, None))


def answer(label, cgroup, state, op):
    """Return the word for what an operation does to a fresh map in a state; check what it returns and leaves."""
    ops = KEYLESS_OPS if label in KEYLESS else OPS
    call, returns, leaves = (BLOOM_OPS if label == "bloom_filter" else ops)[op]
    s = Scene(label, cgroup, state)
    with s.open:
        m, i = s.m, s.m.max_entries if state == "full" else 0
        key, readable = s.key(i), label not in KEYLESS + UNREADABLE
        whole = m.lookup_bytes(key) if readable and state == "one" else b""
        whole += bytes(len(whole)) * (m.max_entries - 1) if label in FILLED else b""
        try:
            got = call(m, key, s.value(i + 1))
        except bpf.SyscallError as error:
            return WORDS.get(type(error), repr(error))
        if got is None and returns:
            return "none"
        zero = [0] * len(bpf.possible_cpus()) if "percpu" in label else 0
        known = {
            "old": zero if state == "empty" else s.read(i),
            "new": s.read(i + 1),
            "key": key,
            "all": whole,
        }
        assert label in UNREADABLE or got == known.get(returns, returns)
        if readable and leaves != "old":
            assert m.get(key) == known.get(leaves) and (key in m) == (leaves is not None)
        return "ok"


@kernel
@pytest.mark.skipif(
    not sys.platform.startswith("linux") or KERNEL < (6, 18), reason="measured on 6.18"
)
@pytest.mark.parametrize("label", sorted(ANSWERS))
def test_every_map_type_answers_as_the_oracle_says(label, cgroup):
    row = ANSWERS[label] if ANSWERS[label].count("|") == 6 else ANSWERS[label] + USUAL
    told = [words.split() for words in row.split("|")]
    answers = [
        [
            word if word == "-" else answer(label, cgroup, state, op)
            for op, word in zip(ops.split(), words)
        ]
        for (state, ops), words in zip(COLUMNS, told)
    ]
    assert answers == told


def test_the_oracle_tells_of_every_type_and_operation():
    assert {label.split()[-1] for label in ANSWERS} == {
        bpf.map_type_name(number) for number in range(1, 34)
    }
    assert set(SHAPES) == set(ANSWERS)
    for row in ANSWERS.values():
        told = (row if row.count("|") == 6 else row + USUAL).split("|")
        assert [len(words.split()) for words in told] == [len(ops.split()) for _, ops in COLUMNS]


@kernel
@pytest.mark.parametrize(
    "cmd, refused",
    [
        ("LOOKUP_ELEM", lambda m: m[1]),
        ("UPDATE_ELEM", lambda m: m.update(1, 1)),
        ("DELETE_ELEM", lambda m: m.delete(1)),
        ("GET_NEXT_KEY", lambda m: m.next_key()),
        ("LOOKUP_AND_DELETE_ELEM", lambda m: m.lookup_and_delete(1)),
    ],
)
def test_oracle_refusals_for_want_of_keys_name_the_command(cmd, refused):
    for m in (Map.create(QUEUE, None, u64, 4), Map.create(RINGBUF, max_entries=PAGE)):
        with pytest.raises(bpf.NotSupported) as info:
            refused(m)
        assert info.value.cmd == "BPF_MAP_" + cmd


@kernel
def test_oracle_eopnotsupp_has_its_kernel_name():
    # Python says ENOTSUP, a letter from ENOTSUPP
    with pytest.raises(bpf.NotSupported, match="EOPNOTSUPP"):
        Map.create(bpf.BPF_MAP_TYPE_XSKMAP)[0]


@kernel
def test_oracle_ring_buffers_are_mapped_for_reading():
    with pytest.raises(bpf.PermissionDenied) as info:
        Map.create(RINGBUF, max_entries=PAGE).mmap(writable=True)
    assert "BPF_F_RDONLY_PROG" not in str(info.value)  # which has nothing to do with it


@kernel
def test_oracle_an_arena_stays_where_it_was_mapped_first():
    arena = created(bpf.BPF_MAP_TYPE_ARENA, max_entries=4, flags=bpf.BPF_F_MMAPABLE)
    # it can be mapped: this is no NotSupported
    with arena.mmap(), pytest.raises(bpf.InvalidArgument):
        arena.mmap()


@kernel
def test_oracle_maps_of_maps_take_maps_and_give_ids():
    inner, other = Map.create(HASH, u32, u64, 4), Map.create(HASH, u32, u64, 4)
    inner[1] = 11
    for map_type in (bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, bpf.BPF_MAP_TYPE_HASH_OF_MAPS):
        outer = Map.create(map_type, u32, max_entries=4, inner=inner)
        outer[0], outer[2] = inner, other.fd
        assert outer.value_type is u32 and dict(outer.items()) == {0: inner.id, 2: other.id}
        assert list(outer) == list(outer.keys()) and outer.get(1) is None
        assert Map.from_id(outer[0], u32, u64)[1] == 11
        with pytest.raises(bpf.InvalidArgument):
            outer[1] = Map.create(HASH, u32, u32, 4)  # of another shape
        with pytest.raises(bpf.BadFileDescriptor):
            outer[1] = 987654


@kernel
@pytest.mark.parametrize(
    "map_type",
    [bpf.BPF_MAP_TYPE_SOCKMAP, bpf.BPF_MAP_TYPE_SOCKHASH, bpf.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY],
)
def test_oracle_sockets_go_in_as_such_and_come_back_as_cookies(map_type):
    with Map.create(map_type, u32, value_size=8, max_entries=4) as m, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", 0))
        m[3] = bound
        cookie = bound.getsockopt(socket.SOL_SOCKET, 57, 8)  # SO_COOKIE
        assert m.key_type is u32 and m.value_type is u64 and m.lookup_bytes(3) == cookie
        assert list(m.items()) == [(3, int.from_bytes(cookie, sys.byteorder))]
        with pytest.raises(bpf.SyscallError) as info, open(os.devnull) as file:
            m[0] = file
        assert info.value.errno in (errno.ENOTSOCK, errno.EINVAL)
    with Map.create(map_type, u32) as narrow, pytest.raises(bpf.SyscallError) as info:
        narrow[0]
    assert narrow.value_type is u32
    assert type(info.value) is bpf.SyscallError
    assert info.value.errno == errno.ENOSPC


@kernel
@pytest.mark.parametrize(
    "map_type, order", [(QUEUE, [2, 3, 4]), (bpf.BPF_MAP_TYPE_STACK, [4, 3, 2])]
)
def test_oracle_queues_and_stacks_keep_their_order(map_type, order):
    with Map.create(map_type, None, u64, 3) as m:
        for value in (1, 2, 3):
            m.push(value)
        with pytest.raises(bpf.MapFull):
            m.push(4)
        m.push(4, bpf.BPF_EXIST)  # the oldest makes room
        for value in order:
            assert m.peek() == value == m.pop()
        for empty in (m.peek, m.pop):
            with pytest.raises(bpf.KeyNotFound, match="empty"):
                empty()
        for refused in (
            lambda: 1 in m,
            lambda: m[1],
            lambda: list(m),
            m.next_key,
            lambda: m.get(1),
        ):
            with pytest.raises(bpf.NotSupported):
                refused()


@kernel
def test_oracle_bloom_filters_know_what_they_hold():
    with created(bpf.BPF_MAP_TYPE_BLOOM_FILTER, None, Value, 1000, map_extra=3) as m:
        assert Value(1, 1) not in m and m.info.map_extra == 3
        for number in range(100):
            m.push(Value(number, number))
        assert all(
            Value(number, number) in m and bytes(Value(number, number)) in m
            for number in range(100)
        )
        assert sum(Value(number, 0) in m for number in range(1, 1001)) < 200
        for wrong in (7, b"short", Key()):
            with pytest.raises(bpf.LayoutError):
                assert wrong in m


@kernel
@pytest.mark.parametrize(
    "size, prefixes, matches",
    [
        (
            8,
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3"],
            {"10.1.2.3": 3, "10.1.2.4": 2, "10.2.0.0": 1, "10.1.0.0/15": 1, "11.0.0.0": 0},
        ),
        (
            20,
            ["2001:db8::/32", "2001:db8:1::/48", "::ffff:10.0.0.0/104"],
            {"2001:db8::1": 0, "2001:db8:1::1": 1, "::ffff:10.9.9.9": 2, "2001:db9::": None},
        ),
    ],
)
def test_oracle_lpm_tries_find_the_longest_match(size, prefixes, matches):
    if size == 20:
        ipv6()
    with Map.create(LPM, key_size=size, value=u32, max_entries=8, flags=bpf.BPF_F_NO_PREALLOC) as m:
        for number, prefix in enumerate(prefixes):
            m[bpf.lpm_key(prefix)] = number
        assert {address: m.get(bpf.lpm_key(address)) for address in matches} == matches
        assert dict(m.items()) == {
            bpf.lpm_key(prefix): number for number, prefix in enumerate(prefixes)
        }
        m.delete(bpf.lpm_key(prefixes[1]))
        with pytest.raises(bpf.KeyNotFound):
            m.delete(bpf.lpm_key(prefixes[1]))  # exact, though a shorter one still matches


class Locked(ctypes.Structure):
    """A value with a lock in it."""

    _fields_ = [("lock", u32), ("n", u32)]


@kernel
@pytest.mark.parametrize("map_type", [HASH, ARRAY])
def test_oracle_locked_values(map_type):
    with Map.create(
        map_type, u32, Locked, 4, btf=load_btf(lock_types()), btf_key=1, btf_value=3
    ) as m:
        m.update(0, Locked(0xFF, 5), bpf.BPF_F_LOCK)
        out, lock = Locked(), bpf.BPF_F_LOCK
        # the lock itself is hidden
        assert m.lookup_into(0, out, lock) and (out.lock, out.n) == (0, 5)
        assert m.lookup(0, lock).n == m.get(0, flags=lock).n == m[0].n == 5
        assert m.lookup_bytes(0, lock) == bytes(out)
        assert m.update_batch([1, 2], [Locked(0, 6), Locked(0, 7)], lock) == 2
        assert [m.lookup(key, lock).n for key in range(3)] == [5, 6, 7]
        assert {key: value.n for key, value in m.items() if value.n} == {0: 5, 1: 6, 2: 7}
        found = {
            key: value.n
            for keys, values in m.lookup_batch()
            for key, value in zip(keys, values)
            if value.n
        }
        assert found == {0: 5, 1: 6, 2: 7}
        if map_type == HASH:
            if KERNEL >= (5, 14):
                assert m.lookup_and_delete(1, lock).n == 6
            else:
                m.delete(1)
            assert m.get(1, flags=lock) is None and m.delete_batch([0]) == 1
            with pytest.raises(bpf.KeyNotFound):
                m.update(1, Locked(), bpf.BPF_EXIST | lock)
        with pytest.raises(bpf.KeyExists):
            m.update(2, Locked(), bpf.BPF_NOEXIST | lock)
        if KERNEL >= (6, 2):
            with pytest.raises(bpf.NotSupported):
                m.freeze()
    with Map.create(map_type, u32, Locked, 4) as plain:  # without the BTF that tells of the lock
        for refused in (
            lambda: plain.lookup(0, lock),
            lambda: plain.update(0, Locked(), lock),
            lambda: plain.update_batch([0], [Locked()], lock),
        ):
            with pytest.raises(bpf.InvalidArgument):
                refused()


# -- what other programs wrote


@kernel
def test_a_map_that_bpftool_made_and_filled_is_read(bpffs):
    pin = os.path.join(bpffs, "made")
    bpftool(
        "map",
        "create",
        pin,
        "type",
        "hash",
        "key",
        "8",
        "value",
        "16",
        "entries",
        "10",
        "name",
        "made",
    )
    rng = random.Random(1)
    for src in range(10):
        key = Key(src, rng.randrange(1 << 16), 6, 0)
        value = Value(rng.randrange(1 << 64), rng.randrange(1 << 64))
        bpftool(
            "map", "update", "pinned", pin, "key", *list(bytes(key)), "value", *list(bytes(value))
        )
        m = Map.from_pin(pin, Key, Value)
        assert bytes(m[key]) == bytes(value) and m[key].packets == value.packets
        told = bpftool("map", "lookup", "pinned", pin, "key", *bytes(key))
        assert listed_bytes(told["value"]) == bytes(m[key]) == m.lookup_bytes(key)
    dumped = bpftool("map", "dump", "pinned", pin)

    def as_bytes(words):
        return bytes(int(word, 16) for word in words)

    assert {as_bytes(entry["key"]): as_bytes(entry["value"]) for entry in dumped} == {
        bytes(key): bytes(value) for key, value in m.items()
    }


@kernel
def test_maps_that_bpftrace_fills_are_read():
    running = subprocess.Popen(
        [
            program("bpftrace"),
            "-e",
            'interval:ms:50 { @h%d[cpu, "abc"] = count(); @p%d[7] = 1234; }' % (RUN, RUN),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:

        class Hit(ctypes.Structure):
            _fields_ = [("cpu", u64), ("text", ctypes.c_char * 4)]
            _pack_ = 1
            _layout_ = "ms"

        end = time.time() + 30
        while time.time() < end and running.poll() is None:
            try:
                plain, hits = [
                    Map.from_name("AT_%s%d" % (letter, RUN), ctype, u64)
                    for letter, ctype in (("p", u64), ("h", Hit))
                ]
                if 7 in plain and list(hits):
                    break
            except bpf.MapNotFound:
                pass
            time.sleep(0.2)
        else:
            pytest.fail("bpftrace made no maps: %s" % running.stderr.read())
        assert plain[7] == 1234 and hits.type == PERCPU_HASH
        os.kill(running.pid, signal.SIGSTOP)  # its programs go on: compare between two readings
        key = next(iter(hits))
        assert key.text == b"abc" and key.cpu in bpf.possible_cpus()
        before = hits[key]
        told = bpftool("map", "lookup", "id", hits.id, "key", *bytes(key))["values"]
        after = hits[key]
        middle = [int.from_bytes(listed_bytes(cpu["value"]), sys.byteorder) for cpu in told]
        assert all(low <= value <= high for low, value, high in zip(before, middle, after))
        assert sum(after) > 0
        told = bpftool("map", "lookup", "id", plain.id, "key", *bytes(u64(7)))
        assert listed_bytes(told["value"]) == plain.lookup_bytes(7) == bytes(u64(1234))
    finally:
        os.kill(running.pid, signal.SIGCONT)
        running.kill()
        running.communicate()


@kernel
def test_the_demos_program_counts_what_a_socket_receives():
    loopback()
    with Map.create(HASH, bpf._Ports, bpf._Traffic, 16) as flows, Map.create(
        PERCPU_ARRAY, u32, u64, 1
    ) as total:
        receiver, sender = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        with receiver, sender:
            receiver.bind(("127.0.0.1", 0))
            sender.bind(("127.0.0.1", 0))
            loaded = bpf._load_program(bpf._counting_program(flows.fd, total.fd), "test")
            receiver.setsockopt(socket.SOL_SOCKET, 50, loaded.number)
            for size in range(20):
                sender.sendto(bytes(size), receiver.getsockname())
                assert len(receiver.recv(100)) == size
            key = bpf._Ports(sender.getsockname()[1], receiver.getsockname()[1])
        assert (flows[key].packets, flows[key].bytes) == (20, sum(range(20)) + 8 * 20)
        assert bytes(key) == key.source.to_bytes(2, "big") + key.destination.to_bytes(2, "big")
        told = bpftool("map", "lookup", "id", flows.id, "key", *bytes(key))["value"]
        assert listed_bytes(told) == bytes(flows[key])
        told = bpftool("map", "lookup", "id", total.id, "key", 0, 0, 0, 0)["values"]
        raw = [listed_bytes(cpu["value"]) for cpu in told]
        assert [int.from_bytes(value, sys.byteorder) for value in raw] == total[0]
        assert sum(total[0]) == 20 and [cpu["cpu"] for cpu in told] == list(bpf.possible_cpus())


# What it stores under the first two keys, as one reads there (on little-endian machines); but for "big", whose
# enumerators compilers before enum64 cut.
FOUR, EIGHT = struct.pack("=I", 0x01020304), struct.pack("=Q", 0x0807060504030201)
EVERY = {
    "name": "hello",
    "text": "\\xff\1",
    "code": 99,
    "yes": True,
    "tiny": "SOME",
    "signs": [[0] * 3, [0, 0, -3]],
    "packed": [dict.fromkeys(("tag", "wide", "odd"), 0), {"tag": 1, "wide": 0x12345678, "odd": -2}],
    "grid": [[[0] * 3, [0] * 3], [[0, 0, 65535], [0] * 3]],
    "five": -5,
    "seven": 33,
    "crossing": -0x76543210,
    "one": 1,
    "three": 5,
    "flag": True,
    "hue": "BLUE",
    "whole": 0xFEDCBA98,
    "forty": 0x123456789A,
    "color": "GREEN",
    "colors": ["RED", "6"],
    "mood": "BAD",
    "inner": {
        "odd": -1,
        "u": {
            "number": 0x01020304,
            "bytes": list(FOUR),
            "lower": struct.unpack("=H", FOUR[:2])[0],
            "pair": [struct.unpack("=H", FOUR[2:])[0], 0],
        },
    },
    "next": "0x0",
    "x": 41,
    "y": -1,
    "deep": 0x0807060504030201,
    "deeper": [list(EIGHT[:4]), list(EIGHT[4:])],
    "raw": list(struct.pack("=2i", 41, -1) + EIGHT),
    "qualified": 9,
    "call": "0xffff888000001234",
    "opaque": "0x0",
    "wide": -7,
    "uwide": 1 << 64,
    "tail": [],
}


@kernel
def test_btf_values_are_what_the_source_of_the_program_says(every, every_object):
    with Map.from_pin(every("hash")) as m:
        first, second, third = sorted(m, key=bytes)
        assert bpf.to_python(first) == dict(
            zip("abcd", struct.pack("=I", 0x01020300)),
            word=0x01020300,
            ends=[{"port": 80}, {"port": 65535}],
            color="GREEN",
            low=5,
            mid=1000,
            high=0x70000,
        )
        for key in (first, second):
            plain = bpf.to_python(m[key])
            assert json.loads(bpf.to_json(m[key])) == plain
            # enum64 came in 6.0
            assert plain.pop("big") in ("LARGE", str(ENUMS["LARGE"])) or KERNEL < (6, 0)
            assert plain == EVERY
        value = m[first]
        assert value == m[second] != m[third] and hash(value) == hash(m[second])
        assert (value.name, value.code, value.yes, value.tiny) == (b"hello", 99, True, 100)
        assert (value.signs[1][2], value.packed[1].wide, value.grid[1][0][2]) == (
            -3,
            0x12345678,
            65535,
        )
        assert (value.five, value.seven, value.crossing, value.three) == (-5, 33, -0x76543210, 5)
        assert (value.forty, value.wide, value.uwide) == (0x123456789A, -7, 1 << 64)
        assert (value.x, value.deeper[1][3], value.raw[0]) == (41, EIGHT[7], EVERY["raw"][0])
        assert value.inner.u.pair[0] == EVERY["inner"]["u"]["pair"][0]
        assert value.call == 0xFFFF888000001234 and value.opaque == 0 and len(value.tail) == 0
        # bits by keyword, too
        key = m.key_type(word=0x01020301, color=7, low=6, mid=1000, high=0x70001)
        key.ends[0].port, key.ends[1].port = 81, 65535
        assert key == second and hash(key) == hash(second) and m[key] == value
        assert "crossing=-1985229328" in repr(value) and "mid=1000" in repr(key)
        table = bpf.describe_layout(m.value_type)
        assert "27     6    signs: s8 [2][3]\n" in table
        assert "73:4   4:1    crossing: s64:33\n" in table
        compiled_types = BTF.from_file(every_object)
        assert compiled_types.sizeof("every") == m.value_size == m.btf.sizeof("struct every")
        assert all(
            compiled_types.offsetof("every", path) == m.btf.offsetof("every", path)
            for path in plain
        )
    with Map.from_pin(every("floats")) as m:
        if KERNEL >= (5, 13):  # before, libbpf takes floating point out of what it loads
            assert bpf.to_python(m[0]) == {
                "d": 3.141592653589793,
                "f": -0.5,
                "more": [float("inf"), -1.0],
            }
    with Map.from_pin(every("every_rodata")) as m:
        assert bpf.to_python(m[0]) == {"limit": 7, "greeting": "hello"} and m.info.frozen
    with Map.from_pin(every("kptrs")) as m:
        if KERNEL >= (5, 17):  # before, type tags
            assert [member[4] for member in m.btf.members("held")] == [(), ("kptr",)]
            assert "task: task_t __kptr *" in bpf.describe_layout(m.value_type)
        assert bpf.to_python(m[0]) == {"id": 0, "task": "0x0"}


@kernel
def test_btf_decoding_agrees_with_bpftool(every):
    compared = set()
    for name in every.names:
        if name in ("floats", "flow"):  # bpftool has no floating point; the other is empty
            continue
        with Map.from_pin(every(name)) as m:
            told = dumped("pinned", every(name))
            assert {raw_key(m.key_type, key) for key in m} == set(told)
            for key, value in m.items():
                expected, ours = told[raw_key(m.key_type, key)], bpf.to_python(value)
                assert "key" not in expected or agree(bpf.to_python(key), expected["key"]), (
                    key,
                    expected,
                )
                if name.startswith("percpu"):
                    assert [cpu["cpu"] for cpu in expected["values"]] == list(bpf.possible_cpus())
                    theirs = [cpu["value"] for cpu in expected["values"]]
                elif "key" in expected:
                    theirs = expected["value"]
                else:  # {section: [{variable: value}, ...]}
                    theirs = {
                        label: one[label]
                        for one in expected["value"][m.value_type.__name__]
                        for label in one
                    }
                assert agree(ours, theirs), (ours, theirs)
                compared.add(name)
    assert compared == {
        "hash",
        "scratch",
        "percpu_hash",
        "percpu_array",
        "lru",
        "rows",
        "moods",
        "locks",
        "kptrs",
        "every_data",
        "every_bss",
        "every_rodata",
    }


@kernel
def test_btf_numbers_are_written_and_scanned(every):
    with Map.from_pin(every("moods"), mode="rw") as m:  # numbers: s64 -> enum
        assert dict(m) == {0: m[0], -1: 1, -2: 1}
        assert set(m) == {0, -1, -2}
        assert m[0] & 0xFFFFFFFF == 0xFFFFFFFE
        m[-5] = 7
        m.update(-6, m.value_type(1), bpf.BPF_NOEXIST)
        out = m.value_type()
        assert m.lookup_into(-5, out)
        assert out.value == 7 == m.get(-5)
        assert -6 in m
        assert m.get(-7) is None
        with pytest.raises(bpf.LayoutError):
            m[1 << 63] = 0


@kernel
def test_btf_arrays_of_structures_are_written_scanned_and_batched(every):
    with Map.from_pin(every("rows"), mode="rw") as m:  # u64 -> struct inner[3]
        row, inner = m[2], m.btf.ctype("inner")
        assert row._type_ is inner and len(row) == 3 and (row[0].odd, row[2].u.number) == (-2, 2)
        assert list(row[2].u.bytes) == list(struct.pack("=I", 2))
        row[1].u.pair[1] = 77
        m[9] = row
        m[10] = m.value_type(inner(odd=5), inner(), row[2])
        assert bpf.to_python(m[9])[1]["u"]["pair"] == [0, 77]
        assert m[10][0] == inner(odd=5) and m[10][2] == row[2] != row[1]
        assert m.lookup_bytes(9) == bytes(row) and m.lookup_into(10, row) and row[0].odd == 5
        for foreign in (inner(), (u8 * 36)(), bytes(35), 5):
            with pytest.raises(bpf.LayoutError):
                m[1] = foreign
        got = {
            key: bpf.to_python(value)
            for keys, values in m.lookup_batch(2)
            for key, value in zip(keys, values)
        }
        assert got == {key: bpf.to_python(value) for key, value in m.items()}
        assert set(got) == {0, 1, 2, 9, 10}
        assert m.update_batch([20, 21], [row, bytes(36)]) == 2
        assert m[20][0].odd == 5
        assert bytes(m[21]) == bytes(36)
        assert m.delete_batch([20, 21, 9]) == 3
        drained = [list(keys) for keys, _ in m.lookup_and_delete_batch()]
        assert sorted(sum(drained, [])) == [0, 1, 2, 10] and list(m) == []


@kernel
def test_btf_structures_are_written_scanned_and_batched(every):
    with Map.from_pin(every("hash"), mode="rw") as m:  # struct key -> struct every
        entries = dict(m)
        assert (
            set(m) == set(entries) == {m.key_type.from_buffer_copy(bytes(key)) for key in entries}
        )
        for keys, values in m.lookup_batch():
            assert all(entries[key] == value == m[key] for key, value in zip(keys, values))
        key = m.key_type(low=7)
        value = next(iter(entries.values()))
        value.crossing = -(1 << 32)
        value.five = 15
        value.wide = -(1 << 127)
        value.forty = (1 << 40) - 1
        m[key] = value
        again, told = m[bytes(key)], dumped("pinned", every("hash"))[bytes(key)]["value"]
        assert again == value and agree(bpf.to_python(again), told)
        assert (again.crossing, again.five, again.wide, again.forty) == (
            -(1 << 32),
            15,
            -(1 << 127),
            (1 << 40) - 1,
        )
        with pytest.raises(bpf.LayoutError):
            value.five = 16
        with pytest.raises(bpf.KeyNotFound, match="no such key: .*'low': 6"):
            m[m.key_type(low=6)]


@kernel
def test_btf_values_of_all_cpus_and_arrays_as_keys_are_written(every):
    with Map.from_pin(every("percpu_hash"), mode="rw") as m:
        m[3] = [m.value_type(odd=cpu) for cpu in range(len(bpf.possible_cpus()))]
        assert [value.odd for value in m[3]] == list(range(len(bpf.possible_cpus())))
    with Map.from_pin(every("lru"), mode="rw") as m:  # u16[2] -> s64
        m[m.key_type(5, 6)] = -9
        assert m[bytes(m.key_type(5, 6))] == -9
        assert sorted(bpf.to_python(list(m))) == [[0, 7], [1, 7], [2, 7], [5, 6]]


# ---- 7. Inspection ----------------------------------------------------------
# Lists of maps, their users, their types by name.

NAMED_C = r"""
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
struct plain { u8 a; u32 b; };
struct packed { u8 a; u64 b; } __attribute__((packed));
struct wide { unsigned __int128 a; u8 b; };
struct bits { u32 a:3, b:29; u16 c; };
union either { u8 a[3]; u16 b; };
struct aligned { u8 a; } __attribute__((aligned(16)));
struct deep { struct packed p[2]; struct plain q; };
enum kind { ONE = 1, TWO };
typedef struct plain plain_t;
typedef enum kind kind_t;
struct all { u8 a; struct plain plain; u8 b; struct packed packed; u8 c; struct wide wide; u8 d; struct bits bits; u8 e;
    union either either; u8 f; struct deep deep; u8 g; plain_t typed; u8 h; enum kind kind; u8 i; kind_t one[3]; struct plain *next;
    u8 j; u16 k __attribute__((aligned(8))); u8 last; };
struct all all;
struct odd { u8 a; struct aligned b; };
struct odd odd;
"""


@pytest.fixture(scope="module")
def named_o(tmp_path_factory):
    """A compiled object with the types of NAMED_C."""
    return bpf_object(tmp_path_factory.mktemp("named"), "n", NAMED_C)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMFILE, errno.EIO, errno.ENOENT])
def test_lists_of_what_there_is_leave_out_what_goes_away_alone(kernel_is, code):
    """An id whose map can't be opened for another reason than that is no map less, but an error."""
    told = iter([0, -code, 0, -errno.ENOENT, -errno.ENOENT])
    asked = []

    def answer(number, cmd, ref, size):
        asked.append(cmd)
        return next(told)

    kernel_is(answer)
    if code == errno.ENOENT:
        assert list(bpf.maps()) == [] and len(asked) == 5
    else:
        with pytest.raises(bpf.SyscallError) as info:
            list(bpf.maps())
        assert info.value.errno == code and len(asked) == 2


@kernel
def test_users_are_those_of_this_map_and_no_other():
    """Processes and programs; one that holds another map is none."""
    with Map.create(HASH, u32, u64, 4) as flows:
        with Map.create(PERCPU_ARRAY, u32, u64) as total, Map.create(ARRAY, u32, u32) as other:
            # of its program and the process that makes it, of a child, of nobody but us
            code = insn_map(1, flows.fd) + insn_map(1, total.fd) + RETURN_0
            loaded = load(bpf.BPF_PROG_TYPE_SOCKET_FILTER, code)
            fd = os.dup(flows.fd)
            os.set_inheritable(fd, True)
            child = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[fd]
            )
            os.close(fd)
            try:
                found = [bpf.users(m.id) for m in (flows, total, other)]
            finally:
                child.communicate(b"\n")
            del loaded
    pids = [[text.rpartition("(")[2] for text in one["pids"]] for one in found]
    ours, theirs = "%d)" % os.getpid(), "%d)" % child.pid
    assert all(ours in one for one in pids)
    assert [theirs in one for one in pids] == [True, False, False]
    assert [len(one["progs"]) for one in found] == [1, 1, 0]


@kernel
def test_who_asks_is_no_user_of_the_map(flows):
    me = "(%d)" % os.getpid()

    def listed(*asking):
        return any(text.endswith(me) for text in bpf.users(flows.id, asking)["pids"])

    assert listed() and not listed(flows) and not listed(flows.fd)
    with open("/proc/self/comm") as file:
        comm = file.read().rstrip("\n")
    assert comm + me in bpf.users(flows.id)["pids"]
    with Map.from_id(flows.id) as other:
        assert listed(other) and listed(flows) and not listed(flows, other)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[flows.fd])
    try:
        pids = [text.rpartition("(")[2] for text in bpf.users(flows.id, [flows])["pids"]]
        assert "%d)" % child.pid in pids and me[1:] not in pids
    finally:
        child.kill()
        child.wait()


def test_a_name_in_c_text_lies_where_the_compiler_puts_it(named_o):
    btf = BTF.from_file(str(named_o))
    body = re.search(r"struct all (\{.*?\});", NAMED_C, re.DOTALL).group(1)

    def names(kind, name):
        return btf.layout(btf.find(name, kind))

    found, wanted = bpf._c_text_layout("struct all " + body, names), btf.layout("all")

    def places(layout):
        return [(one.name, one.offset, one.layout.size) for one in layout.members]

    assert places(found) == places(wanted) and found.size == wanted.size
    assert bpf._c_text_layout("plain_t[3]", names).size == 24
    assert [one.offset for one in bpf._c_text_layout("u8 a, plain_t b, u8 c", names).members] == [
        0,
        32,
        96,
    ]
    for text, part in (
        ("struct nope", "declared neither"),
        ("nope_t", "'nope_t'"),
        ("struct { nope_t a; }", "'nope_t'"),
    ):
        with pytest.raises(bpf.LayoutError) as info:
            bpf._c_text_layout(text, lambda kind, name: None)
        assert part in str(info.value)


@kernel
def test_types_are_named_in_btf_of_the_map_its_programs_the_kernel_and_files(
    pins, named_o, tmp_path
):
    plain, pairs = pins + "/w_plain", pins + "/w_pairs"
    one = json.loads(
        done("--ndjson", "--key-type", "enum proto", "--value-type", "u8[5]", "dump", plain)
    )
    assert one == {"key": "TCP", "value": [1, 2, 3, 4, 5]}  # w_plain has no BTF, its program has
    assert done("--key-type", "struct slot", "dump", pairs) == done("dump", pairs)
    with Map.create(HASH, None, None, 4, key_size=20, value_size=8) as m:
        m[bytes([0x45, 0, 0, 20] + [0] * 4 + [64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2])] = (
            bytes(u32(5)) * 2
        )
        types = ["--key-type", "struct iphdr", "--value-type", "plain_t"]
        btf = ["--btf", str(named_o)]
        out = done(*types[:2], "--value-type", "u32[2]", "dump", "id", m.id)
        assert "ihl=5 version=4" in out
        assert "saddr=10.0.0.1 daddr=10.0.0.2" in out
        assert out.count("5 5") == 1
        assert "'plain_t'" in main(*types, "dump", "id", m.id)[2]
        # no iphdr in that file
        assert "declared neither" in main(*types, *btf, "dump", "id", m.id)[2]
        assert "a=5 b=5" in done("--key-type", "u8[20]", *types[2:], *btf, "dump", "id", m.id)
        assert "has 3" in main("--value-type", "struct task_struct", "dump", "id", m.id)[2]
        file = str(tmp_path / "c")
        done("save", "id", m.id, file)
        captured = ["--from", file, "--key-type", "u8[20]"] + types[2:]
        assert "'plain_t'" in main(*captured, "dump")[2]  # not of whatever kernel runs here
        assert "a=5 b=5" in done(*captured, *btf, "dump")


@kernel
def test_many_names_take_one_look_at_what_knows_them(vmlinux, monkeypatch):
    class Program:
        btf_id = (1 << 31) - 1  # of one that has gone since

    with Map.create(HASH, u32, u64, 4) as m:
        walks, reads = [], []

        def walk(*_):
            return walks.append(1) or [(7, (Program, [m.id]))]

        def read(path):
            return reads.append(path) or vmlinux

        monkeypatch.setattr(bpf, "_read_ids", walk)
        monkeypatch.setattr(BTF, "from_file", read)
        text = "struct { pid_t a; gfp_t b; ktime_t c; struct iphdr d; }"
        found = bpf._c_text_layout(text, bpf._TypeNames(m).layout)
        assert [one.layout.size for one in found.members] == [4, 4, 8, 20]
        assert (len(walks), len(reads)) == (1, 1)


# ---- 8. Views and captures --------------------------------------------------
# JSON against bpftool's, lines, histograms against the tools that draw them, metrics against Prometheus' parsers,
# captures.


def raw_entries(pin):
    """Return {key: value} of a pinned map as bytes; values of CPUs are lists."""
    with Map.from_pin(pin, bytes, bytes) as m:
        return dict(m.items())


def parsed(text):
    """Return [(metric, labels, value)] as both of prometheus_client's parsers read it."""
    parsers = [
        pytest.importorskip("prometheus_client." + name)
        for name in ("openmetrics.parser", "parser")
    ]
    families = [
        [
            (sample.name, sample.labels, sample.value)
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
        ]
        for parser in parsers
    ]
    assert families[0] == families[1] and text.endswith("# EOF\n")
    return families[0]


def series_of(m, *types):
    """Return [(family, labels, value)] of a map's metrics, having proved each series unique and each name legal."""
    samples = parsed(done(*list(types), "--metrics", "dump", "id", m.id))
    identities = [(name, tuple(sorted(labels.items()))) for name, labels, _ in samples]
    assert len(set(identities)) == len(identities)
    for name, labels, _ in samples:
        assert re.match("[a-zA-Z_:][a-zA-Z0-9_:]*$", name)
        for label in labels:
            assert re.match("[a-zA-Z_][a-zA-Z0-9_]*$", label) and label[:2] != "__"
            assert label not in ("le", "quantile")
    return samples


def linted(text, own=()):
    """Return {family: kind} of metrics, having proved that promtool has nothing to say but of users' own names, that each
    family is there once, and no series twice.
    """
    result = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = [line for line in result.stdout.decode().splitlines() if line]
    said = [line for line in said if not line.split(" ", 1)[0].endswith(tuple(own) or "\0")]
    assert not said, said
    kinds = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line[:1] != "#"]
    assert len(set(helps)) == len(helps) and set(helps) == set(kinds)
    assert text.count("# TYPE") == len(kinds) and len(set(series)) == len(series)
    return kinds


def text_samples(text):
    """Return [(metric, labels, value)] as Prometheus' own text format is read, {family: type}."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(text))
    samples = [sample[:3] for family in families for sample in family.samples]
    return samples, {family.name: family.type for family in families}


MEANT_KEY = "struct { __be32 saddr; __be16 dport; u16 zone; }"
MEANT_VALUE = "struct { u64 bytes, seen; u32 pid, uid; u64 at; }"
MEANT_SHOW = ["--show", "bytes=bytes,seen=ktime", "--show=pid=pid,uid=uid,at=ksym"]


@pytest.fixture
def meant_flows():
    """A map of two entries and the words that tell its types."""
    key, value = bpf.layout(MEANT_KEY), bpf.layout(MEANT_VALUE)
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 10**9)
    at = next(address for address, name in kernel_symbols() if name == "tcp_sendmsg")
    with Map.create(HASH, key.ctype(), value.ctype(), 8) as m:
        for port, count, uid in ((443, 1536, 0), (53, 7, 4000000000)):
            m[key.pack({"saddr": "10.0.0.1", "dport": port, "zone": 0})] = value.pack(
                {"bytes": count, "seen": now - 10**9, "pid": os.getpid(), "uid": uid, "at": at + 16}
            )
        yield m, ["--key-type", MEANT_KEY, "--value-type", MEANT_VALUE]


CAPTURED = (
    "w_hash",
    "w_array",
    "w_pc_hash",
    "w_pc_array",
    "w_lru",
    "w_lru_pc",
    "w_lpm",
    "w_outer",
    "w_houter",
    "w_prog",
    "w_plain",
    "w_dev",
    "w_pairs",
    "w_real",
    "w_bss",
    "w_data",
    "w_rodata",
    "w_trace",
)


@pytest.fixture
def captures(pins):
    """A directory that anybody can read, with a capture of each map."""
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o755)
    for name in CAPTURED:
        out = done("map", "save", "pinned", os.path.join(pins, name), os.path.join(directory, name))
        assert re.match(r"\d+ entr", out)
    yield directory
    shutil.rmtree(directory)


# -- JSON: bpftool's, value for value


@kernel
def test_json_of_what_a_program_filled_is_bpftools(pins):
    names = sorted(name for name in os.listdir(pins) if name != "fill")
    kinds = {
        equal_json("show", "pinned", os.path.join(pins, name), option=option)["type"]
        for name in names
        for option in ("-j", "-p", "-jf")
    }
    assert len(kinds) >= 14 and len(names) >= 20
    assert json.loads(done("-j", "dump", pins + "/w_real"))[0]["formatted"] == {
        "key": 6,
        "value": 1.5,
    }
    for name in names:
        pin = ["pinned", os.path.join(pins, name)]
        if name == "w_real":  # of which bpftool makes "(unsupported-kind"
            continue
        keys = [] if name in ("w_queue", "w_stack", "w_bloom") else sorted(raw_entries(pin[1]))[:3]
        for words in (["dump"], ["getnext"]) + (
            (["peek"], ["lookup"]) if name in ("w_queue", "w_stack") else ()
        ):
            equal_json(*words, *pin)
        for key in keys + [b"\xff" * len(key) for key in keys[:1]]:
            for option, data in ("-j", list(key)), ("-pj", ["hex"] + ["%x" % byte for byte in key]):
                equal_json("getnext", *pin, "key", *data, option=option)
                found = equal_json("lookup", *pin, "key", *data, option=option)
                assert key not in keys or found["key"] == ["0x%02x" % byte for byte in key]
        if name in ("w_queue", "w_stack"):
            whole = bpftool("map", "pop", *pin)
            bpftool("map", "push", *pin, "value", *whole["value"])
            assert json.loads(done("-j", "map", "dequeue", *pin)) == whole
            assert equal_json("pop", *pin) is None and equal_json("peek", *pin) is None


@kernel
@pytest.mark.parametrize("state", ["empty", "one"])
@pytest.mark.parametrize("label", sorted(SHAPES))
def test_json_of_every_type_is_bpftools(label, state, cgroup):
    scene = Scene(label, cgroup, state)
    with scene.open:
        m = ["id", scene.m.id]
        if label not in ("arena", "cgrp_storage"):  # newer than bpftool 7.1, which says 33
            equal_json("show", *m)
        # a key of no entry
        surplus = label.endswith("cgroup_storage") and state == "one" and KERNEL < (6, 1)
        if not surplus:
            equal_json("dump", *m)
        equal_json("getnext", *m)
        if label != "bloom_filter":  # there bpftool looks up what its own buffer holds
            equal_json("peek", *m)
        if not scene.m.key_size or label.endswith("_storage") and "cgroup" not in label:
            return  # keys are descriptors of a process
        key = scene.m.next_key()
        key = bytes(scene.m.key_size) if key is None else raw_key(scene.m.key_type, key)
        for data in key, b"\x55" * len(key):
            equal_json("lookup", *m, "key", *list(data))
            equal_json("getnext", *m, "key", *list(data))
        if label != "struct_ops":
            equal_json("delete", *m, "key", *list(data))
        if label in ("hash", "lru_hash", "lpm_trie", "percpu_hash") and state == "one":
            assert done("-j", "delete", *m, "key", *list(key)) == "null\n"
            assert equal_json("dump", *m) == []


@kernel
@pytest.mark.parametrize("kind", ["sockmap", "sockhash", "reuseport_sockarray"])
@pytest.mark.parametrize("size", [4, 8])
def test_a_value_that_cant_be_read_is_that_entrys_error(kind, size):
    """Sockets in values of 4 bytes, which only programs can use, and of 8, which lookups give cookies for."""
    map_type = getattr(bpf, "BPF_MAP_TYPE_" + kind.upper())
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        client.connect(server.getsockname())
        with created(map_type, key_size=4, value_size=size, max_entries=3) as m:
            if kind != "reuseport_sockarray":
                m.update(bytes(u32(1)), client)
            found = equal_json("dump", "id", m.id)
            out = done("dump", "id", m.id)
            readable = [entry for entry in found if isinstance(entry["value"], list)]
            assert out.endswith("Found %d element%s\n" % (len(readable), "s"[len(readable) == 1 :]))
            lines = done("--ndjson", "dump", "id", m.id).splitlines()
            there = [entry for entry in found if "No such file" not in str(entry)]
            assert len(lines) == len(there) == out.count("\n") - 1
            for entry, line in zip(there, map(json.loads, lines)):
                assert ("error" in line) == ("error" in entry["value"])
            hexes = done("--hex", "dump", "id", m.id)
            assert hexes.count("<") == len([entry for entry in there if "error" in entry["value"]])


@kernel
@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.ENOMEM, bpf.ENOTSUPP])
def test_a_lookup_that_fails_is_that_entrys_error_alone(code, kernel_is):
    def inject(number, cmd, ref, size):
        if cmd == LOOKUP and ctypes.string_at(ref._obj.elem.key, 4) == bytes(u32(4)):
            return -code
        return real_kernel(number, cmd, ref, size)

    with created(bpf.BPF_MAP_TYPE_DEVMAP_HASH, u32, u32, 8) as m:
        for key in (3, 4, 5):
            m[key] = 1  # the loopback device
        kernel_is(inject)
        for words in (["-j"], ["-p"], ["--ndjson"], []):
            out = done(*words, "dump", "id", m.id)
            if words in (["-j"], ["-p"]):  # the others come all the same, each once
                entries = json.loads(out)
                assert len(entries) == 3 and len({str(entry["key"]) for entry in entries}) == 3
            assert out.count(os.strerror(code)) == (words != [] or code != bpf.ENOTSUPP)


def fail_once(failing, after, code):
    """Return a kernel in which the call of a command fails that comes after so many."""
    left = [after]

    def inject(number, cmd, ref, size):
        if cmd == failing:
            left[0] -= 1
            if left[0] == -1:
                return -code
        return real_kernel(number, cmd, ref, size)

    return inject


@kernel
@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.ENOMEM, bpf.ENOTSUPP])
def test_a_dump_that_breaks_off_is_whole_json(code, kernel_is):
    with created(bpf.BPF_MAP_TYPE_DEVMAP_HASH, u32, u32, 8) as m:
        for key in (3, 4, 5):
            m[key] = 1
        for option in ("-j", "-p"):
            kernel_is(fail_once(bpf.BPF_MAP_GET_NEXT_KEY, 2, code))  # when one entry is out
            status, out, err = main(option, "dump", "id", m.id)
            assert isinstance(json.loads(out), list) and (status == 0 or err.count("\n") == 1)
    name = "b%d_%d" % (code, RUN)
    with Map.create(HASH, u32, u32, 8, name=name) as m, Map.create(
        HASH, u32, u32, 8, name=name
    ) as n:
        m[1] = n[1] = 2
        for option, nth in itertools.product(("-j", "-p"), range(6)):
            kernel_is(fail_once(bpf.BPF_MAP_LOOKUP_BATCH, nth - 1, code))
            status, out, err = main(option, "dump", "name", name)
            assert [one["id"] for one in json.loads(out)][:1] in ([m.id], [])
            assert status == 0 or err.count("\n") == 1


def test_pretty_json_is_indented_by_how_deep_it_lies(tmp_path):
    """However brackets meet, and to the last entry: it once grew with each of them."""
    blob = Blob()
    number, char = blob.int("int", 4), blob.int("char", 1, 2)
    empty, pair = blob.struct("empty", 0), blob.struct("pair", 4, ("n", number, 0))
    inner = blob.struct("inner", 8, ("a", blob.array(pair, 2), 0))
    members = [("in", inner, 0), ("none", empty, 64), ("nil", blob.array(number, 0), 64)]
    value = blob.struct("value", 12, *members, ("c", blob.array(char, 4), 64))
    header = hand_made(blob.data(), {"value": value, "key": number}, value_size=12)
    texts = ["5b5d7b00", "7b225c00", "2c3a2200", "00000000"]  # brackets, quotes, a backslash
    lines = ["%08x 0100000002000000%s" % (at, texts[at % 4]) for at in range(5000)]
    (tmp_path / "c").write_bytes(forged(header, lines))
    out = done("--from", tmp_path / "c", "-p", "dump")
    entries = json.loads(out)
    assert len(entries) == 5000 and entries[0]["formatted"]["value"]["c"] == "[]{"
    assert out == "[%s]\n" % ",\n".join(json.dumps(entry, indent=4) for entry in entries)


# -- lines for programs and for people


@kernel
def test_people_read_aligned_entries(pins):
    lines = done("map", "dump", "pinned", pins + "/w_hash").splitlines()
    assert lines[-1] == "Found 2 elements" and len(lines) == 3
    assert all(
        "src=16777343 port=" in line and "mood=BAD" in line and "high=-7" in line
        for line in lines[:2]
    )
    done("update", pins + "/w_lru", "key", "ICMP", "value", "1")
    lines = done("dump", pins + "/w_lru").splitlines()
    assert sorted(line.split()[0].rstrip(":") for line in lines[:2]) == ["ICMP", "TCP"]
    lines = done("dump", pins + "/w_pc_array").splitlines()
    # 10 and on
    assert len({line.index("[cpu") for line in lines[10 * len(bpf.possible_cpus()) : -1]}) == 1
    for name in ("w_hash", "w_pc_hash", "w_plain"):
        shown = done("--hex", "dump", os.path.join(pins, name)).lower()
        for key, value in raw_entries(os.path.join(pins, name)).items():
            for raw in [key] + (value if isinstance(value, list) else [value]):
                assert raw.hex() in shown.replace(" ", "")
    assert "\033" not in done("dump", pins + "/w_hash") + done("show", pins + "/w_hash")


@kernel
def test_ndjson_is_an_entry_a_line_by_the_short_way_and_the_long(pins, tmp_path):
    for (
        name
    ) in "w_hash w_array w_pc_hash w_pc_array w_lru w_lpm w_pairs w_plain w_outer w_bss".split():
        pin, file = os.path.join(pins, name), str(tmp_path / name)
        with Map.from_pin(pin) as m:
            count = bpf.capture(m, file)
        lines = done("--ndjson", "dump", pin).splitlines()
        assert [json.loads(line) for line in lines] == [
            json.loads(line) for line in done("--ndjson", "--from", file, "dump").splitlines()
        ]
        assert len(lines) == count
        for line in lines[:2]:
            key = json.loads(line)["key"]
            if name not in ("w_plain",):
                again = done(
                    "--ndjson",
                    "lookup",
                    pin,
                    "key",
                    key if isinstance(key, str) else json.dumps(key),
                )
                assert json.loads(again) == json.loads(line)
    line = json.loads(done("--ndjson", "dump", pins + "/w_pairs"))
    assert line == {"key": {"pid": 1, "slot": 2}, "value": 9}


@kernel
def test_ndjson_of_one_entry_is_that_entry_alone():
    with Map.create(HASH, u32, u64, 4) as m, Map.create(QUEUE, None, u32, 4) as queue:
        m.update_batch([1, 2, 3], [10, 20, 30])
        queue.push(7)
        types = ["--ndjson", "--key-type=u32", "--value-type=u64"]
        assert json.loads(done(*types, "lookup", "id", str(m.id), "key", "2")) == {
            "key": 2,
            "value": 20,
        }
        assert json.loads(done("--ndjson", "--value-type=u32", "peek", "id", str(queue.id))) == {
            "value": 7
        }


@kernel
def test_given_types_decode_maps_without_btf(bpffs):
    class Same(ctypes.Structure):
        _fields_ = [
            ("kind", u8),
            ("aligned", u8 * 7),  # i386 would have the next at byte 4, BPF has not
            ("hits", u64 * 2),
            ("who", ctypes.c_char * 3),
            ("port", u16.__ctype_be__),
            ("grid", u32 * 2 * 2),
        ]

    pin = os.path.join(bpffs, "plain")
    types = [
        "--key-type",
        "be32 ip, be16 port, u16 zone",
        "--value-type=u8 kind,u64 hits[2], char who[3],be16 port,u32 grid[2][2]",
    ]
    with Map.create(HASH, key_size=8, value=Same, max_entries=4) as m:
        m.pin(pin)
        done(
            *types,
            "update",
            pin,
            "key",
            "ip=10.0.0.1,port=80,rest=0",
            "value",
            '{"hits": [1, 18446744073709551615], "who": "me", "port": 53, "grid": [[1, 2], [3, 4]], "rest": 0}',
        )
        key = b"\x0a\0\0\1\0\x50\0\0"
        wanted = Same(0, (), (1, (1 << 64) - 1), b"me", 53, ((1, 2), (3, 4)))
        assert m.lookup_bytes(key) == bytes(wanted)
        line = json.loads(
            done(*types, "--ndjson", "lookup", pin, "key", "ip=0x0a000001,port=80,zone=0")
        )
        value = bpf.to_python(wanted)
        del value["aligned"]
        assert line == {"key": {"ip": 0x0A000001, "port": 80, "zone": 0}, "value": value}
        assert "who=me" in done(*types, "dump", pin)
        assert "0a 00 00 01 00 50 00 00" in done("dump", pin)
        for text in ("u32", "u32 a,", "os.system"):
            status, out, err = main("--key-type", text, "dump", pin)
            assert status in (1, 2) and out == "" and err.startswith("bpflookup: ")
        done(
            "--key-type",
            "char[8]",
            "update",
            pin,
            "key",
            "abc",
            "value",
            *(["1"] * ctypes.sizeof(Same)),
        )
        assert m.lookup_bytes(b"abc\0\0\0\0\0") == b"\1" * ctypes.sizeof(Same)


@once
@kernel
def test_dumps_stream_in_bounded_memory(tmp_path):
    peaks = {}
    few, many = 3000, 100000
    for count in (few, many):
        with Map.create(HASH, u32, Value, count) as m:
            m.update_batch((u32 * count)(*range(count)), (Value * count)())
            for words in (["dump"], ["-j", "dump"], ["--ndjson", "dump"], ["save"]):
                status, out, err = python(
                    """
                    import sys, bpflookup as bpf
                    sys.stdout, kept = open("/dev/null", "w"), sys.stdout
                    assert bpf.main(sys.argv[1:]) == 0
                    print([line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line][0], file=kept)
                """,
                    *words,
                    "id",
                    m.id,
                    *([tmp_path / "x"] * (words == ["save"])),
                )
                assert status == 0, err
                peaks[words[0], count] = int(out)
            if count == many:  # it tells how far it is on a terminal, unless the data go there
                _, text = in_a_terminal(["dump", "id", m.id])
                assert "of at most" not in text and text.endswith("Found %d elements\n" % many)
    for (word, count), peak in peaks.items():
        assert peak - peaks[word, few] < 10 << 10, peaks


# -- the values of all CPUs as one


def added_up(plains):
    """Return what several CPUs' plain values say together: numbers added up, of the rest the first."""
    first = plains[0]
    if isinstance(first, dict):
        parts = {name: [one[name] for one in plains] for name in first}
        return {name: ones[0] if name == "mac" else added_up(ones) for name, ones in parts.items()}
    if isinstance(first, list):
        return [added_up(list(elements)) for elements in zip(*plains)]
    if isinstance(first, bool) or not isinstance(first, (int, float)):
        return first
    return sum(plains)


def test_values_of_cpus_are_read_as_one():
    texts = PRINTED + [
        "struct { u64 hits[100]; u32 low:3, mid:10; s8 delta; struct { float f; u16 a; } in[2]; void *p; }",
        "u8[5]",
    ]
    for text in texts:
        found, rng = bpf.layout(text), random.Random(text)
        stride = -(-found.size // 8) * 8
        for _ in range(20):
            raws = [random_bytes(rng, found.size).replace(b"\xff", b"\0") for _ in range(3)]
            whole = b"".join(raw.ljust(stride, b"\xee") for raw in raws)
            plain = found.reader("plain")
            wanted = added_up([plain.one(raw) for raw in raws])
            reader = found.reader("plain", stride, 3)
            assert repr(reader.one(whole)) == repr(wanted)
            assert repr(list(reader.read(whole * 2))) == repr([wanted] * 2)
            assert json.loads(
                found.reader("json", stride, 3).one(whole), parse_float=float
            ) == json.loads(json.dumps(wanted).replace("NaN", "null"))
            assert not isinstance(wanted, dict) or "=" in found.reader("words", stride, 3).one(
                whole
            )
            with pytest.raises(bpf.LayoutError):
                reader.one(whole[:-1])
            with pytest.raises(bpf.LayoutError):
                list(reader.read(whole + whole[:stride]))


def test_a_union_of_cpus_is_that_of_the_first():
    class Which(ctypes.Structure):
        class U(ctypes.Union):
            _fields_ = [("number", u32), ("text", ctypes.c_char * 4)]

        _fields_ = [("kind", u32), ("u", U)]
        _union_ = {"u": ("kind", {2: "number", 6: "text"})}

    reader = bpf.layout(Which).reader("plain", 8, 2)
    numbers = struct.pack("=IIII", 2, 5, 6, 6)
    assert reader.one(numbers) == {"kind": 8, "u": {"number": 11}}


# What is the same on two CPUs: what of it can't be added stays as it is in every form.
OF_CPUS = """struct { __be32 saddr; u32 count; u64 seen; __be32 ip6[4]; u8 src_mac[6]; bool on;
    struct in_addr { __be32 s; } from; struct in6_addr { u8 b[16]; } to; enum { A, B, C } kind; }"""


@kernel
def test_addresses_and_times_are_not_added_up():
    cpus = len(bpf.possible_cpus())
    said = {"saddr": "10.0.0.1", "count": 5, "seen": 10**9, "ip6": "::1", "on": True, "kind": "B"}
    said.update(src_mac="02:00:00:00:00:01", to="fe80::1", **{"from": "10.0.0.2"})
    value, types = bpf.layout(OF_CPUS), ["--key-type", "u32", "--value-type", OF_CPUS]
    times = ["--show", "seen=ktime"]
    raw = value.pack(said)
    with Map.create(PERCPU_HASH, u32, value.ctype(), 4) as m:
        m[1] = [value.ctype().from_buffer_copy(raw)] * cpus
        of_map, one = types + times + ["dump", "id", m.id], value.showing("seen", "ktime")
        for form, single in ((["--ndjson"], one.reader("json")), ([], one.reader("words"))):
            wanted = single.one(raw).replace("count=5", "count=%d" % (5 * cpus))
            wanted = wanted.replace('"count":5,', '"count":%d,' % (5 * cpus))

            def no_age(text):
                return re.sub(r" \(.* ago\)|\.\d{6}", "", text)

            assert no_age(wanted) in no_age(done(*form, *of_map, "sum"))
        for text in said:
            if text != "count":
                condition = "%s=%s" % (text, said[text])
                assert "Found 1 " in done(*of_map, "where", condition), condition
        assert "Found 1 " in done(*of_map, "where", "count=%d" % (5 * cpus))
        samples = done("--metrics", *types, *times, "dump", "id", m.id).splitlines()
        added = [line for line in samples if line[0] != "#" and ",cpu=" not in line]
        assert [line.split("{")[0].rpartition("_")[2] for line in added] == ["count"], added


@kernel
def test_sum_shows_an_entry_of_all_cpus():
    cpus = len(bpf.possible_cpus())
    declared = "struct { u32 count; u64 took; enum { IDLE, BUSY } state; }"
    types = ["--key-type", "u32", "--value-type", declared]
    with Map.create(PERCPU_HASH, u32, bpf.layout(declared).ctype(), 4) as m:
        value = m.value_layout
        m[1] = [
            value.ctype().from_buffer_copy(
                value.pack({"count": 0xFFFFFFFF, "took": cpu, "state": "BUSY"})
            )
            for cpu in range(cpus)
        ]
        want = [cpus * 0xFFFFFFFF, cpus * (cpus - 1) // 2]
        out = done(*types, "dump", "id", m.id, "sum")
        assert out == "1: count=%d took=%d state=BUSY\nFound 1 element\n" % tuple(want)
        out = done(
            *types, "--ndjson", "dump", "id", m.id, "sum", "columns", "count", "where", "took>=0"
        )
        assert json.loads(out) == {"key": 1, "value": {"count": want[0]}}
        assert "bpftool's JSON" in main(*types, "-j", "dump", "id", m.id, "sum")[1]
        out = done(*types, "--show", "count=bytes", "dump", "id", m.id, "sum")
        assert "count=%sGiB" % ("%.2f" % (want[0] / (1 << 30))).rstrip("0").rstrip(".") in out
    with Map.create(HASH, u32, u32, 4) as m:
        assert "this map has one" in refused("dump", "id", m.id, "sum")


# -- histograms: slots of bcc, bpftrace and libbpf-tools


def bcc_log2(counts):
    """Return [(low, high, count, stars)], the rows of bcc's print_log2_hist (src/python/bcc/table.py)."""
    last, top = max(i for i, count in counts.items() if count), max(counts.values())
    rows, width = [], 40 if last <= 32 else 20
    for i in range(1, last + 1):
        low, high = (1 << i) >> 1, (1 << i) - 1
        low -= low == high
        rows.append((low, high, counts.get(i, 0), int(width * counts.get(i, 0) / top)))
    return rows


def rows_of(text):
    """Return the same of what was printed; of linear ones high is low."""
    found = re.findall(r"^ *(\d+)(?: -> (\d+))? *: (\d+) *\|(\**) *\|$", text, re.M)
    return [
        (int(low), int(high or low), int(count), len(stars)) for low, high, count, stars in found
    ]


def interrupted(process):
    """Return what a program prints in the end, which Ctrl-C tells it to come to."""
    for _ in range(30):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=2)[0]
    process.kill()
    return process.communicate()[0]


@pytest.mark.parametrize(
    "counts, linear, hint",
    [({99: 1}, False, "linear"), ({0: 1, 9999: 1}, True, "many"), ({-1: 1}, False, "-1")],
)
def test_slots_that_no_histogram_has_are_refused(counts, linear, hint):
    with pytest.raises(ValueError, match=hint):
        bpf.histogram(counts, linear)


@pytest.mark.parametrize(
    "counts",
    [{1: 3, 2: 10, 3: 40, 4: 7, 8: 1}, {1: 1}, {2: 5, 5: 5, 20: 10}, {1: 7, 33: 1 << 20, 64: 3}],
)
def test_histograms_have_bccs_rows(counts):
    lines = bpf.histogram(counts)
    used = min(slot for slot in counts if counts[slot])
    assert rows_of("\n".join(lines)) == bcc_log2(counts)
    assert len({line.index("|") for line in lines if "|" in line}) == 1
    assert max(map(len, lines)) < (80 if max(counts) < 33 else 120)
    linear = rows_of("\n".join(bpf.histogram(counts, linear=True)))
    assert [row[0] for row in linear] == list(range(used, max(counts) + 1))
    assert {row[0]: row[2] for row in linear if row[2]} == counts


@kernel
def test_maps_of_slots_are_shown_as_histograms(pins, bpffs, tmp_path):
    counts = {1: 3, 2: 10, 5: 40, 9: 7}
    with Map.from_pin(pins + "/w_pc_array", mode="rw") as m:
        for slot in range(40):
            m[slot] = 0
        for slot, count in counts.items():  # spread over the CPUs
            m[slot] = [count - len(bpf.possible_cpus()) + 1] + [1] * (len(bpf.possible_cpus()) - 1)
        assert rows_of(done("map", "hist", "pinned", pins + "/w_pc_array")) == bcc_log2(counts)
        assert rows_of(done("hist", pins + "/w_pc_array", "linear"))[0] == (1, 1, 3, 3)
        bpf.capture(m, str(tmp_path / "hist"))
    assert done("--from", tmp_path / "hist", "hist") == done("hist", pins + "/w_pc_array")
    with Map.from_pin(pins + "/w_pairs", mode="rw") as m:
        for pid, slot in itertools.product((1, 2), (1, 3, 4)):
            m[m.key_type(pid, slot)] = pid * slot
        m[m.key_type(1, 2)] = 0
    out = done("hist", pins + "/w_pairs")
    parts = dict(part.split("\n", 1) for part in out.replace("pid=", "\0pid=").split("\0")[1:])
    assert {name: rows_of(text) for name, text in parts.items()} == {
        "pid=%d" % pid: bcc_log2({1: pid, 3: 3 * pid, 4: 4 * pid}) for pid in (1, 2)
    }
    told = {
        group["key"]: group["slots"] for group in json.loads(done("-j", "hist", pins + "/w_pairs"))
    }
    assert {slot: count for slot, count in told["pid=2"].items() if count} == {
        "1": 2,
        "3": 6,
        "4": 8,
    }
    for name in ("w_hash", "w_plain"):
        assert "--value-type" in refused("hist", os.path.join(pins, name))
    with Map.create(HASH, key_size=4, value=u64, max_entries=4) as m:
        m[b"abcd"] = 1
        words = ["--key-type", "char[4]", "--value-type", "u64", "hist", "id", m.id]
        assert "number as the key's last field" in main(*words)[2]
    with Map.create(ARRAY, u32, u64, 4, name="empty") as m:
        assert "no samples" in done("--value-type", "u64", "hist", "id", m.id)
    with created(HASH, u32, u64, 4) as m:  # nothing is in it
        for words in ([], ["linear"]):
            told = done("--value-type", "u64", "hist", "id", m.id, *words).splitlines()
            assert told[1:] == ["no samples"]
        assert json.loads(done("-j", "--value-type", "u64", "hist", "id", m.id)) == []


def by_log2l(number):
    """Return the slot that libbpf-tools' log2l() has for a number."""
    return max(number.bit_length() - 1, 0)


def by_bpftrace(bits):
    """Return f(number): the slot of bpftrace's hist(number, bits), as its codegen says in C."""

    def slot(number):
        if number < 0:
            return 0
        if number < 1 << bits:
            return number + 1
        power = number.bit_length() - 1
        return (power - bits << bits) + (number >> power - bits) + 1

    return slot


def by_lhist(low, high, step):
    """Return f(number): the slot of bpftrace's lhist()."""
    return lambda number: 0 if number < low else 1 + (min(number, high) - low) // step


@pytest.mark.parametrize(
    "word, slot_of",
    [
        ("log2", by_log2l),
        ("bcc", lambda number: by_log2l(number) + 1),  # bpf_log2l() of BCC's helpers.h
        ("linear", lambda number: number),
        ("linear:100", lambda number: number - 100),
        ("linear:-50:7", lambda number: (number + 50) // 7),
        ("lhist:0:100:10", by_lhist(0, 100, 10)),
        ("lhist:-8:9:4", by_lhist(-8, 9, 4)),
    ]
    + [("bpftrace:%d" % bits, by_bpftrace(bits)) for bits in range(6)],
)
def test_slots_stand_for_what_the_tools_count_in_them(word, slot_of):
    numbering, rng = bpf._numbering(word), random.Random(word)
    numbers = list(range(-70, 300)) + [rng.getrandbits(rng.randrange(1, 63)) for _ in range(300)]
    numbers += [(1 << power) + more for power in range(1, 63) for more in (-1, 0, 1)] + [2**63 - 1]
    if word in ("log2", "bcc"):
        numbers = [number for number in numbers if number >= 0] + [2**64 - 1]
    for number in numbers:
        slot = slot_of(number)
        if word.startswith("linear") and slot < 0:
            continue
        assert numbering.has(slot), (number, slot)
        low, high = numbering.bounds(slot)
        assert (low is None or low <= number) and (high is None or number <= high), (number, slot)
        if high is not None and numbering.has(slot + 1):
            assert numbering.bounds(slot + 1)[0] == high + 1 and slot_of(high + 1) == slot + 1
    assert (
        bpf._numbering("bpftrace").bounds(7) == bpf._numbering("bpftrace:0").bounds(7) == (32, 63)
    )
    if not word.startswith("linear"):
        assert not numbering.has(slot_of(max(numbers)) + 1) and not numbering.has(-1)


@pytest.mark.parametrize("word", ["log2", "bcc", "linear"])
def test_histograms_are_drawn_as_bcc_draws_them(word):
    """Line for line, by BCC's own functions."""
    rng = random.Random(word)
    drawn = []
    for last in (0, 1, 5, 20, 31, 32, 33, 40, 62):
        counts = {slot: rng.choice((0, 1, 7, 123456)) for slot in range(last)}
        counts[last] = rng.choice((1, 99, 10**7))
        drawn.append({slot + (word == "bcc"): count for slot, count in counts.items()})
    source = """
    import json, sys
    from bcc.table import _print_linear_hist, _print_log2_hist
    for values in json.loads(sys.argv[1]):
        (_print_linear_hist if sys.argv[2] == "linear" else _print_log2_hist)(values, "value", False)
        print("=")
    """
    shift = word == "log2"  # BCC's slots begin at 1
    values = [[0] * 70 for _ in drawn]
    for row, counts in zip(values, drawn):
        for slot, count in counts.items():
            row[slot + shift] = count
    if run("/usr/bin/python3", "-c", "import bcc.table")[0]:
        lacking("python3-bpfcc")
    words = ["-c", textwrap.dedent(source), json.dumps(values), word]
    status, out, err = run("/usr/bin/python3", *words)
    assert status == 0, err
    theirs = [part.strip("\n").split("\n") for part in out.split("=\n")[:-1]]
    for counts, lines in zip(drawn, theirs):
        ours = bpf.histogram(counts, slots=word)
        if word == "linear":  # libbpf-tools begin with the first that is used
            del lines[1 : 1 + min(slot for slot in counts if counts[slot])]
        # libbpf-tools' columns are narrow up to 32, not 31
        if word == "log2" and max(counts) == 32:
            ours, lines = [rows_of("\n".join(one)) for one in (ours, lines)]
            ours, lines = [[row[:3] for row in one] for one in (ours, lines)]
        assert ours == lines, counts


BPFTRACE_HISTS = """
BEGIN {
  @h%d = hist(-1); @h%d = hist(0); @h%d = hist(1); @h%d = hist(3); @h%d = hist(3); @h%d = hist(1000);
  @k%d[7, "ab"] = hist(9); @k%d[7, "c"] = hist(100); @k%d[7, "c"] = hist(5);
  @l%d = lhist(-5, 0, 100, 10); @l%d = lhist(0, 0, 100, 10); @l%d = lhist(35, 0, 100, 10);
  @l%d = lhist(99, 0, 100, 10); @l%d = lhist(100, 0, 100, 10); @l%d = lhist(5000, 0, 100, 10);
  @e%d["x"] = lhist(17, 5, 20, 5);
  printf("ready\\n");
}
interval:s:600 { exit(); }
"""


def bpftrace_ends(text):
    """Return a bound as bpftrace prints it as a number: 1K is 1024."""
    return int(text.replace("K", "")) * (1024 if text.endswith("K") else 1)


def bpftrace_hists(out):
    """Return {(map, key): {(low, high): count}} of what bpftrace prints, empty rows left out."""
    found = {}
    for name, key, body in re.findall(r"^@([hkle])\d+(?:\[(.*)\])?: \n((?:[\[(].*\n)*)", out, re.M):
        rows = found.setdefault((name, key), {})
        for low, high, count in re.findall(r"^[\[(](\S+?)(?:, (\S+?))?[\])] +(\d+) ", body, re.M):
            first = None if low == "..." else bpftrace_ends(low)
            last = bpftrace_ends(high) - 1 if high not in ("", "...") else None
            last = last if high else first
            if int(count):
                rows[first, last] = int(count)
    return found


@kernel
def test_histograms_of_bpftrace_are_those_that_it_prints():
    script = BPFTRACE_HISTS.replace("%d", "%d" % RUN)
    tracer = subprocess.Popen(
        [program("bpftrace"), "-B", "none", "-e", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    try:
        names = ["AT_%s%d" % (letter, RUN) for letter in "hkle"]
        line = "-"
        while line and line != "ready\n":  # from then on it heeds signals
            line = tracer.stdout.readline()
        assert line, tracer.communicate()

        def shown(*words):
            found = {}
            for one in json.loads(done("-j", "hist", *words)):
                rows = {(row["low"], row["high"]): row["count"] for row in one["buckets"]}
                found[one["key"]] = rows
            return found

        ours = {("h", ""): shown("name", names[0])[""]}
        keyed = "struct { s64 a; char b[3]; u64 slot; } __attribute__((packed))"
        types = ["--key-type", keyed, "--value-type", "u64", "--slots", "bpftrace"]
        for key, rows in shown(*types, "name", names[1]).items():
            ours["k", key.replace("a=", "").replace(" b=", ", ")] = rows
        untyped = shown("name", names[1])
        assert sorted(map(str, untyped.values())) == sorted(
            str(rows) for name, rows in ours.items() if name[0] == "k"
        )
        assert set(untyped) == {
            "key='%s'" % in_hex(struct.pack("=q3s", 7, text)) for text in (b"ab", b"c")
        }
        ours["l", ""] = shown("--slots", "lhist:0:100:10", "name", names[2])[""]
        ours["e", "x"] = shown("--slots", "lhist:5:20:5", "name", names[3])["key='78 00'"]
        text = done("hist", "name", names[0])
        assert text.startswith("slots are numbered as bpftrace (")
        assert "--slots" in text.split("\n")[0]
        assert re.search(r"^ +-> -1 +: 1 ", text, re.M)
        assert re.search(r"^ +2 -> 3 +: 2 ", text, re.M)
        with Map.from_name(names[2], bytes, bytes) as m:
            of_prometheus = parsed(done("--metrics", "--slots", "lhist:0:100:10", "dump", m.id))
        assert ("bpf_map_" + names[2] + "_count", 6) in [one[::2] for one in of_prometheus]
    finally:
        out = interrupted(tracer)
    assert ours == bpftrace_hists(out), out


@kernel
def test_histograms_of_libbpf_tools_are_those_that_they_print():
    """runqlat's map has an array of slots in a struct, with BTF; its counts grow until it prints them."""
    tool = subprocess.Popen(
        [program("runqlat"), "600", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    try:
        end, map_id = time.time() + 60, None
        while time.time() < end and tool.poll() is None and map_id is None:
            for info in bpf.maps():
                if info.name == "hists" and any(
                    "(%d)" % tool.pid in one for one in bpf.users(info.id)["pids"]
                ):
                    with Map.from_id(info.id, bytes, bytes) as m:
                        map_id = info.id if list(m.keys()) else None
            time.sleep(0.1)
        assert map_id is not None and tool.poll() is None, tool.communicate()
        ours = done("hist", "id", map_id)
        types = ["--key-type", "u32", "--value-type", "struct { u32 slots[26]; char comm[16]; }"]
        again = json.loads(done(*types, "-j", "--slots", "slots=log2", "hist", map_id))
        captured = parsed(done("--metrics", "--slots", "log2", "dump", "id", map_id))
    finally:
        out = interrupted(tool)
    head, key = ours.split("\n")[:2]
    assert head.startswith("slots are numbered as log2 (") and key.startswith("4294967295: comm=")
    theirs, rows = rows_of(out), rows_of(ours)
    assert rows and [row[:2] for row in rows] == [row[:2] for row in theirs[: len(rows)]]
    assert all(mine[2] <= row[2] for mine, row in zip(rows, theirs))
    assert sum(row[2] for row in rows) <= sum(again[0]["slots"].values())
    assert again[0]["slots"]["0"] <= theirs[0][2]
    told = {labels.get("le"): value for name, labels, value in captured if "bucket" in name}
    assert rows[0][2] <= told["1.0"] <= theirs[0][2]
    shape = re.compile(r"^ *\d+ -> \d+ +: \d+ +\|")
    lengths = [
        {len(shape.match(line).group()) for line in text.split("\n") if shape.match(line)}
        for text in (out, ours)
    ]
    assert lengths[0] == lengths[1]


@kernel
@pytest.mark.parametrize("percpu", [False, True])
def test_histograms_in_values_are_found_and_named(percpu, tmp_path):
    text = "struct { u64 n; struct { u32 slots[4]; u32 more[3]; } of[2]; char comm[8]; }"
    found, cpus = bpf.layout(text), len(bpf.possible_cpus()) if percpu else 1
    map_type = PERCPU_HASH if percpu else HASH
    one = {"slots": [1, 2, 0, 4], "more": [5, 0, 0]}
    raw = found.pack(
        {"n": 3, "of": [one, {"slots": [0, 0, 9, 0], "more": [0, 0, 0]}], "comm": "a b"}
    )
    with Map.create(map_type, key_size=4, value_size=found.size, max_entries=4) as m:
        m[bytes(u32(7))] = [raw] * cpus if percpu else raw
        types = ["--key-type", "u32", "--value-type", text]

        def shown(*words):
            return {
                group["key"]: {int(slot): count for slot, count in group["slots"].items() if count}
                for group in json.loads(done(*types, "-j", "hist", "id", m.id, *list(words)))
            }

        first, second = {0: cpus, 1: 2 * cpus, 3: 4 * cpus}, {2: 9 * cpus}
        head = "7: comm='a b' "
        # "slots" is the likely one
        assert shown() == {head + "of[0].slots": first, head + "of[1].slots": second}
        assert shown("--slots", "of.slots=log2") == shown()
        assert shown("--slots", "of[1].slots=linear") == {"7: comm='a b'": second}
        assert shown("--slots", "of.more=linear")[head + "of[0].more"] == {0: 5 * cpus}
        lines = [json.loads(line) for line in done(*types, "--ndjson", "hist", m.id).splitlines()]
        assert [line["key"] for line in lines] == [head + "of[0].slots", head + "of[1].slots"]
        assert lines[0]["numbering"] == "log2"
        assert lines[0]["buckets"][-1] == {"low": 8, "high": 15, "count": 4 * cpus}
        as_text = json.loads(
            done(*types, "--big-ints-as-strings", "--ndjson", "hist", m.id).split("\n")[0]
        )
        assert as_text["buckets"][-1] == {"low": "8", "high": "15", "count": str(4 * cpus)}
        out = done(*types, "hist", m.id)
        assert rows_of(out.split("of[1]")[1]) == [(0, 1, 0, 0), (2, 3, 0, 0), (4, 7, 9 * cpus, 40)]
        bpf.capture(m, str(tmp_path / "kept"))
        assert done(*types, "--from", tmp_path / "kept", "hist") == out
        assert "goes with hist" in refused(*types, "--slots", "log2", "dump", m.id)
        assert "either" in refused(*types, "--slots", "log2", "hist", m.id, "linear")
        for wrong in ("of[2].slots=log2", "comm=log2", "slots=log2", "n=bcc,of.more=log2"):
            assert refused(*types, "--slots", wrong, "hist", m.id)
        assert "n, of.slots, of.more" in refused(*types, "--slots", "x=log2", "hist", m.id)
        # a count that keys have the slots of, beside other numbers: it has to be named
        words = [
            "--key-type",
            "u32",
            "--value-type",
            text,
            "--slots",
            "n=linear",
            "hist",
            "id",
            m.id,
        ]
        assert rows_of(done(*words)) == [(7, 7, 3 * cpus, 40)]
        floats = ["--key-type", "u32", "--value-type", "float a[%d]" % (found.size // 4)]
        status, _, err = main(*floats, "hist", m.id)
        assert status == 1 and "number" in err
        floats = ["--key-type", "float", "--value-type", text, "--slots", "n=linear"]
        for words in (["hist"], ["--ndjson", "hist"], ["--metrics", "dump"]):
            status, _, err = main(*floats, *words, "id", m.id)
            assert status == 1 and "number as the key's last field" in err
        assert "dump has" in refused(*types, "--metrics", "hist", m.id)


# -- metrics: families, labels, series


def test_fields_of_keys_do_not_take_labels_that_mean_something_else(tmp_path):
    """Those of every series here, and le and quantile, which promtool refuses to all but histograms and summaries."""
    names = ["id", "map", "cpu", "index", "le", "quantile", "key_bytes", "__name", "key_le", "n"]
    types = ["--key-type", ", ".join("u8 %s" % name for name in names), "--value-type", "u64"]
    line = "%s %s" % (bytes(range(10)).hex(), bytes(8).hex())
    (tmp_path / "c").write_bytes(forged(hand_made(key_size=10), [line]))
    out = done("--from", tmp_path / "c", "--metrics", *types, "dump")
    labels = dict(re.findall(r'(\w+)="(\d+)"', out))
    assert labels.pop("id") == "1" and 'map="made"' in out
    assert labels == {
        "key_id": "0", "key_map": "1", "key_cpu": "2", "key_index": "3", "key_le": "4", "key_quantile": "5",
        "key_key_bytes": "6", "key_name": "7", "key_key_le": "8", "n": "9",
    }  # fmt: skip


def test_fields_of_keys_do_not_take_the_labels_of_arrays_in_arrays(tmp_path):
    types = ["--key-type", "struct { u8 index_3; u8 index_2; u8 index_33; }"]
    types += ["--value-type", "struct { u8 a[2][2][2]; }"]
    line = "%s %s" % (bytes(range(3)).hex(), bytes(range(8)).hex())
    (tmp_path / "c").write_bytes(forged(hand_made(key_size=3), [line]))
    out = done("--from", tmp_path / "c", "--metrics", *types, "dump")
    for labels, number in re.findall(r"{(.*)} (\d+)", out):
        pairs = re.findall(r'(\w+)="(\d+)"', labels)
        told = dict(pairs)
        assert len(told) == len(pairs) == 7  # with id
        assert (told["key_index_3"], told["key_index_2"], told["index_33"]) == ("0", "1", "2")
        assert int(told["index"] + told["index_2"] + told["index_3"], 2) == int(number)
    assert linted(out)


@kernel
def test_keys_of_many_chunks_are_each_told_once():
    with Map.create(HASH, u32, u32, 5000) as m:
        m.update_batch(list(range(5000)), list(range(5000)))
        types = ["--key-type", "u32", "--value-type", "u32"]
        samples = series_of(m, *types)
        lines = done(*types, "--ndjson", "dump", "id", m.id).splitlines()
    assert sorted(labels["key"] for _, labels, _ in samples) == sorted(map(str, range(5000)))
    assert {frozenset(labels) for _, labels, _ in samples} == {frozenset(("id", "map", "key"))}
    assert sorted(json.loads(line)["key"] for line in lines) == list(range(5000))


@kernel
def test_a_value_is_not_completed_from_another_map_of_the_name(monkeypatch):
    """Fields that are not named stay as they are: in the map that is written to, or nowhere."""
    value = "struct { u32 a; u32 b; }"
    with Map.create(HASH, u32, u64, 8) as m, Map.create(HASH, u32, u64, 8) as other:
        m[1] = other[1] = 5
        opened, maps = bpf._open_words, iter([m, other])
        monkeypatch.setattr(
            bpf, "_open_words", lambda words, *more: opened(["id", str(next(maps).id)], *more)
        )
        words = [
            "--key-type",
            "u32",
            "--value-type",
            value,
            "update",
            "name",
            "x",
            "key",
            "1",
            "value",
            "b=2",
        ]
        status, out, err = main(*words)
        assert status == 1 and "another map has taken the place" in err and m[1] == other[1] == 5


@kernel
def test_labels_of_a_key_are_those_of_the_branch_that_it_has(tmp_path):
    class Address(ctypes.Union):
        _fields_ = [("ip4", u32), ("ip6", u16 * 2)]

    class Peer(ctypes.Structure):
        _fields_ = [("kind", u32), ("of", Address)]
        _union_ = {"of": ("kind", {4: "ip4", 6: "ip6"})}

    with Map.create(HASH, Peer, u64, 8) as m:
        for number in range(1, 4):
            for kind in (4, 6):
                m[Peer(kind, Address(ip4=number))] = number
        families, view = bpf._Families(bpf._MetricWishes()), bpf.View(m, Peer, u64)
        families.take(view, view.chunks())
        text = "\n".join(families.text())
    found = re.findall(r',kind="(\d)",(\w+)="([^"]+)"} (\d)', text)
    assert sorted(found) == [("4", "of_ip4", str(n), str(n)) for n in (1, 2, 3)] + [
        ("6", "of_ip6", "[%d %d]" % tuple((u16 * 2).from_buffer_copy(u32(n))), str(n))
        for n in (1, 2, 3)
    ]


@kernel
def test_metrics_keep_every_enumerator():
    act = "enum act { PASS, DROP, REDIRECT }"
    with Map.create(HASH, u32, u32, 8) as m:
        m.update_batch([1, 2, 3, 4], [0, 1, 2, 9])
        samples = series_of(m, "--key-type", "u32", "--value-type", act)
    assert sorted(value for _, _, value in samples) == [0, 1, 2, 9]


@kernel
@pytest.mark.parametrize(
    "text, given, numbers",
    [
        ("struct { struct { u32 b; } a; u32 a_b; }", (1, 2), [1, 2]),
        ("struct { u32 hits[2]; u32 hits_0; u32 hits_1; }", (1, 2, 3, 4), [1, 2, 3, 4]),
        ("struct { u32 a; u32 __a; u32 A; }", (1, 2, 3), [1, 2, 3]),
        ("struct { u32 index; u32 cpu; u32 id; u32 map; }", (1, 2, 3, 4), [1, 2, 3, 4]),
        ("struct { struct { u32 x[2]; } p[2]; }", (1, 2, 3, 4), [1, 2, 3, 4]),
    ],
)
def test_metrics_have_no_family_and_no_series_twice(text, given, numbers):
    raw = struct.pack("=%dI" % len(given), *given)
    with Map.create(HASH, u32, key_size=4, value_size=len(raw), max_entries=2) as m:
        m[1] = raw
        m[2] = bytes(len(raw))
        samples = series_of(m, "--key-type", "u32", "--value-type", text)
    assert [value for _, labels, value in samples if labels["key"] == "1"] == numbers


@kernel
@pytest.mark.parametrize(
    "text, raws",
    [
        ("char[8]", [b"ab\0x\0\0\0\0", b"ab\0y\0\0\0\0", b"ab\0\0\0\0\0\0", b"\xff\0\0\0\0\0\0\0"]),
        (
            "struct { u8 kind; u32 port; u8 x[3]; }",
            [bytes([1, n, 0, 0]) + bytes(8) for n in range(4)],
        ),
        (
            "struct { u32 __pad; u32 __0; u32 le; u32 id; u32 map; }",
            [bytes(19) + bytes([n]) for n in range(4)],
        ),
        ("struct { struct { u32 b; } a; u32 a_b; }", [bytes(7) + bytes([n]) for n in range(4)]),
        ("char[8]", [b"\x1b[2Jx\0\0\0", b'q"\\\n\0\0\0\0', b"\\x1b[2J\0", b"\t\0\0\0\0\0\0\0"]),
    ],
)
def test_metrics_tell_keys_apart_that_differ(text, raws):
    with Map.create(HASH, key_size=len(raws[0]), value=u32, max_entries=8) as m:
        for number, raw in enumerate(raws):
            m[raw] = number
        samples = series_of(m, "--key-type", text, "--value-type", "u32")
    assert sorted(value for _, _, value in samples) == list(range(len(raws)))


@kernel
def test_metrics_of_two_maps_of_one_name_never_collide():
    name = "same%d" % (RUN % 10**6)
    with Map.create(HASH, u32, u32, 1, name=name) as one, Map.create(
        HASH, u32, u32, 1, name=name
    ) as other:
        one[1] = other[1] = 5
        types = ["--key-type", "u32", "--value-type", "u32"]
        told = [series_of(m, *types)[0] for m in (one, other)]
    assert told[0][:1] == told[1][:1] and told[0][1] != told[1][1]
    assert {labels["map"] for _, labels, _ in told} == {name}


@kernel
def test_metrics_of_floats_are_what_the_parsers_read():
    values = [-0.0, float("inf"), float("-inf"), 0.1, 1e300]
    with Map.create(HASH, u32, ctypes.c_double, 8) as m:
        m.update_batch(list(range(5)), values)
        samples = series_of(m, "--key-type", "u32", "--value-type", "double")
    told = {labels["key"]: value for _, labels, value in samples}
    assert repr([told[str(index)] for index in range(5)]) == repr(values)


NASTY_FIELDS = "a A a_b count bucket sum total created a_total a_count a_bucket a_sum slots slots_count index le".split()


@kernel
@pytest.mark.parametrize("seed", range(8))
def test_no_family_is_there_twice_whatever_the_fields_and_maps(seed):
    """Maps of the same and of other names, with fields as gauges, counters and histograms."""
    rng, maps, words = random.Random(seed), [], []
    fields = rng.sample(NASTY_FIELDS, 5)
    for name in ["x%d" % (RUN % 10**6)] * 2 + ["x%d_a" % (RUN % 10**6)]:
        m = Map.create(HASH, u32, key_size=4, value_size=40, max_entries=3, name=name)
        for key in range(2):
            m[key] = struct.pack("=10I", *[rng.randrange(9) for _ in range(10)])
        maps.append(m)
        words += rng.choice([["id", m.id], [m.id]])
    types = ["%s %s" % ("u32", field + "[2]") for field in fields]
    drawn, counter = rng.sample(fields, 2)
    options = ["--slots", drawn + "=log2", "--metrics-type", counter + "=counter"]
    options += ["--key-type", "u32", "--value-type", "struct { %s; }" % "; ".join(types)]
    out = done(*options, "--metrics", "dump", *words, "id", maps[0].id)
    kinds = linted(out, own=["_" + one for one in NASTY_FIELDS] + ["_%d" % at for at in range(9)])
    samples, _ = text_samples(out)
    assert sorted(set(kinds.values())) == ["counter", "gauge", "histogram"]
    # a histogram has two buckets, the sum and the count; all others two elements
    assert len(samples) == 3 * 2 * (4 + 4 * 2)
    assert {labels["id"] for _, labels, _ in samples} == {str(m.id) for m in maps}
    for m in maps:
        m.close()


@kernel
def test_metrics_of_several_maps_are_each_maps():
    name = "same%d" % (RUN % 10**6)
    with Map.create(HASH, u32, u32, 2, name=name) as one, Map.create(
        HASH, u32, u32, 2, name=name
    ) as other, Map.create(HASH, u32, u32, 2, name="w%d" % RUN) as third:
        one[1], other[1], third[2] = 5, 6, 7
        types = ["--metrics", "--key-type", "u32", "--value-type", "u32", "dump"]
        out = done(*types, "name", name)
        assert len(linted(out)) == 1
        assert {(int(labels["id"]), value) for _, labels, value in parsed(out)} == {
            (one.id, 5),
            (other.id, 6),
        }
        out = done(*types, name, "id", third.id, "where", "value>5")
        assert len(linted(out)) == 2
        assert {(int(labels["id"]), value) for _, labels, value in parsed(out)} == {
            (other.id, 6),
            (third.id, 7),
        }
        again = done(*types, name, name, "id", one.id, "id", third.id)
        assert len(parsed(again)) == 3 and linted(again)
        status, out, err = main("--metrics", "dump", "id", one.id, "id", third.id)
        assert (status, out) == (1, "") and "map %d" % one.id in err and "--value-type" in err


@kernel
@pytest.mark.parametrize("map_type", [PERCPU_HASH, PERCPU_ARRAY])
def test_metrics_of_cpus_are_added_up_unless_asked(map_type):
    text = "struct { u64 count; s32 low; double d; u8 bits:3; enum { IDLE, BUSY } state; bool on; }"
    found, cpus = bpf.layout(text), bpf.possible_cpus()
    slots = [
        found.pack(dict(count=2**63 + at, low=-at, d=0.5, bits=at % 8, state=at % 2, on=1))
        for at in range(len(cpus))
    ]
    stride = bpf.percpu_stride(found.size)
    with Map.create(map_type, key_size=4, value_size=found.size, max_entries=2) as m:
        m[bytes(u32(1))] = slots
        words = ["--key-type", "u32", "--value-type", text, "--metrics", "dump", "id", m.id]
        told = bpftool("map", "lookup", "id", m.id, "key", *bytes(u32(1)))["values"]
        raws = [listed_bytes(one["value"]) for one in told]
        plain = [found.reader("plain").one(raw) for raw in raws]
        assert len(raws[0]) <= stride and len(plain) == len(cpus)
        samples = [one for one in parsed(done(*words)) if one[1]["key"] == "1"]
        sums = {one[0].rsplit("_", 1)[1]: one for one in samples if "cpu" not in one[1]}
        assert set(sums) == {"count", "low", "d", "bits"}
        for name, (_, _, value) in sums.items():
            assert value == sum(one[name] for one in plain)
        states = [one for one in samples if "cpu" in one[1]]
        assert len(states) == 2 * len(cpus)
        assert {one[0].rsplit("_", 1)[1] for one in states} == {"state", "on"}
        # as integers, not as the floats that parsers make of them
        assert " %d\n" % sum(one["count"] for one in plain) in done(*words)
        apart = [one for one in parsed(done("--per-cpu", *words)) if one[1]["key"] == "1"]
        assert len(apart) == 6 * len(cpus) == len({one[:1] + (one[1]["cpu"],) for one in apart})
        for name, labels, value in apart:
            own = plain[cpus.index(int(labels["cpu"]))][name.rsplit("_", 1)[1]]
            assert value == (own if not isinstance(own, str) else ["IDLE", "BUSY"].index(own))


@kernel
def test_metrics_of_cpus_whose_unions_differ_are_added_up_by_field():
    class Either(ctypes.Union):
        _fields_ = [("a", u32), ("b", u32), ("c", ctypes.c_bool)]

    class Tagged(ctypes.Structure):
        _fields_ = [("kind", u32), ("u", Either)]
        _union_ = {"u": ("kind", {0: "a", 1: "b", 2: "c"})}

    cpus = bpf.possible_cpus()
    with Map.create(PERCPU_HASH, u32, Tagged, 4) as m:
        for key in range(3):
            m[key] = [Tagged(at % 2 if key else 2, Either(a=key)) for at in range(len(cpus))]
        with Map.from_fd(m, bytes, bytes) as raw:
            view = bpf.View(raw, u32, Tagged)
            families = bpf._Families(bpf._MetricWishes())
            families.take(view, view.chunks())
            samples = parsed("\n".join(families.text()) + "\n")
    base, wanted = "bpf_map_id%d_" % m.id, {}
    for key in range(3):
        kinds = sum(at % 2 for at in range(len(cpus))) if key else 2 * len(cpus)
        wanted["kind", str(key), None] = kinds
        for branch, at in (("u_a", 0), ("u_b", 1)):
            if key and len(cpus) > at:
                wanted[branch, str(key), None] = key * len(cpus[at::2])
    wanted.update({("u_c", "0", str(cpu)): 0 for cpu in cpus})
    told = {
        (name[len(base) :], one["key"], one.get("cpu")): number for name, one, number in samples
    }
    assert told == wanted


# -- metrics: what Prometheus reads

HOSTILE_TEXT = [
    b'a"b',
    b"back\\slash",
    b"new\nline",
    b"{}=,",
    b"# EOF",
    b"",
    "caf\u00e9 \u2603".encode(),
    b"\xff\xfe\x80",
    b"tab\there",
    b"\\n",
    b"del\x7f",
]


@kernel
def test_metrics_are_what_prometheus_reads(pins, bpffs):
    samples = parsed(done("--metrics", "dump", pins + "/w_hash"))

    def find(end, **labels):
        return [
            value
            for name, told, value in samples
            if name.endswith(end) and all(told[label] == text for label, text in labels.items())
        ]

    assert find("_count", port="443", src="16777343") == [77] and find("_delta", port="80") == [-3]
    assert find("_high", proto="6") == [-7, -7]
    assert find("_grid", port="80", index="1", index_2="2") == [3]
    for (
        name
    ) in "w_array w_pc_hash w_pc_array w_lru w_lru_pc w_lpm w_pairs w_real w_bss w_outer".split():
        samples = parsed(done("--metrics", "dump", os.path.join(pins, name)))
        assert samples
        assert len({(name, tuple(sorted(labels.items()))) for name, labels, _ in samples}) == len(
            samples
        )
    cpus = [
        (labels["cpu"], value)
        for _, labels, value in parsed(done("--metrics", "--per-cpu", "dump", pins + "/w_pc_array"))
        if labels["key"] == "6"
    ]
    assert [int(cpu) for cpu, _ in cpus] == list(bpf.possible_cpus())
    assert sum(value for _, value in cpus) == 9
    pin = os.path.join(bpffs, "hostile")
    with Map.create(PERCPU_HASH, key_size=20, value=u64, max_entries=20) as m:
        m.pin(pin)
        for number, text in enumerate(HOSTILE_TEXT):
            m[struct.pack("=16sI", text, 3)] = number
        types = ["--metrics", "--key-type", "char comm[16], u32 cpu", "--value-type", "u64"]
        samples = parsed(done(*types, "--per-cpu", "dump", pin))
        assert (
            len(samples)
            == len(HOSTILE_TEXT) * len(bpf.possible_cpus())
            == len({str(sample) for sample in samples})
        )
        told = {int(value): labels["comm"] for _, labels, value in samples}
        for number, text in enumerate(HOSTILE_TEXT):
            if (
                all(byte >= 32 and byte != 127 or byte in b"\t\n" for byte in text)
                and b"\xff" not in text
            ):
                assert told[number] == text.decode()
        for text in (
            "u8[20]",
            "char[20]",
            "u8 a[4], u16 b[2], u32 class[3]",
            "u32 a_0[1], u32 a[4]",
        ):
            types[2] = text
            assert len(parsed(done(*types, "dump", pin))) == len(HOSTILE_TEXT)


@kernel
def test_promtool_finds_nothing_in_metrics(pins):
    for name in "w_hash w_array w_pc_hash w_pc_array w_lru w_lru_pc w_lpm w_pairs w_bss".split():
        out = done("--metrics", "dump", os.path.join(pins, name))
        assert linted(out, own=("_count", "_total", "_bytes_total"))
    with Map.create(HASH, u32, Value, 4) as m:
        m[1] = Value(1, 2)
        types = ["--value-type", "u64 packets, u64 bytes", "--key-type", "u32", "--metrics"]
        told = ["--metrics-type", "packets=counter,bytes=gauge", "--metrics-type", "bytes=counter"]
        kinds = linted(done(*types, *told, "dump", "id", m.id))
        base = "bpf_map_id%d" % m.id
        assert kinds == {base + "_packets_total": "counter", base + "_bytes_total": "counter"}


@kernel
def test_counters_are_those_that_are_told():
    text = "struct { u64 packets; struct { u64 hits[2]; } in; u64 errors_total; s32 level; }"
    found = bpf.layout(text)
    with Map.create(HASH, u32, key_size=4, value_size=found.size, max_entries=4) as m:
        m[7] = found.pack({"packets": 5, "in": {"hits": [1, 2]}, "errors_total": 3, "level": -1})
        words = ["--key-type", "u32", "--value-type", text, "--metrics", "dump", "id", m.id]
        told = [
            "--metrics-type",
            "in.hits=counter,packets=counter,errors_total=counter,level=gauge",
        ]
        samples, kinds = text_samples(done(*told, *words))
        base = "bpf_map_id%d_" % m.id
        assert {name[len(base) :]: value for name, _, value in samples if "hits" not in name} == {
            "packets_total": 5,
            "errors_total": 3,
            "level": -1,
        }
        hits = [(one[1]["index"], one[2]) for one in samples if one[0] == base + "in_hits_total"]
        assert hits == [("0", 1), ("1", 2)]
        assert kinds == {
            base + "packets": "counter",
            base + "in_hits": "counter",
            base + "errors": "counter",
            base + "level": "gauge",
        }
        for wrong in ("packets", "=counter", "packets=Counter", "packets=", "packets=counter,", ""):
            assert "--metrics-type" in refused("--metrics-type", wrong, *words)
        assert "packets, in.hits, errors_total" in refused("--metrics-type", "nope=gauge", *words)
        for option in (["--metrics-type", "level=gauge"], ["--per-cpu"], ["--entries"]):
            assert "goes with --metrics" in refused(*option, "dump", "id", m.id)


@kernel
def test_metrics_of_map_show_are_the_infos(pins, tmp_path):
    def infos(*words):
        out = done("--metrics", *words)
        linted(out)
        found = {}
        for name, labels, value in parsed(out):
            found.setdefault(int(labels["id"]), {})[name[len("bpf_maps_") :]] = value
            found[int(labels["id"])]["type"] = labels["type"]
        return found

    told = {info["id"]: info for info in bpftool("map", "show")}
    ours = infos("show")
    names = "w_hash w_array w_pc_hash w_lpm w_pairs".split()
    for name in names:
        with Map.from_pin(os.path.join(pins, name)) as m:
            info, own = told[m.id], ours[m.id]
            assert own["type"] == info["type"]
            assert own["max_entries"] == info["max_entries"]
            assert own["memlock_bytes"] == info["bytes_memlock"]
            assert (own["key_size_bytes"], own["value_size_bytes"]) == (
                info["bytes_key"],
                info["bytes_value"],
            )
            assert ("entries" in own) == (name == "w_array")
            wanted = len(list(m.keys()))
            assert infos("--entries", "show", "id", m.id)[m.id]["entries"] == wanted
            assert infos("map", "--entries", "show")[m.id]["entries"] == wanted
            bpf.capture(m, str(tmp_path / "kept"))
            captured = infos("--from", tmp_path / "kept", "show")
            assert list(captured) == [m.id] and captured[m.id]["entries"] == wanted
    with Map.create(QUEUE, None, u32, 4) as queue:
        assert "entries" not in infos("--entries", "show", "id", queue.id)[queue.id]
    # no family of a dump can be one of these
    with Map.create(HASH, u32, u32, 2, name="s_max_entries") as m:
        m[1] = 1
        types = ["--key-type", "u32", "--value-type", "u32"]
        (sample,) = series_of(m, *types)
        assert not sample[0].startswith("bpf_maps_")


def a_free_port():
    """Return the number of a TCP port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def fetched(url, check, process):
    """Return what a check makes of a page, once it makes something of it."""
    from urllib.request import urlopen

    end = time.time() + 60
    while time.time() < end:
        assert process.poll() is None, process.args
        try:
            with urlopen(url, timeout=30) as page:
                found = check(page.read().decode())
        except OSError:  # it has not started
            found = None
        if found:
            return found
        time.sleep(0.2)
    return pytest.fail("%s never had what was wanted" % url)


@contextlib.contextmanager
def serving(*words):
    """Run a server in the background while the block runs."""
    process = subprocess.Popen(
        list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@once
@kernel
def test_prometheus_has_what_the_textfile_collector_read(tmp_path):
    """Two maps of one name, 50,000 entries, texts of any kind, through node_exporter into Prometheus."""
    exporter, prometheus = program("prometheus-node-exporter"), program("prometheus")
    texts, rng = HOSTILE_TEXT + [b"nginx", b"worker"], random.Random(7)
    keys = [struct.pack("=I16s", at, texts[at % len(texts)]) for at in range(50000)]
    values = [struct.pack("=Q4I", rng.getrandbits(30), 5, 1, 2, 3) for _ in keys]
    folder, name, ids = tmp_path / "textfile", "two%d" % (RUN % 10**6), []
    folder.mkdir()
    types = ["--key-type", "struct { u32 id; char comm[16]; }"]
    types += ["--value-type", "struct { u64 packets; u32 slots[4]; }", "--metrics"]
    for count in (50000, 9):
        m = Map.create(HASH, key_size=20, value_size=24, max_entries=count, name=name)
        m.update_batch(keys[:count], values[:count])
        ids.append(m)
    told = ["--metrics-type", "packets=counter", "dump", "name", name, "columns", "packets"]
    (folder / "both.prom").write_bytes(done(*types, *told).encode())
    told = ["--slots", "log2", "dump", ids[1].id, "columns", "slots,key.id"]
    (folder / "slots.prom").write_bytes(done(*types, *told).encode())
    packets, slots = "bpf_map_%s_packets_total" % name, "bpf_map_%s_slots" % name
    ports = a_free_port(), a_free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 3s, scrape_timeout: 3s}\n"
        "scrape_configs: [{job_name: t, static_configs: [{targets: ['127.0.0.1:%d']}]}]" % ports[0]
    )
    listen = "--web.listen-address=127.0.0.1:%d"
    collect = ["--collector.disable-defaults", "--collector.textfile", listen % ports[0]]
    collect += ["--collector.textfile.directory", folder]
    store = ["--config.file", tmp_path / "prometheus.yml", "--storage.tsdb.path", tmp_path / "data"]
    with serving(exporter, *collect) as first:
        page = "http://127.0.0.1:%d/metrics" % ports[0]
        shown = fetched(page, lambda text: text if packets in text else None, first)
        assert "node_textfile_scrape_error 0\n" in shown
        series = [one for one in text_samples(shown)[0] if one[0] == packets]
        assert len(series) == 50009 and {labels["map"] for _, labels, _ in series} == {name}
        comms = {labels["comm"] for _, labels, _ in series}
        assert {'a"b', "back\\slash", "new\nline", "caf\u00e9 \u2603", "nginx"} <= comms
        with serving(prometheus, *store, listen % ports[1]) as second:

            def asked(query):
                from urllib.parse import quote

                url = "http://127.0.0.1:%d/api/v1/query?query=%s" % (ports[1], quote(query))
                rows = fetched(url, lambda text: json.loads(text)["data"]["result"], second)
                return {row["metric"].get("id"): float(row["value"][1]) for row in rows}

            sums = [
                sum(struct.unpack("=Q4I", one)[0] for one in part) for part in (values, values[:9])
            ]
            assert asked("sum by (id) (%s)" % packets) == {
                str(m.id): number for m, number in zip(ids, sums)
            }
            assert asked("count by (id) (%s)" % packets) == {
                str(ids[0].id): 50000,
                str(ids[1].id): 9,
            }
            assert asked("sum by (id) (%s_count)" % slots) == {str(ids[1].id): 9 * 11}
            middle = asked("histogram_quantile(0.5, sum by (le, id) (%s_bucket))" % slots)
            assert 1 < middle[str(ids[1].id)] <= 3.5  # of 5 at 0 and 1, 1 at 2 and 3, 2 and 3 more
    for m in ids:
        m.close()


# -- metrics: histograms


def histograms_of(text):
    """Return {family: {labels without le: (buckets as [(le, count)], sum, count)}} of metrics."""
    found = {}
    for name, labels, value in parsed(text):
        family, _, what = name.rpartition("_")
        labels = dict(labels)
        le = labels.pop("le", None)
        key = tuple(sorted(labels.items()))
        buckets = found.setdefault(family, {}).setdefault(key, [[], None, None])
        if what == "bucket":
            buckets[0].append((float(le), value))
        else:
            buckets[1 if what == "sum" else 2] = value
    return found


@kernel
def test_histograms_are_histograms_to_prometheus():
    text = "struct { u64 total; u32 slots[5]; char comm[8]; }"
    found, cpus = bpf.layout(text), len(bpf.possible_cpus())
    rows = {1: [1, 0, 2, 0, 4], 2: [0, 0, 0, 0, 0]}
    with Map.create(PERCPU_HASH, key_size=4, value_size=found.size, max_entries=4) as m:
        for key, row in rows.items():
            raw = found.pack({"total": 9, "slots": row, "comm": "bash"})
            m[bytes(u32(key))] = [raw] * cpus
        words = ["--key-type", "u32", "--value-type", text, "--metrics", "dump", "id", m.id]
        out = done("--slots", "log2", *words)
        base = "bpf_map_id%d_" % m.id
        assert linted(out, own=["_total"]) == {base + "slots": "histogram", base + "total": "gauge"}
        told = histograms_of("".join(re.findall(".*slots.*\n|# EOF\n", out)))[base + "slots"]
        for key, row in rows.items():
            ((labels, (buckets, total, count)),) = [
                one for one in told.items() if ("key", str(key)) in one[0]
            ]
            assert dict(labels)["id"] == str(m.id) and "cpu" not in dict(labels)
            sums = [sum(row[: at + 1]) * cpus for at in range(5)]
            assert buckets == list(zip([1, 3, 7, 15, math.inf], sums))
            assert count == sum(row) * cpus and total == (2 * 4 + 4 * 16) * cpus * (key == 1)
        apart = done("--slots", "slots=log2", "--per-cpu", *words)
        told = histograms_of("".join(re.findall(".*slots.*\n|# EOF\n", apart)))[base + "slots"]
        assert len(told) == 2 * cpus and all("cpu" in dict(labels) for labels in told)
        assert {count for _, _, count in told.values()} == {7, 0}
        assert "histogram" not in done(*words)  # nothing is guessed
        assert "no field 'slot'" in refused("--slots", "slot=log2", *words)
        for wrong in (
            "log3",
            "",
            "slots=",
            "=log2",
            "lhist:1:2",
            "lhist:2:2:1",
            "linear:x",
            "linear:0:0",
            "bpftrace:6",
            "log2:",
        ):
            assert "--slots" in refused("--slots", wrong, *words)
        # a family for each array, its numbering its own
        out = done("--slots", "slots=linear:-10:10", *words)
        told = histograms_of("".join(re.findall(".*slots.*\n|# EOF\n", out)))[base + "slots"]
        buckets, total, _ = next(one for labels, one in told.items() if ("key", "1") in labels)
        assert [le for le, _ in buckets] == [9, 19, 29, math.inf]  # -1 is none: there is a _sum
        assert [count for _, count in buckets] == [cpus, 3 * cpus, 3 * cpus, 7 * cpus]
        assert total == (2 * 10 + 4 * 30) * cpus


@kernel
def test_histograms_whose_slots_are_keys_are_histograms_to_prometheus():
    key = "struct { u32 pid; char comm[4]; u32 slot; }"
    counts = {(1, "a"): {1: 3, 2: 4, 5: 6}, (2, 'q"'): {1: 1}}
    with Map.create(HASH, key_size=12, value=u64, max_entries=9) as m:
        for (pid, comm), slots in counts.items():
            for slot, count in slots.items():
                m[bpf.layout(key).pack({"pid": pid, "comm": comm, "slot": slot})] = count
        words = ["--key-type", key, "--value-type", "u64", "--metrics", "dump", "id", m.id]
        out = done("--slots", "bcc", *words)
        assert linted(out) == {"bpf_map_id%d" % m.id: "histogram"}
        told = histograms_of(out)["bpf_map_id%d" % m.id]
        for (pid, comm), slots in counts.items():
            ((_, (buckets, total, count)),) = [
                one for one in told.items() if ("comm", comm) in one[0]
            ]
            sums = [sum(n for slot, n in slots.items() if slot <= at) for at in range(1, 6)]
            assert buckets == list(zip([1, 3, 7, 15, 31, math.inf], sums + sums[-1:]))
            assert count == sums[-1] and total == 2 * slots.get(2, 0) + 16 * slots.get(5, 0)
        status, out, err = main("--slots", "lhist:0:3:1", *words)
        assert (status, out) == (1, "") and "no slot 5" in err
        m[bpf.layout(key).pack({"pid": 1, "comm": "a", "slot": 1 << 20})] = 1
        assert "too many" in main("--slots", "linear", *words)[2]
        for slot in (1, 2, 5):
            m.update(bpf.layout(key).pack({"pid": 1, "comm": "a", "slot": slot}), 0)
        m.update(bpf.layout(key).pack({"pid": 2, "comm": 'q"', "slot": 1}), 0)
        # one, and far from the first
        for word in ("linear", "linear:7:3", "lhist:0:%d:10" % 10**12):
            out = done("--slots", word, *words)
            found = histograms_of(out)["bpf_map_id%d" % m.id]
            assert {len(buckets) for buckets, _, _ in found.values()} == {2}, out
            low = bpf._numbering(word).bounds(1 << 20)[0]
            assert sorted(one[1:] for one in map(tuple, found.values())) == [(0, 0), (low, 1)]
        m.update(bpf.layout(key).pack({"pid": 1, "comm": "a", "slot": 1 << 20}), 0)
        assert {
            len(one[0])
            for one in histograms_of(done("--slots", "linear", *words)).popitem()[1].values()
        } == {1}


@kernel
def test_bounds_that_are_one_float_are_one_bucket():
    """Of 2^60, 2^60 + 1, ...: floats are 256 apart there."""
    with Map.create(HASH, u64, u64, 9) as m:
        for slot, count in ((1, 2), (3, 4), (200, 8), (500, 16)):
            m[(1 << 60) + slot] = count
        words = ["--key-type", "u64", "--value-type", "u64", "--metrics", "--slots", "linear"]
        out = done(*words, "dump", "id", m.id)
        assert linted(out)
        ((buckets, _, count),) = histograms_of(out)["bpf_map_id%d" % m.id].values()
    bounds = [2.0**60, 2.0**60 + 256, 2.0**60 + 512, math.inf]
    assert count == 30 and buckets == list(zip(bounds, [6, 14, 30, 30]))


@kernel
def test_slots_that_are_negative_numbers_themselves():
    with Map.create(HASH, ctypes.c_int32, u64, 9) as m:
        m[-3], m[-1], m[2] = 2, 1, 4
        words = ["--key-type", "s32", "--value-type", "u64"]
        out = done(*words, "hist", "id", m.id, "linear")
        rows = re.findall(r"^ +(-?\d+) +: (\d+)", out, re.M)
        assert rows == list(zip(map(str, range(-3, 3)), "201004"))
        out = done(*words, "--metrics", "--slots", "linear", "dump", "id", m.id)
        (found,) = histograms_of(out)["bpf_map_id%d" % m.id].values()
        assert list(found) == [[(0, 3), (1, 3), (2, 7), (math.inf, 7)], 8, 7] and linted(out)
        status, _, err = main(*words, "hist", "id", m.id)
        assert status == 1 and "no slot -" in err and "linear" in err


@kernel
def test_slots_in_keys_of_per_cpu_maps_are_added_up_unless_asked():
    # slot by its name, not its place
    key, cpus = "struct { u32 slot; u16 port; }", bpf.possible_cpus()
    with Map.create(PERCPU_HASH, key_size=8, value=u32, max_entries=9) as m:
        for slot in (1, 3):
            raw = bpf.layout(key).pack({"slot": slot, "port": 443})
            m[raw] = [slot * 10 + at for at in range(len(cpus))]
        words = ["--slots", "log2", "--key-type", key, "--value-type", "u32"]
        sums = {slot: sum(slot * 10 + at for at in range(len(cpus))) for slot in (1, 3)}
        (told,) = json.loads(done(*words, "-j", "hist", m.id))
        assert told["key"] == "port=443"
        assert told["slots"] == {"1": sums[1], "3": sums[3]}
        for apart in ([], ["--per-cpu"]):
            out = done(*words, "--metrics", *apart, "dump", "id", m.id)
            linted(out)
            found = histograms_of(out)["bpf_map_id%d" % m.id]
            counts = {dict(labels).get("cpu"): count for labels, (_, _, count) in found.items()}
            by_cpu = {str(cpu): 40 + 2 * at for at, cpu in enumerate(cpus)}
            assert counts == (by_cpu if apart else {None: sum(sums.values())})
            assert {dict(labels)["port"] for labels in found} == {"443"}


def test_bounds_are_written_as_prometheus_writes_them():
    to_go = pytest.importorskip("prometheus_client.utils").floatToGoString
    rng = random.Random(3)
    numbers = [0, 1, 9, 10] + [10**power for power in range(18)]
    numbers += [(1 << power) - 1 for power in range(1, 65)] + [
        rng.randrange(10**9) for _ in range(99)
    ]
    for number in numbers:
        text = bpf._bound_text(number)
        assert float(text) == float(number) and text == to_go(number), number


# -- captures: the same as the live map, anywhere, later

FORMS = [
    ["dump"],
    ["-j", "dump"],
    ["-p", "dump"],
    ["--hex", "dump"],
    ["--ndjson", "dump"],
    ["-j", "show"],
    ["layout"],
    ["-j", "layout"],
]


@kernel
def test_a_capture_says_what_the_live_map_says(pins, captures):
    for name, words in itertools.product(CAPTURED, FORMS):
        pin, file = os.path.join(pins, name), os.path.join(captures, name)
        live, kept = done(*words, pin), done("--from", file, *words)
        if words != ["layout"] or "offset" in live:  # what has no BTF says why in other words
            assert kept == live, (name, words)
    for name in ("w_pc_array", "w_real", "w_pairs", "w_lpm"):
        words = ["--metrics", "dump"]
        assert done("--from", os.path.join(captures, name), *words) == done(
            *words, os.path.join(pins, name)
        )
    file = os.path.join(captures, "w_hash")
    kept = bpf.Capture.load(file)
    with Map.from_pin(pins + "/w_hash") as m:
        assert [(bytes(k), bytes(v)) for k, v in kept.items()] == [
            (bytes(k), bytes(v)) for k, v in m.items()
        ]
        assert kept.info.name == m.name and kept.info.id == m.id and kept.btf.data == m.btf.data
        assert {key.port: value.count for key, value in kept.items()} == {
            443: 77,
            80: (1 << 64) - 1,
        }
    assert kept.header["host"] == os.uname().nodename
    assert kept.header["kernel"] == os.uname().release
    for words in (
        "update key port=1 value count=1",
        "delete key port=1",
        "pop",
        "freeze",
        "peek",
        "pin /x",
        "save /x",
        "push value 1",
        "getnext",
    ):
        assert main("--from", file, *words.split())[0] in (1, 2)
    key = "src=%s,port=443,proto=6" % socket.inet_ntoa(struct.pack("=I", 0x0100007F))
    assert done("-j", "--from", file, "lookup", "key", key) == done(
        "-j", "lookup", pins + "/w_hash", "key", key
    )
    assert main("--from", file, "lookup", "key", "port=1,rest=0")[0] == 1


@kernel
def test_a_capture_needs_no_right_and_no_particular_python(captures):
    files = [os.path.join(captures, name) for name in CAPTURED]
    here = "".join(done("--ndjson", "--from", file, "dump") for file in files)
    assert (
        as_nobody(
            """
        for file in files:
            assert bpf.main(["--ndjson", "--from", file, "dump"]) == 0
    """,
            files=files,
        )
        == here
    )
    others = {
        os.path.realpath(path): path
        for path in map(
            shutil.which, ["python3"] + ["python3.%d" % minor for minor in range(6, 16)]
        )
        if path
    }
    for path in others.values():
        if run(path, "-c", "import ctypes, json, hashlib")[0] == 0:
            code = "import sys, bpflookup as b; [b.main(['--ndjson', '--from', f, 'dump']) for f in sys.argv[1:]]"
            environment = importing()
            assert run(path, "-W", "error", "-c", code, *files, env=environment) == (0, here, ""), (
                path
            )
    with open(MODULE) as script:  # on a machine that has nothing but Python
        assert (
            run(
                sys.executable,
                "-I",
                "-S",
                "-",
                "--ndjson",
                "--from",
                files[0],
                "dump",
                stdin=script,
            )[0]
            == 0
        )


@kernel
def test_a_capture_keeps_names_and_what_was_shown(meant_flows, tmp_path):
    user_called_root()
    m, types = meant_flows
    file = str(tmp_path / "c")
    child = subprocess.Popen(["sleep", "1000"])
    try:
        while True:  # until it is sleep
            with open("/proc/%d/comm" % child.pid) as comm:
                if comm.read() == "sleep\n":
                    break
        for key in list(m):
            value = m[key]
            value.pid = child.pid
            m[key] = value
        done(*types, *MEANT_SHOW, "save", "id", m.id, file)
    finally:
        child.kill()
        child.wait()
    live = done(*types, *MEANT_SHOW, "dump", "id", m.id)
    assert "pid=%d " % child.pid in live
    for words in ([], MEANT_SHOW, ["--show", "pid=pid"]):
        out = done("--from", file, *types, *words, "dump", "where", "dport=443")
        assert "pid=sleep(%d) uid=root at=tcp_sendmsg+0x10" % child.pid in out
        ago = re.search(r"\(([\d.]+m?)s ago\)", out).group(1)
        assert 1 <= float(ago) < 60  # when it was captured
    out = done("--from", file, "--show", "pid=plain", *types, "dump", "where", "pid=%d" % child.pid)
    assert "pid=%d " % child.pid in out and "Found 2" in out
    assert "pid" not in done("--from", file, "dump")  # without types there are no fields
    with open(file, "rb") as opened:
        lines = opened.read().split(b"\n")
    assert json.loads(lines[0].decode())["bpflookup_capture"] == 2
    assert json.loads(lines[-3].decode())["names"]["pid"] == {
        str(child.pid): "sleep(%d)" % child.pid
    }
    for names, is_fine in (
        ({"names": {"pid": {str(child.pid): "\x1b[2J"}}}, True),  # foreign text
        ({"names": {"other": {"1": "x"}}}, True),
        ({"names": {"pid": {"x": "y"}}}, False),
        ({"names": {"pid": {"9" * 30: "y"}}}, False),
        ({"names": {"pid": 5}}, False),
        ({"names": {"pid": {str(child.pid): ["x"]}}}, False),
        ({"names": {"pid": {str(child.pid): None}}}, False),
        ({"names": 5}, False),
        ([], False),
        ({}, False),
    ):
        body = b"\n".join(lines[:-3] + [json.dumps(names).encode()]) + b"\n"
        tail = {"entries": 2, "sha256": hashlib.sha256(body).hexdigest()}
        with open(file, "wb") as opened:
            opened.write(body + json.dumps(tail).encode() + b"\n")
        status, out, err = main("--from", file, *types, "dump")
        assert (status == 0) == is_fine and err.count("\n") == (status != 0)
        assert "\x1b" not in out


@kernel
def test_captures_without_names_are_what_they_were(flows, tmp_path):
    """So that what reads the first version goes on reading them."""
    file = str(tmp_path / "c")
    flows[Key(1, 2, 3, 4)] = Value(5, 6)
    bpf.capture(flows, file)
    with open(file) as opened:
        lines = opened.read().splitlines()
    assert json.loads(lines[0])["bpflookup_capture"] == 1 and len(lines) == 3


@kernel
def test_a_tagged_type_of_the_caller_has_its_names_captured(tmp_path):
    user_called_root()

    user_called_root()

    class Owner(ctypes.Structure):
        _fields_ = [("uid", u32), ("count", u32)]
        _show_ = {"uid": "uid"}

    file = str(tmp_path / "c")
    with Map.create(HASH, u32, Owner, 4) as m:
        m[1] = Owner(0, 5)
        bpf.capture(m, file)
        assert bpf.to_python(m[1]) == {"uid": "root", "count": 5}
    ((key, value),) = bpf.Capture.load(file, u32, Owner).items()
    assert (key, bpf.to_python(value)) == (1, {"uid": "root", "count": 5})
    with open(file) as opened:
        assert '{"names": {"uid": {"0": "root"}}}' in opened.read()
    names = bpf._NamesFound([None, bpf.layout(Owner)], bpf.View(bpf.Capture.load(file, u32, Owner)))
    names.add((b"", b"".join(bytes(u32(uid)) + bytes(4) for uid in range(2 * 10**9, 2 * 10**9 + 99)), 99))  # fmt: skip
    assert names.texts == {"uid": {}}  # what has no name takes no memory


@kernel
def test_a_captures_byte_order_is_that_of_prefixes_and_addresses(tmp_path):
    file, order = str(tmp_path / "c"), {"little": "big", "big": "little"}[sys.byteorder]

    def other(number, size):
        return number.to_bytes(size, order)

    with created(HASH, None, None, 4, key_size=8, value_size=16) as m:
        raw = other(2, 2) + b"\0\x35\x0a\0\0\1" + bytes(8)
        m[other(8, 4) + b"\x0a\0\0\0"] = raw
        bpf.capture(m, file)
    with open(file, "rb") as opened:
        head, *lines = opened.read().split(b"\n")
    head = json.dumps(dict(json.loads(head.decode()), order=order)).encode()
    body = b"\n".join([head] + lines[:-2]) + b"\n"
    tail = {"entries": 1, "sha256": hashlib.sha256(body).hexdigest()}
    with open(file, "wb") as opened:
        opened.write(body + json.dumps(tail).encode() + b"\n")
    out = done("--from", file, "--show", "key=prefix,value=sockaddr", "dump")
    assert out.splitlines()[0] == "10.0.0.0/8: 10.0.0.1:53"


@kernel
def test_a_trie_is_captured_as_it_was(tmp_path):
    file, key = str(tmp_path / "c"), bpf.layout("struct { u32 length; u8 data[4]; }")
    with Map.create(LPM, key.ctype(), u32, 4, flags=1) as m:
        bpf.capture(m, file)
    with open(file) as opened:
        assert json.loads(opened.readline())["bpflookup_capture"] == 1  # it has no names


class OwnerOrNot(ctypes.Union):
    _fields_ = [("uid", u32), ("other", u32)]
    _show_ = {"uid": "uid"}


class MaybeOwned(ctypes.Structure):
    _fields_ = [("kind", u32), ("of", OwnerOrNot)]
    _union_ = {"of": ("kind", {1: "uid", 2: "other"})}


class OwnedPage(ctypes.Structure):
    _fields_ = [("uid", u32), ("page", u8 * (1 << 20))]
    _show_ = {"uid": "uid"}


@kernel
def test_what_names_can_not_be_found_in_is_captured_all_the_same(tmp_path):
    user_called_root()
    file = str(tmp_path / "c")
    with Map.create(HASH, u32, MaybeOwned, 4) as m:
        for kind in (1, 2, 9):  # 9 chooses no branch
            m[kind] = MaybeOwned(kind, OwnerOrNot(0))
        assert bpf.capture(m, file) == 3
    captured = bpf.Capture.load(file, u32, MaybeOwned)
    assert captured.names.text("uid", 0) == "root" and len(list(captured.items())) == 3
    with Map.create(ARRAY, u32, OwnedPage, 1) as m:
        assert bpf.capture(m, file) == 1


# -- captures: the file, whole or not at all


@kernel
def test_a_capture_appears_whole_or_not_at_all(pins, tmp_path):
    file = tmp_path / "flows"
    code = """
        import resource, sys, bpflookup as bpf
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        sys.exit(bpf.main(["save", sys.argv[1], sys.argv[2]]))
    """
    for before in (b"", b"an older one"):
        if before:
            file.write_bytes(before)
        status, out, err = python(code, pins + "/w_hash", file)
        assert (status, out) == (1, "") and err.count("\n") == 1 and "Traceback" not in err
        assert [path.name for path in tmp_path.iterdir()] == [file.name] * bool(before)
        assert not before or file.read_bytes() == before
    done("save", pins + "/w_hash", file)
    assert [path.name for path in tmp_path.iterdir()] == ["flows"]
    assert len(list(bpf.Capture.load(file).items())) == 2
    # root must not replace what is no plain file: /dev/stdout, /dev/null
    os.mkfifo(str(tmp_path / "fifo"))
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "link", "."):
        writer = subprocess.Popen(
            [sys.executable, MODULE, "save", pins + "/w_hash", str(tmp_path / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            writer.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # it waits for the fifo's reader
            writer.kill()
            writer.communicate()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "fifo").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "flows", "link"]


@kernel
def test_captures_to_one_path_at_once_all_succeed(numbers, tmp_path):
    """Of threads and of processes; what stays is one of them, whole, and no other file."""
    numbers[1] = 2
    file, barrier, counts = str(tmp_path / "c"), threading.Barrier(8), []

    def write():
        barrier.wait()
        counts.extend(bpf.capture(numbers, file) for _ in range(20))

    threads = [threading.Thread(target=write) for _ in range(8)]
    children = [os.fork() for _ in range(1)]
    if not children[0]:
        os._exit(any(bpf.capture(numbers, file) != 1 for _ in range(100)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitpid(children[0], 0)[1] == 0
    assert counts == [1] * 160 and os.listdir(str(tmp_path)) == ["c"]
    assert list(bpf.Capture.load(file, u32, u64).items()) == [(1, 2)]


@kernel
def test_a_capture_makes_and_removes_no_file_but_its_own(numbers, tmp_path, monkeypatch):
    """Names that are taken, as by one that was killed, are left alone."""
    numbers[1] = 2
    names = iter([b"\1" * 8, b"\1" * 8, b"\2" * 8] + [b"\3" * 8] * 9)
    monkeypatch.setattr(os, "urandom", lambda count: next(names))
    left = [tmp_path / (".bpflookup-%s.tmp" % (one * 8)) for one in ("01", "02")]
    left[0].write_text("not ours")
    left[1].symlink_to(tmp_path / "elsewhere")
    (tmp_path / ("c.%d.tmp" % os.getpid())).write_text("nor this")
    assert bpf.capture(numbers, tmp_path / "c") == 1
    assert left[0].read_text() == "not ours" and left[1].is_symlink()
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / ("c.%d.tmp" % os.getpid())).read_text() == "nor this"
    assert len(list(tmp_path.iterdir())) == 4


@kernel
def test_a_capture_that_was_killed_is_in_nobodys_way(pins, tmp_path):
    """Not even in that of one with the same process id."""
    code = """
        import os, signal, sys, bpflookup as bpf
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        bpf.main(["save", sys.argv[1], sys.argv[2]])
    """
    for left in (1, 2):
        assert python(code, pins + "/w_hash", tmp_path / "c")[0] == -signal.SIGKILL
        assert len(os.listdir(str(tmp_path))) == left + (left > 1)
        done("save", pins + "/w_hash", tmp_path / "c")
        assert len(list(bpf.Capture.load(tmp_path / "c").items())) == 2


@kernel
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444, 0o4711])
def test_a_capture_keeps_the_mode_of_what_it_replaces(numbers, tmp_path, mode):
    file, before = tmp_path / "c", os.umask(0o027)
    try:
        bpf.capture(numbers, file)
        assert file.stat().st_mode & 0o7777 == 0o640
        file.chmod(mode)
        bpf.capture(numbers, file)
        assert file.stat().st_mode & 0o7777 == mode
        if os.getuid() == 0:
            os.chown(str(file), 12, 34)
            file.chmod(mode)
            bpf.capture(numbers, file)
            found = file.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12, 34, mode)
    finally:
        os.umask(before)


@kernel
def test_nobody_else_can_open_what_is_to_replace_a_private_file(numbers, tmp_path, monkeypatch):
    """Not even before its mode is set."""
    file, seen, made = tmp_path / "c", [], os.open

    def opened(path, flags, mode=0o777, **options):
        number = made(path, flags, mode, **options)
        if flags & os.O_CREAT:
            seen.append(os.fstat(number).st_mode & 0o7777)
        return number

    file.touch()
    file.chmod(0o600)
    monkeypatch.setattr(os, "open", opened)
    bpf.capture(numbers, file)
    assert seen == [0o600]


@kernel
def test_a_capture_takes_every_kind_of_path(numbers, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    names = [
        "c",
        b"c\xff",
        "x" * 255,
        os.path.join(os.fsencode(str(tmp_path)), b"d"),
        tmp_path / "e",
    ]
    for count, name in enumerate(names, 1):
        assert bpf.capture(numbers, name) == 0 and bpf.Capture.load(name).info.id == numbers.id
        assert len(os.listdir(".")) == count
    for name, error in (
        ("/nope/c", FileNotFoundError),
        (b"/nope/c", FileNotFoundError),
        ("c/d", NotADirectoryError),
        ("y" * 256, OSError),
        (None, TypeError),
        ("a\0b", ValueError),
    ):
        with pytest.raises(error) as told:
            bpf.capture(numbers, name)
        if isinstance(told.value, OSError):
            assert told.value.filename == os.fsdecode(name)
    assert len(os.listdir(".")) == len(names)


@kernel
def test_a_capture_never_follows_a_link(numbers, tmp_path):
    """Nor does it replace what is no plain file."""
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "directory").mkdir()
    os.mkfifo(str(tmp_path / "fifo"))
    before = sorted(os.listdir(str(tmp_path)))
    for name in ("link", "dangling", "directory", "fifo"):
        with pytest.raises(OSError, match="plain file") as told:
            bpf.capture(numbers, tmp_path / name)
        assert told.value.filename == str(tmp_path / name)
        assert sorted(os.listdir(str(tmp_path))) == before
    assert target.read_text() == "precious" and (tmp_path / "link").is_symlink()


@kernel
@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod", "lstat", "open"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, MemoryError])
def test_a_capture_that_fails_leaves_nothing(numbers, tmp_path, monkeypatch, step, kind):
    """Whichever step fails, the old file stays, no other and no descriptor; the error names the path."""
    numbers[1] = 2
    file = tmp_path / "c"
    file.write_text("older")
    before = open_fds()

    def fail(*words, **options):
        if step == "open" and not words[1] & os.O_CREAT:
            return made(*words, **options)
        raise kind(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        made = os.open
        patch.setattr(os, step, fail)
        with pytest.raises(kind) as told:
            bpf.capture(numbers, file)
    assert os.listdir(str(tmp_path)) == ["c"] and file.read_text() == "older"
    if kind is OSError and step != "lstat":
        assert told.value.filename == str(file)
    del told
    assert open_fds() == before


@kernel
def test_a_capture_is_on_the_disk_before_it_takes_its_place(numbers, tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *words, name=name, real=real: (order.append(name), real(*words))
        )
    bpf.capture(numbers, tmp_path / "c")
    assert order == ["fsync", "replace"]


@kernel
def test_a_full_disk_is_told_by_the_file_that_it_is_about(pins):
    status, out, err = main("save", pins + "/w_hash", "/dev/full")
    assert status == 1 and "/dev/full" in err
    directory = tempfile.mkdtemp()
    code = """
        import resource, sys, bpflookup as bpf
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        sys.exit(bpf.main(["save", sys.argv[1], sys.argv[2]]))
    """
    status, out, err = python(code, pins + "/w_hash", directory + "/c")
    assert status == 1 and err.startswith("bpflookup: %s/c: " % directory)
    os.rmdir(directory)


# -- captures that are cut, altered, forged


def forged(header, lines=()):
    """Return a capture with a true checksum."""
    body = (
        "\n".join([header if isinstance(header, str) else json.dumps(header)] + list(lines)) + "\n"
    )
    end = {"entries": len(lines), "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return (body + json.dumps(end) + "\n").encode()


def hand_made(btf=None, types=None, order="little", base=None, cpus=(), header=(), **info):
    """Return the first line of a capture of a hash of u32 and u64, or what info says, as a dict."""
    known = dict.fromkeys(bpf.MapInfo.__slots__)
    known.update(id=1, type=1, name="made", key_size=4, value_size=8, max_entries=4, map_flags=0)
    known.update(info)
    encoded = [blob and base64.b64encode(blob).decode() for blob in (btf, base)]
    made = {"bpflookup_capture": 1, "info": known, "btf": encoded[0], "base": encoded[1]}
    made.update(types=types or {}, order=order, cpus=list(cpus), host="h", kernel="k", machine="m")
    made.update(header)
    return made


@kernel
@pytest.mark.parametrize("name", ["w_plain", "w_pc_hash"])
def test_whatever_is_cut_or_altered_is_noticed(captures, tmp_path, name):
    with open(os.path.join(captures, name), "rb") as file:
        whole = file.read()
    wanted = list(bpf.Capture(whole, bytes, bytes).items())
    rng = random.Random(5)
    cuts = range(0, len(whole), max(1, len(whole) // 1500))
    lines = whole.split(b"\n")
    broken = [whole[:at] for at in cuts]
    broken += [
        whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :] for at in cuts
    ]
    broken += [
        b"\n".join(lines[:1] + lines[2:]),
        b"\n".join(lines[:2] + lines[1:]),
        whole.replace(b"\n", b"\r\n"),
        whole + b"x",
        whole + b"\n",
        whole + whole,
        b"",
        b"\n\n\n",
        b"{}\n{}\n",
        b"[" * 100000,
    ]
    noticed = 0
    for data in broken:
        try:
            assert list(bpf.Capture(data, bytes, bytes).items()) == wanted
        except ValueError:
            noticed += 1
    assert noticed >= len(broken) - 20  # what blanks stand in the last line is harmless
    (tmp_path / "cut").write_bytes(whole[:-9])
    status, out, err = main("--from", tmp_path / "cut", "dump")
    assert (status, out) == (1, "") and err.count("\n") == 1 and "cut" in err


@kernel
def test_a_forged_capture_with_a_true_checksum_is_an_error(captures, tmp_path):
    with open(os.path.join(captures, "w_hash")) as file:
        first, *entries, _ = file.read().splitlines()
    odd = [None, [], {}, "", "x", -1, 1 << 64, 1.5, True, [1], {"key": []}, {"sole": 1}]
    paths = [(name,) for name in json.loads(first)] + [
        ("info", name) for name in bpf.MapInfo.__slots__
    ]
    for path, value in itertools.product(paths, odd):
        header = json.loads(first)
        functools.reduce(lambda part, name: part[name], path[:-1], header)[path[-1]] = value
        body = "\n".join([json.dumps(header)] + entries) + "\n"
        end = {"entries": len(entries), "sha256": hashlib.sha256(body.encode()).hexdigest()}
        (tmp_path / "forged").write_text(body + json.dumps(end) + "\n")
        for words in ("show", "dump", "--metrics dump", "lookup key 1", "layout"):
            status, out, err = main("--from", tmp_path / "forged", *words.split())
            assert (status in (1, 2) and err.count("\n") == 1) or (status, err) == (0, ""), (
                path,
                value,
                words,
            )


@pytest.mark.parametrize(
    "info",
    [{name: value} for name in ("key_size", "value_size", "max_entries", "id", "type", "map_flags")
     for value in (1 << 32, 1 << 63)]
    + [{"map_extra": 1 << 64}, {"btf_id": 1 << 32}, {"type": PERCPU_HASH}],
)  # fmt: skip
def test_a_capture_with_numbers_that_no_map_has_is_refused(info):
    bpf.Capture(forged(hand_made()))
    with pytest.raises(ValueError, match="capture"):
        bpf.Capture(forged(hand_made(**info)))


@pytest.mark.parametrize(
    "info",
    [{"key_size": 0}, {"value_size": 0}]
    + [{"type": number, "value_size": 4, "key_size": size, "max_entries": slots}
       for number in (2, 3, 4, 6, 8, 12, 14, 15, 16, 17, 20) for size in (1, 8, 1 << 29)
       for slots in (1, 1 << 18)]
    + [{"type": number, "value_size": size} for number in (12, 13) for size in (1, 3, 5, 8)],
)  # fmt: skip
def test_a_capture_with_sizes_that_no_map_of_its_type_has_is_refused(info, tmp_path):
    """Indices have four bytes, and so do the ids of the maps in a map; nothing has none."""
    cpus = [0] if info.get("type") == PERCPU_ARRAY else ()
    right = dict(info, key_size=4, value_size=4)
    assert bpf.Capture(forged(hand_made(cpus=cpus, **right))).info.key_size == 4
    known = hand_made(cpus=cpus, **info)["info"]
    sizes = [known["key_size"], known["value_size"]]
    entry = " ".join("01" * min(size, 99) if size else "-" for size in sizes)
    lines = [entry] if max(sizes) < 99 else []
    (tmp_path / "c").write_bytes(forged(hand_made(cpus=cpus, **info), lines))
    for words in (["dump"], ["-j", "dump"], ["--ndjson", "dump"], ["--metrics", "dump"]):
        status, out, err = main("--from", tmp_path / "c", *words)
        assert (status, err.count("\n")) == (1, 1) and "no capture" in err
        assert len(out) < 99 + len(str(tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        ["--from", "F", "dump"],
        ["--btf", "F", "btf", "layout", "x"],
        ["--btf", "G", "-B", "F", "btf", "layout", "x"],
    ],
)
def test_a_file_of_another_kind_is_named(words, tmp_path):
    (tmp_path / "F").write_text("hello")
    (tmp_path / "G").write_bytes(Blob().data())
    words = [str(tmp_path / word) if word in ("F", "G") else word for word in words]
    status, out, err = main(*words)
    assert (status, out) == (1, "") and err.startswith("bpflookup: %s: no " % (tmp_path / "F"))


@pytest.mark.parametrize("form", ["-j", "-p", "--ndjson", "--hex", "--metrics"])
def test_memory_that_is_not_to_be_had_is_told_in_a_line(form, tmp_path, monkeypatch):
    (tmp_path / "c").write_bytes(forged(hand_made(), ["01000000 " + "00" * 8]))

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(bpf.Capture, "chunks", fail)
    words = ["--from", tmp_path / "c", "--value-type", "u64", form, "dump"]
    status, out, err = main(*words)
    assert (status, err) == (1, "bpflookup: out of memory\n")
    if form in ("-j", "-p"):
        assert json.loads(out) == []


@pytest.mark.parametrize("name", ["devmap", "cpumap", "sockmap", "xskmap", "perf_event_array"])
def test_what_a_hostile_capture_prints_is_bounded_by_what_it_holds(name, tmp_path):
    """A devmap's slots are told each, under -j: a few bytes must not ask for 2^32 lines."""
    number = getattr(bpf, "BPF_MAP_TYPE_" + name.upper())
    for slots in (3, (1 << 32) - 1):
        info = {"type": number, "value_size": 4, "max_entries": slots}
        (tmp_path / "c").write_bytes(forged(hand_made(**info), ["01000000 07000000"]))
        status, out, err = main("-j", "--from", tmp_path / "c", "dump")
        if slots == 3:
            assert status == 0 and len(json.loads(out)) == 3
        else:
            assert status == 1 and len(out) < 100 and "slots" in err, (name, out[:99])


def test_what_a_hostile_capture_reads_is_bounded_by_what_it_holds(tmp_path):
    """Members that share their bytes are many values in few; bits of their own are no more than that."""
    blob = Blob()
    number, char = blob.int("int", 4), blob.int("char", 1, 2)
    text = blob.array(blob.array(char, 4), 2)
    shared = blob.struct("shared", 8, *[("m%d" % at, text, 0) for at in range(500)])
    bits = blob.struct("bits", 8, *[("b%d" % at, number, at, 1) for at in range(64)])
    for value, count, is_read in ((shared, 10, True), (shared, 5000, False), (bits, 5000, True)):
        header = hand_made(blob.data(), {"key": number, "value": value})
        lines = ["%08x 0102030405060708" % at for at in range(count)]
        (tmp_path / "c").write_bytes(forged(header, lines))
        for words in (["-j", "dump"], ["dump"], ["--ndjson", "dump"], ["watch"]):
            status, out, err = main("--from", tmp_path / "c", *words)
            told = (status, err.count("\n"), "values in 12 bytes: too many" in err)
            assert told == ((0, 0, False) if is_read else (1, 1, True)), (words, err)
        assert json.loads(done("--from", tmp_path / "c", "-j", "lookup", "key", 0, 0, 0, 1))


@pytest.mark.parametrize(
    "lines",
    [
        ["010000 0000000000000000"],
        ["01000000 00000000000000"],
        ["0100000000 00000000000000"],
        ["010000 000000000000000000"],
        # as many bytes as two entries have
        ["010000 0000000000000000", "0100000000 0000000000000000"],
        ["01000000 00000000000000", "02000000 000000000000000000"],
        ["0100000 00000000000000000"],
        ["01000000"],
        ["01000000 0000000000000000 00"],
        ["01000000  0000000000000000"],
        ["- 0000000000000000"],
        ["01000000 -"],
        ["0100000g 0000000000000000"],
        [""],
    ],
)
def test_entries_of_a_capture_that_are_not_of_its_sizes_are_refused(lines, tmp_path):
    right = ["%08x 0000000000000000" % at for at in range(3)]
    for all_lines in (lines, right + lines, lines + right):
        (tmp_path / "c").write_bytes(forged(hand_made(), all_lines))
        for words in (
            ["dump"],
            ["-j", "dump"],
            ["--hex", "dump"],
            ["lookup", "key", "hex", "09", "0", "0", "0"],
        ):
            status, out, err = main("--from", tmp_path / "c", *words)
            assert (status, err.count("\n")) == (1, 1) and "no such key" not in err, (words, out)
        with pytest.raises(ValueError):
            list(bpf.Capture(forged(hand_made(), all_lines)).items())


@pytest.mark.parametrize("line", ['{"id": %s}', '{"entries": -%s, "x": 1}', "[[%s]]"])
def test_numbers_in_captures_are_no_longer_than_any_that_a_map_has(line):
    """The time that Python takes for one grows with the square of its digits."""
    bpf._capture_json((line % ("9" * 19)).encode())
    with pytest.raises(ValueError):
        bpf._capture_json((line % ("9" * 21)).encode())


def test_loading_a_capture_takes_its_size_in_memory_and_not_several_times_that(tmp_path):
    """Whatever the lengths of the lines."""
    code = """
        import sys, tracemalloc, bpflookup as bpf, hashlib, json, base64
        bpf.Capture.load(sys.argv[1])
        tracemalloc.start()
        kept = bpf.Capture.load(sys.argv[1])
        print(tracemalloc.get_traced_memory()[1])
        assert next(kept.items())
    """
    for info, line in (({"key_size": 1, "value_size": 1}, "01 02"), ({}, "01000000 " + "00" * 8)):
        data = forged(hand_made(**info), [line] * ((4 << 20) // len(line)))
        (tmp_path / "c").write_bytes(data)
        status, out, err = python(code, tmp_path / "c")
        assert status == 0 and int(out) < 1.2 * len(data), err


# ---- 9. Command line --------------------------------------------------------
# Words in, text and a status out: the grammar, typed input, queries, tables, watch, events, messages.  Nothing that
# stands in a map or a file steers a terminal; nothing ends in a traceback.


@pytest.fixture
def called():
    """Return a function that tests a map of a name that can't be made unique.

    Other runs of these tests use the name as well, on this machine (they wait) and in other
    containers of its kernel: what happened beside a map of theirs is tried again.
    """

    def check(name, test):
        failures = 0
        for _ in range(100):
            with Map.create(HASH, u32, u32, 8, name=name) as m:
                try:
                    return test(m)
                except AssertionError:
                    failures += [info.name for info in bpf.maps()].count(name) == 1
                    if failures == 3:  # one may be of another's that has just gone
                        raise
            time.sleep(0.2)
        pytest.fail("maps of others are called %r all the time" % name)

    with open(os.path.join(tempfile.gettempdir(), "bpflookup-tests.lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield check


TEXT, U32, U64 = ("char[16]", 16), ("u32", 4), ("u64", 8)


def text16(text):
    """Return the bytes of a char[16]."""
    return text.encode().ljust(16, b"\0")


def words_for(key, value):
    """Return the options that tell the types, and a hash of their sizes."""
    options = ["--key-type", key[0]] * bool(key[0]) + ["--value-type", value[0]] * bool(value[0])
    return options, Map.create(HASH, None, None, 8, key_size=key[1], value_size=value[1])


# -- bpftool's words

# Lines as they stand in scripts; each is run by bpftool in one directory and by us in another.
SCRIPT = """
map create {d}/h type hash key 4 value 8 entries 3 name {n} flags 0x41
m c {d}/a t array k 4 v 4 e 2 n {n}a
map create {d}/q type queue key 0 value 2 entries 2 name {n}q
map create {d}/c type percpu_array key 4 value 3 entries 2 name {n}c
map create {d}/l type lpm_trie key 8 value 1 entries 4 name {n}l flags 1
map create {d}/o type array_of_maps key 4 value 4 entries 2 name {n}o inner_map pinned {d}/a
map create {d}/p type prog_array key 4 value 4 entries 2 name {n}p
map create {d}/h type hash key 4 value 8 entries 3 name taken
map create {d}/x type no_such_type key 4 value 8 entries 3 name x
map update pinned {d}/h key 1 0 0 0 value 1 2 3 4 5 6 7 010
m u pin {d}/h k h 2 0 0 0 v h 0a 0b 0c 0d 0x1 2 3 ff n
map update pinned {d}/h key 2 0 0 0 value 0 0 0 0 0 0 0 0 noexist
map update pinned {d}/h key 0x3 0 0 0 value 9 9 9 9 9 9 9 9 any
map update pinned {d}/h key 4 0 0 0 value 9 9 9 9 9 9 9 9 exist
map update pinned {d}/h key 4 0 0 0 value 9 9 9 9 9 9 9 9
map update pinned {d}/h key hex 03 00 00 00 value hex 08 08 08 08 08 08 08 08 exist
map update pinned {d}/h value hex 1 2 3 4 5 6 7 a key hex 2 0 0 0
map update pinned {d}/h key 2 0 0 0 value hex 0 0 0 0 0 0 0 a
map update pinned {d}/h any key 2 0 0 0 value 1 2 3 4 5 6 7 8
map update pinned {d}/h key 2 0 0 0 noe value 9 9 9 9 9 9 9 9
map update pinned {d}/h key 2 0 0 0 e value 1 1 1 1 1 1 1 1
map update pinned {d}/h key 2 0 0 0 key 2 0 0 0 value 1 1 1 1 1 1 1 2
map update pinned {d}/h key 2 0 0 0 value 1 1 1 1 1 1 1 1 value 1 1 1 1 1 1 1 3
map update pinned {d}/h key 2 0 0 0 value 1 1 1 1 1 1 1 4 any exist
map update pinned {d}/h key 2 0 0 0 value 1 1 1 1 1 1 1 5 rest
map lookup pinned {d}/h key 2 0 0 0 -p
map lookup pinned -p {d}/h key 2 0 0 0
map lookup -p -- pinned {d}/h key 2 0 0 0
map lookup pinned {d}/h key hex 2 0 0 0 0
map lookup pinned {d}/h key
map lookup pinned {d}/h
map delete pinned {d}/h key 1 0 0 0
m del pinned {d}/h k 1 0 0 0
map update pinned {d}/c key 1 0 0 0 value 1 2 3
map update pinned {d}/l key 24 0 0 0 10 1 2 0 value 7
map push pinned {d}/q value 1 2
map enqueue pinned {d}/q value hex 3 4
map push pinned {d}/q value 5 6
map pop pinned {d}/q
map peek pinned {d}/q
map update pinned {d}/o key 1 0 0 0 value pinned {d}/a
map update pinned {d}/p key 1 0 0 0 value pinned {w}/fill
map pin pinned {d}/h {d}/again
map pin pinned {d}/h {d}/again
map freeze pinned {d}/a
map update pinned {d}/a key 0 0 0 0 value 1 2 3 4
map lookup pinned {d}/h key 1 0 0
map lookup pinned {d}/h key 1 0 0 256
map dump pinned {d}/nothing
m d pinned {d}/again
-jp m d pinned {d}/c
-n m d pinned {d}/l
map getnext pinned {d}/h
map dequeue pinned {d}/q
map dequeue pinned {d}/q
"""


@kernel
def test_scripts_for_bpftool_run_unchanged(pins, bpffs):
    tools = [("%s/%s" % (bpffs, name), name) for name in ("ours", "bpftool")]
    for directory, _ in tools:
        os.mkdir(directory)
    for line in SCRIPT.strip().splitlines():
        answers = []
        for directory, tool in tools:
            words = line.format(d=directory, n="s%d" % RUN, w=pins).split()
            words = words if words[0][:2] == "-j" else ["-j"] + words
            answers.append(main(*words) if tool == "ours" else run(program("bpftool"), *words))
        alike(line, *answers)
    for name in os.listdir(tools[0][0]):
        shown = [
            bpftool("map", "show", "pinned", "%s/%s" % (directory, name)) for directory, _ in tools
        ]
        assert [dict(info, id=0) for info in shown[:1]] == [dict(info, id=0) for info in shown[1:]]
        if name not in ("q", "o"):  # an o holds the id of its own a
            assert equal_json("dump", "pinned", "%s/%s" % (tools[0][0], name)) == bpftool(
                "map", "dump", "pinned", "%s/%s" % (tools[1][0], name)
            )


@kernel
def test_show_tells_pins_programs_and_processes(pins):
    pin = pins + "/w_hash"
    with Map.from_pin(pin) as m:
        out = done("map", "show", "id", m.id)
    program_id = bpftool("prog", "show", "pinned", pins + "/fill")["id"]
    assert out.startswith("%d: hash  name w_hash  flags 0x0\n" % m.id) and "\t" in out
    assert pin in out and "%d fill" % program_id in out and "(%d)" % os.getpid() in out
    before = {info["id"] for info in bpftool("map", "show")}
    listed = json.loads(done("-j", "-f", "map", "list"))
    assert [info["pinned"] for info in listed if info["id"] == m.id] == [[pin]]
    # other tests make and drop maps meanwhile
    lasting = before & {info["id"] for info in bpftool("map", "show")}
    assert lasting <= {info["id"] for info in listed}


@kernel
def test_maps_of_one_name_are_shown_and_dumped_all(pins):
    name = "w_%d" % RUN
    with Map.create(HASH, u32, u64, 4, name=name) as m, Map.create(
        ARRAY, u32, u32, 2, name=name
    ) as n:
        m[1], n[1] = 2, 3
        assert [info["id"] for info in equal_json("show", "name", name)] == [m.id, n.id]
        dumped = equal_json("dump", "name", name)
        assert [entry["name"] for entry in dumped] == [name] * 2
        assert dumped == equal_json("dump", "name", name, option="-p")
        out = done("dump", "name", name)
        assert [out.count("%d: " % one.id) for one in (m, n)] == [1, 1] and out.count("Found") == 2
        assert "\n1: %s\n" % " ".join("%02x" % byte for byte in bytes(u32(3))) in out
        for words in (["lookup", "name", name, "key", "1"], ["--ndjson", "dump", name]):
            status, out, err = main(*words)
            assert (status, out) == (1, "") and "ids %d, %d" % (m.id, n.id) in err
        by_id = equal_json("dump", "name", name)
        assert json.loads(done("-j", "dump", "id", m.id, n.id)) == by_id
        assert json.loads(done("-j", "dump", "name", name, "id", m.id)) == by_id + by_id[:1]
        assert "--ndjson takes one map" in refused("--ndjson", "dump", m.id, n.id)
        out = done("dump", m.id, "id", n.id, "where", "key=1")
        assert out.count("Found 1 element\n") == 2 and "\n1: 03 00 00 00\n" in out


@kernel
def test_what_goes_away_while_it_is_listed_is_left_out(pins, witness, kernel_is):
    bpftool("prog", "load", witness, pins + "/later", "pinmaps", pins + "/of_later")
    first = [bpf.BPF_PROG_GET_FD_BY_ID, bpf.BPF_MAP_GET_FD_BY_ID]

    def inject(number, cmd, ref, size):
        if cmd in first:  # the first of each is gone
            first.remove(cmd)
            return -errno.ENOENT
        return real_kernel(number, cmd, ref, size)

    with Map.create(ARRAY, u32, u32, 1), Map.from_pin(pins + "/of_later/w_hash") as m:
        lowest = next(bpf.maps()).id
        kernel_is(inject)
        assert lowest not in [info.id for info in bpf.maps()]
        assert any(text.endswith(" fill") for text in bpf.users(m.id)["progs"]) and not first


@kernel
def test_pins_are_told_of_every_map_as_soon_as_one_is_pinned(bpffs):
    with Map.create(HASH, u32, u32, 1) as m, Map.create(HASH, u32, u32, 1) as n:
        m.pin(bpffs + "/m")
        assert equal_json("show", "id", m.id, option="-jf")["pinned"] == [bpffs + "/m"]
        assert equal_json("show", "id", n.id, option="-jf")["pinned"] == []
        assert "pinned" not in equal_json("show", "id", n.id)
        listed = {info["id"]: info for info in json.loads(done("-jf", "map", "show"))}
        assert listed[m.id]["pinned"] == [bpffs + "/m"] and listed[n.id]["pinned"] == []
        assert "\tpinned" not in done("show", "id", n.id)


@kernel
@pytest.mark.parametrize(
    "map_type", [bpf.BPF_MAP_TYPE_CPUMAP, bpf.BPF_MAP_TYPE_DEVMAP, bpf.BPF_MAP_TYPE_PROG_ARRAY]
)
def test_only_a_prog_arrays_owner_is_told(map_type):
    with created(map_type, u32, u32, 2) as m:
        info = m.info
        info.owner_prog_type, info.owner_jited = 6, True  # as newer kernels have it for all
        told = bpf._info_json(info)
        assert ("owner_prog_type" in told, "owner_jited" in told) == (
            (map_type == bpf.BPF_MAP_TYPE_PROG_ARRAY,) * 2
        )


@kernel
def test_show_does_not_tell_its_own_process(bpffs):
    name = "alone%d" % RUN
    with Map.create(HASH, u32, u32, 1, name=name) as m:
        m.pin(bpffs + "/alone")
        assert "hash  name " + name in done("map") and "hash  name " + name in done("m")
    for words in (["pinned", bpffs + "/alone"], ["name", name]):
        out = done("map", "show", *words)  # others may look at all maps meanwhile
        assert "(%d)" % os.getpid() not in out and "\tpinned" in out


@kernel
@pytest.mark.parametrize("option", ["-j", "--hex", "--ndjson"])
def test_one_of_several_maps_of_a_name_may_vanish(option, kernel_is):
    for gone in (0, 1, 2):
        name = "v%d%s%d" % (gone, option[-1:], RUN)
        maps = [Map.create(HASH, u32, u32, 1, name=name) for _ in range(3)]
        ids = [m.id for m in maps]

        def found_once(number, cmd, ref, size):
            if cmd == bpf.BPF_MAP_GET_FD_BY_ID and ref._obj.get_id.start_id == ids[gone]:
                asked.append(cmd)
                if len(asked) > 1:
                    return -errno.ENOENT
            return real_kernel(number, cmd, ref, size)

        asked = []
        kernel_is(found_once)
        if option == "--ndjson":
            assert "2 maps are named" in main(option, "dump", "name", name)[2]
        else:
            out = done(option, "dump", "name", name)
            told = [entry["id"] for entry in json.loads(out)] if option == "-j" else out
            assert told == ids[:gone] + ids[gone + 1 :] or out.count("Found 0") == 2
        for m in maps:
            m.close()


@kernel
def test_types_that_may_not_be_had_are_told_of_in_one_line(pins):
    os.chmod(pins, 0o755)
    os.chmod(pins + "/w_lru", 0o444)
    code = """
        import io
        for words in lines:
            sys.stderr = io.StringIO()
            status = bpf.main(words)
            print("[%s] %d %d %s" % (words[0], status, sys.stderr.getvalue().count("\\n"), sys.stderr.getvalue()))
    """
    pin = ["pinned", pins + "/w_lru"]
    lines = [
        ["dump"] + pin,
        ["--ndjson", "dump"] + pin,
        ["lookup"] + pin + ["key", "6", "0", "0", "0"],
        ["--metrics", "dump"] + pin,
        ["getnext"] + pin + ["key", "a=1"],
        ["--hex", "dump"] + pin,
        ["--key-type", "u32", "--value-type", "u16", "dump"] + pin,
    ]
    told = as_nobody("import sys\n" + textwrap.dedent(code), lines=lines)
    for word, status, count in (
        ("dump", 0, 1),
        ("--ndjson", 0, 1),
        ("lookup", 0, 1),
        ("--metrics", 1, 1),
        ("getnext", 2, 1),
        ("--hex", 0, 0),
        ("--key-type", 0, 0),
    ):
        (line,) = [line for line in told.splitlines() if line.startswith("[%s]" % word)]
        assert line.startswith("[%s] %d %d " % (word, status, count)), line
        assert not count or "types are missing" in line and "CAP_SYS_ADMIN" in line
    assert done("dump", *pin).startswith("UDP: 5\n") or "TCP: 5" in done("dump", *pin)


@kernel
def test_who_pipes_the_form_for_people_is_told_of_j(pins):
    for name, hinted in (("w_hash", True), ("w_rodata", True), ("w_plain", False)):
        for words in ([], ["-j"], ["--ndjson"], ["--hex"]):
            status, out, err = command(*words, "map", "dump", "pinned", pins + "/" + name)
            assert status == 0 and err.count("\n") == (hinted and not words), (words, err)
            assert not err or "-j" in err and out == done("dump", "pinned", pins + "/" + name)
    status, text = in_a_terminal(["dump", pins + "/w_lru"])
    assert "-j" not in text and "Found" in text


READING = """show MAP|list MAP|-j show MAP|dump MAP|-j dump MAP|--hex dump MAP|--ndjson dump MAP|watch MAP once|
    lookup MAP key KEY|getnext MAP|layout MAP|save MAP FILE"""
READING_ONCE = """show|-jf show|probe|hist PINS/w_pairs|peek PINS/w_queue|--metrics dump PINS/w_pc_array|
    pin ID PINS/again"""
WRITING_ALONE = """update PINNED key KEY value VALUE|delete PINNED key KEY|push PINS/w_queue value 1 1 1 1 1 1 1 1|
    freeze PINNED"""
READING_AND_WRITING = (
    """update PINS/w_pc_array key 0 0 0 0 value 1 0 0 0 0 0 0 0 cpu=CPU|pop PINS/w_queue"""
)


@kernel
@pytest.mark.parametrize(
    "lines, least, flags",
    [
        (READING.replace("MAP", "ID").split("|"), 11, "BPF_F_RDONLY"),
        (READING.replace("MAP", "PINNED").split("|"), 12, "BPF_F_RDONLY"),
        (READING_ONCE.split("|"), 7, "BPF_F_RDONLY"),
        (WRITING_ALONE.split("|"), 4, "BPF_F_WRONLY"),
        (READING_AND_WRITING.split("|"), 2, "0"),
    ],
    ids=["reading by id", "reading by pin", "reading", "writing", "both"],
)
def test_commands_open_maps_for_no_more_than_they_do(lines, least, flags, pins, tmp_path):
    """Watched from outside: what reads opens read-only, what writes write-only; both only where both are done."""
    with Map.from_pin(pins + "/w_plain") as m:
        values = {
            "ID": "id %d" % m.id,
            "PINNED": "pinned %s/w_plain" % pins,
            "PINS": pins,
            "KEY": " ".join(map(str, next(m.keys()))),
            "VALUE": "1 " * m.value_size,
            "FILE": str(tmp_path / "c"),
            "CPU": str(bpf.possible_cpus()[0]),
        }
    commands = [
        re.sub(r"\b(%s)\b" % "|".join(values), lambda word: values[word.group()], line)
        for line in lines
    ]
    source = """
        import sys, bpflookup
        for words in sys.argv[1:]:
            assert bpflookup.main(words.split()) == 0, words
    """
    status, out, calls = straced("bpf", source, *commands)
    assert status == 0, (calls, out)
    opened = re.findall(
        r"bpf\(BPF_(?:OBJ_GET|MAP_GET_FD_BY_ID), {.*(?:file|open)_flags=(\w+)", calls
    )
    assert len(opened) >= least and set(opened) == {flags}, calls
    assert len(opened) == len(re.findall(r"BPF_(?:OBJ_GET|MAP_GET_FD_BY_ID),", calls)), (
        "flags that were not shown"
    )


@kernel
def test_a_token_on_the_command_line(tokens):
    told = in_user_namespace(
        """
        for words in ("create DIR/m type hash key 4 value 4 entries 2 name m",
                      "--token DIR create DIR/m type hash key 4 value 4 entries 2 name m",
                      "update DIR/m key 1 0 0 0 value 2 0 0 0", "--token=DIR -j dump DIR/m", "--token DIR demo", "show",
                      "--token /sys/fs/bpf dump DIR/m", "--token /nowhere dump DIR/m"):
            print(bpf.main(words.replace("DIR", path).split()))
        bpf.main(["--token", path, "probe"])
    """,
        map_types=1 << HASH | 1 << PERCPU_ARRAY,
    ).splitlines()
    assert "BPF token" in told[0] and told[1:4] == ["1", "0", "0"], told
    assert '"value":["0x02","0x00","0x00","0x00"]' in told[4] and told[5] == "0"
    at = told.index("the counts are right")
    assert told[at + 1] == "0" and "user namespace" in told[at + 2] and told[at + 3] == "1"
    assert "BPF_TOKEN_CREATE" in told[at + 4] and told[at + 5] == "1" and told[at + 7] == "1"
    probed = {line[5:38].strip(): line.split()[0] for line in told[at + 8 :]}
    assert probed["map type hash"] == "yes" == probed["map type percpu_array"]
    assert probed["map type array"] == "no"
    assert probed["initial user namespace"] == "no" and probed["BPF tokens"] == "yes"


# -- typed input

PRINTED = [
    "struct { u32 hits[3]; enum { RED, BLUE = 5 } c[2]; }",
    "struct { struct { u16 a; struct { s8 x, y; } b[2]; } in; char name[8]; bool yes; }",
    "struct { enum { A, B } low:3; u32 rest:29; double d; u8 mac[6]; __be16 port; }",
    "struct { char name[8], other[8]; }",
    "u128",
    "enum { NO, YES }",
]

FLOW_FIELDS = struct.Struct("=IHBx").pack


def address(text):
    """Return the number that stands for an IPv4 address in memory."""
    return int.from_bytes(socket.inet_aton(text), sys.byteorder)


CPUS = len(bpf.possible_cpus()) if os.path.exists("/sys/devices/system/cpu/possible") else 1

# map, what is typed for key and value, the bytes that must be stored: key, and value or what is where in it
TYPED = [
    (
        "w_hash",
        "src=10.0.0.1,port=443,proto=6",
        "count=1,delta=-1,rest=0",
        FLOW_FIELDS(address("10.0.0.1"), 443, 6),
        {0: native(1), 8: native(-1)},
    ),
    (
        "w_hash",
        "src=0x0a,port=010,proto=255",
        "proto=TCP mood=BAD rest=0",
        FLOW_FIELDS(10, 8, 255),
        {16: native(6, 4), 20: native(-2, 4)},
    ),
    (
        "w_hash",
        '{"src": 4294967295, "port": 0, "rest": 0}',
        '{"comm": "ba sh", "rest": 0, "mac": "02:00:00:00:00:0f"}',
        FLOW_FIELDS((1 << 32) - 1, 0, 0),
        {40: b"\2\0\0\0\0\x0f", 46: b"ba sh"},
    ),
    (
        "w_hash",
        "port=1,rest=0",
        "addr.ip4=1.2.3.4,comm=0123456789abcdef,rest=0",
        FLOW_FIELDS(0, 1, 0),
        {24: b"\1\2\3\4", 46: b"0123456789abcdef"},
    ),
    (
        "w_hash",
        "port=2,rest=0",
        "addr.ip6=fe80::1,rest=0",
        FLOW_FIELDS(0, 2, 0),
        {24: b"\xfe\x80" + bytes(13) + b"\1"},
    ),
    ("w_lru", "UDP", "65535", u32(17), u16(65535)),
    ("w_lru", "6", "0xffff", u32(6), u16(65535)),
    ("w_lpm", "10.2.0.0/16", "-7", native(16, 4) + b"\x0a\2\0\0", native(-7)),
    (
        "w_lpm",
        "10.2.3.4",
        "0x7fffffffffffffff",
        native(32, 4) + b"\x0a\2\3\4",
        native((1 << 63) - 1),
    ),
    ("w_lpm", "prefixlen=8,data=11.0.0.0", "0", native(8, 4) + b"\x0b\0\0\0", native(0)),
    ("w_real", "1", "-2.5e3", u32(1), ctypes.c_double(-2500)),
    ("w_real", "2", "3", u32(2), ctypes.c_double(3)),
    ("w_pc_array", "1", "18446744073709551615", u32(1), [native((1 << 64) - 1)] * CPUS),
    ("w_lru_pc", "107", "7", b"k", [native(7, 2)] * CPUS),
]


@kernel
@pytest.mark.parametrize("name, key, value, raw_key, wanted", TYPED)
def test_typed_input_stores_what_it_says(pins, name, key, value, raw_key, wanted):
    pin = os.path.join(pins, name)
    assert done("update", pin, "key", key, "value", *value.split(" ")) == ""
    found = raw_entries(pin)[bytes(raw_key)]
    if isinstance(wanted, dict):
        rest = bytearray(found)
        for at, part in wanted.items():
            assert found[at : at + len(part)] == part
            rest[at : at + len(part)] = bytes(len(part))
        assert not any(rest)
    else:
        assert found == (wanted if isinstance(wanted, list) else bytes(wanted))
    assert json.loads(done("-j", "lookup", pin, "key", key))["key"] == [
        "0x%02x" % byte for byte in bytes(raw_key)
    ]


@kernel
def test_bits_and_single_cpus_are_set_without_touching_the_rest(pins):
    done(
        "update",
        pins + "/w_hash",
        "key",
        "port=9,rest=0",
        "value",
        "low=7,high=-262144,ok=true,wide=0x%x,rest=0" % (1 << 127),
    )
    fields = json.loads(done("--ndjson", "lookup", pins + "/w_hash", "key", "port=9,rest=0"))[
        "value"
    ]
    assert [fields[name] for name in ("low", "mid", "high", "ok", "wide")] == [
        7,
        0,
        -262144,
        True,
        1 << 127,
    ]
    pin, cpus = pins + "/w_pc_array", bpf.possible_cpus()
    done("update", pin, "key", "2", "value", "5")
    for cpu in cpus:
        done("update", pin, "key", "2", "value", "%d" % (cpu + 100), "cpu=%d" % cpu)
        assert raw_entries(pin)[native(2, 4)] == [
            native(one + 100 if one <= cpu else 5) for one in cpus
        ]
    done(
        "update",
        pins + "/w_pc_hash",
        "key",
        "3",
        "value",
        "ip4=10.0.0.1",
        "rest=0",
        "cpu=0",
        "noexist",
    )
    assert raw_entries(pins + "/w_pc_hash")[native(3, 4)] == [b"\x0a\0\0\1" + bytes(12)] + [
        bytes(16)
    ] * (len(cpus) - 1)


@kernel
@pytest.mark.parametrize(
    "name, key, value, said",
    [
        ("w_hash", "src=1,port=65536", "count=1", "port"),
        ("w_hash", "src=-1", "count=1", "src"),
        ("w_hash", "src=256.0.0.1", "count=1", "256.0.0.1"),
        ("w_hash", "src=1,src=2", "count=1", "src"),
        ("w_hash", "src=1,dst=2", "count=1", "dst"),
        ("w_hash", "src", "count=1", "src"),
        ("w_hash", "1", "count=1", "src, port, proto"),
        ("w_hash", "[1, 2]", "count=1", "src, port, proto"),
        ("w_hash", "{", "count=1", "key"),
        ("w_hash", "src=1,rest=0", "count=1.5", "count"),
        ("w_hash", "src=1,rest=0", "addr.ip4=1,addr=2", "addr"),
        ("w_hash", "src=1,rest=0", "addr.ip6=fe80:::1", "fe80"),
        ("w_hash", "src=1,rest=0", "count.x=1", "count"),
        ("w_hash", "src=1,rest=0", "mac=02:00:00:00:00:100", "value"),
        ("w_hash", "src=1,rest=0", "comm=0123456789abcdefg", "comm"),
        ("w_hash", "src=1,rest=0", "low=8", "3 bits"),
        ("w_hash", "src=1,rest=0", "proto=SCTP", "TCP"),
        ("w_hash", "src=1,rest=0", "ok=2", "ok"),
        ("w_hash", "src=1,rest=0", "high=-262145", "19 bits"),
        ("w_hash", "src=1,rest=0", '{"count": null}', "count"),
        ("w_hash", "src=1,rest=0", '{"grid": [[1, 2, 3]]}', "grid"),
        ("w_hash", "src=1,rest=0", '{"count": 1e400}', "count"),
        ("w_hash", "src=1,rest=0", "[" * 5000, "value"),
        ("w_hash", "src=1,rest=0", "", "value"),
        ("w_lru", "SCTP", "1", "TCP"),
        ("w_lru", "1", "65536", "65535"),
        ("w_lru", "1", "-1", "65535"),
        ("w_lru", "09", "1", "09"),
        ("w_lpm", "10.0.0.0/33", "1", "0..32"),
        ("w_lpm", "::1", "1", "8"),
        ("w_lpm", "10.0.0/8", "1", "10.0.0"),
        ("w_pc_array", "1", "1 cpu=4096", "4096"),
        ("w_pc_array", "1", "1 cpu=x", "cpu=x"),
        ("w_lru", "1", "1 cpu=0", "cpu=0"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_stored(pins, name, key, value, said):
    pin = os.path.join(pins, name)
    before = raw_entries(pin)
    assert said in refused("update", pin, "key", key, "value", *value.split(" "))
    assert raw_entries(pin) == before


@kernel
def test_what_is_printed_can_be_typed_again(pins):
    def text(plain):
        return plain if isinstance(plain, str) else json.dumps(plain)

    for name in ("w_hash", "w_array", "w_pc_hash", "w_lru", "w_lpm", "w_pairs", "w_real"):
        pin = os.path.join(pins, name)
        before, lines = raw_entries(pin), done("--ndjson", "dump", pin).splitlines()
        for entry in map(json.loads, lines):
            # not all bytes are text
            if "comm" not in str(entry) or isinstance(entry["value"]["comm"], str):
                for one in entry.get("values", [entry]):
                    done(
                        "update",
                        pin,
                        "key",
                        text(entry["key"]),
                        "value",
                        text(one["value"]),
                        *(["cpu=%d" % one["cpu"]] if "cpu" in one else []),
                    )
        # an update moves an entry
        assert sorted(done("--ndjson", "dump", pin).splitlines()) == sorted(lines)
        assert raw_entries(pin) == before


@kernel
@pytest.mark.parametrize("text", PRINTED)
def test_a_line_of_a_dump_can_be_typed_again(text):
    found, rng = bpf.layout(text), random.Random(text)
    words = ["--key-type", "u32", "--value-type", text]
    with Map.create(HASH, u32, key_size=4, value_size=found.size, max_entries=4) as m:
        for _ in range(20):
            raw = bytes(rng.choice((0, 1, 65, 32, 39, 92, 200)) for _ in range(found.size))
            if "bool" in text:
                raw = raw[:-1] + b"\1"
            if "double" in text:
                raw = raw[:4] + bytes(found.size - 4)
            raw = found.pack(found.reader("plain").one(raw))  # nothing in holes, or behind a NUL
            m[1] = raw
            line = done(*words, "lookup", "id", m.id, "key", "1").rstrip("\n")
            assert line.startswith("1: ")
            m[1] = bytes(found.size)
            pieces = re.findall(
                r"\w+=(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^ '\"\[{]+|[\[{].*?[\]}]+(?= \w+=|$))",
                line[3:],
            )
            given = pieces if "=" in line else [line[3:]]
            done(*words, "update", "id", m.id, "key", "1", "value", *given)
            assert m.lookup_bytes(1) == raw, line


@kernel
@pytest.mark.parametrize(
    "words, text, number",
    [
        (["name=gr\xfcn \u20ac", "port=1"], "gr\xfcn \u20ac", 1),
        (["name=gr\xfcn x,port=1"], "gr\xfcn x", 1),
        (["name=a b port=2"], "a b", 2),
        (["port=3 name=a b"], "a b", 3),
        (["name=a,b", "port=4"], "a,b", 4),
        (["name=a, b,port=5"], "a, b", 5),
        (["name=a,", "port=6"], "a", 6),
        (["port=7", "name=a,"], "a,", 7),
        (["name=a x=y", "port=8"], "a x=y", 8),
        (["name=x=y,port=9"], "x=y", 9),
        (["name='a,b=c',port=10"], "a,b=c", 10),
        (['name="a port=1" port=11'], "a port=1", 11),
        (["name='it\\'s'", "port=12"], "it's", 12),
        (["name='a\\x41\\t'", "port=13"], "aA\t", 13),
        (["name='a'b", "port=14"], "'a'b", 14),
        (["name=", "port=15"], "", 15),
        (["port=16", "name= a "], " a ", 16),
        (["name={1},port=17"], "{1}", 17),
        (["name=[1]", "port=18"], "[1]", 18),
        (["port=19,name=--help"], "--help", 19),
        (["port= 20,name=x"], "x", 20),
        (['{"name": "a, b=c", "port": 21}'], "a, b=c", 21),
    ],
)
def test_values_hold_blanks_and_commas(words, text, number):
    options, m = words_for(U32, ("char name[16], u32 port", 20))
    with m:
        done(*options, "update", "id", m.id, "key", "1", "value", *words)
        assert m[bytes(u32(1))] == text16(text) + bytes(u32(number))
        for unnamed in ("x", "port", "a b"):
            line = options + ["update", "id", m.id, "key", "1", "value", "port=1", unnamed]
            assert "is no NAME=VALUE, or quote" in refused(*line)
        for twice in (["port=1,port=2"], ["port=1", "port=2"], ["port=1 port=2"]):
            assert "twice" in refused(*options, "update", "id", m.id, "key", "1", "value", *twice)


@kernel
def test_arrays_and_records_in_a_list_are_json():
    options, m = words_for(U32, ("struct { u16 a[3]; struct { u8 x, y; } p; }", 8))
    with m:
        for words in (
            ['a=[1,2,3],p={"x": 4, "y": 5}'],
            ["a=[1, 2, 3]", "p.x=4,p.y=5"],
            ["p.x=4 p.y=5 a=[1,2,3]"],
            ['{"a": [1, 2, 3], "p": {"x": 4, "y": 5}}'],
            ['{"a":', "[1,", "2,", '3],"p":{"x":4,"y":5}}', "any"],
        ):
            done(*options, "update", "id", m.id, "key", "1", "value", *words)
            assert m[bytes(u32(1))] == struct.pack("=HHHBB", 1, 2, 3, 4, 5)
            m.delete(bytes(u32(1)))
        for words in (["a=[1,2,3]x,p.x=1,p.y=2"], ["a=[1,2],p.x=1,p.y=2"], ["a=[1,2,3],p=1"]):
            refused(*options, "update", "id", m.id, "key", "1", "value", *words)


# -- what is not named


def changed_bytes(before, after):
    """Return where two values of one size differ."""
    return [at for at, pair in enumerate(zip(before, after)) if pair[0] != pair[1]]


@kernel
@pytest.mark.parametrize(
    "line, places",
    [
        ("count=9", range(0, 8)),
        ('{"count": 9}', range(0, 8)),
        ("count=9 any", range(0, 8)),
        ("count=9 exist", range(0, 8)),
        ("mood=GOOD,ok=false", [20, 21, 22, 23, 67]),
        ("addr.ip4=9.9.9.9", range(24, 28)),
        ('{"addr": {"ip4": "9.9.9.9"}}', range(24, 28)),
        ("comm=x", range(46, 62)),
        ("low=1", [62]),
        ("mid=1", [62, 63]),
    ],
)
def test_an_update_leaves_alone_what_it_does_not_name(pins, line, places):
    pin = pins + "/w_hash"
    before = raw_entries(pin)
    with Map.from_pin(pin) as m:
        fields = json.loads(done("--ndjson", "dump", pin).splitlines()[0])["key"]
        raw = bytes(m.key_type(**fields))
    key = ",".join("%s=%s" % pair for pair in fields.items())
    for words in (["key", key], ["key"] + list(raw)):
        done("update", pin, *words, "value", *(shlex.split(line) if "{" not in line else [line]))
        after = raw_entries(pin)
        differ = changed_bytes(before[raw], after[raw])
        assert differ and set(after) == set(before)
        assert set(differ) <= set(places)
    rest = [one for one in before if one != raw]
    assert [after[one] for one in rest] == [before[one] for one in rest]


@kernel
def test_global_variables_are_set_one_by_one(pins):
    for name, line in (
        ("w_bss", "last.count=77"),
        ("w_bss", '{"last": {"comm": "new"}}'),
        ("w_data", "counter=5"),
    ):
        pin = pins + "/" + name
        before = json.loads(done("--ndjson", "lookup", pin, "key", "0"))["value"]
        done("update", pin, "key", "0", "value", line)
        after = json.loads(done("--ndjson", "lookup", pin, "key", "0"))["value"]
        wanted = {"last.count=77": ("last", "count", 77), "counter=5": ("counter", None, 5)}.get(
            line, ("last", "comm", "new")
        )
        inner = before[wanted[0]] if wanted[1] else before
        assert inner[wanted[1] or wanted[0]] != wanted[2]
        inner[wanted[1] or wanted[0]] = wanted[2]
        assert after == before


@kernel
def test_every_cpu_keeps_what_is_not_named():
    cpus = bpf.possible_cpus()
    options = ["--value-type", "u32 count, u16 kind, u16 flags"]
    pack = struct.Struct("=IHH").pack
    for map_type in (PERCPU_HASH, PERCPU_ARRAY):
        with Map.create(map_type, u32, None, 4, value_size=8) as m:
            m[2] = [pack(10 + cpu, cpu, 7) for cpu in cpus]
            done(*options, "update", "id", m.id, "key", "2", "value", "flags=9")
            assert m[2] == [pack(10 + cpu, cpu, 9) for cpu in cpus]
            last = "cpu=%d" % cpus[-1]
            done(*options, "update", "id", m.id, "key", "2", "value", "kind=99", last)
            wanted = [pack(10 + cpu, 99 if cpu == cpus[-1] else cpu, 9) for cpu in cpus]
            assert m[2] == wanted
            done(*options, "update", "id", m.id, "key", "2", "value", "count=1", "rest=0", last)
            assert m[2] == wanted[:-1] + [pack(1, 0, 0)]
            done(*options, "update", "id", m.id, "key", "2", "value", "rest=0")
            assert m[2] == [bytes(8)] * len(cpus)


@kernel
def test_where_no_entry_is_all_fields_are_needed():
    options, m = words_for(("u32 a, u16 b, u16 c", 8), ("u32 x, u32 y, u32 rest", 12))
    with m:
        words = options + ["update", "id", m.id, "key"]
        for line, said in (
            ("a=1 value x=1,y=2,rest=3", "b, c not given"),
            ("a=1,c=2 value x=1,y=2,rest=3", "b not given"),
            ('{"b":1} value x=1,y=2,rest=3', "a, c not given"),
            ("a=1,b=2,c=3 value x=1", "y, rest not given"),
            ("a=1,b=2,c=3 value x=1 noexist", "no entry"),
            ("a=1,b=2,c=3 value {}", "x, y, rest not given"),
            ("a=1,b=2,rest=1 value x=1,y=2,rest=3", "rest can only be 0"),
        ):
            assert said in refused(*words, *line.split()), line
            assert not dict(m.items())
        for command in ("lookup", "delete", "getnext"):
            line = options + [command, "id", m.id, "key", "a=1"]
            assert "b, c not given" in refused(*line)
        done(*words, *"a=1,rest=0 value x=1 y=2 rest=3".split())
        done(*words, '{"a": 2, "rest": 0}', "value", '{"x": 1, "y": 2, "rest": 3}')
        stored = struct.pack("=III", 1, 2, 3)
        assert dict(m.items()) == {struct.pack("=IHH", a, 0, 0): stored for a in (1, 2)}
        done(*words, *"a=1,rest=0 value y=9".split())  # rest is a field of this one
        assert m[struct.pack("=IHH", 1, 0, 0)] == struct.pack("=III", 1, 9, 3)
        assert "EEXIST" in main(*words, *"a=1,rest=0 value y=8 noexist".split())[2]


@kernel
def test_a_queues_value_needs_all_fields_and_has_no_key():
    with Map.create(QUEUE, None, None, 4, key_size=0, value_size=8) as queue:
        for command in ("update", "push", "lookup"):
            line = [command, "id", queue.id, "key", "1", "value"] + ["1"] * 8
            assert "'key'" in refused(*line[: 5 if command == "lookup" else None])
        push = ["--value-type", "u32 a, u32 b", "push", "id", queue.id, "value"]
        assert "b not given" in refused(*push, "a=1")
        done(*push, "a=1", "rest=0")
        assert queue.pop() == struct.pack("=II", 1, 0)


@kernel
def test_a_partial_update_reads_by_a_descriptor_of_its_own(pins):
    words = ["update", pins + "/w_bss", "key", "0", "value", "last.count=7"]
    source = "import sys, bpflookup; assert bpflookup.main(sys.argv[1:]) == 0"
    status, _, err = straced("bpf", source, *words)
    assert status == 0, err
    flags = re.findall(r"BPF_OBJ_GET, {.*file_flags=(\w+)", err)
    assert flags == ["BPF_F_WRONLY", "BPF_F_RDONLY"]


# -- the grammar of words: what is data, what a flag, an option, a keyword

RECORD, CPU_RECORD = ("u32 name, u32 cpu", 8), ("u32 id, u32 count", 8)

FEW = ("", 4)  # nothing is known of its bytes

RECORD_TEXT = ("struct { struct { char name[16]; } inner; }", 16)

# key type, value type, words, the key and value that must be stored, the flag
GRAMMAR = [
    # as many bytes as the type has are data, whatever else they are; what stands behind is not
    (FEW, FEW, "key 1 2 3 4 value hex 0 0 0 a", bytes([1, 2, 3, 4]), b"\0\0\0\x0a", 0),
    (FEW, FEW, "key 1 2 3 4 value hex 0 0 0 a n", bytes([1, 2, 3, 4]), b"\0\0\0\x0a", 1),
    (FEW, FEW, "key 1 2 3 4 value h 0 0 0 e a", bytes([1, 2, 3, 4]), b"\0\0\0\x0e", 0),
    (FEW, FEW, "k 1 2 3 4 v 1 2 3 4 a", bytes([1, 2, 3, 4]), bytes([1, 2, 3, 4]), 0),
    (FEW, FEW, "key hex a b c d value hex 0a0b0c0d noe", b"\n\x0b\x0c\r", b"\n\x0b\x0c\r", 1),
    (FEW, FEW, "key hex 0a0b 0c0d v hex 0x1 2 3 ff", b"\n\x0b\x0c\r", b"\1\2\3\xff", 0),
    (FEW, FEW, "value 1 2 3 4 key 5 6 7 8", bytes([5, 6, 7, 8]), bytes([1, 2, 3, 4]), 0),
    (FEW, FEW, "any value 1 2 3 4 key 5 6 7 8", bytes([5, 6, 7, 8]), bytes([1, 2, 3, 4]), 0),
    (FEW, FEW, "n key 5 6 7 8 value 1 2 3 4", bytes([5, 6, 7, 8]), bytes([1, 2, 3, 4]), 1),
    (FEW, FEW, "key 5 6 7 8 noexist value 1 2 3 4", bytes([5, 6, 7, 8]), bytes([1, 2, 3, 4]), 1),
    (TEXT, FEW, "key " + "7 " * 16 + "value 1 2 3 4 a", b"\7" * 16, bytes([1, 2, 3, 4]), 0),
    (U32, U64, "key 5 value 6 n", u32(5), u64(6), 1),
    (U32, U64, "key 5 value 6 -j", u32(5), u64(6), 0),
    (U32, U64, "value 6 key 5", u32(5), u64(6), 0),
    (U32, RECORD, "key 5 value name=1,cpu=2 noexist", u32(5), u32(1), u32(2), 1),
    # a word of text is no flag and no option; a flag that is spelled out is one behind it
    (U32, TEXT, "key 1 value plan a", u32(1), text16("plan a"), 0),
    (U32, TEXT, "key 1 value plan e", u32(1), text16("plan e"), 0),
    (U32, TEXT, "key 1 value plan no", u32(1), text16("plan no"), 0),
    (U32, TEXT, "key 1 value a n", u32(1), text16("a n"), 0),
    (U32, TEXT, "key 1 value plan a noexist", u32(1), text16("plan a"), 1),
    (U32, TEXT, "key 1 value any", u32(1), text16("any"), 0),
    (U32, TEXT, "key 1 value noexist any", u32(1), text16("noexist"), 0),
    (U32, TEXT, "key 1 value 'plan any'", u32(1), text16("plan any"), 0),
    (U32, TEXT, "key 1 value plan any any", u32(1), text16("plan any"), 0),
    (U32, TEXT, "key 1 value -j", u32(1), text16("-j"), 0),
    (U32, TEXT, "key 1 value -inf", u32(1), text16("-inf"), 0),
    (U32, TEXT, "key 1 value --help", u32(1), text16("--help"), 0),
    (U32, TEXT, "key 1 value a -h", u32(1), text16("a -h"), 0),
    (U32, TEXT, "key 1 value --from x", u32(1), text16("--from x"), 0),
    (U32, TEXT, "key 1 value -- -x", u32(1), text16("-x"), 0),
    (U32, TEXT, "key 1 value --", u32(1), text16("--"), 0),
    (U32, TEXT, "key 1 value cpu=0", u32(1), text16("cpu=0"), 0),
    (U32, TEXT, "key 1 value on cpu=0", u32(1), text16("on cpu=0"), 0),
    (U32, TEXT, "key 1 value hex", u32(1), text16("hex"), 0),
    (U32, TEXT, "key 1 value hex wrench", u32(1), text16("hex wrench"), 0),
    (U32, TEXT, "key 1 value a  value", u32(1), text16("a value"), 0),
    (U32, TEXT, "key 1 value v", u32(1), text16("v"), 0),
    (("char", 1), U32, "key x value 1 any", b"x", u32(1), 0),
    (("char", 1), U32, "key 255 value 1 any", b"\xff", u32(1), 0),
    (("s8", 1), ("u8", 1), "key 254 value 0xff n", b"\xfe", b"\xff", 1),
    (("s8", 1), ("u8", 1), "key -2 value 7", b"\xfe", b"\7", 0),
    # so is a keyword that can't be one
    (TEXT, U32, "key value value 1", text16("value"), u32(1), 0),
    (TEXT, U32, "key v value 1", text16("v"), u32(1), 0),
    (TEXT, U32, "key k v 1", text16("k"), u32(1), 0),
    (TEXT, U32, "key my v id value 1", text16("my v id"), u32(1), 0),
    (TEXT, U32, "key key value 1 any", text16("key"), u32(1), 0),
    (TEXT, U32, "key any value 1 any", text16("any"), u32(1), 0),
    (TEXT, U32, "key 'a value' value 1", text16("a value"), u32(1), 0),
    (TEXT, TEXT, "key a v value", text16("a"), text16("value"), 0),
    (TEXT, TEXT, "key value value value", text16("value"), text16("value"), 0),
    (TEXT, TEXT, "value b key a", text16("a"), text16("b"), 0),
    (TEXT, U32, "key -n value 1", text16("-n"), u32(1), 0),
    (TEXT, U32, "key cpu=3 value 1", text16("cpu=3"), u32(1), 0),
    (("double", 8), ("float", 4), "key -inf value -inf", b"INF8", b"INF4", 0),
    (U32, ("float", 4), "key 1 value -infinity any", u32(1), b"INF4", 0),
    (U32, ("s64", 8), "key 1 value -- -5 noexist", u32(1), ctypes.c_int64(-5), 1),
    # a record of nothing but text is text as well
    (RECORD_TEXT, U32, "key ab:: value 1", text16("ab::"), u32(1), 0),
    (RECORD_TEXT, U32, "key dead::beef a value 1", text16("dead::beef a"), u32(1), 0),
    (RECORD_TEXT, U32, "key inner.name=ab:: value 1 any", text16("ab::"), u32(1), 0),
    (RECORD_TEXT, U32, "key x=1 y value 1", text16("x=1 y"), u32(1), 0),
    (RECORD_TEXT, U32, "key {1} value 1", text16("{1}"), u32(1), 0),
    (TEXT, U32, "key fe80::1 value 1", text16("fe80::1"), u32(1), 0),
    (TEXT, U32, "key kworker/0:0:a value 1", text16("kworker/0:0:a"), u32(1), 0),
    (TEXT, U32, "key {x} value 1", text16("{x}"), u32(1), 0),
    (TEXT, U32, "key a=b c=d value 1", text16("a=b c=d"), u32(1), 0),
    # a field may be named as what else could stand there
    (U32, RECORD, "key 1 value cpu=3,name=4", u32(1), u32(4), u32(3), 0),
    (U32, RECORD, "key 1 value name=4 cpu=3", u32(1), u32(4), u32(3), 0),
    (RECORD, U32, "key name=4 cpu=3 value 9 any", struct.pack("=II", 4, 3), u32(9), 0),
    (
        ("u32 value, u32 key", 8),
        U32,
        "key value=4 key=3 value 9",
        struct.pack("=II", 4, 3),
        u32(9),
        0,
    ),
    (U32, ("u32 any, u32 exist", 8), "key 1 value any=1 exist=2", u32(1), u32(1), u32(2), 0),
    (U32, RECORD, """key 1 value '{"name": 4, "cpu": 3}' any""", u32(1), u32(4), u32(3), 0),
]


def key_words(line):
    """Return "key DATA" of a line that goes on with "value NUMBER" and perhaps a flag."""
    words = shlex.split(line)
    ends = [
        at for at, word in enumerate(words) if word in ("value", "v") and words[at + 1].isdigit()
    ]
    return words[: ends[-1]]


@kernel
@pytest.mark.parametrize("given", GRAMMAR, ids=[case[2] for case in GRAMMAR])
def test_words_are_data_where_they_can_be(given):
    key_type, value_type, line, key, flag = given[:4] + given[-1:]
    infinite = {b"INF8": ctypes.c_double(-math.inf), b"INF4": ctypes.c_float(-math.inf)}
    key = bytes(infinite.get(key, key) if isinstance(key, bytes) else key)
    value = b"".join(
        bytes(infinite.get(one, one) if isinstance(one, bytes) else one) for one in given[4:-1]
    )
    options, m = words_for(key_type, value_type)
    with m:
        words = options + ["update", "id", m.id] + shlex.split(line)
        status, out, err = main(*words)
        assert (status, err) == (0, "") and out in ("", "null\n")
        assert dict(m.items()) == {key: value}
        if flag == bpf.BPF_NOEXIST:
            assert "EEXIST" in main(*words)[2]
        if value_type == U32 and key_type in (TEXT, RECORD) and line.startswith("key "):
            # the same words ask for it, where nothing stands behind them
            asked = options + ["-j", "lookup", "id", m.id] + key_words(line)
            assert json.loads(done(*asked))["value"] == ["0x%02x" % byte for byte in value]


@kernel
@pytest.mark.parametrize(
    "key, value, line, said",
    [
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 4 5", "4 bytes, not 5"),
        (FEW, FEW, "key 1 2 3 4 value hex 1 2 3", "4 bytes, not 3"),
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 n n", "'"),
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 4 n n", "'n'"),
        (FEW, FEW, "key 1 2 3 4 key 1 2 3 4 value 1 2 3 4", "key"),
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 4 cpu=0", "cpu=0"),
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 4 --trace", "--trace"),
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 4 --help", "--help"),
        (FEW, FEW, "key 1 2 3 4 value 1 2 3 4 --bogus", "--bogus"),
        (FEW, FEW, "key 1 2 3 4 value", "value"),
        (FEW, FEW, "key 1 2 3 4", "value"),
        (FEW, FEW, "value 1 2 3 4", "key"),
        (FEW, FEW, "any", "key"),
        (FEW, FEW, "whatever 1", "'whatever'"),
        (U32, TEXT, "key 1 value 1 2 3", "quote"),
        (U32, TEXT, "key 1 value hex ad be", "quote"),
        (U32, U32, "key 1 value 2 -x", "-x"),
        (U32, U32, "key 1 value 2 3", "4 bytes, not 2"),
        (U32, RECORD, "key 1 value name=1,cpu=2 noexist extra", "'extra'"),
    ],
)
def test_words_that_are_nothing_are_refused(key, value, line, said):
    options, m = words_for(key, value)
    with m:
        assert said in refused(*options, "update", "id", m.id, *line.split())
        assert not dict(m.items())


@kernel
def test_options_stand_where_they_always_stood(pins):
    pin, key = pins + "/w_lru", ["key", 6, 0, 0, 0]
    wanted = done("-j", "lookup", pin, *key)
    for words in (
        ["lookup", "-j", pin] + key,
        ["lookup", pin, "-j"] + key,
        ["lookup", pin] + key + ["-j"],
        ["map", "-nj", "lookup", "pinned", pin, "key", "TCP"],
        ["lookup", "pinned", "-j", pin, "key", "TCP", "--json"],
        ["lookup", pin, "key", "TCP", "--hex", "-j"],
    ):
        assert done(*words) == wanted
    assert done("dump", pin, "-j") == done("-j", "dump", "--", pin)
    told = ["lookup", pins + "/w_plain", "key", 6, "--ndjson", "--value-type", "u8[5]"]
    assert json.loads(done(*told)) == {"key": [6, 0, 0, 0], "value": [1, 2, 3, 4, 5]}
    assert "unknown option -x" in refused("lookup", "-x", pin, "key", "6")


@kernel
def test_options_stand_anywhere_in_a_line_about_a_capture(pins, tmp_path):
    capture = str(tmp_path / "c")
    done("save", pins + "/w_lru", capture)
    words = ["lookup", "key", "TCP"]
    wanted = done("-j", "--from", capture, *words)
    for line in (
        ["--from", capture] + words + ["-j"],
        ["-j"] + words + ["--from", capture],
        ["lookup", "--from", capture, "-j", "key", "TCP"],
        ["-j", "lookup", "key", "--from", capture, "6", "0", "0", "0"],
    ):
        assert done(*line) == wanted


@kernel
@pytest.mark.parametrize(
    "name", ["n", "na", "i", "id", "pin", "kprobes", "key", "v", "views", "map"]
)
def test_a_map_may_have_the_name_of_a_word(name, bpffs, called):
    seven, nine = list(bytes(u32(7))), list(bytes(u32(9)))

    def test(m):
        for pin in os.listdir(bpffs):  # they keep the map of a try that failed
            os.unlink(os.path.join(bpffs, pin))
        m[7] = 9
        for prefix in ("name", "na", "n"):
            words = [prefix, name]
            assert done("show", *words).startswith("%d: hash  name %s" % (m.id, name))
            assert "Found 1" in done("dump", *words) and "7" in done("getnext", *words)
            for key in ("key", "k"):
                assert ": " in done("lookup", *words, key, *seven)
                done("update", *words, key, *seven, "v", *nine, "any")
            done("pin", *words, "%s/%s%s%d" % (bpffs, prefix, name, m.id))
        if name not in ("id", "key"):  # without a kind: not a word that is one in full
            assert "Found 1" in done("dump", name)
            done("pin", name, "%s/bare%s%d" % (bpffs, name, m.id))
            done("lookup", name, "key", *seven)
            done("update", name, "key", *seven, "value", *nine)

    name = name[:1] + "x%d" % RUN if len(name) > 3 else name
    called(name, test)


@kernel
def test_a_pins_path_is_taken_as_it_is(bpffs, monkeypatch):
    seven = bytes(u32(7))
    shown = " ".join("%02x" % byte for byte in seven)
    with Map.create(HASH, u32, u32, 8) as m:
        m[7] = 9
        for name in ("blank ", " blank", "two  blanks", "key", "-x", "n"):
            path = os.path.join(bpffs, name)
            done("map", "pin", "id", m.id, path)
            assert "Found 1" in done("dump", "pinned", path) and "Found 1" in done("dump", path)
            assert done("lookup", "pinned", path, "key", *seven).startswith(shown)
        with pytest.raises(AssertionError):
            done("dump", "pinned", os.path.join(bpffs, "blank"))
        monkeypatch.chdir(bpffs)
        for name in ("blank ", "-x", "key", "n"):
            assert "Found 1" in done("dump", "pinned", name)
            assert done("lookup", "pinned", name, "key", *seven).startswith(shown)
        outer = Map.create(bpf.BPF_MAP_TYPE_ARRAY_OF_MAPS, None, None, 2, inner=m)
        with Map.create(HASH, u32, u32, 8) as other:
            for words in (["id", other.id], ["i", other.id]):
                done("update", "id", outer.id, "key", *bytes(u32(1)), "value", *words, "any")
                assert outer[1] == other.id
        done("update", "id", outer.id, "k", 0, 0, 0, 0, "v", "pin", os.path.join(bpffs, "blank "))
        assert outer[0] == m.id
        outer.close()


@kernel
def test_cpu_names_a_field_where_there_is_one_else_a_cpu():
    cpus = bpf.possible_cpus()
    last = "cpu=%d" % cpus[-1]
    one_and_two = " ".join("%x" % byte for byte in bytes(u32(1)) + bytes(u32(2)))
    for value, line, wanted in (
        ("u32 name, u32 cpu", "name=1 cpu=2", (1, 2)),
        ("u32 name, u32 cpu", "name=1,cpu=2 " + last, (1, 2)),
        ("u32 name, u32 cpu", "cpu=2 name=1 any " + last, (1, 2)),
        ("u32 name, u32 cpu", "name=1 cpu=2 " + last + " any", (1, 2)),
        ("u32 name, u32 size", "name=1 size=2 " + last, (1, 2)),
        ("u32 name, u32 size", "hex %s %s a" % (one_and_two, last), (1, 2)),
    ):
        with Map.create(PERCPU_HASH, u32, u64, 8) as m:
            words = ["update", "id", m.id, "key", *bytes(u32(5)), "value"] + line.split()
            done("--value-type", value, *words)
            number = int.from_bytes(struct.pack("=II", *wanted), sys.byteorder)
            alone = [0] * (len(cpus) - 1) + [number]
            assert m[5] == (alone if last in line else [number] * len(cpus))


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_big_endian_number_has_its_name_on_every_machine(order):
    """It says that the number may be an IP address."""
    with mock.patch.object(sys, "byteorder", order):
        found = bpf._c_numbers()
    for word in ("__be32", "be32"):
        assert (found[word].name, found[word].order) == ("be32", "big")


# -- queries: where, sort, top, columns

FLOW_TYPE = "struct { __be32 saddr; __be16 port; u16 pad; }"
COUNT_TYPE = "struct { u64 packets, bytes; char comm[8]; enum { A, B, C } st; s32 low; u8 mac[6]; double d; }"


@pytest.fixture(scope="module")
def many_flows():
    """A hash of 5,000 flows, the words for its types, and its entries as plain Python."""
    key, value, rng = bpf.layout(FLOW_TYPE), bpf.layout(COUNT_TYPE), random.Random(5)
    entries = []
    for number in range(5000):
        entries.append(
            (
                dict(saddr=0x0A000000 + number, port=rng.choice([22, 80, 443]), pad=0),
                dict(
                    packets=rng.randrange(50),
                    bytes=rng.randrange(1 << 40),
                    comm=rng.choice(["nginx", "bash", "a b"]),
                    st=rng.choice("ABC"),
                    low=rng.randrange(-9, 9),
                    mac=[2, 0, 0, 0, 0, rng.randrange(3)],
                    d=rng.random(),
                ),
            )
        )
    types = ["--key-type", FLOW_TYPE, "--value-type", COUNT_TYPE]
    with Map.create(HASH, key_size=key.size, value_size=value.size, max_entries=8192) as m:
        m.update_batch(
            [key.pack(one) for one, _ in entries], [value.pack(one) for _, one in entries]
        )
        yield m, types, entries


def asked(many_flows, *query):
    """Return [(key, value)] of what a query shows."""
    m, types, _ = many_flows
    out = done(*types, "--ndjson", "dump", "id", m.id, *list(query))
    return [(one["key"], one["value"]) for one in map(json.loads, out.splitlines())]


def in_any_order(entries):
    """Return entries so that two lists of the same are equal."""
    return sorted(entries, key=repr)


@kernel
@pytest.mark.parametrize(
    "conditions, holds",
    [
        (["port=443"], lambda k, v: k["port"] == 443),
        (["key.port!=443", "packets>=40"], lambda k, v: k["port"] != 443 and v["packets"] >= 40),
        (["packets<3", "low>0"], lambda k, v: v["packets"] < 3 and v["low"] > 0),
        (["low<=-8"], lambda k, v: v["low"] <= -8),
        (["st=B"], lambda k, v: v["st"] == "B"),
        (["st~[AC]", "comm=a b"], lambda k, v: v["st"] in "AC" and v["comm"] == "a b"),
        (["comm~^n"], lambda k, v: v["comm"] == "nginx"),
        (["comm<b"], lambda k, v: v["comm"] == "a b"),
        (["saddr=10.0.0.77"], lambda k, v: k["saddr"] == 0x0A00004D),
        (["mac=02:00:00:00:00:02"], lambda k, v: v["mac"][5] == 2),
        (["mac[5]>0"], lambda k, v: v["mac"][5] > 0),
        (["d>0.99"], lambda k, v: v["d"] > 0.99),
        (["bytes=-0"], lambda k, v: False),
    ],
)
def test_where_shows_what_meets_all_conditions(many_flows, conditions, holds):
    wanted = [(k, v) for k, v in many_flows[2] if holds(k, v)]
    assert in_any_order(asked(many_flows, "where", *conditions)) == in_any_order(wanted)


@kernel
def test_sort_and_top_are_those_of_python(many_flows):
    entries = many_flows[2]
    ranks = sorted((v["bytes"] for _, v in entries), reverse=True)
    assert [v["bytes"] for _, v in asked(many_flows, "sort", "bytes")] == ranks
    assert [v["bytes"] for _, v in asked(many_flows, "sort", "+bytes", "top", "7")] == ranks[:-8:-1]
    of_port = sorted((v["d"] for k, v in entries if k["port"] == 22), reverse=True)
    found = asked(many_flows, "where", "port=22", "sort", "d", "top", "20")
    assert [v["d"] for _, v in found] == of_port[:20]
    assert len(asked(many_flows, "top", "3")) == 3 and not asked(many_flows, "top", "0")


@kernel
def test_top_0_tells_that_a_map_can_not_be_read():
    bloom = created(bpf.BPF_MAP_TYPE_BLOOM_FILTER, None, u32, 10)
    told = "this map has no keys"
    for query in ([], ["top", "1"], ["top", "0"], ["sort", "value", "top", "0"]):
        status, out, err = main("dump", "id", bloom.id, *query)
        assert (status, out) == (1, "") and told in err, query


@kernel
def test_columns_show_those_fields_alone(many_flows):
    found = asked(many_flows, "columns", "bytes,comm")
    wanted = [(k, {"bytes": v["bytes"], "comm": v["comm"]}) for k, v in many_flows[2]]
    assert in_any_order(found) == in_any_order(wanted)
    found = asked(many_flows, "where", "st=A", "columns", "key.port,low")
    wanted = [({"port": k["port"]}, {"low": v["low"]}) for k, v in many_flows[2] if v["st"] == "A"]
    assert in_any_order(found) == in_any_order(wanted)


def test_a_field_is_the_values_before_it_is_the_keys(tmp_path):
    lines = ["%02x000000 %02x00000000000000" % pair for pair in ((1, 9), (2, 8), (3, 7))]
    (tmp_path / "c").write_bytes(forged(hand_made(), lines))
    types = ["--from", tmp_path / "c", "--ndjson", "--key-type", "struct { u32 n; }"]
    types += ["--value-type", "struct { u32 n; u32 other; }", "dump"]
    for query, wanted in (
        (["sort", "n"], [1, 2, 3]),
        (["sort", "key.n"], [3, 2, 1]),
        (["sort", "value.n"], [1, 2, 3]),
        (["where", "n=7"], [3]),
        (["where", "key.n=1"], [1]),
    ):
        shown = [json.loads(line) for line in done(*types, *query).splitlines()]
        assert [one["key"]["n"] for one in shown] == wanted
    (shown,) = done(*types, "where", "n=7", "columns", "n").splitlines()
    assert json.loads(shown) == {"key": {"n": 3}, "value": {"n": 7}}


def test_what_is_no_number_comes_after_all_numbers_when_sorted(tmp_path):
    numbers = [1.5, float("nan"), float("inf"), -2.0, float("-inf"), float("nan"), 0.0]
    lines = ["%02x000000 %s" % (at, struct.pack("=d", one).hex()) for at, one in enumerate(numbers)]
    (tmp_path / "c").write_bytes(forged(hand_made(), lines))
    types = [
        "--from",
        tmp_path / "c",
        "--ndjson",
        "--key-type",
        "u32",
        "--value-type",
        "double",
        "dump",
    ]
    for sort, wanted in (("value", [2, 0, 6, 3, 4, 1, 5]), ("+value", [1, 5, 4, 3, 6, 0, 2])):
        keys = [json.loads(line)["key"] for line in done(*types, "sort", sort).splitlines()]
        assert keys == wanted
        few = done(*types, "sort", sort, "top", "3").splitlines()
        assert [json.loads(line)["key"] for line in few] == wanted[:3]


def test_text_and_bytes_of_per_cpu_values_are_those_of_the_first_cpu(tmp_path):
    """Only numbers have a sum."""
    lines = []
    for at, (first, second) in enumerate(((b"ab", b"zz"), (b"cd", b"ab"), (b"zz", b"cd"))):
        raws = [name + bytes(2) + 2 * name for name in (first, second)]
        lines.append(" ".join(["%02x000000" % at] + [raw.hex() for raw in raws]))
    header = hand_made(type=5, cpus=[0, 1])
    (tmp_path / "c").write_bytes(forged(header, lines))
    words = ["--from", tmp_path / "c", "--ndjson", "--key-type", "u32", "--value-type"]
    words += ["struct { char name[4]; u8 raw[4]; }", "dump"]
    for query, wanted in (
        (["where", "name=ab"], [0]),
        (["where", "name>=cd"], [1, 2]),
        (["where", "name~^z"], [2]),
        (["where", "raw=99.100.99.100"], [1]),
        (["sort", "name"], [2, 1, 0]),
    ):
        shown = done(*words, *query).splitlines()
        assert [json.loads(line)["key"] for line in shown] == wanted, query


def test_a_column_is_one_member_where_several_have_its_name(tmp_path):
    blob = Blob()
    number = blob.int("u32", 4)
    value = blob.struct(
        "value", 8, ("x", number, 0), ("", blob.struct("", 4, ("x", number, 0)), 32)
    )
    header = hand_made(blob.data(), {"key": number, "value": value})
    (tmp_path / "c").write_bytes(forged(header, ["01000000 0500000006000000"]))
    for column, wanted in (("x", {"x": 5}), ("x_1", {"x_1": 6}), ("x_1,x", {"x": 5, "x_1": 6})):
        out = done("--from", tmp_path / "c", "--ndjson", "dump", "columns", column)
        assert json.loads(out)["value"] == wanted


def test_columns_show_the_elements_that_they_name_and_no_others(tmp_path):
    value = "struct { u16 hits[3]; struct { u8 a; u8 grid[2][2]; } in[2]; u32 n; }"
    raw = struct.pack("=3H10BI", 1, 2, 3, *list(range(10, 20)), 7)
    (tmp_path / "c").write_bytes(forged(hand_made(value_size=20), ["01000000 " + raw.hex()]))
    types = ["--from", tmp_path / "c", "--ndjson", "--value-type", value]
    for columns, wanted in (
        ("hits[1]", {"hits[1]": 2}),
        ("hits[2],n,hits[0]", {"hits[0]": 1, "hits[2]": 3, "n": 7}),
        ("hits,hits[1]", {"hits": [1, 2, 3]}),
        ("in[1].a", {"in[1]": {"a": 15}}),
        ("in[0].a,in[1]", {"in[0]": {"a": 10}, "in[1]": {"a": 15, "grid": [[16, 17], [18, 19]]}}),
        ("in[1].grid[1]", {"in[1]": {"grid[1]": [18, 19]}}),
        ("in[1].grid[1][0],in[0].grid[0][1]",
         {"in[0]": {"grid[0][1]": 12}, "in[1]": {"grid[1][0]": 18}}),
        ("value.hits[1]", {"hits[1]": 2}),
        ("value", {"hits": [1, 2, 3], "in": [{"a": 10, "grid": [[11, 12], [13, 14]]},
                                             {"a": 15, "grid": [[16, 17], [18, 19]]}], "n": 7}),
    ):  # fmt: skip
        assert json.loads(done(*types, "dump", "columns", columns))["value"] == wanted
    types[-1] = "u16[2][5]"
    shown = json.loads(done(*types, "dump", "where", "value[1][4]=0", "columns", "value[0][2]"))
    assert shown["value"] == {"value[0][2]": 3}
    words = types[:2] + ["--key-type", "u8[4]", "--value-type", "u8[20]"]
    assert done(*words, "dump", "columns", "key[1],value[0]").startswith("key[1]=0: value[0]=1\n")
    for columns in ("value[2]", "value[0][5]", "value[x]", "value[-1]"):
        refused(*types, "dump", "columns", columns)


@kernel
def test_queries_work_in_every_form(many_flows, tmp_path):
    m, types, entries = many_flows
    (key, value) = max(entries, key=lambda one: one[1]["bytes"])
    query = ["sort", "bytes", "top", "1"]
    words = types + ["dump", "id", m.id] + query
    (entry,) = json.loads(done("-j", *words))
    assert bytes(int(one, 16) for one in entry["key"]) == bpf.layout(FLOW_TYPE).pack(key)
    assert done(*words).count("bytes=%d " % value["bytes"]) == 1
    assert done(*words).endswith("Found 1 element\n")
    assert done("--hex", *words).count("key: ") == 1
    assert done("--metrics", *words).count("bytes{") == 1
    done("save", "id", m.id, tmp_path / "kept")
    assert done(*types, "--from", tmp_path / "kept", "dump", *query) == done(*words)


@kernel
def test_fields_of_per_cpu_values_are_added_up_to_be_compared():
    with Map.create(PERCPU_HASH, u32, u64, 8) as m:
        cpus = len(bpf.possible_cpus())
        for key in range(4):
            m[key] = [key] * cpus
        types = ["--ndjson", "--key-type", "u32", "--value-type", "u64", "dump", "id", m.id]
        out = done(*types, "where", "value>=%d" % (2 * cpus), "sort", "value")
    assert [json.loads(line)["key"] for line in out.splitlines()] == [3, 2]


@kernel
@pytest.mark.parametrize(
    "query",
    [
        "where",
        "sort",
        "top x",
        "top -1",
        "columns",
        "where packets",
        "where =5",
        "where nope=1",
        "where st=Z",
        "where packets=x",
        "where packets=99999999999999999999999",
        "where mac<1",
        "where comm~(",
        "sort nope",
        "columns packets,nope",
        "top 1 extra",
        "where mac[6]=1",
    ],
)
def test_queries_that_make_no_sense_are_refused(many_flows, query):
    m, types, _ = many_flows
    refused(*types, "dump", "id", m.id, *query.split())


@kernel
def test_a_word_that_no_query_has_is_told_so(many_flows):
    m, types, _ = many_flows
    told = refused(*types, "dump", "id", m.id, "sort", "packets", "desc")
    assert "columns A,B or sum is needed, not 'desc'" in told


@kernel
@pytest.mark.parametrize("name", ["where", "top"])
def test_a_map_may_be_called_as_a_word_of_a_query(name, called):
    def test(m):
        m[1] = 7
        types = ["--key-type", "u32", "--value-type", "u32"]
        out = done(*types, "dump", "name", name, "where", "value=7")
        assert out == "1: 7\nFound 1 element\n"

    called(name, test)


# -- --show: meanings on the command line


@kernel
def test_show_tells_what_fields_mean_in_every_form_but_bpftools(meant_flows):
    user_called_root()
    m, types = meant_flows
    with open("/proc/self/comm") as file:
        me = "%s(%d)" % (file.read().rstrip("\n"), os.getpid())
    out = done(*types, *MEANT_SHOW, "dump", "id", m.id, "sort", "bytes")
    first, second = out.splitlines()[:2]
    assert first.startswith("saddr=10.0.0.1 dport=443 zone=0: bytes=1.5KiB seen='2")
    assert " ago)' " in first and first.endswith("pid=%s uid=root at=tcp_sendmsg+0x10" % me)
    assert "bytes=7B" in second and "uid=4000000000" in second
    lines = done(*types, *MEANT_SHOW, "--ndjson", "dump", "id", m.id).splitlines()
    told = {one["key"]["dport"]: one["value"] for one in map(json.loads, lines)}
    assert told[443]["pid"] == me and told[443]["uid"] == "root" and told[443]["bytes"] == "1.5KiB"
    assert " ago" not in lines[0] and told[53]["at"] == "tcp_sendmsg+0x10"
    assert done(*types, "-j", "dump", "id", m.id) == done(
        *types, *MEANT_SHOW, "-j", "dump", "id", m.id
    )
    samples = done(*types, *MEANT_SHOW, "--metrics", "dump", "id", m.id)
    assert "_bytes{" in samples and "_uid{" not in samples
    assert me in done(*types, *MEANT_SHOW, "watch", "id", m.id, "once", "interval", "0.1")
    assert "[show:ktime]" in done(*types, *MEANT_SHOW, "layout", "id", m.id)


@kernel
def test_what_show_shows_is_taken_as_data_and_by_where(meant_flows):
    user_called_root()
    m, types = meant_flows
    types = types + MEANT_SHOW
    key = "saddr=10.0.0.1,dport=443,zone=0"
    line = done(*types, "lookup", "id", m.id, "key", key).rstrip("\n")
    before = m.lookup_bytes(m.key_layout.pack({"saddr": "10.0.0.1", "dport": 443, "zone": 0}))
    done(*types, "update", "id", m.id, "key", "saddr=10.0.0.1,dport=9,zone=0", "value", *shlex.split(
        line.partition(": ")[2]
    ))  # fmt: skip
    after = m.lookup_bytes(m.key_layout.pack({"saddr": "10.0.0.1", "dport": 9, "zone": 0}))
    told, again = [m.value_layout.reader("plain").one(raw) for raw in (before, after)]
    assert abs(told.pop("seen") - again.pop("seen")) < 10**7 and told == again  # clocks are set

    def ports(query):
        return sorted(
            int(port)
            for port in re.findall(r"dport=(\d+)", done(*types, "dump", "id", m.id, *query))
        )

    assert ports(["where", "uid=root"]) == [9, 443] and ports(["where", "uid!=root"]) == [53]
    assert ports(["where", "bytes>1KiB"]) == [9, 443] and ports(["where", "bytes<1KiB"]) == [53]
    assert ports(["where", "seen>1h ago"]) == [9, 53, 443] and ports(["where", "seen<1h ago"]) == []
    assert ports(["where", "pid=x(%d)" % os.getpid(), "at=tcp_sendmsg+0x10"]) == [9, 53, 443]
    assert ports(["where", "at~^tcp_", "saddr=10.0.0.1", "dport<100"]) == [9, 53]
    assert ports(["sort", "pid", "top", "1"]) != []
    assert "uid=root\n" in done(*types, "dump", "id", m.id, "columns", "uid", "where", "dport=443")


# --show, a condition, the ports of which it holds; addresses that are asked for are bytes to what
# they mean, and what a declaration proves is matched as it is shown
MEANT_CONDITIONS = [
    ("src=ip4", "src=10.0.0.2", [2]),
    ("src=ip4", "src!=10.0.0.2", [1, 3]),
    ("key=ip4", "key=1.0.0.3", [3]),
    ("src=ip4", "src~0\\.[23]$", [2, 3]),
    ("", "saddr~^192.168.0.1$", [1]),
    ("saddr=plain", "saddr~^192", []),
    ("saddr=plain", "saddr=192.168.0.2", [2]),
    ("", "h_dest~0[13]$", [1, 3]),
    ("h_dest=hex", "h_dest=020000000002", [2]),
    ("comm=hex", "comm~^6103", [3]),
    ("comm=hex", "comm=61020000", [2]),
    ("took=us", "took=2ms", [2]),
    ("low=hex", "low=0x3", [3]),
    ("", "share=0.1", [1, 2, 3]),
    ("share=plain", "share<0.1", []),
]


@pytest.mark.parametrize("show, condition, ports", MEANT_CONDITIONS)
@kernel
def test_conditions_are_of_what_is_shown(pins, show, condition, ports):
    text = "struct { u32 src; __be32 saddr; u8 h_dest[6]; u16 port; u32 took; u8 low:3, high:5; char comm[4]; float share; }"
    key, value = bpf.layout("__be32"), bpf.layout(text)
    types = ["--key-type", "__be32", "--value-type", text]
    with Map.create(HASH, bytes, bytes, 9, key_size=4, value_size=value.size) as m:
        for at in (1, 2, 3):
            m[key.pack("1.0.0.%d" % at)] = value.pack(
                dict(
                    src=int.from_bytes(bytes([10, 0, 0, at]), sys.byteorder),
                    saddr="192.168.0.%d" % at,
                    h_dest="02:00:00:00:00:%02x" % at,
                    port=at,
                    took=1000 * at,
                    low=at,
                    high=0,
                    comm="a%c" % at,
                    share=0.1,
                )
            )
        out = done(*types, "--show", show, "dump", "id", m.id, "where", condition)
        assert sorted(int(port) for port in re.findall(r"port=(\d)", out)) == ports


@kernel
def test_a_wish_that_can_not_be_shown_is_told(meant_flows):
    m, types = meant_flows
    for show, part in (
        ("nope=ip4", "no field 'nope'; there are bytes, seen, pid, uid, at, saddr, dport, zone"),
        ("pid=ip6", "pid: ip6 takes 16 bytes, not u32 of 4 bytes"),
        ("pid=what", "there is no meaning 'what'; there are bytes cgroup"),
        ("pid", "--show takes FIELD=WORD,..., not 'pid'"),
        ("key.nope=hex", "no field 'key.nope'"),
        ("value=ip4", "ip4 takes 4 bytes"),
        ("key.saddr.x=hex", "no field 'key.saddr.x'"),
    ):
        assert part in refused(*types, "--show", show, "dump", "id", m.id)
    assert "no field 'x'; there are key and value" in refused("--show", "x=hex", "dump", "id", m.id)
    assert "no field 'key.x'" in refused("--show", "key.x=hex", "dump", "id", m.id)
    assert "key.saddr" not in done(*types, "--show", "key.saddr=hex", "dump", "id", m.id)
    out = done(*types, "dump", "id", m.id, "--show", "key.saddr=hex,")
    assert out.count("saddr=0xa000001 ") == 2


def test_what_is_shared_is_told_once_what_it_means():
    found = bpf.Record("struct", "struct s", 0, [])
    for _ in range(40):
        members = [bpf.Member(name, found, 0, label=name) for name in "ab"]
        found = bpf.Record("struct", "struct s", 0, members)
    assert bpf._with_implied_as_asked(found) is found and bpf._with_names_of(found, None) is found


@kernel
def test_names_that_are_no_text_are_escaped_and_taken(monkeypatch):
    mounts = mounted("cgroup2")
    if not mounts:
        lacking("a cgroup2 file system")
    path = os.path.join(os.fsencode(mounts[0][1]), b"\xff\x1b%d" % RUN)
    os.mkdir(path)
    try:
        ask_the_machine_anew(monkeypatch)
        raw, wanted = bytes(u64(os.stat(path).st_ino)), "/\\xff\x1b%d" % RUN
        shown = bpf.layout("u64").showing("", "cgroup")
        assert shown.reader("plain").one(raw) == wanted and shown.pack(wanted) == raw
        assert json.loads(shown.reader("json").one(raw)) == wanted
        assert "\x1b" not in shown.reader("words").one(raw)
    finally:
        os.rmdir(path)
    monkeypatch.setattr(socket, "if_indextoname", lambda number: "e\udcff")
    monkeypatch.setattr(socket, "if_nametoindex", {"e\udcff": 7}.__getitem__)
    shown = bpf.layout("u32").showing("", "ifindex")
    assert shown.reader("plain").one(bytes(u32(7))) == "e\\xff"
    assert shown.pack("e\\xff") == bytes(u32(7))


@kernel
def test_a_bare_system_has_tables(pins, monkeypatch):
    monkeypatch.setattr(bpf, "_is_terminal", lambda: True)
    for module in ("shutil", "unicodedata"):
        monkeypatch.setitem(sys.modules, module, None)
    types = ["--key-type", "u32", "--value-type", "struct { char name[8]; u32 n; }"]
    value = bpf.layout(types[-1])
    with Map.create(HASH, u32, value.ctype(), 4) as m:
        m[1] = value.ctype()(name="\u7f51", n=7)
        assert done(*types, "dump", "id", m.id).splitlines()[1].split() == ["1", "\u7f51", "7"]


def test_a_bare_system_has_numbers_for_names(monkeypatch):
    for word, module in (("uid", "pwd"), ("ifindex", "socket")):
        ask_the_machine_anew(monkeypatch)
        monkeypatch.setitem(sys.modules, module, None)
        assert bpf.layout("u32").showing("", word).reader("words").one(bytes(u32(1))) == "1"
    monkeypatch.delattr(time, "CLOCK_MONOTONIC")
    shown = bpf.layout("u64").showing("", "ktime")
    assert shown.reader("words").one(bytes(u64(5))) == "5" and shown.pack("5") == bytes(u64(5))


@kernel
def test_times_since_boot_are_the_kernels_in_a_time_namespace(tmp_path):
    told = "import bpflookup; print(bpflookup._this_machine.now(), bpflookup._this_machine.boot)"
    inside = [program("unshare"), "-T", "--monotonic", "100000", sys.executable, "-c", told]
    status, out, err = run(*inside, env=importing())
    if status:
        lacking("time namespaces: " + err)
    now, boot = map(int, out.split())
    assert abs(now - time.clock_gettime(time.CLOCK_MONOTONIC) * 10**9) < 60 * 10**9
    assert abs(boot - at_boot()) < 60 * 10**9


def test_a_time_namespace_that_only_children_enter_changes_no_clock():
    told = """
        import ctypes, time, bpflookup
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x80):  # CLONE_NEWTIME
            raise SystemExit("errno %d" % ctypes.get_errno())
        with open("/proc/self/timens_offsets", "w") as file:
            file.write("monotonic 100000 0")
        print(bpflookup._this_machine.now() - int(time.clock_gettime(time.CLOCK_MONOTONIC) * 10**9))
    """
    status, out, err = python(told)
    if err.startswith("errno "):
        lacking("time namespaces: " + err)
    assert status == 0 and abs(int(out)) < 60 * 10**9, err


@kernel
def test_histograms_have_heads_for_people():
    key = "struct { struct in_addr { be32 s_addr; } from; u8 src_mac[6]; u16 slot; }"
    types = ["--key-type", key, "--value-type", "u64"]
    with created(HASH, None, u64, 4, key_size=12) as m:
        m[bytes([10, 0, 0, 1, 2, 0, 0, 0, 0, 1]) + bytes(u16(3))] = 5
        out = done(*types, "hist", "id", m.id)
        assert "\nfrom=10.0.0.1 src_mac=02:00:00:00:00:01\n" in out
        assert "4 -> 7" in out and ": 5 " in out
        (told,) = json.loads(done(*types, "-j", "hist", "id", m.id))
        assert told["key"] == "from.s_addr=167772161 src_mac='[2 0 0 0 0 1]'"
        out = done(*types, "--show", "src_mac=hex", "hist", "id", m.id)
        assert "src_mac=020000000001\n" in out


@kernel
def test_a_stack_is_shown_as_symbols(cgroup, tmp_path):
    scene = Scene("stack_trace", cgroup, "empty")
    with scene.open:
        stack_id, file = scene.run_for_a_stack(), str(tmp_path / "c")
        symbols = sorted(kernel_symbols(programs=True))
        of_map = ["id", scene.m.id]
        raw = scene.m.lookup_bytes(stack_id)
        wanted = []
        for address in reversed([one for one in struct.unpack("=10Q", raw) if one]):
            start = [where for where, _ in symbols if where <= address][-1]
            names = [name for where, name in symbols if where == start]
            # the program has a symbol only where the kernel is told so (bpf_jit_kallsyms)
            wanted.append(["%s+0x%x" % (name, address - start) for name in names])
            wanted[-1].append("0x%x" % address)
        (line,) = [
            one
            for one in done("dump", *of_map).splitlines()
            if one.startswith(" ".join("%02x" % byte for byte in bytes(u32(stack_id))) + ": ")
        ]
        told = line.split(": ", 1)[1].strip().split(";")
        assert len(told) == len(wanted) > 2 and told[0][:2] != "0x"
        assert all(one in names for one, names in zip(told, wanted))
        lookup = ["--ndjson", "lookup"] + of_map + ["key", stack_id]
        assert json.loads(done(*lookup))["value"] == list(raw)
        assert json.loads(done("--show", "value=stack", *lookup))["value"].split(";") == told
        done("save", *of_map, file)
        with mock.patch.object(bpf, "_NAMERS", {}):  # nobody is asked
            assert line in done("--from", file, "dump").splitlines()


@kernel
@pytest.mark.parametrize("family, text", [(4, "10.1.2.0/24"), (16, "fc00::/7"), (4, "0.0.0.0/0")])
def test_a_prefix_is_shown_to_people_and_taken(family, text):
    declared = "struct { u32 prefixlen; u8 data[%d]; }" % family
    types = ["--key-type", declared, "--value-type", "u32"]
    flags = bpf.BPF_F_NO_PREALLOC
    with Map.create(LPM, None, u32, 4, key_size=4 + family, flags=flags) as m:
        m[bpf.lpm_key(text)] = 7
        assert done(*types, "dump", "id", m.id) == "%s: 7\nFound 1 element\n" % text
        assert done(*types, "lookup", "id", m.id, "key", text) == text + ": 7\n"
        assert '"prefixlen":%s' % text.partition("/")[2] in done(
            *types, "--ndjson", "dump", "id", m.id
        )
        out = done(*types, "--show", "key=plain", "dump", "id", m.id)
        assert "prefixlen=%s data=[" % text.partition("/")[2] in out
        out = done("--show", "key=prefix", "--value-type", "u32", "--ndjson", "dump", "id", m.id)
        assert json.loads(out) == {"key": text, "value": 7}
        assert done(
            *types, "dump", "id", m.id, "where", "prefixlen=%s" % text.partition("/")[2]
        ).startswith(text)


# -- tables: dumps on a terminal

TABLE_KEY = "struct { __be32 saddr; u16 port; u16 hits; }"
TABLE_VALUE = "struct { u64 hits; char comm[12]; enum { NEW, OLD = 7 } state; s32 delta; }"


@pytest.fixture
def tabled():
    """A map of 60 entries, the words that tell its types, and what --ndjson says of the entries."""
    key, value, rng = bpf.layout(TABLE_KEY), bpf.layout(TABLE_VALUE), random.Random(8)
    names = ("sshd", "a b", "\u7f51\u7edc", "\x1b[2Jx", "", "g\u00e9")
    with Map.create(HASH, key.ctype(), value.ctype(), 64) as m:
        for number in range(60):
            said = {"hits": rng.randrange(1 << rng.randrange(1, 40)), "comm": names[number % 6]}
            said.update(state=rng.choice((0, 7, 9)), delta=rng.randrange(-99, 99))
            m[key.pack({"saddr": 0x0A000000 + number, "port": 443, "hits": number})] = value.pack(
                said
            )
        types = ["--key-type", TABLE_KEY, "--value-type", TABLE_VALUE]
        lines = done(*types, "--ndjson", "dump", "id", m.id).splitlines()
        yield m, types, list(map(json.loads, lines))


def cells_of(lines):
    """Return the cells under each name of a header, [{name: text}]; a column is where its name is."""
    cells = [[cell for cell in re.findall(r"'[^']*'|\S+", line)] for line in lines]
    return [dict(zip(cells[0], row)) for row in cells[1:]]


@kernel
def test_a_dump_on_a_terminal_is_a_table(tabled):
    m, types, entries = tabled
    status, out = in_a_terminal(types + ["dump", "id", m.id], COLUMNS="100")
    lines = out.splitlines()
    assert status == 0 and lines[-1] == "Found 60 elements" and "\x1b" not in out
    assert lines[0].split() == ["saddr", "port", "key.hits", "hits", "comm", "state", "delta"]
    rows = cells_of(lines[:-1])
    assert len(rows) == 60
    for row, entry in zip(rows, entries):
        assert row["saddr"] == "10.0.0.%d" % (entry["key"]["saddr"] & 0xFF)
        assert (int(row["key.hits"]), int(row["port"])) == (entry["key"]["hits"], 443)
        assert (int(row["hits"]), row["state"]) == (entry["value"]["hits"], entry["value"]["state"])
        assert int(row["delta"]) == entry["value"]["delta"]
    ascii_lines = [line for line in lines[:-1] if max(line) < "\x80"]
    for number in ("port", "key.hits", "hits ", "delta"):  # they end where their name ends
        end = lines[0].index(" " + number) + 1 + len(number.strip())
        assert all(
            line[end - 1].isdigit() and line[end : end + 1] in ("", " ") for line in ascii_lines[1:]
        )
    assert {
        bpf._width(line[: line.index("  NEW")])
        for line in lines
        if "  NEW" in line and "\u7f51" in line
    } == {line.index("  NEW") for line in ascii_lines if "  NEW" in line}


@kernel
def test_what_does_not_fit_a_terminal_is_a_line_an_entry_folded(tabled):
    m, types, entries = tabled
    piped = done(*types, "dump", "id", m.id).splitlines()
    for columns in (20, 39, 60):
        status, out = in_a_terminal(types + ["dump", "id", m.id], COLUMNS=str(columns))
        lines = out.splitlines()
        longest = max(len(word) for word in out.replace("\n", " ").split(" "))
        assert status == 0 and all(bpf._width(line) <= max(columns, longest + 4) for line in lines)
        joined = re.sub(r"\n {4}", " ", out).splitlines()
        assert [re.sub(r"  +", " ", line) for line in joined] == [
            re.sub(r"  +", " ", line) for line in piped
        ]
    nested = types[:2] + [
        "--value-type",
        "struct { u64 hits; struct { char c[12]; } in; u32 rest[2]; }",
    ]
    status, out = in_a_terminal(nested + ["dump", "id", m.id, "top", "1"], COLUMNS="200")
    assert status == 0 and re.match(r"saddr=10\.\S+ port=443 hits=\d+: hits=", out)
    status, out = in_a_terminal(types + ["dump", "id", m.id, "where", "port=1"], COLUMNS="100")
    assert (status, out) == (0, "Found 0 elements\n")


@kernel
def test_a_few_numbers_are_a_cell():
    types = ["--key-type", "struct { u32 a; u8 pad[3]; bool b; }"]
    types += ["--value-type", "struct { u16 in[2][2]; char c[4]; u8 mac[6]; be32 ip; u8 many[9]; }"]
    with Map.create(HASH, None, None, 4, key_size=8, value_size=36) as m:
        m[bytes(range(8))] = bytes(range(65, 101))
        status, out = in_a_terminal(
            types[:2] + ["--value-type", "u32[9]", "dump", "id", m.id], COLUMNS="200"
        )
        assert re.match(r"a=\d+ pad=\[4 5 6\] b=True: +\[(\d+ ){8}\d+\]\n", out)
        status, out = in_a_terminal(types + ["dump", "id", m.id], COLUMNS="150")
        assert "many=[" in out and "pad=[4 5 6] b=True: in=[[" in out
        types[-1] = types[-1].replace("u8 many[9]", "u8 few[8], last[1]")
        status, out = in_a_terminal(types + ["dump", "id", m.id], COLUMNS="150")
        head, row, found = out.splitlines()
        assert head.split() == "a pad b in c mac ip few last".split()
        assert row.split("  ")[1] == "[4 5 6]" and row[head.index("in") :].startswith("[[")
        assert row[head.index("mac") :].startswith("4d:4e:4f:50:51:52") and row.endswith("[97]")


@kernel
def test_queries_are_tables_on_a_terminal_and_other_forms_as_ever(tabled):
    m, types, entries = tabled
    best = max(entry["value"]["hits"] for entry in entries)
    query = ["dump", "id", m.id, "sort", "hits", "top", "1", "columns", "hits,saddr"]
    status, out = in_a_terminal(types + query, COLUMNS="100")
    lines = out.splitlines()
    assert lines[0].split() == ["saddr", "hits"]
    assert lines[1].split()[1] == str(best)
    assert len(lines) == 3
    for form in ("-j", "--ndjson", "--hex", "--metrics"):
        words = types + [form, "dump", "id", m.id]
        assert in_a_terminal(words, COLUMNS="100") == (0, done(*words)), form
    cpus = bpf.possible_cpus()
    with Map.create(PERCPU_HASH, u32, u64, 4) as each:
        each[1] = list(range(len(cpus)))
        types = ["--key-type", "u32", "--value-type", "struct { u64 n; }"]
        status, out = in_a_terminal(types + ["dump", "id", each.id], COLUMNS="100")
        rows = cells_of(out.splitlines()[:-1])
        assert [(row["key"], row["cpu"], row["n"]) for row in rows] == [
            ("1", str(cpu), str(at)) for at, cpu in enumerate(cpus)
        ]
        status, out = in_a_terminal(types + ["dump", "id", each.id, "sum"], COLUMNS="100")
        assert cells_of(out.splitlines()[:-1]) == [{"key": "1", "n": str(sum(range(len(cpus))))}]


@kernel
def test_maps_on_a_terminal_are_a_table(flows, numbers, bpffs):
    flows.pin(bpffs + "/a b")
    status, out = in_a_terminal(["map", "show"], COLUMNS="200")
    head, lines = out.splitlines()[0], out.splitlines()[1:]
    assert status == 0
    assert head.split() == "id type name key value max_entries flags memlock pinned".split()
    rows = {int(line.split()[0]): line for line in lines}
    assert set(rows) >= {flows.id, numbers.id} and len(rows) == len(lines)
    assert re.match(
        r" *%d  hash +%s +8 +16 +4 +0x0 +\d+  %s/a b$" % (flows.id, FLOWS, bpffs), rows[flows.id]
    )
    status, out = in_a_terminal(["map", "show", "id", flows.id], COLUMNS="200")
    assert out.startswith("%d: hash  name %s  flags 0x0\n" % (flows.id, FLOWS))


def test_columns_of_a_terminal_are_counted_as_it_shows_them():
    assert [bpf._width(text) for text in ("", "abc", "\u7f51\u7edc", "e\u0301", "\uff21")] == [
        0,
        3,
        4,
        1,
        2,
    ]
    assert bpf._cut("\u7f51\u7edc\u7f51\u7edc", 5) == "\u7f51.." and bpf._cut("abc", 3) == "abc"
    assert [bpf._scaled(rate) for rate in (3395840.0, -1.5, 0.25, 12e9)] == [
        "+3.396M",
        "-1.5",
        "+0.25",
        "+12G",
    ]


@pytest.mark.parametrize("char", ["x", "\u0e01", "\u4e00", "e\u0301"])
def test_a_long_text_is_cut_without_a_look_at_all_of_it(char, monkeypatch):
    looks, width = [], bpf._width
    monkeypatch.setattr(bpf, "_width", lambda text: looks.append(1) or width(text))
    cut = bpf._cut(char * 100000, 80)
    assert cut.endswith("..") and 78 <= width(cut) <= 80
    assert len(looks) < 500


# -- watch

STATS = "struct { u64 last_ns; u64 packets; u64 bytes; }"


@pytest.fixture
def stats():
    """A hash of statistics by comm, and the words that say so."""
    types = ["--key-type", "char[16]", "--value-type", STATS]
    with Map.create(HASH, bpf.parse_type("char[16]"), bpf.parse_type(STATS), 64) as m:
        for name, packets in (("idle", 1), ("busy", 2), ("\u7f51\u7edc", 3)):
            m[name] = m.value_type(last_ns=10**9, packets=packets, bytes=100)
        yield m, types


def changing(m, **steps):
    """Return a stand-in for time.sleep that counts a second in an instant and changes entries by so many packets."""

    def sleep(seconds):
        for number, (name, packets) in enumerate(sorted(steps.items())):
            value = m[name]
            value.last_ns += 10**9 * (len(steps) - number)
            value.packets += packets
            value.bytes += 1500
            m[name] = value

    return sleep


@kernel
def test_watch_ranks_by_what_is_counted_not_by_times(stats, monkeypatch):
    m, types = stats
    monkeypatch.setattr(time, "sleep", changing(m, busy=5, idle=0))
    lines = done(*types, "watch", "id", m.id, "once").splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["*", "busy"], ["*", "idle"]]
    # a time has no rate worth a line
    assert "packets +" in lines[1] and "last_ns +" not in lines[1]
    lines = done(*types, "watch", "id", m.id, "once", "sort", "last_ns").splitlines()
    assert lines[1].split()[1] == "busy" and lines[2].split()[1] == "idle"
    refused(*types, "watch", "id", m.id, "once", "sort", "no_such")
    told = refused("watch", "id", m.id, "once", "sort", "no_such")
    assert "no field 'no_such' to sort by; there are none; --value-type can name" in told
    told = refused("dump", "id", m.id, "sort", "no_such")
    assert "no field 'no_such'; there are key and value; --key-type and --value-type" in told


@kernel
@pytest.mark.parametrize("option", ["-j", "--ndjson"])
def test_watch_writes_json_for_programs(stats, monkeypatch, option):
    m, types = stats
    monkeypatch.setattr(time, "sleep", changing(m, busy=5))
    (line,) = done(option, *types, "watch", "id", m.id, "once").splitlines()
    told = json.loads(line)
    assert told["seconds"] >= 0 and abs(told["time"] - time.time()) < 600
    first = told["entries"][0]
    assert first["key"] == "busy" and first["value"]["packets"] == 7 and len(told["entries"]) == 3
    assert first["rates"]["packets"] > 0 == told["entries"][1]["rates"]["packets"]


@kernel
@pytest.mark.parametrize("seconds", [0.25, 1, 4])
def test_rates_are_counts_a_second(stats, seconds):
    """Whatever the interval."""
    m, _ = stats
    view = bpf.View(Map.from_fd(m, bytes, bytes), "char[16]", STATS)
    before = bpf._Look(view)
    changing(m, busy=20)(1)
    m["new"] = m.value_type(last_ns=1, packets=1, bytes=1)
    look = bpf._Look(view)
    look.compare(before, seconds)
    rates = {key.rstrip(b"\0"): told for key, told in look.rates.items()}
    assert rates[b"busy"]["packets"] == 20 / seconds and rates[b"new"] == {} and len(rates) == 2


@kernel
def test_rates_are_those_of_the_time_that_went_by(stats, monkeypatch):
    """By the clock, and not by the interval that was asked for."""
    m, types = stats
    clock, real = [100.0], changing(m, busy=30)

    def sleep(seconds):
        real(seconds)
        clock[0] += 4.0

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "time", lambda: 1e9 - 1000 * clock[0])  # it is being set back
    (line,) = done("-j", *types, "watch", "id", m.id, "once", "interval", "2").splitlines()
    told = json.loads(line)
    assert told["seconds"] == 4 and told["entries"][0]["rates"]["packets"] == 30 / 4


@kernel
def test_a_watched_capture_is_shown_once(stats, tmp_path):
    m, types = stats
    done("save", "id", m.id, tmp_path / "kept")
    out = done(*types, "--from", tmp_path / "kept", "watch")
    assert out.count("packets=") == 3 and "*" not in out


@kernel
@pytest.mark.parametrize("text", ["0", "0.0", "0.01", "-1", "nan", "1e3", "x", "1000000"])
def test_watch_refuses_intervals_that_spin(stats, text):
    m, types = stats
    refused(*types, "watch", "id", m.id, "interval", text)


@kernel
def test_watch_on_a_terminal_is_one_screen_and_leaves_no_trace(pins):
    pin = pins + "/w_pc_array"
    words = ["map", "watch", "pinned", pin, "interval", "0.3"]
    start = time.time()
    cpus = len(bpf.possible_cpus())
    with Map.from_pin(pin, mode="rw") as m:

        def change():
            return m.update(7, [int(200 * (time.time() - start))] * cpus)

        status, text = in_a_terminal(
            words, rb"\+[0-9.]+/s.*\+[0-9.]+/s", b"\x03", change, TERM="xterm"
        )
        _, plain = in_a_terminal(words, rb"\+[0-9.]+/s", b"\x03", change, NO_COLOR="1")
    assert os.WIFEXITED(status) and "Traceback" not in text and "KeyboardInterrupt" not in text
    assert text.startswith("\033[?1049h") and text.rstrip("^C").endswith("\033[?25h\033[?1049l")
    screens = text.split("\033[H")[2:-1]  # whole ones, drawn since the terminal has its size
    for screen in screens:
        lines = re.sub("\033\\[[0-9;?]*[A-Za-z]", "", screen).split("\n")
        assert (
            len(lines) <= 8
            and max(map(len, lines)) <= 50
            and re.match(r"map \d+ \(percpu_array 'w_pc_a", lines[0])  # cut, if the id is long
            and "more" in lines[-1]
        )
        assert lines[1].startswith("* 7") and "/s" in lines[1]
    assert "\033[1m" in text and "\033[1m" not in plain and screens
    assert all(20 * cpus < float(rate) < 2000 * cpus for rate in re.findall(r"\+([0-9.]+)/s", text))


@kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_watch_that_is_killed_leaves_the_terminal_as_it_was(pins, number):
    status, text = in_a_terminal(
        ["watch", pins + "/w_lru", "interval", "0.1"], rb"1 entries", number
    )
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number
    assert text.endswith("\033[?25h\033[?1049l") and "Traceback" not in text


@kernel
def test_watch_into_a_pipe_is_plain(pins):
    pin = pins + "/w_lru"
    for words in (["watch", pin, "once"], ["--once", "map", "watch", pin, "interval", "0.1"]):
        out = done(*words)
        assert "\033" not in out and "1 entries" in out and "TCP" in out and out.count("\n") == 2
    watching = subprocess.Popen(
        [sys.executable, MODULE, "watch", pin, "interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    shown = [watching.stdout.readline() for _ in range(6)]
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate()
    assert err == b""
    assert watching.returncode == 130
    assert shown[0] == shown[2]
    assert b"\033" not in b"".join(shown) + out
    for words in (["interval"], ["interval", "x"], ["interval", "-1"], ["twice"]):
        refused("watch", pin, *words)
    with Map.create(PERCPU_ARRAY, None, bytes, 1, value_size=12) as m:  # no numbers known
        text = " ".join("[cpu %d]" % cpu + 12 * " 00" for cpu in bpf.possible_cpus())
        assert done("watch", "id", m.id, "once").splitlines()[1].split(None, 1) == ["0", text]
    status, out, err = main("watch", pin, "interval", "9" * 30)
    assert status in (1, 2) and err.count("\n") == 1


# -- events

EIGHT_TEXT = "struct eight { u64 number; u64 n; u64 rest[6]; }"


@kernel
def test_events_are_a_record_a_line_in_every_form():
    with a_ring() as ring:
        recorder, words = Recorder(ring), ["map", "events", "id", ring.id]
        recorder.run(8)
        first, second, third, *others = recorder.records()
        assert done(*words, "count", 1) == in_hex(first) + "\n"
        assert done(*words, "--hex", "count", 1) == "value: %s\n" % in_hex(second)
        told = [json.loads(line) for line in done(*words, "--ndjson", "timeout", 0).splitlines()]
        assert told == [{"value": list(record)} for record in [third] + others]
        recorder.run(1)
        status, out, err = main(*words, "count", 10**30, "timeout", 0)
        assert (status, out, err) == (1, in_hex(recorder.records(8)[0]) + "\n", "")
        fixed = Recorder(ring, kind="fixed")
        fixed.run(2)
        recorder.run(2)  # two of other sizes between: none of it is lost
        fixed.run(1)
        out = done(*words, "--value-type", EIGHT_TEXT, "timeout", 0.1)
        others = list(map(in_hex, recorder.records(9)))
        line = "number=1 n=%d rest=[%s]"
        lines = [line % (n, " ".join([str(n)] * 6)) for n in range(3)]
        assert out.splitlines() == lines[:2] + others + lines[2:]
        fixed.run(1)
        (out,) = done("-j", *words, "--value-type", EIGHT_TEXT, "timeout", 0).splitlines()
        assert json.loads(out) == {"value": {"number": 1, "n": 3, "rest": [3] * 6}}
        fixed.run(1)
        # a record has no name as a key or value has: its meaning as a whole is that of ""
        words_of = ["--value-type", EIGHT_TEXT, "--show", "=hex"]
        assert done(*words, *words_of, "timeout", 0) == struct.pack("8Q", 1, *[4] * 7).hex() + "\n"
        assert done(*words, "timeout", 0) == "" == done(*words, "count", 0)
        assert main(*words, "count", 1, "timeout", 0.01) == (1, "", "")
        output = record_program(ring.fd, recorder.counts.fd, 1, "fixed")
        # a length of none at all
        empty = load(1, output.replace(insn(0xB7, 3, 0, 0, 64), insn(0xB7, 3, 0, 0, 0)))
        for words_of, line in (
            ((), "value:"),
            (("--hex",), "value:"),
            (("--ndjson",), '{"value":[]}'),
        ):
            prog_test_run(empty, 2)
            assert done(*words, *words_of, "timeout", 0) == 2 * (line + "\n")


@kernel
def test_events_are_decoded_by_the_name_of_a_type(ring_programs):
    words = ["map", "events", "pinned", ring_programs("events"), "count", 4]
    words += ["--value-type", "struct event"]
    ring_programs.run("produce", 8)
    lines = done(*words).splitlines()
    assert re.match(r"cpu=\d+ thread=0 n=1 state=OPEN comm=comm pad=", lines[1])
    assert lines[3] == in_hex(struct.pack("=II", 0, 3))
    told = [
        json.loads(line)["value"]
        for line in done("--ndjson", *words, "timeout", 0.1, "count", 3).splitlines()
    ]
    assert [(one["n"], one["state"], one["comm"]) for one in told] == [
        (4, "CLOSED", "comm"),
        (6, "CLOSED", "comm"),
        (7, "OPEN", "comm"),
    ]
    words[-1] = "struct nothing"
    status, out, err = main(*words)
    assert (status, out) == (1, "") and "'struct nothing' is declared neither" in err


@kernel
def test_a_want_of_descriptors_is_told_as_one():
    """Wherever it strikes; that an output can't be written is another thing."""
    code = """
        import os, resource, sys, bpflookup as bpf
        limit = len(os.listdir("/proc/self/fd")) - 1 + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        sys.exit(bpf.main(["events", "id", sys.argv[2], "timeout", "0"]))
    """
    with a_ring() as ring:
        for more in range(20):
            status, out, err = python(code, more, ring.id)
            if status == 0:
                break
            assert (status, out, err.count("\n")) == (1, "", 1), err
            assert "Too many open files" in err and "standard output" not in err
    assert more >= 3


@kernel
@pytest.mark.parametrize("peek", [False, True])
def test_a_want_of_descriptors_is_an_error_of_this_module_that_keeps_none(peek):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with a_ring() as ring:
        ring.records(peek=peek).close()  # what is imported for it takes descriptors, too
        gc.collect()  # what other tests left
        before, errnos, kept = sorted(os.listdir("/proc/self/fd")), [], []
        free = [number for number in range(200) if not os.path.exists("/proc/self/fd/%d" % number)]
        try:
            for left in range(10):
                resource.setrlimit(resource.RLIMIT_NOFILE, (free[left], hard))
                try:
                    ring.records(peek=peek).close()
                except bpf.SyscallError as error:
                    errnos.append(error.errno)
                    if left < 2 + peek:  # for waiting; the next ones are of mappings
                        kept.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert 4 <= len(errnos) < 10 and set(errnos) == {errno.EMFILE}
        assert sorted(os.listdir("/proc/self/fd")) == before and len(kept) == 2 + peek


@kernel
def test_a_want_of_memory_to_count_cpus_is_told_as_one(monkeypatch):
    import mmap

    def fail(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with Map.create(PERCPU_ARRAY, u32, u64, 2) as m:
        monkeypatch.setattr(bpf, "_proven_cpus", None)
        denied = bpf._error(errno.EPERM, bpf.BPF_MAP_CREATE)  # then a lookup has to tell
        monkeypatch.setattr(bpf, "_count_cpus_by_lru", mock.Mock(side_effect=denied))
        monkeypatch.setattr(mmap, "mmap", fail)
        with Map.from_id(m.id) as fresh, pytest.raises(bpf.OutOfMemory):
            fresh[0]
        status, out, err = main("lookup", "id", m.id, "key", 0, 0, 0, 0)
        assert (status, out, err.count("\n")) == (1, "", 1) and "standard output" not in err


@kernel
def test_a_map_whose_entries_cannot_be_counted_is_told(monkeypatch):
    real = bpf.View.chunks

    def chunks(view, *given):
        if view.info.id == changing.id:
            raise bpf.IterationAborted("it changes too fast")
        return real(view, *given)

    monkeypatch.setattr(bpf.View, "chunks", chunks)
    with Map.create(HASH, u32, u32, 2) as changing, Map.create(HASH, u32, u32, 2) as still:
        for m in changing, still:
            m[1] = 1
        status, out, err = main("--metrics", "--entries", "show", "id", changing.id, "id", still.id)
        assert status == 0 and len(re.findall("^bpf_maps_entries", out, re.M)) == 1
        assert err.startswith("bpflookup: the entries of map %d are not counted: " % changing.id)


@kernel
def test_events_refuse_what_makes_no_sense(tmp_path):
    with a_ring() as ring, Map.create(HASH, u32, u32, name="h%d" % RUN) as m:
        for words in (
            ["often"],
            ["count"],
            ["count", "-1"],
            ["count", "many"],
            ["timeout", "1e3"],
            ["timeout"],
            ["peek", "of"],
            ["--metrics"],
        ):
            refused("map", "events", "id", ring.id, *words)
        refused("map", "events")
        refused("--from", tmp_path / "none", "map", "events")
        status, out, err = main("map", "events", "id", m.id)
        assert (status, out, err.count("\n")) == (1, "", 1) and "hash" in err
        with ring.records():
            status, out, err = main("map", "events", "id", ring.id)
            assert (status, out, err.count("\n")) == (1, "", 1) and "peek" in err


@kernel
def test_events_end_quietly_and_leave_what_was_not_printed():
    """Ctrl-C, a reader that has gone; and the program comes by standard input, as over ssh."""
    with a_ring(max(PAGE, 1 << 16)) as ring, open(MODULE) as script:
        recorder = Recorder(ring, kind="fixed")
        words = ["map", "events", "id", str(ring.id), "--ndjson"]
        for by_stdin in (True, False):
            script.seek(0)
            name = "-" if by_stdin else MODULE
            events = subprocess.Popen(
                [sys.executable, "-W", "error", name] + words,
                stdin=script if by_stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            first = recorder.written
            recorder.run(1)
            lines = [events.stdout.readline()]
            recorder.run(2)
            lines += [events.stdout.readline() for _ in range(2)]
            raws = [bytes(json.loads(line.decode())["value"]) for line in lines]
            assert raws == recorder.records(first)
            view = ring.mmap().view
            while view[:8] != view[PAGE : PAGE + 8]:  # what it printed is not consumed at once
                time.sleep(0.001)
            if by_stdin:
                events.send_signal(signal.SIGINT)
            else:
                events.stdout.close()
                recorder.run(1)
            assert events.stderr.read() == b"" and events.wait() == (130 if by_stdin else 1)
            events.stdout.close()
            events.stderr.close()
        with ring.records() as records:
            assert records.read(0) == recorder.records(recorder.written - 1)
        recorder.run(3)
        with open("/dev/full", "w") as full:
            status = subprocess.call(
                [sys.executable, MODULE] + words + ["timeout", "0"],
                stdout=full,
                stderr=subprocess.DEVNULL,
            )
        with ring.records() as records:
            assert status == 1 and records.read(0) == recorder.records(recorder.written - 3)


@kernel
def test_events_end_in_time_while_there_are_more_and_more(monkeypatch):
    monkeypatch.setattr(bpf.Records, "_awaited", lambda *words: iter([b"again"]))
    with a_ring() as ring:
        status, out, err = main("map", "events", "id", ring.id, "--hex", "timeout", 0.1)
        assert (status, err) == (0, "") and set(out.splitlines()) == {"value: 61 67 61 69 6e"}


@kernel
def test_events_that_were_lost_are_told_in_the_end():
    with a_ring() as ring, ring.records() as owner:
        recorder = Recorder(ring, kind="fixed")
        words = [sys.executable, MODULE, "map", "events", "id", str(ring.id), "peek", "--ndjson"]
        events = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not select.select([events.stdout], [], [], 0.02)[0]:
            recorder.run(1)
            owner.read(0)
        first = recorder.written
        end = time.time() + 0.3
        while time.time() < end:  # until it has caught up
            time.sleep(0.05)
        events.send_signal(signal.SIGSTOP)
        recorder.run(1)
        seen = owner.read()
        while len(seen) < 3 * PAGE // 72:
            recorder.run(20)
            seen += owner.read(0)
        events.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        events.send_signal(signal.SIGINT)
        out, err = events.communicate()
        told = [
            struct.unpack_from("=Q", bytes(json.loads(line)["value"]), 8)[0]
            for line in out.decode().splitlines()
        ]
        assert events.returncode == 130 and told == sorted(set(told)) and told[-1] >= first - 1
        lost = int(re.match(rb"bpflookup: (\d+) bytes of records were overwritten", err).group(1))
        assert lost % 72 == 0 and lost // 72 + len(told) + told[0] == recorder.written


# -- layout, btf, probe


@kernel
def test_layout_shows_tables_and_python_that_runs(pins):
    out = done("layout", pins + "/w_hash")
    for line in (
        "src: u32",
        "(hole)",
        "mid: u32:10",
        "proto: enum proto {ICMP=1, TCP=6, UDP=17}",
        "comm: char [16]",
    ):
        assert line in out
    sources = re.findall(r"^import ctypes\n.*?(?=^\S+:|\Z)", out, re.M | re.S)
    for source, name, size in zip(sources, ("flow", "stats"), (8, 128)):
        made = {}
        exec(source, made)
        assert ctypes.sizeof(made[name]) == size
    assert len(sources) == 2
    # the columns stand under their heads
    for table in re.findall(r"offset +size .*?\d+ bytes", out, re.S):
        head, first = table.split("\n")[:2]
        assert head.index("offset") + len("offset") == re.match(r" *\d+", first).end()
    told = json.loads(done("-j", "layout", pins + "/w_hash"))
    assert set(told) == {"key", "value"} and "port: u16" in json.dumps(told["key"])
    assert "u8[5]" in done("--value-type", "u8[5]", "layout", pins + "/w_plain")


@kernel
def test_layout_says_once_why_there_are_no_types(pins):
    os.chmod(pins, 0o755)
    os.chmod(pins + "/w_pairs", 0o444)
    told = as_nobody("print(bpf.main(['layout', pin]))", pin=pins + "/w_pairs")
    wanted = r"keys of \d+ bytes, values of \d+; no BTF: BPF_BTF_GET_FD_BY_ID on BTF \d+: .*CAP_SYS_ADMIN.*\n0\n\Z"
    assert re.match(wanted, told), told
    with Map.create(HASH, u32, u32) as m:
        assert (
            done("layout", "id", m.id) == "keys of 4 bytes, values of 4; no BTF: the map has none\n"
        )


@kernel
def test_btf_offset_and_btf_layout_tell_what_btf_knows(pins, tmp_path):
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        lacking("the kernel's BTF")
    task = bpf.BTF.from_vmlinux()
    assert done("btf", "offset", "task_struct.comm") == "%d\n" % task.offsetof(
        "task_struct", "comm"
    )
    assert done("btf", "offset", "struct", "task_struct.se.avg") == "%d\n" % task.offsetof(
        "task_struct", "se.avg"
    )
    words = ["btf", "offset", "task_struct.signal.group_exit_code"]
    steps = task.offsetof("task_struct", "signal.group_exit_code")
    assert done(*words) == "%d -> %d\n" % steps
    assert tuple(step["offset"] for step in json.loads(done("-j", *words))) == steps
    out = done("btf", "layout", "struct list_head")
    told = json.loads(done("-j", "btf", "layout", "struct list_head"))
    assert "\n".join(told["layout"]) + "\n\n" + "\n".join(told["python"]) + "\n" == out
    assert "16 bytes" in out and "class list_head(ctypes.Structure):" in out
    made = bpf_object(tmp_path, "w", "struct s { char a; int b:3; } s;")
    assert done("--btf", made, "btf", "offset", "s.b") == "1 bits 0..2\n"
    for words in (["task_struct.no_such"], ["no_such.x"], ["task_struct.comm", "x"]):
        status, out, err = main("btf", "offset", *words)
        assert status in (1, 2) and out == "" and err.count("\n") == 1
    refused("btf", "offset")
    refused("btf", "sideways", "x")


def test_btf_of_a_module_upon_a_base_that_is_given(tmp_path):
    base, split = tmp_path / "base", tmp_path / "split"
    base.write_bytes(zoo().data())
    split.write_bytes(extension(zoo()).data())
    for words in (["-B", base], ["--base-btf", base], ["--base-btf=%s" % base]):
        words += ["--btf", split, "btf", "offset"]
        assert done(*words, "more.low.high") == "4 bits 0..4\n"
    assert "low: struct pair" in done("-B", base, "--btf", split, "btf", "layout", "more")
    status, _, err = main("--btf", split, "btf", "layout", "more")
    assert status == 1 and "base" in err
    assert "--btf" in refused("-B", base, "btf", "layout", "more")
    refused("--btf", split, "btf", "layout", "more", "-B")
    assert "--base-btf" in done("help")
    kernel_types, distilled = kernel_base(), distilled_base()
    path = with_base(tmp_path, module(distilled, dict(ids_of(distilled), twin=8)), distilled)
    base.write_bytes(kernel_types.data())
    words = ["btf", "offset", "mine.lists[1].size"]
    assert done("-B", base, "--btf", path, *words) == "24\n"
    base.write_bytes(zoo().data())
    status, out, err = main("-B", base, "--btf", path, *words)
    assert (status, out, err.count("\n")) == (1, "", 1) and ".BTF.base" in err


def test_btf_questions_about_names_that_hold_dots(unloaded, tmp_path):
    btf, path = bpf.BTF.from_file(unloaded / "w.o"), unloaded / "w.o"
    for name, variable in (
        (".bss.x", "in_x"),
        (".bss", "zeros[2]"),
        (".bss", "other.counter"),
        (".data.my.sec", "gap"),
        (".data", "conf.b"),
        (".data", "handler.counter"),
        (".rodata", "hidden"),
    ):
        at = btf.offsetof(name, variable)
        assert done("--btf", path, "btf", "offset", name + "." + variable) == "%d\n" % at
        assert btf.describe(name) in done("--btf", path, "btf", "layout", name)
    plain = {name: at for name, (at, _) in sections_of(btf)[".data"][1].items()}
    assert 8 * btf.offsetof(".data", "handler.counter") == plain["handler.counter"]
    for words in (".bss", ".", "x", ".data.", ""):
        refused("--btf", path, "btf", "offset", words)
    for words in (".bss.no_such", ".data.handler.x", ".nothing.x", "conf.no.such"):
        status, out, err = main("--btf", path, "btf", "offset", words)
        assert (status, out, err.count("\n")) == (1, "", 1) and "no" in err
    b = Blob()  # sections whose names begin with another's, and a variable with dots as long as one
    word = b.int("int", 4, 1)
    var, dotted = b.add(b.VAR, "x", 0, word, [1]), b.add(b.VAR, "percpu.x", 0, word, [0])
    b.add(b.DATASEC, ".data", 2, 8, [var, 0, 4, dotted, 4, 4])
    b.add(
        b.DATASEC, ".data..percpu", 2, 16, [var, 12, 4, b.add(b.VAR, "percpu", 0, word, [0]), 8, 4]
    )
    (tmp_path / "raw").write_bytes(b.data())
    for words, at in ((".data.x", 0), (".data.percpu.x", 4), (".data..percpu.x", 12)):
        assert done("--btf", tmp_path / "raw", "btf", "offset", words) == "%d\n" % at
    _, _, err = main("--btf", tmp_path / "raw", "btf", "offset", ".data..percpu.nope")
    assert ".data..percpu has no member 'nope'" in err


@kernel
def test_btf_of_sections_of_the_kernel(vmlinux):
    try:
        name, _, at, _, _ = list(vmlinux.members(".data..percpu"))[7]
    except bpf.BTFError:  # as that of 5.10
        lacking("a kernel whose BTF has its variables")
    assert done("btf", "offset", ".data..percpu." + name) == "%d\n" % (at // 8)
    assert name in done("btf", "layout", ".data..percpu")


@kernel
def test_probe_tells_what_there_is(pins):
    told = {row["what"]: row for row in json.loads(done("-j", "probe"))}
    assert told["map type hash"]["available"]
    assert told["map type ringbuf"]["available"]
    assert told["CAP_BPF"]["available"]
    assert os.uname().release in json.dumps(told)
    assert "unprivileged_bpf_disabled" in json.dumps(told)
    assert all(row["available"] or row["detail"] for row in told.values()), "a no without a reason"
    text = done("probe")
    assert text.count("\n") == len(told)
    assert all(line.split()[0] in ("yes", "no") for line in text.splitlines())
    nobody = as_nobody("assert bpf.main(['-j', 'probe']) == 0")
    rows = {row["what"]: row for row in json.loads(nobody)}
    assert not rows["map type hash"]["available"] and "CAP_BPF" in rows["map type hash"]["detail"]
    assert not rows["CAP_SYS_ADMIN"]["available"] and rows["the kernel's BTF"]["available"]


# -- demo


@kernel
def test_demo_shows_the_main_job_and_leaves_nothing():
    loopback()  # without, the demo writes the values itself

    def left():
        return [info for info in bpf.maps() if info.name in ("demo_flows", "demo_total")]

    status, out, err = command("demo")
    assert status == 0 and err == "", err
    for word in (
        "kernel   a socket filter counted 3",
        '{"packets": 3, "bytes": 84}',
        "miss     BPF_MAP_LOOKUP_ELEM",
        "misfit   value of map",
        "per CPU  total[0] -> cpu 0:",
        "the counts are right",
    ):
        assert word in out
    for _ in range(50):  # the kernel frees maps shortly after the last descriptor
        if not left():
            break
        time.sleep(0.1)
    assert not left()
    with open(MODULE) as file:  # as piped over ssh
        status, out, err = run(sys.executable, "-", "demo", stdin=file)
    assert status == 0 and "the counts are right" in out


@kernel
def test_demo_without_the_right_to_load_programs(kernel_is, capsys):
    def refuse(number, cmd, ref, size):
        if cmd == bpf.BPF_PROG_LOAD:
            return -errno.EPERM
        return real_kernel(number, cmd, ref, size)

    kernel_is(refuse)
    assert bpf.main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "written from user space" in out
    assert "BPF_PROG_LOAD" in out
    assert "the counts are right" in out


@kernel
def test_without_any_right_it_explains():
    text = as_nobody("print(bpf.main(['demo']))")
    assert "CAP_BPF" in text and "sudo" in text and text.endswith("1\n") and "Traceback" not in text
    text = as_nobody("print(bpf.main(['map', 'show']))")
    assert "CAP_SYS_ADMIN" in text and text.endswith("1\n") and text.count("\n") == 2


# -- help and messages


@kernel
@pytest.mark.parametrize(
    "words, status, message",
    [
        ([], 2, "command is needed"),
        (["nonsense"], 2, "unknown command"),
        (["-x"], 2, "-x"),
        (["--frm", "x"], 2, "--frm"),
        (["map", "dump"], 2, "a map"),
        (["map", "dump", "id"], 2, "id"),
        (["dump", "M", "x"], 1, "'x'"),
        (["lookup", "M"], 2, "key"),
        (["lookup", "M", "key"], 2, "key"),
        (["lookup", "M", "key", "x"], 2, "'x'"),
        (["lookup", "M", "key", "1", "2"], 2, "has 4 bytes, not 2"),
        (["lookup", "M", "key", "256", "0", "0", "0"], 2, "256"),
        (["lookup", "M", "key", "4294967296"], 2, "4294967296"),
        (["lookup", "M", "key", "1"], 1, "no such key"),
        (["lookup", "M", "key", "09"], 2, "09"),
        (["lookup", "M", "key", "hex"], 2, "hex"),
        (["lookup", "M", "key", "hex", "g0"], 2, "g0"),
        (["update", "M", "key", "1"], 2, "value"),
        (["update", "M", "key", "1", "value"], 2, "value"),
        (["delete", "M", "key", "7"], 1, "no such key"),
        (["getnext", "M", "key", "7"], 1, "no next key"),
        (["peek", "M"], 1, "BPF_MAP_LOOKUP"),
        (["dump", "no_such_map"], 1, "no_such_map"),
        (["dump", "id", "2147483000"], 1, "2147483000"),
        (["dump", "/no/pin"], 1, "/no/pin"),
        (["show", "id", "99999999999"], 1, "99999999999"),
        (["dump", "id", "x"], (1, 2), "'id x'"),
        (["show", "id", "-1"], (1, 2), "id"),
        (["show", "name", ""], (1, 2), "name"),
        (["demo", "x"], 2, "'x'"),
        (["--from"], 2, "--from"),
        (["--from", "/no/file", "dump"], 1, "/no/file"),
        (["--key-type", "u33", "dump", "M"], (1, 2), "u33"),
        (["create", "/x"], 2, "type"),
        (["pin", "M"], 2, "path"),
        (["help", "nonsense"], 2, "nonsense"),
    ],
)
def test_errors_are_one_line_and_json_with_j(words, status, message):
    with Map.create(HASH, u32, u64, 3) as m:
        words = [str(m.id) if word == "M" else word for word in words]
        found, out, err = main(*words)
        assert found in (status if isinstance(status, tuple) else (status,))
        assert out == ""
        assert message in err
        assert err.startswith("bpflookup: ") and err.count("\n") == 1
        again, out, _ = main("-j", *words)
        if words and "-x" not in words and words[0][:3] != "--f" and out:
            assert again == found
            assert json.loads(out) is None or list(json.loads(out)) == ["error"]


@kernel
@pytest.mark.parametrize(
    "words, said",
    [
        (["lookup", "M", "key", "7f", "00", "00", "01"], "write 'hex'"),
        (["update", "M", "key", "1", "value", "0a", "ff", "0", "0", "0", "0", "0", "0"], "'hex'"),
        (["lookup", "M", "key", "7", "256", "0", "0"], "'256' is no byte, which is 0 to 255"),
        (["lookup", "M", "key", "hex", "7", "100", "0", "0"], "'100' is no byte in hex"),
        (["lookup", "M", "key", "hex", "7f00"], "4 bytes, not 2"),
        (["lookup", "M", "key", "a=1"], "--key-type can tell them"),
        (["update", "M", "key", "1", "value", '{"a": 1}'], "--value-type can tell them"),
        (["create", "/x", "type", "hsh"], "unknown map type 'hsh'; is it hash"),
        (["create", "/x", "type", "per_cpu_hash"], "percpu_hash"),
        (["create", "/x", "type", "hash", "key", "four"], "key takes a number, not 'four'"),
        (["create", "/x", "type", "hash", "entries", ""], "entries"),
        (["create", "/x", "kind", "hash"], "unknown word 'kind'"),
        (["create", "/x", "key", "4"], "'type' is needed: hash array"),
        (["update", "M", "key", "1", "value", "2", "noexist", "extra"], "unexpected 'extra'"),
        (["btf", "offset", "list_head"], "TYPE.MEMBER is needed; members of list_head: next prev"),
        (["btf", "offset", "struct", "list_head."], "TYPE.MEMBER"),
        (["btf", "offset", "task_struct"], " ..."),
        (["create", "/x", "type", "hash", "key", "4", "value", "4"], "not given: entries"),
        (["lookup", "M", "kye", "1"], "unexpected 'kye', 'key' is needed"),
        (["update", "M", "kye", "1"], "'key' or 'value' is needed"),
        (["peek", "M"], "its values have keys"),
        (["pop", "M"], "its values have keys"),
        (["push", "M", "value", "1"], "its values have keys"),
        (["save", "M", "/nope/c.capture"], "/nope/c.capture"),
        (["dmp", "M"], "unknown command 'dmp'; is it dump?"),
        (["map", "lokup", "M"], "is it lookup"),
        (["--jsn", "dump"], "is it --json"),
        (["--value_type", "u32", "dump"], "is it --value-type"),
        (["lookup", "M", "key", "1"], "no such key: 1 (%s"),
        (["delete", "M", "key", "0x10"], "no such key: 0x10 ("),
        (["lookup", "M", "key", "1", "2", "3", "4"], "no such key: 01 02 03 04"),
        (["lookup", "M", "key", "10.0.0.0/8"], "10.0.0.0/8"),
        (["getnext", "M"], "no next key; the map is empty"),
    ],
)
def test_messages_say_what_to_do(words, said):
    with Map.create(HASH, u32, u64, 3) as m:
        status, out, err = main(*[m.id if word == "M" else word for word in words])
        said = said.replace("%s", bytes(u32(1)).hex()[:2])
        assert status in (1, 2) and out == "" and said in err and err.count("\n") == 1, err
        for never in ("invalid literal", ".tmp", "order of values", "None", "''", "[Errno"):
            assert never not in err


@kernel
def test_a_missing_key_is_told_as_it_was_typed(pins):
    for words, typed, raw in (
        (["w_lpm", "key", "10.0.0.0/8"], "10.0.0.0/8", native(8, 4) + bytes([10, 0, 0, 0])),
        (["w_lru", "key", "ICMP"], "ICMP", native(1, 4)),
        (["w_pairs", "key", "pid=9", "slot=1"], "pid=9 slot=1", native(9, 4) + native(1, 4)),
    ):
        for command in ("lookup", "delete"):
            status, out, err = main(command, pins + "/" + words[0], *words[1:])
            told = "bpflookup: no such key: %s (%s)\n" % (typed, " ".join("%02x" % b for b in raw))
            assert (status, out, err) == (1, "", told)
    with Map.create(HASH, None, None, 2, key_size=16, value_size=4) as m:
        err = main("--key-type", "char[16]", "lookup", "id", m.id, "key", "x", "-j")[2]
        assert "no such key: x -j (" in err and "options stand before it" in err
    out = done("getnext", pins + "/w_lru")
    assert out == "next key: UDP\n" or out == "next key: TCP\n" and "None" not in out


@kernel
def test_a_name_that_is_nearly_one_is_offered(called):
    """called: its lock keeps other runs from making names as near."""
    number = RUN % 10**5
    with Map.create(HASH, u32, u32, 1, name="AT_cnt%d" % number), Map.create(
        HASH, u32, u32, 1, name="my_conns%d" % number
    ):
        for name, wanted in (
            ("@cnt%d" % number, "AT_cnt%d"),
            ("at_cnt%d" % number, "AT_cnt%d"),
            ("MY-CONNS%d" % number, "my_conns%d"),
            ("my_cons%d" % number, "my_conns%d"),
            ("conns%d" % number, "my_conns%d"),
            ("my_conns%d_and_more" % number, ""),
        ):
            for words in (["name", name], [name]):
                status, out, err = main("lookup", *words, "key", "1")
                assert (status, out, err.count("\n")) == (1, "", 1)
                assert not wanted or repr(wanted % number) in err.partition("is it ")[2], err
        err = main("dump", "nothing_like_it")[2]
        assert err.endswith("no map is named so (ENOENT)\n")


@kernel
def test_help_has_an_example_for_each_command_that_parses():
    for words in (["-h"], ["--help"], ["help"], ["map", "-h"], ["map", "help"]):
        whole = done(*words)
        assert "usage: bpflookup.py" in whole and max(map(len, whole.splitlines())) <= 80, words
    names = re.findall(r"^  ([a-z]+)  ", whole, re.M)
    assert set(
        "show list create dump update lookup getnext delete pin peek push pop enqueue dequeue freeze help watch "
        "hist save probe btf layout".split()
    ) <= set(names)
    for name in set(names) - {"help"}:
        text = done(name, "-h")
        assert text == done("help", name) == done("map", name, "--help")
        assert max(map(len, text.splitlines())) <= 80, text
        assert text.splitlines()[-1].startswith("bpflookup.py --help tells"), text
        assert "--ndjson  " not in text and len(text.splitlines()) < 24  # its own words, no more
        (example,) = re.findall(r"example: bpflookup.py (.*)$", text, re.M)
        words = [word for word in shlex.split(example.split(" | ")[0])]
        assert name in words
        # who can't get further than to the map
        told = as_nobody("print(bpf.main(words))", words=words)
        assert "Traceback" not in told and told.splitlines()[-1] in ("0", "1"), example
    assert command("--version")[1] == done("-V") == "bpflookup %s\n" % bpf.__version__


def test_help_names_every_meaning_and_numbering():
    told = set(re.split(r"[^\w]+", done("--help")))
    assert not set(bpf.MEANINGS) - told
    assert not set(bpf._NUMBERINGS) - set(re.split(r"[^\w]+", done("hist", "-h")))


def test_help_calls_the_program_as_it_was_called(tmp_path):
    shutil.copy(MODULE, str(tmp_path / "maps"))
    (tmp_path / "app").mkdir()
    shutil.copy(MODULE, str(tmp_path / "app" / "__main__.py"))
    zipapp.create_archive(str(tmp_path / "app"), str(tmp_path / "app.pyz"))
    entry = (
        "import sys; sys.argv[0] = '/usr/bin/bpflookup'; import bpflookup; bpflookup.main(['-h'])"
    )
    for name, words in (
        ("bpflookup.py", [MODULE]),
        ("maps", [tmp_path / "maps"]),
        ("app.pyz", [tmp_path / "app.pyz"]),
        ("bpflookup.py", ["-m", "bpflookup"]),
        ("bpflookup", ["-c", entry]),
    ):
        status, out, err = run(sys.executable, *words, "-h", env=importing())
        assert (status, err) == (0, "") and out.startswith("usage: %s [OPTION]" % name), out
    with open(MODULE) as script:
        out = run(sys.executable, "-", "help", "dump", stdin=script)[1]
    assert out.startswith("usage: bpflookup.py [OPTION]... dump MAP ")


def test_an_option_with_an_empty_path_is_not_as_one_left_out():
    for words in (["show", "--from", ""], ["dump", "--from="], ["--token", "", "demo"]):
        status, out, err = main(*words)
        assert (status, out) == (1, "") and "No such file" in err, (words, out, err)


def test_what_help_says_of_data_is_so():
    text = done("-h")
    for word in list(bpf._Options.FLAGS) + list(bpf._Options.VALUES):
        # taken for bpftool's sake, or of watch
        if bpf._Options.FLAGS.get(word) not in ("same", "once"):
            assert re.search(r"(^|[ ,])%s\b" % word, text, re.M), word
    for name in ("update", "watch", "hist", "save", "dump", "btf"):
        assert len(done(name, "-h").splitlines()) > 6


# -- foreign text

# What steers a terminal, forges a line, or hides what stands there: C0, DEL, C1, line ends of all kinds, bidi
# controls, joiners, private use, surrogates, no UTF-8.  Each with a word that tells whether it got to a line's start.
STEERING = [
    b"\x1b[31m",
    b"\x1b]0;title\x07",
    b"\x08\x08\x08",
    b"\r",
    b"\n",
    b"\x0b",
    b"\x0c",
    b"\x1c",
    b"\x7f",
    b"\t",
    "\x85".encode(),
    "\x9b31m".encode(),
    "\u200b".encode(),
    "\u2028".encode(),
    "\u2029".encode(),
    "\u202e".encode(),
    "\u2066".encode(),
    "\ufeff".encode(),
    "\ue000".encode(),
    "\U000e0041".encode(),
    b"\xed\xa0\x80",
    b"\x9b31m",
    b"\xff\x1b[2J",
    b"%s%n%(a)s",
]


def check_harmless(words, *texts):
    """Check that nothing of the foreign text in an output steers a terminal or begins a line."""
    for text in texts:
        wrong = {char for char in text if not char.isprintable() and char not in "\n\t"}
        assert not wrong, (words, wrong, text[:2000])
        assert not re.search("^FORGED", text, re.M), (words, text[:2000])
        assert "\tFORGED" not in text or "metrics" in str(words), (words, text[:2000])


def hostile_capture(raw):
    """Return a capture all of whose names and texts are raw and a word."""

    class Raw(Blob):
        def name(self, text):
            if not isinstance(text, str) or text == "":
                return text or 0
            encoded = text.encode() + raw + b"FORGED"
            self.strings += encoded + b"\0"
            return self.start + len(self.strings) - len(encoded) - 1

    blob = Raw()
    number, char = blob.int("int", 4), blob.int("char", 1, 2)
    kind = blob.enum("enum", 4, [("A", 1), ("B", 2)])
    named = blob.of(blob.TYPEDEF, kind, "typedef")
    tagged = blob.of(blob.TYPE_TAG, number, "tag")
    inner = blob.struct("inner", 8, ("x", number, 0), ("y", tagged, 32))
    key = blob.struct("key", 8, ("kind", named, 0), ("slot", number, 32))
    text = blob.array(char, 32)
    value = blob.struct("value", 44, ("n", number, 0), ("in", inner, 32), ("text", text, 96))
    blob.add(blob.DECL_TAG, "decl", 0, value, [0])
    single = blob.struct("single", 4, ("count", number, 0))
    text = (b"t" + raw + b"FORGED").ljust(32, b"\0")[:32]
    shown = raw.decode("utf-8", "surrogateescape") + "FORGED"
    maps = []
    for size, type_id, values in ((44, value, bytes(12) + text), (4, single, b"\7\0\0\0")):
        header = hand_made(blob.data(), {"key": key, "value": type_id}, key_size=8, value_size=size)
        header.update(host=shown, kernel=shown, machine=shown, time=shown)
        header["info"].update(name=shown, btf_id=3)
        lines = ["%s %s" % (struct.pack("<II", n, n).hex(), values.hex()) for n in (1, 2, 3)]
        maps.append(forged(header, lines))
    return blob.data(), maps


STEERED = [
    "show",
    "dump",
    "--hex dump",
    "--ndjson dump",
    "--metrics dump",
    "-j dump",
    "-p dump",
    "layout",
    "-j layout",
    "hist",
    "-j hist",
    "hist linear",
    "--ndjson hist",
    "--slots FORGED=log2 hist",
    "--slots bpftrace hist",
    "--metrics --slots log2 dump",
    "--metrics --slots bcc dump",
    "--metrics --metrics-type FORGED=counter dump",
    "--metrics --per-cpu dump",
    "--metrics show",
    "--ndjson --big-ints-as-strings dump",
    "-j --big-ints-as-strings dump",
    "watch once",
    "dump top 1",
    "dump sort nope",
    "dump columns nope",
    "dump where nope=1",
    "dump where FORGED=1 sort FORGED top 2 columns FORGED",
    "lookup key 1 0 0 0 1 0 0 0",
    "lookup key slot=1",
    "lookup key 9",
    "lookup key A,B",
    "getnext",
    "update key 1 value 2",
    "--key-type u8 dump",
    "--value-type nope dump",
    "--trace show",
]


@pytest.mark.parametrize("raw", STEERING, ids=ascii)
def test_no_foreign_text_in_a_capture_steers_a_terminal(raw, tmp_path):
    blob, captured = hostile_capture(raw)
    (tmp_path / "btf").write_bytes(blob)
    for number, data in enumerate(captured):
        (tmp_path / "c").write_bytes(data)
        for words in STEERED:
            status, out, err = main("--from", tmp_path / "c", *words.split())
            check_harmless(words, out, err)
            assert (out or err) and status in (0, 1, 2)
            if words == "dump" or words == "layout":
                assert status == 0 and "FORGED" in out
    (tmp_path / "c").write_bytes(captured[0])
    field = os.fsdecode(b"n" + raw + b"FORGED")
    for words in (["columns", field], ["sort", field, "top", "2"], ["where", field + "=0"]):
        for form in ([], ["--ndjson"], ["-j"], ["--metrics"]):
            status, out, err = main("--from", tmp_path / "c", *form, "dump", *words)
            check_harmless(form + words, out, err)
            assert out or err
    kept = bpf.Capture(data)
    for text in (repr(kept.info), kept.info._about, kept._view.key_layout.describe()):
        check_harmless("repr", text)
    name = os.fsdecode(b"key" + raw + b"FORGED")
    for words in (["layout", name], ["offset", name + ".kind"], ["offset", name], ["layout", "k"]):
        status, out, err = main("--btf", tmp_path / "btf", "btf", *words)
        check_harmless(words, out, err)


def all_errors(cls=bpf.BPFError):
    """Yield every class of errors that the module has."""
    yield cls
    for one in cls.__subclasses__():
        yield from all_errors(one)


@pytest.mark.parametrize("cls", sorted(set(all_errors()), key=lambda cls: cls.__name__))
def test_no_error_steers_a_terminal_whatever_is_in_its_message(cls):
    for raw in STEERING:
        text = "a" + raw.decode("utf-8", "surrogateescape") + "FORGED"
        if issubclass(cls, bpf.SyscallError):
            error, lines = cls(errno.EINVAL, text), 1
            error.hint = text
        else:
            error, lines = cls(text, text, "b"), 3
        assert len(str(error).split("\n")) == lines and str(error).count("FORGED") == 2
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        check_harmless(cls, str(error), repr(error))


@pytest.mark.parametrize("raw", STEERING, ids=ascii)
def test_no_error_or_repr_of_foreign_types_steers_a_terminal(raw):
    blob, captured = hostile_capture(raw)
    btf = bpf.BTF.from_bytes(blob)
    value, key = btf.layout(9), btf.layout(7)
    assert "FORGED" in value.name and "FORGED" in key.name and value.size == 44
    enum, texts = key.members[0].layout, value.members[2].layout
    made, obj = value.ctype(), value.ctype()()
    other = type("Other", (ctypes.Structure,), {"_fields_": [(value.members[0].name, u64)]})
    refused = [
        lambda: btf.members(3),
        lambda: btf.enumerators(9),
        lambda: btf.offsetof(9, "nope"),
        lambda: btf.offsetof(9, value.members[0].name + ".x"),
        lambda: btf.find(value.name + "x"),
        lambda: value.reader("plain").one(b""),
        lambda: value.reader("plain", 1),
        lambda: value.pack({}),
        lambda: value.pack("x"),
        lambda: value.pack({"nope": 1}),
        lambda: value.pack({value.members[0].name: "x"}),
        lambda: value.pack({value.members[0].name: 1, "rest": 2}),
        lambda: key.pack({key.members[0].name: "C", "rest": 0}),
        lambda: texts.pack("x" * 99),
        lambda: made(*range(9)),
        lambda: made(nope=1),
        lambda: setattr(obj, "nope", 1),
        lambda: setattr(obj, made._fields_[0][0], 1 << 40),
        lambda: setattr(obj, made._fields_[0][0], "x"),
        lambda: bpf.check_layout(made, 3),
        lambda: bpf.Capture(captured[0], u64, u64),
        lambda: bpf.Capture(captured[0], value=made, key="u32"),
        lambda: bpf._prove_agreement(bpf.layout(other), value, True, "value"),
        lambda: bpf._prove_agreement(value.members[1].layout, value, True, "value"),
    ]
    for number, fails in enumerate(refused):
        with pytest.raises((bpf.BPFError, ValueError)) as told:
            list(fails() or ())
        check_harmless(number, str(told.value), repr(told.value))
    shown = [value, made, obj, key.ctype()(), enum, btf, bpf.Capture(captured[0]).info]
    check_harmless("repr", *[repr(one) for one in shown + list(value.members) + list(btf)])


@kernel
@pytest.mark.parametrize("raw", [one for one in STEERING if b"/" not in one], ids=ascii)
def test_no_name_of_a_pin_file_or_process_steers_a_terminal(raw, bpffs, tmp_path):
    word = os.fsdecode(raw.replace(b".", b"") + b"FORGED")
    pin, directory = os.path.join(bpffs, "p" + word), os.path.join(bpffs, "d" + word)
    os.mkdir(directory)
    with open("/proc/self/comm", "rb") as file:
        comm = file.read()
    with Map.create(HASH, u32, u64, 4, name=FLOWS) as m:
        m.pin(pin)
        m.pin(os.path.join(directory, "p" + word))
        with open("/proc/self/comm", "wb") as file:
            file.write(raw[:9] + b"FORGED")
        try:
            for words in (
                ["show"],
                ["show", "id", m.id],
                ["show", "pinned", pin],
                ["-j", "-f", "show", "id", m.id],
                ["dump", "pinned", pin],
                ["lookup", "pinned", pin, "key", "1"],
                ["lookup", "pinned", pin, "key", word],
                ["lookup", "pinned", pin, "key", "x" + word],
                ["update", "pinned", pin, "key", "1", "value", word],
                ["pin", "id", m.id, pin],
                ["pin", "id", m.id, pin + "/x/y"],
                ["dump", "pinned", pin + "no"],
                ["dump", "pinned", directory],
                ["dump", "name", word],
                ["dump", word],
                [word],
                ["-" + word],
                ["--trace", "dump", "pinned", pin],
                ["--trace", "dump", "pinned", pin + "no"],
                ["save", "pinned", pin, tmp_path / word / "no"],
                ["save", "pinned", pin, tmp_path / ("c" + word)],
                ["--from", tmp_path / ("c" + word), "dump"],
                ["--from", tmp_path / ("no" + word), "dump"],
                ["--btf", tmp_path / ("no" + word), "btf", "layout", "x"],
                ["--value-type", word, "dump", "pinned", pin],
                ["--value-type", "struct { u32 a; } " + word, "dump", "pinned", pin],
                ["--token", tmp_path / word, "dump", "pinned", pin],
            ):
                status, out, err = main(*words)
                check_harmless(words, out, err)
                assert out or err
        finally:
            with open("/proc/self/comm", "wb") as file:
                file.write(comm)
    for failing in (
        lambda: Map.from_pin(pin + "no"),
        lambda: Map.from_name(word[:15]),
        lambda: bpf.open_map("pinned " + pin + "no"),
        lambda: bpf.pins(pin + "no"),
    ):
        with pytest.raises(bpf.BPFError) as told:
            failing()
        check_harmless("error", str(told.value))
        check_harmless("error", getattr(told.value, "map", ""))


@kernel
def test_what_stands_in_proc_neither_steers_a_terminal_nor_forges_a_line(monkeypatch, tmp_path):
    """A mount's path may hold all but NUL; of line ends /proc escapes only "\\n", of blanks not those above ASCII."""
    odd = "/tmp/d\x1b[31m\u202e \xe0\x85"
    spelled = os.fsencode(odd).decode("latin-1").replace(" ", "\\040")
    real = bpf._read_text
    texts = {
        "/proc/self/mounts": "x / ext4 rw 0 0\nbpf %s bpf rw 0 0\n" % spelled,
        "/proc/self/status": "Name:\tme\x85CapEff:\t1\x0bCapEff:\t2\nCapEff:\t0000\n",
    }
    monkeypatch.setattr(bpf, "_read_text", lambda path: texts.get(path) or real(path))
    assert bpf._bpffs_mounts() == [odd]
    assert bpf._colon_file("/proc/self/status")["CapEff"] == "0000"
    status, out, err = main("probe")
    check_harmless("probe", out, err)
    for words in (["show"], ["dump", "pinned", "/nope"]):
        check_harmless(words, *main(*words)[1:])
    with pytest.raises(bpf.BPFError) as told:
        bpf.pins(str(tmp_path))
    check_harmless("pins", str(told.value))
    assert "\\x1b" in str(told.value)


# -- streams, signals, and no traceback


@kernel
def test_everything_works_from_standard_input(pins):
    pin = ["pinned", pins + "/w_lru"]
    bare = ["-I", "-S", "-OO"]
    for flags, words in (
        ([], ["-j", "map", "dump"] + pin),
        (bare, ["-j", "map", "dump"] + pin),
        (bare, ["map", "help"]),
        (bare, ["layout"] + pin),
        (bare, ["--ndjson", "dump"] + pin),
    ):
        with open(MODULE) as script:
            answer = run(sys.executable, *flags, "-", *words, stdin=script)
        assert answer == (0, done(*words), "")
    status, out, err = main("--trace", "-j", "lookup", pin[1], "key", "TCP")
    assert status == 0
    assert "bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=" in err
    assert "bpf(BPF_OBJ_GET" in err
    assert json.loads(out)


@kernel
def test_closed_and_full_streams_and_strange_names_are_no_trouble(pins):
    pin, shell = pins + "/w_lru", program("sh")
    with mock.patch.dict(os.environ, importing()), Map.create(HASH, u32, u64, 3, name="caf\xe9"):
        for words in (
            "map show",
            "-j dump " + pin,
            "-j lookup %s key UDP" % pin,
            "watch %s interval 0.01 once" % pin,
            "-j nonsense",
            "-h",
        ):
            wanted = main(*words.split())[0]
            line = "exec %s -m bpflookup %s " % (sys.executable, words)
            assert run(shell, "-c", line + "2>/dev/full")[0] == wanted
            for lost in (">&-", ">/dev/full", "1<" + os.devnull):  # nothing is lost in silence
                status, out, err = run(shell, "-c", line + lost)
                assert status in (1, wanted or 1) and err.count("\n") == 1, (words, lost, err)
                assert err.startswith("bpflookup: ")
                assert "standard output: " in err or wanted == 2 and "-j" not in words
                assert run(shell, "-c", line + lost + " 2>&- <&-")[0] == status
        for words in ("update %s key UDP value 7 0", "-h", "lookup %s key 1"):
            words = words % pin if "%" in words else words
            status, out, err = run(
                shell, "-c", "exec %s -m bpflookup %s >&-" % (sys.executable, words)
            )
            assert (status, err) == (0, "") or words[:6] != "update" and status == 1 and err
        status, out, err = command(
            "map", "show", env=dict(os.environ, LC_ALL="C", PYTHONIOENCODING="ascii")
        )
        if sys.version_info >= (3, 7):
            assert status == 0 and "name caf\\xe9" in out and err == ""


@kernel
def test_every_error_is_one_line_that_a_terminal_can_show(tmp_path):
    with Map.create(HASH, Key, Value, 4) as m:
        for words in (
            ["--value-type", "u32 a, u64 b, u8 c", "dump", "id", m.id],
            ["--key-type", "u8 a, u8 b", "lookup", "id", m.id, "key", "a=1,b=2"],
            ["dump", "name", "a\nb\x1b[31m\x9b"],
            ["lookup", "id", m.id, "key", "src=1,no\nsuch=1"],
            ["--from", str(tmp_path / "line\nfeed"), "dump"],
            ["dump", "pinned", "/\r\n"],
            ["a\nb"],
            ["--a\nb"],
        ):
            status, out, err = main(*words)
            assert status in (1, 2) and out == "" and err.count("\n") == 1
            assert err[:-1].isprintable() and len(err) > 20
            if words[0][:3] != "--a":
                told = json.loads(main("-j", *words)[1])
                assert list(told) == ["error"] and told["error"]


def test_a_standard_library_without_json_is_an_error_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "json", None)
    status, _, err = main("-j", "map", "show")
    assert status == 1 and err.startswith("bpflookup: ") and err.count("\n") == 1 and "json" in err


@kernel
def test_readers_that_go_away_and_ctrl_c_are_quiet():
    with Map.create(ARRAY, u32, u64, 100000, name=LONG):
        for words, end in itertools.product(([], ["-j"], ["--ndjson"]), ("close", "interrupt")):
            dump = subprocess.Popen(
                [sys.executable, MODULE] + words + ["map", "dump", "name", LONG],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert dump.stdout.read(10)
            if end == "close":
                dump.stdout.close()
            else:
                dump.send_signal(signal.SIGINT)
                dump.stdout.read()
            assert dump.stderr.read() == b"" and dump.wait() == (1 if end == "close" else 130)
            dump.stdout.close()
            dump.stderr.close()


@kernel
def test_no_line_of_words_ends_in_a_traceback(pins, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setattr(
        time, "sleep", lambda seconds: None if 0 <= seconds < 1e9 else time.ctime(seconds)
    )
    with Map.from_pin(pins + "/w_hash") as m:
        bpf.capture(m, "c.cap")
        from_id, own = Map.from_id, m.info
    names = [os.path.join(pins, name) for name in os.listdir(pins)]
    # no other's map
    monkeypatch.setattr(bpf, "maps", lambda: iter([own]))
    monkeypatch.setattr(
        Map, "from_id", lambda map_id, *types, **more: from_id(own.id, *types, **more)
    )
    words = (
        """map m key value k v hex any exist noexist cpu=0 cpu=1 cpu= cpu=-1 id name pinned i p once interval 0.0
        linear type hash entries flags inner_map offset layout struct list_head list_head.next src=1 src=1,port=2
        src.a=1 src=1,src.x=2 .=1 = a=b=c [] {} {"src":1} {"src":[[1]]} [1,2 null NaN {"count":1e999} TCP BAD 10.0.0.1
        10.0.0.0/8 ::1 fe80::1/64 1.2.3.4.5 02:00:00:00:00:01 1:2:3:4:5:6 0 1 -1 256 0x10 010 09 1e3 0 0 0 6 - -- x /
        99999999999999999999 \xe9 \udc80 /nope/x x/y 1_0 help c.cap""".split()
        + ["", "\0", "a" * 70]
    )
    options = """-j -p -f -jp --hex --ndjson --metrics --trace -h -V --key-type --value-type --key-type=u32 --from -x
        --value-type=u64 --from=c.cap --from=/nope --btf --json=1 --value-type=char[16] --value-type=bool --once
        --value-type=u8[0] --key-type=u8[ --value-type=float""".split()
    options += ["--value-type=u8 _fields_[4]", "--key-type=u32 a,u8 b"]
    options += (
        "--per-cpu --entries --big-ints-as-strings --slots --slots=log2 --slots=lhist:0:9:1".split()
    )
    options += (
        "--slots=count=bcc --metrics-type --metrics-type=count=counter --metrics-type=x".split()
    )
    commands = """show list help dump update lookup getnext delete pin peek push enqueue pop dequeue create layout watch
        hist hist save btf""".split()
    rng, seen = random.Random(7), set()
    for _ in range(3000):
        line = rng.choice([["map"], ["m"], []]) + [rng.choice(commands)]
        line += rng.choice(
            [[rng.choice(names)], ["pinned", rng.choice(names)], ["name", "w_hash"], []]
        )
        if rng.random() < 0.6:
            for word in rng.choice([["key"], ["value"], ["key", "value"], ["key", "value"]]):
                line += [word] + [rng.choice(words) for _ in range(rng.choice([1, 1, 1, 4, 8]))]
        else:
            line += [rng.choice(words) for _ in range(rng.randrange(4))]
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            line.insert(rng.randrange(len(line) + 1), rng.choice(options))
        if "watch" in line:
            line.append("once")
        try:
            status, out, err = main(*line)
        except BaseException as error:
            pytest.fail("%r: %r" % (line, error))
        assert status in (0, 1, 2) and (status == 0 or out or err), line
        seen.add((status, line[0]))
    assert len({status for status, _ in seen}) == 3


# ---- The file: imported, vendored, checked ----------------------------------
# What holds of bpflookup.py as a file.


# -- importing it


def test_import_works_anywhere_and_use_says_so():
    status, out, err = python("""
        import sys
        sys.platform = "darwin"
        import bpflookup
        try:
            bpflookup.Map.from_id(1)
        except bpflookup.NotSupported as error:
            print(error)
        print(bpflookup.to_json(bpflookup.u32(5)))
    """)
    assert status == 0, err
    assert "darwin" in out and out.endswith("5\n")


@pytest.mark.parametrize("flags", [["-W", "error"], ["-OO"], ["-S", "-E"], ["-I"], ["-bb"]])
def test_import_is_clean_under_every_flag(flags):
    status, out, err = run(
        sys.executable,
        *flags,
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); import bpflookup",
        HERE,
    )
    assert (status, out, err) == (0, "", "")


def test_source_is_ascii_and_the_licence_travels():
    with open(MODULE, "rb") as file:
        text = file.read().decode("ascii")
    assert "Permission is hereby granted" in text
    assert text.startswith("#!/usr/bin/env python3\n# SPDX-License-Identifier: MIT")
    assert all(len(line) <= 120 for line in text.splitlines())


@kernel
def test_a_zipapp_runs_in_a_bare_environment(tmp_path):
    directory = tmp_path / "app"
    directory.mkdir()
    shutil.copy(MODULE, str(directory / "__main__.py"))
    zipapp.create_archive(str(directory), str(tmp_path / "app.pyz"))
    bare = ["-S", "-E", "-I", str(tmp_path / "app.pyz"), "-j", "map", "show"]
    assert run(sys.executable, *bare, env={}, cwd="/")[0] == 0
    assert (
        run(
            program("sh"),
            "-c",
            "exec %s -I %s --version <&- >&- 2>&-" % (sys.executable, MODULE),
            env={},
        )[0]
        == 1
    )


@kernel
@pytest.mark.parametrize(
    "flags, env", [(["-X", "dev"], {}), (["-W", "error"], {"PYTHONMALLOC": "debug"})]
)
def test_development_mode_and_the_debugging_allocator_find_nothing(flags, env):
    if sys.version_info < (3, 7) and flags == ["-X", "dev"]:
        flags = ["-X", "faulthandler"]
    script = (
        """import sys; sys.path.insert(0, %r)
import bpflookup as bpf
with bpf.Map.create(5, bpf.u32, bpf.parse_type("u8 a, u32 b"), 100) as m:
    for key in range(100):
        m[key] = m.value_type(1, key)
    assert sum(value[0].b for value in m.values()) == 4950
    assert sum(len(keys) for keys, _ in m.lookup_and_delete_batch(7)) == 100
try:
    btf = bpf.BTF.from_vmlinux()
    for type_id in range(1, btf.count, 50):
        if btf.type(type_id).kind in (4, 5):
            bpf.to_python(btf.ctype(type_id)())
except bpf.BTFError as error:
    assert "can't be had" in str(error), error
print("fine")"""
        % HERE
    )
    status, out, err = run(sys.executable, *flags, "-c", script, env=dict(os.environ, **env))
    assert status == 0 and out == "fine\n" and err == ""


# -- what checkers and editors see

# Scripts as users write them beside a copy of the file.  What a checker is to make of an expression
# stands behind it; "error" where it is to refuse the line.
VENDORING = {
    "lookups": """
        import ctypes
        from typing import List, cast

        from bpflookup import *

        class FlowKey(ctypes.Structure):
            _fields_ = [("src", ctypes.c_uint32), ("port", ctypes.c_uint32)]

        class FlowStats(ctypes.Structure):
            _fields_ = [("packets", ctypes.c_uint64)]

        with Map.from_pin("/sys/fs/bpf/flows", key=FlowKey, value=FlowStats, mode="rw") as flows:
            reveal_type(flows)  # Map[FlowKey, FlowStats]
            reveal_type(flows.lookup(FlowKey(1, 2)))  # FlowStats
            reveal_type(flows[FlowKey(1, 2)])  # FlowStats
            reveal_type(flows.get(b"12345678"))  # FlowStats | None
            reveal_type(flows.get(FlowKey(1, 2), 0))  # FlowStats | int
            reveal_type(flows.items())  # Iterator[tuple[FlowKey, FlowStats]]
            reveal_type([key for key in flows])  # list[FlowKey]
            reveal_type(list(flows.values()))  # list[FlowStats]
            reveal_type(flows.next_key())  # FlowKey | None
            reveal_type(flows.lookup_into(FlowKey(1, 2), FlowStats()))  # bool
            reveal_type(flows.fd)  # int
            reveal_type(flows.info.frozen)  # bool | None
            reveal_type(flows.btf)  # BTF | None
            flows[FlowKey(1, 2)] = FlowStats(3)
            flows.update(FlowKey(1, 2), FlowStats(4), BPF_NOEXIST)
            del flows[FlowKey(1, 2)]
            flows.update_batch([FlowKey(1, 2)], [FlowStats(1)])
            flows.lookpu(FlowKey(1, 2))  # error
            flows.lookup(None)  # error
            flows.update(FlowKey(1, 2))  # error
            for keys, values in flows.lookup_batch():
                reveal_type(keys)  # Array[Any]
            drain = flows.lookup_and_delete_batch(size=100)
            reveal_type(list(drain))  # list[tuple[Array[Any], Array[Any]]]
            reveal_type(drain.last)  # tuple[Array[Any], Array[Any]] | None

        try:
            with Map.from_id(5, ctypes.c_uint32, ctypes.c_uint64) as counts:
                reveal_type(counts)  # Map[c_uint32, c_uint64]
                reveal_type(counts[0])  # int
                reveal_type(counts.get(0))  # int | None
                reveal_type(dict(counts.items()))  # dict[int, int]
                reveal_type(max(counts))  # int
                reveal_type(sum(counts.values()))  # int
        except KeyNotFound as error:
            reveal_type(error.errno)  # int
            reveal_type(error.cmd)  # str
            reveal_type(error.hint)  # str | None
            reveal_type(error.key)  # Any
        except AmbiguousName as error:
            reveal_type(error.ids)  # list[int]

        reveal_type(Map.from_name("floats", ctypes.c_uint32, ctypes.c_double)[0])  # float
        reveal_type(Map.from_name("flags", ctypes.c_uint32, ctypes.c_bool)[0])  # bool
        reveal_type(Map.from_name("letters", ctypes.c_uint32, ctypes.c_char)[0])  # bytes
        reveal_type(Map.from_name("names", bytes, ctypes.c_char * 16)[b"1"])  # Array[c_char]
        reveal_type(Map.from_fd(3, bytes, bytes)[b"1"])  # bytes
        reveal_type(Map.from_fd(3, BTF, BTF)[1])  # Any
        reveal_type(open_map("name flows"))  # Map[Any, Any]
        reveal_type(open_map("id 5", value=ctypes.c_uint32).peek())  # int
        reveal_type(Map.create(BPF_MAP_TYPE_HASH, FlowKey, ctypes.c_uint64, 9))  # Map[FlowKey, c_uint64]
        Map.from_id(5, int)  # error
        Map.from_id(5, mode="r", stict=True)  # error

        # Which maps are per-CPU a checker can't know: the user says it.
        per_cpu = cast("Map[ctypes.c_uint32, List[int]]", Map.from_id(6, ctypes.c_uint32, ctypes.c_uint64))
        reveal_type(per_cpu[0])  # list[int]
        reveal_type(sum(per_cpu[0]))  # int

        def packets(m: Map[FlowKey, FlowStats]) -> int:
            return sum(int(stats.packets) for stats in m.values())

        reveal_type(packets(Map.from_name("flows", FlowKey, FlowStats)))  # int
        packets(Map.from_name("flows", FlowKey, FlowKey))  # error
        reveal_type([info.name for info in maps()])  # list[str | None]
        reveal_type(pins())  # dict[int, list[str]]
        reveal_type(users(5, [per_cpu]))  # dict[str, list[str]]
        reveal_type(possible_cpus())  # tuple[int, ...]
        print(sys, u32)  # error
    """,
    "layouts": """
        import ctypes

        import bpflookup
        from bpflookup import BTF, Layout

        btf = BTF.from_vmlinux()
        reveal_type(btf)  # BTF
        reveal_type(btf.find("task_struct", "struct"))  # int
        reveal_type(btf.offsetof("task_struct", "comm") + 1)  # int | Any
        reveal_type(btf.sizeof("struct task_struct"))  # int
        reveal_type(btf.layout("list_head"))  # Layout
        reveal_type([t.name for t in btf])  # list[str]
        reveal_type(btf.type(1).size)  # int | None
        reveal_type(btf.enumerators("enum pid_type"))  # dict[int, str]
        for name, type_id, offset, bits, tags in btf.members("list_head"):
            reveal_type(name)  # str
            reveal_type(offset)  # int
            reveal_type(tags)  # tuple[str, ...]
        Pair = btf.ctype("list_head")
        print(Pair(next=1).next)
        btf.offsetof("task_struct")  # error

        class Stats(ctypes.Structure):
            _fields_ = [("packets", ctypes.c_uint64), ("source", ctypes.c_uint32)]

        found: Layout = bpflookup.layout(Stats).showing("source", "ip4")
        reveal_type(found.pack({"packets": 1, "source": "10.0.0.1"}))  # bytes
        reveal_type(found.columns(bytes(32)))  # dict[str, list[Any]]
        reveal_type(list(found.reader("json").read(bytearray(32))))  # list[Any]
        reveal_type(found.describe())  # str
        reveal_type([one.label for one in found.members])  # list[str | None]
        reveal_type(found.meaning.word if found.meaning else "")  # str
        reveal_type(found.size)  # int
        reveal_type(bpflookup.layout("struct { __be16 port; }").python_source("Port"))  # str
        reveal_type(bpflookup.to_json(Stats()))  # str
        bpflookup.check_layout(Stats, 16)
        bpflookup.layout(5)  # error
        with bpflookup.trace():
            reveal_type(bpflookup.lpm_key("10.0.0.0/8"))  # bytes
        bpflookup.parse_type("u32 a, u16 b")()
    """,
    "ring": """
        import ctypes

        from bpflookup import Map, layout

        class Event(ctypes.Structure):
            _fields_ = [("pid", ctypes.c_uint32)]

            def text(self) -> str:
                return "pid %d" % self.pid

        with Map.from_name("events", mode="rw") as m:
            with m.records(Event) as records:
                reveal_type(records)  # Records[Event]
                reveal_type(records.read(timeout=0.5))  # list[Event]
                reveal_type(records.lost)  # int
                reveal_type(records.fileno())  # int
                for record in records:
                    reveal_type(record.text())  # str
            reveal_type(m.records().read(0))  # list[bytes]
            reveal_type(m.records(ctypes.c_uint64).read(0))  # list[int]
            reveal_type(m.records("struct event", peek=True).read(0))  # list[Any]
            reveal_type(m.records(layout(Event)))  # Records[Any]
            m.records(Event, True)  # error
            m.submit(Event(1))
            m.submit(b"1234")

        with Map.from_id(7, ctypes.c_uint32, ctypes.c_uint32, mode="rw") as counts:
            with counts.mmap(writable=True) as memory:
                reveal_type(memory)  # MemoryMap[c_uint32]
                reveal_type(memory[0])  # int
                reveal_type(len(memory.view))  # int
                memory[0] = 5
    """,
    "captures": """
        import bpflookup
        from bpflookup import Capture, Map

        def save(name: str, path: str) -> int:
            with Map.from_name(name) as m:
                return bpflookup.capture(m, path)

        reveal_type(save("flows", "flows.capture"))  # int
        found = Capture.load("flows.capture", value="u64 packets, u64 bytes")
        reveal_type(found)  # Capture
        reveal_type(found.info.name)  # str | None
        reveal_type(found.header["host"])  # Any
        reveal_type(found.count)  # int
        for key, value in found.items():
            reveal_type(value.packets)  # Any
        for raw_key, raw_value in found.entries():
            reveal_type(raw_key)  # bytes
        Capture.load()  # error
    """,
    "command": """
        import sys

        import bpflookup

        def dump(name: str) -> int:
            return bpflookup.main(["-j", "map", "dump", "name", name])

        reveal_type(bpflookup.histogram({1: 2, 3: 4}, width=20))  # list[str]
        reveal_type(bpflookup.errno_name(2))  # str
        reveal_type(bpflookup.syscall_number())  # int
        reveal_type(bpflookup.__version__)  # str
        bpflookup.main("map dump", 5)  # error
        sys.exit(dump(sys.argv[1]))
    """,
}


def mypy(directory, names):
    """Return what mypy --strict makes of files: [(file, line, type, or "" for an error)]."""
    words = [sys.executable, "-m", "mypy"]
    if run(*words, "--version")[0]:
        words = [os.environ.get("MYPY") or shutil.which("mypy")]
    if words == [None]:
        pytest.skip("mypy is needed")
    words += ["--strict", "--no-error-summary", "--config-file", "", "--python-version", "3.12"]
    status, out, err = run(*words, *names, cwd=str(directory), timeout=300)
    assert status in (0, 1) and not err
    return re.findall(r"^(.+):(\d+): (?:note: Revealed type is \"(.*)\"|error: .*)", out, re.M)


def pyright(directory, names):
    """Return the same of pyright."""
    if shutil.which("pyright") is None:
        pytest.skip("pyright is needed")
    out = run("pyright", *names, cwd=str(directory), timeout=300)[1]
    told = r"^ *(.+):(\d+):\d+ - (?:information: Type of \".*\" is \"(.*)\"|error: .*)"
    return re.findall(told, out, re.M)


def in_short(text):
    """Return a type without its modules, in the words of 3.10."""
    text = re.sub(r"\b[a-z_]\w*\.(?=\w)", "", text)
    for name in ("List", "Dict", "Tuple"):
        text = text.replace(name + "[", name.lower() + "[")
    return text


@once
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_scripts_that_vendor_the_file_are_checked_and_the_file_is_quiet(checker, tmp_path):
    shutil.copy(MODULE, str(tmp_path / "bpflookup.py"))
    wanted = []
    for name, source in VENDORING.items():
        source = textwrap.dedent(source)
        (tmp_path / (name + ".py")).write_text(source)
        lines = [line.partition("  # ") for line in source.splitlines()]
        wanted += [(name, at, word) for at, (_, mark, word) in enumerate(lines, 1) if mark]
    told = checker(tmp_path, ["bpflookup.py"] + [name + ".py" for name in VENDORING])
    found = {
        (os.path.basename(path)[: -len(".py")], int(line), in_short(shown) or "error")
        for path, line, shown in told
    }
    assert sorted(found) == sorted(wanted)


# Public names of what is not for users, by section of the module.
NOT_FOR_USERS = {
    *("u8", "u16", "u32", "u64", "s32", "EBADFD", "SYSCALL_NUMBER", "MAX_DEPTH", "SKIPPED"),
    *("TYPE_CHECKING", "overload", "View"),
}


def test_star_import_brings_the_api_and_the_kernels_constants():
    space = {}
    exec("from bpflookup import *", space)
    del space["__builtins__"]
    assert sorted(space) == sorted(bpf.__all__)
    own = set()
    for name, found in vars(bpf).items():
        is_constant = name.isupper() and isinstance(found, (int, str, dict, tuple))
        if not name.startswith("_") and (
            is_constant or getattr(found, "__module__", None) == bpf.__name__
        ):
            own.add(name)
    assert {name for name in own if not name.startswith("bpf_")} - NOT_FOR_USERS == set(space)


# Methods of layouts that forms and packing use, and nobody else.
OF_FORMS = re.compile(
    r"(Layout|Number|Enum|Boolean|Char|Float|Pointer|Array|Record|Member)\.(compiled|put|told|"
    "converter|number|bitfield|ordered|of|having|only|plan|moved|changed|choosing|is_undecided|"
    "undecided|decided)$"
)


def public_functions(cls):
    """Yield (name, function) of the methods and properties that a class, or one of ours below it, has."""
    for name in dir(cls):
        owner = next(base for base in cls.__mro__ if name in base.__dict__)
        found = owner.__dict__[name]
        found = getattr(found, "__func__", getattr(found, "fget", found))
        is_shown = not name.startswith("_") or name in ("__enter__", "__getitem__", "__iter__")
        if owner.__module__ == bpf.__name__ and is_shown and inspect.isfunction(found):
            yield "%s.%s" % (owner.__name__, name), found


def test_everything_public_is_annotated_and_told():
    functions = {}
    for name in bpf.__all__:
        found = getattr(bpf, name)
        if inspect.isclass(found):
            assert found.__doc__, name
            functions.update(public_functions(found))
        elif inspect.isfunction(found):
            functions[name] = found
    functions = {name: one for name, one in functions.items() if not OF_FORMS.match(name)}
    assert len(functions) > 110
    for name, function in functions.items():
        signature = inspect.signature(function)
        parameters = [
            one for one in signature.parameters.values() if one.name not in ("self", "cls")
        ]
        annotations = [one.annotation for one in parameters] + [signature.return_annotation]
        assert inspect.Signature.empty not in annotations, name
        for line in (function.__doc__ or "").splitlines():  # a fact has a line of its own
            assert re.match(r" *raises     \S", line) or not re.search(r"\braises [A-Z]", line), (
                name
            )


def test_annotations_cost_nothing_when_the_file_runs():
    code = (
        "import bpflookup, sys; print(sorted({'typing', 'typing_extensions'} & set(sys.modules)))"
    )
    status, out, err = run(sys.executable, "-S", "-c", code, cwd=HERE, env={"PYTHONPATH": "."})
    assert (status, out, err) == (0, "[]\n", "")
    assert Map["FlowKey", "FlowStats"] is Map and bpf.Records["Event"] is bpf.Records
    assert "__wrapped__" not in vars(Map.lookup)


def test_help_reads_like_a_manual_page():
    status, out, err = python("import bpflookup; help(bpflookup.Map)")
    assert (status, err) == (0, "")
    for words in ("lookup(self, key:", "A live BPF map.", "kernel ", "raises "):
        assert words in out, words
    assert str(inspect.signature(Map.lookup_bytes)).startswith("(self, key:")


# ---- README -----------------------------------------------------------------


def readme():
    """Return the text of the README."""
    with open(os.path.join(HERE, "README.md")) as file:
        return file.read()


def readme_blocks(language=""):
    """Return the README's blocks of a language."""
    return re.findall(r"^```%s\n(.*?)^```$" % language, readme(), re.M | re.S)


def readme_block(word):
    """Return the block without a language in the README that a word stands in."""
    (block,) = [block for block in readme().split("```")[1::2] if word in block]
    return block.split("\n", 1)[1]


def conntrack_map():
    """Return the map of the README's picture, with BTF."""
    blob = Blob(sys.byteorder)
    words = {size: blob.int("u%d" % (8 * size), size) for size in (1, 2, 4, 8)}
    be32, be16 = (
        blob.of(blob.TYPEDEF, words[4], "__be32"),
        blob.of(blob.TYPEDEF, words[2], "__be16"),
    )
    key = [("saddr", be32, 0), ("daddr", be32, 32), ("sport", be16, 64), ("dport", be16, 80)]
    key = blob.struct("flow_key", 13, *(key + [("proto", words[1], 96)]))
    state = blob.enum("state", 4, [("CLOSED", 0), ("SYN_SENT", 1), ("ESTABLISHED", 2)])
    value = [("packets", words[8], 0), ("bytes", words[8], 64), ("state", state, 128)]
    value = blob.struct("flow", 32, *(value + [("last_seen", words[8], 192)]))
    types = dict(
        btf=load_btf(blob.data()), btf_key=key, btf_value=value, key_size=13, value_size=32
    )
    m = Map.create(HASH, max_entries=4, flags=bpf.BPF_F_ZERO_SEED, name="conntrack", **types)
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 10**9)
    with Map.from_fd(m, bytes, bytes) as raw:
        for host, remote, sport, dport, proto, packets, size, state, seconds in (
            (9, 53, 40113, 53, 17, 2, 178, 1, 128),
            (7, 10, 51724, 443, 6, 1284, 9646899, 2, 91),
        ):
            key = bytes([10, 0, 0, host, 192, 0, 2, remote])
            key += struct.pack(">HHB", sport, dport, proto)
            raw[key] = struct.pack("=QQI4xQ", packets, size, state, max(0, now - seconds * 10**9))
    return m


def flows_map():
    """Return the map that the README's commands are about, with BTF."""
    blob = Blob(sys.byteorder)
    words = {size: blob.int("u%d" % (8 * size), size) for size in (2, 4, 8)}
    be32, be16 = (
        blob.of(blob.TYPEDEF, words[4], "__be32"),
        blob.of(blob.TYPEDEF, words[2], "__be16"),
    )
    key = blob.struct("flow_key", 8, ("saddr", be32, 0), ("dport", be16, 32), ("proto", be16, 48))
    value = blob.struct("stats", 16, ("packets", words[8], 0), ("bytes", words[8], 64))
    types = dict(btf=load_btf(blob.data()), btf_key=key, btf_value=value, key_size=8, value_size=16)
    m = Map.create(HASH, max_entries=4, name="flows", **types)
    with Map.from_fd(m, bytes, bytes) as raw:
        raw[struct.pack(">IHH", 0x0A000007, 443, 6)] = struct.pack("=QQ", 1284, 9646899)
        raw[struct.pack(">IHH", 0x0A000009, 53, 17)] = struct.pack("=QQ", 2, 178)
    return m


def hists_map():
    """Return the map of libbpf-tools' runqlat in the README, with BTF."""
    blob = Blob(sys.byteorder)
    word, char = blob.int("unsigned int", 4), blob.int("char", 1)
    slots, comm = blob.array(word, 27), blob.array(char, 16)
    value = blob.struct("hist", 124, ("slots", slots, 0), ("comm", comm, 27 * 32))
    types = dict(
        btf=load_btf(blob.data()), btf_key=word, btf_value=value, key_size=4, value_size=124
    )
    m = Map.create(HASH, max_entries=4, name="hists", **types)
    with Map.from_fd(m, bytes, bytes) as raw:
        raw[b"\xff" * 4] = struct.pack("=27I16s", 855, 4568, 2163, *[0] * 24 + [b"kworker/1:1"])
    return m


def latencies_map():
    """Return a map whose keys are slots, with BTF."""
    blob = Blob(sys.byteorder)
    types = dict(btf_key=blob.int("u32", 4), btf_value=blob.int("u64", 8))
    types.update(btf=load_btf(blob.data()), key_size=4, value_size=8)
    m = Map.create(bpf.BPF_MAP_TYPE_ARRAY, max_entries=8, name="latencies", **types)
    m[3] = 5
    return m


README_MAPS = {
    "conntrack": conntrack_map,
    "events": lambda: a_ring(),
    "flows": flows_map,
    "hists": hists_map,
    "latencies": latencies_map,
}


@pytest.fixture
def readme_maps():
    """Return the README's maps, and a function that names them by their ids in a line of it."""
    with contextlib.ExitStack() as stack:
        made = {name: stack.enter_context(make()) for name, make in README_MAPS.items()}
        by_id = lambda found: (
            "id %d" % made[found.group(1)].id if found.group(1) in made else found.group()
        )
        yield made, lambda line: re.sub(r"\bname (\w+)", by_id, line)


def typed(directory, script, columns=100):
    """Run a script of bash in a terminal; return its status and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("=4H", 40, columns, 0, 0))
        os.chdir(str(directory))
        environment = {k: v for k, v in os.environ.items() if k not in ("LINES", "COLUMNS")}
        environment["PATH"] = "%s:%s" % (directory, os.environ["PATH"])
        os.execve(program("bash"), ["bash", "-c", script], environment)
    text = bytearray()
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        for part in iter(lambda: os.read(terminal, 1 << 16), b""):
            text += part
    status = os.waitpid(pid, 0)[1]  # before the close, which would be a SIGHUP
    os.close(terminal)
    return status, text.decode().replace("\r\n", "\n")


@pytest.fixture
def readme_directory(tmp_path):
    """A directory with the file, this Python as python3, and an ssh that stays here."""
    shutil.copy(MODULE, str(tmp_path / "bpflookup.py"))
    (tmp_path / "python3").symlink_to(sys.executable)
    (tmp_path / "ssh").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "ssh").chmod(0o755)
    return tmp_path


def assert_shown(wanted, found, about):
    """... stands for anything, as in doctest; times and rates differ from run to run."""
    wanted, found = (re.sub(r"'2\d+-.* ago\)'", "TIME", text) for text in (wanted, found))
    if "watch" in about:
        wanted, found = (re.sub(r"\d+(\.\d+)?", "#", text) for text in (wanted, found))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(wanted, found, flags), (about, wanted, found)


def assert_session(directory, block, before, edit):
    """Type the commands of a block of console, and compare what they print with what stands below."""
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, wanted = part.partition("\n")
        script = edit("\n".join(before + [command]))
        status, found = typed(directory, script)
        assert status == 0, (script, found)
        found = found.replace("flows%d" % RUN, "flows").replace("\r\x1b[K", "")  # of progress
        assert_shown(wanted, found, command)
        if "() {" in command:
            before.append(command)


@kernel
def test_the_examples_of_the_readme_run(bpffs, capsys):
    examples = readme_blocks("python")
    pin = os.path.join(bpffs, "flows")
    with Map.create(HASH, Key, Value, 4) as m:
        m[struct.pack(">IHH", 0x0A000007, 443, 6)] = Value(1284, 0)
        m.pin(pin)
        for example in examples:
            exec(example.replace("/sys/fs/bpf/flows", pin), {"__name__": "example"})
    printed = capsys.readouterr().out
    for example in examples:
        for line in example.splitlines():
            if line.startswith("# {"):
                assert line[2:] in printed.splitlines()
    assert re.match(r"1284\nBPF_MAP_LOOKUP_ELEM on map \d+ .*: no such key: ", printed)
    assert "3 384 48\n" in printed and printed.endswith("42 8 64\n")


# somebody who updates an entry of the recipes' map again and again
COUNTING = (
    "(n=3; while bpflookup map update name flows key saddr=10.0.0.9,dport=53,proto=17"
    " value packets=$n,bytes=$((n * 90)); do n=$((n + 1)); done) & "
)


@once
@kernel
def test_the_recipes_of_the_readme_run_and_print_what_stands_there(bpffs, readme_directory):
    name, before, seen = "flows%d" % RUN, [], 0
    edit = lambda text: (
        text.replace("/sys/fs/bpf/flows", bpffs + "/flows")
        .replace("name flows", "name " + name)
        .replace(" once", " interval 3 once")
    )
    for block in readme_blocks("console"):
        if "name flows" not in block and "/sys/fs/bpf/flows" not in block:
            continue
        seen += 1
        if "watch" in block:  # somebody counts meanwhile
            block = block.replace("$ bpflookup", "$ " + COUNTING + "bpflookup", 1)
            block = block.replace("once\n", "once; kill $!\n", 1)
        assert_session(readme_directory, block, before, edit)
    assert seen >= 6 and not os.path.exists(bpffs + "/flows")


@kernel
def test_the_pictures_of_the_readme_are_what_is_printed(readme_maps, readme_directory):
    blocks = [
        block for block in readme_blocks("console") if re.search("name (conntrack|hists)", block)
    ]
    assert len(blocks) == 2
    program("bpftool")
    for block in blocks:
        assert_session(readme_directory, block, [], readme_maps[1])


@kernel
def test_the_readme_looks_at_events(ring_programs, readme_directory):
    (block,) = [block for block in readme_blocks("console") if "map events" in block]
    command, _, wanted = block[2:].partition("\n")
    command = command.replace("name events", "pinned " + ring_programs("events"))
    over, batches = threading.Event(), []

    def produce():
        while not over.wait(0.2):
            ring_programs.run("produce", 14)  # of which one is discarded twice, one another type
            batches.append(14)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        status, found = typed(readme_directory, command)
    finally:
        over.set()
        producer.join()
    assert status == 0, found
    within = lambda found: "n=%d" % (int(found.group(1)) % 14)
    found = re.sub(r"\bn=(\d+)", within, re.sub(r"cpu=\d+", "cpu=1", found))
    assert_shown(wanted, found, command)
    with Map.from_pin(ring_programs("events"), mode="rw") as ring, ring.records() as records:
        assert len(records.read(0)) == 12 * len(batches)  # nothing was taken


@kernel
def test_the_commands_of_the_readme_run(readme_maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, by_id = readme_maps
    lines = [line for block in readme_blocks("sh")[2:] for line in block.splitlines()]
    assert len(lines) > 20 and all(line.startswith("python3 bpflookup.py ") for line in lines)
    for line in lines:
        line = by_id(line).replace("once", "once interval 0.1")
        status, out, err = main(*shlex.split(line, comments=True)[2:])
        assert status == 0 and err.count("\n") <= 1, (line, out, err)
        assert out or re.search("map (update|save|events)", line), line


def written_for_other_tools():
    """Return the code in the right-hand columns of "If you know bpftool, BCC or cilium/ebpf"."""
    section = readme().split("## If you know bpftool, BCC or cilium/ebpf\n")[1].split("\n## ")[0]
    rows = [line.replace(r"\|", "/") for line in section.splitlines() if line[:3] == "| `"]
    return [code for row in rows for code in re.findall("`([^`]+)`", row.split("|")[2])]


def exec_of_the_readme(code, path):
    """Run a line of the README on a fresh map: an array where memory is mapped, or a ring buffer."""
    code = code.replace('m.records("struct event")', "m.records().read(0)").replace(
        ".read()", ".read(0)"
    )
    code = code + ": pass" if code.startswith("for ") and not code.endswith("...") else code
    if "mmap" in code:
        make = lambda: Map.create(ARRAY, u32, Value, 4, flags=bpf.BPF_F_MMAPABLE)
    else:
        make = a_ring if "records" in code else lambda: Map.create(HASH, u32, Value, 4)
    with make() as m, Map.create(bpf.BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, 4) as percpu:
        if "m.pin" not in code:
            m.pin(path)
        keys, values = [1, 2], [Value(3, 4), Value(5, 6)]
        if m.key_size:
            m.update_batch(keys, values)
        names = dict(vars(bpf), m=m, percpu=percpu, path=path, key=1, value=Value(7, 8))
        names.update(keys=keys, values=values, BPF_NOEXIST=0, btf=BTF.from_vmlinux())
        try:
            exec(code.replace("from_id(5)", "from_id(%d)" % m.id), names)
        finally:
            os.unlink(path)


@kernel
def test_what_the_readme_writes_for_users_of_other_tools_runs(readme_maps, bpffs):
    made, by_id = readme_maps
    path, count = os.path.join(bpffs, "m"), 0
    for code in written_for_other_tools():
        if code.startswith("bpflookup "):
            words = by_id(code) + (" once interval 0.1" if " watch " in code else "")
            assert main(*shlex.split(words)[1:])[0] == 0, code
        elif code.startswith("-"):
            assert code.partition(" ")[0] + (" " if " " in code else "") in done("--help"), code
        elif code.startswith("except "):
            assert issubclass(getattr(bpf, code.split()[1]), bpf.BPFError)
        else:
            exec_of_the_readme(by_id(code), path)
        count += 1
    assert count > 35


def test_the_readme_names_everything_public():
    names = [name for name in bpf.__all__ if not name.startswith(("BPF_", "BTF_KIND"))]
    text = readme()
    unnamed = [name for name in names if not re.search(r"\b%s\b" % name, text)]
    assert not unnamed
    for option in re.findall(r"^  (-.*?)(?:  |$)", done("--help"), re.M):
        for word in re.findall(r"--?[a-z-]+", option):
            assert re.search(r"`%s[` ]" % word, text), word
    for command_name in bpf._COMMANDS:
        assert re.search(r"`%s`|\b%s " % (command_name, command_name), text), command_name


def test_the_file_runs_by_its_first_line(tmp_path):
    with open(MODULE) as file:
        assert file.readline() == "#!/usr/bin/env python3\n"
    assert os.stat(MODULE).st_mode & 0o111 == 0o111
    # as ansible's script module runs a copy of it
    (tmp_path / "python3").symlink_to(sys.executable)
    path = "%s:%s" % (tmp_path, os.environ["PATH"])
    out = run(MODULE, "--version", env=dict(os.environ, PATH=path))
    assert out == (0, "bpflookup %s\n" % bpf.__version__, "")


@kernel
def test_many_hosts_one_of_them_dead(tmp_path):
    lines = [line for line in readme_block("xargs").splitlines() if line]
    shutil.copy(MODULE, str(tmp_path / "bpflookup.py"))
    (tmp_path / "hosts").write_text("one\ndead\ntwo\nwithout-the-map\nlast\n")
    (tmp_path / "ssh").write_text(
        '#!/bin/sh\nwhile [ "$1" = -o ]; do shift 2; done\nhost=$1; shift\n'
        '[ $host != dead ] || exit 255\n[ $host != without-the-map ] || set -- false\nexec "$@"\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    name = "hosts_%d" % RUN
    with Map.create(HASH, u32, u32, 2, name=name) as m:
        m[1] = 2
        script = "\n".join(lines).replace("name flows", "name " + name)
        path = "%s:%s" % (tmp_path, os.environ["PATH"])
        status, out, err = run(
            program("bash"), "-c", script, cwd=str(tmp_path), env=dict(os.environ, PATH=path)
        )
    assert (status, out) == (123, "") and "dead failed" in err and "without-the-map failed" in err
    found = {one.name: one.read_text() for one in tmp_path.glob("*.*") if one.suffix != ".py"}
    line = '{"key":[1,0,0,0],"value":[2,0,0,0]}\n'
    if sys.byteorder == "little":
        assert found == {host + ".ndjson": line for host in ("one", "two", "last")}


def test_the_readmes_zipapp_keeps_the_status(tmp_path):
    shutil.copy(MODULE, str(tmp_path / "bpflookup.py"))
    (tmp_path / "python3").symlink_to(sys.executable)
    env = dict(os.environ, PATH="%s:%s" % (tmp_path, os.environ["PATH"]))
    assert run(program("sh"), "-ec", readme_block("zipapp"), cwd=str(tmp_path), env=env)[0] == 0
    for words, status in ((["--version"], 0), (["nonsense"], 2), (["--from", "/no", "dump"], 1)):
        assert run(tmp_path / "bpflookup.pyz", *words, env=env)[0] == status


@once
def test_every_pipe_of_the_readme_reads_the_program_at_once():
    lines = [
        line for line in readme().splitlines() if "< bpflookup.py" in line or "python3 -" in line
    ]
    assert len([line for line in lines if "python3 -E -" in line]) >= 3
    assert not [line for line in lines if re.search(r"python3 - ", line)]


def test_a_python_without_ctypes_is_told_what_to_install():
    code = "import sys; sys.modules['_ctypes'] = None; sys.argv[0] = 'x'\n"
    code += "import runpy; runpy.run_path(%r, run_name=%r)"
    status, out, err = run(sys.executable, "-c", code % (MODULE, "__main__"))
    assert (status, out, err.count("\n")) == (1, "", 1) and "install python3" in err
    status, out, err = run(sys.executable, "-c", code % (MODULE, "bpflookup"))
    assert (
        status == 1
        and "install python3" in err.splitlines()[-1]
        and "ImportError" in err
        or ("ModuleNotFoundError" in err)
    )


STDLIB = os.path.dirname(os.path.realpath(os.__file__))


def initramfs(root, rows):
    """Copy this Python, its libraries and what some rows of the README's table name to a directory; return its path."""
    copied = set()

    def copy(path):
        if path not in copied:
            copied.add(path)
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            shutil.copy(path, root + path)
            if path.endswith(".so") or path == interpreter:
                for library in re.findall(r"(/\S+) \(0x", run(program("ldd"), path)[1]):
                    copy(library)

    interpreter = os.path.realpath(sys.executable)
    copy(interpreter)
    for name in itertools.chain.from_iterable(rows):
        for path in glob.glob(os.path.join(STDLIB, name)) + glob.glob(
            os.path.join(STDLIB, "lib-dynload", name)
        ):
            if os.path.isfile(path):
                copy(os.path.realpath(path))
                continue
            for directory, _, names in os.walk(path):
                for one in names:
                    if one.endswith(".py"):
                        copy(os.path.join(os.path.realpath(directory), one))
    shutil.copy(MODULE, root + "/bpflookup.py")
    return interpreter


# rows of the README's table -> commands that run with them, and what they print
BARE = [
    ("map show", "w_hash"),
    ("--help", "usage: "),
    ("map dump M", "01 02 03 04 05"),
    ("--hex map dump W", "value: "),
    ("map dump W", ": "),
    ("map show M", "w_plain"),
    ("map lookup M key 6 0 0 0", "06 00 00 00: 01 02 03 04 05"),
    ("map lookup M key 6", "06 00 00 00: 01 02 03 04 05"),
    ("map getnext M", "next key: 06 00 00 00"),
    ("map update M key hex 07000000 value 1 2 3 4 5", ""),
    ("map delete M key 7 0 0 0", ""),
    ("map layout M", "keys of 4 bytes"),
    ("--trace map show M", "w_plain"),
    ("probe", "map type hash"),
]


TYPES = [
    ("map dump W", "proto=TCP"),
    ("map layout W", "proto: enum"),
    ("--metrics dump C", "# EOF"),
    ("map lookup W key src=0x0100007f,port=443,proto=6", "proto=TCP"),
]


WITH_JSON = [
    ("-j map show", '"w_hash"'),
    ("-j map dump W", '"formatted"'),
    ("--ndjson map dump W", '"proto":"TCP"'),
    ("-p map lookup M key 6 0 0 0", '"0x06"'),
    ("--key-type u32 --value-type u8[5] dump M", "6: [1 2 3 4 5]"),
]


ADDRESSES = [
    ("lookup W key src=127.0.0.1,port=443,proto=6", "proto=TCP"),
    ("lookup L key 10.1.2.0/24", "-5"),
]


CAPTURES = [("map save W /capture", "entries"), ("--from /capture map dump", "proto=TCP")]


RINGS = [("map events R timeout 0", "")]


TIERS = [BARE, TYPES, WITH_JSON, ADDRESSES, CAPTURES, RINGS]


# Run the command lines of /lines, each in a child that finds the module compiled; what they answer goes into files.
EACH_IN_A_CHILD = """
import os, sys
sys.path.insert(0, "/")
import bpflookup
with open("/lines") as file:
    lines = file.read().splitlines()
for at, line in enumerate(lines):
    pid = os.fork()
    if pid == 0:
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open("/%s%d" % (name, at), os.O_CREAT | os.O_WRONLY, 0o644), fd)
        sys.exit(bpflookup.main(line.split("\\0")))
    status = os.waitpid(pid, 0)[1]
    with open("/status%d" % at, "w") as file:
        file.write(str(status >> 8 if status & 255 == 0 else -status))
"""


@kernel
@pytest.mark.parametrize("count", range(1, len(TIERS) + 1))
def test_an_initramfs_with_the_readmes_list_works(count, pins, tmp_path):
    if os.geteuid() or sysconfig.get_config_var("Py_GIL_DISABLED"):
        lacking("chroot(2)")
    table = readme().split("| for | files, folders |")[1].split("\n\n")[0]
    rows = [
        re.findall(r"`([^`]+)`", line.split("|")[2])[0].split() for line in table.splitlines()[2:]
    ]
    assert len(rows) == len(TIERS)
    interpreter = initramfs(str(tmp_path), rows[:count])
    maps = {}
    for short, name in (("M", "w_plain"), ("W", "w_hash"), ("L", "w_lpm"), ("C", "w_pc_array")):
        with Map.from_pin(os.path.join(pins, name)) as m:
            maps[short] = ["id", str(m.id)]
    ring = a_ring()
    maps["R"] = ["id", str(ring.id)]
    bare = [program("chroot"), tmp_path, interpreter, "-S", "-E"]
    assert run(*bare, "/bpflookup.py", "map", "show", *maps["M"])[0] == 0  # as a script
    lines, typed = TIERS[count - 1] + [tier[0] for tier in TIERS[count:]], []
    for line, _ in lines:
        words = [one for word in line.split() for one in maps.get(word, [word])]
        typed.append("\0".join(words))
    (tmp_path / "lines").write_text("\n".join(typed))
    (tmp_path / "each.py").write_text(EACH_IN_A_CHILD)  # a file: 3.13 imports linecache for -c
    assert run(*bare, "/each.py") == (0, "", "")
    for at, (line, wanted) in enumerate(lines):
        answer = [
            (tmp_path / ("%s%d" % (name, at))).read_text() for name in ("status", "out", "err")
        ]
        status, out, err = answer
        if at < len(TIERS[count - 1]):
            untyped = line == "map dump W"  # the one line that tells why, and with types that of -j
            assert status == "0" and wanted in out, (line, answer)
            assert "--trace" in line or err.count("\n") == untyped, (line, answer)
        else:  # what is missing is told in a line
            assert "Traceback" not in err and err.count("\n") == 1, answer
            assert status == "0" or "No module named" in err, answer


# ---- Bench: ratios in one run (pytest -m bench -s) --------------------------
# Not run by default.  Each prints what it measures beside a floor, and fails where a ratio is not reached.


def best(functions, rounds=7, pieces=20):
    """Time functions of a piece number in turns; return the least seconds for all pieces of each.

    Taking turns piece by piece lets a machine that changes its speed meanwhile slow all of them alike.
    """
    totals = [[0.0] * pieces for _ in functions]
    for turn in range(rounds):
        for piece in range(pieces):
            for index, function in enumerate(functions):
                start = time.perf_counter()
                function(piece)
                spent = time.perf_counter() - start
                kept = totals[index][piece]
                totals[index][piece] = spent if turn == 0 else min(kept, spent)
    return [sum(spent) for spent in totals]


def million():
    """A hash map of 1 M entries, u32 keys 0..999,999, Value(key, ~key)."""
    count = 1000000
    m = Map.create(HASH, u32, Value, count, name="million")
    keys = (u32 * count)(*range(count))
    values = (Value * count)(*[(key, ~key & 0xFFFFFFFF) for key in range(count)])
    attr = bpf.bpf_attr()
    attr.batch.keys, attr.batch.values = ctypes.addressof(keys), ctypes.addressof(values)
    attr.batch.count, attr.batch.map_fd = count, m.fd
    bpf_call(bpf.BPF_MAP_UPDATE_BATCH, attr)
    return m


def report(rows, floor, per):
    """Print how long each of the rows took, and its ratio to the floor."""
    for name, seconds, target in rows:
        print(
            "  %-28s %7.0f ns  %5.2f x the first%s"
            % (
                name,
                seconds / per * 1e9,
                seconds / floor,
                "" if target is None else "  (to reach: %.2f)" % target,
            )
        )


# -- calls, scans, memory


def lookup_loops(m):
    """Return the loops over lookups that are compared with BCC."""
    return [call_loop(m, SINGLE_CALLS[name][1], u32, None) for name in ("lookup", "lookup_into")]


class Number(ctypes.Structure):
    """A key that is a structure."""

    _fields_ = [("number", u32)]


def element_attr_size(cmd):
    """Return how many bytes of bpf_attr an element command takes: what follows must be zero."""
    fields = bpf.bpf_attr_elem
    return fields.value.offset if cmd == bpf.BPF_MAP_DELETE_ELEM else ctypes.sizeof(fields)


def floor_loop(m, cmd, key_type, back=None):
    """Return the fastest plain ctypes loop for a command: prebuilt buffers, one field read.

    back: a command that is run after each, to leave the map as it was.
    """
    syscall = ctypes.CDLL(None).syscall
    syscall.restype = ctypes.c_long
    key, value, attr, second = key_type(), Value(), bpf.bpf_attr_elem(), bpf.bpf_attr_elem()
    for one in (attr, second):
        one.map_fd, one.key, one.value = m.fd, ctypes.addressof(key), ctypes.addressof(value)
    ref, number = ctypes.byref(attr), bpf.syscall_number()
    size, field = element_attr_size(cmd), "value" if key_type is u32 else "number"
    source = "def loop(piece):\n    for x in range(piece * 10000, piece * 10000 + 10000):\n"
    source += "        key.%s = x\n        syscall(number, %d, ref, %d)\n" % (field, cmd, size)
    if cmd in (LOOKUP, bpf.BPF_MAP_LOOKUP_AND_DELETE_ELEM):
        source += "        value.packets\n"
    if back is not None:
        source += "        syscall(number, %d, other, %d)\n" % (back, element_attr_size(back))
    names = dict(key=key, value=value, ref=ref, syscall=syscall, number=number)
    names["other"] = ctypes.byref(second)
    assert syscall(number, cmd, ref, size) == 0  # one that fails at once is no floor
    assert back is None or syscall(number, back, names["other"], element_attr_size(back)) == 0
    exec(source, names)
    return names["loop"]


# method -> its command, the loop's body, what puts back what it removed
SINGLE_CALLS = {
    "lookup": (LOOKUP, "m.lookup(KEY).packets", None),
    "[]": (LOOKUP, "m[KEY].packets", None),
    "get": (LOOKUP, "m.get(KEY).packets", None),
    "in": (LOOKUP, "KEY in m", None),
    "lookup_bytes": (LOOKUP, "m.lookup_bytes(KEY)", None),
    "lookup_into": (LOOKUP, "m.lookup_into(KEY, out); out.packets", None),
    "update": (bpf.BPF_MAP_UPDATE_ELEM, "m.update(KEY, out)", None),
    "[] =": (bpf.BPF_MAP_UPDATE_ELEM, "m[KEY] = out", None),
    "delete": (bpf.BPF_MAP_DELETE_ELEM, "m.delete(KEY)", bpf.BPF_MAP_UPDATE_ELEM),
    "del": (bpf.BPF_MAP_DELETE_ELEM, "del m[KEY]", bpf.BPF_MAP_UPDATE_ELEM),
    "lookup_and_delete": (
        bpf.BPF_MAP_LOOKUP_AND_DELETE_ELEM,
        "m.lookup_and_delete(KEY).packets",
        bpf.BPF_MAP_UPDATE_ELEM,
    ),
}


def call_loop(m, body, key_type, back):
    """Return the same loop over a method; back is run as the floor runs it."""
    key, out, attr = key_type(), Value(), bpf.bpf_attr_elem()
    syscall = ctypes.CDLL(None).syscall
    syscall.restype = ctypes.c_long
    attr.map_fd, attr.key, attr.value = m.fd, ctypes.addressof(key), ctypes.addressof(out)
    source = "def loop(piece):\n    for x in range(piece * 10000, piece * 10000 + 10000):\n"
    if key_type is not u32 or back is not None:
        source += "        key.%s = x\n" % ("value" if key_type is u32 else "number")
    source += "        %s\n" % body.replace("KEY", "x" if key_type is u32 else "key")
    if back is not None:
        source += "        syscall(number, %d, other, %d)\n" % (back, element_attr_size(back))
    names = dict(m=m, key=key, out=out, syscall=syscall, number=bpf.syscall_number())
    names.update(other=ctypes.byref(attr), attr=attr)
    exec(source, names)
    return names["loop"]


@kernel
@pytest.mark.bench
@pytest.mark.parametrize("key_type", [u32, Number])
def test_bench_single_calls_against_their_ctypes_floors(key_type):
    """Every method beside the loop of its command; those that remove put the entry back, at the same price in both."""
    print("\nsingle calls, hash of 1 M entries, %s keys" % ("int" if key_type is u32 else "struct"))
    with million() as owner, Map.from_fd(owner, key_type, Value) as m:
        for name, (cmd, body, back) in SINGLE_CALLS.items():
            loops = [floor_loop(m, cmd, key_type, back), call_loop(m, body, key_type, back)]
            if back is not None:  # what the putting back takes is no part of the call
                loops.append(floor_loop(m, back, key_type))
            floor, spent, putting = (best(loops, pieces=10) + [0.0])[:3]
            ratio = (spent - putting) / (floor - putting)
            wanted = 1.2 if name == "lookup_into" else 1.4
            print(
                "  %-18s %5.0f ns, floor %5.0f ns: %.2f x  (to reach: %.1f)"
                % (name, (spent - putting) * 1e4, (floor - putting) * 1e4, ratio, wanted)
            )


BCC = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
import test_bpflookup as t
from bcc.table import HashTable

with t.million() as m:
    table = HashTable.__new__(HashTable)       # its constructor wants a program that BCC compiled
    table.map_fd, table.Key, table.Leaf = m.fd, t.u32, t.Value
    u32 = t.u32
    assert table[u32(5)].packets == 5 == m[5].packets

    def by_bcc(piece):
        for x in range(piece * 10000, piece * 10000 + 10000):
            table[u32(x)].packets
    print(*t.best([by_bcc] + t.lookup_loops(m)))
"""


@kernel
@pytest.mark.bench
def test_bench_lookup_against_bcc():
    status, out, err = run("/usr/bin/python3", "-c", "import bcc.table, pytest")
    if status:
        pytest.skip("python3-bpfcc and python3-pytest are needed")
    status, out, err = run("/usr/bin/python3", "-c", BCC, HERE, timeout=600)
    assert status == 0, err
    bcc, lookup, into = map(float, out.split())
    print("\nthe same map through BCC")
    report(
        [
            ("BCC table[u32(key)]", bcc, None),
            ("m.lookup(int) -> Structure", lookup, 1),
            ("m.lookup_into(int, out)", into, 1),
        ],
        bcc,
        200000,
    )
    assert lookup < bcc and into < bcc


C_SCANS = r"""
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static long bpf(int cmd, union bpf_attr *attr, unsigned size) { return syscall(SYS_bpf, cmd, attr, size); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
int main(int argc, char **argv) {
    unsigned size = atoi(argv[3]), key, next, cursor, total = 0;
    struct { unsigned long long packets, bytes; } value, *values = malloc(16ul * size);
    unsigned *keys = malloc(4ul * size);
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_id = atoi(argv[1]);
    int fd = bpf(BPF_MAP_GET_FD_BY_ID, &attr, 12);
    memset(keys, 1, 4ul * size);
    memset(values, 1, 16ul * size);
    double start = now();
    if (!strcmp(argv[2], "batch")) {
        for (int first = 1;; first = 0) {
            memset(&attr, 0, sizeof attr);
            attr.batch.in_batch = first ? 0 : (unsigned long)&cursor;
            attr.batch.out_batch = (unsigned long)&cursor;
            attr.batch.keys = (unsigned long)keys;
            attr.batch.values = (unsigned long)values;
            attr.batch.count = size;
            attr.batch.map_fd = fd;
            long result = bpf(BPF_MAP_LOOKUP_BATCH, &attr, 56);
            total += attr.batch.count;
            if (result) break;
        }
    } else {
        for (int first = 1;; first = 0) {
            memset(&attr, 0, sizeof attr);
            attr.map_fd = fd;
            attr.key = first ? 0 : (unsigned long)&key;
            attr.next_key = (unsigned long)&next;
            if (bpf(BPF_MAP_GET_NEXT_KEY, &attr, 32)) break;
            key = next;
            attr.key = (unsigned long)&key;
            attr.value = (unsigned long)&value;
            if (!bpf(BPF_MAP_LOOKUP_ELEM, &attr, 32)) total++;
        }
    }
    printf("%.9f %u\\n", now() - start, total);
}
"""


@kernel
@pytest.mark.bench
def test_bench_scans_against_c_and_bpftool(tmp_path):
    (tmp_path / "scans.c").write_text(C_SCANS.replace("\\\\", "\\"))
    status, _, err = run(
        program("gcc"), "-O2", "-w", "-o", tmp_path / "scans", tmp_path / "scans.c"
    )
    assert status == 0, err
    rows = {}
    with million() as m:
        room = m._entries_per_batch(None)

        def timed(name, function):
            start = time.perf_counter()
            seconds = function() or time.perf_counter() - start
            rows[name] = min(seconds, rows.get(name, seconds))

        def c(how):
            seconds, total = run(tmp_path / "scans", m.id, how, room)[1].split()
            assert int(total) == 1000000
            return float(seconds)

        def batches():
            assert sum(len(keys) for keys, _ in m.lookup_batch()) == 1000000

        def items():
            for _ in m.items():
                pass

        for _ in range(7):
            timed("C LOOKUP_BATCH", lambda: c("batch"))
            timed("m.lookup_batch()", batches)
            timed("m.items(), typed", items)
        for _ in range(3):
            timed("C next_key + lookup", lambda: c("walk"))
        timed(
            "bpftool -j map dump, process",
            lambda: run(program("bpftool"), "-j", "map", "dump", "id", m.id) and None,
        )
    print("\nscan of a hash of 1 M entries, %d a batch" % room)
    c_batch, c_walk = rows["C LOOKUP_BATCH"], rows["C next_key + lookup"]
    targets = {"m.lookup_batch()": 1.05, "m.items(), typed": c_walk / c_batch}
    report([(name, seconds, targets.get(name)) for name, seconds in rows.items()], c_batch, 1000000)
    assert rows["m.lookup_batch()"] <= 1.05 * c_batch and rows["m.items(), typed"] < c_walk


@kernel
@pytest.mark.bench
def test_bench_mapped_reads():
    with pages(u64, 1000) as m, m.mmap() as mapped:

        def reads(_):
            for index in range(1000):
                mapped[index]

        def empty(_):
            for index in range(1000):
                pass

        reading, looping = best([reads, empty])
    print("\nmapped scalar: %.0f ns a read  (to reach: 150)" % ((reading - looping) / 20000 * 1e9))
    assert (reading - looping) / 20000 <= 150e-9


@kernel
@pytest.mark.bench
def test_bench_memory_of_a_scan():
    status, out, err = python(
        """
        import ctypes
        import bpflookup as bpf
        count = 10000000
        def peak():
            with open("/proc/self/status") as file:
                return int(file.read().split("VmHWM:")[1].split()[0]) / 1024
        bare = peak()
        with bpf.Map.create(bpf.BPF_MAP_TYPE_HASH, ctypes.c_uint32, ctypes.c_uint64, count) as m:
            for start in range(0, count, 100000):
                numbers = range(start, start + 100000)
                m.update_batch((ctypes.c_uint32 * 100000)(*numbers), (ctypes.c_uint64 * 100000)(*numbers))
            seen = 0
            for key, value in m.items():
                seen += key == value
            assert seen == count, seen
            print(peak() - bare)
    """,
        timeout=600,
    )
    assert status == 0, err
    print(
        "\nitems() over 10 M entries: %.0f MiB above the interpreter, filling included  (to reach: 64)"
        % float(out)
    )
    assert float(out) <= 64


RING_BY_BCC = """
import ctypes, sys, time
from bcc.libbcc import lib, _RINGBUF_CB_TYPE

class Eight(ctypes.Structure):
    _fields_ = [("number", ctypes.c_uint64), ("n", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 6)]

count = total = 0

def callback(context, data, size):     # as BCC has a table's event(data) do
    global count, total
    total += ctypes.cast(data, ctypes.POINTER(Eight)).contents.n
    count += 1
    return 0

kept = _RINGBUF_CB_TYPE(callback)
manager = lib.bpf_new_ringbuf(int(sys.argv[1]), kept, None)
start = time.perf_counter()
lib.bpf_consume_ringbuf(manager)
print(time.perf_counter() - start, total)
assert count == int(sys.argv[2])
"""


def read_for_time(ring, count, value, use):
    """Return the seconds that reading so many records takes, and what use(batch) adds up to."""
    with ring.records(value) as records:
        start, seen, total = time.perf_counter(), 0, 0
        while seen < count:
            batch = records.read(0)
            seen += len(batch)
            total += use(batch)
        return time.perf_counter() - start, total


def loop_for_time(ring, count, value):
    """Return the seconds that a loop over so many records takes, and what it adds up to."""
    with ring.records(value) as records:
        start, total = time.perf_counter(), 0
        for record in itertools.islice(records, count):
            total += record.n
        return time.perf_counter() - start, total


@pytest.mark.bench
def test_bench_ring_buffer(libbpf_reader):
    """Records of 64 bytes, one field of each added up, beside C with libbpf and beside BCC."""
    count, reader = 200000, bpf.layout(Eight).reader("plain")
    pattern = struct.Struct("=8Q")
    with a_ring(1 << 24) as ring:

        def in_c():
            seconds, total = run(libbpf_reader, ring.fd, count, "quiet", pass_fds=[ring.fd])[
                1
            ].split()
            return float(seconds), int(total)

        def by_bcc():
            words = ["/usr/bin/python3", "-c", RING_BY_BCC, ring.fd, count]
            seconds, total = run(*words, pass_fds=[ring.fd])[1].split()
            return float(seconds), int(total)

        def tuples(batch):
            return sum([row[1] for row in pattern.iter_unpack(b"".join(batch))])

        ways = {
            "C, libbpf": in_c,
            "read(), bytes": lambda: read_for_time(
                ring, count, None, lambda batch: sum(map(len, batch))
            ),
            "read(), tuples by struct": lambda: read_for_time(ring, count, None, tuples),
            "read(), objects": lambda: read_for_time(
                ring, count, Eight, lambda batch: sum([one.n for one in batch])
            ),
            "a loop over objects": lambda: loop_for_time(ring, count, Eight),
            "read(), dicts by Layout": lambda: read_for_time(
                ring,
                count,
                None,
                lambda batch: sum([one["n"] for one in reader.read(b"".join(batch))]),
            ),
        }
        if run("/usr/bin/python3", "-c", "import bcc")[0] == 0:
            ways["BCC, ring_buffer_consume"] = by_bcc
        best_of = dict.fromkeys(ways, 9e9)
        for _ in range(5):
            for name, way in ways.items():
                recorder = Recorder(ring, kind="fixed")
                recorder.run(count)
                seconds, total = way()
                assert total in (sum(range(count)), 64 * count)
                best_of[name] = min(best_of[name], seconds)
    print("\nrecords of 64 bytes, one field of each added up")
    for name, seconds in best_of.items():
        words = (name, seconds / count * 1e9, count / seconds / 1e6)
        print("%-26s %7.0f ns a record  %6.2f M/s" % words)
    assert best_of["read(), objects"] < best_of.get("BCC, ring_buffer_consume", 9)


# -- whole-map output: types x formats x sizes, beside bpftool

SCALE = float(os.environ.get("BPFLOOKUP_BENCH_SCALE", "1"))  # more entries, more time


def bench_types():
    """Return (BTF that the kernel holds, {name: type id}) of the keys and values of the matrix."""
    b = Blob(sys.byteorder)
    u64s, u32s, u16s, u8s = [b.int("u%d" % (8 * size), size) for size in (8, 4, 2, 1)]
    char, s64 = b.int("char", 1, 1), b.int("s64", 8, 1)
    bytes16, comm, hits = b.array(u8s, 16), b.array(char, 16), b.array(u32s, 4)
    address = b.union("address", 16, ("ip6", bytes16, 0), ("ip4", u32s, 0))
    state = b.enum("state", 4, [("NEW", 0), ("ESTABLISHED", 1), ("CLOSING", 2)])
    inner = b.struct("inner", 24, ("hits", hits, 0), ("delta", s64, 128))
    names = {"u64": u64s, "u32": u32s}
    names["pair"] = b.struct("pair", 16, ("packets", u64s, 0), ("bytes", u64s, 64))
    ports = ("sport", u16s, 256), ("dport", u16s, 272), ("proto", u8s, 288), ("family", u8s, 296)
    ends = ("src", address, 0), ("dst", address, 128)
    names["conn_key"] = b.struct("conn_key", 40, *ends, *ports, ("pad", u16s, 304))
    counts = ("packets", u64s, 0, 0), ("bytes", u64s, 64, 0), ("last_seen", u64s, 128, 0)
    bits = ("syn", u32s, 224, 1), ("fin", u32s, 225, 1), ("rst", u32s, 226, 1)
    rest = ("rest", u32s, 227, 29), ("comm", comm, 256, 0), ("in", inner, 384, 0)
    conn = counts + (("st", state, 192, 0),) + bits + rest
    names["conn"] = b.struct("conn", 72, *conn)
    names["task"] = b.struct("task", 20, ("comm", comm, 0), ("st", state, 128))
    names["wide"] = b.struct("wide", 4096, ("slots", b.array(u64s, 512), 0))
    names["slot"] = b.struct("slot", 8, ("group", u32s, 0), ("slot", u32s, 32))
    names["lpm"] = b.struct("lpm", 8, ("prefixlen", u32s, 0), ("data", b.array(u8s, 4), 32))
    return b, names


def conn_entries(count, rng):
    """Return the keys and values of count connections."""
    keys = b"".join(struct.pack("=Q", index) + b"\7" * 32 for index in range(count))
    value = struct.Struct("=QQQII16s4Iq")
    values = [
        value.pack(index, index * 99, rng.getrandbits(60), index % 3, index, b"nginx: worker", 1, 2, 3, 4, -index)
        for index in range(count)
    ]  # fmt: skip
    return keys, b"".join(values)


def pair_entries(count, rng):
    """Return the keys, u64, and the values of count pairs."""
    numbers = [rng.getrandbits(48) for _ in range(2 * count)]
    return struct.pack("=%dQ" % count, *range(count)), struct.pack("=%dQ" % len(numbers), *numbers)


def percpu_entries(count, rng):
    """Return the keys and values of count pairs, each the same on all CPUs."""
    keys, values = pair_entries(count, rng)
    cpus = len(bpf.possible_cpus())
    return keys, b"".join([values[at : at + 16] * cpus for at in range(0, len(values), 16)])


def array_entries(size):
    """Return f(count, rng) that makes the entries of an array with values of size random bytes."""

    def entries(count, rng):
        values = rng.getrandbits(8 * size * count).to_bytes(size * count, sys.byteorder)
        return struct.pack("=%dI" % count, *range(count)), values

    return entries


def task_entries(count, rng):
    """Return keys and values of count tasks: a comm and a state."""
    values = [
        struct.pack("=16sI", b"kworker/%d" % (index % 999), index % 3) for index in range(count)
    ]
    return struct.pack("=%dI" % count, *range(count)), b"".join(values)


def lpm_entries(count, rng):
    """Return keys and values of count hosts in 10.0.0.0/8."""
    keys = [struct.pack("=I", 32) + struct.pack(">I", 0x0A000000 + index) for index in range(count)]
    return b"".join(keys), pair_entries(count, rng)[1]


def slot_entries(count, rng):
    """Return what bpftrace's hist() keeps: a count for each of 64 slots of each group."""
    keys = [struct.pack("=II", index // 64, index % 64) for index in range(count)]
    values = struct.pack("=%dQ" % count, *range(count))
    cpus = len(bpf.possible_cpus())
    return b"".join(keys), b"".join([values[at : at + 8] * cpus for at in range(0, len(values), 8)])


def device_entries(count, rng):
    """Return keys and values of a devmap: all are lo."""
    return struct.pack("=%dI" % count, *range(count)), struct.pack("=I", 1) * count  # lo


def bss_map(count, rng):
    """Return the .bss of a program: an array of count pairs and a counter."""
    blob, names = bench_types()
    table = blob.add(blob.VAR, "table", 0, blob.array(names["pair"], count), [1])
    total = blob.add(blob.VAR, "total", 0, names["u64"], [1])
    size = 16 * count + 8
    words = [table, 0, 16 * count, total, 16 * count, 8]
    section = blob.add(blob.DATASEC, ".bss", 2, size, words)
    types = dict(btf=load_btf(blob.data()), btf_key=0, btf_value=section)
    m = Map.create(ARRAY, key_size=4, value_size=size, name="x.bss", **types)
    return put_entries(m, bytes(4), pair_entries(count, rng)[1] + bytes(8))


def put_entries(m, keys, values):
    """Fill a map with joined keys and values; return it."""
    with Map.from_fd(m, bytes, bytes) as raw:
        raw.update_batch(keys, values)
    return m


def matrix_map(map_type, key, value, entries, key_size, value_size, flags=0):
    """Return f(count, rng) that makes a map; key and value are names of types, None: without BTF."""

    def make(count, rng):
        types = dict(key_size=key_size, value_size=value_size, flags=flags, name="matrix")
        if key is not None:
            blob, names = bench_types()
            types.update(btf=load_btf(blob.data()), btf_key=names[key], btf_value=names[value])
        room = 2 * count if map_type == bpf.BPF_MAP_TYPE_LRU_HASH else count
        return put_entries(Map.create(map_type, max_entries=room, **types), *entries(count, rng))

    return make


MATRIX = {  # name: (f(count, rng) that makes the map, entries of the smallest)
    "hash, u64 pair": (matrix_map(HASH, "u64", "pair", pair_entries, 8, 16), 40000),
    "hash, 53 leaves": (matrix_map(HASH, "conn_key", "conn", conn_entries, 40, 72), 12000),
    "array, u32": (matrix_map(ARRAY, "u32", "u32", array_entries(4), 4, 4), 80000),
    "per-CPU hash, pair": (matrix_map(PERCPU_HASH, "u64", "pair", percpu_entries, 8, 16), 20000),
    "LRU hash, pair": (
        matrix_map(bpf.BPF_MAP_TYPE_LRU_HASH, "u64", "pair", pair_entries, 8, 16),
        40000,
    ),
    "hash, no BTF, 16 B": (matrix_map(HASH, None, None, pair_entries, 8, 16), 80000),
    "array, char[16]+enum": (matrix_map(ARRAY, "u32", "task", task_entries, 4, 20), 40000),
    "LPM trie, pair": (matrix_map(LPM, "lpm", "pair", lpm_entries, 8, 16, 1), 20000),
    "devmap": (matrix_map(bpf.BPF_MAP_TYPE_DEVMAP, None, None, device_entries, 4, 4), 40000),
    ".bss, pairs": (bss_map, 20000),
    "array, u64[512]": (matrix_map(ARRAY, "u32", "wide", array_entries(4096), 4, 4096), 200),
}
MATRIX["per-CPU hash, hist"] = (matrix_map(PERCPU_HASH, "slot", "u64", slot_entries, 8, 8), 20000)


def spent(words, rounds=2):
    """Return (the least processor seconds that a program took, its status): others' load counts for less so."""
    seconds, status = [], 0
    with open(os.devnull, "wb") as null:
        for _ in range(rounds):
            child = subprocess.Popen(map(str, words), stdout=null, stderr=null, env=BENCH_ENV)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = status
            seconds.append(used.ru_utime + used.ru_stime)
    return min(seconds), status


# as installed: the module is compiled once
BENCH_ENV = importing()
BENCH_ENV.pop("PYTHONDONTWRITEBYTECODE", None)
BENCH_ENV["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "bpflookup-bench")

# what stands for the map and a capture of it in a row of MATRIX_FORMS
MAP, FILE = object(), object()
MATRIX_FORMS = {  # name: (arguments, what bpftool is asked, times as fast that it has to be)
    "-j": (["-j", "map", "dump", MAP], ["-j"], 1.5),
    "--ndjson": (["--ndjson", "map", "dump", MAP], ["-j"], 1.5),
    "human": (["map", "dump", MAP], [], 1.5),
    "--hex": (["--hex", "map", "dump", MAP], [], 1.5),
    "--metrics": (["--metrics", "map", "dump", MAP], ["-j"], 1),
    "save": (["map", "save", MAP, FILE], ["-j"], 1),
    "--from -j": (["-j", "--from", FILE, "map", "dump"], ["-j"], 1),
    "watch once": (["map", "watch", MAP, "once", "interval", "0.05"], ["-j"], 1),
    "hist": (["map", "--slots", "bpftrace", "hist", MAP], ["-j"], 1),
}


def matrix_row(make, count, path):
    """Return {format: (our seconds, bpftool's, 0 or our status)} of one map."""
    row, theirs = {}, {}
    with make(count, random.Random(count)) as m:
        for asked in ("-j",), ():
            words = [program("bpftool")] + list(asked) + ["map", "dump", "id", m.id]
            theirs[asked] = spent(words)[0]
        stands_for = {id(MAP): ["id", str(m.id)], id(FILE): [path]}
        for name, (arguments, asked, _) in MATRIX_FORMS.items():
            words = [sys.executable, "-m", "bpflookup"]
            for word in arguments:
                words += stands_for.get(id(word), [word])
            seconds, status = spent(words)
            row[name] = seconds, theirs[tuple(asked)], status
    return row


@kernel
@pytest.mark.bench
@pytest.mark.parametrize("name", MATRIX)
def test_bench_whole_maps_against_bpftool(name, tmp_path):
    """Whole processes, as installed (compiled).  x: times as fast as bpftool with 4n entries, and an entry more."""
    make, count = MATRIX[name]
    count = max(int(count * SCALE), 1)
    rows = [matrix_row(make, count * times, str(tmp_path / "capture")) for times in (1, 2, 4)]
    print("\n%-22s n = %d" % (name, count))
    for form, (_, asked, wanted) in MATRIX_FORMS.items():
        (one, _, _), (two, _, _), (four, theirs, status) = [row[form] for row in rows]
        if status:
            print("  %-11s does not apply" % form)
            continue
        entry = (four - one) / (3 * count)
        growth = (four - two) / max(two - one, 1e-9) / 2
        slope = (theirs - rows[0][form][1]) / (3 * count) / max(entry, 1e-9)
        print(
            "  %-11s %6.2f s, bpftool %6.2f s: %5.2f x, an entry more %7.2f us, %5.2f x, growth %.2f%s"
            % (
                form,
                four,
                theirs,
                theirs / four,
                entry * 1e6,
                slope,
                growth,
                "" if theirs / four >= wanted else "  MISSES %.1f" % wanted,
            )
        )


@kernel
@pytest.mark.bench
def test_bench_ndjson_dump_against_bpftool():
    rows = {}
    with million() as m:
        for _ in range(3):
            for name, words in (
                ("bpftool -j map dump", [program("bpftool"), "-j", "map", "dump", "id", str(m.id)]),
                (
                    "--ndjson --value-type ...",
                    [
                        sys.executable,
                        MODULE,
                        "--ndjson",
                        "--key-type",
                        "u32",
                        "--value-type",
                        "u64 packets, u64 bytes",
                        "map",
                        "dump",
                        "id",
                        str(m.id),
                    ],
                ),
            ):
                start = time.perf_counter()
                subprocess.check_call(words, stdout=subprocess.DEVNULL)
                rows[name] = min(time.perf_counter() - start, rows.get(name, 1e9))
    theirs, ours = rows.values()
    print("\ndump of a hash of 1 M entries, whole process, Python %s" % sys.version.split()[0])
    report([(name, seconds, None) for name, seconds in rows.items()], theirs, 1000000)
    print("  %.2f x as fast  (to reach: 2.00)" % (theirs / ours))
    assert theirs / ours >= 2


@kernel
@pytest.mark.bench
def test_bench_one_value_and_one_command():
    """to_python of 53 leaves, and a command whole: as a script, compiled each time, and as installed."""
    make, _ = MATRIX["hash, 53 leaves"]
    with make(16, random.Random(1)) as m:
        value = m.lookup(next(iter(m)))

        def decode(_):
            for _ in range(500):
                bpf.to_python(value)

        (seconds,) = best([decode])
        print("\nto_python of a value of 14 leaves: %.1f us  (to reach: 12)" % (seconds * 100))
        shown = ["map", "show", "id", m.id]
        script = spent([sys.executable, MODULE] + shown, 5)[0]
        installed = spent([sys.executable, "-m", "bpflookup"] + shown, 5)[0]
        theirs = spent([program("bpftool"), "map", "show", "id", m.id], 5)[0]
    words = (script * 1e3, installed * 1e3, theirs * 1e3)
    print("map show: %.0f ms as a script, %.0f ms as installed, bpftool %.0f ms" % words)


DUMP_MEMORY = """
import sys
def peak():
    with open("/proc/self/status") as file:
        return dict(line.split(":") for line in file)["VmHWM"].split()[0]
bare = peak()
import bpflookup as bpf
assert bpf.main(sys.argv[1:]) == 0
print((int(peak()) - int(bare)) / 1024, file=sys.stderr)
"""


@kernel
@pytest.mark.bench
def test_bench_memory_of_dumps():
    """A map that is twice as large takes no more."""
    count = int(2000000 * SCALE)
    for entries in (count, 2 * count):
        make, _ = MATRIX["hash, u64 pair"]
        with make(entries, random.Random(1)) as m:
            for form in ("-j", "--ndjson", "--hex", ""):
                words = [sys.executable, "-c", DUMP_MEMORY] + form.split()
                words += ["map", "dump", "id", str(m.id)]
                done = subprocess.run(
                    words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=BENCH_ENV
                )
                mebibytes = float(done.stderr.split()[-1])
                print(
                    "  %8d entries, %-8s %5.1f MiB above the interpreter"
                    % (entries, form or "human", mebibytes)
                )
                assert mebibytes <= 64


@pytest.mark.bench
def test_bench_one_offset_cold_against_pahole_and_bpftool(vmlinux):
    source = "import bpflookup; print(bpflookup.BTF.from_vmlinux().offsetof('task_struct', 'comm'))"
    blob, env = "/sys/kernel/btf/vmlinux", importing()
    rows = [
        ("offsetof, this module", [sys.executable, "-c", source]),
        ("pahole -C task_struct", [program("pahole"), "-C", "task_struct", blob]),
        (
            "bpftool btf dump, format c",
            [program("bpftool"), "btf", "dump", "file", blob, "format", "c"],
        ),
    ]
    ours, paholes = [run(*words, env=env)[1] for _, words in rows[:2]]
    (line,) = [line for line in paholes.splitlines() if " comm[16];" in line]
    assert int(ours) == int(line.split("/*")[1].split()[0])
    times = best([lambda _, words=words: run(*words, env=env) for _, words in rows], 5, 1)
    print(
        "\noffset of task_struct.comm, whole processes, Python %s  (to reach: 150 ms)"
        % sys.version.split()[0]
    )
    for (name, _), seconds in zip(rows, times):
        print("  %-28s %5.0f ms  %5.2f x the first" % (name, seconds * 1e3, seconds / times[0]))
    assert times[0] <= 0.3


@pytest.mark.bench
def test_bench_import():
    def importing(what):
        def once(_):
            run(
                sys.executable,
                "-S",
                "-E",
                "-c",
                "import sys; sys.path.insert(0, %r); import %s" % (HERE, what),
            )

        return once

    nothing, plain, ours = best(
        [importing("sys"), importing("ctypes"), importing("bpflookup")], 7, 10
    )
    print(
        "\nimport, whole process less an empty one: ctypes %.1f ms, bpflookup %.1f ms, %.2f x  (to reach: 2.50)"
        % ((plain - nothing) * 100, (ours - nothing) * 100, (ours - nothing) / (plain - nothing))
    )
    assert (ours - nothing) / (plain - nothing) <= 2.5
