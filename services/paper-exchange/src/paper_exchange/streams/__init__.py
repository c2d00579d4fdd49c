"""The WebSocket half of the protocol."""
