"""Audio: features of clips as plain functions, and the services that compute them."""
