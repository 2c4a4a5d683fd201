"""Tests of deployments.huggingface.protocol.tools."""
