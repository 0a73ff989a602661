"""Protocol machines without IO: bytes, time and keys in; bytes, timers and events out."""
