"""`blake2b`, as `hashlib` has it, without OpenSSL, which `import hashlib` loads: milliseconds of a start."""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter built without hashes of its own
    from hashlib import blake2b

__all__ = ["blake2b"]
