#!/usr/bin/env python3
"""Verifies evidence bundles of govah, written from docs/formats/bundle-v1.md
and in Python's standard library alone: a second opinion on the first program.

    python3 verify.py [--key KEY] FILE...

Prints what each file states and exits with 0, or with 5 if one does not
verify. It contacts nobody. Proofs that a log holds a bundle are checked by
tlogproof.py.
"""

import argparse
import base64
import hashlib
import re
import struct
import sys
import zlib

import ed25519

CLASSES = ["none", "target", "client", "location", "network", "network-name",
           "foreign", "time", "packet-payload", "rendering"]
HEADER = "govah evidence bundle v1"
MAX_BYTES = 256 << 20
MAX_LEAVES = 1 << 24
MAX_FILES = 1 << 12
SLACK = 512
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class Refused(Exception):
    """The file is no bundle, or was changed."""


def require(condition, why):
    if not condition:
        raise Refused(why)


def sha256(*parts):
    h = hashlib.sha256()
    for p in parts:
        h.update(p)
    return h.digest()


def unbase64(text, length=None):
    """Strict base64: one text for each value."""
    try:
        b = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("no base64: %r" % text)
    require(base64.b64encode(b).decode() == text, "base64 in another form")
    require(length is None or len(b) == length, "no %s bytes" % length)
    return b


# The container.

def headers(name, crc, size, at):
    """The local and the central header that a file must have."""
    common = struct.pack("<HHHHHIIIHH", 10, 0, 0, 0, 33, crc, size, size, len(name), 0)
    return (b"PK\3\4" + common + name,
            b"PK\1\2" + struct.pack("<H", 10) + common + bytes(10) + struct.pack("<I", at) + name)


def container(data):
    """The files of a ZIP file in the one form that a bundle has."""
    require(len(data) <= MAX_BYTES, "too large")
    require(data[:4] == b"PK\3\4", "no bundle")
    files, central, at = [], b"", 0
    while data[at:at + 4] == b"PK\3\4":
        require(len(data) - at >= 30, "cut off at %d" % at)
        crc, size, _, length = struct.unpack_from("<IIIH", data, at + 14)
        require(length <= 100 and len(data) - at - 30 - length >= size, "cut off at %d" % at)
        name = data[at + 30:at + 30 + length]
        require(NAME.fullmatch(name.decode("latin-1")), "a name at %d" % at)
        require(not files or files[-1][0] < name.decode(), "order of names at %d" % at)
        require(len(files) < MAX_FILES, "too many files")
        local, entry = headers(name, crc, size, at)
        require(data[at:at + len(local)] == local, "header at %d" % at)
        value = data[at + len(local):at + len(local) + size]
        require(zlib.crc32(value) == crc, "CRC of %s" % name.decode())
        files.append((name.decode(), value))
        central += entry
        at += len(local) + size
    n = len(files)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, n, n, len(central), at, 0)
    require(data[at:] == central + end, "directory at %d" % at)
    return files


# The note.

def number(text, least, most):
    require(re.fullmatch("0|[1-9][0-9]{0,9}", text), "no number: %r" % text)
    n = int(text)
    require(least <= n <= most, "out of range: %d" % n)
    return n


class Note:
    def __init__(self, data):
        require(len(data) <= 1 << 20, "a note of too many bytes")
        text, blank, signature = data.partition(b"\n\n")
        require(blank, "no signature")
        text += b"\n"
        require(all(b == 10 or 32 <= b <= 126 for b in text), "not printable ASCII")
        self.entry = sha256(data)
        self.read(text.decode())
        self.check(text, signature)

    def read(self, text):
        lines = text.split("\n")[:-1]
        require(lines.pop(0) == HEADER, "another version, or none")

        def take(word):
            if lines and lines[0].startswith(word + " "):
                return lines.pop(0)[len(word) + 1:]
            return None

        self.key = take("key")
        require(self.key is not None, "no key")
        previous = take("previous")
        self.previous = None if previous is None else unbase64(previous, 32)
        root = take("root")
        require(root is not None, "no root")
        self.root = unbase64(root, 32)
        self.counts, last = [0] * len(CLASSES), -1
        while (value := take("leaves")) is not None:
            name, _, count = value.partition(" ")
            require(name in CLASSES and CLASSES.index(name) > last, "classes")
            last = CLASSES.index(name)
            self.counts[last] = number(count, 1, MAX_LEAVES)
        self.files = []
        while (value := take("file")) is not None:
            kind, _, rest = value.partition(" ")
            size, _, name = rest.partition(" ")
            require(kind in ("text", "binary", "whole"), "kind of a file")
            size = number(size, 0, MAX_BYTES)
            require(kind != "whole" or size == 1, "size of a whole file")
            require(NAME.fullmatch(name) and len(name) <= 95, "name of a file")
            require(not self.files or self.files[-1][2] < name, "order of files")
            self.files.append((kind, size, name))
        require(not lines, "a line that is not understood")
        require(len(self.files) <= MAX_FILES, "too many files")
        require(1 <= sum(self.counts) <= MAX_LEAVES, "number of leaves")

    def check(self, text, signature):
        m = re.fullmatch(r"([^ +]+)\+([0-9a-fA-F]{8})\+(.+)", self.key)
        require(m, "the key is malformed")
        name, key = m[1], unbase64(m[3])
        require(len(key) > 1 and key[0] == 1, "an algorithm that is not known here")
        require(len(key) == 33, "the key is malformed")
        key_hash = sha256(name.encode() + b"\n" + key)[:4]
        require(key_hash.hex() == m[2].lower(), "hash of the key")
        start, end = ("\u2014 %s " % name).encode(), b"\n"
        require(signature.startswith(start) and signature.endswith(end), "the signature's line")
        try:
            encoded = signature[len(start):-1].decode("ascii")
        except UnicodeDecodeError:
            raise Refused("the signature's line")
        raw = unbase64(encoded, 68)
        require(raw[:4] == key_hash, "a signature by another key")
        require(ed25519.verify(key[1:], text, raw[4:]), "the signature is wrong")


# The leaves.

def uvarint(b, at):
    n, shift, start = 0, 0, at
    while True:
        require(at < len(b) and shift < 63, "no number")
        n |= (b[at] & 127) << shift
        at += 1
        if b[at - 1] < 128:
            break
        shift += 7
    require(at - start == 1 or b[at - 1], "a number in another form")
    return n, at


def table(b, counts):
    """leaves.bin: open leaves as (class, salt, file, position, length),
    withheld ones as (class, level, hash)."""
    total, entries, leaf, at, withheld = sum(counts), [], 0, 0, False
    ends = [sum(counts[:i + 1]) for i in range(len(counts))]
    cls, last = 0, None
    while leaf < total:
        while leaf >= ends[cls]:
            cls, last = cls + 1, None
        require(at < len(b), "the table is cut off")
        tag, at = b[at], at + 1
        if tag:
            level = tag - 1
            require(level <= 24 and leaf % (1 << level) == 0 and leaf + (1 << level) <= total, "no such subtree")
            require(len(b) - at >= 32, "the table is cut off")
            entries.append((cls, level, b[at:at + 32]))
            at, leaf, withheld = at + 32, leaf + (1 << level), True
            continue
        require(len(b) - at >= 16, "the table is cut off")
        salt, at = b[at:at + 16], at + 16
        file, at = uvarint(b, at)
        position, at = uvarint(b, at)
        length, at = uvarint(b, at)
        require(file < MAX_FILES and position < MAX_BYTES and 1 <= length <= MAX_BYTES, "numbers of a leaf")
        require(last is None or (file, position) > last, "order of leaves")
        last = (file, position)
        entries.append((cls, salt, file, position, length))
        leaf += 1
    require(b[at:] == bytes(0 if withheld else SLACK), "what follows the table")
    return entries


def place(files, entries):
    """The value of each open leaf, by its index; every byte of the files must
    be one of them, or stand for something withheld, of which there must be enough."""
    values, missing = {}, 0
    opened = sorted((e[2], e[3], i) for i, e in enumerate(entries) if len(e) == 5)
    require(not opened or opened[-1][0] < len(files), "a leaf of no file")
    for n, (kind, size, name, data) in enumerate(files):
        at, want = 0, 0

        def gap(to):
            nonlocal at, want, missing
            missing += to - want if kind == "text" else want < to
            if kind == "binary":
                require(data[at:at + to - want] == bytes(to - want) if to - want <= len(data) - at else False, name)
                at += to - want
            elif kind == "text":
                while want < to:
                    mark = b"withheld" if at and data[at - 1:at] == b'"' else b"0"
                    require(data[at:at + len(mark)] == mark, name)
                    at, want = at + len(mark), want + 1
            want = to

        for _, position, i in [o for o in opened if o[0] == n]:
            length = entries[i][4]
            require(want <= position < size, name)
            gap(position)
            require(length <= len(data) - at, name)
            values[i] = data[at:at + length]
            at += length
            want = position + length if kind == "binary" else want + 1
        require(want <= size, name)
        gap(size)
        require(at == len(data), name)
    withheld = sum(1 << e[1] for e in entries if len(e) != 5)
    require(missing <= withheld, "%d leaves or more are missing, and %d are withheld" % (missing, withheld))
    return values


def root(entries, values):
    """The root of RFC 6962's tree. Two withheld siblings must be one hash."""
    stack, leaves = [], 0  # of (level, hash, withheld)
    for i, e in enumerate(entries):
        if len(e) == 5:
            cls, salt, file, position, _ = e
            level, withheld = 0, False
            h = sha256(salt, struct.pack(">HI", file, position), values[i])
        else:
            cls, level, h = e
            withheld = True
        if level == 0:
            h = sha256(bytes([0, cls]), h)
        leaves += 1 << level
        while leaves >> level & 1 == 0:
            left = stack.pop()
            require(not (withheld and left[2]), "withheld leaves that are not one hash")
            h, level, withheld = sha256(b"\1", left[1], h), level + 1, False
        stack.append((level, h, withheld))
    h = stack.pop()[1]
    while stack:
        h = sha256(b"\1", stack.pop()[1], h)
    return h


def verify(data):
    """The note and the number of withheld leaves by class. Raises Refused."""
    members = container(data)
    names = [name for name, _ in members]
    require(names[:2] == ["bundle.note", "leaves.bin"], "no bundle")
    note = Note(members[0][1])
    entries = table(members[1][1], note.counts)
    rest = members[2:]
    note.proofs = []
    while rest and rest[0][0].startswith("proof/"):
        name, value = rest.pop(0)
        require(re.fullmatch(r"proof/(log\.tlog-proof|[A-Za-z0-9][A-Za-z0-9._-]*\.tsr)", name), name)
        require(1 <= len(value) <= 1 << 20, name)
        note.proofs.append(name)
    require([name for name, _ in rest] == ["view/" + f[2] for f in note.files], "files that are signed and files that are there")
    files = [f + (rest[i][1],) for i, f in enumerate(note.files)]
    require(root(entries, place(files, entries)) == note.root, "the leaves do not lead to the root")
    away, leaf = [0] * len(CLASSES), 0
    ends = [sum(note.counts[:i + 1]) for i in range(len(CLASSES))]
    for e in entries:
        n = 1 if len(e) == 5 else 1 << e[1]
        if len(e) != 5:
            for c, end in enumerate(ends):
                away[c] += max(0, min(leaf + n, end) - max(leaf, end - note.counts[c]))
        leaf += n
    return note, away


def main():
    parser = argparse.ArgumentParser(description="Verifies evidence bundles of govah.")
    parser.add_argument("--key", help="the key that must have signed")
    parser.add_argument("files", nargs="+", metavar="FILE")
    args = parser.parse_args()
    worst = 0
    for path in args.files:
        with open(path, "rb") as f:
            data = f.read(MAX_BYTES + 1)
        try:
            note, away = verify(data)
            require(args.key in (None, note.key), "signed by another key: " + note.key)
        except Refused as e:
            print("%s: does not verify: %s" % (ascii(path), ascii(str(e))))
            worst = 5
            continue
        print("%s: verifies" % ascii(path))
        print("  key      %s" % note.key)
        print("  entry    %s" % note.entry.hex())
        print("  root     %s" % note.root.hex())
        if note.previous:
            print("  previous %s" % note.previous.hex())
        for c, name in enumerate(CLASSES):
            if note.counts[c]:
                print("  %-14s %d leaves, %d withheld" % (name, note.counts[c], away[c]))
        for name in note.proofs:
            print("  %s is attached and was not checked" % name)
    return worst


if __name__ == "__main__":
    sys.exit(main())
