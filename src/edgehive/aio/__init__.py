"""The only IO: event loop, sockets, TLS, SQLite, gRPC, subprocesses."""
