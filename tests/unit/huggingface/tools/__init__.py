"""Tests of deployments.huggingface.tools."""
