"""Revisions, ranges and watches over an append-only log. Pure: async def, but no event loop."""
