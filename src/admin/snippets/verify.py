import hashlib
import hmac
import sys


def is_genuine(body: bytes, header: str | None, secret: str) -> bool:
    """`body` is the raw request body, before any JSON parser has touched it."""
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), (header or "").encode())


# Try it: python3 verify.py "$SIGNATURE" "$SECRET" < body.json
if __name__ == "__main__":
    header, secret = sys.argv[1:]
    sys.exit(0 if is_genuine(sys.stdin.buffer.read(), header, secret) else 1)
