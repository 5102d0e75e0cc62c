"""The shared parameters: what actor-learners pull and push."""
