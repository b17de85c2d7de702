"""What RFC 9112 has a server refuse, and the parser lets pass.

A server behind a proxy must read each request's end, and whom it is for, exactly as the proxy did; where they differ,
what one takes for a body the other takes for a request. So whatever can be read in two ways is refused, and its
connection closed.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from wakeq_server.errors import BadRequest
from wakeq_server.http.wire import Headers

HOST_MAX = 260
"""A name of the DNS, and a port."""

_is_target = re.compile(rb"[!-~]+").fullmatch
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Za-z.:%_-]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]{0,5})?")


def check_head(version: str, target: bytes, headers: Headers) -> None:
    """Refuse a head that can be read in two ways. Raises BadRequest."""
    if version not in ("1.1", "1.0"):
        raise BadRequest(f"HTTP/{version} is not spoken here; HTTP/1.1 is")
    if not _is_target(target):
        raise BadRequest("the target must be printable ASCII without spaces; percent-encode the rest")
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            _check_host(value)
        elif name == b"transfer-encoding":
            _check_coding(version, value)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise BadRequest(f"the request must have one Host; it has {hosts or 'none'}")


def origin_form(target: bytes, headers: Headers) -> bytes:
    """The target as a path. One in absolute form says the host as well, and ``Host`` becomes that (RFC 9112, 3.2.2).

    Raises BadRequest.
    """
    if target.startswith(b"/") or target == b"*":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1]:
        raise BadRequest("the target must be a path, or an http:// or https:// URL")
    _check_host(absolute[1])
    headers[:] = [header for header in headers if header[0] != b"host"] + [(b"host", absolute[1])]
    return absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]


def body_header(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The header line that says how the body ends; None where there is no body."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return b"%b: %b\r\n" % (name, value)
    return None


# Nearly all requests name the same few.
@lru_cache(maxsize=64)
def _check_host(value: bytes) -> None:
    if len(value) > HOST_MAX or not _HOST.fullmatch(value):
        raise BadRequest("Host must be one host name or address, with or without a port")


def _check_coding(version: str, value: bytes) -> None:
    if version == "1.0":
        raise BadRequest("Transfer-Encoding: HTTP/1.0 has none")
    if value.lower() != b"chunked":
        raise BadRequest("Transfer-Encoding: must be chunked, and nothing else")
