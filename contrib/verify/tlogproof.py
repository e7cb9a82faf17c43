#!/usr/bin/env python3
"""Verifies that a transparency log holds a bundle of govah: a tlog-proof
(c2sp.org/tlog-proof) under a policy (c2sp.org/tlog-policy), in Python's
standard library alone, written from those texts and docs/formats/tlog-v1.md.

    python3 tlogproof.py --policy POLICY FILE.govah...
    python3 tlogproof.py --policy POLICY --entry HEX PROOF

Prints the index, the log, and between which times the quorum vouches for it;
exits with 5 if something does not verify. It contacts nobody, and does not
look at what is in the bundle: verify.py does.
"""

import argparse
import base64
import binascii
import datetime
import hashlib
import ipaddress
import json
import re
import sys
import zipfile

import ed25519

MAX_BYTES = 1 << 20
HEADER = "c2sp.org/tlog-proof@v1"
MAX_EXTRA = 16 << 10  # bytes of base64
MAX_LINES = 128  # logs, witnesses and groups of a policy, each
LOG, WITNESS = 1, 4  # types of keys
URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[([0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?"
                 r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?")


class Refused(Exception):
    """The proof does not prove it, or the policy is none."""


def require(condition, why):
    if not condition:
        raise Refused(why)


def unbase64(text, length=None):
    try:
        b = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Refused("no base64: %r" % text)
    require(base64.b64encode(b).decode() == text, "base64 in another form")
    require(length is None or len(b) == length, "not %s bytes" % length)
    return b


def decimal(text):
    require(text.isascii() and text.isdigit() and str(int(text[:20])) == text, "no decimal number: %r" % text[:40])
    n = int(text)
    require(n < 1 << 63, "too large a number")
    return n


def valid_name(name):
    return name != "" and "+" not in name and not any(
        c.isspace() or c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in name)  # the last: no UTF-8


def check_url(text):
    m = URL.fullmatch(text)
    require(m, "no URL of a log or a witness: %r" % text)
    if m[1]:
        try:
            ipaddress.IPv6Address(m[1])
        except ValueError:
            raise Refused("no address: %r" % text)


class Key:
    """A public key: NAME+ID+KEY (c2sp.org/signed-note)."""

    def __init__(self, text, kind):
        parts = text.split("+", 2)
        require(len(parts) == 3 and valid_name(parts[0]), "no public key: %r" % text)
        self.name, raw = parts[0], unbase64(parts[2])
        require(len(raw) == 33 and raw[0] == kind, "a key of another type: %r" % text)
        self.kind, self.key = kind, raw[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        require(parts[1] == self.id.hex(), "the key's ID is not its own")

    def verify(self, text, signature):
        """The time of a cosignature, 0 of a log's signature; None if it is false."""
        if self.kind == LOG:
            return 0 if ed25519.verify(self.key, text, signature) else None
        if len(signature) != 72:
            return None
        seconds = int.from_bytes(signature[:8], "big")
        if not 0 < seconds < 1 << 63:
            return None
        message = b"cosignature/v1\ntime %d\n" % seconds + text
        return seconds if ed25519.verify(self.key, message, signature[8:]) else None


class Policy:
    def __init__(self, data):
        self.logs, self.witnesses = [], []
        groups, used, self.quorum, decided = {}, set(), None, False
        counts = {"log": 0, "witness": 0, "group": 0}
        require(len(data) <= 64 << 10 and data.endswith(b"\n"), "the policy is too long, or its last line has no end")
        require(all(b in (9, 10) or b >= 0x20 and b != 0x7F for b in data), "a control character in the policy")
        for line in data.decode("utf-8", "surrogateescape").split("\n"):
            words = [w for w in line.replace("\t", " ").split(" ") if w]
            if not words or words[0].startswith("#"):
                continue
            kind, rest = words[0], words[1:]
            if kind in counts:
                counts[kind] += 1
                require(counts[kind] <= MAX_LINES, "too many lines of %s" % kind)
            if kind == "log" and len(rest) in (1, 2):
                key = Key(rest[0], LOG)
                require(key.key not in [k.key for k in self.logs], "a log twice")
                if len(rest) == 2:
                    check_url(rest[1])
                self.logs.append(key)
            elif kind in ("witness", "group") and len(rest) >= 2:
                name = rest[0]
                require(name != "none" and name not in groups, "the name %r twice" % name)
                if kind == "witness":
                    require(len(rest) <= 3, "too much of a witness")
                    key = Key(rest[1], WITNESS)
                    require(key.key not in [k.key for k in self.witnesses], "a witness twice")
                    if len(rest) == 3:
                        check_url(rest[2])
                    self.witnesses.append(key)
                    groups[name] = key
                    continue
                members = rest[2:]
                require(members, "an empty group")
                for m in members:
                    require(m in groups and m not in used, "%r is not defined, or a member already" % m)
                    used.add(m)
                count = {"all": len(members), "any": 1}.get(rest[1])
                if count is None:
                    count = decimal(rest[1])
                require(1 <= count <= len(members), "a count that cannot be")
                groups[name] = (count, [groups[m] for m in members])
            elif kind == "quorum" and len(rest) == 1:
                require(not decided, "two quorums")
                decided = True
                if rest[0] != "none":
                    require(rest[0] in groups, "%r is not defined" % rest[0])
                    self.quorum = groups[rest[0]]
            else:
                raise Refused("no line of a policy: %r" % line)
        require(decided, "no quorum line")

    def times(self, at):
        """(since, by) of a quorum whose keys cosigned at times; None if it is none."""

        def of(group, first):
            if isinstance(group, Key):
                return at.get(id(group))
            count, members = group
            known = sorted(t for t in (of(m, first) for m in members) if t is not None)
            if len(known) < count:
                return None
            return known[count - 1] if first else known[-count]

        if self.quorum is None:
            return 0, 0
        by = of(self.quorum, True)
        require(by is not None, "no quorum of witnesses has cosigned")
        return of(self.quorum, False), by


def checkpoint(note, policy):
    """Origin, size, root, since and by of a signed checkpoint."""
    require(len(note) <= 64 << 10, "a checkpoint that is too long")
    try:
        decoded = note.decode()
    except UnicodeDecodeError:
        raise Refused("no UTF-8")
    require(all(c == "\n" or c >= " " for c in decoded), "a control character")
    cut = decoded.rfind("\n\n")
    require(cut >= 0 and decoded.endswith("\n"), "no signed note")
    text, signatures = decoded[: cut + 1], decoded[cut + 2 :]
    lines = text.split("\n")[:-1]
    require(len(lines) >= 3 and all(lines), "a checkpoint has three lines")
    origin, size, root = lines[0], decimal(lines[1]), unbase64(lines[2], 32)
    require(size <= 1 << 62, "too large a tree")
    require(policy.logs, "the policy names no log")
    signed, at, seen, count = False, {}, set(), 0
    require(signatures != "", "no signatures")
    for line in signatures.split("\n")[:-1]:
        count += 1
        parts = line.split(" ", 2)
        require(len(parts) == 3 and parts[0] == "—" and valid_name(parts[1]) and count <= 100, "no line of a signature")
        raw = unbase64(parts[2])
        require(len(raw) >= 5, "too short a signature")
        for key in policy.logs + policy.witnesses:
            if (key.name, key.id) != (parts[1], raw[:4]) or (key.name, key.id) in seen:
                continue
            seen.add((key.name, key.id))
            when = key.verify(text.encode(), raw[4:])
            require(when is not None, "the signature of %s is false" % key.name)
            if key.kind == WITNESS:
                at[id(key)] = when
            elif key.name == origin:
                signed = True
    require(signed, "not signed by a log of the policy")
    since, by = policy.times(at)
    return origin, size, root, since, by


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def inclusion(path, index, size, leaf):
    """The root that a path leads to (RFC 9162, 2.1.3.2)."""
    require(index < size, "an index beyond the tree")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        require(sn != 0, "too long a path")
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "too short a path")
    return r


def verify(proof, entry, policy):
    """What a proof proves of an entry of 32 bytes."""
    require(len(entry) == 32 and len(proof) <= MAX_BYTES, "no entry, or too long a proof")
    head, empty, note = proof.partition(b"\n\n")
    require(empty, "no checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Refused("no proof")
    require(lines.pop(0) == HEADER, "no proof of this version")
    if lines and lines[0].startswith("extra "):
        extra = lines.pop(0)[6:]
        require(len(extra) <= MAX_EXTRA, "too much extra data")
        unbase64(extra)
    require(lines and lines[0].startswith("index "), "no index")
    index = decimal(lines.pop(0)[6:])
    require(len(lines) <= 63, "too long a path")
    path = [unbase64(line, 32) for line in lines]
    origin, size, root, since, by = checkpoint(note, policy)
    require(inclusion(path, index, size, hashlib.sha256(b"\x00" + entry).digest()) == root, "the path does not lead to the root")
    return {"index": index, "log": origin, "size": size, "since": since, "by": by}


def vectors(name):
    """Compares with what another implementation says of the same."""
    with open(name, encoding="utf-8") as f:
        rows = json.load(f)
    bad = 0
    for row in rows:
        try:
            policy = base64.b64decode(row["policy_base64"]) if "policy_base64" in row else row["policy"].encode()
            got = verify(row["proof"].encode(), bytes.fromhex(row["entry"]), Policy(policy))
            same = row["valid"] and all(got[k] == row.get(k, 0) for k in ("index", "size", "since", "by"))
        except Refused as why:
            got, same = str(why), not row["valid"]
        if not same:
            bad += 1
            print("%s: valid is %s there, and here it says %s" % (row["name"], row["valid"], got))
    print("%d vectors, %d differ" % (len(rows), bad))
    return 1 if bad else 0


def moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def main():
    parser = argparse.ArgumentParser(description="Verifies that a log holds a bundle.")
    parser.add_argument("--policy", help="whose signatures are believed (c2sp.org/tlog-policy)")
    parser.add_argument("--entry", help="the 32 bytes in hex; the files are bare proofs then")
    parser.add_argument("--vectors", help="compare with a file of vectors")
    parser.add_argument("files", nargs="*", metavar="FILE")
    args = parser.parse_args()
    if args.vectors:
        return vectors(args.vectors)
    if not args.policy or not args.files:
        parser.error("it needs --policy and a file")
    code = 0
    try:
        with open(args.policy, "rb") as f:
            policy = Policy(f.read(MAX_BYTES))
    except (Refused, OSError) as why:
        print("%r: %s" % (args.policy, why), file=sys.stderr)
        return 2
    for name in args.files:
        try:
            if args.entry:
                entry = bytes.fromhex(args.entry)
                with open(name, "rb") as f:
                    proof = f.read(MAX_BYTES + 1)
            else:
                with zipfile.ZipFile(name) as z:
                    with z.open("bundle.note") as f:
                        entry = hashlib.sha256(f.read(MAX_BYTES)).digest()
                    with z.open("proof/log.tlog-proof") as f:
                        proof = f.read(MAX_BYTES + 1)
            got = verify(proof, entry, policy)
        except (Refused, OSError, KeyError, ValueError, zipfile.BadZipFile) as why:
            print("%r: not proved: %s" % (name, why))
            code = 5
            continue
        print("%r: entry %d of the log %r" % (name, got["index"], got["log"]))
        if got["by"]:
            print("  existed not after %s" % moment(got["by"]))
        else:
            print("  the policy asks for no witness: nothing is said of when")
    return code


if __name__ == "__main__":
    sys.exit(main())
