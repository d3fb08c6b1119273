"""The notebook's face: the `%grym` magic, completion, progress, and what they show."""

__all__: list[str] = []
