"""Ed25519 signatures (RFC 8032, 5.1.7), to check them with Python's standard
library alone. It is slow (milliseconds a signature), not constant in time and
signs nothing: there is no secret here.

It takes and refuses what Go's crypto/ed25519 does: S must be below the order of
the group, R is compared as bytes, and the equation has no cofactor.
"""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)  # a square root of -1


def _add(a, b):
    """Sum of two points (X, Y, Z, T), x = X/Z, y = Y/Z, xy = T/Z."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    p, q, r, s = f - e, h - g, h + g, f + e
    return (p * q % P, r * s % P, q * r % P, p * s % P)


def _times(n, a):
    out = (0, 1, 1, 0)
    while n:
        if n & 1:
            out = _add(out, a)
        a = _add(a, a)
        n >>= 1
    return out


def _point(b):
    """The point of 32 bytes, None if there is none."""
    y = int.from_bytes(b, "little")
    sign, y = y >> 255, (y & (2**255 - 1)) % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT % P
    if x * x % P != square:
        return None
    if x & 1 != sign:
        x = -x % P
    return (x, y, 1, x * y % P)


def _bytes(a):
    z = pow(a[2], P - 2, P)
    x, y = a[0] * z % P, a[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_Y = 4 * pow(5, P - 2, P) % P
BASE = _point(_Y.to_bytes(32, "little"))


def verify(key, message, signature):
    """Whether signature (64 bytes) is key's (32 bytes) over message."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a = _point(key)
    s = int.from_bytes(signature[32:], "little")
    if a is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    minus = (-a[0] % P, a[1], a[2], -a[3] % P)
    return _bytes(_add(_times(s, BASE), _times(k, minus))) == signature[:32]
