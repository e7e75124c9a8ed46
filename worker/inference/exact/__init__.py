"""The exact model: specification, format, import, and a readable reference. See docs/exact-inference.md."""
