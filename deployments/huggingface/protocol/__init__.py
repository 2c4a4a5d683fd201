"""OpenAI's API: from a body to what is to be generated, and from what was generated to bytes."""
