"""Files in forms (RFC 7578), as clients upload them."""

import email
from email.message import Message

from wakeq_control.errors import InvalidBody


def file_of(content_type: bytes, body: bytes, field: str) -> bytes:
    """What a field of a form has. Raises InvalidBody where the body is no form, or has no such field."""
    head = b"Content-Type: " + content_type.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n\r\n"
    form = email.message_from_bytes(head + body)
    if form.get_content_type() == "multipart/form-data" and form.is_multipart():
        for part in form.get_payload():
            if isinstance(part, Message) and part.get_param("name", header="content-disposition") == field:
                content = part.get_payload(decode=True)
                return content if isinstance(content, bytes) else b""
    raise InvalidBody([{"type": "missing", "loc": ["body", field], "msg": "Field required", "input": None}])
