"""HTTP to engine calls and back; nothing is decided here about messages."""
