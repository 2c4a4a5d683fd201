"""What is known of the 17 models: tests/facts/models17.json, not made from the catalogue."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "facts" / "models17.json"


def facts() -> dict[str, dict[str, Any]]:
    """Every model of the UltraFeedback pool by its key."""
    return {model["key"]: model for model in json.loads(FILE.read_text("utf-8"))["models"]}


LOCAL = {key: fact for key, fact in facts().items() if fact["kind"] == "local"}
API = {key: fact for key, fact in facts().items() if fact["kind"] == "api"}
