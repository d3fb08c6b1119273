"""Tests of grym_nb; they mirror the package."""
