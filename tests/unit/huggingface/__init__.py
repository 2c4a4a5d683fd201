"""Tests of the Hugging Face backend, on models of a few thousand weights."""
