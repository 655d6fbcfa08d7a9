"""Revisions, ranges and watches over a log. Pure: `aio.storage` moves its entries to a disk and wakes watchers."""
