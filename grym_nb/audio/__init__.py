"""Audio: features of clips as plain functions, and the services that compute them."""

__all__: list[str] = []
